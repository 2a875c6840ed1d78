"""The linear model of a finished study as a folder: a vocabulary in JSON, weights as safetensors. No pickle, no torch."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pdstudy.models import latency, linear
from pdstudy.release.faithful import TOLERANCE, Unfaithful
from pdstudy.release.student import Finished, common_facts


def fill(finished: Finished, folder: Path, report: Callable[[str], None]) -> dict[str, Any]:
    """Write the linear model's files into `folder` and return the facts about it. Raises Unfaithful."""
    logits, own = write(finished, folder, report)
    return common_facts(finished, logits) | own


def write(finished: Finished, folder: Path, report: Callable[[str], None]) -> tuple[np.ndarray, dict[str, Any]]:
    """Write the linear model's files into `folder`; return its logits of the test texts, and its settings and latency.

    Raises Unfaithful.
    """
    report("the linear model's weights and vocabulary")
    record, texts = finished.record("model"), finished.texts("test")
    model = linear.load(finished.folder("model"))
    model.save(folder)
    path = folder / linear.VOCABULARY
    vocabulary = json.loads(path.read_text(encoding="utf-8")) | {"labels": record["labels"]}
    path.write_text(json.dumps(vocabulary, ensure_ascii=False) + "\n", encoding="utf-8")
    report(f"the linear model on the {len(texts):,} test texts")
    logits = linear.load(folder).logits(texts)
    difference, limit = float(np.abs(logits - finished.test_logits()[0]).max()), TOLERANCE["fp32"]
    if not difference <= limit:
        raise Unfaithful(f"the folder's logits differ from the study's by {difference:.2g}, more than {limit:g}")
    own = {key: record[key] for key in ("n_grams", "analyzer", "C", "searched")}
    return logits, own | {"latency": asdict(latency.measure_on_texts(model.logits, texts))}
