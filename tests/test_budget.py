"""The time there is: what is trained in it, in which order, and what is said of the rest. Real runs on tiny texts."""

import json
import os
import re
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import reviews
from typer.testing import CliRunner

from pdstudy import Study, run_study
from pdstudy.__main__ import app
from pdstudy.advice import budget, data_checks, recommendation, rounds
from pdstudy.advice import candidates as advise
from pdstudy.advice.choice import best_student
from pdstudy.recipes import LINEARS, RECIPES, is_averaged, without_linear
from pdstudy.run import scheduler
from pdstudy.run.worker import Interrupted
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
def patient():
    """Train every seed, also where it cannot change the recommendation: these students are too small to be better than the linear model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget.early_stop, "why", lambda candidates, students: "")
        yield


@pytest.fixture(scope="module")
def spent(tmp_path_factory, patient):
    study = write(tmp_path_factory.mktemp("budget"), 0.8, **SEARCHED)
    lines = []
    spent = budget.spend(study, 10, workers=0, tell=lines.append)
    (paths.study_folder(study.name) / "lines.json").write_text(json.dumps(lines))
    return study, spent


def test_every_student_is_trained_once_the_promising_again_and_the_recommended_on_less_text(spent):
    study, found = spent
    names = [r["round"] for r in found.rounds]
    assert names[:3] == ["the linear model", "1/64 by Basic", "2/64 by Basic"]
    assert names[3].startswith("cross-validation of ") and sorted(names[4:6]) == ["1/64 by PD", "2/64 by PD"]
    assert names[6].startswith("seed 2 for ") and names[-1].startswith("learning curves of ") and found.left_out == []
    assert [r["students"] for r in found.rounds[:6]] == [0, 1, 2, 2, 3, 4]
    kinds = set(results.load_curves(study.name).curve)
    assert kinds == {"transfer", "labels"}
    for curve in advise.curves(study.name):
        assert curve.points.texts.nunique() == 4 and np.isfinite(curve.twice) and np.isfinite(curve.forecast_error)
    assert json.loads((paths.study_folder(study.name) / rounds.SPENT).read_text())["rounds"] == found.rounds


@pytest.mark.parametrize(
    ("family", "expected"),
    [({"6/384": "wheel", "others": "zoo"}, ["1/64", "6/384", "2/64", "4/64"]), ("zoo", ["1/64", "2/64", "4/64", "6/384"])],
)
def test_a_student_that_the_user_named_comes_second_whatever_its_time(family, expected):
    costs, order = {"1/64": 1, "2/64": 2, "4/64": 3, "6/384": 500}, []

    def extend(name, grid, group, share):
        order.append(name.split()[0])
        return grid | group

    study = SimpleNamespace(recipes=["PF"], seeds=[0], family=family, sizes_of=lambda recipe: sorted(costs, reverse=True))
    seconds = lambda grid: sum(costs[size] for _, size in grid)  # noqa: E731
    here = SimpleNamespace(study=study, seconds=seconds, extend=extend, seconds_left=9, weak_teacher=False)
    budget._every_student_once(here, {}, with_teacher=False)
    assert order == expected


def test_after_every_round_a_line_tells_the_answer_so_far_and_its_gain(spent):
    study, found = spent
    assert json.loads((paths.study_folder(study.name) / "lines.json").read_text()) == [rounds.line(r) for r in found.rounds]
    last, first = found.rounds[-1], found.rounds[0]
    chosen = recommendation.recommend(advise.Candidates(study.name)).chosen
    name = chosen.recipe if chosen.recipe in LINEARS else f"{chosen.recipe} {chosen['size']}"
    assert (last["recommended"], last["dev"]) == (name, round(chosen.dev, 1)) and first["recommended"] == "Linear"
    gains = [r["gain"] for r in found.rounds]
    assert gains[0] is None and first["dev"] + sum(gains[1:]) == pytest.approx(last["dev"])
    answer = {"minutes": 3.06, "recommended": "PF 2/128", "dev": 85.8, "low": 81.0, "high": 88.9, "gain": 1.6}
    assert rounds.line(answer) == "3.1 min: PF 2/128, 85.8 % on dev (81.0 to 88.9 on new texts), +1.6"
    assert rounds.line(answer | {"recommended": None}) == "3.1 min: no student is within the limits yet"


def n_measured(store: Store) -> int:
    """Return how many of Basic and PF are measured."""
    labels = [json.loads(path.read_text())["label"] for path in store.root.glob("evaluate/*/manifest.json")]
    return len({"evaluate Basic 1/64 s0", "evaluate PF 1/64 s0"} & set(labels))


@pytest.fixture
def one_and_the_other(tmp_path, monkeypatch):
    """Return a study of two students in one round, Basic before PF, and its store."""
    cost = scheduler._chain_costs
    first = lambda todo: {d: c + 1e15 * ("Basic" in todo[d].label) for d, c in cost(todo).items()}  # noqa: E731
    monkeypatch.setattr(scheduler, "_chain_costs", first)
    study = write(tmp_path, 0.8, name=tmp_path.name, sizes=["1/64"], recipes=["Basic", "PF"], seeds=[0])
    return study, Store(tmp_path / "store")


def test_what_is_finished_before_an_interruption_is_in_the_advice(one_and_the_other):
    study, store = one_and_the_other
    lines = []

    def listen(progress):
        if n_measured(store) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        budget.spend(study, 10, workers=0, listen=listen, store=store, tell=lines.append)
    found = json.loads((paths.study_folder(study.name) / rounds.SPENT).read_text())
    assert [r["round"] for r in found["rounds"]] == ["the linear model", "1/64 by Basic and PF"] and len(lines) == 2
    assert found["rounds"][1]["students"] == 1
    assert set(advise.Candidates(study.name).table.recipe) == {"Linear", "Basic", "Basic + linear"}
    again = budget.spend(study, 10, workers=0, store=store)
    assert {"Linear", "Basic", "PF"} <= set(advise.Candidates(study.name).table.recipe) and again.rounds[1]["students"] == 2


def test_at_the_deadline_a_round_is_cut_and_a_second_call_trains_nothing_more(one_and_the_other, monkeypatch):
    study, store = one_and_the_other
    monkeypatch.setattr(rounds.Rounds, "seconds_left", property(lambda self: 600.0 * (n_measured(store) == 0)))
    found = budget.spend(study, 10, workers=0, store=store)
    assert found.left_out == ["1/64 by Basic and PF, for want of time", "learning curves of 1/64, for want of time"]
    steps = store.digests()
    assert set(advise.Candidates(study.name).table.recipe) == {"Linear", "Basic", "Basic + linear"}
    again = budget.spend(study, 10, workers=0, store=store)
    assert again.left_out == found.left_out and store.digests() == steps
    assert set(advise.Candidates(study.name).table.recipe) == {"Linear", "Basic", "Basic + linear"}


def test_time_is_not_spent_on_seeds_that_cannot_change_the_recommendation(spent, monkeypatch):
    study, _ = spent
    shown = []
    monkeypatch.setattr(budget.early_stop, "why", lambda candidates, students: shown.append(students) or "it cannot help")
    found = budget.spend(study.model_copy(update={"name": "content"}), 10, workers=0)
    assert len(shown) == 1 and "seed 2" not in str(found.rounds)
    assert re.fullmatch(r"Stopped after \d+ of 10 minutes: it cannot help\.", found.stopped)
    assert found.left_out == ["seeds beyond 1, which cannot change the recommendation"]
    assert budget.left_out(found) == f"{found.stopped} Left out: {found.left_out[0]}."
    assert set(results.load_curves("content").curve) == {"transfer", "labels"}, "they answer another question"


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
    of_labels = set(re.findall(r"Twice the labelled text \([\d,]+\) would add about [+-][\d.]+ points to ([\w-]+)", words))
    assert of_labels <= {"PF", without_linear(best_student(candidates).recipe)}, "nobody would take Basic beside PF"
    assert any("train: 300 texts; praise 150 (50%), scorn 150 (50%)." in s for s in data_checks.sentences(study.name))
    assert data_checks.nearness(study.name).corpus.tolist() == ["D_LM", "D_T"]


def test_the_answers_of_every_rate_are_kept_and_the_interval_allows_for_the_choice_among_them(spent):
    study, _ = spent
    found, tried = advise.Candidates(study.name), results.load_tried(study.name)
    linear = tried[tried.recipe.isin(LINEARS)]
    assert set(linear.rate) == {1, 3, 10, 30, 100} and len(linear) == 2 * 5 * 80, "C stands in the place of a rate"
    tried = tried[~tried.recipe.isin(LINEARS)]
    assert set(tried.groupby(["recipe", "size"]).rate.unique().map(sorted).map(tuple)) == {(0.0005, 0.002)}
    alone = found.table[~found.table.recipe.map(is_averaged)]
    assert len(tried) == 2 * 80 * (len(alone) - 2) and not found.table.unsaved.any()
    searches = results.load_searches(study.name).set_index(["recipe", "size", "rate"])
    for key, rows in tried.groupby(["recipe", "size", "rate"]):
        assert (rows.label == rows.predicted).mean() == pytest.approx(searches.loc[key].dev_accuracy), "as the search saw it"
    averages = found.table[found.table.recipe.map(is_averaged)]
    assert len(averages) == len(alone) - 3 and all(len(found.answers(r.recipe, r.size).search) == 2 for r in averages.itertuples())
    for student in zip(alone.recipe, alone["size"], strict=True):
        if student[0] in LINEARS:
            continue
        first = (
            results.load_predictions(study.name).set_index(["digest", "split"]).loc[(found.models.loc[(*student, 0)].digest, "dev")]
        )
        taken = tried[
            (tried.recipe == student[0]) & (tried["size"] == student[1]) & (tried.rate == found.models.loc[(*student, 0)].rate)
        ]
        assert (first.predicted.to_numpy() == taken.predicted.to_numpy()).all()
    assert "students and settings in all, so expect about" in recommendation.recommend(found).prose()


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
    (folder / rounds.SPENT).write_text(json.dumps(spent))
    first = budget.spend(study, 0, workers=0)
    assert [r["round"] for r in first.rounds] == ["the linear model"]
    first.rounds[0]["seconds"] = 3600  # an hour of this study
    (folder / rounds.SPENT).write_text(json.dumps(vars(first)))
    again = budget.spend(study, 60, workers=0)
    assert set(advise.Candidates("again").table["size"]) == {"linear"} and len(again.rounds) == 1
    assert "2/64 by PD, for want of time" in again.left_out


def test_minutes_spent_on_other_texts_do_not_count(tmp_path):
    study = write(tmp_path, 0.8, name="grown")
    first = budget.spend(study, 0, workers=0)
    assert [r["round"] for r in rounds.Spent.start(study, 0).rounds] == [r["round"] for r in first.rounds] == ["the linear model"]
    with (tmp_path / "t.csv").open("a") as file:
        file.write("a new text,praise\n")
    assert rounds.Spent.start(study, 0).rounds == []


def test_without_time_the_linear_model_is_the_answer_and_the_rest_is_named(tmp_path):
    study, lines = write(tmp_path, 0.8, name="no-time"), []
    found = budget.spend(study, 0, workers=0, tell=lines.append)
    advice = recommendation.recommend(advise.Candidates(study.name))
    assert advice.student == "linear" and advice.table.recipe.tolist() == ["Linear"]
    assert "It was compared with no other student: there was no time to train one." in advice.reasons
    assert set(found.left_out) == {f"{size} by {recipe}, for want of time" for size in study.sizes for recipe in study.recipes}
    assert budget.left_out(found).endswith("Allow more time with --max-minutes.")
    (line,) = lines
    assert re.fullmatch(rf"\d\.\d min: Linear, {advice.chosen.dev:.1f} % on dev \(\d+\.\d to \d+\.\d on new texts\)", line)


def test_a_teacher_that_teaches_nobody_leaves_the_recipes_without_one(tmp_path):
    study = write(tmp_path, 0.0, name="hopeless", sizes=["1/64"], seeds=[0], teacher=TEACHER)
    found = budget.spend(study, 10, workers=0)
    assert set(advise.Candidates(study.name).table.recipe) == {"teacher", "Basic", "Basic + linear", "Linear"}
    assert found.left_out[0].startswith("recipes that distil, for the teacher is right on ")
    write(tmp_path, 0.0, name="hopeless", sizes=["1/64"], seeds=[0], recipes=["PD"], teacher=TEACHER)
    done = CliRunner().invoke(app, ["advise", str(tmp_path / "t.yaml"), "--workers", "0"])
    assert done.exit_code == 2 and "the teacher is right on" in done.output, "there is no student without a teacher"
    assert "Take the linear model" in done.output and "export hopeless --student linear --to model" in done.output


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
    found = advise.Candidates(study.name)
    assert found.table.unsaved.tolist() == [int(recipe not in LINEARS) for recipe in found.table.recipe]
    n_students = found.table.recipe.isin(RECIPES).sum()
    assert f"The answers at {n_students} more rates were not saved" in recommendation.recommend(found).prose()


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
    rounds.write_latency(study, made, store)
    table = advise.Candidates(study.name).table
    assert (
        set(table[table.p50_ms.isna()]["size"]) == {"2/64"}
        and "not measured" in recommendation.display_table(table)["ms a text (p95)"].tolist()
    )
