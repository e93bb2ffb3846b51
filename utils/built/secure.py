"""What chapter 22 builds: the exact sum of the clients' numbers, and nothing else of them.

Numbers become whole numbers of a ring (modulo 2**32), each client hides its own under
masks that cancel in the sum, and the secrets behind the masks are shared out, so that
those who stay can remove what those who dropped out left behind. After K. Bonawitz et
al., Practical Secure Aggregation for Privacy-Preserving Machine Learning (2017),
https://eprint.iacr.org/2017/281; shares after A. Shamir, How to Share a Secret (1979);
the group of RFC 3526, section 3 (2,048 bits).

A teaching version: the server is honest in the protocol (it is only curious), nobody
signs anything, and `seed` makes runs repeatable. A real client draws from `secrets`.
"""

import hashlib
import math
import random

import numpy as np

from utils import given

RING = 2**32  # a number in the ring fills the 32 bits of a uint32
SCALE = 2**16  # steps per unit
PRIME = 2**521 - 1  # shares are numbers modulo this prime
GENERATOR, GROUP = 2, int(  # Diffie-Hellman: GENERATOR ** secret % GROUP
    "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a"
    "08798e3404ddef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9"
    "a637ed6b0bff5cb6f406b7edee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163"
    "bf0598da48361c55d39a69163fa8fd24cf5f83655d23dca3ad961c62f356208552bb9ed529077096966d"
    "670c354e4abc9804f1746c08ca18217c32905e462e36ce3be39e772c180e86039b2783a2ec07a28fb5c5"
    "5df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa051015728e5a8aacaa68ffffffff"
    "ffffffff",
    16,
)  # fmt: skip


def to_ring(x_P, scale, n):
    """Numbers in steps of 1 / scale, modulo 2**32: -> (P,) uint32.

    n: how many clients will be added up; OverflowError where n such numbers could reach
    2**31, ValueError for nan or inf.
    """
    scale = given.number("scale", scale, above=0)
    n = given.whole("n", n)
    x_P = np.asarray(given.array("x_P", x_P), np.float64)
    if not np.isfinite(x_P).all():
        raise ValueError("x_P holds nan or inf: they have no place in the ring")
    q_P = np.rint(x_P * scale)
    if n * np.abs(q_P).max(initial=0) >= 2**31:
        raise OverflowError(
            f"{n} numbers as large as {np.abs(x_P).max():.3g}, in steps of 1/{scale:g}, "
            "do not fit between -2**31 and 2**31: clip them, or take fewer steps"
        )
    return q_P.astype(np.int64).astype(np.uint32)


def from_ring(total_P, scale):
    "A sum in the ring as numbers again, the upper half as negative ones: (P,) float64."
    return _ring("total_P", total_P).view(np.int32) / scale


def _ring(name, value):
    value = np.asarray(value)
    if value.dtype != np.uint32:
        raise TypeError(f"{name} holds numbers of the ring, uint32, not {value.dtype}")
    return np.ascontiguousarray(value)


def stream(seed, P):
    "P numbers of the ring that look drawn at random; the same for the same seed."
    words = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:16], "big")
    draws = np.random.Generator(np.random.Philox(words))
    return draws.integers(0, RING, P, dtype=np.uint32)


def masked(i, q_P, own, pair):
    """What client i sends: its numbers under all its masks, (P,) uint32.

    own: the seed of its own mask; pair: {j: the seed that it shares with client j}. The
    one with the smaller number adds the pair's mask, the other subtracts it.
    """
    sent_P = _ring("q_P", q_P) + stream(own, len(q_P))
    for j, seed in pair.items():
        if i == j:
            raise ValueError(f"client {i} has no pair with itself")
        mask_P = stream(seed, len(q_P))
        sent_P = sent_P + mask_P if i < j else sent_P - mask_P
    return sent_P


def share(secret, n, t, rng):
    """Parts of a secret for clients 1 to n, any t of which give it back: {x: y}.

    Points of a random polynomial of degree t - 1 that is `secret` at 0. rng: a
    random.Random, or random.SystemRandom where it matters.
    """
    n = given.whole("n", n)
    t = given.whole("t", t, most=n)
    secret = given.whole("secret", secret, 0, PRIME - 1)
    c = [secret] + [rng.randrange(PRIME) for _ in range(t - 1)]
    return {
        x: sum(a * pow(x, k, PRIME) for k, a in enumerate(c)) % PRIME
        for x in range(1, n + 1)
    }


def rebuild(shares):
    "The secret behind t shares {x: y}: the polynomial through them, at 0."
    if not shares or not all(x % PRIME for x in shares):
        raise ValueError("shares is {x: y} with at least one share, and no x is 0")
    total = 0
    for x, y in shares.items():
        above = math.prod(-other for other in shares if other != x)
        below = math.prod(x - other for other in shares if other != x)
        total += y * above * pow(below, -1, PRIME)
    return total % PRIME


def unmask(total_P, own, left):
    """The sum of the survivors' numbers: their masked sum without what did not cancel.

    own: {i: own seed} of every survivor; left: {(i, d): the pair's seed} of every
    survivor i with every d that dropped out.
    """
    total_P = _ring("total_P", total_P)
    for seed in own.values():
        total_P = total_P - stream(seed, len(total_P))
    for (i, d), seed in left.items():
        if i not in own or d in own:
            raise ValueError(
                f"the pair {(i, d)} is not one of a survivor and a client that dropped out"
            )
        mask_P = stream(seed, len(total_P))
        total_P = total_P - mask_P if i < d else total_P + mask_P
    return total_P


class Client:
    "One client's secrets: a key for the pairs, a seed of its own, both shared out."

    def __init__(self, i, n, t, seed):
        self.i, self.n = given.whole("i", i, 0, n - 1), n
        draws = random.Random(f"client {i} of {n}, seed {seed}")
        self.key, self.own = draws.getrandbits(256), draws.getrandbits(256)
        self.public = pow(GENERATOR, self.key, GROUP)
        self.key_shares = share(self.key, n, t, draws)
        self.own_shares = share(self.own, n, t, draws)

    def pair(self, publics):
        "{j: the seed shared with client j}, from everybody's public keys."
        if len(publics) != self.n:
            raise ValueError(f"{len(publics)} public keys of {self.n} clients")
        return {
            j: pow(public, self.key, GROUP)
            for j, public in enumerate(publics)
            if j != self.i
        }


def secure_sum(updates, dropped=(), t=None, scale=SCALE, seed=0):
    """The exact sum of the updates (n, P) of those who did not drop out, and what was sent.

    -> (sum (P,) float64, {i: what client i sent, uint32}). t: how many clients can undo
    the masks, more than half of them without it; RuntimeError where fewer are left.
    """
    n = len(updates)
    dropped = {
        given.whole("a client that dropped out", i, 0, n - 1) for i in list(dropped)
    }
    t = n // 2 + 1 if t is None else given.whole("t", t, n // 2 + 1, n)
    clients = [Client(i, n, t, seed) for i in range(n)]
    publics = [client.public for client in clients]
    sent = {
        i: masked(
            i, to_ring(updates[i], scale, n), clients[i].own, clients[i].pair(publics)
        )
        for i in range(n)
        if i not in dropped
    }
    if len(sent) < t:
        raise RuntimeError(f"{len(sent)} clients are left, {t} are needed: no sum")
    helpers = sorted(sent)[:t]

    def collected(shares):
        return rebuild({h + 1: shares[h + 1] for h in helpers})

    own = {i: collected(clients[i].own_shares) for i in sent}
    left = {}
    for d in set(range(n)) - set(sent):
        key = collected(clients[d].key_shares)
        left |= {(i, d): pow(publics[i], key, GROUP) for i in sent}
    total_P = np.sum(list(sent.values()), axis=0, dtype=np.uint32)
    return from_ring(unmask(total_P, own, left), scale), sent
