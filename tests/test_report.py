"""Reports: strict parameters, whole or not at all, offline, without this machine's paths, made from the numbers."""

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import bs4
import nbformat
import pytest
import readme as tool

from pdstudy import Study
from pdstudy.analysis import answers, claims, verdicts
from pdstudy.report import figures, render
from pdstudy.storage import paths, results

OUR_SCRIPT = (paths.ROOT / "pdstudy" / "report" / "templates" / "page.js").read_text()


class Page(HTMLParser):
    """What a page holds that a browser would act upon."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.handlers, self.addresses, self.images, self.words = [], [], [], [], []
        self.scripts, self.links, self.policies, self.anchors, self.within = [], [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        attributes, self.within = dict(attributes), tag
        if tag == "script":
            self.scripts.append("")
            assert not attributes, "a script of ours says nothing of itself"
        if tag == "link":
            self.links.append(attributes)
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy":
            self.policies.append(attributes["content"])
        self.anchors += [attributes["id"]] if "id" in attributes else []
        self.handlers += [name for name in attributes if name.startswith("on")]
        self.addresses += [attributes[name] for name in ("src", "href") if name in attributes]
        if tag == "img":
            self.images.append(attributes)

    def handle_endtag(self, tag):
        self.within = ""

    def handle_data(self, data):
        if self.within == "script":
            self.scripts[-1] += data
        else:
            self.words.append(data)


@pytest.fixture(params=["index", *render.QUESTIONS])
def page(rendered, request) -> Page:
    return Page((rendered / f"{request.param}.html").read_text())


def notebook(folder: Path, *sources: str) -> Path:
    """Write a notebook with a parameters cell and these cells."""
    cells = [nbformat.v4.new_code_cell('name = "x"', metadata={"tags": ["parameters"]}), *map(nbformat.v4.new_code_cell, sources)]
    made = nbformat.v4.new_notebook(cells=cells)
    made.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    path = folder / "09_test.ipynb"
    nbformat.write(made, path)
    return path


def test_a_page_asks_nobody_and_runs_nothing_but_our_script(page):
    assert not {"iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not page.handlers
    assert page.scripts == [OUR_SCRIPT] and page.links == [{"rel": "icon", "href": "data:,"}]
    local = r"data:image/png;base64,[\w+/=]+|data:,|(\w+\.html)?(#[\w-]+)?|\.\./figures/\w+\.csv|\.\./claims\.json"
    assert all(re.fullmatch(local, address) for address in page.addresses), [a[:80] for a in page.addresses]


def test_a_page_forbids_all_scripts_but_ours_by_its_digest(page):
    digest = base64.b64encode(hashlib.sha256(OUR_SCRIPT.encode()).digest()).decode()
    (policy,) = page.policies
    assert sorted(policy.split("; ")) == [
        "base-uri 'none'",
        "default-src 'none'",
        "form-action 'none'",
        "img-src data:",
        f"script-src 'sha256-{digest}'",
        "style-src 'unsafe-inline'",
    ]


def test_our_script_asks_nobody_and_makes_no_markup():
    forbidden = r"fetch|XMLHttpRequest|WebSocket|EventSource|sendBeacon|import\b|eval|Function|innerHTML|outerHTML|insertAdjacent|write\(|//\w|cookie"
    assert not re.findall(forbidden, OUR_SCRIPT)


def test_every_link_leads_somewhere(rendered):
    pages = {path.name: Page(path.read_text()) for path in rendered.glob("*.html")}
    for name, page in pages.items():
        for address in page.addresses:
            file, _, anchor = address.partition("#")
            if file.startswith("data:"):
                continue
            assert not file or (rendered / file).resolve().is_file(), (name, address)
            assert not anchor or anchor in pages[file or name].anchors, (name, address)


def test_every_claim_on_the_index_leads_to_its_figure_and_its_data(rendered):
    index = bs4.BeautifulSoup((rendered / "index.html").read_text(), "html5lib")
    measured = set(verdicts.judge("smoke").query("verdict != 'not measured'").id)
    assert {"V1", "R2", "R9", "R12", "R14"} <= measured
    for claim in claims.CLAIMS:
        row = index.find("tr", id=f"claim-{claim.id}")
        assert row.th.get_text() == claim.id
        links = [a["href"] for a in row.find_all("a")]
        page = next(f"{stem}.html" for stem, q in render.QUESTIONS.items() if q == claims.QUESTIONS[claim.question])
        if claim.id == "R14" or claim.id not in measured:  # a table of the paper, and of no run; or nothing was drawn
            assert links == [page]
            continue
        figure, data = links
        name = figure.removeprefix(f"{page}#figure-")
        assert data == f"../figures/{name}.csv" and name in figures.NAMES
        if claim.id not in figures.TITLES.get(name, ()):  # then every claim of the question that has an effect is drawn there
            assert name == f"gains_{claim.question}"


def test_a_question_leads_to_its_neighbours_and_to_its_own_sections(rendered):
    names = ["index.html", *(f"{stem}.html" for stem in render.QUESTIONS)]
    for before, name, after in zip([None, *names], names, [*names[1:], None], strict=False):
        soup = bs4.BeautifulSoup((rendered / name).read_text(), "html5lib")
        top, contents, turns = (
            [a["href"] for a in soup.find("nav", attrs={"aria-label": label}).find_all("a")]
            for label in ("pages", "on this page", "previous and next")
        )
        assert top == names and soup.find("a", attrs={"aria-current": "page"})["href"] == name
        assert contents == [f"#{heading['id']}" for heading in soup.find_all("h2")] and len(contents) >= 5
        assert turns == [n for n in (before, after) if n]


def test_code_is_folded(rendered):
    for path in rendered.glob("0*.html"):
        soup = bs4.BeautifulSoup(path.read_text(), "html5lib")
        inputs = soup.select("div.input")
        assert inputs and all(code.find_parent("details") and not code.find_parent("details").has_attr("open") for code in inputs)


def test_every_figure_has_words_for_those_who_cannot_see_it(page):
    assert page.images and all(len(image.get("alt", "")) > 30 for image in page.images)


def test_pages_and_executed_notebooks_are_light_and_name_no_place_of_this_machine(rendered):
    import sys

    for path in rendered.iterdir():
        text = path.read_text()
        assert len(text) < 1_500_000
        for place in (str(paths.ROOT), sys.prefix, str(Path.home()) + "/", "/tmp/"):
            assert place not in text, (path.name, place)
    for path in rendered.glob("*.ipynb"):
        cells = [c.outputs for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        assert max(map(len, cells)) <= 12, "no flood of outputs"
        outputs = [output for cell in cells for output in cell]
        assert not [o for o in outputs if o.get("name") == "stderr" or o.output_type == "error"]


def test_the_answer_stands_in_the_report_and_on_the_index(rendered):
    table = verdicts.judge("smoke")
    for question, stem in zip(claims.QUESTIONS, render.QUESTIONS, strict=True):
        page, index = (bs4.BeautifulSoup((rendered / name).read_text(), "html.parser") for name in (f"{stem}.html", "index.html"))
        assert page.select_one(".answer").get_text() == answers.answer("smoke", table, question)
        on_index = answers.answer("smoke", table, question, with_scores=question == claims.VALUE)
        assert on_index in [answer.get_text() for answer in index.select(".answer")]


def test_the_answer_comes_first_then_a_figure_then_the_claims_and_the_rest_is_folded(rendered):
    for name in ("index", *render.QUESTIONS):
        page = bs4.BeautifulSoup((rendered / f"{name}.html").read_text(), "html.parser").main
        order = [node.name if node.name != "p" else "answer" for node in page.select("h1, .answer, figure, h2")]
        assert order[:4] == ["h1", "answer", "figure", "h2"], name
        before = page.select_one(".answer").find_all_previous(string=True)
        words = " ".join(text for text in before if page in text.parents and not text.find_parent("pre")).split()
        assert len(words) <= 60, "of the heading and what the question is"
        unfolded = [heading.get_text() for heading in page.find_all("h2") if heading.find_parent("summary") is None]
        assert unfolded == (list(claims.QUESTIONS.values()) if name == "index" else ["Claims"])


def test_what_computes_the_study_prints_nothing_on_a_page(rendered):
    assert "every step is in the store" not in (rendered / "01_pretraining_value.html").read_text()
    assert "every step is in the store" in (rendered / "01_pretraining_value.ipynb").read_text()


def test_the_answer_changes_with_the_numbers(smoke, rendered, tmp_path):
    """Nothing is typed: other predictions, other sentences."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = paths.study_folder("smoke")
    for name in (results.METRICS, results.PARAMS):
        shutil.copy(source / name, tmp_path / name)
    table = results.load_predictions("smoke")
    students = results.load_results("smoke")
    basic = set(students[(students.recipe == "Basic") & (students.split == "test")].digest)
    others = set(students[students.split == "test"].digest.dropna()) - basic
    table.loc[table.digest.isin(others), "predicted"] = table.label
    table.loc[table.digest.isin(basic), "predicted"] = 1 - table.label.where(table.item % 3 > 0, 1 - table.label)
    pq.write_table(pa.Table.from_pandas(table), tmp_path / results.PREDICTIONS)
    changed = verdicts.judge(str(tmp_path)).set_index("id")
    assert changed.verdict["V1"] == "supported" and changed.estimate["V1"] == pytest.approx(100 * 2 / 3, abs=3)
    assert answers.answer(tmp_path, verdicts.judge(tmp_path)) != answers.answer("smoke", verdicts.judge("smoke"))


def test_an_executed_report_tells_its_parameters(rendered, smoke):
    executed = nbformat.read(rendered / "01_pretraining_value.ipynb", as_version=4)
    assert executed.metadata.papermill.parameters == {"study": "params/smoke.yaml", "settings": {}}
    assert executed.metadata.papermill.input_path == "01_pretraining_value.ipynb"


def test_a_study_that_no_notebook_could_read_is_refused_before_anything_runs(tmp_path, smoke):
    file = tmp_path / "smoke.yaml"
    shutil.copy(paths.PARAMS / "smoke.yaml", file)
    study = Study.read(file)
    file.write_text(file.read_text().replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))
    with pytest.raises(render.ReportError, match=r"smoke.yaml has changed since the study was run"):
        render.render(study)
    with pytest.raises(render.ReportError, match="read from a params file"):
        render.render(Study.checked(smoke.model_dump()))


def test_a_report_is_given_the_file_and_what_differs_from_it(tmp_path):
    study = Study.read("quick", {"seeds": [0, 1]})
    assert render.parameters(study) == {"study": "params/quick.yaml", "settings": {"seeds": [0, 1]}}


def test_hostile_text_is_shown_and_not_run(tmp_path):
    hostile = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    source = f"import pandas as pd\nfrom pdstudy.escape import Prose\ndisplay(Prose({hostile!r}))\npd.DataFrame({{'text': [{hostile!r}]}})"
    made = render.execute(notebook(tmp_path, source), {"name": "x"}, tmp_path)
    page = Page(made.read_text())
    assert page.scripts == [OUR_SCRIPT] and "x" not in page.addresses and not page.handlers
    assert hostile in " ".join(page.words)


def test_a_report_does_not_say_where_a_params_file_outside_the_workspace_lies(tmp_path):
    values = {"study": str(tmp_path / 'my "best" study.yaml'), "settings": {"seeds": [0]}}
    made = render.execute(notebook(tmp_path, "print(len(study))"), values, tmp_path)
    executed = nbformat.read(made.with_suffix(".ipynb"), as_version=4)
    source = next(c.source for c in executed.cells if "injected-parameters" in c.metadata.get("tags", []))
    assert source == '# Parameters\nsettings = {"seeds": [0]}\nstudy = "my \\"best\\" study.yaml"\n'
    assert str(tmp_path) not in made.read_text() + made.with_suffix(".ipynb").read_text()


def test_a_kernel_says_nothing_in_the_terminal(tmp_path, capfd):
    render.execute(notebook(tmp_path, "print(name)"), {"name": "y"}, tmp_path)
    assert "".join(capfd.readouterr()) == ""


def test_the_readme_table_is_made_from_the_results(rendered, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(
        "before\n<!-- answers of smoke: made by `python tools/readme.py`, not typed -->\nold\n<!-- end of answers -->\nafter\n"
    )
    tool.fill(readme, "answers", tool.tables("smoke"))
    text = readme.read_text()
    assert "| V1 | Pre-training helps a student that is then fine-tuned |" in text and "old" not in text
    assert text.startswith("before\n") and text.endswith("after\n") and "commit" in text
    tool.fill(readme, "answers", tool.tables("smoke"))
    assert readme.read_text() == text


def test_claims_json_is_written_beside_the_metrics(rendered):
    rows = json.loads((paths.study_folder("smoke") / "claims.json").read_text())
    assert len(rows) == len(claims.CLAIMS)
