#!/usr/bin/env python3
"""Open the course, or run its tests; only Python has to be there first.

Both set up .venv beside this file from the pip section of environment.yml, once:
utils/course/setup.py, which is loaded only where the running Python will do.
Standard library only. It must load on an old Python, to say which ones will do.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # -P and -I leave it out
try:
    from utils.course.sentences import Problem, dotted, explain_os, say
except ImportError:
    sys.exit("start.py does not find utils/ beside it: fetch the course again.")

ROOT = Path(__file__).resolve().parent
OLDEST, NEWEST = (3, 10), (3, 13)
COMMANDS = {
    "test": ("utils.course.author", ["test"]),
    "author": ("utils.course.author", []),
    "bench": ("utils.bench", []),
    "measure": ("utils.bench.measure", []),
}
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


# Which Python


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
    path = root.joinpath(*COMMANDS[command][0].split("."))
    if not (path / "__main__.py").exists():
        path = path.with_suffix(".py")
        if not path.exists():
            raise Problem(f"There is no `{command}` here: {path} is missing.")


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
    from utils.course.setup import prepare  # now that this Python will do

    needed = "jupyterlab" if command == "open" else "torch"
    python = python_here(needed) if here else prepare(root)
    if command == "open":
        return open_course(root, python, rest, here)
    return run_module(root, python, command, rest, here)


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
