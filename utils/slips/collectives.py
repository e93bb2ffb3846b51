import math

import numpy as np

from utils.built.collectives import all_gather as right_all_gather
from utils.built.collectives import cut as right_cut
from utils.built.collectives import fit as right_fit
from utils.built.collectives import reduce_scatter as right_reduce_scatter
from utils.checks import collectives as ex

SAID = {
    "pass_right/one_after_the_other": "Everybody holds rank 0's: each place was overwritten before its neighbour had read it. Read the old list, write a new one.",
    "pass_right/in_place": None,
    "pass_right/pass_left": "The wrong way round: rank r gives to rank r + 1.",
    "pass_right/open_ring": "The ring is open: the last rank hands its value to rank 0.",
    "pass_right/stays": "Nothing has moved.",
    "pass_right/forgets_return": None,
    "cut/drops_the_rest": "2 of the 10 numbers are in no chunk: N // n each leaves a rest.",
    "cut/rest_to_the_last": "Unequal: the ring waits for its largest chunk, so sizes may differ by 1 at most.",
    "cut/rounds_up": "Unequal: the ring waits for its largest chunk, so sizes may differ by 1 at most.",
    "cut/one_too_far": "A number is in two chunks.",
    "cut/size_for_number": "3 chunks for 4 ranks.",
    "cut/pairs": "It should return slices: slice(start, stop).",
    "cut/backwards": "The chunks are not in order: rank 0 has the first.",
    "shift/all_send_first": "Deadlock: the ranks wait for each other, and nobody can go on.",
    "shift/all_receive_first": None,
    "shift/shifts_left": "It has its right neighbour's: send to (rank + 1) % size, receive from (rank - 1) % size.",
    "shift/one_rank_breaks_the_ring": "Right, but a queue: the ranks send one after the other. Three rounds are enough for any number of ranks.",
    "shift/no_wrap": "rank 0 talks to rank -1; there are ranks 0 to 1. Round the ring with % size.",
    "shift/into_its_own": None,
    "shift/into_its_own_and_copies": None,
    "shift/returns_its_own": "It has its own numbers back: return what you received.",
    "shift/room_in_float64": "rank 0 sends 4 numbers of float32 to rank 1, which made room for 4 of float64. float32 goes in, so float32 comes out: np.empty(N) makes float64, whatever comes; give it a dtype, or use np.empty_like.",
    "shift/by_sendrecv": "It calls comm.sendrecv: this one is to be done with send and recv alone.",
    "shift/off_the_end": "rank 1 talks to rank 2; there are ranks 0 to 1. Round the ring with % size.",
    "shift/returns_its_input": "It has its own numbers back: return what you received.",
    "broadcast/rank_0_returns_its_input": "Right values, but it returns a view: what it returns shares memory with its input, so changing one changes the other. Return an array of its own: a copy.",
    "broadcast/returns_its_input_everywhere": "It has kept its own numbers: receive, and return what came.",
    "broadcast/star": "Right, but rank 0 tells everybody itself. Let those who know it help.",
    "broadcast/chain": "Right, but slow: a chain. Let everybody who knows it tell somebody.",
    "broadcast/received_and_forgotten": "It has kept its own numbers: receive, and return what came.",
    "broadcast/forgotten": "It has kept its own numbers: receive, and return what came.",
    "broadcast/only_powers_of_two": "rank 1 talks to rank 3; there are ranks 0 to 2.",
    "broadcast/everybody_receives": "Deadlock: the ranks wait for each other, and nobody can go on.",
    "broadcast/sends_too_early": "It has rank 1's numbers; rank 0 is the one that knows.",
    "scatter/scatters_everything": "That is all of them: rank r gets chunk r.",
    "scatter/sends_whole_cuts_later": "The whole array goes to every rank: send each its chunk only.",
    "scatter/cuts_its_own": "That is a piece of its own array; the numbers are rank 0's.",
    "scatter/sends_to_itself": "rank 0 talks to itself.",
    "scatter/off_by_one": "That is the chunk of the rank before it.",
    "scatter/rank_0_leaves_early": None,
    "scatter/view": "Right values, but it returns a view: what it returns shares memory with its input, so changing one changes the other. Return an array of its own: a copy.",
    "gather/without_rank_0": "Rank 0's own part is missing: it sends no message to itself.",
    "gather/everybody_returns": "Only rank 0 has it all; the others return None.",
    "gather/receives_from_the_wrong_end": "Deadlock: a message that nobody takes, or that nobody sends.",
    "gather/what_arrived_is_lost": "Rank 0 leaves with chunk 0, chunk 1, ... one after the other.",
    "gather/own_only": "That is its own part only.",
    "gather/room_for_its_own_size": "rank 1 sends 3 numbers of float64 to rank 0, which made room for 2 of float64.",
    "gather/gathers_in_float64": "rank 1 sends 2 numbers of float32 to rank 0, which made room for 2 of float64. float32 goes in, so float32 comes out: np.empty(N) makes float64, whatever comes; give it a dtype, or use np.empty_like.",
    "gather/gathers_in_empty_float64": "rank 1 sends 2 numbers of float32 to rank 0, which made room for 2 of float64. float32 goes in, so float32 comes out: np.empty(N) makes float64, whatever comes; give it a dtype, or use np.empty_like.",
    "reduce_scatter/starts_one_chunk_late": "Off by 1: rank 0 leaves with the sum of chunk 1. Chunk 0 must end here, so where does it start?",
    "reduce_scatter/forwards_without_adding": "Rank 0 leaves with a sum that lacks the numbers of rank 0.",
    "reduce_scatter/forwards_its_own_only": "Rank 0 leaves with a sum that lacks the numbers of rank 1 and 2.",
    "reduce_scatter/one_step_short": "Rank 0 leaves with a sum that lacks the numbers of rank 1.",
    "reduce_scatter/to_the_left": "Wrong neighbour: rank 0 sends to rank 3, its left one. In a ring each rank sends to (rank + 1) % size only.",
    "reduce_scatter/from_the_wrong_side": "Deadlock: the ranks wait for each other, and nobody can go on.",
    "reduce_scatter/receives_over_what_it_sends": "rank 0 receives into memory that it is sending: what arrives would overwrite what has not left yet.",
    "reduce_scatter/arrives_over_its_own": "Rank 0 leaves with a sum that lacks the numbers of rank 0.",
    "reduce_scatter/whole_arrays_travel": "The whole array travels in every step: one chunk is enough.",
    "reduce_scatter/sends_then_receives": "Deadlock: the ranks wait for each other, and nobody can go on.",
    "reduce_scatter/adds_into_its_input": None,
    "reduce_scatter/mean_already": "That is the mean; here we want the sum.",
    "all_gather/always_sends_its_own": "Rank 0 has no right chunk 1: which one do you send in each step, and where do you put what arrives?",
    "all_gather/one_step_short_gather": "Rank 0 has no right chunk 1: which one do you send in each step, and where do you put what arrives?",
    "all_gather/two_ranks_wait_for_one_side": "Deadlock: the ranks wait for each other, and nobody can go on.",
    "all_gather/gathers_leftwards": "Wrong neighbour: rank 0 sends to rank 2, its left one. In a ring each rank sends to (rank + 1) % size only.",
    "all_gather/whole_arrays_go_round": "The whole array travels in every step: one chunk is enough.",
    "all_gather/forgets_what_arrives": "That is its own part only.",
    "all_gather/chunk_into_itself": "rank 0 receives into memory that it is sending: what arrives would overwrite what has not left yet.",
    "all_gather/goes_round_in_float64": "float32 goes in, so float32 comes out: np.empty(N) makes float64, whatever comes; give it a dtype, or use np.empty_like.",
    "all_gather/n_steps": "One step too many: after n - 1 steps everything has been everywhere.",
    "ring_all_reduce/divides_by_the_length": "Divided by the length of the array: the mean is over the ranks, comm.size of them.",
    "ring_all_reduce/length_of_the_part": "It calls all_gather with something that it cannot use: all_gather takes (part, N, comm), with N = len(x_N).",
    "ring_all_reduce/forgets_to_divide": "Forgot to divide: this is the sum.",
    "ring_all_reduce/always_divides": "Divided though mean=False: here we want the sum.",
    "ring_all_reduce/divides_twice": "Divided twice.",
    "ring_all_reduce/only_the_first_half": "That is its own chunk of the sum: the second half is missing.",
    "ring_all_reduce/through_rank_0": "Wrong neighbour: rank 1 sends to rank 0, its left one. In a ring each rank sends to (rank + 1) % size only.",
    "ring_all_reduce/whole_buffers_in_a_ring": "Whole arrays went round the ring: cut them first.",
    "ring_all_reduce/in_double": "float32 goes in, so float32 comes out: gradients would double their bytes.",
    "ring_all_reduce/without_its_length": "rank 1 sends 2 numbers of float64 to rank 2, which made room for 3 of float64.",
    "doubling_all_reduce/round_a_ring": "Ranks 0 and 1 leave with sums that differ in the last digit: each adds in another order. Swap in pairs (rank ^ distance): a + b = b + a, exactly.",
    "doubling_all_reduce/distance_grows_by_one": "Rank 0 leaves with a sum that has rank 0 and 1 and 2 and 3 too often.",
    "doubling_all_reduce/sends_its_own_only": "Rank 0 leaves with a sum that lacks the numbers of rank 3.",
    "doubling_all_reduce/partner_by_addition": "Deadlock: the ranks wait for each other, and nobody can go on.",
    "doubling_all_reduce/everybody_with_everybody": "Right, but slow: each exchange should double how many ranks' numbers you hold.",
    "doubling_all_reduce/into_what_it_sends": "rank 0 receives into memory that it is sending: what arrives would overwrite what has not left yet.",
    "doubling_all_reduce/first_round_only": "Rank 0 leaves with a sum that lacks the numbers of rank 2 and 3.",
    "fit/unweighted": "Plain least squares: the largest times decide alone, and alpha is noise. Divide each equation by its seconds.",
    "fit/swapped": "alpha and beta are swapped.",
    "fit/bandwidth": "beta is seconds a byte; this is bytes a second.",
    "fit/first_and_last": "Two points make a line, but then two measurements decide.",
    "fit/half_weighted": "Weighted by the root of the seconds: divide by the seconds themselves.",
    "fit/only_alpha": "It should return two numbers, alpha and beta.",
    "cost/one_half": "Only one half: reduce-scatter and all-gather take n - 1 rounds each.",
    "cost/whole_buffer": "In a ring a message is a chunk, 1/n of the buffer.",
    "cost/one_alpha": "The bytes are right, but every round pays alpha.",
    "cost/n_rounds": "One round too many in each half: n - 1, not n.",
    "cost/natural_log": "Doublings are counted by log2, not by the natural logarithm.",
    "cost/chunks_in_doubling": "In doubling every exchange carries the whole buffer.",
    "cost/half_a_star": "Through rank 0: it receives n - 1 and then sends n - 1.",
    "cost/bytes_over_beta": "It divides by zero. alpha is seconds and beta is seconds a byte: a message takes alpha + beta * bytes, and nothing is divided by them.",
    "choose/any_number_of_ranks": "6 is no power of two: doubling has no partner for everybody there.",
    "choose/always_ring": "The ring takes 0.000602 s, doubling 0.000202 s.",
    "choose/fixed_threshold": "The ring takes 0.1002 s, doubling 0.1001 s.",
    "choose/the_dearer": "The ring takes 0.000602 s, doubling 0.000202 s.",
    "choose/the_seconds": "It should return 'ring' or 'doubling'.",
    "choose/by_bytes_alone": "The ring takes 0.000602 s, doubling 0.000202 s.",
}


class _Made:
    "Slips made in a loop, or plain values."

    def add(self, exercise, name, answer, says=None):
        ex.chapter.exercises[exercise].slip(SAID.get(f"{exercise}/{name}") or "")(
            answer
        )

    def value(self, exercise, answer, says=None):
        self.add(exercise, repr(answer), answer, says)

    def __call__(self, exercise, says=None):
        return lambda made: self.add(exercise, made.__name__, made, says)


wrong = _Made()


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


@ex.pass_right.slip(told="is a `return` missing?")
def forgets_return(held):
    [held[-1], *held[:-1]]


# ---- cut ----


@ex.cut.slip("2 of the 10 numbers are in no chunk: N // n each leaves a rest.")
def drops_the_rest(N, n):
    return [slice(i * (N // n), (i + 1) * (N // n)) for i in range(n)]


@ex.cut.slip(
    "Unequal: the ring waits for its largest chunk, so sizes may differ by 1 at most."
)
def rest_to_the_last(N, n):
    size = N // n
    return [slice(i * size, N if i == n - 1 else (i + 1) * size) for i in range(n)]


@ex.cut.slip(
    "Unequal: the ring waits for its largest chunk, so sizes may differ by 1 at most."
)
def rounds_up(N, n):
    size = math.ceil(N / n)
    return [slice(min(i * size, N), min((i + 1) * size, N)) for i in range(n)]


@ex.cut.slip("A number is in two chunks.")
def one_too_far(N, n):
    ends = [N * i // n for i in range(n + 1)]
    return [slice(a, b + 1) for a, b in zip(ends, ends[1:])]


@ex.cut.slip("3 chunks for 4 ranks.")
def size_for_number(N, n):
    return [slice(i, i + n) for i in range(0, N, n)]


@ex.cut.slip("It should return slices: slice(start, stop).")
def pairs(N, n):
    return [(N * i // n, N * (i + 1) // n) for i in range(n)]


@ex.cut.slip("The chunks are not in order: rank 0 has the first.")
def backwards(N, n):
    return right_cut(N, n)[::-1]


# ---- shift ----


@ex.shift.slip("Deadlock: the ranks wait for each other, and nobody can go on.")
def all_send_first(x, comm):
    y = np.empty_like(x)
    comm.send(x, (comm.rank + 1) % comm.size)
    comm.recv(y, (comm.rank - 1) % comm.size)
    return y


@ex.shift.slip(told="waits to receive from rank")
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


@ex.shift.slip(
    "rank 0 talks to rank -1; there are ranks 0 to 1. Round the ring with % size."
)
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
    "rank 0 sends 4 numbers of float32 to rank 1, which made room for 4 of float64. float32 goes in, so float32 comes out: np.empty(N) makes float64, whatever comes; give it a dtype, or use np.empty_like."
)
def room_in_float64(x, comm):
    return _even_odd(x, np.empty(len(x)), comm)


@ex.shift.slip(
    "It calls comm.sendrecv: this one is to be done with send and recv alone."
)
def by_sendrecv(x, comm):
    y, n = np.empty_like(x), comm.size
    comm.sendrecv(x, (comm.rank + 1) % n, y, (comm.rank - 1) % n)
    return y


@ex.shift.slip(
    "rank 1 talks to rank 2; there are ranks 0 to 1. Round the ring with % size."
)
def off_the_end(x, comm):
    comm.send(x, comm.rank + 1)


@ex.shift.slip("It has its own numbers back: return what you received.")
def returns_its_input(x, comm):
    _even_odd(x, np.empty_like(x), comm)
    return x


# ---- broadcast ----


@ex.broadcast.slip(
    "Right values, but it returns a view: what it returns shares memory with its input, so changing one changes the other. Return an array of its own: a copy."
)
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


@ex.broadcast.slip("rank 1 talks to rank 3; there are ranks 0 to 2.")
def only_powers_of_two(x, comm):
    y, reach = x.copy(), 1
    while reach < comm.size:
        if comm.rank < reach:
            comm.send(y, comm.rank + reach)
        elif comm.rank < 2 * reach:
            comm.recv(y, comm.rank - reach)
        reach *= 2
    return y


@ex.broadcast.slip("Deadlock: the ranks wait for each other, and nobody can go on.")
def everybody_receives(x, comm):
    y, reach = x.copy(), 1
    while reach < comm.size:
        if comm.rank < reach and comm.rank + reach < comm.size:
            comm.send(y, comm.rank + reach)
        else:
            comm.recv(y, comm.rank - reach)
        reach *= 2
    return y


@ex.broadcast.slip("It has rank 1's numbers; rank 0 is the one that knows.")
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


@ex.scatter.slip("rank 0 talks to itself.")
def sends_to_itself(x, comm):
    chunks = right_cut(len(x), comm.size)
    mine = np.empty_like(x[chunks[comm.rank]])
    if comm.rank == 0:
        for to in range(comm.size):
            comm.send(x[chunks[to]], to)
    comm.recv(mine, 0)
    return mine


@ex.scatter.slip("That is the chunk of the rank before it.")
def off_by_one(x, comm):
    chunks = right_cut(len(x), comm.size)
    if comm.rank == 0:
        for to in range(1, comm.size):
            comm.send(x[chunks[to - 1]], to)
        return x[chunks[-1]].copy()
    mine = np.empty_like(x[chunks[comm.rank - 1]])
    comm.recv(mine, 0)
    return mine


@ex.scatter.slip(told="which has returned")
def rank_0_leaves_early(x, comm):
    chunks = right_cut(len(x), comm.size)
    if comm.rank == 0:
        return x[chunks[0]].copy()
    mine = np.empty_like(x[chunks[comm.rank]])
    comm.recv(mine, 0)
    return mine


@ex.scatter.slip(
    "Right values, but it returns a view: what it returns shares memory with its input, so changing one changes the other. Return an array of its own: a copy."
)
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


@ex.gather.slip("Only rank 0 has it all; the others return None.")
def everybody_returns(part, N, comm):
    return _gather(part, N, comm, all_return=True)


@ex.gather.slip("Deadlock: a message that nobody takes, or that nobody sends.")
def receives_from_the_wrong_end(part, N, comm):
    if comm.rank:
        comm.send(part, 0)
        return None
    y = np.zeros(N)
    for source in range(1, comm.size - 1):
        comm.recv(y[right_cut(N, comm.size)[source]], source)
    return y


@ex.gather.slip("Rank 0 leaves with chunk 0, chunk 1, ... one after the other.")
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
    "rank 1 sends 3 numbers of float64 to rank 0, which made room for 2 of float64."
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
    "rank 1 sends 2 numbers of float32 to rank 0, which made room for 2 of float64. float32 goes in, so float32 comes out: np.empty(N) makes float64, whatever comes; give it a dtype, or use np.empty_like."
)
def gathers_in_float64(part, N, comm):
    return _gather(part, N, comm)


@ex.gather.slip(
    "rank 1 sends 2 numbers of float32 to rank 0, which made room for 2 of float64. float32 goes in, so float32 comes out: np.empty(N) makes float64, whatever comes; give it a dtype, or use np.empty_like."
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
    "Off by 1: rank 0 leaves with the sum of chunk 1. Chunk 0 must end here, so where does it start?"
)
def starts_one_chunk_late(x, comm):
    return _ring_sum(x, comm, start=0)


@ex.reduce_scatter.slip("Rank 0 leaves with a sum that lacks the numbers of rank 0.")
def forwards_without_adding(x, comm):
    return _ring_sum(x, comm, add=False)


@ex.reduce_scatter.slip(
    "Rank 0 leaves with a sum that lacks the numbers of rank 1 and 2."
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


@ex.reduce_scatter.slip("Rank 0 leaves with a sum that lacks the numbers of rank 1.")
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


@ex.reduce_scatter.slip(
    "Wrong neighbour: rank 0 sends to rank 3, its left one. In a ring each rank sends to (rank + 1) % size only."
)
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
    "Deadlock: the ranks wait for each other, and nobody can go on."
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
    "rank 0 receives into memory that it is sending: what arrives would overwrite what has not left yet."
)
def receives_over_what_it_sends(x, comm):
    n, rank = comm.size, comm.rank
    chunks, y = right_cut(len(x), n), x.copy()
    for step in range(1, n):
        chunk = y[chunks[(rank - step) % n]]
        comm.sendrecv(chunk, (rank + 1) % n, chunk, (rank - 1) % n)
    return y[chunks[rank]].copy()


@ex.reduce_scatter.slip("Rank 0 leaves with a sum that lacks the numbers of rank 0.")
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
    "Deadlock: the ranks wait for each other, and nobody can go on."
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
    "Rank 0 has no right chunk 1: which one do you send in each step, and where do you put what arrives?"
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


@ex.all_gather.slip(
    "Rank 0 has no right chunk 1: which one do you send in each step, and where do you put what arrives?"
)
def one_step_short_gather(part, N, comm):
    return _go_round(part, N, comm, steps=lambda n: n - 2)


@ex.all_gather.slip("Deadlock: the ranks wait for each other, and nobody can go on.")
def two_ranks_wait_for_one_side(part, N, comm):
    n, rank = comm.size, comm.rank
    chunks, y = right_cut(N, n), np.zeros(N)
    y[chunks[rank]] = part
    for step in range(n - 1):
        comm.send(y[chunks[(rank - step) % n]], (rank + 1) % n)
        comm.recv(y[chunks[(rank - step - 1) % n]], (rank - 1) % n)
    return y


@ex.all_gather.slip(
    "Wrong neighbour: rank 0 sends to rank 2, its left one. In a ring each rank sends to (rank + 1) % size only."
)
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
    "rank 0 receives into memory that it is sending: what arrives would overwrite what has not left yet."
)
def chunk_into_itself(part, N, comm):
    n, rank = comm.size, comm.rank
    chunks, y = right_cut(N, n), np.zeros(N)
    y[chunks[rank]] = part
    for step in range(n - 1):
        chunk = chunks[(rank - step) % n]
        comm.sendrecv(y[chunk], (rank + 1) % n, y[chunk], (rank - 1) % n)
    return y


@ex.all_gather.slip(
    "float32 goes in, so float32 comes out: np.empty(N) makes float64, whatever comes; give it a dtype, or use np.empty_like."
)
def goes_round_in_float64(part, N, comm):
    return _go_round(part, N, comm)


@ex.all_gather.slip(
    "One step too many: after n - 1 steps everything has been everywhere."
)
def n_steps(part, N, comm):
    return _go_round(part, N, comm, steps=lambda n: n)


# ---- ring_all_reduce ----


@ex.ring_all_reduce.slip(
    "Divided by the length of the array: the mean is over the ranks, comm.size of them."
)
def divides_by_the_length(x, comm, mean=False):
    part = right_reduce_scatter(x, comm)
    return right_all_gather(part / len(x) if mean else part, len(x), comm)


@ex.ring_all_reduce.slip(
    "It calls all_gather with something that it cannot use: all_gather takes (part, N, comm), with N = len(x_N)."
)
def length_of_the_part(x, comm, mean=False):
    part = right_reduce_scatter(x, comm) / (comm.size if mean else 1)
    return right_all_gather(part, len(part), comm)


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
    "Wrong neighbour: rank 1 sends to rank 0, its left one. In a ring each rank sends to (rank + 1) % size only."
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
    "rank 1 sends 2 numbers of float64 to rank 2, which made room for 3 of float64."
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
    "Ranks 0 and 1 leave with sums that differ in the last digit: each adds in another order. Swap in pairs (rank ^ distance): a + b = b + a, exactly."
)
def round_a_ring(x, comm):
    return _doubling(x, comm, lambda r, d, n: ((r + d) % n, (r - d) % n))


@ex.doubling_all_reduce.slip(
    "Rank 0 leaves with a sum that has rank 0 and 1 and 2 and 3 too often."
)
def distance_grows_by_one(x, comm):
    return _doubling(
        x, comm, lambda r, d, n: ((r + d) % n, (r - d) % n), lambda d: d + 1
    )


@ex.doubling_all_reduce.slip(
    "Rank 0 leaves with a sum that lacks the numbers of rank 3."
)
def sends_its_own_only(x, comm):
    y, theirs, distance = x.copy(), np.empty_like(x), 1
    while distance < comm.size:
        comm.sendrecv(x, comm.rank ^ distance, theirs, comm.rank ^ distance)
        y, distance = y + theirs, 2 * distance
    return y


@ex.doubling_all_reduce.slip(
    "Deadlock: the ranks wait for each other, and nobody can go on."
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
    "rank 0 receives into memory that it is sending: what arrives would overwrite what has not left yet."
)
def into_what_it_sends(x, comm):
    y, distance = x.copy(), 1
    while distance < comm.size:
        comm.sendrecv(y, comm.rank ^ distance, y, comm.rank ^ distance)
        y, distance = y + y, 2 * distance
    return y


@ex.doubling_all_reduce.slip(
    "Rank 0 leaves with a sum that lacks the numbers of rank 2 and 3."
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


@ex.fit.slip("It should return two numbers, alpha and beta.")
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


@ex.choose.slip("6 is no power of two: doubling has no partner for everybody there.")
def any_number_of_ranks(n, size, alpha, beta):
    return _faster(n, size, alpha, beta)


@ex.choose.slip("The ring takes 0.000602 s, doubling 0.000202 s.")
def always_ring(n, size, alpha, beta):
    return "ring"


@ex.choose.slip("The ring takes 0.1002 s, doubling 0.1001 s.")
def fixed_threshold(n, size, alpha, beta):
    return "ring" if n & (n - 1) or size > 100_000 else "doubling"


@ex.choose.slip("The ring takes 0.000602 s, doubling 0.000202 s.")
def the_dearer(n, size, alpha, beta):
    return (
        {"ring": "doubling", "doubling": "ring"}[_faster(n, size, alpha, beta)]
        if not n & (n - 1)
        else "ring"
    )


@ex.choose.slip("It should return 'ring' or 'doubling'.")
def the_seconds(n, size, alpha, beta):
    return min(
        2 * (n - 1) * (alpha + beta * size / n), math.log2(n) * (alpha + beta * size)
    )


@ex.choose.slip("The ring takes 0.000602 s, doubling 0.000202 s.")
def by_bytes_alone(n, size, alpha, beta):
    return "doubling" if n == 2 else "ring"
