import numpy as np

from utils.checks import descent as ex
from utils.checks.descent import growth_slope

SAID = {
    "predict/no_bias": "Where is b? Every row gets it.",
    "predict/element_wise": "You multiplied without adding up: `*` keeps the features apart, `@` sums over them.",
    "predict/bias_times": "It is b times each row: add b, once.",
    "predict/sum_without_weights": "Each row: input times weight, summed over the features, plus b.",
    "predict/prints": None,
    "mse/sum_of_squares": "This is the sum of the squares: divide by the number of rows.",
    "mse/absolute": "This is the mean distance: square each difference first.",
    "mse/square_of_mean": "This is the square of the mean: square first, then average.",
    "mse/half": "Half of it: the 1/2 of some books is not in this chapter's formula.",
    "mse/root": "This is the root of it: leave the square.",
    "mse/in_place": None,
    "numeric_gradient/forward_only": "You look to one side only: the error shrinks with h; with both sides it shrinks with h squared.",
    "numeric_gradient/over_h": "The two points lie 2h apart, so divide by 2h.",
    "numeric_gradient/turned": "The sign is turned: up minus down.",
    "numeric_gradient/not_divided": "This is the difference, not yet divided by the distance 2h.",
    "numeric_gradient/all_at_once": "You moved all coordinates at once: move one, keep the others.",
    "numeric_gradient/whole_numbers": "An array of whole numbers cuts 1e-4 to 0: make the step an array of floats.",
    "numeric_gradient/moves_the_point": None,
    "mse_gradient/no_two": "Half of it: the square's derivative brings a 2.",
    "mse_gradient/no_mean": "This is the sum over the rows: the loss is a mean, divide by N.",
    "mse_gradient/truth_minus_prediction": "The sign is turned: the error is prediction minus truth.",
    "mse_gradient/without_inputs": "The inputs are missing: a weight counts as much as its input.",
    "mse_gradient/only_w": "It should return two things, one for w and one for b.",
    "mse_gradient/b_per_row": "One slope a row: b is one number, it has one slope. Take the mean.",
    "mse_gradient/over_all_numbers": "It is divided by rows times features: the mean is over the rows.",
    "mse_gradient/without_b": "b is missing in the prediction.",
    "gradient_step/uphill": "Uphill: subtract the slope.",
    "gradient_step/no_rate": "The learning rate is missing.",
    "gradient_step/w_first": "b's slope was taken after w had moved: both belong to the same point.",
    "gradient_step/forgets_b": "b has not moved.",
    "gradient_step/step_alone": "This is the step alone: take it from the old w.",
    "gradient_step/in_place_step": None,
    "gradient_step/fixed_rate": "`lr` is an argument: your step has the same length whatever it is.",
    "stable_rate/one_over": "1 / curvature lands at the bottom in one step; it diverges only past 2 / curvature.",
    "stable_rate/smallest": "The smallest curvature sets the pace; the largest sets the bound.",
    "stable_rate/without_ones": "The column of ones for b is missing: b is a coordinate too.",
    "stable_rate/without_mean": "The curvature of a mean is divided by N.",
    "stable_rate/without_two": "The curvature has a 2 from the square: 2 A.T @ A / N.",
    "stable_rate/upside_down": "Upside down: a large curvature allows only a small step.",
    "stable_rate/without_two_and_mean": "The curvatures are the eigenvalues of 2 A.T @ A / N: 2 / N is missing.",
    "standardise/one_mean": "One mean for everything: each column needs its own (axis=0).",
    "standardise/only_divides": "The mean is not subtracted.",
    "standardise/by_variance": "Divided by the variance: take its root, the standard deviation.",
    "standardise/constant_column": "It holds nan or inf. Its deviation is 0, and 0 / 0 is nan: divide a constant column by 1.",
    "standardise/min_max": "This maps to [0, 1]: here we want mean 0 and deviation 1.",
    "standardise/only_z": "It should return (Z, mean, std).",
    "standardise/no_bracket": "A bracket is missing: X - mean / std divides the mean alone.",
    "minibatches/in_order": "The rows are not shuffled.",
    "minibatches/drops_the_rest": "The last 2 rows are dropped: a smaller last batch is fine.",
    "minibatches/with_replacement": "Each row comes once an epoch: shuffle, do not draw with replacement.",
    "minibatches/same_every_epoch": "Two epochs have the same order: shuffle anew with `rng` each time.",
    "minibatches/own_randomness": "Shuffle with the `rng` you are given, or no run can be repeated.",
    "minibatches/that_many_pieces": "The shape is (4,), expected (3,). Cut pieces of `size`.",
    "minibatches/nothing": "No batch came out: does it `yield` or return a list?",
    "minibatches/empty_end": "The last batch is empty: stop before N when `size` divides it.",
    "minibatches/inside_blocks": "Rows move only inside their own batch: shuffle all of them, then cut.",
    "minibatches/rotation": "The order is not random: some rows never follow each other. A rotation is no shuffle; rng.permutation is one.",
    "minibatches/blocks_only": "The same rows always share a batch, only the batches change their order: shuffle the rows, then cut.",
    "minibatches/all_blocks": "Shuffle the rows, not the batches: then the small one comes last.",
    "minibatches/from_one": "The rows are numbered from 0 to N - 1.",
    "sgd/forgets_the_step": "The loss has hardly moved: is the step's result kept?",
    "sgd/never_shuffles": "Seeds 1 and 2 give the same weights: the batches ignore the seed.",
    "sgd/one_batch_an_epoch": "One step an epoch: does every epoch visit every batch?",
    "sgd/unseeded": "The order must come from default_rng(seed) alone.",
    "sgd/one_step_a_row": "One step a row: a batch of 16 makes one step. Count your steps.",
    "sgd/only_weights": "It should return two things, one for w and one for b.",
    "sgd/never_ends": None,
    "sgd/batches_drawn_once": "Every epoch goes through the same batches: make the generator once, before both loops, and draw new batches in every epoch.",
    "sgd/generator_an_epoch": "Every epoch goes through the same batches: make the generator once, before both loops, and draw new batches in every epoch.",
    "sgd/all_rows": "Every step looks at all rows: hand it X_ND[rows] and y_N[rows].",
    "sgd/random_start": "Start at w = zeros, not at random.",
    "sgd/rate_over_size": "lr is divided by the size of the batch: gradient_step takes the mean already.",
    "sgd/one_epoch": "It trains although epochs = 0: is the loop over range(epochs)?",
    "sgd/forgets_b_between": "b is not handed on: each step starts from the last step's w and b.",
    "doubling_months/np.float64(1.742621221143832)": "These are years: a year has 12 months.",
    "doubling_months/np.float64(6.886178048562595)": "Turned over: slope is doublings a year, you want months a doubling.",
    "doubling_months/np.float64(0.04782068089279579)": "These are doublings in a month.",
    "doubling_months/np.float64(14.494715834637313)": "A doubling, not a factor e: the slope is already in powers of 2.",
    "doubling_months/'18 months'": "The values differ.",
    "doubling_months/<function growth_slope at 0x7f3cd276b100>": "doubling_months should be a value; it is a function: call it?",
    "doubling_months/21": "Do not round: the print below does that.",
}


class _Made:
    "Slips made in a loop, or plain values."

    def add(self, exercise, name, answer, says=None):
        ex.chapter.exercises[exercise].slip(SAID.get(f"{exercise}/{name}") or "")(
            answer
        )

    def value(self, exercise, answer, says=None):
        self.add(exercise, repr(answer), answer, says)

    def __call__(self, exercise, says=None):
        return lambda made: self.add(exercise, made.__name__, made, says)


wrong = _Made()


# ---- predict ----


@ex.predict.slip("Where is b? Every row gets it.")
def no_bias(X, w, b):
    return X @ w


@ex.predict.slip(
    "You multiplied without adding up: `*` keeps the features apart, `@` sums over them."
)
def element_wise(X, w, b):
    return X * w + b


@ex.predict.slip("It is b times each row: add b, once.")
def bias_times(X, w, b):
    return X @ w * b


@ex.predict.slip("Each row: input times weight, summed over the features, plus b.")
def sum_without_weights(X, w, b):
    return X.sum(1) + b


@ex.predict.slip(told="is a `return` missing?")
def prints(X, w, b):
    print(X @ w + b)


# ---- mse ----


@ex.mse.slip("This is the sum of the squares: divide by the number of rows.")
def sum_of_squares(y_hat, y):
    return ((y_hat - y) ** 2).sum()


@ex.mse.slip("This is the mean distance: square each difference first.")
def absolute(y_hat, y):
    return np.abs(y_hat - y).mean()


@ex.mse.slip("This is the square of the mean: square first, then average.")
def square_of_mean(y_hat, y):
    return (y_hat - y).mean() ** 2


@ex.mse.slip("Half of it: the 1/2 of some books is not in this chapter's formula.")
def half(y_hat, y):
    return ((y_hat - y) ** 2).mean() / 2


@ex.mse.slip("This is the root of it: leave the square.")
def root(y_hat, y):
    return np.sqrt(((y_hat - y) ** 2).mean())


@ex.mse.slip(told="changes its input in place")
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


@ex.numeric_gradient.slip(
    "You look to one side only: the error shrinks with h; with both sides it shrinks with h squared."
)
def forward_only(f, at, h=1e-4):
    return _nudge(f, at, h, down=0.0)


@ex.numeric_gradient.slip("The two points lie 2h apart, so divide by 2h.")
def over_h(f, at, h=1e-4):
    return _nudge(f, at, h, over=h)


@ex.numeric_gradient.slip("The sign is turned: up minus down.")
def turned(f, at, h=1e-4):
    return -_nudge(f, at, h)


@ex.numeric_gradient.slip("This is the difference, not yet divided by the distance 2h.")
def not_divided(f, at, h=1e-4):
    return _nudge(f, at, h, over=1.0)


@ex.numeric_gradient.slip(
    "You moved all coordinates at once: move one, keep the others."
)
def all_at_once(f, at, h=1e-4):
    return np.full(len(at), (f(at + h) - f(at - h)) / (2 * h))


@ex.numeric_gradient.slip(
    "An array of whole numbers cuts 1e-4 to 0: make the step an array of floats."
)
def whole_numbers(f, at, h=1e-4):
    slope = np.zeros(len(at))
    for i in range(len(at)):
        up, down = at.copy(), at.copy()
        up[i] += h if at.dtype.kind == "f" else int(h)
        down[i] -= h if at.dtype.kind == "f" else int(h)
        slope[i] = (f(up) - f(down)) / (2 * h)
    return slope


@ex.numeric_gradient.slip(told="changes its input in place")
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


@ex.mse_gradient.slip("Half of it: the square's derivative brings a 2.")
def no_two(X, y, w, b):
    w_slope, b_slope = _slopes(X, y, w, b)
    return w_slope / 2, b_slope / 2


@ex.mse_gradient.slip("This is the sum over the rows: the loss is a mean, divide by N.")
def no_mean(X, y, w, b):
    w_slope, b_slope = _slopes(X, y, w, b)
    return w_slope * len(y), b_slope * len(y)


@ex.mse_gradient.slip("The sign is turned: the error is prediction minus truth.")
def truth_minus_prediction(X, y, w, b):
    w_slope, b_slope = _slopes(X, y, w, b)
    return -w_slope, -b_slope


@ex.mse_gradient.slip("The inputs are missing: a weight counts as much as its input.")
def without_inputs(X, y, w, b):
    b_slope = _slopes(X, y, w, b)[1]
    return np.full(X.shape[1], b_slope), b_slope


@ex.mse_gradient.slip("It should return two things, one for w and one for b.")
def only_w(X, y, w, b):
    return _slopes(X, y, w, b)[0]


@ex.mse_gradient.slip(
    "One slope a row: b is one number, it has one slope. Take the mean."
)
def b_per_row(X, y, w, b):
    return _slopes(X, y, w, b)[0], 2 * (X @ w + b - y)


@ex.mse_gradient.slip(
    "It is divided by rows times features: the mean is over the rows."
)
def over_all_numbers(X, y, w, b):
    w_slope, b_slope = _slopes(X, y, w, b)
    return w_slope / X.shape[1], b_slope


@ex.mse_gradient.slip("b is missing in the prediction.")
def without_b(X, y, w, b):
    return _slopes(X, y, w, 0.0)


# ---- gradient_step ----


@ex.gradient_step.slip("Uphill: subtract the slope.")
def uphill(X, y, w, b, lr):
    w_slope, b_slope = _slopes(X, y, w, b)
    return w + lr * w_slope, b + lr * b_slope


@ex.gradient_step.slip("The learning rate is missing.")
def no_rate(X, y, w, b, lr):
    w_slope, b_slope = _slopes(X, y, w, b)
    return w - w_slope, b - b_slope


@ex.gradient_step.slip(
    "b's slope was taken after w had moved: both belong to the same point."
)
def w_first(X, y, w, b, lr):
    w = w - lr * _slopes(X, y, w, b)[0]
    return w, b - lr * _slopes(X, y, w, b)[1]


@ex.gradient_step.slip("b has not moved.")
def forgets_b(X, y, w, b, lr):
    return w - lr * _slopes(X, y, w, b)[0], b


@ex.gradient_step.slip("This is the step alone: take it from the old w.")
def step_alone(X, y, w, b, lr):
    w_slope, b_slope = _slopes(X, y, w, b)
    return -lr * w_slope, -lr * b_slope


@ex.gradient_step.slip(told="changes its input in place")
def in_place_step(X, y, w, b, lr):
    w_slope, b_slope = _slopes(X, y, w, b)
    w -= lr * w_slope
    return w, b - lr * b_slope


@ex.gradient_step.slip(
    "`lr` is an argument: your step has the same length whatever it is."
)
def fixed_rate(X, y, w, b, lr):
    w_slope, b_slope = _slopes(X, y, w, b)
    return w - 0.1 * w_slope, b - 0.1 * b_slope


# ---- stable_rate ----


def _curvature(X, ones=True):
    A = np.c_[X, np.ones(len(X))] if ones else X
    return np.linalg.eigvalsh(2 * A.T @ A / len(X))


@ex.stable_rate.slip(
    "1 / curvature lands at the bottom in one step; it diverges only past 2 / curvature."
)
def one_over(X):
    return 1 / _curvature(X).max()


@ex.stable_rate.slip(
    "The smallest curvature sets the pace; the largest sets the bound."
)
def smallest(X):
    return 2 / _curvature(X).min()


@ex.stable_rate.slip("The column of ones for b is missing: b is a coordinate too.")
def without_ones(X):
    return 2 / _curvature(X, ones=False).max()


@ex.stable_rate.slip("The curvature of a mean is divided by N.")
def without_mean(X):
    return 2 / (_curvature(X).max() * len(X))


@ex.stable_rate.slip("The curvature has a 2 from the square: 2 A.T @ A / N.")
def without_two(X):
    return 4 / _curvature(X).max()


@ex.stable_rate.slip("Upside down: a large curvature allows only a small step.")
def upside_down(X):
    return _curvature(X).max() / 2


@ex.stable_rate.slip(
    "The curvatures are the eigenvalues of 2 A.T @ A / N: 2 / N is missing."
)
def without_two_and_mean(X):
    return 2 / (_curvature(X).max() * len(X) / 2)


# ---- standardise ----


@ex.standardise.slip("One mean for everything: each column needs its own (axis=0).")
def one_mean(X):
    return (X - X.mean()) / X.std(), X.mean(), X.std()


@ex.standardise.slip("The mean is not subtracted.")
def only_divides(X):
    return X / X.std(0), X.mean(0), X.std(0)


@ex.standardise.slip("Divided by the variance: take its root, the standard deviation.")
def by_variance(X):
    return (X - X.mean(0)) / X.var(0), X.mean(0), X.var(0)


@ex.standardise.slip(
    "It holds nan or inf. Its deviation is 0, and 0 / 0 is nan: divide a constant column by 1."
)
def constant_column(X):
    return (X - X.mean(0)) / X.std(0), X.mean(0), X.std(0)


@ex.standardise.slip("This maps to [0, 1]: here we want mean 0 and deviation 1.")
def min_max(X):
    return (X - X.min(0)) / np.ptp(X, axis=0), X.min(0), np.ptp(X, axis=0)


@ex.standardise.slip("It should return (Z, mean, std).")
def only_z(X):
    return (X - X.mean(0)) / X.std(0)


@ex.standardise.slip("A bracket is missing: X - mean / std divides the mean alone.")
def no_bracket(X):
    return X - X.mean(0) / X.std(0), X.mean(0), X.std(0)


# ---- minibatches ----


@ex.minibatches.slip("The rows are not shuffled.")
def in_order(N, size, rng):
    return [np.arange(N)[i : i + size] for i in range(0, N, size)]


@ex.minibatches.slip("The last 2 rows are dropped: a smaller last batch is fine.")
def drops_the_rest(N, size, rng):
    order = rng.permutation(N)
    return [order[i : i + size] for i in range(0, N - size + 1, size)]


@ex.minibatches.slip(
    "Each row comes once an epoch: shuffle, do not draw with replacement."
)
def with_replacement(N, size, rng):
    order = rng.integers(0, N, N)
    return [order[i : i + size] for i in range(0, N, size)]


@ex.minibatches.slip(
    "Two epochs have the same order: shuffle anew with `rng` each time."
)
def same_every_epoch(N, size, rng):
    order = np.random.default_rng(0).permutation(N)
    return [order[i : i + size] for i in range(0, N, size)]


@ex.minibatches.slip("Shuffle with the `rng` you are given, or no run can be repeated.")
def own_randomness(N, size, rng):
    order = np.random.default_rng().permutation(N)
    return [order[i : i + size] for i in range(0, N, size)]


@ex.minibatches.slip("The shape is (4,), expected (3,). Cut pieces of `size`.")
def that_many_pieces(N, size, rng):
    return np.array_split(rng.permutation(N), size)


@ex.minibatches.slip("No batch came out: does it `yield` or return a list?")
def nothing(N, size, rng):
    return []


@ex.minibatches.slip("The last batch is empty: stop before N when `size` divides it.")
def empty_end(N, size, rng):
    order = rng.permutation(N)
    return [order[i : i + size] for i in range(0, N + 1, size)]


@ex.minibatches.slip(
    "Rows move only inside their own batch: shuffle all of them, then cut."
)
def inside_blocks(N, size, rng):
    return [rng.permutation(np.arange(N)[i : i + size]) for i in range(0, N, size)]


@ex.minibatches.slip(
    "The order is not random: some rows never follow each other. A rotation is no shuffle; rng.permutation is one."
)
def rotation(N, size, rng):
    order = (np.arange(N) + rng.integers(1, N)) % N
    return [order[i : i + size] for i in range(0, N, size)]


@ex.minibatches.slip(
    "The same rows always share a batch, only the batches change their order: shuffle the rows, then cut."
)
def blocks_only(N, size, rng):
    full = range(0, N - N % size, size)
    blocks = [np.arange(N)[i : i + size] for i in rng.permutation(full)]
    if list(np.hstack(blocks)) == list(range(N - N % size)):
        blocks = blocks[::-1]  # by luck in order
    return blocks + ([np.arange(N)[N - N % size :]] if N % size else [])


@ex.minibatches.slip(
    "Shuffle the rows, not the batches: then the small one comes last."
)
def all_blocks(N, size, rng):
    blocks = [np.arange(N)[i : i + size] for i in range(0, N, size)]
    return [blocks[i] for i in rng.permutation(len(blocks))]


@ex.minibatches.slip("The rows are numbered from 0 to N - 1.")
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


@ex.sgd.slip("The loss has hardly moved: is the step's result kept?")
def forgets_the_step(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr, epochs, size, seed, keep=False)


@ex.sgd.slip("Seeds 1 and 2 give the same weights: the batches ignore the seed.")
def never_shuffles(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr, epochs, size, seed, shuffle=False)


@ex.sgd.slip("One step an epoch: does every epoch visit every batch?")
def one_batch_an_epoch(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr, epochs, size, seed, steps=1)


@ex.sgd.slip("The order must come from default_rng(seed) alone.")
def unseeded(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr, epochs, size, None)


@ex.sgd.slip("One step a row: a batch of 16 makes one step. Count your steps.")
def one_step_a_row(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr, epochs, 1, seed)


@ex.sgd.slip("It should return two things, one for w and one for b.")
def only_weights(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr, epochs, size, seed)[0]


@ex.sgd.slip(told="still running")
def never_ends(X, y, lr, epochs, size, seed):
    while True:
        try:
            _slopes(X, y, X[0], 0.0)
        except:
            pass


@ex.sgd.slip(
    "Every epoch goes through the same batches: make the generator once, before both loops, and draw new batches in every epoch."
)
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


@ex.sgd.slip(
    "Every epoch goes through the same batches: make the generator once, before both loops, and draw new batches in every epoch."
)
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


@ex.sgd.slip("Every step looks at all rows: hand it X_ND[rows] and y_N[rows].")
def all_rows(X, y, lr, epochs, size, seed):
    w, b = np.zeros(X.shape[1]), 0.0
    for _ in range(epochs * -(-len(y) // size)):
        w_slope, b_slope = _slopes(X, y, w, b)
        w, b = w - lr * w_slope, b - lr * b_slope
    return w, b


@ex.sgd.slip("Start at w = zeros, not at random.")
def random_start(X, y, lr, epochs, size, seed):
    w, b = _sgd(X, y, lr, epochs, size, seed)
    return w + np.random.default_rng(seed).normal(size=X.shape[1]), b


@ex.sgd.slip(
    "lr is divided by the size of the batch: gradient_step takes the mean already."
)
def rate_over_size(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr / size, epochs, size, seed)


@ex.sgd.slip("It trains although epochs = 0: is the loop over range(epochs)?")
def one_epoch(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr, 1, size, seed)


@ex.sgd.slip("b is not handed on: each step starts from the last step's w and b.")
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
