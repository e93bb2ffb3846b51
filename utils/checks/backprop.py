"""Chapter 03: how one backward pass gets every gradient."""

import contextlib
import copy
import itertools

import numpy as np

from utils.built.autograd import Tensor, record
from utils.exercises import Chapter, Miss, same

chapter = Chapter("03_backprop")

# L = e * e, e = s - y, s = p + b, p = w * x at w = 2, x = 3, b = 1, y = 5
LINE = {
    "w": [], "x": [], "p": [("w", 3.0), ("x", 2.0)],
    "b": [], "s": [("p", 1.0), ("b", 1.0)],
    "y": [], "e": [("s", 1.0), ("y", -1.0)],
    "L": [("e", 2.0), ("e", 2.0)],
}  # fmt: skip
# z is used early by a and late by d; a is used by d and, through b and c, once more
LATE = {
    "z": [], "a": [("z", 2.0)], "b": [("a", 3.0)], "c": [("b", 5.0)],
    "d": [("a", 7.0), ("c", 1.0), ("z", 1.0)],
}  # fmt: skip


def _diamonds(depth, slope=0.5):
    "x0, and `depth` times: the next uses the one before twice. 2^depth paths."
    graph = {"x0": []}
    for i in range(depth):
        graph |= {
            f"l{i}": [(f"x{i}", slope)],
            f"r{i}": [(f"x{i}", slope)],
            f"x{i + 1}": [(f"l{i}", 1.0), (f"r{i}", 1.0)],
        }
    return graph


@chapter.exercise(
    "The slope along one path is a product. Several paths: their slopes add.",
    "From `end`, every input is the start of shorter paths: ask the function for those.",
    "if start == end: return 1.0;  return sum(slope * sum_over_paths(graph, start, name) "
    "for name, slope in graph[end])",
)
def sum_over_paths(answer):
    "The slope of `end` along `start`: over all paths, the sum of the products."
    given = answer

    def answer(graph, start, end):  # a copy: the check's graphs outlive every answer
        return given(copy.deepcopy(graph), start, end)

    case = "L = (w x + b - y)^2 at w = 2, x = 3, b = 1, y = 5: the slope along w"
    same(
        case,
        answer(LINE, "w", "L"),
        12.0,
        rule="Multiply along each path, add over the paths.",
    )
    same("the slope along y", answer(LINE, "y", "L"), -4.0)
    same(
        "the slope of e along w: other paths do not count", answer(LINE, "w", "e"), 3.0
    )
    same(
        "the slope of L along itself",
        answer(LINE, "L", "L"),
        1.0,
        rule="A thing changes as much as it changes: slope 1.",
    )
    same(
        "the slope of e along L: no path leads there",
        answer(LINE, "L", "e"),
        0.0,
        rule="No path, no influence: the sum of nothing is 0.",
    )
    same("three paths of different lengths: d along z", answer(LATE, "z", "d"), 45.0)


@chapter.exercise(
    "Start with 1 at `last` and 0 everywhere else. Who is allowed to pass on first?",
    "A node passes on once all its users have reported. They were created after it.",
    "for name in reversed(graph): for parent, slope in graph[name]: "
    "grads[parent] += slope * grads[name]",
)
def reverse_pass(answer):
    "The slope of `last` along every node, each edge visited once."

    def grads(graph, last):
        # a copy: the check's graphs outlive an answer that empties them
        got = answer(copy.deepcopy(graph), last)
        if not isinstance(got, dict):
            raise Miss("It should return a dictionary {name: slope}.", "reverse_pass(...)",
                       got, "{name: slope}")  # fmt: skip
        if set(got) != set(graph):
            raise Miss("Every node has a slope, be it 0.", "the names", sorted(got),
                       sorted(graph))  # fmt: skip
        return got

    def told(case, graph, last, want, slips=None, rule=""):
        got = grads(graph, last)
        same(f"{case}, in the order {' '.join(want)}", [got[name] for name in want],
             list(want.values()), slips, rule)  # fmt: skip

    want = {"L": 1.0, "e": 4.0, "s": 4.0, "b": 4.0, "p": 4.0, "x": 8.0, "w": 12.0}
    told(
        "the slopes of L = (w x + b - y)^2",
        LINE,
        "L",
        want,

    )  # fmt: skip
    told(
        "z is used early and late",
        LATE,
        "d",
        {"d": 1.0, "c": 1.0, "b": 5.0, "a": 22.0, "z": 45.0},
        rule="A node passed on before all its users had reported. The last to be created "
        "was used by nobody later: go through the creation order backwards.",
    )
    told(
        "the slopes of e, when L was made later",
        LINE,
        "e",
        {"L": 0.0, "e": 1.0, "s": 1.0, "p": 1.0, "w": 3.0, "y": -1.0},
        rule="What was made after `last` has slope 0.",
    )
    deep = _diamonds(200)  # path by path, no computer would ever finish
    case = "two hundred diamonds in a row, 2^200 paths"
    visits = itertools.count()

    class Edges(list):
        "The edges of a node; they know how often a node was asked for them."

        def __iter__(self):
            if next(visits) > 100 * len(deep):
                raise Miss(
                    "You walk every path; 2^200 never end. Visit each node once: it "
                    "passes on all that its users reported, in one go.", case,
                    f"more than {100 * len(deep):,} visits", f"{len(deep)} visits",
                )  # fmt: skip
            return super().__iter__()

    watched = {name: Edges(made) for name, made in deep.items()}
    same(case, answer(watched, "x200")["x0"], 1.0)


@chapter.exercise(
    "A result knows its data, what it was made from, and one slope for each of those.",
    "a + b moves as much as a does: slopes 1.0, 1.0. a * b moves by b for each step of a.",
    "Value(self.data * other.data, (self, other), (other.data, self.data))",
    kind="class",
)
def Value(answer):
    "A scalar that records its parents and the slope along each."

    def local(case, result, data, parents, slopes, slips=None):
        if not hasattr(result, "slopes"):
            raise Miss("An operation returns a new Value, with parents and slopes.", case,
                       result, f"Value({data})")  # fmt: skip
        same(f"{case}: data", result.data, data)
        for name in ("parents", "slopes"):
            if not isinstance(getattr(result, name), (tuple, list)):
                raise Miss(f"{name} is a tuple, and a tuple of one needs a comma: (x,), "
                           "not (x).", f"{case}: {name}", getattr(result, name), "a tuple")  # fmt: skip
        got = list(result.parents)
        if len(got) != len(parents) or any(g is not p for g, p in zip(got, parents)):
            values = [getattr(p, "data", p) for p in got]
            one = " relu has one parent, self." if len(parents) == 1 else ""
            raise Miss(f"parents holds the Values it was made from, in order.{one}",
                       f"{case}: the data of its parents", values,
                       [p.data for p in parents])  # fmt: skip
        same(f"{case}: slopes", list(result.slopes), slopes, slips,
             "One slope for each parent, in the order of the parents.")  # fmt: skip

    a, b = answer(2.0), answer(-3.0)
    local("Value(2) + Value(-3)", a + b, -1.0, (a, b), [1.0, 1.0],
          {"A sum moves as much as each of its terms: both slopes are 1.": [2.0, -3.0]})  # fmt: skip
    local("Value(2) * Value(-3)", a * b, -6.0, (a, b), [-3.0, 2.0],
          {"The slope along a factor is the other factor: swapped.": [2.0, -3.0],
           "These are the slopes of a sum.": [1.0, 1.0]})  # fmt: skip
    for x, data, slope in ((2.0, 2.0, 1.0), (-3.0, 0.0, 0.0), (0.0, 0.0, 0.0)):
        v = answer(x)
        local(f"Value({x:g}).relu()", v.relu(), data, (v,), [slope],
              {"At exactly 0 the slope counts as 0: > 0, not >= 0." if x == 0 else
               "Below zero the output does not move: slope 0.": [1.0],
               "Above zero it moves as its input: slope 1.": [0.0],
               "The slope is 1 or 0, not the value.": [x]})  # fmt: skip
    tape = getattr(answer.__init__, "__globals__", {}).get("tape")
    if isinstance(tape, list):
        for case, run in (("a + b", lambda: a + b), ("a * b", lambda: a * b),
                          ("a.relu()", a.relu)):  # fmt: skip
            before = len(tape)
            run()
            added = len(tape) - before
            del tape[before:]
            if added != 1:
                raise Miss("One operation, one entry: __init__ puts the result on the tape, "
                           "nobody else does.", f"{case}: new entries of the tape", added, 1)  # fmt: skip
    square = a * a
    local("a * a with a = 2", square, 4.0, (a, a), [2.0, 2.0])
    for case, result, data, slope in (
        ("Value(2) + 1.5", a + 1.5, 3.5, 1.0),
        ("Value(2) * 1.5", a * 1.5, 3.0, 1.5),
        ("4 * Value(2)", 4 * a, 8.0, 4.0),
        ("5 - Value(2)", 5 - a, 3.0, -1.0),
    ):
        same(f"{case}: data", result.data, data)
        same(
            f"{case}: the slope along the Value, over all paths",
            _slope(result, a),
            slope,
        )
    if any(v.grad != 0.0 for v in (a, b, square)):
        raise Miss(
            "The forward pass leaves grad at 0.", "after a * a", square.grad, 0.0
        )


def _slope(result, start):
    if result is start:
        return 1.0
    return sum(s * _slope(p, start) for p, s in zip(result.parents, result.slopes))


@chapter.exercise(
    "Let the shapes lead: grad has the shape of a @ b. What product of it and b looks "
    "like a?",
    "(N, M) times (M, D) is (N, D): so b comes transposed, from the right. For grad_b: "
    "(D, N) times (N, M).",
    "return grad @ b.T, a.T @ grad",
)
def matmul_backward(answer):
    "Gradients of both factors of a matrix product."
    rng = np.random.default_rng(0)
    for n, d, m in ((2, 3, 4), (3, 3, 3), (1, 2, 1)):
        a, b, grad = (rng.normal(size=s) for s in ((n, d), (d, m), (n, m)))
        case = f"a ({n}, {d}), b ({d}, {m}), grad ({n}, {m})"
        got = _several(answer(grad, a, b), 2, "(gradient of a, gradient of b)")
        slips_a, slips_b = {}, {}
        if n == d == m:  # every mistake has the right shape here: only values tell
            slips_a = {
                "A transpose is missing: grad @ b.T.": grad @ b,
                "The order is turned: grad @ b.T, with grad on the left.": b.T @ grad,
                "grad must not be transposed here.": grad.T @ b.T,
                "The two gradients are swapped.": a.T @ grad,
                "* multiplies element by element; @ is the matrix product.": grad * b,
            }
            slips_b = {
                "A transpose is missing: a.T @ grad.": a @ grad,
                "The order is turned: a.T @ grad, with grad on the right.": grad @ a.T,
                "grad must not be transposed here.": a.T @ grad.T,
            }
        same(f"{case}: gradient of a", got[0], grad @ b.T, slips_a,
             _either(got[0], a, "It has a's shape: one slope for each element of a.",
                     "The shape is right, the values are not: grad and b, which first?"))  # fmt: skip
        same(f"{case}: gradient of b", got[1], a.T @ grad, slips_b,
             _either(got[1], b, "It has b's shape: one slope for each element of b.",
                     "The shape is right, the values are not: grad and a, which first?"))  # fmt: skip


def _either(got, want, shape, values):
    "The sentence about the shape where it is wrong, else that about the values."
    with contextlib.suppress(Exception):
        if np.shape(got) == np.shape(want):
            return values
    return shape


def _several(got, count, what):
    if not isinstance(got, (tuple, list)) or len(got) != count:
        raise Miss(
            f"It should return {count} things: {what}.", "what came back", got, what
        )
    return got


@chapter.exercise(
    "Which axes did broadcasting add in front, and which did it stretch from 1?",
    "Sum the added ones away; sum the stretched ones with keepdims=True.",
    "while grad.ndim > len(shape): grad = grad.sum(axis=0);  then for axis, size in "
    "enumerate(shape): if size == 1: grad = grad.sum(axis=axis, keepdims=True)",
)
def unbroadcast(answer):
    "The gradient of what broadcasting had copied: the copies' gradients add up."
    rng = np.random.default_rng(0)
    for shape, stretched in (
        ((5,), (32, 5)), ((4, 1), (4, 3)), ((1, 3), (4, 3)), ((3,), (3, 3)), ((), (2, 3)),
        ((1, 1), (4, 3)), ((2, 1, 3), (5, 2, 4, 3)), ((1,), (6,)), ((4, 3), (4, 3)),
    ):  # fmt: skip
        grad = rng.normal(size=stretched)
        # a sum against ones, spelt by einsum: nothing of the two loops of the answer
        letters = "abcd"[: grad.ndim]
        kept = [
            letter
            for letter, size in zip(letters[grad.ndim - len(shape) :], shape)
            if size > 1
        ]
        want = np.einsum(grad, [*range(grad.ndim)], [letters.index(k) for k in kept])
        want = np.asarray(want).reshape(shape)
        slips = {
            "Averaged: a value that was used n times collects n gradients, and they "
            "add.": want * want.size / grad.size,
            "Only one of the copies has a say: all of them add up.": grad.ravel()[
                : want.size
            ].reshape(shape),
        }
        if shape == (3,):
            slips["Summed along the wrong axis: broadcasting adds axes in front."] = (
                grad.sum(axis=1)
            )
        got = answer(grad, shape)
        same(
            f"unbroadcast(grad of shape {stretched}, {shape})",
            got,
            want,
            slips,
            _either(
                got,
                want,
                "The result has the shape that the value had before it was broadcast.",
                "The shape is right, the values are not: each element is the sum over "
                "its own copies. Which axes did broadcasting add, which did it stretch?",
            ),
        )


@chapter.exercise(
    "Every element went into its sum once, with slope 1: so each gets a copy.",
    "Of what? Of its own sum's gradient. np.expand_dims puts the summed axis back.",
    "if axis is not None: grad = np.expand_dims(grad, axis);  "
    "return np.broadcast_to(grad, shape)",
)
def sum_backward(answer):
    "The gradient of x from that of x.sum(axis)."
    rng = np.random.default_rng(0)
    for shape, axis in (
        ((2, 3), None), ((2, 3), 0), ((2, 3), 1), ((3, 3), 1), ((3, 3), 0), ((2, 4, 3), -2),
        ((5,), 0),
    ):  # fmt: skip
        grad = np.asarray(rng.normal(size=np.zeros(shape).sum(axis=axis).shape))
        summed = None if axis is None else axis % len(shape)
        want = np.empty(shape)
        for index in np.ndindex(shape):
            want[index] = grad[
                () if axis is None else tuple(np.delete(index, summed).astype(int))
            ]
        slips = {
            "Divided: that is the rule of a mean. A sum hands each element all of it.": want
            * grad.size
            / want.size
        }
        if shape == (3, 3) and axis == 1:
            slips["Each ROW was summed, so each row shares one gradient; you spread it "
                  "down the columns: put the axis back first."] = np.tile(grad, (3, 1))  # fmt: skip
        got = answer(grad, shape, axis)
        same(
            f"x {shape}, summed over axis {axis}: from a grad of shape {grad.shape}",
            got,
            want,
            slips,
            _either(
                got,
                want,
                "The result has x's shape.",
                "The shape is right, the values are not: each element gets the gradient "
                "of the sum that it went into.",
            ),
        )


class Node:
    "What the exercises know of a Tensor: data, grad, parents, rule, birth."

    births = itertools.count()

    def __init__(self, data=0.0, parents=(), rule=None):
        self.data, self.grad = np.asarray(data, dtype=float), None
        self.parents, self.rule, self.birth = tuple(parents), rule, next(Node.births)


class Watched(Node):
    "A Node that stops an answer which compares, or looks at parents, far too often."

    limit, compared, looked = 2_000_000, 0, 0
    __hash__ = Node.__hash__

    def __eq__(self, other):
        Watched.compared += 1
        if Watched.compared > Watched.limit:
            raise Miss(
                "It compares node after node: does `in` look through a list? That reads "
                "every entry; a set answers at once.", "a graph of many nodes",
                f"more than {Watched.limit:,} comparisons", "none",
            )  # fmt: skip
        return self is other

    @property
    def parents(self):
        Watched.looked += 1
        if Watched.looked > Watched.limit:
            raise Miss(
                "It walks every path: a node that was seen need not be walked again.",
                "a graph of many nodes", f"more than {Watched.limit:,} visits",
                "each node once",
            )  # fmt: skip
        return self.made_from

    @parents.setter
    def parents(self, value):
        self.made_from = value


@chapter.exercise(
    "Gather what `last` was made from, and what that was made from, in a loop: keep a "
    "list of nodes still to be looked at.",
    "A node with two users is met twice: a set remembers who was seen. Asking a list "
    "`node in found` looks at every entry; a set answers at once.",
    "waiting, seen = [last], {last};  while waiting: node = waiting.pop() ...;  "
    "return sorted(found, key=lambda node: node.birth, reverse=True)",
)
def history(answer):
    "Every result that led to `last`, once, youngest first; no recursion."

    def births(last):
        try:
            got = answer(last)
        except RecursionError:
            raise Miss(
                "Recursion: a chain of 40,000 nodes is deeper than Python's stack. Keep "
                "your own list of nodes to look at.", "x + 1 + 1 ... + 1", "RecursionError",
                "a list of nodes",
            ) from None  # fmt: skip
        if got is None:
            raise Miss("The function returns nothing: is a `return` missing?")
        return [node.birth for node in got]

    def told(case, last, want):
        got = births(last)
        want = sorted((node.birth for node in want), reverse=True)
        rule = "Every result that led to `last`, `last` itself included."
        if len(set(got)) < len(got):
            rule = (
                "A node that was used twice appears twice: remember whom you have seen."
            )
        elif set(got) > set(want):
            rule = "Leaves were made from nothing, there is nothing to undo: leave them out."
        elif got == want[::-1]:
            rule = (
                "This is oldest first: turn it round, users come before what they used."
            )
        elif set(got) == set(want):
            rule = (
                "A node comes before one of its users. Sort by birth, youngest first."
            )
        elif got == want[1:]:
            rule = "`last` itself is missing."
        same(f"{case}: the births", got, want, rule=rule)

    z, w = Node(), Node()
    a = Node(0.0, [z, w])
    b = Node(0.0, [a, w])
    c = Node(0.0, [b])
    other = Node(0.0, [b])  # younger, but nothing of d is made from it
    d = Node(0.0, [a, c, z])
    told("d = f(a, c, z), c = f(b), b = f(a, w), a = f(z, w)", d, [a, b, c, d])
    e = Node(0.0, [c, b, other])
    told("e = f(c, b, other), from the same graph", e, [a, b, c, other, e])
    told("b alone", b, [a, b])
    for case, width in (("a chain of 40,000 nodes", 1), ("20,000 diamonds", 2)):
        node, chain = Watched(), []
        Watched.compared = Watched.looked = 0
        for _ in range(40_000 // width):
            node = Watched(0.0, [node] * width)
            chain.append(node)
        told(case, node, chain)


def _square_rule(grad, inputs, output):
    return (2 * inputs[0] * grad,)


def _add_rule(grad, inputs, output):
    return grad, grad


def _mul_rule(grad, inputs, output):
    a, b = inputs
    return grad * b, grad * a


def _exp_rule(grad, inputs, output):
    return (grad * output,)


def _make(rule, data, *parents):
    def watched(grad, inputs, output):
        if grad is None:
            raise Miss("A node passed on before it had a grad: `last` starts with ones, and "
                       "users pass on before what they used (the order of history).",
                       "node.rule(grad, inputs, output)", None, "a gradient")  # fmt: skip
        if isinstance(inputs, Node) or any(isinstance(i, Node) for i in inputs):
            raise Miss("inputs is the list of the parents' data, not of the parents.",
                       "node.rule(grad, inputs, output)", "nodes", "arrays")  # fmt: skip
        told = output if isinstance(output, (np.ndarray, np.number)) else "no array"
        same("node.rule(grad, inputs, output): its third argument", told, node.data,
             rule="A rule gets the result's own data third: node.data.")  # fmt: skip
        return rule(grad, inputs, output)

    node = Node(data, parents, watched)
    return node


@chapter.exercise(
    "It is reverse_pass, with a rule in place of a slope: the rule turns the gradient of "
    "a node into those of its parents.",
    "For each node of history(last): parts = node.rule(node.grad, inputs, node.data); "
    "hand each parent its part, cut back to the parent's shape.",
    "part = unbroadcast(part, parent.data.shape);  "
    "parent.grad = part if parent.grad is None else parent.grad + part",
    mutates=True,
)
def backward(answer):
    "Fill in grad everywhere: walk the history, apply each rule, add up."

    def told(case, node, want, slips=None, rule=""):
        if node.grad is None:
            raise Miss(f"Its grad is still None. {rule}".strip(), case, None, want)
        same(case, node.grad, want, slips, rule)

    factor, w = Node(3.0), Node(2.0)
    p = _make(_mul_rule, 6.0, w, factor)
    e = _make(_square_rule, 36.0, p)
    answer(e)
    told("(w x)^2 at w = 2, x = 3: the slope along w", w, 36.0, )  # fmt: skip
    told("the slope along x", factor, 24.0)
    told("the slope of the result along itself", e, 1.0)

    x = Node(3.0)
    square = _make(_mul_rule, 9.0, x, x)
    answer(square)
    told("x * x at x = 3", x, 6.0, )  # fmt: skip

    a, b = Node(2.0), Node(5.0)
    s = _make(_add_rule, 7.0, a, b)
    t = _make(_add_rule, 9.0, s, a)
    answer(t)
    told("(a + b) + a: the slope along a", a, 2.0)
    told("(a + b) + a: the slope along b", b, 1.0, )  # fmt: skip

    X, bias = Node(np.arange(6.0).reshape(2, 3)), Node(np.ones(3))
    h = _make(_add_rule, X.data + bias.data, X, bias)
    total = _make(
        lambda grad, inputs, output: (grad * np.ones(inputs[0].shape),), h.data.sum(), h
    )
    answer(total)
    told("(X + bias).sum() with X (2, 3), bias (3,): the gradient of the bias", bias,
         np.full(3, 2.0), rule="Cut it back to the parent's shape with unbroadcast.")  # fmt: skip
    told("the gradient of X", X, np.ones((2, 3)))
    for shape in ((2, 1), (1, 3), (1, 1)):
        X, part = Node(np.arange(6.0).reshape(2, 3)), Node(np.ones(shape))
        h = _make(_add_rule, X.data + part.data, X, part)
        answer(_make(
            lambda grad, inputs, output: (grad * np.ones(inputs[0].shape),), h.data.sum(), h
        ))  # fmt: skip
        told(f"(X + b).sum() with X (2, 3), b {shape}: the gradient of b", part,
             np.full(shape, 6.0 / part.data.size),
             rule="Axes of size 1 were stretched: let unbroadcast cut every part, also "
             "where the number of axes fits.")  # fmt: skip
    x1 = Node(2.0)
    grown = _make(_exp_rule, np.exp(2.0), x1)
    answer(_make(_square_rule, np.exp(4.0), grown))
    told("exp(x)^2 at x = 2: the slope along x", x1, 2 * np.exp(4.0))

    answer(_make(_square_rule, 9.0, x))
    told("x * x, then another graph, x^2, without clearing x.grad", x, 12.0, )  # fmt: skip
    node = start = Node(1.0)
    for _ in range(60):
        node = _make(lambda g, inputs, output: (g / 2, g / 2), node.data, node, node)
    answer(node)
    told("sixty diamonds in a row", start, 1.0)
    answer(e)
    told("(w x)^2 walked a second time: the slope along w", w, 72.0,  rule="The result's own grad must start at 1 each time.")  # fmt: skip


@chapter.exercise(
    "One backward pass for ours; for each element two evaluations of f, as in chapter 01.",
    "Nudge t.data[index] by +h and -h, put it back, compare with t.grad[index]. "
    "np.ndindex(t.data.shape) visits every index.",
    "Clear every t.grad, f(*tensors).backward(); a tensor that f ignores keeps grad None: "
    "count it as zeros. if not gap <= tol: raise AssertionError(...), so that nan raises.",
    mutates=True,
)
def gradcheck(answer):
    "The largest gap between backward and central differences; an error above tol."
    rng = np.random.default_rng(0)

    def fresh():
        return [Tensor(rng.normal(size=s), requires_grad=True) for s in ((2, 3), (3,))]

    def honest(a, b):
        return ((a * b).tanh() + b.exp()).sum()

    def raises(rule, case, f, *tensors):
        try:
            gap = answer(f, *tensors)
        except AssertionError:
            return
        raise Miss(rule, case, gap, "AssertionError")

    def cube(t, *errors):
        "t^3 with a rule that is off by (place, error) in some elements"

        def rule(g, inputs, out):
            grad = np.array(g * 3 * inputs[0].data ** 2)
            for place, error in errors:
                grad.flat[place] += error
            return (grad,)

        return record(t.data**3, (t,), rule).sum()

    a, b = fresh()
    before = a.data.copy(), b.data.copy()
    failed = ""
    try:
        gap = answer(honest, a, b)
    except AssertionError as error:
        failed = f"AssertionError: {error}"
    same("the data after the check", np.hstack([a.data.ravel(), b.data]),
         np.hstack([before[0].ravel(), before[1]]),
         rule="A nudged element was not put back: t.data must be as before.")  # fmt: skip
    if failed:
        raise Miss(
            "It raises though backward is right. Is each element put back before the next "
            "is nudged? Are both sides nudged, and is the difference divided by 2h? Are "
            "old grads cleared?", "((a * b).tanh() + b.exp()).sum()", failed,
            "a gap below 1e-6",
        )  # fmt: skip
    if gap is None or not np.ndim(gap) == 0:
        raise Miss(
            "It returns one number, the largest gap.", "an honest f", gap, "a number"
        )
    if not 0 <= gap < 1e-6:
        raise Miss(
            "Backward is right here, so the gap must be tiny. Are both sides nudged, and "
            "is the difference divided by 2h?", "((a * b).tanh() + b.exp()).sum()", gap,
            "below 1e-6",
        )  # fmt: skip
    try:
        gap = answer(honest, a, b)
    except AssertionError:
        gap = 1.0
    if not gap < 1e-6:
        raise Miss("Called twice, it fails: the first call's grad is still there. Clear "
                   "it before backward (t.grad = None).", "the same check again", gap,
                   "below 1e-6")  # fmt: skip
    c = Tensor(rng.normal(size=2), requires_grad=True)
    try:
        gap = answer(lambda a, b, c: honest(a, b), a, b, c)
    except TypeError as error:
        raise Miss("A tensor that f ignores has grad None after backward: count it as "
                   "zeros.", "f(a, b, c) that ignores c", str(error), "a number") from None  # fmt: skip
    for place, sign in ((0, 1), (5, 1), (0, -1), (5, -1)):

        def lies(t, place=place, sign=sign):
            return cube(t, (place, 0.01 * sign))

        a, b = fresh()
        for which, f, tensors in (
            ("the first", lambda a, b: lies(a), (a, b)),
            ("the second", lambda b, a: lies(a), (b, a)),
        ):
            where = f"{which} tensor, element {place}, {'too large' if sign > 0 else 'too small'}"
            raises(
                "A wrong gradient passes. Compare the size of the gap, |ours - nudged|, "
                "in every element of every tensor, and raise AssertionError above tol.",
                f"backward lies by 0.01 in {where}", f, *tensors,
            )  # fmt: skip

    def flipped(t):
        return record(
            t.data**3, (t,), lambda g, inputs, out: (-g * 3 * t.data**2,)
        ).sum()

    def empty(t):
        return record(
            t.data**3, (t,), lambda g, inputs, out: (np.full(t.shape, np.nan),)
        ).sum()

    def untaped(t, u):
        return (t * Tensor(u.data.copy())).sum()

    two = [Tensor([[2.0, 1.0], [3.0, 1.5]], requires_grad=True)]
    raises("A gradient with the wrong sign passes: the gap is |ours - nudged|, with both "
           "signs kept until they are subtracted.", "backward has the wrong sign", flipped,
           *two)  # fmt: skip
    raises("Two opposite errors cancel. Nudge ONE element at a time and compare it with "
           "its own element of grad.", "backward is off by 0.5 and by -0.5",
           lambda t: cube(t, (0, 0.5), (3, -0.5)), *two)  # fmt: skip
    raises("A gradient of nan passes: every comparison with nan is False, and max(0.0, "
           "nan) is 0.0. Take np.maximum, or raise where `not gap <= tol`.",
           "backward gives nan everywhere", empty, *two)  # fmt: skip
    a, b = fresh()
    raises("A tensor with grad None is skipped, but f moves with it: compare zeros with "
           "the nudge.", "f uses b.data behind the tape's back: b.grad is None", untaped,
           a, b)  # fmt: skip
    case = "slopes 12, 3, 27, 6.75, two of them off by 0.5 and -0.25, tol=1"
    try:
        gap = answer(lambda t: cube(t, (0, 0.5), (1, -0.25)), *two, tol=1.0)
    except AssertionError:
        raise Miss("It raises though the gap is below tol: use the argument tol.", case,
                   "AssertionError", 0.5) from None  # fmt: skip
    same(f"{case}: the largest gap", gap, 0.5, {
        "It returns 0, not the gap that it found.": 0.0,
        "This is the sum of the gaps; it returns the largest.": 0.75,
        "The errors were added with their signs; it returns the largest gap.": 0.25,
        "This is the mean gap: one bad element drowns in it. Return the largest.": 0.1875,
        "This is a gap relative to the slope; here it is |ours - nudged|.": 0.5 / 12.5,
        "A gap divided by the nudged slope; here it is |ours - nudged|.": 0.25 / 3,
        "A gap divided by backward's slope; here it is |ours - nudged|.": 0.25 / 2.75,
    }, rule="It returns the largest |ours - nudged|.", atol=1e-5)  # fmt: skip
    case = "an honest t^3, h=0.5 and tol=1: (above - below) / 2h = 3 t^2 + h^2"
    try:
        gap = answer(cube, *two, h=0.5, tol=1.0)
    except AssertionError as error:
        gap = f"AssertionError: {error}"
    same(f"{case}: the gap", gap, 0.25, {
        "The step is fixed: use the argument h.": 0.0,
    }, rule="Nudge by h to both sides, divide by 2h: use the argument h.", atol=1e-5)  # fmt: skip


def _softmax(logits):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


@chapter.exercise(
    "Shift each row by its maximum: softmax stays the same and no exponential overflows.",
    "loss of a row = log(sum of exp(shifted)) - shifted[label]; its gradient is softmax "
    "minus 1 at the label. Both as a mean over the rows.",
    "p_NC = e_NC / total_N[:, None];  p_NC[rows, labels_N] -= 1;  return loss, p_NC / N",
)
def softmax_cross_entropy(answer):
    "Loss and gradient in one go: softmax minus one-hot, over N."
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    labels = np.array([0, 2])
    p = _softmax(logits)
    each = -np.log(p[[0, 1], labels])
    loss, grad = _several(answer(logits, labels), 2, "(loss, gradient of the logits)")
    case = "logits [[2, 1, 0], [0, 0, 0]], labels [0, 2]"
    same(f"{case}: loss", loss, each.mean(), {
        "This is the sum over the rows: take the mean.": each.sum(),
        "The sign is turned: minus the logarithm of the true class.": -each.mean(),
        "These are all rows' losses: one number, their mean.": each,
        "The label's logit must be shifted too: the same z in both terms.": (
            each - logits.max(axis=1)).mean(),
        "p[:, labels] takes every row's entry for EVERY label; one for each row is "
        "p[np.arange(N), labels].": -np.log(p[:, labels]).mean(),
        "This is the mean probability: take the logarithm first.": p[[0, 1], labels].mean(),
    })  # fmt: skip
    one_hot = np.eye(3)[labels]
    want = (p - one_hot) / 2
    same(f"{case}: gradient", grad, want, {
        "The mean over the rows is missing: divide by N.": want * 2,
        "Softmax minus one-hot, not the other way round.": -want,
        "grad[:, labels] -= 1 changes every row at EVERY label; one for each row is "
        "grad[np.arange(N), labels].": (p - [1, 0, 1]) / 2,
        "The true class is missing: subtract 1 at each row's label.": p / 2,
        "Divided by the number of classes; the mean is over rows.": (p - one_hot) / 3,
        "Divide all of it by N, the -1 too.": p / 2 - one_hot,
    })  # fmt: skip
    for shift in (1e4, -1e4):
        with np.errstate(all="ignore"):
            got = answer(logits + shift, labels)
        same(f"{case}, every logit {shift:+.0e}: loss", got[0], each.mean(),
             rule="exp of a large number overflows: subtract each row's maximum first.")  # fmt: skip
        same(f"{case}, every logit {shift:+.0e}: gradient", got[1], want)
    apart, first = np.array([[0.0, 1.0], [2000.0, 2001.0]]), np.array([0, 0])
    with np.errstate(all="ignore"):
        got = answer(apart, first)
    own = (
        "Each row needs its OWN maximum, max(axis=1, keepdims=True): one for all rows "
    )
    own += "sends the other rows' exponentials to 0."
    q = _softmax(apart)
    for name, ours, right in (("loss", got[0], -np.log(q[0, 0])),
                              ("gradient", got[1], (q - [1, 0]) / 2)):  # fmt: skip
        same(
            f"logits [[0, 1], [2000, 2001]], labels [0, 0]: {name}",
            ours,
            right,
            rule=own,
        )
    far = np.array([[0.0, 2000.0]])
    with np.errstate(all="ignore"):
        got = answer(far, np.array([0]))
    same("logits [[0, 2000]], label 0: loss", got[0], 2000.0,
         rule="The softmax is 0 there, and log 0 is -inf: log(sum) - shifted[label] "
         "never meets it.")  # fmt: skip
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(5, 4)), rng.integers(0, 4, 5)
    grad = np.asarray(answer(logits, labels)[1])
    for n, c in ((0, 0), (4, 3)):
        step = np.zeros((5, 4))
        step[n, c] = 1e-5
        up, down = (answer(logits + s * step, labels)[0] for s in (1, -1))
        same(f"random logits: a nudge of logit ({n}, {c})", grad[n, c], (up - down) / 2e-5,
             rule="Loss and gradient do not belong together.", atol=1e-7)  # fmt: skip


@chapter.exercise(
    "ReLU first: where the output is 0, nothing flows back.",
    "After the mask it is a plain linear layer: matmul's two gradients, and the bias "
    "collects one from each row.",
    "grad_NH = grad_NH * (out_NH > 0);  "
    "return grad_NH @ W_DH.T, X_ND.T @ grad_NH, grad_NH.sum(axis=0)",
)
def linear_relu_backward(answer):
    "The rule of the fused node relu(X @ W + b)."
    rng = np.random.default_rng(1)
    X, W, b = rng.normal(size=(4, 3)), rng.normal(size=(3, 3)), rng.normal(size=3)
    z, grad = X @ W + b, rng.normal(size=(4, 3))
    out = np.maximum(z, 0)
    masked = grad * (z > 0)
    names = ("X", "W", "b")
    want = masked @ W.T, X.T @ masked, masked.sum(axis=0)
    got = _several(
        answer(grad, X, W, out), 3, "(gradient of X, gradient of W, gradient of b)"
    )
    slips = (
        {
            "The mask is missing: ReLU lets nothing back where its output is 0 (out >= 0 "
            "is true everywhere).": grad @ W.T,
            "W.T, not W: from H back to D.": masked @ W,
            "The mask multiplies by 1 or 0, not by the output.": (grad * out) @ W.T,
            "The mask is turned round: it keeps what is above 0.": (grad * (z <= 0))
            @ W.T,
        },
        {"The mask is missing in W's gradient.": X.T @ grad},
        {
            "Averaged: the bias is used in every row, its gradients add.": masked.mean(
                0
            ),
            "The mask is missing in b's gradient.": grad.sum(0),
            "Summed over the wrong axis: rows are axis 0.": masked.sum(1),
        },
    )
    for name, g, w, s in zip(names, got, want, slips):
        same(f"X (4, 3), W (3, 3): gradient of {name}", g, w, s,
             _either(g, w, f"It has the shape of {name}.",
                     "The shape is right, the values are not: mask grad once, first, and "
                     "use the masked one for all three."))  # fmt: skip
    X, W = rng.normal(size=(2, 5)), rng.normal(size=(5, 1))
    got = _several(answer(np.ones((2, 1)), X, W, np.ones((2, 1))), 3, "gradients")
    for name, g, w in zip(
        names, got, (np.ones((2, 1)) @ W.T, X.sum(0)[:, None], [2.0])
    ):
        same(f"X (2, 5), W (5, 1), every output 1: gradient of {name}", g, w)


@chapter.exercise(
    "Three things in order: forget the old gradients, get new ones, move.",
    "p.grad = None for each; loss = loss_of(); loss.backward(); then move each p.data "
    "against p.grad.",
    "p.data -= lr * p.grad, for all p, after backward; return float(loss.data)",
    mutates=True,
)
def sgd_step(answer):
    "One step of training: clear, forward, backward, move; returns the loss."

    def start():
        w = Tensor(np.array([1.0, -2.0]), requires_grad=True)
        b = Tensor(np.array(0.5), requires_grad=True)
        return w, b

    w, b = start()
    x = np.array([3.0, 1.0])
    calls = []

    def loss_of():
        calls.append((w.data.copy(), b.data.copy()))
        return ((w * x).sum() + b - 4.0) ** 2  # 1 * 3 - 2 * 1 + 0.5 - 4 = -2.5

    case = "loss = (w . [3, 1] + b - 4)^2 at w = [1, -2], b = 0.5, lr = 0.1"
    try:
        got = answer([w, b], loss_of, 0.1)
    except TypeError:
        if w.grad is not None:
            raise
        raise Miss("w.grad is None, a NoneType, when you move. Was loss.backward() called, "
                   "and are grads cleared before it, not after?", case, None,
                   [-15.0, -5.0]) from None  # fmt: skip
    if not calls:
        raise Miss("It never asks for the loss: call loss_of().", case, got, 6.25)
    slope = np.array([-15.0, -5.0])
    if w.grad is None and (w.data == [1.0, -2.0]).all():
        raise Miss("No gradient arrived and nothing moved: loss.backward() fills in the "
                   "grads, after they are cleared.", case, None, slope)  # fmt: skip
    same(f"{case}: the new w", w.data, [2.5, -1.5], {
        "Uphill: move against the gradient.": [1, -2] + 0.1 * slope,
        "The learning rate is missing.": [1, -2] - slope,
        "Nothing has moved: change p.data itself (p.data -= ...), not a copy.": [1.0, -2.0],
    })  # fmt: skip
    same(f"{case}: the new b", b.data, 1.0)
    if not isinstance(got, (float, int, np.floating, np.ndarray, type(None))):
        raise Miss(
            "It returns the loss as a number: float(loss.data).", case, got, 6.25
        )
    same(f"{case}: what it returns", got, 6.25, {
        "This is the loss after the step; return the one you stepped from (and save a "
        "forward pass).": (2.5 * 3 - 1.5 + 1.0 - 4) ** 2,
    })  # fmt: skip
    if len(calls) != 1:
        raise Miss("One step asks for the loss once: keep it (loss = loss_of()), then "
                   "loss.backward().", f"{case}: calls of loss_of", len(calls), 1)  # fmt: skip
    answer([w, b], loss_of, 0.01)
    here, once = calls[-1][0], 2 * (2.5 * 3 - 1.5 + 1.0 - 4)
    same("a second step, lr = 0.01: the new w", w.data, here - 0.01 * once * x, {
        "The first step's gradient is still in it: clear every grad before backward.": here
        - 0.01 * (once * x + slope),
        "The gradient was cleared after backward, before the move.": here,
        "The rate is fixed: use the argument lr.": here - 0.1 * once * x,
    }, rule="Clear the old gradients first: grads of leaves add up over calls.")  # fmt: skip
    w, b = start()
    idle = Tensor(np.ones(2), requires_grad=True)
    for p in (w, b, idle):
        p.grad = np.full(p.data.shape, 100.0)
    try:
        answer([idle, w, b], lambda: (w * w).sum() + b * 2.0, 0.5)
    except TypeError as error:
        raise Miss("Its grad is None after backward: leave such a parameter alone.",
                   "a parameter that the loss does not use", str(error),
                   "it stays as it was") from None  # fmt: skip
    same("grads left over from elsewhere: the new w", w.data, [0.0, 0.0], {
        "The parameter before it has no grad: leave that one alone and go on to the next "
        "(continue, not break).": [1.0, -2.0],
    }, rule="Clear every grad before backward.")  # fmt: skip
    same("a parameter that the loss does not use", idle.data, [1.0, 1.0],
         rule="Its grad is None after backward: leave such a parameter alone.")  # fmt: skip
