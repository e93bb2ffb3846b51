"""Files that import Triton, run by the small interpreter of tile.py instead.

utils/bench/kernels holds the kernels that ran on an H100; borrow(path) gives such a file as
a module whose kernels run here, counted and watched.
"""

import sys
import types
from pathlib import Path

from utils.built.tile import Wrong, cdiv, jit, tl


class Descriptor:
    "Triton's TensorDescriptor: a tensor (rows, columns) that is read tile by tile."

    def __init__(self, base, block_shape):
        self.base, self.block = base, tuple(block_shape)

    @classmethod
    def from_tensor(cls, tensor, block_shape):
        if tensor.ndim != 2 or len(block_shape) != 2:
            raise Wrong("a descriptor is of a tensor with two axes")
        return cls(tensor, block_shape)

    def bound(self, pointer):
        "The same over memory: what a kernel gets."
        made = Descriptor(pointer, self.block)
        made.rows, made.columns = self.base.shape
        return made

    dtype = property(lambda self: self.base.memory.a.dtype)

    def _at(self, corner):
        r, c = (tl.arange(0, n) + first for n, first in zip(self.block, corner))
        inside = (r >= 0)[:, None] & (r < self.rows)[:, None]
        inside = inside & (c >= 0)[None, :] & (c < self.columns)[None, :]
        return self.base + r[:, None] * self.columns + c[None, :], inside

    def load(self, corner):
        "The tile from (row, column) on; 0 outside."
        at, inside = self._at(corner)
        return tl.load(at, mask=inside, other=0)

    def store(self, corner, value):
        "A tile into its place; nothing outside."
        at, inside = self._at(corner)
        tl.store(at, value, mask=inside)


def next_power_of_2(n):
    "The smallest power of two that is not below n."
    return 1 << max(int(n) - 1, 0).bit_length()


def borrow(path):
    "A module that imports Triton, from its file, with this small Triton in its place."
    stand_ins = {"triton": types.ModuleType("triton")}
    triton = stand_ins["triton"]
    triton.jit, triton.language, triton.cdiv = jit, tl, cdiv
    triton.next_power_of_2 = next_power_of_2
    for name in ("triton.tools", "triton.tools.tensor_descriptor"):
        stand_ins[name] = types.ModuleType(name)
    stand_ins[name].TensorDescriptor = Descriptor
    stand_ins["triton.language"] = tl
    before = {name: sys.modules.get(name) for name in stand_ins}
    made = types.ModuleType(Path(path).stem)
    made.__file__ = str(path)
    sys.modules.update(stand_ins)
    try:
        exec(
            compile(Path(path).read_text(encoding="utf-8"), str(path), "exec"),
            vars(made),
        )
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    return made
