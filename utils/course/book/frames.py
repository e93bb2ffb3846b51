"""A lab drawn ahead: a frame for every step of its controls, kept until the lab changes.

Runs inside the notebook's kernel, where the data of a lab live: `plots.explore` calls
`keep` when COURSE_LABS names it. COURSE_FRAMES is the folder of the chapter.
A lab says which steps it wants by `draw.book = {control: values}`, else `steps` chooses.
"""

import contextlib
import hashlib
import inspect
import io
import itertools
import json
import os
import pickle
import random
import re
import shutil
import sys
import traceback
import types
from pathlib import Path

MOST, BYTES = 80, 2_000_000  # frames of one lab
COLOURS = 64  # of a frame: a chart has few, and a palette halves its bytes


def keep(draw, knobs):
    """Draw a lab's frames into its folder, unless those there are of the same lab.

    What goes wrong is written there too: the notebook that runs must not notice.
    """
    folder = Path(os.environ["COURSE_FRAMES"]) / cell_name(_cell())
    try:
        _keep(folder, draw, knobs)
    except Exception:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")


def _keep(folder, draw, knobs):
    controls = [control(name, knob, draw) for name, knob in knobs.items()]
    key = fingerprint(draw, controls)
    with contextlib.suppress(OSError, ValueError, KeyError):
        if json.loads((folder / "lab.json").read_text(encoding="utf-8"))["key"] == key:
            return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with _nothing_moved():
        lab = {"key": key, **drawn(draw, controls, folder)}
    text = json.dumps(lab, ensure_ascii=False, indent=0)
    (folder / "lab.json").write_text(text + "\n", encoding="utf-8", newline="\n")


def cell_name(source):
    "The folder of the lab that this cell makes."
    return hashlib.sha256(source.strip().encode()).hexdigest()[:12]


def _cell():
    from IPython import get_ipython

    return get_ipython().user_ns["In"][-1]


# ---- the steps of the controls ----


def control(name, knob, draw):
    "{name, label, kind, values, start}: a control with every value that it can take."
    values, labels = _values(knob)
    wanted = getattr(draw, "book", {}).get(name)
    if wanted is not None:
        values = labels = list(wanted)
    if knob.value not in values:
        values, labels = [knob.value, *values], [knob.value, *labels]
    kind = "check" if isinstance(knob.value, bool) else "menu"
    if hasattr(knob, "min") and len(values) > 1:
        kind = "slider"
    return {
        "name": name, "label": knob.description or name, "kind": kind, "values": values,
        "labels": [_label(label) for label in labels],
        "start": values.index(knob.value), "fixed": wanted is not None,
    }  # fmt: skip


def _values(knob):
    if hasattr(knob, "options"):
        pairs = [o if isinstance(o, tuple) else (o, o) for o in _options(knob)]
        return [value for _, value in pairs], [label for label, _ in pairs]
    if isinstance(knob.value, bool):
        return [False, True], ["no", "yes"]
    if hasattr(knob, "min") and hasattr(knob, "step"):
        low, high, step = knob.min, knob.max, knob.step or 1
        if hasattr(knob, "base"):  # a slider of powers
            low, high = 1.0 * low, 1.0 * high
        count = round((high - low) / step)
        values = [low + i * step for i in range(count + 1)]
        if hasattr(knob, "base"):
            values = [knob.base**v for v in values]
        near = min(values, key=lambda v: abs(v - knob.value))
        values = [knob.value if v == near else v for v in values]
        if not isinstance(knob.value, int):
            values = [v if v == knob.value else round(v, 10) for v in values]
        return values, values
    return [knob.value], [knob.value]  # free text: five lines of it come from draw.book


def _options(knob):
    options = knob.options
    return options.items() if hasattr(options, "items") else options


def _label(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def steps(controls, most=MOST):
    """How many values each control gets, so that there are at most `most` frames.

    Each begins with two; the one with the largest gap between its steps gets the next.
    """
    counts = [
        len(c["values"]) if c["fixed"] else min(2, len(c["values"])) for c in controls
    ]
    while True:
        frames = 1
        for count in counts:
            frames *= count
        open_ = [
            i for i, c in enumerate(controls)
            if counts[i] < len(c["values"]) and frames // counts[i] * (counts[i] + 1) <= most
        ]  # fmt: skip
        if not open_:
            return counts
        # a menu's words are worth more than a slider's half steps
        counts[
            min(open_, key=lambda i: (counts[i] - (controls[i]["kind"] == "menu"), i))
        ] += 1


def thin(found, count):
    "The control with `count` of its values: evenly spread, the start among them."
    values, start = found["values"], found["start"]
    if count >= len(values):
        return found
    last = len(values) - 1
    at = [round(i * last / max(count - 1, 1)) for i in range(count)]
    if start not in at:
        inner = at[1:-1] if count > 2 else at
        at[at.index(min(inner, key=lambda i: abs(i - start)))] = start
    at = sorted(set(at))
    kept = {k: [found[k][i] for i in at] for k in ("values", "labels")}
    return {**found, **kept, "start": at.index(start)}


# ---- drawing ----


def drawn(draw, controls, folder):
    "Draw every frame into the folder: {controls, start, says, files}; equal ones once."
    controls = [thin(c, n) for c, n in zip(controls, steps(controls))]
    says, files = [], []
    for values in itertools.product(*(c["values"] for c in controls)):
        fig, sentence = draw(**dict(zip((c["name"] for c in controls), values)))
        picture = webp(fig)
        name = hashlib.sha256(picture).hexdigest()[:10] + ".webp"
        if not (folder / name).exists():
            (folder / name).write_bytes(picture)
        says.append(sentence)
        files.append(name)
    kept = ("name", "label", "kind", "labels", "start")
    return {
        "controls": [{key: c[key] for key in kept} for c in controls],
        "says": says, "files": files,
    }  # fmt: skip


def webp(fig):
    "Figure -> bytes of a WebP with few colours, of the size that plots.show gives it."
    from PIL import Image

    from utils import plots

    image = Image.open(io.BytesIO(plots.png(fig))).convert("RGB")
    few = image.quantize(COLOURS, dither=Image.Dither.NONE).convert("RGB")
    buffer = io.BytesIO()
    few.save(buffer, "WEBP", lossless=True, quality=60, method=4)
    return buffer.getvalue()


@contextlib.contextmanager
def _nothing_moved():
    "Leave every random generator as it was: the chapter goes on as if nothing ran."
    import numpy as np

    torch = sys.modules.get("torch")
    before = random.getstate(), np.random.get_state()
    seed = torch and torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        if torch:
            torch.set_rng_state(seed)


# ---- is it the same lab? ----

ADDRESS = re.compile(" at 0x[0-9a-f]+")


def fingerprint(draw, controls):
    "A hash of what a lab draws: its code, all code of utils/ behind it, and its data."
    digest, seen = hashlib.sha256(), set()
    shape = [[c["name"], c["values"], c["start"]] for c in controls]
    digest.update(repr([shape, MOST, COLOURS]).encode())
    _feed(digest, draw, seen)
    return digest.hexdigest()[:16]


def _feed(digest, value, seen):
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, types.ModuleType):
        if value.__name__.split(".")[0] == "utils" and value.__file__:
            digest.update(Path(value.__file__).read_bytes())
            for part in vars(value).values():
                if isinstance(part, types.ModuleType) or hasattr(part, "__module__"):
                    _feed(digest, part, seen)
    elif isinstance(value, types.FunctionType):
        _feed_function(digest, value, seen)
    elif isinstance(value, type):
        _feed(digest, sys.modules.get(value.__module__), seen)
    elif isinstance(value, dict):
        for key, part in value.items():
            digest.update(repr(key).encode())
            _feed(digest, part, seen)
    elif isinstance(value, (list, tuple)):
        for part in value:
            _feed(digest, part, seen)
    elif not hasattr(value, "__module__") or hasattr(value, "dtype"):
        digest.update(_bytes(value))
    else:
        digest.update(type(value).__name__.encode())
        _feed(digest, getattr(value, "__dict__", None), seen)


def _feed_function(digest, function, seen):
    module = sys.modules.get(function.__module__)
    code = inspect.unwrap(function).__code__
    if function.__module__ == "__main__":  # written in a cell: what it names is data
        digest.update(code.co_code + ADDRESS.sub("", repr(code.co_consts)).encode())
        for name in code.co_names:
            _feed(digest, function.__globals__.get(name), seen)
    elif function.__module__ and function.__module__.split(".")[0] == "utils":
        _feed(digest, module, seen)
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # an empty cell
            _feed(digest, cell.cell_contents, seen)
    _feed(digest, function.__defaults__, seen)


def _bytes(value):
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if hasattr(value, "tobytes"):
        return value.tobytes()
    try:
        return pickle.dumps(value)
    except Exception:
        return type(value).__name__.encode()
