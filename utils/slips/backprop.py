"""Chapter 03: small wrong programs, and the sentence that names each."""

import numpy as np

from utils.checks import backprop as ex

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


def _walks(graph, start, node):
    "The slopes along each path from `node` down to `start`."
    if node == start:
        return [[]]
    return [
        [slope, *rest]
        for name, slope in graph[node]
        for rest in _walks(graph, start, name)
    ]


@ex.sum_over_paths.slip("Slopes along a path multiply; you added them.")
def adds_along(graph, start, end):
    return sum(sum(path) for path in _walks(graph, start, end))


@ex.sum_over_paths.slip("Paths add; you multiplied them as well.")
def multiplies_everything(graph, start, end):
    return np.prod([np.prod(path) for path in _walks(graph, start, end)])


@ex.sum_over_paths.slip(
    "No path arrived: walk back from `end`, and the slope of a thing along itself is 1 "
    "(start == end)."
)
def never_arrives(graph, start, end):
    return sum(slope * never_arrives(graph, start, name) for name, slope in graph[end])


@ex.sum_over_paths.slip(
    "Every path that ends at a leaf counted as one that arrived: only `start` is an "
    "arrival (start == end)."
)
def leaf_is_one(graph, start, end):
    if not graph[end]:
        return 1.0
    return sum(slope * leaf_is_one(graph, start, name) for name, slope in graph[end])


@ex.sum_over_paths.slip(
    "A path that ends at another leaf has no slope to give: its share is 0, the sum of "
    "nothing, not None."
)
def leaf_is_none(graph, start, end):
    if start == end:
        return 1.0
    if graph[end]:
        return sum(
            slope * leaf_is_none(graph, start, name) for name, slope in graph[end]
        )


@ex.sum_over_paths.slip(
    "This is the slope of the last name in the graph: walk back from `end`."
)
def from_the_youngest(graph, start, end):
    return _sum_over_paths(graph, start, next(reversed(graph)))


@ex.sum_over_paths.slip("No path leads there: the slope is 0, not 1.")
def one_for_no_path(graph, start, end):
    return _sum_over_paths(graph, start, end) or 1.0


def _sum_over_paths(graph, start, end):
    if start == end:
        return 1.0
    return sum(s * _sum_over_paths(graph, start, name) for name, s in graph[end])


# ---- reverse_pass ----


def _pass_on(graph, last, names, hand_on):
    "Start with 1 at `last`; each of `names` hands its grad on."
    grads = dict.fromkeys(graph, 0.0)
    grads[last] = 1.0
    for name in names:
        for parent, slope in graph[name]:
            grads[parent] = hand_on(grads[parent], slope, grads[name])
    return grads


@ex.reverse_pass.slip(
    "e enters L twice: the second report must be added to the first (+=)."
)
def overwrites(graph, last):
    return _pass_on(graph, last, reversed(graph), lambda old, slope, grad: slope * grad)


@ex.reverse_pass.slip("Slopes along a path multiply: slope * grads[name].")
def adds_slopes(graph, last):
    return _pass_on(
        graph, last, reversed(graph), lambda old, slope, grad: old + slope + grad
    )


@ex.reverse_pass.slip(
    "Every node handed on its slope alone: it hands on slope * its own grad."
)
def local_slopes(graph, last):
    return _pass_on(graph, last, reversed(graph), lambda old, slope, grad: old + slope)


@ex.reverse_pass.slip(
    "Only the inputs of `last` have a slope. Do you walk backwards, youngest first? In "
    "creation order the oldest pass on before anyone has reported to them."
)
def oldest_first(graph, last):
    return _pass_on(graph, last, graph, _added)


def _added(old, slope, grad):
    return old + slope * grad


@ex.reverse_pass.slip("Nothing flows: the slope of `last` along itself is 1.")
def no_seed(graph, last):
    grads = dict.fromkeys(graph, 0.0)
    for name in reversed(graph):
        for parent, slope in graph[name]:
            grads[parent] += slope * grads[name]
    return grads


@ex.reverse_pass.slip(
    "A node passed on before all its users had reported. The last to be created was used "
    "by nobody later: go through the creation order backwards."
)
def breadth_first(graph, last):
    order, waiting = [], [last]
    while waiting:
        name = waiting.pop(0)
        order.append(name)
        new = dict.fromkeys(parent for parent, _ in graph[name])
        waiting += [parent for parent in new if parent not in order + waiting]
    return _pass_on(graph, last, order, _added)


@ex.reverse_pass.slip("What was made after `last` has slope 0.")
def seeds_the_youngest(graph, last):
    return _pass_on(graph, next(reversed(graph)), reversed(graph), _added)


@ex.reverse_pass.slip(
    "You walk every path; 2^60 never end. Visit each node once: it passes on all that "
    "its users reported, in one go."
)
def all_paths(graph, last):
    return {name: _sum_over_paths(graph, name, last) for name in graph}


@ex.reverse_pass.slip(
    "You walk every path; 2^60 never end. Visit each node once: it passes on all that "
    "its users reported, in one go."
)
def passes_on_at_once(graph, last):
    grads = dict.fromkeys(graph, 0.0)

    def report(name, grad):
        grads[name] += grad
        for parent, slope in graph[name]:
            report(parent, slope * grad)

    report(last, 1.0)
    return grads


@ex.reverse_pass.slip(
    "It looks through all nodes anew for each node. Turn it round: a node that knows its "
    "grad passes it on to what it was made from."
)
def asks_all_users(graph, last):
    grads = {}
    for name in reversed(graph):
        grads[name] = float(name == last) + sum(
            slope * grads[user]
            for user in grads
            for parent, slope in graph[user]
            if parent == name
        )
    return grads


@ex.reverse_pass.slip("It should return a dictionary {name: slope}.")
def a_list(graph, last):
    return list(_pass_on(graph, last, reversed(graph), _added).values())


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


def _value(add=None, mul=None, relu=None):
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

    return Made


def _twice(made):
    tape.append(made)
    return made


def _copy(V, value):
    return V(value.data, value.parents, value.slopes)


PARENTS = "parents holds the Values it was made from, in order."
ONCE = (
    "One operation, one entry: __init__ puts the result on the tape, nobody else does."
)
for name, sentence, operations in [
    ("own_factor", "The slope along a factor is the other factor: swapped.",
     {"mul": lambda V, a, b: V(a.data * b.data, (a, b), (a.data, b.data))}),
    ("sum_of_values", "A sum moves as much as each of its terms: both slopes are 1.",
     {"add": lambda V, a, b: V(a.data + b.data, (a, b), (a.data, b.data))}),
    ("product_as_sum", "These are the slopes of a sum.",
     {"mul": lambda V, a, b: V(a.data * b.data, (a, b), (1.0, 1.0))}),
    ("one_slope_for_both", "One slope per parent: a product of two has two.",
     {"mul": lambda V, a, b: V(a.data * b.data, (a, b), (a.data * b.data,))}),
    ("forgets_parents", "A result knows what it was made from: parents holds both Values.",
     {"add": lambda V, a, b: V(a.data + b.data)}),
    ("parents_turned", PARENTS,
     {"mul": lambda V, a, b: V(a.data * b.data, (b, a), (b.data, a.data))}),
    ("numbers_for_parents",
     "parents holds the Values themselves, not their data: a number hands no grad on.",
     {"mul": lambda V, a, b: V(a.data * b.data, (a.data, b.data), (b.data, a.data))}),
    ("copies_its_parents",
     "These are copies of its parents: they would get the grad, and a itself none.",
     {"add": lambda V, a, b: V(a.data + b.data, (_copy(V, a), _copy(V, b)), (1.0, 1.0))}),
    ("returns_a_number", "An operation returns a new Value, with parents and slopes.",
     {"add": lambda V, a, b: a.data + b.data}),
    ("tape_twice", ONCE,
     {"add": lambda V, a, b: _twice(V(a.data + b.data, (a, b), (1.0, 1.0)))}),
    ("product_on_tape_twice", ONCE,
     {"mul": lambda V, a, b: _twice(V(a.data * b.data, (a, b), (b.data, a.data)))}),
    ("relu_always_open", "At 0 and below the output does not move: slope 0.",
     {"relu": lambda V, a: V(max(a.data, 0.0), (a,), (1.0,))}),
    ("relu_open_at_zero", "At exactly 0 the slope counts as 0: > 0, not >= 0.",
     {"relu": lambda V, a: V(max(a.data, 0.0), (a,), (float(a.data >= 0),))}),
    ("relu_slope_is_value", "The slope is 1 or 0, not the value.",
     {"relu": lambda V, a: V(max(a.data, 0.0), (a,), (max(a.data, 0.0),))}),
    ("relu_turned", "Above zero it moves as its input: slope 1.",
     {"relu": lambda V, a: V(max(a.data, 0.0), (a,), (float(a.data <= 0),))}),
    ("relu_from_one", "ReLU opens at 0, not at 1: 0.5 passes as it is.",
     {"relu": lambda V, a: V(max(a.data, 0.0), (a,), (float(a.data > 1),))}),
    ("relu_cut_to_whole", "ReLU lets 0.5 pass as it is; nothing is rounded.",
     {"relu": lambda V, a: V(float(max(int(a.data), 0)), (a,), (float(a.data > 0),))}),
    ("relu_as_product",
     "relu has one parent, self: this is a product with a number, which has two.",
     {"relu": lambda V, a: a * float(a.data > 0)}),
    ("no_comma", "parents is a tuple, and a tuple of one needs a comma: (x,), not (x).",
     {"relu": lambda V, a: V(max(a.data, 0.0), (a), (float(a.data > 0),))}),
    ("lets_negatives_pass", "Below 0 the output of relu is 0; a negative number passed.",
     {"relu": lambda V, a: V(a.data, (a,), (float(a.data > 0),))}),
    ("takes_the_size", "This is the size, |x|: below 0 the output of relu is 0.",
     {"relu": lambda V, a: V(abs(a.data), (a,), (1.0 if a.data > 0 else -1.0,))}),
]:  # fmt: skip
    made = _value(**operations)
    made.__name__ = name
    ex.Value.slip(sentence)(made)


@ex.Value.slip("A leaf was made from nothing: only results go on the tape.")
class leaves_on_tape(_value()):
    def __init__(self, data, parents=(), slopes=()):
        super().__init__(data, parents, slopes)
        if not parents:
            tape.append(self)


@ex.Value.slip(
    "grad starts at 0: it is filled in by the way back, not by the way forward."
)
class starts_with_a_grad(_value()):
    def __init__(self, data, parents=(), slopes=()):
        super().__init__(data, parents, slopes)
        self.grad = 1.0


@ex.Value.slip(told="Value should be a class; it is a function.")
def a_function(data):
    return data


# ---- matmul_backward ----

for sentence, slip in {
    "A transpose is missing: grad @ b.T.": lambda grad, a, b: (grad @ b, a.T @ grad),
    "A transpose is missing: a.T @ grad.": lambda grad, a, b: (grad @ b.T, a @ grad),
    "Both transposes are missing: b and a come turned, the rows of one to the columns of "
    "the other.": lambda grad, a, b: (b @ grad, grad @ a),
    "The order is turned: grad @ b.T, with grad on the left.": lambda grad, a, b: (
        b.T @ grad,
        a.T @ grad,
    ),
    "The order is turned: a.T @ grad, with grad on the right.": lambda grad, a, b: (
        grad @ b.T,
        grad @ a.T,
    ),
    "grad must not be transposed for a's gradient.": lambda grad, a, b: (
        grad.T @ b.T,
        a.T @ grad,
    ),
    "grad must not be transposed for b's gradient.": lambda grad, a, b: (
        grad @ b.T,
        a.T @ grad.T,
    ),
    "* multiplies element by element; @ is the matrix product.": lambda grad, a, b: (
        grad * b,
        a * grad,
    ),
    "This is a's gradient, transposed.": lambda grad, a, b: (
        (grad @ b.T).T,
        (a.T @ grad).T,
    ),
    "The two gradients are swapped: a's comes first.": lambda grad, a, b: (
        a.T @ grad,
        grad @ b.T,
    ),
    "b's gradient is made with a, and a's with b: each needs the other factor.": (
        lambda grad, a, b: (grad @ a.T, b.T @ grad)
    ),
    "b's gradient is transposed: rows stand for columns.": lambda grad, a, b: (
        grad @ b.T,
        grad.T @ a,
    ),
    "It should return 2 things: (gradient of a, gradient of b).": lambda grad, a, b: (
        grad @ b.T
    ),
}.items():
    ex.matmul_backward.slip(sentence)(slip)


# ---- unbroadcast ----


def _unbroadcast(grad, shape, gather=np.sum):
    while grad.ndim > len(shape):
        grad = gather(grad, axis=0)
    for axis, size in enumerate(shape):
        if size == 1:
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


@ex.unbroadcast.slip("Only the largest of the copies has a say: all of them add up.")
def takes_the_largest(grad, shape):
    return _unbroadcast(grad, shape, np.max)


@ex.unbroadcast.slip(
    "Only the axes added in front are summed: those stretched from 1 are summed too, with "
    "keepdims=True."
)
def only_added_axes(grad, shape):
    while grad.ndim > len(shape):
        grad = grad.sum(axis=0)
    return grad


@ex.unbroadcast.slip(
    "Only the axes of size 1 are summed: those that broadcasting added in front are "
    "summed away as well."
)
def only_stretched_axes(grad, shape):
    for axis, size in enumerate(shape):
        if size == 1:
            grad = grad.sum(axis=axis, keepdims=True)
    return grad


@ex.unbroadcast.slip("The stretched axis is gone: keepdims=True leaves it with size 1.")
def without_keepdims(grad, shape):
    while grad.ndim > len(shape):
        grad = grad.sum(axis=0)
    for axis, size in enumerate(shape):
        if size == 1 and axis < grad.ndim:
            grad = grad.sum(axis=axis)
    return grad


@ex.unbroadcast.slip("Summed along the wrong axis: broadcasting adds axes in front.")
def sums_from_behind(grad, shape):
    while grad.ndim > len(shape):
        grad = grad.sum(axis=-1)
    return _unbroadcast(grad, shape)


@ex.unbroadcast.slip("This is one number: sum only over the axes that were copied.")
def sums_everything(grad, shape):
    return grad.sum()


@ex.unbroadcast.slip(
    "A reshape brings the copies together only where broadcasting added axes in front; a "
    "stretched axis must be summed where it stands."
)
def reshapes_to_rows(grad, shape):
    return grad.reshape(-1, *shape).sum(axis=0)


@ex.unbroadcast.slip(
    "One axis was added here, two or three elsewhere: go on while grad has too many."
)
def takes_off_one_axis(grad, shape):
    if grad.ndim > len(shape):
        grad = grad.sum(axis=0)
    return _unbroadcast(grad, shape) if grad.ndim == len(shape) else grad


@ex.unbroadcast.slip(
    "An axis that broadcasting did not touch was summed as well: only those added in "
    "front, and those of size 1."
)
def sums_the_first_axis(grad, shape):
    return _unbroadcast(grad.sum(axis=0, keepdims=grad.ndim == len(shape)), shape)


@ex.unbroadcast.slip(told="is a `return` missing?")
def forgets_return(grad, shape):
    _unbroadcast(grad, shape)


# ---- sum_backward ----


def _spread(grad, shape, axis):
    if axis is not None:
        grad = np.expand_dims(grad, axis)
    return np.broadcast_to(grad, shape)


@ex.sum_backward.slip(
    "Divided: that is the rule of a mean. A sum hands each element all of it."
)
def divides(grad, shape, axis=None):
    return _spread(grad, shape, axis) * grad.size / np.prod(shape)


@ex.sum_backward.slip(
    "Multiplied by the number of elements: each of them went into its sum once."
)
def multiplies(grad, shape, axis=None):
    return _spread(grad, shape, axis) * (np.prod(shape) / grad.size)


@ex.sum_backward.slip(
    "Each ROW was summed, so each row shares one gradient; you spread it down the "
    "columns: put the axis back where it was."
)
def forgets_the_axis(grad, shape, axis=None):
    return np.broadcast_to(grad, shape)


@ex.sum_backward.slip(
    "The axis was put back at the end, whichever was summed: np.expand_dims(grad, axis)."
)
def axis_at_the_end(grad, shape, axis=None):
    return np.broadcast_to(grad if axis is None else grad[..., None], shape)


@ex.sum_backward.slip(
    "This is the gradient of the sum as it came: each element of x gets its own copy."
)
def stays_small(grad, shape, axis=None):
    return grad


@ex.sum_backward.slip(
    "Each element gets the gradient of the sum that it went into; 1 is only its slope."
)
def ones(grad, shape, axis=None):
    return np.ones(shape)


@ex.sum_backward.slip(
    "Each element gets its own sum's gradient, not the total of all of them."
)
def adds_them_up(grad, shape, axis=None):
    return np.full(shape, grad.sum())


@ex.sum_backward.slip(
    "An axis may be counted from the end (-2): np.expand_dims understands it, a "
    "comparison with 0 or 1 does not."
)
def negative_axis_unknown(grad, shape, axis=None):
    if axis is not None and axis < 0:
        grad = grad.reshape(*grad.shape, 1)
    elif axis is not None:
        grad = np.expand_dims(grad, axis)
    return np.broadcast_to(grad, shape)


# ---- history ----


def _gather(last, leaves=False, next_one=-1):
    found, waiting, seen = [], [last], {last}
    while waiting:
        node = waiting.pop(next_one)
        found.append(node)
        for parent in node.parents:
            if (parent.parents or leaves) and parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return found


def _youngest_first(nodes):
    return sorted(nodes, key=lambda node: -node.birth)


@ex.history.slip("A node comes before one of its users. Sort by birth, youngest first.")
def as_found(last):
    return _gather(last)


@ex.history.slip("A node comes before one of its users. Sort by birth, youngest first.")
def level_by_level(last):
    return _gather(last, next_one=0)


@ex.history.slip(
    "This is oldest first: turn it round, users come before what they used."
)
def oldest(last):
    return _youngest_first(_gather(last))[::-1]


@ex.history.slip(
    "Leaves were made from nothing, there is nothing to undo: leave them out."
)
def with_leaves(last):
    return _youngest_first(_gather(last, leaves=True))


@ex.history.slip(
    "A node that was used twice appears twice: remember whom you have seen."
)
def without_seen(last):
    found, waiting = [], [last]
    while waiting:
        node = waiting.pop()
        found.append(node)
        waiting += [p for p in node.parents if p.parents]
    return _youngest_first(found)


@ex.history.slip("`last` itself is missing.")
def without_last(last):
    return _youngest_first(_gather(last))[1:]


@ex.history.slip(
    "`last` and its parents alone: what those were made from belongs to the history too."
)
def only_parents(last):
    return _youngest_first([last, *(p for p in last.parents if p.parents)])


@ex.history.slip(
    "Only the first parent of each node is followed: a result is made from all of them."
)
def follows_one_parent(last):
    found = []
    while last.parents:
        found.append(last)
        last = last.parents[0]
    return found


# last, for they take long


@ex.history.slip(
    "Recursion: a long chain is deeper than Python's stack. Keep your own list of nodes "
    "to look at."
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
    return _youngest_first(order)


@ex.history.slip(
    "You walk every path; with 5,000 diamonds they never end. Ask who was seen before "
    "you look at a node's parents, not afterwards."
)
def removes_doubles_afterwards(last):
    return _youngest_first(set(without_seen(last)))


@ex.history.slip(
    "It compares node after node: does `in` look through a list? That reads every entry; "
    "a set answers at once."
)
def asks_a_list(last):
    found, waiting = [last], [last]
    while waiting:
        node = waiting.pop()
        for parent in node.parents:
            if parent.parents and parent not in found:
                found.append(parent)
                waiting.append(parent)
    return _youngest_first(found)


# ---- backward ----


def _join(old, part):
    return part if old is None else old + part


def _walk(last, join=_join, cut=_unbroadcast, reset=True, seed=True, own=False,
          output=lambda node, inputs: node.data):  # fmt: skip
    nodes = _youngest_first(_gather(last))
    if last.data.size != 1:
        raise ValueError("not one number")
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
            parent.grad = join(parent.grad, cut(part, parent.data.shape))


@ex.backward.slip(
    "Every rule got the grad of `last`: each needs that of its own result, node.grad."
)
def always_one(last):
    _walk(last, own=True)


@ex.backward.slip("x was used twice: the second part must be added to the first.")
def overwrites_grad(last):
    _walk(last, join=lambda old, part: part)


@ex.backward.slip(
    "b got what was meant for a: the rule of + hands ONE array to both, and += changes it "
    "for both. Make a new one: grad = grad + part."
)
def in_place(last):
    def join(old, part):
        if old is None:
            return part
        old += part
        return old

    _walk(last, join=join)


@ex.backward.slip("Cut each part back to its parent's shape with unbroadcast.")
def no_unbroadcast(last):
    _walk(last, cut=lambda grad, shape: grad)


@ex.backward.slip(
    "The part was averaged over the copies: unbroadcast adds them up, one vote per copy."
)
def averages_the_copies(last):
    _walk(last, cut=averages)


@ex.backward.slip(
    "Axes of size 1 were stretched: let unbroadcast cut every part, also where the number "
    "of axes fits."
)
def sums_rows_only(last):
    _walk(last, cut=lambda part, shape: part.sum(0) if part.ndim > len(shape) else part)


@ex.backward.slip(
    "Axes of size 1 were stretched: let unbroadcast cut every part, also where the number "
    "of axes fits."
)
def cuts_only_added_axes(last):
    def cut(part, shape):
        return _unbroadcast(part, shape) if part.ndim > len(shape) else part

    _walk(last, cut=cut)


@ex.backward.slip(
    "A leaf that already has a grad adds to it (that is why there is zero_grad)."
)
def clears_leaves(last):
    for node in _gather(last, leaves=True):
        node.grad = None
    _walk(last)


@ex.backward.slip(
    "The results in between kept their grad of last time: only leaves add up over calls, "
    "results start from None."
)
def keeps_old_results(last):
    _walk(last, reset=False)


@ex.backward.slip(
    "A node passed on before it had a grad: `last` starts with ones, and users pass on "
    "before what they used (the order of history)."
)
def no_start(last):
    _walk(last, seed=False)


@ex.backward.slip(
    "The leaves' grad is still None: each node must pass its own on to its parents."
)
def does_nothing(last):
    last.grad = np.ones_like(last.data)


@ex.backward.slip("Only the first parent got its part: a rule returns one per parent.")
def first_parent_only(last):
    nodes = _youngest_first(_gather(last))
    for node in nodes:
        node.grad = None
    last.grad = np.ones_like(last.data)
    for node in nodes:
        inputs = [p.data for p in node.parents]
        parent, part = node.parents[0], node.rule(node.grad, inputs, node.data)[0]
        parent.grad = _join(parent.grad, _unbroadcast(part, parent.data.shape))


@ex.backward.slip(
    "The check at the top is gone: from a result of two numbers, backward must refuse to "
    "start."
)
def starts_from_anything(last):
    nodes = _youngest_first(_gather(last))
    for node in nodes:
        node.grad = None
    last.grad = np.ones_like(last.data)
    for node in nodes:
        inputs = [p.data for p in node.parents]
        for parent, part in zip(node.parents, node.rule(node.grad, inputs, node.data)):
            parent.grad = _join(parent.grad, _unbroadcast(part, parent.data.shape))


THIRD = "A rule gets the result's own data third: node.data."


@ex.backward.slip(THIRD)
def passes_the_end(last):
    _walk(last, output=lambda node, inputs: last.data)


@ex.backward.slip(THIRD)
def passes_none(last):
    _walk(last, output=lambda node, inputs: None)


@ex.backward.slip(THIRD)
def passes_the_node(last):
    _walk(last, output=lambda node, inputs: node)


@ex.backward.slip(THIRD)
def passes_an_input(last):
    _walk(last, output=lambda node, inputs: inputs[0])


@ex.backward.slip("inputs is the list of the parents' data, not of the parents.")
def passes_the_parents(last):
    last.grad = np.ones_like(last.data)
    last.rule(last.grad, list(last.parents), last.data)


# ---- gradcheck ----


def _pairs(f, tensors, h=1e-5, clear=True, restore=True, skip_none=False,
           zeros=np.zeros, slope=None):  # fmt: skip
    "A list of (ours, nudged) for each tensor, an array of two rows."
    slope = slope or (lambda above, here, below: (above - below) / (2 * h))
    if clear:
        for t in tensors:
            t.grad = None
    f(*tensors).backward()
    here, pairs = float(f(*tensors).data), []
    for t in tensors:
        if t.grad is None and skip_none:
            continue
        grad = zeros(t.data.shape) if t.grad is None else t.grad
        for index in np.ndindex(t.data.shape):
            before = t.data[index]
            t.data[index] = before + h
            above = float(f(*tensors).data)
            t.data[index] = before - h
            below = float(f(*tensors).data)
            if restore:
                t.data[index] = before
            pairs.append((grad[index], slope(above, here, below)))
    return np.array(pairs).reshape(-1, 2).T


def _judged(gap, tol):
    if not gap <= tol:
        raise AssertionError("too large")
    return gap


def _largest(pairs):
    return np.max(abs(pairs[0] - pairs[1]))


@ex.gradcheck.slip(
    "Called twice, it fails: the first call's grad is still there. Clear it before "
    "backward (t.grad = None)."
)
def old_grads(f, *tensors, h=1e-5, tol=1e-6):
    return _judged(_largest(_pairs(f, tensors, h, clear=False)), tol)


@ex.gradcheck.slip("A nudged element was not put back: t.data must be as before.")
def leaves_the_nudge(f, *tensors, h=1e-5, tol=1e-6):
    return _judged(_largest(_pairs(f, tensors, h, restore=False)), tol)


@ex.gradcheck.slip(
    "The two sides lie 2h apart: divide their difference by 2h, not by h."
)
def divides_by_h(f, *tensors, h=1e-5, tol=1e-6):
    pairs = _pairs(f, tensors, h, slope=lambda above, here, below: (above - below) / h)
    return _judged(_largest(pairs), tol)


@ex.gradcheck.slip(
    "This nudges to one side only, and is off by about h: nudge to both, divide by 2h."
)
def one_sided(f, *tensors, h=1e-5, tol=1e-6):
    pairs = _pairs(f, tensors, h, slope=lambda above, here, below: (above - here) / h)
    return _judged(_largest(pairs), tol)


@ex.gradcheck.slip(
    "A gradient that is too small passes: compare the size of the gap, abs(ours - nudged)."
)
def signed_gap(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _pairs(f, tensors, h)
    return _judged(np.max(mine - nudged), tol)


@ex.gradcheck.slip(
    "Only the first element of each tensor is compared: np.ndindex(t.data.shape) visits "
    "all of them."
)
def first_element_only(f, *tensors, h=1e-5, tol=1e-6):
    for t in tensors:
        t.grad = None
    f(*tensors).backward()
    worst = 0.0
    for t in tensors:
        first, grad = (0,) * t.data.ndim, t.grad if t.grad is not None else 0 * t.data
        before = t.data[first]
        t.data[first] = before + h
        above = float(f(*tensors).data)
        t.data[first] = before - h
        below = float(f(*tensors).data)
        t.data[first] = before
        worst = np.maximum(worst, abs(grad[first] - (above - below) / (2 * h)))
    return _judged(worst, tol)


@ex.gradcheck.slip("Only the first tensor is compared: f moves with every one.")
def first_tensor_only(f, *tensors, h=1e-5, tol=1e-6):
    for t in tensors:
        t.grad = None

    def of_the_first(t):
        return f(t, *tensors[1:])

    return _judged(_largest(_pairs(of_the_first, tensors[:1], h)), tol)


@ex.gradcheck.slip(
    "Only the last tensor's gap is left: start with 0 once, before the loop over tensors."
)
def last_tensor_only(f, *tensors, h=1e-5, tol=1e-6):
    size = tensors[-1].data.size
    return _judged(_largest(_pairs(f, tensors, h)[:, -size:]), tol)


@ex.gradcheck.slip(
    "It returns 0 whatever it found, and nobody hears of it: raise AssertionError above tol."
)
def always_content(f, *tensors, h=1e-5, tol=1e-6):
    return 0.0 * _largest(_pairs(f, tensors, h))


@ex.gradcheck.slip("It finds the gap and says nothing: raise AssertionError above tol.")
def never_raises(f, *tensors, h=1e-5, tol=1e-6):
    return _largest(_pairs(f, tensors, h))


@ex.gradcheck.slip(
    "A gradient with the wrong sign passes: the gap is |ours - nudged|, with both signs "
    "kept until they are subtracted."
)
def sizes_first(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _pairs(f, tensors, h)
    return _judged(np.max(abs(abs(mine) - abs(nudged))), tol)


@ex.gradcheck.slip(
    "A gradient of nan passes: every comparison with nan is False, and max(0.0, nan) is "
    "0.0. Take np.maximum, or raise where `not gap <= tol`."
)
def nan_is_lost(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _pairs(f, tensors, h)
    return _judged(max(0.0, *abs(mine - nudged)), tol)


@ex.gradcheck.slip(
    "A gradient of nan passes: `gap > tol` is False for nan. Ask `if not gap <= tol`."
)
def nan_is_not_above(f, *tensors, h=1e-5, tol=1e-6):
    gap = _largest(_pairs(f, tensors, h))
    if gap > tol:
        raise AssertionError("too large")
    return gap


@ex.gradcheck.slip(
    "One nan is lost among numbers: np.nanmax leaves it out, np.max keeps it."
)
def leaves_nan_out(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _pairs(f, tensors, h)
    gaps = abs(mine - nudged)
    return _judged(np.nan if np.isnan(gaps).all() else np.nanmax(gaps), tol)


@ex.gradcheck.slip(
    "Two opposite errors cancel. Nudge ONE element at a time and compare it with its own "
    "element of grad."
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
    mine, nudged = _pairs(f, tensors, h)
    return _judged(np.mean(abs(mine - nudged)), tol)


@ex.gradcheck.slip("This is the sum of the gaps; it returns the largest.")
def sum_of_gaps(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _pairs(f, tensors, h)
    return _judged(np.sum(abs(mine - nudged)), tol)


@ex.gradcheck.slip("A gap divided by the nudged slope; here it is |ours - nudged|.")
def relative_gap(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _pairs(f, tensors, h)
    return _judged(np.max(abs(mine - nudged) / (abs(nudged) + 1e-12)), tol)


@ex.gradcheck.slip("A gap divided by backward's slope; here it is |ours - nudged|.")
def relative_to_ours(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _pairs(f, tensors, h)
    return _judged(np.max(abs(mine - nudged) / (abs(mine) + 1e-12)), tol)


@ex.gradcheck.slip("It returns 0, not the gap that it found.")
def returns_zero(f, *tensors, h=1e-5, tol=1e-6):
    return 0.0 * _judged(_largest(_pairs(f, tensors, h)), tol)


@ex.gradcheck.slip("It raises though the gap is below tol: use the argument tol.")
def fixed_tol(f, *tensors, h=1e-5, tol=1e-6):
    return _judged(_largest(_pairs(f, tensors, h)), 1e-6)


@ex.gradcheck.slip("It raises at a gap of exactly tol: only a larger one is refused.")
def refuses_tol_itself(f, *tensors, h=1e-5, tol=1e-6):
    gap = _largest(_pairs(f, tensors, h))
    if not gap < tol:
        raise AssertionError("too large")
    return gap


@ex.gradcheck.slip("The step is fixed: use the argument h.")
def fixed_h(f, *tensors, h=1e-5, tol=1e-6):
    return _judged(_largest(_pairs(f, tensors)), tol)


@ex.gradcheck.slip(
    "A tensor with grad None is skipped, but f moves with it: compare zeros with the "
    "nudge."
)
def skips_none(f, *tensors, h=1e-5, tol=1e-6):
    return _judged(_largest(_pairs(f, tensors, h, skip_none=True)), tol)


@ex.gradcheck.slip(
    "A tensor that f ignores has grad None after backward: count it as zeros."
)
def trips_over_none(f, *tensors, h=1e-5, tol=1e-6):
    return _judged(_largest(_pairs(f, tensors, h, zeros=lambda shape: None)), tol)


@ex.gradcheck.slip(
    "np.empty holds whatever lay there before: a tensor that f ignores has zeros, "
    "np.zeros."
)
def empty_for_zeros(f, *tensors, h=1e-5, tol=1e-6):
    return _judged(_largest(_pairs(f, tensors, h, zeros=np.empty)), tol)


@ex.gradcheck.slip(
    "It returns one number, the largest gap, not a list of words or flags."
)
def says_true(f, *tensors, h=1e-5, tol=1e-6):
    _judged(_largest(_pairs(f, tensors, h)), tol)
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


def _probabilities(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@ex.softmax_cross_entropy.slip(
    "exp of a large number overflows: subtract each row's maximum first."
)
def no_shift(z, labels):
    return _soft(z, labels, shift=False)


@ex.softmax_cross_entropy.slip("This is the sum over the rows: take the mean.")
def summed(z, labels):
    return _soft(z, labels, mean=False)


@ex.softmax_cross_entropy.slip(
    "The sign is turned: minus the logarithm of the true class."
)
def rewards(z, labels):
    loss, grad = _soft(z, labels)
    return -loss, grad


@ex.softmax_cross_entropy.slip("These are all rows' losses: one number, their mean.")
def one_loss_per_row(z, labels):
    p = _probabilities(z)[np.arange(len(labels)), labels]
    return -np.log(p), _soft(z, labels)[1]


@ex.softmax_cross_entropy.slip(
    "This is the mean probability: take the logarithm first."
)
def mean_probability(z, labels):
    p = _probabilities(z)[np.arange(len(labels)), labels]
    return p.mean(), _soft(z, labels)[1]


@ex.softmax_cross_entropy.slip(
    "The logarithm to base 2 counts in bits: np.log, as in chapter 02."
)
def in_bits(z, labels):
    loss, grad = _soft(z, labels)
    return loss / np.log(2), grad


@ex.softmax_cross_entropy.slip("The mean over the rows is missing: divide by N.")
def gradient_not_averaged(z, labels):
    return _soft(z, labels)[0], _soft(z, labels, mean=False)[1]


@ex.softmax_cross_entropy.slip(
    "Divided by the number of classes; the mean is over rows."
)
def divided_by_classes(z, labels):
    loss, grad = _soft(z, labels)
    return loss, grad * len(labels) / z.shape[1]


@ex.softmax_cross_entropy.slip("Softmax minus one-hot, not the other way round.")
def one_hot_minus_softmax(z, labels):
    loss, grad = _soft(z, labels)
    return loss, -grad


@ex.softmax_cross_entropy.slip(
    "The true class is missing: subtract 1 at each row's label."
)
def only_softmax(z, labels):
    return _soft(z, labels)[0], _probabilities(z) / len(labels)


@ex.softmax_cross_entropy.slip("Divide all of it by N, the -1 too.")
def half_averaged(z, labels):
    grad = _probabilities(z) / len(labels)
    grad[np.arange(len(labels)), labels] -= 1
    return _soft(z, labels)[0], grad


@ex.softmax_cross_entropy.slip(
    "The softmax is 0 there, and log 0 is -inf: log(sum) - shifted[label] never meets it."
)
def log_of_softmax(z, labels):
    p = _probabilities(z)[np.arange(len(labels)), labels]
    return -np.log(p).mean(), _soft(z, labels)[1]


for tiny in (1e-12, 1e-9):

    @ex.softmax_cross_entropy.slip(
        "A small number inside the logarithm caps the loss: 2,000 is the cost here, and "
        "log(sum) - shifted[label] gives it."
    )
    def adds_a_little(z, labels, tiny=tiny):
        p = _probabilities(z)[np.arange(len(labels)), labels]
        return -np.log(np.maximum(p, tiny)).mean(), _soft(z, labels)[1]


@ex.softmax_cross_entropy.slip(
    "Each row needs its OWN maximum, max(axis=1, keepdims=True): one for all rows sends "
    "the other rows' exponentials to 0."
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
    "p[:, labels] takes every row's entry for EVERY label; one for each row is "
    "p[np.arange(N), labels]."
)
def all_labels(z, labels):
    return -np.log(_probabilities(z)[:, labels]).mean(), _soft(z, labels)[1]


@ex.softmax_cross_entropy.slip(
    "grad[:, labels] -= 1 changes every row at EVERY label; one for each row is "
    "grad[np.arange(N), labels]."
)
def all_labels_in_gradient(z, labels):
    grad = _probabilities(z)
    grad[:, labels] -= 1
    return _soft(z, labels)[0], grad / len(labels)


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


def _layer(grad, X, W):
    return grad @ W.T, X.T @ grad, grad.sum(axis=0)


NO_MASK = (
    "The mask is missing: ReLU lets nothing back where its output is 0 (out >= 0 is true "
    "everywhere)."
)


@ex.linear_relu_backward.slip(NO_MASK)
def no_mask(grad, X, W, out):
    return _layer(grad, X, W)


@ex.linear_relu_backward.slip(NO_MASK)
def open_at_zero(grad, X, W, out):
    return _layer(grad * (out >= 0), X, W)


@ex.linear_relu_backward.slip("The mask is turned round: it keeps what is above 0.")
def mask_turned(grad, X, W, out):
    return _layer(grad * (out <= 0), X, W)


@ex.linear_relu_backward.slip("The mask multiplies by 1 or 0, not by the output.")
def times_output(grad, X, W, out):
    return _layer(grad * out, X, W)


@ex.linear_relu_backward.slip(
    "The mask asks for the output, out > 0: the gradient itself may well be negative."
)
def positive_gradients(grad, X, W, out):
    return _layer(np.maximum(grad, 0), X, W)


@ex.linear_relu_backward.slip("ReLU opens at 0: outputs between 0 and 1 pass as well.")
def open_above_one(grad, X, W, out):
    return _layer(grad * (out > 1), X, W)


@ex.linear_relu_backward.slip(
    "The smallest outputs count as 0: the mask is out > 0, without a margin."
)
def open_above_a_margin(grad, X, W, out):
    return _layer(grad * (out > 1e-2), X, W)


@ex.linear_relu_backward.slip("The mask is missing in W's gradient.")
def mask_only_for_x(grad, X, W, out):
    masked = grad * (out > 0)
    return masked @ W.T, X.T @ grad, masked.sum(axis=0)


@ex.linear_relu_backward.slip("The mask is missing in b's gradient.")
def mask_not_for_b(grad, X, W, out):
    masked = grad * (out > 0)
    return masked @ W.T, X.T @ masked, grad.sum(axis=0)


@ex.linear_relu_backward.slip("W.T, not W: from H back to D.")
def untransposed_w(grad, X, W, out):
    grad = grad * (out > 0)
    return grad @ W, X.T @ grad, grad.sum(axis=0)


@ex.linear_relu_backward.slip(
    "Averaged: the bias is used in every row, its gradients add."
)
def mean_bias(grad, X, W, out):
    grad = grad * (out > 0)
    return grad @ W.T, X.T @ grad, grad.mean(axis=0)


@ex.linear_relu_backward.slip("Averaged: every row has its say in W, the rows add up.")
def mean_weight(grad, X, W, out):
    grad = grad * (out > 0)
    return grad @ W.T, X.T @ grad / len(X), grad.sum(axis=0)


@ex.linear_relu_backward.slip("The bias has one number per unit: sum over the rows.")
def bias_keeps_rows(grad, X, W, out):
    grad = grad * (out > 0)
    return grad @ W.T, X.T @ grad, grad


@ex.linear_relu_backward.slip("Summed over the wrong axis: rows are axis 0.")
def bias_along_rows(grad, X, W, out):
    grad = grad * (out > 0)
    return grad @ W.T, X.T @ grad, grad.sum(axis=1)


@ex.linear_relu_backward.slip(told="changes its input in place")
def masks_in_place(grad, X, W, out):
    grad[out <= 0] = 0
    return _layer(grad, X, W)


# ---- sgd_step ----


def _sgd(parameters, loss_of, lr, clear=None, step=None):
    for p in parameters if clear is None else clear:
        p.grad = None
    loss = loss_of()
    loss.backward()
    for p in parameters:
        if p.grad is not None:
            p.data = p.data - (lr if step is None else step) * p.grad
    return float(loss.data)


@ex.sgd_step.slip("The old gradient is still in it: clear every grad before backward.")
def never_clears(parameters, loss_of, lr):
    return _sgd(parameters, loss_of, lr, clear=[])


@ex.sgd_step.slip("The last parameter's grad is not cleared: each of them adds up.")
def clears_all_but_the_last(parameters, loss_of, lr):
    return _sgd(parameters, loss_of, lr, clear=parameters[:-1])


@ex.sgd_step.slip("Uphill: move against the gradient.")
def uphill(parameters, loss_of, lr):
    return _sgd(parameters, loss_of, lr, step=-lr)


@ex.sgd_step.slip("The learning rate is missing.")
def no_rate(parameters, loss_of, lr):
    return _sgd(parameters, loss_of, lr, step=1.0)


@ex.sgd_step.slip("The rate is fixed: use the argument lr.")
def fixed_rate(parameters, loss_of, lr):
    return _sgd(parameters, loss_of, lr, step=0.1)


UNMOVED = (
    "Nothing has moved: change p.data itself (p.data -= ...), not a copy, and clear the "
    "grads before backward, not after."
)


@ex.sgd_step.slip(UNMOVED)
def moves_a_copy(parameters, loss_of, lr):
    return _sgd(parameters, loss_of, lr, step=0.0)


@ex.sgd_step.slip(UNMOVED)
def clears_before_the_move(parameters, loss_of, lr):
    loss = loss_of()
    loss.backward()
    for p in parameters:
        p.grad = None
    for p in parameters:
        if p.grad is not None:
            p.data = p.data - lr * p.grad
    return float(loss.data)


@ex.sgd_step.slip("Only the first parameter moves: go through all of them.")
def moves_the_first(parameters, loss_of, lr):
    loss = _sgd(parameters, loss_of, lr, step=0.0)
    parameters[0].data = parameters[0].data - lr * parameters[0].grad
    return loss


@ex.sgd_step.slip(
    "This is the loss after the step; return the one you stepped from (and save a forward "
    "pass)."
)
def loss_afterwards(parameters, loss_of, lr):
    _sgd(parameters, loss_of, lr)
    return float(loss_of().data)


for times in (lambda lr, grad: lr * grad, lambda lr, grad: grad * lr):

    @ex.sgd_step.slip("Its grad is None after backward: leave such a parameter alone.")
    def trips_over_idle(parameters, loss_of, lr, times=times):
        for p in parameters:
            p.grad = None
        loss = loss_of()
        loss.backward()
        for p in parameters:
            p.data = p.data - times(lr, p.grad)
        return float(loss.data)

    @ex.sgd_step.slip(
        "w.grad is None, a NoneType, when you move. Was loss.backward() called, and are "
        "grads cleared before it, not after?"
    )
    def clears_too_late(parameters, loss_of, lr, times=times):
        loss = loss_of()
        loss.backward()
        for p in parameters:
            p.grad = None
        for p in parameters:
            p.data = p.data - times(lr, p.grad)
        return float(loss.data)


@ex.sgd_step.slip("It returns the loss as a number: float(loss.data).")
def returns_the_tensor(parameters, loss_of, lr):
    for p in parameters:
        p.grad = None
    loss = loss_of()
    loss.backward()
    for p in parameters:
        if p.grad is not None:
            p.data = p.data - lr * p.grad
    return loss


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
    "The parameter before it has no grad: leave that one alone and go on to the next "
    "(continue, not break)."
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
    "No gradient arrived and nothing moved: loss.backward() fills in the grads, after "
    "they are cleared."
)
def no_backward(parameters, loss_of, lr):
    for p in parameters:
        p.grad = None
    loss = loss_of()
    for p in parameters:
        if p.grad is not None:
            p.data = p.data - lr * p.grad
    return float(loss.data)


@ex.sgd_step.slip("It never asks for the loss: call loss_of().")
def without_a_loss(parameters, loss_of, lr):
    for p in parameters:
        if p.grad is not None:
            p.data = p.data - lr * p.grad
    return 0.0
