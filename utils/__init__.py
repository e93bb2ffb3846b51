"""Shared code of the course, in wings: CONTRIBUTING.md says what stands in which.

Standard library only, so that `start.py` can import `utils.course` before any package
is installed.
"""

import os
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

if "torch" not in sys.modules:  # spinning threads are slow on a busy machine
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

WINGS = ("built", "bench", "exercises", "practice", "course")
RENAMED = {"kernels": "built.int8"}


class _Moved(MetaPathFinder):
    "Tells a chapter from before the wings where its modules are, and where the new one."

    def find_spec(self, fullname, path=None, target=None):
        package, _, name = fullname.rpartition(".")
        if package != "utils" or (Path(__file__).parent / name).exists():
            return None
        homes = [RENAMED[name]] if name in RENAMED else [f"{w}.{name}" for w in WINGS]
        for home in homes:
            file = Path(__file__).parent.joinpath(*home.split(".")).with_suffix(".py")
            if file.exists():
                raise ModuleNotFoundError(
                    f"utils.{name} is now utils.{home}. This notebook is older than "
                    "that: the course's new version of it lies beside it, as "
                    "NAME.new.ipynb (python3 start.py puts it there)",
                    name=fullname,
                )
        return None


sys.meta_path.append(_Moved())


def __getattr__(name):
    "`from utils import optim`, as it once was called, says the same."
    if not name.startswith("_"):
        _Moved().find_spec(f"utils.{name}")
    raise AttributeError(f"module 'utils' has no attribute {name!r}")
