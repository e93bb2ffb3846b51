"""The course's engines beside a peer's: python3 start.py bench --peer DIR [--peer DIR2]

The project holds none of a peer's code: it is imported from DIR. Three styles are known:

  micrograd  an engine.py with a class Value: .data, .grad, +, *, relu, backward
  needle     CMU 10-414, hw1 to hw4: a package needle with Tensor, nn, optim; in a hw1
             with relu, matmul, broadcast_to and the softmax_loss of apps/simple_ml.py
  nanoGPT    a model.py with class GPTConfig: its recipe for a CPU beside chapter 09's
"""

import os
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from utils.bench import attention, backprop
from utils.bench.peers.imported import Peer, need
from utils.bench.peers.needle import needle
from utils.bench.ratio import Benchmark

SKIPPED = {"build", "node_modules", "site-packages", "__pycache__"}


def benchmarks(folder, taken=()):
    """The benchmarks of a peer's folder; one that cannot run is there and says why.

    taken: the names so far; a second folder of the same name is shown with its path.
    """
    shell = os.environ.get("PWD", ".")  # start.py changes to the course's folder
    path = Path(shell, Path(folder).expanduser()).resolve()
    twice = any(f"({path.name})" in name for name in taken)
    label, rows = str(path) if twice else path.name, []
    if not path.is_dir():
        return [_stopped(f"peer ({label})", f"there is no folder {path}")]
    for style, (fits, make) in STYLES.items():
        try:
            found = _shallowest(path, fits)
            if len(found) > 1:
                several = ", ".join(str(one.relative_to(path)) for one in found)
                raise ImportError(f"there are several ({several}): give one's folder")
            name = f"{style} ({label})"
            rows += _rows(*make(path, found[0], name)) if found else []
        except (ImportError, OSError) as error:
            rows.append(_stopped(f"{style} ({label})", error))
    missing = (
        f"{path} holds no engine.py with a class Value (micrograd's style), no package "
        "needle (python/needle or needle) and no model.py with a class GPTConfig (nanoGPT)"
    )
    return rows or [_stopped(f"peer ({label})", missing)]


def _stopped(name, why):
    def function():
        raise ImportError(why)

    return Benchmark(name, "", function, peer=True)


def _rows(makers, remark):
    "Benchmarks from {name: function -> Ratio}; the remark joins what their rows note."

    def noted(make):
        def function():
            ratio = make()
            return replace(ratio, note=f"{ratio.note}; {remark}")

        return function

    return [Benchmark(name, "", noted(make), True) for name, make in makers.items()]


def _shallowest(folder, fits, depth=5):
    "The paths that fit, from the first level at or below a folder that has any."
    level = [folder]
    for _ in range(depth):
        found = [path for path in level if fits(path)]
        if found:
            return found
        inside = [p for path in level if path.is_dir() for p in path.iterdir()]
        level = sorted(p for p in inside if p.name[0] != "." and p.name not in SKIPPED)
    return []


def _is_engine(path):
    named = path.name == "engine.py" and path.is_file()
    return named and "class Value" in path.read_text(encoding="utf-8", errors="ignore")


def _is_nanogpt(path):
    named = path.name == "model.py" and path.is_file()
    text = path.read_text(encoding="utf-8", errors="ignore") if named else ""
    return "class GPTConfig" in text


def _is_needle(path):
    modules = ("__init__.py", "autograd.py")
    return path.name == "needle" and any((path / name).exists() for name in modules)


def _micrograd(folder, place, name):
    "-> {row: function -> Ratio}, the peer's version."
    peer = Peer(folder, place)

    def load():
        Value = need(import_module(peer.name), "engine", "Value").Value
        x = need(Value(2.0), "Value", "data", "grad", "relu", "backward")
        (x * 3.0 + x * x).relu().backward()
        return Value

    Value = peer.inside(load)()

    def race(neuron, ours, **counts):
        theirs = peer.inside(backprop.Moons(Value).run)
        return backprop.race(neuron, ours, theirs, name, 1e-6, pairs=3, **counts)

    return {
        f"scalar engine over {name}":
            lambda: race(backprop.fused_neuron, "tape engine, one node a neuron,"),
        f"scalar engine, a node each operation, over {name}":
            lambda: race(backprop.plain_neuron, "tape engine, plain nodes,",
                         ours_steps=8),
    }, peer.version()  # fmt: skip


STYLES = {
    "micrograd": (_is_engine, _micrograd),
    "needle": (_is_needle, needle),
    "nanoGPT": (_is_nanogpt, attention.peer_rows),
}
