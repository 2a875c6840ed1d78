"""Texts and label names of an enemy, through every report: shown, never run; and nobody but this machine is asked for anything."""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import bs4
import nbformat
import pytest
import small

from pdstudy.report import render
from pdstudy.storage import paths

LONG = "x" * 45  # what is shorter and looks like a tag is removed before it is ever shown
HOSTILE = [
    f'<script title="{LONG}">document.title="PWNED"</script>',
    f'<img src="https://evil.example/{LONG}" onerror="document.title=`PWNED`">',
    f'<a href="javascript:document.title=1//{LONG}">click</a>',
    f'</td></tr></table></pre></details><iframe src="//evil.example/{LONG}">',
    f'<svg/onload=document.title="PWNED" class="{LONG}">',
    "[click](javascript:alert(1)) ![x](https://evil.example/x.png)",
    "\x1b[31;1mred\x1b[0m \x1b]8;;https://evil.example\x07link\x1b]8;;\x07 \x9b2J",
    "\u202egnp.exe \u2066isolate \u061c mark",
    "{{ 7 * 7 }} {% raw %} ${7*7} $\\frac{$ &lt;b&gt; <!-- ",
    "'\"><style>*{display:none}</style>" + LONG,
]
LABELS = (f'<img src=x onerror="document.title=`PWNED`" title="{LONG}">', "javascript:alert(1)\u202e\x1b[31m</td><script>")
ACTIVE = {"script", "iframe", "object", "embed", "link", "base", "form", "input", "svg", "meta"}
LOCAL = r"data:,|data:image/png;base64,[\w+/=]+|(\w+\.html)?(#[\w-]+)?|\.\./figures/\w+\.csv|\.\./claims\.json"
ACTING = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
PAGES = ("index", *render.QUESTIONS)
OUR_SCRIPT = (paths.ROOT / "pdstudy" / "report" / "templates" / "page.js").read_text()
OURS = (f"<script>{OUR_SCRIPT}</script>", '<link href="data:," rel="icon"/>')  # to the letter, and in the head


@pytest.fixture(scope="module")
def reports(make_once):
    """The reports of a study on hostile texts and labels, made while the network is blocked; and the note of who asked for it."""

    def make(folder: Path) -> None:
        world = small.World.make(folder / "site", small.texts(add=HOSTILE), labels=LABELS)
        tokenizer = {"vocabulary": 400, "folder": None}
        params = small.written(folder / "params", tokenizer=tokenizer, recipes=["Basic", "Distillation", "PF", "PD"])
        offline = {"PDSTUDY_OFFLINE": str(folder / "asked")}
        done = world.run("report", params, "--workers", "2", outputs=folder / "outputs", timeout=500, **offline)
        assert done.returncode == 0, done.stderr

    folder = make_once("hostile", make)
    return folder / "outputs" / "small" / "reports", folder / "asked"


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory):
    """The tutorial's page, whose tables show texts, made from the hostile ones."""
    folder = tmp_path_factory.mktemp("tutorial")
    world = small.World.make(folder / "site", small.texts(snippets=1700, reviews=300, add=HOSTILE), labels=LABELS, task="movies")
    values = {"documents": 280, "labelled": 100, "transfer": 200, "vocabulary_size": 400, "pretraining_steps": 5}
    code = f"from pathlib import Path; from pdstudy.report import render; from pdstudy.storage import paths; render.execute(paths.NOTEBOOKS / '00_one_student.ipynb', {values}, Path('.'))"
    environment = os.environ | world.environment | {"PDSTUDY_OUTPUTS": str(folder / "outputs")}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "00_one_student.html"


def dangers(text: str) -> list[str]:
    """Return what a browser would act upon in a page, as html5lib, which repairs as a browser does, understands it."""
    page = bs4.BeautifulSoup(text, "html5lib")
    active = [tag for tag in page.find_all(ACTIVE) if tag.name != "meta" or tag.get("http-equiv", "").lower() == "refresh"]
    dangerous = [str(tag)[:80] for tag in active if tag.parent is not page.head or str(tag) not in OURS]
    for tag in page.find_all(True):
        for name, value in tag.attrs.items():
            address = name in ("src", "href", "action", "data", "xlink:href", "srcset", "formaction", "background")
            local = re.fullmatch(LOCAL, str(value))
            if (
                name.startswith("on")
                or (address and not local)
                or (name == "style" and re.search(r"url\(|expression|@import", str(value)))
            ):
                dangerous.append(f"{tag.name} {name}={str(value)[:60]}")
    dangerous += [str(tag)[:80] for tag in page.body.find_all("style")]
    style = " ".join(tag.get_text() for tag in page.find_all("style"))
    return dangerous + re.findall(r"@import|url\((?!data:)", style) + [f"U+{ord(c):04X}" for c in ACTING.findall(text)]


def broken(text: str) -> list[str]:
    """Return the tables whose rows differ in width: a text has closed a cell."""
    tables = bs4.BeautifulSoup(text, "html5lib").find_all("table")
    widths = [{sum(int(c.get("colspan", 1)) for c in row.find_all(["td", "th"])) for row in t.find_all("tr")} for t in tables]
    return [str(t)[:80] for t, w in zip(tables, widths, strict=True) if len(w) != 1]


@pytest.mark.parametrize(
    ("source", "n"),
    [(f"<p>{text}</p>", n) for text, n in zip(HOSTILE, (1, 2, 1, 2, 2, 0, 7, 3, 0, 1), strict=True)],
)
def test_the_check_itself_sees_what_is_dangerous(source, n):
    assert len(dangers(source)) == n, dangers(source)


@pytest.mark.parametrize(
    ("source", "n"),
    [
        (f"<head>{OURS[1]}{OURS[0]}</head>", 0),
        (f"<head><script>{OUR_SCRIPT};</script></head>", 1),
        (f'<head><script type="module">{OUR_SCRIPT}</script></head>', 1),
        (f"<body><p>{OURS[0]}</p></body>", 1),
        ('<head><link href="data:,x" rel="icon"/></head>', 2),
        ('<p><a href="../figures/../x.csv">', 1),
        ('<p><a href="//evil.example/x.html">', 1),
    ],
)
def test_the_check_itself_passes_our_script_and_nothing_like_it(source, n):
    assert len(dangers(source)) == n, dangers(source)


def test_the_check_itself_sees_a_broken_table():
    row = "<tr><td>a</td><td>{}</td></tr>"
    assert broken(f"<table>{row.format('b')}{row.format('</td><td>c')}</table>") and not broken(f"<table>{row * 2}</table>")


@pytest.mark.faults
@pytest.mark.parametrize("name", PAGES)
def test_a_report_on_hostile_texts_and_labels_holds_nothing_active_and_no_broken_table(reports, name):
    text = (reports[0] / f"{name}.html").read_text()
    assert dangers(text) == [] and broken(text) == []
    assert bs4.BeautifulSoup(text, "html5lib").find("table"), "there was something to break"


@pytest.mark.faults
def test_label_names_are_shown_as_they_are_written(reports):
    words = bs4.BeautifulSoup((reports[0] / "index.html").read_text(), "html5lib").get_text()
    assert LABELS[0] in words and "\\u202e\\u001b[31m</td><script>" in words


@pytest.mark.faults
def test_the_tutorial_shows_hostile_texts_and_runs_none(tutorial):
    cells = [c.outputs for c in nbformat.read(tutorial.with_suffix(".ipynb"), as_version=4).cells if c.cell_type == "code"]
    assert not [o for cell in cells for o in cell if o.get("name") == "stderr"] and max(map(len, cells)) <= 12
    text = tutorial.read_text()
    assert dangers(text) == [] and broken(text) == []
    words = bs4.BeautifulSoup(text, "html5lib").get_text()
    visible = [
        part for part in ("<script", "<svg/onload", "<style", "javascript:", "evil.example", "\\u202e", "\\u001b") if part in words
    ]
    assert len(visible) >= 2, "hostile texts were shown"


@pytest.mark.faults
def test_every_page_forbids_other_scripts_and_all_requests_by_its_own_policy(reports):
    for name in PAGES:
        page = bs4.BeautifulSoup((reports[0] / f"{name}.html").read_text(), "html5lib")
        (policy,) = (m["content"] for m in page.find_all("meta") if m.get("http-equiv") == "Content-Security-Policy")
        digest = base64.b64encode(hashlib.sha256(OUR_SCRIPT.encode()).digest()).decode()
        ours = {f"script-src 'sha256-{digest}'", "style-src 'unsafe-inline'"}
        assert set(policy.split("; ")) == {"default-src 'none'", "img-src data:", "base-uri 'none'", "form-action 'none'"} | ours
        assert len(page.find_all("script")) == 1
        assert page.head.find("meta", attrs={"http-equiv": True}).find_previous_sibling("style") is None, "before any content"


@pytest.mark.faults
def test_a_whole_study_with_its_reports_asks_nobody(reports):
    assert not reports[1].exists(), reports[1].read_text()


@pytest.mark.faults
def test_executed_notebooks_of_hostile_texts_hold_no_place_of_this_machine(reports):
    for path in reports[0].glob("*.ipynb"):
        text = path.read_text()
        assert str(paths.ROOT) not in text and "/tmp/" not in text and sys.prefix not in text
        assert nbformat.read(path, as_version=4).metadata.papermill.parameters.study == "small.yaml"


@pytest.mark.faults
def test_a_browser_runs_nothing_of_a_report(reports, tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine; the same pages are parsed by html5lib above")
    for name in PAGES:
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--dump-dom"]
        done = subprocess.run([*command, f"file://{reports[0]}/{name}.html"], capture_output=True, text=True, timeout=120)
        page = bs4.BeautifulSoup(done.stdout, "html5lib")
        assert page.title and page.title.string and "PWNED" not in page.title.string and page.find("table")
