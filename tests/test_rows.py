"""utils/built/rows.py: every row once, in an order that seed and epoch alone decide."""

import math

import pytest
import torch

from utils.built import rows

X_ND, y_N = torch.arange(360.0).view(90, 4), torch.arange(90) % 3


@pytest.mark.parametrize("size", [0, -1, 2.5, "8", True, None])
def test_bad_batch_size(size):
    with pytest.raises(ValueError, match="whole number of rows"):
        rows.loader(X_ND, y_N, size)


def test_unequal_lengths():
    with pytest.raises(ValueError, match="90 rows and 89 labels"):
        rows.loader(X_ND, y_N[:-1], 8)


@pytest.mark.parametrize("size", [1, 7, 90, 1000])
@pytest.mark.parametrize("seed", [None, 3])
def test_every_row_once(size, seed):
    batches = rows.loader(torch.arange(90.0), torch.arange(90), size, seed)
    seen = torch.cat([y for _, y in batches])
    assert len(list(batches)) == len(batches) == math.ceil(90 / size)
    assert seen.sort().values.tolist() == list(range(90))
    assert (seen.tolist() == list(range(90))) is (seed is None)


def test_order_depends_on_seed_and_epoch_alone():
    batches = rows.loader(torch.arange(40.0), torch.arange(40), 8, seed=1)
    before = torch.get_rng_state()
    first = torch.cat([y for _, y in batches])
    assert torch.equal(torch.get_rng_state(), before), "the global dice were thrown"
    assert torch.equal(first, rows.epoch_order(40, 1, 0))
    batches.sampler.begin(5, done=2)
    assert torch.equal(
        torch.cat([y for _, y in batches]), rows.epoch_order(40, 1, 5)[16:]
    )


def test_double_becomes_float_and_labels_stay():
    X, y = next(iter(rows.loader(X_ND.double().numpy(), y_N.numpy(), 8)))
    assert (X.dtype, y.dtype) == (torch.float32, torch.int64)
