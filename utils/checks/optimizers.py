"""Chapter 04: steps with a memory, a rate over time, a start, and when to stop."""

import numpy as np

from utils.exercises import Chapter, Miss, same
from utils.exercises.cases import agree

chapter = Chapter("04_optimizers")
W = np.array([1.0, -2.0])
G = np.array([[0.5, 2.0], [-1.0, 1.0], [0.25, -3.0]])  # the slopes of three steps
TWO_STEPS = "slopes [0.5, 2] and [-1, 1]: w after each step"


def _follow(rule, grads, w=W, lr=0.1, **options):
    "The weights after each step of a rule."
    w, state, path = np.array(w), {}, []  # a copy: an answer may write into it
    with np.errstate(all="ignore"):
        for grad in grads:
            w, state = _two(rule(w, np.array(grad), state, lr=lr, **options))
            path.append(w)
    return path


def _two(got):
    "What should be (the new w, the new state)."
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        raise Miss("It should return two things: the new w and the new state.",
                   "one step", got, "(w, state)")  # fmt: skip
    same("one step: what the state is", type(got[1]).__name__, "dict",
         'The state is a dict, as in {"m": m}.')  # fmt: skip
    return got


def _afresh(rule, **options):
    "The same walk twice: nothing of the first may be left over."
    one, other = (_follow(rule, G[:2], **options)[-1] for _ in range(2))
    same("the same two steps twice, each time from {}: do they end alike?",
         agree(one, other), True, "The last walk is still remembered: keep the memory in "
         "`state`, not in a global name or a default argument.")  # fmt: skip


def _eps(rule, roots, **options):
    "A large eps belongs beside the root; without a slope the weight stays."
    slopes, roots = np.array([0.5, -2.0, 0.0]), np.array(roots)
    same(
        "w = [0, 0, 0], slopes [0.5, -2, 0], lr = 0.1 and a large eps = 0.1",
        _follow(rule, [slopes], np.zeros(3), eps=0.1, **options)[0],
        -0.1 * slopes / (roots + 0.1),
        rule="The step is lr * ... / (root + eps): eps stands beside the root, and where "
        "there is no slope it keeps 0 / 0 away.",
    )


def _long(rule, want, **options):
    "100 random steps of a matrix of weights against the unrolled sums."
    g = np.random.default_rng(3).normal(size=(100, 2, 3))
    got = _follow(rule, g, np.zeros((2, 3)), lr=0.01, **options)[-1]
    told = ", ".join(f"{name} = {value}" for name, value in options.items())
    same(f"100 random slopes of a (2, 3) matrix, {told or 'lr = 0.01'}", got, -0.01 * want(g),
         "The first steps are right; which memory is lost, or kept too long?")  # fmt: skip


def _fading(g, beta):
    "sum of beta**age * g[then], for each step: the memory written out as one product."
    age = np.subtract.outer(np.arange(len(g)), np.arange(len(g)))
    weights = np.where(age >= 0, float(beta) ** np.maximum(age, 0), 0.0)
    return np.tensordot(weights, g, axes=1)


@chapter.exercise(
    "m is what is left of the old m, plus today's slope. The step goes along m.",
    'The old m is state.get("m", 0.0): 0 before the first step. Then m = beta * old + grad.',
    'return w - lr * m, {"m": m}   # new objects; w and state stay as they were',
)
def momentum(answer):
    "Steps along a fading sum of the slopes."
    _afresh(answer, beta=0.9)
    first = W - 0.1 * G[0]
    second = first - 0.1 * (0.9 * G[0] + G[1])
    same(
        f"w = [1, -2], lr = 0.1, beta = 0.9, {TWO_STEPS}",
        _follow(answer, G[:2], beta=0.9),
        [first, second],
        rule="m = beta * old m + today's slope, and the new w is w - lr * m.",
    )
    w, state = _two(answer(W.copy(), G[0].copy(), {}, lr=0.1, beta=0.9))
    w, state = _two(answer(w, G[1].copy(), state, lr=0.01, beta=0.9))
    same(
        "the second step at a smaller rate, lr = 0.01",
        w,
        first - 0.01 * (0.9 * G[0] + G[1]),
        rule="Keep slopes in m, and multiply by today's lr when you step.",
    )
    grad = G[0].copy()
    w, state = _two(answer(W.copy(), grad, {}, lr=0.1, beta=0.9))
    grad[:] = 7.0  # a caller may use its array again
    same("slope [0.5, 2]; its array is then filled with 7; slope [-1, 1]",
         _two(answer(w, G[1].copy(), state, lr=0.1, beta=0.9))[0], second,
         "The state holds the caller's own `grad`, which changes later: store a new "
         "array, as beta * 0.0 + grad is.")  # fmt: skip
    _long(answer, lambda g: _fading(g, 0.5).sum(0), beta=0.5)


@chapter.exercise(
    "Keep one number for each weight: the sum of all its squared slopes.",
    'v = state.get("v", 0.0) + grad**2, and the step is lr * grad / (np.sqrt(v) + eps).',
    'return w - lr * grad / (np.sqrt(v) + eps), {"v": v}',
)
def adagrad(answer):
    "A rate for each weight, from the sum of its squared slopes."
    _afresh(answer)
    first = W - 0.1 * np.sign(G[0])
    same(
        f"w = [1, -2], lr = 0.1, {TWO_STEPS}",
        _follow(answer, G[:2]),
        [first, first - 0.1 * G[1] / np.hypot(G[0], G[1])],
        rule="v adds up the squares of each weight's slopes; lr * slope / root of v.",
    )
    _eps(answer, roots=[0.5, 2.0, 0.0])
    _long(answer, lambda g: (g / np.sqrt((g**2).cumsum(0))).sum(0))


@chapter.exercise(
    "As AdaGrad, but v fades: it is a mean of recent squares instead of a sum of all.",
    "A fading mean: beta parts of the old v, 1 - beta parts of today's square.",
    'v = beta * state.get("v", 0.0) + (1 - beta) * grad**2; the step as in adagrad',
)
def rmsprop(answer):
    "A rate for each weight, from a fading mean of its squared slopes."
    _afresh(answer, beta=0.75)
    first = W - 0.1 * np.sign(G[0]) / 0.5
    v = 0.75 * 0.25 * G[0] ** 2 + 0.25 * G[1] ** 2
    same(
        f"w = [1, -2], lr = 0.1, beta = 0.75, {TWO_STEPS}",
        _follow(answer, G[:2], beta=0.75),
        [first, first - 0.1 * G[1] / np.sqrt(v)],
        rule="v = beta * old v + (1 - beta) * slope**2, from v = 0 on.",
    )
    _eps(answer, roots=[0.25, 1.0, 0.0], beta=0.75)
    _long(answer, lambda g: (g / np.sqrt(0.1 * _fading(g**2, 0.9))).sum(0),
          beta=0.9, eps=0.0)  # fmt: skip


@chapter.exercise(
    "Three things to remember: t (how many steps), m (mean slope), v (mean square).",
    "After t equal slopes, m is 1 - beta1**t of the slope. Divide that share out: m_hat. "
    "The same for v with beta2. The state keeps the plain m and v.",
    't = state.get("t", 0) + 1, m and v as fading means, m_hat = m / (1 - beta1**t), ... '
    'then w - lr * m_hat / (np.sqrt(v_hat) + eps), {"m": m, "v": v, "t": t}',
)
def adam(answer):
    "Fading means of slope and square, corrected for their start at zero."
    betas = {"beta1": 0.5, "beta2": 0.9}
    _afresh(answer, **betas)
    got, want = _follow(answer, G, **betas), _adamw_path(0.5, 0.9)
    case = "w = [1, -2], lr = 0.1, beta1 = 0.5, beta2 = 0.9"
    same(f"{case}, {TWO_STEPS}", got[:2], want[:2],
         "m and v are fading means; m / (1 - beta1**t) goes over the root of v / (1 - "
         "beta2**t).")  # fmt: skip
    same("then slope [0.25, -3]: w after the third step", got[2], want[2],
         "Two steps were right. Does t grow by one per step, and do m and v keep on fading?")  # fmt: skip
    _eps(answer, roots=[0.5, 2.0, 0.0])

    def unrolled(g):
        t = np.arange(1, len(g) + 1)[:, None, None]
        m_hat = 0.1 * _fading(g, 0.9) / (1 - 0.9**t)
        return (m_hat / np.sqrt(0.001 * _fading(g**2, 0.999) / (1 - 0.999**t))).sum(0)

    _long(answer, unrolled, beta1=0.9, beta2=0.999, eps=0.0)


def _adamw_path(b1=0.9, b2=0.999, eps=1e-8, decay=0.0):
    "W after each of three steps of AdamW at lr = 0.1."
    w, m, v, path = W, 0.0, 0.0, []
    for t, g in enumerate(G, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        step = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        w = w - 0.1 * step - 0.1 * decay * w
        path.append(w)
    return path


@chapter.exercise(
    "Adam moves w as before; beside that, w loses a share of itself.",
    "The share is lr * weight_decay of the old w, and it never goes through m and v.",
    "moved, state = adam(w, grad, state, lr, ...); return moved - lr * weight_decay * w, state",
)
def adamw(answer):
    "Adam with decay beside the step."
    grad, w = np.array([3.0, 0.001]), np.array([2.0, -3.0])
    same(
        "w = [2, -3], slope [3, 0.001], lr = 0.1, weight_decay = 0.5: first step",
        _follow(answer, [grad], w, weight_decay=0.5)[0],
        w - 0.1 - 0.1 * 0.5 * w,
        rule="Adam's step is lr here, for each weight; beside it goes lr * weight_decay * w.",
        rtol=1e-4,
    )
    same("no decay, three steps: w after each", _follow(answer, G, weight_decay=0.0),
         _adamw_path(), "Without decay it should equal adam.")  # fmt: skip
    same(
        "beta1 = 0.5, beta2 = 0.9, eps = 0.1, weight_decay = 0.5, three steps: w after each",
        _follow(answer, G, beta1=0.5, beta2=0.9, eps=0.1, weight_decay=0.5),
        _adamw_path(0.5, 0.9, 0.1, 0.5),
        rule="Are beta1, beta2 and eps all passed on?",
    )
    same("no slope at all, two steps: w after each",
         _follow(answer, [np.zeros(2)] * 2, w, weight_decay=0.5), [w * 0.95, w * 0.95**2],
         "Only the decay is left: each step keeps 1 - lr * weight_decay of w.")  # fmt: skip


@chapter.exercise(
    "Three stretches: a straight climb, half a cosine down, then flat.",
    "done = (step - warmup) / (total - warmup) runs from 0 to 1; (1 + cos(pi * done)) / 2 "
    "runs from 1 to 0.",
    "if step < warmup: return lr * (step + 1) / warmup; done = min(..., 1.0); "
    "return final + (lr - final) * (1 + np.cos(np.pi * done)) / 2",
)
def warmup_cosine(answer):
    "Straight up, half a cosine down, flat."

    def rates(*steps, lr=0.4, warmup=4, total=20, **final):
        return [
            answer(step, lr=lr, warmup=warmup, total=total, **final) for step in steps
        ]

    same("lr = 0.4, warmup = 4, final = 0.04: the rates of steps 0, 1, 2, 3",
         rates(0, 1, 2, 3, final=0.04), [0.1, 0.2, 0.3, 0.4],
         "The climb is straight, from lr / warmup at step 0 to lr at step warmup - 1.")  # fmt: skip
    done = np.array([0, 1, 5, 8, 15, 16]) / 16
    same("total = 20, final = 0.04: the rates of steps 4, 5, 9, 12, 19, 20",
         rates(4, 5, 9, 12, 19, 20, final=0.04), 0.04 + 0.18 * (1 + np.cos(np.pi * done)),
         "Half a cosine from lr at step `warmup` to `final` at step `total`.")  # fmt: skip
    same("final = 0.04: the rates of steps 21, 24 and 36, after the end",
         rates(21, 24, 36, final=0.04), [0.04] * 3,
         "From step `total` on, the rate stays at `final`.")  # fmt: skip
    same("warmup = 0, total = 10, final left out: the rates of steps 0, 5 and 10",
         rates(0, 5, 10, warmup=0, total=10), [0.4, 0.2, 0.0],
         "Without a climb it begins at lr, and it ends at 0.")  # fmt: skip
    same("lr = 1, warmup = 2, total = 6, final = 0.2: the rates of steps 0, 1, 2, 4 and 6",
         rates(0, 1, 2, 4, 6, lr=1.0, warmup=2, total=6, final=0.2), [0.5, 1, 1, 0.6, 0.2],
         "`lr`, `warmup`, `total` and `final` are arguments: use them all.")  # fmt: skip


@chapter.exercise(
    "Draw a batch, average its gradients, see how far that is from the average of all.",
    "rows = rng.integers(len(grads_NP), size=size) draws with replacement. Distance: the "
    "root of the sum of squares over P.",
    "Collect ((grads_NP[rows].mean(0) - full_P) ** 2).sum() over the draws; return the "
    "root of their mean.",
)
def gradient_noise(answer):
    "How far a batch's mean gradient typically lies from the mean of all rows."

    def noise(grads, size, draws, seed=0):
        return answer(grads, size, draws, np.random.default_rng(seed))

    cross = np.array([[12, 16, 48], [-12, -16, 48], [16, -12, 48], [-16, 12, 48.0]])
    case = "4 rows of 3 weights, each 20 from the mean of all"
    same(f"{case}: 1 batch of 1", noise(cross, 1, 1), 20.0,
         "The distance of the batch from the mean of all rows: the root of the sum of squares.")  # fmt: skip
    same(f"{case}: 50 batches of 1", noise(cross, 1, 50), 20.0,
         "Take the mean over the draws, so that their number does not count.")  # fmt: skip
    same(f"{case}: 3,000 batches of 4, rounded", np.round(noise(cross, 4, 3000)), 10.0,
         "Root of the mean, over the draws, of the squared distance; rows drawn with "
         "replacement and averaged: four of them halve it.")  # fmt: skip
    for place, words in ((-1, "the last"), (0, "the first")):
        lone = np.zeros((4, 1))
        lone[place] = 8.0
        same(f"4 rows, 1 weight, all 0 but {words}, 8; 2,000 batches of 1",
             noise(lone, 1, 2000), np.sqrt(12.0), "Is every row drawn, and equally often?",
             rtol=0.08)  # fmt: skip
    twos = {float(np.round(noise(lone, 2, 1, seed), 6)) for seed in range(200)}
    same("the same rows; 1 batch of 2, from each of 200 seeds: the distances that come out",
         sorted(twos), [2.0, 6.0],
         "One draw, one distance: batches hold one 8 (mean 4), two (8) or none (0), and "
         "the mean of all rows is 2.")  # fmt: skip
    many = np.random.default_rng(8).normal(size=(12, 3))
    runs = [noise(many, 2, 50, seed) for seed in (1, 1, 2)]
    same("12 random rows, 50 batches of 2: is seed 1 the same when run again?",
         agree(*runs[:2]), True, "Draw with the `rng` you are given, or no run can be repeated.")  # fmt: skip
    same("12 random rows, 50 batches of 2: do seeds 1 and 2 give the same number?",
         agree(*runs[1:]), False, "Seeds 1 and 2 give the same number: the draws ignore `rng`.")  # fmt: skip


@chapter.exercise(
    "A sum of fan_in terms, each of variance sigma**2 * x**2; ReLU then halves it.",
    "The signal keeps its size when fan_in * sigma**2 / 2 = 1. Solve for sigma.",
    "return rng.normal(0, np.sqrt(2 / fan_in), size=(fan_in, fan_out))",
)
def he_init(answer):
    "Random weights that keep a signal's size through ReLU."
    case = "he_init(500, 400, rng)"
    W_io = answer(500, 400, np.random.default_rng(0))
    same(
        f"{case}: the shape", np.shape(W_io), (500, 400), "Inputs are the rows: x @ W."
    )
    W_io = np.asarray(W_io)
    same(f"{case}: how many different weights its corner of 3 x 4 has",
         np.unique(W_io[:3, :4]).size, 12, "Draw each weight for itself.")  # fmt: skip
    variance, mean = W_io.var(), W_io.mean()
    same(f"{case}: 500 times their variance, to two digits", float(f"{500 * variance:.2g}"),
         2.0, "fan_in * sigma**2 / 2 should be 1: sigma is the root of 2 / fan_in.")  # fmt: skip
    same(f"{case}: their mean over their deviation, rounded",
         np.round(abs(mean) / np.sqrt(variance), 1), 0.0,
         "Weights of both signs, around 0.")  # fmt: skip
    same(f"{case}: mean of weight**4 over variance**2, 3.0 for normal numbers",
         np.round(np.mean(W_io**4) / variance**2, 1), 3.0,
         "The spread is right, but these are not normal draws.")  # fmt: skip
    few = np.var(answer(50, 4000, np.random.default_rng(0)))
    same("he_init(50, 4000, rng): 50 times their variance, to two digits",
         float(f"{50 * few:.2g}"), 2.0, "sigma depends on `fan_in`.")  # fmt: skip
    runs = [answer(5, 4, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    same("he_init(5, 4, rng): is seed 1 the same when drawn again?", agree(*runs[:2]), True,
         "Draw from the `rng` you are given.")  # fmt: skip
    same("he_init(5, 4, rng): do seeds 1 and 2 give the same weights?", agree(*runs[1:]),
         False, "Seeds 1 and 2 give the same weights: draw from the `rng` you are given.")  # fmt: skip


@chapter.exercise(
    "Keep the sign; make the size smaller by `amount`, and never negative.",
    "size = np.maximum(np.abs(w) - amount, 0)",
    "return np.sign(w) * np.maximum(np.abs(w) - amount, 0)",
)
def soft_threshold(answer):
    "Towards zero by a fixed amount, and stop there."
    rule = "Every weight moves by `amount` towards 0, and stops there."
    w = np.array([2.0, 0.5, 0.3, -0.2, -1.5, 0.0])
    same("soft_threshold([2, 0.5, 0.3, -0.2, -1.5, 0], 0.5)", answer(w, 0.5),
         [1.5, 0.0, 0.0, 0.0, -1.0, 0.0], rule)  # fmt: skip
    wide = np.random.default_rng(0).normal(size=(40, 5))
    case = "random w of shape (40, 5), as `w` has any shape; amount 0.7"
    got = answer(wide, 0.7)
    same(case, got, wide - np.clip(wide, -0.7, 0.7), rule)
    same(f"{case}: how many are exactly 0", int(np.sum(np.asarray(got) == 0)),
         int(np.sum(np.abs(wide) <= 0.7)), "Nearly 0 is not 0.")  # fmt: skip
    same(
        "the same w, amount 0",
        answer(wide, 0.0),
        wide,
        "An amount of 0 changes nothing.",
    )


NAN = float("nan")
HISTORIES = [  # patience, losses, the epochs that say stop, the best epoch, a rule
    (3, [3.0, 2.0, 2.5, 2.6, 1.5, 3.6, 3.7, 3.8, 9.0], {7, 8}, 4,
     "Stop once 3 epochs in a row brought nothing below the best so far."),
    (3, [3.0, 2.0, 2.5, 2.4, 2.6], {4}, 1,
     "2.4 is better than the loss before it, not than the best, 2: compare with best."),
    (2, [1.0, 1.0, 1.0, 1.0], {2, 3}, 0,
     "Equal is not better: a flat loss must run out of patience."),
    (2, [5.0, 4.0, 4.5, 3.0, 3.5], set(), 3,
     "A better loss sets the count back to 0: 4.5 no longer counts."),
    (2, [1.0, 0.9999, 0.9998], set(), 2,
     "Any lower loss counts, however little it gains."),
    (1, [2.0, 1.0, 3.0], {2}, 1,
     "`patience` is an argument: with 1, the first epoch that is not better stops."),
    (3, [2.0, NAN], set(), 0,
     "nan compares false with everything: ask `loss < best`, and nan loses."),
    (2, [NAN, NAN, 2.0], {1}, 2,
     "The best loss is inf before the first epoch: nan is not below it, 2 is."),
]  # fmt: skip


@chapter.exercise(
    "Better than ever: note the loss, copy the weights, start counting again. Else: count.",
    "A list of arrays is a list of references: training changes them later. Copy each.",
    "if loss < self.best_loss: ... self.best_weights = [w.copy() for w in weights]; "
    "self.waited = 0  else: self.waited += 1;  return self.waited >= self.patience",
    kind="class",
)
def EarlyStopping(answer):
    "Keeps the best weights and says when to stop."
    for patience, losses, stops, best, rule in HISTORIES:
        case = (
            f"patience {patience}, losses {', '.join(f'{loss:g}' for loss in losses)}"
        )
        stopper, said = answer(patience), []
        w, V = np.zeros(2), np.zeros((1, 3))
        for loss in losses:
            said.append(stopper.update(loss, [w, V]))
            w += 1  # as training does: in place
            V -= 1
        same(f"{case}: stop now?", said, [n in stops for n in range(len(losses))], rule)
        same(f"{case}: best_loss", stopper.best_loss, losses[best], rule)
        case = f"{case}; the weights are [n, n] and [[-n, -n, -n]] in epoch n"
        rule = f"Epoch {best} was the best: copy all its arrays, as training changes them later."
        same(f"{case}: best_weights[0]", stopper.best_weights[0], [best] * 2, rule)
        same(f"{case}: best_weights[1]", stopper.best_weights[1], [[-best] * 3], rule)


@chapter.exercise(
    "Rows of 64 have no up and down: make them 8x8 first, and 64 again at the end.",
    "Begin with zeros and copy a rectangle into it: 1 down means new rows 1.. get old "
    "rows ..-1. For any sign: a shift forward by `down` or back by -down.",
    "padded = np.pad(images_NHW, ((0, 0), (8, 8), (8, 8))); the window that starts at "
    "row 8 - down and column 8 - right, 8 by 8, is the answer",
)
def shift_digits(answer):
    "Images moved by whole pixels; zeros enter."
    images = np.zeros((3, 8, 8))
    images[0, 2:5, 3] = [1.25, 2.5, 3.75]
    images[0, 0, 7] = 4.5
    images[1] = 1.5 * np.arange(64).reshape(8, 8) + 1.25
    images[2] = images[1].T + 0.5
    edges = [(0, 0), (8, 0), (-8, 0), (0, 8), (0, -8)]
    moves = [(1, 2), (0, 2), (1, 0), (-1, 0), (0, -2), (2, -1), (-3, 5)]
    for down, right in moves + edges:
        case = f"3 images moved by down = {down}, right = {right}"
        got = answer(images.reshape(3, 64), down, right)
        same(
            f"{case}: the shape",
            np.shape(got),
            (3, 64),
            "Rows of 64 in, rows of 64 out.",
        )
        got = np.asarray(got).reshape(3, 8, 8)
        for n, r in np.ndindex(3, 8):
            came = 0 <= r - down < 8
            want = [
                images[n, r - down, c - right] if came and 0 <= c - right < 8 else 0.0
                for c in range(8)
            ]  # pixel by pixel, the slow way
            same(f"{case}: image {n}, row {r} of its 8x8 pixels", got[n, r], want,
                 "A new pixel is the old one `down` rows above and `right` columns to the "
                 "left, or 0 where there is none.")  # fmt: skip
