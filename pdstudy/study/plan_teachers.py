"""The teachers of a study as steps: taken or trained, measured on dev, then asked for soft labels.

A teacher of the study's own family reads the students' word pieces, and so do its steps. Every other teacher reads texts:
what it says of them is the same for students of any tokenizer, and can be released.
"""

import json
from dataclasses import dataclass
from typing import Any

from pdstudy.data import mirror, wheels
from pdstudy.data.formats import digest
from pdstudy.data.tasks import Files
from pdstudy.storage import paths
from pdstudy.study.plan_encoders import ABSENT, EncoderSteps
from pdstudy.study.sections import Member
from pdstudy.study.settings import ParamsError

PART = 20_000  # texts that are labelled in one step
READ_AT = 30  # pieces of a sentence, for estimates
N_LAYERS, WIDTH = 12, 768  # of a model outside, where its configuration is not at hand, for estimates
ROOM = 250_000_000  # bytes of a fine-tuned model in 16 bits, about


@dataclass(frozen=True)
class Planned:
    """A teacher that reads texts: the steps that made and measured it, and how it is asked."""

    model: str
    evaluation: str
    name: str  # what stands in the place of its size
    asks: dict[str, Any]  # settings that change its answers
    flops: float = 0.0  # a text


class TeacherSteps:
    """Adds the steps of teachers that read texts to a plan, and of the linear models."""

    def __init__(self, build: EncoderSteps):
        self.build, self.study = build, build.study

    def planned(self, member: Member) -> Planned:
        """Add what makes and measures one teacher that is no size. Raises ParamsError."""
        if member.linear:
            return self.linear()
        return self._file(member.file) if member.file else self._outside(member.folder)

    def linear(self, label: str | None = None) -> Planned:
        """Add the linear model; with `label`, the digest of soft labels, the one that is taught by them."""
        study = self.study
        settings = {"strengths": [float(c) for c in study.linear.strengths], "texts": study.splits.train}
        parents = {"texts": self.build.texts}
        if label is not None:
            settings["texts"] = min(study.transfer.texts, study.linear.texts)
            parents["label"] = label
        name = "linear model" + (", taught" if label else "")
        model = self.build.add("linear", settings, parents, f"the {name}", texts=settings["texts"])
        return Planned(model, self._evaluated(model, {}, name), "linear", {})

    def label(self, teacher: Planned, n: int, domain: str | None = None, corpus: str | None = None, of: str | None = None) -> str:
        """Let a teacher label the first `n` texts of D_T, of the transfer set of another `domain`, or of a split `of` D_L."""
        build, where = self.build, f" of {corpus}" if corpus else f" of {of}" if of else ""
        settings = teacher.asks | {"texts": n, "margin": self.study.teacher.margin} | ({"of": of} if of else {})
        parents = {"texts": build.texts, "model": teacher.model, "evaluation": teacher.evaluation}
        parents |= {"transfer": domain} if domain else {}
        if teacher.asks and n > PART:
            parts = {}
            for i, first in enumerate(range(0, n, PART)):
                some = settings | {"first": first, "texts": min(PART, n - first)}
                label = f"label texts {first:,} to {first + some['texts']:,}{where}"
                parts[f"part-{i:04d}"] = build.add("part", some, dict(parents), label, some["texts"] * teacher.flops)
            return build.add("label", settings, parents | parts, f"label {n:,} texts{where}")
        return build.add("label", settings, parents, f"label {n or 'all'} texts{where}", n * teacher.flops)

    def mean(self, members: list[str], what: str) -> str:
        """Return the step that averages several teachers' soft labels, or their evaluations, as `what` says."""
        parents = {"texts": self.build.texts} | {f"member-{i}": member for i, member in enumerate(members)}
        return self.build.add("mean", {}, parents, f"{what}: the mean of {len(members)} teachers")

    def is_own_kind(self, folder: str) -> bool:
        """Return whether a model is a fine-tuned BERT, which the study's own forward pass runs, or cannot be told from one."""
        if folder.startswith(paths.WHEEL) and wheels.known(folder):
            return False
        try:
            fields = json.loads((mirror.model_folder(folder) / mirror.CONFIG).read_text())
            kind, classifies = fields.get("model_type", "bert"), mirror.is_classifier(fields)
        except (mirror.MirrorError, OSError, ValueError, AttributeError):
            return True  # opening the model later raises the error
        return kind == "bert" and (classifies or not fields.get("architectures"))

    def _outside(self, folder: str) -> Planned:
        """Take a classifier or fine-tune an encoder that transformers opens."""
        study = self.study
        try:
            sha256 = mirror.identity(folder)
        except mirror.MirrorError as error:
            if not self.build.assumed:
                raise ParamsError(f"teacher.folder: {error}") from None
            sha256 = {mirror.WEIGHTS: ABSENT}
        fields = self._fields(folder)
        t = study.teacher.finetune
        precision = study.resolved_precision(t.precision)
        asks = {"max_length": study.teacher.max_length or study.max_length, "precision": precision}
        layers, width = fields.get("num_hidden_layers", N_LAYERS), fields.get("hidden_size", WIDTH)
        flops = READ_AT * layers * (24 * width**2 + 4 * READ_AT * width)
        parents = {"texts": self.build.texts}
        if mirror.is_classifier(fields):
            model = self.build.add("outside", {"sha256": sha256}, parents, "the teacher", folder=folder, room=2 * ROOM)
        else:
            n = study.splits.train or self.build.n_train
            each = t.model_dump(include={"batch", "warmup", "weight_decay"}) | asks | {"sha256": sha256, "seed": 0}
            each |= {"texts": study.splits.train}
            models = {
                f"rate {rate:g} epochs {epochs:g}": self.build.add(
                    "tune", each | {"rate": rate, "epochs": float(epochs)}, parents, f"fine-tune the teacher at {rate:g}, {epochs:g} epochs",
                    3 * n * epochs * flops, folder=folder, room=ROOM, texts=n,
                )
                for epochs in t.epochs for rate in t.rates
            }  # fmt: skip
            model = next(iter(models.values()))
            if len(models) > 1:
                model = self.build.add("choose", {}, models, "the teacher: search rate and epochs", room=ROOM)
        return Planned(model, self._evaluated(model, asks, "the teacher"), "given", asks, flops)

    def _fields(self, folder: str) -> dict[str, Any]:
        """Return a model's configuration; of a pinned wheel that was not unpacked nothing, for what it said may have been released."""
        if folder.startswith(paths.WHEEL) and wheels.known(folder) and not paths.absolute(folder).is_dir():
            return {}
        try:
            return mirror.configuration(mirror.model_folder(folder))
        except mirror.MirrorError as error:
            if self.build.assumed:
                return {}
            raise ParamsError(f"teacher.folder: {error}") from None

    def _file(self, path: str) -> Planned:
        """Take soft labels from a file."""
        study, source = self.study, paths.absolute(path)
        if not source.is_file():
            raise ParamsError(f"teacher.file: {paths.scrub(str(source))} does not exist; paths are relative to the params file")
        task = self.build.task.source
        columns = list(task.text) if isinstance(task, Files) else ["text"]
        settings = {"sha256": digest(source), "columns": columns, "texts": self.n_texts(), "needs_dev": study.teacher.margin > -1}
        model = self.build.add("file", settings, {"texts": self.build.texts}, "soft labels of a file", folder=str(source))
        return Planned(model, self._evaluated(model, {}, "the file's soft labels"), "file", {})

    def n_texts(self) -> int:
        """Return how many texts of D_T the teacher labels."""
        return max(self.study.transfer.texts, self.study.teacher.texts or 0)

    def _evaluated(self, model: str, settings: dict[str, Any], name: str) -> str:
        return self.build.add("evaluate", settings, {"texts": self.build.texts, "model": model}, f"evaluate {name}")
