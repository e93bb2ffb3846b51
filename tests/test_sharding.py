"""Chapter 18's functions on real processes and on pretended ones."""

import sys

import cloudpickle
import numpy as np
import pytest
import torch
from torch import distributed as dist
from torch import nn

from utils import ranks
from utils.built import sharding as course
from utils.built.live import Live, held, stored
from utils.practice import rehearse

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def odd_network():
    "Layers of 5-7-3, one with a norm: sizes that 2 and 3 do not divide."
    torch.manual_seed(3)
    layers = nn.Linear(5, 7), nn.LayerNorm(7), nn.Tanh(), nn.Linear(7, 3)
    return nn.Sequential(*layers).double()


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def loss_of(net, rank, n, step):
    X, t = normal(12, 5, seed=step)[rank::n], normal(12, 3, seed=50 + step)[rank::n]
    return (net(X) - t).square().mean()


def train_sharded(rank, n, stage, steps=5):
    "-> weights after AdamW with clipping; bytes stored."
    model = odd_network()
    if stage == 3:
        net = nn.Sequential(
            *[course.Zero3(x) if list(x.parameters()) else x for x in model]
        )
        parts = list(net.parameters())
    elif stage == 2:
        net, sharded = model, course.Zero2(model)
        parts = [sharded.part]
    else:
        net, buffer = model, course.flat_views(model, n)
        parts = [course.my_part(buffer)]
    optimizer = torch.optim.AdamW(parts, lr=0.01)

    def clip(*_):
        course.clip_shard([p.grad for p in parts], 0.05)

    optimizer.register_step_pre_hook(clip)
    for step in range(steps):
        net.zero_grad()
        loss_of(net, rank, n, step).backward()
        if stage == 1:
            course.zero1_step(model, buffer, parts[0], optimizer)
        elif stage == 2:
            sharded.step(optimizer)
        else:
            optimizer.step()
    kept = stored(
        net.parameters(), parts, [p.grad for p in [*net.parameters(), *parts]],
        held(optimizer),
    )  # fmt: skip
    if stage < 3:
        return flat(model), kept
    layers = [x for x in net if isinstance(x, course.Zero3)]
    whole = [course.all_gather(x.part)[: sum(x.sizes())] for x in layers]
    return torch.cat(whole), kept


def train_alone(steps=5):
    model = odd_network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(model, 0, 1, step).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        optimizer.step()
    return flat(model)


@pytest.mark.parametrize("n", [2, 3])
def test_every_stage_on_real_ranks_equals_one_process(n):
    def fn(rank, n):
        usual = [train_sharded(rank, n, stage)[0] for stage in (1, 2, 3)]
        with course.on_the_ring():
            return usual + [train_sharded(rank, n, stage)[0] for stage in (1, 2, 3)]

    alone = train_alone()
    for results in ranks.run(fn, n):
        for weights in results:
            torch.testing.assert_close(weights, alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 3, 4])
def test_a_rehearsal_equals_one_process_and_stores_the_formula(n, stage):
    P = len(train_alone(0))
    for weights, kept in rehearse(lambda r, n: train_sharded(r, n, stage), n):
        torch.testing.assert_close(weights, train_alone(), atol=1e-12, rtol=0)
        padding = 4 * 8 * n * 4  # at most n - 1 numbers for each of three layers
        assert 0 <= kept - 8 * P * sum(course.words(stage, n)) <= padding


def test_the_ring_gives_back_what_it_took():
    def fn(rank, n):
        before = dist.reduce, getattr(dist, "reduce_scatter_single", None)
        with pytest.raises(KeyError), course.on_the_ring():
            x = torch.full((3,), 1.0 + rank)
            dist.reduce(x, dst=1)
            raise KeyError
        same = before == (dist.reduce, getattr(dist, "reduce_scatter_single", None))
        return same, x.tolist()

    results = ranks.run(fn, 3)
    assert all(same for same, _ in results) and results[1][1] == [6.0] * 3


def test_pretended_ranks_store_the_formula_and_leave_no_trace():
    hook = sys.excepthook
    layer = nn.Linear(64, 64)
    with course.pretend(5, 512):
        sharded = course.Zero3(layer)
        assert (dist.get_rank(), dist.get_world_size()) == (5, 512)
    assert not dist.is_initialized() and sys.excepthook is hook
    assert stored(sharded.parameters()) == 4 * -(-(64 * 64 + 64) // 512)


def test_a_layer_with_several_inputs_and_no_gradient_of_them():
    def fn(rank, n):
        torch.manual_seed(0)
        layer = nn.Bilinear(2, 3, 4).double()
        a, b = normal(5, 2), normal(5, 3, seed=1)
        want = layer(a, b).detach()
        with torch.no_grad():
            return (course.Zero3(layer)(a, b) - want).abs().max().item()

    assert max(rehearse(fn, 3)) < 1e-12


def test_one_layer_is_whole_at_a_time():
    with course.pretend(0, 8):
        net = nn.Sequential(*[course.Zero3(nn.Linear(64, 64)) for _ in range(6)])
        X = torch.randn(2, 64)
        with Live(X, net.parameters()) as live:
            before = live.bytes
            net(X).sum().backward()
    assert (live.peak - before) / (4 * 64 * 64) < 6 / 8 + 3.2


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_file_of_all_weights(tmp_path, n):
    layers = [normal(size, seed=size) for size in (7, 1, 12)]

    def fn(rank, n):
        parts = []
        for x in layers:
            K = -(-len(x) // n)
            padded = torch.cat([x, torch.full((n * K - len(x),), torch.nan).double()])
            parts.append(padded.view(n, K)[rank])
        course.save_shards(tmp_path / "weights", parts, [len(x) for x in layers])

    ranks.run(fn, n)
    assert np.array_equal(np.fromfile(tmp_path / "weights"), torch.cat(layers).numpy())


@pytest.mark.parametrize("before", [b"an older file" * 9, None])
@pytest.mark.parametrize("dies", [0, 2])
def test_a_save_that_breaks_off_leaves_the_file_before(tmp_path, before, dies):
    "One rank dies after its first layer; what it left is no checkpoint."
    path = tmp_path / "weights"
    if before:
        path.write_bytes(before)

    class Dying(torch.Tensor):
        def cpu(self):
            raise OSError("no space left")

    def fn(rank, n):
        parts = [normal(2), normal(3, seed=1)]
        if rank == dies:
            parts[1] = parts[1].as_subclass(Dying)
        course.save_shards(path, parts, [6, 9])

    with pytest.raises(Exception, match="no space left"):
        rehearse(fn, 3)
    assert (path.read_bytes() if before else None) == before
    assert path.exists() == bool(before)
    rehearse(lambda r, n: course.save_shards(path, [normal(2)], [6]), 3)
    assert [x.name for x in tmp_path.iterdir()] == ["weights"]
    assert len(np.fromfile(path)) == 6


def test_the_librarys_clipping_knows_its_shards():
    def fn(rank, n):
        from torch.distributed.fsdp import fully_shard

        model = odd_network()
        for layer in (model[0], model[3]):
            fully_shard(layer)
        fully_shard(model)
        loss_of(model, rank, n, 0).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.05).full_tensor()
        grads = [p.grad.full_tensor().flatten() for p in model.parameters()]
        return norm.item(), torch.cat(grads)

    model = odd_network()
    loss_of(model, 0, 1, 0).backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 0.05).item()
    want = torch.cat([p.grad.flatten() for p in model.parameters()])
    for theirs, grads in ranks.run(fn, 2):
        assert theirs == pytest.approx(norm, rel=1e-12) and norm > 0.05
        torch.testing.assert_close(grads, want, atol=1e-12, rtol=0)
