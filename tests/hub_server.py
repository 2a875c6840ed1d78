"""A model hub on 127.0.0.1, as much of the protocol as `huggingface_hub` and `datasets` ask for, serving what a test put into it.

It is not a mock: the libraries' own code asks it, over HTTP. What a real hub may do wrong (a cut connection, other bytes
than promised) is done by its switches.
"""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = (".parquet", ".safetensors", ".bin")  # kept by the real hub as large files, whose etag is their sha256


class Hub(ThreadingHTTPServer):
    """Repositories by ("datasets" or "models", name): their commits, newest last, each a mapping of paths to bytes."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reset()

    def reset(self) -> None:
        """Forget all repositories, requests and faults."""
        self.repositories: dict[tuple[str, str], dict[str, dict[str, bytes]]] = {}
        self.asked: list[str] = []
        self.cut: set[str] = set()  # ends of paths whose bytes stop half-way,
        self.altered: set[str] = set()  # and of those that are served with other bytes than promised

    @property
    def endpoint(self) -> str:
        """Return its address, for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_port}"

    def push(self, kind: str, name: str, files: dict[str, bytes]) -> str:
        """Add a commit with exactly these files and return its hash."""
        commits = self.repositories.setdefault((kind, name), {})
        sha = hashlib.sha1(f"{name}{len(commits)}".encode() + b"".join(files.values())).hexdigest()
        commits[sha] = files
        return sha

    def start(self) -> None:
        """Answer requests, in a thread."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def do_POST(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def log_message(self, *words):
        pass

    def _answer(self):
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        if match := re.fullmatch(r"/api/(datasets|models)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?", path):
            kind, name, verb, revision, below = match.groups()
            self._api(kind, name, verb or "revision", revision or "main", below or "")
        elif match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            datasets, name, revision, file = match.groups()
            self._file("datasets" if datasets else "models", name, revision, file)
        else:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "not found"})

    def _commit(self, kind: str, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commits = self.server.repositories.get((kind, name))
        if commits is None:
            self._send(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
            return None
        sha = list(commits)[-1] if revision == "main" else revision
        if sha not in commits:
            self._send(404, b'{"error": "Invalid rev id"}', {"X-Error-Code": "RevisionNotFound"})
            return None
        return sha, commits[sha]

    def _api(self, kind: str, name: str, verb: str, revision: str, below: str) -> None:
        if (commit := self._commit(kind, name, revision)) is None:
            return
        sha, files = commit
        if verb == "revision":
            siblings = [{"rfilename": path} | _described(path, data) for path, data in files.items()]
            answer = {
                "_id": sha[:24],
                "id": name,
                "sha": sha,
                "siblings": siblings,
                "private": False,
                "disabled": False,
                "gated": False,
            }
            answer |= {
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "lastModified": "2026-01-01T00:00:00.000Z",
                "createdAt": "2026-01-01T00:00:00.000Z",
            }
        elif verb == "tree":
            answer = _entries(files, below)
            if below and not answer:
                self._send(404, b"[]", {"X-Error-Code": "EntryNotFound"})
                return
        else:
            wanted = json.loads(self.body)["paths"] if self.headers.get_content_type() == "application/json" else _form(self.body)
            answer = [entry for path in wanted for entry in _entries(files, "", recursive=True) if entry["path"] == path]
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _file(self, kind: str, name: str, revision: str, file: str) -> None:
        if (commit := self._commit(kind, name, revision)) is None:
            return
        sha, files = commit
        if file not in files:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
            return
        data, described = files[file], _described(file, files[file])
        etag = described["lfs"]["sha256"] if "lfs" in described else described["blobId"]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{etag}"', "X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(data))}
        if file.endswith(tuple(self.server.altered)):
            data = data[:-1] + bytes([data[-1] ^ 1])
        begin = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if begin and self.command == "GET":
            part = data[int(begin[1]) : int(begin[2]) + 1 if begin[2] else None]
            headers["Content-Range"] = f"bytes {begin[1]}-{int(begin[1]) + len(part) - 1}/{len(data)}"
            self._send(206, part, headers, cut=file)
        else:
            self._send(200, data, headers, cut=file)

    def _send(self, status: int, data: bytes, headers: dict[str, str], cut: str = "") -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(data)), "Accept-Ranges": "bytes"}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut and cut.endswith(tuple(self.server.cut)):
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        self.wfile.write(data)


def _described(path: str, data: bytes) -> dict:
    record = {"size": len(data), "blobId": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}
    if path.endswith(LARGE):
        record["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return record


def _entries(files: dict[str, bytes], below: str, recursive: bool = False) -> list[dict]:
    entries = {}
    for path, data in files.items():
        if below and not path.startswith(f"{below}/"):
            continue
        rest = path[len(below) + 1 :] if below else path
        parts = rest.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join([*([below] if below else []), *parts[:depth]])
            entries[folder] = {"type": "directory", "path": folder, "size": 0, "oid": hashlib.sha1(folder.encode()).hexdigest()}
        described = _described(path, data)
        oid = described.pop("blobId")
        if "lfs" in described:
            described["lfs"]["oid"] = described["lfs"].pop("sha256")
        entries[path] = {"type": "file", "path": path, "oid": oid} | described
    return list(entries.values())


def _form(body: bytes) -> list[str]:
    from urllib.parse import parse_qs

    return parse_qs(body.decode()).get("paths", [])


HUB = Hub()  # bound when it is imported, for the libraries read its address when they are; it answers once it is started
