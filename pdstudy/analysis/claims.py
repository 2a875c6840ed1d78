"""The claims of the paper as data: each has a contrast of students (contrasts.py), and the side of zero that supports it."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

from pdstudy.analysis import contrasts, paper
from pdstudy.analysis.evidence import Evidence, Missing
from pdstudy.analysis.paper import Number
from pdstudy.recipes import LINEAR_TAUGHT
from pdstudy.sizes import PAPER_SIZES

ABOVE, EQUAL, NOT_BELOW = "above zero", "within a point of zero", "not below zero by more than a point"
MARGIN = 1.0  # points: the range over which the paper's Basic moves across all sizes
PARAMETERS_WITHIN = 0.1  # millions, the rounding of the paper's table
BASELINE = "baseline"  # the family of claims about the linear model, which the paper does not have
SPEEDS_APART = 1.1  # sizes whose speeds in the paper's table differ by a smaller factor are not compared
VALUE, DEPTH, COMPOUND, ROBUST = "pretraining_value", "depth_vs_width", "compound_effect", "domain_robustness"
QUESTIONS = {
    VALUE: "Does pre-training help a small student?",
    DEPTH: "Deep or wide, for the same size or the same speed?",
    COMPOUND: "Is it worth pre-training and distilling on the same text?",
    ROBUST: "How much transfer text, and how near?",
}


@dataclass(frozen=True)
class Claim:
    """A statement of the paper as a contrast, and the side of zero that supports it."""

    id: str
    sentence: str
    question: str
    contrast: contrasts.ContrastOf
    paper: Number | None  # the effect in points, if the paper shows it
    should_be: str = ABOVE
    required: bool = False  # if refuted, the command `claims` fails
    family: str = ""  # claims of a question that are corrected together; "": the paper's own


@dataclass(frozen=True)
class Check:
    """A statement that is true or false for a study. It involves no sampling, so there is no interval."""

    id: str
    sentence: str
    question: str
    check: Callable[[Evidence], tuple[bool, str]]  # whether it is true, and the measurement as text
    paper: Number | None = None
    required: bool = False


def parameter_counts(e: Evidence) -> tuple[bool, str]:
    """Return whether the 24 sizes have as many parameters as in Table 2, and the largest difference as text."""
    table = paper.sizes().set_index("size").params
    off = max(abs(size.n_params() / 1e6 - table[str(size)]) for size in PAPER_SIZES)
    return off < PARAMETERS_WITHIN, f"largest difference over 24 sizes {off:.2f} M"


def speed_order(e: Evidence) -> tuple[bool, str]:
    """Return whether sizes are in the order of their speeds on the paper's TPU here too, one text at a time, and for how many pairs."""
    speedup = paper.sizes().set_index("size").speedup
    shared = [s for s in e.sizes if s in e.latency and s in speedup.index]
    pairs = [(a, b) if speedup[a] > speedup[b] else (b, a) for a, b in combinations(shared, 2)]
    pairs = [(fast, slow) for fast, slow in pairs if speedup[fast] / speedup[slow] > SPEEDS_APART]
    if not pairs:
        raise Missing("latency of two sizes of the paper's table")
    wrong = [f"{slow} is faster than {fast}" for fast, slow in pairs if e.latency[fast] >= e.latency[slow]]
    summary = f"{len(pairs) - len(wrong)} of {len(pairs)} pairs of sizes in the order of the paper's TPU"
    return not wrong, summary + (f"; here {', '.join(wrong)}" if wrong else "")


def _sst2(*terms: tuple[float, str, str], where: str) -> Number:
    return paper.contrast(paper.sst2(), list(terms), f"{paper.SST2_SOURCE}, {where}")


def _matched(recipe: str) -> list[tuple[float, str, str]]:
    """Return the terms of 6/512 over 2/768, which match in parameters."""
    return [(1, recipe, "6/512"), (-1, recipe, "2/768")]


FIG5, FIG8, FIG9, FIG10 = "Fig 5, MNLI", "Fig 8, Book Reviews", "Fig 9, Book Reviews, 4/256", "Fig 10, MNLI"
TABLE3 = Number(1.6, "Table 3, six tasks, dev, 6/768", "printed")
_STARTS, _NEAR_FAR = paper.initialisations(), paper.domains()
CLAIMS = (
    Claim("V1", "Pre-training helps a student that is then fine-tuned", VALUE, contrasts.over("PF", "Basic"),
          paper.sst2_gain("PF", "Basic"), required=True),
    Claim("V2", "Pre-training helps a student that is then distilled", VALUE, contrasts.over("PD", "Distillation"),
          paper.sst2_gain("PD", "Distillation"), required=True),
    Claim("R1a", "Pre-trained distillation beats pre-training with fine-tuning", VALUE, contrasts.over("PD", "PF"),
          paper.sst2_gain("PD", "PF")),
    Claim("R1b", "Pre-training with fine-tuning beats distillation from a random start", VALUE,
          contrasts.over("PF", "Distillation"),
          paper.sst2_gain("PF", "Distillation")),
    Claim("R1c", "Distillation from a random start beats basic training", VALUE, contrasts.over("Distillation", "Basic"),
          paper.sst2_gain("Distillation", "Basic")),
    Claim("L1", "The best student beats the linear model", VALUE, contrasts.best_over_linear, None, family=BASELINE),
    Claim("L2", "Pre-trained distillation beats the linear model that learns from the same teacher", VALUE,
          contrasts.over_linear("PD", LINEAR_TAUGHT), None, family=BASELINE),
    Claim("R2", "Basic training is flat over size", VALUE, contrasts.growth("Basic"),
          _sst2((1, "Basic", "12/768"), (-1, "Basic", "2/128"), where="12/768 minus 2/128"), EQUAL),
    Claim("R3a", "Full pre-training beats truncating a deeper model", VALUE, contrasts.over("PD", "PD (truncated)"),
          paper.gain(_STARTS[_STARTS["size"] != "12/768"], "PD", "PD (truncated)", FIG5)),
    Claim("R3b", "The gain of full pre-training over truncation shrinks with depth", VALUE, contrasts.truncation_gap_shrinks,
          paper.contrast(_STARTS, [(1, "PD", "2/128"), (-1, "PD (truncated)", "2/128"), (-1, "PD", "8/512"),
                                   (1, "PD (truncated)", "8/512")], f"{FIG5}, 2/128 less 8/512")),
    Claim("R4a", "Pre-trained word embeddings alone do not help the smallest student", VALUE,
          contrasts.at_smallest("PD (embeddings)", "Distillation"),
          paper.contrast(_STARTS, [(1, "PD (embeddings)", "2/128"), (-1, "Distillation", "2/128")], f"{FIG5}, 2/128"), EQUAL),
    Claim("R4b", "Pre-trained word embeddings alone help a larger student more than a smaller one", VALUE,
          contrasts.gain_grows("PD (embeddings)", "Distillation"),
          paper.contrast(_STARTS, [(1, "PD (embeddings)", "12/768"), (-1, "Distillation", "12/768"),
                                   (-1, "PD (embeddings)", "2/128"), (1, "Distillation", "2/128")], f"{FIG5}, 12/768 less 2/128")),
    Claim("R4c", "Full pre-training beats pre-trained word embeddings alone", VALUE, contrasts.over("PD", "PD (embeddings)"),
          paper.gain(_STARTS, "PD", "PD (embeddings)", FIG5)),
    Claim("R13", "At 6/768, pre-trained distillation beats pre-training with fine-tuning", VALUE,
          contrasts.over("PD", "PF", ["6/768"]), TABLE3),
    Claim("R5a", "At matched parameters deeper beats wider, pre-trained and distilled", DEPTH, contrasts.deep_over_wide("PD"),
          _sst2(*_matched("PD"), where="6/512 over 2/768")),
    Claim("R5b", "At matched parameters deeper beats wider, pre-trained and fine-tuned", DEPTH, contrasts.deep_over_wide("PF"),
          _sst2(*_matched("PF"), where="6/512 over 2/768")),
    Claim("R5c", "Depth helps pre-trained students more than students from a random start", DEPTH,
          contrasts.depth_pays_more("PD", "Distillation"),
          _sst2(*_matched("PD"), *((-w, "Distillation", s) for w, _, s in _matched("")), where="6/512 over 2/768")),
    Claim("R5d", "At matched latency deep and wide students are equally accurate", DEPTH,
          contrasts.deep_over_wide("PD", contrasts.pairs_matched_in_latency, "latency"),
          _sst2((1, "PD", "8/256"), (-1, "PD", "2/768"),
                where="8/256 over 2/768, about 7.5x on its TPU; not plotted there"), EQUAL),
    Claim("R6", "The first layers add more than the last", DEPTH, contrasts.depth_saturates("PD"),
          _sst2(*((w / 4, "PD", f"{layers}/{h}") for h in (128, 256, 512, 768) for w, layers in ((2, 6), (-1, 2), (-1, 12))),
                where="2 to 6 layers less 6 to 12, mean of 4 widths")),
    Check("R14", "The 24 sizes have the paper's numbers of parameters", DEPTH, parameter_counts,
          Number(0.0, "Table 2, to 0.1 M", "printed"), required=True),
    Check("R15", "Speeds on this machine are ordered as on the paper's TPU", DEPTH, speed_order),
    Claim("R7a", "With D_LM = D_T, pre-trained distillation beats pre-training with fine-tuning", COMPOUND,
          contrasts.over("PD", "PF", corpus="transfer"), paper.gain(paper.compound(), "PD", "PF", FIG10)),
    Claim("R7b", "With D_LM = D_T, pre-training with fine-tuning beats distillation from a random start", COMPOUND,
          contrasts.over("PF", "Distillation", corpus="transfer"), paper.gain(paper.compound(), "PF", "Distillation", FIG10)),
    Claim("R7c", "With D_LM = D_T, pre-training on the transfer set adds to distilling on it", COMPOUND,
          contrasts.over("PD", "Distillation", corpus="transfer"), paper.gain(paper.compound(), "PD", "Distillation", FIG10)),
    Claim("R8a", "Pre-training on more and broader text than D_T makes a better start", COMPOUND,
          contrasts.own_corpus_over(contrasts.transfer_corpus), Number(
              round(float((_STARTS[_STARTS.recipe == "PD"].value.to_numpy()
                           - paper.compound().query("recipe == 'PD'").value.to_numpy()).mean()), 1),
              "Fig 5 less Fig 10, MNLI, mean of 5 sizes", "digitised")),
    Claim("R8b", "With equally many word pieces, pre-training on text of other domains makes a better start than on D_T", COMPOUND,
          contrasts.corpus_over(contrasts.other_domain_corpus, contrasts.transfer_corpus), None),
    Claim("R9", "A small pre-trained student needs less transfer text than a large random one", ROBUST,
          contrasts.small_with_less_over_large,
          paper.contrast(paper.transfer_size(), [(1, "PD", ("4/256", 5_000_000)), (-1, "Distillation", ("12/768", 8_000_000))],
                         f"{FIG8}, 4/256 with 5 M over 12/768 with 8 M"), NOT_BELOW),
    Claim("R10", "On little transfer text, distillation from a random start is worse than basic training", ROBUST,
          contrasts.little_text("Basic", "Distillation"),
          Number(round(paper.BOOKS_BASIC.value - 78.9, 1), f"{FIG8}, 4/256, 50,000 texts", "digitised")),
    Claim("R11a", "Off domain, pre-trained distillation loses less than distillation from a random start", ROBUST,
          contrasts.drop_smaller("PD", "Distillation", -2),
          paper.contrast(_NEAR_FAR, [(1, "Distillation", 1.0), (-1, "Distillation", 0.52), (-1, "PD", 1.0), (1, "PD", 0.52)],
                         f"{FIG9}, S 1.0 to 0.52")),
    Claim("R11b", "On the farthest domain, pre-trained distillation loses as much as distillation from a random start", ROBUST,
          contrasts.drop_smaller("PD", "Distillation", -1),
          paper.contrast(_NEAR_FAR, [(1, "Distillation", 1.0), (-1, "Distillation", 0.43), (-1, "PD", 1.0), (1, "PD", 0.43)],
                         f"{FIG9}, S 1.0 to 0.43"), EQUAL),
    Claim("R12", "Fine-tuning after distillation helps more, the farther D_T is from the domain of D_L", ROBUST,
          contrasts.finetuning_pays_far,
          paper.contrast(_NEAR_FAR, [(1, "PD-F", 0.43), (-1, "PD", 0.43), (-1, "PD-F", 1.0), (1, "PD", 1.0)],
                         f"{FIG9}, S 0.43 less S 1.0")),
)  # fmt: skip
