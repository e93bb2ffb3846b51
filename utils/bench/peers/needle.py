"""The digits MLP on a peer's needle (CMU 10-414, hw1 to hw4), for peers.py.

A checkout with a compiled backend that was not built runs on its numpy backend, if it
has one; a hw1, which has no nn and no optim, on its operations and its softmax_loss.
"""

import os
from contextlib import contextmanager
from importlib import import_module

import numpy as np

from utils.bench import backprop
from utils.bench.peers.imported import Peer, need


def needle(folder, place, name):
    "-> {row: function -> Ratio}, the peer's version."
    peer, remark, task = Peer(folder, place), "", backprop.Digits(epochs=1)

    def player(task):
        "The peer as (train, logits) of the task."
        step, net = peer.inside(lambda: _network(peer.name, task))()
        batches = [(X_ND, y_N.astype(np.uint8)) for X_ND, y_N in task.batches]

        def train(part):
            for X_ND, y_N in batches[part]:
                step(X_ND, y_N)

        return peer.inside(train), peer.inside(lambda: net(task.X_test).numpy())

    try:
        player(task)[0](slice(1))
    except ImportError as error:
        if "compiled backend" not in str(error):
            raise
        peer, remark = Peer(folder, place), ", its numpy backend"
        try:
            with _environment(NEEDLE_BACKEND="np"):
                player(task)[0](slice(1))
        except ImportError:
            raise error from None

    def race(ours, what):
        task = backprop.Digits()
        theirs = player(task)
        pair = (task.ours(ours), theirs) if ours else (theirs, task.eager())
        return task.race(*pair, what, pairs=21)

    return {
        f"array engine over {name}":
            lambda: race(backprop.fused_step, f"fused step / {name} step"),
        f"array engine, a node each operation, over {name}":
            lambda: race(backprop.plain_step, f"plain step / {name} step"),
        f"{name} over torch eager":
            lambda: race(None, f"{name} step / torch eager step"),
    }, peer.version() + remark  # fmt: skip


@contextmanager
def _environment(**wanted):
    before = dict(os.environ)
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _network(name, task):
    "The digits MLP on the package -> step(X, y), net(X)."
    ndl = need(import_module(name), "needle", "Tensor")
    try:
        nn, optim = import_module(f"{name}.nn"), import_module(f"{name}.optim")
    except ModuleNotFoundError as error:
        if error.name not in (f"{name}.nn", f"{name}.optim"):
            raise
        return _from_operations(name, ndl, task)
    need(nn, "needle.nn", "Linear", "ReLU", "Sequential", "SoftmaxLoss")
    first, last = nn.Linear(64, 128), nn.Linear(128, 10)
    parameters = [first.weight, first.bias, last.weight, last.bias]
    for p, start in zip(parameters, task.weights):
        p.data = ndl.Tensor(start.reshape(p.shape), dtype="float32")
    net, loss = nn.Sequential(first, nn.ReLU(), last), nn.SoftmaxLoss()
    sgd = need(optim, "needle.optim", "SGD").SGD(parameters, lr=task.lr)
    reset = getattr(sgd, "reset_grad", None) or sgd.zero_grad

    def step(X_ND, y_N):
        reset()
        loss(net(ndl.Tensor(X_ND)), ndl.Tensor(y_N)).backward()
        sgd.step()

    return step, lambda X_ND: net(ndl.Tensor(X_ND))


def _from_operations(name, ndl, task):
    "The same in a hw1, which has no nn and no optim: its operations and its loss."
    try:
        theirs = import_module("apps.simple_ml")
    except ModuleNotFoundError as error:
        if error.name not in ("apps", "apps.simple_ml"):
            raise
        raise ImportError(
            "this checkout has no needle.nn with needle.optim, and no softmax_loss in "
            "apps/simple_ml.py to do without"
        ) from None
    loss = need(theirs, "apps/simple_ml.py", "softmax_loss").softmax_loss
    relu, hot = import_module(f"{name}.ops").relu, np.eye(10, dtype=np.float32)
    parameters = [
        ndl.Tensor(p.reshape(-1, p.shape[-1]), dtype="float32") for p in task.weights
    ]

    def net(X_ND):
        W1, b1, W2, b2 = parameters
        h_NH = ndl.Tensor(X_ND) @ W1
        logits_NC = relu(h_NH + b1.broadcast_to(h_NH.shape)) @ W2
        return logits_NC + b2.broadcast_to(logits_NC.shape)

    def step(X_ND, y_N):
        loss(net(X_ND), ndl.Tensor(hot[y_N])).backward()
        parameters[:] = [
            ndl.Tensor(p.numpy() - task.lr * p.grad.numpy(), dtype="float32")
            for p in parameters
        ]

    return step, net
