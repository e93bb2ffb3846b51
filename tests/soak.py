"""Run the notebooks many times on a busy machine, to find what fails only sometimes.

    .venv/bin/python -m tests.soak --rounds 10 --threads 1 2 --load 1 [NAMES]

Each round runs the solutions (or --stage chapters) under nbval as the tests do, beside
--load processes that keep a core busy. Printed: the rounds, what failed in them with
its message, and for each notebook the range of its seconds and its highest memory.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from tests import stages
from utils.course import author, running

COST = re.compile(r"^cost (\S+)\s+([\d.]+) s\s+(\d+) MB", re.M)


@contextmanager
def load(processes):
    "Keep so many cores busy for as long as the block runs."
    busy = [sys.executable, "-c", "while True: sum(range(10**6))"]
    running = [subprocess.Popen(busy) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def one_round(stage, threads, notebooks, log):
    "One pass over the notebooks -> its exit code and {notebook: (seconds, MB)}."
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, **running.environment(folder)}
        environ["OMP_NUM_THREADS"] = str(threads)
        command = stages.command(stage, map(str, notebooks))
        done = subprocess.run(
            command, cwd=author.ROOT, env=environ, text=True, encoding="utf-8",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    if done.returncode:
        log.write(done.stdout)
        log.flush()
    found = {name: (float(s), int(mb)) for name, s, mb in COST.findall(done.stdout)}
    return done.returncode, found


def main():
    parser = argparse.ArgumentParser(
        "tests.soak", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("names", nargs="*")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--load", type=int, default=1)
    parser.add_argument("--stage", default="solutions", choices=stages.NBVAL_STAGES)
    parser.add_argument("--log", default="soak.log", help="what a failed round printed")
    options = parser.parse_intermixed_args()
    notebooks = [
        author.ROOT / options.stage / p.name for p in author.named(options.names)
    ]
    costs, failed = {}, 0
    with load(options.load), Path(options.log).open("w", encoding="utf-8") as log:
        for number in range(options.rounds):
            for threads in options.threads:
                began = time.perf_counter()
                code, found = one_round(options.stage, threads, notebooks, log)
                failed += bool(code)
                print(
                    f"round {number + 1}, threads {threads}: exit code {code}, "
                    f"{time.perf_counter() - began:.0f} s",
                    flush=True,
                )
                for name, cost in found.items():
                    costs.setdefault(name, []).append(cost)
    print()
    for name, rows in sorted(costs.items()):
        seconds, memory = zip(*rows)
        print(
            f"{name:<26} {min(seconds):5.1f} to {max(seconds):5.1f} s "
            f"(median {statistics.median(seconds):.1f}), at most {max(memory)} MB"
        )
    runs = options.rounds * len(options.threads)
    print(
        f"\n{runs} runs, {failed} failed" + (f": see {options.log}" if failed else "")
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
