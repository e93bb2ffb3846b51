"""What chapter 03 builds to catch a wrong rule: backward beside central differences."""

import numpy as np

from utils import given
from utils.built.autograd import Tensor, no_grad


def gradcheck(f, *tensors, h=1e-5, tol=1e-6):
    """Compare backward with central differences; -> the largest gap.

    f(*tensors) is a Tensor of any shape; the tensors hold float64. Raises AssertionError
    where a gap is above `tol`, or above `tol` times the slope where the slope is above 1.
    """
    given.function("f", f)
    given.number("h", h, above=0)
    for number, t in enumerate(tensors):
        if not isinstance(t, Tensor):
            raise TypeError(
                f"tensor {number} is a {type(t).__name__}: gradcheck(f, *tensors) "
                "takes Tensor(x, requires_grad=True)"
            )
        if t.data.dtype != np.float64:
            raise TypeError(
                f"tensor {number} is {t.data.dtype}: a nudge of {h:g} drowns in its "
                "rounding. Check in float64"
            )
        t.zero_grad()
    if not any(t.requires_grad for t in tensors):
        raise ValueError("nothing to check: no tensor has requires_grad=True")
    out = f(*tensors)
    if not isinstance(out, Tensor):
        raise TypeError(f"f returns a Tensor, not a {type(out).__name__}")
    shape = out.shape
    weights = np.random.default_rng(0).uniform(0.5, 1.5, shape) if shape else 1.0

    def height():
        with no_grad():
            return float((f(*tensors).data * weights).sum())

    (f(*tensors) * weights).sum().backward()
    worst = 0.0
    for number, t in enumerate(tensors):
        if not t.requires_grad:
            continue
        ours = np.zeros(t.shape) if t.grad is None else t.grad
        for index in np.ndindex(t.shape):
            before = t.data[index]
            t.data[index] = before + h
            above = height()
            t.data[index] = before - h
            below = height()
            t.data[index] = before
            slope = (above - below) / (2 * h)
            gap = abs(ours[index] - slope)
            worst = max(worst, gap)
            if not gap <= tol * max(1.0, abs(slope)):
                raise AssertionError(
                    f"tensor {number} at {index}: backward says {ours[index]:.6g}, a nudge "
                    f"says {slope:.6g}"
                )
    return worst
