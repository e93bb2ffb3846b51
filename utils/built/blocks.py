"""What the kernels of utils/built/tile.py compute with: blocks, pointers, counted memory.

A Block is an array with Triton's types, a value that is never changed in place; a Pointer
one address or a block of them. `Counter` counts whole sectors of 32 bytes for each warp,
32 neighbours of a block. What a GPU would do wrong without a word is `Refused`.
"""

import functools
from collections import OrderedDict

import numpy as np

SECTOR, WARP = 32, 32  # bytes that travel together; lanes that run together
METHODS = (
    "abs exp exp2 log log2 sqrt max min sum trans reshape permute split cast".split()
)
FREE, MANY, ATOMIC = -1, -2, -3  # who wrote or read an element, where not one program


class Refused(RuntimeError):
    "What a GPU would do wrong without a word."


class Race(Refused):
    "Two programs, or two lanes, meet at one address, and nothing says who is first."


class Outside(Refused, IndexError):
    "An address outside its tensor."


class Wrong(Refused, TypeError):
    "A type or a shape that Triton does not take."


# ---- what is counted ----


class Counter:
    """What launches asked of the memory: asked and moved bytes, FLOP, exponentials.

    l2: bytes of a cache, least recently used out first, in sectors; `missed` bytes then
    come from the memory behind it. Add up several launches with counter=... .
    """

    def __init__(self, l2=0):
        self.asked = self.moved = self.missed = 0
        self.loads = self.stores = self.flops = self.exps = self.programs = 0
        self._room, self._lines, self._patterns = l2 // SECTOR, OrderedDict(), {}

    def __repr__(self):
        named = {k: v for k, v in vars(self).items() if v and not k.startswith("_")}
        return f"Counter({', '.join(f'{k}={v:,}' for k, v in named.items())})"

    def access(self, address, live, size):
        "One load or store: flat byte addresses, which lanes take part, bytes an element."
        self.asked += size * (address.size if live is None else np.count_nonzero(live))
        if self._room:
            self.moved += SECTOR * self._through_cache(_by_warps(address, live))
            return
        first = int(address[0])  # the same pattern elsewhere touches as many
        key = (address - first).tobytes(), first % SECTOR
        key += () if live is None else (live.tobytes(),)
        if (found := self._patterns.get(key)) is None:
            if len(self._patterns) > 512:
                self._patterns.clear()
            found = self._patterns[key] = _distinct(_by_warps(address, live))
        self.moved += SECTOR * found

    def _through_cache(self, lanes):
        for line in np.unique(lanes[lanes >= 0]).tolist():
            if line in self._lines:
                self._lines.move_to_end(line)
                continue
            self.missed += SECTOR
            self._lines[line] = True
            if len(self._lines) > self._room:
                self._lines.popitem(last=False)
        return _distinct(lanes)


def _by_warps(address, live):
    "Sectors of each warp's lanes in order, (warps, 32); -1 where a lane rests."
    sector = address // SECTOR
    if live is not None:
        sector = np.where(live, sector, -1)
    if sector.size % WARP:
        sector = np.concatenate([sector, np.full(-sector.size % WARP, -1)])
    return np.sort(sector.reshape(-1, WARP), 1)


def _distinct(lanes):
    "Different sectors, warp by warp, added up."
    other = np.count_nonzero(lanes[:, 1:] != lanes[:, :-1])
    return int(other + np.count_nonzero(lanes[:, 0] >= 0))


# ---- blocks ----


def raw(x):
    "What NumPy computes with: arrays for blocks, Python's own numbers as they are."
    if isinstance(x, Block):
        return x.a
    if isinstance(x, (bool, int, float)):
        return x
    raise Wrong(f"a block computes with blocks and numbers, not with {kind(x)}")


def kind(x):
    return f"a {type(x).__name__}" if not isinstance(x, Pointer) else "a pointer"


def made(out, *from_):
    "NumPy's result in Triton's type: whole numbers and float32 make no float64."
    out = np.asarray(out)
    if out.dtype == np.float64 and not any(
        getattr(x, "dtype", None) == np.float64 for x in from_
    ):
        out = out.astype(np.float32)
    return Block(out)


def apply(function, *blocks, bits=False):
    values = [raw(x) for x in blocks]
    if bits and any(getattr(x, "dtype", np.dtype(type(x))).kind == "f" for x in values):
        raise Wrong("& | ^ ~ << >> want whole numbers or masks, not floating point")
    try:
        return made(function(*values), *values)
    except ValueError:
        shapes = " and ".join(str(np.shape(x)) for x in values)
        raise Wrong(f"blocks of the shapes {shapes} do not fit") from None


def _operator(function, bits=False):
    def forward(self, other):
        if isinstance(other, Pointer):
            return NotImplemented
        return apply(function, self, other, bits=bits)

    def backward(self, other):
        return apply(function, other, self, bits=bits)

    return forward, backward


class Block:
    "A block of numbers: a value, never changed in place. shape and dtype as NumPy's."

    __slots__ = ("a",)
    language = None  # tile.py's tl
    __array_ufunc__ = None  # NumPy is not Triton: np.exp(block) is refused
    __hash__ = None

    def __init__(self, a):
        self.a = a

    shape = property(lambda self: self.a.shape)
    dtype = property(lambda self: self.a.dtype)
    T = property(lambda self: Block(self.a.T))

    __add__, __radd__ = _operator(np.add)
    __sub__, __rsub__ = _operator(np.subtract)
    __mul__, __rmul__ = _operator(np.multiply)
    __truediv__, __rtruediv__ = _operator(np.true_divide)
    __floordiv__, __rfloordiv__ = _operator(np.floor_divide)
    __mod__, __rmod__ = _operator(np.remainder)
    __and__, __rand__ = _operator(np.bitwise_and, bits=True)
    __or__, __ror__ = _operator(np.bitwise_or, bits=True)
    __xor__, __rxor__ = _operator(np.bitwise_xor, bits=True)
    __lshift__, __rlshift__ = _operator(np.left_shift, bits=True)
    __rshift__, __rrshift__ = _operator(np.right_shift, bits=True)
    __lt__, __gt__ = _operator(np.less)[0], _operator(np.greater)[0]
    __le__, __ge__ = _operator(np.less_equal)[0], _operator(np.greater_equal)[0]
    __eq__, __ne__ = _operator(np.equal)[0], _operator(np.not_equal)[0]

    def __getattr__(self, name):  # x.sum(0) is tl.sum(x, 0)
        if name in METHODS and self.language is not None:
            return functools.partial(getattr(self.language, name), self)
        raise AttributeError(f"a block has no .{name}")

    def __neg__(self):
        return Block(np.negative(self.a))

    def __invert__(self):
        return apply(np.invert, self, bits=True)

    def __getitem__(self, index):
        return Block(np.asarray(self.a[_only_new_axes(index)]))

    def __bool__(self):
        if self.a.ndim:
            raise Wrong(
                f"a block {self.shape} is neither true nor false: "
                "& and | in place of `and` and `or`, tl.where in place of `if`"
            )
        return bool(self.a)

    def __index__(self):
        if self.a.ndim or self.dtype.kind not in "iu":
            raise Wrong(f"a whole number is wanted, not {self!r}")
        return int(self.a)

    def __iter__(self):
        raise Wrong("a block is not walked through: all its lanes work at once")

    def __repr__(self):
        value = f" {self.a}" if not self.a.ndim else ""
        return f"<block {self.shape} of {self.dtype}{value}>"

    def to(self, dtype, **_):
        "The block in another type."
        return Block(self.a.astype(type_(dtype)))


def _only_new_axes(index):
    index = index if isinstance(index, tuple) else (index,)
    whole = [i is None or (isinstance(i, slice) and i == slice(None)) for i in index]
    if not all(whole):
        raise Wrong(
            "a block has no elements to pick, only [:, None] and [None, :]; a pointer "
            "moves by p + i, and tl.load reads what is there"
        )
    return index


def type_(dtype):
    if not isinstance(dtype, np.dtype):
        raise Wrong(f"a type is tl.float32, tl.int32 or the like, not {dtype!r:.40}")
    return dtype


# ---- memory ----


class Memory:
    "A tensor as a launch sees it: flat, at an address, with who wrote and who read."

    def __init__(self, name, array, base):
        self.name, self.a, self.base = name, array, base
        self.writer, self.reader = np.full((2, array.size), FREE, np.int32)
        self.written, self._reads, self._kept = False, [], 0  # reads not yet noted

    def blank(self, other):
        "What a lane without a mask holds: `other`, or what nobody can count on."
        if other is not None:
            return raw(other)
        if self.a.dtype.kind == "f":
            return np.nan
        return True if self.a.dtype == bool else np.iinfo(self.a.dtype).max

    def _meets(self, at, who, now, mine, theirs):
        "Race where another program stands in `who`, the writers or the readers of `at`."
        others = (who != FREE) & (who != now.number)
        if others.any():
            first = int(np.flatnonzero(others)[0])
            raise Race(
                f"{now.name}: {now.who()} {mine} element {int(at[first])} of {self.name}, "
                f"which another program {theirs}: on a GPU nothing says who is first"
            )

    def read(self, at, now):
        "Note who reads; Race where another program wrote."
        if self.written:
            self._meets(at, self.writer[at], now, "reads", "writes")
        self._reads.append((at, now.number))
        self._kept += at.size
        if self._kept > 1 << 22:
            self._readers()

    def _readers(self):
        "Who read each element: worked out when a write wants to know."
        for at, number in self._reads:
            before = self.reader[at]
            same = (before == FREE) | (before == number)
            self.reader[at] = np.where(same, number, MANY)
        self._reads, self._kept = [], 0
        return self.reader

    def write(self, at, values, now):
        "Write; Race where another program wrote or read, or two lanes disagree."
        self._meets(at, self.writer[at], now, "writes", "writes as well")
        self._meets(at, self._readers()[at], now, "writes", "reads")
        self.a[at], self.writer[at], self.written = values, now.number, True
        left = self.a[at]
        if ((left != values) & (values == values)).any():
            raise Race(
                f"{now.name}: two lanes of {now.who()} write different values to one "
                f"element of {self.name}"
            )

    def add(self, at, values, now):
        "Add, one lane after another; Race where another program reads or overwrites."
        writer = self.writer[at]
        plain = np.where(writer == ATOMIC, FREE, writer)
        self._meets(at, plain, now, "adds to", "writes")
        self._meets(at, self._readers()[at], now, "adds to", "reads")
        np.add.at(self.a, at, values)
        self.writer[at], self.written = ATOMIC, True


class PointerType:
    "The type of a pointer; element_ty is that of what it points to."

    def __init__(self, element_ty):
        self.element_ty = element_ty


class Pointer:
    "One address, or a block of them: it moves by whole numbers of elements."

    __slots__ = ("at", "memory")
    __array_ufunc__ = None

    def __init__(self, memory, at):
        self.memory, self.at = memory, at

    shape = property(lambda self: self.at.shape)
    dtype = property(lambda self: PointerType(self.memory.a.dtype))

    def __add__(self, steps, sign=1):
        if isinstance(steps, Pointer):
            raise Wrong("two pointers are added: an offset is a whole number")
        steps = np.asarray(raw(steps))
        if steps.dtype.kind not in "iu":
            raise Wrong(f"a pointer moves by whole numbers, not by {steps.dtype}")
        try:
            return Pointer(
                self.memory, self.at + steps if sign > 0 else self.at - steps
            )
        except ValueError:
            shapes = f"{self.shape} and {steps.shape}"
            raise Wrong(f"blocks of the shapes {shapes} do not fit") from None

    __radd__ = __add__

    def __sub__(self, steps):
        return self.__add__(steps, -1)

    def __getitem__(self, index):
        return Pointer(self.memory, self.at[_only_new_axes(index)])

    def __repr__(self):
        return f"<pointer {self.shape} into {self.memory.name}>"
