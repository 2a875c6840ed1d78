"""The steps of teachers that take texts, and of the linear models: taken or trained, measured on dev, then used to label.

A teacher of the study's own family takes the students' word pieces; plan.py plans its steps. The logits of every other teacher
are the same for students of any tokenizer, and can be released.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from pdstudy.data import mirror, wheels
from pdstudy.data.formats import digest
from pdstudy.data.tasks import Files
from pdstudy.storage import paths
from pdstudy.study.identities import ABSENT
from pdstudy.study.plan_encoders import EncoderSteps
from pdstudy.study.sections import Member
from pdstudy.study.settings import ParamsError
from pdstudy.study.steps import mean_pieces

PART = 20_000  # texts that are labelled in one step
# For estimates only:
N_LAYERS, WIDTH = 12, 768  # of a model whose configuration is not at hand
ROOM = 250_000_000  # bytes of a fine-tuned model in 16 bits


@dataclass(frozen=True)
class TextTeacher:
    """A teacher that takes texts: the steps that make and measure it, and the settings of its label steps."""

    model: str
    evaluation: str
    name: str  # in the column of sizes
    settings: dict[str, Any] = field(default_factory=dict)  # that change its logits
    flops: float = 0.0  # a text


class TeacherSteps:
    """Adds the steps of teachers that take texts, and of the linear models, to a plan."""

    def __init__(self, encoders: EncoderSteps):
        self.encoders, self.study, self.texts = encoders, encoders.study, {"texts": encoders.texts}

    def teacher(self, member: Member) -> TextTeacher:
        """Add the steps that make and measure a teacher that is not a size of the study. Raises ParamsError."""
        if member.linear:
            return self.linear()
        return self._from_file(member.file) if member.file else self._from_folder(member.folder)

    def linear(self, label: str | None = None, texts: int | None = None) -> TextTeacher:
        """Add the linear model on `texts` of D_L, or all; with `label`, the digest of soft labels, the one that learns from them."""
        study, parents = self.study, self.texts
        settings = {"strengths": [float(c) for c in study.linear.strengths], "texts": texts or study.splits.train}
        if label is not None:
            settings["texts"] = min(study.transfer.texts, study.linear.texts)
            parents = parents | {"label": label}
        name = "linear model" + (", taught" if label else f", {texts:,} texts" if texts else "")
        model = self.encoders.add("linear", settings, parents, f"the {name}", texts=settings["texts"])
        return TextTeacher(model, self._evaluated(model, {}, name), "linear")

    def label(
        self, teacher: TextTeacher, n: int, domain: str | None = None, corpus: str | None = None, split: str | None = None
    ) -> str:
        """Let a teacher label the first `n` texts of D_T, of another `corpus` (the step `domain`), or of a `split` of D_L."""
        encoders, where = self.encoders, f" of {corpus}" if corpus else f" of {split}" if split else ""
        settings = teacher.settings | {"texts": n, "margin": self.study.teacher.margin} | ({"of": split} if split else {})
        parents = self.texts | {"model": teacher.model, "evaluation": teacher.evaluation}
        parents |= {"transfer": domain} if domain else {}
        if not (teacher.settings and n > PART):
            return encoders.add("label", settings, parents, f"label {n or 'all'} texts{where}", n * teacher.flops)
        parts = {}
        for i, first in enumerate(range(0, n, PART)):
            n_part = min(PART, n - first)
            label = f"label texts {first:,} to {first + n_part:,}{where}"
            part = settings | {"first": first, "texts": n_part}
            parts[f"part-{i:04d}"] = encoders.add("part", part, dict(parents), label, n_part * teacher.flops)
        return encoders.add("label", settings, parents | parts, f"label {n:,} texts{where}")

    def mean(self, members: list[str], kind: str) -> str:
        """Add the step that averages several teachers' soft labels, or their evaluations; `kind` names which."""
        parents = self.texts | {f"member-{i}": member for i, member in enumerate(members)}
        return self.encoders.add("mean", {}, parents, f"{kind}: the mean of {len(members)} teachers")

    def takes_word_pieces(self, folder: str) -> bool:
        """Return whether a model is a fine-tuned BERT, which the study's own forward pass can run; also if it cannot be read."""
        if folder in wheels.KNOWN:
            return False
        try:
            fields = json.loads((mirror.model_folder(folder) / mirror.CONFIG).read_text())
            kind, classifies = fields.get("model_type", "bert"), mirror.is_classifier(fields)
        except (mirror.MirrorError, OSError, ValueError, AttributeError):
            return True  # opening the model later raises the error
        return kind == "bert" and (classifies or not fields.get("architectures"))

    def n_texts(self) -> int:
        """Return how many texts of D_T the teacher labels."""
        return max(self.study.transfer.texts, self.study.teacher.texts or 0)

    def _from_folder(self, folder: str) -> TextTeacher:
        """Take a classifier that transformers opens, or fine-tune an encoder."""
        study, tune = self.study, self.study.teacher.finetune
        try:
            sha256 = mirror.identity(folder)
        except mirror.MirrorError as error:
            if not self.encoders.assumed:
                raise ParamsError(f"teacher.folder: {error}") from None
            sha256 = {mirror.WEIGHTS: ABSENT}
        fields = self._configuration(folder)
        max_length = study.teacher.max_length or study.max_length
        settings = {"max_length": max_length, "precision": study.resolved_precision(tune.precision)}
        layers, width = fields.get("num_hidden_layers", N_LAYERS), fields.get("hidden_size", WIDTH)
        pieces = mean_pieces(max_length)
        flops = pieces * layers * (24 * width**2 + 4 * pieces * width)
        if mirror.is_classifier(fields):
            model = self.encoders.add("outside", {"sha256": sha256}, self.texts, "the teacher", folder=folder, room=2 * ROOM)
        else:
            n = self.encoders.n_train
            common = tune.model_dump(include={"batch", "warmup", "weight_decay"}) | settings
            common |= {"sha256": sha256, "seed": 0, "texts": study.splits.train}
            models = {
                f"rate {rate:g} epochs {epochs:g}": self.encoders.add(
                    "tune", common | {"rate": rate, "epochs": float(epochs)}, self.texts,
                    f"fine-tune the teacher at {rate:g}, {epochs:g} epochs", 3 * n * epochs * flops, folder=folder, room=ROOM, texts=n,
                )
                for epochs in tune.epochs for rate in tune.rates
            }  # fmt: skip
            model = next(iter(models.values()))
            if len(models) > 1:
                model = self.encoders.add("choose", {}, models, "the teacher: search rate and epochs", room=ROOM)
        return TextTeacher(model, self._evaluated(model, settings, "the teacher"), "given", settings, flops)

    def _configuration(self, folder: str) -> dict[str, Any]:
        """Return a model's configuration, empty for a pinned wheel that is not unpacked: its labels may have been released."""
        if folder in wheels.KNOWN and not paths.absolute(folder).is_dir():
            return {}
        try:
            return mirror.configuration(mirror.model_folder(folder))
        except mirror.MirrorError as error:
            if self.encoders.assumed:
                return {}
            raise ParamsError(f"teacher.folder: {error}") from None

    def _from_file(self, path: str) -> TextTeacher:
        """Take soft labels from a file."""
        source, task = paths.absolute(path), self.encoders.task.source
        if not source.is_file():
            raise ParamsError(f"teacher.file: {paths.scrub(str(source))} does not exist; paths are relative to the params file")
        columns = list(task.text) if isinstance(task, Files) else ["text"]
        settings = {"sha256": digest(source), "columns": columns, "texts": self.n_texts()}
        settings["needs_dev"] = self.study.teacher.margin > -1
        model = self.encoders.add("file", settings, self.texts, "soft labels of a file", folder=str(source))
        return TextTeacher(model, self._evaluated(model, {}, "the file's soft labels"), "file")

    def _evaluated(self, model: str, settings: dict[str, Any], name: str) -> str:
        return self.encoders.add("evaluate", settings, self.texts | {"model": model}, f"evaluate {name}")
