"""utils/course/doctor.py: what a bug report needs, whatever is broken."""

import sys

import pytest

import start
from tests.stand_in import Usage, calls, posix
from utils.course import doctor, homes, setup, venv
from utils.course.sentences import start_py


@posix
def test_the_doctor_runs_by_venv_where_that_works(course, monkeypatch):
    setup.prepare(course)
    calls(course)
    assert start.main(["doctor"], course) == 0
    assert calls(course) == ["-m utils.course.doctor"]


@pytest.mark.parametrize("state", ["missing", "broken"])
def test_the_doctor_runs_without_venv(course, monkeypatch, state):
    if state == "broken":
        (course / ".venv").mkdir()
        (course / ".venv" / "pyvenv.cfg").write_text("")
    ran = []
    monkeypatch.setattr(start, "run", lambda *call: ran.append(call) or 1)
    monkeypatch.setattr(sys, "version_info", (3, 9, 0))
    assert start.main(["doctor"], course) == 1
    assert ran == [([sys.executable, "-m", "utils.course.doctor"], course, True)]
    assert venv.state(course) == state


@pytest.fixture
def patient(course, monkeypatch):
    """A machine on which nothing is missing, as far as the doctor looks."""
    facts = {"version": "9.1", "built for CUDA": None, "threads": 2, "between": 2}
    facts |= {"devices": [], "cuda": False, "mps": False, "bf16": False}
    monkeypatch.setattr(venv, "state", lambda _: "ready")
    monkeypatch.setattr(doctor, "runs_in_venv", lambda _: True)
    monkeypatch.setattr(doctor, "wrong_pins", lambda _: [])
    monkeypatch.setattr(doctor, "torch_facts", lambda: facts)
    monkeypatch.setattr(doctor, "nvidia", lambda: None)
    monkeypatch.setattr(doctor, "memory", lambda: (8e9, 4e9))
    monkeypatch.setattr(
        doctor.shutil, "disk_usage", lambda _: Usage(10**11, 0, 5 * 10**10)
    )
    return course, facts


def test_a_healthy_machine(patient, capsys):
    assert doctor.report(patient[0]) == 0
    out = capsys.readouterr().out
    assert out.rstrip().endswith("All is well.")
    for word in ("course", "system", "Python", "packages", "torch", "CPU", "threads"):
        assert f"\n{word} " in "\n" + out
    for word in ("memory", "disk", "accelerators", "Chromium", "OMP_WAIT_POLICY"):
        assert word in out
    assert "8.0 GB, 4.0 GB free" in out and "50.0 GB free" in out


def test_the_doctor_shows_no_other_part_of_the_environment(
    patient, monkeypatch, capsys
):
    monkeypatch.setenv("MY_TOKEN", "hush-hush")
    doctor.report(patient[0])
    assert "hush-hush" not in capsys.readouterr().out


@pytest.mark.parametrize("state", ["missing", "unfinished", "broken", "changed"])
def test_each_state_of_venv_is_a_finding(patient, monkeypatch, capsys, state):
    monkeypatch.setattr(venv, "state", lambda _: state)
    assert doctor.report(patient[0]) == 1
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("Missing: .venv") and f"Do this: {start_py()}" in line


@pytest.mark.parametrize(
    ("changes", "driver", "finding"),
    [
        ({}, "H100, 80 GB, 1.0", "build without CUDA"),
        ({"built for CUDA": "13.0"}, "H100, 80 GB, 1.0", "update NVIDIA's driver"),
        (None, None, "torch does not load"),
    ],
)
def test_torch_and_devices(patient, monkeypatch, capsys, changes, driver, finding):
    facts = None if changes is None else dict(patient[1], **changes)
    monkeypatch.setattr(doctor, "torch_facts", lambda: facts)
    monkeypatch.setattr(doctor, "nvidia", lambda: driver)
    assert doctor.report(patient[0]) == 1
    assert finding in capsys.readouterr().out


def test_a_working_gpu_is_no_finding(patient, monkeypatch, capsys):
    device = {"built for CUDA": "13.0", "cuda": True, "devices": ["H100"], "bf16": True}
    patient[1].update(device)
    monkeypatch.setattr(doctor, "nvidia", lambda: "H100, 80 GB, 1.0")
    assert doctor.report(patient[0]) == 0
    assert "CUDA devices in torch: H100, with bf16" in capsys.readouterr().out


def test_little_room_and_an_old_python_are_findings(patient, monkeypatch, capsys):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(10, 9, 10**8))
    monkeypatch.setattr(doctor, "memory", lambda: (8e9, 5e8))
    monkeypatch.setattr(sys, "version_info", (3, 9, 0))
    assert doctor.report(patient[0]) == 1
    out = capsys.readouterr().out
    for words in ("disk has 0.1 GB", "0.5 GB of memory", "is not supported"):
        assert words in out


@pytest.mark.parametrize("setting", [None, "required"])
def test_a_missing_chromium_counts_only_where_it_is_required(
    patient, monkeypatch, capsys, setting
):
    monkeypatch.setattr(doctor, "chromium", lambda: None)
    monkeypatch.delenv("COURSE_BROWSER", raising=False)
    if setting:
        monkeypatch.setenv("COURSE_BROWSER", setting)
    assert doctor.report(patient[0]) == bool(setting)
    assert "only the browser test needs one" in capsys.readouterr().out


def test_the_other_lists_are_told_and_are_no_finding(patient, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "wrong", lambda pairs: [(n, v, None) for n, v in pairs])
    assert doctor.report(patient[0]) == 0
    out = capsys.readouterr().out
    assert f"authors: 0 of 1 as pinned ({start_py('test')} adds the rest)" in out
    assert f"extras: 0 of 1 as pinned ({start_py('extras')} adds the rest)" in out


def test_a_home_that_cannot_be_written_is_told(patient, tmp_path, monkeypatch, capsys):
    doctor.report(patient[0])
    assert "home          can be written" in capsys.readouterr().out
    monkeypatch.setenv(homes.OURS, str(tmp_path / "ours"))
    doctor.report(patient[0])
    said = capsys.readouterr().out
    assert f"home          cannot be written: {tmp_path / 'ours'} is used" in said
    monkeypatch.delenv(homes.OURS)
    monkeypatch.setattr(homes, "lost", lambda _: ["IPYTHONDIR"])
    doctor.report(patient[0])
    assert "nothing stands in for IPYTHONDIR" in capsys.readouterr().out


def test_a_path_too_long_for_windows_is_a_finding(patient, monkeypatch, capsys):
    def refuse(root):
        raise start.Problem("too long")

    monkeypatch.setattr(setup, "check_length", refuse)
    assert doctor.report(patient[0]) == 1
    assert "Do this: move it to one of at most 65" in capsys.readouterr().out


def test_packages_that_differ_are_listed(patient, monkeypatch, capsys):
    wrong = [("plain", "1.0", "0.9"), ("quoted", "2.0", None)]
    monkeypatch.setattr(doctor, "wrong_pins", lambda _: wrong)
    assert doctor.report(patient[0], here=True) == 1
    out = capsys.readouterr().out
    assert "plain 0.9 (wanted 1.0)" in out and "quoted missing (wanted 2.0)" in out
    assert "not in this Python: quoted. Do this" in out


@pytest.mark.parametrize(
    "part",
    ["course", "system", "cpu", "cpu_has", "memory", "threads", "packages"]
    + [
        "list_of",
        "home",
        "torch_facts",
        "nvidia",
        "chromium",
        "findings_of_setup",
        "accelerators",
    ],
)
def test_the_doctor_survives_any_part(patient, monkeypatch, capsys, part):
    def fail(*_):
        raise RuntimeError("ill")

    monkeypatch.setattr(doctor, part, fail)
    assert doctor.report(patient[0]) in (0, 1)
    assert "Chromium" in capsys.readouterr().out


def test_the_doctor_asks_programs_with_a_time_limit():
    slow = [sys.executable, "-c", "import time; time.sleep(20)"]
    assert doctor.ask(slow, timeout=0.2) is None
    assert doctor.ask(["no such program"]) is None
    assert doctor.ask([sys.executable, "-c", "raise SystemExit(1)"]) is None
    assert doctor.ask([sys.executable, "-c", "print('yes')"]).strip() == "yes"
