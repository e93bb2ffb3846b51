"""A stand-in for Python, for the tests of start.py and of what it sets up.

A shell script notes each call, and files beside it decide what pip says and returns.
Nothing is installed and nothing is fetched.
"""

import os
import subprocess
import sys
import time
from collections import namedtuple

import pytest

import start
from utils.course import setup
from utils.files import ROOT

LIST = """\
name: course
dependencies:
  - python=3.11
  - pip
  - pip:
      # a comment
      - --extra-index-url https://example.invalid/cpu
      - torch==9.1
      - plain==1.0   # why this one
      - "quoted==2.0; python_version >= '3.8'"
      - marked==3.0; python_version < "3.8"
"""
STAND_IN = """\
#!/bin/sh
root='{root}'
says() {{ cat "$root/$1.says" 2>/dev/null; }}
code() {{ [ -f "$root/$1.code" ] && return "$(cat "$root/$1.code")"; return 0; }}
case "$*" in
  "-c import sys; from utils.course"*) code probe; exit ;;
esac
echo "$*" >> "$root/calls"
case "$*" in
  "-m venv"*)
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo > "$3/pyvenv.cfg" ;;
  *--index-url*) says cpu; code cpu; exit ;;
  "-m pip"*)
    says pip
    if [ -f "$root/slow" ]; then
      touch "$root/slow.begun"
      i=0; while [ -f "$root/slow" ] && [ $i -lt 400 ]; do sleep 0.02; i=$((i+1)); done
    fi
    code pip; exit ;;
  "-m jupyterlab"*)
    if [ -f "$root/stay" ]; then
      trap 'echo ended >> "$root/calls"; exit 0' INT TERM
      touch "$root/lab.up"
      i=0; while [ $i -lt 400 ]; do sleep 0.02; i=$((i+1)); done
    fi ;;
  "-m utils."*) code module; exit ;;
esac
"""
BEGUN = "Installing collected packages: torch\n"
posix = pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A folder with a list of packages and a stand-in for Python."""
    root = tmp_path / "a course"
    (root / "utils" / "course").mkdir(parents=True)
    (root / "utils" / "course" / "author.py").write_text("")
    (root / "environment.yml").write_text(LIST)
    (root / "utils" / "course" / "authors.txt").write_text("# why\nlint==3.0\n")
    (root / "utils" / "course" / "extras.txt").write_text("speed==4.0\n")
    stand_in = root / "stand-in"
    stand_in.write_text(STAND_IN.format(root=root))
    stand_in.chmod(0o755)
    monkeypatch.setattr(setup, "base_python", lambda: str(stand_in))
    monkeypatch.setattr(setup, "has_nvidia", lambda: False)
    monkeypatch.setattr(sys, "platform", "linux")
    return root


def calls(root, *words):
    """The calls of the stand-in that hold all the words; the note of them is dropped."""
    path = root / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [line for line in lines if all(word in line for word in words)]


def unfinished(root):
    """Whether the mark of an unfinished set-up is there."""
    return (root / ".venv" / "unfinished").exists()


def fails(root, capsys, *argv):
    """Run start.py, which must fail with one sentence on stderr; return it."""
    capsys.readouterr()
    assert start.main(list(argv), root) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "Traceback" not in err
    return err


DRIVER = """\
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {source!r})
import start
from utils.course import setup
root = Path({root!r})
setup.base_python = lambda: str(root / "stand-in")
setup.has_nvidia = lambda: True
sys.exit(start.main(sys.argv[1:], root))
"""


def launch(root, *argv):
    """start.py in a process and a session of its own."""
    driver = DRIVER.format(source=str(ROOT), root=str(root))
    return subprocess.Popen(
        [sys.executable, "-c", driver, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(path):
    """Wait until a file is there."""
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} never came"
        time.sleep(0.02)
