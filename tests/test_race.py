"""utils/bench/attention.py: the recorded race, and a checkout of nanoGPT by folder."""

import pytest
import torch

from utils.bench import attention as race
from utils.bench.peers import known

MODEL = """
from dataclasses import dataclass
import torch
from torch import nn
from torch.nn import functional as F

@dataclass
class GPTConfig:
    block_size: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float
    bias: bool

class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.table = nn.Embedding(config.vocab_size, config.vocab_size)

    def forward(self, idx, targets=None):
        logits = self.table(idx)
        return logits, F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))

    def configure_optimizers(self, weight_decay, lr, betas, device):
        return torch.optim.AdamW(self.parameters(), lr, betas, weight_decay=weight_decay)
"""


def test_what_ships_was_measured_and_agrees_with_the_code():
    seen = race.recorded()
    assert (seen["steps"], seen["our_steps"]) == (race.STEPS, race.OURS)
    assert seen["curve"][-1] == [seen["steps"], seen["loss"]]
    assert seen["our_loss"] < seen["loss"] + 0.01 and seen["date"] and seen["machine"]
    assert seen["seconds"] > 5 * seen["our_seconds"]


def test_the_recipes_rate_is_nanogpts():
    rates = [race._cosine(step, 2000) for step in (0, 50, 99, 100, 1050, 1999, 2000)]
    want = [1e-3 / 101, 51e-3 / 101, 1e-1 / 101, 1e-3, 5.5e-4, 1e-4, 1e-4]
    assert rates == pytest.approx(want, rel=1e-2)


def test_the_recipes_network_has_its_size():
    model, adamw, _ = race.recipe(65)
    assert sum(p.numel() for p in model.parameters()) == 804_096
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.1, 0.0]


@pytest.fixture
def small(monkeypatch):
    ids = torch.randint(7, (500,), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(race, "text", lambda: (ids, ids.unfold(0, 65, 64), 7))


def test_two_steps_are_timed_in_turns(small):
    theirs, ours = race.step_seconds(turns=2)
    assert theirs > 0 and ours > 0


def test_a_checkout_is_raced(small, tmp_path, monkeypatch):
    (tmp_path / "model.py").write_text(MODEL)
    monkeypatch.setattr(race, "in_turns", lambda a, b, **_: [a(), b()] and [1.0])
    (row,) = known.benchmarks(tmp_path)
    assert "attention.race" in row.name and row.peer
    assert row.function().samples == [race.STEPS / race.OURS]


def test_a_folder_that_cannot_run_says_why(small, tmp_path):
    (tmp_path / "model.py").write_text("class GPTConfig:\n    pass\n")
    (row,) = known.benchmarks(tmp_path)
    with pytest.raises(ImportError, match="GPT"):
        row.function()
