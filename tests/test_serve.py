"""Serving: this machine only, the files on the list only, and a sentence where there is nothing to serve or nowhere to."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request

import pytest

from pdstudy.report import server


@pytest.fixture
def folder(tmp_path):
    """A study's folder with pages, a figure, and what is nobody's business; beside it a secret."""
    study = tmp_path / "mine"
    for name in ("reports/index.html", "reports/01_one.html", "figures/gains.csv", "claims.json"):
        (study / name).parent.mkdir(parents=True, exist_ok=True)
        (study / name).write_text(f"this is {name}")
    for name in ("reports/.hidden.html", "reports/01_one.ipynb", "metrics.parquet", "logs/run.html", "reports.html"):
        (study / name).parent.mkdir(parents=True, exist_ok=True)
        (study / name).write_text("SECRET")
    (tmp_path / "secret.html").write_text("SECRET")
    (study / "reports" / "link.html").symlink_to(tmp_path / "secret.html")
    (study / "figures" / "folder.csv").mkdir()
    return study


@pytest.fixture
def port(folder):
    with server.server(folder) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield serving.server_port
        serving.shutdown()


def ask(port: int, path: str, method: str = "GET", host: str | None = None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    return answer, answer.read().decode()


@pytest.mark.parametrize(
    ("path", "kind"), [("reports/index.html", "text/html"), ("figures/gains.csv", "text/csv"), ("claims.json", "application/json")]
)
def test_pages_figures_and_claims_are_served_as_what_they_are(port, path, kind):
    answer, text = ask(port, f"/{path}?seen=1")
    assert (answer.status, text) == (200, f"this is {path}")
    assert answer.headers["Content-Type"].startswith(kind) and answer.headers["X-Content-Type-Options"] == "nosniff"
    answer, text = ask(port, f"/{path}", "HEAD")
    assert (answer.status, text, answer.headers["Content-Length"]) == (200, "", str(len(f"this is {path}")))


def test_the_bare_address_leads_to_the_first_page(port):
    answer, _ = ask(port, "/")
    assert (answer.status, answer.headers["Location"]) == (302, "/reports/index.html")


@pytest.mark.parametrize(
    "path",
    [
        "/reports", "/reports/", "/figures/", "/metrics.parquet", "/reports.html", "/logs/run.html", "/reports/01_one.ipynb",
        "/reports/.hidden.html", "/reports/link.html", "/figures/folder.csv", "/reports/none.html", "/../secret.html",
        "/reports/../../secret.html", "/reports/%2e%2e/%2e%2e/secret.html", "/reports/..%2f..%2fsecret.html",
        "/reports/..%5c..%5csecret.html", "/reports//index.html", "/reports/./index.html",
        "/reports/index.html%00.html", "/reports/index.html/", "/reports/index.html%0a", "/%2fetc/passwd", "/REPORTS/index.html",
    ],
)  # fmt: skip
def test_nothing_else_is_served_and_nothing_is_listed(port, path):
    answer, text = ask(port, path)
    assert answer.status == 404
    assert "SECRET" not in text and "index" not in text and "mine" not in text


def test_a_name_from_elsewhere_that_points_here_gets_nothing(port):
    assert ask(port, "/claims.json", host=f"evil.example:{port}")[0].status == 421
    assert ask(port, "/claims.json", host=f"localhost:{port}")[0].status == 200


def test_nothing_can_be_sent(port):
    assert ask(port, "/claims.json", "POST")[0].status == 501


def test_it_listens_on_loopback_only(folder):
    with server.server(folder) as serving:
        assert serving.socket.getsockname()[0] == "127.0.0.1"


def test_a_port_in_use_is_passed_over_or_named(folder, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(server.ServeError, match=f"port {port} is in use; choose another"):
            server.server(folder, port)
        monkeypatch.setattr(server, "FIRST_PORT", port)
        with server.server(folder) as serving:
            assert serving.server_port > port
        monkeypatch.setattr(server, "PORTS", 1)
        with pytest.raises(server.ServeError, match="all in use; choose another with --port"):
            server.server(folder)


def command(*words, outputs):
    environment = os.environ | {"PDSTUDY_OUTPUTS": str(outputs)}
    return subprocess.Popen(
        [sys.executable, "-m", "pdstudy", "serve", *map(str, words)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # as in a terminal; what runs us in the background ignores it
    )  # fmt: skip


def test_a_study_without_reports_is_answered_with_the_cure(tmp_path):
    process = command("quick", outputs=tmp_path)
    said, complaint = process.communicate(timeout=60)
    assert process.returncode == 2 and not said
    assert "no reports there" in complaint and "python -m pdstudy report params/quick.yaml" in complaint


@pytest.mark.parametrize("named", ["by name", "by folder"])
def test_the_command_prints_the_address_and_ends_quietly_on_ctrl_c(folder, named):
    process = command("mine" if named == "by name" else folder, outputs=folder.parent)
    try:
        address = process.stdout.readline().split()[0]
        assert address.startswith("http://127.0.0.1:")
        assert urllib.request.urlopen(address, timeout=10).read() == b"this is reports/index.html"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0 and process.stderr.read() == ""
    finally:
        process.kill()
