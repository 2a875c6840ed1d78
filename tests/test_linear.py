"""The linear model: hand-sized texts, exact numbers."""

import json

import numpy as np
import pytest

from pdstudy.models import linear

GOOD, BAD = ["good fine film", "fine good story", "good good fine"], ["bad dull film", "dull bad story", "bad bad dull"]
TEXTS, LABELS = GOOD + BAD, np.array([1, 1, 1, 0, 0, 0])


def fitted(targets=LABELS, n_classes=2, **more):
    return linear.fit(TEXTS, targets, n_classes, ["good film", "bad film"], np.array([1, 0]), **more)


def test_words_and_pairs_of_words_are_weighed_and_the_right_class_is_answered():
    model, record, answers = fitted()
    assert {"good", "fine", "good fine", "bad dull"} <= set(model.grams)
    assert model.logits(["a good story", "dull"]).argmax(1).tolist() == [1, 0]
    assert record["C"] == 1.0  # all are right on dev: the smallest is taken
    assert answers.tolist() == [[1, 0]] * len(linear.STRENGTHS)


def test_logits_are_tfidf_times_weights():
    grams, idf = ("bad", "good"), np.array([1.0, 1.0], np.float32)
    model = linear.Linear(grams, idf, np.array([[2, 0], [0, 4]], np.float32), np.array([0.5, 0], np.float32), "word")
    # One word has length 1; two different words have 1 / sqrt(2) each; a word that is not known has none.
    wanted = [[0.5, 4], [0.5 + 2 / np.sqrt(2), 4 / np.sqrt(2)], [0.5, 0]]
    assert model.logits(["good", "good bad", "unknown"]) == pytest.approx(np.array(wanted))
    assert model.n_params == 2 + 4 + 2


def test_soft_labels_are_weights():
    certain = np.eye(2)[LABELS]
    hard, soft = fitted()[0], fitted(certain)[0]
    assert np.allclose(hard.weights, soft.weights, atol=1e-5)
    unsure = np.where(certain == 1, 0.6, 0.4)
    weak = fitted(unsure)[0]
    assert np.abs(weak.weights).max() < np.abs(hard.weights).max() / 3
    p = 1 / (1 + np.exp(-np.diff(fitted(unsure, strengths=[1e6])[0].logits(TEXTS), axis=1).ravel()))
    assert p == pytest.approx(unsure[:, 1], abs=0.02)  # without a penalty it says what it was taught


def test_a_class_without_text_is_never_answered():
    model = fitted(n_classes=3)[0]
    assert model.logits(TEXTS).shape == (6, 3)
    assert model.logits(["story", *TEXTS]).argmax(1).max() == 1


def test_a_teacher_that_always_says_the_same_teaches_a_constant():
    model = fitted(np.tile([0.999, 0.001], (6, 1)))[0]
    assert model.logits(TEXTS).argmax(1).tolist() == [0] * 6


def test_characters_stand_for_words_where_the_script_has_no_spaces():
    assert linear.analyzer_for(["这部电影非常好看", "很差的电影"]) == "char"
    assert linear.analyzer_for(["eine gute Geschichte", "좋은 영화 입니다"]) == "word"
    model, record, _ = linear.fit(
        ["很好看的电影", "好看", "太差了", "很差的电影"], np.array([1, 1, 0, 0]), 2, ["好看"], np.array([1])
    )
    assert record["analyzer"] == "char"
    assert model.logits(["真好看", "差"]).argmax(1).tolist() == [1, 0]


def test_it_is_kept_as_json_and_safetensors(tmp_path):
    model = fitted()[0]
    model.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [linear.VOCABULARY, linear.WEIGHTS]
    assert np.array_equal(linear.load(tmp_path).logits(TEXTS), model.logits(TEXTS))


def test_files_that_do_not_fit_each_other_are_refused(tmp_path):
    fitted()[0].save(tmp_path)
    vocabulary = json.loads((tmp_path / linear.VOCABULARY).read_text())
    (tmp_path / linear.VOCABULARY).write_text(json.dumps(vocabulary | {"grams": vocabulary["grams"][1:]}))
    with pytest.raises(ValueError, match="do not fit each other"):
        linear.load(tmp_path)
    (tmp_path / linear.WEIGHTS).unlink()
    with pytest.raises(ValueError, match="export it again"):
        linear.load(tmp_path)


def test_pairs_are_read_behind_each_other():
    pairs = [("good", "film"), ("bad", "film"), ("good", "story"), ("bad", "story")]
    model = linear.fit(pairs, np.array([1, 0, 1, 0]), 2, pairs[:2], np.array([1, 0]))[0]
    assert model.logits([("good", "book")]).argmax(1).tolist() == [1]


def test_texts_without_words_are_refused():
    with pytest.raises(ValueError, match="no word of two letters"):
        linear.fit(["1", "!"], np.array([0, 1]), 2, ["1"], np.array([0]))


def test_it_is_fitted_on_one_blas_thread_because_two_wait_for_each_other(monkeypatch):
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_info, threadpool_limits

    threads, fit = [], LogisticRegression.fit

    def recorded(self, *words, **more):
        threads.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return fit(self, *words, **more)

    monkeypatch.setattr(LogisticRegression, "fit", recorded)
    with threadpool_limits(2, user_api="blas"):
        linear.fit(["a good film", "a bad film"] * 4, np.array([1, 0] * 4), 2, ["good", "bad"], np.array([1, 0]))
    assert threads and set(threads) == {1}


@pytest.mark.parametrize("analyzer", ["word", "char"])
def test_tfidf_is_scikit_learns_for_any_texts(analyzer):
    from sklearn.feature_extraction.text import TfidfVectorizer

    rng = np.random.default_rng(0)
    words = ["gut", "böse", "Der", "a", "x", "don't", "100", "電影", "film", "the"]
    texts = [" ".join(rng.choice(words, n)) for n in (1, 2, 5, 40, 300)] + ["", "unknown", "Gut gut GUT"]
    vectorizer = TfidfVectorizer(analyzer=analyzer, ngram_range=linear.NGRAMS[analyzer], sublinear_tf=True).fit(texts[:5])
    grams = tuple(vectorizer.get_feature_names_out())
    weights, bias = rng.normal(size=(3, len(grams))).astype(np.float32), np.array([0.1, 0, -2], np.float32)
    model = linear.Linear(grams, vectorizer.idf_.astype(np.float32), weights, bias, analyzer)
    vectorizer.idf_ = model.idf.astype(np.float64)
    expected = vectorizer.transform(texts) @ weights.T.astype(np.float64) + bias
    np.testing.assert_allclose(model.logits(texts), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([model.logits([text]) for text in texts]), expected, rtol=1e-6, atol=1e-6)
    assert model.logits([]).shape == (0, 3) and model.logits(["", "unknown"]).tolist()[0] == bias.tolist()
