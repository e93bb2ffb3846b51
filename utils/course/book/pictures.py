"""README's pictures, taken anew from the running course: JupyterLab in a real browser."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from utils.files import ROOT

NAMES = ("chapter", "exercise", "lab")  # .github/NAME.png
TEST = (
    "tests/test_browser.py"  # a reader's first half hour, which takes them on its way
)


def command():
    "author pictures: run the browser's tests, keep their pictures; 0 where all came."
    with tempfile.TemporaryDirectory() as folder:
        environ = {
            **os.environ, "COURSE_SCREENSHOTS": folder, "COURSE_BROWSER": "required",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "pytest", TEST], cwd=ROOT, env=environ
        )
        if done.returncode:
            print(
                "The browser's tests did not pass: README's pictures stay as they are."
            )
            return 1
        for name in NAMES:
            keep(Path(folder) / f"{name}.png", ROOT / ".github" / f"{name}.png")
    return 0


def inside(size):
    "(left, top, right, bottom) of the notebook in JupyterLab's window of this size."
    wide, high = size
    return (291, 60, wide - 40, high - 32) if wide > 600 else (0, 0, wide, high)


def keep(shot, target):
    "The notebook of a screenshot, with 256 colours for its bytes' sake, where it changed."
    from PIL import Image

    with Image.open(shot) as full:
        few = (
            full.convert("RGB")
            .crop(inside(full.size))
            .quantize(256, dither=Image.Dither.NONE)
        )
    if target.exists():
        with Image.open(target) as before:
            same = before.size == few.size and (
                before.convert("RGB").tobytes() == few.convert("RGB").tobytes()
            )
        if same:
            return
    few.save(target, optimize=True)
    print(f"wrote {target.relative_to(ROOT)}")
