"""The Space as a visitor meets it: a real browser, at a desk and on a phone."""

import os
import re
import shutil
from pathlib import Path
from urllib.parse import urlparse

import pytest
from PIL import Image
from space_fixtures import EXAMPLES, serve_shipped, visits  # noqa: F401

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
WIDE = {"width": 1920, "height": 1080}


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

    def open_page(viewport=DESK, scheme="light", locale="en-GB"):
        context = browser.new_context(viewport=viewport, color_scheme=scheme, locale=locale, accept_downloads=True)
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
def unhurried(monkeypatch):
    """Count no more than twenty photos a second: who wants to cancel must find something running, on a quick machine too."""
    from space_fixtures import smear_fields

    stop_if_asked = smear_fields.Counting._stop_if_asked

    def wait_and_stop(counting):
        counting.cancelled.wait(0.05)
        stop_if_asked(counting)

    monkeypatch.setattr(smear_fields.Counting, "_stop_if_asked", wait_and_stop)


@pytest.fixture
def screenshots(tmp_path):
    folder = Path(os.environ.get("WBC_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def send(page, path) -> None:
    page.locator("#photo input[type=file]").set_input_files(path)


def drop(page, part, *paths) -> None:
    """Drop files or folders as a hand does: no input of the page is touched."""
    box = page.locator(part).bounding_box()
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    carried = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, **place, "data": carried})


def wait_for_name(page, name) -> None:
    page.wait_for_function("name => document.querySelector('.wbc-name')?.innerText === name", arg=name)


def heavy(folder, name="heavy.bmp") -> Path:
    """Make a file that is too large for the page, without filling the disk."""
    with (folder / name).open("wb") as file:
        file.truncate(50_000_001)
    return folder / name


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


def test_on_a_wide_screen_the_page_stays_together_in_the_middle(visit, screenshots):
    page = visit(WIDE)
    send(page, EXAMPLES / "eosinophil.png")
    page.wait_for_selector(".wbc-overlay")
    for number in range(4):
        page.locator("[role=tab]").nth(number).click()
        page.wait_for_timeout(300)
        page.screenshot(path=screenshots / f"1920-light-tab-{number}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= WIDE["width"]
        main = page.locator(".main.fillable").bounding_box()
        assert main["width"] <= 1300, "lines that long nobody reads"
        assert main["x"] == pytest.approx(WIDE["width"] - main["x"] - main["width"], abs=20)
        inside = page.evaluate(
            """() => [...document.querySelectorAll('.main.fillable :is(h1, h2, p, table, img, button)')]
              .map(part => part.getBoundingClientRect()).filter(box => box.width && box.height)
              .every(box => box.left >= 0 && box.right <= innerWidth)"""
        )
        assert inside, "something reaches over the edge"


def test_an_example_loads_with_one_click_and_goes_again(visit):
    page = visit()
    page.get_by_role("button", name="Eosinophil").click()
    page.wait_for_selector(".wbc-overlay")
    first = page.locator(".wbc-overlay").get_attribute("src")
    page.get_by_role("button", name="Neutrophil").click()
    page.wait_for_function("old => document.querySelector('.wbc-overlay')?.src !== old", arg=first)
    page.get_by_role("button", name="Clear").or_(page.get_by_role("button", name="Remove")).first.click()
    page.wait_for_selector(".wbc-welcome")


def test_photo_after_photo_is_dropped_pasted_or_chosen(visit):
    page = visit()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    drop(page, "#photo", EXAMPLES / "neutrophil.png")
    wait_for_name(page, "Neutrophil")
    drop(page, "#photo", EXAMPLES / "lymphocyte.png")
    wait_for_name(page, "Lymphocyte")
    drop(page, "h1", EXAMPLES / "eosinophil.png")  # beside the box: no browser leaves the page for it
    wait_for_name(page, "Eosinophil")
    drop(page, "#photo", EXAMPLES / "neutrophil.png", EXAMPLES / "monocyte.png")
    wait_for_name(page, "Neutrophil")
    assert "One photo is taken at a time, this one: neutrophil.png." in page.locator("#photo-told").inner_text()
    copied = "async url => navigator.clipboard.write([new ClipboardItem({'image/png': (await fetch(url)).blob()})])"
    page.evaluate(copied, page.get_by_role("button", name="Basophil").locator("img").get_attribute("src"))
    page.locator("h1").click()
    page.keyboard.press("Control+V")
    wait_for_name(page, "Basophil")
    assert page.locator("#photo-told").count() == 0
    with page.expect_file_chooser() as chosen:
        page.get_by_role("button", name="Upload file").click()
    chosen.value.set_files(EXAMPLES / "monocyte.png")
    wait_for_name(page, "Monocyte")


def test_an_empty_clipboard_and_a_missing_camera_are_told(visit):
    page = visit()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    missing_camera = (
        "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('none', 'NotFoundError'); }"
    )
    page.context.add_init_script(missing_camera)
    page.reload()
    page.wait_for_selector(".wbc-welcome")
    told = page.locator("#photo-told")
    page.evaluate("navigator.clipboard.writeText('no picture')")
    page.locator("h1").click()
    page.keyboard.press("Control+V")
    told.get_by_text("The clipboard holds no picture.").wait_for()
    page.get_by_role("button", name="Capture from camera").click()
    page.get_by_text("Click to Access Webcam").click()
    told.get_by_text("No camera was found").wait_for()
    page.get_by_role("button", name="Paste from clipboard").click()
    told.get_by_text("The clipboard holds no picture.").wait_for()
    page.context.clear_permissions()
    page.get_by_role("button", name="Paste from clipboard").click()
    told.get_by_text("does not let this page read the clipboard").wait_for()
    drop(page, "#photo", EXAMPLES / "neutrophil.png")  # what was tried before keeps no photo back
    wait_for_name(page, "Neutrophil")
    page.get_by_role("button", name="Capture from camera").click()
    page.get_by_text("Click to Access Webcam").wait_for()
    drop(page, "#photo", EXAMPLES / "lymphocyte.png")
    wait_for_name(page, "Lymphocyte")
    assert told.count() == 0


@pytest.mark.parametrize("locale", ["en-GB", "de-DE"])
def test_a_file_that_is_too_heavy_keeps_no_other_back(locale, visit, tmp_path):
    page = visit(locale=locale)
    told = {"en-GB": "larger than 50 MB: heavy.bmp.", "de-DE": "größer als 50 MB: heavy.bmp."}[locale]
    drop(page, "#photo", heavy(tmp_path))
    page.locator("#photo-told").get_by_text(told).wait_for()
    for tab, box, done in ((1, "#fields", ".wbc-review"), (2, "#lab-files", "#lab-cells .wbc-table")):
        page.get_by_role("tab").nth(tab).click()
        (tmp_path / "notes.txt").write_text("x")
        chosen = [tmp_path / "heavy.bmp", EXAMPLES / "monocyte.png", tmp_path / "notes.txt"]
        page.locator(f"{box} input[type=file]").set_input_files(chosen)
        page.locator(f"{box}-told").get_by_text(told).wait_for()
        assert "notes.txt" in page.locator(f"{box}-told").inner_text()
        page.wait_for_selector(done)
    assert page.get_by_role("alert").filter(has_text="MB").count() == 1, "no word of gradio's"


def test_text_that_brings_its_picture_along_stays_text(visit):
    """As copied from a spreadsheet."""
    page = visit()
    drawn_fields(page)
    page.locator(TOTAL).focus()
    paste = """text => {
        const carried = new DataTransfer();
        carried.setData('text/plain', text);
        carried.items.add(new File(['x'], 'cell.png', {type: 'image/png'}));
        const event = new ClipboardEvent('paste', {clipboardData: carried, bubbles: true, cancelable: true});
        return document.activeElement.dispatchEvent(event);
    }"""
    assert page.evaluate(paste, "7200"), "left to the field"
    assert page.locator("#fields-cancel").is_hidden() and page.locator("#fields-told").count() == 0


def test_a_folder_that_is_dropped_gives_its_photos(visit, tmp_path):
    slide = tmp_path / "slide"
    (slide / "deep").mkdir(parents=True)
    shutil.copy(EXAMPLES / "neutrophil.png", slide / "10.png")
    shutil.copy(EXAMPLES / "monocyte.png", slide / "9.png")
    shutil.copy(EXAMPLES / "lymphocyte.png", slide / "deep" / "1.png")
    (slide / "Thumbs.db").write_bytes(b"no picture")
    page = visit()
    page.get_by_role("tab", name="Smear fields").click()
    drop(page, "#fields", slide)
    page.wait_for_selector(".wbc-review")
    assert "no pictures: Thumbs.db." in page.locator("#fields-told").inner_text()
    assert "in 3 photos" in page.locator("#fields-count").inner_text()
    assert re.findall(r"\w+\.png", page.locator("#fields-photos").inner_html())[:1] == ["9.png"], "in a person's order"
    (tmp_path / "empty").mkdir()
    drop(page, "#fields", tmp_path / "empty")
    page.locator("#fields-told").get_by_text("No picture lies in there.").wait_for()


def test_what_lies_in_a_great_folder_beyond_what_is_read_is_told(visit, tmp_path, screenshots):
    (tmp_path / "archive").mkdir()
    for number in range(5000):
        (tmp_path / "archive" / f"{number}.txt").touch()
    shutil.copy(EXAMPLES / "neutrophil.png", tmp_path / "archive" / "9000.png")
    page = visit()
    page.get_by_role("tab", name="Smear fields").click()
    drop(page, "#fields", tmp_path / "archive")
    page.locator("#fields-told").get_by_text("Left out, not read: 9000.png.").wait_for()
    assert "no pictures: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 4995 more" in page.locator("#fields-told").inner_text()
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        page.screenshot(path=screenshots / f"{width}-great-folder.png")


def test_a_language_of_gradios_alone_makes_no_page_of_two(visit):
    page = visit(locale="fr-FR")
    page.wait_for_function("document.documentElement.lang === 'en'")
    page.get_by_role("tab", name="Smear fields").click()
    said_there = page.locator("#fields").inner_text().split("\n")
    expected = ["Photos of one slide", "Drop photos here, or a folder of them,", "or click to choose"]
    assert [line for line in said_there if line] == expected
    page = visit(locale="de-DE")
    page.wait_for_function("document.documentElement.lang === 'de'")
    page.get_by_role("button", name="Mit der Kamera aufnehmen").click()
    page.get_by_text("Klicken, um die Kamera zu benutzen").wait_for()


def test_a_screen_reader_hears_no_clock_and_each_name_once(visit):
    tree = visit().locator("body").aria_snapshot()
    assert 'button "Basophil"' in tree and not re.search(r"\d\.\ds", tree)


def test_who_leaves_a_reviewed_slide_by_mistake_is_asked(visit):
    page = visit()
    page.get_by_role("tab", name="Smear fields").click()
    page.locator("#fields input[type=file]").set_input_files(EXAMPLES / "monocyte.png")
    page.wait_for_selector(".wbc-review")
    asked = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    page.locator(".wbc-cells button").first.click()
    page.keyboard.press("2")
    page.wait_for_selector('.wbc-review[data-taken="1"]')
    page.reload()
    page.wait_for_selector(".wbc-welcome")
    assert asked == ["beforeunload"]
    page.locator("h1").click()  # without a hand's touch no browser asks
    page.reload()
    assert asked == ["beforeunload"], "nothing is lost by that one"


def test_a_damaged_picture_is_explained_on_the_page(visit, tmp_path, screenshots):
    (tmp_path / "cut.png").write_bytes((EXAMPLES / "eosinophil.png").read_bytes()[:40_000])
    page = visit()
    send(page, tmp_path / "cut.png")
    page.wait_for_selector(".wbc-problem")
    assert "damaged or cut short" in page.locator("[role=alert]").inner_text()
    page.screenshot(path=screenshots / "1280-light-problem.png", full_page=True)


@pytest.mark.parametrize("locale", ["en-GB", "de-DE"])
def test_an_empty_picture_is_told_from_another_cell(locale, visit, tmp_path, screenshots):
    from PIL import Image

    Image.new("RGB", (400, 300), (230, 200, 200)).save(tmp_path / "empty.png")
    page = visit(locale=locale)
    send(page, tmp_path / "empty.png")
    page.wait_for_selector(".wbc-answer")
    title, why = {
        "en-GB": ("No white cell found", "looks like the nucleus of a white cell"),
        "de-DE": ("Keine weiße Zelle gefunden", "gleicht dem Kern einer weißen Zelle"),
    }[locale]
    assert page.locator(".wbc-name").inner_text() == title
    assert why in page.locator(".wbc-note").first.inner_text()
    page.screenshot(path=screenshots / f"1280-light-empty-{locale}.png", full_page=True)


def drawn_fields(page):
    """Count the drawings, and wait for the cells to look through."""
    page.locator("[role=tab]").nth(1).click()
    page.locator("#fields-example").click()
    page.wait_for_selector(".wbc-review")


def counted(page):
    """Read the table of the count: cells by class."""
    rows = page.locator("#fields-count tbody tr").all()
    return {
        row.locator("[data-class]").get_attribute("data-class"): int(row.locator("td").first.inner_text())
        for row in rows
    }


def change(page, act):
    """Do something that changes the count, and wait until it shows."""
    before = page.locator(".wbc-log").inner_text()
    act()
    page.wait_for_function("old => document.querySelector('.wbc-log')?.innerText !== old", arg=before)


def download(page, kind, folder):
    with page.expect_download() as waiting:
        page.locator(f"#download-{kind}").click()
    target = folder / waiting.value.suggested_filename
    waiting.value.save_as(target)
    return target


@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_a_slide_is_counted_reviewed_and_kept(viewport, visit, tmp_path, screenshots):
    import csv
    import json

    import jsonschema
    from conftest import REPOSITORY
    from pypdf import PdfReader

    page = visit(viewport)
    drawn_fields(page)
    before = counted(page)
    total = sum(before.values())
    assert total == page.locator("button[data-cell]").count() >= 5
    assert page.locator(".wbc-photos svg g").count() >= total
    assert (
        page.locator(".wbc-photos .wbc-field")
        .first.evaluate("box => getComputedStyle(box).backgroundImage")
        .startswith("url(")
    )

    first = page.locator("button[data-cell]").first
    group = first.evaluate("cell => cell.closest('.wbc-group').dataset.group")
    other = next(name for name in ("monocyte", "basophil") if name != group)
    first.click()
    change(page, lambda: page.locator(f"[data-to={other}]").click())
    after = counted(page)
    assert after == before | {group: before[group] - 1, other: before[other] + 1}
    page.locator("button[data-cell]").last.click()
    change(page, lambda: page.locator("[data-to=dropped]").click())
    assert sum(counted(page).values()) == total - 1

    document = json.loads(download(page, "json", tmp_path).read_text(encoding="utf-8"))
    schema = json.loads((REPOSITORY / "hub_model" / "differential.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(document, schema)
    assert {row["class"]: row["count"] for row in document["differential"]["rows"]} == counted(page)
    assert [change["to"] for change in document["changes"]] == [other, "dropped"]
    with download(page, "cells", tmp_path).open(encoding="utf-8", newline="") as stream:
        assert sorted(row["reviewed"] for row in csv.DictReader(stream) if row["reviewed"]) == sorted(
            [other, "dropped"]
        )
    with download(page, "count", tmp_path).open(encoding="utf-8", newline="") as stream:
        assert {row["class"]: int(row["count"]) for row in csv.DictReader(stream)} == counted(page)
    text = "".join(sheet.extract_text() for sheet in PdfReader(download(page, "pdf", tmp_path)).pages)
    assert f"Cells counted: {total - 1}" in text and f"→ {other}" in text and "→ no cell" in text

    change(page, lambda: page.locator("[data-undo]").click())
    change(page, lambda: page.locator("[data-undo]").click())
    assert counted(page) == before
    # What does not fit is wrapped or scrolls inside its own frame.
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    page.screenshot(path=screenshots / f"{viewport['width']}-light-fields.png", full_page=True)


def test_a_cell_is_named_with_the_keyboard_alone(visit):
    page = visit()
    page.locator("[role=tab]").nth(1).focus()
    page.keyboard.press("Enter")
    page.locator("#fields-example").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".wbc-review")
    page.locator("button[data-cell]").first.focus()
    page.keyboard.press("Enter")
    chosen = page.locator("button[data-cell][aria-pressed=true]").get_attribute("data-cell")
    page.keyboard.press("ArrowRight")
    moved = page.locator("button[data-cell][aria-pressed=true]").get_attribute("data-cell")
    assert moved != chosen
    change(page, lambda: page.keyboard.press("5"))
    assert page.locator(f'[data-group=basophil] [data-cell="{moved}"]').count() == 1
    assert page.evaluate("document.activeElement.dataset.cell") is not None, "the next cell has the focus"


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("end", ["done", "cancelled"])
def test_the_focus_is_not_lost_with_cancel(end, visit, tmp_path):
    page = visit()
    page.locator("[role=tab]").nth(1).focus()
    page.keyboard.press("Enter")
    page.locator("#fields input[type=file]").set_input_files(turned_fields(tmp_path, 16))
    page.locator("#fields-example").focus()
    page.wait_for_selector("#fields-cancel")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "fields-cancel"
    if end == "cancelled":
        page.keyboard.press("Enter")
    page.wait_for_selector("#fields-cancel", state="hidden")
    page.wait_for_function("document.activeElement.id === 'fields-example'")


def turned_fields(folder, most=40):
    """Write the drawings turned and mirrored: as many fields, each with other cells."""
    from PIL import Image, ImageOps

    files = []
    for number in range(8):
        for path in sorted(EXAMPLES.glob("*.png")):
            with Image.open(path) as opened:
                turned = (ImageOps.mirror(opened) if number >= 4 else opened).rotate(90 * number, expand=True)
            files.append(folder / f"{path.stem}-{number}.png")
            turned.save(files[-1])
    return files[:most]


def many_cells(page, folder, most=40):
    """Count such fields, and wait for the cells to look through."""
    page.locator("[role=tab]").nth(1).click()
    page.locator("#fields input[type=file]").set_input_files(turned_fields(folder, most))
    page.wait_for_selector(".wbc-review")


def said(page):
    """Read the log, the earliest first: which cell, and what it was called then."""
    lines = reversed(page.locator(".wbc-log li").all_inner_texts())
    return [(line.split(" ", 1)[1].rpartition(":")[0], line.rpartition("→")[2].strip()) for line in lines]


@pytest.mark.parametrize("gap", [0, 100], ids=["at once", "each 100 ms"])
def test_cells_that_are_named_quickly_get_each_its_own_name(gap, visit, tmp_path):
    page = visit()
    many_cells(page, tmp_path)
    group = page.locator(".wbc-group").filter(has=page.locator(".wbc-cells li:nth-child(7)")).first
    cells = group.locator("button[data-cell]").all()
    own = group.get_attribute("data-group")
    names = [name.get_attribute("data-to") for name in page.locator("[data-to]").all()]
    keys = [key for key, name in enumerate(names, 1) if name != own][:3]
    typed = [keys[number % 3] for number in range(6)]
    expected = {cell.get_attribute("data-cell"): names[key - 1] for cell, key in zip(cells, typed, strict=False)}
    seventh = cells[6].get_attribute("data-cell")
    cells[0].click()
    for key in typed:
        page.keyboard.press(str(key))
        page.wait_for_timeout(gap)
    assert page.evaluate("document.activeElement.dataset.cell") == seventh, "the next cell has the focus at once"
    page.wait_for_function("document.querySelectorAll('.wbc-log time').length === 6")
    for cell, name in expected.items():
        assert page.locator(f'[data-group="{name}"] [data-cell="{cell}"]').count() == 1
    assert page.locator("button[data-cell][aria-pressed=true]").get_attribute("data-cell") == seventh
    assert page.evaluate("document.activeElement.dataset.cell") == seventh
    before = said(page)
    for _ in range(2):
        page.locator("[data-undo]").click()
    page.wait_for_function("document.querySelectorAll('.wbc-log time').length === 8")
    taken_back = [cell for cell, _ in said(page)[6:]]
    assert taken_back == [before[5][0], before[4][0]]
    left = list(expected)[:4]
    assert [page.locator(f'[data-group="{expected[cell]}"] [data-cell="{cell}"]').count() for cell in left] == [1] * 4
    assert all(page.locator(f'[data-group="{own}"] [data-cell="{cell}"]').count() == 1 for cell in list(expected)[4:])
    assert page.locator("button[data-cell][aria-pressed=true]").get_attribute("data-cell") == list(expected)[4]


def test_what_is_downloaded_has_all_in_it_that_was_said_before(visit, tmp_path, monkeypatch):
    """Also what waits in the browser behind steps that are still on their way."""
    import csv
    import json
    import time

    from pypdf import PdfReader
    from space_fixtures import review

    recount = review.Slide.recount
    monkeypatch.setattr(review.Slide, "recount", lambda slide: (time.sleep(1.5), recount(slide)))  # a slow line
    page = visit()
    many_cells(page, tmp_path, 20)
    before = 0
    for kind in ("json", "cells", "pdf"):
        unnamed = page.locator("button[data-cell]").filter(has_not_text="✓")
        group = max(page.locator(".wbc-group").all(), key=lambda one: one.locator(unnamed).count())
        own = group.get_attribute("data-group")
        names = [name.get_attribute("data-to") for name in page.locator("[data-to]").all()]
        key = next(key for key, name in enumerate(names, 1) if name not in (own, "unidentified", "dropped"))
        group.locator(unnamed).first.click()
        for _ in range(3):
            page.keyboard.press(str(key))
        file = download(page, kind, tmp_path)
        now = before + 3
        if kind == "json":
            assert [change["to"] for change in json.loads(file.read_text())["changes"]] == [names[key - 1]] * 3
        elif kind == "cells":
            with file.open(encoding="utf-8", newline="") as stream:
                assert sum(bool(row["reviewed"]) for row in csv.DictReader(stream)) == now
        else:
            text = "".join(sheet.extract_text() for sheet in PdfReader(file).pages)
            assert f"named by the reviewer: {now}" in text
        page.wait_for_function("n => document.querySelectorAll('.wbc-log time').length === n", arg=now)
        before = now
    page.wait_for_timeout(2000)
    assert page.locator(".wbc-log time").count() == before, "nothing is taken over twice"


def test_cells_that_are_taken_for_fitting_have_the_names_that_were_just_said(visit, tmp_path, monkeypatch):
    import time

    from space_fixtures import review

    recount = review.Slide.recount
    monkeypatch.setattr(review.Slide, "recount", lambda slide: (time.sleep(1.5), recount(slide)))  # a slow line
    page = visit()
    many_cells(page, tmp_path, 20)
    known = page.locator(".wbc-group:not([data-group=unidentified])")
    group = max(known.all(), key=lambda one: one.locator("button[data-cell]").count())
    own = group.get_attribute("data-group")
    names = [name.get_attribute("data-to") for name in page.locator("[data-to]").all()]
    key = next(key for key, name in enumerate(names, 1) if name not in (own, "unidentified", "dropped"))
    group.locator("button[data-cell]").first.click()
    for _ in range(3):
        page.keyboard.press(str(key))
    page.locator("[role=tab]").nth(2).click()
    page.locator("#lab-slide").click()
    page.wait_for_function("document.querySelector('#lab-status').innerText.includes('New cells')")
    told = page.locator("#lab-status").inner_text()
    page.wait_for_function("document.querySelectorAll('.wbc-log time').length === 3")
    unnamed = known.locator("button[data-cell]").filter(has_not_text="✓").count()
    assert f"{unnamed} that you did not name yourself" in told


def test_keys_after_the_last_cell_of_a_group_name_no_other(visit, tmp_path):
    page = visit()
    many_cells(page, tmp_path, 10)
    group = page.locator(".wbc-group").last
    own, number = group.get_attribute("data-group"), group.locator("button[data-cell]").count()
    names = [name.get_attribute("data-to") for name in page.locator("[data-to]").all()]
    key = next(key for key, name in enumerate(names, 1) if name != own)
    group.locator("button[data-cell]").first.click()
    for _ in range(number + 3):
        page.keyboard.press(str(key))
    page.wait_for_function("count => document.querySelectorAll('.wbc-log time').length === count", arg=number)
    assert page.locator("[data-to]:enabled").count() == 0
    assert "Choose another cell" in page.locator(".wbc-told").inner_text()
    page.wait_for_timeout(500)
    assert page.locator(".wbc-log time").count() == number
    page.keyboard.press("Enter")  # on purpose
    assert page.locator("[data-to]:enabled").count() == len(names)


def test_the_cell_with_the_focus_stays_in_sight(visit, tmp_path):
    page = visit(PHONE)
    many_cells(page, tmp_path)
    cells = page.locator("button[data-cell]")
    cells.first.click()

    def in_sight():
        return page.evaluate(
            """() => {
              const cell = document.activeElement.getBoundingClientRect();
              const panel = document.querySelector('.wbc-panel').getBoundingClientRect();
              return 'cell' in document.activeElement.dataset && panel.top >= 0 && cell.top >= panel.bottom
                && cell.bottom <= innerHeight;
            }"""
        )

    for _ in range(cells.count() - 1):
        page.keyboard.press("ArrowRight")
        assert in_sight()
    for _ in range(cells.count() - 1):
        page.keyboard.press("ArrowLeft")
        assert in_sight()
    page.locator(".wbc-photos svg g").last.click(force=True)
    assert in_sight()


TOTAL = "#fields-total input, #fields-total textarea"


def test_options_and_ranges_are_followed(visit):
    page = visit()
    drawn_fields(page)
    page.locator(TOTAL).fill("7200")
    page.wait_for_function("document.querySelector('#fields-count thead').innerText.includes('µL')")
    assert "7.2 × 10⁹ per litre" in page.locator("#fields-total-said").inner_text()
    page.locator(TOTAL).fill("7,2")
    page.wait_for_selector("#fields-total-said [role=alert]")
    assert "7,2 white cells per µL are too few" in page.locator("#fields-total-said").inner_text()
    assert "µL" not in page.locator("#fields-count thead").inner_text(), "no figure comes of a total that is not shown"
    page.locator("#fields-ranges button").click()
    page.get_by_label("Neutrophil, lowest").fill("90")
    page.wait_for_selector("#fields-ranges-said [role=alert]")
    assert "Neutrophil: 90 to 70 is no range" in page.locator("#fields-ranges-said").inner_text()
    page.get_by_label("Neutrophil, highest").fill("95")
    page.wait_for_function("document.querySelector('#fields-count tbody').innerText.includes('90–95')")
    assert page.locator("#fields-ranges-said [role=alert]").count() == 0


def test_no_option_hinders_a_count_or_passes_to_the_next_slide(visit):
    page = visit()
    drawn_fields(page)
    page.locator("#fields-ranges button").click()
    for again in (True, False):
        page.get_by_label("Neutrophil, lowest").fill("20")
        page.locator(TOTAL).fill("abc" if again else "7200")
        page.wait_for_selector("#fields-total-said p")
        if again:
            page.locator("#fields-again").click()
            page.wait_for_selector("#fields-count", state="hidden")
        page.locator("#fields input[type=file]").set_input_files(EXAMPLES / "monocyte.png")
        page.wait_for_selector("#fields-photos figure:only-child")
        assert "failed" not in page.locator("#fields-status").inner_text()
        assert page.locator(TOTAL).input_value() == "" and page.locator("#fields-total-said p").count() == 0
        assert page.get_by_label("Neutrophil, lowest").input_value() == "40"
        assert "µL" not in page.locator("#fields-count thead").inner_text()
        drawn_fields(page)
        page.wait_for_selector("#fields-photos figure:nth-child(2)")


@pytest.mark.usefixtures("unhurried")
def test_a_count_is_cancelled_and_bad_files_are_explained(visit, tmp_path):
    page = visit()
    page.locator("[role=tab]").nth(1).click()
    many = []
    for number in range(40):
        many.append(tmp_path / f"{number:02d}.png")
        shutil.copy(EXAMPLES / "monocyte.png", many[-1])
    page.locator("#fields input[type=file]").set_input_files(many)
    page.locator("#fields-cancel").click()
    page.wait_for_function("document.querySelector('#fields-status').innerText.includes('Cancelled')")
    assert "nothing of them was kept" in page.locator("#fields-status").inner_text()
    assert page.locator(".wbc-review").count() == 0
    (tmp_path / "no.png").write_text("no picture")
    page.locator("#fields input[type=file]").set_input_files([EXAMPLES / "monocyte.png", tmp_path / "no.png"])
    page.wait_for_selector("[data-list=refused]")
    assert "no.png" in page.locator("[data-list=refused]").inner_text()


@pytest.mark.usefixtures("unhurried")
def test_while_photos_are_counted_the_box_takes_no_others_and_then_it_does(visit, tmp_path):
    """What came meanwhile would be lost without a word."""
    page = visit()
    page.locator("[role=tab]").nth(1).click()
    inputs, removes = page.locator("#fields input[type=file]"), page.locator("#fields button[aria-label*='emove']")
    (tmp_path / "no.png").write_text("no picture")
    fields, height = turned_fields(tmp_path), page.locator("#fields").bounding_box()["height"]

    def counting(files):
        inputs.set_input_files(files)
        page.wait_for_selector("#fields-cancel:visible")
        page.wait_for_selector("#fields input[type=file]", state="detached")
        assert removes.count() == 0 and page.locator("#fields").bounding_box()["height"] == height, "nothing jumps"

    def open_again(told, ends=None):
        if ends:
            page.locator(ends).click()
        parts = (
            "['status', 'told', 'count', 'example'].map(part => document.getElementById(`fields-${part}`)?.innerText)"
        )
        page.wait_for_function(f"told => {parts}.join().includes(told)", arg=told)
        page.wait_for_selector("#fields input[type=file]", state="attached")

    counting(fields)
    open_again("Cancelled after", "#fields-cancel")
    counting(fields[:16])
    page.wait_for_selector(".wbc-review")
    open_again("in 16 photos")
    counting(fields)
    open_again("the slide that was counted before", "#fields-cancel")
    inputs.set_input_files([EXAMPLES / "monocyte.png"] * 201)
    open_again("at most 200 go at once")
    inputs.set_input_files(tmp_path / "no.png")
    open_again("no.png")
    assert page.locator("#fields-status .wbc-note").inner_text().startswith("no.png: this is no picture")
    counting(fields[:16])
    page.locator("#fields-example").click()  # in the place of what is counted
    page.wait_for_function("document.querySelectorAll('#fields-photos figure').length === 5")
    open_again("in 5 photos")
    page.locator("#fields-again").click()
    page.wait_for_selector(".wbc-review", state="detached")
    open_again("Try drawn fields")
    inputs.set_input_files(fields[:2])
    page.wait_for_selector(".wbc-review")
    open_again("in 2 photos")


def test_a_count_that_breaks_down_is_told_and_leaves_the_box_open(visit, monkeypatch, caplog):
    from space_fixtures import smear_fields

    def broken(counting):
        raise RuntimeError("broken down")

    page = visit()
    page.locator("[role=tab]").nth(1).click()
    with monkeypatch.context() as patch:
        patch.setattr(smear_fields.Counting, "run", broken)
        page.locator("#fields input[type=file]").set_input_files(EXAMPLES / "monocyte.png")
        told = "document.querySelector('#fields-status').innerText.includes('The count failed: broken down')"
        page.wait_for_function(told)
    assert "RuntimeError: broken down" in caplog.text
    page.wait_for_selector("#fields-cancel", state="hidden")
    page.locator("#fields input[type=file]").set_input_files(EXAMPLES / "monocyte.png")
    page.wait_for_selector(".wbc-review")


@pytest.mark.usefixtures("unhurried")
def test_a_review_outlasts_a_count_that_comes_to_nothing(visit, tmp_path):
    page = visit()
    drawn_fields(page)
    page.locator("button[data-cell]").first.click()
    change(page, lambda: page.keyboard.press("5"))
    page.locator(TOTAL).fill("7200")
    page.wait_for_function("document.querySelector('#fields-count thead').innerText.includes('µL')")

    def stands():
        return [
            text
            for part in ("#fields-count", ".wbc-group", ".wbc-log")
            for text in page.locator(part).all_inner_texts()
        ]

    before = stands()
    inputs = page.locator("#fields input[type=file]")
    for files in (turned_fields(tmp_path), [EXAMPLES / "monocyte.png"] * 201):
        inputs.set_input_files(files)
        if len(files) <= 200:
            page.locator("#fields-cancel").click()
        place, why = ("status", "Cancelled after") if len(files) <= 200 else ("told", "at most 200 go at once")
        page.locator(f"#fields-{place}").get_by_text(why).wait_for()
        assert "the slide that was counted before" in page.locator("#fields-status").inner_text()
        page.wait_for_selector(".wbc-review")
        assert stands() == before
        assert page.locator(TOTAL).input_value() == "7200"
    page.locator("button[data-cell]").last.click()
    change(page, lambda: page.locator("[data-to=dropped]").click())
    assert page.locator(".wbc-log time").count() == 2, "the review goes on"


def test_a_class_is_confirmed_at_once_and_the_slide_is_brought_back(visit, tmp_path):
    page = visit()
    many_cells(page, tmp_path, 10)
    group = page.locator(".wbc-group:has([data-right])").first
    name, number = group.get_attribute("data-group"), group.locator("button[data-cell]").count()
    change(page, group.locator("[data-right]").click)
    confirmed = page.locator(f".wbc-group[data-group={name}]")
    assert confirmed.locator("button[data-cell]").all_inner_texts() == ["✓"] * number
    assert confirmed.locator("[data-right]").count() == 0 and page.locator(".wbc-log time").count() == number
    page.locator(TOTAL).fill("7200")
    page.wait_for_function("document.querySelector('#fields-count thead').innerText.includes('µL')")
    page.locator("#fields-ranges button").click()
    page.get_by_label("Neutrophil, lowest").fill("33")
    page.wait_for_function("document.querySelector('#fields-count tbody').innerText.includes('33–70')")
    before = page.locator("#fields-count").inner_text()

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    page.locator("#fields input[type=file]").set_input_files(broken)
    page.wait_for_function("document.querySelector('#fields-status').innerText.includes('broken.png')")
    assert page.locator("#fields-count").inner_text() == before, "photos that are all refused replace no slide"

    for _ in range(2):
        page.locator("#fields-again").click()
        page.wait_for_selector(".wbc-review", state="detached")
        page.locator("#fields-back").click()
        page.wait_for_function("old => document.querySelector('#fields-count')?.innerText === old", arg=before)
        page.wait_for_timeout(1000)  # what the page sets itself must not be taken for the visitor's
        assert page.locator("#fields-count").inner_text() == before
        assert page.locator(TOTAL).input_value() == "7200" and page.locator(".wbc-log time").count() == number
        assert page.get_by_label("Neutrophil, lowest").input_value() == "33"
        assert page.locator("#fields-back").is_hidden()

    # Said, and started over before the answer: it is kept, and no visit has ended.
    page.evaluate(
        """() => { document.querySelector('[data-group=unidentified] [data-cell], [data-cell]').click();
          document.querySelector('[data-to=dropped]').click(); document.querySelector('#fields-again').click(); }"""
    )
    page.wait_for_selector("#fields-back:visible")
    page.wait_for_timeout(1000)
    assert "ended" not in page.locator("#fields-status").inner_text()
    page.locator("#fields-back").click()
    page.wait_for_function("n => document.querySelectorAll('.wbc-log time').length === n", arg=number + 1)


def test_a_first_change_is_kept_when_the_slide_is_taken_away_in_the_same_moment(visit, tmp_path):
    page = visit()
    many_cells(page, tmp_path, 3)
    page.evaluate(
        """() => { document.querySelector('[data-cell]').click(); document.querySelector('[data-to=dropped]').click();
          document.querySelector('#fields-again').click(); }"""
    )
    page.wait_for_selector("#fields-back:visible")
    assert page.locator(".wbc-review").count() == 0 and "ended" not in page.locator("#fields-status").inner_text()
    page.locator("#fields-back").click()
    page.wait_for_selector(".wbc-log time")
    assert page.locator(".wbc-log time").count() == 1


def test_the_chosen_cell_can_be_enlarged(visit):
    page = visit(PHONE)
    drawn_fields(page)
    big = page.locator(".wbc-big")
    assert big.is_disabled()
    page.locator("button[data-cell]").first.click()
    small = big.bounding_box()["width"]
    big.click()
    assert big.get_attribute("aria-expanded") == "true" and big.bounding_box()["width"] > 3 * small
    big.click()
    assert big.bounding_box()["width"] == small


def test_the_enlarged_cell_leaves_place_in_a_low_window(visit):
    page = visit({"width": PHONE["height"], "height": PHONE["width"]})
    drawn_fields(page)
    page.locator("button[data-cell]").first.click()
    page.locator(".wbc-big").click()
    page.locator("button[data-cell]").nth(3).click()
    page.wait_for_function(  # the panel where it is named, and below it the cell that was chosen
        """() => { const [panel, cell] = ['.wbc-panel', 'button[data-cell][aria-pressed=true]']
            .map(one => document.querySelector(one).getBoundingClientRect());
          return panel.top === 0 && panel.bottom <= cell.top && cell.bottom <= innerHeight; }"""
    )


@pytest.mark.parametrize("act", ["name", "total", "download"])
def test_who_comes_back_after_the_visit_is_told(act, visit, monkeypatch):
    page = visit()
    drawn_fields(page)
    page.locator("button[data-cell]").first.click()
    for name in ("LONGEST", "SWEEP"):
        monkeypatch.setattr(visits, name, -1)  # whatever was touched before is over
    if act == "name":
        page.keyboard.press("5")
    elif act == "total":
        page.locator(TOTAL).fill("7200")
    else:
        page.locator("#download-pdf").click()
    page.wait_for_selector("#fields-status [role=alert]")
    text = page.locator("#fields-status").inner_text()
    assert "This visit has ended" in text and "were deleted" in text and "drop the photos again" in text
    assert page.locator(".wbc-review:visible").count() == 0
    monkeypatch.undo()
    drawn_fields(page)
    page.locator("button[data-cell]").first.click()
    change(page, lambda: page.keyboard.press("5"))


@pytest.mark.usefixtures("unhurried")
def test_who_waits_for_others_counts_is_told_and_may_cancel(visit):
    from space_fixtures import smear_fields

    page = visit(locale="de-DE")
    others = [smear_fields.Counting.line.join() for _ in range(smear_fields.AT_ONCE)]  # counts that take long
    try:
        page.locator("[role=tab]").nth(1).click()
        page.locator("#fields input[type=file]").set_input_files(EXAMPLES / "monocyte.png")
        page.wait_for_selector("#fields-cancel:visible")
        page.wait_for_function("document.querySelector('#fields-status').innerText.includes('vor Ihrer: 1')")
        assert "queue" not in page.locator("body").inner_text()
        page.locator("#fields-cancel").click()
        page.wait_for_selector("#fields-cancel", state="hidden")
        page.locator("#fields input[type=file]").set_input_files(EXAMPLES / "monocyte.png")
        page.wait_for_function("document.querySelector('#fields-status').innerText.includes('vor Ihrer: 1')")
        others[0].leave()
        page.wait_for_selector(".wbc-review")
    finally:
        for other in others:
            other.leave()


def test_two_visitors_never_see_each_others_photos(visit, tmp_path):
    from PIL import Image

    pages = [visit(), visit()]
    for number, page in enumerate(pages):
        file = tmp_path / f"visitor-{number}.png"
        with Image.open(EXAMPLES / "neutrophil.png") as opened:
            opened.rotate(90 * (number + 1), expand=True).save(file)
        page.locator("[role=tab]").nth(1).click()
        page.locator("#fields input[type=file]").set_input_files(file)
    for number, page in enumerate(pages):
        page.wait_for_selector(".wbc-review")
        text = page.locator("body").inner_text()
        assert f"visitor-{number}.png" in text and f"visitor-{1 - number}.png" not in text


def bring_cells(page, folder, name, number):
    """Send cells of one class and wait until they are taken."""
    files = []
    for place in range(number):
        files.append(folder / f"{name}-{place}.png")
        Image.open(EXAMPLES / f"{name.lower()}.png").rotate(7 * place).save(files[-1])
    page.locator("#lab-label input").click()
    page.get_by_role("option", name=name).click()
    page.locator("#lab-files input[type=file]").set_input_files(files)
    page.wait_for_function(
        "told => [...document.querySelectorAll('#lab-cells tr')]"
        ".some(row => row.innerText.replace(/\\s+/g, ' ').startsWith(told))",
        arg=f"{name} {number}",
    )


def test_a_laboratory_fits_the_network_to_its_cells(visit, tmp_path):
    import zipfile

    page = visit()
    page.locator("[role=tab]").nth(2).click()
    assert "pbc" in page.locator("#lab-knows").inner_text()
    for name in ("Neutrophil", "Monocyte"):
        bring_cells(page, tmp_path, name, 3)
    page.locator("#lab-estimate").press("Enter")
    page.wait_for_selector("#lab-estimated .wbc-table")
    page.locator("#lab-fit").press("Enter")
    page.wait_for_selector("#lab-fitted .wbc-gain")
    assert "on 6 labelled cells" in page.locator("#lab-fitted").inner_text()
    with page.expect_download() as waiting:
        page.locator("#lab-download").click()
    waiting.value.save_as(tmp_path / "adapted.zip")
    assert "adapted/model.safetensors" in zipfile.ZipFile(tmp_path / "adapted.zip").namelist()
    bring_cells(page, tmp_path, "Basophil", 1)
    assert "fit again" in page.locator("#lab-status").inner_text()
    assert not page.locator("#lab-fitted").inner_text().strip() and page.locator("#lab-download").is_hidden()


def test_a_labelled_photo_of_several_cells_is_told(visit, tmp_path):
    page = visit()
    page.locator("[role=tab]").nth(2).click()
    with Image.open(EXAMPLES / "neutrophil.png") as one:
        both = Image.new("RGB", (2 * one.width, one.height))
        both.paste(one, (0, 0))
        both.paste(one, (one.width, 0))
    both.save(tmp_path / "field.png")
    files, status = [tmp_path / "field.png", EXAMPLES / "neutrophil.png"], page.locator("#lab-status")
    page.locator("#lab-files input[type=file]").set_input_files(files)
    page.wait_for_function("document.querySelector('#lab-status').innerText.includes('New cells: 2')")
    assert "More than one" not in status.inner_text(), "without a label there is nothing to confuse"
    page.locator("#lab-label input").click()
    page.get_by_role("option", name="Neutrophil").click()
    page.locator("#lab-files input[type=file]").set_input_files(files)
    page.wait_for_function("document.querySelector('#lab-status').innerText.includes('More than one white cell')")
    assert "in 1 of them (field.png)" in status.inner_text() and "Smear fields" in status.inner_text()


def test_who_presses_while_files_are_read_has_them_counted_in(visit, tmp_path, monkeypatch):
    from threading import Event

    from space_fixtures import my_laboratory

    page, goes_on, read_photo = visit(), Event(), my_laboratory.read_photo

    def held_up(photo):
        assert goes_on.wait(60)
        return read_photo(photo)

    monkeypatch.setattr(my_laboratory, "read_photo", held_up)
    page.locator("[role=tab]").nth(2).click()
    files = [EXAMPLES / "monocyte.png", EXAMPLES / "neutrophil.png", tmp_path / "broken.png", tmp_path / "noise.png"]
    files[2].write_bytes(b"no picture")
    Image.effect_noise((200, 200), 90).convert("RGB").save(files[3])
    page.locator("#lab-files input[type=file]").set_input_files(files)
    page.wait_for_function("document.querySelector('#lab-status').innerText.includes('Taking your cells')")
    page.locator("#lab-estimate").press("Enter")
    page.wait_for_function("document.querySelector('#lab-estimated').innerText.includes('before yours: 1')")
    goes_on.set()
    page.wait_for_selector("#lab-estimated .wbc-table")
    assert "2 images" in page.locator("#lab-estimated").inner_text()
    told = page.locator("#lab-status").inner_text()
    assert "New cells: 2" in told and "broken.png" in told, "the later answer leaves what was said of the files"
    assert "noise.png: no stained smear: it is grey" in told and "Leave it out, or take the photo anew." in told
    page.wait_for_selector("#lab-cancel", state="hidden")


def test_who_waits_for_others_fits_is_told_and_may_cancel(visit, tmp_path):
    from space_fixtures import my_laboratory

    page = visit(locale="de-DE")
    page.locator("[role=tab]").nth(2).click()
    page.locator("#lab-files input[type=file]").set_input_files(EXAMPLES / "monocyte.png")
    page.wait_for_function("document.querySelector('#lab-status').innerText.includes('Neue Zellen: 1')")
    with my_laboratory.FITS.join():  # another visitor's, that takes long
        page.locator("#lab-estimate").press("Enter")
        page.wait_for_function("document.querySelector('#lab-estimated').innerText.includes('vor Ihrem: 1')")
        page.locator("#lab-cancel").click()
        page.wait_for_function("document.querySelector('#lab-status').innerText.includes('Abgebrochen')")
        page.locator("#lab-files input[type=file]").set_input_files(EXAMPLES / "basophil.png")
        page.wait_for_function("document.querySelector('#lab-status').innerText.includes('Neue Zellen: 1')")
        page.locator("#lab-estimate").press("Enter")
        page.wait_for_function("document.querySelector('#lab-estimated').innerText.includes('vor Ihrem: 1')")
    page.wait_for_selector("#lab-estimated .wbc-table")
    assert "Abgebrochen" not in page.locator("#lab-status").inner_text()


@pytest.mark.parametrize("button", ["#lab-estimate", "#lab-fit"])
def test_who_comes_back_to_the_laboratory_after_the_visit_is_told(button, visit, tmp_path, monkeypatch):
    page = visit()
    page.locator("[role=tab]").nth(2).click()
    bring_cells(page, tmp_path, "Neutrophil", 2)
    for name in ("LONGEST", "SWEEP"):
        monkeypatch.setattr(visits, name, -1)  # whatever was touched before is over
    page.locator(button).press("Enter")
    page.wait_for_function("document.querySelector('#lab-status').innerText.includes('This visit has ended')")
    assert "2" not in page.locator("#lab-cells tbody tr").nth(3).inner_text()


def test_a_laboratorys_long_work_can_be_cancelled(visit, tmp_path):
    page = visit()
    page.locator("[role=tab]").nth(2).click()
    files = [tmp_path / f"{number}.png" for number in range(48)]
    for number, file in enumerate(files):
        Image.open(EXAMPLES / "monocyte.png").rotate(7 * number).save(file)
    page.locator("#lab-files input[type=file]").set_input_files(files)
    page.wait_for_function("document.querySelector('#lab-status').innerText.includes('New cells: 48')")
    page.locator("#lab-estimate").click()
    page.locator("#lab-cancel").click()
    page.wait_for_function("document.querySelector('#lab-status').innerText.includes('Cancelled')")
    page.wait_for_selector("#lab-cancel", state="hidden")
    assert page.locator("#lab-estimated").inner_text().strip() == "", "no bar is left"
    page.locator("#lab-clear").click()
    page.wait_for_function("!document.querySelector('#lab-cells').innerText.includes('48')")


def test_what_a_visitor_sent_goes_when_the_visitor_leaves(visit):
    import time

    uploads = Path(os.environ["GRADIO_TEMP_DIR"])
    page = visit()
    send(page, EXAMPLES / "basophil.png")
    page.wait_for_selector(".wbc-answer")
    before = set(uploads.glob("sent-*"))
    assert before and not list(uploads.rglob("basophil.png")), "a file's name tells whose it is"
    page.locator("[role=tab]").nth(1).click()
    page.locator("#fields input[type=file]").set_input_files(EXAMPLES / "lymphocyte.png")
    page.wait_for_selector(".wbc-review")
    assert "lymphocyte.png" in page.locator("#fields-photos").inner_text(), "here the visitor finds it by its name"
    assert set(uploads.glob("sent-*")) <= before, "counted photos are not needed any more"
    page.close()
    deadline = time.monotonic() + 60
    while list(uploads.glob("sent-*")) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not list(uploads.glob("sent-*")) and not [path for path in uploads.rglob("*") if path.is_file()]


def test_who_leaves_before_the_answer_leaves_no_photo(visit, monkeypatch):
    import time
    from threading import Event

    from space_fixtures import one_cell

    began, left, explain, leave = Event(), Event(), one_cell.explain, visits.Visits.leave

    def held_up(*given):
        began.set()
        assert left.wait(60)
        return explain(*given)

    monkeypatch.setattr(one_cell, "explain", held_up)
    monkeypatch.setattr(visits.Visits, "leave", lambda all_visits, name: (leave(all_visits, name), left.set()))
    uploads = Path(os.environ["GRADIO_TEMP_DIR"])
    page, before = visit(), set(uploads.glob("sent-*"))
    send(page, EXAMPLES / "basophil.png")
    assert began.wait(60)
    sent = set(uploads.glob("sent-*")) - before
    assert sent
    page.close()
    assert left.wait(60)
    deadline = time.monotonic() + 60
    while sent & set(uploads.glob("sent-*")) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not sent & set(uploads.glob("sent-*"))


def test_who_leaves_while_the_question_waits_leaves_no_photo(visit, monkeypatch):
    import time
    from threading import Event

    from space_fixtures import one_cell

    began, done, explain = Event(), Event(), one_cell.explain

    def held_up(*given):
        began.set()
        assert done.wait(60)
        return explain(*given)

    monkeypatch.setattr(one_cell, "explain", held_up)
    uploads = Path(os.environ["GRADIO_TEMP_DIR"])
    first, second = visit(), visit()
    send(first, EXAMPLES / "basophil.png")
    assert began.wait(60)
    before = set(uploads.glob("sent-*"))
    with second.expect_response(lambda response: "queue/join" in response.url):
        send(second, EXAMPLES / "monocyte.png")
    waiting = set(uploads.glob("sent-*")) - before
    assert waiting
    second.close()
    deadline = time.monotonic() + 60
    while waiting & set(uploads.glob("sent-*")) and time.monotonic() < deadline:
        time.sleep(0.2)
    gone = not waiting & set(uploads.glob("sent-*"))
    done.set()
    assert gone, "the other's question is still being answered"
    first.wait_for_selector(".wbc-answer")


@pytest.mark.usefixtures("unhurried")
def test_no_exif_is_served_again_while_a_visitor_looks(visit, tmp_path):
    """Neither in the preview of one cell nor behind the files' links while they are counted."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x010E] = "PATIENT Mueller 1950"
    photo = tmp_path / "Mueller_Hans_1950.jpg"
    Image.open(EXAMPLES / "monocyte.png").convert("RGB").save(photo, exif=exif)
    page = visit()
    served = []
    page.on("response", lambda response: served.append(response))
    send(page, photo)
    page.wait_for_selector(".wbc-answer")
    page.wait_for_selector("#photo img")
    assert "Mueller" not in page.locator("#photo img").get_attribute("src")
    page.locator("[role=tab]").nth(1).click()
    page.locator("#fields input[type=file]").set_input_files([photo] * 30)
    page.wait_for_selector("#fields-cancel:visible")
    links = [link.get_attribute("href") for link in page.locator("#fields a[href]").all()]
    page.wait_for_selector(".wbc-review")
    assert not [link for link in links if link and "Mueller" in link]
    assert "Mueller_Hans_1950.jpg" in page.locator("#fields-photos").inner_text()
    pictures = [response for response in served if "file=" in response.url and "/examples/" not in response.url]
    assert pictures and not [one for one in pictures if "Mueller" in one.url or b"Mueller" in one.body()]


def test_the_page_speaks_german_to_who_asks(visit):
    page = visit(locale="de-DE")
    page.wait_for_function("document.querySelector('h1').innerText.includes('Blutzelle')")
    text = page.locator("body").inner_text()
    assert "Welche weiße Blutzelle ist das?" in text and "Gesichtsfelder" in text and "nicht für die Diagnose" in text
    assert page.evaluate("document.documentElement.lang") == "de"
    assert page.title() == "Welche weiße Blutzelle ist das?"
    drawn_fields(page)
    assert "Differentialblutbild" in page.locator("#fields-count").inner_text()


@pytest.mark.parametrize(
    ("viewport", "locale", "told"),
    [
        (DESK, "en-GB", "about 1.75 times as wide as the cell"),
        (PHONE, "en-GB", "about 1.75 times as wide as the cell"),
        (PHONE, "de-DE", "etwa 1,75-mal so breit ist wie die Zelle"),
    ],
)
def test_a_visitor_is_told_that_the_cell_fills_the_photo(viewport, locale, told, visit, tmp_path, screenshots):
    Image.open(EXAMPLES / "monocyte.png").crop((192, 107, 421, 368)).save(tmp_path / "close.png")
    page = visit(viewport, locale=locale)
    send(page, EXAMPLES / "monocyte.png")
    page.wait_for_selector(".wbc-overlay")
    assert told not in page.locator(".wbc-answer").inner_text()
    send(page, tmp_path / "close.png")
    page.wait_for_function("told => document.querySelector('.wbc-note')?.innerText.includes(told)", arg=told)
    page.screenshot(path=screenshots / f"{viewport['width']}-light-close-{locale}.png", full_page=True)


def test_what_the_model_itself_says_is_german_too(visit, tmp_path, screenshots):
    from PIL import Image

    (tmp_path / "cut.png").write_bytes((EXAMPLES / "eosinophil.png").read_bytes()[:40_000])
    Image.new("RGB", (300, 300), (20, 60, 200)).save(tmp_path / "blue.png")
    page = visit(locale="de-DE")
    send(page, tmp_path / "cut.png")
    page.wait_for_selector(".wbc-problem")
    assert "beschädigt oder abgeschnitten" in page.locator("[role=alert]").inner_text()
    page.locator("[role=tab]").nth(1).click()
    files = [tmp_path / "cut.png", tmp_path / "blue.png", EXAMPLES / "monocyte.png"]
    page.locator("#fields input[type=file]").set_input_files(files)
    page.wait_for_selector(".wbc-review")
    refused = page.locator('[data-list="refused"]').inner_text()
    assert "cut.png: Die Datei ist beschädigt" in refused and "blue.png: kein gefärbter Ausstrich" in refused
    warnings = page.locator('[data-list="warnings"]').inner_text()
    assert "2 von 3 Fotos wurden abgelehnt" in warnings and "Nur 1 Zelle wurde gezählt" in warnings
    assert page.locator('#fields-count [lang="en"]').count() == 0
    page.screenshot(path=screenshots / "1280-light-german-refused.png", full_page=True)
    page.locator("[role=tab]").nth(2).click()
    page.locator("#lab-files input[type=file]").set_input_files(files)
    page.wait_for_function("document.querySelector('#lab-status').innerText.includes('Neue Zellen: 1')")
    left_out = page.locator("#lab-status li").all_inner_texts()
    assert len(left_out) == 2 and "beschädigt" in left_out[0] and "kein gefärbter Ausstrich" in left_out[1]


def serious(page):
    """What axe-core finds that keeps people out; also the rule, off in the copy that axe-playwright brings, on names that lack
    what is seen: who speaks to the page says what stands there."""
    from axe_playwright_python.sync_playwright import Axe

    found = (
        Axe().run(page, options={"rules": {"label-content-name-mismatch": {"enabled": True}}}).response["violations"]
    )
    return [
        (rule["id"], [node["html"] for node in rule["nodes"]])
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_any_tab(scheme, visit, screenshots):
    page = visit(scheme=scheme)
    for number in range(4):
        page.locator("[role=tab]").nth(number).click()
        page.wait_for_timeout(300)
        assert serious(page) == [], "of an empty tab"
    page.locator("[role=tab]").nth(0).click()
    send(page, EXAMPLES / "neutrophil.png")
    page.wait_for_selector(".wbc-answer")
    drawn_fields(page)
    for number in range(4):
        page.locator("[role=tab]").nth(number).click()
        page.wait_for_timeout(500)
        page.screenshot(path=screenshots / f"1280-{scheme}-tab-{number + 1}.png", full_page=True)
        assert serious(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_api_page_is_reached_from_the_foot_and_by_its_address(scheme, visit, shipped, screenshots):
    page = visit(scheme=scheme)
    page.get_by_role("button", name="API and MCP").click()
    page.wait_for_selector(".api-docs")
    assert page.locator("footer:visible").count() == 1, "gradio's own foot stays unseen"
    page.goto(f"{shipped}?view=api")
    docs = page.locator(".api-docs")
    docs.get_by_text("Python", exact=True).click()
    page.wait_for_selector(".api-docs .endpoint, .api-docs .endpoint-container")
    text = docs.inner_text()
    assert "3 API endpoints" in text
    for name in ("/classify", "/differential", "/report"):
        assert f'api_name="{name}"' in text
    assert "examples/neutrophil.png" in text and "a data URL" in text and "usual ranges in per cent" in text
    for language in ("Python", "JavaScript", "cURL", "MCP"):
        docs.get_by_text(language, exact=True).click()
        page.wait_for_timeout(500)
        page.screenshot(path=screenshots / f"1280-{scheme}-api-{language}.png")
        assert serious(page) == []
    assert "3 Available MCP Tools" in docs.inner_text()


def test_the_way_to_the_api_page_is_told_in_german_too(visit):
    page = visit(locale="de-DE")
    page.get_by_role("button", name="Für Programme und Assistenten").click()
    page.wait_for_selector(".api-docs")
