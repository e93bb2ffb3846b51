"""A program, wrong in one place: what a slip of the pen, or of the mind, may change in it.

Pure functions of texts; holding the mutants against a check is mutants.py's.
"""

import ast
import contextlib
import copy
import difflib

OTHERS = {  # of an operator
    ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div], ast.Div: [ast.Mult, ast.FloorDiv],
    ast.FloorDiv: [ast.Div], ast.Mod: [ast.FloorDiv], ast.Pow: [ast.Mult], ast.MatMult: [ast.Mult],
    ast.LShift: [ast.RShift], ast.RShift: [ast.LShift], ast.BitAnd: [ast.BitOr],
    ast.BitOr: [ast.BitAnd, ast.BitXor], ast.BitXor: [ast.BitOr],
    ast.Lt: [ast.LtE, ast.Gt], ast.LtE: [ast.Lt, ast.GtE], ast.Gt: [ast.GtE, ast.Lt],
    ast.GtE: [ast.Gt, ast.LtE], ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq],
    ast.In: [ast.NotIn], ast.NotIn: [ast.In], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is],
}  # fmt: skip
TWINS = {  # names that are easily taken for each other
    "min": "max", "max": "min", "sum": "mean", "mean": "sum", "any": "all", "all": "any",
    "floor": "ceil", "ceil": "floor", "argmin": "argmax", "argmax": "argmin",
    "zeros": "empty", "zeros_like": "empty_like", "ones": "zeros", "ones_like": "zeros_like",
    "amin": "amax", "amax": "amin", "minimum": "maximum", "maximum": "minimum",
    "round": "floor", "cumsum": "cumprod", "std": "var", "var": "std", "append": "extend",
    "randn": "rand", "normal": "uniform", "train": "eval", "eval": "train",
}  # fmt: skip


def _of_binop(node):
    for kind in OTHERS.get(type(node.op), []):
        yield ast.BinOp(node.left, kind(), node.right)
    yield node.left
    yield node.right


def _of_unary(node):
    yield node.operand


def _of_compare(node):
    for number, op in enumerate(node.ops):
        for kind in OTHERS[type(op)]:
            ops = [*node.ops[:number], kind(), *node.ops[number + 1 :]]
            yield ast.Compare(node.left, ops, node.comparators)


def _of_boolop(node):
    other = ast.And if isinstance(node.op, ast.Or) else ast.Or
    yield ast.BoolOp(other(), node.values)
    yield from node.values


def _of_constant(node):
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield from map(ast.Constant, sorted({value + 1, value - 1, -value} - {value}))
    elif isinstance(value, float):
        others = {value * 2, value / 2, -value} - {value}
        yield from map(ast.Constant, sorted(others) or [1.0])
    elif isinstance(value, str):
        yield ast.Constant(value + "?")


def _of_call(node):
    function, args, words = node.func, node.args, node.keywords
    if isinstance(function, ast.Attribute):  # x.detach() -> x
        yield function.value
    if len(args) == 1:  # float(x) -> x
        yield args[0]
    if len(args) >= 2:
        yield ast.Call(function, [args[1], args[0], *args[2:]], words)
        yield ast.Call(function, args[:-1], words)
    for number in range(len(words)):
        yield ast.Call(function, args, words[:number] + words[number + 1 :])


def _of_name(node):
    if isinstance(node.ctx, ast.Load) and node.id in TWINS:
        yield ast.Name(TWINS[node.id], ast.Load())


def _of_attribute(node):
    if isinstance(node.ctx, ast.Load):
        if node.attr in TWINS:
            yield ast.Attribute(node.value, TWINS[node.attr], ast.Load())
        if node.attr in ("T", "mT"):
            yield node.value


def _of_slice(node):
    if node.lower:
        yield ast.Slice(None, node.upper, node.step)
    if node.upper:
        yield ast.Slice(node.lower, None, node.step)
    if node.step:
        yield ast.Slice(node.lower, node.upper, None)


def _of_ifexp(node):
    yield node.body
    yield node.orelse


def _of_sequence(node):
    if isinstance(node.ctx, ast.Load) and len(node.elts) > 1:
        yield type(node)([node.elts[1], node.elts[0], *node.elts[2:]], ast.Load())
        yield type(node)(node.elts[:-1], ast.Load())


EXPRESSIONS = {
    ast.BinOp: _of_binop, ast.UnaryOp: _of_unary, ast.Compare: _of_compare,
    ast.BoolOp: _of_boolop, ast.Constant: _of_constant, ast.Call: _of_call,
    ast.Name: _of_name, ast.Attribute: _of_attribute, ast.Slice: _of_slice,
    ast.IfExp: _of_ifexp, ast.Tuple: _of_sequence, ast.List: _of_sequence,
}  # fmt: skip


def _fewer(iterable):
    "The loop's own turns but the first, but the last, and the first alone."
    for text in ("[1:]", "[:-1]", "[:1]"):
        tree = ast.parse(f"list(_){text}", mode="eval").body
        tree.value.args = [iterable]
        yield tree


def _of_statement(node):
    "What may stand in a statement's place, each a list of statements."
    if isinstance(node, (ast.Assign, ast.AugAssign, ast.Expr, ast.Delete, ast.Raise)):
        yield [ast.Pass()]
    if isinstance(node, (ast.Break, ast.Continue)):
        yield [ast.Pass()]
    if isinstance(node, ast.AugAssign):
        yield [ast.Assign([node.target], node.value)]
        for kind in OTHERS.get(type(node.op), []):
            yield [ast.AugAssign(node.target, kind(), node.value)]
    if isinstance(node, ast.If):
        yield node.body
        yield node.orelse or [ast.Pass()]
    if isinstance(node, ast.With):
        yield node.body
    if isinstance(node, ast.For):
        for iterable in _fewer(node.iter):
            yield [ast.For(node.target, iterable, node.body, node.orelse)]
    if isinstance(node, (ast.For, ast.While)):
        yield [ast.Pass()]
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.decorator_list:
        bare = copy.copy(node)
        bare.decorator_list = []
        yield [bare]


def _places(tree):
    "Every (set, node) of a tree: `set(other)` puts another node, or list, in its place."
    for parent in ast.walk(tree):
        if isinstance(parent, (ast.Raise, ast.JoinedStr, ast.arguments)):
            continue  # an error's words are nobody's slip, a default is the stub's own
        for field, value in ast.iter_fields(parent):
            if field in ("annotation", "returns", "type_comment"):
                continue
            if isinstance(value, ast.AST):
                yield lambda new, p=parent, f=field: setattr(p, f, new), value
            elif isinstance(value, list):
                for number, item in enumerate(value):
                    if isinstance(item, ast.AST):

                        def put(new, value=value, number=number):
                            at = slice(number, number + 1)
                            value[at] = new if isinstance(new, list) else [new]

                        yield put, item


def _is_docstring(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _changes(node):
    if _is_docstring(node):
        return
    if isinstance(node, ast.comprehension):
        for iterable in _fewer(node.iter):
            yield ast.comprehension(node.target, iterable, node.ifs, node.is_async)
        for number in range(len(node.ifs)):
            ifs = node.ifs[:number] + node.ifs[number + 1 :]
            yield ast.comprehension(node.target, node.iter, ifs, node.is_async)
    elif isinstance(node, ast.stmt):
        yield from _of_statement(node)
    elif type(node) in EXPRESSIONS:
        yield from EXPRESSIONS[type(node)](node)


def mutants(source):
    "Texts of a program that is wrong in one place: {what changed: source}, in order."
    tree, found = ast.parse(source), {}
    before = ast.unparse(tree)
    docstrings = {id(n.value) for n in ast.walk(tree) if _is_docstring(n)}
    for number, (_, node) in enumerate(_places(tree)):
        if id(node) in docstrings:
            continue
        for turn in range(len(list(_changes(node)))):
            other = copy.deepcopy(tree)
            put, same = next(p for i, p in enumerate(_places(other)) if i == number)
            put(next(c for i, c in enumerate(_changes(same)) if i == turn))
            with contextlib.suppress(Exception):  # what is no program is no mutant
                after = ast.unparse(ast.fix_missing_locations(other))
                compile(after, "<mutant>", "exec")
                if after != before:
                    found.setdefault(difference(before, after), after)
    return found


def difference(before, after):
    "The lines of two programs that differ: 'before => after'."
    lines = list(difflib.ndiff(before.split("\n"), after.split("\n")))
    old, new = (
        " | ".join(x[2:].strip() for x in lines if x.startswith(sign)) for sign in "-+"
    )
    return f"{old} => {new}"
