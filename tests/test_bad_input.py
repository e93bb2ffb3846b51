"""What a reader may well pass by mistake is refused, in words that name the mistake.

One row a mistake: (call, words that its message must contain). A module's rows stand in
one list; a new module adds a list to ROWS.
"""

import asyncio
import math
import re

import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from utils import check, data, given, plots
from utils.bench import recordings
from utils.built import (
    attacks,
    attention,
    autograd,
    bert,
    bpe,
    budget,
    coding,
    collectives,
    compute,
    continual,
    conv,
    cutting,
    data_parallel,
    descent,
    distill,
    drift,
    engine,
    experts,
    failures,
    federated,
    fivefold,
    fixed,
    flash,
    fleet,
    folding,
    fuse,
    gpt,
    gpu,
    gradcheck,
    graph,
    int8,
    language,
    lean,
    load,
    lora,
    muon,
    neurons,
    nn,
    onnx_file,
    optim,
    packed,
    paged,
    pipeline,
    plan,
    planner,
    pool,
    precision,
    private,
    profiling,
    pruning,
    quant,
    recurrent,
    release,
    resnet,
    roofline,
    rows,
    rules,
    saliency,
    say,
    scaling,
    sealed,
    secure,
    seq,
    served,
    sharding,
    speculative,
    streamed,
    systolic,
    tensor_parallel,
    thin,
    train,
    warps,
)
from utils.built import kernels as gpu_kernels
from utils.built.autograd import Tensor
from utils.built.tile import jit as tile_jit
from utils.built.tile import tl
from utils.built.tile_files import Descriptor, borrow
from utils.data import graphs, pictures
from utils.data.tones import tones
from utils.practice import Network, rehearse

RNG = np.random.default_rng(0)
X, y, w = np.arange(12.0).reshape(4, 3), np.array([1.0, 2.0, 3.0, 4.0]), np.ones(3)
column = y[:, None]  # (4, 1): beside (4,), NumPy makes (4, 4) of the two
W, b = np.ones((3, 2)), np.zeros(2)
z, labels = np.arange(8.0).reshape(4, 2), np.array([0, 1, 1, 0])
X_t, y_t = torch.tensor(X).float(), torch.tensor(labels)
EIGHT = "One two three four five six seven eight."


def leaf(*shape):
    return Tensor(np.ones(shape), requires_grad=True)


def model(outputs=2):
    return torch.nn.Linear(3, outputs)


def sgd(of):
    return torch.optim.SGD(of.parameters(), lr=0.1)


def fit(m=None, batches=((X_t, y_t),), optimizer=None, epochs=1, **options):
    m = model() if m is None else m
    optimizer = sgd(m) if optimizer is None else optimizer
    return train.fit(m, batches, optimizer, epochs, **options)


def step(X=X_t, y=y_t, m=None, **options):
    m = model() if m is None else m
    return train.train_step(m, X, y, sgd(m), **options)


def on_ranks(function, *inputs):
    "`function(x, comm)` on the practice network, one input a rank."
    return Network(len(inputs)).run(function, list(inputs))


def axes(*shape):
    return plots.subplots(*shape)[1]


DESCENT = [
    (lambda: descent.predict(X, column[:3], 0.0), "w_D has the shape (D,), not (3, 1)"),
    (lambda: descent.predict(X.T, w, 0.0), "w_D has D = 3, X_ND has D = 4"),
    (lambda: descent.predict(X, w, y), "b is one number, not of shape (4,)"),
    (lambda: descent.predict(X, w, None), "b holds numbers, not NoneType"),
    (lambda: descent.mse(y, column), "y_N has the shape (N,), not (4, 1)"),
    (lambda: descent.mse(y, y[:3]), "y_N has N = 3, y_hat_N has N = 4"),
    (lambda: descent.mse([], []), "of no rows"),
    (lambda: descent.numeric_gradient(w, sum), "f is a function"),
    (lambda: descent.numeric_gradient(np.sum, X), "at_P has the shape (P,)"),
    (lambda: descent.numeric_gradient(np.sin, w), "f returns one number, not"),
    (lambda: descent.numeric_gradient(np.sum, w, h=0), "h is a number above 0"),
    (lambda: descent.mse_gradient(X, column, w, 0.0), "y_N has the shape (N,)"),
    (lambda: descent.mse_gradient(X[:0], y[:0], w, 0.0), "no rows"),
    (lambda: descent.gradient_step(X, y, w, 0.0, -0.1), "lr is a number of at least 0"),
    (lambda: descent.gradient_step(X, y, w, 0.0, math.nan), "at least 0, not nan"),
    (lambda: descent.stable_rate(y), "X_ND has the shape (N, D), not (4,)"),
    (lambda: descent.standardise(X * math.nan), "empty or holds nan"),
    (lambda: descent.minibatches(4, 2.5, RNG), "size is a whole number, at least 1"),
    (lambda: descent.minibatches(4, True, RNG), "size is a whole number, at least 1"),
    (lambda: descent.minibatches(-4, 2, RNG), "N is a whole number, at least 0"),
    (lambda: descent.minibatches(4, 2, 0), "rng is np.random.default_rng(seed), not 0"),
    (lambda: descent.sgd(X, y[:3], 0.1, 1, 2), "y_N has N = 3, X_ND has N = 4"),
    (lambda: descent.sgd(X, y, 0.1, 1.5, 2), "epochs is a whole number"),
]
NEURONS = [
    (lambda: neurons.linear(X, W.T, b), "W_DH has D = 2, X_ND has D = 3"),
    (lambda: neurons.linear(X, W, column), "b_H has the shape (H,), not (4, 1)"),
    (lambda: neurons.relu("a"), "z holds numbers, not <U1"),
    (lambda: neurons.slope("Relu", y), "known: relu, tanh, sigmoid"),
    (lambda: neurons.slope(y, "relu"), "unknown bend"),
    (lambda: neurons.mlp_forward(X, []), "at least one layer"),
    (lambda: neurons.mlp_forward(X, (W, b)), "list of pairs"),
    (
        lambda: neurons.mlp_forward(X, [(W, b)], "relu"),
        "bend is a function, not 'relu'",
    ),
    (lambda: neurons.random_net(X, column, 2), "y_N has the shape (N,)"),
    (lambda: neurons.random_net(X, y, 0), "width is a whole number, at least 1"),
    (lambda: neurons.softmax(3.0), "C scores, not the shape ()"),
    (lambda: neurons.cross_entropy(z, labels[:, None]), "one class number a row"),
    (lambda: neurons.cross_entropy(z, labels + 0.5), "it is float64"),
    (lambda: neurons.cross_entropy(z, labels + 1), "a class is 0 .. 1; y has 1 .. 2"),
    (lambda: neurons.cross_entropy(labels, z), "z_NC has the shape (N, C), not (4,)"),
    (lambda: neurons.cross_entropy(z[:0], labels[:0]), "there is no row"),
    (lambda: neurons.binary_cross_entropy(column, labels), "one logit per label"),
    (lambda: neurons.binary_cross_entropy(y, 2 * labels - 1), "labels are 0 or 1"),
    (lambda: neurons.cross_entropy_gradient(z[:0], labels[:0]), "there is no row"),
    (lambda: neurons.softmax_step(X, labels, W, 0.0, 0.1), "b_H has the shape (H,)"),
    (lambda: neurons.softmax_step(X, labels, W, b, -1), "lr is a number"),
    (
        lambda: neurons.softmax_regression(X, labels[:3], 2, 0.1, 1, 2),
        "y_N has N = 3, X_ND has N = 4",
    ),
    (
        lambda: neurons.softmax_regression(X, labels, 2.0, 0.1, 1, 2),
        "C is a whole number",
    ),
    (lambda: neurons.accuracy(z, labels[:, None]), "one class number a row"),
    (lambda: neurons.accuracy(z, labels * math.nan), "it is float64"),
]
AUTOGRAD = [
    (lambda: Tensor("a"), "holds floats, not <U1"),
    (lambda: Tensor([[1, 2], [3]]), "rows of a Tensor have one length"),
    (lambda: leaf(2) + leaf(3), "add: the shapes (2,) and (3,) do not fit"),
    (lambda: bool(leaf(2)), "one number is needed"),
    (lambda: float(leaf(2)), "one number is needed"),
    (lambda: leaf(2).item(), "one number is needed; this Tensor has the shape (2,)"),
    (lambda: leaf(4, 3).reshape(5, 5), "cannot reshape (4, 3)"),
    (lambda: leaf(4, 3).transpose(0), "no order of the 2 axes"),
    (lambda: leaf(2).backward(), "starts from one number"),
    (lambda: autograd.tape_bytes(X), "a history is a Tensor's, not that of numpy.nda"),
]
RULES = [
    (lambda: rules.matmul_backward(X, X, X), "does not come from broadcasting"),
    (lambda: rules.matmul_backward(z, X, W.T), "not that of (4, 3) @ (2, 3)"),
    (lambda: rules.sum_backward(w, (4, 3), 1), "not that of the sum of (4, 3)"),
    (lambda: rules.unbroadcast(X, (5, 3)), "does not come from broadcasting (5, 3)"),
    (lambda: rules.unbroadcast(y, (4, 3)), "does not come from broadcasting (4, 3)"),
]
GRADCHECK = [
    (lambda: gradcheck.gradcheck(np.sum, X), "tensor 0 is a ndarray"),
    (lambda: gradcheck.gradcheck(leaf(2), np.sum), "f is a function"),
    (lambda: gradcheck.gradcheck(lambda t: t.sum(), Tensor(w)), "nothing to check"),
    (lambda: gradcheck.gradcheck(lambda t: 3.0, leaf(2)), "f returns a Tensor"),
    (lambda: gradcheck.gradcheck(lambda t: t, leaf(2), h=0), "h is a number above 0"),
]
NN = [
    (lambda: nn.linear(X, leaf(3, 2), leaf(2)), "not numpy.ndarray, Tensor, Tensor"),
    (lambda: nn.linear_relu(X_t, X_t, X_t), "three Tensors, not torch.Tensor"),
    (lambda: nn.linear(leaf(4, 3), leaf(2, 3), leaf(2)), "cannot take (4, 3) @ (2, 3)"),
    (lambda: nn.linear_relu_backward(z, X, W, z[:, :1]), "out_NH has H = 1"),
    (lambda: nn.cross_entropy(z, labels), "logits are a Tensor, not numpy.ndarray"),
    (lambda: nn.cross_entropy(Tensor(z), labels + 1), "labels lie in 0 .. 1"),
    (lambda: nn.softmax_cross_entropy(z, labels / 2), "labels are whole numbers"),
    (lambda: nn.softmax_cross_entropy(z, labels[:, None]), "labels (N,)"),
    (lambda: nn.MLP(3, RNG), "sizes are at least two numbers, not 3"),
    (lambda: nn.MLP((3, 2.5), RNG), "sizes[1] is a whole number"),
    (lambda: nn.MLP((3, 2), 0), "rng is np.random.default_rng(seed)"),
    (lambda: nn.MLP((3, 2), RNG, int), "parameters are floats, not int64"),
    (lambda: nn.accuracy(nn.MLP((3, 2), RNG), X, labels[:, None]), "one class number"),
    (lambda: nn.accuracy(X, X, labels), "model is a function"),
    (lambda: nn.sgd_step(leaf(2), leaf(1).sum, 0.1), "a list of Tensors"),
    (lambda: nn.sgd_step([leaf(2)], leaf(1).sum, 0.1), "are they in the loss?"),
    (lambda: nn.sgd_step([leaf(2)], lambda: 3.0, 0.1), "is a Tensor, not a float"),
    (lambda: nn.sgd_step([leaf(2)], leaf(1).sum, -1), "lr is a number"),
]
OPTIM = [
    (lambda: optim.SGD(leaf(2)), "SGD takes a list, [w] or model.parameters()"),
    (lambda: optim.Adam(nn.MLP((3, 2), RNG)), "model.parameters(), not MLP"),
    (lambda: optim.SGD([leaf(2)], "0.1"), "lr is a number of at least 0, not '0.1'"),
    (lambda: optim.SGD([leaf(2)], True), "lr is a number of at least 0, not True"),
    (lambda: optim.SGD([leaf(2)], momentum=1.0), "momentum is below 1"),
    (lambda: optim.Adam([leaf(2)], betas=0.9), "betas are two numbers"),
    (lambda: optim.RMSProp([leaf(2)], beta=1.0), "beta is below 1"),
    (lambda: optim.AdaGrad([leaf(2)], 0.1, None), "weight_decay is a number"),
    (lambda: optim.Optimizer([leaf(2)], "adam", 0.1), "rule is a function, not 'adam'"),
    (lambda: optim.warmup_cosine(-1, 0.1, 1, 5), "step is a number of at least 0"),
    (lambda: optim.warmup_cosine(0, -0.1, 1, 5), "lr is a number of at least 0"),
    (lambda: optim.he_init(0, 3, RNG), "fan_in is a whole number, at least 1"),
    (lambda: optim.he_init(3, 2.5, RNG), "fan_out is a whole number, at least 1"),
    (lambda: optim.xavier_init(3, 2, None), "rng is np.random.default_rng(seed)"),
    (lambda: optim.soft_threshold(0.5, w), "amount is a number of at least 0"),
    (lambda: optim.EarlyStopping(2.5), "patience is a whole number"),
    (lambda: optim.EarlyStopping(2).update(1.0, w), "weights is a list of arrays"),
    (lambda: optim.shift_digits(np.ones((2, 9)), 0.5, 0), "down is a whole number"),
    (lambda: optim.shift_digits(np.ones(9), 1, 0), "X_ND has the shape (N, D)"),
]
BATCHES = [
    (lambda: rows.Rows(X, None), "y holds one number or row of numbers a row"),
    (lambda: rows.Rows(X, list("abcd")), "y holds one number or row of numbers a row"),
    (lambda: rows.epoch_order(2.5, 0, 0), "N is a whole number, at least 0"),
    (lambda: rows.epoch_order(5, 0.5, 0), "seed is a whole number, not 0.5"),
    (lambda: rows.loader(X, labels, 0), "whole number of rows, at least 1, not 0"),
    (lambda: rows.loader(X, labels, 2, seed="x"), "seed is a whole number, not 'x'"),
]
TRAIN = [
    (lambda: train.pick_device("gpu"), "'gpu' is no device: cuda, mps, cpu"),
    (lambda: train.device_of(X_t), "a model is a torch.nn.Module, not Tensor"),
    (lambda: step(X), "a batch is tensors, not numpy.ndarray"),
    (lambda: step(clip=-1), "clip is a number above 0, not -1"),
    (
        lambda: step(y=torch.ones(4), m=model(1), loss=F.mse_loss),
        "outputs (4, 1), targets (4,)",
    ),
    (lambda: step(loss=lambda z, y: z), "a loss is a tensor of one number, not (4, 2)"),
    (lambda: train.train_step(model(), X_t, y_t, 0.1), "one of torch.optim, not float"),
    (lambda: train.evaluate(model(), (X_t[:2], y_t[:2])), "a batch is a pair"),
    (
        lambda: train.evaluate(model(1), [(X_t, torch.ones(4))], F.mse_loss),
        "one would be stretched",
    ),
    (lambda: fit(epochs=1.5), "epochs is a whole number, at least 1, not 1.5"),
    (lambda: fit(every=2.5), "every is a whole number, at least 1, not 2.5"),
    (lambda: fit(patience=0, validation=[(X_t, y_t)]), "patience is a whole number"),
    (lambda: fit(validation=[]), "nothing to validate on"),
    (lambda: fit(batches=iter([(X_t, y_t)])), "not list_iterator"),
    (lambda: fit(optimizer=sgd(model())), "none of this model's parameters"),
    (lambda: fit(scheduler=0.1), "scheduler has a step()"),
    (
        lambda: fit(batches=train.loader(X, labels, 2), checkpoint="/no/such/run.pt"),
        "no folder for the checkpoint",
    ),
    (lambda: train.overfit(model(), X_t, y_t, steps=0), "steps is a whole number"),
    (lambda: train.sanity(model(), X_t, y_t, 1), "classes is a whole number"),
    (lambda: step(y=y_t[:3]), "4 rows of outputs, 3 labels: a label for each row"),
    (lambda: step(y=y_t - 1), "classes have the numbers 0 to 1; these are -1 to 0"),
    (
        lambda: train.evaluate(model(), [(X_t, y_t + 5)]),
        "classes have the numbers 0 to 1; these are 5 to 6",
    ),
]
COLLECTIVES = [
    (lambda: collectives.Wire(2, 2), "rank is a whole number from 0 to 1, not 2"),
    (lambda: collectives.Wire(0, 2).send([1.0], 1), "a NumPy array, not list"),
    (lambda: collectives.pass_right(3), "held is a list"),
    (lambda: collectives.cut(10.5, 2), "whole numbers, not 10.5 and 2"),
    (
        lambda: on_ranks(collectives.ring_all_reduce, X, X),
        "x_N is flat, x.ravel(), not of shape (4, 3)",
    ),
    (lambda: on_ranks(collectives.star_all_reduce, X_t[0], X_t[0]), "torch.Tensor"),
    (lambda: on_ranks(collectives.scatter, y, None), "on every rank, not NoneType"),
    (
        lambda: on_ranks(lambda x, comm: collectives.all_gather(x, 4, comm), w[:1], w),
        "chunk of N = 4 has 2 numbers, not 1",
    ),
    (
        lambda: on_ranks(lambda x, comm: collectives.gather(x, 7, comm), w[:1], w),
        "chunk of N = 7 has 3 numbers, not 1",
    ),
    (
        lambda: on_ranks(lambda x, c: collectives.ring_in_place(x, c, x[:1]), y, y),
        "spare_N has N // n + 1 = 3 numbers",
    ),
    (lambda: collectives.fit([1, 2], [1.0]), "seconds_S has S = 1, bytes_S has S = 2"),
    (lambda: collectives.fit([8, 8], [1.0, 2.0]), "two different sizes"),
    (lambda: collectives.fit([1, 2], [-1.0, 1.0]), "seconds are above 0"),
    (lambda: collectives.cost("Ring", 4, 1, 1, 1), "'star', 'ring' or 'doubling'"),
    (lambda: collectives.cost("ring", 0, 1, 1, 1), "n is a whole number, at least 1"),
    (lambda: collectives.cost("ring", 4, 1, -1, 1), "alpha and beta are at least 0"),
    (lambda: collectives.choose(2.0, 1, 1, 1), "n is a whole number, at least 1"),
    (lambda: collectives.share("/tmp", 2, 2, 8), "rank is a whole number from 0 to 1"),
    (lambda: collectives.in_turns([len], 2), "racers is {name: function}"),
    (lambda: collectives.slowest([]), "by_rank is a list"),
    (lambda: collectives.fit([1, math.inf], [1, 2]), "bytes are finite numbers"),
    (lambda: collectives.cost("ring", 2, 8, math.nan, 1), "are at least 0"),
    (lambda: collectives.choose(3, 8, -1, 1), "size, alpha and beta are at least 0"),
]
PLOTS = [
    (lambda: plots.subplots(size=3), "size is (wide, high) in inches, not 3"),
    (lambda: plots.subplots(size=(0, 1)), "wide in inches, is a number above 0"),
    (lambda: plots.title(axes(1, 2), "Found"), "such as axes[0], not ndarray"),
    (lambda: plots.lines(axes(), [1, 2]), "series is {label: values}, not list"),
    (lambda: plots.lines(axes(), {"a": []}), "'a' is a line of numbers"),
    (lambda: plots.lines(axes(), {"a": z}), "'a' is a line of numbers"),
    (lambda: plots.show((axes().figure, EIGHT), EIGHT), "plots.show(*figures.NAME"),
    (lambda: plots.show(axes(), EIGHT), "fig is a figure"),
    (lambda: plots.show(axes().figure, "A line."), "8 words or more"),
    (lambda: plots.explore(3, a=(0, 1)), "draw is a function"),
    (lambda: plots.explore(lambda a: None, a=(0, 1)), "returns (figure, sentence)"),
    (lambda: plots.explore(lambda a: None, a=None), "is no control"),
]
CHECK = [
    (lambda: check.as_array([[1, 2], [3]]), "rows of different lengths"),
    (lambda: check.close("here", None, 1), "no numbers but None; does it return them?"),
    (lambda: check.close("here", 1, None), "what it is compared with holds no numbers"),
    (lambda: check.close("here", 1.0, 1.0, 0.1), "hint is a text, not 0.1"),
    (lambda: check.close(w, w, "here"), "name is a text"),
    (lambda: check.close("here", w, w, atol=-1), "atol is a number of at least 0"),
    (lambda: check.expect_failure(ValueError).__enter__(), "why is a text"),
    (lambda: check.expect_failure("so", "ValueError").__enter__(), "errors are kinds"),
]
DATA = [
    (lambda: data.accelerators("gpu"), "unknown kind: gpu; known: ASIC, CPU"),
    (lambda: data.accelerators(3), "unknown kind: 3"),
    (lambda: data.digits(0.2), "test is a whole number from 1 to 1796, not 0.2"),
    (lambda: data.digits(seed=-1), "seed is a whole number, at least 0"),
    (lambda: data.moons(2.5), "count is a whole number, at least 1"),
    (lambda: data.moons(10, -1), "noise is a number of at least 0"),
]
x_NCHW, w_OCKK = torch.zeros(2, 3, 5, 4), torch.zeros(4, 3, 3, 3)
RUNNING = torch.zeros(3), torch.ones(3)
CONV = [
    (lambda: conv.cross_correlate(X, w_OCKK[0, 0]), "x_HW is a tensor, not numpy.ndar"),
    (lambda: conv.cross_correlate(X_t, x_NCHW[0, 0]), "a kernel is square, not (5, 4)"),
    (lambda: conv.cross_correlate(X_t, torch.zeros(5, 5)), "does not fit into 4"),
    (lambda: conv.cross_correlate(x_NCHW, w_OCKK), "x_HW has the shape (H, W), not"),
    (lambda: conv.out_size(5, 3, 0), "stride is a whole number, at least 1"),
    (lambda: conv.out_size(5, 3, padding=-1), "padding is a whole number, at least 0"),
    (lambda: conv.out_size(5, 8, padding=1), "8 pixels does not fit into 5 + 2 * 1"),
    (lambda: conv.patches(x_NCHW[0], 3), "x_NCHW has the shape (N, C, H, W), not"),
    (lambda: conv.patches(x_NCHW, 5), "5 pixels does not fit into 4"),
    (lambda: conv.patches(x_NCHW, 3, 0), "stride is a whole number"),
    (lambda: conv.patches(x_NCHW, 3, padding=-1), "padding is a whole number"),
    (lambda: conv.conv2d(x_NCHW[:, :1], w_OCKK, 0), "have 1 channels, the kernels 3"),
    (
        lambda: conv.conv2d(x_NCHW, w_OCKK[0], 0),
        "w_OCKK has the shape (O, C, K, K), not",
    ),
    (lambda: conv.conv2d(x_NCHW, w_OCKK, torch.zeros(3)), "one bias per kernel"),
    (lambda: conv.max_pool(x_NCHW, 5), "5 pixels does not fit into 4"),
    (
        lambda: conv.conv2d_backward(x_NCHW, x_NCHW, w_OCKK),
        "the shape of the output, (2, 4, 3, 2), not (2, 3, 5, 4)",
    ),
    (lambda: conv.receptive_field([3, 3]), "a layer is (K, stride), not 3"),
    (lambda: conv.receptive_field([(3, 0)]), "stride is a whole number"),
    (lambda: conv.cost([("conv", 4)], 3, 8, 8), "('conv', 4) is no layer"),
    (lambda: conv.cost(["pool"], 3, 8, 8), "'pool' is no layer"),
    (lambda: conv.cost([("conv", 4, 2)], 3, 8, 8), "has an odd K, not 2"),
    (lambda: conv.cost([("pool", 9)], 3, 8, 8), "9 pixels does not fit into 8"),
    (lambda: conv.cost([("linear", 2.5)], 3, 8, 8), "linear's number is a whole"),
    (lambda: conv.batch_norm(X_t, 1, 0, RUNNING, True), "the shape (N, C, H, W), not"),
    (
        lambda: conv.batch_norm(x_NCHW[:1, :, :1, :1], *RUNNING, RUNNING, True),
        "one value per channel has no variance",
    ),
    (lambda: conv.wilson(11, 10), "right is a whole number from 0 to 10"),
    (
        lambda: conv.batch_norm(x_NCHW, torch.ones(2), 0, RUNNING, True),
        "gamma_C has a number per channel, (3,), not (2,)",
    ),
    (
        lambda: conv.batch_norm(x_NCHW, 1, 0, RUNNING[:1], True),
        "running is a pair, (mean, variance)",
    ),
    (
        lambda: conv.batch_norm(x_NCHW, 1, 0, RUNNING, True, -1),
        "momentum is a number of at least 0, not -1",
    ),
]
RESNET = [
    (lambda: resnet.Residual(3, 0), "O is a whole number, at least 1"),
    (lambda: resnet.small_resnet(width=2.5), "width is a whole number"),
    (lambda: resnet.two_convolutions(side=4), "side is a whole number, at least 8"),
    (lambda: resnet.flip_and_shift(x_NCHW, RNG), "rng is torch.Generator().manual_se"),
    (lambda: resnet.flip_and_shift(x_NCHW, torch.Generator(), -1), "most is a whole"),
    (lambda: resnet.flip_and_shift(X_t, torch.Generator()), "a tensor (N, C, H, W)"),
    (lambda: resnet.Augmented([(X_t, y_t)]), "what train.loader(X, y, size) gives"),
    (lambda: resnet.Augmented(train.loader(X, y, 2), 3), "change is a function"),
    (lambda: resnet.learn(model(), X_t, y_t, 0), "epochs is a whole number"),
]
PICTURES = [
    (lambda: pictures.animals(0.2), "test is a whole number from 1 to 9999"),
    (lambda: pictures.animals(seed=-1), "seed is a whole number, at least 0"),
    (lambda: pictures.groups(X), "X_NHW has the shape (N, H, W), not (4, 3)"),
    (lambda: pictures.groups(X[None], alike="0.9"), "alike is a number"),
    (lambda: pictures.split([0, 1], 3, RNG), "test is a whole number from 0 to 2"),
    (lambda: pictures.split([0, 1], 1, 7), "rng is np.random.default_rng(seed)"),
    (lambda: pictures.folders(".", size=0), "size is a whole number, at least 1"),
]
GIVEN = [
    (lambda: given.arrays(X_ND=[[1], [2, 3]]), "X_ND has rows of different lengths"),
    (lambda: given.arrays(A_NN=X), "A_NN has N = 3, A_NN has N = 4"),
    (lambda: given.number("rate", math.inf), "rate is a number of at least 0, not inf"),
    (lambda: given.whole("rows", 5, 1, 4), "rows is a whole number from 1 to 4, not 5"),
    (lambda: given.tensor("x", X), "x is a tensor, not numpy.ndarray"),
    (lambda: given.tensor("x_N", X_t, "N"), "x_N has the shape (N,), not (4, 3)"),
    (lambda: given.tensors(X_ND=X_t[0]), "X_ND has the shape (N, D), not (3,)"),
    (lambda: given.tensors(X_ND=X_t, y_N=y_t[:3]), "(3,) and (4, 3) do not fit"),
]
GPU = [
    (lambda: gpu.to_device([], "gpu"), "'gpu' is no device"),
    (lambda: gpu.chip(None), "None is no device"),
    (lambda: gpu.waiter("meta"), "no queue to wait for"),
    (lambda: gpu.seconds(1, list), "run is a function"),
    (lambda: gpu.seconds(list, list, warm_up=-1), "warm_up is a whole number"),
    (lambda: gpu.step_seconds(-1, 2, 3), "load is a number of at least 0"),
    (lambda: gpu.step_seconds(1, 2, 3, workers=0.5), "workers is a whole number"),
    (lambda: gpu.timeline(1, 2, 3, batches=0), "batches is a whole number"),
    (lambda: gpu.drain([], 0), "batch_size is a whole number"),
    (lambda: gpu.SlowDisk(8, pause=-1), "pause is a number"),
    (
        lambda: gpu.seconds(list, list, repeats=0),
        "repeats is a whole number, at least 1",
    ),
]
PRECISION = [
    (lambda: precision.value_of(1.5, 5, 10), "bits is a whole number"),
    (lambda: precision.value_of(1, 1, 10), "E is a whole number from 2 to 11"),
    (lambda: precision.round_to([1.0], 5, 10), "x is a tensor of floats"),
    (lambda: precision.bits_of(1.0, "fp8"), "'fp8' is no format: fp32"),
    (lambda: precision.amp_step(*[None] * 4, torch.float32), "torch.bfloat16 or"),
    (lambda: precision.value_of(2**16, 5, 10), "65536 does not fit into 16 bits"),
    (lambda: precision.LossScaler(0), "scale is a number above 0, not 0"),
    (
        lambda: precision.LossScaler(patience=0),
        "patience is a whole number, at least 1",
    ),
]
PROFILING = [
    (lambda: profiling.saved_bytes(abs, None), "a model is a torch.nn.Module"),
    (lambda: profiling.step_bytes([3], 4), "widths are at least two numbers"),
    (lambda: profiling.step_bytes([3, 2], 4, -1), "states is a whole number"),
    (lambda: profiling.step_flops([3, 0], 4), "widths[1] is a whole number"),
    (lambda: profiling.idle_share([(3, 1)]), "start <= end"),
    (lambda: profiling.trace(None, "step"), "run is a function"),
    (lambda: profiling.idle_share([]), "an empty trace"),
]
RECORDINGS = [
    (lambda: recordings.find({"rows": []}, "speed"), "'speed' is not measured"),
    (lambda: recordings.rate({"what": "memory"}), "'memory' has no work"),
    (lambda: recordings.recordings("nowhere"), "'nowhere' is no folder"),
]


BUDGET = [
    (lambda: budget.parameters(65, 64, 2.5, 1), "E is a whole number"),
    (lambda: budget.forward_flops(65, 64, 0, 1, 1), "L is a whole number"),
    (lambda: budget.recompute_flops(8, 1, 1, "8"), "T is a whole number"),
    (lambda: budget.activation_bytes(65, 8, 2, 1, True, 8), "B is a whole number"),
    (lambda: budget.kv_bytes(1, 0, 8, 1, 1), "groups is a whole number"),
    (lambda: budget.chip_hours(7e9, 1e12, 0), "peak is a number above 0"),
    (lambda: budget.chip_hours(7e9, 1e12, 1e15, 40), "mfu is a share of the peak"),
    (lambda: budget.bill(10, -1, 2), "watts is a number"),
    (lambda: budget.bill(10, 400, 2, pue=0.9), "pue is a number of at least 1"),
    (lambda: budget.chips_for(1e9, 0), "memory_gb is a number above 0"),
    (lambda: budget.chips_for(1e9, 80, 1), "spare is a share from 0"),
    (lambda: budget.smallest([], 1e9, 0), "most is a whole number"),
    (lambda: budget.mfu(65, 8, 1, 1, 8, 0, 1e9), "seconds is a number above 0"),
    (lambda: budget.LossOf(a_gpt(), None), "the model has learned positions"),
    (lambda: budget.counted_flops(len, [1]), "ids are whole numbers"),
]


THIN_V = torch.tensor([1.0, -2.0, 0.5])
THIN_WIRES = [
    (
        lambda: thin.quantise([1.0], 8),
        "v_P is a tensor with one axis, (P,), not list",
    ),
    (lambda: thin.quantise(THIN_V.view(1, 3), 8), "one axis, (P,), not (1, 3)"),
    (lambda: thin.quantise(THIN_V, 1), "bits is a whole number from 2 to 8, not 1"),
    (
        lambda: thin.quantise(THIN_V.long(), 8),
        "floating-point numbers, not torch.int64",
    ),
    (lambda: thin.quantise(THIN_V / 0, 8), "nan or inf"),
    (lambda: thin.pack_bits(THIN_V), "True and False, not torch.float32"),
    (
        lambda: thin.unpack_bits(torch.zeros(2, dtype=torch.uint8), 17),
        "17 bits take 3 bytes",
    ),
    (lambda: thin.unpack_bits(THIN_V, 3), "a tensor of torch.uint8, not torch.float32"),
    (lambda: thin.top_k(THIN_V, 4), "k is a whole number from 1 to 3, not 4"),
    (lambda: thin.spread(THIN_V, torch.tensor([0, 1]), 5), "3 values and 2 places"),
    (
        lambda: thin.spread(THIN_V, torch.tensor([0, 1, 5]), 5),
        "places are from 0 to 4",
    ),
    (lambda: thin.ErrorFeedback(0.5), "compress is a function, not 0.5"),
    (lambda: thin_two_shapes(), "one ErrorFeedback for each tensor"),
    (lambda: thin.power_step(X_t, X_t.T), "inside ranks.run(fn, n)"),
    (lambda: thin.exchange_signs(THIN_V), "inside ranks.run(fn, n)"),
    (lambda: thin.half_hook(None, None), "inside ranks.run(fn, n)"),
    (lambda: thin.local_round(model(), None, []), "inside ranks.run(fn, n)"),
    (lambda: thin.two_level_sum(THIN_V, None, None), "inside ranks.run(fn, n)"),
    (
        lambda: thin.outer_step(THIN_V, THIN_V, THIN_V),
        "a row of 3 weights for each rank, not (3,)",
    ),
    (
        lambda: thin.outer_step(THIN_V, THIN_V[None], THIN_V[:2]),
        "velocity_P has 3 numbers, not (2,)",
    ),
    (
        lambda: thin.talk_seconds("broadcast", 2, 8, 1e6),
        "'all_reduce' or 'all_gather', not 'broadcast'",
    ),
    (lambda: thin.talk_seconds("all_reduce", 2, 8, 0), "rate is a number above 0"),
    (lambda: fleet.start(3), "seeds is a list of whole numbers, not 3"),
    (lambda: fleet.start([-1]), "a seed is a whole number, at least 0"),
    (lambda: next(fleet.batches([0], 0, 1)), "ranks is a whole number, at least 1"),
    (
        lambda: fleet.gradients(torch.zeros(1, 2, 5), torch.zeros(1, 2, 3).long()),
        f"w has shape (S, R, {fleet.P})",
    ),
    (
        lambda: thin.outer_step(torch.ones(3), torch.ones(0, 3), torch.zeros(3)),
        "ends_RP has a row of 3 weights for each rank, not (0, 3)",
    ),
]


def thin_two_shapes():
    feedback = thin.ErrorFeedback(torch.sign)
    feedback(THIN_V)
    feedback(THIN_V[:2])


def alone(call):
    "A call of the only rank of a rehearsal."
    return lambda: rehearse(lambda rank, n: call(), 1)


def parallel(*layers, **options):
    return data_parallel.Overlapped(torch.nn.Sequential(*layers), **options)


def uneven_accumulation():
    batches = [(X_t[:k], y_t[:k]) for k in (3, 2)]
    data_parallel.accumulate(parallel(model()), None, batches)


FAILURES = [
    (lambda: failures.Folder(__file__), "is a file, not a folder"),
    (
        lambda: failures.save_sharded(None, 1, 0, 1, b""),
        "save_sharded is called inside ranks.run(fn, n)",
    ),
    (lambda: failures.save_sharded(None, -1, 0, 1, b""), "step is a whole number"),
    (
        lambda: failures.save_sharded(None, 1, 2, 2, b""),
        "rank is a whole number from 0",
    ),
    (
        lambda: failures.save_sharded(None, 1, 0, 1, y_t),
        "shard is bytes, not torch.Tensor",
    ),
    (lambda: failures.newest("run"), "folder is a Folder, not str"),
    (lambda: failures.pieces(5, 2, 3, 3), "rank is a whole number from 0 to 2"),
    (lambda: failures.pieces(5, 0, 0, 3), "n is a whole number, at least 1"),
    (lambda: failures.bounds(-1, 1, 0), "P is a whole number, at least 0"),
    (lambda: failures.ordered_mean({}, 3, len), "v from 0 to 2, at least one"),
    (lambda: failures.ordered_mean({3: X_t[0]}, 3, len), "v from 0 to 2, at least one"),
    (lambda: failures.ordered_mean({0: X_t[0]}, 3), "inside ranks.run(fn, n)"),
    (lambda: failures.catch_up(0, X_t[0]), "catch_up is called inside ranks.run"),
    (lambda: failures.catch_up(1.5, X_t[0]), "step is a whole number"),
    (lambda: failures.run_to_the_end(3, 2, len), "attempt is a function, not 3"),
    (lambda: failures.run_to_the_end(len, 0, int), "n is a whole number, at least 1"),
    (lambda: failures.add_up_or_notice(-1), "k is a whole number, at least 0"),
    (lambda: failures.killed_while(3, 1.0), "act is a function, not 3"),
    (lambda: failures.interval(0, 1, 1), "C is a number above 0"),
    (lambda: failures.interval(1, 1, 0), "n is a whole number, at least 1"),
    (lambda: failures.expected(1, 1, 1, -1, 1), "R is a number of at least 0"),
    (lambda: failures.simulate(1, 0, 1, 1, []), "tau is a number above 0"),
    (lambda: failures.simulate(0, 1, 1, 1, []), "work is a number above 0"),
    (lambda: failures.share_rows([1.0, 0.0], 3), "speeds[1] is a number above 0"),
    (lambda: failures.share_rows([1.0], 2.5), "B is a whole number, at least 0"),
    (lambda: failures.share_rows([], 2), "number of machines is a whole number"),
    (lambda: pool.choose("last", [], [], [], 0), "rule is one of first come"),
    (lambda: pool.play([(0, 3, 1)], [1.0], "first come"), "jobs[0].size is a whole"),
    (lambda: pool.play([(0, 1, 0)], [1.0], "first come"), "jobs[0].hours is a number"),
    (
        lambda: pool.play([(-1, 1, 1)], [1.0], "first come"),
        "jobs[0].arrive is a number",
    ),
    (
        lambda: pool.play([(0, 1, 1)], [1.0], "", lambda *_: None),
        "all machines are free, and nobody starts",
    ),
    (lambda: pool.judge([], [1.0], []), "number of jobs is a whole number"),
    (lambda: failures.simulate(9, 3, -1, 1, []), "C is a number of at least 0, not -1"),
    (lambda: failures.simulate(9, 3, 1, -1, []), "R is a number of at least 0, not -1"),
]


TWO_ROWS = torch.ones(2, 3)
DATA_PARALLEL = [
    (
        lambda: data_parallel.mean_of_shards(TWO_ROWS, [1]),
        "2 shards need 2 numbers of rows",
    ),
    (lambda: data_parallel.mean_of_shards(TWO_ROWS, [0, 0]), "and not all 0"),
    (lambda: data_parallel.mean_of_shards(TWO_ROWS, [3, -1]), "rows of at least 0"),
    (
        lambda: data_parallel.mean_of_shards(TWO_ROWS[0], [3, 1]),
        "a tensor of shape (R, P), a row for each shard",
    ),
    (lambda: data_parallel.mean_of_shards([[1.0]], [1]), "not [[1.0]]"),
    (lambda: data_parallel.average_gradients(model()), "inside ranks.run(fn, n)"),
    (lambda: data_parallel.synchronise(model()), "inside ranks.run(fn, n)"),
    (lambda: data_parallel.mean_over_ranks(1, 1), "inside ranks.run(fn, n)"),
    (lambda: parallel(model()), "inside ranks.run(fn, n)"),
    (lambda: data_parallel.SharedMemoryStep(model()), "inside ranks.run(fn, n)"),
    (alone(lambda: data_parallel.synchronise([1])), "torch.nn.Module, not [1]"),
    (
        alone(lambda: data_parallel.average_gradients(None)),
        "torch.nn.Module, not None",
    ),
    (lambda: data_parallel.shard_order(0, 0, 1), "N is a whole number, at least 1"),
    (
        lambda: data_parallel.shard_order(5, 3, 3),
        "rank is a whole number from 0 to 2, not 3",
    ),
    (lambda: data_parallel.shard_order(5, 0, 2.5), "world is a whole number"),
    (
        lambda: data_parallel.shard_order(5, 0, 2, epoch=-1),
        "epoch is a whole number, at least 0",
    ),
    (alone(lambda: data_parallel.mean_over_ranks(0, 0)), "there is no mean"),
    (
        alone(lambda: data_parallel.mean_over_ranks(1, -1)),
        "count is a number of at least 0",
    ),
    (
        alone(lambda: data_parallel.mean_over_ranks(math.nan, 1)),
        "total is a number",
    ),
    (
        alone(lambda: data_parallel.parallel_step(None, None, X_t[:3], y_t[:2])),
        "3 rows in X_BD and 2 in y_B",
    ),
    (
        alone(lambda: data_parallel.parallel_step(None, None, X_t[:0], y_t[:0])),
        "no rank has a row",
    ),
    (lambda: data_parallel.make_buckets([4], 0), "above 0, not 0"),
    (
        lambda: data_parallel.make_buckets([4, -1], 8),
        "sizes[1] is a number of at least 0, not -1",
    ),
    (alone(lambda: parallel(model(), cap=0)), "cap, the bytes of a bucket"),
    (
        alone(lambda: parallel(model(), model().double())),
        "have one dtype; here is torch.float32, torch.float64",
    ),
    (alone(lambda: parallel(torch.nn.Tanh())), "no trained parameter"),
    (lambda: data_parallel.accumulate(None, None, []), "at least one micro-batch"),
    (
        lambda: data_parallel.accumulate(None, None, [([], [])]),
        "parallel is Overlapped(model), not None",
    ),
    (alone(uneven_accumulation), "equally large, not of [3, 2] rows"),
    (lambda: data_parallel.timeline([1.0], []), "1 buckets and 0 times to travel"),
    (
        lambda: data_parallel.timeline([1.0], [-1.0]),
        "seconds[0] is a number of at least 0, not -1",
    ),
    (lambda: data_parallel.timeline([math.nan], [1.0]), "ready[0] is a number"),
]


def facing_pipeline_orders():
    "Rank 0 wants a gradient before rank 1 has any input."
    pipeline.simulate([[("B", 0, 0), ("F", 0, 0)], [("F", 0, 1)]], {"F": 1, "B": 2})


A_WORK = planner.Work(layers=2, width=8, hidden=16, tokens=4, sequences=4)
MODEL_PARALLEL = [
    (lambda: tensor_parallel.Enter.apply(TWO_ROWS), "inside ranks.run(fn, n)"),
    (lambda: tensor_parallel.Leave.apply(TWO_ROWS), "inside ranks.run(fn, n)"),
    (
        lambda: tensor_parallel.split_mlp(TWO_ROWS, TWO_ROWS, TWO_ROWS, 0),
        "up_HE (2, 3) and down_EH (2, 3) do not have the same hidden units",
    ),
    (
        lambda: tensor_parallel.split_attention(TWO_ROWS, TWO_ROWS, TWO_ROWS),
        "qkv is of shape (3, H, D, E), not (2, 3)",
    ),
    (lambda: tensor_parallel.zigzag(10, 2, 0), "not fall into 2 n = 4 equal chunks"),
    (lambda: tensor_parallel.zigzag(8, 2, 2), "rank is a whole number from 0 to 1"),
    (
        lambda: tensor_parallel.ring_attention(None, None, None, []),
        "inside ranks.run(fn, n)",
    ),
    (
        lambda: experts.dispatch(TWO_ROWS, torch.tensor([0, 0]), len),
        "inside ranks.run(fn, n)",
    ),
    (
        alone(lambda: experts.dispatch(TWO_ROWS, torch.tensor([0]), len)),
        "2 rows and 1 experts",
    ),
    (
        alone(lambda: experts.dispatch(TWO_ROWS, torch.tensor([0, 1]), len)),
        "experts 0 to 0, one per rank",
    ),
    (lambda: pipeline.gpipe(0, 4, 0), "p, the ranks, is a whole number, at least 1"),
    (lambda: pipeline.order_1f1b(4, 0, 0), "m, the micro-batches, is a whole number"),
    (lambda: pipeline.zero_bubble(4, 8, 4), "rank is a whole number from 0 to 3"),
    (
        lambda: pipeline.interleaved(4, 6, 0),
        "m = 6 micro-batches do not go round p = 4 ranks evenly",
    ),
    (facing_pipeline_orders, "no rank can go on; next in the orders: [('B', 0, 0)"),
    (lambda: planner.plans(0, 4, 4), "chips is a whole number, at least 1"),
    (
        alone(lambda: planner.counted_words(A_WORK, (1, 1, 1))),
        "outside ranks.run and ranks.main",
    ),
    (lambda: tensor_parallel.merge((), ()), "a block is three tensors, (o, top, mass)"),
    (
        lambda: pipeline.simulate([[("F", 0, 0)]], {}),
        "seconds says nothing of 'F': {kind: seconds}",
    ),
]
REHEARSAL = [
    (lambda: rehearse(3, 2), "3 is no function"),
    (lambda: rehearse(print, 0), "1 to 64, not 0"),
    (lambda: rehearse(print, True), "1 to 64, not True"),
    (lambda: rehearse(print, 2, seed=-1), "seed is a whole number"),
    (lambda: rehearse(print, 2, calls=3), "calls is a list"),
]


W_64, CODES = torch.ones(2, 64), torch.ones(2, 3, dtype=torch.int8)
LINEAR = torch.nn.Linear(64, 4)
DISTILLED = [
    (lambda: distill.soften(X_t, 0), "T is a number above 0, not 0"),
    (lambda: distill.soften([1.0], 1), "logits is a tensor, not list"),
    (lambda: distill.kd_loss(X_t, X_t[:, :2], y_t), "student and teacher are (N, C)"),
    (lambda: distill.kd_loss(X_t, X_t, y_t, share=2), "share is a share, from 0 to 1"),
    (lambda: distill.kd_loss(X_t, X_t, y_t.float()), "y_N holds whole numbers"),
    (lambda: distill.kd_loss(X_t, X_t, y_t + 7), "y_N holds classes from 0 to 2, not"),
    (lambda: distill.out_of_fold(len, X_t, y_t, 1), "folds is a whole number from 2"),
    (lambda: distill.out_of_fold(1, X_t, y_t, 2), "learn is a function"),
    (lambda: distill.kappa(y_t, y_t[:2]), "two labels for each row, not 4 and 2"),
    (lambda: distill.average([]), "at least one network"),
    (
        lambda: distill.average([torch.nn.Linear(2, 2), torch.nn.Linear(2, 3)]),
        "the networks have different parts",
    ),
    (lambda: lora.low_rank(X_t, 4), "r is a whole number from 1 to 3, not 4"),
    (lambda: lora.low_rank(X_t[0], 1), "W is a matrix (H, D), not of shape (3,)"),
    (lambda: lora.low_rank_for(X_t, torch.eye(2), 1), "C is (D, D) = (3, 3)"),
    (
        lambda: lora.LoRA(torch.nn.ReLU(), 1, 1),
        "layer is a torch.nn.Linear, not torch.ReLU",
    ),
    (lambda: lora.LoRA(torch.nn.Linear(3, 2), 3, 1), "r is a whole number from 1 to 2"),
    (lambda: lora.help_texts(5, 0), "words is a whole number, at least 1, not 0"),
    (lambda: lora.help_texts(0, 5), "count is a whole number, at least 1, not 0"),
    (lambda: continual.forgetting(X_t), "a square of at least two tasks, not (4, 3)"),
    (lambda: continual.fisher(torch.nn.Linear(3, 2), X_t, y_t[:2]), "4 rows, 2 labels"),
    (
        lambda: continual.fisher(torch.nn.Linear(3, 2), X_t, y_t + 7),
        "y_N holds classes from 0 to 1, not",
    ),
    (lambda: continual.Replay(0), "limit is a whole number, at least 1, not 0"),
    (
        lambda: distill.out_of_fold(max, X_t, y_t[:3], 2),
        "a label for each row, not 4 rows, 3 labels",
    ),
    (
        lambda: lora.low_rank_for(X_t[0], torch.eye(3), 1),
        "W_HD has the shape (H, D), not (3,)",
    ),
]
QUANT = [
    (lambda: quant.read_bits(110, True), "a text of 0 and 1, not 110"),
    (lambda: quant.top_of(1), "bits is a whole number from 2 to 8, not 1"),
    (
        lambda: quant.quantize([0.5], 0.1, 0, 0, 255),
        "x is a tensor of floats, not list",
    ),
    (lambda: quant.quantize(CODES, 0.1, 0, 0, 255), "not a tensor of torch.int8"),
    (lambda: quant.quantize(W_64, 0, 0, 0, 255), "scale is a number above 0, not 0"),
    (
        lambda: quant.quantize(W_64, torch.zeros(2, 1), 0, -7, 7),
        "every scale is above 0, not 0",
    ),
    (lambda: quant.quantize(W_64, 0.1, 0, 0, 1000), "low below high: 0 .. 1000"),
    (lambda: quant.quantize(W_64, 0.1, 0, 7, -7), "low below high: 7 .. -7"),
    (lambda: quant.dequantize([1, 2], 0.1), "q is a tensor of codes, not list"),
    (lambda: quant.affine(1.0, -1.0), "low is at most high, not 1.0 and -1.0"),
    (lambda: quant.affine(0.0, math.inf), "a range has finite ends"),
    (lambda: quant.affine(0.0, 1.0, 0), "bits is a whole number from 1 to 8, not 0"),
    (lambda: quant.best_scale(W_64[:0], 4, [1.0]), "x holds no number"),
    (
        lambda: quant.best_scale(W_64, 4, [-1.0]),
        "a share is a number above 0, not -1.0",
    ),
    (
        lambda: quant.group_quantize(W_64[0], 64, 4),
        "W_HD has the shape (H, D), not (64,)",
    ),
    (lambda: quant.group_quantize(W_64, 48, 4), "groups of 48 do not divide 64 inputs"),
    (lambda: quant.group_quantize(W_64, 0.5, 4), "group is a whole number, at least 1"),
    (lambda: quant.group_scales(W_64 * math.nan, 64, 4), "W_HD holds nan or inf"),
    (
        lambda: quant.group_dequantize(CODES, W_64),
        "scales of shape (2, 64) do not fit codes of shape (2, 3)",
    ),
    (lambda: quant.int_matmul(CODES, W_64), "int8 and uint8, not torch.float32"),
    (
        lambda: quant.int_matmul(CODES, CODES),
        "(B, D) and (D, H), not (2, 3) and (2, 3)",
    ),
    (
        lambda: quant.quantized_matmul(CODES, 0.5, CODES.T, 0),
        "a_zero is a whole number, not 0.5",
    ),
    (lambda: quant.Observer().see(W_64[:0]), "x holds no number"),
    (lambda: quant.Observer().see(W_64 * math.nan), "x holds nan or inf"),
    (lambda: quant.calibrate(model(), X_t), "run is a function"),
    (lambda: quant.fake_quantize(W_64, 0.1, 0), "top is a whole number, at least 1"),
    (lambda: quant.input_products(W_64[0]), "X_ND has the shape (N, D)"),
    (
        lambda: quant.compensate(W_64, torch.eye(3), W_64, 7),
        "C_DD has the shape (64, 64), not (3, 3)",
    ),
    (
        lambda: quant.compensate(W_64, torch.eye(64), W_64[:, :1], 7),
        "a scale for every weight, not (2, 1)",
    ),
    (
        lambda: quant.compensate(W_64, torch.zeros(64, 64), W_64, 7),
        "C_DD is singular",
    ),
    (lambda: quant.codebook(W_64, 4), "w_N has the shape (N,), not (2, 64)"),
    (lambda: quant.codebook(W_64[0], 0), "k is a whole number, at least 1, not 0"),
    (
        lambda: quant.choose_bits({"a": {8: 0.0}}, {"b": 3}, 9),
        "damage and sizes name the same layers",
    ),
    (lambda: quant.Folds(count=1), "count is a whole number from 2 to 20, not 1"),
    (lambda: quant.fit(model(), X_t, y_t, 1, lr=-1), "lr is a number above 0, not -1"),
    (lambda: quant.quantize(X_t, 1.0, 0.5, 0, 15), "zero is a whole number, not 0.5"),
    (
        lambda: quant.quantized_matmul(CODES[0], 0, CODES, 0),
        "codes of shapes (B, D) and (D, H)",
    ),
    (
        lambda: quant.choose_bits({"a": {8: 0.0}}, {"a": 3}, math.nan),
        "budget is a number of at least 0, not nan",
    ),
]
PACKED = [
    (lambda: packed.pack_int4(CODES + 7), "four bits hold -8 .. 7, not 8 .. 8"),
    (lambda: packed.pack_int4(W_64), "a tensor of whole numbers, not torch.float32"),
    (lambda: packed.unpack_int4(CODES, 3), "torch.uint8, not torch.int8"),
    (
        lambda: packed.unpack_int4(torch.zeros(2, dtype=torch.uint8), 9),
        "9 numbers take 5 bytes, not 2",
    ),
    (lambda: packed.pack(W_64, 4, q=CODES), "q has the shape (2, 64)"),
    (lambda: packed.pack(W_64 * 1e9, 8), "a scale does not fit in 16 bits"),
    (lambda: packed.save_packed("x", [W_64]), "tensors is {name: tensor}, not list"),
    (lambda: packed.save_packed("x", {"w": 3}), "w is a Packed matrix or a tensor"),
]
TWO_LAYERS = torch.nn.Linear(3, 2), torch.nn.Linear(4, 3)
PRUNING_MASK = torch.ones(2, 3, dtype=torch.bool)
PRUNING = [
    (lambda: pruning.keep_largest([1.0], 0.5), "W_HD is a tensor, not list"),
    (
        lambda: pruning.keep_largest(W_64[0], 0.5),
        "W_HD has the shape (H, D), not (64,)",
    ),
    (lambda: pruning.keep_largest(W_64, 50), "keep is a share, from 0 to 1, not 50"),
    (lambda: pruning.keep_largest(W_64, -0.1), "keep is a number of at least 0"),
    (lambda: pruning.global_masks(W_64, 0.5), "weights is a list of tensors"),
    (lambda: pruning.wanda(W_64, X_t, 0.5), "weights for 64 inputs, rows of 3"),
    (lambda: pruning.two_of_four(W_64[:, :6]), "groups of 4 do not divide 6 inputs"),
    (lambda: pruning.pack_24(W_64, W_64 > 0), "exactly two of every four neighbours"),
    (
        lambda: pruning.pack_24(W_64, PRUNING_MASK),
        "a mask of (2, 3) for weights of (2, 64)",
    ),
    (
        lambda: pruning.compensated(W_64, torch.eye(3), abs),
        "C_DD has the shape (64, 64)",
    ),
    (lambda: pruning.compensated(W_64, torch.zeros(64, 64), abs), "C_DD is singular"),
    (
        lambda: pruning.Masked(W_64, PRUNING_MASK),
        "layer is a torch.nn.Linear, not torch",
    ),
    (
        lambda: pruning.Masked(model(), PRUNING_MASK.float()),
        "mask is torch.bool, (2, 3)",
    ),
    (lambda: pruning.keep_at(3, 10, 0.1, 0), "stop is a share above 0"),
    (lambda: pruning.keep_at(3, 0, 0.1, 0.5), "total is a number above 0, not 0"),
    (lambda: pruning.tune(model(), X_t, y_t, 1, lr=0), "lr is a number above 0, not 0"),
    (lambda: pruning.shrink(*TWO_LAYERS, [0]), "2 outputs do not fit 4 inputs"),
    (lambda: pruning.shrink(W_64, model(), [0]), "a layer is a torch.nn.Linear, not"),
    (lambda: pruning.refit(W_64, X_t), "2 rows of inputs, 4 of targets"),
    (lambda: pruning.linears("net"), "net is a torch.nn.Module, not str"),
    (lambda: pruning.fold(5), "k is a whole number from 0 to 4, not 5"),
    (lambda: pruning.Coded(model(), 1).codes(), "there is no scale yet"),
    (lambda: coding.gaps(W_64), "a tensor of torch.bool, not torch.float32"),
    (lambda: coding.from_gaps([3, 9], (2, 5)), "run past the end of 10 weights"),
    (lambda: coding.Decoder("text"), "blob is bytes, not str"),
    (lambda: coding.write_small("x", [CODES], [1.0], []), "one entry per layer"),
    (
        lambda: coding.write_small("x", [W_64], [1.0], [X_t[0]]),
        "codes are whole numbers",
    ),
    (lambda: coding.read_small(b"short"), "5 bytes do not match their checksum"),
]
KERNELS = [
    (lambda: int8.Int4Linear(model().weight), "made of a torch.nn.Linear, not"),
    (lambda: int8.Int4Linear(LINEAR, 48), "groups of 48 do not divide 64"),
    (lambda: int8.Int8Linear(LINEAR, 0.0, 0), "scale is a number above 0, not 0.0"),
    (lambda: int8.Int8Linear(LINEAR, 0.1, 300), "zero is a whole number from 0 to"),
    (lambda: int8.works("int8"), "make is a function, not 'int8'"),
    (lambda: int8.swap_linears(LINEAR, abs), "a model with layers inside"),
    (lambda: int8.cpu_seconds([len]), "runs is {name: function}, not list"),
    (lambda: int8.cpu_seconds({"a": 3}), "runs['a'] is a function, not 3"),
    (lambda: warps.grouped(0, 4, 4, 0), "group is a whole number, at least 1, not 0"),
    (lambda: warps.grouped(0, 0, 4, 2), "rows is a whole number, at least 1, not 0"),
]
IDS, MASK = torch.ones(1, 4, dtype=torch.long), torch.ones(1, 4, dtype=torch.bool)
BERT = [
    (lambda: bert.tokenize("one text"), "a list of at least one text, not 'one text'"),
    (lambda: bert.tokenize(["a", 3]), "one of them is something else"),
    (lambda: bert.tokenize(["a"], 1000), "length is a whole number from 2 to 512"),
    (lambda: bert_of(["a"], MASK), "ids is a tensor, not list: tokenize(texts)"),
    (lambda: bert_of(IDS, MASK[:, :2]), "one shape (B, T), not (1, 4) and (1, 2)"),
    (lambda: bert_of(IDS, IDS), "torch.bool, not torch.int64"),
    (lambda: bert_of(IDS, ~MASK), "a row of the mask has no token"),
    (
        lambda: bert_of(IDS.repeat(1, 3), MASK.repeat(1, 3)),
        "a text has at most 8 tokens, not 12",
    ),
]


W_GATES, W_HH = torch.zeros(4, 6), torch.zeros(4, 4)
x_256, h_24 = torch.zeros(2, 5, 6), torch.zeros(2, 4)
COUNTED = seq.NGram([0, 1, 2, 0, 1], 3, V=3)
SEQ = [
    (lambda: seq.vocabulary(""), "a str of at least one character"),
    (lambda: seq.vocabulary(b"abc"), "text is a str"),
    (lambda: seq.vocabulary("abc")[1]("abx"), "'x' is none of the 3 known"),
    (lambda: seq.vocabulary("abc")[2]([0, 3]), "ids goes from 0 to 3; here are 0 to 2"),
    (lambda: seq.vocabulary("abc")[2]([0.5]), "ids holds whole numbers, not float64"),
    (lambda: seq.blend(1, 2, 1, 0.5, discount=2), "discount lies from 0 to 1, not 2"),
    (lambda: seq.NGram([0, 1], 3, V=2), "one row of at least 3 characters"),
    (lambda: seq.NGram([0, 1, 5], 2, V=3), "ids_N goes from 0 to 5; here are 0 to 2"),
    (lambda: seq.NGram("abc", 2, V=3), "ids_N holds numbers"),
    (lambda: seq.NGram([0, 1, 2], 2.5, V=3), "order is a whole number"),
    (lambda: seq.NGram([0, 1, 2] * 9, 20, V=63), "do not fit 64 bit"),
    (lambda: COUNTED.nats([1]), "a row has at least two characters"),
    (lambda: COUNTED.nats(2), "a row of characters or more"),
    (lambda: COUNTED.predict([[0, 1]]), "context is one row of characters, not (1, 2)"),
    (lambda: COUNTED.predict([7]), "context goes from 7 to 7"),
    (lambda: COUNTED.write([0], 5, 0), "rng is np.random.default_rng(seed)"),
    (lambda: COUNTED.write([0], -1, RNG), "count is a whole number, at least 0"),
    (lambda: seq.streams(torch.arange(5), 5, 2), "more than 5 characters, not (5,)"),
    (lambda: seq.streams(torch.zeros(5, 5), 2, 2), "one row of more than 2 characters"),
    (lambda: seq.streams(torch.arange(5), 2, 0), "T is a whole number, at least 1"),
    (lambda: seq.windows(torch.arange(5), 5), "more than 5 characters, not (5,)"),
    (lambda: seq.sharpen(h_24, 0), "temperature is a number above 0"),
    (lambda: seq.sharpen(h_24, top_k=0), "top_k is a whole number, at least 1"),
    (lambda: seq.sharpen(h_24, top_p=0), "top_p is a number above 0"),
    (lambda: seq.sharpen(y), "logits_V is a tensor of floats"),
    (lambda: seq.sample(torch.arange(5)), "logits_V is a tensor of floats"),
]
RECURRENT = [
    (lambda: recurrent.embed_gradient([0, 1], h_24, 0), "V is a whole number"),
    (
        lambda: recurrent.embed_gradient([0], h_24, 3),
        "ids_N has the shape (2,), not (1,)",
    ),
    (
        lambda: recurrent.embed_gradient([0], y, 3),
        "grad_NE is a tensor, not numpy.ndarray",
    ),
    (
        lambda: recurrent.rnn(h_24, h_24, W_GATES, W_HH, 0, 0),
        "x_BTD has the shape (B, T, D), not",
    ),
    (
        lambda: recurrent.rnn(x_256, h_24[:1], W_GATES, W_HH, 0, 0),
        "x_BTD has B = 2 rows, the state has 1",
    ),
    (
        lambda: recurrent.rnn(x_256, h_24, W_GATES.T, W_HH, 0, 0),
        "W_ih has the shape (4, 6), not (6, 4)",
    ),
    (
        lambda: recurrent.lstm_cell(x_256[:, 0], h_24, h_24, W_GATES, W_HH, 0, 0),
        "W_ih has the shape (16, 6), not (4, 6)",
    ),
    (
        lambda: recurrent.bptt(x_256, h_24, W_HH, torch.zeros(2, 5, 4), h_24),
        "out_BTH (2, 5, 4) and grad_BTH (2, 4) differ",
    ),
    (lambda: recurrent.reach(3, h_24, h_24), "run is a function, not 3"),
    (lambda: recurrent.reach(lambda h: h, h_24, h_24[:1]), "u_BH is (1, 4)"),
    (lambda: recurrent.remember(torch.nn.RNN(2, 3), 10), "lstm is an nn.LSTM"),
    (lambda: recurrent.remember(torch.nn.LSTM(2, 3), 0), "T is a number above 0"),
    (lambda: recurrent.clip([h_24], 0), "most is a number above 0"),
    (lambda: recurrent.clip([], 1), "no gradients to clip"),
    (lambda: recurrent.linear_scan(x_256, h_24), "have one shape, (B, T, D)"),
    (lambda: tones([24]), "notes_N goes from 0 to 23"),
    (lambda: tones([2], seconds=0), "seconds is a number above 0"),
    (lambda: tones([2], noise=-1), "noise is a number of at least 0"),
    (
        lambda: recurrent.rnn(x_256, h_24, W_GATES, W_HH, torch.zeros(3), 0),
        "b_ih has the shape (4,), not (3,)",
    ),
    (
        lambda: recurrent.bptt(
            x_256, h_24, W_HH[:3], torch.ones(2, 5, 4), torch.ones(2, 5, 4)
        ),
        "W_hh has the shape (4, 4), not (3, 4)",
    ),
    (
        lambda: recurrent.lstm_cell(x_256[:, 0], h_24, h_24[:1], W_GATES, W_HH, 0, 0),
        "c_BH has B = 1, x_BD has B = 2",
    ),
]


def bert_of(ids, mask):
    "A model of that kind, tiny and untrained, on these ids."
    sizes = "hidden_size vocab_size max_position_embeddings type_vocab_size"
    config = dict.fromkeys([*sizes.split(), "intermediate_size"], 8)
    more = {"layer_norm_eps": 1e-12, "num_attention_heads": 2, "num_hidden_layers": 1}
    return bert.MiniLM(config | more)(ids, mask)


TWO_EDGES = torch.tensor([[0, 1], [1, 2]])
A_33, KNOWN_3 = torch.ones(3, 3), torch.tensor([True, False, True])
GRAPH = [
    (lambda: graph.adjacency([[0, 1], [1, 3]], 3), "nodes have the numbers 0 to 2"),
    (lambda: graph.adjacency([[0, -1]], 3), "an edge names -1, 0"),
    (lambda: graph.adjacency(TWO_EDGES[0], 3), "the shape (E, 2), one row (i, j)"),
    (lambda: graph.adjacency(TWO_EDGES / 1, 3), "whole numbers, not floats"),
    (lambda: graph.adjacency(TWO_EDGES, 2.5), "N is a whole number, at least 1"),
    (
        lambda: graph.normalise(torch.ones(2, 3)),
        "A_NN has the shape (N, N), not (2, 3)",
    ),
    (lambda: graph.roughness(A_33, torch.ones(2, 1)), "H_ND has 2 rows, A_NN has 3"),
    (lambda: graph.messages(TWO_EDGES, 2), "nodes have the numbers 0 to 1"),
    (
        lambda: graph.propagate(TWO_EDGES, torch.ones(3), A_33),
        "weight_E has 3 rows, edges_E2 has 2",
    ),
    (
        lambda: graph.propagate(TWO_EDGES, torch.ones(2), A_33[:2]),
        "nodes have the numbers 0 to 1; an edge names 0, 2",
    ),
    (
        lambda: graph.edge_softmax(torch.ones(2), torch.zeros(3)),
        "target_E has 3 rows, score_E has 2",
    ),
    (
        lambda: graph.edge_attention(TWO_EDGES, A_33, A_33[:2], A_33),
        "k_ND has 2 rows, q_ND has 3",
    ),
    (lambda: graph.gcn(A_33, A_33, [A_33]), "spread is a function, not tensor"),
    (lambda: graph.gcn(abs, A_33, A_33), "weights is a list of matrices"),
    (
        lambda: graph.masked_cross_entropy(A_33, y_t[:3], torch.tensor([0, 2])),
        "known_N is a mask of True and False, not torch.int64",
    ),
    (
        lambda: graph.masked_cross_entropy(A_33, y_t[:3], ~(KNOWN_3 | True)),
        "a mean over no node",
    ),
    (
        lambda: graph.label_propagation(A_33, A_33[:2], KNOWN_3, 1),
        "Y_NC has 2 rows, A_NN has 3",
    ),
    (
        lambda: graph.label_propagation(A_33, A_33, KNOWN_3, -1),
        "steps is a whole number, at least 0",
    ),
    (lambda: graph.pool(A_33, y_t[:3], "max"), "how is 'sum' or 'mean', not 'max'"),
    (lambda: graph.pool(A_33, y_t[:2], "sum"), "graph_N has 2 rows, H_ND has 3"),
    (lambda: graph.is_equivariant(A_33, A_33, A_33), "f is a function"),
    (lambda: graph.uses_graph(None, A_33, A_33), "f is a function, not None"),
    (lambda: graph.colours(A_33, -1), "rounds is a whole number, at least 0"),
    (
        lambda: graph.gcn(lambda H: H, X_t, [torch.ones(2, 2)]),
        "weights[0] has 2 rows, its input 3 columns",
    ),
    (
        lambda: graph.label_propagation(torch.eye(4), X_t, torch.ones(3) > 0, 1),
        "known_N has 3 rows, A_NN has 4",
    ),
    (
        lambda: graph.is_equivariant(max, torch.eye(3), X_t),
        "X_ND has 4 rows, A_NN has 3",
    ),
    (lambda: graph.uses_graph(max, torch.ones(4, 3), X_t), "A_NN has the shape (N, N)"),
    (
        lambda: graph.propagate([(0, 1)], torch.ones(1), torch.ones(4)),
        "H_ND has the shape (N, D), not (4,)",
    ),
    (
        lambda: graph.edge_softmax(torch.ones(2), torch.tensor([0, -1])),
        "nodes have the numbers from 0, not -1",
    ),
]
GRAPHS = [
    (lambda: graphs.imports_of("no_such_package"), "is no installed package"),
    (lambda: graphs.imports_of("json.tool"), "is no installed package"),
    (lambda: graphs.imports_of(torch), "package is a name, such as 'sklearn'"),
    (lambda: graphs.imports_of("iniconfig"), "fewer than two sub-packages"),
    (lambda: graphs.imports_of("sklearn", classes=1), "classes is a whole number"),
    (lambda: graphs.imports_of("sklearn", words=0), "words is a whole number"),
]

QKV = torch.zeros(1, 2, 3, 4)
ids = torch.zeros(1, 3, dtype=torch.long)


def a_gpt(vocab=5, context=8, layers=1, heads=2, width=8, **options):
    return gpt.GPT(vocab, context, layers, heads, width, **options)


ATTENTION = [
    (lambda: attention.attention(QKV, QKV, QKV[..., :2, :]), "do not fit"),
    (lambda: attention.attention(QKV, QKV[..., :3], QKV), "do not fit"),
    (lambda: attention.attention([1.0], QKV, QKV), "q is a tensor, not list"),
    (
        lambda: attention.attention(QKV, QKV, QKV, torch.ones(3, 3)),
        "mask is boolean, True where one may look, not torch.float32",
    ),
    (
        lambda: attention.attention(
            torch.zeros(3, 2, 3, 4), QKV.expand(2, -1, -1, -1), QKV
        ),
        "q, k and v have the same rows and heads, not (3, 2), (2, 2), (1, 2)",
    ),
    (
        lambda: attention.attention(QKV, QKV, QKV, torch.ones(2, 3).bool()),
        "a mask for (1, 2, 3, 3) (B, H, T, S) does not have the shape (2, 3)",
    ),
    (lambda: attention.causal_mask(3, 2), "S is a whole number, at least 3, not 2"),
    (lambda: attention.window_mask(3, 3, 0), "width is a whole number, at least 1"),
    (lambda: attention.split_heads(QKV[0], 3), "4 features do not part into 3 heads"),
    (lambda: attention.repeat_heads(QKV, 3), "2 heads that are read do not divide 3"),
    (lambda: attention.rotate(QKV[..., :3], torch.arange(3)), "D is even, not 3"),
    (lambda: attention.rotate(QKV, [0, 1, 2]), "positions is a tensor, not list"),
    (
        lambda: attention.rotate(QKV, torch.arange(2)),
        "a position for each of T vectors",
    ),
    (
        lambda: attention.rotate(QKV, torch.arange(3), 0),
        "base is a number above 0, not 0",
    ),
    (
        lambda: attention.repeat_heads(X_t, 2),
        "k_BGSD has the shape (B, G, S, D), not (4, 3)",
    ),
]
GPT = [
    (lambda: a_gpt(heads=3), "not width 8, heads 3, groups 3"),
    (lambda: a_gpt(heads=4, groups=3), "not width 8, heads 4, groups 3"),
    (lambda: a_gpt(vocab=0), "vocab is a whole number, at least 1, not 0"),
    (lambda: a_gpt(norm="batch"), "norm is one of rms, layer, not 'batch'"),
    (lambda: a_gpt(positions="sinus"), "positions is one of rotary, learned, none"),
    (
        lambda: a_gpt(activation="relu"),
        "activation is one of relu2, gelu, gelu_tanh, swiglu",
    ),
    (lambda: a_gpt(heads=8), "1 per head is odd"),
    (lambda: a_gpt()(ids.float()), "torch.long, not torch.float32"),
    (lambda: a_gpt()(ids[0]), "ids have the shape (B, T), T > 0, not (3,)"),
    (lambda: a_gpt()([[1, 2]]), "torch.long, not list"),
    (
        lambda: a_gpt(context=2, positions="learned")(ids),
        "learned positions end at 2: the text is longer",
    ),
    (lambda: a_gpt().use(3), "attend is a function, not 3"),
    (lambda: gpt.generate(a_gpt(), ids, -1), "count is a whole number, at least 0"),
    (lambda: gpt.generate(a_gpt(), ids, 1, temperature=-1), "temperature is a number"),
    (lambda: gpt.Cache(0), "room is a whole number, at least 1"),
    (
        lambda: muon.Muon([torch.nn.Parameter(torch.zeros(3))]),
        "a parameter of shape (3,) wants Adam",
    ),
    (lambda: muon.Muon([torch.nn.Parameter(X_t)], lr=-1), "lr is a number"),
    (lambda: muon.Muon([torch.nn.Parameter(X_t)], beta=1), "beta is below 1, not 1"),
    (lambda: language.draw_windows(ids[0], 2, 3), "3 tokens hold no window of 3 + 1"),
    (lambda: language.Run(a_gpt(), ids[0], 0), "steps is a whole number, at least 1"),
    (
        lambda: language.Run(a_gpt(), ids[0].repeat(9), 3).go(4),
        "3 of 3 steps are left, not 4",
    ),
    (lambda: bpe.words_of(b"bytes"), "text is a str, not bytes"),
    (lambda: bpe.train_bpe(["a"], 3), "words is {word: how often}, not list"),
    (lambda: bpe.train_bpe({"a": 1}, -3), "merges is a whole number, at least 0"),
    (lambda: bpe.bits_per_byte(1.0, 0, 5), "tokens is a whole number, at least 1"),
    (lambda: bpe.bits_per_byte(-1.0, 3, 5), "nats is a number of at least 0"),
    (
        lambda: gpt.generate(None, torch.tensor([1, 2]), 1),
        "ids_BT has the shape (B, T), not (2,)",
    ),
    (lambda: gpt.draw(X_t, top=0), "top is a whole number, at least 1, not 0"),
    (lambda: muon.orthogonal(X_t[0]), "G_HD is a matrix (H, D), not of shape (3,)"),
]


def _tile_launch(body, x=None, grid=(2,), **options):
    "Programs of a kernel whose body is a function of a pointer and of 16 places."

    def kernel(x_ptr):
        body(x_ptr, tl.arange(0, 16))

    x = torch.zeros(32) if x is None else x
    return tile_jit(kernel)[grid](x, **options)


ones_16 = lambda: tl.full((16, 16), 1, dtype=tl.float32)  # noqa: E731
TILE = [
    (lambda: _tile_launch(lambda p, i: tl.load(p + i + 17)), "program 0 reaches for element 32 of x_ptr, which has 32"),
    (lambda: _tile_launch(lambda p, i: tl.store(p + i - 1, i)), "reaches for element -1 of x_ptr"),
    (lambda: _tile_launch(lambda p, i: tl.store(p + i, i)), "program 1 writes element 0 of x_ptr, which another program writes as well"),
    (lambda: _tile_launch(lambda p, i: tl.store(p + i // 2, i), grid=(1,)), "two lanes of program 0 write different values"),
    (lambda: _tile_launch(lambda p, i: tl.load(p + 0.5 * i)), "moves by whole numbers, not by float32"),
    (lambda: _tile_launch(lambda p, i: tl.load(i)), "tl.load wants a pointer, not a Block"),
    (lambda: _tile_launch(lambda p, i: tl.load(p + p)), "two pointers are added"),
    (lambda: _tile_launch(lambda p, i: tl.load(p + i, mask=i)), "a mask is true or false, not int32"),
    (lambda: _tile_launch(lambda p, i: tl.load(p + i, other=0)), "no mask here"),
    (lambda: _tile_launch(lambda p, i: tl.load(p + i, mask=i[:, None] < 3)), "does not fit the pointer's (16,)"),
    (lambda: _tile_launch(lambda p, i: tl.store(p + i, tl.arange(0, 8))), "(8,) does not fit the pointer's (16,)"),
    (lambda: _tile_launch(lambda p, i: tl.arange(0, 10)), "powers of two, not 10"),
    (lambda: _tile_launch(lambda p, i: tl.zeros((4, i), dtype=tl.float32)), "known when the kernel is compiled"),
    (lambda: _tile_launch(lambda p, i: tl.zeros((4,), dtype=float)), "a type is tl.float32"),
    (lambda: _tile_launch(lambda p, i: i + tl.arange(0, 8)), "the shapes (16,) and (8,) do not fit"),
    (lambda: _tile_launch(lambda p, i: i + "1"), "with blocks and numbers, not with a str"),
    (lambda: _tile_launch(lambda p, i: i[3]), "only [:, None] and [None, :]"),
    (lambda: _tile_launch(lambda p, i: (i < 3) and (i > 1)), "& and | in place of `and` and `or`"),
    (lambda: _tile_launch(lambda p, i: list(i)), "all its lanes work at once"),
    (lambda: _tile_launch(lambda p, i: range(i[:, None])), "a whole number is wanted"),
    (lambda: _tile_launch(lambda p, i: np.exp(i)), "ufunc"),
    (lambda: _tile_launch(lambda p, i: (1.0 * i) & 3), "want whole numbers or masks"),
    (lambda: _tile_launch(lambda p, i: tl.exp(i)), "tl.exp wants float32, not int32"),
    (lambda: _tile_launch(lambda p, i: tl.exp(0.5)), "exp wants a block, not a float"),
    (lambda: _tile_launch(lambda p, i: tl.sum(i, 1)), "axis 1 of a block (16,)"),
    (lambda: _tile_launch(lambda p, i: tl.dot(ones_16(), ones_16().to(tl.float16))), "one type for both, not float32 and float16"),
    (lambda: _tile_launch(lambda p, i: tl.dot(ones_16(), tl.full((8, 16), 1, dtype=tl.float32))), "(16, 16) and (8, 16) do not fit"),
    (lambda: _tile_launch(lambda p, i: tl.dot(tl.full((8, 16), 1, dtype=tl.float32), ones_16())), "sides of 16 or more"),
    (lambda: _tile_launch(lambda p, i: tl.dot(i[:, None] + i[None, :], i[:, None] + i[None, :])), "wants floating point"),
    (lambda: _tile_launch(lambda p, i: tl.dot(ones_16(), ones_16(), i)), "acc is (16,)"),
    (lambda: _tile_launch(lambda p, i: tl.dot(ones_16(), ones_16(), input_precision="fp32")), "'ieee' or 'tf32', not 'fp32'"),
    (lambda: _tile_launch(lambda p, i: tl.split(i)), "a last axis of 2"),
    (lambda: _tile_launch(lambda p, i: _tile_launch(lambda p, i: None)), "a kernel does not launch a kernel"),
    (lambda: _tile_launch(lambda p, i: None, x=torch.zeros(4, 4).T), "not contiguous: pass x_ptr.contiguous()"),
    (lambda: _tile_launch(lambda p, i: None, x=np.zeros((4, 4)).T), "not contiguous"),
    (lambda: _tile_launch(lambda p, i: None, x=torch.zeros(4).bfloat16()), "use float16"),
    (lambda: _tile_launch(lambda p, i: None, x=torch.zeros(4, device="meta")), "lies on meta"),
    (lambda: _tile_launch(lambda p, i: None, x=[1, 2]), "a tensor or a number, not a list"),
    (lambda: _tile_launch(lambda p, i: None, grid=(2.5,)), "a grid is (x,), (x, y) or (x, y, z), not (2.5,)"),
    (lambda: _tile_launch(lambda p, i: None, grid=(1, 1, 1, 1)), "a grid is (x,)"),
    (lambda: _tile_launch(lambda p, i: None, wrong=3), "unexpected keyword argument 'wrong'"),
    (lambda: tl.program_id(0), "tl works inside a kernel"),
    (lambda: gpu_kernels.add_kernel(1, 2, 3, 4, 5), "launch it, kernel[grid](...)"),
    (lambda: gpu_kernels.add_kernel[(1,)](y, y), "missing a required argument: 'out_ptr'"),
    (lambda: Descriptor.from_tensor(torch.zeros(3), [16]), "a tensor with two axes"),
    (lambda: borrow("no such file.py"), "No such file"),
    (lambda: warps.sectors([math.nan]), "place is a whole number, at least 0, not nan"),
    (lambda: warps.bank_conflicts([1.5]), "word is a whole number, at least 0, not 1.5"),
    (lambda: warps.sectors([1], 0), "size is a whole number, at least 1, not 0"),
    (lambda: warps.occupancy(0, 32, 0), "warps is a whole number, at least 1, not 0"),
    (lambda: warps.occupancy(4, 0, 0), "registers is a whole number, at least 1, not 0"),
    (lambda: warps.occupancy(4, 32, -1), "shared is a whole number, at least 0, not -1"),
]  # fmt: skip

SCALING = [
    (lambda: scaling.Guesser(0, 4), "V is a whole number, at least 1, not 0"),
    (lambda: scaling.train(ids.repeat(9, 3), 5, 4, steps=0), "steps is a whole number"),
    (lambda: scaling.training_flops(torch.nn.Linear(2, 3), 0.5), "tokens is a whole"),
    (lambda: scaling.fit_line([5], [2]), "at least 2 runs, sizes and losses above 0"),
    (lambda: scaling.fit_line([5, -6], [2, 1]), "sizes and losses above 0"),
    (lambda: scaling.fit_offset([5, 6, 7], [2, 1]), "do not fit"),
    (lambda: scaling.fit_offset([5, 6], [2, 1]), "at least 3 runs"),
    (lambda: scaling.isoflop([5, 6], [2, 1]), "at least 3 runs"),
    (lambda: scaling.optimum(1, 0, 1, 1, 1), "alpha is a number above 0, not 0"),
    (lambda: scaling.optimum(1, 1, 1, 1, -3), "C is a number above 0, not -3"),
    (lambda: scaling.fit_surface([5, 6], [2, 1], [2, 1]), "the same five runs or more"),
    (
        lambda: scaling.mup_rates({"w": (3, 4)}, {"v": (3, 4)}, 0.1),
        "both networks have parameters of the same names",
    ),
    (lambda: scaling.mup_rates({}, {}, -0.1), "lr is a number of at least 0"),
    (
        lambda: scaling.corrupt(ids, ids, ids, ids, 9),
        "chosen is boolean, not torch.int64",
    ),
    (lambda: scaling.finetune(torch.nn.Linear(2, 3), [], -1), "lr is a number"),
    (
        lambda: scaling.fit_line([1, math.inf], [2, 1]),
        "sizes and losses above 0 and fin",
    ),
    (
        lambda: scaling.misfit(torch.ones(4), *[torch.ones(3)] * 3),
        "p has 5 numbers, N, D and L one shape: these are (4,), (3,)",
    ),
    (
        lambda: scaling.corrupt(y_t, y_t > 0, X_t[:, 0], y_t, -1),
        "mask_id is a whole number, at least 0, not -1",
    ),
]
FLASH_Q = torch.zeros(1, 2, 5, 4)
TWO_TWO = torch.ones(1, 1, 2, 2)
FASTER = [
    (lambda: fuse.passes(torch.exp), "a graph is a torch.fx.GraphModule, not builtin"),
    (lambda: fuse.fuse([], [X_t]), "a graph is a torch.fx.GraphModule, not list"),
    (
        lambda: fuse.fuse(torch.fx.symbolic_trace(lambda x: (x + 1,)), [X_t], 0),
        "size is a whole number, at least 1",
    ),
    (lambda: flash.online_softmax([]), "there is no block"),
    (lambda: flash.flash_forward(FLASH_Q, X, X, False), "k is a tensor, not numpy"),
    (
        lambda: flash.flash_forward(FLASH_Q, FLASH_Q, FLASH_Q[..., :3], False),
        "do not fit: (1, 2, 5, 4), (1, 2, 5, 4), (1, 2, 5, 3)",
    ),
    (
        lambda: flash.flash_forward(FLASH_Q[:, :, :3], FLASH_Q, FLASH_Q, True),
        "causal needs T = S, not 3 queries and 5 keys",
    ),
    (
        lambda: flash.flash(FLASH_Q, FLASH_Q, FLASH_Q, block=0),
        "block is a whole number",
    ),
    (
        lambda: flash.flash(FLASH_Q, FLASH_Q, FLASH_Q, mask=torch.ones(5, 5).bool()),
        "flash knows no mask but causal=True",
    ),
    (lambda: lean.accumulate(None, []), "there is no row"),
    (lambda: lean.accumulate(None, [X_t]), "parts are pairs: [(X, y), ...]"),
    (lambda: lean.kept(4, 5), "k is a whole number from 1 to 4, not 5"),
    (lambda: lean.chunked_loss(X_t, X_t, y_t, 0), "chunk is a whole number"),
    (
        lambda: lean.chunked_loss(X_t, X_t[:, :2], y_t, 4),
        "do not fit: (4, 3), (4, 2), (4,)",
    ),
    (
        lambda: flash.flash_backward(*[TWO_TWO] * 4, torch.ones(2), TWO_TWO, False),
        "lse has the shape (1, 1, 2), not (2,)",
    ),
]
HARDWARE_CHIPS = [{"name": "A", "watts": 3.0}]
HARDWARE_W, HARDWARE_B = np.ones((2, 3), int), np.ones(2, int)
hardware_rows = [
    (lambda: roofline.rate(None, 1), "run is a function"),
    (lambda: roofline.rate(print, 0), "work is a number above 0"),
    (lambda: roofline.work_of("softmax", (3,)), "unknown kind 'softmax'"),
    (lambda: roofline.work_of("matmul", (3, 4)), "a shape of 3 sizes"),
    (lambda: roofline.predicted(1, 1, 0, 1), "P is a number above 0"),
    (lambda: roofline.predicted(-1, 1, 1, 1), "flop is a number of at least 0"),
    (lambda: roofline.critical_batch(2.5, 4, 4, 1, 1), "D is a whole number"),
    (lambda: roofline.misses([0], 0), "lines is a whole number"),
    (lambda: roofline.break_even(0, 1, 1), "raw is a number above 0"),
    (lambda: roofline.busy(0, 1, 1), "warps is a whole number"),
    (lambda: roofline.pareto(HARDWARE_CHIPS, {"watts": 0}), "{key: +1 or -1}"),
    (lambda: systolic.multiply(np.ones((2, 3)), np.ones((2, 3))), "do not fit"),
    (lambda: systolic.busy_share(0, 1, 1), "M is a whole number"),
    (lambda: fixed.to_fixed([0.5], 1, 0), "bits is a whole number"),
    (
        lambda: fixed.fixed_layer(np.ones((4, 3)), HARDWARE_W, HARDWARE_B, 8, 4),
        "q_BD holds whole numbers",
    ),
]


def _federated_walk(**changes):
    options = {
        "w_P": torch.zeros(2),
        "slope": lambda w, s: w,
        "n_K": [1, 1],
        "S": 1,
        "lr": 1,
    }
    return federated.fedavg_round(**{**options, **changes})


def _federated_dp(**changes):
    options = {
        "g_BP": torch.ones(3, 2), "C": 1, "sigma": 1, "noise_P": torch.ones(2), "expected": 3,
    }  # fmt: skip
    return private.private_gradient(**{**options, **changes})


FEDERATED = [
    (
        lambda: federated.forward(torch.zeros(2, 5), torch.zeros(2, 1, 64)),
        "w_KP has the shape (K, 2410) for layers (64, 32, 10), not (2, 5)",
    ),
    (
        lambda: federated.forward(torch.zeros(2, 2410), torch.zeros(3, 1, 64)),
        "(K, B, D) = (2, B, 64), not (3, 1, 64)",
    ),
    (
        lambda: federated.client_slopes(
            torch.zeros(2, 2410), torch.zeros(2, 3, 64), torch.zeros(2, 4).long()
        ),
        "y_KB has a class for each row, (2, 3), not (2, 4)",
    ),
    (lambda: _federated_walk(n_K=[0, 0]), "at least 0 and not all 0, not [0.0, 0.0]"),
    (lambda: _federated_walk(n_K=[3, -1]), "a number of rows for each client"),
    (lambda: _federated_walk(S=0), "S is a whole number, at least 1, not 0"),
    (lambda: _federated_walk(lr=0), "lr is a number above 0, not 0"),
    (lambda: _federated_walk(slope=None), "slope is a function, not None"),
    (
        lambda: federated.drift(torch.zeros(3, 2), [1, 1]),
        "a row for each of 2 clients, not the shape (3, 2)",
    ),
    (
        lambda: federated.scaffold_round(
            torch.zeros(2), torch.zeros(2), lambda w, s: w, [1, 1], 1, 1
        ),
        "c_KP has a row of 2 numbers for each of 2 clients, not the shape (2,)",
    ),
    (
        lambda: federated.fedavg_round(
            torch.ones(4), lambda w_KP, s: torch.ones(3, 4), [1, 2], 1, 0.1
        ),
        "slope gives a row for each client, (2, 4), not (3, 4)",
    ),
    (
        lambda: federated.fedavg_round(X_t, torch.zeros_like, [1, 2], 1, 0.1),
        "w_P has the shape (P,), not (4, 3)",
    ),
]
SECURE = [
    (lambda: secure.to_ring([math.nan], 4, 1), "x_P holds nan or inf"),
    (lambda: secure.to_ring([1.0], 0, 1), "scale is a number above 0, not 0"),
    (lambda: secure.from_ring(np.zeros(2), 4), "uint32, not float64"),
    (
        lambda: secure.masked(1, np.zeros(2, np.uint32), "s", {1: "t"}),
        "client 1 has no pair with itself",
    ),
    (lambda: secure.masked(1, np.zeros(2), "s", {}), "q_P holds numbers of the ring"),
    (lambda: secure.share(3, 4, 5, None), "t is a whole number from 1 to 4, not 5"),
    (lambda: secure.share(-3, 4, 2, None), "secret is a whole number from 0 to"),
    (lambda: secure.rebuild({}), "at least one share"),
    (lambda: secure.rebuild({0: 7, 1: 3}), "no x is 0"),
    (
        lambda: secure.unmask(np.zeros(2, np.uint32), {0: "s"}, {(1, 2): "t"}),
        "the pair (1, 2) is not one of a survivor and a client that dropped out",
    ),
    (
        lambda: secure.secure_sum(np.zeros((4, 2)), dropped=[4]),
        "a client that dropped out is a whole number from 0 to 3, not 4",
    ),
    (
        lambda: secure.secure_sum(np.zeros((4, 2)), dropped=(-1,)),
        "a client that dropped out is a whole number from 0 to 3, not -1",
    ),
    (
        lambda: secure.secure_sum(np.zeros((4, 2)), dropped=(1.5,)),
        "a client that dropped out is a whole number from 0 to 3, not 1.5",
    ),
    (
        lambda: secure.Client(0, 3, 2, 0).pair([5, 7]),
        "2 public keys of 3 clients",
    ),
    (
        lambda: secure.secure_sum(np.zeros((4, 2)), t=2),
        "t is a whole number from 3 to 4, not 2",
    ),
]
PRIVATE = [
    (
        lambda: private.leak_rows(torch.zeros(3, 2), torch.zeros(2)),
        "not the shapes (3, 2) and (2,)",
    ),
    (
        lambda: private.leak_rows(torch.zeros(3, 2), torch.zeros(3), -1),
        "floor is a number of at least 0",
    ),
    (lambda: private.imprint(torch.zeros(0, 4), 8, 2), "not the shape (0, 4)"),
    (lambda: _federated_dp(C=0), "C is a number above 0, not 0"),
    (lambda: _federated_dp(sigma=-1), "sigma is a number of at least 0, not -1"),
    (lambda: _federated_dp(expected=0), "expected is a number above 0, not 0"),
    (lambda: _federated_dp(noise_P=torch.ones(3)), "not (3, 2) and (3,)"),
    (lambda: private.renyi(1.5, 1, 2), "at most 1, not 1.5"),
    (lambda: private.renyi(0.5, 0, 2), "sigma is a number above 0, not 0"),
    (lambda: private.renyi(0.5, 1, 2.5), "order is a whole number, at least 2"),
    (lambda: private.epsilon(0.5, 1, 9, 0), "delta is between 0 and 1, not 0"),
]


def sharded_linear():
    "A layer, its buffer, a part, and an optimizer of something else."
    layer = torch.nn.Linear(2, 2)
    buffer = sharding.flat_views(layer, 1)
    part = sharding.my_part(buffer)
    return layer, buffer, part, torch.optim.SGD(layer.parameters(), lr=0.1)


SHARDING = [
    (lambda: sharding.words(4, 2), "stage is a whole number from 0 to 3, not 4"),
    (lambda: sharding.words(1, 0), "n is a whole number, at least 1"),
    (lambda: sharding.smallest_stage(7e9, 2, 80), "P is a whole number"),
    (lambda: sharding.smallest_stage(7, 2, 0), "memory is a number above 0"),
    (lambda: sharding.smallest_stage(7, 2, 9, -1), "activations is a number"),
    (lambda: sharding.flat_views([1], 2), "torch.nn.Module, not [1]"),
    (lambda: sharding.flat_views(torch.nn.Tanh(), 2), "no parameters"),
    (
        lambda: sharding.flat_views(torch.nn.Sequential(model(), model().double()), 2),
        "one dtype and device",
    ),
    (lambda: sharding.my_part(torch.ones(4)), "inside ranks.run(fn, n)"),
    (lambda: sharding.all_gather(torch.ones(4)), "inside ranks.run(fn, n)"),
    (lambda: sharding.Zero2(model()), "inside ranks.run(fn, n)"),
    (lambda: sharding.Zero3(model()), "inside ranks.run(fn, n)"),
    (lambda: sharding.DDP(model(), None), "inside ranks.run(fn, n)"),
    (lambda: sharding.FSDP2(model(), None), "inside ranks.run(fn, n)"),
    (lambda: sharding.clip_shard([torch.ones(2)], 1), "inside ranks.run(fn, n)"),
    (alone(lambda: sharding.all_gather(torch.ones(2, 2))), "part is a flat tensor"),
    (alone(lambda: sharding.reduce_scatter([1.0])), "whole is a flat tensor, not list"),
    (
        lambda: rehearse(lambda r, n: sharding.reduce_scatter(torch.ones(3)), 2),
        "3 numbers in 2 equal parts",
    ),
    (alone(lambda: sharding.clip_shard([], 1)), "at least one shard"),
    (alone(lambda: sharding.clip_shard([torch.ones(2)], 0)), "max_norm is a number"),
    (
        alone(lambda: sharding.zero1_step(*sharded_linear())),
        "the optimizer moves this rank's part alone",
    ),
    (alone(lambda: sharding.Zero3(torch.nn.Tanh())), "a layer with parameters"),
    (alone(lambda: sharding.Zero3(torch.nn.BatchNorm1d(3))), "without buffers"),
    (
        alone(lambda: sharding.Zero3(torch.nn.Linear(2, 2).requires_grad_(False))),
        "all of whose parameters need gradients",
    ),
    (lambda: sharding.forgetful(torch.ones(3), None), "regain is a function"),
    (
        alone(lambda: sharding.save_shards("x", [torch.ones(3)], [3, 4])),
        "1 parts and 2 sizes",
    ),
    (
        alone(lambda: sharding.save_shards("x", [], [])),
        "parts are of at least one layer, and all of one dtype",
    ),
    (
        alone(
            lambda: sharding.save_shards(
                "x", [torch.ones(3), torch.ones(2).double()], [3, 2]
            )
        ),
        "parts are of at least one layer, and all of one dtype",
    ),
    (
        alone(lambda: sharding.save_shards("x", [torch.ones(3)], [4])),
        "a part of 4 numbers on 1 ranks has 4, not 3",
    ),
    (lambda: sharding.pretend(2, 2).__enter__(), "rank is a whole number from 0 to 1"),
]

SERVED_GPT = gpt.GPT(5, 8, 1, 1, 4)
SERVED_ENGINE = engine.Engine(SERVED_GPT, slots=2, blocks=3, block=4)
SERVED_DICE = np.random.default_rng(0)
SERVING = [
    (lambda: paged.users([3], -1, 4, 16), "memory is a number of at least 0, not -1"),
    (
        lambda: paged.users([0], 99, 4, 16),
        "a length is a whole number, at least 1, not 0",
    ),
    (lambda: paged.Pool(0), "blocks is a whole number, at least 1, not 0"),
    (lambda: paged.Pool(3).release(1), "nobody has block 1"),
    (lambda: paged.Pool(3).share(3), "a block's number is a whole number from 0 to 2"),
    (lambda: paged.Pool(3, 4).extend([], 13), "4 blocks are needed, 3 are free"),
    (
        lambda: SERVED_GPT(
            torch.zeros(1, 1, dtype=torch.long),
            cache=paged.Paged(SERVED_GPT, 3, 4).rows([[1]]),
            positions=torch.tensor([[4]]),
        ),
        "position 4 in a table of 4 tokens",
    ),
    (
        lambda: SERVED_GPT(
            torch.zeros(2, 1, dtype=torch.long),
            cache=paged.Paged(SERVED_GPT, 4, 4).rows([[3, 2], [1]]),
            positions=torch.tensor([[4], [6]]),
        ),
        "position 6 in a table of 4 tokens",
    ),
    (
        lambda: engine.Engine(SERVED_GPT, slots=8, budget=8),
        "budget is a whole number, at least 9",
    ),
    (lambda: SERVED_ENGINE.add([], 3), "a list of at least one token"),
    (lambda: SERVED_ENGINE.add([5], 3), "whole numbers 0 to 4"),
    (
        lambda: SERVED_ENGINE.add([3.7], 3),
        "a list of at least one token, whole numbers",
    ),
    (
        lambda: SERVED_ENGINE.add([True], 3),
        "a list of at least one token, whole numbers",
    ),
    (
        lambda: SERVED_ENGINE.add(["3"], 3),
        "a list of at least one token, whole numbers",
    ),
    (lambda: SERVED_ENGINE.add("31", 3), "a list of at least one token, whole numbers"),
    (lambda: SERVED_ENGINE.add(3, 3), "a list of at least one token, whole numbers"),
    (
        lambda: SERVED_ENGINE.add(torch.tensor([1.0, 2.0]), 3),
        "a list of at least one token, whole numbers",
    ),
    (
        lambda: SERVED_ENGINE.add(torch.tensor([True]), 3),
        "a list of at least one token, whole numbers",
    ),
    (
        lambda: SERVED_ENGINE.add([1], True),
        "count is a whole number of tokens to write",
    ),
    (lambda: SERVED_ENGINE.add([1], 2, seed=1.5), "seed is a whole number from 0 to"),
    (lambda: SERVED_ENGINE.add([1], 2, True), "temperature is a number of at least 0"),
    (lambda: SERVED_ENGINE.add([1], 0), "count is a whole number of tokens to write"),
    (lambda: SERVED_ENGINE.add([1] * 9, 4), "more than the 12 that fit"),
    (
        lambda: SERVED_ENGINE.add([1], 2, temperature=-1),
        "temperature is a number of at least 0",
    ),
    (
        lambda: engine.count_steps([1, 2], 2, lambda waiting, running, slots: []),
        "0 requests were chosen for 2 slots",
    ),
    (
        lambda: speculative.plain(SERVED_GPT, [1], 2, 7),
        "np.random.default_rng(seed), not 7",
    ),
    (
        lambda: speculative.speculate(SERVED_GPT, None, [1], 2, 2, SERVED_DICE),
        "draft is a function, not None",
    ),
    (
        lambda: speculative.speculate(SERVED_GPT, len, [1], 2, 0, SERVED_DICE),
        "K is a whole number, at least 1, not 0",
    ),
    (lambda: speculative.per_call(-1, 2), "kept is a number of at least 0, not -1"),
    (
        lambda: paged.paged_attention(X_t, X_t, X_t, X_t, y_t),
        "q_BHD has the shape (B, H, D), not (4, 3)",
    ),
    (
        lambda: speculative.accept(np.ones(3) / 3, np.ones(4) / 4, 0, 0.5, 0.5),
        "p_V and q_V are laws of the same V tokens, not (3,) and (4,)",
    ),
    (
        lambda: speculative.accept(w / 3, w / 3, 3, 0.5, 0.5),
        "token is a whole number from 0 to 2, not 3",
    ),
]

COMPUTE_NET = torch.nn.Linear(3, 2)
COMPUTE = [
    (lambda: compute.macs([3, 2]), "net is a torch.nn.Module, not list"),
    (lambda: compute.pareto([1, 2]), "points are pairs (cost, score)"),
    (lambda: compute.pareto([(1, 2, 3)]), "points are pairs (cost, score)"),
    (lambda: compute.pareto([(1, math.nan)]), "points are finite numbers"),
    (lambda: compute.hypervolume([(1, 2)], 5), "corner is a pair"),
    (lambda: compute.cheapest([], 0.1), "no point to choose from"),
    (lambda: compute.cheapest([(1, 2)], -1), "price is a number of at least 0, not -1"),
    (lambda: compute.draw_gates([0.5], [0.5]), "a_N is a tensor, not list"),
    (
        lambda: compute.draw_gates(torch.zeros(2), torch.tensor([0.0, 0.5])),
        "u_N lies between 0 and 1",
    ),
    (lambda: compute.expected_macs([torch.ones(3)]), "two layers of units or more"),
    (lambda: compute.harden([COMPUTE_NET], []), "1 layers and 0 gates"),
    (
        lambda: compute.harden([COMPUTE_NET], [torch.ones(2)]),
        "gates[0] has 2 numbers, layers[0] has 3 inputs",
    ),
    (
        lambda: compute.harden([COMPUTE_NET], [torch.zeros(3)]),
        "gates[0] are all closed",
    ),
    (
        lambda: compute.choose_threshold(
            torch.rand(3), torch.ones(3).bool(), torch.ones(3).bool(), (5, 9), 4
        ),
        "the first network alone costs 5, more than 4",
    ),
    (
        lambda: compute.choose_threshold(
            torch.rand(3), torch.ones(2).bool(), torch.ones(3).bool(), (5, 9), 9
        ),
        "as many rows",
    ),
    (
        lambda: compute.gate_loss(torch.ones(3), torch.ones(2), torch.ones(3), 0.1),
        "as many rows",
    ),
    (
        lambda: compute.gumbel_pick(torch.zeros(3), 0, torch.full((3,), 0.5)),
        "T is a number above 0, not 0",
    ),
    (
        lambda: compute.gumbel_pick(torch.zeros(3), 1, torch.zeros(3)),
        "u_K lies between 0 and 1",
    ),
    (
        lambda: fivefold.Nets([64]),
        "of the inputs, of each hidden layer, of the outputs",
    ),
    (
        lambda: fivefold.Nets([64, 0, 10]),
        "a width is a whole number, at least 1, not 0",
    ),
    (
        lambda: fivefold.train(fivefold.Nets([64, 10]), fivefold.Digits(), 0),
        "epochs is a whole number, at least 1, not 0",
    ),
    (
        lambda: compute.gumbel_pick(torch.zeros(3), 1.0, torch.full((2,), 0.5)),
        "logits_K and u_K have one shape, not (3,) and (2,)",
    ),
    (
        lambda: compute.choose_threshold(*[torch.ones(3)] * 3, (1,), 2),
        "costs is a pair: of the first, of the second",
    ),
]


def _deployed_chain():
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())


def _climbed(steps=3, rate=0.1, start=None):
    start = torch.ones(1, 4) if start is None else start
    return attacks.pgd(
        _deployed_chain(), torch.ones(1, 4), [0], 0.1, steps, rate, start
    )


def _strengthened(**options):
    x_ND, y_N = torch.ones(2, 4), torch.tensor([0, 1])
    return attacks.strengthen(_deployed_chain(), x_ND, y_N, **options)


def _graph_without(part):
    "A file of one Relu whose graph lacks a part of it."
    f = onnx_file.field
    info = onnx_file.value_info("x", ["batch", 4])
    info = f(1, "x") if part == "type" else info
    node = f(1, "x") + f(2, "y") + (b"" if part == "operator" else f(4, "Relu"))
    weight = f(1, 2) + f(2, 1) + f(9, bytes(8 if part != "numbers" else 5))
    weight += b"" if part == "name" else f(8, "w")
    graph = f(1, node) + f(5, weight) + f(11, info)
    if part != "end":
        graph += f(12, onnx_file.value_info("y", ["batch", 4]))
    return onnx_file.model(graph if part != "kind" else graph + f(1, 7))


def _deployed_norm():
    return torch.nn.BatchNorm2d(5)


DEPLOYED = [
    (lambda: onnx_file.varint(-1), "n is a whole number from 0 to"),
    (lambda: onnx_file.varint(1.5), "n is a whole number from 0 to"),
    (lambda: onnx_file.field(0, 1), "number is a whole number from 1 to"),
    (lambda: onnx_file.onnx_bytes([torch.nn.Tanh()]), "a chain of Linear and ReLU"),
    (lambda: onnx_file.onnx_bytes([torch.nn.ReLU()]), "a chain of Linear and ReLU"),
    (lambda: onnx_file.node("Relu", "x", "y"), "inputs is a list of names, not 'x'"),
    (
        lambda: onnx_file.node("Relu", ["x"], ["y"]),
        "output is one name, a text, not ['y']",
    ),
    (
        lambda: onnx_file.value_info("x", "batch"),
        'sizes is a list, as ["batch", 64], not',
    ),
    (lambda: onnx_file.read("net.onnx"), "data is the bytes of a file, not str"),
    (lambda: onnx_file.read(b""), "no graph in it: this is no ONNX model"),
    (lambda: onnx_file.read(b"\x3a\xff"), "a number does not end"),
    (lambda: onnx_file.read(b"\x3a\x05ab"), "field 7 should have 5 bytes: cut short"),
    (
        lambda: onnx_file.read(_graph_without("operator")),
        "node 0 has no operator: field 4 is missing",
    ),
    (
        lambda: onnx_file.read(_graph_without("name")),
        "weight 0 has no name: field 8 is missing",
    ),
    (
        lambda: onnx_file.read(_graph_without("numbers")),
        "'w' has the shape (2) and 5 bytes of numbers",
    ),
    (
        lambda: onnx_file.read(_graph_without("type")),
        "an input, 'x', has no type: field 2 is missing",
    ),
    (
        lambda: onnx_file.read(_graph_without("kind")),
        "the graph: field 1 is not a message or bytes",
    ),
    (
        lambda: onnx_file.steps(_graph_without("end")),
        "the chain ends with 'y', the outputs are []: no chain",
    ),
    (
        lambda: onnx_file.run(_graph_without(""), [[1.0, 2.0]]),
        "x_BD has the shape (B, 4) here, not (1, 2)",
    ),
    (lambda: onnx_file.fields(b"\x0d1234"), "field 1 is of wire type 5, not 0 or 2"),
    (
        lambda: folding.fold(torch.nn.Linear(2, 2), _deployed_norm()),
        "fold(conv, bn) takes a Conv2d and a BatchNorm2d, not Linear and BatchNorm2d",
    ),
    (
        lambda: folding.fold(torch.nn.Conv2d(1, 4, 3), _deployed_norm()),
        "4 channels leave the convolution, 5 enter the batch norm",
    ),
    (
        lambda: folding.fold(
            torch.nn.Conv2d(1, 5, 3),
            torch.nn.BatchNorm2d(5, track_running_stats=False),
        ),
        "this batch norm keeps no running statistics",
    ),
    (lambda: load.arrivals(0, 5), "rate is a number above 0, not 0"),
    (lambda: load.arrivals(1.0, 2.5), "n is a whole number, at least 1, not 2.5"),
    (lambda: load.latencies([1, 2], [1]), "do not fit"),
    (lambda: load.queued([1, 2], [1]), "do not fit"),
    (
        lambda: load.queued([1, 0.5], [1, 1]),
        "due_N rises: request 1 is due at 0.5, before request 0 at 1",
    ),
    (lambda: load.queued([1, math.nan], [1, 1]), "due_N holds nan or inf"),
    (lambda: load.queued([1, 2], [1, math.nan]), "seconds_N holds nan or inf"),
    (lambda: load.queued([1, 2], [1, -1]), "seconds_N are at least 0, not -1"),
    (lambda: load.batched([1, 0.5], len, 1, 0), "due_N rises: request 1 is due at 0.5"),
    (lambda: load.batched([math.nan], len, 1, 0), "due_N holds nan or inf"),
    (
        lambda: load.batched([1.0], lambda rows: -1, 1, 0),
        "seconds of a batch is a number of at least 0, not -1",
    ),
    (lambda: load.latencies([math.nan], [1]), "due holds nan or inf"),
    (lambda: load.percentile([1, math.nan], 50), "x holds nan"),
    (
        lambda: asyncio.run(load.offer(1, [math.nan], [b""])),
        "due holds nan or inf",
    ),
    (
        lambda: asyncio.run(streamed.offer(1, [math.nan], [{}])),
        "due[0] is a number of at least 0, not nan",
    ),
    (lambda: load.percentile([], 50), "there is no percentile of no values"),
    (lambda: load.percentile([1.0], 0), "q is a percentage above 0 and up to 100"),
    (lambda: load.percentile([1.0], 101), "q is a percentage above 0 and up to 100"),
    (lambda: load.batched([1.0], 0.5, 4, 0), "seconds is a function, not 0.5"),
    (lambda: load.batched([1.0], len, 0, 0), "limit is a whole number, at least 1"),
    (lambda: load.batched([1.0], len, 1, -1), "wait is a number of at least 0, not -1"),
    (lambda: load.Link(0), "rate is a number above 0, not 0"),
    (lambda: served.Server("no/such.onnx"), "there is no model file"),
    (lambda: served.Server(app="streamed"), 'app is "module:function", not'),
    (lambda: cutting.best_cut([1, 2], [1], [1, 1], 5), "2 and 1 layers need as many"),
    (lambda: cutting.best_cut([1], [1], [1], 5), "one size more: 1 sizes"),
    (
        lambda: cutting.best_cut([float("nan")], [1], [1, 1], 5),
        "device[0] is a number of at least 0, not nan",
    ),
    (lambda: cutting.best_cut([1], [1], [1, 1], 0), "rate is a number above 0, not 0"),
    (lambda: sealed.manifest("no/such/folder"), "there is no folder"),
    (
        lambda: sealed.mac({"../keys": "00"}, bytes(16)),
        "'../keys' leaves the folder: it is not sealed",
    ),
    (lambda: sealed.mac({"/etc/x": "00"}, bytes(16)), "'/etc/x' leaves the folder"),
    (lambda: sealed.mac({"C:/x": "00"}, bytes(16)), "'C:/x' leaves the folder"),
    (lambda: sealed.mac({"a\\..\\b": "00"}, bytes(16)), "leaves the folder"),
    (lambda: sealed.mac({"a/./b": "00"}, bytes(16)), "leaves the folder"),
    (lambda: sealed.mac({3: "00"}, bytes(16)), "3 leaves the folder"),
    (
        lambda: sealed.mac({"a": sealed.LINK}, bytes(16)),
        "'a' is a link or no file: it is not sealed",
    ),
    (lambda: sealed.mac(["a"], bytes(16)), "a manifest is {name: digest}, not list"),
    (
        lambda: sealed.verify(".", {"../keys": "00"}, "00", bytes(16)),
        "'../keys' leaves the folder",
    ),
    (lambda: sealed.mac({}, "secret"), "a key is at least 16 random bytes"),
    (lambda: sealed.mac({}, b"short"), "a key is at least 16 random bytes"),
    (lambda: sealed.flip(b"ab", 16), "bit is a whole number from 0 to 15, not 16"),
    (
        lambda: attacks.fgsm(_deployed_chain(), 2 * torch.ones(2, 4), [0, 1], 0.1),
        "pixels lie in 0 .. 1",
    ),
    (
        lambda: attacks.fgsm(_deployed_chain(), torch.ones(2, 4), [0], 0.1),
        "2 images and 1 labels",
    ),
    (
        lambda: attacks.fgsm(_deployed_chain(), [[0.5] * 4], [0], 0.1),
        "x_BD is a tensor of floats, (B, D)",
    ),
    (
        lambda: attacks.pgd(
            _deployed_chain(), torch.ones(1, 4), [0], -0.1, 3, 0.1, torch.ones(1, 4)
        ),
        "eps is a number of at least 0, not -0.1",
    ),
    (lambda: _climbed(steps=0), "steps is a whole number, at least 1, not 0"),
    (lambda: _climbed(steps=-2), "steps is a whole number, at least 1, not -2"),
    (lambda: _climbed(rate=0), "rate is a number above 0, not 0"),
    (
        lambda: _climbed(start=torch.ones(2, 4)),
        "start_BD has the shape of x_BD, (1, 4)",
    ),
    (lambda: attacks.noise(torch.ones(1, 4), -0.1), "eps is a number of at least 0"),
    (lambda: attacks.noise(torch.ones(1, 4), 0.1, -1), "seed is a whole number"),
    (lambda: _strengthened(eps=0), "eps is a number above 0, not 0"),
    (lambda: _strengthened(eps=-0.1), "eps is a number above 0, not -0.1"),
    (lambda: _strengthened(steps=0), "steps is a whole number, at least 1, not 0"),
    (lambda: _strengthened(epochs=0), "epochs is a whole number, at least 1, not 0"),
    (
        lambda: saliency.integrated_gradients(
            _deployed_chain(), torch.ones(2, 4), torch.tensor([0]), 4
        ),
        "2 images and 1 classes",
    ),
    (
        lambda: saliency.integrated_gradients(
            _deployed_chain(), torch.ones(1, 4), torch.tensor([0]), 0
        ),
        "steps is a whole number, at least 1, not 0",
    ),
    (lambda: drift.ks([], [1.0]), "a holds at least one number, and no nan"),
    (lambda: drift.ks([1.0], [math.nan]), "b holds at least one number, and no nan"),
    (lambda: drift.ks_limit(10, 10, 1.5), "alpha is a probability between 0 and 1"),
]

CAPSTONE_SHAPE = plan.Shape(5, 8, 1, 2, 2, 8)
CAPSTONE_CHIP = {"name": "a chip", "bf16_tflops": 100.0, "bandwidth_gb_s": 500.0}
CAPSTONE = [
    (lambda: plan.size_up((5, 8, 1, 2, 2, 8), 1, 1), "shape is a Shape(V, E, L, H"),
    (
        lambda: plan.size_up(CAPSTONE_SHAPE._replace(H=3), 1, 1),
        "heads divide the width",
    ),
    (lambda: plan.size_up(CAPSTONE_SHAPE._replace(L=0), 1, 1), "L is a whole number"),
    (lambda: plan.size_up(CAPSTONE_SHAPE, 1.5, 1), "rows is a whole number"),
    (lambda: plan.fit_machine([(1.0, [1.0])]), "at least two different amounts"),
    (lambda: plan.fit_machine([(1.0, [0.0]), (2, [1])]), "takes more than 0 seconds"),
    (
        lambda: plan.fit_machine([(1, [2.0]), (2, [1.0])]),
        "more work did not take longer",
    ),
    (lambda: plan.wire(10, 0, 0, 0), "ranks is a whole number"),
    (lambda: plan.wire(10, 2, -1, 0), "alpha is a number of at least 0"),
    (lambda: plan.file_bytes([(3, 8)], 4, 3), "groups of 3 do not divide rows of 8"),
    (lambda: plan.file_bytes([(3, 8)], 9, 4), "bits is a whole number from 1 to 8"),
    (
        lambda: plan.with_kills(9, 3, (10,), (1, 1, 1)),
        "a kill is a whole number from 1",
    ),
    (lambda: plan.plan(CAPSTONE_SHAPE, None, None), "job is a Job, not NoneType"),
    (lambda: plan.score({"a": 1}, {"b": 1}), "nothing that was predicted"),
    (lambda: plan.score({"a": 1}, {"a": 0}), "measured a is a number above 0"),
    (lambda: plan.machine_of({"name": "old"}, 1e9), "old has no bf16 peak"),
    (lambda: plan.machine_of(CAPSTONE_CHIP, 1e9, 40), "mfu is a share of the peak"),
    (
        lambda: plan.card("it", {"data": "a text"}),
        "nothing of: licence, numbers, limits",
    ),
    (lambda: release.compress(a_gpt(), 5, 4), "bits is 4 or 8, not 5"),
    (lambda: release.write_folder("no", a_gpt(), "ab"), "a text of 5 characters"),
    (lambda: release.write_folder("no", a_gpt(), "abcde"), "a folder without a card"),
    (
        lambda: release.write_folder("no", a_gpt(), "abcda", card="it"),
        "a character stands for one token: ['a'] come twice",
    ),
    (
        lambda: release.write_folder(
            "no", a_gpt(), ["a", "b", "c", "d", "ef"], card="it"
        ),
        "a text of 5 characters, one per token",
    ),
    (lambda: say.say("no", "", 3), "the prompt is empty"),
    (
        lambda: say.say("no", "a", -1),
        "count is a number of characters to write, not -1",
    ),
    (lambda: say.say("no", "a", 1, math.nan), "temperature is 0 or at least 0.001"),
    (lambda: say.say("no", "a", 1, -1.0), "temperature is 0 or at least 0.001, not -1"),
    (
        lambda: release.config_of(a_gpt(tied=True), 4, 8),
        "chapter 09's own block, with no options changed",
    ),
    (lambda: release.read_folder("no such folder"), "lacks model.safetensors, config"),
    (lambda: release.snapshot(a_gpt(), [], -1), "step is a whole number, at least 0"),
    (
        lambda: release.restore({"optimizers": [], "model": {}}, a_gpt(), [1]),
        "the snapshot is of 0 optimizers, not 1",
    ),
    (
        lambda: plan.with_kills(9, 3, (), (1, 1)),
        "seconds are three: of a step, a check",
    ),
    (
        lambda: plan.with_kills(9, 3, (), (1, math.nan, 1)),
        "seconds is a number of at least 0, not nan",
    ),
]
ROWS = {
    "capstone": CAPSTONE,
    "sharding": SHARDING,
    "scaling": SCALING,
    "faster": FASTER,
    "hardware": hardware_rows,
    "attention": ATTENTION,
    "gpt": GPT,
    "descent": DESCENT,
    "neurons": NEURONS,
    "autograd": AUTOGRAD,
    "rules": RULES,
    "gradcheck": GRADCHECK,
    "nn": NN,
    "optim": OPTIM,
    "rows": BATCHES,
    "train": TRAIN,
    "collectives": COLLECTIVES,
    "plots": PLOTS,
    "check": CHECK,
    "data": DATA,
    "conv": CONV,
    "resnet": RESNET,
    "pictures": PICTURES,
    "given": GIVEN,
    "gpu": GPU,
    "precision": PRECISION,
    "profiling": PROFILING,
    "budget": BUDGET,
    "recordings": RECORDINGS,
    "data_parallel": DATA_PARALLEL,
    "model_parallel": MODEL_PARALLEL,
    "thin_wires": THIN_WIRES,
    "failures and pool": FAILURES,
    "rehearsal": REHEARSAL,
    "federated": FEDERATED,
    "secure": SECURE,
    "private": PRIVATE,
    "pruning and coding": PRUNING,
    "distill, lora, continual": DISTILLED,
    "quant": QUANT,
    "compute": COMPUTE,
    "deployed": DEPLOYED,
    "paged, engine, speculative": SERVING,
    "tile and kernels": TILE,
    "packed": PACKED,
    "kernels": KERNELS,
    "bert": BERT,
    "seq": SEQ,
    "recurrent": RECURRENT,
    "graph": GRAPH,
    "graphs": GRAPHS,
}
CASES = [
    pytest.param(call, words, id=f"{module}-{number}: {words}")
    for module, mistakes in ROWS.items()
    for number, (call, words) in enumerate(mistakes)
]


@pytest.fixture(autouse=True)
def no_figure_stays():
    yield
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize(("call", "words"), CASES)
def test_a_mistake_is_named(call, words):
    with pytest.raises(
        (AssertionError, OSError, RuntimeError, TypeError, ValueError),
        match=re.escape(words),
    ):
        call()


LISTS = {
    "predict": lambda: descent.predict(X.tolist(), w.tolist(), 1.0) - X @ w - 1,
    "mse": lambda: descent.mse([1, 2], [3, 2]) - 2,
    "mse of bytes": lambda: descent.mse(np.uint8([0]), np.uint8([200])) - 40_000,
    "torch": lambda: descent.mse(X_t[:, 0], y) - np.mean((X[:, 0] - y) ** 2),
    "accuracy": lambda: neurons.accuracy(z.tolist(), labels.tolist()) - 0.5,
    "logits of whole numbers": lambda: (
        nn.softmax_cross_entropy(z.astype(int).tolist(), labels)[0]
        - neurons.cross_entropy(z, labels)
    ),
    "a used-up list of parameters": lambda: (
        nn.sgd_step(iter([p := leaf(1)]), lambda: p.sum(), 0.25) - p.data[0] - 0.25
    ),
    "a 1-element loss is a number": lambda: float(leaf(1)) - 1,
    "NumPy's whole numbers": lambda: len(train.loader(X, labels, np.int64(2))) - 2,
}


@pytest.mark.parametrize("name", LISTS)
def test_what_is_clear_is_taken(name):
    np.testing.assert_allclose(LISTS[name](), 0, atol=1e-6)
