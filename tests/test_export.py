"""An exported student opens without our code and answers as it did in the study; its card says what was measured."""

import json
import pickle
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from first_question import FIRST_QUESTION

from pdstudy import Study
from pdstudy.data import tokenizer as wordpieces
from pdstudy.escape import escape_markdown
from pdstudy.models import inference
from pdstudy.release import export, faithful, model_card, onnx_files, student
from pdstudy.release.export import ExportError, Unfaithful
from pdstudy.storage import files, paths, results
from pdstudy.storage.store import Store
from pdstudy.study import plan

ALONE = """
import json, sys
sys.modules["pdstudy"] = None
folder, texts, code, out = sys.argv[1:]
import numpy as np, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
cut = tokenizer(json.load(open(texts)), truncation=True)
with torch.no_grad():
    found = [model(**{k: torch.tensor([v]) for k, v in zip(cut, row)}).logits[0] for row in zip(*cut.values())]
np.save(out, torch.stack(found).numpy())
names = [type(model).__name__, model.config.id2label[0], model.config.id2label[1], model.config.label2id["positive"]]
print(json.dumps([names, cut["input_ids"], tokenizer.model_max_length]))
exec(code)
"""


class Bomb:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.fixture(scope="module")
def finished(exported):
    return student.find("smoke", "2/64-PF-s0", Store())


@pytest.fixture(scope="module")
def facts(exported):
    return json.loads((exported / "export.json").read_text())


def test_a_python_without_pdstudy_gives_the_study_s_answers_and_opens_no_pickle(exported, finished, facts, tmp_path):
    folder, gone_off = tmp_path / "model", tmp_path / "gone-off"
    shutil.copytree(exported, folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(gone_off)))
    (tmp_path / "texts.json").write_text(json.dumps(finished.texts("test")))
    five_lines = re.search(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)[1]
    assert five_lines.count("\n") == 5
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, folder, tmp_path / "texts.json", five_lines, tmp_path / "logits.npy"],
        capture_output=True, text=True, cwd=folder, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    truncation, label = done.stdout.splitlines()
    names, cut, most = json.loads(truncation)
    assert names == ["BertForSequenceClassification", "negative", "positive", 1]
    test, (stored, _) = finished.test_ids(), finished.test_logits()
    logits = np.load(tmp_path / "logits.npy")
    assert np.abs(logits - stored).max() < 1e-4 and (logits.argmax(1) == stored.argmax(1)).all()
    assert 0 < stored.argmax(1).sum() < len(stored) and stored.std(0).min() > 1e-3  # it does say different things
    assert np.concatenate(cut).tolist() == test.flat.tolist() and list(map(len, cut)) == test.lengths.tolist()
    assert most == 48 and facts["cut_short"] == 73 and max(map(len, cut)) == 48
    assert label in ("negative", "positive")
    assert not gone_off.exists()


def test_the_folder_holds_what_its_facts_list_and_no_pickle(exported, facts):
    there = {p.relative_to(exported).as_posix() for p in exported.rglob("*") if p.is_file()}
    assert there == {*facts["files"], "export.json"}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md", "onnx/model.onnx", "onnx/model_int8.onnx"} <= there
    assert not [name for name in there if name.endswith((".bin", ".pt", ".pkl", ".py"))]
    assert not list(exported.parent.glob(".*"))  # what it was written to is gone


def test_a_number_on_the_card_is_a_result_s(exported, finished, facts):
    metrics = results.load_results("smoke")
    row = metrics[(metrics.digest == facts["digest"]) & (metrics.split == "test") & (metrics.recipe == "PF")].set_index("metric")
    text = (exported / "README.md").read_text()
    for metric, cell in (("accuracy", "| accuracy | {:.1%} |"), ("f1", "| {:.3f} |"), ("mcc", "| Matthews' r | {:.3f} |")):
        assert facts["test"][metric] == facts["study_test"][metric] == row.value[metric]
        assert cell.format(row.value[metric]) in text
    assert f"{row.n_params.iloc[0]:,.0f} parameters" in text and "On the 300 test texts" in text
    counts = finished.record("texts")["counts"]["D_LM"]
    assert (
        f"| D\\_LM | {counts['read']:,} | {counts['empty']} | {counts['exact']} | " in text and f" | {counts['kept']:,} |" in text
    )
    teacher = student.find("smoke", "teacher", Store())
    same = (teacher.test_logits()[0].argmax(1) == finished.test_logits()[0].argmax(1)).mean()
    assert facts["teacher"]["agreement"] == same and f"| same answer as the teacher | {same:.1%} |" in text
    assert [s["stage"] for s in facts["stages"]] == ["pretrain", "finetune"] and '"rate": 0.001' in text
    assert facts["stages"][1]["searched"][-1] == 0.001 and "Rates tried on dev: " in text
    assert facts["engines"][0]["latency"]["threads"] == 1 and "1 of " in text


def test_an_interval_is_wilson_s():
    low, high = student.interval(8, 10).values()  # 8 of 10
    assert (low, high) == (pytest.approx(0.4901625), pytest.approx(0.9433178))


def test_the_hub_reads_the_card(exported, facts):
    from huggingface_hub import ModelCard

    data = ModelCard((exported / "README.md").read_text()).data
    assert (data.library_name, data.pipeline_tag, data.license, data.language) == (
        "transformers",
        "text-classification",
        None,
        None,
    )
    metrics = {result.metric_type: result.metric_value for result in data.eval_results}
    assert metrics == {
        "accuracy": round(facts["test"]["accuracy"], 4),
        "f1": round(facts["test"]["f1"], 4),
        "matthews_correlation": round(facts["test"]["mcc"], 4),
    }


def test_no_text_of_the_data_is_on_the_card_and_names_cannot_act(exported, finished, facts):
    text = (exported / "README.md").read_text()
    assert not [t for t in finished.texts("test") if len(t) > 12 and t in text]
    hostile = facts | {"labels": ["<img src=x onerror=alert(1)>", "a|b`c`\n# d\x1b[2J\u202e"], "task": "x: [y]\n- <b>"}
    card = model_card.card(hostile)
    assert "<img" not in card and "<b>" not in card.split("---")[2] and "\x1b" not in card and "\u202e" not in card
    assert "a\\|b\\`c\\` \\# d\\u001b\\[2J\\u202e" in card
    assert escape_markdown("# *x* <y>\n~z~ ![](u)") == "\\# \\*x\\* &lt;y&gt; \\~z\\~ \\!\\[\\](u)"


def test_a_collapsed_student_s_card_says_so(facts):
    assert "Do not use it" in model_card.card(facts | {"collapsed": True})
    assert "Do not use it" not in model_card.card(facts | {"collapsed": False})


def test_onnx_answers_as_torch_does_at_any_batch_and_length(exported, facts):
    torch_answer = inference.open_torch(exported, 1)
    rng = np.random.default_rng(0)
    for precision, reach in (("fp32", 1e-5), ("int8", 0.05)):
        onnx_answer = inference.open_onnx(exported / inference.ONNX[precision], 1)
        for batch, length in ((1, 2), (1, 33), (3, 40), (2, 512)):
            ids = rng.integers(5, 2048, (batch, length))
            mask, segments = np.arange(length) < rng.integers(2, length + 1, (batch, 1)), rng.integers(0, 2, ids.shape)
            for question in ((ids, None, None), (ids, mask, None), (ids, mask, segments)):
                assert np.abs(onnx_answer(*question) - torch_answer(*question)).max() < reach
    plain, small = (row for row in facts["engines"] if row["engine"].startswith("ONNX"))
    assert plain["largest_difference"] <= 1e-4 and plain["same_answers"] == 1.0 and plain["opset"] == 18
    assert small["bytes"] < 0.4 * plain["bytes"] and 0 <= small["accuracy"] <= 1


def test_an_onnx_file_that_answers_otherwise_is_refused(exported, finished):
    with pytest.raises(Unfaithful, match=r"ONNX Runtime: logits differ from torch's by 0\.001, more than 0\.0001"):
        export.engines(finished, exported, finished.test_logits()[0] + np.float32(0.001))


def test_no_file_tells_of_the_machine_that_wrote_it(exported):
    for path in (p for p in exported.rglob("*") if p.is_file()):
        data = path.read_bytes()
        assert not [place for place in (sys.prefix, str(paths.ROOT), str(paths.OUTPUTS)) if place.encode() in data], path.name
        assert b"site-packages" not in data


def test_weights_or_pieces_that_are_not_the_student_s_are_not_exported(finished, tmp_path):
    from safetensors.torch import load_file, save_file

    export.write(finished, tmp_path)
    assert np.abs(export.check(finished, tmp_path) - finished.test_logits()[0]).max() < 1e-4
    weights = load_file(tmp_path / "model.safetensors")
    moved = weights | {"classifier.bias": weights["classifier.bias"] + 0.001}
    save_file(moved, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Unfaithful, match=r"logits differ from the study's by 0\.001, more than"):
        export.check(finished, tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 47}))
    with pytest.raises(Unfaithful, match=r"test text \d+: the exported tokenizer gives other word pieces"):
        export.check(finished, tmp_path)


@pytest.mark.parametrize("lowercase", [True, False])
def test_the_exported_tokenizer_cuts_hostile_texts_as_training_does(lowercase, tmp_path):
    from tokenizers import normalizers
    from transformers import AutoTokenizer

    made = wordpieces._untrained({})
    wordpieces.trained_pieces(made, ["Émile says no . it's a film 中文"], 60)  # trains it in place
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    (tmp_path / "given").mkdir()
    made.save(str(tmp_path / "given" / "tokenizer.json"))
    export.write_tokenizer(tmp_path / "given", tmp_path, 8)
    texts = ["A Film it's", "", "Émile " * 9, "[SEP] [MASK]it [CLS]", "中文\u200b\ufffd NA", "\t ", "é e\u0301", "f" * 300]
    ids, _ = wordpieces.encode_texts(*wordpieces.open_tokenizer(tmp_path / "given"), texts, 8)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    expected = [ids.flat[a:b].tolist() for a, b in zip(ids.starts, ids.starts[1:], strict=False)]
    assert tokenizer(texts, truncation=True)["input_ids"] == expected
    assert tokenizer("a it", "no")["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1][: len(tokenizer("a it", "no")["input_ids"])]


def test_a_student_of_pairs_is_exported_and_labels_pairs(tmp_path):
    from test_own_task import STUDY

    from pdstudy import run_study
    from pdstudy.release import predict

    rng = np.random.default_rng(0)
    words = [" ".join(rng.choice(list("abcdefgh"), rng.integers(1, 14))) for _ in range(400)]
    lines = [f"{a} {i},{b},{'yn'[i % 2]}" for i, (a, b) in enumerate(zip(words[::2], words[1::2], strict=True))]
    (tmp_path / "pairs.csv").write_text("one,other,label\n" + "\n".join(lines) + "\n")
    task = {"name": "alike", "train": str(tmp_path / "pairs.csv"), "text": ["one", "other"]}
    short = {"epochs": 1, "batch": 16, "rates": [0.002]}
    more = {"name": "pairs-out", "task": task, "recipes": ["Basic"], "finetune": short, "tokenizer": {"vocabulary": 64}}
    run_study(Study(**STUDY | more), workers=0)
    finished = student.find("pairs-out", "1/64-basic-s0", Store())
    export.write(finished, tmp_path)
    test, (stored, _) = finished.test_ids(), finished.test_logits()
    assert test.lengths.max() == 16 and test.second is not None  # some pairs are cut
    assert np.abs(export.check(finished, tmp_path) - stored).max() < 1e-4
    facts = student.facts(finished, stored)
    assert facts["pairs"] and facts["task"] == "alike" and not facts["without_tags"]
    (tmp_path / "export.json").write_text(json.dumps(facts))
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"a": a, "b": b}) + "\n" for a, b in finished.texts("test")))
    labeller = predict.open_labeller(tmp_path)
    predict.label_file(labeller, tmp_path / "in.jsonl", tmp_path / "out.csv", ("a", "b"))
    rows = [line.split(",")[-2:] for line in (tmp_path / "out.csv").read_text().splitlines()[1:]]
    share = np.exp(stored) / np.exp(stored).sum(1, keepdims=True)
    assert [float(p) for _, p in rows] == pytest.approx(share.max(1).tolist(), abs=1e-4)
    assert [label for label, _ in rows] == ["ny"[i] for i in stored.argmax(1)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"other": b, "one": a}) + "\n" for a, b in finished.texts("test")))
    predict.label_file(labeller, tmp_path / "in.jsonl", tmp_path / "default.csv")  # the columns of the training file
    assert [line.split(",")[-2:] for line in (tmp_path / "default.csv").read_text().splitlines()[1:]] == rows
    with pytest.raises(predict.PredictError, match="trained on pairs: give --text twice"):
        predict.label_file(labeller, tmp_path / "in.jsonl", tmp_path / "more.csv", ("a",))


def test_a_student_is_found_by_its_name_however_it_is_written(exported, tmp_path):
    from pdstudy.study.yaml_file import load

    settings = (
        load(paths.PARAMS / "smoke.yaml")
        | FIRST_QUESTION
        | {
            "recipes": ["PD (truncated)", "PD-F"],
            "pretrain_by_size": {"4/64": {}, "4/128": {}},
        }
    )
    (tmp_path / "study.json").write_text(json.dumps(settings | {"precision": "auto"}))
    (tmp_path / "environment.json").write_text(json.dumps({"precision": "bf16"}))
    (tmp_path / "metrics.parquet").touch()
    store = Store(tmp_path / "store", families=())
    with pytest.raises(student.UnknownStudent, match="the store has none of them; run the study first"):
        student.find(tmp_path, "teacher", store)
    for made in plan.make(Study(**settings | {"precision": "bf16"})).students:
        (store.root / "evaluate" / made.evaluation).mkdir(parents=True)
        (store.root / "evaluate" / made.evaluation / "manifest.json").touch()
    finished = student.find(tmp_path, "2/64-pd (TRUNCATED)-s1", store)
    assert finished.name == "2/64-PD (truncated)-s1" and finished.precision == "bf16"  # as it was run, not as this machine prefers
    assert student.find(tmp_path, "teacher", store).name == "2/128-teacher-s0"
    with pytest.raises(student.UnknownStudent, match=r"no student '2/64-PDF-s1'; the nearest of its 11: '2/64-PD-F-s1', "):
        student.find(tmp_path, "2/64-PDF-s1", store)


def test_an_export_never_takes_the_place_of_anything_but_an_export(exported, tmp_path):
    def refused(to, force, sentence):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ExportError, match=sentence):
            export.export("smoke", "2/64-PF-s0", to, onnx=False, force=force)
        assert sorted(tmp_path.rglob("*")) == before

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    refused(tmp_path / "mine", False, "it is not empty; name another folder with --to")
    refused(tmp_path / "mine", True, "not an earlier export")
    refused(tmp_path / "mine" / "thesis.tex", True, "it is a file")
    shutil.copytree(exported, tmp_path / "model")
    refused(tmp_path / "model", False, "replace an earlier export with --force")
    (tmp_path / "model" / ".git").mkdir()
    (tmp_path / "model" / ".git" / "HEAD").write_text("ref")
    refused(tmp_path / "model", True, ".git/HEAD is not of the earlier export")


def test_an_export_that_breaks_off_leaves_the_earlier_one(exported, tmp_path, monkeypatch):
    shutil.copytree(exported, tmp_path / "model")
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "model").iterdir()}
    monkeypatch.setattr(faithful, "TOLERANCE", {"fp32": -1.0})  # nothing is that near
    with pytest.raises(Unfaithful, match="differ from the study's"):
        export.export("smoke", "2/64-PF-s0", tmp_path / "model", force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "model").iterdir()} == before


def test_a_finished_folder_takes_the_place_of_the_one_before_and_an_unfinished_one_leaves_it(tmp_path):
    model = tmp_path / "model"
    for text in ("old", "new"):
        with files.atomic_folder(model) as folder:
            (folder / "file").write_text(text)
    with pytest.raises(RuntimeError), files.atomic_folder(model) as folder:
        (folder / "file").write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["model"] and (model / "file").read_text() == "new"


def test_without_the_extra_a_sentence_names_the_cure_and_nothing_is_written(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_files, "NEEDED", ("no_such_package",))
    with pytest.raises(ExportError, match=r"need no_such_package, .* run: pip install 'pdstudy\[export\]', or give --no-onnx"):
        export.export("smoke", "2/64-PF-s0", tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nothing", "--student", "teacher"], "no metrics.parquet there; run: python -m pdstudy run PARAMS (its params file)"),
        (["smoke", "--student", "9/9-PD-s7"], "the nearest of its 25"),
        (["smoke", "--student", "teacher", "--to", "tests"], "it is not empty"),
    ],
)
def test_bad_input_ends_with_a_sentence_and_exit_2(exported, tmp_path, words, sentence):
    from typer.testing import CliRunner

    from pdstudy.__main__ import app

    to = [] if "--to" in words else ["--to", str(tmp_path / "model")]
    result = CliRunner().invoke(app, ["export", *(str(paths.ROOT / w) if w == "tests" else w for w in words), *to])
    assert result.exit_code == 2 and sentence in result.output.replace("\n", " ")
    assert isinstance(result.exception, SystemExit) and not list(tmp_path.iterdir())


def test_the_export_of_a_study_whose_files_changed_says_so(tmp_path):
    import reviews

    from pdstudy import run_study

    rng, words = np.random.default_rng(0), sum(reviews.WORDS.values(), reviews.NEUTRAL)
    rows = (f"{' '.join(rng.choice(words, 12))} {i},{'ab'[i % 2]}\n" for i in range(200))
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(rows))
    changes = {"name": "changed", "task": {"train": str(tmp_path / "t.csv")}, "recipes": ["Basic"], "sizes": ["1/64"], "seeds": [0]}
    run_study(Study(**reviews.STUDY | changes | {"splits": {"dev": 40, "test": 40}}), workers=0)
    assert student.find("changed", "linear", Store()).recipe == "Linear"
    with (tmp_path / "t.csv").open("a") as file:
        file.write("one more,a\n")
    with pytest.raises(
        student.UnknownStudent, match="the files of its task have changed since it was run; put the earlier ones back"
    ):
        student.find("changed", "linear", Store())
