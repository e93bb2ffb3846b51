"""Chapter 21: checkpoints in shards, the same bits on any number of ranks, queues.

Disks are dictionaries that note what is written when, ranks are rehearsed in this process,
and deaths are raised: nothing here waits for a clock.
"""

import itertools
import json
import random
import zlib

import numpy as np
import torch
from torch import distributed as dist

from utils import ranks
from utils.built import failures as course
from utils.built import pool
from utils.check import as_array
from utils.exercises import Chapter, Miss, same
from utils.exercises.cases import agree
from utils.exercises.rehearsed import play

chapter = Chapter("21_failures")


class Disk:
    "A folder in memory: `written` holds the names in the order of writing."

    def __init__(self):
        self.files, self.written = {}, []

    def write(self, name, data):
        if not isinstance(data, (bytes, bytearray)):
            raise Miss("Files hold bytes: json.dumps(...).encode() makes some.",
                       f"folder.write({name!r}, ...)", type(data).__name__, "bytes")  # fmt: skip
        self.files[name] = bytes(data)
        self.written.append(name)

    def read(self, name):
        if name not in self.files:
            raise FileNotFoundError(name)
        return self.files[name]

    def names(self):
        return sorted(self.files)


# ---- checkpoints ----


def _record(name, shard):
    return {"name": name, "bytes": len(shard), "crc32": zlib.crc32(shard)}


@chapter.exercise(
    "Two phases: first all shards, then one line that says that they are there.",
    "Every rank writes its file. dist.all_gather_object(records, record) comes back when "
    "all ranks have made it, and so when all have written; then rank 0 writes the "
    "manifest. Who returns must know that it is there: a barrier.",
    'name = f"{step}.{rank}-of-{n}"\n'
    "folder.write(name, shard)\n"
    "records = [None] * n\n"
    'dist.all_gather_object(records, {"name": name, ...})\n'
    "if rank == 0:\n"
    '    ...  # json.dumps({"step": step, "shards": records}).encode()\n'
    "dist.barrier()",
)
def save_sharded(answer):
    "Every rank its shard, then rank 0 the manifest."
    for n, step in ((3, 20), (2, 7), (1, 5)):
        shards = [bytes(range(10 + 3 * r)) * (r != 1) for r in range(n)]
        disk, case = Disk(), f"step {step}, {n} ranks"
        manifest, after = f"manifest.{step}", []

        def save(rank, n, disk=disk, step=step, shards=shards, m=manifest, after=after):
            answer(disk, step, rank, n, shards[rank])
            after.append(m in disk.files)

        play(case, save, n)
        names = [f"{step}.{r}-of-{n}" for r in range(n)]
        found = [name for name in names if name in disk.files]
        same(f"{case}: files of shards", found, names,
             "Every rank writes one file, STEP.RANK-of-N.")  # fmt: skip
        for name, shard in zip(names, shards):
            same(f"{case}: bytes of {name}", list(disk.files[name]), list(shard),
                 "A shard's file holds that rank's bytes, as they are.")  # fmt: skip
        same(f"{case}: how often {manifest} is written", disk.written.count(manifest), 1,
             "One rank writes the manifest, once.")  # fmt: skip
        same(f"{case}: files that are written after the manifest",
             len(disk.written) - 1 - disk.written.index(manifest), 0,
             "The manifest is the last file: a kill before it leaves the older checkpoint, "
             "a kill after it the new one.")  # fmt: skip
        try:
            said = json.loads(disk.files[manifest])
        except ValueError:
            raise Miss("The manifest is JSON.", f"{case}: the manifest",
                       disk.files[manifest][:60], "JSON") from None  # fmt: skip
        want = {"step": step, "shards": [_record(*x) for x in zip(names, shards)]}
        if not isinstance(said, dict) or set(said) != set(want):
            raise Miss("The manifest has the keys step and shards.",
                       f"{case}: the manifest", said, want)  # fmt: skip
        same(f"{case}: step in the manifest", said["step"], step, "The step, a number.")
        same(f"{case}: shards in the manifest", said["shards"], want["shards"],
             "One record per rank, in the order of ranks: name, bytes, crc32 of the shard.")  # fmt: skip
        same(f"{case}: returned before the manifest was written", after.count(False), 0,
             "When save_sharded comes back, on any rank, the checkpoint counts: wait for "
             "rank 0.")  # fmt: skip
        others = set(disk.files) - {*names, manifest}
        same(f"{case}: other files", sorted(others), [], "n shards, one manifest.")


def _saved(disk, step, shards):
    names = [f"{step}.{r}-of-{len(shards)}" for r in range(len(shards))]
    for name, shard in zip(names, shards):
        disk.write(name, shard)
    records = [_record(*both) for both in zip(names, shards)]
    disk.write(
        f"manifest.{step}", json.dumps({"step": step, "shards": records}).encode()
    )


def _two():
    "Steps 8, 9 and 10, three shards each, and a shard of step 11 without a manifest."
    disk = Disk()
    _saved(disk, 10, [b"new-0", _closed(b"new-one"), b"new-two-"])
    _saved(disk, 9, [b"old-0", b"old-one", b"old-two-"])
    _saved(disk, 8, [b"older", b"older-1", b"older-2-"])
    disk.write("11.0-of-3", b"newer")
    return disk


def _closed(data):
    "data and its checksum behind it: all such files have one and the same crc32."
    return data + zlib.crc32(data).to_bytes(4, "little")


@chapter.exercise(
    "Begin with the newest manifest, and believe nothing that it says before you have seen it.",
    "The steps of all manifests as numbers, largest first. Read the manifest (ValueError: "
    "no JSON) and its shards (FileNotFoundError); compare size and zlib.crc32. The first "
    "step where all fit is the answer.",
    "for step in sorted(steps, reverse=True):\n"
    "    try:\n"
    '        records = json.loads(folder.read(f"manifest.{step}"))["shards"]\n'
    '        shards = [folder.read(r["name"]) for r in records]\n'
    "    except (FileNotFoundError, ValueError):\n"
    "        continue\n"
    "    if all(...):\n"
    "        return step, shards",
)
def newest(answer):
    "The newest checkpoint that is whole."

    def ask(case, disk):
        try:
            return answer(disk)
        except FileNotFoundError as error:
            said = f"FileNotFoundError: {error}"
        raise Miss(f"It raised {said}. What is missing is no error here: take the step "
                   "before.", case, said, "the newest that is whole")  # fmt: skip

    def look(case, disk, step, rule):
        got = ask(case, disk)
        if got is None:
            raise Miss(rule, f"{case}: what comes out", "None", f"step {step}")
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            raise Miss("It returns (step, [bytes, ...]).", case, got, (step, "..."))
        want = [disk.files[r["name"]]
                for r in json.loads(disk.files[f"manifest.{step}"])["shards"]]  # fmt: skip
        shards = [bytes(b) for b in got[1]]
        if not agree(got[0], step):
            raise Miss(rule, f"{case}: step and shards", (got[0], shards), (step, want))
        same(f"{case}: shards", shards, want,
             "The shards' bytes, in the order of the manifest.")  # fmt: skip

    start = "manifests of steps 8, 9 and 10; a shard of step 11 without one"
    look(start, _two(), 10, "10 is newer than 9, also where text sorts otherwise; without a "
         "manifest there is no checkpoint.")  # fmt: skip
    three = _two()
    _saved(three, 25, [b"newest"])
    look("manifests of steps 8, 9, 10 and 25", three, 25, "Compare the steps as numbers, all "
         "of them.")  # fmt: skip
    many = Disk()
    _saved(many, 3, [f"shard {r}".encode() for r in range(11)])
    look("one checkpoint of 11 ranks", many, 3, "It is whole.")
    for what, name, data in (
        ("10.2-of-3 breaks off after 3 bytes", "10.2-of-3", b"new"),
        ("one byte of 10.2-of-3 flipped", "10.2-of-3", b"new-twO-"),
        ("one byte of 10.0-of-3 flipped", "10.0-of-3", b"nEw-0"),
        ("10.1-of-3 is shorter, with the same crc32", "10.1-of-3", _closed(b"new")),
        ("10.1-of-3 is missing", "10.1-of-3", None),
        ("manifest.10 breaks off", "manifest.10", b'{"step": 10, "sha'),
        ("manifest.10 is empty", "manifest.10", b""),
    ):
        disk = _two()
        disk.files.pop(name)
        if data is not None:
            disk.write(name, data)
        rule = "Go back to the one before when a single shard, or the manifest, is not whole."
        if "crc32" in what:
            rule = (
                "The size is compared as well: other bytes may have the same checksum."
            )
        look(f"{start}; {what}", disk, 9, rule)
    disk = _two()
    disk.write("manifest.12", b"?")
    look(f"{start}; manifest.12 is no JSON", disk, 10, "Try the next, not the last.")
    for case, empty in (("no file at all", Disk()), ("shards, no manifest", Disk())):
        if "shards" in case:
            empty.write("5.0-of-1", b"data")
        got = ask(case, empty)
        if got is not None:
            raise Miss("Without any whole checkpoint it returns None.", case, got, None)
    disk = _two()
    for name in ("8.0-of-3", "9.0-of-3", "10.0-of-3"):
        disk.files[name] = b"?????"
    got = ask("all checkpoints damaged", disk)
    if got is not None:
        raise Miss("Where none is whole it returns None.", "all checkpoints damaged", got, None)  # fmt: skip


@chapter.exercise(
    "Old shards and new shards are intervals on one line. What does each pair share?",
    "bounds(P, n, old) and bounds(P, m, rank): they share max of the starts to min of the "
    "stops, if that is not empty. Count from the old shard's start.",
    "low, high = bounds(P, m, rank)\n"
    "for old in range(n):\n"
    "    start, stop = bounds(P, n, old)\n"
    "    first, last = max(low, start), min(high, stop)\n"
    "    ...  # keep (old, first - start, last - start) if it holds something",
)
def pieces(answer):
    "Which parts of which old shards a new rank reads."
    for P, n, m in ((10, 4, 3), (7, 2, 5), (12, 4, 4), (3, 4, 2), (9, 1, 2), (11, 5, 1), (2, 1, 3)):  # fmt: skip
        for rank in reversed(range(m)):
            case = f"{P} numbers, from {n} shards to {m}, new rank {rank}"
            got = [tuple(int(x) for x in piece) for piece in answer(P, n, rank, m)]
            mine = range(*course.bounds(P, m, rank))
            want = []
            for old in range(n):
                start, stop = course.bounds(P, n, old)
                places = [p - start for p in range(start, stop) if p in mine]
                if places:
                    want.append((old, places[0], places[-1] + 1))
            same(case, got, want,
                 "(old rank, start, stop), counted from the old shard's own beginning; "
                 "together the new rank's numbers, in order, and no empty piece.")  # fmt: skip


# ---- the same bits ----


class _Nothing:
    "What add_up returns: whoever uses it is told."

    def _used(self, *_):
        raise Miss("add_up(x) changes x in place and returns nothing: go on with x.",
                   "x = add_up(x)", "nothing", "add_up(x)")  # fmt: skip

    __getattr__ = __getitem__ = __iter__ = __len__ = _used
    __add__ = __radd__ = __mul__ = __rmul__ = __truediv__ = _used


@chapter.exercise(
    "Sums of floats depend on their order. Which order could every number of ranks have?",
    "A buffer (V, P) of zeros, this rank's gradients in their rows, add_up(buffer): every "
    "row has one addend that is not zero. Then every rank adds the rows 0, 1, 2 ... itself.",
    "(P,) = next(iter(mine.values())).shape\n"
    "part_VP = torch.zeros(V, P)\n"
    "for v, grad_P in mine.items():\n"
    "    part_VP[v] = grad_P\n"
    "add_up(part_VP)\n"
    "...  # total = total + part_VP[v], v by v; divide by V at the end",
)
def ordered_mean(answer):
    "The mean of V shards' gradients, bit for bit the same on any number of ranks."

    def deal(V, P, how):
        generator = torch.Generator().manual_seed(V)
        grads_VP = torch.randn(V, P, generator=generator) * 10 ** (
            torch.arange(V) % 4.0
        ).view(V, 1)

        def fn(rank, n):
            mine = {v: grads_VP[v].clone() for v in range(V) if how(v, n, V) == rank}
            used = []

            def add_up(x):
                used.append(tuple(x.shape))
                dist.all_reduce(x)
                return _Nothing()

            return answer(mine, V, add_up), used

        return grads_VP, fn

    ways = {
        "dealt like cards": lambda v, n, V: v % n,
        "in blocks": lambda v, n, V: v * n // V,
    }
    for V, P in ((7, 5), (4, 3)):
        grads_VP, fn = deal(V, P, ways["dealt like cards"])
        case = f"{V} logical shards, 1 rank"
        ((alone, used),) = play(case, fn, 1)
        same(case, alone, grads_VP.double().mean(0).float(),
             "The mean of the V gradients: (P,).", rtol=1e-5)  # fmt: skip
        same(
            f"{case}: dtype", str(alone.dtype), "torch.float32", "The gradients' dtype."
        )
        same(
            f"{case}: calls of add_up", len(used), 1, "One call, add_up(x), is enough."
        )
        for n, (how, way) in itertools.product((2, 3, 4), ways.items()):
            case = f"{V} logical shards {how}, {n} ranks"
            _, fn = deal(V, P, way)
            for rank, (got, used) in enumerate(play(case, fn, n)):
                same(f"{case}, rank {rank}", got, alone,
                     "Every rank gets the mean of all V gradients.", rtol=1e-4)  # fmt: skip
                same(f"{case}, rank {rank}: calls of add_up", len(used), 1,
                     "Every rank calls add_up once.")  # fmt: skip
                same(f"{case}, rank {rank}: numbers whose bits differ from 1 rank's",
                     int((got != alone).sum()), 0,
                     "The sum is right, but its order depends on n: rounding differs.")  # fmt: skip


class _Cluster:
    "attempt(n) plays a plan: (what happens, step of the newest checkpoint after it)."

    def __init__(self, plan, start):
        self.plan, self.asked, self.step = list(plan), [], start

    def attempt(self, n):
        self.asked.append(n)
        if not self.plan:
            raise Miss("It never stops: after the last line of the plan it tries again.",
                       "attempts with n =", self.asked, "an end")  # fmt: skip
        what, self.step = self.plan.pop(0)
        if what == "done":
            return "weights"
        if what == "bug":
            raise KeyError("a bug")
        if what == "timeout":
            raise ranks.RankTimeout("no rank can go on", 0, "timeout")
        raise ranks.RankError(f"rank 1 {what}", 1, what)

    def newest_step(self):
        return self.step


@chapter.exercise(
    "Try; where a rank died, try again with one rank fewer. When is trying again useless?",
    "except ranks.RankError as error: error.kind is 'died' for a machine. Other kinds, the "
    "last rank's death, and a second death in a row without a newer checkpoint go to the "
    "caller: raise.",
    "last, stuck = newest_step(), 0\n"
    "while True:\n"
    "    try:\n"
    "        return attempt(n)\n"
    "    except ranks.RankError as error:\n"
    "        now = newest_step()\n"
    "        stuck = 0 if now > last else stuck + 1\n"
    "        ...  # raise, or n - 1 and last = now",
    seconds=3,
)
def run_to_the_end(answer):
    "Attempts with fewer and fewer ranks."
    died = lambda *steps: [("died", step) for step in steps]  # noqa: E731
    for case, n, start, plan, tries, want, rule in (
        ("nobody dies", 3, 0, [("done", 9)], 1, "weights", "Nothing to repair."),
        ("two deaths, each after a newer checkpoint", 4, 0, [*died(5, 10), ("done", 15)],
         3, "weights", "One rank fewer after each death."),
        ("a death without a checkpoint, then the end", 4, 0, [*died(0), ("done", 15)],
         2, "weights", "A single death without a newer checkpoint may be bad luck."),
        ("deaths with, without, with and without a newer checkpoint", 7, 0,
         [*died(5, 5, 10, 10), ("done", 15)], 5, "weights",
         "Two in a row count: a newer checkpoint begins the count anew."),
        ("a checkpoint is there at the start, and none is newer", 8, 5, died(*[5] * 8), 2,
         "died", "A checkpoint that was there at the start is no newer one: raise the error."),
        ("no checkpoint at all", 5, 0, died(*[0] * 5), 2, "died",
         "Twice at the same place is a bug, not a machine: raise the error."),
        ("one newer checkpoint, then none", 6, 0, died(*[5] * 6), 3, "died",
         "The second and the third death brought no newer checkpoint than the first: twice "
         "in a row, raise the error."),
        ("one rank, which dies after a checkpoint", 1, 0, [*died(5), ("done", 9)], 1, "died",
         "When the last rank dies nobody is left: raise the error."),
        ("a rank raises an error", 4, 0, [("raised", 5), ("done", 9)], 1, "raised",
         "An error of the program comes again with fewer ranks: only 'died' is repaired."),
        ("the ranks hang", 4, 0, [("timeout", 5), ("done", 9)], 1, "timeout",
         "Only 'died' is repaired; a hang goes to the caller."),
        ("an error that is no RankError", 4, 0, [("bug", 5), ("done", 9)], 1, "KeyError",
         "Only ranks.RankError is caught."),
    ):  # fmt: skip
        cluster = _Cluster(plan, start)
        case = (f"{n} ranks; {case}: newest step {start} at the start, then "
                f"{', '.join(f'{what} ({step})' for what, step in plan)}")  # fmt: skip
        try:
            got = answer(cluster.attempt, n, cluster.newest_step)
        except ranks.RankError as error:
            got = error.kind
        except KeyError:
            got = "KeyError"
        asked = [n - i for i in range(tries)]
        if cluster.asked != asked:
            raise Miss(rule, f"{case}; attempts with n =", cluster.asked, asked)
        same(f"{case}; what comes out", got, want,
             f"{rule} The last attempt's result, or its error, goes to the caller.")  # fmt: skip


@chapter.exercise(
    "Some survivors have made the last step, some have not. Who can give, who must take?",
    "dist.all_reduce(..., op=dist.ReduceOp.MAX) finds the furthest step. MIN over the ranks "
    "that are there finds one giver; dist.broadcast brings its state.",
    "me, n = dist.get_rank(), dist.get_world_size()\n"
    "furthest = torch.tensor(step)\n"
    "dist.all_reduce(furthest, op=dist.ReduceOp.MAX)\n"
    "source = torch.tensor(me if step == furthest else n)\n"
    "...  # MIN over source; broadcast(state_P, src=int(source))",
    mutates=True,
)
def catch_up(answer):
    "Step and state of the furthest rank, on all ranks."
    for steps in ([5, 6, 5], [7, 6, 6], [6, 6, 7], [4, 4], [3, 4, 4, 3], [9]):
        n, case = len(steps), f"ranks after {steps} steps"
        states = [10.0 * s + torch.arange(3.0) + r / 8 for r, s in enumerate(steps)]
        top = 10.0 * max(steps)  # its state is not the largest, number by number
        states = [torch.tensor([top, -top - 1, top + 2]) if s == max(steps) else state
                  for s, state in zip(steps, states)]  # fmt: skip
        made = play(case, lambda r, n, steps=steps, states=states:
                     answer(steps[r], states[r].clone()), n)  # fmt: skip
        for rank, one in enumerate(made):
            if not isinstance(one, (tuple, list)) or len(one) != 2:
                raise Miss("It returns (step, state_P).", f"{case}: rank {rank}", one)
        rows = [
            [float(step), *as_array(state).ravel().tolist()] for step, state in made
        ]
        furthest = states[steps.index(max(steps))]
        same(f"{case}: step and state of each rank", rows,
             [[float(max(steps)), *furthest.tolist()]] * n,
             "All leave with the furthest step and with the state that belongs to it.")  # fmt: skip


# ---- how often ----


@chapter.exercise(
    "n machines fail n times as often as one.",
    "Mean time between failures of all is M / n. Then the square root of 2 C (M / n).",
    "return math.sqrt(2 * C * ...)",
)
def interval(answer):
    "Young's interval."
    for C, M, n in (
        (300.0, 21600.0, 1),
        (60.0, 1.6e8, 1024),
        (8.0, 900.0, 4),
        (1.5, 7.3, 3),
    ):
        same(f"C = {C:g} s, M = {M:g} s, {n} machines", answer(C, M, n),
             (2 * C * M / n) ** 0.5, "sqrt(2 C M / n), M / n being the mean time between "
             "failures of all.")  # fmt: skip


@chapter.exercise(
    "Go from event to event: a stretch of work with its checkpoint, or a restart.",
    "A stretch lasts min(tau, left) + C. If the next failure falls into it, the clock stands "
    "at the failure and a restart of R comes next. The restart can be hit as well.",
    "t, left, down = 0, work, False\n"
    "while left > 0:\n"
    "    part = min(tau, left)\n"
    "    end = t + (R if down else part + C)\n"
    "    if failure < end:\n"
    "        ...  # t, down, and the next failure\n"
    "    else:\n"
    "        ...  # t = end; work is done unless it was a restart",
)
def simulate(answer):
    "Seconds until all work is done and saved."
    for failures, want, rule in (
        ([], 13, "10 s of work in stretches of 4, 4 and 2, and a checkpoint after each, the "
                 "last one too."),
        ([3], 18, "The 3 s are lost; the restart takes 2."),
        ([4.5], 19.5, "A failure while the checkpoint is written loses the stretch."),
        ([6], 16, "What was saved stays: only the work since is lost."),
        ([5], 15, "At the very end of a checkpoint it is saved: the failure hits what comes "
                  "next."),
        ([3, 4], 19, "A failure in a restart begins the restart anew."),
        ([3, 4, 5.5], 20.5, "Each failure in a restart begins it anew."),
        ([3, 5], 20, "At the very end of a restart: one more restart."),
        ([12.5], 17.5, "The last checkpoint can be hit as well."),
        ([13], 13, "At the very end of all it does no harm."),
        ([20, 30], 13, "Failures after the end do no harm."),
        ([0, 1, 6, 6.5], 21.5, "The rule is the same for each failure."),
    ):  # fmt: skip
        case = f"work 10, tau 4, C 1, R 2, failures at {failures}"
        same(case, answer(10.0, 4.0, 1.0, 2.0, list(failures)), want, rule)
    same("work 0.5, tau 8, C 0.5, R 1, no failures", answer(0.5, 8.0, 0.5, 1.0, []), 1.0,
         "Less than a second of work is work as well.")  # fmt: skip
    same("work 3, tau 8, C 0.5, R 1, no failures", answer(3.0, 8.0, 0.5, 1.0, []), 3.5,
         "A stretch is no longer than the work that is left.")  # fmt: skip
    rng = np.random.default_rng(0)
    failures = np.cumsum(rng.exponential(50.0, 400)).tolist()
    same("work 1000, tau 21, C 3, R 7, failures every 50 s on average",
         answer(1000.0, 21.0, 3.0, 7.0, failures),
         course.simulate(1000.0, 21.0, 3.0, 7.0, failures), "The same rules, longer.")  # fmt: skip


# ---- unequal machines ----


def _least(speeds, B):
    "The earliest moment at which all B rows can be done, by trying all ways."
    if len(speeds) == 1:
        return B / speeds[0]
    return min(max(k / speeds[0], _least(speeds[1:], B - k)) for k in range(B + 1))


@chapter.exercise(
    "All wait for the last. To whom would you give one more row?",
    "To the machine that would be ready first with it: the smallest (rows + 1) / speed. "
    "Rounding shares loses rows, or adds some.",
    "rows = [0] * len(speeds)\n"
    "for _ in range(B):\n"
    "    i = min(range(len(speeds)), key=lambda i: ...)\n"
    "    rows[i] += 1",
)
def share_rows(answer):
    "Whole rows, so that the last machine is ready as early as can be."
    for speeds, B in (
        ([1.0, 1.0, 1.0], 8), ([2.0, 1.0], 10), ([3.0, 1.0, 1.0], 1), ([1.0, 4.0], 0),
        ([5.0, 3.0, 0.4], 11), ([1.0, 0.5, 1.0, 1.0], 10), ([0.3, 0.3, 2.0], 5), ([7.0], 3), ([1.0, 0.35], 4), ([1.0, 0.6], 2),
        ([10.0, 1.0, 1.0], 5),
    ):  # fmt: skip
        case = f"speeds {speeds}, {B} rows"
        rows = answer(list(speeds), B)
        same(
            f"{case}: how many numbers",
            len(rows),
            len(speeds),
            "One number per machine.",
        )
        if any(float(r) != int(r) or r < 0 for r in rows):
            raise Miss("Rows are whole numbers from 0.", case, list(rows))
        same(f"{case}: rows in all", sum(int(r) for r in rows), B,
             "Every row is dealt once: none lost, none twice.")  # fmt: skip
        same(f"{case}: when the last machine is ready",
             max(int(r) / s for r, s in zip(rows, speeds)), _least(speeds, B),
             "There is a split with which the last machine is ready earlier.")  # fmt: skip


def _queue(seed, count=24):
    rng = random.Random(seed)
    sizes, hours = (1, 1, 2, 3, 4, 6), (1.0, 2.0, 4.0, 8.0)
    arrive = sorted(rng.uniform(0, 12) for _ in range(count))
    return [pool.Job(round(a, 2), rng.choice(sizes), rng.choice(hours)) for a in arrive]


@chapter.exercise(
    "One function, three rules. Which job is asked first, and may another pass it?",
    "First come: waiting[0] or nobody. Longest first: the largest hours or nobody. "
    "Backfilling: waiting[0]; else, in order, a job that fits and does not delay it. For "
    "that, go through sorted(running) until enough machines are free: that is when "
    "waiting[0] begins, and what is free beyond its size is spare.",
    "count = len(free)\n"
    "for end, size in sorted(running):\n"
    "    if count >= head.size and end > begins:\n"
    "        break\n"
    "    count, begins = count + size, end\n"
    "spare = count - head.size\n"
    "...  # job i: fits, and (now + job.hours / free[job.size - 1] <= begins or "
    "job.size <= spare)",
)
def choose(answer):
    "First come, longest first, backfilling."
    J = pool.Job

    def ask(case, rule, waiting, free, running, now, want, why):
        waiting = [J(0.0, size, hours) for size, hours in waiting]
        told = (f"{rule}; {case}; waiting (size, hours) {[tuple(j[1:]) for j in waiting]}, "
                f"free {free}, running {running}, now {now:g}")  # fmt: skip
        got = answer(rule, list(waiting), list(free), list(running), now)
        shown = "nobody" if got is None else int(got)
        same(told, shown, "nobody" if want is None else want, why)

    two = [2.0, 1.0]
    for rule in pool.RULES:
        ask("the first fits", rule, [(2, 9.0), (1, 1.0)], two, [], 0.0, 0,
            "The first job fits, and is the longest: it starts under every rule.")  # fmt: skip
    ask("the first does not fit", "first come", [(3, 1.0), (1, 1.0)], two, [(4.0, 2)], 0.0,
        None, "Who came first goes first: all behind it wait.")  # fmt: skip
    ask("the second is longer", "longest first", [(1, 1.0), (2, 5.0), (1, 5.0)], two, [], 0.0,
        1, "The largest `hours`; of equals the one that came first.")  # fmt: skip
    ask("four machines, the last is the longest", "longest first",
        [(4, 1.0), (2, 3.0), (1, 5.0)], [2.0, 2.0, 1.0, 1.0], [], 0.0, 2,
        "The largest `hours` goes first, however few machines it needs.")  # fmt: skip
    ask("the longest does not fit", "longest first", [(1, 1.0), (3, 5.0)], two, [(4.0, 2)],
        0.0, None, "The longest goes first: all others wait for it.")  # fmt: skip
    back, why = "backfilling", "A later job may pass if the first is not delayed by it."
    ask("far too long", back, [(4, 1.0), (2, 9.0)], two, [(4.0, 2)], 1.0, None,
        f"{why} It would run until 10, on machines that the first needs at 4.")  # fmt: skip
    ask("the second ends in time, the third needs what is to spare", back,
        [(3, 1.0), (2, 2.0), (1, 50.0)], two, [(4.0, 2)], 1.0, 1,
        f"{why} The second ends at 3, before the first begins at 4.")  # fmt: skip
    ask("ten hours later", back, [(4, 1.0), (2, 9.0)], two, [(14.0, 2)], 10.0, None,
        f"{why} It would run until 19, on machines that the first needs at 14.")  # fmt: skip
    ask("ends just in time", back, [(4, 1.0), (2, 3.0)], two, [(4.0, 2)], 1.0, 1,
        f"{why} 3 hours at speed 1 (the slower of its two machines) end at 4, when the "
        "first begins.")  # fmt: skip
    ask("would end too late", back, [(4, 1.0), (2, 3.5)], two, [(4.0, 2)], 1.0, None,
        f"{why} It would still run at 4, on machines that the first needs.")  # fmt: skip
    ask("fast machines", back, [(4, 1.0), (1, 6.0)], [4.0, 2.0], [(4.5, 2)], 1.0, 1,
        f"{why} It takes the fastest: 6 hours at speed 4 end at 2.5.")  # fmt: skip
    ask("ends in time on a fast machine", back, [(4, 1.0), (1, 6.0)], two, [(4.0, 2)], 1.0, 1,
        f"{why} A job of one machine takes the fastest: 6 hours at speed 2.")  # fmt: skip
    ask("long, on a machine to spare", back, [(3, 1.0), (1, 50.0)], two, [(4.0, 2)], 1.0, 1,
        f"{why} At 4 four machines are free and the first needs 3: one is to spare.")  # fmt: skip
    ask("long, and too large for what is to spare", back, [(3, 1.0), (2, 50.0)], two,
        [(4.0, 2)], 1.0, None, f"{why} At 4 only one machine is to spare.")  # fmt: skip
    ask("the second would delay it, the third not", back, [(4, 1.0), (2, 9.0), (2, 1.0)], two,
        [(4.0, 2)], 1.0, 2, f"{why} In order, the first of those that may.")  # fmt: skip
    ask("nothing is free", back, [(2, 1.0), (1, 1.0)], [], [(4.0, 2)], 1.0, None,
        "Without a free machine nobody starts.")  # fmt: skip
    ask("the first needs the second end", back, [(4, 1.0), (1, 4.0)], [1.0],
        [(9.0, 2), (3.0, 1), (6.0, 1)], 1.0, 1,
        "The first begins when enough have ended, here at 9 (running is in no order).")  # fmt: skip
    ask("two end together", back, [(3, 1.0), (1, 50.0)], [1.0], [(5.0, 2), (5.0, 1)], 1.0, 1,
        "Jobs that end at the same moment free all their machines: one of four is to spare.")  # fmt: skip
    ask("two end together, and the first of them is enough", back, [(2, 1.0), (1, 50.0)],
        [1.0], [(5.0, 1), (5.0, 2)], 1.0, 1,
        "All that end at that moment count: at 5 four are free, the first needs 2.")  # fmt: skip
    ask("enough without the last to end", back, [(3, 1.0), (1, 50.0)], [1.0],
        [(5.0, 2), (7.0, 1)], 1.0, None,
        "At 5 three are free and the first needs all: what ends at 7 does not count.")  # fmt: skip
    speeds = [2.0, 2.0, 1.0, 1.0, 1.0, 0.5]
    for seed, rule in itertools.product((0, 1), pool.RULES):
        jobs = _queue(seed)
        case = f"a day's queue {seed} of {len(jobs)} jobs on speeds {speeds}, {rule}"
        try:
            found = pool.play(jobs, speeds, rule, answer)
        except RuntimeError as error:
            raise Miss("A job starts where it fits, and as soon as it may.", case, str(error),
                       "every job starts") from None  # fmt: skip
        right = pool.play(jobs, speeds, rule)
        same(f"{case}: use, mean wait", pool.judge(jobs, speeds, found),
             pool.judge(jobs, speeds, right), "The rules are the same in a long queue.")  # fmt: skip
