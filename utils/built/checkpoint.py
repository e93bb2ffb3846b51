"""What chapter 05 builds against being cut off: all that has memory, in one whole file.

`save_checkpoint` and `load_checkpoint` know files, `Run` what a run of `train.fit` remembers.
"""

import pickle
import struct
import zipfile
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from utils.files import whole

# ---- files ----


def save_checkpoint(path, state):
    "Write `state` so that `path` is a whole file at every moment: the old or the new."
    with whole(path) as file:
        torch.save(state, file)


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
    _refuse_flipped_bits(path)
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


def _refuse_flipped_bits(path):
    "torch.load does not ask the checksums that stand in the file."
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError,
            OSError, RuntimeError, struct.error):  # fmt: skip
        bad = "the archive"
    if bad:
        raise ValueError(
            f"{path.name} is damaged: {bad} does not fit its checksum. Use the one before"
        )


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
        self._refuse_another(Path(path).name, state)
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

    def _refuse_another(self, name, state):
        "Look at all of a checkpoint before anything is changed."
        parts = {"model": dict, "optimizer": dict, "order": dict, "at": dict,
                 "random": dict, "history": dict}  # fmt: skip
        lacking = [key for key in (*parts, "scheduler", "best")
                   if not isinstance(state, dict) or key not in state]  # fmt: skip
        wrong = [key for key, kind in parts.items()
                 if key not in lacking and not isinstance(state[key], kind)]  # fmt: skip
        if lacking or wrong:
            raise ValueError(
                f"{name} was not written by train.fit: without {', '.join(lacking or wrong)} "
                "a run cannot go on"
            )
        mine, theirs = self.model.state_dict(), state["model"]
        other = [key for key in {**mine, **theirs}
                 if getattr(mine.get(key), "shape", key)
                 != getattr(theirs.get(key), "shape", None)]  # fmt: skip
        if other:
            raise ValueError(f"{name} holds another model: see its {other[0]!r}")
        groups = state["optimizer"].get("param_groups", [])
        mine = [len(g["params"]) for g in self.optimizer.param_groups]
        if mine != [len(g.get("params", ())) for g in groups]:
            raise ValueError(f"{name} holds the state of another optimizer")
        own = set(self.optimizer.param_groups[0])
        if own != set(groups[0]):
            raise ValueError(
                f"{name} holds the state of another kind of optimizer: "
                f"{', '.join(sorted(own ^ set(groups[0])))}"
            )
        if set(state["at"]) != {"epoch", "done"} or set(state["history"]) != set(
            asdict(History())
        ):
            raise ValueError(f"{name} was written by another version of train.fit")


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
