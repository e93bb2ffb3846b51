"Chapter 22: small wrong programs, each with the sentence that names it."

import math

import numpy as np
import torch
import torch.nn.functional as F

from utils.built.federated import forward
from utils.built.private import ORDERS, renyi
from utils.built.secure import PRIME, stream
from utils.checks import federated as ex

# ---- client_slopes ----


def _slopes(w_KP, X_KBD, y_KB, divisor):
    w_KP = w_KP.detach().requires_grad_()
    logits = forward(w_KP, X_KBD).flatten(0, 1)
    total = F.cross_entropy(logits, y_KB.flatten(), reduction="sum")
    return torch.autograd.grad(total / divisor, w_KP)[0]


@ex.client_slopes.slip(
    "The loss is a mean over all clients' rows, so every gradient is K times too small: "
    "divide by the B rows of one client."
)
def mean_over_everything(w_KP, X_KBD, y_KB):
    return _slopes(w_KP, X_KBD, y_KB, y_KB.numel())


@ex.client_slopes.slip(
    "The loss is a sum over a client's rows: divide by B for the mean."
)
def sum_over_rows(w_KP, X_KBD, y_KB):
    return _slopes(w_KP, X_KBD, y_KB, 1)


@ex.client_slopes.slip("Divided by the number of clients, K; a client has B rows.")
def divided_by_clients(w_KP, X_KBD, y_KB):
    return _slopes(w_KP, X_KBD, y_KB, len(y_KB))


@ex.client_slopes.slip(
    "This is one gradient for all, the mean over clients: every client keeps its own."
)
def one_for_all(w_KP, X_KBD, y_KB):
    return _slopes(w_KP, X_KBD, y_KB, y_KB.shape[1]).mean(0)


@ex.client_slopes.slip(
    "All gradients were taken at the first client's weights: each has weights of its own."
)
def at_the_first_weights(w_KP, X_KBD, y_KB):
    return _slopes(w_KP[:1].repeat(len(w_KP), 1), X_KBD, y_KB, y_KB.shape[1])


@ex.client_slopes.slip(
    "requires_grad_() on w_KP itself: from now on everything that touches it is recorded. "
    "Ask for gradients of a copy, w_KP.detach()."
)
def marks_the_input(w_KP, X_KBD, y_KB):
    w_KP.requires_grad_()
    loss = F.cross_entropy(forward(w_KP, X_KBD).flatten(0, 1), y_KB.flatten())
    return torch.autograd.grad(loss * len(y_KB), w_KP)[0]


@ex.client_slopes.slip(
    "The labels belong to other rows: flatten both in the same order."
)
def labels_turned(w_KP, X_KBD, y_KB):
    return _slopes(w_KP, X_KBD, y_KB.mT.reshape(y_KB.shape), y_KB.shape[1])


# ---- fedavg_round ----


def _walk(w_P, slope, n_K, S, lr):
    w_KP = w_P.repeat(len(n_K), 1)
    for s in range(S):
        w_KP = w_KP - lr * slope(w_KP, s)
    return w_KP


def _share(n_K, like):
    return torch.tensor(n_K, dtype=like.dtype) / sum(n_K)


@ex.fedavg_round.slip(
    "This is the plain mean of the clients' weights: a client with 1 row counts as much as "
    "one with 3."
)
def plain_mean(w_P, slope, n_K, S, lr):
    return _walk(w_P, slope, n_K, S, lr).mean(0)


@ex.fedavg_round.slip("The rows weigh, but their total was never divided out.")
def not_divided(w_P, slope, n_K, S, lr):
    w_KP = _walk(w_P, slope, n_K, S, lr)
    return torch.tensor(n_K, dtype=w_P.dtype) @ w_KP


@ex.fedavg_round.slip(
    "Averaged after every step: that is data parallelism, with S times the messages. "
    "Clients walk alone for S steps."
)
def averages_each_step(w_P, slope, n_K, S, lr):
    w_KP = w_P.repeat(len(n_K), 1)
    for s in range(S):
        w_KP = w_KP - lr * slope(w_KP, s)
        w_KP = (_share(n_K, w_P) @ w_KP).repeat(len(n_K), 1)
    return w_KP[0]


@ex.fedavg_round.slip(
    "Each step's gradient is taken at the client's own weights, w_KP, not at w_P."
)
def slopes_at_the_start(w_P, slope, n_K, S, lr):
    w_KP = w_P.repeat(len(n_K), 1)
    for s in range(S):
        w_KP = w_KP - lr * slope(w_P.repeat(len(n_K), 1), s)
    return _share(n_K, w_P) @ w_KP


@ex.fedavg_round.slip("One step instead of S: every client walks on from where it is.")
def one_step(w_P, slope, n_K, S, lr):
    return _share(n_K, w_P) @ _walk(w_P, slope, n_K, 1, lr)


@ex.fedavg_round.slip(
    "Every step starts anew from w_P: a client walks on from where it is, w_KP."
)
def starts_anew(w_P, slope, n_K, S, lr):
    for s in range(S):
        w_KP = w_P - lr * slope(w_P.repeat(len(n_K), 1), s)
    return _share(n_K, w_P) @ w_KP


@ex.fedavg_round.slip("This is the mean move; the new weights are w_P plus that.")
def only_the_move(w_P, slope, n_K, S, lr):
    return _share(n_K, w_P) @ _walk(w_P, slope, n_K, S, lr) - w_P + 0


@ex.fedavg_round.slip("It climbs: subtract lr times the slope.")
def climbs(w_P, slope, n_K, S, lr):
    return _share(n_K, w_P) @ _walk(w_P, slope, n_K, S, -lr)


@ex.fedavg_round.slip(
    "The new weights have the dtype of the old ones, float32 here, and these are float64."
)
def always_double(w_P, slope, n_K, S, lr):
    return _share(n_K, w_P.double()) @ _walk(w_P, slope, n_K, S, lr).double()


@ex.fedavg_round.slip("All clients' weights are here: the average is missing.")
def no_average(w_P, slope, n_K, S, lr):
    return _walk(w_P, slope, n_K, S, lr)


# ---- drift ----


@ex.drift.slip("Upside down: the mean length stands above, the mean move's below.")
def upside_down(moves_KP, n_K):
    shares = _share(n_K, moves_KP)
    return (shares @ moves_KP).norm() / (shares @ moves_KP.norm(dim=1))


@ex.drift.slip("Both means must weigh clients by their rows.")
def unweighted(moves_KP, n_K):
    return moves_KP.norm(dim=1).mean() / moves_KP.mean(0).norm()


@ex.drift.slip("The mean move weighs by rows, the mean length does not: weigh both.")
def half_weighted(moves_KP, n_K):
    return moves_KP.norm(dim=1).mean() / (_share(n_K, moves_KP) @ moves_KP).norm()


@ex.drift.slip("Squared lengths: norm() is the length, without a square.")
def squared(moves_KP, n_K):
    shares = _share(n_K, moves_KP)
    return (shares @ moves_KP.square().sum(1)) / (shares @ moves_KP).square().sum()


@ex.drift.slip(
    "norm() of the whole matrix is one length for all clients: norm(dim=1) has one each."
)
def one_norm(moves_KP, n_K):
    return moves_KP.norm() / (_share(n_K, moves_KP) @ moves_KP).norm()


@ex.drift.slip(
    "Moves that undo each other: the drift is infinite, and Python's floats refuse to "
    "divide by 0. Divide tensors, or return math.inf."
)
def divides_floats(moves_KP, n_K):
    shares = _share(n_K, moves_KP)
    lengths = (shares @ moves_KP.norm(dim=1)).item()
    return lengths / (shares @ moves_KP).norm().item()


@ex.drift.slip(
    "A small number below the line hides that these moves undo each other: infinite, inf."
)
def never_infinite(moves_KP, n_K):
    shares = _share(n_K, moves_KP)
    return (shares @ moves_KP.norm(dim=1)) / ((shares @ moves_KP).norm() + 1e-12)


# ---- scaffold_round ----


def _scaffold(w_P, c_KP, slope, n_K, S, lr, sign=1, mean=None):
    c_P = _share(n_K, w_P) @ c_KP if mean is None else mean
    return _walk(
        w_P, lambda w, s: slope(w, s) - sign * (c_KP - c_P), n_K, S, lr
    ), c_KP - c_P


@ex.scaffold_round.slip(
    "The sign is wrong: a client subtracts its own control variate and adds the mean."
)
def wrong_sign(w_P, c_KP, slope, n_K, S, lr):
    w_KP, bias = _scaffold(w_P, c_KP, slope, n_K, S, lr, sign=-1)
    return _share(n_K, w_P) @ w_KP, bias + (w_P - w_KP) / (S * lr)


@ex.scaffold_round.slip(
    "The plain mean of the clients' weights: weigh by rows, as in fedavg_round."
)
def plain_mean_of_weights(w_P, c_KP, slope, n_K, S, lr):
    w_KP, bias = _scaffold(w_P, c_KP, slope, n_K, S, lr)
    return w_KP.mean(0), bias + (w_P - w_KP) / (S * lr)


@ex.scaffold_round.slip(
    "The plain mean of the control variates: weigh by rows, so that the corrections cancel "
    "in the average of the weights."
)
def plain_mean_of_variates(w_P, c_KP, slope, n_K, S, lr):
    w_KP, bias = _scaffold(w_P, c_KP, slope, n_K, S, lr, mean=c_KP.mean(0))
    return _share(n_K, w_P) @ w_KP, bias + (w_P - w_KP) / (S * lr)


@ex.scaffold_round.slip(
    "The mean of all control variates is missing in the step: without it everybody stops "
    "moving together."
)
def without_the_mean(w_P, c_KP, slope, n_K, S, lr):
    w_KP, _ = _scaffold(w_P, c_KP, slope, n_K, S, lr, mean=0 * w_P)
    return _share(n_K, w_P) @ w_KP, c_KP + (w_P - w_KP) / (S * lr)


@ex.scaffold_round.slip(
    "The new control variates are (w_P - w_KP) / (S lr) alone: that is the mean of the "
    "corrected steps. Add c_KP - c_P back to have the mean of the client's own gradients."
)
def corrected_steps(w_P, c_KP, slope, n_K, S, lr):
    w_KP, _ = _scaffold(w_P, c_KP, slope, n_K, S, lr)
    return _share(n_K, w_P) @ w_KP, (w_P - w_KP) / (S * lr)


@ex.scaffold_round.slip(
    "The move was not divided by the S steps: a control variate is the size of one "
    "gradient."
)
def not_per_step(w_P, c_KP, slope, n_K, S, lr):
    w_KP, bias = _scaffold(w_P, c_KP, slope, n_K, S, lr)
    return _share(n_K, w_P) @ w_KP, bias + (w_P - w_KP) / lr


@ex.scaffold_round.slip(
    "The move was not divided by lr: a control variate is a gradient, not a move."
)
def not_per_rate(w_P, c_KP, slope, n_K, S, lr):
    w_KP, bias = _scaffold(w_P, c_KP, slope, n_K, S, lr)
    return _share(n_K, w_P) @ w_KP, bias + (w_P - w_KP) / S


@ex.scaffold_round.slip(
    "The new control variates point uphill: start minus end, w_P - w_KP."
)
def end_minus_start(w_P, c_KP, slope, n_K, S, lr):
    w_KP, bias = _scaffold(w_P, c_KP, slope, n_K, S, lr)
    return _share(n_K, w_P) @ w_KP, bias + (w_KP - w_P) / (S * lr)


@ex.scaffold_round.slip("The old control variates come back: this round's are new.")
def keeps_the_old(w_P, c_KP, slope, n_K, S, lr):
    w_KP, _ = _scaffold(w_P, c_KP, slope, n_K, S, lr)
    return _share(n_K, w_P) @ w_KP, c_KP.clone()


@ex.scaffold_round.slip(
    "Only the weights come back: the next round needs the control variates, too."
)
def weights_alone(w_P, c_KP, slope, n_K, S, lr):
    return (_share(n_K, w_P) @ _scaffold(w_P, c_KP, slope, n_K, S, lr)[0],)


# ---- to_ring ----


def _guarded(q_P, n):
    if n * np.abs(q_P).max() >= 2**31:
        raise OverflowError("too large")
    return q_P


@ex.to_ring.slip(
    "Cut off instead of rounded: every number is wrong by up to a whole step. np.rint "
    "rounds to the nearest."
)
def truncates(x_P, scale, n):
    return _guarded(x_P * scale, n).astype(np.int64).astype(np.uint32)


@ex.to_ring.slip(
    "Cut off instead of rounded: every number is wrong by up to a whole step. np.rint "
    "rounds to the nearest."
)
def floors(x_P, scale, n):
    q_P = _guarded(np.floor(x_P * scale), n)
    return q_P.astype(np.int64).astype(np.uint32)


@ex.to_ring.slip("Negative numbers became 0: go by way of np.int64.")
def cut_at_zero(x_P, scale, n):
    return _guarded(np.rint(x_P * scale), n).clip(0).astype(np.uint32)


@ex.to_ring.slip("Rounded before it was scaled: fractions are gone. Multiply first.")
def rounds_first(x_P, scale, n):
    return _guarded(np.rint(x_P) * scale, n).astype(np.int64).astype(np.uint32)


@ex.to_ring.slip(
    "The numbers are right, the dtype is not: np.uint32 wraps round at 2**32, int64 does not."
)
def stays_int64(x_P, scale, n):
    return _guarded(np.rint(x_P * scale), n).astype(np.int64) % 2**32


@ex.to_ring.slip(
    "Negative numbers became positive: in the ring -1 is 2**32 - 1, which whole numbers "
    "give by themselves."
)
def absolute(x_P, scale, n):
    return _guarded(np.abs(np.rint(x_P * scale)), n).astype(np.int64).astype(np.uint32)


@ex.to_ring.slip(
    "Shifted so that nothing is negative: the sum would be off by one shift per client, "
    "and their number may change."
)
def shifted(x_P, scale, n):
    return (_guarded(np.rint(x_P * scale), n) + 2**31).astype(np.uint32)


@ex.to_ring.slip(
    "Only the client's own number was tested: the sum of n of them must stay below 2**31."
)
def own_size_only(x_P, scale, n):
    q_P = _guarded(np.rint(x_P * scale), 1)
    return q_P.astype(np.int64).astype(np.uint32)


@ex.to_ring.slip("Large negative numbers overflow as well: test the absolute value.")
def positive_side_only(x_P, scale, n):
    q_P = np.rint(x_P * scale)
    if n * q_P.max() >= 2**31:
        raise OverflowError("too large")
    return q_P.astype(np.int64).astype(np.uint32)


@ex.to_ring.slip(
    "The limit is 2**31, not 2**32: the upper half of the ring stands for negative numbers."
)
def whole_ring(x_P, scale, n):
    q_P = np.rint(x_P * scale)
    if n * np.abs(q_P).max() >= 2**32:
        raise OverflowError("too large")
    return q_P.astype(np.int64).astype(np.uint32)


# ---- masked ----


def _masked(i, q_P, own, pair, adds):
    sent = q_P + stream(own, len(q_P))
    for j, seed in pair.items():
        mask = stream(seed, len(q_P))
        sent = sent + mask if adds(i, j) else sent - mask
    return sent


@ex.masked.slip(
    "Both clients of a pair add its mask: in the sum it stands twice and hides everything "
    "for good. One adds, the other subtracts."
)
def all_add(i, q_P, own, pair):
    return _masked(i, q_P, own, pair, lambda i, j: True)


@ex.masked.slip("All masks cancel, but the signs are turned: add if i < j.")
def turned_signs(i, q_P, own, pair):
    return _masked(i, q_P, own, pair, lambda i, j: i > j)


@ex.masked.slip(
    "The client's own mask is missing: once its pairs' masks are known, nothing hides it."
)
def without_own(i, q_P, own, pair):
    return _masked(i, q_P, own, pair, lambda i, j: i < j) - stream(own, len(q_P))


@ex.masked.slip("The numbers themselves are missing: these are only masks.")
def masks_alone(i, q_P, own, pair):
    return _masked(i, 0 * q_P, own, pair, lambda i, j: i < j)


@ex.masked.slip("Masks for larger numbers only: subtract those of the smaller ones.")
def half_the_pairs(i, q_P, own, pair):
    sent = q_P + stream(own, len(q_P))
    for j, seed in pair.items():
        if i < j:
            sent = sent + stream(seed, len(q_P))
    return sent


@ex.masked.slip(
    "Python's int64 numbers do not wrap round at 2**32: stay with uint32, or take % 2**32 "
    "and convert."
)
def wide(i, q_P, own, pair):
    sent = q_P.astype(np.int64) + stream(own, len(q_P))
    for j, seed in pair.items():
        sent += (1 if i < j else -1) * stream(seed, len(q_P)).astype(np.int64)
    return sent


@ex.masked.slip(told="changes its input in place")
def in_place(i, q_P, own, pair):
    q_P += stream(own, len(q_P))
    return _masked(i, q_P, own, pair, lambda i, j: i < j) - stream(own, len(q_P))


@ex.masked.slip("The own mask is subtracted: the server will subtract it once more.")
def own_subtracted(i, q_P, own, pair):
    mask = stream(own, len(q_P))
    return _masked(i, q_P, own, pair, lambda i, j: i < j) - mask - mask


# ---- rebuild ----


def _lagrange(shares, divide, at=0):
    total = 0
    for x, y in shares.items():
        above = math.prod(at - o for o in shares if o != x)
        below = math.prod(x - o for o in shares if o != x)
        total += divide(y, above, below)
    return total


@ex.rebuild.slip(
    "A secret is a whole number, of type int, and / makes floats: multiply by pow(below, "
    "-1, PRIME)."
)
def with_floats(shares):
    return _lagrange(shares, lambda y, a, b: y * a / b)


@ex.rebuild.slip(
    "// throws the remainder away: multiply by pow(below, -1, PRIME), the exact inverse."
)
def floor_division(shares):
    return _lagrange(shares, lambda y, a, b: y * a // b) % PRIME


@ex.rebuild.slip("The result is not reduced: take it modulo PRIME at the end.")
def not_reduced(shares):
    return _lagrange(shares, lambda y, a, b: y * a * pow(b, -1, PRIME))


@ex.rebuild.slip("This is the polynomial at 1; the secret stands at 0.")
def at_one(shares):
    total = _lagrange(shares, lambda y, a, b: y * a * pow(b, -1, PRIME), at=1)
    return total % PRIME


@ex.rebuild.slip("A sign is lost: above the line stands 0 - other, below it x - other.")
def sign_lost(shares):
    total = 0
    for x, y in shares.items():
        above = math.prod(o for o in shares if o != x)
        below = math.prod(x - o for o in shares if o != x)
        total += y * above * pow(below, -1, PRIME)
    return total % PRIME


@ex.rebuild.slip(
    "These are the shares added up: each needs its factor of Lagrange's formula."
)
def added(shares):
    return sum(shares.values()) % PRIME


@ex.rebuild.slip("Only two shares were used: t may be larger, and each share counts.")
def two_points(shares):
    two = dict(list(shares.items())[:2])
    return _lagrange(two, lambda y, a, b: y * a * pow(b, -1, PRIME)) % PRIME


# ---- unmask ----


def _unmask(total_P, own, left, subtracts):
    for seed in own.values():
        total_P = total_P - stream(seed, len(total_P))
    for (i, d), seed in left.items():
        mask = stream(seed, len(total_P))
        total_P = total_P - mask if subtracts(i, d) else total_P + mask
    return total_P


@ex.unmask.slip(
    "The survivors' own masks are still in: subtract stream(seed, P) for each of own."
)
def own_stays(total_P, own, left):
    return _unmask(total_P, {}, left, lambda i, d: i < d)


@ex.unmask.slip("The pairs' masks were put in a second time: undo what survivor i did.")
def added_again(total_P, own, left):
    return _unmask(total_P, own, left, lambda i, d: i > d)


@ex.unmask.slip(
    "The pairs with those who dropped out are left in: nobody sent the other half."
)
def pairs_stay(total_P, own, left):
    return _unmask(total_P, own, {}, None)


@ex.unmask.slip(
    "Every pair's mask was subtracted: survivor i added it only if i < d, else it "
    "subtracted it."
)
def always_subtracts(total_P, own, left):
    return _unmask(total_P, own, left, lambda i, d: True)


@ex.unmask.slip(
    "Every pair's mask was added: survivor i added it itself if i < d, so there subtract it."
)
def always_adds(total_P, own, left):
    return _unmask(total_P, own, left, lambda i, d: False)


@ex.unmask.slip("The own masks were added once more: subtract them.")
def own_added(total_P, own, left):
    for seed in own.values():
        total_P = total_P + stream(seed, len(total_P))
    return _unmask(total_P, {}, left, lambda i, d: i < d)


@ex.unmask.slip("Only the first of those who dropped out was undone.")
def first_only(total_P, own, left):
    first = min((d for _, d in left), default=None)
    left = {pair: seed for pair, seed in left.items() if pair[1] == first}
    return _unmask(total_P, own, left, lambda i, d: i < d)


@ex.unmask.slip(told="changes its input in place")
def total_in_place(total_P, own, left):
    for seed in own.values():
        total_P -= stream(seed, len(total_P))
    return _unmask(total_P, {}, left, lambda i, d: i < d)


# ---- leak_rows ----


@ex.leak_rows.slip(
    "Units whose db is 0 give 0 / 0: keep those with |db| above the floor."
)
def divides_by_zero(dW_HD, db_H, floor):
    return dW_HD / db_H[:, None]


@ex.leak_rows.slip("Negative db count as well: compare its absolute value.")
def positive_only(dW_HD, db_H, floor):
    keep = db_H > floor
    return dW_HD[keep] / db_H[keep, None]


@ex.leak_rows.slip("At the floor is not above it: >, not >=.")
def at_the_floor(dW_HD, db_H, floor):
    keep = (db_H.abs() >= floor) & (db_H != 0)
    return dW_HD[keep] / db_H[keep, None]


@ex.leak_rows.slip("The floor was ignored: only units with |db| above it count.")
def no_floor(dW_HD, db_H, floor):
    keep = db_H != 0
    return dW_HD[keep] / db_H[keep, None]


@ex.leak_rows.slip("Upside down: dW is error times x, so x is dW / db.")
def turned(dW_HD, db_H, floor):
    keep = db_H.abs() > floor
    return db_H[keep, None] / dW_HD[keep]


@ex.leak_rows.slip("dW alone: it is the row times the unit's error. Divide by db.")
def undivided(dW_HD, db_H, floor):
    return dW_HD[db_H.abs() > floor]


@ex.leak_rows.slip(
    "Divided by |db|: where the error is negative, the row comes out with the wrong sign."
)
def by_absolute(dW_HD, db_H, floor):
    keep = db_H.abs() > floor
    return dW_HD[keep] / db_H[keep, None].abs()


@ex.leak_rows.slip("One row for all units, their mean: return each unit's own.")
def mean_row(dW_HD, db_H, floor):
    keep = db_H.abs() > floor
    return (dW_HD[keep] / db_H[keep, None]).mean(0)


@ex.leak_rows.slip(
    "Something was added to db: units at 0 are left out by the floor, and a faint unit's "
    "row comes out with another length."
)
def added_below(dW_HD, db_H, floor):
    keep = db_H.abs() > floor
    return dW_HD[keep] / (db_H[keep, None] + 1e-6)


# ---- private_gradient ----


def _cut(g_BP, C):
    return g_BP * (C / g_BP.norm(dim=1, keepdim=True).clamp(min=C))


@ex.private_gradient.slip(
    "The sum was cut, not each row: one row of length 5 still drowns the others."
)
def cuts_the_sum(g_BP, C, sigma, noise_P, expected):
    total = g_BP.sum(0)
    total = total * (C / total.norm().clamp(min=C))
    return (total + sigma * C * noise_P) / expected


@ex.private_gradient.slip(
    "Rows shorter than C were stretched to C: the factor is at most 1."
)
def stretches(g_BP, C, sigma, noise_P, expected):
    length = g_BP.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return ((g_BP * C / length).sum(0) + sigma * C * noise_P) / expected


@ex.private_gradient.slip(
    "A row of zeros has the length 0, and 0 / 0 is nan: keep the factor at most 1 without "
    "dividing by 0, as length.clamp(min=C) does."
)
def zero_row(g_BP, C, sigma, noise_P, expected):
    length = g_BP.norm(dim=1, keepdim=True)
    unit = g_BP / length
    cut = torch.where(length > C, C * unit, unit * length)
    return (cut.sum(0) + sigma * C * noise_P) / expected


@ex.private_gradient.slip(
    "Each number was cut to C by itself: the length of the whole row counts."
)
def cuts_numbers(g_BP, C, sigma, noise_P, expected):
    return (g_BP.clamp(-C, C).sum(0) + sigma * C * noise_P) / expected


@ex.private_gradient.slip(
    "Divided by the rows that came: that number tells who took part. Divide by expected."
)
def by_rows(g_BP, C, sigma, noise_P, expected):
    return (_cut(g_BP, C).sum(0) + sigma * C * noise_P) / len(g_BP)


@ex.private_gradient.slip(
    "The noise has the size sigma, whatever C is: one row can move the sum by C, so the "
    "noise is sigma * C."
)
def noise_without_C(g_BP, C, sigma, noise_P, expected):
    return (_cut(g_BP, C).sum(0) + sigma * noise_P) / expected


@ex.private_gradient.slip(
    "The noise came after the division, so it is `expected` times too large."
)
def noise_after(g_BP, C, sigma, noise_P, expected):
    return _cut(g_BP, C).sum(0) / expected + sigma * C * noise_P


@ex.private_gradient.slip("Every row got the noise: it joins the sum once.")
def noise_per_row(g_BP, C, sigma, noise_P, expected):
    return (_cut(g_BP, C) + sigma * C * noise_P).sum(0) / expected


@ex.private_gradient.slip("There is no noise: it is cut, and nothing else.")
def no_noise(g_BP, C, sigma, noise_P, expected):
    return _cut(g_BP, C).sum(0) / expected


# ---- epsilon ----


def _bounds(q, sigma, steps, delta, bound):
    return [bound(a, steps * renyi(q, sigma, a)) for a in ORDERS]


def _new(a, spent, delta):
    return spent + math.log((a - 1) / a) - math.log(delta * a) / (a - 1)


@ex.epsilon.slip(
    "This is the older conversion, log(1 / delta) / (a - 1), a looser bound: the newer one "
    "has log((a - 1) / a) - log(delta a) / (a - 1)."
)
def old_conversion(q, sigma, steps, delta):
    bounds = _bounds(
        q, sigma, steps, delta, lambda a, r: r + math.log(1 / delta) / (a - 1)
    )
    return max(0.0, min(bounds))


@ex.epsilon.slip(
    "The largest bound: every order gives a true one, so the smallest counts."
)
def largest(q, sigma, steps, delta):
    return max(_bounds(q, sigma, steps, delta, lambda a, r: _new(a, r, delta)))


@ex.epsilon.slip("The steps do not add up here: multiply renyi by their number.")
def one_step_only(q, sigma, steps, delta):
    bounds = [_new(a, renyi(q, sigma, a), delta) for a in ORDERS]
    return max(0.0, min(bounds))


@ex.epsilon.slip(
    "Steps add up like the square root here: that is no bound. At one order they add up "
    "fully."
)
def square_root(q, sigma, steps, delta):
    bounds = [_new(a, steps**0.5 * renyi(q, sigma, a), delta) for a in ORDERS]
    return max(0.0, min(bounds))


@ex.epsilon.slip(
    "The chance q was ignored, as if every row took part in every step: a row that joins "
    "seldom is seen seldom."
)
def without_sampling(q, sigma, steps, delta):
    bounds = [_new(a, steps * a / (2 * sigma**2), delta) for a in ORDERS]
    return max(0.0, min(bounds))


@ex.epsilon.slip(
    "The bound falls below 0 here, and a budget does not: return at least 0."
)
def negative(q, sigma, steps, delta):
    return min(_bounds(q, sigma, steps, delta, lambda a, r: _new(a, r, delta)))


@ex.epsilon.slip("Logarithms to base 10: these are natural ones, math.log.")
def base_ten(q, sigma, steps, delta):
    bounds = _bounds(
        q, sigma, steps, delta,
        lambda a, r: r + math.log10((a - 1) / a) - math.log10(delta * a) / (a - 1),
    )  # fmt: skip
    return max(0.0, min(bounds))


@ex.epsilon.slip(
    "The term log((a - 1) / a) is missing: without it the bound is true but too large."
)
def one_term_less(q, sigma, steps, delta):
    bounds = [
        steps * renyi(q, sigma, a) - math.log(delta * a) / (a - 1) for a in ORDERS
    ]
    return max(0.0, min(bounds))


@ex.epsilon.slip("One order only, the first: try all of them and take the smallest.")
def first_order(q, sigma, steps, delta):
    return max(0.0, _new(2, steps * renyi(q, sigma, 2), delta))
