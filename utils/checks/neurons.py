"""Chapter 02: layers, bends, probabilities, the price of a surprise, and its slope."""

import numpy as np

from utils.checks.descent import two_epochs
from utils.exercises import Chapter, Miss, same

chapter = Chapter("02_neurons")
XOR = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
X_13 = np.array([[1.0, 2.0, 3.0]])
W_32 = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 1.0]])
B_2 = np.array([1.0, -1.0])
EIGHTHS = np.array([[1.0, 2.0, 5.0], [6.0, 1.0, 1.0]]) / 8  # rows of probabilities
LOGS = np.log(8 * EIGHTHS)  # logits of these


def _random(*shapes, seed=0):
    "Normal arrays of these shapes, the same for every reader."
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in shapes]


def _quietly(case, call, want, rule, **tolerance):
    "call() equals want, without an overflow, a 0 / 0 or a log(0) on its way."
    try:
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            got = call()
    except (FloatingPointError, RuntimeWarning) as error:
        raise Miss(rule, case, f"{error}", want) from None
    same(case, got, want, rule, **tolerance)


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
    rule = "Output h of a row: the row times column h of W, added up, plus b[h]."
    X, W = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 0.0], [-1.0, 2.0]])
    b = np.array([10.0, 20.0])
    same(
        "linear([[1, 2], [3, 4]], W = [[1, 0], [-1, 2]], b = [10, 20])",
        answer(X, W, b),
        [[9.0, 24.0], [9.0, 28.0]],  # 1*1 + 2*(-1) + 10, and so on, by hand
        rule,
    )
    same("the row (1, 2, 3) of the text", answer(X_13, W_32, B_2), [[-1.0, 4.0]], rule)
    X, W, b = _random((5, 4), (4, 3), 3)
    want = [
        [sum(x * w for x, w in zip(row, column)) + c for column, c in zip(W.T, b)]
        for row in X
    ]
    same("5 random rows, 4 inputs, 3 outputs", answer(X, W, b), want, rule)
    W, b, want = W[:, :1], b[:1], [row[:1] for row in want]
    same(
        "5 random rows, 4 inputs, 1 output",
        answer(X, W, b),
        want,
        "One column: (N, 1).",
    )


@chapter.exercise(
    "Negative numbers become 0; the others stay as they are.",
    "Compare every element with 0 and keep the larger one.",
    "return np.maximum(z, 0): maximum compares two arrays, np.max finds one number.",
)
def relu(answer):
    "The positive part, element by element."
    rule = "Element by element: 0 below 0, the number itself above."
    z = np.array([-2.0, -0.5, 0.0, 0.5, 30.0])
    same("relu([-2, -0.5, 0, 0.5, 30])", answer(z), [0.0, 0.0, 0.0, 0.5, 30.0], rule)
    (z,) = _random((3, 4))
    same("any shape: 3 x 4 random numbers", answer(z), z * (z > 0), rule)


@chapter.exercise(
    "What comes out of one layer goes into the next: a loop over the layers.",
    "Bend after every layer but the last: layers[:-1] gets `bend`, layers[-1] does not.",
    "for W, b in layers[:-1]: h = bend(linear(h, W, b));  then linear(h, *layers[-1])",
)
def mlp_forward(answer):
    "Through all layers, bent between two of them."
    V, c = np.array([[2.0], [0.5]]), np.array([-9.0])
    same(
        "x = (1, 2, 3) through the layers of the text, with c = -9 at the end",
        answer(X_13, [(W_32, B_2), (V, c)], lambda z: np.maximum(z, 0)),
        [[-7.0]],
        rule="layer, bend, layer: (1, 2, 3) -> (-1, 4) -> (0, 4) -> 2 - 9.",
    )
    X, *parts = _random((4, 3), (3, 5), 5, (5, 5), 5, (5, 2), 2)
    layers = list(zip(parts[::2], parts[1::2]))
    (W1, b1), (W2, b2), (W3, b3) = layers
    same(
        "three layers, 3 -> 5 -> 5 -> 2, with bend = np.tanh",
        answer(X, layers, np.tanh),
        np.tanh(np.tanh(X @ W1 + b1) @ W2 + b2) @ W3 + b3,
        rule="Each turn of the loop takes the last layer's h and replaces it, bent.",
    )
    same(
        "one layer alone, 3 -> 5",
        answer(X, [(W1, b1)], np.tanh),
        X @ W1 + b1,
        rule="The only layer is the last one: it is not bent.",
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
    got = "[(W {}, b {}), (V {}, c {})]".format(*(part.shape for part in (W, b, V, c)))
    same("the shapes", got, shapes, "W is inputs by units, V is units by outputs.")
    same(
        "what it says at (0,0), (0,1), (1,0), (1,1)",
        (np.maximum(XOR @ W + b, 0) @ V + c)[:, 0],
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
    rule = "1 / (1 + exp(-z)), element by element: 1/2 at 0, 3/4 at ln 3."
    z = np.log([3.0, 1.0, 1 / 3])
    same("sigmoid([ln 3, 0, -ln 3])", answer(z), [0.75, 0.5, 0.25], rule)
    (z,) = _random((3, 4))
    same("any shape: 3 x 4 random numbers", answer(z), 1 / (1 + np.exp(-z)), rule)
    _quietly(
        "sigmoid([-10000, 10000])",
        lambda: answer(np.array([-1e4, 1e4])),
        [0.0, 1.0],
        rule="It overflows on the way: exp of a large positive number. Mind that np.where "
        "computes both sides for every z.",
    )
    z = np.array([-30.0, -50.0, -300.0])
    got = np.asarray(answer(z))
    with np.errstate(all="ignore"):
        log = np.log(got)
    same("the log of sigmoid([-30, -50, -300])", log, z, "Far to the left sigmoid(z) is "
         "exp(z), tiny but not 0: for z < 0 use the twin, exp(z) / (1 + exp(z)).")  # fmt: skip


@chapter.exercise(
    "tanh and sigmoid have slopes that you can write with their own values.",
    "tanh: 1 minus its value squared. sigmoid: its value times (1 - its value). relu: 0 "
    "up to and at 0, then 1.",
    "s = sigmoid(z): s * (1 - s);  t = np.tanh(z): 1 - t**2;  np.where(z > 0, 1.0, 0.0)",
)
def slope(answer):
    "The slope of each bend."
    z, h = np.array([-2.0, -0.3, 0.4, 3.0]), 1e-5
    bends = {
        "relu": (lambda z: np.maximum(z, 0), "0 below 0, 1 above."),
        "tanh": (np.tanh, "1 - tanh(z)**2."),
        "sigmoid": (
            lambda z: 1 / (1 + np.exp(-z)),
            "s * (1 - s), with s = sigmoid(z).",
        ),
    }
    for name, (bend, rule) in bends.items():
        nudged = (bend(z + h) - bend(z - h)) / (2 * h)
        same(
            f"slope({name!r}, [-2, -0.3, 0.4, 3])",
            answer(name, z),
            nudged,
            rule,
            atol=1e-6,
        )
    same("slope('relu', [0]): a corner, by convention", answer("relu", np.zeros(1)), [0.0],
         "At the corner everyone takes 0.")  # fmt: skip
    far = np.array([-1e4, 1e4])
    for name, want, rule in (
        ("relu", [0.0, 1.0], "0 below 0, 1 above."),
        ("tanh", [0.0, 0.0], "It overflows: 1 - np.tanh(z)**2 never does."),
        (
            "sigmoid",
            [0.0, 0.0],
            "It overflows: use your stable sigmoid instead of exp.",
        ),
    ):
        case = f"slope({name!r}, [-10000, 10000])"
        _quietly(case, lambda name=name: answer(name, far), want, rule)
    for name, at_0 in (("relu", 0.0), ("tanh", 1.0), ("sigmoid", 0.25)):
        same(f"slope({name!r}, a 2 x 3 table of zeros)", answer(name, np.zeros((2, 3))),
             np.full((2, 3), at_0), "Any shape in, the same shape out.")  # fmt: skip


@chapter.exercise(
    "exp makes every logit positive, dividing by the row's sum makes them add up to 1.",
    "Subtract each row's largest logit first: the shares stay, and exp never sees more "
    "than 0. keepdims=True keeps a column, (N, 1), so that rows meet their own number.",
    "e = np.exp(z - z.max(axis=1, keepdims=True));  e / e.sum(axis=1, keepdims=True)",
)
def softmax(answer):
    "Each row of logits as probabilities."
    rule = "Every row: exp of each, over the sum of the row's exps, and nothing added."
    z = np.log([[1.0, 2.0, 5.0], [12.0, 2.0, 2.0], [1.0, 2.0, 1.0]])
    want = np.array([[1, 2, 5], [6, 1, 1], [2, 4, 2]]) / 8
    same(
        "softmax of the logs of [1, 2, 5], [12, 2, 2] and [1, 2, 1]",
        answer(z),
        want,
        rule,
    )
    same("2 rows of 3 classes", answer(LOGS), EIGHTHS, rule)
    z = np.array([[1e4, 0.0, -1e4], [-1e4, 1e4, 0.0]])
    _quietly(
        "softmax([[10000, 0, -10000], [-10000, 10000, 0]])",
        lambda: answer(z),
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        rule="It overflows: exp of a large positive number. The largest logit of a row "
        "must become 0 first.",
    )
    far = np.array([[1e4, 9999.0], [-1e4, -9999.0]])
    _quietly(
        "two rows far apart, [[10000, 9999], [-10000, -9999]]",
        lambda: answer(far),
        np.array([[np.e, 1.0], [1.0, np.e]]) / (1 + np.e),
        rule="Subtract each row's own maximum, not one for the whole table.",
    )


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
    rule = (
        "Each row: log(sum(exp(z))) minus the logit of its true class; then the mean."
    )
    same(
        "probabilities [1, 2, 5] / 8 and [6, 1, 1] / 8, true classes 1 and 0",
        answer(LOGS, np.array([1, 0])),
        (np.log(8 / 2) + np.log(8 / 6)) / 2,
        rule,
    )
    (z,) = _random((6, 4))
    y = np.array([0, 3, 1, 1, 2, 0])
    same("6 random rows of 4 classes", answer(z, y), np.mean(_costs(z, y)), rule)
    z, y = np.zeros((3, 10)), np.array([1, 5, 9])
    same(
        "3 rows of ten equal logits",
        answer(z, y),
        np.log(10),
        "Ten equal bets cost ln 10.",
    )
    hard, ones = np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([1, 1])
    _quietly(
        "logits [[10000, 0], [0, 10000]], true classes 1 and 1",
        lambda: answer(hard, ones),
        5000.0,
        rule="Surely wrong by 10,000 costs 10,000, in the mean 5,000. log(softmax) cannot "
        "know: the probability has already become 0. Stay with the logits.",
    )
    far, zeros = np.array([[1e4, 9999.0], [-1e4, -9999.0]]), np.array([0, 0])
    _quietly(
        "logits [[10000, 9999], [-10000, -9999]], true classes 0 and 0",
        lambda: answer(far, zeros),
        (np.log(1 + 1 / np.e) + np.log(1 + np.e)) / 2,
        rule="Subtract the row's own largest logit, then add it again.",
    )


@chapter.exercise(
    "One logit z means p = sigmoid(z) for class 1 and 1 - p for class 0.",
    "-log p = log(1 + exp(-z)) and -log(1 - p) = log(1 + exp(z)); they differ by z.",
    "np.mean(np.logaddexp(0, z_N) - y_N * z_N): logaddexp(0, z) is log(1 + exp(z)), stable",
)
def binary_cross_entropy(answer):
    "The price for two classes, from one logit per row."
    rule = (
        "Class 1 pays -log(sigmoid(z)), class 0 pays -log(1 - sigmoid(z)): their mean."
    )
    z, y = np.log([3.0, 7.0]), np.array([1, 0])  # p = 3/4 and 7/8
    same(
        "p = 3/4 and 7/8 (logits ln 3, ln 7), truth 1 and 0",
        answer(z, y),
        (np.log(4 / 3) + np.log(8)) / 2,
        rule,
    )
    (z,) = _random(9)
    y, two = np.arange(9) % 2, np.c_[np.zeros(9), z]
    same("9 random logits: equal to two classes with logits (0, z)", answer(z, y),
         np.mean(_costs(two, y)), rule)  # fmt: skip
    far, wrong = np.array([1e4, -1e4]), np.array([0, 1])
    _quietly(
        "logits 10000 and -10000, truth 0 and 1",
        lambda: answer(far, wrong),
        1e4,
        rule="Surely wrong by 10,000 costs 10,000. log(sigmoid) is log(0) there, and log(1 "
        "+ exp(z)) overflows: np.logaddexp(0, z) does neither.",
    )


@chapter.exercise(
    "By hand first: probabilities [1, 2, 5] / 8, true class 0. What is p - y?",
    "p is softmax(z); y has a 1 in the true class's column and 0 elsewhere.",
    "g_NC = softmax(z_NC); g_NC[np.arange(N), y_N] -= 1; return g_NC / N",
)
def cross_entropy_gradient(answer):
    "How the mean price moves with each logit."
    p = np.array([[1, 2, 5], [6, 1, 1], [2, 4, 2], [1, 1, 6]]) / 8
    same(
        "probabilities [1, 2, 5], [6, 1, 1], [2, 4, 2], [1, 1, 6] over 8, truth 0, 2, 0, 2",
        answer(np.log(p), np.array([0, 2, 0, 2])),
        np.array([[-7, 2, 5], [6, 1, -7], [-6, 4, 2], [1, 1, -2]]) / 32,
        rule="(p - y) / N, with y one-hot.",
    )
    (z,) = _random((5, 4))
    y = np.array([3, 0, 0, 2, 1])
    slopes = np.zeros((5, 4))
    for n, c in np.ndindex(5, 4):
        e = np.zeros((5, 4))
        e[n, c] = 1e-5
        slopes[n, c] = (np.mean(_costs(z + e, y)) - np.mean(_costs(z - e, y))) / 2e-5
    same("5 random rows of 4 classes, against nudged logits", answer(z, y), slopes,
         "The loss itself, measured at two near points, says otherwise.", atol=1e-6)  # fmt: skip
    far, one = np.array([[1e4, 0.0, -1e4]]), np.array([1])
    case = "logits [[10000, 0, -10000]], true class 1"
    rule = "It overflows: take your stable softmax."
    _quietly(case, lambda: answer(far, one), [[1.0, -1.0, 0.0]], rule)


def _slopes(X, y, W, b):
    "Slopes of the mean price along W and b."
    e = np.exp(X @ W + b)
    g = (e / e.sum(1, keepdims=True) - np.eye(W.shape[1])[y]) / len(y)
    return X.T @ g, g.sum(0)


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
    y = np.array([0, 2, 1, 1, 0, 2])
    slope_W, slope_b = _slopes(X, y, W, b)
    case = "6 random rows, 4 features, 3 classes, lr = 0.5"
    new_W, new_b = _pair(answer(X, y, W, b, 0.5), "the new W and the new b")
    same(f"{case}: the new W", new_W, W - 0.5 * slope_W,
         "W - lr * X.T @ g, with g the slopes of the logits.")  # fmt: skip
    same(f"{case}: the new b", new_b, b - 0.5 * slope_b, "b - lr * g.sum(axis=0).")
    rule = "`lr` is an argument: the step grows and shrinks with it."
    new_W, new_b = _pair(answer(X, y, W, b, 0.05), "the new W and the new b")
    same("the same with lr = 0.05: the new W", new_W, W - 0.05 * slope_W, rule)
    same("the same with lr = 0.05: the new b", new_b, b - 0.05 * slope_b, rule)


@chapter.exercise(
    "Chapter 01's sgd with another step: two loops, over epochs and over minibatches.",
    "W starts as zeros (D, C), b as zeros (C,). One generator for the run: "
    "np.random.default_rng(seed).",
    "for rows in minibatches(len(y_N), size, rng): "
    "W, b = softmax_step(X_ND[rows], y_N[rows], W, b, lr)",
)
def softmax_regression(answer):
    "Train one linear layer by minibatches."

    def trained(X, y, C, lr, epochs, size, seed=0):
        return _pair(
            answer(X, y, C, lr=lr, epochs=epochs, size=size, seed=seed), "W and b"
        )

    X, y = np.ones((10, 1)), np.zeros(10, int)
    W, b = trained(X, y, 3, lr=0.1, epochs=0, size=4)
    case = "10 equal rows of 1 feature, C = 3 classes, 0 epochs"
    same(f"{case}: W", W, np.zeros((1, 3)), "W starts as zeros, (D, C).")
    same(f"{case}: b", b, np.zeros(3), "b starts from zeros, one per class.")
    case = "10 rows x = 1, all of class 0, 5 epochs of batches of 4, lr = 0.1"
    W, b = trained(X, y, 3, lr=0.1, epochs=5, size=4)
    want = np.zeros((1, 3)), np.zeros(3)
    for _ in range(15):
        want = _stepped(X, y, *want, 0.1)
    rule = "Count your steps: 5 epochs of 3 batches (4, 4 and 2 rows) are 15."
    same(f"{case}: W", W, want[0], rule)
    same(f"{case}: b", b, want[1], rule)
    X, y = _random((120, 2))[0], np.arange(120) % 3
    X = 0.5 * X + 3 * np.array([[0, 1], [1, -1], [-1, -1]])[y]
    W, b = trained(X, y, 3, lr=0.3, epochs=20, size=16)
    share = np.mean(np.argmax(X @ W + b, axis=1) == y)
    same("three separate clouds, 20 epochs: are 95% of the rows right?", share > 0.95, True,
         "Do X and y go through the same row numbers?")  # fmt: skip
    X, y = X[:3] + _random((3, 2))[0], np.array([0, 1, 1])
    two_epochs(
        lambda seed: trained(X, y, 3, lr=0.3, epochs=2, size=2, seed=seed),
        lambda rows, at: _stepped(X[rows], y[rows], *at, 0.3),
        (np.zeros((2, 3)), np.zeros(3)),
    )


def _stepped(X, y, W, b, lr):
    slope_W, slope_b = _slopes(X, y, W, b)
    return W - lr * slope_W, b - lr * slope_b


@chapter.exercise(
    "What does the network say? The class with the largest logit of the row.",
    "np.argmax(z_NC, axis=1) gives one class per row; compare with y, take the mean.",
    "return np.mean(z_NC.argmax(axis=1) == y_N)",
)
def accuracy(answer):
    "Share of rows that are right."
    rule = "The class with the largest logit of each row (axis=1), compared with y: the mean."
    z = [[-1, -3, 9], [5, 7, 2], [0.5, 0.3, 0.2], [3, 1, 2], [4, 2.5, 1], [1, 2, 3]]
    y = np.array([2, 1, 2, 0, 1, 2])
    case = "6 rows, the largest logits at 2, 1, 0, 0, 0, 2, the truth 2, 1, 2, 0, 1, 2"
    same(case, answer(np.array(z), y), 4 / 6, rule)
    (z,) = _random((50, 10))
    y = np.arange(50) % 10
    right = [max(range(10), key=row.__getitem__) == k for row, k in zip(z.tolist(), y)]
    same("50 random rows of 10 classes", answer(z, y), sum(right) / 50, rule)
