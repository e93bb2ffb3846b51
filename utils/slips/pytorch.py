"""Chapter 05: small wrong programs, and the sentence that names each."""

import functools
import io
import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from utils.checks import pytorch as ex
from utils.checks.pytorch import KINDS

# ---- strides_of ----


def _strides(shape):
    result, step = [], 1
    for size in reversed(shape):
        result.insert(0, step)
        step *= size
    return tuple(result)


@ex.strides_of.slip(
    "This is turned round: rows lie one after another, so the last axis moves by 1."
)
def reversed_strides(shape):
    return _strides(shape)[::-1]


@ex.strides_of.slip(
    "This counts from the left (the order of Fortran): an axis jumps over the axes to its right."
)
def from_the_left(shape):
    return _strides(shape[::-1])[::-1]


@ex.strides_of.slip("One axis too far: an axis does not jump over itself.")
def one_too_far(shape):
    return tuple(s * n for s, n in zip(_strides(shape), shape))


@ex.strides_of.slip("These are bytes: PyTorch counts elements.")
def in_bytes(shape):
    return tuple(4 * s for s in _strides(shape))


@ex.strides_of.slip("This is the shape itself: multiply the sizes behind each axis.")
def shape_itself(shape):
    return shape


@ex.strides_of.slip(
    "An axis jumps over all the axes to its right, not only over the next: multiply their "
    "sizes."
)
def only_the_next(shape):
    return (*shape[1:], 1)


@ex.strides_of.slip(
    "The sizes to the right are multiplied, not added: each row holds that many columns."
)
def adds_sizes(shape):
    return tuple(sum(shape[i + 1 :]) or 1 for i in range(len(shape)))


@ex.strides_of.slip(
    "An axis of 1 has a stride as every other, though it is never used."
)
def nothing_for_ones(shape):
    return tuple(0 if n == 1 else s for s, n in zip(_strides(shape), shape))


@ex.strides_of.slip("A tensor without axes, shape (), has no strides: ().")
def one_for_no_axes(shape):
    return _strides(shape) or (1,)


@ex.strides_of.slip("A tensor without axes, shape (), has no last axis to begin with.")
def fails_without_axes(shape):
    last = shape[-1]
    return _strides(shape)


@ex.strides_of.slip(
    "A stride is a whole number, and one of these is a float: the np.prod of nothing is 1.0. math.prod gives 1."
)
def ends_in_a_float(shape):
    return tuple(np.prod(shape[i + 1 :]) for i in range(len(shape)))


# ---- expanded_strides ----


def _expand(shape, strides, wanted):
    return torch.empty(100).as_strided(shape, strides).expand(wanted).stride()


@ex.expanded_strides.slip(
    "The stretched axis would run on into the next row: standing still is a stride of 0."
)
def keeps_the_stride(shape, strides, wanted):
    return (0,) * (len(wanted) - len(shape)) + tuple(strides)


@ex.expanded_strides.slip("Shapes are lined up at their right ends, not at the left.")
def lined_up_left(shape, strides, wanted):
    missing = len(wanted) - len(shape)
    sizes, kept = tuple(shape) + (1,) * missing, tuple(strides) + (0,) * missing
    return tuple(0 if size == 1 else s for size, s in zip(sizes, kept))


@ex.expanded_strides.slip(
    "These are the strides of a copy: broadcasting moves no number."
)
def strides_of_a_copy(shape, strides, wanted):
    return _strides(wanted)


@ex.expanded_strides.slip(
    "The axes are lost: one stride for each axis of the wanted shape."
)
def no_new_axes(shape, strides, wanted):
    end = wanted[len(wanted) - len(shape) :]
    return tuple(0 if n == 1 != w else s for n, s, w in zip(shape, strides, end))


def _stretch(shape, strides, wanted, fits=lambda n, w: n in (1, w), vanishes=False):
    extra = len(wanted) - len(shape)
    kept = list(zip(shape, strides, wanted[extra:] if extra > 0 else wanted))
    if (extra < 0 and not vanishes) or not all(fits(n, w) for n, _, w in kept):
        raise ValueError("no")
    return (0,) * extra + tuple(s if n == w else 0 for n, s, w in kept)


for sentence, fits in {
    "An axis of 3 cannot become 4, and here it did: sizes that differ raise ValueError, "
    "unless the old one is 1.": lambda n, w: True,
    "An axis can only be stretched from 1, not squeezed to 1: 3 does not become 1.": (
        lambda n, w: n == w or 1 in (n, w)
    ),
    "2 does not become 4, although it divides it: only an axis of 1 can be copied.": (
        lambda n, w: w % n == 0
    ),
    "An axis cannot become shorter: any size but 1 must stay as it is.": (
        lambda n, w: n in (1, w) or n > w > 1
    ),
}.items():

    @ex.expanded_strides.slip(sentence)
    def fits_too_often(shape, strides, wanted, fits=fits):
        return _stretch(shape, strides, wanted, fits)


@ex.expanded_strides.slip(
    "An axis has vanished: more axes than were wanted raise ValueError, also where the "
    "sizes that are compared agree."
)
def lets_axes_vanish(shape, strides, wanted):
    return _stretch(shape, strides, wanted, vanishes=True)


@ex.expanded_strides.slip(
    "The tensor may be a view itself: keep the strides that were handed in, not those of a "
    "fresh tensor of this shape."
)
def takes_it_for_contiguous(shape, strides, wanted):
    return _stretch(shape, _strides(shape), wanted)


@ex.expanded_strides.slip(
    "A new axis is no mismatch: (6,) becomes (4, 6), with a stride of 0 in front."
)
def refuses_new_axes(shape, strides, wanted):
    if len(wanted) == len(shape) + 1:
        raise ValueError("too few axes")
    return _stretch(shape, strides, wanted)


# ---- Module ----


class _Silent:
    "A right Module, but for the call."

    def __setattr__(self, name, value):
        found = self.__dict__.setdefault("found", {})
        found.pop(name, None)
        if isinstance(value, _Silent) or getattr(value, "requires_grad", False):
            found[name] = value
        object.__setattr__(self, name, value)

    def named_parameters(self, prefix=""):
        for name, value in self.__dict__.get("found", {}).items():
            if isinstance(value, _Silent):
                yield from value.named_parameters(prefix + name + ".")
            else:
                yield prefix + name, value


@ex.Module.slip("A Module can be called like a function: write __call__.")
class NotCallable(_Silent):
    pass


class _Right(_Silent):
    def __call__(self, *inputs):
        return self.forward(*inputs)


def _note(module, name, value):
    "Remember `value` under `name` if it is a parameter or a Module."
    if isinstance(value, _Right) or getattr(value, "requires_grad", False):
        module.__dict__.setdefault("found", {})[name] = value


STORED = (
    "The attribute is gone: after noting it, store it as always with "
    "object.__setattr__(self, name, value)."
)


@ex.Module.slip(STORED)
class OnlyNotes(_Right):
    def __setattr__(self, name, value):
        _note(self, name, value)


@ex.Module.slip(STORED)
class StoresTheRest(_Right):
    def __setattr__(self, name, value):
        if isinstance(value, _Right) or getattr(value, "requires_grad", False):
            _note(self, name, value)
        else:
            object.__setattr__(self, name, value)


@ex.Module.slip(
    "What is no parameter is lost: store every value with object.__setattr__, noted or not."
)
class StoresParametersAlone(_Right):
    def __setattr__(self, name, value):
        if isinstance(value, _Right) or getattr(value, "requires_grad", False):
            super().__setattr__(name, value)


@ex.Module.slip("A tensor without requires_grad is data, not a parameter.")
class EveryTensor(_Right):
    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if isinstance(value, torch.Tensor):
            self.__dict__["found"][name] = value


@ex.Module.slip(
    "A new object knows another's parameters: the registry must belong to the object "
    "(self.__dict__), not to the class."
)
class OneForAll(_Right):
    registry = {}

    def __setattr__(self, name, value):
        OneForAll.registry.pop(name, None)
        if isinstance(value, _Right) or getattr(value, "requires_grad", False):
            OneForAll.registry[name] = value
        object.__setattr__(self, name, value)

    def named_parameters(self, prefix=""):
        for name, value in OneForAll.registry.items():
            if not isinstance(value, _Right):
                yield prefix + name, value


@ex.Module.slip(
    "The modules within are not asked: named_parameters goes down into them."
)
class NotDown(_Right):
    def named_parameters(self, prefix=""):
        for name, value in self.__dict__.get("found", {}).items():
            if not isinstance(value, _Right):
                yield prefix + name, value


MEET = "Names meet: a name within a module gets the module's name and a dot in front."


@ex.Module.slip(MEET)
class NoPrefix(_Right):
    def named_parameters(self, prefix=""):
        for name, value in self.__dict__.get("found", {}).items():
            if isinstance(value, _Right):
                yield from value.named_parameters()
            else:
                yield name, value


@ex.Module.slip(MEET)
class NoPrefixInADict(NoPrefix):
    def named_parameters(self, prefix=""):
        yield from dict(super().named_parameters()).items()


@ex.Module.slip("The dot is missing between the module's name and the tensor's.")
class NoDot(_Right):
    def named_parameters(self, prefix=""):
        for name, value in self.__dict__.get("found", {}).items():
            if isinstance(value, _Right):
                yield from value.named_parameters(prefix + name)
            else:
                yield prefix + name, value


@ex.Module.slip("Hand the whole path down: prefix + name + '.'.")
class OneLevelOfPrefix(_Right):
    def named_parameters(self, prefix=""):
        for name, value in self.__dict__.get("found", {}).items():
            if isinstance(value, _Right):
                yield from value.named_parameters(name + ".")
            else:
                yield prefix + name, value


@ex.Module.slip(
    "A pair is the path and the tensor itself: a copy has a grad of its own, and the "
    "optimiser would move nothing."
)
class YieldsCopies(_Right):
    def named_parameters(self, prefix=""):
        for name, value in self.__dict__.get("found", {}).items():
            if isinstance(value, _Right):
                for path, tensor in value.named_parameters(prefix + name + "."):
                    yield path, tensor.detach()
            else:
                yield prefix + name, value


@ex.Module.slip("The old tensor is still noted: the optimiser would train a ghost.")
class FirstOneStays(_Right):
    def __setattr__(self, name, value):
        _note(self, name, self.__dict__.get("found", {}).get(name, value))
        object.__setattr__(self, name, value)


@ex.Module.slip("None is no parameter: drop the name again.")
class NeverForgets(_Right):
    def __setattr__(self, name, value):
        _note(self, name, value)
        object.__setattr__(self, name, value)


@ex.Module.slip(
    "Inside __setattr__, `self.name = ...` calls __setattr__ again, without end: keep the "
    "notes in self.__dict__."
)
class NotesWithASelf(_Right):
    def __setattr__(self, name, value):
        self.found = {**getattr(self, "found", {}), name: value}


@ex.Module.slip(
    "This subclass never calls super().__init__(), nor does the chapter's Net: make the "
    "registry at the first __setattr__, with self.__dict__.setdefault."
)
class RegistryInInit(_Right):
    def __init__(self):
        self.__dict__["notes"] = {}

    def __setattr__(self, name, value):
        self.__dict__["notes"].pop(name, None)
        super().__setattr__(name, value)


class _TwoNotes(_Right):
    def __setattr__(self, name, value):
        tensors = self.__dict__.setdefault("tensors", {})
        modules = self.__dict__.setdefault("modules", {})
        self.forget(name, value, tensors, modules)
        if isinstance(value, _Right):
            modules[name] = value
        elif getattr(value, "requires_grad", False):
            tensors[name] = value
        object.__setattr__(self, name, value)

    def named_parameters(self, prefix=""):
        for name, value in self.__dict__.get("tensors", {}).items():
            yield prefix + name, value
        for name, value in self.__dict__.get("modules", {}).items():
            yield from value.named_parameters(prefix + name + ".")


@ex.Module.slip(
    "The tensor is still noted after its name went to a Module: forget the name in both "
    "notes."
)
class KeepsTheTensor(_TwoNotes):
    def forget(self, name, value, tensors, modules):
        modules.pop(name, None)
        if not isinstance(value, _Right):
            tensors.pop(name, None)


@ex.Module.slip(
    "The Module is still noted after its name went to a tensor: forget the name in both "
    "notes."
)
class KeepsTheModule(_TwoNotes):
    def forget(self, name, value, tensors, modules):
        tensors.pop(name, None)


@ex.Module.slip("__call__ runs forward and loses what it returns: return it.")
class CallsButForgets(_Right):
    def __call__(self, *inputs):
        self.forward(*inputs)
        return inputs[0]


INPUTS = "__call__ hands on all its inputs: self.forward(*inputs)."


@ex.Module.slip(INPUTS)
class HandsOnTheFirst(_Right):
    def __call__(self, *inputs):
        return self.forward(inputs[0])


@ex.Module.slip(INPUTS)
class TakesOneInput(_Right):
    def __call__(self, x):
        return self.forward(x)


ex.Module.slip(told="Module should be a class; it is a function.")(_Right())


# ---- Linear ----


class _Layer(_Right):
    def __init__(self, D, H):
        bound = D**-0.5
        self.weight = torch.empty(H, D).uniform_(-bound, bound).requires_grad_()
        self.bias = torch.empty(H).uniform_(-bound, bound).requires_grad_()

    def forward(self, X):
        return X @ self.weight.T + self.bias


def _layer(weight=None, bias=None, forward=None):
    "A Linear class with its weight, its bias or its forward made in another way."

    class Made(_Layer):
        def __init__(self, D, H):
            super().__init__(D, H)
            self.weight = self.weight if weight is None else weight(D, H)
            self.bias = self.bias if bias is None else bias(D, H)

        def forward(self, X):
            return super().forward(X) if forward is None else forward(self, X)

    return Made


def _drawn(low, high, *shape):
    return torch.empty(*shape).uniform_(low, high).requires_grad_()


NO_LEAF = (
    "is the result of an operation, not a leaf: its .grad will stay None. Scale first, "
    ".requires_grad_() last."
)
PAST = "so it would never learn: forward uses the tensor itself, not its .data or .detach()."
AXES = "Rows may have axes in front, (..., D): X @ weight.T takes any number of them."
for sentence, parts in {
    "A linear layer has a tensor self.bias.": {"bias": lambda D, H: None},
    f"self.weight {NO_LEAF}": {
        "weight": lambda D, H: (2 * torch.rand(H, D, requires_grad=True) - 1) * D**-0.5
    },
    f"self.bias {NO_LEAF}": {
        "bias": lambda D, H: (2 * torch.rand(H, requires_grad=True) - 1) * D**-0.5
    },
    "self.weight does not ask for gradients: .requires_grad_().": {
        "weight": lambda D, H: torch.empty(H, D).uniform_(-(D**-0.5), D**-0.5)
    },
    "self.bias does not ask for gradients: .requires_grad_().": {
        "bias": lambda D, H: torch.empty(H).uniform_(-(D**-0.5), D**-0.5)
    },
    "Where is the bias?": {"forward": lambda layer, X: X @ layer.weight.T},
    "The bias is added, not subtracted.": {
        "forward": lambda layer, X: X @ layer.weight.T - layer.bias
    },
    "A linear layer ends with the bias: ReLU is a layer of its own.": {
        "forward": lambda layer, X: (X @ layer.weight.T + layer.bias).relu()
    },
    f"No gradient reaches self.weight, {PAST}": {
        "forward": lambda layer, X: X @ layer.weight.data.T + layer.bias
    },
    f"No gradient reaches self.bias, {PAST}": {
        "forward": lambda layer, X: X @ layer.weight.T + layer.bias.detach()
    },
    f"No gradient reaches weight or bias, {PAST}": {
        "forward": lambda layer, X: X @ layer.weight.data.T + layer.bias.data
    },
    "Equal weights get equal gradients and stay equal for ever: draw them.": {
        "weight": lambda D, H: torch.zeros(H, D, requires_grad=True)
    },
    "Every output has the same row of weights, and they stay equal for ever: draw (H, D) "
    "numbers.": {
        "weight": lambda D, H: (
            _drawn(-(D**-0.5), D**-0.5, 1, D).detach().repeat(H, 1).requires_grad_()
        )
    },
    "Each output has one weight for all its inputs, so they stay equal for ever: draw "
    "(H, D) numbers.": {
        "weight": lambda D, H: (
            _drawn(-(D**-0.5), D**-0.5, H, 1).detach().repeat(1, D).requires_grad_()
        )
    },
    "torch.randn spreads over all numbers, with deviation 1; uniform_(-bound, bound) ends "
    "at bound.": {"weight": lambda D, H: torch.randn(H, D).requires_grad_()},
    "torch.rand draws from 0 to 1: no weight is negative, and the bound is missing.": {
        "weight": lambda D, H: torch.rand(H, D).requires_grad_()
    },
    "Only positive weights: uniformly from -bound to bound.": {
        "weight": lambda D, H: _drawn(0, D**-0.5, H, D)
    },
    "The bound comes from the inputs of a layer, D ** -0.5, not from its outputs.": {
        "weight": lambda D, H: _drawn(-(H**-0.5), H**-0.5, H, D)
    },
    "The bound is 1/D here: it is D ** -0.5, one over the square root.": {
        "weight": lambda D, H: _drawn(-1 / D, 1 / D, H, D)
    },
    "The bias starts at 0: the text asks for it to be drawn as the weight is.": {
        "bias": lambda D, H: torch.zeros(H, requires_grad=True)
    },
}.items():
    ex.Linear.slip(sentence)(_layer(**parts))


@ex.Linear.slip("The weight is turned: PyTorch keeps (outputs, inputs).")
class Turned(_Layer):
    def __init__(self, D, H):
        super().__init__(H, D)
        self.bias = torch.zeros(H, requires_grad=True)

    def forward(self, X):
        return X @ self.weight + self.bias


@ex.Linear.slip(
    "A list hides its tensors from Module: set weight and bias as attributes."
)
class KeepsAList(_Layer):
    def __init__(self, D, H):
        super().__init__(D, H)
        self.parameters = [self.weight, self.bias]
        del self.__dict__["found"]


for multiply in (torch.mm, lambda X, W: torch.addmm(torch.zeros(W.shape[1]), X, W)):

    @ex.Linear.slip(AXES)
    class MatrixOnly(_Layer):
        def forward(self, X, multiply=multiply):
            return multiply(X, self.weight.T) + self.bias


# ---- Rows ----


class _Pairs(torch.utils.data.Dataset):
    def __init__(self, X, y):
        if len(X) != len(y):
            raise ValueError("lengths")
        self.X, self.y = torch.as_tensor(X).float(), torch.as_tensor(y)

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], self.y[i]


@ex.Rows.slip("This is the number of features: count the rows.")
class CountsFeatures(_Pairs):
    def __len__(self):
        return self.X.shape[1]


@ex.Rows.slip("This is the number of all numbers: count the rows.")
class CountsNumbers(_Pairs):
    def __len__(self):
        return self.X.numel()


@ex.Rows.slip("A row comes with its label: return the pair (X[i], y[i]).")
class RowOnly(_Pairs):
    def __getitem__(self, i):
        return self.X[i].tolist()


@ex.Rows.slip("The row comes first, then its label.")
class LabelFirst(_Pairs):
    def __getitem__(self, i):
        return self.y[i], self.X[i]


@ex.Rows.slip("This is a column: rows are the first axis.")
class Column(_Pairs):
    def __getitem__(self, i):
        return self.X[:, i], self.y[i]


@ex.Rows.slip("Row i, and the label of the row after it: both take the same i.")
class NextLabel(_Pairs):
    def __getitem__(self, i):
        return self.X[i], self.y[i + 1]


@ex.Rows.slip(
    "The row is not a float32 tensor: a network of float32 weights cannot multiply it."
)
class StaysDouble(_Pairs):
    def __init__(self, X, y):
        self.X, self.y = torch.as_tensor(X), torch.as_tensor(y)


@ex.Rows.slip("A class label is a whole number: cross_entropy wants int64.")
class FloatLabels(_Pairs):
    def __init__(self, X, y):
        super().__init__(X, y)
        self.y = self.y.float()


@ex.Rows.slip("These are NumPy's numbers: keep tensors, torch.as_tensor(X).float().")
class KeepsNumpy(_Pairs):
    def __init__(self, X, y):
        self.X, self.y = X, y


@ex.Rows.slip("The label is a plain number: keep y as a tensor, as X.")
class PlainLabel(_Pairs):
    def __getitem__(self, i):
        return self.X[i], int(self.y[i])


@ex.Rows.slip(
    "One label per row: unequal lengths raise ValueError, now and not at row 3."
)
class TakesAnything(_Pairs):
    def __init__(self, X, y):
        self.X, self.y = torch.as_tensor(X).float(), torch.as_tensor(y)


@ex.Rows.slip("More labels than rows do not fit either: !=, not >.")
class TakesMoreLabels(TakesAnything):
    def __init__(self, X, y):
        if len(X) > len(y):
            raise ValueError("a row has no label")
        super().__init__(X, y)


# ---- epoch_order ----


def _own(seed):
    return torch.Generator().manual_seed(seed)


@ex.epoch_order.slip("The rows are not shuffled.")
def in_order(N, seed, epoch):
    return torch.arange(N)


@ex.epoch_order.slip("It has 50 rows whatever N is: torch.randperm(N, ...).")
def always_fifty(N, seed, epoch):
    return torch.randperm(50, generator=_own(1_000_003 * seed + epoch))


@ex.epoch_order.slip("Row numbers run from 0 to N-1.")
def counts_from_one(N, seed, epoch):
    return 1 + torch.randperm(N, generator=_own(1_000_003 * seed + epoch))


@ex.epoch_order.slip(
    "Row numbers are whole numbers: int64, as torch.randperm gives them."
)
def as_floats(N, seed, epoch):
    return torch.randperm(N, generator=_own(1_000_003 * seed + epoch)).float()


@ex.epoch_order.slip("This is NumPy's array: return a tensor, torch.as_tensor(order).")
def an_array(N, seed, epoch):
    return np.random.default_rng((seed, epoch)).permutation(N)


@ex.epoch_order.slip(
    "Some rows came twice and others never: torch.randperm, not randint."
)
def with_replacement(N, seed, epoch):
    return torch.randint(N, (N,), generator=_own(1000 * seed + epoch))


@ex.epoch_order.slip(
    "It depends on the global generator: seed a torch.Generator of your own."
)
def from_the_global_one(N, seed, epoch):
    return torch.randperm(N)


@ex.epoch_order.slip(
    "The call changes the global random state: the model's dropout would depend on it. Use a torch.Generator of your own."
)
def seeds_the_global_one(N, seed, epoch):
    torch.manual_seed(1_000_003 * seed + epoch)
    return torch.randperm(N)


@ex.epoch_order.slip(
    "The epochs of a run all have one order: the epoch belongs into the seed."
)
def forgets_epoch(N, seed, epoch):
    return torch.randperm(N, generator=_own(seed))


@ex.epoch_order.slip("All seeds give one order: the seed is not used.")
def forgets_seed(N, seed, epoch):
    return torch.randperm(N, generator=_own(epoch))


@ex.epoch_order.slip(
    "The next seed is the next epoch: seed + epoch mixes them up. Keep them apart, with a large factor on one."
)
def adds_them(N, seed, epoch):
    return torch.randperm(N, generator=_own(seed + epoch))


@ex.epoch_order.slip(
    "It returns a tensor: the loop will .split it and index with the parts."
)
def a_list_of_rows(N, seed, epoch):
    return torch.randperm(N, generator=_own(1_000_003 * seed + epoch)).tolist()


@ex.epoch_order.slip(
    "The call changes NumPy's global random state, on which others may depend. Use a torch.Generator of your own."
)
def seeds_numpy(N, seed, epoch):
    np.random.seed((1_000_003 * seed + epoch) % 2**32)
    return torch.as_tensor(np.random.permutation(N))


@ex.epoch_order.slip(
    "The call changes Python's global random state, on which others may depend. Use a torch.Generator of your own."
)
def seeds_python(N, seed, epoch):
    random.seed(1_000_003 * seed + epoch)
    return torch.tensor(random.sample(range(N), N))


# last, for they take long
for sentence, mixed in {
    "Seed 1, epoch 0 and seed 0, epoch 10 get one order: a factor of 10 keeps ten epochs "
    "apart, and there are up to 9,999.": lambda seed, epoch: 10 * seed + epoch,
    "Seed 1, epoch 0 and seed 0, epoch 100 get one order: a factor of 100 keeps a hundred "
    "epochs apart, and there are up to 9,999.": lambda seed, epoch: 100 * seed + epoch,
    "Seed 1, epoch 0 and seed 0, epoch 1,000 get one order: a factor of 1,000 is too "
    "small, epochs go up to 9,999.": lambda seed, epoch: 1000 * seed + epoch,
    "Epoch 1 of seed 0 and epoch 0 of seed 1,000 get one order: a factor of 1,000 is too "
    "small, seeds go up to 9,999.": lambda seed, epoch: seed + 1000 * epoch,
    "Seed 1, epoch 0 and seed 0, epoch 9,999 get one order: the factor must be larger "
    "than every epoch.": lambda seed, epoch: 9999 * seed + epoch,
}.items():

    @ex.epoch_order.slip(sentence)
    def too_close(N, seed, epoch, mixed=mixed):
        return torch.randperm(N, generator=_own(mixed(seed, epoch)))


# ---- train_step ----


@ex.train_step.slip(
    "The old gradients were added to the new ones: zero_grad comes before backward."
)
def no_zero_grad(model, X, y, optimizer):
    model.train()
    loss = F.cross_entropy(model(X), y)
    loss.backward()
    optimizer.step()
    return loss.item()


@ex.train_step.slip("The step used the old gradients only: backward comes before step.")
def step_first(model, X, y, optimizer):
    model.train()
    loss = F.cross_entropy(model(X), y)
    optimizer.step()
    optimizer.zero_grad()
    loss.backward()
    return loss.item()


@ex.train_step.slip(
    "The weights have not moved: is there a step, and are the gradients still there when it comes?"
)
def erased(model, X, y, optimizer):
    model.train()
    loss = F.cross_entropy(model(X), y)
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss.item()


@ex.train_step.slip(
    "It returns a tensor, and with it the graph of this step stays in memory: loss.item() is a number."
)
def returns_the_graph(model, X, y, optimizer):
    model.train()
    loss = F.cross_entropy(model(X), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


@ex.train_step.slip(
    "The weights have not moved: is there a step, and are the gradients still there when "
    "it comes?"
)
def no_step(model, X, y, optimizer):
    model.train()
    loss = F.cross_entropy(model(X), y)
    optimizer.zero_grad()
    loss.backward()
    return loss.item()


@ex.train_step.slip(
    "This is the sum over the batch: F.cross_entropy takes the mean, so that a step does "
    "not grow with the batch."
)
def summed(model, X, y, optimizer):
    model.train()
    loss = F.cross_entropy(model(X), y, reduction="sum")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@ex.train_step.slip("Softmax is in F.cross_entropy already: hand it the logits.")
def softmax_twice(model, X, y, optimizer):
    model.train()
    loss = F.cross_entropy(model(X).softmax(1), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@ex.train_step.slip("Two steps for one batch: each call makes one.")
def two_steps(model, X, y, optimizer):
    returns_the_graph(model, X, y, optimizer)
    return returns_the_graph(model, X, y, optimizer).item()


@ex.train_step.slip(
    "The weights were moved by hand, with a rate of its own: the optimiser knows the rule "
    "and the rate, optimizer.step()."
)
def moves_by_hand(model, X, y, optimizer):
    model.train()
    loss = F.cross_entropy(model(X), y)
    optimizer.zero_grad()
    loss.backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.5 * p.grad
    return loss.item()


@ex.train_step.slip(
    "Only the weight's old gradient is forgotten: optimizer.zero_grad() does it for all."
)
def forgets_one_gradient(model, X, y, optimizer):
    model.train()
    loss = F.cross_entropy(model(X), y)
    next(model.parameters()).grad = None
    loss.backward()
    optimizer.step()
    return loss.item()


@ex.train_step.slip(
    "Afterwards it is in evaluation mode again: train_step leaves the model in training "
    "mode, the next step comes soon."
)
def puts_the_mode_back(model, X, y, optimizer):
    was = model.training
    loss = returns_the_graph(model, X, y, optimizer).item()
    model.train(was)
    return loss


@ex.train_step.slip("This is the loss after the step: return the one you stepped from.")
def looks_again(model, X, y, optimizer):
    model.train()
    returns_the_graph(model, X, y, optimizer)
    return F.cross_entropy(model(X), y).item()


@ex.train_step.slip(
    "The model is still in evaluation mode, so dropout sleeps and batch norm does not learn: model.train() first."
)
def any_mode(model, X, y, optimizer):
    loss = F.cross_entropy(model(X), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@ex.train_step.slip(told="is a `return` missing?")
def says_nothing(model, X, y, optimizer):
    returns_the_graph(model, X, y, optimizer)


@ex.train_step.slip(
    "model.train() comes too late: in the forward pass dropout still slept. model.train() first, then model(X)."
)
def mode_after_forward(model, X, y, optimizer):
    loss = F.cross_entropy(model(X), y)
    model.train()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


# ---- evaluate ----


def _score(model, batches):
    total = right = rows = 0
    for X, y in batches:
        logits = model(X)
        rows += len(X)
        total += F.cross_entropy(logits, y).item() * len(X)
        right += (logits.argmax(1) == y).sum().item()
    return total / rows, right / rows


def _careful(score):
    "`score` in evaluation mode, without a graph, and the mode put back."

    @functools.wraps(score)
    def evaluate(model, batches):
        was = model.training
        model.eval()
        with torch.inference_mode():
            result = score(model, batches)
        model.train(was)
        return result

    return evaluate


@ex.evaluate.slip(
    "A mean of batch means: a row of the short batch counts more. Weigh by rows."
)
@_careful
def mean_of_means(model, batches):
    scores = [_score(model, [batch]) for batch in batches]
    return tuple(sum(s) / len(s) for s in zip(*scores))


@ex.evaluate.slip("This is in per cent: return the share, between 0 and 1.")
@_careful
def per_cent(model, batches):
    loss, accuracy = _score(model, batches)
    return loss, 100 * accuracy


@ex.evaluate.slip("This is the sum over the rows: divide by their number.")
@_careful
def forgets_to_divide(model, batches):
    batches = list(batches)
    loss, accuracy = _score(model, batches)
    return loss * sum(len(X) for X, _ in batches), accuracy


@ex.evaluate.slip("It returns two numbers: the mean loss and the accuracy.")
@_careful
def accuracy_only(model, batches):
    return _score(model, batches)[1]


@ex.evaluate.slip("This is the last batch's loss alone.")
@_careful
def last_only(model, batches):
    return _score(model, list(batches)[-1:])


@ex.evaluate.slip("The short batch at the end was left out: its rows count alike.")
@_careful
def full_batches_only(model, batches):
    batches = list(batches)
    return _score(model, [b for b in batches if len(b[0]) == len(batches[0][0])])


@ex.evaluate.slip(
    "Divided by the number of batches: a sum over rows is divided by the number of rows."
)
@_careful
def per_batch(model, batches):
    batches = list(batches)
    loss, accuracy = _score(model, batches)
    rows = sum(len(X) for X, _ in batches)
    return loss * rows / len(batches), accuracy * rows / len(batches)


@ex.evaluate.slip("This is the number of right answers: divide by the rows.")
@_careful
def counts_the_right(model, batches):
    batches = list(batches)
    loss, accuracy = _score(model, batches)
    return loss, accuracy * sum(len(X) for X, _ in batches)


@ex.evaluate.slip("The mean loss comes first, then the accuracy.")
@_careful
def accuracy_first(model, batches):
    return _score(model, batches)[::-1]


@ex.evaluate.slip(
    "This is how often class 1 occurs: compare y with logits.argmax(1), the answers."
)
@_careful
def share_of_class_one(model, batches):
    batches = list(batches)
    labels = torch.cat([y for _, y in batches])
    return _score(model, batches)[0], (labels == 1).double().mean().item()


@ex.evaluate.slip(
    "The classes are axis 1: argmax(0) finds the best row for each class."
)
@_careful
def argmax_over_rows(model, batches):
    total = right = rows = 0
    for X, y in batches:
        logits = model(X)
        total += F.cross_entropy(logits, y).item() * len(X)
        right += (logits.argmax(0) == y).sum().item()
        rows += len(X)
    return total / rows, right / rows


@ex.evaluate.slip("This is the share of wrong answers.")
@_careful
def error_rate(model, batches):
    loss, accuracy = _score(model, batches)
    return loss, 1 - accuracy


@ex.evaluate.slip(
    "The model was still in training mode: dropout changes what it says. model.eval() first."
)
def in_training_mode(model, batches):
    with torch.no_grad():
        return _score(model, batches)


@ex.evaluate.slip(
    "A graph was recorded for a backward that never comes: `with torch.inference_mode():`."
)
def with_a_graph(model, batches):
    was = model.training
    model.eval()
    result = _score(model, batches)
    model.train(was)
    return result


@ex.evaluate.slip(
    "The model is left in evaluation mode, and training goes on without dropout: put the old mode back (and read it before eval(): was = model.training)."
)
def stays_in_eval(model, batches):
    model.eval()
    with torch.no_grad():
        return _score(model, batches)


@ex.evaluate.slip(
    "A model that came in evaluation mode leaves in training mode: put back what was there, model.train(was)."
)
def always_trains(model, batches):
    model.eval()
    with torch.no_grad():
        result = _score(model, batches)
    model.train()
    return result


@ex.evaluate.slip("This is rounded: return the number as it is.")
@_careful
def rounds_the_accuracy(model, batches):
    loss, accuracy = _score(model, batches)
    return loss, round(accuracy, 2)


@ex.evaluate.slip("This is rounded: return the number as it is.")
@_careful
def rounds_the_loss(model, batches):
    loss, accuracy = _score(model, batches)
    return round(loss, 2), accuracy


@ex.evaluate.slip(
    "The second loop over batches was empty: they may be read only once. Count rows, losses and right answers in one loop."
)
@_careful
def reads_twice(model, batches):
    rows = sum(len(X) for X, _ in batches)
    total = right = 0
    for X, y in batches:
        loss, accuracy = _score(model, [(X, y)])
        total, right = total + loss * len(X), right + accuracy * len(X)
    return total / rows, right / rows


@ex.evaluate.slip(
    "The second loop over batches was empty, so no row was counted: they may be read only "
    "once."
)
@_careful
def counts_in_a_second_loop(model, batches):
    total = right = 0
    for X, y in batches:
        loss, accuracy = _score(model, [(X, y)])
        total, right = total + loss * len(X), right + accuracy * len(X)
    rows = sum(len(X) for X, _ in batches)
    return total / rows, right / rows


@ex.evaluate.slip(
    "The model is left in evaluation mode, and training goes on without dropout: put the old mode back (and read it before eval(): was = model.training)."
)
def reads_the_mode_late(model, batches):
    model.eval()
    was = model.training
    with torch.no_grad():
        result = _score(model, batches)
    model.train(was)
    return result


# ---- pick_device ----


@ex.pick_device.slip("It returns a word: torch.device(word) is a device.")
def a_word(asked=None):
    return asked or ("cuda" if torch.cuda.is_available() else "cpu")


@ex.pick_device.slip("An Apple chip has no CUDA and still a GPU: ask for MPS too.")
def no_apple(asked=None):
    return torch.device(asked or ("cuda" if torch.cuda.is_available() else "cpu"))


@ex.pick_device.slip(
    "This machine has CUDA, and the CPU was taken: ask torch.cuda.is_available()."
)
def always_the_cpu(asked=None):
    return torch.device(asked or "cpu")


def _best():
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@ex.pick_device.slip("Who asks for a device gets it, also if there is a faster one.")
def knows_better(asked=None):
    return _best()


@ex.pick_device.slip(
    "CUDA comes before MPS: the first of cuda, mps and cpu that is there."
)
def mps_first(asked=None):
    if torch.backends.mps.is_available() and asked is None:
        return torch.device("mps")
    return _checked(asked)


@ex.pick_device.slip(
    "CUDA was not asked about here but taken for granted: torch.cuda.is_available()."
)
def always_cuda(asked=None):
    return torch.device(asked or "cuda")


@ex.pick_device.slip(
    "A device that is not there: raise ValueError now, rather than a long trace at the "
    "first .to(device)."
)
def believes_everything(asked=None):
    return torch.device(asked) if asked else _best()


@ex.pick_device.slip(
    "A device that is not there: raise ValueError, rather than a silent walk on the CPU."
)
def falls_back(asked=None):
    if asked is None:
        return _best()
    return torch.device(asked if _there(torch.device(asked).type) else "cpu")


@ex.pick_device.slip(
    "A device that is not there raises ValueError: RuntimeError is what torch itself "
    "raises, later."
)
def raises_another_error(asked=None):
    if asked is not None and not _there(torch.device(asked).type):
        raise RuntimeError("not here")
    return torch.device(asked) if asked else _best()


@ex.pick_device.slip("Every machine has a CPU: who asks for it gets it.")
def refuses_the_cpu(asked=None):
    if asked is not None and torch.device(asked).type != _best().type != "cuda":
        raise ValueError(asked)
    if asked == "cpu" and _best().type == "cpu":
        raise ValueError(asked)
    return torch.device(asked) if asked else _best()


def _checked(asked):
    if asked is not None and not _there(torch.device(asked).type):
        raise ValueError(asked)
    return torch.device(asked) if asked else _best()


def _there(kind):
    return {"cuda": torch.cuda.is_available(), "cpu": True}.get(
        kind, torch.backends.mps.is_available()
    )


@ex.pick_device.slip("The device's number is lost: return torch.device(asked).")
def forgets_the_number(asked=None):
    return torch.device(_checked(asked).type)


@ex.pick_device.slip("This is always the first GPU: who asks for cuda:1 gets cuda:1.")
def always_the_first(asked=None):
    device = _checked(asked)
    return torch.device("cuda:0") if device.type == "cuda" else device


@ex.pick_device.slip(
    'A device may come with its number, and "cuda:0" is there: look at torch.device(asked).type.'
)
def refuses_the_number(asked=None):
    if asked not in (None, "cuda", "mps", "cpu") or (asked and not _there(asked)):
        raise ValueError(asked)
    return torch.device(asked) if asked else _best()


# ---- save_checkpoint ----


@ex.save_checkpoint.slip(
    "The old checkpoint is destroyed: you write into the file itself. Write another file beside it, then os.replace."
)
def straight(path, state):
    torch.save(state, path)


@ex.save_checkpoint.slip(
    "The old file was removed before the new one was whole: now there is none."
)
def removes_then_writes(path, state):
    path = Path(path)
    if path.exists():
        path.unlink()
    part = path.with_name(path.name + ".part")
    torch.save(state, part)
    os.replace(part, path)


@ex.save_checkpoint.slip(
    "The bytes may still be in memory when the name changes, and a power cut leaves an empty file: file.flush() and os.fsync before os.replace."
)
def no_fsync(path, state):
    part = Path(path).with_name("run.pt.part")
    torch.save(state, part)
    os.replace(part, path)


def _write(path, state):
    with open(path, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


@ex.save_checkpoint.slip(
    "The old file is removed first: a crash right then leaves nothing. os.replace does both at once."
)
def leaves_a_gap(path, state):
    part = Path(path).with_name("run.pt.part")
    _write(part, state)
    if os.path.exists(path):
        os.remove(path)
    os.rename(part, path)


@ex.save_checkpoint.slip("Something was left behind: the part becomes the file.")
def a_copy_stays(path, state):
    part = Path(path).with_name(f"step{state['step']}.part")
    _write(part, state)
    shutil.copyfile(part, f"{path}.part")
    os.replace(f"{path}.part", path)


@ex.save_checkpoint.slip(
    "The part lies in another folder: across disks a replace is a copy, and a copy can be torn."
)
def elsewhere(path, state):
    part = Path(path).parent.parent / f"{Path(path).parent.name}.part"
    try:
        _write(part, state)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@ex.save_checkpoint.slip(
    "The new file never takes the old one's place in one step: os.replace(part, path)."
)
def copies(path, state):
    part = Path(path).with_name("run.pt.part")
    _write(part, state)
    shutil.copyfile(part, path)


@ex.save_checkpoint.slip(
    "The error was swallowed: the caller must learn that nothing was saved."
)
def hushes(path, state):
    part = Path(path).with_name("run.pt.part")
    try:
        _write(part, state)
        os.replace(part, path)
    except OSError:
        pass


@ex.save_checkpoint.slip("There is no file at `path`.")
def forgets_to_rename(path, state):
    _write(Path(path).with_name("run.pt.part"), state)


def _part(path):
    return Path(path).with_name(Path(path).name + ".part")


@ex.save_checkpoint.slip(
    "At the fsync the bytes are not yet in the file but in Python's buffer: file.flush() comes first, then os.fsync."
)
def forces_before_writing(path, state):
    with open(_part(path), "wb") as file:
        os.fsync(file.fileno())
        torch.save(state, file)
    os.replace(_part(path), path)


@ex.save_checkpoint.slip(
    "At the fsync the bytes are not yet in the file but in Python's buffer: file.flush() comes first, then os.fsync."
)
def bytes_in_the_buffer(path, state):
    memory = io.BytesIO()
    torch.save(state, memory)
    with open(_part(path), "wb") as file:
        file.write(memory.getvalue())
        os.fsync(file.fileno())
        file.flush()
    os.replace(_part(path), path)


@ex.save_checkpoint.slip(
    "run.pt and run.json get the same part, so two savers would mix their bytes: add .part to the whole name, path.name + '.part'."
)
def one_part_for_all(path, state):
    part = Path(path).with_suffix(".part")
    _write(part, state)
    os.replace(part, path)


@ex.save_checkpoint.slip(
    "The part was put over the old file although the writing had failed: os.replace comes after the writing, not in `finally`."
)
def replaces_in_any_case(path, state):
    try:
        _write(_part(path), state)
    finally:
        os.replace(_part(path), path)


# ---- snapshot ----


def _snapshot(model, optimizer, scheduler, epoch, done):
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "random": torch.get_rng_state(),
        "at": {"epoch": epoch, "done": done},
    }


for key, sentence in {
    "model": "The weights are missing. The key is 'model'.",
    "optimizer": "AdamW's moments are missing: it would start its averages anew. The key "
    "is 'optimizer'.",
    "scheduler": "The scheduler's step is missing: the rate would start from step 0. The "
    "key is 'scheduler'.",
    "random": "The random state is missing: dropout would drop other numbers. The key is "
    "'random'.",
    "at": "The place is missing (the epoch, and how many of its batches are done). The key "
    "is 'at'.",
}.items():

    @ex.snapshot.slip(sentence)
    def leaves_one_out(*run, key=key):
        state = _snapshot(*run)
        del state[key]
        return state


@ex.snapshot.slip(
    "These are the parameters, which are half of it: state_dict() keeps names with them, "
    "and what is no parameter."
)
def list_of_parameters(model, optimizer, scheduler, epoch, done):
    state = _snapshot(model, optimizer, scheduler, epoch, done)
    return {**state, "model": [p.detach() for p in model.parameters()]}


@ex.snapshot.slip(
    "torch.manual_seed starts the random numbers anew, for the run that goes on as well: "
    "torch.get_rng_state() only looks."
)
def starts_the_numbers_anew(*run):
    return {**_snapshot(*run), "random": torch.manual_seed(0).get_state()}


@ex.snapshot.slip(
    "The scheduler's rate is not all it remembers: scheduler.state_dict()."
)
def rate_only(model, optimizer, scheduler, epoch, done):
    state = _snapshot(model, optimizer, scheduler, epoch, done)
    return {**state, "scheduler": scheduler.get_last_lr()}


@ex.snapshot.slip("epoch and done have changed places.")
def swaps_the_place(model, optimizer, scheduler, epoch, done):
    return _snapshot(model, optimizer, scheduler, done, epoch)


@ex.snapshot.slip('\'at\' is a dict with two names: {"epoch": epoch, "done": done}.')
def a_pair(model, optimizer, scheduler, epoch, done):
    state = _snapshot(model, optimizer, scheduler, epoch, done)
    return {**state, "at": (epoch, done)}


@ex.snapshot.slip(
    "It holds objects, not their state: such a file is refused when it is loaded. Use .state_dict()."
)
def whole_objects(model, optimizer, scheduler, epoch, done):
    state = _snapshot(model, optimizer, scheduler, epoch, done)
    return {**state, "model": model, "optimizer": optimizer}


@ex.snapshot.slip(
    "Under 'random' belongs what torch.get_rng_state() returns; a seed says where the numbers began, not where they are."
)
def the_seed(*run):
    return {**_snapshot(*run), "random": torch.initial_seed()}


@ex.snapshot.slip(
    "done is how many batches of the epoch are behind us: with 0, the epoch's rows would "
    "be seen twice."
)
def epoch_only(model, optimizer, scheduler, epoch, done):
    state = _snapshot(model, optimizer, scheduler, epoch, done)
    return {**state, "at": {"epoch": epoch, "done": 0}}


@ex.snapshot.slip(
    "The continued run leaves the unbroken one's path: something that was saved is not what it was at this step."
)
def seeds_anew(*run):
    state = _snapshot(*run)
    return {**state, "random": torch.Generator().manual_seed(0).get_state()}


@ex.snapshot.slip("What lies under 'optimizer' is not the optimizer's state_dict().")
def parameters_only(model, optimizer, scheduler, epoch, done):
    state = _snapshot(model, optimizer, scheduler, epoch, done)
    return {**state, "optimizer": {"lr": 0.1}}


# ---- read_safetensors ----


def _read(path, order="little", skip=8, note=None, after=True, round_up=False,
          make=lambda data, entry: torch.frombuffer(
              data, dtype=KINDS[entry["dtype"]]).reshape(entry["shape"])):  # fmt: skip
    raw = bytearray(Path(path).read_bytes())
    n = int.from_bytes(raw[:8], order)
    header, tensors = json.loads(raw[8 : 8 + n]), {}
    place = (skip + n + 7 * round_up) // (8 if round_up else 1) * (8 if round_up else 1)
    place = place if after else 0
    for name, entry in header.items():
        if name == "__metadata__":
            tensors |= {} if note is None else {name: note(entry)}
            continue
        begin, end = entry["data_offsets"]
        tensors[name] = make(raw[place + begin : place + end], entry)
    return tensors


@ex.read_safetensors.slip(
    "What was cut out as the header is no JSON. Its length is in all of the first 8 bytes, the smallest byte first (int.from_bytes(raw[:8], 'little')), and it begins at byte 8."
)
def big_endian(path):
    return _read(path, order="big")


@ex.read_safetensors.slip(
    "Offsets count from the end of the header, and these were counted from the start of "
    "the file."
)
def counts_from_the_start(path):
    return _read(path, after=False)


@ex.read_safetensors.slip(
    "The header ends at 8 + length: the 8 bytes of the length itself were forgotten."
)
def forgets_the_eight(path):
    return _read(path, skip=0)


@ex.read_safetensors.slip(
    "The numbers begin right after the header, also where its length is no multiple of 8."
)
def rounds_the_header_up(path):
    return _read(path, round_up=True)


NOTE = "__metadata__ is a note, not a tensor: leave it out."


@ex.read_safetensors.slip(NOTE)
def keeps_the_note(path):
    return _read(path, note=lambda entry: entry)


for key in ("dtype", "shape", "data_offsets"):

    @ex.read_safetensors.slip(NOTE)
    def reads_the_note(path, key=key):
        return _read(path, note=lambda entry: entry[key])


def _flat(data, entry):
    return torch.frombuffer(data, dtype=KINDS[entry["dtype"]])


@ex.read_safetensors.slip(
    "The numbers are there, the shape is not: .reshape(entry['shape'])."
)
def flat(path):
    return _read(path, make=_flat)


@ex.read_safetensors.slip(
    "The rows were filled by columns: the numbers lie row by row, as in PyTorch."
)
def column_by_column(path):
    def make(data, entry):
        turned = _flat(data, entry).reshape(entry["shape"][::-1])
        return turned.permute(*range(turned.ndim)[::-1])

    return _read(path, make=make)


@ex.read_safetensors.slip("The dtype stands in the header: KINDS[entry['dtype']].")
def all_float(path):
    return {name: t.float() for name, t in _read(path).items()}


@ex.read_safetensors.slip("The dtype stands in the header: KINDS[entry['dtype']].")
def reads_all_as_float(path):
    def make(data, entry):
        return torch.frombuffer(data, dtype=torch.float32)

    return _read(path, make=make)


@ex.read_safetensors.slip(
    "These are NumPy's arrays: torch.frombuffer makes tensors, torch.from_numpy turns "
    "arrays into them."
)
def numpy_arrays(path):
    return {name: t.numpy() for name, t in _read(path).items()}


@ex.read_safetensors.slip(
    "The numbers need not lie in the order of the header: cut each tensor out at its own "
    "data_offsets."
)
def trusts_the_order(path):
    raw, tensors = bytearray(Path(path).read_bytes()), {}
    n = int.from_bytes(raw[:8], "little")
    place = 8 + n
    for name, entry in json.loads(raw[8 : 8 + n]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            tensors[name] = _flat(raw[place : place + end - begin], entry)
            tensors[name] = tensors[name].reshape(entry["shape"])
            place += end - begin
    return tensors


@ex.read_safetensors.slip("It returns a dict {name: tensor}.")
def a_list(path):
    return list(_read(path).items())


@ex.read_safetensors.slip(
    "What was cut out as the header is no JSON. Its length is in all of the first 8 bytes, the smallest byte first (int.from_bytes(raw[:8], 'little')), and it begins at byte 8."
)
def one_byte_of_length(path):
    raw = Path(path).read_bytes()
    return json.loads(raw[8 : 8 + raw[0]])


@ex.read_safetensors.slip(
    "The length fills all 8 bytes, int.from_bytes(raw[:8], 'little'): two of them end at "
    "65,535."
)
def two_bytes_of_length(path):
    raw = bytearray(Path(path).read_bytes())
    n, tensors = int.from_bytes(raw[:2], "little"), {}
    for name, entry in json.loads(raw[8 : 8 + n]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            tensors[name] = _flat(raw[8 + n + begin : 8 + n + end], entry)
            tensors[name] = tensors[name].reshape(entry["shape"])
    return tensors


@ex.read_safetensors.slip(
    "A tensor of shape [] is one number without any axis, 4 bytes of F32: .reshape([]) makes it."
)
def needs_an_axis(path):
    return {
        name: t.reshape(*t.shape[:1]) if t.ndim < 2 else t
        for name, t in _read(path).items()
    }


@ex.read_safetensors.slip(
    "Shape [] is one number without any axis: .reshape([]) makes it."
)
def an_axis_of_one(path):
    return {name: torch.atleast_1d(t) for name, t in _read(path).items()}
