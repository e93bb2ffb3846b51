"""Mutants: one change at a time, judged in processes that they may break."""

import json

import pytest

from utils.course import mutants, mutations
from utils.exercises import Chapter

SOURCE = """
def running(x_N, start=0):
    "The running sum."
    if len(x_N) == 0:
        raise ValueError(f"nothing to add: {len(x_N)}")
    total, sums = start, []
    for x in x_N:
        total += x
        sums.append(total)
    return np.asarray(sums, dtype=float)
"""


def test_each_mutant_is_a_program_that_differs_in_one_place():
    found = mutations.mutants(SOURCE)
    assert len(found) > 20 and len(set(found.values())) == len(found)
    for what in (
        "for x in x_N: => for x in list(x_N)[1:]:",
        "for x in x_N: => for x in list(x_N)[:1]:",
        "total += x => total -= x",
        "total += x => total = x",
        "total += x => pass",
        "if len(x_N) == 0: => if len(x_N) != 0:",
        "return np.asarray(sums, dtype=float) => return np.asarray(sums)",
    ):
        assert what in found, sorted(found)


def test_words_defaults_and_docstrings_are_left_alone():
    for what in mutations.mutants(SOURCE):
        assert "running sum" not in what and "nothing to add?" not in what
        assert "start=" not in what


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("y = x.detach()", "y = x.detach() => y = x"),
        ("y = x.mT", "y = x.mT => y = x"),
        ("y = x.sum(axis=0)", "y = x.sum(axis=0) => y = x.sum(axis=1)"),
        ("y = x.sum(axis=0)", "y = x.sum(axis=0) => y = x.mean(axis=0)"),
        ("y = max(a, b)", "y = max(a, b) => y = min(a, b)"),
        ("y = f(a, b)", "y = f(a, b) => y = f(b, a)"),
        ("y = a < b", "y = a < b => y = a <= b"),
        ("y = a and b", "y = a and b => y = a or b"),
        ("y = not a", "y = not a => y = a"),
        ("y = x[1:n]", "y = x[1:n] => y = x[:n]"),
        ("y = [f(a) for a in x if a]", "y = [f(a) for a in x if a] => y = [f(a) for a in x]"),
        ("y = np.zeros(3)", "y = np.zeros(3) => y = np.empty(3)"),
        ("with no_grad():\n    f()", "with no_grad(): | f() => f()"),
        ("y = (a, b)", "y = (a, b) => y = (b, a)"),
    ],
)  # fmt: skip
def test_the_changes_that_a_reader_would_make(source, what):
    assert what in mutations.mutants(source)


# ---- a chapter with a hole, and mutants that break their process ----

CHECKS = """
from utils.exercises import Chapter, same

chapter = Chapter("90_toy_mutants")
chapter.cells = {"clipped": (%r, [])}


@chapter.exercise("one", "two")
def clipped(answer):
    "Not below zero."
    same("-1", answer(-1.0), 0.0, "Below zero there is nothing.")
    same("3", answer(3.0), 3.0, "Above zero it stays.")
"""
HOLE = """
import os

def clipped(x):
    if x > 2:
        os.getpid()
        return x
    if False:
        os._exit(7)
    return 0.0
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    "A chapter whose check never tries a number between 0 and 2."
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "toy_mutants.py").write_text(CHECKS % HOLE)
    monkeypatch.setenv("PYTHONPATH", str(mutants.ROOT))
    import utils.checks

    monkeypatch.setattr(utils.checks, "__path__", [*utils.checks.__path__, str(folder)])
    real = mutants.subprocess.Popen

    def popen(command, **options):
        code = (
            f"import utils.checks; utils.checks.__path__.append({str(folder)!r});"
            f"from utils.course import mutants; mutants.work({command[-3]!r}, "
            f"{command[-2]!r}, {command[-1]})"
        )
        return real([command[0], "-c", code], **options)

    monkeypatch.setattr(mutants.subprocess, "Popen", popen)
    monkeypatch.setattr(mutants, "JUDGED", tmp_path)
    return tmp_path


def test_a_hole_is_found_and_a_broken_process_is_begun_again(toy):
    verdicts = mutants.judge("toy_mutants", workers=2)["clipped"]
    assert verdicts["if x > 2: => if x > 1:"] == "right", "the hole"
    assert verdicts["if False: => if True:"] == "broke its process"
    assert verdicts["return 0.0 => return 1.0"] == "wrong"
    assert {"wrong"} < set(verdicts.values())
    assert list(verdicts) == list(mutations.mutants(HOLE)), "none is left out"


def test_what_was_judged_equivalent_is_remembered(toy):
    verdicts = {"clipped": {"a => b": "right", "c => d": "wrong", "e => f": "right"}}
    judged = {"clipped": {"a => b": "the same", "c => d": "no more"}}
    (toy / "90_toy_mutants.json").write_text(json.dumps(judged))
    lines, left = mutants.report("90_toy_mutants", verdicts)
    assert left == 1
    assert lines[0] == "clipped: 3 mutants, 1 rejected, 1 equivalent, 1 survived"
    assert "    SURVIVED  e => f" in lines
    assert "    judged equivalent, but gone or rejected: c => d" in lines


def test_a_mutant_that_never_ends_is_ended(toy, monkeypatch):
    monkeypatch.setattr(mutants, "STALLED", 1)
    worker = mutants.Worker("toy_mutants", "clipped", ["x => y"])
    assert worker.broken("never ended") is False
    assert worker.verdicts == {"x => y": "never ended"}
    assert worker.process.returncode is not None


def test_every_judgement_belongs_to_an_exercise_and_says_why():
    from importlib import import_module

    for path in sorted((mutants.ROOT / "tests" / "mutants").glob("*.json")):
        chapter = import_module(f"utils.checks.{path.stem[3:]}").chapter
        assert isinstance(chapter, Chapter) and chapter.name == path.stem
        for name, judged in json.loads(path.read_text(encoding="utf-8")).items():
            assert name in chapter.exercises, f"{path.name}: {name}"
            for what, why in judged.items():
                assert " => " in what and len(why.split()) >= 3, (path.name, what)
