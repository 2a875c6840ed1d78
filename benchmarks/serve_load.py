"""An exported student under load: `serve` with 1 and 4 connections, and `predict`, beside a `transformers` pipeline of the same folder.

python benchmarks/serve_load.py MODEL FILE.csv --text COLUMN [--texts 10000] [--requests 1000] [--rounds 3]

The texts of the file are repeated as often as needed. Requests have one text each; the client runs on the same cores as the server.
The pipeline labels one text at a time as the server does, and batches of 32 as `predict` does with its own. Starting Python and opening the
model are outside the clock, reading and writing files inside. Every round runs every arm, each in a process of its own; the record has the
median of the rounds with least and most. Writes benchmarks/results/serve_load.json.
"""

import argparse
import csv
import http.client
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from pdstudy import machine

OUT = Path(__file__).parent / "results" / "serve_load.json"
CONNECTIONS = (1, 4)
BATCH = 32
SERVE = {"serve, fp32": [], "serve, int8": ["--int8"]}
PIPELINE = "pipeline"
PREDICT = {"predict, fp32": "fp32", "predict, int8": "int8"}


def texts_of(file: Path, column: str, n: int) -> list[str]:
    """Return n texts of a CSV file, repeated as often as needed."""
    with file.open(newline="", encoding="utf-8") as lines:
        texts = [row[column] for row in csv.DictReader(lines) if row[column].strip()]
    return list(itertools.islice(itertools.cycle(texts), n))


def speed(seconds: list[float], wall: float) -> dict[str, float]:
    """Return texts a second, and the median and 99th percentile of the milliseconds of one text."""
    q = statistics.quantiles(seconds, n=100)
    return {"texts_a_second": len(seconds) / wall, "p50_ms": 1e3 * statistics.median(seconds), "p99_ms": 1e3 * q[98]}


def ask(address: str, texts: list[str], seconds: list[float], labels: list[str]) -> None:
    """Send each text in a request of its own over one connection."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc)
    for text in texts:
        begin = time.perf_counter()
        connection.request("POST", "/predict", json.dumps({"text": text}), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        seconds.append(time.perf_counter() - begin)
        labels.append(answer["predictions"][0]["label"])


def served(model: Path, options: list[str], texts: list[str]) -> dict:
    """Return the speed of `serve` by the number of connections, and the labels of the texts."""
    command = [sys.executable, "-m", "pdstudy", "serve", str(model), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address, result = process.stdout.readline().split()[0], {}
        ask(address, texts[:50], [], [])  # the first requests are slower
        for n in CONNECTIONS:
            times = [[] for _ in range(n)]
            labels = [[] for _ in range(n)]
            clients = [threading.Thread(target=ask, args=(address, texts[i::n], times[i], labels[i])) for i in range(n)]
            begin = time.perf_counter()
            for client in clients:
                client.start()
            for client in clients:
                client.join()
            name = f"{n} connection{'s' if n > 1 else ''}"
            result[name] = speed(list(itertools.chain(*times)), time.perf_counter() - begin)
            if n == 1:
                result["labels"] = labels[0]
        return result
    finally:
        process.terminate()
        process.wait()


def piped(model: Path, texts: list[str], requests: int) -> dict:
    """Return the speed of a pipeline of transformers one text at a time and in batches, and the labels of the first texts."""
    import torch
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(model), device="cpu")
    classify(texts[:50], truncation=True)
    seconds, begin = [], time.perf_counter()
    for text in texts[:requests]:
        start = time.perf_counter()
        classify(text, truncation=True)
        seconds.append(time.perf_counter() - start)
    one = speed(seconds, time.perf_counter() - begin)
    begin = time.perf_counter()
    answers = classify(texts, truncation=True, batch_size=BATCH)
    wall = time.perf_counter() - begin
    labels = [answer["label"] for answer in answers[:requests]]
    return {
        "one at a time": one,
        "file": {"texts_a_second": len(texts) / wall},
        "labels": labels,
        "threads": torch.get_num_threads(),
    }


def predicted(model: Path, precision: str, texts: list[str], requests: int) -> dict:
    """Return the speed of `predict` over a file of the texts, and the labels of the first."""
    from pdstudy.release.predict import label_file, open_labeller

    labeller = open_labeller(model, precision)
    labeller(texts[:50])
    with tempfile.TemporaryDirectory() as folder:
        source, to = Path(folder, "in.csv"), Path(folder, "out.csv")
        with source.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["text"], *([text] for text in texts)])
        begin = time.perf_counter()
        label_file(labeller, source, to)
        wall = time.perf_counter() - begin
        with to.open(newline="", encoding="utf-8") as file:
            labels = [row["label"] for row in itertools.islice(csv.DictReader(file), requests)]
    return {"file": {"texts_a_second": len(texts) / wall}, "labels": labels}


def run(arm: str, options: argparse.Namespace) -> dict:
    """Return one arm's speeds by way, and its labels of the texts that every arm labels."""
    if arm in SERVE:
        return served(options.model, SERVE[arm], texts_of(options.file, options.text, options.requests))
    texts = texts_of(options.file, options.text, max(options.texts, options.requests))
    return (
        piped(options.model, texts, options.requests)
        if arm == PIPELINE
        else predicted(options.model, PREDICT[arm], texts, options.requests)
    )


def spread(values: list[float]) -> dict[str, float]:
    """Return median, least and most."""
    return {"median": round(statistics.median(values), 2), "least": round(min(values), 2), "most": round(max(values), 2)}


def main() -> None:
    arms = (*SERVE, *PREDICT, PIPELINE)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--text", default="text", help="the column of the texts")
    parser.add_argument("--texts", type=int, default=10_000, help="of the file that is labelled")
    parser.add_argument("--requests", type=int, default=1000, help="to the server, one text each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arm", choices=arms, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(run(options.arm, options)))
        return
    runs: dict[str, list[dict]] = {arm: [] for arm in arms}
    load = [os.getloadavg()[0]]
    for i in range(options.rounds):
        for arm in arms if i % 2 == 0 else arms[::-1]:
            command = [sys.executable, __file__, *sys.argv[1:], "--arm", arm]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{arm}: {done.stderr[-3000:]}")
            runs[arm].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {i + 1}, {arm}: { {k: v for k, v in runs[arm][-1].items() if k != 'labels'} }", flush=True)
    load.append(os.getloadavg()[0])
    labels = runs[PIPELINE][0]["labels"]
    record = {"arms": {}, "same_labels_as_pipeline": {}}
    for arm, rounds in runs.items():
        same = sum(a == b for a, b in zip(rounds[0]["labels"], labels, strict=True)) / len(labels)
        record["same_labels_as_pipeline"][arm] = round(same, 4)
        ways = [way for way in rounds[0] if isinstance(rounds[0][way], dict)]
        record["arms"][arm] = {way: {name: spread([r[way][name] for r in rounds]) for name in rounds[0][way]} for way in ways}
    assert record["same_labels_as_pipeline"]["serve, fp32"] >= 0.999, "not the same work"
    facts = json.loads((options.model / "export.json").read_text())
    record |= {"student": facts["student"], "max_length": facts["max_length"], "threads": runs[PIPELINE][0]["threads"]}
    record |= {"texts": options.texts, "requests": options.requests, "rounds": options.rounds, "batch": BATCH}
    record |= {
        "load": [round(x, 1) for x in load],
        "commit": machine.commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    record |= {
        "command": f"python benchmarks/serve_load.py MODEL {options.file.name} --text {options.text} --texts {options.texts} --requests {options.requests}"
    }
    record |= {"machine": {"processor": machine.processor(), "cores": os.cpu_count()}}
    record |= {"versions": {name: version(name) for name in ("torch", "transformers", "onnxruntime", "pdstudy")}}
    OUT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
