"""The collectives: exact and counted, on the practice network and on real processes."""

import json
import math

import numpy as np
import pytest

from utils import ranks
from utils.built import collectives as known
from utils.data import HERE
from utils.figures import collectives as figures
from utils.practice import Network


def numbers(n, N, seed=0):
    "n ranks' whole numbers, so that sums are exact."
    return list(np.random.default_rng(seed).integers(-99, 99, (n, N)).astype(float))


# ---- collectives ----


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("N", [1, 7, 24])
def test_all_reduces_are_exact_and_leave_their_input(n, N):
    x, net = numbers(n, N, seed=N), Network(n)
    functions = [known.ring_all_reduce, known.star_all_reduce]
    if n & (n - 1) == 0:
        functions.append(known.doubling_all_reduce)
    for function in functions:
        for y in net.run(function, x):
            assert np.array_equal(y, sum(x))
    sizes = [chunk.stop - chunk.start for chunk in known.cut(N, n)]
    net.run(known.ring_all_reduce, x)
    if n > 1:
        assert net.sent == [
            8 * (2 * N - sizes[r] - sizes[(r + 1) % n]) for r in range(n)
        ]

    def in_place(mine, comm):
        known.ring_in_place(mine, comm, np.empty(N // n + 1))
        return mine

    for y in net.run(in_place, x):
        assert np.array_equal(y, sum(x))


def test_doubling_refuses_other_numbers_of_ranks():
    with pytest.raises(ValueError, match="2, 4, 8"):
        Network(6).run(known.doubling_all_reduce, numbers(6, 2))


def test_scatter_and_gather_are_inverse():
    x = numbers(5, 13)

    def there_and_back(x_N, comm):
        return known.gather(known.scatter(x_N, comm), len(x_N), comm)

    results = Network(5).run(there_and_back, x)
    assert np.array_equal(results[0], x[0]) and results[1:] == [None] * 4


@pytest.mark.parametrize("n", range(1, 18))
def test_broadcast_takes_log2_rounds(n):
    x, net = numbers(n, 2), Network(n)
    assert all(np.array_equal(y, x[0]) for y in net.run(known.broadcast, x))
    assert net.steps == math.ceil(math.log2(n)) and net.messages == n - 1


@pytest.mark.parametrize("N", [0, 1, 5, 1001])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_cut_covers_everything_once(N, n):
    chunks = known.cut(N, n)
    sizes = [chunk.stop - chunk.start for chunk in chunks]
    assert sum(sizes) == N and max(sizes) - min(sizes) <= 1
    assert np.concatenate([np.arange(N)[c] for c in chunks]).tolist() == list(range(N))


def test_cut_refuses_no_ranks():
    with pytest.raises(ValueError, match="n >= 1"):
        known.cut(4, 0)


@pytest.mark.parametrize("n", [2, 4, 8])
def test_the_cost_is_what_the_network_takes(n):
    for name in ("star", "ring", "doubling"):
        net = Network(n, alpha=3.0, beta=0.25)
        net.run(getattr(known, f"{name}_all_reduce"), numbers(n, 16))
        assert net.time == pytest.approx(known.cost(name, n, 128, 3.0, 0.25))
    with pytest.raises(ValueError, match="'star'"):
        known.cost("tree", n, 1, 1, 1)


def test_the_links_name_their_sources():
    for link in known.links():
        assert link["alpha_source"] and link["bandwidth_source"]
        assert "http" in link["alpha_source"] + link["bandwidth_source"]
        assert 1e-7 < link["alpha"] < 1e-3 and 1e-12 < link["beta"] < 1e-7
    assert json.loads((HERE / "links.json").read_text(encoding="utf-8"))["about"]


def test_the_labs_steps_are_those_of_the_network():
    functions = {
        "ring": known.ring_all_reduce,
        "through rank 0": known.star_all_reduce,
        "doubling": known.doubling_all_reduce,
    }
    for name, function in functions.items():
        net = Network(4)
        net.run(function, numbers(4, 8))
        rounds = figures.schedule(name, 4)
        held, sent = figures.play(name, 4, len(rounds))
        assert net.steps == len(rounds) and net.sent == [64 * s for s in sent]
        assert all(len(chunk) == 4 for row in held for chunk in row)
    assert figures.schedule("doubling", 3) is None


# ---- real processes ----


def test_real_ranks_agree_with_the_network():
    def work(rank, n):
        comm, x = known.Wire(rank, n), given[rank]  # given: or ranks import this file
        results = {
            "mean": known.ring_all_reduce(x, comm, mean=True),
            "star": known.star_all_reduce(x, comm),
            "broadcast": known.broadcast(x, comm),
            "shift": known.shift(x, comm),
            "back": known.gather(known.scatter(x, comm), len(x), comm),
        }
        with ranks.traffic() as sent:
            results["ring"] = known.ring_all_reduce(x, comm)
        return {**results, "sent": sent.bytes, "messages": sent.messages}

    for n in (2, 3, 4):
        x, net = numbers(n, 1001), Network(n)
        net.run(known.ring_all_reduce, x)
        given = x
        for rank, got in enumerate(ranks.run(work, n)):
            assert np.array_equal(got["ring"], sum(x))
            assert np.array_equal(got["star"], sum(x))
            assert np.allclose(got["mean"], sum(x) / n)
            assert np.array_equal(got["broadcast"], x[0])
            assert np.array_equal(got["shift"], x[rank - 1])
            assert rank or np.array_equal(got["back"], x[0])
            assert (got["sent"], got["messages"]) == (net.sent[rank], 2 * (n - 1))


def test_a_wire_refuses_what_would_be_lost():
    with pytest.raises(ValueError, match="contiguous"):
        known.Wire(0, 2).recv(np.zeros(6)[::2], 1)


def test_shared_memory_adds_exactly():
    def work(rank, n):
        shared = known.share(folder, rank, n, 1001)
        shared[rank][:] = given[rank]
        for _ in range(2):
            known.shared_add(shared, rank, block=64)
        return np.array(shared[rank])

    for n in (1, 2, 3):
        given = numbers(n, 1001)
        with known.shared_folder(4 * n * 1001) as folder:
            for y in ranks.run(work, n):
                assert np.array_equal(y, n * sum(given))


def test_in_turns_counts_every_round_but_the_first():
    def work(rank, n):
        calls = []
        times = known.in_turns(
            {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3
        )
        return calls, times

    results = ranks.run(work, 2)
    assert results[0][0] == ["a", "b"] * 4
    times = known.slowest([times for _, times in results])
    assert [len(t) for t in times.values()] == [3, 3]
