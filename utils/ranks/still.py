"""Is anybody still working? A verdict of deadlock needs that nothing moves.

No rank computes, every one stands in a communication call and stands there still a little
later, and no byte has moved on their sockets: a slow link is no deadlock.
"""

import json
import os
import sys
import time
from contextlib import suppress

from utils.ranks import stacks

QUIET = 2.0  # seconds without work in any rank before their stacks are looked at
HOLD = 0.7  # ... and for so long they must then stand where they stood
QUEUED = 20.0  # ... or for so long, where bytes are waiting to leave: a very slow link


class Stillness:
    "Notices that all ranks wait for each other."

    def __init__(self, crew, folder):
        self.crew, self.folder = crew, folder
        self._begin(None, 0.0)

    def since(self, ranks):
        "The stacks when nothing can move any more, else None. `ranks`: the unfinished."
        now, work = time.monotonic(), self._work(ranks)
        if work is None or not ranks:
            return None
        worked = work - self.work > 0.03 * max(now - self.start, 1.0) * len(ranks)
        if ranks != self.ranks or worked:
            self._begin(ranks, work)
        elif self.seen is None and now - self.start > QUIET:
            self.seen, self.looked = self._look(), time.monotonic()
            if self.seen is None:
                self.start = now  # one computes, sleeps or reads: look again later
        elif self.seen is not None and now - self.looked > self._hold():
            before, after = self.seen, self._look()
            if before == after:
                return after[0]
            self._begin(ranks, work)
        return None

    def _begin(self, ranks, work):
        self.ranks, self.work, self.start = ranks, work, time.monotonic()
        self.seen, self.looked = None, 0.0  # (stacks, bytes moved, bytes waiting), when

    def _hold(self):
        return QUEUED if self.seen[2] else HOLD

    def _look(self):
        "What is seen if every unfinished rank waits in a communication call, else None."
        seen = stacks.ask(self.crew, self.folder, self.ranks)
        files = [self.folder / f"stack.{rank}" for rank in self.ranks]
        if any(map(stacks.has_other_thread, files)):
            return None
        if not all(stacks.waits_in(seen.get(rank)) for rank in self.ranks):
            return None
        if all(map(stacks.joins, seen.values())):  # in C++, which answers nothing
            return seen, 0, 0
        moved = bytes_moved(self.crew, self.folder, self.ranks)
        return None if moved is None else (seen, *moved)

    def _work(self, ranks):
        "Processor seconds of these ranks so far; None where it cannot be known."
        seconds = [_processor_seconds(self.crew.pids[rank]) for rank in ranks]
        return None if None in seconds else sum(seconds)


def _processor_seconds(pid):
    if sys.platform.startswith("linux"):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except OSError:
            return None
    try:
        import psutil

        times = psutil.Process(pid).cpu_times()
        return times.user + times.system
    except Exception:
        return None


# ---- bytes ----


def bytes_moved(crew, folder, ranks):
    """(sent and received, waiting to leave): bytes on all TCP sockets of these ranks.

    None when a rank does not answer (it is starved, or in a C function that holds
    Python): then nothing is known. (0, 0) where the system has no such counters.
    """
    files = {rank: folder / f"moved.{rank}" for rank in ranks}
    for file in files.values():
        file.unlink(missing_ok=True)
    crew.ask_moved()
    until, said = time.monotonic() + 1.0, {}
    while len(said) < len(files):
        if time.monotonic() > until:
            return None
        time.sleep(0.01)
        for rank in files.keys() - said.keys():
            with suppress(FileNotFoundError):
                said[rank] = json.loads(files[rank].read_text(encoding="ascii"))
    counted = [count for count in said.values() if count is not None]
    return sum(c[0] for c in counted), sum(c[1] for c in counted)
