"""Claims and their verdicts: what the paper says, as data, held against what was measured.

A claim is a contrast of students that answered the same test texts with the same seeds (contrasts.py). Its verdict is
one of three words, and "undecided" is a respectable one: supported (the interval lies on the claim's side, after Holm's
correction over the claims of its question), refuted (on the other side), undecided. What was not run is "not measured".
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from pdstudy import contrasts as ask
from pdstudy import paper, stats
from pdstudy.escape import Prose
from pdstudy.evidence import POINTS, Evidence, Missing
from pdstudy.paper import Number
from pdstudy.sizes import PAPER_SIZES
from pdstudy.stats import LEVEL
from pdstudy.storage import results
from pdstudy.storage.files import whole

SUPPORTED, REFUTED, UNDECIDED, NOT_MEASURED = "supported", "refuted", "undecided", "not measured"
ABOVE, EQUAL, NOT_BELOW = "above zero", "within a point of zero", "not below zero by more than a point"
MARGIN = 1.0  # points: the range over which the paper's Basic moves across all sizes
PARAMETERS_WITHIN = 0.1  # millions, the rounding of the paper's table
SPEEDS_APART = 1.1  # sizes whose speeds differ by less in the paper's table have no order there
VALUE, DEPTH, COMPOUND, ROBUST = "pretraining_value", "depth_vs_width", "compound_effect", "domain_robustness"
QUESTIONS = {
    VALUE: "Does pre-training help a small student?",
    DEPTH: "Deep or wide, for the same size or the same speed?",
    COMPOUND: "Is it worth reading and distilling the same text?",
    ROBUST: "How much transfer text, and how near?",
}


@dataclass(frozen=True)
class Claim:
    """One statement of the paper in testable form: a contrast, and on which side of zero it should lie."""

    id: str
    sentence: str
    question: str
    ask: ask.Ask
    paper: Number | None  # its magnitude in points, where the paper shows one
    should_be: str = ABOVE
    required: bool = False  # the command `claims` fails where it is refuted


@dataclass(frozen=True)
class Check:
    """One statement that holds or does not, without luck: nothing was drawn, so there is no interval."""

    id: str
    sentence: str
    question: str
    check: Callable[[Evidence], tuple[bool, str]]  # whether it holds, and the measurement in words
    paper: Number | None = None
    required: bool = False


def parameter_counts(e: Evidence) -> tuple[bool, str]:
    """Return whether the 24 sizes have the paper's numbers of parameters."""
    table = paper.sizes().set_index("size").params
    off = max(abs(size.n_params() / 1e6 - table[str(size)]) for size in PAPER_SIZES)
    return off < PARAMETERS_WITHIN, f"largest difference over 24 sizes {off:.2f} M"


def speed_order(e: Evidence) -> tuple[bool, str]:
    """Return whether sizes that the paper's TPU told apart answer here in the same order, one text at a time."""
    speedup = paper.sizes().set_index("size").speedup
    shared = [s for s in e.sizes if s in e.latency and s in speedup.index]
    pairs = [(a, b) if speedup[a] > speedup[b] else (b, a) for a, b in combinations(shared, 2)]
    pairs = [(fast, slow) for fast, slow in pairs if speedup[fast] / speedup[slow] > SPEEDS_APART]
    if not pairs:
        raise Missing("latency of two sizes of the paper's table")
    wrong = [f"{slow} is faster than {fast}" for fast, slow in pairs if e.latency[fast] >= e.latency[slow]]
    agree = f"{len(pairs) - len(wrong)} of {len(pairs)} pairs of sizes in the order of the paper's TPU"
    return not wrong, agree + (f"; here {', '.join(wrong)}" if wrong else "")


def _sst2(*terms: tuple[float, str, str], where: str) -> Number:
    return paper.contrast(paper.sst2(), list(terms), f"{paper.SST2_SOURCE}, {where}")


def _matched(recipe: str) -> list[tuple[float, str, str]]:
    """Return the paper's own matched pairs, 6/512 over 2/768, as terms."""
    return [(1, recipe, "6/512"), (-1, recipe, "2/768")]


FIG5, FIG8, FIG9, FIG10 = "Fig 5, MNLI", "Fig 8, Book Reviews", "Fig 9, Book Reviews, 4/256", "Fig 10, MNLI"
TABLE3 = Number(1.6, "Table 3, six tasks, dev, 6/768", "printed")
_STARTS, _NEAR_FAR = paper.initialisations(), paper.domains()
CLAIMS = (
    Claim("V1", "Pre-training helps a student that is then fine-tuned", VALUE, ask.over("PF", "Basic"),
          paper.sst2_gain("PF", "Basic"), required=True),
    Claim("V2", "Pre-training helps a student that is then distilled", VALUE, ask.over("PD", "Distillation"),
          paper.sst2_gain("PD", "Distillation"), required=True),
    Claim("R1a", "Pre-trained distillation beats pre-training with fine-tuning", VALUE, ask.over("PD", "PF"),
          paper.sst2_gain("PD", "PF")),
    Claim("R1b", "Pre-training with fine-tuning beats distillation from a random start", VALUE, ask.over("PF", "Distillation"),
          paper.sst2_gain("PF", "Distillation")),
    Claim("R1c", "Distillation from a random start beats basic training", VALUE, ask.over("Distillation", "Basic"),
          paper.sst2_gain("Distillation", "Basic")),
    Claim("R2", "Basic training is flat over size", VALUE, ask.growth("Basic"),
          _sst2((1, "Basic", "12/768"), (-1, "Basic", "2/128"), where="12/768 minus 2/128"), EQUAL),
    Claim("R3a", "Full pre-training beats truncating a deeper model", VALUE, ask.over("PD", "PD (truncated)"),
          paper.gain(_STARTS[_STARTS["size"] != "12/768"], "PD", "PD (truncated)", FIG5)),
    Claim("R3b", "Its gain over truncation shrinks with depth", VALUE, ask.truncation_gap_shrinks,
          paper.contrast(_STARTS, [(1, "PD", "2/128"), (-1, "PD (truncated)", "2/128"), (-1, "PD", "8/512"),
                                   (1, "PD (truncated)", "8/512")], f"{FIG5}, 2/128 less 8/512")),
    Claim("R4a", "Pre-trained word embeddings alone give the smallest student next to nothing", VALUE,
          ask.at_smallest("PD (embeddings)", "Distillation"),
          paper.contrast(_STARTS, [(1, "PD (embeddings)", "2/128"), (-1, "Distillation", "2/128")], f"{FIG5}, 2/128"), EQUAL),
    Claim("R4b", "They give a larger student more", VALUE, ask.gain_grows("PD (embeddings)", "Distillation"),
          paper.contrast(_STARTS, [(1, "PD (embeddings)", "12/768"), (-1, "Distillation", "12/768"),
                                   (-1, "PD (embeddings)", "2/128"), (1, "Distillation", "2/128")], f"{FIG5}, 12/768 less 2/128")),
    Claim("R4c", "Full pre-training beats pre-trained word embeddings alone", VALUE, ask.over("PD", "PD (embeddings)"),
          paper.gain(_STARTS, "PD", "PD (embeddings)", FIG5)),
    Claim("R13", "At 6/768, pre-trained distillation beats pre-training with fine-tuning", VALUE,
          ask.over("PD", "PF", ["6/768"]), TABLE3),
    Claim("R5a", "At matched parameters deeper beats wider, pre-trained and distilled", DEPTH, ask.deep_over_wide("PD"),
          _sst2(*_matched("PD"), where="6/512 over 2/768")),
    Claim("R5b", "At matched parameters deeper beats wider, pre-trained and fine-tuned", DEPTH, ask.deep_over_wide("PF"),
          _sst2(*_matched("PF"), where="6/512 over 2/768")),
    Claim("R5c", "Depth pays more when pre-trained than from a random start", DEPTH, ask.depth_pays_more("PD", "Distillation"),
          _sst2(*_matched("PD"), *((-w, "Distillation", s) for w, _, s in _matched("")), where="6/512 over 2/768")),
    Claim("R5d", "At matched latency deep and wide are a tie", DEPTH,
          ask.deep_over_wide("PD", ask.pairs_matched_in_latency, "latency"),
          _sst2((1, "PD", "8/256"), (-1, "PD", "2/768"), where="8/256 over 2/768, about 7.5x on its TPU; not plotted there"), EQUAL),
    Claim("R6", "The first layers add more than the last", DEPTH, ask.depth_saturates("PD"),
          _sst2(*((w / 4, "PD", f"{layers}/{h}") for h in (128, 256, 512, 768) for w, layers in ((2, 6), (-1, 2), (-1, 12))),
                where="2 to 6 layers less 6 to 12, mean of 4 widths")),
    Check("R14", "The 24 sizes have the paper's numbers of parameters", DEPTH, parameter_counts,
          Number(0.0, "Table 2, to 0.1 M", "printed"), required=True),
    Check("R15", "Speeds on this machine are ordered as on the paper's TPU", DEPTH, speed_order),
    Claim("R7a", "With D_LM = D_T, pre-trained distillation beats pre-training with fine-tuning", COMPOUND,
          ask.over("PD", "PF", corpus="transfer"), paper.gain(paper.compound(), "PD", "PF", FIG10)),
    Claim("R7b", "With D_LM = D_T, pre-training with fine-tuning beats distillation from a random start", COMPOUND,
          ask.over("PF", "Distillation", corpus="transfer"), paper.gain(paper.compound(), "PF", "Distillation", FIG10)),
    Claim("R7c", "With D_LM = D_T, reading the transfer set first adds to distilling on it", COMPOUND,
          ask.over("PD", "Distillation", corpus="transfer"), paper.gain(paper.compound(), "PD", "Distillation", FIG10)),
    Claim("R8a", "More and broader text to read than D_T makes a better start", COMPOUND,
          ask.own_corpus_over(ask.transfer_itself), Number(
              round(float((_STARTS[_STARTS.recipe == "PD"].value.to_numpy()
                           - paper.compound().query("recipe == 'PD'").value.to_numpy()).mean()), 1),
              "Fig 5 less Fig 10, MNLI, mean of 5 sizes", "digitised")),
    Claim("R8b", "Piece for piece, text of other domains makes a better start than D_T", COMPOUND,
          ask.corpus_over(ask.general, ask.transfer_itself), None),
    Claim("R9", "A small pre-trained student needs less transfer text than a large random one", ROBUST,
          ask.small_with_less_over_large,
          paper.contrast(paper.transfer_size(), [(1, "PD", ("4/256", 5_000_000)), (-1, "Distillation", ("12/768", 8_000_000))],
                         f"{FIG8}, 4/256 with 5 M over 12/768 with 8 M"), NOT_BELOW),
    Claim("R10", "On little transfer text, distillation from a random start is worse than basic training", ROBUST,
          ask.little_text("Basic", "Distillation"),
          Number(round(paper.BOOKS_BASIC.value - 78.9, 1), f"{FIG8}, 4/256, 50,000 texts", "digitised")),
    Claim("R11a", "Off domain, pre-trained distillation loses less than distillation from a random start", ROBUST,
          ask.drop_smaller("PD", "Distillation", -2),
          paper.contrast(_NEAR_FAR, [(1, "Distillation", 1.0), (-1, "Distillation", 0.52), (-1, "PD", 1.0), (1, "PD", 0.52)],
                         f"{FIG9}, S 1.0 to 0.52")),
    Claim("R11b", "Farthest off, it loses as much", ROBUST, ask.drop_smaller("PD", "Distillation", -1),
          paper.contrast(_NEAR_FAR, [(1, "Distillation", 1.0), (-1, "Distillation", 0.43), (-1, "PD", 1.0), (1, "PD", 0.43)],
                         f"{FIG9}, S 1.0 to 0.43"), EQUAL),
    Claim("R12", "Fine-tuning after distillation pays more the farther off D_T is", ROBUST, ask.finetuning_pays_far,
          paper.contrast(_NEAR_FAR, [(1, "PD-F", 0.43), (-1, "PD", 0.43), (-1, "PD-F", 1.0), (1, "PD", 1.0)],
                         f"{FIG9}, S 0.43 less S 1.0")),
)  # fmt: skip


def judge(study: str | Path, claims: tuple = CLAIMS) -> pd.DataFrame:
    """Return one row a claim: estimate, interval, n, verdict, the paper's number, and the sentence made from them."""
    e = Evidence(study)
    table = pd.DataFrame([_row(claim) | _measure(claim, e) for claim in claims])
    table["p_holm"] = table.groupby("question").p.transform(lambda p: stats.holm(p.tolist()))
    table["p_zero_holm"] = table.groupby("question").p_zero.transform(lambda p: stats.holm(p.tolist()))
    table["verdict"] = [row["verdict"] or _verdict(row) for row in table.to_dict("records")]
    table["reading"] = [_sentence(row) for row in table.to_dict("records")]
    return table


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
