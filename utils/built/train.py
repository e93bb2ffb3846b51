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

from utils import given

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


# ---- data ----


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
    value = loss(outputs, y)
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
                total += _one_number(loss(logits, y)) * len(X)
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
        "Write everything into a checkpoint."
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
    """Tensors and plain values of a checkpoint.

    ValueError for a damaged file and for one that could run code, FileNotFoundError.
    """
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
    "Losses (steps,) of a copy of the model that is trained on this one batch alone."
    steps = given.whole("steps", steps)
    place = device_of(model)
    with torch.random.fork_rng([place] if place.type == "cuda" else []):
        twin = copy.deepcopy(model)
        optimizer = torch.optim.AdamW(twin.parameters(), lr=lr, weight_decay=0.0)
        return [train_step(twin, X, y, optimizer, loss, step=i) for i in range(steps)]


def sanity(model, X, y, classes, steps=100, lr=1e-2, loss=F.cross_entropy, slack=0.3):
    """Two tests of an untrained model on one batch -> (figure, sentence); or it raises.

    Its loss is near ln(classes), and a copy of it learns the batch by heart: the loss
    falls below a tenth of that. The model itself is not changed. AssertionError where a
    test fails. After Karpathy, A Recipe for Training Neural Networks (2019).
    """
    from utils.figures.pytorch import sanity as draw

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
    return draw(first, expected, losses, len(X))
