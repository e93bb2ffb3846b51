"""The book in a real browser: every page, both themes, a phone, every lab.

Skipped where no Chromium is installed (COURSE_BROWSER=required: a failure), and where
KaTeX and axe-core cannot be had from npm. One build serves all tests.
"""

import functools
import http.server
import os
import re
import threading
import urllib.parse

import pytest

from tests.test_browser import BROWSER, FLAGS
from utils.course.book import build, maths
from utils.exercises import progress

pytestmark = pytest.mark.browser
PAGES = ["index", "glossary", *(c["name"] for c in progress.chapters())]
HEAVIEST = 3_000_000  # bytes of a page with all its pictures, before a lab is touched
OPEN_ALL = (
    "() => document.querySelectorAll('details').forEach(fold => { fold.open = true })"
)
AXE = """async rules => (await axe.run({resultTypes: ["violations"], ...rules})).violations
    .filter(found => ["serious", "critical"].includes(found.impact))
    .map(found => `${found.id}: ${found.nodes.length} x ${found.nodes[0].html.slice(0, 160)}`)"""
SCROLL = """async () => {
    document.querySelectorAll("img").forEach(image => { image.loading = "eager" })
    await Promise.all([...document.images].map(image => image.decode()))
}"""
PLAIN = """() => document.querySelectorAll("pre, .katex").forEach(
    part => { part.textContent = part.textContent })"""
SETTLED = """() => new Promise(  // what is wide now can be reached by keyboard
    done => requestAnimationFrame(() => requestAnimationFrame(done)))"""
KEY = """control => control.type === "checkbox" ? "Space"
    : control.type === "range" ? (control.value > 0 ? "ArrowLeft" : "ArrowRight")
    : control.selectedIndex > 0 ? "ArrowUp" : "ArrowDown"
"""
WIDEST = """() => [...document.querySelectorAll("main *")]
    .filter(part => part.getBoundingClientRect().right > innerWidth + 1
        && !part.closest("pre, .wide, .picture, .katex, .unseen"))
    .slice(0, 3).map(part => part.outerHTML.slice(0, 120))"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "The book, built as for a public address, so that its buttons are there."
    if BROWSER is None:
        if os.environ.get("COURSE_BROWSER") == "required":
            pytest.fail("no Chromium or Chrome found, and COURSE_BROWSER=required")
        pytest.skip("no Chromium or Chrome is installed; start.py doctor says how")
    folder = tmp_path_factory.mktemp("book") / "site"
    try:
        build.build(folder, "https://github.com/owner/course")
    except maths.MissingError as missing:
        pytest.skip(str(missing))
    return folder


@pytest.fixture(scope="module")
def address(site):
    handler = functools.partial(Quiet, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser(site):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    "A page that notes what went wrong, and what it asked for."
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, color_scheme="light", reduced_motion="reduce"
    )  # fmt: skip
    page = context.new_page()
    page.wrong, page.asked = [], []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on(
        "console",
        lambda m: m.type in ("error", "warning") and page.wrong.append(m.text),
    )
    page.on("requestfailed", lambda request: failed(page, request))
    page.on("request", lambda request: page.asked.append(request.url))
    yield page
    context.close()


def failed(page, request):
    if request.failure != "net::ERR_ABORTED":  # which is what leaving a page does
        page.wrong.append(f"{request.failure}: {request.url}")


def weight(site, page):
    "Bytes of all files of the site that a page has asked for."
    paths = {urllib.parse.urlsplit(url).path.lstrip("/") for url in page.asked}
    return sum((site / path).stat().st_size for path in paths)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_sound(page, site, address, name):
    "Light, dark and narrow: no error, nothing from afar, no barrier, not too heavy."
    page.goto(f"{address}/{name}.html")
    page.evaluate(SCROLL)
    assert [url for url in page.asked if not url.startswith(address)] == []
    assert weight(site, page) < HEAVIEST
    page.evaluate(OPEN_ALL)
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    assert page.evaluate(WIDEST) == []
    page.set_viewport_size({"width": 1280, "height": 900})
    if name != "01_descent":  # code and formulas look alike: one page has them seen
        page.evaluate(PLAIN)
    page.add_script_tag(content=maths.AXE.read_text(encoding="utf-8"))
    assert page.evaluate(AXE, {}) == [], "light"
    page.get_by_role("button", name="Switch to the dark theme").click()
    assert page.evaluate("() => document.documentElement.dataset.theme") == "dark"
    page.set_viewport_size({"width": 390, "height": 844})
    page.evaluate(SETTLED)
    rules = ["color-contrast", "scrollable-region-focusable", "target-size"]
    assert page.evaluate(AXE, {"runOnly": rules}) == [], "dark and narrow"
    assert page.wrong == []


def test_every_lab_with_frames_moves_by_keyboard(page, site, address):
    moved = 0
    for name in PAGES:
        if 'figure class="lab" id' not in (site / f"{name}.html").read_text("utf-8"):
            continue
        page.goto(f"{address}/{name}.html")
        for lab in page.locator("figure.lab:not(.still)").all():
            moved += moves(page, lab)
    assert moved >= 1, "a clean clone has the frames of one lab"
    assert page.wrong == []


def moves(page, lab):
    "Every control changes the frame; the sentence follows; the start comes back."
    image, caption = lab.locator("img"), lab.locator("figcaption")
    start = lab.get_attribute("data-frame")
    for control in lab.locator("input, select").all():
        before = lab.get_attribute("data-frame")
        control.press(control.evaluate(KEY))
        page.wait_for_function(
            "([lab, before]) => lab.dataset.frame !== before",
            arg=[lab.element_handle(), before],
        )
        assert image.get_attribute("alt") == caption.inner_text() != ""
        assert ".webp" in image.get_attribute("src")
        assert (
            image.evaluate("image => image.decode().then(() => image.naturalWidth)")
            > 300
        )
    lab.get_by_role("button", name="Back to the start").click()
    page.wait_for_function(
        "([lab, start]) => lab.dataset.frame === start",
        arg=[lab.element_handle(), start],
    )
    return 1


def test_without_a_script_everything_can_be_read(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/01_descent.html")
    lab = page.locator("figure.lab").first
    assert lab.locator("img").is_visible() and not lab.locator("form").is_visible()
    page.get_by_text("Show the answer").first.click()
    assert page.locator("details.answer[open] .code").first.is_visible()
    assert not page.locator("#search").is_visible()
    context.close()


def test_the_search_finds_a_section_and_a_word(page, address):
    page.goto(f"{address}/index.html")
    page.keyboard.press("/")
    page.keyboard.type("condition number")
    page.locator("#results a").first.wait_for()
    assert "condition number" in page.locator("#results").inner_text().lower()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"\.html#"))
    assert page.wrong == []


def test_the_book_opens_from_a_disk(page, site):
    page.goto((site / "01_descent.html").as_uri())
    page.locator("#query").fill("epoch")
    page.locator("#results a").first.wait_for()
    assert page.wrong == []
    assert all(url.startswith("file:") for url in page.asked)


def test_no_link_inside_the_book_is_broken(site):
    pages = {f.name: f.read_text(encoding="utf-8") for f in site.glob("*.html")}
    places = {name: re.findall(r'\bid="([^"]+)"', text) for name, text in pages.items()}
    broken = []
    for name, text in pages.items():
        assert len(places[name]) == len(set(places[name])), f"{name}: an id twice"
        for url in re.findall(r'(?:href|src)="([^"]+)"', text):
            parts = urllib.parse.urlsplit(url.replace("&amp;", "&"))
            file = urllib.parse.unquote(parts.path) or name
            if parts.scheme in ("http", "https", "mailto"):
                continue
            if not (site / file).is_file() or (
                parts.fragment and parts.fragment not in places.get(file, ())
            ):
                broken.append((name, url))
    assert broken == []


def test_every_picture_says_what_it_shows(site):
    for file in site.glob("*.html"):
        for tag in re.findall(r"<img [^>]+>", file.read_text(encoding="utf-8")):
            says = re.search(r'alt="([^"]*)"', tag)
            assert says and len(says[1].split()) >= 8, f"{file.name}: {tag[:120]}"
