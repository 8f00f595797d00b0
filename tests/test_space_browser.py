"""The Space as a visitor meets it: a real browser, at a desk and on a phone."""

import os
import re
import shutil
from pathlib import Path
from urllib.parse import urlparse

import pytest
from space_fixtures import EXAMPLES, serve_shipped  # noqa: F401

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


def missing(what: str) -> None:
    reason = f"{what} is missing: pip install playwright, and apt-get install -y chromium"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser():
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        missing("Chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, shipped):
    """Open the page; at the end no request has left this machine, and the console shows no error."""
    asked, errors, contexts = [], [], []

    def open_page(viewport=DESK, scheme="light"):
        context = browser.new_context(viewport=viewport, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(90_000)  # a busy machine is slow
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(shipped)
        page.wait_for_selector(".wbc-welcome")
        return page

    yield open_page
    for context in contexts:
        context.close()
    local = {"127.0.0.1", None}  # None: data and blob addresses, which are no request
    assert asked and {url for url in asked if urlparse(url).hostname not in local} == set()
    assert errors == []


@pytest.fixture
def screenshots(tmp_path):
    folder = Path(os.environ.get("WBC_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def send(page, path) -> None:
    page.locator("#photo input[type=file]").set_input_files(path)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_a_visitor_gets_the_answer(viewport, scheme, visit, shipped, screenshots):
    from gradio_client import Client, handle_file

    page = visit(viewport, scheme)
    name = f"{viewport['width']}-{scheme}"
    page.screenshot(path=screenshots / f"{name}-welcome.png", full_page=True)
    send(page, EXAMPLES / "eosinophil.png")
    page.wait_for_selector(".wbc-overlay")

    answer = Client(shipped, verbose=False).predict(handle_file(EXAMPLES / "eosinophil.png"), api_name="/classify")
    assert page.locator(".wbc-name").inner_text() == answer["label"].capitalize()
    assert page.locator(".wbc-bars li").count() == len(answer["probabilities"])
    for label, probability in answer["probabilities"].items():
        shown = page.locator(f'.wbc-bars li[data-label="{label}"] .wbc-value').inner_text()
        assert re.fullmatch(r"[<>]?\d+\.\d%", shown)
        assert float(shown.strip("<>%")) == pytest.approx(100 * probability, abs=0.1)
    assert page.locator(".wbc-photo").evaluate("image => image.complete && image.naturalWidth") == 640
    assert answer["label"].capitalize() in page.locator(".wbc-photo").get_attribute("alt")
    assert "not for diagnosis" in page.locator("body").inner_text()
    assert page.locator("footer:visible").count() == 1, "ours, and none of gradio's"
    # What does not fit is wrapped, never cut or pushed aside.
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    # The answer comes before the picture of where it looked, and on a phone right under the photograph.
    tops = [page.locator(part).bounding_box()["y"] for part in ("#photo", ".wbc-name", ".wbc-overlay")]
    if viewport is PHONE:
        assert tops == sorted(tops) and tops[1] < 844
    page.wait_for_timeout(300)
    page.screenshot(path=screenshots / f"{name}-answer.png", full_page=True)


def test_an_example_loads_with_one_click_and_goes_again(visit):
    page = visit()
    page.get_by_role("button", name="Eosinophil").click()
    page.wait_for_selector(".wbc-overlay")
    first = page.locator(".wbc-overlay").get_attribute("src")
    page.get_by_role("button", name="Neutrophil").click()
    page.wait_for_function("old => document.querySelector('.wbc-overlay')?.src !== old", arg=first)
    page.get_by_role("button", name="Clear").or_(page.get_by_role("button", name="Remove")).first.click()
    page.wait_for_selector(".wbc-welcome")


def test_a_damaged_picture_is_explained_on_the_page(visit, tmp_path, screenshots):
    (tmp_path / "cut.png").write_bytes((EXAMPLES / "eosinophil.png").read_bytes()[:40_000])
    page = visit()
    send(page, tmp_path / "cut.png")
    page.wait_for_selector(".wbc-problem")
    assert "damaged or cut short" in page.locator("[role=alert]").inner_text()
    page.screenshot(path=screenshots / "1280-light-problem.png", full_page=True)
