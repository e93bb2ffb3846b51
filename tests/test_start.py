"""start.py: which Python, which command, and what is opened with it."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

import start
from tests.stand_in import calls, fails, launch, posix, wait_for
from utils.course import packages
from utils.files import ROOT

# Which Python


@pytest.mark.parametrize(
    ("version", "word"),
    [((3, 6, 15), "old"), ((3, 9, 18), "old"), ((3, 15, 0), "new")],
)
def test_a_python_that_is_too_old_or_too_new(
    course, monkeypatch, capsys, version, word
):
    monkeypatch.setattr(start.sys, "version_info", version)
    monkeypatch.setattr(start, "other_python", lambda: "python3.12")
    err = fails(course, capsys)
    assert "Python 3.10 to 3.14" in err and f"too {word}" in err
    assert start.dotted(version) in err and "Try: " in err
    assert not (course / ".venv").exists()


@pytest.mark.parametrize("version", [(3, 10, 0), (3, 13, 9), (3, 14, 2)])
def test_supported_pythons_pass(version):
    start.check_python(version)


def test_a_newer_python_may_be_used_as_it_is():
    start.check_python((3, 15, 0), here=True)
    with pytest.raises(start.Problem):
        start.check_python((3, 9, 0), here=True)


@pytest.mark.parametrize(
    ("system", "words"),
    [("posix", "then: python3.13 start.py"), ("nt", "then: py -3.13 start.py")],
)
def test_where_no_python_fits_the_sentence_says_where_one_can_be_had(
    monkeypatch, system, words
):
    monkeypatch.setattr(start, "other_python", lambda: None)
    monkeypatch.setattr(start.os, "name", system)
    with pytest.raises(start.Problem, match=r"python\.org/downloads") as caught:
        start.check_python((3, 15, 0))
    assert str(caught.value).endswith(words)


LAUNCHERS = {
    "of the installer": " -V:3.15 *        Python 3.15 (64-bit)\n"
    " -V:3.13-32       Python 3.13 (32-bit)\n -V:3.12          Python 3.12\n",
    "an older one": "Installed Pythons found by py Launcher for Windows\n"
    " -3.15-64 *\n -3.13-32\n -3.12-64\n -2.7-64\n",
    "free-threaded": " -V:3.14t         Python 3.14 (64-bit, freethreaded)\n"
    " -V:3.12          Python 3.12 (64-bit)\n",
}


@pytest.mark.parametrize("said", LAUNCHERS.values(), ids=LAUNCHERS)
def test_on_windows_the_launcher_is_asked(monkeypatch, said):
    answers = {("py", "-0"): said}
    monkeypatch.setattr(start, "answer", lambda command: answers.get(tuple(command)))
    monkeypatch.setattr(start.os, "name", "posix")
    assert start.other_python() is None
    monkeypatch.setattr(start.os, "name", "nt")
    assert start.other_python() == "py -3.12"
    answers[("py", "-0")] = None  # no launcher: the Store's names
    answers[("python3.11", "-c", "")] = ""
    assert start.other_python() == "python3.11"


def test_programs_that_are_asked_may_be_missing_or_fail():
    assert start.answer(["no such program"]) is None
    assert start.answer([sys.executable, "-c", "raise SystemExit(1)"]) is None
    assert start.answer([sys.executable, "-c", "print(3)"]).strip() == "3"


def test_python_2_can_parse_start_py():
    """Nothing that is a SyntaxError there: it must get as far as its first sentence."""
    text = (ROOT / "start.py").read_text(encoding="ascii")
    newer = (ast.JoinedStr, ast.AnnAssign, ast.Nonlocal, ast.NamedExpr)
    newer += (ast.AsyncFunctionDef, ast.Await, ast.YieldFrom, ast.Match)
    for node in ast.walk(ast.parse(text)):
        assert not isinstance(node, newer), f"line {node.lineno}"
        if isinstance(node, ast.Raise):
            assert node.cause is None
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            assert not any(isinstance(part, ast.Starred) for part in node.elts)
        if isinstance(node, ast.arguments):
            assert not (node.kwonlyargs or node.posonlyargs)
            assert all(argument.annotation is None for argument in node.args)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print"
    nodes = ast.parse(text).body
    first = next(n for n in nodes if not isinstance(n, ast.Expr | ast.Import))
    assert ast.unparse(first.test) == f"sys.hexversion < {0x03060000}"


@posix
@pytest.mark.parametrize("python", ["python2.7", "python3.5"])
def test_a_really_old_python_says_one_sentence(python):
    if start.answer([python, "-c", ""]) is None:
        pytest.skip(f"no {python} on this machine")
    command = [python, "-B", str(ROOT / "start.py"), "test"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1 and "too old. Try: python3" in done.stderr


OLD = [  # what an old Python loads, if only to say what is wrong
    "start.py", "utils/__init__.py", "utils/files.py", "utils/course/__init__.py",
    "utils/course/doctor.py", "utils/course/homes.py", "utils/course/packages.py",
    "utils/course/sentences.py", "utils/course/setup.py", "utils/course/venv.py",
]  # fmt: skip


@pytest.mark.parametrize("name", [*OLD, "utils/course/work.py"])
def test_an_old_python_can_read_the_files(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    if name in OLD:
        ast.parse(text, feature_version=(3, 6))
    nodes = ast.parse(text).body
    imports = [node for node in nodes if isinstance(node, ast.Import)]
    wanted = {alias.name for node in imports for alias in node.names}
    wanted |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    ours = {module for module in wanted if module.partition(".")[0] == "utils"}
    others = {module.partition(".")[0] for module in wanted - ours}
    assert others <= set(sys.stdlib_module_names) | {"start"}
    for path in (module.replace(".", "/") for module in ours):
        assert {f"{path}.py", f"{path}/__init__.py"} & set(OLD)


def test_an_old_python_is_refused_before_the_parts_are_loaded():
    code = (
        "import sys, start; sys.version_info = (3, 6, 15, 'final', 0); "
        "print(start.main([]), *(m for m in sys.modules if m.startswith('utils.')))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["1", "utils.course", "utils.course.sentences"]
    assert done.stderr.count("\n") == 1 and "Python 3.6.15, too old" in done.stderr


def test_start_py_finds_its_parts_wherever_it_is_called_from(tmp_path):
    command = [sys.executable, "-I", str(ROOT / "start.py"), "help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and "doctor" in done.stdout


def test_start_py_alone_says_what_is_missing(tmp_path):
    shutil.copy(ROOT / "start.py", tmp_path)
    command = [sys.executable, "start.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1 and "fetch the course again" in done.stderr


# The command line


def test_a_command_whose_module_is_missing(course, capsys):
    assert "There is no `bench` here" in fails(course, capsys, "bench")
    assert not (course / ".venv").exists()


@pytest.mark.parametrize("command", start.COMMANDS)
def test_every_command_has_its_module(command):
    start.check_command(ROOT, command)


def test_an_unknown_command_shows_the_usage(course, capsys):
    assert start.main(["tset"], course) == 2
    err = capsys.readouterr().err
    assert "no command `tset`" in err and "start.py doctor" in err
    assert not (course / ".venv").exists()


@pytest.mark.parametrize("word", ["help", "-h", "--help"])
def test_help(course, capsys, word):
    assert start.main([word], course) == 0
    out = capsys.readouterr().out
    for command in (*start.COMMANDS, "doctor", "extras", "--here"):
        assert command in out
    assert not (course / ".venv").exists()


@pytest.mark.parametrize(("system", "name"), [("posix", "python3"), ("nt", "py")])
def test_the_usage_names_python_as_this_system_does(monkeypatch, system, name):
    monkeypatch.setattr(start.os, "name", system)
    calls = [line for line in start.usage().splitlines() if "start.py " in line[:20]]
    assert len(calls) == len(start.HELP)
    assert all(line.startswith(f"{name} start.py") for line in calls)


# Opening the course


@posix
def test_opening_fills_work_and_starts_jupyterlab(course):
    assert start.main(["--no-browser", "--port", "9999"], course) == 0
    fill, lab = calls(course)[-2:]
    assert fill == "-m utils.course.work"
    assert lab.startswith(f"-m jupyterlab --ServerApp.root_dir={course} ")
    assert lab.endswith(" --no-browser --port 9999")


@posix
def test_jupyterlab_is_not_started_when_work_cannot_be_filled(course):
    (course / "module.code").write_text("1")
    assert start.main([], course) == 1
    assert calls(course)[-1] == "-m utils.course.work"


def test_the_command_of_jupyterlab(tmp_path, monkeypatch):
    command = start.lab_command(tmp_path, "py", ["--port", "1"])
    assert command[:3] == ["py", "-m", "jupyterlab"]
    assert f"--ServerApp.root_dir={tmp_path}" in command
    assert f"--ServerApp.preferred_dir={tmp_path / 'work'}" in command
    guard = "--ServerApp.contents_manager_class=utils.course.contents.Contents"
    assert guard in command, "outside work/ a reader reads and changes nothing"
    assert not any("default_url" in word for word in command)
    assert not any("token" in word or "password" in word for word in command)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "00_start_here.ipynb").write_text("")
    command = start.lab_command(tmp_path, "py", ["--port", "1"])
    assert "--LabApp.default_url=/lab/tree/work/00_start_here.ipynb" in command
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


def test_exit_codes_of_children_are_passed_on(tmp_path):
    def code(text):
        return start.run([sys.executable, "-c", text], tmp_path, here=True)

    assert code("raise SystemExit(7)") == 7
    assert code("") == 0
    if os.name != "nt":
        assert code("import os; os.kill(os.getpid(), 9)") == 137


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


# --here


@pytest.mark.parametrize("argv", [["--here", "test"], ["test", "--here"]])
def test_here_uses_this_python_and_makes_nothing(course, monkeypatch, argv):
    ran = []
    monkeypatch.setattr(start, "run", lambda *call: ran.append(call) or 0)
    for name in packages.LISTS:
        (course / "utils" / "course" / f"{name}.txt").write_text("")
    assert start.main(argv, course) == 0
    command = [sys.executable, "-m", "utils.course.author", "test"]
    assert ran == [(command, course, True)]
    assert not (course / ".venv").exists()


@pytest.mark.parametrize(
    ("argv", "npm", "wanted"),
    [
        (["author", "book"], None, ("authors", "extras", "book")),
        (["author", "book"], "/bin/npm", ("authors", "extras")),
        (["author", "run", "03"], None, ("authors", "extras")),
    ],
)
def test_the_book_adds_node_where_there_is_none(course, monkeypatch, argv, npm, wanted):
    asked = []
    monkeypatch.setattr(start.shutil, "which", lambda name: npm)
    monkeypatch.setattr(start, "check_command", lambda *_: None)
    monkeypatch.setattr(
        start, "python_here", lambda root, needed, lists: asked.append(lists) or "py"
    )
    monkeypatch.setattr(start, "run", lambda *call: 0)
    assert start.main(["--here", *argv], course) == 0
    assert asked == [wanted]


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


def test_here_without_what_the_tests_need(course, monkeypatch, capsys):
    (course / "utils" / "course" / "authors.txt").write_text("no-such-thing==1\n")
    err = fails(course, capsys, "test", "--here")
    assert "no no-such-thing: leave out --here, or run: pip install -r" in err
    assert "utils/course/authors.txt" in err


def test_here_without_jupyterlab(course, monkeypatch, capsys):
    monkeypatch.setattr(start.importlib.util, "find_spec", lambda _: None)
    assert "This Python has no jupyterlab" in fails(course, capsys, "--here")


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
    pythons = re.search(r"python: \[(.*)\]", workflow)[1].replace('"', "").split(", ")
    minors = range(start.OLDEST[1], start.NEWEST[1] + 1)
    assert pythons == [f"3.{minor}" for minor in minors]


def test_the_readme_says_which_pythons_and_how_windows_calls_them():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert (
        f"Python {start.dotted(start.OLDEST)} to {start.dotted(start.NEWEST)}" in text
    )
    for page in ("README.md", "TEACHING.md"):
        assert "`py start.py`" in (ROOT / page).read_text(encoding="utf-8"), page
