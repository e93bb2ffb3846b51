"""Real processes from a notebook, joined by torch.distributed.

    results = ranks.run(fn, 4)         # fn(rank, 4) in 4 processes; results by rank

    with ranks.traffic() as sent:      # inside fn: what this rank sends
        dist.send(x, 1)
    sent.bytes, sent.messages

    ranks.main(fn)                     # the same fn in a script, for torchrun

A process that has imported torch once hands out ranks as forks of itself, so the
notebook is never forked and a call costs a fraction of a second. Functions and
classes defined in a cell travel by value; so do those of a script, with or without an
`if __name__ == "__main__"`: no rank imports the script again. A rank has its own
memory: it changes nothing in the notebook, and only what it returns comes back.

travel.py: pickling. crew.py: the notebook's side. server.py: what forks.
worker.py: one rank. verdict.py: why a call failed. meter.py: traffic.
"""

import inspect
import linecache
import os
import pickle
import sys
import tempfile
import threading
import warnings
from datetime import timedelta
from pathlib import Path

from utils.ranks import crew, travel, verdict, worker
from utils.ranks.meter import Traffic, traffic
from utils.ranks.verdict import RankError, RankTimeout

__all__ = ["RankError", "RankTimeout", "Traffic", "main", "run", "traffic", "warm_up"]

MOST = 64  # ranks of one call
SHOWN = 20_000  # characters of print that are shown of one rank, from both its ends
LOOPBACK = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)  # the network's name
_one_call = threading.Lock()


def run(fn, n=4, timeout=60, threads=1, backend=None, show=True, seed=0):
    """Call fn(rank, n) in `n` processes joined by torch.distributed: -> [results].

    timeout  seconds until a call that does not end is ended, with each rank's place
    threads  of torch in each rank (NumPy keeps one)
    backend  None or "gloo": tensors on the CPU. "nccl": a GPU per rank, set as current
    show     print what the ranks printed, in their order, each line labelled
    seed     rank r seeds torch, NumPy and random with seed + r: ranks differ, unless
             fn makes them equal

    A rank that raises, exits, dies or hangs ends the whole call: RankError or
    RankTimeout, with that rank's traceback. No process and no file stays.
    ValueError, TypeError: wrong arguments, or fn cannot travel; nothing was started.
    """
    backend = _checked(fn, n, timeout, threads, backend, seed)
    blob, classes = travel.pack(fn)
    call = _call(blob, n, timeout, threads, backend, seed)
    with _one_call, _folder() as name:
        folder = Path(name)
        (folder / "call").write_bytes(pickle.dumps(call))
        try:
            _work(folder, n, timeout, show)
        except RankError as error:
            raise error.with_traceback(None) from None  # it carries the rank's own
        return [_result(folder, rank, classes) for rank in range(n)]


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
        os.environ.update(_stay_here())
    backend = backend or _backend_of_cluster()
    if "nccl" in backend:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    wait = timedelta(seconds=timeout)
    store, _, _ = next(dist.rendezvous("env://", timeout=wait))
    # torchrun keeps the store when it restarts ranks: keys of the last try are stale
    tries = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(
        backend, store=dist.PrefixStore(f"try {tries}", store), rank=rank,
        world_size=world, timeout=wait,
    )  # fmt: skip
    result = fn(rank, world)
    dist.barrier()  # nobody leaves while others still want what it sent
    dist.destroy_process_group()
    return result


# ---- before ----


def _checked(fn, n, timeout, threads, backend, seed):
    "The backend, once every argument has been found to make sense."
    if not callable(fn):
        raise TypeError(
            f"run(fn, n) calls fn(rank, n) in each rank, so fn is a function, not "
            f"{fn!r:.80} (was it called already? run(fn, 4), not run(fn(0, 4), 4))"
        )
    for name, value in {"n": n, "threads": threads, "seed": seed}.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} is a whole number, not {value!r:.80}")
    _fits(fn, n)
    if not 1 <= n <= MOST:
        raise ValueError(f"n is the number of ranks, 1 to {MOST}, not {n}")
    if threads < 1:
        raise ValueError(f"every rank needs at least one thread, not {threads}")
    if not 0 < timeout < 10**7:
        raise ValueError(f"timeout is a number of seconds above 0, not {timeout}")
    if backend not in (None, "gloo", "nccl"):
        raise ValueError(f"backend is 'gloo' or 'nccl', not {backend!r}")
    if backend == "nccl":
        from torch import cuda

        if cuda.device_count() < n:
            raise ValueError(
                f"nccl needs a GPU for each of {n} ranks, not {cuda.device_count()}"
            )
    return backend or "gloo"


def _fits(fn, n):
    "TypeError when fn cannot be called with a rank and a number of ranks."
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # written in C: Python cannot look inside
        return
    try:
        signature.bind(0, n)
    except TypeError as error:
        name = getattr(fn, "__name__", "fn")
        raise TypeError(
            f"{name} is called as {name}(rank, n), and has {signature}: {error}"
        ) from None


def _call(blob, n, timeout, threads, backend, seed):
    "All that a rank needs to know; it was forked from a process that knows nothing."
    environ = {
        **os.environ, **_stay_here(), "OMP_NUM_THREADS": str(threads),
        "WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n),
    }  # fmt: skip
    return {
        "fn": blob, "n": n, "timeout": timeout, "threads": threads, "seed": seed,
        "backend": backend, "environ": environ, "path": list(sys.path),
        "argv": list(sys.argv), "cwd": _cwd(), "filters": _filters(),
        "sources": _sources(),
    }  # fmt: skip


def _stay_here():
    "gloo looks up this machine's name to find an address; loopback needs no look-up."
    if LOOPBACK is None or "GLOO_SOCKET_IFNAME" in os.environ:
        return {}
    return {"GLOO_SOCKET_IFNAME": LOOPBACK}


def _cwd():
    try:
        return os.getcwd()
    except FileNotFoundError:
        return str(crew.ROOT)


THERE = ("builtins", "numpy", "torch")  # whose warnings a rank knows from the start


def _filters():
    """The warnings' filters of the notebook: what is an error here is one there.

    But for those of packages that a rank has not imported: it would have to import
    them for their filter's sake (scipy: a quarter of a second in each rank).
    """
    kept = []
    for entry in warnings.filters:
        if entry[2].__module__.partition(".")[0] not in THERE:
            continue
        try:
            kept.append(pickle.loads(pickle.dumps(entry)))
        except Exception:  # a category that was defined in a cell
            continue
    return kept


def _sources(most=2**21):
    "The text of cells, which a rank's traceback quotes: {file: linecache entry}."
    entries = {}
    for name, entry in reversed(list(linecache.cache.items())):
        if len(entry) == 4 and not os.path.exists(name):
            most -= entry[0]
            if most < 0:
                break
            entries[name] = (entry[0], None, entry[2], entry[3])
    return entries


def _backend_of_cluster():
    from torch import cuda

    on_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return "cpu:gloo,cuda:nccl" if cuda.device_count() >= on_this_machine else "gloo"


# ---- during and after ----


def _folder():
    return tempfile.TemporaryDirectory(prefix="ranks-", ignore_cleanup_errors=True)


def _work(folder, n, timeout, show):
    "Start the ranks, wait, end them, show what they printed, whatever happens."
    ranks = crew.new()
    try:
        ranks.begin(folder, n)
        verdict.wait(ranks, folder, n, timeout)
    except crew.ServerLost as error:
        raise RankError(str(error), kind="lost") from None
    finally:
        try:
            ranks.end()
        finally:
            if show:
                _show(folder, n)


def _result(folder, rank, classes):
    try:
        return travel.receive(folder / f"result.{rank}", classes)
    except Exception as error:
        raise RankError(
            f"the result of rank {rank} cannot be read here: {error}", rank, "result"
        ) from error


def _show(folder, n):
    "What each rank printed, in the order of ranks, to stdout and stderr."
    for name, stream in (("out", sys.stdout), ("err", sys.stderr)):
        said = [_said(folder / f"{name}.{rank}", rank) for rank in range(n)]
        if any(said):
            stream.write("".join(said))
            stream.flush()


def _said(file, rank):
    "A rank's print, each line labelled; the middle of a long one is left out."
    if not file.exists():
        return ""
    text = file.read_bytes()
    if len(text) > SHOWN:
        head, tail = text[: SHOWN * 3 // 4], text[-SHOWN // 4 :]
        head, tail = head[: head.rfind(b"\n") + 1], tail[tail.find(b"\n") + 1 :]
        left_out = len(text) - len(head) - len(tail)
        text = head + b"... %d bytes are left out here ...\n" % left_out + tail
    lines = worker.cells(text.decode("utf-8", errors="replace")).split("\n")
    if lines[-1] == "":
        lines.pop()
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in lines]  # progress bars
    return "".join(f"[rank {rank}] {line}\n" for line in lines)
