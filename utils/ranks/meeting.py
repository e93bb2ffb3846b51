"""Where ranks meet: the store of a call, and who is still there when ranks may die.

In a rank `here` says which call it belongs to; the notebook's side writes members.K.
"""

import contextlib
import json
import os
import sys
import time
import uuid
from pathlib import Path

from utils.files import write_whole

here = {}  # folder, rank, may_die: set by worker.be
_kept = []  # stores that this rank may host to the end, and groups that it has left


def members(k, wait=True):
    """The ranks that are alive after the k-th loss: -> [rank, ...]; k = 0: all of them.

    Inside a function that `run(fn, n, may_die=True)` calls. One arbiter, the notebook,
    writes each list, so that all survivors read the same one. Whoever has returned is in
    no later list; ranks that die together are one loss.

    wait   True: come back when that loss has happened. False: None while it has not

    RuntimeError outside of such a call; ValueError when k is not a whole number from 0.
    """
    if not here.get("may_die"):
        raise RuntimeError(
            "members(k) is for functions that ranks.run(fn, n, may_die=True) calls"
        )
    if not isinstance(k, int) or isinstance(k, bool) or k < 0:
        raise ValueError(f"k counts losses: a whole number from 0, not {k!r:.60}")
    file = here["folder"] / f"members.{k}"
    while not file.exists():
        if not wait:
            return None
        time.sleep(0.005)
    return json.loads(file.read_text(encoding="ascii"))


def store(k):
    """A fresh store in which the ranks of `members(k)` meet: -> torch.distributed.Store.

        ranks.leave()
        alive = ranks.members(k)
        dist.init_process_group("gloo", store=ranks.store(k),
                                rank=alive.index(me), world_size=len(alive))

    Never that of an earlier try, whose keys are stale. Comes back on all of them when all
    have asked for it; RuntimeError on all of them when one dies before: then k + 1 is the
    next to try. Errors as in `members`.
    """
    alive, folder = members(k), here["folder"]
    me, go, lost = here["rank"], folder / f"go.{k}", folder / f"members.{k + 1}"
    if me not in alive:
        raise RuntimeError(f"rank {me} is not among the members {alive} of loss {k}")
    (folder / f"at.{k}.{me}").touch()
    while not go.exists():
        if lost.exists() and not go.exists():  # if at all, go came first
            raise RuntimeError(f"a rank died while {alive} met: try members({k + 1})")
        time.sleep(0.005)
    return between(folder, f"store.{k}", len(alive), me == alive[0])


def leave():
    """Leave the group of all ranks although a member has died: then meet in store(k).

    Ends what never ends in it, where this torch can, and forgets the group as
    dist.destroy_process_group does, which by itself waits for such work for ever.
    RuntimeError when there is no group.
    """
    import torch
    from torch import distributed as dist

    if not dist.is_initialized():
        raise RuntimeError(
            "leave() is for a rank that is in a group, and this is in none"
        )
    group = dist.group.WORLD
    _kept.append(group)  # its end would wait for its work
    with contextlib.suppress(AttributeError, RuntimeError):
        group._get_backend(torch.device("cpu")).abort()
    dist.destroy_process_group()


class Arbiter:
    "The notebook's side: says who is left, and when those can meet; nobody else does."

    def __init__(self, folder, n):
        self.folder, self.n, self.dead = folder, n, set()
        self.k, self.waits = -1, False
        self.tell(range(n))

    def hear(self, over, dead):
        "`over`: ranks that have returned or died."
        if dead - self.dead:
            self.dead = dead
            self.tell(set(range(self.n)) - set(over))
        files = (self.folder / f"at.{self.k}.{rank}" for rank in self.alive)
        if self.waits and all(file.exists() for file in files):
            (self.folder / f"go.{self.k}").touch()
            self.waits = False

    def tell(self, alive):
        "One more list of members; from now on it is waited for until all have come."
        self.k, self.alive, self.waits = self.k + 1, sorted(alive), True
        text = json.dumps(self.alive)
        write_whole(self.folder / f"members.{self.k}", text, lasting=False)


def afresh(store, rank, n, seconds):
    """A part of `store` that these n processes share, and that no earlier ones have used.

    A launcher may keep its store when it starts ranks anew, full of addresses of the
    dead; and its counts of restarts differ from machine to machine (torchrun counts those
    after a failure of its own, not those because another machine began anew). So rank 0
    draws a name, all answer with one of their own, and it counts when all are read back.

    RuntimeError when not all have come within so many seconds.
    """
    from torch import distributed as dist

    mine, end = uuid.uuid4().hex, time.monotonic() + seconds

    def read(key):
        return store.get(key).decode() if store.check([key]) else ""

    def wait():
        if time.monotonic() > end:
            raise RuntimeError(
                f"rank {rank} of {n} waited {seconds:g} s for the others"
            )
        time.sleep(0.005)

    name = mine if rank == 0 else ""
    if rank == 0:
        store.set("start", name)
        for other in range(1, n):
            while not (came := read(f"{name} {other}")):
                wait()
            store.set(f"{name} read {other}", came)
    while rank and read(f"{name} read {rank}") != mine:
        if (now := read("start")) != name:
            name = now
            store.set(f"{name} {rank}", mine)
        wait()
    return dist.PrefixStore(name, store)


def between(folder, name, n, host):
    """The store `name` of n ranks: a file of the call's folder, or a port on loopback.

    The file's path is handed to C++ as UTF-8, whatever the system's file names are in:
    where it is not plain ASCII, `host` opens a port instead, and a file that Python
    writes says which.
    """
    from torch import distributed as dist

    path = str(Path(folder) / name)
    made = dist.FileStore(path, n) if path.isascii() else _over_loopback(path, n, host)
    _kept.append(made)
    return made


def _over_loopback(path, n, host):
    from torch import distributed as dist

    port = Path(f"{path}.port")
    while not host and not port.exists():
        time.sleep(0.005)
    number = 0 if host else int(port.read_text(encoding="ascii"))
    made = dist.TCPStore(
        "127.0.0.1", number, n, host, wait_for_workers=False,
        use_libuv=sys.platform != "win32",
    )  # fmt: skip
    if host:
        draft = Path(f"{path}.draft")
        draft.write_text(str(made.port), encoding="ascii")
        os.replace(draft, port)
    return made
