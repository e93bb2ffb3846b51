"""utils.built.conv and resnet: beside torch in both passes, and what later chapters need."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from utils.built import conv, resnet, train


def drawn(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(len(shape))
    return torch.randn(*shape, generator=generator, dtype=dtype)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("K", [1, 2, 3])
def test_a_layer_is_patches_times_kernels(K, padding, stride):
    x, w, b = drawn(2, 3, 7, 6), drawn(4, 3, K, K), drawn(4)
    theirs = F.conv2d(x, w, b, stride, padding)
    torch.testing.assert_close(conv.conv2d(x, w, b, stride, padding), theirs)
    assert theirs.shape[2] == conv.out_size(7, K, stride, padding)


def test_float32_agrees_to_1e_5_where_sums_stay_near_1():
    x, w = drawn(8, 32, 14, 14).float(), drawn(16, 32, 3, 3).float() / (32 * 9) ** 0.5
    gap = conv.conv2d(x, w, torch.zeros(16)) - F.conv2d(x, w)
    assert gap.abs().max() < 1e-5


def test_autograd_finds_what_conv2d_backward_says():
    x, w, b = (
        t.requires_grad_() for t in (drawn(2, 3, 6, 5), drawn(4, 3, 3, 3), drawn(4))
    )
    out = conv.conv2d(x, w, b)  # through our own patches
    g = drawn(*out.shape)
    out.backward(g)
    with torch.no_grad():
        ours = conv.conv2d_backward(g, x, w)
    for mine, leaf in zip(ours, (x, w, b)):
        torch.testing.assert_close(mine, leaf.grad)


def test_pooling_and_its_gradient():
    x = drawn(2, 3, 7, 9).requires_grad_()
    torch.testing.assert_close(conv.max_pool(x, 2), F.max_pool2d(x, 2))
    ours, theirs = (
        torch.autograd.grad(pool(x, 3).square().sum(), x)[0]
        for pool in (conv.max_pool, F.max_pool2d)
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_and_the_gradients_through_it(training):
    x, gamma, beta = (
        t.requires_grad_() for t in (drawn(4, 3, 2, 5), drawn(3), drawn(3))
    )
    mean, var = drawn(3), drawn(3) ** 2 + 0.1
    y, _ = conv.batch_norm(x, gamma, beta, (mean, var), training)
    theirs = F.batch_norm(x, mean.clone(), var.clone(), gamma, beta, training)
    g = drawn(*y.shape)
    for ours, other in zip(
        torch.autograd.grad(y, (x, gamma, beta), g),
        torch.autograd.grad(theirs, (x, gamma, beta), g),
    ):
        torch.testing.assert_close(ours, other)


def test_cost_of_the_small_networks():
    layers = [("conv", 6, 3), ("pool", 2), ("conv", 8, 3), ("mean",), ("linear", 10)]
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1),
        resnet.Mean(), nn.Linear(8, 10),
    )  # fmt: skip
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, 9, 7))
    parameters, flops = np.sum(conv.cost(layers, 3, 9, 7), axis=0)
    assert parameters == sum(p.numel() for p in net.parameters())
    assert flops == counter.get_total_flops()


def test_wilson_brackets_the_share_also_at_the_ends():
    for right, count in [(0, 10), (10, 10), (1, 2000), (1880, 2000)]:
        low, high = conv.wilson(right, count)
        assert -1e-9 <= low <= right / count <= high <= 1 + 1e-9
    assert conv.wilson(95, 100) == pytest.approx((0.888, 0.978), abs=1e-3)


# ---- networks ----


@pytest.mark.parametrize(
    ("channels", "side", "classes"), [(1, 28, 10), (3, 32, 7), (1, 8, 2)]
)
def test_both_networks_take_any_channels_sizes_and_classes(channels, side, classes):
    x = torch.zeros(4, channels, side, side)
    for net in (
        resnet.small_resnet(channels, classes, width=4),
        resnet.two_convolutions(channels, side, classes, width=4),
    ):
        assert net(x).shape == (4, classes)


def test_parameters_as_promised():
    assert sum(p.numel() for p in resnet.small_resnet().parameters()) == 77_754


def test_a_block_whose_last_norm_is_0_is_its_input():
    block = resnet.Residual(3, 3)
    nn.init.zeros_(block.norm2.weight)
    x = drawn(2, 3, 5, 4).float()
    torch.testing.assert_close(block(x), x.relu())


def test_augmentation_depends_on_seed_epoch_and_batch_alone():
    X, y = drawn(10, 1, 6, 6).float(), torch.arange(10) % 2

    def epoch(number, done=0, seed=0):
        batches = resnet.Augmented(train.loader(X, y, 4, seed=1), seed=seed)
        batches.sampler.begin(number, done)
        return [x for x, _ in batches]

    assert len(resnet.Augmented(train.loader(X, y, 4))) == 3
    for a, b in zip(epoch(2)[1:], epoch(2, done=1), strict=True):
        assert torch.equal(a, b), "cut off after one batch, it goes on with the same"
    assert not torch.equal(epoch(2)[0], epoch(3)[0])
    assert not torch.equal(epoch(2)[0], epoch(2, seed=5)[0])


def test_a_run_with_augmentation_goes_on_bit_for_bit(tmp_path):
    X, y = drawn(24, 1, 8, 8).float(), torch.arange(24) % 3

    def run(epochs, checkpoint=None):
        torch.manual_seed(0)
        net = resnet.two_convolutions(side=8, classes=3, width=2)
        batches = resnet.Augmented(train.loader(X, y, 8, seed=0))
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
        train.fit(net, batches, optimizer, epochs, checkpoint=checkpoint)
        return net[0].weight.detach()

    unbroken = run(3)
    run(1, tmp_path / "run.pt")
    assert torch.equal(unbroken, run(3, tmp_path / "run.pt"))


def test_learn_learns_and_repeats_itself():
    X = drawn(64, 1, 8, 8).float()
    y = (X[:, 0, 2:6, 2:6].mean((1, 2)) > 0).long()
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        net = resnet.two_convolutions(side=8, classes=2)
        history = resnet.learn(net, X, y, 40)
        found.append(history.losses)
    assert found[0] == found[1] and found[0][-1] < 0.5 * found[0][0]
    assert resnet.accuracy(net, X, y) > 0.9
