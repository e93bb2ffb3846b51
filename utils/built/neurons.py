"""What chapter 02 builds: layers, bends, probabilities, their loss and its gradient.

Shapes: X (N, D) rows of features, W (D, H) or (D, C), b (H,) or (C,), logits z (N, C),
y (N,) class numbers 0 .. C - 1. A logit is a score that softmax turns into a probability.
Shapes that do not fit, and labels that are no class, raise ValueError.
"""

import numpy as np

from utils import given
from utils.built.descent import minibatches


def linear(X_ND, W_DH, b_H):
    "H weighted sums of each row, plus b: (N, D), (D, H), (H,) -> (N, H)."
    X_ND, W_DH, b_H = given.arrays(X_ND=X_ND, W_DH=W_DH, b_H=b_H)
    return X_ND @ W_DH + b_H


def relu(z):
    "Keeps what is positive, 0 for the rest: any shape -> the same shape."
    return np.maximum(given.array("z", z), 0)


def sigmoid(z):
    "1 / (1 + exp(-z)), for every finite z without overflow: any shape -> the same shape."
    z = given.array("z", z)
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)


BENDS = {"relu": relu, "tanh": np.tanh, "sigmoid": sigmoid}


def slope(bend, z):
    "The slope of BENDS[bend] at z; relu's at 0 is taken as 0. Any shape -> the same."
    if not isinstance(bend, str) or bend not in BENDS:
        raise ValueError(f"unknown bend {bend!r:.60}; known: {', '.join(BENDS)}")
    z = given.array("z", z)
    if bend == "relu":
        return np.where(z > 0, 1.0, 0.0)
    if bend == "tanh":
        return 1 - np.tanh(z) ** 2
    return sigmoid(z) * sigmoid(-z)


def mlp_forward(X_ND, layers, bend=relu):
    """Through every (W, b) of layers, bent between two of them, not after the last.

    (N, D), [((D, H), (H,)), ...] -> (N, width of the last); bend is a function.
    """
    if not layers:
        raise ValueError("a network has at least one layer (W, b)")
    if not all(isinstance(one, (tuple, list)) and len(one) == 2 for one in layers):
        raise ValueError("layers is a list of pairs: [(W, b), (V, c)]")
    given.function("bend", bend)
    h_NH = X_ND
    for W, b in layers[:-1]:
        h_NH = bend(linear(h_NH, W, b))
    return linear(h_NH, *layers[-1])


def random_net(X_ND, y_N, width, bend=relu, seed=0):
    "A random bent layer that nobody trains, and the best line on top: -> two layers."
    X_ND, y_N = given.arrays(X_ND=X_ND, y_N=y_N)
    width = given.whole("width", width)
    given.function("bend", bend)
    rng = np.random.default_rng(seed)
    W_DH, b_H = 2 * rng.normal(size=(X_ND.shape[1], width)), 2 * rng.normal(size=width)
    h_NH = bend(linear(X_ND, W_DH, b_H))
    v = np.linalg.lstsq(np.c_[h_NH, np.ones(len(y_N))], y_N, rcond=None)[0]
    return [(W_DH, b_H), (v[:-1, None], v[-1:])]


def softmax(z_NC):
    "Logits (..., C) -> probabilities (..., C), rows of sum 1; none overflows."
    z_NC = given.array("z_NC", z_NC)
    if not z_NC.ndim or not z_NC.shape[-1]:
        raise ValueError(f"softmax shares 1 among C scores, not the shape {z_NC.shape}")
    e_NC = np.exp(z_NC - np.max(z_NC, axis=-1, keepdims=True))
    return e_NC / e_NC.sum(axis=-1, keepdims=True)


def _logits_labels(z_NC, y_N):
    "Both as arrays, if y is one class number for each row of z."
    z_NC, y_N = given.arrays(z_NC=z_NC), np.asarray(y_N)
    if y_N.shape != z_NC.shape[:1] or y_N.dtype.kind not in "iu":
        raise ValueError(
            f"y is one class number a row, {len(z_NC)} of them; "
            f"it is {y_N.dtype} of shape {y_N.shape}"
        )
    if not len(y_N):
        raise ValueError("there is no row: z has the shape (0, C)")
    if not 0 <= y_N.min() <= y_N.max() < z_NC.shape[1]:
        classes, low, high = z_NC.shape[1], y_N.min(), y_N.max()
        raise ValueError(f"a class is 0 .. {classes - 1}; y has {low} .. {high}")
    return z_NC, y_N


def cross_entropy(z_NC, y_N):
    "Mean of -log(probability of the true class), from logits: (N, C), (N,) -> number."
    z_NC, y_N = _logits_labels(z_NC, y_N)
    top_N = np.max(z_NC, axis=1)
    total_N = top_N + np.log(np.exp(z_NC - top_N[:, None]).sum(axis=1))
    return np.mean(total_N - z_NC[np.arange(len(y_N)), y_N])


def binary_cross_entropy(z_N, y_N):
    "The same for labels 0 and 1, one logit per row, class 1's: (N,), (N,) -> number."
    z_N, y_N = given.array("z_N", z_N), np.asarray(y_N)
    if z_N.shape != y_N.shape:
        raise ValueError(f"one logit per label, not {z_N.shape} for {y_N.shape}")
    if not y_N.size or not 0 <= y_N.min() <= y_N.max() <= 1:
        raise ValueError(f"labels are 0 or 1, at least one of them, not {y_N!r:.60}")
    return np.mean(np.logaddexp(0, z_N) - y_N * z_N)


def cross_entropy_gradient(z_NC, y_N):
    "Slope of cross_entropy along each logit, (p - y) / N: (N, C), (N,) -> (N, C)."
    z_NC, y_N = _logits_labels(z_NC, y_N)
    g_NC = softmax(z_NC)
    g_NC[np.arange(len(y_N)), y_N] -= 1
    return g_NC / len(y_N)


def softmax_step(X_ND, y_N, W_DC, b_C, lr):
    "One step down the cross-entropy of one linear layer: -> new W (D, C), new b (C,)."
    X_ND, lr = given.arrays(X_ND=X_ND), given.number("lr", lr)
    g_NC = cross_entropy_gradient(linear(X_ND, W_DC, b_C), y_N)
    return W_DC - lr * X_ND.T @ g_NC, b_C - lr * g_NC.sum(axis=0)


def softmax_regression(X_ND, y_N, C, lr, epochs, size, seed=0):
    "Train one linear layer for C classes by minibatches from zero: -> W (D, C), b (C,)."
    X_ND, y_N = given.arrays(X_ND=X_ND, y_N=y_N)
    C, epochs = given.whole("C", C), given.whole("epochs", epochs, least=0)
    rng = np.random.default_rng(seed)
    W_DC, b_C = np.zeros((X_ND.shape[1], C)), np.zeros(C)
    for _ in range(epochs):
        for rows in minibatches(len(y_N), size, rng):
            W_DC, b_C = softmax_step(X_ND[rows], y_N[rows], W_DC, b_C, lr)
    return W_DC, b_C


def accuracy(z_NC, y_N):
    "Share of rows whose largest score is the true class's: (N, C), (N,) -> 0 .. 1."
    z_NC, y_N = _logits_labels(z_NC, y_N)
    return np.mean(np.argmax(z_NC, axis=1) == y_N)
