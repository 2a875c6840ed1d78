"""What it costs to be wrong: the cost of each true class taken for each other class, and what a model's mistakes on test cost."""

import contextlib
import csv
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from pdstudy.advice.candidates import AdviceError, Candidates
from pdstudy.advice.choice import best_student
from pdstudy.advice.recommendation import export_name
from pdstudy.analysis import stats
from pdstudy.recipes import LINEAR, TEACHER
from pdstudy.storage import results

PER = 1000  # texts
Costs = Mapping[str, Mapping[str, float]]  # by true class, then by answer


class CostsError(ValueError):
    """Raised for costs that cannot be used; the message says what to change."""

    bad_input = True


def read(path: Path) -> dict[str, dict[str, float]]:
    """Return the costs of a file, by true class and then by answer.

    A CSV has the answers as its header, after a first cell of any name, and a row for each true class. YAML has a mapping of answers to
    costs for each true class. Raises CostsError.
    """
    path = Path(path)
    if path.suffix.lower() not in (".csv", ".yaml", ".yml"):
        raise CostsError(f"{path}: costs are read from .csv, .yaml or .yml")
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = _csv_rows(path, text) if path.suffix.lower() == ".csv" else yaml.load(text, yaml.BaseLoader)  # noqa: S506 - makes strings only, so a class may be called yes
    except UnicodeDecodeError:
        raise CostsError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise CostsError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise CostsError(f"{path}: not YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(rows, dict) or not rows or not all(isinstance(row, dict) for row in rows.values()):
        raise CostsError(f"{path}: expected the costs of each answer for each true class, such as negative: {{positive: 5}}")
    return {true: {answer: _number(path, true, answer, cell) for answer, cell in row.items()} for true, row in rows.items()}


def _csv_rows(path: Path, text: str) -> dict[str, dict[str, str]]:
    header, *rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if any(row)] or [[]]
    for names in (header[1:], [row[0] for row in rows]):
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise CostsError(f"{path}: the class {repeated!r} occurs twice")
    for row in rows:
        if len(row) != len(header):
            raise CostsError(f"{path}: the row of {row[0]!r} has {len(row)} cells, the header {len(header)}")
    return {row[0]: {name: cell for name, cell in zip(header[1:], row[1:], strict=True) if cell} for row in rows}


def _number(path: Path, true: str, answer: str, cell: object) -> float:
    text = cell if isinstance(cell, str) else "a list or mapping"  # not written out: aliases of YAML can multiply it
    try:
        cost = float(text)
    except ValueError:
        cost = math.nan
    if not 0 <= cost < math.inf:
        raise CostsError(f"{path}: {true} taken for {answer} costs {text[:40]!r}; write a number, 0 or more")
    return cost


def matrix(costs: Costs | None, labels: list[str]) -> np.ndarray:
    """Return the costs as (true class, answer) in the order of `labels`; None: every mistake costs 1.

    Right answers cost nothing unless stated. Raises CostsError for a class that is unknown, and for a mistake without a cost.
    """
    if costs is None:
        return 1.0 - np.eye(len(labels))
    named = [*costs, *(answer for row in costs.values() for answer in row)]
    if unknown := next((name for name in named if name not in labels), None):
        raise CostsError(f"costs: {unknown!r} is no class of this task; its classes are {', '.join(labels)[:400]}")
    values = np.zeros((len(labels),) * 2)
    for i, true in enumerate(labels):
        for j, answer in enumerate(labels):
            cost = costs.get(true, {}).get(answer, 0.0 if i == j else None)
            if cost is None:
                raise CostsError(f"costs: {true!r} taken for {answer!r} has no cost; write a number, 0 if it costs nothing")
            values[i, j] = cost
    return values


def compared(candidates: Candidates, chosen: pd.Series) -> dict[str, pd.Series]:
    """Return the recommended model, the best student, the linear model and the teacher by their names for `export`, each once."""
    rows = [chosen]
    with contextlib.suppress(AdviceError):  # only a linear model is within the limits
        rows.append(best_student(candidates))
    rows += [row for recipe in (LINEAR, TEACHER.name) for _, row in candidates.table[candidates.table.recipe == recipe].iterrows()]
    return {TEACHER.name if row.recipe == TEACHER.name else export_name(row): row for row in rows}


def confusion(candidates: Candidates, row: pd.Series) -> np.ndarray:
    """Return the counts of test texts by (true class, answer) of a model: of a student, its best seed."""
    digest = candidates.models.loc[(row.recipe, row["size"], row.best_seed)].digest
    answers = candidates.by_digest[digest]
    test = answers[answers.split == "test"]
    n = len(results.load_classes(candidates.study)["labels"])
    return np.bincount(n * test.label + test.predicted, minlength=n * n).reshape(n, n)


def table(candidates: Candidates, chosen: pd.Series, costs: Costs | str | Path | None = None) -> pd.DataFrame:
    """Return what 1,000 new texts would cost by each model of `compared`, with the 95 % interval over the texts of test.

    `costs` may be the path of a file. Raises CostsError.
    """
    costs = read(Path(costs)) if isinstance(costs, str | Path) else costs
    values, rows = matrix(costs, results.load_classes(candidates.study)["labels"]), {}
    for name, row in compared(candidates, chosen).items():
        counts = confusion(candidates, row)
        effect = stats.mean_interval(np.repeat(values.ravel(), counts.ravel())).scaled(PER)
        interval = f"{max(0.0, effect.low):,.0f} to {effect.high:,.0f}" if effect.known else "not known"
        wrong = counts.sum() - counts.trace()
        rows[f"{name} (recommended)" if not rows else name] = {
            f"cost of {PER:,} texts": f"{effect.estimate:,.0f}",
            "95 % interval": interval,
            f"mistakes in {PER:,} texts": f"{PER * wrong / counts.sum():,.0f}",
        }
    return pd.DataFrame(rows).T
