"""What chapter 03 builds on its engine: fused layers, the loss, and a network of them.

Shapes: X (N, D) rows of features, W (D, H), b (H,), logits (N, C), labels (N,).
A fused layer is one node where the plain expression makes several. Shapes that do not
fit raise ValueError; an array where a Tensor is needed, or the reverse, TypeError.
"""

from itertools import pairwise

import numpy as np

from utils import given
from utils.built import neurons
from utils.built.autograd import Tensor, no_grad, record


def linear(X, W, b):
    "X @ W + b as one node: (N, D), (D, H), (H,) -> (N, H)."
    return record(_affine(X, W, b), (X, W, b), _linear_rule)


def linear_relu(X, W, b):
    "max(X @ W + b, 0) as one node: (N, D), (D, H), (H,) -> (N, H)."
    out = _affine(X, W, b)
    return record(np.maximum(out, 0, out=out), (X, W, b), _linear_relu_rule)


def _affine(X, W, b):
    try:
        x, w, c = X._data, W._data, b._data
    except AttributeError:
        kinds = ", ".join(map(given.kind, (X, W, b)))
        raise TypeError(f"a layer takes three Tensors, not {kinds}") from None
    if x.ndim != 2 or x.shape[1:] != w.shape[:1] or w.shape[1:] != c.shape:
        raise ValueError(
            f"a layer (N, D) @ (D, H) + (H,) cannot take {X.shape} @ {W.shape} + {b.shape}"
        )
    out = x @ w
    out += c
    return out


def _linear_rule(g, inputs, out):
    X, W, b = inputs
    return (
        g @ W._data.T if X.requires_grad else None,
        np.matmul(X._data.T, g, out=_empty_home(W)) if W.requires_grad else None,
        np.add.reduce(g, 0, out=_empty_home(b)) if b.requires_grad else None,
    )


def _linear_relu_rule(g, inputs, out):
    return _linear_rule(g * (out > 0), inputs, out)


def _empty_home(leaf):
    "Where a leaf's first gradient may be written at once, or None."
    return leaf._home if leaf.grad is None and leaf.rule is None else None


def linear_relu_backward(grad_NH, X_ND, W_DH, out_NH):
    "The rule of linear_relu on plain arrays: -> gradients of X (N, D), W (D, H), b (H,)."
    grad_NH, X_ND, W_DH, out_NH = given.arrays(
        grad_NH=grad_NH, X_ND=X_ND, W_DH=W_DH, out_NH=out_NH
    )
    grad_NH = grad_NH * (out_NH > 0)
    return grad_NH @ W_DH.T, X_ND.T @ grad_NH, grad_NH.sum(axis=0)


def cross_entropy(logits, labels):
    """-log softmax(logits)[label], averaged over the rows, as one node.

    Tensor (N, C), whole numbers (N,) in 0 .. C-1 -> one number.
    """
    try:
        logits_NC = logits._data
    except AttributeError:
        raise TypeError(f"logits are a Tensor, not {given.kind(logits)}") from None
    loss, grad_NC = softmax_cross_entropy(logits_NC, labels)
    return record(loss, (logits,), lambda g, inputs, out: (grad_NC * g,), False)


def softmax_cross_entropy(logits_NC, labels_N):
    """The mean of -log softmax(logits)[label], and its gradient (softmax - one-hot) / N.

    (N, C), (N,) -> number, (N, C). No exponential overflows, no logarithm meets 0.
    ValueError where shapes do not fit or a label is no class, TypeError for labels that
    are no whole numbers.
    """
    if type(logits_NC) is not np.ndarray or logits_NC.dtype.kind != "f":
        logits_NC = np.asarray(given.array("logits_NC", logits_NC), float)
    labels_N = np.asarray(labels_N)
    if logits_NC.ndim != 2 or labels_N.shape != logits_NC.shape[:1]:
        raise ValueError(
            f"cross-entropy takes logits (N, C) and labels (N,), not {logits_NC.shape} "
            f"and {labels_N.shape}"
        )
    if labels_N.dtype.kind not in "iu":
        raise TypeError(f"labels are whole numbers, not {labels_N.dtype}")
    N, C = logits_NC.shape
    if N == 0:
        raise ValueError("the mean cross-entropy of no rows")
    low, high = np.minimum.reduce(labels_N), np.maximum.reduce(labels_N)
    if low < 0 or high >= C:
        raise ValueError(f"labels lie in 0 .. {C - 1}, not {low} .. {high}")
    # .reduce is .max() and .sum() without their wrappers: a tenth of a small step
    rows_N = np.arange(N)
    shifted_NC = logits_NC - np.maximum.reduce(logits_NC, axis=1, keepdims=True)
    truth_N = shifted_NC[rows_N, labels_N]
    grad_NC = np.exp(shifted_NC, out=shifted_NC)
    total_N = np.add.reduce(grad_NC, axis=1)
    loss = np.add.reduce(np.log(total_N) - truth_N) / N
    grad_NC /= (total_N * N)[:, None]
    grad_NC[rows_N, labels_N] -= 1 / N
    return loss, grad_NC


class MLP:
    """Layers of linear + ReLU, the last one linear: rows (N, sizes[0]) -> logits.

    All weights live in one buffer, `flat`, and all gradients in `flat_grad`, so that an
    optimiser may move every weight with one operation. Weights start normal with
    deviation sqrt(2 / inputs), after He and others (2015), biases at 0. rng is NumPy's
    generator, dtype a kind of float.
    """

    def __init__(self, sizes, rng, dtype=np.float32):
        if not isinstance(sizes, (list, tuple)) or len(sizes) < 2:
            raise ValueError(f"sizes are at least two numbers, not {sizes!r:.60}")
        sizes = [given.whole(f"sizes[{i}]", size) for i, size in enumerate(sizes)]
        given.generator(rng)
        shapes = []
        for inputs, outputs in pairwise(sizes):
            shapes += [(inputs, outputs), (outputs,)]
        self.flat, self.flat_grad, self._parameters = flat_parameters(shapes, dtype)
        for p in self._parameters[::2]:
            p.data[...] = rng.normal(size=p.shape) * np.sqrt(2 / p.shape[0])

    def parameters(self):
        "[W, b, W, b, ...], in the order of the layers."
        return list(self._parameters)

    def zero_grad(self):
        "Forget all gradients: the next backward starts from nothing."
        for p in self._parameters:
            p.grad = None

    def __call__(self, X):
        "Rows (N, D), array or Tensor -> logits, a Tensor (N, C)."
        dtype = self.flat.dtype
        h = X if isinstance(X, Tensor) else Tensor(np.asarray(X, dtype))
        *hidden, last_W, last_b = self._parameters
        for W, b in zip(hidden[::2], hidden[1::2]):
            h = linear_relu(h, W, b)
        return linear(h, last_W, last_b)


def flat_parameters(shapes, dtype=np.float32):
    "-> one buffer of zeros, one for gradients, and a Tensor for each shape, a view of both."
    if np.dtype(dtype).kind != "f":  # a Tensor would copy other numbers: no view
        raise TypeError(f"parameters are floats, not {np.dtype(dtype)}")
    sizes = [int(np.prod(shape)) for shape in shapes]
    flat, flat_grad = np.zeros(sum(sizes), dtype), np.zeros(sum(sizes), dtype)
    place, tensors = 0, []
    for shape, size in zip(shapes, sizes):
        here = slice(place, place + size)
        p = Tensor(flat[here].reshape(shape), requires_grad=True)
        p._home = flat_grad[here].reshape(shape)
        tensors.append(p)
        place += size
    return flat, flat_grad, tensors


def accuracy(model, X, labels):
    "Share of rows whose largest logit is the label's: model, (N, D), (N,) -> 0 .. 1."
    given.function("model", model)
    with no_grad():
        return float(neurons.accuracy(model(X).data, labels))


def sgd_step(parameters, loss_of, lr):
    """One step against the gradient of loss_of(), a Tensor of one number: -> its value.

    TypeError for one Tensor in place of a list, ValueError where nothing would move.
    """
    if isinstance(parameters, Tensor):
        raise TypeError("parameters is a list of Tensors: [w]")
    parameters, lr = list(parameters), given.number("lr", lr)
    given.function("loss_of", loss_of)
    for p in parameters:
        p.grad = None
    loss = loss_of()
    if not isinstance(loss, Tensor):
        raise TypeError(f"loss_of() is a Tensor, not a {given.kind(loss)}")
    loss.backward()
    if all(p.grad is None for p in parameters):
        raise ValueError("no parameter has a gradient: are they in the loss?")
    for p in parameters:
        if p.grad is not None:
            p.data -= lr * p.grad
    return loss.item()
