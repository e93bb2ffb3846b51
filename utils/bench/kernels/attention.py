"""Attention in Triton, forward and backward, without the (T, T) matrix in memory.

q, k, v, o and their gradients: (B, H, T, D), contiguous; lse (B, H, T) in fp32, to base 2.
Work: forward 4 B H T^2 D FLOP, backward 2.5 times that (the two kernels here do 3.5 times:
both make the scores again); half of it when causal.

A program owns BM queries and walks along the keys, BN at a time, with the running maximum
and sum of chapter 14's one-pass softmax. Blocks that no mask touches come first, without
one. Causal programs with the longest walk start first.
"""

import math

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor


@triton.jit
def tile(source, base, row, T, D: tl.constexpr, ROWS: tl.constexpr,
         DESCRIBED: tl.constexpr, EVEN: tl.constexpr):  # fmt: skip
    "ROWS rows of a (T, D) matrix, from `row` on; rows from T on are 0 unless EVEN."
    if DESCRIBED:
        x = source.load([base + row, 0])
    else:
        r, d = row + tl.arange(0, ROWS), tl.arange(0, D)
        address = source + (base + r)[:, None] * D + d[None, :]
        if EVEN:
            x = tl.load(address)
        else:
            x = tl.load(address, mask=r[:, None] < T, other=0.0)
    return x


@triton.jit
def walk(
    acc, total, top, q, k_in, v_in, base, m, start, end, T, scale,
    D: tl.constexpr, BN: tl.constexpr, CAUSAL: tl.constexpr, MASK: tl.constexpr,
    DESCRIBED: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    "Keys from start to end: acc, total and top after them."
    for j in tl.range(start, end, BN):
        k = tile(k_in, base, j, T, D, BN, DESCRIBED, EVEN or not MASK)
        s = tl.dot(q, tl.trans(k), input_precision="ieee")
        if MASK:
            n = j + tl.arange(0, BN)
            seen = n[None, :] < T
            if CAUSAL:
                seen = seen & (n[None, :] <= m[:, None])
            s = tl.where(seen, s, -float("inf"))
        new = tl.maximum(top, tl.max(s, 1) * scale)
        p = tl.exp2(s * scale - new[:, None])
        shrink = tl.exp2(top - new)
        total = total * shrink + tl.sum(p, 1)
        acc = acc * shrink[:, None]
        v = tile(v_in, base, j, T, D, BN, DESCRIBED, EVEN or not MASK)
        acc = tl.dot(p.to(v.dtype), v, acc, input_precision="ieee")
        top = new
    return acc, total, top


@triton.jit
def forward_kernel(
    q_in, k_in, v_in, o_ptr, lse_ptr, T, scale,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CAUSAL: tl.constexpr, DESCRIBED: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    "scale: log2(e) / sqrt(D). EVEN: T is a multiple of BM and of BN."
    i = tl.program_id(0)
    if CAUSAL:
        i = tl.num_programs(0) - 1 - i
    base = tl.program_id(1) * T
    m, d = i * BM + tl.arange(0, BM), tl.arange(0, D)
    q = tile(q_in, base, i * BM, T, D, BM, DESCRIBED, EVEN)
    top = tl.full((BM,), -float("inf"), dtype=tl.float32)
    total = tl.zeros((BM,), dtype=tl.float32)
    acc = tl.zeros((BM, D), dtype=tl.float32)
    if CAUSAL:
        free, end = i * BM // BN * BN, min(T, (i + 1) * BM)
    else:
        free, end = T // BN * BN, T
    acc, total, top = walk(acc, total, top, q, k_in, v_in, base, m, 0, free, T, scale,
                           D, BN, CAUSAL, False, DESCRIBED, EVEN)  # fmt: skip
    if CAUSAL or not EVEN:
        acc, total, top = walk(acc, total, top, q, k_in, v_in, base, m, free, end, T,
                               scale, D, BN, CAUSAL, True, DESCRIBED, EVEN)  # fmt: skip
    o = (acc / total[:, None]).to(o_ptr.dtype.element_ty)
    tl.store(o_ptr + (base + m)[:, None] * D + d[None, :], o, mask=m[:, None] < T)
    tl.store(lse_ptr + base + m, top + tl.log2(total), mask=m < T)


@triton.jit
def row_dots_kernel(o_ptr, do_ptr, delta_ptr, rows, D: tl.constexpr, BM: tl.constexpr):
    "delta = sum(o do) of every row."
    m, d = tl.program_id(0) * BM + tl.arange(0, BM), tl.arange(0, D)
    at = m[:, None] * D + d[None, :]
    o = tl.load(o_ptr + at, mask=m[:, None] < rows, other=0.0).to(tl.float32)
    do = tl.load(do_ptr + at, mask=m[:, None] < rows, other=0.0).to(tl.float32)
    tl.store(delta_ptr + m, tl.sum(o * do, 1), mask=m < rows)


@triton.jit
def key_walk(
    dk, dv, k, v, q_in, do_in, lse_ptr, delta_ptr, base, n, start, end, T, scale,
    D: tl.constexpr, BM: tl.constexpr, CAUSAL: tl.constexpr, MASK: tl.constexpr,
    EVEN: tl.constexpr,
):  # fmt: skip
    "Queries from start to end: dk and dv of one block of keys after them."
    for i in tl.range(start, end, BM):
        m = i + tl.arange(0, BM)
        q = tile(q_in, base, i, T, D, BM, False, EVEN)
        lse = tl.load(lse_ptr + base + m, mask=m < T, other=0.0)
        p = tl.exp2(
            tl.dot(k, tl.trans(q), input_precision="ieee") * scale - lse[None, :]
        )
        if MASK:
            seen = (m[None, :] < T) & (n[:, None] < T)
            if CAUSAL:
                seen = seen & (n[:, None] <= m[None, :])
            p = tl.where(seen, p, 0.0)
        do = tile(do_in, base, i, T, D, BM, False, EVEN)
        dv = tl.dot(p.to(do.dtype), do, dv, input_precision="ieee")
        delta = tl.load(delta_ptr + base + m, mask=m < T, other=0.0)
        ds = p * (tl.dot(v, tl.trans(do), input_precision="ieee") - delta[None, :])
        dk = tl.dot(ds.to(q.dtype), q, dk, input_precision="ieee")
    return dk, dv


@triton.jit
def keys_kernel(
    q_in, k_in, v_in, do_in, lse_ptr, delta_ptr, dk_ptr, dv_ptr, T, scale, root,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CAUSAL: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    "dk and dv of BN keys: the program that owns them walks along the queries."
    j = tl.program_id(0) * BN
    base = tl.program_id(1) * T
    n, d = j + tl.arange(0, BN), tl.arange(0, D)
    k = tile(k_in, base, j, T, D, BN, False, EVEN)
    v = tile(v_in, base, j, T, D, BN, False, EVEN)
    dk, dv = tl.zeros((BN, D), dtype=tl.float32), tl.zeros((BN, D), dtype=tl.float32)
    free = 0
    if CAUSAL:
        start = j // BM * BM
        free = tl.cdiv(j + BN, BM) * BM
        dk, dv = key_walk(dk, dv, k, v, q_in, do_in, lse_ptr, delta_ptr, base, n, start,
                          min(free, T), T, scale, D, BM, CAUSAL, True, EVEN)  # fmt: skip
    dk, dv = key_walk(dk, dv, k, v, q_in, do_in, lse_ptr, delta_ptr, base, n, free, T, T,
                      scale, D, BM, False, not EVEN, EVEN)  # fmt: skip
    at, inside = (base + n)[:, None] * D + d[None, :], n[:, None] < T
    tl.store(dk_ptr + at, (dk * root).to(dk_ptr.dtype.element_ty), mask=inside)
    tl.store(dv_ptr + at, dv.to(dv_ptr.dtype.element_ty), mask=inside)


@triton.jit
def query_walk(
    dq, q, do, lse, delta, k_in, v_in, base, m, start, end, T, scale,
    D: tl.constexpr, BN: tl.constexpr, CAUSAL: tl.constexpr, MASK: tl.constexpr,
    EVEN: tl.constexpr,
):  # fmt: skip
    "Keys from start to end: dq of one block of queries after them."
    for j in tl.range(start, end, BN):
        k = tile(k_in, base, j, T, D, BN, False, EVEN)
        v = tile(v_in, base, j, T, D, BN, False, EVEN)
        p = tl.exp2(
            tl.dot(q, tl.trans(k), input_precision="ieee") * scale - lse[:, None]
        )
        if MASK:
            n = j + tl.arange(0, BN)
            seen = (m[:, None] < T) & (n[None, :] < T)
            if CAUSAL:
                seen = seen & (n[None, :] <= m[:, None])
            p = tl.where(seen, p, 0.0)
        dp = tl.dot(do, tl.trans(v), input_precision="ieee")
        ds = p * (dp - delta[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")
    return dq


@triton.jit
def queries_kernel(
    q_in, k_in, v_in, do_in, lse_ptr, delta_ptr, dq_ptr, T, scale, root,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CAUSAL: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    "dq of BM queries: the program that owns them walks along the keys."
    i = tl.program_id(0)
    if CAUSAL:
        i = tl.num_programs(0) - 1 - i
    base = tl.program_id(1) * T
    m, d = i * BM + tl.arange(0, BM), tl.arange(0, D)
    q = tile(q_in, base, i * BM, T, D, BM, False, EVEN)
    do = tile(do_in, base, i * BM, T, D, BM, False, EVEN)
    lse = tl.load(lse_ptr + base + m, mask=m < T, other=0.0)
    delta = tl.load(delta_ptr + base + m, mask=m < T, other=0.0)
    dq = tl.zeros((BM, D), dtype=tl.float32)
    if CAUSAL:
        free, end = i * BM // BN * BN, min(T, (i + 1) * BM)
    else:
        free, end = T // BN * BN, T
    dq = query_walk(dq, q, do, lse, delta, k_in, v_in, base, m, 0, free, T, scale, D, BN,
                    CAUSAL, not EVEN, EVEN)  # fmt: skip
    if CAUSAL or not EVEN:
        dq = query_walk(dq, q, do, lse, delta, k_in, v_in, base, m, free, end, T, scale,
                        D, BN, CAUSAL, True, EVEN)  # fmt: skip
    at = (base + m)[:, None] * D + d[None, :]
    tl.store(dq_ptr + at, (dq * root).to(dq_ptr.dtype.element_ty), mask=m[:, None] < T)


def _config(BM, BN, num_warps, num_stages, **more):
    return {
        "BM": BM,
        "BN": BN,
        "num_warps": num_warps,
        "num_stages": num_stages,
        **more,
    }


FORWARD = {  # by D; DESCRIBED: tiles come through the bulk copy engine (Hopper and later)
    64: [
        _config(128, 128, 8, 3, DESCRIBED=True),
        _config(128, 64, 4, 3, DESCRIBED=True),
        _config(128, 128, 4, 2, DESCRIBED=True),
        _config(128, 128, 8, 3, DESCRIBED=False),
        _config(128, 64, 4, 3, DESCRIBED=False),
        _config(128, 64, 8, 3, DESCRIBED=False),
    ],
    128: [
        _config(128, 128, 8, 2, DESCRIBED=True),
        _config(128, 64, 8, 3, DESCRIBED=True),
        _config(128, 64, 4, 2, DESCRIBED=True),
        _config(128, 128, 8, 2, DESCRIBED=False),
        _config(64, 64, 4, 2, DESCRIBED=True),
    ],
}
BACKWARD = {  # by D: (keys' kernel, queries' kernel)
    64: [
        (_config(64, 128, 8, 2), _config(128, 64, 8, 3)),
        (_config(64, 64, 4, 3), _config(64, 64, 4, 3)),
    ],
    128: [
        (_config(64, 128, 8, 2), _config(128, 64, 8, 2)),
        (_config(64, 64, 4, 2), _config(64, 64, 4, 2)),
    ],
}


def prepare_forward(q, k, v, o, lse, causal, config):
    "(kernel, grid, arguments, options) of one launch."
    B, H, T, D = q.shape
    BM, BN = config["BM"], config["BN"]
    even = T % BM == 0 and T % BN == 0
    if config["DESCRIBED"]:
        rows = lambda x, n: TensorDescriptor.from_tensor(x.view(-1, D), [n, D])  # noqa: E731
        q, k, v = rows(q, BM), rows(k, BN), rows(v, BN)
    scale = math.log2(math.e) / math.sqrt(D)
    return (
        forward_kernel, (triton.cdiv(T, BM), B * H), (q, k, v, o, lse, T, scale),
        {**config, "D": D, "CAUSAL": causal, "EVEN": even},
    )  # fmt: skip


def forward(q, k, v, causal=False, config=None):
    "-> o, lse."
    o = torch.empty_like(q)
    lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    config = config or FORWARD[q.shape[3]][0]
    kernel, grid, arguments, options = prepare_forward(q, k, v, o, lse, causal, config)
    kernel[grid](*arguments, **options)
    return o, lse


def prepare_backward(q, k, v, o, lse, do, out, causal, configs):
    "out: (delta, dq, dk, dv) to be written -> three launches, as of prepare_forward."
    B, H, T, D = q.shape
    delta, dq, dk, dv = out
    root = 1 / math.sqrt(D)
    scale = math.log2(math.e) * root
    common = {"D": D, "CAUSAL": causal}
    for_keys, for_queries = (
        {**c, **common, "EVEN": T % c["BM"] == 0 and T % c["BN"] == 0} for c in configs
    )
    rows = B * H * T
    given = (q, k, v, do, lse, delta)
    return [
        (row_dots_kernel, (triton.cdiv(rows, 32),), (o, do, delta, rows),
         {"D": D, "BM": 32}),
        (keys_kernel, (triton.cdiv(T, for_keys["BN"]), B * H),
         (*given, dk, dv, T, scale, root), for_keys),
        (queries_kernel, (triton.cdiv(T, for_queries["BM"]), B * H),
         (*given, dq, T, scale, root), for_queries),
    ]  # fmt: skip


def backward(q, k, v, o, lse, do, causal=False, configs=None):
    "-> dq, dk, dv."
    configs = configs or BACKWARD[q.shape[3]][0]
    out = (torch.empty_like(lse), *(torch.empty_like(x) for x in (q, k, v)))
    launches = prepare_backward(q, k, v, o, lse, do, out, causal, configs)
    for kernel, grid, arguments, options in launches:
        kernel[grid](*arguments, **options)
    return out[1:]
