"""Whatever stands in a params file, the answer is a study or exit 2 with a sentence: no traceback, no file written."""

import contextlib
import io
import os
import re
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdstudy import __main__ as cli
from pdstudy import paths
from pdstudy.params import Study
from pdstudy.paramsfile import load

SMOKE = load(paths.PARAMS / "smoke.yaml")
KEYS = [(key,) for key in SMOKE] + [(key, inner) for key, value in SMOKE.items() if isinstance(value, dict) for inner in value]
NUMBERS = st.one_of(
    st.integers(), st.integers(-3, 70_000), st.floats(), st.sampled_from([0, -1, 1e-4, "1e-4", 1e308, 10**400, float("nan"), True])
)
ODD_TEXTS = st.sampled_from(
    ["", "../../x", "/etc/passwd", "a\0b", "x" * 300, "CON", "été", "\u202egnp", "\x1b[31m", "</script>", "2/128", "12/768", "999/99968",
     "tiny", "1/64", "PD", "PD (truncated)", "movies", "auto", "muon", "~", "1e-4", "{{x}}", "'; DROP TABLE", "\ud800"]
)  # fmt: skip
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=20), ODD_TEXTS)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=12) | ODD_TEXTS, inner, max_size=4), max_leaves=8
)  # fmt: skip
CHANGES = st.lists(st.tuples(st.sampled_from(KEYS), VALUES), min_size=1, max_size=3)
EXTRA = st.dictionaries(st.text(max_size=12) | ODD_TEXTS, VALUES, max_size=2)
LINES = (paths.PARAMS / "smoke.yaml").read_text().splitlines()
PIECES = st.sampled_from(
    ["&a", "*a", "<<: *a", "!!python/object/apply:os.system ['touch canary']", "!!int ''", "? ", "- ", "{", "}", "[", "]", ": ", "#", "|",
     ">", "'", '"', "\t", "---", "...", "%YAML 9", "name: smoke", "seeds: [0]", "\x00", "2001-13-45", "0x", "1:60:60", "!!binary x", "=", "\ufeff"]
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder to run in; nothing but the params file may ever stand there."""
    folder = tmp_path_factory.mktemp("fuzz")
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def answer(text: bytes, place: Path, monkeypatch) -> tuple[int, str]:
    """Return exit code and words of `python -m pdstudy plan` on a file of these bytes."""
    (place / "fuzz.yaml").write_bytes(text)
    monkeypatch.setattr(sys, "argv", ["pdstudy", "plan", "fuzz.yaml"])
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    return code, err.getvalue()


def check(text: bytes, place: Path, monkeypatch) -> int:
    """Hold one answer against the promise, and return its exit code."""
    outputs = set(paths.OUTPUTS.rglob("*")) if paths.OUTPUTS.is_dir() else set()
    code, said = answer(text, place, monkeypatch)
    assert code in (0, 2), said
    if code == 2:
        assert said.startswith("fuzz.yaml: ") or "PD (truncated)" in said or "holds none of" in said, said
        assert re.search(r"\w{3,}", said.removeprefix("fuzz.yaml: ")) and "Traceback" not in said and len(said) < 20_000
        assert not re.search("[\x00-\x08\x1b\u202e]", said), "no words of a file act on the terminal"
    else:
        assert isinstance(Study.read("fuzz.yaml"), Study)
    assert [p.name for p in place.iterdir()] == ["fuzz.yaml"]
    assert (set(paths.OUTPUTS.rglob("*")) if paths.OUTPUTS.is_dir() else set()) == outputs
    return code


def dumped(data: dict) -> bytes:
    return yaml.safe_dump(data, allow_unicode=True, sort_keys=False).encode("utf-8", "surrogatepass")


def changed(changes: list, extra: dict) -> dict:
    """Return the smoke study's settings with some keys set to anything, and keys that nobody knows."""
    data = {key: dict(value) if isinstance(value, dict) else value for key, value in SMOKE.items()}
    for (key, *inner), value in changes:
        if inner and isinstance(data[key], dict):
            data[key][inner[0]] = value
        else:
            data[key] = value
    return data | extra


FAST = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
MANY = settings(FAST, max_examples=2000)


def strategies():
    """Return, by name, the bytes that are tried: changed settings, cut and mixed lines, plain noise."""
    return {
        "settings": st.builds(lambda c, e: dumped(changed(c, e)), CHANGES, st.just({}) | EXTRA),
        "lines": st.lists(st.sampled_from(LINES) | PIECES | st.text(max_size=15), max_size=25).map(
            lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass")
        ),
        "cut": st.tuples(st.integers(0, 1600), st.integers(0, 40), st.binary(max_size=6)).map(
            lambda cut: (whole := "\n".join(LINES).encode())[: cut[0]] + cut[2] + whole[cut[0] + cut[1] :]
        ),
        "noise": st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    }


@pytest.mark.parametrize("kind", strategies())
def test_a_hundred_params_files_of_each_kind(place, monkeypatch, kind):
    FAST(given(strategies()[kind])(lambda text: check(text, place, monkeypatch)))()


@pytest.mark.faults
@pytest.mark.parametrize("kind", strategies())
def test_two_thousand_params_files_of_each_kind(place, monkeypatch, kind, capsys):
    tried = {0: 0, 2: 0}

    def one(text: bytes) -> None:
        tried[check(text, place, monkeypatch)] += 1

    MANY(given(strategies()[kind])(one))()
    with capsys.disabled():
        print(
            f"\nfuzz of params, {kind}: {tried[0] + tried[2]:,} files, {tried[0]:,} studies, {tried[2]:,} refused with exit 2",
            end="",
        )
    assert sum(tried.values()) >= 1250, "four kinds make 5,000"
