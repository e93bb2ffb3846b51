"""Marks from outside: every answer of a submission is judged in a process of its own.

The notebook that was handed in is not run. Its answers' cells are taken out of it; each
answer is run in a process of its own (judge_process.py) on top of the course's own set-up
cells and the answers before it, and judged there by the course's own check. A process
gets a copy of utils/ and an empty folder, and learns neither a path nor the environment
of whoever grades. It is a copy of one that has loaded the course, where that can be done
safely (judge_loaded.py), and else a fresh one.
"""

import compileall
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from utils.course import judge_loaded
from utils.course.judge_orphans import adopted
from utils.exercises.exercise import Chapter
from utils.files import ROOT

SECONDS = 180  # for one process; a check ends an answer much sooner
GONE = ("ended", "endless", "tampered")  # cells that are not run again
KEPT = "PATH SYSTEMROOT LANG LC_ALL LC_CTYPE TZ LD_LIBRARY_PATH CUDA_VISIBLE_DEVICES"
START = """
import json, os, sys
job, out = json.load(sys.stdin), os.dup(1)
os.dup2(2, 1)
sys.path.insert(0, job.pop("course"))
from utils.course.judge_process import main
main(job, out)
"""


class JudgeError(RuntimeError):
    "No verdict, and the submission is not at fault: the course, or this machine."


@dataclass
class Verdict:
    word: str  # 'right', 'not yet', 'wrong', 'tampered', 'endless', 'ended' (by itself)
    report: str


# ---- a submission's notebook ----


def _words(cell):
    words = cell["metadata"].get("nbgrader")
    return words if isinstance(words, dict) else {}


def mend(cells, wanted):
    """Give the cells of a submission the nbgrader metadata that they were handed out with.

    wanted: {grade_id: (metadata, source)} of the assignment, in order. Jupyter's menus copy
    a cell with its metadata, split and merge, delete; nbgrader stops at some of that with
    an error. The last of several cells keeps the metadata, the others are noted as copies.
    Metadata of another assignment goes. A test that is missing comes back.
    """
    last = {}
    for cell in cells:
        grade_id = _words(cell).get("grade_id")
        cell["metadata"].pop("nbgrader", None)
        cell["metadata"].pop("copy_of", None)
        if isinstance(grade_id, str) and grade_id in wanted:
            if grade_id in last:
                last[grade_id]["metadata"]["copy_of"] = grade_id
            last[grade_id] = cell
    for grade_id, (metadata, source) in wanted.items():
        if grade_id not in last and (metadata["grade"] or metadata["task"]):
            last[grade_id] = _cell(source, metadata["cell_type"])
            near = last.get(grade_id.removesuffix("-check"))
            below = next((i for i, c in enumerate(cells) if c is near), len(cells)) + 1
            cells.insert(below, last[grade_id])
    for grade_id, cell in last.items():
        cell["metadata"].pop("copy_of", None)
        cell["metadata"]["nbgrader"] = dict(wanted[grade_id][0])
    return cells


def _cell(source, kind):
    more = {"outputs": [], "execution_count": None} if kind == "code" else {}
    return {"cell_type": kind, "metadata": {}, "source": source, **more}


def exercises(chapter):
    "The names of a chapter's exercises, in order."
    return [name for name in chapter.cells if f"{name}-check" in chapter.cells]


def handed_in(cells, names):
    """What a submission brings to each exercise: {name: [(kind, label, source)]}.

    The cells between the check before and the exercise's own; "answer" where the metadata
    says so, "other" else. An answer that stands below its check only is taken from there.
    """
    code = [c for c in cells if c["cell_type"] == "code"]
    owner = [_words(c).get("grade_id") or c["metadata"].get("copy_of") for c in code]
    where = {grade_id: i for i, grade_id in enumerate(owner)}
    found, taken = {}, set()
    for name in names:
        end = where.get(f"{name}-check", len(code))
        mine = [i for i, who in enumerate(owner) if who == name]
        mine = [i for i in mine if i < end] or mine
        others = [i for i in range(end) if owner[i] is None and i not in taken]
        taken |= set(others)
        found[name] = [
            ("answer" if i in mine else "other", name, _source(code[i]))
            for i in sorted({*mine, *others})
        ]
    return found


def _source(cell):
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def write(cells, verdicts):
    "Put the verdicts below the tests, where nbgrader reads points and a student reads why."
    for cell in cells:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
            words = _words(cell)
            if words.get("grade") and not words.get("solution"):
                cell["outputs"] = _outputs(words["grade_id"], verdicts)


def _outputs(grade_id, verdicts):
    "An error gives no points; what is printed gives all."
    name = grade_id.removesuffix("-check")
    verdict = verdicts.get(name) if grade_id == f"{name}-check" else None
    if verdict is None:
        verdict = Verdict("not judged", "It is no test of the course: mark it by hand.")
    text = f"{verdict.word}: {verdict.report}\n"
    outputs = [{"output_type": "stream", "name": "stdout", "text": text}]
    if verdict.word != "right":
        said = f"{name}: {verdict.word}"
        error = {"ename": "NotRight", "evalue": said, "traceback": [said]}
        outputs.append({"output_type": "error", **error})
    return outputs


# ---- one answer after the other ----


def judge(cells, slug, tell=lambda name, verdict: None):
    "Judge a submission's cells for a chapter such as 01_descent: -> {name: Verdict}."
    chapter = Chapter(slug)
    try:
        names = exercises(chapter)
    except FileNotFoundError:
        raise JudgeError(f"the course has no chapter {slug!r}") from None
    brought, verdicts = handed_in(cells, names), {}
    compileall.compile_dir(ROOT / "utils", quiet=2)  # what an import would do each time
    with ready(chapter) as loaded:
        for name in names:
            verdicts[name] = _judged(chapter, name, brought, verdicts, loaded)
            tell(name, verdicts[name])
    return verdicts


def _judged(chapter, name, brought, verdicts, loaded):
    steps = program(chapter, name, brought, verdicts)
    alone = program(chapter, name, brought, {})
    verdict = ask(chapter.name, name, steps, loaded=loaded)
    if verdict.word in ("no set-up", "ended") and steps != alone:
        # an earlier answer's fault?
        verdict = ask(chapter.name, name, alone, loaded=loaded)
    if verdict.word == "no set-up":
        raise JudgeError(f"{chapter.name}, {name}: {verdict.report}")
    return verdict


def program(chapter, name, brought, verdicts):
    """The cells to run before `name` is judged, as [(kind, label, source)].

    Those of the course, and at each exercise what was handed in; the reference stands
    where an answer is not right, as in a notebook whose check has handed it over. Cells
    that ended their process are left out, and so are those without a verdict yet.
    """
    steps = []
    for cell_id, (source, tags) in chapter.cells.items():
        if cell_id == name:
            return steps + brought[name]
        if cell_id in brought:
            word = verdicts[cell_id].word if cell_id in verdicts else GONE[0]
            mine = brought[cell_id]
            steps += [s for s in mine if s[0] == "other" or word not in GONE]
            if word != "right":
                steps.append(("reference", cell_id, chapter.source(cell_id)))
        elif "setup" in tags:
            steps.append(("set-up", cell_id, source))
    raise JudgeError(f"{chapter.name} has no cell {name!r}")


# ---- a process ----


def ready(chapter):
    "`with ready(chapter) as loaded:` what ask() needs to judge many answers quickly."
    if not judge_loaded.possible():
        return nullcontext()
    return judge_loaded.Loaded(chapter.name, _libraries(chapter), _environment)


def _libraries(chapter):
    "What a chapter's cells load sooner or later and is not the course's own."
    torch = any("torch" in source for source, _ in chapter.cells.values())
    return ["matplotlib.pyplot", *["torch._dynamo"] * torch]  # the latter by optimizers


def ask(slug, name, cells, seconds=SECONDS, loaded=None):
    "The verdict of a process of its own on these cells: -> Verdict."
    key = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as desk:
        desk = Path(os.path.realpath(desk))
        (desk / "work").mkdir()
        job = {"key": key, "chapter": slug, "name": name, "cells": cells}
        run = _run if loaded is None else loaded.run
        ending, said, errors = run(job, desk, seconds)
    if not said.startswith("ready\n"):
        raise JudgeError(f"{slug}, {name}: {ending}, before it began. {errors}")
    said = said.partition(f"{key}\n")[2]
    if not said:
        return Verdict("ended", f"{name}: {ending}, without a verdict.")
    return Verdict(*said.split("\n", 1))


def _run(job, desk, seconds):
    "What Loaded.run does, in a process that loads everything anew."
    shutil.copytree(ROOT / "utils", desk / "course" / "utils")
    job |= {"course": str(desk / "course")}
    new = tempfile.TemporaryFile
    with adopted(), new() as told, new() as reply, new() as errors:
        told.write(json.dumps(job).encode())
        told.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", START], stdin=told, stdout=reply,
            stderr=errors, cwd=desk / "work", env=_environment(desk),
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(seconds)
            ending = f"its process ended with code {code}"
        except subprocess.TimeoutExpired:
            ending = f"its process was still running after {seconds} s and was ended"
        finally:
            judge_loaded.end(process)
        return ending, *map(judge_loaded.read, (reply, errors))


def _environment(desk):
    "The environment of a process: nothing of whoever grades but what Python needs."
    kept = {name: os.environ[name] for name in KEPT.split() if name in os.environ}
    own = dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP"), str(desk))
    own |= {"MPLCONFIGDIR": str(desk), "MPLBACKEND": "agg", "COURSE_PROGRESS": "off"}
    if os.name != "nt":  # where a PATH finds programs, not libraries too
        own["PATH"] = os.defpath
    return {**kept, **own}
