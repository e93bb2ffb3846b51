"""Waiting for the ranks of a call, and saying in a sentence why it failed."""

import itertools
import linecache
import os
import pickle
import re
import signal
import sys
import time
from pathlib import Path

from utils.ranks import worker

QUIET = 2.0  # seconds without work in any rank before their stacks are looked at
HOLD = 0.7  # ... and for so long they must then stand where they stood
LOST = re.compile(
    r"connection (was )?(closed|reset|refused)|broken pipe|socket (was )?closed|"
    r"timed out|timeout|peer", re.I,
)  # fmt: skip


class RankError(RuntimeError):
    """A call of `run` failed.

    rank: the rank that caused it (None: the process that hands out ranks).
    kind: "raised", "exited" (sys.exit), "died" (killed, crashed, os._exit), "result"
    (it cannot be pickled), "lost" (the server died); of a RankTimeout "hung" or
    "deadlock".
    traceback: the text of that rank's traceback, or where it stood.
    """

    def __init__(self, message, rank=None, kind="raised", traceback=""):
        super().__init__(message)
        self.rank, self.kind, self.traceback = rank, kind, traceback

    def __reduce__(self):
        return type(self), (str(self), self.rank, self.kind, self.traceback)


class RankTimeout(RankError):
    "The time was up, or no rank could ever go on."


def wait(crew, folder, n, timeout):
    "Return when all ranks have; raise the RankError that says why one has not."
    reports, until, still = {}, time.monotonic() + timeout, _Stillness(crew, folder)
    while len(reports) < n:
        crew.wait(min(0.25, until - time.monotonic()))
        _collect(reports, crew, folder, n)
        if _failed(reports):
            raise _cause(reports, crew, folder, n)
        waiting = [rank for rank in range(n) if rank not in reports]
        if waiting and time.monotonic() > until:
            raise _too_late(reports, waiting, crew, folder, timeout)
        if stacks := still.since(waiting):
            raise _deadlock(stacks, reports)


def _collect(reports, crew, folder, n):
    "Add what ranks have left behind; a failure is a report with a kind in it."
    exits = dict(crew.exits)  # before the files: who is dead writes no more
    for rank in set(range(n)) - set(reports):
        file = folder / f"report.{rank}"
        if file.exists():
            report = pickle.loads(file.read_bytes())
            reports[rank] = report
            crew.needed.update(report["later"])
        elif rank in exits:
            reports[rank] = _death(exits[rank], _last_words(folder, rank))


def _death(code, words):
    if code < 0:
        name = signal.Signals(-code).name
        what = f"was killed by the signal {name}"
        if name == "SIGKILL":
            what += " (by itself, by a person, or by the system when memory ran out)"
    else:
        what = f"ended with exit code {code} before it returned"
    return {"kind": "died", "what": what, "traceback": words, "when": time.monotonic()}


def _last_words(folder, rank):
    "What the interpreter said of a crash, without what lies below the function."
    for name in ("crash", "start"):
        file = folder / f"{name}.{rank}"
        text = file.read_text(errors="replace") if file.exists() else ""
        kept = itertools.takewhile(lambda line: not _is_ours(line), text.splitlines())
        if text:
            return worker.cells("\n".join(kept))
    return ""


def _is_ours(line):
    return bool(re.search(r"worker\.py.* in _report$", line))


# ---- a rank failed: which one is the cause? ----


def _cause(reports, crew, folder, n):
    "The error of the rank that failed first; a lost connection is only an echo."
    until = time.monotonic() + 0.05
    echo_until = time.monotonic() + 1.0
    while len(reports) < n:
        own = [r for r in _failed(reports) if not _is_echo(reports[r])]
        left = (until if own else echo_until) - time.monotonic()
        if left <= 0:
            break
        crew.wait(left)
        _collect(reports, crew, folder, n)
    first, *others = sorted(
        _failed(reports), key=lambda r: (_is_echo(reports[r]), reports[r]["when"])
    )
    report = reports[first]
    message = f"rank {first} {report['what']}"
    others = [r for r in others if not _is_echo(reports[r])]
    if others:
        r = others[0]
        message += f"\n{_and(others)} failed too; rank {r} {_first_line(reports[r])}"
    if report["traceback"]:
        message += f"\n\nOn rank {first}:\n{report['traceback'].rstrip()}"
    return RankError(message, first, report["kind"], report["traceback"])


def _failed(reports):
    return [rank for rank in reports if "kind" in reports[rank]]


def _is_echo(report):
    return report["kind"] == "raised" and bool(
        re.match(r"raised (RuntimeError|Dist\w+Error)", report["what"])
        and LOST.search(report["what"])
        and "torch" in report["traceback"]
    )


def _first_line(report):
    return report["what"].split("\n")[0]


def _and(ranks):
    *most, last = sorted(ranks)
    if not most:
        return f"rank {last}"
    return f"ranks {', '.join(map(str, most))} and {last}"


# ---- nothing moves any more: where does each rank stand? ----


def _too_late(reports, waiting, crew, folder, timeout):
    stacks = ask(crew, folder, waiting)
    busy = [rank for rank in waiting if not waits_in(stacks.get(rank))]
    kind, rank = ("hung", busy[0]) if busy else ("deadlock", waiting[0])
    first = (
        f"the time-out of {timeout:g} s is over: {_summary(waiting, reports, stacks)}"
    )
    return _timeout(first, rank, kind, waiting, stacks)


def _deadlock(stacks, reports):
    first = f"no rank can go on: {_summary(stacks, reports, stacks)}"
    return _timeout(first, min(stacks), "deadlock", stacks, stacks)


def _summary(waiting, finished, stacks):
    "Who waits in which call, who works, who has finished; and a question if all wait."
    groups = {}
    for rank in sorted(waiting):
        groups.setdefault(waits_in(stacks.get(rank)), []).append(rank)
    said, all_wait = [], None not in groups
    if not all_wait:
        busy = groups.pop(None)
        said.append(f"{_and(busy)} {_are(busy)} still at work")
    for call, ranks in groups.items():
        said.append(f"{_and(ranks)} wait{'s' * (len(ranks) == 1)} in {call}")
    if finished:
        said.append(
            f"{_and(finished)} {'has' if len(finished) == 1 else 'have'} finished"
        )
    return ", ".join(said) + "." + (f" {_hint(set(groups))}" if all_wait else "")


def _are(ranks):
    return "is" if len(ranks) == 1 else "are"


def _timeout(first, rank, kind, waiting, stacks):
    lines = [first, *(_stands(r, stacks) for r in sorted(waiting))]
    where = _as_traceback(stacks.get(rank, []))
    if where:
        lines += ["", f"Rank {rank} stands here:", where]
    return RankTimeout("\n".join(lines), rank, kind, where)


def _hint(calls):
    if calls <= {"send", "isend", "recv", "irecv", "wait()", "batch_isend_irecv"}:
        return (
            "Is there a recv for every send, between the same two ranks, and does one "
            "of the two receive first?"
        )
    return (
        "Does every rank make the same collective calls, in the same order, with the "
        "same shapes?"
    )


def _stands(rank, stacks):
    frames = stacks.get(rank)
    if not frames:
        return f"  rank {rank} did not say where it is"
    file, line, name = own(frames)
    code = linecache.getline(file, line).strip()
    return f"  rank {rank} is at line {line} of {name}" + (f": {code}" if code else "")


def _as_traceback(frames):
    "Frames as a traceback shows them; without the inside of a communication call."
    if waits_in(frames):
        frames = frames[frames.index(own(frames)) :]
    lines = []
    for file, line, name in reversed(frames):
        lines.append(f'  File "{file}", line {line}, in {name}')
        if code := linecache.getline(file, line).strip():
            lines.append(f"    {code}")
    return worker.cells("\n".join(lines))


# ---- stacks ----

FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$', re.M)
PARTS = re.compile(r"[/\\]torch[/\\](distributed[/\\]|nn[/\\]parallel[/\\]|_ops\.py)")
LIBRARY = re.compile(r"[/\\](torch|site-packages)[/\\]")


def ask(crew, folder, ranks):
    "{rank: [(file, line, function), ...]}, innermost first, down to run's function."
    files = {rank: folder / f"stack.{rank}" for rank in ranks}
    if hasattr(signal, "SIGUSR1"):  # Windows: they are written when time is nearly up
        for file in files.values():
            if file.exists():
                os.truncate(file, 0)
        crew.ask_stacks()
    until, stacks = time.monotonic() + 1.0, {}
    while len(stacks) < len(files) and time.monotonic() < until:
        time.sleep(0.02)
        for rank, file in files.items():
            if rank not in stacks and (frames := _read_stack(file)):
                stacks[rank] = frames
    return stacks


def _read_stack(file):
    "The frames of the thread that runs fn; [] while they are not all written."
    for frames in _threads(file):
        names = [(Path(f).name, name) for f, _, name in frames]
        if ("worker.py", "_report") in names:
            return frames[: names.index(("worker.py", "_report"))]
    return []


def _threads(file):
    "The frames of each thread that faulthandler wrote of, innermost first."
    text = file.read_text(errors="replace") if file.exists() else ""
    found = (FRAME.findall(thread) for thread in text.split("\n\n"))
    return [[(f, int(line), name) for f, line, name in t] for t in found if t]


def has_other_thread(file):
    "Does a second thread of this rank run Python, and could so still send something?"
    threads = _threads(file)
    return any(all("ranks" not in Path(f).parts for f, _, _ in t) for t in threads)


def own(frames):
    "The innermost frame that is not a library's."
    return next((f for f in frames if not LIBRARY.search(f[0])), frames[0])


def waits_in(frames):
    "The communication call in which these frames wait, or None: something else."
    if not frames:
        return None
    inside = itertools.takewhile(lambda frame: PARTS.search(frame[0]), frames)
    inside = [name for _, _, name in inside if name != "wrapper"]
    file, line, name = frames[0]
    if inside and inside != ["__call__"]:
        return inside[-1]  # the outermost: what the function called
    if name == "_engine_run_backward":
        return "backward()"
    if ".wait(" in linecache.getline(file, line):
        return "wait()"
    return None


# ---- is anybody still working? ----


class _Stillness:
    "Notices that all ranks wait for each other: no work, and twice the same stacks."

    def __init__(self, crew, folder):
        self.crew, self.folder = crew, folder
        self.ranks, self.start, self.work, self.stacks = None, 0.0, 0.0, None

    def since(self, ranks):
        "The stacks when nothing can move any more, else None. `ranks`: the unfinished."
        now, work = time.monotonic(), self._work(ranks)
        if work is None or not ranks:
            return None
        moved = work - self.work > 0.03 * max(now - self.start, 1.0) * len(ranks)
        if ranks != self.ranks or moved:
            self.ranks, self.start, self.work, self.stacks = ranks, now, work, None
        elif now - self.start > QUIET and self.stacks is None:
            self.stacks = self._waiting()
            if self.stacks is None:
                self.start = now  # one computes, sleeps or reads: look again later
        elif now - self.start > QUIET + HOLD and self.stacks is not None:
            before, self.stacks = self.stacks, None
            self.start = now
            if before == self._waiting():
                return before
        return None

    def _waiting(self):
        "All unfinished ranks' stacks, if every one waits in a communication call."
        stacks = ask(self.crew, self.folder, self.ranks)
        files = [self.folder / f"stack.{rank}" for rank in self.ranks]
        if not any(map(has_other_thread, files)) and all(
            waits_in(stacks.get(rank)) for rank in self.ranks
        ):
            return stacks
        return None

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
