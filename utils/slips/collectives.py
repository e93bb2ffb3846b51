"Chapter 16: small wrong programs, each with the sentence that names it."

import math

import numpy as np

from utils.built.collectives import all_gather as right_all_gather
from utils.built.collectives import cut as right_cut
from utils.built.collectives import fit as right_fit
from utils.built.collectives import reduce_scatter as right_reduce_scatter
from utils.checks import collectives as ex

# ---- pass_right ----


@ex.pass_right.slip(
    "Everybody holds rank 0's: each place was overwritten before its neighbour had read it. Read the old list, write a new one."
)
def one_after_the_other(held):
    new = list(held)
    for rank in range(len(new) - 1):
        new[rank + 1] = new[rank]
    new[0] = new[-1]
    return new


@ex.pass_right.slip(told="changes its input in place")
def in_place(held):
    held.insert(0, held.pop())
    return held


@ex.pass_right.slip("The wrong way round: rank r gives to rank r + 1.")
def pass_left(held):
    return held[1:] + held[:1]


@ex.pass_right.slip("The ring is open: the last rank hands its value to rank 0.")
def open_ring(held):
    return [held[0]] + held[:-1]


@ex.pass_right.slip("Nothing has moved.")
def stays(held):
    return list(held)


@ex.pass_right.slip("Two ranks may hold equal numbers: go by place, not by value.")
def by_value(held):
    return [held[held.index(x) - 1] for x in held]


@ex.pass_right.slip(told="is a `return` missing?")
def forgets_return(held):
    [held[-1], *held[:-1]]


# ---- cut ----


@ex.cut.slip("2 of the 10 numbers are in no chunk: N // n each leaves a rest.")
def drops_the_rest(N, n):
    return [slice(i * (N // n), (i + 1) * (N // n)) for i in range(n)]


@ex.cut.slip(
    "Unequal: the last chunk takes the whole rest, and the ring waits for its largest chunk. Sizes may differ by 1 at most."
)
def rest_to_the_last(N, n):
    size = N // n
    return [slice(i * size, N if i == n - 1 else (i + 1) * size) for i in range(n)]


@ex.cut.slip(
    "Unequal: with every size rounded up, little is left for the last. Sizes may differ by 1 at most."
)
def rounds_up(N, n):
    size = math.ceil(N / n)
    return [slice(min(i * size, N), min((i + 1) * size, N)) for i in range(n)]


@ex.cut.slip("The number at a border is in two chunks: slice(a, b) ends before b.")
def one_too_far(N, n):
    ends = [N * i // n for i in range(n + 1)]
    return [slice(a, b + 1) for a, b in zip(ends, ends[1:])]


@ex.cut.slip("Chunks of n numbers each: n is the number of chunks.")
def size_for_number(N, n):
    return [slice(i, i + n) for i in range(0, N, n)]


@ex.cut.slip("These are pairs; an array takes slices: slice(start, stop).")
def pairs(N, n):
    return [(N * i // n, N * (i + 1) // n) for i in range(n)]


@ex.cut.slip("The chunks are not in order: rank 0 has the first.")
def backwards(N, n):
    return right_cut(N, n)[::-1]


@ex.cut.slip(
    "15 / 11 * 11 is 14.999... here, so the last number is lost: N * i // n is exact."
)
def by_fractions(N, n):
    return [slice(int(N / n * i), int(N / n * (i + 1))) for i in range(n)]


@ex.cut.slip("Dealt like cards, every n-th number: a chunk is a row of neighbours.")
def every_nth(N, n):
    return [slice(i, N, n) for i in range(n)]


# ---- shift ----


@ex.shift.slip(
    "Deadlock: all send first, and nobody receives. Some must do it the other way round."
)
def all_send_first(x, comm):
    y = np.empty_like(x)
    comm.send(x, (comm.rank + 1) % comm.size)
    comm.recv(y, (comm.rank - 1) % comm.size)
    return y


@ex.shift.slip(
    "Deadlock: all receive first, and nobody sends. Some must do it the other way round."
)
def all_receive_first(x, comm):
    y = np.empty_like(x)
    comm.recv(y, (comm.rank - 1) % comm.size)
    comm.send(x, (comm.rank + 1) % comm.size)
    return y


@ex.shift.slip(
    "It has its right neighbour's: send to (rank + 1) % size, receive from (rank - 1) % size."
)
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


@ex.shift.slip(
    "Right, but a queue: the ranks send one after the other. Three rounds are enough for any number of ranks."
)
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


@ex.shift.slip("Rank 0's left neighbour is the last rank: round the ring with % size.")
def no_wrap(x, comm):
    y = np.empty_like(x)
    if comm.rank % 2 == 0:
        comm.send(x, comm.rank + 1)
        comm.recv(y, comm.rank - 1)
    else:
        comm.recv(y, comm.rank - 1)
        comm.send(x, comm.rank + 1)
    return y


@ex.shift.slip(told="changes its input in place")
def into_its_own(x, comm):
    left, right = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
    if comm.rank % 2 == 0:
        comm.send(x, right)
        comm.recv(x, left)
    else:
        comm.recv(x, left)
        comm.send(x, right)
    return x


@ex.shift.slip(told="changes its input in place")
def into_its_own_and_copies(x, comm):
    return into_its_own(x, comm).copy()


@ex.shift.slip("It has its own numbers back: return what you received.")
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


@ex.shift.slip(
    "np.empty(N) makes room for float64, whatever comes: np.empty_like(x_N) has its dtype."
)
def room_in_float64(x, comm):
    return _even_odd(x, np.empty(len(x)), comm)


@ex.shift.slip("It calls comm.sendrecv: here send and recv alone do it.")
def by_sendrecv(x, comm):
    y, n = np.empty_like(x), comm.size
    comm.sendrecv(x, (comm.rank + 1) % n, y, (comm.rank - 1) % n)
    return y


@ex.shift.slip("The last rank's right neighbour is rank 0: round the ring with % size.")
def off_the_end(x, comm):
    comm.send(x, comm.rank + 1)


@ex.shift.slip("It has its own numbers back: return what you received.")
def returns_its_input(x, comm):
    _even_odd(x, np.empty_like(x), comm)
    return x


# ---- broadcast ----


@ex.broadcast.slip(told="returns a view")
def rank_0_returns_its_input(x, comm):
    y, reach = x if comm.rank == 0 else np.empty_like(x), 1
    while reach < comm.size:
        if comm.rank < reach and comm.rank + reach < comm.size:
            comm.send(y, comm.rank + reach)
        elif reach <= comm.rank < 2 * reach:
            comm.recv(y, comm.rank - reach)
        reach *= 2
    return y


@ex.broadcast.slip("It has kept its own numbers: receive, and return what came.")
def returns_its_input_everywhere(x, comm):
    return x


@ex.broadcast.slip(
    "Right, but rank 0 tells everybody itself. Let those who know it help."
)
def star(x, comm):
    y = x.copy()
    if comm.rank == 0:
        for to in range(1, comm.size):
            comm.send(y, to)
    else:
        comm.recv(y, 0)
    return y


@ex.broadcast.slip(
    "Right, but slow: a chain. Let everybody who knows it tell somebody."
)
def chain(x, comm):
    y = x.copy()
    if comm.rank > 0:
        comm.recv(y, comm.rank - 1)
    if comm.rank + 1 < comm.size:
        comm.send(y, comm.rank + 1)
    return y


@ex.broadcast.slip("It has kept its own numbers: receive, and return what came.")
def received_and_forgotten(x, comm):
    reach = 1
    while reach < comm.size:
        if comm.rank < reach and comm.rank + reach < comm.size:
            comm.send(x, comm.rank + reach)
        elif reach <= comm.rank < 2 * reach:
            comm.recv(np.empty_like(x), comm.rank - reach)
        reach *= 2
    return x.copy()


@ex.broadcast.slip("It has kept its own numbers: receive, and return what came.")
def forgotten(x, comm):
    return x.copy()


@ex.broadcast.slip(
    "In the last round some partners do not exist: send only where rank + reach < size."
)
def only_powers_of_two(x, comm):
    y, reach = x.copy(), 1
    while reach < comm.size:
        if comm.rank < reach:
            comm.send(y, comm.rank + reach)
        elif comm.rank < 2 * reach:
            comm.recv(y, comm.rank - reach)
        reach *= 2
    return y


@ex.broadcast.slip(
    "Deadlock: ranks receive before their round has come. Only those with reach <= rank < 2 * reach do."
)
def everybody_receives(x, comm):
    y, reach = x.copy(), 1
    while reach < comm.size:
        if comm.rank < reach and comm.rank + reach < comm.size:
            comm.send(y, comm.rank + reach)
        else:
            comm.recv(y, comm.rank - reach)
        reach *= 2
    return y


@ex.broadcast.slip("Rank 1 passes its own numbers on, not those that it has received.")
def sends_too_early(x, comm):
    y, reach = x.copy(), 1
    while reach < comm.size:
        if comm.rank < reach and comm.rank + reach < comm.size:
            comm.send(x, comm.rank + reach)  # x is its own, also after it has received
        elif reach <= comm.rank < 2 * reach:
            comm.recv(y, comm.rank - reach)
        reach *= 2
    return y


@ex.broadcast.slip("It counts numbers, not ranks: while reach < comm.size.")
def counts_numbers(x, comm):
    y, reach = x.copy(), 1
    while reach < len(x):
        if comm.rank < reach and comm.rank + reach < comm.size:
            comm.send(y, comm.rank + reach)
        elif reach <= comm.rank < 2 * reach:
            comm.recv(y, comm.rank - reach)
        reach *= 2
    return y


@ex.broadcast.slip(
    "The last rank tells rank 0, which knew it first: n - 1 messages are enough."
)
def round_and_back(x, comm):
    y = x.copy()
    if comm.rank > 0:
        comm.recv(y, comm.rank - 1)
    if comm.size > 1:
        comm.send(y, (comm.rank + 1) % comm.size)
    if comm.rank == 0 and comm.size > 1:
        comm.recv(np.empty_like(y), comm.size - 1)
    return y


# ---- scatter ----


@ex.scatter.slip("That is all of them: rank r gets chunk r.")
def scatters_everything(x, comm):
    y = x.copy()
    if comm.rank == 0:
        for to in range(1, comm.size):
            comm.send(x, to)
    else:
        comm.recv(y, 0)
    return y


@ex.scatter.slip("The whole array goes to every rank: send each its chunk only.")
def sends_whole_cuts_later(x, comm):
    y = x.copy()
    if comm.rank == 0:
        for to in range(1, comm.size):
            comm.send(x, to)
    else:
        comm.recv(y, 0)
    return y[right_cut(len(x), comm.size)[comm.rank]].copy()


@ex.scatter.slip("That is a piece of its own array; the numbers are rank 0's.")
def cuts_its_own(x, comm):
    return x[right_cut(len(x), comm.size)[comm.rank]].copy()


@ex.scatter.slip("Rank 0 sends a message to itself: it keeps its own chunk.")
def sends_to_itself(x, comm):
    chunks = right_cut(len(x), comm.size)
    mine = np.empty_like(x[chunks[comm.rank]])
    if comm.rank == 0:
        for to in range(comm.size):
            comm.send(x[chunks[to]], to)
    comm.recv(mine, 0)
    return mine


@ex.scatter.slip("That is the chunk of the rank before it: rank r gets chunk r.")
def off_by_one(x, comm):
    chunks = right_cut(len(x), comm.size)
    if comm.rank == 0:
        for to in range(1, comm.size):
            comm.send(x[chunks[to - 1]], to)
        return x[chunks[-1]].copy()
    mine = np.empty_like(x[chunks[comm.rank - 1]])
    comm.recv(mine, 0)
    return mine


@ex.scatter.slip(
    "N // n numbers each leave the last ones out: cut says which chunk is whose."
)
def equal_chunks(x, comm):
    size = len(x) // comm.size
    mine = x[:size].copy()
    if comm.rank > 0:
        comm.recv(mine, 0)
        return mine
    for to in range(1, comm.size):
        comm.send(x[to * size : (to + 1) * size], to)
    return mine


@ex.scatter.slip(
    "Rank 0 returns before it has sent anything: the others wait for ever."
)
def rank_0_leaves_early(x, comm):
    chunks = right_cut(len(x), comm.size)
    if comm.rank == 0:
        return x[chunks[0]].copy()
    mine = np.empty_like(x[chunks[comm.rank]])
    comm.recv(mine, 0)
    return mine


@ex.scatter.slip(told="returns a view")
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


@ex.gather.slip("Rank 0's own part is missing: it sends no message to itself.")
def without_rank_0(part, N, comm):
    return _gather(part, N, comm, own=False)


@ex.gather.slip("Parts stand in the order 0, 3, 2, 1: rank r's belongs at chunk r.")
def in_another_order(part, N, comm):
    return _gather(part, N, comm, order=lambda source, n: n - source)


@ex.gather.slip("Only rank 0 has it all; the others return None.")
def everybody_returns(part, N, comm):
    return _gather(part, N, comm, all_return=True)


@ex.gather.slip("Rank 0 receives from one rank too few: range(1, comm.size).")
def receives_from_the_wrong_end(part, N, comm):
    if comm.rank:
        comm.send(part, 0)
        return None
    y = np.zeros(N)
    for source in range(1, comm.size - 1):
        comm.recv(y[right_cut(N, comm.size)[source]], source)
    return y


@ex.gather.slip("What arrives lands in a copy: receive into y_N[chunk] itself.")
def what_arrived_is_lost(part, N, comm):
    if comm.rank:
        comm.send(part, 0)
        return None
    y, chunks = np.zeros(N), right_cut(N, comm.size)
    y[chunks[0]] = part
    for source in range(1, comm.size):
        comm.recv(y[chunks[source]].copy(), source)
    return y


@ex.gather.slip("That is its own part only.")
def own_only(part, N, comm):
    if comm.rank:
        comm.send(part, 0)
        return None
    for source in range(1, comm.size):
        comm.recv(np.empty_like(np.zeros(N)[right_cut(N, comm.size)[source]]), source)
    return part.copy()


@ex.gather.slip(
    "Not all chunks are as large as rank 0's: cut says how much room each needs."
)
def room_for_its_own_size(part, N, comm):
    if comm.rank:
        comm.send(part, 0)
        return None
    parts = [part]
    for source in range(1, comm.size):
        parts.append(np.empty(len(part)))
        comm.recv(parts[-1], source)
    return np.concatenate(parts)


@ex.gather.slip(
    "np.empty(N) and np.zeros(N) make float64, whatever comes: give them part.dtype."
)
def gathers_in_float64(part, N, comm):
    return _gather(part, N, comm)


@ex.gather.slip(
    "np.empty(N) and np.zeros(N) make float64, whatever comes: give them part.dtype."
)
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


@ex.reduce_scatter.slip(
    "Off by one: rank 0 leaves with the sum of chunk 1. Chunk 0 must end here, so it starts with the right neighbour."
)
def starts_one_chunk_late(x, comm):
    return _ring_sum(x, comm, start=0)


@ex.reduce_scatter.slip("Nothing is added: what arrives is passed on as it came.")
def forwards_without_adding(x, comm):
    return _ring_sum(x, comm, add=False)


@ex.reduce_scatter.slip(
    "Each rank sends its own numbers only: pass on the sum that came, with yours added."
)
def forwards_its_own_only(x, comm):
    n, rank = comm.size, comm.rank
    chunks, total = right_cut(len(x), n), None
    total = x[chunks[rank]].copy()
    for step in range(1, n):
        leaving = x[chunks[(rank - step) % n]]
        arriving = np.empty_like(x[chunks[(rank - step - 1) % n]])
        comm.sendrecv(leaving, (rank + 1) % n, arriving, (rank - 1) % n)
    return total + arriving if len(arriving) == len(total) else total


@ex.reduce_scatter.slip(
    "One step short: a sum over n ranks takes n - 1 steps, the first with chunk r - 1."
)
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


@ex.reduce_scatter.slip("To the left: in a ring each rank sends to (rank + 1) % size.")
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


@ex.reduce_scatter.slip(
    "Deadlock: it sends to the right and receives from the right. What comes, comes from the left."
)
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


@ex.reduce_scatter.slip(
    "It receives into the chunk that it is sending: what arrives needs room of its own."
)
def receives_over_what_it_sends(x, comm):
    n, rank = comm.size, comm.rank
    chunks, y = right_cut(len(x), n), x.copy()
    for step in range(1, n):
        chunk = y[chunks[(rank - step) % n]]
        comm.sendrecv(chunk, (rank + 1) % n, chunk, (rank - 1) % n)
    return y[chunks[rank]].copy()


@ex.reduce_scatter.slip("Nothing is added: what arrives is passed on as it came.")
def arrives_over_its_own(x, comm):
    n, rank = comm.size, comm.rank
    chunks, y = right_cut(len(x), n), x.copy()
    for step in range(1, n):
        leaving, arriving = chunks[(rank - step) % n], chunks[(rank - step - 1) % n]
        comm.sendrecv(y[leaving], (rank + 1) % n, y[arriving], (rank - 1) % n)
    return y[chunks[rank]].copy()


@ex.reduce_scatter.slip("The whole array travels in every step: one chunk is enough.")
def whole_arrays_travel(x, comm):
    return _ring_sum(x, comm, whole=True)[
        right_cut(len(x), comm.size)[comm.rank]
    ].copy()


@ex.reduce_scatter.slip(
    "Deadlock: all send first, and nobody receives. comm.sendrecv does both at once."
)
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


@ex.reduce_scatter.slip(told="changes its input in place")
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


@ex.reduce_scatter.slip("That is the mean; here we want the sum.")
def mean_already(x, comm):
    return right_reduce_scatter(x, comm) / comm.size


@ex.reduce_scatter.slip(told="returns a view")
def view_on_one_rank(x, comm):
    if comm.size == 1:
        return x[:]
    return right_reduce_scatter(x, comm)


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


@ex.all_gather.slip(
    "It sends its own chunk in every step: pass on the one that came last."
)
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


@ex.all_gather.slip("One step short: every chunk needs n - 1 steps to reach everybody.")
def one_step_short_gather(part, N, comm):
    return _go_round(part, N, comm, steps=lambda n: n - 2)


@ex.all_gather.slip(
    "Deadlock: all send first, and nobody receives. comm.sendrecv does both at once."
)
def two_ranks_wait_for_one_side(part, N, comm):
    n, rank = comm.size, comm.rank
    chunks, y = right_cut(N, n), np.zeros(N)
    y[chunks[rank]] = part
    for step in range(n - 1):
        comm.send(y[chunks[(rank - step) % n]], (rank + 1) % n)
        comm.recv(y[chunks[(rank - step - 1) % n]], (rank - 1) % n)
    return y


@ex.all_gather.slip("To the left: in a ring each rank sends to (rank + 1) % size.")
def gathers_leftwards(part, N, comm):
    n, rank = comm.size, comm.rank
    chunks, y = right_cut(N, n), np.zeros(N)
    y[chunks[rank]] = part
    for step in range(n - 1):
        leaving, arriving = chunks[(rank + step) % n], chunks[(rank + step + 1) % n]
        comm.sendrecv(y[leaving], (rank - 1) % n, y[arriving], (rank + 1) % n)
    return y


@ex.all_gather.slip("The whole array travels in every step: one chunk is enough.")
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


@ex.all_gather.slip("That is its own part only.")
def forgets_what_arrives(part, N, comm):
    right_all_gather(part, N, comm)
    return part.copy()


@ex.all_gather.slip(
    "It receives into the chunk that it is sending: from the left comes chunk rank - step - 1."
)
def chunk_into_itself(part, N, comm):
    n, rank = comm.size, comm.rank
    chunks, y = right_cut(N, n), np.zeros(N)
    y[chunks[rank]] = part
    for step in range(n - 1):
        chunk = chunks[(rank - step) % n]
        comm.sendrecv(y[chunk], (rank + 1) % n, y[chunk], (rank - 1) % n)
    return y


@ex.all_gather.slip("np.zeros(N) makes float64, whatever comes: give it part.dtype.")
def goes_round_in_float64(part, N, comm):
    return _go_round(part, N, comm)


@ex.all_gather.slip(
    "One step too many: after n - 1 steps everything has been everywhere."
)
def n_steps(part, N, comm):
    return _go_round(part, N, comm, steps=lambda n: n)


@ex.all_gather.slip(
    "What arrives goes to the wrong place: from the left comes chunk rank - step - 1."
)
def puts_it_elsewhere(part, N, comm):
    return _go_round(part, N, comm, put=2)


# ---- ring_all_reduce ----


@ex.ring_all_reduce.slip(
    "Divided by the length of the array: the mean is over the ranks, comm.size of them."
)
def divides_by_the_length(x, comm, mean=False):
    part = right_reduce_scatter(x, comm)
    return right_all_gather(part / len(x) if mean else part, len(x), comm)


def _plain_all_gather(part, N, comm):
    "all_gather as readers write it: NumPy refuses what does not fit."
    n, rank = comm.size, comm.rank
    chunks, y = right_cut(N, n), np.empty(N, part.dtype)
    y[chunks[rank]] = part
    for step in range(n - 1):
        leaving, arriving = chunks[(rank - step) % n], chunks[(rank - step - 1) % n]
        comm.sendrecv(y[leaving], (rank + 1) % n, y[arriving], (rank - 1) % n)
    return y


@ex.ring_all_reduce.slip(
    "all_gather takes (part, N, comm), with N = len(x_N), not len(part)."
)
def length_of_the_part(x, comm, mean=False):
    part = right_reduce_scatter(x, comm) / (comm.size if mean else 1)
    return _plain_all_gather(part, len(part), comm)


@ex.ring_all_reduce.slip("Forgot to divide: this is the sum.")
def forgets_to_divide(x, comm, mean=False):
    return right_all_gather(right_reduce_scatter(x, comm), len(x), comm)


@ex.ring_all_reduce.slip("Divided though mean=False: here we want the sum.")
def always_divides(x, comm, mean=True):
    part = right_reduce_scatter(x, comm) / comm.size
    return right_all_gather(part, len(x), comm)


@ex.ring_all_reduce.slip("Divided twice.")
def divides_twice(x, comm, mean=False):
    part = right_reduce_scatter(x, comm)
    y = right_all_gather(part / comm.size if mean else part, len(x), comm)
    return y / comm.size if mean else y


@ex.ring_all_reduce.slip(
    "That is its own chunk of the sum: the second half is missing."
)
def only_the_first_half(x, comm, mean=False):
    return right_reduce_scatter(x, comm)


@ex.ring_all_reduce.slip(
    "By way of rank 0, which does everybody's work. In a ring each rank sends to (rank + 1) % size."
)
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


@ex.ring_all_reduce.slip("Whole arrays went round the ring: cut them first.")
def whole_buffers_in_a_ring(x, comm, mean=False):
    n, rank, y, moving = comm.size, comm.rank, x.copy(), x
    for _ in range(n - 1):
        arriving = np.empty_like(x)
        comm.sendrecv(moving, (rank + 1) % n, arriving, (rank - 1) % n)
        y, moving = y + arriving, arriving
    return y / n if mean else y


@ex.ring_all_reduce.slip(
    "float32 goes in, so float32 comes out: gradients would double their bytes."
)
def in_double(x, comm, mean=False):
    y = right_all_gather(right_reduce_scatter(x.astype(float), comm), len(x), comm)
    return y / comm.size if mean else y


@ex.ring_all_reduce.slip(
    "all_gather wants N = len(x_N): len(part) * n is another number where N does not divide."
)
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


@ex.doubling_all_reduce.slip(
    "Round a ring each rank adds in another order, so the last digits differ. Swap in pairs (rank ^ distance): a + b = b + a, exactly."
)
def round_a_ring(x, comm):
    return _doubling(x, comm, lambda r, d, n: ((r + d) % n, (r - d) % n))


@ex.doubling_all_reduce.slip(
    "Distances 1, 2, 3 count ranks twice: they double, 1, 2, 4 ..."
)
def distance_grows_by_one(x, comm):
    return _doubling(
        x, comm, lambda r, d, n: ((r + d) % n, (r - d) % n), lambda d: d + 1
    )


@ex.doubling_all_reduce.slip(
    "It sends its own numbers in every exchange: swap the sum so far."
)
def sends_its_own_only(x, comm):
    y, theirs, distance = x.copy(), np.empty_like(x), 1
    while distance < comm.size:
        comm.sendrecv(x, comm.rank ^ distance, theirs, comm.rank ^ distance)
        y, distance = y + theirs, 2 * distance
    return y


@ex.doubling_all_reduce.slip(
    "Deadlock: rank + distance is nobody's partner back. rank ^ distance is."
)
def partner_by_addition(x, comm):
    return _doubling(x, comm, lambda r, d, n: ((r + d) % n, (r + d) % n))


@ex.doubling_all_reduce.slip(
    "Right, but slow: each exchange should double how many ranks' numbers you hold."
)
def everybody_with_everybody(x, comm):
    y, theirs = x.copy(), np.empty_like(x)
    for distance in range(1, comm.size):
        comm.sendrecv(x, comm.rank ^ distance, theirs, comm.rank ^ distance)
        y += theirs
    return y


@ex.doubling_all_reduce.slip(
    "It receives into what it is sending: what arrives needs an array of its own."
)
def into_what_it_sends(x, comm):
    y, distance = x.copy(), 1
    while distance < comm.size:
        comm.sendrecv(y, comm.rank ^ distance, y, comm.rank ^ distance)
        y, distance = y + y, 2 * distance
    return y


@ex.doubling_all_reduce.slip(
    "One exchange only: go on at twice the distance until everybody is in the sum."
)
def first_round_only(x, comm):
    return _doubling(x, comm, lambda r, d, n: (r ^ d, r ^ d), lambda d: 1000)


# ---- fit ----


@ex.fit.slip(
    "Plain least squares: the largest times decide alone, and alpha is noise. Divide each equation by its seconds."
)
def unweighted(size, seconds):
    beta, alpha = np.polyfit(size, seconds, 1)
    return alpha, beta


@ex.fit.slip("alpha and beta are swapped.")
def swapped(size, seconds):
    return right_fit(size, seconds)[::-1]


@ex.fit.slip("beta is seconds a byte; this is bytes a second.")
def bandwidth(size, seconds):
    alpha, beta = right_fit(size, seconds)
    return alpha, 1 / beta


@ex.fit.slip("Two points make a line, but then two measurements decide.")
def first_and_last(size, seconds):
    beta = (seconds[-1] - seconds[0]) / (size[-1] - size[0])
    return seconds[0] - beta * size[0], beta


@ex.fit.slip("Weighted by the root of the seconds: divide by the seconds themselves.")
def half_weighted(size, seconds):
    A = np.c_[np.ones(len(size)), size] / seconds[:, None] ** 0.5
    return tuple(np.linalg.lstsq(A, seconds**0.5, rcond=None)[0])


@ex.fit.slip("Weighted twice: divide by the seconds, not by their square.")
def weighted_twice(size, seconds):
    beta, alpha = np.polyfit(size, seconds, 1, w=seconds**-2)
    return alpha, beta


@ex.fit.slip("A line through logarithms is a power law: alpha + beta * bytes is none.")
def power_law(size, seconds):
    slope, start = np.polyfit(np.log(size), np.log(seconds), 1)
    return np.exp(start), slope


@ex.fit.slip(
    "Above a second the equations are not divided: every one is, by its own seconds."
)
def weights_below_a_second(size, seconds):
    weight = 1 / np.minimum(seconds, 1.0)
    beta, alpha = np.polyfit(size, seconds, 1, w=weight)
    return alpha, beta


@ex.fit.slip("It should return two numbers, alpha and beta.")
def only_alpha(size, seconds):
    return right_fit(size, seconds)[0]


# ---- cost ----


def _costs(**wrong):
    "A cost function with one wrong rule."
    rules = {
        "star": lambda n, B, a, b: 2 * (n - 1) * (a + b * B),
        "ring": lambda n, B, a, b: 2 * (n - 1) * (a + b * B / n),
        "doubling": lambda n, B, a, b: math.log2(n) * (a + b * B),
    }
    return lambda name, *args: {**rules, **wrong}[name](*args)


for sentence, answer in {
    "Only one half: reduce-scatter and all-gather take n - 1 rounds each.": _costs(
        ring=lambda n, B, a, b: (n - 1) * (a + b * B / n)
    ),
    "In a ring a message is a chunk, 1/n of the buffer.": _costs(
        ring=lambda n, B, a, b: 2 * (n - 1) * (a + b * B)
    ),
    "The ring's bytes are right, but every round pays alpha.": _costs(
        ring=lambda n, B, a, b: a + b * 2 * (n - 1) * B / n
    ),
    "Doubling's bytes are right, but every round pays alpha.": _costs(
        doubling=lambda n, B, a, b: a + b * math.log2(n) * B
    ),
    "One round too many in each half: n - 1, not n.": _costs(
        ring=lambda n, B, a, b: 2 * n * (a + b * B / n)
    ),
    "The ring's bytes are divided by n - 1: a chunk is 1/n of the buffer.": _costs(
        ring=lambda n, B, a, b: 2 * (n - 1) * (a + b * B / (n - 1))
    ),
    "Doublings are counted by log2, not by the natural logarithm.": _costs(
        doubling=lambda n, B, a, b: math.log(n) * (a + b * B)
    ),
    "Doubling takes log2 n rounds, not n - 1: what you hold doubles each time.": _costs(
        doubling=lambda n, B, a, b: (n - 1) * (a + b * B)
    ),
    "In doubling every exchange carries the whole buffer.": _costs(
        doubling=lambda n, B, a, b: math.log2(n) * (a + b * B / n)
    ),
    "Doubling swaps in both directions at once: an exchange is one round, not two.": _costs(
        doubling=lambda n, B, a, b: 2 * math.log2(n) * (a + b * B)
    ),
    "Through rank 0: it receives n - 1 and then sends n - 1.": _costs(
        star=lambda n, B, a, b: (n - 1) * (a + b * B)
    ),
    "Rank 0 sends the whole buffer, not 1/n of it.": _costs(
        star=lambda n, B, a, b: 2 * (n - 1) * (a + b * B / n)
    ),
    "Rank 0 sends nothing to itself: n - 1 others, not n.": _costs(
        star=lambda n, B, a, b: 2 * n * (a + b * B)
    ),
    "It divides by zero. beta is seconds per byte: a message takes alpha + beta * bytes, "
    "and nothing is divided by them.": _costs(
        ring=lambda n, B, a, b: 2 * (n - 1) * (a + B / n / b)
    ),
    "// drops what is left over: 10,000,001 bytes on 8 ranks are 1,250,000.125 each.": _costs(
        ring=lambda n, B, a, b: 2 * (n - 1) * (a + b * (B // n))
    ),
    "A figure asks for many sizes at once: int() takes one number, not an array.": _costs(
        star=lambda n, B, a, b: 2 * (n - 1) * (a + b * int(B))
    ),
}.items():
    ex.cost.slip(sentence)(answer)


# ---- choose ----


def _faster(n, size, alpha, beta):
    ring = 2 * (n - 1) * (alpha + beta * size / n)
    return "doubling" if math.log2(n) * (alpha + beta * size) <= ring else "ring"


@ex.choose.slip("5 is no power of two: doubling has no partner for everybody there.")
def any_number_of_ranks(n, size, alpha, beta):
    return _faster(n, size, alpha, beta)


@ex.choose.slip(
    "6 is even and no power of two: n & (n - 1) is 0 for powers of two only."
)
def even_is_enough(n, size, alpha, beta):
    return "ring" if n % 2 else _faster(n, size, alpha, beta)


@ex.choose.slip("Always the ring: where messages are small, doubling has fewer rounds.")
def always_ring(n, size, alpha, beta):
    return "ring"


@ex.choose.slip(
    "A fixed size decides. It depends on the wire and on n: ask cost for both."
)
def fixed_threshold(n, size, alpha, beta):
    return "ring" if n & (n - 1) or size > 100_000 else "doubling"


@ex.choose.slip("For many bytes the ring's small chunks win: take the smaller cost.")
def the_dearer(n, size, alpha, beta):
    other = {"ring": "doubling", "doubling": "ring"}
    return "ring" if n & (n - 1) else other[_faster(n, size, alpha, beta)]


@ex.choose.slip("It returns 'ring' or 'doubling', not the seconds.")
def the_seconds(n, size, alpha, beta):
    ring = 2 * (n - 1) * (alpha + beta * size / n)
    return min(ring, math.log2(n) * (alpha + beta * size))


@ex.choose.slip("The bytes alone: every round pays alpha, too.")
def by_bytes_alone(n, size, alpha, beta):
    return _faster(n, size, 0.0, beta) if not n & (n - 1) else "ring"


@ex.choose.slip("For many bytes the ring's small chunks win: take the smaller cost.")
def by_rounds_alone(n, size, alpha, beta):
    return "ring" if n & (n - 1) else "doubling"


@ex.choose.slip(
    "alpha against beta * size is one message: count rounds and shares, too."
)
def alpha_against_bytes(n, size, alpha, beta):
    return "ring" if n & (n - 1) or beta * size > alpha else "doubling"
