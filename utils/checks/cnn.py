"""Chapter 06: convolution in both directions, what it sees and costs, and honest data."""
# ruff: noqa: E741, SIM300  (O is the number of outputs, as in w_OCKK)

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from utils.exercises import Chapter, Miss, same

chapter = Chapter("06_cnn")
# a check leaves the reader's dice alone
keeps_random = torch.random.fork_rng(devices=[])


def _draw(*shape, seed=0):
    "Random numbers in float64, where a right answer cannot fail by rounding."
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@chapter.exercise(
    "Put the kernel's corner on pixel (i, j): which part of the picture lies under it?",
    "That part is x_HW[i : i + K, j : j + K]. Multiply it by the kernel, pixel by pixel, "
    "and sum. How many places are there in each direction?",
    "out = torch.zeros(H - K + 1, W - K + 1); for i ...: for j ...: out[i, j] = "
    "(x_HW[i : i + K, j : j + K] * w_KK).sum()",
)
def cross_correlate(answer):
    "One picture under one kernel."
    x = torch.arange(1.0, 13.0).view(3, 4)
    case = "the picture [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]"
    same(f"{case} under [[0, 0], [0, 1]]", answer(x, torch.tensor([[0.0, 0], [0, 1]])),
         [[6.0, 7.0, 8.0], [10.0, 11.0, 12.0]],
         "Output (i, j) is the sum of the pixels from (i, j) on, each times the weight "
         "that lies on it.")  # fmt: skip
    for H, W, K in [(5, 7, 3), (6, 3, 2), (4, 4, 4), (3, 5, 1)]:
        x, w = _draw(H, W, seed=H), _draw(K, K, seed=K)
        same(f"a picture of {H} x {W} under a kernel of {K} x {K}", answer(x, w),
             F.conv2d(x[None, None], w[None, None])[0, 0],
             "One output for each place where the whole kernel fits: "
             "(H - K + 1, W - K + 1) of them.", atol=1e-6)  # fmt: skip


@chapter.exercise(
    "A patch is a small view of the picture. How far does memory jump from one place of "
    "the kernel to the next, and how far inside a patch?",
    "as_strided with six axes: picture, row of the place, column of the place, channel, "
    "row in the patch, column in the patch. Two of them jump `stride` times as far.",
    "x = F.pad(x_NCHW, (padding,) * 4); n, c, r, k = x.stride(); view = x.as_strided("
    "(N, h, w, C, K, K), (n, r * stride, k * stride, c, r, k)); "
    "view.reshape(N, h * w, C * K * K)",
)
def patches(answer):
    "What a kernel sees at each of its places."
    x = torch.arange(18.0).view(1, 2, 3, 3)
    same("two channels of 3 x 3, the numbers 0 to 17, K = 2", answer(x, 2),
         F.unfold(x, 2).mT, "A row is a place; in it come the channels one after "
         "another, each with its K rows.")  # fmt: skip
    for N, C, H, W, K, stride, padding in [
        (2, 1, 4, 6, 3, 1, 0),
        (2, 3, 5, 7, 3, 2, 0),
        (1, 2, 6, 5, 2, 3, 0),
        (3, 2, 4, 5, 3, 1, 1),
        (2, 2, 7, 5, 3, 2, 2),
        (2, 3, 4, 3, 1, 1, 0),
    ]:
        x = _draw(N, C, H, W, seed=H)
        case = f"{N} pictures ({C}, {H}, {W}), K = {K}, stride {stride}"
        case += f", padding {padding}"
        same(case, answer(x, K, stride, padding),
             F.unfold(x, K, stride=stride, padding=padding).mT,
             "Zeros go round the picture first; places are `stride` pixels apart; "
             "the last may leave some pixels over.")  # fmt: skip
    x = _draw(2, 3, 6, 5, seed=9).transpose(2, 3)[:, 1:]
    same("a transposed view of pictures, K = 3", answer(x, 3), F.unfold(x, 3).mT,
         "The strides are the tensor's own, x.stride(), and it may begin inside its "
         "memory: x.storage_offset(). Padding by 0 copies nothing.")  # fmt: skip


@chapter.exercise(
    "Each patch meets each kernel: what do we call a table of all their products?",
    "patches (N, L, C*K*K) @ kernels as columns (C*K*K, O) gives (N, L, O). Then put the "
    "kernels before the places, and the places back into rows and columns.",
    "out = patches(x, K, stride, padding) @ w_OCKK.flatten(1).T + b_O; "
    "out.mT.reshape(N, O, h, w), where h = (H + 2 * padding - K) // stride + 1",
)
def conv2d(answer):
    "A convolutional layer as patches times kernels."
    for N, C, H, W, O, K, stride, padding in [
        (2, 3, 5, 7, 4, 3, 1, 0),
        (2, 1, 6, 6, 2, 3, 1, 1),
        (1, 2, 7, 5, 3, 3, 2, 1),
        (3, 4, 3, 5, 2, 1, 1, 0),
        (2, 2, 8, 6, 5, 2, 2, 0),
        (2, 3, 4, 9, 1, 3, 3, 1),
    ]:
        x, w, b = _draw(N, C, H, W), _draw(O, C, K, K, seed=1), _draw(O, seed=2)
        w = w / w[0].numel() ** 0.5
        case = (
            f"{N} pictures ({C}, {H}, {W}), {O} kernels of {K} x {K}, stride {stride}"
        )
        same(f"{case}, padding {padding}", answer(x, w, b, stride, padding),
             F.conv2d(x, w, b, stride, padding),
             "Every kernel at every place, plus that kernel's bias: (N, O, h, w).")  # fmt: skip


@chapter.exercise(
    "In the product patches @ kernels, you know both gradients from chapter 03. Only one "
    "question is new: how do gradients get from patches back to pixels?",
    "A pixel lies in several patches, so it collects from all of them: add, at the "
    "places where they were cut out.",
    "g_NOL = g_NOhw.flatten(2); dw = (g_NOL @ patches(x, K)).sum(0); d = "
    "(w.flatten(1).T @ g_NOL).view(N, C, K, K, h, w); for i, j: "
    "dx[:, :, i : i + h, j : j + w] += d[:, :, i, j]",
)
def conv2d_backward(answer):
    "The three gradients of a convolutional layer."
    for N, C, H, W, O, K in [
        (1, 1, 3, 4, 1, 2),
        (2, 3, 5, 7, 4, 3),
        (3, 2, 6, 4, 2, 3),
        (2, 4, 3, 3, 3, 1),
        (2, 1, 4, 4, 2, 4),
    ]:
        x, w, b = _draw(N, C, H, W), _draw(O, C, K, K, seed=1), _draw(O, seed=2)
        leaves = [t.clone().requires_grad_() for t in (x, w, b)]
        out = F.conv2d(*leaves)
        g = _draw(*out.shape, seed=3)
        out.backward(g)
        got = answer(g, x, w)
        case = f"{N} pictures ({C}, {H}, {W}), {O} kernels of {K} x {K}"
        if not isinstance(got, (tuple, list)) or len(got) != 3:
            raise Miss("Return three gradients: dx, dw, db.", case, got, "dx, dw, db")
        rules = (
            "A pixel lies under the kernel at several places: it adds up what comes back "
            "from each, times the weight that lay on it there.",
            "A weight is used at every place of every picture: it adds up g times the "
            "pixel it lay on.",
            "A bias is added at every place of every picture: it adds up g.",
        )
        for name, ours, leaf, rule in zip(("dx", "dw", "db"), got, leaves, rules):
            same(f"{case}: {name}", ours, leaf.grad, rule, atol=1e-5)


@chapter.exercise(
    "Walk from the input on. How many more pixels does a kernel of K see, if its inputs "
    "lie `jump` pixels apart?",
    "K values span K - 1 gaps, and each gap is `jump` pixels wide. Afterwards a stride "
    "makes the gaps wider.",
    "size = jump = 1; for K, stride in layers: size += (K - 1) * jump; jump *= stride",
)
def receptive_field(answer):
    "How much of the input one output sees."
    for layers in [
        [],
        [(3, 1)],
        [(5, 1)],
        [(3, 1), (3, 1)],
        [(3, 2)],
        [(2, 3), (4, 2)],
        [(3, 2), (3, 1)],
        [(3, 1), (2, 2), (3, 1)],
        [(3, 1), (2, 2), (3, 1), (2, 2), (3, 1)],
        [(7, 2), (3, 2), (1, 1), (3, 1)],
    ]:
        told = ", ".join(f"K {K} stride {stride}" for K, stride in layers) or "no layer"
        same(f"{told}: size and jump", answer(layers), _counted(layers),
             "Each layer adds K - 1 gaps, as wide as the strides before it have made "
             "them.")  # fmt: skip


def _counted(layers):
    "(size, jump) by gradient: where do all-ones kernels, alone in a row, look?"
    lengths = [3]  # of the output: three neighbours, so that their distance is seen
    for K, stride in reversed(layers):
        lengths.append((lengths[-1] - 1) * stride + K)
    x = torch.zeros(1, 1, lengths[-1], requires_grad=True)
    out = x
    for K, stride in layers:
        out = F.conv1d(out, torch.ones(1, 1, K), stride=stride)
    seen = [torch.autograd.grad(out[0, 0, i], x, retain_graph=True)[0][0, 0].nonzero()
            for i in (0, 1)]  # fmt: skip
    first, last = int(seen[0].min()), int(seen[0].max())  # a wide stride leaves holes
    return last - first + 1, int(seen[1].min()) - first


@chapter.exercise(
    "Keep C, H and W up to date from layer to layer; each kind of layer is two lines.",
    "A conv has O kernels of C*K*K weights and O biases, and each kernel works at all "
    "H*W places. A linear layer reads C*H*W numbers; a pool and a mean learn nothing.",
    "conv: parameters = O * C * K * K + O, FLOPs = 2 * O * C * K * K * H * W, C = O. "
    "linear: parameters = O * C * H * W + O, FLOPs = 2 * O * C * H * W, C, H, W = O, 1, 1. "
    "pool: H, W = H // K, W // K. mean: H, W = 1, 1.",
)
def cost(answer):
    "Parameters and FLOPs of each layer."
    for layers, C, H, W in [
        ([("conv", 4, 3)], 3, 5, 7),
        ([("conv", 2, 1), ("conv", 5, 5)], 1, 6, 4),
        ([("linear", 7)], 2, 3, 5),
        ([("conv", 4, 3), ("pool", 2), ("conv", 6, 3), ("pool", 2), ("linear", 10)],
         3, 9, 14),
        ([("conv", 3, 3), ("pool", 3), ("linear", 8), ("linear", 5)], 1, 8, 7),
        ([("conv", 6, 3), ("mean",), ("linear", 10)], 2, 5, 4),
    ]:  # fmt: skip
        told = ", ".join(" ".join(map(str, layer)) for layer in layers)
        want = _cost(layers, C, H, W)
        got = answer(layers, C, H, W)
        if not isinstance(got, (list, tuple)) or len(got) != len(layers):
            raise Miss("One pair (parameters, FLOPs) per layer, in a list.", told, got,
                       want)  # fmt: skip
        same(f"({C}, {H}, {W}) -> {told}: parameters",
             [p for p, _ in _pairs(got)], [p for p, _ in want],
             "A conv: kernels times their weights, and a bias per kernel. A linear layer: "
             "a weight per input and output, and a bias per output. No others.")  # fmt: skip
        same(f"({C}, {H}, {W}) -> {told}: FLOPs",
             [f for _, f in _pairs(got)], [f for _, f in want],
             "Two FLOPs per weight and place; a linear layer has one place. Biases, "
             "pools and means are not counted.")  # fmt: skip


def _pairs(found):
    for pair in found:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise Miss("Each layer is a pair (parameters, FLOPs).", "a layer", pair)
    return found


def _cost(layers, C, H, W):
    "The same from torch: real modules, their numel, and its own FLOP counter."
    x, found = torch.zeros(1, C, H, W), []
    for kind, *numbers in layers:
        if kind == "conv":
            O, K = numbers
            part = nn.Conv2d(x.shape[1], O, K, padding=K // 2)
        elif kind == "pool":
            part = nn.AvgPool2d(numbers[0])
        elif kind == "mean":
            part = nn.AdaptiveAvgPool2d(1)
        else:
            part, x = nn.Linear(x.numel(), numbers[0]), x.flatten(1)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            x = part(x)
        found.append(
            (sum(p.numel() for p in part.parameters()), counter.get_total_flops())
        )
    return found


@chapter.exercise(
    "While training, whose mean and variance are taken off: the batch's, or the running "
    "ones? And in evaluation?",
    "One mean per channel, over pictures, rows and columns. Normalise with the mean of "
    "the squared distances; the running variance gets that times n / (n - 1).",
    "mean = x.mean((0, 2, 3)); var = x.var((0, 2, 3), correction=0); n = x.numel() / C; "
    "running = (0.9 * old + 0.1 * mean, 0.9 * old + 0.1 * var * n / (n - 1)), with "
    "momentum for 0.1; y = gamma * (x - mean) / sqrt(var + eps) + beta",
)
def batch_norm(answer):
    "Batch normalisation, training and evaluating, and its memory."
    rules = {
        "y": "Each channel: (x - mean) / sqrt(variance + eps), times gamma, plus beta. The "
        "batch's mean and variance in training, the running ones in evaluation.",
        "running mean": "In training it moves a share `momentum` from where it was "
        "towards the batch's mean; in evaluation it stays.",
        "running variance": "In training it moves a share `momentum` towards the batch's "
        "variance with n - 1 below the line; in evaluation it stays.",
    }
    for (N, C, H, W), training, momentum, scale in [
        ((4, 2, 3, 5), True, 0.1, 1.0),
        ((4, 2, 3, 5), False, 0.1, 1.0),
        ((3, 4, 1, 2), True, 0.3, 1.0),
        ((5, 3, 2, 2), True, 0.1, 1e-3),
        ((5, 3, 2, 2), False, 0.1, 1e-3),
    ]:
        x = scale * (2 * _draw(N, C, H, W) + 3 * _draw(1, C, 1, 1, seed=1))
        gamma, beta = 1 + _draw(C, seed=2), _draw(C, seed=3)
        mean = scale * _draw(C, seed=4)
        var = scale**2 * (0.5 + _draw(C, seed=5) ** 2)
        moved = mean.clone(), var.clone()
        want = F.batch_norm(x, *moved, gamma, beta, training, momentum)
        got = answer(x, gamma, beta, (mean, var), training, momentum)
        case = f"{N} pictures ({C}, {H}, {W}), values around {scale:g}, "
        case += f"{'training' if training else 'evaluating'}, momentum {momentum}"
        try:
            y, (new_mean, new_var) = got
        except (TypeError, ValueError):
            raise Miss("Return y and the pair running = (mean, variance).", case, got,
                       "y, (mean, variance)") from None  # fmt: skip
        parts = (y, new_mean, new_var), (want, *moved)
        for (name, rule), ours, theirs in zip(rules.items(), *parts):
            same(f"{case}: {name}", ours, theirs, rule)


@chapter.exercise(
    "If the two convolutions answer 0, the block should hand its input on.",
    "h = the first convolution, normalised, ReLU; h = the second, normalised; then add "
    "what self.skip makes of the input, and only then the last ReLU.",
    "self.skip = nn.Identity() if C == O and stride == 1 else nn.Sequential(nn.Conv2d(C, "
    "O, 1, stride, bias=False), nn.BatchNorm2d(O)); return F.relu(self.norm2("
    "self.conv2(h)) + self.skip(x_NCHW))",
    kind="class",
)
@keeps_random
def Residual(answer):
    "A residual block."
    for C, O, stride in [(3, 3, 1), (2, 4, 1), (3, 3, 2), (4, 2, 2)]:
        torch.manual_seed(C)
        block, case = answer(C, O, stride), f"Residual({C}, {O}, {stride})"
        if not isinstance(block, nn.Module):
            raise Miss("A residual block is an nn.Module.", case, type(block).__name__)
        theirs = _Residual(C, O, stride)
        with torch.no_grad():
            for p in theirs.parameters():
                p.uniform_(-0.5, 1.0)
        state = theirs.state_dict()
        sizes = {name: list(t.shape) for name, t in block.state_dict().items()}
        same(f"{case}: parameters and buffers too many, and missing",
             [sorted(set(sizes) - set(state)), sorted(set(state) - set(sizes))], [[], []],
             "Where shapes change, self.skip is nn.Sequential(a 1 x 1 convolution without "
             "bias, BatchNorm2d), else nn.Identity(), which has none.")  # fmt: skip
        wrong = [n for n, t in state.items() if sizes[n] != list(t.shape)]
        same(f"{case}: parameters of another shape", wrong, [],
             "conv1 takes C to O channels, conv2 O to O, both 3 x 3; skip is 1 x 1.")  # fmt: skip
        block.load_state_dict(state)
        x = torch.randn(4, C, 6, 5, requires_grad=True)
        same(f"{case} on 4 pictures ({C}, 6, 5), training", block(x), theirs(x),
             "conv1, norm1, ReLU, conv2, norm2; add self.skip(x); ReLU.",
             atol=1e-4, rtol=1e-4)  # fmt: skip
        block(x).square().sum().backward()
        ours, x.grad = x.grad, None
        theirs(x).square().sum().backward()
        same(f"{case}: the gradient at its input", ours, x.grad,
             "Gradients reach the input through the convolutions and through the skip.",
             atol=1e-3, rtol=1e-3)  # fmt: skip
        block.eval(), theirs.eval()
        block.load_state_dict(theirs.state_dict())
        same(f"{case} on the same pictures, evaluating", block(x), theirs(x),
             "conv1, norm1, ReLU, conv2, norm2; add self.skip(x); ReLU.",
             atol=1e-4, rtol=1e-4)  # fmt: skip


class _Residual(nn.Module):
    def __init__(self, C, O, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(C, O, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(O)
        self.conv2 = nn.Conv2d(O, O, 3, padding=1, bias=False)
        self.norm2, self.skip = nn.BatchNorm2d(O), nn.Identity()
        if (C, 1) != (O, stride):
            skip = nn.Conv2d(C, O, 1, stride, bias=False), nn.BatchNorm2d(O)
            self.skip = nn.Sequential(*skip)

    def forward(self, x):
        h = self.norm1(self.conv1(x)).relu()
        return (self.norm2(self.conv2(h)) + self.skip(x)).relu()


@chapter.exercise(
    "Copies of a picture correlate: as vectors of mean 0 and length 1, their product is "
    "near 1. All products at once are one matrix.",
    "Two such matrices: with the pictures, and with the mirrored ones. Where either is "
    "above `alike`, two pictures are copies. Then let the smallest number spread.",
    "near = (U @ U.T > alike) | (U @ M.T > alike); group = np.arange(N); repeat "
    "lowest = np.where(near, group, N).min(1) until nothing changes: each picture takes "
    "the lowest number among its copies",
)
def groups(answer):
    "Which pictures are copies of one another."
    rng = np.random.default_rng(0)
    X = rng.integers(180, 256, (5, 6, 4)).astype(np.uint8)
    same("two pale pictures, pixels from 0.7 to 1", answer(X[:2] / 255), [0, 1],
         "Bright is not alike: take off each picture's own mean.")  # fmt: skip
    same("five bright pictures of noise", answer(X), [0, 1, 2, 3, 4],
         "Without copies, every picture is a group of its own: its own row number.")  # fmt: skip
    same("pictures 0 to 4, then 3, 1 and 1 again", answer(X[[0, 1, 2, 3, 4, 3, 1, 1]]),
         [0, 1, 2, 3, 4, 3, 1, 1], "A copy has the row number of the first of its kind.")  # fmt: skip
    same("picture 2, then mirrored left to right, then upside down",
         answer(np.stack([X[2], X[2, :, ::-1], X[2, ::-1]])), [0, 0, 2],
         "Mirrored left to right it is a copy; upside down it is not.")  # fmt: skip
    brighter = (X[3] // 2 + 100).astype(np.uint8)
    same("picture 3, then half as bright and 100 lighter", answer(np.stack([X[3], brighter])),
         [0, 0], "A correlation does not see brightness or contrast: take off each "
         "picture's own mean, and divide by its own length.")  # fmt: skip
    negative = np.stack([X[4], 255 - X[4]])
    same("picture 4, then its negative", answer(negative), [0, 1],
         "A negative correlates at -1: that is no copy.")  # fmt: skip
    chain = _chain(5)
    same("six pictures, each a copy of the next, the last not of the first; order 3 5 0 2 4 1",
         answer(chain[[3, 5, 0, 2, 4, 1]]), [0] * 6,
         "Copies of copies are copies: let the smallest number spread until nothing "
         "changes any more.")  # fmt: skip
    same("the same with alike=0.995", answer(chain[[3, 5, 0, 2, 4, 1]], 0.995),
         [0, 1, 2, 3, 4, 5], "Copies correlate above `alike`, here 0.995.")  # fmt: skip
    even = np.concatenate([X[0], X[0, :, ::-1]], 1)
    same("a picture that is its own mirror image, twice", answer(np.stack([even, even])),
         [0, 0], "Copies as they are, or mirrored, or both.")  # fmt: skip
    pair = np.stack([X[1], X[1, :, ::-1], X[4], X[4]])
    same("a mirrored pair and a plain pair", answer(pair), [0, 0, 2, 2],
         "Both kinds of copy count.")  # fmt: skip


def _chain(steps):
    "Pictures (steps + 1, 4, 5), neighbours correlating at cos 0.2 = 0.98, others below."
    a, b = np.random.default_rng(4).normal(size=(2, 20))
    a -= a.mean()
    b -= b.mean()
    a /= np.linalg.norm(a)
    b -= a * (a @ b)
    b /= np.linalg.norm(b)
    angle = 0.2 * np.arange(steps + 1)[:, None]
    return (np.cos(angle) * a + np.sin(angle) * b).reshape(-1, 4, 5)


@chapter.exercise(
    "Draw for each picture by itself: mirrored or not, how far down, how far right.",
    "Pad with `most` zeros on all four sides; then each picture is a window of the old "
    "size, whose corner is drawn from 0 to 2 * most.",
    "flip = torch.rand(N, generator=rng) < 0.5; padded = F.pad(x, (most,) * 4); top, "
    "left = torch.randint(0, 2 * most + 1, (2, N), generator=rng); for each n: "
    "padded[n, :, top[n] : top[n] + H, left[n] : left[n] + W]",
)
@keeps_random
def flip_and_shift(answer):
    "Mirrored and moved copies, drawn for each picture."
    x = _draw(1, 2, 4, 6).abs() + 1  # no pixel is 0, no two are equal

    def drawn(x, seed, *most):
        return answer(x, torch.Generator().manual_seed(seed), *most)

    for most in (2, 1, 0):
        N = 60 * (2 * most + 1) ** 2
        got = drawn(x.expand(N, -1, -1, -1).clone(), most, most)
        case = f"one picture (2, 4, 6), {N} times, most = {most}"
        same(f"{case}: the shape", list(got.shape), [N, 2, 4, 6],
             "As many pictures as before, of the same size.")  # fmt: skip
        copies = _copies(x[0], most)
        seen = torch.isclose(got[:, None], copies).flatten(2).all(2)
        strange = got[~seen.any(1)]
        if len(strange):
            raise Miss(
                f"A picture is mirrored left to right or not, and moved by up to {most} "
                "rows and columns; what enters is 0, and all channels move alike.",
                f"{case}: one of them, channel 0", strange[0, 0],
                "one of the allowed copies",
            )  # fmt: skip
        often = seen.double().mean(0)
        same(f"{case}: how many of the {len(copies) // 2} shifts never came, plain and mirrored",
             (often == 0).view(2, -1).sum(1), [0, 0],
             "Every shift in both directions can come, mirrored and not, drawn for each "
             "picture by itself.")  # fmt: skip
        same(f"{case}: share of mirrored ones",
             float(often[len(copies) // 2 :].sum()), 0.5,
             "One in two is mirrored, drawn for each picture by itself.", atol=0.15)  # fmt: skip
        same(f"{case}: shares of the copies", often, torch.ones(len(copies)) / len(copies),
             "All shifts are equally likely, whether mirrored or not.",
             atol=0.6 / len(copies) ** 0.75)  # fmt: skip
    x = _draw(7, 1, 5, 3, seed=7).abs() + 1
    same("7 other pictures, most = 2, drawn twice from one seed", drawn(x, 3, 2),
         drawn(x, 3, 2), "All dice come from rng.")  # fmt: skip
    torch.manual_seed(0)
    before = torch.get_rng_state()
    drawn(x, 3)
    same("is torch's own random state as before?",
         torch.equal(before, torch.get_rng_state()), True,
         "All dice come from rng: torch.rand(N, generator=rng).")  # fmt: skip
    rng = torch.Generator().manual_seed(5)
    first, second = answer(x, rng, 2), answer(x, rng, 2)
    same("7 pictures, twice from one generator: are they the same?",
         torch.equal(first, second), False,
         "A generator goes on: it is not seeded anew inside.")  # fmt: skip
    same("without `most`: is it as with most = 2?",
         torch.equal(drawn(x, 3), drawn(x, 3, 2)), True, "most is 2 if nothing is said.")  # fmt: skip
    own = drawn(x, 9)
    for n in range(len(x)):
        fits = torch.isclose(own[n], _copies(x[n], 2)).flatten(1).all(1).any()
        same(f"7 pictures: is the new number {n} made from the old number {n}?", bool(fits),
             True, "A picture keeps its place in the batch, as its label does.")  # fmt: skip


def _copies(x_CHW, most):
    "All allowed copies, the plain ones first: (2 * (2 * most + 1) ** 2, C, H, W)."
    H, W = x_CHW.shape[1:]
    found = []
    for picture in (x_CHW, x_CHW.flip(-1)):
        padded = F.pad(picture, (most,) * 4)
        found += [
            padded[:, top : top + H, left : left + W]
            for top in range(2 * most + 1)
            for left in range(2 * most + 1)
        ]
    return torch.stack(found)
