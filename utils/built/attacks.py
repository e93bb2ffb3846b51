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
    given.whole("steps", steps, 0)
    given.number("rate", rate, above=0)
    low_BD, high_BD = (x_BD - eps).clamp(min=0), (x_BD + eps).clamp(max=1)
    at_BD = start_BD.detach()
    for _ in range(steps):
        at_BD = at_BD + rate * slope(net, at_BD, y_B).sign()
        at_BD = torch.minimum(torch.maximum(at_BD, low_BD), high_BD)
    return at_BD


def noise(x_BD, eps, seed=0):
    "x plus numbers between -eps and eps, in 0 .. 1: where an attack may begin."
    generator = torch.Generator().manual_seed(seed)
    shift_BD = eps * (2 * torch.rand(x_BD.shape, generator=generator) - 1)
    return (x_BD + shift_BD).clamp(0, 1)


def strengthen(net, X_ND, y_N, eps=0.1, steps=5, epochs=15, lr=6e-3, seed=0):
    "Train on attacked images, attacked anew at every step: -> the net, changed in place."
    batches = train.loader(X_ND, y_N, 128, seed=seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, epochs * len(batches))
    for epoch in range(epochs):
        batches.sampler.begin(epoch, 0)
        for x_BD, y_B in batches:
            start_BD = noise(x_BD, eps, seed=epoch)
            x_BD = pgd(net, x_BD, y_B, eps, steps, 2.5 * eps / steps, start_BD)
            optimizer.zero_grad()
            F.cross_entropy(net(x_BD), y_B).backward()
            optimizer.step()
            cycle.step()
    return net
