"""What chapter 19 builds first: one layer over n ranks, by columns, heads, words, tokens.

Every function is called by all ranks of a torch.distributed group, inside
`ranks.run(fn, n)`, under torchrun, or in a rehearsal (utils.practice); elsewhere it
raises RuntimeError. A rank holds H of the MLP's hidden units, H of the heads and V of the
vocabulary's rows, in the ranks' order; x (B, T, E) is the same on all ranks, or with
`doors=BY_TOKENS` this rank's T tokens. Column and row follow Shoeybi and others (2019),
https://arxiv.org/abs/1909.08053; tokens Korthikanti and others (2022),
https://arxiv.org/abs/2205.05198; the ring Liu and others (2023),
https://arxiv.org/abs/2310.01889.
"""

import torch
import torch.nn.functional as F
from torch import distributed as dist

from utils import given
from utils.ranks.agree import joined


def total(x, group=None):
    "The sum of all ranks' x, on every rank, in new memory; autograd does not see it."
    joined("total")
    x = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(x, group=group)
    return x


def highest(x, group=None):
    "The largest of all ranks' x, number by number; autograd does not see it."
    joined("highest")
    x = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(x, op=dist.ReduceOp.MAX, group=group)
    return x


# ---- doors: into a split layer, and out of it ----


class Enter(torch.autograd.Function):
    "Into a split layer: forward x as it is, backward the sum of all ranks' gradients."

    @staticmethod
    def forward(ctx, x, group=None):
        joined("Enter")
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return total(grad, ctx.group), None


class Leave(torch.autograd.Function):
    "Out of a split layer: forward the sum of all ranks' x, backward the gradient as it is."

    @staticmethod
    def forward(ctx, x, group=None):
        return total(x, group)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


def gather_tokens(x_BTE):
    "Every rank's tokens, side by side on every rank: (B, T, E) -> (B, n T, E)."
    x_BTE = x_BTE.contiguous()
    parts = [torch.empty_like(x_BTE) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x_BTE)
    return torch.cat(parts, 1)


def scatter_tokens(x_BTE):
    "The sum of all ranks' x, and of it this rank's tokens: (B, n T, E) -> (B, T, E)."
    n = dist.get_world_size()
    if x_BTE.shape[1] % n:
        raise ValueError(f"{x_BTE.shape[1]} tokens are no equal shares for {n} ranks")
    parts = [part.contiguous() for part in x_BTE.chunk(n, 1)]
    mine = torch.empty_like(parts[0])
    dist.reduce_scatter(mine, parts)
    return mine


class EnterTokens(torch.autograd.Function):
    "Enter where each rank has its own tokens: all-gather, and reduce-scatter back."

    @staticmethod
    def forward(ctx, x_BTE):
        joined("EnterTokens")
        return gather_tokens(x_BTE)

    @staticmethod
    def backward(ctx, grad):
        return scatter_tokens(grad)


class LeaveTokens(torch.autograd.Function):
    "Leave where each rank wants its own tokens: reduce-scatter, and all-gather back."

    @staticmethod
    def forward(ctx, x_BTE):
        joined("LeaveTokens")
        return scatter_tokens(x_BTE)

    @staticmethod
    def backward(ctx, grad):
        return gather_tokens(grad)


BY_RANK, BY_TOKENS = (Enter, Leave), (EnterTokens, LeaveTokens)


# ---- split layers ----


def split_mlp(x_BTE, up_HE, down_EH, bias_E, doors=BY_RANK):
    "gelu(x up') down' + bias, with this rank's H hidden units: -> (B, T, E)."
    enter, leave = doors
    if up_HE.shape != down_EH.shape[::-1]:
        raise ValueError(
            f"up_HE {tuple(up_HE.shape)} and down_EH {tuple(down_EH.shape)} do not have "
            "the same hidden units"
        )
    hidden_BTH = F.gelu(enter.apply(x_BTE) @ up_HE.T)
    return leave.apply(hidden_BTH @ down_EH.T) + bias_E


def split_attention(x_BTE, qkv_3HDE, out_EK, doors=BY_RANK):
    "Causal attention with this rank's H heads, K = H D: -> (B, T, E)."
    enter, leave = doors
    if qkv_3HDE.ndim != 4 or len(qkv_3HDE) != 3:
        raise ValueError(f"qkv is of shape (3, H, D, E), not {tuple(qkv_3HDE.shape)}")
    q, k, v = torch.einsum("bte,chde->cbhtd", enter.apply(x_BTE), qkv_3HDE)
    o_BHTD = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return leave.apply(o_BHTD.transpose(1, 2).flatten(2) @ out_EK.T)


def split_loss(x_BTE, words_VE, y_BT, enter=Enter):
    """Mean cross-entropy of x words' with this rank's V rows of the vocabulary: a number.

    Rank r has the words from r V on. Three sums or maxima of one number per token travel,
    and no logit does.
    """
    z_BTV = enter.apply(x_BTE) @ words_VE.T
    top_BT = highest(z_BTV.amax(-1))
    all_BT = Leave.apply((z_BTV - top_BT[..., None]).exp().sum(-1))
    V = len(words_VE)
    place_BT = y_BT - dist.get_rank() * V
    mine_BT = (place_BT >= 0) & (place_BT < V)
    own_BT = z_BTV.gather(-1, place_BT.clamp(0, V - 1)[..., None])[..., 0] - top_BT
    right_BT = Leave.apply(torch.where(mine_BT, own_BT, 0.0))
    return (all_BT.log() - right_BT).mean()


# ---- attention round a ring ----


def merge(one, other):
    """Two blocks of keys as one: each (o (..., D), top (...), mass (...)) -> the same.

    top: the largest score of a query; mass: its sum of exp(score - top); o: that sum with
    the values. A block of which a query sees nothing has top -inf and mass 0.
    """
    for block in (one, other):
        if not isinstance(block, (tuple, list)) or len(block) != 3:
            raise ValueError(
                f"a block is three tensors, (o, top, mass), not {block!r:.60}"
            )
    (o1, top1, mass1), (o2, top2, mass2) = one, other
    top = torch.maximum(top1, top2)
    safe = top.masked_fill(top == -torch.inf, 0.0)  # -inf - -inf is nan
    w1, w2 = (top1 - safe).exp(), (top2 - safe).exp()
    return w1[..., None] * o1 + w2[..., None] * o2, top, w1 * mass1 + w2 * mass2


def zigzag(T, n, rank):
    "This rank's positions of T: chunk r from the front and chunk r from the back."
    T, n = given.whole("T", T), given.whole("n", n)
    rank = given.whole("rank", rank, 0, n - 1)
    if T % (2 * n):
        raise ValueError(f"T = {T} does not fall into 2 n = {2 * n} equal chunks")
    chunks = torch.arange(T).chunk(2 * n)
    return torch.cat([chunks[rank], chunks[-1 - rank]])


def block_of(q, k, v, seen):
    "One block of keys: -> (o (B, H, T, D), top (B, H, T), mass (B, H, T)); seen (T, S)."
    s = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~seen, -torch.inf)
    top = s.amax(-1)
    weight = (s - top.masked_fill(top == -torch.inf, 0.0)[..., None]).exp()
    return weight @ v, top, weight.sum(-1)


def ring_attention(q, k, v, places):
    """Causal attention of this rank's queries over all ranks' keys, forward only.

    q, k, v (B, H, T, D) are those of the positions places[rank], equally many on all
    ranks. -> (o (B, H, T, D), how many pairs of positions this rank has looked at).
    """
    joined("ring_attention")
    rank, n = dist.get_rank(), dist.get_world_size()
    travelling, owner, pairs = torch.stack([k, v]).contiguous(), rank, 0
    state = (
        torch.zeros_like(q),
        q.new_full(q.shape[:3], -torch.inf),
        q.new_zeros(q.shape[:3]),
    )
    for step in range(n):
        seen = places[rank][:, None] >= places[owner]
        if seen.any():
            state = merge(state, block_of(q, *travelling, seen))
            pairs += int(seen.sum())
        if step < n - 1:
            arriving = torch.empty_like(travelling)
            leaving = dist.isend(travelling, (rank + 1) % n)
            dist.recv(arriving, (rank - 1) % n)
            leaving.wait()
            travelling, owner = arriving, (owner - 1) % n
    o, _, mass = state
    return o / mass[..., None], pairs
