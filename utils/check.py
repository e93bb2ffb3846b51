"""Checks inside a chapter: they say what was compared and what a miss usually means."""

from contextlib import contextmanager

import numpy as np


def as_array(x):
    "Any number, sequence, NumPy array or torch tensor -> NumPy array (a copy if needed)."
    if hasattr(x, "detach"):
        x = x.detach().cpu()
    return np.asarray(x)


def close(name, ours, theirs, hint="", atol=1e-6):
    "Assert that two arrays agree, shape first, then every value within `atol`."
    ours, theirs = as_array(ours), as_array(theirs)
    if ours.shape != theirs.shape:
        raise AssertionError(
            f"{name}: shape {ours.shape}, expected {theirs.shape}. {hint}".strip()
        )
    if not np.isfinite(ours).all():
        raise AssertionError(f"{name}: holds nan or inf. {hint}".strip())
    gap = np.abs(ours - theirs).max() if ours.size else 0.0
    if not gap <= atol:
        raise AssertionError(
            f"{name}: largest difference {gap:.2g}, allowed {atol:.0e}. {hint}".strip()
        )
    print(f"ok  {name}  shape {ours.shape}, every value within {atol:.0e}")


@contextmanager
def expect_failure(why, *errors):
    "Run a wrong idea on purpose; print the first line of the error that catches it."
    errors = errors or (ArithmeticError, AssertionError, RuntimeError, ValueError)
    try:
        yield
    except errors as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        print(f"caught, as hoped ({why}): {first}")
    else:
        raise AssertionError(f"this was meant to fail: {why}")


def reveal(guess, truth, why, unit=""):
    "Print a prediction beside the truth. No guess, or a strange one, never stops a run."
    unit = f" {unit}" if unit else ""
    truth = f"{truth:.3g}" if isinstance(truth, (int, float, np.number)) else str(truth)
    if guess is None or guess is ...:
        said = "no guess yet"
    else:
        number = isinstance(guess, (int, float, np.number))
        said = f"you said {guess:.3g}{unit}" if number else f"you said {str(guess)[:80]}"
    print(f"{said}; it is {truth}{unit}. {why}")
