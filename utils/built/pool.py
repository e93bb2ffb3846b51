"""What chapter 21 builds for many jobs: a queue before a pool of unequal machines.

    starts = play(jobs, speeds, rule)       # a rule: what may start now?
    use, wait = judge(jobs, speeds, starts)
    least_wait(jobs, speeds)                # no rule can have a smaller mean wait

A job takes `size` machines at once, the fastest that are free, and goes at the pace of the
slowest of them. The rules: "first come", "longest first", "backfilling" (as in D. Lifka,
The ANL/IBM SP Scheduling System, 1995).
"""

import heapq
import math
from typing import NamedTuple

from utils import given

RULES = "first come", "longest first", "backfilling"


class Job(NamedTuple):
    "arrive: hours; size: machines; hours: how long it runs on machines of speed 1."

    arrive: float
    size: int
    hours: float


def choose(rule, waiting, free, running, now):
    """Which waiting job starts now: -> its place in `waiting`, or None.

    waiting  jobs in order of arrival, at least one
    free     speeds of the free machines, fastest first
    running  [(end, size), ...] of the jobs that run
    """
    if rule not in RULES:
        raise ValueError(f"rule is one of {', '.join(RULES)}, not {rule!r:.60}")
    first = 0
    if rule == "longest first":
        first = max(range(len(waiting)), key=lambda i: waiting[i].hours)
    if waiting[first].size <= len(free):
        return first
    if rule != "backfilling":
        return None
    begins, spare = _reserved(waiting[0], free, running)
    for i, job in enumerate(waiting):
        if job.size <= len(free):
            end = now + job.hours / free[job.size - 1]
            if end <= begins or job.size <= spare:
                return i
    return None


def _reserved(job, free, running):
    "When enough machines are free for the job, and how many are to spare then."
    count, begins = len(free), math.inf
    for end, size in sorted(running):
        if count >= job.size and end > begins:
            break
        count, begins = count + size, end
    return begins, count - job.size


def play(jobs, speeds, rule, choose=choose):
    """When each job starts: -> [(start, end), ...] in hours, in the order of `jobs`.

    rule: handed on to choose(rule, waiting, free, running, now), which is asked again
    until it says None. ValueError for a job larger than the pool, RuntimeError where
    jobs wait for ever.
    """
    jobs = [Job(*job) for job in jobs]
    for i, speed in enumerate(speeds):
        given.number(f"speeds[{i}]", speed, above=0)
    for i, job in enumerate(jobs):
        given.number(f"jobs[{i}].arrive", job.arrive)
        given.whole(f"jobs[{i}].size", job.size, 1, len(speeds))
        given.number(f"jobs[{i}].hours", job.hours, above=0)
    to_come = sorted(range(len(jobs)), key=lambda i: jobs[i].arrive)
    waiting, running, found = (
        [],
        [],
        [None] * len(jobs),
    )  # running: (end, job, machines)
    free = sorted(speeds, reverse=True)
    while to_come or waiting:
        moments = [jobs[i].arrive for i in to_come[:1]] + [e for e, *_ in running[:1]]
        if not moments:
            raise RuntimeError("all machines are free, and nobody starts")
        now = min(moments)
        while running and running[0][0] <= now:
            free += heapq.heappop(running)[2]
        free.sort(reverse=True)
        while to_come and jobs[to_come[0]].arrive <= now:
            waiting.append(to_come.pop(0))
        while waiting:
            ends = [(end, len(machines)) for end, _, machines in running]
            place = choose(rule, [jobs[i] for i in waiting], list(free), ends, now)
            if place is None:
                break
            i = waiting.pop(place)
            mine, free = free[: jobs[i].size], free[jobs[i].size :]
            if len(mine) < jobs[i].size:
                raise RuntimeError(f"job {i} starts with too few free machines")
            end = now + jobs[i].hours / mine[-1]
            heapq.heappush(running, (end, i, mine))
            found[i] = now, end
    return found


def judge(jobs, speeds, found):
    """-> (use, mean wait in hours): useful work over what the pool could do until the end.

    use: sum of size x hours, over sum of speeds x hours from first arrival to last end.
    """
    jobs = [Job(*job) for job in jobs]
    given.whole("number of jobs", len(jobs))
    span = max(end for _, end in found) - min(job.arrive for job in jobs)
    use = sum(job.size * job.hours for job in jobs) / (sum(speeds) * span)
    return use, sum(s - job.arrive for (s, _), job in zip(found, jobs)) / len(jobs)


def least_wait(jobs, speeds):
    """A mean wait in hours that no rule can beat: -> a number, 0 where it says nothing.

    Let work be cut and spread over all machines at will: then the smallest job first has
    the earliest middles of work, on average (Goemans et al., SIAM J. Discrete Math. 15,
    2002: mean busy times). A real run starts half its length before its middle, and no run
    is longer than on the slowest machines.
    """
    jobs = [Job(*job) for job in jobs]
    to_come = sorted(range(len(jobs)), key=lambda i: jobs[i].arrive)
    small, t, middles = [], 0.0, 0.0  # small: [work, hours left on the whole pool]
    while to_come or small:
        if not small:
            t = max(t, jobs[to_come[0]].arrive)
        while to_come and jobs[to_come[0]].arrive <= t:
            i = to_come.pop(0)
            work = jobs[i].hours * jobs[i].size / sum(speeds)
            heapq.heappush(small, [work, work])
        work, left = small[0]
        piece = min(left, jobs[to_come[0]].arrive - t) if to_come else left
        middles += (t + piece / 2) * piece / work
        t += piece
        small[0][1] = left - piece
        if piece == left:
            heapq.heappop(small)
    starts = middles - sum(job.hours for job in jobs) / min(speeds) / 2
    return max(0.0, (starts - sum(job.arrive for job in jobs)) / len(jobs))
