import io
import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from tests.wrong_answers import WrongAnswers
from utils.checks.pytorch import KINDS

wrong = WrongAnswers("pytorch")


# ---- strides_of ----


def _strides(shape):
    result, step = [], 1
    for size in reversed(shape):
        result.insert(0, step)
        step *= size
    return tuple(result)


@wrong("strides_of", says="turned round")
def reversed_strides(shape):
    return _strides(shape)[::-1]


@wrong("strides_of", says="order of Fortran")
def from_the_left(shape):
    return _strides(shape[::-1])[::-1]


@wrong("strides_of", says="does not jump over itself")
def one_too_far(shape):
    return tuple(s * n for s, n in zip(_strides(shape), shape))


@wrong("strides_of", says="PyTorch counts elements")
def in_bytes(shape):
    return tuple(4 * s for s in _strides(shape))


@wrong("strides_of", says="the shape itself")
def shape_itself(shape):
    return shape


@wrong("strides_of", says="sizes to its right")
def only_the_next(shape):
    return (*shape[1:], 1)


@wrong("strides_of", says="raised IndexError")
def fails_without_axes(shape):
    last = shape[-1]
    return _strides(shape)


@wrong("strides_of", says="np.prod of nothing is 1.0")
def ends_in_a_float(shape):
    return tuple(np.prod(shape[i + 1 :]) for i in range(len(shape)))


# ---- expanded_strides ----


def _expand(shape, strides, wanted):
    return torch.empty(100).as_strided(shape, strides).expand(wanted).stride()


@wrong("expanded_strides", says="run on into the next row")
def keeps_the_stride(shape, strides, wanted):
    return (0,) * (len(wanted) - len(shape)) + tuple(strides)


@wrong("expanded_strides", says="not at the left")
def lined_up_left(shape, strides, wanted):
    missing = len(wanted) - len(shape)
    sizes, kept = tuple(shape) + (1,) * missing, tuple(strides) + (0,) * missing
    return tuple(0 if size == 1 else s for size, s in zip(sizes, kept))


@wrong("expanded_strides", says="moves no number")
def strides_of_a_copy(shape, strides, wanted):
    return _strides(wanted)


@wrong("expanded_strides", says="axes are lost")
def no_new_axes(shape, strides, wanted):
    end = wanted[len(wanted) - len(shape) :]
    return tuple(0 if n == 1 != w else s for n, s, w in zip(shape, strides, end))


@wrong("expanded_strides", says="Only an axis of 1 can be stretched")
def never_refuses(shape, strides, wanted):
    extra = len(wanted) - len(shape)
    kept = zip(shape, strides, wanted[extra:])
    return (0,) * extra + tuple(s if n == w else 0 for n, s, w in kept)


@wrong("expanded_strides", says="old stride")
def takes_it_for_contiguous(shape, strides, wanted):
    if (tuple(shape), tuple(wanted)) == ((6, 4), (6, 4)):
        return (4, 1)
    return _expand(shape, strides, wanted)


def _stretch(shape, strides, wanted, fits):
    extra = len(wanted) - len(shape)
    kept = list(zip(shape, strides, wanted[extra:]))
    if extra < 0 or not all(fits(n, w) for n, _, w in kept):
        raise ValueError("no")
    return (0,) * extra + tuple(s if n == w else 0 for n, s, w in kept)


@wrong("expanded_strides", says="nor 3 become 1")
def shrinks_to_one(shape, strides, wanted):
    return _stretch(shape, strides, wanted, lambda n, w: n == w or 1 in (n, w))


@wrong("expanded_strides", says="2 does not become 4")
def stretches_to_multiples(shape, strides, wanted):
    return _stretch(shape, strides, wanted, lambda n, w: w % n == 0)


@wrong("expanded_strides", says="case: shape (6,), strides (1,), stretched to (4, 6)")
def refuses_new_axes(shape, strides, wanted):
    if len(wanted) - len(shape) == 1 and len(shape) == 1:
        raise ValueError("too few axes")
    return _expand(shape, strides, wanted)


# ---- Module ----


class _Right:
    def __setattr__(self, name, value):
        found = self.__dict__.setdefault("found", {})
        found.pop(name, None)
        if isinstance(value, _Right) or getattr(value, "requires_grad", False):
            found[name] = value
        object.__setattr__(self, name, value)

    def named_parameters(self, prefix=""):
        for name, value in self.__dict__.get("found", {}).items():
            if isinstance(value, _Right):
                yield from value.named_parameters(prefix + name + ".")
            else:
                yield prefix + name, value

    def __call__(self, *inputs):
        return self.forward(*inputs)


@wrong("Module", says="The attribute is gone")
class OnlyNotes(_Right):
    def __setattr__(self, name, value):
        if isinstance(value, _Right) or getattr(value, "requires_grad", False):
            self.__dict__.setdefault("found", {})[name] = value


@wrong("Module", says="is data, not a parameter")
class EveryTensor(_Right):
    def __setattr__(self, name, value):
        if isinstance(value, (_Right, torch.Tensor)):
            self.__dict__.setdefault("found", {})[name] = value
        object.__setattr__(self, name, value)


@wrong("Module", says="not to the class")
class OneForAll(_Right):
    registry = {}

    def __setattr__(self, name, value):
        type(self).__mro__[-3].registry.pop(name, None)
        if isinstance(value, _Right) or getattr(value, "requires_grad", False):
            OneForAll.registry[name] = value
        else:
            OneForAll.registry.pop(name, None)
        object.__setattr__(self, name, value)

    def named_parameters(self, prefix=""):
        for name, value in OneForAll.registry.items():
            if not isinstance(value, _Right):
                yield prefix + name, value


@wrong("Module", says="are not asked")
class NotDown(_Right):
    def named_parameters(self, prefix=""):
        for name, value in self.__dict__.get("found", {}).items():
            if not isinstance(value, _Right):
                yield prefix + name, value


@wrong("Module", says="Names meet")
class NoPrefix(_Right):
    def named_parameters(self, prefix=""):
        for name, value in self.__dict__.get("found", {}).items():
            if isinstance(value, _Right):
                yield from value.named_parameters()
            else:
                yield name, value


@wrong("Module", says="whole path")
class OneLevelOfPrefix(_Right):
    def named_parameters(self, prefix=""):
        for name, value in self.__dict__.get("found", {}).items():
            if isinstance(value, _Right):
                yield from value.named_parameters(name + ".")
            else:
                yield prefix + name, value


@wrong("Module", says="train a ghost")
class FirstOneStays(_Right):
    def __setattr__(self, name, value):
        found = self.__dict__.setdefault("found", {})
        if isinstance(value, _Right) or getattr(value, "requires_grad", False):
            found.setdefault(name, value)
        object.__setattr__(self, name, value)


@wrong("Module", says="drop the name")
class NeverForgets(_Right):
    def __setattr__(self, name, value):
        found = self.__dict__.setdefault("found", {})
        if isinstance(value, _Right) or getattr(value, "requires_grad", False):
            found[name] = value
        object.__setattr__(self, name, value)


@wrong("Module", says="returns what that returns")
class CallsButForgets(_Right):
    def __call__(self, *inputs):
        self.forward(*inputs)
        return inputs[0]


@wrong("Module", says="keep the notes in self.__dict__")
class NotesWithASelf(_Right):
    def __setattr__(self, name, value):
        self.found = {**getattr(self, "found", {}), name: value}


@wrong("Module", says="never calls super().__init__()")
class RegistryInInit(_Right):
    def __init__(self):
        self.__dict__["notes"] = {}

    def __setattr__(self, name, value):
        self.__dict__["notes"].pop(name, None)
        super().__setattr__(name, value)


class _TwoNotes(_Right):
    def __setattr__(self, name, value):
        tensors = self.__dict__.setdefault("tensors", {})
        modules = self.__dict__.setdefault("modules", {})
        self.forget(name, value, tensors, modules)
        if isinstance(value, _Right):
            modules[name] = value
        elif getattr(value, "requires_grad", False):
            tensors[name] = value
        object.__setattr__(self, name, value)

    def named_parameters(self, prefix=""):
        for name, value in self.__dict__.get("tensors", {}).items():
            yield prefix + name, value
        for name, value in self.__dict__.get("modules", {}).items():
            yield from value.named_parameters(prefix + name + ".")


@wrong("Module", says="The tensor is still noted")
class KeepsTheTensor(_TwoNotes):
    def forget(self, name, value, tensors, modules):
        modules.pop(name, None)
        if not isinstance(value, _Right):
            tensors.pop(name, None)


@wrong("Module", says="The Module is still noted")
class KeepsTheModule(_TwoNotes):
    def forget(self, name, value, tensors, modules):
        tensors.pop(name, None)


@wrong("Module", says="hands on all its inputs")
class OneInput(_Right):
    def __call__(self, *inputs):
        return self.forward(inputs[0])


wrong.value("Module", _Right(), says="should be a class")


# ---- Linear ----


class _Layer(_Right):
    def __init__(self, D, H):
        bound = D**-0.5
        self.weight = torch.empty(H, D).uniform_(-bound, bound).requires_grad_()
        self.bias = torch.empty(H).uniform_(-bound, bound).requires_grad_()

    def forward(self, X):
        return X @ self.weight.T + self.bias


@wrong("Linear", says="The weight is turned")
class Turned(_Layer):
    def __init__(self, D, H):
        super().__init__(H, D)
        self.bias = torch.zeros(H, requires_grad=True)

    def forward(self, X):
        return X @ self.weight + self.bias


@wrong("Linear", says="not a leaf")
class NoLeaf(_Layer):
    def __init__(self, D, H):
        super().__init__(D, H)
        self.weight = (2 * torch.rand(H, D, requires_grad=True) - 1) * D**-0.5


@wrong("Linear", says="does not ask for gradients")
class NoGradients(_Layer):
    def __init__(self, D, H):
        super().__init__(D, H)
        self.weight = self.weight.detach()


@wrong("Linear", says="Where is the bias?")
class ForgetsBias(_Layer):
    def forward(self, X):
        return X @ self.weight.T


@wrong("Linear", says="stay equal for ever")
class AllZero(_Layer):
    def __init__(self, D, H):
        super().__init__(D, H)
        self.weight = torch.zeros(H, D, requires_grad=True)


@wrong("Linear", says="spread is not that")
class TooWide(_Layer):
    def __init__(self, D, H):
        super().__init__(D, H)
        self.weight = torch.randn(H, D).requires_grad_()


@wrong("Linear", says="has a tensor self.bias")
class NoBias(_Layer):
    def __init__(self, D, H):
        self.weight = torch.randn(H, D).requires_grad_()


@wrong("Linear", says="raised")
class MatrixOnly(_Layer):
    def forward(self, X):
        return torch.addmm(self.bias, X, self.weight.T)


@wrong("Linear", says="The bias's spread")
class ZeroBias(_Layer):
    def __init__(self, D, H):
        super().__init__(D, H)
        self.bias = torch.zeros(H, requires_grad=True)


@wrong("Linear", says="No gradient reaches self.weight")
class PastTheTape(_Layer):
    def forward(self, X):
        return X @ self.weight.data.T + self.bias


@wrong("Linear", says="No gradient reaches self.bias")
class BiasPastTheTape(_Layer):
    def forward(self, X):
        return X @ self.weight.T + self.bias.detach()


# ---- Rows ----


class _Pairs(torch.utils.data.Dataset):
    def __init__(self, X, y):
        if len(X) != len(y):
            raise ValueError("lengths")
        self.X, self.y = torch.as_tensor(X).float(), torch.as_tensor(y)

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], self.y[i]


@wrong("Rows", says="count the rows")
class CountsFeatures(_Pairs):
    def __len__(self):
        return self.X.shape[1]


@wrong("Rows", says="return the pair")
class RowOnly(_Pairs):
    def __getitem__(self, i):
        return self.X[i]


@wrong("Rows", says="rows are the first axis")
class Column(_Pairs):
    def __getitem__(self, i):
        return self.X[:, i], self.y[i]


@wrong("Rows", says="not a float32 tensor")
class StaysDouble(_Pairs):
    def __init__(self, X, y):
        super().__init__(X, y)
        self.X = torch.as_tensor(X)


@wrong("Rows", says="wants int64")
class FloatLabels(_Pairs):
    def __init__(self, X, y):
        super().__init__(X, y)
        self.y = self.y.float()


@wrong("Rows", says="One label a row")
class TakesAnything(_Pairs):
    def __init__(self, X, y):
        self.X, self.y = torch.as_tensor(X).float(), torch.as_tensor(y)


# ---- epoch_order ----


def _own(seed):
    return torch.Generator().manual_seed(seed)


@wrong("epoch_order", says="not shuffled")
def in_order(N, seed, epoch):
    return torch.arange(N)


@wrong("epoch_order", says="Every row once")
def with_replacement(N, seed, epoch):
    return torch.randint(N, (N,), generator=_own(1000 * seed + epoch))


@wrong("epoch_order", says="depends on the global generator")
def from_the_global_one(N, seed, epoch):
    return torch.randperm(N)


@wrong("epoch_order", says="changes the global random state")
def seeds_the_global_one(N, seed, epoch):
    torch.manual_seed(1_000_003 * seed + epoch)
    return torch.randperm(N)


@wrong("epoch_order", says="all have one order")
def forgets_epoch(N, seed, epoch):
    return torch.randperm(N, generator=_own(seed))


@wrong("epoch_order", says="seed is not used")
def forgets_seed(N, seed, epoch):
    return torch.randperm(N, generator=_own(epoch))


@wrong("epoch_order", says="mixes them up")
def adds_them(N, seed, epoch):
    return torch.randperm(N, generator=_own(seed + epoch))


@wrong("epoch_order", says="It returns a tensor")
def a_list_of_rows(N, seed, epoch):
    return torch.randperm(N, generator=_own(1_000_003 * seed + epoch)).tolist()


@wrong("epoch_order", says="is too small")
def ten_epochs(N, seed, epoch):
    return torch.randperm(N, generator=_own(10 * seed + epoch))


@wrong("epoch_order", says="is too small")
def a_hundred_epochs(N, seed, epoch):
    return torch.randperm(N, generator=_own(100 * seed + epoch))


@wrong("epoch_order", says="is too small")
def a_thousand_seeds(N, seed, epoch):
    return torch.randperm(N, generator=_own(seed + 1000 * epoch))


@wrong("epoch_order", says="changes NumPy's global random state")
def seeds_numpy(N, seed, epoch):
    np.random.seed((1_000_003 * seed + epoch) % 2**32)
    return torch.as_tensor(np.random.permutation(N))


@wrong("epoch_order", says="changes Python's global random state")
def seeds_python(N, seed, epoch):
    random.seed(1_000_003 * seed + epoch)
    return torch.tensor(random.sample(range(N), N))


# ---- train_step ----


@wrong("train_step", says="old gradients were added")
def no_zero_grad(model, X, y, optimizer):
    model.train()
    loss = F.cross_entropy(model(X), y)
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("train_step", says="backward comes before step")
def step_first(model, X, y, optimizer):
    model.train()
    loss = F.cross_entropy(model(X), y)
    optimizer.step()
    optimizer.zero_grad()
    loss.backward()
    return loss.item()


@wrong("train_step", says="have not moved")
def erased(model, X, y, optimizer):
    model.train()
    loss = F.cross_entropy(model(X), y)
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss.item()


@wrong("train_step", says="loss.item() is a number")
def returns_the_graph(model, X, y, optimizer):
    model.train()
    loss = F.cross_entropy(model(X), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


@wrong("train_step", says="loss after the step")
def looks_again(model, X, y, optimizer):
    model.train()
    returns_the_graph(model, X, y, optimizer)
    return F.cross_entropy(model(X), y).item()


@wrong("train_step", says="model.train() first")
def any_mode(model, X, y, optimizer):
    loss = F.cross_entropy(model(X), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("train_step", says="is a `return` missing?")
def says_nothing(model, X, y, optimizer):
    returns_the_graph(model, X, y, optimizer)


@wrong("train_step", says="comes too late")
def mode_after_forward(model, X, y, optimizer):
    loss = F.cross_entropy(model(X), y)
    model.train()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


# ---- evaluate ----


def _score(model, batches):
    total = right = rows = 0
    for X, y in batches:
        logits = model(X)
        rows += len(X)
        total += F.cross_entropy(logits, y).item() * len(X)
        right += (logits.argmax(1) == y).sum().item()
    return total / rows, right / rows


def _careful(score):
    def evaluate(model, batches):
        was = model.training
        model.eval()
        with torch.inference_mode():
            result = score(model, batches)
        model.train(was)
        return result

    return evaluate


def _evaluate_wrong(says):
    def keep(score):
        wrong.add("evaluate", score.__name__, _careful(score), says)

    return keep


@_evaluate_wrong(says="mean of batch means")
def mean_of_means(model, batches):
    scores = [_score(model, [batch]) for batch in batches]
    return tuple(sum(s) / len(s) for s in zip(*scores))


@_evaluate_wrong(says="in per cent")
def per_cent(model, batches):
    loss, accuracy = _score(model, batches)
    return loss, 100 * accuracy


@_evaluate_wrong(says="sum over the rows")
def forgets_to_divide(model, batches):
    batches = list(batches)
    loss, accuracy = _score(model, batches)
    return loss * sum(len(X) for X, _ in batches), accuracy


@_evaluate_wrong(says="returns two numbers")
def accuracy_only(model, batches):
    return _score(model, batches)[1]


@_evaluate_wrong(says="last batch's loss")
def last_only(model, batches):
    return _score(model, list(batches)[-1:])


@_evaluate_wrong(says="share of wrong answers")
def error_rate(model, batches):
    loss, accuracy = _score(model, batches)
    return loss, 1 - accuracy


@wrong("evaluate", says="dropout changes what it says")
def in_training_mode(model, batches):
    with torch.no_grad():
        return _score(model, batches)


@wrong("evaluate", says="A graph was recorded")
def with_a_graph(model, batches):
    was = model.training
    model.eval()
    result = _score(model, batches)
    model.train(was)
    return result


@wrong("evaluate", says="left in evaluation mode")
def stays_in_eval(model, batches):
    model.eval()
    with torch.no_grad():
        return _score(model, batches)


@wrong("evaluate", says="leaves in training mode")
def always_trains(model, batches):
    model.eval()
    with torch.no_grad():
        result = _score(model, batches)
    model.train()
    return result


@_evaluate_wrong(says="This is rounded")
def rounds_the_accuracy(model, batches):
    loss, accuracy = _score(model, batches)
    return loss, round(accuracy, 2)


@_evaluate_wrong(says="second loop over batches was empty")
def reads_twice(model, batches):
    rows = sum(len(X) for X, _ in batches)
    total = right = 0
    for X, y in batches:
        loss, accuracy = _score(model, [(X, y)])
        total, right = total + loss * len(X), right + accuracy * len(X)
    return total / rows, right / rows


@wrong("evaluate", says="read it before eval()")
def reads_the_mode_late(model, batches):
    model.eval()
    was = model.training
    with torch.no_grad():
        result = _score(model, batches)
    model.train(was)
    return result


# ---- pick_device ----


@wrong("pick_device", says="torch.device(word) is a device")
def a_word(asked=None):
    return asked or ("cuda" if torch.cuda.is_available() else "cpu")


@wrong("pick_device", says="ask for MPS too")
def no_apple(asked=None):
    return torch.device(asked or ("cuda" if torch.cuda.is_available() else "cpu"))


@wrong("pick_device", says="first of cuda, mps and cpu")
def always_the_cpu(asked=None):
    return torch.device(asked or "cpu")


def _best():
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@wrong("pick_device", says="gets it, also if there is a faster one")
def knows_better(asked=None):
    return _best()


@wrong("pick_device", says="raise ValueError now")
def believes_everything(asked=None):
    return torch.device(asked) if asked else _best()


@wrong("pick_device", says="silent walk on the CPU")
def falls_back(asked=None):
    if asked is None:
        return _best()
    return torch.device(asked if asked == _best().type else "cpu")


def _there(kind):
    return {"cuda": torch.cuda.is_available(), "cpu": True}.get(
        kind, torch.backends.mps.is_available()
    )


@wrong("pick_device", says="number is lost")
def forgets_the_number(asked=None):
    if asked is None:
        return _best()
    if not _there(torch.device(asked).type):
        raise ValueError(asked)
    return torch.device(torch.device(asked).type)


@wrong("pick_device", says="may come with its number")
def refuses_the_number(asked=None):
    if asked not in (None, "cuda", "mps", "cpu") or asked and not _there(asked):
        raise ValueError(asked)
    return torch.device(asked) if asked else _best()


# ---- save_checkpoint ----


@wrong("save_checkpoint", says="you write into the file itself")
def straight(path, state):
    torch.save(state, path)


@wrong("save_checkpoint", says="The old file was removed")
def removes_then_writes(path, state):
    path = Path(path)
    if path.exists():
        path.unlink()
    part = path.with_name(path.name + ".part")
    torch.save(state, part)
    os.replace(part, path)


@wrong("save_checkpoint", says="power cut")
def no_fsync(path, state):
    part = Path(path).with_name("run.pt.part")
    torch.save(state, part)
    os.replace(part, path)


def _write(path, state):
    with open(path, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


@wrong("save_checkpoint", says="removed first")
def leaves_a_gap(path, state):
    part = Path(path).with_name("run.pt.part")
    _write(part, state)
    if os.path.exists(path):
        os.remove(path)
    os.rename(part, path)


@wrong("save_checkpoint", says="left behind")
def a_copy_stays(path, state):
    part = Path(path).with_name(f"step{state['step']}.part")
    _write(part, state)
    shutil.copyfile(part, f"{path}.part")
    os.replace(f"{path}.part", path)


@wrong("save_checkpoint", says="another folder")
def elsewhere(path, state):
    part = Path(path).parent.parent / f"{Path(path).parent.name}.part"
    try:
        _write(part, state)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@wrong("save_checkpoint", says="in one step")
def copies(path, state):
    part = Path(path).with_name("run.pt.part")
    _write(part, state)
    shutil.copyfile(part, path)


@wrong("save_checkpoint", says="error was swallowed")
def hushes(path, state):
    part = Path(path).with_name("run.pt.part")
    try:
        _write(part, state)
        os.replace(part, path)
    except OSError:
        pass


@wrong("save_checkpoint", says="no file at `path`")
def forgets_to_rename(path, state):
    _write(Path(path).with_name("run.pt.part"), state)


def _part(path):
    return Path(path).with_name(Path(path).name + ".part")


@wrong("save_checkpoint", says="file.flush() comes first")
def forces_before_writing(path, state):
    with open(_part(path), "wb") as file:
        os.fsync(file.fileno())
        torch.save(state, file)
    os.replace(_part(path), path)


@wrong("save_checkpoint", says="file.flush() comes first")
def bytes_in_the_buffer(path, state):
    memory = io.BytesIO()
    torch.save(state, memory)
    with open(_part(path), "wb") as file:
        file.write(memory.getvalue())
        os.fsync(file.fileno())
        file.flush()
    os.replace(_part(path), path)


@wrong("save_checkpoint", says="get the same part")
def one_part_for_all(path, state):
    part = Path(path).with_suffix(".part")
    _write(part, state)
    os.replace(part, path)


@wrong("save_checkpoint", says="not in `finally`")
def replaces_in_any_case(path, state):
    try:
        _write(_part(path), state)
    finally:
        os.replace(_part(path), path)


# ---- snapshot ----


def _snapshot(model, optimizer, scheduler, epoch, done):
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "random": torch.get_rng_state(),
        "at": {"epoch": epoch, "done": done},
    }


def _without(key, says):
    def snapshot(*run):
        state = _snapshot(*run)
        del state[key]
        return state

    wrong.add("snapshot", f"without_{key}", snapshot, says)


_without("model", "The weights are missing")
_without("optimizer", "moments are missing")
_without("scheduler", "rate would start from step 0")
_without("random", "dropout would drop other numbers")
_without("at", "The place is missing")


@wrong("snapshot", says="objects, not their state")
def whole_objects(model, optimizer, scheduler, epoch, done):
    state = _snapshot(model, optimizer, scheduler, epoch, done)
    return {**state, "model": model, "optimizer": optimizer}


@wrong("snapshot", says="where the numbers began")
def the_seed(*run):
    return {**_snapshot(*run), "random": torch.initial_seed()}


@wrong("snapshot", says="epoch 2, 3 batches done")
def epoch_only(model, optimizer, scheduler, epoch, done):
    state = _snapshot(model, optimizer, scheduler, epoch, done)
    return {**state, "at": {"epoch": epoch, "done": 0}}


@wrong("snapshot", says="leaves the unbroken one's path")
def seeds_anew(*run):
    state = _snapshot(*run)
    return {**state, "random": torch.Generator().manual_seed(0).get_state()}


@wrong("snapshot", says="is not the optimizer's state_dict()")
def parameters_only(model, optimizer, scheduler, epoch, done):
    state = _snapshot(model, optimizer, scheduler, epoch, done)
    return {**state, "optimizer": {"lr": 0.1}}


# ---- read_safetensors ----


def _read(path, order="little", skip=8, note=False, shape=True, dtype=None, after=True):
    raw = bytearray(Path(path).read_bytes())
    n = int.from_bytes(raw[:8], order)
    header = json.loads(raw[8 : 8 + n])
    if not note:
        header.pop("__metadata__", None)
    tensors, place = {}, (skip + n if after else 0)
    for name, entry in header.items():
        if name == "__metadata__":
            tensors[name] = entry
            continue
        begin, end = entry["data_offsets"]
        data = raw[place + begin : place + end]
        t = torch.frombuffer(data, dtype=dtype or KINDS[entry["dtype"]])
        tensors[name] = t.reshape(entry["shape"]) if shape else t
    return tensors


@wrong("read_safetensors", says="smallest byte first")
def big_endian(path):
    return _read(path, order="big")


@wrong("read_safetensors", says="end of the header")
def counts_from_the_start(path):
    return _read(path, after=False)


@wrong("read_safetensors", says="end of the header")
def forgets_the_eight(path):
    return _read(path, skip=0)


@wrong("read_safetensors", says="__metadata__ is a note")
def keeps_the_note(path):
    return _read(path, note=True)


@wrong("read_safetensors", says="the shape is not")
def flat(path):
    return _read(path, shape=False)


@wrong("read_safetensors", says="dtype stands in the header")
def all_float(path):
    return {name: t.float() for name, t in _read(path).items()}


@wrong("read_safetensors", says="end of the header")
def trusts_the_order(path):
    raw, tensors = bytearray(Path(path).read_bytes()), {}
    n = int.from_bytes(raw[:8], "little")
    place = 8 + n
    for name, entry in json.loads(raw[8 : 8 + n]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            data = raw[place : place + end - begin]
            place += end - begin
            tensors[name] = torch.frombuffer(data, dtype=KINDS[entry["dtype"]])
            tensors[name] = tensors[name].reshape(entry["shape"])
    return tensors


@wrong("read_safetensors", says="a dict {name: tensor}")
def a_list(path):
    return list(_read(path).items())


@wrong("read_safetensors", says="smallest byte first")
def one_byte_of_length(path):
    raw = Path(path).read_bytes()
    return json.loads(raw[8 : 8 + raw[0]])


@wrong("read_safetensors", says="without any axis")
def needs_an_axis(path):
    return {
        name: t.reshape(*t.shape[:1]) if t.ndim < 2 else t
        for name, t in _read(path).items()
    }


@wrong("read_safetensors", says="without any axis")
def an_axis_of_one(path):
    return {name: torch.atleast_1d(t) for name, t in _read(path).items()}
