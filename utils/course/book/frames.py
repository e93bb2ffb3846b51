"""A lab drawn ahead: a frame for every step of its controls, kept until the lab changes.

Runs inside the notebook's kernel, where the data of a lab live: `plots.explore` calls
`keep` when COURSE_LABS names it. COURSE_FRAMES is the folder of the chapter.
"""

import contextlib
import hashlib
import io
import itertools
import json
import os
import random
import shutil
import sys
import traceback
from pathlib import Path

from utils.course.book import grid
from utils.course.book.fingerprint import fingerprint

BYTES = 2_000_000  # of the frames of one lab
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
    wanted = getattr(draw, "book", {})
    controls = [
        grid.control(name, knob, wanted.get(name)) for name, knob in knobs.items()
    ]
    controls = grid.spread(controls)
    key = fingerprint(draw, controls, COLOURS)
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


# ---- drawing ----


def drawn(draw, controls, folder):
    "Draw every frame into the folder: {controls, start, says, files}; equal ones once."
    says, files = [], []
    for values in itertools.product(*(c["values"] for c in controls)):
        fig, sentence = draw(**dict(zip((c["name"] for c in controls), values)))
        picture = webp(fig)
        name = hashlib.sha256(picture).hexdigest()[:10] + ".webp"
        if not (folder / name).exists():
            (folder / name).write_bytes(picture)
        says.append(sentence)
        files.append(name)
    kept = ("label", "kind", "labels", "start")
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
    "Leave random generators and open figures as they were, as if nothing had run."
    import matplotlib.pyplot as plt
    import numpy as np

    torch = sys.modules.get("torch")
    before = random.getstate(), np.random.get_state()
    seed, figures = torch and torch.get_rng_state(), set(plt.get_fignums())
    try:
        yield
    finally:
        for number in set(plt.get_fignums()) - figures:
            plt.close(number)
        random.setstate(before[0])
        np.random.set_state(before[1])
        if torch:
            torch.set_rng_state(seed)
