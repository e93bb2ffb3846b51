"""utils/built/train.py: the loop that every later chapter uses, and what it says when misused."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from utils import plots
from utils.built import train
from utils.figures import pytorch as figures


def blobs(rows=90, classes=3, seed=0):
    "Rows (N, 4) around one centre a class, labels (N,)."
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (rows,), generator=g)
    return torch.randn(rows, 4, generator=g) + 3 * F.one_hot(y, 4), y


def make(seed=0, lr=1e-2, steps=None):
    "A model with dropout, its optimiser and, given steps, a scheduler."
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    if steps is None:
        return model, optimizer
    return model, optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps)


def weights(model):
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()


# ---- steps and scores ----


def test_evaluate_counts_rows_and_restores_every_mode():
    X, y = blobs()
    model, _ = make()
    model.train()
    model[2].eval()
    score = train.evaluate(model, train.loader(X, y, 64))
    assert [m.training for m in model] == [True, True, False, True]
    model.eval()
    with torch.no_grad():
        assert score.loss == pytest.approx(
            F.cross_entropy(model(X), y).item(), abs=1e-6
        )
        right = (model(X).argmax(1) == y).sum().item()
    assert score.accuracy == right / 90


def test_evaluate_of_targets_that_are_no_classes():
    score = train.evaluate(
        nn.Linear(4, 2), [(torch.ones(3, 4), torch.ones(3, 2))], F.mse_loss
    )
    assert score.loss > 0 and math.isnan(score.accuracy)


def test_evaluate_restores_the_mode_after_an_error():
    model, _ = make()
    with pytest.raises(RuntimeError):
        train.evaluate(model, [(torch.ones(2, 5), torch.zeros(2, dtype=torch.long))])
    assert model.training


def test_nothing_to_evaluate():
    with pytest.raises(ValueError, match="nothing to evaluate"):
        train.evaluate(make()[0], [])


def test_nothing_to_train_on():
    X, y = blobs()
    for empty in ([], train.loader(X[:0], y[:0], 8, seed=0)):
        with pytest.raises(ValueError, match="no batch"):
            train.fit(*(model := make())[:1], empty, model[1], epochs=1)


def test_a_nan_loss_stops_and_names_the_step():
    X, y = blobs()
    X[40] = math.nan
    model, optimizer = make()
    seen = []
    with pytest.raises(FloatingPointError, match=r"nan at step \d+") as told:
        train.fit(model, train.loader(X, y, 8), optimizer, 2,
                  on_step=lambda step, loss: seen.append(step))  # fmt: skip
    assert "at step 5 " in str(told.value) and seen == [0, 1, 2, 3, 4]
    assert weights(model).isfinite().all(), "the bad batch must not reach the weights"


def test_model_and_batch_on_two_devices():
    X, y = blobs()
    model, optimizer = make()
    model.to("meta")
    for call in (
        lambda: train.fit(model, train.loader(X, y, 8), optimizer, 1),
        lambda: train.evaluate(model, train.loader(X, y, 8)),
    ):
        with pytest.raises(ValueError, match="model is on meta, the batch on cpu"):
            call()


def test_clip_bounds_the_step():
    X, y = blobs()
    model, _ = make()
    old = weights(model)
    train.train_step(
        model, 100 * X, y, torch.optim.SGD(model.parameters(), 1.0), clip=0.1
    )
    assert (weights(model) - old).norm().item() == pytest.approx(0.1, rel=1e-3)


# ---- the run ----


def test_fit_learns_and_writes_it_down():
    X, y = blobs()
    model, optimizer = make()
    batches = train.loader(X, y, 16, seed=0)
    history = train.fit(
        model, batches, optimizer, 15, validation=train.loader(X, y, 64)
    )
    assert len(history.losses) == 15 * 6 and len(history.scores) == 15
    assert history.losses[-1] < history.losses[0] and history.accuracy[-1] > 0.9


def test_fit_takes_any_list_of_batches_and_any_loss():
    X, y = blobs()
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    history = train.fit(
        model, [(X, y[:, None].float())], optimizer, 20, loss=F.mse_loss
    )
    assert history.losses[-1] < history.losses[0]


def test_patience_stops_and_goes_back_to_the_best():
    X, y = blobs()
    model, optimizer = make(lr=0.5)  # so large that the loss wanders
    held = train.loader(*blobs(seed=1), 90)
    history = train.fit(model, train.loader(X, y, 16, seed=0), optimizer, 200,
                        validation=held, patience=3)  # fmt: skip
    losses = [loss for loss, _ in history.scores]
    assert history.stopped and len(losses) == history.best_epoch + 4
    assert train.evaluate(model, held).loss == pytest.approx(min(losses), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"epochs": 0}, "at least 1"),
        ({"epochs": 1, "patience": 2}, "needs a validation loader"),
        ({"epochs": 1, "every": 0}, "at least 1"),
    ],
)
def test_bad_options(options, says):
    with pytest.raises(ValueError, match=says):
        train.fit(make()[0], train.loader(*blobs(), 8), make()[1], **options)


class Cut(Exception):
    pass


def cut_at(last):
    def on_step(step, loss):
        if step == last:
            raise Cut

    return on_step


@pytest.mark.parametrize("at", [3, 11, 12, 17, 29, 40])  # 12 steps an epoch
@pytest.mark.parametrize(("patience", "every"), [(None, 5), (50, 6)])
def test_resumed_is_unbroken_bit_for_bit(tmp_path, at, patience, every):
    held = train.loader(*blobs(seed=1), 30)

    def run(seed, **options):
        model, optimizer, scheduler = make(seed, steps=48)
        batches = train.loader(*blobs(), 8, seed=5)
        history = train.fit(model, batches, optimizer, 4, scheduler=scheduler,
                            validation=held, patience=patience, every=every, **options)  # fmt: skip
        return model, history

    unbroken, told = run(0)
    path = tmp_path / "run.pt"
    with pytest.raises(Cut):
        run(0, checkpoint=path, on_step=cut_at(at))
    if at + 1 < every:
        assert not path.exists()
        return
    torch.manual_seed(77)
    resumed, history = run(99, checkpoint=path)
    assert torch.equal(weights(resumed), weights(unbroken))
    assert history == told
    again, history = run(98, checkpoint=path)  # finished: nothing left to do
    assert torch.equal(weights(again), weights(unbroken)) and history == told


def test_another_order_is_another_run(tmp_path):
    path = tmp_path / "run.pt"
    model, optimizer = make()
    train.fit(model, train.loader(*blobs(), 8, seed=0), optimizer, 1, checkpoint=path)
    with pytest.raises(ValueError, match="would not be the same run"):
        train.fit(make()[0], train.loader(*blobs(), 8, seed=1), make()[1], 2,
                  checkpoint=path)  # fmt: skip


def test_a_checkpoint_needs_a_known_order(tmp_path):
    with pytest.raises(ValueError, match="its order is known"):
        train.fit(make()[0], [blobs()], make()[1], 1, checkpoint=tmp_path / "run.pt")


# ---- devices, the look at a new model, the display ----


def test_pick_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert train.pick_device() == train.pick_device("cpu") == torch.device("cpu")
    assert train.pick_device("meta").type == "meta"
    with pytest.raises(ValueError, match="this machine has: cpu"):
        train.pick_device("cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert train.pick_device().type == "cuda"
    assert train.pick_device("cuda:1") == torch.device("cuda:1")


def test_sanity_leaves_model_and_dice_alone():
    X, y = blobs()
    model, _ = make()
    old, dice = weights(model), torch.get_rng_state()
    seen = train.sanity(model, X[:16], y[:16], classes=3)
    assert torch.equal(weights(model), old) and torch.equal(torch.get_rng_state(), dice)
    assert seen.expected == pytest.approx(math.log(3)) and seen.rows == 16
    assert len(seen.losses) == 100 and seen.losses[-1] < seen.expected / 10
    fig, says = figures.sanity(*seen)
    assert plots.png(fig)  # and closes it
    assert "1.1" in says  # ln 3


def test_sanity_names_what_is_wrong():
    X, y = blobs()
    model, _ = make()
    with pytest.raises(AssertionError, match="1000 equal bets"):
        train.sanity(model, X, y, classes=1000)
    same = torch.ones(16, 4)  # equal rows, different labels: nothing to learn them by
    with pytest.raises(AssertionError, match="by heart"):
        train.sanity(model, same, y[:16], classes=3, slack=1.0)


def test_live_is_silent_outside_a_notebook(capsys):
    X, y = blobs()
    model, optimizer = make()
    history = train.fit(model, train.loader(X, y, 16, seed=0), optimizer, 2, live=True)
    assert len(history.losses) == 12 and capsys.readouterr().out == ""


def test_the_bar_names_the_epoch_that_ran(monkeypatch):
    told = []

    def note(history, epoch, last=False):
        told.append((len(history.losses), epoch, last))

    monkeypatch.setattr(train, "_watch", lambda *_: note)
    X, y = torch.rand(6, 64), torch.zeros(6, dtype=torch.long)
    model = torch.nn.Linear(64, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train.fit(model, train.loader(X, y, 3, seed=0), optimizer, 2, live=True)
    assert told == [
        (1, 1, False), (2, 1, False), (2, 1, False),
        (3, 2, False), (4, 2, False), (4, 2, True),
    ]  # fmt: skip
