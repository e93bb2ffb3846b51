"""The meter of live bytes (chapters 12, 14, 18): exact, at every moment.

    with Live(model.parameters()) as live:
        loss_of(model, X, y).backward()
    live.peak, live.bytes                # most at one moment, and now

A byte lives as long as the storage it lies in (torch.UntypedStorage): a view costs
nothing, and a slice keeps the whole it was cut from. Counted are storages on the CPU (or
on `device`) that operators of torch made or touched while the meter was on, and those it
was told of. What kernels use inside one operator, and Python's own memory, are not seen.
"""

import weakref
from functools import partial

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def stored(*tensors):
    """Bytes of the different storages behind these tensors: a whole number.

    Lists, tuples, dicts and iterators of tensors may stand for them; None counts nothing.
    Of a DTensor this rank's part counts. TypeError for anything else.
    """
    storages = (_storage(tensor) for tensor in _tensors(tensors))
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


def held(optimizer):
    "Tensors of an optimizer's state but its step counters: [tensor, ...], for `stored`."
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer is one of torch.optim, not {optimizer!r:.60}")
    values = (value for state in optimizer.state.values() for value in state.values())
    return [x for x in values if isinstance(x, torch.Tensor) and x.ndim]


class Live(TorchDispatchMode):
    """A meter of live bytes: `with Live(*known) as live:`, then live.peak and live.bytes.

    known  tensors, or lists of them, that count from the start; any other that was there
           before counts from the first operator on that reads it
    keep   True: note the bytes after each operator in `curve`

    bytes  alive now, of all the storages that it has met
    peak   the most at any time, since the block began or since `restart()`
    curve  [bytes after each operator, ...], in order

    A storage that changes its size (`resize_`, as FSDP frees weights) is read again at
    each operator. The same in each run: there is no clock and no allocator in it. Blocks
    may be nested; each counts for itself. TypeError when `known` holds other things than
    tensors. Sparse tensors are not counted.
    """

    def __init__(self, *known, device="cpu", keep=False):
        super().__init__()
        self.device, self.keep = torch.device(device).type, keep
        self.sizes, self.alive = (
            {},
            {},
        )  # {storage's address: bytes}, {...: weak reference}
        self.bytes = self.peak = 0
        self.curve = []
        self.tell(*known)

    def tell(self, *tensors):
        "Count these from now on, too."
        self._meet(_tensors(tensors))
        self._read_again()

    def restart(self):
        "Forget peak and curve: from here on, the most begins with what is alive now."
        self._read_again()
        self.peak, self.curve = self.bytes, []

    def __exit__(self, *error):
        self._read_again()
        return super().__exit__(*error)

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        self._meet(
            x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)
        )
        made = operator(*args, **kwargs)
        self._meet(x for x in tree_leaves(made) if isinstance(x, torch.Tensor))
        self._read_again()
        if self.keep:
            self.curve.append(self.bytes)
        return made

    def _meet(self, tensors):
        for tensor in tensors:
            if tensor.device.type != self.device or tensor.layout != torch.strided:
                continue
            storage = _storage(tensor)
            key = storage._cdata
            if key not in self.sizes:
                self.sizes[key] = 0
                self.alive[key] = weakref.ref(storage, partial(self._gone, key))

    def _gone(self, key, _):
        "The last tensor in this storage is gone; its address may be used again."
        self.bytes -= self.sizes.pop(key)
        del self.alive[key]

    def _read_again(self):
        for key, reference in list(self.alive.items()):
            if (storage := reference()) is not None:
                size = storage.nbytes()
                self.bytes += size - self.sizes[key]
                self.sizes[key] = size
        self.peak = max(self.peak, self.bytes)


def _storage(tensor):
    "What the bytes lie in; of a DTensor, this rank's part of it."
    return getattr(tensor, "_local_tensor", tensor).untyped_storage()


def _tensors(values):
    "All tensors in these values, which are tensors or hold them."
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, dict):
            found += _tensors(value.values())
        elif hasattr(value, "__iter__") and not isinstance(value, (str, bytes)):
            found += _tensors(value)
        elif value is not None:
            raise TypeError(f"tensors, or lists of them, not {type(value).__name__}")
    return found
