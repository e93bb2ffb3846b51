"""Chapter 04: steps with a memory, a rate over time, a start, and when to stop."""

import numpy as np

from utils.exercise import Chapter, Miss, same

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


def _two(got):
    if not isinstance(got, tuple) or len(got) != 2:
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
         slip="The last walk is still remembered: keep the memory in `state`, not in a "
         "global name or a default argument.")  # fmt: skip


def _long(rule, want, **options):
    "100 random steps of a matrix of weights against the unrolled sums."
    rng = np.random.default_rng(3)
    g = rng.normal(size=(100, 2, 3))
    got = _follow(rule, g, np.zeros((2, 3)), lr=0.01, **options)[-1]
    same("100 random slopes of a (2, 3) matrix", got, -0.01 * want(g),
         slip="The first steps are right; which memory is lost or kept too long?")  # fmt: skip


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
        slips={
            "Uphill: subtract.": W + 0.1 * G[0],
            "The learning rate is missing.": W - G[0],
            "This is an average, (1 - beta) * slope: here the slopes add up, and Adam "
            "averages later.": W - 0.01 * G[0],
            "w has not moved.": W,
            "This is the step alone: take it from w.": -0.1 * G[0],
            "The slope is counted twice: the first m is the slope itself.": W
            - 0.19 * G[0],
        },
    )
    m = 0.9 * G[0] + G[1]
    same(
        "then slope [-1, 2]: after the second step",
        second,
        first - 0.1 * m,
        slips={
            "No memory: m forgot the first slope. Is the new state returned, and read?": first
            - 0.1 * G[1],
            "Nothing fades: the old m counts beta times.": first - 0.1 * (G[0] + G[1]),
            "The sign of the memory is turned.": first - 0.1 * (G[1] - 0.9 * G[0]),
            "Beta belongs to the old m, not to today's slope.": first
            - 0.1 * (G[0] + 0.9 * G[1]),
            "This looks ahead (Nesterov's variant): here the step goes along m.": first
            - 0.1 * (G[1] + 0.9 * m),
        },
    )
    _afresh(answer, second, beta=0.9)
    w, state = _two(answer(W.copy(), G[0].copy(), {}, lr=0.1, beta=0.9))
    w, state = _two(answer(w, G[1].copy(), state, lr=0.01, beta=0.9))
    same(
        "the second step at a smaller rate, lr = 0.01",
        w,
        first - 0.01 * m,
        slips={
            "The old rate is still in the memory: keep slopes in m, and multiply by "
            "lr when you step.": first - 0.01 * G[1] - 0.9 * 0.1 * G[0],
        },
    )
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
        slips={
            "Uphill: subtract.": W + 0.1 * np.sign(G[0]),
            "The root is missing: slope over its square.": W - 0.1 / G[0],
            "Every weight moves by its slope: is the division there?": W - 0.1 * G[0],
            "One v for all weights: keep one for each, without .sum() or norm.": W
            - 0.1 * G[0] / np.linalg.norm(G[0]),
            "w has not moved.": W,
        },
    )
    v = G[0] ** 2 + G[1] ** 2
    same(
        "then slope [-1, 2]: after the second step",
        second,
        first - 0.1 * G[1] / np.sqrt(v),
        slips={
            "v forgot the first slope. Is the new state returned, and read?": first
            - 0.1 * np.sign(G[1]),
            "v should add squares: here it is the sum of the sizes.": first
            - 0.1 * G[1] / (np.abs(G[0]) + np.abs(G[1])),
            "The slopes were added first and squared after: square each one.": first
            - 0.1 * G[1] / np.abs(G[0] + G[1]),
            "This is the mean of the squares: AdaGrad keeps the sum.": first
            - 0.1 * G[1] / np.sqrt(v / 2),
            "v was updated after the step: today's slope counts too.": first
            - 0.1 * G[1] / np.abs(G[0]),
        },
    )
    _afresh(answer, second)
    with np.errstate(all="ignore"):
        still = _follow(answer, [np.array([0.0, 1.0])], W)[0]
    same("slope [0, 1]: a weight without a slope", still, [1.0, -2.1],
         slip="0 / 0 is nan: that is what eps is for.")  # fmt: skip
    _eps(
        answer,
        "adagrad",
        lambda g, e: g / (abs(g) + e),
        lambda g, e: g / np.hypot(g, e**0.5),
    )
    _long(answer, lambda g: (g / np.sqrt((g**2).cumsum(0))).sum(0))


def _eps(rule, name, outside, inside):
    "Is eps beside the root, not under it?"
    got = _follow(rule, [np.array([0.5])], np.zeros(1), eps=0.1)[0]
    same(
        f"{name}: slope 0.5 with a large eps = 0.1",
        got,
        [-0.1 * outside(0.5, 0.1)],
        slips={"eps stands beside the root, not under it.": [-0.1 * inside(0.5, 0.1)]},
        slip="eps is added to the root that divides.",
    )


@chapter.exercise(
    "As AdaGrad, but v fades: it is a mean of recent squares instead of a sum of all.",
    "A fading mean: beta parts of the old v, 1 - beta parts of today's square.",
    'v = beta * state.get("v", 0.0) + (1 - beta) * grad**2; the step as in adagrad',
)
def rmsprop(answer):
    "A rate for each weight, from a fading mean of its squared slopes."
    first, second = _follow(answer, G[:2], W, beta=0.75)
    same(
        "w = [1, -2], slope [0.5, 1], lr = 0.1, beta = 0.75: after the first step",
        first,
        W - 0.1 * np.sign(G[0]) / 0.5,
        slips={
            "Uphill: subtract.": W + 0.1 * np.sign(G[0]) / 0.5,
            "v is a sum here: today's square counts 1 - beta parts.": W
            - 0.1 * np.sign(G[0]),
            "The parts are swapped: beta for the old v, 1 - beta for today.": W
            - 0.1 * np.sign(G[0]) / np.sqrt(0.75),
            "The root is missing.": W - 0.1 / G[0] / 0.25,
            "The slope is not squared in v.": W - 0.1 * G[0] / np.sqrt(0.25 * G[0]),
            "w has not moved.": W,
        },
        rtol=1e-5,
    )
    v = 0.75 * 0.25 * G[0] ** 2 + 0.25 * G[1] ** 2
    same(
        "then slope [-1, 2]: after the second step",
        second,
        first - 0.1 * G[1] / np.sqrt(v),
        slips={
            "v forgot the first slope. Is the new state returned, and read?": first
            - 0.1 * G[1] / (0.5 * np.abs(G[1])),
            "Nothing fades: the old v counts beta times.": first
            - 0.1 * G[1] / np.sqrt(0.25 * (G[0] ** 2 + G[1] ** 2)),
            "v was updated after the step: today's slope counts too.": first
            - 0.1 * G[1] / (0.5 * np.abs(G[0])),
        },
        rtol=1e-5,
    )
    _afresh(answer, second, beta=0.75)
    with np.errstate(all="ignore"):
        still = _follow(answer, [np.array([0.0, 1.0])], W, beta=0.75)[0]
    same("slope [0, 1]: a weight without a slope", still, [1.0, -2.2], rtol=1e-5,
         slip="0 / 0 is nan: that is what eps is for.")  # fmt: skip
    _eps(
        lambda *a, **o: answer(*a, beta=0.75, **o), "rmsprop",
        lambda g, e: g / (g / 2 + e), lambda g, e: g / np.sqrt(g**2 / 4 + e),
    )  # fmt: skip
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
        slips={
            "Uphill: subtract.": W + 0.1 * sign,
            "The bias correction is missing: m / (1 - beta1**t), v / (1 - beta2**t).": W
            - 0.1 * sign * (1 - b1) / np.sqrt(1 - b2),
            "m is corrected, v is not.": W - 0.1 * sign / np.sqrt(1 - b2),
            "v is corrected, m is not.": W - 0.1 * sign * (1 - b1),
            "t starts at 0, and 1 - beta**0 is 0: count the step first.": np.full(2, np.nan),
            "The slope is not squared in v.": W - 0.1 * G[0] / np.sqrt(G[0]),
            "The root is missing.": W - 0.1 / G[0],
            "w has not moved.": W,
        },
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
        slips={
            "t stays at 1: return it in the state.": after(m / (1 - b1), v / (1 - b2)),
            "beta1 and beta2 are swapped: beta1 for m, beta2 for v.": after(
                crossed_m, crossed_v
            ),
            "The corrected means went into the state: keep the plain m and v.": after(
                stored_m, stored_v
            ),
            "m forgot the first slope. Is the new state returned, and read?": after(
                G[1] * 0.5 / (1 - b1**2), v_hat
            ),
            "Nothing was remembered. Is the new state returned, and read?": after(
                G[1], G[1] ** 2
            ),
            "The step goes along today's slope: it should go along m.": after(G[1], v_hat),
        },
        rtol=1e-5,
    )  # fmt: skip
    _afresh(answer, second, beta1=b1, beta2=b2)
    m, v = 0.5 * m + 0.5 * G[2], 0.9 * v + 0.1 * G[2] ** 2
    want = second - 0.1 * (m / (1 - b1**3)) / np.sqrt(v / (1 - b2**3))
    same("then slope [0.25, -3]: after the third step", third, want, rtol=1e-5,
         slip="Two steps were right: does t grow by one a step?")  # fmt: skip
    still = _follow(answer, [np.array([0.0, 1.0])], W)[0]
    same("slope [0, 1]: a weight without a slope", still, [1.0, -2.1], rtol=1e-5,
         slip="0 / 0 is nan: that is what eps is for.")  # fmt: skip
    _eps(answer, "adam", lambda g, e: g / (g + e), lambda g, e: g / np.sqrt(g**2 + e))

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
        slips={
            "The decay is missing.": w - 0.1,
            "The decay went through the slope and Adam divided it away: this is L2. Take "
            "it from w beside Adam's step.": w - 0.1 * np.sign(grad + 0.5 * w),
            "The decay is not multiplied by the learning rate.": w - 0.1 - 0.5 * w,
            "The weights grow: the decay is subtracted.": w - 0.1 + 0.05 * w,
            "The decay took its share of the moved w: it is lr * weight_decay of the "
            "old one.": (w - 0.1) * 0.95,
            "Only the decay: where is Adam's step?": w * 0.95,
            "The decay is twice as large: there is no factor 2 in it.": w
            - 0.1
            - 0.1 * w,
            "This shrinks every weight by the same amount (that is L1): the share is "
            "lr * weight_decay of w.": w - 0.1 - 0.05 * np.sign(w),
        },
        rtol=1e-4,
    )
    plain = _follow(answer, G, W, weight_decay=0.0)
    want = W
    m = v = 0.0
    for t, g in enumerate(G, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        want = want - 0.1 * m / (1 - 0.9**t) / np.sqrt(v / (1 - 0.999**t))
        same(f"without decay, step {t}: Adam's own", plain[t - 1], want, rtol=1e-5,
             slip="Without decay it should equal adam.")  # fmt: skip
    one, two = _follow(answer, [np.zeros(2)] * 2, w, weight_decay=0.5)
    same("no slope at all, two steps: only the decay", two, w * 0.95**2,
         slip="Each step keeps 1 - lr * weight_decay of w.")  # fmt: skip
    same("the same: after the first", one, w * 0.95)


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
        slips={
            "The first step has rate 0 and is lost: count it, (step + 1) / warmup.": climb
            - 0.1,
            "There is no climb: the first steps are smaller.": np.full(4, 0.4),
            "The climb divides by total: it is over after `warmup` steps.": climb / 5,
            "The climb starts at `final`: it starts at lr / warmup.": 0.04
            + 0.36 * climb / 0.4,
            "The cosine is already at work during the climb.": climb
            * (1 + np.cos(np.pi * np.arange(4) / 20)) / 2,
        },
    )  # fmt: skip
    down = (4, 8, 12, 16, 20)
    fall = (1 + np.cos(np.pi * np.linspace(0, 1, 5))) / 2
    same(
        "total = 20, final = 0.04: the rates of steps 4, 8, 12, 16, 20",
        rates(down),
        0.04 + 0.36 * fall,
        slips={
            "It falls to 0, not to `final`.": 0.4 * fall,
            "`final` is added on top: only lr - final falls.": 0.04 + 0.4 * fall,
            "It falls along a straight line: half a cosine.": 0.4
            - 0.36 * np.linspace(0, 1, 5),
            "The cosine counts from step 0: it begins after the climb.": 0.04
            + 0.18 * (1 + np.cos(np.pi * np.array(down) / 20)),
            "The cosine runs to -1: halve 1 + cos.": 0.04
            + 0.36 * np.cos(np.pi * np.linspace(0, 1, 5)),
            "A whole turn of the cosine comes back up: half a turn, pi.": 0.04
            + 0.18 * (1 + np.cos(2 * np.pi * np.linspace(0, 1, 5))),
            "This is a quarter of a cosine, steep at the end: half of 1 + cos.": 0.04
            + 0.36 * np.cos(np.pi / 2 * np.linspace(0, 1, 5)),
        },
    )  # fmt: skip
    same("steps 24 and 36, after the end", rates([24, 36]), [0.04, 0.04],
         slip="A cosine climbs again after its end: hold `done` at 1.")  # fmt: skip
    no_climb = answer(0, lr=0.4, warmup=0, total=10)
    same("warmup = 0: the rate of step 0", no_climb, 0.4,
         slip="Without a climb it begins at lr.")  # fmt: skip
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
    for size in (12, 4):
        got = answer(grads, size, 3000, np.random.default_rng(0))
        want = spread / np.sqrt(size)
        full = (grads.mean(0) ** 2).sum()
        away = np.sqrt(full + want**2)
        same(
            f"12 rows, 3 weights, 3,000 batches of {size}",
            got,
            want,
            slips={
                "A batch of all rows has no noise here: you drew without replacement. "
                "Draw every row from all N.": 0.0,
                "This is the size of the batch gradient: subtract the mean of all rows.": away,
                "The rows were added, not averaged.": np.sqrt(
                    (size - 1) ** 2 * full + (size * want) ** 2
                ),
                "This is the squared distance: take the root at the end.": want**2,
                "The squares were averaged over the weights: add them up, one distance a "
                "batch.": want / np.sqrt(3),
                "It does not shrink with the batch: average the batch's rows first.": spread,
                "This is the mean distance: square, average over the draws, take the root.": (
                    _mean_distance(grads, size)
                ),
            },
            slip="Root of the mean, over the draws, of the squared distance.",
            rtol=0.06,
        )
    runs = [answer(grads, 2, 50, np.random.default_rng(s)) for s in (1, 1, 2)]
    same("two runs with the same seed", runs[0], runs[1],
         slip="Draw with the `rng` you are given, or no run can be repeated.")  # fmt: skip
    if np.isclose(runs[0], runs[2], rtol=1e-12):
        raise Miss("Seeds 1 and 2 give the same number: the draws ignore `rng`.",
                   "50 batches of 2", runs[2], "another number")  # fmt: skip


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
    same(
        "the standard deviation of he_init(400, 100, rng)",
        np.std(W_io),
        np.sqrt(2 / 400),
        slips={
            "This is sqrt(1 / fan_in): ReLU halves the signal, hence the 2.": np.sqrt(
                1 / 400
            ),
            "This is 2 / fan_in, the variance: rng.normal wants its root.": 2 / 400,
            "It counts the outputs: the sum runs over fan_in.": np.sqrt(2 / 100),
            "This is Xavier's, for tanh: here only fan_in counts.": np.sqrt(2 / 500),
            "A deviation of 1: the signal grows layer by layer.": 1.0,
            "All weights are equal: then all units stay equal. Draw them.": 0.0,
        },
        rtol=0.02,
    )
    same("their mean", np.mean(W_io), 0.0, atol=0.003,
         slip="Weights of both signs, around 0.")  # fmt: skip
    again = [answer(5, 4, np.random.default_rng(s)) for s in (1, 1, 2)]
    same("two draws from the same seed", again[0], again[1],
         slip="Draw from the `rng` you are given.")  # fmt: skip
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
    same(
        "soft_threshold([2, 0.3, -0.2, -1.5, 0], 0.5)",
        answer(w, 0.5),
        [1.5, 0.0, 0.0, -1.0, 0.0],
        slips={
            "It steps over 0: a weight nearer than `amount` stops at 0.": w
            - 0.5 * np.sign(w),
            "Negative weights are lost: work on the size, then put the sign back.": np.maximum(
                w - 0.5, 0
            ),
            "The sign is lost: multiply by np.sign(w).": np.maximum(np.abs(w) - 0.5, 0),
            "The large weights kept their size (a hard threshold): they shrink too.": (
                np.where(np.abs(w) > 0.5, w, 0)
            ),
            "This shrinks by a share, as L2 does: the amount is the same for all.": w
            * 0.5,
            "This cuts the large weights to `amount`: it is the small ones that go.": np.clip(
                w, -0.5, 0.5
            ),
            "The small ones survived and the large ones are gone: turned over.": np.where(
                np.abs(w) > 0.5, 0, w
            ),
        },
    )
    wide = np.random.default_rng(0).normal(size=(40, 5))
    got = answer(wide, 0.7)
    same("200 random weights", got, wide - np.clip(wide, -0.7, 0.7))
    same("how many are exactly 0", np.count_nonzero(np.asarray(got) == 0),
         np.count_nonzero(np.abs(wide) <= 0.7), slip="Nearly 0 is not 0.")  # fmt: skip
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
        slips={
            "It stops one epoch late: 3 epochs without anything better are enough.": (
                [False] * 8 + [True]
            ),
            "It stops one epoch early: 3 epochs may pass since the best, not 2.": (
                [False] * 3 + [True] + [False] * 2 + [True] * 3
            ),
            "It never says stop.": [False] * 9,
            "The count never starts again: a better loss sets it to 0.": (
                [False] * 5 + [True] * 4
            ),
            "Turned over: True means stop.": [not x for x in want],
            "It stops at the first loss that is not better: be patient.": (
                [False, False, True, True, False, True, True, True, True]
            ),
        },
    )
    same(f"{case}: best_loss", stopper.best_loss, 1.5,
         slips={"This is the last loss, not the best.": 9.0,
                "This is the first loss: it never changed.": 3.0,
                "This is the largest loss: lower is better.": 9.0})  # fmt: skip
    _weights_of(stopper)
    same(
        f"{case}; the weights are [n, n] in epoch n: best_weights[0]",
        stopper.best_weights[0],
        [5.0, 5.0],
        slips={
            "These are the last weights. Training goes on in the same arrays: copy each "
            "one when it is the best.": [9.0, 9.0],
            "These are the weights of the epoch before the best.": [4.0, 4.0],
        },
    )
    flat = answer(2)
    said = [_answer_of(flat.update(1.0, [np.ones(1)])) for _ in range(4)]
    same("patience 2, a loss that stays at 1: stop now?", said, [False, False, True, True],
         slip="Equal is not better: a flat loss must run out of patience.")  # fmt: skip
    climbing = answer(2)
    for n, loss in enumerate((5.0, 4.0, 4.5, 3.0, 3.5)):
        late = _answer_of(climbing.update(loss, [np.full(1, float(n))]))
    same("patience 2, losses 5, 4, 4.5, 3, 3.5: stop now?", late, False,
         slip="A better loss sets the count back to 0: 4.5 no longer counts.")  # fmt: skip
    broken = answer(3)
    broken.update(2.0, [np.zeros(1)])
    broken.update(float("nan"), [np.full(1, np.nan)])
    same("losses 2, nan: best_loss", broken.best_loss, 2.0,
         slip="nan compares false with everything: ask `loss < best`, and nan loses.")  # fmt: skip


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
    image[0, 2:5, 3] = [1.0, 2.0, 3.0]
    image[0, 0, 7] = 4.0
    image[1] = np.arange(64).reshape(8, 8) + 1
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
        got = answer(X, down, right)
        if np.shape(got) == (2, 8, 8):
            raise Miss("It returns 8x8 images: rows of 64 came in, rows of 64 go out.",
                       "the shape", np.shape(got), (2, 64))  # fmt: skip
        same(
            f"2 images moved by down = {down}, right = {right}",
            got,
            moved(down, right),
            slips={
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
                "Nothing moved.": X,
            },
        )
    same("moved by 0 and 0", answer(X, 0, 0), X, slip="A slice [:-0] is empty.")
    same("moved out of the picture, down = 8", answer(X, 8, 0), np.zeros((2, 64)))
