"""A reader's first half hour in a real browser: JupyterLab as start.py opens it.

Skipped where no Chromium or Chrome is installed, unless COURSE_BROWSER=required.
COURSE_SCREENSHOTS=FOLDER keeps the pictures that it takes on the way.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import start
from utils.course import author, notebooks, venv, work

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
).split()
pytestmark = pytest.mark.browser

# Finds a cell by its id, brings it into view and marks its element for selectors.
SELECT = """id => {
    const book = window.jupyterapp.shell.currentWidget.content;
    const at = book.widgets.findIndex(w => w.model.id === id);
    if (at < 0) throw new Error("no cell " + id);
    book.activeCellIndex = at;
    book.deselectAll();
    book.widgets[at].node.setAttribute("data-cell", id);
    book.widgets[at].node.scrollIntoView({block: "center"});
}"""
READY = """async () => {
    await window.jupyterapp.restored;
    const panel = window.jupyterapp.shell.currentWidget;
    await panel.context.ready;
    await panel.sessionContext.ready;
    await panel.sessionContext.session.kernel.info;
}"""
RUN_ALL = "() => window.jupyterapp.commands.execute('notebook:run-all-cells')"
THEME = """async theme => {
    await window.jupyterapp.commands.execute("apputils:change-theme", {theme});
    // JupyterLab shows its splash screen meanwhile: a second theme while one is still
    // being taken away makes it take it away twice, which is an error of its own
    const there = () => document.body.dataset.jpThemeName === theme
        && !document.querySelector("#jupyterlab-splash");
    while (!there()) await new Promise(done => setTimeout(done, 50));
}"""
# The contrast of each verdict's word with what lies behind it, as drawn on a canvas.
CONTRASTS = """() => {
    const canvas = document.createElement("canvas");
    const ink = canvas.getContext("2d", {willReadFrequently: true});
    const light = colour => {
        ink.clearRect(0, 0, 1, 1);
        ink.fillStyle = colour;
        ink.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = ink.getImageData(0, 0, 1, 1).data;
        const linear = [r, g, b].map(c => c / 255).map(
            c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return a && 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    };
    const behind = node => {
        const colour = getComputedStyle(node).backgroundColor;
        return colour !== "rgba(0, 0, 0, 0)" ? light(colour) : behind(node.parentNode);
    };
    return [...document.querySelectorAll(".course-verdict > b")].map(word => {
        const both = [light(getComputedStyle(word).color), behind(word)];
        return [word.innerText.slice(2), (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05)];
    });
}"""


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    "A copy of the course with its work/ filled: a reader's own is never touched."
    root = tmp_path_factory.mktemp("course")
    for name in ("solutions", "utils"):
        shutil.copytree(author.ROOT / name, root / name)
    for page in author.ROOT.glob("*.md"):
        shutil.copy(page, root)
    (root / "chapters").mkdir()
    for file in (root / "solutions").glob("0[0-2]_*.ipynb"):
        text = notebooks.derive(file.read_text(encoding="utf-8"), file.name)
        (root / "chapters" / file.name).write_text(text, encoding="utf-8")
    assert work.fill(root) == []
    return root


@pytest.fixture(scope="module")
def lab(course):
    "The address of a JupyterLab on the copy, with settings of its own."
    if BROWSER is None:
        if os.environ.get("COURSE_BROWSER") == "required":
            pytest.fail("no Chromium or Chrome found, and COURSE_BROWSER=required")
        pytest.skip("no Chromium or Chrome is installed; start.py doctor says how")
    if Path(sys.prefix) == venv.venv_of(author.ROOT):
        start.silence_news(author.ROOT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = course / "home"
    environ = {
        **os.environ,
        **{f"JUPYTER_{kind}_DIR": str(home / kind) for kind in ("CONFIG", "DATA")},
        **{f"JUPYTERLAB_{k}_DIR": str(home / k) for k in ("SETTINGS", "WORKSPACES")},
        "COURSE_PROGRESS": str(course / "work" / "progress.json"),
    }
    options = [
        "--no-browser", f"--port={port}", "--ServerApp.port_retries=0",
        "--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    command = start.lab_command(course, sys.executable, options)
    with open(course / "lab.log", "w") as log:
        server = subprocess.Popen(
            command, env=environ, cwd=course, stdout=log, stderr=log
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(f"{address}/api/status", server, course / "lab.log")
            yield address
        finally:
            server.terminate()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait_for(address, server, log, seconds=90):
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            return urllib.request.urlopen(address, timeout=2).close()
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not answer: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def page(lab):
    "A browser page; it collects what the console calls an error in `page.errors`."
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        page = browser.new_page(viewport={"width": 1180, "height": 900})
        page.set_default_timeout(60_000)
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        yield page
        browser.close()


def open_and_run(page, lab, name):
    "Open a notebook of work/, run all of it, wait until the kernel rests."
    page.goto(f"{lab}/lab/tree/work/{name}.ipynb?reset")
    ready(page)
    assert page.evaluate(RUN_ALL), f"{name} stopped in the middle of Run All"


def ready(page):
    "Wait until the notebook in front is there, and its kernel."
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.wait_for_function("() => !document.querySelector('#jupyterlab-splash')")
    page.wait_for_function(
        "() => window.jupyterapp?.commands.hasCommand('notebook:run-all-cells')"
    )
    page.evaluate(READY)


def open_again(page, cell="lab"):
    "Load the page again and bring a cell into view."
    page.reload()
    ready(page)
    page.evaluate(SELECT, cell)
    return page.locator(f"[data-cell={cell}]")


def in_front(page, code):
    "What JavaScript says of `panel`, the document in front."
    before = "async () => { const panel = window.jupyterapp.shell.currentWidget;"
    return page.evaluate(f"{before} return {code} }}")


def outputs(page):
    "[(cell id, output)] of the notebook that is open, as the model holds them."
    return page.evaluate("""() => window.jupyterapp.shell.currentWidget.content.widgets
        .filter(w => w.model.type === "code")
        .flatMap(w => w.model.outputs.toJSON().map(o => [w.model.id, o]))""")


def rewrite(page, cell, source):
    "Type a new source into a cell and run it and its check, as a reader does."
    page.evaluate(SELECT, cell)
    page.locator(f"[data-cell={cell}] .cm-content").first.click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(source)
    page.keyboard.press("Shift+Enter")
    page.keyboard.press("Shift+Enter")
    page.evaluate(SELECT, f"{cell}-check")
    return page.locator(f"[data-cell={cell}-check] .jp-OutputArea").first


def picture(page, name, high=900):
    "Keep a screenshot where the environment asks for them; high: of the window."
    if folder := os.environ.get("COURSE_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.set_viewport_size({"width": 1180, "height": high})
        page.wait_for_timeout(400)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))
        page.set_viewport_size({"width": 1180, "height": 900})


def test_opening_changes_nothing_and_shows_the_first_picture(page, lab):
    page.goto(f"{lab}/lab/tree/work/01_descent.ipynb?reset")
    ready(page)
    page.evaluate(SELECT, "first-look")
    page.locator("[data-cell=first-look] .jp-OutputArea img").wait_for()
    page.evaluate(SELECT, "title")
    link = page.locator("[data-cell=title]").get_by_role("link", name="solved chapter")
    assert link.is_visible()
    assert in_front(page, "panel.context.model.dirty") is False


def test_untouched_chapter_runs_to_its_end(page):
    assert page.evaluate(RUN_ALL), "it stopped in the middle of Run All"
    found = outputs(page)
    assert not [cell for cell, out in found if out["output_type"] == "error"]
    assert not [cell for cell, out in found if out.get("name") == "stderr"]
    texts = [out["data"]["text/plain"] for _, out in found if "data" in out]
    waiting = [text for text in texts if "not yet" in text]
    assert len(waiting) == 10, "one answer a exercise: not yet, the reference goes on"
    assert sum("image/png" in out.get("data", {}) for _, out in found) >= 6
    assert page.locator("text=Would you like").count() == 0, "a news pop-up is open"
    page.evaluate(SELECT, "title")
    picture(page, "chapter", high=1250)


def test_wrong_then_hint_then_right(page, course):
    wrong = "def mse(y_hat_N, y_N):\n    return ((y_hat_N - y_N) ** 2).sum()"
    area = rewrite(page, "mse", wrong)
    area.get_by_text("divide by the number of rows").wait_for()
    area.get_by_role("button", name="Hint").click()
    area.get_by_text("1 of 3").wait_for()
    picture(page, "exercise")
    area = rewrite(page, "mse", wrong.replace(".sum()", ".mean()"))
    area.get_by_text("✓ right").wait_for()
    progress = json.loads((course / "work" / "progress.json").read_text())
    entry = progress["exercises"]["01_descent/mse"]
    assert (entry["wrong"], entry["hint"], entry["right"]) == (1, 1, 1)
    assert entry["solved"]


def test_verdicts_can_be_read_in_a_light_and_a_dark_theme(page):
    rewrite(page, "mse", "mse = 3").get_by_text("✗ wrong").wait_for()
    area = rewrite(page, "predict", "predict = None")
    area.get_by_role("button", name="Hint").click()
    area.get_by_role("button", name="Solution").click()
    area.get_by_text("= solution").wait_for()
    page.evaluate(SELECT, "mse-check")
    for theme in ("Dark", "Light"):
        page.evaluate(THEME, f"JupyterLab {theme}")
        found = page.evaluate(CONTRASTS)
        assert {"not yet", "wrong", "hint", "solution"} <= {word for word, _ in found}
        assert [(w, round(c, 1)) for w, c in found if c < 4.5] == [], theme
        picture(page, theme.lower())


def test_slider_changes_the_picture_and_its_sentence(page):
    page.evaluate(SELECT, "lab")
    cell = page.locator("[data-cell=lab]")
    image, caption = cell.locator("img").first, cell.locator(".jp-RenderedMarkdown em")
    before, said = image.get_attribute("src"), caption.first.inner_text()
    handle = cell.get_by_role("slider").first
    handle.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(
        "([old]) => document.querySelector('[data-cell=lab] img').src !== old",
        arg=[before],
    )
    page.wait_for_function(
        "([old]) => document.querySelector("
        "'[data-cell=lab] .jp-RenderedMarkdown em').innerText !== old",
        arg=[said],
    )
    cell.locator("input[type=checkbox]").check()
    cell.get_by_text("Path and loss", exact=False).filter(
        has_text="standardised years"
    ).first.wait_for()
    picture(page, "lab")
    assert image.get_attribute("src") != before


def test_every_control_has_a_name(page):
    kinds = "slider", "combobox", "checkbox"
    for kind in kinds:
        controls = page.locator("[data-cell=lab]").get_by_role(kind)
        named = page.locator("[data-cell=lab]").get_by_role(kind, name=re.compile("."))
        assert named.count() == controls.count(), kind
    assert page.locator("[data-cell=lab]").get_by_role("slider").count() >= 1


CLOSE_AND_OPEN = """await (async () => {
    await panel.context.save();
    const path = panel.context.path;
    panel.close();
    await new Promise(done => setTimeout(done, 200));
    await window.jupyterapp.commands.execute("docmanager:open", {path});
})()"""


def test_after_a_reload_a_lab_moves_on(page):
    for reopen in (True, False):
        if reopen:
            in_front(page, CLOSE_AND_OPEN)
        else:
            in_front(page, "await panel.context.save()")
            page.reload()
        ready(page)
        page.evaluate(SELECT, "lab")
        cell = page.locator("[data-cell=lab]")
        image = cell.locator(".course-again img")
        image.wait_for()
        assert cell.locator("img:visible").count() == 1, "the old picture is hidden"
        before = image.get_attribute("alt")
        cell.get_by_role("slider").first.focus()
        page.keyboard.press("ArrowLeft")
        page.wait_for_function(
            "([old]) => document.querySelector('.course-again img').alt !== old",
            arg=[before],
        )
        page.set_viewport_size({"width": 900, "height": 900})
        outside = (
            "node => node.querySelector('img').getBoundingClientRect().right - "
            "node.getBoundingClientRect().right"
        )
        assert cell.evaluate(outside) <= 0, "the picture is cut at the window's edge"
        page.set_viewport_size({"width": 1180, "height": 900})
    page.evaluate(SELECT, "predict-check")
    page.locator(
        "[data-cell=predict-check] .course-panel button:visible"
    ).first.wait_for()


def test_without_the_kernel_that_drew_it_nothing_is_an_error(page):
    in_front(page, "await panel.context.save()")
    in_front(page, "await panel.sessionContext.restartKernel()")
    buttons = page.locator("[data-cell=predict-check] .course-panel button:visible")
    buttons.first.wait_for(state="detached")
    cell = open_again(page)
    cell.get_by_text("need a running kernel: run this cell").wait_for()
    page.wait_for_function(
        "() => document.body.textContent.includes('model not found')"
    )
    assert not page.get_by_text("model not found").locator("visible=true").count()
    assert cell.locator("img:visible").count() == 1
    page.evaluate(SELECT, "predict-check")
    verdict = page.locator("[data-cell=predict-check] .course-verdict")
    verdict.get_by_text("ex.predict.hint() ex.predict.solution()").wait_for()
    assert in_front(page, "panel.context.model.dirty") is False
    picture(page, "asleep")


def test_first_screen_draws_the_map(page, lab):
    open_and_run(page, lab, "00_start_here")
    page.evaluate(SELECT, "map")
    table = page.locator("[data-cell=map] table")
    table.get_by_text("1 of 10").wait_for()
    table.get_by_role("link", name="01 · One slope").wait_for()
    picture(page, "map")


def test_the_map_leads_to_what_can_be_read_and_not_changed(page):
    start = in_front(page, "panel.id")
    for name, path, mine in (
        ("01 solved", "solutions/01_descent.ipynb", False),
        ("GLOSSARY", "GLOSSARY.md", False),
        ("README", "README.md", False),
        ("01 · One slope", "work/01_descent.ipynb", True),
    ):
        page.locator("[data-cell=map]").get_by_role("link", name=name).click()
        page.wait_for_function(
            "([path]) => window.jupyterapp.shell.currentWidget.context?.path === path",
            arg=[path],
        )
        in_front(page, "await panel.context.ready")
        assert in_front(page, "panel.context.contentsModel.writable") is mine, name
        page.evaluate("id => window.jupyterapp.shell.activateById(id)", start)


def test_console_stayed_quiet(page):
    cut_off = "Failed to fetch"  # a request that was under way when a page was left
    assert [error for error in page.errors if error != cut_off] == []
