"""Files that are whole at every moment."""

import os
import subprocess
import sys
import time

import pytest

from utils import files
from utils.files import ROOT, whole, write_whole


def test_text_and_bytes_arrive_as_they_are(tmp_path):
    write_whole(tmp_path / "a", "梯度\n")
    write_whole(tmp_path / "b", b"\x00\xff")
    assert (tmp_path / "a").read_bytes() == "梯度\n".encode()
    assert (tmp_path / "b").read_bytes() == b"\x00\xff"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_changes_nothing_and_leaves_nothing(
    tmp_path, monkeypatch, step
):
    file = tmp_path / "a"
    write_whole(file, "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_whole(file, "new")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_block_that_raises_changes_nothing(tmp_path):
    write_whole(tmp_path / "a", "old")
    with pytest.raises(KeyError), whole(tmp_path / "a") as file:
        file.write(b"half of")
        raise KeyError("b")
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_the_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: done.append("sync") or sync(fd))
    monkeypatch.setattr(os, "replace", lambda *a: done.append("name") or replace(*a))
    write_whole(tmp_path / "a", "x")
    write_whole(tmp_path / "a", "x", lasting=False)
    assert done == ["sync", "name", "name"]


def test_a_folder_that_is_missing_is_said_by_its_own_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_whole(tmp_path / "nowhere" / "a", "x")


# ---- what killed processes leave ----

WRITER = (
    "import sys, time\nfrom utils.files import whole\n"
    "with whole(sys.argv[1]) as file:\n"
    "    file.write(b'half of'); file.flush(); print('in', flush=True); time.sleep(600)"
)


def writer(path):
    "A process that stands in the middle of writing `path`."
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout.readline().strip() == b"in"
    return process


def end(process):
    process.kill()
    process.communicate()


def test_the_next_writer_sweeps_what_killed_ones_left_and_nothing_else(tmp_path):
    write_whole(tmp_path / "a", "old")
    killed, living = writer(tmp_path / "a"), writer(tmp_path / "a")
    (tmp_path / ".a.notes.part").write_text("a reader's own")
    try:
        end(killed)
        assert len(os.listdir(tmp_path)) == 4
        write_whole(tmp_path / "b", "new")
        left = sorted(os.listdir(tmp_path))
        assert [name for name in left if f".{living.pid}-" in name] == [left[0]]
        assert left[1:] == [".a.notes.part", "a", "b"]
        assert (tmp_path / "a").read_text() == "old"
    finally:
        end(living)
    write_whole(tmp_path / "a", "new")
    assert sorted(os.listdir(tmp_path)) == [".a.notes.part", "a", "b"]


def part(folder, owner):
    file = folder / f".a.{owner}.1.part"
    file.write_text("x")
    return file


def test_a_name_says_whose_it_is(tmp_path):
    pid, start, place = files.owner().split("-")
    mine = part(tmp_path, f"{pid}-{start}-{place}")
    stranger = part(tmp_path, f"{pid}-1-deadbeef")  # on another machine: who knows
    unknown = part(tmp_path, f"{pid}-0-{place}")  # its start could not be read
    again = part(tmp_path, f"{pid}-1-{place}")  # the number is used again
    files.sweep(tmp_path, files.PART)
    assert mine.exists() and stranger.exists() and unknown.exists()
    assert not again.exists()


@pytest.mark.skipif(os.name == "nt", reason="no such state")
def test_a_dead_process_that_nobody_has_buried_is_dead(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", "print()"], stdout=subprocess.PIPE
    )
    process.stdout.read()
    until = time.monotonic() + 20
    while files.born(process.pid) is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert files.born(process.pid) is None
    process.communicate()
    assert files.born(process.pid) is None


def test_without_proc_and_psutil_everything_lives(monkeypatch, tmp_path):
    exists = os.path.exists
    monkeypatch.setattr(
        os.path, "exists", lambda p: p != "/proc/self/stat" and exists(p)
    )
    start = files.born(os.getpid())
    assert start > 0 and files.born(2**22 + 1) is None  # psutil's answers
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert files.born(os.getpid()) == files.born(2**22 + 1) == 0
    kept = part(tmp_path, files.owner())
    files.sweep(tmp_path, files.PART)
    assert kept.exists()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX")
def test_another_users_things_stay(tmp_path, monkeypatch):
    pid, _, place = files.owner().split("-")
    old = part(tmp_path, f"{pid}-1-{place}")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    files.sweep(tmp_path, files.PART)
    assert old.exists()


def test_a_link_is_swept_and_what_it_points_to_stays(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "x").write_text("x")
    pid, _, place = files.owner().split("-")
    name = f"ranks-{pid}-1-{place}-abc"
    try:
        os.symlink(tmp_path / "kept", tmp_path / name)
    except OSError:
        pytest.skip("no links here")
    files.sweep(tmp_path, files.named("ranks"))
    assert os.listdir(tmp_path) == ["kept"] and (tmp_path / "kept" / "x").exists()


def test_temporary_folders_of_one_kind_only_are_swept(tmp_path):
    pid, _, place = files.owner().split("-")
    for kind in ("ranks", "cranks", "rank"):
        (tmp_path / f"{kind}-{pid}-1-{place}-abc" / "deep").mkdir(parents=True)
    with files.temporary("ranks", tmp_path) as mine:
        kinds = sorted(name.split("-")[0] for name in os.listdir(tmp_path))
        assert kinds == ["cranks", "rank", "ranks"] and os.path.isdir(mine)
    assert not os.path.exists(mine)


def test_a_folder_that_is_missing_has_nothing_to_sweep(tmp_path):
    files.sweep(tmp_path / "nowhere", files.PART)
