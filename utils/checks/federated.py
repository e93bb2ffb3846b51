"Chapter 22: clients, drift, masked sums, leaking gradients, the privacy budget."

import functools
import itertools
import math
import random

import numpy as np
import torch
import torch.nn.functional as F

from utils.bench.federated import recorded
from utils.built import federated as course
from utils.built import private, secure
from utils.check import as_array
from utils.exercises import Chapter, Miss, same
from utils.exercises.rehearsed import normal

chapter = Chapter("22_federated")


# ---- clients at once ----


def _alone(w_P, X_BD, y_B):
    "One client's gradient, without stacking."
    w_P = w_P.detach().clone().requires_grad_()
    W1, b1, W2, b2 = w_P.split([32 * 64, 32, 10 * 32, 10])
    h = torch.tanh(X_BD @ W1.view(32, 64).T + b1)
    loss = F.cross_entropy(h @ W2.view(10, 32).T + b2, y_B)
    return torch.autograd.grad(loss, w_P)[0]


@chapter.exercise(
    "Clients share no weight. What is the gradient of the sum of their losses, seen by one "
    "client's weights?",
    "Every client's loss is a mean over its B rows; the clients' losses are added. A "
    "cross-entropy with reduction='sum' over all rows, divided by B, is that sum.",
    "w_KP = w_KP.detach().requires_grad_()\n"
    "logits_KBV = forward(w_KP, X_KBD)\n"
    "total = F.cross_entropy(logits_KBV.flatten(0, 1), y_KB.flatten(), reduction='sum')\n"
    "...  # / B, then torch.autograd.grad(loss, w_KP)[0]",
)
def client_slopes(answer):
    "Each client's own gradient, all from one backward pass."
    for K, B in ((3, 4), (1, 5), (5, 1)):
        w_KP, X_KBD = 0.3 * normal(K, 2410, seed=K), normal(K, B, 64, seed=B)
        y_KB = torch.arange(K * B).view(K, B) * 7 % 10
        case = f"{K} clients with {B} rows each"
        got = answer(w_KP, X_KBD, y_KB)
        if got is not None and tuple(np.shape(as_array(got))) != (K, 2410):
            same(f"{case}: shape", tuple(np.shape(as_array(got))), (K, 2410),
                 "One gradient per client, as long as its weights: (K, P).")  # fmt: skip
        want = torch.stack([_alone(*one) for one in zip(w_KP, X_KBD, y_KB)])
        same(case, got, want, "Each client's gradient is that of the mean loss over its own "
             "B rows, as if it were alone.")  # fmt: skip
        same(f"{case}: w_KP.requires_grad after the call", w_KP.requires_grad, False,
             "w_KP stays as it is: ask for gradients of a copy (detach() makes one).")  # fmt: skip
    w_P, X_KBD = 0.3 * normal(2410, seed=9), normal(4, 1, 64, seed=8)
    y_KB = torch.tensor([[3], [1], [4], [1]])
    got = answer(w_P.expand(4, -1), X_KBD, y_KB)
    want = torch.stack([_alone(w_P, *one) for one in zip(X_KBD, y_KB)])
    same("the same weights for 4 clients, w_P.expand(4, -1)", got, want,
         "Equal weights, other rows: the gradients differ.")  # fmt: skip


def _pulls(ends_KP, strengths_K):
    "Clients whose losses are strength / 2 * |w - end|**2, and a list of what they are asked."
    asked = []
    strengths_K1 = torch.tensor(strengths_K, dtype=torch.float64)[:, None]

    def slope(w_KP, s):
        asked.append((s, torch.as_tensor(w_KP).detach().clone()))
        return strengths_K1 * (w_KP - ends_KP) * (1 + 0.1 * s)

    return slope, asked


def _steps_asked(case, asked, w_P, K, S):
    "All began at w_P, and each step was asked for once."
    same(f"{case}: the steps s for which slope was called", [s for s, _ in asked],
         list(range(S)), "One call a step serves all clients: slope(w_KP, s) for s = 0 ... "
         "S - 1.")  # fmt: skip
    same(f"{case}: the weights in the first call", asked[0][1], w_P.repeat(K, 1),
         "All clients begin the round at the same weights: w_P, K times.")  # fmt: skip


@chapter.exercise(
    "Everybody begins at the same point, walks alone, and is averaged once, at the end.",
    "w_P.repeat(K, 1) is the start of all. After S steps w_KP - lr * slope(w_KP, s), weigh "
    "each client by n_K[k] / sum(n_K).",
    "w_KP = w_P.repeat(len(n_K), 1)\n"
    "for s in range(S):\n"
    "    ...\n"
    "return mean_of_shards(w_KP, n_K)  # chapter 17's line",
)
def fedavg_round(answer):
    "A round: S steps alone, one average."
    ends = torch.tensor([[0.0], [6.0]], dtype=torch.float64)
    for S, want in ((1, 2.25), (2, 3.4875)):
        slope, asked = _pulls(ends, [1.0, 1.0])
        case = f"two clients that pull to 0 (1 row) and 6 (3 rows), from 0, S = {S}, lr = 0.5"
        w_P = torch.zeros(1, dtype=torch.float64)
        got = answer(w_P, slope, [1, 3], S, 0.5)
        _steps_asked(case, asked, w_P, 2, S)
        same(case, got, [want], "The mean of where the clients end, weighed by their rows: "
             "1/4 and 3/4 here.")  # fmt: skip
    ends, w_P = normal(3, 4, seed=1), normal(4, seed=2)
    for n_K, S in (([5, 2, 4], 3), ([3, 0, 1], 5), ([1, 1, 1], 2)):
        slope, asked = _pulls(ends, [1.0, 0.5, 2.0])
        case = f"3 clients with {n_K} rows, S = {S}"
        got = answer(w_P, slope, n_K, S, 0.2)
        _steps_asked(case, asked, w_P, 3, S)
        same(case, got, course.fedavg_round(w_P, _pulls(ends, [1.0, 0.5, 2.0])[0], n_K, S,
             0.2), "Steps alone, then one mean by rows; a client without rows has no "
             "vote.")  # fmt: skip
    slope = lambda w_KP, s: w_KP - ends.float()  # noqa: E731
    got = answer(w_P.float(), slope, [2, 1, 1], 1, 0.5)
    same("float32 weights: dtype", str(getattr(got, "dtype", None)), "torch.float32",
         "The new weights have the dtype of the old ones.")  # fmt: skip


@chapter.exercise(
    "Two lengths: how far each walks, and how far the average gets.",
    "Weigh both by rows: mean of the lengths, over the length of the mean.",
    "Lengths are moves_KP.norm(dim=1). The mean move is mean_of_shards(moves_KP, n_K). A "
    "tensor divided by a zero tensor gives inf, a Python float raises.",
)
def drift(answer):
    "How much of the clients' walking is lost in the average."
    moves = torch.tensor([[3.0, 4.0], [3.0, -4.0]], dtype=torch.float64)
    rule = (
        "The mean of the moves' lengths over the length of the mean move, both by rows."
    )
    same("moves (3, 4) and (3, -4), equal rows", answer(moves, [7, 7]), 5 / 3, rule)
    same("the same moves, 1 and 3 rows", answer(moves, [1, 3]), 5 / math.sqrt(13), rule)
    moves = torch.tensor([[4.0, 0.0], [0.0, 3.0], [0.0, 0.0]], dtype=torch.float64)
    same("moves (4, 0), (0, 3), (0, 0) with 1, 2 and 5 rows", answer(moves, [1, 2, 5]),
         10 / math.sqrt(52), rule)  # fmt: skip
    moves = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    same("three equal moves", answer(moves.repeat(3, 1), [1, 4, 2]), 1.0,
         "Who walks together loses nothing: 1.")  # fmt: skip
    got = answer(torch.cat([moves, -moves]), [2, 2])
    same("two moves that undo each other", got, math.inf,
         "They walk, and the average stands still: infinite, inf.")  # fmt: skip


def _both(case, got, P, K):
    "(weights, variates), or a Miss."
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        raise Miss("scaffold_round returns two things: the new weights and the new control "
                   "variates.", case, got, "(w_P, c_KP)")  # fmt: skip
    return got


@chapter.exercise(
    "What does a client know about its own bias? Its control variate, minus everybody's "
    "mean.",
    "Step with slope(w_KP, s) - c_KP + c_P, where c_P is the mean of c_KP by rows. "
    "Afterwards the new c_KP is c_KP - c_P + (w_P - w_KP) / (S * lr), with the old c_P.",
    "c_P = mean_of_shards(c_KP, n_K)\n"
    "w_KP = w_P.repeat(len(n_K), 1)\n"
    "for s in range(S):\n"
    "    w_KP = w_KP - lr * (slope(w_KP, s) - c_KP + c_P)\n"
    "c_KP = ...\n"
    "return mean_of_shards(w_KP, n_K), c_KP",
)
def scaffold_round(answer):
    "A round in which each client subtracts its own bias."
    ends = torch.tensor([[0.0], [6.0]], dtype=torch.float64)
    case = "pulls to 0 (1 row) and 6 (3 rows), from 0, S = 1, lr = 0.5"
    start_P, zeros_KP = torch.zeros(1).double(), torch.zeros(2, 1).double()
    slope, _ = _pulls(ends, [1.0, 1.0])
    first = _both(case, answer(start_P, zeros_KP, slope, [1, 3], 1, 0.5), 1, 2)
    same(f"{case}, control variates 0: weights", first[0], [2.25],
         "Without control variates and in one step it is FedAvg: the clients' weights, "
         "weighed by rows.")  # fmt: skip
    slope, asked = _pulls(ends, [1.0, 1.0])
    w_P, c_KP = (
        torch.zeros(1, dtype=torch.float64),
        torch.tensor([[2.0], [-1.0]]).double(),
    )
    new_P, new_KP = _both(case, answer(w_P, c_KP, slope, [1, 3], 1, 0.5), 1, 2)
    _steps_asked(case, asked, w_P, 2, 1)
    case += ", control variates 2 and -1"
    same(f"{case}: weights", new_P, [2.25],
         "In a single step the corrections cancel: the mean of c_KP - c_P by rows is 0, and "
         "FedAvg's step is left.")  # fmt: skip
    same(f"{case}: new control variates", new_KP, [[0.0], [-6.0]],
         "A client's new control variate is the mean of the gradients it met: in one step, "
         "its gradient at w_P.")  # fmt: skip
    ends, w_P = normal(3, 4, seed=1), normal(4, seed=2)
    c_KP = normal(3, 4, seed=3)
    for n_K, S, lr in (([5, 2, 4], 3, 0.2), ([1, 3, 1], 4, 0.1)):
        slope, asked = _pulls(ends, [1.0, 0.5, 2.0])
        case = f"3 clients with {n_K} rows, S = {S}, lr = {lr}"
        got = _both(case, answer(w_P, c_KP, slope, n_K, S, lr), 4, 3)
        _steps_asked(case, asked, w_P, 3, S)
        want = course.scaffold_round(
            w_P, c_KP, _pulls(ends, [1.0, 0.5, 2.0])[0], n_K, S, lr
        )
        same(f"{case}: weights", got[0], want[0],
             "Every step takes the slope, minus the client's control variate, plus the mean "
             "of all by rows.")  # fmt: skip
        same(f"{case}: new control variates", got[1], want[1],
             "New: old - mean of the old + (start - end) / (S lr).")  # fmt: skip


# ---- masks ----


def _ring(case, got, want, rule):
    "Equal numbers, and numbers of the ring."
    kind = str(getattr(got, "dtype", type(got).__name__))
    same(case, got, want, rule)  # to 6 digits, which is not enough
    if not np.array_equal(as_array(got), as_array(want)):
        raise Miss(f"Nearly, and the ring is exact. {rule}", case, got, want)
    same(f"{case}: dtype", kind, "uint32", "Numbers of the ring are np.uint32: they wrap "
         "round at 2**32 by themselves.")  # fmt: skip


@chapter.exercise(
    "Rounding first, wrapping second: a negative number is a large one in the ring.",
    "np.rint(x_P * scale) are whole numbers. NumPy wraps whole numbers: .astype(np.int64), "
    "then .astype(np.uint32). The sum must not reach 2**31.",
    "q_P = np.rint(x_P * scale)\n"
    "if n * abs(q_P).max() >= 2**31:\n"
    "    raise OverflowError(...)\n"
    "return q_P.astype(np.int64).astype(np.uint32)",
)
def to_ring(answer):
    "Numbers as whole numbers modulo 2**32."
    rule = "Whole steps: round x_P * scale to the nearest whole number."
    _ring("[0.5, 1, 0, 2.25] in steps of 1/4", answer(np.array([0.5, 1, 0, 2.25]), 4, 3),
          [2, 4, 0, 9], rule)  # fmt: skip
    _ring("[0.3, 0.45, -0.45] in steps of 1/4",
          answer(np.array([0.3, 0.45, -0.45]), 4, 3), [1, 2, 2**32 - 2], rule)  # fmt: skip
    _ring("[-0.25, -1.3, -0.3] in steps of 1/4", answer(np.array([-0.25, -1.3, -0.3]), 4, 3),
          [2**32 - 1, 2**32 - 5, 2**32 - 1],
          "Negative numbers count down from 2**32: -1 is 2**32 - 1, after rounding.")  # fmt: skip
    _ring("100,000 in steps of 1/8192, 2 clients", answer(np.array([1e5]), 8192, 2),
          [819_200_000], "64 bits on the way, 32 at the end.")  # fmt: skip
    small = np.array([2.0**30 - 1, 1 - 2.0**30])
    _ring("2**30 - 1 and its negative, steps of 1, 2 clients", answer(small, 1, 2),
          [2**30 - 1, 3 * 2**30 + 1], "The sum of 2 stays below 2**31: this fits.")  # fmt: skip
    for large, n in ((2.0**31, 1), (2.0**30, 2), (-(2.0**30), 2), (3e8, 8)):
        case = f"{large:.4g} in steps of 1, {n} client{'s' * (n > 1)}"
        try:
            got = answer(np.array([0.0, large]), 1, n)
        except OverflowError:
            continue
        raise Miss("n numbers of this size can reach 2**31 or -2**31, where the sign is "
                   "lost: raise OverflowError.", case, got, "OverflowError")  # fmt: skip


def _masks(n, P, seed=0):
    "(q_KP, own seeds, {i: {j: seed}}) of n clients."
    rng = np.random.default_rng(seed)
    q_KP = rng.integers(0, 2**32, (n, P), dtype=np.uint32)
    seeds = {pair: f"{pair} {seed}" for pair in itertools.combinations(range(n), 2)}
    pairs = {
        i: {j: seeds[min(i, j), max(i, j)] for j in range(n) if j != i}
        for i in range(n)
    }
    return q_KP, {i: f"own {i} {seed}" for i in range(n)}, pairs


@chapter.exercise(
    "Of two clients one adds what the other subtracts.",
    "Start from q_P + stream(own, P). For each j in pair: add stream(seed, P) if i < j, "
    "subtract it otherwise. uint32 wraps round by itself.",
    "sent_P = q_P + stream(own, len(q_P))\n"
    "for j, seed in pair.items():\n"
    "    ...\n"
    "return sent_P",
)
def masked(answer):
    "What a client sends."
    q_KP, own, pairs = _masks(4, 5)
    zero, stream = np.zeros(5, np.uint32), secure.stream
    _ring("client 2, no pair", answer(2, q_KP[2], own[2], {}), q_KP[2] + stream(own[2], 5),
          "Its numbers plus the stream of its own seed.")  # fmt: skip
    _ring("client 0 with client 1", answer(0, zero, own[0], {1: "s"}),
          stream(own[0], 5) + stream("s", 5), "0 < 1: client 0 adds the pair's mask.")  # fmt: skip
    _ring("client 1 with client 0", answer(1, zero, own[1], {0: "s"}),
          stream(own[1], 5) - stream("s", 5), "1 > 0: client 1 subtracts it.")  # fmt: skip
    for i in (1, 2):
        _ring(f"client {i} of 4", answer(i, q_KP[i], own[i], dict(reversed(pairs[i].items()))),
              secure.masked(i, q_KP[i], own[i], pairs[i]),
              "All pairs: added towards larger numbers, subtracted towards smaller.")  # fmt: skip
    total = sum((answer(i, q_KP[i], own[i], pairs[i]) for i in range(4)), zero)
    want = sum((q_KP[i] + stream(own[i], 5) for i in range(4)), zero)
    _ring("the sum of what 4 clients send", total, want,
          "In the sum all pairs' masks cancel; the clients' own masks stay.")  # fmt: skip


@chapter.exercise(
    "A polynomial of degree t - 1 is known from t points. Which point is the secret?",
    "Lagrange: the sum over x of y times the product over the others of (0 - other) / "
    "(x - other). Divide modulo PRIME: times pow(below, -1, PRIME).",
    "total = 0\n"
    "for x, y in shares.items():\n"
    "    above = math.prod(-o for o in shares if o != x)\n"
    "    below = math.prod(x - o for o in shares if o != x)\n"
    "    total += ...\n"
    "return total % PRIME",
)
def rebuild(answer):
    "The secret from t of its shares."
    rule = "The value at 0 of the polynomial through all shares, modulo PRIME."
    for shares in ({1: 10, 2: 13}, {5: 22, 2: 13}):
        _whole(f"shares {shares} of 7 + 3 x", answer(shares), 7, rule)
    _whole("one share, {4: 9}: a constant", answer({4: 9}), 9, rule)
    _whole("shares {1: 3, 2: 1, 4: 9} of 9 - 8 x + 2 x**2", answer({1: 3, 2: 1, 4: 9}), 9,
           rule)  # fmt: skip
    _whole("shares {1: 2, 3: 5}: the line has the slope 3/2",
           answer({1: 2, 3: 5}), pow(2, -1, secure.PRIME),
           "1/2 at 0: division modulo PRIME is exact; / and // are not.")  # fmt: skip
    for n, t, secret in ((5, 3, 2**300 + 12345), (12, 7, 3**190)):
        parts = secure.share(secret, n, t, random.Random(n))
        for chosen in itertools.islice(itertools.combinations(parts, t), 0, None, 13):
            got = answer({x: parts[x] for x in reversed(chosen)})
            _whole(f"a secret of {secret.bit_length()} bits, shares {chosen} of {n}", got,
                   secret, rule)  # fmt: skip


def _whole(case, got, want, rule):
    "Whole numbers of any length: compared as text where they are long."
    if got is None:
        same(case, got, want, rule)
    if isinstance(got, bool) or not isinstance(got, (int, np.integer)):
        raise Miss("A secret is a whole number, of type int. Floats keep 53 bits, secrets "
                   "have 256.", case, got, want)  # fmt: skip
    if got != want:
        raise Miss(rule, case, str(got), str(want))


@chapter.exercise(
    "Two kinds of masks are left in the total: each survivor's own, and what a survivor "
    "had put in for somebody who never answered.",
    "Subtract stream(seed, P) for every own seed. For a pair (i, d): survivor i added the "
    "mask if i < d, so subtract it; otherwise add it.",
    "for seed in own.values():\n"
    "    total_P = total_P - stream(seed, len(total_P))\n"
    "for (i, d), seed in left.items():\n"
    "    ...",
)
def unmask(answer):
    "The survivors' exact sum."
    for n, dropped in ((3, ()), (5, (2,)), (4, (0,)), (4, (3,)), (5, (1, 3))):
        q_KP, own, pairs = _masks(n, 6, seed=n)
        alive = [i for i in range(n) if i not in dropped]
        total_P = np.zeros(6, np.uint32)
        want_P = np.zeros(6, np.uint32)
        for i in alive:
            total_P = total_P + secure.masked(i, q_KP[i], own[i], pairs[i])
            want_P = want_P + q_KP[i]
        left = {(i, d): pairs[i][d] for d in dropped for i in alive}
        who = ", ".join(map(str, dropped)) or "nobody"
        got = answer(total_P, {i: own[i] for i in alive}, left)
        _ring(f"{n} clients, {who} dropped out", got, want_P,
              "Take out every survivor's own mask, and undo its masks with those who "
              "dropped out.")  # fmt: skip


# ---- leaks ----


@chapter.exercise(
    "For one row, the gradient of W[h] is the unit's error times x, the gradient of b[h] "
    "the unit's error.",
    "Divide row h of dW_HD by db_H[h]; keep the units with |db_H| > floor.",
    "open_H = db_H.abs() > floor\nreturn dW_HD[open_H] / ...  # (M, D) by (M, 1)",
)
def leak_rows(answer):
    "The rows that a linear layer's gradient holds."
    dW = torch.tensor([[2.0, 4.0, 6.0], [0.0, 0.0, 0.0], [-3.0, 6.0, 1.5]]).double()
    db = torch.tensor([2.0, 0.0, -3.0]).double()
    rule = "dW / db of each unit whose |db| is above the floor, in the units' order."
    want = [[1.0, 2.0, 3.0], [1.0, -2.0, -0.5]]
    same("db = [2, 0, -3], floor 0", answer(dW, db, 0.0), want, rule)
    same("the same, floor 2.5", answer(dW, db, 2.5), want[1:], rule)
    same("the same, floor 2: 2 is not above it", answer(dW, db, 2.0), want[1:], rule)
    same("the same, floor 3: no unit", answer(dW, db, 3.0), torch.zeros(0, 3),
         "No unit above the floor: no row, of shape (0, D).")  # fmt: skip
    same("a faint unit: db = [-1e-5], dW = [[2e-5, -1e-5, 0]]",
         answer(torch.tensor([[2e-5, -1e-5, 0.0]]).double(),
                torch.tensor([-1e-5]).double(), 0.0), [[-2.0, 1.0, 0.0]],
         "Divide by db itself, however small: nothing is added below the line.")  # fmt: skip
    layer = [
        normal(5, 7, seed=1).requires_grad_(),
        normal(5, seed=2).requires_grad_(),
    ]
    x_D = normal(7, seed=3)
    loss = F.cross_entropy(torch.relu(layer[0] @ x_D + layer[1]), torch.tensor(2))
    dW, db = torch.autograd.grad(loss, layer)
    M = int((db != 0).sum())
    same(f"one row through a layer of 5 units, {M} of them open", answer(dW, db, 0.0),
         x_D.repeat(M, 1), "Every open unit holds the row itself.")  # fmt: skip


@chapter.exercise(
    "Three things in this order: cut each row, add, make noise once.",
    "A row's factor is C / length, but never above 1. The noise is sigma * C * noise_P, "
    "added to the sum. Then divide by expected.",
    "length_B1 = g_BP.norm(dim=1, keepdim=True)\n"
    "cut_BP = g_BP * (C / length_B1.clamp(min=C))\n"
    "return ...",
)
def private_gradient(answer):
    "Rows cut, added, and noise."
    near = functools.partial(same, atol=1e-5)  # C / (length + 1e-6) is right as well
    g = np.array([[3.0, 4.0], [0.6, 0.8], [0.3, -0.4], [0.0, 0.0]])
    g = torch.from_numpy(g)
    quiet, noise = torch.zeros(2).double(), torch.tensor([1.0, -2.0]).double()
    rule = (
        "Rows longer than C are cut to the length C, shorter ones stay; then the sum."
    )
    near("lengths 5, 1, 0.5 and 0, C = 1, no noise, 4 expected",
         answer(g, 1.0, 0.0, quiet, 4), [1.5 / 4, 1.2 / 4], rule)  # fmt: skip
    near(
        "the same rows, C = 2", answer(g, 2.0, 0.0, quiet, 4), [2.1 / 4, 2.0 / 4], rule
    )
    near("the same rows, 8 expected", answer(g, 1.0, 0.0, quiet, 8), [1.5 / 8, 1.2 / 8],
         "Divide by the number that was expected, not by the one that came: that number "
         "would tell who took part.")  # fmt: skip
    near("the same rows, C = 2, sigma = 0.5, noise (1, -2), 5 expected",
         answer(g, 2.0, 0.5, noise, 5), [3.1 / 5, 0.0],
         "The noise is sigma * C * noise_P, once, on the sum.")  # fmt: skip
    near("no row at all, sigma = 3, 4 expected", answer(g[:0], 1.0, 3.0, noise, 4),
         [3 / 4, -6 / 4], "A batch without rows still makes its noise.")  # fmt: skip
    g, noise = normal(6, 9, seed=4), normal(9, seed=5)
    near("6 rows of 9 numbers", answer(g, 2.5, 0.7, noise, 5),
         private.private_gradient(g, 2.5, 0.7, noise, 5), rule)  # fmt: skip


@chapter.exercise(
    "Steps add up at every order; then one line turns an order's sum into an epsilon; then "
    "the best order.",
    "For each a in ORDERS: steps * renyi(q, sigma, a) + log((a - 1) / a) - log(delta * a) "
    "/ (a - 1). The smallest counts, and never less than 0.",
    "bounds = [steps * renyi(q, sigma, a) + math.log((a - 1) / a) - ... for a in ORDERS]\n"
    "return max(0.0, min(bounds))",
)
def epsilon(answer):
    "The budget spent, beside two libraries."
    rule = (
        "The smallest over the orders of steps * renyi + log((a - 1) / a) - log(delta a) / "
        "(a - 1), with natural logarithms."
    )
    for row in sorted(recorded()["rows"], key=lambda row: row["sigma"] != 2):
        q, sigma, steps = row["q"], row["sigma"], row["steps"]
        case = f"q = {q:.4g}, sigma = {sigma}, {steps} steps, delta = 1e-5 (Opacus)"
        got = answer(q, sigma, steps, row["delta"])
        same(case, got, row["opacus"], rule, atol=1e-10, rtol=1e-10)
    for delta in (1e-3, 1e-8):
        same(f"q = 0.02, sigma = 1.5, 300 steps, delta = {delta}",
             answer(0.02, 1.5, 300, delta), private.epsilon(0.02, 1.5, 300, delta), rule)  # fmt: skip
    same("q = 0.01, sigma = 8, 100 steps, delta = 1e-5: the last order is the best",
         answer(0.01, 8.0, 100, 1e-5), private.epsilon(0.01, 8.0, 100, 1e-5),
         "All orders from 2 to 63 are tried, the last as well.")  # fmt: skip
    same("q = 0.001, sigma = 8, 1 step, delta = 0.1", answer(0.001, 8.0, 1, 0.1), 0.0,
         "The bound falls below 0 here, and a budget does not: at least 0.")  # fmt: skip
