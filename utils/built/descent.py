"""What chapter 01 builds: a line, its loss, its gradient, and the way down.

Shapes: X (N, D) rows of features, y (N,), w (D,), b a number. Shapes that do not fit, a
negative rate and a count that is no whole number raise ValueError.
"""

import numpy as np

from utils import given


def predict(X_ND, w_D, b):
    "The line's value for each row: (N, D), (D,), number -> (N,)."
    X_ND, w_D = given.arrays(X_ND=X_ND, w_D=w_D)
    if given.array("b", b).ndim != 0:
        raise ValueError(f"b is one number, not of shape {np.shape(b)}")
    return X_ND @ w_D + b


def mse(y_hat_N, y_N):
    "Mean squared error: (N,), (N,) -> number; (N, 1) beside (N,) is refused."
    y_hat_N, y_N = given.arrays(y_hat_N=y_hat_N, y_N=y_N)
    if not len(y_N):
        raise ValueError("the mean squared error of no rows")
    wide = np.result_type(y_hat_N, y_N, np.float32)  # whole numbers may wrap round
    return np.mean(np.subtract(y_hat_N, y_N, dtype=wide) ** 2)


def numeric_gradient(f, at_P, h=1e-4):
    "Central differences of f along each coordinate: (P,) -> (P,); error of order h**2."
    given.function("f", f)
    at_P, h = given.arrays(at_P=at_P), given.number("h", h, above=0)
    steps = np.eye(len(at_P)) * h
    slope_P = np.array([(f(at_P + s) - f(at_P - s)) / (2 * h) for s in steps])
    if slope_P.shape != at_P.shape:
        raise ValueError(f"f returns one number, not the shape {slope_P.shape[1:]}")
    return slope_P


def mse_gradient(X_ND, y_N, w_D, b):
    "Slopes of the mean squared error along w and along b: -> (D,), number."
    X_ND, y_N = given.arrays(X_ND=X_ND, y_N=y_N)
    if not len(y_N):
        raise ValueError("the mean squared error of no rows has no slope")
    error_N = predict(X_ND, w_D, b) - y_N
    return 2 * X_ND.T @ error_N / len(y_N), 2 * error_N.mean()


def gradient_step(X_ND, y_N, w_D, b, lr):
    "One step downhill, at a rate of at least 0: -> new w (D,), new b."
    given.number("lr", lr)
    slope_D, slope_b = mse_gradient(X_ND, y_N, w_D, b)
    return w_D - lr * slope_D, b - lr * slope_b


def stable_rate(X_ND):
    "The learning rate past which descent on the mean squared error diverges."
    X_ND = _rows(X_ND)
    A = np.c_[X_ND, np.ones(len(X_ND))]
    return 2 / np.linalg.eigvalsh(2 * A.T @ A / len(A)).max()


def standardise(X_ND):
    """Columns of mean 0 and deviation 1: -> Z (N, D), mean (D,), deviation (D,).

    A column that never changes has deviation 1 here, and becomes 0.
    """
    X_ND = _rows(X_ND)
    constant_D = (X_ND[0] == X_ND).all(axis=0)  # a computed deviation may miss 0
    mean_D = np.where(constant_D, X_ND[0], X_ND.mean(axis=0))
    std_D = np.where(constant_D, 1.0, X_ND.std(axis=0))
    return (X_ND - mean_D) / std_D, mean_D, std_D


def _rows(X_ND):
    "X as an array of at least one row, every number finite."
    X_ND = given.arrays(X_ND=X_ND)
    if not len(X_ND) or not np.isfinite(X_ND).all():
        raise ValueError(f"X_ND of shape {X_ND.shape} is empty or holds nan or inf")
    return X_ND


def minibatches(N, size, rng):
    "Row numbers of one epoch: every row once, shuffled by `rng`, `size` at a time."
    N, size = given.whole("N", N, least=0), given.whole("size", size)
    order = given.generator(rng, "permutation").permutation(N)
    return (order[start : start + size] for start in range(0, N, size))


def sgd(X_ND, y_N, lr, epochs, size, seed=0):
    """Descend by minibatches from zero: -> w (D,), b. After Robbins and Monro (1951).

    lr and epochs are at least 0, size, the rows of a minibatch, is at least 1.
    """
    X_ND, y_N = given.arrays(X_ND=X_ND, y_N=y_N)
    epochs = given.whole("epochs", epochs, least=0)
    rng = np.random.default_rng(seed)
    w_D, b = np.zeros(X_ND.shape[1]), 0.0
    for _ in range(epochs):
        for rows in minibatches(len(y_N), size, rng):
            w_D, b = gradient_step(X_ND[rows], y_N[rows], w_D, b, lr)
    return w_D, b
