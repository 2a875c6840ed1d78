"""A study as a plan of steps: each computed once, parents before the steps that need them.

plan_encoders.py plans texts, tokenizers and encoders, plan_teachers.py teachers that take texts; this module plans the rest.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product

from pdstudy.data import mirror
from pdstudy.recipes import LINEAR, LINEAR_SIZE, LINEAR_TAUGHT, PRETRAINED, RANDOM, RECIPES, TEACHER
from pdstudy.sizes import Size
from pdstudy.study.plan_encoders import SMALL, EncoderSteps, path_of_model
from pdstudy.study.plan_teachers import TeacherSteps, TextTeacher
from pdstudy.study.sections import Curves, Domains, Member, Train
from pdstudy.study.settings import ParamsError, Study
from pdstudy.study.steps import Plan, Step, Student, mean_pieces

SEARCH_SEED = 0  # the rate is searched once per size and recipe, on this seed
# Left out of a step, so that old digests stay valid.
DISTILL_DEFAULTS = {"loss": "soft", "labelled": False, "true_labels": 0.0, "match_classes": False}


def make(study: Study, only: dict[tuple[str, str], list[int]] | None = None, assumed: bool = False) -> Plan:
    """Return the plan of a study; with `only`, of those (recipe, size) and their seeds. Opens no data and no torch.

    With `assumed`, texts and models of the hub that are not at hand are taken by name: such a plan is for its cost only, and
    its digests match no artifact. Raises ParamsError where the study has no labelled texts, or its files are missing.
    """
    if not getattr(study.resolved_task().source, "train", True):
        raise ParamsError(
            "task.train: students need labelled texts; on a corpus alone a family can be pre-trained: python -m pdstudy zoo"
        )
    build = _StudentSteps(EncoderSteps(study, Plan(study), assumed))
    recipes = [name for name in study.recipes if only is None or any(name == recipe for recipe, _ in only)]
    if any("distill" in RECIPES[name].stages for name in recipes):
        build.add_soft_labels()
    for name in recipes:
        for size in map(Size.parse, study.sizes_of(name)):
            if seeds := study.seeds if only is None else only.get((name, str(size)), ()):
                build.recipe(name, size, seeds)
    if only is None:
        build.compound()
    return build.plan


def with_candidates_measured(plan: Plan, here: set[str] = frozenset()) -> Plan:
    """Return the plan with evaluations added for all candidates of its students' last searches; advice compares them.

    `here` is the store's digests. Where a search is done and its candidate was removed from the store, the candidate is not
    trained again only to be measured.
    """
    plan = replace(plan, steps=dict(plan.steps))
    for student in plan.students:
        search, evaluation = search_of(plan, student), plan.steps[student.evaluation]
        if not student.own or search is None or len(search.parents) == 1:
            continue
        for role, candidate in search.parents.items():
            label = f"evaluate {student.recipe} {student.size} {role}"
            step = replace(evaluation, parents=evaluation.parents | {"model": candidate}, label=label)
            if search.digest not in here or {candidate, step.digest} & here:
                plan.add(step)
    return plan


def search_of(plan: Plan, student: Student) -> Step | None:
    """Return the search of the rate in a student's last stage, or None for a teacher without a search."""
    model = plan.steps[student.model]
    return model if model.stage == "search" else plan.steps.get(model.parents.get("search"))


def pretraining(study: Study, sizes: Iterable[Size]) -> Plan:
    """Return the plan that only pre-trains `sizes`: a family of miniatures."""
    encoders = EncoderSteps(study, Plan(study))
    for size in sizes:
        for number in range(study.pretraining(size).starts):
            encoders.encoder(size, number)
    return encoders.plan


def only_texts(study: Study) -> Plan:
    """Return the plan of one step that cleans and splits the study's texts."""
    plan = Plan(study)
    plan.add(EncoderSteps(study, Plan(study)).plan.of_stage("texts")[0])
    return plan


@dataclass(frozen=True)
class PieceTeacher:
    """A teacher that takes word pieces as students do: a size of the family, or a fine-tuned BERT of a folder."""

    model: str
    ids: str
    tokenizer: str
    size: Size  # for estimates only, if it comes from a folder
    name: str  # in the column of sizes


class _StudentSteps:
    """Adds the teachers, then the students, to a plan that has the encoders."""

    def __init__(self, encoders: EncoderSteps):
        self.encoders, self.study, self.plan = encoders, encoders.study, encoders.plan
        self.precision = {"precision": encoders.precision}
        self.text_teachers = TeacherSteps(encoders)
        self.soft_labels: dict[str, str] = {}  # parents of a distilling step: "label" and, if D_L is labelled too, "labelled"
        self.teachers = [self.teacher(member) for member in self.study.teacher.members]  # more than one: their mean teaches
        self.report_teacher()
        for n in (None, *self.study.curves.labels):
            self.report_linear(texts=n)

    def add_soft_labels(self) -> None:
        """Let the teacher label D_T, and D_L where the study asks for that; list the linear model that learns from them."""
        self.soft_labels = {"label": self.label(self.text_teachers.n_texts())}
        if self.study.distill.labelled:
            self.soft_labels["labelled"] = self.label(self.study.splits.train, split="train")
        self.report_linear(self.soft_labels["label"])

    def train(
        self, recipe: str, size: Size, stage: str, section: Train, start: dict, seed: int, rate: dict, texts: int | None = None
    ) -> str:
        """Train one student in one stage, on the first `texts` texts; `rate` has its settings, or the digest of their search."""
        study, encoders = self.study, self.encoders
        settings = section.model_dump(exclude={"rates"}) | {"size": str(size), "seed": seed} | self.precision
        settings = {k: v for k, v in settings.items() if k not in DISTILL_DEFAULTS or v != DISTILL_DEFAULTS[k]}
        settings |= {"init_std": encoders.std(size), "dropout": study.dropout, "start": start["kind"]}
        settings |= {} if study.pooling == "cls" else {"pooling": study.pooling}
        settings |= {} if (heads := encoders.heads(size)) is None else {"heads": heads}
        settings["texts"] = texts or (study.transfer.texts if stage == "distill" else study.splits.train)
        parents = {"ids": encoders.ids_of(size)} | ({"start": start["parent"]} if "parent" in start else {})
        if stage == "distill":
            settings |= {"match_classes": study.splits.train} if "match_classes" in settings else {}
            parents |= {role: start[role] for role in ("label", "transfer", "labelled") if role in start}
        if "search" in rate:
            parents |= rate
            note = "best rate"
        else:
            settings |= rate
            note = _role(rate)
        note = f"on {start['domain']}" if "domain" in start else f"{texts:,} texts" if texts else note
        n, pieces = settings["texts"] or encoders.n_train, mean_pieces(study.max_length)
        flops = 3 * n * max(section.passes) * pieces * size.flops_per_token(pieces)
        label, room = f"{recipe} {size} s{seed} {stage} {note}", SMALL + 4 * encoders.weights(size)
        return encoders.add(stage, settings, parents, label, flops, room=room, texts=n)

    def searched(self, recipe: str, size: Size, stage: str, section: Train, start: dict) -> str:
        """Train a candidate for each combination of rate, batch size and number of epochs; choose the best on dev."""
        parents, rates = {}, self.study.rates_by_size.get(str(size), section.rates)
        for epochs, batch, rate in product(section.passes, section.batches, rates):
            candidate = {"rate": rate} | ({"batch": batch} if len(section.batches) > 1 else {})
            candidate |= {"epochs": epochs} if len(section.passes) > 1 else {}
            parents[_role(candidate)] = self.train(recipe, size, stage, section, start, SEARCH_SEED, candidate)
        settings = {} if self.study.search_seeds == 1 else {"seeds": self.study.search_seeds, "all_collapsed": "lower rates"}
        more, weights = self.study.search_seeds - 1, SMALL + 4 * self.encoders.weights(size)
        flops = more * sum(self.encoders.plan.steps[d].flops for d in parents.values())  # at most
        label, room = f"{recipe} {size} {stage}: search the rate", weights * (1 + more * len(parents))
        return self.encoders.add("search", settings, parents, label, flops, room=room)

    def recipe(self, name: str, size: Size, seeds: list[int], corpus: str | None = None) -> None:
        """Add all seeds of one recipe at one size, stage after stage, with their points of the curves and domains.

        With `corpus`, students start from encoders that were pre-trained on it, and have no such points.
        """
        recipe = RECIPES[name]
        searches: dict[int, str] = {}  # by the number of the stage
        for seed in seeds:
            start = self.encoders.start(recipe.start, size, seed, corpus)
            for i, stage in enumerate(recipe.stages):
                section = getattr(self.study, stage)
                if i == 0 and stage == "distill":
                    start = start | self.soft_labels
                if i not in searches:  # on the search seed, also if the study does not report that seed
                    if i == 0:
                        first = self.encoders.start(recipe.start, size, SEARCH_SEED, corpus)
                    else:
                        first = {"kind": PRETRAINED, "parent": searches[0]}
                    first |= {k: start[k] for k in ("label", "labelled") if k in start}
                    searches[i] = self.searched(name, size, stage, section, first)
                if seed == SEARCH_SEED:
                    model = searches[i]
                else:
                    model = self.train(name, size, stage, section, start, seed, {"search": searches[i]})
                start = {"kind": PRETRAINED, "parent": model}
            self.student(name, str(size), seed, model, corpus=corpus)
            if corpus is None:
                self.curve(name, size, seed, searches)
                self.domains(name, size, seed, searches)

    def curve(self, name: str, size: Size, seed: int, searches: dict[int, str]) -> None:
        """Add a student's points of a learning curve: the same recipe, seed and rate on fewer texts."""
        recipe, curves = RECIPES[name], self.study.curves
        if len(recipe.stages) > 1 or not _includes(curves, name, size):
            return
        (stage,) = recipe.stages
        kind = {"distill": "transfer", "finetune": "labels"}[stage]
        for n in getattr(curves, kind):
            start = self.encoders.start(recipe.start, size, seed) | (self.soft_labels if stage == "distill" else {})
            model = self.train(name, size, stage, getattr(self.study, stage), start, seed, {"search": searches[0]}, n)
            self.student(name, str(size), seed, model, curve=kind, texts=n)

    def domains(self, name: str, size: Size, seed: int, searches: dict[int, str]) -> None:
        """Add a student distilled on each of the other transfer sets, at the rate chosen for the study's own (Fig 9)."""
        recipe, domains, study = RECIPES[name], self.study.domains, self.study
        if recipe.stages[0] != "distill" or not _includes(domains, name, size):
            return
        for corpus in domains.corpora:
            labels = self.soft_labels | {"label": self.label(domains.texts, corpus)}
            ids = self.encoders.domain_ids(corpus, self.encoders.tokenizer_of(size))
            start = self.encoders.start(recipe.start, size, seed) | labels | {"transfer": ids, "domain": corpus}
            for i, stage in enumerate(recipe.stages):
                distil = stage == "distill"
                section = study.distill.model_copy(update={"epochs": domains.epochs}) if distil else study.finetune
                n = domains.texts if distil else None
                model = self.train(name, size, stage, section, start, seed, {"search": searches[i]}, n)
                start = {"kind": PRETRAINED, "parent": model, "domain": corpus}
            self.student(name, str(size), seed, model, domain=corpus)

    def compound(self) -> None:
        """Add the students whose encoders were pre-trained on another D_LM, with their own searches (Fig 10)."""
        compound, study = self.study.compound, self.study
        for corpus in compound.corpora:
            for name in compound.recipes or [name for name in ("PF", "PD") if name in study.recipes]:
                if RECIPES[name].start != RANDOM:  # D_LM does not change a student that starts at random
                    for size in compound.sizes or study.sizes_of(name):
                        self.recipe(name, Size.parse(size), study.seeds, corpus)

    def teacher(self, member: Member) -> PieceTeacher | TextTeacher:
        """Train a teacher of the family, or take another one."""
        if member.folder and self.text_teachers.takes_word_pieces(member.folder):
            return self.given_teacher(member.folder)
        if not member.size:
            return self.text_teachers.teacher(member)
        size = Size.parse(member.size)
        ids = self.encoders.ids_of(size)
        start = self.encoders.start(TEACHER.start, size, SEARCH_SEED)
        model = self.searched(TEACHER.name, size, "finetune", self.study.finetune, start)
        return PieceTeacher(model, ids, self.encoders.tokenizer_of(size), size, str(size))

    def given_teacher(self, folder: str) -> PieceTeacher:
        """Take a fine-tuned BERT from a folder as a teacher, and cut the texts into its own word pieces."""
        settings = {"sha256": self.encoders.digest(folder, mirror.CONFIG, mirror.WEIGHTS)}
        parents, place = {"texts": self.encoders.texts}, path_of_model(folder)
        model = self.encoders.add("given", settings, parents, "the given teacher", folder=place)
        tokenizer = self.encoders.word_pieces(folder)
        return PieceTeacher(model, self.encoders.task_ids(tokenizer), tokenizer, Size.parse("12/768"), "given")

    def report_teacher(self) -> None:
        """List the teacher as a model of the study, measured on dev and test like the students."""
        evaluations = [
            self.evaluated(TEACHER.name, t.name, t.model, t.ids) if isinstance(t, PieceTeacher) else t.evaluation
            for t in self.teachers
        ]
        name, model, evaluation = self.teachers[0].name, self.teachers[0].model, evaluations[0]
        if len(evaluations) > 1:
            name = "mean"
            model = evaluation = self.text_teachers.mean(evaluations, "evaluate")
        self.plan.students.append(Student(TEACHER.name, name, SEARCH_SEED, model, evaluation))

    def report_linear(self, label: str | None = None, texts: int | None = None) -> None:
        """List the linear model; with `label`, the one that learns from those soft labels; with `texts`, a point of the labels' curve."""
        linear = self.text_teachers.linear(label, texts)
        name, point = LINEAR_TAUGHT if label else LINEAR, {"curve": "labels", "texts": texts} if texts else {}
        self.plan.students.append(Student(name, LINEAR_SIZE, SEARCH_SEED, linear.model, linear.evaluation, **point))

    def label(self, n: int, corpus: str | None = None, split: str | None = None) -> str:
        """Let the teacher label `n` texts of D_T, of another `corpus`, or of a `split` of D_L, once for all students."""
        labels = [self.labelled_by(teacher, n, corpus, split) for teacher in self.teachers]
        return labels[0] if len(labels) == 1 else self.text_teachers.mean(labels, "label")

    def labelled_by(self, teacher: PieceTeacher | TextTeacher, n: int, corpus: str | None, split: str | None) -> str:
        """Let one teacher label texts."""
        if isinstance(teacher, TextTeacher):
            return self.text_teachers.label(teacher, n, self.encoders.domain_texts(corpus) if corpus else None, corpus, split)
        settings = {"texts": n, "margin": self.study.teacher.margin} | self.precision | ({"of": split} if split else {})
        parents = {"ids": teacher.ids, "model": teacher.model}
        parents |= {"transfer": self.encoders.domain_ids(corpus, teacher.tokenizer)} if corpus else {}
        label = f"label the texts of {split}" if split else f"label {n:,} transfer texts"
        pieces = mean_pieces(self.study.max_length)
        flops = n * pieces * teacher.size.flops_per_token(pieces)
        return self.encoders.add("label", settings, parents, label + (f" of {corpus}" if corpus else ""), flops)

    def student(self, recipe: str, size: str, seed: int, model: str, **point) -> None:
        """Evaluate a model on dev and test and list it as a student, or as a `point` of a learning curve."""
        note = f" s{seed}" + "".join(f" {k} {v}" for k, v in point.items() if v is not None)
        evaluation = self.evaluated(recipe, size, model, self.encoders.ids_of(Size.parse(size)), note)
        self.plan.students.append(Student(recipe, size, seed, model, evaluation, **point))

    def evaluated(self, recipe: str, size: str, model: str, ids: str, note: str = f" s{SEARCH_SEED}") -> str:
        """Evaluate a model on dev and test."""
        return self.encoders.add("evaluate", self.precision, {"ids": ids, "model": model}, f"evaluate {recipe} {size}{note}")


def _role(candidate: dict[str, float]) -> str:
    """Return a candidate's role among the parents of its search, such as "rate 0.001 batch 32"."""
    return " ".join(f"{key} {value:g}" for key, value in candidate.items())


def _includes(section: Curves | Domains, recipe: str, size: Size) -> bool:
    """Return whether a section is for this recipe and size; an empty list means all."""
    return (not section.recipes or recipe in section.recipes) and (not section.sizes or str(size) in section.sizes)
