import math

import numpy as np

from tests.wrong_answers import WrongAnswers
from utils.collectives import all_gather as right_all_gather
from utils.collectives import cut as right_cut
from utils.collectives import fit as right_fit
from utils.collectives import reduce_scatter as right_reduce_scatter

wrong = WrongAnswers("collectives")


# ---- pass_right ----


@wrong("pass_right", says="overwritten before its neighbour")
def one_after_the_other(held):
    new = list(held)
    for rank in range(len(new) - 1):
        new[rank + 1] = new[rank]
    new[0] = new[-1]
    return new


@wrong("pass_right", says="changes its input in place")
def in_place(held):
    held.insert(0, held.pop())
    return held


@wrong("pass_right", says="wrong way round")
def pass_left(held):
    return held[1:] + held[:1]


@wrong("pass_right", says="The ring is open")
def open_ring(held):
    return [held[0]] + held[:-1]


@wrong("pass_right", says="Nothing has moved")
def stays(held):
    return list(held)


@wrong("pass_right", says="is a `return` missing?")
def forgets_return(held):
    [held[-1], *held[:-1]]


# ---- cut ----


@wrong("cut", says="are in no chunk")
def drops_the_rest(N, n):
    return [slice(i * (N // n), (i + 1) * (N // n)) for i in range(n)]


@wrong("cut", says="Unequal")
def rest_to_the_last(N, n):
    size = N // n
    return [slice(i * size, N if i == n - 1 else (i + 1) * size) for i in range(n)]


@wrong("cut", says="Unequal")
def rounds_up(N, n):
    size = math.ceil(N / n)
    return [slice(min(i * size, N), min((i + 1) * size, N)) for i in range(n)]


@wrong("cut", says="in two chunks")
def one_too_far(N, n):
    ends = [N * i // n for i in range(n + 1)]
    return [slice(a, b + 1) for a, b in zip(ends, ends[1:])]


@wrong("cut", says="chunks for")
def size_for_number(N, n):
    return [slice(i, i + n) for i in range(0, N, n)]


@wrong("cut", says="return slices")
def pairs(N, n):
    return [(N * i // n, N * (i + 1) // n) for i in range(n)]


@wrong("cut", says="not in order")
def backwards(N, n):
    return right_cut(N, n)[::-1]


# ---- shift ----


@wrong("shift", says="Deadlock")
def all_send_first(x, comm):
    y = np.empty_like(x)
    comm.send(x, (comm.rank + 1) % comm.size)
    comm.recv(y, (comm.rank - 1) % comm.size)
    return y


@wrong("shift", says="waits to receive from rank")
def all_receive_first(x, comm):
    y = np.empty_like(x)
    comm.recv(y, (comm.rank - 1) % comm.size)
    comm.send(x, (comm.rank + 1) % comm.size)
    return y


@wrong("shift", says="right neighbour's")
def shifts_left(x, comm):
    y, left, right = (
        np.empty_like(x),
        (comm.rank - 1) % comm.size,
        (comm.rank + 1) % comm.size,
    )
    if comm.rank % 2 == 0:
        comm.send(x, left)
        comm.recv(y, right)
    else:
        comm.recv(y, right)
        comm.send(x, left)
    return y


@wrong("shift", says="but a queue")
def one_rank_breaks_the_ring(x, comm):
    y, left, right = (
        np.empty_like(x),
        (comm.rank - 1) % comm.size,
        (comm.rank + 1) % comm.size,
    )
    if comm.rank == 0:
        comm.send(x, right)
        comm.recv(y, left)
    else:
        comm.recv(y, left)
        comm.send(x, right)
    return y


@wrong("shift", says="there are ranks 0 to")
def no_wrap(x, comm):
    y = np.empty_like(x)
    if comm.rank % 2 == 0:
        comm.send(x, comm.rank + 1)
        comm.recv(y, comm.rank - 1)
    else:
        comm.recv(y, comm.rank - 1)
        comm.send(x, comm.rank + 1)
    return y


@wrong("shift", says="changes its input in place")
def into_its_own(x, comm):
    left, right = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
    if comm.rank % 2 == 0:
        comm.send(x, right)
        comm.recv(x, left)
    else:
        comm.recv(x, left)
        comm.send(x, right)
    return x


@wrong("shift", says="changes its input in place")
def into_its_own_and_copies(x, comm):
    return into_its_own(x, comm).copy()


@wrong("shift", says="its own numbers back")
def returns_its_own(x, comm):
    y, left, right = (
        np.empty_like(x),
        (comm.rank - 1) % comm.size,
        (comm.rank + 1) % comm.size,
    )
    if comm.rank % 2 == 0:
        comm.send(x, right)
        comm.recv(y, left)
    else:
        comm.recv(y, left)
        comm.send(x, right)
    return x.copy()


def _even_odd(x, y, comm):
    left, right = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
    if comm.rank % 2 == 0:
        comm.send(x, right)
        comm.recv(y, left)
    else:
        comm.recv(y, left)
        comm.send(x, right)
    return y


@wrong("shift", says="float32 comes out")
def room_in_float64(x, comm):
    return _even_odd(x, np.empty(len(x)), comm)


@wrong("shift", says="send and recv alone")
def by_sendrecv(x, comm):
    y, n = np.empty_like(x), comm.size
    comm.sendrecv(x, (comm.rank + 1) % n, y, (comm.rank - 1) % n)
    return y


@wrong("shift", says="Round the ring with % size")
def off_the_end(x, comm):
    comm.send(x, comm.rank + 1)


@wrong("shift", says="its own numbers back")
def returns_its_input(x, comm):
    _even_odd(x, np.empty_like(x), comm)
    return x


# ---- broadcast ----


@wrong("broadcast", says="Right values, but it returns a view")
def rank_0_returns_its_input(x, comm):
    y, reach = x if comm.rank == 0 else np.empty_like(x), 1
    while reach < comm.size:
        if comm.rank < reach and comm.rank + reach < comm.size:
            comm.send(y, comm.rank + reach)
        elif reach <= comm.rank < 2 * reach:
            comm.recv(y, comm.rank - reach)
        reach *= 2
    return y


@wrong("broadcast", says="has kept its own")
def returns_its_input_everywhere(x, comm):
    return x


@wrong("broadcast", says="rank 0 tells everybody itself")
def star(x, comm):
    y = x.copy()
    if comm.rank == 0:
        for to in range(1, comm.size):
            comm.send(y, to)
    else:
        comm.recv(y, 0)
    return y


@wrong("broadcast", says="a chain")
def chain(x, comm):
    y = x.copy()
    if comm.rank > 0:
        comm.recv(y, comm.rank - 1)
    if comm.rank + 1 < comm.size:
        comm.send(y, comm.rank + 1)
    return y


@wrong("broadcast", says="has kept its own")
def received_and_forgotten(x, comm):
    reach = 1
    while reach < comm.size:
        if comm.rank < reach and comm.rank + reach < comm.size:
            comm.send(x, comm.rank + reach)
        elif reach <= comm.rank < 2 * reach:
            comm.recv(np.empty_like(x), comm.rank - reach)
        reach *= 2
    return x.copy()


@wrong("broadcast", says="has kept its own")
def forgotten(x, comm):
    return x.copy()


@wrong("broadcast", says="there are ranks 0 to")
def only_powers_of_two(x, comm):
    y, reach = x.copy(), 1
    while reach < comm.size:
        if comm.rank < reach:
            comm.send(y, comm.rank + reach)
        elif comm.rank < 2 * reach:
            comm.recv(y, comm.rank - reach)
        reach *= 2
    return y


@wrong("broadcast", says="Deadlock")
def everybody_receives(x, comm):
    y, reach = x.copy(), 1
    while reach < comm.size:
        if comm.rank < reach and comm.rank + reach < comm.size:
            comm.send(y, comm.rank + reach)
        else:
            comm.recv(y, comm.rank - reach)
        reach *= 2
    return y


@wrong("broadcast", says="rank 1's numbers")
def sends_too_early(x, comm):
    y, reach = x.copy(), 1
    while reach < comm.size:
        if comm.rank < reach and comm.rank + reach < comm.size:
            comm.send(x, comm.rank + reach)  # x is its own, also after it has received
        elif reach <= comm.rank < 2 * reach:
            comm.recv(y, comm.rank - reach)
        reach *= 2
    return y


# ---- scatter ----


@wrong("scatter", says="all of them")
def scatters_everything(x, comm):
    y = x.copy()
    if comm.rank == 0:
        for to in range(1, comm.size):
            comm.send(x, to)
    else:
        comm.recv(y, 0)
    return y


@wrong("scatter", says="send each its chunk only")
def sends_whole_cuts_later(x, comm):
    y = x.copy()
    if comm.rank == 0:
        for to in range(1, comm.size):
            comm.send(x, to)
    else:
        comm.recv(y, 0)
    return y[right_cut(len(x), comm.size)[comm.rank]].copy()


@wrong("scatter", says="piece of its own array")
def cuts_its_own(x, comm):
    return x[right_cut(len(x), comm.size)[comm.rank]].copy()


@wrong("scatter", says="talks to itself")
def sends_to_itself(x, comm):
    chunks = right_cut(len(x), comm.size)
    mine = np.empty_like(x[chunks[comm.rank]])
    if comm.rank == 0:
        for to in range(comm.size):
            comm.send(x[chunks[to]], to)
    comm.recv(mine, 0)
    return mine


@wrong("scatter", says="chunk of the rank before it")
def off_by_one(x, comm):
    chunks = right_cut(len(x), comm.size)
    if comm.rank == 0:
        for to in range(1, comm.size):
            comm.send(x[chunks[to - 1]], to)
        return x[chunks[-1]].copy()
    mine = np.empty_like(x[chunks[comm.rank - 1]])
    comm.recv(mine, 0)
    return mine


@wrong("scatter", says="which has returned")
def rank_0_leaves_early(x, comm):
    chunks = right_cut(len(x), comm.size)
    if comm.rank == 0:
        return x[chunks[0]].copy()
    mine = np.empty_like(x[chunks[comm.rank]])
    comm.recv(mine, 0)
    return mine


@wrong("scatter", says="returns a view")
def view(x, comm):
    chunks = right_cut(len(x), comm.size)
    if comm.rank == 0:
        for to in range(1, comm.size):
            comm.send(x[chunks[to]], to)
        return x[chunks[0]]
    mine = np.empty_like(x[chunks[comm.rank]])
    comm.recv(mine, 0)
    return mine


# ---- gather ----


def _gather(part, N, comm, order=lambda s, n: s, own=True, all_return=False):
    chunks = right_cut(N, comm.size)
    if comm.rank:
        comm.send(part, 0)
        return part.copy() if all_return else None
    y = np.zeros(N)
    if own:
        y[chunks[0]] = part
    for source in range(1, comm.size):
        comm.recv(y[chunks[order(source, comm.size)]], source)
    return y


@wrong("gather", says="own part is missing")
def without_rank_0(part, N, comm):
    return _gather(part, N, comm, own=False)


@wrong("gather", says="the others return None")
def everybody_returns(part, N, comm):
    return _gather(part, N, comm, all_return=True)


@wrong("gather", says="Deadlock")
def receives_from_the_wrong_end(part, N, comm):
    if comm.rank:
        comm.send(part, 0)
        return None
    y = np.zeros(N)
    for source in range(1, comm.size - 1):
        comm.recv(y[right_cut(N, comm.size)[source]], source)
    return y


@wrong("gather", says="chunk 0, chunk 1")
def what_arrived_is_lost(part, N, comm):
    if comm.rank:
        comm.send(part, 0)
        return None
    y, chunks = np.zeros(N), right_cut(N, comm.size)
    y[chunks[0]] = part
    for source in range(1, comm.size):
        comm.recv(y[chunks[source]].copy(), source)
    return y


@wrong("gather", says="own part only")
def own_only(part, N, comm):
    if comm.rank:
        comm.send(part, 0)
        return None
    for source in range(1, comm.size):
        comm.recv(np.empty_like(np.zeros(N)[right_cut(N, comm.size)[source]]), source)
    return part.copy()


@wrong("gather", says="which made room for")
def room_for_its_own_size(part, N, comm):
    if comm.rank:
        comm.send(part, 0)
        return None
    parts = [part]
    for source in range(1, comm.size):
        parts.append(np.empty(len(part)))
        comm.recv(parts[-1], source)
    return np.concatenate(parts)


@wrong("gather", says="float32 comes out")
def gathers_in_float64(part, N, comm):
    return _gather(part, N, comm)


@wrong("gather", says="float32 comes out")
def gathers_in_empty_float64(part, N, comm):
    if comm.rank:
        comm.send(part, 0)
        return None
    y, chunks = np.empty(N), right_cut(N, comm.size)
    y[chunks[0]] = part
    for source in range(1, comm.size):
        comm.recv(y[chunks[source]], source)
    return y


# ---- reduce_scatter ----


def _ring_sum(x, comm, start=1, steps=None, to=1, add=True, forward=True, whole=False):
    n, rank = comm.size, comm.rank
    chunks = [slice(None)] * n if whole else right_cut(len(x), n)
    partial = x[chunks[(rank - start) % n]].copy()
    for step in range(1, n if steps is None else steps(n)):
        mine = x[chunks[(rank - start - step) % n]]
        arriving = np.empty_like(mine)
        comm.sendrecv(partial, (rank + to) % n, arriving, (rank - to) % n)
        if not forward:
            partial = mine.copy()
            continue
        partial = arriving + mine if add else arriving
    return partial


@wrong("reduce_scatter", says="Off by 1")
def starts_one_chunk_late(x, comm):
    return _ring_sum(x, comm, start=0)


@wrong("reduce_scatter", says="lacks the numbers")
def forwards_without_adding(x, comm):
    return _ring_sum(x, comm, add=False)


@wrong("reduce_scatter", says="lacks the numbers")
def forwards_its_own_only(x, comm):
    n, rank = comm.size, comm.rank
    chunks, total = right_cut(len(x), n), None
    total = x[chunks[rank]].copy()
    for step in range(1, n):
        leaving = x[chunks[(rank - step) % n]]
        arriving = np.empty_like(x[chunks[(rank - step - 1) % n]])
        comm.sendrecv(leaving, (rank + 1) % n, arriving, (rank - 1) % n)
    return total + arriving if len(arriving) == len(total) else total


@wrong("reduce_scatter", says="lacks the numbers")
def one_step_short(x, comm):
    n, rank = comm.size, comm.rank
    chunks = right_cut(len(x), n)
    partial = x[chunks[(rank - 2) % n]].copy()
    for step in range(2, n):
        mine = x[chunks[(rank - 1 - step) % n]]
        arriving = np.empty_like(mine)
        comm.sendrecv(partial, (rank + 1) % n, arriving, (rank - 1) % n)
        partial = arriving + mine
    return partial


@wrong("reduce_scatter", says="Wrong neighbour")
def to_the_left(x, comm):
    n, rank = comm.size, comm.rank
    chunks = right_cut(len(x), n)
    partial = x[chunks[(rank + 1) % n]].copy()
    for step in range(1, n):
        mine = x[chunks[(rank + 1 + step) % n]]
        arriving = np.empty_like(mine)
        comm.sendrecv(partial, (rank - 1) % n, arriving, (rank + 1) % n)
        partial = arriving + mine
    return partial


@wrong("reduce_scatter", says="Deadlock")
def from_the_wrong_side(x, comm):
    n, rank = comm.size, comm.rank
    chunks = right_cut(len(x), n)
    partial = x[chunks[(rank - 1) % n]].copy()
    for step in range(1, n):
        mine = x[chunks[(rank - 1 - step) % n]]
        arriving = np.empty_like(mine)
        comm.sendrecv(partial, (rank + 1) % n, arriving, (rank + 1) % n)
        partial = arriving + mine
    return partial


@wrong("reduce_scatter", says="it is sending")
def receives_over_what_it_sends(x, comm):
    n, rank = comm.size, comm.rank
    chunks, y = right_cut(len(x), n), x.copy()
    for step in range(1, n):
        chunk = y[chunks[(rank - step) % n]]
        comm.sendrecv(chunk, (rank + 1) % n, chunk, (rank - 1) % n)
    return y[chunks[rank]].copy()


@wrong("reduce_scatter", says="lacks the numbers")
def arrives_over_its_own(x, comm):
    n, rank = comm.size, comm.rank
    chunks, y = right_cut(len(x), n), x.copy()
    for step in range(1, n):
        leaving, arriving = chunks[(rank - step) % n], chunks[(rank - step - 1) % n]
        comm.sendrecv(y[leaving], (rank + 1) % n, y[arriving], (rank - 1) % n)
    return y[chunks[rank]].copy()


@wrong("reduce_scatter", says="one chunk is enough")
def whole_arrays_travel(x, comm):
    return _ring_sum(x, comm, whole=True)[
        right_cut(len(x), comm.size)[comm.rank]
    ].copy()


@wrong("reduce_scatter", says="Deadlock")
def sends_then_receives(x, comm):
    n, rank = comm.size, comm.rank
    chunks = right_cut(len(x), n)
    partial = x[chunks[(rank - 1) % n]].copy()
    for step in range(1, n):
        mine = x[chunks[(rank - 1 - step) % n]]
        arriving = np.empty_like(mine)
        comm.send(partial, (rank + 1) % n)
        comm.recv(arriving, (rank - 1) % n)
        partial = arriving + mine
    return partial


@wrong("reduce_scatter", says="changes its input in place")
def adds_into_its_input(x, comm):
    n, rank = comm.size, comm.rank
    chunks = right_cut(len(x), n)
    for step in range(1, n):
        mine = x[chunks[(rank - 1 - step) % n]]
        arriving = np.empty_like(mine)
        comm.sendrecv(
            x[chunks[(rank - step) % n]], (rank + 1) % n, arriving, (rank - 1) % n
        )
        mine += arriving
    return x[chunks[rank]].copy()


@wrong("reduce_scatter", says="here we want the sum")
def mean_already(x, comm):
    return right_reduce_scatter(x, comm) / comm.size


# ---- all_gather ----


def _go_round(part, N, comm, send=0, put=1, to=1, steps=None):
    n, rank = comm.size, comm.rank
    chunks, y = right_cut(N, n), np.zeros(N)
    y[chunks[rank]] = part
    for step in range(n - 1 if steps is None else steps(n)):
        leaving, arriving = (
            chunks[(rank - send - step) % n],
            chunks[(rank - put - step) % n],
        )
        comm.sendrecv(y[leaving].copy(), (rank + to) % n, y[arriving], (rank - to) % n)
    return y


@wrong("all_gather", says="which one do you send")
def always_sends_its_own(part, N, comm):
    n, rank = comm.size, comm.rank
    chunks, y = right_cut(N, n), np.zeros(N)
    y[chunks[rank]] = part
    for step in range(n - 1):
        arriving = np.empty(len(y[chunks[(rank - 1) % n]]))
        comm.sendrecv(part, (rank + 1) % n, arriving, (rank - 1) % n)
        room = y[chunks[(rank - step - 1) % n]]
        room[: len(arriving)] = arriving[: len(room)]
    return y


@wrong("all_gather", says="which one do you send")
def one_step_short_gather(part, N, comm):
    return _go_round(part, N, comm, steps=lambda n: n - 2)


@wrong("all_gather", says="Deadlock")
def two_ranks_wait_for_one_side(part, N, comm):
    n, rank = comm.size, comm.rank
    chunks, y = right_cut(N, n), np.zeros(N)
    y[chunks[rank]] = part
    for step in range(n - 1):
        comm.send(y[chunks[(rank - step) % n]], (rank + 1) % n)
        comm.recv(y[chunks[(rank - step - 1) % n]], (rank - 1) % n)
    return y


@wrong("all_gather", says="Wrong neighbour")
def gathers_leftwards(part, N, comm):
    n, rank = comm.size, comm.rank
    chunks, y = right_cut(N, n), np.zeros(N)
    y[chunks[rank]] = part
    for step in range(n - 1):
        leaving, arriving = chunks[(rank + step) % n], chunks[(rank + step + 1) % n]
        comm.sendrecv(y[leaving], (rank - 1) % n, y[arriving], (rank + 1) % n)
    return y


@wrong("all_gather", says="one chunk is enough")
def whole_arrays_go_round(part, N, comm):
    n, rank = comm.size, comm.rank
    y = np.zeros(N)
    y[right_cut(N, n)[rank]] = part
    moving = y
    for _ in range(n - 1):
        arriving = np.empty(N)
        comm.sendrecv(moving, (rank + 1) % n, arriving, (rank - 1) % n)
        y, moving = y + arriving, arriving
    return y


@wrong("all_gather", says="own part only")
def forgets_what_arrives(part, N, comm):
    right_all_gather(part, N, comm)
    return part.copy()


@wrong("all_gather", says="it is sending")
def chunk_into_itself(part, N, comm):
    n, rank = comm.size, comm.rank
    chunks, y = right_cut(N, n), np.zeros(N)
    y[chunks[rank]] = part
    for step in range(n - 1):
        chunk = chunks[(rank - step) % n]
        comm.sendrecv(y[chunk], (rank + 1) % n, y[chunk], (rank - 1) % n)
    return y


@wrong("all_gather", says="float32 comes out")
def goes_round_in_float64(part, N, comm):
    return _go_round(part, N, comm)


@wrong("all_gather", says="One step too many")
def n_steps(part, N, comm):
    return _go_round(part, N, comm, steps=lambda n: n)


# ---- ring_all_reduce ----


@wrong("ring_all_reduce", says="Divided by the length of the array")
def divides_by_the_length(x, comm, mean=False):
    part = right_reduce_scatter(x, comm)
    return right_all_gather(part / len(x) if mean else part, len(x), comm)


@wrong("ring_all_reduce", says="It calls all_gather with something")
def length_of_the_part(x, comm, mean=False):
    part = right_reduce_scatter(x, comm) / (comm.size if mean else 1)
    return right_all_gather(part, len(part), comm)


@wrong("ring_all_reduce", says="Forgot to divide")
def forgets_to_divide(x, comm, mean=False):
    return right_all_gather(right_reduce_scatter(x, comm), len(x), comm)


@wrong("ring_all_reduce", says="Divided though mean=False")
def always_divides(x, comm, mean=True):
    part = right_reduce_scatter(x, comm) / comm.size
    return right_all_gather(part, len(x), comm)


@wrong("ring_all_reduce", says="Divided twice")
def divides_twice(x, comm, mean=False):
    part = right_reduce_scatter(x, comm)
    y = right_all_gather(part / comm.size if mean else part, len(x), comm)
    return y / comm.size if mean else y


@wrong("ring_all_reduce", says="second half is missing")
def only_the_first_half(x, comm, mean=False):
    return right_reduce_scatter(x, comm)


@wrong("ring_all_reduce", says="Wrong neighbour")
def through_rank_0(x, comm, mean=False):
    y, theirs = x.copy(), np.empty_like(x)
    if comm.rank == 0:
        for source in range(1, comm.size):
            comm.recv(theirs, source)
            y += theirs
        for to in range(1, comm.size):
            comm.send(y, to)
    else:
        comm.send(x, 0)
        comm.recv(y, 0)
    return y / comm.size if mean else y


@wrong("ring_all_reduce", says="cut them first")
def whole_buffers_in_a_ring(x, comm, mean=False):
    n, rank, y, moving = comm.size, comm.rank, x.copy(), x
    for _ in range(n - 1):
        arriving = np.empty_like(x)
        comm.sendrecv(moving, (rank + 1) % n, arriving, (rank - 1) % n)
        y, moving = y + arriving, arriving
    return y / n if mean else y


@wrong("ring_all_reduce", says="float32 comes out")
def in_double(x, comm, mean=False):
    y = right_all_gather(right_reduce_scatter(x.astype(float), comm), len(x), comm)
    return y / comm.size if mean else y


@wrong("ring_all_reduce", says="room for")
def without_its_length(x, comm, mean=False):
    part = right_reduce_scatter(x, comm) / (comm.size if mean else 1)
    return right_all_gather(part, len(part) * comm.size, comm)


# ---- doubling_all_reduce ----


def _doubling(x, comm, partner, grow=lambda d: 2 * d, keep=True):
    y, theirs, distance = x.copy(), np.empty_like(x), 1
    while distance < comm.size:
        to, source = partner(comm.rank, distance, comm.size)
        comm.sendrecv(y, to, theirs, source)
        y = y + theirs if keep else x + theirs
        distance = grow(distance)
    return y


@wrong("doubling_all_reduce", says="Swap in pairs")
def round_a_ring(x, comm):
    return _doubling(x, comm, lambda r, d, n: ((r + d) % n, (r - d) % n))


@wrong("doubling_all_reduce", says="too often")
def distance_grows_by_one(x, comm):
    return _doubling(
        x, comm, lambda r, d, n: ((r + d) % n, (r - d) % n), lambda d: d + 1
    )


@wrong("doubling_all_reduce", says="lacks the numbers")
def sends_its_own_only(x, comm):
    y, theirs, distance = x.copy(), np.empty_like(x), 1
    while distance < comm.size:
        comm.sendrecv(x, comm.rank ^ distance, theirs, comm.rank ^ distance)
        y, distance = y + theirs, 2 * distance
    return y


@wrong("doubling_all_reduce", says="Deadlock")
def partner_by_addition(x, comm):
    return _doubling(x, comm, lambda r, d, n: ((r + d) % n, (r + d) % n))


@wrong("doubling_all_reduce", says="Right, but slow")
def everybody_with_everybody(x, comm):
    y, theirs = x.copy(), np.empty_like(x)
    for distance in range(1, comm.size):
        comm.sendrecv(x, comm.rank ^ distance, theirs, comm.rank ^ distance)
        y += theirs
    return y


@wrong("doubling_all_reduce", says="it is sending")
def into_what_it_sends(x, comm):
    y, distance = x.copy(), 1
    while distance < comm.size:
        comm.sendrecv(y, comm.rank ^ distance, y, comm.rank ^ distance)
        y, distance = y + y, 2 * distance
    return y


@wrong("doubling_all_reduce", says="lacks the numbers")
def first_round_only(x, comm):
    return _doubling(x, comm, lambda r, d, n: (r ^ d, r ^ d), lambda d: 1000)


# ---- fit ----


@wrong("fit", says="the largest times decide alone")
def unweighted(size, seconds):
    beta, alpha = np.polyfit(size, seconds, 1)
    return alpha, beta


@wrong("fit", says="swapped")
def swapped(size, seconds):
    return right_fit(size, seconds)[::-1]


@wrong("fit", says="bytes a second")
def bandwidth(size, seconds):
    alpha, beta = right_fit(size, seconds)
    return alpha, 1 / beta


@wrong("fit", says="two measurements decide")
def first_and_last(size, seconds):
    beta = (seconds[-1] - seconds[0]) / (size[-1] - size[0])
    return seconds[0] - beta * size[0], beta


@wrong("fit", says="divide by the seconds themselves")
def half_weighted(size, seconds):
    A = np.c_[np.ones(len(size)), size] / seconds[:, None] ** 0.5
    return tuple(np.linalg.lstsq(A, seconds**0.5, rcond=None)[0])


@wrong("fit", says="two numbers")
def only_alpha(size, seconds):
    return right_fit(size, seconds)[0]


# ---- cost ----


def _costs(star=None, ring=None, doubling=None):
    right = {
        "star": lambda n, B, a, b: 2 * (n - 1) * (a + b * B),
        "ring": lambda n, B, a, b: 2 * (n - 1) * (a + b * B / n),
        "doubling": lambda n, B, a, b: math.log2(n) * (a + b * B),
    }
    given = {"star": star, "ring": ring, "doubling": doubling}
    rules = {name: given[name] or right[name] for name in right}
    return lambda name, n, size, alpha, beta: rules[name](n, size, alpha, beta)


def _add_cost(name, says, **rules):
    wrong.add("cost", name, _costs(**rules), says)


_add_cost(
    "one_half", "Only one half", ring=lambda n, B, a, b: (n - 1) * (a + b * B / n)
)
_add_cost(
    "whole_buffer",
    "a message is a chunk",
    ring=lambda n, B, a, b: 2 * (n - 1) * (a + b * B),
)
_add_cost(
    "one_alpha",
    "every round pays alpha",
    ring=lambda n, B, a, b: a + b * 2 * (n - 1) * B / n,
)
_add_cost("n_rounds", "n - 1, not n", ring=lambda n, B, a, b: 2 * n * (a + b * B / n))
_add_cost(
    "natural_log",
    "not by the natural",
    doubling=lambda n, B, a, b: math.log(n) * (a + b * B),
)
_add_cost(
    "chunks_in_doubling",
    "carries the whole buffer",
    doubling=lambda n, B, a, b: math.log2(n) * (a + b * B / n),
)
_add_cost(
    "half_a_star",
    "receives n - 1 and then sends",
    star=lambda n, B, a, b: (n - 1) * (a + b * B),
)


_add_cost(
    "bytes_over_beta",
    "beta is seconds a byte",
    ring=lambda n, B, a, b: 2 * (n - 1) * (a + B / n / b),
)


# ---- choose ----


def _faster(n, size, alpha, beta):
    ring = 2 * (n - 1) * (alpha + beta * size / n)
    return "doubling" if math.log2(n) * (alpha + beta * size) <= ring else "ring"


@wrong("choose", says="no power of two")
def any_number_of_ranks(n, size, alpha, beta):
    return _faster(n, size, alpha, beta)


@wrong("choose", says="The ring takes")
def always_ring(n, size, alpha, beta):
    return "ring"


@wrong("choose", says="The ring takes")
def fixed_threshold(n, size, alpha, beta):
    return "ring" if n & (n - 1) or size > 100_000 else "doubling"


@wrong("choose", says="The ring takes")
def the_dearer(n, size, alpha, beta):
    return (
        {"ring": "doubling", "doubling": "ring"}[_faster(n, size, alpha, beta)]
        if not n & (n - 1)
        else "ring"
    )


@wrong("choose", says="'ring' or 'doubling'")
def the_seconds(n, size, alpha, beta):
    return min(
        2 * (n - 1) * (alpha + beta * size / n), math.log2(n) * (alpha + beta * size)
    )


@wrong("choose", says="The ring takes")
def by_bytes_alone(n, size, alpha, beta):
    return "doubling" if n == 2 else "ring"
