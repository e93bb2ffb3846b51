"""Chapter 01: a line, its error, its slope, and the way down."""

from itertools import pairwise, product

import numpy as np

from utils.exercises import Chapter, Miss, same

chapter = Chapter("01_descent")
X_32 = np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 4.0]])
Y_3 = np.array([2.0, -1.0, 3.0])
W_2 = np.array([0.5, -2.0])
X_43 = np.array([[1.0, 2.0, 0.0], [3.0, -1.0, 1.0], [0.5, 4.0, -2.0], [2.0, 0.0, 1.0]])
Y_4, W_3 = np.array([2.0, -1.0, 3.0, 0.0]), np.array([0.5, -2.0, 1.0])


def _random(rows, features, seed=0):
    "X (rows, features), y (rows,), w (features,) and b, the same for every reader."
    rng = np.random.default_rng(seed)
    shapes = (rows, features), (rows,), (features,), ()
    return tuple(rng.normal(size=shape) for shape in shapes)


@chapter.exercise(
    "One row: multiply each input by its weight, add the products, add b.",
    "All rows at once is one matrix product: `@` multiplies and adds.",
    "return X_ND @ w_D + b",
)
def predict(answer):
    "The line's value for each row."
    want = np.array([1.5, 8.5, -2.75])  # 1*0.5 + 2*(-2) + 5, and so on, by hand
    same(
        "predict([[1, 2], [3, -1], [0.5, 4]], w=[0.5, -2], b=5)",
        answer(X_32, W_2, 5.0),
        want,
        rule="Each row: input times weight, summed over the features, plus b.",
    )
    X, _, w, b = _random(7, 3)
    same("7 random rows of 3 features", answer(X, w, b), (X * w).sum(1) + b)
    same(
        "one row of one feature", answer(np.array([[2.0]]), np.array([3.0]), 1.0), [7.0]
    )


@chapter.exercise(
    "How far off is each row? Square it. Then one number for all rows.",
    "The mean does not depend on how many rows there are; a sum does.",
    "return np.mean((y_hat_N - y_N) ** 2)",
)
def mse(answer):
    "Mean squared error."
    y_hat, y = np.array([1.0, 2.0, 5.0]), np.array([1.0, 4.0, 1.0])
    same(
        "mse([1, 2, 5], [1, 4, 1])",
        answer(y_hat, y),
        20 / 3,
    )
    _, y, _, _ = _random(50, 1)
    same("a perfect prediction", answer(y, y), 0.0)


@chapter.exercise(
    "The slope along one coordinate: move only that one, a little up and a little down.",
    "Two points of the curve, h to either side: their difference over their distance, 2h.",
    "For each i: step = zeros; step[i] = h; (f(at + step) - f(at - step)) / (2 * h).",
)
def numeric_gradient(answer):
    "Central differences along each coordinate."
    at = np.array([1.0, -2.0, 0.5])

    def f(p):
        return p[0] ** 3 + 2 * p[1] ** 2 + p[0] * p[2]

    want = np.array([3.5, -8.0, 1.0])
    h = 0.1
    e = np.eye(3) * h
    forward = np.array([(f(at + s) - f(at)) / h for s in e])
    central = np.array([(f(at + s) - f(at - s)) / (2 * h) for s in e])
    same(
        "f(a, b, c) = a^3 + 2 b^2 + a c at (1, -2, 0.5), with h = 0.1",
        answer(f, at, h),
        central,
        rule="Move one coordinate at a time by h, to both sides.",
    )
    same(
        "the same with h = 1e-4: the slope itself", answer(f, at, 1e-4), want, atol=1e-6
    )
    whole = answer(lambda p: (p**2).sum(), np.array([3, -1]), 1e-4)
    same(
        "at whole numbers, np.array([3, -1])",
        whole,
        [6.0, -2.0],
        rule="An array of whole numbers cuts 1e-4 to 0: make the step an array of floats.",
        atol=1e-6,
    )


@chapter.exercise(
    "The derivative of error**2 is 2 * error, times how the error moves with the weight.",
    "Raise w[d] a little: row n's error moves by X[n, d]. Raise b: it moves by 1.",
    "error_N = predict(...) - y_N;  2 * X_ND.T @ error_N / N  and  2 * error_N.mean()",
)
def mse_gradient(answer):
    "The slope of the mean squared error along each weight and along b."
    error = X_43 @ W_3 + 1.0 - Y_4
    want_w, want_b = 2 * X_43.T @ error / 4, 2 * error.mean()
    case = "4 rows of 3 features, w = [0.5, -2, 1], b = 1"
    got = _pair(answer(X_43, Y_4, W_3, 1.0))
    same(
        f"{case}: the slope along w",
        got[0],
        want_w,
    )
    same(
        f"{case}: the slope along b",
        got[1],
        want_b,
    )
    X, y, w, b = _random(9, 4)
    w_slope, b_slope = _pair(answer(X, y, w, b))
    for i, step in enumerate(np.eye(5) * 1e-4):

        def loss(sign, step=step):
            return np.mean((X @ (w + sign * step[:4]) + b + sign * step[4] - y) ** 2)

        same(
            f"against a nudge of coordinate {i} on 9 random rows",
            w_slope[i] if i < 4 else b_slope,
            (loss(1) - loss(-1)) / 2e-4,
            rule="The loss itself, measured at two near points, says otherwise.",
            atol=1e-6,
        )


def _pair(got):
    "What should be (something for w, something for b)."
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        raise Miss(
            "It should return two things, one for w and one for b.", "what came back",
            got, "(for w, for b)",
        )  # fmt: skip
    return got


@chapter.exercise(
    "The gradient points up. Which way is down?",
    "New value = old value - lr * slope, for w and for b.",
    "Take both slopes before you change anything: b's slope depends on the old w.",
)
def gradient_step(answer):
    "One step down."
    error = X_32 @ W_2 + 1.0 - Y_3
    slope_w, slope_b = 2 * X_32.T @ error / 3, 2 * error.mean()
    w, b = _pair(answer(X_32, Y_3, W_2, 1.0, 0.1))
    case = "w = [0.5, -2], b = 1, lr = 0.1"
    same(
        f"{case}: the new w",
        w,
        W_2 - 0.1 * slope_w,
    )
    late = 2 * (X_32 @ (W_2 - 0.1 * slope_w) + 1.0 - Y_3).mean()
    same(
        f"{case}: the new b",
        b,
        1.0 - 0.1 * slope_b,
    )
    w, b = _pair(answer(X_32, Y_3, W_2, 1.0, 0.03))
    fixed = "`lr` is an argument: your step has the same length whatever it is."
    same("the same with lr = 0.03: the new w", w, W_2 - 0.03 * slope_w,
         )  # fmt: skip
    same("the same with lr = 0.03: the new b", b, 1.0 - 0.03 * slope_b,
         )  # fmt: skip


@chapter.exercise(
    "Along a direction with curvature c, a step multiplies the distance by 1 - lr * c.",
    "It shrinks while |1 - lr * c| < 1. The largest c of all directions decides.",
    "A = np.c_[X_ND, np.ones(N)]; 2 / np.linalg.eigvalsh(2 * A.T @ A / N).max()",
)
def stable_rate(answer):
    "The learning rate past which descent diverges."
    X, _, _, _ = _random(6, 2)
    X = X * [1.0, 3.0] + [2.0, 0.0]
    A = np.c_[X, np.ones(6)]
    curvature = np.linalg.eigvalsh(2 * A.T @ A / 6)
    bare = np.linalg.eigvalsh(2 * X.T @ X / 6).max()
    same(
        "6 rows of 2 features",
        answer(X),
        2 / curvature.max(),
        rule="2 over the largest eigenvalue of 2 A.T @ A / N, A with a column of ones.",
    )
    same("one row, x = 3: curvature 2 * (9 + 1)", answer(np.array([[3.0]])), 0.1)


@chapter.exercise(
    "Each column on its own: subtract its mean, divide by its standard deviation.",
    "A mean over the rows is a mean along axis 0. Return the mean and deviation too.",
    "A constant column has deviation 0: replace it by 1 (np.where) before you divide.",
)
def standardise(answer):
    "Columns of mean 0 and deviation 1."
    X = np.array([[1.0, 1990.0], [3.0, 2000.0], [5.0, 2025.0]])
    mean, std = X.mean(0), X.std(0)
    got = answer(X)
    if not isinstance(got, (tuple, list)) or len(got) != 3:
        raise Miss(
            "It should return (Z, mean, std).", "standardise(X)", got, "3 things"
        )
    Z, got_mean, got_std = got
    same(
        "X = [[1, 1990], [3, 2000], [5, 2025]]: Z",
        Z,
        (X - mean) / std,
    )
    same("the mean of each column", got_mean, mean)
    same("the deviation of each column", got_std, std)
    constant = np.array([[1.0, 7.0], [3.0, 7.0]])
    with np.errstate(all="ignore"):
        Z, _, got_std = answer(constant)
    same(
        "a column that is constant, [[1, 7], [3, 7]]",
        Z,
        [[-1.0, 0.0], [1.0, 0.0]],
        rule="Its deviation is 0, and 0 / 0 is nan: divide a constant column by 1.",
    )
    same("the deviation to divide by for a constant column", got_std, [1.0, 1.0])


@chapter.exercise(
    "Shuffle the row numbers once, then cut them into pieces.",
    "rng.permutation(N) is a shuffled 0 .. N-1; slices [0:size], [size:2*size], ...",
    "order = rng.permutation(N); for i in range(0, N, size): yield order[i:i + size]",
)
def minibatches(answer):
    "Every row once an epoch, in random order, `size` at a time."
    batches = list(answer(10, 4, np.random.default_rng(0)))
    if not batches:
        raise Miss("No batch came out: does it `yield` or return a list?")
    sizes = [len(batch) for batch in batches]
    if 0 in sizes:
        raise Miss("One batch is empty: it has no mean.", "minibatches(10, 4, rng)",
                   sizes, [4, 4, 2])  # fmt: skip
    rows = np.sort(np.concatenate(batches)).tolist()
    case = "minibatches(10, 4, rng)"
    if sizes == [4, 4]:
        raise Miss("The last 2 rows are dropped: a smaller last batch is fine.", case,
                   sizes, [4, 4, 2])  # fmt: skip
    if sizes in ([2, 4, 4], [4, 2, 4]):
        raise Miss("Shuffle the rows, not the batches: then the small one comes last.",
                   case, sizes, [4, 4, 2])  # fmt: skip
    same(f"{case}: the sizes", sizes, [4, 4, 2], rule="Cut pieces of `size`.")
    same(
        f"{case}: the rows of one epoch, sorted",
        rows,
        np.arange(10),
        rule="Each row comes once an epoch: shuffle, do not draw with replacement.",
    )
    if np.concatenate(batches).tolist() == list(range(10)):
        raise Miss("The rows are not shuffled.", case, batches, "a random order")
    even = [len(batch) for batch in answer(8, 4, np.random.default_rng(0))]
    same("minibatches(8, 4, rng): the sizes", even, [4, 4],

         rule="Cut pieces of `size`.")  # fmt: skip
    rng = np.random.default_rng(1)
    first, second = (np.concatenate(list(answer(50, 8, rng))) for _ in range(2))
    if first.tolist() == second.tolist():
        raise Miss("Two epochs have the same order: shuffle anew with `rng` each time.",
                   "two epochs of minibatches(50, 8, rng)", first, "another order")  # fmt: skip
    one, other = (
        np.concatenate(list(answer(50, 8, np.random.default_rng(7)))) for _ in range(2)
    )
    same("two runs from the same seed", one, other,
         rule="Shuffle with the `rng` you are given, or no run can be repeated.")  # fmt: skip
    _shuffled(answer)


def _shuffled(answer):
    "Over 300 epochs every row comes at every place, after every row, beside every row."
    rng, case = np.random.default_rng(3), "300 epochs of minibatches(12, 3, rng)"
    epochs = [[np.asarray(batch).tolist() for batch in answer(12, 3, rng)]
              for _ in range(300)]  # fmt: skip
    orders = [[row for batch in batches for row in batch] for batches in epochs]
    if any(sorted(order) != list(range(12)) for order in orders):
        raise Miss("Each row comes once an epoch.", case)
    places = {(place, row) for order in orders for place, row in enumerate(order)}
    after = {pair for order in orders for pair in pairwise(order)}
    mates = {(a, b) for batches in epochs for batch in batches
             for a, b in product(batch, batch) if a != b}  # fmt: skip
    if len(mates) == 12 * 2 and len(places) == 12 * 3:
        raise Miss(
            "Rows move only inside their own batch: shuffle all of them, then cut.",
            case, f"{len(mates) // 2} pairs ever share a batch", "all 66 pairs",
        )  # fmt: skip
    if len(mates) == 12 * 2:
        raise Miss(
            "The same rows always share a batch, only the batches change their order: "
            "shuffle the rows, then cut.",
            case, f"{len(mates) // 2} pairs ever share a batch", "all 66 pairs",
        )  # fmt: skip
    if min(len(mates), len(after)) < 12 * 11 or len(places) < 12 * 12:
        raise Miss(
            "The order is not random: some rows never follow each other. A rotation is "
            "no shuffle; rng.permutation is one.",
            case, f"{len(after)} rows ever follow one another", "all 132 pairs",
        )  # fmt: skip


def two_epochs(run, step, start):
    """Hold `run(seed)` against every way to take two epochs over 4 rows, 2 at a time.

    `step(rows, at)` makes one step from `at`, a pair of arrays that begins as `start`.
    """
    case = "4 rows, 2 epochs of batches of 2"
    firsts = [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    orders = [(first, [i for i in range(4) if i not in first]) for first in firsts]
    ends = {}
    for i, j in product(range(6), repeat=2):
        at = start
        for rows in (*orders[i], *orders[j]):
            at = step(rows, at)
        ends[i, j] = np.hstack([np.ravel(part) for part in at])
    repeats = []
    for seed in range(20):
        got = np.hstack([np.ravel(part) for part in run(seed)])
        fits = [i == j for (i, j), end in ends.items()
                if got.shape == end.shape and np.allclose(got, end, atol=1e-9)]  # fmt: skip
        if not fits:
            raise Miss(
                "No order of the rows leads there: each epoch takes every row once, each "
                "step goes on from where the last one ended.", case, got,
            )  # fmt: skip
        repeats.append(any(fits))
    if all(repeats):
        raise Miss(
            "Every epoch goes through the same batches: make the generator once, before "
            "both loops, and draw new batches in every epoch.",
            case, "the first epoch's order again", "a new order in the second",
        )  # fmt: skip


@chapter.exercise(
    "Two loops: over the epochs, and in each over minibatches(N, size, rng).",
    "A batch is X_ND[rows], y_N[rows]; gradient_step does the rest.",
    "Start at w = zeros(D), b = 0. One generator for the whole run: default_rng(seed).",
    seconds=8,
)
def sgd(answer):
    "Descent by minibatches."
    X, _, w, b = _random(64, 3)
    y = X @ w + b
    got_w, got_b = _pair(answer(X, y, lr=0.1, epochs=60, size=16, seed=0))
    zero_w, zero_b = _pair(answer(X, y, lr=0.1, epochs=0, size=16, seed=0))
    once_w, _ = _pair(answer(X, y, lr=0.1, epochs=1, size=16, seed=0))
    trains = {"It trains although epochs = 0: is the loop over range(epochs)?": once_w}
    same("0 epochs: w", zero_w, np.zeros(3),
         rule="Start at w = zeros, not at random.")  # fmt: skip
    same("0 epochs: b", zero_b, 0.0, rule="Start at b = 0.")
    case = "64 rows of y = X w + b without noise, 60 epochs of batches of 16"
    start = np.mean(y**2)
    if np.ndim(got_b) == 0 and np.shape(got_w) == (3,):
        loss = np.mean((X @ got_w + got_b - y) ** 2)
        if loss > 0.9 * start:
            raise Miss("The loss has hardly moved: is the step's result kept?", case,
                       f"loss {loss:.3g}", f"near 0, from {start:.3g}")  # fmt: skip
    same_rows = answer(np.ones((64, 1)), np.ones(64), lr=0.1, epochs=3, size=16, seed=0)
    steps = 3 * 64 // 16
    missing = {k: 0.5 * (1 - 0.6**k) for k in (1, 3, 4, steps, 3 * 64)}  # after k steps
    same(
        "64 equal rows, 3 epochs of batches of 16: w after 12 steps of lr 0.1",
        same_rows[0],
        [missing[steps]],
        rule="Count your steps: 3 epochs of 4 batches.",
    )
    same(f"{case}: w", got_w, w, atol=1e-3)
    same(f"{case}: b", got_b, b, atol=1e-3)
    noisy = y + np.random.default_rng(5).normal(size=64)
    runs = [answer(X, noisy, lr=0.1, epochs=2, size=8, seed=s)[0] for s in (1, 1, 2)]
    same("two runs with the same seed", runs[0], runs[1],
         rule="The order must come from default_rng(seed) alone.")  # fmt: skip
    whole = np.zeros(3), 0.0
    for _ in range(16):
        whole = _stepped(X, noisy, *whole, 0.1)
    if np.allclose(runs[0], whole[0], atol=1e-9):
        raise Miss("Every step looks at all rows: hand it X_ND[rows] and y_N[rows].",
                   "2 epochs of batches of 8", "16 steps on all 64 rows",
                   "16 steps on 8 rows each")  # fmt: skip
    if np.allclose(runs[0], runs[2], atol=1e-12):
        raise Miss("Seeds 1 and 2 give the same weights: the batches ignore the seed.",
                   "2 epochs of batches of 8", runs[2], "other weights")  # fmt: skip
    X, y, _, _ = _random(4, 2)
    two_epochs(
        lambda seed: _pair(answer(X, y, lr=0.1, epochs=2, size=2, seed=seed)),
        lambda rows, at: _stepped(X[rows], y[rows], *at, 0.1),
        (np.zeros(2), 0.0),
    )


def _stepped(X, y, w, b, lr):
    error = X @ w + b - y
    return w - lr * 2 * X.T @ error / len(y), b - lr * 2 * error.mean()


@chapter.exercise(
    "log2 counts doublings: the slope is the number of doublings in one year.",
    "So a doubling takes 1 / slope years.",
    "doubling_months = 12 / slope",
    kind="value",
)
def doubling_months(answer):
    "How many months a doubling takes, from the slope of log2(peak) against the year."
    slope = growth_slope()
    same(
        f"a slope of {slope:.4g} doublings a year",
        answer,
        12 / slope,
        rtol=1e-3,
    )


def growth_slope():
    "Least-squares slope of log2(fp32 TFLOP/s) against the year over all chips with both."
    from utils.data import accelerators

    chips = [c for c in accelerators() if c["fp32_tflops"]]
    years = [c["year"] for c in chips]
    return np.polyfit(years, np.log2([c["fp32_tflops"] for c in chips]), 1)[0]
