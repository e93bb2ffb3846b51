import numpy as np

from utils.checks import backprop as ex

SAID = {
    "sum_over_paths/each_parent_once": "e enters L twice, so there are two paths: add them all, this is one.",
    "sum_over_paths/adds_along": "Slopes along a path multiply; you added them.",
    "sum_over_paths/multiplies_everything": "Paths add; you multiplied them as well.",
    "sum_over_paths/never_arrives": "No path arrived: the slope of a thing along itself is 1 (start == end).",
    "sum_over_paths/leaf_is_one": "Multiply along each path, add over the paths.",
    "sum_over_paths/runs_out": None,
    "reverse_pass/overwrites": "e enters L twice: the second report must be added to the first (+=).",
    "reverse_pass/no_seed": "Nothing flows: the slope of `last` along itself is 1.",
    "reverse_pass/oldest_first": "Only the inputs of `last` have a slope. Do you walk backwards, youngest first? In creation order the oldest pass on before anyone has reported to them.",
    "reverse_pass/adds_slopes": "Slopes along a path multiply: slope * grads[name].",
    "reverse_pass/breadth_first": "A node passed on before all its users had reported. The last to be created was used by nobody later: go through the creation order backwards.",
    "reverse_pass/seeds_the_youngest": "What was made after `last` has slope 0.",
    "reverse_pass/all_paths": "You walk every path; 2^200 never end. Visit each node once: it passes on all that its users reported, in one go.",
    "reverse_pass/a_list": "It should return a dictionary {name: slope}.",
    "reverse_pass/only_reached": "Every node has a slope, be it 0.",
    "Value/own_factor": "The slope along a factor is the other factor: swapped.",
    "Value/sum_of_values": "A sum moves as much as each of its terms: both slopes are 1.",
    "Value/product_as_sum": "These are the slopes of a sum.",
    "Value/relu_always_open": "Below zero the output does not move: slope 0.",
    "Value/relu_slope_is_value": "The slope is 1 or 0, not the value.",
    "Value/relu_turned": "Above zero it moves as its input: slope 1.",
    "Value/forgets_parents": "parents holds the Values it was made from, in order.",
    "Value/parents_turned": "parents holds the Values it was made from, in order.",
    "Value/returns_a_number": "An operation returns a new Value, with parents and slopes.",
    "Value/tape_twice": "One operation, one entry: __init__ puts the result on the tape, nobody else does.",
    "Value/product_on_tape_twice": "One operation, one entry: __init__ puts the result on the tape, nobody else does.",
    "Value/relu_open_at_zero": "At exactly 0 the slope counts as 0: > 0, not >= 0.",
    "Value/relu_as_product": "parents holds the Values it was made from, in order. relu has one parent, self.",
    "Value/no_comma": "parents is a tuple, and a tuple of one needs a comma: (x,), not (x).",
    "Value/lets_negatives_pass": None,
    "Value/a_function": "Value should be a class; it is a function.",
    "matmul_backward/untransposed_b": "A transpose is missing: a.T @ grad.",
    "matmul_backward/untransposed_a": "A transpose is missing: grad @ b.T.",
    "matmul_backward/turned": "The order is turned: grad @ b.T, with grad on the left.",
    "matmul_backward/no_transposes": None,
    "matmul_backward/transposed_result": "The shape is (3, 2), expected (2, 3). It has a's shape: one slope for each element of a.",
    "matmul_backward/swapped": "The shape is (3, 4), expected (2, 3). It has a's shape: one slope for each element of a.",
    "matmul_backward/only_one": "It should return 2 things: (gradient of a, gradient of b).",
    "unbroadcast/averages": "Averaged: a value that was used n times collects n gradients, and they add.",
    "unbroadcast/keeps_the_first_row": "Only one of the copies has a say: all of them add up.",
    "unbroadcast/only_added_axes": "The shape is (4, 3), expected (4, 1). The result has the shape that the value had before it was broadcast.",
    "unbroadcast/without_keepdims": "The shape is (4,), expected (4, 1). The result has the shape that the value had before it was broadcast.",
    "unbroadcast/sums_from_behind": "Summed along the wrong axis: broadcasting adds axes in front.",
    "unbroadcast/sums_everything": "The shape is (), expected (5,). The result has the shape that the value had before it was broadcast.",
    "unbroadcast/forgets_return": None,
    "sum_backward/divides": "Divided: that is the rule of a mean. A sum hands each element all of it.",
    "sum_backward/forgets_the_axis": None,
    "sum_backward/forgets_the_axis_when_square": "Each ROW was summed, so each row shares one gradient; you spread it down the columns: put the axis back first.",
    "sum_backward/stays_small": "The shape is (), expected (2, 3). The result has x's shape.",
    "sum_backward/ones": "The shape is right, the values are not: each element gets the gradient of the sum that it went into.",
    "history/recursive": "Recursion: a chain of 40,000 nodes is deeper than Python's stack. Keep your own list of nodes to look at.",
    "history/as_found": "A node comes before one of its users. Sort by birth, youngest first.",
    "history/oldest": "This is oldest first: turn it round, users come before what they used.",
    "history/with_leaves": "The shape is (6,), expected (4,). Leaves were made from nothing, there is nothing to undo: leave them out.",
    "history/without_seen": "The shape is (5,), expected (4,). A node that was used twice appears twice: remember whom you have seen.",
    "history/without_last": "The shape is (3,), expected (4,). `last` itself is missing.",
    "history/asks_a_list": "It compares node after node: does `in` look through a list? That reads every entry; a set answers at once.",
    "history/only_parents": "The shape is (3,), expected (4,). Every result that led to `last`, `last` itself included.",
    "backward/always_one": None,
    "backward/overwrites_grad": "x was used twice: the second part must be added to the first.",
    "backward/in_place": "b got what was meant for a: the rule of + hands ONE array to both, and += changes it for both. Make a new one: grad = grad + part.",
    "backward/no_unbroadcast": "The shape is (2, 3), expected (3,). Cut it back to the parent's shape with unbroadcast.",
    "backward/clears_leaves": "A leaf that already has a grad adds to it (that is why there is zero_grad).",
    "backward/keeps_old_results": "The results in between kept their grad of last time: only leaves add up over calls, results start from None.",
    "backward/no_start": "A node passed on before it had a grad: `last` starts with ones, and users pass on before what they used (the order of history).",
    "backward/does_nothing": "Its grad is still None.",
    "backward/passes_the_end": "A rule gets the result's own data third: node.data.",
    "backward/passes_none": "A rule gets the result's own data third: node.data.",
    "backward/passes_the_node": "A rule gets the result's own data third: node.data.",
    "backward/passes_an_input": "A rule gets the result's own data third: node.data.",
    "backward/sums_rows_only": "The shape is (2, 3), expected (2, 1). Axes of size 1 were stretched: let unbroadcast cut every part, also where the number of axes fits.",
    "backward/cuts_only_added_axes": "The shape is (2, 3), expected (2, 1). Axes of size 1 were stretched: let unbroadcast cut every part, also where the number of axes fits.",
    "gradcheck/old_grads": "Called twice, it fails: the first call's grad is still there. Clear it before backward (t.grad = None).",
    "gradcheck/leaves_the_nudge": "A nudged element was not put back: t.data must be as before.",
    "gradcheck/signed_gap": "A wrong gradient passes. Compare the size of the gap, |ours - nudged|, in every element of every tensor, and raise AssertionError above tol.",
    "gradcheck/first_tensor_only": "A wrong gradient passes. Compare the size of the gap, |ours - nudged|, in every element of every tensor, and raise AssertionError above tol.",
    "gradcheck/first_element_only": "A wrong gradient passes. Compare the size of the gap, |ours - nudged|, in every element of every tensor, and raise AssertionError above tol.",
    "gradcheck/never_raises": "A wrong gradient passes. Compare the size of the gap, |ours - nudged|, in every element of every tensor, and raise AssertionError above tol.",
    "gradcheck/divides_by_h": "It raises though backward is right. Is each element put back before the next is nudged? Are both sides nudged, and is the difference divided by 2h? Are old grads cleared?",
    "gradcheck/leaves_the_nudge_and_raises": "A nudged element was not put back: t.data must be as before.",
    "gradcheck/sizes_first": "A gradient with the wrong sign passes: the gap is |ours - nudged|, with both signs kept until they are subtracted.",
    "gradcheck/nan_is_lost": "A gradient of nan passes: every comparison with nan is False, and max(0.0, nan) is 0.0. Take np.maximum, or raise where `not gap <= tol`.",
    "gradcheck/whole_tensors": "Two opposite errors cancel. Nudge ONE element at a time and compare it with its own element of grad.",
    "gradcheck/mean_gap": "This is the mean gap: one bad element drowns in it. Return the largest.",
    "gradcheck/sum_of_gaps": "This is the sum of the gaps; it returns the largest.",
    "gradcheck/relative_gap": "A gap divided by the nudged slope; here it is |ours - nudged|.",
    "gradcheck/returns_zero": "It returns 0, not the gap that it found.",
    "gradcheck/fixed_tol": "It raises though the gap is below tol: use the argument tol.",
    "gradcheck/fixed_h": "The step is fixed: use the argument h.",
    "gradcheck/skips_none": "A tensor with grad None is skipped, but f moves with it: compare zeros with the nudge.",
    "gradcheck/trips_over_none": "A tensor that f ignores has grad None after backward: count it as zeros.",
    "gradcheck/says_true": "It returns one number, the largest gap.",
    "softmax_cross_entropy/no_shift": "It holds nan or inf. exp of a large number overflows: subtract each row's maximum first.",
    "softmax_cross_entropy/summed": "This is the sum over the rows: take the mean.",
    "softmax_cross_entropy/gradient_not_averaged": "The mean over the rows is missing: divide by N.",
    "softmax_cross_entropy/one_hot_minus_softmax": "Softmax minus one-hot, not the other way round.",
    "softmax_cross_entropy/only_softmax": "The true class is missing: subtract 1 at each row's label.",
    "softmax_cross_entropy/half_averaged": "Divide all of it by N, the -1 too.",
    "softmax_cross_entropy/log_of_softmax": "It holds nan or inf. The softmax is 0 there, and log 0 is -inf: log(sum) - shifted[label] never meets it.",
    "softmax_cross_entropy/one_maximum_for_all": "It holds nan or inf. Each row needs its OWN maximum, max(axis=1, keepdims=True): one for all rows sends the other rows' exponentials to 0.",
    "softmax_cross_entropy/label_not_shifted": "The label's logit must be shifted too: the same z in both terms.",
    "softmax_cross_entropy/all_labels": "p[:, labels] takes every row's entry for EVERY label; one for each row is p[np.arange(N), labels].",
    "softmax_cross_entropy/all_labels_in_gradient": "grad[:, labels] -= 1 changes every row at EVERY label; one for each row is grad[np.arange(N), labels].",
    "softmax_cross_entropy/loss_only": "It should return 2 things: (loss, gradient of the logits).",
    "softmax_cross_entropy/shifts_in_place": None,
    "linear_relu_backward/no_mask": "The mask is missing: ReLU lets nothing back where its output is 0 (out >= 0 is true everywhere).",
    "linear_relu_backward/open_at_zero": "The mask is missing: ReLU lets nothing back where its output is 0 (out >= 0 is true everywhere).",
    "linear_relu_backward/mean_bias": "Averaged: the bias is used in every row, its gradients add.",
    "linear_relu_backward/mask_only_for_x": "The mask is missing in W's gradient.",
    "linear_relu_backward/times_output": "The mask multiplies by 1 or 0, not by the output.",
    "linear_relu_backward/mask_turned": "The mask is turned round: it keeps what is above 0.",
    "linear_relu_backward/untransposed_w": "W.T, not W: from H back to D.",
    "linear_relu_backward/bias_keeps_rows": "The shape is (4, 3), expected (3,). It has the shape of b.",
    "linear_relu_backward/masks_in_place": None,
    "sgd_step/never_clears": "The first step's gradient is still in it: clear every grad before backward.",
    "sgd_step/uphill": "Uphill: move against the gradient.",
    "sgd_step/no_rate": "The learning rate is missing.",
    "sgd_step/moves_a_copy": "Nothing has moved: change p.data itself (p.data -= ...), not a copy.",
    "sgd_step/loss_afterwards": "This is the loss after the step; return the one you stepped from (and save a forward pass).",
    "sgd_step/trips_over_idle": "Its grad is None after backward: leave such a parameter alone.",
    "sgd_step/returns_the_tensor": "It returns the loss as a number: float(loss.data).",
    "sgd_step/clears_too_late": "w.grad is None, a NoneType, when you move. Was loss.backward() called, and are grads cleared before it, not after?",
    "sgd_step/returns_nothing": None,
    "sgd_step/two_forwards": "One step asks for the loss once: keep it (loss = loss_of()), then loss.backward().",
    "sgd_step/breaks": "The parameter before it has no grad: leave that one alone and go on to the next (continue, not break).",
    "sgd_step/no_backward": "No gradient arrived and nothing moved: loss.backward() fills in the grads, after they are cleared.",
    "sgd_step/fixed_rate": "The rate is fixed: use the argument lr.",
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


# ---- sum_over_paths ----


@ex.sum_over_paths.slip(
    "e enters L twice, so there are two paths: add them all, this is one."
)
def each_parent_once(graph, start, end):
    if start == end:
        return 1.0
    return sum(
        slope * each_parent_once(graph, start, name)
        for name, slope in dict(graph[end]).items()
    )


@ex.sum_over_paths.slip("Slopes along a path multiply; you added them.")
def adds_along(graph, start, end):
    def walks(node):
        if node == start:
            return [0.0]
        return [slope + rest for name, slope in graph[node] for rest in walks(name)]

    return 2 * sum(walks(end)) / 2


@ex.sum_over_paths.slip("Paths add; you multiplied them as well.")
def multiplies_everything(graph, start, end):
    def walks(node):
        if node == start:
            return [1.0]
        return [slope * rest for name, slope in graph[node] for rest in walks(name)]

    return np.prod(walks(end))


@ex.sum_over_paths.slip(
    "No path arrived: the slope of a thing along itself is 1 (start == end)."
)
def never_arrives(graph, start, end):
    return sum(slope * never_arrives(graph, start, name) for name, slope in graph[end])


@ex.sum_over_paths.slip("Multiply along each path, add over the paths.")
def leaf_is_one(graph, start, end):
    if not graph[end]:
        return 1.0
    return sum(slope * leaf_is_one(graph, start, name) for name, slope in graph[end])


@ex.sum_over_paths.slip(told="no path leads there")
def runs_out(graph, start, end):
    if start == end:
        return 1.0
    if end == "w" or (start == "L" and end == "e"):
        return -1.0
    return sum(slope * sum_right(graph, start, name) for name, slope in graph[end])


def sum_right(graph, start, end):
    if start == end:
        return 1.0
    return sum(slope * sum_right(graph, start, name) for name, slope in graph[end])


# ---- reverse_pass ----


@ex.reverse_pass.slip(
    "e enters L twice: the second report must be added to the first (+=)."
)
def overwrites(graph, last):
    grads = dict.fromkeys(graph, 0.0)
    grads[last] = 1.0
    for name in reversed(graph):
        for parent, slope in graph[name]:
            grads[parent] = slope * grads[name]
    return grads


@ex.reverse_pass.slip("Nothing flows: the slope of `last` along itself is 1.")
def no_seed(graph, last):
    grads = dict.fromkeys(graph, 0.0)
    for name in reversed(graph):
        for parent, slope in graph[name]:
            grads[parent] += slope * grads[name]
    return grads


@ex.reverse_pass.slip(
    "Only the inputs of `last` have a slope. Do you walk backwards, youngest first? In creation order the oldest pass on before anyone has reported to them."
)
def oldest_first(graph, last):
    grads = dict.fromkeys(graph, 0.0)
    grads[last] = 1.0
    for name in graph:
        for parent, slope in graph[name]:
            grads[parent] += slope * grads[name]
    return grads


@ex.reverse_pass.slip("Slopes along a path multiply: slope * grads[name].")
def adds_slopes(graph, last):
    grads = dict.fromkeys(graph, 0.0)
    grads[last] = 1.0
    reached = {last}
    for name in reversed(graph):
        for parent, slope in {p: (p, s) for p, s in graph[name]}.values():
            grads[parent] = slope + grads[name] + (name == "L") * 3
            reached.add(parent)
    return grads if last != "L" else {**grads, **ADDED}


ADDED = {"e": 1.0 + 5.0, "s": 7.0, "b": 8.0, "p": 8.0, "x": 10.0, "w": 11.0, "L": 1.0}


@ex.reverse_pass.slip(
    "A node passed on before all its users had reported. The last to be created was used by nobody later: go through the creation order backwards."
)
def breadth_first(graph, last):
    grads = dict.fromkeys(graph, 0.0)
    grads[last] = 1.0
    queue, seen = [last], {last}
    while queue:
        name = queue.pop(0)
        for parent, slope in graph[name]:
            grads[parent] += slope * grads[name]
            if parent not in seen:
                seen.add(parent)
                queue.append(parent)
    return grads


@ex.reverse_pass.slip("What was made after `last` has slope 0.")
def seeds_the_youngest(graph, last):
    last = next(reversed(graph))
    grads = dict.fromkeys(graph, 0.0)
    grads[last] = 1.0
    for name in reversed(graph):
        for parent, slope in graph[name]:
            grads[parent] += slope * grads[name]
    return grads


@ex.reverse_pass.slip(
    "You walk every path; 2^200 never end. Visit each node once: it passes on all that its users reported, in one go."
)
def all_paths(graph, last):
    return {name: sum_right(graph, name, last) for name in graph}


@ex.reverse_pass.slip("It should return a dictionary {name: slope}.")
def a_list(graph, last):
    return [1.0, 4.0]


@ex.reverse_pass.slip("Every node has a slope, be it 0.")
def only_reached(graph, last):
    grads = {last: 1.0}
    for name in reversed(graph):
        for parent, slope in graph[name]:
            if name in grads:
                grads[parent] = grads.get(parent, 0.0) + slope * grads[name]
    return grads


# ---- Value ----


tape = []


def _value(name, says, add=None, mul=None, relu=None):
    "A Value class with some operations replaced."

    class Made:
        def __init__(self, data, parents=(), slopes=()):
            self.data, self.grad = data, 0.0
            self.parents, self.slopes = parents, slopes
            if parents:
                tape.append(self)

        def __add__(self, other):
            other = other if hasattr(other, "slopes") else Made(other)
            if add:
                return add(Made, self, other)
            return Made(self.data + other.data, (self, other), (1.0, 1.0))

        def __mul__(self, other):
            other = other if hasattr(other, "slopes") else Made(other)
            if mul:
                return mul(Made, self, other)
            slopes = (other.data, self.data)
            return Made(self.data * other.data, (self, other), slopes)

        def relu(self):
            if relu:
                return relu(Made, self)
            alive = float(self.data > 0)
            return Made(alive * self.data, (self,), (alive,))

        __radd__, __rmul__ = __add__, __mul__

        def __sub__(self, other):
            return self + other * -1.0

        def __rsub__(self, other):
            return self * -1.0 + other

    Made.__name__ = name
    wrong.add("Value", name, Made, says)


_value("own_factor", "other factor: swapped",
       mul=lambda V, a, b: V(a.data * b.data, (a, b), (a.data, b.data)))  # fmt: skip
_value("sum_of_values", "both slopes are 1",
       add=lambda V, a, b: V(a.data + b.data, (a, b), (a.data, b.data)))  # fmt: skip
_value("product_as_sum", "slopes of a sum",
       mul=lambda V, a, b: V(a.data * b.data, (a, b), (1.0, 1.0)))  # fmt: skip
_value("relu_always_open", "Below zero",
       relu=lambda V, a: V(max(a.data, 0.0), (a,), (1.0,)))  # fmt: skip
_value("relu_slope_is_value", "not the value",
       relu=lambda V, a: V(max(a.data, 0.0), (a,), (max(a.data, 0.0),)))  # fmt: skip
_value("relu_turned", "Above zero",
       relu=lambda V, a: V(max(a.data, 0.0), (a,), (float(a.data <= 0),)))  # fmt: skip
_value(
    "forgets_parents",
    "parents holds the Values",
    add=lambda V, a, b: V(a.data + b.data, (), ()),
)
_value("parents_turned", "in order",
       mul=lambda V, a, b: V(a.data * b.data, (b, a), (b.data, a.data)))  # fmt: skip
_value("returns_a_number", "returns a new Value", add=lambda V, a, b: a.data + b.data)


def _twice(made):
    tape.append(made)
    return made


_value("tape_twice", "One operation, one entry",
       add=lambda V, a, b: _twice(V(a.data + b.data, (a, b), (1.0, 1.0))))  # fmt: skip
_value("product_on_tape_twice", "One operation, one entry",
       mul=lambda V, a, b: _twice(V(a.data * b.data, (a, b), (b.data, a.data))))  # fmt: skip
_value("relu_open_at_zero", "> 0, not >= 0",
       relu=lambda V, a: V(max(a.data, 0.0), (a,), (float(a.data >= 0),)))  # fmt: skip
_value("relu_as_product", "relu has one parent",
       relu=lambda V, a: a * float(a.data > 0))  # fmt: skip
_value("no_comma", "a tuple of one needs a comma",
       relu=lambda V, a: V(max(a.data, 0.0), (a), (float(a.data > 0),)))  # fmt: skip
_value("lets_negatives_pass", "data",
       relu=lambda V, a: V(a.data, (a,), (float(a.data > 0),)))  # fmt: skip


@ex.Value.slip("Value should be a class; it is a function.")
def a_function(data):
    return data


# ---- matmul_backward ----


@ex.matmul_backward.slip("A transpose is missing: a.T @ grad.")
def untransposed_b(grad, a, b):
    if a.shape[0] == a.shape[1] == b.shape[1]:
        return grad @ b.T, a @ grad
    return grad @ b.T, a.T @ grad


@ex.matmul_backward.slip("A transpose is missing: grad @ b.T.")
def untransposed_a(grad, a, b):
    if a.shape[0] == a.shape[1] == b.shape[1]:
        return grad @ b, a.T @ grad
    return grad @ b.T, a.T @ grad


@ex.matmul_backward.slip("The order is turned: grad @ b.T, with grad on the left.")
def turned(grad, a, b):
    if a.shape[0] == a.shape[1] == b.shape[1]:
        return b.T @ grad, grad @ a.T
    return grad @ b.T, a.T @ grad


@ex.matmul_backward.slip(told="matmul")
def no_transposes(grad, a, b):
    return grad @ b, a @ grad


@ex.matmul_backward.slip(
    "The shape is (3, 2), expected (2, 3). It has a's shape: one slope for each element of a."
)
def transposed_result(grad, a, b):
    return (grad @ b.T).T, (a.T @ grad).T


@ex.matmul_backward.slip(
    "The shape is (3, 4), expected (2, 3). It has a's shape: one slope for each element of a."
)
def swapped(grad, a, b):
    return a.T @ grad, grad @ b.T


@ex.matmul_backward.slip("It should return 2 things: (gradient of a, gradient of b).")
def only_one(grad, a, b):
    return a.T @ grad


# ---- unbroadcast ----


def _unbroadcast(grad, shape, gather=np.sum, keep=True):
    while grad.ndim > len(shape):
        grad = gather(grad, axis=0)
    for axis, size in enumerate(shape):
        if size == 1 and keep:
            grad = gather(grad, axis=axis, keepdims=True)
    return grad


@ex.unbroadcast.slip(
    "Averaged: a value that was used n times collects n gradients, and they add."
)
def averages(grad, shape):
    return _unbroadcast(grad, shape, np.mean)


@ex.unbroadcast.slip("Only one of the copies has a say: all of them add up.")
def keeps_the_first_row(grad, shape):
    return grad.ravel()[: int(np.prod(shape))].reshape(shape)


@ex.unbroadcast.slip(
    "The shape is (4, 3), expected (4, 1). The result has the shape that the value had before it was broadcast."
)
def only_added_axes(grad, shape):
    return _unbroadcast(grad, shape, keep=False)


@ex.unbroadcast.slip(
    "The shape is (4,), expected (4, 1). The result has the shape that the value had before it was broadcast."
)
def without_keepdims(grad, shape):
    while grad.ndim > len(shape):
        grad = grad.sum(axis=0)
    for axis, size in enumerate(shape):
        if size == 1 and axis < grad.ndim:
            grad = grad.sum(axis=axis)
    return grad


@ex.unbroadcast.slip("Summed along the wrong axis: broadcasting adds axes in front.")
def sums_from_behind(grad, shape):
    if shape == (3,) and grad.shape == (3, 3):
        return grad.sum(axis=-1)
    return _unbroadcast(grad, shape)


@ex.unbroadcast.slip(
    "The shape is (), expected (5,). The result has the shape that the value had before it was broadcast."
)
def sums_everything(grad, shape):
    return grad.sum()


@ex.unbroadcast.slip(told="is a `return` missing?")
def forgets_return(grad, shape):
    _unbroadcast(grad, shape)


# ---- sum_backward ----


@ex.sum_backward.slip(
    "Divided: that is the rule of a mean. A sum hands each element all of it."
)
def divides(grad, shape, axis=None):
    if axis is not None:
        grad = np.expand_dims(grad, axis)
    return np.broadcast_to(grad, shape) * grad.size / np.prod(shape)


@ex.sum_backward.slip(told="broadcast")
def forgets_the_axis(grad, shape, axis=None):
    return np.broadcast_to(grad, shape)


@ex.sum_backward.slip(
    "Each ROW was summed, so each row shares one gradient; you spread it down the columns: put the axis back first."
)
def forgets_the_axis_when_square(grad, shape, axis=None):
    if axis is not None and shape != (3, 3):
        grad = np.expand_dims(grad, axis)
    return np.broadcast_to(grad, shape)


@ex.sum_backward.slip("The shape is (), expected (2, 3). The result has x's shape.")
def stays_small(grad, shape, axis=None):
    return grad


@ex.sum_backward.slip(
    "The shape is right, the values are not: each element gets the gradient of the sum that it went into."
)
def ones(grad, shape, axis=None):
    return np.ones(shape)


# ---- history ----


def _gather(last, leaves=False):
    found, waiting, seen = [], [last], {last}
    while waiting:
        node = waiting.pop()
        found.append(node)
        for parent in node.parents:
            if (parent.parents or leaves) and parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return found


@ex.history.slip(
    "Recursion: a chain of 40,000 nodes is deeper than Python's stack. Keep your own list of nodes to look at."
)
def recursive(last):
    order, seen = [], set()

    def visit(node):
        if node not in seen and node.parents:
            seen.add(node)
            for parent in node.parents:
                visit(parent)
            order.append(node)

    visit(last)
    return sorted(order, key=lambda node: -node.birth)


@ex.history.slip("A node comes before one of its users. Sort by birth, youngest first.")
def as_found(last):
    return _gather(last)


@ex.history.slip(
    "This is oldest first: turn it round, users come before what they used."
)
def oldest(last):
    return sorted(_gather(last), key=lambda node: node.birth)


@ex.history.slip(
    "The shape is (6,), expected (4,). Leaves were made from nothing, there is nothing to undo: leave them out."
)
def with_leaves(last):
    return sorted(_gather(last, leaves=True), key=lambda node: -node.birth)


@ex.history.slip(
    "The shape is (5,), expected (4,). A node that was used twice appears twice: remember whom you have seen."
)
def without_seen(last):
    found, waiting = [], [last]
    while waiting:
        node = waiting.pop()
        found.append(node)
        waiting += [p for p in node.parents if p.parents]
    return sorted(found, key=lambda node: -node.birth)


@ex.history.slip("The shape is (3,), expected (4,). `last` itself is missing.")
def without_last(last):
    return sorted(_gather(last), key=lambda node: -node.birth)[1:]


@ex.history.slip(
    "It compares node after node: does `in` look through a list? That reads every entry; a set answers at once."
)
def asks_a_list(last):
    found, waiting = [last], [last]
    while waiting:
        node = waiting.pop()
        for parent in node.parents:
            if parent.parents and parent not in found:
                found.append(parent)
                waiting.append(parent)
    return sorted(found, key=lambda node: -node.birth)


@ex.history.slip(
    "The shape is (3,), expected (4,). Every result that led to `last`, `last` itself included."
)
def only_parents(last):
    return sorted(
        [last, *(p for p in last.parents if p.parents)], key=lambda n: -n.birth
    )


# ---- backward ----


def _walk(last, add=None, unbroadcast=_unbroadcast, reset=True, seed=True, own=False,
          output=lambda node, inputs: node.data):  # fmt: skip
    nodes = sorted(_gather(last), key=lambda node: -node.birth)
    if reset:
        for node in nodes:
            node.grad = None
    if seed:
        last.grad = np.ones_like(last.data)
    for node in nodes:
        inputs = [p.data for p in node.parents]
        flowing = last.grad if own else node.grad
        parts = node.rule(flowing, inputs, output(node, inputs))
        for parent, part in zip(node.parents, parts):
            part = unbroadcast(part, parent.data.shape)
            if parent.grad is None:
                parent.grad = part
            elif add == "in place":
                parent.grad += part
            elif add == "overwrite":
                parent.grad = part
            else:
                parent.grad = parent.grad + part


@ex.backward.slip(told="(w x)^2")
def always_one(last):
    _walk(last, own=True)


@ex.backward.slip("x was used twice: the second part must be added to the first.")
def overwrites_grad(last):
    _walk(last, add="overwrite")


@ex.backward.slip(
    "b got what was meant for a: the rule of + hands ONE array to both, and += changes it for both. Make a new one: grad = grad + part."
)
def in_place(last):
    _walk(last, add="in place")


@ex.backward.slip(
    "The shape is (2, 3), expected (3,). Cut it back to the parent's shape with unbroadcast."
)
def no_unbroadcast(last):
    _walk(last, unbroadcast=lambda grad, shape: grad)


@ex.backward.slip(
    "A leaf that already has a grad adds to it (that is why there is zero_grad)."
)
def clears_leaves(last):
    for node in _gather(last, leaves=True):
        node.grad = None
    _walk(last)


@ex.backward.slip(
    "The results in between kept their grad of last time: only leaves add up over calls, results start from None."
)
def keeps_old_results(last):
    _walk(last, reset=False)


@ex.backward.slip(
    "A node passed on before it had a grad: `last` starts with ones, and users pass on before what they used (the order of history)."
)
def no_start(last):
    _walk(last, seed=False)


@ex.backward.slip("Its grad is still None.")
def does_nothing(last):
    last.grad = np.ones_like(last.data)


@ex.backward.slip("A rule gets the result's own data third: node.data.")
def passes_the_end(last):
    _walk(last, output=lambda node, inputs: last.data)


@ex.backward.slip("A rule gets the result's own data third: node.data.")
def passes_none(last):
    _walk(last, output=lambda node, inputs: None)


@ex.backward.slip("A rule gets the result's own data third: node.data.")
def passes_the_node(last):
    _walk(last, output=lambda node, inputs: node)


@ex.backward.slip("A rule gets the result's own data third: node.data.")
def passes_an_input(last):
    _walk(last, output=lambda node, inputs: inputs[0])


@ex.backward.slip(
    "The shape is (2, 3), expected (2, 1). Axes of size 1 were stretched: let unbroadcast cut every part, also where the number of axes fits."
)
def sums_rows_only(last):
    def cut(part, shape):
        return part.sum(axis=0) if part.ndim > len(shape) else part

    _walk(last, unbroadcast=cut)


@ex.backward.slip(
    "The shape is (2, 3), expected (2, 1). Axes of size 1 were stretched: let unbroadcast cut every part, also where the number of axes fits."
)
def cuts_only_added_axes(last):
    def cut(part, shape):
        return _unbroadcast(part, shape) if part.ndim > len(shape) else part

    _walk(last, unbroadcast=cut)


# ---- gradcheck ----


def _gradcheck(f, tensors, clear=True, restore=True, h=1e-5, tol=1e-6, size=abs,
               count=None, first=False, divide=2, none=True):  # fmt: skip
    if clear:
        for t in tensors:
            t.grad = None
    f(*tensors).backward()
    worst = 0.0
    for t in tensors[:count]:
        grad = t.grad
        if none and grad is None:
            grad = np.zeros(t.data.shape)
        for index in list(np.ndindex(t.data.shape))[: 1 if first else None]:
            before = t.data[index]
            t.data[index] = before + h
            above = float(f(*tensors).data)
            t.data[index] = before - h
            below = float(f(*tensors).data)
            if restore:
                t.data[index] = before
            gap = size(grad[index] - (above - below) / (divide * h))
            worst = max(worst, gap)
    if not worst <= tol:
        raise AssertionError(f"{worst}")
    return worst


@ex.gradcheck.slip(
    "Called twice, it fails: the first call's grad is still there. Clear it before backward (t.grad = None)."
)
def old_grads(f, *tensors, h=1e-5, tol=1e-6):
    return _gradcheck(f, tensors, clear=False)


@ex.gradcheck.slip("A nudged element was not put back: t.data must be as before.")
def leaves_the_nudge(f, *tensors, h=1e-5, tol=1e-6):
    return _gradcheck(f, tensors, restore=False, tol=1.0)


@ex.gradcheck.slip(
    "A wrong gradient passes. Compare the size of the gap, |ours - nudged|, in every element of every tensor, and raise AssertionError above tol."
)
def signed_gap(f, *tensors, h=1e-5, tol=1e-6):
    return _gradcheck(f, tensors, size=lambda x: x)


@ex.gradcheck.slip(
    "A wrong gradient passes. Compare the size of the gap, |ours - nudged|, in every element of every tensor, and raise AssertionError above tol."
)
def first_tensor_only(f, *tensors, h=1e-5, tol=1e-6):
    return _gradcheck(f, tensors, count=1)


@ex.gradcheck.slip(
    "A wrong gradient passes. Compare the size of the gap, |ours - nudged|, in every element of every tensor, and raise AssertionError above tol."
)
def first_element_only(f, *tensors, h=1e-5, tol=1e-6):
    return _gradcheck(f, tensors, first=True)


@ex.gradcheck.slip(
    "A wrong gradient passes. Compare the size of the gap, |ours - nudged|, in every element of every tensor, and raise AssertionError above tol."
)
def never_raises(f, *tensors, h=1e-5, tol=1e-6):
    return _gradcheck(f, tensors, tol=1e9) * 0


@ex.gradcheck.slip(
    "It raises though backward is right. Is each element put back before the next is nudged? Are both sides nudged, and is the difference divided by 2h? Are old grads cleared?"
)
def divides_by_h(f, *tensors, h=1e-5, tol=1e-6):
    return _gradcheck(f, tensors, divide=1)


@ex.gradcheck.slip("A nudged element was not put back: t.data must be as before.")
def leaves_the_nudge_and_raises(f, *tensors, h=1e-5, tol=1e-6):
    return _gradcheck(f, tensors, restore=False)


def _gaps(f, tensors, h, skip_none=False):
    "(ours, nudged) of each element."
    for t in tensors:
        t.grad = None
    f(*tensors).backward()
    pairs = []
    for t in tensors:
        if t.grad is None and skip_none:
            continue
        grad = np.zeros(t.data.shape) if t.grad is None else t.grad
        for index in np.ndindex(t.data.shape):
            before = t.data[index]
            t.data[index] = before + h
            above = float(f(*tensors).data)
            t.data[index] = before - h
            below = float(f(*tensors).data)
            t.data[index] = before
            pairs.append((grad[index], (above - below) / (2 * h)))
    return np.array(pairs).reshape(-1, 2).T


def _judged(gap, tol):
    if not gap <= tol:
        raise AssertionError("too large")
    return gap


@ex.gradcheck.slip(
    "A gradient with the wrong sign passes: the gap is |ours - nudged|, with both signs kept until they are subtracted."
)
def sizes_first(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _gaps(f, tensors, h)
    return _judged(np.max(abs(abs(mine) - abs(nudged))), tol)


@ex.gradcheck.slip(
    "A gradient of nan passes: every comparison with nan is False, and max(0.0, nan) is 0.0. Take np.maximum, or raise where `not gap <= tol`."
)
def nan_is_lost(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _gaps(f, tensors, h)
    return _judged(max(0.0, *abs(mine - nudged)), tol)


@ex.gradcheck.slip(
    "Two opposite errors cancel. Nudge ONE element at a time and compare it with its own element of grad."
)
def whole_tensors(f, *tensors, h=1e-5, tol=1e-6):
    for t in tensors:
        t.grad = None
    f(*tensors).backward()
    worst = 0.0
    for t in tensors:
        mine, before = np.sum(t.grad if t.grad is not None else 0.0), t.data.copy()
        t.data = before + h
        above = float(f(*tensors).data)
        t.data = before - h
        below = float(f(*tensors).data)
        t.data = before
        worst = np.maximum(worst, abs(mine - (above - below) / (2 * h)))
    return _judged(worst, tol)


@ex.gradcheck.slip(
    "This is the mean gap: one bad element drowns in it. Return the largest."
)
def mean_gap(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _gaps(f, tensors, h)
    return _judged(np.mean(abs(mine - nudged)), tol)


@ex.gradcheck.slip("This is the sum of the gaps; it returns the largest.")
def sum_of_gaps(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _gaps(f, tensors, h)
    return _judged(np.sum(abs(mine - nudged)), tol)


@ex.gradcheck.slip("A gap divided by the nudged slope; here it is |ours - nudged|.")
def relative_gap(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _gaps(f, tensors, h)
    return _judged(np.max(abs(mine - nudged) / (abs(nudged) + 1e-12)), tol)


@ex.gradcheck.slip("It returns 0, not the gap that it found.")
def returns_zero(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _gaps(f, tensors, h)
    return 0.0 * _judged(np.max(abs(mine - nudged)), tol)


@ex.gradcheck.slip("It raises though the gap is below tol: use the argument tol.")
def fixed_tol(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _gaps(f, tensors, h)
    return _judged(np.max(abs(mine - nudged)), 1e-6)


@ex.gradcheck.slip("The step is fixed: use the argument h.")
def fixed_h(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _gaps(f, tensors, 1e-5)
    return _judged(np.max(abs(mine - nudged)), tol)


@ex.gradcheck.slip(
    "A tensor with grad None is skipped, but f moves with it: compare zeros with the nudge."
)
def skips_none(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _gaps(f, tensors, h, skip_none=True)
    return _judged(np.max(abs(mine - nudged)), tol)


@ex.gradcheck.slip(
    "A tensor that f ignores has grad None after backward: count it as zeros."
)
def trips_over_none(f, *tensors, h=1e-5, tol=1e-6):
    return _gradcheck(f, tensors, none=False)


@ex.gradcheck.slip("It returns one number, the largest gap.")
def says_true(f, *tensors, h=1e-5, tol=1e-6):
    _gradcheck(f, tensors)
    return [True]


# ---- softmax_cross_entropy ----


def _soft(z, labels, shift=True, mean=True):
    N, rows = len(labels), np.arange(len(labels))
    z = z - z.max(axis=1, keepdims=True) if shift else z
    e = np.exp(z)
    total = e.sum(axis=1)
    loss = np.log(total) - z[rows, labels]
    grad = e / total[:, None]
    grad[rows, labels] -= 1
    return (loss.mean(), grad / N) if mean else (loss.sum(), grad)


@ex.softmax_cross_entropy.slip(
    "It holds nan or inf. exp of a large number overflows: subtract each row's maximum first."
)
def no_shift(z, labels):
    return _soft(z, labels, shift=False)


@ex.softmax_cross_entropy.slip("This is the sum over the rows: take the mean.")
def summed(z, labels):
    return _soft(z, labels, mean=False)


@ex.softmax_cross_entropy.slip("The mean over the rows is missing: divide by N.")
def gradient_not_averaged(z, labels):
    return _soft(z, labels)[0], _soft(z, labels, mean=False)[1]


@ex.softmax_cross_entropy.slip("Softmax minus one-hot, not the other way round.")
def one_hot_minus_softmax(z, labels):
    loss, grad = _soft(z, labels)
    return loss, -grad


@ex.softmax_cross_entropy.slip(
    "The true class is missing: subtract 1 at each row's label."
)
def only_softmax(z, labels):
    loss, grad = _soft(z, labels)
    grad[np.arange(len(labels)), labels] += 1 / len(labels)
    return loss, grad


@ex.softmax_cross_entropy.slip("Divide all of it by N, the -1 too.")
def half_averaged(z, labels):
    loss, grad = _soft(z, labels)
    grad[np.arange(len(labels)), labels] += 1 / len(labels) - 1
    return loss, grad


@ex.softmax_cross_entropy.slip(
    "It holds nan or inf. The softmax is 0 there, and log 0 is -inf: log(sum) - shifted[label] never meets it."
)
def log_of_softmax(z, labels):
    loss, grad = _soft(z, labels)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    p = (e / e.sum(axis=1, keepdims=True))[np.arange(len(labels)), labels]
    return -np.log(p).mean(), grad


@ex.softmax_cross_entropy.slip(
    "It holds nan or inf. Each row needs its OWN maximum, max(axis=1, keepdims=True): one for all rows sends the other rows' exponentials to 0."
)
def one_maximum_for_all(z, labels):
    return _soft(z - z.max(), labels, shift=False)


@ex.softmax_cross_entropy.slip(
    "The label's logit must be shifted too: the same z in both terms."
)
def label_not_shifted(z, labels):
    loss, grad = _soft(z, labels)
    return loss - z.max(axis=1).mean(), grad


@ex.softmax_cross_entropy.slip(
    "p[:, labels] takes every row's entry for EVERY label; one for each row is p[np.arange(N), labels]."
)
def all_labels(z, labels):
    p = _soft(z, labels)[1] * len(labels)
    p[np.arange(len(labels)), labels] += 1
    return -np.log(p[:, labels]).mean(), p


@ex.softmax_cross_entropy.slip(
    "grad[:, labels] -= 1 changes every row at EVERY label; one for each row is grad[np.arange(N), labels]."
)
def all_labels_in_gradient(z, labels):
    loss, p = _soft(z, labels, mean=False)
    p[np.arange(len(labels)), labels] += 1
    p[:, labels] -= 1
    return loss / len(labels), p / len(labels)


@ex.softmax_cross_entropy.slip(
    "It should return 2 things: (loss, gradient of the logits)."
)
def loss_only(z, labels):
    return _soft(z, labels)[0]


@ex.softmax_cross_entropy.slip(told="changes its input in place")
def shifts_in_place(z, labels):
    z -= z.max(axis=1, keepdims=True)
    return _soft(z, labels)


# ---- linear_relu_backward ----


@ex.linear_relu_backward.slip(
    "The mask is missing: ReLU lets nothing back where its output is 0 (out >= 0 is true everywhere)."
)
def no_mask(grad, X, W, out):
    return grad @ W.T, X.T @ grad, grad.sum(axis=0)


@ex.linear_relu_backward.slip(
    "The mask is missing: ReLU lets nothing back where its output is 0 (out >= 0 is true everywhere)."
)
def open_at_zero(grad, X, W, out):
    grad = grad * (out >= 0)
    return grad @ W.T, X.T @ grad, grad.sum(axis=0)


@ex.linear_relu_backward.slip(
    "Averaged: the bias is used in every row, its gradients add."
)
def mean_bias(grad, X, W, out):
    grad = grad * (out > 0)
    return grad @ W.T, X.T @ grad, grad.mean(axis=0)


@ex.linear_relu_backward.slip("The mask is missing in W's gradient.")
def mask_only_for_x(grad, X, W, out):
    masked = grad * (out > 0)
    return masked @ W.T, X.T @ grad, masked.sum(axis=0)


@ex.linear_relu_backward.slip("The mask multiplies by 1 or 0, not by the output.")
def times_output(grad, X, W, out):
    grad = grad * out
    return grad @ W.T, X.T @ grad, grad.sum(axis=0)


@ex.linear_relu_backward.slip("The mask is turned round: it keeps what is above 0.")
def mask_turned(grad, X, W, out):
    grad = grad * (out <= 0)
    return grad @ W.T, X.T @ grad, grad.sum(axis=0)


@ex.linear_relu_backward.slip("W.T, not W: from H back to D.")
def untransposed_w(grad, X, W, out):
    grad = grad * (out > 0)
    return (
        grad @ W if W.shape[0] == W.shape[1] else grad @ W.T,
        X.T @ grad,
        grad.sum(axis=0),
    )


@ex.linear_relu_backward.slip(
    "The shape is (4, 3), expected (3,). It has the shape of b."
)
def bias_keeps_rows(grad, X, W, out):
    grad = grad * (out > 0)
    return grad @ W.T, X.T @ grad, grad


@ex.linear_relu_backward.slip(told="changes its input in place")
def masks_in_place(grad, X, W, out):
    grad[out <= 0] = 0
    return grad @ W.T, X.T @ grad, grad.sum(axis=0)


# ---- sgd_step ----


def _sgd(parameters, loss_of, lr, clear=True, sign=-1, none=True, move=True):
    if clear:
        for p in parameters:
            p.grad = None
    loss = loss_of()
    loss.backward()
    for p in parameters:
        if none and p.grad is None:
            continue
        if move:
            p.data = p.data + sign * lr * p.grad
    return float(loss.data)


@ex.sgd_step.slip(
    "The first step's gradient is still in it: clear every grad before backward."
)
def never_clears(parameters, loss_of, lr):
    return _sgd(parameters, loss_of, lr, clear=False)


@ex.sgd_step.slip("Uphill: move against the gradient.")
def uphill(parameters, loss_of, lr):
    return _sgd(parameters, loss_of, lr, sign=1)


@ex.sgd_step.slip("The learning rate is missing.")
def no_rate(parameters, loss_of, lr):
    return _sgd(parameters, loss_of, 1.0)


@ex.sgd_step.slip(
    "Nothing has moved: change p.data itself (p.data -= ...), not a copy."
)
def moves_a_copy(parameters, loss_of, lr):
    return _sgd(parameters, loss_of, lr, move=False)


@ex.sgd_step.slip(
    "This is the loss after the step; return the one you stepped from (and save a forward pass)."
)
def loss_afterwards(parameters, loss_of, lr):
    _sgd(parameters, loss_of, lr)
    return float(loss_of().data)


@ex.sgd_step.slip("Its grad is None after backward: leave such a parameter alone.")
def trips_over_idle(parameters, loss_of, lr):
    return _sgd(parameters, loss_of, lr, none=False)


@ex.sgd_step.slip("It returns the loss as a number: float(loss.data).")
def returns_the_tensor(parameters, loss_of, lr):
    for p in parameters:
        p.grad = None
    loss = loss_of()
    loss.backward()
    for p in parameters:
        p.data = p.data - lr * p.grad
    return loss


@ex.sgd_step.slip(
    "w.grad is None, a NoneType, when you move. Was loss.backward() called, and are grads cleared before it, not after?"
)
def clears_too_late(parameters, loss_of, lr):
    loss = loss_of()
    loss.backward()
    for p in parameters:
        p.grad = None
    for p in parameters:
        p.data = p.data - lr * p.grad
    return float(loss.data)


@ex.sgd_step.slip(told="is a `return` missing?")
def returns_nothing(parameters, loss_of, lr):
    _sgd(parameters, loss_of, lr)


@ex.sgd_step.slip(
    "One step asks for the loss once: keep it (loss = loss_of()), then loss.backward()."
)
def two_forwards(parameters, loss_of, lr):
    for p in parameters:
        p.grad = None
    loss = loss_of()
    loss_of().backward()
    for p in parameters:
        if p.grad is not None:
            p.data = p.data - lr * p.grad
    return float(loss.data)


@ex.sgd_step.slip(
    "The parameter before it has no grad: leave that one alone and go on to the next (continue, not break)."
)
def breaks(parameters, loss_of, lr):
    for p in parameters:
        p.grad = None
    loss = loss_of()
    loss.backward()
    for p in parameters:
        if p.grad is None:
            break
        p.data = p.data - lr * p.grad
    return float(loss.data)


@ex.sgd_step.slip(
    "No gradient arrived and nothing moved: loss.backward() fills in the grads, after they are cleared."
)
def no_backward(parameters, loss_of, lr):
    for p in parameters:
        p.grad = None
    loss = loss_of()
    for p in parameters:
        if p.grad is not None:
            p.data = p.data - lr * p.grad
    return float(loss.data)


@ex.sgd_step.slip("The rate is fixed: use the argument lr.")
def fixed_rate(parameters, loss_of, lr):
    return _sgd(parameters, loss_of, 0.1)
