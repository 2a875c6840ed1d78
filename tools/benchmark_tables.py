"""What the benchmarks' records say, as tables in Markdown for README and docs: no number of theirs is typed.

A benchmark that has left no record is shown as missing, with the command that makes it.
"""

import json

from pdstudy.recipes import export_name
from pdstudy.storage import paths

RESULTS = paths.ROOT / "benchmarks" / "results"
# The example tasks that were advised: those of benchmarks/plain_tasks.py, books with a student from elsewhere too, and movies.
TASKS = ("books", "books-minilm", "movies-snippets", "movies-minilm-student", "products", "products-minilm-128", "rte")
PEERS = {  # benchmarks that compare us with others on the same work
    "pretraining_speed": "pre-training by BERT's own recipe",
    "finetuning_peer": "fine-tuning",
    "distillation_peer": "distilling",
    "labelling_peer": "labelling",
}


def load_record(name: str) -> dict | None:
    """Return what a benchmark wrote, None where it has not run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def by_precision(name: str) -> list[dict]:
    """Return the records of a benchmark: of a processor that multiplies fastest in fp32, and of one that does in bf16."""
    records = ((load_record(name), "fp32"), (load_record(f"{name}_bf16"), "bf16"))
    return [{"precision": precision} | record for record, precision in records if record is not None]


def peers() -> str:
    """Return the table of how many times as long others take for the same work: median, least and most of pairs."""
    rows, notes, lacking = [], [], []
    for name, what in PEERS.items():
        records = by_precision(name)
        if not records:
            lacking.append(missing(name))
        for record in records:
            kind = f"{what}, {record['precision']}" if len(records) > 1 else what
            for size, ratios in record["ratios"].items():
                for arm, r in ratios.items():
                    rows.append((kind, size, arm, f"{r['median']} ({r['low']} to {r['high']})", r["pairs"]))
            absent = "; ".join(
                f"{arm} is left out, it does not load there: {why}" for arm, why in record.get("left out", {}).items()
            )
            notes.append(f"{kind}: {provenance(name, record)}" + (f" · {absent}" if absent else ""))
    text = table(("the same work", "size", "whose", "takes, times ours", "pairs"), rows)
    return "\n".join([text, "", *lacking, f"<sub>{'<br>'.join(notes)}</sub>"])


def steps() -> str:
    """Return the table of one training step's time and its share of the machine's own matrix rate, and where the rest goes."""
    parts = []
    for record in by_precision("steps"):
        rows = []
        for s in record["steps"]:
            most = ", ".join(f"{kind} {share:.0%}" for kind, share in list(s["where"].items())[:4])
            rows.append((s["size"], s["stage"], s["ms"], f"{s['pieces_a_second']:,}", f"{s['share']:.0%}", most))
        rate = record["steps"][0]["machine_gflops"]
        head = ("size", "stage", "ms a step", "pieces a second", f"of about {rate:.0f} GFLOP/s", "where the time goes")
        parts.append(f"{table(head, rows)}\n\n<sub>{provenance('steps', record)}, one thread, {record['precision']}</sub>")
    return "\n\n".join(parts) or missing("steps")


def ways() -> str:
    """Return the table of ways to make a step faster that were tried, and what each was worth."""
    parts = []
    for record in by_precision("ways"):
        rows = []
        for way, sizes in record["ways"].items():
            for size, r in sizes.items():
                if "median" not in r:  # what a thread could take over
                    of_stage = ((f"{way}, {stage}", 1 / (1 - took["share"]), took["batch_ms"]) for stage, took in r.items())
                    rows += [(name, size, f"at most {faster:.3f}", f"{ms} ms a batch") for name, faster, ms in of_stage]
                    continue
                note = f"{r['plain_ms']} ms against {r['other_ms']}"
                if "compiling_s" in r:
                    note += f"; {r['compiling_s']:.0f} s to compile: {_pays(r)}"
                if "plain_mb" in r:
                    note += f"; {r['plain_mb']:,} MB against {r['other_mb']:,}"
                rows.append((way, size, f"{r['median']} ({r['low']} to {r['high']})", note))
        head = ("way", "size", "times as fast", "a step")
        parts.append(f"{table(head, rows)}\n\n<sub>{provenance('ways', record)}, {record['precision']}</sub>")
    return "\n\n".join(parts) or missing("ways")


def _pays(way: dict) -> str:
    """Return after how many steps a way has paid for its compiling; an interval over 1 decides nothing."""
    if way["low"] <= 1 <= way["high"]:
        return "undecided whether it pays"
    return f"pays after {way['pays_after_steps']:,} steps" if way["low"] > 1 else "pays never"


def gpu() -> str:
    """Return the table of pre-training on one GPU, by size."""
    record = load_record("gpu")
    if record is None:
        return missing("gpu")
    arms = list(record["sizes"][0]["pieces_a_second"])
    rows = []
    for s in record["sizes"]:
        read = (f"{s['pieces_a_second'][arm]:,}" if arm in s["pieces_a_second"] else "" for arm in arms)
        share = ", ".join(f"{share:.0%}" for share in s["share"].values())
        peer = ", ".join(
            f"{r['median']} ({r['low']} to {r['high']}, {r['pairs']} pairs)" for r in s.get("Trainer takes", {}).values()
        )
        rows.append((s["size"], *read, f"{share} of {s['matrix_tflops']:.0f} TFLOP/s", peer))
    head = ("size", *(f"{arm}, pieces a second" for arm in arms), "ours, ours compiled", "Trainer takes, times ours, ours compiled")
    return f"{table(head, rows)}\n\n<sub>{provenance('gpu', record)}, rows of {record['row']}, {record['batch']} a step, bf16</sub>"


def large_teacher() -> str:
    """Return the table of what a teacher of BERT-Base's size costs."""
    record = load_record("large_teacher")
    if record is None:
        return missing("large_teacher")
    rows = [(w["way"], w["texts"], w["seconds"], w["texts_a_second"], f"{w['peak_mb']:,}") for w in record["ways"]]
    head = ("way", "texts", "seconds", "texts a second", "peak memory of a process, MB")
    return f"{table(head, rows)}\n\n<sub>{provenance('large_teacher', record)}, {record['ways'][0]['precision']}</sub>"


def memory() -> str:
    """Return the table of the most memory that commands held."""
    record = load_record("memory")
    if record is None:
        return missing("memory")
    rows = [(name, f"{r['peak_gib']} GiB", f"{r['seconds']:,.0f} s") for name, r in record.items()]
    notes = [
        f"{name}: {r['command']} · commit {r['commit']} · {r['date']} · torch {r['torch']} · {r['machine']}"
        for name, r in record.items()
    ]
    return f"{table(('command', 'most memory of all its processes', 'time'), rows)}\n\n<sub>{'<br>'.join(notes)}</sub>"


def reading() -> str:
    """Return the table of the seconds until a held-out loss is reached, in every run of every arm."""
    record = load_record("pretraining_peer")
    if record is None:
        return missing("pretraining_peer")
    parts = []
    for size, at in record["sizes"].items():
        rows = []
        for arm, runs in at["seconds_to"].items():
            ends = [run["curve"][-1]["loss"] for run in at["runs"] if run["arm"] == arm]
            reached = [", ".join("never" if t is None else f"{t:.0f}" for t in times) for times in zip(*runs, strict=True)]
            rows.append((arm, *reached, ", ".join(f"{loss:.2f}" for loss in ends)))
        head = (
            f"{size}, {at['threads']} threads",
            *(f"s to {level} nats" for level in at["levels"]),
            f"nats after {at['seconds']:.0f} s",
        )
        parts.append(f"{table(head, rows)}\n\n<sub>{provenance('pretraining_peer', at)}</sub>")
    return "\n\n".join(parts)


def longer_pretraining() -> str:
    """Return the table of what longer pre-training is worth, size by size."""
    record = load_record("longer_pretraining")
    if record is None:
        return missing("longer_pretraining")
    rows = []
    for row in record["rows"]:
        gains = ("{gain:+.1f} ({low:+.1f} to {high:+.1f})".format(**row[recipe]) for recipe in ("PF", "PD"))
        rows.append((row["size"], *(f"{loss:.2f}" for loss in row["loss"]), *gains))
    short, long = (f"{pieces / 1e6:.0f} M" for pieces in record["pieces"])
    head = ("size", f"held-out loss, {short} pieces", f"{long} pieces", "PF, points (95 %)", "PD, points (95 %)")
    n = record["rows"][0]["PF"]
    pairs = f"{n['seeds']} seeds x {n['items']:,} test texts"
    return f"{table(head, rows)}\n\n<sub>{provenance('longer_pretraining', record)} · {pairs}</sub>"


def starts(task: str = "quick") -> str:
    """Return the table of one task's students from two pre-trained starts, with the paired differences."""
    record = load_record("starts")
    if record is None:
        return missing("starts")
    by_student: dict[tuple[str, str], list[dict]] = {}
    for row in record:
        if row["task"] == task:
            by_student.setdefault((row["recipe"], row["size"]), []).append(row)
    rows = []
    for (recipe, size), (first, second) in sorted(by_student.items(), key=lambda item: (item[0][0], item[1][0]["test"])):
        gain = "{points:+.1f} ({low:+.1f} to {high:+.1f})".format(**second["over the first"])
        rows.append((f"{recipe} {size}", *(f"{row[split]:.1f}" for split in ("dev", "test") for row in (first, second)), gain))
    head = ("student", "dev, zoo", "zoo/long", "test, zoo", "zoo/long", "points on test (95 %)")
    pairs = f"{first['seeds']} seeds x {first['items']:,} test texts, {first['texts']:,} transfer texts"
    return f"{table(head, rows)}\n\n<sub>{provenance('starts', first)} · {pairs}</sub>"


def corpus() -> str:
    """Return the table of what a long corpus costs."""
    record = load_record("corpus")
    if record is None:
        return missing("corpus")
    kinds = [k for k in record["lengths"][0] if k != "pieces"]
    rows = [(f"{row['pieces']:,}", *(row[k] for k in kinds)) for row in record["lengths"]]
    rows.append(("dearest against cheapest", *(record["dearest against cheapest"].get(k, "") for k in kinds)))
    return f"{table(('pieces', *kinds), rows)}\n\n<sub>{provenance('corpus', record)}</sub>"


def everyday() -> str:
    """Return the list of what everybody waits for."""
    record = load_record("everyday")
    if record is None:
        return missing("everyday")
    plan, reports = record["plan"], record["reports"]
    started = next(row for name, row in record.items() if name.startswith("from pdstudy"))
    return "\n".join(
        [
            f"- the package's start, beside Python's own: {started['seconds']:.2f} s, and torch stays unloaded",
            f"- a plan of {plan['steps']:,} steps: {plan['seconds']:.2f} s",
            f"- all reports of `{reports['study']}` ({reports['steps']:,} steps) from a full store: {reports['seconds']:.0f} s",
            "",
            f"<sub>{provenance('everyday', record)}</sub>",
        ]
    )


def serve_load() -> str:
    """Return the tables of an exported student under load, beside a `transformers` pipeline of the same folder."""
    load = load_record("serve_load")
    if load is None:
        return missing("serve_load")
    ways = [(arm, way, speeds) for arm, ways in load["arms"].items() for way, speeds in ways.items()]
    by_text = [
        (arm, way, *(_spread(speeds[key]) for key in ("texts_a_second", "p50_ms", "p99_ms")))
        for arm, way, speeds in ways
        if "p50_ms" in speeds
    ]
    by_file = [
        (arm, _spread(speeds["texts_a_second"]), f"{load['same_labels_as_pipeline'][arm]:.2%}")
        for arm, way, speeds in ways
        if way == "file"
    ]
    note = f"{load['student']}, {load['threads']} threads, load of the machine {load['load'][0]} to {load['load'][1]}"
    return "\n\n".join(
        [
            table(("one text at a time", "way", "texts a second", "p50, ms", "p99, ms"), by_text),
            table((f"a file of {load['texts']:,} texts", "texts a second", "labels as the pipeline's"), by_file),
            f"<sub>{provenance('serve_load', load)} · {note}</sub>",
        ]
    )


def _spread(values: dict) -> str:
    """Return the median of the rounds with the least and the most, where there are several."""
    median, least, most = (f"{values[key]:,.{0 if values['median'] >= 100 else 1}f}" for key in ("median", "least", "most"))
    return median if median == least == most else f"{median} ({least} to {most})"


def own_tasks() -> str:
    """Return the tables of the example tasks: what `advise` recommended beside the linear model, and the exported students."""
    rows, sentences, sources = [], [], []
    head = ("task", "labelled, unlabelled texts", "recommended", "95 % interval, %", "its test, %", "linear model's test, %")
    head += ("best student on dev: its test, %", "teacher's test, %", "majority, %")
    for folder in (paths.ROOT / "outputs" / "published" / name for name in TASKS):
        advice, texts, classes = (json.loads((folder / f"{name}.json").read_text()) for name in ("advice", "texts", "classes"))
        candidates, counts = advice["candidates"], classes["classes"]
        taken = next(c for c in candidates if advice["student"] == export_name(c["recipe"], c["size"], int(c["best_seed"])))
        linear = next(c for c in candidates if c["recipe"] == "Linear")
        teacher = next((f"{c['test']:.1f}" for c in candidates if c["recipe"] == "teacher"), "no time to train it")
        students = [c for c in candidates if not c["recipe"].startswith("Linear") and c["recipe"] != "teacher"]
        best = max(students, key=lambda c: c["dev"])
        majority = counts["test"][counts["train"].index(max(counts["train"]))] / sum(counts["test"])
        cells = (
            f"{folder.name}, {len(classes['labels'])} classes",
            f"{texts['D_L']['kept']:,}, {texts['D_T']['kept']:,}",
            advice["student"],
        )
        cells += (
            f"{taken['low']:.1f} to {taken['high']:.1f}",
            f"{taken['test']:.1f} of {taken['n_test']:,}",
            f"{linear['test']:.1f}",
        )
        rows.append((*cells, f"{best['recipe']} {best['size']}: {best['test']:.1f}", teacher, f"{100 * majority:.1f}"))
        sentences.append(f"- {folder.name}: {' '.join(advice['reasons'])}")
        sources.append(f"{folder.name}: {advice['provenance']}")
    parts = [table(head, rows), "", f"<sub>{'<br>'.join(sources)}</sub>", "", "The advice:", "", *sentences, "", *exported()]
    return "\n".join(parts)


def exported() -> list[str]:
    """Return the lines of the table of students that were exported and asked in another environment."""
    record = load_record("exported")
    if record is None:
        return [missing("exported")]
    rows, head = (
        [],
        ("exported student", "test, %", "int8, test, %", "MB: fp32, int8", "ms: fp32, int8", "answers like ours elsewhere"),
    )
    for name, of in record["tasks"].items():
        fp32, int8 = (next(e for e in of["engines"] if "ONNX" in e["engine"] and e["precision"] == p) for p in ("fp32", "int8"))
        cells = (f"{name}, {of['student']}", f"{100 * fp32['accuracy']:.1f} of {of['test']:,}", f"{100 * int8['accuracy']:.1f}")
        cells += (f"{fp32['bytes'] / 1e6:.1f}, {int8['bytes'] / 1e6:.1f}", f"{fp32['p50_ms']:.1f}, {int8['p50_ms']:.1f}")
        rows.append((*cells, f"{of['same_labels']:,} of {of['texts']:,}"))
    text = (
        "Students of an earlier run of these tasks, exported and asked in another environment that has only torch and transformers:"
    )
    return [text, "", table(head, rows), "", f"<sub>{provenance('exported', record)}</sub>"]


def table(head: tuple, rows: list[tuple]) -> str:
    """Return a table in Markdown."""
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *rows))


def provenance(name: str, record: dict) -> str:
    """Return the line under a table: command, commit, date, versions, machine."""
    machine = record.get("machine", {})
    versions = ", ".join(
        f"{k} {v}" for k, v in record.get("versions", {}).items() if k in ("torch", "transformers", "papermill", "onnxruntime")
    )
    where = machine.get("processor", record.get("processor")) + (f", {machine['cores']} cores" if machine else "")
    parts = (record.get("command", f"python benchmarks/{name}.py"), f"commit {record['commit'][:12]}", record.get("date"), versions)
    return " · ".join(filter(None, (*parts, where)))


def missing(name: str, program: str = "") -> str:
    """Return what is said of a benchmark without a record; `program` is its file, if named otherwise."""
    return f"*Not measured yet: `python benchmarks/{program or name}.py`.*\n"
