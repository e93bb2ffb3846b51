"""Chapter 17: shards, averages over ranks, buckets, overlap.

Ranks are rehearsed in this process (utils.practice), so that a call that nobody answers
is told at once and nothing hangs.
"""

import random

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DistributedSampler

from utils.built import data_parallel as course
from utils.exercises import Chapter, Miss, same
from utils.exercises.rehearsed import by_rank, exact, normal, play

chapter = Chapter("17_data_parallel")


def _filled(model, seed=0):
    "The model in float64, its parameters drawn from a seed."
    model = model.double()
    with torch.no_grad():
        for number, p in enumerate(model.parameters()):
            p.copy_(normal(*p.shape, seed=100 * seed + number))
    return model


def _weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


def _grads(model):
    return [None if p.grad is None else p.grad.clone() for p in model.parameters()]


# ---- averages ----


@chapter.exercise(
    "A shard of 16 rows speaks for 16 rows, one of 2 rows for 2.",
    "Undo each mean (times its rows), add up, and divide once by all rows.",
    "Rows as a vector make it one product:\n"
    "rows_R = torch.tensor(rows_R, dtype=grads_RP.dtype)\n"
    "return rows_R @ grads_RP / ...",
)
def mean_of_shards(answer):
    "The gradient of all rows, from the mean gradients of ragged shards."
    rule = "Undo each mean (times its rows), add up, and divide once by all rows."
    grads_RP = torch.tensor([[6.0, 0.0], [0.0, 3.0], [1.0, -1.0]], dtype=torch.float64)
    for rows_R, want_P in (
        ([1, 2, 5], [11 / 8, 1 / 8]), ([3, 0, 4], [22 / 7, -4 / 7]), ([2, 2, 2], [7 / 3, 2 / 3]),
    ):  # fmt: skip
        case = f"gradients [6, 0], [0, 3], [1, -1] of shards with {rows_R} rows"
        want_P = torch.tensor(want_P, dtype=torch.float64)
        exact(case, answer(grads_RP.clone(), list(rows_R)), want_P, rule)
    X_ND, y_N = normal(9, 4), normal(9, seed=1)
    w_D = normal(4, seed=2).requires_grad_()

    def slope(rows):
        loss = ((X_ND[rows] @ w_D - y_N[rows]) ** 2).mean()
        return torch.autograd.grad(loss, w_D)[0]

    shards = [slice(0, 2), slice(2, 3), slice(3, 9)]
    got_P = answer(torch.stack([slope(s) for s in shards]), [2, 1, 6])
    exact("shards of 2, 1 and 6 rows beside autograd on all 9", got_P,
           slope(slice(0, 9)), f"{rule} The result has one number per parameter.")  # fmt: skip
    same("float32 gradients: dtype of the result", str(answer(grads_RP.float(), [1, 2, 5]).dtype),
         "torch.float32", "The result has the gradients' dtype.")  # fmt: skip


def _with_grads(rank, missing=""):
    "A layer with gradients 1/3, 2/3, 1 ... times rank + 2; its weights differ by rank."
    layer = _filled(nn.Linear(2, 2), seed=rank)
    layer.weight.grad = torch.arange(1.0, 5.0).double().view(2, 2) / 3 * (rank + 2)
    layer.bias.grad = torch.tensor([5.0, 6.0]).double() / 3 * (rank + 2)
    if missing:
        getattr(layer, missing).grad = None
    return layer


def _between_frozen(rank):
    "The same layer between two frozen parameters; the second has a gradient."
    model = nn.Module()
    model.first = nn.Parameter(torch.ones(1).double(), requires_grad=False)
    model.layer = _with_grads(rank)
    model.layer.last = nn.Parameter(torch.ones(1).double(), requires_grad=False)
    model.layer.last.grad = torch.tensor([7.0 + rank], dtype=torch.float64)
    return model


@chapter.exercise(
    "For every parameter: add up over all ranks, then share out.",
    "dist.all_reduce(p.grad) leaves the sum on every rank. Divide by "
    "dist.get_world_size(). A rank that skips a call leaves the others waiting: where "
    "p.grad is None, bring zeros.",
    "Every rank walks through the same parameters in the same order:\n"
    "for p in model.parameters():\n"
    "    if p.requires_grad:\n"
    "        ...  # p.grad = torch.zeros_like(p) where it is None\n"
    "        dist.all_reduce(p.grad)\n"
    "        p.grad /= dist.get_world_size()",
)
def average_gradients(answer):
    "Each gradient becomes the mean over all ranks."

    def step(model, rank, n):
        before = _weights(model)
        answer(model)
        exact(f"rank {rank} of {n}: the weights", _weights(model), before,
               "The weights changed: average the gradients, p.grad, not p.")  # fmt: skip
        return _grads(model)

    unit = torch.arange(1.0, 5.0).double().view(2, 2) / 3
    ends = torch.tensor([5.0, 6.0]).double() / 3
    for n in (3, 2):
        case = f"{n} ranks, gradients 1/3, 2/3, 1 ... times rank + 2"
        results = play(case, lambda rank, n: step(_with_grads(rank), rank, n), n)
        weights, biases = zip(*results)
        by_rank(f"{case}: the weight's gradient", weights, [unit * (n + 3) / 2] * n,
                 "All ranks leave with the mean of all: the sum, divided by "
                 "dist.get_world_size().")  # fmt: skip
        by_rank(f"{case}: the bias's gradient", biases, [ends * (n + 3) / 2] * n,
                 "The weight is right: does the loop reach every parameter?")  # fmt: skip
    for missing in ("bias", "weight"):
        case = f"3 ranks; on rank 1 the {missing} has no gradient (None)"
        results = play(
            case,
            lambda r, n, m=missing: step(_with_grads(r, m if r == 1 else ""), r, n),
            3,
            "A rank skips the gradient that it does not have, or sends it later than the "
            "others. Bring zeros, in that parameter's own place.",
        )
        for name, grads, want in zip(("weight", "bias"), zip(*results), (unit, ends)):
            if grads[1] is None:
                raise Miss("The rank that brought nothing leaves with the mean like the "
                           "others.", f"{case}: the {name}'s on rank 1", None, want * 2)  # fmt: skip
            by_rank(f"{case}: the {name}'s gradient", grads,
                     [want * (2 if name == missing else 3)] * 3,
                     "Only what is missing counts as zeros, and the mean is over all "
                     "ranks.")  # fmt: skip
    case = "2 ranks; a frozen parameter before the layer, another after it"
    results = play(case, lambda rank, n: step(_between_frozen(rank), rank, n), 2)
    first, weights, biases, last = zip(*results)
    for rank in range(2):
        if first[rank] is not None:
            raise Miss("A frozen parameter got a gradient, and weight decay would now move "
                       "it. Skip those with requires_grad=False.",
                       f"{case}: the first one's grad on rank {rank}", first[rank], None)  # fmt: skip
        if last[rank] is None:
            raise Miss("A frozen parameter keeps its gradient, whatever it is.",
                       f"{case}: the second one's grad on rank {rank}", None, 7.0 + rank)  # fmt: skip
    for name, got, want in (("weight", weights, unit), ("bias", biases, ends)):
        by_rank(f"{case}: the {name}'s gradient", got, [want * 2.5] * 2,
                 "The layer behind the frozen parameter is trained: skip the frozen one "
                 "and go on.")  # fmt: skip
    by_rank(f"{case}: the second one's grad", last, torch.tensor([[7.0], [8.0]]),
             "A frozen parameter's gradient is not exchanged.")  # fmt: skip


# ---- the same start, the same shuffle ----


class _Normed(nn.Module):
    "A layer, a frozen parameter, and inside another module three buffers."

    def __init__(self, rank):
        super().__init__()
        self.layer = _filled(nn.Linear(2, 1), seed=rank + 1)
        self.frozen = nn.Parameter(normal(2, seed=rank + 70), requires_grad=False)
        self.norm = nn.Module()
        self.norm.register_buffer("running", normal(3, seed=rank + 50))
        self.norm.register_buffer("seen", torch.tensor(10 * (rank + 1)))
        table = normal(2, seed=rank + 90)
        self.norm.register_buffer("table", table, persistent=False)


@chapter.exercise(
    "One rank's numbers must become everybody's. Which call does that?",
    "dist.broadcast(x, src=0) fills x on every rank with rank 0's, in place. A model is "
    "more than its parameters: batch norm keeps its means in buffers.",
    "Both kinds in one loop, without a graph:\n"
    "with torch.no_grad():\n"
    "    for x in (*model.parameters(), *model.buffers()):\n"
    "        ...",
)
def synchronise(answer):
    "All ranks start from rank 0's parameters and buffers."

    def start(rank, n):
        model = _Normed(rank)
        objects = [id(p) for p in model.parameters()]
        answer(model)
        if [id(p) for p in model.parameters()] != objects:
            raise Miss("The parameters are new objects: an optimizer that was made before "
                       "still moves the old ones. Fill them in place.",
                       f"the parameters on rank {rank}", "others", "the same objects")  # fmt: skip
        same(f"rank {rank}: requires_grad of a frozen parameter, the layer's weight, its bias",
             [p.requires_grad for p in model.parameters()], [False, True, True],
             "requires_grad stays as it is: trained parameters learn, frozen ones do "
             "not.")  # fmt: skip
        return model

    for n in (3, 2):
        case = f"{n} ranks, each with other weights"
        results = play(
            case, start, n, "Does every rank broadcast, and with the same src?"
        )
        first = _Normed(0)
        for what, of, rule in (
            ("the layer's weights", lambda m: _weights(m.layer),
             "All ranks leave with rank 0's weights."),
            ("a frozen parameter", lambda m: m.frozen.detach(),
             "Frozen parameters, too: nobody trains them, but each rank drew its own."),
            ("a buffer", lambda m: m.norm.running,
             "Buffers, too: model.buffers() holds, say, the running means of batch norm in "
             "every inner module."),
            ("a buffer of whole numbers", lambda m: m.norm.seen,
             "Buffers of whole numbers, too, such as batch norm's count of batches."),
            ("a buffer that is not saved (persistent=False)", lambda m: m.norm.table,
             "state_dict() leaves out buffers with persistent=False; model.buffers() has "
             "all."),
        ):  # fmt: skip
            got = [of(model) for model in results]
            by_rank(f"{case}: {what}", got, [of(first)] * n, rule)


def _sampler(N, rank, world, seed=0, epoch=0):
    "The rows by torch's own sampler."
    sampler = DistributedSampler(range(N), world, rank, shuffle=True, seed=seed)
    sampler.set_epoch(epoch)
    return list(sampler)


@chapter.exercise(
    "Every rank shuffles all rows in the same way, without asking anybody, and then takes "
    "its own.",
    "A torch.Generator seeded with seed + epoch, torch.randperm(N, generator=...), the "
    "beginning appended until the length is a multiple of world, then every world-th.",
    "-(-a // b) rounds up. With fewer rows than ranks, repeat more than once:\n"
    "generator = torch.Generator().manual_seed(seed + epoch)\n"
    "order_N = torch.randperm(N, generator=generator)\n"
    "whole = -(-N // world) * world\n"
    "...  # order_N.repeat(k)[:whole], then every world-th from rank on",
)
def shard_order(answer):
    "This rank's rows of an epoch."
    case = "N = 11, 3 ranks, seed 7, epoch 2"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4321)
        state = torch.get_rng_state()
        rows = [answer(11, rank, 3, 7, 2) for rank in range(3)]
        if not torch.equal(state, torch.get_rng_state()):
            raise Miss("It uses torch's global generator: every rank's dropout would "
                       "change, or be the same. Make a torch.Generator() of its own.",
                       case, "the global random state has changed", "it is as before")  # fmt: skip
    for rank in range(3):
        if not isinstance(rows[rank], torch.Tensor) or rows[rank].is_floating_point():
            raise Miss("It returns a tensor of row numbers: others split it and index with "
                       "it.", f"{case}: rank {rank}", rows[rank], torch.tensor([3, 0, 7]))  # fmt: skip
    same(f"{case}: how many rows each rank has", [len(r) for r in rows], [4, 4, 4],
         "Every rank has N / world rows, rounded up: where the order ends, it goes on with "
         "its own beginning.")  # fmt: skip
    rule = (
        "The order is torch.randperm(N, generator=...), its generator seeded with seed + "
        "epoch; rank r has its places r, r + world, r + 2 world ..."
    )
    same(f"{case}: rows of ranks 0, 1, 2", torch.stack(rows),
         [_sampler(11, rank, 3, 7, 2) for rank in range(3)], rule)  # fmt: skip
    for N, world, options, why in (
        (12, 4, {}, "Where N is a multiple of world, nothing is added."),
        (2, 5, {"seed": 1, "epoch": 3}, "With fewer rows than ranks the order is repeated "
         "more than once."),
        (7, 1, {"epoch": 1}, "One rank has all rows, shuffled."),
        (9, 2, {"seed": 3, "epoch": 5}, rule),
    ):  # fmt: skip
        for r in range(world):
            said = ", ".join(f"{name}={value}" for name, value in options.items())
            same(f"shard_order({N}, {r}, {world}{', ' * bool(said)}{said})",
                 answer(N, r, world, **options), _sampler(N, r, world, **options), why)  # fmt: skip


@chapter.exercise(
    "Which two numbers of a rank can be added up over ranks without any loss?",
    "Add the totals and add the counts, each over all ranks, then divide once. Both fit "
    "into one tensor, so one call is enough.",
    "One call for both:\n"
    "both = torch.tensor([total, count], dtype=torch.float64)\n"
    "dist.all_reduce(both)\n"
    "return ...",
)
def mean_over_ranks(answer):
    "A mean over all ranks' rows, from each rank's total and count."
    for totals, counts, rule in (
        ([2.75, 0.875, 11.25], [4, 1, 20],
         "Sum of all totals over sum of all counts, alike on every rank."),
        ([6.0, 0.0], [8, 0],
         "A rank without rows brings 0 and 0: divide only after the exchange."),
        ([0.0, 1.0], [2**24, 1],
         "Counts are exact: float32 holds whole numbers up to 16,777,216 only."),
        ([-2.3, 3.4, 1.1, 0.7], [3, 2, 1, 1],
         "Totals may be negative, and ranks may be four."),
    ):  # fmt: skip
        n, case = len(totals), f"totals {totals} of {counts} rows"
        got = play(case, lambda r, n, t=totals, c=counts: answer(t[r], c[r]), n)
        mean = sum(totals) / sum(counts)
        by_rank(
            f"{case}: the mean",
            got,
            [torch.tensor(mean, dtype=torch.float64)] * n,
            rule,
        )


# ---- one step ----


def _batch(step, N):
    y_N = torch.randint(4, (N,), generator=torch.Generator().manual_seed(step))
    return normal(N, 3, seed=20 + step), y_N


def _linear_step(answer, sizes, steps=1, momentum=0.0):
    "What each rank has after steps of `answer` on shards of these sizes."

    def fn(rank, n):
        model, rows, trains = _filled(nn.Linear(3, 4), seed=3), [0], []
        model.register_forward_hook(lambda m, given, out: rows.append(len(out)))
        model.register_forward_hook(lambda m, given, out: trains.append(m.training))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=momentum)
        losses = []
        for step in range(steps):
            X_ND, y_N = _batch(step, sum(sizes))
            mine = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
            losses.append(answer(model, optimizer, X_ND[mine], y_N[mine]))
        return _weights(model), losses, max(rows), [*trains[:1], model.training]

    return fn


def _alone(N, steps=1, momentum=0.0):
    "The same steps in one process: -> weights, losses."
    model = _filled(nn.Linear(3, 4), seed=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=momentum)
    losses = []
    for step in range(steps):
        X_ND, y_N = _batch(step, N)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(X_ND), y_N)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return _weights(model), losses


@chapter.exercise(
    "First find out how many rows all ranks have together. Then each rank adds up its "
    "rows' losses and divides by that number, whatever its own share.",
    'reduction="sum", divided by all rows: the gradients of the ranks then *add up* to the '
    "right one. average_gradients divides by the number of ranks, so multiply by it first. "
    "mean_over_ranks gives the loss to return.",
    "The sum over this rank's rows, weighted so that the mean over ranks is right:\n"
    "rows = torch.tensor(float(len(y_B)))\n"
    "dist.all_reduce(rows)\n"
    'total = F.cross_entropy(model(X_BD), y_B, reduction="sum")\n'
    "(total * dist.get_world_size() / rows).backward()\n"
    "...  # and zero_grad before, average_gradients and step after",
    seconds=20,  # a first optimizer imports for some seconds
)
def parallel_step(answer):
    "One step on the rows of all ranks, however they are shared out."
    for sizes in ([2, 2, 2], [5, 1, 2], [3, 4, 0], [4, 3]):
        N, n, calls = sum(sizes), len(sizes), []
        case = f"one step, lr = 0.5, shards of {sizes} rows"
        want, (loss,) = _alone(N)
        results = play(case, _linear_step(answer, sizes), n,
                        "A rank without rows makes every call, too.", calls)  # fmt: skip
        weights, losses, most, training = zip(*results)
        by_rank(f"{case}: the weights", weights, [want] * n,
                 "Every rank makes the step that one process would make on all rows: add "
                 "up, and divide by the rows of all ranks.")  # fmt: skip
        by_rank(f"{case}: the loss that is returned", [first for first, *_ in losses],
                 [loss] * n, "The weights are right. The loss to return is the mean over "
                 "all ranks' rows, alike on every rank: mean_over_ranks.")  # fmt: skip
        for rank in range(n):
            if most[rank] > sizes[rank]:
                raise Miss("Right, and no work is shared: each rank computes on the rows of "
                           "others. Its own are enough; gradients are what travels.",
                           f"{case}: rows in one forward pass of rank {rank}", most[rank],
                           sizes[rank])  # fmt: skip
        same(f"{case}: model.training in the forward pass and after, by rank",
             list(training), [[True, True]] * n,
             "A step trains: the model is not put into eval(), and not left there.")  # fmt: skip
        travelled = sum(call.bytes for call in calls if call.rank == 0)
        if travelled > 200:
            raise Miss("Right, and more travels than the gradients and a few numbers: after "
                       "one synchronise, equal steps keep equal models equal.",
                       f"{case}: bytes that rank 0 brings", travelled,
                       "128 of gradients, and a count, a total")  # fmt: skip
    case = "three steps with momentum, shards of [5, 1, 2] rows"
    results = play(case, _linear_step(answer, [5, 1, 2], 3, 0.9), 3)
    want, _ = _alone(8, 3, 0.9)
    by_rank(f"{case}: the weights", [weights for weights, *_ in results], [want] * 3,
             "The first step is right. In every step: optimizer.zero_grad() before "
             "backward, optimizer.step() after the exchange.")  # fmt: skip


# ---- buckets ----


@chapter.exercise(
    "Walk through the parameters from the last to the first, with one open bucket.",
    "Start a new bucket when there is none yet, or when the next parameter no longer fits "
    "into what is left of cap.",
    "`room` is what is left of cap in the open bucket:\n"
    "buckets, room = [], 0\n"
    "for i in reversed(range(len(sizes))):\n"
    "    if not buckets or sizes[i] > room:\n"
    "        ...  # a new bucket\n"
    "    buckets[-1].append(i)\n"
    "    room -= sizes[i]",
)
def make_buckets(answer):
    "Parameters in groups, in the order in which backward finishes them."
    cases = [
        ([4, 4, 4, 4, 4], 8, [[4, 3], [2, 1], [0]],
         "From the last parameter to the first, as many as fit: 4 + 4 just fit into 8."),
        ([3, 20, 2], 6, [[2], [1], [0]],
         "A parameter larger than cap travels alone, between its neighbours."),
        ([2, 20], 6, [[1], [0]], "A bucket is opened when there is something to put in."),
        ([1, 1, 5, 2], 6, [[3], [2, 1], [0]],
         "A bucket holds neighbours, in order: nothing goes back to one that is closed."),
        ([5, 0], 5, [[1, 0]], "A parameter without numbers may be the first to come."),
        ([], 6, [], "No parameters, no buckets."),
    ]  # fmt: skip
    draw = random.Random(0)
    for _ in range(30):
        sizes = [draw.randint(1, 9) for _ in range(draw.randint(1, 12))]
        cap = draw.choice((1, 6, 10, 100))
        cases.append(
            (sizes, cap, _greedy(sizes, cap), "As many as fit, again and again.")
        )
    for sizes, cap, want, rule in cases:
        case = f"make_buckets({sizes}, {cap})"
        got = answer(list(sizes), cap)
        try:
            got = [[int(number) for number in bucket] for bucket in got]
        except TypeError:
            raise Miss("It returns a list of lists of parameter numbers.", case, got,
                       want) from None  # fmt: skip
        same(case, got, want, rule)


def _greedy(sizes, cap):
    "The longest bucket that fits, again and again."
    left, buckets = list(reversed(range(len(sizes)))), []
    while left:
        fits = [k for k in range(1, len(left) + 1)
                if k == 1 or sum(sizes[i] for i in left[:k]) <= cap]  # fmt: skip
        buckets.append(left[: fits[-1]])
        left = left[fits[-1] :]
    return buckets


class _Branches(nn.Module):
    "Two branches in float64; `order` says which are used, and in which order."

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 1, bias=False), nn.Linear(3, 2, bias=False)
        _filled(self, seed=5)

    def forward(self, X_BD, order="ab"):
        parts = {"a": self.a, "b": self.b}
        total = 0.0
        for name in order:  # what comes last goes first in backward
            total = (total + 1) * parts[name](X_BD).mean()
        return total


def _tower():
    "Six parameters of 96, 32, 128, 32, 64, 16 bytes."
    return _filled(
        nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(),
                      nn.Linear(4, 2)), seed=6,
    )  # fmt: skip


def _tower_slope(seed):
    "Gradients of one rank's rows."
    model = _tower()
    model(normal(5, 3, seed=seed)).square().mean().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@chapter.exercise(
    "arrived counts down and sends what is ready, send starts one sum, finish waits for "
    "all of them.",
    "arrived: nothing while self.sync is False; else count, and as long as the *next* "
    "bucket to leave misses nothing, send it. send: one flat tensor, "
    "dist.all_reduce(flat, async_op=True), and keep (flat, work). finish: send the rest, "
    "then for each bucket wait, divide, and cut the flat tensor into gradients.",
    "The next bucket's number is len(self.flying). For each (flat, work) in finish:\n"
    "work.wait()\n"
    "flat /= dist.get_world_size()\n"
    "for p, mean in zip(bucket, flat.split([p.numel() for p in bucket])):\n"
    "    p.grad = mean.view_as(p)\n"
    "...  # after the last bucket: self.begin()",
    kind="class",
)
def Overlapped(answer):
    "Buckets that travel while backward still runs."
    cap, n = 160, 3
    sizes = [p.numel() * 8 for p in _tower().parameters()]
    buckets = course.make_buckets(sizes, cap)

    def step(rank, n, rounds, calls):
        model = _tower()
        watch = _Watch(model, rank, calls, buckets)
        parallel, got = answer(model, cap), []
        before = _weights(model)
        for number in range(rounds):
            for p in model.parameters():
                p.grad = None
            watch.backward(model(normal(5, 3, seed=10 * number + rank)).square().mean())
            parallel.finish()
            got.append(_flat_grads(model, f"step {number + 1}, rank {rank}"))
        exact(f"rank {rank}: the weights", _weights(model), before,
               "The weights changed: only gradients travel.")  # fmt: skip
        return got, watch

    case, calls = "3 ranks, 3 buckets: after backward and finish", []
    results = play(case, lambda r, n: step(r, n, 1, calls), n, calls=calls)
    same("bytes of rank 0's calls, in order", [c.bytes for c in calls if c.rank == 0],
         [sum(sizes[i] for i in bucket) for bucket in buckets],
         "One message per bucket: flatten its gradients, put them into one tensor with "
         "torch.cat, sum that.")  # fmt: skip
    want = sum(_tower_slope(rank) for rank in range(n)) / n
    for _, watch in results:
        watch.too_early(case)
    by_rank(f"{case}: the gradients", [got for (got,), _ in results], [want] * n,
             "In finish: wait, divide by the number of ranks, and put each piece of the "
             "flat tensor into the p.grad that it came from.")  # fmt: skip
    for _, watch in results:
        watch.too_late(case)
    if not all(c.asynchronous and not c.waited_in_backward for c in calls):
        raise Miss("Backward stands still while a bucket travels: async_op=True, and wait "
                   "in finish.", case, "a call that is waited for in backward",
                   "all are waited for in finish")  # fmt: skip
    case, calls = "a second step", []
    again = "Is everything set back after a step? self.begin() at the end of finish."
    second = play(case, lambda r, n: step(r, n, 2, calls), n, again, calls)
    want = sum(_tower_slope(10 + rank) for rank in range(n)) / n
    by_rank(f"{case}: the gradients", [got[1] for got, _ in second], [want] * n,
             f"The first step was right. {again}")  # fmt: skip
    for _, watch in second:
        watch.too_late(case, again)
    _quiet(answer)
    _order(answer)
    _unused(answer)


class _Watch:
    "How many buckets a rank has sent when each gradient arrives, and how many are full."

    def __init__(self, model, rank, calls, buckets):
        self.rank, self.calls, self.buckets = rank, calls, buckets
        for number, p in enumerate(model.parameters()):  # before the answer's own hooks
            p.register_post_accumulate_grad_hook(lambda p, n=number: self._note(n))

    def _made(self):
        return sum(call.rank == self.rank for call in self.calls)

    def _note(self, number):
        full = [set(bucket) <= self.here for bucket in self.buckets]
        self.rows.append((self._made() - self.before, (full + [False]).index(False)))
        self.here.add(number)

    def backward(self, loss):
        "Run it; `rows` holds (sent, full) before each gradient and after the last."
        self.rows, self.here, self.before = [], set(), self._made()
        loss.backward()
        self._note(None)

    def too_early(self, case):
        if any(sent > full for sent, full in self.rows):
            raise Miss("A bucket left before it was full: `send` takes the next in order, "
                       "which need not be the one that has just filled.", *self._case(case))  # fmt: skip

    def too_late(self, case, rule=""):
        if all(sent == 0 for sent, _ in self.rows):
            rule = rule or "`arrived` should send each bucket as soon as it is full."
            raise Miss(
                f"Nothing leaves before backward is over. {rule}", *self._case(case)
            )
        if any(sent < full for sent, full in self.rows):
            rule = rule or "It should leave with the gradient that fills it."
            raise Miss(f"A full bucket stays, with none ahead of it. {rule}",
                       *self._case(case))  # fmt: skip

    def _case(self, case):
        sent, full = zip(*self.rows)
        where = "buckets sent before each gradient and at backward's end"
        return f"{case}: rank {self.rank}, {where}", list(sent), list(full)


def _flat_grads(model, case):
    for p in model.parameters():
        if p.grad is None:
            raise Miss("After finish every parameter has a gradient.", case, None,
                       f"a gradient of shape {tuple(p.shape)}")  # fmt: skip
        if p.grad.shape != p.shape:
            raise Miss("A gradient has the shape of its parameter: .view_as(p).", case,
                       tuple(p.grad.shape), tuple(p.shape))  # fmt: skip
    return torch.cat([p.grad.flatten() for p in model.parameters()]).clone()


def _quiet(answer):
    "no_sync: two backward passes, one exchange."
    case, calls = "one backward inside no_sync, one outside", []
    sizes = [p.numel() * 8 for p in _tower().parameters()]

    def fn(rank, n):
        model = _tower()
        watch = _Watch(model, rank, calls, course.make_buckets(sizes, 160))
        parallel = answer(model, 160)
        with parallel.no_sync():
            watch.backward(parallel.model(normal(5, 3, seed=rank)).square().mean())
        watch.backward(parallel.model(normal(5, 3, seed=30 + rank)).square().mean())
        parallel.finish()
        return _flat_grads(model, f"rank {rank}"), watch

    results = play(case, fn, 2, calls=calls)
    want = sum(_tower_slope(seed) for seed in (0, 1, 30, 31)) / 2
    by_rank(f"{case}: the gradients", [got for got, _ in results], [want] * 2,
             "While self.sync is False, nothing counts and nothing leaves.")  # fmt: skip
    same(
        f"{case}: calls of both ranks",
        len(calls),
        2 * 3,
        "Inside no_sync nothing travels.",
    )
    for _, watch in results:
        watch.too_late(f"{case}; the pass outside",
                       "Inside no_sync nothing is counted, either.")  # fmt: skip


def _order(answer):
    "Branches that finish in another order on another rank."
    case, calls = "on rank 1 the gradients arrive in another order", []

    def fn(rank, n):
        model = _Branches()
        watch = _Watch(model, rank, calls, [[1], [0]])
        parallel = answer(model, 24)
        watch.backward(model(normal(4, 3, seed=rank), "ba" if rank == 1 else "ab"))
        parallel.finish()
        return _flat_grads(model, f"rank {rank}"), watch

    results = play(case, fn, 2, "Buckets leave in their own order: none before the one "
                    "ahead of it.", calls)  # fmt: skip
    for _, watch in results:
        watch.too_early(case)
    want = (_branch_slope(0, "ab") + _branch_slope(1, "ba")) / 2
    by_rank(f"{case}: the gradients", [got for got, _ in results], [want] * 2,
             "A bucket goes to the bucket of the same number on the other ranks.")  # fmt: skip
    for _, watch in results:
        watch.too_late(case, "One gradient can make two buckets ready, that which it fills "
                       "and one that was full before: `while`, not `if`.")  # fmt: skip


def _unused(answer):
    "A branch that one rank does not use."
    case = "rank 1 does not use one branch"

    def fn(rank, n):
        model = _Branches()
        parallel = answer(model, 24)
        model(normal(4, 3, seed=rank), "a" if rank == 1 else "ab").backward()
        parallel.finish()
        return _flat_grads(model, f"rank {rank}: a branch it did not use")

    results = play(case, fn, 2, "A bucket that never fills must leave in finish, with "
                    "zeros for what is missing.")  # fmt: skip
    want = (_branch_slope(0, "ab") + _branch_slope(1, "a")) / 2
    by_rank(f"{case}: the gradients", results, [want] * 2,
             "What has no gradient counts as 0: torch.zeros_like(p).")  # fmt: skip


def _branch_slope(seed, order):
    model = _Branches()
    model(normal(4, 3, seed=seed), order).backward()
    grads = [
        torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()
    ]
    return torch.cat([grad.flatten() for grad in grads])


@chapter.exercise(
    "All micro-batches but the last are quiet.",
    "zero_grad once. with parallel.no_sync(): backward for all but the last; then the last "
    "one outside. Each loss is a mean over its own rows: divide it by the number of "
    "micro-batches.",
    "The quiet ones; then the last in the same way, outside; finish; step:\n"
    "optimizer.zero_grad()\n"
    "*first, last = batches\n"
    "with parallel.no_sync():\n"
    "    for X, y in first:\n"
    "        (F.cross_entropy(parallel.model(X), y) / len(batches)).backward()\n"
    "...",
    seconds=20,
)
def accumulate(answer):
    "One step from several micro-batches, with one exchange."

    def fn(parts, steps=1):
        def play(rank, n):
            model, log = _filled(nn.Linear(3, 4), seed=3), []
            model.register_forward_hook(
                lambda m, given, out: log.append(f"forward {len(out)}")
            )
            model.bias.register_post_accumulate_grad_hook(lambda p: log.append("back"))
            for p in model.parameters():
                p.grad = torch.ones_like(p)  # left by an earlier step
            parallel = course.Overlapped(model, cap=1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
            for step in range(steps):
                X_ND, y_N = _batch(step, 6 * parts)
                mine = slice(3 * parts * rank, 3 * parts * (rank + 1))
                pairs = zip(X_ND[mine].split(3), y_N[mine].split(3))
                answer(parallel, optimizer, list(pairs))
            return _weights(model), log

        return play

    for parts in (3, 1):
        case = f"2 ranks, {parts} micro-batch{'es' * (parts > 1)} of 3 rows each"
        calls = []
        results = play(case, fn(parts), 2, calls=calls)
        want, _ = _alone(6 * parts)
        weights, logs = zip(*results)
        by_rank(f"{case}: the weights", weights, [want] * 2,
                 "The step is the one that one process makes on all rows: each loss "
                 "divided by the number of micro-batches, old gradients cleared first.")  # fmt: skip
        for rank, log in enumerate(logs):
            same(f"{case}: passes on rank {rank}", log, ["forward 3", "back"] * parts,
                 "The right step, and no accumulation: one micro-batch at a time, forward "
                 "and backward, so that only its activations are held.")  # fmt: skip
        same(f"{case}: all_reduce calls of both ranks", len(calls), 2 * 2,
             "A step talks once, whatever the number of micro-batches: all but the last "
             "run inside parallel.no_sync().")  # fmt: skip
        if not all(call.in_backward for call in calls):
            raise Miss("The last micro-batch is quiet too: nothing overlaps, everything "
                       "waits for finish. Run it outside no_sync.",
                       f"{case}: buckets leave", "after backward", "during backward")  # fmt: skip
    results = play("two steps", fn(2, steps=2), 2)
    want, _ = _alone(12, steps=2)
    by_rank("two steps: the weights", [weights for weights, _ in results], [want] * 2,
             "The first step is right. Every step begins with optimizer.zero_grad().")  # fmt: skip


@chapter.exercise(
    "A bucket starts when two things are true: it is full, and the link is free.",
    "start = max(when it is full, the end of the trip before); end = start + its seconds.",
    "`free`: when the link is free again.\n"
    "free, trips = 0.0, []\n"
    "for full, takes in zip(ready, seconds):\n"
    "    start = max(full, free)\n"
    "    ...",
)
def timeline(answer):
    "When each bucket travels, one at a time."
    for ready, seconds, want, rule in (
        ([1.0, 2.0, 6.0], [3.0, 1.0, 2.0], [(1.0, 4.0), (4.0, 5.0), (6.0, 8.0)],
         "A bucket starts when it is full and the link is free, whichever comes later."),
        ([5.0], [0.5], [(5.0, 5.5)], "One bucket leaves when it is full."),
        ([0.5, 0.5, 0.75, 4.0, 4.25], [1.0, 0.25, 0.5, 0.5, 0.125],
         [(0.5, 1.5), (1.5, 1.75), (1.75, 2.25), (4.0, 4.5), (4.5, 4.625)],
         "The link is free when the trip before has ended, and may then rest."),
        ([0.0, 0.0, 3.0, 1.0], [2.0, 0.0, 1.0, 1.0],
         [(0.0, 2.0), (2.0, 2.0), (3.0, 4.0), (4.0, 5.0)],
         "Buckets leave in their order, not in the order in which they are full."),
    ):  # fmt: skip
        case = f"timeline({ready}, {seconds})"
        same(case, answer(list(ready), list(seconds)), want, rule)
