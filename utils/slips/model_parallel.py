"Chapter 19: small wrong programs, each with the sentence that names it."

import torch
import torch.nn.functional as F
from torch import distributed as dist

from utils.built import pipeline
from utils.built.experts import Swap, swapped
from utils.built.pipeline import needs
from utils.built.pipeline import order_1f1b as right_1f1b
from utils.built.tensor_parallel import BY_RANK, Enter, highest, total
from utils.built.tensor_parallel import Leave as Out
from utils.checks import model_parallel as ex

# ---- Leave ----


@ex.Leave.slip(
    "The gradient is summed once more: every rank holds the whole already, so it comes out n times too large."
)
class SumsTwice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, group=None):
        ctx.group = group
        return total(x, group)

    @staticmethod
    def backward(ctx, grad):
        return total(grad, ctx.group), None


@ex.Leave.slip("Nothing was summed forward: each rank leaves with its own part.")
class SumsNothing(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, group=None):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


@ex.Leave.slip("Forward is a sum over ranks, not a mean.")
class TakesTheMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, group=None):
        return total(x, group) / dist.get_world_size(group)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


@ex.Leave.slip(
    "The gradient was shared out among the ranks: a part of a sum gets all of it."
)
class SharesOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, group=None):
        ctx.n = dist.get_world_size(group)
        return total(x, group)

    @staticmethod
    def backward(ctx, grad):
        return grad / ctx.n, None


@ex.Leave.slip("The group was not handed on: total(x, group), or all ranks add up.")
class ForgetsTheGroup(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, group=None):
        return total(x)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


@ex.Leave.slip("x was overwritten: the sum belongs in new memory, total(x, group).")
class Overwrites(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, group=None):
        x = x.contiguous()
        dist.all_reduce(x, group=group)
        return x

    @staticmethod
    def backward(ctx, grad):
        return grad, None


# ---- split_mlp ----


@ex.split_mlp.slip("The bias went through the door and was added once per rank.")
def bias_n_times(x_BTE, up_HE, down_EH, bias_E, doors=BY_RANK):
    enter, leave = doors
    return leave.apply(F.gelu(enter.apply(x_BTE) @ up_HE.T) @ down_EH.T + bias_E)


@ex.split_mlp.slip(
    "x went in without the first door: its gradient knows only this rank's hidden units."
)
def no_enter(x_BTE, up_HE, down_EH, bias_E, doors=BY_RANK):
    enter, leave = doors
    if enter is not Enter:
        x_BTE = enter.apply(x_BTE)
    return leave.apply(F.gelu(x_BTE @ up_HE.T) @ down_EH.T) + bias_E


@ex.split_mlp.slip("The parts never met: they leave through the second door.")
def no_leave(x_BTE, up_HE, down_EH, bias_E, doors=BY_RANK):
    enter, leave = doors
    y = F.gelu(enter.apply(x_BTE) @ up_HE.T) @ down_EH.T
    return (y if leave is Out else leave.apply(y)) + bias_E


@ex.split_mlp.slip("There is no gelu between the two layers.")
def no_gelu(x_BTE, up_HE, down_EH, bias_E, doors=BY_RANK):
    enter, leave = doors
    return leave.apply(enter.apply(x_BTE) @ up_HE.T @ down_EH.T) + bias_E


@ex.split_mlp.slip(
    "gelu comes after the second layer: it belongs between the two, on this rank's hidden units."
)
def gelu_too_late(x_BTE, up_HE, down_EH, bias_E, doors=BY_RANK):
    enter, leave = doors
    return F.gelu(leave.apply(enter.apply(x_BTE) @ up_HE.T @ down_EH.T)) + bias_E


@ex.split_mlp.slip("The bias is missing.")
def no_bias(x_BTE, up_HE, down_EH, bias_E, doors=BY_RANK):
    enter, leave = doors
    return leave.apply(F.gelu(enter.apply(x_BTE) @ up_HE.T) @ down_EH.T)


@ex.split_mlp.slip(
    "These are always the doors of section 1: use the two that are given."
)
def own_doors(x_BTE, up_HE, down_EH, bias_E, doors=BY_RANK):
    return Out.apply(F.gelu(Enter.apply(x_BTE) @ up_HE.T) @ down_EH.T) + bias_E


@ex.split_mlp.slip(
    "total() is not seen by autograd: the hidden units get no gradient. Use the second door."
)
def total_for_a_door(x_BTE, up_HE, down_EH, bias_E, doors=BY_RANK):
    enter, leave = doors
    return total(F.gelu(enter.apply(x_BTE) @ up_HE.T) @ down_EH.T) + bias_E


# ---- split_attention ----


def _heads(x_BTE, qkv_3HDE, enter, causal=True, **options):
    q, k, v = torch.einsum("bte,chde->cbhtd", enter.apply(x_BTE), qkv_3HDE)
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal, **options)


@ex.split_attention.slip("Every token sees the future: is_causal=True.")
def sees_the_future(x_BTE, qkv_3HDE, out_EK, doors=BY_RANK):
    enter, leave = doors
    o = _heads(x_BTE, qkv_3HDE, enter, causal=False)
    return leave.apply(o.transpose(1, 2).flatten(2) @ out_EK.T)


@ex.split_attention.slip(
    "The scores are divided by the square root of E: a head has D features."
)
def scaled_by_width(x_BTE, qkv_3HDE, out_EK, doors=BY_RANK):
    enter, leave = doors
    o = _heads(x_BTE, qkv_3HDE, enter, scale=x_BTE.shape[-1] ** -0.5)
    return leave.apply(o.transpose(1, 2).flatten(2) @ out_EK.T)


@ex.split_attention.slip("The parts never met: they leave through the second door.")
def heads_stay(x_BTE, qkv_3HDE, out_EK, doors=BY_RANK):
    enter, leave = doors
    y = _heads(x_BTE, qkv_3HDE, enter).transpose(1, 2).flatten(2) @ out_EK.T
    return y if leave is Out else leave.apply(y)


@ex.split_attention.slip(
    "x went in without the first door: its gradient knows only this rank's heads."
)
def heads_without_enter(x_BTE, qkv_3HDE, out_EK, doors=BY_RANK):
    enter, leave = doors
    if enter is not Enter:
        x_BTE = enter.apply(x_BTE)
    q, k, v = torch.einsum("bte,chde->cbhtd", x_BTE, qkv_3HDE)
    o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return leave.apply(o.transpose(1, 2).flatten(2) @ out_EK.T)


@ex.split_attention.slip(
    "Heads and tokens are mixed up: .transpose(1, 2) before .flatten(2), so that a token's heads stand side by side."
)
def not_transposed(x_BTE, qkv_3HDE, out_EK, doors=BY_RANK):
    enter, leave = doors
    o = _heads(x_BTE, qkv_3HDE, enter)
    B, H, T, D = o.shape
    return leave.apply(o.reshape(B, T, H * D) @ out_EK.T)


@ex.split_attention.slip(
    "The features are interleaved: head 0's D numbers first, then head 1's."
)
def features_first(x_BTE, qkv_3HDE, out_EK, doors=BY_RANK):
    enter, leave = doors
    o = _heads(x_BTE, qkv_3HDE, enter)
    return leave.apply(o.permute(0, 2, 3, 1).flatten(2) @ out_EK.T)


@ex.split_attention.slip(
    "These are always the doors of section 1: use the two that are given."
)
def own_doors_for_heads(x_BTE, qkv_3HDE, out_EK, doors=BY_RANK):
    o = _heads(x_BTE, qkv_3HDE, Enter)
    return Out.apply(o.transpose(1, 2).flatten(2) @ out_EK.T)


@ex.split_attention.slip(
    "The scores are not divided: attention divides them by the square root of D, a head's size."
)
def not_scaled(x_BTE, qkv_3HDE, out_EK, doors=BY_RANK):
    enter, leave = doors
    o = _heads(x_BTE, qkv_3HDE, enter, scale=1.0)
    return leave.apply(o.transpose(1, 2).flatten(2) @ out_EK.T)


# ---- split_loss ----


def _loss(x, words, y, enter, top=highest, add=Out.apply, offset=None, mean=True):
    z = enter.apply(x) @ words.T
    V, top_BT = len(words), top(z.amax(-1))
    all_BT = add((z - top_BT[..., None]).exp().sum(-1))
    place = y - dist.get_rank() * V if offset is None else y - offset
    mine = (place >= 0) & (place < V)
    own = z.gather(-1, place.clamp(0, V - 1)[..., None])[..., 0] - top_BT
    right = add(torch.where(mine, own, 0.0))
    loss = all_BT.log() - right
    return loss.mean() if mean else loss.sum()


@ex.split_loss.slip(
    "Each rank took off its own maximum, so the sums do not fit together: highest() is over all ranks."
)
def own_maximum(x_BTE, words_VE, y_BT, enter=Enter):
    return _loss(x_BTE, words_VE, y_BT, enter, top=lambda t: t.detach())


@ex.split_loss.slip(
    "Without a maximum taken off, exp overflows: its result is inf for logits of several hundred."
)
def no_maximum(x_BTE, words_VE, y_BT, enter=Enter):
    return _loss(x_BTE, words_VE, y_BT, enter, top=lambda t: torch.zeros_like(t))


@ex.split_loss.slip(
    "Every rank takes the words from 0 on for its own: rank r has those from r V on."
)
def no_offset(x_BTE, words_VE, y_BT, enter=Enter):
    return _loss(x_BTE, words_VE, y_BT, enter, offset=0)


@ex.split_loss.slip("This is the sum over tokens: the loss is their mean.")
def summed_loss(x_BTE, words_VE, y_BT, enter=Enter):
    return _loss(x_BTE, words_VE, y_BT, enter, mean=False)


@ex.split_loss.slip(
    "total() is not seen by autograd: the loss has no gradient. Sums pass Leave."
)
def loss_without_leave(x_BTE, words_VE, y_BT, enter=Enter):
    return _loss(x_BTE, words_VE, y_BT, enter, add=total)


class _Plain:
    @staticmethod
    def apply(x):
        return x


@ex.split_loss.slip(
    "x went in without `enter`: its gradient knows only this rank's words."
)
def loss_without_enter(x_BTE, words_VE, y_BT, enter=Enter):
    return _loss(x_BTE, words_VE, y_BT, _Plain if enter is Enter else enter)


@ex.split_loss.slip(
    "The result is right, but all logits travel to every rank: three numbers per token are enough."
)
def gathers_logits(x_BTE, words_VE, y_BT, enter=Enter):
    z = enter.apply(x_BTE) @ words_VE.T
    whole = F.pad(z, (dist.get_rank() * len(words_VE), 0))
    room = dist.get_world_size() * len(words_VE) - whole.shape[-1]
    whole = Out.apply(F.pad(whole, (0, room)))
    return F.cross_entropy(whole.flatten(0, 1), y_BT.flatten())


@ex.split_loss.slip(
    "A word of another rank counts here, too: where it is not this rank's, put 0."
)
def not_masked(x_BTE, words_VE, y_BT, enter=Enter):
    z = enter.apply(x_BTE) @ words_VE.T
    V, top_BT = len(words_VE), highest(z.amax(-1))
    all_BT = Out.apply((z - top_BT[..., None]).exp().sum(-1))
    place = (y_BT - dist.get_rank() * V).clamp(0, V - 1)
    right = Out.apply(z.gather(-1, place[..., None])[..., 0] - top_BT)
    return (all_BT.log() - right).mean()


@ex.split_loss.slip(
    "One maximum per token, z_BTV.amax(-1): with one for all tokens, every exp of a token with smaller logits becomes 0, and its log -inf."
)
def one_maximum_for_all(x_BTE, words_VE, y_BT, enter=Enter):
    return _loss(
        x_BTE, words_VE, y_BT, enter, top=lambda t: highest(t.max()).expand_as(t)
    )


@ex.split_loss.slip(
    "This is always the door of section 1: use `enter`, which is given."
)
def own_door_for_words(x_BTE, words_VE, y_BT, enter=Enter):
    return _loss(x_BTE, words_VE, y_BT, Enter)


def _half_masked(mine, inside):
    "split_loss whose mask, mine(place, V), lets words of other ranks through."

    def split_loss(x_BTE, words_VE, y_BT, enter=Enter):
        z = enter.apply(x_BTE) @ words_VE.T
        V, top_BT = len(words_VE), highest(z.amax(-1))
        all_BT = Out.apply((z - top_BT[..., None]).exp().sum(-1))
        place = y_BT - dist.get_rank() * V
        own = z.gather(-1, inside(place, V)[..., None])[..., 0] - top_BT
        right = Out.apply(torch.where(mine(place, V), own, 0.0))
        return (all_BT.log() - right).mean()

    return split_loss


_OTHERS = "A word of another rank counts here, too: this rank's have a place from 0 to V - 1."  # fmt: skip
for _name, _mine in {
    "from 0 on": lambda place, V: place >= 0,
    "below V": lambda place, V: place < V,
    "up to V": lambda place, V: (place >= 0) & (place <= V),
}.items():
    for _how, _inside in {
        "clamped": lambda place, V: place.clamp(0, V - 1),
        "modulo V": lambda place, V: place % V,
    }.items():
        _wrong = _half_masked(_mine, _inside)
        _wrong.__name__ = f"{_name}, {_how}"
        ex.split_loss.slip(_OTHERS)(_wrong)


# ---- merge ----


@ex.merge.slip("The two blocks were added without bringing them to one maximum.")
def plain_sum(one, other):
    (o1, top1, mass1), (o2, top2, mass2) = one, other
    return o1 + o2, torch.maximum(top1, top2), mass1 + mass2


@ex.merge.slip(
    "Where both blocks are empty, -inf minus -inf is nan: make the factor 0."
)
def with_nan(one, other):
    (o1, top1, mass1), (o2, top2, mass2) = one, other
    top = torch.maximum(top1, top2)
    w1, w2 = (top1 - top).exp(), (top2 - top).exp()
    return w1[..., None] * o1 + w2[..., None] * o2, top, w1 * mass1 + w2 * mass2


@ex.merge.slip(
    "exp of the scores themselves overflows: only differences to the new maximum go into exp."
)
def raw_exponents(one, other):
    (o1, top1, mass1), (o2, top2, mass2) = one, other
    top = torch.maximum(top1, top2)
    w1, w2 = [(t.exp() / top.exp()).nan_to_num(0.0) for t in (top1, top2)]
    return w1[..., None] * o1 + w2[..., None] * o2, top, w1 * mass1 + w2 * mass2


@ex.merge.slip("The sign of the exponent is turned round: exp(its top - the new top).")
def sign_turned(one, other):
    (o1, top1, mass1), (o2, top2, mass2) = one, other
    top = torch.maximum(top1, top2)
    w1, w2 = [(top - t).exp().nan_to_num(0.0, 0.0) for t in (top1, top2)]
    return w1[..., None] * o1 + w2[..., None] * o2, top, w1 * mass1 + w2 * mass2


@ex.merge.slip("o was brought to the new maximum, mass was not: both are sums of exp.")
def mass_forgotten(one, other):
    (o1, top1, mass1), (o2, top2, mass2) = one, other
    top = torch.maximum(top1, top2)
    w1, w2 = [(t - top).exp().nan_to_num(0.0) for t in (top1, top2)]
    return w1[..., None] * o1 + w2[..., None] * o2, top, mass1 + mass2


@ex.merge.slip(
    "This divides by the mass at once: o stays a sum, the last line divides."
)
def divided_at_once(one, other):
    (o1, top1, mass1), (o2, top2, mass2) = one, other
    top = torch.maximum(top1, top2)
    w1, w2 = [(t - top).exp().nan_to_num(0.0) for t in (top1, top2)]
    mass = w1 * mass1 + w2 * mass2
    return (w1[..., None] * o1 + w2[..., None] * o2) / mass[..., None], top, mass


@ex.merge.slip(
    "o has one axis more than top and mass, and so than the factors: w1[..., None] * o1."
)
def axis_missing(one, other):
    (o1, top1, mass1), (o2, top2, mass2) = one, other
    top = torch.maximum(top1, top2)
    w1, w2 = [(t - top).exp().nan_to_num(0.0) for t in (top1, top2)]
    return w1 * o1 + w2 * o2, top, w1 * mass1 + w2 * mass2


# ---- zigzag ----


@ex.zigzag.slip("These are neighbours together: the last rank looks at most positions.")
def contiguous(T, n, rank):
    return torch.arange(T).chunk(n)[rank]


@ex.zigzag.slip("Cards in turns: the chunks are 2 n long pieces in a row, not every n-th position.")  # fmt: skip
def dealt(T, n, rank):
    return torch.arange(T)[rank::n]


@ex.zigzag.slip(
    "The second chunk is the one n further on: count from the back instead."
)
def n_further_on(T, n, rank):
    chunks = torch.arange(T).chunk(2 * n)
    return torch.cat([chunks[rank], chunks[n + rank]])


@ex.zigzag.slip(
    "The back chunk is one too far: number `rank` from the back is chunks[-1 - rank]."
)
def one_too_far(T, n, rank):
    chunks = torch.arange(T).chunk(2 * n)
    return torch.cat([chunks[rank], chunks[-rank]])


@ex.zigzag.slip(
    "The back chunk is one too far: of 2 n chunks the last is number 2 n - 1, chunks[2 * n - 1 - rank]."
)
def beyond_the_last(T, n, rank):
    chunks = torch.arange(T).chunk(2 * n)
    return torch.cat([chunks[rank], chunks[2 * n - rank]])


@ex.zigzag.slip("The right positions in the wrong order: the front chunk comes first.")
def back_first(T, n, rank):
    chunks = torch.arange(T).chunk(2 * n)
    return torch.cat([chunks[-1 - rank], chunks[rank]])


# ---- dispatch ----


def _counts(expert_N):
    send = torch.bincount(expert_N, minlength=dist.get_world_size())
    recv = torch.empty_like(send)
    dist.all_to_all_single(recv, send)
    return send, recv


@ex.dispatch.slip(
    "The rows come home sorted by expert: undo the sorting with order_N.argsort()."
)
def comes_home_sorted(x_NE, expert_N, run):
    order, (send, recv) = expert_N.argsort(), _counts(expert_N)
    return Swap.apply(run(Swap.apply(x_NE[order], send, recv)), recv, send)


@ex.dispatch.slip(
    "The sorting was done a second time in place of undone: index with order_N.argsort()."
)
def sorted_twice(x_NE, expert_N, run):
    order, (send, recv) = expert_N.argsort(), _counts(expert_N)
    return Swap.apply(run(Swap.apply(x_NE[order], send, recv)), recv, send)[order]


@ex.dispatch.slip(
    "The rows left in their own order: sort them by expert first, for Swap sends the first rows to rank 0."
)
def not_sorted(x_NE, expert_N, run):
    send, recv = _counts(expert_N)
    return Swap.apply(run(Swap.apply(x_NE, send, recv)), recv, send)


@ex.dispatch.slip("The rows never left: every one went through this rank's own expert.")
def stays_at_home(x_NE, expert_N, run):
    return run(x_NE)


@ex.dispatch.slip(
    "The rows travel without Swap, so no gradient comes home: a plain all-to-all is not seen by autograd."
)
def gradient_lost(x_NE, expert_N, run):
    order, (send, recv) = expert_N.argsort(), _counts(expert_N)
    rows = x_NE.new_empty(int(recv.sum()), x_NE.shape[1])
    dist.all_to_all_single(
        rows, x_NE.detach()[order].contiguous(), recv.tolist(), send.tolist()
    )
    return Swap.apply(run(rows), recv, send)[order.argsort()]


@ex.dispatch.slip(
    "It reckons with equally many rows from all: the counts travel first, and then everyone knows."
)
def assumes_equal(x_NE, expert_N, run):
    order = expert_N.argsort()
    send = torch.bincount(expert_N, minlength=dist.get_world_size())
    return Swap.apply(run(Swap.apply(x_NE[order], send, send)), send, send)[
        order.argsort()
    ]


@ex.dispatch.slip(
    "bincount needs minlength=n: where the last experts get no row, their 0 is missing."
)
def short_counts(x_NE, expert_N, run):
    order, send = expert_N.argsort(), torch.bincount(expert_N)
    recv = torch.empty_like(send)
    dist.all_to_all_single(recv, send)
    return Swap.apply(run(Swap.apply(x_NE[order], send, recv)), recv, send)[
        order.argsort()
    ]


@ex.dispatch.slip(
    "The rows travel without Swap, so no gradient comes home: a plain all-to-all is not seen by autograd."
)
def plain_both_ways(x_NE, expert_N, run):
    order, (send, recv) = expert_N.argsort(), _counts(expert_N)
    rows = swapped(x_NE[order], send, recv)
    return swapped(run(rows), recv, send)[order.argsort()]


@ex.dispatch.slip(
    "The rows travel without Swap, so no gradient comes home: a plain all-to-all is not seen by autograd."
)
def plain_way_out(x_NE, expert_N, run):
    order, (send, recv) = expert_N.argsort(), _counts(expert_N)
    rows = swapped(x_NE[order], send, recv)
    return Swap.apply(run(rows), recv, send)[order.argsort()]


@ex.dispatch.slip(
    "The rows travel without Swap, so no gradient comes home: a plain all-to-all is not seen by autograd."
)
def plain_way_home(x_NE, expert_N, run):
    order, (send, recv) = expert_N.argsort(), _counts(expert_N)
    rows = Swap.apply(x_NE[order], send, recv)
    return swapped(run(rows), recv, send)[order.argsort()]


@ex.dispatch.slip(
    "On the way home the counts change places: recv_R rows leave, send_R come."
)
def same_counts_home(x_NE, expert_N, run):
    order, (send, recv) = expert_N.argsort(), _counts(expert_N)
    rows = Swap.apply(x_NE[order], send, recv)
    return Swap.apply(run(rows), send, recv)[order.argsort()]


# ---- order_1f1b ----


def _order(p, m, rank, warm, newest=False):
    warm = min(warm, m)
    order = [("F", i, rank) for i in range(warm)]
    for i in range(m - warm):
        order += [("F", warm + i, rank), ("B", warm + i if newest else i, rank)]
    left = range(warm - 1, -1, -1) if newest else range(m - warm, m)
    return order + [("B", i, rank) for i in left]


@ex.order_1f1b.slip(
    "One forward pass too many to begin with: p - rank - 1 ranks lie behind this one."
)
def warm_too_long(p, m, rank):
    return _order(p, m, rank, p - rank)


@ex.order_1f1b.slip("All forward, then all backward: this is GPipe.")
def is_gpipe(p, m, rank):
    return [(kind, i, rank) for kind in "FB" for i in range(m)]


@ex.order_1f1b.slip(
    "The newest micro-batch goes backward first: it is the oldest whose gradient comes first."
)
def newest_first(p, m, rank):
    return _order(p, m, rank, p - rank - 1, newest=True)


@ex.order_1f1b.slip("The warm-up is that of the mirrored rank: the first rank fills longest.")  # fmt: skip
def mirrored(p, m, rank):
    return _order(p, m, rank, rank)


@ex.order_1f1b.slip("The last backward passes are missing: the pipe is never emptied.")
def never_drained(p, m, rank):
    return _order(p, m, rank, p - rank - 1)[: 2 * m - min(p - rank - 1, m)]


@ex.order_1f1b.slip("In a pair the forward comes first, then the oldest backward.")
def backward_first(p, m, rank):
    warm = min(p - rank - 1, m)
    order = [("F", i, rank) for i in range(warm)]
    for i in range(m - warm):
        order += [("B", i, rank), ("F", warm + i, rank)]
    return order + [("B", i, rank) for i in range(m - warm, m)]


@ex.order_1f1b.slip(
    "With fewer micro-batches than ranks it goes on to micro-batches that are not there: at most m in the warm-up."
)
def more_than_there_are(p, m, rank):
    warm = p - rank - 1
    order = [("F", i, rank) for i in range(warm)]
    for i in range(m - warm):
        order += [("F", warm + i, rank), ("B", i, rank)]
    return order + [("B", i, rank) for i in range(max(m - warm, 0), m)]


@ex.order_1f1b.slip("The stage is the third entry of an action, and it is `rank`.")
def always_stage_0(p, m, rank):
    return [(kind, i, 0) for kind, i, _ in right_1f1b(p, m, rank)]


# ---- simulate ----


def _clock(orders, seconds, start_of, takes=None, stages=None):
    stages = stages or 1 + max(stage for order in orders for _, _, stage in order)
    ends, spans, todo = {None: 0.0}, [[] for _ in orders], [list(o) for o in orders]
    while any(todo):
        for rank, order in enumerate(todo):
            while order and needs(order[0], stages) in ends:
                action = order.pop(0)
                free = spans[rank][-1][1] if spans[rank] else 0.0
                start = start_of(free, ends[needs(action, stages)])
                ends[action] = start + (takes or seconds[action[0]])
                spans[rank].append((start, ends[action], action))
    return spans


@ex.simulate.slip(
    "An action starts as soon as its rank is free: it also waits for what it needs."
)
def ignores_others(orders, seconds):
    return _clock(orders, seconds, lambda free, needed: free)


@ex.simulate.slip(
    "An action starts as soon as what it needs has ended: its rank may still be busy."
)
def ignores_itself(orders, seconds):
    return _clock(orders, seconds, lambda free, needed: needed)


@ex.simulate.slip("It waits for the earlier of the two: both must have ended, so max.")
def earlier_of_two(orders, seconds):
    return _clock(orders, seconds, min)


@ex.simulate.slip("Everything takes one second: use seconds[kind].")
def all_alike(orders, seconds):
    return _clock(orders, seconds, max, takes=1.0)


@ex.simulate.slip("The waiting times are added: an action starts at the later of the two, not at their sum.")  # fmt: skip
def adds_waits(orders, seconds):
    return _clock(orders, seconds, lambda free, needed: free + needed)


@ex.simulate.slip("A span is (start, end, action): the second entry is the end.")
def start_and_length(orders, seconds):
    spans = _clock(orders, seconds, max)
    return [[(a, b - a, action) for a, b, action in row] for row in spans]


@ex.simulate.slip("The orders are the caller's: pop from copies of the lists.")
def empties_the_orders(orders, seconds):
    spans = _clock(orders, seconds, max)
    for order in orders:
        order.clear()
    return spans


@ex.simulate.slip(
    "`stages` became the number of ranks: a rank may have several stages, and the first line counts them."
)
def stages_of_ranks(orders, seconds):
    return _clock(orders, seconds, max, stages=len(orders))


# ---- zero_bubble ----


@ex.zero_bubble.slip(
    "W follows its own B at once: on every rank but the first it can wait, and the next B cannot."
)
def at_once(p, m, rank):
    order = []
    for kind, i, stage in right_1f1b(p, m, rank):
        order += [(kind, i, stage)] + [("W", i, stage)] * (kind == "B")
    return order


@ex.zero_bubble.slip(
    "All W at the end: no gap is left, but every micro-batch's inputs are held."
)
def all_at_the_end(p, m, rank):
    return right_1f1b(p, m, rank) + [("W", i, rank) for i in range(m)]


@ex.zero_bubble.slip("The W that are left at the end are missing: those weights never learn from them.")  # fmt: skip
def none_at_the_end(p, m, rank):
    order = []
    for kind, i, stage in right_1f1b(p, m, rank):
        order.append((kind, i, stage))
        if kind == "B" and i >= rank:
            order.append(("W", i - rank, stage))
    return order


@ex.zero_bubble.slip("Behind B of micro-batch i stands W of i, not of i - rank: there the inputs' turn comes later.")  # fmt: skip
def wrong_number(p, m, rank):
    order = []
    for kind, i, stage in right_1f1b(p, m, rank):
        order.append((kind, i, stage))
        if kind == "B" and i >= rank:
            order.append(("W", i, stage))
    return order + [("W", i, rank) for i in range(rank)]


@ex.zero_bubble.slip("The wait is that of the mirrored rank: the first rank does its W at once, the last waits longest.")  # fmt: skip
def mirrored_wait(p, m, rank):
    wait, order = p - rank - 1, []
    for kind, i, stage in right_1f1b(p, m, rank):
        order.append((kind, i, stage))
        if kind == "B" and i >= wait:
            order.append(("W", i - wait, stage))
    return order + [("W", i, rank) for i in range(max(m - wait, 0), m)]


@ex.zero_bubble.slip("Some W are done twice where there are fewer micro-batches than ranks: range(max(m - rank, 0), m).")  # fmt: skip
def negative_numbers(p, m, rank):
    order = none_at_the_end(p, m, rank)
    return order + [("W", i, rank) for i in range(m - rank, m)]


# ---- Late ----


@ex.Late.slip("backward made the weights' gradient at once: nothing is left to fill a gap.")  # fmt: skip
class AtOnce(pipeline.Late):
    @staticmethod
    def backward(ctx, grad_BH):
        x_BE, w_HE = ctx.saved_tensors
        ctx.queue.append((grad_BH, x_BE))
        return grad_BH @ w_HE, grad_BH.T @ x_BE, None


@ex.Late.slip("The pair is turned round: first the gradient, then x.")
class TurnedRound(pipeline.Late):
    @staticmethod
    def backward(ctx, grad_BH):
        x_BE, w_HE = ctx.saved_tensors
        ctx.queue.append((x_BE, grad_BH))
        return grad_BH @ w_HE, None, None


@ex.Late.slip(
    "The queue holds the finished product: then W was computed already. Put what it needs there, (grad_BH, x_BE)."
)
class Finished(pipeline.Late):
    @staticmethod
    def backward(ctx, grad_BH):
        x_BE, w_HE = ctx.saved_tensors
        ctx.queue.append(grad_BH.T @ x_BE)
        return grad_BH @ w_HE, None, None


@ex.Late.slip("Nothing was put into the queue: the weights would never learn.")
class Forgets(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_BE, w_HE, queue):
        ctx.save_for_backward(w_HE)
        return x_BE @ w_HE.T

    @staticmethod
    def backward(ctx, grad_BH):
        return grad_BH @ ctx.saved_tensors[0], None, None


@ex.Late.slip(
    "x waits as well: its gradient is B, which the stage before needs at once."
)
class WaitsForBoth(pipeline.Late):
    @staticmethod
    def backward(ctx, grad_BH):
        ctx.queue.append((grad_BH, ctx.saved_tensors[0]))
        return None, None, None


@ex.Late.slip("The queue was filled in forward: there is no gradient yet.")
class TooEarly(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_BE, w_HE, queue):
        ctx.save_for_backward(x_BE, w_HE)
        queue.append((x_BE @ w_HE.T, x_BE))
        return x_BE @ w_HE.T

    @staticmethod
    def backward(ctx, grad_BH):
        return grad_BH @ ctx.saved_tensors[1], None, None


# ---- plans ----


def _plans(chips, layers, sequences, tps=(1, 2, 4, 8), by_layers=True, by_rows=True):
    found = []
    for tp in tps:
        for pp in range(1, layers + 1):
            dp, rest = divmod(chips, tp * pp)
            fits = layers % pp == 0 or not by_layers
            if rest == 0 and fits and (not by_rows or sequences % max(dp, 1) == 0):
                found.append((tp, pp, dp))
    return found


@ex.plans.slip("Some copies would get more sequences than others: dp divides the sequences of a step.")  # fmt: skip
def any_copies(chips, layers, sequences):
    return _plans(chips, layers, sequences, by_rows=False)


@ex.plans.slip("Some stages would get more layers than others: pp divides the layers.")
def any_stages(chips, layers, sequences):
    return _plans(chips, layers, sequences, by_layers=False)


@ex.plans.slip("tp is at most 8, one machine's chips: sixteen would talk over slow wires.")  # fmt: skip
def sixteen(chips, layers, sequences):
    return _plans(chips, layers, sequences, tps=(1, 2, 4, 8, 16))


@ex.plans.slip("Chips are left over in some plans: tp pp must divide the chips.")
def leaves_chips_over(chips, layers, sequences):
    found = []
    for tp in (1, 2, 4, 8):
        for pp in range(1, layers + 1):
            dp = chips // (tp * pp)
            if dp and layers % pp == 0 and sequences % dp == 0:
                found.append((tp, pp, dp))
    return found


@ex.plans.slip("A plan is (tp, pp, dp), in this order.")
def other_order(chips, layers, sequences):
    return [(dp, pp, tp) for tp, pp, dp in _plans(chips, layers, sequences)]


@ex.plans.slip("tp comes first: a plan is (tp, pp, dp), not (pp, tp, dp).")
def stages_first(chips, layers, sequences):
    return [(pp, tp, dp) for tp, pp, dp in _plans(chips, layers, sequences)]


@ex.plans.slip("tp = 3, 5, 6, 7 are no choices: only 1, 2, 4 and 8.")
def any_tp(chips, layers, sequences):
    return _plans(chips, layers, sequences, tps=range(1, 9))


@ex.plans.slip("As many stages as layers is a plan, too: range(1, layers + 1).")
def one_stage_short(chips, layers, sequences):
    return [p for p in _plans(chips, layers, sequences) if p[1] < max(layers, 2)]
