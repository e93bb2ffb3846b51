"""Chapter 11's modules beyond its checks: the grid, fixed point, the FPGA's circuit."""

import json
import re

import numpy as np
import pytest

from utils.bench.kinds import fpga
from utils.built import fixed, systolic


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 6, 5), (3, 1, 7), (8, 2, 1)])
def test_the_grid_multiplies_in_its_cycles(shape):
    M, K, N = shape
    rng = np.random.default_rng(0)
    A, B = rng.integers(-9, 9, (M, K)), rng.integers(-9, 9, (K, N))
    product, cycles = systolic.multiply(A, B)
    assert np.array_equal(product, A @ B) and cycles == K + M + N - 2
    assert systolic.busy_share(M, K, N) == K / cycles


def test_fixed_point_rounds_saturates_and_wraps():
    assert fixed.to_fixed([0.49, 0.5, -0.5, 99, -99], 4, 0).tolist() == [0, 1, 0, 7, -8]
    assert fixed.to_fixed([0.25], 8, 4).tolist() == [4]
    assert fixed.wrap(np.array([7, 8, -9, 16]), 4).tolist() == [7, -8, 7, 0]


def test_the_circuit_has_a_product_for_each_pair():
    text = fpga.dot_product(5, 6)
    assert len(re.findall(r"x\[\d\] \* w\[\d\]", text)) == 5
    assert text.count(" + ") == 4


def test_the_recording_says_what_its_tools_printed():
    data = json.loads(fpga.FILE.read_text(encoding="utf-8"))
    assert [row["bits"] for row in data["rows"]] == [4, 8, 16]
    for row in data["rows"]:
        said = fpga.cells_and_clock("\n".join(row["nextpnr"]))
        assert said == (row["cells"], row["cells_of_the_chip"], row["mhz"])
