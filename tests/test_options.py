"""What a study may vary beyond the paper: starts of another kind, pooling, what is taught, passes, and rates chosen on several seeds."""

import json

import numpy as np
import pytest
import reviews
import torch
from tiny_bert import a_mask, config_of, some_ids, stirred
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from pdstudy import Study, load_results, run_study, stages
from pdstudy.data.batches import Ids
from pdstudy.models import encoder, inference, losses
from pdstudy.models.train import Watch
from pdstudy.models.weights import load_classifier
from pdstudy.run import student_steps
from pdstudy.run.inputs import Inputs, read_record
from pdstudy.storage.store import Store
from pdstudy.study import plan
from pdstudy.study.settings import ParamsError


def review(rng, kind: str) -> str:
    return " ".join(rng.choice([*reviews.WORDS[kind], *reviews.NEUTRAL], 6)) + f" {rng.integers(100_000)}"


@pytest.fixture(scope="module")
def study_of(tmp_path_factory):
    """Make a study of 360 reviews, with some settings changed."""
    folder, rng = tmp_path_factory.mktemp("options"), np.random.default_rng(0)
    kinds = ["scorn", "praise", "praise"] * 120
    (folder / "reviews.csv").write_text("review,verdict\n" + "".join(f"{review(rng, k)},{k}\n" for k in kinds))
    (folder / "more.txt").write_text("".join(review(rng, k) + "\n" for k in kinds))

    def make(name, **changes):
        own = {"train": "reviews.csv", "text": "review", "label": "verdict", "transfer": "more.txt"}
        (folder / f"{name}.yaml").write_text(json.dumps(reviews.STUDY | {"name": name, "task": own} | changes))
        return Study.read(folder / f"{name}.yaml")

    return make


# A start with heads of 32 and its own word pieces


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """The folder of a BERT of 1/64 with two heads of 32, as `AutoModel` saves it: no MLM head, and its own vocabulary."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("narrow")
    words = [word for kind in reviews.WORDS.values() for word in kind] + reviews.NEUTRAL
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *map(str, range(10)), *(f"##{i}" for i in range(10))]
    cut = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    cut.normalizer, cut.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    BertTokenizerFast(tokenizer_object=cut).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 256}
    BertModel(BertConfig(vocab_size=len(pieces), **shape)).save_pretrained(folder)
    return folder


def test_an_encoder_with_heads_of_32_and_its_own_word_pieces_is_a_student_beside_others(study_of, narrow):
    sizes = {
        "sizes": ["1/64", "1/128"],
        "init_std": {"64": 0.06, "128": 0.05},
        "recipes": ["PF", "PD"],
        "teacher": {"size": None, "linear": True},
    }
    study = study_of("narrow", family={"1/64": str(narrow), "1/128": "zoo/2-128-s0"}, **sizes | {"sizes": ["1/64"]})
    run_study(study, workers=0)
    table = load_results(study.name)
    assert (table[(table.split == "test") & (table.metric == "accuracy") & table.recipe.isin(["PF", "PD"])].value > 0.8).all()
    made, store = plan.make(study), Store()
    model = load_classifier(store.open(next(s.model for s in made.students if s.recipe == "PD")))
    assert model.bert.config.num_attention_heads == 2
    both = plan.make(
        study_of("mixed", family={"1/64": str(narrow), "2/128": "zoo/2-128-s0"}, **sizes | {"sizes": ["1/64", "2/128"]})
    )
    cut = {s.size: both.steps[s.evaluation].parents["ids"] for s in both.students if s.recipe == "PD"}
    assert cut["1/64"] != cut["2/128"] and len(both.of_stage("tokenizer")) == 2
    assert {s.settings.get("heads") for s in both.of_stage("distill")} == {2, None}


# Pooling


def test_mean_pooling_reads_the_mean_of_the_real_pieces():
    config = config_of()
    config.classifier_pooling = "mean"
    model = stirred(encoder.Classifier(config))
    ids, mask = some_ids(3, 7), a_mask(3, 7)
    hidden = encoder.encode(model.bert.bert, ids, mask, at=torch.arange(21)).view(3, 7, -1)
    means = torch.stack([hidden[i, mask[i]].mean(0) for i in range(3)])
    dense = model.bert.bert.pooler.dense
    wanted = model.bert.classifier(torch.tanh(means @ dense.weight.T + dense.bias))
    assert torch.allclose(model(ids, mask), wanted, atol=1e-5)
    alone = model(ids[:1, : int(mask[0].sum())])
    assert torch.allclose(model(ids, mask)[:1], alone, atol=1e-5)


# What is taught


def test_logit_regression_is_blind_to_a_constant():
    student, teacher = torch.tensor([[1.0, 3.0]]), torch.tensor([[4.0, 4.0]])
    assert losses.logit_loss(student, teacher).item() == pytest.approx(1.0)  # centred: (-1, 1) beside (0, 0)
    assert losses.logit_loss(student + 7, teacher).item() == pytest.approx(1.0)


def test_true_labels_are_mixed_into_probabilities():
    mixed = stages.mixed(np.log(np.array([[0.8, 0.2]])), np.array([1]), 0.5)
    assert np.exp(mixed) == pytest.approx(np.array([[0.4, 0.6]]))


def test_texts_follow_texts():
    one, two = Ids(np.array([1, 2, 3]), np.array([0, 1, 3])), Ids(np.array([7]), np.array([0, 1]))
    both = one.followed_by(two)
    assert both.flat.tolist() == [1, 2, 3, 7] and both.starts.tolist() == [0, 1, 3, 4]


def test_a_shift_gives_the_mean_probabilities_that_are_asked_for():
    assert stages.matching_shift(np.log([[0.8, 0.2]]), np.array([0.5, 0.5])) == pytest.approx([np.log(0.5), np.log(2)], abs=1e-3)
    logits, shares = np.random.default_rng(0).normal(0, 4, (50, 3)), np.array([0.7, 0.2, 0.1])
    p = np.exp(logits + stages.matching_shift(logits, shares))
    assert (p / p.sum(axis=1, keepdims=True)).mean(axis=0) == pytest.approx(shares, abs=1e-4)


def test_a_student_of_unbalanced_transfer_text_gets_the_class_shares_of_labelled_text(study_of, tmp_path):
    """D_T is praise but for one text in ten, D_L for two texts in three."""
    rng, shares = np.random.default_rng(1), {}
    (tmp_path / "skewed.txt").write_text("".join(review(rng, k) + "\n" for k in ["scorn", *["praise"] * 9] * 30))
    for matched in (False, True):
        study = study_of(f"matched-{matched}".lower(), recipes=["PD"], distill=reviews.TRAIN | {"epochs": 1, "match_classes": matched},
                         teacher={"size": None, "linear": True})  # fmt: skip
        study.task.transfer[:] = [str(tmp_path / "skewed.txt")]
        run_study(study, workers=0)
        (search,), store = plan.make(study).of_stage("search"), Store()
        inputs = Inputs(plan.make(study).of_stage("distill")[0], store)
        train = inputs.labelled("train")
        logits = inference.logits(load_classifier(store.open(search.digest)), train.ids, inputs.vocabulary().pad, "fp32")
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares[matched] = (p / p.sum(axis=1, keepdims=True)).mean(axis=0)[1], train.labels.mean()
    assert shares[True][0] == pytest.approx(shares[True][1], abs=0.01) and abs(shares[False][0] - shares[False][1]) > 0.03


def test_all_of_them_at_once(study_of):
    train = reviews.TRAIN | {"epochs": [2, 6]}
    distill = train | {"labelled": True, "true_labels": 0.5, "loss": "logits"}
    changes = {
        "finetune": train,
        "distill": distill,
        "pooling": "mean",
        "recipes": ["PD"],
        "teacher": {"size": None, "linear": True},
    }
    study = study_of("all", **changes)
    run_study(study, workers=0)
    made, store = plan.make(study), Store()
    assert made.counts()["label"] == 2 and len(made.of_stage("distill")) == 2
    (search,) = made.of_stage("search")
    record = json.loads((store.open(search.digest) / "record.json").read_text())
    assert [row["epochs"] for row in record["searched"]] == [2, 6] and record["epochs"] in (2, 6)
    model = load_classifier(store.open(search.digest))
    assert model.bert.config.classifier_pooling == "mean"
    table = load_results(study.name)
    (value,) = table[(table.recipe == "PD") & (table.split == "test") & (table.metric == "accuracy")].value
    assert value > 0.8


def test_true_labels_need_labelled_texts_and_every_arm_as_many_epochs(study_of):
    with pytest.raises(ParamsError, match="true_labels: only texts of D_L have true labels; set labelled to true"):
        study_of("refused", distill=reviews.TRAIN | {"true_labels": 0.5})
    with pytest.raises(ParamsError, match=r"finetune.epochs lists 1 and distill.epochs 2: recipes are compared fairly"):
        study_of("refused", distill=reviews.TRAIN | {"epochs": [1, 2]})


# Rates on several seeds


@pytest.mark.parametrize(("largest_wins", "n_trained"), [(True, 4), (False, 0)])
def test_where_the_largest_rate_wins_rates_are_chosen_on_several_seeds(study_of, monkeypatch, largest_wins, n_trained):
    """Two rates: on seed 0 one is better, on seeds 1 and 2 the larger collapses."""
    study = study_of(f"seeds-{largest_wins}".lower(), search_seeds=3, recipes=["Basic"], teacher={"size": None, "linear": True},
                     finetune=reviews.TRAIN | {"rates": [0.001, 0.002], "epochs": 1},
                     distill=reviews.TRAIN | {"rates": [0.001, 0.002]})  # fmt: skip
    trained = []

    def train(step, inputs, folder, watch, rate=None):
        s = step.settings
        if step.digest not in plan.make(study).steps:
            trained.append((s["rate"], s["seed"]))
        right = 0.9 if (s["rate"] == 0.002) == largest_wins else 0.8
        right = right if s["seed"] == 0 or s["rate"] == 0.001 else 0.5
        _write_student(folder)
        return {"rate": s["rate"], "dev": {"accuracy": right}, "collapsed": False, "diverged": False, "seconds": 2.0}

    record, place = _searched(study, train, monkeypatch)
    assert len(trained) == n_trained
    assert record["rate"] == 0.001
    kept = sorted(folder.name for folder in place.iterdir() if folder.is_dir())
    assert kept == (["seed-1", "seed-2"] if n_trained else [])
    assert record["seconds"] == 2.0 * (n_trained - len(kept))  # those of its parents and of kept students are theirs


@pytest.mark.parametrize("search_seeds", [1, 2])
def test_a_lower_rate_that_learns_where_every_listed_one_collapses_is_chosen(study_of, monkeypatch, search_seeds):
    study = study_of(f"lower-{search_seeds}", search_seeds=search_seeds, recipes=["Basic"], teacher={"size": None, "linear": True},
                     finetune=reviews.TRAIN | {"rates": [0.01, 0.03], "epochs": 1},
                     distill=reviews.TRAIN | {"rates": [0.01, 0.03]})  # fmt: skip

    def train(step, inputs, folder, watch, rate=None):
        rate = rate or step.settings["rate"]
        _write_student(folder)
        accuracy = 0.8 if rate < 0.01 else 0.5
        return {"rate": rate, "dev": {"accuracy": accuracy}, "collapsed": accuracy == 0.5, "diverged": False, "seconds": 2.0}

    record, _ = _searched(study, train, monkeypatch)
    assert record["rate"] == pytest.approx(0.01 / 3) and not record["collapsed"]


def test_a_student_that_the_search_has_trained_is_not_trained_again_and_is_the_same(study_of, tmp_path, monkeypatch):
    """With one rate the largest always wins, so that the search trains seeds 0 and 1."""
    rates = reviews.TRAIN | {"rates": [0.002]}
    study = study_of("kept", search_seeds=2, recipes=["PF"], seeds=[0, 1, 2], teacher={"size": None, "linear": True},
                     finetune=rates, distill=rates, curves={"transfer": [], "labels": [100], "sizes": ["1/64"], "recipes": ["PF"]})  # fmt: skip
    run_study(study, 0)
    store, trained = Store(), student_steps._trained_in_search
    of_seeds = {s.settings["seed"]: s for s in plan.make(study).of_stage("finetune") if s.label.endswith("best rate")}
    kept = trained(of_seeds[1], Inputs(of_seeds[1], store), tmp_path)
    assert kept is not None and trained(of_seeds[2], Inputs(of_seeds[2], store), tmp_path) is None
    for step in plan.make(study).of_stage("finetune"):
        if step.label.endswith("100 texts"):
            assert trained(step, Inputs(step, store), tmp_path) is None, "a curve's student has fewer texts"
    monkeypatch.setattr(student_steps, "_trained_in_search", lambda *_: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a run
    again = student_steps.train_student(of_seeds[1], Inputs(of_seeds[1], store), tmp_path, Watch())
    torch.set_num_threads(threads)
    there = store.open(of_seeds[1].digest)
    assert (there / "model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    assert kept["dev"] == again["dev"] and read_record(there)["seconds"] == kept["seconds"]


def _searched(study, train, monkeypatch):
    """Return the record of the study's search and its folder, where `train` makes the students."""
    monkeypatch.setattr(student_steps, "train_student", train)
    planned, store = plan.make(study), Store()
    (search,) = planned.of_stage("search")
    for step in planned.of_stage("finetune"):
        store.write(step.stage, step.digest, lambda folder, step=step: _candidate(step, folder, train))
    place = store.root / "tried" / study.name
    place.mkdir(parents=True)
    return student_steps.search(search, Inputs(search, store), place, Watch()), place


def _write_student(folder):
    for file in ("model.safetensors", "config.json", "curve.jsonl"):
        (folder / file).write_text("{}")


def _candidate(step, folder, train):
    (folder / "record.json").write_text(json.dumps(train(step, None, folder, None)))
    return {"settings": step.settings, "parents": step.parents, "label": step.label}
