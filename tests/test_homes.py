"""utils/course/homes.py: a home that cannot be written, and what stands in for it."""

import os
import subprocess
import sys

import pytest

from tests.stand_in import posix
from utils.course import homes, venv

NAMES = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
NAMES += ("IPYTHONDIR", "MPLCONFIGDIR")
XDG = ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", homes.OURS)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home of this test's own, and nothing set that leads past it."""
    for name in NAMES + XDG:
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "USERPROFILE", "APPDATA"):
        monkeypatch.setenv(name, str(home))
    return home


@pytest.fixture
def lost_home(home, monkeypatch):
    """A home that nobody can write in, not even root: it is a file."""
    home.rmdir()
    home.write_text("")
    return home


def test_a_home_that_can_be_written_is_used_and_left_as_it_is(home, course):
    env = venv.child_env(course)
    assert not set(NAMES) & set(env) and homes.OURS not in env
    assert list(home.iterdir()) == []


def test_a_lost_home_is_stood_in_for_in_venv(lost_home, course):
    (course / ".venv").mkdir()
    env = venv.child_env(course)
    assert env[homes.OURS] == str(course / ".venv" / ".home")
    for name in NAMES:
        assert env[name].startswith(env[homes.OURS]) and os.path.isdir(env[name])
    if os.name != "nt":
        assert os.stat(env[homes.OURS]).st_mode & 0o077 == 0
    assert venv.state(course) == "missing"  # the folder alone is no .venv


def test_without_venv_it_lies_in_work_and_else_in_a_temporary_folder(lost_home, course):
    env = venv.child_env(course, here=True)
    temporary = env[homes.OURS]
    assert os.path.isdir(temporary) and str(course) not in temporary
    (course / "work").mkdir()
    env = venv.child_env(course, here=True)
    assert env[homes.OURS] == str(course / "work" / ".home")


def test_only_what_is_lost_is_stood_in_for(home, course, monkeypatch):
    (home / ".ipython").write_text("a file in its place")
    (home / "mine").mkdir()
    monkeypatch.setenv("MPLCONFIGDIR", str(home / "mine"))
    (course / ".venv").mkdir()
    env = venv.child_env(course)
    ours = course / ".venv" / ".home"
    assert {name: env[name] for name in NAMES if name in env} == {
        "IPYTHONDIR": str(ours / "ipythondir"),
        "MPLCONFIGDIR": str(home / "mine"),
    }


def test_a_process_of_ours_hands_on_what_it_was_given(lost_home, course, monkeypatch):
    (course / ".venv").mkdir()
    for name, value in venv.child_env(course).items():
        monkeypatch.setenv(name, value)
    assert homes.lost(os.environ) == []
    env = venv.child_env(course)
    assert env[homes.OURS] == os.environ[homes.OURS]


@posix
def test_jupyter_ipython_and_matplotlib_ask_these_very_folders(home):
    """What each of them uses by itself is what is tried here."""
    code = (
        "from jupyter_core import paths as p; import IPython, matplotlib as m; "
        "print(p.jupyter_config_dir(), p.jupyter_data_dir(), p.jupyter_runtime_dir(), "
        "IPython.paths.get_ipython_dir(), m.get_configdir(), m.get_cachedir())"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = homes.wanted(os.environ)
    assert said.split() == [folder for name in NAMES for folder in found[name]]


@posix
def test_a_lost_home_runs_a_notebooks_first_cell_without_a_word(lost_home, course):
    (course / ".venv").mkdir()
    env = venv.child_env(course, here=True)
    code = "import matplotlib.pyplot, jupyter_core.paths as p; p.jupyter_data_dir()"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_where_nothing_can_be_written_nothing_is_set(lost_home, course, monkeypatch):
    monkeypatch.setattr(homes, "our_folder", lambda _: str(lost_home / "x"))
    assert homes.OURS not in venv.child_env(course)
