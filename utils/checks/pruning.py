"""Chapter 23: fewer weights, and what to do with the ones that stay."""

import itertools

import numpy as np
import torch
from torch import nn

from utils.built import coding
from utils.check import as_array
from utils.exercises import Chapter, Miss, same

chapter = Chapter("23_pruning")


def _normal(*shape, seed=0, kind=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=kind)


def _bools(rows):
    return torch.tensor(rows, dtype=torch.bool)


def _mask(case, got, shape):
    "A mask is True and False, so that ~ and & work on it."
    same(f"{case}: the dtype", getattr(got, "dtype", type(got).__name__), torch.bool,
         "A mask is a tensor of torch.bool: True where a weight stays.")  # fmt: skip
    same(f"{case}: the shape", tuple(got.shape), shape, "As the weights: (H, D).")


def _counted(case, got, want, rule):
    same(f"{case}: how many stay", int(got.sum()), want, rule, rtol=0)


def _largest(score, count):
    "The slow way: the places of the `count` largest, as a mask."
    flat = score.flatten().tolist()
    order = sorted(range(len(flat)), key=lambda i: -flat[i])[:count]
    return _bools([i in order for i in range(len(flat))]).reshape(score.shape)


# ---- which ----


@chapter.exercise(
    "How many stay? round(keep * W_HD.numel()). Which? Those of largest abs().",
    "W_HD.abs().flatten().topk(count).indices are the places of the survivors, exactly so "
    "many, also where weights are equal. A mask is all False, then True there.",
    "mask = torch.zeros(W_HD.numel(), dtype=torch.bool); mask[places] = True; "
    "return mask.reshape(W_HD.shape)",
)
def keep_largest(answer):
    "The mask of the largest weights."
    W = torch.tensor([[0.5, -2.0, 0.1], [-0.3, 0.0, 1.0]])
    case = "W = [[0.5, -2, 0.1], [-0.3, 0, 1]], keep 0.4"
    got = answer(W, 0.4)
    _mask(case, got, (2, 3))
    same(case, got, _bools([[0, 1, 0], [0, 0, 1]]),
         "round(2.4) = 2 stay. Large means large in size: -2 stays.")  # fmt: skip
    W = _normal(3, 7, seed=1)
    for keep in (0.3, 0.7, 0.0, 1.0, 0.02):
        case, count = f"W (3, 7) of normal numbers, keep {keep}", round(keep * 21)
        got = answer(W, keep)
        _mask(case, got, (3, 7))
        same(case, got, _largest(W.abs(), count),
             "The round(keep * H * D) largest of the whole matrix; that may be none.")  # fmt: skip
    W = torch.tensor([[1.0, -1.0, 1.0, 1.0], [-1.0, 0.0, 0.0, 3.0]])
    for keep, count in ((0.5, 4), (0.25, 2), (0.9, 7)):
        case = f"W = [[1, -1, 1, 1], [-1, 0, 0, 3]], keep {keep}"
        got = answer(W, keep)
        _mask(case, got, (2, 4))
        _counted(case, got, count,
                 "Exactly round(keep * H * D), whichever of equal weights these are.")  # fmt: skip
        same(f"{case}: the 3", got[1, 3], True, "The largest always stays.")


@chapter.exercise(
    "One threshold for all: look at all weights as one long list.",
    "torch.cat([W.flatten() for W in weights])[None] is a matrix of one row: give it to "
    "keep_largest, and cut the mask into pieces again.",
    "mask.flatten().split([W.numel() for W in weights]), each reshaped as its W",
)
def global_masks(answer):
    "One threshold for several matrices."
    weights = [
        _normal(3, 4, seed=2),
        0.5 * _normal(5, 3, seed=3),
        _normal(2, 5, seed=4),
    ]
    for keep in (0.4, 0.05, 1.0, 0.0):
        case = f"matrices of (3, 4), (5, 3), (2, 5), keep {keep}"
        got = list(answer(weights, keep))
        same(f"{case}: masks", len(got), 3, "One mask for each matrix.")
        line = torch.cat([W.flatten() for W in weights])[None]
        want = _largest(line.abs(), round(keep * 37))[0].numpy()
        for W, mask, part in zip(weights, got, np.split(want, [12, 27])):
            shape = tuple(W.shape)
            _mask(f"{case}: the mask of {shape}", mask, shape)
            same(f"{case}: the mask of {shape}", mask, part.reshape(shape),
                 "The round(keep * all) largest of all matrices together.")  # fmt: skip
    weights[1] = 1000 * weights[1]
    case = "the same, keep 0.4, the second matrix times 1000"
    got = list(answer(weights, 0.4))
    same(f"{case}: how many of each stay", [int(m.sum()) for m in got], [0, 15, 0],
         "Whoever is loudest keeps the most: layers are compared as they are.")  # fmt: skip
    equal = [torch.ones(3, 3), -torch.ones(2, 2)]
    _counted("matrices of ones, (3, 3) and (2, 2), keep 0.5",
             torch.cat([m.flatten() for m in answer(equal, 0.5)]), 6,
             "Exactly round(keep * all), ties or not.")  # fmt: skip


# ---- training what is left ----


@chapter.exercise(
    "The mask belongs in the forward pass: what does the layer compute with?",
    "`weight` is the layer's weight times the mask, made anew at every call. `narrow` keeps "
    "what the old mask and the new one keep.",
    "return self.layer.weight * self.mask_HD; self.mask_HD = self.mask_HD & mask_HD",
    kind="class",
)
def Masked(answer):
    "A linear layer whose pruned weights stay 0."
    x, target = _normal(3, 4, seed=5), _normal(3, 5, seed=6)
    mask = _normal(5, 4, seed=7) > 0

    def layer():
        made = nn.Linear(4, 5)
        made.weight.data, made.bias.data = _normal(5, 4, seed=8), _normal(5, seed=9)
        return made

    def train(run, parameters, steps, optimizer=None):
        parameters = list(parameters)
        optimizer = optimizer or torch.optim.AdamW(
            parameters, lr=0.05, weight_decay=0.1
        )
        for _ in range(steps):
            loss = ((run(x) - target) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return optimizer

    plain = layer()
    want = x @ (plain.weight.data * mask).T + plain.bias.data
    part = answer(plain, mask.clone())
    same("a layer (5, 4), half of it masked: the output", part(x), want, rtol=1e-4,
         atol=1e-5, rule="x times the weights that the mask keeps, plus the bias.")  # fmt: skip
    same("`weight`", part.weight, plain.weight.data * mask,
         "The layer's weights, 0 where the mask is False.")  # fmt: skip
    part(x).square().sum().backward()
    if part.layer.weight.grad is None:
        raise Miss("The layer's weights must get a gradient where the mask is True.",
                   "a layer (5, 4): the gradient of its weights", None, "a tensor")  # fmt: skip
    same("the gradient of the masked weights", part.layer.weight.grad[~mask],
         torch.zeros(int((~mask).sum())),
         rule="What the layer does not compute with gets no gradient.")  # fmt: skip
    with torch.no_grad():
        plain.weight[~mask] = 50.0
    same("50 written into every masked weight of the layer: the output", part(x), want,
         rtol=1e-4, atol=1e-5,
         rule="The mask acts in every forward pass, whatever stands in the layer.")  # fmt: skip

    part, ours = answer(layer(), mask.clone()), layer()
    train(part, part.parameters(), 20)
    train(lambda x: nn.functional.linear(x, ours.weight * mask, ours.bias),
          ours.parameters(), 20)  # fmt: skip
    case = "20 steps of AdamW with weight decay"
    same(f"{case}: masked weights that are not 0",
         int((part.weight.detach()[~mask] != 0).sum()), 0,
         rule="What the mask removes stays exactly 0.")  # fmt: skip
    same(f"{case}: `weight`", part.weight, ours.weight * mask, rtol=1e-3, atol=1e-4,
         rule="The others learn: the gradient goes through the product.")  # fmt: skip

    first = _normal(5, 4, seed=11) > -1
    given = first.clone()
    part = answer(layer(), given)
    optimizer = train(part, part.parameters(), 5)
    part.narrow(mask.clone())
    same("5 steps with one mask, then narrow(another): what `weight` keeps",
         part.weight != 0, first & mask, rule="From now on both masks count.")  # fmt: skip
    same("the mask that was given at the start, after narrow", given, first,
         rule="Others may still use that mask: make a new one, no &=.")  # fmt: skip
    train(part, part.parameters(), 5, optimizer)
    case = "5 steps, narrow(another mask), 5 more steps of the same AdamW"
    same(f"{case}: masked weights that are not 0",
         int((part.weight.detach()[~(first & mask)] != 0).sum()), 0,
         rule="The optimiser remembers old gradients, and moves a weight whose gradient is "
              "0 now: multiply in the forward pass.")  # fmt: skip
    other = _normal(5, 4, seed=10) > 0
    part.narrow(other)
    same("then narrow(a third mask): what `weight` keeps", part.weight != 0,
         first & mask & other,
         rule="Only what both masks keep: what is gone stays gone.")  # fmt: skip
    part = answer(layer(), torch.ones(5, 4, dtype=torch.bool))
    with torch.no_grad():
        part.layer.weight[2, 3] = 0.0
    part.narrow(torch.ones(5, 4, dtype=torch.bool))
    with torch.no_grad():
        part.layer.weight[2, 3] = 4.0
    same("a kept weight that is 0 just now, narrow(all True), then 4 is written there: `weight`",
         part.weight[2, 3], 4.0,
         rule="A kept weight may pass through 0 and stays kept: the masks decide.")  # fmt: skip


@chapter.exercise(
    "Which share of the way is left? It goes from 1 at step 0 to 0 at stop * total, and "
    "then stays there.",
    "left = max(0, 1 - step / (stop * total)); the share that is kept lies between `keep` "
    "(left = 0) and 1 (left = 1), by left ** 3.",
    "return keep + (1 - keep) * max(0.0, 1 - step / (stop * total)) ** 3",
)
def keep_at(answer):
    "The cubic schedule."
    for total, keep, stop in ((200, 0.1, 0.5), (37, 0.05, 0.6), (100, 0.3, 1.0)):
        name = f"total {total}, keep {keep}, stop {stop}"
        same(f"step 0, {name}", answer(0, total, keep, stop), 1.0,
             "At the start every weight is there.")  # fmt: skip
        for step in (round(0.9 * stop * total), 10, 13, total // 4):
            left = 1 - step / (stop * total)
            same(f"step {step}, {name}", answer(step, total, keep, stop),
                 keep + (1 - keep) * left**3,
                 "keep + (1 - keep) * left ** 3, with left = 1 - step / (stop * total).")  # fmt: skip
        end = stop * total
        for step in (end, 1.5 * end, total + 5):
            same(f"step {step:g}, {name}", answer(step, total, keep, stop), keep,
                 "From stop * total on it stays at `keep`.")  # fmt: skip
    same("step 1, total 3, keep 0, stop 1", answer(1, 3, 0.0, 1.0), 8 / 27,
         "keep may be 0.")  # fmt: skip


def _net(*widths, seed=0):
    "Linear layers with a ReLU between each two, with these numbers in them."
    parts = []
    for k, (D, H) in enumerate(itertools.pairwise(widths)):
        layer = nn.Linear(D, H)
        layer.weight.data = _normal(H, D, seed=seed + 2 * k)
        layer.bias.data = _normal(H, seed=seed + 2 * k + 1)
        parts += [layer, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


@chapter.exercise(
    "Two networks: one says which weights, the other says with what values.",
    "Copy the initial one; for each pair of linear layers, multiply the copy's weights by "
    "keep_largest(trained weights, keep). Biases stay as they were at the start.",
    "rewound = deepcopy(initial); for old, new in zip(rewound[::2], net[::2]): "
    "old.weight.data *= keep_largest(new.weight.data, keep); return rewound",
)
def ticket(answer):
    "A trained network's survivors, rewound to the start."
    for widths in ((4, 5, 3), (4, 7, 5, 3)):
        net, initial = _net(*widths, seed=20), _net(*widths, seed=40)
        net[0].weight.data *= 100  # each layer has a threshold of its own
        before = [p.clone() for p in (*net.parameters(), *initial.parameters())]
        for keep in (0.4, 0.15):
            case = f"networks {' -> '.join(map(str, widths))}, keep {keep}"
            got = answer(net, initial, keep)
            if not isinstance(got, nn.Module):
                raise Miss(
                    "Return a network, a copy of `initial`.", case, got, "a network"
                )
            for k, (made, trained, start) in enumerate(zip(got[::2], net[::2], initial[::2])):  # fmt: skip
                count = round(keep * start.weight.numel())
                mask = _largest(trained.weight.data.abs(), count).numpy()
                same(f"{case}: weights of layer {k + 1}", made.weight + 0.0,
                     start.weight.detach().numpy() * mask + 0.0, rtol=0, atol=0,
                     rule="The initial values, bit for bit, where the trained weights are the "
                          "largest of their layer; 0 elsewhere.")  # fmt: skip
                same(f"{case}: biases of layer {k + 1}", made.bias, start.bias, rtol=0,
                     atol=0, rule="Biases are not pruned, and go back as well.")  # fmt: skip
            after = [*net.parameters(), *initial.parameters()]
            changed = sum(not torch.equal(a, b) for a, b in zip(before, after))
            same(f"{case}: tensors of the two networks that have changed", changed, 0,
                 rule="Both networks are still needed: work on a copy.")  # fmt: skip
            with torch.no_grad():
                for p in got.parameters():
                    p += 1
            changed = sum(not torch.equal(a, b) for a, b in zip(before, after))
            with torch.no_grad():
                for a, b in zip(before, after):
                    b.copy_(a)
            same(f"{case}: tensors of the two that changed when 1 was added to the new "
                 "network's", changed, 0,
                 rule="The new network has numbers of its own, biases too.")  # fmt: skip


# ---- who is heard ----


@chapter.exercise(
    "A weight is heard as loudly as its input is: what is the size of an input column?",
    "score = W_HD.abs() * X_ND.norm(dim=0), one norm for each input; then, in each row by "
    "itself, the round(keep * D) largest.",
    "places = score.topk(count, dim=1).indices; "
    "return torch.zeros(score.shape, dtype=torch.bool).scatter(1, places, True)",
)
def wanda(answer):
    "Size of the weight times size of its input, in each row by itself."
    W = [[9, 3, -6, 5, 9], [4, 4, 8, -2, -4], [-9, -1, -4, 8, -7]]
    X = [[0, 3, 0, -8, 1], [-2, -4, 1, 4, -2], [-2, 3, -4, -6, -1.5]]
    case = f"W = {W}, X = {X}, keep 0.4"
    got = answer(torch.tensor(W).float(), torch.tensor(X).float(), 0.4)
    _mask(case, got, (3, 5))
    same(case, got, _bools([[1, 0, 0, 1, 0], [0, 1, 1, 0, 0], [1, 0, 0, 1, 0]]),
         "The columns of X have the norms 2.8, 5.8, 4.1, 10.8 and 2.7; the scores of the "
         "second row are 11, 23, 33, 22 and 11.")  # fmt: skip
    for H, D, N, keep in (
        (4, 6, 9, 0.5),
        (4, 5, 3, 0.3),
        (3, 8, 20, 0.04),
        (3, 8, 5, 1),
    ):
        W, X = _normal(H, D, seed=60 + H), _normal(N, D, seed=70 + D)
        W[0] *= 10
        X[:, 0] *= 4
        X[:, 1] = X[:, 1].abs() * 0.3 - 0.1
        case = f"W ({H}, {D}), X ({N}, {D}), keep {keep}"
        got = answer(W, X, keep)
        _mask(case, got, (H, D))
        score, count = W.abs() * (X.double() ** 2).sum(0).sqrt(), round(keep * D)
        want = torch.cat([_largest(score[h : h + 1], count) for h in range(H)])
        same(case, got, want,
             "|w| times the norm of its input column, the round(keep * D) largest of each "
             "row.")  # fmt: skip
    case = "W of ones (3, 4), X of ones (2, 4), keep 0.5"
    got = answer(torch.ones(3, 4), torch.ones(2, 4), 0.5)
    same(f"{case}: how many stay in each row", got.sum(1), [2, 2, 2],
         "Exactly round(keep * D) in each row, ties or not.")  # fmt: skip


@chapter.exercise(
    "Make every four neighbours a row of their own: reshape(-1, 4).",
    "The two largest of each row of four: topk(2, dim=1).indices, True there.",
    "groups = score_HD.reshape(-1, 4); mask = torch.zeros(groups.shape, dtype=torch.bool); "
    "return mask.scatter(1, groups.topk(2, 1).indices, True).reshape(score_HD.shape)",
)
def two_of_four(answer):
    "The two largest of each four."
    score = [[7, 8, -4, 9, 3, -1, 1, 4], [-1, 2, 6, -6, 1, -3, 8, 9],
             [-5, 4, 7, 2, 1, -1, 0, 8]]  # fmt: skip
    case = f"score = {score}"
    got = answer(torch.tensor(score).float())
    _mask(case, got, (3, 8))
    want = [[0, 1, 0, 1, 1, 0, 0, 1], [0, 1, 1, 0, 0, 0, 1, 1],
            [0, 1, 1, 0, 1, 0, 0, 1]]  # fmt: skip
    same(case, got, _bools(want),
         "The first row: two of [7, 8, -4, 9] and two of [3, -1, 1, 4].")  # fmt: skip
    for H, D in ((2, 12), (6, 4), (3, 8)):
        score = _normal(H, D, seed=80 + D)
        want = [[score[h, d] in score[h, d // 4 * 4 : d // 4 * 4 + 4].topk(2).values
                 for d in range(D)] for h in range(H)]  # fmt: skip
        case = f"score ({H}, {D}) of normal numbers"
        got = answer(score)
        _mask(case, got, (H, D))
        same(case, got, _bools(want), "The two largest of every four neighbours in a row; "
             "a score of -1 is larger than one of -2.")  # fmt: skip
    case = "score (2, 8), all equal"
    got = answer(torch.ones(2, 8))
    same(f"{case}: how many stay in each four", got.reshape(-1, 4).sum(1), [2] * 4,
         "Exactly two, ties or not: choose places, not a threshold.")  # fmt: skip


# ---- whole units ----


@chapter.exercise(
    "A hidden unit is a row of the first matrix, a number of its bias, and a column of the "
    "second matrix.",
    "Two new layers: nn.Linear(D, K) with before.weight.data[units_K] and "
    "before.bias.data[units_K]; nn.Linear(K, O) with after.weight.data[:, units_K].",
    "second.weight.data, second.bias.data = after.weight.data[:, units_K].clone(), "
    "after.bias.data.clone()",
)
def shrink(answer):
    "Two layers with fewer units between them."
    for (D, H, C), units in (
        ((6, 5, 3), [0, 2, 4]), ((4, 7, 2), [5, 1]), ((3, 4, 6), [2])
    ):  # fmt: skip
        net = _net(D, H, C, seed=100)
        before, after = net[0], net[2]
        kept = torch.tensor(units)
        case = f"layers {D} -> {H} -> {C}, units {units}"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # a forgotten bias is the same one every time
            got = answer(before, after, kept)
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            raise Miss("Return two layers.", case, got, "(before, after)")
        first, second = got
        K = len(units)
        fresh = _net(D, H, C, seed=100)
        same(f"{case}: the given layers, afterwards",
             [tuple(p.shape) for p in net.parameters()],
             [tuple(p.shape) for p in fresh.parameters()],
             rule="Make new layers: the given ones are still needed.")  # fmt: skip
        for name, made, want, made_of, sizes in (
            ("before.weight", first.weight, before.weight[kept], first, [D, K]),
            ("before.bias", first.bias, before.bias[kept], first, [D, K]),
            ("after.weight", second.weight, after.weight[:, kept], second, [K, C]),
            ("after.bias", second.bias, after.bias, second, [K, C]),
        ):
            same(f"{case}: {name}", made, want,
                 "Rows and biases of the first layer, columns of the second, in the order of "
                 "`units_K`; the second layer's own bias stays.")  # fmt: skip
            same(f"{case}: {name.split('.')[0]}, inputs and outputs",
                 [made_of.in_features, made_of.out_features], sizes,
                 "nn.Linear(D, K), then nn.Linear(K, C).")  # fmt: skip
        x, gone = _normal(9, D, seed=110), torch.ones(H)
        gone[kept] = 0
        h = torch.relu(before(x)) * (1 - gone)
        same(f"{case}: the output", second(torch.relu(first(x))), after(h), rtol=1e-4,
             atol=1e-5, rule="The same function as with the other units silenced.")  # fmt: skip
        with torch.no_grad():
            first.weight += 1
            second.bias += 1
        same(f"{case}: the given layers after 1 was added to the new ones",
             [torch.equal(a, b) for a, b in zip(net.parameters(), fresh.parameters())],
             [True] * 4, rule="The new layers have numbers of their own: clone().")  # fmt: skip


@chapter.exercise(
    "Least squares: a column of ones beside h gives the bias.",
    "A = torch.cat([h_NK, ones (N, 1)], 1); solve (A.T @ A / N + damping * eye) S = "
    "A.T @ target / N with torch.linalg.solve. S is (K + 1, H).",
    "S = torch.linalg.solve(A.T @ A / N + damping * torch.eye(K + 1), A.T @ target_NH / N); "
    "return S[:-1].T, S[-1]",
)
def refit(answer):
    "The linear layer that comes closest to its targets."

    def two(case, got):
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            raise Miss("Return two things: W (H, K) and b (H,).", case, got, "(W, b)")
        return got

    def least_squares(h, target, damping):
        "The slow way: damping is a row for each weight that asks it to be 0."
        N, A = len(h), np.concatenate([h, np.ones((len(h), 1))], 1)
        more = np.sqrt(N * damping) * np.eye(A.shape[1])
        S = np.linalg.lstsq(
            np.concatenate([A, more]),
            np.concatenate([target, np.zeros((A.shape[1], target.shape[1]))]),
            rcond=None,
        )[0]
        return S[:-1].T, S[-1]

    W, b = _normal(3, 4, seed=120, kind=torch.float64), torch.tensor([1.0, -2.0, 0.5]).double()  # fmt: skip
    h = torch.relu(_normal(50, 4, seed=121, kind=torch.float64))
    case = "targets h W' + b, 50 rows, 4 units, 3 outputs, damping 1e-12"
    got = two(case, answer(h, h @ W.T + b, 1e-12))
    same(f"{case}: W", got[0], W, rtol=1e-5, atol=1e-6,
         rule="Here the targets are exactly h W' + b: W and b must come back, W as (H, K).")  # fmt: skip
    same(f"{case}: b", got[1], b, rtol=1e-5, atol=1e-6,
         rule="And the same bias: it belongs to a column of ones.")  # fmt: skip
    for N, K, H, damping in ((40, 5, 2, 0.1), (7, 3, 6, 1.0), (4, 6, 3, 0.01)):
        h = torch.relu(_normal(N, K, seed=130 + N, kind=torch.float64))
        target = _normal(N, H, seed=140 + N, kind=torch.float64) + 2
        case = f"{N} rows, {K} units, {H} outputs, damping {damping}"
        got = two(case, answer(h, target, damping))
        want = least_squares(h.numpy(), target.numpy(), damping)
        rule = "(A'A / N + damping I) S = A'T / N, with A = [h, 1]; W is S without its last "
        rule += "row, turned, and b that row."
        same(f"{case}: W", got[0], want[0], rule, rtol=1e-5, atol=1e-7)
        same(f"{case}: b", got[1], want[1], rule, rtol=1e-5, atol=1e-7)
    h, target = h.float(), target.float()
    got = two("numbers in float32", answer(h, target, 0.01))
    same("numbers in float32: the dtype of W and b", [got[0].dtype, got[1].dtype],
         [torch.float32] * 2, "W and b have the type of h.")  # fmt: skip


# ---- bytes ----


@chapter.exercise(
    "Read row by row. Between two survivors: how many zeros?",
    "places = mask.flatten().nonzero().flatten().tolist(); zeros = place - last - 1. While "
    "zeros >= 255: write 255, zeros -= 255. Then write zeros.",
    "found += [255] * (zeros // 255) + [zeros % 255]; last = place",
)
def gaps(answer):
    "Run lengths of zeros, in bytes."

    def line(*zeros, after=0):
        "A mask with so many zeros before each survivor, and some after the last."
        bits = [b for z in zeros for b in [False] * z + [True]] + [False] * after
        return torch.tensor(bits, dtype=torch.bool)

    first = torch.tensor([[0, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]], dtype=torch.bool)
    for case, mask, want in [
        ("mask = [[0, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]]", first, [2, 1, 0, 5]),
        ("gaps of 0, 254 and 3", line(0, 254, 3), [0, 254, 3]),
        ("gaps of 256 and 0", line(256, 0), [255, 1, 0]),
        ("a gap of 255", line(255), [255, 0]),
        ("gaps of 1, 509, 510 and 7", line(1, 509, 510, 7), [1, 255, 254, 255, 255, 0, 7]),
        ("a gap of 300 in a mask (7, 43)", line(300).reshape(7, 43), [255, 45]),
        ("a gap of 2, then 400 zeros to the end", line(2, after=400), [2]),
        ("a full mask (2, 3)", torch.ones(2, 3, dtype=torch.bool), [0] * 6),
        ("an empty mask (20, 30)", torch.zeros(20, 30, dtype=torch.bool), []),
    ]:  # fmt: skip
        got = answer(mask)
        if isinstance(got, (list, tuple)):
            same(f"{case}: how many numbers", len(got), len(want), rtol=0,
                 rule="One below 255 for each survivor, and a 255 for each full 255 zeros.")  # fmt: skip
        same(case, got, want, rtol=0,
             rule="The zeros before each survivor, row by row; each 255 says 'so many zeros, "
                  "and no survivor yet', and a number below 255 always follows.")  # fmt: skip


@chapter.exercise(
    "The mirror of Encoder.bit: what did it do to the width, and when?",
    "part is computed as there, before anything is counted. The bit is 1 where code >= part; "
    "then code and width both lose part. Else width = part.",
    "while self.width < 2**24: self.code = self.code << 8 | next(self.blob, 0); "
    "self.width <<= 8",
    kind="class",
)
def Decoder(answer):
    "Bytes back into bits."
    rng = np.random.default_rng(0)

    def decoded(case, bits, contexts):
        encoder, bits = coding.Encoder(), np.array(bits, int)
        for bit, context in zip(bits.tolist(), contexts):
            encoder.bit(bit, context)
        decoder = answer(encoder.done())
        got = []
        for context in contexts:
            if getattr(decoder, "width", 1) <= 0:
                raise Miss(
                    "The width has become 0: it loses too much.", case, got, bits
                )
            got.append(decoder.bit(context))
            if got[-1] is None:
                raise Miss(
                    "`bit` returns nothing: is a `return` missing?", case, got, bits
                )
        same(case, as_array(got), bits, rtol=0,
             rule="The same steps as the encoder's, with the same counts before each bit.")  # fmt: skip

    bits = [1, 0, 0, 1, 1, 1, 0, 1, 0, 0, 0, 1, 0, 1]
    decoded("the bits 1 0 0 1 1 1 0 1 0 0 0 1 0 1", bits, [None] * 14)
    decoded("the bits 1 1 0 0 in the contexts a, b, a, b", [1, 1, 0, 0], list("abab"))
    for share in (0.5, 0.1, 0.97):
        bits = rng.random(600) < share
        decoded(f"600 bits, {share} of them 1", bits, [None] * 600)
    decoder = answer((0x7FFFF800).to_bytes(4, "big"))
    same("the bytes 7f ff f8 00, where the code is exactly the first `part`: three bits",
         [decoder.bit() for _ in range(3)], [1, 0, 0], rtol=0,
         rule="A 1 begins at `part` itself: code >= part.")  # fmt: skip
    decoder = answer(b"")
    same("no bytes at all, 60 bits in 60 contexts", [decoder.bit(k) for k in range(60)],
         [0] * 60, rtol=0, rule="What is missing at the end are zeros.")  # fmt: skip
    decoded("700 times 0", [0] * 700, [None] * 700)
    decoded("700 times 1", [1] * 700, [None] * 700)
    decoded("700 times 0, then 1 0 0 1", [0] * 700 + [1, 0, 0, 1], [None] * 704)
    bits = np.where(np.arange(800) % 2, rng.random(800) < 0.9, rng.random(800) < 0.05)
    decoded("800 bits in two contexts, in turns", bits, [("layer", i % 2) for i in range(800)])  # fmt: skip
