"""What chapter 05 builds of the data: rows in batches, in an order that can be told again.

Shapes: X (N, ...) rows, y (N,) labels or targets.
"""

import math

import torch
from torch.utils.data import DataLoader, Dataset

from utils import given


class Rows(Dataset):
    """Rows with their labels; rows[3] is one pair, rows[[3, 5]] a batch of two.

    X (N, ...), y (N, ...): tensors, arrays or lists of numbers. float64 rows become
    float32.
    """

    def __init__(self, X, y, device=None):
        self.X, self.y = _numbers("X", X, device), _numbers("y", y, device)
        if len(self.X) != len(self.y):
            raise ValueError(f"{len(X)} rows and {len(y)} labels: one label a row")
        if self.X.dtype == torch.float64:
            self.X = self.X.float()

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], self.y[i]


def _numbers(name, values, device):
    "A tensor of at least one axis, or an error that names what has none."
    try:
        found = torch.as_tensor(values, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(values, torch.Tensor):
            raise  # the device, not the values
        raise TypeError(
            f"{name} holds one number or row of numbers a row: {error}"
        ) from None
    if not found.ndim:
        raise TypeError(
            f"{name} holds one number or row of numbers a row, not {values!r}"
        )
    return found


def epoch_order(N, seed, epoch):
    "A shuffled 0 .. N-1 (N,) that depends on seed and epoch alone, two whole numbers."
    N, epoch = given.whole("N", N, least=0), given.whole("epoch", epoch, least=0)
    seed = given.whole("seed", seed, least=-math.inf)
    generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    return torch.randperm(N, generator=generator)


class Order:
    """Row numbers 0 .. N-1, `size` at a time; without a seed in their own order.

    `begin(epoch, done)` starts the next pass at any epoch, `done` batches into it.
    """

    def __init__(self, N, size, seed=None):
        try:
            self.size = given.whole("size", size)
        except ValueError:
            raise ValueError(
                f"a batch has a whole number of rows, at least 1, not {size!r}"
            ) from None
        self.N = given.whole("N", N, least=0)
        if seed is not None:
            seed = given.whole("seed", seed, least=-math.inf)
        self.seed, self.epoch, self.done = seed, 0, 0

    def begin(self, epoch, done=0):
        "Let the next pass be that of `epoch`, without its first `done` batches."
        self.epoch, self.done = epoch, done

    def __len__(self):
        return math.ceil(self.N / self.size)

    def __iter__(self):
        shuffled = self.seed is not None and self.N
        rows = epoch_order(self.N, self.seed, self.epoch) if shuffled else None
        rows = torch.arange(self.N) if rows is None else rows
        return iter(rows.split(self.size)[self.done : len(self)])

    def describe(self):
        "What must be the same for a run to be continued."
        return {"N": self.N, "size": self.size, "seed": self.seed}


def loader(X, y, size, seed=None, device=None):
    """Batches of (X (B, ...), y (B,)): shuffled by `seed` and the epoch, or in order.

    The rows are moved to `device` once. Each batch is one indexing of all its rows, not
    B rows stacked: that is why `batch_size` is None. ValueError for rows without
    labels, and for a size or seed that is no whole number.
    """
    rows = Rows(X, y, device)
    order = Order(len(rows), size, seed)
    own = (
        torch.Generator()
    )  # a DataLoader draws a number a pass; not from the global one
    return DataLoader(rows, sampler=order, batch_size=None, generator=own)
