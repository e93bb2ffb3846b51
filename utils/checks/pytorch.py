"""Chapter 05: what PyTorch adds to an engine, rebuilt piece by piece."""

import contextlib
import itertools
import json
import os
import random
import stat
import tempfile
from operator import attrgetter
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils.exercises import Chapter, Miss, same

chapter = Chapter("05_pytorch")
# a check leaves the reader's dice alone
keeps_random = torch.random.fork_rng(devices=[])


def _outcome(function, *inputs):
    "What a function returns, or the error that it raises, in words."
    try:
        return function(*inputs)
    except NotImplementedError:
        raise
    except ValueError:
        return "ValueError"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@chapter.exercise(
    "The last axis moves one place at a time. How far must the axis before it jump?",
    "An axis jumps over everything to its right: the product of the sizes behind it.",
    "Go from the last axis to the first: put `step` in front, then step *= size.",
)
def strides_of(answer):
    "How far each axis of a freshly made tensor jumps in memory."
    for shape in [(2, 3, 4), (4, 6), (5,), (7, 1, 3), (2, 2, 2, 5), ()]:
        got = answer(shape)
        same(f"shape {shape}", got, torch.empty(shape).stride(),
             "Each axis: the product of the sizes to its right.")  # fmt: skip
        same(f"shape {shape}: are all of them whole numbers?",
             all(isinstance(step, (int, np.integer)) for step in got), True,
             "A stride is a whole number, and one of these is a float: the np.prod of "
             "nothing is 1.0. math.prod gives 1.")  # fmt: skip


@chapter.exercise(
    "Which step stays at the same place in memory, however often it is taken?",
    "Line the shapes up at the right end. New axes, and axes of 1 that are stretched, get "
    "a stride of 0; the others keep theirs.",
    "extra = len(wanted) - len(shape); result = [0] * extra; then for each old axis: the "
    "old stride if the sizes agree, 0 if the old size is 1, else raise ValueError.",
)
def expanded_strides(answer):
    "The strides of a tensor that broadcasting has stretched to another shape."
    for shape, strides, wanted in [
        ((3, 1), (1, 1), (2, 3, 4)),
        ((6,), (1,), (4, 6)),
        ((4, 1), (6, 6), (4, 6)),
        ((6, 4), (1, 6), (6, 4)),
        ((1, 3), (3, 1), (5, 3)),
        ((2, 1, 5), (5, 5, 1), (3, 2, 4, 5)),
        ((), (), (2, 3)),
    ]:
        want = torch.empty(24).as_strided(shape, strides).expand(wanted).stride()
        try:
            got = answer(shape, strides, wanted)
        except ValueError:
            got = "ValueError"
        same(f"shape {shape}, strides {strides}, stretched to {wanted}", got, want,
             "0 for every axis that is new or stretched from 1, else the old stride.")  # fmt: skip
    only_ones = "Only an axis of 1 can be stretched; any other mismatch: ValueError."
    for shape, wanted, rule in [
        ((3,), (4,), only_ones),
        ((6, 3), (2, 3), only_ones),
        ((2,), (4,), only_ones),
        ((3,), (1,), only_ones),
        ((2, 3), (3, 2), only_ones),
        ((2, 3), (3,), "No axis may vanish: raise ValueError."),
        ((3, 5), (3,), "No axis may vanish, not even where the first sizes agree."),
        ((1, 3), (3,), "No axis may vanish, not even one of 1."),
    ]:
        same(f"shape {shape} stretched to {wanted}",
             _outcome(answer, shape, (1,) * len(shape), wanted), "ValueError", rule)  # fmt: skip


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

    def names(module):
        return sorted(name for name, _ in module.named_parameters())

    attributes = "weight", "bias", "constant", "word"
    case = "weight and bias with requires_grad, a constant tensor without, a word"
    same(f"{case}: is each still there?", [hasattr(leaf, name) for name in attributes],
         [True] * 4, "Noted or not, store every value as always: "
         "object.__setattr__(self, name, value).")  # fmt: skip
    same(f"{case}: the names", names(leaf), ["bias", "weight"],
         "Every tensor with requires_grad is a parameter, under its own name.")  # fmt: skip
    leaf.weight = torch.full((2, 2), 7.0, requires_grad=True)
    same("a weight that is set a second time: is the new one found?",
         dict(leaf.named_parameters()).get("weight") is leaf.weight, True,
         "The old tensor is still noted: the optimiser would train a ghost.")  # fmt: skip
    leaf.bias = None
    same("a bias that is set to None: the names", names(leaf), ["weight"],
         "None is no parameter: drop the name again.")  # fmt: skip
    same("an empty Module, made after a full one: the names", names(answer()), [],
         "A new object knows another's parameters: the registry must belong to the object "
         "(self.__dict__), not to the class.")  # fmt: skip

    two = Two()
    want = ["first.bias", "first.weight", "scale", "second.bias", "second.weight"]
    case = "two modules named first and second, and a parameter scale"
    same(f"{case}: the names", names(two), want,
         "Go down into the modules within; each name is the path to the tensor, with dots.")  # fmt: skip
    same(f"{case}: does each name lead to its own tensor?",
         [attrgetter(name)(two) is tensor for name, tensor in two.named_parameters()],
         [True] * 5, "A pair is the path and the tensor that stands at its end.")  # fmt: skip
    outer = answer()
    outer.inner = two
    same("one level deeper: the names", names(outer), ["inner." + name for name in want],
         "Hand the whole path down: prefix + name + '.'.")  # fmt: skip
    leaf.bias = torch.ones(2, requires_grad=True)
    leaf.bias = Leaf(3)
    same("a bias that was a tensor and is now a Module: the names", names(leaf),
         ["bias.bias", "bias.weight", "weight"],
         "What the name stood for before is forgotten, tensor or Module.")  # fmt: skip
    leaf.bias = torch.ones(2, requires_grad=True)
    same("and a tensor again: the names", names(leaf), ["bias", "weight"],
         "What the name stood for before is forgotten, tensor or Module.")  # fmt: skip

    same("can it be called like a function?", callable(two), True,
         "two(x) is two.forward(x): write __call__.")  # fmt: skip
    x, a, b = torch.ones(1, 2), two.first, two.second
    want = two.scale * ((x @ a.weight + a.bias).relu() @ b.weight + b.bias)
    same("two(x), where forward calls first and second", two(x), want,
         "__call__ hands its inputs to self.forward and returns what that returns.",
         rtol=1e-5)  # fmt: skip
    same("a forward with two inputs, a + 2 b", Both()(torch.ones(2), 5.0), [11.0, 11.0],
         "__call__ hands on all its inputs: self.forward(*inputs).")  # fmt: skip


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
    layer = answer(3, 2)
    for name, shape in (("weight", (2, 3)), ("bias", (2,))):
        tensor, case = getattr(layer, name, None), f"Linear(3, 2).{name}"
        same(f"{case}: is it a tensor?", isinstance(tensor, torch.Tensor), True,
             f"A linear layer has a tensor self.{name}.")  # fmt: skip
        same(f"{case}: the shape", tuple(tensor.shape), shape,
             "PyTorch keeps (outputs, inputs) for the weight, (outputs,) for the bias.")  # fmt: skip
        same(f"{case}: requires_grad, is_leaf", [tensor.requires_grad, tensor.is_leaf],
             [True, True], f"self.{name} asks for gradients and is a leaf: "
             ".requires_grad_() comes last, after all arithmetic.")  # fmt: skip
    same("what named_parameters finds",
         sorted(name for name, _ in layer.named_parameters()), ["bias", "weight"],
         "Set both as attributes, so that Module sees them.")  # fmt: skip
    W = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 0.0]])
    b = torch.tensor([10.0, -20.0])
    with torch.no_grad():
        layer.weight[:], layer.bias[:] = W, b
    X = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 1.0]])
    case = "weight [[1, 2, 3], [-1, 0.5, 0]], bias [10, -20], rows"
    same(f"{case} [1, 0, 0] and [0, 2, 1]", layer(X), [[11.0, -21.0], [17.0, -19.0]],
         "X @ weight.T + bias.")  # fmt: skip
    X = torch.arange(30.0).reshape(2, 5, 3)
    same(f"{case} with two axes in front, (2, 5, 3)", layer(X), F.linear(X, W, b),
         "Rows may have any axes in front, (..., D): @ takes them all.", rtol=1e-5)  # fmt: skip
    layer.weight.grad = layer.bias.grad = None
    out = layer(X)
    if out.requires_grad:
        out.sum().backward()
    case = "layer(X).sum().backward()"
    same(f"{case}: does a gradient reach the weight, the bias?",
         [layer.weight.grad is not None, layer.bias.grad is not None], [True, True],
         "forward uses the tensors themselves, not their .data or .detach(): without a "
         "gradient they never learn.")  # fmt: skip
    rule = "Nothing in forward but X @ weight.T + bias."
    same(f"{case}: the weight's gradient", layer.weight.grad, X.sum((0, 1)).expand(2, 3),
         rule, rtol=1e-4)  # fmt: skip
    same(f"{case}: the bias's gradient", layer.bias.grad, [10.0, 10.0], rule)
    torch.manual_seed(0)
    fresh, bound = answer(100, 400), 100**-0.5
    weight, case = fresh.weight.detach(), "a fresh Linear(100, 400)"
    same(f"{case}: do its weights differ?", bool(weight.std() > 0), True,
         "Equal weights get equal gradients and stay equal for ever: draw them.")  # fmt: skip
    same(f"{case}: different rows and columns of weight",
         [len(weight.unique(dim=0)), weight.unique(dim=1).shape[1]], [400, 100],
         "Every weight is drawn by itself: outputs with equal weights stay equal.")  # fmt: skip
    for name in ("weight", "bias"):
        drawn = getattr(fresh, name).detach() / bound
        same(f"{case}.{name}, in units of bound: smallest, largest, deviation",
             [drawn.min(), drawn.max(), drawn.std()], [-1.0, 1.0, 3**-0.5],
             "Drawn uniformly from -bound to bound, bound = D ** -0.5, the weight and the "
             "bias alike.", atol=0.15)  # fmt: skip


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
    X, y = np.arange(15.0).reshape(5, 3), np.array([3, 1, 0, 2, 1])
    rows = answer(X, y)
    same("len of 5 rows of 3 features", len(rows), 5, "It is the number of rows.")
    pair = rows[1]
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise Miss("A row comes with its label: return the pair (X[i], y[i]).", "rows[1]",
                   pair, "([3, 4, 5], 1)")  # fmt: skip
    same("rows[1]: the row", pair[0], [3.0, 4.0, 5.0], "Rows are the first axis.")
    same("rows[1]: the label", pair[1], 1, "The label of row 1 is y[1].")
    same("rows[1]: the dtypes",
         [str(getattr(t, "dtype", type(t).__name__)) for t in pair],
         ["torch.float32", "torch.int64"], "Both are tensors: rows of float32, as a "
         "network's weights are, and labels of int64, as cross_entropy wants them.")  # fmt: skip
    for i in (torch.tensor([2, 0]), slice(1, 3), -1):
        same(f"rows[{i}]: the rows", rows[i][0], X[i],
             "Index the tensors with whatever comes: a number, a slice, a tensor.")  # fmt: skip
        same(f"rows[{i}]: the labels", rows[i][1], y[i],
             "Rows and labels are indexed alike.")  # fmt: skip
    batches = list(torch.utils.data.DataLoader(rows, batch_size=3))
    same("a DataLoader with batch_size=3: the labels", [b.tolist() for _, b in batches],
         [[3, 1, 0], [2, 1]], "A loader asks for len(rows) rows, one after another.")  # fmt: skip
    same("and its rows", torch.cat([b for b, _ in batches]), X,
         "A loader asks for len(rows) rows, one after another.")  # fmt: skip

    def built(X, y):
        answer(X, y)
        return "no error"

    rule = "One label per row: unequal lengths raise ValueError, now and not at row 3."
    same("5 rows and 3 labels", _outcome(built, X, y[:3]), "ValueError", rule)
    same("3 rows and 5 labels", _outcome(built, X[:3], y), "ValueError", rule)


@chapter.exercise(
    "torch.randperm shuffles. Where does it take its random numbers from?",
    "A generator of its own, seeded from seed and epoch, leaves the global one alone.",
    "generator = torch.Generator().manual_seed(1_000_003 * seed + epoch); "
    "return torch.randperm(N, generator=generator)",
)
@keeps_random
def epoch_order(answer):
    "The order of an epoch's rows, from the seed and the epoch alone."
    for N in (50, 7):
        order, case = answer(N, 0, 0), f"epoch_order({N}, 0, 0)"
        same(f"{case}, sorted", None if order is None else np.sort(order), np.arange(N),
             "Every row once: a shuffled 0 .. N-1.")  # fmt: skip
        same(f"{case}: its type and dtype",
             [type(order).__name__, str(getattr(order, "dtype", ""))],
             ["Tensor", "torch.int64"], "It returns a tensor of row numbers, int64: the "
             "loop will .split it and index with the parts.")  # fmt: skip
        same(f"{case}: is it shuffled?", order.tolist() != list(range(N)), True,
             "The rows are not shuffled.")  # fmt: skip
    torch.manual_seed(1)
    same("the same call, after torch.manual_seed(1)", answer(7, 0, 0), order,
         "It depends on the global generator: seed a torch.Generator of your own.")  # fmt: skip

    states = [_torch_state, np.random.get_state, random.getstate]
    before = [state() for state in states]
    try:
        answer(50, 3, 1)
        kept = [_equal(old, state()) for old, state in zip(before, states)]
    finally:
        np.random.set_state(before[1])
        random.setstate(before[2])
    same("is the global random state of torch, NumPy, Python as before?", kept,
         [True, True, True], "The call changes a global random state, on which others "
         "depend, dropout for one. Use a torch.Generator of your own.")  # fmt: skip

    far = [*range(3, 1001), 1024, 2000, 2048, 4096, 5000, 8192, 9999]
    pairs = [(seed, epoch) for seed in range(3) for epoch in range(3)]
    pairs += [(0, epoch) for epoch in far] + [(seed, 0) for seed in far]
    seen = {}
    for pair in pairs:
        rows = tuple(answer(50, *pair).tolist())
        same(f"(seed, epoch) = {seen.get(rows, pair)} and {pair}",
             "one order" if rows in seen else "two orders", "two orders",
             "Two pairs of seed and epoch get one order: keep them apart with a factor on "
             "one of them, larger than all of the other (both go up to 9,999).")  # fmt: skip
        seen[rows] = pair


def _torch_state():
    return torch.get_rng_state().tolist()


def _equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b))


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
    loss = F.cross_entropy(model(X), y)
    slopes = torch.autograd.grad(loss, [model.weight, model.bias])
    want = [p.detach() - 0.5 * g for p, g in zip((model.weight, model.bias), slopes)]
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer, steps = torch.optim.SGD(model.parameters(), lr=0.5), []
    optimizer.register_step_post_hook(lambda *_: steps.append("step"))
    got = answer(model, X, y, optimizer)
    case = "SGD with lr = 0.5, and old gradients of 1 still lying there"
    rule = "Forget the old gradients, backward, step: in this order, each of them once."
    same(f"{case}: the new weights", model.weight, want[0], rule, atol=1e-6)
    same(f"{case}: the new bias", model.bias, want[1], rule, atol=1e-6)
    same(f"{case}: the loss of this step", got, loss.item(),
         "It returns the loss from which it stepped.", atol=1e-6)  # fmt: skip
    same(f"{case}: the steps of the optimiser", steps, ["step"],
         "The optimiser moves the weights, by its own rule: optimizer.step(), once.")  # fmt: skip
    same(f"{case}: is what it returns a tensor?", isinstance(got, torch.Tensor), False,
         "It returns a tensor, and with it the graph of this step stays in memory: "
         "loss.item() is a number.")  # fmt: skip
    model = _Watching().eval()
    answer(model, X, y, torch.optim.SGD(model.parameters(), lr=0.5))
    same("a model that was left in eval(): training mode in forward, and afterwards?",
         [all(model.modes), model.training], [True, True],
         "model.train() first, then model(X): in evaluation mode dropout sleeps and batch "
         "norm does not learn.")  # fmt: skip


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
    model, X, y = _Watching().eval(), *_toy(93, rows=11)[1:]
    with torch.no_grad():
        logits = model(X)
    loss, right = F.cross_entropy(logits, y), (logits.argmax(1) == y).double().mean()
    batches = list(zip(X.split(4), y.split(4)))
    case, once = "11 rows in batches of 4, 4 and 3", _Once(batches)
    model.modes.clear(), model.graphs.clear(), model.train()
    got = answer(model, once)
    same(f"{case}: how often batches is read", once.passes, 1,
         "batches may be read only once: count rows, losses and right answers in one "
         "loop.")  # fmt: skip
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        raise Miss("It returns two numbers: the mean loss and the accuracy.",
                   case, got, "(loss, accuracy)")  # fmt: skip
    same(f"{case}: model.training during the calls", sorted(set(model.modes)), [False],
         "The model answers every batch in evaluation mode: model.eval() first.")  # fmt: skip
    same(f"{case}: is a graph recorded?", any(model.graphs), False,
         "A graph was recorded for a backward that never comes: "
         "`with torch.inference_mode():`.")  # fmt: skip
    same(f"{case}: model.training afterwards", model.training, True,
         "Put the mode back in which the model came: was = model.training, before eval().")  # fmt: skip
    same(f"{case}: the mean loss", got[0], loss,
         "The sum of all rows' losses over the number of rows.", atol=1e-5)  # fmt: skip
    same(f"{case}: the accuracy", got[1], right,
         "The right answers over the number of rows.", atol=1e-6)  # fmt: skip
    model.eval()
    answer(model, batches)
    same("a model that came in evaluation mode: model.training afterwards",
         model.training, False, "Put back what was there: model.train(was).")  # fmt: skip


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
    first = "The first of cuda, mps and cpu that this machine has."
    asked_for = "Who asks for a device gets it, also if there is a faster one."
    number = "A device may come with its number, and keeps it: torch.device(asked)."
    lacking = (
        "A device that is not there: raise ValueError now, rather than a long trace at the "
        "first .to(device), or a silent walk on the CPU."
    )
    for cuda, mps, asked, want, rule in [
        (False, False, None, "cpu", first),
        (True, False, None, "cuda", first),
        (False, True, None, "mps", "An Apple chip has no CUDA and still a GPU: ask for MPS too."),
        (True, True, None, "cuda", first),
        (True, False, "cpu", "cpu", asked_for),
        (True, True, "mps", "mps", asked_for),
        (True, False, "cuda", "cuda", asked_for),
        (False, False, "cpu", "cpu", "Every machine has a CPU."),
        (False, False, "cuda", None, lacking),
        (False, False, "mps", None, lacking),
        (False, True, "cuda", None, lacking),
        (True, False, "mps", None, lacking),
        (False, False, "cuda:0", None, lacking),
        (True, False, "cuda:0", "cuda:0", number),
        (True, False, "cuda:1", "cuda:1", number),
    ]:  # fmt: skip
        with _machine(cuda, mps):
            got = _outcome(answer, *([] if asked is None else [asked]))
        case = f"a machine with CUDA: {cuda}, MPS: {mps}; asked for: {asked}"
        want = torch.device(want) if want else "ValueError"
        if isinstance(got, str) and got in ("cuda", "mps", "cpu"):
            word = "It returns a word: torch.device(word) is a device."
            raise Miss(word, case, got, want)
        if isinstance(got, torch.device) and ":" not in str(asked):
            got = torch.device(got.type)  # no number was asked for: cuda or cuda:0
        same(case, got, want, rule)


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
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.pt"
        answer(path, {"step": 1, "w": torch.ones(3)})
        same("the first save: is there a file at `path`?", path.exists(), True,
             "There is no file at `path`: the part takes its name, os.replace(part, path).")  # fmt: skip
        whole = "The file holds the whole state: torch.save(state, file)."
        state = torch.load(path, weights_only=True)
        same("the first save: the keys", sorted(state), ["step", "w"], whole)
        same("the first save: w", state["w"], [1.0, 1.0, 1.0], whole)

        case = "the disk is full in the middle of the second save"
        with _disk(path) as done:
            try:
                answer(path, {"step": 99, "later": _Unwritable()})
                told = "no error"
            except Exception:
                told = "an error"
        same(f"{case}: is there still a file?", path.exists(), True,
             "The old file was removed before the new one was whole: now there is none.")  # fmt: skip
        same(f"{case}: is a torn part put over the old file?", "replace" in dict(done), False,
             "The part was put over the old file although the writing had failed: "
             "os.replace comes after the writing, not in `finally`.")  # fmt: skip
        same(f"{case}: the step in the file", _step(path), 1,
             "The old checkpoint is destroyed: you write into the file itself. Write "
             "another file beside it, then os.replace.")  # fmt: skip
        same(f"{case}: what the caller learns", told, "an error",
             "The error was swallowed: the caller must learn that nothing was saved.")  # fmt: skip

        case, files = "saving over an older file", set(os.listdir(folder))
        with _disk(path) as done:
            answer(path, {"step": 2, "w": torch.zeros(3)})
        same(f"{case}: what happens on the disk, in order",
             [name for name, _ in itertools.groupby(name for name, _ in done)],
             ["fsync", "replace"], "First the bytes are forced to the disk, file.flush() and os.fsync; then the "
             "part takes the old file's place in one step, os.replace.")  # fmt: skip
        same(f"{case}: the step in the file", _step(path), 2, "The new state is in it.")
        known = dict(done)
        same(f"{case}: bytes in the part when os.fsync is called", known["fsync"],
             path.stat().st_size, "At the fsync the bytes are not yet in the file but in "
             "Python's buffer: file.flush() comes first, then os.fsync.")  # fmt: skip
        part = Path(known["replace"])
        same(f"{case}: does the part lie in the folder of `path`?",
             part.parent.resolve() == path.parent.resolve(), True,
             "The part lies in another folder: across disks a replace is a copy, and a "
             "copy can be torn.")  # fmt: skip
        same(f"{case}: what is left behind", sorted(set(os.listdir(folder)) - files), [],
             "Something was left behind: the part becomes the file.")  # fmt: skip
        with _disk(path.with_suffix(".json")) as done:
            answer(path.with_suffix(".json"), {"step": 3})
        same("run.pt and run.json: have they parts of their own?",
             dict(done).get("replace") != str(part), True,
             "run.pt and run.json get the same part, so two savers would mix their bytes: add .part to the whole name, path.name "
             "+ '.part'.")  # fmt: skip


@contextlib.contextmanager
def _disk(path):
    "Note what is done: ('fsync', bytes), ('replace', by which file), ('remove', path)."
    done, real = [], {}

    def fsync(file):
        number = file if isinstance(file, int) else file.fileno()
        if not stat.S_ISDIR(os.fstat(number).st_mode):
            done.append(("fsync", os.fstat(number).st_size))
        return real["fsync"](file)

    def replace(name):
        def call(part, target, **options):
            if str(target) == str(path):
                done.append(("replace", str(part)))
            return real[name](part, target, **options)

        return call

    def remove(name):
        def call(target, **options):
            if str(target) == str(path):
                done.append(("remove", str(target)))
            return real[name](target, **options)

        return call

    noted = {"fsync": fsync} | {name: replace(name) for name in ("replace", "rename")}
    noted |= {name: remove(name) for name in ("unlink", "remove")}
    real |= {name: getattr(os, name) for name in noted}
    with mock.patch.multiple(os, **noted):
        yield done


def _step(path):
    "The step of a checkpoint, or how it fails to load."
    try:
        return torch.load(path, weights_only=True)["step"]
    except Exception as error:
        return f"{type(error).__name__} on loading"


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
    run = _run()
    _walk(run, 6)
    random_state = torch.get_rng_state()
    state = answer(*run, 2, 3)
    same("is the random state as before?", torch.equal(random_state, torch.get_rng_state()),
         True, "A snapshot looks and changes nothing: torch.get_rng_state() draws no number.")  # fmt: skip
    if not isinstance(state, dict):
        raise Miss("A snapshot is a dict.", "what came back", state, "a dict")
    keys = "model", "optimizer", "scheduler", "random", "at"
    same("keys that are missing", [key for key in keys if key not in state], [],
         "Five keys: model, optimizer, scheduler, random, at.")  # fmt: skip
    same("the place: epoch 2, 3 batches done", state["at"], {"epoch": 2, "done": 3},
         "'at' is a dict of two numbers, epoch and done, as they were handed in.")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.pt"
        torch.save(state, path)
        try:
            state, told = torch.load(path, weights_only=True), "it loads"
        except Exception as error:
            told = type(error).__name__
    same("saved, and loaded with weights_only=True", told, "it loads",
         "It holds objects, not their state: such a file is refused when it is loaded. "
         "Use .state_dict().")  # fmt: skip
    want, fresh = _walk(run, 6), _run()
    for key, part in zip(keys, fresh):
        same(f"{key}.load_state_dict(state[{key!r}])",
             _fits(part.load_state_dict, state[key]), "it fits",
             f"What lies under {key!r} is not the {key}'s state_dict().")  # fmt: skip
    same("torch.set_rng_state(state['random'])",
         _fits(torch.set_rng_state, state["random"]), "it fits",
         "Under 'random' belongs what torch.get_rng_state() returns; a seed says where "
         "the numbers began, not where they are.")  # fmt: skip
    same("weights after 6 steps, a snapshot, 6 more steps", _walk(fresh, 6), want,
         "The continued run leaves the unbroken one's path: something that was saved is "
         "not what it was at this step.", atol=0, rtol=0)  # fmt: skip


def _fits(load, state):
    try:
        load(state)
        return "it fits"
    except Exception as error:
        return type(error).__name__


KINDS = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64}


def write_safetensors(path, tensors, metadata=None, backwards=False, odd=False):
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
    text += b" " * (-len(text) % 8 + 3 * odd)
    Path(path).write_bytes(len(text).to_bytes(8, "little") + text + data)


@chapter.exercise(
    "Read the bytes. The first 8 are the header's length, the smallest digit first.",
    "After 8 + length bytes the numbers begin, and the offsets count from there. "
    '"__metadata__" is no tensor.',
    'n = int.from_bytes(raw[:8], "little"); header = json.loads(raw[8:8 + n]); '
    "torch.frombuffer(raw[8 + n + begin : 8 + n + end], dtype=...).reshape(shape)",
)
def read_safetensors(answer):
    "The tensors of a safetensors file."
    tensors = {
        "grid": torch.arange(6.0).reshape(2, 3) + 0.5,
        "labels": torch.tensor([4, -2, 7]),
        "scale": torch.tensor(2.5),
        "exact": torch.tensor([0.1, 0.2], dtype=torch.float64),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        for case, options in {
            "four tensors": {},
            "a file with a long __metadata__": {"metadata": {"long": "note " * 15000}},
            "a header in another order than the numbers": {"backwards": True},
            "a header whose length is no multiple of 8": {"odd": True},
        }.items():
            write_safetensors(path, tensors, **options)
            try:
                got = answer(path)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise Miss("What was cut out as the header is no JSON. Its length is in "
                           "all of the first 8 bytes, the smallest byte first "
                           "(int.from_bytes(raw[:8], 'little')), and it begins at byte 8.",
                           case, type(error).__name__, "the header") from None  # fmt: skip
            if not isinstance(got, dict):
                raise Miss("It returns a dict {name: tensor}.", case,
                           f"a {type(got).__name__}", "a dict")  # fmt: skip
            same(f"{case}: the names", sorted(got), sorted(tensors),
                 "Every entry of the header is a tensor, __metadata__ excepted.")  # fmt: skip
            got = [got[name] for name in tensors]
            same(f"{case}: the types", [type(t).__name__ for t in got], ["Tensor"] * 4,
                 "They are torch's tensors: torch.frombuffer(part, dtype=...).")  # fmt: skip
            same(f"{case}: the dtypes", [str(t.dtype) for t in got],
                 [str(t.dtype) for t in tensors.values()],
                 "The dtype stands in the header: KINDS[entry['dtype']].")  # fmt: skip
            for (name, want), ours in zip(tensors.items(), got):
                same(f"{case}: {name}", ours, want, "Offsets count from the end of the "
                     "header, in bytes; the shape stands in the header.")  # fmt: skip
