"""Triton kernels that move bytes: an addition, and a softmax that reads each row once.

Work: the addition moves 3 numbers an element; the softmax 2 (one read, one write), where
separate operators move 8.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def add_kernel(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
    "out = x + y, BLOCK numbers a program."
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    x = tl.load(x_ptr + i, mask=inside)
    y = tl.load(y_ptr + i, mask=inside)
    tl.store(out_ptr + i, x + y, mask=inside)


@triton.jit
def softmax_kernel(x_ptr, out_ptr, N, BLOCK: tl.constexpr):
    "Softmax of one row of N numbers a program; BLOCK >= N is a power of two."
    row = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, BLOCK)
    inside = j < N
    x = tl.load(x_ptr + row * N + j, mask=inside, other=-float("inf")).to(tl.float32)
    e = tl.exp(x - tl.max(x, 0))
    y = e / tl.sum(e, 0)
    tl.store(out_ptr + row * N + j, y.to(out_ptr.dtype.element_ty), mask=inside)


ADD = [  # numbers a program, warps
    {"BLOCK": block, "num_warps": warps}
    for block, warps in ((256, 4), (1024, 4), (2048, 8), (4096, 8))
]


def add(x, y, out, config):
    "Launch the addition of two tensors of equal size -> the compiled kernel."
    grid = (triton.cdiv(x.numel(), config["BLOCK"]),)
    return add_kernel[grid](x, y, out, x.numel(), **config)


def softmax(x_MN, out_MN, config=None):
    "Launch the softmax of contiguous rows -> the compiled kernel."
    M, N = x_MN.shape
    block = triton.next_power_of_2(N)
    config = config or {"num_warps": min(max(block // 512, 4), 16)}
    return softmax_kernel[(M,)](x_MN, out_MN, N, BLOCK=block, **config)


def softmax_by_parts(x_MN):
    "The same softmax, an operator at a time: what a fused kernel saves."
    e_MN = torch.exp(x_MN - x_MN.amax(1, keepdim=True))
    return e_MN / e_MN.sum(1, keepdim=True)
