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
from pathlib import Path

import numpy as np

from utils import progress, telling
from utils.check import as_array
from utils.limits import TimeLimit, time_limit

ROOT = Path(__file__).resolve().parents[1]


class Miss(AssertionError):
    "A wrong answer: the slip that usually causes it, the case, what came out, what should."

    def __init__(self, slip, case="", got=None, want=None):
        super().__init__(slip)
        self.case, self.got, self.want = case, got, want


def same(case, got, want, slips=None, slip="", atol=1e-9, rtol=1e-6):
    """Assert that `got` equals `want` in shape and value.

    `slips` maps the sentence that names a slip to the value which that slip gives: the
    first that fits is told. `slip` is told when none fits. Raises Miss.
    """
    if got is None:
        raise Miss(
            "The function returns nothing: is a `return` missing?", case, got, want
        )
    for sentence, value in (slips or {}).items():
        if not _agree(value, want, atol, rtol) and _agree(got, value, atol, rtol):
            raise Miss(sentence, case, got, want)
    if _agree(got, want, atol, rtol):
        return
    got_array, want_array = _numbers(got), _numbers(want)
    if got_array is not None and want_array is not None:
        if got_array.shape != want_array.shape:
            shapes = f"The shape is {got_array.shape}, expected {want_array.shape}."
            raise Miss(f"{shapes} {slip}".strip(), case, got, want)
        if not np.isfinite(got_array).all() and np.isfinite(want_array).all():
            slip = f"It holds nan or inf. {slip}".strip()
    raise Miss(slip or "The values differ.", case, got, want)


def _numbers(x):
    with contextlib.suppress(Exception):
        array = as_array(x)
        if array.dtype.kind in "biufc":
            return array
    return None


def _agree(a, b, atol, rtol):
    x, y = _numbers(a), _numbers(b)
    if x is None or y is None:
        with contextlib.suppress(Exception):  # an == of the reader's own may raise
            return x is None and y is None and type(a) is type(b) and bool(a == b)
        return False
    return x.shape == y.shape and np.allclose(
        x, y, atol=atol, rtol=rtol, equal_nan=True
    )


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
        self.verdict = "not checked"  # the last check's
        self.handed_out = []  # references given to a notebook: not the reader's answers

    def __repr__(self):
        return f"<exercise {self.name}: .check(answer), .hint(), .solution()>"

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
        telling.show(
            verdict, report, note="The chapter goes on with the reference answer."
        )
        with contextlib.suppress(Exception):  # the same calls work without buttons
            telling.show_buttons(self)
        return self._hand_out(scope)

    def require(self):
        "Raise NotRight unless the last check found a right answer: nbgrader's test."
        if self.verdict != "right":
            raise NotRight(f"{self.name}: {self.verdict}")

    def judge(self, answer):
        "The verdict ('right', 'not yet' or 'wrong') and the report; never raises."
        printed = telling.Capped()
        try:
            with (
                contextlib.redirect_stdout(printed),
                contextlib.redirect_stderr(printed),
                time_limit(self.seconds),
            ):
                self._try(answer)
            verdict, report = "right", f"{self.name}"
        except NotImplementedError as error:
            verdict, report = (
                "not yet",
                telling.text_of(error) or self._unwritten(error),
            )
        except Miss as miss:
            verdict, report = "wrong", telling.of_miss(miss)
        except TimeLimit:
            report = (
                f"{self.name} was still running after {self.seconds:g} s and was stopped. "
                "Does a loop never end, or visit one row at a time what one array "
                "operation could do?"
            )
            verdict = "wrong"
        except AssertionError as error:
            verdict, report = "wrong", telling.text_of(error) or "A check failed."
        except KeyboardInterrupt:
            verdict, report = (
                "wrong",
                f"{self.name} was interrupted before it had an answer.",
            )
        except BaseException as error:
            verdict, report = (
                "wrong",
                telling.of_error(error, self.test.__code__.co_filename),
            )
        if printed.text:
            report += f"\nIt printed: {printed}"
        return verdict, report

    def _try(self, answer):
        if answer is None or answer is ... or answer is NotImplemented:
            raise NotImplementedError(f"{self.name} is still to be written.")
        if any(answer is given for given in self.handed_out):
            raise NotImplementedError(
                f"{self.name} is bound to the reference answer, which an earlier check "
                "handed out. Write yours, run its cell, then check again."
            )
        views = []
        if self.kind == "class" and not isinstance(answer, type):
            raise Miss(f"{self.name} should be a class; it is {telling.kind(answer)}.")
        if self.kind == "function":
            if not callable(answer):
                raise Miss(
                    f"{self.name} should be a function; it is {telling.kind(answer)}."
                )
            answer = self._watched(answer, views)
        if self.kind == "value" and callable(answer):
            raise Miss(
                f"{self.name} should be a value; it is {telling.kind(answer)}: call it?"
            )
        self.test(answer)
        if any(views):  # told last: a wrong value is the larger slip
            raise Miss(
                f"{self.name} returns a view: what it returns shares memory with its "
                "input, so changing one changes the other. Return a copy."
            )

    def _watched(self, function, views):
        "`function`, guarded against changing its arguments; notes who returns a view."

        @functools.wraps(function, updated=())
        def watched(*args, **options):
            before = None if self.mutates else _state((args, options))
            kept = [] if self.mutates else _arrays((args, options))
            kept = [(array, array.copy()) for array in kept]
            try:
                result = function(*args, **options)
                changed = before is not None and _differ(
                    before, _state((args, options))
                )
            finally:  # the check's own data must outlive a wrong answer
                for array, copy in kept:
                    if _differ(array, copy):
                        array[...] = copy
            if changed:
                raise Miss(
                    f"{self.name} changes its input in place. The caller still needs the "
                    "old values: make a new array (x = x - 1, not x -= 1)."
                )
            given = _arrays((args, options)) if self.fresh else []
            pairs = ((ours, theirs) for ours in _arrays(result) for theirs in given)
            views.append(any(np.shares_memory(*pair) for pair in pairs))
            return result

        return watched

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


def _arrays(value):
    "Every array in nested tuples, lists and dicts, as a NumPy array."
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        return [a for item in value for a in _arrays(item)]
    if isinstance(value, np.ndarray) or hasattr(value, "detach"):
        with contextlib.suppress(Exception):
            return [as_array(value)]
    return []


def _state(value):
    "What a change in place would change: members of lists and dicts, copies of arrays."
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, (tuple, list)):
        return [(member, _state(member)) for member in value]
    return [array.copy() for array in _arrays(value)]


def _differ(before, now):
    "Whether two states differ, in the order or number of members or inside an array."
    if isinstance(before, tuple):
        (old, inside), (new, here) = before, now
        plain = type(old) is type(new) in (int, float, str)
        equal = old is new or (plain and old == new)
        return not equal or _differ(inside, here)
    if isinstance(before, list):
        return len(before) != len(now) or any(map(_differ, before, now))
    a, b = before, now
    return a.shape != b.shape or a.dtype != b.dtype or a.tobytes() != b.tobytes()
