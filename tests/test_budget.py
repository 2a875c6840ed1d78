"""The time there is: what is trained in it, in which order, and what is said of the rest. Real runs on tiny texts."""

import json
import shutil

import numpy as np
import pytest
import reviews

from pdstudy import Study, run_study
from pdstudy.advice import budget, data_checks, recommendation
from pdstudy.advice import candidates as advise
from pdstudy.recipes import LINEARS
from pdstudy.run.scheduler import RunError
from pdstudy.storage import paths, results
from pdstudy.storage.store import Store
from pdstudy.study import artifacts, plan

STUDY = reviews.STUDY | {
    "name": "budgeted",
    "sizes": ["1/64", "2/64"],
    "seeds": [0, 1],
    "splits": {"dev": 80, "test": 80},
    "teacher": {"size": "2/64"},
    "transfer": {"texts": 256},
}
SEARCHED = {stage: reviews.TRAIN | {"epochs": 4, "rates": [0.0005, 0.002]} for stage in ("finetune", "distill")}
TEACHER = {"size": "2/64", "margin": 0.3}  # what luck will not give it


def write(folder, clear: float, **changes) -> Study:
    """Return a study of reviews whose words belong to their class so often; the rest of the time to either."""
    rng = np.random.default_rng(0)

    def review(kind: str) -> str:
        own = [rng.choice(reviews.WORDS[kind if rng.random() < clear else rng.choice(["praise", "scorn"])]) for _ in range(3)]
        return " ".join([*own, *rng.choice(reviews.NEUTRAL, 3), str(rng.integers(10**6))])

    kinds = ["scorn", "praise"] * 230
    (folder / "t.csv").write_text("text,label\n" + "".join(f"{review(k)},{k}\n" for k in kinds))
    (folder / "more.txt").write_text("".join(review(k) + "\n" for k in kinds))
    task = {"train": "t.csv", "transfer": "more.txt"}
    (folder / "t.yaml").write_text(json.dumps(STUDY | {"task": task} | changes))
    return Study.read(folder / "t.yaml")


@pytest.fixture(scope="module")
def spent(tmp_path_factory):
    study = write(tmp_path_factory.mktemp("budget"), 0.8, **SEARCHED)
    return study, budget.spend(study, 10, workers=0)


def test_every_student_is_trained_once_the_promising_again_and_the_recommended_on_less_text(spent):
    study, spending = spent
    names = [r["round"] for r in spending.rounds]
    assert names[:2] == ["the teacher, and 1/64 once", "every student once"] and spending.rounds[1]["students"] == 4
    assert names[2].startswith("seed 2 for ") and names[-1].startswith("learning curves of ") and spending.left_out == []
    kinds = set(results.load_curves(study.name).curve)
    assert kinds == {"transfer", "labels"}
    for curve in advise.curves(study.name):
        assert curve.points.texts.nunique() == 4 and np.isfinite(curve.twice) and np.isfinite(curve.forecast_error)
    assert json.loads((paths.study_folder(study.name) / budget.SPENT).read_text())["rounds"] == spending.rounds


def test_the_recommendation_stands_on_what_was_measured(spent):
    study, _ = spent
    candidates = advise.Candidates(study.name)
    advice = recommendation.recommend(candidates)
    assert np.isfinite(candidates.table.p50_ms).all()
    words = advice.prose()
    right = candidates.right(advice.chosen.recipe, advice.chosen["size"], "test", [advice.chosen.best_seed]).mean()
    assert advice.chosen.low <= 100 * right <= advice.chosen.high, "the interval holds for texts that were not used"
    linear, student = advice.chosen.recipe in LINEARS, f"{advice.chosen['size']} by {advice.chosen.recipe}"
    assert (
        words.startswith("Take the linear model" if linear else f"Take {student} (") and "which were not used to choose it" in words
    )
    assert ("Its best seed" in words) is not linear, "the linear model has no seed"
    assert "Twice the labelled text" in words or "Twice the transfer text" in words
    assert any("train: 300 texts; praise 150 (50%), scorn 150 (50%)." in s for s in data_checks.sentences(study.name))
    assert data_checks.nearness(study.name).corpus.tolist() == ["D_LM", "D_T"]


def test_the_answers_of_every_rate_are_kept_and_the_interval_allows_for_the_choice_among_them(spent):
    study, _ = spent
    candidates, tried = advise.Candidates(study.name), results.load_tried(study.name)
    linear = tried[tried.recipe.isin(LINEARS)]
    assert set(linear.rate) == {1, 3, 10, 30, 100} and len(linear) == 2 * 5 * 80, "C stands in the place of a rate"
    tried = tried[~tried.recipe.isin(LINEARS)]
    assert set(tried.groupby(["recipe", "size"]).rate.unique().map(sorted).map(tuple)) == {(0.0005, 0.002)}
    assert len(tried) == 2 * 80 * (len(candidates.table) - 2) and not candidates.table.unsaved.any()
    searches = results.load_searches(study.name).set_index(["recipe", "size", "rate"])
    for key, rows in tried.groupby(["recipe", "size", "rate"]):
        assert (rows.label == rows.predicted).mean() == pytest.approx(searches.loc[key].dev_accuracy), "as the search saw it"
    for student in zip(candidates.table.recipe, candidates.table["size"], strict=True):
        if student[0] in LINEARS:
            continue
        first = (
            results.load_predictions(study.name)
            .set_index(["digest", "split"])
            .loc[(candidates.models.loc[(*student, 0)].digest, "dev")]
        )
        taken = tried[
            (tried.recipe == student[0]) & (tried["size"] == student[1]) & (tried.rate == candidates.models.loc[(*student, 0)].rate)
        ]
        assert (first.predicted.to_numpy() == taken.predicted.to_numpy()).all()
    assert "students and rates in all, so expect about" in recommendation.recommend(candidates).prose()


def test_a_study_that_is_run_without_advice_keeps_no_other_answers_and_the_same_tables(spent, tmp_path):
    study, _ = spent
    plain = study.model_copy(update={"name": "plain"})
    store = Store(tmp_path / "store")
    for stage in Store().root.iterdir():
        if stage.name not in ("work", "locks", "evaluate"):
            shutil.copytree(stage, store.root / stage.name)
    run_study(plain, workers=0, store=store)
    assert set(results.load_tried("plain").recipe) == set(LINEARS)
    assert not set(plan.make(plain).steps) - store.digests()
    before = {name: (paths.study_folder("plain") / name).read_bytes() for name in (results.METRICS, results.PREDICTIONS)}
    run_study(plain, workers=0)  # the store in which advice was given
    assert {name: (paths.study_folder("plain") / name).read_bytes() for name in before} == before
    assert len(results.load_tried("plain")) == 2 * 80 * 5 + 2 * 5 * 80
    run_study(plain, workers=0, store=store)
    assert set(results.load_tried("plain").recipe) == set(LINEARS), "a table of answers that are gone would lie"


def test_a_second_spending_finds_everything_in_the_store(spent):
    study, first = spent
    before = results.load_results(study.name)
    again = budget.spend(study, 10, workers=0)
    assert [r["round"] for r in again.rounds] == [r["round"] for r in first.rounds]
    assert sum(r["seconds"] for r in again.rounds) < sum(r["seconds"] for r in first.rounds) + 10
    assert results.load_results(study.name).equals(before)


def test_the_minutes_are_a_study_s_own_and_not_those_of_one_call(tmp_path):
    study = write(tmp_path, 0.8, name="again")
    spent = {"study": "of other settings", "rounds": [{"round": "long ago", "students": 1, "seconds": 7200}]}
    folder = paths.study_folder("again")
    folder.mkdir(parents=True)
    (folder / budget.SPENT).write_text(json.dumps(spent))
    first = budget.spend(study, 0, workers=0)
    assert len(first.rounds) == 1 and first.rounds[0]["round"] == "the teacher, and 1/64 once"
    first.rounds[0]["seconds"] = 3600  # an hour of this study
    (folder / budget.SPENT).write_text(json.dumps(vars(first)))
    again = budget.spend(study, 60, workers=0)
    assert set(advise.Candidates("again").table["size"]) <= {"1/64", "2/64", "linear"} and len(again.rounds) == 1
    assert "students of 2/64, for want of time" in again.left_out


def test_without_time_the_smallest_students_are_tried_and_the_rest_is_named(tmp_path):
    study = write(tmp_path, 0.8, name="no-time")
    spending = budget.spend(study, 0, workers=0)
    assert set(advise.Candidates(study.name).table["size"]) <= {"1/64", "2/64", "linear"}
    assert spending.left_out[0] == "students of 2/64, for want of time" and len(spending.rounds) == 1
    assert "seeds beyond 1" in budget.left_out(spending)


def test_a_teacher_that_teaches_nobody_leaves_the_recipes_without_one(tmp_path):
    study = write(tmp_path, 0.0, name="hopeless", sizes=["1/64"], seeds=[0], teacher=TEACHER)
    spending = budget.spend(study, 10, workers=0)
    assert set(advise.Candidates(study.name).table.recipe) == {"teacher", "Basic", "Linear"}
    assert spending.left_out[0].startswith("recipes that distil, for the teacher is right on ")
    with pytest.raises(RunError, match="the teacher is right on"):
        budget.spend(
            write(tmp_path, 0.0, name="hopeless", sizes=["1/64"], seeds=[0], recipes=["PD"], teacher=TEACHER), 10, workers=0
        )


def test_rates_that_were_cleaned_away_are_not_trained_again_and_the_sentences_say_what_the_interval_does_not_allow_for(
    spent, tmp_path
):
    study, _ = spent
    store = Store(tmp_path / "store")
    shutil.copytree(Store().root, store.root)
    made = plan.make(study)
    assert set(plan.with_candidates_measured(made).steps) - set(made.steps) <= artifacts.needed([study]), "clean keeps them"
    rates = {digest for search in made.of_stage("search") for digest in search.parents.values()}
    answers = {s.digest for s in plan.with_candidates_measured(made).of_stage("evaluate") if s.parents["model"] in rates}
    for digest in rates | answers:
        if folder := store.find(digest):
            shutil.rmtree(folder)
    budget.spend(study, 10, workers=0, store=store)
    assert not (rates | answers) & store.digests()
    candidates = advise.Candidates(study.name)
    assert candidates.table.unsaved.tolist() == [int(recipe not in LINEARS) for recipe in candidates.table.recipe]
    assert f"The answers at {len(candidates.table) - 3} more rates were not saved" in recommendation.recommend(candidates).prose()


def test_a_rate_that_diverged_answers_nothing_and_is_owed_nothing(tmp_path):
    rates = {"finetune": reviews.TRAIN | {"rates": [0.002, 1.0]}, "distill": SEARCHED["distill"]}
    study, store = write(tmp_path, 0.8, name="diverged", sizes=["1/64"], seeds=[0], recipes=["Basic"], **rates), Store(tmp_path)
    (wild,) = [s for s in plan.make(study).steps.values() if s.label == "Basic 1/64 s0 finetune rate 1"]

    def diverged(folder) -> dict:  # clipped steps hardly ever diverge in earnest; this is what a candidate leaves that did
        record = {"rate": 1.0, "dev": None, "collapsed": True, "diverged": True, "seconds": 0.0, "why": "loss is nan"}
        (folder / "record.json").write_text(json.dumps(record))
        return {"label": wild.label, "settings": wild.settings, "parents": wild.parents, "seconds": 0.0, "flops": wild.flops}

    store.write(wild.stage, wild.digest, diverged)
    budget.spend(study, 10, workers=0, store=store)
    searches = results.load_searches(study.name)
    assert searches[searches.recipe == "Basic"].set_index("rate").diverged.to_dict() == {0.002: False, 1.0: True}
    tried, table = results.load_tried(study.name), advise.Candidates(study.name).table
    assert set(tried[tried.recipe == "Basic"].rate) == {0.002} and not table.unsaved.any()


def test_models_that_were_cleaned_away_leave_their_size_unmeasured_and_nothing_fails(spent):
    study, _ = spent
    store, grid = Store(), {(r, s): [0, 1] for r in study.recipes for s in study.sizes}
    made = plan.make(study, grid)
    for student in made.students:
        if student.size == "2/64" and (folder := store.find(student.model)):
            shutil.rmtree(folder)
    budget.write_latency(study, made, store)
    table = advise.Candidates(study.name).table
    assert (
        set(table[table.p50_ms.isna()]["size"]) == {"2/64"}
        and "not measured" in recommendation.display_table(table)["ms a text (p95)"].tolist()
    )
