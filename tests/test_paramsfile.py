"""A params file is found, read with limits, and refused with one sentence where it is no mapping."""

import re
import time

import pytest

from pdstudy.storage import paths
from pdstudy.study import yaml_file
from pdstudy.study.yaml_file import ParamsError, find, load


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty; copy params/smoke.yaml"),
        ("# nothing\n", "the file is empty"),
        ("- a\n- b\n", "expected keys and values, got a list"),
        ("just words", "expected keys and values, got a str"),
        ("a: [1, 2", "not YAML at line 1"),
        ("name: x\nname2: a\n  b: c", "not YAML at line 3"),
        ("a: \x00", "not YAML"),
        ("a: !!int ''", "not YAML"),
        ("a: 2001-13-45", "not YAML"),
        ("? [a]\n: b", "not YAML at line 1"),
        ("a: " + "[" * 5000, "more than 16 levels of nesting"),
        ("3: x", "3 is not a parameter name"),
        ("import os; os.system('x'): 1", "is not a parameter name"),
        ("a: !!python/object/apply:os.system ['touch canary']", "not YAML at line 1: could not determine a constructor"),
        ("a: !!python/name:os.system", "not YAML at line 1"),
        (b"a: \xff\xfe", "not UTF-8 text"),
        (b"\xff\xfea\x00:\x00", "not UTF-8 text"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_a_params_file_is_refused_with_its_name_and_what_to_do(written, tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    path = written(text)
    with pytest.raises(ParamsError, match=re.escape(message)) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))
    assert [p.name for p in tmp_path.iterdir()] == ["mine.yaml"]


def test_a_file_that_is_too_large_is_not_parsed(tmp_path):
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    begun = time.perf_counter()
    with pytest.raises(ParamsError, match="100,000,000 bytes is too large"):
        load(path)
    assert time.perf_counter() - begun < 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)), 2),
        ("a: &a {rates: [1]}\nb: {<<: *a, d: 2}", 2),
        ("a: &a [*a, *a]\n", 1),
    ],
    ids=["a bomb", "a merge", "a loop"],
)
def test_an_alias_is_refused_with_its_line(written, text, line):
    with pytest.raises(ParamsError, match=re.escape(f"an alias (*) at line {line}; write the value out")):
        load(written(text))


@pytest.mark.parametrize("name", ["nosuch", "x" * 300, "a\0b", ""])
def test_a_missing_params_file_is_refused_with_the_names_that_exist(tmp_path, monkeypatch, name):
    (tmp_path / "one.yaml").write_text("")
    (tmp_path / "two.yaml").write_text("")
    monkeypatch.setattr(paths, "PARAMS", tmp_path)
    monkeypatch.setattr(paths, "ROOT", tmp_path / "workspace")
    with pytest.raises(ParamsError, match=r"no such params file; choose one of params/\{one,two\}\.yaml"):
        find(name)


def test_a_params_file_is_found_by_name_or_by_path(tmp_path, monkeypatch):
    (tmp_path / "one.yaml").write_text("")
    monkeypatch.setattr(paths, "PARAMS", tmp_path)
    assert find("one") == find("one.yaml") == find(tmp_path / "one.yaml") == tmp_path / "one.yaml"


def test_a_file_with_too_many_values_is_refused(written):
    path = written("a:\n" + "- 1\n" * yaml_file.MAX_VALUES)
    with pytest.raises(ParamsError, match="more than 20,000 values"):
        load(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: a\nseeds: [1]\nname: b\n", "the key 'name' is repeated at line 3; keep one"),
        ("finetune: {rates: [1], epochs: 2, epochs: 3}\n", "the key 'epochs' is repeated at line 1"),
        ("a: [{b: {c: 1, c: 1}}]\n", "the key 'c' is repeated"),
    ],
)
def test_a_repeated_key_is_refused_with_its_name_and_line(written, text, sentence):
    with pytest.raises(ParamsError, match=re.escape(sentence)):
        load(written(text))


@pytest.mark.parametrize("text", ["a: " + "[" * 17 + "]" * 17, "a: " + "{b: " * 17 + "1" + "}" * 17])
def test_values_nested_too_deeply_are_refused(written, text):
    with pytest.raises(ParamsError, match="more than 16 levels of nesting"):
        load(written(text))


def test_a_params_file_is_found_from_the_workspace_and_from_the_package_and_a_near_name_is_offered(tmp_path, monkeypatch):
    package, own = tmp_path / "package", tmp_path / "own" / "params"
    for folder, name in ((package, "smoke"), (package, "quick"), (own, "quick")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_text("")
    monkeypatch.setattr(paths, "PARAMS", package)
    monkeypatch.setattr(paths, "ROOT", tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    assert find("quick") == find("params/quick.yaml") == own / "quick.yaml" and find("smoke") == package / "smoke.yaml"
    with pytest.raises(ParamsError, match="no such params file; did you mean 'quick'"):
        find("quik")
