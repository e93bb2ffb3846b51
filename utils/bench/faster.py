"""Chapter 14: a ladder of tricks on the digits, and ours beside the plain way.

    python -m utils.bench.faster        records utils/data/ladder.json anew, in some minutes

The ladder tells CPU seconds to 97 % on the test images, rung by rung: one network, chapter
05's loop; a rung changes what its line says, alone or together. Rates grow with the batch
(Goyal and others, 2017) and were not tuned.
"""

import functools
import json
import platform
import statistics
import time
from datetime import datetime, timezone

import torch
import torch.nn.functional as F
from torch import nn

from utils import data, ranks
from utils.bench.ratio import Ratio, benchmark, in_turns
from utils.built import flash, lean
from utils.built.attention import attention
from utils.built.fuse import fuse
from utils.files import ROOT, write_whole

# ---- the ladder ----

RECORD = ROOT / "utils" / "data" / "ladder.json"
TARGET, EPOCHS, SEEDS = 0.97, 60, (0, 1, 2)
RUNGS = {
    "SGD, batch 16": {},
    "batch 128, same rate": {"batch": 128},
    "batch 128, rate x 8": {"batch": 128, "lr": 0.16},
    "batch 512, rate x 32": {"batch": 512, "lr": 0.64},
    "AdamW": {"kind": "adamw", "lr": 3e-3},
    "AdamW, fused": {"kind": "fused", "lr": 3e-3},
    "AdamW, fused, batch 128": {"kind": "fused", "lr": 1e-2, "batch": 128},
    "shifted images": {"shift": True},
    "pruned to 20 %": {"prune": 0.8},
    "bf16 autocast": {"bf16": True},
    "all the tricks together": {"batch": 128, "lr": 0.16, "shift": True, "prune": 0.8},
}


def digits():
    "Training and test images in float32, and their labels: X, y, X_test, y_test."
    X, y, X_test, y_test = (torch.as_tensor(part) for part in data.digits())
    return X.float(), y, X_test.float(), y_test


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def shifted(X_BD, generator):
    "Images moved by one pixel or none, all of a batch alike; what enters is 0."
    images = F.pad(X_BD.view(-1, 1, 8, 8), (1, 1, 1, 1))
    down, right = torch.randint(3, (2,), generator=generator).tolist()
    return images[:, :, down : down + 8, right : right + 8].reshape(-1, 64)


def run(seed, batch=16, lr=0.02, kind="sgd", shift=False, prune=0.0, bf16=False,
        epochs=EPOCHS, target=TARGET, wrap=None, share=slice(None)):  # fmt: skip
    """Train until `target` of the test images are right -> {seconds, epochs, accuracy, curve}.

    seconds: of the CPU, scoring included; None if `epochs` were not enough. accuracy: the
    last one. curve: [(seconds, accuracy)] after each epoch. kind: "sgd" (momentum 0.9),
    "adamw" or "fused"; shift: see `shifted`; prune: that share of the weights is 0 from
    the fourth epoch on. wrap: the model is trained as wrap(model); share: these rows of
    each batch.
    """
    X, y, X_test, y_test = digits()
    model, dice = network(seed), torch.Generator().manual_seed(seed)
    weights = [p for p in model.parameters() if p.ndim == 2]
    optimizer = (
        torch.optim.SGD(model.parameters(), lr, momentum=0.9) if kind == "sgd"
        else torch.optim.AdamW(model.parameters(), lr, fused=kind == "fused")
    )  # fmt: skip
    trained, masks, curve = wrap(model) if wrap else model, (), []
    begin = time.process_time()
    for epoch in range(epochs):
        if prune and epoch == 3:
            masks = [_large(p, prune) for p in weights]
        for rows in torch.randperm(len(X), generator=dice).split(batch):
            rows = rows[share]
            X_BD = shifted(X[rows], dice) if shift else X[rows]
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = F.cross_entropy(trained(X_BD), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for p, mask in zip(weights, masks):
                    p *= mask
        with torch.inference_mode():
            accuracy = (model(X_test).argmax(1) == y_test).float().mean().item()
        curve.append((time.process_time() - begin, accuracy))
        if accuracy >= target:
            break
    reached = accuracy >= target
    return {"seconds": curve[-1][0] if reached else None, "epochs": epoch + 1,
            "accuracy": round(accuracy, 4), "curve": curve}  # fmt: skip


def one_rank(rank, n, seed):
    "Rung 'batch 128, rate x 8', shared by n ranks of DistributedDataParallel."
    torch.set_num_threads(1)
    run(seed, epochs=1)
    return run(seed, batch=128, lr=0.16, wrap=nn.parallel.DistributedDataParallel,
               share=slice(rank, None, n))  # fmt: skip


def two_ranks(seed):
    "The same with two processes: seconds are those of both together."
    both = ranks.run(functools.partial(one_rank, seed=seed), 2)
    times = [r["seconds"] for r in both]
    return {**both[0], "seconds": None if None in times else sum(times)}


def _large(p, share):
    "1 where a weight is among the largest, 0 for the smallest `share`."
    size = p.detach().abs()
    return (size > size.flatten().kthvalue(int(share * p.numel())).values).float()


def middle(runs):
    "The middle of the seconds; None where half of the runs or more did not arrive."
    times = sorted(r["seconds"] if r["seconds"] is not None else 1e9 for r in runs)
    return None if statistics.median(times) >= 1e9 else statistics.median(times)


def short(result):
    "A result without its curve."
    return {name: value for name, value in result.items() if name != "curve"}


def record():
    "Every rung, three seeds: -> what utils/data/ladder.json holds."
    torch.set_num_threads(1)
    run(0, epochs=1), run(0, epochs=1, kind="fused")  # imports, outside the clock
    shared = [short(two_ranks(seed)) for seed in SEEDS]
    rungs = {}
    for name, change in RUNGS.items():
        rungs[name] = [short(run(seed, **change)) for seed in SEEDS]
        print(name, middle(rungs[name]), rungs[name], flush=True)
    rungs["batch 128, rate x 8, two ranks"] = shared
    long = {
        name: [run(seed, **change, epochs=40, target=2.0)["accuracy"] for seed in SEEDS]
        for name, change in {"as they are": {}, "shifted": {"shift": True}}.items()
    }
    return {
        "command": "python -m utils.bench.faster",
        "machine": f"{platform.machine()}, 1 thread, torch {torch.__version__}",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "target": TARGET, "epochs": EPOCHS, "rungs": rungs, "after 40 epochs": long,
    }  # fmt: skip


def recorded():
    "What was recorded."
    return json.loads(RECORD.read_text(encoding="utf-8"))


# ---- ours beside the plain way ----


def _chain(x, a, b):
    return (((x * a + b) * x - a) * b + x * 0.5 - 1,)


def _tensors(*shapes, grad=False):
    torch.set_num_threads(1)
    made = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=made).requires_grad_(grad) for s in shapes]


@benchmark("a chain of 8 in blocks, 32 MiB", bar=">= 1.2")
def blocks():
    inputs = _tensors(*[(2**23,)] * 3)
    run = fuse(torch.fx.symbolic_trace(_chain), inputs)
    assert torch.equal(run(*inputs)[0], _chain(*inputs)[0])
    ratios = in_turns(lambda: run(*inputs), lambda: _chain(*inputs), invert=True)
    return Ratio(ratios, "eager / our backend for torch.compile")


def _steps(T, theirs, whose, **causal):
    inputs = _tensors(*[(1, 4, T, 32)] * 3, grad=True)
    ours = lambda: flash.flash(*inputs, causal=True).sum().backward()  # noqa: E731
    return Ratio(in_turns(ours, lambda: theirs(*inputs, **causal).sum().backward()),
                 f"T = {T}, forward and backward: our FlashAttention / {whose}")  # fmt: skip


@benchmark("FlashAttention in PyTorch, T = 2048, beside naive", bar="<= 0.9")
def flash_naive(T=2048):
    return _steps(T, attention, "chapter 09's attention", causal=True)


@benchmark("FlashAttention in PyTorch, T = 2048, beside SDPA")
def flash_sdpa():
    sdpa = F.scaled_dot_product_attention
    return _steps(2048, sdpa, "F.scaled_dot_product_attention", is_causal=True)


@benchmark("FlashAttention in PyTorch, T = 256, beside naive")
def flash_short():
    return flash_naive(T=256)


@benchmark("chunked loss, 1,024 rows, 4,096 words", bar="<= 1.3")
def chunked():
    x, W = _tensors((1024, 64), (4096, 64), grad=True)
    y = torch.arange(1024)
    return Ratio(
        in_turns(lambda: lean.ChunkedLoss.apply(x, W, y, 64).backward(),
                 lambda: F.cross_entropy(x @ W.T, y).backward()),
        "chunks of 64 / F.cross_entropy, forward and backward",
    )  # fmt: skip


if __name__ == "__main__":
    write_whole(RECORD, json.dumps(record(), indent=1) + "\n")
