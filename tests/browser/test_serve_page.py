"""The page of an exported model in a browser: a text is labelled by hand, with the keyboard, and no other server is asked."""

import threading

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from pdstudy.release import serve

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def model(exported):
    return serve.open_model(exported)


@pytest.fixture(scope="module")
def address(model):
    with serve.make_server(model) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(("theme", "width"), [("light", 1200), ("dark", 390)])
def test_a_text_is_labelled_by_hand(chromium, address, model, pictures, theme, width):
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    asked, complaints = [], []
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.goto(address)
    page.get_by_label("Text").fill("a <b>fine</b> film")
    page.get_by_role("button", name="Label it").press("Enter")
    (prediction,) = model.predictions(["a <b>fine</b> film"])
    expect(page.locator("#answer .answer")).to_have_text(prediction["label"])
    cells = page.locator("#answer td").all_inner_texts()
    assert cells == [f"{100 * p:.1f}" for p in sorted(prediction["probabilities"].values(), reverse=True)]
    assert not Axe().run(page).response["violations"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.screenshot(path=pictures / f"serve-{theme}-{width}.png", full_page=True)
    page.get_by_label("Text").fill(" \n ")
    page.get_by_role("button", name="Label it").click()
    expect(page.locator("#answer")).to_have_text("There is no text to label.")
    context.close()
    assert all(url.startswith((address, "data:")) for url in asked) and not complaints


def test_class_names_are_shown_as_text(chromium, model):
    hostile = ("<img src=x onerror=alert(1)>", "b")
    with serve.make_server(serve.Model("hostile", serve.Labeller(model.labeller.logits, hostile, False), "an engine")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = chromium.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}")
        page.get_by_label("Text").fill("a film")
        page.get_by_role("button", name="Label it").click()
        expect(page.locator("#answer th", has_text="<img")).to_be_visible()
        assert page.locator("img").count() == 0
        page.close()
        server.shutdown()
