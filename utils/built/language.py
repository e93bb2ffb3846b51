"""What chapter 09 builds: training a GPT on one long row of tokens, and its score.

run = Run(model, ids_N, steps=360)          # model of built/gpt.py
run.go(240)                                 # the first half; look, then go on
run.go(240)
loss_of(model, windows(validation_N, 64))   # windows of built/seq.py
"""

import torch
import torch.nn.functional as F

from utils import given
from utils.built import muon


def share(step, steps, warmup=20, fall=0.6):
    """The share of the full rate at step 0, 1, ... of `steps`: a trapezium.

    Straight up over `warmup` steps, and straight down to 0 over the last part, `fall`.
    """
    return min(1.0, (step + 1) / warmup, (steps - step) / (fall * steps))


def draw_windows(ids_N, B, T, generator=None):
    "B windows of T + 1 tokens from anywhere in the row: -> (B, T + 1)."
    last = len(ids_N) - T
    if last < 1:
        raise ValueError(f"{len(ids_N)} tokens hold no window of {T} + 1")
    begin_B1 = torch.randint(last, (B, 1), generator=generator)
    return ids_N[begin_B1 + torch.arange(T + 1)]


def nats(model, rows_BT1):
    "Mean cross-entropy of the token after each: rows (B, T + 1) -> a tensor of one number."
    logits_BTV = model(rows_BT1[:, :-1])
    return F.cross_entropy(logits_BTV.flatten(0, 1), rows_BT1[:, 1:].flatten())


@torch.no_grad()
def loss_of(model, rows_BT1, at_once=64):
    "Mean loss over all rows (B, T + 1), in nats per token, without a graph."
    total = sum(
        nats(model, part).item() * len(part) for part in rows_BT1.split(at_once)
    )
    return total / len(rows_BT1)


class Run:
    """Training that can stop and go on: the recipe of chapter 09.

    batch, length  windows per step and their tokens; length is model.context if not given
    steps          of the whole run: the rates fall to 0 at its end
    optimizers     muon.for_model(model) if not given; each group has its "first" rate
    losses         of every step so far
    """

    def __init__(self, model, ids_N, steps, batch=16, length=None, seed=0,
                 optimizers=None, warmup=20, fall=0.6, clip=None):  # fmt: skip
        self.model, self.ids_N = model, ids_N
        self.steps, self.batch = (
            given.whole("steps", steps),
            given.whole("batch", batch),
        )
        self.length = model.context if length is None else length
        self.dice = torch.Generator().manual_seed(given.whole("seed", seed, 0))
        self.optimizers = muon.for_model(model) if optimizers is None else optimizers
        self.shape, self.clip = (warmup, fall), clip
        self.losses = []

    def go(self, count=None):
        "`count` steps more, or all that are left: -> their losses."
        left = self.steps - len(self.losses)
        count = left if count is None else given.whole("count", count, 0)
        if count > left:
            raise ValueError(f"{left} of {self.steps} steps are left, not {count}")
        return [self.step() for _ in range(count)]

    def step(self):
        "One step -> its loss."
        part = share(len(self.losses), self.steps, *self.shape)
        rows = draw_windows(self.ids_N, self.batch, self.length, self.dice)
        loss = nats(self.model, rows)
        loss.backward()
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["first"] * part
            optimizer.step()
            optimizer.zero_grad()
        self.losses.append(loss.item())
        return self.losses[-1]
