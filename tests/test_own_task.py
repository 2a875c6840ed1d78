"""A task in files of one's own, from the params file to the numbers; and what is caught before a student is trained."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import reviews
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from pdstudy import Study, load_results, run_study
from pdstudy.__main__ import app
from pdstudy.data.batches import Ids
from pdstudy.run.scheduler import RunError
from pdstudy.storage import paths
from pdstudy.storage.store import Store
from pdstudy.study import plan
from pdstudy.study.settings import ParamsError

STUDY = reviews.STUDY | {"name": "own"}


def review(rng, kind: str) -> str:
    return " ".join(rng.choice([*reviews.WORDS[kind], *reviews.NEUTRAL], 6)) + f" {rng.integers(100_000)}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A params file beside a table of 360 reviews, one class in three, and lines of transfer texts."""
    folder, rng = tmp_path_factory.mktemp("own task"), np.random.default_rng(0)
    kinds = ["scorn", "praise", "praise"] * 120
    (folder / "reviews.csv").write_text("review,verdict\n" + "".join(f"{review(rng, k)},{k}\n" for k in kinds))
    (folder / "more.txt").write_text("".join(review(rng, k) + "\n" for k in kinds))
    task = {"train": "reviews.csv", "text": "review", "label": "verdict", "transfer": "more.txt"}
    (folder / "own.yaml").write_text(json.dumps(STUDY | {"task": task}))
    return folder


@pytest.fixture(scope="module")
def study(folder):
    study = Study.read(folder / "own.yaml")
    run_study(study, workers=0)
    return study


@pytest.fixture
def teacher(study, tmp_path):
    """The study's own teacher in a folder, as somebody else would give it: its classes without names."""
    made, store = plan.make(study), Store()
    (model,) = {s.model for s in made.students if s.recipe == "teacher"}
    (tokenizer,) = made.of_stage("tokenizer")
    folder = tmp_path / "teacher"
    shutil.copytree(store.open(model), folder)
    for file in store.open(tokenizer.digest).glob("*.json"):
        shutil.copy(file, folder)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "LABEL_0", "1": "LABEL_1"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def taught_by(study: Study, folder) -> Study:
    return study.model_copy(
        update={"name": "own-given", "task": study.task.model_copy(update={"labels": ["praise", "scorn"]}),
                "teacher": study.teacher.model_copy(update={"size": None, "folder": str(folder)})}
    )  # fmt: skip


def head(folder, change) -> None:
    weights = load_file(folder / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = change(weights[name]).contiguous()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_a_study_of_ones_own_files_learns_and_names_its_classes(study):
    metrics = load_results(study.name)
    accuracy = metrics[(metrics.split == "test") & (metrics.metric == "accuracy")].set_index("recipe").value
    assert accuracy.drop("majority").min() > 0.9 and set(metrics.task) == {"mine"}
    (model,) = {s.model for s in plan.make(study).students if s.recipe == "PD"}
    assert json.loads((Store().open(model) / "config.json").read_text())["id2label"] == {"0": "praise", "1": "scorn"}


def test_the_place_of_a_file_is_no_part_of_a_study_and_its_words_are(study, folder, tmp_path):
    there = shutil.copytree(folder, tmp_path / "moved")
    assert set(plan.make(Study.read(there / "own.yaml")).steps) == set(plan.make(study).steps)
    with (there / "reviews.csv").open("a") as file:
        file.write("one more film,praise\n")
    assert not set(plan.make(Study.read(there / "own.yaml")).steps) & set(plan.make(study).steps)


def test_a_file_that_is_not_there_is_named_before_anything_is_planned(folder):
    values = yaml.safe_load((folder / "own.yaml").read_text())
    values["task"]["train"] = "gone.csv"
    (folder / "gone.yaml").write_text(json.dumps(values))
    with pytest.raises(ParamsError, match=r"task.train: .*gone.csv does not exist; paths are relative to the params file"):
        plan.make(Study.read(folder / "gone.yaml"))


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ({"trian": "a.csv"}, "task.trian: unknown key; did you mean 'train'?"),
        ({"train": "a.csv", "text": ["a", "b", "c"]}, "task.text: value should have at most 2 items"),
        ({"train": "a.csv", "text": "x", "label": "x"}, "task: text and label must be different columns"),
        ({"train": "a.csv", "labels": ["a"]}, "task: labels: name at least two classes"),
        ({"train": "a.csv", "name": "movies"}, "task: name 'movies': use small letters"),
        ({}, "task: give train, a table of labelled texts; or only a corpus"),
        ({"corpus": "a.txt", "test": "t.csv"}, "task: give train"),
    ],
)
def test_a_task_that_is_not_described_is_refused_by_its_key(task, sentence, tmp_path):
    (tmp_path / "bad.yaml").write_text(json.dumps(STUDY | {"task": task}))
    with pytest.raises(ParamsError, match=sentence.replace("?", r"\?")):
        Study.read(tmp_path / "bad.yaml")


def test_a_given_teacher_whose_classes_have_no_names_is_believed_where_it_is_right(study, teacher):
    run_study(taught_by(study, teacher), workers=0)


def test_a_given_teacher_whose_classes_have_no_names_needs_an_order_that_somebody_gave(study, teacher):
    from_folder = taught_by(study, teacher)
    with pytest.raises(
        RunError, match=r"the teacher's classes have no names, only numbers; say which is which: id2label .* or task.labels"
    ):
        run_study(from_folder.model_copy(update={"task": study.task}), workers=0)


def test_a_teacher_with_swapped_classes_is_found_out(study, teacher):
    head(teacher, lambda w: w.flip(0))
    with pytest.raises(
        RunError, match=r"it seems to predict 'praise' for 'scorn', 'scorn' for 'praise' \(exchanged, it is right on"
    ):
        run_study(taught_by(study, teacher), workers=0)


def test_a_teacher_whose_names_are_in_another_order_is_refused(study, teacher):
    config = json.loads((teacher / "config.json").read_text())
    config["id2label"] = {"0": "scorn", "1": "praise"}
    (teacher / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=r"the teacher's classes are \['scorn', 'praise'\], the task's \['praise', 'scorn'\]"):
        run_study(taught_by(study, teacher), workers=0)


def test_a_teacher_of_other_classes_than_the_tasks_is_refused_with_both_numbers(study, teacher):
    head(teacher, lambda w: w[[0, 1, 1]])
    config = json.loads((teacher / "config.json").read_text())
    config["id2label"] = {str(i): f"LABEL_{i}" for i in range(3)}
    (teacher / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=r"the teacher knows 3 classes, the task 2 \(praise, scorn\)"):
        run_study(taught_by(study, teacher), workers=0)


def test_a_teacher_that_knows_only_the_majority_class_teaches_nobody(study, teacher):
    head(teacher, lambda w: w * 0)
    with pytest.raises(RunError, match=r"the teacher is right on 6\d\.\d% of dev, the majority class on 6\d\.\d%"):
        run_study(taught_by(study, teacher), workers=0)


def test_a_vocabulary_of_another_language_is_refused(study, tmp_path):
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"αβγδεζηθικλμνξοπρστυφχψω0123456789"])
    )
    tokenizer = study.tokenizer.model_copy(update={"folder": str(tmp_path)})
    with pytest.raises(RunError, match=r"\d+% of the word pieces are unknown to the tokenizer"):
        run_study(study.model_copy(update={"name": "own-greek", "tokenizer": tokenizer}), workers=0)


def test_pairs_are_learned_from_both_texts(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(rng.choice(list("abcd")), rng.choice(list("abcd"))) for _ in range(900)]
    lines = [f"{a} {i},{b} {i},{'alike' if (a in 'ab') == (b in 'ab') else 'unlike'}" for i, (a, b) in enumerate(rows)]
    (tmp_path / "pairs.csv").write_text("one,other,label\n" + "\n".join(lines) + "\n")
    task = {"name": "alike", "train": "pairs.csv", "text": ["one", "other"]}
    long = {"epochs": 10, "batch": 16, "rates": [0.002]}
    (tmp_path / "pairs.yaml").write_text(
        json.dumps(STUDY | {"task": task, "name": "own-pairs", "recipes": ["Basic"], "finetune": long})
    )
    study = Study.read(tmp_path / "pairs.yaml")
    metrics = run_study(study, workers=0)
    accuracy = metrics[(metrics.split == "test") & (metrics.metric == "accuracy") & (metrics.recipe == "Basic")].value
    assert accuracy.min() > 0.65, "one text alone says nothing: half would be right"
    (ids,) = [s for s in plan.make(study).of_stage("ids") if s.settings["of"] == "task"]
    assert Ids.load(Store().open(ids.digest), "test").second is not None


def test_students_may_begin_from_a_family_that_has_read_another_text(study, folder, tmp_path):
    made, store = plan.make(study), Store()
    ((start,), (tokenizer,)) = made.of_stage("pretrain"), made.of_stage("tokenizer")
    place = tmp_path / "family" / "1-64"
    shutil.copytree(store.open(start.digest), place)
    for file in store.open(tokenizer.digest).glob("*.json"):
        if file.name != "manifest.json":
            shutil.copy(file, place)
    values = yaml.safe_load((folder / "own.yaml").read_text())
    values |= {"name": "own-family", "family": str(tmp_path / "family" / "{layers}-{hidden}")}
    (folder / "family.yaml").write_text(json.dumps(values))
    metrics = run_study(Study.read(folder / "family.yaml"), workers=0)
    assert not plan.make(Study.read(folder / "family.yaml")).of_stage("pretrain")
    ours = load_results(study.name)
    pick = lambda table, recipe: table[(table.recipe == recipe) & (table.split == "test")].value.tolist()  # noqa: E731
    assert pick(metrics, "PD") == pick(ours, "PD"), "the same start, wherever it lies, gives the same student"
    assert metrics[(metrics.recipe == "start") & (metrics.metric == "mlm_loss")].value.notna().all()
    values["sizes"] = ["1/64", "2/64"]
    (folder / "family.yaml").write_text(json.dumps(values))
    with pytest.raises(ParamsError, match=r"2-64: holds none of tokenizer.json, vocab.txt"):
        plan.make(Study.read(folder / "family.yaml"))


def test_the_batch_size_that_is_best_on_dev_serves_the_other_seeds(study, folder):
    values = yaml.safe_load((folder / "own.yaml").read_text())
    grid = {"epochs": 6, "batch": [16, 64], "rates": [0.002]}
    values |= {
        "name": "own-batch",
        "recipes": ["Basic", "PD"],
        "seeds": [0, 1],
        "finetune": grid,
        "distill": grid,
        "teacher": {"size": "1/64", "margin": -1},
    }
    (folder / "batch.yaml").write_text(json.dumps(values))
    searched = Study.read(folder / "batch.yaml")
    run_study(searched, workers=0)
    made, store = plan.make(searched), Store()
    for search in made.of_stage("search"):
        record = json.loads((store.open(search.digest) / "record.json").read_text())
        best = max(record["searched"], key=lambda tried: tried["dev"]["accuracy"])
        assert {tried["batch"] for tried in record["searched"]} == {16, 64}
        assert best["dev"]["accuracy"] == record["dev"]["accuracy"]
        for other in (s for s in made.steps.values() if s.parents.get("search") == search.digest):
            assert json.loads((store.open(other.digest) / "record.json").read_text())["batch"] == record["batch"]
    table = pq.read_table(paths.study_folder("own-batch") / "searches.parquet").to_pandas()
    assert set(table.batch) == {16, 64} and (table.groupby(["recipe", "size"]).chosen.sum() == 1).all()


def test_a_file_that_cannot_be_read_ends_in_exit_2_and_nothing_is_trained(folder, tmp_path):
    there = shutil.copytree(folder, tmp_path / "ragged")
    with (there / "reviews.csv").open("a") as file:
        file.write("a ragged row\n")
    before = Store().digests()
    done = CliRunner().invoke(app, ["run", str(there / "own.yaml"), "--workers", "0"])
    assert done.exit_code == 2
    assert "reviews.csv, line 362: 1 fields, expected review,verdict" in done.output and "Traceback" not in done.output
    assert Store().digests() == before


def test_a_family_is_made_from_any_corpus_and_opens_without_this_package(tmp_path):
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    rng = np.random.default_rng(0)
    (tmp_path / "books.txt").write_text("".join(review(rng, "praise") + ". " + review(rng, "scorn") + ".\n" for _ in range(400)))
    file = tmp_path / "family.yaml"
    file.write_text(json.dumps(STUDY | {"name": "own-corpus", "task": {"corpus": "books.txt"}, "sizes": ["1/64", "2/64"]}))
    words = ["zoo", str(file), "--to", str(tmp_path / "family"), "--workers", "0", "--allow-plateau"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    model, report = AutoModelForMaskedLM.from_pretrained(tmp_path / "family" / "2-64-s0", output_loading_info=True)
    assert not any(report.values()) and model.config.vocab_size == 100
    assert len(AutoTokenizer.from_pretrained(tmp_path / "family" / "2-64-s0")) == 100
    assert "books.txt" in (tmp_path / "family" / "2-64-s0" / "README.md").read_text()
    weights = (tmp_path / "family" / "2-64-s0" / "model.safetensors").read_bytes()
    assert CliRunner().invoke(app, words).exit_code == 0
    assert (tmp_path / "family" / "2-64-s0" / "model.safetensors").read_bytes() == weights
    with pytest.raises(ParamsError, match="students need labelled texts"):
        plan.make(Study.read(file))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "corpus: books.txt holds no text"),
        ("one line\n", "D_LM has 1 documents after cleaning"),
        ("a few words\nof two lines\n", "D_LM supports only"),
    ],
    ids=["empty", "one document", "tiny"],
)
def test_a_corpus_that_is_too_small_for_a_family_is_refused_with_the_reason(text, sentence, tmp_path):
    (tmp_path / "books.txt").write_text(text)
    file = tmp_path / "family.yaml"
    file.write_text(json.dumps(STUDY | {"name": "own-tiny", "task": {"corpus": "books.txt"}}))
    done = CliRunner().invoke(app, ["zoo", str(file), "--to", str(tmp_path / "family"), "--workers", "0"])
    assert done.exit_code == 2 and sentence in done.output.replace("\n", " "), done.output
