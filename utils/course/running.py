"""Solutions executed: offline, warnings are errors, stable bytes, labs drawn ahead."""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from utils.course import notebooks
from utils.course.book import labs
from utils.course.notebooks import nbformat  # which starts quicker there
from utils.files import ROOT


def environment(folder):
    """The environment in which notebooks run for the author and for the tests.

    Warnings are errors, sockets beyond this machine are refused and noted in
    `folder`/outbound.txt (tests/guard), the reader's progress is left alone.
    """
    guard, folder = ROOT / "tests" / "guard", Path(folder)
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    source = guard / "warnings_are_errors.py"
    (startup / "00_warnings.py").write_text(source.read_text(encoding="utf-8"))
    path = os.pathsep.join(filter(None, [str(guard), os.environ.get("PYTHONPATH")]))
    return {
        "COURSE_OUTBOUND": str(folder / "outbound.txt"),
        "COURSE_PROGRESS": "off",
        "IPYTHONDIR": str(folder / "ipython"),
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": path,
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }


def run(path, everything=False):
    "Execute one solution in place when its code changed; stable bytes; True when it ran."
    notebook = nbformat.read(path, as_version=4)
    ran = notebook.metadata.get("course", {}).get("executed")
    if ran == notebooks.code_hash(notebook) and not everything:
        return False
    began = time.perf_counter()
    execute(notebook, path)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    notebook.metadata = nbformat.from_dict(
        {**notebooks.METADATA, "course": {"executed": notebooks.code_hash(notebook)}}
    )
    path.write_text(notebooks.written(notebook), encoding="utf-8", newline="\n")
    print(f"ran {path.relative_to(ROOT)} in {time.perf_counter() - began:.1f} s")
    return True


def execute(notebook, path):
    "Run every cell of a notebook, in memory; its labs are drawn ahead for the book."
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", record_timing=False,
        coalesce_streams=True,  # else the clock cuts what a cell prints into pieces
        store_widget_state=False, resources={"metadata": {"path": str(path.parent)}},
    )  # fmt: skip
    try:
        client.execute(env={**os.environ, **labs.drawing(path.stem)})
    except CellExecutionError as error:
        sys.exit(f"{path.relative_to(ROOT)} stopped; nothing was written.\n{error}")
    labs.settle(path.stem, notebook.cells)


def run_all(paths, everything=False, start=None):
    """Execute solutions; True when one ran.

    start: the notebook with the map of all chapters, which follows when one is new.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(environment(folder))
        ran = [run(path, everything) for path in paths]
        if start and lacks_a_chapter(start):
            ran.append(run(start, everything=True))
    return any(ran)


def draw_labs(paths):
    "Draw the labs of solutions for the book; their files stay as they are."
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(environment(folder))
        for path in paths:
            notebook = nbformat.read(path, as_version=4)
            if upto := labs.last(notebook.cells):
                notebook.cells = notebook.cells[:upto]
                began = time.perf_counter()
                execute(notebook, path)
                print(f"drew {path.stem} in {time.perf_counter() - began:.1f} s")


def lacks_a_chapter(start):
    "Whether the stored map of chapter 00 does not show every chapter."
    from utils.exercises import progress

    cells = nbformat.read(start, as_version=4).cells
    maps = [json.dumps(cell.get("outputs", []), ensure_ascii=False) for cell in cells]
    titles = [json.dumps(c["title"], ensure_ascii=False) for c in progress.chapters()]
    return not any(all(title[1:-1] in text for title in titles) for text in maps)
