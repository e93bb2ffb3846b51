"""What chapter 13 builds: the memory, the operations and the idle time of a step.

saved_bytes, Tally, Work and trace measure; step_bytes, step_flops and idle_share compute.
Shapes: X (B, D) a batch of B rows; widths: features, hidden widths, classes.
"""

import contextlib
import os
import sys
from itertools import pairwise

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode  # private, the only way

from utils import given

# ---- memory ----


def saved_bytes(model, X_BD):
    """Bytes that model(X) keeps for backward: each memory once, the weights left out.

    A view keeps the whole storage that it looks into: so much is counted, however many
    views there are. X[:50] counts as X does; X[:50].clone() as 50 rows.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"a model is a torch.nn.Module, not {type(model).__name__}")
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor  # kept alive by the graph: no other tensor gets its address

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(X_BD)
    return sum(kept.values())


def step_bytes(widths, B, states=2):
    """Bytes in one fp32 training step of an MLP with ReLUs between its linear layers.

    widths: features, hidden widths, classes. states: numbers that the optimiser keeps a
    weight (SGD 0, momentum 1, Adam 2). -> {weights, gradients, optimizer, activations}.
    """
    widths = _sizes(widths, B)
    given.whole("states", states, least=0)
    P = sum((D + 1) * H for D, H in pairwise(widths))
    return {
        "weights": 4 * P,
        "gradients": 4 * P,
        "optimizer": 4 * states * P,
        "activations": 4 * B * sum(widths),
    }


def step_flops(widths, B):
    """Operations of the matrix products in one training step of an MLP.

    2 * B * D * H a product; three products a layer, two for the first.
    """
    widths = _sizes(widths, B)
    products = [2 * B * D * H for D, H in pairwise(widths)]
    return 3 * sum(products) - products[0]  # nobody asks for the gradient of the input


def _sizes(widths, B):
    "widths as a list of at least two sizes, or ValueError."
    given.whole("B", B)
    if not isinstance(widths, (list, tuple)) or len(widths) < 2:
        raise ValueError(f"widths are at least two numbers, not {widths!r:.60}")
    return [given.whole(f"widths[{i}]", width) for i, width in enumerate(widths)]


# ---- work ----


class Tally(TorchDispatchMode):
    """Six counters, and `note`, which is called once an operator, still to be written.

    calls: operators; writes: numbers in their results (views included); copies and
    bytes: tensors copied as they are or to another device; syncs: values that Python
    waits for; kept: bytes saved for a backward pass, weights left out (filled in here).
    .tolist(), .numpy() and .cpu() reach `note` as "_local_scalar_dense", which .item()
    calls. Other ways to wait (t[mask], nonzero, torch.equal) are not told.
    """

    def __init__(self):
        super().__init__()
        self.calls = self.writes = self.copies = self.bytes = self.syncs = self.kept = 0
        self.depth = 0

    def note(self, name, args, out):
        "Count one operator by its name, its arguments and its result."
        raise NotImplementedError

    def counts(self):
        "The six counters as a dict."
        names = ("calls", "writes", "copies", "bytes", "syncs", "kept")
        return {name: getattr(self, name) for name in names}

    def fetched(self):
        "Note a value that Python takes without an operator: .tolist() and the like."
        self.note("_local_scalar_dense", (), None)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled():  # where .item() arrives in one piece
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        self.note(func.overloadpacket.__name__, args, out)
        return out

    def __enter__(self):
        if self.depth == 0:
            self.hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, _same)
            self.hooks.__enter__()
            self.fetches = _Fetches(self.fetched)
            self.fetches.__enter__()
        self.depth += 1
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.depth -= 1
        if self.depth == 0:
            self.fetches.__exit__(*error)
            self.hooks.__exit__(*error)

    def _keep(self, tensor):
        base = tensor if tensor._base is None else tensor._base  # private: whose view
        if not isinstance(base, nn.Parameter):
            self.kept += tensor.numel() * tensor.element_size()
        return tensor


def _same(tensor):
    return tensor


class _Fetches(TorchFunctionMode):
    "Calls `told` for what waits for a GPU but is no operator on a CPU."

    names = ("tolist", "numpy", "cpu", "__array__")

    def __init__(self, told):
        super().__init__()
        self.told = told

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in self.names:
            self.told()
        return func(*args, **(kwargs or {}))


class Work(Tally):
    "Counts what a block of code asks of a device: see Tally."

    def note(self, name, args, out):
        self.calls += 1
        if isinstance(out, torch.Tensor):
            self.writes += out.numel()
        if name == "_to_copy":
            moved = out.device != args[0].device
            if moved or out.dtype == args[0].dtype:
                self.copies += 1
                self.bytes += args[0].numel() * args[0].element_size()
        if name == "_local_scalar_dense":
            self.syncs += 1


# ---- traces ----


def idle_share(spans):
    """Share of the time from the first start to the last end in which no span is open.

    spans: [(start, end)] in any order and unit, also overlapping.
    """
    spans = list(spans)
    if not spans:
        raise ValueError("an empty trace has no first start and no last end")
    for span in spans:
        pair = isinstance(span, (tuple, list)) and len(span) == 2
        if not pair or not span[0] <= span[1]:
            raise ValueError(f"a span is (start, end), start <= end, not {span!r:.60}")
    spans.sort()
    first = until = spans[0][0]
    idle = 0.0
    for start, end in spans:
        idle += max(0.0, start - until)
        until = max(until, end)
    return idle / (until - first) if until > first else 0.0


def trace(run, name):
    "Spans [(start, end)] in seconds of every record_function(name) during `run`."
    given.function("run", run)
    with _quiet(), profile(activities=[ProfilerActivity.CPU]) as seen:
        run()
    return sorted(
        (e.time_range.start / 1e6, e.time_range.end / 1e6)
        for e in seen.events()
        if e.name == name
    )


@contextlib.contextmanager
def _quiet():
    "The profiler writes two lines of its own straight to the file of standard error."
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
