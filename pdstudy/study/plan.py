"""A study as steps: what has to be computed, each thing once, in an order in which parents come first.

What is read, up to the encoders, is planned by plan_encoders.py; here come the teacher and the students.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from pdstudy.data import mirror
from pdstudy.recipes import LINEAR, LINEAR_SIZE, LINEAR_TAUGHT, PRETRAINED, RANDOM, RECIPES, TEACHER
from pdstudy.sizes import Size
from pdstudy.study.plan_encoders import SMALL, EncoderSteps, lies
from pdstudy.study.plan_teachers import Planned, TeacherSteps
from pdstudy.study.sections import Curves, Domains, Member, Train
from pdstudy.study.settings import ParamsError, Study
from pdstudy.study.steps import Plan, Step, Student

SEARCH_SEED = 0  # the rate is searched once per size and recipe, on this seed
MEAN_PIECES = 30  # of a sentence; for estimates only
OPTIONS = {"loss": "soft", "labelled": False, "true_labels": 0.0}  # of distilling: part of a step where they are not these


def make(study: Study, only: dict[tuple[str, str], list[int]] | None = None, assumed: bool = False) -> Plan:
    """Return the plan of a study; with `only`, of those (recipe, size) and their seeds. Opens no data and no torch.

    With `assumed`, what the study names on the hub and is not at hand is taken by its name: such a plan tells the
    cost, and its digests match no artifact. Raises ParamsError where the study has no labelled texts, or they are not here.
    """
    if not getattr(study.resolved_task().source, "train", True):
        raise ParamsError(
            "task.train: students need labelled texts; on a corpus alone a family can be pre-trained: python -m pdstudy zoo"
        )
    build = _StudentSteps(EncoderSteps(study, Plan(study), assumed))
    build.teachers = [build.teacher(member) for member in study.teacher.members]
    build.report_teacher()
    build.report_linear()
    wanted = study.recipes if only is None else [name for name in study.recipes if any(name == recipe for recipe, _ in only)]
    if any("distill" in RECIPES[name].stages for name in wanted):
        build.soft_labels = {"label": build.label(build.outside.n_texts())}
        if study.distill.labelled:
            build.soft_labels["labelled"] = build.label(study.splits.train, of="train")
        build.report_linear(build.soft_labels["label"])
    for name in wanted:
        for size in map(Size.parse, study.sizes_of(name)):
            if seeds := study.seeds if only is None else only.get((name, str(size)), ()):
                build.recipe(name, size, seeds)
    if only is None:
        build.compound()
    return build.plan


def judged(plan: Plan, here: set[str] = frozenset()) -> Plan:
    """Return the plan with every rate that its students' last searches tried measured as its students are.

    Advice asks for it: what a choice costs is seen beside what was not chosen. A candidate that was cleaned away after
    its search, so that neither it nor its measurement is `here`, is not trained again for that.
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
    """Return the search of a student's rate in its last stage, or None where none was searched: a given teacher."""
    model = plan.steps[student.model]
    return model if model.stage == "search" else plan.steps.get(model.parents.get("search"))


def pretraining(study: Study, sizes: Iterable[Size]) -> Plan:
    """Return the plan that only pre-trains `sizes`: a family of miniatures."""
    build = EncoderSteps(study, Plan(study))
    for size in sizes:
        for number in range(study.pretraining(size).starts):
            build.encoder(size, number)
    return build.plan


def only_texts(study: Study) -> Plan:
    """Return the plan that only reads, cleans and cuts the study's texts: one step."""
    every, plan = EncoderSteps(study, Plan(study)).plan, Plan(study)
    plan.add(every.of_stage("texts")[0])
    return plan


@dataclass(frozen=True)
class Insider:
    """A teacher that reads word pieces as students do: a size of the family, or a fine-tuned BERT of a folder."""

    model: str
    ids: str
    pieces: str  # its tokenizer
    size: Size  # for estimates, where it is given
    name: str


class _StudentSteps:
    """Adds the teacher and then every student to the plan that already has what they begin from."""

    def __init__(self, encoders: EncoderSteps):
        self.encoders, self.study, self.plan = encoders, encoders.study, encoders.plan
        self.outside = TeacherSteps(encoders)
        self.teachers: list[Insider | Planned] = []  # one, or those whose mean is taken
        self.soft_labels: dict[str, str] = {}  # roles of a distilling step: "label" and, where D_L is taught too, "labelled"

    def train(
        self, recipe: str, size: Size, stage: str, settings: Train, start: dict, seed: int, rate: dict, texts: int | None = None
    ) -> str:
        """Train one student in one stage at one rate (a number, or the winner of a search), on the first `texts` texts."""
        study = self.study
        kept = settings.model_dump(exclude={"rates"}) | {"size": str(size), "seed": seed, "precision": self.encoders.precision}
        kept = {k: v for k, v in kept.items() if k not in OPTIONS or v != OPTIONS[k]}
        kept |= {"init_std": self.encoders.std(size), "dropout": study.dropout, "start": start["kind"]}
        kept |= {} if study.pooling == "cls" else {"pooling": study.pooling}
        kept |= {} if (heads := self.encoders.heads(size)) is None else {"heads": heads}
        parents = {"ids": self.encoders.ids_of(size)}
        if "parent" in start:
            parents["start"] = start["parent"]
        if stage == "distill":
            parents |= {role: start[role] for role in ("label", "transfer", "labelled") if role in start}
        kept["texts"] = texts or (study.transfer.texts if stage == "distill" else study.splits.train)
        if "search" in rate:
            parents["search"] = rate["search"]
            note = "best rate"
        else:
            kept |= rate
            note = " ".join(f"{key} {value:g}" for key, value in rate.items())
        if texts:
            note = f"{texts:,} texts"
        if name := start.get("domain"):
            note = f"on {name}"
        n = kept["texts"] or self.encoders.n_train
        flops = 3 * n * max(settings.passes) * MEAN_PIECES * size.flops_per_token(MEAN_PIECES)
        room = SMALL + 4 * self.encoders.weights(size)
        return self.encoders.add(stage, kept, parents, f"{recipe} {size} s{seed} {stage} {note}", flops, room=room, texts=n)

    def searched(self, recipe: str, size: Size, stage: str, settings: Train, start: dict) -> str:
        """Train one candidate per rate, and per batch size and number of epochs where several are given; keep the best on dev."""
        grid = [
            {"rate": rate}
            | ({"batch": batch} if len(settings.batches) > 1 else {})
            | ({"epochs": epochs} if len(settings.passes) > 1 else {})
            for epochs in settings.passes
            for batch in settings.batches
            for rate in settings.rates
        ]
        tried = {" ".join(f"{key} {value:g}" for key, value in what.items()): what for what in grid}
        parents = {role: self.train(recipe, size, stage, settings, start, SEARCH_SEED, what) for role, what in tried.items()}
        room = SMALL + 4 * self.encoders.weights(size)
        more = {} if self.study.search_seeds == 1 else {"seeds": self.study.search_seeds}
        return self.encoders.add("search", more, parents, f"{recipe} {size} {stage}: search the rate", room=room)

    def recipe(self, name: str, size: Size, seeds: list[int], corpus: str | None = None) -> None:
        """Add every seed of one recipe at one size, stage after stage, and its points of the curves and domains.

        With `corpus` the students begin from encoders that have read that, and have no such points.
        """
        recipe = RECIPES[name]
        searches: dict[int, str] = {}
        for seed in seeds:
            start = self.encoders.start(recipe.start, size, seed, corpus)
            for i, stage in enumerate(recipe.stages):
                settings = getattr(self.study, stage)
                if i == 0 and stage == "distill":
                    start = start | self.soft_labels
                if i not in searches:  # on the search seed, whether or not the study reports that seed
                    first = (
                        self.encoders.start(recipe.start, size, SEARCH_SEED, corpus)
                        if i == 0
                        else {"kind": PRETRAINED, "parent": searches[0]}
                    )
                    first |= {k: start[k] for k in ("label", "labelled") if k in start}
                    searches[i] = self.searched(name, size, stage, settings, first)
                if seed == SEARCH_SEED:
                    model = searches[i]
                else:
                    model = self.train(name, size, stage, settings, start, seed, {"search": searches[i]})
                start = {"kind": PRETRAINED, "parent": model}
            self.student(name, str(size), seed, model, corpus=corpus)
            if corpus is None:
                self.curve(name, size, seed, searches)
                self.domains(name, size, seed, searches)

    def curve(self, name: str, size: Size, seed: int, searches: dict[int, str]) -> None:
        """Add a student's points of a learning curve: the same recipe, seed and rate on fewer texts."""
        recipe, curves = RECIPES[name], self.study.curves
        (stage, *more), kind = recipe.stages, {"distill": "transfer", "finetune": "labels"}[recipe.stages[0]]
        if more or not _within(curves, name, size):
            return
        for n in getattr(curves, kind):
            start = self.encoders.start(recipe.start, size, seed) | (self.soft_labels if stage == "distill" else {})
            model = self.train(name, size, stage, getattr(self.study, stage), start, seed, {"search": searches[0]}, n)
            self.student(name, str(size), seed, model, curve=kind, texts=n)

    def domains(self, name: str, size: Size, seed: int, searches: dict[int, str]) -> None:
        """Add a student distilled on each of the other transfer sets, at the rate found for the study's own (Fig 9)."""
        recipe, domains, study = RECIPES[name], self.study.domains, self.study
        if recipe.stages[0] != "distill" or not _within(domains, name, size):
            return
        for corpus in domains.corpora:
            labels = self.soft_labels | {"label": self.label(domains.texts, corpus)}
            pieces = self.encoders.domain_ids(corpus, self.encoders.tokenizer_of(size))
            start = self.encoders.start(recipe.start, size, seed) | labels | {"transfer": pieces, "domain": corpus}
            for i, stage in enumerate(recipe.stages):
                distil = stage == "distill"
                settings = study.distill.model_copy(update={"epochs": domains.epochs}) if distil else study.finetune
                n = domains.texts if distil else None
                model = self.train(name, size, stage, settings, start, seed, {"search": searches[i]}, n)
                start = {"kind": PRETRAINED, "parent": model, "domain": corpus}
            self.student(name, str(size), seed, model, domain=corpus)

    def compound(self) -> None:
        """Add the students whose starts have read another D_LM, their rates searched as for any other (Fig 10)."""
        compound, study = self.study.compound, self.study
        for corpus in compound.corpora:
            for name in compound.recipes or [name for name in ("PF", "PD") if name in study.recipes]:
                if RECIPES[name].start == RANDOM:
                    continue  # what has read nothing is the same student
                for size in compound.sizes or study.sizes_of(name):
                    self.recipe(name, Size.parse(size), study.seeds, corpus)

    def teacher(self, member: Member) -> "Insider | Planned":
        """Train a teacher of the family, or take any other."""
        if member.size:
            size = Size.parse(member.size)
            ids = self.encoders.ids_of(size)
            start = self.encoders.start(TEACHER.start, size, SEARCH_SEED)
            model = self.searched(TEACHER.name, size, "finetune", self.study.finetune, start)
            return Insider(model, ids, self.encoders.tokenizer_of(size), size, str(size))
        if member.folder and self.outside.is_own_kind(member.folder):
            return self.given_teacher(member.folder)
        return self.outside.planned(member)

    def report_teacher(self) -> None:
        """List the teacher as a model of the study: measured on dev and test as every student is."""
        named = [(t.name, t.model, self.evaluated(TEACHER.name, t.name, t.model, t.ids) if isinstance(t, Insider) else t.evaluation)
                 for t in self.teachers]  # fmt: skip
        name, model, evaluation = named[0]
        if len(named) > 1:
            name, model = "mean", self.outside.mean([e for *_, e in named], "evaluate")
            evaluation = model
        self.plan.students.append(Student(TEACHER.name, name, SEARCH_SEED, model, evaluation))

    def report_linear(self, label: str | None = None) -> None:
        """List the linear model, or the one that is taught by soft labels."""
        linear = self.outside.linear(label)
        name = LINEAR_TAUGHT if label else LINEAR
        self.plan.students.append(Student(name, LINEAR_SIZE, SEARCH_SEED, linear.model, linear.evaluation))

    def label(self, n: int, corpus: str | None = None, of: str | None = None) -> str:
        """Let the teacher label `n` texts of the study's transfer set, of another `corpus`, or `of` a split of D_L, once for all."""
        labels = [self.labelled_by(teacher, n, corpus, of) for teacher in self.teachers]
        return labels[0] if len(labels) == 1 else self.outside.mean(labels, "label")

    def labelled_by(self, teacher: "Insider | Planned", n: int, corpus: str | None, of: str | None) -> str:
        """Let one teacher label texts."""
        if isinstance(teacher, Planned):
            return self.outside.label(teacher, n, self.encoders.domain_texts(corpus) if corpus else None, corpus, of)
        transfer = self.encoders.domain_ids(corpus, teacher.pieces) if corpus else None
        flops = n * MEAN_PIECES * teacher.size.flops_per_token(MEAN_PIECES)
        settings = {"texts": n, "precision": self.encoders.precision, "margin": self.study.teacher.margin} | (
            {"of": of} if of else {}
        )
        parents = {"ids": teacher.ids, "model": teacher.model} | ({"transfer": transfer} if transfer else {})
        where = f"{n:,} transfer texts" if of is None else f"the texts of {of}"
        return self.encoders.add("label", settings, parents, f"label {where}" + (f" of {corpus}" if corpus else ""), flops)

    def given_teacher(self, folder: str) -> "Insider":
        """Take a fine-tuned BERT from a folder as a teacher: its model, and the texts in its own word pieces."""
        settings = {"sha256": self.encoders.digest(folder, mirror.CONFIG, mirror.WEIGHTS)}
        teacher = self.encoders.add("given", settings, {"texts": self.encoders.texts}, "the given teacher", folder=lies(folder))
        pieces = self.encoders.word_pieces(folder)
        return Insider(teacher, self.encoders.task_ids(pieces), pieces, Size.parse("12/768"), "given")

    def student(self, recipe: str, size: str, seed: int, model: str, **point) -> None:
        """Evaluate a model on dev and test and list it as a student, or as a `point` of a learning curve."""
        where = f" s{seed}" + "".join(f" {k} {v}" for k, v in point.items() if v is not None)
        evaluation = self.evaluated(recipe, size, model, self.encoders.ids_of(Size.parse(size)), where)
        self.plan.students.append(Student(recipe, size, seed, model, evaluation, **point))

    def evaluated(self, recipe: str, size: str, model: str, ids: str, where: str = f" s{SEARCH_SEED}") -> str:
        """Evaluate a model on dev and test."""
        parents = {"ids": ids, "model": model}
        return self.encoders.add("evaluate", {"precision": self.encoders.precision}, parents, f"evaluate {recipe} {size}{where}")


def _within(part: Curves | Domains, recipe: str, size: Size) -> bool:
    """Return whether a part of the study asks for this recipe and size; where it names none it asks for all."""
    return (not part.recipes or recipe in part.recipes) and (not part.sizes or str(size) in part.sizes)
