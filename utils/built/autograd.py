"""What chapter 03 builds: a NumPy Tensor that knows where it came from.

Every operation makes a new Tensor that keeps its inputs, the rule that turns its
gradient into theirs, and its number of birth. Inputs are always older than what was
made from them, so walking from young to old visits every node after all its users:
creation order is the topological order, and no recursion is needed. A graph lives as
long as someone holds its last node. Reverse mode is Linnainmaa's (1970); Baydin and
others (2018) survey it. The rules stand in rules.py, the lie detector in gradcheck.py.
"""

import contextlib
import itertools
import numbers
from operator import attrgetter

import numpy as np

from utils import given
from utils.built.rules import (
    add_rule,
    div_rule,
    matmul_backward,
    matmul_rule,
    mul_rule,
    sub_rule,
    sum_backward,
    unbroadcast,
)

__all__ = [
    "Tensor", "history", "matmul_backward", "no_grad", "record", "sum_backward",
    "tape_bytes", "unbroadcast",
]  # fmt: skip

_births = itertools.count()
_recording = True


class no_grad(contextlib.ContextDecorator):
    "`with no_grad():` results keep no history, so what they were made from can be freed."

    def __enter__(self):
        global _recording
        self.before, _recording = _recording, False

    def __exit__(self, *error):
        global _recording
        _recording = self.before


class Tensor:
    """An array of floats, its gradient, and how it was made.

    data  ndarray, the caller's own where it holds floats. `t.data -= ...` and
          `t.data = ...` are noticed by a later backward, `t.data[...] = ...` is not
    grad  ndarray of the same shape after backward, None before; leaves add up over calls
    parents, rule, birth
          the Tensors it was made from, what turns its gradient into theirs, its number

    Shapes that do not fit raise ValueError, what is no number TypeError.
    """

    __slots__ = (
        "__weakref__", "_data", "_home", "_read", "_version", "birth", "grad", "parents",
        "requires_grad", "rule",
    )  # fmt: skip
    __array_ufunc__ = None  # array * Tensor is left to Tensor.__rmul__

    def __init__(self, data, requires_grad=False):
        try:
            data = np.asarray(data.data if isinstance(data, Tensor) else data)
        except ValueError:
            raise ValueError("the rows of a Tensor have one length, not many") from None
        if data.dtype.kind in "biu":
            data = data.astype(float)
        if data.dtype.kind != "f":
            raise TypeError(f"a Tensor holds floats, not {data.dtype}")
        self._data, self.grad, self.requires_grad = data, None, bool(requires_grad)
        self.parents, self.rule, self._read, self._home = (), None, None, None
        self.birth, self._version = next(_births), 0

    @property
    def data(self):
        "The values, an ndarray."
        return self._data

    @data.setter
    def data(self, value):
        value = np.asarray(value)
        if value.dtype != self._data.dtype:
            value = value.astype(self._data.dtype)
        if value.shape != self._data.shape:
            raise ValueError(
                f"new data has shape {value.shape}, the Tensor has {self._data.shape}"
            )
        if self._home is not None:  # a view into a network's flat buffer stays one
            self._data[...] = value
        else:
            self._data = value
        self._version += 1

    shape = property(lambda self: self._data.shape)
    ndim = property(lambda self: self._data.ndim)
    size = property(lambda self: self._data.size)
    dtype = property(lambda self: self._data.dtype)
    T = property(lambda self: self.transpose())

    def __len__(self):
        return len(self._data)

    def __float__(self):
        return float(self.item())

    def __bool__(self):
        return bool(self.item())

    def __repr__(self):
        text = np.array2string(self._data, precision=4, separator=", ", threshold=20)
        return f"Tensor({text}{', requires_grad=True' if self.requires_grad else ''})"

    def item(self):
        "The value of a Tensor with one element, as a Python number; else ValueError."
        if self._data.size != 1:
            raise ValueError(
                f"one number is needed; this Tensor has the shape {self.shape}"
            )
        return self._data.item()

    # ---- the backward pass ----

    def backward(self, grad=None, keep=False):
        """Add d(this value)/d(leaf) to the grad of every leaf with requires_grad.

        grad: what flows in; 1 for a single number, needed for any other shape.
        keep: the nodes in between keep their gradient too (to look at them).
        RuntimeError where no gradient can flow, or an old value that it needs is gone.
        """
        if not self.requires_grad:
            raise RuntimeError(
                "backward: no Tensor with requires_grad=True led to this value, or it was "
                "computed under no_grad()"
            )
        if grad is None:
            if self.size != 1:
                raise RuntimeError(
                    f"backward starts from one number; this has shape {self.shape}. Take "
                    ".sum() or .mean() of it, or pass the gradient that flows in"
                )
            grad = np.ones(self.shape, self.dtype)
        grad = np.asarray(grad, self.dtype)
        if grad.shape != self.shape:
            raise ValueError(
                f"grad has shape {grad.shape}, the Tensor has {self.shape}"
            )
        if self.rule is None:
            return self._collect(grad)
        flowing = {self: grad}
        for node in history(self):
            grad = flowing.pop(node, None)
            if grad is None:
                continue
            if keep:
                node.grad = grad
            if node._read is not None and node._read != _versions(node):
                node._complain()
            parents = node.parents
            for parent, part in zip(parents, node.rule(grad, parents, node._data)):
                if part is None or not parent.requires_grad:
                    continue
                if part.shape != parent._data.shape:
                    part = unbroadcast(part, parent._data.shape)
                if parent.rule is None:
                    parent._collect(part)
                elif parent in flowing:
                    flowing[parent] = flowing[parent] + part
                else:
                    flowing[parent] = part

    def _collect(self, part):
        "A leaf's gradient: the first to arrive is written down, the others are added."
        if self.grad is not None:
            self.grad += part
        elif self._home is None:
            self.grad = np.array(part, self.dtype)  # a copy: `part` may be shared
        else:
            if part is not self._home:
                self._home[...] = part
            self.grad = self._home

    def _complain(self):
        changed = [
            p.shape for p, old in zip(self.parents, self._read) if p._version != old
        ]
        what = (
            f"an input of shape {changed[0]}" if changed else f"a result {self.shape}"
        )
        raise RuntimeError(
            f"backward needs the old value of {what}, but its .data was changed after it "
            "was used. Call backward before you change values"
        )

    def zero_grad(self):
        "Forget the gradient: the next backward starts from nothing."
        self.grad = None

    def __array__(self, dtype=None, copy=None):
        if self.requires_grad:  # np.dot, np.where ... would drop the history silently
            raise TypeError(
                "NumPy keeps no history: call the Tensor's own methods, or take its "
                "values alone, t.data"
            )
        return np.array(self._data, dtype) if copy or dtype else self._data

    # ---- arithmetic ----

    def __add__(self, other):
        return _binary(np.add, self, other, add_rule, False)

    def __sub__(self, other):
        return _binary(np.subtract, self, other, sub_rule, False)

    def __mul__(self, other):
        return _binary(np.multiply, self, other, mul_rule)

    def __truediv__(self, other):
        return _binary(np.divide, self, other, div_rule)

    def __matmul__(self, other):
        return _binary(np.matmul, self, other, matmul_rule)

    def __radd__(self, other):
        return _binary(np.add, other, self, add_rule, False)

    def __rsub__(self, other):
        return _binary(np.subtract, other, self, sub_rule, False)

    def __rmul__(self, other):
        return _binary(np.multiply, other, self, mul_rule)

    def __rtruediv__(self, other):
        return _binary(np.divide, other, self, div_rule)

    def __rmatmul__(self, other):
        return _binary(np.matmul, other, self, matmul_rule)

    def __neg__(self):
        return record(-self._data, (self,), lambda g, inputs, out: (-g,), False)

    def __pow__(self, power):
        if not isinstance(power, numbers.Real):
            raise TypeError(
                f"the exponent is a plain number, not {type(power).__name__}"
            )

        def rule(g, inputs, out):
            return (g * power * inputs[0]._data ** (power - 1),)

        return record(self._data**power, (self,), rule)

    def __abs__(self):
        def rule(g, inputs, out):
            return (g * np.sign(inputs[0]._data),)

        return record(np.abs(self._data), (self,), rule)

    def exp(self):
        "e to the power of each element."
        return record(np.exp(self._data), (self,), lambda g, inputs, out: (g * out,))

    def log(self):
        "The natural logarithm of each element."

        def rule(g, inputs, out):
            return (g / inputs[0]._data,)

        return record(np.log(self._data), (self,), rule)

    def relu(self):
        "max(x, 0); its slope at exactly 0 counts as 0."

        def rule(g, inputs, out):
            return (g * (out > 0),)

        return record(np.maximum(self._data, 0), (self,), rule)

    def tanh(self):
        "The hyperbolic tangent of each element, -1 .. 1."

        def rule(g, inputs, out):
            return (g * (1 - out * out),)

        return record(np.tanh(self._data), (self,), rule)

    # ---- many to one, and shapes ----

    def sum(self, axis=None, keepdims=False):
        "The sum of all elements, or along one axis or several."
        out = self._data.sum(axis=axis, keepdims=keepdims)
        axis = axis if self.ndim else None  # the one element of a single number

        def rule(g, inputs, out):
            return (sum_backward(g, inputs[0]._data.shape, None if keepdims else axis),)

        return record(out, (self,), rule, False)

    def mean(self, axis=None, keepdims=False):
        "The mean of all elements, or along one axis or several; ValueError if empty."
        total = self.sum(axis, keepdims)
        if not self.size:
            raise ValueError(f"the mean of nothing: the shape is {self.shape}")
        return total * (total.size / self.size)

    def reshape(self, *shape):
        "The same elements in another shape; one size may be -1."
        try:
            out = self._data.reshape(*shape)
        except (ValueError, TypeError):
            raise ValueError(f"cannot reshape {self.shape} to {shape}") from None

        def rule(g, inputs, out):
            return (g.reshape(inputs[0]._data.shape),)

        return record(out, (self,), rule, False)

    def transpose(self, *axes):
        "Axes in a new order; without arguments, reversed."
        if len(axes) == 1 and isinstance(axes[0], (tuple, list)):
            axes = tuple(axes[0])
        try:
            out = self._data.transpose(axes or None)
        except (ValueError, TypeError):
            raise ValueError(
                f"transpose: {axes} is no order of the {self.ndim} axes of {self.shape}"
            ) from None
        back = np.argsort([axis % self.ndim for axis in axes]) if axes else None

        def rule(g, inputs, out):
            return (g.transpose(back),)

        return record(out, (self,), rule, False)

    def __getitem__(self, key):
        def rule(g, inputs, out):
            full = np.zeros_like(inputs[0]._data)
            np.add.at(full, key, g)  # an element that was taken twice collects twice
            return (full,)

        return record(self._data[key], (self,), rule, False)

    def __setitem__(self, key, value):
        raise TypeError(
            "a Tensor's elements cannot be assigned: the tape may need the old value. "
            "Make a new Tensor, or change t.data before it is used"
        )


# ---- recording ----


def record(data, inputs, rule, reads=True):
    """A new Tensor made of `inputs`; `rule` turns its gradient into theirs.

    reads: does the rule need the values of inputs or output? Then backward refuses to
    run once they were changed.
    """
    made = Tensor.__new__(Tensor)
    made._data = data if type(data) is np.ndarray else np.asarray(data)
    made.grad = made._home = made._read = made.rule = None
    made._version, made.birth = 0, next(_births)
    made.requires_grad, made.parents = False, ()
    if _recording:
        for parent in inputs:
            if parent.requires_grad:
                made.requires_grad, made.parents, made.rule = True, inputs, rule
                if reads:
                    made._read = _versions(made)
                break
    return made


def tape_bytes(last):
    "How many bytes of results the history of Tensor `last` keeps alive; a view, none."
    if not isinstance(last, Tensor):
        raise TypeError(f"a history is a Tensor's, not that of {given.kind(last)}")
    arrays = [node.data for node in history(last)]
    return sum(array.nbytes for array in arrays if array.base is None)


def _versions(node):
    "How often the inputs and the result have been changed; the result comes last."
    return (*[parent._version for parent in node.parents], node._version)


def history(last):
    "All results that led to `last`, from young to old: every node after all its users."
    found, waiting, seen = [], [last], {last}
    while waiting:
        node = waiting.pop()
        found.append(node)
        for parent in node.parents:
            if parent.parents and parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    found.sort(key=attrgetter("birth"), reverse=True)
    return found


def _binary(function, a, b, rule, reads=True):
    "Apply a function of two arrays; a plain number or array becomes a constant."
    if type(a) is not Tensor:
        a = _constant(a, b)
    if type(b) is not Tensor:
        b = _constant(b, a)
    try:
        out = function(a._data, b._data)
    except ValueError:
        raise ValueError(
            f"{function.__name__}: the shapes {a.shape} and {b.shape} do not fit"
        ) from None
    return record(out, (a, b), rule, reads)


def _constant(value, like):
    if isinstance(value, Tensor):
        return value
    if isinstance(value, numbers.Real):  # a plain number takes the other's precision
        value = np.asarray(value, like._data.dtype)
    return Tensor(value)
