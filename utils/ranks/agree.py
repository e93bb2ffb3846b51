"""Have all ranks the same model? Asked once, before the first gradient travels.

As DistributedDataParallel does when it is built. Ranks that disagree would add up what
does not belong together, or die without a word in a library below.
"""

import hashlib
import threading
import weakref

import torch
from torch import distributed as dist

_agreed = weakref.WeakKeyDictionary()  # {module: the group in which ranks agreed on it}


def joined(what):
    "RuntimeError where this process is in no group of ranks; `what` is who asks."
    if not dist.is_initialized():
        raise RuntimeError(
            f"{what} is called inside ranks.run(fn, n), rehearse(fn, n), or "
            "ranks.main(fn) under torchrun, by all ranks of a group: there is none here"
        )


def agree(what, module, tensors):
    """ValueError on every rank where the ranks' tensors differ in number, shape or dtype.

    what: who asks, for the error; tensors: [(name, tensor), ...] of `module`, in the
    order in which they travel. All ranks of the group call it. The error names the first
    tensor that differs, and the ranks. What has been agreed upon is not asked again while
    the group lasts. Costs one all_gather of 32 bytes a rank.

    In a rehearsal (utils.practice) nothing travels, and no call is counted.
    """
    mine = [describe(name, tensor) for name, tensor in tensors]
    here = threading.current_thread()
    if hasattr(here, "compare"):  # a rank of a rehearsal
        here.compare(what, mine, differ)
        return
    if _is_agreed(module):
        return
    if not _all_alike(mine):
        by_rank = [None] * dist.get_world_size()
        dist.all_gather_object(by_rank, mine)
        raise ValueError(f"{what}: {differ(dict(enumerate(by_rank)))}")
    _agreed[module] = weakref.ref(dist.group.WORLD)


def describe(name, tensor):
    kind = str(tensor.dtype).removeprefix("torch.")
    return f"{name} {tuple(tensor.shape)} of {kind}"


def differ(by_rank):
    "{rank: descriptions} -> a sentence on the first that differs, or ''."
    first, *others = sorted(by_rank)
    for rank in others:
        a, b = by_rank[first], by_rank[rank]
        if a == b:
            continue
        place = next(
            (i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b))
        )
        here, there = (x[place] if place < len(x) else "nothing" for x in (a, b))
        count = f" ({len(a)} tensors, and {len(b)})" if len(a) != len(b) else ""
        return (
            f"the ranks' models differ. Tensor {place + 1} is {here} on rank {first}, and "
            f"{there} on rank {rank}{count}"
        )
    return ""


def _is_agreed(module):
    group = _agreed.get(module)
    return group is not None and group() is dist.group.WORLD


def _all_alike(mine):
    "Do all ranks' descriptions have the same digest?"
    digest = hashlib.sha256("\n".join(mine).encode()).digest()
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    own = torch.tensor(list(digest), dtype=torch.uint8, device=device)
    all_of_them = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(all_of_them, own)
    return all(torch.equal(x, own) for x in all_of_them)
