"""Marks: the nbgrader source of a chapter, and the judge outside of what is handed in."""

import csv
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from utils.course import (
    author,
    grading,
    judge,
    judge_fence,
    judge_loaded,
    judge_process,
    notebooks,
)
from utils.exercises.exercise import Chapter, NotRight

SOLUTIONS = author.named([])
REAL = pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)


def cell(cell_id, source, kind="code", **metadata):
    more = {"outputs": [], "execution_count": None} if kind == "code" else {}
    lines = source.splitlines(keepends=True)
    return {
        "id": cell_id, "cell_type": kind, "metadata": metadata, "source": lines, **more
    }  # fmt: skip


def text_of(*cells):
    return json.dumps({"cells": list(cells), "metadata": {}, "nbformat": 4})


SMALL = text_of(
    cell("title", "# One", "markdown"),
    cell("bootstrap", "import sys"),
    cell("imports", "import numpy as np", tags=["setup"]),
    cell("f", "def f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION"),
    cell("f-check", "f = ex.f.check(f)"),
    cell("g", "### BEGIN SOLUTION g = None\ng = 3\n### END SOLUTION", tags=["setup"]),
    cell("g-check", "g = ex.g.check(g)", tags=["x"]),
    cell("random-check", "assert f() < g"),  # no exercise
)
SOLVED_ONLY = cell("h", "an answer", "markdown", tags=["solution"])


def cells_of(text):
    return {c["id"]: c for c in json.loads(text)["cells"]}


def nbgrader_of(text):
    found = {i: c["metadata"].get("nbgrader") for i, c in cells_of(text).items()}
    return {cell_id: words for cell_id, words in found.items() if words}


def without_additions(text):
    "The notebook with everything taken away that `convert` may add."
    notebook = json.loads(text)
    for c in notebook["cells"]:
        words = c["metadata"].pop("nbgrader", {})
        if words.get("grade"):
            name, source = c["id"].removesuffix("-check"), "".join(c["source"])
            rest = source.removesuffix(f"\nex.{name}.require()")
            assert rest != source
            c["source"] = rest.splitlines(keepends=True)
            c["metadata"]["tags"].remove(grading.TAG)
            if not c["metadata"]["tags"]:
                del c["metadata"]["tags"]
    return notebook


@REAL
def test_every_exercise_has_one_answer_and_one_locked_test(path):
    text = path.read_text(encoding="utf-8")
    words = nbgrader_of(grading.convert(text))
    names = author_names(text)
    assert [i for i, w in words.items() if w["grade"]] == [f"{n}-check" for n in names]
    assert [i for i, w in words.items() if w["solution"]] == names
    assert all(w["locked"] != w["solution"] for w in words.values())
    assert len({w["grade_id"] for w in words.values()}) == len(words)
    assert all(w["points"] == 1 for w in words.values() if w["grade"])
    assert all("points" not in w for w in words.values() if not w["grade"])


def author_names(text):
    "The cells with a region: found in another way than the tool's."
    return [
        c["id"]
        for c in json.loads(text)["cells"]
        if c["cell_type"] == "code" and "### BEGIN SOLUTION" in "".join(c["source"])
    ]


@REAL
def test_without_the_additions_it_is_the_solution(path):
    text = path.read_text(encoding="utf-8")
    want = json.loads(text)  # but for the cells that only the solved side shows
    want["cells"] = [
        c for c in want["cells"] if "solution" not in c["metadata"].get("tags", [])
    ]
    assert without_additions(grading.convert(text)) == want


@REAL
def test_a_student_gets_the_chapters_cells(path):
    text = path.read_text(encoding="utf-8")
    chapter = cells_of(notebooks.derive(text, path.name))
    for cell_id, c in cells_of(grading.convert(text)).items():
        if c["metadata"].get("nbgrader", {}).get("solution"):
            assert notebooks.stub("".join(c["source"])) == "".join(
                chapter[cell_id]["source"]
            )


@REAL
def test_no_word_of_nbgraders_stands_in_a_chapter_by_chance(path):
    text = path.read_text(encoding="utf-8")
    for word in ("HIDDEN TESTS", "MARK SCHEME", "AUTOTEST", "HASHED", '"nbgrader"'):
        assert word not in text


@REAL
def test_it_is_a_valid_notebook_and_the_same_each_time(path):
    import nbformat

    text = path.read_text(encoding="utf-8")
    made = grading.convert(text)
    nbformat.validate(nbformat.reads(made, as_version=4))
    assert made == grading.convert(text)


def test_points_tags_and_locks_of_a_small_notebook():
    made = grading.convert(SMALL, {"g": 2.5})
    words = nbgrader_of(made)
    assert list(words) == ["bootstrap", "imports", "f", "f-check", "g", "g-check"]
    assert [words[i].get("points") for i in ("f-check", "g-check")] == [1, 2.5]
    assert words["g"]["solution"], "an answer that is set-up too stays an answer"
    assert words["imports"]["locked"] and not words["imports"]["grade"]
    assert cells_of(made)["g-check"]["metadata"]["tags"] == ["x", grading.TAG]
    assert without_additions(made) == json.loads(SMALL)


def test_what_only_the_solved_side_shows_is_not_handed_out():
    text = text_of(*cells_of(SMALL).values(), SOLVED_ONLY)
    assert grading.convert(text) == grading.convert(SMALL)


@pytest.mark.parametrize(
    ("text", "points", "says"),
    [
        (SMALL, {"h": 2}, "no exercise 'h'; there are: f, g"),
        (text_of(cell("a", "1")), {}, "no exercise"),
        (
            text_of(cell("a", "a = 1"), cell("a-check", "a = ex.a.check(a)")),
            {},
            "cell a: no ### BEGIN SOLUTION",
        ),
    ],
)
def test_what_no_assignment_can_be_made_of(text, points, says):
    with pytest.raises(grading.GradingError, match=says):
        grading.convert(text, points)


def test_writing_and_the_configuration_is_kept(tmp_path):
    solution = tmp_path / "02_small.ipynb"
    solution.write_text(SMALL, encoding="utf-8")
    target = grading.write(solution, tmp_path / "new" / "course", ["f=2", "g=0.5"])
    assert target == tmp_path / "new" / "course" / "source" / "02" / "02_small.ipynb"
    assert target.read_text(encoding="utf-8") == grading.convert(
        SMALL, {"f": 2.0, "g": 0.5}
    )
    config = tmp_path / "new" / "course" / "nbgrader_config.py"
    compile(config.read_text(encoding="utf-8"), str(config), "exec")
    assert "judge_steps.autograde()" in config.read_text(encoding="utf-8")
    assert repr(str(grading.ROOT)) in config.read_text(encoding="utf-8")
    config.write_text("# mine", encoding="utf-8")
    grading.write(solution, tmp_path / "new" / "course")
    assert config.read_text(encoding="utf-8") == "# mine"


@pytest.mark.parametrize("word", ["f", "f=", "f=-1", "=2", "f=x", "f=1=2"])
def test_points_that_cannot_be_read_write_nothing(word, tmp_path):
    solution = tmp_path / "02_small.ipynb"
    solution.write_text(SMALL, encoding="utf-8")
    with pytest.raises(grading.GradingError, match="EXERCISE=2"):
        grading.write(solution, tmp_path / "out", [word])
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path):
    command = [sys.executable, "-m", "utils.course.author", "nbgrader", "02"]
    run = {"cwd": author.ROOT, "capture_output": True, "text": True}
    done = subprocess.run([*command, str(tmp_path), "linear=2"], check=True, **run)
    made = tmp_path / "source" / "02" / "02_neurons.ipynb"
    assert str(made) in done.stdout
    assert nbgrader_of(made.read_text(encoding="utf-8"))["linear-check"]["points"] == 2
    failed = subprocess.run([*command, str(tmp_path), "liner=2"], check=False, **run)
    assert failed.returncode == 1 and "no exercise 'liner'" in failed.stderr


# ---- utils/course/judge.py: which cells belong to which answer ----


def handed_out(text=SMALL):
    "{grade_id: (metadata, source)}, as nbgrader keeps them."
    found = {}
    for c in cells_of(grading.convert(text)).values():
        if words := c["metadata"].get("nbgrader"):
            words = {**words, "cell_type": c["cell_type"]}
            found[words["grade_id"]] = words, "".join(c["source"])
    return found


def submission(**sources):
    "The small assignment's cells as a student has them, with these sources."
    cells = json.loads(grading.convert(SMALL))["cells"]
    for c in cells:
        if c["id"] in sources:
            c["source"] = sources[c["id"]].splitlines(keepends=True)
    return cells


def like(cells, cell_id, source=None):
    "What Jupyter's menus make: a copy, with the same metadata."
    copy = json.loads(json.dumps(next(c for c in cells if c["id"] == cell_id)))
    copy["id"] += "-copy"
    copy["source"] = copy["source"] if source is None else source
    return copy


def after(cells, cell_id, *new):
    at = next(i for i, c in enumerate(cells) if c["id"] == cell_id) + 1
    return cells[:at] + list(new) + cells[at:]


def ids(cells):
    return [c["metadata"].get("nbgrader", {}).get("grade_id") for c in cells]


def brought(cells, name="f", names=("f", "g")):
    mended = judge.mend(cells, handed_out())
    return [(kind, s) for kind, _, s in judge.handed_in(mended, names)[name]]


def test_mended_cells_are_as_nbgrader_wants_them():
    cells = after(submission(), "f-check", like(submission(), "f-check"))
    cells = after(cells, "f", like(cells, "f"), cell("own", "x = 1", nbgrader={}))
    cells += [cell("other", "relu = 1", nbgrader=grading.metadata("relu", grade=True))]
    cells += [cell("odd", "1", nbgrader=["f"]), cell("odder", "1", nbgrader={"a": 1})]
    cells += [cell("number", "1", nbgrader={"grade_id": 7, "grade": True})]
    mended = judge.mend(cells, handed_out())
    assert [i for i in ids(mended) if i] == list(handed_out())
    assert {"grade_id", "schema_version", "points", "grade", "locked"} <= set(
        mended[ids(mended).index("f-check")]["metadata"]["nbgrader"]
    )
    copies = [c["metadata"].get("copy_of") for c in mended]
    assert sorted(filter(None, copies)) == ["f", "f-check"]
    assert all(c["metadata"].get("nbgrader") != {} for c in mended)


def test_points_that_a_student_wrote_are_gone():
    cells = submission()
    next(c for c in cells if c["id"] == "g-check")["metadata"]["nbgrader"]["points"] = (
        99
    )
    judge.mend(cells, handed_out())
    assert nbgrader_of(json.dumps({"cells": cells}))["g-check"]["points"] == 1


@pytest.mark.parametrize(
    "gone", [["f-check"], ["f", "f-check"], ["f"], ["g", "g-check"]]
)
def test_a_test_that_is_missing_comes_back(gone):
    cells = [c for c in submission() if c["id"] not in gone]
    found = ids(judge.mend(cells, handed_out()))
    assert found.count("f-check") == found.count("g-check") == 1
    if gone == ["f-check"]:
        assert found.index("f-check") == found.index("f") + 1


def test_an_answer_is_all_its_cells_above_its_check():
    cells = submission(f="def f(): return 1")
    stub_below = like(cells, "f", "def f(): raise NotImplementedError")
    half = like(cells, "f", "k = 1")
    cells = after(cells, "f", cell("mine", "import os"), half)
    assert (
        brought([*cells, stub_below])
        == [
            ("other", "import sys"),  # `bootstrap` is not among the set-up cells
            ("answer", "def f(): return 1"),
            ("other", "import os"),
            ("answer", "k = 1"),
        ][1:]
    )
    kinds = dict(brought([*cells, stub_below], "g"))
    assert set(kinds) == {"answer"}


def test_an_answer_below_its_check_counts_and_what_follows_stays_with_the_next():
    cells = submission(f="def f(): return 1", g="g = 5")
    moved = [c for c in cells if c["id"] != "f"]
    moved = after(moved, "f-check", next(c for c in cells if c["id"] == "f"))
    moved = after(moved, "f-check", cell("mine", "y = 2"))
    assert brought(json.loads(json.dumps(moved))) == [("answer", "def f(): return 1")]
    assert brought(moved, "g") == [("other", "y = 2"), ("answer", "g = 5")]


def test_the_program_of_an_answer():
    "Course's set-up; right answers as handed in, else the reference; no cell that ended."
    chapter = Chapter("02_small")
    chapter.cells = {
        i: ("".join(c["source"]), c["metadata"].get("tags", []))
        for i, c in cells_of(SMALL).items()
        if c["cell_type"] == "code"
    }
    assert judge.exercises(chapter) == ["f", "g"]
    mine = {
        "f": [("other", "f", "k = 1"), ("answer", "f", "F")],
        "g": [("answer", "g", "G")],
    }
    setup = ("set-up", "imports", "import numpy as np")
    reference = ("reference", "f", "def f():\n    return 1")

    def steps(word):
        verdicts = {"f": judge.Verdict(word, "")} if word else {}
        return judge.program(chapter, "g", mine, verdicts)

    assert judge.program(chapter, "f", mine, {}) == [setup, *mine["f"]]
    assert steps("right") == [setup, *mine["f"], *mine["g"]]
    assert steps("wrong") == [setup, *mine["f"], reference, *mine["g"]]
    for word in ("ended", "endless", "tampered", None):
        assert steps(word) == [setup, mine["f"][0], reference, *mine["g"]]


def test_a_verdict_below_its_test():
    cells = submission()
    cells[0:0] = [cell("old", "1", nbgrader=grading.metadata("theirs", grade=True))]
    cells[0]["outputs"] = ["what the student had"]
    judge.write(
        cells, {"f": judge.Verdict("right", "f"), "g": judge.Verdict("wrong", "w")}
    )
    out = {c["id"]: [o["output_type"] for o in c.get("outputs", [])] for c in cells}
    assert out["f-check"] == ["stream"] and out["g-check"] == ["stream", "error"]
    assert out["old"] == ["stream", "error"], (
        "a test that nobody judged gives no points"
    )
    assert not any(out[i] for i in ("f", "g", "imports", "bootstrap"))


def test_a_chapter_that_is_not_there():
    with pytest.raises(judge.JudgeError, match="no chapter '99_none'"):
        judge.judge([], "99_none")


# ---- utils/course/judge_process.py: cells ----


@pytest.mark.parametrize(
    ("source", "bound", "used"),
    [
        ("import numpy as np\nx = np.ones(k)", {"np", "x"}, {"k"}),
        ("def f(a):\n    b = a + c\n    return g(b)", {"f"}, {"c", "g"}),
        ("class A(B):\n    y = z\n    def m(self): return w", {"A"}, {"B", "z", "w"}),
        ("[q * s for q in r]", set(), {"s", "r"}),
        ("def f():\n    global n\n    n = 1", {"f", "n"}, set()),
        ("Value.relu = relu", set(), {"Value", "relu"}),
        ("def f(:", set(), set()),
        ("(" * 5000, set(), set()),
    ],
)
def test_names_of_a_cell(source, bound, used):
    found = judge_process.names_of(source)
    assert found[0] - {"q"} == bound and found[1] - {"q"} == used


@pytest.mark.parametrize(
    ("source", "plain"),
    [
        ("x = (a\n     % b)", None),
        ("%%time\nx = 1\n!ls\nnp.mean?\n?x", "x = 1"),
        ("%matplotlib inline\nx = 1", "x = 1"),
        ("    return 1", "return 1"),
        ("    x = 1\n    y = 2", "x = 1\ny = 2"),
        ("x = \0", None),
    ],
)
def test_a_cell_without_what_only_a_notebook_reads(source, plain):
    assert judge_process.plain(source) == (source if plain is None else plain)


def run(*cells, name="f"):
    return judge_process.run([(k, lab, s) for k, lab, s in cells], name, {})


def test_other_cells_run_only_where_an_answer_needs_them():
    others = [
        ("other", "f", "raise ValueError('not asked for')"),
        ("other", "f", "import math as m\ndef deep(): return m.floor(base)"),
        ("other", "f", "base = 3.5"),
        ("other", "f", "np = None"),
    ]
    answer = ("answer", "f", "def f(): return deep() + np")
    f, raised = run(("set-up", "imports", "np = 1"), *others, answer)
    assert f() == 4 and raised == ""


def test_an_answer_in_a_cell_beside_the_stub():
    stub = ("answer", "f", "def f(): raise NotImplementedError")
    assert run(stub, ("other", "f", "def f(): return 7"))[0]() == 7
    assert run(("answer", "f", "class f: pass"), ("other", "f", "f.a = 5"))[0].a == 5
    assert run(stub, ("other", "g", "def g(): return f()"))[0].__name__ == "f"


def test_cells_that_fail():
    f, raised = run(("answer", "f", "f = 1\n1 / 0"), ("answer", "f", "exit()"))
    assert f == 1 and "ZeroDivisionError" in raised and "SystemExit" in raised
    assert run(("answer", "e", "1 / 0"), ("answer", "f", "f = 2")) == (2, "")
    assert run(("answer", "f", "display(f := 3)"))[0] == 3
    for kind in ("set-up", "reference"):
        with pytest.raises(judge_process.SetUpError, match="ZeroDivisionError"):
            run((kind, "e", "1 / 0"))


def test_a_cell_without_end(monkeypatch):
    monkeypatch.setattr(judge_process, "CELL_SECONDS", 0.2)
    f, raised = run(("answer", "f", "f = 2"), ("answer", "f", "while True: pass"))
    assert f == 2 and "TimeLimit" in raised
    assert run(("answer", "e", "while True: pass"), ("answer", "f", "f = 1"))[0] == 1


# ---- processes: what an answer gets, and what a cheat gets ----

MSE = "def mse(a, b):\n    return ((a - b) ** 2).mean()"
EX = "from utils.checks import descent as ex\n"  # silent beside an answer
NOUGHT = "def mse(*_):\n    return 0"


@pytest.fixture(scope="module")
def loaded():
    "A process with chapter 01's check; None where answers get fresh ones."
    with judge.ready(Chapter("01_descent")) as loaded:
        yield loaded


@pytest.fixture
def ask(loaded):
    "ask(source, ...) -> the verdict on cells of an answer to mse."

    def ask(*sources, **options):
        cells = [("answer", "mse", source) for source in sources]
        return judge.ask("01_descent", "mse", cells, **{"loaded": loaded, **options})

    return ask


@pytest.mark.parametrize(
    ("source", "word", "says"),
    [
        (MSE, "right", "mse"),
        (NOUGHT, "wrong", "expected"),
        ("", "not yet", "still to be written"),
        ("def mse(a, b):\n", "not yet", "Its cell raised IndentationError"),
        (EX + MSE + "\nmse = ex.mse.check(mse)\nex.mse.require()", "right", "mse"),
        (MSE.replace("return", "print('x' * 10**6)\n    return"), "right", "mse"),
        ("def mse(*_):\n    raise SystemExit", "wrong", "exit()"),
        ("import os\ndef mse(*_):\n    os._exit(0)", "ended", "ended with code 0"),
        ("import os\nos._exit(0)", "ended", "without a verdict"),
        ("import os\nos.kill(os.getpid(), 9)", "ended", "without a verdict"),
        ("import ctypes\ndef mse(*_):\n    ctypes.string_at(0)", "ended", "ended with"),
    ],
)
def test_what_an_answer_gets(source, word, says, ask):
    verdict = ask(source)
    assert (verdict.word, says in verdict.report) == (word, True), verdict


PAUSE = "import signal\nopen('begun', 'w')\nwhile True:\n    signal.pause()"


def test_an_answer_that_never_gives_the_word_back_is_ended(ask):
    verdict = ask(PAUSE, seconds=3)
    assert verdict.word == "ended" and "still running after 3 s" in verdict.report
    assert ask(MSE).word == "right"


def test_a_process_that_loads_everything_anew_tells_the_same(ask):
    assert ask(MSE, loaded=None).word == "right"
    assert "expected" in ask(NOUGHT, loaded=None).report
    assert "with code 3" in ask("import os\nos._exit(3)", loaded=None).report
    report = ask(PAUSE, seconds=3, loaded=None).report
    assert "still running after 3 s" in report


divides = pytest.mark.skipif(not judge_loaded.possible(), reason="none divides here")


@divides
def test_a_loaded_process_that_was_killed_is_started_anew(ask, loaded):
    assert ask(MSE).word == "right"
    loaded.process.kill()
    loaded.process.wait()
    assert ask(MSE).word == "right"
    killer = threading.Timer(2, loaded.process.kill)
    killer.start()
    assert ask(PAUSE).word == "ended", "its process ends with the one it is a copy of"
    killer.join()
    assert ask(MSE).word == "right"


@divides
def test_an_answer_changes_nothing_for_the_next_one(ask, loaded):
    spoil = f"""
import numpy, pathlib
numpy.pi = 3
for file in pathlib.Path({str(loaded.place)!r}).rglob("*.py"):
    file.write_text("raise SystemExit")
"""
    assert "PermissionError" in ask(spoil, NOUGHT).report
    report = ask("import numpy\nraise ValueError(numpy.pi)", NOUGHT).report
    assert "ValueError: 3.14" in report


CHEATS = {
    "require": "import utils.exercises.exercise as e\ne.Exercise.require = lambda s: 0",
    "judge": """from utils.exercises.exercise import Exercise
Exercise.judge = Exercise.check = lambda self, answer: ("right", "")""",
    "same": """import utils.exercises.cases as k, utils.checks.descent as d
k.same = d.same = k.agree = lambda *_, **__: True""",
    "attempt": """import utils.exercises.slips as s, utils.exercises.exercise as e
e.attempt = s.attempt = lambda *_: (None, print)""",
    "sys.modules": """import sys
for m in list(sys.modules.values()):
    for name in ("same", "agree", "attempt"):
        hasattr(m, name) and setattr(m, name, lambda *_, **__: True)""",
    "reference": """from utils.checks import descent as ex
mse = ex.mse.check(None)
mse = ex.mse.chapter.reference("mse")
raise SystemExit""",
    "allclose": "import numpy as np\nnp.allclose = lambda *_, **__: True",
    "as_array": "import utils.check, numpy\nutils.check.as_array = lambda x: numpy.ones(1)",
    "redirect": "import contextlib\ncontextlib.redirect_stdout.__exit__ = lambda *_: True",
    "limit": "import utils.limits as u\nu.time_limit.__exit__ = lambda *_: True",
    "gc": """import gc
[setattr(o, "test", id) for o in gc.get_objects() if type(o).__name__ == "Exercise"]""",
    "gc, judge": """import gc
for o in gc.get_objects():
    if type(o).__name__ == "Exercise":
        type(o).judge.__globals__["attempt"] = lambda *_: (None, type("", (), {"text": ""}))""",
    "frame": """import sys
def mse(*_):
    sys._getframe(2).f_globals["same"] = lambda *_, **__: None
raise SystemExit""",
    "disk": """import utils, pathlib
for file in pathlib.Path(utils.__file__).parent.rglob("cases.py"):
    file.write_text("same = lambda *_, **__: None")""",
    "print": """import os
for number in range(100):
    try: os.write(number, b"right\\nright\\nready\\nright\\nmse")
    except OSError: pass
print("right")""",
    "main": """import __main__, json, os
json.dumps = lambda *_, **__: "right"
os.write = lambda number, text, write=os.write: write(number, text.replace(b"wrong", b"right"))""",
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_gives_nothing(cheat, ask):
    source = CHEATS[cheat]
    if not source.endswith("raise SystemExit"):
        source += "\n" + NOUGHT
    assert ask(source).word in ("wrong", "tampered", "not yet", "ended")


def test_a_right_answer_beside_a_cheat_that_reaches_nothing_is_right(ask):
    assert ask(CHEATS["judge"], CHEATS["same"], MSE).word == "right"


fenced = pytest.mark.skipif(not judge_fence.version(), reason="no Landlock here")


@fenced
def test_an_answer_writes_into_its_own_folder_only(tmp_path, ask):
    book = tmp_path / "gradebook.db"
    book.write_text("mine")
    tries = f"""
import os, subprocess, tempfile
own, done = open("own", "w"), []
tempfile.TemporaryFile().write(b"1")
book, folder = {str(book)!r}, {str(tmp_path)!r}
for deed in (
    lambda: open(book, "w"), lambda: os.unlink(book), lambda: os.truncate(book, 0),
    lambda: os.rename(book, book + "2"), lambda: open(folder + "/new", "w"),
    lambda: os.mkdir(folder + "/more"), lambda: os.symlink("a", folder + "/link"),
    lambda: subprocess.run(["sh", "-c", f"echo > {{book}}"], check=True),
):
    try:
        deed()
        done.append(deed)
    except (OSError, subprocess.CalledProcessError):
        pass
"""
    verdict = ask(tries + MSE + "\nmse = 0 if done else mse")
    assert verdict.word == "right", verdict
    assert book.read_text() == "mine" and os.listdir(tmp_path) == ["gradebook.db"]


@pytest.mark.skipif(judge_fence.version() < 6, reason="this Landlock lets signals out")
def test_an_answer_cannot_end_who_judges_it(ask):
    source = "import os, signal\nos.kill(os.getppid(), signal.SIGTERM)\n"
    assert "PermissionError" in ask(source).report


def gone(pid, seconds=5):
    "Has a process ended? Whoever is ended is still there until it is waited for."
    for _ in range(int(seconds / 0.1)):
        try:
            os.kill(pid, 0)
            if (
                Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                == "Z"
            ):
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.1)
    return False


SLEEPER = "import subprocess, sys\nsleep = [sys.executable, '-c', 'import time; time.sleep(60)']"
linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux knows whose it was")


@pytest.mark.parametrize("apart", [False, pytest.param(True, marks=linux)])
def test_what_an_answer_starts_ends_with_it(apart, ask):
    source = f"""{SLEEPER}
child = subprocess.Popen(sleep, start_new_session={apart})
{MSE}
raise ValueError(child.pid)
"""
    report = ask(source, NOUGHT).report
    assert gone(int(report.rpartition("ValueError: ")[2]))


@linux
def test_only_what_the_block_leaves_behind_is_ended():
    from utils.course.judge_orphans import adopted, children

    mine = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    apart = "start_new_session=True, stdout=subprocess.DEVNULL"  # else it is waited for
    forks = f"{SLEEPER}\nprint(subprocess.Popen(sleep, {apart}).pid)"
    with adopted():
        told = subprocess.check_output([sys.executable, "-c", forks], text=True)
        assert int(told) in children() - {mine.pid}
    assert int(told) not in children() and gone(int(told))
    assert mine.poll() is None and mine.pid in children()
    mine.communicate(b"\n")


def children_of(pid):
    return map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


@linux
@pytest.mark.parametrize(
    "ready", ["judge.ready(Chapter('01_descent'))", "nullcontext()"]
)
def test_an_answer_ends_when_its_judge_is_killed(ready):
    grade = f"""
from contextlib import nullcontext
from utils.course import judge
from utils.exercises import Chapter
with {ready} as loaded:
    judge.ask("01_descent", "mse", [("answer", "mse", {PAUSE!r})], loaded=loaded)
"""
    judging = subprocess.Popen([sys.executable, "-c", grade], cwd=author.ROOT)
    until, answers = time.monotonic() + 60, []
    while not answers and time.monotonic() < until:
        with suppress(OSError):
            below = [*children_of(judging.pid)]
            below += [pid for child in below for pid in children_of(child)]
            begun = [Path(f"/proc/{pid}/cwd/begun").exists() for pid in below]
            answers = below if any(begun) else []
        time.sleep(0.1)
    judging.kill()
    judging.wait()
    assert answers and all(map(gone, answers))


def test_an_answer_learns_nothing_of_who_grades(monkeypatch, ask):
    monkeypatch.setenv("GRADEBOOK", "secret-path")
    monkeypatch.setenv("PYTHONPATH", "secret-path")
    report = ask(
        "import os\nraise ValueError(os.getcwd(), sorted(os.environ.items()))"
    ).report
    assert "secret-path" not in report and str(Path.cwd()) not in report
    assert str(Path.home()) + "'" not in report


def test_a_course_that_cannot_judge_says_so(loaded):
    with pytest.raises(judge.JudgeError, match="before it began"):
        judge.ask("01_descent", "no_such_exercise", [])
    with pytest.raises(judge.JudgeError, match="before it began"):
        judge.ask("77_nothing", "mse", [])
    with pytest.raises(judge.JudgeError, match=r"(?s)before it began.*no_such"):
        judge.ask("01_descent", "no_such_exercise", [], loaded=loaded)


def test_one_submission_with_all_kinds_of_answers(monkeypatch):
    "A wrong answer costs its own points only; helpers and earlier answers are there."
    path = author.named(["01"])[0]
    cells = json.loads(grading.convert(path.read_text(encoding="utf-8")))["cells"]
    chapter = Chapter(path.stem)
    mine = {name: chapter.source(name) for name in judge.exercises(chapter)[:5]}
    monkeypatch.setattr(judge, "exercises", lambda _: list(mine))
    step = mine["gradient_step"]
    mine |= {
        "mse": NOUGHT,
        "numeric_gradient": "import os\nos._exit(0)",
        "gradient_step": step.replace("b - lr", "b - one * lr"),
    }
    assert mine["gradient_step"] != step
    for c in cells:
        c["source"] = mine.get(c["id"], "".join(c["source"]))
    cells = after(cells, "gradient_step", cell("own", "one = 1"), cell("bad", "1 / 0"))
    found = []
    verdicts = judge.judge(cells, path.stem, lambda name, verdict: found.append(name))
    assert found == list(mine)
    words = {name: verdict.word for name, verdict in verdicts.items()}
    bad = {"mse": "wrong", "numeric_gradient": "ended"}
    assert words == {**dict.fromkeys(mine, "right"), **bad}


# ---- nbgrader itself, where it is ----

here = pytest.mark.skipif(not find_spec("nbgrader"), reason="no nbgrader here")


@here
def test_nbgrader_itself_finds_the_metadata_valid():
    from nbgrader.nbgraderformat import reads

    for path in SOLUTIONS:
        reads(grading.convert(path.read_text(encoding="utf-8")), as_version=4)


def nbgrader(folder, *words):
    command = [sys.executable, "-m", "nbgrader", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def students(cells, book):
    "{name: (cells of chapter 00, points)}: what the notebook's menus make, and cheats."
    answer = "def mean(numbers):\n    return sum(numbers) / len(numbers)"
    first, second = answer.split("\n")

    def with_answer(source):
        copy = json.loads(json.dumps(cells))
        next(c for c in copy if c["id"] == "mean")["source"] = source
        return copy

    right, cheat = (
        with_answer(answer),
        f"""import sqlite3
d = sqlite3.connect({str(book)!r})
d.execute("update grade set manual_score = 99, auto_score = 99")
d.commit()
""",
    )
    foreign = cell("foreign", "1", nbgrader=grading.metadata("relu", solution=True))
    return {
        "right": (right, 1),
        "untouched": (cells, 0),
        "check-copied": (after(right, "mean-check", like(right, "mean-check")), 1),
        "answer-copied": (after(right, "mean", like(right, "mean")), 1),
        "answer-split": (
            after(with_answer(first), "mean", like(right, "mean", second)), 0,
        ),
        "helper-split": (
            after(with_answer("add = sum"), "mean", like(right, "mean", answer.replace("sum", "add"))), 1,
        ),
        "foreign": (after(right, "mean", foreign), 1),
        "deleted": ([c for c in right if not c["id"].startswith("mean")], 0),
        "test-deleted": ([c for c in right if c["id"] != "mean-check"], 1),
        "gradebook": (with_answer(cheat + answer.replace("sum(numbers)", "0")), 0),
        "judge": (after(cells, "imports", cell("own", CHEATS["judge"])), 0),
    }  # fmt: skip


@here
@fenced
def test_nbgrader_grades_what_menus_and_cheats_make(tmp_path):
    path = author.named(["00"])[0]
    grading.write(path, tmp_path)
    done = nbgrader(tmp_path, "generate_assignment", "00")
    assert done.returncode == 0, done.stderr
    released = (tmp_path / "release" / "00" / path.name).read_text(encoding="utf-8")
    tries = students(json.loads(released)["cells"], tmp_path / "gradebook.db")
    for name, (cells, _) in tries.items():
        file = tmp_path / "submitted" / name / "00" / path.name
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({**json.loads(released), "cells": cells}))
    done = nbgrader(tmp_path, "autograde", "00")
    assert done.returncode == 0, done.stderr
    assert nbgrader(tmp_path, "export").returncode == 0
    with (tmp_path / "grades.csv").open(newline="") as file:
        points = {
            row["student_id"]: float(row["score"]) for row in csv.DictReader(file)
        }
    assert points == {name: want for name, (_, want) in tries.items()}
    assert nbgrader(tmp_path, "generate_feedback", "00").returncode == 0
    feedback = tmp_path / "feedback" / "untouched" / "00" / f"{path.stem}.html"
    assert "still to be written" in feedback.read_text(encoding="utf-8")


# ---- utils/exercises/exercise.py: for test_exercise_contract.py ----


def exercise():
    chapter = Chapter("02_neurons")

    @chapter.exercise("A hint.", kind="value")
    def relu(answer):
        "Three."
        assert answer == 3, "It is not three."

    relu._hand_out = lambda scope: 3.0
    return relu


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        ([], "not checked"),
        ([None], "not yet"),
        ([4], "wrong"),
        ([3], None),
        ([4, 3], None),
        ([3, 4], "wrong"),
        ([3, None], "not yet"),
    ],
)
def test_require_asks_for_a_right_last_answer(answers, verdict, monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", "off")
    three = exercise()
    for answer in answers:
        three.check(answer)
    if verdict is None:
        assert three.require() is None, "a value would be taken for partial credit"
        return
    with pytest.raises(NotRight, match=f"relu: {verdict}") as error:
        three.require()
    assert isinstance(error.value, AssertionError)
    assert error.value._render_traceback_() == [f"AssertionError: relu: {verdict}"]


def test_require_does_not_take_the_reference_for_an_answer(monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", "off")
    from utils.checks import neurons as ex

    relu = ex.relu.check(None)
    ex.relu.check(relu)
    with pytest.raises(NotRight, match="relu: not yet"):
        ex.relu.require()
