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


def keep(shot, target):
    "A screenshot with 256 colours, a third of the bytes, where it changed."
    from PIL import Image

    few = Image.open(shot).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    if target.exists():
        with Image.open(target) as before:
            same = before.size == few.size and (
                before.convert("RGB").tobytes() == few.convert("RGB").tobytes()
            )
        if same:
            return
    few.save(target, optimize=True)
    print(f"wrote {target.relative_to(ROOT)}")
