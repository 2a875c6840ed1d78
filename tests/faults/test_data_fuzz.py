"""Whatever a data file holds and however it is called, `init` writes a study that can be planned, or says why not: exit 2, one sentence."""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdstudy import __main__ as cli
from pdstudy.study import plan
from pdstudy.study.settings import Study

TEXTS = st.text(max_size=30) | st.sampled_from(
    ["", " ", "😀👍", "मेल", "ไม่ดี", "差", "a\u200db", "\u202egnp", "\x1b[31m", "nan", "1.5", '"', "a\tb", "'", "\ufeff"]
)
LABELS = st.sampled_from(["a", "b", "c"]) | st.sampled_from(
    ["a", "b", "c", "0", "1", "nan", "плохо", "😡", "A", "é", "e\u0301", "", "1.0", "x" * 200]
)
NAMES = st.sampled_from(
    ["text", "label", "id", "split", "on", "null", "~", "😀", "", "a: b", "text", "\u202e", "x" * 300, "1", "label "]
) | st.text(max_size=8)
DIALECTS = st.fixed_dictionaries(
    {"delimiter": st.sampled_from(",;\t|"), "quoting": st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONE]), "lineterminator": st.sampled_from(["\n", "\r\n", "\r"])}
)  # fmt: skip
ENCODINGS = st.just("utf-8") | st.sampled_from(["utf-8", "utf-8-sig", "cp1252", "utf-16", "shift_jis", "cp1251", "utf-32"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.sampled_from([10**400, "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
FILES = st.sampled_from(
    ["t", "😀", "~x", "-t", "a b", "con", "movies", "hub:x", "new\nline", "'q'", "..t", "x" * 200, "%s", "{{x}}", "\u202e", "_", "#", "&a", "---"]
)  # fmt: skip
TYPES = [
    pa.array([0, 1] * 40), pa.array([1.5, float("nan")] * 40), pa.array([b"a", b"\xff"] * 40), pa.array(["a", None] * 40), pa.array([["a"], []] * 40),
    pa.array([{"k": 1}, None] * 40), pa.array([0, 1] * 40, pa.date32()), pa.array([0, 2**62] * 40, pa.timestamp("ns")), pa.array([True, False] * 40),
    pa.array(["a", "b"] * 40).dictionary_encode(), pa.array([1, 2] * 40, pa.duration("ns")), pa.nulls(80), pa.array([0, 1] * 40, pa.time64("ns")),
    pa.array(["a", "b"] * 40, pa.large_string()), pa.array([1, 2] * 40).cast(pa.decimal128(21, 2)), pa.array([2**63, 1] * 40, pa.uint64()),
]  # fmt: skip
REVIEWS = pa.array([f"a review of some words {i}" for i in range(80)])


def as_csv(rows: list, how: dict, encoding: str) -> bytes:
    """Return rows as a delimited file; what its dialect cannot write is left out."""
    text = io.StringIO()
    writer = csv.writer(text, **how, escapechar="\\" if how["quoting"] == csv.QUOTE_NONE else None)
    for row in rows:
        with contextlib.suppress(csv.Error):
            writer.writerow(row)
    return text.getvalue().encode(encoding, "replace")


def as_parquet(columns: dict, metadata: bytes | None) -> bytes:
    file = io.BytesIO()
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata({b"huggingface": metadata}) if metadata is not None else table, file)
    return file.getvalue()


def named(kind: str, content) -> st.SearchStrategy:
    """Return (file name, bytes) of a kind."""
    return st.tuples(FILES.map(lambda stem: stem + kind), content)


def strategies() -> dict[str, st.SearchStrategy]:
    """Return, by name, the files that are tried: (name, bytes), or None for a folder."""
    many = st.lists(st.tuples(TEXTS, LABELS), min_size=0, max_size=60)
    learnable = st.tuples(st.integers(20, 120), LABELS, LABELS).map(
        lambda t: [(f"some words of text {i}", t[1 + i % 2]) for i in range(t[0])]
    )
    rows = st.builds(
        lambda header, body, more: [header, *body, *more],
        st.just(("text", "label")) | st.tuples(NAMES, NAMES),
        learnable | many,
        st.just([]) | many,
    )
    metadata = st.none() | st.binary(max_size=20) | st.sampled_from(
        [b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": %s}}}}' % n for n in (b'["x", "y"]', b"[1]", b"null", b'["x"]')]
    )  # fmt: skip
    parquet = st.builds(
        lambda text, label, name, meta: as_parquet({"text": text, name: label}, meta),
        st.just(REVIEWS) | st.sampled_from(TYPES), st.sampled_from(TYPES), st.just("label") | NAMES.filter(lambda n: n != "text"), metadata,
    )  # fmt: skip
    objects = st.lists(
        st.dictionaries(st.sampled_from(["text", "label", "id"]) | st.text(max_size=3), VALUES, max_size=4) | VALUES, max_size=12
    )
    lines = objects.map(lambda records: "\n".join(json.dumps(o) for o in records).encode())
    steady = st.tuples(learnable, VALUES).map(
        lambda t: "\n".join(json.dumps({"text": a, "label": b, "more": t[1]}) for a, b in t[0]).encode()
    )
    return {
        "bytes": named(".csv", st.binary(max_size=300)) | named(".tsv", st.binary(max_size=300)) | named(".jsonl", st.binary(max_size=300))
        | named(".parquet", st.binary(max_size=300).map(lambda b: b"PAR1" + b + b"PAR1")),
        "dialects": st.builds(lambda stem, kind, r, how, enc: (stem + kind, as_csv(r, how, enc)), FILES, st.sampled_from([".csv", ".tsv"]), rows, DIALECTS, ENCODINGS),
        "json": named(".jsonl", lines | steady) | named(".json", lines),
        "parquet": named(".parquet", parquet),
        "folders": st.tuples(FILES.map(lambda stem: stem + ".csv") | FILES, st.none()),
    }  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder to run in; nothing but the data and its params file may ever stand there."""
    folder, before = tmp_path_factory.mktemp("datafuzz"), Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def check(name: str, content: bytes | None, options: tuple[str, ...], place: Path, monkeypatch) -> int:
    """Hold one answer of `init` against the promise, and return its exit code."""
    for left in place.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    try:
        (place / name).mkdir() if content is None else (place / name).write_bytes(content)
    except OSError:
        return 2  # a name that this file system does not take
    monkeypatch.setattr(sys, "argv", ["pdstudy", "init", "--to", "out.yaml", *options, "--", name])
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    message = err.getvalue()
    assert code in (0, 2), message
    assert not re.search("[\x00-\x08\x1b\u202e]", message + out.getvalue()), "no words of a file act on the terminal"
    if code == 2:
        assert re.search(r"\w{3,}", message) and "Traceback" not in message and len(message) < 20_000
        assert [p.name for p in place.iterdir()] == [name], "nothing is written"
    else:
        assert plan.make(Study.read("out.yaml")).of_stage("texts")
    return code


OPTIONS = st.sampled_from([(), ("--no-header",), ("--quotes",), ("--delimiter", ";"), ("--encoding", "cp1252"), ("--rare", "merge"), ("--text", "text", "--label", "label")])  # fmt: skip
FEW = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
MANY = settings(FEW, max_examples=800)


def tried(examples: settings, kind: str, place: Path, monkeypatch) -> dict[int, int]:
    """Hold the answers to so many files of a kind against the promise, and return how often each exit code came."""
    codes = {0: 0, 2: 0}

    def one(file: tuple[str, bytes | None], options: tuple[str, ...]) -> None:
        codes[check(*file, options, place, monkeypatch)] += 1

    examples(given(strategies()[kind], OPTIONS)(one))()
    return codes


@pytest.mark.parametrize("kind", strategies())
def test_data_files_of_each_kind_are_read_or_refused_with_a_sentence(place, monkeypatch, kind):
    assert sum(tried(FEW, kind, place, monkeypatch).values()) >= (20 if kind == "folders" else 40), "five kinds make 180 and more"


@pytest.mark.faults
@pytest.mark.night
@pytest.mark.parametrize("kind", strategies())
def test_thousands_of_data_files_of_each_kind_are_read_or_refused_with_a_sentence(place, monkeypatch, kind, capsys):
    codes = tried(MANY, kind, place, monkeypatch)
    with capsys.disabled():
        print(
            f"\nfuzz of data, {kind}: {sum(codes.values()):,} files, {codes[0]:,} studies, {codes[2]:,} refused with exit 2", end=""
        )
    assert sum(codes.values()) >= (20 if kind == "folders" else 800)
