"""Chapter 10: laws of losses, what a budget buys, rates for every width, fine-tuning."""

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils.exercises import Chapter, same

chapter = Chapter("10_scaling")


@chapter.exercise(
    "Two steps: what do the chosen places show, and what is asked of whom?",
    "fate below 0.8: the mask. From 0.8 up to 0.9: the random token. From 0.9 on: the token "
    "itself. The targets are the old tokens, at chosen places only.",
    "shown = torch.where(fate < 0.9, random, ids); shown = shown.masked_fill(fate < 0.8, "
    "mask_id); inputs = torch.where(chosen, shown, ids); targets = "
    "ids.masked_fill(~chosen, -100)",
)
def corrupt(answer):
    "What a masked model sees, and what it is asked."
    ids = torch.tensor([[3, 4, 5, 6, 7]])
    chosen = torch.tensor([[False, True, True, True, False]])
    fate = torch.tensor([[0.1, 0.2, 0.85, 0.95, 0.85]])
    random = torch.tensor([[1, 1, 2, 1, 1]])
    case = (
        "tokens 3 4 5 6 7, the middle three chosen, with fates 0.2, 0.85, 0.95; mask 9"
    )
    got = answer(ids, chosen, fate, random, 9)
    same(f"{case}: how many things come back", len(got), 2,
         "Two tensors come back: inputs and targets.")  # fmt: skip
    inputs, targets = got
    same(f"{case}: inputs", inputs, [[3, 9, 2, 6, 7]], "Chosen places show the mask, the "
         "random token or themselves, by their fate; all others are as they were.")  # fmt: skip
    same(f"{case}: targets", targets, [[-100, 4, 5, 6, -100]],
         "The targets are the old tokens at all chosen places, and -100 elsewhere.")  # fmt: skip
    g = torch.Generator().manual_seed(0)
    ids, random = torch.randint(60, (2, 7, 41), generator=g)
    chosen = torch.rand(7, 41, generator=g) < 0.5
    fate = torch.rand(7, 41, generator=g)
    fate[0, :6] = torch.tensor([0.8, 0.9, 0.8, 0.9, 0.0, 0.5])
    chosen[0, :4] = True
    want_in, want = ids.tolist(), [[-100] * 41 for _ in range(7)]
    for b, t in np.ndindex(7, 41):
        if chosen[b, t]:
            want[b][t] = want_in[b][t]
            if fate[b, t] < 0.9:
                want_in[b][t] = 60 if fate[b, t] < 0.8 else int(random[b, t])
    inputs, targets = answer(ids, chosen, fate, random, 60)
    same("7 rows of 41 tokens, some fates exactly 0.8 and 0.9: inputs", inputs, want_in,
         "Below 0.8 the mask; from 0.8 to below 0.9 the random token; else the token.")  # fmt: skip
    same("7 rows of 41 tokens: targets", targets, want,
         "The targets are the old tokens at all chosen places, and -100 elsewhere.")  # fmt: skip
    inputs, targets = answer(ids, torch.zeros_like(chosen), fate, random, 60)
    same("nothing chosen: inputs", inputs, ids, "What is not chosen stays.")
    same("nothing chosen: targets", targets, torch.full_like(ids, -100),
         "Nothing chosen, nothing asked: -100 everywhere.")  # fmt: skip


class Mixed(nn.Module):
    "An embedding, linear layers with and without bias, a norm, and one inside another."

    def __init__(self):
        super().__init__()
        self.table, self.norm = nn.Embedding(50, 6), nn.LayerNorm(6)
        self.inner = nn.Sequential(nn.Linear(6, 11), nn.ReLU(), nn.Linear(11, 6))
        self.head = nn.Linear(6, 50, bias=False)


@chapter.exercise(
    "A weight that multiplies costs a multiplication and an addition for each token, in the "
    "forward pass and twice more going back.",
    "Only nn.Linear multiplies here: sum the sizes of their weights. An embedding is a "
    "look-up, a bias only adds.",
    "6 * tokens * sum(layer.weight.numel() for layer in model.modules() if "
    "isinstance(layer, nn.Linear))",
)
@torch.random.fork_rng(devices=[])
def training_flops(answer):
    "What training on so many tokens costs."
    same("one layer of 3 by 5, 10 tokens", answer(nn.Linear(3, 5), 10), 900,
         "15 weights, 10 tokens, 6 FLOPs each; the bias does not count. The model may be "
         "a layer itself: modules(), not children().")  # fmt: skip
    same("one layer of 3 by 5, 1 token", answer(nn.Linear(3, 5), 1), 90,
         "6 FLOPs per weight and token.")  # fmt: skip
    model = nn.Sequential(nn.Embedding(100, 8), nn.Linear(8, 20, bias=False))
    same("an embedding of 100 by 8, a layer of 8 by 20, 7 tokens", answer(model, 7), 6720,
         "An embedding is a look-up: it multiplies nothing.")  # fmt: skip
    same("layers inside layers: 6-11-6, then a head 6-50; 1,000 tokens",
         answer(Mixed(), 1000), 6000 * (66 + 66 + 300),
         "model.modules() finds every nn.Linear, also those inside others.")  # fmt: skip


def _law(N, E, A, alpha):
    return E + A / np.asarray(N, dtype=float) ** alpha


SIZES = np.array([1000.0, 2500.0, 7000.0, 16000.0, 50000.0])
WOBBLE = np.array([0.6, -1.0, 0.8, 0.3, -0.7])  # of five losses, in units of a spread


@chapter.exercise(
    "log L = log A - alpha log N: a straight line.",
    "np.polyfit(x, y, 1) gives slope and start of the line through y over x.",
    "slope, start = np.polyfit(np.log(N), np.log(L), 1); return np.exp(start), -slope",
)
def fit_line(answer):
    "A straight line through both logarithms."
    for A, alpha in ((20.0, 0.25), (3.0, 0.05)):
        A_got, alpha_got = answer(SIZES, _law(SIZES, 0, A, alpha))
        case = f"losses exactly {A:g} / N**{alpha:g}"
        same(f"{case}: alpha", alpha_got, alpha,
             "alpha is minus the slope of log L over log N.", rtol=1e-5)  # fmt: skip
        same(f"{case}: A", A_got, A, "The line's start is log A.", rtol=1e-5)
    L = np.array([3.0, 2.6, 2.5, 2.2, 2.3])
    slope, start = np.polyfit(np.log(SIZES), np.log(L), 1)
    A_got, alpha_got = answer(SIZES, L)
    rule = "Least squares in both logarithms, over all runs."
    same("five runs off the line: alpha", alpha_got, -slope, rule, rtol=1e-5)
    same("five runs off the line: A", A_got, np.exp(start), rule, rtol=1e-5)


def _best_floor(N, L):
    "The least squares of L itself, for each floor a line in logarithms: the oracle."
    found = []
    for E in np.linspace(0, L.min(), 4000, endpoint=False):
        slope, start = np.polyfit(np.log(N), np.log(L - E), 1)
        found.append(
            (np.square(E + np.exp(start) * N**slope - L).sum(), E, slope, start)
        )
    _, E, slope, start = min(found)
    return E, np.exp(start), -slope


@chapter.exercise(
    "If you knew E, the rest would be fit_line. So try many.",
    "For each E of np.linspace(0, L.min(), 400, endpoint=False): A, alpha = fit_line(N, L - "
    "E); its misses are E + A / N**alpha - L. Keep the E with the least sum of squares.",
    "best = min((np.square(E + A / N**alpha - L).sum(), E, A, alpha) for ...); return "
    "best[1:]",
)
def fit_offset(answer):
    "A law with a floor."
    for E, A, alpha in ((1.9, 12.0, 0.35), (1.2, 30.0, 0.5), (0.0, 5.0, 0.1)):
        L = _law(SIZES, E, A, alpha)
        got = answer(SIZES, L)
        same(f"losses exactly {E:g} + {A:g} / N**{alpha:g}: how many numbers come back",
             len(got), 3, "Three numbers come back: E, A, alpha.")  # fmt: skip
        case = f"losses exactly {E:g} + {A:g} / N**{alpha:g}"
        same(f"{case}: E", got[0], E, "Try many floors between 0 and the lowest loss, and "
             "keep the one whose curve misses the losses least.", atol=0.015)  # fmt: skip
        same(f"{case}: alpha", got[2], alpha, "The third number is alpha, of the line "
             "through log(L - E).", rtol=0.03)  # fmt: skip
        same(f"{case}: the law at N = 1,000,000", _law(1e6, *got), _law(1e6, E, A, alpha),
             "Return E, A, alpha, so that L = E + A / N**alpha.", rtol=0.004)  # fmt: skip
    for spread in (0.01, 0.02):
        L = _law(SIZES, 1.9, 12.0, 0.35) + spread * WOBBLE
        want = _best_floor(SIZES, L)
        same(f"the first law, losses off by up to {spread:g}: E", answer(SIZES, L)[0],
             want[0], "Kept is the floor with the least sum of squares of the misses of L "
             "itself, E + A / N**alpha - L.", atol=0.015)  # fmt: skip
    L = _law(SIZES, -0.5, 5.0, 0.1)
    fit = np.polyfit(np.log(SIZES), np.log(L), 1)
    got = answer(SIZES, L)
    same("losses that fall faster than any line, -0.5 + 5 / N**0.1: E", got[0], 0.0,
         "A loss is never below 0, and neither is its floor: the lowest to try is 0.",
         atol=0.015)  # fmt: skip
    same("losses that fall faster than any line: alpha", got[2], -fit[0],
         "With the floor 0 alpha is that of fit_line.", rtol=0.03)  # fmt: skip
    order = [3, 0, 4, 2, 1]
    L = _law(SIZES, 1.9, 12.0, 0.35)
    same("the first law, runs in another order: E", answer(SIZES[order], L[order])[0], 1.9,
         "The order of the runs does not matter: the lowest loss is L.min().", atol=0.015)  # fmt: skip


@chapter.exercise(
    "Over log N the runs of one budget lie near a parabola. Where is its lowest point?",
    "bend, slope, _ = np.polyfit(np.log(N), L, 2): it is lowest at -slope / (2 bend). Undo "
    "the logarithm. Two cases are no answer: return nan.",
    "best = np.exp(-slope / (2 * bend)); return best if bend > 0 and N.min() <= best <= "
    "N.max() else math.nan",
)
def isoflop(answer):
    "The best size for one budget."
    N = np.array([1000.0, 3000.0, 8000.0, 30000.0])
    for best, bend in ((5000.0, 0.1), (1500.0, 0.02)):
        L = 2 + bend * np.log(N / best) ** 2
        same(f"four runs exactly on a parabola over log N, lowest at {best:g}",
             answer(N, L), best, "Fit a parabola over log N and undo the logarithm of "
             "where it is lowest.", rtol=1e-4)  # fmt: skip
    sizes = np.array([64000.0, 2000.0, 1000.0, 4000.0, 8000.0, 32000.0, 16000.0])
    L = np.array([2.40, 2.31, 2.43, 2.24, 2.22, 2.29, 2.21])
    bend, slope, _ = np.polyfit(np.log(sizes), L, 2)
    same("seven runs with noise, in any order", answer(sizes, L),
         np.exp(-slope / (2 * bend)), "Least squares over all runs, not their lowest.",
         rtol=1e-4)  # fmt: skip
    for where, best in (("below", 500.0), ("above", 90000.0)):
        same(f"lowest at {best:g}, {where} the runs of 1,000 to 30,000",
             answer(N, 2 + 0.1 * np.log(N / best) ** 2), math.nan,
             "A bottom beyond the runs is a guess: nan.")  # fmt: skip
    same("a parabola that opens downwards", answer(N, 2 - 0.1 * np.log(N / 5000) ** 2),
         math.nan, "Its vertex is the worst size, not the best: nan.")  # fmt: skip


def _search(A, alpha, B, beta, C):
    "Ternary search over log N: the oracle of `optimum`."
    low, high = math.log(1e-3), math.log(C)

    def loss(x):
        N = math.exp(x)
        return A / N**alpha + B / (C / 6 / N) ** beta

    for _ in range(300):
        one, two = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, two) if loss(one) < loss(two) else (one, high)
    return math.exp((low + high) / 2)


@chapter.exercise(
    "Put D = C / (6 N) into the loss, and ask where its slope in N is 0.",
    "There alpha A / N**alpha = beta B / D**beta. With D = C / (6 N) that is "
    "N**(alpha + beta) = alpha A / (beta B) * (C / 6)**beta.",
    "N = (alpha * A / (beta * B) * (C / 6) ** beta) ** (1 / (alpha + beta)); return N, C / "
    "(6 * N)",
)
def optimum(answer):
    "What a budget should buy."
    for law, C in [
        ((100.0, 0.5, 100.0, 0.5), 6e12),
        ((400.0, 0.34, 400.0, 0.28), 1e18),
        ((7.0, 0.31, 560.0, 0.58), 1e12),
        ((7.0, 0.31, 560.0, 0.58), 1e14),
        ((2.0, 0.4, 3.0, 0.5), 100.0),
    ]:
        A, alpha, B, beta = law
        case = f"A {A:g}, alpha {alpha:g}, B {B:g}, beta {beta:g}, C {C:g}"
        got = answer(*law, C)
        same(f"{case}: how many numbers come back", len(got), 2,
             "Two numbers come back: N and D.")  # fmt: skip
        N, D = got
        same(f"{case}: 6 N D", 6 * N * D, C, "The whole budget is spent: 6 N D = C.")
        same(f"{case}: N", N, _search(*law, C),
             "At the best N no other one has a lower A / N**alpha + B / D**beta: alpha A / "
             "N**alpha = beta B / D**beta.", rtol=1e-5)  # fmt: skip


def _misfit(p, N, D, L, delta=1e-3):
    "Huber's loss of the logarithms, run by run in plain numbers: the oracle."
    a, b, e, alpha, beta = p
    total = 0.0
    for n, d, loss in zip(N, D, L):
        told = math.exp(e) + math.exp(a) / n**alpha + math.exp(b) / d**beta
        miss = abs(math.log(told) - math.log(loss))
        total += miss**2 / 2 if miss <= delta else delta * (miss - delta / 2)
    return total


@chapter.exercise(
    "First the law's own losses, then the logarithm of both, then Huber's loss of the "
    "difference.",
    "log of a sum of three exponentials: torch.logsumexp. F.huber_loss has a delta and a "
    "reduction.",
    "terms = (a - alpha * N.log(), b - beta * D.log(), e.expand_as(N)); told = "
    "torch.logsumexp(torch.stack(terms), 0); return F.huber_loss(told, L.log(), "
    "delta=1e-3, reduction='sum')",
)
def misfit(answer):
    "How badly a law fits runs."

    def tensors(*columns):
        return [torch.tensor(column, dtype=torch.float64) for column in columns]

    p = [math.log(7.0), math.log(560.0), math.log(1.5), 0.31, 0.58]
    N, D = [1500.0, 24000.0, 98000.0], [77000.0, 307000.0, 2.4e6]
    L = [1.5 + 7 / n**0.31 + 560 / d**0.58 for n, d in zip(N, D)]
    same("three runs exactly on the law", answer(*tensors(p, N, D, L)), 0.0,
         "A law that tells every loss has a misfit of 0.", atol=1e-12)  # fmt: skip
    for factor, rule in [
        (1.0004, "Misses of log L up to 0.001 cost half their square."),
        (1.05, "Beyond 0.001 Huber's loss is a straight line: 0.001 (miss - 0.0005)."),
    ]:
        off = [L[0] * factor, L[1], L[2] / factor]
        want = _misfit(p, N, D, off)
        same(f"two of the three losses off by a factor of {factor:g}, summed",
             answer(*tensors(p, N, D, off)) / want, 1.0, rule, rtol=1e-5)  # fmt: skip
    q = [math.log(5.0), math.log(900.0), math.log(1.4), 0.28, 0.61]
    want = _misfit(q, N, D, L)
    same("another law", answer(*tensors(q, N, D, L)) / want, 1.0,
         "log(E + A / N**alpha + B / D**beta), where p holds log A, log B, log E, alpha, "
         "beta in this order.", rtol=1e-5)  # fmt: skip
    p5, *runs = tensors(q, N, D, L)
    p5.requires_grad_()
    total = answer(p5, *runs)
    slope = torch.zeros(5)
    if torch.is_tensor(total) and total.requires_grad:
        (slope,) = torch.autograd.grad(total, p5)
    step = [
        (_misfit([v + 1e-6 * (i == j) for j, v in enumerate(q)], N, D, L)
         - _misfit([v - 1e-6 * (i == j) for j, v in enumerate(q)], N, D, L)) / 2e-6
        for i in range(5)
    ]  # fmt: skip
    same("its slope in p, times 1,000", 1000 * slope, 1000 * np.array(step),
         "A fit needs a slope: stay with tensors, from p to the sum.", rtol=1e-3,
         atol=1e-6)  # fmt: skip


@chapter.exercise(
    "Which matrices read more numbers in the wide network than in the base?",
    "A matrix has the shape (out, in). Its rate is lr times base_in / in; a vector keeps lr.",
    "{name: lr * base_shapes[name][1] / shape[1] if len(shape) == 2 else lr for name, shape "
    "in shapes.items()}",
)
def mup_rates(answer):
    "Rates for any width, from those of a narrow network."

    def shapes(width):
        return {
            "in.weight": (width, 64), "in.bias": (width,), "hidden.weight": (width, width),
            "hidden.bias": (width,), "out.weight": (10, width), "out.bias": (10,),
        }  # fmt: skip

    same("64-256-256-10, base 64-64-64-10, lr 0.02", sorted(answer(shapes(256), shapes(64),
         0.02)), sorted(shapes(256)), "One rate for each name.")  # fmt: skip
    for width, base, lr in ((256, 64, 0.02), (48, 32, 0.01), (32, 128, 0.004)):
        got = answer(shapes(width), shapes(base), lr)
        case = f"64-{width}-{width}-10, base 64-{base}-{base}-10, lr {lr:g}"
        for name, shape in shapes(width).items():
            grown = name in ("hidden.weight", "out.weight")
            rule = (
                "It reads more in the wide network: lr times base_in / in."
                if grown
                else "A vector keeps lr."
                if len(shape) == 1
                else "It reads the same 64 numbers at every width: it keeps lr."
            )
            same(f"{case}: {name}", got[name], lr * base / width if grown else lr, rule,
                 rtol=1e-5)  # fmt: skip
    got = answer({"w": (4 * 96, 96)}, {"w": (4 * 32, 32)}, 0.03)
    same("a matrix of 384 by 96, base 128 by 32, lr 0.03", got["w"], 0.01,
         "in is the second number of a shape: 96, against 32 in the base.", rtol=1e-5)  # fmt: skip
    got = answer({"w": (30, 40)}, {"w": (10, 20)}, 0.03)
    same("a matrix of 30 by 40, base 10 by 20, lr 0.03", got["w"], 0.015,
         "Only what a matrix reads counts, not what it writes.", rtol=1e-5)  # fmt: skip


def _small(seed=0):
    "A model of one token for one: ids (B, T) -> logits (B, T, 7), float64."
    g = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7)).double()
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float64)
    return model


def _flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@chapter.exercise(
    "The old model must stay as it is: train a copy.",
    "copy.deepcopy(model), Adam over the copy's parameters, and for each batch: zero_grad, "
    "nats, backward, step.",
    "tuned = copy.deepcopy(model); adam = torch.optim.Adam(tuned.parameters(), lr); then "
    "the loop; return tuned",
)
@torch.random.fork_rng(devices=[])
def finetune(answer):
    "A trained model goes on with another text."
    g = torch.Generator().manual_seed(1)
    batches = [torch.randint(7, (3, 6), generator=g) for _ in range(4)]
    for count, lr in ((1, 0.01), (4, 0.01), (3, 0.1)):
        model, before = _small(), _flat(_small())
        tuned = answer(model, batches[:count], lr)
        case = f"{count} batch{'es' * (count > 1)}, lr {lr:g}"
        same(f"{case}: the old model's weights", _flat(model), before,
             "The old model stays as it was: train a deep copy.")  # fmt: skip
        want = copy.deepcopy(model)
        adam = torch.optim.Adam(want.parameters(), lr)
        for rows in batches[:count]:
            logits = want(rows[:, :-1]).flatten(0, 1)
            loss = F.cross_entropy(logits, rows[:, 1:].flatten())
            slopes = torch.autograd.grad(loss, list(want.parameters()))
            for p, slope in zip(want.parameters(), slopes):
                p.grad = slope
            adam.step()
        same(f"{case}: the tuned model's weights", _flat(tuned), _flat(want),
             "One step of Adam at lr per batch, along this batch's slope alone, from the "
             "weights that the model had.", rtol=1e-5)  # fmt: skip
