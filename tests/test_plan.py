import dataclasses
import json
import time
from collections import Counter

import pytest

from pdstudy.params import ParamsError, Study
from pdstudy.plan import VERSION, Step, folder_digest, make, pretraining
from pdstudy.recipes import RECIPES
from pdstudy.sizes import PAPER_SIZES, Size


@pytest.fixture
def planned(settings):
    """Return the plan of the small study after some changes."""
    return lambda **changes: make(Study(**(settings | changes)))


def students(plan, recipe):
    return [s for s in plan.students if s.recipe == recipe]


def ancestors(plan, digest):
    """Return every step that a step rests on."""
    found = set()
    for parent in plan.steps[digest].parents.values():
        found |= {parent} | ancestors(plan, parent)
    return found


def start_of(plan, student):
    """Return the encoder from which a student's first stage starts."""
    chain = [plan.steps[d] for d in (student.model, *ancestors(plan, student.model))]
    return {s.parents["start"] for s in chain if "start" in s.parents and plan.steps[s.parents["start"]].stage == "pretrain"}


STEP = Step("pretrain", {"size": "1/64", "rate": 1e-3, "seed": 0}, {"ids": "abc"}, "a label", 5.0, "/some/where")


# -- the identity of a step


@pytest.mark.parametrize("hint", [{"label": "another"}, {"flops": 9.0}, {"folder": "/else/where"}, {"folder": None}])
def test_what_is_only_a_hint_is_not_part_of_a_steps_identity(hint):
    assert dataclasses.replace(STEP, **hint).digest == STEP.digest


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "finetune"},
        {"settings": STEP.settings | {"rate": 2e-3}},
        {"settings": STEP.settings | {"seed": 1}},
        {"settings": STEP.settings | {"more": None}},
        {"parents": {"ids": "abd"}},
        {"parents": {"start": "abc"}},
        {"parents": {}},
    ],
    ids=str,
)
def test_what_changes_a_steps_meaning_changes_its_digest(change):
    assert dataclasses.replace(STEP, **change).digest != STEP.digest


def test_the_digest_does_not_depend_on_the_order_of_keys_nor_on_the_process(fresh_python):
    turned = Step("pretrain", dict(reversed(STEP.settings.items())), STEP.parents, "")
    assert turned.digest == STEP.digest
    code = f"from pdstudy.plan import Step; print(Step('pretrain', {STEP.settings!r}, {STEP.parents!r}, '').digest)"
    assert fresh_python(code) == STEP.digest


def test_a_new_version_of_a_stages_code_makes_new_steps(monkeypatch):
    monkeypatch.setitem(VERSION, "pretrain", VERSION["pretrain"] + 1)
    assert dataclasses.replace(STEP).digest != STEP.digest


def test_a_number_that_json_cannot_hold_has_no_digest():
    with pytest.raises(ValueError, match="JSON"):
        _ = Step("label", {"rate": float("nan")}, {}, "").digest


# -- what a study needs


def test_parents_come_before_their_children(planned):
    seen = set()
    for digest, step in planned(recipes=["PD-F", "PF", "Basic"]).steps.items():
        assert set(step.parents.values()) <= seen
        assert step.digest == digest
        seen.add(digest)


def test_the_small_study_has_exactly_these_steps(planned):
    # Two sizes, two seeds, two rates. Basic: a search of 2 and one more seed, at each size; PD alike; the teacher: a search of 2.
    assert planned().counts() == {
        "texts": 1, "tokenizer": 1, "ids": 2, "pretrain": 3, "label": 1,
        "finetune": 2 * 3 + 2, "distill": 2 * 3, "search": 5, "evaluate": 9,
    }  # fmt: skip


def test_shared_steps_are_asked_for_often_and_planned_once(planned):
    plan = planned(recipes=list(RECIPES)[:5], seeds=[0, 1, 2])
    assert plan.asked > len(plan.steps)
    assert len({s.digest for s in plan.steps.values()}) == len(plan.steps)


def test_every_recipe_size_and_seed_has_one_student_and_the_teacher_stands_first(planned):
    plan = planned(recipes=["Basic", "PF", "PD-F"], seeds=[3, 0])
    assert (plan.students[0].recipe, plan.students[0].size) == ("teacher", "2/128")
    found = Counter((s.recipe, s.size, s.seed) for s in plan.students[1:])
    assert found == Counter((r, s, n) for r in ("Basic", "PF", "PD-F") for s in ("1/64", "2/64") for n in (3, 0))
    assert all(plan.steps[s.evaluation].parents["model"] == s.model for s in plan.students)


def test_pd_and_pf_start_from_one_encoder(planned):
    plan = planned(sizes=["1/64"], recipes=["PF", "PD", "PD-F", "PD (embeddings)"])
    starts = [start_of(plan, s) for s in plan.students if s.recipe != "teacher"]
    assert all(len(s) == 1 for s in starts)
    assert len(set.union(*starts)) == 1
    assert len(plan.of_stage("pretrain")) == 2  # that one and the teacher's


def test_basic_and_distillation_start_from_no_encoder(planned):
    plan = planned(recipes=["Basic", "Distillation"])
    basic, distilled = students(plan, "Basic")[0], students(plan, "Distillation")[0]
    stages = {plan.steps[d].stage for d in ancestors(plan, basic.model)}
    assert not stages & {"pretrain", "label"}
    assert start_of(plan, distilled) == {d.parents["start"] for d in plan.of_stage("finetune") if "start" in d.parents}  # the teacher's alone


def test_all_students_read_the_same_soft_labels(planned):
    plan = planned(recipes=["Distillation", "PD", "PD-F"], seeds=[0, 1, 2])
    assert len(plan.of_stage("label")) == 1
    assert {s.parents["label"] for s in plan.of_stage("distill")} == {plan.of_stage("label")[0].digest}


def test_pd_f_goes_on_from_the_student_that_pd_reports(planned):
    plan = planned(sizes=["1/64"], recipes=["PD", "PD-F"], seeds=[0, 1])
    for pd, pdf in zip(students(plan, "PD"), students(plan, "PD-F"), strict=True):
        assert pd.model in ancestors(plan, pdf.model)
    assert len(plan.of_stage("distill")) == 2 + 1


def test_a_teacher_of_a_students_size_is_that_student(planned):
    plan = planned(sizes=["2/128"], recipes=["PF"])
    assert plan.students[0].model == students(plan, "PF")[0].model


def test_the_search_seeds_student_is_the_winner_of_the_search_and_other_seeds_take_its_rate(planned):
    plan = planned(sizes=["1/64"], recipes=["PD"], seeds=[0, 5])
    zero, five = students(plan, "PD")
    assert plan.steps[zero.model].stage == "search"
    assert plan.steps[five.model].parents["search"] == zero.model
    assert "rate" not in plan.steps[five.model].settings


def test_a_study_without_the_search_seed_searches_on_it_all_the_same(planned):
    with_zero, without = planned(seeds=[0, 4]), planned(seeds=[4])
    assert {s.digest for s in without.of_stage("search")} == {s.digest for s in with_zero.of_stage("search")}


def test_every_arm_searches_equally_many_rates(planned):
    rates = [1e-4, 3e-4, 1e-3]
    plan = planned(recipes=[*RECIPES][:6], finetune={"rates": rates}, distill={"rates": rates}, seeds=[0, 1, 2])
    searches = plan.of_stage("search")
    assert [len(s.parents) for s in searches] == [3] * len(searches)
    assert {frozenset(plan.steps[d].settings["rate"] for d in s.parents.values()) for s in searches} == {frozenset(rates)}


def test_seeds_take_turns_on_the_starts(planned):
    plan = planned(sizes=["1/64"], recipes=["PD"], seeds=[0, 1, 2, 3], pretrain={"starts": 2})
    numbers = [plan.steps[d].settings["seed"] for s in students(plan, "PD") for d in start_of(plan, s) if s.seed]
    first = [plan.steps[plan.steps[s.model].parents["start"]].settings["seed"] for s in students(plan, "PD")[1:]]
    assert first == [1, 0, 1]
    assert set(numbers) == {0, 1}


def test_a_truncated_student_takes_the_deepest_model_of_its_width(planned):
    plan = planned(sizes=["1/64"], recipes=["PD (truncated)"], pretrain_by_size={"3/64": {}, "6/64": {"tokens": 100}, "9/128": {}})
    [step] = {s.parents["start"] for s in plan.of_stage("distill")}
    assert (plan.steps[step].settings["size"], plan.steps[step].settings["tokens"]) == ("6/64", 100)


def test_a_truncated_student_without_a_deeper_model_is_refused_with_the_cure(planned):
    with pytest.raises(ParamsError, match=r"PD \(truncated\) of 2/64 needs a deeper .* width 64; add one to pretrain_by_size, such as \{12/64"):
        planned(recipes=["PD (truncated)"])


def test_a_family_is_pretrained_without_a_teacher(settings):
    study = Study(**(settings | {"pretrain": {"starts": 2}, "pretrain_by_size": {"2/64": {"starts": 1}}}))
    plan = pretraining(study, [Size(1, 64), Size(2, 64)])
    assert plan.counts()["pretrain"] == 3
    assert not plan.of_stage("finetune") and not plan.of_stage("evaluate")
    assert {s.digest for s in plan.of_stage("pretrain")} >= {s.digest for s in make(study).of_stage("pretrain") if "64" in s.settings["size"].split("/")}


# -- which setting makes what anew


@pytest.mark.parametrize(
    ("changes", "new"),
    [
        ({"name": "other"}, set()),
        ({"teacher": {"size": "2/128", "folder": None}}, set()),
        ({"init_std": {"64": 0.06, "128": 0.05, "512": 0.02}}, set()),
        ({"finetune": {"rates": [1e-3, 1e-4]}}, set()),
        ({"splits": {"dev": 1001}}, {"everything"}),
        ({"splits": {"test": 100}}, {"everything"}),
        ({"corpus": {"documents": 10}}, {"everything"}),
        ({"corpus": {"heldout": 0.1}}, {"everything"}),
        ({"tokenizer": {"vocabulary": 1000}}, {"everything"}),
        ({"splits": {"train": 300}}, {"finetune", "distill", "label"}),
        ({"max_length": 32}, {"finetune", "distill", "label"}),
        ({"init_std": {"64": 0.07, "128": 0.05}}, {"pretrain", "finetune", "distill"}),
        ({"init_std": {"64": 0.06, "128": 0.04}}, {"pretrain", "finetune", "distill", "label"}),
        ({"dropout": 0.0}, {"finetune", "distill", "label"}),
        ({"precision": "bf16"}, {"pretrain", "finetune", "distill", "label"}),
        ({"teacher": {"size": "1/128"}}, {"pretrain", "finetune", "distill", "label"}),
        ({"transfer": {"texts": 100}}, {"distill", "label"}),
        ({"finetune": {"rates": [1e-4, 1e-3], "epochs": 1}}, {"finetune", "distill", "label"}),
        ({"finetune": {"rates": [1e-4, 1e-3], "batch": 16}}, {"finetune", "distill", "label"}),
        ({"distill": {"rates": [1e-4, 1e-3], "temperature": 2}}, {"distill"}),
        ({"distill": {"rates": [1e-4, 1e-3], "warmup": 0}}, {"distill"}),
        ({"distill": {"rates": [1e-4, 1e-3], "weight_decay": 0}}, {"distill"}),
        ({"pretrain": {"tokens": 100}}, {"pretrain", "finetune", "distill", "label"}),
        ({"pretrain": {"mask": 0.3}}, {"pretrain", "finetune", "distill", "label"}),
        ({"pretrain": {"positions": "sinusoid"}}, {"pretrain", "finetune", "distill", "label"}),
        ({"pretrain": {"muon_rate": 0.5}}, set()),  # AdamW alone does not know it
        ({"pretrain_by_size": {"1/64": {"rate": 0.5}}}, {"pretrain", "distill"}),
    ],
    ids=str,
)
def test_a_setting_makes_anew_what_it_changes_and_nothing_else(planned, changes, new):
    before, after = planned(), planned(**changes)
    made = {after.steps[d].stage for d in set(after.steps) - set(before.steps)}
    if new == {"everything"}:
        assert not set(after.steps) & set(before.steps)
    else:
        assert made - {"search", "evaluate", "ids"} == new


def test_muons_rate_matters_to_muon(planned):
    one, two = (planned(pretrain={"optimiser": "muon", "muon_rate": r}) for r in (0.01, 0.02))
    assert not {s.digest for s in one.of_stage("pretrain")} & {s.digest for s in two.of_stage("pretrain")}


# -- given folders


@pytest.fixture
def given(tmp_path):
    """Return two folders with the same teacher and tokenizer."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        for file in ("config.json", "model.safetensors", "tokenizer.json"):
            (tmp_path / name / file).write_text(f"a {file}")
    return tmp_path / "here", tmp_path / "there"


def test_a_given_folder_counts_by_its_content_and_not_by_its_place(planned, given):
    here, there = given
    plans = [planned(teacher={"size": None, "folder": str(f)}, tokenizer={"folder": str(f)}) for f in given]
    assert set(plans[0].steps) == set(plans[1].steps)
    (there / "model.safetensors").write_text("other weights")
    other = planned(teacher={"size": None, "folder": str(there)}, tokenizer={"folder": str(there)})
    assert {s.digest for s in other.of_stage("given")} != {s.digest for s in plans[0].of_stage("given")}
    assert {s.digest for s in other.of_stage("tokenizer")} == {s.digest for s in plans[0].of_stage("tokenizer")}


def test_a_given_teacher_reads_the_texts_in_its_own_pieces(planned, given):
    plan = planned(teacher={"size": None, "folder": str(given[0])})
    label, distilled = plan.of_stage("label")[0], plan.of_stage("distill")[0]
    assert label.parents["ids"] != distilled.parents["ids"]
    assert len(plan.of_stage("tokenizer")) == 2
    assert plan.students[0].size == "given"


def test_a_folder_that_holds_nothing_fitting_is_refused_with_the_cure(planned, tmp_path):
    with pytest.raises(ParamsError, match=r"holds none of config.json, model.safetensors; give the folder of a saved model"):
        planned(teacher={"size": None, "folder": str(tmp_path)})
    with pytest.raises(ParamsError, match="holds none of a, b"):
        folder_digest(str(tmp_path / "nowhere"), "a", "b")


# -- time


def test_planning_loads_neither_torch_nor_pandas_and_takes_less_than_a_second(fresh_python, settings):
    code = (
        "import sys, json, time; from pdstudy.params import Study; from pdstudy.plan import make; "
        f"study = Study(**json.loads({json.dumps(settings)!r})); begun = time.perf_counter(); make(study); "
        "print(json.dumps([time.perf_counter() - begun, sorted(sys.modules)]))"
    )
    seconds, loaded = json.loads(fresh_python(code))
    assert seconds < 1
    assert not set(loaded) & {"torch", "pandas", "numpy", "transformers", "scipy", "accelerate", "datasets", "sklearn"}


def test_the_papers_whole_grid_with_five_seeds_is_planned_in_two_seconds(settings):
    deeper = {f"24/{h}": {} for h in (128, 256, 512, 768)}
    grid = {"sizes": [str(s) for s in PAPER_SIZES], "recipes": list(RECIPES), "seeds": [0, 1, 2, 3, 4], "pretrain_by_size": deeper}
    study = Study(**(settings | grid | {"init_std": {str(h): 0.04 for h in (128, 256, 512, 768)}}))
    begun = time.perf_counter()
    plan = make(study)
    assert time.perf_counter() - begun < 2
    assert len(plan.students) == 1 + 24 * 7 * 5
    assert len(plan.of_stage("pretrain")) == 24 + 4
