"""Teachers that are no size of the study: models of other kinds, files, the linear model, means; from the plan to the students."""

import csv
import json

import numpy as np
import pytest
import reviews
import small_models
from bs4 import BeautifulSoup
from typer.testing import CliRunner

from pdstudy import Study, load_results, run_study
from pdstudy.__main__ import app
from pdstudy.analysis.answers import answer
from pdstudy.analysis.verdicts import judge
from pdstudy.models import teachers
from pdstudy.release.teacher_labels import ReleaseError, release
from pdstudy.report import render
from pdstudy.run.estimate import needed
from pdstudy.run.inputs import Lines
from pdstudy.run.scheduler import RunError
from pdstudy.storage.store import Store
from pdstudy.study import plan
from pdstudy.study.settings import ParamsError

TUNE = {"epochs": [12], "rates": [0.003], "batch": 16}


def review(rng, kind: str) -> str:
    return " ".join(rng.choice([*reviews.WORDS[kind], *reviews.NEUTRAL], 6)) + f" {rng.integers(100_000)}"


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """The folder of 360 reviews, one class in three, and of as many transfer texts."""
    folder, rng = tmp_path_factory.mktemp("taught"), np.random.default_rng(0)
    kinds = ["scorn", "praise", "praise"] * 120
    (folder / "reviews.csv").write_text("review,verdict\n" + "".join(f"{review(rng, k)},{k}\n" for k in kinds))
    (folder / "more.txt").write_text("".join(review(rng, k) + "\n" for k in kinds))
    return folder


@pytest.fixture(scope="module")
def study_of(task):
    """Make a study of that task with a teacher."""

    def make(name, teacher, **changes):
        own = {"train": "reviews.csv", "text": "review", "label": "verdict", "transfer": "more.txt"}
        settings = reviews.STUDY | {"name": name, "task": own, "recipes": ["PD"], "teacher": {"size": None} | teacher} | changes
        path = task / f"{name}.yaml"
        path.write_text(json.dumps(settings))
        return Study.read(path)

    return make


def accuracy(study, recipe: str) -> float:
    table = load_results(study.name)
    (value,) = table[(table.recipe == recipe) & (table.split == "test") & (table.metric == "accuracy")].value
    return value


@pytest.fixture(scope="module")
def mpnet(tmp_path_factory):
    return small_models.write(tmp_path_factory.mktemp("models") / "mpnet", "MPNet")


@pytest.fixture(scope="module")
def by_mpnet(study_of, mpnet):
    study = study_of("mpnet", {"folder": str(mpnet), "finetune": TUNE})
    run_study(study, workers=0)
    return study


def test_an_encoder_of_another_kind_is_fine_tuned_and_teaches(by_mpnet):
    counts = plan.make(by_mpnet).counts()
    assert (counts["tune"], counts["label"], counts["linear"]) == (1, 1, 2) and "choose" not in counts
    assert accuracy(by_mpnet, "teacher") > 0.9
    assert accuracy(by_mpnet, "PD") > 0.85
    assert accuracy(by_mpnet, "Linear") > 0.9 and accuracy(by_mpnet, "Linear, taught") > 0.9


def test_it_may_be_labelled_in_parts_and_by_rates_and_epochs_that_are_searched(study_of, by_mpnet, mpnet, monkeypatch):
    from pdstudy.study import plan_teachers

    (all_at_once,) = plan.make(by_mpnet).of_stage("label")  # with the same weights, all at once
    monkeypatch.setattr(plan_teachers, "PART", 90)
    study = study_of("parts", {"folder": str(mpnet), "finetune": TUNE | {"epochs": [1, 12]}})
    run_study(study, workers=0)
    made, store = plan.make(study), Store()
    assert [made.counts()[stage] for stage in ("tune", "choose", "part", "label")] == [2, 1, 3, 1]
    assert all(not step.parents.keys() - {"texts", "model", "evaluation"} for step in made.of_stage("part")), "side by side"
    (choice,), (label,) = made.of_stage("choose"), made.of_stage("label")
    record = json.loads((store.open(choice.digest) / "record.json").read_text())
    assert record["epochs"] == 12 and [row["epochs"] for row in record["searched"]] == [1, 12]
    logits = [np.load(store.open(step) / "logits.npy") for step in (label.digest, all_at_once.digest)]
    assert logits[0].dtype == np.float16 and logits[0].shape == (200, 2)
    assert np.abs(logits[0].astype(float) - logits[1]).max() < 0.01


@pytest.mark.parametrize("kind", ["Roberta", "ModernBert"])
def test_a_classifier_of_another_kind_answers_in_the_order_of_the_tasks_classes(tmp_path, kind):
    folder, texts = small_models.write(tmp_path / kind, kind, ["scorn", "praise"]), ["good film", "bad", "a weak weak story"]
    opened = teachers.open_model(folder, ["praise", "scorn"])
    assert not opened.fresh_head and opened.order == [1, 0]
    logits = teachers.logits(opened, texts, 16, "fp32")
    small_models.changed(folder, id2label={"0": "PRAISE", "1": "SCORN"}, label2id=None)
    swapped = teachers.logits(teachers.open_model(folder, ["praise", "scorn"]), texts, 16, "fp32")
    assert np.array_equal(logits, swapped[:, ::-1]) and len(np.unique(logits)) == 6


def test_a_classifier_of_another_kind_teaches(study_of, tmp_path):
    folder = small_models.write(tmp_path / "x", "ModernBert", ["scorn", "praise"])
    study = study_of("modern", {"folder": str(folder), "margin": -1})
    run_study(study, workers=0)
    assert plan.make(study).counts()["outside"] == 1 and len(load_results(study.name).query("recipe == 'teacher'"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: small_models.changed(f, id2label={"0": "a", "1": "b"}), "its classes are a, b, the task's praise, scorn"),
        (lambda f: small_models.changed(f, id2label={"0": "a", "1": "b", "2": "c"}), "it knows 3 classes, the task 2"),
        (lambda f: small_models.changed(f, problem_type="multi_label_classification"), "a teacher gives each text one of several"),
    ],
)
def test_a_head_of_other_classes_is_refused(study_of, tmp_path, change, says):
    folder = change(small_models.write(tmp_path / "x", "Roberta", ["praise", "scorn"]))
    with pytest.raises(RunError, match=says) as error:
        run_study(study_of("refused", {"folder": str(folder)}), workers=0)
    assert error.value.bad_input


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer; give the folder of a saved model with its tokenizer"),
        (
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            "no model.safetensors; pickled weights are not opened",
        ),
        (
            lambda f: small_models.changed(f, auto_map={"AutoModel": "code.Model"}),
            "asks for code of its own .auto_map., which is never run",
        ),
        (lambda f: (f / "tokenizer_config.json").write_text("{"), "config.json or tokenizer_config.json cannot be read"),
    ],
)
def test_a_folder_that_is_no_model_is_refused_before_anything_is_computed(study_of, tmp_path, change, says):
    folder = small_models.write(tmp_path / "x", "Roberta")
    change(folder)
    study = study_of("refused", {"folder": str(folder)})
    with pytest.raises(ParamsError, match=says):
        plan.make(study)


def test_a_teacher_that_knows_nothing_may_not_teach(study_of, tmp_path):
    folder = small_models.write(tmp_path / "x", "Roberta", ["praise", "scorn"])
    with pytest.raises(RunError, match=r"the teacher is right on .* of dev, the majority class on 6"):
        run_study(study_of("refused", {"folder": str(folder), "margin": 0.1}), workers=0)


# Files of soft labels


@pytest.fixture
def labelled(study_of, by_mpnet, task):
    """Write the file of a teacher that is right on nine texts in ten."""
    (texts,) = plan.make(by_mpnet).of_stage("texts")
    folder, rng = Store().open(texts.digest), np.random.default_rng(1)

    def write(name, splits=("transfer", "dev", "test"), change=lambda rows: rows):
        rows = [
            (text, 0.9 if set(text.split()) & set(reviews.WORDS["praise"]) else 0.1)
            for s in splits
            for text in Lines(folder / f"{s}.parquet")
        ]
        rng.shuffle(rows)
        with (task / name).open("w", newline="") as file:
            csv.writer(file).writerows(
                [("review", "p_praise", "p_scorn"), *change([(text, p, round(1 - p, 3)) for text, p in rows])]
            )
        return {"file": name}

    return write


def test_a_file_of_probabilities_teaches(study_of, labelled):
    study = study_of("file", labelled("soft.csv"))
    run_study(study, workers=0)
    assert accuracy(study, "teacher") > 0.9 and accuracy(study, "PD") > 0.85


def test_a_file_of_transfer_texts_alone_is_a_teacher_that_cannot_be_checked(study_of, labelled):
    with pytest.raises(RunError, match=r"40 of the first 40 dev texts have no row"):
        run_study(study_of("file-unchecked", labelled("some.csv", ("transfer",))), workers=0)
    study = study_of("file-trusted", labelled("some.csv", ("transfer",)) | {"margin": -1})
    run_study(study, workers=0)
    assert accuracy(study, "PD") > 0.85 and "teacher" not in set(load_results(study.name).recipe)


def test_rows_of_other_texts_are_refused(study_of, labelled):
    teacher = labelled("other.csv", change=lambda rows: [*rows, ("what is this", 0.5, 0.5)])
    with pytest.raises(RunError, match="'what is this' is none of the study's transfer, dev and test texts") as error:
        run_study(study_of("file-other", teacher), workers=0)
    assert error.value.bad_input


def test_a_file_that_is_not_there_or_cannot_do_what_is_asked_is_refused(study_of, labelled):
    with pytest.raises(ParamsError, match=r"teacher.file: .*none.csv does not exist"):
        plan.make(study_of("refused", {"file": "none.csv"}))
    domains = {"corpora": ["transfer"], "texts": 20}
    with pytest.raises(ParamsError, match=r"domains.corpora: a file of soft labels has none for other texts"):
        study_of("refused", labelled("soft.csv"), domains=domains)
    with pytest.raises(ParamsError, match=r"distill.labelled: a file of soft labels"):
        study_of("refused", labelled("soft.csv"), distill=reviews.TRAIN | {"labelled": True})


# The linear model, and means


def test_the_linear_model_may_teach(study_of):
    study = study_of("by-linear", {"linear": True})
    run_study(study, workers=0)
    made = plan.make(study)
    (teacher,) = [s for s in made.students if s.recipe == "teacher"]
    (linear,) = [s for s in made.students if s.recipe == "Linear"]
    assert teacher.model == linear.model and accuracy(study, "PD") > 0.85


def test_several_teachers_teach_their_mean(study_of, mpnet, labelled):
    members = [{"folder": str(mpnet)}, {"linear": True}, labelled("soft.csv")]
    study = study_of("mean", {"mean": members, "finetune": TUNE})
    run_study(study, workers=0)
    made, store = plan.make(study), Store()
    mean = next(s for s in made.of_stage("mean") if (store.open(s.digest) / "logits.npy").is_file())
    p = [np.exp(np.load(store.open(d) / "logits.npy").astype(float)) for role, d in mean.parents.items() if role != "texts"]
    p = np.mean([x / x.sum(1, keepdims=True) for x in p], axis=0)
    assert np.exp(np.load(store.open(mean.digest) / "logits.npy").astype(float)) == pytest.approx(p, abs=2e-3)
    assert accuracy(study, "teacher") > 0.9 and accuracy(study, "PD") > 0.85


@pytest.mark.parametrize(
    ("teacher", "says"),
    [
        ({"mean": [{"linear": True}]}, "mean: give at least two teachers"),
        ({"mean": [{"linear": True}, {}]}, "a member of teacher.mean is one of size, folder, file and linear"),
        ({"linear": True, "file": "x.csv"}, "give either a size .*, a folder .*, a file of soft labels, linear: true, or a mean"),
        ({"linear": True, "texts": 10}, "teacher.texts: 10 are fewer than transfer.texts, 200"),
    ],
)
def test_a_teacher_is_one_thing(study_of, teacher, says):
    with pytest.raises(ParamsError, match=says):
        study_of("refused", teacher)


def test_bad_input_is_a_sentence_and_status_2(study_of, labelled):
    study_of("sum", labelled("sum.csv", change=lambda rows: [(rows[0][0], 0.5, 0.6), *rows[1:]]))
    done = CliRunner().invoke(app, ["run", str(study_of.__closure__[0].cell_contents / "sum.yaml"), "--workers", "0"])
    assert (
        done.exit_code == 2 and "line 2: the probabilities sum to 1.1, not to 1" in done.output and "Traceback" not in done.output
    )


# What leaves: students, and the linear models


def test_a_student_of_another_teacher_and_the_linear_models_are_exported_and_predict(by_mpnet, task, tmp_path):
    command = CliRunner()
    for name in ("1/64-PD-s0", "linear", "linear-taught"):
        to = tmp_path / name.replace("/", "-")
        done = command.invoke(app, ["export", by_mpnet.name, "--student", name, "--to", str(to), "--no-onnx"])
        assert done.exit_code == 0, done.output
        labelled = to / "labelled.csv"
        done = command.invoke(app, ["predict", str(to), str(task / "reviews.csv"), "--text", "review", "--to", str(labelled)])
        assert done.exit_code == 0, done.output
        with labelled.open() as file:
            rows = list(csv.DictReader(file))
        assert sum(row["verdict"] == row["label"] for row in rows) > 0.85 * len(rows)
        assert "the teacher (given), accuracy" in (to / "README.md").read_text()
    assert not any(path.suffix in (".pkl", ".bin", ".joblib") for path in tmp_path.rglob("*"))
    done = command.invoke(app, ["export", by_mpnet.name, "--student", "teacher", "--to", str(tmp_path / "t"), "--no-onnx"])
    assert done.exit_code == 2 and "export a student that it taught" in done.output


def test_released_labels_are_taken_and_neither_the_teacher_nor_its_hours_are_needed(by_mpnet, study_of, tmp_path):
    zoo, command = tmp_path / "zoo", CliRunner()
    done = command.invoke(
        app, ["zoo", str(study_of.__closure__[0].cell_contents / "mpnet.yaml"), "--teacher", "small", "--to", str(zoo)]
    )
    assert done.exit_code == 0, done.output
    place = zoo / "teachers" / "small"
    assert sorted(p.name for p in place.iterdir()) == ["README.md", "evaluate", "label", "texts.json"]
    assert json.loads((place / "texts.json").read_text())["label"]["texts"] == 200
    assert "Test accuracy: " in (place / "README.md").read_text()
    made, fresh = plan.make(by_mpnet), Store(tmp_path / "store", (zoo,))
    (label,), (tune,) = made.of_stage("label"), made.of_stage("tune")
    assert {label.digest} <= fresh.released()
    todo = needed(made, {d: s for d, s in made.steps.items() if d not in fresh.digests()})
    assert tune.digest not in todo and label.digest not in todo
    assert tune.digest in needed(made, dict(made.steps))  # from scratch it is
    with pytest.raises(ReleaseError, match="only labels of texts are released"):
        release(study_of("own", {"size": "1/64"}), Store(), "x", tmp_path)


def test_the_texts_that_a_file_needs_rows_for_are_written(study_of, task, tmp_path):
    study_of("unlabelled", {"file": "not_yet.csv"})
    done = CliRunner().invoke(app, ["texts", str(task / "unlabelled.yaml"), "--to", str(tmp_path / "t.csv"), "--n", "50"])
    assert done.exit_code == 0, done.output
    with (tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["split", "review"] and [r["split"] for r in rows] == ["transfer"] * 50 + ["dev"] * 40 + ["test"] * 60


def test_the_report_shows_the_linear_models_and_says_first_that_no_student_beats_them(by_mpnet, tmp_path):
    page = BeautifulSoup(render.index(by_mpnet, tmp_path).read_text(), "html.parser").get_text()
    assert "Linear, taught" in page and "The best student beats the linear model" in page
    verdict = judge(by_mpnet.name).set_index("id").loc["L1"]
    assert verdict.compared == "PD 1/64 over Linear" and verdict.n_items == 60
    first = answer(by_mpnet.name, judge(by_mpnet.name))
    assert first.startswith("No student is known to beat the linear model: it scores ") and "best on dev, PD 1/64, " in first
