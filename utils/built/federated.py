"""What chapter 22 builds: clients that train on rows of their own, and what averages do.

All clients are trained at once: a model is a vector of P weights, K models are the rows
of one matrix w_KP, and one batched product serves all of them. Shapes: X (K, B, D), B
rows of each client; y (K, B) whole numbers, the classes; n (K,) rows that each client
has. Sources: H. B. McMahan et al. (2017), https://arxiv.org/abs/1602.05629 (FedAvg);
S. P. Karimireddy et al. (2020), https://arxiv.org/abs/1910.06378 (SCAFFOLD).
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F

from utils import given

SIZES = (64, 32, 10)  # pixels, hidden units, classes


def weights_of(seed=0, sizes=SIZES):
    "First weights of a network with these layers, its biases 0: -> (P,), float32."
    generator = torch.Generator().manual_seed(given.whole("seed", seed, 0))
    parts = []
    for i, o in pairwise(sizes):
        spread = torch.rand(o * i, generator=generator) * 2 - 1
        parts += [spread / i**0.5, torch.zeros(o)]
    return torch.cat(parts)


def forward(w_KP, X_KBD, sizes=SIZES):
    "Logits of K networks with tanh between their layers, each on its own rows: (K, B, V)."
    _models(w_KP, sizes)
    if X_KBD.ndim != 3 or len(X_KBD) != len(w_KP) or X_KBD.shape[2] != sizes[0]:
        raise ValueError(
            f"X_KBD has the shape (K, B, D) = ({len(w_KP)}, B, {sizes[0]}), not "
            f"{tuple(X_KBD.shape)}"
        )
    h_KBH, at = X_KBD, 0
    for layer, (i, o) in enumerate(pairwise(sizes)):
        W_KOI = w_KP[:, at : at + o * i].unflatten(1, (o, i))
        b_K1O = w_KP[:, None, at + o * i : at + o * i + o]
        h_KBH = torch.baddbmm(b_K1O, h_KBH.tanh() if layer else h_KBH, W_KOI.mT)
        at += o * i + o
    return h_KBH


def _models(w_KP, sizes):
    P = sum(o * (i + 1) for i, o in pairwise(sizes))
    if not isinstance(w_KP, torch.Tensor) or w_KP.ndim != 2 or w_KP.shape[1] != P:
        shape = tuple(getattr(w_KP, "shape", ()))
        raise ValueError(f"w_KP has the shape (K, {P}) for layers {sizes}, not {shape}")


def client_slopes(w_KP, X_KBD, y_KB, sizes=SIZES):
    "Each client's gradient of its own mean cross-entropy, at its own weights: (K, P)."
    w_KP = w_KP.detach().requires_grad_()
    logits_KBV = forward(w_KP, X_KBD, sizes)
    if y_KB.shape != logits_KBV.shape[:2]:
        raise ValueError(
            f"y_KB has a class for each row, {tuple(logits_KBV.shape[:2])}, not "
            f"{tuple(y_KB.shape)}"
        )
    total = F.cross_entropy(logits_KBV.flatten(0, 1), y_KB.flatten(), reduction="sum")
    (slope_KP,) = torch.autograd.grad(total / y_KB.shape[1], w_KP)
    return slope_KP


def accuracy(w_P, X_ND, y_N, sizes=SIZES):
    "Share of rows that one network classifies rightly, in percent."
    right = forward(w_P[None], X_ND[None], sizes)[0].argmax(-1) == y_N
    return 100 * right.double().mean().item()


def shares_of(n_K):
    "Each client's share of all rows, as weights that add to 1: (K,), float64."
    n_K = torch.as_tensor(n_K, dtype=torch.float64)
    if n_K.ndim != 1 or not len(n_K) or not bool((n_K >= 0).all()) or not n_K.sum() > 0:
        raise ValueError(
            f"n_K has a number of rows for each client, at least 0 and not all 0, not "
            f"{n_K.tolist()}"
        )
    return n_K / n_K.sum()


def fedavg_round(w_P, slope, n_K, S, lr):
    """One round of federated averaging: -> the new weights (P,).

    slope(w_KP, s): each client's gradient in its step s, (K, P). All begin at w_P, make S
    steps of their own, and their weights are averaged by their numbers of rows.
    """
    w_KP = _walk(w_P, given.function("slope", slope), n_K, S, lr)
    return shares_of(n_K).to(w_P.dtype) @ w_KP


def _walk(w_P, slope, n_K, S, lr):
    S, lr = given.whole("S", S), given.number("lr", lr, above=0)
    w_KP = given.tensors(w_P=w_P).repeat(len(shares_of(n_K)), 1)
    for s in range(S):
        slope_KP = slope(w_KP, s)
        if slope_KP.shape != w_KP.shape:
            raise ValueError(
                f"slope gives a row for each client, {tuple(w_KP.shape)}, not "
                f"{tuple(slope_KP.shape)}"
            )
        w_KP = w_KP - lr * slope_KP
    return w_KP


def drift(moves_KP, n_K):
    "Mean length of the clients' moves over the length of their mean move, a number >= 1."
    shares_K = shares_of(n_K).to(moves_KP.dtype)
    if moves_KP.ndim != 2 or len(moves_KP) != len(shares_K):
        raise ValueError(
            f"moves_KP has a row for each of {len(shares_K)} clients, not the shape "
            f"{tuple(moves_KP.shape)}"
        )
    together = (shares_K @ moves_KP).norm().item()
    alone = (shares_K @ moves_KP.norm(dim=1)).item()
    return alone / together if together else math.inf


def scaffold_round(w_P, c_KP, slope, n_K, S, lr):
    """One round of SCAFFOLD: -> the new weights (P,), the new control variates (K, P).

    In each step a client subtracts its own control variate and adds the mean of all
    (by rows). Its new one is the mean of the gradients that it met in this round.
    """
    shares_K = shares_of(n_K).to(w_P.dtype)
    if c_KP.shape != (len(shares_K), len(w_P)):
        raise ValueError(
            f"c_KP has a row of {len(w_P)} numbers for each of {len(shares_K)} clients, "
            f"not the shape {tuple(c_KP.shape)}"
        )
    bias_KP = c_KP - shares_K @ c_KP
    w_KP = _walk(w_P, lambda w_KP, s: slope(w_KP, s) - bias_KP, n_K, S, lr)
    return shares_K @ w_KP, bias_KP + (w_P - w_KP) / (S * lr)
