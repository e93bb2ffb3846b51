"""What chapter 09 builds: attention, its masks, heads, rotary positions, groups.

Shapes: queries (B, H, T, D), keys and values (B, G, S, D): B rows, H heads that ask, G
heads that are read (G divides H; usually G = H), T askers, S sources, D numbers a head.
A mask is boolean and says who may look: True = may. The last asker stands at the last
source, so that with a cache asker i of T is source S - T + i.

A function that a GPT can use in place of another, its `attend`, has one form:

    attend(q_BHTD, k_BHSD, v_BHSD, mask=None, causal=False) -> (B, H, T, D)

mask is None or broadcasts to (B, H, T, S); causal=True stands for causal_mask(T, S).
`attention` is that function by hand, `fused` the one in PyTorch.
"""

import torch
import torch.nn.functional as F

from utils import given


def weights(q_BHTD, k_BHSD, mask=None, causal=False):
    """How much asker t reads from source s: (B, H, T, S), each row sums to 1.

    Scaled dot-product attention of Vaswani and others (2017). A row that may look nowhere
    is nan: 0 / 0.
    """
    scores_BHTS = q_BHTD @ k_BHSD.mT / q_BHTD.shape[-1] ** 0.5
    if causal:
        T, S = scores_BHTS.shape[-2:]
        mask = causal_mask(T, S, q_BHTD.device)
    if mask is not None:
        scores_BHTS = scores_BHTS.masked_fill(~mask, -torch.inf)
    return scores_BHTS.softmax(-1)


def attention(q_BHTD, k_BHSD, v_BHSD, mask=None, causal=False):
    """The values (B, H, S, D) mixed for each asker by its weights: (B, H, T, D).

    ValueError for shapes that do not fit, TypeError for a mask that is not boolean.
    """
    _fits(q_BHTD, k_BHSD, v_BHSD, mask)
    return weights(q_BHTD, k_BHSD, mask, causal) @ v_BHSD


def fused(q_BHTD, k_BHSD, v_BHSD, mask=None, causal=False):
    """The same by F.scaled_dot_product_attention, which keeps no table of weights.

    PyTorch's own is_causal puts the first asker at the first source: right only for
    T = S. Here asker i is source S - T + i.
    """
    T, S = q_BHTD.shape[-2], k_BHSD.shape[-2]
    if causal and T != S:
        mask, causal = causal_mask(T, S, q_BHTD.device), False
    return F.scaled_dot_product_attention(
        q_BHTD, k_BHSD, v_BHSD, attn_mask=mask, is_causal=causal
    )


def _fits(q, k, v, mask):
    for name, x in (("q", q), ("k", k), ("v", v)):
        given.tensor(name, x)
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (q, k, v))
        raise ValueError(f"q (T, D), k (S, D) and v (S, any) do not fit: {shapes}")
    try:
        rows = torch.broadcast_shapes(*(x.shape[:-2] for x in (q, k, v)))
    except RuntimeError:
        heads = ", ".join(str(tuple(x.shape[:-2])) for x in (q, k, v))
        raise ValueError(
            f"q, k and v have the same rows and heads, not {heads}"
        ) from None
    if mask is not None and getattr(mask, "dtype", None) != torch.bool:
        kind = getattr(mask, "dtype", given.kind(mask))
        raise TypeError(f"mask is boolean, True where one may look, not {kind}")
    if mask is not None:
        table = (*rows, q.shape[-2], k.shape[-2])
        if mask.ndim > len(table) or any(
            m not in (1, n) for m, n in zip(mask.shape[::-1], table[::-1])
        ):
            raise ValueError(
                f"a mask for {table} (B, H, T, S) does not have the shape "
                f"{tuple(mask.shape)}"
            )


# ---- who may look where ----


def causal_mask(T, S, device=None):
    "Booleans (T, S): asker i, who is source S - T + i, sees itself and what was before."
    T, S = given.whole("T", T), given.whole("S", S, least=T)
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)


def window_mask(T, S, width, device=None):
    "Booleans (T, S): of what causal_mask shows, the last `width` sources."
    width = given.whole("width", width)
    seen_TS = causal_mask(T, S, device)
    return seen_TS & ~seen_TS.tril(S - T - width)


def seen_from(positions, key_positions, window=None):
    """Booleans (..., T, S) for tokens that stand anywhere: sources not after the asker.

    positions (T,) or (B, T), key_positions (S,) or (B, S). Rows give (B, 1, T, S). window:
    at most so many, the asker's own position among them.
    """
    gap = positions[..., :, None] - key_positions[..., None, :]
    seen = gap >= 0 if window is None else (gap >= 0) & (gap < window)
    return seen[:, None] if seen.ndim == 3 else seen


# ---- heads ----


def split_heads(x_BTE, H):
    "(B, T, E) -> (B, H, T, E / H): each head gets its own slice of the features."
    if x_BTE.shape[-1] % given.whole("H", H):
        raise ValueError(f"{x_BTE.shape[-1]} features do not part into {H} heads")
    return x_BTE.unflatten(-1, (H, -1)).transpose(1, 2)


def join_heads(x_BHTD):
    "(B, H, T, D) -> (B, T, H * D): what split_heads parted, side by side again."
    return x_BHTD.transpose(1, 2).flatten(2)


def repeat_heads(k_BGSD, H):
    """(B, G, S, D) -> (B, H, S, D): each read head H / G times, side by side.

    Asking heads 0 .. H/G - 1 then share read head 0 (Ainslie and others 2023).
    """
    G = given.tensors(k_BGSD=k_BGSD).shape[1]
    if given.whole("H", H) % G:
        raise ValueError(f"{G} heads that are read do not divide {H} heads that ask")
    return k_BGSD if G == H else k_BGSD.repeat_interleave(H // G, dim=1)


def grouped(q_BHTD, k_BGSD, v_BGSD, mask=None, causal=False, attend=fused):
    """Attention where H askers share G sources: (B, H, T, D).

    One asker per row (T = 1) needs no copy of the keys: a group's heads ask together.
    """
    (B, H, T, D), G = q_BHTD.shape, k_BGSD.shape[1]
    if G == H:
        return attend(q_BHTD, k_BGSD, v_BGSD, mask, causal)
    if T == 1 and H % G == 0 and (mask is None or mask.ndim < 3 or mask.shape[-3] == 1):
        q_BGRD = q_BHTD.view(B, G, H // G, D)
        return attend(q_BGRD, k_BGSD, v_BGSD, mask).reshape(B, H, T, -1)
    k_BHSD, v_BHSD = repeat_heads(k_BGSD, H), repeat_heads(v_BGSD, H)
    return attend(q_BHTD, k_BHSD, v_BHSD, mask, causal)


# ---- positions ----


def turns(positions, D, base=10_000.0):
    """cos and sin (..., T, D / 2) of the angles by which position p turns pair i.

    The angle is p / base**(2 i / D) (Su and others 2021). positions (T,), or (B, T),
    which gives (B, 1, T, D / 2). D is even.
    """
    if given.whole("D", D, 2) % 2:
        raise ValueError(f"rotary positions turn pairs: D is even, not {D}")
    given.tensor("positions", positions)
    given.number("base", base, above=0)
    pair = torch.arange(D // 2, device=positions.device, dtype=torch.float32)
    angles = positions[..., None].float() / base ** (2 * pair / D)
    angles = angles[:, None] if angles.ndim == 3 else angles
    return angles.cos(), angles.sin()


def turn(x_BHTD, cos, sin):
    "Turn the pairs (x[i], x[i + D/2]) by angles given as their cos and sin."
    a, b = x_BHTD.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1).to(x_BHTD.dtype)


def rotate(x_BHTD, positions, base=10_000.0):
    """x with its pairs turned by their positions (T,) or (B, T): the same shape.

    After it q . k depends on the two vectors and on the distance of their positions.
    """
    cos, sin = turns(positions, x_BHTD.shape[-1], base)
    if cos.shape[-2] != x_BHTD.shape[-2]:
        shapes = f"{tuple(x_BHTD.shape)} and {tuple(positions.shape)}"
        raise ValueError(f"a position for each of T vectors: {shapes} do not fit")
    return turn(x_BHTD, cos, sin)
