"""The rules of chapter 03's engine that are no single line, beside torch."""

import numpy as np
import torch

from utils.built.rules import unbroadcast

RNG = np.random.default_rng(0)


def test_unbroadcast_of_every_shape():
    for small, large in (
        ((), (3,)),
        ((1,), (4,)),
        ((1, 3), (2, 4, 3)),
        ((2, 1), (2, 5)),
    ):
        grad = RNG.normal(size=large)
        want = torch.tensor(grad).sum_to_size(small).numpy()
        np.testing.assert_allclose(unbroadcast(grad, small), want)
