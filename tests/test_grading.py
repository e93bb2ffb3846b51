"""The nbgrader source of a chapter: what it adds to the solution, and nothing else."""

import importlib.util
import json
import subprocess
import sys

import pytest

from utils.course import author, grading, notebooks
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
            source = "".join(c["source"])
            hidden, _, rest = source.partition("### END HIDDEN TESTS\n")
            name = c["id"].removesuffix("-check")
            want = f'### BEGIN HIDDEN TESTS\n{name} = globals().get("{name}")\n'
            assert hidden == want
            rest = rest.removesuffix(f"\nex.{name}.require()")
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
    assert without_additions(grading.convert(text)) == json.loads(text)


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


@pytest.mark.skipif(not importlib.util.find_spec("nbgrader"), reason="no nbgrader here")
def test_nbgrader_itself_finds_the_metadata_valid():
    from nbgrader.nbgraderformat import reads

    for path in SOLUTIONS:
        reads(grading.convert(path.read_text(encoding="utf-8")), as_version=4)


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
