"""A study as steps: what has to be computed, each thing once, in an order in which parents come first.

Nothing is opened here but params, and the files whose digests tell which text is meant.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pdstudy import elsewhere, mirror, paths
from pdstudy.params import Curves, Domains, ParamsError, Pretrain, Study, Train
from pdstudy.recipes import PRETRAINED, RANDOM, RECIPES, TEACHER, TRUNCATED
from pdstudy.sizes import Size
from pdstudy.sources import digests, read_digests
from pdstudy.steps import Plan, Step, Student
from pdstudy.tasks import DATA, OWN_TRANSFER, Named, Task, Wheel
from pdstudy.textfiles import TextError

DONOR = 12  # layers of the model that others are cut from; cut from itself it is whole, as in the paper's Fig 5
SEARCH_SEED = 0  # the rate is searched once per size and recipe, on this seed
# For estimates only:
MEAN_PIECES = 30  # of a sentence
SOME_TEXTS = 5000  # of train, where nobody has counted them
SMALL = 500_000  # bytes of a step's records, curves, logits
MOST_DOCUMENTS, DOCUMENT_BYTES = 50_000, 900  # of a corpus, compressed
ABSENT = "not at hand"  # in the place of a digest, in a plan that only tells the cost
CHECKPOINTS = 3  # of an unfinished step: two are kept while a third is written


def make(study: Study, only: dict[tuple[str, str], list[int]] | None = None, assumed: bool = False) -> Plan:
    """Return the plan of a study; with `only`, of those (recipe, size) and their seeds. Opens no data and no torch.

    With `assumed`, what the study names on the hub and is not at hand is taken by its name: such a plan tells the
    cost, and its digests are nobody's. Raises ParamsError where the study has no labelled texts, or they are not here.
    """
    if not getattr(study.resolved_task().source, "train", True):
        raise ParamsError(
            "task.train: students need labelled texts; on a corpus alone a family can be pre-trained: python -m pdstudy zoo"
        )
    build = _Builder(study, Plan(study), assumed)
    if study.teacher.folder is None:
        ids = build.ids
        size = Size.parse(study.teacher.size)
        teacher = build.searched(TEACHER.name, size, "finetune", study.finetune, build.start(TEACHER.start, size, SEARCH_SEED))
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
    build = _Builder(study, Plan(study))
    for size in sizes:
        for number in range(study.pretraining(size).starts):
            build.encoder(size, number)
    return build.plan


def folder_digest(folder: str, *names: str) -> str:
    """Return the sha256 over those of `names` that the folder holds. Raises ParamsError where none is there."""
    found, why = [Path(folder).expanduser() / name for name in names], ""
    try:
        found = [path for path in found if path.is_file()]
    except OSError as error:  # a name that no file system takes
        found, why = [], f" ({error.strerror})"
    if not found:
        raise ParamsError(f"{folder[:200]}: holds none of {', '.join(names)}{why}; give the folder of a saved model or tokenizer")
    digest = hashlib.sha256()
    for path in found:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _lies(folder: str) -> str:
    """Return where a folder lies that may be a model of the hub."""
    return str(paths.whole(folder)) if folder.startswith(paths.HUB) else folder


def _texts_settings(task: Task, assumed: bool) -> dict[str, Any]:
    """Return what tells a task's texts from any others."""
    try:
        read = read_digests(task)
    except TextError as error:
        if not assumed:
            raise ParamsError(str(error)) from None
        read = [ABSENT]
    # What has tags is read without them, so that they are part of what is read.
    reads = {"reads": {"sha256": read, "tags": [DATA[name.split("/")[0]].tags for name in task.reads]}} if task.reads else {}
    return _source_settings(task, assumed) | reads


def _source_settings(task: Task, assumed: bool) -> dict[str, Any]:
    """Return what tells the texts of a task's own source from any others."""
    source = task.source
    if isinstance(source, Wheel):
        return {"task": task.name, "sha256": source.sha256}
    try:
        found = digests(source)
    except TextError as error:
        if assumed and isinstance(source, Named):
            return {"task": task.name, "sha256": ABSENT}
        raise ParamsError(str(error)) from None
    if isinstance(source, Named):
        return {"task": "named", "sha256": found, "labels": list(task.labels), "sentences": source.sentences,
                "tags": source.data.tags, "of_train": source.train in source.transfer}  # fmt: skip
    return {"task": "files", "sha256": found, "text": list(source.text), "label": source.label, "labels": list(source.labels)}


class _Builder:
    """Adds the steps of a study to a plan, from the text upwards."""

    def __init__(self, study: Study, plan: Plan, assumed: bool = False):
        self.study, self.plan, self.assumed = study, plan, assumed
        self.precision = study.resolved_precision()
        task = study.resolved_task()
        self.n_train = study.splits.train or (task.source.data.train if isinstance(task.source, Named) else SOME_TEXTS)
        texts = _texts_settings(task, assumed) | {
            "split_seed": study.splits.seed,
            "corpus": study.corpus.model_dump(exclude={"data"}),
        }
        cut = ("dev", "test") if getattr(task.source, "train", True) else ()
        texts["splits"] = {name: getattr(study.splits, name) for name in cut if not getattr(task.source, name, None)}
        self.documents = study.corpus.documents or MOST_DOCUMENTS
        self.task = task
        self.texts = self.add("texts", texts, {}, f"texts of {task.name}", room=SMALL + self.documents * DOCUMENT_BYTES, task=task)
        self.tokenizer = self.word_pieces(study.tokenizer.folder if study.family is None else self._family_tokenizer())
        self.teacher_pieces = self.tokenizer  # a given teacher has its own
        self.teacher = self.teacher_ids = self.soft_labels = ""  # set once the teacher is planned

    @cached_property
    def ids(self) -> str:
        """Cut the task's texts into the students' word pieces; a family alone does not need them."""
        return self.task_ids(self.tokenizer)

    def add(
        self,
        stage: str,
        settings: dict,
        parents: dict[str, str],
        label: str,
        flops: float = 0.0,
        folder: str | None = None,
        room: int = SMALL,
        task: Task | None = None,
        texts: int = 0,
    ) -> str:
        return self.plan.add(Step(stage, settings, parents, label, flops, folder, room, texts, task))

    def _digest(self, folder: str, *names: str) -> str:
        """Return the digest of a folder's files, or of a model of the hub, "hub:owner/name"."""
        try:
            return folder_digest(str(mirror.model(folder)), *names)
        except mirror.MirrorError as error:
            if self.assumed:
                return ABSENT
            raise ParamsError(str(error)) from None

    def _weights(self, size: Size) -> int:
        """Return the number of weights of a model of this size, about."""
        return size.n_params(self.study.tokenizer.vocabulary)

    def word_pieces(self, folder: str | None) -> str:
        """Train a tokenizer on D_LM, or take it from a folder."""
        if folder is None:
            settings, parents = {"vocabulary": self.study.tokenizer.vocabulary}, {"texts": self.texts}
        else:
            settings, parents = {"sha256": self._digest(folder, *mirror.VOCABULARIES)}, {}
            folder = _lies(folder)
        return self.add("tokenizer", settings, parents, "tokenizer", folder=folder)

    def task_ids(self, tokenizer: str) -> str:
        """Cut D_L and D_T into word pieces."""
        parents = {"texts": self.texts, "tokenizer": tokenizer}
        return self.add("ids", {"of": "task", "max_length": self.study.max_length}, parents, "word pieces of D_L and D_T",
                        room=SMALL + self.documents * DOCUMENT_BYTES // 2)  # fmt: skip

    def corpus_ids(self, corpus: str | None = None) -> str:
        """Cut D_LM, the study's or another, into word pieces apart from the task's texts: it serves every study of the task."""
        texts = self.texts if corpus is None else self.other_corpus(corpus)
        return self.add("ids", {"of": "corpus"}, {"texts": texts, "tokenizer": self.tokenizer},
                        "word pieces of D_LM" + (f" {corpus}" if corpus else ""),
                        room=SMALL + self.documents * DOCUMENT_BYTES // 2)  # fmt: skip

    def other_corpus(self, corpus: str) -> str:
        """Take another D_LM than the study's."""
        settings = self._elsewhere(corpus) | {"heldout": self.study.corpus.heldout}
        if OWN_TRANSFER in corpus.split("+"):
            settings["texts"] = self.study.transfer.texts
        return self.add("corpus", settings, {"texts": self.texts}, f"D_LM {corpus}", task=self.task,
                        room=SMALL + self.documents * DOCUMENT_BYTES)  # fmt: skip

    def domain_ids(self, corpus: str, tokenizer: str) -> str:
        """Take a transfer set from another corpus and cut it into word pieces."""
        n = self.study.domains.texts
        settings = self._elsewhere(corpus) | {"texts": n}
        texts = self.add("domain", settings, {"texts": self.texts}, f"D_T {corpus}", task=self.task)
        parents = {"texts": texts, "tokenizer": tokenizer}
        return self.add("ids", {"of": "transfer", "max_length": self.study.max_length}, parents, f"word pieces of D_T {corpus}")

    def _elsewhere(self, corpus: str) -> dict[str, Any]:
        """Return what tells the text of other corpora from any other text."""
        known, study = dict(self.task.elsewhere), self.study
        try:
            found = {name: elsewhere.identity(known[name]) for name in corpus.split("+") if name in known}
        except TextError as error:
            raise ParamsError(str(error)) from None
        return {"corpus": corpus, "sha256": found, "labelled": study.splits.train, "split_seed": study.splits.seed}

    def encoder(self, size: Size, number: int, corpus: str | None = None) -> str:
        """Pre-train one encoder, shared by every recipe, task and notebook; or take it from the family.

        With `corpus` it reads that, and as many pieces as the study's compound settings say.
        """
        if self.study.family is not None and corpus is None:
            return self.adopted(size)
        p: Pretrain = self.study.pretraining(size)
        if corpus is not None:
            p = p.model_copy(update={"tokens": self.study.compound.tokens, "precision": None})
        settings = {k: v for k, v in p.model_dump().items() if k != "starts"}
        pieces = self.corpus_ids(corpus)
        parents = {"ids": pieces}
        if p.optimiser != "muon":
            del settings["muon_rate"]
        if p.words == "counts":
            parents["words"] = self.word_vectors(size.hidden, p.window, pieces)
        else:
            del settings["words_std"]
        del settings["window"]  # the parent's, if there is one
        settings |= {"size": str(size), "init_std": p.init_std or self._std(size), "seed": number}
        settings["precision"] = self.study.resolved_precision(p.precision)
        flops = 3 * p.tokens * (size.flops_per_token(p.row) + p.mask * 2 * self.study.tokenizer.vocabulary * size.hidden)
        return self.add("pretrain", settings, parents, f"pretrain {size} #{number}" + (f" on {corpus}" if corpus else ""), flops,
                        room=SMALL + (CHECKPOINTS * 12 + 2) * self._weights(size))  # fmt: skip

    def adopted(self, size: Size) -> str:
        """Take an encoder that has read already from the family's folder."""
        settings = {
            "sha256": self._digest(self._member(size), mirror.CONFIG, mirror.WEIGHTS),
            "size": str(size),
            "precision": self.precision,
        }
        folder = str(self.study.family_folder(size))
        return self.add("adopt", settings, {"ids": self.corpus_ids()}, f"take {size} from the family", folder=folder,
                        room=SMALL + 4 * self._weights(size))  # fmt: skip

    def _family_tokenizer(self) -> str:
        """Return the folder of the family's tokenizer, which must be the same in all the study's sizes."""
        folders = {size: self._member(Size.parse(size)) for size in self.study.all_sizes}
        found = {size: self._digest(folder, *mirror.VOCABULARIES) for size, folder in folders.items()}
        (first, digest), *others = found.items()
        for size, its in others:
            # The same pieces may come as a vocab.txt from one repository and as a tokenizer.json from another.
            if its != digest and ABSENT not in (its, digest) and mirror.pieces(folders[size]) != mirror.pieces(folders[first]):
                raise ParamsError(f"family: {first} and {size} have different tokenizers; one family has one")
        return folders[first]

    def _member(self, size: Size) -> str:
        """Return the folder of the family's encoder of a size, or its name on the hub."""
        name = self.study.family_name(size)
        return name if name.startswith(paths.HUB) else str(paths.whole(name))

    def word_vectors(self, width: int, window: int, pieces: str) -> str:
        """Count pairs of pieces in a D_LM, once for all encoders of a width."""
        settings, parents = {"width": width, "window": window}, {"ids": pieces}
        room = SMALL + 4 * width * self.study.tokenizer.vocabulary
        return self.add("words", settings, parents, f"word vectors of width {width}", room=room)

    def start(self, kind: str, size: Size, seed: int, corpus: str | None = None) -> dict:
        """Return the settings and the parent of a student's start, which has read `corpus` or else the study's D_LM."""
        if kind == RANDOM:
            return {"kind": RANDOM}
        donor = self._donor(size) if kind == TRUNCATED else size
        number = seed % self.study.pretraining(donor).starts
        return {"kind": kind, "parent": self.encoder(donor, number, corpus)}

    def _donor(self, size: Size) -> Size:
        family = map(Size.parse, (*self.study.all_sizes, *self.study.pretrain_by_size))
        deeper = [s for s in family if s.hidden == size.hidden and (s.layers > size.layers or (s == size and s.layers >= DONOR))]
        if not deeper:
            raise ParamsError(
                f"PD (truncated) of {size} needs a deeper pre-trained model of width {size.hidden}; "
                f"add one to pretrain_by_size, such as {{12/{size.hidden}: {{}}}}, or leave the recipe out"
            )
        return max(deeper)

    def _std(self, size: Size) -> float:
        try:
            return self.study.init_std[str(size.hidden)]
        except KeyError:
            raise ParamsError(f'init_std has no scale for width {size.hidden}; add it, such as {{"{size.hidden}": 0.04}}') from None

    def train(
        self, recipe: str, size: Size, stage: str, settings: Train, start: dict, seed: int, rate: dict, texts: int | None = None
    ) -> str:
        """Train one student in one stage at one rate (a number, or the winner of a search), on the first `texts` texts."""
        study = self.study
        kept = settings.model_dump(exclude={"rates"}) | {"size": str(size), "seed": seed, "precision": self.precision}
        kept |= {"init_std": self._std(size), "dropout": study.dropout, "start": start["kind"]}
        parents = {"ids": self.ids}
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
        n = kept["texts"] or self.n_train
        flops = 3 * n * settings.epochs * MEAN_PIECES * size.flops_per_token(MEAN_PIECES)
        room = SMALL + 4 * self._weights(size)
        return self.add(stage, kept, parents, f"{recipe} {size} s{seed} {stage} {note}", flops, room=room, texts=n)

    def searched(self, recipe: str, size: Size, stage: str, settings: Train, start: dict) -> str:
        """Train one candidate per rate, and per batch size where several are given, on the search seed; keep the best on dev."""
        if isinstance(settings.batch, list):
            tried = {f"rate {r:g} batch {n}": {"rate": r, "batch": n} for n in settings.batch for r in settings.rates}
        else:
            tried = {f"rate {r:g}": {"rate": r} for r in settings.rates}
        parents = {role: self.train(recipe, size, stage, settings, start, SEARCH_SEED, what) for role, what in tried.items()}
        room = SMALL + 4 * self._weights(size)
        return self.add("search", {}, parents, f"{recipe} {size} {stage}: search the rate", room=room)

    def recipe(self, name: str, size: Size, seeds: list[int], corpus: str | None = None) -> None:
        """Add every seed of one recipe at one size, stage after stage, and its points of the curves and domains.

        With `corpus` the students begin from encoders that have read that, and have no such points.
        """
        recipe = RECIPES[name]
        searches: dict[int, str] = {}
        for seed in seeds:
            start = self.start(recipe.start, size, seed, corpus)
            for i, stage in enumerate(recipe.stages):
                settings = getattr(self.study, stage)
                if i == 0 and stage == "distill":
                    start = start | {"label": self.soft_labels}
                if i not in searches:  # on the search seed, whether or not the study reports that seed
                    first = (
                        self.start(recipe.start, size, SEARCH_SEED, corpus)
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
            start = self.start(recipe.start, size, seed) | ({"label": self.soft_labels} if stage == "distill" else {})
            model = self.train(name, size, stage, getattr(self.study, stage), start, seed, {"search": searches[0]}, n)
            self.student(name, str(size), seed, model, curve=kind, texts=n)

    def domains(self, name: str, size: Size, seed: int, searches: dict[int, str]) -> None:
        """Add a student distilled on each of the other transfer sets, at the rate found for the study's own (Fig 9)."""
        recipe, domains, study = RECIPES[name], self.study.domains, self.study
        if recipe.stages[0] != "distill" or not _within(domains, name, size):
            return
        for corpus in domains.corpora:
            label = self.label(self.teacher_ids, domains.texts, self.domain_ids(corpus, self.teacher_pieces), corpus)
            start = self.start(recipe.start, size, seed)
            start |= {"transfer": self.domain_ids(corpus, self.tokenizer), "label": label, "domain": corpus}
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
        settings = {"texts": n, "precision": self.precision, "margin": self.study.teacher.margin}
        parents = {"ids": ids, "model": self.teacher} | ({"transfer": transfer} if transfer else {})
        return self.add("label", settings, parents, f"label {n:,} transfer texts" + (f" of {corpus}" if corpus else ""), flops)

    def given_teacher(self, folder: str) -> tuple[str, str]:
        """Take a fine-tuned teacher from a folder; return the texts in its own word pieces, and its model."""
        settings = {"sha256": self._digest(folder, mirror.CONFIG, mirror.WEIGHTS)}
        teacher = self.add("given", settings, {"texts": self.texts}, "the given teacher", folder=_lies(folder))
        self.teacher_pieces = self.word_pieces(folder)
        ids = self.task_ids(self.teacher_pieces)
        self.student(TEACHER.name, "given", SEARCH_SEED, teacher, ids)
        return ids, teacher

    def student(self, recipe: str, size: str, seed: int, model: str, ids: str | None = None, **point) -> None:
        """Evaluate a model on dev and test and list it as a student, or as a `point` of a learning curve."""
        parents = {"ids": ids or self.ids, "model": model}
        where = "".join(f" {k} {v}" for k, v in point.items() if v is not None)
        evaluation = self.add("evaluate", {"precision": self.precision}, parents, f"evaluate {recipe} {size} s{seed}{where}")
        self.plan.students.append(Student(recipe, size, seed, model, evaluation, **point))


def _within(part: Curves | Domains, recipe: str, size: Size) -> bool:
    """Return whether a part of the study asks for this recipe and size; where it names none it asks for all."""
    return (not part.recipes or recipe in part.recipes) and (not part.sizes or str(size) in part.sizes)
