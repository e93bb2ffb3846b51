"""Every check of every chapter, tested as software."""

from importlib import import_module

import pytest

from tests.wrong_answers import SLUGS, wrong_answers
from utils import author, notebooks

CHECKS = {slug: import_module(f"utils.checks.{slug}").chapter for slug in SLUGS}
EXERCISES = [
    pytest.param(e, id=f"{chapter.name}/{e.name}")
    for chapter in CHECKS.values()
    for e in chapter.exercises.values()
]
WRONG = [
    pytest.param(
        CHECKS[slug].exercises[exercise], answer, says, id=f"{exercise}/{name}"
    )
    for slug in SLUGS
    for exercise, answers in wrong_answers(slug).items()
    for name, answer, says in answers
]


def test_every_chapter_with_checks_has_wrong_answers():
    modules = (author.ROOT / "utils" / "checks").glob("[a-z]*.py")
    assert sorted(path.stem for path in modules) == SLUGS


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
def test_ladder_and_number_of_wrong_answers(exercise):
    slug = exercise.chapter.name[3:]
    assert 2 <= len(exercise.hints) <= 4, "a ladder: direction, idea, nearly the code"
    assert exercise.test.__doc__, "its first line says what is to be built"
    assert len(wrong_answers(slug).get(exercise.name, [])) >= 4
    assert f"{exercise.name}-check" in exercise.chapter.cells, "no check cell"


@pytest.mark.parametrize(("exercise", "answer", "says"), WRONG)
def test_wrong_answer_is_rejected_by_name(exercise, answer, says, monkeypatch):
    if says == "still running":
        monkeypatch.setattr(exercise, "seconds", 0.5)
    verdict, report = exercise.judge(answer)
    assert verdict == "wrong", f"accepted as {verdict}: {report}"
    assert says in report, f"the message does not name the slip: {report}"
