"""Our Triton kernels compile for an H100, without spills where the favourites are.

Skipped where Triton is not installed: the course does not need it.
"""

import os
import subprocess
import sys

import numpy
import pytest

pytest.importorskip("triton")

import triton

from utils.bench.kernels import attention, matmul, rows
from utils.bench.kernels import compiled as chapter_15
from utils.bench.kernels.compiled import compiled

OLD = (
    triton.__version__ < "3.7" and numpy.lib.NumpyVersion(numpy.__version__) >= "2.4.0"
)
SHARED = 227 * 1024  # bytes that a program can have
H = "*bf16"


def described(rows, cols):
    return f"tensordesc<bf16[{rows},{cols}]>"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def test_add():
    types = {"x_ptr": "*fp32", "y_ptr": "*fp32", "out_ptr": "*fp32", "n": "i32"}
    ptx = compiled(rows.add_kernel, types, rows.ADD[1]).asm["ptx"]
    assert "ld.global.v4" in ptx, "16 bytes at a time"


@pytest.mark.parametrize("way", matmul.CONFIGS)
def test_matmul(way):
    config = matmul.CONFIGS[way][0]
    BM, BN, BK = config["BM"], config["BN"], config["BK"]
    types = {"M": "i32", "N": "i32", "K": "i32", "PROGRAMS": "i32"}
    if way == "by_pointers":
        types |= {"a_ptr": H, "b_ptr": H, "c_ptr": H}
        config = {**config, "EVEN": True}
    else:
        wide = BN // 2 if config["HALVES"] else BN
        types |= {
            "a": described(BM, BK),
            "b": described(BK, BN),
            "c": described(BM, wide),
        }
    fn = getattr(matmul, way)
    made = compiled(fn, {n: t for n, t in types.items() if n in fn.arg_names}, config)
    assert made.metadata.shared <= SHARED
    assert "wgmma.mma_async" in made.asm["ptx"]
    assert ("cp.async.bulk.tensor" in made.asm["ptx"]) == (way != "by_pointers")


def test_attention_forward():
    config = attention.FORWARD[64][1]
    types = {
        "q_in": described(config["BM"], 64), "k_in": described(config["BN"], 64),
        "v_in": described(config["BN"], 64), "o_ptr": H, "lse_ptr": "*fp32",
        "T": "i32", "scale": "fp32",
    }  # fmt: skip
    config = {**config, "D": 64, "CAUSAL": True, "EVEN": True}
    made = compiled(attention.forward_kernel, types, config)
    assert made.metadata.shared <= SHARED and "wgmma" in made.asm["ptx"]


def test_attention_backward():
    types = dict.fromkeys(("q_in", "k_in", "v_in", "do_in", "dq_ptr"), H)
    types |= {"lse_ptr": "*fp32", "delta_ptr": "*fp32", "T": "i32", "scale": "fp32",
              "root": "fp32"}  # fmt: skip
    config = attention.BACKWARD[64][1][1]
    config = {**config, "D": 64, "CAUSAL": True, "EVEN": True}
    made = compiled(attention.queries_kernel, types, config)
    assert made.metadata.shared <= SHARED and "wgmma" in made.asm["ptx"]


@pytest.mark.parametrize("case", chapter_15.CASES[::4], ids=lambda case: case[0])
def test_chapter_15s_own(case):
    "utils/built/kernels.py, which the small interpreter runs, as Triton's compiler takes it."
    row = chapter_15.row(*case)
    assert row["shared_bytes"] <= SHARED and "Used" in row["ptxas"]
    if case[0].startswith(("matmul", "flash")):
        assert row["wgmma"] + row["mma_sync"] > 0, "on the tensor cores"


def test_configurations_fit_in_shared_memory():
    for way, configs in matmul.CONFIGS.items():
        for c in configs:
            stages = c["num_stages"] * 2 * c["BK"] * (c["BM"] + c["BN"])
            tile = 2 * c["BM"] * c["BN"] // (2 if c.get("HALVES") else 1)
            kept = tile if way == "staying" else 0
            assert stages + kept <= SHARED, (way, c)


INTERPRETED = """
import torch
from utils.bench.kernels import attention, matmul, rows

torch.manual_seed(0)
near = lambda got, want: assert_(torch.allclose(got, want, atol=1e-4))

def assert_(right):
    assert right

x, y = torch.randn(2, 1000)
out = torch.empty(1000)
rows.add(x, y, out, rows.ADD[1])
near(out, x + y)
x, out = torch.randn(5, 100), torch.empty(5, 100)
rows.softmax(x, out)
near(out, x.softmax(1))
a, b = torch.randn(200, 136), torch.randn(136, 264)
for way, configs in matmul.CONFIGS.items():
    for config in configs[1:3]:
        near(matmul.matmul(way, a, b, config=config, programs=3), a @ b)
for causal in (True, False):
    q, k, v, do = torch.randn(4, 1, 1, 200, 64)
    for x in (q, k, v):
        x.requires_grad_()
    want = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    grads = torch.autograd.grad(want, (q, k, v), do)
    with torch.no_grad():
        for config in attention.FORWARD[64][::3]:
            o, lse = attention.forward(q, k, v, causal, config)
            near(o, want)
        for got, grad in zip(attention.backward(q, k, v, o, lse, do, causal), grads):
            near(got, grad)
"""


@pytest.mark.skipif(
    OLD, reason="Triton's interpreter before 3.7 wants NumPy before 2.4"
)
def test_they_compute_what_they_should():
    "In Triton's interpreter: no GPU, one program after another, fp32."
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
