"""Cross-validation of a student against the linear model: the folds, the interval, and what it changes in the advice."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import reviews

from pdstudy import Study
from pdstudy.advice import budget, candidates, choice, cross_validation, early_stop, recommendation
from pdstudy.advice.cross_validation import CrossValidation
from pdstudy.averaging import log_mean
from pdstudy.models import linear
from pdstudy.recipes import RECIPES
from pdstudy.run.inputs import tuples
from pdstudy.run.scheduler import run
from pdstudy.storage import paths, results
from pdstudy.storage.store import Store
from pdstudy.study import plan_folds
from pdstudy.study.plan import make

FOLDS = plan_folds.FOLDS
STUDENT = ("PF + linear", "1/64")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Reviews whose words belong to their class in four of five cases: neither model is much better than the other."""
    folder, rng = tmp_path_factory.mktemp("folds"), np.random.default_rng(0)

    def review(kind: str) -> str:
        other = {"praise": "scorn", "scorn": "praise"}[kind]
        words = [rng.choice(reviews.WORDS[kind if rng.random() < 0.8 else other]) for _ in range(3)]
        return " ".join([*words, *rng.choice(reviews.NEUTRAL, 3), str(rng.integers(10**6))])

    kinds = ["scorn", "praise"] * 150
    (folder / "t.csv").write_text("text,label\n" + "".join(f"{review(k)},{k}\n" for k in kinds))
    (folder / "more.txt").write_text("".join(review(k) + "\n" for k in kinds))
    changes = {"name": "folds", "recipes": ["PF", "PD"], "task": {"train": "t.csv", "transfer": "more.txt"}}
    (folder / "t.yaml").write_text(json.dumps(reviews.STUDY | changes))
    return Study.read(folder / "t.yaml")


@pytest.fixture(scope="module")
def advised(study):
    lines = []
    spent = budget.spend(study, 10, workers=0, tell=lines.append)
    return SimpleNamespace(spent=spent, plan=plan_folds.cross_validation(study, "PF", "1/64"), lines=lines, store=Store())


def texts_of(advised, fold: int, split: str) -> list:
    step = next(s for s in advised.plan.of_stage("fold") if s.settings["fold"] == fold)
    return tuples(advised.store.open(step.digest) / f"{split}.parquet")


def test_every_text_of_train_is_in_one_fold_and_never_among_those_that_its_models_learn_from(study, advised):
    (texts,) = make(study).of_stage("texts")
    whole = {split: tuples(advised.store.open(texts.digest) / f"{split}.parquet") for split in ("train", "dev")}
    folds = [texts_of(advised, fold, "test") for fold in range(FOLDS)]
    assert sorted(text for fold in folds for text in fold) == sorted(whole["train"])
    assert max(map(len, folds)) - min(map(len, folds)) <= 1
    for fold, answered in enumerate(folds):
        learned = texts_of(advised, fold, "train")
        assert not set(learned) & set(answered) and len(learned) + len(answered) == len(whole["train"])
        assert texts_of(advised, fold, "dev") == whole["dev"]
    step = advised.plan.of_stage("fold")[0]
    table = pq.read_table(advised.store.open(step.digest) / "test.parquet").to_pandas()
    labels = dict(pq.read_table(advised.store.open(texts.digest) / "train.parquet").to_pandas().itertuples(index=False))
    assert all(labels[row.text] == row.label for row in table.itertuples())


def test_only_the_first_texts_are_split_where_the_study_uses_no_more(study, tmp_path):
    fewer = study.model_copy(update={"splits": study.splits.model_copy(update={"train": 50})})
    plan, store = plan_folds.cross_validation(fewer, "PF", "1/64"), Store()
    folds = plan.of_stage("fold")
    wanted = plan.only([]).steps | {s.digest: s for s in plan.steps.values() if s.stage in ("texts", "fold")}
    assert not run(SimpleNamespace(steps=wanted, counts=plan.counts, of_stage=plan.of_stage, study=fewer), store, 0).failures
    (texts,) = plan.of_stage("texts")
    kept = [text for step in folds for text in tuples(store.open(step.digest) / "test.parquet")]
    assert sorted(kept) == sorted(tuples(store.open(texts.digest) / "train.parquet")[:50])


def test_a_fold_s_steps_differ_from_the_study_s_in_their_texts_and_seeds_alone(study, advised):
    plan, whole = advised.plan, make(study, {("PF", "1/64"): [1, 2]})
    student, linear_model = plan.students[:2]
    model, own = plan.steps[student.model], whole.steps[whole.students[-2].model]
    assert model.settings == own.settings | {"texts": 0} and model.settings["seed"] == 1
    assert {role for role in own.parents if own.parents[role] == model.parents[role]} == {"start", "search"}
    ids, own_ids = plan.steps[model.parents["ids"]], whole.steps[own.parents["ids"]]
    assert ids.parents["tokenizer"] == own_ids.parents["tokenizer"] and ids.settings == own_ids.settings | {"of": "labelled"}
    assert plan.steps[student.evaluation].parents == {"ids": ids.digest, "model": model.digest}
    assert ids.parents["texts"] == plan.steps[linear_model.model].parents["texts"] == plan.of_stage("fold")[0].digest
    assert (
        len({s.settings["seed"] for s in plan.of_stage("finetune") if s.settings["texts"] == 0 and "search" in s.parents}) == FOLDS
    )
    assert not plan.of_stage("label") and not plan.of_stage("distill")


def test_what_a_teacher_has_taught_is_not_cross_validated():
    assert {name for name in RECIPES if plan_folds.can_be_validated(name)} == {"Basic", "PF"}


def test_the_accuracies_are_those_of_models_that_learned_from_the_other_folds(study, advised):
    record = cross_validation.load(study.name)
    assert (record.recipe, record.size) in {("PF", "1/64"), STUDENT} and record.texts == 200
    student, linear_model = (advised.store.open(s.evaluation) for s in advised.plan.students[:2])
    learned = pq.read_table(advised.store.open(advised.plan.of_stage("fold")[0].digest) / "train.parquet").to_pandas()
    dev = pq.read_table(advised.store.open(make(study).of_stage("texts")[0].digest) / "dev.parquet").to_pandas()
    fitted = linear.fit(
        list(learned.text), learned.label.to_numpy(), 2, list(dev.text), dev.label.to_numpy(), study.linear.strengths
    )[0]
    test = pq.read_table(advised.store.open(advised.plan.of_stage("fold")[0].digest) / "test.parquet").to_pandas()
    logits = fitted.logits(list(test.text))
    assert record.linear[0] == pytest.approx(100 * (logits.argmax(1) == test.label).mean(), abs=1e-3)
    np.testing.assert_allclose(logits, np.load(linear_model / "test.logits.npy"), atol=1e-5)
    answers = np.load(student / "test.logits.npy")
    answers = log_mean([answers, logits]) if record.recipe == "PF + linear" else answers
    assert record.student[0] == pytest.approx(100 * (answers.argmax(1) == test.label).mean(), abs=1e-3)


def test_the_advice_says_it_the_counts_stay_and_the_same_command_trains_nothing_more(study, advised):
    names = [r["round"] for r in advised.spent.rounds]
    (name,) = [name for name in names if name.startswith("cross-validation of 1/64 by PF")]
    assert names.index(name) < len(names) - 1 and any("min: " in line for line in advised.lines)
    assert int(results.load_counts(study.name).loc["train", "kept"]) == 200
    reasons = " ".join(recommendation.recommend(candidates.Candidates(study.name)).reasons)
    assert "In 10-fold cross-validation on the 200 texts of D_L 1/64 by PF" in reasons
    before, stored = (paths.study_folder(study.name) / cross_validation.FILE).read_bytes(), advised.store.digests()
    again = budget.spend(study, 10, workers=0)
    assert [r["round"] for r in again.rounds] == names and advised.store.digests() == stored
    assert (paths.study_folder(study.name) / cross_validation.FILE).read_bytes() == before


def test_without_the_time_it_is_left_out_and_other_settings_forget_it(study, advised, monkeypatch):
    other = study.model_copy(update={"max_length": 18})  # no text is that long, so its models are the same
    monkeypatch.setattr(budget, "HALF", 0.0)
    spent = budget.spend(other, 10, workers=0)
    assert "cross-validation, for want of time" in spent.left_out
    assert cross_validation.load(study.name) is None


def candidates_of(dev: dict[str, float], low: float, validation: CrossValidation | None) -> SimpleNamespace:
    """Return candidates that are so good on dev; every interval of a difference begins at `low` and ends at 1."""
    table = pd.DataFrame({"recipe": dev.keys(), "size": ["linear" if r == "Linear" else "2/64" for r in dev], "dev": dev.values()})
    effect = SimpleNamespace(known=True, estimate=0.5, low=low, high=1.0)
    table = table.assign(fits=True, seeds=1, n_params=1)
    return SimpleNamespace(table=table, cross_validation=validation, difference=lambda one, other: effect)


def validated(recipe: str, gain: float) -> CrossValidation:
    linear_model = [70.0, 72.0, 74.0]
    return CrossValidation(recipe, "2/64", 300, [x + gain + 0.1 * i for i, x in enumerate(linear_model)], linear_model)


@pytest.mark.parametrize(
    ("low", "validation", "chosen"),
    [
        (-1.0, None, "Linear"),
        (-1.0, validated("PF + linear", 3.0), "PF + linear"),
        (-1.0, validated("PF + linear", -0.1), "Linear"),  # the interval has zero in it
        (-1.0, validated("PF", 3.0), "PF"),  # another student is better on dev, but is not shown to beat the linear model
        (-1.0, validated("Basic", 3.0), "Linear"),  # it is no candidate within the limits
        (0.1, validated("PF", 3.0), "PD + linear"),  # dev decides
    ],
)
def test_a_student_is_taken_that_cross_validation_shows_to_be_better(low, validation, chosen):
    tried = candidates_of({"Linear": 70.0, "PF": 70.2, "PF + linear": 70.4, "PD + linear": 70.6}, low, validation)
    assert choice.choose(tried).recipe == chosen
    assert [row.recipe for row in choice.open_on_dev(tried)] == ([] if low > 0 else ["PF + linear", "PF"])


@pytest.mark.parametrize(("low", "chosen"), [(-1.0, "PF + linear"), (0.1, "Linear, taught")])
def test_the_taught_linear_model_stays_only_where_it_is_significantly_better_than_that_student(low, chosen):
    tried = candidates_of({"Linear": 70.0, "Linear, taught": 71.0, "PF + linear": 70.4}, low, validated("PF + linear", 3.0))
    assert choice.choose(tried).recipe == chosen and choice.open_on_dev(tried) == []


def test_another_seed_cannot_bring_back_the_linear_model_after_cross_validation():
    tried = candidates_of({"Linear": 70.0, "PF": 70.4}, -1.0, validated("PF", 3.0))
    assert early_stop.why(tried, [("PF", "2/64")]) == "no other student is near 2/64 by PF on dev"
