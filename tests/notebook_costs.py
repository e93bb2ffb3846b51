"""Seconds and memory of every notebook under nbval; a pytest plugin, loaded with -p.

Memory is that of the kernel and all its ranks, each shared page counted once (PSS on
Linux, unique memory elsewhere), read up to five times a second, and less often where
reading would take more than a twentieth of the time. Above LIMIT the run fails: Binder
restarts a kernel at 2 GB, and JupyterLab itself needs some of it. With CUDA's libraries
(80 MB a process) only the numbers are shown. Where pytest-xdist runs notebooks in several
processes, each measures its own, and the first one tells of all.
"""

import threading
import time
from contextlib import suppress
from importlib.util import find_spec

import psutil
import pytest

LIMIT = 1500  # MB
CUDA = find_spec("nvidia") is not None


def megabytes(process):
    "What a process and everything it started hold now, in MB."
    total = 0
    for one in [process, *process.children(recursive=True)]:
        with suppress(psutil.Error):  # it may end while we look
            held = one.memory_full_info()
            total += getattr(held, "pss", held.uss)
    return total / 2**20


class Watch:
    "The seconds and the highest memory of each notebook, while pytest runs them."

    def __init__(self, pause=0.2):
        self.costs, self.current = {}, None
        self.pause, self.ended = pause, threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def _look(self):
        me, took = psutil.Process(), 0.0
        while not self.ended.wait(max(self.pause, 19 * took)):
            began, current, held = time.perf_counter(), self.current, 0
            for child in me.children():
                with suppress(psutil.Error):
                    held += megabytes(child)
            if current is not None:
                self.costs[current][1] = max(self.costs[current][1], held)
            took = time.perf_counter() - began

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        name = item.path.name
        self.costs.setdefault(name, [0.0, 0.0])
        self.current, began = name, time.perf_counter()
        try:
            return (yield)
        finally:
            self.costs[name][0] += time.perf_counter() - began

    def pytest_sessionstart(self):
        self.thread.start()

    @pytest.hookimpl(optionalhook=True)  # of pytest-xdist
    def pytest_testnodedown(self, node):
        self.costs.update(getattr(node, "workeroutput", {}).get("costs", {}))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session):
        self.ended.set()
        if hasattr(session.config, "workeroutput"):  # one of several: the first tells
            session.config.workeroutput["costs"] = self.costs
            return
        if not CUDA and any(peak > LIMIT for _, peak in self.costs.values()):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        say = terminalreporter.write_line
        slowest = max((s for s, _ in self.costs.values()), default=0)
        for name, (seconds, peak) in sorted(self.costs.items()):
            over = f"  ABOVE {LIMIT} MB" if peak > LIMIT else ""
            over += "  slowest" if seconds == slowest and len(self.costs) > 1 else ""
            say(f"cost {name:<26} {seconds:6.1f} s {peak:6.0f} MB{over}")


def pytest_configure(config):
    config.pluginmanager.register(Watch(), "course-notebook-costs")
