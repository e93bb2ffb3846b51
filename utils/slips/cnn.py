"""Chapter 06: small wrong programs, and the sentence that names each."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils.checks import cnn as ex

# ---- cross_correlate ----


def _cross(x, w):
    return F.conv2d(x[None, None], w[None, None])[0, 0]


@ex.cross_correlate.slip(
    "The kernel is flipped: that is a convolution as mathematics has it. Deep learning "
    "does not flip; kernels are learnt, so it makes no difference to what can be learnt."
)
def flipped(x_HW, w_KK):
    return _cross(x_HW, w_KK.flip(0, 1))


@ex.cross_correlate.slip(
    "The output is as large as the picture: without padding the kernel fits at only "
    "(H - K + 1, W - K + 1) places."
)
def as_large(x_HW, w_KK):
    K = len(w_KK)
    padded = F.pad(x_HW, (0, K - 1, 0, K - 1))
    return _cross(padded, w_KK)


@ex.cross_correlate.slip("Rows and columns are swapped in the output: out[i, j].")
def turned(x_HW, w_KK):
    return _cross(x_HW, w_KK).T


@ex.cross_correlate.slip(
    "One place too few in each direction: there are H - K + 1 and W - K + 1, not H - K."
)
def one_too_few(x_HW, w_KK):
    return _cross(x_HW, w_KK)[:-1, :-1]


@ex.cross_correlate.slip(
    "The product is summed over one axis only: one number per place, so sum both."
)
def matrix_product(x_HW, w_KK):
    K = len(w_KK)
    H, W = len(x_HW) - K + 1, x_HW.shape[1] - K + 1
    return torch.stack(
        [torch.stack([(x_HW[i : i + K, j : j + K] * w_KK).sum(0) for j in range(W)])
         for i in range(H)])  # fmt: skip


@ex.cross_correlate.slip("This is the mean under the kernel: sum, do not average.")
def averaged(x_HW, w_KK):
    return _cross(x_HW, w_KK) / w_KK.numel()


@ex.cross_correlate.slip(
    "The picture jumps by K from place to place: neighbouring places overlap, they are "
    "one pixel apart."
)
def strides_of_k(x_HW, w_KK):
    return _cross(x_HW, w_KK)[:: len(w_KK), :: len(w_KK)]


@ex.cross_correlate.slip(
    "Of a picture of H x W only a square is read: there are H - K + 1 rows and W - K + 1 "
    "columns of places."
)
def only_a_square(x_HW, w_KK):
    side = min(x_HW.shape)
    return _cross(x_HW[:side, :side], w_KK)


@ex.cross_correlate.slip(
    "The parts are multiplied as matrices (@): multiply pixel by pixel (*), then sum."
)
def matrices(x_HW, w_KK):
    K = len(w_KK)
    H, W = len(x_HW) - K + 1, x_HW.shape[1] - K + 1
    out = x_HW.new_zeros(H, W)
    for i in range(H):
        for j in range(W):
            out[i, j] = (x_HW[i : i + K, j : j + K] @ w_KK).sum()
    return out


# ---- patches ----


def _patches(x, K, stride=1, padding=0):
    return F.unfold(x, K, stride=stride, padding=padding).mT


@ex.patches.slip("(N, C*K*K, L) is F.unfold's order: here each place is a row.")
def places_last(x_NCHW, K, stride=1, padding=0):
    return _patches(x_NCHW, K, stride, padding).mT


@ex.patches.slip(
    "The channels stand last in each row: all K*K pixels of channel 0 come first, as in "
    "a kernel of (C, K, K)."
)
def channels_last(x_NCHW, K, stride=1, padding=0):
    found = _patches(x_NCHW, K, stride, padding)
    N, L, _ = found.shape
    return found.view(N, L, -1, K * K).mT.reshape(N, L, -1)


@ex.patches.slip("Padding is left out: F.pad(x_NCHW, (padding,) * 4) comes first.")
def no_padding(x_NCHW, K, stride=1, padding=0):
    return _patches(x_NCHW, K, stride)


@ex.patches.slip(
    "The places are one pixel apart: a stride multiplies the jumps from place to place."
)
def no_stride(x_NCHW, K, stride=1, padding=0):
    found = x_NCHW.unfold(2, K, 1).unfold(3, K, 1)
    h = (x_NCHW.shape[2] - K) // stride + 1
    w = (x_NCHW.shape[3] - K) // stride + 1
    found = found[:, :, :h, :w].permute(0, 2, 3, 1, 4, 5)
    return found.reshape(len(x_NCHW), h * w, -1)


@ex.patches.slip(
    "Padding goes round the picture: two more rows and two more columns per pixel of "
    "padding, not one."
)
def padded_once(x_NCHW, K, stride=1, padding=0):
    return _patches(F.pad(x_NCHW, (padding, 0, padding, 0)), K, stride)


def _strided(x, K, stride, padding, strides, start):
    x = F.pad(x, (padding,) * 4)
    N, C, H, W = x.shape
    h, w = (H - K) // stride + 1, (W - K) // stride + 1
    n, c, r, k = strides(x)
    view = x.as_strided((N, h, w, C, K, K), (n, r * stride, k * stride, c, r, k), start(x))  # fmt: skip
    return view.reshape(N, h * w, C * K * K)


def _fresh(x):
    _, C, H, W = x.shape
    return C * H * W, H * W, W, 1


@ex.patches.slip(
    "These are the strides of a freshly made tensor: x may be a view, so ask x.stride()."
)
def fresh_strides(x_NCHW, K, stride=1, padding=0):
    start = torch.Tensor.storage_offset
    return _strided(x_NCHW, K, stride, padding, _fresh, start)


@ex.patches.slip(
    "The stride is in the jumps inside a patch as well: its pixels are neighbours; only "
    "the places are `stride` apart."
)
def dilated(x_NCHW, K, stride=1, padding=0):
    x = F.pad(x_NCHW, (padding,) * 4)
    H, W = x.shape[2:]
    h, w = (H - K) // stride + 1, (W - K) // stride + 1
    x = F.pad(x, (0, stride * K, 0, stride * K))
    found = F.unfold(x, K, dilation=stride, stride=stride).mT
    wide = (x.shape[3] - stride * (K - 1) - 1) // stride + 1
    return found.unflatten(1, (-1, wide))[:, :h, :w].flatten(1, 2)


def _view(x, K, stride, padding, jumps, up=0, strides=None):
    strides = strides or F.pad(x, (padding,) * 4).stride()
    x = F.pad(x, (padding,) * 4)
    N, C, H, W = x.shape
    h, w = (H - K + up) // stride + 1, (W - K + up) // stride + 1
    n, c, r, k = strides
    at = tuple(s * (stride if far else 1) for s, far in zip((r, k, c, r, k), jumps))
    return x.as_strided((N, h, w, C, K, K), (n, *at)).reshape(N, h * w, C * K * K)


KERNEL_AXES = (
    "The stride multiplies the jumps from place to place, axes h and w of the view, and "
    "not those inside the kernel."
)


@ex.patches.slip(KERNEL_AXES)
def stride_inside(x_NCHW, K, stride=1, padding=0):
    return _view(x_NCHW, K, stride, padding, (0, 0, 0, 1, 1))


@ex.patches.slip(KERNEL_AXES)
def stride_everywhere(x_NCHW, K, stride=1, padding=0):
    return _view(x_NCHW, K, stride, padding, (1, 1, 0, 1, 1))


@ex.patches.slip(
    "The view reaches beyond the picture: the number of places is rounded down."
)
def rounded_up(x_NCHW, K, stride=1, padding=0):
    return _view(x_NCHW, K, stride, padding, (1, 1, 0, 0, 0), up=stride - 1)


@ex.patches.slip(
    "The strides are those of x before it was padded: ask the padded tensor."
)
def strides_before_padding(x_NCHW, K, stride=1, padding=0):
    old = x_NCHW.stride()
    return _view(x_NCHW, K, stride, padding, (1, 1, 0, 0, 0), strides=old)


@ex.patches.slip(
    "Columns of places run before rows: places come in the order of reading, row by row."
)
def columns_first(x_NCHW, K, stride=1, padding=0):
    found = _patches(x_NCHW, K, stride, padding)
    h = (x_NCHW.shape[2] + 2 * padding - K) // stride + 1
    return found.unflatten(1, (h, -1)).transpose(1, 2).flatten(1, 2)


# ---- conv2d ----


@ex.conv2d.slip("The bias is left out: add b_O, one number per kernel.")
def no_bias(x_NCHW, w_OCKK, b_O, stride=1, padding=0):
    return F.conv2d(x_NCHW, w_OCKK, None, stride, padding)


@ex.conv2d.slip(
    "The output is cut from (N, places, kernels) as if it were (N, kernels, places): "
    "transpose before you give it rows and columns."
)
def reshaped_only(x_NCHW, w_OCKK, b_O, stride=1, padding=0):
    out = F.conv2d(x_NCHW, w_OCKK, b_O, stride, padding)
    return out.flatten(2).mT.reshape(out.shape)


@ex.conv2d.slip("The kernels stand last: the output is (N, O, h, w), channels first.")
def kernels_last(x_NCHW, w_OCKK, b_O, stride=1, padding=0):
    return F.conv2d(x_NCHW, w_OCKK, b_O, stride, padding).permute(0, 2, 3, 1)


@ex.conv2d.slip(
    "The places are not put back into rows and columns: (N, O, L) becomes (N, O, h, w)."
)
def still_flat(x_NCHW, w_OCKK, b_O, stride=1, padding=0):
    return F.conv2d(x_NCHW, w_OCKK, b_O, stride, padding).flatten(2)


@ex.conv2d.slip(
    "Stride and padding are not handed on: patches(x_NCHW, K, stride, padding)."
)
def no_options(x_NCHW, w_OCKK, b_O, stride=1, padding=0):
    return F.conv2d(x_NCHW, w_OCKK, b_O)


@ex.conv2d.slip("h counts rows and w columns: these two are swapped.")
def rows_as_columns(x_NCHW, w_OCKK, b_O, stride=1, padding=0):
    out = F.conv2d(x_NCHW, w_OCKK, b_O, stride, padding)
    return out.reshape(*out.shape[:2], out.shape[3], out.shape[2])


@ex.conv2d.slip("Stride and padding are swapped on their way to patches.")
def swapped_options(x_NCHW, w_OCKK, b_O, stride=1, padding=0):
    return F.conv2d(x_NCHW, w_OCKK, b_O, max(padding, 1), stride)


def _by_patches(x, w, b, stride, padding, handed, sized):
    K = w.shape[2]
    rows = _patches(x, K, *handed) @ w.flatten(1).mT + b
    h, v = ((x.shape[i] + 2 * sized[1] - K) // sized[0] + 1 for i in (2, 3))
    return rows.mT.reshape(len(x), len(w), h, v)


@ex.conv2d.slip(
    "Stride and padding count in h and w, and patches does not get them: "
    "patches(x_NCHW, K, stride, padding)."
)
def not_handed_on(x_NCHW, w_OCKK, b_O, stride=1, padding=0):
    return _by_patches(x_NCHW, w_OCKK, b_O, stride, padding, (), (stride, padding))


@ex.conv2d.slip("h and w forget the padding: (H + 2 * padding - K) // stride + 1.")
def sizes_without_padding(x_NCHW, w_OCKK, b_O, stride=1, padding=0):
    both = stride, padding
    return _by_patches(x_NCHW, w_OCKK, b_O, stride, padding, both, (stride, 0))


# ---- conv2d_backward ----


def _backward(g, x, w):
    leaves = [t.clone().requires_grad_() for t in (x, w)]
    F.conv2d(*leaves).backward(g)
    return leaves[0].grad, leaves[1].grad, g.sum((0, 2, 3))


@ex.conv2d_backward.slip(
    "Where patches overlap, the last one overwrites the others: a pixel that was used "
    "several times adds up what comes back (+=), as in chapter 03's unbroadcast."
)
def overwrites(g_NOhw, x_NCHW, w_OCKK):
    _, dw, db = _backward(g_NOhw, x_NCHW, w_OCKK)
    (N, C, _, _), K, (h, w) = x_NCHW.shape, w_OCKK.shape[-1], g_NOhw.shape[2:]
    d = (w_OCKK.flatten(1).T @ g_NOhw.flatten(2)).view(N, C, K, K, h, w)
    dx = torch.zeros_like(x_NCHW)
    for i in range(K):
        for j in range(K):
            dx[:, :, i : i + h, j : j + w] = d[:, :, i, j]
    return dx, dw, db


@ex.conv2d_backward.slip(
    "dx has the kernel the wrong way round. Seen from a pixel, the kernel lies flipped: "
    "the place one step before sees it with the weight one step after."
)
def not_flipped(g_NOhw, x_NCHW, w_OCKK):
    _, dw, db = _backward(g_NOhw, x_NCHW, w_OCKK)
    K = w_OCKK.shape[-1]
    return F.conv2d(F.pad(g_NOhw, (K - 1,) * 4), w_OCKK.transpose(0, 1)), dw, db


@ex.conv2d_backward.slip(
    "dw is the mean over the pictures: a weight that all of them use adds up their "
    "gradients. The loss has divided already, if it is a mean."
)
def mean_over_pictures(g_NOhw, x_NCHW, w_OCKK):
    dx, dw, db = _backward(g_NOhw, x_NCHW, w_OCKK)
    return dx, dw / len(x_NCHW), db


@ex.conv2d_backward.slip("db is the mean over places and pictures: it is their sum.")
def mean_bias(g_NOhw, x_NCHW, w_OCKK):
    dx, dw, db = _backward(g_NOhw, x_NCHW, w_OCKK)
    return dx, dw, g_NOhw.mean((0, 2, 3))


@ex.conv2d_backward.slip(
    "db has a number per picture and kernel: a bias serves all pictures, so sum over "
    "them too."
)
def bias_per_picture(g_NOhw, x_NCHW, w_OCKK):
    dx, dw, db = _backward(g_NOhw, x_NCHW, w_OCKK)
    return dx, dw, g_NOhw.sum((2, 3))


@ex.conv2d_backward.slip("The three come in another order: dx, dw, db.")
def other_order(g_NOhw, x_NCHW, w_OCKK):
    dx, dw, db = _backward(g_NOhw, x_NCHW, w_OCKK)
    return dw, dx, db


@ex.conv2d_backward.slip(
    "dx is right only where no patch overlaps another: this puts the patches side by side."
)
def first_picture_only(g_NOhw, x_NCHW, w_OCKK):
    dx, dw, db = _backward(g_NOhw, x_NCHW, w_OCKK)
    K = w_OCKK.shape[-1]
    inside = torch.zeros_like(dx)
    inside[:, :, ::K, ::K] = dx[:, :, ::K, ::K]
    return inside, dw, db


@ex.conv2d_backward.slip("dw is flat: give it the shape of the kernels, (O, C, K, K).")
def flat_weights(g_NOhw, x_NCHW, w_OCKK):
    dx, dw, db = _backward(g_NOhw, x_NCHW, w_OCKK)
    return dx, dw.flatten(1), db


# ---- receptive_field ----


def _field(layers, size=1, jump=1, add=None, first=False, grow=None):
    add = add or (lambda K, stride, jump: (K - 1) * jump)
    grow = grow or (lambda jump, stride: jump * stride)
    for K, stride in layers:
        if first:
            jump = grow(jump, stride)
        size += add(K, stride, jump)
        if not first:
            jump = grow(jump, stride)
    return size, jump


for sentence, options in {
    "A kernel of K adds K - 1 gaps, not K: three pixels span two gaps.": {
        "add": lambda K, stride, jump: K * jump
    },
    "The jump grows too early: a layer's own stride lies behind it, and widens the gaps "
    "of the layers after it.": {"first": True},
    "The jump is left out of the size: behind a stride of 2, two neighbours lie two "
    "pixels apart.": {"add": lambda K, stride, jump: K - 1},
    "Strides multiply: after two strides of 2, neighbours lie 4 pixels apart.": {
        "grow": lambda jump, stride: jump + stride - 1
    },
    "Without a layer, an output is a pixel: size 1 and jump 1.": {"size": 0},
    "The sizes are multiplied: each layer adds (K - 1) * jump.": {
        "add": lambda K, stride, jump: (K - 1) * jump * (1 + (jump > 1))
    },
    "The gaps are as wide as all strides before have made them, not only the last one: "
    "multiply them up.": {"grow": lambda jump, stride: stride},
}.items():

    @ex.receptive_field.slip(sentence)
    def field(layers, options=options):
        return _field(layers, **options)


@ex.receptive_field.slip("The two come in another order: size, then jump.")
def jump_first(layers):
    return _field(layers)[::-1]


@ex.receptive_field.slip(
    "The layers are walked from the last to the first: begin at the input."
)
def backwards(layers):
    return _field(layers[::-1])


# ---- cost ----


def _cost(
    layers, C, H, W, bias=1, flops=2, keep=1, places=True, pool="floor", flat=True
):
    found = []
    for kind, *numbers in layers:
        p = f = 0
        if kind == "conv":
            O, K = numbers
            p = O * C * K * K + O * bias
            f = flops * O * C * K * K * (H * W if places else 1)
            C = O
            H, W = H - (K - 1) * (1 - keep), W - (K - 1) * (1 - keep)
        elif kind == "pool":
            up = (numbers[0] - 1) if pool == "ceil" else 0
            H, W = (H + up) // numbers[0], (W + up) // numbers[0]
        elif kind == "mean":
            H = W = 1
        else:
            (O,) = numbers
            inputs = C * H * W if flat else C
            p, f = O * inputs + O * bias, flops * O * inputs
            C, H, W = O, 1, 1
        found.append((p, f))
    return found


for sentence, options in {
    "The biases are missing: one per kernel, one per output.": {"bias": 0},
    "These are multiply-adds: a multiplication and its addition are two FLOPs.": {
        "flops": 1
    },
    "Without padding the picture would shrink, but here it keeps its size.": {
        "keep": 0
    },
    "The FLOPs of one place only: a kernel works at all H * W places.": {
        "places": False
    },
    "A pool drops what is left over: H // K rows, not one more.": {"pool": "ceil"},
    "A linear layer reads every place of every channel: C * H * W inputs, not C.": {
        "flat": False
    },
}.items():

    @ex.cost.slip(sentence)
    def counted(layers, C, H, W, options=options):
        return _cost(layers, C, H, W, **options)


@ex.cost.slip("A pair is (parameters, FLOPs): these two are swapped.")
def flops_first(layers, C, H, W):
    return [pair[::-1] for pair in _cost(layers, C, H, W)]


@ex.cost.slip("This is the sum over all layers: one pair per layer.")
def summed(layers, C, H, W):
    return [tuple(map(sum, zip(*_cost(layers, C, H, W))))]


@ex.cost.slip(
    "The channels stay those of the input: a conv puts out as many as it has kernels."
)
def same_channels(layers, C, H, W):
    found = []
    for layer in layers:
        found += _cost([layer], C, H, W)
        if layer[0] == "pool":
            H, W = H // layer[1], W // layer[1]
        elif layer[0] == "mean":
            H = W = 1
        elif layer[0] == "linear":
            C, H, W = layer[1], 1, 1
    return found


# ---- batch_norm ----


def _norm(x, gamma, beta, running, training, momentum=0.1, eps=1e-5, axes=(0, 2, 3),
          below=0, stored=1, always=None, swap=False, still=False, root=True, inside=True):  # fmt: skip
    mean, var = running
    if training if always is None else always:
        batch = x.mean(axes, keepdim=True)
        spread = x.var(axes, correction=below, keepdim=True)
        kept = x.var((0, 2, 3), correction=stored)
        m = 1 - momentum if swap else momentum
        if training and not still:
            new = x.mean((0, 2, 3))
            running = (1 - m) * mean + m * new, (1 - m) * var + m * kept
    else:
        batch, spread = mean[:, None, None], var[:, None, None]
    size = (spread + eps).sqrt() if inside else spread.sqrt() + eps
    y = (x - batch) / (size if root else spread + eps)
    return y * gamma[:, None, None] + beta[:, None, None], running


for sentence, options in {
    "There is one mean per pixel: a channel has one mean, over pictures, rows and columns.": {
        "axes": (0,)
    },
    "There is one mean per picture and channel: the mean goes over the pictures, too.": {
        "axes": (2, 3)
    },
    "Channels are mixed: each channel has its own mean and variance.": {
        "axes": (0, 1, 2, 3)
    },
    "Normalise with the mean of the squared distances (correction=0); n - 1 stands only "
    "in what the running variance gets.": {"below": 1},
    "The running variance gets the variance with n - 1 below the line, "
    "x.var((0, 2, 3), correction=1).": {"stored": 0},
    "Training uses the running statistics: they are for evaluation; a batch in training "
    "is normalised by its own.": {"always": False},
    "Evaluation uses the batch's statistics: then the answer for a picture would depend "
    "on its neighbours in the batch.": {"always": True},
    "momentum is the share of the new: 0.9 of the old and 0.1 of the batch's.": {
        "swap": True
    },
    "The running statistics do not move: while training they follow the batches.": {
        "still": True
    },
    "Divide by the deviation, the root of the variance.": {"root": False},
    "eps stands under the root, with the variance: that shows where the variance is small.": {
        "inside": False
    },
}.items():

    @ex.batch_norm.slip(sentence)
    def norm(x_NCHW, gamma_C, beta_C, running, training, momentum=0.1, eps=1e-5,
             options=options):  # fmt: skip
        return _norm(
            x_NCHW, gamma_C, beta_C, running, training, momentum, eps, **options
        )


@ex.batch_norm.slip("gamma and beta are missing: times gamma, plus beta.")
def no_gamma(x_NCHW, gamma_C, beta_C, running, training, momentum=0.1, eps=1e-5):
    one, zero = torch.ones_like(gamma_C), torch.zeros_like(beta_C)
    return _norm(x_NCHW, one, zero, running, training, momentum, eps)


@ex.batch_norm.slip("Only y comes back: return y and running, a pair of two.")
def only_y(x_NCHW, gamma_C, beta_C, running, training, momentum=0.1, eps=1e-5):
    return _norm(x_NCHW, gamma_C, beta_C, running, training, momentum, eps)[0]


@ex.batch_norm.slip(told="changes its input")
def moves_in_place(x_NCHW, gamma_C, beta_C, running, training, momentum=0.1, eps=1e-5):
    y, new = _norm(x_NCHW, gamma_C, beta_C, running, training, momentum, eps)
    for old, now in zip(running, new):
        old.copy_(now)
    return y, running


# ---- Residual ----


class _Block(nn.Module):
    add, kernel, norm, wide = "before", 1, True, False

    def __init__(self, C, O, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(C, O, 3, stride, padding=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(O), nn.BatchNorm2d(O)
        self.conv2 = nn.Conv2d(O, O, 3, padding=1, bias=False)
        self.skip = nn.Identity()
        if C != O or stride != 1 or self.wide:
            k = self.kernel
            parts = [nn.Conv2d(C, O, k, stride, padding=k // 2, bias=False)]
            parts += [nn.BatchNorm2d(O)] if self.norm else []
            self.skip = nn.Sequential(*parts)

    def forward(self, x):
        h = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(h + self.skip(x))


@ex.Residual.slip(
    "ReLU comes before the sum: then a block can only add, never take away. First the "
    "sum, then ReLU."
)
class ReluFirst(_Block):
    def forward(self, x):
        h = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(h) + self.skip(x)


@ex.Residual.slip("The input is never added: that is a plain block, without its skip.")
class Plain(_Block):
    def forward(self, x):
        return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


@ex.Residual.slip("The last ReLU is missing: it comes after the sum.")
class NoLastRelu(_Block):
    def forward(self, x):
        h = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return h + self.skip(x)


@ex.Residual.slip("The ReLU between the two convolutions is missing: norm1, then ReLU.")
class NoReluBetween(_Block):
    def forward(self, x):
        return F.relu(self.norm2(self.conv2(self.norm1(self.conv1(x)))) + self.skip(x))


@ex.Residual.slip("norm1 and norm2 are swapped: each follows its own convolution.")
class SwappedNorms(_Block):
    def forward(self, x):
        h = self.norm1(self.conv2(F.relu(self.norm2(self.conv1(x)))))
        return F.relu(h + self.skip(x))


@ex.Residual.slip(
    "Where the shape stays, nothing is needed on the skip: nn.Identity(), which has no "
    "parameters."
)
class AlwaysProjects(_Block):
    wide = True


@ex.Residual.slip("The skip's convolution is 1 x 1: it only changes the channels.")
class WideSkip(_Block):
    kernel = 3


@ex.Residual.slip("The skip's 1 x 1 convolution is normalised as well: BatchNorm2d(O).")
class SkipWithoutNorm(_Block):
    norm = False


@ex.Residual.slip(
    "A stride alone changes the shape, too: then the input needs its 1 x 1 convolution "
    "even if C == O."
)
class OnlyForChannels(_Block):
    def __init__(self, C, O, stride=1):
        super().__init__(C, O, stride)
        if C == O:
            self.skip = nn.Identity()


@ex.Residual.slip(
    "More channels alone change the shape, too: then the input needs its 1 x 1 "
    "convolution even if the stride is 1."
)
class OnlyForStrides(_Block):
    def __init__(self, C, O, stride=1):
        super().__init__(C, O, stride)
        if stride == 1:
            self.skip = nn.Identity()


@ex.Residual.slip(
    "The skip is cut off from the gradient (detach, .data): it is there so that the "
    "gradient passes."
)
class Detached(_Block):
    def forward(self, x):
        h = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(h + self.skip(x.detach()))


@ex.Residual.slip("What is added is self.skip(x), not x: the shapes may differ.")
class AddsTheInput(_Block):
    def forward(self, x):
        h = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(h + x)


# ---- groups ----


@ex.groups.slip("A negative is no copy: the sign of the correlation counts.")
def negatives_too(X_NHW, alike=0.97):
    U, M = _unit(X_NHW), _unit(np.flip(X_NHW, 2))
    return _spread((abs(U @ U.T) > alike) | (abs(U @ M.T) > alike))


def _unit(X, mean=True, length=True):
    U = X.reshape(len(X), -1).astype(float)
    U = U - U.mean(1, keepdims=True) * mean
    return U / (np.linalg.norm(U, axis=1, keepdims=True) if length else 1)


def _near(X, alike, mirror="both", **options):
    axis = 2 if mirror != "down" else 1
    U, M = _unit(X, **options), _unit(np.flip(X, axis), **options)
    plain, other = U @ U.T > alike, U @ M.T > alike
    if mirror == "none":
        return plain
    return other | np.eye(len(X), dtype=bool) if mirror == "only" else plain | other


def _spread(near, times=None):
    group, N = np.arange(len(near)), len(near)
    while times is None or times > 0:
        lowest = np.where(near, group, N).min(1)
        if (lowest == group).all():
            break
        group, times = lowest, times and times - 1
    return group


@ex.groups.slip(
    "Only exact copies are found: pictures that correlate above `alike` are copies too."
)
def exact_only(X_NHW, alike=0.97):
    return np.array([
        next(j for j, other in enumerate(X_NHW)
             if (other == x).all() or (other[:, ::-1] == x).all())
        for x in X_NHW])  # fmt: skip


MIRRORED = (
    "Mirrored copies are missed: compare with the mirrored pictures as well, each minus "
    "its *own* mean."
)


@ex.groups.slip(MIRRORED)
def no_mirror(X_NHW, alike=0.97):
    return _spread(_near(X_NHW, alike, "none"))


@ex.groups.slip(MIRRORED)
def mean_of_pictures(X_NHW, alike=0.97):
    def unit(X):
        U = X.reshape(len(X), -1).astype(float)
        U = U - U.mean(0)
        return U / np.maximum(np.linalg.norm(U, axis=1, keepdims=True), 1e-12)

    U, M = unit(X_NHW), unit(np.flip(X_NHW, 2))
    return _spread((U @ U.T > alike) | (U @ M.T > alike))


@ex.groups.slip(
    "Mirrored upside down: left and right are the last axis, X_NHW[:, :, ::-1]."
)
def upside_down(X_NHW, alike=0.97):
    return _spread(_near(X_NHW, alike, "down"))


@ex.groups.slip("Only mirrored copies are found: plain copies count as well.")
def only_mirrored(X_NHW, alike=0.97):
    return _spread(_near(X_NHW, alike, "only"))


@ex.groups.slip(
    "One look at the neighbours is too few: a copy of a copy is a copy. Repeat until no "
    "number changes."
)
def one_look(X_NHW, alike=0.97):
    return _spread(_near(X_NHW, alike), 1)


@ex.groups.slip(
    "Two looks are too few for a long chain: repeat until no number changes."
)
def two_looks(X_NHW, alike=0.97):
    return _spread(_near(X_NHW, alike), 2)


@ex.groups.slip(
    "Each picture's own mean is not taken off: all bright pictures are alike then."
)
def no_mean(X_NHW, alike=0.97):
    return _spread(_near(X_NHW, alike, mean=False))


@ex.groups.slip(
    "The pictures are not divided by their own length, so these products are no "
    "correlations."
)
def no_length(X_NHW, alike=0.97):
    return _spread(_near(X_NHW, alike, length=False) | np.eye(len(X_NHW), dtype=bool))


@ex.groups.slip(
    "The groups are numbered 0, 1, 2 ...: a group's number is the lowest row number in it."
)
def renumbered(X_NHW, alike=0.97):
    return np.unique(_spread(_near(X_NHW, alike)), return_inverse=True)[1]


@ex.groups.slip("A group's number is the lowest row number in it, not the highest.")
def highest(X_NHW, alike=0.97):
    near = _near(X_NHW, alike)
    group = _spread(near)
    return np.array([np.flatnonzero(group == g).max() for g in group])


@ex.groups.slip("`alike` is not used: 0.97 is only what it is if nothing is said.")
def fixed_bound(X_NHW, alike=0.97):
    return _spread(_near(X_NHW, 0.97))


# ---- flip_and_shift ----


def _shifted(x, rng, most, chance=0.5, axis=-1, one=False, span=None, roll=False,
             channels=False, two=True):  # fmt: skip
    N, C, H, W = x.shape
    count = 1 if one else N
    flip = (torch.rand(count, generator=rng) < chance).expand(N)
    x = torch.where(flip[:, None, None, None], x.flip(axis), x)
    high = 2 * most + 1 if span is None else span(most)
    moves = torch.randint(0, max(high, 1), (2, count), generator=rng).expand(2, N)
    if not two:
        moves = moves[:1].expand(2, N)
    out = []
    for n in range(N):
        top, left = moves[:, n].tolist()
        if roll:
            out.append(torch.roll(x[n], (top - most, left - most), (1, 2)))
        else:
            padded = F.pad(x[n], (most,) * 4)
            out.append(padded[:, top : top + H, left : left + W])
    return torch.stack(out)


for sentence, options in {
    "One draw serves the whole batch: each picture is drawn by itself, so draw N numbers.": {
        "one": True
    },
    "torch.roll wraps round: what leaves at one edge enters at the other. Zeros must "
    "enter: pad, then cut out.": {"roll": True},
    "No picture is mirrored here: one in two is, drawn for each picture by itself.": {
        "chance": 0
    },
    "Every picture is mirrored here: one in two is, drawn for each picture by itself.": {
        "chance": 2
    },
    "Mirrored upside down: left and right are the last axis, x.flip(-1).": {"axis": -2},
    "torch.randint stops before its upper end: shifts from -most to most are "
    "2 * most + 1 numbers.": {"span": lambda most: 2 * most},
    "Pictures move in one direction only: from -most to most, both ways.": {
        "span": lambda most: most + 1
    },
    "Down and right get the same number: draw one for each direction.": {"two": False},
    "A picture in ten is mirrored: it should be one in two.": {"chance": 0.1},
}.items():

    @ex.flip_and_shift.slip(sentence)
    def shifted(x_NCHW, rng, most=2, options=options):
        return _shifted(x_NCHW, rng, most, **options)


@ex.flip_and_shift.slip(
    "The dice come from torch's own random state: hand rng on, generator=rng, or a run "
    "cannot be repeated."
)
def global_dice(x_NCHW, rng, most=2):
    return _shifted(x_NCHW, None, most)


@ex.flip_and_shift.slip(
    "The generator is seeded anew in each call: every batch would be changed alike."
)
def seeded_anew(x_NCHW, rng, most=2):
    return _shifted(x_NCHW, torch.Generator().manual_seed(rng.initial_seed()), most)


@ex.flip_and_shift.slip("The pictures have grown: cut a window of the old size out.")
def grown(x_NCHW, rng, most=2):
    return F.pad(_shifted(x_NCHW, rng, most), (most,) * 4)


@ex.flip_and_shift.slip("The pictures change places: a picture stays beside its label.")
def shuffled(x_NCHW, rng, most=2):
    return _shifted(x_NCHW, rng, most).flip(0)
