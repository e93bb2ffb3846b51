"""What chapter 14 builds: attention in blocks, which never holds its table of weights.

    o_BHTD = flash(q_BHTD, k_BHSD, v_BHSD, causal=True)      # with gradients
    model.use(flash)                                         # in every block of a GPT

Plain PyTorch, after FlashAttention (Dao and others, 2022). Shapes as in attention.py:
queries (B, H, T, D), keys and values (B, H, S, D); lse (B, H, T) is log(sum(exp(scores))).
Kept for backward: q, k, v, o and lse, which is 4 D + 1 numbers per token and head.
"""

import torch

from utils import given

BLOCK = 128


def online_softmax(blocks):
    """Largest score m (N,) and l (N,) = sum(exp(scores - m)) of blocks [(N, any), ...].

    Each block is read once, in order (Milakov and Gimelshein, 2018). A row that is -inf
    everywhere has m = -inf, l = 0.
    """
    blocks = iter(blocks)
    first = next(blocks, None)
    if first is None:
        raise ValueError("there is no block: a maximum needs a score")
    m_N, l_N = first.new_full(first.shape[:1], -torch.inf), first.new_zeros(len(first))
    while first is not None:
        new_N = torch.maximum(m_N, first.amax(1))
        safe_N = new_N.masked_fill(new_N == -torch.inf, 0.0)  # -inf - -inf is nan
        l_N = l_N * (m_N - safe_N).exp() + (first - safe_N[:, None]).exp().sum(1)
        m_N, first = new_N, next(blocks, None)
    return m_N, l_N


def _scores(q, k, i, j, causal):
    "Scores of the queries from i on with the keys from j on; the future is -inf."
    s = q @ k.mT * q.shape[-1] ** -0.5
    if causal and j + k.shape[2] > i + 1:
        future = torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device)
        s = s.masked_fill(future.triu(i - j + 1), -torch.inf)
    return s


def flash_forward(q, k, v, causal, block=BLOCK):
    """-> o (B, H, T, D) and lse (B, H, T). causal needs T = S, or ValueError."""
    block = _fits(q, k, v, causal, block)
    T, S = q.shape[2], k.shape[2]
    o, lse = torch.empty_like(q), q.new_empty(q.shape[:3])
    for i in range(0, T, block):
        q_i = q[:, :, i : i + block]
        m = q_i.new_full((*q_i.shape[:3], 1), -torch.inf)
        l, acc = torch.zeros_like(m), torch.zeros_like(q_i)  # noqa: E741
        for j in range(0, min(i + block, S) if causal else S, block):
            s = _scores(q_i, k[:, :, j : j + block], i, j, causal)
            new = torch.maximum(m, s.amax(-1, keepdim=True))
            p, old = (s - new).exp(), (m - new).exp()
            l = l * old + p.sum(-1, keepdim=True)  # noqa: E741
            acc = acc * old + p @ v[:, :, j : j + block]
            m = new
        o[:, :, i : i + block] = acc / l
        lse[:, :, i : i + block] = (m + l.log())[..., 0]
    return o, lse


def flash_backward(q, k, v, o, lse, do, causal, block=BLOCK):
    "-> dq, dk, dv; the weights are computed again, tile by tile, from lse."
    block = _fits(q, k, v, causal, block)
    for name, x, shape in (
        ("o", o, q.shape),
        ("do", do, q.shape),
        ("lse", lse, q.shape[:3]),
    ):
        if x.shape != shape:
            raise ValueError(
                f"{name} has the shape {tuple(shape)}, not {tuple(x.shape)}"
            )
    T, S, scale = q.shape[2], k.shape[2], q.shape[3] ** -0.5
    dq, dk, dv = (torch.zeros_like(x) for x in (q, k, v))
    delta = (do * o).sum(-1, keepdim=True)
    for j in range(0, S, block):
        c = slice(j, j + block)
        for i in range(j if causal else 0, T, block):
            r = slice(i, i + block)
            s = _scores(q[:, :, r], k[:, :, c], i, j, causal)
            p = (s - lse[:, :, r, None]).exp()
            dp = do[:, :, r] @ v[:, :, c].mT
            ds = p * (dp - delta[:, :, r]) * scale
            dv[:, :, c] += p.mT @ do[:, :, r]
            dk[:, :, c] += ds.mT @ q[:, :, r]
            dq[:, :, r] += ds @ k[:, :, c]
    return dq, dk, dv


class Flash(torch.autograd.Function):
    "The two as one operator of autograd: Flash.apply(q, k, v, causal, block) -> o."

    @staticmethod
    def forward(ctx, q, k, v, causal, block):
        o, lse = flash_forward(q, k, v, causal, block)
        ctx.save_for_backward(q, k, v, o, lse)
        ctx.how = causal, block
        return o

    @staticmethod
    def backward(ctx, do):
        q, k, v, o, lse = ctx.saved_tensors
        return *flash_backward(q, k, v, o, lse, do, *ctx.how), None, None


def flash(q_BHTD, k_BHSD, v_BHSD, mask=None, causal=False, block=BLOCK):
    "Attention of the form that built/attention.py tells: an `attend`. No masks but causal."
    if mask is not None:
        raise ValueError("flash knows no mask but causal=True")
    return Flash.apply(q_BHTD, k_BHSD, v_BHSD, causal, block)


def _fits(q, k, v, causal, block):
    for name, x in (("q", q), ("k", k), ("v", v)):
        given.tensor(name, x)
    if (
        q.ndim != 4
        or k.shape != v.shape
        or q.shape[:2] + q.shape[3:] != k.shape[:2] + k.shape[3:]
    ):
        shapes = ", ".join(str(tuple(x.shape)) for x in (q, k, v))
        raise ValueError(f"q (B, H, T, D), k and v (B, H, S, D) do not fit: {shapes}")
    if causal and q.shape[2] != k.shape[2]:
        T, S = q.shape[2], k.shape[2]
        raise ValueError(f"causal needs T = S, not {T} queries and {S} keys")
    return given.whole("block", block)
