"""What chapter 17 builds: one model on n ranks, each with its own rows.

Every function is called by all ranks of a torch.distributed group, inside
`ranks.run(fn, n)`, under torchrun, or in a rehearsal (utils.practice); elsewhere it
raises RuntimeError. Where the ranks' models differ in number, shape or dtype of their
parameters, every rank raises ValueError at the first call, which names one that differs.
Shapes: X (B, D) and y (B,) are this rank's rows of the batch; B may differ between
ranks. The buckets follow S. Li et al., PyTorch Distributed (2020),
https://arxiv.org/abs/2006.15704, section 3.2.
"""

import math
import os
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from torch import distributed as dist
from torch import nn

from utils import given
from utils.built.collectives import shared_folder
from utils.ranks.agree import agree, joined


def mean_of_shards(grads_RP, rows_R):
    """Gradient of the mean loss over all rows, from each shard's: (R,P), (R,) -> (P,).

    sum of rows_R[r] * grads_RP[r], over the sum of rows_R; ValueError where no row is.
    """
    if not isinstance(grads_RP, torch.Tensor) or grads_RP.ndim != 2:
        raise ValueError(
            "grads_RP is a tensor of shape (R, P), a row for each shard, not "
            f"{_said(grads_RP)}"
        )
    rows_R = torch.as_tensor(rows_R, dtype=grads_RP.dtype)
    fits = rows_R.shape == grads_RP.shape[:1] and bool((rows_R >= 0).all())
    if not fits or not rows_R.sum() > 0:
        raise ValueError(
            f"{len(grads_RP)} shards need {len(grads_RP)} numbers of rows of at least 0, "
            f"and not all 0; these are {_said(rows_R)}"
        )
    return rows_R @ grads_RP / rows_R.sum()


def average_gradients(model):
    "Every gradient becomes the mean over all ranks; one that is missing counts as 0."
    params = _alike("average_gradients", model)
    for p in params:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()


@torch.no_grad()
def synchronise(model):
    "All ranks leave with rank 0's parameters and buffers, in place."
    joined("synchronise")
    _module(model)
    tensors = [*model.named_parameters(), *model.named_buffers()]
    agree("synchronise", model, tensors)
    for _, x in tensors:
        dist.broadcast(x, src=0)


def shard_order(N, rank, world, seed=0, epoch=0):
    """The rows of this rank in one epoch: (ceil(N / world),), shuffled anew each epoch.

    Equally many for every rank: the order is extended by its own beginning. The same
    rows as torch's DistributedSampler gives, and no rank asks another.
    """
    N, world = given.whole("N", N), given.whole("world", world)
    rank = given.whole("rank", rank, least=0, most=world - 1)
    seed, epoch = (
        given.whole("seed", seed, least=0),
        given.whole("epoch", epoch, least=0),
    )
    generator = torch.Generator().manual_seed(seed + epoch)
    order_N = torch.randperm(N, generator=generator)
    whole = -(-N // world) * world
    return order_N.repeat(-(-whole // N))[:whole][rank::world]


def mean_over_ranks(total, count):
    """Sum of all ranks' totals over the sum of their counts: a number, alike on all.

    count: at least 0, and above 0 on some rank, else ValueError.
    """
    joined("mean_over_ranks")
    total = given.number("total", total, least=-math.inf)
    count = given.number("count", count)
    both = torch.tensor([total, count], dtype=torch.float64)
    dist.all_reduce(both)
    if both[1] == 0:
        raise ValueError("no rank has counted anything: there is no mean")
    return (both[0] / both[1]).item()


def parallel_step(model, optimizer, X_BD, y_B):
    """One step on all ranks' rows as one batch: -> the mean cross-entropy of all.

    y_B: classes, whole numbers; a rank may have no row. ValueError where none has one.
    """
    joined("parallel_step")
    if len(X_BD) != len(y_B):
        raise ValueError(f"{len(X_BD)} rows in X_BD and {len(y_B)} in y_B: one y a row")
    rows = torch.tensor(float(len(y_B)), dtype=torch.float64)
    dist.all_reduce(rows)
    if rows == 0:
        raise ValueError("no rank has a row: there is nothing to step on")
    total = F.cross_entropy(model(X_BD), y_B, reduction="sum")
    optimizer.zero_grad()
    (total * (dist.get_world_size() / rows.item())).backward()
    average_gradients(model)
    optimizer.step()
    return mean_over_ranks(total.item(), len(y_B))


def make_buckets(sizes, cap):
    """Parameters in the order in which backward finishes them, in groups: [[number, ...]].

    sizes: bytes of each parameter, in the model's order; backward goes through them from
    the last to the first. A bucket has at most `cap` bytes, or one larger parameter.
    """
    given.number("cap, the bytes of a bucket,", cap, above=0)
    for number, size in enumerate(sizes):
        given.number(f"sizes[{number}]", size)
    buckets, room = [], 0
    for number in reversed(range(len(sizes))):
        if not buckets or sizes[number] > room:
            buckets.append([])
            room = cap
        buckets[-1].append(number)
        room -= sizes[number]
    return buckets


class Overlapped:
    """A model whose gradients are averaged bucket by bucket while backward still runs.

        parallel = Overlapped(model, cap=2**20)        # bytes of a bucket
        loss_of(parallel.model(X), y).backward()
        parallel.finish()                              # before optimizer.step()

    All ranks build it alike. Buckets leave in one order on all ranks, whatever order
    their gradients arrive in; what has no gradient counts as 0.
    """

    def __init__(self, model, cap=2**20):
        params = _alike("Overlapped", model)
        self.model, self.sync = model, True
        _one_dtype(params)
        sizes = [p.numel() * p.element_size() for p in params]
        self.buckets = [[params[i] for i in b] for b in make_buckets(sizes, cap)]
        self.begin()
        for number, bucket in enumerate(self.buckets):
            for p in bucket:
                p.register_post_accumulate_grad_hook(
                    lambda p, number=number: self.arrived(number)
                )

    def begin(self):
        self.missing = [len(bucket) for bucket in self.buckets]
        self.flying = []  # (flat gradients, work) of each bucket that has left

    def arrived(self, number):
        "One more gradient of this bucket is complete: send what can go."
        if not self.sync:
            return
        self.missing[number] -= 1
        while len(self.flying) < len(self.buckets):
            if self.missing[len(self.flying)] > 0:
                return
            self.send()

    def send(self):
        "Let the next bucket's sum over all ranks begin; do not wait for it."
        bucket = self.buckets[len(self.flying)]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([grad.flatten() for grad in grads])
        self.flying.append((flat, dist.all_reduce(flat, async_op=True)))

    def finish(self):
        "Send the rest, wait for all, put each mean in its place."
        while len(self.flying) < len(self.buckets):
            self.send()
        for bucket, (flat, work) in zip(self.buckets, self.flying):
            work.wait()
            flat /= dist.get_world_size()
            for p, mean in zip(bucket, flat.split([p.numel() for p in bucket])):
                p.grad = mean.view_as(p)
        self.begin()

    @contextmanager
    def no_sync(self):
        "Inside, gradients add up on this rank alone; the first backward after sends them."
        before, self.sync = self.sync, False
        try:
            yield
        finally:
            self.sync = before


def accumulate(parallel, optimizer, batches):
    """One step on equally large micro-batches [(X, y), ...], which talks once.

    parallel: an Overlapped; the loss is cross-entropy, its mean over all rows.
    """
    if not batches:
        raise ValueError("a step needs at least one micro-batch")
    if not isinstance(parallel, Overlapped) and not hasattr(parallel, "no_sync"):
        raise TypeError(f"parallel is Overlapped(model), not {_said(parallel)}")
    rows = [len(y_B) for _, y_B in batches]
    if len(set(rows)) > 1:
        raise ValueError(f"micro-batches are equally large, not of {rows} rows")
    optimizer.zero_grad()
    *first, (X_BD, y_B) = batches
    with parallel.no_sync():
        for X, y in first:
            (F.cross_entropy(parallel.model(X), y) / len(batches)).backward()
    (F.cross_entropy(parallel.model(X_BD), y_B) / len(batches)).backward()
    parallel.finish()
    optimizer.step()


def timeline(ready, seconds):
    """When each bucket travels on one link: [(start, end), ...].

    ready: when each bucket is full, in the order in which they leave; seconds: how long
    each travels. Bucket i starts at max(ready[i], end of bucket i - 1).
    """
    if len(ready) != len(seconds):
        raise ValueError(f"{len(ready)} buckets and {len(seconds)} times to travel")
    free, trips = 0.0, []
    for number, (full, takes) in enumerate(zip(ready, seconds)):
        given.number(f"ready[{number}]", full)
        given.number(f"seconds[{number}]", takes)
        start = max(full, free)
        free = start + takes
        trips.append((start, free))
    return trips


def _alike(name, model):
    "Parameters that get gradients, frozen ones left out: the same on all ranks."
    joined(name)
    named = [(k, p) for k, p in _module(model).named_parameters() if p.requires_grad]
    agree(name, model, named)
    return [p for _, p in named]


# ---- what they are given ----


def _module(model):
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a torch.nn.Module, not {_said(model)}")
    return model


def _one_dtype(params):
    dtypes = {p.dtype for p in params}
    if len(dtypes) != 1:
        names = (
            ", ".join(sorted(str(dtype) for dtype in dtypes)) or "no trained parameter"
        )
        raise TypeError(
            f"gradients that travel together have one dtype; here is {names}"
        )
    return dtypes.pop()


def _said(value):
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"{value!r:.60}"


# ---- ranks of one machine that share memory ----


class SharedMemoryStep:
    """Gradients of n ranks of one machine, in memory that they share, averaged in place.

        step = SharedMemoryStep(model)      # by all ranks, which have equal models
        step.backward(loss)                 # then optimizer.step()

    Each gradient is copied once, as backward completes it, into this rank's row of one
    (n, P) buffer. Then every rank averages its share of the columns, in blocks that a
    cache holds: no socket, no second copy.
    """

    BLOCK = 16_384  # numbers

    def __init__(self, model):
        self.params, self.token = _alike("SharedMemoryStep", model), torch.zeros(1)
        self.rank, self.n = dist.get_rank(), dist.get_world_size()
        dtype, P = _one_dtype(self.params), sum(p.numel() for p in self.params)
        self.all_RP = _shared((self.n, P), dtype)
        self.columns = range(P * self.rank // self.n, P * (self.rank + 1) // self.n)
        rows = self.all_RP[self.rank].split([p.numel() for p in self.params])
        self.place = {id(p): row.view_as(p) for p, row in zip(self.params, rows)}
        for p in self.params:
            p.register_post_accumulate_grad_hook(self._move)

    def _move(self, p):
        place = self.place[id(p)]
        if p.grad is not place:
            p.grad = place.copy_(p.grad)

    def backward(self, loss):
        "Leave the mean over all ranks of the gradients of `loss` in p.grad."
        for p in self.params:
            p.grad = None
        (loss / self.n).backward()
        for p in self.params:
            if p.grad is None:
                p.grad = self.place[id(p)].zero_()
        dist.all_reduce(self.token)  # everybody has written
        for start in range(self.columns.start, self.columns.stop, self.BLOCK):
            stop = min(start + self.BLOCK, self.columns.stop)
            first, *rest = (row[start:stop] for row in self.all_RP)
            for other in rest:
                first += other
            for other in rest:
                other.copy_(first)
        dist.all_reduce(self.token)  # everybody has added


def _shared(shape, dtype):
    "A tensor that all ranks of this machine see; its file has no name for longer than needed."
    size = math.prod(shape) * dtype.itemsize
    with shared_folder(size) if dist.get_rank() == 0 else nullcontext() as folder:
        path = [None]
        if folder is not None:
            path[0] = os.path.join(folder, "gradients")
            with open(path[0], "wb") as file:
                file.truncate(size)
        dist.broadcast_object_list(path, src=0)
        # not torch.from_file: it gives the name to C++ as UTF-8, which it may not be
        raw = np.memmap(path[0], np.uint8, "r+", shape=size)
        dist.barrier()
    return torch.from_numpy(np.asarray(raw)).view(dtype).view(shape)
