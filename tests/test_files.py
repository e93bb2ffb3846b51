"""Files that are whole at every moment."""

import os

import pytest

from utils.files import whole, write_whole


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
