"""Model cards in the hub's format, and other pages of what is released, from the templates beside this module.

The facts of an export have no text of a data set. Names, which users choose, are escaped. Language and licence of a student
are left for the user to fill in.
"""

import json
from pathlib import Path
from typing import Any

import jinja2

from pdstudy.escape import escape_control, escape_markdown
from pdstudy.recipes import LINEAR_TAUGHT, LINEARS

TEMPLATES = Path(__file__).parent / "templates"
STAGES = {
    "pretrain": "pre-trained on D_LM",
    "distill": "distilled on D_T, from the teacher's soft labels",
    "finetune": "fine-tuned on D_L, from the labels",
    "given": "taken from a folder, unchanged",
    "adopt": "started from a released, pre-trained encoder",
}
COUNTS = {
    "read": "read",
    "empty": "empty",
    "exact": "repeated",
    "normalised": "repeated but for case and marks",
    "contradictory": "under two labels",
    "leaks": "leaks of dev or test",
    "known": "also in train",
    "kept": "kept",
}
CORRELATIONS = {"pearson": "pearsonr", "spearman": "spearmanr"}  # for labels that are scores, under the hub's names
METRICS = {"accuracy": "accuracy", "f1": "f1", "mcc": "matthews_correlation"} | CORRELATIONS


def card(facts: dict[str, Any]) -> str:
    """Return the card of an exported student or linear model as Markdown, from the facts that `export.export` writes."""
    facts = {"averaged_with": None} | facts | {"correlations": [key for key in CORRELATIONS if key in facts["test"]]}
    if facts["recipe"] in LINEARS:
        return render("linear_card", **facts, LINEAR_TAUGHT=LINEAR_TAUGHT)
    engines, texts = facts["engines"], facts["texts"]
    return render(
        "student_card",
        **facts,
        metadata=_metadata(facts).to_yaml(),
        stage_names=STAGES,
        counts={key: word for key, word in COUNTS.items() if any(key in count for count in texts.values())},
        settings=[json.dumps(stage["settings"], sort_keys=True) for stage in facts["stages"]],
        onnx={row["precision"]: row for row in engines if "opset" in row},
        latency=engines[0]["latency"],
    )


def render(template: str, **values: Any) -> str:
    """Return a template filled in with values, as Markdown without control characters."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - Markdown: names go through the filters
    )
    environment.filters |= {"md": escape_markdown, "code": _code}
    return escape_control(environment.get_template(f"{template}.md.j2").render(values))


def _metadata(facts: dict[str, Any]):
    """Return the metadata that the hub reads at the top of a card: the kind of model and its metrics."""
    from huggingface_hub import EvalResult, ModelCardData

    metrics = {key: kind for key, kind in METRICS.items() if key in facts["test"]}
    results = [
        EvalResult(
            task_type="text-classification",
            dataset_type=facts["task"],
            dataset_name=facts["task"],
            dataset_split="test",
            metric_type=kind,
            metric_name=key,
            metric_value=round(facts["test"][key], 4),
        )
        for key, kind in metrics.items()
    ]
    return ModelCardData(
        library_name="pdstudy" if facts["averaged_with"] else "transformers",
        pipeline_tag="text-classification",
        tags=["bert", "compact", "pdstudy"],
        metrics=list(metrics.values()),
        model_name=f"{facts['study']}-{facts['student']}",
        eval_results=results,
    )


def _code(text: str) -> str:
    """Return text as inline code: there only a back-tick has an effect, so back-ticks are replaced."""
    return f"`{text.replace('`', chr(39))}`"
