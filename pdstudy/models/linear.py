"""The linear model: logistic regression on TF-IDF of words and pairs of words, a common choice without a neural network.

If the script has no spaces between words, runs of one to three characters take the place of words. The strength C is searched on
dev. The model is saved as a vocabulary in JSON and weights in safetensors, so no pickle is opened.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pdstudy.data.texts import Text, joined

VOCABULARY, WEIGHTS = "linear.json", "linear.safetensors"
FOLDER = "linear"  # within the folder of a student that is averaged with the linear model
STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0)  # C, the inverse of the penalty
MOST = 500_000  # n-grams, the most frequent ones
MANY = 10_000  # texts; with more, n-grams of a single text are left out
LEAST_WEIGHT = 0.01  # a class of a soft label with a smaller probability does not become a row
NO_SPACES = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]")
LETTER = re.compile(r"[^\W\d_]")
ITERATIONS = 1000
NGRAMS = {"word": (1, 2), "char": (1, 3)}  # by analyzer: their shortest and longest length


@dataclass(frozen=True)
class Linear:
    """A linear classifier of texts: logits = TF-IDF (n_texts, n_grams) x weights' + bias."""

    grams: tuple[str, ...]  # in the order of the columns
    idf: np.ndarray  # (n_grams,) float32
    weights: np.ndarray  # (n_classes, n_grams) float32
    bias: np.ndarray  # (n_classes,) float32
    analyzer: str  # "word" or "char"

    @property
    def n_params(self) -> int:
        """Return the number of parameters: weights and bias of the classes, and one idf for each n-gram."""
        return self.weights.size + self.bias.size + self.idf.size

    def logits(self, texts: Sequence[str | Text]) -> np.ndarray:
        """Return the logits of every text or pair, (n_texts, n_classes) float32.

        TF-IDF is that of scikit-learn's TfidfVectorizer, whose own `transform` takes several times as long for a single text.
        """
        from scipy.sparse import csr_array

        columns, counts, ends = [], [], [0]
        for text in joined(texts):
            n_of_gram = Counter(map(self._column_of.get, self._grams_of(text)))
            n_of_gram.pop(None, None)  # of unknown ones
            columns += n_of_gram.keys()
            counts += n_of_gram.values()
            ends.append(len(columns))
        columns = np.array(columns, dtype=np.int64)
        values = (1 + np.log(np.array(counts, dtype=np.float64))) * self.idf[columns]
        rows = np.repeat(np.arange(len(texts)), np.diff(ends))
        norms = np.sqrt(np.bincount(rows, values**2, minlength=len(texts)))
        return self.logits_of(csr_array((values / norms[rows], columns, ends), (len(texts), len(self.grams)))).astype(np.float32)

    def logits_of(self, x) -> np.ndarray:
        """Return the logits, (n_texts, n_classes) float64, of a TF-IDF matrix (n_texts, n_grams)."""
        return x @ self._weights + self.bias

    @cached_property
    def _weights(self) -> np.ndarray:
        return np.ascontiguousarray(self.weights.T, dtype=np.float64)

    @cached_property
    def _column_of(self) -> dict[str, int]:
        return {gram: i for i, gram in enumerate(self.grams)}

    @cached_property
    def _grams_of(self):
        """Return the function that cuts a text into its words and pairs of words, or runs of characters."""
        return _new_vectorizer(self.analyzer).build_analyzer()

    def save(self, folder: Path) -> None:
        """Write linear.json and linear.safetensors."""
        from safetensors.numpy import save_file

        settings = {"analyzer": self.analyzer, "ngrams": list(NGRAMS[self.analyzer]), "sublinear_tf": True, "norm": "l2"}
        (folder / VOCABULARY).write_text(json.dumps(settings | {"grams": self.grams}, ensure_ascii=False) + "\n", encoding="utf-8")
        save_file({"idf": self.idf, "weights": self.weights, "bias": self.bias}, folder / WEIGHTS)
        (folder / WEIGHTS).chmod((folder / VOCABULARY).stat().st_mode)  # safetensors makes it readable for the owner only


def load(folder: Path) -> Linear:
    """Return the linear model of a folder. Raises ValueError if its two files are missing or do not fit each other."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        settings, arrays = json.loads((folder / VOCABULARY).read_text(encoding="utf-8")), load_file(folder / WEIGHTS)
        model = Linear(tuple(settings["grams"]), arrays["idf"], arrays["weights"], arrays["bias"], settings["analyzer"])
        fits = model.weights.shape == (len(model.bias), len(model.grams)) and model.idf.shape == (len(model.grams),)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(f"{folder}: no linear model ({type(error).__name__}); export it again") from None
    if not fits or model.analyzer not in NGRAMS:
        raise ValueError(f"{folder}: {VOCABULARY} and {WEIGHTS} do not fit each other; export it again")
    return model


def is_linear(folder: Path) -> bool:
    """Return whether a folder contains a linear model."""
    return (folder / VOCABULARY).is_file()


def analyzer_for(texts: Sequence[str | Text]) -> str:
    """Return "char" if most letters are of scripts without spaces between words, else "word"."""
    sample = "".join(joined(texts[:2000]))[:500_000]
    n_letters = len(LETTER.findall(sample))
    return "char" if n_letters and len(NO_SPACES.findall(sample)) > n_letters / 2 else "word"


def fit(
    texts: Sequence[str | Text],
    targets: np.ndarray,
    n_classes: int,
    dev: Sequence[str | Text],
    dev_labels: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
) -> tuple[Linear, dict[str, Any], np.ndarray]:
    """Return (the model that is best on dev, a record of the search, the predictions at every strength (n_strengths, n_dev)).

    `targets` are class numbers (n_texts,), or probabilities (n_texts, n_classes): then a text becomes a row for each class, weighted
    by its probability. Of equally good strengths the smallest is taken. Raises ValueError for texts without words.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    analyzer = analyzer_for(texts)
    vectorizer = _new_vectorizer(analyzer, max_features=MOST, min_df=2 if len(texts) > MANY else 1)
    try:
        x = vectorizer.fit_transform(joined(texts))
    except ValueError:
        raise ValueError("the texts hold no word of two letters, so there is no linear model; look at the text column") from None
    if targets.ndim == 1:
        rows, classes, weights = np.arange(len(targets)), targets, np.ones(len(targets))
    else:
        rows, classes = np.nonzero((targets > LEAST_WEIGHT) | (targets == targets.max(axis=1, keepdims=True)))
        weights = targets[rows, classes].astype(np.float64)
    x, x_dev = x[rows], vectorizer.transform(joined(dev))
    grams, idf = tuple(map(str, vectorizer.get_feature_names_out())), vectorizer.idf_.astype(np.float32)
    models, predictions, searched = [], [], []
    for c in strengths:
        if len(np.unique(classes)) == 1:  # which scikit-learn refuses to fit: always predict that class
            rows_of_classes = np.zeros((n_classes, len(grams)), np.float32), np.eye(n_classes, dtype=np.float32)[classes[0]]
        else:
            with threadpool_limits(1, user_api="blas"):  # with two threads it takes twice as long: they wait more than they compute
                fitted = LogisticRegression(C=c, max_iter=ITERATIONS).fit(x, classes, sample_weight=weights)
            rows_of_classes = _rows_of_classes(fitted, n_classes)
        models.append(Linear(grams, idf, *rows_of_classes, analyzer))
        predictions.append(models[-1].logits_of(x_dev).argmax(axis=1))
        searched.append({"C": float(c), "dev_accuracy": float((predictions[-1] == dev_labels).mean())})
    best = max(range(len(models)), key=lambda i: (searched[i]["dev_accuracy"], -strengths[i]))
    record = {"C": float(strengths[best]), "searched": searched, "analyzer": analyzer, "n_grams": len(grams)}
    return models[best], record, np.stack(predictions).astype(np.int16)


def _rows_of_classes(fitted, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's weights (n_classes, n_grams) and bias (n_classes,). A class without texts is never predicted."""
    coefficients, intercepts = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:  # scikit-learn has one row, the second class's; each class gets half of it
        coefficients, intercepts = np.stack([-coefficients[0], coefficients[0]]) / 2, np.array([-intercepts[0], intercepts[0]]) / 2
    weights = np.zeros((n_classes, coefficients.shape[1]), np.float32)
    bias = np.full(n_classes, intercepts.min() - 30, np.float32)
    weights[fitted.classes_], bias[fitted.classes_] = coefficients, intercepts
    return weights, bias


def _new_vectorizer(analyzer: str, **settings):
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(analyzer=analyzer, ngram_range=NGRAMS[analyzer], sublinear_tf=True, **settings)
