"""What a recording says, in a few lines for whoever recorded it."""

import statistics
from collections import Counter

from utils.bench import recordings


def lines(data):
    "Rows a kind and its seconds, the best of each race, and all that was left out."
    counted = Counter(row["what"] for row in data["rows"])
    took = data.get("took", {})
    told = [
        f"{what}: {n} rows, {took.get(what, 0):.0f} s" for what, n in counted.items()
    ]
    told += [*_streams(data), *_matmul(data), *_races(data), *_rungs(data)]
    seen = Counter((row["what"], row["why"]) for row in data.get("left_out", ()))
    told += [f"left out: {what}, {n} times: {why}" for (what, why), n in seen.items()]
    return told


def _tera(row):
    return recordings.rate(row) / 1e12


def _streams(data):
    best = {}
    for row in recordings.find(data, "stream"):
        best[row["way"]] = recordings.rate(row) / 1e9  # of the largest, which is last
    if best:
        yield "stream: " + ", ".join(f"{k} {v:,.0f}" for k, v in best.items()) + " GB/s"


def _matmul(data):
    best = {}
    for row in recordings.find(data, "matmul"):
        best[row["format"]] = max(best.get(row["format"], 0), _tera(row))
    if best:
        yield "matmul, best: " + ", ".join(f"{k} {v:.3g}" for k, v in best.items()) + " TFLOP/s"  # fmt: skip


def _races(data):
    "Our best time over the library's, for every shape that both ran."
    shapes = {}
    for row in recordings.find(data, "kernel"):
        names = ("kernel", "way", "size", "shape", "T", "D", "causal")
        key = tuple(f"{k} {row[k]}" for k in names if row.get(k) is not None)
        median = statistics.median(row["seconds"])
        by = shapes.setdefault(key, {})
        by[row["by"]] = min(by.get(row["by"], median), median)
    for key, by in shapes.items():
        told = ", ".join(f"{name} {1e6 * t:.4g}" for name, t in by.items())
        yield f"{', '.join(key)}: {told} µs"


def _rungs(data):
    for row in recordings.find(data, "rung"):
        held = f", {row['peak_bytes'] / 2**30:.1f} GiB" if "peak_bytes" in row else ""
        yield (
            f"rung {row['rung']}: {recordings.rate(row):,.0f} tokens/s{held}, started in "
            f"{row['seconds_to_start']} s"
        )
