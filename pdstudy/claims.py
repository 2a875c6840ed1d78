"""Claims and their verdicts: what the paper says, as data, held against what was measured.

A claim compares two recipes on the same test texts with students of the same seed. Its verdict is one of
three words, and "undecided" is a respectable one: supported (the interval lies on the claim's side, after
Holm's correction over the family), refuted (on the other side), undecided. What was not run is "not measured".
"""

import html
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pdstudy import paper, results, stats
from pdstudy.disk import whole
from pdstudy.stats import LEVEL, Effect

SUPPORTED, REFUTED, UNDECIDED, NOT_MEASURED = "supported", "refuted", "undecided", "not measured"
FLAT_MARGIN = 1.0  # points: the range over which the paper's Basic moves across all sizes


@dataclass(frozen=True)
class Claim:
    """One statement of the paper in testable form: recipe `better` is above recipe `worse`."""

    id: str
    sentence: str
    better: str
    worse: str
    question: str = "pretraining_value"

    @property
    def paper(self) -> paper.Number:
        """Return the paper's magnitude in points, with its source and trust."""
        return paper.sst2_gain(self.better, self.worse)


@dataclass(frozen=True)
class FlatClaim:
    """The statement that a recipe is flat over size: the largest against the smallest of the study."""

    id: str
    sentence: str
    recipe: str
    question: str = "pretraining_value"

    @property
    def paper(self) -> paper.Number:
        """Return the paper's gain from the smallest to the largest of its sizes, in points."""
        table = paper.sst2()
        values = table[table.recipe == self.recipe].set_index("size").value
        return paper.Number(
            round(float(values["12/768"] - values["2/128"]), 1), "Fig 6, SST-2, 12/768 minus 2/128", paper.SST2_TRUST
        )


CLAIMS = (
    Claim("V1", "Pre-training helps a student that is then fine-tuned", "PF", "Basic"),
    Claim("V2", "Pre-training helps a student that is then distilled", "PD", "Distillation"),
    Claim("R1a", "Pre-trained distillation beats pre-training with fine-tuning", "PD", "PF"),
    Claim("R1b", "Pre-training with fine-tuning beats distillation from a random start", "PF", "Distillation"),
    Claim("R1c", "Distillation from a random start beats basic training", "Distillation", "Basic"),
    FlatClaim("R2", "Basic training is flat over size", "Basic"),
)


class Prose(str):
    """Generated words that a notebook shows as a paragraph, escaped."""

    def _repr_html_(self) -> str:
        return f'<p class="answer">{html.escape(self)}</p>'


class Evidence:
    """A study's answers, ready to be compared: which model was right on which test text."""

    def __init__(self, study: str | Path):
        self.metrics = results.load_results(study)
        predictions = results.load_predictions(study)
        test = predictions[predictions.split == "test"]
        right = (test.label == test.predicted).astype(float)
        self._right = {d: right[index].to_numpy() for d, index in test.groupby("digest", observed=True).groups.items()}
        students = self.metrics[(self.metrics.split == "test") & (self.metrics.metric == "accuracy")]
        self.students = students[~students.recipe.isin(["start", "majority"])]
        record = json.loads((results.folder_of(study) / results.PARAMS).read_text())
        self.sizes, self.seeds = list(record["sizes"]), list(record["seeds"])

    def right(self, recipe: str, size: str) -> np.ndarray:
        """Return right (1) and wrong (0) answers, (n_seeds, n_items). Raises KeyError naming the first missing student."""
        rows = self.students[(self.students.recipe == recipe) & (self.students["size"] == size)].set_index("seed").digest
        missing = [seed for seed in self.seeds if seed not in rows.index]
        if missing:
            raise KeyError(f"{recipe} {size} seed {missing[0]}")
        return np.stack([self._right[rows[seed]] for seed in self.seeds])

    def gain(self, better: str, worse: str, sizes: list[str] | None = None) -> Effect:
        """Return the paired gain of one recipe over another in points, averaged over sizes. Raises KeyError."""
        d = np.mean([self.right(better, s) - self.right(worse, s) for s in sizes or self.sizes], axis=0)
        return stats.crossed_effect(d).scaled(100)

    def growth(self, recipe: str) -> Effect:
        """Return the paired gain in points from the study's smallest size to its largest, for one recipe."""
        rows = self.students[self.students["size"].isin(self.sizes)]
        by_params = rows.groupby("size").n_params.first().sort_values().index
        if len(by_params) < 2:
            raise KeyError("a second size")
        return stats.crossed_effect(self.right(recipe, by_params[-1]) - self.right(recipe, by_params[0])).scaled(100)


def judge(study: str | Path, claims: tuple = CLAIMS) -> pd.DataFrame:
    """Return one row a claim: estimate, interval, n, verdict, the paper's number, and the sentence made from them."""
    evidence = Evidence(study)
    rows = [_measure(claim, evidence) for claim in claims]
    for row, adjusted in zip(rows, stats.holm([r["p"] for r in rows]), strict=True):
        row["p_holm"] = adjusted
        row["verdict"] = row.get("verdict") or _verdict(row)
        row["reading"] = _sentence(row)
    return pd.DataFrame(rows)


def save(table: pd.DataFrame, study: str) -> Path:
    """Return the path of claims.json after writing the table there."""
    path = results.folder_of(study) / "claims.json"
    rows = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in r.items()} for r in table.to_dict("records")]
    with whole(path) as new:
        new.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def load(study: str | Path) -> pd.DataFrame:
    """Return the saved verdicts of a study, as `judge` made them."""
    rows = json.loads((results.folder_of(study) / "claims.json").read_text())
    return pd.DataFrame([{k: math.nan if v is None else v for k, v in row.items()} for row in rows])


def gains_by_size(study: str | Path, pairs: list[tuple[str, str]]) -> pd.DataFrame:
    """Return the gain of each (better, worse) pair at each size: size, pair, estimate, low, high, n_seeds, n_items."""
    evidence = Evidence(study)
    rows = []
    for better, worse in pairs:
        for size in evidence.sizes:
            try:
                e = evidence.gain(better, worse, [size])
            except KeyError:
                continue  # a gap is drawn as a gap
            found = {"estimate": e.estimate, "low": e.low, "high": e.high, "n_seeds": e.n_seeds, "n_items": e.n_items}
            rows.append({"pair": f"{better} over {worse}", "size": size} | found)
    return pd.DataFrame(rows)


def answer(table: pd.DataFrame, question: str = "pretraining_value") -> Prose:
    """Return the answer to a research question in words, made from its claims' rows."""
    rows = table[table.question == question]
    parts = [f"{row.reading}." for row in rows.itertuples()]
    counts = rows.verdict.value_counts()
    tally = ", ".join(f"{counts[v]} {v}" for v in (SUPPORTED, REFUTED, UNDECIDED, NOT_MEASURED) if v in counts)
    return Prose(" ".join([f"Of {len(rows)} claims: {tally}.", *parts]))


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """Return the claims as people read them: ours with interval and n, the verdict, the paper's number and its trust."""
    interval = [f"{r.low:+.1f} to {r.high:+.1f}" if math.isfinite(r.low) else "n/a" for r in table.itertuples()]
    columns = {
        "claim": table.claim,
        "points": [f"{v:+.1f}" if math.isfinite(v) else "missing" for v in table.estimate],
        "95 % interval": interval,
        "n": [f"{r.n_sizes} sizes x {r.n_seeds} seeds x {r.n_items:,} texts" for r in table.itertuples()],
        "p (Holm)": [f"{p:.3f}" if math.isfinite(p) else "n/a" for p in table.p_holm],
        "verdict": table.verdict,
        "paper": [f"{v:+.1f}" for v in table.paper],
        "trust": table.paper_trust,
    }
    return pd.DataFrame(columns).set_axis(table.id, axis=0).rename_axis(None)


def headline(table: pd.DataFrame, id: str) -> str:
    """Return a figure's title for one claim: the finding, not the topic."""
    row = table.set_index("id").loc[id]
    words = {SUPPORTED: "yes", REFUTED: "no, the opposite", UNDECIDED: "undecided", NOT_MEASURED: "not measured"}
    effect = "" if row.verdict == NOT_MEASURED else f", {row.estimate:+.1f} points"
    return f"{row.claim}: {words[row.verdict]}{effect}"


def _measure(claim, evidence: Evidence) -> dict[str, Any]:
    known = claim.paper
    row = {"id": claim.id, "claim": claim.sentence, "question": claim.question, "flat": isinstance(claim, FlatClaim)}
    row["compared"] = f"{claim.recipe}: largest over smallest" if row["flat"] else f"{claim.better} over {claim.worse}"
    row |= {"paper": known.value, "paper_where": known.where, "paper_trust": known.trust}
    try:
        effect = evidence.growth(claim.recipe) if row["flat"] else evidence.gain(claim.better, claim.worse)
    except KeyError as missing:
        gap = dict.fromkeys(("estimate", "low", "high", "p"), math.nan)
        return row | gap | {"n_seeds": 0, "n_items": 0, "n_sizes": 0, "verdict": NOT_MEASURED, "missing": missing.args[0]}
    row |= {"estimate": effect.estimate, "low": effect.low, "high": effect.high, "p": effect.p}
    return row | {"n_seeds": effect.n_seeds, "n_items": effect.n_items, "n_sizes": len(evidence.sizes), "missing": ""}


def _verdict(row: dict) -> str:
    if not math.isfinite(row["low"]):
        return UNDECIDED
    certain = row["p_holm"] < 1 - LEVEL
    if row["flat"]:  # equivalence: the whole interval within the margin
        if row["low"] > -FLAT_MARGIN and row["high"] < FLAT_MARGIN:
            return SUPPORTED
        return REFUTED if certain else UNDECIDED
    if not certain:
        return UNDECIDED
    return SUPPORTED if row["low"] > 0 else REFUTED


def _sentence(row: dict) -> str:
    if row["verdict"] == NOT_MEASURED:
        return f"{row['claim']}: not measured ({row['missing']} is missing)"
    why = "no interval from one seed" if row["n_seeds"] < 2 else "no interval: no answer differs"
    interval = f"95 % {row['low']:+.1f} to {row['high']:+.1f}" if math.isfinite(row["low"]) else why
    n = f"{row['n_seeds']} seed{'s' * (row['n_seeds'] != 1)} x {row['n_items']:,} texts"
    return f"{row['claim']}: {row['verdict']}, {row['estimate']:+.1f} points ({interval}; {n}; the paper {row['paper']:+.1f})"
