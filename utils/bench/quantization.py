"""Chapter 24: torch's own 8-bit and 4-bit kernels against its float32 ones."""

import torch
from torch import nn

from utils.bench.ratio import Ratio, benchmark, in_turns
from utils.built import int8, quant


def _layer(make, rows, calls):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layer, x = nn.Linear(2048, 2048), torch.randn(rows, 2048)
    if not int8.works(make):
        raise ImportError("this machine has no such kernel")
    packed = make(layer)

    def repeat(part):
        with torch.inference_mode():
            for _ in range(calls):
                part(x)

    samples = in_turns(lambda: repeat(packed), lambda: repeat(layer), invert=True)
    return Ratio(samples, f"Linear(2048, 2048), {rows} rows, times as fast as float32")


@benchmark("quantization.int8.64rows")
def int8_64_rows():
    "8-bit weights and activations; fast where the chip multiplies bytes (VNNI)."
    reduced = int8.saturates()
    make = lambda layer: int8.Int8Linear(layer, *quant.affine(-4, 4), reduced)  # noqa: E731
    return _layer(make, 64, 4)


@benchmark("quantization.int4.1row")
def int4_one_row():
    "4-bit weights, one row: bytes over bandwidth."
    return _layer(int8.Int4Linear, 1, 20)
