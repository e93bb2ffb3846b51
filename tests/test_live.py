"""The meter of live bytes: equal to what one counts by hand, to the byte."""

import gc
import sys

import cloudpickle
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from utils import ranks
from utils.built.live import Live, held, stored

cloudpickle.register_pickle_by_value(sys.modules[__name__])
KIB = 1024  # bytes of 256 numbers of float32


def test_a_storage_counts_once_and_a_slice_keeps_the_whole():
    x = torch.ones(256)
    assert stored(x) == stored(x, x.view(16, 16), [x[1:], x[::2]]) == KIB
    assert stored({"a": x[:1], "b": None}, iter([torch.ones(2)])) == KIB + 8
    assert stored() == stored(None, []) == 0
    x.untyped_storage().resize_(0)
    assert stored(x) == 0


@pytest.mark.parametrize("what", [3, "a word", [torch.ones(1), 2.0], object()])
def test_what_holds_no_tensors_is_refused(what):
    with pytest.raises(TypeError, match="tensors, or lists of them, not"):
        stored(what)
    with pytest.raises(TypeError, match="tensors, or lists of them, not"):
        Live(what)


def test_an_optimizer_holds_its_moments():
    model = nn.Linear(16, 16)
    for kind, words in ((torch.optim.SGD, 0), (torch.optim.AdamW, 2)):
        optimizer = kind(model.parameters(), lr=0.1)
        model(torch.ones(1, 16)).sum().backward()
        optimizer.step()
        assert stored(held(optimizer)) == words * 4 * (16 * 16 + 16)
    with pytest.raises(TypeError, match=r"one of torch\.optim"):
        held(model)


def test_bytes_and_peak_in_a_known_order():
    with Live(keep=True) as live:
        a = torch.ones(256)
        assert live.bytes == KIB
        b = a + 1
        c = b.view(2, 128)[1]  # half of b, which stays whole
        del a, b
        assert (live.bytes, live.peak) == (KIB, 2 * KIB)
        d = torch.ones(768)
        assert (live.bytes, live.peak) == (4 * KIB, 4 * KIB)
        c += 1
        del d
        live.restart()
        assert live.bytes == live.peak == KIB
        c = (c * 2).exp()  # half as long: 512 bytes each, and the whole of b
    assert (live.bytes, live.peak) == (KIB // 2, 2 * KIB)
    assert live.curve == [KIB + 512, 2 * KIB]


def test_what_was_there_counts_when_it_is_told_or_read():
    x, y = torch.ones(256), torch.ones(256)
    with Live(x) as live:
        assert live.bytes == KIB
        z = x + y
        assert live.bytes == 3 * KIB
        live.tell([x, y, z])
    assert live.bytes == 3 * KIB
    del y, z
    assert live.bytes == KIB


def test_addresses_that_are_used_again_are_new_storages():
    with Live() as live:
        for _ in range(100):
            x = torch.ones(256)
            del x
        assert (live.bytes, live.peak) == (0, KIB)


def test_a_storage_that_is_resized_is_read_again():
    with Live() as live:
        x = torch.ones(1024)
        x.untyped_storage().resize_(0)
        y = torch.ones(256)
        assert (live.bytes, live.peak) == (KIB, 4 * KIB)
        x.untyped_storage().resize_(8 * KIB)
        y += 1
        assert (live.bytes, live.peak) == (9 * KIB, 9 * KIB)


@pytest.mark.parametrize("layers", [1, 4])
def test_a_step_of_training_is_counted_by_hand(layers):
    """tanh layers of 16 x 16 without bias, 16 rows: each matrix is 1 KiB.

    Forward keeps each layer's output, which is the next one's input. Backward has, at its
    last layer, all gradients but that of the first weight, and frees outputs as it goes.
    """
    model = nn.Sequential(
        *[m for _ in range(layers) for m in (nn.Linear(16, 16, bias=False), nn.Tanh())]
    )
    X = torch.ones(16, 16)

    def step():
        with Live(X, model.parameters()) as live:
            y = model(X)
            forward = live.bytes, live.peak
            loss = y.sum()
            del y
            live.restart()
            loss.backward()
            del loss
        seen = *forward, live.bytes, live.peak
        model.zero_grad()
        assert live.bytes == KIB * (1 + layers)
        return seen

    after, peak, end, most = step()
    assert after == KIB * (1 + layers + layers)
    assert peak == after + KIB  # a product, before its tanh
    assert end == KIB * (1 + layers + layers)  # X, weights, gradients
    # at every layer backward holds two KiB more than forward left: the gradient that came
    # down and the one of the weight, or of what is below; and two numbers, loss and its 1
    assert KIB * (2 + 2 * layers) < most <= KIB * (3 + 2 * layers) + 8
    assert step() == (after, peak, end, most)


def test_recomputing_has_a_lower_peak():
    from torch.utils.checkpoint import checkpoint_sequential

    layers = [m for _ in range(8) for m in (nn.Linear(16, 16), nn.Tanh())]
    model, X = nn.Sequential(*layers), torch.ones(1024, 16, requires_grad=True)
    unit = X.nbytes

    def peak(forward):
        model.zero_grad()
        X.grad = None
        with Live(X, model.parameters()) as live:
            forward().sum().backward()
        return live.peak / unit

    kept = peak(lambda: model(X))
    recomputed = peak(lambda: checkpoint_sequential(model, 4, X, use_reentrant=False))
    assert 8 < kept < 12 and recomputed < kept - 2, (kept, recomputed)


def test_blocks_may_be_nested_and_an_error_ends_them():
    with Live() as outer:
        x = torch.ones(256)
        with pytest.raises(KeyError), Live() as inner:
            y = torch.ones(256) + x
            raise KeyError
        assert inner.bytes == 2 * KIB and outer.bytes == 2 * KIB
        z = x + 1
    assert inner.bytes == 2 * KIB and outer.bytes == 3 * KIB
    del x, y, z
    assert inner.bytes == outer.bytes == 0
    torch.ones(256)
    assert outer.peak == 3 * KIB


def test_other_devices_and_sparse_tensors_are_not_counted():
    with Live() as live:
        torch.empty(256, device="meta") + 1
        torch.ones(4, 4).to_sparse()
    assert live.bytes == 0
    with Live(device="meta") as live:
        x = torch.empty(256, device="meta")
    assert live.bytes == stored(x) == KIB


def test_the_meter_keeps_nothing_alive():
    with Live() as live:
        x = F.relu(torch.ones(256, requires_grad=True) * 2)
    del x
    gc.collect()
    assert live.bytes == 0 and not live.alive


def test_sharded_parameters_rest_as_a_share():
    "FSDP2: between steps a rank holds 1/n of weights, gradients and moments."

    def fn(rank, n):
        from torch.distributed.fsdp import fully_shard

        model = nn.Sequential(*[nn.Linear(64, 64, bias=False) for _ in range(4)])
        for layer in model:
            fully_shard(layer)
        fully_shard(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        with Live() as live:
            for _ in range(2):
                optimizer.zero_grad()
                model(torch.ones(2, 64)).sum().backward()
                optimizer.step()
        parameters = list(model.parameters())
        resting = stored(parameters, [p.grad for p in parameters], held(optimizer))
        P = 4 * 64 * 64 * 4
        return resting / P, live.peak / P

    for resting, peak in ranks.run(fn, 2, timeout=120):
        assert resting == 4 / 2
        assert resting < peak < 4.5, peak  # weights that are freed are seen to go
