"""Every reference is judged right while other processes hold every core: about a minute.

Not part of the test command: python3 start.py test tests/busy_machine.py (monthly in CI).
"""

import os
import subprocess
import sys
from contextlib import contextmanager

from tests.test_exercises import CHAPTERS

BUSY = [sys.executable, "-c", "while True: sum(range(10**6))"]


@contextmanager
def busy(processes):
    "So many processes that compute for as long as the block runs."
    running = [subprocess.Popen(BUSY) for _ in range(processes)]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_every_reference_is_right_beside_two_processes_per_core():
    wrong = {}
    with busy(2 * os.cpu_count()) as beside:
        for chapter in CHAPTERS.values():
            for name, exercise in chapter.exercises.items():
                verdict, report = exercise.judge(chapter.reference(name))
                if verdict != "right":
                    wrong[f"{chapter.name}/{name}"] = report
        assert all(process.poll() is None for process in beside), "it was not busy"
    assert not wrong
