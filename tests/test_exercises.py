"""Every check of every chapter, tested as software: its reference, its stub, its slips."""

from importlib import import_module

import pytest

from utils.course import author, notebooks
from utils.exercises import slips, telling

CHECKS = sorted(p.stem for p in (author.ROOT / "utils" / "checks").glob("[a-z]*.py"))
CHAPTERS = {slug: import_module(f"utils.checks.{slug}").chapter for slug in CHECKS}
EXERCISES = [
    pytest.param(e, id=f"{chapter.name}/{e.name}")
    for chapter in CHAPTERS.values()
    for e in chapter.exercises.values()
]
for slug in CHECKS:
    import_module(f"utils.slips.{slug}")
SLIPS = [
    pytest.param(e, slip, id=f"{chapter.name}/{e.name}/{slip.name}")
    for chapter in CHAPTERS.values()
    for e in chapter.exercises.values()
    for slip in e.slips
]


@pytest.mark.parametrize("exercise", EXERCISES)
def test_reference_is_right(exercise):
    verdict, report = exercise.judge(exercise.chapter.reference(exercise.name))
    assert verdict == "right", report


@pytest.mark.parametrize("exercise", EXERCISES)
def test_stub_is_not_yet(exercise):
    chapter, scope = exercise.chapter, {"__name__": "__main__"}
    for name, (source, tags) in chapter.cells.items():
        if name == exercise.name:
            assert "### BEGIN SOLUTION" in source, "nothing is left to the reader"
            exec(notebooks.stub(source), scope)
            break
        if "setup" in tags or name in chapter.exercises:
            exec(source, scope)
    verdict, report = exercise.judge(scope[exercise.name])
    assert (verdict, exercise.name in report) == ("not yet", True), report


@pytest.mark.parametrize("exercise", EXERCISES)
def test_ladder_and_number_of_slips(exercise):
    assert 2 <= len(exercise.hints) <= 4, "a ladder: direction, idea, nearly the code"
    assert exercise.test.__doc__, "its first line says what is to be built"
    assert len(exercise.slips) >= 4
    assert f"{exercise.name}-check" in exercise.chapter.cells, "no check cell"


@pytest.mark.parametrize(("exercise", "slip"), SLIPS)
def test_a_slip_is_rejected_and_named(exercise, slip, monkeypatch):
    assert bool(slip.sentence) != bool(slip.told), "its sentence, or what is told of it"
    if slip.told == "still running":
        monkeypatch.setattr(exercise, "seconds", 0.5)
    failure, printed = slips.attempt(exercise, slip.answer, exercise.seconds)
    assert failure is not None, f"accepted; it printed: {printed}"
    assert failure.way != "not yet"
    name = slips.named(exercise, failure, budget=60)  # runs it again: it fails alike
    assert name == slip.sentence
    report = telling.of_failure(exercise, failure, name)
    assert (slip.sentence or slip.told) in report, report
