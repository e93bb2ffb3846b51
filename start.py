#!/usr/bin/env python3
"""Open the course, or run its tests; only Python has to be there first.

Both set up .venv beside this file from the pip section of environment.yml, once:
utils/course/setup.py, which is loaded only where the running Python will do.
Standard library only. It must load on an old Python, even on Python 2, to say which
ones will do: no f-strings here.
"""

import os
import shutil
import sys

if sys.hexversion < 0x03060000:  # what it imports further down would not load
    sys.exit(
        "The course needs Python 3.10 to 3.14; this is Python "
        + sys.version.split()[0]
        + ", too old. Try: "
        + ("py -3.13 start.py" if os.name == "nt" else "python3 start.py")
    )

import importlib.util
import json
import re
import signal
import subprocess
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # -P and -I leave it out
try:
    from utils.course.sentences import (
        Problem,
        dotted,
        explain_os,
        get_python,
        say,
        start_py,
    )
except ImportError:
    sys.exit("start.py does not find utils/ beside it: fetch the course again.")

ROOT = Path(__file__).resolve().parent
OLDEST, NEWEST, ADVISED = (3, 10), (3, 14), (3, 13)
COMMANDS = {
    "test": ("utils.course.author", ["test"]),
    "author": ("utils.course.author", []),
    "bench": ("utils.bench", []),
    "measure": ("utils.bench.measure", []),
}
LISTS = {  # what a command needs beyond environment.yml: utils/course/NAME.txt
    "test": ("authors", "extras"),
    "author": ("authors", "extras"),
    "extras": ("extras",),
}
HELP = (
    ("", "open the course in JupyterLab"),
    ("test", "run the course's tests"),
    ("doctor", "print what a bug report needs"),
    ("extras", "add the packages that some chapters can use and none needs"),
    ("author ...", "for authors: run, derive and check chapters"),
    ("bench ...", "compare this course's code with the usual libraries"),
    ("measure ...", "record measurements of this machine"),
    ("help", "this text"),
)


def usage():
    """What `start.py help` says, as it is called on this system."""
    lines = [start_py(command).ljust(31) + " " + what for command, what in HELP]
    port = start_py("--no-browser --port 9999")
    return "\n".join(
        lines
        + [
            "",
            "--here uses the Python that runs start.py (conda, a hub's image), "
            "installs nothing.",
            "Options without a command go to JupyterLab: " + port,
            "",
        ]
    )


# Which Python


def answer(command):
    """What a program prints, or None when it cannot be run or fails."""
    try:
        said = subprocess.check_output(command, stderr=subprocess.DEVNULL, timeout=20)
        return said.decode("utf-8", "replace")
    except (OSError, subprocess.SubprocessError):
        return None


def launched():
    """The minor versions of Python 3 that Windows' launcher py lists (64 bits)."""
    said = answer(["py", "-0"]) or ""
    found = re.findall(r"^\s*-(?:V:)?3\.(\d+)(?:-64|-arm64)?(?=\s|$)", said, re.M)
    return [int(minor) for minor in found]


def other_python():
    """How a supported Python of this machine is called, or None."""
    minors = range(NEWEST[1], OLDEST[1] - 1, -1)
    listed = launched() if os.name == "nt" else []
    for minor in minors:
        if minor in listed:
            return "py -3." + str(minor)
    for minor in minors:
        name = "python3." + str(minor)
        if answer([name, "-c", ""]) is not None:
            return name
    return None


def check_python(version, here=False):
    """Refuse a Python that the course does not support."""
    too_old = version[:2] < OLDEST
    too_new = version[:2] > NEWEST and not here
    if too_old or too_new:
        other = other_python()
        needed = dotted(OLDEST) + " to " + dotted(NEWEST)
        raise Problem(
            "The course needs Python " + needed + "; this is Python "
            + dotted(version[:3]) + (", too old. " if too_old else ", too new. ")
            + ("Try: " + other + " start.py" if other else get_python(ADVISED))
        )  # fmt: skip


# Running


def run(command, root, here=False):
    """Run a command in the course's folder to its end; return its exit code."""
    from utils.course.venv import child_env

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
    from utils.course.packages import read
    from utils.course.venv import venv_of

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
    command = [
        str(python),
        "-m",
        "jupyterlab",
        "--ServerApp.root_dir=" + str(root),
        "--ServerApp.preferred_dir=" + str(root / "work"),
        # the rest of the course can be read there, and not be changed
        "--ServerApp.contents_manager_class=utils.course.contents.Contents",
        "--ServerApp.answer_yes=True",
    ]  # one Ctrl-C ends it
    if (root / "work" / "00_start_here.ipynb").exists():
        command.append("--LabApp.default_url=/lab/tree/work/00_start_here.ipynb")
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
    path = root.joinpath(*COMMANDS[command][0].split("."))
    if not (path / "__main__.py").exists():
        path = path.with_suffix(".py")
        if not path.exists():
            raise Problem(
                "There is no `" + command + "` here: " + str(path) + " is missing."
            )


def run_module(root, python, command, extra, here=False):
    """Run one of the course's own commands."""
    module, first = COMMANDS[command]
    return run([python, "-m", module] + first + list(extra), root, here)


def doctor(root, here=False):
    """Print what a bug report needs, with .venv's Python where that runs."""
    from utils.course.venv import probe, python_of

    works = not here and probe(root) in (0, 3)
    python = str(python_of(root)) if works else sys.executable
    command = [python, "-m", "utils.course.doctor"] + ["--here"] * here
    return run(command, root, here or not works)


def python_here(root, module, lists=()):
    """The running Python, if it has what the command needs."""
    from utils.course.packages import more, pinned, wrong

    if importlib.util.find_spec(module) is None:
        raise Problem(
            "This Python has no " + module + ": leave out --here, or install the "
            "packages of environment.yml in it."
        )
    for name in lists:
        lines = more(root, name)
        lost = [package for package, _, got in wrong(pinned(lines)) if not got]
        if lost:
            raise Problem(
                "This Python has no " + ", ".join(lost) + ": leave out --here, or "
                "run: pip install -r utils/course/" + name + ".txt"
            )
    return sys.executable


def add_extras(root, here=False):
    """Install what some chapters can use."""
    from utils.course.setup import prepare

    if here:
        python_here(root, "torch", LISTS["extras"])
    else:
        prepare(root, LISTS["extras"])
    say("The packages of utils/course/extras.txt are there.")
    return 0


def dispatch(argv, root):
    """Do what the command line asks; return the exit code."""
    here = "--here" in argv
    rest = [word for word in argv if word != "--here"]
    command = rest.pop(0) if rest and not rest[0].startswith("-") else "open"
    if command == "help" or (command == "open" and rest[:1] in (["-h"], ["--help"])):
        say(usage())
        return 0
    if command not in COMMANDS and command not in ("open", "doctor", "extras"):
        tell("start.py has no command `" + command + "`.\n\n" + usage())
        return 2
    if command == "doctor":
        return doctor(root, here)
    check_python(sys.version_info, here)
    if command == "extras":
        return add_extras(root, here)
    if command in COMMANDS:
        check_command(root, command)
    from utils.course.setup import prepare  # now that this Python will do

    lists = LISTS.get(command, ())
    if command == "author" and rest[:1] == ["book"] and not shutil.which("npm"):
        lists += ("book",)  # Node, which sets the formulas
    if here:
        needed = "jupyterlab" if command == "open" else "torch"
        python = python_here(root, needed, lists)
    else:
        python = prepare(root, lists)
    if command == "open":
        return open_course(root, python, rest, here)
    return run_module(root, python, command, rest, here)


def tell(text):
    """Print what is wrong, to stderr."""
    sys.stderr.write(str(text) + "\n")


def main(argv=None, root=ROOT):
    """Run start.py; every error a reader can meet is one sentence."""
    try:
        return dispatch(list(sys.argv[1:] if argv is None else argv), root)
    except Problem as problem:
        tell(problem)
        return 1
    except OSError as error:
        tell(explain_os(error, root))
        return 1
    except KeyboardInterrupt:
        tell("\nStopped; the next start goes on from here.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
