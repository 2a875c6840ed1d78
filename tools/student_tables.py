"""Tables of models by accuracy for docs: every model of the published studies, settings of teaching, teachers, students of other kinds."""

import json

from benchmark_tables import load_record, missing, provenance, table

from pdstudy.analysis import stats
from pdstudy.analysis.stats import POINTS
from pdstudy.recipes import LINEAR, LINEAR_TAUGHT, LINEARS, TEACHER
from pdstudy.storage import paths, results

PUBLISHED = paths.ROOT / "outputs" / "published"
TASKS = {  # published study -> its task
    "eight-sizes": "movies",
    "movies-minilm": "movies",
    "transfer-200k": "movies",
    "desk-mpnet": "movies",
    "desk-sst2": "SST-2",
    "reviews16-mpnet": "books",
    "books": "books",
    "books-minilm": "books",
    "products": "products",
    "rte": "RTE",
}
SHOWN = ("PF", "PD", "PD-F", TEACHER.name, *LINEARS)
MB = 4e-6  # megabytes of a parameter in fp32


def students() -> str:
    """Return one table of the models of the published studies: size, speed, training and accuracy, the best first within a study."""
    rows = [row for study, task in TASKS.items() for row in _models(str(PUBLISHED / study), task)]
    head = ("task, study", "model", "MB, fp32", "ms a text", "training, s", "test, % (95 %)", "seeds x texts")
    return table(head, rows)


def _models(study: str, task: str) -> list[tuple]:
    """Return a study's rows: the linear models, the teacher, and every size by PF, PD and PD-F."""
    metrics, speed = results.accuracies(results.load_results(study)), results.load_latency(study)
    n_texts = results.load_settings(study)["transfer"]["texts"]
    name, rows = f"{task}, {study.rpartition('/')[2]} ({n_texts:,} transfer texts)", []
    for (recipe, size), of in metrics[metrics.recipe.isin(SHOWN)].groupby(["recipe", "size"]):
        low, high = stats.accuracy_interval(of.value.to_numpy(), int(of.n.iloc[0]))
        trained, mean = of.seconds[of.seconds > 0], POINTS * of.value.mean()
        rows.append(
            (
                mean,
                name,
                recipe if recipe in LINEARS else f"{recipe} {size}",
                f"{of.n_params.iloc[0] * MB:.1f}" if of.n_params.iloc[0] else "",
                f"{speed[size]:.2f}" if size in speed else "",
                f"{trained.mean():,.0f}" if len(trained) and recipe != TEACHER.name else "",
                f"{mean:.1f} ({POINTS * low:.1f} to {POINTS * high:.1f})",
                f"{len(of)} x {of.n.iloc[0]:,}",
            )
        )
    return [row[1:] for row in sorted(rows, reverse=True)]


def lengths() -> str:
    """Return the table of what longer texts are worth on dev, for every published study that measured it."""
    rows = []
    for path in sorted(PUBLISHED.glob("*/lengths.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        student = f"{path.parent.name}, {record['student']} ({record['seeds']} seeds x {record['n_dev']:,} texts)"
        for row in record["rows"]:
            points = "{:+.1f} ({:+.1f} to {:+.1f})".format(row["gain"], *row["interval"]) if row["interval"] else ""
            pieces = f"**{row['pieces']}**" if row["pieces"] == record["max_length"] else row["pieces"]
            rows.append((student, pieces, f"{row['cut']:.1%}", f"{row['dev']:.1f}", points, f"{row['seconds']:.0f}"))
    head = ("study, student", "pieces", "texts cut", "dev, %", "points over the shortest (95 %)", "seconds a seed")
    return table(head, rows)


def averaged() -> str:
    """Return the table of students averaged with the linear model, beside the student alone and the linear model."""
    record = load_record("averaged")
    if record is None:
        return missing("averaged")
    head = ("study", "student", "linear", "alone", "average", "over alone (95 %)", "over linear (95 %)", "seeds x texts")
    rows = []
    for row in record["rows"]:
        cells = (f"{row[key]:.1f}" for key in ("linear", "alone", "average"))
        gains = (
            ("{gain:+.1f}" if row[key]["low"] is None else "{gain:+.1f} ({low:+.1f} to {high:+.1f})").format(**row[key])
            for key in ("over_alone", "over_linear")
        )
        rows.append((row["study"], f"{row['recipe']} {row['size']}", *cells, *gains, f"{row['seeds']} x {row['texts']:,}"))
    sources = "<br>".join(f"{name}: {provenance_of_study}" for name, provenance_of_study in record["studies"].items())
    return f"{table(head, rows)}\n\n<sub>{record['command']} · commit {record['commit'][:12]}<br>{sources}</sub>"


def static_student() -> str:
    """Return the table of students without attention beside the linear model, taught by the same soft labels."""
    record = load_record("static_student")
    if record is None:
        return missing("static_student")
    rows = []
    for arm in record["arms"]:
        scores = arm["test"]
        spread = f" ({min(scores):.1f} to {max(scores):.1f}, {len(scores)} seeds)" if len(scores) > 1 else ""
        rows.append((arm["arm"], f"{arm['texts']:,}", f"{sum(scores) / len(scores):.1f}{spread}", arm["mb"], arm["seconds"]))
    head = ("student", "texts of D_T", "test, %", "MB", "seconds of training")
    n = max(arm["texts"] for arm in record["arms"])
    taught, *others = (sum(a["test"]) / len(a["test"]) for a in record["arms"] if a["texts"] == n)
    text = f"With {n:,} texts the best student without attention scores {max(others) - taught:+.1f} points against the taught linear model."
    return f"{table(head, rows)}\n\n{text}\n\n<sub>{provenance('static_student', record)}</sub>"


def sentence_vectors() -> str:
    """Return the table of logistic regression on sentence vectors from elsewhere beside the linear model."""
    record = load_record("sentence_vectors")
    if record is None:
        return missing("sentence_vectors")
    rows = []
    for a in record["arms"]:
        gain = "{:+.1f} ({:+.1f} to {:+.1f})".format(*a["gain"]) if a["gain"] else ""
        rows.append(
            (
                f"{a['task']}, {a['labels']:,} labels",
                a["arm"],
                f"{a['test']:.1f} of {a['n']:,}",
                gain,
                a["mb"],
                a["ms"],
                a["seconds"],
            )
        )
    head = ("task", "model", "test, %", "points over the linear model (95 %)", "MB", "ms a text", "seconds of training")
    made: dict[str, list[str]] = {}
    for a in record["arms"]:
        line = f"{provenance('sentence_vectors', a['made'])}, one thread, {a['made']['precision']}"
        made.setdefault(line, []).append(f"{a['task']}, {a['arm']}")
    notes = "<br>".join(line + ": " + "; ".join(arms) for line, arms in made.items())
    return f"{table(head, rows)}\n\n<sub>{notes}</sub>"


def match_classes() -> str:
    """Return the table of what it is worth to give a student the class shares of D_L, where D_T has others."""
    return teaching("match_classes")


def class_shares() -> str:
    """Return the table of what unbalanced transfer texts cost, and what matching the class shares returns."""
    record = load_record("class_shares")
    if record is None:
        return missing("class_shares")
    rows = [
        (
            f"{row['positive']:.0%}",
            f"{row['as taught']:.1f}",
            f"{row['matched']:.1f}",
            f"{row['gain']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f})",
        )
        for row in record["rows"]
    ]
    text = f"PD {record['size']}, {record['transfer_texts']:,} transfer texts, {record['seeds']} seeds x {record['items']:,} test texts."
    head = ("positive transfer texts", "as taught, test, %", "class shares of D_L matched", "points (95 %)")
    return f"{text}\n\n{table(head, rows)}\n\n<sub>{provenance('class_shares', record)}</sub>"


def teaching(name: str = "teaching") -> str:
    """Return the table of what each setting of teaching is worth that the paper leaves open."""
    record = load_record(name)
    if record is None:
        return missing(name, "teaching")
    arms = [row for row in record["rows"] if row["recipe"] in ("PF", "PD")]
    columns = list(dict.fromkeys((row["recipe"], row["size"]) for row in arms))
    cells = {(row["option"], row["recipe"], row["size"]): row for row in arms}
    rows = []
    for option in dict.fromkeys(row["option"] for row in arms):
        here = [cells[option, *column] for column in columns]
        rows.append((option, *(f"{r['accuracy']:.1f}" + _points(r["over_first"], " ({})") for r in here)))
    text = f"Test accuracy, % (points over the first row, 95 %), {record['transfer_texts']:,} transfer texts, {arms[0]['seeds']} seeds."
    head = ("setting", *(f"{recipe} {size}" for recipe, size in columns))
    return f"{text}\n\n{table(head, rows)}\n\n<sub>{provenance(name, record)}</sub>"


def teachers() -> str:
    """Return the table of the same students taught by better and worse teachers."""
    record = load_record("teachers")
    if record is None:
        return missing("teachers", "teaching")
    by_teacher: dict[str, dict[tuple[str, str], dict]] = {}
    for row in record["rows"]:
        by_teacher.setdefault(row["option"], {})[row["recipe"], row["size"]] = row
    sizes = list(dict.fromkeys(row["size"] for row in record["rows"] if row["recipe"] == "PD"))
    rows = []
    for option, of in by_teacher.items():
        taught = f"{of[LINEAR_TAUGHT, 'linear']['accuracy']:.1f}" if (LINEAR_TAUGHT, "linear") in of else ""
        teacher = next(
            (row["accuracy"] for (recipe, _), row in of.items() if recipe == "teacher"), of[LINEAR, "linear"]["accuracy"]
        )
        students = (f"{of['PD', size]['accuracy']:.1f} ({_points(of['PD', size]['over_pf'])})" for size in sizes)
        rows.append((option, f"{teacher:.1f}", taught, *students))
    head = ("teacher", "its test, %", "linear, taught", *(f"PD {size}, and points over PF (95 %)" for size in sizes))
    return f"{table(head, rows)}\n\n<sub>{provenance('teachers', record)}</sub>"


def _points(effect: dict | None, form: str = "{}") -> str:
    """Return a difference with its interval in `form`; nothing where there is none."""
    if effect is None:
        return ""
    interval = f", {effect['low']:+.1f} to {effect['high']:+.1f}" if effect["low"] is not None else ""
    return form.format(f"{effect['gain']:+.1f}{interval}")
