import numpy as np

from utils.checks import descent as ex
from utils.checks.descent import growth_slope

# ---- predict ----


@ex.predict.slip("Where is b? Every row gets it.")
def no_bias(X, w, b):
    return X @ w


@ex.predict.slip(
    "You multiplied without adding up: `*` keeps the features apart, `@` sums over them."
)
def element_wise(X, w, b):
    return X * w + b


@ex.predict.slip("You multiplied each row by b: add b, once.")
def bias_times(X, w, b):
    return X @ w * b


@ex.predict.slip(
    "The weights are missing: multiply each input by its weight, then sum."
)
def sum_without_weights(X, w, b):
    return X.sum(1) + b


@ex.predict.slip(told="is a `return` missing?")
def prints(X, w, b):
    print(X @ w + b)


@ex.predict.slip("b was added to every product: it counts once per row.")
def bias_per_feature(X, w, b):
    return (X * w + b).sum(1)


@ex.predict.slip("This is the mean over the features: add the products up.")
def mean_of_products(X, w, b):
    return (X * w).mean(1) + b


@ex.predict.slip("This is the first row alone: `X_ND @ w_D` does all rows at once.")
def first_row_alone(X, w, b):
    return X[0] @ w + b


@ex.predict.slip("The order counts: rows of X meet w, X @ w.")
def weights_first(X, w, b):
    return w @ X + b


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


@ex.mse.slip("Plain differences: too high and too low cancel. Square them.")
def plain_differences(y_hat, y):
    return (y_hat - y).mean()


@ex.mse.slip(
    "This is the variance of the error: it hides an error that all rows share."
)
def variance(y_hat, y):
    return np.var(y_hat - y)


@ex.mse.slip("Divided by N - 1: the mean of N squares divides by N.")
def over_one_fewer(y_hat, y):
    return ((y_hat - y) ** 2).sum() / (len(y) - 1)


@ex.mse.slip(
    "Subtract first, then square: the difference of the squares is another thing."
)
def difference_of_squares(y_hat, y):
    return (y_hat**2 - y**2).mean()


@ex.mse.slip("Divided by 3, however many rows there are: take the mean.")
def always_three(y_hat, y):
    return ((y_hat - y) ** 2).sum() / 3


@ex.mse.slip("One square per row: take their mean.")
def a_square_per_row(y_hat, y):
    return (y_hat - y) ** 2


@ex.mse.slip("This is the largest of the squares: take their mean.")
def largest_square(y_hat, y):
    return ((y_hat - y) ** 2).max()


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
def step_of_whole_numbers(f, at, h=1e-4):
    slope = np.zeros(len(at))
    for i in range(len(at)):
        step = np.zeros_like(at)
        step[i] = h
        slope[i] = (f(at + step) - f(at - step)) / (2 * h)
    return slope


@ex.numeric_gradient.slip(
    "zeros_like(at) holds whole numbers where `at` does, and cuts each slope: np.zeros."
)
def slopes_of_whole_numbers(f, at, h=1e-4):
    slope = np.zeros_like(at)
    for i in range(len(at)):
        step = np.zeros(len(at))
        step[i] = h
        slope[i] = (f(at + step) - f(at - step)) / (2 * h)
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


@ex.numeric_gradient.slip(
    "You look to one side only: the error shrinks with h; with both sides it shrinks with h squared."
)
def backward_only(f, at, h=1e-4):
    return _nudge(f, at, h, up=0.0)


@ex.numeric_gradient.slip(
    "Coordinates that were moved stay moved: make a new step of zeros for each."
)
def never_steps_back(f, at, h=1e-4):
    slope, step = np.zeros(len(at)), np.zeros(len(at))
    for i in range(len(at)):
        step[i] = h
        slope[i] = (f(at + step) - f(at - step)) / (2 * h)
    return slope


@ex.numeric_gradient.slip("`h` is an argument: you used 1e-4 whatever it is.")
def own_h(f, at, h=1e-4):
    return _nudge(f, at, 1e-4)


@ex.numeric_gradient.slip(
    "Only the first coordinate has its slope: loop over all of them."
)
def first_coordinate(f, at, h=1e-4):
    return _nudge(f, at, h) * (np.arange(len(at)) == 0)


@ex.numeric_gradient.slip(
    "A `return` inside the loop: it ends after the first coordinate."
)
def returns_early(f, at, h=1e-4):
    return _nudge(f, at, h)[0]


@ex.numeric_gradient.slip("The distance has no sign: up minus down, without abs.")
def only_sizes(f, at, h=1e-4):
    return np.abs(_nudge(f, at, h))


@ex.numeric_gradient.slip("The step is h itself, not a share h of the coordinate.")
def share_of_the_coordinate(f, at, h=1e-4):
    slope = np.zeros(len(at))
    for i in range(len(at)):
        step = np.zeros(len(at))
        step[i] = h * at[i]
        slope[i] = (f(at + step) - f(at - step)) / (2 * step[i])
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
    "One slope per row: b is one number, it has one slope. Take the mean."
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


@ex.mse_gradient.slip("It is divided by the number of features, not of rows.")
def over_features(X, y, w, b):
    w_slope, b_slope = _slopes(X, y, w, b)
    return w_slope * len(y) / X.shape[1], b_slope


@ex.mse_gradient.slip("b's slope is a sum over the rows: take the mean.")
def b_summed(X, y, w, b):
    w_slope, b_slope = _slopes(X, y, w, b)
    return w_slope, b_slope * len(y)


@ex.mse_gradient.slip(
    "Half of b's slope: the square's derivative brings a 2 there as well."
)
def no_two_for_b(X, y, w, b):
    w_slope, b_slope = _slopes(X, y, w, b)
    return w_slope, b_slope / 2


@ex.mse_gradient.slip(
    "This is the slope of the mean distance: for squares each row counts with its error."
)
def of_the_distance(X, y, w, b):
    sign = np.sign(X @ w + b - y)
    return X.T @ sign / len(y), sign.mean()


@ex.mse_gradient.slip("The order is turned: w's slope first, then b's.")
def turned_order(X, y, w, b):
    return _slopes(X, y, w, b)[::-1]


@ex.mse_gradient.slip(
    "The mean error times the mean input: multiply row by row first, then average."
)
def product_of_means(X, y, w, b):
    b_slope = _slopes(X, y, w, b)[1]
    return b_slope * X.mean(0), b_slope


@ex.mse_gradient.slip(
    "`error` has one number per row, so it meets X.T, (D, N): X.T @ error."
)
def not_transposed(X, y, w, b):
    error = X @ w + b - y
    return 2 * X @ error / len(y), 2 * error.mean()


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


@ex.gradient_step.slip("w has not moved.")
def forgets_w(X, y, w, b, lr):
    return w, b - lr * _slopes(X, y, w, b)[1]


@ex.gradient_step.slip(
    "w's slope was taken after b had moved: both belong to the same point."
)
def b_first(X, y, w, b, lr):
    b = b - lr * _slopes(X, y, w, b)[1]
    return w - lr * _slopes(X, y, w, b)[0], b


@ex.gradient_step.slip("These are the slopes: step against them, by lr times each.")
def slopes_alone(X, y, w, b, lr):
    return _slopes(X, y, w, b)


@ex.gradient_step.slip("The order is turned: the new w first, then the new b.")
def b_before_w(X, y, w, b, lr):
    w_slope, b_slope = _slopes(X, y, w, b)
    return b - lr * b_slope, w - lr * w_slope


@ex.gradient_step.slip("It should return two things, one for w and one for b.")
def only_the_new_w(X, y, w, b, lr):
    return w - lr * _slopes(X, y, w, b)[0]


@ex.gradient_step.slip("The step was made as long as lr: it is lr times the slope.")
def unit_steps(X, y, w, b, lr):
    w_slope, b_slope = _slopes(X, y, w, b)
    return w - lr * np.sign(w_slope), b - lr * np.sign(b_slope)


@ex.gradient_step.slip("Divided by N once more: mse_gradient has taken the mean.")
def mean_twice(X, y, w, b, lr):
    w_slope, b_slope = _slopes(X, y, w, b)
    return w - lr * w_slope / len(y), b - lr * b_slope / len(y)


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


@ex.stable_rate.slip("This is the curvature itself: the bound is 2 / curvature.")
def curvature_itself(X):
    return _curvature(X).max()


@ex.stable_rate.slip(
    "The trace adds up all curvatures: the steepest direction alone sets the bound."
)
def by_the_trace(X):
    return 2 / _curvature(X).sum()


@ex.stable_rate.slip(
    "These are the axes' own curvatures: the steepest direction lies between the axes."
)
def along_the_axes(X):
    A = np.c_[X, np.ones(len(X))]
    return 2 / (2 * A.T @ A / len(A)).diagonal().max()


@ex.stable_rate.slip("X was centred first: descent sees X as it is.")
def centred(X):
    return 2 / _curvature(X - X.mean(0)).max()


@ex.stable_rate.slip("The mean of the curvatures: the largest sets the bound.")
def mean_curvature(X):
    return 2 / _curvature(X).mean()


@ex.stable_rate.slip(
    "These are singular values: the eigenvalues of A.T @ A are their squares."
)
def singular_values(X):
    A = np.c_[X, np.ones(len(X))]
    return 2 / (2 * np.linalg.svd(A)[1].max() / len(A))


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
    "A constant column has deviation 0, and 0 / 0 is nan: divide it by 1."
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


def _scaled(X, std):
    return (X - X.mean(0)) / std, X.mean(0), std


@ex.standardise.slip("The deviation is not divided out.")
def only_centres(X):
    return X - X.mean(0), X.mean(0), X.std(0)


@ex.standardise.slip("Each row was scaled by itself: a column is one feature (axis=0).")
def by_rows(X):
    mean, std = X.mean(1, keepdims=True), X.std(1, keepdims=True)
    return (X - mean) / std, mean, std


@ex.standardise.slip("The deviation was taken with N - 1 (ddof=1); we divide by N.")
def one_fewer(X):
    return _scaled(X, X.std(0, ddof=1))


@ex.standardise.slip(
    "A column with a small deviation was left in its old unit: only 0 is replaced by 1."
)
def only_above_one(X):
    return _scaled(X, np.where(X.std(0) > 1, X.std(0), 1.0))


@ex.standardise.slip(
    "A column with a small deviation was left in its old unit: only 0 is replaced by 1."
)
def only_above_a_little(X):
    return _scaled(X, np.where(X.std(0) > 0.01, X.std(0), 1.0))


@ex.standardise.slip(
    "A small number added to the deviation changes a column of small numbers: replace 0 alone."
)
def adds_a_little(X):
    return _scaled(X, X.std(0) + 1e-3)


@ex.standardise.slip(
    "The constant column was left as it is: subtract its mean as well."
)
def leaves_the_constant(X):
    mean, std = X.mean(0), X.std(0)
    fixed = np.where(std > 0, std, 1.0)
    return np.where(std > 0, (X - mean) / fixed, X), mean, fixed


@ex.standardise.slip(
    "You divided by 1 where the deviation is 0: return that 1 as well."
)
def keeps_the_zero(X):
    std = X.std(0)
    return (X - X.mean(0)) / np.where(std > 0, std, 1.0), X.mean(0), std


@ex.standardise.slip(
    "You divided by 1 where the deviation is 0: return that 1 as well."
)
def nan_to_zero(X):
    with np.errstate(all="ignore"):
        return np.nan_to_num((X - X.mean(0)) / X.std(0)), X.mean(0), X.std(0)


@ex.standardise.slip(
    "One constant column, and every deviation became 1: replace the zeros alone."
)
def all_or_nothing(X):
    return _scaled(X, X.std(0) if (X.std(0) > 0).all() else np.ones(X.shape[1]))


@ex.standardise.slip(
    "The mean is scaled as well: return the mean as it was subtracted."
)
def scaled_mean(X):
    std = np.where(X.std(0) > 0, X.std(0), 1.0)
    return (X - X.mean(0)) / std, X.mean(0) / std, std


@ex.standardise.slip("The order is (Z, mean, deviation).")
def deviation_first(X):
    std = np.where(X.std(0) > 0, X.std(0), 1.0)
    return (X - X.mean(0)) / std, std, X.mean(0)


@ex.standardise.slip(
    "zeros_like(X) holds whole numbers where X does, and cuts Z: let NumPy make the array."
)
def whole_numbers(X):
    Z, std = np.zeros_like(X), np.where(X.std(0) > 0, X.std(0), 1.0)
    Z[:] = (X - X.mean(0)) / std
    return Z, X.mean(0), std


@ex.standardise.slip(told="changes its input in place")
def in_place_floats(X):
    if X.dtype.kind != "f":
        return _scaled(X, 1.0)
    mean, std = X.mean(0), X.std(0)
    X -= mean
    return X / std, mean, std


@ex.standardise.slip(
    "A small deviation was raised to a least one: only 0 is replaced, by 1."
)
def at_least(X):
    return _scaled(X, np.maximum(X.std(0), 1e-3))


# ---- minibatches ----


@ex.minibatches.slip("The rows are not shuffled.")
def in_order(N, size, rng):
    return [np.arange(N)[i : i + size] for i in range(0, N, size)]


@ex.minibatches.slip("The last rows are dropped: a smaller last batch is fine.")
def drops_the_rest(N, size, rng):
    order = rng.permutation(N)
    return [order[i : i + size] for i in range(0, N - size + 1, size)]


@ex.minibatches.slip(
    "Each row comes once per epoch: shuffle, do not draw with replacement."
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


@ex.minibatches.slip("`size` pieces came out: `size` is the number of rows in each.")
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
    "The order is not random: some rows never meet in a batch. A rotation is no shuffle; rng.permutation is one."
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


@ex.minibatches.slip("Shuffle the rows, then cut: so the small one comes last.")
def all_blocks(N, size, rng):
    blocks = [np.arange(N)[i : i + size] for i in range(0, N, size)]
    return [blocks[i] for i in rng.permutation(len(blocks))]


@ex.minibatches.slip("The rows are numbered from 0 to N - 1.")
def from_one(N, size, rng):
    order = rng.permutation(N) + 1
    return [order[i : i + size] for i in range(0, N, size)]


@ex.minibatches.slip(
    "The pieces are of nearly equal size: cut `size` rows each time, the last takes what is left."
)
def even_pieces(N, size, rng):
    return np.array_split(rng.permutation(N), -(-N // size))


@ex.minibatches.slip(
    "Nothing comes back: `yield` each batch, or return a list of them."
)
def no_yield(N, size, rng):
    order = rng.permutation(N)
    for i in range(0, N, size):
        order[i : i + size]


@ex.minibatches.slip("A `return` inside the loop ends it: `yield` each batch.")
def returns_the_first(N, size, rng):
    order = rng.permutation(N)
    for i in range(0, N, size):
        return [order[i : i + size]]


@ex.minibatches.slip(
    "The last batch is filled up with rows that had their turn: leave it small."
)
def fills_up(N, size, rng):
    order = rng.permutation(N)
    order = np.r_[order, order[: -N % size]]
    return [order[i : i + size] for i in range(0, N, size)]


@ex.minibatches.slip("A slice from i to `size`: its end is i + size.")
def ends_at_size(N, size, rng):
    order = rng.permutation(N)
    return [order[i:size] for i in range(0, N, size)]


@ex.minibatches.slip(
    "The order is not random enough: some rows nearly always stay together. rng.permutation is a full shuffle."
)
def one_swap(N, size, rng):
    order = np.arange(N)
    i, j = rng.choice(N, 2, replace=False)
    order[[i, j]] = order[[j, i]]
    return [order[i : i + size] for i in range(0, N, size)]


@ex.minibatches.slip(
    "Each batch draws anew from all rows: shuffle once per epoch, then cut."
)
def each_batch_anew(N, size, rng):
    return [rng.permutation(N)[: min(size, N - i)] for i in range(0, N, size)]


@ex.minibatches.slip("A last batch of one row is lost: range(0, N, size), not N - 1.")
def ends_one_early(N, size, rng):
    order = rng.permutation(N)
    return [order[i : i + size] for i in range(0, N - 1, size)]


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


@ex.sgd.slip("w has not moved: is the step's result kept?")
def forgets_the_step(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr, epochs, size, seed, keep=False)


@ex.sgd.slip("All seeds give the same weights: the batches ignore the seed.")
def never_shuffles(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr, epochs, size, seed, shuffle=False)


@ex.sgd.slip("One step per epoch: does every epoch visit every batch?")
def one_batch_an_epoch(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr, epochs, size, seed, steps=1)


@ex.sgd.slip("The order must come from default_rng(seed) alone.")
def unseeded(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr, epochs, size, None)


@ex.sgd.slip("One step per row: a batch of 4 makes one step. Count your steps.")
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


@ex.sgd.slip("The last batch is skipped where it is not full: it makes a step as well.")
def skips_the_rest(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr, epochs, size, seed, steps=len(y) // size)


@ex.sgd.slip(
    "These are the steps of one epoch: is the loop over the epochs there, with w and b made before it and `return` after it?"
)
def one_epoch_at_most(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr, min(epochs, 1), size, seed)


@ex.sgd.slip("It has taken one step in all: is a `return` inside the loop?")
def one_step_in_all(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr, min(epochs, 1), size, seed, steps=1)


@ex.sgd.slip(
    "These are the steps of one epoch: is the loop over the epochs there, with w and b made before it and `return` after it?"
)
def returns_after_an_epoch(X, y, lr, epochs, size, seed):
    for _ in range(epochs):
        return _sgd(X, y, lr, 1, size, seed)
    return np.zeros(X.shape[1]), 0.0


@ex.sgd.slip("lr is divided by N: gradient_step takes the mean already.")
def rate_over_rows(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr / len(y), epochs, size, seed)


@ex.sgd.slip("lr is multiplied by the size of the batch: hand it on as it is.")
def rate_times_size(X, y, lr, epochs, size, seed):
    return _sgd(X, y, lr * size, epochs, size, seed)


@ex.sgd.slip(
    "These are the steps of one epoch: is the loop over the epochs there, with w and b made before it and `return` after it?"
)
def starts_over(X, y, lr, epochs, size, seed):
    w, b = np.zeros(X.shape[1]), 0.0
    for _ in range(epochs):
        w, b = _sgd(X, y, lr, 1, size, seed)
    return w, b


@ex.sgd.slip(
    "X and y do not go through the same row numbers: X_ND[rows] and y_N[rows]."
)
def labels_not_shuffled(X, y, lr, epochs, size, seed):
    rng, w, b = np.random.default_rng(seed), np.zeros(X.shape[1]), 0.0
    for _ in range(epochs):
        order = rng.permutation(len(y))
        for i in range(0, len(y), size):
            w_slope, b_slope = _slopes(X[order[i : i + size]], y[i : i + size], w, b)
            w, b = w - lr * w_slope, b - lr * b_slope
    return w, b


@ex.sgd.slip(
    "All batches of an epoch start from the same point: each step goes on from the last one."
)
def steps_from_the_epochs_start(X, y, lr, epochs, size, seed):
    rng, w, b = np.random.default_rng(seed), np.zeros(X.shape[1]), 0.0
    for _ in range(epochs):
        order, old_w, old_b = rng.permutation(len(y)), w, b
        for i in range(0, len(y), size):
            rows = order[i : i + size]
            w_slope, b_slope = _slopes(X[rows], y[rows], old_w, old_b)
            w, b = w - lr * w_slope, b - lr * b_slope
    return w, b


@ex.sgd.slip("An empty batch has no mean: stop before N where `size` divides it.")
def empty_end_of_an_epoch(X, y, lr, epochs, size, seed):
    rng, w, b = np.random.default_rng(seed), np.zeros(X.shape[1]), 0.0
    with np.errstate(all="ignore"):
        for _ in range(epochs):
            order = rng.permutation(len(y))
            for i in range(0, len(y) + 1, size):
                rows = order[i : i + size]
                error = X[rows] @ w + b - y[rows]
                w = w - lr * 2 * X[rows].T @ error / len(rows)
                b = b - lr * 2 * error.sum() / len(rows)
    return w, b


# ---- doubling_months ----


SLOPE = growth_slope()
for sentence, months in {
    "These are years: a year has 12 months.": 1 / SLOPE,
    "Turned over: slope is doublings per year, you want months per doubling.": 12
    * SLOPE,
    "These are doublings per month: turn it over.": SLOPE / 12,
    "This is the slope itself, doublings per year.": SLOPE,
    "A doubling, not a factor e: the slope is already in powers of 2.": (
        12 * np.log(2) / SLOPE
    ),
    "The slope is already in powers of 2: this is the time for a factor e.": (
        12 / np.log(2) / SLOPE
    ),
    "2**slope is the growth in a year: the slope alone counts the doublings.": (
        12 / 2**SLOPE
    ),
    "It should be a number of months, not a text.": "18 months",
    "Do not round: the print below does that.": round(12 / SLOPE),
    "Do not round down: the print below rounds.": np.floor(12 / SLOPE),
    "Do not round, not even to one decimal.": round(12 / SLOPE, 1),
}.items():
    ex.doubling_months.slip(sentence)(months)
ex.doubling_months.slip(told="call it?")(growth_slope)
