"""What a function was given: as it needs it, or an error that says what was wrong.

size = given.whole("size", size)                  # 1, 2, 3 ...; not 2.5, True, "8"
X_ND, y_N = given.arrays(X_ND=X_ND, y_N=y_N)      # two axes, one; and the same N
given.tensors(X_ND=X_ND, y_N=y_N)                 # the same for tensors of torch
"""

import math
import numbers

import numpy as np


def is_whole(value):
    "Whether value is a whole number of Python or NumPy; True is none."
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def whole(name, value, least=1, most=math.inf):
    "value as an int: a whole number from `least` to `most`, or ValueError."
    if not is_whole(value) or not least <= value <= most:
        span = f" from {least} to {most}" if most < math.inf else f", at least {least}"
        span = "" if least == -math.inf else span
        raise ValueError(f"{name} is a whole number{span}, not {value!r:.60}")
    return int(value)


def number(name, value, least=0.0, above=None):
    "value: a finite number of at least `least` (or above `above`), or ValueError."
    right = isinstance(value, numbers.Real) and not isinstance(value, bool)
    right = right and -math.inf < value < math.inf
    if not right or not (value >= least if above is None else value > above):
        span = f"of at least {least:g}" if above is None else f"above {above:g}"
        raise ValueError(f"{name} is a number {span}, not {value!r:.60}")
    return value


def array(name, value):
    "value as an array of numbers: a list, an array or a torch tensor, or TypeError."
    try:
        found = np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} has rows of different lengths: no array") from None
    if found.dtype.kind not in "biuf":
        what = kind(value) if found.dtype == object else found.dtype
        raise TypeError(f"{name} holds numbers, not {what}")
    return found


def arrays(**named):
    """The values as arrays whose axes are the letters after the underscore, in order.

    A letter stands for one size wherever it comes: X_ND (4, 3) and y_N (5,) do not fit.
    """
    found = {name: array(name, value) for name, value in named.items()}
    _fit(found)
    return list(found.values()) if len(found) > 1 else next(iter(found.values()))


def tensor(name, value, axes=None):
    """value, if it is a torch tensor, or TypeError; ValueError where it lacks an axis.

    axes: a letter an axis, or None where any shape will do.
    """
    import torch  # the first chapters do without

    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} is a tensor, not {kind(value)}")
    if axes is not None:
        _has_axes(name, value, axes)
    return value


def tensors(**named):
    "As `arrays`, for torch tensors, which are handed back as they are."
    _fit({name: tensor(name, value) for name, value in named.items()})
    return list(named.values()) if len(named) > 1 else next(iter(named.values()))


def labels(name, value, rows, classes):
    "value, if it has a class for each of so many rows, 0 to classes - 1; or an error."
    if len(tensor(name, value)) != rows:
        raise ValueError(f"a label for each row, not {rows} rows, {len(value)} labels")
    if value.is_floating_point() or value.is_complex():
        raise TypeError(f"{name} holds whole numbers, one a row, not {value.dtype}")
    if rows and not 0 <= value.min() <= value.max() < classes:
        span = f"{value.min()} to {value.max()}"
        raise ValueError(f"{name} holds classes from 0 to {classes - 1}, not {span}")
    return value


def _has_axes(name, value, axes):
    if value.ndim != len(axes):
        one = f"({', '.join(axes)}{',' * (len(axes) == 1)})"
        raise ValueError(f"{name} has the shape {one}, not {tuple(value.shape)}")


def _fit(found):
    "ValueError where an array has not the axes of its name, or a letter has two sizes."
    sizes = {}
    for name, value in found.items():
        axes = name.rpartition("_")[2]
        _has_axes(name, value, axes)
        for axis, size in zip(axes, value.shape):
            first, other = sizes.setdefault(axis, (size, name))
            if first != size:
                shapes = f"{tuple(value.shape)} and {tuple(found[other].shape)}"
                raise ValueError(
                    f"{name} has {axis} = {size}, {other} has {axis} = {first}: "
                    f"the shapes {shapes} do not fit"
                )


def generator(rng, draws="normal"):
    "rng, if it can throw dice, or TypeError."
    if not hasattr(rng, draws):
        raise TypeError(f"rng is np.random.default_rng(seed), not {rng!r:.60}")
    return rng


def function(name, value):
    "value, if it can be called, or TypeError."
    if not callable(value):
        raise TypeError(f"{name} is a function, not {value!r:.60}")
    return value


def kind(value):
    "The name of a value's type, as torch.Tensor, numpy.ndarray, list."
    home = type(value).__module__.partition(".")[0]
    name = type(value).__name__
    return f"{home}.{name}" if home in ("torch", "numpy") else name
