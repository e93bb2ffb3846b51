"""An answer under watch: its last call, changes to its arguments, views of them."""

import contextlib
import functools
import inspect

import numpy as np

from utils.check import as_array
from utils.exercises.cases import Miss


class Guard:
    "Watches one answer while a check calls it; raises Miss where it spoils its arguments."

    def __init__(self, name, mutates=False, fresh=False):
        self.name, self.mutates, self.fresh = name, mutates, fresh
        self.call = None  # (function, args, options) of the last one
        self.views = False  # has a result shared memory with an argument?

    def watch(self, function):
        "`function`, watched."

        @functools.wraps(function, updated=())
        def watched(*args, **options):
            self.call = function, args, options
            before = None if self.mutates else _state((args, options))
            kept = [] if self.mutates else arrays((args, options))
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
            if self.fresh:
                given = arrays((args, options))
                pairs = ((ours, theirs) for ours in arrays(result) for theirs in given)
                self.views |= any(np.shares_memory(*pair) for pair in pairs)
            return result

        return watched

    def refuse_views(self):
        "Told last: a wrong value is the larger slip."
        if self.views:
            raise Miss(
                f"{self.name} returns a view: what it returns shares memory with its "
                "input, so changing one changes the other. Return a copy."
            )

    def shapes(self):
        "What the last call was given, without the answer's own names for it."
        if self.call is None:
            return None
        _, args, options = self.call
        named = {name: _sort(value) for name, value in options.items()}
        return [_sort(value) for value in args], named

    def told(self):
        "The last call in words: mse(y_hat_N (3,), y_N (3,)); '' where there was none."
        if self.call is None:
            return ""
        function, args, options = self.call
        try:
            names = list(inspect.signature(function).bind(*args, **options).arguments)
        except (TypeError, ValueError):
            names = []
        names += [""] * len(args)
        words = [f"{n} {_sort(v)}".strip() for n, v in zip(names, args)]
        words += [f"{name}={_sort(value)}" for name, value in options.items()]
        return f"{self.name}({', '.join(words)})"


def _sort(value):
    "An argument in a word or two: an array by its shape, a plain number by itself."
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and not isinstance(value, np.generic):
        return str(tuple(shape))
    if isinstance(value, (bool, int, float, str, np.generic)) or value is None:
        text = f"{value:.6g}" if isinstance(value, float) else repr(value)
        return text if len(text) <= 24 else f"{text[:20]} ..."
    if isinstance(value, (list, tuple, dict, set)):
        plain = not isinstance(value, dict) and all(
            type(v) in (int, str) for v in value
        )
        if plain and len(text := repr(value)) <= 24:
            return text
        return f"{type(value).__name__} of {len(value)}"
    return getattr(value, "__name__", type(value).__name__)


def arrays(value):
    "Every array in nested tuples, lists and dicts, as a NumPy array."
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        return [a for item in value for a in arrays(item)]
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
    return [array.copy() for array in arrays(value)]


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
