"""The kernels of chapter 15, in Triton's language: one text for this course and a GPU.

With `tl` of utils/built/tile.py they run here, counted and watched; compiled.py in
utils/bench/kernels hands the same functions to Triton. All matrices lie row by row.
q, k, v, o: (T, D) for each of many heads, one after another; lse, delta: (T,) for each.
"""

from utils.built.tile import jit, tl


@jit
def add_kernel(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
    "out = x + y, of n numbers; a program adds BLOCK of them."
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    x = tl.load(x_ptr + i, mask=inside)
    y = tl.load(y_ptr + i, mask=inside)
    tl.store(out_ptr + i, x + y, mask=inside)


@jit
def copy_rows(x_ptr, out_ptr, R, C, BLOCK: tl.constexpr):
    "A copy of x (R, C): a program copies one row."
    row, j = tl.program_id(0), tl.arange(0, BLOCK)
    at, inside = row * C + j, j < C
    tl.store(out_ptr + at, tl.load(x_ptr + at, mask=inside), mask=inside)


@jit
def copy_columns(x_ptr, out_ptr, R, C, BLOCK: tl.constexpr):
    "A copy of x (R, C): a program copies one column."
    column, i = tl.program_id(0), tl.arange(0, BLOCK)
    at, inside = i * C + column, i < R
    tl.store(out_ptr + at, tl.load(x_ptr + at, mask=inside), mask=inside)


@jit
def transpose_kernel(x_ptr, out_ptr, R, C, BLOCK: tl.constexpr):
    "out (C, R) = x (R, C) transposed: a program turns one tile (BLOCK, BLOCK)."
    r = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = (r[:, None] < R) & (c[None, :] < C)
    x = tl.load(x_ptr + r[:, None] * C + c[None, :], mask=inside)
    turned = (c[:, None] < C) & (r[None, :] < R)
    tl.store(out_ptr + c[:, None] * R + r[None, :], tl.trans(x), mask=turned)


@jit
def softmax_kernel(x_ptr, out_ptr, N, BLOCK: tl.constexpr):
    "Softmax of rows of N numbers, one row a program; BLOCK >= N."
    row, j = tl.program_id(0), tl.arange(0, BLOCK)
    inside = j < N
    x = tl.load(x_ptr + row * N + j, mask=inside, other=-float("inf"))
    e = tl.exp(x - tl.max(x, 0))
    tl.store(out_ptr + row * N + j, e / tl.sum(e, 0), mask=inside)


@jit
def total_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    "out[0] += the sum of n numbers; a program sums BLOCK of them."
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i, mask=i < n, other=0.0)
    tl.atomic_add(out_ptr, tl.sum(x, 0))


@jit
def matmul_kernel(
    a_ptr, b_ptr, c_ptr, M, N, K,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr = 1,
):  # fmt: skip
    "c (M, N) = a (M, K) b (K, N): a program makes one tile (BM, BN) of c."
    pid = tl.program_id(0)
    rows, cols = tl.cdiv(M, BM), tl.cdiv(N, BN)
    first = pid // (GROUP * cols) * GROUP
    high = min(rows - first, GROUP)
    within = pid % (GROUP * cols)
    row, col = first + within % high, within // high
    m, n = row * BM + tl.arange(0, BM), col * BN + tl.arange(0, BN)
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, K, BK):
        k = start + tl.arange(0, BK)
        a = tl.load(a_ptr + m[:, None] * K + k[None, :],
                    mask=(m[:, None] < M) & (k[None, :] < K), other=0.0)  # fmt: skip
        b = tl.load(b_ptr + k[:, None] * N + n[None, :],
                    mask=(k[:, None] < K) & (n[None, :] < N), other=0.0)  # fmt: skip
        acc = tl.dot(a, b, acc, input_precision="ieee")
    inside = (m[:, None] < M) & (n[None, :] < N)
    c = acc.to(c_ptr.dtype.element_ty)
    tl.store(c_ptr + m[:, None] * N + n[None, :], c, mask=inside)


@jit
def flash_forward(
    q_ptr, k_ptr, v_ptr, o_ptr, lse_ptr, T, scale,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    "o and lse of BM queries; program (i, head) walks over the keys, BN at a time."
    i, first = tl.program_id(0), tl.program_id(1) * T
    m, d = i * BM + tl.arange(0, BM), tl.arange(0, D)
    rows = (first + m)[:, None] * D + d[None, :]
    q = tl.load(q_ptr + rows, mask=m[:, None] < T, other=0.0)
    top = tl.full((BM,), -float("inf"), dtype=tl.float32)
    total = tl.zeros((BM,), dtype=tl.float32)
    acc = tl.zeros((BM, D), dtype=tl.float32)
    end = T
    if CAUSAL:
        end = min(T, (i + 1) * BM)
    for start in range(0, end, BN):
        n = start + tl.arange(0, BN)
        at = (first + n)[:, None] * D + d[None, :]
        k = tl.load(k_ptr + at, mask=n[:, None] < T, other=0.0)
        v = tl.load(v_ptr + at, mask=n[:, None] < T, other=0.0)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        seen = n[None, :] < T
        if CAUSAL:
            seen = seen & (n[None, :] <= m[:, None])
        s = tl.where(seen, s, -float("inf"))
        new = tl.maximum(top, tl.max(s, 1))
        p = tl.exp(s - new[:, None])
        shrink = tl.exp(top - new)
        total = total * shrink + tl.sum(p, 1)
        acc = acc * shrink[:, None]
        acc = tl.dot(p.to(v.dtype), v, acc, input_precision="ieee")
        top = new
    o = (acc / total[:, None]).to(o_ptr.dtype.element_ty)
    tl.store(o_ptr + rows, o, mask=m[:, None] < T)
    tl.store(lse_ptr + first + m, top + tl.log(total), mask=m < T)


@jit
def row_dots(o_ptr, do_ptr, delta_ptr, rows, D: tl.constexpr, BM: tl.constexpr):
    "delta = sum(o do) of each row."
    m, d = tl.program_id(0) * BM + tl.arange(0, BM), tl.arange(0, D)
    at, inside = m[:, None] * D + d[None, :], m < rows
    o = tl.load(o_ptr + at, mask=inside[:, None], other=0.0).to(tl.float32)
    do = tl.load(do_ptr + at, mask=inside[:, None], other=0.0).to(tl.float32)
    tl.store(delta_ptr + m, tl.sum(o * do, 1), mask=inside)


@jit
def flash_keys(
    q_ptr, k_ptr, v_ptr, do_ptr, lse_ptr, delta_ptr, dk_ptr, dv_ptr, T, scale,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    "dk and dv of BN keys; program (j, head) walks over the queries, BM at a time."
    j, first = tl.program_id(0), tl.program_id(1) * T
    n, d = j * BN + tl.arange(0, BN), tl.arange(0, D)
    keys = (first + n)[:, None] * D + d[None, :]
    k = tl.load(k_ptr + keys, mask=n[:, None] < T, other=0.0)
    v = tl.load(v_ptr + keys, mask=n[:, None] < T, other=0.0)
    dk = tl.zeros((BN, D), dtype=tl.float32)
    dv = tl.zeros((BN, D), dtype=tl.float32)
    begin = 0
    if CAUSAL:
        begin = j * BN // BM * BM
    for start in range(begin, T, BM):
        m = start + tl.arange(0, BM)
        at = (first + m)[:, None] * D + d[None, :]
        q = tl.load(q_ptr + at, mask=m[:, None] < T, other=0.0)
        do = tl.load(do_ptr + at, mask=m[:, None] < T, other=0.0)
        lse = tl.load(lse_ptr + first + m, mask=m < T, other=0.0)
        delta = tl.load(delta_ptr + first + m, mask=m < T, other=0.0)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        seen = (m[:, None] < T) & (n[None, :] < T)
        if CAUSAL:
            seen = seen & (n[None, :] <= m[:, None])
        p = tl.where(seen, tl.exp(s - lse[:, None]), 0.0)
        dv = tl.dot(tl.trans(p).to(do.dtype), do, dv, input_precision="ieee")
        dp = tl.dot(do, tl.trans(v), input_precision="ieee")
        ds = p * (dp - delta[:, None]) * scale
        dk = tl.dot(tl.trans(ds).to(q.dtype), q, dk, input_precision="ieee")
    tl.store(dk_ptr + keys, dk.to(dk_ptr.dtype.element_ty), mask=n[:, None] < T)
    tl.store(dv_ptr + keys, dv.to(dv_ptr.dtype.element_ty), mask=n[:, None] < T)


@jit
def flash_queries(
    q_ptr, k_ptr, v_ptr, do_ptr, lse_ptr, delta_ptr, dq_ptr, T, scale,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    "dq of BM queries; program (i, head) walks over the keys, BN at a time."
    i, first = tl.program_id(0), tl.program_id(1) * T
    m, d = i * BM + tl.arange(0, BM), tl.arange(0, D)
    rows = (first + m)[:, None] * D + d[None, :]
    q = tl.load(q_ptr + rows, mask=m[:, None] < T, other=0.0)
    do = tl.load(do_ptr + rows, mask=m[:, None] < T, other=0.0)
    lse = tl.load(lse_ptr + first + m, mask=m < T, other=0.0)
    delta = tl.load(delta_ptr + first + m, mask=m < T, other=0.0)
    dq = tl.zeros((BM, D), dtype=tl.float32)
    end = T
    if CAUSAL:
        end = min(T, (i + 1) * BM)
    for start in range(0, end, BN):
        n = start + tl.arange(0, BN)
        at = (first + n)[:, None] * D + d[None, :]
        k = tl.load(k_ptr + at, mask=n[:, None] < T, other=0.0)
        v = tl.load(v_ptr + at, mask=n[:, None] < T, other=0.0)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        seen = (m[:, None] < T) & (n[None, :] < T)
        if CAUSAL:
            seen = seen & (n[None, :] <= m[:, None])
        p = tl.where(seen, tl.exp(s - lse[:, None]), 0.0)
        dp = tl.dot(do, tl.trans(v), input_precision="ieee")
        ds = p * (dp - delta[:, None]) * scale
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")
    tl.store(dq_ptr + rows, dq.to(dq_ptr.dtype.element_ty), mask=m[:, None] < T)


@jit
def int4_matmul(
    x_ptr, w_ptr, s_ptr, y_ptr, M, N, K,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """y (M, N) = x (M, K) times the 4-bit weights (N, K), transposed.

    w (N, K / 2): bytes of chapter 24's pack_int4, the even weight in the lower half;
    s (K / GROUP, N): a scale for GROUP weights of a row; GROUP is a multiple of BK.
    """
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, K, BK):
        r = start // 2 + tl.arange(0, BK // 2)
        at = m[:, None] * K + 2 * r[None, :]
        even = tl.load(x_ptr + at, mask=m[:, None] < M, other=0.0)
        odd = tl.load(x_ptr + at + 1, mask=m[:, None] < M, other=0.0)
        w = tl.load(w_ptr + n[:, None] * (K // 2) + r[None, :],
                    mask=n[:, None] < N, other=0)  # fmt: skip
        s = tl.load(s_ptr + start // GROUP * N + n, mask=n < N, other=0.0)
        low = ((w & 15) ^ 8).to(tl.float32) - 8
        high = ((w >> 4) ^ 8).to(tl.float32) - 8
        part = tl.dot(even, tl.trans(low).to(even.dtype), input_precision="ieee")
        part = tl.dot(odd, tl.trans(high).to(odd.dtype), part, input_precision="ieee")
        acc += part * s[None, :].to(tl.float32)
    inside = (m[:, None] < M) & (n[None, :] < N)
    y = acc.to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + m[:, None] * N + n[None, :], y, mask=inside)
