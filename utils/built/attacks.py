"""Changes too small to see that change an answer: FGSM, PGD, and training against them.

FGSM: Goodfellow and others (2015), arXiv:1412.6572. PGD: Madry and others (2018),
arXiv:1706.06083. Built for chapter 27.
"""

import torch
import torch.nn.functional as F

from utils import given
from utils.built import train  # chapter 05


def slope(net, x_BD, y_B):
    "The gradient of the loss with respect to the pixels (B, D); none reaches the net."
    x_BD = x_BD.detach().clone().requires_grad_()
    with torch.enable_grad():
        loss = F.cross_entropy(net(x_BD), y_B, reduction="sum")
    return torch.autograd.grad(loss, x_BD)[0]


def _pixels(x_BD, y_B, eps):
    if not torch.is_tensor(x_BD) or x_BD.ndim < 2 or not x_BD.is_floating_point():
        raise TypeError("x_BD is a tensor of floats, (B, D)")
    if len(x_BD) != len(y_B):
        raise ValueError(f"{len(x_BD)} images and {len(y_B)} labels")
    if x_BD.numel() and not 0 <= x_BD.min() <= x_BD.max() <= 1:
        raise ValueError("pixels lie in 0 .. 1")
    given.number("eps", eps)


def fgsm(net, x_BD, y_B, eps):
    "One step of size eps along the sign of the slope: -> images in 0 .. 1."
    _pixels(x_BD, y_B, eps)
    return (x_BD + eps * slope(net, x_BD, y_B).sign()).clamp(0, 1).detach()


def pgd(net, x_BD, y_B, eps, steps, rate, start_BD):
    """`steps` steps of size rate along the sign; after each, back to within eps of x.

    start_BD: where to begin, from `noise`. -> images in 0 .. 1, no pixel further than eps
    from x.
    """
    _pixels(x_BD, y_B, eps)
    given.whole("steps", steps)
    given.number("rate", rate, above=0)
    if not torch.is_tensor(start_BD) or start_BD.shape != x_BD.shape:
        raise ValueError(
            f"start_BD has the shape of x_BD, {tuple(x_BD.shape)}: see `noise`"
        )
    low_BD, high_BD = (x_BD - eps).clamp(min=0), (x_BD + eps).clamp(max=1)
    at_BD = start_BD.detach()
    for _ in range(steps):
        at_BD = at_BD + rate * slope(net, at_BD, y_B).sign()
        at_BD = torch.minimum(torch.maximum(at_BD, low_BD), high_BD)
    return at_BD


def noise(x_BD, eps, seed=0):
    """x plus numbers between -eps and eps, in 0 .. 1: where an attack may begin.

    seed: a number, or a torch.Generator, which gives other numbers at each call.
    """
    given.number("eps", eps)
    if not isinstance(seed, torch.Generator):
        seed = torch.Generator().manual_seed(given.whole("seed", seed, 0))
    shift_BD = eps * (2 * torch.rand(x_BD.shape, generator=seed).to(x_BD) - 1)
    return (x_BD + shift_BD).clamp(0, 1)


def strengthen(net, X_ND, y_N, eps=0.1, steps=5, epochs=15, lr=6e-3, seed=0):
    """Train on attacked images, attacked anew at every step: -> the net, changed in place.

    Each batch is attacked from noise of its own.
    """
    given.number("eps", eps, above=0)
    given.whole("steps", steps)
    given.whole("epochs", epochs)
    given.number("lr", lr, above=0)
    draws = torch.Generator().manual_seed(given.whole("seed", seed, 0))
    batches = train.loader(X_ND, y_N, 128, seed=seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, epochs * len(batches))
    for epoch in range(epochs):
        batches.sampler.begin(epoch, 0)
        for x_BD, y_B in batches:
            start_BD = noise(x_BD, eps, draws)
            x_BD = pgd(net, x_BD, y_B, eps, steps, 2.5 * eps / steps, start_BD)
            optimizer.zero_grad()
            F.cross_entropy(net(x_BD), y_B).backward()
            optimizer.step()
            cycle.step()
    return net
