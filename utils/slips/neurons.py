import numpy as np

from utils.built import neurons as right
from utils.checks import neurons as ex

SAID = {
    "linear/no_bias": "Where is b? Every row gets it.",
    "linear/element_wise": "`*` multiplies without adding up: no output hears more than one input. Use `@`.",
    "linear/transposed": "W lies on its side: its columns are the outputs, so no `.T` here.",
    "linear/textbook_order": "The order counts: rows of X meet columns of W, X @ W.",
    "linear/bias_a_row": "b belongs to the outputs, not to the rows: add it as it is, (H,).",
    "linear/prints": None,
    "linear/in_place": None,
    "relu/max_of_all": "np.max finds the one largest number; np.maximum compares element by element.",
    "relu/absolute": "This is the absolute value: negative numbers become 0.",
    "relu/switch": "This is a switch, 0 or 1: where it is on, let the number itself pass.",
    "relu/upside_down": "Upside down: this keeps the negative part.",
    "relu/leaky": "It leaks below 0. That is a cousin, leaky ReLU; ours is 0 there.",
    "relu/relu_in_place": None,
    "mlp_forward/bends_the_end": "It bends after the last layer too: then no network could say a negative number.",
    "mlp_forward/never_bends": "It never bends: two straight layers are one straight layer.",
    "mlp_forward/always_relu": "It uses relu whatever `bend` is: call the function you are given.",
    "mlp_forward/forgets_the_last": "This is what the first layer says: the loop ends too early.",
    "mlp_forward/bends_once": "It bends once only: every layer but the last is bent.",
    "mlp_forward/always_from_the_input": "h is what the last layer said; each turn of the loop replaces it.",
    "mlp_forward/one_layer_bent": "It bends after the last layer too.",
    "mlp_forward/bends_before": "It bends the input before the first layer.",
    "xor_layers/[(array([[1., 1.],\n       [1., 1.]]), array([ 0., -1.])), (array([[ 1],\n       [-1]]), [0])]": "That is OR: one up is right, but both up must come down to 0. The second unit has to pull twice as hard.",
    "xor_layers/[(array([[1., 1.],\n       [1., 1.]]), array([ 0., -1.])), (array([[0],\n       [1]]), [0])]": "That is AND: it wakes up at both only.",
    "xor_layers/[(array([[1., 1.],\n       [1., 1.]]), [0, 0]), (array([[ 1.],\n       [-2.]]), [0])]": "The second unit wakes up too early: its b holds it back until both are up.",
    "xor_layers/[(array([[1., 1.],\n       [1., 1.]]), array([ 0., -1.])), (array([[-1.],\n       [ 2.]]), [1])]": "Exactly the opposite: turn the signs of V, and lift with c.",
    "xor_layers/[(array([[1., 1.],\n       [1., 1.]]), array([ 0., -1.])), (array([[1.],\n       [0.]]), [0])]": "That is the sum: the second unit never bends anything.",
    "xor_layers/[(array([[1., 1.],\n       [1., 1.]]), array([ 0., -1.])), ([1, -2], [0])]": "The shapes do not fit: W is inputs by units, V is units by outputs.",
    "xor_layers/[array([[1., 1.],\n       [1., 1.]]), array([[ 1.],\n       [-2.]])]": "The shapes do not fit: W is inputs by units, V is units by outputs.",
    "xor_layers/[0, 1, 1, 0]": "It should be a list of two layers, each a pair of arrays.",
    "xor_layers/[(array([[1., 1., 1.],\n       [1., 1., 1.]]), [0, -1, -2]), (array([[1.],\n       [1.],\n       [1.]]), [0])]": "Two hidden units are enough: W is (2, 2), a column a unit.",
    "xor_layers/[(array([[1., 1.],\n       [1., 1.]]), [5, 5]), (array([[ 1.],\n       [-2.]]), [0])]": "Work it out by hand at the corner that is off.",
    "sigmoid/naive": "It overflows on the way: exp of a large positive number. Mind that np.where computes both sides for every z.",
    "sigmoid/other_naive": "It overflows on the way: exp of a large positive number. Mind that np.where computes both sides for every z.",
    "sigmoid/both_sides": "It overflows on the way: exp of a large positive number. Mind that np.where computes both sides for every z.",
    "sigmoid/turned": "The sign is turned: large z should give almost 1.",
    "sigmoid/hyperbolic": "This is tanh, from -1 to 1: sigmoid goes from 0 to 1.",
    "sigmoid/folded": "Both sides use |z|: below 0 the curve must go down to 0, not up.",
    "sigmoid/clipped": "It has been cut off: z itself must not be clipped.",
    "sigmoid/silenced": "It holds nan or inf.",
    "sigmoid/clipped_wider": "It has been cut off: z itself must not be clipped.",
    "sigmoid/one_minus": "The left tail is lost: 1 minus a number near 1 rounds to 0. For z < 0 use the twin, exp(z) / (1 + exp(z)).",
    "sigmoid/by_tanh": None,
    "slope/relu_value": "This is relu itself: where it lets z pass, its slope is 1.",
    "slope/one_at_the_corner": "At the corner any slope from 0 to 1 would do; everyone takes 0.",
    "slope/half_at_the_corner": "At the corner one takes 0, not the middle.",
    "slope/tanh_unsquared": "This is 1 - tanh: square it first.",
    "slope/squares_z": "This squares z: square tanh(z).",
    "slope/of_z": "This multiplies z by 1 - z: take the sigmoid's value.",
    "slope/sigmoid_value": "This is the sigmoid itself.",
    "slope/quotient_rule": "It overflows: use your stable sigmoid instead of exp.",
    "slope/nudges": "The values differ.",
    "slope/over_cosh": "It overflows: 1 - np.tanh(z)**2 is the same slope and never does.",
    "softmax/naive_softmax": "It overflows: exp of a large positive number. The largest logit of a row must become 0 first.",
    "softmax/down_the_columns": "The columns add up to 1: a row is one example, so sum along axis=1.",
    "softmax/whole_table": "The whole table adds up to 1: each row must.",
    "softmax/no_keepdims": "The row sums went to the columns: without keepdims=True, (N,) lines up with the last axis.",
    "softmax/max_without_keepdims": "The row maxima went to the columns: keepdims=True.",
    "softmax/neither_keeps_dims": "Both went to the columns: max and sum need keepdims=True.",
    "softmax/one_maximum": "Subtract each row's own maximum, not one for the whole table.",
    "softmax/clips": "It clips the logits: then 10000 and 9999 become equal. Subtract instead.",
    "softmax/shares_of_logits": "These are the logits over their sum: exp comes first.",
    "softmax/only_exp": "This is exp, not yet divided by the row's sum.",
    "softmax/epsilon": "A row does not quite add up to 1: the sum holds exp(0) = 1, so it needs no small number added against a division by 0.",
    "cross_entropy/log_of_softmax": "Surely wrong by 10,000 costs 10,000, in the mean 5,000. log(softmax) cannot know: the probability has already become 0. Stay with the logits.",
    "cross_entropy/small_number": "A small number under the log caps the price: surely wrong must cost 10,000.",
    "cross_entropy/naive_sum": "Surely wrong by 10,000 costs 10,000, in the mean 5,000. log(softmax) cannot know: the probability has already become 0. Stay with the logits.",
    "cross_entropy/summed": "This is the sum over the rows: take the mean.",
    "cross_entropy/no_minus": "The sign is turned: the log of a probability is negative, a price is not.",
    "cross_entropy/whole_columns": "z[:, y] takes whole columns for every row: z[np.arange(N), y] takes one number a row.",
    "cross_entropy/over_all": "Averaged over all N * C numbers: only one a row counts, so divide by N.",
    "cross_entropy/bits": "In bits (log2): here we count with the natural log.",
    "cross_entropy/a_price_a_row": "One price a row: average them.",
    "cross_entropy/top_of_all": "Subtract the row's own largest logit, then add it again.",
    "binary_cross_entropy/swapped": "The labels are swapped: y = 1 pays -log p.",
    "binary_cross_entropy/one_side": "Rows of class 0 pay nothing: they pay -log(1 - p).",
    "binary_cross_entropy/takes_probabilities": "z has been taken for the probability: it is a logit, p = sigmoid(z).",
    "binary_cross_entropy/log_of_sigmoid": "Surely wrong by 10,000 costs 10,000. log(sigmoid) is log(0) there, and log(1 + exp(z)) overflows: np.logaddexp(0, z) does neither.",
    "binary_cross_entropy/naive_softplus": "Surely wrong by 10,000 costs 10,000. log(sigmoid) is log(0) there, and log(1 + exp(z)) overflows: np.logaddexp(0, z) does neither.",
    "binary_cross_entropy/summed_binary": "This is the sum over the rows: take the mean.",
    "binary_cross_entropy/squared": "This is the mean squared error of the probabilities.",
    "binary_cross_entropy/capped": "Surely wrong by 10,000 costs 10,000. log(sigmoid) is log(0) there, and log(1 + exp(z)) overflows: np.logaddexp(0, z) does neither.",
    "cross_entropy_gradient/no_mean": "The loss is a mean over N rows, so each row's slope is divided by N.",
    "cross_entropy_gradient/y_minus_p": "The sign is turned: p - y, so that stepping against it raises the true class.",
    "cross_entropy_gradient/probabilities": "These are the probabilities: subtract 1 at the true class.",
    "cross_entropy_gradient/over_everything": "Divided by N * C: the mean runs over rows, not over classes.",
    "cross_entropy_gradient/changes_columns": "g[:, y] changes whole columns: g[np.arange(N), y] changes one number a row.",
    "cross_entropy_gradient/minus_the_number": "The class numbers themselves are subtracted: y must be one-hot, 1 at the true class and 0 elsewhere.",
    "cross_entropy_gradient/along_p": "That is the slope along p, -1 / p: one step of the chain is missing, from p to the logit.",
    "cross_entropy_gradient/naive_gradient": "It overflows: take your stable softmax.",
    "cross_entropy_gradient/changes_z": None,
    "cross_entropy_gradient/with_a_two": "There is no 2 in it: that one came from chapter 01's square.",
    "softmax_step/uphill": "Uphill: subtract the slope.",
    "softmax_step/no_rate": "The learning rate is missing.",
    "softmax_step/mean_twice": "Divided by N a second time: cross_entropy_gradient has done that.",
    "softmax_step/mean_for_b": "g is already divided by N: add its rows up, do not average.",
    "softmax_step/w_first": "b's slope was taken after W had moved: both belong to the same point.",
    "softmax_step/forgets_b": "b has not moved. Did you sum all of g? That is always 0: sum over the rows only, axis=0.",
    "softmax_step/one_b": "b has not moved. Did you sum all of g? That is always 0: sum over the rows only, axis=0.",
    "softmax_step/only_w": "It should return two things, the new W and the new b.",
    "softmax_step/without_inputs": "The inputs are missing: a weight counts as much as its input.",
    "softmax_step/step_in_place": None,
    "softmax_step/fixed_rate": "`lr` is an argument: your step has the same length whatever it is.",
    "softmax_regression/forgets_the_step": "W has not moved: is the step's result kept?",
    "softmax_regression/one_batch_an_epoch": "One step an epoch: does every epoch visit every batch?",
    "softmax_regression/never_shuffles": "Seeds 1 and 2 give the same weights: the batches ignore the seed.",
    "softmax_regression/unseeded": "The order must come from default_rng(seed) alone.",
    "softmax_regression/counts_classes": "C is given: a class may be absent from these rows.",
    "softmax_regression/random_start": "Start from zeros: then all classes are equally likely.",
    "softmax_regression/labels_not_shuffled": "Do X and y go through the same row numbers?",
    "softmax_regression/one_step_a_row": "One step a row: a batch of 16 makes one step.",
    "softmax_regression/returns_early": "It has taken one step in all: is a `return` inside the loop?",
    "softmax_regression/seed_in_the_loop": "Every epoch goes through the same batches: make the generator once, before both loops, and draw new batches in every epoch.",
    "softmax_regression/one_epoch": "It trains although epochs = 0: is the loop over range(epochs)?",
    "accuracy/counts": "This counts the right rows: their share is the mean.",
    "accuracy/errors": "This is the share of errors.",
    "accuracy/per_cent": "In per cent: here a share, 0 to 1.",
    "accuracy/answers": "One answer a row: take the mean.",
    "accuracy/least_likely": "The class with the largest logit of each row (axis=1), compared with y.",
    "accuracy/down_columns": None,
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
    "h is what the last layer said; each turn of the loop replaces it."
)
def always_from_the_input(X, layers, bend=right.relu):
    h = X
    for W, b in layers[:-1]:
        h = bend(X @ W[: X.shape[1]] + b)
    W, b = layers[-1]
    return h @ W + b


@ex.mlp_forward.slip("It bends after the last layer too.")
def one_layer_bent(X, layers, bend=right.relu):
    return _mlp(X, layers, bend, last=len(layers) == 3)


@ex.mlp_forward.slip("It bends the input before the first layer.")
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


@ex.sigmoid.slip("It holds nan or inf.")
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


@ex.sigmoid.slip(told="9.36e-14, 1.93e-22, ")
def by_tanh(z):
    return (1 + np.tanh(z / 2)) / 2


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


@ex.slope.slip("The values differ.")
def nudges(bend, z):
    f, h = right.BENDS[bend], 1e-5
    return (f(z + h) - f(z - h)) / (2 * h) + 1e-5


@ex.slope.slip("It overflows: 1 - np.tanh(z)**2 is the same slope and never does.")
def over_cosh(bend, z):
    return 1 / np.cosh(z) ** 2 if bend == "tanh" else _slope(bend, z)


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
    "The row sums went to the columns: without keepdims=True, (N,) lines up with the last axis."
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
def only_exp(z):
    return np.exp(z)


@ex.softmax.slip(
    "A row does not quite add up to 1: the sum holds exp(0) = 1, so it needs no small number added against a division by 0."
)
def epsilon(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / (e.sum(1, keepdims=True) + 1e-4)


# ---- cross_entropy ----


def _prices(z, y, shares=_shares):
    return -np.log(shares(z)[np.arange(len(y)), y])


@ex.cross_entropy.slip(
    "Surely wrong by 10,000 costs 10,000, in the mean 5,000. log(softmax) cannot know: the probability has already become 0. Stay with the logits."
)
def log_of_softmax(z, y):
    return _prices(z, y).mean()


@ex.cross_entropy.slip(
    "A small number under the log caps the price: surely wrong must cost 10,000."
)
def small_number(z, y):
    return -np.log(_shares(z)[np.arange(len(y)), y] + 1e-12).mean()


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
    "z[:, y] takes whole columns for every row: z[np.arange(N), y] takes one number a row."
)
def whole_columns(z, y):
    return -np.log(_shares(z))[:, y].mean()


@ex.cross_entropy.slip(
    "Averaged over all N * C numbers: only one a row counts, so divide by N."
)
def over_all(z, y):
    return -(np.eye(z.shape[1])[y] * np.log(_shares(z))).mean()


@ex.cross_entropy.slip("In bits (log2): here we count with the natural log.")
def bits(z, y):
    return _prices(z, y).mean() / np.log(2)


@ex.cross_entropy.slip("One price a row: average them.")
def a_price_a_row(z, y):
    return _prices(z, y)


@ex.cross_entropy.slip("Subtract the row's own largest logit, then add it again.")
def top_of_all(z, y):
    top = z.max()
    return np.mean(top + np.log(np.exp(z - top).sum(1)) - z[np.arange(len(y)), y])


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
def squared(z, y):
    return np.mean((right.sigmoid(z) - y) ** 2)


@ex.binary_cross_entropy.slip(
    "Surely wrong by 10,000 costs 10,000. log(sigmoid) is log(0) there, and log(1 + exp(z)) overflows: np.logaddexp(0, z) does neither."
)
def capped(z, y):
    p = np.clip(right.sigmoid(z), 1e-12, 1 - 1e-12)
    return -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))


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
    "g[:, y] changes whole columns: g[np.arange(N), y] changes one number a row."
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


@ex.softmax_regression.slip("One step an epoch: does every epoch visit every batch?")
def one_batch_an_epoch(X, y, C, lr, epochs, size, seed):
    return _train(X, y, C, lr, epochs, size, seed, batches=1)


@ex.softmax_regression.slip(
    "Seeds 1 and 2 give the same weights: the batches ignore the seed."
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


@ex.softmax_regression.slip("One step a row: a batch of 16 makes one step.")
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


@ex.accuracy.slip("One answer a row: take the mean.")
def answers(z, y):
    return z.argmax(1) == y


@ex.accuracy.slip(
    "The class with the largest logit of each row (axis=1), compared with y."
)
def least_likely(z, y):
    return np.mean(z.argmin(1) == y)


@ex.accuracy.slip(told="could not be broadcast")
def down_columns(z, y):
    return (
        np.mean(z.argmax(0) == y) if len(z) == z.shape[1] else np.mean(z.argmax(0) + y)
    )
