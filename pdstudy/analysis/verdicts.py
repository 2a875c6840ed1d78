"""Verdicts on the claims of the paper.

A claim is a contrast of students with the same test texts and seeds (contrasts.py). Its verdict is "supported" (the interval is
on the claim's side, after Holm's correction over the claims of its question), "refuted" (on the other side), "undecided", or
"not measured" if the study lacks a student.
"""

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from pdstudy.analysis import contrasts, evidence, stats
from pdstudy.analysis.claims import ABOVE, CLAIMS, EQUAL, MARGIN, NOT_BELOW, Check, Claim
from pdstudy.analysis.evidence import Evidence, Missing
from pdstudy.analysis.paper import Number
from pdstudy.analysis.stats import LEVEL, POINTS
from pdstudy.escape import Note
from pdstudy.storage import results
from pdstudy.storage.files import atomic_write

SUPPORTED, REFUTED, UNDECIDED, NOT_MEASURED = "supported", "refuted", "undecided", "not measured"


def judge(study: str | Path, claims: tuple = CLAIMS) -> pd.DataFrame:
    """Return one row per claim: estimate, interval, n, verdict, the paper's number, and a sentence made from them.

    Raises FileNotFoundError if the study has no results, or no answers to every text.
    """
    e = evidence.of_study(study)
    table = pd.DataFrame([_row(claim) | _measure(claim, e) for claim in claims])
    together = table.groupby(["question", "family"])
    table["p_holm"] = together.p.transform(lambda p: stats.holm(p.tolist()))
    table["p_zero_holm"] = together.p_zero.transform(lambda p: stats.holm(p.tolist()))
    table["verdict"] = [row["verdict"] or _verdict(row) for row in table.to_dict("records")]
    table["sentence"] = [_sentence(row) for row in table.to_dict("records")]
    return table


def of_study(study: str | Path) -> pd.DataFrame:
    """Return a study's verdicts: those in claims.json, judged again if the results or the claims have changed.

    Published evidence has no answers to every text, so its claims.json is returned as it is.
    """
    folder = results.folder_of(study)
    path = folder / results.CLAIMS
    if path.is_file():
        table = load(study)
        same_claims = table.id.tolist() == [claim.id for claim in CLAIMS]
        if not (folder / results.PREDICTIONS).is_file() or (same_claims and max(results.dates(study)) <= path.stat().st_mtime_ns):
            return table
    table = judge(study)
    save(table, study)
    return table


def save(table: pd.DataFrame, study: str | Path) -> Path:
    """Return the path of claims.json after writing the table there."""
    path = results.folder_of(study) / results.CLAIMS
    rows = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in r.items()} for r in table.to_dict("records")]
    with atomic_write(path) as new:
        new.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def load(study: str | Path) -> pd.DataFrame:
    """Return the saved verdicts of a study, as `judge` made them. The numbers are the file's, the wording is that of CLAIMS."""
    rows = json.loads((results.folder_of(study) / results.CLAIMS).read_text(encoding="utf-8"))
    wording = {claim.id: claim.sentence for claim in CLAIMS}
    for row in rows:
        row |= {k: math.nan for k, v in row.items() if v is None} | {"claim": wording.get(row["id"], row["claim"])}
        row.pop("reading", None)  # the sentence's name in older files
        row["sentence"] = _sentence(row)
    return pd.DataFrame(rows)


def gains_by_size(study: str | Path, pairs: list[tuple[str, str]], corpus: str | None = None) -> pd.DataFrame:
    """Return the gain of each (better, worse) pair at each size: pair, size, estimate, low, high, n_seeds, n_items.

    `corpus` is that of `contrasts.over`. Sizes that were not measured are left out.
    """
    e, rows = evidence.of_study(study), []
    for better, worse in pairs:
        for size in e.sizes_of(better, worse) if {better, worse} <= set(e.recipes) else ():
            with suppress(Missing):
                gain = contrasts.over(better, worse, [size], corpus)(e)
                rows.append({"pair": f"{better} over {worse}", "size": size} | e.row(gain))
    return pd.DataFrame(rows, columns=["pair", "size", "estimate", "low", "high", "n_seeds", "n_items"])


def tally(table: pd.DataFrame) -> str:
    """Return how many claims have each verdict, in words."""
    counts = table.verdict.value_counts()
    return f"{len(table)} claims: " + ", ".join(
        f"{counts[v]} {v}" for v in (SUPPORTED, REFUTED, UNDECIDED, NOT_MEASURED) if v in counts
    )


def missing(table: pd.DataFrame) -> Note:
    """Return what a study lacks for the claims that it did not measure, or that it measured all."""
    rows = table[table.verdict == NOT_MEASURED]
    if rows.empty:
        return Note("Every claim was measured.")
    listed = "; ".join(f"{', '.join(ids)}: {what}" for what, ids in rows.groupby("missing", sort=False).id.agg(list).items())
    return Note(f"Not measured, because this is missing: {listed}.")


def refuted_required(table: pd.DataFrame) -> list[str]:
    """Return the ids of required claims that are refuted."""
    return table[table.required & (table.verdict == REFUTED)].id.tolist()


def display_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the claims as a table for readers: points, interval, n, p, verdict, the paper's number and its precision."""
    columns = {
        "claim": table.claim,
        "points": [r.measured or (f"{r.estimate:+.1f}" if math.isfinite(r.estimate) else "missing") for r in table.itertuples()],
        "95 % interval": _intervals(table.low, table.high),
        "n": [
            f"{r.n_sizes} size{'s' * (r.n_sizes != 1)} x {r.n_seeds} seed{'s' * (r.n_seeds != 1)} x {r.n_items:,} texts"
            if r.n_seeds
            else ""
            for r in table.itertuples()
        ],
        "p (Holm)": [f"{p:.3f}" if math.isfinite(p) else "n/a" for p in table.p_holm],
        "verdict": table.verdict,
        "paper": [f"{v:+.1f}" if math.isfinite(v) else "" for v in table.paper],
        "trust": table.paper_trust,
    }
    return pd.DataFrame(columns).set_axis(table.id, axis=0).rename_axis(None)


def details(table: pd.DataFrame) -> pd.DataFrame:
    """Return more about each measured claim: the comparison, what supports it, the interval over texts and the p over seeds."""
    rows = table[table.n_seeds > 0]
    columns = {
        "compared": rows.compared,
        "supported if": rows.should_be,
        "interval over texts alone (BCa)": _intervals(rows.items_low, rows.items_high),
        "p over seeds alone (sign flips)": [f"{p:.3f}" if math.isfinite(p) else "n/a" for p in rows.p_seeds],
        "the paper's number": rows.paper_where,
    }
    return pd.DataFrame(columns).set_axis(rows.id, axis=0).rename_axis(None)


def _intervals(low: pd.Series, high: pd.Series) -> list[str]:
    return [f"{a:+.1f} to {b:+.1f}" if math.isfinite(a) else "n/a" for a, b in zip(low, high, strict=True)]


def headline(table: pd.DataFrame, id: str) -> str:
    """Return the title of a figure about one claim: the claim, its verdict and its effect."""
    row = table.set_index("id").loc[id]
    words = {SUPPORTED: "yes", REFUTED: "no, the opposite", UNDECIDED: "undecided", NOT_MEASURED: "not measured"}
    if row.should_be == EQUAL:
        words[REFUTED] = "no"
    effect = f", {row.estimate:+.1f} points" if math.isfinite(row.estimate) else ""
    return f"{row.claim}: {words[row.verdict]}{effect}"


def _row(claim: Claim | Check) -> dict[str, Any]:
    """Return a claim's row before it is measured."""
    number = claim.paper or Number(math.nan, "", "")
    row = {"id": claim.id, "claim": claim.sentence, "question": claim.question, "required": claim.required}
    row |= {"family": getattr(claim, "family", ""), "paper": number.value, "paper_where": number.where, "paper_trust": number.trust}
    row |= {"should_be": getattr(claim, "should_be", "true"), "compared": "", "measured": "", "missing": "", "verdict": ""}
    row |= dict.fromkeys(("estimate", "low", "high", "p", "p_zero", "p_seeds", "items_low", "items_high"), math.nan)
    return row | dict.fromkeys(("n_seeds", "n_items", "n_sizes"), 0)


def _measure(claim: Claim | Check, e: Evidence) -> dict[str, Any]:
    """Return the measured columns of a claim's row; the verdict only of a check, and of a claim that the study cannot answer."""
    try:
        if isinstance(claim, Check):
            is_true, summary = claim.check(e)
            return {"measured": summary, "verdict": SUPPORTED if is_true else REFUTED}
        contrast = claim.contrast(e)
        d = e.differences(contrast)
    except Missing as missing:
        return {"verdict": NOT_MEASURED, "missing": missing.args[0]}
    effect = stats.crossed_effect(d).scaled(POINTS)
    low, high = (bound * POINTS for bound in stats.over_items(d))
    p = {ABOVE: effect.p, EQUAL: stats.equivalence(effect, MARGIN), NOT_BELOW: stats.not_below(effect, MARGIN)}[claim.should_be]
    return {
        "compared": contrast.compared, "estimate": effect.estimate, "low": effect.low, "high": effect.high, "p": p,
        "p_zero": effect.p, "p_seeds": stats.sign_flip(d), "items_low": low, "items_high": high, "n_seeds": effect.n_seeds,
        "n_items": effect.n_items, "n_sizes": len(contrast.sizes),
    }  # fmt: skip


def _verdict(row: dict) -> str:
    """Return the verdict on a measured claim."""
    if not math.isfinite(row["low"]):
        return UNDECIDED
    sure, nonzero = row["p_holm"] < 1 - LEVEL, row["p_zero_holm"] < 1 - LEVEL
    if row["should_be"] == EQUAL:
        within = row["low"] > -MARGIN and row["high"] < MARGIN
        return SUPPORTED if sure and within else REFUTED if nonzero and not within else UNDECIDED
    if row["should_be"] == NOT_BELOW:
        return SUPPORTED if sure and row["low"] > -MARGIN else REFUTED if nonzero and row["high"] < 0 else UNDECIDED
    return (SUPPORTED if row["low"] > 0 else REFUTED) if sure else UNDECIDED


def _sentence(row: dict) -> str:
    """Return a claim with its verdict and what was measured."""
    if row["verdict"] == NOT_MEASURED:
        return f"{row['claim']}: not measured ({row['missing']} is missing)"
    if row["measured"]:
        return f"{row['claim']}: {row['verdict']}, {row['measured']}"
    no_interval = "no interval from one seed" if row["n_seeds"] < 2 else "no interval: no answer differs"
    interval = f"95 % {row['low']:+.1f} to {row['high']:+.1f}" if math.isfinite(row["low"]) else no_interval
    n = f"{row['n_seeds']} seed{'s' * (row['n_seeds'] != 1)} x {row['n_items']:,} texts"
    paper = f"; in the paper {row['paper']:+.1f}" if math.isfinite(row["paper"]) else ""
    return f"{row['claim']}: {row['verdict']}, {row['estimate']:+.1f} points ({interval}; {n}{paper})"
