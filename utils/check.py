"""Checks inside a chapter: they say what was compared and what a miss usually means."""

import re
import textwrap
from contextlib import contextmanager, suppress

import numpy as np

from utils import given

# A notebook breaks a longer line inside a word.
WIDTH, WHOLE = 88, {"break_long_words": False, "break_on_hyphens": False}


def as_array(x):
    """Any number, sequence, NumPy array or torch tensor -> NumPy array.

    ValueError for rows of different lengths.
    """
    if isinstance(x, (list, tuple)):
        x = [as_array(item) if _holds_values(item) else item for item in x]
    if isinstance(getattr(x, "data", None), np.ndarray):  # the course's own Tensor
        x = x.data
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        with suppress(TypeError):
            return np.asarray(x)
        x = x.float()  # bfloat16, which NumPy does not have
    try:
        return np.asarray(x)
    except ValueError:
        raise ValueError("rows of different lengths are no array") from None


def _holds_values(item):
    "Whether something is a tensor, torch's or the course's own."
    return hasattr(item, "detach") or isinstance(
        getattr(item, "data", None), np.ndarray
    )


def close(name, ours, theirs, hint="", atol=1e-6):
    """Assert that two arrays agree, shape first, then every value within `atol`.

    name is what is compared, hint the slip that a miss usually means: two texts.
    """
    for argument, text in (("name", name), ("hint", hint)):
        if not isinstance(text, str):
            raise TypeError(
                f"close(name, ours, theirs, hint, atol=...): {argument} is a text, not "
                f"{_short(text):.60}"
            )
    given.number("atol", atol)
    ours, theirs = as_array(ours), as_array(theirs)
    if theirs.dtype.kind not in "biufc":
        raise TypeError(f"{name}: what it is compared with holds no numbers")
    if ours.dtype.kind not in "biufc":
        raise AssertionError(
            f"{name}: no numbers but {_short(ours):.60}; does it return them? "
            f"{hint}".strip()
        )
    if ours.shape != theirs.shape:
        raise AssertionError(
            f"{name}: shape {ours.shape}, expected {theirs.shape}. {hint}".strip()
        )
    if not np.isfinite(ours).all():
        raise AssertionError(f"{name}: holds nan or inf. {hint}".strip())
    wide = np.result_type(ours, theirs, float)  # whole numbers without sign wrap round
    gap = np.abs(np.subtract(ours, theirs, dtype=wide)).max() if ours.size else 0.0
    if not gap <= atol:
        raise AssertionError(
            f"{name}: largest difference {gap:.2g}, allowed {atol:.0e}. {hint}".strip()
        )
    print(f"ok  {name}  shape {ours.shape}, every value within {atol:.0e}")


@contextmanager
def expect_failure(why, *errors):
    """Run a wrong idea on purpose; print the first line of the error that catches it.

    why: what is wrong with it, a text; errors: the kinds that may catch it.
    """
    if not isinstance(why, str):
        raise TypeError("expect_failure(why, *errors): why is a text, it comes first")
    if not all(isinstance(e, type) and issubclass(e, BaseException) for e in errors):
        raise TypeError("expect_failure(why, *errors): errors are kinds, as ValueError")
    errors = errors or (ArithmeticError, AssertionError, RuntimeError, ValueError)
    try:
        yield
    except errors as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        print(textwrap.fill(f"caught, as hoped ({why}): {first}", WIDTH, **WHOLE))
    else:
        raise AssertionError(f"this was meant to fail: {why}")


def reveal(guess, truth, why, unit=""):
    """Print a prediction beside the truth, and how close it was; keep that for `guesses`.

    No guess, or a strange one, never stops a run.
    """
    unit = f" {unit}" if unit else ""
    said = "no guess yet"
    if guess is not None and guess is not ...:
        said = f"you said {_short(guess)[:80]}" + (unit if _is_number(guess) else "")
        close, near = closeness(guess, truth)
        said += close and f", {close}"
        _near[str(why)] = near
    print(f"{said}; it is {_short(truth)}{unit}. {why}")


_near = {}  # what `reveal` was told as the reason: whether the guess was near


def guesses():
    "Print how many of the guesses since the kernel's start were within a factor of two."
    made, near = len(_near), sum(map(bool, _near.values()))
    said = f"{near} of {made} guesses were right, or within a factor of two."
    print(said if made else "No guess was made since this notebook was started.")


def closeness(guess, truth):
    """How close a guess came: -> (in words, whether right or within a factor of two).

    Numbers, also as text, by their ratio; other texts by their words; all else is equal
    or not. ("", False) where there is nothing to say.
    """
    try:
        if isinstance(guess, bool) or isinstance(truth, bool):
            near = bool(guess == truth)
        elif (pair := (_number(guess), _number(truth))) and None not in pair:
            return _distance(*pair)
        elif isinstance(guess, str) or isinstance(truth, str):
            near = bool(_words(guess)) and _words(guess) <= _words(truth)
        else:
            near = bool(np.array_equal(as_array(guess), as_array(truth)))
    except Exception:
        near = False
    return "right" if near else "", near


def _number(x):
    "A number, or a text or an array that holds just one, as a float; else None."
    with suppress(Exception):
        if isinstance(x, str):
            return float(x.replace(",", ""))
        if as_array(x).size == 1:
            return float(as_array(x).item())
    return None


def _words(x):
    return set(re.findall(r"[\w.]+", str(x).lower())) - {"a", "an", "of", "the"}


def _distance(guess, truth):
    if guess == truth or _short(guess) == _short(truth):
        return "right", True
    if not np.isfinite([guess, truth]).all() or 0 in (guess, truth):
        return "", False
    if (guess < 0) != (truth < 0):
        return "on the other side of zero", False
    ratio = abs(guess / truth)
    if abs(ratio - 1) <= 0.1:
        return "within 10 %", True
    factor, side = (ratio, "large") if ratio > 1 else (1 / ratio, "small")
    told = f"{factor:.2g}" if factor < 10 else f"{min(factor, 1e9):,.0f}"
    return f"too {side} by a factor of {told}", factor <= 2


def _is_number(x):
    return isinstance(x, (int, float, np.number))


def _short(x):
    try:
        if isinstance(x, (int, np.integer)) and abs(x) < 10**15:
            return f"{x:,}"
        with np.printoptions(legacy="1.25"):  # 2.5 in a list, not np.float64(2.5)
            return f"{x:.3g}" if _is_number(x) else str(x)
    except Exception:  # a whole number too large for a float, a text that raises
        return f"a {type(x).__name__} that cannot be shown"
