"""Triton's language on NumPy: the same kernel text, every access counted and checked.

    from utils.built.tile import jit, tl

    @jit
    def double(x_ptr, n, BLOCK: tl.constexpr):
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(x_ptr + i, 2 * tl.load(x_ptr + i, mask=i < n), mask=i < n)

    seen = double[(3,)](x, 70, BLOCK=32)     # a launch returns what it counted
    seen.asked, seen.moved                   # bytes wanted, bytes in whole sectors

A program is one call of the kernel, a Block an array with Triton's types, 32 neighbours of
a block a warp. Programs run one after another, but what would depend on their order on a
GPU is refused (`Race`), and so is what lies outside a tensor (`Outside`), a type or a shape
that Triton would not take (`Wrong`). Left out: registers, shared memory, layouts, time,
and races between tensors that overlap without being the same. Whole numbers divide as
Python's: below zero a GPU rounds the other way.

The blocks are in blocks.py. The language is Triton's (P. Tillet, H. T. Kung and D. Cox,
2019; triton-lang.org).
"""

import functools
import inspect
import math

import numpy as np

from utils.built.blocks import (
    Block,
    Counter,
    Memory,
    Outside,
    Pointer,
    Race,
    Refused,
    Wrong,
    apply,
    kind,
    made,
    raw,
    type_,
)

__all__ = [
    "Counter",
    "Outside",
    "Race",
    "Refused",
    "Wrong",
    "cdiv",
    "jit",
    "tl",
]


# ---- a launch ----


class Launch:
    "What a running program can ask about: its place, its grid, its counter."

    def __init__(self, name, grid, counter):
        self.name, self.grid, self.counter = name, grid, counter
        self.place, self.number, self.at = (0, 0, 0), 0, 0
        self.memories = {}

    def take(self, name, value):
        "An argument as a kernel sees it: a pointer, a block without axes, or as it is."
        if hasattr(value, "bound"):  # a Descriptor
            return value.bound(self.take(name, value.base))
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, (bool, int, float, np.integer, np.floating)):
            whole = not isinstance(value, (float, np.floating))
            wide = whole and not -(2**31) <= value < 2**31
            type_of = np.int64 if wide else np.int32 if whole else np.float32
            return Block(np.asarray(value, type_of))
        array = self._array(name, value)
        key = array.__array_interface__["data"][0], array.size, array.dtype
        if key not in self.memories:
            self.memories[key] = Memory(name, array, self.at)
            self.at += -(-array.nbytes // 512) * 512 or 512
        return Pointer(self.memories[key], np.zeros((), np.int64))

    def _array(self, name, value):
        if hasattr(value, "detach"):
            if value.device.type != "cpu":
                raise Wrong(
                    f"{name} lies on {value.device}: a tensor on the CPU, please"
                )
            if str(value.dtype) == "torch.bfloat16":
                raise Wrong(f"{name} is bfloat16, which NumPy lacks: use float16")
            if not value.is_contiguous():
                raise Wrong(f"{name} is not contiguous: pass {name}.contiguous()")
            return value.detach().numpy().reshape(-1)
        if not isinstance(value, np.ndarray):
            raise Wrong(f"{name} is a tensor or a number, not {kind(value)}")
        if not value.flags.c_contiguous:
            raise Wrong(f"{name} is not contiguous: pass np.ascontiguousarray({name})")
        return value.reshape(-1)

    def who(self):
        "Where it happens, for a message."
        place = self.place[: max(1, sum(n > 1 for n in self.grid))]
        return f"program {place[0] if len(place) == 1 else place}"


_running = []  # the launch that is on; at most one


def _now():
    if not _running:
        raise Refused("tl works inside a kernel: launch it, kernel[grid](...)")
    return _running[-1]


class Kernel:
    "A kernel: kernel[grid](arguments ...) runs grid programs and returns a Counter."

    def __init__(self, fn):
        self.fn = fn
        functools.update_wrapper(self, fn, updated=())
        words = inspect.signature(fn).parameters
        self.arg_names = list(words)
        self.fixed = {n for n, p in words.items() if "constexpr" in str(p.annotation)}

    def __call__(self, *args, **options):
        _now()  # one kernel calls another, inside a program
        return self.fn(*args, **options)

    def __repr__(self):
        return f"<kernel {self.__name__}({', '.join(self.arg_names)})>"

    def __getitem__(self, grid):
        return functools.partial(self.launch, grid)

    def launch(self, grid, *args, counter=None, order=None, num_warps=4, num_stages=3,
               **options):  # fmt: skip
        """Run it: grid (x,), (x, y), (x, y, z) or a function of the arguments.

        order: the programs' numbers in the order in which they run; counter: adds up here.
        """
        if _running:
            raise Refused("a kernel does not launch a kernel")
        given = inspect.signature(self.fn).bind(*args, **options)
        given.apply_defaults()
        grid = grid(given.arguments) if callable(grid) else grid
        grid = (*_grid(grid), 1, 1)[:3]
        now = Launch(self.__name__, grid, counter or Counter())
        taken = {
            n: v if n in self.fixed else now.take(n, v)
            for n, v in given.arguments.items()
        }
        numbers = range(math.prod(grid)) if order is None else order
        _running.append(now)
        try:
            with np.errstate(all="ignore"):
                for now.number in numbers:
                    rest, x = divmod(int(now.number), grid[0])
                    now.place = (x, rest % grid[1], rest // grid[1])
                    self.fn(**taken)
                    now.counter.programs += 1
        finally:
            _running.pop()
        return now.counter


def _grid(grid):
    sizes = grid if isinstance(grid, (tuple, list)) else (grid,)
    whole = all(isinstance(n, (int, np.integer)) and n >= 0 for n in sizes)
    if not 1 <= len(sizes) <= 3 or not whole:
        raise Wrong(f"a grid is (x,), (x, y) or (x, y, z), not {grid!r:.40}")
    return tuple(int(n) for n in sizes)


def jit(fn):
    "The kernel of a function; a kernel stays one."
    return fn if isinstance(fn, Kernel) else Kernel(fn)


def cdiv(a, b):
    "a / b, rounded up."
    return (a + b - 1) // b


# ---- the language ----


def _power(sizes):
    for n in sizes:
        if not isinstance(n, (int, np.integer)):
            raise Wrong(
                f"the size of a block is known when the kernel is compiled, a "
                f"tl.constexpr, not {n!r:.40}"
            )
        if n < 1 or n & (n - 1):
            raise Wrong(f"the sides of a block are powers of two, not {n}")


def _block(x, what):
    if not isinstance(x, Block):
        raise Wrong(f"{what} wants a block, not {kind(x)}")
    return x.a


def _float(name, function):
    "One of Triton's functions of floating point; fp32 and more, as there."

    def of(self, x):
        a = _block(x, name)
        if a.dtype not in (np.float32, np.float64):
            raise Wrong(f"tl.{name} wants float32, not {a.dtype}: x.to(tl.float32)")
        if name in ("exp", "exp2"):
            _now().counter.exps += a.size
        return Block(np.asarray(function(a)))

    of.__name__, of.__doc__ = name, f"{name} of every number."
    return of


def _reduction(name, function):
    def of(self, x, axis=None, **_):
        a = _block(x, name)
        options = {"dtype": a.dtype} if name == "sum" and a.dtype.kind == "f" else {}
        if axis is not None and not -a.ndim <= axis < a.ndim:
            raise Wrong(f"tl.{name}: axis {axis} of a block {a.shape}")
        return made(function(a, axis=axis, **options), a)

    of.__name__, of.__doc__ = name, f"{name} along an axis, of all without one."
    return of


class constexpr:
    "An argument that is known when the kernel is compiled."


class Language:
    "What Triton calls triton.language."

    constexpr = constexpr
    float16, float32, float64 = map(np.dtype, ("float16", "float32", "float64"))
    int1, int8, int16, int32, int64, uint8 = map(
        np.dtype, ("bool", "int8", "int16", "int32", "int64", "uint8")
    )
    exp, exp2 = _float("exp", np.exp), _float("exp2", np.exp2)
    log, log2 = _float("log", np.log), _float("log2", np.log2)
    sqrt = _float("sqrt", np.sqrt)
    max, min = _reduction("max", np.max), _reduction("min", np.min)
    sum = _reduction("sum", np.sum)
    cdiv = staticmethod(cdiv)

    def __getattr__(self, name):
        raise AttributeError(f"this small Triton has no tl.{name}")

    def program_id(self, axis):
        "Which program this is, along an axis of the grid."
        return Block(np.asarray(_now().place[axis], np.int32))

    def num_programs(self, axis):
        "How many programs the grid has along an axis."
        return Block(np.asarray(_now().grid[axis], np.int32))

    def arange(self, start, end):
        "start, start + 1, ... end - 1: as many as a power of two."
        _power((end - start,))
        return Block(np.arange(start, end, dtype=np.int32))

    def full(self, shape, value, dtype):
        "A block of one value."
        _power(shape)
        return Block(np.full(tuple(shape), raw(value), type_(dtype)))

    def zeros(self, shape, dtype):
        "A block of zeros."
        return self.full(shape, 0, dtype)

    def zeros_like(self, x):
        "Zeros in the shape and type of a block."
        return Block(np.zeros_like(_block(x, "zeros_like")))

    def where(self, condition, a, b):
        "a where the condition holds, else b."
        return apply(np.where, condition, a, b)

    def maximum(self, a, b):
        "The larger of two, number by number."
        return apply(np.maximum, a, b)

    def minimum(self, a, b):
        "The smaller of two, number by number."
        return apply(np.minimum, a, b)

    def abs(self, x):
        "Without the sign."
        return Block(np.abs(_block(x, "abs")))

    def trans(self, x):
        "Rows as columns."
        return Block(_block(x, "trans").T)

    def cast(self, x, dtype):
        "The block in another type."
        return Block(np.asarray(raw(x)).astype(type_(dtype)))

    def reshape(self, x, shape):
        "The same numbers in another shape."
        return Block(_block(x, "reshape").reshape(tuple(shape)))

    def permute(self, x, axes):
        "The axes in another order."
        return Block(_block(x, "permute").transpose(tuple(axes)))

    def split(self, x):
        "The two halves along a last axis of 2."
        a = _block(x, "split")
        if a.shape[-1] != 2:
            raise Wrong(f"tl.split wants a last axis of 2, not {a.shape}")
        return Block(a[..., 0]), Block(a[..., 1])

    def range(self, *ends, **_):
        "Python's range; a GPU's compiler takes hints here."
        return range(*ends)

    static_range = range

    def multiple_of(self, x, values):
        "x: what a compiler is promised changes no number."
        return x

    max_contiguous = max_constancy = multiple_of

    def dot(self, a, b, acc=None, input_precision=None, **_):
        """(M, K) (K, N) -> (M, N), with sums in float32; every side at least 16.

        float32 is rounded to 10 bits of fraction on its way in, as a GPU's tensor cores
        take it, unless input_precision="ieee".
        """
        x, y = _block(a, "dot"), _block(b, "dot")
        if x.dtype != y.dtype:
            raise Wrong(f"tl.dot: one type for both, not {x.dtype} and {y.dtype}")
        if x.dtype.kind != "f":
            raise Wrong(f"tl.dot wants floating point, not {x.dtype}")
        if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[0]:
            raise Wrong(f"tl.dot: {x.shape} and {y.shape} do not fit")
        if min(x.shape + y.shape) < 16:
            raise Wrong(f"tl.dot: sides of 16 or more, not {x.shape} and {y.shape}")
        if acc is not None and acc.shape != (x.shape[0], y.shape[1]):
            raise Wrong(f"tl.dot: acc is {acc.shape}, the product is not")
        if input_precision not in (None, "tf32", "ieee"):
            raise Wrong(
                f"tl.dot: input_precision is 'ieee' or 'tf32', not {input_precision!r}"
            )
        if x.dtype == np.float32 and input_precision != "ieee":
            x, y = _tf32(x), _tf32(y)
        _now().counter.flops += 2 * x.shape[0] * x.shape[1] * y.shape[1]
        wide = np.promote_types(x.dtype, np.float32)
        out = Block(x.astype(wide, copy=False) @ y.astype(wide, copy=False))
        return out if acc is None else acc + out

    def load(self, pointer, mask=None, other=None, **_):
        "The numbers at the addresses; where the mask is false `other`, or anything at all."
        if other is not None and mask is None:
            raise Wrong(
                "tl.load: `other` stands for what a mask leaves out: no mask here"
            )
        memory, at, live, chosen = _reached(pointer, mask, "load")
        now = _now()
        now.counter.loads += 1
        memory.read(chosen, now)
        out = memory.a[at if live is None else np.where(live, at, 0)]
        if live is not None:
            out = np.where(live, out, memory.blank(other))
        return Block(np.asarray(out, memory.a.dtype))

    def store(self, pointer, value, mask=None, **_):
        "Write the numbers to the addresses, where the mask is true."
        memory, at, live, chosen = _reached(pointer, mask, "store")
        now = _now()
        now.counter.stores += 1
        value = _spread(value, at.shape, "store")
        value = (value if live is None else value[live]).astype(memory.a.dtype).ravel()
        memory.write(chosen, value, now)

    def atomic_add(self, pointer, value, mask=None, **_):
        "Add to what stands there; nobody comes between. In no order."
        memory, at, live, chosen = _reached(pointer, mask, "atomic_add")
        now = _now()
        now.counter.stores += 1
        value = _spread(value, at.shape, "atomic_add")
        value = (value if live is None else value[live]).ravel()
        memory.add(chosen, value.astype(memory.a.dtype), now)


def _tf32(a):
    "float32 with 10 bits of fraction, rounded to nearest."
    bits = np.ascontiguousarray(a).view(np.uint32)
    return ((bits + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)).view(np.float32)


def _spread(x, shape, what):
    "A value in the pointer's shape."
    a = np.asarray(raw(x))
    if a.shape == shape:
        return a
    try:
        return np.broadcast_to(a, shape)
    except ValueError:
        raise Wrong(
            f"tl.{what}: {a.shape} does not fit the pointer's {shape}"
        ) from None


def _reached(pointer, mask, what):
    "(memory, places, live lanes or None, places of those), counted, all inside."
    if not isinstance(pointer, Pointer):
        raise Wrong(f"tl.{what} wants a pointer, not {kind(pointer)}")
    memory, at, live, now = pointer.memory, pointer.at, None, _now()
    if mask is not None:
        live = _spread(mask, at.shape, f"{what}: the mask")
        if live.dtype != bool:
            raise Wrong(f"tl.{what}: a mask is true or false, not {live.dtype}")
        live = None if live.all() else live
    chosen = at.ravel() if live is None else at[live]
    if chosen.size:
        low, high = int(chosen.min()), int(chosen.max())
        if low < 0 or high >= memory.a.size:
            raise Outside(
                f"{now.name}: {now.who()} reaches for element {low if low < 0 else high} "
                f"of {memory.name}, which has {memory.a.size}: a mask is missing, or the "
                "address is wrong"
            )
        size = memory.a.itemsize
        address = memory.base + at.ravel() * size
        now.counter.access(address, None if live is None else live.ravel(), size)
    return memory, at, live, chosen


tl = Block.language = Language()
