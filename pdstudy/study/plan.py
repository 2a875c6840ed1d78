"""A study as steps: what has to be computed, each thing once, in an order in which parents come first.

What is read, up to the encoders, is planned by plan_encoders.py; here come the teacher and the students.
"""

from collections.abc import Iterable
from dataclasses import replace

from pdstudy.data import mirror
from pdstudy.recipes import PRETRAINED, RANDOM, RECIPES, TEACHER
from pdstudy.sizes import Size
from pdstudy.study.plan_encoders import SMALL, EncoderSteps, lies
from pdstudy.study.sections import Curves, Domains, Train
from pdstudy.study.settings import ParamsError, Study
from pdstudy.study.steps import Plan, Step, Student

SEARCH_SEED = 0  # the rate is searched once per size and recipe, on this seed
MEAN_PIECES = 30  # of a sentence; for estimates only


def make(study: Study, only: dict[tuple[str, str], list[int]] | None = None, assumed: bool = False) -> Plan:
    """Return the plan of a study; with `only`, of those (recipe, size) and their seeds. Opens no data and no torch.

    With `assumed`, what the study names on the hub and is not at hand is taken by its name: such a plan tells the
    cost, and its digests are nobody's. Raises ParamsError where the study has no labelled texts, or they are not here.
    """
    if not getattr(study.resolved_task().source, "train", True):
        raise ParamsError(
            "task.train: students need labelled texts; on a corpus alone a family can be pre-trained: python -m pdstudy zoo"
        )
    build = _StudentSteps(EncoderSteps(study, Plan(study), assumed))
    if study.teacher.folder is None:
        ids = build.encoders.ids
        size = Size.parse(study.teacher.size)
        start = build.encoders.start(TEACHER.start, size, SEARCH_SEED)
        teacher = build.searched(TEACHER.name, size, "finetune", study.finetune, start)
        build.student(TEACHER.name, str(size), SEARCH_SEED, teacher)
    else:
        ids, teacher = build.given_teacher(study.teacher.folder)
    wanted = study.recipes if only is None else [name for name in study.recipes if any(name == recipe for recipe, _ in only)]
    if any("distill" in RECIPES[name].stages for name in wanted):
        build.teacher, build.teacher_ids = teacher, ids
        build.soft_labels = build.label(ids, study.transfer.texts)
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


class _StudentSteps:
    """Adds the teacher and then every student to the plan that already has what they begin from."""

    def __init__(self, encoders: EncoderSteps):
        self.encoders, self.study, self.plan = encoders, encoders.study, encoders.plan
        self.teacher_pieces = encoders.tokenizer  # a given teacher has its own
        self.teacher = self.teacher_ids = self.soft_labels = ""  # set once the teacher is planned

    def train(
        self, recipe: str, size: Size, stage: str, settings: Train, start: dict, seed: int, rate: dict, texts: int | None = None
    ) -> str:
        """Train one student in one stage at one rate (a number, or the winner of a search), on the first `texts` texts."""
        study = self.study
        kept = settings.model_dump(exclude={"rates"}) | {"size": str(size), "seed": seed, "precision": self.encoders.precision}
        kept |= {"init_std": self.encoders.std(size), "dropout": study.dropout, "start": start["kind"]}
        parents = {"ids": self.encoders.ids}
        if "parent" in start:
            parents["start"] = start["parent"]
        if stage == "distill":
            parents |= {role: start[role] for role in ("label", "transfer") if role in start}
        kept["texts"] = texts or (study.transfer.texts if stage == "distill" else study.splits.train)
        if "search" in rate:
            parents["search"] = rate["search"]
            note = "best rate"
        else:
            kept |= rate
            note = f"rate {rate['rate']:g}" + (f" batch {rate['batch']}" if "batch" in rate else "")
        if texts:
            note = f"{texts:,} texts"
        if name := start.get("domain"):
            note = f"on {name}"
        n = kept["texts"] or self.encoders.n_train
        flops = 3 * n * settings.epochs * MEAN_PIECES * size.flops_per_token(MEAN_PIECES)
        room = SMALL + 4 * self.encoders.weights(size)
        return self.encoders.add(stage, kept, parents, f"{recipe} {size} s{seed} {stage} {note}", flops, room=room, texts=n)

    def searched(self, recipe: str, size: Size, stage: str, settings: Train, start: dict) -> str:
        """Train one candidate per rate, and per batch size where several are given, on the search seed; keep the best on dev."""
        if isinstance(settings.batch, list):
            tried = {f"rate {r:g} batch {n}": {"rate": r, "batch": n} for n in settings.batch for r in settings.rates}
        else:
            tried = {f"rate {r:g}": {"rate": r} for r in settings.rates}
        parents = {role: self.train(recipe, size, stage, settings, start, SEARCH_SEED, what) for role, what in tried.items()}
        room = SMALL + 4 * self.encoders.weights(size)
        return self.encoders.add("search", {}, parents, f"{recipe} {size} {stage}: search the rate", room=room)

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
                    start = start | {"label": self.soft_labels}
                if i not in searches:  # on the search seed, whether or not the study reports that seed
                    first = (
                        self.encoders.start(recipe.start, size, SEARCH_SEED, corpus)
                        if i == 0
                        else {"kind": PRETRAINED, "parent": searches[0]}
                    )
                    first |= {k: start[k] for k in ("label",) if k in start}
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
            start = self.encoders.start(recipe.start, size, seed) | ({"label": self.soft_labels} if stage == "distill" else {})
            model = self.train(name, size, stage, getattr(self.study, stage), start, seed, {"search": searches[0]}, n)
            self.student(name, str(size), seed, model, curve=kind, texts=n)

    def domains(self, name: str, size: Size, seed: int, searches: dict[int, str]) -> None:
        """Add a student distilled on each of the other transfer sets, at the rate found for the study's own (Fig 9)."""
        recipe, domains, study = RECIPES[name], self.study.domains, self.study
        if recipe.stages[0] != "distill" or not _within(domains, name, size):
            return
        for corpus in domains.corpora:
            label = self.label(self.teacher_ids, domains.texts, self.encoders.domain_ids(corpus, self.teacher_pieces), corpus)
            start = self.encoders.start(recipe.start, size, seed)
            start |= {"transfer": self.encoders.domain_ids(corpus, self.encoders.tokenizer), "label": label, "domain": corpus}
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

    def label(self, ids: str, n: int, transfer: str | None = None, corpus: str | None = None) -> str:
        """Let the teacher label `n` texts, of the study's transfer set or another, once for every student."""
        size = Size.parse(self.study.teacher.size or "12/768")
        flops = n * MEAN_PIECES * size.flops_per_token(MEAN_PIECES)
        settings = {"texts": n, "precision": self.encoders.precision, "margin": self.study.teacher.margin}
        parents = {"ids": ids, "model": self.teacher} | ({"transfer": transfer} if transfer else {})
        return self.encoders.add(
            "label", settings, parents, f"label {n:,} transfer texts" + (f" of {corpus}" if corpus else ""), flops
        )

    def given_teacher(self, folder: str) -> tuple[str, str]:
        """Take a fine-tuned teacher from a folder; return the texts in its own word pieces, and its model."""
        settings = {"sha256": self.encoders.digest(folder, mirror.CONFIG, mirror.WEIGHTS)}
        teacher = self.encoders.add("given", settings, {"texts": self.encoders.texts}, "the given teacher", folder=lies(folder))
        self.teacher_pieces = self.encoders.word_pieces(folder)
        ids = self.encoders.task_ids(self.teacher_pieces)
        self.student(TEACHER.name, "given", SEARCH_SEED, teacher, ids)
        return ids, teacher

    def student(self, recipe: str, size: str, seed: int, model: str, ids: str | None = None, **point) -> None:
        """Evaluate a model on dev and test and list it as a student, or as a `point` of a learning curve."""
        parents = {"ids": ids or self.encoders.ids, "model": model}
        where = "".join(f" {k} {v}" for k, v in point.items() if v is not None)
        evaluation = self.encoders.add(
            "evaluate", {"precision": self.encoders.precision}, parents, f"evaluate {recipe} {size} s{seed}{where}"
        )
        self.plan.students.append(Student(recipe, size, seed, model, evaluation, **point))


def _within(part: Curves | Domains, recipe: str, size: Size) -> bool:
    """Return whether a part of the study asks for this recipe and size; where it names none it asks for all."""
    return (not part.recipes or recipe in part.recipes) and (not part.sizes or str(size) in part.sizes)
