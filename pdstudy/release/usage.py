"""How to call an exported model, and its card, as Markdown for the report of an advice."""

import json
import re
from pathlib import Path
from typing import Any

from IPython.display import Markdown

from pdstudy.models import linear
from pdstudy.release.export import CARD
from pdstudy.release.model_card import render
from pdstudy.release.predict import FACTS
from pdstudy.storage import paths

NAME = "model"  # of the folder that `advise` exports, within the study's folder
EXAMPLE = ["a first text", "a second text"]


def calls(study: str, student: str) -> Markdown:
    """Return how to call a study's exported student from Python, JavaScript and the command line; if it is not exported, how to."""
    folder, facts = _exported(study, student)
    if facts is None:
        return Markdown(f"It is not exported: `python -m pdstudy advise` exports it to the folder `outputs/{study}/{NAME}`.")
    is_linear, averaged = linear.is_linear(folder), "averaged_with" in facts
    onnx, pairs = any("opset" in engine for engine in facts.get("engines", ())), facts["pairs"]
    texts = [EXAMPLE] if pairs else EXAMPLE
    # transformers takes a pair as a mapping, a Labeller as a tuple.
    pair = tuple(EXAMPLE) if is_linear or averaged else dict(zip(("text", "text_pair"), EXAMPLE, strict=True))
    python_texts = [pair] if pairs else EXAMPLE
    page = render(
        "usage", study=study, name=NAME, facts=facts, linear=is_linear, averaged=averaged, onnx=onnx, pairs=pairs, texts=json.dumps(texts),
        python_texts=str(python_texts).replace("'", '"'), in_javascript=onnx and not pairs and not averaged,
    )  # fmt: skip
    return Markdown(page)


def card(study: str, student: str) -> Markdown:
    """Return the card of a study's exported student, without its metadata and with its headings two levels lower; or that there is none."""
    folder, facts = _exported(study, student)
    if facts is None:
        return Markdown("It is not exported, so it has no card.")
    text = re.sub(r"\A---\n.*?\n---\n", "", (folder / CARD).read_text(encoding="utf-8"), flags=re.DOTALL)
    return Markdown(re.sub(r"^(#+ )", r"##\1", text, flags=re.MULTILINE))


def _exported(study: str, student: str) -> tuple[Path, dict[str, Any] | None]:
    """Return the folder that `advise` exports to, and its facts; None if it has no such student."""
    folder = paths.study_folder(study) / NAME
    facts = json.loads((folder / FACTS).read_text()) if (folder / FACTS).is_file() else None
    return folder, facts if facts and facts["student"] == student else None
