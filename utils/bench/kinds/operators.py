"""Streams and operators: what chapter 11 puts under its roofline.

`byte` counts each input read once and each output written once, `flop` the arithmetic (a
multiply-add is two, an exp or a tanh one): a model, which the measured time may betray.
"""

import shutil

import torch
import torch.nn.functional as F

from utils.bench.kinds.device import left_out, row

MIB = 2**20
STREAMS = {  # bytes of one array
    "cuda": [2**k for k in range(20, 31, 2)],
    "mps": [16 * MIB, 64 * MIB, 256 * MIB],
    "cpu": [64 * MIB],
}
PIECE = 4 * MIB  # on a CPU one sample is one piece: shorter than a scheduler's slice
SHAPES = {  # rows, columns of the pointwise and row-wise operators; side of the products
    "cuda": (16384, 4096, 8192),
    "mps": (4096, 4096, 2048),
    "cpu": (512, 512, 512),
}
CONV = {  # rows, channels, side of the picture
    "cuda": (64, 256, 56),
    "mps": (16, 64, 56),
    "cpu": (2, 32, 28),
}
SKINNY = [2**k for k in range(13)]  # rows of the left matrix


def stream(dev, quick=False):
    "Copy, add, fill and sum over arrays of growing size, in fp32: bytes moved."
    sizes = STREAMS[dev.kind]
    sizes = [size // 16 for size in sizes[-1:]] if quick else sizes
    for size in sizes:
        n = size // 4
        a, b, out = (torch.rand(n, device=dev.device) for _ in range(3))
        ways = {
            "copy": (2, lambda a, b, out: out.copy_(a)),
            "add": (3, lambda a, b, out: torch.add(a, b, out=out)),
            "fill": (1, lambda a, b, out: out.fill_(1.0)),
            "sum": (1, lambda a, b, out: torch.sum(a)),
        }
        for way, (arrays, run) in ways.items():
            if dev.kind == "cpu":
                yield _in_pieces(dev, way, arrays, run, a, b, out)
                continue
            yield row(dev, "stream", lambda run=run, x=(a, b, out): run(*x),
                      arrays * size, "byte", way=way, bytes_of_an_array=size)  # fmt: skip


def _in_pieces(dev, way, arrays, run, a, b, out):
    "Piece after piece through arrays that no cache holds; a sample is a piece."
    piece = min(PIECE // 4, len(a) // 4)
    pieces = [[x[i : i + piece] for x in (a, b, out)] for i in range(0, len(a), piece)]
    at = iter(range(10**9))
    go = lambda: run(*pieces[next(at) % len(pieces)])  # noqa: E731
    return row(dev, "stream", go, arrays * piece * 4, "byte", repeats=40, way=way,
               bytes_of_an_array=4 * len(a), bytes_of_a_piece=4 * piece)  # fmt: skip


def _one(dev, name, run, flop, byte, repeats, **labels):
    "One row, or the line that says why there is none."
    if dev.left() < 1:
        return left_out("operator", "no time was left", operator=name, **labels)
    try:
        return row(dev, "operator", run, flop or byte, "FLOP" if flop else "byte",
                   repeats=repeats, operator=name, flop=flop, byte=byte, **labels)  # fmt: skip
    except (RuntimeError, NotImplementedError) as error:
        return left_out("operator", error, operator=name, **labels)


def operator(dev, quick=False):
    "One operator after another: FLOP and bytes counted, seconds measured."
    repeats = 7 if dev.kind == "cuda" else 15
    rows, cols, side = (n // 4 for n in SHAPES[dev.kind]) if quick else SHAPES[dev.kind]
    half = torch.float32 if dev.kind == "cpu" else torch.bfloat16
    for name, dtype in {"fp32": torch.float32, "bf16": half}.items():
        if name == "bf16" and dev.kind == "cpu":
            continue
        x = torch.randn(rows, cols, device=dev.device).to(dtype)
        for op, (run, flop, byte) in _pointwise(x).items():
            yield _one(
                dev, op, run, flop, byte, repeats, format=name, shape=[rows, cols]
            )
        del x
        for op, (run, flop, byte, shape) in _products(dev, side, dtype, quick).items():
            kind = name  # cuDNN makes fp32 convolutions in tf32, unless told otherwise
            if dev.kind == "cuda" and name == "fp32" and op.startswith("conv"):
                kind = "tf32"
            yield _one(dev, op, run, flop, byte, repeats, format=kind, shape=shape)
    yield from _chain(dev, rows, cols, repeats, quick)


def _pointwise(x_MN):
    "{operator: (run, flop, byte)} on a matrix."
    n, size = x_MN.numel(), x_MN.element_size()
    y_MN, out_MN = torch.randn_like(x_MN), torch.empty_like(x_MN)
    weight_N, bias_N = torch.randn_like(x_MN[0]), torch.randn_like(x_MN[0])
    row_of = torch.randperm(len(x_MN), device=x_MN.device)
    two, N = 2 * n * size, x_MN.shape[1]
    return {
        "copy": (lambda: out_MN.copy_(x_MN), 0, two),
        "add": (lambda: torch.add(x_MN, y_MN, out=out_MN), n, 3 * n * size),
        "add in place": (lambda: out_MN.add_(x_MN), n, 3 * n * size),
        "relu": (lambda: torch.clamp(x_MN, min=0, out=out_MN), n, two),
        "exp": (lambda: torch.exp(x_MN, out=out_MN), n, two),
        "tanh": (lambda: torch.tanh(x_MN, out=out_MN), n, two),
        "gelu": (lambda: F.gelu(x_MN), 8 * n, two),
        "sum": (lambda: x_MN.sum(), n, n * size),
        "softmax": (lambda: x_MN.softmax(1), 5 * n, two),
        "layernorm": (lambda: F.layer_norm(x_MN, (N,), weight_N, bias_N), 8 * n, two),
        "transpose": (lambda: out_MN.view(N, -1).copy_(x_MN.t()), 0, two),
        "row gather": (
            lambda: torch.index_select(x_MN, 0, row_of, out=out_MN), 0, two
        ),
    }  # fmt: skip


def _products(dev, side, dtype, quick):
    "{operator: (run, flop, byte, shape)}: matrix times vector, skinny products, conv."
    w_KN = torch.randn(side, side, device=dev.device).to(dtype)
    size, made = w_KN.element_size(), {}
    v_N = torch.randn(side, device=dev.device).to(dtype)
    made["matvec"] = (
        lambda: torch.mv(w_KN, v_N), 2 * side**2, size * (side**2 + 2 * side), [side, side]
    )  # fmt: skip
    for B in SKINNY[:3] if quick else SKINNY:
        x_BK = torch.randn(B, side, device=dev.device).to(dtype)
        out_BN = torch.empty_like(x_BK)
        made[f"product of {B} rows"] = (
            lambda x=x_BK, out=out_BN: torch.mm(x, w_KN, out=out),
            2 * B * side**2, size * (side**2 + 2 * B * side), [B, side, side],
        )  # fmt: skip
    B, C, S = (n // 2 for n in CONV[dev.kind]) if quick else CONV[dev.kind]
    for name, layout in (
        ("conv", torch.contiguous_format), ("conv, channels last", torch.channels_last)
    ):  # fmt: skip
        x = torch.randn(B, C, S, S, device=dev.device).to(dtype, memory_format=layout)
        w = torch.randn(C, C, 3, 3, device=dev.device).to(dtype, memory_format=layout)
        made[name] = (
            lambda x=x, w=w: F.conv2d(x, w, padding=1), 2 * B * C * C * 9 * S * S,
            size * (2 * x.numel() + w.numel()), [B, C, S, S],
        )  # fmt: skip
    return made


def gelu_by_parts(x):
    "GELU (its tanh form) from eight operators, each of which reads and writes memory."
    cube = x * x * x
    inner = 0.7978845608 * (x + 0.044715 * cube)
    return 0.5 * x * (1 + torch.tanh(inner))


def _chain(dev, rows, cols, repeats, quick):
    "The same chain of operators: one by one, compiled into one kernel, and PyTorch's own."
    x = torch.randn(rows, cols, device=dev.device)
    n = x.numel()
    flop, byte = 9 * n, 8 * n
    labels = {"format": "fp32", "shape": [rows, cols]}
    if dev.kind == "cuda":
        low = x.to(torch.bfloat16)
    ways = {"gelu chain, eager": lambda: gelu_by_parts(x),
            "gelu chain, F.gelu": lambda: F.gelu(x, approximate="tanh")}  # fmt: skip
    for name, run in ways.items():
        yield _one(dev, name, run, flop, byte, repeats, **labels)
    why = "a quick run compiles a rung only" if quick else no_compiler(dev)
    if why:
        yield left_out("operator", why, operator="gelu chain, compiled")
        return
    compiled = torch.compile(gelu_by_parts, dynamic=False)
    yield _one(dev, "gelu chain, compiled", lambda: compiled(x), flop, byte, repeats,
               **labels)  # fmt: skip
    soft = torch.compile(lambda x: x.softmax(1), dynamic=False)
    yield _one(dev, "softmax, compiled", lambda: soft(low), 5 * n, 4 * n, repeats,
               **{**labels, "format": "bf16"})  # fmt: skip


def no_compiler(dev):
    "Why torch.compile is not measured here; empty where it is."
    if dev.kind != "cuda":
        return (
            "torch.compile is measured on CUDA only: a cold start takes a CPU minutes"
        )
    if not (shutil.which("gcc") or shutil.which("cc") or shutil.which("clang")):
        return "torch.compile wants a C compiler, and there is none"
    return ""
