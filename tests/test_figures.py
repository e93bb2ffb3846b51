"""utils/figures: NumPy and matplotlib are handed NumPy arrays, never torch's tensors.

NumPy 2.2 warns where it converts a tensor by itself; newer ones are silent.
"""

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from utils.figures import data_parallel, pytorch, quantization


@pytest.fixture(autouse=True)
def no_conversion_in_passing(monkeypatch):
    def refuse(self, *_, **__):
        raise AssertionError("a tensor was handed to NumPy: write .numpy()")

    monkeypatch.setattr(torch.Tensor, "__array__", refuse)
    yield
    plt.close("all")


def net_of_digits():
    torch.manual_seed(0)
    layers = [nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(16, 10))


def test_the_fixture_notices_a_tensor_in_a_numpy_array():
    import numpy as np

    with pytest.raises(AssertionError, match="handed to NumPy"):
        np.zeros(3)[:] = torch.ones(3)


def test_first_look_of_24():
    figure, sentence = quantization.first_look(net_of_digits(), {32: 97.0, 3: 96.0})
    assert len(figure.axes) == 2 and "twelve hidden units" in sentence


def test_book_of_24():
    w_N = net_of_digits()[2].weight.data.flatten()
    marks = {name: (w_N * 4).round() / 4 for name in ("even", "best", "free")}
    figure, _ = quantization.book(w_N, marks, dict.fromkeys(marks, 0.1))
    assert len(figure.axes[0].lines) == 3


def test_outliers_of_24():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    figure, _ = quantization.outliers(model, net_of_digits())
    assert len(figure.axes) == 2


def test_slips_of_17():
    gaps = {"right": torch.full((9,), 1e-17), "no exchange": torch.ones(9)}
    figure, _ = data_parallel.slips(gaps)
    assert len(figure.axes[0].lines) == 2


@pytest.mark.parametrize("view", pytorch.VIEWS)
def test_memory_of_05(view):
    figure, sentence = pytorch.memory(view)
    assert figure.axes and sentence
