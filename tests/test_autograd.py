"""The engine of chapter 03 against PyTorch, finite differences, and long graphs."""

import gc
import itertools
import time
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.bench import ratio, runner
from utils.built import nn
from utils.built.autograd import Tensor, history, no_grad, tape_bytes
from utils.built.gradcheck import gradcheck

RNG = np.random.default_rng(0)


def leaf(*shape, dtype=np.float64):
    return Tensor(RNG.normal(size=shape).astype(dtype), requires_grad=True)


# ---- equal to torch.autograd on random graphs ----

UNARY = {
    "neg": (lambda x: -x, lambda x: -x),
    "tanh": (lambda x: x.tanh(), torch.tanh),
    "relu": (lambda x: x.relu(), torch.relu),
    "exp": (lambda x: (x * 0.3).exp(), lambda x: torch.exp(x * 0.3)),
    "log": (lambda x: (x * x + 1.0).log(), lambda x: torch.log(x * x + 1.0)),
    "power": (lambda x: x**3, lambda x: x**3),
    "root": (lambda x: (x * x + 0.5) ** 0.5, lambda x: (x * x + 0.5) ** 0.5),
    "abs": (abs, torch.abs),
    "T": (lambda x: x.T, lambda x: x.T),
    "reshape": (lambda x: x.reshape(-1, 1), lambda x: x.reshape(-1, 1)),
    "sum": (lambda x: x.sum(0, keepdims=True), lambda x: x.sum(0, keepdim=True)),
    "sum1": (lambda x: x.sum(1).reshape(-1, 1), lambda x: x.sum(1).reshape(-1, 1)),
    "mean": (lambda x: x.mean(-1, keepdims=True), lambda x: x.mean(-1, keepdim=True)),
    "mean of all": (
        lambda x: x.mean().reshape(1, 1),
        lambda x: x.mean().reshape(1, 1),
    ),
    "slice": (lambda x: x[:, ::2], lambda x: x[:, ::2]),
    "rows": (lambda x: x[[0, 0, -1]], lambda x: x[[0, 0, -1]]),
}
BINARY = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / (b * b + 1.0),
    "number": lambda a, b: 2.0 * a - b / 3 + 1 / (b * b + 2.0),
}


def fits(a, b):
    try:
        np.broadcast_shapes(a, b)
    except ValueError:
        return False
    return max(np.broadcast_shapes(a, b), default=0) < 40


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_gradients_equal_torch_on_random_graphs(data):
    sizes = st.integers(1, 4)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    shapes = data.draw(st.lists(st.tuples(sizes, sizes), min_size=1, max_size=4))
    arrays = [rng.normal(size=shape) for shape in shapes]
    ours = [Tensor(a.copy(), requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    known = list(zip(ours, theirs))
    for _ in range(data.draw(st.integers(1, 12))):
        a, x = known[data.draw(st.integers(0, len(known) - 1))]
        b, y = known[data.draw(st.integers(0, len(known) - 1))]
        kind = data.draw(st.sampled_from(["unary", "binary", "matmul"]))
        if kind == "matmul" and a.shape[1] == b.shape[0]:
            made = (a @ b).tanh(), torch.tanh(x @ y)
        elif kind == "binary" and fits(a.shape, b.shape):
            f = BINARY[data.draw(st.sampled_from(sorted(BINARY)))]
            made = f(a, b).tanh(), torch.tanh(f(x, y))
        else:
            f, g = UNARY[data.draw(st.sampled_from(sorted(UNARY)))]
            made = f(a), g(x)
        known.append(made)
    total = sum(
        ((a * 1.5).tanh().mean() for a, _ in known[1:]), known[0][0].tanh().mean()
    )
    other = sum(
        (torch.tanh(x * 1.5).mean() for _, x in known[1:]),
        torch.tanh(known[0][1]).mean(),
    )
    total.backward()
    other.backward()
    np.testing.assert_allclose(total.data, other.detach().numpy(), atol=1e-9)
    for a, x in zip(ours, theirs):
        np.testing.assert_allclose(a.grad, x.grad.numpy(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3, 4), (4, 2)), ((4,), (4,)), ((4,), (4, 2)), ((3, 4), (4,)), ((5, 3, 4), (4, 2)),
        ((3, 4), (5, 4, 2)), ((2, 1, 3, 4), (5, 4, 2)), ((4,), (5, 4, 2)), ((5, 3, 4), (4,)),
    ],
)  # fmt: skip
def test_matmul_of_every_rank(a, b):
    ours = leaf(*a), leaf(*b)
    theirs = [torch.tensor(t.data, requires_grad=True) for t in ours]
    (ours[0] @ ours[1]).tanh().sum().backward()
    torch.tanh(theirs[0] @ theirs[1]).sum().backward()
    for t, x in zip(ours, theirs):
        np.testing.assert_allclose(t.grad, x.grad.numpy(), atol=1e-9)


@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 2), (1,)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_sum_and_mean_over_axes(axis, keepdims):
    x = leaf(2, 3, 4)
    assert gradcheck(lambda x: x.sum(axis, keepdims) ** 2, x) < 1e-6
    assert gradcheck(lambda x: x.mean(axis, keepdims) ** 2, x) < 1e-6


def test_arrays_and_numbers_on_both_sides():
    x, a = leaf(3), np.array([1.0, 2.0, 4.0])
    for f in (
        lambda x: a + x, lambda x: a - x, lambda x: a * x, lambda x: a / (x * x + 1),
        lambda x: 2 - x, lambda x: 3 / (x * x + 1), lambda x: np.eye(3) @ x,
        lambda x: np.float64(2) * x, lambda x: x.transpose(),
    ):  # fmt: skip
        assert isinstance(f(x), Tensor)
        assert gradcheck(f, x) < 1e-6


def test_transpose_with_axes():
    x = leaf(2, 3, 4)
    assert x.transpose(2, 0, 1).shape == (4, 2, 3)
    assert gradcheck(lambda x: x.transpose(2, 0, 1) ** 2, x) < 1e-6
    assert gradcheck(lambda x: x.transpose((0, 2, 1)) ** 3, x) < 1e-6


# ---- the walk ----


def test_a_chain_far_longer_than_any_stack():
    x = Tensor(1.0, requires_grad=True)
    node = x
    for _ in range(200_000):
        node = node + 0.0
    node.backward()
    assert x.grad == 1
    del node  # freeing a long chain must not overflow the stack either


def test_diamonds_a_thousand_deep():
    x = Tensor(1.0, requires_grad=True)
    node = x
    for _ in range(1000):
        node = node * 0.5 + node * 0.5
    node.backward()
    assert x.grad == 1


def test_time_is_linear_in_the_number_of_nodes():
    def seconds(length):
        x = Tensor(1.0, requires_grad=True)
        node = x
        for _ in range(length):
            node = node + node
            node = node * 0.5
        start = time.process_time()
        node.backward()
        return time.process_time() - start

    seconds(1000)
    gc.disable()
    try:
        short, long = (min(seconds(n) for _ in range(3)) for n in (5_000, 40_000))
    finally:
        gc.enable()
    assert long < 8 * 5 * short + 0.05  # quadratic would be 64 times


def test_history_puts_every_node_after_its_users():
    a, b = leaf(2), leaf(2)
    nodes = [a, b]
    for _ in range(200):
        i, j = RNG.integers(len(nodes), size=2)
        nodes.append(nodes[i] + nodes[j])
    order = history(nodes[-1])
    place = {node: i for i, node in enumerate(order)}
    for node in order:
        for parent in node.parents:
            assert parent.rule is None or place[parent] > place[node]


def test_leaves_add_up_and_results_start_anew():
    x = leaf(3)
    y = (x * x).sum()
    y.backward()
    y.backward()
    np.testing.assert_allclose(x.grad, 4 * x.data)
    x.zero_grad()
    assert x.grad is None
    y.backward(keep=True)
    np.testing.assert_allclose(x.grad, 2 * x.data)
    assert y.grad == 1


def test_a_rule_that_shares_one_array_between_parents():
    a, b = leaf(3), leaf(3)
    ((a + b) + a).sum().backward()
    np.testing.assert_array_equal(a.grad, [2, 2, 2])
    np.testing.assert_array_equal(b.grad, [1, 1, 1])
    a.grad *= 0  # and the grads are the leaves' own, free to be changed
    np.testing.assert_array_equal(b.grad, [1, 1, 1])


def test_backward_from_a_leaf_and_with_a_gradient():
    x = leaf(2)
    x.backward(np.array([3.0, 4.0]))
    np.testing.assert_array_equal(x.grad, [3, 4])
    (x * 2).backward(np.ones(2))
    np.testing.assert_array_equal(x.grad, [5, 6])


def test_a_graph_is_freed_without_the_cyclic_collector():
    x = leaf(4)
    y = (x.exp() + x.tanh().relu() * 2).sum()
    watched = [weakref.ref(node) for node in history(y)]
    gc.disable()
    try:
        y.backward()
        del y
        assert all(ref() is None for ref in watched)
    finally:
        gc.enable()


def test_constants_get_no_gradient():
    x, c = leaf(2, 2), Tensor(np.eye(2))
    (x @ c + c).sum().backward()
    assert c.grad is None
    assert not (c * 2).requires_grad


# ---- no_grad, precision, errors ----


def test_no_grad_keeps_nothing_and_nests():
    x = leaf(2)
    with no_grad():
        with no_grad():
            pass
        assert (x * 2).parents == ()
    assert (x * 2).requires_grad

    @no_grad()
    def silent():
        return x * 2

    assert not silent().requires_grad
    with pytest.raises(ZeroDivisionError), no_grad():
        1 / 0  # noqa: B018
    assert (x * 2).requires_grad


def test_float32_stays_float32():
    x, W = leaf(2, 3, dtype=np.float32), leaf(3, 2, dtype=np.float32)
    y = ((x @ W * 2.0 + 1) / 3 - 0.5).relu().mean() ** 2
    assert y.dtype == np.float32
    y.backward()
    assert W.grad.dtype == np.float32
    mixed = W * np.ones(2)  # float64 meets float32
    mixed.sum().backward()
    assert W.grad.dtype == np.float32


def test_whole_numbers_become_floats_and_words_do_not():
    assert Tensor([1, 2]).dtype == np.float64
    assert Tensor(True).dtype == np.float64
    with pytest.raises(TypeError, match="holds floats"):
        Tensor(["a"])


@pytest.mark.parametrize(
    ("slip", "error", "says"),
    [
        (lambda: (leaf(2) * 2).backward(), RuntimeError, "starts from one number"),
        (lambda: Tensor(1.0).backward(), RuntimeError, "no Tensor with requires_grad"),
        (lambda: leaf().backward(np.ones(2)), ValueError, "grad has shape (2,)"),
        (lambda: leaf(2) + leaf(3), ValueError, "add: the shapes (2,) and (3,)"),
        (
            lambda: leaf(2, 3) @ leaf(2),
            ValueError,
            "matmul: the shapes (2, 3) and (2,)",
        ),
        (lambda: leaf(2, 3).reshape(5), ValueError, "cannot reshape (2, 3)"),
        (lambda: leaf(2) ** leaf(2), TypeError, "exponent is a plain number"),
        (lambda: leaf(2).__setitem__(0, 1.0), TypeError, "cannot be assigned"),
        (
            lambda: setattr(leaf(2), "data", np.ones(3)),
            ValueError,
            "new data has shape",
        ),
        (lambda: leaf(0).mean(), ValueError, "mean of nothing"),
        (lambda: nn.MLP([3], RNG), ValueError, "at least two numbers"),
        (lambda: nn.linear(leaf(2, 3), leaf(2, 3), leaf(3)), ValueError, "a layer"),
        (
            lambda: nn.cross_entropy(leaf(2, 3), [0, 3]),
            ValueError,
            "labels lie in 0 .. 2",
        ),
        (lambda: nn.cross_entropy(leaf(2, 3), [0, -1]), ValueError, "labels lie in"),
        (lambda: nn.cross_entropy(leaf(2, 3), [0]), ValueError, "labels (N,)"),
        (lambda: nn.cross_entropy(leaf(2, 3), [0.0, 1.0]), TypeError, "whole numbers"),
        (
            lambda: gradcheck(lambda x: x, leaf(2, dtype=np.float32)),
            TypeError,
            "float64",
        ),
    ],
)
def test_errors_explain_themselves(slip, error, says):
    with pytest.raises(error) as caught:
        slip()
    assert says in str(caught.value)


def change(t):
    t.data -= 0.1


def replace(t):
    t.data = t.data * 2


@pytest.mark.parametrize("changes", [change, replace])
@pytest.mark.parametrize("of", ["input", "output"])
def test_a_changed_value_is_noticed(changes, of):
    x = leaf(3)
    y = x.exp() if of == "output" else x * x
    z = y.sum()
    changes(y if of == "output" else x)
    with pytest.raises(RuntimeError, match="was changed after it was used"):
        z.backward()


def test_a_change_that_no_rule_minds_is_fine():
    x = leaf(3)
    y = (x + 1).sum()
    x.data -= 0.1
    y.backward()
    np.testing.assert_array_equal(x.grad, [1, 1, 1])


# ---- fused layers and the network ----


def test_fused_layers_equal_plain_ones():
    X, W, b = leaf(5, 3), leaf(3, 4), leaf(4)
    assert gradcheck(nn.linear, X, W, b) < 1e-6
    assert gradcheck(nn.linear_relu, X, W, b) < 1e-6
    np.testing.assert_allclose(nn.linear_relu(X, W, b).data, (X @ W + b).relu().data)
    labels = np.array([0, 3, 1, 1, 2])
    assert (
        gradcheck(lambda X, W, b: nn.cross_entropy(X @ W + b, labels), X, W, b) < 1e-6
    )


def test_cross_entropy_equals_torch_even_far_out():
    for scale in (1, 1e4):
        logits = leaf(6, 5)
        logits.data *= scale
        labels = RNG.integers(0, 5, 6)
        x = torch.tensor(logits.data, requires_grad=True)
        theirs = torch.nn.functional.cross_entropy(x, torch.tensor(labels))
        ours = nn.cross_entropy(logits, labels)
        ours.backward()
        theirs.backward()
        np.testing.assert_allclose(float(ours), theirs.item(), rtol=1e-9)
        np.testing.assert_allclose(logits.grad, x.grad.numpy(), atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mlp_trains_like_torch(dtype):
    model = nn.MLP([6, 8, 7, 3], np.random.default_rng(0), dtype)
    kind = torch.float32 if dtype is np.float32 else torch.float64
    theirs = torch.nn.Sequential(
        torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 7), torch.nn.ReLU(),
        torch.nn.Linear(7, 3),
    ).to(kind)  # fmt: skip
    with torch.no_grad():
        for x, p in zip(theirs.parameters(), model.parameters()):
            x.copy_(torch.tensor(p.data.T))
    sgd = torch.optim.SGD(theirs.parameters(), lr=0.1)
    X, y = RNG.normal(size=(16, 6)).astype(dtype), RNG.integers(0, 3, 16)
    for _ in range(30):
        ours = nn.sgd_step(
            model.parameters(), lambda: nn.cross_entropy(model(X), y), lr=0.1
        )
        sgd.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            theirs(torch.tensor(X)), torch.tensor(y)
        )
        loss.backward()
        sgd.step()
        assert abs(ours - loss.item()) < (1e-5 if dtype is np.float32 else 1e-10)


def test_flat_buffers_hold_all_parameters_and_gradients():
    model = nn.MLP([4, 5, 2], np.random.default_rng(1))
    X, y = RNG.normal(size=(3, 4)), np.array([0, 1, 1])
    assert model.flat.size == 4 * 5 + 5 + 5 * 2 + 2
    assert [p.shape for p in model.parameters()] == [(4, 5), (5,), (5, 2), (2,)]
    for _ in range(2):
        model.zero_grad()
        nn.cross_entropy(model(X), y).backward()
        parts = np.concatenate([p.grad.ravel() for p in model.parameters()])
        np.testing.assert_array_equal(parts, model.flat_grad)
    before = model.flat_grad.copy()
    nn.cross_entropy(model(X), y).backward()  # not cleared: adds
    np.testing.assert_allclose(model.flat_grad, 2 * before, rtol=1e-5)
    for p in model.parameters():
        p.data = p.data * 0 + 7
    assert (model.flat == 7).all()


def test_one_weight_used_twice_collects_from_both_uses():
    _, _, (W, b) = nn.flat_parameters([(3, 3), (3,)], np.float64)
    W.data[...] = RNG.normal(size=(3, 3))
    X, V = leaf(2, 3), Tensor(W.data.copy(), requires_grad=True)
    nn.linear(nn.linear(X, W, b), W, b).sum().backward()
    ((X @ V + b) @ V + b).sum().backward()
    np.testing.assert_allclose(W.grad, V.grad)


def test_he_scale_and_zero_biases():
    model = nn.MLP([400, 300, 10], np.random.default_rng(0))
    W1, b1, W2, _ = model.parameters()
    assert abs(W1.data.std() / np.sqrt(2 / 400) - 1) < 0.02
    assert abs(W2.data.std() / np.sqrt(2 / 300) - 1) < 0.05
    assert not b1.data.any()


def test_tape_bytes_counts_results_not_views():
    x = leaf(10, 10)
    assert tape_bytes(x * 2) == 800
    assert tape_bytes((x * 2).T.reshape(10, 10)[:5]) <= 1600
    with no_grad():
        assert tape_bytes(x * 2 * 3) == 800


# ---- the bench ----


def test_bench_registry_bars_and_table():
    assert {"scalar engine", "array engine"} <= set(runner.discover())
    low = ratio.Benchmark("x", "<= 0.6", lambda: ratio.Ratio([0.5, 0.7, 0.4], "a / b"))
    high = ratio.Benchmark("y", ">= 25", lambda: ratio.Ratio([20.0], "c / d"))
    none = ratio.Benchmark("z", "", lambda: ratio.Ratio([1.0], "e / f"))

    def missing():
        raise ImportError("no module named faiss")

    rows = runner.measure([low, high, none, ratio.Benchmark("m", "<= 1", missing)])
    assert [row["met"] for row in rows] == [True, False, None, None]
    text = runner.table(rows)
    assert (
        "met" in text and "MISSED" in text and "not run: no module named faiss" in text
    )
    with pytest.raises(ValueError, match="a bar looks like"):
        ratio.benchmark("w", "0.6")


def test_bench_takes_turns():
    calls = []
    ratios = ratio.in_turns(
        lambda: calls.append("a"), lambda: calls.append("b"), pairs=3
    )
    assert calls == list("abbaabba") and len(ratios) == 3


def test_bench_lists_and_refuses_unknown_names(capsys):
    assert runner.main(["--list"]) == 0
    assert "array engine  <= 0.6" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        runner.main(["nonsense"])
    assert "no benchmark contains 'nonsense'" in capsys.readouterr().err


def test_both_scalar_engines_give_the_same_losses():
    from utils.bench import backprop as b

    engines = [
        b.Moons(b.ClosureValue, points=10), b.Moons(b.TapeValue, points=10),
        b.Moons(b.TapeValue, b.fused_neuron, points=10),
    ]  # fmt: skip
    losses = np.array([[loss for loss, _ in engine.run(4)] for engine in engines])
    np.testing.assert_allclose(losses[1:], losses[:1].repeat(2, 0), atol=1e-9)


# ---- axes counted from the end, single numbers, NumPy's functions ----


def test_transpose_has_torchs_gradient_for_every_permutation_and_sign():
    rng, tried = np.random.default_rng(0), 0
    for ndim in range(1, 5):
        shape = (2, 3, 4, 5)[:ndim]
        x, w = rng.normal(size=shape), rng.normal(size=shape)
        for order in itertools.permutations(range(ndim)):
            for signs in itertools.product((0, ndim), repeat=ndim):
                axes = [axis - sign for axis, sign in zip(order, signs)]
                ours = Tensor(x, requires_grad=True)
                weights = w.transpose(axes)
                (ours.transpose(*axes) * weights).sum().backward()
                theirs = torch.tensor(x, requires_grad=True)
                (theirs.permute(axes) * torch.tensor(weights.copy())).sum().backward()
                assert np.allclose(ours.grad, theirs.grad.numpy(), atol=1e-12)
                tried += 1
    assert tried == 2 + 2 * 4 + 6 * 8 + 24 * 16


@pytest.mark.parametrize("name", ["sum", "mean"])
@pytest.mark.parametrize("axis", [None, -1, 0])
@pytest.mark.parametrize("keepdims", [True, False])
def test_a_single_number_can_be_summed_along_an_axis(name, axis, keepdims):
    x = Tensor(3.0, requires_grad=True)
    out = getattr(x, name)(axis, keepdims)
    out.backward()
    assert (out.item(), x.grad.shape, x.grad.item()) == (3.0, (), 1.0)


NUMPY = {
    "asarray": np.asarray,
    "dot": lambda t: np.dot(t, np.ones(2)),
    "where": lambda t: np.where(np.ones(2, bool), t, 0.0),
    "concatenate": lambda t: np.concatenate([t, t]),
    "stack": lambda t: np.stack([t, t]),
    "clip": lambda t: np.clip(t, 0, 1),
    "einsum": lambda t: np.einsum("i->", t),
    "sum": lambda t: np.sum(t),
    "outer": lambda t: np.outer(t, t),
    "linalg": lambda t: np.linalg.norm(t),
}


@pytest.mark.parametrize("name", NUMPY)
def test_numpy_never_drops_a_history_silently(name):
    x = Tensor([1.0, 2.0], requires_grad=True)
    for tensor in (x, x * 2):
        try:
            out = NUMPY[name](tensor)
        except TypeError:
            continue
        assert isinstance(out, Tensor), "the Tensor's own method answered"
    with pytest.raises(TypeError, match=r"take its values alone, t\.data"):
        np.asarray(x)
    assert np.asarray(Tensor([1.0, 2.0])).tolist() == [1.0, 2.0], "nothing is lost here"
