"""Waiting for the ranks of a call, and saying in a sentence why it failed."""

import itertools
import pickle
import re
import signal
import time

from utils.ranks import meeting, shown, stacks, worker
from utils.ranks.still import Stillness

LOST = re.compile(
    r"connection (was )?(closed|reset|refused)|broken pipe|socket (was )?closed|"
    r"timed out|timeout|peer", re.I,
)  # fmt: skip


class RankError(RuntimeError):
    """A call of `run` failed.

    rank: the rank that caused it (None: the process that hands out ranks).
    kind: "join" (it could not join the others), "raised", "exited" (sys.exit), "died"
    (killed, crashed, os._exit), "result" (it cannot be pickled), "lost" (the server
    died); of a RankTimeout "hung" or "deadlock".
    traceback: the text of that rank's traceback, or where it stood.
    """

    def __init__(self, message, rank=None, kind="raised", traceback=""):
        super().__init__(message)
        self.rank, self.kind, self.traceback = rank, kind, traceback

    def __reduce__(self):
        return type(self), (str(self), self.rank, self.kind, self.traceback)

    def _render_traceback_(self):  # what IPython asks for
        return shown.without_ours(self)


class RankTimeout(RankError):
    "The time was up, or no rank could ever go on."


def wait(crew, folder, n, timeout, may_die=False):
    """Return when all ranks have; raise the RankError that says why one has not.

    may_die: a rank that dies is told to the others, and is no error while one is left.
    Returns the set of the dead.
    """
    reports, until, still = {}, time.monotonic() + timeout, Stillness(crew, folder)
    arbiter, dead = meeting.Arbiter(folder, n) if may_die else None, set()
    while len(reports) < n:
        crew.wait(min(0.02 if may_die else 0.25, until - time.monotonic()))
        _collect(reports, crew, folder, n)
        if may_die:
            dead = _dead(reports)
            arbiter.hear(reports, dead)
        if _failed(reports, may_die) or len(dead) == n:
            raise _cause(reports, crew, folder, n, may_die and len(dead) < n)
        waiting = [rank for rank in range(n) if rank not in reports]
        if waiting and time.monotonic() > until:
            raise _too_late(reports, waiting, crew, folder, timeout)
        if seen := still.since(waiting):
            if dead and all(map(stacks.joins, seen.values())):  # it never came to them
                raise _cause(reports, crew, folder, n)
            raise _deadlock(seen, reports)
    return dead


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
        threads = [part for part in text.split("\n\n") if " in _answer\n" not in part]
        lines = "\n\n".join(threads).splitlines()
        kept = itertools.takewhile(lambda line: not _is_ours(line), lines)
        if text:
            return worker.cells("\n".join(kept))
    return ""


def _is_ours(line):
    return bool(re.search(r"worker\.py.* in _report$", line))


# ---- a rank failed: which one is the cause? ----


def _cause(reports, crew, folder, n, may_die=False):
    "The error of the rank that failed first; a lost connection is only an echo."
    until = time.monotonic() + 0.05
    echo_until = time.monotonic() + 1.0
    while len(reports) < n:
        own = [r for r in _failed(reports, may_die) if not _is_echo(reports[r])]
        left = (until if own else echo_until) - time.monotonic()
        if left <= 0:
            break
        crew.wait(left)
        _collect(reports, crew, folder, n)
    failed = _failed(reports, may_die)
    if all(reports[r]["kind"] == "join" and _is_echo(reports[r]) for r in failed):
        failed = _failed(reports)  # a death while they joined: nobody could go on
    first, *others = sorted(
        failed, key=lambda r: (_is_echo(reports[r]), reports[r]["when"])
    )
    report = reports[first]
    message = f"rank {first} {report['what']}"
    others = [r for r in others if not _is_echo(reports[r])]
    if others:
        r = others[0]
        message += f"\n{_and(others)} failed too; rank {r} {_first_line(reports[r])}"
    if may_die and first not in (dead := _dead(reports)) and dead:
        message += f"\n{_and(dead)} had died, and fn does not go on without"
    if report["traceback"]:
        message += f"\n\nOn rank {first}:\n{report['traceback'].rstrip()}"
    return RankError(message, first, report["kind"], report["traceback"])


def _failed(reports, may_die=False):
    "The ranks that failed; where ranks may die, those that died have not."
    dead = _dead(reports) if may_die else ()
    return [rank for rank in reports if "kind" in reports[rank] and rank not in dead]


def _dead(reports):
    return {rank for rank in reports if reports[rank].get("kind") == "died"}


def _is_echo(report):
    return report["kind"] in ("raised", "join") and bool(
        re.match(r".*?(raised |: )(RuntimeError|Dist\w+Error)", report["what"])
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
    seen = stacks.ask(crew, folder, waiting)
    busy = [rank for rank in waiting if not stacks.waits_in(seen.get(rank))]
    kind, rank = ("hung", busy[0]) if busy else ("deadlock", waiting[0])
    first = f"the time-out of {timeout:g} s is over: {_summary(waiting, reports, seen)}"
    return _timeout(first, rank, kind, waiting, seen)


def _deadlock(seen, reports):
    first = f"no rank can go on: {_summary(seen, reports, seen)}"
    return _timeout(first, min(seen), "deadlock", seen, seen)


def _summary(waiting, reports, seen):
    "Who waits in which call, who works, who has finished; and a question if all wait."
    groups = {}
    for rank in sorted(waiting):
        groups.setdefault(stacks.waits_in(seen.get(rank)), []).append(rank)
    said, all_wait = [], None not in groups
    if not all_wait:
        busy = groups.pop(None)
        said.append(f"{_and(busy)} {_are(busy)} still at work")
    for call, ranks in groups.items():
        said.append(f"{_and(ranks)} wait{'s' * (len(ranks) == 1)} in {call}")
    dead = _dead(reports)
    for ranks, what in ((set(reports) - dead, "finished"), (dead, "died")):
        if ranks:
            said.append(f"{_and(ranks)} {'has' if len(ranks) == 1 else 'have'} {what}")
    question = _hint(set(groups), seen, dead) if all_wait else ""
    return f"{', '.join(said)}. {question}".rstrip()


def _are(ranks):
    return "is" if len(ranks) == 1 else "are"


def _timeout(first, rank, kind, waiting, seen):
    lines = [first, *(stacks.stands(r, seen) for r in sorted(waiting))]
    where = stacks.as_traceback(seen.get(rank, []))
    if where:
        lines += ["", f"Rank {rank} stands here:", where]
    return RankTimeout("\n".join(lines), rank, kind, where)


def _hint(calls, seen, dead):
    if all(map(stacks.joins, seen.values())):
        return (
            "None of them has come to your function: they could not meet. Is the "
            "temporary folder full, or traffic on this machine's loopback network "
            "blocked?"
        )
    if dead:
        return (
            "Who talks to a rank that has died may wait for ever: look at "
            "work.is_completed() and at ranks.members(k, wait=False) in turns."
        )
    if calls <= {"send", "isend", "recv", "irecv", "wait()", "batch_isend_irecv"}:
        return (
            "Is there a recv for every send, between the same two ranks, and does one "
            "of the two receive first?"
        )
    return (
        "Does every rank make the same collective calls, in the same order, with the "
        "same shapes?"
    )
