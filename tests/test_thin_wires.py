"""Chapter 20's modules on real processes."""

import pytest
import torch
from torch import distributed as dist

from utils import ranks
from utils.built import fleet, thin
from utils.practice import rehearse


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("P", [1, 7, 8, 9, 64, 17_226])
def test_bits_come_back(P):
    bits_P = normal(P, seed=P) > 0
    packed = thin.pack_bits(bits_P)
    assert packed.nbytes == -(-P // 8)
    assert torch.equal(thin.unpack_bits(packed, P), bits_P)


def test_top_k_and_spread_are_inverse_where_all_is_sent():
    v_P = normal(12)
    assert torch.equal(thin.spread(*thin.top_k(v_P, 12), 12), v_P)


def test_real_ranks_do_what_the_rehearsal_does():
    def fn(rank, n):
        v_P, G_DN = normal(21, seed=rank), normal(5, 4, seed=10 + rank)
        across = [dist.new_group([i, i + 2]) for i in range(2)][rank % 2]
        inside = [dist.new_group([b, b + 1]) for b in (0, 2)][rank // 2]
        mean_DN, Q_NK = thin.power_step(G_DN, normal(4, 2, seed=9))
        return (
            *thin.exchange_signs(v_P), mean_DN, Q_NK,
            thin.two_level_sum(v_P, inside, across),
        )  # fmt: skip

    for real, played in zip(ranks.run(fn, 4), rehearse(fn, 4)):
        for x, y in zip(real, played):
            assert torch.allclose(x, y, atol=1e-12)


def test_local_round_with_one_step_of_sgd_is_data_parallel():
    X_ND, y_N, _, _ = fleet.digits(torch.float64)

    def model():
        torch.manual_seed(0)
        return torch.nn.Linear(64, 10).double()

    def fn(rank, n):
        mine = model()
        rows = torch.arange(32)[rank::n]
        mover = torch.optim.SGD(mine.parameters(), lr=0.5)
        thin.local_round(mine, mover, [(X_ND[rows], y_N[rows])])
        return mine.weight.detach()

    alone = model()
    torch.nn.functional.cross_entropy(alone(X_ND[:32]), y_N[:32]).backward()
    want = alone.weight - 0.5 * alone.weight.grad
    for weight in ranks.run(fn, 2):
        assert torch.allclose(weight, want, atol=1e-12)


# ---- the fleet ----


def test_a_fleets_gradient_is_autograds_of_one_network():
    w_SP = fleet.start([3], torch.float64)
    (rows,) = fleet.batches([3], 2, 1, rows=5)
    got = fleet.gradients(w_SP[:, None].repeat(1, 2, 1), rows)
    X_ND, y_N, _, _ = fleet.digits(torch.float64)
    for rank in range(2):
        parts = [
            part.view(shape).clone().requires_grad_()
            for part, shape in zip(w_SP[0].split(fleet.NUMBERS), fleet.SHAPES)
        ]
        x = X_ND[rows[0, rank]]
        for number in range(0, len(parts), 2):
            x = (x.tanh() if number else x) @ parts[number] + parts[number + 1]
        torch.nn.functional.cross_entropy(x, y_N[rows[0, rank]]).backward()
        want = torch.cat([part.grad.flatten() for part in parts])
        assert torch.allclose(got[0, rank], want, atol=1e-12)


def test_each_rank_draws_from_its_own_part():
    seen = [set(), set(), set()]
    for rows in fleet.batches([0], 3, 40):
        for rank in range(3):
            seen[rank] |= set(rows[0, rank].tolist())
    assert not seen[0] & seen[1] and not seen[1] & seen[2] and not seen[0] & seen[2]


def test_seeds_do_not_disturb_each_other():
    both, one = fleet.start([0, 5]), fleet.start([5])
    assert torch.equal(both[1], one[0])
    pairs = zip(fleet.batches([0, 5], 2, 3), fleet.batches([5], 2, 3))
    assert all(torch.equal(two[1], one[0]) for two, one in pairs)
