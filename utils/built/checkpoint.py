"""What chapter 05 builds against being cut off: all that has memory, in one whole file.

`save_checkpoint` and `load_checkpoint` know files, `Run` what a run of `train.fit` remembers.
"""

import os
import pickle
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

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


# ---- a run ----


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


@dataclass
class Run:
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
            "random": get_random(),
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


def get_random():
    "torch's random state, on every device; not Python's and NumPy's."
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    mps = [torch.mps.get_rng_state()] if torch.backends.mps.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda, "mps": mps}


def set_random(state):
    "Go back to a random state, on the devices that are here."
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    if state["mps"] and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"][0])
