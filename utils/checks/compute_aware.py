"""Chapter 26: multiply-adds, priced."""

import itertools
import math

import torch
from torch import nn

from utils.exercises import Chapter, Miss, same

chapter = Chapter("26_compute_aware")


def _numbers(values):
    return torch.tensor(values, dtype=torch.float64)


# ---- points ----


@chapter.exercise(
    "One row goes through a linear layer: every input meets every output once.",
    "Sum in_features * out_features over all nn.Linear in net.modules().",
    "sum(p.in_features * p.out_features for p in net.modules() if isinstance(p, nn.Linear))",
)
def macs(answer):
    "Multiply-adds per row."
    nested = nn.Sequential(
        nn.Linear(5, 7), nn.ReLU(), nn.Sequential(nn.Linear(7, 2), nn.Linear(2, 3))
    )
    weights = nn.Sequential(nn.Embedding(7, 3), nn.LayerNorm(3), nn.Linear(3, 5))
    for case, net, want in [
        ("nn.Linear(3, 5, bias=False)", nn.Linear(3, 5, bias=False), 15),
        ("nn.Linear(3, 5)", nn.Linear(3, 5), 15),
        (
            "Linear(64, 16), ReLU, Linear(16, 16), ReLU, Linear(16, 10)",
            nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(),
                          nn.Linear(16, 10)),
            1440,
        ),
        ("Linear(5, 7), ReLU, Sequential(Linear(7, 2), Linear(2, 3))", nested, 55),
        ("Embedding(7, 3), LayerNorm(3), Linear(3, 5)", weights, 15),
        ("a network of nothing but ReLU", nn.Sequential(nn.ReLU()), 0),
    ]:  # fmt: skip
        same(case, answer(net), want, rtol=0,
             rule="Inputs times outputs of each nn.Linear, wherever it stands; no biases, "
             "no other modules.")  # fmt: skip


@chapter.exercise(
    "A point leaves if another is no dearer and no worse, and is better in one of the two.",
    "Go through the points from the cheapest; of equal costs, the best score first. Keep "
    "a point where its score is above all that were kept.",
    "for cost, score in sorted(set(points), key=lambda p: (p[0], -p[1])): "
    "if not front or score > front[-1][1]: front.append((cost, score))",
)
def pareto(answer):
    "Which points no other point beats."
    few = [(3, 90), (1, 80), (2, 85), (4, 88)]
    dice = torch.Generator().manual_seed(0)
    alike = [(3, 85), (2, 85), (2, 80), (1, 70)]
    doubles = [(c, 10 * c + d) for c in range(8) for d in (0, 5)]
    many = [tuple(p) for p in torch.randint(0, 12, (40, 2), generator=dice).tolist()]
    for case, points in [
        (f"points = {few}", few),
        ("one point alone: [(5, 50)]", [(5, 50)]),
        (f"points = {alike}", alike),
        ("equal costs: [(2, 85), (1, 70), (2, 80)]", [(2, 85), (1, 70), (2, 80)]),
        ("equal scores: [(3, 85), (2, 85), (1, 70)]", [(3, 85), (2, 85), (1, 70)]),
        ("one point twice: [(2, 85), (1, 70), (2, 85)]", [(2, 85), (1, 70), (2, 85)]),
        ("all worse than the cheapest: [(1, 9), (2, 8), (3, 7)]", [(1, 9), (2, 8), (3, 7)]),
        ("scores below 0: [(1, -5), (2, -3), (3, -4)]", [(1, -5), (2, -3), (3, -4)]),
        ("two scores at each cost: [(0, 0), (0, 5), (1, 10), (1, 15) ...]", doubles),
        ("40 drawn points", many),
        ("no point at all", []),
    ]:  # fmt: skip
        want = sorted(p for p in set(points) if not any(_beats(q, p) for q in points))
        before = list(points)
        same(case, _pairs(case, answer(points)), want, rtol=0,
             rule="Each point that no other beats, once, from the cheapest on.")  # fmt: skip
        same(f"{case}: the list afterwards", points, before,
             rule="The list of points should stay as it was.")  # fmt: skip


def _beats(q, p):
    "Whether q is no dearer and no worse than p, and another point."
    return q != p and q[0] <= p[0] and q[1] >= p[1]


def _pairs(case, got):
    if not isinstance(got, (list, tuple)):
        raise Miss("A list of pairs (cost, score) is asked for.", case, got, "a list")
    return [tuple(p) for p in got]


@chapter.exercise(
    "Draw the front as a staircase: at each cost, the best score that can be had for it.",
    "Use pareto. A step begins at its own cost and ends where the next one begins, the "
    "last at the corner; its height is score - lowest. Points outside count nothing.",
    "inside = pareto([p for p in points if p[0] < highest and p[1] > lowest]); ends = costs of "
    "inside[1:], then highest; sum((end - cost) * (score - lowest))",
)
def hypervolume(answer):
    "The area under the staircase."
    rule = "Each step of the front: its width times its height above the corner."
    for case, points, corner, want in [
        ("one point (2, 90), corner (5, 80)", [(2, 90)], (5, 80), 30),
        ("[(1, 82), (2, 90)], corner (5, 80)", [(1, 82), (2, 90)], (5, 80), 32),
        ("[(2, 90), (1, 82)], corner (5, 80)", [(2, 90), (1, 82)], (5, 80), 32),
        ("[(2, 90), (3, 85), (1, 82)], corner (5, 80): (3, 85) is beaten",
         [(2, 90), (3, 85), (1, 82)], (5, 80), 32),
        ("[(1.5, 81), (2, 84), (4.5, 90)], corner (6, 80)",
         [(1.5, 81), (2, 84), (4.5, 90)], (6, 80), 0.5 + 10 + 15),
        ("a corner at -1: scores [(1, -0.5), (2, 0.5)]", [(1, -0.5), (2, 0.5)], (3, -1), 2),
        ("no point at all", [], (5, 80), 0),
    ]:  # fmt: skip
        same(case, answer(points, corner), want, rule)
    rule = "A point that is dearer than the corner, or not better, adds nothing."
    for case, points, want in [
        ("too dear: [(2, 90), (7, 99)], corner (5, 80)", [(2, 90), (7, 99)], 30),
        ("too bad: [(1, 70), (2, 90)], corner (5, 80)", [(1, 70), (2, 90)], 30),
        ("nothing but too dear: [(7, 99)], corner (5, 80)", [(7, 99)], 0),
        ("on the corner's edges: [(5, 90), (1, 80)]", [(5, 90), (1, 80)], 0),
    ]:
        same(case, answer(points, (5, 80)), want, rule)


@chapter.exercise(
    "Work out what each point comes to in total: its loss, and its bill.",
    "The least loss + price * cost; where two are equal, the one with the lower cost.",
    "min(points, key=lambda p: (p[1] + price * p[0], p[0]))",
)
def cheapest(answer):
    "The point that a price chooses."
    points = [(1, 0.5), (4, 0.25), (8, 0.125), (16, 0.0625), (99, 0.5)]
    for price, want in [
        (0.0, (16, 0.0625)), (0.01, (8, 0.125)), (0.05, (4, 0.25)), (0.2, (1, 0.5))
    ]:  # fmt: skip
        for order in (points, points[::-1]):
            same(f"points = {order}, price {price}", answer(order, price), want, rtol=0,
                 rule="The point itself with the least loss + price * cost.")  # fmt: skip
    for order in ([(2, 0.5), (4, 0.25)], [(4, 0.25), (2, 0.5)]):
        same(f"points = {order}, price 0.125: both 0.75 in total", answer(order, 0.125), (2, 0.5),
             rule="Of two that are equal in total, take the cheaper one.")  # fmt: skip
    free = [(3, 0.25), (2, 0.25), (9, 0.5)]
    same(f"points = {free}, price 0", answer(free, 0.0), (2, 0.25),
         rule="At price 0 the least loss, and of equals the cheaper one.")  # fmt: skip


# ---- gates ----


@chapter.exercise(
    "Three steps: a sigmoid of noise and a, stretched past both ends, cut off again.",
    "s = sigmoid((log u - log(1 - u) + a) / BETA); then s * (HIGH - LOW) + LOW; then a clamp.",
    "s_N = torch.sigmoid((u_N.log() - (1 - u_N).log() + a_N) / BETA); "
    "return (s_N * (HIGH - LOW) + LOW).clamp(0, 1)",
)
def draw_gates(answer):
    "Gates that are often exactly 0 or exactly 1."

    def want(a, u):
        s = 1 / (1 + math.exp(-(math.log(u / (1 - u)) + a) / (2 / 3)))
        return min(1.0, max(0.0, s * 1.2 - 0.1))

    for a_N, u_N in [
        ([0.0, 0.0, 0.0], [0.5, 0.3, 0.7]),
        ([1.0, -1.0, 0.5, -0.5], [0.2, 0.8, 0.4, 0.35]),
        ([4.0, -4.0, 0.0, 0.0], [0.5, 0.5, 0.999, 0.001]),
    ]:
        same(f"a = {a_N}, u = {u_N}", answer(_numbers(a_N), _numbers(u_N)),
             [want(a, u) for a, u in zip(a_N, u_N)],
             rule="sigmoid((log u - log(1 - u) + a) / BETA), stretched to LOW .. HIGH, "
             "held in 0 .. 1.")  # fmt: skip
    square = torch.linspace(0.05, 0.95, 6, dtype=torch.float64).reshape(2, 3)
    same("a = 0.3 for all, u of the shape (2, 3)", answer(torch.full_like(square, 0.3), square),
         [[want(0.3, u) for u in row] for row in square.tolist()],
         rule="Every gate for itself: the shape should stay.")  # fmt: skip
    dice = torch.Generator().manual_seed(0)
    u_N = torch.rand(100_000, generator=dice, dtype=torch.float64)
    for a in (-1.0, 0.5):
        drawn = answer(torch.full_like(u_N, a), u_N)
        chance = torch.sigmoid(torch.tensor(a - 2 / 3 * math.log(0.1 / 1.1))).item()
        same(f"100,000 draws with a = {a}: the share above 0",
             (drawn > 0).double().mean(), chance, atol=0.01,
             rule="What is at most 0 after the stretching should become exactly 0.")  # fmt: skip
    a_N = _numbers([0.3, -0.2]).requires_grad_()
    drawn = answer(a_N, _numbers([0.5, 0.4]))
    if not drawn.requires_grad:
        raise Miss("The gates must carry a gradient back to `a`.", "a with requires_grad",
                   "no gradient", "a gradient")  # fmt: skip


@chapter.exercise(
    "How many units does a layer keep on average? Then: which numbers multiply?",
    "Expected units of a layer: the sum of its chances. Gates of different layers are drawn "
    "apart, so the mean of a product is the product of the means.",
    "units = [c.sum(-1) for c in chances]; sum(a * b for a, b in zip(units, units[1:]))",
)
def expected_macs(answer):
    "The mean bill of a chain with gates."
    rule = (
        "Expected units of two neighbouring layers multiply; then sum over the layers."
    )
    for chances in [
        [[0.5, 1.0], [0.75]],
        [[0.5, 1.0, 0.25], [0.5, 0.5], [1.0, 1.0]],
        [[0.2, 0.9], [0.7, 0.1, 0.4], [0.3, 0.6, 0.8, 0.5], [1.0, 1.0, 1.0]],
    ]:
        got = answer([_numbers(c) for c in chances])
        same(
            f"chances = {chances}: the mean over all draws",
            got,
            _mean_bill(chances),
            rule,
        )
    pair = [_numbers([[0.5, 1.0, 0.25], [1.0, 1.0, 1.0]]), _numbers([[0.5, 0.5], [1.0, 0.0]]),
            torch.ones(2, 4, dtype=torch.float64)]  # fmt: skip
    same("two networks at once, chances of the shapes (2, 3), (2, 2), (2, 4)", answer(pair),
         [1.75 * 1 + 1 * 4, 3 * 1 + 1 * 4],
         rule="Sum over the last axis: axes before it are several networks.")  # fmt: skip
    c_N = _numbers([0.5, 0.5]).requires_grad_()
    got = answer([c_N, torch.ones(3, dtype=torch.float64)])
    if not getattr(got, "requires_grad", False):
        raise Miss("The bill must carry a gradient back to the chances.",
                   "chances with requires_grad", "no gradient", "a gradient")  # fmt: skip


def _mean_bill(chances):
    "Sum over every way the gates can fall: its chance times its multiply-adds."
    flat = [(i, c) for i, layer in enumerate(chances) for c in layer]
    total = 0.0
    for falls in itertools.product((0, 1), repeat=len(flat)):
        chance, units = 1.0, [0] * len(chances)
        for (i, c), open_ in zip(flat, falls):
            chance *= c if open_ else 1 - c
            units[i] += open_
        total += chance * sum(a * b for a, b in itertools.pairwise(units))
    return total


@chapter.exercise(
    "A unit with gate 0 is a column of one layer and a row of the layer before.",
    "Keep the columns where the layer's own gate is open, times the gate; keep the rows (and "
    "biases) where the next layer's gate is open; the last layer keeps all its rows.",
    "kept = [torch.nonzero(z)[:, 0] for z in gates]; small.weight.data = "
    "layer.weight.data[outs][:, ins] * z[ins]; small.bias.data = layer.bias.data[outs]",
)
def harden(answer):
    "The network without its closed units."
    for sizes, gates in [
        ((3, 4, 2), [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0]]),
        ((3, 4, 2), [[1.0, 0.5, 0.0], [0.25, 0.0, 0.0, 1.0]]),
        ((5, 6, 4, 3), [[0.0, 1.0, 0.3, 0.7, 0.0], [1.0, 0.0, 0.6, 0.2, 0.0, 1.0],
                        [0.0, 0.9, 0.0, 0.4]]),
        ((2, 3, 2), [[1.0, 1.0], [1.0, 1.0, 1.0]]),
    ]:  # fmt: skip
        dice = torch.Generator().manual_seed(sum(sizes))
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
        with torch.no_grad():
            for layer in layers:
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=dice))
                layer.bias.copy_(torch.randn(layer.bias.shape, generator=dice))
        z = [torch.tensor(g) for g in gates]
        x_BD = torch.randn(7, sizes[0], generator=dice)
        before = [layer.weight.detach().clone() for layer in layers]
        case = f"layers {'-'.join(map(str, sizes))}, gates {gates}"
        with torch.no_grad():
            h = x_BD
            for i, (layer, z_N) in enumerate(zip(layers, z)):
                h = layer((h.relu() if i else h) * z_N)
        got = answer(layers, z)
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            raise Miss("It returns two things: the kept inputs, and the smaller network.",
                       case, type(got).__name__, "(kept, net)")  # fmt: skip
        kept, net = got
        with torch.no_grad():
            out = net(x_BD[:, kept])
        same(f"{case}: logits of 7 rows", out, h, atol=1e-5, rtol=1e-5,
             rule="The small network, given its inputs only, should answer as the gated one.")  # fmt: skip
        units = [sum(g > 0 for g in gate) for gate in gates] + [sizes[-1]]
        same(f"{case}: multiply-adds", _count(net),
             sum(a * b for a, b in itertools.pairwise(units)), rtol=0,
             rule="Closed units should be gone on both sides: as an output and as an input.")  # fmt: skip
        same(f"{case}: the old weights", torch.cat([w.flatten() for w in before]),
             torch.cat([layer.weight.detach().flatten() for layer in layers]),
             rule="The layers that were given should stay as they were.")  # fmt: skip


def _count(net):
    linear = [p for p in net.modules() if isinstance(p, nn.Linear)]
    return sum(p.in_features * p.out_features for p in linear)


# ---- early decision ----


@chapter.exercise(
    "Every threshold that makes a difference is one of the values of `sure`, or inf.",
    "For each: who stops, what it costs in the mean, how many are right. Keep those within "
    "the budget; of these the most right; of equals the lowest threshold.",
    "for t in sorted({*sure_N.tolist(), math.inf}): stops = sure_N >= t; cost = first + second "
    "* (~stops).double().mean(); right = torch.where(stops, right1_N, right2_N).sum()",
)
def choose_threshold(answer):
    "The best threshold that a budget allows."
    T, F = True, False
    sure = [0.9, 0.5, 0.8, 0.6, 0.95, 0.7, 0.55, 0.85]
    first = [T, F, T, F, T, T, F, T]
    second = [T, T, T, T, T, F, F, T]
    tied = [0.5, 0.75, 0.75, 0.25]
    worse = [T, F, T, F, F, T, F, T], [F, F, F, F, T, F, F, F]
    for sure_N, right1, right2, costs, budget in [
        (sure, *worse, (100, 400), 1000),
        (sure, first, second, (100, 400), 200),
        (sure, first, second, (100, 400), 250),
        (sure, first, second, (100, 400), 249),
        (sure, first, second, (100, 400), 100),
        (sure, first, second, (100, 400), 1000),
        (sure, first, [T] * 8, (100, 400), 1000),
        (sure, first, [F] * 8, (100, 400), 1000),
        (sure, [F] * 8, [T] * 8, (100, 400), 1000),
        (sure, [F] * 8, [T] * 8, (100, 400), 499),
        ([0.9, 0.6, 0.7], [F, F, F], [F, F, F], (100, 400), 1000),
        (tied, [F, T, F, T], [T, T, T, F], (10, 30), 1000),
        (tied, [F, T, F, F], [T, T, T, T], (10, 30), 30),
    ]:
        arrays = _numbers(sure_N), torch.tensor(right1), torch.tensor(right2)
        case = (f"sure = {sure_N}, right1 = {[*map(int, right1)]}, "
                f"right2 = {[*map(int, right2)]}, costs {costs}, budget {budget}")  # fmt: skip
        got = answer(*arrays, costs, budget)
        if got is None:
            raise Miss("The function returns nothing: is a `return` missing?", case)
        same(f"{case}: who stops at the first", [s >= got for s in sure_N],
             _best_stops(sure_N, right1, right2, costs, budget), rtol=0,
             rule="The most right answers within the budget; of equals, the cheapest.")  # fmt: skip


def _best_stops(sure, right1, right2, costs, budget):
    "By brute force: every threshold, its bill and its right answers."
    tries = []
    for t in [*sure, math.inf]:
        stops = [s >= t for s in sure]
        bill = costs[0] + costs[1] * stops.count(False) / len(stops)
        right = sum(a if s else b for s, a, b in zip(stops, right1, right2))
        if bill <= budget:
            tries.append((-right, bill, stops))
    return min(tries)[2]


@chapter.exercise(
    "With chance p we stop and pay loss1; else we pay loss2 and the toll.",
    "The mean of p * loss1 + (1 - p) * (loss2 + toll). The two losses are facts here: detach "
    "them, so that the gate cannot be paid by spoiling them.",
    "(p_N * loss1_N.detach() + (1 - p_N) * (loss2_N.detach() + toll)).mean()",
)
def gate_loss(answer):
    "What a gate pays in the mean."
    p, one, two = [0.25, 1.0, 0.0, 0.8], [2.0, 0.5, 3.0, 0.1], [0.4, 0.2, 1.0, 0.3]
    for toll in (0.0, 0.5):
        want = sum(a * b + (1 - a) * (c + toll) for a, b, c in zip(p, one, two)) / 4
        same(f"p = {p}, loss1 = {one}, loss2 = {two}, toll {toll}",
             answer(_numbers(p), _numbers(one), _numbers(two), toll), want,
             rule="The mean of p * loss1 + (1 - p) * (loss2 + toll).")  # fmt: skip
    p_N, one_N, two_N = (_numbers(v).requires_grad_() for v in (p, one, two))
    value = answer(p_N, one_N, two_N, 0.5)
    if not getattr(value, "requires_grad", False):
        raise Miss("The loss must carry a gradient back to p.", "p with requires_grad",
                   "no gradient", "a gradient")  # fmt: skip
    grads = torch.autograd.grad(value, (p_N, one_N, two_N), allow_unused=True)
    case = f"p = {p}, loss1 = {one}, loss2 = {two}, toll 0.5: gradient of p"
    want = [(a - b - 0.5) / 4 for a, b in zip(one, two)]
    if grads[0] is None:
        raise Miss(
            "No gradient reaches p: only p should learn.", case, "no gradient", want
        )
    same(case, grads[0], want,
         rule="The gradient should raise p where loss1 < loss2 + toll.")  # fmt: skip
    moved = [0.0 if grad is None else grad.abs().max().item() for grad in grads[1:]]
    same("the largest gradients that reach loss1 and loss2", moved, [0.0, 0.0],
         rule="Only p should learn: detach loss1 and loss2.")  # fmt: skip


# ---- architecture ----


@chapter.exercise(
    "Add the noise to the logits; the largest wins. The gradient is the softmax's.",
    "noisy = logits - log(-log(u)); soft = softmax(noisy / T); hard = one-hot of the largest; "
    "the result has hard's value and soft's gradient.",
    "return hard_K - soft_K.detach() + soft_K",
)
def gumbel_pick(answer):
    "A hard choice that learns."
    logits, u = [0.8, 0.0, 1.0, 0.8, -0.5], [0.1, 0.95, 0.4, 0.8, 0.02]
    row = _numbers([logits]).expand(200, 5), 1.0, _numbers([u]).expand(200, 5)
    once, again = answer(*row), answer(*row)
    if isinstance(once, torch.Tensor) and not torch.equal(once, again):
        raise Miss("All noise should come from u_K: the same u_K gives the same pick.",
                   f"200 rows of logits {logits} and of u = {u}, T = 1, drawn twice",
                   "other picks the second time", "the same picks")  # fmt: skip
    noisy = [a - math.log(-math.log(b)) for a, b in zip(logits, u)]
    for T in (1.0, 0.5, 3.0):
        same(f"logits {logits}, T = {T}, u = {u}", answer(_numbers(logits), T, _numbers(u)),
             [0.0, 1.0, 0.0, 0.0, 0.0],
             rule="A one-hot of the largest logit + noise, -log(-log(u)).")  # fmt: skip
    rows, u_RK = (
        [[2.0, 0.0], [0.0, 2.0], [0.0, 0.5]],
        [[0.5, 0.4], [0.5, 0.6], [0.9, 0.5]],
    )
    same(f"logits {rows}, T = 1, u = {u_RK}", answer(_numbers(rows), 1.0, _numbers(u_RK)),
         [[1, 0], [0, 1], [1, 0]],
         rule="The last axis holds one choice; axes before it are several choices.")  # fmt: skip
    dice = torch.Generator().manual_seed(0)
    many = torch.rand(20_000, 5, generator=dice, dtype=torch.float64)
    drawn = answer(_numbers([logits]).expand(20_000, 5), 0.7, many)
    same(f"20,000 draws with logits {logits}: how often each is picked", drawn.mean(0),
         _numbers(logits).softmax(0), atol=0.012,
         rule="Each should be picked with its softmax chance, whatever T.")  # fmt: skip
    for T in (1.0, 0.5):
        logits_K = _numbers(logits).requires_grad_()
        value = answer(logits_K, T, _numbers(u)) @ _numbers([1.0, 2.0, 4.0, 8.0, 16.0])
        if not value.requires_grad:
            raise Miss("The pick must carry a gradient back to the logits.",
                       "logits with requires_grad", "no gradient", "a gradient")  # fmt: skip
        (grad,) = torch.autograd.grad(value, logits_K)
        soft = (_numbers(noisy) / T).softmax(0)
        values = _numbers([1.0, 2.0, 4.0, 8.0, 16.0])
        same(f"logits {logits}, T = {T}, u = {u}: gradient of pick @ [1, 2, 4, 8, 16]", grad,
             soft * (values - soft @ values) / T,
             rule="Backward it is softmax((logits + noise) / T).")  # fmt: skip
    logits_RK = _numbers(rows).requires_grad_()
    value = (answer(logits_RK, 1.0, _numbers(u_RK)) * _numbers([1.0, 2.0])).sum()
    (grad,) = torch.autograd.grad(value, logits_RK)
    soft = (logits_RK.detach() - torch.log(-torch.log(_numbers(u_RK)))).softmax(-1)
    steep = (soft[:, :1] * soft[:, 1:]) * _numbers([-1.0, 1.0])
    same(f"logits {rows}, T = 1, u = {u_RK}: gradient of (pick * [1, 2]).sum()", grad, steep,
         rule="Each row is a choice of its own, backward as well.")  # fmt: skip
