"""The reports of a study in a real browser: whole, quiet, sortable, legible in the light and in the dark, and usable by keyboard."""

import threading
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from pdstudy.analysis import claims
from pdstudy.report import render
from pdstudy.report.server import make_server

pytestmark = pytest.mark.browser
PAGES = ["index", *render.QUESTIONS]


@pytest.fixture(scope="module")
def site(rendered):
    """The address of the smoke study's pages, served as `pdstudy serve` does."""
    with make_server(rendered.parent) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


@pytest.fixture
def reader(chromium, site):
    """Open a page as a reader who sees every request and hears every complaint; at the end there must be none from elsewhere."""
    contexts, asked, complaints = [], [], []

    def open_page(name="index", theme="light", width=1280, **more):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, **more)
        contexts.append(context)
        context.on("request", lambda request: asked.append(request.url))
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{site}/reports/{name}.html")
        return page

    open_page.complaints = complaints
    yield open_page
    for context in contexts:
        context.close()
    outside = [url[:80] for url in asked if not url.startswith((f"{site}/", "data:"))]
    assert not outside, "a page asked somebody"
    assert not complaints


def column(table, i: int) -> list[str]:
    return [row.locator("th, td").nth(i).inner_text() for row in table.locator("tbody tr").all()]


def in_view(element) -> bool:
    """Return whether an element's top stands in the window."""
    return element.evaluate("e => { const top = e.getBoundingClientRect().top; return top >= -1 && top < innerHeight; }")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_fits_its_window_and_is_kept_as_a_picture(reader, pictures, name, theme, width):
    page = reader(name, theme, width)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "only boxes scroll sideways"
    assert page.evaluate("[...document.images].length && [...document.images].every(i => i.complete && i.naturalWidth > 0)")
    wide = page.locator("table, figure img").all()
    boxes = page.locator(".wide").count()
    assert boxes == len(wide), "whatever may be wider than the window has its box"
    page.screenshot(path=pictures / f"{name}-{theme}-{width}.png", full_page=True)


def violations(page) -> list[tuple[str, str]]:
    """Return what axe-core finds against the rules of accessibility, with the places."""
    broken_rules = Axe().run(page).response["violations"]
    return [(violation["id"], str(node["target"])) for violation in broken_rules for node in violation["nodes"]]


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(reader, name, theme, width):
    page = reader(name, theme, width)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert not violations(page)


def test_axe_would_see_pale_words_and_a_figure_without_any(reader):
    page = reader()
    page.evaluate("document.querySelector('h1').style.color = '#aaa'; document.images[0].removeAttribute('alt');")
    assert {rule for rule, _ in violations(page)} == {"color-contrast", "image-alt"}


def test_a_table_sorts_by_its_numbers_by_mouse_and_by_keyboard_and_back(reader):
    page = reader()
    section = page.locator("details", has=page.locator("h2:has-text('The text')"))
    section.locator("summary").click()
    table = section.locator("table")
    head = table.locator("th", has_text="read")
    at = table.locator("thead th").all_inner_texts().index(head.inner_text())
    before, cells = column(table, 0), column(table, at)
    numbers = sorted(float(text) for text in cells if text)
    assert len(set(numbers)) > 2 and len(numbers) < len(cells), "there is something to sort, and something that is no number"
    for press, direction, expected in (
        (head.get_by_role("button").click, "ascending", numbers),
        (lambda: head.get_by_role("button").press("Enter"), "descending", numbers[::-1]),
    ):
        press()
        cells = column(table, at)
        assert head.get_attribute("aria-sort") == direction
        assert [float(text) for text in cells[: len(numbers)]] == expected and not any(cells[len(numbers) :]), "no value stays last"
    head.get_by_role("button").press("Space")
    assert head.get_attribute("aria-sort") is None and column(table, 0) == before


def test_a_column_of_words_sorts_as_people_count_and_one_column_at_a_time(reader):
    page = reader()
    page.locator("summary", has_text="claims:").first.click()
    table = page.locator("details table").first
    names = table.locator("th", has_text="row")
    names.get_by_role("button").click()
    cells = column(table, 0)
    assert cells.index("R2") < cells.index("R13"), "R2 before R13"
    verdicts = table.locator("th", has_text="verdict")
    verdicts.get_by_role("button").click()
    where = [claim.strip() for claim in table.locator("thead th").all_inner_texts()].index(verdicts.inner_text().strip())
    cells = column(table, where)
    assert cells == sorted(cells) and names.get_attribute("aria-sort") is None


def test_colours_follow_the_system_until_they_are_chosen_and_the_choice_is_remembered(reader):
    page = reader(theme="dark")
    ground = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor")  # noqa: E731
    button, dark = page.get_by_role("button", name="dark colours"), ground()
    assert button.get_attribute("aria-pressed") == "true"
    page.emulate_media(color_scheme="light")
    expect(button).to_have_attribute("aria-pressed", "false")
    assert ground() != dark
    button.press("Enter")
    assert ground() == dark and button.get_attribute("aria-pressed") == "true"
    page.reload()
    assert ground() == dark
    page.get_by_role("link", name=claims.QUESTIONS[claims.DEPTH]).first.click()
    page.wait_for_url("**/02_depth_vs_width.html")
    assert ground() == dark, "chosen on one page, chosen on all"
    assert page.evaluate("getComputedStyle(document.images[0]).backgroundColor") == "rgb(255, 255, 255)", "figures stay on white"


def test_where_a_browser_forgets_the_colours_still_turn(chromium, site):
    context = chromium.new_context(color_scheme="light")
    context.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('no storage here'); } });")
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(f"{site}/reports/index.html")
    page.get_by_role("button", name="dark colours").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark" and not errors
    assert page.locator("th button").count() > 10
    context.close()


def test_the_questions_follow_each_other_and_the_contents_lead_to_their_sections(reader):
    page = reader()
    for stem, question in render.QUESTIONS.items():
        page.get_by_role("navigation", name="previous and next").get_by_role("link", name="Next").click()
        page.wait_for_url(f"**/{stem}.html")
        assert page.locator("h1").inner_text() == question
        assert page.locator("[aria-current=page]").inner_text() == question
    folded = page.locator("details", has=page.locator("h2#what-this-does-not-show"))
    assert folded.get_attribute("open") is None
    page.get_by_role("navigation", name="on this page").get_by_role("link", name="What this does not show", exact=True).click()
    assert in_view(page.locator("h2#what-this-does-not-show")) and folded.get_attribute("open") is not None


def test_a_claim_leads_to_its_figure_and_its_data_and_back(reader, site):
    page = reader()
    page.locator("summary", has_text="5 claims").last.click()
    data = page.get_by_role("link", name="data of R9")
    answered = page.request.get(f"{site}/reports/{data.get_attribute('href')}")
    assert answered.ok and "Distillation,2/64" in answered.text() and urlsplit(answered.url).path == "/figures/transfer_size.csv"
    page.get_by_role("link", name="figure of R9").click()
    page.wait_for_url("**/04_domain_robustness.html#figure-transfer_size")
    figure = page.locator("#figure-transfer_size")
    assert in_view(figure)
    figure.get_by_role("link", name="R9").click()
    page.wait_for_url("**/index.html#claim-R9")
    assert in_view(page.locator("#claim-R9"))


def test_the_keyboard_is_enough(reader):
    page = reader("01_pretraining_value")
    page.keyboard.press("Tab")
    skip = page.locator(":focus")
    assert skip.inner_text() == "Skip to the content" and skip.bounding_box()["x"] >= 0, "seen once it is reached"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null"), "past the navigation"
    assert page.locator(":focus").evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    code = page.locator("details.code").first
    assert not code.locator("pre").is_visible()
    code.locator("summary").press("Enter")
    assert code.locator("pre").is_visible(), "code is one key away"


def test_a_page_itself_refuses_every_other_script_and_every_request(reader):
    page = reader()
    assert page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        document.head.append(script);
        return window.ran === undefined;
    }""")
    assert page.evaluate("fetch('/claims.json').then(() => 'answered', () => 'refused')") == "refused"
    assert len(reader.complaints) >= 2 and all("Content Security Policy" in complaint for complaint in reader.complaints), (
        "and says why"
    )
    reader.complaints.clear()


def test_without_scripts_a_page_is_whole_and_offers_nothing_that_does_nothing(reader):
    page = reader(java_script_enabled=False)
    assert page.locator("table").count() > 4 and page.locator("figure img").count() == 1
    assert page.get_by_role("button").count() == 0


def test_on_paper_a_page_is_light_and_has_no_controls(reader, pictures):
    page = reader("01_pretraining_value", theme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("body > header, .contents, .turn, .skip, details.code").filter(visible=True).count()
    page.pdf(path=pictures / "01_pretraining_value.pdf", format="A4")


def test_the_settings_of_a_report_are_folded_and_open_by_keyboard(reader):
    page = reader(PAGES[1])
    page.locator("summary", has=page.locator("h2#the-study")).click()
    summary = page.locator("summary", has_text="Study smoke: task")
    table = summary.locator("xpath=..").locator("table")
    expect(table).to_be_hidden()
    summary.focus()
    page.keyboard.press("Enter")
    expect(table).to_be_visible()
