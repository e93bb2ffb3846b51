"Chapter 21: small wrong programs, each with the sentence that names it."

import json
import math
import zlib

import torch
from torch import distributed as dist

from utils import ranks
from utils.built import failures as course
from utils.built import pool
from utils.checks import failures as ex

# ---- save_sharded ----


def _record(name, shard):
    return {"name": name, "bytes": len(shard), "crc32": zlib.crc32(shard)}


def _commit(folder, step, records):
    manifest = {"step": step, "shards": records}
    folder.write(f"manifest.{step}", json.dumps(manifest).encode())


def _gather(n, record):
    records = [None] * n
    dist.all_gather_object(records, record)
    return records


@ex.save_sharded.slip(
    "Rank 0 writes the manifest while others still write shards: a kill now leaves a promise that nobody keeps."
)
def manifest_too_early(folder, step, rank, n, shard):
    name = f"{step}.{rank}-of-{n}"
    records = _gather(n, _record(name, shard))
    if rank == 0:
        folder.write(name, shard)
        _commit(folder, step, records)
    dist.barrier()
    if rank != 0:
        folder.write(name, shard)
    dist.barrier()


@ex.save_sharded.slip(
    "All ranks write the manifest: one is enough, and two may write it at the same time."
)
def all_write_it(folder, step, rank, n, shard):
    name = f"{step}.{rank}-of-{n}"
    folder.write(name, shard)
    _commit(folder, step, _gather(n, _record(name, shard)))
    dist.barrier()


@ex.save_sharded.slip(
    "The other ranks do not wait for the manifest: they go on, and may delete the older checkpoint, before the new one counts."
)
def no_barrier(folder, step, rank, n, shard):
    name = f"{step}.{rank}-of-{n}"
    folder.write(name, shard)
    records = _gather(n, _record(name, shard))
    if rank == 0:
        _commit(folder, step, records)


@ex.save_sharded.slip(
    "All ranks write into files without the rank in the name: the last one wins."
)
def one_name(folder, step, rank, n, shard):
    folder.write(f"{step}", shard)
    records = _gather(n, _record(f"{step}", shard))
    if rank == 0:
        _commit(folder, step, records)
    dist.barrier()


@ex.save_sharded.slip(
    "The manifest has rank 0's record only: the others' shards could be missing and nobody would notice."
)
def own_record_only(folder, step, rank, n, shard):
    name = f"{step}.{rank}-of-{n}"
    folder.write(name, shard)
    dist.barrier()
    if rank == 0:
        _commit(folder, step, [_record(name, shard)])
    dist.barrier()


@ex.save_sharded.slip("The ranks hang: only rank 0 comes to all_gather_object.")
def only_rank_0_gathers(folder, step, rank, n, shard):
    name = f"{step}.{rank}-of-{n}"
    folder.write(name, shard)
    if rank == 0:
        _commit(folder, step, _gather(n, _record(name, shard)))
    dist.barrier()


# ---- newest ----


def _steps(folder):
    names = [name[9:] for name in folder.names() if name.startswith("manifest.")]
    return sorted(int(name) for name in names)


def _whole(shard, record):
    return len(shard) == record["bytes"] and zlib.crc32(shard) == record["crc32"]


def _search(folder, steps, fits=_whole, errors=(FileNotFoundError, ValueError)):
    for step in steps:
        try:
            records = json.loads(folder.read(f"manifest.{step}"))["shards"]
            shards = [folder.read(r["name"]) for r in records]
        except errors:
            continue
        if all(fits(*both) for both in zip(shards, records)):
            return step, shards
    return None


@ex.newest.slip("Steps are sorted as text: '9' comes after '10'. Turn them into int.")
def sorted_as_text(folder):
    return _search(folder, sorted(map(str, _steps(folder)), reverse=True))


@ex.newest.slip("Steps are sorted as text: '9' comes after '10'. Turn them into int.")
def numbers_sorted_as_text(folder):
    return _search(folder, sorted(_steps(folder), key=str, reverse=True))


@ex.newest.slip("This is the oldest checkpoint: largest step first.")
def oldest(folder):
    return _search(folder, _steps(folder))


@ex.newest.slip("No checksum is compared: a flipped byte goes unnoticed.")
def size_only(folder):
    fits = lambda shard, record: len(shard) == record["bytes"]  # noqa: E731
    return _search(folder, _steps(folder)[::-1], fits)


@ex.newest.slip(
    "No size is compared: a shorter file with the same checksum goes unnoticed."
)
def checksum_only(folder):
    fits = lambda shard, record: zlib.crc32(shard) == record["crc32"]  # noqa: E731
    return _search(folder, _steps(folder)[::-1], fits)


@ex.newest.slip("The newest manifest is believed: nothing is compared.")
def believes(folder):
    for step in _steps(folder)[::-1]:
        records = json.loads(folder.read(f"manifest.{step}"))["shards"]
        return step, [folder.read(r["name"]) for r in records]


@ex.newest.slip(
    "A damaged shard is an error here; the reader goes back to the checkpoint before."
)
def gives_up(folder):
    for step in _steps(folder)[::-1]:
        records = json.loads(folder.read(f"manifest.{step}"))["shards"]
        shards = [folder.read(r["name"]) for r in records]
        if not all(_whole(*both) for both in zip(shards, records)):
            raise OSError("damaged")
        return step, shards


@ex.newest.slip("A step with one bad shard is not whole: take the step before.")
def skips_the_shard(folder):
    for step in _steps(folder)[::-1]:
        shards = []
        records = json.loads(folder.read(f"manifest.{step}"))["shards"]
        for record in records:
            shard = folder.read(record["name"])
            if _whole(shard, record):
                shards.append(shard)
        if shards:
            return step, shards


@ex.newest.slip("A missing shard ends the search: catch FileNotFoundError and go on.")
def missing_ends_it(folder):
    return _search(folder, _steps(folder)[::-1], errors=ValueError)


@ex.newest.slip(
    "A manifest that is no JSON ends the search: catch ValueError and go on."
)
def broken_manifest_ends_it(folder):
    return _search(folder, _steps(folder)[::-1], errors=FileNotFoundError)


# ---- pieces ----


def _between(P, n, rank, m):
    low, high = course.bounds(P, m, rank)
    for old in range(n):
        start, stop = course.bounds(P, n, old)
        yield old, start, max(low, start), min(high, stop)


@ex.pieces.slip(
    "These count from the beginning of the whole: subtract the old shard's start."
)
def whole_numbers(P, n, rank, m):
    return [(old, a, b) for old, start, a, b in _between(P, n, rank, m) if a < b]


@ex.pieces.slip("These count from the beginning of the new shard, not of the old one.")
def from_the_new(P, n, rank, m):
    low = course.bounds(P, m, rank)[0]
    return [
        (old, a - low, b - low) for old, start, a, b in _between(P, n, rank, m) if a < b
    ]


@ex.pieces.slip("Empty pieces are left out: start < stop, not start <= stop.")
def keeps_empty(P, n, rank, m):
    return [
        (old, a - start, b - start)
        for old, start, a, b in _between(P, n, rank, m)
        if a <= b
    ]


@ex.pieces.slip(
    "Old shards are read whole; where a new shard begins or ends inside one, only a part of it belongs here."
)
def whole_shards(P, n, rank, m):
    found = []
    for old, start, a, b in _between(P, n, rank, m):
        if a < b:
            found.append((old, 0, course.bounds(P, n, old)[1] - start))
    return found


@ex.pieces.slip(
    "All shards are taken as equally long, rounded down: the last numbers are nobody's. bounds(P, n, rank) says where they lie."
)
def equal_shards(P, n, rank, m):
    k, j, found = max(P // n, 1), P // m, []
    for old in range(n):
        a, b = max(rank * j, old * k), min((rank + 1) * j, (old + 1) * k)
        if a < b:
            found.append((old, a - old * k, b - old * k))
    return found


@ex.pieces.slip("n and m are swapped: n old shards are there, m new ranks read them.")
def swapped(P, n, rank, m):
    low, high = P * rank // n, P * (rank + 1) // n
    edges = [(P * old // m, P * (old + 1) // m) for old in range(m)]
    return [
        (old, max(low, a) - a, min(high, b) - a)
        for old, (a, b) in enumerate(edges)
        if max(low, a) < min(high, b)
    ]


@ex.pieces.slip("The third number is where the piece stops, not how long it is.")
def lengths(P, n, rank, m):
    return [
        (old, a - start, b - a) for old, start, a, b in _between(P, n, rank, m) if a < b
    ]


# ---- ordered_mean ----


def _buffer(mine, V):
    (P,) = next(iter(mine.values())).shape
    part_VP = torch.zeros(V, P)
    for v, grad_P in mine.items():
        part_VP[v] = grad_P
    return part_VP


@ex.ordered_mean.slip(
    "Each rank adds its own first, then the ranks' sums are added: that order depends on n."
)
def sum_then_reduce(mine, V, add_up):
    total_P = sum(mine.values())
    add_up(total_P)
    return total_P / V


@ex.ordered_mean.slip("This is the sum: divide by V at the end.")
def not_divided(mine, V, add_up):
    part_VP = _buffer(mine, V)
    add_up(part_VP)
    return sum(part_VP)


@ex.ordered_mean.slip("Nothing was exchanged: this rank's gradients only.")
def never_exchanged(mine, V, add_up):
    return sum(_buffer(mine, V)) / V


@ex.ordered_mean.slip("Divide by V, the number of logical shards, not by this rank's.")
def divided_by_own(mine, V, add_up):
    part_VP = _buffer(mine, V)
    add_up(part_VP)
    return sum(part_VP) / len(mine)


@ex.ordered_mean.slip(
    "Row i holds the rank's i-th gradient, not gradient v: those of several ranks are added there before their turn."
)
def rows_in_own_order(mine, V, add_up):
    part_VP = torch.zeros(V, len(next(iter(mine.values()))))
    for i, v in enumerate(sorted(mine)):
        part_VP[i] = mine[v]
    add_up(part_VP)
    return sum(part_VP) / V


@ex.ordered_mean.slip(
    "One call per logical shard: a buffer (V, P) brings all of them in one."
)
def one_call_each(mine, V, add_up):
    part_VP = _buffer(mine, V)
    for v in range(V):
        add_up(part_VP[v])
    return sum(part_VP) / V


@ex.ordered_mean.slip(told="add_up(x) changes x in place and returns nothing")
def keeps_what_comes_back(mine, V, add_up):
    part_VP = add_up(_buffer(mine, V))
    return sum(part_VP[v] for v in range(V)) / V


# ---- run_to_the_end ----


@ex.run_to_the_end.slip(
    "It tries for ever: a bug kills every attempt at the same step. Count deaths without a newer checkpoint."
)
def for_ever(attempt, n, newest_step):
    while True:
        try:
            return attempt(n)
        except ranks.RankError as error:
            if error.kind != "died" or n == 1:
                raise
            n -= 1


@ex.run_to_the_end.slip(
    "The number of ranks stays: the machine that died is not there any more."
)
def same_number(attempt, n, newest_step):
    last, stuck = newest_step(), 0
    while True:
        try:
            return attempt(n)
        except ranks.RankError as error:
            now = newest_step()
            stuck, last = (0 if now > last else stuck + 1), now
            if error.kind != "died" or stuck == 2:
                raise


def _restart(
    attempt, n, newest_step, kinds=("died",), reset=True, most=2, least=1, start=None
):
    last, stuck = newest_step() if start is None else start, 0
    while True:
        try:
            return attempt(n)
        except ranks.RankError as error:
            now = newest_step()
            stuck = (0 if reset else stuck) if now > last else stuck + 1
            if error.kind not in kinds or n == least or stuck == most:
                raise
            n, last = n - 1, now


@ex.run_to_the_end.slip(
    "Every error is taken for a death: a bug that raises comes again with fewer ranks."
)
def repairs_everything(attempt, n, newest_step):
    return _restart(attempt, n, newest_step, ("died", "raised", "timeout"))


@ex.run_to_the_end.slip("The first value is newest_step() at the start, not 0.")
def from_zero(attempt, n, newest_step):
    return _restart(attempt, n, newest_step, start=0)


@ex.run_to_the_end.slip(
    "Each death is compared with the start alone: compare with the newest step at the death before."
)
def start_only(attempt, n, newest_step):
    start, stuck = newest_step(), 0
    while True:
        try:
            return attempt(n)
        except ranks.RankError as error:
            stuck = 0 if newest_step() > start else stuck + 1
            if error.kind != "died" or n == 1 or stuck == 2:
                raise
            n -= 1


@ex.run_to_the_end.slip("A newer checkpoint in between begins the count anew.")
def counts_all(attempt, n, newest_step):
    return _restart(attempt, n, newest_step, reset=False)


@ex.run_to_the_end.slip(
    "One death without a newer checkpoint may be bad luck: two in a row."
)
def gives_up_at_once(attempt, n, newest_step):
    return _restart(attempt, n, newest_step, most=1)


@ex.run_to_the_end.slip(
    "When the last rank dies it tries again with 0 ranks: raise the error instead."
)
def down_to_nobody(attempt, n, newest_step):
    return _restart(attempt, n, newest_step, least=0)


@ex.run_to_the_end.slip(
    "Every exception is swallowed: only ranks.RankError tells of a rank."
)
def catches_all(attempt, n, newest_step):
    last, stuck = newest_step(), 0
    while True:
        try:
            return attempt(n)
        except (ranks.RankError, KeyError) as error:
            now = newest_step()
            stuck, last = (0 if now > last else stuck + 1), now
            if getattr(error, "kind", "died") != "died" or n == 1 or stuck == 2:
                raise
            n -= 1


# ---- catch_up ----


def _agree(step, state_P, op, giver):
    me, n = dist.get_rank(), dist.get_world_size()
    chosen = torch.tensor(step)
    dist.all_reduce(chosen, op=op)
    source = torch.tensor(giver(me, n, step == chosen))
    dist.all_reduce(source, op=dist.ReduceOp.MIN)
    state_P = state_P.clone()
    dist.broadcast(state_P, src=int(source))
    return int(chosen), state_P


@ex.catch_up.slip(
    "All go back to the slowest rank's step. That works too, but a finished step is thrown away: take the furthest."
)
def back_to_the_slowest(step, state_P):
    return _agree(step, state_P, dist.ReduceOp.MIN, lambda me, n, has: me if has else n)


@ex.catch_up.slip(
    "Rank 0 gives its state, whoever is furthest: step and state do not belong together."
)
def rank_0_gives(step, state_P):
    return _agree(step, state_P, dist.ReduceOp.MAX, lambda me, n, has: 0)


@ex.catch_up.slip("The step is agreed upon, the state is not: broadcast it.")
def step_only(step, state_P):
    furthest = torch.tensor(step)
    dist.all_reduce(furthest, op=dist.ReduceOp.MAX)
    return int(furthest), state_P


@ex.catch_up.slip("The state comes, but each rank keeps its own step.")
def state_only(step, state_P):
    _, state_P = _agree(
        step, state_P, dist.ReduceOp.MAX, lambda me, n, has: me if has else n
    )
    return step, state_P


@ex.catch_up.slip("Nothing is exchanged: each rank keeps what it has.")
def nothing(step, state_P):
    return step, state_P


def _number_by_number(step, state_P, op):
    furthest, state_P = torch.tensor(step), state_P.clone()
    dist.all_reduce(furthest, op=dist.ReduceOp.MAX)
    dist.all_reduce(state_P, op=op)
    return int(furthest), state_P


@ex.catch_up.slip(
    "The largest of each number is no rank's state: broadcast the furthest rank's."
)
def largest_numbers(step, state_P):
    return _number_by_number(step, state_P, dist.ReduceOp.MAX)


@ex.catch_up.slip(
    "The smallest of each number is no rank's state: broadcast the furthest rank's."
)
def smallest_numbers(step, state_P):
    return _number_by_number(step, state_P, dist.ReduceOp.MIN)


@ex.catch_up.slip("The states are averaged: that is the state of no step at all.")
def averages(step, state_P):
    furthest, state_P = torch.tensor(step), state_P.clone()
    dist.all_reduce(furthest, op=dist.ReduceOp.MAX)
    dist.all_reduce(state_P)
    return int(furthest), state_P / dist.get_world_size()


@ex.catch_up.slip(
    "The ranks hang: each broadcasts from itself. All name the same src in a call."
)
def each_from_itself(step, state_P):
    furthest, state_P = torch.tensor(step), state_P.clone()
    dist.all_reduce(furthest, op=dist.ReduceOp.MAX)
    if step == furthest:
        dist.broadcast(state_P, src=dist.get_rank())
    return int(furthest), state_P


# ---- interval ----


@ex.interval.slip("M of one machine: n machines fail every M / n on average.")
def one_machine(C, M, n):
    return math.sqrt(2 * C * M)


@ex.interval.slip("The 2 is missing: on average half an interval is lost per failure.")
def without_two(C, M, n):
    return math.sqrt(C * M / n)


@ex.interval.slip("n machines fail more often, not less: divide M by n.")
def times_n(C, M, n):
    return math.sqrt(2 * C * M * n)


@ex.interval.slip("The square root is missing.")
def no_root(C, M, n):
    return 2 * C * M / n


@ex.interval.slip("Divide inside the root: n machines shorten the interval by sqrt(n).")
def outside_the_root(C, M, n):
    return math.sqrt(2 * C * M) / n


# ---- simulate ----


def _clock(work, tau, C, R, failures, *, lose_C=True, again=True, last=True, keep=False,
           lose=True, after=True):  # fmt: skip
    failures = iter(failures)
    failure = next(failures, math.inf)
    t, left, down = 0.0, work, False
    while left > 0:
        part = min(tau, left) if last is not None else tau
        end = t + (R if down else part + C)
        limit = end if lose_C or down else t + part
        if failure < limit and (again or not down):
            if keep and not down:
                left -= min(failure - t, part)
            t, down, failure = failure, True, next(failures, math.inf)
            if not lose:
                left = left
            continue
        if failure <= end and not again and down:
            failure = next(failures, math.inf)
        if not down:
            left -= part
            if not last and left <= 0:
                end -= C
        t, down = end, False
        while not lose_C and failure < t:
            failure = next(failures, math.inf)
    return t


@ex.simulate.slip("The last stretch has a checkpoint, too: it saves the result.")
def last_not_saved(work, tau, C, R, failures):
    return _clock(work, tau, C, R, failures, last=False)


@ex.simulate.slip(
    "A failure while the checkpoint is written loses the stretch as well."
)
def writing_is_safe(work, tau, C, R, failures):
    return _clock(work, tau, C, R, failures, lose_C=False)


@ex.simulate.slip("A failure can hit a restart, too: it begins anew.")
def restarts_are_safe(work, tau, C, R, failures):
    return _clock(work, tau, C, R, failures, again=False)


@ex.simulate.slip("Nothing is lost here: the work since the last checkpoint is.")
def loses_nothing(work, tau, C, R, failures):
    return _clock(work, tau, C, R, failures, keep=True)


@ex.simulate.slip("Failures cost nothing here: each loses work, and a restart takes R.")
def no_failures(work, tau, C, R, failures):
    return work + math.ceil(work / tau) * C


@ex.simulate.slip("The restart takes no time here: add R.")
def no_restart_time(work, tau, C, R, failures):
    return _clock(work, tau, C, 0.0, failures)


@ex.simulate.slip("All work is lost at each failure: what was saved stays.")
def loses_everything(work, tau, C, R, failures):
    failures, t = list(failures), 0.0
    while True:
        end = t + work + math.ceil(work / tau) * C
        hit = [f for f in failures if t <= f < end]
        if not hit:
            return end
        t = hit[0] + R
        while any(t - R < f < t for f in failures):
            t = next(f for f in failures if t - R < f < t) + R


# ---- share_rows ----


@ex.share_rows.slip("Rounding down loses rows.")
def rounded_down(speeds, B):
    return [int(B * s / sum(speeds)) for s in speeds]


@ex.share_rows.slip("Equal shares: all wait for the slowest machine.")
def equal_shares(speeds, B):
    n = len(speeds)
    return [B // n + (i < B % n) for i in range(n)]


@ex.share_rows.slip("All rows go to the fastest machine: the others wait for it.")
def fastest_only(speeds, B):
    return [B * (i == speeds.index(max(speeds))) for i in range(len(speeds))]


@ex.share_rows.slip("Each share is rounded by itself: the sum is no longer B.")
def each_rounded(speeds, B):
    return [round(B * s / sum(speeds)) for s in speeds]


@ex.share_rows.slip(
    "All that rounding lost goes to one machine: the others wait for it."
)
def rest_to_the_last(speeds, B):
    rows = rounded_down(speeds, B)
    rows[-1] += B - sum(rows)
    return rows


@ex.share_rows.slip(
    "All that rounding lost goes to one machine: the others wait for it."
)
def rest_to_the_fastest(speeds, B):
    rows = rounded_down(speeds, B)
    rows[speeds.index(max(speeds))] += B - sum(rows)
    return rows


@ex.share_rows.slip(
    "Shares by largest remainder: ask instead who is ready first *with* one more row."
)
def largest_remainder(speeds, B):
    rows = rounded_down(speeds, B)
    exact = [B * s / sum(speeds) for s in speeds]
    order = sorted(range(len(rows)), key=lambda i: rows[i] - exact[i])
    for i in order[: B - sum(rows)]:
        rows[i] += 1
    return rows


@ex.share_rows.slip(
    "A row goes to the machine that is ready first without it; ask who is ready first with it: (rows + 1) / speed."
)
def without_the_next(speeds, B):
    rows = [0] * len(speeds)
    for _ in range(B):
        i = min(range(len(speeds)), key=lambda i: rows[i] / speeds[i])
        rows[i] += 1
    return rows


@ex.share_rows.slip("Shares that are no whole rows: a row cannot be cut.")
def cut_rows(speeds, B):
    return [B * s / sum(speeds) for s in speeds]


# ---- choose ----


def _rules(rule, waiting, free, running, now, *, key="hours", may=None, strict=True):
    first = 0
    if rule == "longest first":
        keys = {
            "hours": lambda i: waiting[i].hours,
            "shortest": lambda i: -waiting[i].hours,
            "size": lambda i: waiting[i].size,
            "work": lambda i: waiting[i].size * waiting[i].hours,
        }
        first = max(range(len(waiting)), key=keys[key])
    if waiting[first].size <= len(free):
        return first
    if rule != "backfilling":
        fits = [i for i, job in enumerate(waiting) if job.size <= len(free)]
        return None if strict or not fits else fits[0]
    begins, spare = pool._reserved(waiting[0], free, running)
    for i, job in enumerate(waiting):
        if job.size <= len(free):
            end = now + job.hours / free[job.size - 1]
            if (may or (lambda *_: end <= begins or job.size <= spare))(
                job, end, begins, spare
            ):
                return i
    return None


@ex.choose.slip(
    "Whoever fits goes, whether or not the first is delayed: a large job may wait for ever."
)
def whoever_fits(rule, waiting, free, running, now):
    return _rules(rule, waiting, free, running, now, may=lambda *_: True)


@ex.choose.slip("Under first come nobody passes: if the first does not fit, all wait.")
def passes_under_first_come(rule, waiting, free, running, now):
    return _rules(rule, waiting, free, running, now, strict=False)


@ex.choose.slip("This is the shortest first.")
def shortest_first(rule, waiting, free, running, now):
    return _rules(rule, waiting, free, running, now, key="shortest")


@ex.choose.slip(
    "The longest is the one with the most hours, not with the most machines."
)
def largest_first(rule, waiting, free, running, now):
    return _rules(rule, waiting, free, running, now, key="size")


@ex.choose.slip("Longest is the most hours, not size x hours.")
def most_work_first(rule, waiting, free, running, now):
    return _rules(rule, waiting, free, running, now, key="work")


@ex.choose.slip(
    "A job that ends exactly when the first begins does not delay it: <=, not <."
)
def ends_before(rule, waiting, free, running, now):
    return _rules(rule, waiting, free, running, now, may=lambda j, end, b, s: end < b or j.size <= s)  # fmt: skip


@ex.choose.slip(
    "The half 'ends by then' is missing: who ends before the first begins may pass on any machines."
)
def spare_only(rule, waiting, free, running, now):
    return _rules(rule, waiting, free, running, now, may=lambda j, e, b, s: j.size <= s)


@ex.choose.slip("Hours are compared with a moment of the clock: add `now`.")
def without_now(rule, waiting, free, running, now):
    def may(job, end, begins, spare):
        return end - now <= begins or job.size <= spare

    return _rules(rule, waiting, free, running, now, may=may)


@ex.choose.slip(
    "The pace is taken from the slowest of *all* free machines, not of the job's own: free[size - 1]."
)
def pace_of_all(rule, waiting, free, running, now):
    def may(job, end, begins, spare):
        return now + job.hours / free[-1] <= begins or job.size <= spare

    return _rules(rule, waiting, free, running, now, may=may)


@ex.choose.slip(
    "Backfilling is missing: a later job may start if it does not delay the first."
)
def never_passes(rule, waiting, free, running, now):
    return _rules(rule, waiting, free, running, now, may=lambda *_: False)


@ex.choose.slip(
    "A long job may pass as well, if it needs no more machines than are to spare when the first begins."
)
def no_spare(rule, waiting, free, running, now):
    return _rules(rule, waiting, free, running, now, may=lambda j, end, b, s: end <= b)


@ex.choose.slip(
    "The run time is taken as on machines of speed 1: divide by the speed of the slowest that it gets."
)
def speed_one(rule, waiting, free, running, now):
    def may(job, end, begins, spare):
        return now + job.hours <= begins or job.size <= spare

    return _rules(rule, waiting, free, running, now, may=may)


@ex.choose.slip(
    "The run time is taken as on the fastest free machine: the slowest of a job's machines sets its pace."
)
def pace_of_the_fastest(rule, waiting, free, running, now):
    def may(job, end, begins, spare):
        return now + job.hours / free[0] <= begins or job.size <= spare

    return _rules(rule, waiting, free, running, now, may=may)


@ex.choose.slip(
    "running is in no order: sort it by its ends before you look when enough are free."
)
def not_sorted(rule, waiting, free, running, now):
    fake = [(float(i), size) for i, (_, size) in enumerate(running)]
    if rule != "backfilling" or waiting[0].size <= len(free):
        return _rules(rule, waiting, free, running, now)
    place, spare = pool._reserved(waiting[0], free, fake)
    begins = running[int(place)][0] if running else math.inf
    for i, job in enumerate(waiting):
        if job.size <= len(free):
            end = now + job.hours / free[job.size - 1]
            if end <= begins or job.size <= spare:
                return i
    return None
