"""A server of an exported model for the programs and browsers of this machine: texts in, labels and probabilities out.

POST /predict takes `{"text": "..."}` or `{"texts": ["...", ...]}` as JSON; for a model of pairs each text is a list of two. GET /
is a page to try a text by hand, GET /healthz describes the model. Predictions are those of the command `predict`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pdstudy.data import formats
from pdstudy.data.mirror import CONFIG
from pdstudy.models import linear
from pdstudy.release.model_card import TEMPLATES
from pdstudy.release.predict import FACTS, Labeller, as_item, open_labeller
from pdstudy.report import html, server

PREDICT, HEALTH, PAGE = "/predict", "/healthz", "/"
METHODS = {PREDICT: "POST", HEALTH: "GET", PAGE: "GET"}
MOST_BYTES = 1 << 20  # of a request's body
MOST_TEXTS = 1000  # of one request
MOST_DISCARDED = 16 * MOST_BYTES  # of a body that is too large: a client reads the answer only after it has sent the body
THREADS = 1  # of one request: requests run side by side, and a small student gains little from a second thread
SECONDS = 60  # of silence after which a connection is closed
SCRIPT = (TEMPLATES / "serve.js").read_text(encoding="utf-8")


class RequestError(ValueError):
    """Raised for a request that cannot be answered: its status, and a message that says what to send instead."""

    def __init__(self, status: HTTPStatus, message: str):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Model:
    """An opened model and its name for readers."""

    name: str
    labeller: Labeller
    engine: str

    def predictions(self, texts: Sequence) -> list[dict]:
        """Return the label and the probability of every class for each text; both None for an empty text.

        Raises RequestError for what is not a text, or not a pair if the model takes pairs.
        """
        items = [self._item(f"texts[{i}]", text) for i, text in enumerate(texts)]
        if len({type(item) for item in items if item is not None}) > 1:
            raise RequestError(HTTPStatus.BAD_REQUEST, "texts: some are single texts and some are pairs; send one kind")
        with_text = [item for item in items if item is not None]
        rows = iter(self.labeller.probabilities(with_text) if with_text else ())
        return [self._prediction(None if item is None else next(rows)) for item in items]

    def _item(self, place: str, text) -> str | tuple[str, str] | None:
        values = text if isinstance(text, list) else [text]
        pairs = isinstance(text, list) if self.labeller.pairs is None else self.labeller.pairs
        if isinstance(text, list) != pairs or len(values) != 1 + pairs:
            expected = "a list of two texts, because this model takes pairs" if pairs else "one text, a string"
            raise RequestError(HTTPStatus.BAD_REQUEST, f"{place}: expected {expected}")
        try:
            for value in values:
                if isinstance(value, str):
                    formats.check_text(place, value)
            return as_item(place, values)
        except formats.TextError as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, str(error)) from None

    def _prediction(self, row) -> dict:
        if row is None:
            return {"label": None, "probabilities": None}
        probabilities = {label: round(float(p), 6) for label, p in zip(self.labeller.labels, row, strict=True)}
        return {"label": self.labeller.labels[row.argmax()], "probabilities": probabilities}

    @property
    def health(self) -> dict:
        """Return what /healthz answers."""
        labeller = self.labeller
        return {"status": "ok", "model": self.name, "engine": self.engine, "labels": labeller.labels, "pairs": bool(labeller.pairs)}

    @cached_property
    def page(self) -> str:
        """Return the page to try a text by hand."""
        example = ["a text", "another text"] if self.labeller.pairs else "a text"
        body = html.template("serve.html.j2", TEMPLATES).render(
            model=self.name, labels=self.labeller.labels, pairs=bool(self.labeller.pairs), engine=self.engine,
            example=json.dumps({"text": example}), predict=PREDICT, most_texts=MOST_TEXTS, most_bytes=MOST_BYTES,
        )  # fmt: skip
        return html.page(self.name, body, scripts=[SCRIPT], connect="'self'")


def is_model(folder: Path) -> bool:
    """Return whether a folder contains an exported model."""
    return any((folder / name).is_file() for name in (FACTS, CONFIG, linear.VOCABULARY))


def open_model(folder: Path, int8: bool = False) -> Model:
    """Return the model of an exported folder: a student in ONNX Runtime, or a linear model. Raises PredictError."""
    is_linear = linear.is_linear(folder)
    labeller = open_labeller(folder, "int8" if int8 else None if is_linear else "fp32", THREADS)
    facts = json.loads((folder / FACTS).read_text()) if (folder / FACTS).is_file() else {}
    name = f"{facts['study']} {facts['student']}" if {"study", "student"} <= facts.keys() else folder.resolve().name
    engine = "a linear model" if is_linear else f"ONNX Runtime, {'8-bit weights' if int8 else 'fp32'}"
    engine += ", averaged with the linear model" if (folder / linear.FOLDER).is_dir() else ""
    return Model(name, labeller, engine)


def make_server(model: Model, port: int | None = None) -> ThreadingHTTPServer:
    """Return a server of a model on loopback, at `port` or the first free one. Raises ServeError."""
    return server.bind(partial(Handler, model=model), port)


class Handler(server.Loopback, BaseHTTPRequestHandler):
    """Answers one connection, whose requests may follow each other; every answer but the page is JSON."""

    protocol_version = "HTTP/1.1"  # keeps the connection open
    timeout = SECONDS
    wbufsize = -1  # headers and body leave together

    def __init__(self, *args, model: Model, **kwargs):
        self.model = model
        super().__init__(*args, **kwargs)  # answers the requests

    def do_GET(self) -> None:
        """Answer GET: the page, or the description of the model."""
        if self._is_allowed():
            if self.path == HEALTH:
                self._send(HTTPStatus.OK, self.model.health)
            else:
                self._send(HTTPStatus.OK, self.model.page, "text/html; charset=utf-8")

    def do_POST(self) -> None:
        """Answer POST: the predictions for the texts of the body."""
        if not self._is_allowed():
            return
        try:
            texts = self._texts()
            self._send(HTTPStatus.OK, {"predictions": self.model.predictions(texts)})
        except RequestError as error:
            self.send_error(error.status, str(error))

    def _is_allowed(self) -> bool:
        """Return whether host, path and method are known; otherwise an error is sent."""
        if not self.is_for_this_machine():
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "this server answers only to 127.0.0.1 and localhost")
        elif self.path not in METHODS:
            self.send_error(HTTPStatus.NOT_FOUND, f"no such path; POST texts to {PREDICT}")
        elif METHODS[self.path] != self.command:
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED, f"{self.path} takes {METHODS[self.path]}")
        else:
            return True
        return False

    def _texts(self) -> list:
        """Return the texts of the body. Raises RequestError."""
        body = self._body()
        # Pages of other sites can send JSON only after asking with OPTIONS, which this server does not answer.
        if self.headers.get_content_type() != "application/json":
            raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send JSON, with the header Content-Type: application/json")
        try:
            values = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}") from None
        if not isinstance(values, dict) or len(values) != 1 or not {"text", "texts"} & values.keys():
            raise RequestError(HTTPStatus.BAD_REQUEST, 'expected {"text": "..."} or {"texts": ["...", "..."]}')
        texts = [values["text"]] if "text" in values else values["texts"]
        if not isinstance(texts, list):
            raise RequestError(HTTPStatus.BAD_REQUEST, "texts: expected a list")
        if len(texts) > MOST_TEXTS:
            message = f"{len(texts):,} texts; send at most {MOST_TEXTS:,} in one request"
            raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
        return texts

    def _body(self) -> bytes:
        """Return the body. Raises RequestError if its length is not stated or too large."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self.close_connection = True  # the rest of the connection cannot be read
            raise RequestError(HTTPStatus.LENGTH_REQUIRED, "send the header Content-Length")
        if int(length) > MOST_BYTES:
            self.close_connection = True
            self._discard(min(int(length), MOST_DISCARDED))
            message = f"{int(length):,} bytes; send at most {MOST_BYTES:,} in one request"
            raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
        return self.rfile.read(int(length))

    def _discard(self, n: int) -> None:
        while n > 0 and (part := self.rfile.read(min(n, 1 << 16))):
            n -= len(part)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send an error as JSON. The connection is closed, because the body of the request may not have been read."""
        self.close_connection = True
        self._send(code, {"error": message or HTTPStatus(code).phrase})

    def _send(self, status: int, answer: dict | str, kind: str = "application/json") -> None:
        data = (answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)).encode("utf-8", "backslashreplace")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
