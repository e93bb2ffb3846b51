import numpy as np

from tests.wrong_answers import WrongAnswers
from utils import neurons as right

wrong = WrongAnswers("neurons")


# ---- linear ----


@wrong("linear", says="Where is b?")
def no_bias(X, W, b):
    return X @ W


@wrong("linear", says="no output hears more than one input")
def element_wise(X, W, b):
    return X * W + b


@wrong("linear", says="lies on its side")
def transposed(X, W, b):
    return X @ W.T + b


@wrong("linear", says="rows of X meet columns of W")
def textbook_order(X, W, b):
    return W @ X + b


@wrong("linear", says="not to the rows")
def bias_a_row(X, W, b):
    return X @ W + b[:, None]


@wrong("linear", says="is a `return` missing?")
def prints(X, W, b):
    print(X @ W + b)


@wrong("linear", says="changes its input in place")
def in_place(X, W, b):
    b += 1
    return X @ W + b - 1


# ---- relu ----


@wrong("relu", says="np.max finds the one largest")
def max_of_all(z):
    return np.max(z, 0)


@wrong("relu", says="absolute value")
def absolute(z):
    return np.abs(z)


@wrong("relu", says="a switch")
def switch(z):
    return (z > 0).astype(float)


@wrong("relu", says="Upside down")
def upside_down(z):
    return np.minimum(z, 0)


@wrong("relu", says="leaky ReLU")
def leaky(z):
    return np.where(z > 0, z, 0.01 * z)


@wrong("relu", says="changes its input in place")
def relu_in_place(z):
    z[z < 0] = 0
    return z


# ---- mlp_forward ----


def _mlp(X, layers, bend, between=True, last=False, first=False):
    h = bend(X) if first else X
    for i, (W, b) in enumerate(layers):
        h = h @ W + b
        if (between and i < len(layers) - 1) or (last and i == len(layers) - 1):
            h = bend(h)
    return h


@wrong("mlp_forward", says="bends after the last layer too")
def bends_the_end(X, layers, bend=right.relu):
    return _mlp(X, layers, bend, last=True)


@wrong("mlp_forward", says="never bends")
def never_bends(X, layers, bend=right.relu):
    return _mlp(X, layers, bend, between=False)


@wrong("mlp_forward", says="uses relu whatever `bend` is")
def always_relu(X, layers, bend=right.relu):
    return _mlp(X, layers, right.relu)


@wrong("mlp_forward", says="loop ends too early")
def forgets_the_last(X, layers, bend=right.relu):
    for W, b in layers[:-1]:
        X = bend(X @ W + b)
    return X


@wrong("mlp_forward", says="bends once only")
def bends_once(X, layers, bend=right.relu):
    for i, (W, b) in enumerate(layers):
        X = X @ W + b
        if i == 0 and len(layers) > 1:
            X = bend(X)
    return X


@wrong("mlp_forward", says="each turn of the loop replaces it")
def always_from_the_input(X, layers, bend=right.relu):
    h = X
    for W, b in layers[:-1]:
        h = bend(X @ W[: X.shape[1]] + b)
    W, b = layers[-1]
    return h @ W + b


@wrong("mlp_forward", says="bends after the last layer too")
def one_layer_bent(X, layers, bend=right.relu):
    return _mlp(X, layers, bend, last=len(layers) == 3)


@wrong("mlp_forward", says="before the first layer")
def bends_before(X, layers, bend=right.relu):
    return _mlp(X, layers, bend, first=True)


# ---- xor_layers ----

ONES, HOLD = np.ones((2, 2)), np.array([0.0, -1.0])
TOP = np.array([[1.0], [-2.0]])
wrong.value(
    "xor_layers", [(ONES, HOLD), (np.array([[1], [-1]]), [0])], says="That is OR"
)
wrong.value(
    "xor_layers", [(ONES, HOLD), (np.array([[0], [1]]), [0])], says="That is AND"
)
wrong.value("xor_layers", [(ONES, [0, 0]), (TOP, [0])], says="wakes up too early")
wrong.value("xor_layers", [(ONES, HOLD), (-TOP, [1])], says="Exactly the opposite")
wrong.value(
    "xor_layers", [(ONES, HOLD), (np.eye(2)[:, :1], [0])], says="That is the sum"
)
wrong.value("xor_layers", [(ONES, HOLD), ([1, -2], [0])], says="shapes do not fit")
wrong.value("xor_layers", [ONES, TOP], says="shapes do not fit")
wrong.value("xor_layers", [0, 1, 1, 0], says="a list of two layers")
wrong.value(
    "xor_layers",
    [(np.ones((2, 3)), [0, -1, -2]), (np.ones((3, 1)), [0])],
    says="Two hidden units are enough",
)
wrong.value(
    "xor_layers", [(ONES, [5, 5]), (TOP, [0])], says="at the corner that is off"
)


# ---- sigmoid ----


@wrong("sigmoid", says="It overflows on the way")
def naive(z):
    return 1 / (1 + np.exp(-z))


@wrong("sigmoid", says="It overflows on the way")
def other_naive(z):
    return np.exp(z) / (1 + np.exp(z))


@wrong("sigmoid", says="np.where computes both sides")
def both_sides(z):
    return np.where(z >= 0, 1 / (1 + np.exp(-z)), np.exp(z) / (1 + np.exp(z)))


@wrong("sigmoid", says="sign is turned")
def turned(z):
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, e, 1) / (1 + e)


@wrong("sigmoid", says="This is tanh")
def hyperbolic(z):
    return np.tanh(z)


@wrong("sigmoid", says="Both sides use |z|")
def folded(z):
    return 1 / (1 + np.exp(-np.abs(z)))


@wrong("sigmoid", says="must not be clipped")
def clipped(z):
    return 1 / (1 + np.exp(-np.clip(z, -20, 20)))


@wrong("sigmoid", says="nan or inf")
def silenced(z):
    with np.errstate(all="ignore"):
        return np.exp(z) / (1 + np.exp(z))


@wrong("sigmoid", says="must not be clipped")
def clipped_wider(z):
    return 1 / (1 + np.exp(-np.clip(z, -30, 30)))


@wrong("sigmoid", says="The left tail is lost")
def one_minus(z):
    s = 1 / (1 + np.exp(-np.abs(z)))
    return np.where(z >= 0, s, 1 - s)


@wrong("sigmoid", says="9.36e-14, 1.93e-22, ")
def by_tanh(z):
    return (1 + np.tanh(z / 2)) / 2


# ---- slope ----


def _slope(bend, z, **changed):
    return changed[bend] if bend in changed else right.slope(bend, z)


@wrong("slope", says="This is relu itself")
def relu_value(bend, z):
    return _slope(bend, z, relu=right.relu(z))


@wrong("slope", says="everyone takes 0")
def one_at_the_corner(bend, z):
    return _slope(bend, z, relu=np.where(z >= 0, 1.0, 0.0))


@wrong("slope", says="not the middle")
def half_at_the_corner(bend, z):
    return _slope(bend, z, relu=np.heaviside(z, 0.5))


@wrong("slope", says="square it first")
def tanh_unsquared(bend, z):
    return _slope(bend, z, tanh=1 - np.tanh(z))


@wrong("slope", says="This squares z")
def squares_z(bend, z):
    return _slope(bend, z, tanh=1 - z**2)


@wrong("slope", says="take the sigmoid's value")
def of_z(bend, z):
    return _slope(bend, z, sigmoid=z * (1 - z))


@wrong("slope", says="This is the sigmoid itself")
def sigmoid_value(bend, z):
    return _slope(bend, z, sigmoid=right.sigmoid(z))


@wrong("slope", says="use your stable sigmoid")
def quotient_rule(bend, z):
    if bend == "sigmoid":
        return np.exp(-z) / (1 + np.exp(-z)) ** 2
    return _slope(bend, z)


@wrong("slope", says="The values differ")
def nudges(bend, z):
    f, h = right.BENDS[bend], 1e-5
    return (f(z + h) - f(z - h)) / (2 * h) + 1e-5


@wrong("slope", says="1 - np.tanh(z)**2")
def over_cosh(bend, z):
    return 1 / np.cosh(z) ** 2 if bend == "tanh" else _slope(bend, z)


# ---- softmax ----


def _shares(z, top=True):
    e = np.exp(z - z.max(1, keepdims=True) if top else z)
    return e / e.sum(1, keepdims=True)


@wrong("softmax", says="It overflows")
def naive_softmax(z):
    return _shares(z, top=False)


@wrong("softmax", says="columns add up to 1")
def down_the_columns(z):
    e = np.exp(z - z.max(0))
    return e / e.sum(0)


@wrong("softmax", says="The whole table adds up to 1")
def whole_table(z):
    e = np.exp(z - z.max())
    return e / e.sum()


@wrong("softmax", says="row sums went to the columns")
def no_keepdims(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1)


@wrong("softmax", says="row maxima went to the columns")
def max_without_keepdims(z):
    e = np.exp(z - z.max(1))
    return e / e.sum(1, keepdims=True)


@wrong("softmax", says="max and sum need keepdims")
def neither_keeps_dims(z):
    e = np.exp(z - z.max(1))
    return e / e.sum(1)


@wrong("softmax", says="each row's own maximum")
def one_maximum(z):
    e = np.exp(z - z.max())
    return e / e.sum(1, keepdims=True)


@wrong("softmax", says="It clips the logits")
def clips(z):
    return _shares(np.clip(z, -500, 500), top=False)


@wrong("softmax", says="exp comes first")
def shares_of_logits(z):
    return z / z.sum(1, keepdims=True)


@wrong("softmax", says="not yet divided")
def only_exp(z):
    return np.exp(z)


@wrong("softmax", says="needs no small number")
def epsilon(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / (e.sum(1, keepdims=True) + 1e-4)


# ---- cross_entropy ----


def _prices(z, y, shares=_shares):
    return -np.log(shares(z)[np.arange(len(y)), y])


@wrong("cross_entropy", says="the probability has already become 0")
def log_of_softmax(z, y):
    return _prices(z, y).mean()


@wrong("cross_entropy", says="caps the price")
def small_number(z, y):
    return -np.log(_shares(z)[np.arange(len(y)), y] + 1e-12).mean()


@wrong("cross_entropy", says="the probability has already become 0")
def naive_sum(z, y):
    return np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y])


@wrong("cross_entropy", says="sum over the rows")
def summed(z, y):
    return _prices(z, y).sum()


@wrong("cross_entropy", says="log of a probability is negative")
def no_minus(z, y):
    return -_prices(z, y).mean()


@wrong("cross_entropy", says="takes whole columns")
def whole_columns(z, y):
    return -np.log(_shares(z))[:, y].mean()


@wrong("cross_entropy", says="divide by N")
def over_all(z, y):
    return -(np.eye(z.shape[1])[y] * np.log(_shares(z))).mean()


@wrong("cross_entropy", says="In bits")
def bits(z, y):
    return _prices(z, y).mean() / np.log(2)


@wrong("cross_entropy", says="average them")
def a_price_a_row(z, y):
    return _prices(z, y)


@wrong("cross_entropy", says="largest logit, then add it again")
def top_of_all(z, y):
    top = z.max()
    return np.mean(top + np.log(np.exp(z - top).sum(1)) - z[np.arange(len(y)), y])


# ---- binary_cross_entropy ----


@wrong("binary_cross_entropy", says="labels are swapped")
def swapped(z, y):
    return np.mean(np.logaddexp(0, z) - (1 - y) * z)


@wrong("binary_cross_entropy", says="pay nothing")
def one_side(z, y):
    return np.mean(y * np.logaddexp(0, -z))


@wrong("binary_cross_entropy", says="taken for the probability")
def takes_probabilities(z, y):
    return -np.mean(y * np.log(z) + (1 - y) * np.log(np.abs(1 - z)))


@wrong("binary_cross_entropy", says="Surely wrong by 10,000 costs 10,000")
def log_of_sigmoid(z, y):
    p = right.sigmoid(z)
    return -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))


@wrong("binary_cross_entropy", says="exp(z)) overflows")
def naive_softplus(z, y):
    return np.mean(np.log(1 + np.exp(z)) - y * z)


@wrong("binary_cross_entropy", says="sum over the rows")
def summed_binary(z, y):
    return np.sum(np.logaddexp(0, z) - y * z)


@wrong("binary_cross_entropy", says="squared error")
def squared(z, y):
    return np.mean((right.sigmoid(z) - y) ** 2)


@wrong("binary_cross_entropy", says="Surely wrong")
def capped(z, y):
    p = np.clip(right.sigmoid(z), 1e-12, 1 - 1e-12)
    return -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))


# ---- cross_entropy_gradient ----


def _gradient(z, y):
    return (_shares(z) - np.eye(z.shape[1])[y]) / len(y)


@wrong("cross_entropy_gradient", says="divided by N")
def no_mean(z, y):
    return _gradient(z, y) * len(y)


@wrong("cross_entropy_gradient", says="sign is turned")
def y_minus_p(z, y):
    return -_gradient(z, y)


@wrong("cross_entropy_gradient", says="subtract 1 at the true class")
def probabilities(z, y):
    return _shares(z) / len(y)


@wrong("cross_entropy_gradient", says="not over classes")
def over_everything(z, y):
    return _gradient(z, y) / z.shape[1]


@wrong("cross_entropy_gradient", says="whole columns")
def changes_columns(z, y):
    g = _shares(z)
    g[:, y] -= 1
    return g / len(y)


@wrong("cross_entropy_gradient", says="y must be one-hot")
def minus_the_number(z, y):
    return (_shares(z) - y[:, None]) / len(y)


@wrong("cross_entropy_gradient", says="from p to the logit")
def along_p(z, y):
    return -np.eye(z.shape[1])[y] / _shares(z) / len(y)


@wrong("cross_entropy_gradient", says="take your stable softmax")
def naive_gradient(z, y):
    return (_shares(z, top=False) - np.eye(z.shape[1])[y]) / len(y)


@wrong("cross_entropy_gradient", says="changes its input in place")
def changes_z(z, y):
    z -= z.max(1, keepdims=True)
    return _gradient(z, y)


@wrong("cross_entropy_gradient", says="There is no 2 in it")
def with_a_two(z, y):
    return 2 * _gradient(z, y)


# ---- softmax_step ----


def _step(X, y, W, b, lr, g=None, late=False):
    g = _gradient(X @ W + b, y) if g is None else g
    new = W - lr * X.T @ g
    return new, b - lr * (_gradient(X @ new + b, y) if late else g).sum(0)


@wrong("softmax_step", says="Uphill")
def uphill(X, y, W, b, lr):
    return _step(X, y, W, b, -lr)


@wrong("softmax_step", says="learning rate is missing")
def no_rate(X, y, W, b, lr):
    return _step(X, y, W, b, 1)


@wrong("softmax_step", says="a second time")
def mean_twice(X, y, W, b, lr):
    return _step(X, y, W, b, lr / len(y))


@wrong("softmax_step", says="add its rows up")
def mean_for_b(X, y, W, b, lr):
    g = _gradient(X @ W + b, y)
    return W - lr * X.T @ g, b - lr * g.mean(0)


@wrong("softmax_step", says="after W had moved")
def w_first(X, y, W, b, lr):
    return _step(X, y, W, b, lr, late=True)


@wrong("softmax_step", says="b has not moved")
def forgets_b(X, y, W, b, lr):
    return _step(X, y, W, b, lr)[0], b


@wrong("softmax_step", says="over the rows only")
def one_b(X, y, W, b, lr):
    g = _gradient(X @ W + b, y)
    return W - lr * X.T @ g, b - lr * g.sum()


@wrong("softmax_step", says="the new W and the new b")
def only_w(X, y, W, b, lr):
    return _step(X, y, W, b, lr)[0]


@wrong("softmax_step", says="inputs are missing")
def without_inputs(X, y, W, b, lr):
    g = _gradient(X @ W + b, y)
    return W - lr * g.sum(0), b - lr * g.sum(0)


@wrong("softmax_step", says="changes its input in place")
def step_in_place(X, y, W, b, lr):
    W -= lr * X.T @ _gradient(X @ W + b, y)
    return W, b


@wrong("softmax_step", says="`lr` is an argument")
def fixed_rate(X, y, W, b, lr):
    return _step(X, y, W, b, 0.5)


# ---- softmax_regression ----


def _train(
    X, y, C, lr, epochs, size, seed, keep=True, shuffle=True, batches=None, W=None
):
    rng, b = np.random.default_rng(seed), np.zeros(C)
    W = np.zeros((X.shape[1], C)) if W is None else W
    for _ in range(epochs):
        order = rng.permutation(len(y)) if shuffle else np.arange(len(y))
        for i in range(0, len(y), size)[:batches]:
            rows = order[i : i + size]
            if keep:
                W, b = _step(X[rows], y[rows], W, b, lr)
    return W, b


@wrong("softmax_regression", says="is the step's result kept")
def forgets_the_step(X, y, C, lr, epochs, size, seed):
    return _train(X, y, C, lr, epochs, size, seed, keep=False)


@wrong("softmax_regression", says="does every epoch visit every batch")
def one_batch_an_epoch(X, y, C, lr, epochs, size, seed):
    return _train(X, y, C, lr, epochs, size, seed, batches=1)


@wrong("softmax_regression", says="batches ignore the seed")
def never_shuffles(X, y, C, lr, epochs, size, seed):
    return _train(X, y, C, lr, epochs, size, seed, shuffle=False)


@wrong("softmax_regression", says="default_rng(seed) alone")
def unseeded(X, y, C, lr, epochs, size, seed):
    return _train(X, y, C, lr, epochs, size, None)


@wrong("softmax_regression", says="a class may be absent")
def counts_classes(X, y, C, lr, epochs, size, seed):
    return _train(X, y, y.max() + 1, lr, epochs, size, seed)


@wrong("softmax_regression", says="Start from zeros")
def random_start(X, y, C, lr, epochs, size, seed):
    W = np.random.default_rng(seed).normal(size=(X.shape[1], C))
    return _train(X, y, C, lr, epochs, size, seed, W=W)


@wrong("softmax_regression", says="same row numbers")
def labels_not_shuffled(X, y, C, lr, epochs, size, seed):
    rng, W, b = np.random.default_rng(seed), np.zeros((X.shape[1], C)), np.zeros(C)
    for _ in range(epochs):
        order = rng.permutation(len(y))
        for i in range(0, len(y), size):
            W, b = _step(X[order[i : i + size]], y[i : i + size], W, b, lr)
    return W, b


@wrong("softmax_regression", says="makes one step")
def one_step_a_row(X, y, C, lr, epochs, size, seed):
    return _train(X, y, C, lr, epochs, 1, seed)


@wrong("softmax_regression", says="return` inside the loop")
def returns_early(X, y, C, lr, epochs, size, seed):
    return _train(X, y, C, lr, min(epochs, 1), size, seed, batches=1)


@wrong("softmax_regression", says="make the generator once")
def seed_in_the_loop(X, y, C, lr, epochs, size, seed):
    order, W, b = np.random.default_rng(seed).permutation(len(y)), 0, np.zeros(C)
    W = np.zeros((X.shape[1], C))
    for _ in range(epochs):
        for i in range(0, len(y), size):
            rows = order[i : i + size]
            W, b = _step(X[rows], y[rows], W, b, lr)
    return W, b


@wrong("softmax_regression", says="although epochs = 0")
def one_epoch(X, y, C, lr, epochs, size, seed):
    return _train(X, y, C, lr, 1, size, seed)


# ---- accuracy ----


@wrong("accuracy", says="counts the right rows")
def counts(z, y):
    return np.sum(z.argmax(1) == y)


@wrong("accuracy", says="share of errors")
def errors(z, y):
    return np.mean(z.argmax(1) != y)


@wrong("accuracy", says="per cent")
def per_cent(z, y):
    return 100 * np.mean(z.argmax(1) == y)


@wrong("accuracy", says="One answer a row")
def answers(z, y):
    return z.argmax(1) == y


@wrong("accuracy", says="of each row")
def least_likely(z, y):
    return np.mean(z.argmin(1) == y)


@wrong("accuracy", says="could not be broadcast")
def down_columns(z, y):
    return (
        np.mean(z.argmax(0) == y) if len(z) == z.shape[1] else np.mean(z.argmax(0) + y)
    )
