"""What chapter 05 builds: the loop, its score, the whole run, the look at a new model.

Shapes: X (N, ...) rows, y (N,) labels or targets, logits (B, C) of a batch of B rows.
`fit` trains; run again with the same `checkpoint`, it goes on where it was cut off and
ends with the same bits. `sanity` is the look at a new model that costs a second.
What rows.py and checkpoint.py hold is reached from here, too, as in `train.loader`.
"""

import copy
import math
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F

from utils import given
from utils.built.checkpoint import (
    History,
    Run,
    load_checkpoint,
    save_checkpoint,
    set_random,
)
from utils.built.rows import Order, Rows, epoch_order, loader

__all__ = [
    "History", "Order", "Rows", "Sanity", "Score", "device_of", "epoch_order", "evaluate",
    "first_loss", "fit", "load_checkpoint", "loader", "overfit", "pick_device", "sanity",
    "save_checkpoint", "train_step",
]  # fmt: skip

# ---- where ----


def pick_device(asked=None):
    """The device that was asked for, or the fastest one here: CUDA, then MPS, then CPU.

    ValueError for a name that is no device, or one that this machine has not.
    """
    here = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if asked is None:
        return torch.device(next(name for name, there in here.items() if there))
    try:
        device = torch.device(asked)
    except (RuntimeError, TypeError):
        raise ValueError(f"{asked!r} is no device: {', '.join(here)}") from None
    if not here.get(device.type, True):
        there = ", ".join(name for name, there in here.items() if there)
        raise ValueError(f"{asked!r} was asked for; this machine has: {there}")
    return device


def device_of(model):
    "The device of a model's first parameter or buffer; the CPU if it has none."
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"a model is a torch.nn.Module, not {type(model).__name__}")
    tensors = (*model.parameters(), *model.buffers())
    return tensors[0].device if tensors else torch.device("cpu")


# ---- one step, one score ----


def train_step(model, X, y, optimizer, loss=F.cross_entropy, clip=None, step=None):
    """One step on one batch -> its loss, a number.

    clip: the largest norm that all gradients together may have, above 0. A loss that is
    nan or infinite raises FloatingPointError before any weight has moved; ValueError
    where model and batch lie on two devices, or targets (N,) meet outputs (N, 1).
    """
    _same_place(model, X)
    _can_step(optimizer)
    if clip is not None:
        given.number("clip", clip, above=0)
    model.train()
    outputs = model(X)
    _same_shape(outputs, y)
    value = _loss(loss, outputs, y)
    number = _one_number(value)
    if not math.isfinite(number):
        rate = optimizer.param_groups[0]["lr"]
        at = "" if step is None else f" at step {step}"
        raise FloatingPointError(
            f"the loss is {number}{at} (learning rate {rate:.3g}): nothing was changed in "
            "this step. Look at the rate, at the inputs, at a log or a division"
        )
    optimizer.zero_grad()
    value.backward()
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return number


class Score(NamedTuple):
    "Mean loss a row, and the share of right answers (nan where labels are not classes)."

    loss: float
    accuracy: float


def evaluate(model, batches, loss=F.cross_entropy):
    """Mean loss and accuracy over all rows, in evaluation mode and without a graph.

    Every row counts alike, also those of a short last batch. The mode that each part of
    the model was in comes back. batches: of pairs (X, y), at least one, or ValueError.
    """
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    rows = answers = right = total = 0
    try:
        with torch.inference_mode():
            for X, y in map(_pair, batches):
                _same_place(model, X)
                logits = model(X)
                rows += len(X)
                _same_shape(logits, y)
                total += _one_number(_loss(loss, logits, y)) * len(X)
                if logits.shape[:-1] == y.shape and not y.is_floating_point():
                    answers += y.numel()
                    right += (logits.argmax(-1) == y).sum().item()
    finally:
        for part, mode in modes:
            part.training = mode
    if not rows:
        raise ValueError("there is nothing to evaluate: the loader gave no batch")
    return Score(total / rows, right / answers if answers else math.nan)


def _pair(batch):
    "A batch (X, y): a tensor of two rows would be taken apart without a word."
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise ValueError("a batch is a pair: pass [(X, y)] or train.loader(X, y, size)")
    return batch


def _same_shape(outputs, y):
    "Refuse targets (N,) for outputs (N, 1): a difference of the two has N * N numbers."
    if not (isinstance(outputs, torch.Tensor) and isinstance(y, torch.Tensor)):
        return
    alike = outputs.shape == y.shape or not y.is_floating_point()
    if not alike and outputs.numel() == y.numel() > 1:
        raise ValueError(
            f"outputs {tuple(outputs.shape)}, targets {tuple(y.shape)}: one would be "
            "stretched over the other. Give both the same shape, as y[:, None]"
        )


def _loss(loss, outputs, y):
    "loss(outputs, y), or ValueError where labels are too few, too many, or no classes."
    try:
        return loss(outputs, y)
    except (IndexError, ValueError) as error:
        if loss is not F.cross_entropy or not isinstance(y, torch.Tensor):
            raise
        if len(outputs) != len(y):
            said = (
                f"{len(outputs)} rows of outputs, {len(y)} labels: a label for each row"
            )
        elif isinstance(error, IndexError) and y.numel():
            low, high = int(y.min()), int(y.max())
            said = f"classes have the numbers 0 to {outputs.shape[1] - 1}; these are "
            said += f"{low} to {high}"
        else:
            raise
        raise ValueError(said) from None


def _one_number(loss):
    "The loss as a Python number, if it is one number."
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        got = tuple(loss.shape) if isinstance(loss, torch.Tensor) else loss
        raise ValueError(f"a loss is a tensor of one number, not {got!r:.60}")
    return loss.item()


def _same_place(model, X):
    if not isinstance(X, torch.Tensor):
        kind = given.kind(X)
        raise TypeError(f"a batch is tensors, not {kind}: train.loader(X, y, size)")
    place = device_of(model)
    if X.device != place:
        raise ValueError(
            f"the model is on {place}, the batch on {X.device}: choose the device once, "
            "device = pick_device(), then model.to(device) and loader(..., device=device)"
        )


# ---- the whole run ----


def fit(
    model, batches, optimizer, epochs, *, loss=F.cross_entropy, scheduler=None,
    validation=None, patience=None, clip=None, checkpoint=None, every=50, live=False,
    on_step=None,
):  # fmt: skip
    """Train `model` in place -> History.

    batches, validation  of (X, y), as `loader` makes them
    scheduler   moves the learning rate; its step is one batch
    patience    stop after so many epochs without a better validation loss, and go back
                to the weights of the best
    checkpoint  a file, written every `every` steps and at each epoch's end; if it is
                there, the run goes on from it
    live        a progress bar and a curve while it runs (in a notebook)
    on_step     called with (step, loss) after each step

    What cannot run is refused before the first step: ValueError or TypeError.
    """
    epochs, every = _can_run(batches, epochs, every, patience, validation)
    _can_learn(model, optimizer, scheduler, checkpoint)
    order = getattr(batches, "sampler", None)
    order = order if isinstance(order, Order) else None
    if checkpoint and order is None:
        raise ValueError(
            "a run can be continued only if its order is known: make the batches with "
            "train.loader(X, y, size, seed)"
        )
    run = Run(model, optimizer, scheduler, batches)
    random = run.load(checkpoint) if checkpoint and Path(checkpoint).exists() else None
    watch = _watch(live, len(batches), epochs)
    history = run.history
    while run.epoch < epochs and not history.stopped:
        if order is not None:
            order.begin(run.epoch, run.done)
        this_epoch = iter(batches)  # may draw a random number: restore after it
        if random is not None:
            set_random(random)
            random = None
        for X, y in map(_pair, this_epoch):
            step = len(history.losses)
            value = train_step(model, X, y, optimizer, loss, clip, step)
            if run.done == 0 and not _moves(optimizer, model):
                raise ValueError("the optimizer moves none of this model's parameters")
            if scheduler is not None:
                scheduler.step()
            history.losses.append(value)
            run.done += 1
            if checkpoint and (step + 1) % every == 0:
                run.save(checkpoint)
            watch(history, run.epoch + 1)
            if on_step is not None:
                on_step(step, value)
        if validation is not None:
            run.judge(evaluate(model, validation, loss), patience)
        run.epoch, run.done = run.epoch + 1, 0
        if checkpoint:
            run.save(checkpoint)
        watch(history, run.epoch, last=run.epoch == epochs or history.stopped)
    if run.best is not None:
        model.load_state_dict(run.best)
    return history


def _can_run(batches, epochs, every, patience, validation):
    _some("train", batches)
    if validation is not None:
        _some("validate", validation)
    if patience is not None:
        if validation is None:
            raise ValueError("patience needs a validation loader")
        given.whole("patience", patience)
    return given.whole("epochs", epochs), given.whole("every", every)


def _some(do, batches):
    if not hasattr(batches, "__len__"):
        kind = type(batches).__name__
        raise TypeError(f"pass [(X, y), ...] or train.loader(X, y, size), not {kind}")
    if not len(batches):
        raise ValueError(f"there is nothing to {do} on: the loader has no batch")


def _can_learn(model, optimizer, scheduler, checkpoint):
    device_of(model)  # is it a model?
    _can_step(optimizer)
    if scheduler is not None and not hasattr(scheduler, "step"):
        raise TypeError(f"scheduler has a step(); {scheduler!r:.60} has none")
    if checkpoint and not Path(checkpoint).parent.is_dir():
        raise FileNotFoundError(f"there is no folder for the checkpoint {checkpoint}")


def _can_step(optimizer):
    if not hasattr(optimizer, "param_groups"):
        kind = type(optimizer).__name__
        raise TypeError(f"optimizer is one of torch.optim, not {kind}")


def _moves(optimizer, model):
    "Is one of the optimiser's parameters the model's?"
    moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return not moved.isdisjoint(map(id, model.parameters()))


def _watch(live, batches, epochs):
    if not live:
        return lambda *_, **__: None
    from utils.plots import Live  # with Matplotlib: only where something is shown

    return Live(batches, epochs)


# ---- the look at a new model ----


def first_loss(model, X, y, loss=F.cross_entropy):
    "The loss before any training; ln(C) if C classes get equal bets."
    return evaluate(model, [(X, y)], loss).loss


def overfit(model, X, y, steps=100, lr=1e-2, loss=F.cross_entropy):
    "Losses (steps,) of a copy of the model that is trained on this one batch alone."
    steps = given.whole("steps", steps)
    place = device_of(model)
    with torch.random.fork_rng([place] if place.type == "cuda" else []):
        twin = copy.deepcopy(model)
        optimizer = torch.optim.AdamW(twin.parameters(), lr=lr, weight_decay=0.0)
        return [train_step(twin, X, y, optimizer, loss, step=i) for i in range(steps)]


class Sanity(NamedTuple):
    "What `sanity` saw; figures.sanity(*seen) draws it."

    first: float  # loss before any training
    expected: float  # ln(classes)
    losses: list  # of each step on the one batch
    rows: int  # of that batch


def sanity(model, X, y, classes, steps=100, lr=1e-2, loss=F.cross_entropy, slack=0.3):
    """Two tests of an untrained model on one batch -> what they saw; or it raises.

    Its loss is near ln(classes), and a copy of it learns the batch by heart: the loss
    falls below a tenth of that. The model itself is not changed. AssertionError where a
    test fails. After Karpathy, A Recipe for Training Neural Networks (2019).
    """
    given.whole("classes", classes, least=2)
    expected, first = math.log(classes), first_loss(model, X, y, loss)
    if not abs(first - expected) <= slack:
        raise AssertionError(
            f"the first loss is {first:.3g}, {classes} equal bets cost ln {classes} = "
            f"{expected:.3g}. Above: the model bets before it has seen anything (scale of "
            "the last layer?). Below: it knows the labels already, or they are not the "
            f"{classes} classes"
        )
    losses = overfit(model, X, y, steps, lr, loss)
    if not losses[-1] < expected / 10:
        raise AssertionError(
            f"{steps} steps on one batch of {len(X)} rows end at a loss of "
            f"{losses[-1]:.3g}: what cannot learn a batch by heart cannot learn. Do the "
            "labels belong to the rows? Do gradients reach all weights?"
        )
    return Sanity(first, expected, losses, len(X))
