"""What travels in a collective call, if chapter 16's algorithms did it.

Each gives rounds: lists of messages (source, to, bytes) that leave at the same time.
Ranks are counted by their place in the group. Rings: P. Patarasuk and X. Yuan, Bandwidth
Optimal All-reduce Algorithms (2009); trees and the pairwise exchange: R. Thakur et al.,
Optimization of Collective Communication Operations in MPICH (2005).
"""

from utils.built.collectives import cut


def bytes_of(value):
    "Of a tensor or of a pickled object."
    return value.nbytes if hasattr(value, "nbytes") else len(value)


def ring(sizes, steps, first=0):
    "In step k rank r passes chunk r + first - k on to its right neighbour."
    n = len(sizes)
    return [
        [(r, (r + 1) % n, sizes[(r + first - k) % n]) for r in range(n)]
        for k in range(steps)
    ]


def ring_sum(values):
    "all_reduce: n tensors alike, 2 (n - 1) steps of a chunk each."
    x, n = values[0], len(values)
    sizes = [(c.stop - c.start) * x.element_size() for c in cut(x.numel(), n)]
    return ring(sizes, 2 * (n - 1), first=-1)


def ring_scatter(sizes):
    "reduce_scatter: chunk r, of sizes[r] bytes, ends on rank r after n - 1 steps."
    return ring(sizes, len(sizes) - 1, first=-1)


def ring_gather(values):
    "all_gather: rank r's tensor or bytes goes round in n - 1 steps."
    return ring([bytes_of(x) for x in values], len(values) - 1)


def tree(values, root):
    "broadcast: rank `root` tells one, both tell one each, ..."
    n, size, reach, rounds = len(values), bytes_of(values[root]), 1, []
    while reach < n:
        pairs = [(root + r, root + r + reach) for r in range(min(reach, n - reach))]
        rounds.append([(source % n, to % n, size) for source, to in pairs])
        reach *= 2
    return rounds


def backwards(rounds):
    "reduce: a broadcast, with every message turned round."
    return [[(b, a, size) for a, b, size in messages] for messages in rounds[::-1]]


def star(sizes, root):
    "scatter: `root` sends sizes[r] bytes to rank r, one after the other."
    return [[(root, r, size)] for r, size in enumerate(sizes) if r != root]


def pairwise(sizes):
    "all_to_all: in round k rank r sends sizes[r][r + k] bytes to rank r + k."
    n = len(sizes)
    return [
        [(r, (r + k) % n, sizes[r][(r + k) % n]) for r in range(n)] for k in range(1, n)
    ]
