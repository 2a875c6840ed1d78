"""A student averaged with the linear model: the mean of their probabilities, a candidate of an advice, and a folder that gives its answers."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pdstudy.__main__ import app
from pdstudy.advice import choice
from pdstudy.advice.candidates import Candidates, Limits
from pdstudy.advice.recommendation import recommend
from pdstudy.analysis import averaged
from pdstudy.averaging import log_mean
from pdstudy.models import linear
from pdstudy.recipes import export_name, without_linear
from pdstudy.release import serve, student, usage
from pdstudy.release.predict import PredictError, open_labeller
from pdstudy.report.explore import Explorer
from pdstudy.storage import results
from pdstudy.storage.store import Store

NAME = "2/64-PF+linear-s0"


def test_the_mean_of_probabilities_is_exact_whatever_a_constant_adds_to_logits():
    one, other = np.log([[0.9, 0.1], [0.5, 0.5]]) + 7, np.log([[0.2, 0.8], [0.1, 0.9]])
    np.testing.assert_allclose(np.exp(log_mean([one, other])), [[0.55, 0.45], [0.3, 0.7]], rtol=1e-6)
    assert np.isfinite(log_mean([np.array([[0.0, -800.0]])] * 2)).all()


def table(*logits) -> pd.DataFrame:
    """Return answers to four texts, two of dev and two of test, all of class 0."""
    rows = list(np.array(logits, dtype=np.float32))
    columns = {"split": ["dev", "dev", "test", "test"], "item": [0, 1, 0, 1], "label": 0, "logits": rows}
    return pd.DataFrame(columns | {"predicted": [int(r.argmax()) for r in rows]})


def test_every_student_is_averaged_with_the_linear_model_and_nothing_else_is():
    rows = [("PF", "2/64", 0, "a"), ("PF", "2/64", 1, "b"), ("Linear", "linear", 0, "l"), ("teacher", "2/128", 0, "t")]
    models = pd.DataFrame(rows, columns=["recipe", "size", "seed", "digest"]).assign(n_params=[10, 10, 5, 99], value=0.0)
    sure, unsure, wrong = (3.0, 0.0), (0.1, 0.0), (0.0, 1.0)
    answers = {"a": table(wrong, unsure, wrong, wrong), "b": table(unsure, (0, 9), sure, sure)}
    answers |= {"l": table(sure, wrong, sure, wrong), "t": table(sure, sure, sure, sure)}
    more, both = averaged.with_averages(models, answers, "dev")
    new = more[~more.digest.isin(models.digest)].set_index("seed")
    assert set(new.recipe) == {"PF + linear"} and list(new.n_params) == [15, 15] and len(more) == 6
    # The linear model is the surer one of seed 0's first text, and wrong on its second, where the student hardly knows.
    assert both[new.digest[0]].predicted.tolist() == [0, 1, 0, 1] and new.value[0] == 0.5
    assert both[new.digest[1]].predicted.tolist() == [0, 1, 0, 0] and new.value[1] == 0.5
    without = {digest: rows.drop(columns="logits") for digest, rows in answers.items()}
    assert averaged.with_averages(models, without, "dev") == (models, without)
    assert len(averaged.with_averages(models[models.recipe != "Linear"], answers, "dev")[0]) == 3


@pytest.fixture(scope="module")
def tried(smoke) -> Candidates:
    return Candidates("smoke")


def test_a_study_s_candidates_are_averaged_too_with_the_costs_of_both_models(tried):
    rows = tried.table.set_index(["recipe", "size"])
    alone, both, linear_model = rows.loc[("PF", "2/64")], rows.loc[("PF + linear", "2/64")], rows.loc[("Linear", "linear")]
    assert both.n_params == alone.n_params + linear_model.n_params and both.mb == pytest.approx(alone.mb + linear_model.mb)
    answers = results.load_predictions("smoke")
    by_digest = dict(iter(answers[answers.split == "test"].groupby("digest", observed=True)))
    of = lambda recipe, size: by_digest[tried.models.loc[(recipe, size, 0)].digest]  # noqa: E731
    p = [np.stack(rows.logits.to_numpy()) for rows in (of("PF", "2/64"), of("Linear", "linear"))]
    p = [np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in p]
    right = ((p[0] + p[1]).argmax(1) == of("PF", "2/64").label.to_numpy()).astype(float)
    assert (tried.right("PF + linear", "2/64", "test", [0])[0] == right).all()
    assert export_name("PF + linear", "2/64", 0) == NAME and without_linear("PF + linear") == "PF"


def test_the_latency_of_an_average_is_that_of_both_and_a_limit_holds_for_it(tried, monkeypatch):
    speed = {"p50": 2.0, "p95": 3.0, "throughput": 100.0}
    monkeypatch.setattr(results, "load_speeds", lambda study: dict.fromkeys(("2/64", "linear"), speed))
    row = Candidates("smoke").table.set_index(["recipe", "size"]).loc[("PF + linear", "2/64")]
    assert (row.p50_ms, row.p95_ms, row.texts_a_second) == (4.0, 6.0, 50.0)
    fits = Candidates("smoke", Limits(latency_ms=3)).table.set_index(["recipe", "size"]).fits
    assert fits[("PF", "2/64")] and not fits[("PF + linear", "2/64")]


class Stub:
    """Candidates whose differences on dev are given: (one, other) -> lowest point of the interval."""

    def __init__(self, dev: dict[str, float], low: dict[tuple[str, str], float]):
        self.table, self.low = pd.DataFrame({"recipe": dev.keys(), "size": "2/64", "dev": dev.values(), "fits": True}), low
        self.cross_validation = None

    def difference(self, one, other):
        return SimpleNamespace(known=True, low=self.low.get((one.recipe, other.recipe), -1.0))


@pytest.mark.parametrize(
    ("low", "chosen"),
    [
        ({}, "Linear"),
        ({("PF + linear", "Linear"): 0.1}, "PF + linear"),
        ({("PF + linear", "Linear"): 0.1, ("PF", "Linear"): 0.1}, "PF"),
        ({("PF + linear", "Linear"): 0.1, ("PF", "Linear"): 0.1, ("PF + linear", "PF"): 0.1}, "PF + linear"),
    ],
)
def test_the_simpler_model_is_taken_unless_the_other_is_significantly_better(low, chosen):
    dev = {"Linear": 70.0, "PF": 74.0, "PF + linear": 76.0}
    assert choice.choose(Stub(dev, low)).recipe == chosen


@pytest.fixture(scope="module")
def folder(smoke, tmp_path_factory):
    """The average of a student and the linear model of the smoke study, exported by the command line."""
    to = tmp_path_factory.mktemp("averaged") / "model"
    result = CliRunner().invoke(app, ["export", "smoke", "--student", "2/64-pf+LINEAR-s0", "--to", str(to)])
    assert result.exit_code == 0, result.output
    return to


def test_an_exported_average_gives_the_study_s_answers_by_every_way_to_ask_it(folder, tmp_path):
    finished = student.find("smoke", NAME, Store())
    texts, (logits, labels) = finished.texts("test"), finished.test_logits()
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labeller = open_labeller(folder)
    np.testing.assert_allclose(labeller.probabilities(texts), expected, atol=1e-4)
    np.testing.assert_allclose(open_labeller(folder, "fp32").probabilities(texts), expected, atol=1e-4)
    alone = student.find("smoke", "2/64-PF-s0", Store()).test_logits()[0]
    assert (alone.argmax(1) != logits.argmax(1)).any(), "the linear model changes no answer, so nothing is tested"
    pd.DataFrame({"text": texts, "label": [labeller.labels[i] for i in labels]}).to_csv(tmp_path / "test.csv", index=False)
    words = ["predict", str(folder), str(tmp_path / "test.csv"), "--int8", "--to", str(tmp_path / "out.csv")]
    assert CliRunner().invoke(app, words).exit_code == 0
    answers = pd.read_csv(tmp_path / "out.csv")["predicted label"]
    assert (answers == [labeller.labels[i] for i in logits.argmax(1)]).mean() > 0.95
    model = serve.open_model(folder)
    assert model.engine == "ONNX Runtime, fp32, averaged with the linear model" and model.name == f"smoke {NAME}"


def test_its_facts_and_card_have_the_scores_of_the_average(folder):
    facts, card = json.loads((folder / "export.json").read_text()), (folder / "README.md").read_text()
    logits, labels = student.find("smoke", NAME, Store()).test_logits()
    assert facts["test"]["accuracy"] == pytest.approx((logits.argmax(1) == labels).mean())
    assert facts["engines"][0]["accuracy"] == facts["test"]["accuracy"] == facts["study_test"]["accuracy"]
    assert {"linear/linear.json", "linear/linear.safetensors"} <= set(facts["files"]) and facts["recipe"] == "PF + linear"
    assert "library_name: pdstudy" in card and "open_labeller" in card and "`transformers` opens the student alone" in card
    assert f"the linear model takes {facts['averaged_with']['latency']['p50']:.2f} ms more" in card


def test_a_report_lists_its_texts_and_says_how_to_call_it(folder, monkeypatch):
    logits, _ = student.find("smoke", NAME, Store()).test_logits()
    assert Explorer("smoke").models[NAME].predicted.tolist() == logits.argmax(1).tolist()
    monkeypatch.setattr(usage, "_exported", lambda study, name: (folder, json.loads((folder / "export.json").read_text())))
    page = usage.calls("smoke", NAME).data
    assert "open_labeller" in page and "it averages the student with the linear model" in page and "pipeline(" not in page


@pytest.mark.parametrize("harm", ["labels", "missing"])
def test_a_damaged_linear_model_is_refused_and_not_left_out(harm, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    path = tmp_path / "model" / linear.FOLDER / linear.VOCABULARY
    if harm == "missing":
        path.unlink()
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"labels": ["positive", "negative"]}))
    with pytest.raises(PredictError, match="have other labels" if harm == "labels" else "no linear model"):
        open_labeller(tmp_path / "model")


def test_an_advice_may_recommend_it_and_names_it_for_export(tried, monkeypatch):
    chosen = tried.table[(tried.table.recipe == "PF + linear") & (tried.table["size"] == "2/64")].iloc[0]
    monkeypatch.setattr("pdstudy.advice.recommendation.choose", lambda c: chosen)
    advice = recommend(tried)
    assert advice.student == f"2/64-PF+linear-s{chosen.best_seed}"
    assert advice.reasons[0].startswith("Take 2/64 by PF averaged with the linear model (")
