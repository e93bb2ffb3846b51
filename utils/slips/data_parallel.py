"Chapter 17: small wrong programs, each with the sentence that names it."

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import distributed as dist

from utils.built import data_parallel as course
from utils.checks import data_parallel as ex

# ---- mean_of_shards ----


@ex.mean_of_shards.slip(
    "This is the plain mean of the means: a shard of one row counts as much as one of five."
)
def plain_mean(grads_RP, rows_R):
    return grads_RP.mean(0)


@ex.mean_of_shards.slip("This adds the means: nothing was weighted.")
def plain_sum(grads_RP, rows_R):
    return grads_RP.sum(0)


@ex.mean_of_shards.slip("The rows weigh, but nothing divides by their total number.")
def not_divided(grads_RP, rows_R):
    return torch.tensor(rows_R, dtype=grads_RP.dtype) @ grads_RP


@ex.mean_of_shards.slip("Divide by the number of rows, not by the number of shards.")
def by_shards(grads_RP, rows_R):
    return torch.tensor(rows_R, dtype=grads_RP.dtype) @ grads_RP / len(rows_R)


@ex.mean_of_shards.slip(
    "Each mean was divided by its rows: it should be multiplied, to undo the mean."
)
def divided_by_rows(grads_RP, rows_R):
    return sum(g / rows for g, rows in zip(grads_RP, rows_R))


@ex.mean_of_shards.slip(
    "The weights are all right, but they belong to other shards: first shard, first number."
)
def turned_round(grads_RP, rows_R):
    rows = torch.tensor(rows_R[::-1], dtype=grads_RP.dtype)
    return rows @ grads_RP / rows.sum()


@ex.mean_of_shards.slip(told="changes its input in place")
def in_place(grads_RP, rows_R):
    rows = torch.tensor(rows_R, dtype=grads_RP.dtype)
    grads_RP *= rows[:, None]
    return grads_RP.sum(0) / rows.sum()


@ex.mean_of_shards.slip(
    "Right to 7 digits, and float64 has 15: something on the way was float32. Keep the dtype."
)
def weights_in_float32(grads_RP, rows_R):
    weights = torch.tensor(rows_R) / sum(rows_R)
    return weights.to(grads_RP.dtype) @ grads_RP


@ex.mean_of_shards.slip(
    "The result has the gradients' dtype, float32 here: rows_R in that dtype, too."
)
def always_in_float64(grads_RP, rows_R):
    rows = torch.tensor(rows_R, dtype=torch.float64)
    return rows @ grads_RP.double() / rows.sum()


@ex.mean_of_shards.slip(
    "This is the gradient of the largest shard: all shards count, by their rows."
)
def largest_shard(grads_RP, rows_R):
    return grads_RP[rows_R.index(max(rows_R))].clone()


# ---- average_gradients ----


def _each(model):
    for p in model.parameters():
        if p.requires_grad:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            yield p


@ex.average_gradients.slip(
    "This is the sum over all ranks: divide by their number, after the sum has come."
)
def forgot_to_divide(model):
    for p in _each(model):
        dist.all_reduce(p.grad)


@ex.average_gradients.slip("Nothing was exchanged: each rank has its own gradient.")
def does_nothing(model):
    list(_each(model))


@ex.average_gradients.slip(
    "Each rank divided its own gradient; the sum never arrived. An asynchronous call needs its wait()."
)
def never_waits(model):
    for p in _each(model):
        dist.all_reduce(p.grad, async_op=True)
        p.grad /= dist.get_world_size()


@ex.average_gradients.slip(
    "This is the sum over all ranks: divide by their number, after the sum has come."
)
def divides_too_early(model):
    works = []
    for p in _each(model):
        works.append(dist.all_reduce(p.grad, async_op=True))
        p.grad /= dist.get_world_size()
    for work in works:
        work.wait()


@ex.average_gradients.slip("Divided twice by the number of ranks.")
def divides_twice(model):
    for p in _each(model):
        p.grad /= dist.get_world_size()
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()


@ex.average_gradients.slip(
    "The ranks hang: a rank skips the gradient that it does not have. It brings zeros."
)
def skips_none(model):
    for p in model.parameters():
        if p.grad is not None:
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()


@ex.average_gradients.slip(
    "Only rank 0 has the mean: dist.reduce serves one rank, dist.all_reduce all."
)
def reduces_to_one(model):
    for p in _each(model):
        dist.reduce(p.grad, dst=0)
        if dist.get_rank() == 0:
            p.grad /= dist.get_world_size()


@ex.average_gradients.slip("The weights changed: average the gradients, p.grad, not p.")
@torch.no_grad()
def averages_the_weights(model):
    for p in model.parameters():
        dist.all_reduce(p.data)
        p.data /= dist.get_world_size()


@ex.average_gradients.slip(
    "Only matrices were averaged: does the loop reach the biases?"
)
def weights_only(model):
    for p in _each(model):
        if p.ndim > 1:
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()


@ex.average_gradients.slip(
    "Divided by 3, whatever the number of ranks: dist.get_world_size()."
)
def three_forever(model):
    for p in _each(model):
        dist.all_reduce(p.grad)
        p.grad /= 3


@ex.average_gradients.slip(
    "A frozen parameter got a gradient, and weight decay would now move it. Skip those with requires_grad=False."
)
def thaws(model):
    for p in model.parameters():
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()


@ex.average_gradients.slip(
    "The ranks hang: a sum over all ranks is called by all of them."
)
def only_rank_0_calls(model):
    for p in _each(model):
        if dist.get_rank() == 0:
            dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()


@ex.average_gradients.slip(told="still running")
def never_ends(model):
    while True:
        pass


@ex.average_gradients.slip(told="init_process_group")
def real_calls(model):
    from torch.distributed.distributed_c10d import all_reduce

    for p in _each(model):
        all_reduce(p.grad)


@ex.average_gradients.slip(
    "The ranks hang: the missing gradient leaves later than on the others. Bring zeros in that parameter's own place."
)
def missing_ones_last(model):
    parts = list(model.parameters())
    here = [p for p in parts if p.grad is not None]
    for p in here + [p for p in parts if p.grad is None and p.requires_grad]:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()


@ex.average_gradients.slip(
    "Rank 1's other gradients are lost: only the missing one is zeros."
)
def zeros_for_all(model):
    parts = [p for p in model.parameters() if p.requires_grad]
    if any(p.grad is None for p in parts):
        for p in parts:
            p.grad = torch.zeros_like(p)
    course.average_gradients(model)


@ex.average_gradients.slip(
    "torch.empty_like holds whatever was there before: torch.zeros_like."
)
def empty_for_missing(model):
    for p in model.parameters():
        if p.requires_grad:
            if p.grad is None:
                p.grad = torch.empty_like(p)
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()


@ex.average_gradients.slip(
    "Divided by the number of ranks that have a gradient: the mean is over all ranks."
)
def mean_of_those_who_have_one(model):
    for p in model.parameters():
        if p.requires_grad:
            have = torch.tensor(float(p.grad is not None), dtype=p.dtype)
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            dist.all_reduce(p.grad)
            dist.all_reduce(have)
            p.grad /= have


@ex.average_gradients.slip("The loop ends at the frozen parameter: skip it and go on.")
def stops_at_frozen(model):
    for p in model.parameters():
        if not p.requires_grad:
            break
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()


@ex.average_gradients.slip(
    "The loop looks at two parameters only: a frozen one moves the others back."
)
def first_two(model):
    for p in list(model.parameters())[:2]:
        if p.requires_grad:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()


@ex.average_gradients.slip(
    "A frozen parameter stays as it is, and so does its gradient: not None."
)
def empties_frozen(model):
    for p in model.parameters():
        if not p.requires_grad:
            p.grad = None
    course.average_gradients(model)


@ex.average_gradients.slip(
    "A frozen parameter stays as it is, and so does its gradient: no exchange."
)
def exchanges_frozen(model):
    for p in model.parameters():
        if p.requires_grad and p.grad is None:
            p.grad = torch.zeros_like(p)
        if p.grad is not None:
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()


@ex.average_gradients.slip(
    "Right to 7 digits, and float64 has 15: something on the way was float32. Keep the dtype."
)
def travels_in_float32(model):
    for p in _each(model):
        g = p.grad.float()
        dist.all_reduce(g)
        p.grad = (g / dist.get_world_size()).to(p.dtype)


@ex.average_gradients.slip(
    "Every rank has rank 0's gradient: a broadcast copies, all_reduce adds."
)
def broadcasts(model):
    for p in _each(model):
        dist.broadcast(p.grad, src=0)


# ---- synchronise ----


@ex.synchronise.slip(
    "The parameters are equal, the buffers are not: model.buffers() holds, say, the running means of batch norm in every inner module."
)
@torch.no_grad()
def parameters_only(model):
    for p in model.parameters():
        dist.broadcast(p, src=0)


@ex.synchronise.slip(
    "The parameters are equal, the buffers are not: model.buffers() holds, say, the running means of batch norm in every inner module."
)
@torch.no_grad()
def float_parameters(model):
    for p in model.parameters():
        dist.broadcast(p.data, src=0)


@ex.synchronise.slip(
    "The mean of all starts: equal, but its spread is smaller than any start's by the root of the number of ranks. Copy rank 0's."
)
@torch.no_grad()
def averages(model):
    for p in model.parameters():
        dist.all_reduce(p)
        p /= dist.get_world_size()
    for x in model.buffers():
        dist.broadcast(x, src=0)


@ex.synchronise.slip(
    "Each rank still has its own start: nothing was written into the parameters."
)
def seeds_too_late(model):
    torch.manual_seed(0)


@ex.synchronise.slip(
    "The ranks hang: each broadcasts from itself. All name the same src, rank 0."
)
@torch.no_grad()
def from_itself(model):
    for x in (*model.parameters(), *model.buffers()):
        dist.broadcast(x, src=dist.get_rank())


@ex.synchronise.slip(
    "The ranks hang: a broadcast is called by all, those who receive as well."
)
@torch.no_grad()
def only_rank_0_sends(model):
    if dist.get_rank() == 0:
        for x in (*model.parameters(), *model.buffers()):
            dist.broadcast(x, src=0)


@ex.synchronise.slip("These are the last rank's: src=0.")
@torch.no_grad()
def from_the_last(model):
    for x in (*model.parameters(), *model.buffers()):
        dist.broadcast(x, src=dist.get_world_size() - 1)


@ex.synchronise.slip(
    "The parameters are new objects: an optimizer that was made before still moves the old ones. Fill them in place."
)
@torch.no_grad()
def new_parameters(model):
    for module in model.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            dist.broadcast(p, src=0)
            setattr(module, name, torch.nn.Parameter(p.clone()))
    for x in model.buffers():
        dist.broadcast(x, src=0)


@ex.synchronise.slip(
    "The ranks agree, but not on rank 0's weights: they were drawn anew. Copy them."
)
@torch.no_grad()
def same_seed_again(model):
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))


@ex.synchronise.slip(
    "Each rank still has its own start: nothing was written into the parameters."
)
@torch.no_grad()
def a_copy_of_each(model):
    for x in (*model.parameters(), *model.buffers()):
        dist.broadcast(x.clone(), src=0)


@ex.synchronise.slip(
    "Frozen parameters, too: nobody trains them, but each rank drew its own."
)
@torch.no_grad()
def skips_frozen(model):
    for p in model.parameters():
        if p.requires_grad:
            dist.broadcast(p, src=0)
    for x in model.buffers():
        dist.broadcast(x, src=0)


@ex.synchronise.slip(
    "The parameters are equal, the buffers are not: model.buffers() holds, say, the running means of batch norm in every inner module."
)
@torch.no_grad()
def outer_buffers(model):
    for x in (*model.parameters(), *model.buffers(recurse=False)):
        dist.broadcast(x, src=0)


@ex.synchronise.slip(
    "state_dict() leaves out buffers with persistent=False; model.buffers() has all."
)
@torch.no_grad()
def saved_state_only(model):
    for x in model.state_dict().values():
        dist.broadcast(x, src=0)


@ex.synchronise.slip(
    "Right to 7 digits, and float64 has 15: something on the way was float32. Keep the dtype."
)
@torch.no_grad()
def through_float32(model):
    for x in (*model.parameters(), *model.buffers()):
        narrow = x.float()
        dist.broadcast(narrow, src=0)
        x.copy_(narrow)


@ex.synchronise.slip("A frozen parameter learns now: leave requires_grad as it is.")
def thaws_all(model):
    course.synchronise(model)
    for p in model.parameters():
        p.requires_grad_(True)


@ex.synchronise.slip(
    "Parameters are leaves that require grad: fill them under torch.no_grad()."
)
def without_no_grad(model):
    for x in (*model.parameters(), *model.buffers()):
        dist.broadcast(x, src=0)


@ex.synchronise.slip(
    "Buffers of whole numbers stay each rank's own: batch norm counts its batches in one."
)
@torch.no_grad()
def floats_only(model):
    for x in (*model.parameters(), *model.buffers()):
        if x.is_floating_point():
            dist.broadcast(x, src=0)


@ex.synchronise.slip("The weights stay frozen: leave requires_grad as it is.")
def freezes_all(model):
    for p in model.parameters():
        p.requires_grad_(False)
    course.synchronise(model)


# ---- shard_order ----


def _order(N, seed):
    return torch.randperm(N, generator=torch.Generator().manual_seed(seed))


def _extended(order, world):
    whole = -(-len(order) // world) * world
    return order.repeat(-(-whole // len(order)))[:whole]


@ex.shard_order.slip("Every rank has the same rows: the work is done three times.")
def same_shard(N, rank, world, seed=0, epoch=0):
    return _extended(_order(N, seed + epoch), world)[: -(-N // world)]


@ex.shard_order.slip("Every rank has all rows: the work is done three times.")
def all_rows(N, rank, world, seed=0, epoch=0):
    return _order(N, seed + epoch)


@ex.shard_order.slip(
    "Neighbouring rows in one shard: a right split, but not this one. Take every world-th, so that one step's batches are neighbours in the order."
)
def blocks(N, rank, world, seed=0, epoch=0):
    return _extended(_order(N, seed + epoch), world).chunk(world)[rank]


@ex.shard_order.slip(
    "Each rank shuffles in its own way: some rows are seen twice, some never. All use the same seed."
)
def own_shuffle(N, rank, world, seed=0, epoch=0):
    return _extended(_order(N, seed + epoch + rank), world)[rank::world]


@ex.shard_order.slip("The epoch has no effect: every epoch has the same order.")
def same_every_epoch(N, rank, world, seed=0, epoch=0):
    return _extended(_order(N, seed), world)[rank::world]


@ex.shard_order.slip(
    "Ranks have unequal numbers of rows: the one with fewer steps ends its epoch, and the others wait for it for ever. Extend the order by its own beginning."
)
def uneven(N, rank, world, seed=0, epoch=0):
    return _order(N, seed + epoch)[rank::world]


@ex.shard_order.slip("The tail is dropped: extend instead, so that every row is seen.")
def drops_the_tail(N, rank, world, seed=0, epoch=0):
    return _order(N, seed + epoch)[: N // world * world][rank::world]


@ex.shard_order.slip(
    "It uses torch's global generator: every rank's dropout would change, or be the same. Make a torch.Generator() of its own."
)
def seeds_the_world(N, rank, world, seed=0, epoch=0):
    torch.manual_seed(seed + epoch)
    return _extended(torch.randperm(N), world)[rank::world]


@ex.shard_order.slip("The rows are not shuffled.")
def unshuffled(N, rank, world, seed=0, epoch=0):
    return _extended(torch.arange(N), world)[rank::world]


@ex.shard_order.slip(
    "The order was extended once only: with fewer rows than ranks it is repeated more than once."
)
def extends_once(N, rank, world, seed=0, epoch=0):
    order = _order(N, seed + epoch)
    missing = -N % world
    return torch.cat([order, order[:missing]])[rank::world]


@ex.shard_order.slip("The missing entry is the first of the order, not the last again.")
def repeats_the_last(N, rank, world, seed=0, epoch=0):
    order = _order(N, seed + epoch)
    return torch.cat([order, order[-1:].repeat(-N % world)])[rank::world]


@ex.shard_order.slip(
    "A right deal of another order. The order here: torch.randperm(N, generator=...), its generator seeded with seed + epoch."
)
def other_seed(N, rank, world, seed=0, epoch=0):
    return _extended(_order(N, seed * (epoch + 1)), world)[rank::world]


@ex.shard_order.slip("It returns a list; others split it and index with it: a tensor.")
def a_list(N, rank, world, seed=0, epoch=0):
    return _extended(_order(N, seed + epoch), world)[rank::world].tolist()


@ex.shard_order.slip(
    "One row too many where N is a multiple of world: nothing is added there."
)
def always_extends(N, rank, world, seed=0, epoch=0):
    order = _order(N, seed + epoch)
    return torch.cat([order, order[: world - N % world]])[rank::world]


@ex.shard_order.slip("seed has no effect: the generator is seeded with seed + epoch.")
def epoch_alone(N, rank, world, seed=0, epoch=0):
    return _extended(_order(N, epoch), world)[rank::world]


@ex.shard_order.slip(
    "The world starts shuffled: rank r has places r, r + world ... of the order, not r + 1."
)
def one_place_on(N, rank, world, seed=0, epoch=0):
    return _extended(_order(N, seed + epoch), world)[(rank + 1) % world :: world]


# ---- mean_over_ranks ----


@ex.mean_over_ranks.slip(
    "The mean of the ranks' means: one row counted as much as twenty."
)
def mean_of_means(total, count):
    mean = torch.tensor(total / count, dtype=torch.float64)
    dist.all_reduce(mean)
    return (mean / dist.get_world_size()).item()


@ex.mean_over_ranks.slip("This rank's own mean: nothing was exchanged.")
def own_mean(total, count):
    return total / count


@ex.mean_over_ranks.slip("The totals were added up, the counts were not.")
def own_count(total, count):
    total = torch.tensor(total, dtype=torch.float64)
    dist.all_reduce(total)
    return (total / count).item()


@ex.mean_over_ranks.slip("The total over all ranks: divide by the number of rows.")
def total_only(total, count):
    total = torch.tensor(total, dtype=torch.float64)
    dist.all_reduce(total)
    return total.item()


@ex.mean_over_ranks.slip(
    "float32 keeps 7 digits, and whole numbers up to 16,777,216 only: use dtype=torch.float64."
)
def in_float32(total, count):
    both = torch.tensor([total, float(count)])
    dist.all_reduce(both)
    return (both[0] / both[1]).item()


@ex.mean_over_ranks.slip("Only rank 0 has the mean: dist.all_reduce serves all ranks.")
def for_rank_0(total, count):
    both = torch.tensor([total, count], dtype=torch.float64)
    dist.reduce(both, dst=0)
    return (both[0] / both[1]).item()


@ex.mean_over_ranks.slip("Divided by the number of ranks, not by the number of rows.")
def by_ranks(total, count):
    total = torch.tensor(total, dtype=torch.float64)
    dist.all_reduce(total)
    return (total / dist.get_world_size()).item()


@ex.mean_over_ranks.slip(
    "The ranks hang: a rank without rows makes the call, too, and brings 0 and 0."
)
def skips_the_empty(total, count):
    if count == 0:
        return 0.0
    return course.mean_over_ranks(total, count)


@ex.mean_over_ranks.slip("The totals were cut to whole numbers: dtype=torch.float64.")
def whole_totals(total, count):
    both = torch.tensor([int(total), count], dtype=torch.float64)
    dist.all_reduce(both)
    return (both[0] / both[1]).item()


@ex.mean_over_ranks.slip(
    "The totals went through float32, which keeps 7 digits: use dtype=torch.float64."
)
def total_in_float32(total, count):
    t, c = torch.tensor(float(total)), torch.tensor(count)
    dist.all_reduce(t)
    dist.all_reduce(c)
    return t.item() / c.item()


@ex.mean_over_ranks.slip("Divided once more, by the number of ranks.")
def divides_again(total, count):
    return course.mean_over_ranks(total, count) / dist.get_world_size()


@ex.mean_over_ranks.slip("The mean was cut to a whole number: / divides, // cuts.")
def floor_division(total, count):
    both = torch.tensor([total, count], dtype=torch.float64)
    dist.all_reduce(both)
    return (both[0] // both[1]).item()


@ex.mean_over_ranks.slip("The mean was rounded: return it whole.")
def rounded(total, count):
    return round(course.mean_over_ranks(total, count), 3)


# ---- parallel_step ----


def _step(model, optimizer, X, y, factor=1.0, average=True, zero=True, reduction="sum",
          early=False):  # fmt: skip
    rows = torch.tensor(float(len(y)), dtype=torch.float64)
    dist.all_reduce(rows)
    total = F.cross_entropy(model(X), y, reduction=reduction)
    if zero:
        optimizer.zero_grad()
    (total * factor / (rows.item() if reduction == "sum" else 1)).backward()
    if early:
        optimizer.step()
    if average:
        course.average_gradients(model)
    if not early:
        optimizer.step()
    own = (
        F.cross_entropy(model(X), y, reduction="sum").item() if early else total.item()
    )
    own = own * len(y) if reduction == "mean" else own
    return course.mean_over_ranks(own, len(y))


@ex.parallel_step.slip(
    "A mean of means: a shard of 1 row pulls as hard as one of 5. Divide each rank's sum by the rows of all ranks."
)
def mean_of_ragged(model, optimizer, X_BD, y_B):
    return _step(model, optimizer, X_BD, y_B, reduction="mean")


@ex.parallel_step.slip(
    "The step is three times too short: average_gradients divides by the number of ranks already."
)
def divided_twice(model, optimizer, X_BD, y_B):
    return _step(model, optimizer, X_BD, y_B)


@ex.parallel_step.slip(
    "The ranks' gradients were added up, not averaged: the step is three times too long."
)
def added_up(model, optimizer, X_BD, y_B):
    return _step(model, optimizer, X_BD, y_B, factor=dist.get_world_size() ** 2)


@ex.parallel_step.slip(
    "Each rank went its own way: average before the optimizer's step."
)
def no_exchange(model, optimizer, X_BD, y_B):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(X_BD), y_B)
    loss.backward()
    optimizer.step()
    return course.mean_over_ranks(loss.item() * len(y_B), len(y_B))


@ex.parallel_step.slip("Old gradients are still there: optimizer.zero_grad().")
def keeps_gradients(model, optimizer, X_BD, y_B):
    return _step(model, optimizer, X_BD, y_B, dist.get_world_size(), zero=False)


@ex.parallel_step.slip(
    "The weights are right. The loss to return is the mean over all ranks' rows, alike on every rank: mean_over_ranks."
)
def own_loss(model, optimizer, X_BD, y_B):
    loss = F.cross_entropy(model(X_BD), y_B).item()
    _step(model, optimizer, X_BD, y_B, dist.get_world_size())
    return loss


@ex.parallel_step.slip(told="returns nothing")
def no_loss(model, optimizer, X_BD, y_B):
    _step(model, optimizer, X_BD, y_B, dist.get_world_size())


@ex.parallel_step.slip("The ranks hang: a rank without rows makes every call, too.")
def skips_an_empty_shard(model, optimizer, X_BD, y_B):
    if len(y_B) == 0:
        return 0.0
    return _step(model, optimizer, X_BD, y_B, dist.get_world_size())


@ex.parallel_step.slip(
    "The loss is a sum over rows: the step is too long by their number."
)
def sum_of_losses(model, optimizer, X_BD, y_B):
    total = F.cross_entropy(model(X_BD), y_B, reduction="sum")
    optimizer.zero_grad()
    (total * dist.get_world_size()).backward()
    course.average_gradients(model)
    optimizer.step()
    return course.mean_over_ranks(total.item(), len(y_B))


@ex.parallel_step.slip(
    "The weights have not moved: is there a gradient when optimizer.step() comes?"
)
def forgets_to_step(model, optimizer, X_BD, y_B):
    total = F.cross_entropy(model(X_BD), y_B, reduction="sum")
    return course.mean_over_ranks(total.item(), len(y_B))


@ex.parallel_step.slip(
    "Right to 7 digits, and float64 has 15: something on the way was float32. Keep the dtype."
)
def share_in_float32(model, optimizer, X_BD, y_B):
    rows = torch.tensor(float(len(y_B)))
    dist.all_reduce(rows)
    factor = torch.tensor(float(dist.get_world_size())) / rows
    total = F.cross_entropy(model(X_BD), y_B, reduction="sum")
    optimizer.zero_grad()
    (total * factor).backward()
    course.average_gradients(model)
    optimizer.step()
    return course.mean_over_ranks(total.item(), len(y_B))


@ex.parallel_step.slip(
    "Right, and no work is shared: each rank computes on the rows of others. Its own are enough; gradients are what travels."
)
def gathers_the_rows(model, optimizer, X_BD, y_B):
    parts = [None] * dist.get_world_size()
    dist.all_gather_object(parts, (X_BD, y_B))
    X_ND, y_N = (torch.cat(part) for part in zip(*parts))
    loss = F.cross_entropy(model(X_ND), y_N)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@ex.parallel_step.slip(
    "Right, and more travels than the gradients and a few numbers: after one synchronise, equal steps keep equal models equal."
)
def synchronises_each_step(model, optimizer, X_BD, y_B):
    course.synchronise(model)
    return course.parallel_step(model, optimizer, X_BD, y_B)


@ex.parallel_step.slip("The model is left in eval(): a step trains.")
def leaves_eval(model, optimizer, X_BD, y_B):
    loss = course.parallel_step(model, optimizer, X_BD, y_B)
    model.eval()
    return loss


@ex.parallel_step.slip(
    "The forward pass ran in eval(): dropout and batch norm would not train."
)
def eval_inside(model, optimizer, X_BD, y_B):
    model.eval()
    loss = course.parallel_step(model, optimizer, X_BD, y_B)
    model.train()
    return loss


@ex.parallel_step.slip(
    "The loss after the step: it is that of the step's own forward pass."
)
def loss_afterwards(model, optimizer, X_BD, y_B):
    course.parallel_step(model, optimizer, X_BD, y_B)
    total = F.cross_entropy(model(X_BD), y_B, reduction="sum")
    return course.mean_over_ranks(total.item(), len(y_B))


@ex.parallel_step.slip(
    "The weights have not moved: is there a gradient when optimizer.step() comes?"
)
def zero_too_late(model, optimizer, X_BD, y_B):
    total = F.cross_entropy(model(X_BD), y_B, reduction="sum")
    total.backward()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    return course.mean_over_ranks(total.item(), len(y_B))


@ex.parallel_step.slip(
    "The momentum has no effect: let optimizer.step() make the step."
)
def moves_by_hand(model, optimizer, X_BD, y_B):
    before = [p.detach().clone() for p in model.parameters()]
    loss = course.parallel_step(model, optimizer, X_BD, y_B)
    with torch.no_grad():
        for p, old in zip(model.parameters(), before):
            p.copy_(old - optimizer.param_groups[0]["lr"] * p.grad)
    return loss


# ---- make_buckets ----


def _fill(numbers, sizes, cap, after=False, strict=False):
    buckets, held = [], 0
    for i in numbers:
        full = held >= cap if after else held + sizes[i] > cap
        full = full or (strict and held + sizes[i] >= cap)
        if not buckets or full:
            buckets.append([])
            held = 0
        buckets[-1].append(i)
        held += sizes[i]
    return buckets


@ex.make_buckets.slip("Forwards: backward finishes the last parameters first.")
def forwards(sizes, cap):
    return _fill(range(len(sizes)), sizes, cap)


@ex.make_buckets.slip(
    "Full means full: close a bucket before it would hold more than cap."
)
def overfull(sizes, cap):
    buckets, held = [[]], 0
    for i in reversed(range(len(sizes))):
        buckets[-1].append(i)
        held += sizes[i]
        if held > cap:
            buckets.append([])
            held = 0
    return [b for b in buckets if b]


@ex.make_buckets.slip("What just fits belongs in: compare with >, not >=.")
def too_careful(sizes, cap):
    return _fill(reversed(range(len(sizes))), sizes, cap, strict=True)


@ex.make_buckets.slip("The last bucket got lost.")
def loses_the_last(sizes, cap):
    return _fill(reversed(range(len(sizes))), sizes, cap)[:-1]


@ex.make_buckets.slip("A parameter larger than cap travels alone: it was left out.")
def drops_the_large(sizes, cap):
    numbers = [i for i in reversed(range(len(sizes))) if sizes[i] <= cap]
    return _fill(numbers, sizes, cap)


@ex.make_buckets.slip(
    "An empty bucket leaves first: open one only when there is something to put in."
)
def opens_empty(sizes, cap):
    buckets, room = [[]], cap
    for i in reversed(range(len(sizes))):
        if sizes[i] > room:
            buckets.append([])
            room = cap
        buckets[-1].append(i)
        room -= sizes[i]
    return buckets if sizes else []


@ex.make_buckets.slip("A later parameter went into an earlier bucket: keep the order.")
def packs_better(sizes, cap):
    buckets, rooms = [], []
    for i in reversed(range(len(sizes))):
        k = next((k for k, room in enumerate(rooms) if sizes[i] <= room), None)
        if k is None:
            buckets.append([])
            rooms.append(cap)
            k = -1
        buckets[k].append(i)
        rooms[k] -= sizes[i]
    return buckets


@ex.make_buckets.slip("Inside a bucket, too, the last parameter comes first.")
def sorted_inside(sizes, cap):
    return [sorted(b) for b in _fill(reversed(range(len(sizes))), sizes, cap)]


@ex.make_buckets.slip(
    "No bucket is open yet when the first parameter comes, whatever its size."
)
def opens_by_size_alone(sizes, cap):
    buckets, room = [], 0
    for i in reversed(range(len(sizes))):
        if sizes[i] > room:
            buckets.append([])
            room = cap
        buckets[-1].append(i)
        room -= sizes[i]
    return buckets


@ex.make_buckets.slip(
    "Sorted by size: backward finishes parameters in the model's order, reversed."
)
def largest_first(sizes, cap):
    numbers = sorted(range(len(sizes)), key=lambda i: (-sizes[i], -i))
    return _fill(numbers, sizes, cap)


@ex.make_buckets.slip("Cut into groups of equal number: cap is a number of bytes.")
def equal_counts(sizes, cap):
    numbers = list(reversed(range(len(sizes))))
    each = max(1, cap // max(sizes, default=1))
    return [numbers[i : i + each] for i in range(0, len(numbers), each)]


@ex.make_buckets.slip("These are bytes; a bucket lists its parameters' numbers.")
def sizes_for_numbers(sizes, cap):
    buckets = _fill(reversed(range(len(sizes))), sizes, cap)
    return [[sizes[i] for i in bucket] for bucket in buckets]


# ---- Overlapped ----


class _Base(course.Overlapped):
    pass


@ex.Overlapped.slip(
    "Each rank has its own gradient still: in finish, put the means into p.grad."
)
class never_puts_back(_Base):
    def finish(self):
        while len(self.flying) < len(self.buckets):
            self.send()
        for _, work in self.flying:
            work.wait()
        self.begin()


@ex.Overlapped.slip(
    "This is the sum over ranks: divide by their number, after wait() (what you write before it is overwritten)."
)
class forgets_to_divide(_Base):
    def finish(self):
        while len(self.flying) < len(self.buckets):
            self.send()
        for bucket, (flat, work) in zip(self.buckets, self.flying):
            work.wait()
            for p, g in zip(bucket, flat.split([p.numel() for p in bucket])):
                p.grad = g.view_as(p)
        self.begin()


@ex.Overlapped.slip("Nothing was summed: wait for the work before you read its tensor.")
class forgets_to_wait(_Base):
    def finish(self):
        while len(self.flying) < len(self.buckets):
            self.send()
        for bucket, (flat, _) in zip(self.buckets, self.flying):
            flat /= dist.get_world_size()
            for p, g in zip(bucket, flat.split([p.numel() for p in bucket])):
                p.grad = g.view_as(p)
        self.begin()


@ex.Overlapped.slip(
    "Backward stands still while a bucket travels: async_op=True, and wait in finish."
)
class waits_in_backward(_Base):
    def send(self):
        bucket = self.buckets[len(self.flying)]
        flat = torch.cat([p.grad.flatten() for p in bucket])
        dist.all_reduce(flat)

        class Done:
            def wait(self):
                pass

        self.flying.append((flat, Done()))


@ex.Overlapped.slip(
    "Nothing leaves before backward is over. `arrived` should send each bucket as soon as it is full."
)
class all_at_the_end(_Base):
    def arrived(self, number):
        pass


@ex.Overlapped.slip(
    "One message a bucket: flatten its gradients, put them into one tensor with torch.cat, sum that."
)
class one_by_one(_Base):
    def send(self):
        bucket = self.buckets[len(self.flying)]
        works = [dist.all_reduce(p.grad, async_op=True) for p in bucket]

        class All:
            def wait(self):
                for work in works:
                    work.wait()

        self.flying.append((bucket, All()))

    def finish(self):
        while len(self.flying) < len(self.buckets):
            self.send()
        for bucket, work in self.flying:
            work.wait()
            for p in bucket:
                p.grad /= dist.get_world_size()
        self.begin()


@ex.Overlapped.slip(
    "The first step was right. Is everything set back after a step? self.begin() at the end of finish."
)
class never_begins_again(_Base):
    def __init__(self, model, cap):
        self.begun = False
        super().__init__(model, cap)

    def begin(self):
        if not self.begun:
            super().begin()
        self.begun = True


@ex.Overlapped.slip(
    "The ranks hang: buckets leave as they fill, which differs from rank to rank. None leaves before the one ahead of it."
)
class as_they_come(_Base):
    def begin(self):
        self.missing, self.flying, self.left = [len(b) for b in self.buckets], [], {}

    def arrived(self, number):
        if self.sync:
            self.missing[number] -= 1
            if self.missing[number] == 0:
                self.let(number)

    def let(self, number):
        bucket = self.buckets[number]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([g.flatten() for g in grads])
        self.left[number] = flat, dist.all_reduce(flat, async_op=True)

    def finish(self):
        for number in range(len(self.buckets)):
            if number not in self.left:
                self.let(number)
        self.flying = [self.left[i] for i in range(len(self.buckets))]
        super().finish()


@ex.Overlapped.slip(told="a branch it did not use")
class waits_for_all_gradients(_Base):
    def finish(self):
        for bucket, (flat, work) in zip(self.buckets, self.flying):
            work.wait()
            flat /= dist.get_world_size()
            for p, g in zip(bucket, flat.split([p.numel() for p in bucket])):
                p.grad = g.view_as(p)
        self.begin()


@ex.Overlapped.slip("After finish every parameter has a gradient.")
class throws_them_away(_Base):
    def finish(self):
        super().finish()
        for p in self.model.parameters():
            p.grad = None


@ex.Overlapped.slip("Inside no_sync nothing travels.")
class loud(_Base):
    @contextmanager
    def no_sync(self):
        yield
        self.finish()


@ex.Overlapped.slip(
    "Backward stands still while a bucket travels: async_op=True, and wait in finish."
)
class waits_at_once(_Base):
    def send(self):
        super().send()
        self.flying[-1][1].wait()


@ex.Overlapped.slip(
    "A full bucket stays, with none ahead of it. It should leave with the gradient that fills it."
)
class all_at_the_last_gradient(_Base):
    def arrived(self, number):
        if self.sync:
            self.missing[number] -= 1
            while sum(self.missing) == 0 and len(self.flying) < len(self.buckets):
                self.send()


@ex.Overlapped.slip(
    "Nothing leaves before backward is over. Inside no_sync nothing is counted, either."
)
class counts_quiet_passes(_Base):
    def arrived(self, number):
        self.missing[number] -= 1
        while self.sync and len(self.flying) < len(self.buckets):
            if self.missing[len(self.flying)] != 0:
                return
            self.send()


@ex.Overlapped.slip(
    "The first step was right. Is everything set back after a step? self.begin() at the end of finish."
)
class forgets_the_count(_Base):
    def finish(self):
        begin, self.begin = self.begin, lambda: None
        super().finish()
        self.begin, self.flying = begin, []


@ex.Overlapped.slip(
    "A full bucket stays, with none ahead of it. One gradient can make two buckets ready, that which it fills and one that was full before: `while`, not `if`."
)
class sends_one_at_most(_Base):
    def arrived(self, number):
        if self.sync:
            self.missing[number] -= 1
            if number == len(self.flying) and self.missing[number] == 0:
                self.send()


@ex.Overlapped.slip(
    "A bucket left before it was full: `send` takes the next in order, which need not be the one that has just filled."
)
class sends_whatever_is_next(_Base):
    def arrived(self, number):
        if self.sync:
            self.missing[number] -= 1
            if self.missing[number] == 0:
                self.send()


@ex.Overlapped.slip(
    "A bucket left before it was full: `send` takes the next in order, which need not be the one that has just filled."
)
class sends_at_the_first_gradient(_Base):
    def arrived(self, number):
        if self.sync:
            self.missing[number] -= 1
            if number == len(self.flying):
                self.send()


@ex.Overlapped.slip(
    "Every gradient is half of what it should be: divide by the number of ranks, once."
)
class halves(_Base):
    def finish(self):
        super().finish()
        for p in self.model.parameters():
            p.grad /= 2


@ex.Overlapped.slip(
    "The mean was added to the rank's own gradient: it takes its place."
)
class adds_the_mean(_Base):
    def finish(self):
        own = [torch.zeros_like(p) if p.grad is None else p.grad.clone()
               for p in self.model.parameters()]  # fmt: skip
        super().finish()
        for p, grad in zip(self.model.parameters(), own):
            p.grad = p.grad + grad


@ex.Overlapped.slip(
    "The pieces of the flat tensor went to other places: split in the order of the bucket, and view_as each parameter."
)
class mixes_them_up(_Base):
    def finish(self):
        super().finish()
        for p in self.model.parameters():
            p.grad = p.grad.flip(0)


@ex.Overlapped.slip(
    "torch.empty_like holds whatever was there before: torch.zeros_like."
)
class empty_for_missing_ones(_Base):
    def send(self):
        bucket = self.buckets[len(self.flying)]
        grads = [torch.empty_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([grad.flatten() for grad in grads])
        self.flying.append((flat, dist.all_reduce(flat, async_op=True)))


# ---- accumulate ----


def _accumulate(parallel, optimizer, batches, share=True, quiet=-1, zero=True):
    if zero:
        optimizer.zero_grad()
    k = len(batches)
    with parallel.no_sync():
        for X, y in batches[:quiet]:
            (F.cross_entropy(parallel.model(X), y) / (k if share else 1)).backward()
    for X, y in batches[quiet:]:
        (F.cross_entropy(parallel.model(X), y) / (k if share else 1)).backward()
    parallel.finish()
    optimizer.step()


@ex.accumulate.slip(
    "The step is 3 times too long: divide each loss by the number of micro-batches."
)
def sums(parallel, optimizer, batches):
    _accumulate(parallel, optimizer, batches, share=False)


@ex.accumulate.slip(
    "A step talks once, whatever the number of micro-batches: all but the last run inside parallel.no_sync()."
)
def talks_each_time(parallel, optimizer, batches):
    optimizer.zero_grad()
    total = [0.0 for _ in parallel.model.parameters()]
    for X, y in batches:
        parallel.model.zero_grad()
        (F.cross_entropy(parallel.model(X), y) / len(batches)).backward()
        parallel.finish()
        total = [t + p.grad for t, p in zip(total, parallel.model.parameters())]
    for p, grad in zip(parallel.model.parameters(), total):
        p.grad = grad
    optimizer.step()


@ex.accumulate.slip(
    "The last micro-batch is quiet too: nothing overlaps, everything waits for finish. Run it outside no_sync."
)
def all_quiet(parallel, optimizer, batches):
    optimizer.zero_grad()
    with parallel.no_sync():
        for X, y in batches:
            (F.cross_entropy(parallel.model(X), y) / len(batches)).backward()
    parallel.finish()
    optimizer.step()


@ex.accumulate.slip(
    "Old gradients are still there: optimizer.zero_grad(), once, at the beginning."
)
def never_zero(parallel, optimizer, batches):
    _accumulate(parallel, optimizer, batches, zero=False)


@ex.accumulate.slip("Only the last micro-batch counted.")
def zero_each_time(parallel, optimizer, batches):
    with parallel.no_sync():
        for X, y in batches[:-1]:
            optimizer.zero_grad()
            (F.cross_entropy(parallel.model(X), y) / len(batches)).backward()
    optimizer.zero_grad()
    X, y = batches[-1]
    (F.cross_entropy(parallel.model(X), y) / len(batches)).backward()
    parallel.finish()
    optimizer.step()


@ex.accumulate.slip(
    "The right step, and no accumulation: one micro-batch at a time, forward and backward, so that only its activations are held."
)
def one_big_batch(parallel, optimizer, batches):
    X_BD, y_B = (torch.cat(part) for part in zip(*batches))
    optimizer.zero_grad()
    F.cross_entropy(parallel.model(X_BD), y_B).backward()
    parallel.finish()
    optimizer.step()


@ex.accumulate.slip(
    "The right step, and no accumulation: one micro-batch at a time, forward and backward, so that only its activations are held."
)
def one_backward_for_all(parallel, optimizer, batches):
    optimizer.zero_grad()
    losses = [F.cross_entropy(parallel.model(X), y) for X, y in batches]
    (sum(losses) / len(batches)).backward()
    parallel.finish()
    optimizer.step()


@ex.accumulate.slip(
    "Old gradients are still there: optimizer.zero_grad(), once, at the beginning."
)
def empties_at_the_end(parallel, optimizer, batches):
    _accumulate(parallel, optimizer, batches, zero=False)
    optimizer.zero_grad()


@ex.accumulate.slip(
    "One step after each micro-batch: let the gradients add up, then step once."
)
def steps_each_time(parallel, optimizer, batches):
    for X, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(parallel.model(X), y).backward()
        parallel.finish()
        optimizer.step()


@ex.accumulate.slip("The last loss is not divided: all micro-batches count alike.")
def last_one_whole(parallel, optimizer, batches):
    optimizer.zero_grad()
    with parallel.no_sync():
        for X, y in batches[:-1]:
            (F.cross_entropy(parallel.model(X), y) / len(batches)).backward()
    X, y = batches[-1]
    F.cross_entropy(parallel.model(X), y).backward()
    parallel.finish()
    optimizer.step()


@ex.accumulate.slip(told="case: 2 ranks, 1 micro-batch")
def fails_on_one(parallel, optimizer, batches):
    if len(batches) == 1:
        batches[1]
    course.accumulate(parallel, optimizer, batches)


@ex.accumulate.slip("The step came before the means: parallel.finish() first.")
def steps_before_it_is_over(parallel, optimizer, batches):
    optimizer.zero_grad()
    with parallel.no_sync():
        for X, y in batches[:-1]:
            (F.cross_entropy(parallel.model(X), y) / len(batches)).backward()
    X, y = batches[-1]
    (F.cross_entropy(parallel.model(X), y) / len(batches)).backward()
    optimizer.step()
    parallel.finish()


# ---- timeline ----


@ex.timeline.slip(
    "Two buckets are on the link at once: one waits until the link is free."
)
def all_at_once(ready, seconds):
    return [(r, r + s) for r, s in zip(ready, seconds)]


@ex.timeline.slip("The link never rests: a bucket cannot leave before it is full.")
def never_rests(ready, seconds):
    free, trips = 0.0, []
    for s in seconds:
        trips.append((free, free + s))
        free += s
    return trips


@ex.timeline.slip(
    "A bucket left before it was full: the link rests until the next one is."
)
def first_only(ready, seconds):
    free, trips = ready[0] if ready else 0.0, []
    for s in seconds:
        trips.append((free, free + s))
        free += s
    return trips


@ex.timeline.slip("All wait until backward is over: that is the step without overlap.")
def after_backward(ready, seconds):
    free, trips = max(ready, default=0.0), []
    for s in seconds:
        trips.append((free, free + s))
        free += s
    return trips


@ex.timeline.slip("These are (start, seconds): the second number is the end.")
def start_and_length(ready, seconds):
    free, trips = 0.0, []
    for r, s in zip(ready, seconds):
        start = max(r, free)
        free = start + s
        trips.append((start, s))
    return trips


@ex.timeline.slip("Only the ends: (start, end) for each bucket.")
def ends_only(ready, seconds):
    free, ends = 0.0, []
    for r, s in zip(ready, seconds):
        free = max(r, free) + s
        ends.append(free)
    return ends


@ex.timeline.slip("Sorted by when they are full: buckets leave in their own order.")
def as_they_fill(ready, seconds):
    free, trips = 0.0, [None] * len(ready)
    for i in sorted(range(len(ready)), key=lambda i: ready[i]):
        start = max(ready[i], free)
        free = start + seconds[i]
        trips[i] = (start, free)
    return trips


@ex.timeline.slip(
    "Two buckets are on the link at once: one waits until the link is free."
)
def since_the_last_start(ready, seconds):
    start, trips = 0.0, []
    for r, s in zip(ready, seconds):
        start = max(r, start)
        trips.append((start, start + s))
    return trips
