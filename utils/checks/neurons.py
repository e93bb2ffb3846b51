"""Chapter 02: layers, bends, probabilities, the price of a surprise, and its slope."""

import numpy as np

from utils.checks.descent import two_epochs
from utils.exercises import Chapter, Miss, same

chapter = Chapter("02_neurons")
XOR = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
X_13 = np.array([[1.0, 2.0, 3.0]])
W_32 = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 1.0]])
B_2 = np.array([1.0, -1.0])
LOGS = np.log([[1.0, 2.0, 5.0], [6.0, 1.0, 1.0]])  # rows of probabilities in eighths
EIGHTHS = np.array([[1.0, 2.0, 5.0], [6.0, 1.0, 1.0]]) / 8


def _random(*shapes, seed=0):
    "Normal arrays of these shapes, the same for every reader."
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in shapes]


def _loudly(case, call, rule, want):
    "call() with an overflow, a 0 / 0 or a log(0) on its way turned into a miss."
    try:
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            return call()
    except (FloatingPointError, RuntimeWarning) as error:
        raise Miss(rule, case, f"{error}", want) from None


def _pair(got, what):
    "What should be two things."
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        raise Miss(f"It should return two things, {what}.", "what came back", got, what)
    return got


@chapter.exercise(
    "One output: multiply each input by its weight, add up, add that output's b.",
    "Column h of W holds the weights of output h; `@` does all rows and columns at once.",
    "return X_ND @ W_DH + b_H",
)
def linear(answer):
    "H weighted sums of each row."
    X, W = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 0.0], [-1.0, 2.0]])
    b = np.array([10.0, 20.0])
    same(
        "linear([[1, 2], [3, 4]], W = [[1, 0], [-1, 2]], b = [10, 20])",
        answer(X, W, b),
        [[9.0, 24.0], [9.0, 28.0]],  # 1*1 + 2*(-1) + 10, and so on, by hand
        rule="Output h of a row: the row times column h of W, added up, plus b[h].",
    )
    same("the row (1, 2, 3) of the text", answer(X_13, W_32, B_2), [[-1.0, 4.0]])
    X, W, b = _random((5, 4), (4, 3), 3)
    want = [
        [sum(x * w for x, w in zip(row, col)) + c for col, c in zip(W.T, b)]
        for row in X
    ]
    same("5 random rows, 4 inputs, 3 outputs", answer(X, W, b), want)


@chapter.exercise(
    "Negative numbers become 0; the others stay as they are.",
    "Compare every element with 0 and keep the larger one.",
    "return np.maximum(z, 0): maximum compares two arrays, np.max finds one number.",
)
def relu(answer):
    "The positive part, element by element."
    z = np.array([-2.0, -0.5, 0.0, 3.0])
    same(
        "relu([-2, -0.5, 0, 3])",
        answer(z),
        [0.0, 0.0, 0.0, 3.0],
    )
    (z,) = _random((3, 4))
    same("any shape: 3 x 4 random numbers", answer(z), z * (z > 0))


@chapter.exercise(
    "What comes out of one layer goes into the next: a loop over the layers.",
    "Bend after every layer but the last: layers[:-1] gets `bend`, layers[-1] does not.",
    "for W, b in layers[:-1]: h = bend(linear(h, W, b));  then linear(h, *layers[-1])",
)
def mlp_forward(answer):
    "Through all layers, bent between two of them."
    first = (W_32, B_2)
    V, c = np.array([[2.0], [0.5]]), np.array([-9.0])

    def positive(z):
        return np.maximum(z, 0)

    h = X_13 @ W_32 + B_2
    same(
        "x = (1, 2, 3) through the layers of the text, with c = -9 at the end",
        answer(X_13, [first, (V, c)], positive),
        [[-7.0]],  # relu(-1, 4) = (0, 4); 0 * 2 + 4 * 0.5 - 9
        rule="layer, bend, layer: (1, 2, 3) -> (-1, 4) -> (0, 4) -> 2 - 9.",
    )
    X, *parts = _random((4, 3), (3, 5), 5, (5, 5), 5, (5, 2), 2)
    layers = list(zip(parts[::2], parts[1::2]))
    (W1, b1), (W2, b2), (W3, b3) = layers
    h1 = np.tanh(X @ W1 + b1)
    h2 = np.tanh(h1 @ W2 + b2)
    want = h2 @ W3 + b3
    same(
        "three layers, 3 -> 5 -> 5 -> 2, with bend = np.tanh",
        answer(X, layers, np.tanh),
        want,
        rule="h is what the last layer said; each turn of the loop replaces it.",
    )
    same(
        "one layer alone is a line, not bent",
        answer(X, [(W1, b1)], np.tanh),
        X @ W1 + b1,
    )


@chapter.exercise(
    "Only the sum s = x1 + x2 matters: it is 0, 1, 1, 2. You want 0, 1, 1, 0: a roof.",
    "relu(s) climbs from 0 on; relu(s - 1) wakes up at 1. Climb with one, come down with "
    "the other.",
    "Hidden: W all ones, b = [0, -1]. On top: the first minus twice the second, c = 0.",
    kind="value",
)
def xor_layers(answer):
    "Two layers with two hidden ReLUs that say 0, 1, 1, 0."
    shapes = "[(W (2, 2), b (2,)), (V (2, 1), c (1,))]"
    try:
        (W, b), (V, c) = (
            [np.asarray(part, float) for part in layer] for layer in answer
        )
    except (TypeError, ValueError):
        raise Miss(
            "It should be a list of two layers, each a pair of arrays.", "xor_layers",
            answer, shapes,
        ) from None  # fmt: skip
    got = ", ".join(str(part.shape) for part in (W, b, V, c))
    if W.ndim == 2 and W.shape[1] != 2:
        raise Miss("Two hidden units are enough: W is (2, 2), a column a unit.",
                   "the shapes of W, b, V, c", got, shapes)  # fmt: skip
    if [part.shape for part in (W, b, V, c)] != [(2, 2), (2,), (2, 1), (1,)]:
        raise Miss("The shapes do not fit: W is inputs by units, V is units by outputs.",
                   "the shapes of W, b, V, c", got, shapes)  # fmt: skip
    says = (np.maximum(XOR @ W + b, 0) @ V + c)[:, 0]
    same(
        "what it says at (0,0), (0,1), (1,0), (1,1)",
        says,
        [0.0, 1.0, 1.0, 0.0],
        rule="Work it out by hand at the corner that is off.",
    )


@chapter.exercise(
    "exp of a large positive number overflows. exp of a negative one never does.",
    "For z < 0 the same number is exp(z) / (1 + exp(z)). np.where computes both sides for "
    "every z, so what you exponentiate must be safe everywhere: -|z|.",
    "e = np.exp(-np.abs(z));  np.where(z >= 0, 1, e) / (1 + e)",
)
def sigmoid(answer):
    "1 / (1 + exp(-z)) without overflow."
    z = np.log([3.0, 1.0, 1 / 3])
    same(
        "sigmoid([ln 3, 0, -ln 3])",
        answer(z),
        [0.75, 0.5, 0.25],

    )  # fmt: skip
    want, case = [0.0, 1.0], "sigmoid([-10000, 10000])"
    got = _loudly(
        case,
        lambda: answer(np.array([-1e4, 1e4])),
        "It overflows on the way: exp of a large positive number. Mind that np.where "
        "computes both sides for every z.",
        want,
    )
    same(case, got, want, atol=1e-6)
    (z,) = _random((3, 4))
    same("any shape: 3 x 4 random numbers", answer(z), (1 + np.tanh(z / 2)) / 2)
    z = np.array([-30.0, -50.0, -300.0])
    got = answer(z)
    rule = "It has been cut off: z itself must not be clipped."
    if np.shape(got) == (3,) and np.asarray(got)[1] < 1e-30:
        rule = (
            "The left tail is lost: 1 minus a number near 1 rounds to 0. For z < 0 use "
            "the twin, exp(z) / (1 + exp(z))."
        )
    case, want = "sigmoid([-30, -50, -300])", np.exp(z) / (1 + np.exp(z))
    if np.shape(got) == (3,) and not np.allclose(got, want, atol=0, rtol=1e-6):
        raise Miss(rule, case, *(", ".join(f"{v:.2e}" for v in p) for p in (got, want)))
    same(case, got, want, rule=rule)


@chapter.exercise(
    "tanh and sigmoid have slopes that you can write with their own values.",
    "tanh: 1 minus its value squared. sigmoid: its value times (1 - its value). relu: 0 "
    "up to and at 0, then 1.",
    "s = sigmoid(z): s * (1 - s);  t = np.tanh(z): 1 - t**2;  np.where(z > 0, 1.0, 0.0)",
)
def slope(answer):
    "The slope of each bend."
    z = np.array([-2.0, -0.3, 0.4, 3.0])
    s, t, h = 1 / (1 + np.exp(-z)), np.tanh(z), 1e-5

    def nudged(f):
        return (f(z + h) - f(z - h)) / (2 * h)

    case = "at z = [-2, -0.3, 0.4, 3]"
    same(
        f"slope('relu', z) {case}",
        answer("relu", z),
        nudged(lambda z: np.maximum(z, 0)),
        atol=1e-6,
    )
    same(
        "slope('relu', 0): a corner, by convention",
        answer("relu", np.zeros(1)),
        [0.0],
    )
    same(
        f"slope('tanh', z) {case}",
        answer("tanh", z),
        nudged(np.tanh),
        atol=1e-6,
    )
    same(
        f"slope('sigmoid', z) {case}",
        answer("sigmoid", z),
        nudged(lambda z: 1 / (1 + np.exp(-z))),
        atol=1e-6,
    )
    for bend, want in (("relu", [0.0, 1.0]), ("tanh", [0, 0]), ("sigmoid", [0, 0])):
        far = f"slope({bend!r}, [-10000, 10000])"
        got = _loudly(
            far,
            lambda bend=bend: answer(bend, np.array([-1e4, 1e4])),
            "It overflows: use your stable sigmoid instead of exp."
            if bend == "sigmoid"
            else "It overflows: 1 - np.tanh(z)**2 is the same slope and never does.",
            want,
        )
        same(far, got, want)
    same("any shape: a 2 x 3 table", np.shape(answer("tanh", np.zeros((2, 3)))), (2, 3))


@chapter.exercise(
    "exp makes every logit positive, dividing by the row's sum makes them add up to 1.",
    "Subtract each row's largest logit first: the shares stay, and exp never sees more "
    "than 0. keepdims=True keeps a column, (N, 1), so that rows meet their own number.",
    "e = np.exp(z - z.max(axis=1, keepdims=True));  e / e.sum(axis=1, keepdims=True)",
)
def softmax(answer):
    "Each row of logits as probabilities."
    z = np.log([[1.0, 2.0, 5.0], [12.0, 2.0, 2.0], [1.0, 2.0, 1.0]])
    e = np.exp(z)
    want = np.array([[1, 2, 5], [6, 1, 1], [2, 4, 2]]) / 8
    own = np.exp(z - z.max(axis=1, keepdims=True))
    shifted = np.exp(z - z.max(axis=1))
    got = answer(z)
    rule = "Every row: exp of each, over the sum of the row's exps."
    if np.shape(got) == want.shape and np.allclose(got, want, atol=1e-2):
        rule = (
            "A row does not quite add up to 1: the sum holds exp(0) = 1, so it needs no "
            "small number added against a division by 0."
        )
    same(
        "softmax of the logs of [1, 2, 5], [12, 2, 2] and [1, 2, 1]",
        got,
        want,
        rule=rule,
    )
    same("2 rows of 3 classes", answer(LOGS), EIGHTHS)
    want = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    case = "softmax([[10000, 0, -10000], [-10000, 10000, 0]])"
    rule = (
        "It overflows: exp of a large positive number. The largest logit of a row must "
        "become 0 first."
    )
    extreme = np.array([[1e4, 0.0, -1e4], [-1e4, 1e4, 0.0]])
    same(case, _loudly(case, lambda: answer(extreme), rule, want), want, rule=rule)
    case = "two rows far apart, [[10000, 9999], [-10000, -9999]]"
    far = np.array([[1e4, 9999.0], [-1e4, -9999.0]])
    want = np.array([[np.e, 1.0], [1.0, np.e]]) / (1 + np.e)
    rule = "Subtract each row's own maximum, not one for the whole table."
    same(
        case,
        _loudly(case, lambda: answer(far), rule, want),
        want,

        rule=rule,
        rtol=1e-9,
    )  # fmt: skip


def _costs(z, y):
    "-log(probability of the true class) of each row, in plain Python numbers."
    return [
        np.log(sum(np.exp(v - max(row)) for v in row)) + max(row) - row[k]
        for row, k in zip(z, y)
    ]


@chapter.exercise(
    "-log(softmax) of the true class is log(sum(exp(z))) minus the true class's logit.",
    "log(sum(exp(z))) = top + log(sum(exp(z - top))) with top the row's largest logit.",
    "top_N = z_NC.max(axis=1); total_N = top_N + np.log(np.exp(z_NC - top_N[:, None])"
    ".sum(axis=1)); then np.mean(total_N - z_NC[np.arange(N), y_N])",
)
def cross_entropy(answer):
    "Mean of -log(probability of the true class)."
    y, N = np.array([0, 2]), 2
    case = "probabilities [1, 2, 5] / 8 and [6, 1, 1] / 8, true classes 0 and 2"
    same(
        f"{case}: both are 1/8 sure",
        answer(LOGS, y),
        np.log(8),
        rule="Each row: log(sum(exp(z))) minus the logit of its true class; then the mean.",
    )
    (z,) = _random((6, 4))
    y = np.array([0, 3, 1, 1, 2, 0])
    same("6 random rows of 4 classes", answer(z, y), np.mean(_costs(z, y)))
    same("ten equal logits", answer(np.zeros((3, 10)), np.array([1, 5, 9])), np.log(10))
    case = "logits [[10000, 0], [0, 10000]], true classes 1 and 1"
    z, y = np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([1, 1])
    rule = (
        "Surely wrong by 10,000 costs 10,000, in the mean 5,000. log(softmax) cannot know: "
        "the probability has already become 0. Stay with the logits."
    )
    got = _loudly(case, lambda: answer(z, y), rule, 5000.0)
    if np.ndim(got) == 0 and 0 < got < 500:
        rule = "A small number under the log caps the price: surely wrong must cost 10,000."
    same(case, got, 5000.0, rule=rule)
    case = "logits [[10000, 9999], [-10000, -9999]], true classes 0 and 0"
    z, y = np.array([[1e4, 9999.0], [-1e4, -9999.0]]), np.array([0, 0])
    rule = "Subtract the row's own largest logit, then add it again."
    want = (np.log(1 + 1 / np.e) + np.log(1 + np.e)) / 2
    got = _loudly(case, lambda: answer(z, y), rule, want)
    same(case, got, want, rule=rule)


@chapter.exercise(
    "One logit z means p = sigmoid(z) for class 1 and 1 - p for class 0.",
    "-log p = log(1 + exp(-z)) and -log(1 - p) = log(1 + exp(z)); they differ by z.",
    "np.mean(np.logaddexp(0, z_N) - y_N * z_N): logaddexp(0, z) is log(1 + exp(z)), stable",
)
def binary_cross_entropy(answer):
    "The price for two classes, from one logit a row."
    z, y = np.log([3.0, 7.0]), np.array([1, 0])  # p = 3/4 and 7/8
    p = np.array([0.75, 0.875])
    want = (np.log(4 / 3) + np.log(8)) / 2
    same(
        "p = 3/4 and 7/8 (logits ln 3, ln 7), truth 1 and 0",
        answer(z, y),
        want,
        rule="Class 1 pays -log(sigmoid(z)), class 0 pays -log(1 - sigmoid(z)).",
    )
    (z,) = _random(9)
    y = np.arange(9) % 2
    two = np.c_[np.zeros(9), z]
    same("9 random logits: equal to two classes with logits (0, z)", answer(z, y),
         np.mean(_costs(two, y)))  # fmt: skip
    case = "logits 10000 and -10000, truth 0 and 1"
    rule = (
        "Surely wrong by 10,000 costs 10,000. log(sigmoid) is log(0) there, and log(1 + "
        "exp(z)) overflows: np.logaddexp(0, z) does neither."
    )
    z, y = np.array([1e4, -1e4]), np.array([0, 1])
    same(case, _loudly(case, lambda: answer(z, y), rule, 1e4), 1e4, rule=rule)


@chapter.exercise(
    "By hand first: probabilities [1, 2, 5] / 8, true class 0. What is p - y?",
    "p is softmax(z); y has a 1 in the true class's column and 0 elsewhere.",
    "g_NC = softmax(z_NC); g_NC[np.arange(N), y_N] -= 1; return g_NC / N",
)
def cross_entropy_gradient(answer):
    "How the mean price moves with each logit."
    y = np.array([0, 2, 0, 2])
    p = (
        np.array([[1.0, 2.0, 5.0], [6.0, 1.0, 1.0], [2.0, 4.0, 2.0], [1.0, 1.0, 6.0]])
        / 8
    )
    want = np.array([[-7, 2, 5], [6, 1, -7], [-6, 4, 2], [1, 1, -2]]) / 32
    wide = p.copy()
    wide[:, y] -= 1
    same(
        "probabilities [1, 2, 5], [6, 1, 1], [2, 4, 2], [1, 1, 6] over 8, truth 0, 2, 0, 2",
        answer(np.log(p), y),
        want,
        rule="(p - y) / N, with y one-hot.",
    )
    (z,) = _random((5, 4))
    y = np.array([3, 0, 0, 2, 1])
    slopes = np.zeros((5, 4))
    for n, c in np.ndindex(5, 4):
        e = np.zeros((5, 4))
        e[n, c] = 1e-5
        slopes[n, c] = (np.mean(_costs(z + e, y)) - np.mean(_costs(z - e, y))) / 2e-5
    same("5 random rows of 4 classes, against nudged logits", answer(z, y), slopes, atol=1e-6,
         rule="The loss itself, measured at two near points, says otherwise.")  # fmt: skip
    case = "logits [[10000, 0, -10000]], true class 1"
    z, y = np.array([[1e4, 0.0, -1e4]]), np.array([1])
    rule = "It overflows: take your stable softmax."
    want = [[1.0, -1.0, 0.0]]
    same(case, _loudly(case, lambda: answer(z, y), rule, want), want, rule=rule)


def _softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def _slopes(X, y, W, b):
    g = (_softmax(X @ W + b) - np.eye(W.shape[1])[y]) / len(y)
    return X.T @ g, g.sum(0), g


@chapter.exercise(
    "Logits first, then their slopes g (N, C), then: which weight moved which logit?",
    "W[d, c] reaches logit c of row n through X[n, d]: add X[n, d] * g[n, c] over n. b "
    "reaches it directly.",
    "g_NC = cross_entropy_gradient(linear(...), y_N); W - lr * X_ND.T @ g_NC; "
    "b - lr * g_NC.sum(axis=0)",
)
def softmax_step(answer):
    "One step down for W and b."
    X, W, b = _random((6, 4), (4, 3), 3)
    y, lr = np.array([0, 2, 1, 1, 0, 2]), 0.5
    slope_W, slope_b, g = _slopes(X, y, W, b)
    case = "6 random rows, 4 features, 3 classes, lr = 0.5"
    new_W, new_b = _pair(answer(X, y, W, b, lr), "the new W and the new b")
    same(
        f"{case}: the new W",
        new_W,
        W - lr * slope_W,
        rule="W - lr * X.T @ g, with g the slopes of the logits.",
    )
    late = _slopes(X, y, W - lr * slope_W, b)[1]
    same(
        f"{case}: the new b",
        new_b,
        b - lr * slope_b,
        rule="b - lr * g.sum(axis=0).",
    )
    new_W, new_b = _pair(answer(X, y, W, b, 0.05), "the new W and the new b")
    fixed = "`lr` is an argument: your step has the same length whatever it is."
    same("the same with lr = 0.05: the new W", new_W, W - 0.05 * slope_W,
         )  # fmt: skip
    same("the same with lr = 0.05: the new b", new_b, b - 0.05 * slope_b,
         )  # fmt: skip


def _after(steps, C=3, lr=0.1):
    "W[0] (and b) after so many steps on rows x = 1 that are all of class 0."
    w = np.zeros(C)
    for _ in range(steps):
        w = w - lr * (_softmax(2 * w[None])[0] - np.eye(C)[0])
    return w


@chapter.exercise(
    "Chapter 01's sgd with another step: two loops, over epochs and over minibatches.",
    "W starts as zeros (D, C), b as zeros (C,). One generator for the run: "
    "np.random.default_rng(seed).",
    "for rows in minibatches(len(y_N), size, rng): "
    "W, b = softmax_step(X_ND[rows], y_N[rows], W, b, lr)",
)
def softmax_regression(answer):
    "Train one linear layer by minibatches."
    X, noise = _random((120, 2), (120, 2))
    y = np.arange(120) % 3
    X = 0.5 * X + 3 * np.array([[0, 1], [1, -1], [-1, -1]])[y]
    what = "W and b"
    W, b = _pair(answer(X, y, 4, lr=0.3, epochs=0, size=16, seed=0), what)
    once, _ = _pair(answer(X, y, 4, lr=0.3, epochs=1, size=16, seed=0), what)
    same("0 epochs: W for 2 features and C = 4 classes", W, np.zeros((2, 4)),

         rule="Start from zeros: then all classes are equally likely.")  # fmt: skip
    same("0 epochs: b", b, np.zeros(4), rule="b starts from zeros, one a class.")
    ones, zeros = np.ones((64, 1)), np.zeros(64, dtype=int)
    W, b = _pair(answer(ones, zeros, 3, lr=0.1, epochs=3, size=16, seed=0), what)
    case = "64 equal rows, 3 epochs of batches of 16"
    same(
        f"{case}: W after 12 steps of lr 0.1",
        W,
        _after(12)[None],
        rule="Count your steps: 3 epochs of 4 batches, each from where the last one ended.",
    )
    same(f"{case}: b", b, _after(12), rule="b moves with every step as well.")
    W, b = answer(X, y, 3, lr=0.3, epochs=20, size=16, seed=0)
    share = np.mean(np.argmax(X @ W + b, axis=1) == y)
    if share < 0.95:
        raise Miss("Do X and y go through the same row numbers?", "three separate clouds",
                   f"{share:.0%} right", "nearly all right")  # fmt: skip
    runs = [
        answer(X + noise, y, 3, lr=0.3, epochs=2, size=8, seed=s)[0] for s in (1, 1, 2)
    ]
    same("two runs with the same seed", runs[0], runs[1],
         rule="The order must come from default_rng(seed) alone.")  # fmt: skip
    if np.allclose(runs[0], runs[2], atol=1e-12):
        raise Miss("Seeds 1 and 2 give the same weights: the batches ignore the seed.",
                   "2 epochs of batches of 8", runs[2], "other weights")  # fmt: skip
    X, y = X[:4], np.array([0, 1, 2, 1])

    def step(rows, at):
        slope_W, slope_b, _ = _slopes(X[rows], y[rows], *at)
        return at[0] - 0.3 * slope_W, at[1] - 0.3 * slope_b

    two_epochs(
        lambda seed: _pair(answer(X, y, 3, lr=0.3, epochs=2, size=2, seed=seed), what),
        step,
        (np.zeros((2, 3)), np.zeros(3)),
    )


@chapter.exercise(
    "What does the network say? The class with the largest logit of the row.",
    "np.argmax(z_NC, axis=1) gives one class a row; compare with y, take the mean.",
    "return np.mean(z_NC.argmax(axis=1) == y_N)",
)
def accuracy(answer):
    "Share of rows that are right."
    z = np.array(
        [[-1.0, -3.0, -2.0], [5.0, 9.0, 2.0], [0.5, 0.1, 0.2], [1.0, 2.0, 3.0]]
    )
    y = np.array([0, 1, 2, 2])
    same(
        "4 rows, the largest logits at 0, 1, 0, 2, the truth 0, 1, 2, 2",
        answer(z, y),
        0.75,
        rule="The class with the largest logit of each row (axis=1), compared with y.",
    )
    (z,) = _random((50, 10))
    y = np.arange(50) % 10
    says = [max(range(10), key=row.__getitem__) for row in z.tolist()]
    same("50 random rows of 10 classes", answer(z, y),
         sum(a == b for a, b in zip(says, y)) / 50,
         rule="The class with the largest logit of each row (axis=1), compared with y.",
    )  # fmt: skip
