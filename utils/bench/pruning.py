"""Chapter 23: what its promises are over five folds, and what zeros and structure cost."""

import tempfile

import torch
import torch.nn.functional as F
from torch import nn

from utils.bench.ratio import Ratio, benchmark, in_turns
from utils.built import coding, pruning, quant


def _layer(make):
    "A dense layer (1024, 1024) for 64 rows over another way to store it."
    torch.set_num_threads(1)
    torch.manual_seed(0)
    W, x = torch.randn(1024, 1024) / 32, torch.randn(64, 1024)
    other = make(W, x)

    def repeat(call):
        with torch.inference_mode():
            for _ in range(10):
                call()

    samples = in_turns(lambda: repeat(other), lambda: repeat(lambda: F.linear(x, W)),
                       invert=True)  # fmt: skip
    return Ratio(samples, "Linear(1024, 1024), 64 rows, times as fast as dense")


@benchmark("pruning.zeros.dense", ">= 0.6")
def zeros():
    "Nine weights in ten are 0, in a dense matrix: as fast as before."

    def make(W, x):
        few = W * pruning.keep_largest(W, 0.1)
        return lambda: F.linear(x, few)

    return _layer(make)


@benchmark("pruning.half-of-the-rows", ">= 1.3")
def rows():
    "Half of the rows are gone."

    def make(W, x):
        half = W[:512].contiguous()
        return lambda: F.linear(x, half)

    return _layer(make)


@benchmark("pruning.rows-and-columns", ">= 4")
def structure():
    "A tenth of the weights, as fewer rows and columns."

    def make(W, x):
        small, x_small = W[:324, :324].contiguous(), x[:, :324].contiguous()
        return lambda: F.linear(x_small, small)

    return _layer(make)


@benchmark("pruning.twentieth.points", "<= 1.0")
def twentieth():
    "Five folds: points lost with one weight in twenty, gradual, 30 epochs."
    torch.set_num_threads(1)
    folds = quant.Folds()
    whole = folds.accuracy()
    now = folds.accuracy(lambda net, X, y: pruning.gradual(net, X, y, 0.05))
    again = folds.accuracy(lambda net, X, y: pruning.tune(net, X, y, 30))
    note = f"untouched {whole:.2f} %, pruned {now:.2f} %, all weights trained on {again:.2f} %"  # fmt: skip
    return Ratio([whole - now], "points lost, 20 times fewer weights", note)


def _encoded(parts):
    "The bytes of Coded layers' file."
    with tempfile.TemporaryDirectory() as folder:
        return coding.write_small(
            f"{folder}/digits.bin",
            [part.codes() for part in parts],
            [part.scale for part in parts],
            [part.layer.bias for part in parts],
        )


def files():
    "{'bytes', 'file', 'float32'}: the chapter's 500 bytes over five folds."
    torch.set_num_threads(1)
    sizes, right, plain, total = [], 0, 0, 0
    for k in range(5):
        X, y, X_test, y_test = pruning.fold(k)
        net = pruning.one_hidden(X, y, seed=k)
        parts = pruning.tiny(net, X, y)
        blob = _encoded(parts)
        sizes.append(len(blob))
        right += (coding.read_small(blob)(X_test).argmax(1) == y_test).sum().item()
        plain += (net(X_test).argmax(1) == y_test).sum().item()
        total += len(y_test)
    return {
        "bytes": sizes, "file": 100 * right / total, "float32": 100 * plain / total
    }  # fmt: skip


@benchmark("pruning.file.times-smaller", ">= 50")
def smaller():
    "Five folds: float32 bytes over bytes of the file that is read back and scored."
    found = files()
    lost = found["float32"] - found["file"]
    if lost > 1:
        raise AssertionError(f"{lost:.2f} points lost: more than one")
    whole = 4 * sum(p.numel() for p in nn.Linear(64, 128).parameters())
    whole += 4 * sum(p.numel() for p in nn.Linear(128, 10).parameters())
    note = f"{found['float32']:.2f} % -> {found['file']:.2f} %"
    return Ratio(
        [whole / b for b in found["bytes"]], "times smaller than float32", note
    )


@benchmark("pruning.refit.points", ">= 0.5")
def refit():
    "Five folds: a refit of 15 % of the units without labels, ahead of training from scratch."
    torch.set_num_threads(1)
    folds, small = quant.Folds(), quant.Folds(widths=(38, 19))
    again = folds.accuracy(lambda net, X, y: pruning.smaller(net, X, 0.15))
    scratch = small.accuracy()
    note = f"refit {again:.2f} %, from scratch {scratch:.2f} %"
    return Ratio([again - scratch], "points ahead, 15 times fewer weights", note)
