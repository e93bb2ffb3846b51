"""What a benchmark is: a function that times ours and theirs in turns and returns ratios."""

import gc
import operator
import statistics
import time
from dataclasses import dataclass

REGISTRY = {}
BARS = {"<=": operator.le, ">=": operator.ge}


@dataclass
class Ratio:
    "What a benchmark returns: a ratio for each pair, and what was divided by what."

    samples: list
    what: str
    note: str = ""

    @property
    def median(self):
        return statistics.median(self.samples)


@dataclass
class Benchmark:
    name: str
    bar: str
    function: object
    peer: bool = False  # somebody else's code: whatever it does, no bar is missed

    def met(self, ratio):
        "Does the median meet the bar? None without a bar."
        if not self.bar:
            return None
        sign, limit = self.bar.split()
        return BARS[sign](ratio, float(limit))


def benchmark(name, bar=""):
    'Register a function that returns a Ratio; bar is "<= 0.6", ">= 25" or nothing.'
    if bar and (bar.split()[0] not in BARS or len(bar.split()) != 2):
        raise ValueError(f"a bar looks like '<= 0.6', not {bar!r}")

    def keep(function):
        if name in REGISTRY:
            raise ValueError(f"two benchmarks are named {name!r}")
        REGISTRY[name] = Benchmark(name, bar, function)
        return function

    return keep


def cpu_seconds(run):
    "CPU seconds of all threads that one call takes, from a heap without old garbage."
    gc.collect()
    start = time.process_time()
    run()
    return time.process_time() - start


def in_turns(ours, theirs, pairs=7, invert=False):
    """Time ours, theirs, theirs, ours, ...: one ratio a pair, ours / theirs.

    invert: theirs / ours, how many times faster ours is. The first pair warms up and is
    not counted.
    """
    ratios = []
    for number in range(pairs + 1):
        order = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        first, second = (cpu_seconds(run) for run in order)
        mine, other = (first, second) if number % 2 == 0 else (second, first)
        ratios.append(other / mine if invert else mine / other)
    return ratios[1:]
