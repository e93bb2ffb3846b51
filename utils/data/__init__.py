"""Data that ships with the course or with its packages; nothing is downloaded."""

import csv
from pathlib import Path

from utils import given

HERE = Path(__file__).parent
DIGITS = 1797  # images
TEXT = {"name", "kind", "vendor", "estimate", "source", "note"}


def accelerators(kinds=None) -> list[dict]:
    """Chips by year: peaks in 10^12 op/s, GB, GB/s, W, US dollars; None where unknown.

    kinds: one of CPU, GPU, TPU, FPGA, ASIC or a list of them; ValueError for any other.
    """
    with open(HERE / "accelerators.csv", newline="", encoding="utf-8") as file:
        rows = [
            {column: _cell(column, text) for column, text in row.items()}
            for row in csv.DictReader(file)
        ]
    known = {row["kind"] for row in rows}
    one = isinstance(kinds, str) or not hasattr(kinds, "__iter__")
    wanted = known if kinds is None else [kinds] if one else list(kinds)
    if unknown := [kind for kind in wanted if str(kind) not in known]:
        unknown = ", ".join(sorted(map(str, unknown)))
        raise ValueError(f"unknown kind: {unknown}; known: {', '.join(sorted(known))}")
    chosen = [row for row in rows if row["kind"] in wanted]
    return sorted(chosen, key=lambda row: (row["year"], row["name"]))


def _cell(column, text):
    "One CSV cell as text, int (year), float or None."
    if not text:
        return None
    return text if column in TEXT else int(text) if column == "year" else float(text)


def digits(test=360, seed=0):
    """Handwritten digits (8x8 pixels in [0, 1]), shuffled and split.

    scikit-learn's, from the test set of Alpaydin and Kaynak (1998).

    -> X_train (1797 - test, 64), y_train (1797 - test,), X_test (test, 64), y_test.
    """
    test, seed = given.whole("test", test, 1, DIGITS - 1), given.whole("seed", seed, 0)
    import numpy as np
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    X, y = X[order] / 16, y[order]
    return X[:-test], y[:-test], X[-test:], y[-test:]


def moons(count=100, noise=0.1, seed=0):
    "Two interleaved half circles: points (count, 2), labels 0 or 1 (count,)."
    count, noise = given.whole("count", count), given.number("noise", noise)
    from sklearn.datasets import make_moons

    return make_moons(count, noise=noise, random_state=seed)
