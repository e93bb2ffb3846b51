"""utils/built/pruning.py and coding.py: repair is least squares, what is coded comes back."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from utils.built import coding, pruning, quant


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sparse_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 3)
    )


# ---- pruning ----


def test_nothing_to_compensate_leaves_the_weights():
    W = numbers(4, 10)
    C = quant.input_products(numbers(50, 10, seed=1))
    all_stay = lambda score: torch.ones_like(score, dtype=torch.bool)  # noqa: E731
    assert torch.allclose(pruning.compensated(W, C, all_stay, block=4), W, atol=1e-6)


@pytest.mark.parametrize("block", [1, 3, 4, 64])
def test_the_last_columns_repair_as_least_squares_does(block):
    "The first three of eight inputs are removed: the others are refitted, whatever the block."
    W, X = numbers(5, 8).double(), numbers(60, 8, seed=1).double()
    X[:, 3:6] += X[:, :3]
    C = (X.T @ X / len(X)).double()
    place = 0

    def choose(score):
        nonlocal place
        mask = torch.arange(place, place + score.shape[1]) >= 3
        place += score.shape[1]
        return mask.expand_as(score)

    got = pruning.compensated(W, C, choose, block)
    want = torch.linalg.lstsq(X[:, 3:], X @ W.T).solution.T
    assert (got[:, :3] == 0).all()
    assert torch.allclose(got[:, 3:], want, atol=1e-8)


def test_two_of_four_in_blocks_of_four():
    W, C = numbers(6, 12), quant.input_products(numbers(40, 12, seed=1))
    got = pruning.compensated(W, C, pruning.two_of_four, block=4)
    assert ((got != 0).reshape(-1, 4).sum(1) == 2).all()


def test_pack_24_there_and_back():
    W = numbers(6, 12)
    mask = pruning.two_of_four(W.abs())
    values, places = pruning.pack_24(W, mask)
    assert values.shape == places.shape == (6, 6) and places.max() <= 3
    assert torch.equal(pruning.unpack_24(values, places), W * mask)


def test_masked_and_plain_are_one_function():
    net, x = sparse_net(), numbers(11, 6, seed=3)
    for layer in pruning.linears(net):
        layer.weight.data *= pruning.keep_largest(layer.weight.data, 0.4)
    masked = pruning.masked(net)
    for part in pruning.linears(masked):
        part.layer.weight.data += 1  # what the mask hides does not count
    plain = pruning.plain(masked)
    assert torch.allclose(masked(x), plain(x))
    assert (
        pruning.count(plain)
        == pruning.count(net)
        == round(0.4 * 54) + round(0.4 * 63) + round(0.4 * 21)
    )


def test_gradual_reaches_its_share_and_keeps_zeros():
    X, y = numbers(300, 6, seed=4), torch.randint(0, 3, (300,))
    net = pruning.gradual(sparse_net(), X, y, 0.2, epochs=10)
    assert pruning.count(pruning.plain(net)) == round(0.2 * (54 + 63 + 21))


def test_smaller_with_all_units_is_the_same_function():
    net, X = sparse_net(), numbers(80, 6, seed=5)
    same = pruning.smaller(net, X, 1.0, repair=False)
    assert torch.allclose(same(X), net(X), atol=1e-6)
    before = [p.clone() for p in net.parameters()]
    small = pruning.smaller(net, X, 0.5)
    assert [layer.out_features for layer in pruning.linears(small)] == [4, 4, 3]
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters()))


def test_a_refit_is_closer_than_a_cut():
    net, X = sparse_net(), numbers(200, 6, seed=6)
    gap = {
        repair: (pruning.smaller(net, X, 0.6, repair)(X) - net(X)).norm().item()
        for repair in (False, True)
    }
    assert gap[True] < gap[False]


def test_the_rarest_tenth_is_a_tenth():
    folds = quant.Folds.__new__(quant.Folds)
    X, y, X_test, y_test = pruning.fold(0)
    folds.X_ND, folds.y_N = torch.cat([X, X_test]), torch.cat([y, y_test])
    folds.fold_N, folds.nets = torch.arange(len(folds.y_N)) % 3, [None] * 3
    assert int(pruning.rarest(folds).sum()) == 180


# ---- coding ----


@given(st.lists(st.integers(0, 700), max_size=12), st.integers(0, 600))
@settings(max_examples=60, deadline=None)
def test_gaps_there_and_back(zeros, after):
    bits = [b for n in zeros for b in [False] * n + [True]] + [False] * after
    mask = torch.tensor(bits, dtype=torch.bool)
    assert torch.equal(coding.from_gaps(coding.gaps(mask), mask.shape), mask)


@given(st.lists(st.booleans(), max_size=400), st.integers(1, 5))
@settings(max_examples=80, deadline=None)
def test_bits_there_and_back(bits, contexts):
    encoder = coding.Encoder()
    for place, bit in enumerate(bits):
        encoder.bit(bit, place % contexts)
    decoder = coding.Decoder(encoder.done())
    assert [decoder.bit(k % contexts) for k in range(len(bits))] == bits


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
def test_the_code_is_as_short_as_the_entropy_allows(share):
    bits = (np.random.default_rng(0).random(20_000) < share).astype(int).tolist()
    encoder = coding.Encoder()
    for bit in bits:
        encoder.bit(bit)
    least = coding.entropy(bits) / 8
    assert least - 1 < len(encoder.done()) < 1.01 * least + 4


def small_file(path, seed=0):
    codes = [torch.randint(-k, k + 1, shape, dtype=torch.int8)
             for k, shape in ((1, (9, 6)), (7, (3, 9)))]  # fmt: skip
    biases = [numbers(9, seed=seed), numbers(3, seed=seed + 1)]
    blob = coding.write_small(path, codes, [0.25, 0.125], biases)
    return codes, biases, blob


def test_a_file_there_and_back(tmp_path):
    torch.manual_seed(1)
    path = tmp_path / "net.bin"
    codes, biases, blob = small_file(path)
    assert path.read_bytes() == blob
    net = coding.read_small(path)
    for layer, q, b, scale in zip(pruning.linears(net), codes, biases, (0.25, 0.125)):
        assert torch.equal(layer.weight.data, q.float() * scale)
        assert (layer.bias - b).abs().max() <= 0.51 * b.abs().max() / 127 * 1.01
    assert net(numbers(4, 6)).shape == (4, 3)


def test_every_flipped_bit_is_refused(tmp_path):
    torch.manual_seed(2)
    _, _, blob = small_file(tmp_path / "net.bin")
    rng = random.Random(0)
    for place in rng.sample(range(8 * len(blob)), 60):
        damaged = bytearray(blob)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(ValueError, match="checksum"):
            coding.read_small(bytes(damaged))


def test_the_chapters_file_is_fifty_times_smaller():
    "One fold, fewer epochs: bytes, equal codes, and an accuracy that is one."
    X, y, X_test, y_test = pruning.fold(0)
    net = pruning.one_hidden(X, y, epochs=8)
    parts = pruning.tiny(net, X, y, epochs=8)
    encoder = coding.Encoder()
    for k, part in enumerate(parts):
        coding.code_weights(encoder, part.codes(), k)
    assert len(encoder.done()) < 38_440 / 60
    with torch.no_grad():
        hidden = torch.relu(parts[0](X_test))
        share = (parts[1](hidden).argmax(1) == y_test).float().mean()
    assert share > 0.85
