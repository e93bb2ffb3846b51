"""utils/course/setup.py: set up once, repair itself, and say in one sentence what is wrong."""

import errno
import os
import re
import signal
import sys
import threading
from importlib import metadata
from pathlib import Path

import pytest

import start
from tests.stand_in import (
    BEGUN,
    LIST,
    Usage,
    calls,
    fails,
    launch,
    posix,
    unfinished,
    wait_for,
)
from utils.course import packages, sentences, setup, venv
from utils.files import ROOT


@posix
def test_from_nothing_to_a_ready_venv(course, capsys):
    assert start.main(["test", "-k", "x"], course) == 0
    made = calls(course)
    assert made[0].startswith("-m venv")
    assert "--no-deps --retries 0" in made[1] and made[1].endswith(
        "/whl/cpu torch==9.1"
    )
    assert made[2].endswith(
        "torch==9.1 plain==1.0 quoted==2.0; python_version >= '3.8' "
        'marked==3.0; python_version < "3.8" lint==3.0 speed==4.0'
    )
    assert made[3:] == ["-m utils.course.author test -k x"]
    assert venv.state(course) == "ready" and not unfinished(course)
    assert capsys.readouterr().err == ""


@posix
def test_a_reader_gets_no_authors_tools_and_the_test_command_adds_them(course):
    assert start.main([], course) == 0
    assert not calls(course, "lint==3.0")
    assert venv.state(course) == "ready"
    assert venv.state(course, ("authors",)) == "changed"
    assert start.main(["test"], course) == 0
    made = calls(course)
    assert not [line for line in made if line.startswith("-m venv")]
    assert made[-2].endswith("lint==3.0 speed==4.0")
    assert start.main(["author", "check"], course) == 0
    assert calls(course) == ["-m utils.course.author check"]
    assert start.main([], course) == 0
    assert not calls(course, "-m pip")


@posix
def test_extras_are_added_by_their_command(course, capsys):
    assert start.main(["extras"], course) == 0
    assert calls(course)[-1].endswith(" speed==4.0")
    assert "extras.txt are there" in capsys.readouterr().out
    assert start.main(["extras"], course) == 0
    assert not calls(course)
    assert start.main(["test"], course) == 0
    assert calls(course, "-m pip", "lint==3.0")


@posix
@pytest.mark.parametrize("name", ["environment.yml", "utils/course/authors.txt"])
def test_a_list_that_changed_is_installed_by_whom_it_concerns(course, name):
    start.main(["test"], course)
    calls(course)
    line = "      - new==1\n" if name.endswith("yml") else "new==1\n"
    with (course / name).open("a") as file:
        file.write(line)
    start.main([], course)
    assert bool(calls(course, "-m pip", "new==1")) is name.endswith("yml")
    start.main(["test"], course)
    assert calls(course, "-m pip", "lint==3.0", "new==1")


@posix
def test_a_list_that_cannot_be_had_leaves_the_reader_what_there_is(course, capsys):
    setup.prepare(course)
    (course / "pip.code").write_text("1")
    (course / "pip.says").write_text("WARNING: NewConnectionError(...)\n")
    assert "check the network" in fails(course, capsys, "test")
    assert venv.state(course) == "ready"


def test_a_missing_list_is_one_sentence(course, capsys):
    (course / "utils" / "course" / "authors.txt").unlink()
    (course / ".venv").mkdir()
    (course / ".venv" / "installed-for").write_text("")
    assert "fetch the course again" in fails(course, capsys, "test")


@posix
def test_a_second_call_skips_the_set_up(course):
    start.main(["author", "list"], course)
    calls(course)
    assert start.main(["author", "list"], course) == 0
    assert calls(course) == ["-m utils.course.author list"]


@posix
def test_models_are_pinned_and_come_without_what_they_would_pull_in(course):
    assert packages.models(course) == []
    lines = packages.models(ROOT)
    assert lines and all("==" in line and "#" not in line for line in lines)
    (course / "utils" / "data").mkdir(parents=True, exist_ok=True)
    (course / "utils" / "data" / "models.txt").write_text("# why\nbig-model==1.0\n")
    assert packages.models(course) == ["big-model==1.0"]
    setup.prepare(course)
    log = (course / ".venv" / "start.log").read_text()
    assert "--no-deps big-model==1.0" in log
    assert venv.state(course) == "ready"
    (course / "utils" / "data" / "models.txt").write_text("big-model==2.0\n")
    assert venv.state(course) == "changed"


@posix
def test_a_changed_list_is_installed_in_place(course):
    setup.prepare(course)
    calls(course)
    (course / "environment.yml").write_text(LIST + "      - extra==5\n")
    setup.prepare(course)
    made = calls(course)
    assert made[-1].endswith("extra==5")
    assert not any(line.startswith("-m venv") for line in made)
    setup.prepare(course)
    assert not calls(course)


@posix
def test_a_comment_in_the_list_changes_nothing(course):
    setup.prepare(course)
    calls(course)
    (course / "environment.yml").write_text(LIST + "      # more\n")
    setup.prepare(course)
    assert not calls(course)


@posix
@pytest.mark.parametrize(
    ("harm", "anew"),
    [
        (lambda venv: (venv / "bin" / "python").unlink(), True),
        (lambda venv: (venv / "bin" / "python").write_text("junk"), True),
        (lambda venv: (venv.parent / "probe.code").write_text("1"), True),
        (lambda venv: (venv / "unfinished").write_text(""), True),
        (lambda venv: (venv.parent / "probe.code").write_text("3"), False),
        (lambda venv: (venv / "installed-for").write_text("stale"), False),
        (lambda venv: (venv / "installed-for").unlink(), False),
        (lambda venv: (venv / "installed-for").write_bytes(b"\xff"), False),
    ],
    ids=["no python", "junk", "broken", "unfinished", "pins", "stale", "no", "bytes"],
)
def test_a_damaged_venv_repairs_itself(course, harm, anew):
    setup.prepare(course)
    calls(course)
    (course / ".venv" / "left over").mkdir()
    harm(course / ".venv")
    setup.prepare(course)
    made = calls(course)
    assert any(line.startswith("-m venv") for line in made) is anew
    assert any(line.startswith("-m pip") for line in made)
    assert (course / ".venv" / "left over").exists() is not anew
    (course / "probe.code").unlink(missing_ok=True)
    assert venv.state(course) == "ready"


@posix
def test_a_failure_before_pip_changed_anything_keeps_the_venv(course, capsys):
    setup.prepare(course)
    (course / "environment.yml").write_text(LIST + "      - extra==5\n")
    (course / "pip.code").write_text("1")
    fails(course, capsys, "test")
    assert not unfinished(course)
    assert venv.state(course) == "changed"


@posix
@pytest.mark.parametrize("stage", ["pip", "cpu"])
def test_a_failure_in_the_middle_of_installing_makes_the_venv_anew(
    course, capsys, stage
):
    (course / f"{stage}.says").write_text(BEGUN)
    (course / f"{stage}.code").write_text("1")
    fails(course, capsys, "test")
    assert unfinished(course)
    (course / f"{stage}.code").unlink()
    calls(course)
    setup.prepare(course)
    assert len(calls(course, "-m venv")) == 1
    assert venv.state(course) == "ready"


@posix
def test_emptying_keeps_what_a_link_points_to(course, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("")
    folder = course / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "precious")
    (folder / "keep").write_text("")
    setup.empty(folder, {"keep"})
    assert [path.name for path in folder.iterdir()] == ["keep"]
    assert (tmp_path / "precious" / "file").exists()


@posix
@pytest.mark.parametrize(
    ("platform", "nvidia", "tried"),
    [
        ("linux", False, 1),
        ("linux", True, 0),
        ("darwin", False, 0),
        ("win32", False, 0),
    ],
)
def test_torch_without_cuda_only_on_linux_without_a_driver(
    course, monkeypatch, platform, nvidia, tried
):
    monkeypatch.setattr(start.sys, "platform", platform)
    monkeypatch.setattr(setup, "has_nvidia", lambda: nvidia)
    setup.prepare(course)
    assert len(calls(course, "--index-url", setup.CPU_WHEELS)) == tried


@posix
def test_no_cpu_build_falls_back_with_one_sentence(course, capsys):
    (course / "cpu.says").write_text("ERROR: much noise\n")
    (course / "cpu.code").write_text("1")
    setup.prepare(course)
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 2 and "torch without CUDA could not be had" in out[1]
    assert f"takes {sentences.SIZE_CUDA} GB" in out[1]
    assert f": {sentences.SIZE} GB," in out[0]
    assert venv.state(course) == "ready"


@posix
def test_a_disk_too_small_for_the_usual_build_is_told_before_it_is_fetched(
    course, monkeypatch, capsys
):
    (course / "cpu.code").write_text("1")
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda _: Usage(9, 9, 4 * 10**9))
    err = fails(course, capsys, "test")
    assert f"needs {sentences.ROOM_CUDA} GB" in err and "4.0 GB are free" in err
    assert not calls(course, "-m pip", "plain==1.0") and not unfinished(course)
    (course / "cpu.code").unlink()
    setup.prepare(course)
    assert venv.state(course) == "ready"


def test_with_an_nvidia_driver_the_large_build_is_reckoned_with_at_once(
    course, monkeypatch, capsys
):
    monkeypatch.setattr(setup, "has_nvidia", lambda: True)
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda _: Usage(9, 9, 4 * 10**9))
    assert f"needs {sentences.ROOM_CUDA} GB" in fails(course, capsys)
    monkeypatch.setattr(sys, "platform", "win32")
    assert not setup.with_cuda()


@posix
def test_pip_keeps_the_readers_settings_but_never_installs_for_the_user(
    course, monkeypatch
):
    monkeypatch.setenv("PIP_INDEX_URL", "https://example.invalid")
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    env = setup.pip_env(course)
    assert (env["PIP_INDEX_URL"], env["PIP_USER"]) == ("https://example.invalid", "0")
    assert "PYTHONPATH" not in env


# Errors


DENIED = "ERROR: Could not install packages due to an OSError: [WinError 5] Access is denied: "


@posix
@pytest.mark.parametrize(
    ("says", "sentence"),
    [
        ("ERROR: [Errno 28] No space left on device\n", "The disk is full"),
        ("ERROR: [Errno 13] Permission denied: '/x'\n", "may not write"),
        ("WARNING: NewConnectionError(...)\n", "check the network"),
        ("ERROR: HTTPSConnectionPool: Read timed out.\n", "check the network"),
        (
            "ERROR: Could not find a version that satisfies x==1 (from versions: none)\n"
            "ERROR: No matching distribution found for x==1\n",
            "pip found no x==1 at all: check the network",
        ),
        (
            "ERROR: Could not find a version that satisfies x==1 (from versions: 2)\n"
            "ERROR: No matching distribution found for x==1\n",
            "There is no x==1 for this machine (Python 3.",
        ),
        (
            f"{DENIED}'C:\\x\\.venv\\Lib\\site-packages\\a.pyd'\n",
            "is in use: shut down",
        ),
        ("ERROR: [WinError 32] The process cannot access the file\n", "is in use"),
        (f"{DENIED}'C:\\x\\.venv'\n", "may not write"),
        (
            "ERROR: [Errno 2] No such file or directory: 'C:\\a.h'\nHINT: This error "
            "might have occurred since this system does not have Windows Long Path "
            "support enabled.\n",
            "such as C:\\course, then start again",
        ),
        (
            "ProxyError('Cannot connect to proxy.', OSError('Tunnel connection failed: "
            "407 Proxy Authentication Required')): /simple/x/\n",
            "HTTPS_PROXY to http://NAME:PASSWORD@HOST:PORT",
        ),
        (
            "SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] "
            "certificate verify failed: self-signed certificate'))\n",
            "set PIP_CERT",
        ),
        ("SSLError(SSLEOFError(8, 'EOF occurred'))\n", "check the network"),
        ("ERROR: ResolutionImpossible\n", "Setting up .venv failed; what pip said"),
    ],
)
def test_why_pip_failed_is_one_sentence_that_names_the_log(
    course, capsys, says, sentence
):
    (course / "pip.says").write_text(says)
    (course / "pip.code").write_text("1")
    err = fails(course, capsys, "test")
    assert sentence in err
    log = Path(re.search(r"(?:the log is|said last is in) (.*)\n", err).group(1))
    assert log.parent == course / ".venv" and says in log.read_text()


@pytest.mark.parametrize(
    ("says", "room"),
    [("", sentences.ROOM), ("Collecting nvidia-cublas\n", sentences.ROOM_CUDA)],
)
def test_a_full_disk_names_the_room_of_the_build_that_filled_it(says, room):
    text = f"{says}ERROR: [Errno 28] No space left on device\n"
    assert f"free {room} GB" in sentences.explain(text, "root", "log")


@pytest.mark.parametrize(
    ("length", "system", "refused"),
    [(65, "nt", False), (66, "nt", True), (200, "posix", False)],
)
def test_a_long_path_is_refused_on_windows(monkeypatch, length, system, refused):
    root = "C:\\Users\\".ljust(length, "x")
    monkeypatch.setattr(setup.os, "name", system)
    if refused:
        with pytest.raises(start.Problem, match=r"such as C:\\course") as caught:
            setup.check_length(root)
        assert f"has {length} characters" in str(caught.value)
    else:
        setup.check_length(root)


def test_every_name_that_torch_brings_fits_into_windows_260():
    """The wheel's longest name behind C:\\...\\.venv\\Lib\\site-packages\\."""
    files = [str(file) for file in metadata.files("torch")]
    longest = max(len(file.replace("+cpu", "")) for file in files)
    inside = len(r"\.venv\Lib\site-packages" + "\\")
    assert setup.LONGEST_ROOT + inside + longest < 260


# Without a terminal


@posix
def test_without_a_terminal_a_line_now_and_then_tells_what_pip_is_at(
    course, monkeypatch, capsys
):
    monkeypatch.setattr(setup, "EVERY", 0.05)
    (course / "pip.says").write_text("Collecting plain==1.0\n" + "noise\n" * 3)
    (course / "slow").write_text("")
    threading.Timer(0.6, (course / "slow").unlink).start()
    setup.prepare(course)
    lines = capsys.readouterr().out.splitlines()
    assert any(re.match(r" +\d+ s: Collecting plain==1.0$", line) for line in lines)
    assert len(lines) > 4 and threading.active_count() < 4


def test_the_steps_of_pip():
    steps = {
        "Collecting torch==2.13.0 (from x)": "Collecting torch==2.13.0",
        "  Downloading torch-2.13.0-cp311.whl (526 MB)": "Downloading torch-2.13.0-cp311.whl",
        "  Using cached six-1.whl (11 kB)": "Using cached six-1.whl",
        "Installing collected packages: six": "Installing what was fetched",
        "Requirement already satisfied: six in x": "Looking at what is there",
        "Successfully installed six-1": None,
    }
    assert {line: setup.step_of(line) for line in steps} == steps


@pytest.mark.parametrize("lost", ["venv", "ensurepip"])
def test_debian_without_venv(course, monkeypatch, capsys, lost):
    find = setup.importlib.util.find_spec
    monkeypatch.setattr(
        setup.importlib.util,
        "find_spec",
        lambda name: None if name == lost else find(name),
    )
    assert "sudo apt install python3." in fails(course, capsys)


def test_a_full_disk_is_told_before_anything_is_made(course, monkeypatch, capsys):
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda _: Usage(9, 9, 5 * 10**8))
    err = fails(course, capsys)
    assert "too full" in err and "0.5 GB are free" in err
    assert not unfinished(course)


@posix
def test_a_small_disk_does_not_stop_an_update(course, monkeypatch):
    setup.prepare(course)
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda _: Usage(9, 9, 5 * 10**8))
    (course / "environment.yml").write_text(LIST + "      - extra==5\n")
    setup.prepare(course)
    assert venv.state(course) == "ready"


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.EACCES, "cannot be written"),
        (errno.EROFS, "cannot be written"),
        (errno.ENOSPC, "The disk is full"),
        (errno.EIO, "could not go on"),
    ],
)
def test_errors_of_the_system(course, monkeypatch, capsys, number, sentence):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number), "/a/folder")

    monkeypatch.setattr(Path, "mkdir", fail)
    assert sentence in fails(course, capsys)


@pytest.mark.parametrize(
    ("number", "place", "words"),
    [
        (32, "C:\\x\\a.pyd", "is in use"),
        (5, "C:\\x\\.venv\\Scripts\\python.exe", "is in use"),
        (5, "C:\\x\\work", "cannot be written"),
    ],
)
def test_a_file_in_use_on_windows(number, place, words):
    error = PermissionError(errno.EACCES, "denied", place)
    error.winerror = number
    said = sentences.explain_os(error, "root")
    assert said.startswith(f"{place} {words}") and said.endswith("start again.")


@posix
@pytest.mark.skipif(
    getattr(os, "geteuid", int)() == 0, reason="root may write anywhere"
)
def test_a_folder_that_cannot_be_written(course, capsys):
    course.chmod(0o555)
    try:
        assert "cannot be written" in fails(course, capsys)
    finally:
        course.chmod(0o755)


def test_a_file_in_the_place_of_venv_is_left_alone(course, capsys):
    (course / ".venv").write_text("mine")
    assert "not a folder" in fails(course, capsys)
    assert (course / ".venv").read_text() == "mine"


# Two at once, killed, interrupted


@posix
def test_two_at_once_set_up_once(course):
    (course / "slow").write_text("")
    first = launch(course, "test")
    wait_for(course / "slow.begun")
    second = launch(course, "test")
    line = second.stdout.readline()
    assert "waiting" in line
    (course / "slow").unlink()
    for process in (first, second):
        assert "Traceback" not in process.communicate(timeout=20)[1]
        assert process.returncode == 0
    made = calls(course)
    assert sum(line.startswith("-m venv") for line in made) == 1
    assert sum(line.startswith("-m pip") for line in made) == 1
    assert made.count("-m utils.course.author test") == 2


@posix
def test_killed_in_the_middle_of_pip(course, capsys, monkeypatch):
    (course / "pip.says").write_text(BEGUN)
    (course / "slow").write_text("")
    process = launch(course, "test")
    wait_for(course / "slow.begun")
    os.kill(process.pid, signal.SIGKILL)
    process.wait(20)
    process.stdout.close()
    process.stderr.close()
    assert unfinished(course)
    # pip outlives start.py and holds the lock: nobody wipes .venv under its feet
    monkeypatch.setattr(setup, "WAIT", 0.3)
    assert "Another start.py" in fails(course, capsys, "test")
    (course / "slow").unlink()
    monkeypatch.setattr(setup, "WAIT", 20)
    calls(course)
    setup.prepare(course)
    assert len(calls(course, "-m venv")) == 1
    assert venv.state(course) == "ready"


@posix
@pytest.mark.parametrize("says", ["", BEGUN], ids=["before", "in the middle"])
def test_ctrl_c_during_the_set_up(course, says):
    (course / "pip.says").write_text(says)
    (course / "slow").write_text("")
    process = launch(course, "test")
    wait_for(course / "slow.begun")
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Stopped" in err and "Traceback" not in err
    assert unfinished(course) is bool(says)
    (course / "slow").unlink()
    setup.prepare(course)
    assert venv.state(course) == "ready"


def test_a_lock_is_free_again_after_its_holder(course):
    second = setup.locked(course, wait=0)
    with setup.locked(course), pytest.raises(start.Problem), second:
        pass
    with setup.locked(course, wait=0):
        pass
