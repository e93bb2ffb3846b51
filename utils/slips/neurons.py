import numpy as np

from utils.built import neurons as right
from utils.checks import neurons as ex

# ---- linear ----


@ex.linear.slip("Where is b? Every row gets it.")
def no_bias(X, W, b):
    return X @ W


@ex.linear.slip(
    "`*` multiplies without adding up: no output hears more than one input. Use `@`."
)
def element_wise(X, W, b):
    return X * W + b


@ex.linear.slip("W lies on its side: its columns are the outputs, so no `.T` here.")
def transposed(X, W, b):
    return X @ W.T + b


@ex.linear.slip("The order counts: rows of X meet columns of W, X @ W.")
def textbook_order(X, W, b):
    return W @ X + b


@ex.linear.slip("b belongs to the outputs, not to the rows: add it as it is, (H,).")
def bias_a_row(X, W, b):
    return X @ W + b[:, None]


@ex.linear.slip(told="is a `return` missing?")
def prints(X, W, b):
    print(X @ W + b)


@ex.linear.slip(told="changes its input in place")
def in_place(X, W, b):
    b += 1
    return X @ W + b - 1


@ex.linear.slip("b is added, not multiplied.")
def bias_times(X, W, b):
    return X @ W * b


@ex.linear.slip("One column of outputs stays a column, (N, 1): no squeeze.")
def squeezed(X, W, b):
    return (X @ W + b).squeeze()


@ex.linear.slip("b was added to every product: it counts once per output.")
def bias_per_input(X, W, b):
    return X @ W + len(W) * b


@ex.linear.slip("All outputs of a row were added up: each output keeps its own sum.")
def outputs_added(X, W, b):
    return (X @ W + b).sum(1)


# ---- relu ----


@ex.relu.slip(
    "np.max finds the one largest number; np.maximum compares element by element."
)
def max_of_all(z):
    return np.max(z, 0)


@ex.relu.slip("This is the absolute value: negative numbers become 0.")
def absolute(z):
    return np.abs(z)


@ex.relu.slip("This is a switch, 0 or 1: where it is on, let the number itself pass.")
def switch(z):
    return (z > 0).astype(float)


@ex.relu.slip("Upside down: this keeps the negative part.")
def upside_down(z):
    return np.minimum(z, 0)


@ex.relu.slip("It leaks below 0. That is a cousin, leaky ReLU; ours is 0 there.")
def leaky(z):
    return np.where(z > 0, z, 0.01 * z)


@ex.relu.slip(told="changes its input in place")
def relu_in_place(z):
    z[z < 0] = 0
    return z


@ex.relu.slip("It cuts at 1 too: above 0, relu never flattens.")
def cuts_at_one(z):
    return np.clip(z, 0, 1)


@ex.relu.slip("It cuts at 6 too (a cousin, ReLU6): above 0, relu never flattens.")
def cuts_at_six(z):
    return np.clip(z, 0, 6)


@ex.relu.slip(
    "Python's max asks one question of a whole array: np.maximum compares element by element."
)
def pythons_max(z):
    return max(z, 0)


@ex.relu.slip("This visits one axis only: np.maximum takes an array of any shape.")
def one_axis_only(z):
    return np.array([max(value, 0.0) for value in z])


@ex.relu.slip("The negative numbers are left out: each becomes a 0 in its place.")
def leaves_out(z):
    return z[z >= 0]


@ex.relu.slip("Numbers between 0 and 1 are lost: compare with 0, not with 1.")
def above_one(z):
    return np.where(z > 1, z, 0.0)


# ---- mlp_forward ----


def _mlp(X, layers, bend, between=True, last=False, first=False):
    h = bend(X) if first else X
    for i, (W, b) in enumerate(layers):
        h = h @ W + b
        if (between and i < len(layers) - 1) or (last and i == len(layers) - 1):
            h = bend(h)
    return h


@ex.mlp_forward.slip(
    "It bends after the last layer too: then no network could say a negative number."
)
def bends_the_end(X, layers, bend=right.relu):
    return _mlp(X, layers, bend, last=True)


@ex.mlp_forward.slip("It never bends: two straight layers are one straight layer.")
def never_bends(X, layers, bend=right.relu):
    return _mlp(X, layers, bend, between=False)


@ex.mlp_forward.slip(
    "It uses relu whatever `bend` is: call the function you are given."
)
def always_relu(X, layers, bend=right.relu):
    return _mlp(X, layers, right.relu)


@ex.mlp_forward.slip("This is what the first layer says: the loop ends too early.")
def forgets_the_last(X, layers, bend=right.relu):
    for W, b in layers[:-1]:
        X = bend(X @ W + b)
    return X


@ex.mlp_forward.slip("It bends once only: every layer but the last is bent.")
def bends_once(X, layers, bend=right.relu):
    for i, (W, b) in enumerate(layers):
        X = X @ W + b
        if i == 0 and len(layers) > 1:
            X = bend(X)
    return X


@ex.mlp_forward.slip(
    "Each layer reads the input X again: hand h on, from turn to turn."
)
def always_from_the_input(X, layers, bend=right.relu):
    h = X
    for W, b in layers[:-1]:
        h = bend(X @ W + b)
    W, b = layers[-1]
    return h @ W + b


@ex.mlp_forward.slip(
    "One layer alone is first and last at once: it comes once, and is not bent."
)
def first_and_last_by_hand(X, layers, bend=right.relu):
    h = bend(X @ layers[0][0] + layers[0][1])
    for W, b in layers[1:-1]:
        h = bend(h @ W + b)
    return h @ layers[-1][0] + layers[-1][1]


@ex.mlp_forward.slip("It bends the input before the first layer.")
def bends_before(X, layers, bend=right.relu):
    return _mlp(X, layers, bend, first=True)


@ex.mlp_forward.slip("The same layer twice: take each W and b from its own pair.")
def first_layer_again(X, layers, bend=right.relu):
    W, b = layers[0]
    h = X
    for _ in layers[:-1]:
        h = bend(h @ W + b)
    W, b = layers[-1]
    return h @ W + b


@ex.mlp_forward.slip(
    "Layers between the first and the last are left out: loop over all."
)
def two_layers_only(X, layers, bend=right.relu):
    if len(layers) == 1:
        return _mlp(X, layers, bend)
    return _mlp(X, [layers[0], layers[-1]], bend)


@ex.mlp_forward.slip("The biases are missing: each layer adds its own b.")
def no_biases(X, layers, bend=right.relu):
    return _mlp(X, [(W, 0 * b) for W, b in layers], bend)


@ex.mlp_forward.slip(told="changes its input in place")
def pops_the_last(X, layers, bend=right.relu):
    W, b = layers.pop()
    for V, c in layers:
        X = bend(X @ V + c)
    return X @ W + b


# ---- xor_layers ----


ONES, HOLD = np.ones((2, 2)), np.array([0.0, -1.0])
TOP = np.array([[1.0], [-2.0]])
for sentence, layers in {
    "That is OR: one up is right, but both up must come down to 0. The second unit has to pull twice as hard.": (
        [(ONES, HOLD), (np.array([[1], [-1]]), [0])]
    ),
    "That is AND: it wakes up at both only.": (
        [(ONES, HOLD), (np.array([[0], [1]]), [0])]
    ),
    "The second unit wakes up too early: its b holds it back until both are up.": (
        [(ONES, [0, 0]), (TOP, [0])]
    ),
    "Exactly the opposite: turn the signs of V, and lift with c.": (
        [(ONES, HOLD), (-TOP, [1])]
    ),
    "That is the sum: the second unit never bends anything.": (
        [(ONES, HOLD), (np.eye(2)[:, :1], [0])]
    ),
    "Both hidden units are awake at all four corners, so nothing bends: their b is too large.": (
        [(ONES, [5, 5]), (TOP, [0])]
    ),
    "Both hidden units sleep at all four corners: their b is too low.": (
        [(ONES, [-2, -3]), (TOP, [0])]
    ),
    "Only one of the two switches counts: give each unit a weight for both.": (
        [(np.array([[1.0, 1.0], [0.0, 0.0]]), HOLD), (TOP, [0])]
    ),
    "V is units by outputs, (2, 1): a column, as in np.array([[1.0], [-2.0]]).": (
        [(ONES, HOLD), ([1, -2], [0])]
    ),
    "W and V alone: each layer is a pair, weights and b.": [ONES, TOP],
    "Each b is an array with one number per unit, not a bare number.": (
        [(ONES, 0.0), (TOP, 0.0)]
    ),
    "Two hidden units are enough: W is (2, 2), a column per unit.": (
        [(np.ones((2, 3)), [0, -1, -2]), (np.ones((3, 1)), [0])]
    ),
}.items():
    ex.xor_layers.slip(sentence)(layers)
ex.xor_layers.slip(told="a list of two layers")([0, 1, 1, 0])
ex.xor_layers.slip(told="a list of two layers")((ONES, HOLD, TOP, np.zeros(1)))


# ---- sigmoid ----


@ex.sigmoid.slip(
    "It overflows on the way: exp of a large positive number. Mind that np.where computes both sides for every z."
)
def naive(z):
    return 1 / (1 + np.exp(-z))


@ex.sigmoid.slip(
    "It overflows on the way: exp of a large positive number. Mind that np.where computes both sides for every z."
)
def other_naive(z):
    return np.exp(z) / (1 + np.exp(z))


@ex.sigmoid.slip(
    "It overflows on the way: exp of a large positive number. Mind that np.where computes both sides for every z."
)
def both_sides(z):
    return np.where(z >= 0, 1 / (1 + np.exp(-z)), np.exp(z) / (1 + np.exp(z)))


@ex.sigmoid.slip("The sign is turned: large z should give almost 1.")
def turned(z):
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, e, 1) / (1 + e)


@ex.sigmoid.slip("This is tanh, from -1 to 1: sigmoid goes from 0 to 1.")
def hyperbolic(z):
    return np.tanh(z)


@ex.sigmoid.slip("Both sides use |z|: below 0 the curve must go down to 0, not up.")
def folded(z):
    return 1 / (1 + np.exp(-np.abs(z)))


@ex.sigmoid.slip("It has been cut off: z itself must not be clipped.")
def clipped(z):
    return 1 / (1 + np.exp(-np.clip(z, -20, 20)))


@ex.sigmoid.slip(
    "inf / inf is nan, warning or not: never take exp of a large positive number."
)
def silenced(z):
    with np.errstate(all="ignore"):
        return np.exp(z) / (1 + np.exp(z))


@ex.sigmoid.slip("It has been cut off: z itself must not be clipped.")
def clipped_wider(z):
    return 1 / (1 + np.exp(-np.clip(z, -30, 30)))


@ex.sigmoid.slip(
    "The left tail is lost: 1 minus a number near 1 rounds to 0. For z < 0 use the twin, exp(z) / (1 + exp(z))."
)
def one_minus(z):
    s = 1 / (1 + np.exp(-np.abs(z)))
    return np.where(z >= 0, s, 1 - s)


@ex.sigmoid.slip(
    "The left tail is lost: 1 plus a number near -1 rounds to 0. For z < 0 use the twin, exp(z) / (1 + exp(z))."
)
def by_tanh(z):
    return (1 + np.tanh(z / 2)) / 2


@ex.sigmoid.slip("This is exp(-z) alone: 1 / (1 + exp(-z)).")
def only_exp(z):
    return np.exp(-z)


@ex.sigmoid.slip("Half as steep: exp(-z), not exp(-z / 2).")
def half_as_steep(z):
    return 1 / (1 + np.exp(-z / 2))


@ex.sigmoid.slip(
    "It computes in float32, where exp(-300) is 0: keep z as it is, in float64."
)
def in_float32(z):
    z = z.astype(np.float32)
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)


@ex.sigmoid.slip(
    "`if` asks one question of the whole array: np.where asks each element."
)
def asks_the_array(z):
    if z >= 0:
        return 1 / (1 + np.exp(-z))
    return np.exp(z) / (1 + np.exp(z))


@ex.sigmoid.slip("This visits one axis only: np.exp takes an array of any shape.")
def sigmoid_one_axis_only(z):
    return np.array(
        [1 / (1 + np.exp(-v)) if v >= 0 else np.exp(v) / (1 + np.exp(v)) for v in z]
    )


@ex.sigmoid.slip("A small number keeps the result from its tail: add nothing.")
def adds_a_little(z):
    return right.sigmoid(z) + 1e-12


# ---- slope ----


def _slope(bend, z, **changed):
    return changed[bend] if bend in changed else right.slope(bend, z)


@ex.slope.slip("This is relu itself: where it lets z pass, its slope is 1.")
def relu_value(bend, z):
    return _slope(bend, z, relu=right.relu(z))


@ex.slope.slip("At the corner any slope from 0 to 1 would do; everyone takes 0.")
def one_at_the_corner(bend, z):
    return _slope(bend, z, relu=np.where(z >= 0, 1.0, 0.0))


@ex.slope.slip("At the corner one takes 0, not the middle.")
def half_at_the_corner(bend, z):
    return _slope(bend, z, relu=np.heaviside(z, 0.5))


@ex.slope.slip("This is 1 - tanh: square it first.")
def tanh_unsquared(bend, z):
    return _slope(bend, z, tanh=1 - np.tanh(z))


@ex.slope.slip("This squares z: square tanh(z).")
def squares_z(bend, z):
    return _slope(bend, z, tanh=1 - z**2)


@ex.slope.slip("This multiplies z by 1 - z: take the sigmoid's value.")
def of_z(bend, z):
    return _slope(bend, z, sigmoid=z * (1 - z))


@ex.slope.slip("This is the sigmoid itself.")
def sigmoid_value(bend, z):
    return _slope(bend, z, sigmoid=right.sigmoid(z))


@ex.slope.slip("It overflows: use your stable sigmoid instead of exp.")
def quotient_rule(bend, z):
    if bend == "sigmoid":
        return np.exp(-z) / (1 + np.exp(-z)) ** 2
    return _slope(bend, z)


@ex.slope.slip("At the corner one takes 0, not the middle.")
def nudges(bend, z):
    f, h = right.BENDS[bend], 1e-5
    return (f(z + h) - f(z - h)) / (2 * h)


@ex.slope.slip("It overflows: 1 - np.tanh(z)**2 is the same slope and never does.")
def over_cosh(bend, z):
    return 1 / np.cosh(z) ** 2 if bend == "tanh" else _slope(bend, z)


@ex.slope.slip("Below 0 relu is flat, slope 0, not falling.")
def sign_of_z(bend, z):
    return _slope(bend, z, relu=np.sign(z))


@ex.slope.slip("Between 0 and 1 relu rises as well: compare with 0.")
def only_above_one(bend, z):
    return _slope(bend, z, relu=np.where(z > 1, 1.0, 0.0))


@ex.slope.slip("This is the slope of leaky ReLU: ours is flat below 0.")
def slope_leaky(bend, z):
    return _slope(bend, z, relu=np.where(z > 0, 1.0, 0.01))


@ex.slope.slip("`if` asks one question of the whole array: np.where(z > 0, 1.0, 0.0).")
def slope_asks_the_array(bend, z):
    if bend == "relu":
        return 1.0 if z > 0 else 0.0
    return right.slope(bend, z)


@ex.slope.slip("This is tanh itself.")
def tanh_value(bend, z):
    return _slope(bend, z, tanh=np.tanh(z))


@ex.slope.slip("This is the sigmoid's slope.")
def sigmoid_for_tanh(bend, z):
    return _slope(bend, z, tanh=right.slope("sigmoid", z))


@ex.slope.slip("This is t * (1 - t), the sigmoid's formula with tanh in it: 1 - t**2.")
def sigmoids_formula(bend, z):
    return _slope(bend, z, tanh=np.tanh(z) * (1 - np.tanh(z)))


@ex.slope.slip("This is s squared: s times (1 - s).")
def squared(bend, z):
    return _slope(bend, z, sigmoid=right.sigmoid(z) ** 2)


@ex.slope.slip("This is 1 - s**2, tanh's formula with the sigmoid in it: s * (1 - s).")
def tanhs_formula(bend, z):
    return _slope(bend, z, sigmoid=1 - right.sigmoid(z) ** 2)


@ex.slope.slip("This is tanh's slope.")
def tanh_for_sigmoid(bend, z):
    return _slope(bend, z, sigmoid=right.slope("tanh", z))


@ex.slope.slip("The sign is turned: the sigmoid only rises.")
def falling(bend, z):
    return _slope(bend, z, sigmoid=-right.slope("sigmoid", z))


@ex.slope.slip("A slope is wanted at each z: an array of the same shape.")
def first_only(bend, z):
    return right.slope(bend, z) if z.ndim == 1 else right.slope(bend, z)[0]


# ---- softmax ----


def _shares(z, top=True):
    e = np.exp(z - z.max(1, keepdims=True) if top else z)
    return e / e.sum(1, keepdims=True)


@ex.softmax.slip(
    "It overflows: exp of a large positive number. The largest logit of a row must become 0 first."
)
def naive_softmax(z):
    return _shares(z, top=False)


@ex.softmax.slip("The columns add up to 1: a row is one example, so sum along axis=1.")
def down_the_columns(z):
    e = np.exp(z - z.max(0))
    return e / e.sum(0)


@ex.softmax.slip("The whole table adds up to 1: each row must.")
def whole_table(z):
    e = np.exp(z - z.max())
    return e / e.sum()


@ex.softmax.slip(
    "The row sums went to the columns: keepdims=True keeps them a column, (N, 1)."
)
def no_keepdims(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1)


@ex.softmax.slip("The row maxima went to the columns: keepdims=True.")
def max_without_keepdims(z):
    e = np.exp(z - z.max(1))
    return e / e.sum(1, keepdims=True)


@ex.softmax.slip("Both went to the columns: max and sum need keepdims=True.")
def neither_keeps_dims(z):
    e = np.exp(z - z.max(1))
    return e / e.sum(1)


@ex.softmax.slip("Subtract each row's own maximum, not one for the whole table.")
def one_maximum(z):
    e = np.exp(z - z.max())
    return e / e.sum(1, keepdims=True)


@ex.softmax.slip(
    "It clips the logits: then 10000 and 9999 become equal. Subtract instead."
)
def clips(z):
    return _shares(np.clip(z, -500, 500), top=False)


@ex.softmax.slip("These are the logits over their sum: exp comes first.")
def shares_of_logits(z):
    return z / z.sum(1, keepdims=True)


@ex.softmax.slip("This is exp, not yet divided by the row's sum.")
def softmax_only_exp(z):
    return np.exp(z)


def _padded(small):
    def softmax(z):
        e = np.exp(z - z.max(1, keepdims=True))
        return e / (e.sum(1, keepdims=True) + small)

    return softmax


for small in (1e-2, 1e-3, 1e-4, 1e-5):
    ex.softmax.slip(
        "A row does not quite add up to 1: the sum holds exp(0) = 1, so it needs no small number added against a division by 0."
    )(_padded(small))


@ex.softmax.slip("This is log-softmax: leave the log out.")
def log_softmax(z):
    return np.log(_shares(z))


@ex.softmax.slip("One sigmoid per logit: a row does not add up to 1.")
def sigmoids(z):
    return right.sigmoid(z)


@ex.softmax.slip("Sigmoids over their sum: take exp of each logit instead.")
def shares_of_sigmoids(z):
    s = right.sigmoid(z)
    return s / s.sum(1, keepdims=True)


@ex.softmax.slip("Powers of 2 instead of e: np.exp.")
def powers_of_two(z):
    return _shares(z * np.log(2))


@ex.softmax.slip(
    "Divided by the largest logit: only a difference leaves the shares alone. Subtract."
)
def divides_by_the_top(z):
    return _shares(z / z.max(1, keepdims=True))


@ex.softmax.slip(
    "This is a 1 at the largest logit: softmax gives the others their share."
)
def hard_max(z):
    return np.eye(z.shape[1])[z.argmax(1)]


@ex.softmax.slip(
    "The largest exp became 1: divide by the row's sum, not by its maximum."
)
def over_the_top(z):
    return np.exp(z - z.max(1, keepdims=True))


# ---- cross_entropy ----


def _prices(z, y, shares=_shares):
    return -np.log(shares(z)[np.arange(len(y)), y])


@ex.cross_entropy.slip(
    "Surely wrong by 10,000 costs 10,000, in the mean 5,000. log(softmax) cannot know: the probability has already become 0. Stay with the logits."
)
def log_of_softmax(z, y):
    return _prices(z, y).mean()


def _capped(small):
    def cross_entropy(z, y):
        return -np.log(_shares(z)[np.arange(len(y)), y] + small).mean()

    return cross_entropy


for small in (
    1e-7,
    1e-8,
    1e-9,
    1e-10,
    1e-12,
    1e-15,
    1e-16,
    1e-20,
    1e-30,
    1e-100,
    1e-300,
):
    ex.cross_entropy.slip(
        "A small number under the log caps the price: surely wrong must cost 10,000."
    )(_capped(small))


@ex.cross_entropy.slip(
    "Surely wrong by 10,000 costs 10,000, in the mean 5,000. log(softmax) cannot know: the probability has already become 0. Stay with the logits."
)
def naive_sum(z, y):
    return np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y])


@ex.cross_entropy.slip("This is the sum over the rows: take the mean.")
def summed(z, y):
    return _prices(z, y).sum()


@ex.cross_entropy.slip(
    "The sign is turned: the log of a probability is negative, a price is not."
)
def no_minus(z, y):
    return -_prices(z, y).mean()


@ex.cross_entropy.slip(
    "z[:, y] takes whole columns for every row: z[np.arange(N), y] takes one number per row."
)
def whole_columns(z, y):
    return -np.log(_shares(z))[:, y].mean()


@ex.cross_entropy.slip(
    "Averaged over all N * C numbers: only one per row counts, so divide by N."
)
def over_all(z, y):
    return -(np.eye(z.shape[1])[y] * np.log(_shares(z))).mean()


@ex.cross_entropy.slip("In bits (log2): here we count with the natural log.")
def bits(z, y):
    return _prices(z, y).mean() / np.log(2)


@ex.cross_entropy.slip("One price per row: average them.")
def a_price_a_row(z, y):
    return _prices(z, y)


@ex.cross_entropy.slip("Subtract the row's own largest logit, then add it again.")
def top_of_all(z, y):
    top = z.max()
    return np.mean(top + np.log(np.exp(z - top).sum(1)) - z[np.arange(len(y)), y])


@ex.cross_entropy.slip(
    "This is the mean of the true classes' probabilities: their log is missing."
)
def mean_probability(z, y):
    return _shares(z)[np.arange(len(y)), y].mean()


@ex.cross_entropy.slip(
    "The logit itself is not yet a log-probability: log(sum(exp(z))) is missing."
)
def minus_the_logit(z, y):
    return -z[np.arange(len(y)), y].mean()


@ex.cross_entropy.slip(
    "This treats every class as a yes or no: only the true class counts."
)
def price_of_the_others(z, y):
    return -np.log(1 - _shares(z)[np.arange(len(y)), y]).mean()


@ex.cross_entropy.slip("The log of the mean: take each row's log first, then the mean.")
def log_of_the_mean(z, y):
    return -np.log(_shares(z)[np.arange(len(y)), y].mean())


@ex.cross_entropy.slip("The largest logit was subtracted, and not added again.")
def top_not_added(z, y):
    top = z.max(1, keepdims=True)
    return np.mean(np.log(np.exp(z - top).sum(1)) - z[np.arange(len(y)), y])


@ex.cross_entropy.slip(
    "This is the price of the likeliest class: take the true one's logit."
)
def of_the_largest(z, y):
    return _prices(z, z.argmax(1)).mean()


@ex.cross_entropy.slip("This is the first row's price alone: all rows, then the mean.")
def first_row_alone(z, y):
    return _prices(z, y)[0]


@ex.cross_entropy.slip(
    "The probabilities went through softmax once more: the loss takes logits."
)
def softmax_twice(z, y):
    return _prices(_shares(z), y).mean()


# ---- binary_cross_entropy ----


@ex.binary_cross_entropy.slip("The labels are swapped: y = 1 pays -log p.")
def swapped(z, y):
    return np.mean(np.logaddexp(0, z) - (1 - y) * z)


@ex.binary_cross_entropy.slip("Rows of class 0 pay nothing: they pay -log(1 - p).")
def one_side(z, y):
    return np.mean(y * np.logaddexp(0, -z))


@ex.binary_cross_entropy.slip(
    "z has been taken for the probability: it is a logit, p = sigmoid(z)."
)
def takes_probabilities(z, y):
    return -np.mean(y * np.log(z) + (1 - y) * np.log(np.abs(1 - z)))


@ex.binary_cross_entropy.slip(
    "Surely wrong by 10,000 costs 10,000. log(sigmoid) is log(0) there, and log(1 + exp(z)) overflows: np.logaddexp(0, z) does neither."
)
def log_of_sigmoid(z, y):
    p = right.sigmoid(z)
    return -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))


@ex.binary_cross_entropy.slip(
    "Surely wrong by 10,000 costs 10,000. log(sigmoid) is log(0) there, and log(1 + exp(z)) overflows: np.logaddexp(0, z) does neither."
)
def naive_softplus(z, y):
    return np.mean(np.log(1 + np.exp(z)) - y * z)


@ex.binary_cross_entropy.slip("This is the sum over the rows: take the mean.")
def summed_binary(z, y):
    return np.sum(np.logaddexp(0, z) - y * z)


@ex.binary_cross_entropy.slip("This is the mean squared error of the probabilities.")
def binary_cross_entropy_squared(z, y):
    return np.mean((right.sigmoid(z) - y) ** 2)


def _clipped(small):
    def binary_cross_entropy(z, y):
        p = np.clip(right.sigmoid(z), small, 1 - small)
        return -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))

    return binary_cross_entropy


for small in (1e-7, 1e-8, 1e-9, 1e-10, 1e-12, 1e-15):
    ex.binary_cross_entropy.slip(
        "A clipped probability caps the price: surely wrong by 10,000 must cost 10,000. np.logaddexp(0, z) needs no probability."
    )(_clipped(small))


@ex.binary_cross_entropy.slip("The sign is turned: a price is not negative.")
def binary_cross_entropy_no_minus(z, y):
    return -np.mean(np.logaddexp(0, z) - y * z)


@ex.binary_cross_entropy.slip("One price per row: average them.")
def a_price_per_row(z, y):
    return np.logaddexp(0, z) - y * z


@ex.binary_cross_entropy.slip("In bits (log2): here we count with the natural log.")
def binary_cross_entropy_bits(z, y):
    return np.mean(np.logaddexp(0, z) - y * z) / np.log(2)


@ex.binary_cross_entropy.slip(
    "Every row pays as if it were of class 0: subtract y * z."
)
def without_y(z, y):
    return np.mean(np.logaddexp(0, z))


@ex.binary_cross_entropy.slip("Labels are 0 and 1 here: this formula is for -1 and 1.")
def for_minus_one(z, y):
    return np.mean(np.logaddexp(0, -y * z))


@ex.binary_cross_entropy.slip(
    "Surely wrong by 10,000 costs 10,000: z itself must not be clipped."
)
def clips_the_logit(z, y):
    z = np.clip(z, -500, 500)
    return np.mean(np.logaddexp(0, z) - y * z)


# ---- cross_entropy_gradient ----


def _gradient(z, y):
    return (_shares(z) - np.eye(z.shape[1])[y]) / len(y)


@ex.cross_entropy_gradient.slip(
    "The loss is a mean over N rows, so each row's slope is divided by N."
)
def no_mean(z, y):
    return _gradient(z, y) * len(y)


@ex.cross_entropy_gradient.slip(
    "The sign is turned: p - y, so that stepping against it raises the true class."
)
def y_minus_p(z, y):
    return -_gradient(z, y)


@ex.cross_entropy_gradient.slip(
    "These are the probabilities: subtract 1 at the true class."
)
def probabilities(z, y):
    return _shares(z) / len(y)


@ex.cross_entropy_gradient.slip(
    "Divided by N * C: the mean runs over rows, not over classes."
)
def over_everything(z, y):
    return _gradient(z, y) / z.shape[1]


@ex.cross_entropy_gradient.slip(
    "g[:, y] changes whole columns: g[np.arange(N), y] changes one number per row."
)
def changes_columns(z, y):
    g = _shares(z)
    g[:, y] -= 1
    return g / len(y)


@ex.cross_entropy_gradient.slip(
    "The class numbers themselves are subtracted: y must be one-hot, 1 at the true class and 0 elsewhere."
)
def minus_the_number(z, y):
    return (_shares(z) - y[:, None]) / len(y)


@ex.cross_entropy_gradient.slip(
    "That is the slope along p, -1 / p: one step of the chain is missing, from p to the logit."
)
def along_p(z, y):
    return -np.eye(z.shape[1])[y] / _shares(z) / len(y)


@ex.cross_entropy_gradient.slip("It overflows: take your stable softmax.")
def naive_gradient(z, y):
    return (_shares(z, top=False) - np.eye(z.shape[1])[y]) / len(y)


@ex.cross_entropy_gradient.slip(told="changes its input in place")
def changes_z(z, y):
    z -= z.max(1, keepdims=True)
    return _gradient(z, y)


@ex.cross_entropy_gradient.slip(
    "There is no 2 in it: that one came from chapter 01's square."
)
def with_a_two(z, y):
    return 2 * _gradient(z, y)


@ex.cross_entropy_gradient.slip("The sign is turned, and the division by N is missing.")
def y_minus_p_summed(z, y):
    return -_gradient(z, y) * len(y)


@ex.cross_entropy_gradient.slip(
    "These are the probabilities: subtract 1 at the true class, divide by N."
)
def plain_probabilities(z, y):
    return _shares(z)


@ex.cross_entropy_gradient.slip(
    "g[:, y] changes whole columns, and the division by N is missing."
)
def changes_columns_summed(z, y):
    g = _shares(z)
    g[:, y] -= 1
    return g


@ex.cross_entropy_gradient.slip(
    "The logits minus y: turn them into probabilities first."
)
def logits_minus_y(z, y):
    return (z - np.eye(z.shape[1])[y]) / len(y)


@ex.cross_entropy_gradient.slip("Only y is divided by N: divide all of p - y.")
def divides_y_alone(z, y):
    return _shares(z) - np.eye(z.shape[1])[y] / len(y)


@ex.cross_entropy_gradient.slip("Only p is divided by N: divide all of p - y.")
def divides_p_alone(z, y):
    return _shares(z) / len(y) - np.eye(z.shape[1])[y]


@ex.cross_entropy_gradient.slip(
    "Only the true class has a slope here: the other logits share the blame."
)
def true_class_only(z, y):
    return _gradient(z, y) * np.eye(z.shape[1])[y]


@ex.cross_entropy_gradient.slip(
    "p * (1 - p) is the slope of a probability: the loss's own slope is p - y."
)
def slope_of_p(z, y):
    p = _shares(z)
    return p * (1 - p) / len(y)


# ---- softmax_step ----


def _step(X, y, W, b, lr, g=None, late=False):
    g = _gradient(X @ W + b, y) if g is None else g
    new = W - lr * X.T @ g
    return new, b - lr * (_gradient(X @ new + b, y) if late else g).sum(0)


@ex.softmax_step.slip("Uphill: subtract the slope.")
def uphill(X, y, W, b, lr):
    return _step(X, y, W, b, -lr)


@ex.softmax_step.slip("The learning rate is missing.")
def no_rate(X, y, W, b, lr):
    return _step(X, y, W, b, 1)


@ex.softmax_step.slip(
    "Divided by N a second time: cross_entropy_gradient has done that."
)
def mean_twice(X, y, W, b, lr):
    return _step(X, y, W, b, lr / len(y))


@ex.softmax_step.slip("g is already divided by N: add its rows up, do not average.")
def mean_for_b(X, y, W, b, lr):
    g = _gradient(X @ W + b, y)
    return W - lr * X.T @ g, b - lr * g.mean(0)


@ex.softmax_step.slip(
    "b's slope was taken after W had moved: both belong to the same point."
)
def w_first(X, y, W, b, lr):
    return _step(X, y, W, b, lr, late=True)


@ex.softmax_step.slip(
    "b has not moved. Did you sum all of g? That is always 0: sum over the rows only, axis=0."
)
def forgets_b(X, y, W, b, lr):
    return _step(X, y, W, b, lr)[0], b


@ex.softmax_step.slip(
    "b has not moved. Did you sum all of g? That is always 0: sum over the rows only, axis=0."
)
def one_b(X, y, W, b, lr):
    g = _gradient(X @ W + b, y)
    return W - lr * X.T @ g, b - lr * g.sum()


@ex.softmax_step.slip("It should return two things, the new W and the new b.")
def only_w(X, y, W, b, lr):
    return _step(X, y, W, b, lr)[0]


@ex.softmax_step.slip("The inputs are missing: a weight counts as much as its input.")
def without_inputs(X, y, W, b, lr):
    g = _gradient(X @ W + b, y)
    return W - lr * g.sum(0), b - lr * g.sum(0)


@ex.softmax_step.slip(told="changes its input in place")
def step_in_place(X, y, W, b, lr):
    W -= lr * X.T @ _gradient(X @ W + b, y)
    return W, b


@ex.softmax_step.slip(
    "`lr` is an argument: your step has the same length whatever it is."
)
def fixed_rate(X, y, W, b, lr):
    return _step(X, y, W, b, 0.5)


@ex.softmax_step.slip("This is the step alone: take it from the old W.")
def step_alone(X, y, W, b, lr):
    new_W, new_b = _step(X, y, W, b, lr)
    return new_W - W, new_b - b


@ex.softmax_step.slip("This is the slope: step against it.")
def slopes_alone(X, y, W, b, lr):
    g = _gradient(X @ W + b, y)
    return X.T @ g, g.sum(0)


@ex.softmax_step.slip("W has not moved.")
def forgets_W(X, y, W, b, lr):
    return W, _step(X, y, W, b, lr)[1]


@ex.softmax_step.slip("It is (C, D), and W is (D, C): X.T @ g.")
def on_its_side(X, y, W, b, lr):
    new_W, new_b = _step(X, y, W, b, lr)
    return new_W.T, new_b


@ex.softmax_step.slip(
    "One number per row and class: b is used by every row, add them up."
)
def b_per_row(X, y, W, b, lr):
    g = _gradient(X @ W + b, y)
    return W - lr * X.T @ g, b - lr * g


@ex.softmax_step.slip("b is missing in the logits: linear(X_ND, W_DC, b_C).")
def without_b(X, y, W, b, lr):
    return _step(X, y, W, b, lr, g=_gradient(X @ W, y))


@ex.softmax_step.slip("The order is turned: the new W first, then the new b.")
def b_before_W(X, y, W, b, lr):
    return _step(X, y, W, b, lr)[::-1]


@ex.softmax_step.slip("The truth is missing: g is (p - y) / N, not p / N.")
def forgets_the_truth(X, y, W, b, lr):
    p = _shares(X @ W + b) / len(y)
    return _step(X, y, W, b, lr, g=p)


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


@ex.softmax_regression.slip("W has not moved: is the step's result kept?")
def forgets_the_step(X, y, C, lr, epochs, size, seed):
    return _train(X, y, C, lr, epochs, size, seed, keep=False)


@ex.softmax_regression.slip("One step per epoch: does every epoch visit every batch?")
def one_batch_an_epoch(X, y, C, lr, epochs, size, seed):
    return _train(X, y, C, lr, epochs, size, seed, batches=1)


@ex.softmax_regression.slip(
    "All seeds give the same weights: the batches ignore the seed."
)
def never_shuffles(X, y, C, lr, epochs, size, seed):
    return _train(X, y, C, lr, epochs, size, seed, shuffle=False)


@ex.softmax_regression.slip("The order must come from default_rng(seed) alone.")
def unseeded(X, y, C, lr, epochs, size, seed):
    return _train(X, y, C, lr, epochs, size, None)


@ex.softmax_regression.slip("C is given: a class may be absent from these rows.")
def counts_classes(X, y, C, lr, epochs, size, seed):
    return _train(X, y, y.max() + 1, lr, epochs, size, seed)


@ex.softmax_regression.slip("Start from zeros: then all classes are equally likely.")
def random_start(X, y, C, lr, epochs, size, seed):
    W = np.random.default_rng(seed).normal(size=(X.shape[1], C))
    return _train(X, y, C, lr, epochs, size, seed, W=W)


@ex.softmax_regression.slip("Do X and y go through the same row numbers?")
def labels_not_shuffled(X, y, C, lr, epochs, size, seed):
    rng, W, b = np.random.default_rng(seed), np.zeros((X.shape[1], C)), np.zeros(C)
    for _ in range(epochs):
        order = rng.permutation(len(y))
        for i in range(0, len(y), size):
            W, b = _step(X[order[i : i + size]], y[i : i + size], W, b, lr)
    return W, b


@ex.softmax_regression.slip("One step per row: a batch of 4 makes one step.")
def one_step_a_row(X, y, C, lr, epochs, size, seed):
    return _train(X, y, C, lr, epochs, 1, seed)


@ex.softmax_regression.slip(
    "It has taken one step in all: is a `return` inside the loop?"
)
def returns_early(X, y, C, lr, epochs, size, seed):
    return _train(X, y, C, lr, min(epochs, 1), size, seed, batches=1)


@ex.softmax_regression.slip(
    "Every epoch goes through the same batches: make the generator once, before both loops, and draw new batches in every epoch."
)
def seed_in_the_loop(X, y, C, lr, epochs, size, seed):
    order, W, b = np.random.default_rng(seed).permutation(len(y)), 0, np.zeros(C)
    W = np.zeros((X.shape[1], C))
    for _ in range(epochs):
        for i in range(0, len(y), size):
            rows = order[i : i + size]
            W, b = _step(X[rows], y[rows], W, b, lr)
    return W, b


@ex.softmax_regression.slip(
    "It trains although epochs = 0: is the loop over range(epochs)?"
)
def one_epoch(X, y, C, lr, epochs, size, seed):
    return _train(X, y, C, lr, 1, size, seed)


@ex.softmax_regression.slip("W is (D, C), inputs by classes.")
def softmax_regression_on_its_side(X, y, C, lr, epochs, size, seed):
    W, b = _train(X, y, C, lr, epochs, size, seed)
    return W.T, b


@ex.softmax_regression.slip(
    "The last batch is skipped where it is not full: it makes a step as well."
)
def skips_the_rest(X, y, C, lr, epochs, size, seed):
    return _train(X, y, C, lr, epochs, size, seed, batches=len(y) // size)


@ex.softmax_regression.slip(
    "These are the steps of one epoch: is the loop over the epochs there, with W and b made before it and `return` after it?"
)
def one_epoch_at_most(X, y, C, lr, epochs, size, seed):
    return _train(X, y, C, lr, min(epochs, 1), size, seed)


@ex.softmax_regression.slip(
    "Every step looks at all rows: hand it X_ND[rows] and y_N[rows]."
)
def all_rows(X, y, C, lr, epochs, size, seed):
    W, b = np.zeros((X.shape[1], C)), np.zeros(C)
    for _ in range(epochs * -(-len(y) // size)):
        W, b = _step(X, y, W, b, lr)
    return W, b


@ex.softmax_regression.slip(
    "Every epoch goes through the same batches: make the generator once, before both loops, and draw new batches in every epoch."
)
def generator_an_epoch(X, y, C, lr, epochs, size, seed):
    W, b = np.zeros((X.shape[1], C)), np.zeros(C)
    for _ in range(epochs):
        for rows in right.minibatches(len(y), size, np.random.default_rng(seed)):
            W, b = _step(X[rows], y[rows], W, b, lr)
    return W, b


@ex.softmax_regression.slip("It should return two things, W and b.")
def only_W(X, y, C, lr, epochs, size, seed):
    return _train(X, y, C, lr, epochs, size, seed)[0]


@ex.softmax_regression.slip("b has not moved: keep both of softmax_step's results.")
def keeps_b(X, y, C, lr, epochs, size, seed):
    rng, W, b = np.random.default_rng(seed), np.zeros((X.shape[1], C)), np.zeros(C)
    for _ in range(epochs):
        for rows in right.minibatches(len(y), size, rng):
            W, _ = _step(X[rows], y[rows], W, b, lr)
    return W, b


@ex.softmax_regression.slip(
    "lr is divided by the size of the batch: the mean is already in g."
)
def rate_over_size(X, y, C, lr, epochs, size, seed):
    return _train(X, y, C, lr / size, epochs, size, seed)


# ---- accuracy ----


@ex.accuracy.slip("This counts the right rows: their share is the mean.")
def counts(z, y):
    return np.sum(z.argmax(1) == y)


@ex.accuracy.slip("This is the share of errors.")
def errors(z, y):
    return np.mean(z.argmax(1) != y)


@ex.accuracy.slip("In per cent: here a share, 0 to 1.")
def per_cent(z, y):
    return 100 * np.mean(z.argmax(1) == y)


@ex.accuracy.slip("One answer per row: take the mean.")
def answers(z, y):
    return z.argmax(1) == y


@ex.accuracy.slip("argmin finds the smallest logit: the answer is the largest.")
def least_likely(z, y):
    return np.mean(z.argmin(1) == y)


@ex.accuracy.slip(
    "argmax(axis=0) asks each class for its best row: ask each row, axis=1."
)
def down_columns(z, y):
    return np.mean(z.argmax(0) == y)


@ex.accuracy.slip("argmax without an axis finds one place in the whole table: axis=1.")
def of_the_table(z, y):
    return np.mean(z.argmax() == y)


@ex.accuracy.slip("max gives the largest logit itself: argmax gives its class.")
def compares_logits(z, y):
    return np.mean(z.max(1) == y)


@ex.accuracy.slip(
    "The largest logit is enough: the true class need not have half of the probability."
)
def above_one_half(z, y):
    return np.mean(_shares(z)[np.arange(len(y)), y] > 0.5)


@ex.accuracy.slip(
    "This is the true classes' mean probability: count the rows that are right."
)
def accuracy_mean_probability(z, y):
    return _shares(z)[np.arange(len(y)), y].mean()


@ex.accuracy.slip("Divided by the number of classes: the mean is over the rows.")
def over_classes(z, y):
    return (z.argmax(1) == y).sum() / z.shape[1]
