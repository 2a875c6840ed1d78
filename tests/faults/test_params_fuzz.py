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
from pdstudy.recipes import RECIPES
from pdstudy.storage import paths
from pdstudy.study.settings import Study
from pdstudy.study.yaml_file import load

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
COUNTS = st.one_of(st.integers(1, 300), st.sampled_from([1, 2**31, 2**63, 10**30, 10**307, 10**400]))
SHARES = st.one_of(st.floats(0, 1), st.sampled_from([5e-324, 1e-300, 0.999999]))
SIZES = st.builds("{}/{}".format, st.integers(1, 999), st.integers(1, 24).map(lambda n: 64 * n)) | st.sampled_from(["tiny", "base"])
PLAUSIBLE = {  # of the right kind: what reaches the plan
    "sizes": st.lists(SIZES, min_size=1, max_size=4), "recipes": st.lists(st.sampled_from(list(RECIPES)), min_size=1, max_size=7),
    "seeds": st.lists(st.integers(0, 2**32), min_size=1, max_size=40), "init_std": st.dictionaries(st.integers(1, 20).map(lambda n: str(64 * n)), SHARES),
    "dropout": SHARES, "max_length": st.integers(8, 512), "teacher": st.fixed_dictionaries({"size": SIZES, "folder": st.none()}),
    "splits": st.fixed_dictionaries({"train": COUNTS, "dev": COUNTS, "test": COUNTS}), "transfer": st.fixed_dictionaries({"texts": COUNTS}),
    "corpus": st.fixed_dictionaries({"documents": st.none() | COUNTS, "heldout": SHARES}),
    "tokenizer": st.fixed_dictionaries({"vocabulary": st.integers(64, 65_535), "folder": st.none() | ODD_TEXTS}),
    "pretrain_by_size": st.dictionaries(SIZES, st.fixed_dictionaries({}, optional={"rate": SHARES, "starts": COUNTS, "tokens": COUNTS}), max_size=3),
}  # fmt: skip
TRAINS = {"epochs": SHARES | COUNTS, "batch": COUNTS, "rates": st.lists(SHARES, min_size=1, max_size=3), "warmup": SHARES}
READS = {
    "tokens": COUNTS | st.floats(1, 1e308),
    "row": st.integers(16, 512),
    "batch": COUNTS,
    "starts": COUNTS,
    "mask": SHARES,
    "rate": SHARES,
}
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
    code, message = answer(text, place, monkeypatch)
    assert code in (0, 2), message
    if code == 2:
        assert message.startswith("fuzz.yaml: ") or "PD (truncated)" in message or "holds none of" in message, message
        assert re.search(r"\w{3,}", message.removeprefix("fuzz.yaml: ")) and "Traceback" not in message and len(message) < 20_000
        assert not re.search("[\x00-\x08\x1b\u202e]", message), "no words of a file act on the terminal"
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


def deeper() -> dict:
    """Return plausible parts of the groups that have defaults."""
    train = st.fixed_dictionaries({}, optional=TRAINS)
    return {"finetune": train, "distill": train, "pretrain": st.fixed_dictionaries({}, optional=READS)}


def plausible(data: dict) -> bytes:
    """Return the smoke study with these settings, its widths' scales filled in where none are given."""
    merged = {key: SMOKE[key] | value if isinstance(value, dict) and key in deeper() else value for key, value in data.items()}
    if "init_std" not in data:
        merged["init_std"] = {str(64 * n): 0.05 for n in range(1, 25)}
    return dumped(SMOKE | merged)


FEW = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
MANY = settings(FEW, max_examples=1100)


def strategies():
    """Return, by name, the bytes that are tried: changed settings, cut and mixed lines, plain noise."""
    return {
        "plausible": st.fixed_dictionaries({}, optional=PLAUSIBLE | deeper()).map(plausible),
        "settings": st.builds(lambda c, e: dumped(changed(c, e)), CHANGES, st.just({}) | EXTRA),
        "lines": st.lists(st.sampled_from(LINES) | PIECES | st.text(max_size=15), max_size=25).map(
            lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass")
        ),
        "cut": st.tuples(st.integers(0, 1600), st.integers(0, 40), st.binary(max_size=6)).map(
            lambda cut: (full := "\n".join(LINES).encode())[: cut[0]] + cut[2] + full[cut[0] + cut[1] :]
        ),
        "noise": st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    }


def tried(examples: settings, kind: str, place: Path, monkeypatch) -> dict[int, int]:
    """Hold the answers to so many files of a kind against the promise, and return how often each exit code came."""
    codes = {0: 0, 2: 0}

    def one(text: bytes) -> None:
        codes[check(text, place, monkeypatch)] += 1

    examples(given(strategies()[kind])(one))()
    return codes


@pytest.mark.parametrize("kind", strategies())
def test_params_files_of_each_kind_are_a_study_or_refused_with_a_sentence(place, monkeypatch, kind):
    assert sum(tried(FEW, kind, place, monkeypatch).values()) >= 40


@pytest.mark.faults
@pytest.mark.night
@pytest.mark.parametrize("kind", strategies())
def test_thousands_of_params_files_of_each_kind_are_a_study_or_refused_with_a_sentence(place, monkeypatch, kind, capsys):
    codes = tried(MANY, kind, place, monkeypatch)
    with capsys.disabled():
        print(
            f"\nfuzz of params, {kind}: {sum(codes.values()):,} files, {codes[0]:,} studies, {codes[2]:,} refused with exit 2",
            end="",
        )
    assert sum(codes.values()) >= 1000, "five kinds make 5,000 and more"
