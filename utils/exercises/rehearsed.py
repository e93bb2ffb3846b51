"""Checks of what ranks do: rehearsed in one process, compared to the last digits.

What real processes would only hang on is told at once, as a Miss.
"""

from contextlib import contextmanager

import numpy as np
import torch

from utils.check import as_array
from utils.exercises.cases import Miss, same
from utils.practice import Deadlock, Mismatch, rehearse


def play(case, fn, n=3, rule="", calls=None):
    "rehearse(fn, n); where real processes would hang, a Miss says which rank waits."
    with told(case, rule):
        return rehearse(fn, n, calls=calls)


@contextmanager
def told(case, rule=""):
    "Inside, what a rehearsal raises is a Miss, or says the case in which it was raised."
    try:
        with no_luck():
            yield
    except (Deadlock, Mismatch) as error:
        said = (
            "The ranks hang. A collective call returns when every rank has made it, so "
            f"all ranks make the same calls in the same order. {rule}"
        )
        raise Miss(said.strip(), case, str(error), "every rank returns") from None
    except (Miss, NotImplementedError):
        raise
    except Exception as error:
        error.args = (f"{error} (case: {case})",)
        raise


@contextmanager
def no_luck():
    "Inside, torch.empty holds nan: memory that nobody filled is no zero."
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("warn")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


def exact(case, got, want, rule, more="", atol=1e-12):
    "same(), and then to `atol`: what passes through float32 keeps 7 digits."
    same(case, got, want, rule)
    gap = np.abs(as_array(got).astype(float) - as_array(want)).max(initial=0.0)
    same(f"{case}: largest difference", float(gap), 0.0, atol=atol,
         rule="Right to 7 digits, and float64 has 15: something on the way was float32"
         f"{more}. Keep the dtype.")  # fmt: skip


def by_rank(case, got, want, rule):
    "Compare exactly what all ranks have, one below the other: [rank 0's, rank 1's, ...]."
    for rank, (one, right) in enumerate(zip(got, want)):
        if one is None or np.shape(one) != np.shape(right):
            same(f"{case}, rank {rank}", one, right, rule)
    exact(f"{case}, by rank", _rows(got), _rows(want), rule)


def _rows(values):
    rows = [torch.as_tensor(value, dtype=torch.float64) for value in values]
    return torch.stack([row.flatten() if row.ndim > 1 else row for row in rows])


def normal(*shape, seed=0):
    "Random float64 numbers of their own seed."
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)
