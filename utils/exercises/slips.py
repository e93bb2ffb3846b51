"""Slips: small wrong programs that a check must reject, and that name a reader's miss.

    @ex.mse.slip("This is the sum of the squares: divide by the number of rows.")
    def sum_of_squares(y_hat_N, y_N):
        return ((y_hat_N - y_N) ** 2).sum()

An answer that fails in the same case, in the same way, with the same value, made this
slip: its sentence is told. `slip(told="...")` holds a wrong answer that the machinery
names by itself (it changes its input, it never ends) and the words that it must say.
"""

import re
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import numpy as np

from utils.exercises.cases import Miss, agree, as_numbers
from utils.exercises.telling import Capped, is_stub, text_of
from utils.limits import TimeLimit, time_limit


class NotYet(NotImplementedError):
    "There is no answer to judge."


@dataclass
class Slip:
    answer: object
    sentence: str = ""
    told: str = ""  # what the machinery says of it, where it needs no sentence

    @property
    def name(self):
        "The same in every run: an answer's name, or a value without its address."
        own = getattr(self.answer, "__name__", None) or repr(self.answer)
        return re.sub(r" at 0x[0-9a-f]+", "", own)[:60]


@dataclass
class Failure:
    "How an answer fails: in which way and case, with what value, in which words."

    way: str  # 'not yet', 'miss', 'slow', 'interrupted', or the exception's class
    case: object = ""
    got: object = None
    text: str = ""
    error: BaseException | None = None
    call: str = ""  # the answer's last call, where the check says no case


def attempt(exercise, answer, seconds, patience=6):
    "Run an exercise's check on an answer: -> (Failure or None, what it printed)."
    printed, guard, limit = Capped(), exercise.guard(), time_limit(seconds, patience)
    try:
        with redirect_stdout(printed), redirect_stderr(printed), limit:
            exercise.run(answer, guard)
        return None, printed
    except NotYet as error:
        failure = Failure("not yet", text=text_of(error))
    except Miss as miss:
        failure = Failure("miss", miss.case, miss.got, text_of(miss), miss)
    except TimeLimit as error:
        failure = Failure("slow", (limit.cpu, limit.wall), error=error)
    except KeyboardInterrupt as error:
        failure = Failure("interrupted", error=error)
    except BaseException as error:
        way = "not yet" if is_stub(error) else type(error).__name__
        words = _anonymous(text_of(error), answer, exercise.name)
        failure = Failure(way, guard.shapes(), None, words, error, guard.told())
    return failure, printed


def _anonymous(text, answer, name):
    "An error's words without what differs between two programs that err alike."
    own = getattr(answer, "__name__", None)
    if isinstance(own, str) and own.isidentifier():
        text = re.sub(rf"(?:[\w.<>]+\.)?\b{re.escape(own)}\b", name, text)
    return re.sub(r"\b0x[0-9a-f]+\b", "0x", text)


def alike(a, b):
    "Whether two answers fail in the same case, in the same way, with the same value."
    if a is None or b is None or (a.way, a.case) != (b.way, b.case):
        return False
    if a.way != "miss" or (a.got is None and b.got is None):
        return a.text == b.text and a.way not in ("slow", "interrupted")
    return agree(a.got, b.got, atol=1e-9 * _largest(b.got))


def _largest(value):
    "The size of the largest finite number in a value; 1 where there is none."
    numbers = as_numbers(value)
    if numbers is None or not np.isfinite(numbers).any():
        return 1.0
    return np.abs(numbers[np.isfinite(numbers)]).max()


def named(exercise, failure, budget=1.0):
    """The sentence of the slip that fails as `failure` does; '' where none does.

    budget: CPU seconds for slips that were not run before, none of which gets more than
    half of them, and six times as many of the wall's clock, for a busy machine; how
    each fails is kept.
    """
    module = f"utils.slips.{exercise.chapter.name[3:]}"
    if find_spec(module) is not None:
        import_module(module)
    most = min(exercise.seconds, budget / 2)
    cpu, wall = time.process_time() + budget, time.monotonic() + 6 * budget
    for slip in exercise.slips:
        if not slip.sentence:
            continue
        left = time.process_time() < cpu and time.monotonic() < wall
        if id(slip) not in exercise.failures and left:
            exercise.failures[id(slip)] = attempt(exercise, slip.answer, most)[0]
        if alike(failure, exercise.failures.get(id(slip))):
            return slip.sentence
    return ""
