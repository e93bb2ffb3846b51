"""What chapter 09 builds: Muon, a step whose directions all have the same length.

Momentum's matrix is replaced by the nearest one with equal singular values (Jordan and
others 2024). Only for matrices inside a network: embeddings, the head, gains and biases
take Adam, as `for_model` arranges.
"""

import torch

from utils import given

STEP = 3.4445, -4.7750, 2.0315  # the quintic's coefficients, chosen by Jordan for speed


def orthogonal(G_HD, steps=5):
    """G with its singular values pushed to about 1 (0.7 to 1.2): the same shape.

    Newton-Schulz: X <- a X + (b A + c A A) X with A = X X^T. Also for stacks (..., M, N).
    """
    a, b, c = STEP
    if given.tensor("G_HD", G_HD).ndim < 2:
        raise ValueError(f"G_HD is a matrix (H, D), not of shape {tuple(G_HD.shape)}")
    tall = G_HD.shape[-2] > G_HD.shape[-1]
    X = G_HD.mT if tall else G_HD  # the smaller side makes the smaller products
    X = X / (X.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        A = X @ X.mT
        X = a * X + (b * A + c * A @ A) @ X
    return X.mT if tall else X


def muon_step(w, grad, state, lr, beta=0.95):
    """One step of a matrix: -> new w, new state.

    m is a fading mean of slopes; the step looks ahead along it (Nesterov), is made
    orthogonal, and is longer by the root of rows / columns for tall matrices.
    """
    m = beta * state.get("m", torch.zeros_like(w)) + (1 - beta) * grad
    ahead = beta * m + (1 - beta) * grad
    scale = max(1, w.shape[-2] / w.shape[-1]) ** 0.5
    return w - lr * scale * orthogonal(ahead), {"m": m}


class Muon(torch.optim.Optimizer):
    """Muon for matrices, in place; equal shapes are made orthogonal together.

    steps: of the polynomial, 5 as published; 3 are enough for small models.
    ValueError for a parameter that is no matrix.
    """

    def __init__(self, parameters, lr=0.02, beta=0.95, steps=5):
        given.number("lr", lr)
        self.steps = given.whole("steps", steps)
        if not 0 <= given.number("beta", beta) < 1:
            raise ValueError(f"beta is below 1, not {beta}")
        super().__init__(parameters, {"lr": lr, "beta": beta})
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim != 2:
                    raise ValueError(
                        "Muon moves matrices (M, N): a parameter of shape "
                        f"{tuple(p.shape)} wants Adam"
                    )

    @torch.no_grad()
    def step(self, closure=None):
        "Move every matrix that has a gradient."
        for group in self.param_groups:
            beta, alike = group["beta"], {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                m.lerp_(p.grad, 1 - beta)
                alike.setdefault(p.shape, []).append((p, p.grad.lerp(m, beta)))
            for (M, N), pairs in alike.items():
                rate = group["lr"] * max(1, M / N) ** 0.5
                steps = orthogonal(
                    torch.stack([ahead for _, ahead in pairs]), self.steps
                )
                for (p, _), step in zip(pairs, steps):
                    p.add_(step, alpha=-rate)


def for_model(model, lr=0.02, matrix_lr=0.03, beta=0.9, steps=3):
    """Two optimizers for a GPT: Muon for the blocks' matrices, Adam for all the rest.

    lr is Adam's rate; matrix_lr, beta and steps are Muon's.

    -> [Muon, Adam]; each group keeps its first rate as "first", for schedules.
    """
    inside = {p for p in model.blocks.parameters() if p.ndim == 2}
    rest = [p for p in model.parameters() if p not in inside]
    pair = [
        Muon(
            [p for p in model.blocks.parameters() if p in inside],
            matrix_lr,
            beta,
            steps,
        ),
        torch.optim.Adam(rest, lr, betas=(0.9, 0.98)),
    ]
    for optimizer in pair:
        for group in optimizer.param_groups:
            group["first"] = group["lr"]
    return pair
