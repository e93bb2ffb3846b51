"""What chapter 11 builds: layers in fixed point, as an FPGA computes them.

A number x is kept as the whole number q = round(x 2^f), in `bits` bits with its sign; f,
`frac`, counts the fraction's bits. What lies outside is saturated: the nearest that fits.
"""

import numpy as np

from utils import given


def limits(bits):
    "The least and the largest whole number of `bits` bits."
    given.whole("bits", bits, 2, 32)
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def to_fixed(x, bits, frac):
    "Numbers -> whole numbers (int64) with `frac` fraction bits, rounded and saturated."
    given.whole("frac", frac, 0, 30)
    x = given.array("x", x)
    return np.clip(np.floor(x * 2.0**frac + 0.5), *limits(bits)).astype(np.int64)


def wrap(q, bits):
    "What `bits` bits keep of whole numbers that saturate nowhere: they go round."
    low, _ = limits(bits)
    return (q - low) % 2**bits + low


def narrow(sums, bits, frac):
    "Sums with 2 frac fraction bits -> `frac` of them: rounded, half up, and saturated."
    half = 2 ** (frac - 1) if frac else 0
    return np.clip((sums + half) >> frac, *limits(bits))


def fixed_layer(q_BD, W_HD, b_H, bits, frac):
    "Whole numbers in, weights and biases whole numbers with `frac` -> (B, H), saturated."
    q_BD, W_HD, b_H = given.arrays(q_BD=q_BD, W_HD=W_HD, b_H=b_H)
    given.whole("frac", frac, 0, 30)
    for name, value in {"q_BD": q_BD, "W_HD": W_HD, "b_H": b_H}.items():
        if value.dtype.kind not in "iu":
            raise TypeError(f"{name} holds whole numbers, not {value.dtype}: to_fixed")
    q_BD, W_HD, b_H = (x.astype(np.int64) for x in (q_BD, W_HD, b_H))
    return narrow(q_BD @ W_HD.T + (b_H << frac), bits, frac)
