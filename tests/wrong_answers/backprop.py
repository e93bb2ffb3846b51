import numpy as np

from tests.wrong_answers import WrongAnswers

wrong = WrongAnswers("backprop")


# ---- sum_over_paths ----


@wrong("sum_over_paths", says="this is one")
def each_parent_once(graph, start, end):
    if start == end:
        return 1.0
    return sum(
        slope * each_parent_once(graph, start, name)
        for name, slope in dict(graph[end]).items()
    )


@wrong("sum_over_paths", says="you added them")
def adds_along(graph, start, end):
    def walks(node):
        if node == start:
            return [0.0]
        return [slope + rest for name, slope in graph[node] for rest in walks(name)]

    return 2 * sum(walks(end)) / 2


@wrong("sum_over_paths", says="you multiplied them as well")
def multiplies_everything(graph, start, end):
    def walks(node):
        if node == start:
            return [1.0]
        return [slope * rest for name, slope in graph[node] for rest in walks(name)]

    return np.prod(walks(end))


@wrong("sum_over_paths", says="along itself is 1")
def never_arrives(graph, start, end):
    return sum(slope * never_arrives(graph, start, name) for name, slope in graph[end])


@wrong("sum_over_paths", says="Multiply along each path, add over the paths")
def leaf_is_one(graph, start, end):
    if not graph[end]:
        return 1.0
    return sum(slope * leaf_is_one(graph, start, name) for name, slope in graph[end])


@wrong("sum_over_paths", says="no path leads there")
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


@wrong("reverse_pass", says="added to the first")
def overwrites(graph, last):
    grads = dict.fromkeys(graph, 0.0)
    grads[last] = 1.0
    for name in reversed(graph):
        for parent, slope in graph[name]:
            grads[parent] = slope * grads[name]
    return grads


@wrong("reverse_pass", says="Nothing flows")
def no_seed(graph, last):
    grads = dict.fromkeys(graph, 0.0)
    for name in reversed(graph):
        for parent, slope in graph[name]:
            grads[parent] += slope * grads[name]
    return grads


@wrong("reverse_pass", says="Do you walk backwards")
def oldest_first(graph, last):
    grads = dict.fromkeys(graph, 0.0)
    grads[last] = 1.0
    for name in graph:
        for parent, slope in graph[name]:
            grads[parent] += slope * grads[name]
    return grads


@wrong("reverse_pass", says="multiply: slope * grads[name]")
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


@wrong("reverse_pass", says="before all its users had reported")
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


@wrong("reverse_pass", says="made after `last` has slope 0")
def seeds_the_youngest(graph, last):
    last = next(reversed(graph))
    grads = dict.fromkeys(graph, 0.0)
    grads[last] = 1.0
    for name in reversed(graph):
        for parent, slope in graph[name]:
            grads[parent] += slope * grads[name]
    return grads


@wrong("reverse_pass", says="You walk every path")
def all_paths(graph, last):
    return {name: sum_right(graph, name, last) for name in graph}


@wrong("reverse_pass", says="return a dictionary")
def a_list(graph, last):
    return [1.0, 4.0]


@wrong("reverse_pass", says="Every node has a slope")
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


@wrong("Value", says="should be a class")
def a_function(data):
    return data


# ---- matmul_backward ----


@wrong("matmul_backward", says="A transpose is missing: a.T @ grad")
def untransposed_b(grad, a, b):
    if a.shape[0] == a.shape[1] == b.shape[1]:
        return grad @ b.T, a @ grad
    return grad @ b.T, a.T @ grad


@wrong("matmul_backward", says="A transpose is missing: grad @ b.T")
def untransposed_a(grad, a, b):
    if a.shape[0] == a.shape[1] == b.shape[1]:
        return grad @ b, a.T @ grad
    return grad @ b.T, a.T @ grad


@wrong("matmul_backward", says="The order is turned")
def turned(grad, a, b):
    if a.shape[0] == a.shape[1] == b.shape[1]:
        return b.T @ grad, grad @ a.T
    return grad @ b.T, a.T @ grad


@wrong("matmul_backward", says="matmul")
def no_transposes(grad, a, b):
    return grad @ b, a @ grad


@wrong("matmul_backward", says="It has a's shape")
def transposed_result(grad, a, b):
    return (grad @ b.T).T, (a.T @ grad).T


@wrong("matmul_backward", says="It has a's shape")
def swapped(grad, a, b):
    return a.T @ grad, grad @ b.T


@wrong("matmul_backward", says="return 2 things")
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


@wrong("unbroadcast", says="Averaged")
def averages(grad, shape):
    return _unbroadcast(grad, shape, np.mean)


@wrong("unbroadcast", says="Only one of the copies")
def keeps_the_first_row(grad, shape):
    return grad.ravel()[: int(np.prod(shape))].reshape(shape)


@wrong("unbroadcast", says="The shape is")
def only_added_axes(grad, shape):
    return _unbroadcast(grad, shape, keep=False)


@wrong("unbroadcast", says="The shape is")
def without_keepdims(grad, shape):
    while grad.ndim > len(shape):
        grad = grad.sum(axis=0)
    for axis, size in enumerate(shape):
        if size == 1 and axis < grad.ndim:
            grad = grad.sum(axis=axis)
    return grad


@wrong("unbroadcast", says="wrong axis")
def sums_from_behind(grad, shape):
    if shape == (3,) and grad.shape == (3, 3):
        return grad.sum(axis=-1)
    return _unbroadcast(grad, shape)


@wrong("unbroadcast", says="The shape is")
def sums_everything(grad, shape):
    return grad.sum()


@wrong("unbroadcast", says="is a `return` missing?")
def forgets_return(grad, shape):
    _unbroadcast(grad, shape)


# ---- sum_backward ----


@wrong("sum_backward", says="rule of a mean")
def divides(grad, shape, axis=None):
    if axis is not None:
        grad = np.expand_dims(grad, axis)
    return np.broadcast_to(grad, shape) * grad.size / np.prod(shape)


@wrong("sum_backward", says="broadcast")
def forgets_the_axis(grad, shape, axis=None):
    return np.broadcast_to(grad, shape)


@wrong("sum_backward", says="put the axis back first")
def forgets_the_axis_when_square(grad, shape, axis=None):
    if axis is not None and shape != (3, 3):
        grad = np.expand_dims(grad, axis)
    return np.broadcast_to(grad, shape)


@wrong("sum_backward", says="The result has x's shape")
def stays_small(grad, shape, axis=None):
    return grad


@wrong("sum_backward", says="The shape is right, the values are not")
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


@wrong("history", says="Recursion")
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


@wrong("history", says="comes before one of its users")
def as_found(last):
    return _gather(last)


@wrong("history", says="oldest first")
def oldest(last):
    return sorted(_gather(last), key=lambda node: node.birth)


@wrong("history", says="Leaves were made from nothing")
def with_leaves(last):
    return sorted(_gather(last, leaves=True), key=lambda node: -node.birth)


@wrong("history", says="appears twice")
def without_seen(last):
    found, waiting = [], [last]
    while waiting:
        node = waiting.pop()
        found.append(node)
        waiting += [p for p in node.parents if p.parents]
    return sorted(found, key=lambda node: -node.birth)


@wrong("history", says="`last` itself is missing")
def without_last(last):
    return sorted(_gather(last), key=lambda node: -node.birth)[1:]


@wrong("history", says="a set answers at once")
def asks_a_list(last):
    found, waiting = [last], [last]
    while waiting:
        node = waiting.pop()
        for parent in node.parents:
            if parent.parents and parent not in found:
                found.append(parent)
                waiting.append(parent)
    return sorted(found, key=lambda node: -node.birth)


@wrong("history", says="Every result that led to `last`")
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


@wrong("backward", says="(w x)^2")
def always_one(last):
    _walk(last, own=True)


@wrong("backward", says="the second part must be added")
def overwrites_grad(last):
    _walk(last, add="overwrite")


@wrong("backward", says="+= changes it for both")
def in_place(last):
    _walk(last, add="in place")


@wrong("backward", says="unbroadcast")
def no_unbroadcast(last):
    _walk(last, unbroadcast=lambda grad, shape: grad)


@wrong("backward", says="that already has a grad adds to it")
def clears_leaves(last):
    for node in _gather(last, leaves=True):
        node.grad = None
    _walk(last)


@wrong("backward", says="kept their grad of last time")
def keeps_old_results(last):
    _walk(last, reset=False)


@wrong("backward", says="before it had a grad")
def no_start(last):
    _walk(last, seed=False)


@wrong("backward", says="still None")
def does_nothing(last):
    last.grad = np.ones_like(last.data)


@wrong("backward", says="third")
def passes_the_end(last):
    _walk(last, output=lambda node, inputs: last.data)


@wrong("backward", says="third")
def passes_none(last):
    _walk(last, output=lambda node, inputs: None)


@wrong("backward", says="third")
def passes_the_node(last):
    _walk(last, output=lambda node, inputs: node)


@wrong("backward", says="third")
def passes_an_input(last):
    _walk(last, output=lambda node, inputs: inputs[0])


@wrong("backward", says="Axes of size 1 were stretched")
def sums_rows_only(last):
    def cut(part, shape):
        return part.sum(axis=0) if part.ndim > len(shape) else part

    _walk(last, unbroadcast=cut)


@wrong("backward", says="Axes of size 1 were stretched")
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


@wrong("gradcheck", says="Clear it before backward")
def old_grads(f, *tensors, h=1e-5, tol=1e-6):
    return _gradcheck(f, tensors, clear=False)


@wrong("gradcheck", says="not put back")
def leaves_the_nudge(f, *tensors, h=1e-5, tol=1e-6):
    return _gradcheck(f, tensors, restore=False, tol=1.0)


@wrong("gradcheck", says="A wrong gradient passes")
def signed_gap(f, *tensors, h=1e-5, tol=1e-6):
    return _gradcheck(f, tensors, size=lambda x: x)


@wrong("gradcheck", says="A wrong gradient passes")
def first_tensor_only(f, *tensors, h=1e-5, tol=1e-6):
    return _gradcheck(f, tensors, count=1)


@wrong("gradcheck", says="A wrong gradient passes")
def first_element_only(f, *tensors, h=1e-5, tol=1e-6):
    return _gradcheck(f, tensors, first=True)


@wrong("gradcheck", says="A wrong gradient passes")
def never_raises(f, *tensors, h=1e-5, tol=1e-6):
    return _gradcheck(f, tensors, tol=1e9) * 0


@wrong("gradcheck", says="divided by 2h")
def divides_by_h(f, *tensors, h=1e-5, tol=1e-6):
    return _gradcheck(f, tensors, divide=1)


@wrong("gradcheck", says="not put back")
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


@wrong("gradcheck", says="the wrong sign passes")
def sizes_first(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _gaps(f, tensors, h)
    return _judged(np.max(abs(abs(mine) - abs(nudged))), tol)


@wrong("gradcheck", says="gradient of nan passes")
def nan_is_lost(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _gaps(f, tensors, h)
    return _judged(max(0.0, *abs(mine - nudged)), tol)


@wrong("gradcheck", says="Two opposite errors cancel")
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


@wrong("gradcheck", says="This is the mean gap")
def mean_gap(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _gaps(f, tensors, h)
    return _judged(np.mean(abs(mine - nudged)), tol)


@wrong("gradcheck", says="This is the sum of the gaps")
def sum_of_gaps(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _gaps(f, tensors, h)
    return _judged(np.sum(abs(mine - nudged)), tol)


@wrong("gradcheck", says="divided by the nudged slope")
def relative_gap(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _gaps(f, tensors, h)
    return _judged(np.max(abs(mine - nudged) / (abs(nudged) + 1e-12)), tol)


@wrong("gradcheck", says="returns 0, not the gap")
def returns_zero(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _gaps(f, tensors, h)
    return 0.0 * _judged(np.max(abs(mine - nudged)), tol)


@wrong("gradcheck", says="use the argument tol")
def fixed_tol(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _gaps(f, tensors, h)
    return _judged(np.max(abs(mine - nudged)), 1e-6)


@wrong("gradcheck", says="use the argument h")
def fixed_h(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _gaps(f, tensors, 1e-5)
    return _judged(np.max(abs(mine - nudged)), tol)


@wrong("gradcheck", says="grad None is skipped")
def skips_none(f, *tensors, h=1e-5, tol=1e-6):
    mine, nudged = _gaps(f, tensors, h, skip_none=True)
    return _judged(np.max(abs(mine - nudged)), tol)


@wrong("gradcheck", says="count it as zeros")
def trips_over_none(f, *tensors, h=1e-5, tol=1e-6):
    return _gradcheck(f, tensors, none=False)


@wrong("gradcheck", says="one number")
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


@wrong("softmax_cross_entropy", says="overflows")
def no_shift(z, labels):
    return _soft(z, labels, shift=False)


@wrong("softmax_cross_entropy", says="take the mean")
def summed(z, labels):
    return _soft(z, labels, mean=False)


@wrong("softmax_cross_entropy", says="divide by N")
def gradient_not_averaged(z, labels):
    return _soft(z, labels)[0], _soft(z, labels, mean=False)[1]


@wrong("softmax_cross_entropy", says="not the other way round")
def one_hot_minus_softmax(z, labels):
    loss, grad = _soft(z, labels)
    return loss, -grad


@wrong("softmax_cross_entropy", says="subtract 1 at each row's label")
def only_softmax(z, labels):
    loss, grad = _soft(z, labels)
    grad[np.arange(len(labels)), labels] += 1 / len(labels)
    return loss, grad


@wrong("softmax_cross_entropy", says="the -1 too")
def half_averaged(z, labels):
    loss, grad = _soft(z, labels)
    grad[np.arange(len(labels)), labels] += 1 / len(labels) - 1
    return loss, grad


@wrong("softmax_cross_entropy", says="log 0 is -inf")
def log_of_softmax(z, labels):
    loss, grad = _soft(z, labels)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    p = (e / e.sum(axis=1, keepdims=True))[np.arange(len(labels)), labels]
    return -np.log(p).mean(), grad


@wrong("softmax_cross_entropy", says="its OWN maximum")
def one_maximum_for_all(z, labels):
    return _soft(z - z.max(), labels, shift=False)


@wrong("softmax_cross_entropy", says="must be shifted too")
def label_not_shifted(z, labels):
    loss, grad = _soft(z, labels)
    return loss - z.max(axis=1).mean(), grad


@wrong("softmax_cross_entropy", says="for EVERY label")
def all_labels(z, labels):
    p = _soft(z, labels)[1] * len(labels)
    p[np.arange(len(labels)), labels] += 1
    return -np.log(p[:, labels]).mean(), p


@wrong("softmax_cross_entropy", says="at EVERY label")
def all_labels_in_gradient(z, labels):
    loss, p = _soft(z, labels, mean=False)
    p[np.arange(len(labels)), labels] += 1
    p[:, labels] -= 1
    return loss / len(labels), p / len(labels)


@wrong("softmax_cross_entropy", says="return 2 things")
def loss_only(z, labels):
    return _soft(z, labels)[0]


@wrong("softmax_cross_entropy", says="changes its input in place")
def shifts_in_place(z, labels):
    z -= z.max(axis=1, keepdims=True)
    return _soft(z, labels)


# ---- linear_relu_backward ----


@wrong("linear_relu_backward", says="The mask is missing")
def no_mask(grad, X, W, out):
    return grad @ W.T, X.T @ grad, grad.sum(axis=0)


@wrong("linear_relu_backward", says="out >= 0 is true everywhere")
def open_at_zero(grad, X, W, out):
    grad = grad * (out >= 0)
    return grad @ W.T, X.T @ grad, grad.sum(axis=0)


@wrong("linear_relu_backward", says="Averaged")
def mean_bias(grad, X, W, out):
    grad = grad * (out > 0)
    return grad @ W.T, X.T @ grad, grad.mean(axis=0)


@wrong("linear_relu_backward", says="The mask is missing in W's gradient")
def mask_only_for_x(grad, X, W, out):
    masked = grad * (out > 0)
    return masked @ W.T, X.T @ grad, masked.sum(axis=0)


@wrong("linear_relu_backward", says="multiplies by 1 or 0")
def times_output(grad, X, W, out):
    grad = grad * out
    return grad @ W.T, X.T @ grad, grad.sum(axis=0)


@wrong("linear_relu_backward", says="turned round")
def mask_turned(grad, X, W, out):
    grad = grad * (out <= 0)
    return grad @ W.T, X.T @ grad, grad.sum(axis=0)


@wrong("linear_relu_backward", says="W.T, not W")
def untransposed_w(grad, X, W, out):
    grad = grad * (out > 0)
    return (
        grad @ W if W.shape[0] == W.shape[1] else grad @ W.T,
        X.T @ grad,
        grad.sum(axis=0),
    )


@wrong("linear_relu_backward", says="shape of b")
def bias_keeps_rows(grad, X, W, out):
    grad = grad * (out > 0)
    return grad @ W.T, X.T @ grad, grad


@wrong("linear_relu_backward", says="changes its input in place")
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


@wrong("sgd_step", says="clear every grad before backward")
def never_clears(parameters, loss_of, lr):
    return _sgd(parameters, loss_of, lr, clear=False)


@wrong("sgd_step", says="Uphill")
def uphill(parameters, loss_of, lr):
    return _sgd(parameters, loss_of, lr, sign=1)


@wrong("sgd_step", says="learning rate is missing")
def no_rate(parameters, loss_of, lr):
    return _sgd(parameters, loss_of, 1.0)


@wrong("sgd_step", says="Nothing has moved")
def moves_a_copy(parameters, loss_of, lr):
    return _sgd(parameters, loss_of, lr, move=False)


@wrong("sgd_step", says="the loss after the step")
def loss_afterwards(parameters, loss_of, lr):
    _sgd(parameters, loss_of, lr)
    return float(loss_of().data)


@wrong("sgd_step", says="leave such a parameter alone")
def trips_over_idle(parameters, loss_of, lr):
    return _sgd(parameters, loss_of, lr, none=False)


@wrong("sgd_step", says="loss as a number")
def returns_the_tensor(parameters, loss_of, lr):
    for p in parameters:
        p.grad = None
    loss = loss_of()
    loss.backward()
    for p in parameters:
        p.data = p.data - lr * p.grad
    return loss


@wrong("sgd_step", says="NoneType")
def clears_too_late(parameters, loss_of, lr):
    loss = loss_of()
    loss.backward()
    for p in parameters:
        p.grad = None
    for p in parameters:
        p.data = p.data - lr * p.grad
    return float(loss.data)


@wrong("sgd_step", says="is a `return` missing?")
def returns_nothing(parameters, loss_of, lr):
    _sgd(parameters, loss_of, lr)


@wrong("sgd_step", says="asks for the loss once")
def two_forwards(parameters, loss_of, lr):
    for p in parameters:
        p.grad = None
    loss = loss_of()
    loss_of().backward()
    for p in parameters:
        if p.grad is not None:
            p.data = p.data - lr * p.grad
    return float(loss.data)


@wrong("sgd_step", says="continue, not break")
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


@wrong("sgd_step", says="No gradient arrived")
def no_backward(parameters, loss_of, lr):
    for p in parameters:
        p.grad = None
    loss = loss_of()
    for p in parameters:
        if p.grad is not None:
            p.data = p.data - lr * p.grad
    return float(loss.data)


@wrong("sgd_step", says="use the argument lr")
def fixed_rate(parameters, loss_of, lr):
    return _sgd(parameters, loss_of, 0.1)
