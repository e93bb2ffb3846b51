"""Which pixels an answer came from: integrated gradients, and a test of any such map.

Sundararajan and others (2017), arXiv:1703.01365. Built for chapter 27.
"""

import torch

from utils import given


def integrated_gradients(net, x_BD, c_B, steps, base_BD=None):
    """What each pixel adds to the logit of class c, on the way from base to x: (B, D).

    The slopes at the middles of `steps` pieces of the straight way, averaged, times the
    way. Each row sums to logit(x) - logit(base), nearly. base: black where not given.
    """
    given.whole("steps", steps)
    if len(x_BD) != len(c_B):
        raise ValueError(f"{len(x_BD)} images and {len(c_B)} classes")
    base_BD = torch.zeros_like(x_BD) if base_BD is None else base_BD
    sum_BD = torch.zeros_like(x_BD)
    for k in range(steps):
        at_BD = base_BD + (k + 0.5) / steps * (x_BD - base_BD)
        at_BD = at_BD.detach().requires_grad_()
        with torch.enable_grad():
            logits_B = net(at_BD).gather(1, c_B[:, None])
        sum_BD += torch.autograd.grad(logits_B.sum(), at_BD)[0]
    return ((x_BD - base_BD) * sum_BD / steps).detach()


def without(x_BD, score_BD, k):
    "The images with their k highest-scored pixels black."
    top_BK = score_BD.topk(given.whole("k", k), 1).indices
    return x_BD.scatter(1, top_BK, 0.0)
