"""Exercises that check themselves: ex.NAME.check(answer), .hint(), .solution().

`check` never raises. It says right, not yet, or wrong with the case that failed, and
returns the reader's answer when it is right and the reference otherwise, so that every
chapter runs to its end. The reference is the cell of the solution notebook whose id is
the exercise's name: there is no second copy.
"""

import contextlib
import functools
import json
import linecache
import sys
import traceback

import numpy as np

from utils.exercises import progress, telling
from utils.exercises.cases import Miss
from utils.exercises.guard import Guard
from utils.exercises.slips import NotYet, Slip, attempt, named
from utils.files import ROOT
from utils.limits import time_limit

GOES_ON = "The chapter goes on with the reference answer. Help:"


class NotRight(AssertionError):
    "What `require` raises: one line in a notebook, where a traceback tells nothing."

    def _render_traceback_(self):
        return [f"AssertionError: {self}"]


class Chapter:
    "The exercises of one chapter; `@chapter.exercise(hint, ...)` over a test makes one."

    def __init__(self, name):
        self.name, self.exercises = name, {}

    def exercise(self, *hints, kind="function", seconds=5, mutates=False, fresh=False):
        """Make an exercise of a test `name(answer)` that raises where the answer is wrong.

        kind: "function", "class" or "value"; seconds: the time limit of one check;
        mutates: the function may change its arguments; fresh: what it returns must not
        share memory with them.
        """
        if kind not in ("function", "class", "value"):
            raise ValueError(f"kind is 'function', 'class' or 'value', not {kind!r}")

        def make(test):
            made = Exercise(self, test, hints, kind, seconds, mutates, fresh)
            self.exercises[made.name] = made
            return made

        return make

    @functools.cached_property
    def cells(self):
        "{cell id: (source, tags)} of the solution notebook, in order."
        file = ROOT / "solutions" / f"{self.name}.ipynb"
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        return {
            cell["id"]: ("".join(cell["source"]), cell["metadata"].get("tags", []))
            for cell in cells
            if cell["cell_type"] == "code"
        }

    def source(self, name):
        "The solved cell of an exercise, without its solution marks."
        if name not in self.cells:
            raise KeyError(
                f"solutions/{self.name}.ipynb has no cell with the id {name!r}"
            )
        lines = self.cells[name][0].split("\n")
        marks = ("### BEGIN SOLUTION", "### END SOLUTION")
        return "\n".join(line for line in lines if not line.strip().startswith(marks))

    def reference(self, name):
        "The reference answer, built from the set-up cells and the solved cells before it."
        scope = {"__name__": "__main__"}
        for cell, (source, tags) in self.cells.items():
            if cell in self.exercises:
                _run(self.source(cell), f"<solution of {cell}>", scope)
            elif "setup" in tags:
                _run(source, f"<set-up cell {cell}>", scope)
            if cell == name:
                return scope[name]
        raise KeyError(f"solutions/{self.name}.ipynb has no cell with the id {name!r}")


def _run(source, filename, scope):
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    exec(compile(source, filename, "exec"), scope)


class Exercise:
    "One exercise: what a right answer must satisfy, its ladder of hints, its reference."

    def __init__(self, chapter, test, hints, kind, seconds, mutates, fresh):
        self.chapter, self.test, self.hints, self.kind = chapter, test, hints, kind
        self.name, self.seconds = test.__name__, seconds
        self.mutates, self.fresh = mutates, fresh
        self.hinted = 0
        self.slips, self.failures = [], {}  # wrong programs, and how each one fails
        self.verdict = "not checked"  # the last check's
        self.handed_out = []  # references given to a notebook: not the reader's answers

    def __repr__(self):
        return f"<exercise {self.name}: .check(answer), .hint(), .solution()>"

    @property
    def calls(self):
        "What the buttons press, as text: it works everywhere."
        return f"ex.{self.name}.hint()  ex.{self.name}.solution()"

    def check(self, answer=None):
        "Judge `answer`; return it when it is right and the reference otherwise."
        scope = sys._getframe(1).f_globals
        verdict, report = self.judge(answer)
        self.verdict = verdict
        if verdict != "not yet":
            progress.record(self.chapter.name, self.name, verdict)
        if verdict == "right":
            telling.show("right", report)
            return answer
        telling.show(verdict, report, note=f"{GOES_ON} {self.calls}")
        with contextlib.suppress(Exception):  # the same calls work without buttons
            telling.show_buttons(self)
        return self._hand_out(scope)

    def slip(self, sentence="", told=""):
        "Decorator: a wrong answer, and the sentence that names its slip (slips.py)."

        def keep(answer):
            self.slips.append(Slip(answer, sentence, told))
            return answer

        return keep

    def require(self):
        "Raise NotRight unless the last check found a right answer: nbgrader's test."
        if self.verdict != "right":
            raise NotRight(f"{self.name}: {self.verdict}")

    def judge(self, answer):
        "The verdict ('right', 'not yet' or 'wrong') and the report; never raises."
        failure, printed = attempt(self, answer, self.seconds)
        if failure is None:
            verdict, report = "right", self.name
        elif failure.way == "not yet":
            verdict, report = "not yet", failure.text or self._unwritten(failure.error)
        else:
            verdict = "wrong"
            report = telling.of_failure(self, failure, named(self, failure))
        if printed.text:
            report += f"\nIt printed: {printed}"
        return verdict, report

    def guard(self):
        "What watches an answer to this exercise."
        return Guard(self.name, self.mutates, self.fresh)

    def run(self, answer, guard):
        "Hold an answer against the check; raises what is wrong with it."
        if answer is None or answer is ... or answer is NotImplemented:
            raise NotYet(f"{self.name} is still to be written.")
        if any(answer is given for given in self.handed_out):
            raise NotYet(
                f"{self.name} is bound to the reference answer, which an earlier check "
                "handed out. Write yours, run its cell, then check again."
            )
        if self.kind == "class" and not isinstance(answer, type):
            raise Miss(f"{self.name} should be a class; it is {telling.kind(answer)}.")
        if self.kind == "function":
            if not callable(answer):
                raise Miss(
                    f"{self.name} should be a function; it is {telling.kind(answer)}."
                )
            answer = guard.watch(answer)
        if self.kind == "value" and callable(answer):
            raise Miss(
                f"{self.name} should be a value; it is {telling.kind(answer)}: call it?"
            )
        self.test(answer)
        guard.refuse_views()

    def _unwritten(self, error):
        frames = traceback.extract_tb(error.__traceback__)
        where = frames[-1].name if frames else self.name
        if where in (self.name, "_try", "<module>"):
            return f"{self.name} is still to be written."
        return f"{self.name}: `{where}` is still to be written."

    def _hand_out(self, scope):
        "The reference in the notebook's own names where it works there, else on its own."
        source, answer = self.chapter.source(self.name), None
        here = dict(scope)
        with (
            contextlib.suppress(BaseException),
            contextlib.redirect_stdout(telling.Capped()),
            time_limit(4 * self.seconds),
        ):
            _run(source, f"<solution of {self.name}>", here)
            self.test(here[self.name])
            answer = here[self.name]
        if answer is None:
            with contextlib.redirect_stdout(telling.Capped()):
                answer = self.chapter.reference(self.name)
        answer = _own(answer)
        self.handed_out.append(answer)
        return answer

    def hint(self):
        "Show the next hint of the ladder."
        telling.show("hint", self._next_hint())

    def _next_hint(self):
        progress.record(self.chapter.name, self.name, "hint")
        if self.hinted == len(self.hints):
            return f"That was the last hint. ex.{self.name}.solution() shows an answer."
        self.hinted += 1
        return f"{self.hinted} of {len(self.hints)}: {self.hints[self.hinted - 1]}"

    def solution(self):
        "Show the reference answer."
        progress.record(self.chapter.name, self.name, "solution")
        telling.show("solution", self.name, self.chapter.source(self.name))


def _own(value):
    """`value` as an object of its own, so that it can be told from an equal answer.

    Python keeps one object for a small number or a word; a subclass of the same type
    prints and computes alike and is still another object.
    """
    if isinstance(value, (bool, np.bool_)) or value is None:
        raise TypeError("True, False and None cannot be an exercise's answer: too easy")
    for kind in (int, float, complex, str, bytes, tuple):
        if type(value) is kind:
            return type(f"Reference{kind.__name__.title()}", (kind,), {})(value)
    if isinstance(value, (list, dict, set, np.ndarray, np.generic)):
        return value.copy()
    if hasattr(value, "detach") and hasattr(value, "clone"):
        return value.detach().clone().requires_grad_(value.requires_grad)
    return value
