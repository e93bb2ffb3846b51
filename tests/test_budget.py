"""Weights, operations and bytes of a GPT: equal to the counters, at sizes of no pattern."""

import pytest
import torch

from utils.built import attention, budget, gpt, profiling
from utils.built.live import Live
from utils.data import accelerators
from utils.data.runs import runs

SIZES = [(65, 64, 4, 2, 12, 64), (31, 24, 3, 3, 2, 17), (512, 48, 6, 1, 3, 40)]


def a_step(V, E, H, L, B, T, checkpointing=False, attend=attention.fused):
    model = gpt.GPT(V, T, L, H, E, **gpt.GPT2).use(attend)
    ids, y = (torch.zeros(B, T, dtype=torch.long) for _ in range(2))
    return budget.LossOf(model, y, checkpointing), ids


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("naive", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_saved_bytes_are_predicted_to_the_byte(sizes, naive, checkpointing):
    attend = attention.attention if naive else attention.fused
    loss_of, ids = a_step(*sizes, checkpointing, attend)
    told = budget.activation_bytes(*sizes, naive=naive, checkpointing=checkpointing)
    assert profiling.saved_bytes(loss_of, ids) == told


@pytest.mark.parametrize(("V", "E", "H", "L", "B", "T"), SIZES)
def test_operations_equal_the_counter(V, E, H, L, B, T):
    forward, backward = budget.counted_flops(*a_step(V, E, H, L, B, T))
    assert forward == budget.forward_flops(V, E, L, B, T)
    assert backward == 2 * forward
    again = sum(budget.counted_flops(*a_step(V, E, H, L, B, T, True)))
    assert again == 3 * forward + budget.recompute_flops(E, L, B, T)


@pytest.mark.parametrize(("V", "E", "H", "L", "B", "T"), SIZES)
def test_weights_equal_the_model(V, E, H, L, B, T):
    for tied in (True, False):
        model = gpt.GPT(V, T, L, H, E, **{**gpt.GPT2, "tied": tied})
        count = sum(p.numel() for p in model.parameters())
        assert count == budget.parameters(V, T, E, L, tied)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_where_the_loss_is_the_peak_it_is_known_to_the_byte(checkpointing):
    V, E, H, L, B, T = 3000, 48, 4, 2, 3, 33
    net, ids = a_step(V, E, H, L, B, T, checkpointing)
    with Live(net.parameters(), ids, net.y_BT) as live:
        before = live.bytes
        net(ids).backward()
    kept = budget.activation_bytes(V, E, H, L, B, T, checkpointing=checkpointing)
    assert live.peak - before == kept - 16 * B * T + 4 + 8 * B * T * V


def test_every_run_has_a_source_and_a_known_chip():
    chips = {row["name"] for row in accelerators()}
    found = runs()
    assert len(found) >= 5
    for run in found:
        assert "http" in run["source"] and run["chip"] in chips, run["name"]
        assert run["weights"] > 0 and run["tokens"] > 0 and run["chip_hours"] > 0
