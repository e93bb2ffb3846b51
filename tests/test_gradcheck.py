"""The lie detector of chapter 03: it finds a wrong rule, and says where."""

import numpy as np
import pytest

from utils.built.autograd import Tensor, record
from utils.built.gradcheck import gradcheck

RNG = np.random.default_rng(0)


def leaf(*shape):
    return Tensor(RNG.normal(size=shape), requires_grad=True)


def test_gradcheck_finds_a_wrong_rule_and_names_the_place():
    def wrong(t):
        def rule(g, inputs, out):
            grad = np.array(3 * g * inputs[0].data ** 2)
            grad[1, 0] += 0.01
            return (grad,)

        return record(t.data**3, (t,), rule)

    with pytest.raises(AssertionError, match=r"tensor 1 at \(1, 0\)"):
        gradcheck(lambda a, b: a.sum() * wrong(b), leaf(2), leaf(2, 2))
