"""Our Triton kernels (utils/bench/kernels) beside cuBLAS and SDPA, in turns.

Each kernel's result is compared with a reference in fp32 before it is timed, its output
filled with nan beforehand; a wrong one is told in `left_out` and not timed. Beside the
seconds stand what the compiler gave it: registers and bytes of local memory (spills) a
thread, bytes of shared memory a program, tensor-core instructions in its PTX.
"""

import os
from contextlib import suppress
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from utils.bench.kinds.attention import flop
from utils.bench.kinds.device import Precision, left_out
from utils.bench.kinds.race import best, build, race

LOW = torch.bfloat16
SIZES = {
    "add": 2**28, "softmax": (16384, (1024, 4096, 16384)),
    "matmul": (4096, (1024, 2048, 8192, 16384)), "groups": (8192, (1, 4, 8, 16, 64)),
    "attention": (16384, 2048, 4096, (1024, 2048, 8192, 16384)),
}  # fmt: skip
QUICK = {
    "add": 2**20, "softmax": (256, (1000,)), "matmul": (1024, ()), "groups": (512, (1,)),
    "attention": (1024, 256, 512, ()),
}  # fmt: skip


def kernel(dev, quick=False):
    "Rows of our kernels and of the library's beside them, part by part."
    why = _missing(dev)
    if why:
        yield left_out("kernel", why)
        return
    sizes = QUICK if quick else SIZES
    for part in (
        _add,
        _softmax,
        _matmul,
        _forward,
        _backward,
        _groups,
        _sweep,
        _ragged,
        _taught,
    ):
        name = part.__name__.strip("_")
        if dev.left() < 10:
            yield left_out("kernel", "no time was left", part=name)
            continue
        try:
            yield from part(dev, sizes, quick)
            yield None  # what comes next may hang
        except Exception as error:  # Triton's own errors have no common base
            yield left_out("kernel", error, part=name)


def _missing(dev):
    "Why no kernel of ours runs here; empty where they do."
    if find_spec("triton") is None:
        return "Triton is not installed"
    if dev.kind != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return "Triton's kernels want a CUDA device"
    return ""


# ---- parts ----


def _add(dev, sizes, quick):
    from utils.bench.kernels import rows

    n = sizes["add"]
    x, y = (torch.randn(n, device=dev.device) for _ in "xy")
    out = torch.empty_like(x)
    candidates = []
    for config in rows.ADD[1:2] if quick else rows.ADD:
        grid = (-(-n // config["BLOCK"]),)
        launch = (rows.add_kernel, grid, (x, y, out, n), config)
        candidates.append(("ours", config, [launch]))
    theirs = {"torch": lambda: torch.add(x, y, out=out)}
    made, bad = race(dev, candidates, theirs, [out], [x + y],
                      {"kernel": "add", "size": n}, 12 * n, "byte")  # fmt: skip
    yield from made + bad


def _softmax(dev, sizes, quick):
    from utils.bench.kernels import rows

    M, widths = sizes["softmax"]
    for N in widths:
        x = torch.randn(M, N, device=dev.device)
        out, block = torch.empty_like(x), 1 << (N - 1).bit_length()
        candidates = []
        for warps in (4,) if quick else (4, 8, 16):
            options = {"BLOCK": block, "num_warps": warps}
            launch = (rows.softmax_kernel, (M,), (x, out, N), options)
            candidates.append(("ours", options, [launch]))
        theirs = {
            "torch": lambda x=x: x.softmax(1),
            "operator by operator": lambda x=x: rows.softmax_by_parts(x),
        }
        made, bad = race(dev, candidates, theirs, [out], [x.softmax(1)],
                          {"kernel": "softmax", "shape": [M, N]}, 8 * M * N, "byte")  # fmt: skip
        yield from made + bad
        yield None


def _matrices(dev, M, N, K):
    "a, b, an output and what should come out, in fp32."
    a, b = (torch.randn(s, device=dev.device).to(LOW) for s in ((M, K), (K, N)))
    with Precision("fp32"):
        return (
            a,
            b,
            torch.empty(M, N, dtype=LOW, device=dev.device),
            a.float() @ b.float(),
        )


def _programs(dev):
    "Multiprocessors: how many programs a grid has that stays."
    return (dev.accelerator() or {}).get("multiprocessors", 4)


def _matmul(dev, sizes, quick):
    from utils.bench.kernels import matmul as ours

    n, others = sizes["matmul"]
    configs = [
        (way, config)
        for way, several in ours.CONFIGS.items()
        for config in (several[:1] if quick else several)
    ]
    winners = {}
    for size in (n, *others):
        if size != n and dev.left() < 5:
            yield left_out("kernel", "no time was left", kernel="matmul", size=size)
            continue
        a, b, out, want = _matrices(dev, size, size, size)
        these = configs if size == n else list(winners.items())
        launches = [ours.prepare(w, a, b, out, c, _programs(dev)) for w, c in these]
        build(launches)
        candidates = [(w, c, [launch]) for (w, c), launch in zip(these, launches)]
        theirs = {"cuBLAS": lambda a=a, b=b, out=out: torch.mm(a, b, out=out)}
        made, bad = race(dev, candidates, theirs, [out], [want],
                          {"kernel": "matmul", "size": size}, 2 * size**3, "FLOP")  # fmt: skip
        yield from made + bad
        yield None
        if size == n:
            rows = {way: best(made, [way]) for way in ours.CONFIGS}
            winners = {way: row["config"] for way, row in rows.items() if row}


def _groups(dev, sizes, quick):
    "Grouped against row by row: the same tiles in another order."
    from utils.bench.kernels import matmul as ours

    n, groups = sizes["groups"]
    a, b, out, want = _matrices(dev, n, n, n)
    tiles = {"BM": 128, "BN": 128, "BK": 64, "num_warps": 8, "num_stages": 4}
    configs = [{**tiles, "GROUP": group} for group in groups]
    launches = [ours.prepare("by_pointers", a, b, out, c) for c in configs]
    build(launches)
    candidates = [("by_pointers", c, [launch]) for c, launch in zip(configs, launches)]
    made, bad = race(dev, candidates, {}, [out], [want],
                      {"kernel": "groups", "size": n}, 2 * n**3, "FLOP")  # fmt: skip
    yield from made + bad


def _sweep(dev, sizes, quick):
    "Tiles and warps, from far too small to as large as fits."
    from utils.bench.kernels import matmul as ours

    n = sizes["matmul"][0]
    a, b, out, want = _matrices(dev, n, n, n)
    configs = ours.SWEEP[2:3] if quick else ours.SWEEP
    launches = [ours.prepare("by_pointers", a, b, out, c) for c in configs]
    build(launches)
    candidates = [("by_pointers", c, [launch]) for c, launch in zip(configs, launches)]
    made, bad = race(dev, candidates, {}, [out], [want],
                      {"kernel": "sweep", "size": n}, 2 * n**3, "FLOP")  # fmt: skip
    yield from made + bad


def _heads(dev, B, H, T, D, grad=False):
    "q, k, v and a gradient of the output."
    make = lambda: torch.randn(B, H, T, D, device=dev.device).to(LOW)  # noqa: E731
    return [make().requires_grad_(grad) for _ in "qkv"], make()


def _sdpa(q, k, v, causal, backend):
    "Attention by one of PyTorch's backends."
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


CASES = [(64, True), (128, True), (64, False), (128, False)]  # of D and causal
BACKENDS = {
    "SDPA flash": SDPBackend.FLASH_ATTENTION,
    "SDPA cuDNN": SDPBackend.CUDNN_ATTENTION,
}


def _forward(dev, sizes, quick):
    from utils.bench.kernels import attention as ours

    tokens, width, first, others = sizes["attention"]
    winners = {}
    for T in (first, *others):
        for D, causal in CASES[::3] if quick else CASES:
            if first != T and dev.left() < 5:
                yield left_out(
                    "kernel", "no time was left", kernel="attention", T=T, D=D
                )
                continue
            configs = ours.FORWARD[D][:: 3 if quick else 1]
            configs = configs if first == T else winners.get((D, causal), [])
            made, bad = _one_forward(dev, ours, tokens // T, width // D, T, D, causal, configs)  # fmt: skip
            yield from made + bad
            yield None
            if first == T:
                winner = best(made, ["ours"])
                winners[D, causal] = [winner["config"]] if winner else []


def _one_forward(dev, ours, B, H, T, D, causal, configs):
    "Rows of one shape; the check sees one row of the batch, by itself."
    labels = {"kernel": "attention", "way": "forward", "T": T, "D": D, "H": H, "B": B,
              "causal": causal}  # fmt: skip
    (q, k, v), _ = _heads(dev, B, H, T, D)
    o, lse = torch.empty_like(q), torch.empty(B, H, T, device=dev.device)
    with Precision("fp32"), torch.no_grad():
        want = [
            _sdpa(*(x[:1, h].float() for x in (q, k, v)), causal, SDPBackend.MATH)
            for h in range(H)
        ]
    launches = [ours.prepare_forward(q, k, v, o, lse, causal, c) for c in configs]
    build(launches)
    candidates = [("ours", c, [launch]) for c, launch in zip(configs, launches)]
    theirs = {
        name: lambda backend=backend: _sdpa(q, k, v, causal, backend)
        for name, backend in BACKENDS.items()
    }
    with torch.no_grad():
        return race(dev, candidates, theirs, [o[:1, h] for h in range(H)], want, labels,
                     flop(B, H, T, D, causal, False), "FLOP")  # fmt: skip


def _backward(dev, sizes, quick):
    from utils.bench.kernels import attention as ours

    tokens, width, first, others = sizes["attention"]
    for T in (first, *others[-1:]):
        for D, causal in CASES[::3] if quick else CASES:
            if dev.left() < 8:
                yield left_out("kernel", "no time was left", kernel="attention",
                               way="backward", T=T, D=D)  # fmt: skip
                continue
            configs = ours.BACKWARD[D][:1] if quick else ours.BACKWARD[D]
            yield from _one_backward(dev, ours, tokens // T, width // D, T, D, causal, configs)  # fmt: skip


def _one_backward(dev, ours, B, H, T, D, causal, configs):
    labels = {"kernel": "attention", "way": "backward", "T": T, "D": D, "H": H, "B": B,
              "causal": causal}  # fmt: skip
    (q, k, v), do = _heads(dev, B, H, T, D, grad=True)
    plain = [x.detach() for x in (q, k, v)]
    plainest = next(c for c in ours.FORWARD[D] if not c["DESCRIBED"])
    o, lse = ours.forward(*plain, causal, plainest)
    out = (torch.empty_like(lse), *(torch.empty_like(x) for x in plain))
    want = ([], [], [])
    for h in range(
        min(H, 4)
    ):  # a head at a time: the reference keeps its (T, T) tables
        with Precision("fp32"):
            one = [x[:1, h : h + 1].float().requires_grad_() for x in plain]
            made = torch.autograd.grad(
                _sdpa(*one, causal, SDPBackend.MATH), one, do[:1, h : h + 1].float()
            )
        for kept, grad in zip(want, made):
            kept.append(grad[0, 0])
    got = [grad[0, h] for grad in out[1:] for h in range(min(H, 4))]
    launches = [
        ours.prepare_backward(*plain, o, lse, do, out, causal, pair) for pair in configs
    ]
    build([launch for several in launches for launch in several])
    candidates = [("ours", list(p), several) for p, several in zip(configs, launches)]
    theirs = {}
    for name, backend in BACKENDS.items():
        with suppress(RuntimeError):
            y = _sdpa(q, k, v, causal, backend)
            theirs[name] = lambda y=y: torch.autograd.grad(y, (q, k, v), do, retain_graph=True)  # fmt: skip
    rows, bad = race(dev, candidates, theirs, got, [g for part in want for g in part],
                      labels, flop(B, H, T, D, causal, True), "FLOP")  # fmt: skip
    return rows + bad


def _ragged(dev, sizes, quick):
    "Sizes that do not divide: checked, and timed in passing."
    from utils.bench.kernels import attention
    from utils.bench.kernels import matmul as ours

    M, N, K = (200, 264, 136) if quick else (1000, 1048, 1016)
    a, b, out, want = _matrices(dev, M, N, K)
    candidates = []
    for way, configs in ours.CONFIGS.items():
        launch = ours.prepare(way, a, b, out, configs[0], _programs(dev))
        candidates.append((way, configs[0], [launch]))
    build([launches[0] for _, _, launches in candidates])
    made, bad = race(dev, candidates, {}, [out], [want],
                      {"kernel": "ragged", "shape": [M, N, K]}, 2 * M * N * K, "FLOP")  # fmt: skip
    yield from made + bad
    for causal in (True,) if quick else (True, False):
        T, configs = 200, attention.FORWARD[64][::3]
        rows, bad = _one_forward(dev, attention, 2, 2, T, 64, causal, configs)
        yield from rows + bad
        yield from _one_backward(dev, attention, 2, 2, T, 64, causal, attention.BACKWARD[64][:1])  # fmt: skip


def _taught(dev, sizes, quick):
    "Chapter 15's own matmul_kernel and flash_forward: masks everywhere, hardly tuned."
    from utils.bench.kernels.compiled import for_triton
    from utils.built import kernels as own

    n = sizes["matmul"][0]
    a, b, out, want = _matrices(dev, n, n, n)
    product, candidates = for_triton(own.matmul_kernel), []
    for BM, BN in ((128, 128),) if quick else ((128, 128), (128, 256)):
        config = {"BM": BM, "BN": BN, "BK": 64, "GROUP": 8, "num_warps": 8,
                  "num_stages": 3}  # fmt: skip
        grid = (-(-n // BM) * -(-n // BN),)
        launch = (product, grid, (a, b, out, n, n, n), config)
        candidates.append(("chapter 15", config, [launch]))
    theirs = {"cuBLAS": lambda: torch.mm(a, b, out=out)}
    made, bad = race(dev, candidates, theirs, [out], [want],
                      {"kernel": "taught", "way": "matmul", "size": n}, 2 * n**3, "FLOP")  # fmt: skip
    yield from made + bad
    yield None
    tokens, width, T, _ = sizes["attention"]
    B, H, D = tokens // T, width // 64, 64
    (q, k, v), _ = _heads(dev, B, H, T, D)
    o, lse = torch.empty_like(q), torch.empty(B, H, T, device=dev.device)
    with Precision("fp32"), torch.no_grad():
        want = [_sdpa(*(x[:1, h].float() for x in (q, k, v)), True, SDPBackend.MATH)
                for h in range(H)]  # fmt: skip
    config = {"D": D, "BM": 128, "BN": 64, "CAUSAL": True, "num_warps": 8, "num_stages": 3}  # fmt: skip
    launch = (for_triton(own.flash_forward), (-(-T // 128), B * H),
              (q, k, v, o, lse, T, D**-0.5), config)  # fmt: skip
    theirs = {"SDPA flash": lambda: _sdpa(q, k, v, True, SDPBackend.FLASH_ATTENTION)}
    labels = {"kernel": "taught", "way": "attention", "T": T, "D": D, "H": H, "B": B,
              "causal": True}  # fmt: skip
    made, bad = race(dev, [("chapter 15", config, [launch])], theirs,
                      [o[:1, h] for h in range(H)], want, labels,
                      flop(B, H, T, D, True, False), "FLOP")  # fmt: skip
    yield from made + bad
