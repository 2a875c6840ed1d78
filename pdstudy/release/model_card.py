"""The model card of an exported student, in the hub's format: the facts of its export.json in words, and nothing else.

Language and licence are the user's to fill in. No text of a data set is among the facts, so none can be on the card;
names, which somebody chose, are escaped.
"""

import json
from typing import Any

import yaml

from pdstudy.escape import in_markdown, visible

STAGES = {"pretrain": "pre-trained on D_LM", "distill": "distilled on D_T, from the teacher's soft labels"}
STAGES |= {"finetune": "fine-tuned on D_L, from the labels", "given": "taken from a folder, as it was"}
STAGES |= {"adopt": "begun from a released encoder that had read already"}
COUNTS = {"read": "read", "empty": "empty", "exact": "repeated", "normalised": "repeated but for case and marks"}
COUNTS |= {"contradictory": "under two labels", "leaks": "leaks of dev or test", "known": "stand in train", "kept": "kept"}
CORRELATIONS = {"pearson": "pearsonr", "spearman": "spearmanr"}  # of a task whose labels are scores; as the hub calls them
TO_FILL_IN = "# language: fill in, such as en\n# license: fill in, such as apache-2.0; the texts' own licences bear on it\n"


def card(facts: dict[str, Any]) -> str:
    """Return the card of an export, given the facts that `export.export` writes."""
    parts = (
        _front_matter(facts),
        f"# {in_markdown(facts['student'])}: a compact BERT for {in_markdown(facts['task'])}",
        _what(facts),
        _loading(facts),
        f"## How good it is\n\n{_quality(facts)}",
        f"## How fast it is\n\n{_speed(facts)}",
        f"## What became of the texts\n\n{_texts(facts['texts'])}",
        f"## How it was made\n\n{_made(facts)}",
        f"## Limits\n\n{_limits(facts)}",
    )
    return visible("\n\n".join(parts) + "\n")


def _front_matter(facts: dict[str, Any]) -> str:
    """Return what the hub reads: kind of model and its metrics."""
    test, kinds = facts["test"], {"accuracy": "accuracy", "f1": "f1", "mcc": "matthews_correlation"} | CORRELATIONS
    kinds = {key: kind for key, kind in kinds.items() if key in test}
    metrics = [{"type": kind, "name": key, "value": round(test[key], 4)} for key, kind in kinds.items()]
    result = {"task": {"type": "text-classification"}, "dataset": {"name": facts["task"], "type": facts["task"], "split": "test"}}
    fields = {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["bert", "compact", "pdstudy"],
        "metrics": list(kinds.values()),
        "model-index": [{"name": f"{facts['study']}-{facts['student']}", "results": [result | {"metrics": metrics}]}],
    }
    return f"---\n{TO_FILL_IN}{yaml.safe_dump(fields, sort_keys=False)}---"


def _what(facts: dict[str, Any]) -> str:
    labels = ", ".join(f"{i} = {in_markdown(label)}" for i, label in enumerate(facts["labels"]))
    weights = facts["files"]["model.safetensors"]["bytes"]
    said = (
        f"A BERT classifier of size {in_markdown(facts['size'])} (layers/width), {facts['n_params']:,} parameters, {weights / 1e6:.1f} MB "
        f"of safetensors. Its recipe is {in_markdown(facts['recipe'])}: {in_markdown(facts['meaning'])}. "
        f"It gives a text one of {len(facts['labels'])} labels ({labels}) and reads at most {facts['max_length']} word pieces of it."
        + (" A text here is a pair: give both to the tokenizer." if facts["pairs"] else "")
    )
    collapsed = "\n\n**It collapsed in training: on dev it is no better than the majority class. Do not use it.**"
    return said + (collapsed if facts["collapsed"] else "")


def _loading(facts: dict[str, Any]) -> str:
    """Return the five lines that open it, to be run in its folder."""
    asked = '"one text", "the other"' if facts["pairs"] else '"a text to be labelled"'
    return f"""In its folder:

```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForSequenceClassification.from_pretrained(".")
logits = model(**tokenizer({asked}, truncation=True, return_tensors="pt")).logits
print(model.config.id2label[logits.argmax().item()])
```

With `pdstudy`, a whole file at once: `python -m pdstudy predict FOLDER texts.csv --text COLUMN{" --text COLUMN" if facts["pairs"] else ""}`."""


def _quality(facts: dict[str, Any]) -> str:
    test, study, teacher = facts["test"], facts["study_test"], facts["teacher"]
    of = f"of {in_markdown(facts['labels'][1])}" if len(facts["labels"]) == 2 else "mean over the labels"
    rows = [
        f"| accuracy | {test['accuracy']:.1%} | {test['low']:.1%} to {test['high']:.1%} |",
        f"| F1, {of} | {test['f1']:.3f} | |",
        f"| Matthews' r | {test['mcc']:.3f} | |",
        *(f"| {key.capitalize()}'s r of the expected score | {test[key]:.3f} | |" for key in CORRELATIONS if key in test),
        f"| majority class, accuracy | {test['majority']:.1%} | |",
    ]
    if teacher:
        rows.append(f"| same answer as the teacher | {teacher['agreement']:.1%} | {teacher['low']:.1%} to {teacher['high']:.1%} |")
        rows.append(f"| the teacher ({in_markdown(teacher['size'])}), accuracy | {teacher['accuracy']:.1%} | |")
    return "\n".join(
        [
            f"On the {test['n']:,} test texts of {in_markdown(facts['task'])}, asked of these very files with transformers, in 32 bits:",
            "",
            "| | | 95 % interval |",
            "|---|---|---|",
            *rows,
            "",
            f"The study measured {study['accuracy']:.1%} in {study['precision']}; {study['same_answers']:.2%} of the answers are the same. "
            "The intervals (Wilson's) are over texts like these. They do not cover the luck of the seed: this is one student, seed "
            f"{facts['seed']}.",
        ]
    )


def _speed(facts: dict[str, Any]) -> str:
    first = facts["engines"][0]["latency"]
    machine, (fewest, median, most) = facts["exported"]["machine"], first["lengths"]
    fixed = [f"{at['length']} pieces" for at in first["fixed"]]
    lines = [
        f"Measured where it was exported: {in_markdown(machine['processor'])}, {first['threads']} of {machine['cores']} cores "
        f"(load {first['load']:.1f} as it began), after warming up: "
        f"each of {first['n']} test texts ({fewest} to {most} pieces, median {median}) alone, its median of {first['rounds']} rounds, "
        f"and {first['fixed'][0]['n']} texts of stated lengths. Throughput is at {first['batch']} texts of similar length at once; "
        "memory is all that a fresh Python held at most.",
        "",
        f"| engine | file | MB | ms a text: p50 | p95 | {' | '.join(f'{at}: p50' for at in fixed)} | texts a second | memory, MB | accuracy "
        "| same answers |",
        "|---" * (9 + len(fixed)) + "|",
    ]
    for row in facts["engines"]:
        of = row["latency"]
        stated = " | ".join(f"{at['p50']:.2f}" for at in of["fixed"])
        lines.append(
            f"| {row['engine']} | `{row['file']}` | {row['bytes'] / 1e6:.1f} | {of['p50']:.2f} | {of['p95']:.2f} "
            f"| {stated} | {of['throughput']:,.0f} | {of['memory']:,.0f} "
            f"| {row['accuracy']:.1%} | {row['same_answers']:.1%} |"
        )
    onnx = {row["precision"]: row for row in facts["engines"] if "opset" in row}
    if onnx:
        change = (onnx["int8"]["accuracy"] - facts["engines"][0]["accuracy"]) * 100
        lines += [
            "",
            f"ONNX opset {onnx['fp32']['opset']}, inputs `input_ids`, `attention_mask`, `token_type_ids`, batch and length free. On the test "
            f"texts the 32-bit file's logits differ from torch's by {onnx['fp32']['largest_difference']:.1g} at most; 8-bit weights (dynamic "
            f"quantisation) change accuracy by {change:+.2f} points.",
        ]
    return "\n".join(lines)


def _texts(counts: dict[str, dict[str, int]]) -> str:
    shown = [key for key in COUNTS if any(key in count for count in counts.values())]
    return "\n".join(
        [
            "D_L is the labelled text, cut into train, dev and test; D_T the transfer text, D_LM the text that was read. Nothing that stands in",
            "dev or test is learned from.",
            "",
            f"| | {' | '.join(COUNTS[key] for key in shown)} |",
            "|---" * (len(shown) + 1) + "|",
            *(
                f"| {in_markdown(name)} | {' | '.join(f'{count[key]:,}' if key in count else '' for key in shown)} |"
                for name, count in counts.items()
                if any(key in count for key in shown)
            ),
        ]
    )


def _made(facts: dict[str, Any]) -> str:
    lines = []
    for i, stage in enumerate(facts["stages"], 1):
        read = f", {stage['tokens']:,} pieces in {stage['steps']:,} steps" if stage["tokens"] else ""
        searched = f" Rates tried on dev: {', '.join(f'{rate:g}' for rate in stage['searched'])}." if stage["searched"] else ""
        lines.append(f"{i}. {STAGES[stage['stage']]}{read}.{searched} {_code(json.dumps(stage['settings'], sort_keys=True))}")
    here = facts["exported"]
    versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
    return "\n".join(
        [
            *lines,
            "",
            f"- The study: {in_markdown(facts['trained'])}",
            f"- The export: {_code(here['command'])} · commit {here['commit']} · {here['date']} · {versions}",
            f"- The student's artifact in the study's store: {_code(facts['digest'])}. All numbers here are those of `export.json`.",
        ]
    )


def _limits(facts: dict[str, Any]) -> str:
    test = facts["test"]
    lines = [
        f"It was measured on texts like those it learned from, {test['n']:,} of them. On other texts it may be worse, and it gives every "
        "text one of its labels, also one that deserves none.",
        f"Of a text it reads {facts['max_length']} word pieces and no more: {facts['cut_short']:,} of the {test['n']:,} test texts were cut.",
        "Its probabilities are a softmax over logits that nobody calibrated.",
        "It carries whatever its texts carry, and what it learned from a teacher carries the teacher's errors.",
    ]
    if facts["without_tags"]:
        lines.append("HTML tags were removed from the texts that it learned from; remove them before asking it.")
    return "\n".join(f"- {line}" for line in lines)


def _code(text: str) -> str:
    """Return text as code, which it cannot leave: in code, nothing but a back-tick acts."""
    return f"`{text.replace('`', chr(39))}`"
