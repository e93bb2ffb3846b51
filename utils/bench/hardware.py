"""Chapter 11's roofline: measured over predicted seconds of operators, on one thread.

The two limits are measured anew before every sample; wall-clock of short calls.
"""

from utils.bench.ratio import Ratio, benchmark


def _operators():
    "{name: (kind, shape, call)}, in fp32."
    import torch
    import torch.nn.functional as F

    x, z = torch.randn(32, 2**18), torch.empty(32, 2**18)
    w, rows, out = (
        torch.randn(16, 512, 2048),
        torch.randn(64, 2048),
        torch.empty(64, 512),
    )
    images, k = torch.randn(8, 1, 32, 56, 56), torch.randn(32, 32, 3, 3)
    return {
        "relu": ("relu", (2**18,), lambda i: torch.clamp_min(x[i], 0, out=z[i])),
        "sum": ("sum", (2**18,), lambda i: x[i].sum()),
        "64 rows": ("matmul", (64, 2048, 512),
                    lambda i: torch.mm(rows, w[i % 16].T, out=out)),
        "conv": ("conv", (1, 32, 56, 56, 32, 3),
                 lambda i: F.conv2d(images[i % 8], k, padding=1)),
    }  # fmt: skip


def _graded(name, pairs=5):
    import torch

    from utils.built import roofline

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        kind, shape, call = _operators()[name]
        samples, at = [], iter(range(10**9))
        for _ in range(pairs):
            P, beta = roofline.limits(0.15)
            took = 1 / roofline.rate(lambda: call(next(at) % 32), 1, budget=0.15)
            work = roofline.work_of(kind, shape)
            samples.append(took / roofline.predicted(*work, P, beta)[0])
    finally:
        torch.set_num_threads(before)
    return Ratio(samples, f"measured / predicted seconds of {name}", "wall-clock")


def _rows():
    for name in ("relu", "sum", "64 rows", "conv"):
        benchmark(f"roofline, {name}", bar="<= 2")(lambda name=name: _graded(name))


_rows()
