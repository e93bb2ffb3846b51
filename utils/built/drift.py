"""Does what comes in still look like what the model was tried on? Built for chapter 27."""

import math

import numpy as np

from utils import given


def ks(a, b):
    """The largest gap between two distributions' shares below a value: 0 .. 1.

    a, b: numbers, not of the same length. The two-sample Kolmogorov-Smirnov statistic.
    ValueError where one is empty or holds nan.
    """
    a_N, b_M = np.sort(given.arrays(a_N=a)), np.sort(given.arrays(b_M=b))
    for name, x in (("a", a_N), ("b", b_M)):
        if not len(x) or np.isnan(x).any():
            raise ValueError(f"{name} holds at least one number, and no nan")
    at = np.concatenate([a_N, b_M])
    share_a = np.searchsorted(a_N, at, side="right") / len(a_N)
    share_b = np.searchsorted(b_M, at, side="right") / len(b_M)
    return float(np.abs(share_a - share_b).max())


def ks_limit(n, m, alpha=0.01):
    "The gap that two samples of one distribution exceed with probability alpha, nearly."
    given.whole("n", n)
    given.whole("m", m)
    if not 0 < given.number("alpha", alpha) < 1:
        raise ValueError(f"alpha is a probability between 0 and 1, not {alpha!r}")
    return math.sqrt(-math.log(alpha / 2) / 2 * (n + m) / (n * m))
