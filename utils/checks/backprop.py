"""Chapter 03: how one backward pass gets every gradient."""

import copy
import itertools
import math
from unittest import mock

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


@chapter.exercise(
    "The slope along one path is a product. Several paths: their slopes add.",
    "From `end`, every input is the start of shorter paths: ask the function for those.",
    "if start == end: return 1.0;  return sum(slope * sum_over_paths(graph, start, name) "
    "for name, slope in graph[end])",
)
def sum_over_paths(answer):
    "The slope of `end` along `start`: over all paths, the sum of the products."
    paths = "Multiply along each path, add over the paths."
    for case, graph, start, end, want, rule in [
        ("L = (w x + b - y)^2 at w = 2, x = 3, b = 1, y = 5: the slope along w",
         LINE, "w", "L", 12.0, paths),
        ("the slope of L along y", LINE, "y", "L", -4.0, paths),
        ("the slope of e along w", LINE, "w", "e", 3.0,
         "Walk back from `end`, which is not always the last name."),
        ("the slope of L along itself", LINE, "L", "L", 1.0,
         "A thing changes as much as it changes: slope 1."),
        ("the slope of e along L: no path leads there", LINE, "L", "e", 0.0,
         "No path, no influence: the sum of nothing is 0."),
        ("three paths of different lengths: d along z", LATE, "z", "d", 45.0, paths),
    ]:  # fmt: skip
        same(case, answer(copy.deepcopy(graph), start, end), want, rule)


@chapter.exercise(
    "Start with 1 at `last` and 0 everywhere else. Who is allowed to pass on first?",
    "A node passes on once all its users have reported. They were created after it.",
    "for name in reversed(graph): for parent, slope in graph[name]: "
    "grads[parent] += slope * grads[name]",
)
def reverse_pass(answer):
    "The slope of `last` along every node, each edge visited once."
    for case, graph, last, want, rule in [
        ("L = (w x + b - y)^2", LINE, "L",
         {"L": 1.0, "e": 4.0, "y": -4.0, "s": 4.0, "b": 4.0, "p": 4.0, "x": 8.0, "w": 12.0},
         "Each node hands slope * its own grad to what it was made from, where it is "
         "added."),
        ("z is used early and late", LATE, "d",
         {"d": 1.0, "c": 1.0, "b": 5.0, "a": 22.0, "z": 45.0},
         "A node passes on after all its users have reported: go backwards through the "
         "order of creation."),
        ("the slopes of e, although L was made later", LINE, "e",
         {"L": 0.0, "e": 1.0, "y": -1.0, "s": 1.0, "b": 1.0, "p": 1.0, "x": 2.0, "w": 3.0},
         "Start with 1 at `last`: what was made after it has slope 0."),
    ]:  # fmt: skip
        got = answer(copy.deepcopy(graph), last)
        if not isinstance(got, dict):
            raise Miss("It should return a dictionary {name: slope}.", case, got, want)
        same(f"{case}: the names", sorted(got), sorted(want),
             "Every node has a slope, be it 0.")  # fmt: skip
        same(f"{case}: the slopes along {' '.join(want)}", [got[name] for name in want],
             list(want.values()), rule)  # fmt: skip

    case = "sixty diamonds in a row, 2^60 paths"
    walks, nodes = itertools.count(1), 181

    class Edges(list):
        "The edges of a node. They stop an answer that goes through them without end."

        def __iter__(self):
            if next(walks) > 400 * nodes:
                raise Miss(
                    "You walk every path; 2^60 never end. Visit each node once: it "
                    "passes on all that its users reported, in one go.", case,
                    f"more than {400 * nodes:,} visits", f"{nodes} visits",
                )  # fmt: skip
            return super().__iter__()

    graph = {name: Edges(edges) for name, edges in _diamonds(60).items()}
    same(case, answer(graph, "x60")["x0"], 1.0, "Every path counts, however many.")
    visits = (next(walks) - 1) / nodes
    same(f"{case}: is each node visited 10 times at most?", visits <= 10, True,
         "It looks through all nodes anew for each node. Turn it round: a node that "
         "knows its grad passes it on to what it was made from.")  # fmt: skip


def _diamonds(depth):
    "x0, and `depth` times: the next x uses the one before twice. 2^depth paths."
    graph = {"x0": []}
    for i in range(depth):
        graph[f"l{i}"] = graph[f"r{i}"] = [(f"x{i}", 0.5)]
        graph[f"x{i + 1}"] = [(f"l{i}", 1.0), (f"r{i}", 1.0)]
    return graph


@chapter.exercise(
    "A result knows its data, what it was made from, and one slope for each of those.",
    "a + b moves as much as a does: slopes 1.0, 1.0. a * b moves by b for each step of a.",
    "Value(self.data * other.data, (self, other), (other.data, self.data))",
    kind="class",
)
def Value(answer):
    "A scalar that records its parents and the slope along each."
    a, b, numbers = answer(2.0), answer(-3.0), "data is what the plain numbers give."
    _made("Value(2) + Value(-3)", a + b, -1.0, [a, b], [1.0, 1.0],
          "A sum moves as much as each of its terms: both slopes are 1.")  # fmt: skip
    _made("Value(2) * Value(-3)", a * b, -6.0, [a, b], [-3.0, 2.0],
          "The slope along a factor is the other factor.")  # fmt: skip
    for x in (2.0, 0.5, -0.5, -3.0, 0.0):
        v = answer(x)
        _made(f"Value({x:g}).relu()", v.relu(), max(x, 0.0), [v], [float(x > 0)],
              "Above 0 it moves as its input, slope 1; at 0 and below it stands still.")  # fmt: skip
    _made("a * a with a = 2", a * a, 4.0, [a, a], [2.0, 2.0],
          "a is both factors: it stands among the parents twice.")  # fmt: skip
    for case, result, data, slope in [
        ("Value(2) + 1.5", a + 1.5, 3.5, 1.0),
        ("Value(2) * 1.5", a * 1.5, 3.0, 1.5),
        ("4 * Value(2)", 4 * a, 8.0, 4.0),
        ("Value(2) - Value(-3)", a - b, 5.0, 1.0),
        ("5 - Value(2)", 5 - a, 3.0, -1.0),
    ]:
        same(f"{case}: data", result.data, data, numbers)
        same(f"{case}: the slope along Value(2), over all paths", _slope(result, a), slope,
             "Parents and slopes stand in the same order, one slope per parent.")  # fmt: skip
    same("a.grad, b.grad after all this", [a.grad, b.grad], [0.0, 0.0],
         "The forward pass leaves grad at 0.")  # fmt: skip
    tape = getattr(answer.__init__, "__globals__", {}).get("tape")
    if not isinstance(tape, list):
        return
    for case, run, want in [
        ("Value(2)", lambda: answer(2.0), []),
        ("a + b", lambda: a + b, [True]),
        ("a * b", lambda: a * b, [True]),
        ("a.relu()", a.relu, [True]),
        ("a + 1.5", lambda: a + 1.5, [True]),
    ]:
        before = len(tape)
        result = run()
        new = [entry is result for entry in tape[before:]]
        del tape[before:]
        same(f"{case}: new entries on the tape (True: the result itself)", new, want,
             "One operation, one entry: __init__ puts the result on the tape, nobody else "
             "does. What was made from nothing stays off it.")  # fmt: skip


def _made(case, result, data, parents, slopes, rule):
    "A result of one operation: its data, its parents, the slope along each."
    if not hasattr(result, "slopes"):
        raise Miss("An operation returns a new Value, with parents and slopes.", case,
                   result, f"Value({data:g})")  # fmt: skip
    same(f"{case}: data", result.data, data, "data is what the plain numbers give.")
    for name in ("parents", "slopes"):
        if not isinstance(getattr(result, name), (tuple, list)):
            raise Miss(f"{name} is a tuple, and a tuple of one needs a comma: (x,), not "
                       "(x).", f"{case}: {name}", "no tuple", "a tuple")  # fmt: skip
    same(f"{case}: the data of its parents",
         [getattr(parent, "data", parent) for parent in result.parents],
         [parent.data for parent in parents],
         "parents holds the Values it was made from, in order.")  # fmt: skip
    same(f"{case}: are these the very objects it was made from?",
         [got is want for got, want in zip(result.parents, parents)],
         [True] * len(parents),
         "Keep the parents themselves: a copy would never hand its grad on.")  # fmt: skip
    same(f"{case}: slopes", list(result.slopes), slopes, rule)


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
    for n, d, m in [(3, 3, 3), (2, 3, 4), (1, 2, 1)]:  # first, every slip fits in shape
        a, b, grad = (rng.normal(size=s) for s in ((n, d), (d, m), (n, m)))
        case = f"a ({n}, {d}), b ({d}, {m}), grad ({n}, {m})"
        got_a, got_b = _several(answer(grad, a, b), 2, "(gradient of a, gradient of b)")
        same(f"{case}: gradient of a", got_a, grad @ b.T,
             "It has a's shape, (N, D): which product of grad (N, M) and b (D, M)?")  # fmt: skip
        same(f"{case}: gradient of b", got_b, a.T @ grad,
             "It has b's shape, (D, M): which product of a (N, D) and grad (N, M)?")  # fmt: skip


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
    for shape, stretched in [
        ((3,), (3, 3)), ((5,), (32, 5)), ((4, 1), (4, 3)), ((1, 3), (4, 3)), ((), (2, 3)),
        ((1, 1), (4, 3)), ((2, 1, 3), (5, 2, 4, 3)), ((1, 3), (2, 1, 3)), ((1,), (6,)),
        ((4, 3), (4, 3)),
    ]:  # fmt: skip
        grad, size = rng.normal(size=stretched), math.prod(shape)
        element = np.broadcast_to(np.arange(size).reshape(shape), stretched)
        want = np.bincount(element.ravel(), grad.ravel()).reshape(shape)
        same(f"unbroadcast(grad of shape {stretched}, {shape})", answer(grad, shape), want,
             "Each element is the sum over its own copies, in the shape that the value "
             "had before. Which axes were added in front, which stretched from 1?")  # fmt: skip


@chapter.exercise(
    "Every element went into its sum once, with slope 1: so each gets a copy.",
    "Of what? Of its own sum's gradient. np.expand_dims puts the summed axis back.",
    "if axis is not None: grad = np.expand_dims(grad, axis);  "
    "return np.broadcast_to(grad, shape)",
)
def sum_backward(answer):
    "The gradient of x from that of x.sum(axis)."
    rng = np.random.default_rng(0)
    for shape, axis in [
        ((3, 3), 1), ((3, 3), 0), ((2, 3), None), ((2, 3), 0), ((2, 3), 1), ((4,), 0),
        ((2, 4, 3), 1), ((2, 4, 3), -2), ((2, 4, 3), None),
    ]:  # fmt: skip
        x = np.zeros(shape)
        kept = rng.normal(size=x.sum(axis=axis, keepdims=True).shape)
        grad = kept.reshape(x.sum(axis=axis).shape)
        same(f"x {shape}, summed over axis {axis}: from a grad of shape {grad.shape}",
             answer(grad, shape, axis), x + kept,
             "It has x's shape: each element gets the gradient of the sum that it went "
             "into.")  # fmt: skip
    same("x (2, 3), axis not said", answer(np.array(7.0), (2, 3)), np.full((2, 3), 7.0),
         "axis is None by default: all of x went into one sum.")  # fmt: skip


class Node:
    "What the exercises know of a Tensor: data, grad, parents, rule, birth."

    births = itertools.count()

    def __init__(self, data=0.0, parents=(), rule=None, name=""):
        self.data, self.grad = np.asarray(data, dtype=float), None
        self.parents, self.rule, self.birth = tuple(parents), rule, next(Node.births)
        self.name = name


class Watched(Node):
    "A Node that stops an answer which compares nodes, or asks for parents, without end."

    limit, compared, asked = 100_000, 0, 0
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
        Watched.asked += 1
        if Watched.asked > Watched.limit:
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
    rule = (
        "Every result that led to `last`, itself included: each once, youngest first, "
        "leaves left out."
    )

    def nodes(last):
        got = answer(last)
        if got is None:
            raise Miss("The function returns nothing: is a `return` missing?")
        return list(got)

    def named(name, *parents):
        return Node(0.0, parents, name=name)

    z, w = named("z"), named("w")
    a = named("a", z, w)
    b = named("b", a, w)
    c = named("c", b)
    other = named("other", b)  # younger than c, and no part of d
    d = named("d", a, c, z)
    e = named("e", c, b, other)
    for case, last, want in [
        ("d = f(a, c, z), c = f(b), b = f(a, w), a = f(z, w)", d, ["d", "c", "b", "a"]),
        ("e = f(c, b, other), from the same graph", e, ["e", "other", "c", "b", "a"]),
        ("b alone", b, ["b", "a"]),
    ]:
        same(f"{case}: the names", [node.name for node in nodes(last)], want, rule)
    for case, depth, width in [
        ("a chain of 10,000 nodes", 10_000, 1),
        ("5,000 diamonds", 5_000, 2),
    ]:
        Watched.compared = Watched.asked = 0
        last = start = Watched()
        for _ in range(depth):
            last = Watched(0.0, [last] * width)
        try:
            got = nodes(last)
        except RecursionError:
            raise Miss("Recursion: a long chain is deeper than Python's stack. Keep your "
                       "own list of nodes to look at.", case, "RecursionError",
                       "a list of nodes") from None  # fmt: skip
        same(f"{case}: how much younger than the first",
             [node.birth - start.birth for node in got], range(depth, 0, -1), rule)  # fmt: skip


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
    w, x = Node(2.0), Node(3.0)
    product = _mul(w, x)
    square = _square(product)
    answer(square)
    case = "(w x)^2 at w = 2, x = 3"
    rule = "Each rule gets its own result's grad, and each parent gets its own part."
    _grad(f"{case}: the slope along w", w, 36.0, rule)
    _grad(f"{case}: the slope along x", x, 24.0, rule)
    _grad(f"{case}: the slope along w x", product, 12.0, rule)
    _grad(f"{case}: the slope of the result along itself", square, 1.0,
          "last.grad starts as a 1, np.ones_like(last.data).")  # fmt: skip

    x = Node(3.0)
    answer(_mul(x, x))
    _grad("x * x at x = 3", x, 6.0, "x was used twice: its two parts add up.")

    a, b = Node(2.0), Node(5.0)
    answer(_add(_add(a, b), a))
    rule = "Add with grad = grad + part: a rule may hand one array to two parents."
    _grad("(a + b) + a: the slope along a", a, 2.0, rule)
    _grad("(a + b) + a: the slope along b", b, 1.0, rule)

    for shape, rule in [
        ((3,), "Cut each part back to its parent's shape with unbroadcast."),
        ((2, 1), "Axes of size 1 were stretched: let unbroadcast cut every part, also "
                 "where the number of axes fits."),
        ((1, 3), "Axes of size 1 were stretched: each copy's gradient counts."),
        ((1, 1), "Axes of size 1 were stretched: each copy's gradient counts."),
        ((), "One number was added everywhere: each copy's gradient counts."),
    ]:  # fmt: skip
        X, part = Node(np.arange(6.0).reshape(2, 3)), Node(np.ones(shape))
        answer(_sum(_add(X, part)))
        case = f"(X + b).sum() with X (2, 3), b {shape}: the gradient of"
        _grad(f"{case} b", part, np.full(shape, 6.0 / part.data.size), rule)
        _grad(f"{case} X", X, np.ones((2, 3)), "X was not broadcast: its part stays.")

    t = Node(2.0)
    answer(_square(_exp(t)))
    _grad("exp(t)^2 at t = 2: the slope along t", t, 2 * np.exp(4.0),
          "The rule of exp uses its third argument, the result's own data.")  # fmt: skip

    answer(_square(x))
    _grad("x * x, then another graph, x^2, without clearing x.grad", x, 12.0,
          "A leaf that already has a grad adds to it (that is why there is zero_grad).")  # fmt: skip
    last = start = Node(1.0)
    for _ in range(60):
        last = _node(lambda grad, *_: (grad / 2, grad / 2), last.data, last, last)
    answer(last)
    _grad("sixty diamonds in a row", start, 1.0, "Each node passes on once.")
    answer(square)
    _grad("(w x)^2 walked a second time: the slope along w", w, 72.0,
          "Results start anew at each call, `last` with 1: only leaves add up.")  # fmt: skip
    try:
        answer(_add(Node([1.0, 2.0]), Node([3.0, 4.0])))
        told = "no error"
    except ValueError:
        told = "ValueError"
    same("a result of two numbers", told, "ValueError",
         "The check at the top stays: backward starts from one number.")  # fmt: skip


def _grad(case, node, want, rule):
    if node.grad is None:
        raise Miss(f"Its grad is still None. {rule}", case, None, want)
    same(case, node.grad, want, rule)


def _node(rule, data, *parents):
    "A result whose rule looks at what it is given."

    def watched(grad, inputs, output):
        if grad is None:
            raise Miss("A node passed on before it had a grad: `last` starts with ones, and "
                       "users pass on before what they used (the order of history).",
                       "node.rule(grad, inputs, output)", None, "a gradient")  # fmt: skip
        if isinstance(inputs, Node) or any(isinstance(i, Node) for i in inputs):
            raise Miss("inputs is the list of the parents' data, not of the parents.",
                       "node.rule(grad, inputs, output)", "nodes", "arrays")  # fmt: skip
        told = output if isinstance(output, (np.ndarray, np.number)) else "no array"
        same("node.rule(grad, inputs, output): its third argument", told, data,
             "A rule gets the result's own data third: node.data.")  # fmt: skip
        return rule(grad, inputs, output)

    return Node(data, parents, watched)


def _add(a, b):
    return _node(lambda grad, inputs, output: (grad, grad), a.data + b.data, a, b)


def _mul(a, b):
    def rule(grad, inputs, output):
        return grad * inputs[1], grad * inputs[0]

    return _node(rule, a.data * b.data, a, b)


def _square(a):
    return _node(lambda grad, inputs, output: (2 * inputs[0] * grad,), a.data**2, a)


def _exp(a):
    return _node(lambda grad, inputs, output: (grad * output,), np.exp(a.data), a)


def _sum(a):
    def rule(grad, inputs, output):
        return (grad * np.ones(inputs[0].shape),)

    return _node(rule, a.data.sum(), a)


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

    def told(f, *tensors, **options):
        "The gap, or the word AssertionError."
        try:
            return answer(f, *tensors, **options)
        except AssertionError:
            return "AssertionError"

    def honest(a, b):
        return ((a * b).tanh() + b.exp()).sum()

    a, b = (Tensor(rng.normal(size=s), requires_grad=True) for s in ((2, 3), (3,)))
    before = np.hstack([a.data.ravel(), b.data])
    case = "((a * b).tanh() + b.exp()).sum(), where backward is right"
    got = told(honest, a, b, tol=100.0)
    same("the data after the check", np.hstack([a.data.ravel(), b.data]), before,
         "A nudged element was not put back: t.data must be as before.")  # fmt: skip
    same(f"{case}, tol=100: the gap", got, 0.0,
         "It returns one number, the largest gap, and here the gap is tiny: nudge to both "
         "sides, divide by 2h.", atol=1e-6)  # fmt: skip
    same(f"{case}, checked again", told(honest, a, b), 0.0,
         "The first call's grad is still there: clear it before backward (t.grad = None).",
         atol=1e-6)  # fmt: skip
    unused = Tensor(rng.normal(size=5), requires_grad=True)
    _litter((5,))
    same("a tensor c that f ignores", told(lambda a, b, c: honest(a, b), a, b, unused), 0.0,
         "A tensor that f ignores has grad None after backward: its slopes count as zeros.",
         atol=1e-6)  # fmt: skip

    same("backward is off by 0.01 in every element of both tensors",
         told(lambda a, b: _cube(a, (..., 0.01)) + _cube(b, (..., 0.01)), a, b),
         "AssertionError", "A gap above tol is an error: raise AssertionError.")  # fmt: skip
    for which, place, error in [
        (0, 0, 0.01), (0, 0, -0.01), (0, 5, 0.01), (1, 0, -0.01), (1, 2, 0.01),
    ]:  # fmt: skip

        def lies(*tensors, which=which, place=place, error=error):
            wrong = _cube(tensors[which], (place, error))
            return wrong + _cube(tensors[1 - which])

        same(f"backward is off by {error} in tensor {which}, element {place}",
             told(lies, a, b), "AssertionError",
             "A wrong gradient passes. Compare the size of the gap, |ours - nudged|, in "
             "every element of every tensor, and raise AssertionError above tol.")  # fmt: skip

    t = Tensor([[2.0, 1.0], [3.0, 1.5]], requires_grad=True)
    same("backward has the wrong sign", told(_flipped, t), "AssertionError",
         "A gradient with the wrong sign passes: the gap is |ours - nudged|, with both "
         "signs kept until they are subtracted.")  # fmt: skip
    same("backward is off by 0.5 in one element and by -0.5 in another",
         told(lambda t: _cube(t, (0, 0.5), (3, -0.5)), t), "AssertionError",
         "Two opposite errors cancel. Nudge ONE element at a time and compare it with its "
         "own element of grad.")  # fmt: skip
    same("backward gives nan everywhere", told(lambda t: _cube(t, (..., np.nan)), t),
         "AssertionError", "A gradient of nan passes: every comparison with nan is False, "
         "and max(0.0, nan) is 0.0. Take np.maximum, or raise where `not gap <= tol`.")  # fmt: skip
    same("backward gives nan for the first element alone",
         told(lambda t: _cube(t, (0, np.nan)), t), "AssertionError",
         "One nan is lost among numbers: np.maximum keeps it, max does not.")  # fmt: skip
    same("f uses b.data behind the tape's back: b.grad is None",
         told(lambda t, u: (t * Tensor(u.data.copy())).sum(), a, b), "AssertionError",
         "A tensor with grad None is skipped, but f moves with it: compare zeros with the "
         "nudge.")  # fmt: skip

    same("slopes 12, 3, 27, 6.75, two of them off by 0.5 and -0.25, tol=1: the largest gap",
         told(lambda t: _cube(t, (0, 0.5), (1, -0.25)), t, tol=1.0), 0.5,
         "It returns the largest |ours - nudged|, and raises only above tol.", atol=1e-5)  # fmt: skip
    same("an honest t^3, h=0.5 and tol=1, (above - below) / 2h = 3 t^2 + h^2: the gap",
         told(_cube, t, h=0.5, tol=1.0), 0.25,
         "Nudge by h to both sides, divide by 2h: use the argument h.", atol=1e-5)  # fmt: skip
    same("(3 t).sum(), h=0.5 and tol=0, where the gap is exactly 0",
         told(lambda t: (t * 3.0).sum(), t, h=0.5, tol=0.0), 0.0,
         "A gap of exactly tol is allowed: raise above it.")  # fmt: skip


def _cube(t, *errors):
    "(t ** 3).sum() with a rule that is off by (place, error) in some elements."

    def rule(grad, inputs, output):
        slope = grad * 3 * inputs[0].data ** 2
        for place, error in errors:
            slope.flat[place] += error
        return (slope,)

    return record(t.data**3, (t,), rule).sum()


def _flipped(t):
    "(t ** 3).sum() with a rule of the wrong sign."
    return record(t.data**3, (t,), lambda g, inputs, out: (-g * 3 * t.data**2,)).sum()


def _litter(shape):
    "Leave numbers in freed memory, where np.empty finds them."
    blocks = [np.full(shape, 7.0) for _ in range(20)]
    blocks.clear()


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

    def both(logits, labels):
        with np.errstate(all="ignore"):
            return _several(answer(logits, labels), 2, "(loss, gradient of the logits)")

    loss_rule = "A row costs log(sum of exp(z)) - z[label]; the loss is the rows' mean."
    grad_rule = "Softmax minus one-hot, divided by the number of rows."
    logits, labels = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0]]), np.array([0, 2])
    p = _softmax(logits)
    want, want_grad = -np.log(p[[0, 1], labels]).mean(), (p - np.eye(3)[labels]) / 2
    case = "logits [[2, 1, 0], [0, 0, 0]], labels [0, 2]"
    loss, grad = both(logits, labels)
    same(f"{case}: loss", loss, want, loss_rule)
    same(f"{case}: gradient", grad, want_grad, grad_rule)
    for shift in (1e4, -1e4):
        loss, grad = both(logits + shift, labels)
        rule = "exp of a large number overflows: subtract each row's maximum first."
        same(f"{case}, every logit {shift:+.0e}: loss", loss, want, rule)
        same(f"{case}, every logit {shift:+.0e}: gradient", grad, want_grad, rule)
    apart, first = np.array([[0.0, 1.0], [2000.0, 2001.0]]), np.array([0, 0])
    q = _softmax(apart)
    rule = (
        "Each row needs its OWN maximum, max(axis=1, keepdims=True): one for all rows "
        "sends the other rows' exponentials to 0."
    )
    loss, grad = both(apart, first)
    case = "logits [[0, 1], [2000, 2001]], labels [0, 0]"
    same(f"{case}: loss", loss, -np.log(q[0, 0]), rule)
    same(f"{case}: gradient", grad, (q - [1, 0]) / 2, rule)
    loss, grad = both(np.array([[0.0, 2000.0]]), np.array([0]))
    same("logits [[0, 2000]], label 0: loss", loss, 2000.0,
         "The softmax is 0 there, and log 0 is -inf: log(sum) - shifted[label] never "
         "meets it.")  # fmt: skip
    same("logits [[0, 2000]], label 0: gradient", grad, [[-1.0, 1.0]], grad_rule)
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(5, 4)), np.array([3, 0, 3, 1, 2])
    grad = both(logits, labels)[1]
    want = (_softmax(logits) - np.eye(4)[labels]) / 5
    same("five random rows, labels [3, 0, 3, 1, 2]: gradient", grad, want, grad_rule)
    step = np.zeros((5, 4))
    step[2, 3] = 1e-5
    up, down = (both(logits + s * step, labels)[0] for s in (1, -1))
    same("the same rows, logit (2, 3) nudged", (up - down) / 2e-5, want[2, 3],
         "Loss and gradient do not belong together.", atol=1e-7)  # fmt: skip


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
    rule = "Mask grad once, first, and use the masked one for all three."
    for n, d, h, scale in [(4, 3, 3, 1.0), (2, 5, 1, 1.0), (3, 2, 6, 1e-3)]:
        X, W, b = (scale * rng.normal(size=size) for size in ((n, d), (d, h), h))
        grad, out = rng.normal(size=(n, h)), np.maximum(X @ W + b, 0)
        masked = np.where(out > 0, grad, 0.0)
        got = _several(answer(grad, X, W, out), 3, "the gradients of X, W and b")
        want = masked @ W.T, X.T @ masked, masked.sum(axis=0)
        for name, ours, right in zip("XWb", got, want):
            same(f"X ({n}, {d}), W ({d}, {h}): gradient of {name}", ours, right,
                 f"It has the shape of {name}. {rule}")  # fmt: skip


@chapter.exercise(
    "Three things in order: forget the old gradients, get new ones, move.",
    "p.grad = None for each; loss = loss_of(); loss.backward(); then move each p.data "
    "against p.grad.",
    "p.data -= lr * p.grad, for all p, after backward; return float(loss.data)",
    mutates=True,
)
def sgd_step(answer):
    "One step of training: clear, forward, backward, move; returns the loss."
    w = Tensor(np.array([1.0, -2.0]), requires_grad=True)
    b = Tensor(np.array(0.5), requires_grad=True)
    x, done, back = np.array([3.0, 1.0]), [], Tensor.backward

    def loss_of():
        done.append("loss_of")
        return ((w * x).sum() + b - 4.0) ** 2  # 3 - 2 + 0.5 - 4 = -2.5

    def noted(loss):
        done.append("backward")
        back(loss)

    case = "loss = (w . [3, 1] + b - 4)^2 at w = [1, -2], b = 0.5, lr = 0.1"
    with mock.patch.object(Tensor, "backward", noted):
        got = answer([w, b], loss_of, 0.1)
    same(f"{case}: what is called", done, ["loss_of", "backward"],
         "One step asks for the loss once and walks back once: loss = loss_of(), then "
         "loss.backward().")  # fmt: skip
    same(f"{case}: the new w", w.data, [2.5, -1.5],
         "Move against the gradient: p.data -= lr * p.grad.")  # fmt: skip
    same(f"{case}: the new b", b.data, 1.0, "Every parameter moves, b as well as w.")
    if isinstance(got, Tensor):
        raise Miss("It returns the loss as a number: float(loss.data).", case, "a Tensor",
                   6.25)  # fmt: skip
    same(f"{case}: what it returns", got, 6.25, "It returns the loss before the step.")
    answer([w, b], loss_of, 0.01)  # here w . x + b - 4 = 3
    rule = "Clear every grad before backward: grads of leaves add up over calls."
    same("a second step, lr = 0.01: the new w", w.data, [2.5 - 0.18, -1.5 - 0.06], rule)
    same("a second step, lr = 0.01: the new b", b.data, 1.0 - 0.06, rule)
    idle = Tensor(np.ones(2), requires_grad=True)
    w.data, b.data = np.array([1.0, -2.0]), np.array(0.5)
    for p in (idle, w, b):
        p.grad = np.full(p.data.shape, 100.0)
    answer([idle, w, b], lambda: (w * w).sum() + b * 2.0, 0.25)
    case = "(w . w) + 2 b, lr = 0.25, and grads of 100 left over from elsewhere"
    same(f"{case}: the new w", w.data, [0.5, -1.0], rule)
    same(f"{case}: the new b", b.data, 0.0, rule)
    same(f"{case}: a parameter that the loss does not use", idle.data, [1.0, 1.0],
         "Its grad is None after backward: leave such a parameter alone.")  # fmt: skip
