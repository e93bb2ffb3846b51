"""Chapter 19's pieces beyond its exercises: every schedule on ranks, all plans."""

import os

import pytest
import torch
import torch.nn.functional as F
from torch import distributed as dist

from utils import ranks
from utils.built import experts, pipeline, planner, tensor_parallel
from utils.practice import rehearse

posix = pytest.mark.skipif(os.name == "nt", reason="a shell script")


def normal(*shape, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draw, dtype=torch.float64)


# ---- orders ----


@pytest.mark.parametrize(("p", "m"), [(2, 2), (3, 6), (4, 8), (8, 16)])
def test_simulated_bubbles_are_the_formulas(p, m):
    parts = {"GPipe": m, "1F1B": m, "interleaved": 2 * m, "zero bubble": 3 * m}
    for name, orders in pipeline.schedules(p, m).items():
        spans = pipeline.simulate(orders, pipeline.seconds_of(name))
        wanted = (p - 1) / (parts[name] + p - 1)
        assert pipeline.idle_share(spans) == pytest.approx(wanted), name


def test_what_each_schedule_holds():
    held = {
        name: [pipeline.in_flight(order) for order in orders]
        for name, orders in pipeline.schedules(4, 12).items()
    }
    assert held["GPipe"] == [12] * 4
    assert held["1F1B"] == [4, 3, 2, 1]
    assert held["zero bubble"] == [4] * 4
    assert held["interleaved"] == [11, 9, 7, 5]


def test_every_action_comes_once():
    for name, orders in pipeline.schedules(3, 6).items():
        stages = 6 if name == "interleaved" else 3
        kinds = "FBW" if name == "zero bubble" else "FB"
        wanted = {(k, i, s) for k in kinds for i in range(6) for s in range(stages)}
        found = [action for order in orders for action in order]
        assert sorted(found) == sorted(wanted), name


def test_a_slow_rank_stretches_its_actions():
    orders = pipeline.schedules(2, 2)["1F1B"]
    spans = pipeline.simulate(orders, {"F": 1, "B": 2}, slow={1: 3})
    assert {end - start for start, end, _ in spans[1]} == {3, 6}
    assert {end - start for start, end, _ in spans[0]} == {1, 2}


@pytest.mark.parametrize("p", [2, 3])
@pytest.mark.parametrize("name", ["GPipe", "1F1B", "interleaved", "zero bubble"])
def test_rehearsed_pipelines_have_one_process_s_gradients(name, p):
    m, stages = 6, 2 * p if name == "interleaved" else p
    X_GBE, Y_GBE, w_SEE = normal(m, 3, 4), normal(m, 3, 4, seed=1), normal(stages, 4, 4)
    orders = pipeline.schedules(p, m)[name]

    def fn(rank, n):
        mine = {s: w_SEE[s] for s in range(rank, stages, n)}
        return pipeline.Player(rank, n, mine, X_GBE, Y_GBE).play(orders[rank])

    whole, h = w_SEE.clone().requires_grad_(), X_GBE
    for w in whole:
        h = torch.tanh(h @ w.T)
    loss = (h - Y_GBE).square().mean()
    loss.backward()
    results = rehearse(fn, p)
    for rank, result in enumerate(results):
        assert result["most"] == pipeline.in_flight(orders[rank])
        for stage, grad in result["grads"].items():
            assert torch.allclose(grad, whole.grad[stage], atol=1e-12)
    assert sum(result["loss"] for result in results) == pytest.approx(loss.item())


def test_torch_s_own_interleaved_timetable_is_ours():
    """Interleaved, on all ranks. (Its 1F1B table is wrong on the last rank, torch 2.13,
    and not used: the run is right.)"""
    from torch.distributed.pipelining import schedules

    class Stage:
        def __init__(self, i, n, g):
            self.stage_index, self.num_stages = i, n
            self.group_size, self.group_rank = g, i % g
            self.is_first, self.is_last, self.has_backward = i == 0, i == n - 1, True
            self.stage_index_to_group_rank = {k: k % g for k in range(n)}
            self.device, self.submod, self.group = "cpu", None, None

    ours = pipeline.schedules(4, 8)
    stages = [Stage(4 * chunk, 8, 4) for chunk in range(2)]
    table = schedules.ScheduleInterleaved1F1B(
        stages, 8, loss_fn=F.mse_loss
    ).pipeline_order
    for rank in range(4):
        found = [
            (str(a)[1:].lstrip("0123456789")[0], a.microbatch_index, a.stage_index)
            for a in table[rank] if a is not None
        ]  # fmt: skip
        assert found == ours["interleaved"][rank]


# ---- split layers ----


def test_ring_attention_for_three_ranks_and_any_places():
    T, n = 12, 3
    q, k, v = (normal(2, 2, T, 4, seed=s) for s in range(3))
    whole = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    turn = torch.randperm(T, generator=torch.Generator().manual_seed(0)).chunk(n)
    for places in ([tensor_parallel.zigzag(T, n, r) for r in range(n)], turn):

        def fn(rank, n, places=places):
            mine = places[rank]
            o, pairs = tensor_parallel.ring_attention(
                q[:, :, mine], k[:, :, mine], v[:, :, mine], places
            )
            return (o - whole[:, :, mine]).abs().max().item(), pairs

        gaps, pairs = zip(*rehearse(fn, n))
        assert max(gaps) < 1e-12 and sum(pairs) == T * (T + 1) // 2


def test_tokens_that_do_not_divide_are_refused():
    def fn(rank, n):
        with pytest.raises(
            ValueError, match="5 tokens are no equal shares for 2 ranks"
        ):
            tensor_parallel.scatter_tokens(torch.ones(1, 5, 2))

    rehearse(fn, 2)


def test_experts_on_real_ranks_with_an_idle_one():
    def fn(rank, n):
        x = normal(4, 3, seed=rank).requires_grad_()
        y = experts.dispatch(
            x, torch.tensor([1, 1, 1, 1]), lambda rows: rows * (rank + 1)
        )
        y.sum().backward()
        return torch.equal(y, 2 * x), x.grad.unique().tolist()

    assert ranks.run(fn, 2) == [(True, [2.0])] * 2


# ---- plans ----


def test_counted_weights_are_the_planned_ones_for_every_small_plan():
    work = planner.Work(layers=4, width=32, hidden=64, tokens=8, sequences=8)
    for plan in planner.plans(8, work.layers, work.sequences):
        counted = planner.counted_words(work, plan, rank=7)
        assert counted == planner.words_per_rank(work, plan), plan
    assert not dist.is_initialized()


def test_more_sharding_never_needs_more_memory_for_weights():
    work = planner.Work(
        layers=80, width=8192, hidden=28672, tokens=4096, sequences=1024
    )
    for chips in (64, 1024):
        words = {
            p: planner.words_per_rank(work, p) for p in planner.plans(chips, 80, 1024)
        }
        assert set(words.values()) == {work.words // chips}
