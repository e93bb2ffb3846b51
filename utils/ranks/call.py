"What a call asks for: its arguments looked at, and all that a rank must know of it."

import inspect
import linecache
import os
import pickle
import sys
import warnings

from utils.files import ROOT

MOST = 64  # ranks of one call
LOOPBACK = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)  # the network's name


def checked(fn, n, timeout, threads, backend, seed):
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


def order(blob, n, timeout, threads, backend, seed, may_die):
    "All that a rank needs to know, but for the environment, which is in no file."
    settings = {
        **stay_here(), "OMP_NUM_THREADS": str(threads),
        "WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n),
    }  # fmt: skip
    return {
        "fn": blob, "n": n, "timeout": timeout, "threads": threads, "seed": seed,
        "backend": backend, "may_die": may_die, "settings": settings,
        "path": list(sys.path), "argv": list(sys.argv), "cwd": _cwd(),
        "filters": _filters(), "sources": _sources(),
    }  # fmt: skip


def stay_here():
    "gloo looks up this machine's name to find an address; loopback needs no look-up."
    if LOOPBACK is None or "GLOO_SOCKET_IFNAME" in os.environ:
        return {}
    return {"GLOO_SOCKET_IFNAME": LOOPBACK}


def _cwd():
    try:
        return os.getcwd()
    except FileNotFoundError:
        return str(ROOT)


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
