"""Claims and their verdicts: what the paper says, as data, held against what was measured.

A claim is a contrast of students that answered the same test texts with the same seeds (contrasts.py). Its verdict is
one of three words, and "undecided" is a respectable one: supported (the interval lies on the claim's side, after Holm's
correction over the claims of its question), refuted (on the other side), undecided. What was not run is "not measured".
"""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from pdstudy.analysis import contrasts as ask
from pdstudy.analysis import stats
from pdstudy.analysis.claims import ABOVE, CLAIMS, EQUAL, MARGIN, NOT_BELOW, VALUE, Check, Claim
from pdstudy.analysis.evidence import Evidence, Missing
from pdstudy.analysis.paper import Number
from pdstudy.analysis.stats import LEVEL, POINTS
from pdstudy.escape import Prose
from pdstudy.storage import results
from pdstudy.storage.files import whole

CLAIMS_FILE = "claims.json"  # in a study's folder
SUPPORTED, REFUTED, UNDECIDED, NOT_MEASURED = "supported", "refuted", "undecided", "not measured"


def judge(study: str | Path, claims: tuple = CLAIMS) -> pd.DataFrame:
    """Return one row a claim: estimate, interval, n, verdict, the paper's number, and the sentence made from them."""
    e = Evidence(study)
    table = pd.DataFrame([_row(claim) | _measure(claim, e) for claim in claims])
    table["p_holm"] = table.groupby("question").p.transform(lambda p: stats.holm(p.tolist()))
    table["p_zero_holm"] = table.groupby("question").p_zero.transform(lambda p: stats.holm(p.tolist()))
    table["verdict"] = [row["verdict"] or _verdict(row) for row in table.to_dict("records")]
    table["reading"] = [_sentence(row) for row in table.to_dict("records")]
    return table


def of_study(study: str | Path) -> pd.DataFrame:
    """Return a study's verdicts: those saved in its folder, or, where a table there is newer, judged now and saved."""
    folder = results.folder_of(study)
    tables = [path for kind in ("*.parquet", "*.json") for path in folder.glob(kind) if path.name != CLAIMS_FILE]
    newest = max(path.stat().st_mtime_ns for path in tables)
    if (folder / CLAIMS_FILE).is_file() and (folder / CLAIMS_FILE).stat().st_mtime_ns > newest:
        return load(study)
    table = judge(study)
    save(table, study)
    return table


def save(table: pd.DataFrame, study: str | Path) -> Path:
    """Return the path of claims.json after writing the table there."""
    path = results.folder_of(study) / CLAIMS_FILE
    rows = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in r.items()} for r in table.to_dict("records")]
    with whole(path) as new:
        new.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def load(study: str | Path) -> pd.DataFrame:
    """Return the saved verdicts of a study, as `judge` made them."""
    rows = json.loads((results.folder_of(study) / CLAIMS_FILE).read_text())
    return pd.DataFrame([{k: math.nan if v is None else v for k, v in row.items()} for row in rows])


def gains_by_size(study: str | Path, pairs: list[tuple[str, str]], **where) -> pd.DataFrame:
    """Return the gain of each (better, worse) pair at each size: size, pair, estimate, low, high, n_seeds, n_items.

    `where`, such as corpus="transfer", as in `contrasts.over`.
    """
    e, rows = Evidence(study), []
    for better, worse in pairs:
        try:
            sizes = e.sizes_of(better, worse)
        except Missing:
            continue
        for size in sizes:
            try:
                found = e.effect(ask.over(better, worse, [size], **where)(e))
            except Missing:
                continue  # a gap is drawn as a gap
            kept = {k: getattr(found, k) for k in ("estimate", "low", "high", "n_seeds", "n_items")}
            rows.append({"pair": f"{better} over {worse}", "size": size} | kept)
    return pd.DataFrame(rows, columns=["pair", "size", "estimate", "low", "high", "n_seeds", "n_items"])


def answer(table: pd.DataFrame, question: str = VALUE) -> Prose:
    """Return the answer to a research question in words, made from its claims' rows: what is decided first."""
    rows = table[table.question == question]
    counts = rows.verdict.value_counts()
    tally = ", ".join(f"{counts[v]} {v}" for v in (SUPPORTED, REFUTED, UNDECIDED, NOT_MEASURED) if v in counts)
    said = [f"Of {len(rows)} claims: {tally}."]
    said += [f"{row.reading}." for verdict in (SUPPORTED, REFUTED, UNDECIDED) for row in rows[rows.verdict == verdict].itertuples()]
    if missing := [f"{row.id} ({row.missing})" for row in rows[rows.verdict == NOT_MEASURED].itertuples()]:
        said.append(f"Not measured, for want of: {', '.join(missing)}.")
    return Prose("\n".join(said))


def broken(table: pd.DataFrame) -> list[str]:
    """Return the ids of the required claims that are refuted."""
    return table[table.required & (table.verdict == REFUTED)].id.tolist()


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """Return the claims as people read them: ours with interval and n, the verdict, the paper's number and its trust."""
    interval = [f"{r.low:+.1f} to {r.high:+.1f}" if math.isfinite(r.low) else "n/a" for r in table.itertuples()]
    columns = {
        "claim": table.claim,
        "points": [r.measured or (f"{r.estimate:+.1f}" if math.isfinite(r.estimate) else "missing") for r in table.itertuples()],
        "95 % interval": interval,
        "n": [f"{r.n_sizes} sizes x {r.n_seeds} seeds x {r.n_items:,} texts" if r.n_seeds else "" for r in table.itertuples()],
        "p (Holm)": [f"{p:.3f}" if math.isfinite(p) else "n/a" for p in table.p_holm],
        "verdict": table.verdict,
        "paper": [f"{v:+.1f}" if math.isfinite(v) else "" for v in table.paper],
        "trust": table.paper_trust,
    }
    return pd.DataFrame(columns).set_axis(table.id, axis=0).rename_axis(None)


def details(table: pd.DataFrame) -> pd.DataFrame:
    """Return what else was computed of each claim: what was compared, what would support it, over texts alone, over seeds alone."""
    rows = table[table.n_seeds > 0]
    over_texts = [f"{r.items_low:+.1f} to {r.items_high:+.1f}" if math.isfinite(r.items_low) else "n/a" for r in rows.itertuples()]
    columns = {
        "compared": rows.compared,
        "supported where": rows.should_be,
        "interval over texts alone (BCa)": over_texts,
        "p over seeds alone (sign flips)": [f"{p:.3f}" if math.isfinite(p) else "n/a" for p in rows.p_seeds],
        "the paper's number": rows.paper_where,
    }
    return pd.DataFrame(columns).set_axis(rows.id, axis=0).rename_axis(None)


def headline(table: pd.DataFrame, id: str) -> str:
    """Return a figure's title for one claim: the finding, not the topic."""
    row = table.set_index("id").loc[id]
    words = {SUPPORTED: "yes", REFUTED: "no, the opposite", UNDECIDED: "undecided", NOT_MEASURED: "not measured"}
    if row.should_be == EQUAL:
        words[REFUTED] = "no"
    effect = f", {row.estimate:+.1f} points" if math.isfinite(row.estimate) else ""
    return f"{row.claim}: {words[row.verdict]}{effect}"


def _row(claim: Claim | Check) -> dict[str, Any]:
    known = claim.paper or Number(math.nan, "", "")
    row = {"id": claim.id, "claim": claim.sentence, "question": claim.question, "required": claim.required}
    row |= {"paper": known.value, "paper_where": known.where, "paper_trust": known.trust}
    row |= {"should_be": getattr(claim, "should_be", "true"), "compared": "", "measured": "", "missing": "", "verdict": ""}
    row |= dict.fromkeys(("estimate", "low", "high", "p", "p_zero", "p_seeds", "items_low", "items_high"), math.nan)
    return row | dict.fromkeys(("n_seeds", "n_items", "n_sizes"), 0)


def _measure(claim: Claim | Check, e: Evidence) -> dict[str, Any]:
    try:
        if isinstance(claim, Check):
            holds, words = claim.check(e)
            return {"measured": words, "verdict": SUPPORTED if holds else REFUTED}
        contrast = claim.ask(e)
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
    """Return the word for what was measured: certain of the claim, certain of its contrary, or neither."""
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
    if row["verdict"] == NOT_MEASURED:
        return f"{row['claim']}: not measured ({row['missing']} is missing)"
    if row["measured"]:
        return f"{row['claim']}: {row['verdict']}, {row['measured']}"
    why = "no interval from one seed" if row["n_seeds"] < 2 else "no interval: no answer differs"
    interval = f"95 % {row['low']:+.1f} to {row['high']:+.1f}" if math.isfinite(row["low"]) else why
    n = f"{row['n_seeds']} seed{'s' * (row['n_seeds'] != 1)} x {row['n_items']:,} texts"
    theirs = f"; the paper {row['paper']:+.1f}" if math.isfinite(row["paper"]) else ""
    return f"{row['claim']}: {row['verdict']}, {row['estimate']:+.1f} points ({interval}; {n}{theirs})"
