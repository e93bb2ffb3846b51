"""One simulator of ranks and its two faces: exact, counted, and nothing is left behind."""

import contextlib
import threading
import time

import numpy as np
import pytest
import torch
from torch import distributed as dist
from torch import nn

from utils import ranks
from utils.built import collectives as known
from utils.limits import TimeLimit, time_limit
from utils.practice import (
    Deadlock,
    Mismatch,
    Network,
    NetworkError,
    Rehearsal,
    rehearse,
)
from utils.practice.simulator import Rank, Recv, Send, Simulator


@pytest.fixture(autouse=True)
def no_thread_stays():
    before = threading.active_count()
    yield
    until = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() == before


def numbers(n, N, seed=0):
    "n ranks' whole numbers, so that sums are exact."
    return list(np.random.default_rng(seed).integers(-99, 99, (n, N)).astype(float))


# ---- the simulator ----


class Scripted(Rank):
    "A rank that runs `script(rank)` on the bare simulator."

    def __init__(self, simulator, number, script):
        super().__init__(simulator, number)
        self.script = script

    def work(self):
        return self.script(self)


def play(n, script):
    simulator = Simulator(n)
    return simulator.play([Scripted(simulator, r, script) for r in range(n)])


def test_messages_wait_in_line_for_each_peer_and_tag():
    def script(rank):
        if rank.number == 0:
            sends = [Send(rank, 1, x, 8, tag) for x, tag in zip("abc", (0, 0, 7))]
            rank.post(*sends)
            rank.wait(*sends)
            return None
        got = []
        for tag in (7, 0, 0):
            recv = Recv(rank, 0, lambda send: got.append(send.value), tag)
            rank.post(recv)
            rank.wait(recv)
        return got

    assert play(2, script)[1] == ["c", "a", "b"]


def test_a_wrong_tag_is_told():
    def script(rank):
        half = Recv(rank, 1, print, 3) if rank.number == 0 else Send(rank, 0, 1, 8, 4)
        rank.post(half)
        rank.wait(half)

    with pytest.raises(Deadlock, match="rank 0 waits to receive from rank 1, tag 3"):
        play(2, script)


def test_a_deadlock_tells_its_circle():
    def fn(x, comm):
        if comm.rank == 0:
            comm.recv(x, 3)
        elif comm.rank < 4:
            comm.recv(x, {1: 3, 2: 1, 3: 2}[comm.rank])

    with pytest.raises(Deadlock, match=r"a circle: 1 -> 3 -> 2 -> 1$") as caught:
        Network(5).run(fn, numbers(5, 1))
    assert caught.value.circle == [1, 3, 2] and set(caught.value.waits) == {0, 1, 2, 3}


def test_a_rank_that_is_gone_makes_no_circle():
    def fn(x, comm):
        if comm.rank:
            comm.recv(x, comm.rank - 1)

    with pytest.raises(Deadlock, match="rank 0, which has returned") as caught:
        Network(3).run(fn, numbers(3, 1))
    assert caught.value.circle == []


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("N", [1, 5, 24])
def test_the_two_faces_count_alike(n, N):
    def gathered(x, comm):
        return known.all_gather(x, N * n, comm)

    def gather(rank, n):
        dist.all_gather([torch.empty(N) for _ in range(n)], torch.ones(N))

    cases = (
        (known.ring_all_reduce, lambda r, n: dist.all_reduce(torch.ones(N))),
        (known.broadcast, lambda r, n: dist.broadcast(torch.ones(N), src=0)),
        (gathered, gather),
    )
    x = [np.ones(N, np.float32)] * n
    for by_messages, call in cases:
        net, rehearsal = Network(n, 2.0, 0.25), Rehearsal(n, alpha=2.0, beta=0.25)
        net.run(by_messages, x)
        rehearsal.run(call)
        for count in ("sent", "received", "bytes", "messages", "time"):
            assert getattr(net, count) == getattr(rehearsal, count), count


def test_a_reduction_is_a_broadcast_backwards():
    rehearsal = Rehearsal(5)
    rehearsal.run(lambda r, n: dist.reduce(torch.ones(3), dst=2))
    assert (rehearsal.messages, rehearsal.steps) == (4, 3)
    assert rehearsal.sent[2] == 0 and rehearsal.bytes == 4 * 12


# ---- the network ----


def test_a_message_arrives_and_is_counted():
    def talk(x, comm):
        if comm.rank == 0:
            comm.send(x, 1)
            return None
        y = np.empty(3)
        comm.recv(y, 0)
        return y

    net = Network(2, alpha=2.0, beta=0.5)
    results = net.run(talk, [np.arange(3.0), None])
    assert results[0] is None and results[1].tolist() == [0, 1, 2]
    assert net.log == [(0.0, 14.0, 0, 1, 24)] and net.time == 14.0
    assert net.sent == [24, 0] and net.received == [0, 24]
    assert (net.bytes, net.messages) == (24, 1)


def test_a_rank_has_a_memory_of_its_own():
    shared = np.zeros(2)

    def write(x, comm):
        x += comm.rank + 1
        return x

    first, second = Network(2).run(write, [shared, shared])
    assert shared.tolist() == [0, 0] and first[0] == 1 and second[0] == 2


def test_every_run_is_the_same():
    net = Network(7)
    logs = []
    for _ in range(2):
        net.run(known.broadcast, numbers(7, 3))
        logs.append(net.log)
    assert logs[0] == logs[1]


def test_both_directions_at_once_cost_one_message():
    def swap(x, comm):
        y = np.empty_like(x)
        comm.sendrecv(x, 1 - comm.rank, y, 1 - comm.rank)
        return y

    net = Network(2)
    assert net.run(swap, [np.zeros(1), np.ones(1)])[0][0] == 1 and net.steps == 1


@pytest.mark.parametrize("n", [2, 3, 8])
def test_deadlock_says_who_waits_for_whom(n):
    def all_send(x, comm):
        comm.send(x, (comm.rank + 1) % comm.size)
        comm.recv(x, (comm.rank - 1) % comm.size)

    with pytest.raises(Deadlock) as caught:
        Network(n).run(all_send, numbers(n, 2))
    assert len(caught.value.waits) == n
    assert "rank 0 waits to send to rank 1;" in str(caught.value)


def test_a_message_that_nobody_takes_is_a_deadlock():
    def one_sided(x, comm):
        if comm.rank == 1:
            comm.send(x, 0)

    with pytest.raises(Deadlock, match="rank 0, which has returned"):
        Network(2).run(one_sided, numbers(2, 2))


def test_half_of_a_sendrecv_is_not_enough():
    def half(x, comm):
        if comm.rank == 0:
            comm.sendrecv(x, 1, np.empty_like(x), 1)
        else:
            comm.recv(x, 0)

    with pytest.raises(Deadlock, match="rank 0 waits to receive from rank 1"):
        Network(2).run(half, numbers(2, 2))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x, comm: comm.send(x, comm.rank), "talks to itself"),
        (lambda x, comm: comm.send(x, 2), "ranks 0 to 1"),
        (lambda x, comm: comm.send(x, -1), "ranks 0 to 1"),
        (lambda x, comm: comm.send(x, 0.0), "whole number"),
        (lambda x, comm: comm.send([1.0], 1 - comm.rank), "not list"),
        (lambda x, comm: comm.sendrecv(x, 1 - comm.rank, x, 1 - comm.rank), "sending"),
        (
            lambda x, comm: comm.recv(np.broadcast_to(x, (2, 4)), 1 - comm.rank),
            "read-only",
        ),
        (
            lambda x, comm: comm.sendrecv(
                x, 1 - comm.rank, np.empty(3), 1 - comm.rank
            ),
            "made room for 3",
        ),
        (
            lambda x, comm: comm.sendrecv(
                x, 1 - comm.rank, np.empty(4, np.float32), 1 - comm.rank
            ),
            "float32",
        ),
    ],
)  # fmt: skip
def test_a_call_that_makes_no_sense_says_why(call, says):
    with pytest.raises(NetworkError, match=says):
        Network(2).run(call, numbers(2, 4))


def test_an_error_in_a_rank_is_the_callers():
    def fails(x, comm):
        if comm.rank == 2:
            raise KeyError("mine")
        comm.recv(x, 2)

    with pytest.raises(KeyError, match="mine"):
        Network(3).run(fails, numbers(3, 1))


def test_an_endless_rank_is_ended_from_outside():
    def endless(x, comm):
        while True:
            with contextlib.suppress(BaseException):
                x = x + 0

    began = time.monotonic()
    with pytest.raises(TimeLimit), time_limit(0.2):
        Network(3).run(endless, numbers(3, 1))
    assert time.monotonic() - began < 3


def test_endless_talk_is_ended(monkeypatch):
    monkeypatch.setattr("utils.practice.simulator.MOST_MESSAGES", 50)

    def chat(x, comm):
        while True:
            comm.sendrecv(x, 1 - comm.rank, np.empty_like(x), 1 - comm.rank)

    with pytest.raises(NetworkError, match="endless loop"):
        Network(2).run(chat, numbers(2, 1))


@pytest.mark.parametrize("n", [0, -1, 257, 2.5, "4"])
def test_a_network_has_a_sensible_size(n):
    with pytest.raises(ValueError, match="1 to 256 ranks"):
        Network(n)


def test_one_input_a_rank():
    with pytest.raises(ValueError, match="3 ranks need 3 inputs, not 2"):
        Network(3).run(known.broadcast, numbers(2, 2))


# ---- the rehearsal ----


def test_a_rehearsal_repeats_itself_and_leaves_the_random_state_alone():
    def fn(rank, n):
        x = torch.rand(2)
        dist.all_reduce(x)
        return x.tolist(), torch.rand(1).item(), dist.get_rank(), dist.get_world_size()

    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = rehearse(fn, 3)
    assert torch.equal(before, torch.get_rng_state())
    assert first == rehearse(fn, 3) and len({r[1] for r in first}) == 3
    assert [r[2:] for r in first] == [(rank, 3) for rank in range(3)]
    real = ranks.run(lambda r, n: torch.rand(2).tolist(), 3)
    assert rehearse(lambda r, n: torch.rand(2).tolist(), 3) == real


def test_every_call_of_a_rehearsal_does_what_gloo_does():
    def fn(rank, n):
        made = []
        for op in ("SUM", "MAX", "MIN", "PRODUCT"):
            x = torch.arange(3) + rank + 1
            dist.all_reduce(x, getattr(dist.ReduceOp, op))
            made.append(x.tolist())
        x = torch.full((2,), float(rank))
        dist.broadcast(x, src=1)
        made.append(x.tolist())
        dist.reduce(x, dst=0)
        made.append(x.tolist() if rank == 0 else None)
        parts = [torch.zeros(2) for _ in range(n)]
        dist.all_gather(parts, torch.full((2,), float(rank)))
        made.append([p.tolist() for p in parts])
        objects = [None] * n
        dist.all_gather_object(objects, {"rank": rank})
        word = [f"from {rank}"]
        dist.broadcast_object_list(word, src=2)
        work = dist.all_reduce(x, async_op=True)
        work.wait()
        dist.barrier()
        return made, objects, word, dist.is_initialized()

    assert rehearse(fn, 3) == ranks.run(fn, 3)


def test_a_result_is_there_at_wait_and_no_sooner():
    def fn(rank, n):
        x = torch.ones(2)
        work = dist.all_reduce(x, async_op=True)
        before = x.tolist()
        work.wait()
        return before, x.tolist()

    assert rehearse(fn, 2) == [([1.0, 1.0], [2.0, 2.0])] * 2


@pytest.mark.parametrize("early", [True, False])
def test_a_rehearsal_notes_who_waits_in_backward(early):
    def fn(rank, n):
        p, works = torch.ones(2, requires_grad=True), []

        def send(p):
            works.append(dist.all_reduce(p.grad, async_op=True))
            if early:
                works[0].wait()

        p.register_post_accumulate_grad_hook(send)
        p.sum().backward()
        works[0].wait()
        return p.grad.tolist()

    calls = []
    assert rehearse(fn, 2, calls=calls) == [[2.0, 2.0]] * 2
    assert all(call.in_backward and call.asynchronous for call in calls)
    assert [call.waited_in_backward for call in calls] == [early] * 2


def test_deadlock_and_mismatch_are_told():
    def short(rank, n):
        for _ in range(2 - rank):
            dist.all_reduce(torch.zeros(3))

    def crossed(rank, n):
        dist.all_reduce(torch.zeros(3 + rank))

    with pytest.raises(
        Deadlock, match=r"rank 0 waits in its call 2.*rank 1 has returned"
    ):
        rehearse(short, 2)
    with pytest.raises(Mismatch, match=r"of 3 float32 numbers.*of 4 float32"):
        rehearse(crossed, 2)


@pytest.mark.parametrize("wrong", ["raises", "never ends"])
def test_no_thread_stays(wrong):
    def fn(rank, n):
        dist.barrier()
        if rank == 1:
            if wrong == "raises":
                raise KeyError("mine")
            while True:
                pass
        dist.barrier()

    with pytest.raises((KeyError, TimeLimit)), time_limit(0.5):
        rehearse(fn, 4)
    assert not dist.is_initialized()


def test_a_rehearsal_refuses_what_it_cannot_play():
    for call, says in (
        (lambda: dist.send(torch.zeros(1), 1), "for real processes"),
        (lambda: rehearse(lambda r, n: 1, 2), "another rehearsal"),
        (lambda: dist.all_reduce(torch.zeros(2, 2).T[:1]), "contiguous"),
        (lambda: dist.all_reduce(3), "a tensor"),
        (lambda: dist.broadcast(torch.zeros(1), src=7), "ranks 0 to 1"),
        (lambda: dist.broadcast(nn.Linear(2, 2).weight, src=0), r"no_grad\(\)"),
        (lambda: dist.all_gather([nn.Linear(1, 1).bias] * 2, torch.ones(1)), "no_grad"),
    ):
        with pytest.raises((RuntimeError, ValueError, TypeError), match=says):
            rehearse(lambda rank, n, call=call: call(), 2)
    with pytest.raises(ValueError, match="1 to 64"):
        rehearse(lambda rank, n: None, 0)


def test_an_object_that_travelled_is_a_copy():
    def fn(rank, n):
        objects = [None] * n
        dist.all_gather_object(objects, mine := [rank])
        objects[0].append("changed")
        return mine

    assert rehearse(fn, 2) == [[0], [1]]


def test_a_parameter_is_written_under_no_grad():
    def fn(rank, n):
        p = nn.Parameter(torch.full((2,), float(rank)))
        with torch.no_grad():
            dist.broadcast(p, src=1)
        dist.all_reduce(loss := (2 * p).sum())  # no leaf: nothing warns later
        return p.tolist(), loss.item()

    assert rehearse(fn, 2) == [([1.0, 1.0], 8.0)] * 2
