"""Chapter 07: a counter, cells with a memory, its reach, streams, a scan."""

import math
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from utils.built.recurrent import rnn as forward
from utils.exercises import Chapter, Miss, same

chapter = Chapter("07_sequences")
# a check leaves the reader's dice alone
keeps_random = torch.random.fork_rng(devices=[])


def _randn(seed, *shapes):
    "float64 tensors of these shapes, the same for every reader."
    g = torch.Generator().manual_seed(seed)
    made = [torch.randn(s, generator=g, dtype=torch.float64) for s in shapes]
    return made if len(made) > 1 else made[0]


def _several(got, count, case, want):
    "What should be `count` tensors."
    if not isinstance(got, (tuple, list)) or len(got) != count:
        raise Miss(f"It returns {count} things: {want}.", case, got, want)
    return got


# ---- the counter ----


@chapter.exercise(
    "Every character seen pays the discount; who gets what was collected?",
    "kinds characters pay discount each, so discount * kinds counts are free. The shorter "
    "context decides how they are shared out. All of it over total.",
    "p = (np.maximum(count - discount, 0) + discount * kinds * shorter) / "
    "np.maximum(total, 1); return np.where(total > 0, p, shorter)",
)
def blend(answer):
    "Probability of a character from its count and from a shorter context."
    pay = "Seen characters pay the discount: count - discount, but never below 0."
    count_V, shorter_V = (
        np.array([3, 0, 1, 0, 2]),
        np.array([0.1, 0.2, 0.3, 0.25, 0.15]),
    )
    case = "counts [3, 0, 1, 0, 2], a shorter context [0.1, 0.2, 0.3, 0.25, 0.15]"
    with np.errstate(all="ignore"):
        got = answer(count_V, 6, 3, shorter_V)
        same(case, got, (np.maximum(count_V - 0.75, 0) + 2.25 * shorter_V) / 6,
             "Element by element, over the total of 6: the kinds are 3.")  # fmt: skip
        same(f"{case}: do they add up to 1?", np.sum(got), 1.0,
             "What the seen ones pay is handed out whole, so that all add up to 1.")  # fmt: skip
        case_10 = "10 characters of 4 kinds followed, the shorter context says 0.1"
        same(f"{case_10}; this one 3 times", answer(3, 10, 4, 0.1), 0.255,
             "(3 - 0.75 + 0.75 * 4 * 0.1) / 10: what is kept and its share of what was paid.")  # fmt: skip
        same(f"{case_10}; this one never", answer(0, 10, 4, 0.1), 0.03,
             "Never seen: nothing to keep, and its share of what the others paid. " + pay)  # fmt: skip
        same(f"{case_10}; this one once", answer(1, 10, 4, 0.1), 0.055, pay)
        for discount in (0.0, 0.4, 1.0):
            kept = np.maximum(count_V - discount, 0) + discount * 3 * shorter_V
            same(f"{case}, discount {discount}", answer(count_V, 6, 3, shorter_V, discount),
                 kept / 6, "The discount is the one that was given. " + pay)  # fmt: skip
        never = "A context never seen (total 0) leaves it to the shorter one, whole."
        same("a context never seen, the shorter one says 0.1", answer(0, 0, 0, 0.1), 0.1,
             never)  # fmt: skip
        same("a context seen once: its character, the shorter one says 0.2",
             answer(1, 1, 1, 0.2), 0.4, "(1 - 0.75 + 0.75 * 1 * 0.2) / 1. " + pay)  # fmt: skip
        count_N, total_N, kinds_N = np.array([[2, 0, 0, 5], [6, 0, 4, 5], [2, 0, 1, 1]])
        shorter_N = np.array([0.5, 0.2, 0.3, 0.1])
        want = [(1.25 + 0.75) / 6, 0.2, 0.75 * 0.3 / 4, (4.25 + 0.075) / 5]
        same("four characters after four contexts, totals [6, 0, 4, 5]",
             answer(count_N, total_N, kinds_N, shorter_N), want,
             "np.where decides for each of them. " + never)  # fmt: skip
        rows, totals = np.array([[3, 1, 0], [0, 0, 0]]), np.array([[4], [0]])
        same("two contexts of three characters each, totals [[4], [0]]",
             answer(rows, totals, np.array([[2], [0]]), np.array([0.2, 0.3, 0.5])),
             [[2.55 / 4, 0.7 / 4, 0.75 / 4], [0.2, 0.3, 0.5]], never)  # fmt: skip


# ---- characters as rows ----


def _never_clean(*shape, **options):
    "What torch.empty gives, where it may hold zeros by chance and hides their lack."
    return torch.zeros(*shape, **options).fill_(torch.nan)


@chapter.exercise(
    "Looking up row 3 twice used it twice. How often does it collect?",
    "Begin with zeros (V, E); row ids_N[k] gets grad_NE[k] added. `table[ids] += grad` "
    "writes each row once only.",
    "return torch.zeros(V, grad_NE.shape[1], dtype=grad_NE.dtype).index_add(0, ids_N, "
    "grad_NE)",
    fresh=True,
)
def embed_gradient(answer):
    "The gradient of a table of which rows were looked up."
    adds = "A row that was used twice collects both gradients: they add up."
    case = "rows 2, 0, 2 of a table (4, 2), gradients [1, 10], [2, 20], [3, 30]"
    grad_NE = torch.tensor([[1.0, 10], [2, 20], [3, 30]])
    with mock.patch.object(torch, "empty", _never_clean):
        got = answer(torch.tensor([2, 0, 2]), grad_NE, 4)
    same(case, got, [[2, 20], [0, 0], [4, 40], [0, 0]],
         f"{adds} A row that was not used has gradient 0.")  # fmt: skip
    for N, V, E in ((11, 3, 5), (6, 9, 4), (1, 2, 3)):
        g = torch.Generator().manual_seed(N)
        ids_N = torch.randint(V, (N,), generator=g)
        table = torch.zeros(V, E, dtype=torch.float64, requires_grad=True)
        grad_NE = _randn(N, (N, E))
        F.embedding(ids_N, table).backward(grad_NE)
        same(f"{N} rows looked up in a table of {V} with {E} columns",
             answer(ids_N, grad_NE, V), table.grad, adds)  # fmt: skip
    same("gradients of float64: the dtype", str(answer(ids_N, grad_NE, V).dtype),
         "torch.float64", "The gradient has the dtype of what came in.")  # fmt: skip


# ---- the plain cell ----


def _rnn(B, T, D, H, seed=0):
    "nn.RNN in float64, inputs and a first state: -> layer, x, h0, its four weights."
    layer = nn.RNN(D, H, batch_first=True).double()
    x_BTD, h_BH, *weights = _randn(seed, (B, T, D), (B, H), (H, D), (H, H), (H,), (H,))
    with torch.no_grad():
        for p, w in zip(layer.parameters(), weights):
            p.copy_(w / 2)
    return layer, x_BTD, h_BH, list(layer.parameters())


@chapter.exercise(
    "One loop over the steps. What does a step need, and what does it leave behind?",
    "x_BTD[:, t] is step t of all rows. PyTorch keeps weights as (outputs, inputs): "
    "x @ W_ih.T.",
    "h_BH = torch.tanh(x_BTD[:, t] @ W_ih.T + b_ih + h_BH @ W_hh.T + b_hh), collected in a "
    "list; torch.stack(out, 1)",
)
@keeps_random
def rnn(answer):
    "All states of a tanh cell."
    x, one = torch.tensor([[[1.0], [2.0]]]), lambda *v: torch.tensor(v)
    got = answer(x, one([0.5]), one([0.3]), one([-0.7]), one(0.1), one(-0.3))
    first = math.tanh(0.3 - 0.7 * 0.5 - 0.2)
    same("x = 1, 2; W_ih 0.3, W_hh -0.7, biases 0.1 and -0.3, first state 0.5", got,
         torch.tensor([[[first], [math.tanh(0.6 - 0.7 * first - 0.2)]]]),
         "tanh(0.3 * 1 + 0.1 - 0.7 * 0.5 - 0.3), and the next step from there.")  # fmt: skip
    for B, T, D, H in ((2, 3, 4, 4), (3, 7, 5, 4), (1, 1, 2, 3), (4, 2, 1, 5)):
        layer, x_BTD, h_BH, p = _rnn(B, T, D, H, seed=B)
        with torch.no_grad():
            want = layer(x_BTD, h_BH[None])[0]
        case = f"B, T, D, H = {B}, {T}, {D}, {H}"
        got = answer(x_BTD, h_BH, *p)
        same(case, got, want,
             "Every state in order, (B, T, H): tanh of W_ih x + b_ih + W_hh h + b_hh.")  # fmt: skip
        if T > 1:
            same(f"{case}: does a gradient reach W_hh?",
                 bool(got.requires_grad and torch.autograd.grad(
                     got[:, -1].sum(), p[1], allow_unused=True)[0] is not None),
                 True, "Stay differentiable: no detach, no .data, no .item().")  # fmt: skip


@chapter.exercise(
    "Walk the steps from last to first, and carry one thing along: the gradient at h_t.",
    "At h_t two things meet: the loss's own gradient grad_BTH[:, t], and what comes back "
    "from step t+1. Times 1 - h_t**2 it is the gradient before the tanh.",
    "delta = (dh + grad_BTH[:, t]) * (1 - out_BTH[:, t]**2); dW_ih += delta.T @ x_t; dW_hh += "
    "delta.T @ h_(t-1); db += delta.sum(0); dh = delta @ W_hh",
)
@keeps_random
def bptt(answer):
    "Back-propagation through time, by hand."
    told = "dW_ih, dW_hh, db, dh0"
    every = "Every step adds its part: the same weights were used at all of them."
    rules = {
        "dW_ih": f"{every} At step t: delta.T @ x_t.",
        "dW_hh": f"{every} At step t: delta.T @ the state before it.",
        "db": f"{every} Over rows and steps, a sum.",
        "dh0": "What is left after the first step: delta @ W_hh, once more.",
    }
    for (B, T, D, H), where in [
        ((1, 1, 1, 1), [0]),
        ((2, 1, 3, 4), [0]),
        ((2, 2, 3, 3), [1]),
        ((3, 7, 5, 4), [6]),
        ((3, 7, 5, 4), range(7)),
        ((2, 5, 2, 3), [1]),
    ]:
        _, x_BTD, h_BH, p = _rnn(B, T, D, H, seed=T)
        h_BH.requires_grad_()
        out_BTH, grad_BTH = forward(x_BTD, h_BH, *p), torch.zeros(B, T, H).double()
        grad_BTH[:, list(where)] = _randn(9, (B, len(where), H))
        want = torch.autograd.grad(out_BTH, [p[0], p[1], p[2], h_BH], grad_BTH)
        at = "every step" if len(where) == T else f"step {where[0]} alone"
        case = f"B, T, D, H = {B}, {T}, {D}, {H}; the loss looks at {at}"
        given = x_BTD, h_BH.detach(), p[1].detach(), out_BTH.detach(), grad_BTH
        got = answer(*given)
        for name, mine, right in zip(rules, _several(got, 4, case, told), want):
            same(f"{case}: {name}", mine, right, rules[name])


@chapter.exercise(
    "torch.autograd.grad(number, state) differentiates one number. Which number?",
    "(run(state) * u_BH).sum(): its gradient holds each row's own, since rows do not mix. "
    "The state must ask for gradients first.",
    "s = state_BS.clone().requires_grad_(); (g,) = torch.autograd.grad((run(s) * "
    "u_BH).sum(), s); return g.norm(dim=1).mean().item()",
)
@keeps_random
def reach(answer):
    "How strongly the last state feels the first."
    state, u = torch.zeros(2, 2), torch.tensor([[0.6, 0.8], [0.0, 3.0]])
    same("a run that keeps its state; directions of length 1 and 3",
         answer(lambda s: s, state, u), 2.0,
         "One length per row, 1 and 3, then their mean.")  # fmt: skip
    same("a run that halves its state three times; the same directions",
         answer(lambda s: s / 8, state, u), 0.25,
         "Half of half of half: 1/8 and 3/8, then their mean.")  # fmt: skip
    M = torch.tensor(
        [[0.5, 0.0, 2.0], [1.0, -1.0, 0.0], [0.0, 0.0, 1.0], [3.0, 1.0, 0.5]]
    )
    state, u = _randn(0, (3, 4)).float(), _randn(1, (3, 3)).float()
    want = (u @ M.T).norm(dim=1).mean().item()
    rule = (
        "The gradient is the direction through the matrix: u @ M.T, a length per row."
    )
    same("a matrix (4, 3) in place of a cell, three rows", answer(lambda s: s @ M, state, u),
         want, rule)  # fmt: skip
    asks = state.clone().requires_grad_()
    first = answer(lambda s: s @ M, asks, u)
    same("the same state a second time, which asks for gradients",
         [first, answer(lambda s: s @ M, asks, u)], [want, want],
         "The second call gives more than the first: gradients add up in .grad. "
         "torch.autograd.grad, or a clone.")  # fmt: skip
    _, x_BTD, h_BH, p = _rnn(3, 6, 2, 4, seed=2)
    u = _randn(3, (3, 4))

    def walk(h):
        for t in range(6):
            h = torch.tanh(x_BTD[:, t] @ p[0].T + p[2] + h @ p[1].T + p[3])
        return h

    with torch.no_grad():
        h, rows = h_BH, u
        states = []
        for t in range(6):
            h = torch.tanh(x_BTD[:, t] @ p[0].T + p[2] + h @ p[1].T + p[3])
            states.append(h)
        for h in reversed(states):
            rows = (rows * (1 - h**2)) @ p[1]
    got = answer(walk, h_BH, u)
    same("a cell of 4 over 6 steps, against the product of its Jacobians", got,
         rows.norm(dim=1).mean().item(), rule, rtol=1e-5)  # fmt: skip
    same("is it a plain number?", isinstance(got, (float, np.floating)), True,
         "A plain number: .item(). A tensor keeps the whole graph in memory.")  # fmt: skip


# ---- gates ----


@chapter.exercise(
    "Four gates from one product. Which of them are shares from 0 to 1, and which is new "
    "content?",
    "z.chunk(4, dim=1) gives input, forget, candidate and output, in PyTorch's order. "
    "sigmoid for three, tanh for the candidate.",
    "i, f, g, o = z.chunk(4, dim=1); c = f.sigmoid() * c + i.sigmoid() * g.tanh(); h = "
    "o.sigmoid() * c.tanh(); return h, c",
)
@keeps_random
def lstm_cell(answer):
    "One step of an LSTM."
    told = "the new h and the new c"
    x = torch.tensor([[1.0]])
    W_ih, W_hh = torch.tensor([[1.0], [2.0], [-1.0], [0.5]]), torch.zeros(4, 1)
    case = (
        "x = 1, c = 2, h = 0, W_ih = [1, 2, -1, 0.5] (input, forget, candidate, output)"
    )
    zero = torch.zeros(4)
    got = answer(x, torch.zeros(1, 1), torch.tensor([[2.0]]), W_ih, W_hh, zero, zero)
    h, c = _several(got, 2, case, told)

    def s(z):
        return 1 / (1 + math.exp(-z))

    new = s(2) * 2 + s(1) * math.tanh(-1)
    same(f"{case}: the new c", c, torch.tensor([[new]]),
         "sigmoid(2) of the old c, and sigmoid(1) of the candidate tanh(-1).", rtol=1e-5)  # fmt: skip
    same(f"{case}: the new h", h, torch.tensor([[s(0.5) * math.tanh(new)]]),
         "sigmoid(0.5) of the tanh of the new c.", rtol=1e-5)  # fmt: skip
    for B, D, H in ((3, 4, 6), (2, 4, 4), (1, 2, 3)):
        cell = nn.LSTMCell(D, H).double()
        x_BD, h_BH, c_BH, *weights = _randn(
            B, (B, D), (B, H), (B, H), (4 * H, D), (4 * H, H), (4 * H,), (4 * H,)
        )
        with torch.no_grad():
            for p, w in zip(cell.parameters(), weights):
                p.copy_(w)
            want = cell(x_BD, (h_BH, c_BH))
        case = f"B, D, H = {B}, {D}, {H}"
        h, c = _several(answer(x_BD, h_BH, c_BH, *weights), 2, case, told)
        rule = "Four gates of W_ih x + b_ih + W_hh h + b_hh; then c, then h from the new c."
        same(f"{case}: the new c", c, want[1], rule)
        same(f"{case}: the new h", h, want[0], rule)


@chapter.exercise(
    "sigmoid(b) ** T = 1/2. What is sigmoid(b)? And which b gives that?",
    "share = 0.5 ** (1 / T); the inverse of sigmoid is log(share / (1 - share)). The "
    "forget gate is the second quarter, rows H to 2H; two biases are added.",
    "with torch.no_grad(): lstm.bias_ih_l0[H : 2 * H] = b; lstm.bias_hh_l0[H : 2 * H] = 0; "
    "return b",
    mutates=True,
)
@keeps_random
def remember(answer):
    "A forget bias from a half-life, set in an nn.LSTM."
    for T, H in ((10, 3), (1, 4), (30, 5), (1000, 2)):
        lstm = nn.LSTM(2, H, batch_first=True).double()
        own = list(lstm.parameters())
        before = _randn(H, *(p.shape for p in own))
        with torch.no_grad():
            for p, w in zip(own, before):
                p.copy_(w)
        share = 0.5 ** (1 / T)
        want, case = round(math.log(share / (1 - share)), 6), f"T = {T}, H = {H}"
        got = answer(lstm, T)
        summed = (lstm.bias_ih_l0 + lstm.bias_hh_l0).detach()
        others = [i for i in range(4 * H) if not H <= i < 2 * H]
        same(f"{case}: the biases of the other three gates", summed[others],
             (before[2] + before[3])[others], "The other gates stay as they are.")  # fmt: skip
        same(f"{case}: both biases of the forget gates, added", summed[H : 2 * H],
             torch.full((H,), want), "The cell adds bias_ih and bias_hh: together they are b, "
             "in rows H to 2H.", rtol=1e-4)  # fmt: skip
        same(f"{case}: is a share of 1/2 left after T steps?",
             summed[H].sigmoid().item() ** T, 0.5, "sigmoid(b) ** T = 1/2.", rtol=1e-4)  # fmt: skip
        for name, w in zip(("weight_ih_l0", "weight_hh_l0"), before):
            same(f"{case}: {name}", getattr(lstm, name), w,
                 "Only the biases change.")  # fmt: skip
        same(
            f"{case}: what it returns", got, want, "It returns the bias, b.", rtol=1e-4
        )
        same(f"{case}: are the parameters the same objects as before, and trainable?",
             [p is q and p.requires_grad for p, q in zip(lstm.parameters(), own)],
             [True] * 4, "Write into the parameters: an optimiser may know them already.")  # fmt: skip


@chapter.exercise(
    "How long is the one arrow that all gradients together make?",
    "The root of the sum of all squares, over all tensors. One factor for all, and only "
    "where it is too long.",
    "length = sum((g**2).sum() for g in grads).sqrt().item(); scale = min(1, most / "
    "length), or 1 where length is 0; return [g * scale for g in grads], length",
)
def clip(answer):
    "Gradients cut to a length, all by one factor."
    told = "the new gradients and the length they had"
    long = "One factor for all of them: most over the length of all together."
    short = "Gradients that are short enough stay as they are."
    a, b = torch.tensor([1.8, 2.4]), torch.tensor([[4.0]])
    for most, factor, rule in ((1.0, 0.2, long), (2.5, 0.5, long), (5.0, 1.0, short),
                               (6.0, 1.0, short), (10.0, 1.0, short)):  # fmt: skip
        case = f"gradients [1.8, 2.4] and [[4]], most = {most:g}"
        got, length = _several(answer([a, b], most), 2, case, told)
        same(
            f"{case}: how many come back", len(got), 2, "One for each, in their order."
        )
        same(f"{case}: the first", got[0], factor * a, rule, rtol=1e-5)
        same(f"{case}: the second", got[1], factor * b, rule, rtol=1e-5)
        same(f"{case}: the length", length, 5.0, "The length before, sqrt(9 + 16).",
             rtol=1e-5)  # fmt: skip
    got, length = _several(answer([a / 10, b / 10], 0.1), 2, case, told)
    case = "gradients [0.18, 0.24] and [[0.4]], most = 0.1"
    same(f"{case}: the second", got[1], b / 50, long, rtol=1e-5)
    same(f"{case}: is the length a plain number?",
         isinstance(length, (float, np.floating)), True, "A plain number: .item().")  # fmt: skip
    grads = list(_randn(4, (7, 3), (5,), (2, 2, 2)))
    params = [torch.zeros_like(g, requires_grad=True) for g in grads]
    for p, g in zip(params, grads):
        p.grad = g.clone()
    want = nn.utils.clip_grad_norm_(params, 0.7).item()
    case = "tensors of shapes (7, 3), (5,), (2, 2, 2), most = 0.7"
    got, length = _several(answer(grads, 0.7), 2, case, told)
    same(f"{case}: the length", length, want, "The root of the sum of all squares.")
    for name, mine, p in zip(("first", "second", "third"), got, params):
        same(f"{case}: the {name}", mine, p.grad, long, rtol=1e-5)
    case = "gradients of 0 only"
    got, length = _several(answer([torch.zeros(3)], 1.0), 2, case, told)
    same(
        case, got[0], torch.zeros(3), "All gradients are 0 here: nothing to divide by."
    )
    same(f"{case}: the length", length, 0.0, "The length before, 0.")


# ---- batches and the next character ----


@chapter.exercise(
    "Cut the text into B long pieces first. Only then cut across all of them.",
    "L = (N - 1) // B characters a piece, so that the last one has a next character, too. "
    "ids_N[: B * L].view(B, L) are the inputs; the targets begin one further.",
    "x, y = ids_N[: B * L].view(B, L), ids_N[1 : B * L + 1].view(B, L); for t in range(0, "
    "L, T): yield x[:, t : t + T], y[:, t : t + T]",
)
def streams(answer):
    "Batches whose rows go on."
    for N, B, T in (
        (23, 3, 4),
        (25, 4, 3),
        (26, 4, 3),
        (9, 1, 4),
        (13, 3, 9),
        (14, 3, 2),
    ):
        ids_N = (torch.arange(N) * 37) % 101  # all different
        L = (N - 1) // B
        x, y = ids_N[: B * L].view(B, L), ids_N[1 : B * L + 1].view(B, L)
        case = f"{N} characters, B = {B}, T = {T}"
        made = list(answer(ids_N, B, T))
        if any(not isinstance(pair, (tuple, list)) or len(pair) != 2 for pair in made):
            raise Miss("Each batch is a pair (x_BT, y_BT).", case, made[:1], "(x, y)")
        same(f"{case}: the widths of x", [tuple(pair[0].shape) for pair in made],
             [(B, min(T, L - t)) for t in range(0, L, T)],
             f"(N - 1) // B = {L} columns, T at a time; the last batch may be narrower.")  # fmt: skip
        same(f"{case}: the x of all batches, side by side",
             torch.cat([pair[0] for pair in made], 1), x,
             "Row b goes on in the next batch where it ended in this one.")  # fmt: skip
        same(f"{case}: the y of all batches, side by side",
             torch.cat([pair[1] for pair in made], 1), y,
             "The target of each character is the one behind it in the text.")  # fmt: skip


@chapter.exercise(
    "Temperature changes the logits. Which operation makes the differences smaller?",
    "Divide. top_k: every logit below the k-th largest becomes -inf. top_p: sort the "
    "probabilities, and drop those before which p is already reached.",
    "s, order = p.sort(descending=True); before = s.cumsum(-1) - s; s = "
    "s.masked_fill(before >= top_p, 0); p = torch.zeros_like(p).scatter(-1, order, s); "
    "divide by p.sum(-1, keepdim=True)",
    fresh=True,
)
def sharpen(answer):
    "Logits -> the probabilities to draw from."
    p4 = torch.tensor([0.15, 0.5, 0.05, 0.3], dtype=torch.float64)
    z4, case = p4.log(), "logits that mean 0.15, 0.5, 0.05, 0.3"
    same(case, answer(z4), p4, "Without any setting it is the softmax.")
    for t in (0.5, 2.0):
        same(f"{case}, temperature {t}", answer(z4, t), (z4 / t).softmax(-1),
             "The logits over the temperature, then softmax.")  # fmt: skip
    same("logits 100, 300, 200 and temperature 0.1",
         answer(torch.tensor([100.0, 300.0, 200.0]), 0.1), [0.0, 1.0, 0.0],
         "Let softmax do the exponentials: exp(3000) is infinite.")  # fmt: skip
    rest = "What stays is scaled until it adds up to 1."
    for k in (1, 2, 3, 4):
        keep = p4 >= p4.sort(descending=True).values[min(k, 4) - 1]
        want = p4 * keep / (p4 * keep).sum()
        same(f"{case}, top_k = {k}", answer(z4, 1.0, k), want,
             f"The {min(k, 4)} likeliest stay, where they stood. {rest}")  # fmt: skip
    for top_p, kept in ((0.4, 1), (0.6, 2), (0.9, 3), (0.97, 4), (1.0, 4)):
        keep = p4 >= p4.sort(descending=True).values[kept - 1]
        want = p4 * keep / (p4 * keep).sum()
        same(f"{case}, top_p = {top_p}", answer(z4, top_p=top_p), want,
             f"0.5, 0.3, 0.15, 0.05 in order: the likeliest that together reach {top_p}, "
             f"with the one that crosses it. {rest}")  # fmt: skip
    got = answer(torch.zeros(4, dtype=torch.float64), top_p=0.5)
    same("four equal logits and top_p = 0.5, sorted", got.sort().values, [0, 0, 0.5, 0.5],
         "Two of them reach 0.5; nothing more is needed.")  # fmt: skip
    hot = (z4 / 2).softmax(-1)  # 0.22, 0.39, 0.12, 0.27
    keep = hot >= hot[0]
    same(f"{case}, temperature 2 and top_p = 0.75", answer(z4, 2.0, top_p=0.75),
         hot * keep / (hot * keep).sum(), "The temperature comes first, then top_p.")  # fmt: skip
    same(f"{case}, top_k = 2 and top_p = 0.6", answer(z4, top_k=2, top_p=0.6),
         [0, 1, 0, 0], "top_k first: 0.5 and 0.3 become 0.625 and 0.375, then top_p.")  # fmt: skip
    z_BV = _randn(5, (2, 3, 7))
    want = (z_BV / 0.7).softmax(-1)
    same("two by three rows of seven, temperature 0.7", answer(z_BV, 0.7), want,
         "The last axis are the characters; all before it are rows.")  # fmt: skip
    least = want.sort(-1, descending=True).values[..., 2:3]
    want = want * (want >= least)
    same("two by three rows of seven, temperature 0.7, top_k = 3", answer(z_BV, 0.7, 3),
         want / want.sum(-1, keepdim=True), "Each row keeps its own three.")  # fmt: skip
    p = z_BV.softmax(-1)
    s = p.sort(-1, descending=True).values
    kept = ((s.cumsum(-1) - s) < 0.6).sum(-1, keepdim=True)
    want = p * (p >= s.gather(-1, kept - 1))
    same("two by three rows of seven, top_p = 0.6", answer(z_BV, top_p=0.6),
         want / want.sum(-1, keepdim=True), "Each row keeps its own.")  # fmt: skip
    same(f"{case}, top_k = 9", answer(z4, 1.0, 9), p4,
         "There are fewer than 9 characters: all stay.")  # fmt: skip


# ---- without waiting ----


class _Counted(TorchDispatchMode):
    "Counts the operations that torch is asked for."

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def _loop(a_BTD, b_BTD):
    h, out = torch.zeros_like(b_BTD[:, 0]), []
    for t in range(b_BTD.shape[1]):
        h = a_BTD[:, t] * h + b_BTD[:, t]
        out.append(h)
    return torch.stack(out, 1)


@chapter.exercise(
    "h2 = a2 * h1 + b2 with h1 = a1 * h0 + b1. Written as one step from h0, what are its a "
    "and b?",
    "Join steps 0 and 1, 2 and 3, ...: half as many steps, a = a2 * a1, b = a2 * b1 + b2. "
    "Solve those by the same function; the even places follow by one step each.",
    "a1, b1 = a[:, :T-1:2], b[:, :T-1:2]; a2, b2 = a[:, 1::2], b[:, 1::2]; odd = "
    "linear_scan(a2 * a1, a2 * b1 + b2); h[:, 1::2] = odd; h[:, 0] = b[:, 0]; h[:, 2::2] = "
    "a[:, 2::2] * odd[:, : (T - 1) // 2] + b[:, 2::2]",
)
def linear_scan(answer):
    "A linear recurrence in few operations."
    rule = "h_t = a_t * h_(t-1) + b_t, from h = 0: as the loop, at every step."
    a = torch.tensor([9.0, 2.0, 0.5, 3.0]).view(1, 4, 1)
    b = torch.tensor([1.0, 10.0, 0.0, -1.0]).view(1, 4, 1)
    same("a = 9, 2, 0.5, 3 and b = 1, 10, 0, -1", answer(a, b),
         torch.tensor([1.0, 12.0, 6.0, 17.0]).view(1, 4, 1), rule)  # fmt: skip
    for T in (1, 2, 3, 5, 8, 13, 64, 1000):
        a, b = _randn(T, (2, T, 3), (2, T, 3))
        a = a.sigmoid()
        same(f"B, T, D = 2, {T}, 3", answer(a, b), _loop(a, b), rule)
    a[:, 1::7] = 0
    same("T = 1000, every seventh a is 0", answer(a, b), _loop(a, b),
         "An a of 0 forgets everything before it: nothing may be divided by it.")  # fmt: skip
    a, b = _randn(1, (2, 6, 3), (2, 6, 3))
    want = torch.autograd.functional.vjp(_loop, (a, b), b)[1]
    got = torch.autograd.functional.vjp(answer, (a, b), b)[1]
    for name, mine, right in zip("ab", got, want):
        same(f"T = 6, the gradient that reaches {name}", mine, right,
             "Stay differentiable: no detach, no .data.")  # fmt: skip
    a, b = _randn(2, (1, 1024, 2), (1, 1024, 2))
    with _Counted() as counted:
        answer(a.sigmoid(), b)
    same("T = 1024: is it done in fewer than 1024 operations?", counted.count < 1024, True,
         "As many operations as steps. A loop does that, and so do two calls on half the "
         "length each: join neighbours, and make *one* call.")  # fmt: skip
