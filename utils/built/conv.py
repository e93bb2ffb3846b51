"""What chapter 06 builds of convolution: loops, patches, both passes, what it sees and costs.

Shapes: x (N, C, H, W) pictures, w (O, C, K, K) kernels, b (O,); patches (N, L, C*K*K),
one row for each of the L places, in the order of reading. As in all of deep learning, a
kernel is not flipped: the operation is a cross-correlation.
"""
# ruff: noqa: E741, SIM300  (O is the number of outputs, as in w_OCKK)

import math

import torch
import torch.nn.functional as F

from utils import given

# ---- forward ----


def cross_correlate(x_HW, w_KK):
    """One picture under one kernel, by two loops -> (H - K + 1, W - K + 1).

    ValueError where the kernel is larger than the picture.
    """
    x_HW, w_KK = _tensor("x_HW", x_HW, "HW"), _tensor("w_KK", w_KK, "KK")
    (H, W), K = x_HW.shape, len(w_KK)
    out = x_HW.new_zeros(out_size(H, K), out_size(W, K))
    for i in range(len(out)):
        for j in range(out.shape[1]):
            out[i, j] = (x_HW[i : i + K, j : j + K] * w_KK).sum()
    return out


def out_size(size, K, stride=1, padding=0):
    "How many places a kernel of K pixels has along an axis of `size` pixels."
    size, K = given.whole("size", size), given.whole("K", K)
    stride, padding = given.whole("stride", stride), given.whole("padding", padding, 0)
    if K > size + 2 * padding:
        raise ValueError(
            f"a kernel of {K} pixels does not fit into {size} + 2 * {padding}"
        )
    return (size + 2 * padding - K) // stride + 1


def patches(x_NCHW, K, stride=1, padding=0):
    "What the kernel sees at each place, one row a place -> (N, L, C*K*K)."
    N, C, H, W = _tensor("x_NCHW", x_NCHW, "NCHW").shape
    h, w = (out_size(size, K, stride, padding) for size in (H, W))
    x_NCHW = F.pad(x_NCHW, (padding,) * 4)
    n, c, row, column = x_NCHW.stride()
    view = x_NCHW.as_strided(
        (N, h, w, C, K, K), (n, row * stride, column * stride, c, row, column),
        x_NCHW.storage_offset(),
    )  # fmt: skip
    return view.reshape(N, h * w, C * K * K)


def conv2d(x_NCHW, w_OCKK, b_O, stride=1, padding=0):
    "A convolutional layer as one matrix product -> (N, O, h, w)."
    _fit(x_NCHW, w_OCKK)
    O, K = len(w_OCKK), w_OCKK.shape[-1]
    if tuple(_tensor("b_O", b_O, "O").shape) != (O,):
        raise ValueError(f"one bias per kernel, ({O},), not {tuple(b_O.shape)}")
    out_NLO = patches(x_NCHW, K, stride, padding) @ w_OCKK.flatten(1).T + b_O
    h = out_size(x_NCHW.shape[2], K, stride, padding)
    return out_NLO.mT.unflatten(2, (h, -1))


def max_pool(x_NCHW, K):
    "The largest value of each K x K window; windows do not overlap -> (N, C, H//K, W//K)."
    x_NCHW = _tensor("x_NCHW", x_NCHW, "NCHW")
    out_size(min(x_NCHW.shape[2:]), K)
    return x_NCHW.unfold(2, K, K).unfold(3, K, K).flatten(4).max(4).values


# ---- backward ----


def conv2d_backward(g_NOhw, x_NCHW, w_OCKK):
    """Gradients of a convolution of stride 1 without padding -> dx, dw, db.

    g (N, O, H - K + 1, W - K + 1) is the gradient of what the layer put out.
    """
    _fit(x_NCHW, w_OCKK)
    (N, C, H, W), K = x_NCHW.shape, w_OCKK.shape[-1]
    h, w = out_size(H, K), out_size(W, K)
    want = (N, len(w_OCKK), h, w)
    if tuple(_tensor("g_NOhw", g_NOhw, "NOhw").shape) != want:
        raise ValueError(
            f"g has the shape of the output, {want}, not {tuple(g_NOhw.shape)}"
        )
    g_NOL = g_NOhw.flatten(2)
    dw_OCKK = (g_NOL @ patches(x_NCHW, K)).sum(0).view_as(w_OCKK)
    d_NCKKhw = (w_OCKK.flatten(1).T @ g_NOL).view(N, C, K, K, h, w)
    dx_NCHW = torch.zeros_like(x_NCHW)
    for i in range(K):
        for j in range(K):  # patches overlap: a pixel collects from each of them
            dx_NCHW[:, :, i : i + h, j : j + w] += d_NCKKhw[:, :, i, j]
    return dx_NCHW, dw_OCKK, g_NOL.sum((0, 2))


# ---- what it sees, what it costs ----


def receptive_field(layers):
    """How many input pixels one output pixel sees along an axis -> (size, jump).

    layers: [(K, stride), ...] from the input on; jump: by how many input pixels the
    fields of two neighbours are apart.
    """
    size = jump = 1
    for layer in layers:
        K, stride = _pair(layer)
        size += (K - 1) * jump
        jump *= stride
    return size, jump


def _pair(layer):
    if not isinstance(layer, (tuple, list)) or len(layer) != 2:
        raise ValueError(f"a layer is (K, stride), not {layer!r:.60}")
    return given.whole("K", layer[0]), given.whole("stride", layer[1])


NUMBERS = {"conv": 2, "pool": 1, "mean": 0, "linear": 1}  # after a layer's name


def cost(layers, C, H, W):
    """[(parameters, FLOPs of one picture), ...], one pair a layer.

    layers: ("conv", outputs, K), stride 1, as much padding as keeps the size, K odd;
    ("pool", K); ("mean",), over all places; ("linear", outputs). A multiplication with
    its addition is two FLOPs; biases are parameters, but not counted as FLOPs.
    """
    C, H, W = (given.whole(name, n) for name, n in (("C", C), ("H", H), ("W", W)))
    found = []
    for layer in layers:
        kind, numbers = _layer(layer)
        parameters = flops = 0
        if kind == "conv":
            O, K = numbers
            if K % 2 == 0:
                raise ValueError(f"a conv that keeps the size has an odd K, not {K}")
            parameters, flops = O * C * K * K + O, 2 * O * C * K * K * H * W
            C = O
        elif kind == "pool":
            H, W = out_size(H, *numbers, *numbers), out_size(W, *numbers, *numbers)
        elif kind == "mean":
            H = W = 1
        else:
            (O,) = numbers
            parameters, flops = O * C * H * W + O, 2 * O * C * H * W
            C, H, W = O, 1, 1
        found.append((parameters, flops))
    return found


def _layer(layer):
    kind, *numbers = layer if isinstance(layer, (tuple, list)) else [layer]
    if NUMBERS.get(kind) != len(numbers):
        known = '("conv", outputs, K), ("pool", K), ("mean",), ("linear", outputs)'
        raise ValueError(f"{layer!r:.60} is no layer: {known}")
    return kind, [given.whole(f"{kind}'s number", n) for n in numbers]


# ---- batch normalisation ----


def batch_norm(x_NCHW, gamma_C, beta_C, running, training, momentum=0.1, eps=1e-5):
    """Each channel with mean beta and deviation gamma -> y, running.

    running: (mean (C,), variance (C,)), used where `training` is false, else moved a
    share `momentum` towards the batch's; the one that comes back is new.
    """
    x_NCHW, C = _tensor("x_NCHW", x_NCHW, "NCHW"), x_NCHW.shape[1]
    given.number("momentum", momentum), given.number("eps", eps)
    if not isinstance(running, (tuple, list)) or len(running) != 2:
        raise ValueError(f"running is a pair, (mean, variance), not {running!r:.60}")
    mean_C, var_C = running
    for name, value_C in (("gamma_C", gamma_C), ("beta_C", beta_C),
                          ("the running mean", mean_C), ("the running variance", var_C)):  # fmt: skip
        if isinstance(value_C, torch.Tensor) and tuple(value_C.shape) not in ((C,), ()):
            raise ValueError(
                f"{name} has a number per channel, ({C},), not {tuple(value_C.shape)}"
            )
    if training:
        n = x_NCHW.numel() // C
        if n < 2:
            raise ValueError("one value per channel has no variance: a larger batch")
        batch_C = x_NCHW.mean((0, 2, 3))
        spread_C = ((x_NCHW - batch_C[:, None, None]) ** 2).mean((0, 2, 3))
        with torch.no_grad():
            running = (
                (1 - momentum) * mean_C + momentum * batch_C,
                (1 - momentum) * var_C + momentum * spread_C * n / (n - 1),
            )
        mean_C, var_C = batch_C, spread_C
    scale_C = gamma_C / (var_C + eps).sqrt()
    y_NCHW = (x_NCHW - mean_C[:, None, None]) * scale_C[:, None, None]
    return y_NCHW + beta_C[:, None, None], running


# ---- how sure ----


def wilson(right, count, z=1.96):
    """Where the true accuracy lies with 95 % confidence -> (low, high). Wilson (1927).

    right of count test pictures were answered rightly.
    """
    count = given.whole("count", count)
    share = given.whole("right", right, 0, count) / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    width = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    width /= 1 + z**2 / count
    return middle - width, middle + width


# ---- bad input ----


def _tensor(name, value, axes):
    "value, if it is a tensor with these axes."
    given.tensor(name, value, axes)
    if axes.endswith("KK") and value.shape[-1] != value.shape[-2]:
        raise ValueError(f"{name}: a kernel is square, not {tuple(value.shape[-2:])}")
    return value


def _fit(x_NCHW, w_OCKK):
    "Pictures and kernels have the same channels."
    _tensor("x_NCHW", x_NCHW, "NCHW"), _tensor("w_OCKK", w_OCKK, "OCKK")
    if x_NCHW.shape[1] != w_OCKK.shape[1]:
        raise ValueError(
            f"the pictures have {x_NCHW.shape[1]} channels, the kernels "
            f"{w_OCKK.shape[1]}: the shapes {tuple(x_NCHW.shape)} and "
            f"{tuple(w_OCKK.shape)}"
        )
