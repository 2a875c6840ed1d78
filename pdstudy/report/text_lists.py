"""From a number to its texts: a confusion table whose cells list their texts, and the texts on which models differ."""

import html

import numpy as np
import pandas as pd
from IPython.display import HTML
from scipy.special import softmax

from pdstudy.escape import escape_control
from pdstudy.recipes import LINEAR, LINEAR_NAMES, TEACHER
from pdstudy.report import tables
from pdstudy.report.explore import OWN, Explorer

MOST_TEXTS = 1000  # in a table, so that a page stays small
MOST_CLASSES = 12  # of a confusion table; with more, the most frequent mistakes are listed


def beside(explorer: Explorer, model: str) -> list[str]:
    """Return a model and those to compare it with: the teacher, the linear model, and the most accurate other student, if there are any."""
    _find(explorer, model)
    others = [name for name in (TEACHER.name, LINEAR_NAMES[LINEAR]) if name in explorer.models]
    own = model.rsplit("-s", 1)[0]  # without the seed
    students = [
        name for name in explorer.models if name not in (TEACHER.name, *LINEAR_NAMES.values()) and name.rsplit("-s", 1)[0] != own
    ]
    best = max(students, key=lambda name: _accuracy(explorer, name), default=None)
    return list(dict.fromkeys([model, *others, *([best] if best else [])]))


def table(explorer: Explorer, models: list[str]) -> pd.DataFrame:
    """Return every test text with its label and the answer of each model, and the probability p of the first model's answer."""
    answers = [_find(explorer, name) for name in models]
    labels, p = np.array(explorer.labels), softmax(np.stack(answers[0].logits.to_numpy()), axis=1).max(axis=1)
    columns = {"text": explorer.texts, "label": labels[answers[0].label], models[0]: labels[answers[0].predicted], "p": p}
    return pd.DataFrame(columns | {name: labels[a.predicted] for name, a in zip(models[1:], answers[1:], strict=True)})


def texts(explorer: Explorer, model: str, domain: str = OWN) -> HTML:
    """Return a model's confusion table and its test texts: a cell lists its texts, and a list those on which two models differ.

    At most 1,000 texts are listed: first the model's mistakes, the most confident first, then those on which models differ. Raises
    ValueError for an unknown model. `domain` is the text that the students were distilled on.
    """
    if domain != OWN:
        explorer = explorer.on(domain)
    models = beside(explorer, model)
    rows = table(explorer, models)
    right = rows.label == rows[model]
    differ = {name: rows[name] != rows[model] for name in models[1:]}
    any_differs = np.logical_or.reduce([np.zeros(len(rows), bool), *differ.values()])
    order = np.lexsort((-rows.p, ~any_differs, right))[:MOST_TEXTS]
    numbers = {label: i for i, label in enumerate(explorer.labels)}
    names = [
        " ".join([
            f"cell-{numbers[rows.label[i]]}-{numbers[rows[model][i]]}",
            *(["wrong"] if not right[i] else []),
            *(f"differ-{k}" for k, (_, is_other) in enumerate(differ.items()) if is_other[i]),
        ])
        for i in order
    ]  # fmt: skip
    choices = {"": f"all {len(rows):,}", "wrong": f"mistakes of {model}: {(~right).sum():,}"}
    choices |= {f"differ-{k}": f"{model} and {name} differ: {n.sum():,}" for k, (name, n) in enumerate(differ.items())}
    listed = rows.loc[order].assign(p=[f"{p:.0%}" for p in rows.p[order]])
    note = "" if len(order) == len(rows) else f"<p>{len(order):,} of {len(rows):,} texts are listed, mistakes first.</p>"
    return tables.interactive(listed, _confusion(rows, model, explorer.labels) + _list(choices) + note, names)


def _confusion(rows: pd.DataFrame, model: str, labels: list[str]) -> str:
    """Return the confusion table as HTML, each cell with the name of its texts; with many classes the most frequent mistakes."""
    counts = rows.groupby(["label", model]).size()
    cells = {(i, j): int(counts.get((a, b), 0)) for i, a in enumerate(labels) for j, b in enumerate(labels)}

    def cell(i: int, j: int) -> str:
        says = _escaped(f"{cells[i, j]:,} texts: {labels[i]}, answered {labels[j]}")
        return f'<td data-rows="cell-{i}-{j}" data-says="{says}">{cells[i, j]:,}</td>' if cells[i, j] else "<td>0</td>"

    if len(labels) <= MOST_CLASSES:
        head = "".join(f'<th scope="col">{_escaped(label)}</th>' for label in ["true class", *labels])
        body = [
            f'<th scope="row">{_escaped(a)}</th>{"".join(cell(i, j) for j in range(len(labels)))}' for i, a in enumerate(labels)
        ]
        caption = f"Answers of {model} on test"
    else:
        head = '<th scope="col">true class</th><th scope="col">answer</th><th scope="col">texts</th>'
        mistakes = sorted((place for place in cells if place[0] != place[1]), key=lambda place: -cells[place])[:MOST_CLASSES]
        body = [f'<th scope="row">{_escaped(labels[i])}</th><td>{_escaped(labels[j])}</td>{cell(i, j)}' for i, j in mistakes]
        caption = f"The most frequent mistakes of {model} on test"
    lines = "".join(f"<tr>{line}</tr>" for line in body)
    return (
        f'<table class="confusion {tables.IGNORED}"><caption>{_escaped(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
    )


def _list(choices: dict[str, str]) -> str:
    options = "".join(f'<option value="{value}">{_escaped(words)}</option>' for value, words in choices.items())
    cell = '<option value="cell" hidden>those of one cell</option>'
    return f'<p><label hidden>Texts <select class="choose">{options}{cell}</select></label></p>'


def _find(explorer: Explorer, model: str) -> pd.DataFrame:
    if model not in explorer.models:
        raise ValueError(f"no {model} in this study; choose from {', '.join(explorer.models)[:400]}")
    return explorer.models[model]


def _accuracy(explorer: Explorer, model: str) -> float:
    answers = explorer.models[model]
    return float((answers.label == answers.predicted).mean())


def _escaped(text: str) -> str:
    return html.escape(escape_control(text))
