"""What chapter 21 builds: runs that outlive their machines.

    folder = Folder(path)                       # files that are whole at every moment
    save_sharded(folder, step, rank, n, shard)  # in every rank: the manifest is the commit
    newest(folder)                              # (step, [shard, ...]) that is whole, or None
    pieces(P, n, rank, m)                       # n old shards, m new ranks: who reads what
    ordered_mean(mine, V, add_up)               # the same bits for every number of ranks
    run_to_the_end(attempt, n, newest_step)     # start again with one rank fewer
    catch_up(step, state_P)                     # survivors agree, without a file
    interval(C, M, n), simulate(...)            # how often to save (seconds)
    expected(work, tau, C, R, M)

Sources: J. W. Young, CACM 17(9), 1974; J. T. Daly, FGCS 22(3), 2006.
"""

import heapq
import json
import math
import os
import signal
import time
import traceback
import zlib
from pathlib import Path

import torch
from torch import distributed as dist

from utils import files, given, ranks
from utils.built.collectives import cut  # chapter 16
from utils.ranks.agree import joined

MANIFEST = "manifest."


class Folder:
    """A folder of checkpoints: `write` makes whole files (chapter 05), or changes nothing.

    path: made if it is not there. NotADirectoryError where a file stands.
    """

    def __init__(self, path):
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"{self.path.name} is a file, not a folder")
        self.path.mkdir(parents=True, exist_ok=True)

    def write(self, name, data):
        "Put bytes into the file `name`, at one stroke. TypeError for what is not bytes."
        if not isinstance(data, bytes):
            raise TypeError(f"data is bytes, not {given.kind(data)}")
        files.write_whole(self.path / name, data)

    def read(self, name):
        "-> bytes. FileNotFoundError."
        return (self.path / name).read_bytes()

    def names(self):
        "Names of all finished files, sorted as text: -> [name, ...]."
        return sorted(p.name for p in self.path.iterdir() if p.name[0] != ".")


def die():
    "Kill this process, now: no exception, no clean-up, no farewell (SIGKILL)."
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def killed_while(act, seconds):
    """Do `act` again and again in a process of its own, and kill it after `seconds`.

    act: a function without arguments. The process is a fork of this one, which should
    hold no threads (a rank, not a notebook). RuntimeError where there is no fork.
    """
    given.function("act", act)
    given.number("seconds", seconds)
    if not hasattr(os, "fork"):
        raise RuntimeError("this system cannot fork: Linux and macOS can")
    child = os.fork()
    if child == 0:
        try:
            while True:
                act()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    try:
        time.sleep(seconds)
    finally:  # also where somebody interrupts
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        raise RuntimeError("act ended by itself, with an error, before it was killed")


# ---- sharded checkpoints ----


def save_sharded(folder, step, rank, n, shard):
    """In every rank: its shard, and once all are written, from rank 0, the manifest.

    shard: bytes. Files STEP.RANK-of-N and manifest.STEP (JSON: step, and of every shard
    its name, bytes, crc32). Comes back when the checkpoint counts.
    """
    given.whole("step", step, 0)
    given.whole("rank", rank, 0, given.whole("n", n) - 1)
    if not isinstance(shard, bytes):
        raise TypeError(f"shard is bytes, not {given.kind(shard)}")
    joined("save_sharded")
    name = f"{step}.{rank}-of-{n}"
    folder.write(name, shard)
    records = [None] * n
    record = {"name": name, "bytes": len(shard), "crc32": zlib.crc32(shard)}
    dist.all_gather_object(records, record)  # comes back when all have written
    if rank == 0:
        manifest = {"step": step, "shards": records}
        folder.write(f"{MANIFEST}{step}", json.dumps(manifest).encode())
    dist.barrier()


def newest(folder):
    """The newest checkpoint whose every shard is whole: -> (step, [bytes, ...]) or None.

    A manifest that cannot be read, a missing shard, a wrong size or checksum: the one
    before. Steps are compared as numbers; dates of files are not asked.
    """
    if not hasattr(folder, "names"):
        raise TypeError(f"folder is a Folder, not {given.kind(folder)}")
    names = [name.removeprefix(MANIFEST) for name in folder.names() if MANIFEST in name]
    for step in sorted((int(name) for name in names if name.isdecimal()), reverse=True):
        try:
            records = json.loads(folder.read(f"{MANIFEST}{step}"))["shards"]
            shards = [folder.read(record["name"]) for record in records]
            right = [_fits(*both) for both in zip(shards, records)]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            continue
        if all(right):
            return step, shards
    return None


def _fits(shard, record):
    return len(shard) == record["bytes"] and zlib.crc32(shard) == record["crc32"]


def bounds(P, n, rank):
    "Where the shard of a rank begins and ends in P numbers on n ranks: -> (start, stop)."
    given.whole("P", P, 0)
    given.whole("rank", rank, 0, given.whole("n", n) - 1)
    part = cut(P, n)[rank]
    return part.start, part.stop


def pieces(P, n, rank, m):
    """What new rank `rank` of m reads of n old shards: -> [(old rank, start, stop), ...].

    start and stop count from the beginning of the old shard; empty pieces are left out.
    """
    low, high = bounds(P, m, rank)
    found = []
    for old, part in enumerate(cut(P, given.whole("n", n))):
        first, last = max(low, part.start), min(high, part.stop)
        if first < last:
            found.append((old, first - part.start, last - part.start))
    return found


# ---- the same bits, whoever is there ----


def ordered_mean(mine, V, add_up=None):
    """Mean of V logical shards' gradients, added in one order: -> (P,), alike on all ranks.

    mine    {v: (P,)}: those that this rank has computed, at least one; over all ranks
            each v in 0 ... V - 1 once
    add_up  sums a tensor over all ranks in place; dist.all_reduce without it
    """
    given.whole("V", V)
    if not isinstance(mine, dict) or not mine or not set(mine) <= set(range(V)):
        raise ValueError(f"mine is {{v: gradient}}, v from 0 to {V - 1}, at least one")
    if add_up is None:
        joined("ordered_mean")
    (P,) = next(iter(mine.values())).shape
    part_VP = next(iter(mine.values())).new_zeros(V, P)
    for v, grad_P in mine.items():
        part_VP[v] = grad_P
    (add_up or dist.all_reduce)(part_VP)  # one addend is not zero: exact
    total_P = torch.zeros_like(part_VP[0])
    for v in range(V):
        total_P = total_P + part_VP[v]
    return total_P / V


def add_up_or_notice(k):
    """An `add_up` for ranks.run(fn, n, may_die=True): RuntimeError once loss k + 1 is known.

    A rank whose neighbour in the ring died is told by its socket; the others would wait.
    """
    given.whole("k", k, 0)

    def add_up(x):
        work = dist.all_reduce(x, async_op=True)
        pause = ranks.members(k + 1, wait=False)
        while not work.is_completed():
            if pause is not None:
                raise RuntimeError(f"loss {k + 1} while a sum was under way")
            pause = ranks.members(k + 1, wait=False)
        work.wait()

    return add_up


def catch_up(step, state_P):
    """All ranks leave with the furthest rank's step and state: -> (step, (P,)).

    The furthest has what the others have not: who is behind could not be waited for.
    """
    given.whole("step", step, 0)
    joined("catch_up")
    me, n = dist.get_rank(), dist.get_world_size()
    furthest = torch.tensor(step)
    dist.all_reduce(furthest, op=dist.ReduceOp.MAX)
    source = torch.tensor(me if step == furthest else n)
    dist.all_reduce(source, op=dist.ReduceOp.MIN)
    state_P = state_P.clone()
    dist.broadcast(state_P, src=int(source))
    return int(furthest), state_P


def meet_again(k, me):
    """Leave the broken group, join the survivors: -> (k, alive) of the loss they met after.

    me: this rank's number in `ranks.run(fn, n, may_die=True)`, which it keeps.
    """
    while True:
        if dist.is_initialized():
            ranks.leave()
        alive = ranks.members(k)
        try:
            store = ranks.store(k)
        except RuntimeError:  # another one died while they met
            k += 1
            continue
        dist.init_process_group(
            "gloo", store=store, rank=alive.index(me), world_size=len(alive)
        )
        return k, alive


def run_to_the_end(attempt, n, newest_step):
    """attempt(n), and after each death with one rank fewer: -> what the last one returned.

    attempt      a function of n that returns, or raises ranks.RankError
    newest_step  () -> step of the newest checkpoint, 0 if there is none

    Raised on: an error of any other kind than "died"; the death of a single rank; and the
    second death in a row that came without a newer checkpoint: that is a bug.
    """
    given.function("attempt", attempt)
    given.function("newest_step", newest_step)
    n, last, stuck = given.whole("n", n), newest_step(), 0
    while True:
        try:
            return attempt(n)
        except ranks.RankError as error:
            now = newest_step()
            stuck = 0 if now > last else stuck + 1
            if error.kind != "died" or n == 1 or stuck == 2:
                raise
            n, last = n - 1, now


# ---- how often to save ----


def interval(C, M, n):
    """Young: seconds of work between two checkpoints, sqrt(2 C M / n).

    C: seconds per checkpoint; M: mean seconds between failures of one machine; n machines.
    """
    given.number("C", C, above=0)
    given.number("M", M, above=0)
    return math.sqrt(2 * C * M / given.whole("n", n))


def expected(work, tau, C, R, M):
    """Daly: expected seconds for `work` seconds of work, saved after each tau.

    R: seconds per restart, begun anew if it is hit; M: mean time between failures of all.
    """
    for name, value in (("work", work), ("tau", tau), ("M", M)):
        given.number(name, value, above=0)
    for name, value in (("C", C), ("R", R)):
        given.number(name, value)
    return M * math.exp(R / M) * math.expm1((tau + C) / M) * work / tau


def simulate(work, tau, C, R, failures):
    """Seconds until `work` seconds of work are done and saved.

    failures: moments, in order. One that falls into a stretch of work or the checkpoint
    behind it loses both; one in a restart begins that again. At the very end: no harm.
    """
    return stretches(work, tau, C, R, failures)[-1][2]


def stretches(work, tau, C, R, failures, until=math.inf):
    "As `simulate`: -> [(what, start, stop), ...]: work, checkpoint, lost, restart."
    given.number("tau", tau, above=0)
    given.number("C", C), given.number("R", R)
    failures = iter(failures)
    failure = next(failures, math.inf)
    t, left, down, found = 0.0, given.number("work", work, above=0), False, []
    while left > 1e-9 and t < until:
        part = min(tau, left)
        end = t + (R if down else part + C)
        if failure < end:
            found.append(("restart" if down else "lost", t, failure))
            t, down, failure = failure, True, next(failures, math.inf)
            continue
        if down:
            found.append(("restart", t, end))
        else:
            found += [("work", t, t + part), ("checkpoint", t + part, end)]
            left -= part
        t, down = end, False
    return found


# ---- machines that are not alike ----


def share_rows(speeds, B):
    """Whole rows per machine so that the last one is ready as early as can be: -> [rows].

    speeds: rows per second, above 0; B rows in all. Each next row goes to the machine that
    would be ready first with it.
    """
    for i, speed in enumerate(speeds):
        given.number(f"speeds[{i}]", speed, above=0)
    rows = [0] * given.whole("number of machines", len(speeds))
    ready = [(1 / speed, i) for i, speed in enumerate(speeds)]
    heapq.heapify(ready)
    for _ in range(given.whole("B", B, 0)):
        i = ready[0][1]
        rows[i] += 1
        heapq.heapreplace(ready, ((rows[i] + 1) / speeds[i], i))
    return rows
