"""Real processes from a notebook, joined by torch.distributed.

    results = ranks.run(fn, 4)         # fn(rank, 4) in 4 processes; results by rank

    with ranks.traffic() as sent:      # inside fn: what this rank sends
        dist.send(x, 1)
    sent.bytes, sent.messages

    with ranks.slow_link(1.25e6):      # inside fn: 10 Mbit/s, held by the kernel

    ranks.run(fn, 4, may_die=True)     # a rank may be killed; the others go on, with
    ranks.members(1)                   # inside fn: who is left after the first loss
    ranks.leave(), ranks.store(1)      # leave the old group, meet again in a fresh store

    ranks.main(fn)                     # the same fn in a script, for torchrun

A process that has imported torch once hands out ranks as forks of itself, so the
notebook is never forked and a call costs a fraction of a second. Functions and
classes defined in a cell travel by value; so do those of a script, with or without an
`if __name__ == "__main__"`: no rank imports the script again. A rank has its own
memory: it changes nothing in the notebook, and only what it returns comes back.

call.py: what a call asks for. travel.py: pickling. crew.py: the notebook's side.
server.py: what forks. worker.py: one rank. meeting.py: where ranks meet. verdict.py: why
a call failed; stacks.py, still.py: where ranks stand, whether anything moves. shown.py:
what a reader sees. left.py: folders, and what killed processes left. sockets.py,
meter.py, link.py: traffic, counted and slowed. agree.py: have all ranks the same model?
"""

import os
import pickle
import threading
from datetime import timedelta
from pathlib import Path

from utils.ranks import call, crew, left, meeting, shown, travel, verdict, worker
from utils.ranks.call import LOOPBACK
from utils.ranks.link import Link, slow_link
from utils.ranks.meeting import leave, members, store
from utils.ranks.meter import Traffic, traffic
from utils.ranks.verdict import RankError, RankTimeout

__all__ = [
    "LOOPBACK", "Link", "RankError", "RankTimeout", "Traffic", "leave", "main", "members", "run",
    "slow_link", "store", "traffic", "warm_up",
]  # fmt: skip

_one_call = threading.Lock()


def run(fn, n=4, timeout=60, threads=1, backend=None, show=True, seed=0, may_die=False):
    """Call fn(rank, n) in `n` processes joined by torch.distributed: -> [results].

    timeout  seconds until a call that does not end is ended, with each rank's place
    threads  of torch in each rank (NumPy keeps one)
    backend  None or "gloo": tensors on the CPU. "nccl": a GPU per rank, set as current
    show     print what the ranks printed, in their order, each line labelled
    seed     rank r seeds torch, NumPy and random with seed + r: ranks differ, unless
             fn makes them equal
    may_die  a rank that is killed is no error while another is left: its result is
             None, and `members(k)` tells the others, which go on

    A rank that raises, exits, dies or hangs ends the whole call: RankError or
    RankTimeout, with that rank's traceback. No process and no file stays.
    KeyboardInterrupt ends it, too. ValueError, TypeError: wrong arguments, or fn cannot
    travel; nothing was started.
    """
    backend = call.checked(fn, n, timeout, threads, backend, seed)
    blob, classes = travel.pack(fn)
    order = call.order(blob, n, timeout, threads, backend, seed, bool(may_die))
    try:
        return _run(order, classes, show)
    except RankError as error:
        raise error.with_traceback(None) from None  # it carries the rank's own
    except KeyboardInterrupt:
        raise shown.interrupted(n) from None


def warm_up():
    """Start the process that hands out ranks, without waiting for it.

    It imports torch (some 2 s) and what optimizers need of it (another 1.5 s), beside
    whatever the notebook does meanwhile.
    """
    if _one_call.acquire(blocking=False):
        try:
            crew.warm_up(worker.LATER)
        finally:
            _one_call.release()


def main(fn, timeout=600, threads=1, backend=None, seed=0):
    """Be one rank under torchrun: join the others, return fn(rank, world) of this rank.

        torchrun --nproc-per-node 4 script.py

    A script may call it again: all ranks, in the same order.

    timeout  seconds that a collective may wait
    backend  None: gloo for CPU tensors, and NCCL for CUDA's where each rank has a GPU
    The rest is as in `run`. RuntimeError when torchrun is not there.
    """
    needed = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in needed if name not in os.environ]
    if missing:
        raise RuntimeError(
            f"main(fn) is for torchrun, which sets {', '.join(missing)}. Start it as "
            "torchrun --nproc-per-node 4 SCRIPT.py, or call ranks.run(fn, 4)"
        )
    import torch
    from torch import distributed as dist

    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    worker.prepare(seed + rank, threads)
    if os.environ["MASTER_ADDR"] in ("localhost", "127.0.0.1", "::1"):
        os.environ.update(call.stay_here())
    backend = backend or _backend_of_cluster()
    if "nccl" in backend:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    wait = timedelta(seconds=timeout)
    store, _, _ = next(dist.rendezvous("env://", timeout=wait))
    store = meeting.afresh(store, rank, world, timeout)
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=world, timeout=wait
    )
    result = fn(rank, world)
    dist.barrier()  # nobody leaves while others still want what it sent
    dist.destroy_process_group()
    return result


def _backend_of_cluster():
    from torch import cuda

    on_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return "cpu:gloo,cuda:nccl" if cuda.device_count() >= on_this_machine else "gloo"


# ---- during and after ----


def _run(order, classes, show):
    "Hold one call: -> [results], None of ranks that were allowed to die and did."
    with _one_call, left.folder() as name:
        folder = Path(name)
        (folder / "call").write_bytes(pickle.dumps(order))
        try:
            dead = _work(folder, order, show)
        except crew.ServerLost as error:
            raise RankError(str(error), kind="lost") from None
        return [
            None if rank in dead else _result(folder, rank, classes)
            for rank in range(order["n"])
        ]


def _work(folder, order, show):
    "Start the ranks, wait, end them, show what they printed, whatever happens."
    ranks, n = crew.new(), order["n"]
    try:
        ranks.begin(folder, n)
        return verdict.wait(ranks, folder, n, order["timeout"], order["may_die"])
    finally:
        try:
            ranks.end()
            left.sweep(folder.parent)
        finally:
            if show:
                shown.prints(folder, n)


def _result(folder, rank, classes):
    try:
        return travel.receive(folder / f"result.{rank}", classes)
    except Exception as error:
        raise RankError(
            f"the result of rank {rank} cannot be read here: {error}", rank, "result"
        ) from error
