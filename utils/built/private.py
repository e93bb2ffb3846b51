"""What chapter 22 builds: what gradients give away, and what it costs that they do not.

Attacks: a row stands in the gradient of a linear layer; L. Zhu et al., Deep Leakage from
Gradients (2019), https://arxiv.org/abs/1906.08935; J. Geiping et al., Inverting Gradients
(2020), https://arxiv.org/abs/2003.14053 (the cosine); L. Fowl et al., Robbing the Fed
(2021), https://arxiv.org/abs/2110.13057 (the imprint). Defence: M. Abadi et al., Deep
Learning with Differential Privacy (2016), https://arxiv.org/abs/1607.00133; the
accountant after I. Mironov, K. Talwar, L. Zhang (2019), https://arxiv.org/abs/1908.10530,
its conversion after B. Balle et al. (2020), https://arxiv.org/abs/1905.09982.
"""

import math

import torch
import torch.nn.functional as F

from utils import given

ORDERS = range(2, 64)  # orders of the Renyi divergence that the accountant tries


def leak_rows(dW_HD, db_H, floor=0.0):
    "The rows in a linear layer's gradient: dW / db of units with |db| > floor, (M, D)."
    if dW_HD.ndim != 2 or db_H.shape != dW_HD.shape[:1]:
        raise ValueError(
            f"dW_HD has a row for each of H units and db_H a number, not the shapes "
            f"{tuple(dW_HD.shape)} and {tuple(db_H.shape)}"
        )
    open_H = db_H.abs() > given.number("floor", floor)
    return dW_HD[open_H] / db_H[open_H, None]


def imprint(public_ND, H, V, seed=0):
    """A crafted first layer and what stands behind it: W (H, D), b (H,), out (V, H).

    All units look in one random direction; unit h opens above the h-th of H quantiles of
    the public rows in that direction. Behind them all columns are equal, so that a row
    pulls all its open units alike.
    """
    if public_ND.ndim != 2 or not len(public_ND):
        raise ValueError(
            f"public_ND has rows of the victim's kind, (N, D), not the shape "
            f"{tuple(public_ND.shape)}"
        )
    H, V = given.whole("H", H), given.whole("V", V)
    generator = torch.Generator().manual_seed(given.whole("seed", seed, 0))
    look_D = torch.randn(public_ND.shape[1], generator=generator)
    edges_H = torch.quantile(public_ND @ look_D, torch.linspace(0, 1, H + 1)[:-1])
    out_V1 = 0.3 * torch.randn(V, 1, generator=generator)
    return look_D.repeat(H, 1), -edges_H, out_V1.repeat(1, H)


def crafted_slope(layer, X_BD, y_B):
    "What a client sends back for the crafted layer: the gradient of its summed loss."
    W_HD, b_H, out_VH = layer
    W_HD, b_H = W_HD.detach().requires_grad_(), b_H.detach().requires_grad_()
    logits_BV = torch.relu(X_BD @ W_HD.T + b_H) @ out_VH.T
    loss = F.cross_entropy(logits_BV, y_B, reduction="sum")
    return flat(torch.autograd.grad(loss, [W_HD, b_H]))


def read_imprint(total_P, D, floor):
    "The rows that a sum of crafted gradients gives away, (M, D): neighbours' differences."
    total_P = torch.as_tensor(total_P)
    H = len(total_P) // (D + 1)
    dW_HD, db_H = total_P[: H * D].view(H, D), total_P[H * D :]
    return leak_rows(between(dW_HD), between(db_H), floor)


def between(gradient_H):
    "What each unit has and the next one has not: neighbours' differences along axis 0."
    return gradient_H - torch.cat([gradient_H[1:], torch.zeros_like(gradient_H[:1])])


def flat(gradients):
    "Tensors in one vector."
    return torch.cat([g.flatten() for g in gradients])


def mismatch(gradient_P, target_P):
    "1 - cosine of the angle between two gradients: their lengths do not count."
    return 1 - F.cosine_similarity(gradient_P, target_P, dim=0)


def match(slope, target_P, D, seed=0, steps=5):
    """An input (D,) in [0, 1] whose gradient points where target_P points, by L-BFGS.

    slope(x_D): the gradient (P,) at x_D, itself differentiable.
    """
    generator = torch.Generator().manual_seed(given.whole("seed", seed, 0))
    x_D = (0.3 + 0.5 * torch.randn(D, generator=generator)).requires_grad_()
    mover = torch.optim.LBFGS([x_D], history_size=50, line_search_fn="strong_wolfe")

    def closure():
        mover.zero_grad()
        outside = F.relu(-x_D) + F.relu(x_D - 1)
        loss = mismatch(slope(x_D), target_P) + 1e-3 * outside.square().sum()
        loss.backward()
        return loss

    for _ in range(given.whole("steps", steps)):
        mover.step(closure)
    return x_D.detach()


def private_gradient(g_BP, C, sigma, noise_P, expected):
    """Rows' gradients made private: -> (P,).

    Each row is cut to a length of at most C, all are added, noise of size sigma * C
    joins the sum once, and the number of rows that was expected divides it. noise_P:
    drawn from the standard normal distribution. No row at all is a batch as well.
    """
    C, sigma = given.number("C", C, above=0), given.number("sigma", sigma)
    expected = given.number("expected", expected, above=0)
    if g_BP.ndim != 2 or noise_P.shape != g_BP.shape[1:]:
        raise ValueError(
            f"g_BP has the shape (B, P) and noise_P (P,), not {tuple(g_BP.shape)} and "
            f"{tuple(noise_P.shape)}"
        )
    length_B1 = g_BP.norm(dim=1, keepdim=True)
    cut_BP = g_BP * (C / length_B1.clamp(min=C))
    return (cut_BP.sum(0) + sigma * C * noise_P) / expected


def renyi(q, sigma, order):
    "Renyi divergence that one step costs: rows join with chance q, noise sigma."
    q = given.number("q", q, above=0)
    if q > 1:
        raise ValueError(f"q is the chance that a row joins, at most 1, not {q}")
    sigma = given.number("sigma", sigma, above=0)
    a = given.whole("order", order, 2)
    if q == 1:
        return a / (2 * sigma**2)
    logs = [
        math.log(math.comb(a, k)) + k * math.log(q) + (a - k) * math.log1p(-q)
        + k * (k - 1) / (2 * sigma**2)
        for k in range(a + 1)
    ]  # fmt: skip
    top = max(logs)
    return (top + math.log(sum(math.exp(x - top) for x in logs))) / (a - 1)


def epsilon(q, sigma, steps, delta):
    "The privacy budget spent after so many steps: the smallest over all orders, >= 0."
    steps = given.whole("steps", steps, 0)
    if not 0 < given.number("delta", delta) < 1:
        raise ValueError(f"delta is between 0 and 1, not {delta}")
    bounds = [
        steps * renyi(q, sigma, a)
        + math.log((a - 1) / a)
        - math.log(delta * a) / (a - 1)
        for a in ORDERS
    ]
    return max(0.0, min(bounds)) if steps else 0.0
