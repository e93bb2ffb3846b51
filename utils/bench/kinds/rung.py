"""A ladder: GPT-2 (124 million weights) trained step by step faster, one change a rung.

Each rung keeps the changes of those above it, but for those that a line of RUNGS takes
back. A row: work = tokens of a step; `flop` of a step (the products of forward and
backward, recomputation not counted); `loss` of the first three steps and of the last two;
`weights_bytes`; on CUDA `peak_bytes` of weights, gradients, optimiser, activations and
batch. Seconds are of whole steps, by the CPU's clock, the queue emptied at each end.
"""

import gc
import time

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from utils.bench.kinds.device import Precision, clocked, digits, left_out, row
from utils.bench.kinds.operators import no_compiler
from utils.built import gpt

SIZES = {  # vocabulary, tokens of a row, layers, heads, width, rows, rows of a large batch
    "cuda": (50257, 1024, 12, 12, 768, 8, 32),
    "mps": (5000, 256, 4, 4, 256, 4, 8),
    "cpu": (256, 32, 2, 2, 32, 2, 4),
    "quick": (5000, 256, 2, 4, 256, 4, 8),
}
EVERY_BLOCK = "every block"
RUNGS = [  # (name, what it changes); seconds: what a rung is guessed to cost, compiled
    ("eager, fp32", {"precision": "fp32"}),
    ("tf32", {"precision": "tf32"}),
    ("bf16 autocast", {"precision": "bf16"}),
    ("torch.compile", {"compiled": True, "seconds": 75}),
    ("fused AdamW", {"fused": True, "seconds": 5}),
    ("larger batch", {"large": True, "seconds": 50}),
    ("checkpointing", {"checkpointing": EVERY_BLOCK, "seconds": 50}),
    ("eager again: larger batch", {"compiled": False, "checkpointing": None}),
    ("eager again: checkpointing", {"checkpointing": EVERY_BLOCK}),
]


def loss_of(model, ids_BT, y_BT, checkpointing=None):
    """Mean loss of a GPT with learned positions, from its own parts.

    GPT.hidden looks at the largest position: on a GPU that waits for the queue, and under
    torch.compile it breaks the graph in two.
    """
    T = ids_BT.shape[1]
    places = gpt.Places(None, True, None)
    x_BTE = model.tokens(ids_BT) + model.spots.weight[:T]
    for block in model.blocks:
        if checkpointing:
            x_BTE = checkpoint(block, x_BTE, places, use_reentrant=False)
        else:
            x_BTE = block(x_BTE, places)
    logits_BTV = model.logits(model.norm(x_BTE))
    return F.cross_entropy(logits_BTV.flatten(0, 1), y_BT.flatten())


def flop_of_step(V, T, layers, E, B):
    "Products of a training step: 3 times forward's 2 B T (12 E^2 L + V E) + 4 L B T^2 E."
    return 3 * (2 * B * T * (12 * E * E * layers + V * E) + 4 * layers * B * T * T * E)


def model_of(dev, sizes):
    "The model, and its first weights on the CPU: every rung begins with them."
    V, T, layers, heads, E = sizes[:5]
    torch.manual_seed(0)
    model = gpt.GPT(V, T, layers, heads, E, **gpt.GPT2)
    first = {name: value.clone() for name, value in model.state_dict().items()}
    return model.to(dev.device), first


class Step:
    """One training step of one rung: step() -> its loss, a tensor.

    The model is the same object on every rung, so that what was compiled for one fits
    the next.
    """

    def __init__(self, dev, sizes, changes, model, first):
        V, T, layers, _, E, B, large = sizes
        self.B, self.T = large if changes.get("large") else B, T
        self.flop = flop_of_step(V, T, layers, E, self.B)
        self.model = model
        model.load_state_dict(first)
        model.zero_grad(set_to_none=True)
        made = torch.Generator().manual_seed(1)
        ids = torch.randint(V, (self.B, T + 1), generator=made).to(dev.device)
        self.ids, self.y = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
        self.loss_of = loss_of
        if changes.get("compiled"):
            self.loss_of = torch.compile(loss_of, dynamic=False)
        self.checkpointing = changes.get("checkpointing")
        low = changes["precision"] == "bf16"
        self.cast = torch.autocast(dev.device.type, torch.bfloat16, enabled=low)
        fused = {"fused": True} if changes.get("fused") else {}
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, **fused)

    def __call__(self):
        self.optimizer.zero_grad(set_to_none=True)
        with self.cast:
            loss = self.loss_of(self.model, self.ids, self.y, self.checkpointing)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def rung(dev, quick=False):
    "Tokens a second and peak bytes, rung by rung; without a compiler, those of eager."
    sizes = SIZES["quick" if quick and dev.kind == "cuda" else dev.kind]
    changes, compiler, made = {}, True, model_of(dev, sizes)
    for name, change in RUNGS:
        if name.startswith("eager again") and not compiler:
            continue  # it was eager all along
        changes |= change
        why = no_compiler(dev) if change.get("compiled") else ""
        if why or (quick and name != "torch.compile"):
            changes["compiled"] = compiler = False
        labels = {"rung": name, **{k: v for k, v in changes.items() if k != "seconds"}}
        need = changes["seconds"] if changes.get("compiled") else 1
        if not why and dev.left() < need:
            why = f"no time was left: it takes about {need} s"
        if why:
            yield left_out("rung", why, **labels)
            continue
        try:
            yield _row(dev, sizes, changes, labels, *made)
            yield None  # the next compilation may take longer than is left
        except Exception as error:  # out of memory, or what the compiler cannot do
            yield left_out("rung", error, **labels)


def _row(dev, sizes, changes, labels, model, first):
    "One rung, measured."
    model.zero_grad(set_to_none=True)
    gc.collect()
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    if dev.kind == "cuda":
        dev.free()
        others = dev.allocated() - weights
    start = time.monotonic()
    with Precision("tf32" if changes["precision"] != "fp32" else "fp32"):
        step = Step(dev, sizes, changes, model, first)
        losses = [step() for _ in range(3)]  # compiles, and makes the optimiser's state
        dev.wait()
        ready = time.monotonic() - start
        if dev.kind == "cuda":
            dev.reset_peak()
        made = row(dev, "rung", step, step.B * step.T, "token", samples=clocked(dev.wait),
                   **labels, batch=step.B, T=step.T, flop=step.flop)  # fmt: skip
        losses += [step() for _ in range(2)]
    made["loss"] = digits(torch.stack(losses).tolist())
    made["seconds_to_start"] = round(ready, 2)
    made["weights_bytes"] = weights
    if dev.kind == "cuda":
        made["peak_bytes"] = int(dev.peak() - others)
    return made
