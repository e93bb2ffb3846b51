"""What the reader has solved: one small file beside the course, never in the way.

The file is `work/.progress.json`, or what COURSE_PROGRESS names ("off": none is kept).
It is replaced as a whole under a lock, so that a crash or two notebooks lose nothing.
"""

import html
import json
import os
import re
import time
from pathlib import Path

from utils.files import ROOT, write_whole

EMPTY = {"version": 1, "exercises": {}}


def path():
    "Where progress is kept, or None: switched off, or the author runs a solution."
    named = os.environ.get("COURSE_PROGRESS", "")
    if named == "off" or (not named and Path.cwd() == ROOT / "solutions"):
        return None
    return Path(named) if named else ROOT / "work" / ".progress.json"


def load():
    "{'version': 1, 'exercises': {'01_descent/mse': {...}}}; damage is set aside."
    file = path()
    if file is None:
        return json.loads(json.dumps(EMPTY))
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if not all(map(_is_entry, data["exercises"].values())):
            raise ValueError
        return data
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        aside = _free(file.with_name(file.stem + ".damaged.json"))
        os.replace(file, aside)
        print(
            f"Your progress file was damaged; it is kept as {aside.name}, a new one begins."
        )
    return json.loads(json.dumps(EMPTY))


def _is_entry(entry):
    return isinstance(entry, dict) and all(
        isinstance(value, str if event == "solved" else int)
        for event, value in entry.items()
    )


def _free(file):
    number, name = 1, file
    while name.exists():
        number += 1
        name = file.with_name(f"{file.stem}-{number}{file.suffix}")
    return name


def record(chapter, exercise, event):
    "Note one event ('right', 'wrong', 'hint', 'solution') of an exercise; never raises."
    try:
        if path() is None:
            return
        import filelock

        path().parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(str(path()) + ".lock", timeout=3, poll_interval=0.005)
        with lock:
            data = load()
            entry = data["exercises"].setdefault(f"{chapter}/{exercise}", {})
            entry[event] = entry.get(event, 0) + 1
            if event == "right":
                entry.setdefault("solved", time.strftime("%Y-%m-%d"))
            write_whole(path(), json.dumps(data, indent=1, sort_keys=True))
    except Exception as error:  # a full disk must not stop a chapter
        print(f"(Progress could not be saved: {error}. The chapter goes on.)")


def chapters():
    "The chapters that exist, in order: [{'name', 'title', 'exercises': [...]}]."
    found = []
    for file in sorted((ROOT / "solutions").glob("[0-9][0-9]_*.ipynb")):
        if not re.fullmatch(r"\d\d_[a-z0-9_]+", file.stem):  # a copy of Jupyter's
            continue
        try:
            found.append(_chapter(file))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            print(f"solutions/{file.name} is damaged and left out here: {error!r}")
    return found


def _chapter(file):
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    ids = [cell["id"] for cell in cells]
    title = "".join(cells[0]["source"]).splitlines()[0].lstrip("# ")
    exercises = [i for i in ids if f"{i}-check" in ids]
    return {"name": file.stem, "title": title, "exercises": exercises}


def sources(chapter):
    "A chapter's cells in order: [('markdown' or 'code', source)]."
    file = ROOT / "solutions" / f"{chapter}.ipynb"
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return [(cell["cell_type"], "".join(cell["source"])) for cell in cells]


def texts(chapter):
    "The sources of a chapter's text cells, in order."
    return [source for kind, source in sources(chapter) if kind == "markdown"]


def solved():
    "The exercises solved so far, as {'01_descent/mse', ...}."
    try:
        done = load()["exercises"]
    except OSError as error:  # a file that may not be read must not stop a chapter
        print(f"(Progress could not be read: {error}.)")
        done = {}
    return {name for name, entry in done.items() if "solved" in entry}


def tell(plain, marked):
    "Show a text as HTML in a notebook, and plainly where there is none."
    from IPython import get_ipython
    from IPython.display import display

    if get_ipython() is None:  # a script, a rank
        print(plain)
    else:
        display({"text/plain": plain, "text/html": marked}, raw=True)


def show():
    "Draw the map of chapters with what is solved, and name what comes next."
    done, rows, text, next_up = solved(), [], [], None
    for chapter in chapters():
        names = [f"{chapter['name']}/{e}" for e in chapter["exercises"]]
        count = sum(name in done for name in names)
        if next_up is None and count < len(names):
            missing = next(n for n in names if n not in done)
            next_up = f"{chapter['name']}: {missing.split('/')[1]}"
        bar = "●" * count + "○" * (len(names) - count)
        file, left = f"{chapter['name']}.ipynb", 'style="text-align:left'
        rows.append(
            f'<tr><td {left}"><a href="{file}">{html.escape(chapter["title"])}</a></td>'
            f'<td {left};letter-spacing:.15em">{bar}</td><td>{count} of {len(names)}</td>'
            f'<td><a href="../solutions/{file}">{file[:2]} solved</a></td></tr>'
        )
        text.append(f"{chapter['title']:<62} {bar}  {count} of {len(names)}")
    last = f"Next: {next_up}" if next_up else "Every exercise so far is solved."
    table = (
        '<table><tr><th style="text-align:left">chapter</th>'
        '<th style="text-align:left">exercises</th><th>solved</th><th>only looking?</th></tr>'
        + "".join(rows)
        + f"</table><p>{html.escape(last)}</p><p>"
        'All words, in English and Chinese: <a href="../GLOSSARY.md">GLOSSARY</a>. '
        'The course as a whole: <a href="../README.md">README</a>.</p>'
    )
    tell("\n".join([*text, last]), table)
