"""utils/course/venv.py: what .venv's Python is asked, and what its processes inherit."""

import os
import sys
from importlib import metadata

from utils.course import packages, venv


def test_the_environment_of_children(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    env = venv.child_env(tmp_path)
    assert env["OMP_WAIT_POLICY"] == "PASSIVE"
    assert env["JUPYTER_PREFER_ENV_PATH"] == "1"
    assert "PYTHONPATH" not in env
    assert env["PATH"].startswith(str(venv.python_of(tmp_path).parent) + os.pathsep)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    here = venv.child_env(tmp_path, here=True)
    assert here["OMP_WAIT_POLICY"] == "ACTIVE"
    assert here["PYTHONPATH"] == "elsewhere" and here["PATH"] == os.environ["PATH"]


def test_the_probe_compares_the_pins(course, monkeypatch):
    installed = {"torch": "9.1+cpu", "plain": "1.0", "quoted": "2.0"}

    def version(name):
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(venv, "ROOT", course)
    monkeypatch.setattr(sys, "base_prefix", "elsewhere")
    assert venv.answer_probe() == 0
    installed["plain"] = "1.1"
    del installed["quoted"]
    assert venv.answer_probe() == 3
    wrong = [("plain", "1.0", "1.1"), ("quoted", "2.0", None)]
    assert packages.wrong_pins(course) == wrong
    assert venv.answer_probe(["authors"]) == 3
    installed |= {"plain": "1.0", "quoted": "2.0"}
    assert (venv.answer_probe(), venv.answer_probe(["authors"])) == (0, 3)
    installed["lint"] = "3.0"
    assert venv.answer_probe(["authors"]) == 0
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)
    assert venv.answer_probe() == 1
