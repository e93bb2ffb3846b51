"""A chapter as an nbgrader assignment: author nbgrader NN FOLDER [EXERCISE=POINTS ...]

nbgrader reads in a cell's metadata what it is. An answer's cell becomes a solution,
its check a locked test with points, which fails unless the answer is right.
"""

import json
import re
from pathlib import Path

from utils.files import ROOT, write_whole

TAG = "raises-exception"  # Run All goes on where an answer is still wrong
CONFIG = """\
# What nbgrader must know of the course. It reads this file where it is started.
import os
import sys

COURSE = {course!r}  # the folder that holds utils/ and solutions/
sys.path.insert(0, COURSE)
from nbgrader.preprocessors import ClearSolutions

from utils.course import judge_steps
from utils.course.notebooks import stub


def region(self, cell, language):  # a solution leaves the stub that a reader gets
    before, cell.source = cell.source, stub(cell.source)
    return cell.source != before


ClearSolutions._replace_solution_region = region
path = os.path.dirname(sys.executable)  # nbgrader calls `alembic` by its bare name
os.environ["PATH"] = path + os.pathsep + os.environ["PATH"]
c = get_config()
c.CourseDirectory.course_id = "course"
c.Autograde.sanitize_preprocessors = judge_steps.sanitize()
c.Autograde.autograde_preprocessors = judge_steps.autograde()  # judged from outside
"""


class GradingError(ValueError):
    "A notebook, or points, from which no assignment can be made."


def metadata(grade_id, **more):
    "nbgrader's words for a cell: an answer, or what `more` makes of it."
    plain = {"grade": False, "locked": False, "solution": False, "task": False}
    return {"grade_id": grade_id, "schema_version": 3, **plain, **more}


def convert(text, points=None):
    "The text of a solution notebook -> its nbgrader source; points: 1 if none given."
    notebook, points = json.loads(text), points or {}
    notebook["cells"] = [c for c in notebook["cells"] if not _only_solved(c)]
    cells = {cell["id"]: cell for cell in notebook["cells"]}
    source = {cell_id: "".join(cell["source"]) for cell_id, cell in cells.items()}
    line = "{0} = ex.{0}.check({0})".format
    names = [name for name in cells if source.get(f"{name}-check") == line(name)]
    if not names:
        raise GradingError("it has no exercise: no cell NAME with a cell NAME-check")
    if unknown := sorted(set(points) - set(names)):
        raise GradingError(f"no exercise {unknown[0]!r}; there are: {', '.join(names)}")
    for cell_id, cell in cells.items():
        if cell_id == "bootstrap" or "setup" in cell["metadata"].get("tags", []):
            cell["metadata"]["nbgrader"] = metadata(cell_id, locked=True)
    for name in names:
        if "### BEGIN SOLUTION" not in source[name]:
            raise GradingError(f"cell {name}: no ### BEGIN SOLUTION")
        cells[name]["metadata"]["nbgrader"] = metadata(name, solution=True)
        graded = {"grade": True, "locked": True, "points": points.get(name, 1)}
        test, test_id = cells[f"{name}-check"], f"{name}-check"
        test["metadata"]["nbgrader"] = metadata(test_id, **graded)
        test["metadata"]["tags"] = [*test["metadata"].get("tags", []), TAG]
        test["source"] = [f"{line(name)}\n", f"ex.{name}.require()"]
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _only_solved(cell):
    return "solution" in cell["metadata"].get("tags", [])


def write(solution, folder, words=()):
    "FOLDER/source/NN/NN_slug.ipynb, and FOLDER/nbgrader_config.py where none is yet."
    if bad := [w for w in words if not re.fullmatch(r"\w+=\d+(\.\d+)?", w)]:
        raise GradingError(f"points are written as EXERCISE=2, not {bad[0]!r}")
    points = {name: float(number) for name, number in (w.split("=") for w in words)}
    text = convert(solution.read_text(encoding="utf-8"), points)
    target = Path(folder) / "source" / solution.stem[:2] / solution.name
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, text)
    config = Path(folder) / "nbgrader_config.py"
    if not config.exists():
        write_whole(config, CONFIG.format(course=str(ROOT)))
    return target
