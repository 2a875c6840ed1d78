"""The linear model: TF-IDF of words and pairs of words with logistic regression, what a reader would use otherwise.

Where the script has no spaces between words, runs of one to three characters stand in the place of words. The strength C is
searched on dev. The model is kept as a vocabulary in JSON and its weights as safetensors, and needs no pickle to be opened.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

VOCABULARY, WEIGHTS = "linear.json", "linear.safetensors"
STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0)  # C, the inverse of the penalty
MOST = 500_000  # n-grams that are kept, the most frequent
MANY = 10_000  # texts from which an n-gram of one text alone is left out
LEAST_WEIGHT = 0.01  # a class of a soft label below this does not become a row
NO_SPACES = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]")
LETTER = re.compile(r"[^\W\d_]")
ITERATIONS = 1000

Text = str | tuple[str, ...]


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
        """Return the number of weights: those of the classes, and one idf an n-gram."""
        return self.weights.size + self.bias.size + self.idf.size

    def logits(self, texts: Sequence[Text]) -> np.ndarray:
        """Return the logits of every text or pair, (n_texts, n_classes) float32."""
        x = self._vectorizer().transform(_plain(texts))
        return (x @ self.weights.T.astype(np.float64) + self.bias).astype(np.float32)

    def _vectorizer(self):
        if "vectorizer" not in self._cached:
            vectorizer = _vectorizer(self.analyzer, vocabulary={gram: i for i, gram in enumerate(self.grams)})
            vectorizer.idf_ = self.idf.astype(np.float64)
            self._cached["vectorizer"] = vectorizer
        return self._cached["vectorizer"]

    def __post_init__(self):
        object.__setattr__(self, "_cached", {})

    def save(self, folder: Path) -> None:
        """Write linear.json and linear.safetensors."""
        from safetensors.numpy import save_file

        told = {"analyzer": self.analyzer, "ngrams": list(_ngrams(self.analyzer)), "sublinear_tf": True, "norm": "l2"}
        (folder / VOCABULARY).write_text(json.dumps(told | {"grams": self.grams}, ensure_ascii=False) + "\n", encoding="utf-8")
        save_file({"idf": self.idf, "weights": self.weights, "bias": self.bias}, folder / WEIGHTS)
        (folder / WEIGHTS).chmod((folder / VOCABULARY).stat().st_mode)  # safetensors writes for the owner alone


def load(folder: Path) -> Linear:
    """Return the linear model of a folder. Raises ValueError where its two files are not there, or do not fit each other."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        told, arrays = json.loads((folder / VOCABULARY).read_text(encoding="utf-8")), load_file(folder / WEIGHTS)
        found = Linear(tuple(told["grams"]), arrays["idf"], arrays["weights"], arrays["bias"], told["analyzer"])
        fits = found.weights.shape == (len(found.bias), len(found.grams)) and found.idf.shape == (len(found.grams),)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(f"{folder}: no linear model ({type(error).__name__}); export it again") from None
    if not fits or found.analyzer not in ("word", "char"):
        raise ValueError(f"{folder}: {VOCABULARY} and {WEIGHTS} do not fit each other; export it again")
    return found


def is_linear(folder: Path) -> bool:
    """Return whether a folder holds a linear model."""
    return (folder / VOCABULARY).is_file()


def analyzer_for(texts: Sequence[Text]) -> str:
    """Return "char" where most letters are of scripts that put no spaces between words, else "word"."""
    some = "".join(_plain(texts[:2000]))[:500_000]
    letters = len(LETTER.findall(some))
    return "char" if letters and len(NO_SPACES.findall(some)) > letters / 2 else "word"


def fit(
    texts: Sequence[Text],
    targets: np.ndarray,
    n_classes: int,
    dev: Sequence[Text],
    dev_labels: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
) -> tuple[Linear, dict[str, Any], np.ndarray]:
    """Return (the model that is best on dev, what was tried, its answers at every strength (n_strengths, n_dev)).

    `targets` are class numbers (n_texts,), or probabilities (n_texts, n_classes): then a text stands once for each class, weighted by
    its probability. Of equal strengths the smaller is taken.
    """
    from sklearn.linear_model import LogisticRegression

    analyzer = analyzer_for(texts)
    vectorizer = _vectorizer(analyzer, max_features=MOST, min_df=2 if len(texts) > MANY else 1)
    try:
        x = vectorizer.fit_transform(_plain(texts))
    except ValueError:
        raise ValueError("the texts hold no word of two letters, so there is no linear model; look at the text column") from None
    if targets.ndim == 1:
        rows, classes, weights = np.arange(len(targets)), targets, np.ones(len(targets))
    else:
        rows, classes = np.nonzero((targets > LEAST_WEIGHT) | (targets == targets.max(axis=1, keepdims=True)))
        weights = targets[rows, classes].astype(np.float64)
    x, x_dev = x[rows], vectorizer.transform(_plain(dev))
    grams = tuple(str(gram) for gram in vectorizer.get_feature_names_out())
    models, answers, table = [], [], []
    for c in strengths:
        if len(np.unique(classes)) == 1:
            model = _constant(grams, vectorizer.idf_, int(classes[0]), n_classes, analyzer)
        else:
            fitted = LogisticRegression(C=c, max_iter=ITERATIONS).fit(x, classes, sample_weight=weights)
            model = _as_linear(grams, vectorizer.idf_, fitted, n_classes, analyzer)
        said = (x_dev @ model.weights.T.astype(np.float64) + model.bias).argmax(axis=1)
        models.append(model)
        answers.append(said)
        table.append({"C": float(c), "dev_accuracy": float((said == dev_labels).mean())})
    best = max(range(len(models)), key=lambda i: (table[i]["dev_accuracy"], -strengths[i]))
    record = {"C": float(strengths[best]), "searched": table, "analyzer": analyzer, "n_grams": len(grams)}
    return models[best], record, np.stack(answers).astype(np.int16)


def _as_linear(grams: tuple[str, ...], idf: np.ndarray, fitted, n_classes: int, analyzer: str) -> Linear:
    """Return scikit-learn's model with a row a class of the task; a class that no text has is never answered."""
    coefficients, intercepts = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:  # one row, the second class' side of zero: half of it on each side
        coefficients, intercepts = np.stack([-coefficients[0], coefficients[0]]) / 2, np.array([-intercepts[0], intercepts[0]]) / 2
    weights, bias = np.zeros((n_classes, len(grams)), np.float32), np.full(n_classes, intercepts.min() - 30, np.float32)
    weights[fitted.classes_], bias[fitted.classes_] = coefficients, intercepts
    return Linear(grams, idf.astype(np.float32), weights, bias, analyzer)


def _constant(grams: tuple[str, ...], idf: np.ndarray, answer: int, n_classes: int, analyzer: str) -> Linear:
    bias = np.zeros(n_classes, np.float32)
    bias[answer] = 1
    return Linear(grams, idf.astype(np.float32), np.zeros((n_classes, len(grams)), np.float32), bias, analyzer)


def _ngrams(analyzer: str) -> tuple[int, int]:
    return (1, 2) if analyzer == "word" else (1, 3)


def _vectorizer(analyzer: str, **settings):
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(analyzer=analyzer, ngram_range=_ngrams(analyzer), sublinear_tf=True, **settings)


def _plain(texts: Sequence[Text]) -> list[str]:
    """Return texts as strings; the two of a pair stand behind each other."""
    return [text if isinstance(text, str) else " ".join(text) for text in texts]
