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


def test_a_future_calls_back_when_it_is_waited_for():
    def fn(rank, n):
        x, called = torch.full((2,), rank + 1.0), []
        work = dist.all_reduce(x, async_op=True)
        future = work.get_future().then(lambda f: called.append(1) or f.value()[0] / n)
        return future.wait().tolist(), future.wait().tolist(), x.tolist(), called

    assert rehearse(fn, 2) == [([1.5, 1.5], [1.5, 1.5], [3.0, 3.0], [1])] * 2
    assert ranks.run(fn, 2) == rehearse(fn, 2)

    def gathers(rank, n):
        parts = [torch.ones(1) for _ in range(n)]
        dist.all_gather(parts, torch.ones(1), async_op=True).get_future()

    with pytest.raises(RuntimeError, match="not of all_gather"):
        rehearse(gathers, 2)


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


def test_threads_end_even_when_the_end_is_interrupted(monkeypatch):
    rung = []
    join = threading.Thread.join

    def ring(thread, *arguments):
        if isinstance(thread, Rank) and len(rung) < 3:
            rung.append(thread)
            raise KeyboardInterrupt
        return join(thread, *arguments)

    def fn(rank, n):
        dist.barrier()
        if rank == 0:
            raise KeyError("mine")

    monkeypatch.setattr(threading.Thread, "join", ring)
    with pytest.raises(KeyboardInterrupt):
        rehearse(fn, 4)
    assert len(rung) == 3


REFUSED = (
    (lambda: dist.init_process_group("gloo"), "for real processes"),
    (lambda: rehearse(lambda r, n: 1, 2), "another rehearsal"),
    (lambda: dist.all_reduce(torch.zeros(2, 2).T[:1]), "contiguous"),
    (lambda: dist.all_reduce(3), "a tensor"),
    (lambda: dist.broadcast(torch.zeros(1), src=7), "ranks 0 to 1"),
    (lambda: dist.broadcast(torch.zeros(1), src=True), "ranks 0 to 1"),
    (lambda: dist.broadcast(torch.zeros(1), src=0, group_src=0), "not both"),
    (lambda: dist.broadcast(torch.zeros(1), group_src=2), "places 0 to 1"),
    (lambda: dist.broadcast(nn.Linear(2, 2).weight, src=0), r"no_grad\(\)"),
    (lambda: dist.all_gather([nn.Linear(1, 1).bias] * 2, torch.ones(1)), "no_grad"),
    (lambda: dist.all_gather([torch.ones(1)] * 3, torch.ones(1)), "a list of 2"),
    (lambda: dist.send(torch.ones(1), dist.get_rank()), "sends to itself"),
    (lambda: dist.recv(torch.ones(1)), "name the rank at the other end"),
    (lambda: dist.isend(torch.ones(1), 1 - dist.get_rank(), tag=-1), "tag is a whole"),
    (lambda: dist.batch_isend_irecv([]), "at least one"),
    (lambda: dist.P2POp(dist.send, torch.ones(1), 1), "op is dist.isend or"),
    (lambda: dist.new_group([0, 0]), "each once"),
    (lambda: dist.new_group([0, 2]), "ranks 0 to 1"),
    (lambda: dist.barrier(group=[0, 1]), "what dist.new_group gave"),
    (lambda: dist.reduce_scatter(torch.ones(1), [torch.ones(1)]), "a list of 2"),
    (lambda: dist.reduce_scatter(torch.ones(2), [torch.ones(1)] * 2), "2 numbers, and 1"),
    (lambda: dist.all_to_all_single(torch.ones(3), torch.ones(3)), "share equally"),
    (lambda: dist.all_to_all_single(torch.ones(3), torch.ones(3), [1, 1], [2, 1]),
     "add up to 3"),
    (lambda: dist.scatter(torch.ones(1), [torch.ones(2)] * 2), "and 1 are needed"),
)  # fmt: skip


@pytest.mark.parametrize(("call", "says"), REFUSED)
def test_a_rehearsal_refuses_what_it_cannot_play(call, says):
    with pytest.raises((RuntimeError, ValueError, TypeError), match=says):
        rehearse(lambda rank, n: call(), 2)


def test_a_rehearsal_has_a_rank_or_more():
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


# ---- point to point, groups, the other collective calls ----


def points(rank, n):
    "Every road of a message: -> what this rank has at the end."
    right, left = (rank + 1) % n, (rank - 1) % n
    x, got = torch.full((3,), float(rank)), []
    y = torch.empty(3)
    if rank % 2:
        sources = [dist.recv(y, left)]
        dist.send(x, right)
    else:
        dist.send(x, right)
        sources = [dist.recv(y, left)]
    got.append(y.tolist())
    works = [dist.isend(x + k, right, tag=k) for k in (5, 6)]
    late, early = torch.empty(3), torch.empty(3)
    dist.irecv(late, left, tag=6).wait()
    dist.irecv(early, left, tag=5).wait()
    works = [work.wait() for work in works]
    got += [late.tolist(), early.tolist()]
    z = torch.empty(3, dtype=torch.int64)
    ops = [
        dist.P2POp(dist.isend, torch.full((3,), rank), right),
        dist.P2POp(dist.irecv, z, left),
    ]
    for work in dist.batch_isend_irecv(ops):
        work.wait()
    return got, z.tolist(), sources


def groups(rank, n):
    "Two pairs and everybody; numbers among all and places in the group."
    pairs = [dist.new_group([0, 2]), dist.new_group([3, 1])]
    mine = pairs[rank % 2]
    x, made = torch.tensor([float(rank)]), []
    dist.all_reduce(x, group=mine)
    made.append(x.item())
    y = torch.tensor([float(rank)])
    dist.broadcast(y, src=2 + rank % 2, group=mine)
    made.append(y.item())
    z = torch.tensor([float(rank)])
    if rank in (0, 2):
        if rank == 0:
            dist.send(z, 2, group=mine)
        else:
            dist.recv(z, group_src=0, group=mine)
    made.append(z.item())
    parts = [torch.empty(1), torch.empty(1)]
    dist.all_gather(parts, torch.tensor([float(rank)]), group=mine)
    objects = [None, None]
    dist.all_gather_object(objects, rank, group=mine)
    dist.barrier(group=mine)
    dist.barrier()
    other = pairs[1 - rank % 2]
    return (
        made, [p.item() for p in parts], objects, dist.get_rank(mine),
        dist.get_world_size(mine), dist.get_process_group_ranks(mine),
        dist.get_global_rank(mine, 1), dist.get_group_rank(mine, rank),
        other == dist.GroupMember.NON_GROUP_MEMBER,
    )  # fmt: skip


def named(*names):
    "The call by the name that this torch uses; the first is the newest."
    return next(getattr(dist, name) for name in names if hasattr(dist, name))


def exchanges(rank, n):
    made, x = [], torch.arange(2.0 * n) + rank
    part = torch.empty(2)
    dist.reduce_scatter(part, list(x.chunk(n)))
    made.append(part.tolist())
    part = torch.empty(2)
    named("reduce_scatter_single", "reduce_scatter_tensor")(part, x, dist.ReduceOp.MAX)
    made.append(part.tolist())
    whole = torch.empty(2 * n)
    named("all_gather_single", "all_gather_into_tensor")(whole, part)
    made.append(whole.tolist())
    into = [torch.empty(2) for _ in range(n)]
    dist.all_to_all(into, [c.clone() for c in x.chunk(n)])
    made.append([i.tolist() for i in into])
    swapped = torch.empty(n, 2)
    dist.all_to_all_single(swapped, x.view(n, 2).contiguous())
    made.append(swapped.tolist())
    rows = [rank + to for to in range(n)]  # rank r sends r + to rows to rank `to`
    y = torch.full((sum(rows), 2), float(rank))
    z = torch.empty(sum(rows), 2)
    dist.all_to_all_single(z, y, rows, rows)
    made.append(z[:, 0].tolist())
    gathered = [torch.empty(2) for _ in range(n)] if rank == 1 else None
    dist.gather(part, gathered, dst=1)
    made.append(None if gathered is None else [g.tolist() for g in gathered])
    mine = torch.empty(2)
    dist.scatter(
        mine, [torch.full((2,), 1.0 * r) for r in range(n)] if rank == 0 else None
    )
    made.append(mine.tolist())
    return made


@pytest.mark.parametrize(("fn", "n"), [(points, 4), (groups, 4), (exchanges, 3)])
@pytest.mark.filterwarnings("ignore:.*:FutureWarning")
def test_messages_groups_and_exchanges_do_what_gloo_does(fn, n):
    rehearsed = rehearse(fn, n)
    assert rehearsed == rehearse(fn, n)
    assert rehearsed == ranks.run(fn, n)


def test_the_names_of_two_versions_of_torch_are_played():
    def fn(rank, n):
        made = []
        for name in ("reduce_scatter_tensor", "reduce_scatter_single"):
            if hasattr(dist, name):
                getattr(dist, name)(part := torch.empty(1), torch.ones(n))
                made.append(part.item())
        for name in ("all_gather_into_tensor", "all_gather_single"):
            if hasattr(dist, name):
                getattr(dist, name)(whole := torch.empty(n), torch.ones(1))
                made.append(whole.sum().item())
        return made

    assert {x for made in rehearse(fn, 2) for x in made} == {2.0}


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_exchanges_cost_what_the_textbook_says(n):
    N = 6 * n  # numbers of 4 bytes
    x = torch.ones(N)
    to_all = list(x.chunk(n))
    cases = {
        "reduce_scatter": (lambda r: dist.reduce_scatter(torch.empty(6), to_all),
                           n - 1, n * (n - 1) * 24),
        "all_to_all": (lambda r: dist.all_to_all([torch.empty(6) for _ in to_all], to_all),
                       n - 1, n * (n - 1) * 24),
        "gather": (lambda r: dist.gather(x, [x.clone() for _ in to_all] if r == 0 else None),
                   n - 1, (n - 1) * 4 * N),
        "scatter": (lambda r: dist.scatter(x[:6], to_all if r == 0 else None),
                    n - 1, (n - 1) * 24),
    }  # fmt: skip
    for name, (call, steps, size) in cases.items():
        rehearsal = Rehearsal(n)
        rehearsal.run(lambda r, _, call=call: call(r))
        assert (rehearsal.steps, rehearsal.bytes) == (steps, size), name


def test_messages_cost_what_the_network_of_chapter_16_says():
    def ring(rank, n):
        x, y = torch.ones(5), torch.empty(5)
        work = dist.isend(x, (rank + 1) % n)
        dist.recv(y, (rank - 1) % n)
        work.wait()

    def by_comm(x, comm):
        comm.sendrecv(x, (comm.rank + 1) % 3, np.empty_like(x), (comm.rank - 1) % 3)

    rehearsal, net = Rehearsal(3, alpha=2.0, beta=0.25), Network(3, 2.0, 0.25)
    rehearsal.run(ring)
    net.run(by_comm, [np.ones(5, np.float32)] * 3)
    for count in ("sent", "received", "messages", "time", "log"):
        assert getattr(rehearsal, count) == getattr(net, count), count


def test_a_rank_sends_one_message_and_receives_one_at_a_time():
    def fan(rank, n):
        if rank == 0:
            works = [dist.isend(torch.ones(2), to) for to in range(1, n)]
        else:
            works = [dist.irecv(torch.empty(2), 0)]
        return [work.wait() for work in works]

    rehearsal = Rehearsal(4)
    rehearsal.run(fan)
    assert (rehearsal.steps, rehearsal.messages, rehearsal.sent[0]) == (3, 3, 24)


def test_a_group_counts_its_own_ranks_only():
    def fn(rank, n):
        group = dist.new_group([1, 3])
        if rank in (1, 3):
            dist.all_reduce(torch.ones(8), group=group)

    calls = []
    rehearsal = Rehearsal(4, calls=calls)
    rehearsal.run(fn)
    assert rehearsal.sent == [0, 32, 0, 32] and rehearsal.steps == 2
    assert [c.name for c in calls].count("new_group") == 4


def test_what_arrives_is_written_at_wait_and_read_when_it_leaves():
    def fn(rank, n):
        x = torch.zeros(1)
        if rank == 0:
            work = dist.isend(x, 1)
            x += 1  # before it has left: a fault that shows
            work.wait()
            return None
        work = dist.irecv(x, 0)
        dist.barrier() if n > 2 else None
        before = x.item()
        work.wait()
        return before, x.item()

    assert rehearse(fn, 2)[1] == (0.0, 1.0)


def facing(rank, n):
    dist.send(torch.ones(1), 1 - rank)
    dist.recv(torch.ones(1), 1 - rank)


def wrong_tag(rank, n):
    if rank == 0:
        dist.recv(torch.ones(1), 1, tag=3)
    else:
        dist.isend(torch.ones(1), 0, tag=4).wait()


def nobody_answers(rank, n):
    if rank == 0:
        dist.irecv(torch.ones(1), 1, tag=3).wait()


def one_of_a_group(rank, n):
    group = dist.new_group([0, 1])
    if rank == 0:
        dist.barrier(group=group)


def message_in_a_group(rank, n):
    group = dist.new_group([0, 1])
    if rank == 0:
        dist.recv(torch.ones(1), 1, group=group)
    else:
        dist.send(torch.ones(1), 0)  # among all: another line


@pytest.mark.parametrize(
    ("fn", "says"),
    [
        (facing, "rank 0 waits to send to rank 1; rank 1 waits to send to rank 0; a circ"),
        (wrong_tag, r"rank 0 waits to receive from rank 1, tag 3 \(which has opened tag 4"),
        (nobody_answers, "rank 0 waits to receive from rank 1, tag 3, which has returned"),
        (one_of_a_group, r"rank 0 waits in its call 1 in group \[0, 1\], barrier, for rank 1"),
        (message_in_a_group, r"rank 0 waits to receive from rank 1, in group \[0, 1\]"),
    ],
)  # fmt: skip
def test_deadlocks_of_messages_and_groups_are_told(fn, says):
    with pytest.raises(Deadlock, match=says):
        rehearse(fn, 2)


def room_too_small(rank, n):
    if rank == 0:
        dist.send(torch.ones(3), 1)
    else:
        dist.recv(torch.ones(4), 0)


def uneven_splits(rank, n):
    rows = [[1, 2], [2, 2]][rank]
    dist.all_to_all_single(
        torch.empty(sum(rows)), torch.ones(sum(rows)), rows, rows[::-1]
    )


def group_of_others(rank, n):
    dist.new_group([0, 1 + rank] if n > 2 else [rank])


def other_calls_in_a_group(rank, n):
    group = dist.new_group([0, 1])
    dist.barrier(group=group) if rank else dist.all_reduce(torch.ones(1), group=group)


@pytest.mark.parametrize(
    ("fn", "says"),
    [
        (room_too_small, "rank 0 sends 3 float32 numbers to rank 1, which made room for 4"),
        (uneven_splits, "in all_to_all_single rank 0 sends 2 numbers to rank 0, which made"),
        (group_of_others, r"is new_group, of \[0\], of rank 1 new_group, of \[1\]"),
        (other_calls_in_a_group, r"call 1 of rank 1 in group \[0, 1\] is barrier, of rank 0 all_red"),
    ],
)  # fmt: skip
def test_mismatches_of_messages_and_groups_are_told(fn, says):
    with pytest.raises(Mismatch, match=says):
        rehearse(fn, 2)


def test_only_members_call_in_a_group():
    def fn(rank, n):
        group = dist.new_group([1])
        dist.barrier(group=group)

    with pytest.raises(RuntimeError, match="rank 0 is not in the group"):
        rehearse(fn, 2)


def test_calls_of_messages_are_noted():
    def fn(rank, n):
        x = torch.ones(2)
        dist.isend(x, 1).wait() if rank == 0 else dist.recv(x, 0)

    rehearse(fn, 2, calls=(calls := []))
    seen = [(c.rank, c.name, c.numbers, c.bytes, c.asynchronous) for c in calls]
    assert sorted(seen) == [(0, "isend", 2, 8, True), (1, "recv", 2, 8, False)]
