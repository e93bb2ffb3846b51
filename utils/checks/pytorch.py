"""Chapter 05: what PyTorch adds to an engine, rebuilt piece by piece."""

import contextlib
import json
import os
import random
import stat
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils.exercises import Chapter, Miss, same

chapter = Chapter("05_pytorch")
keeps_random = torch.random.fork_rng(
    devices=[]
)  # a check leaves the reader's dice alone


@chapter.exercise(
    "The last axis moves one place at a time. How far must the axis before it jump?",
    "An axis jumps over everything to its right: the product of the sizes behind it.",
    "Go from the last axis to the first: put `step` in front, then step *= size.",
)
def strides_of(answer):
    "How far each axis of a freshly made tensor jumps in memory."
    same(
        "shape (2, 3, 4)",
        answer((2, 3, 4)),
        (12, 4, 1),
        rule="Each axis: the product of the sizes to its right.",
    )
    for shape in [(4, 6), (5,), (7, 1, 3), (2, 2, 2, 5), ()]:
        got = _at(f"shape {shape}", answer, shape)
        same(f"shape {shape}", got, torch.empty(shape).stride(),
             rule="Each axis: the product of the sizes to its right.")  # fmt: skip
        if not all(isinstance(step, (int, np.integer)) for step in got):
            raise Miss("A stride is a whole number, and one of these is a float: the "
                       "np.prod of nothing is 1.0. math.prod gives 1.",
                       f"shape {shape}: the types", [type(step).__name__ for step in got],
                       ["int"] * len(shape))  # fmt: skip


def _at(case, answer, *inputs):
    "The answer's result; where it raises, the error also says at which case."
    try:
        return answer(*inputs)
    except (NotImplementedError, AssertionError):
        raise
    except Exception as error:
        error.args = (f"{error} (case: {case})",)
        raise


@chapter.exercise(
    "Which step stays at the same place in memory, however often it is taken?",
    "Line the shapes up at the right end. New axes, and axes of 1 that are stretched, get "
    "a stride of 0; the others keep theirs.",
    "extra = len(wanted) - len(shape); result = [0] * extra; then for each old axis: the "
    "old stride if the sizes agree, 0 if the old size is 1, else raise ValueError.",
)
def expanded_strides(answer):
    "The strides of a tensor that broadcasting has stretched to another shape."
    same(
        "shape (3, 1), strides (1, 1), stretched to (2, 3, 4)",
        _at("(3, 1) to (2, 3, 4)", answer, (3, 1), (1, 1), (2, 3, 4)),
        (0, 1, 0),
        rule="0 for every axis that is new or stretched, else the old stride.",
    )
    for shape, strides, wanted in [
        ((6,), (1,), (4, 6)),
        ((4, 1), (6, 6), (4, 6)),
        ((6, 4), (1, 6), (6, 4)),
        ((1, 3), (3, 1), (5, 3)),
        ((), (), (2, 3)),
    ]:
        want = torch.empty(24).as_strided(shape, strides).expand(wanted).stride()
        case = f"shape {shape}, strides {strides}, stretched to {wanted}"
        same(case, _at(case, answer, shape, strides, wanted), want,
             rule="0 for every axis that is new or stretched, else the old stride.")  # fmt: skip
    for shape, wanted in [
        ((3,), (4,)),
        ((2, 3), (3,)),
        ((2, 3), (3, 2)),
        ((3,), (1,)),
        ((2,), (4,)),
        ((6, 3), (2, 3)),
    ]:
        _refuses(
            f"shape {shape} stretched to {wanted}",
            lambda shape=shape, wanted=wanted: answer(shape, (1,) * len(shape), wanted),
            "Only an axis of 1 can be stretched (2 does not become 4, nor 3 become 1), "
            "and none may vanish: raise ValueError.",
        )


def _refuses(case, call, rule):
    "A call that must raise ValueError, and nothing else."
    try:
        got = call()
    except NotImplementedError:
        raise
    except ValueError:
        return
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
    raise Miss(rule, case, got, "ValueError")


@chapter.exercise(
    "Python calls __setattr__ for every `self.name = value`. Look at the value there, "
    "note it if it is interesting, and let Python store it as always.",
    "Interesting are tensors with requires_grad and other Modules. A dict in "
    "self.__dict__ remembers them; it must belong to the object, not to the class.",
    "__setattr__: found = self.__dict__.setdefault('found', {}); put value in or drop the "
    "name; object.__setattr__(self, name, value). named_parameters: a Module's own names "
    "get the prefix name + '.'; yield from value.named_parameters(...).",
    kind="class",
)
@keeps_random
def Module(answer):
    "A class that finds its parameters by itself, also in the modules within."
    Leaf, Two, Both = _modules(answer)
    try:
        leaf = Leaf(0)
    except RecursionError:
        raise Miss("Inside __setattr__, `self.name = ...` calls __setattr__ again, without "
                   "end: keep the notes in self.__dict__.", "self.weight = a tensor",
                   "RecursionError", "it is stored") from None  # fmt: skip
    except (KeyError, AttributeError, TypeError) as error:
        if not isinstance(vars(answer).get("__init__"), type(_modules)):
            raise
        raise Miss("This subclass never calls super().__init__(), nor does the chapter's "
                   "Net: make the registry at the first __setattr__, with "
                   "self.__dict__.setdefault.", "a subclass with an __init__ of its own",
                   f"{type(error).__name__}: {error}", "weight is stored") from None  # fmt: skip
    case = "self.weight = a tensor with requires_grad, inside a Module"
    if getattr(leaf, "weight", None) is None:
        raise Miss("The attribute is gone: after noting it, store it as always with "
                   "object.__setattr__(self, name, value).", case,
                   "no leaf.weight", "the tensor")  # fmt: skip
    names = [name for name, _ in leaf.named_parameters()]
    case = "weight and bias with requires_grad, a constant tensor without, a word"
    if "constant" in names:
        raise Miss("A tensor without requires_grad is data, not a parameter.", case,
                   names, ["weight", "bias"])  # fmt: skip
    same(f"{case}: the names", sorted(names), ["bias", "weight"],
         rule="Every tensor with requires_grad is a parameter, under its own name.")  # fmt: skip
    leaf.weight = torch.full((2, 2), 7.0, requires_grad=True)
    named = dict(leaf.named_parameters())
    same("a weight that is set a second time", named["weight"], leaf.weight,
         rule="The old tensor is still noted: the optimiser would train a ghost.")  # fmt: skip
    leaf.bias = None
    same("a bias that is set to None", [n for n, _ in leaf.named_parameters()],
         ["weight"], rule="None is no parameter: drop the name again.")  # fmt: skip
    other = [name for name, _ in answer().named_parameters()]
    if other:
        raise Miss("A new object knows another's parameters: the registry must belong to "
                   "the object (self.__dict__), not to the class.",
                   "an empty Module, made after a full one", other, [])  # fmt: skip
    two = Two()
    want = ["scale", "first.weight", "first.bias", "second.weight", "second.bias"]
    names = [name for name, _ in two.named_parameters()]
    case = "two modules named first and second, and a parameter scale"
    if sorted(names) == ["scale"]:
        raise Miss("The modules within are not asked: named_parameters goes down into "
                   "them.", case, names, want)  # fmt: skip
    if len(set(names)) < len(names) or sorted(names) == sorted(
        ["scale", "weight", "bias"]
    ):
        raise Miss("Names meet: a name within a module gets the module's name and a dot "
                   "in front.", case, names, want)  # fmt: skip
    same(f"{case}: the names", sorted(names), sorted(want),
         rule="Each name is the path to the tensor, with dots.")  # fmt: skip
    outer = answer()
    outer.inner = two
    deep = sorted(name for name, _ in outer.named_parameters())
    same("one level deeper", deep, sorted("inner." + name for name in want),
         rule="Hand the whole path down: prefix + name + '.'.")  # fmt: skip
    leaf.bias = torch.ones(2, requires_grad=True)
    leaf.bias = Leaf(3)
    same("a bias that was a tensor and is now a Module: the names",
         sorted(n for n, _ in leaf.named_parameters()),
         ["bias.bias", "bias.weight", "weight"],

         rule="Each name is the path to the tensor, with dots.")  # fmt: skip
    leaf.bias = torch.ones(2, requires_grad=True)
    same("and a tensor again: the names",
         sorted(n for n, _ in leaf.named_parameters()), ["bias", "weight"],
         rule="The Module is still noted after its name went to a tensor: forget the "
         "name in both notes.")  # fmt: skip
    if not callable(two):
        raise Miss("A Module can be called like a function: write __call__.", "two(x)",
                   two, "two.forward(x)")  # fmt: skip
    x, a, b = torch.ones(1, 2), two.first, two.second
    want = two.scale * ((x @ a.weight + a.bias).relu() @ b.weight + b.bias)
    same("two(x), where forward calls first and second", two(x), want, rtol=1e-5,
         rule="__call__ hands its inputs to self.forward and returns what that returns.")  # fmt: skip
    case, rule = "a forward with two inputs", (
        "__call__ hands on all its inputs: self.forward(*inputs)."
    )  # fmt: skip
    try:
        got = Both()(torch.ones(2), torch.full((2,), 5.0))
    except TypeError as error:
        raise Miss(rule, case, f"TypeError: {error}", [11.0, 11.0]) from None
    same(case, got, [11.0, 11.0], rule=rule)


def _modules(base):
    "Three classes on a hand-made Module; like the chapter's, without super().__init__()."

    class Leaf(base):
        def __init__(self, seed):
            g = torch.Generator().manual_seed(seed)
            self.weight = torch.randn(2, 2, generator=g).requires_grad_()
            self.bias = torch.randn(2, generator=g).requires_grad_()
            self.constant, self.word = torch.ones(2), "a word"

        def forward(self, x):
            return x @ self.weight + self.bias

    class Two(base):
        def __init__(self):
            self.scale = torch.ones(1, requires_grad=True)
            self.first, self.second = Leaf(1), Leaf(2)

        def forward(self, x):
            return self.scale * self.second(self.first(x).relu())

    class Both(base):
        def forward(self, a, b):
            return a + 2 * b

    return Leaf, Two, Both


@chapter.exercise(
    "Two tensors with requires_grad, set as attributes, and a forward of one line.",
    "PyTorch keeps the weight as (H, D), one row for each output: X @ weight.T + bias.",
    "bound = D ** -0.5; torch.empty(H, D).uniform_(-bound, bound).requires_grad_()",
    kind="class",
)
@keeps_random
def Linear(answer):
    "A linear layer on the hand-made Module."
    torch.manual_seed(0)
    layer = answer(3, 2)
    for name, shape in (("weight", (2, 3)), ("bias", (2,))):
        tensor = getattr(layer, name, None)
        if not isinstance(tensor, torch.Tensor):
            raise Miss(f"A linear layer has a tensor self.{name}.", "Linear(3, 2)",
                       tensor, f"a tensor {shape}")  # fmt: skip
        if tuple(tensor.shape) == shape[::-1] != shape:
            raise Miss("The weight is turned: PyTorch keeps (outputs, inputs).",
                       "Linear(3, 2).weight", tuple(tensor.shape), shape)  # fmt: skip
        same(f"Linear(3, 2).{name}: the shape", tuple(tensor.shape), shape)
        if tensor.requires_grad and not tensor.is_leaf:
            raise Miss(
                f"self.{name} is the result of an operation, not a leaf: its .grad will "
                "stay None. Scale first, .requires_grad_() last.",
                f"Linear(3, 2).{name}.is_leaf", False, True,
            )  # fmt: skip
        if not tensor.requires_grad:
            raise Miss(f"self.{name} does not ask for gradients: .requires_grad_().",
                       f"Linear(3, 2).{name}.requires_grad", False, True)  # fmt: skip
    found = sorted(name for name, _ in layer.named_parameters())
    same("what named_parameters finds", found, ["bias", "weight"],
         rule="Set both as attributes, so that Module sees them.")  # fmt: skip
    W, b = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 0.0]]), torch.tensor([10.0, 20.0])
    with torch.no_grad():
        layer.weight[:], layer.bias[:] = W, b
    X = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 1.0]])
    same(
        "weight [[1, 2, 3], [-1, 0.5, 0]], bias [10, 20], rows [1, 0, 0] and [0, 2, 1]",
        layer(X),
        [[11.0, 19.0], [17.0, 21.0]],
        rule="X @ weight.T + bias.",
    )
    X = torch.randn(2, 5, 3)
    same(
        "rows with two axes in front, (2, 5, 3)", layer(X), F.linear(X, W, b), rtol=1e-5
    )
    layer.weight.grad = layer.bias.grad = None
    out = layer(X)
    if out.requires_grad:
        out.sum().backward()
    for name, want in (("weight", X.sum((0, 1)).expand(2, 3)), ("bias", [10.0, 10.0])):
        case = f"layer(X).sum().backward(): the gradient of {name}"
        if getattr(layer, name).grad is None:
            raise Miss(f"No gradient reaches self.{name}, so it would never learn: forward "
                       "uses the tensor itself, not its .data or .detach().", case, None,
                       want)  # fmt: skip
        same(case, getattr(layer, name).grad, want, rtol=1e-4, atol=1e-5)
    fresh = answer(400, 300)
    wide = fresh.weight.detach()
    same("a fresh Linear(400, 300): is anything but 0 in it?", bool(wide.std() > 0), True,
         rule="Equal weights get equal gradients and stay equal for ever: draw them.")  # fmt: skip
    bound = 400**-0.5
    for name in ("weight", "bias"):
        drawn = getattr(fresh, name).detach()
        largest, spread = drawn.abs().max().item(), drawn.std().item()
        if not (largest <= bound * 1.001 and spread > 0.5 * bound):
            raise Miss(f"The {name}'s spread is not that of uniform(-bound, bound), bound = "
                       "D ** -0.5: the text asks for both to be drawn.",
                       f"a fresh Linear(400, 300).{name}: largest value and deviation",
                       [largest, spread], [bound, bound / 3**0.5])  # fmt: skip


@chapter.exercise(
    "Keep X and y as tensors; __len__ counts the rows, __getitem__ gives one pair.",
    "torch.as_tensor takes NumPy's float64 as it is; the network holds float32.",
    "self.X, self.y = torch.as_tensor(X).float(), torch.as_tensor(y); return self.X[i], "
    "self.y[i]. Before that: unequal lengths raise ValueError.",
    kind="class",
)
@keeps_random
def Rows(answer):
    "A Dataset of rows and their labels."
    X, y = np.arange(12.0).reshape(4, 3), np.array([3, 1, 0, 2])
    rows = answer(X, y)
    same("len of 4 rows of 3 features", len(rows), 4,
         )  # fmt: skip
    pair = rows[1]
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise Miss("A row comes with its label: return the pair (X[i], y[i]).", "rows[1]",
                   pair, "([3, 4, 5], 1)")  # fmt: skip
    same("rows[1]: the row", pair[0], [3.0, 4.0, 5.0],
         )  # fmt: skip
    same("rows[1]: the label", pair[1], 1)
    kinds = [getattr(t, "dtype", type(t).__name__) for t in pair]
    if kinds[0] != torch.float32:
        raise Miss("The row is not a float32 tensor: a network of float32 weights cannot "
                   "multiply it.", "rows[1][0].dtype", kinds[0], torch.float32)  # fmt: skip
    if kinds[1] != torch.int64:
        raise Miss("A class label is a whole number: cross_entropy wants int64.",
                   "rows[1][1].dtype", kinds[1], torch.int64)  # fmt: skip
    batches = list(torch.utils.data.DataLoader(rows, batch_size=3))
    same(
        "a DataLoader with batch_size=3: the sizes",
        [len(b) for b, _ in batches],
        [3, 1],
    )
    same("and the labels in order", torch.cat([b for _, b in batches]), y)
    several = torch.tensor([2, 0])
    same("rows[tensor([2, 0])]: several at once", rows[several][0], X[[2, 0]],
         rule="Index the tensors with whatever comes: a number, a slice, a tensor.")  # fmt: skip
    _refuses("4 rows and 3 labels", lambda: answer(X, y[:3]),
             "One label a row: unequal lengths raise ValueError, now and not at row 3.")  # fmt: skip


@chapter.exercise(
    "torch.randperm shuffles. Where does it take its random numbers from?",
    "A generator of its own, seeded from seed and epoch, leaves the global one alone.",
    "generator = torch.Generator().manual_seed(1_000_003 * seed + epoch); "
    "return torch.randperm(N, generator=generator)",
)
@keeps_random
def epoch_order(answer):
    "The order of an epoch's rows, from the seed and the epoch alone."
    order = answer(50, 0, 0)
    if order is not None and not isinstance(order, torch.Tensor):
        raise Miss("It returns a tensor: the loop will .split it and index with the parts.",
                   "epoch_order(50, 0, 0)", type(order).__name__, "Tensor")  # fmt: skip
    same("epoch_order(50, 0, 0), sorted", None if order is None else order.sort().values,
         np.arange(50), rule="Every row once: a shuffled 0 .. N-1.")  # fmt: skip
    if order.dtype != torch.int64:
        raise Miss("Row numbers are whole numbers: int64.", "epoch_order(50, 0, 0).dtype",
                   order.dtype, torch.int64)  # fmt: skip
    if order.tolist() == list(range(50)):
        raise Miss(
            "The rows are not shuffled.", "epoch_order(50, 0, 0)", order, "shuffled"
        )
    torch.manual_seed(1)
    again = answer(50, 0, 0)
    same("the same call, after torch.manual_seed(1)", again, order,
         rule="It depends on the global generator: seed a torch.Generator of your own.")  # fmt: skip
    torch.manual_seed(5)
    before, others = torch.get_rng_state(), (np.random.get_state(), random.getstate())
    try:
        answer(50, 3, 1)
        for name, old, now in (
            ("NumPy", others[0][1:3], np.random.get_state()[1:3]),
            ("Python", others[1], random.getstate()),
        ):
            if not all(np.array_equal(a, b) for a, b in zip(old, now)):
                raise Miss(f"The call changes {name}'s global random state, on which others "
                           "may depend. Use a torch.Generator of your own.",
                           f"{name}'s random state before and after", "another state",
                           "the same")  # fmt: skip
    finally:
        np.random.set_state(others[0])
        random.setstate(others[1])
    if not torch.equal(before, torch.get_rng_state()):
        raise Miss("The call changes the global random state: the model's dropout would "
                   "depend on it. Use a torch.Generator of your own.",
                   "torch.get_rng_state() before and after", "another state", "the same")  # fmt: skip
    seen, far = {}, [*range(3, 1001), 1024, 2000, 2048, 4096, 5000, 8192, 9999]
    pairs = [(seed, epoch) for seed in range(3) for epoch in range(3)]
    pairs += [(0, epoch) for epoch in far] + [(seed, 0) for seed in far]
    for seed, epoch in pairs:
        rows = tuple(answer(50, seed, epoch).tolist())
        if rows in seen:
            there = seen[rows]
            told = {
                (True, False): "The epochs of a run all have one order: the epoch "
                "belongs into the seed.",
                (False, True): "All seeds give one order: the seed is not used.",
            }.get(
                (there[0] == seed, there[1] == epoch),
                "The next seed is the next epoch: seed + epoch mixes them up. Keep "
                "them apart, with a large factor on one."
                if sum(there) == seed + epoch
                else "Two pairs of seed and epoch get one order: the factor that keeps "
                "them apart is too small (both go up to 9,999).",
            )
            raise Miss(told, f"(seed, epoch) = {there} and {(seed, epoch)}",
                       "the same order", "two orders")  # fmt: skip
        seen[rows] = (seed, epoch)


def _toy(seed=0, rows=5):
    "A linear layer, rows and labels, the same for every reader."
    g = torch.Generator().manual_seed(seed)
    model = nn.Linear(3, 4)
    with torch.no_grad():
        model.weight[:] = torch.randn(4, 3, generator=g)
        model.bias[:] = torch.randn(4, generator=g)
    X = torch.randn(rows, 3, generator=g)
    return model, X, torch.randint(4, (rows,), generator=g)


@chapter.exercise(
    "Forward, forget the old gradients, backward, step. And which mode?",
    "zero_grad anywhere before backward, step after it; loss.item() is a plain number.",
    "model.train(); loss = F.cross_entropy(model(X), y); optimizer.zero_grad(); "
    "loss.backward(); optimizer.step(); return loss.item()",
)
@keeps_random
def train_step(answer):
    "One step of training on one batch."
    model, X, y = _toy()
    W = model.weight.detach().clone()
    loss = F.cross_entropy(model(X), y)
    (slope,) = torch.autograd.grad(loss, model.weight)
    stale = torch.ones_like(W)
    model.weight.grad, model.bias.grad = stale.clone(), torch.ones(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    got = answer(model, X, y, optimizer)
    moved = model.weight.detach().clone()
    same(
        "SGD with lr = 0.5, and old gradients of 1 still lying there: the new weights",
        moved,
        W - 0.5 * slope,
        atol=1e-6,
    )
    if isinstance(got, torch.Tensor):
        raise Miss("It returns a tensor, and with it the graph of this step stays in "
                   "memory: loss.item() is a number.", "what came back", got,
                   loss.item())  # fmt: skip
    after = F.cross_entropy(model(X), y).item()
    same("the loss of this step", got, loss.item(), atol=1e-6,
         )  # fmt: skip
    model = _Watching().eval()
    answer(model, X, y, torch.optim.SGD(model.parameters(), lr=0.5))
    if not model.training:
        raise Miss("The model is still in evaluation mode, so dropout sleeps and batch "
                   "norm does not learn: model.train() first.",
                   "a step on a model that was left in eval()", "model.training = False",
                   True)  # fmt: skip
    if not all(model.modes):
        raise Miss("model.train() comes too late: in the forward pass dropout still slept. "
                   "model.train() first, then model(X).",
                   "a step on a model that was left in eval(): the mode in forward",
                   "model.training = False", True)  # fmt: skip


class _Watching(nn.Module):
    "A classifier that notes under which modes it is called."

    def __init__(self):
        super().__init__()
        self.layer, _, _ = _toy()
        self.dropout = nn.Dropout(0.5)
        self.modes, self.graphs = [], []

    def forward(self, X):
        self.modes.append(self.training)
        self.graphs.append(torch.is_grad_enabled())
        return self.layer(self.dropout(X))


class _Once:
    "Batches that can be read once; counts how often that is tried."

    def __init__(self, batches):
        self.batches, self.passes = iter(batches), 0

    def __iter__(self):
        self.passes += 1
        return self.batches


@chapter.exercise(
    "Two sums over all rows, the loss and the right answers; divide once, at the end.",
    "A batch's loss is a mean: times its rows it is a sum. Remember model.training, and "
    "put it back with model.train(was).",
    "with torch.inference_mode(): for X, y in batches: logits = model(X); total += "
    "F.cross_entropy(logits, y).item() * len(X); right += (logits.argmax(1) == y).sum()",
)
@keeps_random
def evaluate(answer):
    "Mean loss and accuracy over all rows."
    model, X, y = _Watching(), *_toy(6, rows=11)[1:]
    parts = list(zip(X.split(4), y.split(4)))  # 4, 4 and 3 rows
    model.eval()
    with torch.no_grad():
        logits = model(X)
        losses = F.cross_entropy(logits, y, reduction="none")
        right = (logits.argmax(1) == y).double()
    model.modes.clear(), model.graphs.clear(), model.train()
    torch.manual_seed(0)
    once = _Once(parts)
    got = answer(model, once)
    if once.passes > 1:
        raise Miss("The second loop over batches was empty: they may be read only once. "
                   "Count rows, losses and right answers in one loop.",
                   "how often batches is read", once.passes, 1)  # fmt: skip
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        raise Miss("It returns two numbers: the mean loss and the accuracy.",
                   "what came back", got, "(loss, accuracy)")  # fmt: skip
    if not model.modes:
        raise Miss("The model was never called.", "3 batches", 0, 3)
    if any(model.modes):
        raise Miss("The model was still in training mode: dropout changes what it says. "
                   "model.eval() first.", "model.training during the calls", True, False)  # fmt: skip
    if any(model.graphs):
        raise Miss("A graph was recorded for a backward that never comes: "
                   "`with torch.inference_mode():`.", "torch.is_grad_enabled()", True,
                   False)  # fmt: skip
    if not model.training:
        raise Miss("The model is left in evaluation mode, and training goes on without "
                   "dropout: put the old mode back (and read it before eval(): was = "
                   "model.training).", "model.training afterwards", False,
                   True)  # fmt: skip

    def each(x):
        return torch.stack([part.mean() for part in x.split(4)])

    case = "11 rows in batches of 4, 4 and 3"
    unfair = (
        "A mean of batch means: a row of the short batch counts more. Weigh by rows."
    )
    same(f"{case}: the mean loss", got[0], losses.mean(), atol=1e-5,  rule="Sum of all rows' losses over the number of rows.")  # fmt: skip
    same(f"{case}: the accuracy", got[1], right.mean(), atol=1e-6,  rule="Right answers over the number of rows.")  # fmt: skip
    model.eval()
    answer(model, parts)
    if model.training:
        raise Miss("A model that came in evaluation mode leaves in training mode: "
                   "put back what was there, model.train(was).",
                   "model.training afterwards", True, False)  # fmt: skip


@contextlib.contextmanager
def _machine(cuda, mps):
    "Let torch believe that it runs on another machine."
    kind = "cuda" if cuda else "mps" if mps else None
    accelerator = torch.device(kind) if kind else None
    with (
        mock.patch("torch.cuda.is_available", lambda: cuda),
        mock.patch("torch.cuda.device_count", lambda: 2 * cuda),
        mock.patch("torch.backends.mps.is_available", lambda: mps),
        mock.patch("torch.accelerator.is_available", lambda: bool(kind)),
        mock.patch(
            "torch.accelerator.current_accelerator", lambda *a, **k: accelerator
        ),
    ):
        yield


@chapter.exercise(
    "Three questions in order: was one asked for? Is there CUDA? Is there MPS?",
    "torch.cuda.is_available() and torch.backends.mps.is_available() answer.",
    "If asked is None: the first of cuda, mps, cpu that is there. Else: ValueError if "
    "torch.device(asked).type is not there, torch.device(asked) if it is.",
)
def pick_device(answer):
    "The device of this machine, or the one that was asked for."
    for cuda, mps, want in [
        (False, False, "cpu"),
        (True, False, "cuda"),
        (False, True, "mps"),
        (True, True, "cuda"),
    ]:
        with _machine(cuda, mps):
            got = answer()
        case = f"a machine with CUDA: {cuda}, MPS: {mps}; nothing asked for"
        if isinstance(got, str):
            raise Miss("It returns a word: torch.device(word) is a device.", case, got,
                       torch.device(want))  # fmt: skip
        rule = "The first of cuda, mps and cpu that this machine has."
        if want == "mps":
            rule = "An Apple chip has no CUDA and still a GPU: ask for MPS too."
        same(case, getattr(got, "type", got), want, rule=rule)
    with _machine(True, False):
        got = answer("cpu")
        same('a machine with CUDA, asked for "cpu"', getattr(got, "type", got), "cpu",
             rule="Who asks for a device gets it, also if there is a faster one.")  # fmt: skip
        got = answer("cuda")
        same('a machine with CUDA, asked for "cuda"', getattr(got, "type", got), "cuda")
    asks = (("cuda", False), ("mps", False), ("cuda", True), ("cuda:0", False))
    for asked, mps in asks:
        with _machine(False, mps):
            _refuses(f'asked for "{asked}" on a machine with CUDA: False, MPS: {mps}',
                     lambda asked=asked: answer(asked),
                     "A device that is not there: raise ValueError now, rather than a long "
                     "trace at the first .to(device), or a silent walk on the CPU.")  # fmt: skip
    with _machine(True, False):
        for asked in ("cuda:0", "cuda:1"):
            case = f'a machine with two CUDA devices, asked for "{asked}"'
            try:
                got = answer(asked)
            except ValueError as error:
                raise Miss('A device may come with its number, and "cuda:0" is there: '
                           "look at torch.device(asked).type.", case,
                           f"ValueError: {error}", torch.device(asked)) from None  # fmt: skip
            if got != torch.device(asked):
                raise Miss("The device's number is lost: return torch.device(asked).", case,
                           got, torch.device(asked))  # fmt: skip


class _Unwritable:
    "Cannot be saved: the disk is full when its turn comes."

    def __reduce__(self):
        raise OSError("no space left on device")


@chapter.exercise(
    "A file that is being written is not whole. So never write into the one you need.",
    "Write path + '.part' in the same folder, then os.replace it over path: that is one "
    "step for the file system, old or new, nothing between.",
    "with open(part, 'wb') as file: torch.save(state, file); file.flush(); "
    "os.fsync(file.fileno()). Then os.replace(part, path).",
)
def save_checkpoint(answer):
    "A checkpoint that is whole at every moment."
    old, new = {"step": 1, "w": torch.ones(3)}, {"step": 2, "w": torch.zeros(3)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.pt"
        answer(path, old)
        if not path.exists():
            raise Miss("There is no file at `path`.", "save_checkpoint(path, state)",
                       os.listdir(folder), [path.name])  # fmt: skip
        same(
            "what torch.load reads", torch.load(path, weights_only=True)["w"], old["w"]
        )
        done = []

        def noted(name, function):
            def call(*args, **options):
                size = None
                if name == "fsync" and not stat.S_ISDIR(os.fstat(args[0]).st_mode):
                    size = os.fstat(args[0]).st_size
                done.append((name, *map(str, args[:2]), size))
                return function(*args, **options)

            return call

        def watched(path, state):
            done.clear()
            with contextlib.ExitStack() as stack:
                for name in ("fsync", "replace", "rename", "unlink", "remove"):
                    patch = mock.patch.object(os, name, noted(name, getattr(os, name)))
                    stack.enter_context(patch)
                answer(path, state)

        try:
            watched(path, {"step": 99, "later": _Unwritable()})
            told = False
        except OSError:
            told = True
        case = "the disk is full in the middle of the second save"
        if not path.exists():
            raise Miss("The old file was removed before the new one was whole: now there "
                       "is none.", case, "no file", "the first checkpoint")  # fmt: skip
        try:
            kept = torch.load(path, weights_only=True)["step"]
        except Exception as error:
            if any(name in ("replace", "rename") for name, *_ in done):
                raise Miss("The part was put over the old file although the writing had "
                           "failed: os.replace comes after the writing, not in `finally`.",
                           case, f"{type(error).__name__} on loading",
                           "the first checkpoint") from None  # fmt: skip
            raise Miss("The old checkpoint is destroyed: you write into the file itself. "
                       "Write another file beside it, then os.replace.", case,
                       f"{type(error).__name__} on loading", "the first checkpoint") from None  # fmt: skip
        same(f"{case}: the step in the file", kept, 1)
        if not told:
            raise Miss("The error was swallowed: the caller must learn that nothing was "
                       "saved.", case, "no error", "OSError")  # fmt: skip
        inode, files = path.stat().st_ino, set(os.listdir(folder))
        watched(path, new)
        names = [name for name, *_ in done]
        case = "saving over an older file: what happens on the disk"
        if any(n in ("unlink", "remove") and args[0] == str(path) for n, *args in done):
            raise Miss("The old file is removed first: a crash right then leaves nothing. "
                       "os.replace does both at once.", case, names,
                       ["fsync", "replace"])  # fmt: skip
        moved = [i for i, name in enumerate(names) if name in ("replace", "rename")]
        if not moved and path.stat().st_ino == inode:
            raise Miss("The new file never takes the old one's place in one step: "
                       "os.replace(part, path).", case, names, ["fsync", "replace"])  # fmt: skip
        if "fsync" not in names[: moved[-1] if moved else None]:
            raise Miss("The bytes may still be in memory when the name changes, and a power "
                       "cut leaves an empty file: file.flush() and os.fsync before "
                       "os.replace.", case, names, ["fsync", "replace"])  # fmt: skip
        forced = [size for name, *_, size in done if name == "fsync"]
        forced = max((size for size in forced if size is not None), default=0)
        if forced < path.stat().st_size:
            raise Miss("At the fsync the bytes are not yet in the file but in Python's "
                       "buffer: file.flush() comes first, then os.fsync.",
                       "saving: bytes in the part when os.fsync is called", forced,
                       path.stat().st_size)  # fmt: skip
        source = Path(done[moved[-1]][1]) if moved else path
        if source.parent.resolve() != path.parent.resolve():
            raise Miss("The part lies in another folder: across disks a replace is a copy, "
                       "and a copy can be torn.", case, str(source.parent),
                       "the folder of `path`")  # fmt: skip
        same("the second checkpoint", torch.load(path, weights_only=True)["step"], 2)
        left = sorted(set(os.listdir(folder)) - files)
        same("what a save that went well leaves beside the file", left, [],
             rule="Something was left behind: the part becomes the file.")  # fmt: skip
        watched(path.with_suffix(".json"), new)
        again = [move[1] for move in done if move[0] in ("replace", "rename")]
        if again and Path(again[-1]) == source:
            raise Miss("run.pt and run.json get the same part, so two savers would mix "
                       "their bytes: add .part to the whole name, path.name + '.part'.",
                       "the part's name for run.json", Path(again[-1]).name,
                       "run.json.part")  # fmt: skip


def _run():
    "A model with dropout, an optimiser and a scheduler that all have memory."
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20)
    return model, optimizer, scheduler


def _walk(run, steps):
    model, optimizer, scheduler = run
    _, X, y = _toy(1)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(X), y).backward()
        optimizer.step()
        scheduler.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@chapter.exercise(
    "Go through everything the loop uses and ask: does it remember something?",
    "The model its weights, Adam its moments, the scheduler its step, dropout the random "
    "state, the loop its place. Each of the first three has .state_dict().",
    'Five keys: "model", "optimizer", "scheduler": their .state_dict(); "random": '
    'torch.get_rng_state(); "at": {"epoch": epoch, "done": done}.',
)
@keeps_random
def snapshot(answer):
    "Everything that a run needs to go on as if nothing had happened."
    memory = {
        "model": "The weights are missing",
        "optimizer": "AdamW's moments are missing: it would start its averages anew",
        "scheduler": "The scheduler's step is missing: the rate would start from step 0",
        "random": "The random state is missing: dropout would drop other numbers",
        "at": "The place is missing (the epoch, and how many of its batches are done)",
    }
    run = _run()
    _walk(run, 6)
    state = answer(*run, 2, 3)
    if not isinstance(state, dict):
        raise Miss("A snapshot is a dict.", "what came back", state, list(memory))
    for key, rule in memory.items():
        if key not in state:
            raise Miss(f"{rule}. The key is {key!r}.", "the keys", list(state),
                       list(memory))  # fmt: skip
    same("the place: epoch 2, 3 batches done", [state["at"].get("epoch"),
         state["at"].get("done")], [2, 3])  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.pt"
        try:
            torch.save(state, path)
            state = torch.load(path, weights_only=True)
        except Exception as error:
            raise Miss("It holds objects, not their state: such a file is refused when "
                       "it is loaded. Use .state_dict().", "saved and loaded again",
                       type(error).__name__, "tensors and plain values") from None  # fmt: skip
    want = _walk(run, 6)
    fresh = _run()
    for key, part in zip(("model", "optimizer", "scheduler"), fresh):
        try:
            part.load_state_dict(state[key])
        except Exception as error:
            raise Miss(f"What lies under {key!r} is not the {key}'s state_dict().",
                       f"{key}.load_state_dict(state[{key!r}])",
                       f"{type(error).__name__}: {error}"[:150], "it fits") from None  # fmt: skip
    try:
        torch.set_rng_state(state["random"])
    except Exception as error:
        raise Miss("Under 'random' belongs what torch.get_rng_state() returns; a seed "
                   "says where the numbers began, not where they are.",
                   "torch.set_rng_state(state['random'])",
                   f"{type(error).__name__}", "it fits") from None  # fmt: skip
    got = _walk(fresh, 6)
    if not torch.equal(got, want):
        raise Miss("The continued run leaves the unbroken one's path: something that was "
                   "saved is not what it was at this step.",
                   "weights after 6 steps, a snapshot, 6 more steps", got[:4],
                   want[:4])  # fmt: skip


KINDS = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64}


def write_safetensors(path, tensors, metadata=None, backwards=False):
    "The format by hand: 8 bytes of length, a JSON header, the numbers."
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, t in tensors.items():
        raw = t.contiguous().numpy().tobytes()
        kind = next(k for k, dtype in KINDS.items() if dtype == t.dtype)
        place = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": kind, "shape": list(t.shape), "data_offsets": place}
        data += raw
    if backwards:
        header = dict(reversed(header.items()))
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(len(text).to_bytes(8, "little") + text + data)


def _no_axis(answer, path, tensors, options, case, error):
    "Say so if the answer fails only where a tensor of shape [] is in the file."
    some = {name: t for name, t in tensors.items() if t.shape}
    write_safetensors(path, some, **options)
    try:
        answer(path)
    except Exception:
        return
    raise Miss("A tensor of shape [] is one number without any axis, 4 bytes of F32: "
               ".reshape([]) makes it.", f"{case}: scale, with the shape []",
               f"{type(error).__name__}: {error}", "a tensor of shape ()") from None  # fmt: skip


@chapter.exercise(
    "Read the bytes. The first 8 are the header's length, the smallest digit first.",
    "After 8 + length bytes the numbers begin, and the offsets count from there. "
    '"__metadata__" is no tensor.',
    'n = int.from_bytes(raw[:8], "little"); header = json.loads(raw[8:8 + n]); '
    "torch.frombuffer(raw[8 + n + begin : 8 + n + end], dtype=...).reshape(shape)",
)
def read_safetensors(answer):
    "The tensors of a safetensors file."
    grid = torch.arange(6.0).reshape(2, 3) + 0.5
    tensors = {
        "grid": grid,
        "labels": torch.tensor([4, -2, 7]),
        "scale": torch.tensor(2.5),
    }
    tensors["exact"] = torch.tensor([0.1, 0.2], dtype=torch.float64)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        for case, options in {
            "four tensors": {},
            "a file with __metadata__": {"metadata": {"made": "by hand"}},
            "a header in another order than the numbers": {"backwards": True},
        }.items():
            write_safetensors(path, tensors, **options)
            try:
                got = answer(path)
            except (json.JSONDecodeError, UnicodeDecodeError, OverflowError) as error:
                raise Miss("What was cut out as the header is no JSON. Its length is in "
                           "all of the first 8 bytes, the smallest byte first "
                           "(int.from_bytes(raw[:8], 'little')), and it begins at byte 8.",
                           case, f"{type(error).__name__}: {error}"[:100],
                           "the header") from None  # fmt: skip
            except (RuntimeError, TypeError, ValueError, IndexError) as error:
                if not isinstance(error, NotImplementedError):
                    _no_axis(answer, path, tensors, options, case, error)
                raise
            if not isinstance(got, dict):
                raise Miss(
                    "It returns a dict {name: tensor}.", case, got, list(tensors)
                )
            if "__metadata__" in got:
                raise Miss("__metadata__ is a note, not a tensor: leave it out.", case,
                           sorted(got), sorted(tensors))  # fmt: skip
            same(f"{case}: the names", sorted(got), sorted(tensors))
            for name, want in tensors.items():
                if getattr(got[name], "dtype", None) != want.dtype:
                    raise Miss("The dtype stands in the header: KINDS[entry['dtype']].",
                               f"{case}: {name}", getattr(got[name], "dtype", None),
                               want.dtype)  # fmt: skip
                if not want.shape and got[name].numel() == 1 and got[name].shape:
                    raise Miss("Shape [] is one number without any axis: .reshape([]) "
                               "makes it.", f"{case}: {name}", tuple(got[name].shape),
                               ())  # fmt: skip
                if got[name].shape != want.shape and got[name].numel() == want.numel():
                    raise Miss("The numbers are there, the shape is not: "
                               ".reshape(entry['shape']).", f"{case}: {name}",
                               tuple(got[name].shape), tuple(want.shape))  # fmt: skip
                same(f"{case}: {name}", got[name], want,
                     rule="Offsets count from the end of the header, in bytes.")  # fmt: skip
