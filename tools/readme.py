"""Write what README and docs show of a study's committed results: answers, key figures, and where each part of the paper is.

The paper's algorithm, figures, tables and claims are data of this module, each with the function that implements it; verdicts come
from the study's claims.json. A test fails if a function no longer exists, or if a page is out of date. The marker over each part
names the study, and `python tools/readme.py STUDY` changes it everywhere.
"""

import argparse
import hashlib
import inspect
import io
import json
import pkgutil
import re
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path

import benchmark_tables
import matplotlib.pyplot as plt
import pandas as pd
import student_tables
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pdstudy.analysis import answers, claims, summary, verdicts
from pdstudy.analysis.stats import POINTS
from pdstudy.recipes import LINEAR, LINEAR_TAUGHT, TEACHER
from pdstudy.report import figures, render
from pdstudy.report.charts import STRATEGIES
from pdstudy.report.style import StudyFigure
from pdstudy.sizes import Size
from pdstudy.storage import paths, results
from pdstudy.storage.files import atomic_write

README, DOCS = paths.ROOT / "README.md", paths.ROOT / "docs"
RESULTS, TABLE, OWN, SPEED, PAPER_SCALE, METHOD = (
    DOCS / f"{name}.md" for name in ("results", "paper_to_code", "own_data", "speed", "paper_scale", "method")
)
PUBLISHED = paths.ROOT / "outputs" / "published"  # the committed evidence, written by tools/publish.py
DESK = str(PUBLISHED / "desk")  # a teacher of the family's own sizes, and less transfer text
SST2 = str(PUBLISHED / "desk-sst2")  # the paper's own task, as far as two cores go
BOOKS = str(PUBLISHED / "reviews16-mpnet")  # the paper's own domain, and Fig 9's sixteen transfer sets
MORE_TEXT = str(PUBLISHED / "transfer-200k")  # README's study with more transfer text
EIGHT = str(PUBLISHED / "eight-sizes")  # the paper's main result: more sizes and transfer text, on a GPU
PICTURES, REFERENCE = paths.ROOT / "docs" / "figures", paths.ROOT / "docs" / "reference"
MARKER = re.compile(r"(<!-- \w+ of )([\w.-]+)(: made by `python tools/readme.py`, not typed -->)")
# One or two for each question, of those that do not need the answers to every text: predictions.parquet is not committed.
KEY_FIGURES = ("which_student", "strategies", "depth_width", "compound", "transfer_size", "domains")
MAIN_CLAIMS = ("V1", "V2", "R1a", "R5a", "R7c", "R11a")  # README's: the strategies, and one of each other question
MOST_BYTES = 60_000  # of a picture
DPI = 92
TUTORIAL = "00_one_student"
NOT_JUDGED = "not judged yet"  # a claim that is newer than the committed results
BREAK = "<br>"  # within a table's cell
RECORD = "pdstudy"  # the key of the PNG's text that records what it was drawn from


class PageError(RuntimeError):
    """Raised if a page lacks the markers of a part."""


@dataclass(frozen=True)
class Part:
    """One part of the paper: the functions that implement it ("module:name"), its claims and our figures of it."""

    name: str
    what: str
    code: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    notebook: str = ""


VALUE, DEPTH, COMPOUND, ROBUST = render.QUESTIONS
ALGORITHM = (
    Part("Require: D_LM, D_T, D_L", "texts cleaned and split, without repeats of dev and test",
         ("data.sources:read", "data.cleaning:build", "data.cleaning:transfer_set", "data.tasks:TASKS"), notebook=TUTORIAL),
    Part("Require: student θ", "a BERT of any layers and width, on word pieces",
         ("sizes:Size", "models.encoder:bert_config", "models.encoder:new_classifier", "data.tokenizer:train_word_pieces"), notebook=TUTORIAL),
    Part("Require: teacher Ω", "a larger model, fine-tuned on D_L; refused if it is hardly better than the majority class",
         ("stages:finetune", "run.label_steps:label"), notebook=TUTORIAL),
    Part("1: pre-train θ on D_LM", "masked language modelling",
         ("stages:pretrain", "data.masking:mask_rows", "models.losses:mlm_loss"), notebook=TUTORIAL),
    Part("2, 5: for each x in D_T", "batches of texts of similar length, in an order that the seed determines", ("data.batches:Batches",),
         notebook=TUTORIAL),
    Part("3: L ← −Σ P_Ω(y∣x) log P_θ(y∣x)", "the teacher labels D_T once; its probabilities are the target, at temperature 1",
         ("stages:label", "models.losses:soft_label_loss"), notebook=TUTORIAL),
    Part("4: θ ← BACKPROP(L, θ)", "one training loop for every stage", ("stages:distill", "models.train:fit"), notebook=TUTORIAL),
    Part("6: fine-tune θ on D_L (optional)", "PD-F; without lines 2 to 5 it is PF, without line 1 too it is Basic",
         ("stages:finetune", "models.losses:hard_label_loss"), notebook=ROBUST),
    Part("7: return θ", "logits and metrics on test, with the answer to every text", ("models.inference:logits", "models.evaluate:metrics"), notebook=TUTORIAL),
    Part("the strategies and ablations", "the lines of the algorithm for each recipe, as data",
         ("recipes:RECIPES", "study.plan:make"), notebook=VALUE),
)  # fmt: skip
PRINTED = (
    Part("Fig 1", "the scheme of pre-trained distillation", ("stages:pretrain", "stages:label", "stages:distill"), notebook=TUTORIAL),
    Part("Figs 2 to 4", "not available to us; nothing here corresponds to them"),
    Part("Table 1", "concurrent methods, without measurements; nothing here corresponds to it"),
    Part("Table 2", "24 sizes: parameters and speed on a TPU", ("sizes:Size.n_params", "analysis.paper:sizes", "models.latency:measure"),
         ("speed",), ("R14", "R15"), DEPTH),
    Part("Table 3", "6/768 on six GLUE tasks", ("analysis.paper:table3",), (), ("R13",), VALUE),
    Part("not in the paper", "the linear model: TF-IDF and logistic regression", ("models.linear:Linear",), (), ("L1", "L2"), VALUE),
    Part("not in the paper", "which student to take: accuracy over latency", ("report.figures_students:which_student", "analysis.stats:pareto_front"),
         ("which_student",)),
    Part("not in the paper", "how many labels", ("report.figures_texts:labels", "analysis.crossings:of_study"), ("labels",), (), ROBUST),
    Part("Table 4", "the data sets", ("data.tasks:TASKS",)),
    Part("Fig 5", "MNLI: full pre-training, truncation, word embeddings alone", ("report.figures_students:starts", "analysis.paper:initialisations"),
         ("starts",), ("R3a", "R3b", "R4a", "R4b", "R4c"), VALUE),
    Part("Fig 6", "SST-2: four strategies over 24 sizes", ("report.figures_students:strategies", "analysis.paper:sst2"),
         ("strategies", "pretraining_gain"), ("V1", "V2", "R1a", "R1b", "R1c", "R2"), VALUE),
    Part("Fig 6, over depth and width", "the same students at matched parameters",
         ("report.figures_students:depth_width", "report.figures_students:matched"),
         ("depth_width", "matched"), ("R5a", "R5b", "R5c", "R6"), DEPTH),
    Part("Fig 6 over Table 2", "the same students at matched speed; not plotted there", ("report.figures_students:speed", "run.study_latency:of_study"),
         ("speed", "matched"), ("R5d",), DEPTH),
    Part("Fig 7", "not available to us; nothing here corresponds to it"),
    Part("Fig 8", "Book Reviews: how much transfer text", ("report.figures_texts:transfer_size", "analysis.paper:transfer_size"),
         ("transfer_size",), ("R9", "R10"), ROBUST),
    Part("Fig 9", "Book Reviews: how near the transfer text is", ("report.figures_texts:domains", "data.similarity:similarity", "analysis.paper:domains"),
         ("domains",), ("R11a", "R11b", "R12"), ROBUST),
    Part("Fig 10", "MNLI: D_LM = D_T", ("report.figures_texts:compound", "report.figures_texts:corpora", "analysis.paper:compound"),
         ("compound", "corpora"), ("R7a", "R7b", "R7c", "R8a", "R8b"), COMPOUND),
)  # fmt: skip


def update(study: str | None = None) -> list[str]:
    """Write every part of the pages again, and return the names of the pages, pictures and tables that changed.

    Without a study it is the one that README shows. Raises PageError if a page has no markers for a part.
    """
    name = study or published_study()
    study = str(PUBLISHED / name)
    changed = reword_evidence()
    parts, drawn = (
        paper_to_code(study),
        {name: draw(study, name) for name in KEY_FIGURES},
    )  # first, so that an error changes no page
    pictures = drawn | {Path(name).name: draw(name, figure) for name, (_, _, figure) in beside().items()}
    changed += [f"{name}.png" for name, shows in pictures.items() if picture(name, *shows)]
    before = {page: page.read_text(encoding="utf-8") for page in (README, RESULTS, TABLE, OWN, SPEED, PAPER_SCALE, METHOD)}
    for page, text in before.items():
        page.write_text(MARKER.sub(rf"\g<1>{name}\g<3>", text), encoding="utf-8")
    fill(README, "claims", main_claims(study))
    fill(RESULTS, "answers", tables(study))
    fill(RESULTS, "figures", key_figures(study, {name: figure.alt for name, (figure, _) in drawn.items()}, "figures"))
    fill(TABLE, "parts", parts)
    for page, part, text in records():
        fill(page, part, text)
    return changed + [page.name for page, text in before.items() if page.read_text(encoding="utf-8") != text]


def reword_evidence() -> list[str]:
    """Return the committed tables that changed, after writing the claims' sentences as CLAIMS words them now. The numbers stay."""
    changed = []
    for folder in sorted(path.parent for path in PUBLISHED.glob(f"*/{results.CLAIMS}")):
        table = verdicts.load(folder)
        files = [folder / results.CLAIMS, *sorted(folder.glob("figures/gains_*.csv"))]
        before = [path.read_bytes() for path in files]
        verdicts.save(table, folder)
        for path in files[1:]:
            figures.measured(table, path.stem.removeprefix("gains_")).to_csv(path, index=False)
        changed += [f"{folder.name}/{path.name}" for path, data in zip(files, before, strict=True) if path.read_bytes() != data]
    return changed


def records() -> list[tuple[Path, str, str]]:
    """Return (page, part, text) of the parts from benchmarks and from the studies beside README's."""
    n_texts = results.load_settings(DESK)["transfer"]["texts"]
    teacher = smaller_teacher(verdicts.load(DESK), results.load_results(DESK), n_texts)
    _, _, figure = beside()[EIGHT]
    strategies = {Path(EIGHT).name: draw(EIGHT, figure)[0].alt}
    others = [(OWN, "tasks", benchmark_tables.own_tasks()), (OWN, "lengths", student_tables.lengths())]
    others += [(page, part, with_figure(name, figure)) for name, (page, part, figure) in beside().items()]
    others += [
        (README, "answer", answers.answer(EIGHT, verdicts.load(EIGHT))),
        (README, "teacher", f"{in_order(results.load_results(EIGHT))} {teacher}"),
        (README, "figure", key_figures(EIGHT, strategies, "docs/figures")),
        (RESULTS, "teacher", tables(DESK)),
        (RESULTS, "longer", benchmark_tables.longer_pretraining()),
        (RESULTS, "starts", benchmark_tables.starts()),
        (RESULTS, "students", student_tables.students()),
    ]
    parts = (
        benchmark_tables.peers,
        benchmark_tables.steps,
        benchmark_tables.ways,
        benchmark_tables.reading,
        benchmark_tables.corpus,
        benchmark_tables.everyday,
        benchmark_tables.serve_load,
        benchmark_tables.gpu,
        benchmark_tables.large_teacher,
        benchmark_tables.memory,
    )
    of_method = (
        student_tables.teachers,
        student_tables.teaching,
        student_tables.match_classes,
        student_tables.class_shares,
        student_tables.averaged,
        student_tables.static_student,
        student_tables.sentence_vectors,
    )
    others += [(METHOD, part.__name__, part()) for part in of_method]
    return [*others, *((SPEED, part.__name__, part()) for part in parts)]


def beside() -> dict[str, tuple[Path, str, str]]:
    """Return study -> page, part and figure: what pages show beside README's study."""
    return {
        SST2: (PAPER_SCALE, "sst2", "strategies"),
        EIGHT: (RESULTS, "sizes", "strategies"),
        MORE_TEXT: (RESULTS, "transfer", "transfer_size"),
        BOOKS: (RESULTS, "books", "domains"),
    }


def with_figure(study: str, figure: str) -> str:
    """Return the claims and scores of a published study in Markdown, one of its figures in front."""
    drawn, record = draw(study, figure)
    return f"![{drawn.alt}]({PICTURES.name}/{record['study']}.png)\n\n{tables(study)}"


def in_order(metrics: pd.DataFrame) -> str:
    """Return the test accuracy of every recipe at the smallest size of Distillation, the best first, and of the linear models."""
    accuracy = results.accuracies(metrics)
    size = min(accuracy[accuracy.recipe == "Distillation"]["size"], key=lambda name: Size.parse(name).layers)
    at_size = accuracy[(accuracy["size"] == size) & accuracy.recipe.isin([*STRATEGIES, "PD-F"])]
    scores = accuracy.groupby("recipe").value.mean() * POINTS
    ranked = (at_size.groupby("recipe").value.mean() * POINTS).sort_values(ascending=False).items()
    return (
        f"At {size}: {', '.join(f'{recipe} {score:.1f} %' for recipe, score in ranked)}; "
        f"the linear model {scores[LINEAR]:.1f} %, taught by the same teacher {scores[LINEAR_TAUGHT]:.1f} %."
    )


def smaller_teacher(judged: pd.DataFrame, metrics: pd.DataFrame, n_texts: int) -> str:
    """Return a sentence on what a small teacher and little transfer text change."""
    row, accuracy = judged.set_index("id").loc["R1a"], results.accuracies(metrics)
    return (
        f"With {n_texts:,} transfer texts and a small teacher ({accuracy[accuracy.recipe == TEACHER.name].value.mean() * POINTS:.1f} %) "
        f"PD scores {answers.points(row)} against PF ({row.verdict})."
    )


def main_claims(study: str) -> str:
    """Return README's table of claims in Markdown: with the most transfer text, of README's study, and in the paper."""
    many, few = (verdicts.display_table(verdicts.load(name)) for name in (EIGHT, study))
    n_many, n_few = (results.load_settings(name)["transfer"]["texts"] for name in (EIGHT, study))
    rows = [f"| claim | {n_many:,} transfer texts | {n_few:,} transfer texts | paper |", "|---|---|---|---|"]
    rows += [
        f"| {few.claim[i]} | {_with_interval(many.loc[i])} | {_with_interval(few.loc[i])} | {few.paper[i]} |" for i in MAIN_CLAIMS
    ]
    return "\n".join(rows)


def _with_interval(row: pd.Series) -> str:
    """Return a claim's points, interval and verdict in one cell of a table."""
    return row.verdict if row.verdict == verdicts.NOT_MEASURED else f"{row.points} ({row['95 % interval']}) **{row.verdict}**"


def tables(study: str) -> str:
    """Return the claims and scores of a study in Markdown, question by question, with their provenance, from its committed results."""
    judged = verdicts.load(study)
    judged = judged[judged.verdict != verdicts.NOT_MEASURED]
    rows = ["| | claim | points | 95 % interval | verdict | paper |", "|---|---|---|---|---|---|"]
    for name, question in claims.QUESTIONS.items():
        table = verdicts.display_table(judged[judged.question == name])
        rows += [f"| | **{question}** | | | | |"] if len(table) else []
        rows += [
            f"| {i} | {r.claim} | {r.points} | {r['95 % interval']} | **{r.verdict}** | {r.paper} |" for i, r in table.iterrows()
        ]
    n_seeds, n_items = judged.n_seeds.max(), judged.n_items.max()
    rows += [
        "",
        f"Every row is over {n_seeds} seeds and {n_items:,} test texts; verdicts after Holm's correction within a question.",
    ]
    accuracy = summary.accuracy_table(results.load_results(study), results.load_settings(study).get("recipe_sizes"))
    rows += ["", "| test accuracy, % | " + " | ".join(accuracy.columns) + " |", "|---" * (len(accuracy.columns) + 1) + "|"]
    rows += [f"| {recipe} | " + " | ".join(values) + " |" for recipe, values in accuracy.iterrows()]
    return "\n".join([*rows, "", f"<sub>{escape(results.provenance(study))}</sub>"])


def published_study() -> str:
    """Return the name of the study that README shows."""
    match = MARKER.search(README.read_text(encoding="utf-8"))
    if match is None:
        raise PageError("README.md names no study in a marker")
    return match[2]


def fill(page: Path, part: str, text: str) -> None:
    """Write a part of a page between its markers. Raises PageError if the page does not have them."""
    before = page.read_text(encoding="utf-8")
    begin, end = re.search(rf"<!-- {part} of .*-->\n", before), f"<!-- end of {part} -->"
    if begin is None or end not in before[begin.end() :]:
        raise PageError(f"{page.name}: there is no place for its {part}: a marker `<!-- {part} of STUDY: ... -->` and `{end}`")
    tail = before[before.index(end, begin.end()) :]
    with atomic_write(page) as new:
        new.write_text(f"{before[: begin.end()]}{text}\n{tail}", encoding="utf-8")


# -- pictures


def draw(study: str, name: str) -> tuple[StudyFigure, dict[str, str]]:
    """Return a figure and its record: the study, the figure's name, and a digest of its title and data."""
    drawn = figures.draw(study, name, verdicts.load(study))
    plt.close(drawn.axes.figure)
    title = drawn.axes.figure.get_suptitle()
    digest = hashlib.sha256((title + drawn.data.round(6).to_csv(index=False)).encode()).hexdigest()[:12]
    return drawn, {"study": Path(study).name, "figure": name, "data": digest}


def picture(name: str, drawn: StudyFigure, record: dict[str, str]) -> bool:
    """Write a figure as a small PNG for a page unless the present one has the same record; return whether it was written."""
    path = PICTURES / f"{name}.png"
    if path.exists() and recorded(path) == record:
        return False
    full, text = io.BytesIO(), PngInfo()
    drawn.axes.figure.savefig(full, dpi=DPI, bbox_inches="tight")
    text.add_text(RECORD, json.dumps(record))
    # MAXCOVERAGE keeps rare colours too; with the median cut a recipe's name gets another recipe's colour.
    small = Image.open(full).convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    PICTURES.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as new:
        small.save(new, format="PNG", optimize=True, pnginfo=text)
    return True


def recorded(path: Path) -> dict[str, str]:
    """Return the record of a picture, see `draw`."""
    with Image.open(path) as image:
        return json.loads(image.info.get(RECORD, "{}"))


def key_figures(study: str, alts: dict[str, str], folder: str) -> str:
    """Return figures in Markdown, each with its alternative text; `folder` is that of the pictures, as the page sees it."""
    lines = [f"![{alt}]({folder}/{name}.png)\n" for name, alt in alts.items()]
    return "\n".join([*lines, f"<sub>{results.provenance(study)}</sub>"])


# -- where each part of the paper is


def paper_to_code(study: str) -> str:
    """Return the tables of the paper's parts in Markdown: what it is, its functions, notebook and figures, the verdicts."""
    judged, pages = verdicts.load(study).set_index("id"), _pages_of_modules()
    text = [f"Verdicts of the study `{Path(study).name}`: {results.provenance(study)}"]
    text += ["", "## The algorithm", "", "| the paper | what | here | notebook |", "|---|---|---|---|"]
    for part in ALGORITHM:
        text.append(f"| {part.name} | {part.what} | {_links(part.code, pages)} | {_notebook(part.notebook)} |")
    text += ["", "## Figures and tables", "", "| the paper | what | here | notebook, figures | verdicts |", "|---|---|---|---|---|"]
    for part in PRINTED:
        words = BREAK.join(f"{i} {judged.verdict.get(i, NOT_JUDGED)}".replace(" ", "&nbsp;") for i in part.claims)
        places = BREAK.join(filter(None, (_notebook(part.notebook), _figures(part.figures))))
        text.append(f"| {part.name} | {part.what} | {_links(part.code, pages) or 'none'} | {places} | {words} |")
    text += [
        "",
        "## Claims",
        "",
        "| | claim | verdict | points, 95 % interval | the paper's number | function, notebook, figures |",
    ]
    text += ["|---|---|---|---|---|---|"]
    table, stems = verdicts.display_table(verdicts.load(study)), dict(zip(claims.QUESTIONS, render.QUESTIONS, strict=True))
    for claim in claims.CLAIMS:
        here = BREAK.join((_link(function_of(claim), pages), _notebook(stems[claim.question]), _figures(_figures_of(claim))))
        if claim.id not in table.index:
            text.append(f"| {claim.id} | {claim.sentence} | **{NOT_JUDGED}** | | none | {here} |")
            continue
        row = table.loc[claim.id]
        points = row.points if row["95 % interval"] == "n/a" else f"{row.points} ({row['95 % interval']})"
        number = f"{row.paper} ({judged.paper_where[claim.id]}; {row.trust})" if row.paper else "none"
        text.append(f"| {claim.id} | {claim.sentence} | **{row.verdict}** | {points} | {number} | {here} |")
    return "\n".join(text)


def function_of(claim: claims.Claim | claims.Check) -> str:
    """Return the function that computes a claim's contrast or check, "module:name"."""
    function = claim.contrast if isinstance(claim, claims.Claim) else claim.check
    return f"{function.__module__.removeprefix('pdstudy.')}:{function.__qualname__.split('.')[0]}"


def _figures_of(claim: claims.Claim | claims.Check) -> tuple[str, ...]:
    """Return the figures that show a claim: those of its parts of the paper, and that of its question."""
    names = [name for part in PRINTED if claim.id in part.claims for name in part.figures]
    return tuple(dict.fromkeys([*names, *([f"gains_{claim.question}"] if isinstance(claim, claims.Claim) else [])]))


def _links(names: tuple[str, ...], pages: dict[str, str]) -> str:
    return BREAK.join(_link(name, pages) for name in names)


def _figures(names: tuple[str, ...]) -> str:
    return BREAK.join(f"`{name}`" for name in names)


def _link(name: str, pages: dict[str, str]) -> str:
    """Return a link to a function in the reference, or to its module if it is data."""
    module, _, inner = name.partition(":")
    target = pkgutil.resolve_name(f"pdstudy.{module}:{inner}")
    anchor = f"pdstudy.{module}" + (f".{inner}" if inspect.isfunction(target) or inspect.isclass(target) else "")
    return f"[`{module}.{inner}`]({pages[module]}#{anchor})"


def _notebook(stem: str) -> str:
    return f"`{stem}`" if stem else ""


def _pages_of_modules() -> dict[str, str]:
    """Return the page of the reference that describes each module."""
    return {
        name: f"{REFERENCE.name}/{page.name}"
        for page in sorted(REFERENCE.glob("*.md"))
        for name in re.findall(r"^::: pdstudy\.([\w.]+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    }


def main(words: list[str] | None = None) -> int:
    """Write every page and picture again; return the exit status: 2 if the study has no results, 1 if a page lacks its markers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", nargs="?", help="the study that is shown (default: the one that README shows now)")
    try:
        changed = update(parser.parse_args(words).study)
    except (FileNotFoundError, PageError) as error:
        print(error, file=sys.stderr)
        return 1 if isinstance(error, PageError) else 2
    print("\n".join(f"{name} changed" for name in changed) or "all is up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
