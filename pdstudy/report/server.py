"""A study's pages for the browsers of this machine and nobody else: files that are on the list, from its folder alone.

The pages also open as files. Served, they have an address, and a browser remembers for all of them which colours were chosen.
"""

import errno
import re
import shutil
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pdstudy.storage import files, paths

HOST, FIRST_PORT, PORTS = "127.0.0.1", 8000, 20
SERVED = re.compile(r"/(reports/\w[\w-]*\.html|figures/\w[\w-]*\.(csv|png|svg)|claims\.json)", re.ASCII)
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}


class ServeError(RuntimeError):
    """Raised where there is nothing to serve or nowhere to serve it; the message names the cure."""


def first_page(folder: Path) -> str:
    """Return the address, on the server, of the page to begin with. Raises ServeError where a study has none."""
    pages = sorted((folder / "reports").glob("[!.]*.html"), key=lambda page: (page.name != "index.html", page.name))
    if not pages:
        raise ServeError(
            f"{paths.scrub(str(folder))}: no reports there; make them with: python -m pdstudy report params/{folder.name}.yaml"
        )
    return f"/reports/{pages[0].name}"


def server(folder: Path, port: int | None = None) -> ThreadingHTTPServer:
    """Return a server of a study's folder, bound to loopback: to this port, or to the first free one from FIRST_PORT on."""
    handler = partial(Pages, folder=folder.resolve(), first=first_page(folder))
    for tried in range(FIRST_PORT, FIRST_PORT + PORTS) if port is None else [port]:
        try:
            return ThreadingHTTPServer((HOST, tried), handler)
        except PermissionError:
            raise ServeError(f"port {tried} is not yours to open; choose one of 1024 to 65535 with --port") from None
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    if port is None:
        raise ServeError(f"ports {FIRST_PORT} to {FIRST_PORT + PORTS - 1} are all in use; choose another with --port")
    raise ServeError(f"port {port} is in use; choose another, or leave --port out and a free one is taken")


class Pages(BaseHTTPRequestHandler):
    """One request: a page, a figure or its data, or nothing. There is no listing, and no name leads out of the folder."""

    server_version, sys_version = "pdstudy", ""

    def __init__(self, *request, folder: Path, first: str):
        self.folder, self.first = folder, first
        super().__init__(*request)  # answers the request, so what it needs is set before

    def do_GET(self) -> None:
        """Answer with a file, its first page for "/", or an error."""
        # A page elsewhere that has its own name point to this machine asks by that name, and gets nothing.
        if self.headers.get("Host", "") not in {f"{host}:{self.server.server_port}" for host in (HOST, "localhost")}:
            return self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        asked = unquote(urlsplit(self.path).path)
        if asked == "/":
            return self._say(HTTPStatus.FOUND, {"Location": self.first, "Content-Length": "0"})
        file = self.folder / asked.lstrip("/")
        if not (SERVED.fullmatch(asked) and files.is_inside(file, self.folder) and file.is_file()):
            return self.send_error(HTTPStatus.NOT_FOUND)
        with file.open("rb") as opened:
            size = file.stat().st_size
            self._say(HTTPStatus.OK, {"Content-Type": KINDS[file.suffix], "Content-Length": str(size)})
            if self.command == "GET":
                shutil.copyfileobj(opened, self.wfile)

    do_HEAD = do_GET

    def _say(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_) -> None:
        """Say nothing: who reads a report does not read a log of it."""
