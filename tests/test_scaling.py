"""utils/built/scaling.py and chapter 10's recording: laws, a family of networks, a lab."""

import numpy as np
import pytest
import torch

from utils.bench import scaling as bench
from utils.built import scaling
from utils.figures import scaling as figures

CITED = (1.8172, 482.01, 0.3478, 2085.43, 0.3658)  # Besiroglu and others 2024


def test_the_fit_finds_a_planted_law_in_240_noisy_runs():
    dice = np.random.default_rng(0)
    N = np.exp(dice.uniform(np.log(5e7), np.log(1e10), 240))
    D = N * np.exp(dice.uniform(np.log(2), np.log(100), 240))
    L = figures.told(CITED, N, D) * np.exp(dice.normal(0, 0.003, 240))
    E, A, alpha, B, beta = scaling.fit_surface(N, D, L)
    assert abs(E / CITED[0] - 1) < 0.02
    assert abs(alpha / CITED[2] - 1) < 0.1 and abs(beta / CITED[4] - 1) < 0.1
    found = scaling.optimum(A, alpha, B, beta, 5.76e23)
    want = scaling.optimum(*CITED[1:], 5.76e23)
    assert 0.6 < found[0] / want[0] < 1.6


def test_the_recording_is_the_whole_grid():
    runs = scaling.recorded()
    places = {(run["hidden"], run["steps"], run["seed"]) for run in runs}
    assert len(runs) == len(places) == 96
    for run in runs:
        assert run["N"] == figures.PER_HIDDEN * run["hidden"]
        assert run["D"] == bench.BATCH * run["steps"]


def test_a_recorded_run_comes_out_again():
    "On other machines other last digits: a seed is worth 0.03 nats."
    torch.set_num_threads(1)
    (again,) = bench.grid(hidden=(8,), steps=(150,), seeds=(0,))
    (then,) = (run for run in scaling.recorded()
               if (run["hidden"], run["steps"], run["seed"]) == (8, 150, 0))  # fmt: skip
    assert again["N"] == then["N"] and abs(again["loss"] - then["loss"]) < 0.03


def test_budgets_hold_runs_of_one_cost():
    for C, runs in figures.budgets().items():
        assert np.allclose(6 * runs[:, 0] * runs[:, 1], C)


def test_muP_at_the_base_width_changes_no_rate():
    rates = 2.0 ** np.arange(-9, -5)
    relative = {"in": 1.0, "hidden": 1.0, "out": 1.0}
    a, b = (scaling.sweep(8, rates[part], relative, steps=30)
            for part in (slice(None), slice(1, 3)))  # fmt: skip
    assert torch.allclose(a[1:3], b, atol=1e-4), "each rate trains by itself"


@pytest.mark.parametrize(("doublings", "size"), [(2, 3), (11, 10)])
def test_the_lab_draws_its_corners(doublings, size):
    fig, says = figures.spend(doublings, size)
    assert str(2**size) in says
    figures.plots.png(fig)
