"""The hub: fetched files have the stated hashes and the pinned commit; anything else is refused before training.

The libraries talk to a hub on 127.0.0.1 (hub_server.py); a socket to anywhere else is an error.
"""

import functools
import io
import json
import pickle
import shutil
import socket

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from hub_server import HUB
from safetensors.torch import load_file, save
from transformers import BertConfig, BertForPreTraining
from typer.testing import CliRunner

from pdstudy import Study, run_study
from pdstudy.__main__ import app
from pdstudy.data import hub, mirror, sources
from pdstudy.data.tasks import DATA, TASKS, Named
from pdstudy.data.tokenizer import open_tokenizer
from pdstudy.models.weights import load_pretrained
from pdstudy.run.scheduler import RunError
from pdstudy.storage import paths
from pdstudy.storage.store import Store
from pdstudy.study import plan
from pdstudy.study.settings import ParamsError

GLUE, IMDB = DATA["sst2"].hub, DATA["imdb"].hub
START, FAMILY = "google/bert_uncased_L-1_H-64_A-1", "hub:google/bert_uncased_L-{layers}_H-{hidden}_A-{heads}"
STUDY = {
    "name": "from-the-hub",
    "task": "sst2",
    "sizes": ["1/64"],
    "recipes": ["PF", "PD"],
    "seeds": [0],
    "splits": {"dev": 40},
    "corpus": {"heldout": 0.2},
    "tokenizer": {"vocabulary": 100},
    "max_length": 16,
    "init_std": {"64": 0.06},
    "family": FAMILY,
    "teacher": {"size": "1/64", "margin": -1},
    "transfer": {"texts": 100},
    "finetune": {"epochs": 1, "rates": [0.002]},
    "distill": {"epochs": 1, "rates": [0.002]},
    "precision": "fp32",
}
GOOD, BAD, OTHER = (
    ["fine", "good", "great", "lovely"],
    ["awful", "bad", "dull", "poor"],
    ["film", "story", "cast", "scene", "a", "the"],
)
PIECES = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *GOOD, *BAD, *OTHER, *map(str, range(10))]
PIECES += [f"##{i}" for i in range(10)]


def phrases(seed: int, n: int) -> tuple[list[str], list[int]]:
    rng = np.random.default_rng(seed)
    labels = [i % 2 for i in range(n)]
    return [" ".join(rng.choice([*(GOOD if y else BAD), *OTHER], 7)) + f" {rng.integers(10**6)}" for y in labels], labels


def parquet(columns: dict, names: tuple[str, ...]) -> bytes:
    """Return a table as the hub keeps it: `datasets` writes the classes' names into it."""
    table = datasets.Dataset.from_dict(columns).cast_column("label", datasets.ClassLabel(names=list(names)))
    table.to_parquet(buffer := io.BytesIO())
    return buffer.getvalue()


def card(config: str, *splits: str) -> bytes:
    files = [{"split": split, "path": f"{config}/{split}-*"} for split in splits]
    return f"---\n{yaml.safe_dump({'configs': [{'config_name': config, 'data_files': files}]})}---\n".encode()


@functools.cache
def sst2(names=DATA["sst2"].labels, seed: int = 0) -> dict[str, bytes]:
    made = {"train": phrases(seed, 300), "validation": phrases(seed + 1, 60)}
    files = {
        f"sst2/{split}-00000-of-00001.parquet": parquet({"sentence": t, "label": y, "idx": range(len(t))}, names)
        for split, (t, y) in made.items()
    }
    return {"README.md": card("sst2", *made)} | files


@functools.cache
def imdb() -> dict[str, bytes]:
    """Return reviews of three sentences: train in two files, and a split without labels."""
    files = {"README.md": card("plain_text", "train", "unsupervised")}
    for seed, name in enumerate(("train-00000-of-00002", "train-00001-of-00002", "unsupervised-00000-of-00001")):
        sentences, labels = phrases(10 + seed, 90)
        reviews = [" .<br /><br />".join(sentences[i : i + 3]) + " ." for i in range(0, 90, 3)]
        columns = {"text": reviews, "label": [-1] * 30 if "unsup" in name else labels[:30]}
        files[f"plain_text/{name}.parquet"] = parquet(columns, DATA["imdb"].labels)
    return files


def released(vocabulary: int) -> BertForPreTraining:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 256}
    return BertForPreTraining(BertConfig(vocab_size=vocabulary, **sizes))


@functools.cache
def _checkpoint(vocabulary: int) -> dict[str, torch.Tensor]:
    """Return a tiny BERT's weights as the first BERTs name theirs: gamma and beta, a tied decoder, next-sentence prediction."""
    model = released(vocabulary)
    named = {k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v.clone().contiguous()
             for k, v in model.state_dict().items()}  # fmt: skip
    assert "cls.seq_relationship.weight" in named and "bert.embeddings.LayerNorm.gamma" in named
    return named


def checkpoint(vocabulary: int = len(PIECES)) -> dict[str, torch.Tensor]:
    return dict(_checkpoint(vocabulary))


def bert(vocabulary: int = len(PIECES), weights: dict | None = None, **more) -> dict[str, bytes]:
    """Return a model's repository: an old configuration without model_type, safetensors, a vocab.txt."""
    fields = {"hidden_act": "gelu", "vocab_size": vocabulary, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    fields |= {"intermediate_size": 256, "max_position_embeddings": 512, "type_vocab_size": 2, "initializer_range": 0.02} | more
    return {
        "config.json": json.dumps(fields).encode(),
        "model.safetensors": save(weights or checkpoint(vocabulary), {"format": "pt"}),
        "vocab.txt": ("\n".join(PIECES) + "\n").encode(),
        "pytorch_model.bin": b"never asked for",
    }


@pytest.fixture(scope="module", autouse=True)
def running():
    HUB.start()
    yield
    HUB.shutdown()


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty mirror, a hub with what the study needs, and no way to anywhere but this machine."""
    HUB.reset()
    HUB.push("datasets", GLUE, sst2())
    HUB.push("datasets", IMDB, imdb())
    HUB.push("models", START, bert())
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    monkeypatch.setattr(paths, "MODELS", tmp_path / "models")
    monkeypatch.setattr(paths, "STORE", tmp_path / "store")
    connect, resolve, elsewhere = socket.socket.connect, socket.getaddrinfo, []

    def here(host) -> bool:
        return host in (None, "127.0.0.1", "::1", "localhost")

    def connect_here(self, address):
        if self.family != socket.AF_UNIX and not here(address[0]):
            elsewhere.append(address)
            raise OSError(f"a connection to {address}")
        return connect(self, address)

    def resolve_here(host, *more, **named):
        if not here(host.decode() if isinstance(host, bytes) else host):
            elsewhere.append(host)
            raise OSError(f"a question for {host}")
        return resolve(host, *more, **named)

    monkeypatch.setattr(socket.socket, "connect", connect_here)
    monkeypatch.setattr(socket, "getaddrinfo", resolve_here)
    yield tmp_path
    assert not elsewhere, "no code may connect to another machine, even where the error is caught"


@pytest.fixture
def online(monkeypatch):
    for settings in ("huggingface_hub.constants.HF_HUB_OFFLINE", "datasets.config.HF_HUB_OFFLINE"):
        monkeypatch.setattr(settings, False)


@pytest.fixture
def study(place):
    """Write a study's params file, changed at will, and return its path."""

    def write(**changes) -> str:
        (place / "study.yaml").write_text(json.dumps(STUDY | changes))
        return str(place / "study.yaml")

    return write


def invoke(*words: str, code: int) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == code, (done.output, done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    return done.output.replace("\n", " ")


# A load


def test_a_fetched_study_runs_without_a_network_and_starts_from_the_hubs_weights(study, place, online, monkeypatch):
    file = study()
    output = invoke("fetch", file, code=0)
    assert "sst2/train: 300 rows" in output and "imdb/train: 60 rows" in output and START in output
    assert not any(request.endswith((".bin", ".py")) and "GET" in request for request in HUB.asked)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    HUB.asked.clear()
    metrics, store = run_study(Study.read(file), workers=0, store=Store(place / "store")), Store(place / "store")
    assert not HUB.asked
    assert set(metrics.recipe) >= {"PF", "PD", "start"}
    (adopted,) = plan.make(Study.read(file)).of_stage("adopt")
    weights, theirs = load_file(store.open(adopted.digest) / "model.safetensors"), checkpoint()
    assert torch.equal(weights["bert.pooler.dense.weight"], theirs["bert.pooler.dense.weight"])
    assert torch.equal(weights["bert.embeddings.LayerNorm.weight"], theirs["bert.embeddings.LayerNorm.gamma"])
    assert weights["bert.embeddings.word_embeddings.weight"].dtype == torch.float32
    ids, positions = torch.arange(1, 13).view(2, 6), torch.tensor([3, 8])
    with torch.inference_mode():
        ours = load_pretrained(paths.absolute(f"hub:{START}"))[2].eval()(ids, positions)
        logits = released(len(PIECES)).eval()(input_ids=ids).prediction_logits.reshape(12, -1)[positions]
    assert torch.allclose(ours, logits, atol=1e-5), "the released weights give the same logits here"
    (texts,) = plan.make(Study.read(file)).of_stage("texts")
    read = pq.read_table(store.open(texts.digest) / "transfer.parquet").column("text").to_pylist()
    assert not any("<br" in text for text in read) and len(read) > 100


def test_the_manifest_holds_the_commit_and_the_sha256_of_every_file(study, place, online):
    invoke("fetch", study(), code=0)
    for folder, kind, name in (("data/sst2", "datasets", GLUE), (f"models/{START}", "models", START)):
        manifest = json.loads((place / folder / "manifest.json").read_text())
        assert manifest["revision"] == list(HUB.repositories[kind, name])[-1]
        files = {p.name for p in (place / folder).iterdir()} - {"manifest.json"}
        assert set(manifest["files"]) == files
        assert all(
            mirror.file_record(place / folder / f) == {k: manifest["files"][f][k] for k in ("bytes", "sha256")} for f in files
        )
    assert not list(place.rglob(".fetching-*"))


def test_a_run_fetches_what_is_missing_and_a_second_fetch_asks_for_no_file(study, online):
    study_ = Study.read(study())
    hub.fetch_missing(*study_.named_on_hub())
    assert plan.make(study_).steps
    HUB.asked.clear()
    assert "sst2/train: already there" in invoke("fetch", study(), code=0)
    assert not [request for request in HUB.asked if "resolve" in request]


def test_the_texts_are_known_by_their_content_however_the_mirror_wrote_them(study, place, online):
    hub.fetch(*Study.read(study()).named_on_hub())
    before = set(plan.make(Study.read(study())).steps)
    path = mirror.split_path("sst2/train")
    table = pq.read_table(path).select(["label", "sentence"])
    table = table.set_column(0, "label", table.column("label").cast(pa.int8()))
    (path.parent / "manifest.json").unlink()  # a mirror made by hand
    pq.write_table(table, path, compression="zstd", row_group_size=7)
    assert set(plan.make(Study.read(study())).steps) == before
    pq.write_table(table.slice(1), path)
    assert plan.make(Study.read(study())).of_stage("texts")[0].digest not in before


# What is pinned


def test_a_mirror_takes_the_commit_of_its_manifest_though_the_hub_has_a_newer_one(study, place, online):
    invoke("fetch", study(), code=0)
    first = sources.content_of("sst2/train", "train")
    HUB.push("datasets", GLUE, sst2(seed=5))
    mirror.split_path("sst2/train").unlink()
    invoke("fetch", study(), code=0)
    assert sources.content_of("sst2/train", "train") == first
    shutil.rmtree(place / "data" / "sst2")
    invoke("fetch", study(), code=0)
    assert sources.content_of("sst2/train", "train") != first


def test_a_commit_can_be_requested_and_a_missing_one_is_an_error(study, place, online):
    old = HUB.push("datasets", GLUE, sst2(seed=5))
    HUB.push("datasets", GLUE, sst2(seed=7))
    invoke("fetch", study(), "--revision", f"{GLUE}={old}", code=0)
    assert mirror.manifest(place / "data" / "sst2")["revision"] == old
    assert f"holds commit {old}" in invoke("fetch", study(), "--revision", f"{GLUE}={'f' * 40}", code=2)
    shutil.rmtree(place / "data" / "sst2")
    assert f"the hub has no commit {'f' * 40} of {GLUE}" in invoke("fetch", study(), "--revision", f"{GLUE}={'f' * 40}", code=2)
    assert "the study names no such repository" in invoke("fetch", study(), "--revision", "a/b=c", code=2)


def test_another_text_than_the_manifest_pins_is_refused(study, place, online):
    invoke("fetch", study(), code=0)
    manifest = place / "data" / "sst2" / "manifest.json"
    record = json.loads(manifest.read_text())
    record["revision"] = HUB.push("datasets", GLUE, sst2(seed=5))
    manifest.write_text(json.dumps(record))
    mirror.split_path("sst2/train").unlink()
    assert "holds another text than the manifest pins" in invoke("fetch", study(), code=2)
    assert not mirror.split_path("sst2/train").exists()


# What goes wrong on the way


def test_without_network_and_mirror_a_run_ends_with_the_name_and_two_ways_before_any_training(study, place):
    output = invoke("run", study(), "--workers", "0", code=2)
    assert (
        f"the data set imdb ({IMDB}, plain_text), split train," in output
        or f"the data set sst2 ({GLUE}, sst2), split train," in output
    )
    assert "python -m pdstudy fetch" in output and "PDSTUDY_DATA" in output
    assert not (place / "store").exists() and not HUB.asked
    assert "HF_HUB_OFFLINE is set" in invoke("fetch", study(), code=2)
    assert "is missing" in invoke("plan", study(), code=0)  # the plan needs no data


def test_a_missing_model_is_named_with_two_ways(study, place, online, monkeypatch):
    hub.fetch(*Study.read(study()).named_on_hub())
    shutil.rmtree(place / "models")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    output = invoke("run", study(), "--workers", "0", code=2)
    assert f"the model {START} is missing" in output and "PDSTUDY_MODELS" in output


def test_a_cut_connection_is_one_sentence_and_the_same_command_goes_on(study, place, online, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # of the library between its own attempts
    HUB.cut = {"model.safetensors"}
    output = invoke("fetch", study(), code=1)
    assert f"broke while {START} was fetched" in output and "run the same command again" in output
    assert not (place / "models" / START / "model.safetensors").exists()
    assert mirror.split_path("sst2/train").exists()
    HUB.cut = set()
    HUB.asked.clear()
    invoke("fetch", study(), code=0)
    assert not [request for request in HUB.asked if ".parquet" in request]
    assert plan.make(Study.read(study())).of_stage("adopt")


@pytest.mark.parametrize("file", ["train-00000-of-00001.parquet", "model.safetensors"])
def test_a_file_with_another_sha256_than_the_hub_states_is_not_kept(study, place, online, file):
    HUB.altered = {file}
    assert "the hub states" in invoke("fetch", study(), code=1)
    assert not mirror.split_path("sst2/train").exists() or file == "model.safetensors"
    assert not (place / "models" / START / "model.safetensors").exists()
    HUB.altered = set()
    invoke("fetch", study(), code=0)


@pytest.mark.parametrize("file", ["data/sst2/train.parquet", f"models/{START}/model.safetensors"])
def test_a_file_of_the_mirror_that_was_changed_is_refused_by_its_sha256(study, place, online, file):
    hub.fetch(*Study.read(study()).named_on_hub())
    with (place / file).open("ab") as opened:
        opened.write(b"x")
    with pytest.raises(ParamsError, match="is not the file that was fetched"):
        plan.make(Study.read(study()))
    assert "is not the file that was fetched" in invoke("fetch", study(), code=2)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (sst2(names=("positive", "negative")), "its classes are positive, negative, but negative, positive were expected"),
        ({"README.md": b"", "glue.py": b"import os"}, f"{GLUE}: "),
        ({"README.md": card("mnli", "train")} | {"mnli/train-0.parquet": b"x"}, "'sst2' not found"),
        ({k: v for k, v in sst2().items() if "validation" not in k}, f"{GLUE}"),
    ],
    ids=["classes in another order", "a script", "no such config", "no such split"],
)
def test_a_data_set_that_differs_from_its_entry_is_refused(study, online, files, sentence):
    HUB.repositories.clear()
    HUB.push("datasets", GLUE, files)
    HUB.push("datasets", IMDB, imdb())
    assert sentence in invoke("fetch", study(), code=2)


def test_scores_are_fetched_as_numbers(study, place, online):
    scores = {"train": [0.0, 2.917, 5.0], "validation": [3.8, 1.0, 4.75]}
    files = {}
    for split, labels in scores.items():
        table = pa.table({"sentence1": ["a", "b", "c"], "sentence2": ["d", "e", "f"], "label": pa.array(labels, pa.float32())})
        pq.write_table(table, buffer := io.BytesIO())
        files[f"stsb/{split}-00000-of-00001.parquet"] = buffer.getvalue()
    HUB.push("datasets", GLUE, {"README.md": card("stsb", *scores)} | files)
    assert "stsb/validation: 3 rows" in invoke("fetch", study(task="stsb"), code=0)
    stored = pq.read_table(place / "data" / "stsb" / "train.parquet").column("label").to_pylist()
    assert stored == pytest.approx(scores["train"], abs=1e-6)
    labelled = sources.read(TASKS["stsb"]).labelled
    assert [labelled["test"][i][1] / 5 for i in range(3)] == [3.8, 1.0, 4.8]


def test_a_repository_that_is_not_there_is_named(study, online):
    del HUB.repositories["models", START]
    assert f"the hub has no {START}, or you have no access" in invoke("fetch", study(), code=2)


# Models that are refused


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_only_checkpoint_is_refused_with_the_cure_and_never_downloaded(study, place, online):
    files = bert() | {"pytorch_model.bin": pickle.dumps(Bomb(place / "executed"))}
    del files["model.safetensors"]
    HUB.push("models", START, files)
    output = invoke("fetch", study(), code=2)
    assert f"{START}: no model.safetensors; pickled weights are not opened, convert them" in output
    assert not any(".bin" in request for request in HUB.asked) and not (place / "executed").exists()


def test_a_model_with_code_of_its_own_is_refused_before_its_weights_come(study, online):
    HUB.push("models", START, bert(auto_map={"AutoModel": "modeling.Theirs"}))
    assert "asks for code of its own (auto_map)" in invoke("fetch", study(), code=2)
    assert not any("safetensors" in request for request in HUB.asked)


@pytest.fixture
def refused(study, online, place):
    """Return the reason with which a run ends."""

    def run(**changes) -> str:
        with pytest.raises((RunError, ParamsError)) as caught:
            run_study(Study.read(study(**changes)), workers=0, store=Store(place / "store"))
        return str(caught.value)

    return run


def test_a_vocabulary_that_does_not_fit_the_model_is_refused(refused):
    HUB.push("models", START, bert(vocabulary=len(PIECES) + 3))
    assert f"the encoder knows {len(PIECES) + 3} word pieces, its tokenizer {len(PIECES)}" in refused()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w: w.pop("bert.encoder.layer.0.output.dense.bias"), "bert.encoder.layer.0.output.dense.bias is missing"),
        (lambda w: w.pop("cls.predictions.bias"), "cls.predictions.bias is missing"),
        (lambda w: w.update({"bert.adapter.weight": torch.zeros(2)}), "bert.adapter.weight is not a weight of a BERT of 1/64"),
        (lambda w: w.update({"classifier.bias": torch.zeros(2)}), "a fine-tuned classifier"),
        (lambda w: w.update({"cls.predictions.decoder.weight": torch.zeros(len(PIECES), 64)}), "is not tied"),
    ],
)  # fmt: skip
def test_weights_that_are_missing_or_unexpected_are_refused_by_name(refused, change, reason):
    weights = checkpoint()
    change(weights)
    HUB.push("models", START, bert(weights=weights))
    assert reason in refused()


def test_an_encoder_without_its_mlm_head_can_be_a_start(study, online, place):
    bare = {k.removeprefix("bert."): v for k, v in checkpoint().items() if k.startswith("bert.")}
    HUB.push("models", START, bert(weights=bare, model_type="bert"))
    metrics = run_study(Study.read(study(recipes=["PF"])), workers=0, store=Store(place / "store"))
    assert "PF" in set(metrics.recipe)


def test_a_teacher_whose_classes_have_other_names_is_refused(refused):
    weights = {k: v for k, v in checkpoint().items() if k.startswith("bert.")}
    weights |= {"classifier.weight": torch.zeros(2, 64), "classifier.bias": torch.zeros(2)}
    weights = {
        k.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): v for k, v in weights.items()
    }
    files = bert(weights=weights, model_type="bert", id2label={"0": "cats", "1": "dogs"}, label2id={"cats": 0, "dogs": 1})
    HUB.push("models", "somebody/teacher", files)
    reason = refused(teacher={"size": None, "folder": "hub:somebody/teacher", "margin": -1})
    assert "the teacher's classes are ['cats', 'dogs'], the task's ['negative', 'positive']" in reason


def test_the_same_word_pieces_in_a_vocab_txt_and_in_a_tokenizer_json_are_one_tokenizer_and_other_pieces_are_another(
    study, online, place
):
    large = bert(num_hidden_layers=2)
    HUB.push("models", "somebody/large", large)
    family = {"family": {"others": FAMILY, "2/64": "hub:somebody/large"}, "teacher": {"size": "2/64", "margin": -1}}
    hub.fetch(*Study.read(study(**family)).named_on_hub())
    there = place / "models" / "somebody" / "large"
    open_tokenizer(there)[0].save(str(there / "tokenizer.json"))
    (there / "vocab.txt").unlink()
    made = plan.make(Study.read(study(**family)))
    assert (len(made.of_stage("adopt")), len(made.of_stage("tokenizer"))) == (2, 1)
    (there / "tokenizer.json").unlink()
    (there / "manifest.json").unlink()
    (there / "vocab.txt").write_bytes(large["vocab.txt"].replace(b"film", b"movie"))
    assert len(plan.make(Study.read(study(**family))).of_stage("tokenizer")) == 2


@pytest.mark.parametrize("name", ["hub:one", "hub:a/../b", "hub:../a", "hub:a/b/c", "hub:/etc"])
def test_a_name_that_leads_out_of_the_mirror_is_refused(study, name):
    with pytest.raises(ParamsError, match="is not the name of a model of the hub; write hub:owner/name"):
        Study.read(study(family=name))


# The tasks


def test_named_tasks_use_splits_with_the_same_columns_and_labels():
    for task in TASKS.values():
        if isinstance(task.source, Named):
            parts = task.source.parts()
            assert {name.split("/")[0] for names in parts.values() for name in names} <= set(DATA)
            read = (*parts["train"], *parts["test"], *parts.get("dev", ()), *parts.get("transfer", ()))
            assert len({len(DATA[name.split("/")[0]].text) for name in read}) == 1, "pairs are not mixed with single texts"
            assert {DATA[name.split("/")[0]].labels for part in ("train", "dev", "test") for name in parts.get(part, ())} == {
                task.labels
            }
            assert task.source.test not in (task.source.train, *task.source.transfer, *task.source.corpus)
