"""The pages in a real, headless Chromium: they open offline, read well, and hold what they link to.

Without Chromium these tests are skipped; with REQUIRE_BROWSER set, as in continuous integration,
they fail instead. Screenshots go to .cache/screenshots.
"""

import os
import shutil
import urllib.parse
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
PAGES = [Path("reports/index.html"), *sorted(Path("reports").glob("*/*.html"))]
SHOTS = Path(".cache/screenshots")
SERIOUS = {"serious", "critical"}

if CHROMIUM is None and not os.environ.get("REQUIRE_BROWSER"):
    pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed", allow_module_level=True)


@pytest.fixture(scope="module")
def browser():
    assert CHROMIUM, f"REQUIRE_BROWSER is set, but none of {', '.join(NAMES)} is installed"
    with playwright.sync_playwright() as play:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        opened = play.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


@pytest.fixture
def opened(browser):
    """Open a page of 1280 or another width; console errors and requests are collected."""
    contexts = []

    def open_page(path, width=1280, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.errors, page.requests = [], []
        page.on("console", lambda m: page.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(path.resolve().as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()


def screenshot(page, path, name):
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{path.parent.name}-{path.stem}-{name}.png", full_page=False)


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_the_page_opens_without_an_error_or_a_request(opened, path):
    page = opened(path)
    screenshot(page, path, "light")
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith("data:")] == [
        path.resolve().as_uri()
    ]
    assert page.title() and page.locator("h1").count() == 1


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_every_link_leads_to_something(opened, path):
    page = opened(path)
    for target in page.eval_on_selector_all("a[href]", "e => e.map(a => a.getAttribute('href'))"):
        parts = urllib.parse.urlsplit(target)
        if parts.scheme in ("http", "https"):
            continue  # followed by a reader, not by us
        file = path.parent / urllib.parse.unquote(parts.path) if parts.path else path
        assert file.exists(), target
        if parts.fragment and file.suffix == ".html":
            text = file.read_text(encoding="utf-8")
            assert f'id="{parts.fragment}"' in text, target


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_a_phone_needs_no_horizontal_scrolling(opened, path):
    page = opened(path, width=360)
    page.eval_on_selector_all("details", "all => all.forEach(d => d.open = true)")
    screenshot(page, path, "phone")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES, ids=str)
def test_axe_finds_nothing_serious(opened, path, scheme):
    page = opened(path, scheme=scheme)
    page.eval_on_selector_all("details", "all => all.forEach(d => d.open = true)")
    screenshot(page, path, f"{scheme}-open")
    found = axe.Axe().run(page).response["violations"]
    told = {
        v["id"]: [node["html"][:120] for node in v["nodes"]][:3]
        for v in found
        if v["impact"] in SERIOUS
    }
    assert told == {}


def test_axe_would_find_an_image_without_a_text(opened, tmp_path):
    path = tmp_path / "page.html"
    path.write_text("<html lang=en><title>t</title><main><h1>t</h1><img src='data:,'></main>")
    found = axe.Axe().run(opened(path)).response["violations"]
    assert "image-alt" in {v["id"] for v in found if v["impact"] in SERIOUS}


def test_the_index_is_usable_by_keyboard(opened):
    page = opened(PAGES[0])
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.url.endswith("#main")
    summary = page.locator("summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None


def test_the_index_prints_its_tables(opened, tmp_path):
    page = opened(PAGES[0])
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    page.pdf(path=tmp_path / "index.pdf")
    assert (tmp_path / "index.pdf").stat().st_size > 50_000
