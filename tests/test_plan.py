"""A study as steps: each built once, named by what changes its meaning and by nothing else."""

import copy
import hashlib
import itertools
import json
import re
import shutil
import time
from collections import Counter

import pytest

from pdstudy.recipes import RECIPES
from pdstudy.run.estimate import cost, estimate, needed, work
from pdstudy.sizes import PAPER_SIZES, Size
from pdstudy.storage.store import Store
from pdstudy.study import plan, steps
from pdstudy.study.settings import ParamsError, Study
from pdstudy.study.steps import MEAN_PIECES, Plan, Step, mean_pieces


def planned(settings: dict, **changes) -> Plan:
    """Return the plan of a study; `pretrain__rate=1e-4` changes one key of a group."""
    changed = copy.deepcopy(settings)
    for name, value in changes.items():
        group, _, name = name.rpartition("__")
        (changed.setdefault(group, {}) if group else changed)[name] = value
    return plan.make(Study(**changed))


def model_of(p: Plan, recipe: str, size: str = "2/64", seed: int = 0) -> Step:
    """Return the step that made one student."""
    (student,) = [s for s in p.students if (s.recipe, s.size, s.seed) == (recipe, size, seed) and not s.curve]
    return p.steps[student.model]


def parent(p: Plan, step: Step, role: str) -> Step:
    return p.steps[step.parents[role]]


def a_candidate(p: Plan, search: Step) -> Step:
    return p.steps[next(iter(search.parents.values()))]


# Steps and students


def test_a_small_study_is_these_steps(settings):
    p = planned(settings)
    assert p.counts() == {
        "texts": 1,
        "tokenizer": 1,
        "ids": 2,  # of D_LM, and of the task
        "pretrain": 3,  # 1/64, 2/64 and the teacher
        "finetune": 2 + 2 * 3,  # two rates of the teacher; two rates and seed 1 of Basic at two sizes
        "distill": 2 * 3,  # of PD
        "search": 1 + 4,
        "label": 1,
        "linear": 2,  # trained on D_L, and taught by the teacher
        "evaluate": 1 + 8 + 2,
    }
    assert {(s.recipe, s.size, s.seed) for s in p.students} == {
        ("teacher", "2/128", 0),
        ("Linear", "linear", 0),
        ("Linear, taught", "linear", 0),
        *((r, s, k) for r in ("Basic", "PD") for s in ("1/64", "2/64") for k in (0, 1)),
    }


def test_shared_steps_are_planned_once_though_asked_for_often(settings):
    p = planned(settings, recipes=["PF", "PD", "PD-F", "PD (embeddings)"])
    assert p.asked > len(p.steps)
    assert len(p.of_stage("pretrain")) == 3
    assert len(p.of_stage("label")) == 1


def test_parents_come_before_their_children_and_every_student_is_made_and_measured(settings):
    p = planned(settings, recipes=["Basic", "Distillation", "PF", "PD", "PD-F", "PD (embeddings)"])
    seen = set()
    for digest, step in p.steps.items():
        assert set(step.parents.values()) <= seen
        assert digest == step.digest
        seen.add(digest)
    for student in p.students:
        assert p.steps[student.evaluation].parents["model"] == student.model


def test_every_step_can_be_written_to_a_manifest_and_read_back_as_the_same_step(settings):
    for digest, step in planned(settings).steps.items():
        written = json.dumps([step.stage, step.settings, step.parents, step.label])
        assert Step(*json.loads(written)).digest == digest


def test_a_new_setting_leaves_the_steps_of_studies_without_it_what_they_were(settings):
    """What somebody computed is not computed anew: but for the last rise of a VERSION, of finetune and distill, these are the digests of commit e49d42b."""
    settings |= {"recipes": ["Basic", "Distillation", "PF", "PD", "PD-F", "PD (embeddings)"]}
    settings |= {"curves": {"transfer": [400], "labels": [300]}, "splits": {"train": 0, "dev": 1000, "test": 2530, "seed": 1}}
    made = plan.make(Study(**settings))
    later = {s.digest for s in made.steps.values() if s.stage == "linear"}  # and their evaluations
    steps = sorted(d for d, s in made.steps.items() if not {d, s.parents.get("model")} & later)
    assert (len(steps), hashlib.sha256(" ".join(steps).encode()).hexdigest()[:16]) == (124, "09e088a31dd53d22")


# What is shared


def test_pd_and_pf_begin_from_one_encoder(settings):
    p = planned(settings, recipes=["PF", "PD"])
    for size in ("1/64", "2/64"):
        for seed in (0, 1):
            models = [model_of(p, recipe, size, seed) for recipe in ("PF", "PD")]
            starts = {(a_candidate(p, m) if m.stage == "search" else m).parents["start"] for m in models}
            assert len(starts) == 1
            assert p.steps[starts.pop()].settings["size"] == size


def test_the_teacher_is_the_fine_tuned_student_of_its_size(settings):
    p = planned(settings, sizes=["2/128"], recipes=["PF"])
    assert model_of(p, "PF", "2/128").digest == model_of(p, "teacher", "2/128").digest


def test_every_distilled_student_reads_the_same_soft_labels(settings):
    p = planned(settings, recipes=["Distillation", "PD", "PD-F"])
    (label,) = p.of_stage("label")
    assert {s.parents["label"] for s in p.of_stage("distill")} == {label.digest}
    assert label.parents["model"] == model_of(p, "teacher", "2/128").digest
    assert not any("label" in s.parents for s in p.of_stage("finetune"))


def test_two_studies_share_what_they_have_in_common(settings):
    small, large = planned(settings), planned(settings, name="other", seeds=[0, 1, 2], recipes=["PF", "PD", "Basic"])
    assert set(small.steps) < set(large.steps)


def test_a_start_serves_every_study_of_the_task_whatever_it_does_with_its_texts(settings):
    changed = planned(settings, max_length=32, splits__train=500, transfer__texts=99, finetune__epochs=1, distill__epochs=1)
    assert {s.digest for s in planned(settings).of_stage("pretrain")} == {s.digest for s in changed.of_stage("pretrain")}


def test_several_starts_are_given_to_the_seeds_in_turn(settings):
    p = planned(settings, seeds=[0, 1, 2, 3], pretrain__starts=2)
    numbers = []
    for seed in range(4):
        model = model_of(p, "PD", seed=seed)
        step = a_candidate(p, model) if model.stage == "search" else model
        numbers.append(parent(p, step, "start").settings["seed"])
    assert numbers == [0, 1, 0, 1]


# Recipes


def test_a_random_start_has_no_parent_to_start_from(settings):
    p = planned(settings, recipes=["Basic", "Distillation"])
    for recipe in ("Basic", "Distillation"):
        step = model_of(p, recipe, seed=1)
        assert "start" not in step.parents
        assert step.settings["start"] == "random"


def test_pd_f_fine_tunes_what_was_distilled_with_the_same_seed(settings):
    p = planned(settings, recipes=["PD-F", "PD"])
    for seed in (0, 1):
        model = model_of(p, "PD-F", seed=seed)
        tuned = a_candidate(p, model) if model.stage == "search" else model
        assert (tuned.stage, tuned.settings["start"]) == ("finetune", "pretrained")
        assert tuned.parents["start"] == model_of(p, "PD", seed=seed).digest


def test_a_truncated_start_takes_the_deepest_model_of_its_width(settings):
    p = planned(settings, sizes=["1/64", "2/64"], recipes=["PD (truncated)"], pretrain_by_size={"5/64": {}, "9/128": {}})
    for size in ("1/64", "2/64"):
        assert parent(p, model_of(p, "PD (truncated)", size, 1), "start").settings["size"] == "5/64"


def test_a_12_layer_model_is_cut_from_itself_as_in_the_papers_figure_5(settings):
    p = planned(settings, sizes=["12/64"], recipes=["PD", "PD (truncated)"])
    assert parent(p, model_of(p, "PD (truncated)", "12/64", 1), "start") == parent(p, model_of(p, "PD", "12/64", 1), "start")


def test_the_papers_study_is_planned_without_its_data_and_searches_its_whole_grid_for_every_arm():
    study = Study.read("paper")
    assert {*study.sizes} == {str(s) for s in PAPER_SIZES}
    assert set(study.recipes) == set(RECIPES)
    with pytest.raises(ParamsError, match="is missing"):
        plan.make(study)
    small = study.model_copy(update={"seeds": [0, 1], "sizes": ["2/128", "12/128"]})
    p = plan.make(small, assumed=True)
    assert {len(s.parents) for s in p.of_stage("search")} == {5 * 4}
    assert {s.folder.rpartition("/")[2] for s in p.of_stage("adopt")} == {
        "bert_uncased_L-2_H-128_A-2", "bert_uncased_L-12_H-128_A-2", "bert-large-uncased",
    }  # fmt: skip


def test_a_truncated_start_without_a_deeper_model_is_refused_with_the_cure(settings):
    with pytest.raises(ParamsError, match=r"PD \(truncated\) of 2/64 needs a deeper .* width 64; add one to pretrain_by_size"):
        planned(settings, recipes=["PD (truncated)"])


# The search


def test_every_arm_searches_the_same_number_of_rates(settings):
    p = planned(
        settings,
        recipes=[r for r in RECIPES if r != "PD (truncated)"],
        finetune__rates=[1e-4, 3e-4, 1e-3],
        distill__rates=[3e-4, 1e-3, 3e-3],
    )
    assert {len(s.parents) for s in p.of_stage("search")} == {3}
    for search in p.of_stage("search"):
        assert {p.steps[d].settings["seed"] for d in search.parents.values()} == {0}
        rates = sorted(p.steps[d].settings["rate"] for d in search.parents.values())
        assert rates in ([1e-4, 3e-4, 1e-3], [3e-4, 1e-3, 3e-3])


def test_the_search_is_on_seed_0_and_the_other_seeds_use_its_winner(settings):
    p = planned(settings)
    search = model_of(p, "PD", seed=0)
    assert search.stage == "search"
    other = model_of(p, "PD", seed=1)
    assert other.parents["search"] == search.digest
    assert other.settings["seed"] == 1
    assert "rate" not in other.settings


def test_a_study_that_reports_other_seeds_uses_the_same_search(settings):
    assert model_of(planned(settings, seeds=[7, 8]), "PD", seed=7).parents["search"] == model_of(planned(settings), "PD").digest


def test_batch_sizes_are_searched_with_the_rates_each_with_each_and_equally_for_every_arm(settings):
    p = planned(settings, finetune__batch=[8, 16], distill__batch=[8, 16])
    for search in p.of_stage("search"):
        tried = [(p.steps[d].settings["batch"], p.steps[d].settings["rate"]) for d in search.parents.values()]
        assert tried == [(n, r) for n in (8, 16) for r in (1e-4, 1e-3)]
    other = model_of(p, "PD", seed=1)
    assert other.settings["batch"] == [8, 16] and "rate" not in other.settings  # both are the winner's
    with pytest.raises(ValueError, match=r"finetune\.batch lists 2 and distill\.batch 1: recipes are compared fairly only after"):
        planned(settings, finetune__batch=[8, 16])
    one = planned(settings, finetune__batch=8, distill__batch=8)
    assert {s.digest for s in one.of_stage("finetune") if "rate" in s.settings} < set(p.steps)


def test_work_is_counted_in_updates_pieces_and_operations(settings):
    p = planned(settings, splits__train=640, finetune__epochs=2, finetune__batch=32)
    asked = work(model_of(p, "Basic", seed=1))
    assert asked[:2] == (640 * 2 / 32, 640 * 2 * MEAN_PIECES)
    assert asked.flops == 3 * asked.pieces * Size(2, 64).flops_per_token(MEAN_PIECES)
    pretrained = p.of_stage("pretrain")[0]
    assert work(pretrained).updates == pretrained.settings["tokens"] / (32 * 64)


# Learning curves


def test_a_point_of_a_curve_is_the_same_student_on_fewer_texts_at_the_same_rate(settings):
    curves = {"transfer": [200, 400], "labels": [100], "sizes": ["2/64"]}
    p = planned(settings, recipes=["Basic", "PD", "PD-F"], curves=curves)
    points = [(s.recipe, s.size, s.seed, s.curve, s.texts) for s in p.students if s.curve]
    wanted = [("Linear", "linear", 0, "labels", 100), *(("Basic", "2/64", seed, "labels", 100) for seed in (0, 1))]
    wanted += [("PD", "2/64", seed, "transfer", n) for seed in (0, 1) for n in (200, 400)]
    assert points == wanted, "PD-F is trained on both kinds of text, so its curve would say nothing of either"
    (label,) = p.of_stage("label")
    for s in p.students:
        if s.curve == "transfer":
            model, student = p.steps[s.model], model_of(p, "PD", "2/64", seed=1)
            assert model.parents["label"] == label.digest, "the soft labels are computed once"
            assert model.parents["search"] == student.parents["search"] and model.settings["texts"] == s.texts
    n_texts = [step.settings["texts"] for step in p.of_stage("linear")]
    assert n_texts == [0, 100, 20_000], "the linear model of all of D_L, of the curve, and of D_T with soft labels"
    without = planned(settings, recipes=["Basic", "PD", "PD-F"])
    assert set(without.steps) < set(p.steps), "and the study's own students are what they were"


@pytest.mark.parametrize("curves", [{"transfer": [20_000]}, {"transfer": [400, 200]}, {"sizes": ["3/64"]}])
def test_a_curve_that_cannot_be_drawn_is_refused(settings, curves):
    with pytest.raises(ValueError, match=r"curves\.|smallest first"):
        planned(settings, curves=curves)


FOUR = {
    "recipes": ["Basic", "Distillation", "PF", "PD", "PD-F"],
    "splits": {"train": 500, "dev": 1000, "test": 2530, "seed": 0},
    "recipe_sizes": {"PD-F": ["2/64"]},
    "domains": {
        "corpora": ["held-back", "news", "transfer+news"],
        "texts": 300,
        "epochs": 2,
        "sizes": ["2/64"],
        "recipes": ["PD", "PD-F"],
    },
    "compound": {"corpora": ["transfer", "news"], "tokens": 1e5, "sizes": ["1/64"], "recipes": ["PF", "PD"]},
}


def test_a_recipe_may_be_tried_at_some_sizes_only(settings):
    p = planned(settings, **FOUR)
    assert {s.size for s in p.students if s.recipe == "PD-F"} == {"2/64"}
    assert {s.size for s in p.students if s.recipe == "PD" and s.own} == {"1/64", "2/64"}


def test_other_transfer_sets_are_labelled_once_and_leave_the_studys_own_students_as_they_were(settings):
    p, without = planned(settings, **FOUR), planned(settings, **FOUR | {"domains": {}})
    assert set(without.steps) < set(p.steps)
    assert Counter((s.recipe, s.domain) for s in p.students if s.domain) == dict.fromkeys(
        itertools.product(("PD", "PD-F"), ("held-back", "news", "transfer+news")), 2
    )
    labels = [s for s in p.of_stage("label") if "transfer" in s.parents]
    assert len(labels) == 3, "one a corpus, for every student and seed"
    for student in (s for s in p.students if s.domain and s.recipe == "PD"):
        step = p.steps[student.model]
        label = p.steps[step.parents["label"]]
        assert p.source_of(p.steps[label.parents["transfer"]]) == student.domain
        assert step.parents["transfer"] == label.parents["transfer"] and step.settings["epochs"] == 2
        assert p.steps[step.parents["search"]] in without.of_stage("search"), "the rate found for the study's own D_T"


def test_a_start_that_reads_another_text_shares_its_word_pieces_and_nothing_else(settings):
    p = planned(settings, **FOUR)
    others = {p.source_of(s): s for s in p.of_stage("pretrain") if p.source_of(s)}
    assert set(others) == {"transfer", "news"} and all(s.settings["tokens"] == 1e5 for s in others.values())
    tokenizers = {p.steps[s.parents["ids"]].parents["tokenizer"] for s in p.of_stage("pretrain")}
    assert len(tokenizers) == 1
    students = [s for s in p.students if s.corpus]
    assert Counter((s.recipe, s.size, s.corpus) for s in students) == dict.fromkeys(
        itertools.product(("PF", "PD"), ("1/64",), ("transfer", "news")), 2
    )
    searched = {(s.recipe, s.corpus): p.steps[s.model] for s in students if s.seed == 0}
    assert all(len(step.parents) == 2 for step in searched.values()), "its own search, as many rates as any other"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"domains": {"corpora": ["nwes"]}}, "no corpus 'nwes'; known: transfer, held-back, news, python"),
        ({"compound": {"corpora": ["news", "news"]}}, "'news' is listed twice"),
        ({"domains": {"sizes": ["9/64"]}}, "domains.sizes: 9/64 is none of the study's sizes"),
        ({"recipe_sizes": {"PF": ["1/64"]}}, "recipe_sizes.PF.recipes: 'PF' is none of the study's recipes"),
    ],
)
def test_other_text_that_the_study_cannot_have_is_refused(settings, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        planned(settings, **changes)


def test_a_plan_may_hold_only_some_students(settings):
    p = plan.make(Study(**settings), {("PD", "2/64"): [1]})
    assert [(s.recipe, s.size, s.seed) for s in p.students] == [
        ("teacher", "2/128", 0),
        ("Linear", "linear", 0),
        ("Linear, taught", "linear", 0),
        ("PD", "2/64", 1),
    ]
    assert set(p.steps) < set(planned(settings).steps)


# Identity

MATTERS = {
    "splits__train": 500, "splits__dev": 999, "splits__test": 999, "splits__seed": 1,
    "corpus__documents": 500, "corpus__heldout": 0.03, "tokenizer__vocabulary": 4096,
    "max_length": 32, "init_std": {"64": 0.05, "128": 0.05}, "dropout": 0.2, "precision": "bf16",
    "pretrain__tokens": 1e6, "pretrain__row": 32, "pretrain__batch": 16, "pretrain__mask": 0.3,
    "pretrain__rate": 2e-3, "pretrain__optimiser": "muon", "pretrain__warmup": 0.1, "pretrain__weight_decay": 0.02,
    "pretrain__init_std": 0.07, "pretrain__positions": "sinusoid", "pretrain__words": "counts", "pretrain__cls_words": 0.5,
    "pretrain__whole_words": True, "pretrain__long_row": 256, "pretrain__compile": True, "pretrain_by_size": {"2/64": {"tokens": 5e6}},
    "teacher__size": "3/128", "transfer__texts": 500,
    "finetune__epochs": 2, "finetune__batch": 16, "finetune__rates": [2e-4, 1e-3], "finetune__warmup": 0.2, "finetune__weight_decay": 0.1,
    "distill__epochs": 2, "distill__batch": 16, "distill__rates": [2e-4, 1e-3], "distill__warmup": 0.2, "distill__weight_decay": 0.1,
    "distill__temperature": 2.0, "distill__loss": "logits", "distill__labelled": True, "search_seeds": 2, "pooling": "mean", "rates_by_size": {"2/64": [2e-4, 1e-3]},
    "distill__match_classes": True,
}  # fmt: skip


@pytest.mark.parametrize("setting", MATTERS)
def test_a_distilled_student_is_another_when_this_setting_changes(settings, setting):
    changed = planned(settings, **{setting: MATTERS[setting]})
    for seed in (0, 1):
        assert model_of(changed, "PD", seed=seed).digest != model_of(planned(settings), "PD", seed=seed).digest


def test_no_setting_of_a_study_is_forgotten_in_the_list_above(settings):
    named = {name.rpartition("__")[0] or name for name in MATTERS}
    assert set(Study.model_fields) - named == {
        "name",
        "task",
        "sizes",
        "recipes",
        "seeds",
        "family",
        "curves",
        "recipe_sizes",
        "domains",
        "compound",
        "linear",
    }  # the last six have their own tests
    study = Study(**settings)
    for group in ("splits", "corpus", "pretrain", "transfer", "finetune", "distill"):
        keys = {name.rpartition("__")[2] for name in MATTERS if name.startswith(f"{group}__")}
        assert set(type(getattr(study, group)).model_fields) - keys <= {
            "muon_rate",
            "starts",
            "long_share",
            "window",
            "words_std",
            "precision",
            "data",
            "true_labels",
        }  # own tests


def test_longer_rows_are_part_of_a_pretraining_only_where_they_are_asked_for(settings):
    def settings_of(**changes):
        return [s.settings for s in planned(settings, **changes).of_stage("pretrain")]

    assert all("long_share" not in s and "long_row" not in s for s in settings_of())
    assert all(s["long_row"] == 256 and s["long_share"] == 0.1 for s in settings_of(pretrain__long_row=256))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"long_row": 32}, "long_row: 32 pieces are not more than row, 64"),
        ({"long_row": 512, "batch": 4}, "long_row: 512 pieces do not fit in a step of 256"),
        ({"long_row": 128, "compile": True}, "a compiled encoder has rows of one length"),
    ],
)
def test_longer_rows_that_cannot_be_read_are_refused(settings, changes, message):
    with pytest.raises(ValueError, match=message):
        Study(**settings | {"pretrain": changes})


def test_pretraining_may_have_a_precision_of_its_own(settings):
    def of(**changes):
        p = planned(settings, **changes)
        return {s.settings["precision"] for s in p.of_stage("pretrain")}, {s.settings["precision"] for s in p.of_stage("distill")}

    assert of(precision="fp32") == ({"fp32"}, {"fp32"}) and of(precision="bf16") == ({"bf16"}, {"bf16"})
    assert of(precision="fp32", pretrain__precision="bf16") == ({"bf16"}, {"fp32"})


def test_the_rate_of_muon_matters_only_where_muon_is_used(settings):
    def of(**changes):
        return model_of(planned(settings, **changes), "PD").digest

    assert of(pretrain__muon_rate=0.01) == of()
    assert of(pretrain__optimiser="muon", pretrain__muon_rate=0.01) != of(pretrain__optimiser="muon")


def test_what_differs_for_one_size_leaves_the_others_starts_alone(settings):
    p, changed = planned(settings), planned(settings, pretrain_by_size={"2/64": {"tokens": 5e6}})
    sizes = [{s.settings["size"] for s in q.of_stage("pretrain")} for q in (p, changed)]
    assert sizes == [{"1/64", "2/64", "2/128"}] * 2
    common = set(p.steps) & set(changed.steps)
    assert {p.steps[d].settings["size"] for d in common if p.steps[d].stage == "pretrain"} == {"1/64", "2/128"}


def test_label_cost_and_place_are_no_part_of_a_steps_identity():
    step = Step("given", {"sha256": "aa"}, {"ids": "0" * 16}, "a label", flops=1.0, folder="/here")
    assert step.digest == Step("given", {"sha256": "aa"}, {"ids": "0" * 16}, "another", flops=2.0, folder="/there").digest
    assert len(step.digest) == 16


def test_stage_settings_parents_and_version_are_a_steps_identity(monkeypatch):
    def digests():
        return [
            Step("given", {"sha256": "aa"}, {"ids": "0" * 16}, "").digest,
            Step("label", {"sha256": "aa"}, {"ids": "0" * 16}, "").digest,
            Step("given", {"sha256": "bb"}, {"ids": "0" * 16}, "").digest,
            Step("given", {"sha256": "aa"}, {"ids": "1" * 16}, "").digest,
            Step("given", {"sha256": "aa"}, {"model": "0" * 16}, "").digest,
        ]

    before = digests()
    monkeypatch.setitem(steps.VERSION, "given", 1000)
    assert len({*before, digests()[0]}) == 6
    assert digests()[1] == before[1]


# Given folders


@pytest.fixture
def teacher(tmp_path):
    """Return the folder of a given teacher; the plan reads its bytes and nothing else."""
    folder = tmp_path / "teacher"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text(name)
    return folder


def test_a_given_teacher_is_the_same_wherever_it_lies_and_another_when_a_byte_changes(settings, teacher, tmp_path):
    moved = shutil.copytree(teacher, tmp_path / "moved")
    digests = []
    for folder in (teacher, moved):
        digests.append(set(planned(settings, teacher={"size": None, "folder": str(folder)}).steps))
    assert digests[0] == digests[1]
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (moved / name).write_text("changed")
        digests.append(set(planned(settings, teacher={"size": None, "folder": str(moved)}).steps))
    assert len({frozenset(d) for d in digests}) == 4


def test_a_given_teacher_labels_in_its_own_word_pieces_and_students_read_in_theirs(settings, teacher):
    p = planned(settings, teacher={"size": None, "folder": str(teacher)})
    (label,) = p.of_stage("label")
    assert label.parents["ids"] != model_of(p, "PD", seed=1).parents["ids"]
    assert parent(p, parent(p, label, "ids"), "tokenizer").folder == str(teacher)
    assert parent(p, label, "model").stage == "given"
    assert {s.size for s in p.students if s.recipe == "teacher"} == {"given"}


def test_a_given_tokenizer_is_the_same_wherever_it_lies(settings, teacher, tmp_path):
    moved = shutil.copytree(teacher, tmp_path / "moved")
    plans = [planned(settings, tokenizer__folder=str(f)) for f in (teacher, moved)]
    assert set(plans[0].steps) == set(plans[1].steps) != set(planned(settings).steps)


def test_an_empty_folder_is_refused_with_what_it_should_hold(settings, tmp_path):
    with pytest.raises(ParamsError, match=r"holds none of config.json, model.safetensors; give the folder of a saved model"):
        planned(settings, teacher={"size": None, "folder": str(tmp_path)})


def test_a_folder_whose_name_no_file_system_takes_is_refused_in_a_sentence(settings):
    with pytest.raises(
        ParamsError, match=r"holds none of .* \(File name too long\); give the folder of a saved model or tokenizer"
    ):
        planned(settings, tokenizer__folder="x" * 300)


# Speed


def test_planning_loads_nothing_heavy(fresh_python, settings):
    code = f"""
import sys
from pdstudy.study import plan, steps
from pdstudy.study.settings import Study
print(len(plan.make(Study(**{settings!r})).steps))
print([m for m in ("torch", "transformers", "pandas", "numpy", "pyarrow", "scipy", "datasets") if m in sys.modules])
"""
    assert fresh_python(code).splitlines() == [str(len(planned(settings).steps)), "[]"]


def test_the_papers_whole_grid_is_planned_in_two_seconds(settings):
    settings |= {
        "sizes": [str(s) for s in PAPER_SIZES],
        "recipes": list(RECIPES),
        "seeds": [0, 1, 2, 3, 4],
        "init_std": dict.fromkeys(["128", "256", "512", "768"], 0.02),
        "teacher": {"size": "12/768"},
        "pretrain_by_size": {f"14/{h}": {} for h in (128, 256, 512, 768)},
    }
    study = Study(**settings)
    begun = time.process_time()
    p = plan.make(study)
    assert time.process_time() - begun < 2
    assert len(p.students) == 1 + 2 + 24 * 7 * 5
    assert len(p.of_stage("pretrain")) == 24 + 4


def test_a_family_is_planned_without_teacher_and_students(settings):
    p = plan.pretraining(Study(**settings, pretrain={"starts": 2}), [Size(1, 64), Size(2, 64)])
    assert p.counts()["pretrain"] == 4
    assert set(p.counts()) == {"texts", "tokenizer", "ids", "pretrain"}
    assert {s.digest for s in p.of_stage("pretrain")} <= set(planned(settings, seeds=[0, 1], pretrain={"starts": 2}).steps)


# What is needed, and how long it takes


def lacking(p: Plan, *stages: str) -> dict[str, Step]:
    return {d: s for d, s in p.steps.items() if s.stage in stages}


def test_everything_is_needed_where_nothing_is_there(settings):
    p = planned(settings)
    assert needed(p, dict(p.steps)) == p.steps
    assert list(needed(p, dict(p.steps))) == list(p.steps)


def test_nothing_is_needed_where_everything_is_there(settings):
    assert needed(planned(settings), {}) == {}


def test_a_candidate_whose_search_is_done_is_not_made_again(settings):
    p = planned(settings)
    candidates = {d: p.steps[d] for s in p.of_stage("search") for d in s.parents.values()}
    assert needed(p, candidates) == {}
    search = model_of(p, "PD")
    assert set(needed(p, candidates | {search.digest: search})) == set()  # all that need it are there too
    students = {s.evaluation: p.steps[s.evaluation] for s in p.students if s.model == search.digest}
    assert set(needed(p, candidates | {search.digest: search} | students)) == {*search.parents.values(), search.digest, *students}


def test_an_inner_step_is_made_again_only_for_a_missing_student_that_needs_it(settings):
    p = planned(settings)
    (evaluation,) = [s.evaluation for s in p.students if (s.recipe, s.size, s.seed) == ("PD", "2/64", 1)]
    missing = lacking(p, "pretrain", "distill") | {evaluation: p.steps[evaluation]}
    model = model_of(p, "PD", seed=1)
    assert set(needed(p, missing)) == {model.parents["start"], model.digest, evaluation}


def test_the_time_left_follows_the_speed_measured_and_the_number_of_workers(tmp_path):
    store = Store(tmp_path, families=())
    steps = [Step("pretrain", {"n": i}, {}, "", flops=100e9) for i in range(4)]
    assert cost(steps[0], {"pretrain": 50e9}) == pytest.approx(1 + 2)
    assert estimate(steps, store, 1) == pytest.approx(4 * (1 + 100 / 60))
    store.write("pretrain", steps[0].digest, lambda folder: {"flops": 1000e9, "seconds": 10.0})
    assert estimate(steps[1:], store, 1) == pytest.approx(3 * (1 + 1))
    assert estimate(steps[1:], store, 2) == pytest.approx(3 * (1 + 1) / 2)


@pytest.mark.parametrize(("stage", "times"), [("tune", 4), ("distill", 1.6)])
def test_training_is_expected_to_be_faster_in_bf16_where_the_processor_is(stage, times, monkeypatch):
    steps = [Step(stage, {"precision": precision}, {}, "", flops=100e9) for precision in ("bf16", "fp32")]
    for processor, faster in (("bf16", times), ("fp32", 1)):
        monkeypatch.setattr("pdstudy.run.estimate.best_precision", lambda p=processor: p)
        assert [cost(step, {}) for step in steps] == pytest.approx([1 + 100 / 60 / faster, 1 + 100 / 60])


def test_a_search_on_several_seeds_may_train_every_candidate_again_and_its_estimate_says_so(settings):
    p, more = planned(settings), planned(settings, search_seeds=3)
    assert all(s.flops == 0 for s in p.of_stage("search"))
    for search in more.of_stage("search"):
        assert search.flops == 2 * sum(more.steps[d].flops for d in search.parents.values()) > 0
        assert cost(search, {"distill": 1e9}) == pytest.approx(1 + search.flops / 1e9)


def test_a_family_of_a_width_without_an_initial_scale_is_refused_with_the_cure(settings):
    with pytest.raises(ParamsError, match=r'init_std has no scale for width 192; add it, such as \{"192": 0.04\}'):
        plan.pretraining(Study(**settings), [Size(1, 192)])


# Word vectors by counting


def test_word_vectors_are_counted_once_for_all_encoders_of_a_width_and_matter(settings):
    made = planned(settings, pretrain__words="counts", sizes=["1/64", "2/64"])
    assert len(made.of_stage("words")) == len({s.settings["size"].split("/")[1] for s in made.of_stage("pretrain")})
    wider = planned(settings, pretrain__words="counts", pretrain__window=8, sizes=["1/64", "2/64"])
    louder = planned(settings, pretrain__words="counts", pretrain__words_std=0.2, sizes=["1/64", "2/64"])
    starts = [{s.digest for s in plan.of_stage("pretrain")} for plan in (made, wider, louder)]
    assert not starts[0] & starts[1] and not starts[0] & starts[2] and not starts[1] & starts[2]


def test_what_only_counted_words_need_is_no_part_of_a_random_start(settings):
    same = planned(settings, pretrain__window=8, pretrain__words_std=0.2)
    assert not same.of_stage("words") and list(same.steps) == list(planned(settings).steps)


# Every rate measured, when advice asks


def test_measuring_every_rate_adds_evaluations_and_nothing_else(settings):
    made = planned(settings, recipes=["Basic", "PD-F"])
    judged = plan.with_candidates_measured(made)
    added = {d: s for d, s in judged.steps.items() if d not in made.steps}
    assert list(judged.steps)[: len(made.steps)] == list(made.steps) and judged.students == made.students
    last = {search.digest for student in made.students if (search := plan.search_of(made, student))}
    rates = {candidate for search in last for candidate in made.steps[search].parents.values()}
    assert {s.parents["model"] for s in added.values()} == rates and {s.stage for s in added.values()} == {"evaluate"}
    assert len(rates) == 2 * 5 and len(last) < made.counts()["search"], "two rates of the teacher and of four last stages"


def test_a_single_rate_a_given_teacher_and_other_seeds_than_the_searching_one_have_their_searches(settings, teacher):
    one = planned(settings, finetune__rates=[1e-3], distill__rates=[1e-3])
    assert plan.with_candidates_measured(one).steps == one.steps, "nothing was chosen among"
    p = planned(settings, teacher={"size": None, "folder": str(teacher)}, seeds=[3], recipes=["Basic"])
    assert {s.recipe: plan.search_of(p, s) is None for s in p.students if s.recipe != "Linear"} == {
        "teacher": True,
        "Basic": False,
    }
    assert len(plan.with_candidates_measured(p).steps) == len(p.steps) + 2 * 2


def test_a_rate_that_was_cleaned_away_after_its_search_is_not_asked_for(settings):
    made = planned(settings, recipes=["Basic"], sizes=["1/64"])
    with_candidates = plan.with_candidates_measured(made)
    rates = {candidate for search in made.of_stage("search") for candidate in search.parents.values()}
    answers = set(with_candidates.steps) - set(made.steps)
    assert plan.with_candidates_measured(made, set(made.steps) - rates).steps == made.steps
    assert (
        plan.with_candidates_measured(made, set(made.steps)).steps
        == plan.with_candidates_measured(made, set(made.steps) - rates | answers).steps
        == with_candidates.steps
    )


def test_longer_texts_cost_more_and_a_stage_without_a_speed_has_that_of_a_stage_alike(settings):
    assert [mean_pieces(n) for n in (32, 64, 128, 256)] == [30, 30, 60, 120]
    short, long = (model_of(planned(settings, max_length=n), "Basic", seed=1) for n in (64, 256))
    assert long.flops > 4 * short.flops and work(long).pieces == 4 * work(short).pieces
    distilled = Step("distill", {}, {}, "", flops=1e9)
    assert cost(distilled, {"finetune": 1e8}) == cost(distilled, {"distill": 1e8}) == 11
