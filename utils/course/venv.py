"""The course's own packages, .venv: where it lies and what state it is in.

Standard library only, and an old Python must be able to load it.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys

from utils.course import homes
from utils.course.packages import everything, models, read, wrong_pins
from utils.files import ROOT

# In .venv, and kept when it is emptied:
OURS = {"start.lock", "start.log", "unfinished", ".home"}


def venv_of(root):
    """The folder of the course's own packages."""
    return root / ".venv"


def python_of(root):
    """The Python inside .venv, whether it is there or not."""
    return venv_of(root) / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def stamp_of(wanted):
    """A fingerprint of the list, kept in .venv once all of it is installed."""
    return hashlib.sha256("\n".join(wanted).encode()).hexdigest()


def stamps(root, lists=()):
    """{name of a stamp in .venv: what it must say} for environment.yml and the lists."""
    found = {"installed-for": stamp_of(everything(root) + models(root))}
    for name in lists:
        found[f"installed-for-{name}"] = stamp_of(everything(root, [name]))
    return found


def child_env(root, here=False):
    """The environment of every process that start.py starts."""
    env = dict(os.environ, JUPYTER_PREFER_ENV_PATH="1")
    env.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not here:
        env.pop("PYTHONPATH", None)
        env.pop("PYTHONHOME", None)
        env["VIRTUAL_ENV"] = str(venv_of(root))
        env["PATH"] = str(python_of(root).parent) + os.pathsep + env.get("PATH", "")
    homes.stand_in(env, root)
    return env


def probe(root, lists=()):
    """Ask .venv's Python: 0 all pins are there, 3 some are not, else it is broken."""
    code = (
        "import sys; from utils.course import venv; "
        "sys.exit(venv.answer_probe(sys.argv[1:]))"
    )
    try:
        return subprocess.call(
            [str(python_of(root)), "-c", code] + list(lists),
            cwd=str(root),
            env=child_env(root),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 1


def answer_probe(lists=()):
    """What probe asks, answered inside .venv."""
    in_venv = sys.prefix != sys.base_prefix
    if not in_venv or importlib.util.find_spec("pip") is None:
        return 1
    return 3 if wrong_pins(ROOT, lists) else 0


def state(root, lists=()):
    """'missing', 'unfinished', 'broken', 'changed' or 'ready'."""
    venv = venv_of(root)
    if not venv.is_dir() or not any(p.name not in OURS for p in venv.iterdir()):
        return "missing"
    if (venv / "unfinished").exists():
        return "unfinished"
    found = probe(root, lists)
    if found not in (0, 3):
        return "broken"
    stamped = all(
        read(venv / name) == stamp for name, stamp in stamps(root, lists).items()
    )
    return "ready" if stamped and found == 0 else "changed"
