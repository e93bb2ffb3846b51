"""What chapter 18 builds: a model whose training state n ranks share out (ZeRO 1, 2, 3).

Every function that talks is called by all ranks of a torch.distributed group, inside
`ranks.run(fn, n)`, under torchrun, or in a rehearsal (utils.practice); elsewhere it raises
RuntimeError. Ranks start with equal models (chapter 17's `synchronise`), and their losses
are means over equally many rows.

K numbers are one rank's part of a padded flat tensor of n K. The stages are those of
Rajbhandari et al., ZeRO (2020), https://arxiv.org/abs/1910.02054; a layer that is gathered
when it is needed is what Zhao et al., PyTorch FSDP (2023), https://arxiv.org/abs/2304.11277
call fully sharded.
"""

import os
import sys
from contextlib import contextmanager

import torch
from torch import distributed as dist
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

from utils import given
from utils.built.collectives import Wire
from utils.built.collectives import reduce_scatter as ring_reduce_scatter
from utils.ranks.agree import joined

# ---- two calls, one the other's transpose ----


def all_gather(part):
    "Every rank's part, end to end, on every rank: (K,) -> (n K,)."
    joined("all_gather")
    whole = part.new_empty(dist.get_world_size() * len(_flat("part", part)))
    call = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    call(whole, part.detach())
    return whole


def reduce_scatter(whole):
    "This rank's part of the sum over all ranks: (n K,) -> (K,)."
    joined("reduce_scatter")
    n = dist.get_world_size()
    if len(_flat("whole", whole)) % n:
        raise ValueError(f"{len(whole)} numbers in {n} equal parts: pad them first")
    part = whole.new_empty(len(whole) // n)
    call = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    call(part, whole.detach())
    return part


@contextmanager
def on_the_ring():
    """Inside, this rank's reduce_scatter and reduce go round a ring, FSDP2's as well.

    gloo's own move more bytes than they must. For tensors on the CPU and all ranks.
    """
    names = ("reduce_scatter_single", "reduce_scatter_tensor", "reduce")
    before = {name: getattr(dist, name) for name in names if hasattr(dist, name)}

    rank, n = dist.get_rank(), dist.get_world_size()

    def scatter(output, input, op=dist.ReduceOp.SUM, group=None, async_op=False):
        part = ring_reduce_scatter(input.detach().flatten().numpy(), Wire(rank, n))
        part = torch.from_numpy(part).view_as(output)
        output.detach().copy_(part / n if op == dist.ReduceOp.AVG else part)

    def reduce(tensor, dst):
        if rank != (dst + 1) % n:  # where the ring begins
            arriving = torch.empty_like(tensor)
            dist.recv(arriving, (rank - 1) % n)
            tensor += arriving
        if rank != dst:
            dist.send(tensor, (rank + 1) % n)

    try:
        for name in before:
            setattr(dist, name, reduce if name == "reduce" else scatter)
        yield
    finally:
        for name, original in before.items():
            setattr(dist, name, original)


# ---- what is stored ----


def words(stage, n):
    """Words per parameter that each of n ranks stores: (parameters, gradients, Adam's).

    stage: 0 (nothing is shared out) to 3.
    """
    stage, n = given.whole("stage", stage, 0, 3), given.whole("n", n)
    return (
        1 / n if stage >= 3 else 1,
        1 / n if stage >= 2 else 1,
        2 / n if stage >= 1 else 2,
    )


def smallest_stage(P, n, memory, activations=0, layer=0):
    """The first stage at which one of n ranks fits into `memory` bytes; None if none does.

    P: parameters, in float32; activations: bytes; layer: parameters of the largest layer,
    which stage 3 holds whole, weights and gradient.
    """
    P, layer = given.whole("P", P), given.whole("layer", layer, least=0)
    given.number("memory", memory, above=0)
    given.number("activations", activations)
    for stage in range(4):
        whole = 2 * layer if stage == 3 else 0
        if 4 * (P * sum(words(stage, n)) + whole) + activations <= memory:
            return stage


# ---- stages 1 and 2: one flat tensor ----


def flat_views(model, n):
    """All parameters in one tensor, padded to a multiple of n: -> flat (n K,).

    The parameters stay the objects they were, and become views of it.
    """
    n, params = given.whole("n", n), list(_module(model).parameters())
    if not params:
        raise ValueError("the model has no parameters to lay end to end")
    if len({(p.dtype, p.device) for p in params}) != 1:
        raise TypeError("parameters that lie in one tensor have one dtype and device")
    P, start = sum(p.numel() for p in params), 0
    flat = params[0].new_zeros(-(-P // n) * n)
    for p in params:
        place = flat[start : start + p.numel()].view_as(p)
        place.copy_(p.detach())
        p.data = place
        start += p.numel()
    return flat


def my_part(flat):
    "This rank's part of a flat tensor, as a parameter in the same memory: (n K,) -> (K,)."
    joined("my_part")
    return nn.Parameter(flat.view(dist.get_world_size(), -1)[dist.get_rank()])


def zero1_step(model, flat, part, optimizer):
    """ZeRO-1, after backward: average this rank's part of the gradients, move it, share it.

    flat: of `flat_views`; part: `my_part(flat)`, which alone `optimizer` moves.
    """
    joined("zero1_step")
    _moves_alone(optimizer, part)
    params = list(model.parameters())
    grads = [
        (torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in params
    ]
    padding = flat.new_zeros(len(flat) - sum(p.numel() for p in params))
    whole = torch.cat([*grads, padding])
    del grads
    part.grad = reduce_scatter(whole) / dist.get_world_size()
    del whole  # as large as the model
    optimizer.step()
    part.grad = None
    flat.copy_(all_gather(part))


@torch.no_grad()
def clip_shard(grads, max_norm):
    """Scale shards of one gradient in place, so that over all ranks it is at most max_norm.

    grads: this rank's shards. -> the norm before, alike on every rank.
    """
    joined("clip_shard")
    given.number("max_norm", max_norm, above=0)
    grads = list(grads)
    if not grads:
        raise ValueError("grads is a list of at least one shard")
    total = sum(grad.square().sum() for grad in grads)
    dist.all_reduce(total)
    norm = total.sqrt()
    for grad in grads:
        grad *= (max_norm / (norm + 1e-6)).clamp(max=1.0)
    return norm.item()


class Zero2:
    """ZeRO-2: a gradient goes to the ranks that own it as soon as it is there, then dies.

    sharded = Zero2(model)                             # by all ranks
    optimizer = torch.optim.AdamW([sharded.part])
    loss_of(model(X), y).backward()                    # part.grad is this rank's mean
    sharded.step(optimizer)
    """

    def __init__(self, model):
        joined("Zero2")
        self.rank, self.n = dist.get_rank(), dist.get_world_size()
        self.flat = flat_views(model, self.n)
        self.part = my_part(self.flat)
        self.part.grad = torch.zeros_like(self.part)
        self.starts, start = {}, 0
        for p in model.parameters():
            self.starts[p] = start
            start += p.numel()
            p.register_post_accumulate_grad_hook(self.arrived)

    def arrived(self, p):
        "p.grad is complete: add its mean to its owners' parts, and let it go."
        K, start = len(self.part), self.starts[p]
        grad, p.grad = p.grad.flatten(), None
        for owner in range(start // K, (start + len(grad) - 1) // K + 1):
            low, high = max(start, owner * K), min(start + len(grad), (owner + 1) * K)
            piece = grad[low - start : high - start]
            dist.reduce(piece, dst=owner)
            if owner == self.rank:
                mine = self.part.grad[low - owner * K : high - owner * K]
                mine += piece / self.n

    def step(self, optimizer):
        "Move this rank's part, clear its gradient, share it."
        _moves_alone(optimizer, self.part)
        optimizer.step()
        self.part.grad.zero_()
        self.flat.copy_(all_gather(self.part))


# ---- stage 3: a layer is whole while it is needed ----


class Gather(torch.autograd.Function):
    "A part (K,) -> the whole (n K,); backward: the mean over ranks of this part's gradient."

    @staticmethod
    def forward(ctx, part):
        return all_gather(part)

    @staticmethod
    def backward(ctx, grad):
        return reduce_scatter(grad.contiguous()) / dist.get_world_size()


def forgetful(whole, regain):
    """Hooks for saved_tensors_hooks: views of `whole` are saved as a note, not as numbers.

    regain() gives the same numbers again, (n K,). -> (pack, unpack).
    """
    given.function("regain", regain)
    address = whole.untyped_storage().data_ptr()

    def pack(x):
        if x.untyped_storage().data_ptr() != address:
            return x
        return x.shape, x.stride(), x.storage_offset()

    def unpack(saved):
        if isinstance(saved, torch.Tensor):
            return saved
        return regain().as_strided(*saved)

    return pack, unpack


class Zero3(nn.Module):
    """A layer of which each rank stores one n-th; whole only while it computes.

        model = nn.Sequential(*[Zero3(x) if list(x.parameters()) else x for x in model])
        optimizer = torch.optim.AdamW(model.parameters())

    Nothing else changes: `part.grad` is this rank's part of the mean over ranks after
    backward. layer: its parameters have one dtype and all need gradients; no buffers.
    """

    def __init__(self, layer):
        super().__init__()
        joined("Zero3")
        params = dict(_module(layer).named_parameters())
        if not params or list(layer.buffers()):
            raise ValueError("Zero3 is for a layer with parameters and without buffers")
        if not all(p.requires_grad for p in params.values()):
            raise ValueError(
                "Zero3 is for a layer all of whose parameters need gradients"
            )
        self.shapes = {name: p.shape for name, p in params.items()}
        flat = flat_views(layer, dist.get_world_size())
        self.part = nn.Parameter(my_part(flat).detach().clone())
        self.layer = [
            layer.to("meta")
        ]  # shapes without memory; a list hides its parameters

    def sizes(self):
        return [shape.numel() for shape in self.shapes.values()]

    def forward(self, *inputs):
        whole = Gather.apply(self.part)
        pieces = whole[: sum(self.sizes())].split(self.sizes())
        params = {
            name: piece.view(shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces)
        }
        with saved_tensors_hooks(*forgetful(whole, lambda: all_gather(self.part))):
            return functional_call(self.layer[0], params, inputs)


# ---- a file ----


def save_shards(path, parts, sizes):
    """One file of all weights, end to end, to which each rank writes its own numbers.

    parts: this rank's part of each layer, (K,) with K = ceil(size / n); sizes: numbers of
    each layer, without padding. All ranks see `path`; none sends a weight. They write to
    PATH.part, which takes the name `path` when all have written: a save that breaks off
    leaves the file before as it was.
    """
    joined("save_shards")
    rank, n = dist.get_rank(), dist.get_world_size()
    if len(parts) != len(sizes):
        raise ValueError(f"{len(parts)} parts and {len(sizes)} sizes: one each a layer")
    if len({part.dtype for part in parts}) != 1:
        raise ValueError("parts are of at least one layer, and all of one dtype")
    for part, size in zip(parts, sizes):
        if len(part) != -(-size // n):
            raise ValueError(
                f"a part of {size} numbers on {n} ranks has {-(-size // n)}, not "
                f"{len(part)}"
            )
    draft = f"{os.fspath(path)}.part"
    if rank == 0:
        with open(draft, "wb") as file:
            file.truncate(sum(sizes) * parts[0].element_size())
    dist.barrier()
    with open(draft, "r+b") as file:
        first = 0
        for part, size in zip(parts, sizes):
            start = min(rank * len(part), size)
            mine = part.detach()[: size - start]
            file.seek((first + start) * part.element_size())
            file.write(mine.cpu().numpy().tobytes())
            first += size
        file.flush()
        os.fsync(file.fileno())
    dist.barrier()  # every rank's numbers are on the disk
    if rank == 0:
        os.replace(draft, path)
    dist.barrier()


# ---- PyTorch's own, beside the stages ----


def DDP(model, optimizer_of):
    """Chapter 17's wrapper: -> (net, optimizer, move, whole).

    optimizer_of(params) makes the optimizer. move() after backward; whole() -> all weights
    in one vector (P,).
    """
    joined("DDP")
    optimizer = optimizer_of(_module(model).parameters())
    net = nn.parallel.DistributedDataParallel(model)

    def whole():
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    return net, optimizer, optimizer.step, whole


def FSDP2(model, optimizer_of):
    """PyTorch's stage 3, layer by layer: -> (net, optimizer, move, whole), as of `DDP`.

    All ranks call whole(), which gathers.
    """
    joined("FSDP2")
    from torch.distributed.fsdp import fully_shard

    for layer in _module(model).children():
        if list(layer.parameters()):
            fully_shard(layer)
    fully_shard(model)
    optimizer = optimizer_of(model.parameters())

    def whole():
        return torch.cat([p.full_tensor().flatten() for p in model.parameters()])

    return model, optimizer, optimizer.step, whole


# ---- ranks that are not there ----


@contextmanager
def pretend(rank, n):
    """Inside, this process is rank `rank` of n, and the others are pretended.

    Every call returns at once, and nothing travels: numbers mean nothing, sizes do.
    """
    n = given.whole("n", n)
    rank = given.whole("rank", rank, 0, n - 1)
    if dist.is_initialized():
        raise RuntimeError("this process is a rank already: pretend outside ranks.run")
    from torch.testing._internal.distributed.fake_pg import FakeStore

    hook = sys.excepthook  # which labels every error with a rank, and would stay
    dist.init_process_group("fake", rank=rank, world_size=n, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()
        sys.excepthook = hook


# ---- what they are given ----


def _module(model):
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a torch.nn.Module, not {model!r:.60}")
    return model


def _flat(name, x):
    if not isinstance(x, torch.Tensor) or x.ndim != 1:
        shape = tuple(x.shape) if isinstance(x, torch.Tensor) else given.kind(x)
        raise ValueError(f"{name} is a flat tensor, not {shape}")
    return x


def _moves_alone(optimizer, part):
    moved = [p for group in optimizer.param_groups for p in group["params"]]
    if len(moved) != 1 or moved[0] is not part:
        raise ValueError(
            f"the optimizer moves this rank's part alone, not {len(moved)} others: "
            "torch.optim.AdamW([part])"
        )
