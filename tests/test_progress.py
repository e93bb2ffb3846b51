"""The progress file: never in the way, and nothing in it is ever lost."""

import json
import os
import subprocess
import sys

import pytest

from utils.exercises import progress

MSE = "01_descent/mse"


@pytest.fixture
def file(tmp_path, monkeypatch):
    "Where progress is kept during a test; it does not exist yet."
    path = tmp_path / "deeper" / "progress.json"
    monkeypatch.setenv("COURSE_PROGRESS", str(path))
    return path


def entries(file):
    return json.loads(file.read_text())["exercises"]


def test_events_are_counted(file):
    for event in ("wrong", "hint", "wrong", "right", "right"):
        progress.record("01_descent", "mse", event)
    entry = entries(file)[MSE]
    solved = entry.pop("solved")
    assert entry == {"wrong": 2, "hint": 1, "right": 2}
    assert len(solved) == 10 and progress.solved() == {MSE}


def test_the_day_of_the_first_solution_stays(file):
    progress.record("01_descent", "mse", "right")
    data = progress.load()
    data["exercises"][MSE]["solved"] = "2001-02-03"
    file.write_text(json.dumps(data))
    progress.record("01_descent", "mse", "right")
    assert entries(file)[MSE]["solved"] == "2001-02-03"


def test_without_a_file_nothing_is_solved_and_none_is_made(file):
    assert progress.solved() == set() and progress.load() == progress.EMPTY
    progress.load()["exercises"]["x"] = 1
    assert progress.EMPTY == {"version": 1, "exercises": {}}
    assert not file.exists()


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_crash_while_writing_loses_nothing(file, monkeypatch, capsys, step):
    progress.record("01_descent", "mse", "right")
    before = file.read_bytes()

    def crash(*_):
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, crash)
        progress.record("01_descent", "predict", "right")
    assert file.read_bytes() == before
    assert one_line(capsys).startswith("(Progress could not be saved: the disk is full")
    assert not list(file.parent.glob("*.part"))
    progress.record("01_descent", "predict", "right")
    assert len(progress.solved()) == 2


def one_line(capsys):
    "What was printed: one line."
    said = capsys.readouterr()
    assert said.err == "" and said.out.count("\n") == 1, said
    return said.out


def test_half_a_temporary_file_of_a_killed_process_is_no_harm(file):
    progress.record("01_descent", "mse", "right")
    for number in (os.getpid(), 1):
        file.with_name(f".{file.name}.{number}.part").write_text('{"exer')
    progress.record("01_descent", "predict", "right")
    assert len(progress.solved()) == 2


DAMAGED = (
    "", "{", "not json", "[]", "3", "null", "{}", '{"exercises": []}',
    '{"exercises": null}', '{"exercises": {"a": 3}}', '{"exercises": {"a": null}}',
    '{"exercises": {"a": {"right": "x"}}}', '{"exercises": {"a": {"solved": 3}}}',
    "[" * 100_000, "\ufeff{}",
)  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_is_set_aside(file, capsys, text):
    file.parent.mkdir()
    file.write_text(text, encoding="utf-8")
    progress.record("01_descent", "mse", "right")
    said = one_line(capsys)
    assert "progress.damaged.json" in said
    aside = file.with_name("progress.damaged.json")
    assert aside.read_text(encoding="utf-8") == text
    assert set(entries(file)) == {MSE}


def test_bytes_that_are_no_text_are_set_aside_too(file, capsys):
    file.parent.mkdir()
    file.write_bytes(b"\xff\xfe\x00")
    assert progress.solved() == set()
    assert file.with_name("progress.damaged.json").read_bytes() == b"\xff\xfe\x00"
    assert "damaged" in one_line(capsys)


def test_every_damaged_file_is_kept(file):
    file.parent.mkdir()
    for text in ("one", "two", "three"):
        file.write_text(text)
        progress.load()
    kept = sorted(path.read_text() for path in file.parent.glob("*.damaged*.json"))
    assert kept == ["one", "three", "two"]


RECORD = """
import sys
from utils.exercises import progress
for i in range(100):
    progress.record("01_descent", sys.argv[1], "hint")
    progress.record("01_descent", "both", "hint")
"""


def test_two_processes_at_once_lose_nothing(file):
    both = [
        subprocess.Popen(
            [sys.executable, "-c", RECORD, name],
            cwd=progress.ROOT,
            stdout=subprocess.PIPE,
        )
        for name in ("one", "other")
    ]
    assert [process.communicate(timeout=60)[0] for process in both] == [b"", b""]
    counts = {name: entry["hint"] for name, entry in entries(file).items()}
    names = ("one", "other", "both")
    assert counts == dict(zip((f"01_descent/{n}" for n in names), (100, 100, 200)))


def test_a_lock_that_fails_is_told_in_one_line(file, monkeypatch, capsys):
    import filelock

    class Broken:
        def __init__(self, *_, **__):
            raise NotImplementedError("no locks on this file system")

    monkeypatch.setattr(filelock, "FileLock", Broken)
    progress.record("01_descent", "mse", "right")
    assert "no locks on this file system" in one_line(capsys)


def test_a_lock_that_another_process_keeps_is_told_in_one_line(
    file, monkeypatch, capsys
):
    import filelock

    real = filelock.FileLock
    monkeypatch.setattr(filelock, "FileLock", lambda p, **_: real(p, timeout=0.1))
    file.parent.mkdir()
    with real(str(file) + ".lock", is_singleton=False):
        progress.record("01_descent", "mse", "right")
    assert "could not be saved" in one_line(capsys)
    progress.record("01_descent", "mse", "right")
    assert progress.solved() == {MSE}


@pytest.mark.parametrize("method", ["mkdir", "read_text"])
def test_a_folder_without_permission_is_told_in_one_line(
    file, monkeypatch, capsys, method
):
    progress.record("01_descent", "mse", "right")
    before = file.read_bytes()

    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(f"pathlib.Path.{method}", refuse)
        progress.record("01_descent", "predict", "right")
        assert "Permission denied" in one_line(capsys)
    assert file.read_bytes() == before


def test_a_file_that_cannot_be_read_does_not_stop_the_map(
    file, monkeypatch, capsys, shown
):
    def refuse():
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(progress, "load", refuse)
    progress.show()
    assert "could not be read" in one_line(capsys)
    assert "Next: " in shown.of("text/plain")[0]


def test_a_working_folder_that_is_gone_is_told_in_one_line(
    tmp_path, monkeypatch, capsys
):
    def gone():
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.delenv("COURSE_PROGRESS")
    monkeypatch.setattr("pathlib.Path.cwd", gone)
    progress.record("01_descent", "mse", "right")
    assert "could not be saved" in one_line(capsys)


# ---- where ----


@pytest.fixture
def course(tmp_path, monkeypatch):
    "A course of its own, with no chapters, in which progress is kept."
    monkeypatch.delenv("COURSE_PROGRESS")
    monkeypatch.setattr(progress, "ROOT", tmp_path)
    for folder in ("work", "solutions"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def test_off_keeps_nothing(course, monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", "off")
    progress.record("01_descent", "mse", "right")
    assert progress.path() is None and progress.solved() == set()
    assert list((course / "work").iterdir()) == []


def test_a_solution_that_is_run_records_nothing(course, monkeypatch):
    progress.record("01_descent", "mse", "right")
    monkeypatch.chdir(course / "solutions")
    progress.record("01_descent", "predict", "right")
    assert progress.solved() == set()
    monkeypatch.chdir(course / "work")
    assert progress.solved() == {MSE}


# ---- the map ----


def write_chapter(course, name, title="# A title", exercises=(), text=None):
    "A solution notebook with these exercises."
    ids = ["title", *(i for e in exercises for i in (e, f"{e}-check"))]
    cells = [
        {"id": i, "source": [title, "\n", "\nmore"] if i == "title" else []}
        for i in ids
    ]
    text = json.dumps({"cells": cells}) if text is None else text
    (course / "solutions" / f"{name}.ipynb").write_text(text, encoding="utf-8")


def test_the_map_counts_and_names_what_is_next(course, shown):
    write_chapter(course, "01_one", "# 01 · One", ["a", "b"])
    write_chapter(course, "02_two", "# 02 · Two", ["c"])
    write_chapter(course, "00_zero", "# 00 · Zero")
    for step, next_up in enumerate(["01_one: a", "01_one: b", "02_two: c", None]):
        progress.show()
        text, table = shown.of("text/plain")[-1], shown.of("text/html")[-1]
        last = f"Next: {next_up}" if next_up else "Every exercise so far is solved."
        assert text.endswith(last) and last in table
        assert (
            f"{min(step, 2)} of 2" in text and f"<td>{min(step, 2)} of 2</td>" in table
        )
        assert text.count("●") == table.count("●") == step
        if next_up:
            progress.record(*next_up.split(": "), "right")
    assert text.index("Zero") < text.index("One") < text.index("Two")
    assert 'href="01_one.ipynb"' in table and '"../solutions/01_one.ipynb"' in table
    assert 'href="../GLOSSARY.md"' in table and 'href="../README.md"' in table


def test_an_exercise_that_is_gone_is_not_counted(course, shown):
    write_chapter(course, "01_one", exercises=["a"])
    progress.record("01_one", "renamed", "right")
    progress.show()
    assert "0 of 1" in shown.of("text/plain")[0]


def test_titles_are_escaped(course, shown):
    write_chapter(course, "01_one", "# 1 < 2 <script>x</script> & co")
    progress.show()
    assert (
        "1 &lt; 2 &lt;script&gt;x&lt;/script&gt; &amp; co" in shown.of("text/html")[0]
    )
    assert "1 < 2 <script>" in shown.of("text/plain")[0]


def test_only_chapters_count(course):
    write_chapter(course, "01_one")
    for name in ("notes", "1_x", "01_one-Copy1", "01_one.new", "ab_c", "02-x"):
        write_chapter(course, name)
    (course / "solutions" / "03_x.nbtext").write_text("")
    assert [c["name"] for c in progress.chapters()] == ["01_one"]


@pytest.mark.parametrize("text", ["", "<<<<<<< HEAD", "[]", "{}", '{"cells": []}', "3"])
def test_a_damaged_chapter_is_named_and_the_others_stay(course, shown, capsys, text):
    write_chapter(course, "01_one", exercises=["a"])
    write_chapter(course, "02_two", text=text)
    progress.show()
    assert "solutions/02_two.ipynb is damaged" in one_line(capsys)
    assert shown.of("text/plain")[0].endswith("Next: 01_one: a")


def test_in_a_script_the_map_is_plain_text(course, capsys):
    write_chapter(course, "01_one", "# 01 · One", ["a"])
    progress.show()
    assert one_line_of(capsys, "01 · One").endswith("○  0 of 1")


def one_line_of(capsys, begins):
    lines = capsys.readouterr().out.splitlines()
    return next(line for line in lines if line.startswith(begins))
