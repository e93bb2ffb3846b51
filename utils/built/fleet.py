"""Many copies of one small network, trained at once: rows of one tensor, no processes.

The network is 64-128-64-10 with tanh, on scikit-learn's digits; its P = 17,226 weights
lie flat in the last axis of w, and every axis before it counts copies: seeds S, ranks R.
`gradients` is one batched product per layer, so that 16 copies cost little more than one.
"""

import functools
from itertools import pairwise

import torch
import torch.nn.functional as F

from utils import data, given

SIZES = 64, 128, 64, 10
SHAPES = [s for i, o in pairwise(SIZES) for s in ((i, o), (1, o))]
NUMBERS = [rows * columns for rows, columns in SHAPES]
P = sum(NUMBERS)


@functools.cache
def digits(dtype):
    "Training rows, their classes, test rows, their classes."
    X_ND, y_N, X_test, y_test = (torch.tensor(part) for part in data.digits())
    return X_ND.to(dtype), y_N, X_test.to(dtype), y_test


def start(seeds, dtype=torch.float32):
    "First weights, a row for each seed: -> (S, P)."
    rows = []
    for seed in _seeds(seeds):
        generator = torch.Generator().manual_seed(seed)
        draws = [
            torch.rand(s, generator=generator, dtype=torch.float64) for s in SHAPES
        ]
        layers = [
            (2 * draw - 1).flatten() / len(draw) ** 0.5 * (len(draw) > 1)  # biases: 0
            for draw in draws
        ]
        rows.append(torch.cat(layers))
    return torch.stack(rows).to(dtype)


def batches(seeds, ranks, steps, rows=16):
    """Rows of each step: -> (S, R, B), `steps` times.

    For each seed the training rows are shuffled and cut into `ranks` equal parts; rank r
    draws from part r alone.
    """
    seeds, ranks = _seeds(seeds), given.whole("ranks", ranks)
    steps, rows = given.whole("steps", steps), given.whole("rows", rows)
    N = len(digits(torch.float32)[1])
    generators = [torch.Generator().manual_seed(1000 + seed) for seed in seeds]
    parts_SRN = torch.stack(
        [torch.randperm(N, generator=g)[: N // ranks * ranks] for g in generators]
    ).unflatten(1, (ranks, -1))
    for _ in range(steps):
        size = ranks, rows
        picks = [torch.randint(N // ranks, size, generator=g) for g in generators]
        yield parts_SRN.gather(2, torch.stack(picks))


def gradients(w_SRP, rows_SRB):
    "Gradient of each copy's mean loss on its own rows: (S, R, P), (S, R, B) -> (S, R, P)."
    if w_SRP.shape[:-1] != rows_SRB.shape[:-1] or w_SRP.shape[-1] != P:
        raise ValueError(
            f"w has shape (S, R, {P}) and rows (S, R, B), not {tuple(w_SRP.shape)} and "
            f"{tuple(rows_SRB.shape)}"
        )
    X_ND, y_N, _, _ = digits(w_SRP.dtype)
    w_KP = w_SRP.detach().reshape(-1, P).requires_grad_()
    rows_KB = rows_SRB.flatten(0, -2)
    z_KBC = _logits(w_KP, X_ND[rows_KB])
    loss = F.cross_entropy(z_KBC.flatten(0, 1), y_N[rows_KB].flatten(), reduction="sum")
    (grad_KP,) = torch.autograd.grad(loss / rows_KB.shape[1], w_KP)
    return grad_KP.view(w_SRP.shape)


def accuracy(w_SP):
    "Share of the test rows that are right, in per cent: (S, P) -> (S,)."
    _, _, X_ND, y_N = digits(w_SP.dtype)
    z_SNC = _logits(w_SP, X_ND.expand(len(w_SP), -1, -1))
    return 100 * (z_SNC.argmax(-1) == y_N).double().mean(-1)


def _logits(w_KP, x_KBD):
    parts = zip(w_KP.split(NUMBERS, -1), SHAPES)
    layers = [part.unflatten(-1, shape) for part, shape in parts]
    for number in range(0, len(layers), 2):
        x_KBD = x_KBD.tanh() if number else x_KBD
        x_KBD = torch.baddbmm(layers[number + 1], x_KBD, layers[number])
    return x_KBD


def _seeds(seeds):
    if isinstance(seeds, int) or not len(seeds):
        raise TypeError(f"seeds is a list of whole numbers, not {seeds!r:.60}")
    return [given.whole("a seed", seed, 0) for seed in seeds]
