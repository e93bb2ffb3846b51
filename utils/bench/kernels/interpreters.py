"""Chapter 15: our small Triton beside Triton's own interpreter, the same kernels.

Both run the functions of utils/built/kernels.py on the CPU; ours also counts bytes and
looks for races. Triton reads TRITON_INTERPRET when it is imported, so a race has a
process of its own. Where Triton is not installed there is nothing to compare with.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import torch

from utils.bench.ratio import Ratio, benchmark, in_turns
from utils.built import kernels
from utils.files import ROOT


def softmax():
    "64 rows of 1,000 numbers."
    x, out = torch.randn(64, 1000), torch.empty(64, 1000)
    return "softmax_kernel", (64,), (x, out, 1000), {"BLOCK": 1024}, out, x.softmax(1)


def matmul():
    "A product of matrices of 256, tiles of 64."
    a, b, c = torch.randn(256, 256), torch.randn(256, 256), torch.empty(256, 256)
    tiles = {"BM": 64, "BN": 64, "BK": 32}
    return "matmul_kernel", (16,), (a, b, c, 256, 256, 256), tiles, c, a @ b


def flash():
    "Attention forward: 4 heads, 200 tokens of 32 numbers."
    q, k, v = torch.randn(3, 1, 4, 200, 32)
    o, lse = torch.empty_like(q), torch.empty(4, 200)
    want = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    options = {"D": 32, "BM": 64, "BN": 64, "CAUSAL": True}
    return "flash_forward", (4, 4), (q, k, v, o, lse, 200, 32**-0.5), options, o, want


CASES = {case.__name__: case for case in (softmax, matmul, flash)}


def race(case, pairs=3):
    "Theirs over ours, CPU time in turns; both must be right first."
    from utils.bench.kernels.compiled import for_triton

    torch.set_num_threads(1)
    torch.manual_seed(0)
    name, grid, arguments, options, out, want = CASES[case]()
    calls = []
    for kernel in (getattr(kernels, name), for_triton(getattr(kernels, name))):
        call = lambda kernel=kernel: kernel[grid](*arguments, **options)  # noqa: E731
        out.fill_(torch.nan)
        call()
        torch.testing.assert_close(out, want, atol=1e-4, rtol=1e-4)
        calls.append(call)
    return in_turns(*calls, pairs=pairs, invert=True)


RACE = """
import json, sys
from utils.bench.kernels.interpreters import race
print(json.dumps(race(sys.argv[1])))
"""


def _apart(case):
    if find_spec("triton") is None:
        raise ImportError("Triton is not installed")
    done = subprocess.run(
        [sys.executable, "-c", RACE, case], cwd=ROOT,
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    what = CASES[case].__doc__.rstrip(".")
    return Ratio(json.loads(done.stdout), f"{what}: Triton's interpreter over ours")


@benchmark("kernels.softmax", ">= 10")
def _softmax():
    return _apart("softmax")


@benchmark("kernels.matmul", ">= 10")
def _matmul():
    return _apart("matmul")


@benchmark("kernels.flash", ">= 10")
def _flash():
    return _apart("flash")
