"""Chapter 17's functions on real processes and in a rehearsal, and the chapter's recipes.

The functions travel by value, as those of a notebook do.
"""

import os
import re
import sys

import cloudpickle
import pytest
import torch
import torch.nn.functional as F
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.two_machines import slurm_job
from utils import ranks
from utils.built import data_parallel as course
from utils.practice import rehearse

posix = pytest.mark.skipif(os.name == "nt", reason="bash")
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def labels(N, seed=0):
    return torch.randint(4, (N,), generator=torch.Generator().manual_seed(seed))


def network():
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double()


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# ---- n ranks equal one process ----


def train(rank, n, steps=50):
    "Ragged shards, AdamW, each rank seeded differently."
    model = network()
    course.synchronise(model)
    start = flat(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for step in range(steps):
        X, y = normal(14, 6, seed=step), labels(14, seed=step)
        course.parallel_step(model, optimizer, X[rank::n], y[rank::n])
    return start, flat(model)


def train_alone(start, steps=50):
    model = network()
    nn.utils.vector_to_parameters(start.clone(), model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for step in range(steps):
        optimizer.zero_grad()
        X, y = normal(14, 6, seed=step), labels(14, seed=step)
        F.cross_entropy(model(X), y).backward()
        optimizer.step()
    return flat(model)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_fifty_steps_on_real_ranks_equal_one_process(n):
    results = ranks.run(train, n)
    alone = train_alone(results[0][0])
    for start, weights in results:
        assert torch.equal(start, results[0][0]) and torch.equal(weights, results[0][1])
        torch.testing.assert_close(weights, alone, atol=1e-9, rtol=0)


def test_a_rehearsal_and_real_ranks_agree():
    rehearsed, real = rehearse(train, 3), ranks.run(train, 3)
    for (_, a), (_, b) in zip(rehearsed, real):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=0)


def test_buckets_accumulation_and_ddp_give_the_same_weights():
    def fn(rank, n):
        ours, theirs = network(), network()
        course.synchronise(ours)
        theirs.load_state_dict(ours.state_dict())
        parallel = course.Overlapped(ours, cap=200)
        ddp = DistributedDataParallel(theirs)
        movers = [torch.optim.AdamW(m.parameters(), lr=0.01) for m in (ours, theirs)]
        for step in range(10):
            X, y = normal(12, 6, seed=step)[rank::n], labels(12, seed=step)[rank::n]
            course.accumulate(parallel, movers[0], list(zip(X.chunk(3), y.chunk(3))))
            movers[1].zero_grad()
            F.cross_entropy(ddp(X), y).backward()
            movers[1].step()
        return len(parallel.buckets), flat(ours), flat(theirs)

    for buckets, ours, theirs in ranks.run(fn, 2):
        assert buckets > 1
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)


def test_no_sync_sends_nothing_and_comes_back_after_an_error():
    def fn(rank, n):
        model = network()
        parallel = course.Overlapped(model)
        with ranks.traffic() as sent, parallel.no_sync():
            model(normal(3, 6)).sum().backward()
        with pytest.raises(KeyError), parallel.no_sync():
            raise KeyError
        return sent.wire, parallel.sync

    for wire, sync in ranks.run(fn, 2):
        assert wire in (0, None) and sync


@pytest.mark.parametrize("n", [1, 2, 3])
def test_gradients_in_shared_memory(n):
    def fn(rank, n):
        model = network()
        course.synchronise(model)
        step, used = course.SharedMemoryStep(model), []
        for seed in range(3):
            X, y = normal(8, 6, seed=10 * seed + rank), labels(8, seed=seed)
            step.backward(F.cross_entropy(model(X), y))
            ours = [p.grad.clone() for p in model.parameters()]
            model.zero_grad()
            for p in model.parameters():
                p._backward_hooks = None
            grads = torch.autograd.grad(
                F.cross_entropy(model(X), y), model.parameters()
            )
            for g in grads:
                dist.all_reduce(g)
            used.append(
                max((a - g / n).abs().max().item() for a, g in zip(ours, grads))
            )
        return max(used)

    assert max(ranks.run(fn, n)) < 1e-12


def test_scores_over_uneven_ranks():
    def fn(rank, n):
        return course.mean_over_ranks([3, 0, 1][rank], [4, 0, 1][rank])

    assert ranks.run(fn, 3) == [0.8] * 3


# ---- ranks that do not have the same model ----


def odd_one(kind, rank, n):
    "The last rank's network differs from the others': -> the network."
    model = network()
    if rank == n - 1:
        if kind == "shape":
            model[0] = nn.Linear(8, 6).double()  # as many numbers, in another shape
        elif kind == "size":
            model[2] = nn.Linear(8, 5).double()
        elif kind == "dtype":
            model[2] = nn.Linear(8, 4)
        elif kind == "count":
            model.append(nn.Linear(4, 4).double())
        elif kind == "frozen":
            model[0].weight.requires_grad_(False)
    return model


ODD = {
    "shape": r"Tensor 1 is 0.weight \(8, 6\) of float64 on rank 0, and 0.weight \(6, 8\) "
             "of float64 on rank {last}",
    "size": r"Tensor 3 is 2.weight \(4, 8\) of float64 on rank 0, and 2.weight \(5, 8\)",
    "dtype": r"Tensor 3 is 2.weight \(4, 8\) of float64 on rank 0, and .* of float32",
    "count": r"Tensor 5 is nothing on rank 0, and 3.weight \(4, 4\) of float64 on rank "
             r"{last} \(4 tensors, and 6\)",
    "frozen": r"Tensor 1 is 0.weight \(8, 6\) of float64 on rank 0, and 0.bias \(8,\)",
}  # fmt: skip
FIRST = {
    "Overlapped": course.Overlapped,
    "average_gradients": course.average_gradients,
    "synchronise": course.synchronise,
    "SharedMemoryStep": course.SharedMemoryStep,
}


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("kind", ODD)
def test_ranks_that_disagree_are_told_in_a_rehearsal(first, kind):
    if (first, kind) == ("synchronise", "frozen"):
        pytest.skip("frozen ones are broadcast as well")
    says = f"{first}: the ranks' models differ. {ODD[kind].replace('{last}', '2')}"
    with pytest.raises(ValueError, match=says):
        rehearse(lambda rank, n: FIRST[first](odd_one(kind, rank, n)), 3)


@pytest.mark.parametrize("kind", ODD)
def test_ranks_that_disagree_are_told_on_every_rank(kind):
    def fn(rank, n):
        model, said = odd_one(kind, rank, n), []
        for name, call in FIRST.items():
            if (name, kind) != ("synchronise", "frozen"):
                with pytest.raises(ValueError) as caught:
                    call(model)
                said.append(f"{caught.value}")
        return said

    for said in ranks.run(fn, 2):
        for name, text in zip(
            [k for k in FIRST if (k, kind) != ("synchronise", "frozen")], said
        ):
            whole = (
                f"{name}: the ranks' models differ. {ODD[kind].replace('{last}', '1')}"
            )
            assert re.match(whole, text), text


def test_shared_memory_in_a_rehearsal():
    def fn(rank, n):
        model = nn.Linear(2, 1, bias=False)
        step = course.SharedMemoryStep(model)
        step.backward(model(torch.full((1, 2), 1.0 + rank)).sum())
        return model.weight.grad.tolist()

    assert rehearse(fn, 3) == ranks.run(fn, 3) == [[[2.0, 2.0]]] * 3


def test_what_is_agreed_upon_is_not_asked_again():
    def fn(rank, n):
        model, sent = network(), []
        X, y = normal(4, 6), labels(4)
        for _ in range(3):
            F.cross_entropy(model(X), y).backward()
            with ranks.traffic() as counted:
                course.average_gradients(model)
            sent.append(counted.wire)
        return sent

    first, second, third = ranks.run(fn, 2)[0]
    if first is not None:
        assert first > second == third


def test_agreement_costs_no_call_in_a_rehearsal():
    def fn(rank, n):
        model = network()
        model(normal(2, 6)).sum().backward()
        course.average_gradients(model)

    rehearse(fn, 2, calls=(calls := []))
    assert [c.name for c in calls] == ["all_reduce"] * 2 * 4


# ---- what real ranks do where the chapter says so ----


def test_uneven_epochs_hang_and_ranks_says_so():
    def fn(rank, n):
        for _ in range(3 - rank):
            dist.all_reduce(torch.zeros(3))

    with pytest.raises(ranks.RankTimeout, match="no rank can go on"):
        ranks.run(fn, 2)


def test_broadcast_moves_parameters_and_whole_numbers_in_place():
    def fn(rank, n):
        model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        model[1].num_batches_tracked += rank + 5
        before = [id(p) for p in model.parameters()]
        course.synchronise(model)
        assert before == [id(p) for p in model.parameters()]
        return flat(model).tolist(), model[1].num_batches_tracked.item()

    results = ranks.run(fn, 2)
    assert results[0] == results[1] and results[0][1] == 5


# ---- the chapter's Slurm file; its script runs in tests/test_torchrun.py ----

TOLD = """
import os
names = "RANK", "WORLD_SIZE", "LOCAL_RANK", "OMP_NUM_THREADS", "MASTER_PORT"
print(" ".join(["told", *(os.environ[name] for name in names)]))
"""


@posix
def test_the_slurm_file_runs_two_machines_over_loopback(tmp_path):
    "Two torchrun agents, one rendezvous, a rank each, as the chapter's file says."
    said = slurm_job(tmp_path, "17_data_parallel", "train.py", text=TOLD)
    ranks_told = sorted(re.findall(r"told (\d) (\d) (\d) (\d+) (\d+)", said))
    assert [told[:4] for told in ranks_told] == [
        ("0", "2", "0", "1"), ("1", "2", "0", "1"),
    ], said  # fmt: skip
    assert ranks_told[0][4] == ranks_told[1][4], "both meet at one port"
