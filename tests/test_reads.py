"""Named data sets as D_LM in the place of a task's own: `corpus.data`."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pdstudy import Study, run_study
from pdstudy.data import cleaning, hub, mirror, sources
from pdstudy.storage import paths
from pdstudy.storage.store import Store
from pdstudy.study import plan
from pdstudy.study.settings import ParamsError

SMALL = {
    "name": "reads",
    "task": "sst2",
    "sizes": ["1/64"],
    "recipes": ["PF", "PD"],
    "seeds": [0],
    "splits": {"dev": 20},
    "corpus": {"heldout": 0.1, "data": ["wiki/train", "imdb/train"]},
    "tokenizer": {"vocabulary": 100},
    "max_length": 16,
    "init_std": {"64": 0.06},
    "pretrain": {"tokens": 2000, "row": 16, "batch": 8},
    "teacher": {"size": "1/64", "margin": -1},
    "transfer": {"texts": 20},
    "finetune": {"epochs": 1, "rates": [0.002]},
    "distill": {"epochs": 1, "rates": [0.002]},
    "precision": "fp32",
}
QUOTED = "nobody may read this sentence of the test"


def write(name: str, **columns) -> None:
    path = mirror.split_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A mirror made by hand: phrases, reviews with tags, articles, one of which quotes a sentence of the test."""
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    monkeypatch.setattr(paths, "STORE", tmp_path / "store")
    write("sst2/train", sentence=[f"phrase {i} is a fine or a dull one" for i in range(80)], label=[i % 2 for i in range(80)])
    write("sst2/validation", sentence=[QUOTED, *(f"measured phrase {i}" for i in range(19))], label=[i % 2 for i in range(20)])
    for split, n in (("train", 0), ("unsupervised", 100)):
        write(
            f"imdb/{split}",
            text=[f"review {n + i} goes on here.<br />and it ends {n + i} times so." for i in range(40)],
            label=[0] * 40,
        )
    write(
        "wiki/train",
        text=[f"article number {i} tells of a place. the quick brown fox jumps over a lazy dog." for i in range(30)]
        + [f"so. {QUOTED}. and on."],
    )
    return tmp_path


def texts(**changes) -> cleaning.Texts:
    study = Study(**SMALL | changes)
    return cleaning.build(sources.read(study.resolved_task()), {"dev": 20}, None, 0.1, 0)


def test_the_named_data_are_read_and_the_transfer_set_stays_the_tasks_own(data):
    named, own = texts(), texts(corpus={"heldout": 0.1})
    read = [*named.documents, *named.heldout]
    assert sorted(text.split()[0] for text in read) == ["article"] * 30 + ["review"] * 40
    assert not any("<br" in text for text in read)
    assert named.counts["D_LM"]["leaks"] == 1
    # D_T: two sentences of each of the 80 reviews, of the split that is not read too
    assert sorted(named.transfer) == sorted(
        s for i in (*range(40), *range(100, 140)) for s in (f"review {i} goes on here.", f"and it ends {i} times so.")
    )
    assert named.labelled == own.labelled
    assert len(own.documents) + len(own.heldout) == 80


def test_what_is_read_is_part_of_the_texts_by_its_content(data):
    def digest(**corpus) -> str:
        return plan.make(Study(**SMALL | {"corpus": {"heldout": 0.1} | corpus})).of_stage("texts")[0].digest

    before = digest(data=["wiki/train"])
    assert len({before, digest(), digest(data=["imdb/train"]), digest(data=["wiki/train", "imdb/train"])}) == 4
    assert digest(data=[]) == digest()
    write("wiki/train", text=["another article is here"] * 2)
    assert digest(data=["wiki/train"]) != before


def test_a_study_on_named_data_runs_and_says_what_it_read(data):
    study = Study(**SMALL)
    store = Store(data / "store")
    assert set(run_study(study, workers=0, store=store).recipe) >= {"PF", "PD"}
    assert study.resolved_task().corpus == "wiki/train, imdb/train"
    (step,) = plan.make(study).of_stage("texts")
    assert pq.read_metadata(store.open(step.digest) / "corpus.parquet").num_rows == 63  # of 70, a tenth held out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"corpus": {"data": ["wikipedia/train"]}},
            "'wikipedia/train' is not a split of a named data set; write one of sst2, .*, wiki, reviews with",
        ),
        ({"corpus": {"data": ["../wiki/train"]}}, "is not a split of a named data set"),
        ({"corpus": {"data": ["wiki/../sst2"]}}, "is not a split of a named data set"),
        ({"corpus": {"data": ["wiki"]}}, "is not a split of a named data set"),
        ({"corpus": {"data": [3]}}, "is not a split of a named data set"),
        ({"corpus": {"data": ["wiki/train", "wiki/train"]}}, "corpus.data: 'wiki/train' is listed twice"),
        ({"task": {"train": "a.csv", "corpus": ["b.txt"]}}, "corpus.data and task.corpus both say what D_LM is"),
    ],
)
def test_a_d_lm_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ParamsError, match=message):
        Study.checked(SMALL | changes)


def test_data_that_is_not_at_hand_is_named_with_the_cure_before_anything_is_computed(data):
    mirror.split_path("wiki/train").unlink()
    assert hub.missing(*Study(**SMALL).named_on_hub())[0] == ["wiki/train"]
    with pytest.raises(mirror.MirrorError, match=r"put wiki/train.parquet \(columns text\) into the folder PDSTUDY_DATA"):
        hub.fetch_missing(*Study(**SMALL).named_on_hub())
    with pytest.raises(ParamsError, match=r"wiki/train.parquet \(columns text\)"):
        plan.make(Study(**SMALL))


def test_the_two_studies_for_a_gpu_read_wikipedia_and_reviews_and_are_planned(data, monkeypatch):
    """The second has its texts in plain files, which benchmarks/plain_tasks.py writes beside the params file's folder."""
    sst2 = Study.read("gpu")
    params = data / "params" / "gpu-books.yaml"
    params.parent.mkdir()
    shutil.copy(paths.PARAMS / params.name, params)
    monkeypatch.setattr(paths, "ROOT", data)
    task = yaml.safe_load(params.read_text())["task"]
    for name in (task["train"], task["test"], *task["transfer"], *(p for files in task["elsewhere"].values() for p in files)):
        path = params.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("review,rating\n" + "".join(f"book {i},{'good' if i % 2 else 'bad'}\n" for i in range(500)))
    books = Study.read(params)
    read = ["wiki/train", "imdb/train", "imdb/unsupervised"]
    for study, recipes in ((sst2, 4), (books, 4)):
        assert study.corpus.data == read
        assert list(study.resolved_task().reads) == read
        made = plan.make(study)
        assert len(study.sizes) * recipes * len(study.seeds) <= len(made.students)
        assert len(made.of_stage("pretrain")) == len(study.all_sizes)
    assert sst2.resolved_task().source.sentences  # D_T: sentences of the reviews
    assert [s.settings["corpus"] for s in plan.make(books).of_stage("domain")] == ["transfer", "electronics", "imdb"]
