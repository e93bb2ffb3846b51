"""Four ranks that meet and add up one number: ranks.run against torch's own spawn.

Wall-clock seconds, because the work is done in other processes. The first call of each,
which for ranks.run starts the process that imports torch, is reported in the note.
"""

import os
import tempfile
import time
from datetime import timedelta

import torch
from torch import distributed as dist
from torch import multiprocessing

from utils import ranks
from utils.bench import Ratio, benchmark

N = 4


def add_up(rank, n):
    "One all-reduce: the ranks have met."
    x = torch.ones(1)
    dist.all_reduce(x)
    assert x.item() == n
    return x.item()


def join_and_add_up(rank, n, store):
    "What `ranks.run` does for fn, by hand."
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
    ranks.run(add_up, N)


def by_spawn():
    with tempfile.TemporaryDirectory() as folder:
        store = os.path.join(folder, "store")
        multiprocessing.spawn(join_and_add_up, (N, store), nprocs=N)


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
