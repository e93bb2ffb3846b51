"""Chapter 15's kernels compiled by Triton for an H100: no GPU needed, only the package.

    python -m utils.bench.kernels.compiled [FILE]

writes utils/data/kernels-sm90.json: registers, spills, shared memory and
tensor-core instructions of each kernel, with what NVIDIA's assembler (ptxas, which comes
with Triton) said, word by word. The kernels are those of utils/built/kernels.py: the text
that the small interpreter runs, with Triton's own `tl` in place of ours.
"""

import contextlib
import datetime
import json
import re
import subprocess
import sys
import tempfile
import time
import types
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch

from utils.bench import recordings
from utils.built import kernels
from utils.files import ROOT, write_whole

FILE = ROOT / "utils" / "data" / "kernels-sm90.json"
TARGET = "sm_90a"
BF, FP = "*bf16", "*fp32"
ABC = {"a_ptr": BF, "b_ptr": BF, "c_ptr": BF, "M": "i32", "N": "i32", "K": "i32"}
QKV = {"q_ptr": BF, "k_ptr": BF, "v_ptr": BF, "T": "i32", "scale": "fp32"}
BACK = {**QKV, "do_ptr": BF, "lse_ptr": FP, "delta_ptr": FP}


def _tiles(BM, BN, BK, warps, stages=3):
    return {"BM": BM, "BN": BN, "BK": BK, "GROUP": 8, "num_warps": warps, "num_stages": stages}  # fmt: skip


def _heads(D, BM, BN, warps, stages=3):
    return {"D": D, "BM": BM, "BN": BN, "CAUSAL": True, "num_warps": warps, "num_stages": stages}  # fmt: skip


CASES = [  # kernel, types, constants and options, are pointers promised to be aligned?
    ("add_kernel", {"x_ptr": FP, "y_ptr": FP, "out_ptr": FP, "n": "i32"}, {"BLOCK": 1024}, True),
    ("add_kernel", {"x_ptr": FP, "y_ptr": FP, "out_ptr": FP, "n": "i32"}, {"BLOCK": 1024}, False),
    ("softmax_kernel", {"x_ptr": FP, "out_ptr": FP, "N": "i32"}, {"BLOCK": 1024}, True),
    ("transpose_kernel", {"x_ptr": FP, "out_ptr": FP, "R": "i32", "C": "i32"}, {"BLOCK": 32}, True),
    ("matmul_kernel", ABC, _tiles(32, 32, 32, 4), True),
    ("matmul_kernel", ABC, _tiles(64, 64, 64, 4), True),
    ("matmul_kernel", ABC, _tiles(128, 128, 64, 4), True),
    ("matmul_kernel", ABC, _tiles(128, 128, 64, 8), True),
    ("matmul_kernel", ABC, _tiles(128, 256, 64, 8), True),
    ("matmul_kernel", ABC, _tiles(128, 256, 64, 4), True),
    ("matmul_kernel", ABC, _tiles(128, 128, 64, 4), False),
    ("flash_forward", {**QKV, "o_ptr": BF, "lse_ptr": FP}, _heads(64, 128, 64, 8), True),
    ("flash_forward", {**QKV, "o_ptr": BF, "lse_ptr": FP}, _heads(128, 128, 64, 8), True),
    ("flash_keys", {**BACK, "dk_ptr": BF, "dv_ptr": BF}, _heads(64, 64, 64, 4), True),
    ("flash_queries", {**BACK, "dq_ptr": BF}, _heads(64, 64, 64, 4), True),
    ("int4_matmul",
     {"x_ptr": BF, "w_ptr": "*u8", "s_ptr": FP, "y_ptr": BF, "M": "i32", "N": "i32", "K": "i32"},
     {"BM": 16, "BN": 64, "BK": 64, "GROUP": 64, "num_warps": 4, "num_stages": 3}, True),
]  # fmt: skip


def for_triton(kernel):
    "The same function as a kernel of Triton's own."
    import triton
    import triton.language

    fn = kernel.fn
    scope = {**fn.__globals__, "tl": triton.language}
    made = types.FunctionType(fn.__code__, scope, fn.__name__, fn.__defaults__)
    made.__annotations__, made.__module__ = fn.__annotations__, fn.__module__
    made.__doc__, made.__qualname__ = fn.__doc__, fn.__qualname__
    return triton.jit(made)


def compiled(fn, kinds, config, aligned=True):
    "Triton's kernel for an H100. kinds: {argument: type}; the others are constants."
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    config, names = dict(config), fn.arg_names
    options = {k: config.pop(k) for k in ("num_warps", "num_stages") if k in config}
    whole = [i for i, n in enumerate(names) if kinds.get(n, "fp")[0] in "*i"]
    source = ASTSource(
        fn=fn, signature={n: kinds.get(n, "constexpr") for n in names},
        constexprs={(names.index(n),): value for n, value in config.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i in whole if aligned},
    )  # fmt: skip
    with warnings.catch_warnings():  # Triton 3.7 builds syntax trees the old way
        warnings.simplefilter("ignore", DeprecationWarning)
        return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


def assembler():
    "NVIDIA's ptxas, where Triton keeps it."
    import triton

    folder = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    return next(
        p for p in (folder / "ptxas", *sorted(folder.glob("ptxas*"))) if p.exists()
    )


def assembled(ptx):
    "What the assembler says of a program."
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.ptx")
        file.write_text(ptx, encoding="utf-8")
        command = [
            assembler(),
            "-v",
            f"--gpu-name={TARGET}",
            file,
            "-o",
            Path(folder, "out"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stderr.replace(folder, "")


def row(kernel, kinds, config, aligned=True):
    "One line of the table, and the assembler's words; kernel: a kernel, or its name."
    began = time.perf_counter()
    if isinstance(kernel, str):
        kernel = getattr(kernels, kernel)
    made = compiled(for_triton(kernel), kinds, config, aligned)
    ptx = made.asm["ptx"]
    said = assembled(ptx)
    find = lambda pattern: int(re.search(pattern, said)[1])  # noqa: E731
    return {
        "kernel": kernel.__name__, "config": config, "types": kinds, "aligned": aligned,
        "registers": find(r"Used (\d+) registers"),
        "spilled_bytes": find(r"(\d+) bytes spill stores"),
        "shared_bytes": made.metadata.shared,
        "wgmma": ptx.count("wgmma.mma_async"), "mma_sync": ptx.count("mma.sync"),
        "loads": len(re.findall(r"ld\.global", ptx)),
        "wide_loads": len(re.findall(r"ld\.global\S*v4", ptx)),
        "seconds": round(time.perf_counter() - began, 1), "ptxas": said,
    }  # fmt: skip


def record(path=FILE, tell=lambda text: None):
    "Compile all, and write what came of it."
    import triton

    rows = []
    for case in CASES:
        rows.append(row(*case))
        tell({k: v for k, v in rows[-1].items() if k not in ("ptxas", "types")})
    version = subprocess.run([assembler(), "--version"], capture_output=True, text=True)
    data = {
        "about": "kernels compiled for an H100, which was not there",
        "target": TARGET, "triton": triton.__version__,
        "assembler": version.stdout.strip().splitlines()[-1],
        "date": f"{datetime.date.today():%Y-%m-%d}",
        "command": "python -m utils.bench.kernels.compiled", "rows": rows,
    }  # fmt: skip
    write_whole(path, recordings.text_of(data))
    return rows


def recorded(kernel=None, **config):
    "Rows of the table: of a kernel, with these values in its configuration."
    rows = json.loads(FILE.read_text(encoding="utf-8"))["rows"]
    return [
        r for r in rows
        if kernel in (None, r["kernel"])
        and all(r["config"].get(k, r.get(k)) == v for k, v in config.items())
    ]  # fmt: skip


# ---- a reader's own matmul_kernel ----


def for_an_h100(kernel, config):
    "What this machine's Triton makes of it, in a sentence."
    if find_spec("triton") is None:
        return "Triton is not installed here: the table above was recorded."
    try:
        made = row(kernel, ABC, config)
    except Exception as error:  # another version, another system: the chapter goes on
        return f"This Triton does not compile it: {type(error).__name__}: {error}"[:300]
    return "Yours, compiled here: {registers} registers, {spilled_bytes} bytes spilled.".format(
        **made
    )


def on_gpu(kernel, n=512):
    "Whether it is right on this machine's GPU, in a sentence."
    if find_spec("triton") is None or not torch.cuda.is_available():
        return "No CUDA device with Triton here: what follows was recorded."
    a, b = (torch.randn(n, n, device="cuda").half() for _ in "ab")
    c = torch.full((n, n), torch.nan, device="cuda")
    tiles = {"BM": 64, "BN": 64, "BK": 32, "num_warps": 4}
    try:
        for_triton(kernel)[((n // 64) ** 2,)](a, b, c, n, n, n, **tiles)
    except Exception as error:
        return f"It does not run on this GPU: {type(error).__name__}: {error}"[:300]
    gap = (c - a.float() @ b.float()).abs().max().item()
    return f"Your matmul_kernel on the GPU: the largest difference is {gap:.1e}."


if __name__ == "__main__":
    with contextlib.suppress(IndexError):
        FILE = Path(sys.argv[1])
    record(FILE, print)
