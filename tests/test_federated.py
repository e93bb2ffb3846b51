"""Chapter 22's modules: clients at once, masks that cancel to the bit, what leaks, the
accountant beside two libraries."""

import numpy as np
import pytest
import torch

from utils.bench.federated import recorded
from utils.built import federated, private, secure
from utils.data import digits

# ---- clients ----


def pull(w_KP, s):
    return w_KP - torch.arange(3.0).double()[:, None]


def test_a_round_of_one_step_is_one_step_of_all_rows():
    w_P, n_K = torch.ones(4).double(), [2, 3, 5]
    want = w_P - 0.1 * (federated.shares_of(n_K) @ pull(w_P.repeat(3, 1), 0))
    got = federated.fedavg_round(w_P, pull, n_K, 1, 0.1)
    torch.testing.assert_close(got, want)
    c_KP = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()
    got, c_KP = federated.scaffold_round(w_P, c_KP, pull, n_K, 1, 0.1)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(c_KP, pull(w_P.repeat(3, 1), 0))


def test_scaffold_stays_where_all_rows_are_content():
    n_K = [2, 3, 5]
    best = federated.shares_of(n_K) @ torch.arange(3.0).double()
    w_P, c_KP = best.repeat(4), pull(best.repeat(3, 4), 0)
    got, new_KP = federated.scaffold_round(w_P, c_KP, pull, n_K, 7, 0.1)
    torch.testing.assert_close(got, w_P)
    # FedAvg, from the same place, walks away from clients of unequal curvature
    uneven = lambda w, s: torch.tensor([[1.0], [2], [4]]).double() * pull(w, s)  # noqa: E731
    assert (
        federated.fedavg_round(w_P, uneven, n_K, 7, 0.1) - w_P
    ).abs().max() > 0.1 and torch.isfinite(new_KP).all()


# ---- masks ----


@pytest.mark.parametrize("dropped", [(), (0,), (5,), (1, 3)])
def test_the_sum_of_survivors_is_exact(dropped):
    updates = np.random.default_rng(0).normal(size=(6, 101))
    total_P, sent = secure.secure_sum(updates, dropped)
    whole = np.rint(np.delete(updates, dropped, 0) * secure.SCALE).sum(0)
    assert np.array_equal(total_P * secure.SCALE, whole)
    assert sorted(sent) == [i for i in range(6) if i not in dropped]


def test_too_few_survivors_give_no_sum():
    with pytest.raises(RuntimeError, match="3 clients are left, 4 are needed"):
        secure.secure_sum(np.zeros((6, 2)), (0, 1, 2))


def test_a_message_looks_like_noise():
    updates = np.random.default_rng(1).normal(size=(4, 20_000))
    sent = secure.secure_sum(updates)[1][2].astype(float)
    counts = np.histogram(sent, 16, (0, 2**32))[0]
    assert abs(counts - 1250).max() < 200
    assert abs(np.corrcoef(sent, updates[2])[0, 1]) < 0.03


def test_seeds_of_another_round_give_other_messages():
    updates = np.ones((3, 8))
    first, second = (secure.secure_sum(updates, seed=s)[1][0] for s in (0, 1))
    assert not np.array_equal(first, second)


# ---- leaks and budgets ----


def test_a_crafted_layer_reads_the_sum_and_noise_stops_it():
    X_ND, y_N, X_test, _ = (torch.tensor(part) for part in digits())
    X_ND, layer = X_ND.float(), private.imprint(X_test.float(), 256, 10, seed=3)
    rows = torch.arange(40)
    total_P = private.crafted_slope(layer, X_ND[rows], y_N[rows])

    def found(total_P):
        rows_MD = private.read_imprint(total_P, 64, 1e-7)
        gaps = torch.cdist(X_ND[rows], rows_MD, p=torch.inf).min(1).values
        return (gaps < 0.05).sum().item()

    noise_P = torch.randn(len(total_P), generator=torch.Generator().manual_seed(0))
    assert found(total_P) > 15 > 0 == found(total_P + 0.1 * noise_P)


def test_a_search_finds_the_input_of_a_gradient():
    w_P, x_D = federated.weights_of(2), torch.tensor(digits()[0][5]).float()

    def slope(x_D):
        w = w_P.detach().requires_grad_()
        logits = federated.forward(w[None], x_D[None, None])[0]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([4]))
        return torch.autograd.grad(loss, w, create_graph=True)[0]

    got = private.match(slope, slope(x_D).detach(), 64)
    assert (got - x_D).abs().max() < 0.1


@pytest.mark.parametrize("row", recorded()["rows"], ids=lambda row: f"{row['sigma']}")
def test_the_budget_equals_two_libraries(row):
    ours = private.epsilon(row["q"], row["sigma"], row["steps"], row["delta"])
    assert ours == pytest.approx(row["opacus"], rel=1e-12)
    assert ours == pytest.approx(row["dp_accounting"], rel=1e-12)
    assert ours > row["dp_accounting_pld"], "moments overstate"


def test_no_step_costs_nothing():
    assert private.epsilon(0.1, 1.0, 0, 1e-5) == 0.0
