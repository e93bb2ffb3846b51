"""Chapter 04: steps with a memory, a rate over time, a start, and when to stop."""

import numpy as np

from utils.exercises import Chapter, Miss, same

chapter = Chapter("04_optimizers")
W = np.array([1.0, -2.0])
G = np.array([[0.5, 1.0], [-1.0, 2.0], [0.25, -3.0]])  # the slopes of three steps


def _follow(rule, grads, w, lr=0.1, **options):
    "The weights after each step of a rule."
    w, state, path = np.array(w), {}, []  # a copy: an answer may write into it
    for grad in grads:
        w, state = _two(rule(w, np.array(grad), state, lr=lr, **options))
        path.append(w)
    return path


def _called(case, call):
    "What `call` returns; an error of the answer also tells the case."
    try:
        return call()
    except (TypeError, ValueError, IndexError, ArithmeticError) as error:
        error.args = (f"{error} (in the case: {case})",)
        raise


def _two(got):
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        raise Miss("It should return two things: the new w and the new state.",
                   "one step", got, "(w, state)")  # fmt: skip
    if not isinstance(got[1], dict):
        raise Miss(
            'The state is a dict, as in {"m": m}.', "one step: the state", got[1], {}
        )
    return got


def _afresh(rule, first, **options):
    "The same walk once more: nothing of the first may be left over."
    again = _follow(rule, G[:2], W, **options)[-1]
    same("the same two steps again, from a new state {}", again, first,
         rule="The last walk is still remembered: keep the memory in `state`, not in a "
         "global name or a default argument.")  # fmt: skip


def _long(rule, want, **options):
    "100 random steps of a matrix of weights against the unrolled sums."
    rng = np.random.default_rng(3)
    g = rng.normal(size=(100, 2, 3))
    got = _follow(rule, g, np.zeros((2, 3)), lr=0.01, **options)[-1]
    same("100 random slopes of a (2, 3) matrix", got, -0.01 * want(g),
         rule="The first steps are right; which memory is lost or kept too long?")  # fmt: skip


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
    case = "w = [1, -2], slope [0.5, 1], lr = 0.1, beta = 0.9"
    first, second = _follow(answer, G[:2], W, beta=0.9)
    same(
        f"{case}: after the first step",
        first,
        W - 0.1 * G[0],
    )
    m = 0.9 * G[0] + G[1]
    same(
        "then slope [-1, 2]: after the second step",
        second,
        first - 0.1 * m,
    )
    _afresh(answer, second, beta=0.9)
    w, state = _two(answer(W.copy(), G[0].copy(), {}, lr=0.1, beta=0.9))
    w, state = _two(answer(w, G[1].copy(), state, lr=0.01, beta=0.9))
    same(
        "the second step at a smaller rate, lr = 0.01",
        w,
        first - 0.01 * m,
    )
    grad = G[0].copy()
    w, state = _two(answer(W.copy(), grad, {}, lr=0.1, beta=0.9))
    grad[:] = 7.0  # a caller may use its array again
    same("slope [0.5, 1]; its array is then filled with 7; slope [-1, 2]",
         _two(answer(w, G[1].copy(), state, lr=0.1, beta=0.9))[0], second,
         rule="The state holds the caller's own `grad`, which changes later: store a new "
         "array, as beta * 0.0 + grad is.")  # fmt: skip
    _long(answer, lambda g: _fading(g, 0.5).sum(0), beta=0.5)


@chapter.exercise(
    "Keep one number for each weight: the sum of all its squared slopes.",
    'v = state.get("v", 0.0) + grad**2, and the step is lr * grad / (np.sqrt(v) + eps).',
    'return w - lr * grad / (np.sqrt(v) + eps), {"v": v}',
)
def adagrad(answer):
    "A rate for each weight, from the sum of its squared slopes."
    first, second = _follow(answer, G[:2], W)
    same(
        "w = [1, -2], slope [0.5, 1], lr = 0.1: after the first step",
        first,
        W - 0.1 * np.sign(G[0]),
    )
    v = G[0] ** 2 + G[1] ** 2
    same(
        "then slope [-1, 2]: after the second step",
        second,
        first - 0.1 * G[1] / np.sqrt(v),
    )
    _afresh(answer, second)
    _eps(
        answer,
        "adagrad",
        lambda g, e: g / (abs(g) + e),
        lambda g, e: g / np.hypot(g, e**0.5),
    )
    with np.errstate(all="ignore"):
        still = _follow(answer, [np.array([0.0, 1.0])], W)[0]
    same("slope [0, 1]: a weight without a slope", still, [1.0, -2.1],
         rule="0 / 0 is nan: that is what eps is for.")  # fmt: skip
    _long(answer, lambda g: (g / np.sqrt((g**2).cumsum(0))).sum(0))


def _eps(rule, name, outside, inside):
    "Is eps beside the root, not under it?"
    got = _follow(rule, [np.array([0.5])], np.zeros(1), eps=0.1)[0]
    bare = outside(0.5, 0.0)
    same(
        f"{name}: slope 0.5 with a large eps = 0.1",
        got,
        [-0.1 * outside(0.5, 0.1)],
        rule="eps is added to the root that divides.",
    )


def _whole_first_square(first, second):
    "Four slips that are alike in the first step: v is the whole square there."
    start = W - 0.1 * np.sign(G[0])
    if np.shape(first) != (2,) or not np.allclose(first, start, rtol=1e-5):
        return
    old, new = G[0] ** 2, G[1] ** 2

    def both(v):
        return [start, start - 0.1 * G[1] / np.sqrt(v)]

    want = W - 0.1 * np.sign(G[0]) / 0.5
    v = 0.25 * (0.75 * old + new)
    same(
        "w = [1, -2], lr = 0.1, beta = 0.75, slopes [0.5, 1] and [-1, 2]: w after each",
        [first, second],
        [want, want - 0.1 * G[1] / np.sqrt(v)],

        rule="In the first step v is the whole square: it counts 1 - beta parts.",
        rtol=1e-5,
    )  # fmt: skip


@chapter.exercise(
    "As AdaGrad, but v fades: it is a mean of recent squares instead of a sum of all.",
    "A fading mean: beta parts of the old v, 1 - beta parts of today's square.",
    'v = beta * state.get("v", 0.0) + (1 - beta) * grad**2; the step as in adagrad',
)
def rmsprop(answer):
    "A rate for each weight, from a fading mean of its squared slopes."
    first, second = _follow(answer, G[:2], W, beta=0.75)
    _whole_first_square(first, second)
    same(
        "w = [1, -2], slope [0.5, 1], lr = 0.1, beta = 0.75: after the first step",
        first,
        W - 0.1 * np.sign(G[0]) / 0.5,
        rtol=1e-5,
    )
    v = 0.75 * 0.25 * G[0] ** 2 + 0.25 * G[1] ** 2
    same(
        "then slope [-1, 2]: after the second step",
        second,
        first - 0.1 * G[1] / np.sqrt(v),
        rtol=1e-5,
    )
    _afresh(answer, second, beta=0.75)
    _eps(
        lambda *a, **o: answer(*a, beta=0.75, **o), "rmsprop",
        lambda g, e: g / (g / 2 + e), lambda g, e: g / np.sqrt(g**2 / 4 + e),
    )  # fmt: skip
    with np.errstate(all="ignore"):
        still = _follow(answer, [np.array([0.0, 1.0])], W, beta=0.75)[0]
    same("slope [0, 1]: a weight without a slope", still, [1.0, -2.2], rtol=1e-5,
         rule="0 / 0 is nan: that is what eps is for.")  # fmt: skip
    _long(
        answer, lambda g: (g / np.sqrt(0.1 * _fading(g**2, 0.9))).sum(0),
        beta=0.9, eps=0.0,
    )  # fmt: skip


@chapter.exercise(
    "Three things to remember: t (how many steps), m (mean slope), v (mean square).",
    "After t equal slopes, m is 1 - beta1**t of the slope. Divide that share out: m_hat. "
    "The same for v with beta2. The state keeps the plain m and v.",
    't = state.get("t", 0) + 1, m and v as fading means, m_hat = m / (1 - beta1**t), ... '
    'then w - lr * m_hat / (np.sqrt(v_hat) + eps), {"m": m, "v": v, "t": t}',
)
def adam(answer):
    "Fading means of slope and square, corrected for their start at zero."
    b1, b2 = 0.5, 0.9
    with np.errstate(all="ignore"):
        first, second, third = _follow(answer, G, W, beta1=b1, beta2=b2)
    sign = np.sign(G[0])
    same(
        "w = [1, -2], slope [0.5, 1], lr = 0.1, beta1 = 0.5, beta2 = 0.9: first step",
        first,
        W - 0.1 * sign,

        rtol=1e-5,
    )  # fmt: skip

    def after(m, v):
        return first - 0.1 * m / np.sqrt(v)

    m, v = (0.25 * G[0] + 0.5 * G[1]), (0.09 * G[0] ** 2 + 0.1 * G[1] ** 2)
    m_hat, v_hat = m / (1 - b1**2), v / (1 - b2**2)
    crossed_m = ((1 - b2) * b2 * G[0] + (1 - b2) * G[1]) / (1 - b2**2)
    crossed_v = ((1 - b1) * b1 * G[0] ** 2 + (1 - b1) * G[1] ** 2) / (1 - b1**2)
    stored_m = (b1 * G[0] + (1 - b1) * G[1]) / (1 - b1**2)
    stored_v = (b2 * G[0] ** 2 + (1 - b2) * G[1] ** 2) / (1 - b2**2)
    same(
        "then slope [-1, 2]: after the second step",
        second,
        after(m_hat, v_hat),

        rtol=1e-5,
    )  # fmt: skip
    _afresh(answer, second, beta1=b1, beta2=b2)
    m, v = 0.5 * m + 0.5 * G[2], 0.9 * v + 0.1 * G[2] ** 2
    want = second - 0.1 * (m / (1 - b1**3)) / np.sqrt(v / (1 - b2**3))
    same("then slope [0.25, -3]: after the third step", third, want, rtol=1e-5,
         rule="Two steps were right: does t grow by one a step?")  # fmt: skip
    _eps(answer, "adam", lambda g, e: g / (g + e), lambda g, e: g / np.sqrt(g**2 + e))
    with np.errstate(all="ignore"):
        still = _follow(answer, [np.array([0.0, 1.0])], W)[0]
    same("slope [0, 1]: a weight without a slope", still, [1.0, -2.1], rtol=1e-5,
         rule="0 / 0 is nan: that is what eps is for.")  # fmt: skip

    def unrolled(g):
        t = np.arange(1, len(g) + 1)[:, None, None]
        m_hat = 0.1 * _fading(g, 0.9) / (1 - 0.9**t)
        return (m_hat / np.sqrt(0.001 * _fading(g**2, 0.999) / (1 - 0.999**t))).sum(0)

    _long(answer, unrolled, beta1=0.9, beta2=0.999, eps=0.0)


@chapter.exercise(
    "Adam moves w as before; beside that, w loses a share of itself.",
    "The share is lr * weight_decay of the old w, and it never goes through m and v.",
    "moved, state = adam(w, grad, state, lr, ...); return moved - lr * weight_decay * w, state",
)
def adamw(answer):
    "Adam with decay beside the step."
    grad, w = np.array([3.0, 0.001]), np.array([2.0, -2.0])
    case = "w = [2, -2], slope [3, 0.001], lr = 0.1, weight_decay = 0.5: first step"
    got = _follow(answer, [grad], w, weight_decay=0.5)[0]
    want = w - 0.1 - 0.1 * 0.5 * w
    same(
        case,
        got,
        want,
        rtol=1e-4,
    )
    plain = _follow(answer, G, W, weight_decay=0.0)
    for t in range(3):
        same(f"without decay, step {t + 1}: Adam's own", plain[t], _decoupled()[t],
             rule="Without decay it should equal adam.", rtol=1e-5)  # fmt: skip
    chosen = {"beta1": 0.5, "beta2": 0.9, "eps": 0.1, "weight_decay": 0.5}
    same(
        "beta1 = 0.5, beta2 = 0.9, eps = 0.1, weight_decay = 0.5: after three steps",
        _follow(answer, G, W, **chosen)[-1],
        _decoupled(0.5, 0.9, 0.1, 0.5)[-1],

        rule="Are beta1, beta2 and eps all passed on?",
        rtol=1e-5,
    )  # fmt: skip
    one, two = _follow(answer, [np.zeros(2)] * 2, w, weight_decay=0.5)
    same("no slope at all, two steps: only the decay", two, w * 0.95**2,
         rule="Each step keeps 1 - lr * weight_decay of w.")  # fmt: skip
    same("the same: after the first", one, w * 0.95)


def _decoupled(b1=0.9, b2=0.999, eps=1e-8, decay=0.0):
    "W after each of three steps of AdamW at lr = 0.1."
    w, m, v, path = W, 0.0, 0.0, []
    for t, g in enumerate(G, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        step = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        w = w - 0.1 * step - 0.1 * decay * w
        path.append(w)
    return path


@chapter.exercise(
    "Three stretches: a straight climb, half a cosine down, then flat.",
    "done = (step - warmup) / (total - warmup) runs from 0 to 1; (1 + cos(pi * done)) / 2 "
    "runs from 1 to 0.",
    "if step < warmup: return lr * (step + 1) / warmup; done = min(..., 1.0); "
    "return final + (lr - final) * (1 + np.cos(np.pi * done)) / 2",
)
def warmup_cosine(answer):
    "Straight up, half a cosine down, flat."
    how = {"lr": 0.4, "warmup": 4, "total": 20, "final": 0.04}

    def rates(steps):
        return np.array([answer(s, **how) for s in steps], dtype=float)

    climb = np.array([0.1, 0.2, 0.3, 0.4])
    same(
        "lr = 0.4, warmup = 4: the rates of steps 0, 1, 2, 3",
        rates(range(4)),
        climb,

    )  # fmt: skip
    down = (4, 8, 12, 16, 20)
    fall = (1 + np.cos(np.pi * np.linspace(0, 1, 5))) / 2
    same(
        "total = 20, final = 0.04: the rates of steps 4, 8, 12, 16, 20",
        rates(down),
        0.04 + 0.36 * fall,

    )  # fmt: skip
    same(
        "final = 0.04: the rates of steps 24 and 36, after the end",
        rates([24, 36]),
        [0.04, 0.04],
        rule="From step `total` on, the rate stays at `final`.",
    )
    no_climb = answer(0, lr=0.4, warmup=0, total=10)
    same("warmup = 0: the rate of step 0", no_climb, 0.4,
         rule="Without a climb it begins at lr.")  # fmt: skip
    same("final left out: the last rate", answer(10, lr=0.4, warmup=0, total=10), 0.0)


@chapter.exercise(
    "Draw a batch, average its gradients, see how far that is from the average of all.",
    "rows = rng.integers(len(grads_NP), size=size) draws with replacement. Distance: the "
    "root of the sum of squares over P.",
    "Collect ((grads_NP[rows].mean(0) - full_P) ** 2).sum() over the draws; return the "
    "root of their mean.",
)
def gradient_noise(answer):
    "How far a batch's mean gradient typically lies from the mean of all rows."
    rng = np.random.default_rng(8)
    grads = rng.normal(size=(12, 3)) * [6.0, 2.0, 0.4] + [18.0, -9.0, 6.0]
    spread = np.sqrt(grads.var(0).sum())
    _every_row(answer, strict=False)
    for size in (12, 4):
        got = answer(grads, size, 3000, np.random.default_rng(0))
        want = spread / np.sqrt(size)
        full = (grads.mean(0) ** 2).sum()
        away = np.sqrt(full + want**2)
        same(
            f"12 rows, 3 weights, 3,000 batches of {size}",
            got,
            want,
            rule="Root of the mean, over the draws, of the squared distance.",
            rtol=0.06,
        )
    _every_row(answer, strict=True)
    far = np.linalg.norm(grads - grads.mean(0), axis=1)
    for seed in range(5):
        one = answer(grads, 1, 1, np.random.default_rng(seed))
        if not np.isclose(far, one).any():
            raise Miss(
                "With one draw this is the distance of its batch from the mean of all "
                "rows. Is yours the distance from the mean of the batches, 0 or nan here?",
                "one batch of one row", one, "one of the 12 rows' distances",
            )  # fmt: skip
    runs = [answer(grads, 2, 50, np.random.default_rng(s)) for s in (1, 1, 2)]
    same("two runs with the same seed", runs[0], runs[1],
         rule="Draw with the `rng` you are given, or no run can be repeated.")  # fmt: skip
    if np.isclose(runs[0], runs[2], rtol=1e-12):
        raise Miss("Seeds 1 and 2 give the same number: the draws ignore `rng`.",
                   "50 batches of 2", runs[2], "another number")  # fmt: skip


def _every_row(answer, strict):
    "Is the last row drawn, and the first? strict: and as often as the others?"
    for place, words in ((-1, "the last"), (0, "the first")):
        lone = np.zeros((4, 1))
        lone[place] = 8.0
        case = f"4 rows, 1 weight, all 0 but {words}, 8; 2,000 batches of 1"
        got, want = answer(lone, 1, 2000, np.random.default_rng(0)), np.sqrt(12.0)
        if isinstance(got, (float, np.floating)) and np.isclose(got, 2.0):
            name = "N - 1" if place else "0"
            raise Miss(f"Row {name} is never drawn: rng.integers(N) gives 0 to N - 1, "
                       "all rows.", case, got, want)  # fmt: skip
        if strict:
            same(case, got, want, rule="Is every row drawn equally often?", rtol=0.06)


def _mean_distance(grads, size):
    rng = np.random.default_rng(1)
    rows = rng.integers(len(grads), size=(4000, size))
    return np.linalg.norm(grads[rows].mean(1) - grads.mean(0), axis=1).mean()


@chapter.exercise(
    "A sum of fan_in terms, each of variance sigma**2 * x**2; ReLU then halves it.",
    "The signal keeps its size when fan_in * sigma**2 / 2 = 1. Solve for sigma.",
    "return rng.normal(0, np.sqrt(2 / fan_in), size=(fan_in, fan_out))",
)
def he_init(answer):
    "Random weights that keep a signal's size through ReLU."
    W_io = answer(400, 100, np.random.default_rng(0))
    if np.shape(W_io) == (100, 400):
        raise Miss("Turned over: inputs are the rows, x @ W.", "he_init(400, 100, rng)",
                   np.shape(W_io), (400, 100))  # fmt: skip
    same("he_init(400, 100, rng): the shape", np.shape(W_io), (400, 100))
    for axis, what in ((1, "columns"), (0, "rows")):
        different = np.unique(W_io, axis=axis).shape[axis]
        if np.std(W_io) > 0 and different < np.shape(W_io)[axis]:
            raise Miss(
                f"Some {what} are equal: draw each weight for itself, "
                "size=(fan_in, fan_out).",
                f"different {what} of he_init(400, 100, rng)",
                different, np.shape(W_io)[axis],
            )  # fmt: skip
    same(
        "the standard deviation of he_init(400, 100, rng)",
        np.std(W_io),
        np.sqrt(2 / 400),
        rtol=0.02,
    )
    same("their mean", np.mean(W_io), 0.0, atol=0.003,
         rule="Weights of both signs, around 0.")  # fmt: skip
    same(
        "mean of weight**4 over (mean of weight**2)**2, which is 3 for normal numbers",
        np.mean(np.square(W_io) ** 2) / np.mean(np.square(W_io)) ** 2,
        3.0,
        rule="The spread is right, but these are not normal draws.",
        rtol=0.06,
    )
    again = [answer(5, 4, np.random.default_rng(s)) for s in (1, 1, 2)]
    same("two draws from the same seed", again[0], again[1],
         rule="Draw from the `rng` you are given.")  # fmt: skip
    if np.allclose(again[0], again[2]):
        raise Miss("Seeds 1 and 2 give the same weights: draw from the `rng` you are given.",
                   "he_init(5, 4, rng)", again[2], "other weights")  # fmt: skip


@chapter.exercise(
    "Keep the sign; make the size smaller by `amount`, and never negative.",
    "size = np.maximum(np.abs(w) - amount, 0)",
    "return np.sign(w) * np.maximum(np.abs(w) - amount, 0)",
)
def soft_threshold(answer):
    "Towards zero by a fixed amount, and stop there."
    w = np.array([2.0, 0.3, -0.2, -1.5, 0.0])
    case = "soft_threshold([2, 0.3, -0.2, -1.5, 0], 0.5)"
    same(
        case,
        _called(case, lambda: answer(w, 0.5)),
        [1.5, 0.0, 0.0, -1.0, 0.0],
    )
    wide = np.random.default_rng(0).normal(size=(40, 5))
    case = "random w of shape (40, 5), as `w` has any shape; amount 0.7"
    got = _called(case, lambda: answer(wide, 0.7))
    same(case, got, wide - np.clip(wide, -0.7, 0.7))
    same("how many are exactly 0", int(np.sum(np.asarray(got) == 0)),
         int(np.sum(np.abs(wide) <= 0.7)), rule="Nearly 0 is not 0.")  # fmt: skip
    same("amount 0 changes nothing", answer(w, 0.0), w)


@chapter.exercise(
    "Better than ever: note the loss, copy the weights, start counting again. Else: count.",
    "A list of arrays is a list of references: training changes them later. Copy each.",
    "if loss < self.best_loss: ... self.best_weights = [w.copy() for w in weights]; "
    "self.waited = 0  else: self.waited += 1;  return self.waited >= self.patience",
    kind="class",
)
def EarlyStopping(answer):
    "Keeps the best weights and says when to stop."
    losses = [3.0, 2.0, 2.5, 2.6, 1.5, 1.6, 1.7, 1.8, 9.0]
    case = "patience 3, losses 3, 2, 2.5, 2.6, 1.5, 1.6, 1.7, 1.8, 9"
    stopper, w = answer(3), np.zeros(2)
    _attributes(stopper)
    said = []
    for loss in losses:
        w += 1  # as training does: in place
        said.append(_answer_of(stopper.update(loss, [w])))
    want = [False] * 7 + [True] * 2
    same(
        f"{case}: stop now?",
        said,
        want,
    )
    same(f"{case}: best_loss", stopper.best_loss, 1.5,
         )  # fmt: skip
    _weights_of(stopper)
    same(
        f"{case}; the weights are [n, n] in epoch n: best_weights[0]",
        stopper.best_weights[0],
        [5.0, 5.0],
    )
    losses = [3.0, 2.0, 2.5, 2.4, 2.6]
    case = "patience 3, losses 3, 2, 2.5, 2.4, 2.6"
    rule = "2.4 is better than the loss before it, not than the best, 2: compare with best."
    swing = answer(3)
    said = [
        _answer_of(swing.update(loss, [np.full(1, float(n))]))
        for n, loss in enumerate(losses)
    ]
    same(f"{case}: best_loss", swing.best_loss, 2.0, rule=rule)
    same(f"{case}: stop now?", said, [False] * 4 + [True], rule=rule)
    same(f"{case}; the weights are [n], n = 0 to 4: best_weights[0]",
         swing.best_weights[0], [1.0], rule=rule)  # fmt: skip
    flat = answer(2)
    said = [_answer_of(flat.update(1.0, [np.ones(1)])) for _ in range(4)]
    same("patience 2, a loss that stays at 1: stop now?", said, [False, False, True, True],
         rule="Equal is not better: a flat loss must run out of patience.")  # fmt: skip
    climbing = answer(2)
    for n, loss in enumerate((5.0, 4.0, 4.5, 3.0, 3.5)):
        late = _answer_of(climbing.update(loss, [np.full(1, float(n))]))
    same("patience 2, losses 5, 4, 4.5, 3, 3.5: stop now?", late, False,
         rule="A better loss sets the count back to 0: 4.5 no longer counts.")  # fmt: skip
    broken = answer(3)
    broken.update(2.0, [np.zeros(1)])
    broken.update(float("nan"), [np.full(1, np.nan)])
    same("losses 2, nan: best_loss", broken.best_loss, 2.0,
         rule="nan compares false with everything: ask `loss < best`, and nan loses.")  # fmt: skip


def _attributes(stopper):
    for name in ("best_loss", "best_weights", "update"):
        if not hasattr(stopper, name):
            raise Miss(
                f"It has no `{name}`: set best_loss and best_weights in __init__."
            )


def _answer_of(said):
    if said is None:
        raise Miss(
            "`update` returns nothing: it should say whether to stop, True or False."
        )
    return bool(said)


def _weights_of(stopper):
    if not isinstance(stopper.best_weights, (list, tuple)) or not stopper.best_weights:
        raise Miss("best_weights should be a list of arrays, as the one that came in.",
                   "best_weights", stopper.best_weights, "[array]")  # fmt: skip


@chapter.exercise(
    "Rows of 64 have no up and down: make them 8x8 first, and 64 again at the end.",
    "Begin with zeros and copy a rectangle into it: 1 down means new rows 1.. get old "
    "rows ..-1. For any sign: a shift forward by `down` or back by -down.",
    "padded = np.pad(images_NHW, ((0, 0), (8, 8), (8, 8))); the window that starts at "
    "row 8 - down and column 8 - right, 8 by 8, is the answer",
)
def shift_digits(answer):
    "Images moved by whole pixels; zeros enter."
    image = np.zeros((2, 8, 8))
    image[0, 2:5, 3] = [1.25, 2.5, 3.75]
    image[0, 0, 7] = 4.5
    image[1] = 1.5 * np.arange(64).reshape(8, 8) + 1.25
    X = image.reshape(2, 64)

    def moved(down, right):
        "Pixel by pixel, the slow way."
        out = np.zeros((2, 8, 8))
        for r in range(8):
            for c in range(8):
                if 0 <= r - down < 8 and 0 <= c - right < 8:
                    out[:, r, c] = image[:, r - down, c - right]
        return out.reshape(2, 64)

    def rolled(down, right):
        return np.roll(image, (down, right), axis=(1, 2)).reshape(2, 64)

    for down, right in ((0, 2), (1, 0), (-1, 0), (0, -2), (2, -1)):
        case = f"2 images moved by down = {down}, right = {right}"
        got = _called(case, lambda: answer(X, down, right))  # noqa: B023
        if np.shape(got) == (2, 8, 8):
            raise Miss("It returns 8x8 images: rows of 64 came in, rows of 64 go out.",
                       "the shape", np.shape(got), (2, 64))  # fmt: skip
        want = moved(down, right)
        slips = {
            "What leaves on one side comes back on the other: zeros should enter.": (
                rolled(down, right)
            ),
            "Down and right are swapped: rows are the first axis of an image.": moved(
                right, down
            ),
            "It moves the wrong way: down = 1 puts old row 0 into new row 1.": moved(
                -down, -right
            ),
            "The row of 64 was shifted as it is: pixels slip into the next line. "
            "Make it 8x8 first.": np.roll(X, 8 * down + right, axis=1),
            "The row of 64 was slid along as it is, zeros entering at its ends: pixels "
            "slip into the next line. Make it 8x8 first.": _slid(X, 8 * down + right),
            "The grey values were cut to whole numbers: keep the type of X.": np.trunc(
                want
            ),
            "Nothing moved.": X,
        }
        try:
            same(case, got, want, slips)
        except Miss as miss:
            raise _first_row(miss, got, want) from None
    for case, down, want, rule in (
        ("moved by 0 and 0", 0, X, "A slice [:-0] is empty."),
        ("moved out of the picture, down = 8", 8, np.zeros((2, 64)), ""),
    ):
        got = _called(f"{case}. {rule}", lambda: answer(X, down, 0))  # noqa: B023
        same(case, got, want, rule=rule)


def _slid(X, by):
    "Rows of 64 slid along by some places, zeros entering."
    out = np.zeros_like(X)
    out[:, max(by, 0) : 64 + min(by, 0)] = X[:, max(-by, 0) : 64 + min(-by, 0)]
    return out


def _first_row(miss, got, want):
    "The same Miss, with the first 8x8 row that differs instead of all pixels."
    try:
        ours, theirs = (np.reshape(a, (2, 8, 8)) for a in (got, want))
        image, row = np.argwhere(~np.isclose(ours, theirs).all(axis=2))[0]
    except (TypeError, ValueError, IndexError):
        return miss
    case = f"{miss.case}: image {image}, row {row} of its 8x8 pixels"
    return Miss(str(miss), case, ours[image, row], theirs[image, row])
