"""Chapter 01: a line, its error, its slope, and the way down."""

from itertools import combinations, product

import numpy as np

from utils.exercises import Chapter, Miss, same
from utils.exercises.cases import agree

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


def _pair(got):
    "What should be (something for w, something for b)."
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        raise Miss(
            "It should return two things, one for w and one for b.",
            "what came back", got, "(for w, for b)",
        )  # fmt: skip
    return got


@chapter.exercise(
    "One row: multiply each input by its weight, add the products, add b.",
    "All rows at once is one matrix product: `@` multiplies and adds.",
    "return X_ND @ w_D + b",
)
def predict(answer):
    "The line's value for each row."
    rule = "Each row: input times weight, summed over the features, plus b."
    same(
        "predict([[1, 2], [3, -1], [0.5, 4]], w=[0.5, -2], b=5)",
        answer(X_32, W_2, 5.0),
        [1.5, 8.5, -2.75],  # 1*0.5 + 2*(-2) + 5, and so on, by hand
        rule,
    )
    X, _, w, b = _random(7, 3)
    same("7 random rows of 3 features", answer(X, w, b), (X * w).sum(1) + b, rule)
    X, w = np.array([[2.0]]), np.array([3.0])
    same("one row of one feature", answer(X, w, 1.0), [7.0], rule)


@chapter.exercise(
    "How far off is each row? Square it. Then one number for all rows.",
    "The mean does not depend on how many rows there are; a sum does.",
    "return np.mean((y_hat_N - y_N) ** 2)",
)
def mse(answer):
    "Mean squared error."
    rule = "Square each row's difference, then take the mean over the rows."
    y_hat, y = np.array([1.0, 2.0, 5.0]), np.array([1.0, 4.0, 1.0])
    same("mse([1, 2, 5], [1, 4, 1])", answer(y_hat, y), 20 / 3, rule)
    y = np.array([1.0, -1.0, 2.5, -2.5])
    same("mse([0, 0, 0, 0], [1, -1, 2.5, -2.5])", answer(np.zeros(4), y), 3.625, rule)
    same("a perfect prediction", answer(y, y), 0.0, "No error costs nothing.")


@chapter.exercise(
    "The slope along one coordinate: move only that one, a little up and a little down.",
    "Two points of the curve, h to either side: their difference over their distance, 2h.",
    "For each i: step = zeros; step[i] = h; (f(at + step) - f(at - step)) / (2 * h).",
)
def numeric_gradient(answer):
    "Central differences along each coordinate."
    at = np.array([2.0, -1.0, 0.5])

    def f(p):
        return p[0] ** 3 + 2 * p[1] ** 2 + p[0] * p[2]

    central = [(f(at + e) - f(at - e)) / 0.2 for e in 0.1 * np.eye(3)]
    same(
        "f(a, b, c) = a^3 + 2 b^2 + a c at (2, -1, 0.5), with h = 0.1",
        answer(f, at, 0.1),
        central,
        rule="Move one coordinate at a time by h, to both sides.",
    )
    same(
        "the same with h left out: the slope itself",
        answer(f, at),
        [12.5, -4.0, 2.0],
        rule="`h` is an argument, 1e-4 where it is left out.",
        atol=1e-6,
    )
    same(
        "f(a, b) = 0.75 (a^2 + b^2) at whole numbers, np.array([3, -1])",
        answer(lambda p: 0.75 * (p**2).sum(), np.array([3, -1])),
        [4.5, -1.5],
        rule="An array of whole numbers holds no fractions: make it one of floats.",
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
    case = "4 rows of 3 features, w = [0.5, -2, 1], b = 1"
    slope_w, slope_b = _pair(answer(X_43, Y_4, W_3, 1.0))
    same(f"{case}: the slope along w", slope_w, 2 * X_43.T @ error / 4,
         "For each weight: 2 * error * its input, averaged over the rows.")  # fmt: skip
    same(f"{case}: the slope along b", slope_b, 2 * error.mean(),
         "2 * error, averaged over the rows: b reaches every row with factor 1.")  # fmt: skip
    X, y, w, b = _random(9, 4)
    slopes = np.append(*_pair(answer(X, y, w, b)))
    point = np.append(w, b)
    for i, nudge in enumerate(1e-4 * np.eye(5)):
        up, down = (
            np.mean((X @ p[:4] + p[4] - y) ** 2) for p in (point + nudge, point - nudge)
        )
        same(
            f"9 random rows, against a nudge of {f'w[{i}]' if i < 4 else 'b'}",
            slopes[i],
            (up - down) / 2e-4,
            rule="The loss itself, measured at two near points, says otherwise.",
            atol=1e-6,
        )


@chapter.exercise(
    "The gradient points up. Which way is down?",
    "New value = old value - lr * slope, for w and for b.",
    "Take both slopes before you change anything: b's slope depends on the old w.",
)
def gradient_step(answer):
    "One step down."
    error = X_32 @ W_2 + 1.0 - Y_3
    slope_w, slope_b = 2 * X_32.T @ error / 3, 2 * error.mean()
    rule = "New = old - lr * slope, both slopes taken at the old w and b."
    w, b = _pair(answer(X_32, Y_3, W_2, 1.0, 0.1))
    same("w = [0.5, -2], b = 1, lr = 0.1: the new w", w, W_2 - 0.1 * slope_w, rule)
    same("w = [0.5, -2], b = 1, lr = 0.1: the new b", b, 1.0 - 0.1 * slope_b, rule)
    rule = "`lr` is an argument: the step grows and shrinks with it."
    w, b = _pair(answer(X_32, Y_3, W_2, 1.0, 0.03))
    same("the same with lr = 0.03: the new w", w, W_2 - 0.03 * slope_w, rule)
    same("the same with lr = 0.03: the new b", b, 1.0 - 0.03 * slope_b, rule)


@chapter.exercise(
    "Along a direction with curvature c, a step multiplies the distance by 1 - lr * c.",
    "It shrinks while |1 - lr * c| < 1. The largest c of all directions decides.",
    "A = np.c_[X_ND, np.ones(N)]; 2 / np.linalg.eigvalsh(2 * A.T @ A / N).max()",
)
def stable_rate(answer):
    "The learning rate past which descent diverges."
    rule = "2 over the largest eigenvalue of 2 A.T @ A / N, A with a column of ones."
    X, _, _, _ = _random(6, 2)
    X = X * [1.0, 3.0] + [2.0, 0.0]
    A = np.c_[X, np.ones(6)]
    curvatures = np.linalg.eigvalsh(2 * A.T @ A / 6)
    same("6 rows of 2 features", answer(X), 2 / curvatures.max(), rule)
    X = np.array([[3.0]])
    same("one row, x = 3: curvature 2 * (9 + 1)", answer(X), 0.1, rule)


@chapter.exercise(
    "Each column on its own: subtract its mean, divide by its standard deviation.",
    "A mean over the rows is a mean along axis 0. Return the mean and deviation too.",
    "A constant column has deviation 0: replace it by 1 (np.where) before you divide.",
)
def standardise(answer):
    "Columns of mean 0 and deviation 1."
    X = np.array(
        [[1.0, 1990.0, 0.0002], [3.0, 2000.0, 0.0001], [5.0, 2025.0, 0.0006], [2.0, 2011.0, 0.0003]]
    )  # fmt: skip
    case = "4 rows of 3 columns, around 3, 2000 and 0.0003"
    Z, mean, std = _three(answer(X))
    same(f"{case}: Z", Z, (X - X.mean(0)) / X.std(0),
         "Each column: minus its mean, over its deviation, however small that is.")  # fmt: skip
    same(
        f"{case}: the mean",
        mean,
        X.mean(0),
        "Return (Z, mean, deviation), in this order.",
    )
    same(f"{case}: the deviation", std, X.std(0), "Return what you divided by.")
    X = np.array([[1, 7], [4, 7], [1, 7]])
    case = "whole numbers and a constant column, [[1, 7], [4, 7], [1, 7]]"
    with np.errstate(all="ignore"):
        Z, mean, std = _three(answer(X))
    same(f"{case}: Z", Z, [[-(0.5**0.5), 0.0], [2**0.5, 0.0], [-(0.5**0.5), 0.0]],
         "A constant column has deviation 0, and 0 / 0 is nan: divide it by 1.")  # fmt: skip
    same(f"{case}: the mean", mean, [2.0, 7.0], "A constant column has a mean as well.")
    same(
        f"{case}: the deviation",
        std,
        [2**0.5, 1.0],
        "Return what you divided by, here 1.",
    )


def _three(got):
    "What should be (Z, mean, deviation)."
    if not isinstance(got, (tuple, list)) or len(got) != 3:
        raise Miss(
            "It should return (Z, mean, std).", "standardise(X)", got, "3 things"
        )
    return got


@chapter.exercise(
    "Shuffle the row numbers once, then cut them into pieces.",
    "rng.permutation(N) is a shuffled 0 .. N-1; slices [0:size], [size:2*size], ...",
    "order = rng.permutation(N); for i in range(0, N, size): yield order[i:i + size]",
)
def minibatches(answer):
    "Every row once per epoch, in random order, `size` at a time."

    def epoch(N, size, rng):
        return [np.asarray(batch).tolist() for batch in answer(N, size, rng)]

    def rows(N, size, rng):
        return [row for batch in epoch(N, size, rng) for row in batch]

    def sizes(N, size):
        return sorted(map(len, epoch(N, size, np.random.default_rng(0))))

    rule = "Cut pieces of `size`; the last one takes what is left."
    same("minibatches(10, 4, rng): the sizes, sorted", sizes(10, 4), [2, 4, 4], rule)
    same("minibatches(9, 4, rng): the sizes, sorted", sizes(9, 4), [1, 4, 4], rule)
    same("minibatches(8, 4, rng): the sizes", sizes(8, 4), [4, 4], rule)
    same("minibatches(3, 4, rng): the size", sizes(3, 4), [3], rule)
    rng = np.random.default_rng(0)
    same("minibatches(10, 4, rng): the rows, sorted", sorted(rows(10, 4, rng)), np.arange(10),
         "Each row comes once per epoch: shuffle, do not draw with replacement.")  # fmt: skip
    last = {len(epoch(10, 4, rng)[-1]) for _ in range(20)}
    same("20 epochs of minibatches(10, 4, rng): is the small one always the last?",
         last == {2}, True, "Shuffle the rows, then cut: so the small one comes last.")  # fmt: skip
    one, other = rows(50, 8, rng), rows(50, 8, rng)
    same("minibatches(50, 8, rng): do the rows stay in order?", one == sorted(one), False,
         "The rows are not shuffled.")  # fmt: skip
    same("two epochs of minibatches(50, 8, rng): the same rows in the same order?",
         one == other, False,
         "Two epochs have the same order: shuffle anew with `rng` each time.")  # fmt: skip
    one, other = (rows(50, 8, np.random.default_rng(7)) for _ in range(2))
    same("minibatches(50, 8, default_rng(7)) twice: the same rows?", one == other, True,
         "Shuffle with the `rng` you are given, or no run can be repeated.")  # fmt: skip
    _well_mixed([epoch(12, 3, rng) for _ in range(300)])


def _well_mixed(epochs):
    "Does every row come in every batch, and beside every other row, about equally often?"
    comes, meets = np.zeros((12, 4), int), np.zeros((12, 12), int)
    for batches in epochs:
        for place, batch in enumerate(batches):
            comes[batch, place] += 1
            meets[np.ix_(batch, batch)] += 1
    pairs = meets[np.triu_indices(12, 1)]
    case = "300 epochs of minibatches(12, 3, rng)"
    same(f"{case}: how many of the 4 batches each row is ever in", (comes > 0).sum(1),
         [4] * 12, "Every row should come in every batch: shuffle all rows, then cut.")  # fmt: skip
    same(f"{case}: how many of the 66 pairs of rows ever share a batch",
         (pairs > 0).sum(), 66,
         "The order is not random: some rows never meet in a batch. "
         "rng.permutation is a full shuffle.")  # fmt: skip
    even = pairs.min() > 15 and pairs.max() < 150
    same(f"{case}: does each pair share a batch about 55 times?", even, True,
         "The order is not random enough: some rows nearly always stay together. "
         "rng.permutation is a full shuffle.")  # fmt: skip


def two_epochs(run, step, start):
    """Hold `run(seed)`, 2 epochs over 3 rows in batches of 2, against every possible one.

    `step(rows, at)` makes one step from `at`, a pair of arrays that begins as `start`.
    """
    orders = [([i, j], [3 - i - j]) for i, j in combinations(range(3), 2)]
    ends = {}
    for first, second in product(orders, orders):
        at = start
        for rows in (*first, *second):
            at = step(rows, at)
        ends[str(first), str(second)] = _flat(at)
    case = "3 rows, 2 epochs of batches of 2"
    runs, again = ([_flat(run(seed)) for seed in range(20)] for _ in range(2))
    repeats = []
    for got in runs:
        fits = [
            first == second for (first, second), end in ends.items() if agree(got, end)
        ]
        if not fits:
            raise Miss(
                "No order of the rows leads there: each epoch takes every row once, each "
                "step goes on from where the last one ended.", case, got,
                f"one of {len(ends)} ends",
            )  # fmt: skip
        repeats.append(any(fits))
    same(f"{case}, seeds 0 to 19: do they end alike when run again?", agree(runs, again),
         True, "The order must come from default_rng(seed) alone.")  # fmt: skip
    same(f"{case}: do seeds 0 to 19 all end alike?", all(agree(r, runs[0]) for r in runs),
         False, "All seeds give the same weights: the batches ignore the seed.")  # fmt: skip
    same(f"{case}: does the second epoch always repeat the first?", all(repeats), False,
         "Every epoch goes through the same batches: make the generator once, before both "
         "loops, and draw new batches in every epoch.")  # fmt: skip


def _flat(parts):
    return np.hstack([np.ravel(part) for part in parts])


@chapter.exercise(
    "Two loops: over the epochs, and in each over minibatches(N, size, rng).",
    "A batch is X_ND[rows], y_N[rows]; gradient_step does the rest.",
    "Start at w = zeros(D), b = 0. One generator for the whole run: default_rng(seed).",
    seconds=8,
)
def sgd(answer):
    "Descent by minibatches."
    ones = np.ones((10, 1)), np.ones(10)
    w, b = _pair(answer(*ones, lr=0.1, epochs=0, size=4, seed=0))
    same("10 equal rows, 0 epochs: w", w, [0.0], "Start at w = zeros, not at random.")
    same("10 equal rows, 0 epochs: b", b, 0.0, "Start at b = 0.")
    case = "10 rows x = 1, y = 1, 5 epochs of batches of 4, lr = 0.1"
    w, b = _pair(answer(*ones, lr=0.1, epochs=5, size=4, seed=0))
    rule = "Count your steps: 5 epochs of 3 batches (4, 4 and 2 rows) are 15."
    moved = 0.5 * (1 - 0.6**15)  # each step leaves 0.6 of the error, w and b share
    same(f"{case}: w", w, [moved], rule)
    same(f"{case}: b", b, moved, rule)
    X, y, _, _ = _random(3, 2)

    def step(rows, at):
        w, b = at
        error = X[rows] @ w + b - y[rows]
        return w - 0.2 * X[rows].T @ error / len(rows), b - 0.2 * error.mean()

    two_epochs(
        lambda seed: _pair(answer(X, y, lr=0.1, epochs=2, size=2, seed=seed)),
        step,
        (np.zeros(2), 0.0),
    )
    X, _, w, b = _random(48, 3)
    got = _pair(answer(X, X @ w + b, lr=0.1, epochs=60, size=16, seed=0))
    same("48 rows of y = X w + b without noise, 60 epochs of batches of 16: w, then b", _flat(got),
         _flat((w, b)), "It should have found the line by now.", atol=1e-3)  # fmt: skip


@chapter.exercise(
    "log2 counts doublings: the slope is the number of doublings in one year.",
    "So a doubling takes 1 / slope years.",
    "doubling_months = 12 / slope",
    kind="value",
)
def doubling_months(answer):
    "How many months a doubling takes, from the slope of log2(peak) against the year."
    slope = growth_slope()
    same(f"a slope of {slope:.4g} doublings per year", answer, 12 / slope,
         "A doubling takes 1 / slope years, and a year has 12 months: one number, not "
         "rounded.", rtol=1e-4)  # fmt: skip


def growth_slope():
    "Least-squares slope of log2(fp32 TFLOP/s) against the year over all chips with both."
    from utils.data import accelerators

    chips = [c for c in accelerators() if c["fp32_tflops"]]
    years = [c["year"] for c in chips]
    return np.polyfit(years, np.log2([c["fp32_tflops"] for c in chips]), 1)[0]
