"""Tables of texts in a browser without a network: sorted, searched, paged, chosen by a cell; in a report and by plain nbconvert."""

import nbformat
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from nbconvert import HTMLExporter
from playwright.sync_api import expect

from pdstudy.escape import escape_control
from pdstudy.report import html, tables, text_lists

pytestmark = pytest.mark.browser
N = 60
HOSTILE = "</td></table><script>document.title = 'hacked'</script><img src=x onerror=\"document.title = 'hacked'\">"


class Answered:
    """An explorer of 60 texts with a student and its teacher: text i has class i % 2; every third student's answer is wrong."""

    def __init__(self):
        self.labels = ["<b>bad</b>", "good"]
        self.texts = [f"text number {i}" if i else HOSTILE for i in range(N)]
        label = pd.Series([i % 2 for i in range(N)])
        student = pd.Series([1 - i % 2 if i % 3 == 0 else i % 2 for i in range(N)])
        both = {"2/64-PD-s0": student, "teacher": label}
        self.models = {
            name: pd.DataFrame({"label": label, "predicted": p, "logits": [[2.0 - k, 1.0 + k] for k in p]})
            for name, p in both.items()
        }


def outputs() -> list[str]:
    return [
        tables.load().data,
        text_lists.texts(Answered(), "2/64-PD-s0").data,
        tables.interactive(pd.DataFrame({"text": ["one"]})).data,
    ]


def by_nbconvert() -> str:
    """Return the tables as plain nbconvert renders a notebook with them."""
    cells = [
        nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("display_data", {"text/html": text})]) for text in outputs()
    ]
    return HTMLExporter(template_name="classic").from_notebook_node(nbformat.v4.new_notebook(cells=cells))[0]


@pytest.fixture(params=["report", "nbconvert"])
def path(request, tmp_path):
    body = f"<h1>Title</h1>{''.join(outputs())}"
    (tmp_path / "page.html").write_text(escape_control(html.page("title", body)) if request.param == "report" else by_nbconvert())
    assert (tmp_path / "page.html").stat().st_size < 2_000_000
    return tmp_path / "page.html"


def first_cells(page) -> list[str]:
    return page.locator("table.texts").first.locator("tbody tr td:first-child").all_inner_texts()


@pytest.mark.parametrize(("theme", "width"), [("light", 1200), ("dark", 390)])
def test_texts_are_paged_searched_sorted_and_chosen_offline(chromium, path, pictures, theme, width, request):
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, offline=True)
    page, complaints = context.new_page(), []
    page.on("pageerror", lambda error: complaints.append(str(error)) if "require" not in str(error) else None)
    page.goto(f"file://{path}", wait_until="commit")
    box = page.locator(".texts-box").first
    expect(box.get_by_label("Search")).to_be_visible()
    assert len(first_cells(page)) == 10 and first_cells(page)[0] == HOSTILE and page.title() != "hacked"
    box.get_by_role("button", name="10 texts: good, answered <b>bad</b>").click()
    expect(box.get_by_text("10 entries")).to_be_visible()
    assert sorted(first_cells(page)) == sorted(f"text number {i}" for i in range(3, N, 6))
    box.locator("select.choose").select_option(label="2/64-PD-s0 and teacher differ: 20")
    expect(box.get_by_text("of 20 entries")).to_be_visible()
    assert box.locator("button[aria-pressed=true]").count() == 0
    box.get_by_label("Search").fill("number 33")
    assert first_cells(page) == ["text number 33"]
    box.get_by_label("Search").fill("")
    box.locator("select.choose").select_option("")
    box.locator("table.texts thead th").first.locator(".dt-column-order").press("Enter")
    expect(box.locator("table.texts thead th").first).to_have_attribute("aria-sort", "ascending")
    box.locator("nav button").get_by_text("2", exact=True).click()
    expect(box.get_by_text("Showing 11 to 20 of 60 entries")).to_be_visible()
    assert page.locator(".texts-box img, .texts-box script").count() == 0 or "nbconvert" in request.node.name
    broken_rules = Axe().run(page, {"include": [[".texts-box"]]}).response["violations"]
    assert not broken_rules, [(v["id"], v["nodes"][0]["target"]) for v in broken_rules]
    if "report" in request.node.name:
        assert not Axe().run(page).response["violations"] and page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.screenshot(path=pictures / f"tables-{theme}-{width}.png", full_page=True)
    assert not complaints
    context.close()


def test_without_scripts_every_text_is_in_the_page_and_nothing_that_does_nothing(chromium, path):
    page = chromium.new_context(java_script_enabled=False, offline=True).new_page()
    page.goto(f"file://{path}", wait_until="commit")
    expect(page.locator("table.texts").first.locator("tbody tr")).to_have_count(N)
    assert page.locator(".texts-box select, .texts-box button").filter(visible=True).count() == 0
    page.context.close()
