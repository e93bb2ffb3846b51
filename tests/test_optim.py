"""utils.built.optim, and chapter 04's own rules, beside torch.optim; and what they refuse."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from utils.built import optim
from utils.checks.optimizers import chapter

SHAPES = (4, 3), (3,), ()
STEPS = 100
CASES = [
    ("SGD", "SGD", {"lr": 0.05}, {}),
    ("SGD", "SGD", {"lr": 0.05, "weight_decay": 0.1}, {}),
    ("SGD", "SGD", {"lr": 0.01, "momentum": 0.9}, {}),
    ("SGD", "SGD", {"lr": 0.01, "momentum": 0.5, "weight_decay": 0.1}, {}),
    ("SGD", "SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}, {}),
    ("AdaGrad", "Adagrad", {"lr": 0.1}, {}),
    ("AdaGrad", "Adagrad", {"lr": 0.5, "weight_decay": 0.1, "eps": 1e-3}, {}),
    ("RMSProp", "RMSprop", {"lr": 0.01}, {}),
    (
        "RMSProp",
        "RMSprop",
        {"lr": 0.002, "weight_decay": 0.1, "eps": 1e-3},
        {"alpha": 0.9},
    ),
    ("Adam", "Adam", {"lr": 0.01}, {}),
    ("Adam", "Adam", {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3}, {}),
    ("Adam", "Adam", {"lr": 0.01, "betas": (0.0, 0.99), "weight_decay": 0.1}, {}),
    ("AdamW", "AdamW", {"lr": 0.01}, {}),
    ("AdamW", "AdamW", {"lr": 0.1, "betas": (0.8, 0.9), "weight_decay": 0.5}, {}),
    ("AdamW", "AdamW", {"lr": 0.1, "weight_decay": 0.0}, {}),
]
RULES = [
    ("momentum", "SGD", {"lr": 0.01, "beta": 0.9}, {"lr": 0.01, "momentum": 0.9}),
    ("adagrad", "Adagrad", {"lr": 0.1}, {"lr": 0.1}),
    ("rmsprop", "RMSprop", {"lr": 0.002, "beta": 0.95}, {"lr": 0.002, "alpha": 0.95}),
    ("adam", "Adam", {"lr": 0.01}, {"lr": 0.01}),
    (
        "adamw",
        "AdamW",
        {"lr": 0.01, "weight_decay": 0.1},
        {"lr": 0.01, "weight_decay": 0.1},
    ),
]


def loss(p, target):
    "A curved, coupled, uneven surface; its slope along the last number changes sign often."
    curve = ((p[0] - target) ** 2).sum() * 3 + (p[0].sum(0) * p[1]).sin().sum()
    return curve + (p[1] ** 4).sum() / 4 + (2 * p[2]).cos() * p[2]


def torch_path(make):
    "torch's optimiser over 100 steps on `loss`: each step's weights and gradients."
    rng = np.random.default_rng(0)
    starts = [rng.normal(size=shape) for shape in SHAPES]
    target = torch.tensor(rng.normal(size=SHAPES[0]))
    p = [torch.tensor(start, requires_grad=True) for start in starts]
    moves, path = make(p), []
    for _ in range(STEPS):
        moves.zero_grad()
        loss(p, target).backward()
        grads = [x.grad.numpy().copy() for x in p]
        moves.step()
        path.append((grads, [x.detach().numpy().copy() for x in p]))
    return starts, target, path


def own_slopes(weights, target):
    """The gradient at OUR weights: an error would grow, not be corrected.

    With a large rate RMSProp dances around the bottom chaotically, and 1e-16 grows to
    1e-2 in 100 steps although both programs are right: hence its small rates above.
    """
    p = [torch.tensor(w, requires_grad=True) for w in weights]
    loss(p, target).backward()
    return [x.grad.numpy() for x in p]


@pytest.mark.parametrize(
    ("ours", "theirs", "options", "theirs_only"),
    CASES,
    ids=[f"{c[0]}-{'-'.join(map(str, c[2].values()))}" for c in CASES],
)
def test_classes_equal_torch_over_100_steps(ours, theirs, options, theirs_only):
    def make(p):
        return getattr(torch.optim, theirs)(p, **options, **theirs_only)

    starts, target, path = torch_path(make)
    mine = dict(options)
    if "alpha" in theirs_only:
        mine["beta"] = theirs_only["alpha"]
    p = [SimpleNamespace(data=np.array(s), grad=None) for s in starts]
    moves = getattr(optim, ours)(p, **mine)
    for _, want in path:
        for x, grad in zip(p, own_slopes([x.data for x in p], target)):
            x.grad = grad
        moves.step()
        for x, w in zip(p, want):
            np.testing.assert_allclose(x.data, w, atol=1e-6, rtol=0)
    moved = max(np.abs(x.data - s).max() for x, s in zip(p, starts))
    assert moved > 0.1, "they agree because nothing moved"


@pytest.mark.parametrize("where", ["utils", "chapter"])
@pytest.mark.parametrize(("name", "theirs", "options", "torchs"), RULES)
def test_rules_equal_torch_over_100_steps(where, name, theirs, options, torchs):
    rule = getattr(optim, name) if where == "utils" else chapter.reference(name)
    starts, target, path = torch_path(
        lambda p: getattr(torch.optim, theirs)(p, **torchs)
    )
    weights, states = [np.array(s) for s in starts], [{} for _ in starts]
    for _, want in path:
        grads = own_slopes(weights, target)
        for i, grad in enumerate(grads):
            weights[i], states[i] = rule(weights[i], grad, states[i], **options)
            np.testing.assert_allclose(weights[i], want[i], atol=1e-6, rtol=0)


def test_float32_weights_stay_float32():
    for make in (optim.SGD, optim.AdaGrad, optim.RMSProp, optim.Adam, optim.AdamW):
        p = SimpleNamespace(data=np.ones(3, np.float32), grad=np.ones(3, np.float32))
        moves = make([p])
        for _ in range(3):
            moves.step()
        assert p.data.dtype == np.float32 and (p.data < 1).all()
        assert all(
            np.asarray(v).dtype == np.float32
            for k, v in moves.states[0].items()
            if k != "t"
        )


def test_they_train_chapter_03s_network():
    from utils.built.nn import MLP, cross_entropy

    rng = np.random.default_rng(0)
    X = rng.normal(size=(64, 5)).astype(np.float32)
    labels = (X[:, 0] * X[:, 1] > 0).astype(int)
    for make in (optim.SGD, optim.AdaGrad, optim.RMSProp, optim.Adam, optim.AdamW):
        model = MLP([5, 16, 2], np.random.default_rng(1))
        moves, losses = make(model.parameters(), lr=0.02), []
        for _ in range(50):
            moves.zero_grad()
            loss_now = cross_entropy(model(X), labels)
            loss_now.backward()
            moves.step()
            losses.append(loss_now.item())
        assert losses[-1] < 0.95 * losses[0]
        flat = np.concatenate([p.data.ravel() for p in model.parameters()])
        assert np.array_equal(flat, model.flat), "the parameters left the flat buffer"


def parameter(grad=(1.0, 2.0)):
    return SimpleNamespace(
        data=np.zeros(2), grad=None if grad is None else np.array(grad)
    )


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: optim.SGD([], lr=0.1), ValueError, "no parameters"),
        (lambda: optim.Adam(iter([])), ValueError, "no parameters"),
        (lambda: optim.Adam([parameter()], lr=-0.1), ValueError, "lr is a number"),
        (lambda: optim.Adam([parameter()], lr=math.nan), ValueError, "lr is a number"),
        (lambda: optim.Adam([parameter()], betas=(1.0, 0.9)), ValueError, "beta1"),
        (lambda: optim.Adam([parameter()], eps=-1), ValueError, "eps"),
        (
            lambda: optim.AdamW([parameter()], weight_decay=-1),
            ValueError,
            "weight_decay",
        ),
        (lambda: optim.SGD([parameter()], weight_decay=-1), ValueError, "weight_decay"),
        (lambda: optim.SGD([parameter()], nesterov=True), ValueError, "Nesterov"),
        (lambda: optim.SGD([np.zeros(2)]), TypeError, "parameter 0 is a ndarray"),
        (lambda: optim.SGD([parameter()] * 2), ValueError, "twice"),
        (lambda: optim.EarlyStopping(0), ValueError, "patience"),
        (lambda: optim.warmup_cosine(0, 0.1, 10, 10), ValueError, "does not fit"),
        (lambda: optim.soft_threshold(np.ones(2), -0.1), ValueError, "at least 0"),
        (lambda: optim.shift_digits(np.ones((2, 60)), 1, 0), ValueError, "square"),
    ],
)
def test_bad_input_is_refused(make, error, says):
    with pytest.raises(error, match=says):
        make()


@pytest.mark.parametrize(
    ("grad", "error", "says"),
    [
        (None, ValueError, r"parameter 1, shape \(2,\), has no gradient"),
        ((1.0, 2.0, 3.0), ValueError, r"parameter 1.*gradient of shape \(3,\)"),
        ((1.0, math.nan), FloatingPointError, "parameter 1.*1 of 2 values"),
        ((math.inf, 0.0), FloatingPointError, "parameter 1.*nan or infinite"),
    ],
)
def test_a_bad_gradient_is_named_and_nothing_moves(grad, error, says):
    p = [parameter(), parameter(grad)]
    moves = optim.Adam(p)
    with pytest.raises(error, match=says):
        moves.step()
    assert all((x.data == 0).all() for x in p) and moves.states == [{}, {}]


def test_a_rate_set_later_is_checked_too():
    moves = optim.SGD([parameter()])
    moves.lr = -1
    with pytest.raises(ValueError, match="at least 0"):
        moves.step()


def test_zero_grad_forgets():
    p = parameter()
    optim.SGD([p]).zero_grad()
    assert p.grad is None


def test_early_stopping_keeps_copies_of_the_best():
    stopper, w = optim.EarlyStopping(patience=2), np.zeros(3)
    said = []
    for loss_now in (3.0, 1.0, math.nan, 2.0):
        w += 1
        said.append(stopper.update(loss_now, [w]))
    assert said == [False, False, False, True]
    assert stopper.best_loss == 1.0 and (stopper.best_weights[0] == 2).all()


@pytest.mark.parametrize("down", [-9, -2, 0, 3, 8])
@pytest.mark.parametrize("right", [-8, -1, 0, 2, 11])
def test_shift_equals_a_slow_loop(down, right):
    X = np.random.default_rng(0).normal(size=(3, 64))
    want = np.zeros((3, 8, 8))
    for n in range(3):
        for row in range(8):
            for column in range(8):
                if 0 <= row + down < 8 and 0 <= column + right < 8:
                    want[n, row + down, column + right] = X[n, 8 * row + column]
    np.testing.assert_array_equal(
        optim.shift_digits(X, down, right), want.reshape(3, 64)
    )


def test_initial_weights_keep_the_signal():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 400))
    for _ in range(10):
        x = np.maximum(x @ optim.he_init(400, 400, rng), 0)
    assert 0.5 < np.sqrt((x**2).mean()) < 2
    assert optim.xavier_init(300, 100, rng).std() == pytest.approx(
        (2 / 400) ** 0.5, rel=0.02
    )


def test_l1_by_soft_threshold_gives_exact_zeros():
    w = np.array([0.3, -0.3, 2.0, -2.0])
    np.testing.assert_allclose(optim.soft_threshold(w, 0.5), [0, 0, 1.5, -1.5])
    assert np.count_nonzero(optim.soft_threshold(w, 0.5)) == 2
