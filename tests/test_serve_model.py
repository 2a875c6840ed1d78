"""The server of an exported model: its predictions are those of `predict`, and what it cannot answer it refuses with a sentence."""

import csv
import http.client
import json
import threading

import pytest
from typer.testing import CliRunner

from pdstudy.__main__ import app
from pdstudy.release import serve
from pdstudy.release.predict import open_labeller
from pdstudy.report import html

TEXTS = ["a fine film", "  dull\nand bad ", 'it "ends" <b>well</b>', "NA", "", "très bon 映画"]


@pytest.fixture(scope="module", params=["student", "linear"])
def folder(request, exported, smoke, tmp_path_factory):
    """An exported student, and the exported linear model of the same study."""
    if request.param == "student":
        return exported
    folder = tmp_path_factory.mktemp("linear") / "model"
    result = CliRunner().invoke(app, ["export", "smoke", "--student", "linear", "--to", str(folder)])
    assert result.exit_code == 0, result.output
    return folder


def serving(model):
    server = serve.make_server(model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture(scope="module")
def port(exported):
    with serving(serve.open_model(exported)) as server:
        yield server.server_port
        server.shutdown()


def ask(port, method="POST", path="/predict", body=None, connection=None, **headers):
    """Return (status, answer) of one request; `body` is sent as it is if it is bytes, else as JSON."""
    connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, data, {"Content-Type": "application/json"} | sent)
    response = connection.getresponse()
    text = response.read().decode()
    return response.status, json.loads(text) if response.headers["Content-Type"] == "application/json" else text


def test_predictions_are_those_of_the_command_predict(folder, tmp_path):
    with (tmp_path / "in.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in TEXTS)])
    words = ["--onnx"] if (folder / "onnx").is_dir() else []
    assert CliRunner().invoke(app, ["predict", str(folder), str(tmp_path / "in.csv"), *words]).exit_code == 0
    with (tmp_path / "in.labelled.csv").open(encoding="utf-8", newline="") as file:
        expected = [(row["label"] or None, row["probability"]) for row in csv.DictReader(file)]
    with serving(serve.open_model(folder)) as server:
        status, answer = ask(server.server_port, body={"texts": TEXTS})
        singles = [ask(server.server_port, body={"text": text})[1]["predictions"][0] for text in TEXTS]
        server.shutdown()
    assert status == 200 and [p["label"] for p in answer["predictions"]] == [label for label, _ in expected]
    for prediction, single, (label, probability) in zip(answer["predictions"], singles, expected, strict=True):
        assert prediction["label"] == single["label"]
        if label is None:
            assert prediction["probabilities"] is None
        else:
            assert prediction["probabilities"][label] == pytest.approx(float(probability), abs=1e-5)
            assert single["probabilities"] == pytest.approx(prediction["probabilities"], abs=1e-5)
            assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_int8_serves_the_file_of_8_bit_weights(exported):
    model = serve.open_model(exported, int8=True)
    assert model.engine == "ONNX Runtime, 8-bit weights"
    p = open_labeller(exported, "int8").probabilities(["a fine film"])[0]
    assert list(model.predictions(["a fine film"])[0]["probabilities"].values()) == pytest.approx(p.tolist(), abs=1e-6)


REFUSED = {
    "not JSON": (b"{'text': 1}", 400, "the body is not JSON"),
    "not UTF-8": (b'{"text": "\xff"}', 400, "the body is not JSON"),
    "deep": (b"[" * 100_000, 400, "the body is not JSON"),
    "a list": (["a"], 400, 'expected {"text": "..."}'),
    "another key": ({"texts": ["a"], "top": 1}, 400, 'expected {"text": "..."}'),
    "texts is a string": ({"texts": "a"}, 400, "texts: expected a list"),
    "a number": ({"texts": ["a", 3]}, 400, "texts[1]: 3 is not a text"),
    "a pair": ({"texts": ["a", ["a", "b"]]}, 400, "texts[1]: expected one text, a string"),
    "NUL": ({"text": "a\0b"}, 400, "texts[0]: a NUL character"),
    "half of a character": (b'{"text": "\\ud800"}', 400, "texts[0]: half of a character"),
    "too many": ({"texts": ["a"] * 1001}, 413, "1,001 texts; send at most 1,000 in one request"),
    "too large": ({"text": "a" * (1 << 20)}, 413, "send at most 1,048,576 in one request"),
}


@pytest.mark.parametrize(("body", "status", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_answered_is_refused_with_a_sentence(port, body, status, sentence):
    got, answer = ask(port, body=body)
    assert got == status and list(answer) == ["error"] and sentence in answer["error"]
    assert ask(port, body={"text": "a"})[0] == 200, "the server goes on"


def test_requests_of_other_sites_and_unknown_paths_are_refused(port):
    assert ask(port, body={"text": "a"}, Host=f"evil.example:{port}")[0] == 421
    assert ask(port, "GET", "/", Host=f"evil.example:{port}")[0] == 421
    assert ask(port, body={"text": "a"}, Content_Type="text/plain")[0] == 415, "the only kind that needs no leave to be sent"
    assert ask(port, "OPTIONS")[0] == 501
    assert ask(port, "GET", "/../secret") == (404, {"error": "no such path; POST texts to /predict"})
    assert ask(port, "GET", "/predict") == (405, {"error": "/predict takes POST"})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest("POST", "/predict")
    connection.endheaders()
    assert connection.getresponse().status == 411


def test_a_connection_stays_open_for_further_requests(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    first = ask(port, body={"text": "a fine film"}, connection=connection)
    socket = connection.sock
    assert ask(port, body={"text": "a fine film"}, connection=connection) == first and connection.sock is socket


def test_health_names_the_model_and_its_classes(port):
    status, answer = ask(port, "GET", "/healthz")
    assert status == 200 and answer == {
        "status": "ok", "model": "smoke 2/64-PF-s0", "engine": "ONNX Runtime, fp32", "labels": ["negative", "positive"], "pairs": False,
    }  # fmt: skip


def test_the_page_escapes_names_and_allows_its_own_scripts_only(exported):
    labeller = open_labeller(exported, "fp32")
    hostile = serve.Labeller(labeller.logits, ("<script>alert(1)</script>", "b"), True)
    page = serve.Model("<img src=x>", hostile, "an engine").page
    assert "<script>alert" not in page and "<img" not in page and "&lt;script&gt;alert(1)" in page
    assert html.policy([html.SCRIPT, serve.SCRIPT], "'self'").replace("'", "&#39;") in page
    assert page.count("<textarea") == 2, "a pair has two texts"


def test_a_model_of_pairs_takes_lists_of_two(exported):
    labeller = open_labeller(exported, "fp32")
    model = serve.Model("pairs", serve.Labeller(labeller.logits, labeller.labels, True), "an engine")
    assert [p["label"] is None for p in model.predictions([["a", "b"], ["a", " "]])] == [False, True]
    for texts in (["a"], [["a"]], [["a", "b", "c"]]):
        with pytest.raises(serve.RequestError, match=r"texts\[0\]: expected a list of two texts"):
            model.predictions(texts)
    unknown = serve.Model("unknown", serve.Labeller(labeller.logits, labeller.labels, None), "an engine")
    assert unknown.predictions([["a", "b"]])[0]["label"]
    with pytest.raises(serve.RequestError, match="some are single texts and some are pairs"):
        unknown.predictions(["a", ["a", "b"]])


def test_an_incomplete_folder_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    result = CliRunner().invoke(app, ["serve", str(tmp_path)])
    assert result.exit_code == 2 and "onnx/model.onnx: not there" in result.output.replace("\n", "")
