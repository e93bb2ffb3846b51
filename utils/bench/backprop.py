"""Chapter 03's engines beside the usual ones: PyTorch, and a scalar engine of closures.

The scalar task: two moons, 100 points, a 2-16-16-1 ReLU network, hinge loss plus a small
L2 term, full-batch steps with a learning rate that falls from 1.0 to 0.1. Both engines
get the same expressions from the same code (`moons_loss`) and must give the same loss.
"""

import gc
import math
from functools import cache
from itertools import pairwise
from operator import mul

import numpy as np

from utils.bench.ratio import Ratio, benchmark, in_turns

MOONS = (2, 16, 16, 1)
tape = []


class ClosureValue:
    """The baseline: the usual small teaching design, written for this comparison.

    Every node owns a set of the nodes it was made from and a closure that passes its
    gradient on; backward sorts the graph by a recursive walk. A closure refers to its
    node and the node to its closure: only the cyclic garbage collector can free them.
    """

    def __init__(self, data, made_from=()):
        self.data, self.grad = data, 0.0
        self.made_from, self.push = set(made_from), lambda: None

    def __add__(self, other):
        other = other if isinstance(other, ClosureValue) else ClosureValue(other)
        out = ClosureValue(self.data + other.data, (self, other))

        def push():
            self.grad += out.grad
            other.grad += out.grad

        out.push = push
        return out

    def __mul__(self, other):
        other = other if isinstance(other, ClosureValue) else ClosureValue(other)
        out = ClosureValue(self.data * other.data, (self, other))

        def push():
            self.grad += other.data * out.grad
            other.grad += self.data * out.grad

        out.push = push
        return out

    def relu(self):
        out = ClosureValue(max(self.data, 0.0), (self,))

        def push():
            self.grad += (out.data > 0) * out.grad

        out.push = push
        return out

    __radd__, __rmul__ = __add__, __mul__

    def backward(self):
        order, seen = [], set()

        def visit(node):
            if node not in seen:
                seen.add(node)
                for parent in node.made_from:
                    visit(parent)
                order.append(node)

        visit(self)
        self.grad = 1.0
        for node in reversed(order):
            node.push()


class TapeValue:
    "Chapter 03's design: slots, slopes as plain floats, and a tape in creation order."

    __slots__ = ("data", "grad", "parents", "slopes")

    def __init__(self, data, parents=(), slopes=()):
        self.data, self.grad = data, 0.0
        self.parents, self.slopes = parents, slopes
        if parents:
            tape.append(self)

    def __add__(self, other):
        if type(other) is TapeValue:
            return TapeValue(self.data + other.data, (self, other), (1.0, 1.0))
        return TapeValue(self.data + other, (self,), (1.0,))

    def __mul__(self, other):
        if type(other) is TapeValue:
            slopes = (other.data, self.data)
            return TapeValue(self.data * other.data, (self, other), slopes)
        return TapeValue(self.data * other, (self,), (other,))

    def relu(self):
        alive = self.data > 0
        return TapeValue(self.data if alive else 0.0, (self,), (float(alive),))

    __radd__, __rmul__ = __add__, __mul__

    def backward(self):
        self.grad = 1.0
        while tape:
            node = tape.pop()
            grad = node.grad
            if grad:
                for parent, slope in zip(node.parents, node.slopes):
                    parent.grad += slope * grad


def plain_neuron(w, b, x, relu):
    "b + sum of w * x, a node for each product and each sum; then ReLU."
    total = b
    for w_i, x_i in zip(w, x):
        total = total + w_i * x_i
    return total.relu() if relu else total


def fused_neuron(w, b, x, relu):
    "The same as one node: the slopes of b + sum of w * x are known at once."
    w_data = [w_i.data for w_i in w]
    made = type(x[0]) is TapeValue  # else plain numbers: nobody asks for their gradient
    x_data = [x_i.data for x_i in x] if made else x
    total = b.data + sum(map(mul, w_data, x_data))
    if relu and total <= 0:
        return TapeValue(0.0)  # nothing flows back: it needs no parents
    if made:
        return TapeValue(total, (*w, b, *x), (*x_data, 1.0, *w_data))
    return TapeValue(total, (*w, b), (*x_data, 1.0))


def moons_network(kind, sizes=MOONS, seed=0):
    "Layers of neurons (w, b), He's initial weights, the same numbers for every engine."
    rng, layers = np.random.default_rng(seed), []
    for inputs, outputs in pairwise(sizes):
        W = rng.normal(size=(outputs, inputs)) * math.sqrt(2 / inputs)
        layers.append([([kind(w) for w in row], kind(0.0)) for row in W.tolist()])
    return layers, [p for layer in layers for w, b in layer for p in (*w, b)]


def moons_loss(layers, parameters, X, signs, neuron):
    "Hinge loss over all points + 1e-4 * sum of squares, and how many points are right."
    total, right = 0.0, 0
    for x, sign in zip(X, signs):
        for layer in layers:
            x = [neuron(w, b, x, layer is not layers[-1]) for w, b in layer]
        right += x[0].data * sign > 0
        total = (x[0] * -sign + 1.0).relu() + total
    squares = 0.0
    for p in parameters:
        squares = p * p + squares
    return total * (1 / len(X)) + squares * 1e-4, right


class Moons:
    "The moons task on one engine; `step` makes one full-batch step -> loss, points right."

    def __init__(self, kind, neuron=plain_neuron, points=100):
        from utils.data import moons

        X, labels = moons(points)
        self.X, self.signs = X.tolist(), (2.0 * labels - 1).tolist()
        self.layers, self.parameters = moons_network(kind)
        self.neuron, self.steps = neuron, 0

    def step(self):
        loss, right = moons_loss(
            self.layers, self.parameters, self.X, self.signs, self.neuron
        )
        for p in self.parameters:
            p.grad = 0.0
        loss.backward()
        lr = 1.0 - 0.9 * self.steps / 100
        for p in self.parameters:
            p.data -= lr * p.grad
        self.steps += 1
        return loss.data, right

    def run(self, steps):
        "-> the losses and the points right before each step."
        return [self.step() for _ in range(steps)]


@cache
def solved_at():
    "-> the first step before which all 100 points are right, on the tape engine."
    solved = Moons(TapeValue, fused_neuron).run(100)
    assert solved[-1][1] == 100, "100 of 100 points right within 100 steps"
    return next(i for i, (_, right) in enumerate(solved) if right == 100)


def race(neuron, name, theirs, what, gap=1e-9, paused=False, ours_steps=20, pairs=5):
    """How many times faster a step of the tape engine is than a step of another engine.

    theirs(n) makes n steps of the other engine, as `Moons.run` does; what: its name;
    gap: how far apart the losses may be.
    """
    ours = Moons(TapeValue, neuron)
    for (mine, _), (other, _) in zip(ours.run(ours_steps), theirs(2)):
        same = abs(mine - other) < gap
        assert same, f"both must give the same losses, not {mine:.9g} and {other:.9g}"
    note = f"100 of 100 points right at step {solved_at()}"

    def run_ours():
        if paused:
            gc.disable()
        try:
            ours.run(ours_steps)
        finally:
            gc.enable()

    # the work of a step does not depend on the step: one of the slow ones suffices
    samples = in_turns(run_ours, lambda: theirs(1), pairs, invert=True)
    samples = [sample * ours_steps for sample in samples]
    what = f"moons 2-16-16-1, 100 points: {what} step / {name} step"
    return Ratio(samples, what, note)


def _scalar(neuron, name, **counts):
    return race(neuron, name, Moons(ClosureValue).run, "closures-and-sets", **counts)


@benchmark("scalar engine", bar=">= 25")
def scalar_engine():
    return _scalar(fused_neuron, "tape engine, one node a neuron,")


@benchmark("scalar engine, a node each operation")
def scalar_engine_plain():
    name = "tape engine, plain nodes,"
    return _scalar(plain_neuron, name, ours_steps=8, pairs=3)


@benchmark("scalar engine, a node each operation, collector paused")
def scalar_engine_paused():
    name = "tape engine, plain nodes, garbage collector paused,"
    return _scalar(plain_neuron, name, paused=True, ours_steps=8, pairs=3)


class Digits:
    """The digits MLP 64-128-10 for any engine: the same weights, batches and rate.

    An engine takes part as (train, logits): train(part) makes the steps of some of the
    batches, logits() is its output on the test images.
    """

    def __init__(self, epochs=25, lr=0.1, batch=32):
        from utils.data import digits

        X, y, X_test, self.y_test = digits()
        X, self.X_test = X.astype(np.float32), X_test.astype(np.float32)
        self.lr, rng, rows = lr, np.random.default_rng(1), []
        for _ in range(epochs):
            order = rng.permutation(len(X))
            rows += [order[i : i + batch] for i in range(0, len(X), batch)]
        self.batches = [(X[some], y[some]) for some in rows]
        self.weights = [p.data.astype(np.float32) for p in self.model().parameters()]

    def model(self):
        "The course's own MLP; the others start from its W1, b1, W2, b2: `weights`."
        from utils.built.nn import MLP

        return MLP([64, 128, 10], np.random.default_rng(0))

    def ours(self, step):
        model = self.model()

        def train(part):
            for X_ND, y_N in self.batches[part]:
                step(model, X_ND, y_N, self.lr)

        return train, lambda: model(self.X_test).data

    def eager(self):
        "PyTorch, one thread."
        import torch
        from torch import nn

        torch.set_num_threads(1)
        net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
        with torch.no_grad():
            for theirs, p in zip(net.parameters(), self.weights):
                theirs.copy_(torch.tensor(p.T))
        sgd = torch.optim.SGD(net.parameters(), lr=self.lr)
        tensors = [tuple(map(torch.from_numpy, pair)) for pair in self.batches]

        def train(part):
            for X_ND, y_N in tensors[part]:
                sgd.zero_grad()
                nn.functional.cross_entropy(net(X_ND), y_N).backward()
                sgd.step()

        return train, lambda: net(torch.from_numpy(self.X_test)).detach().numpy()

    def race(self, mine, other, what, pairs):
        "A step of mine / a step of other, once both have 97 % of the test images right."
        both, some = (
            (mine, other),
            slice(0, 200),
        )  # short turns: a disturbance hits both
        first, second = (logits() for _, logits in both)
        assert np.allclose(first, second, atol=1e-3), "both must start alike"
        for train, _ in both:
            train(slice(None))
        a, b = (float(np.mean(z().argmax(1) == self.y_test)) for _, z in both)
        assert min(a, b) >= 0.97, f"test accuracy {a:.3f} and {b:.3f}, not 0.97 or more"
        assert abs(a - b) <= 0.01, f"the same training gave {a:.3f} and {b:.3f} right"
        samples = in_turns(lambda: mine[0](some), lambda: other[0](some), pairs)
        note = f"test accuracy {a:.3f} and {b:.3f}"
        return Ratio(samples, f"digits 64-128-10, batch 32: {what}", note)


def _digits(ours_step, what, pairs=41):
    task, what = Digits(), f"{what} / torch eager step"
    return task.race(task.ours(ours_step), task.eager(), what, pairs)


def plain_step(model, X, y, lr):
    "One step with a node for each operation: matmul, add, ReLU, and the softmax spelt out."
    from utils.built.autograd import Tensor

    W1, b1, W2, b2 = model.parameters()
    logits = (Tensor(X) @ W1 + b1).relu() @ W2 + b2
    shifted = logits - logits.data.max(axis=1, keepdims=True)
    truth = shifted[np.arange(len(y)), y]
    loss = (shifted.exp().sum(axis=1).log() - truth).mean()
    model.zero_grad()
    loss.backward()
    for p in (W1, b1, W2, b2):
        p.data -= lr * p.grad


def fused_step(model, X, y, lr):
    "One step with a node for each layer and one for the loss, and one update for all."
    from utils.built.nn import cross_entropy

    model.zero_grad()
    cross_entropy(model(X), y).backward()
    model.flat -= model.flat.dtype.type(lr) * model.flat_grad


@benchmark("array engine", bar="<= 0.6")
def array_engine():
    return _digits(fused_step, "fused step")


@benchmark("array engine, a node each operation")
def array_engine_plain():
    return _digits(plain_step, "plain step", pairs=21)
