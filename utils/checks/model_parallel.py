"""Chapter 19: layers split over ranks, attention round a ring, experts, pipelines, plans.

Ranks are rehearsed in this process (utils.practice), so that a call that nobody answers
is told at once and nothing hangs.
"""

import functools

import torch
import torch.nn.functional as F
from torch import distributed as dist

from utils.built import pipeline, planner
from utils.built import tensor_parallel as course
from utils.exercises import Chapter, Miss, rehearsed, same
from utils.exercises.rehearsed import normal, play

chapter = Chapter("19_model_parallel")
exact = functools.partial(rehearsed.exact, atol=1e-9)


def _leaf(x):
    return x.detach().clone().requires_grad_()


def _share(x, dim, rank, sizes):
    "This rank's part of x along dim, in parts of these sizes."
    return x.split(sizes, dim)[rank].contiguous()


def _results(case, rows, want, rules):
    "rows: {name: tensor} of each rank; want[name](rank): what it should be."
    for name, rule in rules.items():
        for rank, row in enumerate(rows):
            got = row[name]
            what = name if name == "the output" else f"the gradient of {name}"
            if got is None and name != "the output":
                raise Miss(f"It has no gradient. {rule}", f"{case}: {what} on rank {rank}",
                           None, want[name](rank))  # fmt: skip
            exact(f"{case}: {what} on rank {rank}", got, want[name](rank), rule)


def _sent(case, calls, most, rule):
    "No rank puts more numbers into its calls than `most`."
    numbers = {}
    for call in calls:
        numbers[call.rank] = numbers.get(call.rank, 0) + call.numbers
    busiest = max(numbers.values(), default=0)
    if busiest > most:
        raise Miss(f"The result is right, but too much travels. {rule}",
                   f"{case}: numbers that a rank puts into its calls", busiest,
                   f"at most {most}")  # fmt: skip


# ---- doors ----


@chapter.exercise(
    "Forward, the parts of a sum must meet. Backward, how much does each part count?",
    "The sum is the same number on every rank, and so is its gradient: every part of a "
    "sum gets that gradient as it is. No call is needed on the way back.",
    "forward(ctx, x, group=None) returns total(x, group). backward(ctx, grad) returns one "
    "value per argument of forward: the gradient of x, and None for the group.",
    kind="class",
)
def Leave(answer):
    "Out of a split layer: sum forward, identity backward."
    weight = normal(4, 3, seed=50)

    def door(rank, n, turned=False):
        x = _leaf(normal(3, 4, seed=rank) if turned else normal(4, 3, seed=rank))
        before = x.detach().clone()
        y = answer.apply(x.mT if turned else x)
        if y is None:
            raise Miss("forward returns nothing: is a `return` missing?", f"rank {rank}",
                       None, "a sum")  # fmt: skip
        same(f"{n} ranks: the caller's x on rank {rank} after forward", x.detach(), before,
             "x was overwritten: the sum belongs in new memory, total(x, group).")  # fmt: skip
        (y * weight).sum().backward()
        return y.detach(), x.grad

    for n, turned in ((3, False), (2, True)):
        case = f"{n} ranks, {'a transposed x' if turned else 'x of shape (4, 3)'}"
        results = play(case, lambda r, n, t=turned: door(r, n, t), n)
        parts = [normal(*((3, 4) if turned else (4, 3)), seed=r) for r in range(n)]
        whole = sum(part.mT if turned else part for part in parts)
        for rank, (y, grad) in enumerate(results):
            exact(f"{case}: forward on rank {rank}", y, whole,
                   "Forward, every rank leaves with the sum of all ranks' x.")  # fmt: skip
            if grad is None:
                raise Miss("backward returns no gradient for x: what came back, as it "
                           "is.", f"{case}: backward on rank {rank}", None, weight)  # fmt: skip
            exact(f"{case}: backward on rank {rank}", grad,
                   weight.mT if turned else weight,
                   "Backward, the gradient passes as it is: each part of a sum gets the "
                   "sum's gradient, once.")  # fmt: skip

    def both(rank, n):
        x, w = _leaf(normal(5, seed=1)), _leaf(normal(5, seed=rank + 2))
        y = answer.apply(course.Enter.apply(x) * w)
        y.square().sum().backward()
        return {"the output": y.detach(), "x": x.grad, "this rank's weights": w.grad}

    case = "Enter, times this rank's weights, Leave, on 3 ranks"
    x, parts = normal(5, seed=1), [normal(5, seed=r + 2) for r in range(3)]
    y = x * sum(parts)
    want = {
        "the output": lambda rank: y,
        "x": lambda rank: 2 * y * sum(parts),
        "this rank's weights": lambda rank: 2 * y * x,
    }
    rule = "With both doors, all ranks have the numbers of one process."
    _results(case, play(case, both, 3), want, dict.fromkeys(want, rule))

    def grouped(rank, n):
        groups = [dist.new_group(ranks) for ranks in ([0, 2], [1])]
        x = _leaf(normal(4, seed=rank))
        y = answer.apply(x, groups[rank % 2])
        y.sum().backward()
        return y.detach()

    case = "3 ranks, of which 0 and 2 form a group"
    got = play(case, grouped, 3, "Hand the group on: total(x, group).")
    pair = normal(4, seed=0) + normal(4, seed=2)
    for rank, part in enumerate((pair, normal(4, seed=1), pair)):
        exact(f"{case}: forward on rank {rank}", got[rank], part,
               "Where a group is given, its ranks alone add up: total(x, group).")  # fmt: skip


# ---- split layers ----


def _mlp_case(answer, case, sizes, doors=None):
    "The split MLP on len(sizes) ranks beside the whole one."
    n, width, by_tokens = len(sizes), sum(sizes), doors is not None
    x, up, down = normal(2, 4, 5), normal(width, 5, seed=1), normal(5, width, seed=2)
    bias, weight, calls = normal(5, seed=3), normal(2, 4, 5, seed=4), []
    tokens = [4 // n] * n if by_tokens else [4]
    token = (
        (lambda t, rank: _share(t, 1, rank, tokens))
        if by_tokens
        else (lambda t, rank: t)
    )

    def fn(rank, n):
        mine = [_leaf(token(x, rank)), _leaf(_share(up, 0, rank, sizes)),
                _leaf(_share(down, 1, rank, sizes)), _leaf(bias)]  # fmt: skip
        y = answer(*mine, **({"doors": doors} if by_tokens else {}))
        if y is None:
            raise Miss("The function returns nothing: is a `return` missing?", case)
        same(f"{case}: shape of the output", list(y.shape), list(mine[0].shape),
             "What comes out has the shape of what went in.")  # fmt: skip
        (y * token(weight, rank)).sum().backward()
        names = "x", "this rank's up", "this rank's down", "the bias"
        return {"the output": y.detach(), **{k: v.grad for k, v in zip(names, mine)}}

    rows = play(case, fn, n, calls=calls)
    whole = [_leaf(t) for t in (x, up, down, bias)]
    y = F.gelu(whole[0] @ whole[1].T) @ whole[2].T + whole[3]
    (y * weight).sum().backward()
    bias_of = (
        (lambda r: token(weight, r).sum((0, 1)))
        if by_tokens
        else (lambda r: whole[3].grad)
    )
    want = {
        "the output": lambda r: token(y.detach(), r),
        "the bias": bias_of,
        "this rank's up": lambda r: _share(whole[1].grad, 0, r, sizes),
        "this rank's down": lambda r: _share(whole[2].grad, 1, r, sizes),
        "x": lambda r: token(whole[0].grad, r),
    }
    rules = {
        "the output": "Each rank's part is a part of a sum over hidden units: through the "
        "second door, and then the bias, once.",
        "the bias": "The bias is the same on all ranks, and so is its gradient.",
        "this rank's down": "The hidden units stay at home: gelu(x up') of this rank.",
        "this rank's up": "Forward is right. Each rank's hidden units get the whole "
        "gradient: it passes the second door as it is.",
        "x": "x feeds every rank's hidden units: its gradient is the sum over all ranks, "
        "which the first door makes.",
    }
    _results(case, rows, want, rules)
    if not by_tokens:  # those doors put other numbers into their calls
        _sent(case, calls, 2 * x.numel(),
              "One sum of x's size forward and one backward are enough.")  # fmt: skip


@chapter.exercise(
    "Each rank computes its own hidden units from all of x, and from them a part of every "
    "output. Where do the ranks have to meet?",
    "x through the first door; this rank's hidden units, F.gelu(x @ up_HE.T); their part "
    "of the output, @ down_EH.T, through the second door. The bias belongs to no rank.",
    "enter, leave = doors\n"
    "hidden_BTH = F.gelu(enter.apply(x_BTE) @ up_HE.T)\n"
    "return leave.apply(...) + ...",
)
def split_mlp(answer):
    "Columns, then rows: one sum per block."
    _mlp_case(answer, "3 ranks with 3, 2 and 2 hidden units", [3, 2, 2])
    _mlp_case(answer, "2 ranks with 1 and 4 hidden units", [1, 4])
    _mlp_case(answer, "2 ranks and the doors for tokens", [3, 2], course.BY_TOKENS)


def _attention_case(answer, case, sizes, doors=None):
    "The split attention on len(sizes) ranks, `sizes` heads each, beside the whole."
    n, H, D, by_tokens = len(sizes), sum(sizes), 3, doors is not None
    x, qkv = normal(2, 4, 5), normal(3, H, D, 5, seed=1)
    out, weight, calls = normal(5, H * D, seed=2), normal(2, 4, 5, seed=4), []
    tokens = [4 // n] * n if by_tokens else [4]
    columns = [heads * D for heads in sizes]
    token = (
        (lambda t, rank: _share(t, 1, rank, tokens))
        if by_tokens
        else (lambda t, rank: t)
    )

    def fn(rank, n):
        mine = [_leaf(token(x, rank)), _leaf(_share(qkv, 1, rank, sizes)),
                _leaf(_share(out, 1, rank, columns))]  # fmt: skip
        y = answer(*mine, **({"doors": doors} if by_tokens else {}))
        if y is None:
            raise Miss("The function returns nothing: is a `return` missing?", case)
        same(f"{case}: shape of the output", list(y.shape), list(mine[0].shape),
             "What comes out has the shape of what went in.")  # fmt: skip
        (y * token(weight, rank)).sum().backward()
        names = "x", "this rank's q, k and v", "this rank's out"
        return {"the output": y.detach(), **{k: v.grad for k, v in zip(names, mine)}}

    rows = play(case, fn, n, calls=calls)
    whole = [_leaf(t) for t in (x, qkv, out)]
    q, k, v = (torch.einsum("bte,hde->bhtd", whole[0], w) for w in whole[1])
    o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    y = torch.cat(list(o.unbind(1)), -1) @ whole[2].T
    (y * weight).sum().backward()
    want = {
        "the output": lambda r: token(y.detach(), r),
        "this rank's out": lambda r: _share(whole[2].grad, 1, r, columns),
        "this rank's q, k and v": lambda r: _share(whole[1].grad, 1, r, sizes),
        "x": lambda r: token(whole[0].grad, r),
    }
    rules = {
        "the output": "Causal attention of this rank's heads, side by side (head 0's D "
        "numbers first), times its columns of out: a part of a sum over heads, which the "
        "second door adds up.",
        "this rank's out": "The heads stay at home.",
        "this rank's q, k and v": "Forward is right. Each rank's heads get the whole "
        "gradient: it passes the second door as it is.",
        "x": "x feeds every rank's heads: its gradient is the sum over all ranks, which "
        "the first door makes.",
    }
    _results(case, rows, want, rules)
    if not by_tokens:  # those doors put other numbers into their calls
        _sent(case, calls, 2 * x.numel(),
              "One sum of x's size forward and one backward are enough.")  # fmt: skip


@chapter.exercise(
    "A head never looks at another head. So heads are to attention what hidden units are "
    "to the MLP.",
    'torch.einsum("bte,chde->cbhtd", x, qkv_3HDE) gives q, k and v, each (B, H, T, D). '
    "After F.scaled_dot_product_attention(q, k, v, is_causal=True) put the heads side by "
    "side: .transpose(1, 2).flatten(2).",
    "enter, leave = doors\n"
    'q, k, v = torch.einsum("bte,chde->cbhtd", enter.apply(x_BTE), qkv_3HDE)\n'
    "o_BHTD = F.scaled_dot_product_attention(...)\n"
    "return leave.apply(...)",
)
def split_attention(answer):
    "Attention by heads."
    _attention_case(answer, "2 ranks with 2 and 1 heads", [2, 1])
    _attention_case(answer, "3 ranks with a head each", [1, 1, 1])
    _attention_case(
        answer, "2 ranks and the doors for tokens", [1, 2], course.BY_TOKENS
    )


def _loss_case(answer, case, n, V, scale=1.0, by_tokens=False):
    "The split loss on n ranks with V words each, beside F.cross_entropy."
    x, words, calls = normal(2, 6, 5), normal(n * V, 5, seed=1) * scale, []
    y_BT = torch.arange(12).view(2, 6) * 5 % (n * V)  # every rank's first and last word
    token = (
        (lambda t, r: _share(t, 1, r, [6 // n] * n)) if by_tokens else (lambda t, r: t)
    )

    def fn(rank, n):
        h, mine = _leaf(token(x, rank)), _leaf(_share(words, 0, rank, [V] * n))
        loss = answer(
            h, mine, y_BT, **({"enter": course.EnterTokens} if by_tokens else {})
        )
        if loss is None:
            raise Miss("The function returns nothing: is a `return` missing?", case)
        same(f"{case}: shape of the loss", list(loss.shape), [],
             "The mean over all tokens is one number.")  # fmt: skip
        if not loss.requires_grad:
            raise Miss("The loss has no gradient: what autograd shall see passes Leave, "
                       "not total.", case, "no gradient", "a gradient")  # fmt: skip
        loss.backward()
        return {
            "the output": loss.detach(),
            "this rank's words": mine.grad,
            "x": h.grad,
        }

    rows = play(case, fn, n, calls=calls)
    h, whole = _leaf(x), _leaf(words)
    loss = F.cross_entropy((h @ whole.T).flatten(0, 1), y_BT.flatten())
    loss.backward()
    want = {
        "the output": lambda r: loss.detach(),
        "this rank's words": lambda r: _share(whole.grad, 0, r, [V] * n),
        "x": lambda r: token(h.grad, r),
    }
    rules = {
        "the output": "The mean over tokens of log(sum of exp over all words) minus the "
        "right word's logit, both less one shared maximum.",
        "this rank's words": "The loss is right. Its sums pass Leave, so that each rank's "
        "logits get their gradient, once.",
        "x": "x feeds every rank's logits: it goes in through `enter`.",
    }
    _results(case, rows, want, rules)
    if not by_tokens:
        _sent(case, calls, 3 * y_BT.numel() + x.numel(),
              "Three numbers per token (maximum, sum, right logit) and x's gradient: the "
              "logits stay at home.")  # fmt: skip


@chapter.exercise(
    "log-softmax needs two numbers that no rank has alone, a maximum and a sum, and one "
    "that only one rank has: the logit of the right word.",
    "This rank's logits z_BTV; highest() of their maxima; Leave of the sums of exp(z - "
    "top); Leave of the right word's z - top, with 0 where the word is another rank's. "
    "The loss is the mean of log(sum) - right.",
    "place_BT is the right word's row here, if it is one:\n"
    "place_BT = y_BT - dist.get_rank() * len(words_VE)\n"
    "mine_BT = (place_BT >= 0) & (place_BT < len(words_VE))\n"
    "own_BT = z_BTV.gather(-1, place_BT.clamp(0, len(words_VE) - 1)[..., None])[..., 0]\n"
    "right_BT = Leave.apply(torch.where(mine_BT, own_BT - top_BT, 0.0))",
)
def split_loss(answer):
    "Cross-entropy over a vocabulary that no rank holds."
    _loss_case(answer, "3 ranks with 4 words each", 3, 4)
    _loss_case(
        answer, "2 ranks with 5 words each, logits of several hundred", 2, 5, 400.0
    )
    _loss_case(answer, "2 ranks, each with half of the tokens", 2, 3, by_tokens=True)


# ---- round a ring ----


def _blocks(T, cuts, scale=1.0):
    "States of the blocks of keys between the cuts, and the whole attention."
    q, k, v = (normal(2, T, 3, seed=s) * scale for s in (5, 6, 7))
    seen = torch.ones(T, T, dtype=torch.bool).tril()
    parts = [
        course.block_of(q, k[:, a:b], v[:, a:b], seen[:, a:b])
        for a, b in zip([0, *cuts], [*cuts, T])
    ]
    return parts, F.scaled_dot_product_attention(q, k, v, is_causal=True)


@chapter.exercise(
    "Both blocks' sums are relative to their own maximum. Bring both to the larger one.",
    "top = torch.maximum(top1, top2); each block's o and mass times exp(its top - top); "
    "then add. Where both are -inf, the factor is nan: make it 0.",
    "(o1, top1, mass1), (o2, top2, mass2) = one, other\n"
    "top = torch.maximum(top1, top2)\n"
    "w1 = (top1 - top).exp().nan_to_num(0.0)\n"
    "...",
)
def merge(answer):
    "Two blocks of keys as one."
    one = torch.tensor([[4.0]]), torch.tensor([0.0]), torch.tensor([2.0])
    two = torch.tensor([[9.0]]), torch.tensor([1.0]), torch.tensor([3.0])
    shrink = 2.718281828459045**-1
    case = "o 4, top 0, mass 2, and o 9, top 1, mass 3"
    for got, want, name in zip(
        _triple(answer(one, two), case), (4 * shrink + 9, 1.0, 2 * shrink + 3), ("o", "top", "mass")
    ):  # fmt: skip
        same(f"{case}: {name}", got.reshape(()), want,
             "Both blocks relative to the larger top: o and mass of the other shrink by "
             "exp(its top - top).")  # fmt: skip
    for T, cuts, scale, what in (
        (7, [3], 1.0, "7 tokens, blocks of 3 and 4 keys"),
        (6, [1, 3], 1.0, "6 tokens, blocks of 1, 2 and 3 keys"),
        (6, [4], 40.0, "6 tokens, scores of several hundred"),
    ):  # fmt: skip
        parts, want = _blocks(T, cuts, scale)
        for order, said in (
            (parts, "in order"),
            (parts[::-1], "from the last to the first"),
        ):
            case, state = f"causal attention, {what}, {said}", order[0]
            for part in order[1:]:
                state = _triple(answer(state, part), case)
            o, _, mass = state
            same(f"{case}: o / mass", o / mass[..., None], want,
                 "o and mass are sums over keys, each relative to the new top. A query "
                 "that sees nothing of a block gets nothing from it, and no nan.")  # fmt: skip
    blind = torch.zeros(2, 3), torch.full((2,), -torch.inf), torch.zeros(2)
    case = "two blocks of which the queries see nothing"
    for got, want, name in zip(
        _triple(answer(blind, blind), case), blind, ("o", "top", "mass")
    ):
        same(f"{case}: {name}", got, want,
             "Nothing and nothing is nothing: o 0, top -inf, mass 0, and no nan.")  # fmt: skip


def _triple(got, case):
    if not isinstance(got, (tuple, list)) or len(got) != 3:
        raise Miss(
            "It returns three things: o, top, mass.", case, got, "(o, top, mass)"
        )
    return got


@chapter.exercise(
    "A late position looks at many others, an early one at few: give every rank some of "
    "both.",
    "torch.arange(T).chunk(2 * n) makes 2 n chunks. Rank r takes number r from the front "
    "and number r from the back.",
    "chunks = torch.arange(T).chunk(2 * n)\nreturn torch.cat([chunks[rank], ...])",
)
def zigzag(answer):
    "Which positions a rank has, so that causal work is even."
    rule = "Chunk number `rank` from the front, then chunk number `rank` from the back."
    for T, n in ((8, 2), (12, 3), (16, 4), (6, 1), (6, 3)):
        for rank in range(n):
            case = f"T = {T}, n = {n}, rank {rank}"
            got = answer(T, n, rank)
            if not isinstance(got, torch.Tensor) or got.is_floating_point():
                raise Miss("It returns a tensor of positions: others index with it.", case,
                           got, torch.tensor([0, 3]))  # fmt: skip
            size = T // (2 * n)
            front = [rank * size + i for i in range(size)]
            back = [T - (rank + 1) * size + i for i in range(size)]
            same(case, got, front + back, rule)


# ---- experts ----


@chapter.exercise(
    "Sort the rows by their expert; tell every rank how many will come; send; compute; "
    "send back; undo the sorting.",
    "order_N = expert_N.argsort(); torch.bincount(expert_N, minlength=n) says how many rows "
    "go to each rank, and dist.all_to_all_single(recv_R, send_R) how many come from each. "
    "Swap.apply(x, send_R, recv_R); on the way back the two change places.",
    "order_N = expert_N.argsort()\n"
    "send_R = torch.bincount(expert_N, minlength=dist.get_world_size())\n"
    "recv_R = torch.empty_like(send_R)\n"
    "dist.all_to_all_single(recv_R, send_R)\n"
    "...\n"
    "return back_NE[order_N.argsort()]",
)
def dispatch(answer):
    "Tokens go to their experts and come home."
    for case, experts in (
        ("3 ranks with 5, 3 and 4 rows; expert 1 gets most", [[1, 0, 1, 2, 1], [1, 1, 0], [2, 1, 0, 0]]),
        ("2 ranks with 4 and 2 rows, in falling order of experts", [[1, 1, 0, 0], [1, 0]]),
        ("3 ranks; expert 0 gets no row, and rank 2 has none", [[2, 1, 2], [1, 2, 2, 1], []]),
    ):  # fmt: skip
        n, calls = len(experts), []
        xs = [normal(len(own), 3, seed=r) for r, own in enumerate(experts)]
        weights = [normal(3, 3, seed=20 + e) for e in range(n)]

        def fn(rank, n, xs=xs, weights=weights, experts=experts, case=case):
            x, w = _leaf(xs[rank]), _leaf(weights[rank])
            expert_N = torch.tensor(experts[rank], dtype=torch.int64)
            y = answer(x, expert_N, lambda rows_KE: torch.tanh(rows_KE @ w.T))
            if y is None:
                raise Miss("The function returns nothing: is a `return` missing?", case)
            same(f"{case}: shape on rank {rank}", list(y.shape), list(x.shape),
                 "As many rows come home as went out.")  # fmt: skip
            if len(x) and not y.requires_grad:
                raise Miss("The rows travel without Swap, so no gradient comes home: a "
                           "plain all-to-all is not seen by autograd.",
                           f"{case}: the output on rank {rank}", "no gradient",
                           "a gradient")  # fmt: skip
            y.square().sum().backward()
            return {"the output": y.detach(), "x": x.grad, "this rank's expert": w.grad}

        rows = play(case, fn, n, "First the counts travel, then the rows.", calls)
        x_leaves, w_leaves = [_leaf(x) for x in xs], [_leaf(w) for w in weights]
        ys = []
        for x, own in zip(x_leaves, experts):
            made = [torch.tanh(w_leaves[e] @ row) for row, e in zip(x, own)]
            ys.append(torch.stack(made) if made else x.reshape(0, 3))
        sum(y.square().sum() for y in ys).backward()
        grads = [torch.zeros_like(w) if w.grad is None else w.grad for w in w_leaves]
        want = {
            "the output": lambda r, ys=ys: ys[r].detach(),
            "this rank's expert": lambda r, grads=grads: grads[r],
            "x": lambda r, xl=x_leaves: torch.zeros_like(xl[r]) if xl[r].grad is None else xl[r].grad,
        }  # fmt: skip
        rules = {
            "the output": "Row i has been through expert expert_N[i] and stands at place i "
            "again.",
            "this rank's expert": "An expert learns from the rows of all ranks: what "
            "travels passes Swap, which brings gradients home.",
            "x": "A row's gradient comes home the way the row went out.",
        }
        for rank, row in enumerate(rows):  # an expert without rows may have no gradient
            if row["this rank's expert"] is None and not grads[rank].any():
                row["this rank's expert"] = grads[rank]
        _filled = [r for r in range(n) if len(experts[r])]
        kept = {name: [rows[r][name] for r in _filled] for name in rules}
        for name, rule in rules.items():
            what = name if name == "the output" else f"the gradient of {name}"
            for rank, got in zip(_filled, kept[name]):
                if got is None:
                    raise Miss(f"It has no gradient. {rule}", f"{case}: {what} on rank {rank}",
                               None, want[name](rank))  # fmt: skip
                exact(f"{case}: {what} on rank {rank}", got, want[name](rank), rule)
        travels = sum(call.numbers for call in calls)
        rowsum = sum(map(len, experts))
        if travels > 4 * rowsum * 3 + 3 * n * n:
            raise Miss("The result is right, but too much travels: each row goes to its "
                       "own expert and back, and so does its gradient.",
                       f"{case}: numbers in all ranks' calls", travels,
                       f"at most {4 * rowsum * 3 + 3 * n * n}")  # fmt: skip


# ---- pipelines ----


def _actions(case, got, want, rule):
    "Two orders, action by action."
    if got is None:
        raise Miss(
            "The function returns nothing: is a `return` missing?", case, None, want
        )
    try:
        got = [tuple(action) for action in got]
    except TypeError:
        raise Miss(
            "An order is a list of (kind, micro-batch, stage).", case, got, want
        ) from None
    if got != want:
        raise Miss(rule, case, _said(got), _said(want))


def _read(text, stage):
    "F0 F1 B0 -> the actions of that stage."
    return [(word[0], int(word[1:]), stage) for word in text.split()]


def _said(order):
    "F0 F1 B0: the stage is left out where it is the same for all."
    stages = {action[2] for action in order if len(action) == 3}
    if any(len(action) != 3 for action in order) or len(stages) > 1:
        return str(order)
    return (
        " ".join(f"{kind}{i}" for kind, i, _ in order)
        + f", stage {min(stages, default='?')}"
    )


@chapter.exercise(
    "Fill the pipe, then one forward and one backward in turns, then empty it.",
    "Rank `rank` has p - rank - 1 ranks behind it: that many forward passes (or m, if "
    "there are fewer) before the first pair. Then pairs: F of the next, B of the oldest.",
    "warm = min(p - rank - 1, m)\n"
    'order = [("F", i, rank) for i in range(warm)]\n'
    "for i in range(m - warm):\n"
    '    order += [("F", warm + i, rank), ...]\n'
    "return order + [...]",
)
def order_1f1b(answer):
    "The order of one rank: warm-up, one forward one backward, drain."
    rule = (
        "First p - rank - 1 forward passes (at most m), then pairs of a forward and the "
        "oldest backward, then the backward passes that are left, oldest first."
    )
    _actions("p = 3, m = 5, rank 1", answer(3, 5, 1),
             _read("F0 F1 B0 F2 B1 F3 B2 F4 B3 B4", 1), rule)  # fmt: skip
    _actions("p = 3, m = 4, rank 0", answer(3, 4, 0),
             _read("F0 F1 F2 B0 F3 B1 B2 B3", 0), rule)  # fmt: skip
    for p, m, ranks in (
        (4, 8, range(4)),
        (5, 2, (0, 2, 4)),
        (3, 3, (1,)),
        (1, 2, (0,)),
        (6, 1, (0, 3)),
    ):
        for rank in ranks:
            case = f"p = {p}, m = {m}, rank {rank}"
            _actions(case, answer(p, m, rank), pipeline.order_1f1b(p, m, rank), rule)


def _spans(case, got, want, rule):
    "Two Gantt charts: the actions of each rank, then when they start and end."
    if got is None:
        raise Miss(
            "The function returns nothing: is a `return` missing?", case, None, "spans"
        )
    if len(got) != len(want):
        raise Miss("One list of spans per rank.", case, len(got), len(want))
    for rank, (mine, theirs) in enumerate(zip(got, want)):
        _actions(
            f"{case}: actions of rank {rank}",
            [span[2] for span in mine],
            [span[2] for span in theirs],
            "Each rank does its own order, from the first action to the last.",
        )
    times = [[list(span[:2]) for span in row] for row in got]
    right = [[list(span[:2]) for span in row] for row in want]
    same(f"{case}: starts and ends by rank", times, right, rule)


@chapter.exercise(
    "Take turns over the ranks: as long as what a rank's next action needs has ended, let "
    "it happen.",
    "ends = {None: 0.0} remembers when each action ended, so needs(action) in ends says "
    "whether it may start. It starts when its rank is free and what it needs has ended, "
    "whichever comes later. Go round until all orders are empty.",
    "ends, spans, todo = {None: 0.0}, [[] for _ in orders], [list(o) for o in orders]\n"
    "while any(todo):\n"
    "    for rank, order in enumerate(todo):\n"
    "        while order and needs(order[0], stages) in ends:\n"
    "            action = order.pop(0)\n"
    "            free = spans[rank][-1][1] if spans[rank] else 0.0\n"
    "            start = ...\n"
    "            ends[action] = ...",
    seconds=10,
)
def simulate(answer):
    "When each action starts and ends."
    rule = (
        "An action starts when its rank is free and the action that it needs has ended, "
        "whichever comes later, and takes seconds[kind]."
    )
    orders = [[("F", 0, 0), ("B", 0, 0)], [("F", 0, 1), ("B", 0, 1)]]
    want = [[(0.0, 1.0, ("F", 0, 0)), (4.0, 6.0, ("B", 0, 0))],
            [(1.0, 2.0, ("F", 0, 1)), (2.0, 4.0, ("B", 0, 1))]]  # fmt: skip
    _spans(
        "2 ranks, 1 micro-batch, F 1 s, B 2 s",
        answer(orders, {"F": 1, "B": 2}),
        want,
        rule,
    )
    for what, orders, seconds in (
        ("1F1B, p = 3, m = 4", _all(pipeline.order_1f1b, 3, 4), {"F": 1.0, "B": 2.5}),
        ("GPipe, p = 4, m = 3, F slower than B", _all(pipeline.gpipe, 4, 3), {"F": 2.0, "B": 0.5}),
        ("zero bubble, p = 3, m = 5", _all(pipeline.zero_bubble, 3, 5), {"F": 1.0, "B": 1.5, "W": 0.5}),
        ("interleaved, 2 ranks with 2 stages each, m = 4", _all(pipeline.interleaved, 2, 4), {"F": 0.5, "B": 1.0}),
        ("one rank alone", _all(pipeline.gpipe, 1, 2), {"F": 1.0, "B": 3.0}),
    ):  # fmt: skip
        before = [list(order) for order in orders]
        got = answer(orders, dict(seconds))
        if orders != before:
            raise Miss("The orders are the caller's: work on copies of the lists.", what,
                       "changed", "as before")  # fmt: skip
        _spans(what, got, pipeline.simulate(orders, seconds), rule)


def _all(order, p, m):
    return [order(p, m, rank) for rank in range(p)]


@chapter.exercise(
    "Start from 1F1B, and put W where a rank would otherwise wait.",
    "All ranks before it wait for a rank's B, so it postpones W, by `rank` micro-batches: "
    "behind B of micro-batch i comes W of i - rank, if there is one; the W that are left "
    "come at the end.",
    "order = []\n"
    "for kind, i, stage in order_1f1b(p, m, rank):\n"
    "    order.append((kind, i, stage))\n"
    '    if kind == "B" and i >= rank:\n'
    "        ...\n"
    "return order + [...]",
)
def zero_bubble(answer):
    "1F1B with its weight gradients postponed."
    rule = (
        "1F1B, and behind B of micro-batch i the W of micro-batch i - rank, where there is "
        "one; the rest of the W at the end, in order."
    )
    _actions("p = 3, m = 4, rank 1", answer(3, 4, 1),
             _read("F0 F1 B0 F2 B1 W0 F3 B2 W1 B3 W2 W3", 1), rule)  # fmt: skip
    for p, m, ranks in (
        (4, 8, range(4)),
        (5, 2, (0, 2, 4)),
        (3, 3, (1, 2)),
        (1, 2, (0,)),
    ):
        for rank in ranks:
            case = f"p = {p}, m = {m}, rank {rank}"
            _actions(case, answer(p, m, rank), pipeline.zero_bubble(p, m, rank), rule)


@chapter.exercise(
    "backward gives x its gradient at once; what the weights' gradient needs is kept.",
    "The weights' gradient is grad' x: put the pair (grad_BH, x_BE) into ctx.queue and "
    "return None in the weights' place.",
    "forward: ctx.save_for_backward(x_BE, w_HE), ctx.queue = queue, return x_BE @ w_HE.T\n"
    "backward: x_BE, w_HE = ctx.saved_tensors; the pair into the queue; return the "
    "gradient of x, None, None",
    kind="class",
)
def Late(answer):
    "A linear layer whose weight gradient waits in a queue."
    for B, E, width in ((4, 3, 5), (2, 6, 2)):
        case = f"x of shape ({B}, {E}), {width} outputs"
        x, w, queue = _leaf(normal(B, E)), _leaf(normal(width, E, seed=1)), []
        weight = normal(B, width, seed=2)
        y = answer.apply(x, w, queue)
        same(f"{case}: forward", y, x.detach() @ w.detach().T, "Forward is x w'.")
        if queue:
            raise Miss("The queue is filled by backward: before it there is no gradient.",
                       f"{case}: the queue after forward", len(queue), 0)  # fmt: skip
        (y * weight).sum().backward()
        if x.grad is None:
            raise Miss("x has no gradient: backward returns it first, then one None per "
                       "further argument.", f"{case}: the gradient of x", None, "grad w")  # fmt: skip
        same(f"{case}: the gradient of x", x.grad, weight @ w.detach(), "It is grad w.")
        if w.grad is not None:
            raise Miss("The weights' gradient was made at once: it should wait in the "
                       "queue, and backward returns None for it.",
                       f"{case}: w.grad after backward", w.grad, None)  # fmt: skip
        if (
            len(queue) != 1
            or not isinstance(queue[0], (tuple, list))
            or len(queue[0]) != 2
        ):
            raise Miss("backward puts one pair into the queue: (grad_BH, x_BE).",
                       f"{case}: the queue after backward", queue, "[(grad_BH, x_BE)]")  # fmt: skip
        grad, kept = queue[0]
        same(f"{case}: grad_BH in the queue", grad, weight,
             "First the gradient of what came out, as it arrived.")  # fmt: skip
        same(f"{case}: x_BE in the queue", kept, x.detach(), "Then what went in.")
    x, w, queue = _leaf(normal(2, 3)), _leaf(normal(3, 3, seed=1)), []
    layer = answer.apply(answer.apply(x, w, queue), w, queue)
    layer.sum().backward()
    case = "the layer twice in a row, one queue"
    if len(queue) != 2:
        raise Miss("Every backward pass through a layer adds its pair to the same list.",
                   f"{case}: pairs", len(queue), 2)  # fmt: skip
    plain_x, plain_w = _leaf(x), _leaf(w)
    ((plain_x @ plain_w.T) @ plain_w.T).sum().backward()
    same(f"{case}: sum of grad' x", sum(g.T @ kept.detach() for g, kept in queue),
         plain_w.grad, "Each pair holds its own layer's grad and x.")  # fmt: skip


# ---- plans ----


@chapter.exercise(
    "Choose tp and pp; dp is what is left of the chips.",
    "Loop over tp in (1, 2, 4, 8) and pp from 1 to layers. Keep a choice if tp * pp divides "
    "chips, pp divides layers and dp = chips // (tp * pp) divides sequences.",
    "found = []\n"
    "for tp in (1, 2, 4, 8):\n"
    "    for pp in range(1, layers + 1):\n"
    "        dp, rest = divmod(chips, tp * pp)\n"
    "        if rest == 0 and ...:\n"
    "            found.append((tp, pp, dp))",
)
def plans(answer):
    "Every way to share a model out over all chips."
    rule = (
        "tp is 1, 2, 4 or 8; tp * pp * dp = chips; pp divides the layers; dp divides the "
        "sequences of a step."
    )
    by_hand = [(1, 2, 4), (2, 1, 4), (2, 2, 2), (4, 1, 2), (4, 2, 1), (8, 1, 1)]
    for chips, layers, sequences, want in (
        (8, 6, 4, by_hand), (12, 4, 6, None), (1, 3, 5, None), (48, 12, 24, None),
        (1024, 80, 1024, None), (96, 5, 8, None),
    ):  # fmt: skip
        case = f"plans({chips}, {layers}, {sequences})"
        got = answer(chips, layers, sequences)
        if got is None:
            raise Miss("The function returns nothing: is a `return` missing?", case)
        got = sorted(tuple(plan) for plan in got)
        want = want or sorted(planner.plans(chips, layers, sequences))
        same(f"{case}: how many", len(got), len(want), rule)
        same(case, got, want, rule)
