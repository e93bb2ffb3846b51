"""utils/built/compute.py and fivefold.py: fronts, gates, five folds trained at once."""

from itertools import pairwise, product

import pytest
import torch

from utils.built import compute, fivefold, quant


@pytest.fixture(scope="module")
def digits():
    return fivefold.Digits()


@pytest.fixture(scope="module")
def pair(digits):
    nets = [
        fivefold.train(fivefold.Nets([64, *widths, 10]), digits, 10)
        for widths in [(16, 16), (64, 32)]
    ]
    return fivefold.Pair(digits, *nets)


def test_each_image_is_tested_once_and_never_by_a_net_that_saw_it(digits):
    tested = torch.stack([digits.tested(k) for k in range(5)])
    assert (tested.sum(0) == 1).all()
    for k in range(5):
        parts = digits.tested(k), digits.validated(k), digits.trained(k)
        assert (torch.stack(parts).sum(0) == 1).all()


def test_five_at_once_learn_what_each_learns_alone(digits):
    nets = fivefold.train(fivefold.Nets([64, 12, 10]), digits, 2)
    rows = [torch.nonzero(digits.trained(k))[:, 0] for k in range(5)]
    least, k = min(map(len, rows)), 3
    torch.manual_seed(k)
    alone = torch.nn.Sequential(
        torch.nn.Linear(64, 12), torch.nn.ReLU(), torch.nn.Linear(12, 10)
    )
    optimizer = torch.optim.AdamW(alone.parameters(), lr=6e-3)
    steps = 2 * (least // 128)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, steps)
    dice = torch.Generator().manual_seed(0)
    for _ in range(2):
        order_N = torch.randperm(least, generator=dice)
        for at in range(0, least // 128 * 128, 128):
            batch = rows[k][order_N[at : at + 128]]
            loss = torch.nn.functional.cross_entropy(
                alone(digits.X_ND[batch]), digits.y_N[batch]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
    with torch.no_grad():
        got, want = nets.net(k)(digits.X_ND), alone(digits.X_ND)
    assert (got - want).abs().max() < 1e-3


def test_nets_are_chapter_24s_nets(digits):
    nets = fivefold.Nets([64, 16, 8, 10])
    torch.manual_seed(2)
    want = quant.Folds.net((16, 8))
    for got, other in zip(nets.net(2).parameters(), want.parameters()):
        assert torch.equal(got, other)
    logits = fivefold.logits(nets, digits)
    with torch.no_grad():
        assert torch.allclose(logits[2], want(digits.X_ND), atol=1e-5)


def test_harden_equals_the_gated_nets(digits):
    nets = fivefold.Nets([64, 16, 8, 10])
    dice = torch.Generator().manual_seed(0)
    gates = [
        torch.rand(5, n, generator=dice).mul(1.5).sub(0.5).clamp(0, 1)
        for n in (64, 16, 8)
    ]
    gated = fivefold.logits(nets, digits, gates)
    for k in range(5):
        kept, net = compute.harden(nets.layers(k), [z[k] for z in gates])
        with torch.no_grad():
            assert torch.allclose(net(digits.X_ND[:, kept]), gated[k], atol=1e-5)
        units = [int((z[k] > 0).sum()) for z in gates] + [10]
        assert compute.macs(net) == sum(a * b for a, b in pairwise(units))


def test_a_lone_price_asks_less_and_the_ends_are_the_networks_alone(pair):
    nobody = torch.ones_like(pair.right1_KN)
    cost, alone = pair.judge(nobody)
    assert cost == pair.costs[0] == 1440
    assert pair.judge(~nobody)[0] == sum(pair.costs)
    asked = [pair.judge(pair.by_price(price))[0] for price in (1e-3, 0.02, 10.0)]
    assert asked[0] > asked[1] >= asked[2] and asked[2] < 1.05 * cost
    assert pair.judge(pair.by_price(1e-3))[1] > alone


def test_thresholds_are_not_chosen_on_the_rows_that_judge_them(pair, digits):
    before = pair.by_price(0.02)
    kept = pair.loss1_KN.clone()
    for k in range(5):
        pair.loss1_KN[k, digits.tested(k)] = 99.0
    after = pair.by_price(0.02)
    pair.loss1_KN.copy_(kept)
    assert torch.equal(before, after)


def test_a_front_is_what_brute_force_says():
    dice = torch.Generator().manual_seed(1)
    for size in (1, 5, 60):
        points = [
            tuple(p) for p in torch.randint(0, 15, (size, 2), generator=dice).tolist()
        ]
        cells = {
            (x, y)
            for x, y in product(range(15), repeat=2)
            if any(c <= x and s > y for c, s in points)
        }
        assert compute.hypervolume(points, (15, 0)) == len(cells)
