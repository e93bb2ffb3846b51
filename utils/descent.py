"""What chapter 01 builds: a line, its loss, its gradient, and the way down.

Shapes: X (N, D) rows of features, y (N,), w (D,), b a number.
"""

import numpy as np


def predict(X_ND, w_D, b):
    "The line's value for each row: -> (N,)."
    return X_ND @ w_D + b


def mse(y_hat_N, y_N):
    "Mean squared error: (N,), (N,) -> number."
    return np.mean((y_hat_N - y_N) ** 2)


def numeric_gradient(f, at_P, h=1e-4):
    "Central differences of f along each coordinate: (P,) -> (P,); error of order h**2."
    steps = np.eye(len(at_P)) * h
    return np.array([(f(at_P + s) - f(at_P - s)) / (2 * h) for s in steps])


def mse_gradient(X_ND, y_N, w_D, b):
    "Slopes of the mean squared error along w and along b: -> (D,), number."
    error_N = predict(X_ND, w_D, b) - y_N
    return 2 * X_ND.T @ error_N / len(y_N), 2 * error_N.mean()


def gradient_step(X_ND, y_N, w_D, b, lr):
    "One step downhill: -> new w (D,), new b."
    slope_D, slope_b = mse_gradient(X_ND, y_N, w_D, b)
    return w_D - lr * slope_D, b - lr * slope_b


def stable_rate(X_ND):
    "The learning rate past which descent on the mean squared error diverges."
    A = np.c_[X_ND, np.ones(len(X_ND))]
    return 2 / np.linalg.eigvalsh(2 * A.T @ A / len(A)).max()


def standardise(X_ND):
    "Columns of mean 0 and deviation 1: -> Z (N, D), mean (D,), deviation (D,)."
    mean_D, std_D = X_ND.mean(axis=0), X_ND.std(axis=0)
    std_D = np.where(std_D > 0, std_D, 1.0)
    return (X_ND - mean_D) / std_D, mean_D, std_D


def minibatches(N, size, rng):
    "Row numbers of one epoch: every row once, shuffled by `rng`, `size` at a time."
    if size < 1:
        raise ValueError(f"a minibatch has at least one row, not {size}")
    order = rng.permutation(N)
    for start in range(0, N, size):
        yield order[start : start + size]


def sgd(X_ND, y_N, lr, epochs, size, seed=0):
    "Descend by minibatches from zero: -> w (D,), b."
    rng = np.random.default_rng(seed)
    w_D, b = np.zeros(X_ND.shape[1]), 0.0
    for _ in range(epochs):
        for rows in minibatches(len(y_N), size, rng):
            w_D, b = gradient_step(X_ND[rows], y_N[rows], w_D, b, lr)
    return w_D, b
