"""A reader's first half hour in a real browser: JupyterLab as start.py opens it.

Skipped where no Chromium or Chrome is installed, unless COURSE_BROWSER=required.
COURSE_SCREENSHOTS=FOLDER keeps the pictures that it takes on the way.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import start
from utils.course import author, venv, work

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
RUN_ALL = """async () => {
    const app = window.jupyterapp;
    await app.restored;
    const panel = app.shell.currentWidget;
    await panel.context.ready;
    await panel.sessionContext.ready;
    await panel.sessionContext.session.kernel.info;
    return app.commands.execute("notebook:run-all-cells");
}"""


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    "A copy of the course with its work/ filled: a reader's own is never touched."
    root = tmp_path_factory.mktemp("course")
    for name in ("chapters", "solutions", "utils"):
        shutil.copytree(author.ROOT / name, root / name)
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
    page.goto(f"{lab}/lab/tree/{name}.ipynb?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.wait_for_function("() => !document.querySelector('#jupyterlab-splash')")
    page.wait_for_function(
        "() => window.jupyterapp?.commands.hasCommand('notebook:run-all-cells')"
    )
    assert page.evaluate(RUN_ALL), f"{name} stopped in the middle of Run All"


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


def picture(page, name):
    "Keep a screenshot where the environment asks for them."
    if folder := os.environ.get("COURSE_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.wait_for_timeout(400)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def test_untouched_chapter_runs_to_its_end(page, lab):
    open_and_run(page, lab, "01_descent")
    found = outputs(page)
    assert not [cell for cell, out in found if out["output_type"] == "error"]
    assert not [cell for cell, out in found if out.get("name") == "stderr"]
    texts = [out["data"]["text/plain"] for _, out in found if "data" in out]
    waiting = [text for text in texts if "not yet" in text]
    assert len(waiting) == 10, "one answer a exercise: not yet, the reference goes on"
    assert sum("image/png" in out.get("data", {}) for _, out in found) >= 6
    assert page.locator("text=Would you like").count() == 0, "a news pop-up is open"
    page.evaluate(SELECT, "title")
    picture(page, "chapter")


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


def test_slider_changes_the_picture_and_its_sentence(page):
    page.evaluate(SELECT, "lab")
    cell = page.locator("[data-cell=lab]")
    image, caption = cell.locator("img").first, cell.locator("em").first
    before, said = image.get_attribute("src"), caption.inner_text()
    handle = cell.locator(".widget-slider .noUi-handle").first
    handle.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(
        "([old]) => document.querySelector('[data-cell=lab] img').src !== old",
        arg=[before],
    )
    assert cell.locator("em").first.inner_text() != said
    cell.locator("input[type=checkbox]").check()
    cell.get_by_text("Path and loss", exact=False).filter(
        has_text="standardised years"
    ).first.wait_for()
    picture(page, "lab")
    assert image.get_attribute("src") != before


def test_first_screen_draws_the_map(page, lab):
    open_and_run(page, lab, "00_start_here")
    page.evaluate(SELECT, "map")
    table = page.locator("[data-cell=map] table")
    table.get_by_text("1 of 10").wait_for()
    table.get_by_role("link", name="01 · One slope").wait_for()
    picture(page, "map")


def test_console_stayed_quiet(page):
    assert page.errors == []
