"""Chapter 06: a convolution as patches and a product beside torch's own kernels."""

import torch
import torch.nn.functional as F

from utils.bench.ratio import Ratio, benchmark, in_turns
from utils.built import conv

SHAPES = (64, 16, 14, 14), (32, 16, 3, 3)  # pictures, kernels


def _data():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x_NCHW, w_OCKK = (torch.randn(shape) for shape in SHAPES)
    return x_NCHW, w_OCKK / w_OCKK[0].numel() ** 0.5, torch.randn(SHAPES[1][0])


def _ratio(ours, theirs, what, calls=10):
    for mine, other in zip(ours(), theirs()):
        gap = (mine - other).abs().max().item() / other.abs().max().item()
        assert gap < 1e-5, f"both must give the same numbers, not {gap:.1g} apart"

    def repeat(run):
        return lambda: [run() for _ in range(calls)]

    what = f"64 pictures (16, 14, 14), 32 kernels of 3 x 3: {what}"
    return Ratio(in_turns(repeat(ours), repeat(theirs)), what)


@benchmark("convolution as a product", bar="<= 20")
def forward():
    x, w, b = _data()
    return _ratio(
        lambda: [conv.conv2d(x, w, b)], lambda: [F.conv2d(x, w, b)],
        "patches and a product / F.conv2d",
    )  # fmt: skip


@benchmark("convolution as a product, F.unfold's patches")
def unfolded():
    x, w, b = _data()
    return _ratio(
        lambda: [conv.conv2d(x, w, b)],
        lambda: [(w.flatten(1) @ F.unfold(x, 3)).unflatten(2, (12, 12)) + b[:, None, None]],
        "our patches and a product / F.unfold and a product",
    )  # fmt: skip


@benchmark("convolution backwards as a product")
def backward():
    x, w, b = _data()
    g = torch.randn_like(F.conv2d(x, w, b))

    def theirs():
        mask = [True, True, True]
        return torch.ops.aten.convolution_backward(
            g, x, w, [len(b)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, mask
        )

    return _ratio(
        lambda: conv.conv2d_backward(g, x, w),
        theirs,
        "conv2d_backward / torch's own",
        5,
    )


@benchmark("convolution by loops, one picture and kernel")
def loops():
    x, w, b = _data()

    def ours():
        return [sum(conv.cross_correlate(*pair) for pair in zip(x[0], w[0])) + b[0]]

    def theirs():  # per picture and kernel, as ours
        return [F.conv2d(x, w, b)[0, 0]]

    result = _ratio(ours, theirs, "loops / F.conv2d, each per picture and kernel", 1)
    result.samples = [sample * len(x) * len(w) for sample in result.samples]
    return result
