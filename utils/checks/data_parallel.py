"""Chapter 17: shards, averages over ranks, buckets, overlap.

Ranks are rehearsed in this process (utils.practice.rehearsal), so that a call that nobody answers
is told at once and nothing hangs.
"""

import random

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DistributedSampler

from utils.built import data_parallel as course
from utils.check import as_array
from utils.exercises import Chapter, Miss, same
from utils.practice.rehearsal import Deadlock, Mismatch, rehearse

chapter = Chapter("17_data_parallel")
HANG = (
    "The ranks hang. A collective call returns when every rank has made it, so all ranks "
    "make the same calls in the same order"
)


def _play(case, fn, n=3, rule="", calls=None):
    "rehearse(fn, n); where real processes would hang, a Miss says which rank waits."
    try:
        return rehearse(fn, n, calls=calls)
    except (Deadlock, Mismatch) as error:
        said = f"{HANG}. {rule}".strip() if rule else f"{HANG}."
        raise Miss(said, case, str(error), "every rank returns") from None
    except (Miss, NotImplementedError):
        raise
    except Exception as error:
        error.args = (f"{error} (case: {case})",)
        raise


def _exact(case, got, want, slips=None, rule=""):
    "same(), and then to 12 digits: what passes through float32 keeps 7."
    same(case, got, want, rule=rule)
    gap = float(abs(as_array(got).astype(float) - as_array(want)).max())
    same(f"{case}: largest difference", gap, 0.0, atol=1e-12,
         rule="Right to 7 digits, and float64 has 15: something on the way was float32. "
         "Keep the dtype.")  # fmt: skip


def _normal(*shape, seed=0):
    "Random float64 numbers of their own seed."
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _filled(model, seed=0):
    "The model in float64, its parameters drawn from a seed."
    model = model.double()
    with torch.no_grad():
        for number, p in enumerate(model.parameters()):
            p.copy_(_normal(*p.shape, seed=100 * seed + number))
    return model


def _weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


def _grads(model):
    return [None if p.grad is None else p.grad.clone() for p in model.parameters()]


@chapter.exercise(
    "A shard of 16 rows speaks for 16 rows, one of 2 rows for 2.",
    "Undo each mean (times its rows), add up, and divide once by all rows.",
    "Rows as a vector make it one product:\n"
    "rows_R = torch.tensor(rows_R, dtype=grads_RP.dtype)\n"
    "return rows_R @ grads_RP / ...",
)
def mean_of_shards(answer):
    "The gradient of all rows, from the mean gradients of ragged shards."
    grads = torch.tensor([[6.0, 0.0], [0.0, 3.0], [1.0, -1.0]], dtype=torch.float64)
    rows = [1, 2, 5]
    weighted = torch.tensor([11.0, 1.0], dtype=torch.float64)
    same(
        "gradients [6, 0], [0, 3], [1, -1] of shards with 1, 2 and 5 rows",
        answer(grads, rows),
        weighted / 8,
    )
    X_ND, y_N = _normal(9, 4), _normal(9, seed=1)
    w_D = _normal(4, seed=2).requires_grad_()

    def slope(rows):
        loss = ((X_ND[rows] @ w_D - y_N[rows]) ** 2).mean()
        return torch.autograd.grad(loss, w_D)[0]

    shards = [slice(0, 2), slice(2, 3), slice(3, 9)]
    got = answer(torch.stack([slope(s) for s in shards]), [2, 1, 6])
    _exact("shards of 2, 1 and 6 rows beside autograd on all 9", got,
           slope(slice(0, 9)),
           rule="Is the shape (P,), one number a parameter?")  # fmt: skip


def _with_grads(rank, missing=False):
    "A layer with gradients 1/3, 2/3, 1 ... times rank + 2; its weights differ by rank."
    layer = _filled(nn.Linear(2, 2), seed=rank)
    layer.weight.grad = torch.arange(1.0, 5.0).double().view(2, 2) / 3 * (rank + 2)
    layer.bias.grad = torch.tensor([5.0, 6.0]).double() / 3 * (rank + 2)
    if missing:
        layer.weight.grad = None
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
        if not torch.equal(before, _weights(model)):
            raise Miss("The weights changed: average the gradients, p.grad, not p.",
                       f"rank {rank} of {n}: the weights", _weights(model), before)  # fmt: skip
        return _grads(model)

    unit = torch.arange(1.0, 5.0).double().view(2, 2) / 3
    ends = torch.tensor([5.0, 6.0]).double() / 3
    for n in (3, 2):
        case = f"{n} ranks, gradients 1/3, 2/3, 1 ... times rank + 2"
        results = _play(case, lambda rank, n: step(_with_grads(rank), rank, n), n)
        for rank in range(n):
            own = unit * (rank + 2)
            total = unit * (n * (n + 3) / 2)
            lost = "Nothing was exchanged: each rank has its own gradient."
            if rank:  # rank 0 was right
                lost = (
                    "Rank 0 has the mean, this rank not: dist.reduce serves one rank."
                )
            elif all(torch.equal(grads[0], own) for grads in results):
                lost = (
                    "Every rank has rank 0's gradient: a broadcast copies, all_reduce "
                    "adds."
                )
            _exact(
                f"{case}: the weight's gradient on rank {rank}",
                results[rank][0],
                total / n,
                slips={
                    "This is the sum over all ranks: divide by their number.": total,
                    lost: own,
                    "Each rank divided its own gradient; the sum never arrived. An "
                    "asynchronous call needs its wait().": own / n,
                    "Divided twice by the number of ranks.": total / n / n,
                    "The mean was summed again: one exchange is enough.": total * n,
                    "Divided by 3, whatever the number of ranks: "
                    "dist.get_world_size().": total / 3,
                    "Divided by 2, whatever the number of ranks: "
                    "dist.get_world_size().": total / 2,
                },
                rule="All ranks should leave with the mean of all.",
            )
            _exact(f"{case}: the bias's gradient on rank {rank}", results[rank][1],
                   ends * (n + 3) / 2,
                   rule="The weight is right: does the loop reach every parameter?")  # fmt: skip
    case = "3 ranks; on rank 1 the weight has no gradient (None)"
    results = _play(
        case,
        lambda rank, n: step(_with_grads(rank, missing=rank == 1), rank, n),
        3,
        "A rank skips the gradient that it does not have, or sends it later than the "
        "others. Bring zeros, in that parameter's own place.",
    )
    want = unit * (2 + 4) / 3
    for rank in range(3):
        if results[rank][0] is None:
            raise Miss("The rank that brought nothing leaves with the mean like the others.",
                       f"{case}: on rank {rank}", None, want)  # fmt: skip
        same(f"{case}: the weight's gradient on rank {rank}", results[rank][0], want,
             )  # fmt: skip
        same(f"{case}: the bias's gradient on rank {rank}", results[rank][1], ends * 3,
             )  # fmt: skip
    case = "2 ranks; a frozen parameter before the layer, another after it"
    results = _play(case, lambda rank, n: step(_between_frozen(rank), rank, n), 2)
    for rank, (first, weight, bias, last) in enumerate(results):
        if first is not None:
            raise Miss("A frozen parameter got a gradient, and weight decay would now move "
                       "it. Skip those with requires_grad=False.",
                       f"{case}: the first one's grad", first, None)  # fmt: skip
        for name, got, want in (("weight", weight, unit), ("bias", bias, ends)):
            same(f"{case}: the {name}'s gradient on rank {rank}", got, want * 2.5,
                 rule="The layer behind the frozen parameter is trained: skip the frozen "
                 "one and go on.")  # fmt: skip
        want = torch.tensor([7.0 + rank]).double()
        if last is None or not torch.equal(last, want):
            raise Miss("A frozen parameter stays as it is, and so does its gradient: no "
                       "exchange, no None.", f"{case}: the second one's grad on rank {rank}",
                       last, want)  # fmt: skip


class _Normed(nn.Module):
    "A layer, a frozen parameter, and inside another module three buffers."

    def __init__(self, rank):
        super().__init__()
        self.layer = _filled(nn.Linear(2, 1), seed=rank + 1)
        self.frozen = nn.Parameter(_normal(2, seed=rank + 70), requires_grad=False)
        self.norm = nn.Module()
        self.norm.register_buffer("running", _normal(3, seed=rank + 50))
        self.norm.register_buffer("seen", torch.tensor(10 * (rank + 1)))
        table = _normal(2, seed=rank + 90)
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
        if not all(p.requires_grad and p.is_leaf for p in model.layer.parameters()):
            raise Miss("The parameters no longer learn: copy under torch.no_grad().",
                       f"rank {rank}: requires_grad, is_leaf",
                       [(p.requires_grad, p.is_leaf) for p in model.layer.parameters()],
                       "all True")  # fmt: skip
        if model.frozen.requires_grad:
            raise Miss("A frozen parameter learns now: leave requires_grad as it is.",
                       f"rank {rank}: requires_grad of a frozen parameter", True, False)  # fmt: skip
        return model

    for n in (3, 2):
        case = f"{n} ranks, each with other weights"
        results = _play(
            case, start, n, "Does every rank broadcast, and with the same src?"
        )
        models = [_Normed(rank) for rank in range(n)]
        first = models[0]
        starts = [_weights(m.layer) for m in models]
        mean = torch.stack(starts).mean(0)
        for rank, model in enumerate(results):
            _exact(
                f"{case}: the layer's weights on rank {rank}",
                _weights(model.layer),
                starts[0],
                slips={
                    "The mean of all starts: equal, but its spread is smaller than any "
                    "start's by the root of the number of ranks. Copy rank 0's.": mean,
                    "Rank 0 got the last rank's: src=0.": starts[-1],
                    "The sum of all starts: copy rank 0's.": mean * n,
                    f"Rank {rank} still has its own start.": starts[rank],
                },
                rule="The ranks agree, but not on rank 0's weights: a seed helps only "
                "what is drawn after it.",
            )
            same(f"{case}: a frozen parameter on rank {rank}", model.frozen, first.frozen,
                 rule="Frozen parameters, too: nobody trains them, but each rank drew its "
                 "own.")  # fmt: skip
            _exact(f"{case}: a buffer on rank {rank}", model.norm.running,
                   first.norm.running,
                   rule="The parameters are equal, the buffers are not: model.buffers() "
                   "holds, say, the running means of batch norm in every inner module.")  # fmt: skip
            same(f"{case}: a buffer of whole numbers on rank {rank}", model.norm.seen,
                 first.norm.seen)  # fmt: skip
            same(f"{case}: a buffer that is not saved (persistent=False), rank {rank}",
                 model.norm.table, first.norm.table,
                 rule="state_dict() leaves out buffers with persistent=False; "
                 "model.buffers() has all.")  # fmt: skip


def _sampler(N, rank, world, seed, epoch):
    "The rows by torch's own sampler."
    sampler = DistributedSampler(range(N), world, rank, shuffle=True, seed=seed)
    sampler.set_epoch(epoch)
    return list(sampler)


def _perm(N, seed):
    return torch.randperm(N, generator=torch.Generator().manual_seed(seed)).tolist()


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
    N, world, seed, epoch = 11, 3, 7, 2
    case = "N = 11, 3 ranks, seed 7, epoch 2"
    state = torch.get_rng_state()
    got = [_rows(answer(N, r, world, seed, epoch), case, r) for r in range(world)]
    if not torch.equal(state, torch.get_rng_state()):
        raise Miss("It uses torch's global generator: every rank's dropout would change, "
                   "or be the same. Make a torch.Generator() of its own.", case,
                   "the global random state has changed", "it is as before")  # fmt: skip
    lengths = [len(rows) for rows in got]
    if len(set(lengths)) > 1:
        raise Miss("Ranks have unequal numbers of rows: the one with fewer steps ends its "
                   "epoch, and the others wait for it for ever. Extend the order by its "
                   "own beginning.", f"{case}: rows of each rank", lengths, [4, 4, 4])  # fmt: skip
    order = _perm(N, seed + epoch)
    full, other_epoch = order + order[:1], _perm(N, seed)
    slips = {
        "Every rank has the same rows: the work is done three times.": [full[:4]] * 3,
        "Every rank has all rows: the work is done three times.": [order] * 3,
        "The tail is dropped: extend instead, so that every row is seen.": [
            order[:9][r::3] for r in range(3)
        ],
        "Neighbouring rows in one shard: a right split, but not this one. Take every "
        "world-th, so that one step's batches are neighbours in the order.": [
            full[4 * r : 4 * r + 4] for r in range(3)
        ],
        "Each rank shuffles in its own way: some rows are seen twice, some never. All "
        "use the same seed.": [
            (o + o[:1])[r::3] for r in range(3) for o in [_perm(N, seed + epoch + r)]
        ],
        "The epoch has no effect: every epoch has the same order.": [
            (other_epoch + other_epoch[:1])[r::3] for r in range(3)
        ],
        "The rows are not shuffled.": [(list(range(N)) + [0])[r::3] for r in range(3)],
        "The missing entry is the first of the order, not the last again.": [
            (order + order[-1:])[r::3] for r in range(3)
        ],
        "The missing entry is the first of the order, not row 0.": [
            (order + [0])[r::3] for r in range(3)
        ],
    }
    union = sorted(set().union(*got))
    rule = "Together the ranks must see every row, and only the extension twice."
    dealt = [row for step in zip(*got) for row in step]
    if union == list(range(N)) and dealt[N] == dealt[0]:
        rule = (
            "A right deal of another order. The order here: torch.randperm(N, "
            "generator=...), its generator seeded with seed + epoch."
        )
    if union != list(range(N)):
        rule = f"Rows that no rank sees: {sorted(set(range(N)) - set(union))}. {rule}"
    want = [_sampler(N, r, world, seed, epoch) for r in range(world)]
    same(f"{case}: rows of ranks 0, 1, 2", got, want, rule=rule)
    for N, world, seed, epoch in (
        (12, 4, 0, 0),
        (2, 5, 1, 3),
        (7, 1, 0, 1),
        (9, 2, 3, 5),
    ):
        case = f"N = {N}, {world} ranks, seed {seed}, epoch {epoch}"
        for r in range(world):
            got = _rows(answer(N, r, world, seed, epoch), case, r)
            same(f"{case}: rows of rank {r}", got, _sampler(N, r, world, seed, epoch),
                 rule="With fewer rows than ranks the order is repeated more than once."
                 if world > N else "Where N is a multiple of world, nothing is added.")  # fmt: skip


def _rows(got, case, rank):
    try:
        return [int(i) for i in got]
    except TypeError:
        raise Miss("It returns the numbers of rows, a tensor or a list.",
                   f"{case}, rank {rank}", got, "rows such as [3, 0, 7]") from None  # fmt: skip


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
    totals, counts = [2.7, 0.9, 11.3], [4, 1, 20]
    case = "totals 2.7, 0.9, 11.3 of 4, 1, 20 rows"
    got = _play(case, lambda rank, n: answer(totals[rank], counts[rank]), 3)
    means = [t / c for t, c in zip(totals, counts)]
    for rank in range(3):
        own = "This rank's own mean: nothing was exchanged."
        if rank:  # rank 0 was right
            own = "Only rank 0 has the mean: dist.all_reduce serves all ranks."
        same(
            f"{case}: on rank {rank}",
            got[rank],
            14.9 / 25,
            rule="Sum of all totals over sum of all counts, alike on every rank.",
        )
    first = got
    got = _play("a rank without rows", lambda r, n: answer([6.0, 0.0][r], [8, 0][r]), 2)
    same("totals 6, 0 of 8 and 0 rows", got, [0.75, 0.75],
         rule="A rank without rows brings 0 and 0: divide only after the exchange.")  # fmt: skip
    got = _play("many rows", lambda r, n: answer([0.0, 1.0][r], [2**24, 1][r]), 2)
    same("totals 0 and 1 of 16,777,216 and 1 rows", got, [1 / (2**24 + 1)] * 2,

         atol=0, rtol=1e-10)  # fmt: skip
    _exact(f"{case}: on ranks 0, 1, 2", first, [14.9 / 25] * 3)


def _linear_step(answer, sizes, steps=1, momentum=0.0):
    "What each rank has after steps of `answer` on shards of these sizes."

    def fn(rank, n):
        model, most = _filled(nn.Linear(3, 4), seed=3), [0]
        model.register_forward_hook(lambda m, given, out: most.append(len(out)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=momentum)
        losses = []
        for step in range(steps):
            X_ND, y_N = _batch(step, sum(sizes))
            mine = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
            losses.append(answer(model, optimizer, X_ND[mine], y_N[mine]))
        return _weights(model), losses, max(most), model.training

    return fn


def _batch(step, N):
    y_N = torch.randint(4, (N,), generator=torch.Generator().manual_seed(step))
    return _normal(N, 3, seed=20 + step), y_N


def _alone(N, steps=1, momentum=0.0, loss=F.cross_entropy, scale=1.0, zero=True):
    "The same steps in one process."
    model = _filled(nn.Linear(3, 4), seed=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=momentum)
    losses = []
    for step in range(steps):
        X_ND, y_N = _batch(step, N)
        if zero:
            optimizer.zero_grad()
        value = loss(model(X_ND), y_N)
        (scale * value).backward()
        optimizer.step()
        losses.append(value.item())
    return _weights(model), losses


def _mean_of_means(sizes):
    "A loss that averages each shard, then the shards."

    def loss(logits, y_N):
        parts = zip(logits.split(sizes), y_N.split(sizes))
        return sum(F.cross_entropy(z, y) for z, y in parts) / len(sizes)

    return loss


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
    for sizes in ([2, 2, 2], [5, 1, 2], [3, 4, 0]):
        N, n = sum(sizes), len(sizes)
        case = (
            f"one step, lr = 0.5, shards of {sizes[0]}, {sizes[1]} and {sizes[2]} rows"
        )
        want, (loss,) = _alone(N)
        calls = []
        results = _play(case, _linear_step(answer, sizes), n,
                        "A rank without rows makes every call, too.", calls)  # fmt: skip
        means, summed = want, _alone(N, scale=n)[0]
        slips = {
            "The ranks' gradients were added up, not averaged: the step is three times "
            "too long.": summed,
            "The step is three times too short: average_gradients divides by the number "
            "of ranks already.": _alone(N, scale=1 / n)[0],
            "The weights have not moved.": _weights(_filled(nn.Linear(3, 4), seed=3)),
            "The loss is a sum over rows: the step is too long by their number.": _alone(
                N, scale=N
            )[0],
        }
        if 0 not in sizes and len(set(sizes)) > 1:
            means = _alone(N, loss=_mean_of_means(sizes))[0]
            slips[
                "A mean of means: a shard of 1 row pulls as hard as one of 5. Divide each "
                "rank's sum by the rows of all ranks."
            ] = means
        for rank, (weights, losses, most, training) in enumerate(results):
            if not torch.isfinite(weights).all():
                raise Miss("A mean over no rows is 0 / 0. Add up, and divide by the rows of "
                           "all ranks.", f"{case}: the weights on rank {rank}", weights, want)  # fmt: skip
            own = _own_step(sizes, rank)
            _exact(f"{case}: the weights on rank {rank}", weights, want,
                   slips={**slips, "Each rank went its own way: average before the "
                          "optimizer's step.": own},
                   rule="Every rank must make the step that one process would make on "
                   "all rows.")  # fmt: skip
            if losses[0] is None:
                raise Miss("It returns nothing: the mean loss over all rows is wanted.",
                           f"{case}: the loss on rank {rank}", None, loss)  # fmt: skip
            _exact(f"{case}: the loss that rank {rank} returns", losses[0], loss,
                   rule="The weights are right. The loss to return is the mean over all "
                   "ranks' rows, alike on every rank: mean_over_ranks.")  # fmt: skip
            if most > sizes[rank]:
                raise Miss("Right, and no work is shared: each rank computes on the rows of "
                           "others. Its own are enough; gradients are what travels.",
                           f"{case}: rows in one forward pass of rank {rank}", most,
                           sizes[rank])  # fmt: skip
            if not training:
                raise Miss("The model is left in eval(): a step trains.",
                           f"{case}: model.training on rank {rank}", False, True)  # fmt: skip
        travelled = sum(call.bytes for call in calls if call.rank == 0)
        if travelled > 200:
            raise Miss("Right, and more travels than the gradients and a few numbers: after "
                       "one synchronise, equal steps keep equal models equal.",
                       f"{case}: bytes that rank 0 sends", travelled,
                       "128 of gradients, and a count, a total")  # fmt: skip
    case = "three steps with momentum, shards of 5, 1 and 2 rows"
    results = _play(case, _linear_step(answer, [5, 1, 2], 3, 0.9), 3)
    stale = _alone(8, 3, 0.9, zero=False)[0]
    plain = _alone(8, 3)[0]
    for rank, (weights, *_) in enumerate(results):
        same(f"{case}: the weights on rank {rank}", weights, _alone(8, 3, 0.9)[0],

             rule="The first step is right. In every step: optimizer.zero_grad() before "
             "backward, optimizer.step() after the exchange.")  # fmt: skip


def _own_step(sizes, rank):
    "Where this rank alone would go."
    model = _filled(nn.Linear(3, 4), seed=3)
    X_ND, y_N = _batch(0, sum(sizes))
    mine = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    if sizes[rank]:
        F.cross_entropy(model(X_ND[mine]), y_N[mine]).backward()
        torch.optim.SGD(model.parameters(), lr=0.5).step()
    return _weights(model)


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

    def plain(got, case):
        try:
            return [[int(i) for i in bucket] for bucket in got]
        except TypeError:
            raise Miss("It returns a list of lists of parameter numbers.", case, got,
                       [[1, 0]]) from None  # fmt: skip

    case = "sizes [4, 4, 4, 4, 4], cap 8"
    same(
        case,
        plain(answer([4] * 5, 8), case),
        [[4, 3], [2, 1], [0]],

    )  # fmt: skip
    case = "sizes [3, 20, 2], cap 6: one parameter is larger than a bucket"
    same(
        case,
        plain(answer([3, 20, 2], 6), case),
        [[2], [1], [0]],
    )
    case = "sizes [2, 20], cap 6: the first to come is too large"
    same(case, plain(answer([2, 20], 6), case), [[1], [0]],
         )  # fmt: skip
    case = "sizes [1, 1, 5, 2], cap 6: buckets of neighbours, in order"
    same(case, plain(answer([1, 1, 5, 2], 6), case), [[3], [2, 1], [0]],
         )  # fmt: skip
    same("no parameters", plain(answer([], 6), "no parameters"), [])
    draw = random.Random(0)
    for _ in range(30):
        sizes = [draw.randint(1, 9) for _ in range(draw.randint(1, 12))]
        case = f"sizes {sizes}, cap 10"
        same(case, plain(answer(list(sizes), 10), case), _greedy(sizes, 10))


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


def _tower_slope(seed, weight=1.0):
    "Gradients of one rank's rows."
    model = _tower()
    (weight * model(_normal(5, 3, seed=seed)).square().mean()).backward()
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

    def step(rank, n, rounds=1, calls=()):
        model = _tower()
        watch = _Watch(model, rank, calls, buckets)
        parallel, got = answer(model, cap), []
        before = _weights(model)
        for round in range(rounds):
            for p in model.parameters():
                p.grad = None
            watch.backward(model(_normal(5, 3, seed=10 * round + rank)).square().mean())
            parallel.finish()
            got.append(_flat_grads(model, f"round {round + 1}, rank {rank}"))
        if not torch.equal(before, _weights(model)):
            raise Miss("The weights changed: only gradients travel.",
                       f"rank {rank}: the weights", _weights(model), before)  # fmt: skip
        return got, watch

    case, calls = "3 ranks, 3 buckets: after backward and finish", []
    results = _play(case, lambda r, n: step(r, n, 1, calls), n, calls=calls)
    mine = [call for call in calls if call.rank == 0]
    want = [sum(sizes[i] for i in b) for b in buckets]
    if [call.bytes for call in mine] != want:
        raise Miss("One message a bucket: flatten its gradients, put them into one tensor "
                   "with torch.cat, sum that.", "bytes of rank 0's calls, in order",
                   [call.bytes for call in mine], want)  # fmt: skip
    slopes = [_tower_slope(rank) for rank in range(n)]
    total = sum(slopes)
    for rank, ((got,), watch) in enumerate(results):
        watch.too_early(case)
        same(
            f"{case}: the gradients on rank {rank}",
            got,
            total / n,
            rule=_times(got, total / n)
            or "Does each piece of the flat tensor go to the parameter it came from, in "
            "the same order?",
        )
        watch.too_late(case)
    if not all(c.asynchronous and not c.waited_in_backward for c in calls):
        raise Miss("Backward stands still while a bucket travels: async_op=True, and wait "
                   "in finish.", case, "a call that is waited for in backward",
                   "all are waited for in finish")  # fmt: skip
    case, calls = "a second step", []
    second = _play(case, lambda r, n: step(r, n, 2, calls), n,
                   "Is the count of missing gradients set back after each step?", calls)  # fmt: skip
    want = sum(_tower_slope(10 + rank) for rank in range(n)) / n
    again = "Is everything set back after a step? self.begin() at the end of finish."
    for rank, (got, watch) in enumerate(second):
        same(f"{case}: the gradients on rank {rank}", got[1], want,

             rule=f"The first step was right. {again}")  # fmt: skip
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


def _times(got, want):
    "The sentence for a constant factor, or ''."
    factor = (got @ want / (want @ want)).item()
    if not torch.allclose(got, factor * want):
        return ""
    return f"Every gradient is {factor:.3g} times what it should be."


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
            watch.backward(model(_normal(5, 3, seed=rank)).square().mean())
        watch.backward(model(_normal(5, 3, seed=30 + rank)).square().mean())
        parallel.finish()
        return _flat_grads(model, f"rank {rank}"), watch

    results = _play(case, fn, 2, calls=calls)
    first = sum(_tower_slope(rank) for rank in range(2)) / 2
    last = sum(_tower_slope(30 + rank) for rank in range(2)) / 2
    for rank in range(2):
        same(f"{case}: the gradients on rank {rank}", results[rank][0], first + last,

             rule="While self.sync is False, nothing counts and nothing leaves.")  # fmt: skip
    if len(calls) != 2 * 3:
        raise Miss("Inside no_sync nothing travels.", f"{case}: calls of both ranks",
                   len(calls), 6)  # fmt: skip
    for _, watch in results:
        watch.too_late(f"{case}; the pass outside",
                       "Inside no_sync nothing is counted, either.")  # fmt: skip


def _unused(answer):
    "A branch that one rank does not use."

    def fn(rank, n):
        model = _Branches()
        parallel = answer(model, 24)
        model(_normal(4, 3, seed=rank), "a" if rank == 1 else "ab").backward()
        parallel.finish()
        return _flat_grads(model, f"rank {rank}: a branch it did not use")

    case = "rank 1 does not use one branch"
    results = _play(case, fn, 2, "A bucket that never fills must leave in finish, with "
                    "zeros for what is missing.")  # fmt: skip
    want = 0.0
    for rank, order in enumerate(("ab", "a")):
        model = _Branches()
        model(_normal(4, 3, seed=rank), order).backward()
        want = want + torch.cat(
            [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten()
             for p in model.parameters()]) / 2  # fmt: skip
    for rank in range(2):
        same(f"{case}: the gradients on rank {rank}", results[rank], want,
             rule="What has no gradient counts as 0.")  # fmt: skip


def _order(answer):
    "Branches that finish in another order on another rank."

    case, calls = "on rank 1 the gradients arrive in another order", []

    def fn(rank, n):
        model = _Branches()
        watch = _Watch(model, rank, calls, [[1], [0]])
        parallel = answer(model, 24)
        watch.backward(model(_normal(4, 3, seed=rank), "ba" if rank == 1 else "ab"))
        parallel.finish()
        return _flat_grads(model, f"rank {rank}"), watch

    results = _play(case, fn, 2, "Buckets leave in their own order: none before the one "
                    "ahead of it.", calls)  # fmt: skip
    want = 0.0
    for rank, order in enumerate(("ab", "ba")):
        model = _Branches()
        model(_normal(4, 3, seed=rank), order).backward()
        want = want + torch.cat([p.grad.flatten() for p in model.parameters()]) / 2
    for _, watch in results:
        watch.too_early(case)
    for rank, (got, watch) in enumerate(results):
        same(f"{case}: the gradients on rank {rank}", got, want)
        watch.too_late(case, "One gradient can make two buckets ready, that which it fills "
                       "and one that was full before: `while`, not `if`.")  # fmt: skip


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
        results = _play(case, fn(parts), 2, calls=calls)
        want = _alone(6 * parts)[0]
        for rank in range(2):
            slips = {
                f"The step is {parts} times too long: divide each loss by the number of "
                "micro-batches.": _alone(6 * parts, scale=parts)[0],
                "The weights have not moved.": _weights(
                    _filled(nn.Linear(3, 4), seed=3)
                ),
                "Only the last micro-batch counted.": _last_only(parts),
                "Old gradients are still there: optimizer.zero_grad(), once, at the "
                "beginning.": want - 0.5,
                "The step came before the means: parallel.finish() first.": (
                    _own_step([3 * parts] * 2, rank)
                ),
            }
            got, log = results[rank]
            same(f"{case}: the weights on rank {rank}", got, want,
                 rule="The step must be the one that one process makes on all rows, with "
                 "F.cross_entropy.")  # fmt: skip
            if log != ["forward 3", "back"] * parts:
                raise Miss("The right step, and no accumulation: one micro-batch at a time, "
                           "forward and backward, so that only its activations are held.",
                           f"{case}: passes on rank {rank}", log,
                           ["forward 3", "back"] * parts)  # fmt: skip
        if len(calls) != 2 * 2:
            raise Miss("A step talks once, whatever the number of micro-batches: all but "
                       "the last run inside parallel.no_sync().",
                       f"{case}: all_reduce calls of both ranks", len(calls), 4)  # fmt: skip
        if not all(call.in_backward for call in calls):
            raise Miss("The last micro-batch is quiet too: nothing overlaps, everything "
                       "waits for finish. Run it outside no_sync.",
                       f"{case}: buckets leave", "after backward", "during backward")  # fmt: skip
    results = _play("two steps", fn(2, steps=2), 2)
    for rank in range(2):
        same(f"two steps: the weights on rank {rank}", results[rank][0],
             _alone(12, steps=2)[0], rule="The first step is right.")  # fmt: skip


def _last_only(parts):
    model = _filled(nn.Linear(3, 4), seed=3)
    X_ND, y_N = _batch(0, 6 * parts)
    last = torch.tensor(
        [3 * parts * rank + 3 * (parts - 1) + i for rank in range(2) for i in range(3)]
    )
    (F.cross_entropy(model(X_ND[last]), y_N[last]) / parts).backward()
    torch.optim.SGD(model.parameters(), lr=0.5).step()
    return _weights(model)


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
    ready, seconds = [1.0, 2.0, 6.0], [3.0, 1.0, 2.0]
    case = "full at 1, 2 and 6 s, travelling 3, 1 and 2 s"
    same(
        case,
        answer(list(ready), list(seconds)),
        [(1.0, 4.0), (4.0, 5.0), (6.0, 8.0)],

    )  # fmt: skip
    same("one bucket, full at 5", answer([5.0], [0.5]), [(5.0, 5.5)])
    ready, seconds = [0.5, 0.5, 0.75, 4.0, 4.25], [1.0, 0.25, 0.5, 0.5, 0.125]
    same("five buckets", answer(ready, seconds),
         [(0.5, 1.5), (1.5, 1.75), (1.75, 2.25), (4.0, 4.5), (4.5, 4.625)])  # fmt: skip
