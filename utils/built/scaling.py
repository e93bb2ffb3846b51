"""What chapter 10 builds: a family of small networks, laws of their losses, fine-tuning.

    model = train(rows_NK1, V=63, H=64, steps=500)      # one network of the family
    E, A, alpha = fit_offset(N, L)                      # L = E + A / N**alpha
    p = fit_surface(N, D, L)                            # L = E + A / N**alpha + B / D**beta
    N, D = optimum(A, alpha, B, beta, C)                # what a budget of C FLOPs should buy

N: weights that multiply (not the embedding's); D: tokens that were learnt from; C = 6 N D.
"""

import copy
import json
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils import given
from utils.built import language
from utils.files import ROOT

RECORD = ROOT / "utils" / "data" / "scaling.json"


# ---- a family of networks that differ in one number ----


class Guesser(nn.Module):
    "Reads K characters (B, K), guesses the next: logits (B, V). H: its one size."

    def __init__(self, V, H, K=8, E=16):
        super().__init__()
        for name, value in {"V": V, "H": H, "K": K, "E": E}.items():
            given.whole(name, value)
        self.table = nn.Embedding(V, E)
        self.hidden, self.out = nn.Linear(K * E, H), nn.Linear(H, V)
        nn.init.zeros_(self.out.weight)

    def forward(self, ids_BK):
        return self.out(self.hidden(self.table(ids_BK).flatten(1)).relu())


def train(rows_NK1, V, H, steps=500, seed=0, batch=512, lr=0.004):
    """A Guesser after `steps` steps of AdamW, whose rate rises and then falls to 0.

    rows_NK1: K characters and the one after them, (N, K + 1). The output's rate is lower in
    wide networks, by the root of 64 / H.
    """
    given.whole("steps", steps), given.whole("batch", batch)
    torch.manual_seed(given.whole("seed", seed, 0))
    model = Guesser(V, H, K=rows_NK1.shape[1] - 1)
    first = {"table": lr, "hidden": lr, "out": lr * min(1, 64 / H) ** 0.5}
    groups = [
        {"params": list(getattr(model, name).parameters()), "first": rate}
        for name, rate in first.items()
    ]
    adamw = torch.optim.AdamW(groups, lr, betas=(0.9, 0.98), fused=True)
    for step in range(steps):
        rows = rows_NK1[torch.randint(len(rows_NK1), (batch,))]
        loss = F.cross_entropy(model(rows[:, :-1]), rows[:, -1])
        adamw.zero_grad()
        loss.backward()
        for group in adamw.param_groups:
            group["lr"] = group["first"] * min((step + 1) / 20, 1 - step / steps)
        adamw.step()
    return model


@torch.no_grad()
def loss_of(model, rows_NK1, at_once=8192):
    "Mean loss in nats per character over rows (N, K + 1)."
    parts = rows_NK1.split(at_once)
    total = sum(
        F.cross_entropy(model(p[:, :-1]), p[:, -1], reduction="sum") for p in parts
    )
    return (total / len(rows_NK1)).item()


def recorded():
    "Runs of the family that were recorded: {hidden, N, steps, D, seed, loss}, a list."
    return json.loads(RECORD.read_text(encoding="utf-8"))["rows"]


# ---- what a run costs, and what its loss will be ----


def training_flops(model, tokens):
    "FLOPs of training on so many tokens: 6 per weight of each linear layer and token."
    given.whole("tokens", tokens)
    layers = (layer for layer in model.modules() if isinstance(layer, nn.Linear))
    return 6 * tokens * sum(layer.weight.numel() for layer in layers)


def _runs(N, L, least):
    N, L = given.arrays(N_R=N, L_R=L)
    right = [(x > 0).all() and np.isfinite(x).all() for x in (N, L)]
    if len(N) < least or not all(right):
        raise ValueError(f"at least {least} runs, sizes and losses above 0 and finite")
    return N, L


def fit_line(N, L):
    "Sizes and losses of runs -> A, alpha of L = A / N**alpha, a line in both logarithms."
    N, L = _runs(N, L, 2)
    slope, start = np.polyfit(np.log(N), np.log(L), 1)
    return np.exp(start), -slope


def fit_offset(N, L, tries=400):
    """Sizes and losses -> E, A, alpha of L = E + A / N**alpha.

    For each of many floors E below the lowest loss a line through log(L - E); kept is the
    one whose curve has the least squared misses.
    """
    N, L = _runs(N, L, 3)
    best = None
    for E in np.linspace(0, L.min(), tries, endpoint=False):
        A, alpha = fit_line(N, L - E)
        miss = np.square(E + A / N**alpha - L).sum()
        if best is None or miss < best[0]:
            best = miss, E, A, alpha
    return best[1:]


def isoflop(N, L):
    """The best size among runs of one budget: where a parabola over log N is lowest.

    nan where the parabola opens downwards, or is lowest beyond the runs.
    """
    N, L = _runs(N, L, 3)
    bend, slope, _ = np.polyfit(np.log(N), L, 2)
    best = np.exp(-slope / (2 * bend))
    return best if bend > 0 and N.min() <= best <= N.max() else math.nan


def optimum(A, alpha, B, beta, C):
    "N, D with 6 N D = C for which A / N**alpha + B / D**beta is least."
    for name, value in zip("A alpha B beta C".split(), (A, alpha, B, beta, C)):
        given.number(name, value, above=0)
    N = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    N *= (C / 6) ** (beta / (alpha + beta))
    return N, C / (6 * N)


def misfit(p, N, D, L, delta=1e-3):
    """How badly the law p fits runs, as Hoffmann and others (2022) measure it: a tensor.

    p = (log A, log B, log E, alpha, beta); Huber's loss of log L, summed over the runs.
    """
    if len(p) != 5 or not N.shape == D.shape == L.shape:
        shapes = ", ".join(str(tuple(x.shape)) for x in (p, N, D, L))
        raise ValueError(f"p has 5 numbers, N, D and L one shape: these are {shapes}")
    a, b, e, alpha, beta = p
    terms = (a - alpha * N.log(), b - beta * D.log(), e.expand_as(N))
    told = torch.logsumexp(torch.stack(terms), 0)
    return F.huber_loss(told, L.log(), delta=delta, reduction="sum")


def fit_surface(N, D, L, misfit=misfit):
    "Runs -> E, A, alpha, B, beta of L = E + A / N**alpha + B / D**beta, from three starts."
    N, D, L = (torch.tensor(np.asarray(x), dtype=torch.float64) for x in (N, D, L))
    if not N.shape == D.shape == L.shape or N.ndim != 1 or len(N) < 5:
        raise ValueError("N, D and L are three lists of the same five runs or more")
    best = None
    for a, b in ((2.0, 5.0), (5.0, 5.0), (5.0, 10.0)):
        p = torch.tensor([a, b, 0.5, 0.4, 0.4], dtype=torch.float64)
        p.requires_grad_()
        lbfgs = torch.optim.LBFGS(
            [p], max_iter=300, line_search_fn="strong_wolfe", tolerance_change=1e-11
        )

        def closure(p=p, lbfgs=lbfgs):
            lbfgs.zero_grad()
            miss = misfit(p, N, D, L)
            miss.backward()
            return miss

        lbfgs.step(closure)
        miss = misfit(p, N, D, L).item()
        if best is None or miss < best[0]:
            best = miss, p.detach()
    a, b, e, alpha, beta = best[1].tolist()
    return math.exp(e), math.exp(a), alpha, math.exp(b), beta


# ---- rates that fit every width ----


def mup_rates(shapes, base_shapes, lr):
    """{name: shape} of the parameters, and of the same at the base width -> {name: rate}.

    Adam's rate falls as a matrix (out, in) reads more: lr * base_in / in. Vectors keep lr.
    """
    given.number("lr", lr)
    if set(shapes) != set(base_shapes):
        raise ValueError("both networks have parameters of the same names")
    return {
        name: lr * base_shapes[name][1] / shape[1] if len(shape) == 2 else lr
        for name, shape in shapes.items()
    }


def sweep(width, rates, relative=None, steps=60, seed=0, batch=64):
    """Loss (R,) of the digits network 64-width-width-10 after `steps` steps of Adam.

    One network for each of R rates, all trained at once. relative: {"in": 1.0, "hidden":
    ..., "out": ...}, factors of each rate; with them the output begins at 0 (muP), without
    them all are 1 and the output is drawn (the usual way).
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    X = torch.tensor(digits.data, dtype=torch.float32)
    X, y = (X - X.mean()) / X.std(), torch.tensor(digits.target)
    dice, R = torch.Generator().manual_seed(seed), len(rates)

    def drawn(rows, columns, spread):
        w = torch.randn(1, rows, columns, generator=dice) * spread
        return w.repeat(R, 1, 1).requires_grad_()

    last = 0.0 if relative else width**-0.5
    w = [drawn(64, width, 1 / 8), drawn(width, width, (2 / width) ** 0.5),
         drawn(width, 10, last)]  # fmt: skip
    factors = (
        [relative[name] for name in ("in", "hidden", "out")] if relative else [1] * 3
    )
    rates_R11 = torch.as_tensor(rates, dtype=torch.float32)[:, None, None]
    m, v, losses = (
        [torch.zeros_like(x) for x in w],
        [torch.zeros_like(x) for x in w],
        [],
    )
    for step in range(1, steps + 1):
        pick = torch.randint(len(X), (batch,), generator=dice)
        h = (X[pick].expand(R, -1, -1) @ w[0]).relu()
        logits = (h @ w[1]).relu() @ w[2]
        target = y[pick].repeat(R)
        loss = F.cross_entropy(logits.flatten(0, 1), target, reduction="none")
        loss = loss.view(R, -1).mean(1)
        for x, g, m1, m2, factor in zip(
            w, torch.autograd.grad(loss.sum(), w), m, v, factors
        ):
            m1.lerp_(g, 0.1), m2.lerp_(g * g, 0.001)
            move = (m1 / (1 - 0.9**step)) / ((m2 / (1 - 0.999**step)).sqrt() + 1e-8)
            x.data.sub_(rates_R11 * factor * move)
        losses.append(loss.detach())
    return torch.stack(losses[-20:]).mean(0)


# ---- what is asked, and going on with another text ----


def corrupt(ids_BT, chosen_BT, fate_BT, random_BT, mask_id):
    """Inputs and targets of a masked model, as BERT's (Devlin and others 2018).

    Of the chosen places, those with fate < 0.8 show the mask, those < 0.9 the random token,
    the others what stood there. Targets: the tokens of the chosen places, elsewhere -100.
    """
    if chosen_BT.dtype != torch.bool:
        raise TypeError(f"chosen is boolean, not {chosen_BT.dtype}")
    given.whole("mask_id", mask_id, 0)
    shown = torch.where(fate_BT < 0.9, random_BT, ids_BT)
    shown = shown.masked_fill(fate_BT < 0.8, mask_id)
    inputs_BT = torch.where(chosen_BT, shown, ids_BT)
    return inputs_BT, ids_BT.masked_fill(~chosen_BT, -100)


def finetune(model, batches, lr):
    "A copy of the model after one step of Adam per batch of rows (B, T + 1)."
    given.number("lr", lr)
    tuned = copy.deepcopy(model)
    adam = torch.optim.Adam(tuned.parameters(), lr)
    for rows_BT1 in batches:
        adam.zero_grad()
        language.nats(tuned, rows_BT1).backward()
        adam.step()
    return tuned
