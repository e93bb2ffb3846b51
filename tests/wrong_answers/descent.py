import numpy as np

from tests.wrong_answers import WrongAnswers
from utils.checks.descent import growth_slope

wrong = WrongAnswers("descent")


# ---- predict ----


@wrong("predict", says="Where is b?")
def no_bias(X, w, b):
    return X @ w


@wrong("predict", says="`*` keeps the features apart")
def element_wise(X, w, b):
    return X * w + b


@wrong("predict", says="add b, once")
def bias_times(X, w, b):
    return X @ w * b


@wrong("predict", says="plus b")
def sum_without_weights(X, w, b):
    return X.sum(1) + b


@wrong("predict", says="is a `return` missing?")
def prints(X, w, b):
    print(X @ w + b)


# ---- mse ----


@wrong("mse", says="divide by the number of rows")
def sum_of_squares(y_hat, y):
    return ((y_hat - y) ** 2).sum()


@wrong("mse", says="square each difference")
def absolute(y_hat, y):
    return np.abs(y_hat - y).mean()


@wrong("mse", says="square first, then average")
def square_of_mean(y_hat, y):
    return (y_hat - y).mean() ** 2


@wrong("mse", says="Half of it")
def half(y_hat, y):
    return ((y_hat - y) ** 2).mean() / 2


@wrong("mse", says="the root")
def root(y_hat, y):
    return np.sqrt(((y_hat - y) ** 2).mean())


@wrong("mse", says="changes its input in place")
def in_place(y_hat, y):
    y_hat -= y
    return (y_hat**2).mean()


# ---- numeric_gradient ----


def _nudge(f, at, h, up=1.0, down=1.0, over=None):
    slope = np.zeros(len(at))
    for i in range(len(at)):
        step = np.zeros(len(at))
        step[i] = h
        slope[i] = (f(at + up * step) - f(at - down * step)) / (over or (up + down) * h)
    return slope


@wrong("numeric_gradient", says="one side only")
def forward_only(f, at, h=1e-4):
    return _nudge(f, at, h, down=0.0)


@wrong("numeric_gradient", says="divide by 2h")
def over_h(f, at, h=1e-4):
    return _nudge(f, at, h, over=h)


@wrong("numeric_gradient", says="sign is turned")
def turned(f, at, h=1e-4):
    return -_nudge(f, at, h)


@wrong("numeric_gradient", says="not yet divided")
def not_divided(f, at, h=1e-4):
    return _nudge(f, at, h, over=1.0)


@wrong("numeric_gradient", says="all coordinates at once")
def all_at_once(f, at, h=1e-4):
    return np.full(len(at), (f(at + h) - f(at - h)) / (2 * h))


@wrong("numeric_gradient", says="whole numbers cuts")
def whole_numbers(f, at, h=1e-4):
    slope = np.zeros(len(at))
    for i in range(len(at)):
        up, down = at.copy(), at.copy()
        up[i] += h if at.dtype.kind == "f" else int(h)
        down[i] -= h if at.dtype.kind == "f" else int(h)
        slope[i] = (f(up) - f(down)) / (2 * h)
    return slope


@wrong("numeric_gradient", says="changes its input in place")
def moves_the_point(f, at, h=1e-4):
    slope = np.zeros(len(at))
    for i in range(len(at)):
        at[i] += h
        above = f(at)
        at[i] -= 2 * h
        slope[i] = (above - f(at)) / (2 * h)
    return slope


# ---- mse_gradient ----


def _slopes(X, y, w, b):
    error = X @ w + b - y
    return 2 * X.T @ error / len(y), 2 * error.mean()


@wrong("mse_gradient", says="brings a 2")
def no_two(X, y, w, b):
    w_slope, b_slope = _slopes(X, y, w, b)
    return w_slope / 2, b_slope / 2


@wrong("mse_gradient", says="divide by N")
def no_mean(X, y, w, b):
    w_slope, b_slope = _slopes(X, y, w, b)
    return w_slope * len(y), b_slope * len(y)


@wrong("mse_gradient", says="prediction minus truth")
def truth_minus_prediction(X, y, w, b):
    w_slope, b_slope = _slopes(X, y, w, b)
    return -w_slope, -b_slope


@wrong("mse_gradient", says="inputs are missing")
def without_inputs(X, y, w, b):
    b_slope = _slopes(X, y, w, b)[1]
    return np.full(X.shape[1], b_slope), b_slope


@wrong("mse_gradient", says="one for w and one for b")
def only_w(X, y, w, b):
    return _slopes(X, y, w, b)[0]


@wrong("mse_gradient", says="b is one number")
def b_per_row(X, y, w, b):
    return _slopes(X, y, w, b)[0], 2 * (X @ w + b - y)


@wrong("mse_gradient", says="rows times features")
def over_all_numbers(X, y, w, b):
    w_slope, b_slope = _slopes(X, y, w, b)
    return w_slope / X.shape[1], b_slope


@wrong("mse_gradient", says="b is missing in the prediction")
def without_b(X, y, w, b):
    return _slopes(X, y, w, 0.0)


# ---- gradient_step ----


@wrong("gradient_step", says="Uphill")
def uphill(X, y, w, b, lr):
    w_slope, b_slope = _slopes(X, y, w, b)
    return w + lr * w_slope, b + lr * b_slope


@wrong("gradient_step", says="learning rate is missing")
def no_rate(X, y, w, b, lr):
    w_slope, b_slope = _slopes(X, y, w, b)
    return w - w_slope, b - b_slope


@wrong("gradient_step", says="after w had moved")
def w_first(X, y, w, b, lr):
    w = w - lr * _slopes(X, y, w, b)[0]
    return w, b - lr * _slopes(X, y, w, b)[1]


@wrong("gradient_step", says="b has not moved")
def forgets_b(X, y, w, b, lr):
    return w - lr * _slopes(X, y, w, b)[0], b


@wrong("gradient_step", says="take it from the old w")
def step_alone(X, y, w, b, lr):
    w_slope, b_slope = _slopes(X, y, w, b)
    return -lr * w_slope, -lr * b_slope


@wrong("gradient_step", says="changes its input in place")
def in_place_step(X, y, w, b, lr):
    w_slope, b_slope = _slopes(X, y, w, b)
    w -= lr * w_slope
    return w, b - lr * b_slope


@wrong("gradient_step", says="`lr` is an argument")
def fixed_rate(X, y, w, b, lr):
    w_slope, b_slope = _slopes(X, y, w, b)
    return w - 0.1 * w_slope, b - 0.1 * b_slope


# ---- stable_rate ----


def _curvature(X, ones=True):
    A = np.c_[X, np.ones(len(X))] if ones else X
    return np.linalg.eigvalsh(2 * A.T @ A / len(X))


@wrong("stable_rate", says="only past 2 / curvature")
def one_over(X):
    return 1 / _curvature(X).max()


@wrong("stable_rate", says="smallest curvature sets the pace")
def smallest(X):
    return 2 / _curvature(X).min()


@wrong("stable_rate", says="column of ones")
def without_ones(X):
    return 2 / _curvature(X, ones=False).max()


@wrong("stable_rate", says="divided by N")
def without_mean(X):
    return 2 / (_curvature(X).max() * len(X))


@wrong("stable_rate", says="has a 2 from the square")
def without_two(X):
    return 4 / _curvature(X).max()


@wrong("stable_rate", says="Upside down")
def upside_down(X):
    return _curvature(X).max() / 2


@wrong("stable_rate", says="2 / N is missing")
def without_two_and_mean(X):
    return 2 / (_curvature(X).max() * len(X) / 2)


# ---- standardise ----


@wrong("standardise", says="each column needs its own")
def one_mean(X):
    return (X - X.mean()) / X.std(), X.mean(), X.std()


@wrong("standardise", says="mean is not subtracted")
def only_divides(X):
    return X / X.std(0), X.mean(0), X.std(0)


@wrong("standardise", says="take its root")
def by_variance(X):
    return (X - X.mean(0)) / X.var(0), X.mean(0), X.var(0)


@wrong("standardise", says="0 / 0 is nan")
def constant_column(X):
    return (X - X.mean(0)) / X.std(0), X.mean(0), X.std(0)


@wrong("standardise", says="maps to [0, 1]")
def min_max(X):
    return (X - X.min(0)) / np.ptp(X, axis=0), X.min(0), np.ptp(X, axis=0)


@wrong("standardise", says="(Z, mean, std)")
def only_z(X):
    return (X - X.mean(0)) / X.std(0)


@wrong("standardise", says="A bracket is missing")
def no_bracket(X):
    return X - X.mean(0) / X.std(0), X.mean(0), X.std(0)


# ---- minibatches ----


@wrong("minibatches", says="not shuffled")
def in_order(N, size, rng):
    return [np.arange(N)[i : i + size] for i in range(0, N, size)]


@wrong("minibatches", says="last 2 rows are dropped")
def drops_the_rest(N, size, rng):
    order = rng.permutation(N)
    return [order[i : i + size] for i in range(0, N - size + 1, size)]


@wrong("minibatches", says="do not draw with replacement")
def with_replacement(N, size, rng):
    order = rng.integers(0, N, N)
    return [order[i : i + size] for i in range(0, N, size)]


@wrong("minibatches", says="same order")
def same_every_epoch(N, size, rng):
    order = np.random.default_rng(0).permutation(N)
    return [order[i : i + size] for i in range(0, N, size)]


@wrong("minibatches", says="no run can be repeated")
def own_randomness(N, size, rng):
    order = np.random.default_rng().permutation(N)
    return [order[i : i + size] for i in range(0, N, size)]


@wrong("minibatches", says="Cut pieces of `size`")
def that_many_pieces(N, size, rng):
    return np.array_split(rng.permutation(N), size)


@wrong("minibatches", says="No batch came out")
def nothing(N, size, rng):
    return []


@wrong("minibatches", says="last batch is empty")
def empty_end(N, size, rng):
    order = rng.permutation(N)
    return [order[i : i + size] for i in range(0, N + 1, size)]


@wrong("minibatches", says="only inside their own batch")
def inside_blocks(N, size, rng):
    return [rng.permutation(np.arange(N)[i : i + size]) for i in range(0, N, size)]


@wrong("minibatches", says="A rotation is no shuffle")
def rotation(N, size, rng):
    order = (np.arange(N) + rng.integers(1, N)) % N
    return [order[i : i + size] for i in range(0, N, size)]


@wrong("minibatches", says="only the batches change their order")
def blocks_only(N, size, rng):
    full = range(0, N - N % size, size)
    blocks = [np.arange(N)[i : i + size] for i in rng.permutation(full)]
    if list(np.hstack(blocks)) == list(range(N - N % size)):
        blocks = blocks[::-1]  # by luck in order
    return blocks + ([np.arange(N)[N - N % size :]] if N % size else [])


@wrong("minibatches", says="Shuffle the rows, not the batches")
def all_blocks(N, size, rng):
    blocks = [np.arange(N)[i : i + size] for i in range(0, N, size)]
    return [blocks[i] for i in rng.permutation(len(blocks))]


@wrong("minibatches", says="from 0 to N - 1")
def from_one(N, size, rng):
    order = rng.permutation(N) + 1
    return [order[i : i + size] for i in range(0, N, size)]


# ---- sgd ----


def _sgd(X, y, lr, epochs, size, seed, keep=True, shuffle=True, steps=None):
    rng, w, b = np.random.default_rng(seed), np.zeros(X.shape[1]), 0.0
    for _ in range(epochs):
        order = rng.permutation(len(y)) if shuffle else np.arange(len(y))
        for i in range(0, len(y), size)[:steps]:
            rows = order[i : i + size]
            w_slope, b_slope = _slopes(X[rows], y[rows], w, b)
            if keep:
                w, b = w - lr * w_slope, b - lr * b_slope
    return w, b


@wrong("sgd", says="hardly moved")
def forgets_the_step(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr, epochs, size, seed, keep=False)


@wrong("sgd", says="the batches ignore the seed")
def never_shuffles(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr, epochs, size, seed, shuffle=False)


@wrong("sgd", says="does every epoch visit every batch")
def one_batch_an_epoch(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr, epochs, size, seed, steps=1)


@wrong("sgd", says="default_rng(seed) alone")
def unseeded(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr, epochs, size, None)


@wrong("sgd", says="makes one step")
def one_step_a_row(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr, epochs, 1, seed)


@wrong("sgd", says="one for w and one for b")
def only_weights(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr, epochs, size, seed)[0]


@wrong("sgd", says="still running")
def never_ends(X, y, lr, epochs, size, seed):
    while True:
        try:
            _slopes(X, y, X[0], 0.0)
        except:
            pass


@wrong("sgd", says="make the generator once")
def batches_drawn_once(X, y, lr, epochs, size, seed):
    order, w, b = (
        np.random.default_rng(seed).permutation(len(y)),
        np.zeros(X.shape[1]),
        0,
    )
    for _ in range(epochs):
        for i in range(0, len(y), size):
            rows = order[i : i + size]
            w_slope, b_slope = _slopes(X[rows], y[rows], w, b)
            w, b = w - lr * w_slope, b - lr * b_slope
    return w, b


@wrong("sgd", says="make the generator once")
def generator_an_epoch(X, y, lr, epochs, size, seed):
    w, b = np.zeros(X.shape[1]), 0.0
    for _ in range(epochs):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(y))
        for i in range(0, len(y), size):
            rows = order[i : i + size]
            w_slope, b_slope = _slopes(X[rows], y[rows], w, b)
            w, b = w - lr * w_slope, b - lr * b_slope
    return w, b


@wrong("sgd", says="looks at all rows")
def all_rows(X, y, lr, epochs, size, seed):
    w, b = np.zeros(X.shape[1]), 0.0
    for _ in range(epochs * -(-len(y) // size)):
        w_slope, b_slope = _slopes(X, y, w, b)
        w, b = w - lr * w_slope, b - lr * b_slope
    return w, b


@wrong("sgd", says="not at random")
def random_start(X, y, lr, epochs, size, seed):
    w, b = _sgd(X, y, lr, epochs, size, seed)
    return w + np.random.default_rng(seed).normal(size=X.shape[1]), b


@wrong("sgd", says="divided by the size of the batch")
def rate_over_size(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr / size, epochs, size, seed)


@wrong("sgd", says="although epochs = 0")
def one_epoch(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr, 1, size, seed)


@wrong("sgd", says="b is not handed on")
def forgets_b_between(X, y, lr, epochs, size, seed):
    rng, w, b = np.random.default_rng(seed), np.zeros(X.shape[1]), 0.0
    for _ in range(epochs):
        order = rng.permutation(len(y))
        for i in range(0, len(y), size):
            rows = order[i : i + size]
            w_slope, b_slope = _slopes(X[rows], y[rows], w, 0.0)
            w, b = w - lr * w_slope, -lr * b_slope
    return w, b


# ---- doubling_months ----

wrong.value("doubling_months", 1 / growth_slope(), says="These are years")
wrong.value("doubling_months", 12 * growth_slope(), says="Turned over")
wrong.value("doubling_months", growth_slope() / 12, says="doublings in a month")
wrong.value("doubling_months", 12 * np.log(2) / growth_slope(), says="not a factor e")
wrong.value("doubling_months", "18 months", says="values differ")
wrong.value("doubling_months", growth_slope, says="call it?")
wrong.value("doubling_months", round(12 / growth_slope()), says="Do not round")
