"""The time there is: what is trained in it, in which order, and what is said of the rest. Real runs on tiny texts."""

import json
import shutil

import numpy as np
import pytest
import yaml

from pdstudy import Study, advise, budget, paths, plan, results, soundness
from pdstudy.run import RunError
from pdstudy.store import Store

STUDY = {
    "name": "budgeted",
    "sizes": ["1/64", "2/64"],
    "recipes": ["Basic", "PD"],
    "seeds": [0, 1],
    "splits": {"dev": 80, "test": 80},
    "corpus": {"heldout": 0.1},
    "tokenizer": {"vocabulary": 100},
    "max_length": 16,
    "init_std": {"64": 0.06},
    "pretrain": {"tokens": 10_000, "row": 16, "batch": 16},
    "teacher": {"size": "2/64"},
    "transfer": {"texts": 256},
    "finetune": {"epochs": 4, "batch": 16, "rates": [0.002]},
    "distill": {"epochs": 4, "batch": 16, "rates": [0.002]},
    "precision": "fp32",
}
TEACHER = {"size": "2/64", "margin": 0.3}  # what luck will not give it
WORDS = {"praise": ["fine", "good", "great", "lovely"], "scorn": ["awful", "bad", "dull", "poor"]}


def write(folder, clear: float, **changes) -> Study:
    """Return a study of reviews whose words belong to their class so often; the rest of the time to either."""
    rng = np.random.default_rng(0)

    def review(kind: str) -> str:
        own = [rng.choice(WORDS[kind if rng.random() < clear else rng.choice(["praise", "scorn"])]) for _ in range(3)]
        return " ".join([*own, *rng.choice(["film", "story", "cast", "scene"], 3), str(rng.integers(10**6))])

    kinds = ["scorn", "praise"] * 230
    (folder / "t.csv").write_text("text,label\n" + "".join(f"{review(k)},{k}\n" for k in kinds))
    (folder / "more.txt").write_text("".join(review(k) + "\n" for k in kinds))
    task = {"train": "t.csv", "transfer": "more.txt"}
    (folder / "t.yaml").write_text(yaml.safe_dump(STUDY | {"task": task} | changes))
    return Study.read(folder / "t.yaml")


@pytest.fixture(scope="module")
def spent(tmp_path_factory):
    study = write(tmp_path_factory.mktemp("budget"), 0.8)
    return study, budget.spend(study, 10, workers=0)


def test_every_student_is_trained_once_the_promising_again_and_the_recommended_on_less_text(spent):
    study, found = spent
    names = [r["round"] for r in found.rounds]
    assert names[0] == "every student once" and found.rounds[0]["students"] == 4
    assert names[1].startswith("seed 2 for ") and names[-1].startswith("learning curves of ") and found.left_out == []
    kinds = set(results.load_curves(study.name).curve)
    assert kinds == {"transfer", "labels"}
    for curve in advise.curves(study.name):
        assert curve.points.texts.nunique() == 4 and np.isfinite(curve.twice) and np.isfinite(curve.missed)
    assert json.loads((paths.study_folder(study.name) / budget.SPENT).read_text())["rounds"] == found.rounds


def test_the_recommendation_stands_on_what_was_measured(spent):
    study, _ = spent
    candidates = advise.Candidates(study.name)
    advice = advise.recommend(candidates)
    assert np.isfinite(candidates.table.p50_ms).all()
    words = advice.prose()
    assert words.startswith(f"Take {advice.chosen['size']} by {advice.chosen.recipe} (") and "which chose nothing" in words
    assert "Twice the labelled text" in words or "Twice the transfer text" in words
    assert any("train: 300 texts; praise 150 (50%), scorn 150 (50%)." in s for s in soundness.sentences(study.name))
    assert soundness.nearness(study.name).corpus.tolist() == ["D_LM", "D_T"]


def test_a_second_spending_finds_everything_in_the_store(spent):
    study, _ = spent
    before = results.load_results(study.name)
    again = budget.spend(study, 10, workers=0)
    assert sum(r["seconds"] for r in again.rounds) < 10
    assert results.load_results(study.name).equals(before)


def test_without_time_the_smallest_students_are_tried_and_the_rest_is_named(tmp_path):
    study = write(tmp_path, 0.8, name="no-time")
    found = budget.spend(study, 0, workers=0)
    assert set(advise.Candidates(study.name).table["size"]) <= {"1/64", "2/64"}
    assert found.left_out[0] == "students of 2/64, for want of time" and len(found.rounds) == 1
    assert "seeds beyond 1" in budget.left_out(found)


def test_a_teacher_that_teaches_nobody_leaves_the_recipes_without_one(tmp_path):
    study = write(tmp_path, 0.0, name="hopeless", sizes=["1/64"], seeds=[0], teacher=TEACHER)
    found = budget.spend(study, 10, workers=0)
    assert set(advise.Candidates(study.name).table.recipe) == {"teacher", "Basic"}
    assert found.left_out[0].startswith("recipes that distil, for the teacher is right on ")
    with pytest.raises(RunError, match="the teacher is right on"):
        budget.spend(
            write(tmp_path, 0.0, name="hopeless", sizes=["1/64"], seeds=[0], recipes=["PD"], teacher=TEACHER), 10, workers=0
        )


def test_models_that_were_cleaned_away_leave_their_size_unmeasured_and_nothing_fails(spent):
    study, _ = spent
    store, grid = Store(), {(r, s): [0, 1] for r in study.recipes for s in study.sizes}
    made = plan.make(study, grid)
    for student in made.students:
        if student.size == "2/64" and (folder := store.find(student.model)):
            shutil.rmtree(folder)
    budget.measure(study, made, store)
    table = advise.Candidates(study.name).table
    assert set(table[table.p50_ms.isna()]["size"]) == {"2/64"} and "not measured" in advise.shown(table)["ms a text (p95)"].tolist()
