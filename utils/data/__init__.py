"""Data that ships with the course or with its packages; nothing is downloaded."""

import csv
from pathlib import Path

HERE = Path(__file__).parent
TEXT = {"name", "kind", "vendor", "estimate", "source", "note"}


def accelerators(kinds=None) -> list[dict]:
    "Chips by year: peaks in 10^12 op/s, GB, GB/s, W, US dollars; None where unknown."
    with open(HERE / "accelerators.csv", newline="", encoding="utf-8") as file:
        rows = [
            {column: _cell(column, text) for column, text in row.items()}
            for row in csv.DictReader(file)
        ]
    known = {row["kind"] for row in rows}
    kinds = [kinds] if isinstance(kinds, str) else kinds
    wanted = known if kinds is None else set(kinds)
    if not wanted <= known:
        unknown = ", ".join(sorted(map(str, wanted - known)))
        raise ValueError(f"unknown kind: {unknown}; known: {', '.join(sorted(known))}")
    chosen = [row for row in rows if row["kind"] in wanted]
    return sorted(chosen, key=lambda row: (row["year"], row["name"]))


def _cell(column, text):
    "One CSV cell as text, int (year), float or None."
    if not text:
        return None
    return text if column in TEXT else int(text) if column == "year" else float(text)


def digits(test=360, seed=0):
    """Handwritten digits (scikit-learn's, 8x8 pixels in [0, 1]), shuffled and split.

    -> X_train (1797 - test, 64), y_train (1797 - test,), X_test (test, 64), y_test.
    """
    import numpy as np
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    if not 0 < test < len(y):
        raise ValueError(f"test is between 1 and {len(y) - 1} images, not {test}")
    order = np.random.default_rng(seed).permutation(len(y))
    X, y = X[order] / 16, y[order]
    return X[:-test], y[:-test], X[-test:], y[-test:]


def moons(count=100, noise=0.1, seed=0):
    "Two interleaved half circles: points (count, 2), labels 0 or 1 (count,)."
    from sklearn.datasets import make_moons

    return make_moons(count, noise=noise, random_state=seed)
