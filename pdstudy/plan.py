"""A study as steps: what has to be computed, each thing once, and what it will cost.

When is a step *new*? A step is its stage, the version of that stage's code, the settings that change its
meaning, the digests of its parents and of the text it read. Device, number of workers, threads and log
interval are not part of it: the same step computed elsewhere is the same step. Library versions are not
part of it either, so an upgrade does not throw a night of work away; each artifact records the versions
that made it and `plan` says so when they differ from those installed. Whoever wants everything made anew
runs `clean`.

The cost of that choice: a change of code that changes results must raise VERSION below.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pdstudy import mirror, paths
from pdstudy.params import ParamsError, Pretrain, Study, Train
from pdstudy.recipes import PRETRAINED, RANDOM, RECIPES, TEACHER, TRUNCATED
from pdstudy.sizes import Size
from pdstudy.sources import TextError, digests
from pdstudy.store import identity
from pdstudy.tasks import Named, Task, Wheel

# Raise a stage's number when its code changes what it computes.
VERSION = {
    "texts": 2, "tokenizer": 1, "ids": 2, "words": 1, "pretrain": 3, "adopt": 2,
    "given": 2, "finetune": 3, "distill": 4, "search": 1, "label": 2, "evaluate": 1,
}  # fmt: skip
DONOR = 12  # layers of the model that others are cut from; cut from itself it is whole, as in the paper's Fig 5
SEARCH_SEED = 0  # the rate is searched once per size and recipe, on this seed
# For estimates only:
MEAN_PIECES = 30  # of a sentence
SOME_TEXTS = 5000  # of train, where nobody has counted them
SMALL = 500_000  # bytes of a step's records, curves, logits
MOST_DOCUMENTS, DOCUMENT_BYTES = 50_000, 900  # of a corpus, compressed
ABSENT = "not at hand"  # in the place of a digest, in a plan that only tells the cost
CHECKPOINTS = 3  # of an unfinished step: two are kept while a third is written


@dataclass(frozen=True)
class Step:
    """One stage with its settings and inputs. `parents` maps a role, such as "start", to a digest."""

    stage: str
    settings: dict[str, Any]
    parents: dict[str, str]
    label: str  # for people: logs and progress
    flops: float = 0.0  # estimate, for the time left
    folder: str | None = None  # where given files lie; their digest is in the settings, the place is not
    room: int = 0  # estimate of the bytes that it writes
    texts: int = 0  # estimate of those that it reads, where its settings do not say
    task: Task | None = None  # where texts come from; what they are is in the settings

    @cached_property
    def digest(self) -> str:
        """Return the identity of the step: 16 hexadecimal digits."""
        return identity(self.stage, VERSION[self.stage], self.settings, self.parents)


@dataclass(frozen=True)
class Student:
    """One trained student of the study, or its teacher: which step made it and which measured it."""

    recipe: str
    size: str
    seed: int
    model: str
    evaluation: str
    curve: str | None = None  # "transfer" or "labels" where it is a point of a learning curve,
    texts: int | None = None  # of so many texts


@dataclass
class Plan:
    """The steps of a study in an order in which parents come first, and its students."""

    study: Study
    steps: dict[str, Step] = field(default_factory=dict)
    students: list[Student] = field(default_factory=list)
    asked: int = 0  # steps asked for, shared ones counted every time

    def add(self, step: Step) -> str:
        """Return the step's digest, after adding it if nobody asked for it before."""
        self.asked += 1
        self.steps.setdefault(step.digest, step)
        return step.digest

    def of_stage(self, stage: str) -> list[Step]:
        """Return the steps of one stage."""
        return [s for s in self.steps.values() if s.stage == stage]

    def counts(self) -> dict[str, int]:
        """Return the number of steps by stage."""
        return dict(Counter(s.stage for s in self.steps.values()))


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
        build.soft_labels = build.label(teacher, ids)
    for name in wanted:
        for size in map(Size.parse, study.sizes):
            if seeds := study.seeds if only is None else only.get((name, str(size)), ()):
                build.recipe(name, size, seeds)
    return build.plan


def pretraining(study: Study, sizes: Iterable[Size]) -> Plan:
    """Return the plan that only pre-trains `sizes`: a family of miniatures."""
    build = _Builder(study, Plan(study))
    for size in sizes:
        for number in range(study.pretraining(size).starts):
            build.encoder(size, number)
    return build.plan


def folder_digest(folder: str, *names: str) -> str:
    """Return the sha256 over those of `names` that the folder holds. Raises ParamsError where none is there."""
    found = [Path(folder).expanduser() / name for name in names]
    found = [path for path in found if path.is_file()]
    if not found:
        raise ParamsError(f"{folder}: holds none of {', '.join(names)}; give the folder of a saved model or tokenizer")
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
        texts = _texts_settings(task, assumed) | {"split_seed": study.splits.seed, "corpus": study.corpus.model_dump()}
        cut = ("dev", "test") if getattr(task.source, "train", True) else ()
        texts["splits"] = {name: getattr(study.splits, name) for name in cut if not getattr(task.source, name, None)}
        self.documents = study.corpus.documents or MOST_DOCUMENTS
        self.texts = self.add("texts", texts, {}, f"texts of {task.name}", room=SMALL + self.documents * DOCUMENT_BYTES, task=task)
        self.tokenizer = self.word_pieces(study.tokenizer.folder if study.family is None else self._family_tokenizer())
        self.soft_labels = ""  # set once the teacher is planned

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

    def corpus_ids(self) -> str:
        """Cut D_LM into word pieces, apart from the task's texts: what has read it serves every study of the task."""
        return self.add("ids", {"of": "corpus"}, {"texts": self.texts, "tokenizer": self.tokenizer}, "word pieces of D_LM",
                        room=SMALL + self.documents * DOCUMENT_BYTES // 2)  # fmt: skip

    def encoder(self, size: Size, number: int) -> str:
        """Pre-train one encoder, shared by every recipe, task and notebook; or take it from the family."""
        if self.study.family is not None:
            return self.adopted(size)
        p: Pretrain = self.study.pretraining(size)
        settings = {k: v for k, v in p.model_dump().items() if k != "starts"}
        parents = {"ids": self.corpus_ids()}
        if p.optimiser != "muon":
            del settings["muon_rate"]
        if p.words == "counts":
            parents["words"] = self.word_vectors(size.hidden, p.window)
        else:
            del settings["words_std"]
        del settings["window"]  # the parent's, if there is one
        settings |= {"size": str(size), "init_std": p.init_std or self._std(size), "seed": number, "precision": self.precision}
        flops = 3 * p.tokens * (size.flops_per_token(p.row) + p.mask * 2 * self.study.tokenizer.vocabulary * size.hidden)
        return self.add("pretrain", settings, parents, f"pretrain {size} #{number}", flops,
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

    def word_vectors(self, width: int, window: int) -> str:
        """Count pairs of pieces in D_LM, once for all encoders of a width."""
        settings, parents = {"width": width, "window": window}, {"ids": self.corpus_ids()}
        room = SMALL + 4 * width * self.study.tokenizer.vocabulary
        return self.add("words", settings, parents, f"word vectors of width {width}", room=room)

    def start(self, kind: str, size: Size, seed: int) -> dict:
        """Return the settings and the parent of a student's start."""
        if kind == RANDOM:
            return {"kind": RANDOM}
        donor = self._donor(size) if kind == TRUNCATED else size
        number = seed % self.study.pretraining(donor).starts
        return {"kind": kind, "parent": self.encoder(donor, number)}

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
            parents["label"] = start["label"]
        kept["texts"] = texts or (study.transfer.texts if stage == "distill" else study.splits.train)
        if "search" in rate:
            parents["search"] = rate["search"]
            note = "best rate"
        else:
            kept |= rate
            note = f"rate {rate['rate']:g}" + (f" batch {rate['batch']}" if "batch" in rate else "")
        if texts:
            note = f"{texts:,} texts"
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

    def recipe(self, name: str, size: Size, seeds: list[int]) -> None:
        """Add every seed of one recipe at one size, stage after stage, and its points of the learning curves."""
        recipe, study = RECIPES[name], self.study
        searches: dict[int, str] = {}
        for seed in seeds:
            start = self.start(recipe.start, size, seed)
            for i, stage in enumerate(recipe.stages):
                settings = getattr(study, stage)
                if i == 0 and stage == "distill":
                    start = start | {"label": self.soft_labels}
                if i not in searches:  # on the search seed, whether or not the study reports that seed
                    first = self.start(recipe.start, size, SEARCH_SEED) if i == 0 else {"kind": PRETRAINED, "parent": searches[0]}
                    first |= {k: start[k] for k in ("label",) if k in start}
                    searches[i] = self.searched(name, size, stage, settings, first)
                if seed == SEARCH_SEED:
                    model = searches[i]
                else:
                    model = self.train(name, size, stage, settings, start, seed, {"search": searches[i]})
                start = {"kind": PRETRAINED, "parent": model}
            self.student(name, str(size), seed, model)
            self.curve(name, size, seed, searches)

    def curve(self, name: str, size: Size, seed: int, searches: dict[int, str]) -> None:
        """Add a student's points of a learning curve: the same recipe, seed and rate on fewer texts."""
        recipe, curves = RECIPES[name], self.study.curves
        (stage, *more), kind = recipe.stages, {"distill": "transfer", "finetune": "labels"}[recipe.stages[0]]
        if more or str(size) not in (curves.sizes or self.study.sizes):
            return
        for n in getattr(curves, kind):
            start = self.start(recipe.start, size, seed) | ({"label": self.soft_labels} if stage == "distill" else {})
            model = self.train(name, size, stage, getattr(self.study, stage), start, seed, {"search": searches[0]}, n)
            self.student(name, str(size), seed, model, curve=kind, texts=n)

    def label(self, teacher: str, ids: str) -> str:
        """Label the transfer set, once for every student."""
        n = self.study.transfer.texts
        size = Size.parse(self.study.teacher.size or "12/768")
        flops = n * MEAN_PIECES * size.flops_per_token(MEAN_PIECES)
        settings = {"texts": n, "precision": self.precision, "margin": self.study.teacher.margin}
        return self.add("label", settings, {"ids": ids, "model": teacher}, f"label {n:,} transfer texts", flops)

    def given_teacher(self, folder: str) -> tuple[str, str]:
        """Take a fine-tuned teacher from a folder; return the texts in its own word pieces, and its model."""
        settings = {"sha256": self._digest(folder, mirror.CONFIG, mirror.WEIGHTS)}
        teacher = self.add("given", settings, {"texts": self.texts}, "the given teacher", folder=_lies(folder))
        ids = self.task_ids(self.word_pieces(folder))
        self.student(TEACHER.name, "given", SEARCH_SEED, teacher, ids)
        return ids, teacher

    def student(self, recipe: str, size: str, seed: int, model: str, ids: str | None = None, **point) -> None:
        """Evaluate a model on dev and test and list it as a student, or as a `point` of a learning curve."""
        parents = {"ids": ids or self.ids, "model": model}
        evaluation = self.add("evaluate", {"precision": self.precision}, parents, f"evaluate {recipe} {size} s{seed}")
        self.plan.students.append(Student(recipe, size, seed, model, evaluation, **point))
