"""Chapter 16's all-reduces beside gloo's, between real processes of this machine.

A sample is the time of ours over the time of gloo's in one round: the two take turns in
the same ranks, each on its own array, and the slowest rank counts. Wall-clock, not CPU
seconds, because a rank that waits for a message burns none; one thread per rank.
"""

import os
import tempfile
import time
from datetime import timedelta

import numpy as np

from utils.bench.ratio import Ratio, benchmark

MB = 1_000_000


def _race(n, megabytes, ours, repeats):
    "Ratios of `ours` ('ring', 'ring in place' or 'shared') to gloo on n ranks, float32."
    import torch
    from torch import distributed as dist

    from utils import ranks
    from utils.built import collectives

    N = megabytes * MB // 4

    def race(rank, size):
        numbers = np.random.default_rng(rank).integers(-9, 9, N).astype(np.float32)
        theirs, comm = torch.from_numpy(numbers.copy()), collectives.Wire(rank, size)
        if ours == "ring":
            run = lambda: collectives.ring_all_reduce(numbers, comm)  # noqa: E731
            result = run()
        elif ours == "ring in place":
            result, spare = numbers, np.zeros(N // size + 1, np.float32)
            run = lambda: collectives.ring_in_place(result, comm, spare)  # noqa: E731
            run()
        else:
            shared = collectives.share(folder, rank, size, N)
            shared[rank][:], result = numbers, shared[rank]
            run = lambda: collectives.shared_add(shared, rank)  # noqa: E731
            run()
        dist.all_reduce(theirs)
        assert np.array_equal(result, theirs.numpy()), "both must give the same sum"
        theirs.fill_(0)  # else the sums of sums would overflow
        result[:] = 0
        racers = {"gloo": lambda: dist.all_reduce(theirs), "ours": run}
        return collectives.in_turns(racers, repeats)

    with collectives.shared_folder(n * megabytes * MB) as folder:
        seconds = collectives.slowest(ranks.run(race, n, timeout=300))
    samples = (seconds["ours"] / seconds["gloo"]).tolist()
    middle = np.median(seconds["gloo"]) * 1e3
    what = f"all-reduce of {megabytes} MB on {n} ranks, {ours} / gloo"
    return Ratio(samples, what, f"gloo {middle:.3g} ms, wall-clock")


def _rings():
    for n in (2, 4):
        for megabytes, repeats in ((1, 31), (5, 21), (25, 11), (100, 5)):

            def run(n=n, megabytes=megabytes, repeats=repeats):
                return _race(n, megabytes, "ring in place", repeats)

            benchmark(f"ring all-reduce, {n} ranks, {megabytes} MB")(run)


_rings()


@benchmark("ring all-reduce, new memory in every step, 2 ranks, 25 MB")
def new_memory():
    return _race(2, 25, "ring", 11)


@benchmark("shared-memory all-reduce, 2 ranks, 25 MB", bar="<= 0.8")
def shared_two():
    return _race(2, 25, "shared", 15)


@benchmark("shared-memory all-reduce, 4 ranks, 25 MB")
def shared_four():
    return _race(4, 25, "shared", 11)


# ---- four ranks that meet and add up one number: ranks.run against torch's own spawn ----

MEETING = 4


def add_up(rank, n):
    "One all-reduce: the ranks have met."
    import torch
    from torch import distributed as dist

    x = torch.ones(1)
    dist.all_reduce(x)
    assert x.item() == n
    return x.item()


def join_and_add_up(rank, n, store):
    "What `ranks.run` does for fn, by hand."
    import torch
    from torch import distributed as dist

    from utils import ranks

    torch.set_num_threads(1)
    os.environ |= {"GLOO_SOCKET_IFNAME": ranks.LOOPBACK} if ranks.LOOPBACK else {}
    dist.init_process_group(
        "gloo", store=dist.FileStore(store, n), rank=rank, world_size=n,
        timeout=timedelta(seconds=60),
    )  # fmt: skip
    add_up(rank, n)
    dist.barrier()
    dist.destroy_process_group()


def by_ranks():
    from utils import ranks

    ranks.run(add_up, MEETING)


def by_spawn():
    from torch import multiprocessing

    with tempfile.TemporaryDirectory() as folder:
        store = os.path.join(folder, "store")
        multiprocessing.spawn(join_and_add_up, (MEETING, store), nprocs=MEETING)


def wall_seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@benchmark("ranks start", ">= 10")
def start():
    "How many times sooner four ranks have met, from the second call on."
    first = wall_seconds(by_ranks)
    pairs = [(wall_seconds(by_ranks), wall_seconds(by_spawn)) for _ in range(3)]
    return Ratio(
        [theirs / ours for ours, theirs in pairs],
        "torch.multiprocessing.spawn / ranks.run, 4 ranks, one all-reduce, wall clock",
        f"the first ranks.run took {first:.1f} s, later ones "
        f"{sorted(ours for ours, _ in pairs)[1]:.2f} s",
    )
