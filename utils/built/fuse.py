"""What chapter 14 builds: a compiler for chains of pointwise operators, block by block.

    fast = torch.compile(function, backend=fuse, dynamic=False)

A graph is a torch.fx.GraphModule; a pass reads or writes one whole array once. Blocks of
SIZE numbers stay in the cache between one operator and the next. No C++ compiler is
needed, and the numbers are those of the eager run, bit for bit (but for a number over a
tensor, which eager computes as a reciprocal times the number).
"""

import operator

import torch

from utils import given

SIZE = 65_536  # numbers of a block: 256 KiB in float32
OPS = {  # what Python writes: what can write into a buffer, out=
    operator.add: torch.add,
    operator.sub: torch.sub,
    operator.mul: torch.mul,
    operator.truediv: torch.div,
    torch.tanh: torch.tanh,
    torch.exp: torch.exp,
    torch.sigmoid: torch.sigmoid,
}


def passes(graph):
    """Passes over memory of a graph of pointwise operators: -> (eager, fused).

    Eager, each operator reads each of its tensors once and writes one; fused, all of it
    reads the inputs that are used once and writes the outputs. Numbers count nothing.
    """
    nodes = _graph(graph).graph.nodes
    eager = sum(
        len(node.all_input_nodes) + 1 for node in nodes if node.op == "call_function"
    )
    used = sum(node.op == "placeholder" and len(node.users) > 0 for node in nodes)
    outputs = next(node for node in nodes if node.op == "output").all_input_nodes
    return eager, used + len(outputs)


def fuse(graph, inputs, size=SIZE):
    """A backend for torch.compile: -> a function of the inputs that runs block by block.

    It returns what graph.forward returns, a tuple. Graphs with anything but OPS, and
    inputs that are not float32 of one shape or ask for gradients, run as they are. Results
    lie where the inputs lie.
    """
    size = given.whole("size", size)
    nodes = list(_graph(graph).graph.nodes)
    inner, outputs = nodes[:-1], nodes[-1].args[0]
    work = [node for node in inner if node.op == "call_function"]
    known = all(
        node.op == "placeholder" or (node in work and node.target in OPS and not node.kwargs)
        for node in inner
    )  # fmt: skip
    plain = bool(inputs) and all(
        isinstance(x, torch.Tensor)
        and x.dtype == torch.float32
        and x.shape == inputs[0].shape
        and not x.requires_grad
        for x in inputs
    )
    if not (known and plain and isinstance(outputs, (tuple, list))):
        return graph.forward
    if not all(node in work for node in outputs):
        return graph.forward
    places = [node for node in inner if node.op == "placeholder"]

    def run(*inputs):
        flat = [x.reshape(-1) for x in inputs]
        N = flat[0].numel()
        whole = {node: flat[0].new_empty(N) for node in outputs}
        rooms = {
            node: flat[0].new_empty(min(size, N)) for node in work if node not in whole
        }
        for i in range(0, N, size):
            value = {node: x[i : i + size] for node, x in zip(places, flat)}
            for node in work:
                out = whole[node][i : i + size] if node in whole else rooms[node]
                args = [value.get(a, a) for a in node.args]
                value[node] = OPS[node.target](*args, out=out[: len(value[places[0]])])
        return tuple(whole[node].view(inputs[0].shape) for node in outputs)

    return run


def _graph(graph):
    if not isinstance(graph, torch.fx.GraphModule):
        kind = given.kind(graph)
        raise TypeError(f"a graph is a torch.fx.GraphModule, not {kind}")
    return graph
