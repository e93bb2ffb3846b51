"""Chapter 18: who stores what, and two collectives that are each other's transpose.

Ranks are rehearsed in this process (utils.practice), so that a call that nobody answers
is told at once and nothing hangs.
"""

import gc
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from utils.built import sharding as course
from utils.built.live import Live, stored
from utils.exercises import Chapter, Miss, same
from utils.exercises.rehearsed import (
    by_rank,
    exact,
    no_luck,
    normal,
    play,
)

chapter = Chapter("18_sharding")


def _filled(model, seed=0):
    "The model in float64, its parameters drawn from a seed."
    model = model.double()
    with torch.no_grad():
        for number, p in enumerate(model.parameters()):
            p.copy_(normal(*p.shape, seed=100 * seed + number))
    return model


def _network():
    "37 parameters, a prime, in tensors of 15, 5, 10, 4, 2 and 1."
    layers = nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2, bias=False), nn.Tanh()
    last = nn.Linear(2, 2, bias=False), nn.Linear(2, 1)
    return _filled(nn.Sequential(*layers, *last), seed=4)


def _weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


def _loss(model, rank, n, step=0):
    "Mean square over this rank's rows of 24."
    X, t = normal(24, 3, seed=50 + step)[rank::n], normal(24, 1, seed=80 + step)
    return (model(X) - t[rank::n]).square().mean()


def _gradient(step=0):
    "Gradient of the mean over all 24 rows, in one vector."
    model = _network()
    _loss(model, 0, 1, step).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def _adamw(params):
    return torch.optim.AdamW(params, lr=0.05)


def _alone(steps):
    "Weights after AdamW steps in one process."
    model = _network()
    optimizer = _adamw(model.parameters())
    for step in range(steps):
        optimizer.zero_grad()
        _loss(model, 0, 1, step).backward()
        optimizer.step()
    return _weights(model)


def _parts(vector, n):
    "A vector in n equal parts, zeros at its end: -> (n, K)."
    K = -(-len(vector) // n)
    return F.pad(vector, (0, n * K - len(vector))).view(n, K)


def _refuse_all_reduce(case, calls, rule):
    for call in calls:
        if call.name == "all_reduce" and call.numbers > 1:
            raise Miss(rule, f"{case}: a call of rank {call.rank}", call.name, "none")


# ---- what is stored ----


@chapter.exercise(
    "Stage 0 stores everything everywhere. Each further stage shares out one thing more: "
    "first Adam's two moments, then the gradient, then the parameter itself.",
    "One word shared out by n ranks is 1/n of a word on each. Adam has two.",
    "return (\n"
    "    1 / n if stage >= 3 else 1,\n"
    "    ...  # gradients from stage 2 on, Adam's two words from stage 1 on\n"
    ")",
)
def words(answer):
    "Words that a rank stores per parameter: parameter, gradient, Adam's moments."
    rules = [
        "Stage 0 shares out nothing: 1 word of parameter, 1 of gradient, 2 of moments.",
        "Stage 1 shares out Adam's two moments, and nothing else.",
        "Stage 2 shares out the gradients, too.",
        "Stage 3 shares out everything: 4/n words.",
    ]
    for n in (4, 3, 1, 1024):
        for stage, rule in enumerate(rules):
            share = [1.0, 1.0, 2.0]
            for i in range(3 - stage, 3):
                share[i] /= n
            rule = "One rank stores everything, whatever the stage." if n == 1 else rule
            same(f"words({stage}, {n})", answer(stage, n), share, rule)


@chapter.exercise(
    "What does each thing cost in bytes? The total at a stage is 4 P times the sum of "
    "words(stage, n), and what every stage needs besides.",
    "Try the stages in order and return the first that fits: what just fits, fits. At "
    "stage 3 add the largest layer twice: its weights and its gradient, whole.",
    "for stage in range(4):\n"
    "    whole = 2 * layer if stage == 3 else 0\n"
    "    ...  # return stage where 4 * (P * sum(...) + whole) + activations <= memory\n"
    "return None",
)
def smallest_stage(answer):
    "The first stage at which a rank fits into its memory."
    full = "What just fits, fits: <=."
    for call, want, rule in (
        ((1000, 4, 20000), 0, "Stage 0 comes first: it needs 16 bytes per parameter."),
        ((1000, 4, 16000), 0, f"Stage 0 needs 16 bytes per parameter. {full}"),
        ((1000, 8, 3000), 3, "4000, 2250, 1375 and 500 words on 8 ranks, 4 bytes each."),
        ((1000, 4, 15999), 1, "Stage 1 needs 4 (2 + 2/n) = 10 bytes per parameter."),
        ((1000, 4, 10000), 1, full),
        ((1000, 4, 9999), 2, "Stage 2 needs 4 (1 + 3/n) = 7 bytes per parameter."),
        ((1000, 4, 6999), 3, "Stage 3 needs 16/n = 4 bytes per parameter."),
        ((1000, 4, 4000), 3, full),
        ((1000, 4, 3999), None, "Where no stage fits, the answer is None."),
        ((1000, 4, 16000, 1), 1, "Activations take their bytes at every stage."),
        ((1000, 4, 7500, 600), 3, "Activations take their bytes at every stage."),
        ((1000, 4, 17000, 1000), 0, "activations is in bytes already."),
        ((1000, 4, 4800, 0, 100), 3, "At stage 3 the largest layer is whole, weights and "
         "gradient: 2 words more of each of its parameters."),
        ((1000, 4, 4300, 0, 100), None, "At stage 3 the largest layer is whole, weights "
         "and gradient: 2 words more of each of its parameters."),
        ((1000, 4, 4500, 0, 100), None, "At stage 3 the largest layer is whole, weights "
         "and gradient: 2 words more of each of its parameters."),
        ((1000, 4, 4799, 0, 100), None, "At stage 3 the largest layer is whole, weights "
         "and gradient: 2 words more of each of its parameters."),
        ((1000, 4, 7000, 0, 500), 2, "Only stage 3 gathers a layer beside what it stores."),
        ((1000, 1, 15000), None, "One rank stores everything, whatever the stage."),
    ):  # fmt: skip
        case = f"smallest_stage{call}"
        got = answer(*call)
        if (got is None) != (want is None):
            raise Miss(rule, case, got, want)
        if want is not None:
            same(case, got, want, rule)


# ---- one flat tensor ----


@chapter.exercise(
    "One long tensor, the parameters end to end in it. Then let each parameter look into "
    "it: p.data = a view.",
    "K = ceil(P / n) numbers per rank, so n K in all, zeros behind the last parameter. "
    "Copy first, then p.data = flat[start : start + p.numel()].view_as(p).",
    "-(-a // b) rounds up:\n"
    "P, start = sum(p.numel() for p in model.parameters()), 0\n"
    "flat = next(model.parameters()).new_zeros(-(-P // n) * n)\n"
    "for p in model.parameters():\n"
    "    place = flat[start : start + p.numel()].view_as(p)\n"
    "    ...",
    mutates=True,
)
def flat_views(answer):
    "All parameters as views of one padded tensor."
    for n, numbers in ((4, 40), (3, 39), (37, 37), (1, 37)):
        case, model = f"37 parameters, n = {n}", _network()
        before, objects = _weights(model), [id(p) for p in model.parameters()]
        X = normal(4, 3)
        out = model(X).detach()
        with no_luck():
            flat = answer(model, n)
        if not isinstance(flat, torch.Tensor):
            raise Miss("It returns the flat tensor.", case, flat, f"({numbers},)")
        rule = "Padded to the next multiple of n, so that n equal parts are possible."
        same(f"{case}: length of flat", flat.numel(), numbers, rule)
        if flat.requires_grad:
            raise Miss("flat is plain memory: copy without a graph, p.detach().",
                       f"{case}: flat.requires_grad", True, False)  # fmt: skip
        want = F.pad(before, (0, numbers - 37))
        exact(f"{case}: flat", flat.detach(), want,
               "The parameters end to end, in the model's order, and zeros behind.")  # fmt: skip
        if [id(p) for p in model.parameters()] != objects:
            raise Miss("The parameters are new objects, and whoever holds the old ones "
                       "(a hook, another module) has lost them: set p.data.",
                       f"{case}: the parameters", "others", "the same objects")  # fmt: skip
        exact(f"{case}: the model's output", model(X).detach(), out,
               "The model computes what it did before.")  # fmt: skip
        with torch.no_grad():
            flat.add_(1.0)
        exact(f"{case}: the parameters after flat += 1", _weights(model), before + 1,
               "The parameters are views of flat: what changes there changes here.")  # fmt: skip
        with torch.no_grad():
            next(model.parameters()).zero_()
        exact(f"{case}: flat after the first parameter is set to 0", flat.detach()[:15],
               torch.zeros(15), "The parameters are views of flat: what changes there "
               "changes here.")  # fmt: skip
        model(X).sum().backward()
        same(f"{case}: parameters with a gradient after backward",
             sum(p.grad is not None for p in model.parameters()), 6,
             "The parameters still learn.")  # fmt: skip
    same("float32 model: dtype of flat", str(answer(nn.Linear(2, 3), 2).dtype),
         "torch.float32", "flat has the parameters' dtype.")  # fmt: skip


# ---- stage 1 ----


@chapter.exercise(
    "Every rank needs the mean gradient of its own part only, moves that part, and then "
    "everybody needs all parts.",
    "All gradients end to end, zeros behind as in flat; reduce_scatter, divided by the "
    "number of ranks, is part.grad; optimizer.step(); part.grad = None; all_gather(part), "
    "copied into flat.",
    "grads = [p.grad.flatten() for p in model.parameters()]\n"
    "padding = flat.new_zeros(len(flat) - sum(map(len, grads)))\n"
    "part.grad = reduce_scatter(torch.cat([*grads, padding])) / dist.get_world_size()\n"
    "...",
    mutates=True,
    seconds=20,  # a first optimizer imports for some seconds
)
def zero1_step(answer):
    "One step in which each rank moves its part of the weights."

    def train(rank, n, steps):
        model = _network()
        flat = course.flat_views(model, n)
        part = course.my_part(flat)
        optimizer = _adamw([part])
        for step in range(steps):
            model.zero_grad()
            _loss(model, rank, n, step).backward()
            answer(model, flat, part, optimizer)
        return _weights(model), part.grad, flat.clone()

    for n in (3, 4):
        for steps, said in ((1, "one step"), (3, "three steps")):
            case, calls = f"{said} of AdamW on {n} ranks, 37 parameters", []
            results = play(case, lambda r, n, s=steps: train(r, n, s), n, calls=calls)
            weights, grads, flats = zip(*results)
            by_rank(f"{case}: the weights", weights, [_alone(steps)] * n,
                     "Every rank ends with the weights of one process that has all "
                     "rows." if steps == 1 else "The first step is right, a later one is "
                     "not: nothing of a step may stay for the next.")  # fmt: skip
            by_rank(f"{case}: the padding in flat",
                     [flat[37:] for flat in flats],
                     [torch.zeros(len(flats[0]) - 37)] * n,
                     "Padding has gradient 0, and stays 0.")  # fmt: skip
            if any(grad is not None for grad in grads):
                raise Miss("After the step part.grad is None: its memory is needed no "
                           "longer.", f"{case}: part.grad", "still there", None)  # fmt: skip
            _refuse_all_reduce(case, calls,
                "Right, and more travels than must: a rank needs the sum of its own part "
                "only, which is reduce_scatter.")  # fmt: skip


@chapter.exercise(
    "The length of a vector is the root of a sum of squares. A sum over all numbers is a "
    "sum over ranks of sums.",
    "Add up this rank's squares, dist.all_reduce, then the root: all ranks now know one "
    "norm. The factor max_norm / (norm + 1e-6) is at most 1.",
    "total = sum(grad.square().sum() for grad in grads)\n"
    "dist.all_reduce(total)\n"
    "...  # one norm, one factor, grad *= factor",
    mutates=True,
)
def clip_shard(answer):
    "Clip a gradient of which each rank has a part."

    def clip(rank, n, shards, max_norm):
        grads = [shard.clone() for shard in shards[rank]]
        norm = answer(grads, max_norm)
        if norm is None:
            raise Miss("It returns the norm before clipping.", "clip_shard(...)", None)
        return torch.tensor(float(norm), dtype=torch.float64), torch.cat(grads)

    tensor = torch.tensor
    for said, shards, max_norm, rule in (
        ("3 ranks with [3], [4], [12], max_norm 6.5",
         [[tensor([3.0])], [tensor([4.0])], [tensor([12.0])]], 6.5,
         "sqrt(9 + 16 + 144) = 13: one norm for all ranks, and one factor."),
        ("3 ranks with [3], [4], [12], max_norm 26",
         [[tensor([3.0])], [tensor([4.0])], [tensor([12.0])]], 26.0,
         "A norm below max_norm stays: the factor is at most 1."),
        ("2 ranks, two tensors each, max_norm 1",
         [[normal(3, seed=1), normal(4, seed=2)], [normal(3, seed=3), normal(4, seed=4)]],
         1.0, "All tensors of all ranks make one norm."),
        ("4 ranks, the last with zeros only, max_norm 2",
         [[normal(3, seed=r) * (r < 3)] for r in range(4)], 2.0,
         "A rank may have nothing but zeros; it makes the call all the same."),
        ("2 ranks, a norm of some thousandths, max_norm 1e-4",
         [[normal(3, seed=r) / 1000] for r in range(2)], 1e-4,
         "The factor is max_norm / (norm + 1e-6)."),
    ):  # fmt: skip
        n, shards = len(shards), [[x.double() for x in mine] for mine in shards]
        p = nn.Parameter(torch.zeros(sum(len(x) for x in shards[0]) * n).double())
        p.grad = torch.cat([torch.cat(mine) for mine in shards])
        norm = torch.nn.utils.clip_grad_norm_([p], max_norm)
        got = play(said, lambda r, n, s=shards, m=max_norm: clip(r, n, s, m), n)
        norms, clipped = zip(*got)
        exact(f"{said}: the norm, by rank", torch.stack(norms),
               torch.tensor([float(norm)] * n, dtype=torch.float64), rule)  # fmt: skip
        exact(f"{said}: the clipped shards, by rank", torch.stack(clipped),
               p.grad.view(n, -1), f"{rule} The shards change in place.",
               ", or the 1e-6 does not stand beside the norm")  # fmt: skip


# ---- stage 2 ----


def _live_grads(model):
    return sum(p.grad.numel() for p in model.parameters() if p.grad is not None)


@chapter.exercise(
    "The numbers of p are places start to start + p.numel() of the long tensor. Rank r "
    "owns places r K to (r + 1) K. A parameter may span two owners, or more.",
    "For every owner r: the overlap of both ranges; dist.reduce(piece, dst=r) by all "
    "ranks; on rank r add piece / n at its place in self.part.grad. p.grad = None.",
    "K, start = len(self.part), self.starts[p]\n"
    "grad, p.grad = p.grad.flatten(), None\n"
    "for r in range(self.n):\n"
    "    low, high = max(start, r * K), min(start + len(grad), (r + 1) * K)\n"
    "    if low < high:\n"
    "        ...  # piece = grad[low - start : high - start], reduce it; rank r adds it",
    kind="class",
    seconds=20,
)
def Zero2(answer):
    "Gradients that leave for their owners while backward runs."

    def backward(rank, n, times):
        model = _network()
        sharded = answer(model)
        most = []
        for p in model.parameters():
            p.register_post_accumulate_grad_hook(
                lambda p: most.append(_live_grads(model))
            )
        for step in range(times):
            _loss(model, rank, n, step).backward()
        return sharded.part.grad.clone(), max(most), _live_grads(model)

    for n in (3, 8, 2, 1):
        case, calls = f"one backward pass on {n} ranks, 37 parameters", []
        results = play(case, lambda r, n: backward(r, n, 1), n,
                        "Every rank reduces every piece, whoever owns it.", calls)  # fmt: skip
        grads, most, left = zip(*results)
        by_rank(f"{case}: part.grad", grads, _parts(_gradient(), n),
                 "Each rank ends with the mean over all ranks of its own part of the "
                 "gradient; padding has 0.")  # fmt: skip
        same(f"{case}: numbers in all p.grad after backward, by rank", list(left), [0] * n,
             "After its numbers have left, p.grad is None.")  # fmt: skip
        same(f"{case}: most numbers in all p.grad after any arrival", max(most), 0,
             "A gradient leaves when it arrives: they are never there together.")  # fmt: skip
        _refuse_all_reduce(case, calls,
            "Right, and more travels than must: a sum goes to its owner alone, "
            "dist.reduce(piece, dst=owner).")  # fmt: skip
        sent = sum(call.numbers for call in calls if call.rank == 0)
        same(f"{case}: numbers that rank 0 brings to its calls", sent, 37,
             "Each number of a gradient is brought once, for its one owner.")  # fmt: skip
        late = [c.name for c in calls if not c.in_backward]
        same(f"{case}: calls after backward", len(late), 0,
             "A gradient leaves when it arrives, within backward.")  # fmt: skip
    case = "two backward passes on 3 ranks"
    results = play(case, lambda r, n: backward(r, n, 2), 3)
    want = _parts(_gradient(0) + _gradient(1), 3)
    by_rank(f"{case}: part.grad", [grad for grad, *_ in results], want,
             "Gradients add up until the step, as p.grad would.")  # fmt: skip

    def train(rank, n):
        model = _network()
        sharded = answer(model)
        optimizer = _adamw([sharded.part])
        for step in range(3):
            _loss(model, rank, n, step).backward()
            sharded.step(optimizer)
        return _weights(model)

    case = "three steps of AdamW on 3 ranks"
    by_rank(f"{case}: the weights", play(case, train, 3), [_alone(3)] * 3,
             "Every rank ends with the weights of one process that has all rows.")  # fmt: skip


# ---- stage 3 ----


@chapter.exercise(
    "Forward is one call, backward is one call. What does a rank need of the gradients of "
    "the whole, which are different on each rank?",
    "forward: all_gather(part). backward: each rank has a gradient of the whole, from its "
    "own rows; this rank's part of their mean is reduce_scatter, divided by the number of "
    "ranks. grad may be a expanded tensor: grad.contiguous() first.",
    "@staticmethod\n"
    "def backward(ctx, grad):\n"
    "    return reduce_scatter(...) / dist.get_world_size()",
    kind="class",
)
def Gather(answer):
    "All-gather with its transpose as backward."

    def run(rank, n, of):
        part = normal(4, seed=rank).requires_grad_()
        whole = answer.apply(part)
        if whole is None or whole.shape != (4 * n,):
            same(
                "shape of the whole", whole, torch.zeros(4 * n), "n parts, end to end."
            )
        of(whole, rank).backward()
        return whole.detach().clone(), part.grad.clone()

    def weighted(whole, rank):
        return (whole.square() * normal(len(whole), seed=30 + rank)).sum()

    def stretched(whole, rank):
        return whole.sum() * (rank + 1)

    def half(whole, rank):
        return whole.view(-1, 2)[:, 1].square().sum() * (rank + 1)

    for n in (3, 2):
        for of, said, rule in (
            (weighted, "each rank with weights of its own",
             "This rank's part of the mean of all ranks' gradients: their sum, scattered, "
             "over the number of ranks."),
            (stretched, "a plain sum times rank + 1",
             "The gradient of a sum is one number, expanded; what travels is contiguous."),
            (half, "every second number only",
             "Numbers that were not used have gradient 0."),
        ):  # fmt: skip
            case, calls = f"{n} parts of 4, {said}", []
            results = play(case, lambda r, n, of=of: run(r, n, of), n, calls=calls)
            wholes, grads = zip(*results)
            parts = torch.cat([normal(4, seed=r) for r in range(n)])
            by_rank(f"{case}: the whole", wholes, [parts] * n,
                     "Forward: every rank's part, end to end, on every rank.")  # fmt: skip
            leaf = parts.clone().requires_grad_()
            (sum(of(leaf, r) for r in range(n)) / n).backward()
            by_rank(f"{case}: the part's gradient", grads, leaf.grad.view(n, 4), rule)
            _refuse_all_reduce(case, calls,
                "Right, and more travels than must: the transpose of an all-gather is one "
                "reduce_scatter.")  # fmt: skip

    with course.pretend(1, 4):
        part = normal(4).requires_grad_()
        with Live(part) as live:
            whole = answer.apply(part)
            loss = whole.sum()
            del whole
            gc.collect()
            kept = live.bytes - part.nbytes - loss.nbytes
    same("4 parts of 4: bytes that the graph keeps when the whole is let go", kept, 0,
         "Backward needs nothing of the whole: save nothing.")  # fmt: skip


class _Made(torch.autograd.Function):
    "part -> (24,): made of it, and autograd keeps nothing for its backward."

    @staticmethod
    def forward(ctx, part):
        return part.repeat(2)

    @staticmethod
    def backward(ctx, grad):
        return grad.view(2, -1).sum(0)


def _two_layers(x, whole):
    "Two matrices and a bias out of 24 numbers: x W^T, then its square times V."
    W, b, V = whole[:12].view(4, 3), whole[12:16], whole[16:24].view(4, 2)
    return F.linear(x, W, b).tanh() @ V


@chapter.exercise(
    "pack sees every tensor that autograd wants to keep. Which of them lie in the whole? "
    "Of those, keep how to find the place again, and no number.",
    "x.untyped_storage().data_ptr() is where x's memory begins: equal for all views of "
    "one whole. Keep (x.shape, x.stride(), x.storage_offset()), a plain tuple; unpack "
    "makes regain().as_strided(*saved) of it, and gives back everything else as it is.",
    "address = whole.untyped_storage().data_ptr()\n"
    "def pack(x):\n"
    "    if x.untyped_storage().data_ptr() != address:\n"
    "        return x\n"
    "    return x.shape, x.stride(), x.storage_offset()\n"
    "def unpack(saved):\n"
    "    ...\n"
    "return pack, unpack",
)
def forgetful(answer):
    "Hooks with which autograd keeps a note in place of a gathered weight."
    part, x = normal(12, seed=1), normal(5, 3, seed=2)

    def step(hooks, meter=None):
        "-> (output, gradients of part and x, calls of regain: in forward, in all)."
        mine, rows, asked = (
            part.clone().requires_grad_(),
            x.clone().requires_grad_(),
            [],
        )

        def regain():
            asked.append(1)
            return mine.detach().repeat(2)

        with Live(mine, rows) as live:
            out = _forward(mine, rows, hooks, regain)
            gc.collect()
            kept, before = live.bytes, len(asked)
        (out * normal(5, 2, seed=3)).sum().backward()
        return out.detach(), mine.grad, rows.grad, kept, before, len(asked)

    whole = normal(24, seed=5)
    pack, unpack = answer(whole, whole.clone)
    other = normal(3, 4, seed=6)
    if unpack(pack(other)) is not other:
        raise Miss("Every other tensor passes as it is, the same object.",
                   "pack and unpack of another tensor", "another object", "itself")  # fmt: skip
    for said, view in (("12 numbers at the start", whole[:12].view(4, 3)),
                       ("8 numbers behind 16 others", whole[16:].view(4, 2))):  # fmt: skip
        kept = pack(view)
        if isinstance(kept, torch.Tensor):
            raise Miss("Of what lies in the whole, no tensor is kept, but how to find the "
                       "place again: shape, strides, offset.", f"pack of a view: {said}",
                       kept.detach(), "a note")  # fmt: skip
        exact(f"pack and unpack of a view: {said}", unpack(kept), view,
               "unpack finds the same piece in what regain() gives.")  # fmt: skip
    plain = step(None)
    case = "two matrices and a bias in one whole of 24 numbers"
    got = step(answer)
    exact(
        f"{case}: the output", got[0], plain[0], "Hooks do not touch what is computed."
    )
    for what, a, b in (("part", got[1], plain[1]), ("the rows", got[2], plain[2])):
        exact(f"{case}: gradient of {what}", a, b,
               "unpack gives back what pack was given: of the whole the right piece, in "
               "the right shape and strides; all else as it is.")  # fmt: skip
    same(f"{case}: calls of regain in the forward pass", got[4], 0,
         "The whole is made again when backward asks, not before.")  # fmt: skip
    if not got[5]:
        raise Miss("regain was never called: the numbers were kept somewhere.", case, 0,
                   "one call for each weight that backward needs")  # fmt: skip
    same(f"{case}: bytes of the whole that are alive after forward",
         got[3] - plain[3] + 24 * 8, 0,
         "Nothing of the whole stays alive: a view keeps all the memory it looks into, "
         "and a copy is memory, too.")  # fmt: skip
    turned = whole[4:16].view(4, 3).T
    back = unpack(pack(turned))
    exact("a transposed piece, packed and unpacked", back, turned,
           "Of a view: shape, strides and offset.")  # fmt: skip
    same("the strides of a transposed piece, packed and unpacked", list(back.stride()),
         [1, 3], "Of a view: shape, strides and offset.")  # fmt: skip


def _forward(mine, rows, hooks, regain):
    whole = _Made.apply(mine)
    if hooks is None:
        return _two_layers(rows, whole)
    with saved_tensors_hooks(*hooks(whole, regain)):
        out = _two_layers(rows, whole)
    hooks(rows, regain)  # whoever watches remembers the last call: let it be this one
    return out


class _Wrapped(nn.Module):
    "Three layers of _network's kind, each one that has parameters sharded by `kind`."

    def __init__(self, kind):
        super().__init__()
        self.layers = nn.Sequential(
            *[kind(x) if list(x.parameters()) else x for x in _network()]
        )

    def forward(self, x):
        return self.layers(x)


def _bilinear():
    "Two inputs, of 3 and 2 numbers, and 14 parameters."
    return _filled(nn.Bilinear(3, 2, 2), seed=6)


def _layer_parts(vector, n):
    "A vector of all of _network's numbers -> each layer's in n parts, end to end: (n, ...)."
    sizes = [sum(p.numel() for p in x.parameters()) for x in _network()]
    layers = vector.split([size for size in sizes if size])
    return torch.cat([_parts(layer, n) for layer in layers], 1)


@chapter.exercise(
    "Gather, cut the whole into the layer's tensors, compute, and let autograd keep notes.",
    "Gather.apply(self.part), without its padding, split by self.sizes(), each piece "
    ".view(shape); functional_call(self.layer[0], {name: tensor}, inputs) inside "
    "saved_tensors_hooks(*forgetful(whole, regain)).",
    "whole = Gather.apply(self.part)\n"
    "pieces = whole[: sum(self.sizes())].split(self.sizes())\n"
    "params = {name: piece.view(shape)\n"
    "          for (name, shape), piece in zip(self.shapes.items(), pieces)}\n"
    "with saved_tensors_hooks(*forgetful(whole, lambda: ...)):\n"
    "    return ...",
    kind="class",
    seconds=20,
)
def Zero3(answer):
    "A layer that is whole only while it computes."

    def run(rank, n, steps):
        model = _Wrapped(answer)
        out = model(normal(12, 3, seed=50)).detach()
        optimizer, first = _adamw(model.parameters()), None
        for step in range(steps):
            optimizer.zero_grad()
            _loss(model, rank, n, step).backward()
            if step == 0:
                first = [p.grad for p in model.parameters()]
                if any(grad is None for grad in first):
                    raise Miss("A part got no gradient: the whole must come from "
                               "Gather.apply(self.part), which autograd sees.",
                               "part.grad after backward", None, "a gradient")  # fmt: skip
                first = torch.cat(first).clone()
            optimizer.step()
        return out, first, torch.cat([p.detach() for p in model.parameters()])

    for n in (3, 2):
        case = f"four layers on {n} ranks"
        results = play(case, lambda r, n: run(r, n, 3), n)
        outs, grads, weights = zip(*results)
        by_rank(f"{case}: the output", outs, [_network()(normal(12, 3, seed=50)).detach()] * n,
                 "The layer computes what it did before.")  # fmt: skip
        by_rank(f"{case}: the parts' gradients", grads, _layer_parts(_gradient(), n),
                 "Each rank has its part of the mean over all ranks.")  # fmt: skip
        by_rank(f"{case}: the parts after three steps of AdamW", weights,
                 _layer_parts(_alone(3), n), "The first step is right: what is gathered "
                 "again comes from the part as it is now.")  # fmt: skip
    X, Y = normal(12, 3, seed=60), normal(12, 2, seed=61)
    case, plain = "nn.Bilinear, a layer of two inputs, on 3 ranks", _bilinear()
    plain(X, Y).square().mean().backward()

    def of_two(rank, n):
        layer = answer(_bilinear())
        out = layer(X[rank::n], Y[rank::n])
        out.square().mean().backward()
        return out.detach(), layer.part.grad

    outs, grads = zip(*play(case, of_two, 3))
    by_rank(f"{case}: the output", outs, [plain(X, Y).detach()[r::3] for r in range(3)],
             "The layer gets all its inputs.")  # fmt: skip
    want = torch.cat([p.grad.flatten() for p in plain.parameters()])
    by_rank(f"{case}: the parts' gradients", grads, _parts(want, 3),
             "Each rank has its part of the mean over all ranks.")  # fmt: skip
    with course.pretend(1, 4):
        layers = nn.Sequential(
            *[answer(nn.Linear(64, 64, bias=False)) for _ in range(5)]
        )
        lasting = stored(*layers.parameters())
        X = torch.randn(2, 64)
        with Live(X, layers.parameters()) as live:
            before = live.bytes
            out = layers(X)
            gc.collect()
            kept, most = live.bytes - before, live.peak - before
            out.sum().backward()
            both = live.peak - before - sum(p.nbytes for p in layers.parameters())
    whole = 64 * 64 * 4
    same("five layers of 64 x 64 on rank 1 of 4 pretended ones: bytes stored", lasting,
         5 * whole // 4, "A slice keeps the whole it was cut from: clone a rank's part.")  # fmt: skip
    case = "five layers of 64 x 64 on rank 1 of 4 pretended ones: whole layers"
    same(f"{case} alive after forward", kept // whole, 0,
         "After forward no layer is whole: autograd keeps notes, by forgetful.")  # fmt: skip
    same(f"{case} at most alive in forward", most // whole, 1,
         "One layer is whole at a time.")  # fmt: skip
    if both > 3.6 * whole:
        raise Miss("In backward, too, one layer is whole at a time: its weights and its "
                   "gradient.", f"{case} at most alive in backward", both // whole,
                   "2, and what the calls need")  # fmt: skip


# ---- a file ----


@chapter.exercise(
    "The file is all layers end to end, without padding. Where does this rank's part of a "
    "layer begin in it, and how many of its numbers are no padding?",
    "A layer of `size` numbers begins behind all layers before it. There, rank r's "
    "numbers begin at r * len(part), and what would lie at or behind `size` is padding. "
    "file.seek counts bytes.",
    "first = 0\n"
    "for part, size in zip(parts, sizes):\n"
    "    start = min(rank * len(part), size)\n"
    "    mine = part.detach()[: size - start]\n"
    "    ...  # seek, file.write(mine.numpy().tobytes()), first += size",
)
def save_shards(answer):
    "One file, to which each rank writes its own numbers."
    for n, sizes, dtype, said in (
        (2, [4, 6], torch.float64, "Each layer's numbers in order, rank 0's first."),
        (3, [7, 3, 5], torch.float64, "Padding is not written: another layer lies there."),
        (4, [2, 9, 1], torch.float64, "A rank may have nothing but padding of a layer."),
        (4, [5, 9, 5], torch.float64, "A rank may have nothing but padding of a layer."),
        (2, [3, 5], torch.float32, "Places in a file are bytes: numbers times "
         "part.element_size()."),
    ):  # fmt: skip
        layers = [normal(size, seed=i).to(dtype) for i, size in enumerate(sizes)]
        padded = [F.pad(x, (0, -len(x) % n), value=-99.0) for x in layers]
        case = f"{n} ranks, layers of {sizes} numbers, {dtype}"
        calls = []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "weights"
            path.write_bytes(b"an older file" * 100)

            def save(rank, n, padded=padded, path=path, sizes=sizes):
                parts = [x.view(n, -1)[rank].clone().requires_grad_() for x in padded]
                return answer(path, parts, list(sizes))

            play(case, save, n, calls=calls)
            data = path.read_bytes()
        size = torch.tensor([], dtype=dtype).element_size()
        same(f"{case}: numbers in the file", len(data) / size, float(sum(sizes)),
             "The file holds every weight once, and nothing of an older file.")  # fmt: skip
        got = np.frombuffer(data, np.float64 if size == 8 else np.float32)
        same(f"{case}: the file", got, torch.cat(layers), said)
        sent = sum(call.bytes for call in calls if call.name != "barrier")
        same(f"{case}: bytes that travel", sent, 0,
             "Each rank writes its own numbers: no weight has to travel.")  # fmt: skip
