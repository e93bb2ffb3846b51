"""What a check is written in: a list of cases, `same(case, got, want, rule)`."""

import contextlib

import numpy as np

from utils.check import as_array


class Miss(AssertionError):
    "A wrong answer: the rule it breaks, the case, what came out, what should."

    def __init__(self, rule, case="", got=None, want=None):
        super().__init__(rule)
        self.case, self.got, self.want = case, got, want


def same(case, got, want, rule="", atol=1e-9, rtol=1e-6):
    """Assert that `got` equals `want` in shape and value; Miss where it does not.

    rule: the sentence that this case tests, told where no slip is known that fails so.
    """
    if got is None:
        raise Miss(
            "The function returns nothing: is a `return` missing?", case, got, want
        )
    if agree(got, want, atol, rtol):
        return
    got_array, want_array = as_numbers(got), as_numbers(want)
    if got_array is not None and want_array is not None:
        if got_array.shape != want_array.shape:
            shapes = f"The shape is {got_array.shape}, expected {want_array.shape}."
            raise Miss(f"{shapes} {rule}".strip(), case, got, want)
        if not np.isfinite(got_array).all() and np.isfinite(want_array).all():
            rule = f"It holds nan or inf. {rule}".strip()
    raise Miss(rule or "The values differ.", case, got, want)


def agree(a, b, atol=1e-9, rtol=1e-6):
    "Whether two answers are equal: arrays in shape and value, anything else by type and ==."
    x, y = as_numbers(a), as_numbers(b)
    if x is None or y is None:
        with contextlib.suppress(Exception):  # an == of the reader's own may raise
            return x is None and y is None and type(a) is type(b) and bool(a == b)
        return False
    return x.shape == y.shape and np.allclose(
        x, y, atol=atol, rtol=rtol, equal_nan=True
    )


def as_numbers(x):
    "x as an array of numbers, or None."
    with contextlib.suppress(Exception):
        array = as_array(x)
        if array.dtype.kind in "biufc":
            return array
    return None
