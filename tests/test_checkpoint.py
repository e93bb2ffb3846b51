"""utils/built/checkpoint.py: a file is whole or refused, and what it holds never runs.

That a resumed run ends with the same bits is test_train.py's.
"""

import os
import random
import tempfile

import pytest
import torch

from utils.built import checkpoint, rows


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


def test_no_flipped_bit_gives_other_values(tmp_path):
    path, draw = tmp_path / "run.pt", random.Random(0)
    state = {"w": torch.arange(3000.0), "at": {"epoch": 3, "done": 5}}
    checkpoint.save_checkpoint(path, state)
    whole, refused = path.read_bytes(), 0
    for _ in range(200):
        bit = draw.randrange(8 * len(whole))
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            got = checkpoint.load_checkpoint(path)
        except ValueError:
            refused += 1
            continue
        assert torch.equal(got["w"], state["w"]) and got["at"] == state["at"]
    assert refused > 150, "most bits are the values' own"


def test_a_save_that_fails_leaves_no_part(tmp_path):
    path = tmp_path / "run.pt"
    with pytest.raises(OSError, match="no space"):
        checkpoint.save_checkpoint(path, {"later": Unwritable()})
    assert list(tmp_path.iterdir()) == []


# ---- checkpoints of somebody else ----


def run(kind=torch.optim.Adam, width=3, scheduler=None):
    model = torch.nn.Linear(4, width)
    optimizer = kind(model.parameters(), lr=0.1)
    X, y = torch.ones(6, 4), torch.zeros(6, dtype=torch.long)
    return checkpoint.Run(model, optimizer, scheduler, rows.loader(X, y, 2, seed=0))


def changed(**parts):
    "The state of a run's checkpoint with some parts replaced or (None) left out."
    with tempfile.TemporaryDirectory() as folder:
        run().save(f"{folder}/run.pt")
        state = checkpoint.load_checkpoint(f"{folder}/run.pt")
    state |= parts
    return {key: value for key, value in state.items() if value is not None}


FOREIGN = {
    "a list": [1, 2],
    "another program's": {"state_dict": {"w": torch.ones(2)}},
    "no optimizer": changed(optimizer=None),
    "no place": changed(at=None),
    "a model that is a tensor": changed(model=torch.ones(3)),
    "another model": changed(model={"weight": torch.ones(2, 4), "bias": torch.ones(2)}),
    "a longer model": changed(model={**run().model.state_dict(), "more": torch.ones(1)}),
    "an empty optimizer": changed(optimizer={}),
    "SGD's optimizer": changed(optimizer=run(torch.optim.SGD).optimizer.state_dict()),
    "another place": changed(at={"step": 3}),
    "another history": changed(history={"loss": [1.0]}),
    "another random state": changed(random=[1]),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_checkpoint_is_refused_before_anything_has_changed(name, tmp_path):
    path, mine = tmp_path / "run.pt", run()
    checkpoint.save_checkpoint(path, FOREIGN[name])
    before = {k: v.clone() for k, v in mine.model.state_dict().items()}
    with pytest.raises(ValueError, match=r"run\.pt"):
        mine.load(path)
    after = mine.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert (mine.epoch, mine.done, mine.optimizer.state_dict()["state"]) == (0, 0, {})
