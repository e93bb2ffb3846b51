"""What chapter 11 builds: a systolic array, the unit that multiplies matrices in a TPU.

A grid of M x N cells. Numbers of A_MK walk to the right, numbers of B_KN downwards, one
cell per cycle; each cell adds the product of what it holds to its own sum, and stays. The
idea is Kung and Leiserson's (1978).
"""

import numpy as np

from utils import given


def pulse(a_MN, b_MN, sum_MN, left_M, top_N):
    "One cycle: everything moves on, the edges enter, each cell multiplies and adds."
    a_MN, b_MN, sum_MN, left_M, top_N = given.arrays(
        a_MN=a_MN, b_MN=b_MN, sum_MN=sum_MN, left_M=left_M, top_N=top_N
    )
    a = np.column_stack([left_M, a_MN[:, :-1]])
    b = np.vstack([top_N, b_MN[:-1]])
    return a, b, sum_MN + a * b


def entering(A_MK, t):
    "What enters the grid's left edge in cycle t: row i begins i cycles late. -> (M,)"
    A_MK = given.arrays(A_MK=A_MK)
    M, K = A_MK.shape
    k = t - np.arange(M)
    return np.where((k >= 0) & (k < K), A_MK[np.arange(M), k.clip(0, K - 1)], 0)


def multiply(A_MK, B_KN):
    "A @ B, cycle by cycle -> (C_MN, cycles)."
    A_MK, B_KN = given.arrays(A_MK=A_MK, B_KN=B_KN)
    (M, K), N = A_MK.shape, B_KN.shape[1]
    a, b, total = (np.zeros((M, N)) for _ in range(3))
    cycles = K + M + N - 2
    for t in range(cycles):
        a, b, total = pulse(a, b, total, entering(A_MK, t), entering(B_KN.T, t))
    return total, cycles


def busy_share(M, K, N):
    "Share of cell-cycles that multiply something: K of K + M + N - 2."
    M, K, N = (given.whole(n, v) for n, v in {"M": M, "K": K, "N": N}.items())
    return K / (K + M + N - 2)
