"""What chapter 14 builds: the same gradients from less memory.

accumulate   a large batch in parts that fit
Recompute    activations computed again in place of kept; `kept` predicts what stays
chunked_loss cross-entropy that never holds all its logits
Shapes: x (N, E) states, W (V, E) a head's weights, y (N,) labels.
"""

import torch
import torch.nn.functional as F

from utils import given


def accumulate(model, parts):
    """Gradients of the mean cross-entropy over all rows of [(X, y), ...] -> that mean.

    They are added to what is in .grad; only one part's activations are alive at a time.
    Parts may be of different sizes. (Batch normalisation sees each part for itself.)
    """
    parts = list(parts)
    if not all(isinstance(part, (tuple, list)) and len(part) == 2 for part in parts):
        raise ValueError("parts are pairs: [(X, y), ...]")
    N = sum(len(y) for _, y in parts)
    if not N:
        raise ValueError("there is no row: a mean needs one")
    total = 0.0
    for X, y in parts:
        loss = F.cross_entropy(model(X), y, reduction="sum") / N
        loss.backward()
        total += loss.item()
    return total


def kept(L, k, per_block=2):
    """Units that checkpoint_sequential keeps after forward: L blocks in k segments.

    A unit is one activation; a block keeps per_block of them. All segments but the last
    are L // k blocks long and keep their input alone; the last takes the rest, and keeps
    everything.
    """
    L = given.whole("L", L)
    k = given.whole("k", k, most=L)
    return (k - 1) + per_block * (L - (k - 1) * (L // k))


class Recompute(torch.autograd.Function):
    """Recompute.apply(run, x) -> run(x), of which only x is kept.

    Backward runs it a second time, from the same random state, so that dropout drops the
    same. x must ask for gradients, or none reach the weights within. CPU only.
    """

    @staticmethod
    def forward(ctx, run, x):
        ctx.run, ctx.random = run, torch.get_rng_state()
        ctx.save_for_backward(x)
        return run(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        x = x.detach().requires_grad_()
        now = torch.get_rng_state()
        torch.set_rng_state(ctx.random)
        with torch.enable_grad():
            out = ctx.run(x)
        torch.set_rng_state(now)
        out.backward(grad)
        return None, x.grad


def chunked_loss(x, W, y, chunk):
    """Mean cross-entropy of x @ W.T and its gradients -> (loss, dx (N, E), dW (V, E)).

    At no time there are logits of more than `chunk` rows.
    """
    chunk = given.whole("chunk", chunk)
    if x.ndim != 2 or W.ndim != 2 or x.shape[1] != W.shape[1] or y.shape != x.shape[:1]:
        shapes = ", ".join(str(tuple(t.shape)) for t in (x, W, y))
        raise ValueError(f"x (N, E), W (V, E) and y (N,) do not fit: {shapes}")
    x, W, N = x.detach(), W.detach(), len(x)
    dx, dW, loss = torch.empty_like(x), torch.zeros_like(W), 0.0
    for i in range(0, N, chunk):
        r = slice(i, i + chunk)
        z = x[r] @ W.T
        lse, rows = z.logsumexp(1), torch.arange(len(z), device=z.device)
        loss += (lse - z[rows, y[r]]).sum() / N
        z.sub_(lse[:, None]).exp_()  # softmax
        z[rows, y[r]] -= 1
        z /= N
        dx[r] = z @ W
        dW += z.T @ x[r]
    return loss, dx, dW


class ChunkedLoss(torch.autograd.Function):
    "chunked_loss as one operator of autograd: ChunkedLoss.apply(x, W, y, chunk) -> loss."

    @staticmethod
    def forward(ctx, x, W, y, chunk):
        loss, dx, dW = chunked_loss(x, W, y, chunk)
        ctx.save_for_backward(dx, dW)
        return loss

    @staticmethod
    def backward(ctx, grad):
        dx, dW = ctx.saved_tensors
        return grad * dx, grad * dW, None, None
