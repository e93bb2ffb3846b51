from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import distributed as dist

from tests.wrong_answers import WrongAnswers
from utils import data_parallel as course

wrong = WrongAnswers("data_parallel")


# ---- mean_of_shards ----


@wrong("mean_of_shards", says="plain mean of the means")
def plain_mean(grads_RP, rows_R):
    return grads_RP.mean(0)


@wrong("mean_of_shards", says="nothing was weighted")
def plain_sum(grads_RP, rows_R):
    return grads_RP.sum(0)


@wrong("mean_of_shards", says="nothing divides by their total number")
def not_divided(grads_RP, rows_R):
    return torch.tensor(rows_R, dtype=grads_RP.dtype) @ grads_RP


@wrong("mean_of_shards", says="not by the number of shards")
def by_shards(grads_RP, rows_R):
    return torch.tensor(rows_R, dtype=grads_RP.dtype) @ grads_RP / len(rows_R)


@wrong("mean_of_shards", says="to undo the mean")
def divided_by_rows(grads_RP, rows_R):
    return sum(g / rows for g, rows in zip(grads_RP, rows_R))


@wrong("mean_of_shards", says="first shard, first number")
def turned_round(grads_RP, rows_R):
    rows = torch.tensor(rows_R[::-1], dtype=grads_RP.dtype)
    return rows @ grads_RP / rows.sum()


@wrong("mean_of_shards", says="changes its input in place")
def in_place(grads_RP, rows_R):
    rows = torch.tensor(rows_R, dtype=grads_RP.dtype)
    grads_RP *= rows[:, None]
    return grads_RP.sum(0) / rows.sum()


@wrong("mean_of_shards", says="float32")
def weights_in_float32(grads_RP, rows_R):
    weights = torch.tensor(rows_R) / sum(rows_R)
    return weights.to(grads_RP.dtype) @ grads_RP


# ---- average_gradients ----


def _each(model):
    for p in model.parameters():
        if p.requires_grad:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            yield p


@wrong("average_gradients", says="divide by their number")
def forgot_to_divide(model):
    for p in _each(model):
        dist.all_reduce(p.grad)


@wrong("average_gradients", says="Nothing was exchanged")
def does_nothing(model):
    list(_each(model))


@wrong("average_gradients", says="needs its wait()")
def never_waits(model):
    for p in _each(model):
        dist.all_reduce(p.grad, async_op=True)
        p.grad /= dist.get_world_size()


@wrong("average_gradients", says="divide by their number")
def divides_too_early(model):
    works = []
    for p in _each(model):
        works.append(dist.all_reduce(p.grad, async_op=True))
        p.grad /= dist.get_world_size()
    for work in works:
        work.wait()


@wrong("average_gradients", says="Divided twice")
def divides_twice(model):
    for p in _each(model):
        p.grad /= dist.get_world_size()
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()


@wrong("average_gradients", says="Bring zeros")
def skips_none(model):
    for p in model.parameters():
        if p.grad is not None:
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()


@wrong("average_gradients", says="dist.reduce serves one rank")
def reduces_to_one(model):
    for p in _each(model):
        dist.reduce(p.grad, dst=0)
        if dist.get_rank() == 0:
            p.grad /= dist.get_world_size()


@wrong("average_gradients", says="The weights changed")
@torch.no_grad()
def averages_the_weights(model):
    for p in model.parameters():
        dist.all_reduce(p.data)
        p.data /= dist.get_world_size()


@wrong("average_gradients", says="every parameter")
def weights_only(model):
    for p in _each(model):
        if p.ndim > 1:
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()


@wrong("average_gradients", says="Divided by 3, whatever")
def three_forever(model):
    for p in _each(model):
        dist.all_reduce(p.grad)
        p.grad /= 3


@wrong("average_gradients", says="A frozen parameter got a gradient")
def thaws(model):
    for p in model.parameters():
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()


@wrong("average_gradients", says="The ranks hang")
def only_rank_0_calls(model):
    for p in _each(model):
        if dist.get_rank() == 0:
            dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()


@wrong("average_gradients", says="still running")
def never_ends(model):
    while True:
        pass


@wrong("average_gradients", says="init_process_group")
def real_calls(model):
    from torch.distributed.distributed_c10d import all_reduce

    for p in _each(model):
        all_reduce(p.grad)


@wrong("average_gradients", says="own place")
def missing_ones_last(model):
    parts = list(model.parameters())
    here = [p for p in parts if p.grad is not None]
    for p in here + [p for p in parts if p.grad is None and p.requires_grad]:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()


@wrong("average_gradients", says="other gradients are lost")
def zeros_for_all(model):
    parts = [p for p in model.parameters() if p.requires_grad]
    if any(p.grad is None for p in parts):
        for p in parts:
            p.grad = torch.zeros_like(p)
    course.average_gradients(model)


@wrong("average_gradients", says="skip the frozen one and go on")
def stops_at_frozen(model):
    for p in model.parameters():
        if not p.requires_grad:
            break
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()


@wrong("average_gradients", says="skip the frozen one and go on")
def first_two(model):
    for p in list(model.parameters())[:2]:
        if p.requires_grad:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()


@wrong("average_gradients", says="so does its gradient")
def empties_frozen(model):
    for p in model.parameters():
        if not p.requires_grad:
            p.grad = None
    course.average_gradients(model)


@wrong("average_gradients", says="so does its gradient")
def exchanges_frozen(model):
    for p in model.parameters():
        if p.requires_grad and p.grad is None:
            p.grad = torch.zeros_like(p)
        if p.grad is not None:
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()


@wrong("average_gradients", says="float32")
def travels_in_float32(model):
    for p in _each(model):
        g = p.grad.float()
        dist.all_reduce(g)
        p.grad = (g / dist.get_world_size()).to(p.dtype)


@wrong("average_gradients", says="Every rank has rank 0's gradient")
def broadcasts(model):
    for p in _each(model):
        dist.broadcast(p.grad, src=0)


# ---- synchronise ----


@wrong("synchronise", says="the buffers are not")
@torch.no_grad()
def parameters_only(model):
    for p in model.parameters():
        dist.broadcast(p, src=0)


@wrong("synchronise", says="the buffers are not")
@torch.no_grad()
def float_parameters(model):
    for p in model.parameters():
        dist.broadcast(p.data, src=0)


@wrong("synchronise", says="The mean of all starts")
@torch.no_grad()
def averages(model):
    for p in model.parameters():
        dist.all_reduce(p)
        p /= dist.get_world_size()
    for x in model.buffers():
        dist.broadcast(x, src=0)


@wrong("synchronise", says="still has its own start")
def seeds_too_late(model):
    torch.manual_seed(0)


@wrong("synchronise", says="with the same src")
@torch.no_grad()
def from_itself(model):
    for x in (*model.parameters(), *model.buffers()):
        dist.broadcast(x, src=dist.get_rank())


@wrong("synchronise", says="The ranks hang")
@torch.no_grad()
def only_rank_0_sends(model):
    if dist.get_rank() == 0:
        for x in (*model.parameters(), *model.buffers()):
            dist.broadcast(x, src=0)


@wrong("synchronise", says="src=0")
@torch.no_grad()
def from_the_last(model):
    for x in (*model.parameters(), *model.buffers()):
        dist.broadcast(x, src=dist.get_world_size() - 1)


@wrong("synchronise", says="new objects")
@torch.no_grad()
def new_parameters(model):
    for module in model.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            dist.broadcast(p, src=0)
            setattr(module, name, torch.nn.Parameter(p.clone()))
    for x in model.buffers():
        dist.broadcast(x, src=0)


@wrong("synchronise", says="not on rank 0's weights")
@torch.no_grad()
def same_seed_again(model):
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))


@wrong("synchronise", says="still has its own start")
@torch.no_grad()
def a_copy_of_each(model):
    for x in (*model.parameters(), *model.buffers()):
        dist.broadcast(x.clone(), src=0)


@wrong("synchronise", says="Frozen parameters, too")
@torch.no_grad()
def skips_frozen(model):
    for p in model.parameters():
        if p.requires_grad:
            dist.broadcast(p, src=0)
    for x in model.buffers():
        dist.broadcast(x, src=0)


@wrong("synchronise", says="in every inner module")
@torch.no_grad()
def outer_buffers(model):
    for x in (*model.parameters(), *model.buffers(recurse=False)):
        dist.broadcast(x, src=0)


@wrong("synchronise", says="persistent=False")
@torch.no_grad()
def saved_state_only(model):
    for x in model.state_dict().values():
        dist.broadcast(x, src=0)


@wrong("synchronise", says="float32")
@torch.no_grad()
def through_float32(model):
    for x in (*model.parameters(), *model.buffers()):
        narrow = x.float()
        dist.broadcast(narrow, src=0)
        x.copy_(narrow)


@wrong("synchronise", says="A frozen parameter learns now")
def thaws_all(model):
    course.synchronise(model)
    for p in model.parameters():
        p.requires_grad_(True)


# ---- shard_order ----


def _order(N, seed):
    return torch.randperm(N, generator=torch.Generator().manual_seed(seed))


def _extended(order, world):
    whole = -(-len(order) // world) * world
    return order.repeat(-(-whole // len(order)))[:whole]


@wrong("shard_order", says="the work is done three times")
def same_shard(N, rank, world, seed=0, epoch=0):
    return _extended(_order(N, seed + epoch), world)[: -(-N // world)]


@wrong("shard_order", says="Every rank has all rows")
def all_rows(N, rank, world, seed=0, epoch=0):
    return _order(N, seed + epoch)


@wrong("shard_order", says="Neighbouring rows")
def blocks(N, rank, world, seed=0, epoch=0):
    return _extended(_order(N, seed + epoch), world).chunk(world)[rank]


@wrong("shard_order", says="shuffles in its own way")
def own_shuffle(N, rank, world, seed=0, epoch=0):
    return _extended(_order(N, seed + epoch + rank), world)[rank::world]


@wrong("shard_order", says="epoch has no effect")
def same_every_epoch(N, rank, world, seed=0, epoch=0):
    return _extended(_order(N, seed), world)[rank::world]


@wrong("shard_order", says="unequal numbers of rows")
def uneven(N, rank, world, seed=0, epoch=0):
    return _order(N, seed + epoch)[rank::world]


@wrong("shard_order", says="The tail is dropped")
def drops_the_tail(N, rank, world, seed=0, epoch=0):
    return _order(N, seed + epoch)[: N // world * world][rank::world]


@wrong("shard_order", says="global generator")
def seeds_the_world(N, rank, world, seed=0, epoch=0):
    torch.manual_seed(seed + epoch)
    return _extended(torch.randperm(N), world)[rank::world]


@wrong("shard_order", says="not shuffled")
def unshuffled(N, rank, world, seed=0, epoch=0):
    return _extended(torch.arange(N), world)[rank::world]


@wrong("shard_order", says="fewer rows than ranks")
def extends_once(N, rank, world, seed=0, epoch=0):
    order = _order(N, seed + epoch)
    missing = -N % world
    return torch.cat([order, order[:missing]])[rank::world]


@wrong("shard_order", says="not the last again")
def repeats_the_last(N, rank, world, seed=0, epoch=0):
    order = _order(N, seed + epoch)
    return torch.cat([order, order[-1:].repeat(-N % world)])[rank::world]


@wrong("shard_order", says="A right deal of another order")
def other_seed(N, rank, world, seed=0, epoch=0):
    return _extended(_order(N, seed * (epoch + 1)), world)[rank::world]


# ---- mean_over_ranks ----


@wrong("mean_over_ranks", says="mean of the ranks' means")
def mean_of_means(total, count):
    mean = torch.tensor(total / count, dtype=torch.float64)
    dist.all_reduce(mean)
    return (mean / dist.get_world_size()).item()


@wrong("mean_over_ranks", says="own mean")
def own_mean(total, count):
    return total / count


@wrong("mean_over_ranks", says="the counts were not")
def own_count(total, count):
    total = torch.tensor(total, dtype=torch.float64)
    dist.all_reduce(total)
    return (total / count).item()


@wrong("mean_over_ranks", says="divide by the number of rows")
def total_only(total, count):
    total = torch.tensor(total, dtype=torch.float64)
    dist.all_reduce(total)
    return total.item()


@wrong("mean_over_ranks", says="float32 holds")
def in_float32(total, count):
    both = torch.tensor([total, float(count)])
    dist.all_reduce(both)
    return (both[0] / both[1]).item()


@wrong("mean_over_ranks", says="all_reduce")
def for_rank_0(total, count):
    both = torch.tensor([total, count], dtype=torch.float64)
    dist.reduce(both, dst=0)
    return (both[0] / both[1]).item()


@wrong("mean_over_ranks", says="not by the number of rows")
def by_ranks(total, count):
    total = torch.tensor(total, dtype=torch.float64)
    dist.all_reduce(total)
    return (total / dist.get_world_size()).item()


@wrong("mean_over_ranks", says="ranks hang")
def skips_the_empty(total, count):
    if count == 0:
        return 0.0
    return course.mean_over_ranks(total, count)


@wrong("mean_over_ranks", says="cut to whole numbers")
def whole_totals(total, count):
    both = torch.tensor([int(total), count], dtype=torch.float64)
    dist.all_reduce(both)
    return (both[0] / both[1]).item()


@wrong("mean_over_ranks", says="float32")
def total_in_float32(total, count):
    t, c = torch.tensor(float(total)), torch.tensor(count)
    dist.all_reduce(t)
    dist.all_reduce(c)
    return t.item() / c.item()


@wrong("mean_over_ranks", says="once more, by the number of ranks")
def divides_again(total, count):
    return course.mean_over_ranks(total, count) / dist.get_world_size()


@wrong("mean_over_ranks", says="// cuts")
def floor_division(total, count):
    both = torch.tensor([total, count], dtype=torch.float64)
    dist.all_reduce(both)
    return (both[0] // both[1]).item()


@wrong("mean_over_ranks", says="was rounded")
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


@wrong("parallel_step", says="A mean of means")
def mean_of_ragged(model, optimizer, X_BD, y_B):
    return _step(model, optimizer, X_BD, y_B, reduction="mean")


@wrong("parallel_step", says="three times too short")
def divided_twice(model, optimizer, X_BD, y_B):
    return _step(model, optimizer, X_BD, y_B)


@wrong("parallel_step", says="three times too long")
def added_up(model, optimizer, X_BD, y_B):
    return _step(model, optimizer, X_BD, y_B, factor=dist.get_world_size() ** 2)


@wrong("parallel_step", says="own way")
def no_exchange(model, optimizer, X_BD, y_B):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(X_BD), y_B)
    loss.backward()
    optimizer.step()
    return course.mean_over_ranks(loss.item() * len(y_B), len(y_B))


@wrong("parallel_step", says="Old gradients")
def keeps_gradients(model, optimizer, X_BD, y_B):
    return _step(model, optimizer, X_BD, y_B, dist.get_world_size(), zero=False)


@wrong("parallel_step", says="alike on every rank")
def own_loss(model, optimizer, X_BD, y_B):
    loss = F.cross_entropy(model(X_BD), y_B).item()
    _step(model, optimizer, X_BD, y_B, dist.get_world_size())
    return loss


@wrong("parallel_step", says="returns nothing")
def no_loss(model, optimizer, X_BD, y_B):
    _step(model, optimizer, X_BD, y_B, dist.get_world_size())


@wrong("parallel_step", says="The ranks hang")
def skips_an_empty_shard(model, optimizer, X_BD, y_B):
    if len(y_B) == 0:
        return 0.0
    return _step(model, optimizer, X_BD, y_B, dist.get_world_size())


@wrong("parallel_step", says="too long by their number")
def sum_of_losses(model, optimizer, X_BD, y_B):
    total = F.cross_entropy(model(X_BD), y_B, reduction="sum")
    optimizer.zero_grad()
    (total * dist.get_world_size()).backward()
    course.average_gradients(model)
    optimizer.step()
    return course.mean_over_ranks(total.item(), len(y_B))


@wrong("parallel_step", says="The weights have not moved")
def forgets_to_step(model, optimizer, X_BD, y_B):
    total = F.cross_entropy(model(X_BD), y_B, reduction="sum")
    return course.mean_over_ranks(total.item(), len(y_B))


@wrong("parallel_step", says="float32")
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


@wrong("parallel_step", says="no work is shared")
def gathers_the_rows(model, optimizer, X_BD, y_B):
    parts = [None] * dist.get_world_size()
    dist.all_gather_object(parts, (X_BD, y_B))
    X_ND, y_N = (torch.cat(part) for part in zip(*parts))
    loss = F.cross_entropy(model(X_ND), y_N)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("parallel_step", says="more travels than the gradients")
def synchronises_each_step(model, optimizer, X_BD, y_B):
    course.synchronise(model)
    return course.parallel_step(model, optimizer, X_BD, y_B)


@wrong("parallel_step", says="left in eval()")
def leaves_eval(model, optimizer, X_BD, y_B):
    loss = course.parallel_step(model, optimizer, X_BD, y_B)
    model.eval()
    return loss


@wrong("parallel_step", says="let optimizer.step() make the step")
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


@wrong("make_buckets", says="Forwards")
def forwards(sizes, cap):
    return _fill(range(len(sizes)), sizes, cap)


@wrong("make_buckets", says="before it would hold more")
def overfull(sizes, cap):
    buckets, held = [[]], 0
    for i in reversed(range(len(sizes))):
        buckets[-1].append(i)
        held += sizes[i]
        if held > cap:
            buckets.append([])
            held = 0
    return [b for b in buckets if b]


@wrong("make_buckets", says="compare with >")
def too_careful(sizes, cap):
    return _fill(reversed(range(len(sizes))), sizes, cap, strict=True)


@wrong("make_buckets", says="The last bucket got lost")
def loses_the_last(sizes, cap):
    return _fill(reversed(range(len(sizes))), sizes, cap)[:-1]


@wrong("make_buckets", says="it was left out")
def drops_the_large(sizes, cap):
    numbers = [i for i in reversed(range(len(sizes))) if sizes[i] <= cap]
    return _fill(numbers, sizes, cap)


@wrong("make_buckets", says="An empty bucket")
def opens_empty(sizes, cap):
    buckets, room = [[]], cap
    for i in reversed(range(len(sizes))):
        if sizes[i] > room:
            buckets.append([])
            room = cap
        buckets[-1].append(i)
        room -= sizes[i]
    return buckets if sizes else []


@wrong("make_buckets", says="keep the order")
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


@wrong("make_buckets", says="Inside a bucket")
def sorted_inside(sizes, cap):
    return [sorted(b) for b in _fill(reversed(range(len(sizes))), sizes, cap)]


# ---- Overlapped ----


class _Base(course.Overlapped):
    pass


@wrong("Overlapped", says="Each rank has its own gradient")
class never_puts_back(_Base):
    def finish(self):
        while len(self.flying) < len(self.buckets):
            self.send()
        for _, work in self.flying:
            work.wait()
        self.begin()


@wrong("Overlapped", says="sum over ranks")
class forgets_to_divide(_Base):
    def finish(self):
        while len(self.flying) < len(self.buckets):
            self.send()
        for bucket, (flat, work) in zip(self.buckets, self.flying):
            work.wait()
            for p, g in zip(bucket, flat.split([p.numel() for p in bucket])):
                p.grad = g.view_as(p)
        self.begin()


@wrong("Overlapped", says="wait for the work")
class forgets_to_wait(_Base):
    def finish(self):
        while len(self.flying) < len(self.buckets):
            self.send()
        for bucket, (flat, _) in zip(self.buckets, self.flying):
            flat /= dist.get_world_size()
            for p, g in zip(bucket, flat.split([p.numel() for p in bucket])):
                p.grad = g.view_as(p)
        self.begin()


@wrong("Overlapped", says="async_op=True")
class waits_in_backward(_Base):
    def send(self):
        bucket = self.buckets[len(self.flying)]
        flat = torch.cat([p.grad.flatten() for p in bucket])
        dist.all_reduce(flat)

        class Done:
            def wait(self):
                pass

        self.flying.append((flat, Done()))


@wrong("Overlapped", says="Nothing leaves before backward is over")
class all_at_the_end(_Base):
    def arrived(self, number):
        pass


@wrong("Overlapped", says="One message a bucket")
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


@wrong("Overlapped", says="self.begin()")
class never_begins_again(_Base):
    def __init__(self, model, cap):
        self.begun = False
        super().__init__(model, cap)

    def begin(self):
        if not self.begun:
            super().begin()
        self.begun = True


@wrong("Overlapped", says="none before the one ahead")
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


@wrong("Overlapped", says="a branch it did not use")
class waits_for_all_gradients(_Base):
    def finish(self):
        for bucket, (flat, work) in zip(self.buckets, self.flying):
            work.wait()
            flat /= dist.get_world_size()
            for p, g in zip(bucket, flat.split([p.numel() for p in bucket])):
                p.grad = g.view_as(p)
        self.begin()


@wrong("Overlapped", says="every parameter has a gradient")
class throws_them_away(_Base):
    def finish(self):
        super().finish()
        for p in self.model.parameters():
            p.grad = None


@wrong("Overlapped", says="Inside no_sync nothing travels")
class loud(_Base):
    @contextmanager
    def no_sync(self):
        yield
        self.finish()


@wrong("Overlapped", says="Backward stands still")
class waits_at_once(_Base):
    def send(self):
        super().send()
        self.flying[-1][1].wait()


@wrong("Overlapped", says="A full bucket stays")
class all_at_the_last_gradient(_Base):
    def arrived(self, number):
        if self.sync:
            self.missing[number] -= 1
            while sum(self.missing) == 0 and len(self.flying) < len(self.buckets):
                self.send()


@wrong("Overlapped", says="nothing is counted, either")
class counts_quiet_passes(_Base):
    def arrived(self, number):
        self.missing[number] -= 1
        while self.sync and len(self.flying) < len(self.buckets):
            if self.missing[len(self.flying)] != 0:
                return
            self.send()


@wrong("Overlapped", says="Is everything set back")
class forgets_the_count(_Base):
    def finish(self):
        begin, self.begin = self.begin, lambda: None
        super().finish()
        self.begin, self.flying = begin, []


@wrong("Overlapped", says="`while`, not `if`")
class sends_one_at_most(_Base):
    def arrived(self, number):
        if self.sync:
            self.missing[number] -= 1
            if number == len(self.flying) and self.missing[number] == 0:
                self.send()


@wrong("Overlapped", says="A bucket left before it was full")
class sends_whatever_is_next(_Base):
    def arrived(self, number):
        if self.sync:
            self.missing[number] -= 1
            if self.missing[number] == 0:
                self.send()


@wrong("Overlapped", says="A bucket left before it was full")
class sends_at_the_first_gradient(_Base):
    def arrived(self, number):
        if self.sync:
            self.missing[number] -= 1
            if number == len(self.flying):
                self.send()


@wrong("Overlapped", says="0.5 times what it should be")
class halves(_Base):
    def finish(self):
        super().finish()
        for p in self.model.parameters():
            p.grad /= 2


@wrong("Overlapped", says="it takes its place")
class adds_the_mean(_Base):
    def finish(self):
        own = [torch.zeros_like(p) if p.grad is None else p.grad.clone()
               for p in self.model.parameters()]  # fmt: skip
        super().finish()
        for p, grad in zip(self.model.parameters(), own):
            p.grad = p.grad + grad


@wrong("Overlapped", says="in the same order?")
class mixes_them_up(_Base):
    def finish(self):
        super().finish()
        for p in self.model.parameters():
            p.grad = p.grad.flip(0)


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


@wrong("accumulate", says="3 times too long")
def sums(parallel, optimizer, batches):
    _accumulate(parallel, optimizer, batches, share=False)


@wrong("accumulate", says="A step talks once")
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


@wrong("accumulate", says="The last micro-batch is quiet too")
def all_quiet(parallel, optimizer, batches):
    optimizer.zero_grad()
    with parallel.no_sync():
        for X, y in batches:
            (F.cross_entropy(parallel.model(X), y) / len(batches)).backward()
    parallel.finish()
    optimizer.step()


@wrong("accumulate", says="optimizer.zero_grad(), once")
def never_zero(parallel, optimizer, batches):
    _accumulate(parallel, optimizer, batches, zero=False)


@wrong("accumulate", says="Only the last micro-batch")
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


@wrong("accumulate", says="no accumulation")
def one_big_batch(parallel, optimizer, batches):
    X_BD, y_B = (torch.cat(part) for part in zip(*batches))
    optimizer.zero_grad()
    F.cross_entropy(parallel.model(X_BD), y_B).backward()
    parallel.finish()
    optimizer.step()


@wrong("accumulate", says="no accumulation")
def one_backward_for_all(parallel, optimizer, batches):
    optimizer.zero_grad()
    losses = [F.cross_entropy(parallel.model(X), y) for X, y in batches]
    (sum(losses) / len(batches)).backward()
    parallel.finish()
    optimizer.step()


@wrong("accumulate", says="at the beginning")
def empties_at_the_end(parallel, optimizer, batches):
    _accumulate(parallel, optimizer, batches, zero=False)
    optimizer.zero_grad()


@wrong("accumulate", says="case: 2 ranks, 1 micro-batch")
def fails_on_one(parallel, optimizer, batches):
    if len(batches) == 1:
        batches[1]
    course.accumulate(parallel, optimizer, batches)


@wrong("accumulate", says="parallel.finish()")
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


@wrong("timeline", says="Two buckets are on the link")
def all_at_once(ready, seconds):
    return [(r, r + s) for r, s in zip(ready, seconds)]


@wrong("timeline", says="cannot leave before it is full")
def never_rests(ready, seconds):
    free, trips = 0.0, []
    for s in seconds:
        trips.append((free, free + s))
        free += s
    return trips


@wrong("timeline", says="left before it was full")
def first_only(ready, seconds):
    free, trips = ready[0] if ready else 0.0, []
    for s in seconds:
        trips.append((free, free + s))
        free += s
    return trips


@wrong("timeline", says="without overlap")
def after_backward(ready, seconds):
    free, trips = max(ready, default=0.0), []
    for s in seconds:
        trips.append((free, free + s))
        free += s
    return trips


@wrong("timeline", says="second number is the end")
def start_and_length(ready, seconds):
    free, trips = 0.0, []
    for r, s in zip(ready, seconds):
        start = max(r, free)
        free = start + s
        trips.append((start, s))
    return trips


@wrong("timeline", says="Only the ends")
def ends_only(ready, seconds):
    free, ends = 0.0, []
    for r, s in zip(ready, seconds):
        free = max(r, free) + s
        ends.append(free)
    return ends
