"""A server of a study's pages for the browsers of this machine: only listed kinds of files, and only from the study's folder.

The pages also open as files. If they are served, the browser remembers the reader's choice of colours.
"""

import errno
import re
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pdstudy.storage import files, paths

HOST, FIRST_PORT, PORTS = "127.0.0.1", 8000, 20
SERVED = re.compile(r"/(reports/\w[\w-]*\.html|figures/\w[\w-]*\.(csv|png|svg)|claims\.json)", re.ASCII)


class ServeError(RuntimeError):
    """Raised if there are no pages or no free port; the message says what to do."""


def first_page(folder: Path) -> str:
    """Return the address of the first page on the server. Raises ServeError if the study has none."""
    pages = sorted((folder / "reports").glob("[!.]*.html"), key=lambda page: (page.name != "index.html", page.name))
    if not pages:
        raise ServeError(
            f"{paths.scrub(str(folder))}: no reports there; make them with: python -m pdstudy report {paths.params_argument(folder.name)}"
        )
    return f"/reports/{pages[0].name}"


def make_server(folder: Path, port: int | None = None) -> ThreadingHTTPServer:
    """Return a server of a study's folder on loopback; `port` as for `bind`. Raises ServeError."""
    return bind(partial(Pages, directory=str(folder.resolve()), first=first_page(folder)), port)


def bind(handler: Callable, port: int | None = None) -> ThreadingHTTPServer:
    """Return a server on loopback, at `port` or the first free port from FIRST_PORT. Raises ServeError."""
    for number in range(FIRST_PORT, FIRST_PORT + PORTS) if port is None else [port]:
        try:
            return ThreadingHTTPServer((HOST, number), handler)
        except PermissionError:
            raise ServeError(f"port {number} needs more rights; choose one from 1024 to 65535 with --port") from None
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    if port is None:
        raise ServeError(f"ports {FIRST_PORT} to {FIRST_PORT + PORTS - 1} are all in use; choose another with --port")
    raise ServeError(f"port {port} is in use; choose another, or leave --port out to use a free one")


class Loopback:
    """What handlers of this machine's own requests share: a check of the host's name, headers of every answer, no log."""

    server_version, sys_version = "pdstudy", ""

    def is_for_this_machine(self) -> bool:
        """Return whether the request names this machine as its host.

        DNS rebinding: a foreign site whose name resolves to this machine sends that name as Host.
        """
        return self.headers.get("Host", "") in {f"{host}:{self.server.server_port}" for host in (HOST, "localhost")}

    def end_headers(self) -> None:
        """Add the headers of every answer."""
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, *_) -> None:
        """Print nothing."""


class Pages(Loopback, SimpleHTTPRequestHandler):
    """The standard library's handler, restricted to files that match SERVED. There are no listings and no links out."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".csv": "text/csv; charset=utf-8"}

    def __init__(self, *args, first: str, **kwargs):
        self.first = first
        super().__init__(*args, **kwargs)  # answers the request

    def send_head(self):
        """Send the headers and return the opened file, or send a redirect or an error and return None."""
        if not self.is_for_this_machine():
            return self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        path = unquote(urlsplit(self.path).path)
        if path == "/":
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", self.first)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        file = Path(self.directory, path.lstrip("/"))
        if not (SERVED.fullmatch(path) and files.is_inside(file, Path(self.directory)) and file.is_file()):
            return self.send_error(HTTPStatus.NOT_FOUND)
        self.path = path  # what was checked is what is sent
        return super().send_head()
