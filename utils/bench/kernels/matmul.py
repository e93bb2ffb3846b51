"""Three Triton kernels for C = A B: pointers, tensor descriptors, and a grid that stays.

A (M, K), B (K, N) and C (M, N) lie row by row; sums are kept in fp32. Work: 2 M N K FLOP.
A program makes one tile of C, (BM, BN), in steps of BK. GROUP rows of tiles share their
columns of B before the next columns come: GROUP=1 is row by row.

  by_pointers     addresses in registers, copied by cp.async; runs on any GPU
  by_descriptors  tiles fetched by the bulk copy engine (TMA, Hopper and later)
  staying         the same, one program a multiprocessor, which takes tile after tile: the
                  next tile's loads overlap the last tile's store
"""

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor


@triton.jit
def tile_of(pid, M, N, BM: tl.constexpr, BN: tl.constexpr, GROUP: tl.constexpr):
    "Number of a tile -> its row and its column of tiles, GROUP rows at a time."
    rows, cols = tl.cdiv(M, BM), tl.cdiv(N, BN)
    per = GROUP * cols
    group = pid // per
    size = min(rows - group * GROUP, GROUP)
    return group * GROUP + (pid % per) % size, (pid % per) // size


@triton.jit
def by_pointers(
    a_ptr, b_ptr, c_ptr, M, N, K,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    GROUP: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    "EVEN: K is a multiple of BK, so that no load needs a mask."
    row, col = tile_of(tl.program_id(0), M, N, BM, BN, GROUP)
    m, n = row * BM + tl.arange(0, BM), col * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    a_ptr += (m % M)[:, None] * K + k[None, :]  # rows past the edge: read, never stored
    b_ptr += k[:, None] * N + (n % N)[None, :]
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, K, BK):
        if EVEN:
            a, b = tl.load(a_ptr), tl.load(b_ptr)
        else:
            a = tl.load(a_ptr, mask=k[None, :] < K - start, other=0.0)
            b = tl.load(b_ptr, mask=k[:, None] < K - start, other=0.0)
        acc = tl.dot(a, b, acc, input_precision="ieee")
        a_ptr += BK
        b_ptr += BK * N
    inside = (m[:, None] < M) & (n[None, :] < N)
    c = acc.to(c_ptr.dtype.element_ty)
    tl.store(c_ptr + m[:, None] * N + n[None, :], c, mask=inside)


@triton.jit
def by_descriptors(
    a, b, c, M, N, K,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    GROUP: tl.constexpr, HALVES: tl.constexpr,
):  # fmt: skip
    "a, b, c: tensor descriptors; outside the matrix they read 0 and store nothing."
    row, col = tile_of(tl.program_id(0), M, N, BM, BN, GROUP)
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, K, BK):
        left, right = a.load([row * BM, start]), b.load([start, col * BN])
        acc = tl.dot(left, right, acc, input_precision="ieee")
    store_tile(c, acc, row * BM, col * BN, BM, BN, HALVES)


@triton.jit
def store_tile(c, acc, m, n, BM: tl.constexpr, BN: tl.constexpr, HALVES: tl.constexpr):
    "One tile into C; HALVES: in two parts, which takes half the shared memory."
    if HALVES:
        parts = tl.permute(tl.reshape(acc, (BM, 2, BN // 2)), (0, 2, 1))
        first, second = tl.split(parts)
        c.store([m, n], first.to(c.dtype))
        c.store([m, n + BN // 2], second.to(c.dtype))
    else:
        c.store([m, n], acc.to(c.dtype))


@triton.jit
def staying(
    a, b, c, M, N, K, PROGRAMS,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    GROUP: tl.constexpr, HALVES: tl.constexpr,
):  # fmt: skip
    "PROGRAMS programs share all tiles. Its own count of tiles frees the store."
    first = tl.program_id(0)
    tiles = tl.cdiv(M, BM) * tl.cdiv(N, BN)
    done = first - PROGRAMS
    for tile in tl.range(first, tiles, PROGRAMS, flatten=True):
        row, col = tile_of(tile, M, N, BM, BN, GROUP)
        acc = tl.zeros((BM, BN), dtype=tl.float32)
        for start in range(0, K, BK):
            left, right = a.load([row * BM, start]), b.load([start, col * BN])
            acc = tl.dot(left, right, acc, input_precision="ieee")
        done += PROGRAMS
        row, col = tile_of(done, M, N, BM, BN, GROUP)
        store_tile(c, acc, row * BM, col * BN, BM, BN, HALVES)


def _config(BM, BN, BK, num_warps, num_stages, GROUP=8, **more):
    return {"BM": BM, "BN": BN, "BK": BK, "GROUP": GROUP, **more,
            "num_warps": num_warps, "num_stages": num_stages}  # fmt: skip


# What fits an H100's 227 KiB of shared memory a program, (BM BK + BK BN) 2 bytes a stage
# and, with descriptors, the tile on its way out; the first of each list is the favourite.
CONFIGS = {
    "by_pointers": [
        _config(128, 256, 64, 8, 4),
        _config(128, 256, 64, 8, 3),
        _config(256, 128, 64, 8, 3),
        _config(128, 128, 64, 8, 4),
        _config(128, 128, 64, 4, 4),
    ],
    "by_descriptors": [
        _config(128, 256, 64, 8, 4, HALVES=False),
        _config(128, 256, 64, 8, 3, HALVES=False),
        _config(256, 128, 64, 8, 3, HALVES=False),
        _config(128, 128, 64, 4, 4, HALVES=False),
    ],
    "staying": [
        _config(128, 256, 64, 8, 3, HALVES=False),
        _config(128, 256, 64, 8, 3, HALVES=True),
        _config(128, 256, 64, 8, 4, HALVES=True),
        _config(256, 128, 64, 8, 3, HALVES=True),
        _config(128, 128, 128, 8, 3, HALVES=False),
        _config(128, 128, 64, 4, 4, HALVES=False),
    ],
}
SWEEP = [  # tiles and warps of by_pointers, from far too small to as large as fits
    _config(BM, BN, 32 if BM * BN < 4096 else 64, warps, 3)
    for BM, BN in ((32, 32), (64, 64), (64, 128), (128, 128), (128, 256), (256, 128))
    for warps in (4, 8)
]


def prepare(way, a_MK, b_KN, c_MN, config, programs=132):
    "(kernel, grid, arguments, options) of one launch; programs: of a grid that stays."
    M, K = a_MK.shape
    N = b_KN.shape[1]
    BM, BN, BK = config["BM"], config["BN"], config["BK"]
    tiles = triton.cdiv(M, BM) * triton.cdiv(N, BN)
    if way == "by_pointers":
        return by_pointers, (tiles,), (a_MK, b_KN, c_MN, M, N, K), {
            **config, "EVEN": K % BK == 0}  # fmt: skip
    wide = BN // 2 if config["HALVES"] else BN
    described = (
        TensorDescriptor.from_tensor(a_MK, [BM, BK]),
        TensorDescriptor.from_tensor(b_KN, [BK, BN]),
        TensorDescriptor.from_tensor(c_MN, [BM, wide]),
    )
    if way == "by_descriptors":
        return by_descriptors, (tiles,), (*described, M, N, K), config
    programs = min(programs, tiles)
    return staying, (programs,), (*described, M, N, K, programs), config


def matmul(way, a_MK, b_KN, c_MN=None, config=None, programs=132):
    "A B by one of the three ways, in the type of A."
    if c_MN is None:
        c_MN = torch.empty(
            len(a_MK), b_KN.shape[1], dtype=a_MK.dtype, device=a_MK.device
        )
    config = config or CONFIGS[way][0]
    kernel, grid, arguments, options = prepare(way, a_MK, b_KN, c_MN, config, programs)
    kernel[grid](*arguments, **options)
    return c_MN
