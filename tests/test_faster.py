"""utils/built/{fuse,flash,lean}.py and bench/faster.py beyond the chapter's own checks."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from utils.bench import faster as ladder
from utils.built.flash import flash
from utils.built.fuse import fuse
from utils.built.gpt import GPT, GPT2
from utils.built.lean import ChunkedLoss, Recompute
from utils.built.live import Live

IDS = torch.randint(17, (2, 33), generator=torch.Generator().manual_seed(0))


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def test_a_fused_graph_stays_on_its_device_and_in_its_dtype():
    graph = torch.fx.symbolic_trace(lambda x, a: (torch.tanh(x * a) + 1,))
    x, a = torch.rand(3, 5), torch.rand(3, 5)
    (out,) = fuse(graph, [x.to("meta"), a.to("meta")], 4)(x.to("meta"), a.to("meta"))
    assert (out.device.type, out.dtype, out.shape) == ("meta", torch.float32, x.shape)
    torch.set_default_dtype(torch.float64)  # whatever new tensors are
    try:
        (out,) = fuse(graph, [x, a], 4)(x, a)
    finally:
        torch.set_default_dtype(torch.float32)
    assert out.dtype == torch.float32 and torch.equal(out, torch.tanh(x * a) + 1)


def test_a_gpt_mixes_by_flash():
    torch.manual_seed(0)
    model = GPT(17, 40, 2, 4, 32, **GPT2).double()
    found = []
    for attend in (None, lambda *a, **k: flash(*a, **k, block=8)):
        if attend:
            model.use(attend)
        model.zero_grad()
        logits = model(IDS[:, :-1])
        F.cross_entropy(logits.flatten(0, 1), IDS[:, 1:].flatten()).backward()
        found.append((logits, gradients(model)))
    for one, other in zip(*found):
        assert torch.allclose(one, other, atol=1e-10)


@pytest.mark.parametrize("T", [40, 96])
def test_flash_keeps_4_d_plus_1(T):
    q, k, v = (torch.randn(2, 3, T, 8, requires_grad=True) for _ in range(3))
    with Live(q, k, v) as live:
        out = flash(q, k, v, causal=True, block=16)
        assert live.bytes == 4 * (4 * 8 + 1) * 2 * 3 * T
    out.sum().backward()
    assert q.grad.shape == q.shape


def test_a_chunked_loss_is_part_of_a_graph():
    torch.manual_seed(0)
    x, W = torch.randn(7, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    y = torch.randint(5, (7,))
    (2 * F.cross_entropy(x @ W.T, y)).backward()
    want = x.grad.clone(), W.grad.clone()
    x.grad = W.grad = None
    (2 * ChunkedLoss.apply(x, W, y, 3)).backward()
    assert torch.allclose(x.grad, want[0], atol=1e-6)
    assert torch.allclose(W.grad, want[1], atol=1e-6)


def test_recomputed_blocks_learn_the_same():
    torch.manual_seed(0)
    blocks = nn.Sequential(
        *(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)) for _ in range(3))
    )
    found, x = [], torch.randn(5, 4, requires_grad=True)
    for again in (False, True):
        torch.manual_seed(1)
        blocks.zero_grad()
        h = x
        for block in blocks:
            h = Recompute.apply(block, h) if again else block(h)
        h.square().sum().backward()
        found.append(gradients(blocks))
    assert torch.equal(*found)


def test_an_empty_chain_of_blocks():
    graph = torch.fx.symbolic_trace(lambda x: (x * 2,))
    x = torch.empty(0, 3)
    assert fuse(graph, [x])(x)[0].shape == (0, 3)


def test_the_recorded_ladder_has_every_rung_and_seed():
    record = ladder.recorded()
    assert set(record["rungs"]) >= set(ladder.RUNGS)
    for runs in record["rungs"].values():
        assert len(runs) == len(ladder.SEEDS)
        for run in runs:
            assert (run["seconds"] is None) == (run["accuracy"] < record["target"])


def test_the_middle_of_runs_that_never_arrive():
    run = lambda seconds: {"seconds": seconds}  # noqa: E731
    assert ladder.middle([run(3), run(None), run(1)]) == 3
    assert ladder.middle([run(None), run(None), run(1)]) is None


def test_shifted_images_lose_only_what_leaves():
    X = torch.arange(128.0).view(2, 64)
    dice = torch.Generator().manual_seed(3)
    for _ in range(9):
        moved = ladder.shifted(X, dice).view(2, 8, 8)
        found = [
            (i, j)
            for i in (0, 1, 2) for j in (0, 1, 2)
            if torch.equal(moved, F.pad(X.view(2, 8, 8), (1, 1, 1, 1))[:, i : i + 8, j : j + 8])
        ]  # fmt: skip
        assert len(found) == 1
