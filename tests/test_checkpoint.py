"""utils/built/checkpoint.py: a file is whole or refused, and what it holds never runs.

That a resumed run ends with the same bits is test_train.py's.
"""

import os

import pytest
import torch

from utils.built import checkpoint


class Unwritable:
    def __reduce__(self):
        raise OSError("no space left on device")


class Poison:
    def __reduce__(self):
        return os.mkdir, ("it-ran",)


def test_the_previous_checkpoint_survives_a_failed_save(tmp_path):
    path = tmp_path / "run.pt"
    checkpoint.save_checkpoint(path, {"step": 1, "w": torch.ones(1000)})
    with pytest.raises(OSError, match="no space"):
        checkpoint.save_checkpoint(path, {"step": 2, "later": Unwritable()})
    assert checkpoint.load_checkpoint(path)["step"] == 1


def test_a_cut_file_is_refused_wherever_it_was_cut(tmp_path):
    path = tmp_path / "run.pt"
    checkpoint.save_checkpoint(path, {"step": 1, "w": torch.ones(1000)})
    whole = path.read_bytes()
    for share in (0, 0.0001, 0.01, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ValueError, match=r"run\.pt is (damaged|no checkpoint)"):
            checkpoint.load_checkpoint(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="is damaged"):
        checkpoint.load_checkpoint(path)
    with pytest.raises(FileNotFoundError):
        checkpoint.load_checkpoint(tmp_path / "none.pt")


def test_poison_is_refused_and_does_not_run(tmp_path, monkeypatch):
    import pickle

    monkeypatch.chdir(tmp_path)
    torch.save({"model": Poison()}, "gift.pt")
    with pytest.raises(ValueError, match="is refused"):
        checkpoint.load_checkpoint("gift.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Poison()))
    with pytest.raises(ValueError, match="is no checkpoint"):
        checkpoint.load_checkpoint("plain.pt")
    assert not (tmp_path / "it-ran").exists()
