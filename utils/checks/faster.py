"""Chapter 14: passes, blocks, parts, segments, tiles: fewer bytes for the same numbers."""

import torch
import torch._dynamo  # optimisers need it: import it here, not in a check's time limit
import torch.nn.functional as F
from torch import fx, nn
from torch.utils.checkpoint import checkpoint_sequential

from utils.built.live import Live
from utils.exercises import Chapter, Miss, same

chapter = Chapter("14_faster")
keeps_random = torch.random.fork_rng(devices=[])  # leave the reader's dice alone


def _random(seed=0):
    return torch.Generator().manual_seed(seed)


def _drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=_random(seed), dtype=dtype)


def _pair(case, got, size, rule):
    "Several things that an answer returns; Miss where there are not so many."
    if not isinstance(got, (tuple, list)) or len(got) != size:
        many = f" of {len(got)}" if isinstance(got, (tuple, list)) else ""
        raise Miss(rule, case, f"{type(got).__name__}{many}", f"{size} things")
    return got


def _at_most(case, got, most, rule):
    if got > most:
        raise Miss(rule, case, got, f"at most {most:,}")


# ---- passes ----


def chain(x, a, b):
    "Eight pointwise operators: the chapter's example."
    return ((x * a + b) * x - a) * b + x * 0.5 - 1


GRAPHS = {
    "x * a": (lambda x, a: x * a, (3, 3)),
    "x * 2 + 1": (lambda x: x * 2 + 1, (4, 2)),
    "x * x": (lambda x: x * x, (2, 2)),
    "(x + a) * x": (lambda x, a: (x + a) * x, (6, 3)),
    "the chapter's chain": (chain, (22, 4)),
    "tanh(x) and exp(x), both returned": (
        lambda x: (torch.tanh(x), torch.exp(x)), (4, 3),
    ),
    "y = x + a; both y and y * a returned": (
        lambda x, a: (x + a, (x + a) * a), (9, 4),
    ),
    "x + 1, with an input a that is not used": (lambda x, a: x + 1, (2, 2)),
}  # fmt: skip


@chapter.exercise(
    "Eager, each operator is a trip of its own. Count for one operator, then add up.",
    "node.all_input_nodes lists the tensors that an operator reads, each once and without "
    "numbers; it writes one more. Fused, only what comes in and what goes out moves.",
    "eager = sum(len(n.all_input_nodes) + 1 for each call_function); fused = placeholders "
    "with len(n.users) > 0, plus len(all_input_nodes) of the output node.",
)
def passes(answer):
    "Passes over memory of a graph, eager and fused."
    for case, (function, want) in GRAPHS.items():
        got = answer(fx.symbolic_trace(function))
        same(case, got, want, "Eager: each operator reads its different tensors once and "
             "writes one. Fused: the used inputs once, the outputs once.")  # fmt: skip


# ---- in_blocks ----


@chapter.exercise(
    "Make the result once. Then walk through it block by block, and let every operator "
    "write where it can.",
    "torch.mul(X, A, out=p) writes into p, a slice of the result. The half of x needs a "
    "second room, as large as one block.",
    "for i in range(0, len(x), size): w = slice(i, i + size); p = out[w]; torch.mul(x[w], "
    "a[w], out=p); torch.add(p, b[w], out=p); ... torch.mul(x[w], 0.5, out=room[:len(p)])",
)
def in_blocks(answer):
    "The chapter's chain, block by block, without a fresh tensor per operator."
    for N, size in ((12, 4), (10, 4), (3, 8), (7, 1), (5000, 512)):
        x, a, b = (_drawn(N, seed=s, dtype=torch.float32) for s in (1, 2, 3))
        want = chain(x, a, b)
        case = f"{N} numbers in blocks of {size}"
        got = answer(x, a, b, size)
        same(case, got, want, "((x a + b) x - a) b + x / 2 - 1, the ragged last block too.")  # fmt: skip
        same(f"{case}: how many numbers differ in a bit?", int((got != want).sum()), 0,
             "The same operators in the same order give the same bits.")  # fmt: skip
        again = answer(*(t + 1 for t in (x, a, b)), size)
        same(f"{case}: is the first result still there after a second call?",
             torch.equal(got, want) and not torch.equal(again, want), True,
             "The second call wrote over the first one's result: make a fresh result per "
             "call.")  # fmt: skip
    N, size = 40_000, 1000
    x, a, b = (_drawn(N, seed=s, dtype=torch.float32) for s in (1, 2, 3))
    with Live(x, a, b) as live:
        answer(x, a, b, size)
    _at_most(f"{N:,} numbers in blocks of {size:,}: bytes alive at most, beside the inputs",
             live.peak - 12 * N, 4 * N + 4 * 4 * size, "Beside the result only rooms of one "
             "block may be alive: give every operator an out=.")  # fmt: skip


# ---- fuse ----


def _graph(function):
    return fx.symbolic_trace(function)


FUSED = {
    "the chapter's chain": lambda x, a, b: (chain(x, a, b),),
    "tanh(x) * sigmoid(a)": lambda x, a, b: (torch.tanh(x) * torch.sigmoid(a),),
    "1 - x": lambda x, a, b: (1 - x,),
    "2.5 - (0.1 - x) * a": lambda x, a, b: (2.5 - (0.1 - x) * a,),
    "x * a and x * a + b, both returned": lambda x, a, b: (x * a, x * a + b),
    "(x - a) and (a - x), in this order": lambda x, a, b: (x - a, a - x),
}


def _one(x, a, b):
    y = x + a
    return (y, y * b)


@chapter.exercise(
    "In three parts: look at the graph (may it be fused?), prepare the rooms, return a "
    "function that walks through the blocks. It is in_blocks for any graph.",
    "Keep a dict {node: slice} per block: it begins with the inputs' slices; each "
    "call_function node reads its arguments there and writes OPS[node.target](*args, "
    "out=room).",
    "A node of the output writes into result[i:i + size], any other into its own room. "
    "Whatever is not float32, of one shape and in OPS: return graph.forward.",
    seconds=8,
)
def fuse(answer):
    "A backend for torch.compile that runs pointwise chains block by block."
    x, a, b = (_drawn(3, 7, seed=s, dtype=torch.float32) for s in (1, 2, 3))
    inputs = (x, a, b)
    for size in (64, 4):
        for case, function in FUSED.items():
            case = f"{case}, 21 numbers in blocks of {size}"
            run = answer(_graph(function), list(inputs), size)
            if not callable(run):
                raise Miss("A backend returns a function, which is called with the inputs "
                           "later.", case, type(run).__name__, "a function")  # fmt: skip
            want = function(*inputs)
            got = _pair(case, run(*inputs), len(want), "The function returns what the "
                        "graph returns: a tuple of all its outputs.")  # fmt: skip
            for number, (ours, theirs) in enumerate(zip(got, want)):
                which = f"{case}: output {number}"
                same(which, ours, theirs, "The same operators on the same numbers; also "
                     "the shape of the inputs comes back.")  # fmt: skip
                same(f"{which}, numbers that differ in a bit", int((ours != theirs).sum()),
                     0, "The same operators in the same order give the same bits.")  # fmt: skip
    got = answer(_graph(FUSED["1 - x"]), list(inputs))(*inputs)
    same("1 - x, called without a size, as torch.compile does", got[0], 1 - x,
         "The size of a block has a default that works.")  # fmt: skip
    got = answer(_graph(lambda x: (torch.exp(x) * x,)), [x], 4)(x)
    same("exp(x) * x, of one input", got[0], torch.exp(x) * x,
         "Graphs have one input or many.")  # fmt: skip
    case = "y = x + a; y and y * b are returned"
    got = answer(_graph(_one), list(inputs), 4)(*inputs)
    same(case, torch.stack(list(got)), torch.stack(_one(*inputs)),
         "An output that a later operator reads is needed twice: whole, and as a slice.")  # fmt: skip
    run = answer(_graph(FUSED["tanh(x) * sigmoid(a)"]), list(inputs), 4)
    first = run(*inputs)[0]
    want = torch.tanh(x) * torch.sigmoid(a)
    other = run(x + 1, a + 1, b)[0]
    same("called again with other numbers", other,
         torch.tanh(x + 1) * torch.sigmoid(a + 1), "The returned function works on what it "
         "is called with, not on the example inputs.", rtol=1e-5)  # fmt: skip
    same("called again: the first call's result", first, want,
         "The second call wrote over the first one's result: make fresh results per call.")  # fmt: skip
    N, size = 60_000, 1000
    big = [_drawn(N, seed=s, dtype=torch.float32) for s in (1, 2, 3)]
    run = answer(_graph(FUSED["the chapter's chain"]), big, size)
    with Live(*big) as live:
        run(*big)
    _at_most(f"the chain, {N:,} numbers in blocks of {size:,}: bytes alive at most, beside the inputs",
             live.peak - 12 * N, 4 * N + 4 * 9 * size, "Whole tensors between the "
             "operators: every operator needs an out= of one block.")  # fmt: skip
    _fallbacks(answer, x, a, b)
    function, far = FUSED["the chapter's chain"], [x.to("meta") for x in inputs]
    got = answer(_graph(function), far, 4)(*far)
    same("inputs on another device: where the result lies", str(got[0].device), "meta",
         "Results and rooms lie where the inputs lie: x.new_empty(...).")  # fmt: skip


def _fallbacks(answer, x, a, b):
    row = _drawn(7, seed=4, dtype=torch.float32)
    grad = x.clone().requires_grad_()
    for case, function, inputs, rule in [
        ("a sum, which is not pointwise", lambda x, a: (torch.sum(x) * a,), (x, a),
         "torch.sum is not in OPS: the graph runs as it is."),
        ("clamp(x, min=0), not in OPS", lambda x: (torch.clamp(x, min=0),), (x,),
         "An operator that is not in OPS: the graph runs as it is."),
        ("tanh(x), then clamp(x, min=0)", lambda x: (torch.clamp(torch.tanh(x), min=0),),
         (x,), "Every operator must be in OPS, or the graph runs as it is."),
        ("tanh(x) * a, and its sum", lambda x, a: (torch.tanh(x) * a, torch.sum(x)), (x, a),
         "torch.sum is not in OPS: the graph runs as it is."),
        ("x.abs(), a method", lambda x: (x.abs() + 1,), (x,),
         "A call_method node is no call_function: the graph runs as it is."),
        ("tanh(input=x), an argument with a name", lambda x, a: (torch.tanh(input=x) * a,),
         (x, a), "An argument with a name stands in node.kwargs, not in node.args: the "
         "graph runs as it is."),
        ("(3, 7) + (7,), two shapes", lambda x, r: (x + r,), (x, row),
         "Inputs of different shapes have no common blocks: the graph runs as it is."),
        ("float64 inputs", lambda x, a: (x * a + 0.1,), (x.double(), a.double()),
         "The rooms are float32: inputs of another dtype run as they are."),
        ("an input is returned last", lambda x, a: (x * a, x), (x, a),
         "An output that no operator makes: the graph runs as it is."),
        ("an input is returned as it came", lambda x, a: (x, x * a), (x, a),
         "An output that no operator makes: the graph runs as it is."),
    ]:  # fmt: skip
        want = function(*inputs)
        try:
            got = answer(_graph(function), list(inputs), 4)(*inputs)
        except NotImplementedError:
            raise
        except Exception as error:
            raise Miss(rule, case, f"{type(error).__name__}: {error}", "graph.forward") from None  # fmt: skip
        got = _pair(case, got, len(want), "What graph.forward returns: a tuple.")
        for ours, theirs in zip(got, want):
            same(case, ours, theirs, rule)
            same(f"{case}: the dtype", str(ours.dtype), str(theirs.dtype), rule)
    case = "an input that asks for gradients"
    try:
        out = answer(_graph(lambda x, a: (x * a,)), [grad, a], 4)(grad, a)[0]
        got = out.requires_grad
    except NotImplementedError:
        raise
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
    same(f"{case}: does the result know them?", got, True, "out= knows no gradients: "
         "such graphs run as they are.")  # fmt: skip


# ---- accumulate ----


def _classifier(dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    return model.to(dtype)


def _gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@chapter.exercise(
    "The big batch's loss is a sum over rows, divided once by the number of all rows.",
    "Count all rows first. Each part adds its sum of losses / N to the gradients: "
    "F.cross_entropy(..., reduction='sum').",
    "N = sum(len(y) for _, y in parts); for X, y in parts: loss = F.cross_entropy("
    "model(X), y, reduction='sum') / N; loss.backward(); total += loss.item()",
)
@keeps_random
def accumulate(answer):
    "The gradients of a big batch, from parts of any sizes."
    X, y = _drawn(12, 5), torch.randint(3, (12,), generator=_random(1))
    model = _classifier()
    loss = F.cross_entropy(model(X), y)
    loss.backward()
    want = _gradients(model)
    for sizes in ([12], [4, 4, 4], [5, 5, 2], [1, 11]):
        model, parts = _classifier(), list(zip(X.split(sizes), y.split(sizes)))
        case = f"12 rows in parts of {sizes}"
        got = answer(model, parts)
        if any(p.grad is None for p in model.parameters()):
            raise Miss("No gradients came: each part needs its backward().", case)
        same(f"{case}: the gradients", _gradients(model), want,
             "Every row counts 1 / 12, whichever part it is in.")  # fmt: skip
        same(f"{case}: the loss", got, loss.item(),
             "It returns the mean loss over all rows.")  # fmt: skip
    for p in model.parameters():
        p.grad.fill_(1.0)
    answer(model, parts)
    same("gradients that were 1 before", _gradients(model), want + 1,
         "Gradients are added to what is there: the caller says zero_grad.")  # fmt: skip
    wide = nn.Sequential(nn.Linear(5, 400), nn.Tanh(), nn.Linear(400, 3))
    X, y = _drawn(400, 5, dtype=torch.float32), torch.zeros(400, dtype=torch.long)
    accumulate_now = list(zip(X.split(40), y.split(40)))
    answer(wide, accumulate_now[:1])
    held = sum(p.numel() for p in wide.parameters())
    with Live(*wide.parameters(), [p.grad for p in wide.parameters()], X, y) as live:
        before = live.bytes
        answer(wide, accumulate_now)
    _at_most("400 rows of 400 hidden numbers, in ten parts: bytes alive at most, beside "
             "weights, gradients and rows", live.peak - before,
             4 * (3 * 40 * 400 + 3 * held), "The graphs of all parts are alive "
             "together: call backward part by part.")  # fmt: skip


# ---- kept ----


def _kept(L, k):
    "Units that checkpoint_sequential keeps, counted: distinct saved tensors of one size."
    with torch.random.fork_rng(devices=[]):
        blocks = nn.Sequential(
            *(nn.Sequential(nn.Linear(4, 4), nn.GELU()) for _ in range(L))
        )
    x, weights, found = torch.ones(3, 4, requires_grad=True), set(), {}
    weights = {p.data_ptr() for p in blocks.parameters()}

    def note(t):
        if t.data_ptr() not in weights:
            found[t.data_ptr()] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        out = checkpoint_sequential(blocks, k, x, use_reentrant=False)
    assert out is not None
    return len(found)


@chapter.exercise(
    "Draw 24 blocks in 4 segments. Which tensors stay after forward?",
    "All segments but the last are L // k blocks long and keep 1 unit each. The last takes "
    "all the blocks that are left, and keeps 2 for each.",
    "(k - 1) + 2 * (L - (k - 1) * (L // k))",
)
@keeps_random
def kept(answer):
    "Units that are kept after forward, with k segments of L blocks."
    for L, k in (
        (24, 1),
        (24, 2),
        (24, 4),
        (24, 5),
        (24, 24),
        (7, 3),
        (10, 4),
        (5, 5),
        (1, 1),
    ):
        same(f"{L} blocks, {k} segments", answer(L, k), _kept(L, k),
             "1 for each of the first k - 1 segments, 2 for each block of the last, which "
             "takes what is left.")  # fmt: skip


# ---- Recompute ----


@chapter.exercise(
    "Forward runs without a graph; backward runs it again with one, and lets that graph "
    "do the work.",
    "ctx.save_for_backward(x) keeps x. In backward: x.detach().requires_grad_(), run it "
    "under torch.enable_grad(), and call out.backward(grad).",
    "Keep torch.get_rng_state() in forward; in backward set it before the second run, and "
    "put back what was there. Return None, x.grad.",
    kind="class",
)
@keeps_random
def Recompute(answer):
    "An operator of autograd that keeps its input alone and runs twice."
    runs = []
    layers = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4)).double()

    def run(x):
        runs.append(torch.is_grad_enabled())
        return layers(x)

    def gradients(function, x):
        layers.zero_grad()
        x = x.clone().requires_grad_()
        out = function(x)
        (out * torch.arange(1.0, 5.0, dtype=torch.float64)).sum().backward()
        return out.detach(), x.grad, [p.grad for p in layers.parameters()]

    x = _drawn(3, 4)
    out, dx, dw = gradients(layers, x)
    got = gradients(lambda x: answer.apply(run, x), x)
    same("two layers and a tanh: the result", got[0], out, "forward returns run(x).")
    if any(p is None for p in got[2]):
        raise Miss("No gradient reaches the weights: the second run needs "
                   "torch.enable_grad().", "the weights' gradients", "None", "numbers")  # fmt: skip
    if got[1] is None:
        raise Miss("No gradient reaches x: backward returns None, x.grad.", "x's gradient",
                   "None", "numbers")  # fmt: skip
    for p, want in zip(got[2], dw):
        same("the weights' gradients", p, want, "Hand grad to the second run's backward, "
             "once.")  # fmt: skip
    same("x's gradient", got[1], dx, "backward returns one gradient per argument of "
         "forward: None for run, x.grad for x.")  # fmt: skip
    same("how often was it run, forward and backward together?", len(runs), 2,
         "Once in forward, once in backward.")  # fmt: skip
    same("x's own .grad after a use inside a larger graph",
         _twice(answer, layers), _twice(None, layers), "x is detached for the second run: "
         "its gradient goes back by return alone.")  # fmt: skip
    saved = []
    x = _drawn(3, 4).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t) or t, lambda t: t
    ):
        answer.apply(layers, x)
    same("tensors kept between forward and backward: the shapes",
         [tuple(t.shape) for t in saved], [(3, 4)], "Only x is kept, by "
         "ctx.save_for_backward(x).")  # fmt: skip
    _same_dice(answer)


def _twice(answer, layers):
    "Gradient of a leaf whose double goes through the layers and past them."
    leaf = _drawn(3, 4, seed=2).requires_grad_()
    x = leaf * 2
    out = layers(x) if answer is None else answer.apply(layers, x)
    (out + x**2).sum().backward()
    return leaf.grad


def _same_dice(answer):
    drop = nn.Dropout(0.5)
    torch.manual_seed(3)
    x = torch.ones(200, dtype=torch.float64, requires_grad=True)
    out = answer.apply(drop, x)
    torch.rand(5)  # somebody else throws dice in between
    state = torch.get_rng_state()
    out.sum().backward()
    same("dropout: rows whose gradient is not their mask",
         int((x.grad != out.detach()).sum()), 0, "The second run dropped other numbers than "
         "the first: keep the random state of forward, and set it in backward.")  # fmt: skip
    same("is the random state after backward as it was before?",
         torch.equal(state, torch.get_rng_state()), True, "The second run must leave the "
         "dice alone: put back the state that was there.")  # fmt: skip


# ---- online_softmax ----

INF = float("inf")


@chapter.exercise(
    "Two numbers per row sum up all that was read so far. What must happen to l when a "
    "larger maximum comes?",
    "l is a sum of exp(score - old m). Multiply it by exp(old m - new m); then add the "
    "block's own exp(score - new m).",
    "new = torch.maximum(m, block.amax(1)); safe = new.masked_fill(new == -torch.inf, 0); "
    "l = l * (m - safe).exp() + (block - safe[:, None]).exp().sum(1)",
)
def online_softmax(answer):
    "Maximum and sum of exponentials of each row, block after block."
    rows = {
        "one block": [[[1.0, 3.0, 2.0]]],
        "the largest score comes first": [[[5.0, 1.0]], [[2.0, 3.0]]],
        "the largest score comes last": [[[0.0, 1.0]], [[2.0]], [[7.0, 4.0]]],
        "two rows, the maximum in different blocks": [
            [[9.0, 1.0], [0.0, -1.0]], [[2.0], [4.0]], [[1.0, 1.0, 1.0], [3.0, 3.5, 2.0]],
        ],
        "all scores below zero": [[[-8.0, -9.0]], [[-7.0, -8.5]]],
        "scores of 10,000 and -10,000": [[[1e4, 0.0]], [[-1e4, 1e4]]],
        "scores of -10,000 alone": [[[-1e4]], [[-1e4 + 1]]],
        "a first block of -inf": [[[-INF, -INF]], [[1.0, 2.0]]],
        "a later block of -inf": [[[1.0, 2.0]], [[-INF, -INF]], [[0.5, 0.0]]],
        "one of two rows is -inf everywhere": [[[-INF], [1.0]], [[-INF], [3.0]]],
    }  # fmt: skip
    for case, blocks in rows.items():
        blocks = [torch.tensor(block, dtype=torch.float64) for block in blocks]
        whole = torch.cat(blocks, 1)
        m = whole.amax(1)
        safe = m.masked_fill(m == -INF, 0.0)
        l = (whole - safe[:, None]).exp().sum(1)  # noqa: E741
        got = _pair(case, answer(blocks), 2, "It returns two tensors: m and l.")
        same(
            f"{case}: m",
            got[0],
            m,
            "m is the largest score of the row, over all blocks.",
        )
        same(f"{case}: l", got[1], l, "l is the sum of exp(score - m) over all blocks, "
             "with the last m.")  # fmt: skip
    got = answer(iter(blocks))
    same("blocks that can be read only once", got[1], l,
         "One pass: each block is read once, in order.")  # fmt: skip
    same("float32 blocks: the dtypes of m and l",
         [str(t.dtype) for t in answer([b.float() for b in blocks])],
         ["torch.float32"] * 2, "m and l have the dtype of the scores.")  # fmt: skip


# ---- flash ----


def _attention(T, S, D=4, B=2, H=3, large=1.0, seed=0):
    return (_drawn(B, H, T, D, seed=seed) * large, _drawn(B, H, S, D, seed=seed + 1),
            _drawn(B, H, S, D, seed=seed + 2))  # fmt: skip


def _reference(q, k, v, causal):
    s = q @ k.mT / q.shape[-1] ** 0.5
    if causal:
        T = s.shape[-1]
        s = s.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), -INF)
    return s.softmax(-1) @ v, s.logsumexp(-1)


FLASH = [  # T, S, causal, block, size of the queries
    (8, 8, False, 8, 1.0),
    (8, 8, False, 4, 1.0),
    (7, 10, False, 4, 1.0),
    (8, 8, True, 4, 1.0),
    (11, 11, True, 4, 1.0),
    (5, 5, True, 16, 1.0),
    (6, 6, True, 1, 1.0),
    (9, 9, True, 4, 300.0),
]


def _named(T, S, causal, block, large):
    big = ", queries 300 times as large" if large > 1 else ""
    return (
        f"T = {T}, S = {S}, {'causal' if causal else 'not causal'}, block {block}{big}"
    )


@chapter.exercise(
    "Two loops: over blocks of queries, and inside over blocks of keys. Per block of "
    "queries three things live on: m, l, and the sum of values, acc.",
    "When m grows, both l and acc shrink by exp(old m - new m). At the end o = acc / l and "
    "lse = m + log(l).",
    "s = q_i @ k_j.mT * D**-0.5; where causal, key j + c is the future of query i + r if "
    "j + c > i + r: masked_fill(torch.ones(s.shape[-2:], dtype=torch.bool).triu(i - j + "
    "1), -inf). Then new, p, old as in online_softmax; acc = acc * old + p @ v_j.",
)
def flash_forward(answer):
    "Attention and lse, in tiles."
    for setting in FLASH:
        T, S, causal, block, large = setting
        q, k, v = _attention(T, S, large=large)
        o, lse = _reference(q, k, v, causal)
        case = _named(*setting)
        got = _pair(case, answer(q, k, v, causal, block), 2, "It returns o and lse.")
        same(f"{case}: lse", got[1], lse, "lse is log(sum(exp(scores))) of each query, "
             "(B, H, T); scores are q k / sqrt(D).")  # fmt: skip
        same(f"{case}: o", got[0], o, "o is softmax(scores) @ v.")
    q, k, v = (t.float() for t in _attention(256, 256, D=8, B=1, H=2))
    with Live(q, k, v) as live:
        before = live.bytes
        answer(q, k, v, False, 32)
    _at_most("T = 256, block 32: bytes alive at most, beside q, k, v", live.peak - before,
             4 * 2 * 256 * 256 // 2, "A whole table of scores, T times T, was alive: only "
             "one tile of them may be.")  # fmt: skip
    work = _Products()
    with work:
        answer(q, k, v, True, 32)
    _at_most("T = 256, causal, block 32: tiles of scores that are computed", work.tiles, 36,
             "Of 64 tiles 28 lie wholly in the future: the inner loop ends at the "
             "diagonal.")  # fmt: skip


class _Products(torch.utils._python_dispatch.TorchDispatchMode):
    "Counts products whose result is a tile of scores, (..., 32, 32)."

    tiles = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        made = operator(*args, **(kwargs or {}))
        name = operator.overloadpacket.__name__
        if name in ("bmm", "mm", "baddbmm") and made.shape[-2:] == (32, 32):
            self.tiles += 1
        return made


@chapter.exercise(
    "Go through the same tiles. p = exp(s - lse) is the tile of weights again: nothing "
    "else of forward is needed.",
    "dv += p.T do. For the scores, softmax's rule: ds = p * (do v.T - delta) with delta = "
    "(do * o).sum(-1). Then dq += ds k, dk += ds.T q, both with the scale.",
    "dp = do[:, :, r] @ v[:, :, c].mT; ds = p * (dp - delta[:, :, r]) * D**-0.5; where "
    "causal, the same mask as in forward, and tiles wholly in the future are left out.",
)
def flash_backward(answer):
    "Gradients of attention, in tiles, from o and lse."
    for setting in FLASH:
        T, S, causal, block, large = setting
        q, k, v = (t.requires_grad_() for t in _attention(T, S, large=large, seed=5))
        o, lse = _reference(q, k, v, causal)
        do = _drawn(*o.shape, seed=9)
        want = torch.autograd.grad(o, (q, k, v), do)
        q, k, v, o, lse = (t.detach() for t in (q, k, v, o, lse))
        case = _named(*setting)
        got = _pair(case, answer(q, k, v, o, lse, do, causal, block), 3,
                    "It returns dq, dk and dv.")  # fmt: skip
        for name, ours, theirs in reversed(list(zip(("dq", "dk", "dv"), got, want))):
            rule = {"dv": "dv sums p.T @ do over the blocks of queries.",
                    "dk": "dk sums ds.T @ q over the blocks of queries, with the scale; delta in ds "
                    "belongs to the whole row, (do * o).sum(-1), not to one tile.",
                    "dq": "dq sums ds @ k over the blocks of keys, with the scale."}[name]  # fmt: skip
            same(f"{case}: {name}", ours, theirs, rule, atol=1e-8)
    q, k, v = (t.float() for t in _attention(256, 256, D=8, B=1, H=2))
    o, lse = _reference(q, k, v, False)
    with Live(q, k, v, o, lse) as live:
        before = live.bytes
        answer(q, k, v, o, lse, o, False, 32)
    _at_most("T = 256, block 32: bytes alive at most, beside what came in",
             live.peak - before, 4 * 2 * 256 * 256 // 2, "A whole table of weights, T "
             "times T, was alive: only one tile of them may be.")  # fmt: skip
    work = _Products()
    with work:
        answer(q, k, v, o, lse, o, True, 32)
    _at_most("T = 256, causal, block 32: tiles of scores and of their gradients, together",
             work.tiles, 72, "Of 64 tiles 28 lie wholly in the future: leave them out.")  # fmt: skip


# ---- chunked_loss ----


@chapter.exercise(
    "The gradient of cross-entropy at the logits is softmax minus one-hot, / N. It needs "
    "no other row: so a chunk can be finished and forgotten.",
    "Per chunk: z = x[r] @ W.T, lse = z.logsumexp(1), its loss; then g = (softmax(z) - "
    "one-hot) / N, dx[r] = g @ W, dW += g.T @ x[r].",
    "rows = torch.arange(len(z)); loss += (lse - z[rows, y[r]]).sum() / N; g = (z - "
    "lse[:, None]).exp(); g[rows, y[r]] -= 1; g /= N. N counts all rows, not the chunk's.",
)
def chunked_loss(answer):
    "Cross-entropy of a large head and its gradients, chunk by chunk."
    for N, V, chunk, large in ((6, 5, 6, 1.0), (6, 5, 2, 1.0), (7, 4, 3, 1.0), (3, 4, 8, 1.0), (5, 6, 2, 500.0)):  # fmt: skip
        x, W = (
            (_drawn(N, 3) * large).requires_grad_(),
            _drawn(V, 3, seed=1).requires_grad_(),
        )
        y = torch.randint(V, (N,), generator=_random(2))
        loss = F.cross_entropy(x @ W.T, y)
        dx, dW = torch.autograd.grad(loss, (x, W))
        big = ", states 500 times as large" if large > 1 else ""
        case = f"{N} rows, {V} words, chunks of {chunk}{big}"
        got = answer(x.detach(), W.detach(), y, chunk)
        got = _pair(case, got, 3, "It returns loss, dx and dW.")
        same(f"{case}: the loss", got[0], loss.detach(), "The mean over all rows of "
             "logsumexp(logits) - the label's logit.")  # fmt: skip
        same(
            f"{case}: dx",
            got[1],
            dx,
            "(softmax - one-hot) / N @ W, N counting all rows.",
        )
        same(f"{case}: dW", got[2], dW, "The sum over chunks of g.T @ x.")
    N, V, chunk = 256, 512, 16
    x, W = _drawn(N, 8, dtype=torch.float32), _drawn(V, 8, seed=1, dtype=torch.float32)
    y = torch.randint(V, (N,), generator=_random(2))
    with Live(x, W, y) as live:
        before = live.bytes
        answer(x, W, y, chunk)
    _at_most(f"{N} rows, {V} words, chunks of {chunk}: bytes alive at most, beside x, W, y",
             live.peak - before, 4 * N * V // 2, "The logits of all rows were alive: make "
             "those of one chunk, and forget them.")  # fmt: skip
