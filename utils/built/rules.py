"""What chapter 03 builds: the rules of its Tensor, from a result's gradient to its inputs'.

rule(g, inputs, out) -> gradients of the inputs, None where nobody asks. g (the gradient
of the output) and out (the output) are arrays, inputs are Tensors. `backward` adds up
what broadcasting had stretched. One-line rules stand in the Tensor's own methods.
"""

import math

import numpy as np


def add_rule(g, inputs, out):
    "a + b: what flows in goes to both."
    return g, g


def sub_rule(g, inputs, out):
    "a - b: to b with the other sign."
    return g, -g


def mul_rule(g, inputs, out):
    "a * b: to each, times the other's value."
    a, b = inputs
    return (
        g * b._data if a.requires_grad else None,
        g * a._data if b.requires_grad else None,
    )


def div_rule(g, inputs, out):
    "a / b: g / b to a, -g / b * (a / b) to b."
    _, b = inputs
    part = g / b._data
    return part, -part * out if b.requires_grad else None


def matmul_rule(g, inputs, out):
    "a @ b: g @ b.T to a, a.T @ g to b."
    a, b = inputs
    if a.ndim != 1 and b.ndim != 1:
        return (
            g @ b._data.swapaxes(-1, -2) if a.requires_grad else None,
            a._data.swapaxes(-1, -2) @ g if b.requires_grad else None,
        )
    return matmul_backward(g, a._data, b._data)


def matmul_backward(grad, a, b):
    """Gradients of a and b from that of a @ b: each has the shape of its own array.

    (N, M), (N, D), (D, M) -> (N, D), (D, M); more axes in front are batches, and a
    vector counts as one row (a) or one column (b).
    """
    rows, columns = np.atleast_2d(a), b if b.ndim > 1 else b[:, None]
    if a.ndim == 1:
        grad = np.expand_dims(grad, -1 if b.ndim == 1 else -2)
    if b.ndim == 1:
        grad = np.expand_dims(grad, -1)
    try:
        grad_a = grad @ columns.swapaxes(-1, -2)
        grad_b = rows.swapaxes(-1, -2) @ grad
    except ValueError:
        raise ValueError(
            f"a gradient of shape {grad.shape} is not that of {a.shape} @ {b.shape}"
        ) from None
    grad_a = grad_a[..., 0, :] if a.ndim == 1 else grad_a
    grad_b = grad_b[..., 0] if b.ndim == 1 else grad_b
    return unbroadcast(grad_a, a.shape), unbroadcast(grad_b, b.shape)


def sum_backward(grad, shape, axis=None):
    "Gradient of x from that of x.sum(axis): every element was used once, each gets a copy."
    try:
        spread = grad if axis is None else np.expand_dims(grad, axis)
        return np.broadcast_to(spread, shape)
    except ValueError:
        raise ValueError(
            f"a gradient of shape {np.shape(grad)} is not that of the sum of {shape} "
            f"along axis {axis}"
        ) from None


def unbroadcast(grad, shape):
    """Sum `grad` over the axes that broadcasting added or stretched: -> `shape` again.

    ValueError where `shape` cannot have been broadcast to the shape of `grad`.
    """
    extra = grad.ndim - len(shape)
    stretched = [
        extra + i for i, size in enumerate(shape) if size == 1 != grad.shape[extra + i]
    ]
    axes = (*range(extra), *stretched)
    out = grad.sum(axis=axes) if axes else grad
    if out.size != math.prod(shape) or (not axes and out.shape != tuple(shape)):
        raise ValueError(
            f"a gradient of shape {grad.shape} does not come from broadcasting {shape}"
        )
    return out.reshape(shape)
