"""One task after another (chapter 25): forgetting, Fisher and EWC, a reservoir of rows.

EWC is Kirkpatrick and others' (2017), arXiv:1612.00796; the reservoir is Vitter's (1985).
"""

import random

import torch.nn.functional as F
from torch.func import functional_call, grad, vmap

from utils import given


def forgetting(accuracy_TT):
    """Mean over all tasks but the last of (best accuracy - last accuracy).

    accuracy_TT[i, j]: on task j, after training on task i; j <= i counts.
    """
    T = len(accuracy_TT)
    if accuracy_TT.shape != (T, T) or T < 2:
        raise ValueError(
            f"a square of at least two tasks, not {tuple(accuracy_TT.shape)}"
        )
    lost = [accuracy_TT[j:, j].max() - accuracy_TT[-1, j] for j in range(T - 1)]
    return float(sum(lost) / (T - 1))


def fisher(net, X_ND, y_N):
    "{parameter's name: mean over the rows of its squared gradient}, row by row."
    given.labels("y_N", y_N, len(X_ND), net(X_ND[:1]).shape[-1])
    weights = {name: p.detach() for name, p in net.named_parameters()}

    def loss(weights, x_D, y):
        return F.cross_entropy(functional_call(net, weights, (x_D[None],)), y[None])

    by_row = vmap(grad(loss), (None, 0, 0))(weights, X_ND, y_N)
    return {name: (g**2).mean(0) for name, g in by_row.items()}


def ewc_penalty(net, anchors):
    "Sum over anchors of F * (w - w*)**2 / 2; anchors: pairs ({name: F}, {name: w*})."
    return sum(
        (F_w[name] * (p - old[name]) ** 2).sum() / 2
        for F_w, old in anchors
        for name, p in net.named_parameters()
    )


class Replay:
    "At most `limit` rows of a stream, each row of the stream with the same chance."

    def __init__(self, limit, seed=0):
        self.limit = given.whole("limit", limit, 1)
        self.rows, self.seen, self.rng = [], 0, random.Random(seed)

    def add(self, row):
        "Offer one row, the next of the stream."
        self.seen += 1
        if len(self.rows) < self.limit:
            self.rows.append(row)
        elif (place := self.rng.randrange(self.seen)) < self.limit:
            self.rows[place] = row
