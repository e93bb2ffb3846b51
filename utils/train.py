"""What chapter 05 builds: data in batches, the loop, its score, its checkpoints.

Shapes: X (N, ...) rows, y (N,) labels or targets, logits (B, C) of a batch of B rows.
`fit` trains; run again with the same `checkpoint`, it goes on where it was cut off and
ends with the same bits. `sanity` is the look at a new model that costs a second.
"""

import copy
import math
import os
import pickle
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

# ---- where ----


def pick_device(asked=None):
    "The device that was asked for, or the fastest one here: CUDA, then MPS, then CPU."
    here = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if asked is None:
        return torch.device(next(name for name, there in here.items() if there))
    device = torch.device(asked)
    if not here.get(device.type, True):
        there = ", ".join(name for name, there in here.items() if there)
        raise ValueError(f"{asked!r} was asked for; this machine has: {there}")
    return device


def device_of(model):
    "The device of a model's first parameter or buffer; the CPU if it has none."
    tensors = (*model.parameters(), *model.buffers())
    return tensors[0].device if tensors else torch.device("cpu")


# ---- data ----


class Rows(Dataset):
    "Rows with their labels; rows[3] is one pair, rows[[3, 5]] a batch of two."

    def __init__(self, X, y, device=None):
        if len(X) != len(y):
            raise ValueError(f"{len(X)} rows and {len(y)} labels: one label a row")
        self.X = torch.as_tensor(X, device=device)
        if self.X.dtype == torch.float64:
            self.X = self.X.float()
        self.y = torch.as_tensor(y, device=device)

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], self.y[i]


def epoch_order(N, seed, epoch):
    "A shuffled 0 .. N-1 (N,) that depends on seed and epoch alone."
    generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    return torch.randperm(N, generator=generator)


class Order:
    """Row numbers, `size` at a time; without a seed in their own order.

    `begin(epoch, done)` starts the next pass at any epoch, `done` batches into it.
    """

    def __init__(self, N, size, seed=None):
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(
                f"a batch has a whole number of rows, at least 1, not {size!r}"
            )
        self.N, self.size, self.seed = N, size, seed
        self.epoch = self.done = 0

    def begin(self, epoch, done=0):
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
    B rows stacked: that is why `batch_size` is None.
    """
    rows = Rows(X, y, device)
    order = Order(len(rows), size, seed)
    own = (
        torch.Generator()
    )  # a DataLoader draws a number a pass, else from the global one
    return DataLoader(rows, sampler=order, batch_size=None, generator=own)


# ---- one step, one score ----


def train_step(model, X, y, optimizer, loss=F.cross_entropy, clip=None, step=None):
    """One step on one batch -> its loss, a number.

    clip: the largest norm that all gradients together may have. A loss that is nan or
    infinite raises FloatingPointError before any weight has moved.
    """
    _same_place(model, X)
    model.train()
    value = loss(model(X), y)
    number = value.item()
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
    the model was in comes back.
    """
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    rows = answers = right = total = 0
    try:
        with torch.inference_mode():
            for X, y in batches:
                _same_place(model, X)
                logits = model(X)
                rows += len(X)
                total += loss(logits, y).item() * len(X)
                if logits.shape[:-1] == y.shape and not y.is_floating_point():
                    answers += y.numel()
                    right += (logits.argmax(-1) == y).sum().item()
    finally:
        for part, mode in modes:
            part.training = mode
    if not rows:
        raise ValueError("there is nothing to evaluate: the loader gave no batch")
    return Score(total / rows, right / answers if answers else math.nan)


def _same_place(model, X):
    place = device_of(model)
    if X.device != place:
        raise ValueError(
            f"the model is on {place}, the batch on {X.device}: choose the device once, "
            "device = pick_device(), then model.to(device) and loader(..., device=device)"
        )


# ---- the whole run ----


@dataclass
class History:
    "What a run wrote down."

    losses: list = field(default_factory=list)  # of every step
    scores: list = field(default_factory=list)  # validation [loss, accuracy] an epoch
    best_epoch: int | None = None  # counted from 0; its weights stay if patience is set
    stopped: bool = False  # early

    @property
    def accuracy(self):
        "Of the validation rows, one an epoch."
        return [accuracy for _, accuracy in self.scores]


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
    """
    _can_run(batches, epochs, every, patience, validation)
    order = getattr(batches, "sampler", None)
    order = order if isinstance(order, Order) else None
    if checkpoint and order is None:
        raise ValueError(
            "a run can be continued only if its order is known: make the batches with "
            "train.loader(X, y, size, seed)"
        )
    run = _Run(model, optimizer, scheduler, batches)
    random = run.load(checkpoint) if checkpoint and Path(checkpoint).exists() else None
    watch = _watch(live, len(batches), epochs)
    history = run.history
    while run.epoch < epochs and not history.stopped:
        if order is not None:
            order.begin(run.epoch, run.done)
        this_epoch = iter(batches)  # may draw a random number: restore after it
        if random is not None:
            _set_random(random)
            random = None
        for X, y in this_epoch:
            step = len(history.losses)
            value = train_step(model, X, y, optimizer, loss, clip, step)
            if scheduler is not None:
                scheduler.step()
            history.losses.append(value)
            run.done += 1
            if checkpoint and (step + 1) % every == 0:
                run.save(checkpoint)
            watch(history, run.epoch)
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
    if not len(batches):
        raise ValueError("there is nothing to train on: the loader has no batch")
    if epochs < 1 or every < 1:
        raise ValueError(f"epochs and every are at least 1, not {epochs} and {every}")
    if patience is not None and (patience < 1 or validation is None):
        raise ValueError("patience is at least 1 epoch and needs a validation loader")


@dataclass
class _Run:
    "Everything that has memory."

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: object
    batches: object
    epoch: int = 0
    done: int = 0  # batches of this epoch
    history: History = field(default_factory=History)
    best: dict | None = None  # weights

    def judge(self, score, patience):
        "Note an epoch's score; with patience, keep the best weights or stop."
        history = self.history
        best = history.best_epoch
        if best is None or score.loss < history.scores[best][0]:
            history.best_epoch = self.epoch
            if patience is not None:
                self.best = _copy(self.model.state_dict())
        elif patience is not None:
            history.stopped = self.epoch - best >= patience
        history.scores.append(list(score))

    def save(self, path):
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None
            if self.scheduler is None
            else self.scheduler.state_dict(),
            "order": self.batches.sampler.describe(),
            "at": {"epoch": self.epoch, "done": self.done},
            "random": _get_random(),
            "history": asdict(self.history),
            "best": self.best,
        }
        save_checkpoint(path, state)

    def load(self, path):
        "Go back to a checkpoint -> the random state, to be set last."
        state = load_checkpoint(path)
        order = self.batches.sampler.describe()
        if state["order"] != order:
            raise ValueError(
                f"{Path(path).name} was written with the order {state['order']}; this run "
                f"has {order}: it would not be the same run. Choose another file"
            )
        if (state["scheduler"] is None) != (self.scheduler is None):
            raise ValueError(f"{Path(path).name}: one of the two runs has a scheduler")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.epoch, self.done = state["at"]["epoch"], state["at"]["done"]
        self.history, self.best = History(**state["history"]), state["best"]
        return state["random"]


def _copy(state):
    return {name: value.detach().clone() for name, value in state.items()}


def _get_random():
    "torch's random state, on every device; not Python's and NumPy's."
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    mps = [torch.mps.get_rng_state()] if torch.backends.mps.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda, "mps": mps}


def _set_random(state):
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    if state["mps"] and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"][0])


def _watch(live, batches, epochs):
    if not live:
        return lambda *_, **__: None
    from utils.figures.pytorch import Live

    return Live(batches, epochs)


# ---- files ----


def save_checkpoint(path, state):
    "Write `state` so that `path` is a whole file at every moment: the old or the new."
    path = Path(path)
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def load_checkpoint(path, device="cpu"):
    "Tensors and plain values of a checkpoint; damaged and untrusted files are refused."
    path = Path(path)
    size = path.stat().st_size
    with open(path, "rb") as file:
        is_archive = file.read(2) == b"PK"
    if is_archive and not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path.name} is damaged: it breaks off after {size:,} bytes. Use the one before"
        )
    if not is_archive:
        raise ValueError(f"{path.name} is no checkpoint: torch.save did not write it")
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path.name} is refused: it holds more than tensors and plain values, and "
            "unpickling it could run anything"
        ) from None
    except (RuntimeError, OSError, EOFError):
        raise ValueError(
            f"{path.name} is damaged: parts of it are missing. Use the one before"
        ) from None


# ---- the look at a new model ----


def first_loss(model, X, y, loss=F.cross_entropy):
    "The loss before any training; ln(C) if C classes get equal bets."
    return evaluate(model, [(X, y)], loss).loss


def overfit(model, X, y, steps=100, lr=1e-2, loss=F.cross_entropy):
    "Losses of a copy of the model that is trained on this one batch alone."
    place = device_of(model)
    with torch.random.fork_rng([place] if place.type == "cuda" else []):
        twin = copy.deepcopy(model)
        optimizer = torch.optim.AdamW(twin.parameters(), lr=lr, weight_decay=0.0)
        return [train_step(twin, X, y, optimizer, loss, step=i) for i in range(steps)]


def sanity(model, X, y, classes, steps=100, lr=1e-2, loss=F.cross_entropy, slack=0.3):
    """Two tests of an untrained model on one batch -> (figure, sentence); or it raises.

    Its loss is near ln(classes), and a copy of it learns the batch by heart: the loss
    falls below a tenth of that. The model itself is not changed.
    """
    from utils.figures.pytorch import sanity as draw

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
    return draw(first, expected, losses, len(X))
