"""An ONNX file written and read by hand: protobuf's wire format, and the few fields needed.

Field numbers are those of onnx.proto3 (github.com/onnx/onnx); the wire format is described
at protobuf.dev/programming-guides/encoding. Chains of Linear and ReLU only. Neither onnx nor
torch is imported: a server can read a model with NumPy alone. Built for chapter 27.
"""

import math

import numpy as np

from utils import given

FLOAT, INT = 1, 2  # TensorProto.DataType.FLOAT, AttributeProto.AttributeType.INT
OPSET, IR = 17, 8


# ---- the wire ----


def varint(n):
    "A whole number in groups of 7 bits, the lowest first: 150 -> b'\\x96\\x01'."
    n, out = given.whole("n", n, 0, 2**64 - 1), bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


def field(number, value):
    """One field of a message: a whole number, a text, or bytes (also a whole message).

    field(1, 150) -> b'\\x08\\x96\\x01'; field(2, "testing") -> b'\\x12\\x07testing'.
    """
    given.whole("number", number, 1, 2**29 - 1)
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, (bytes, bytearray)):
        return varint(number << 3 | 2) + varint(len(value)) + bytes(value)
    return varint(number << 3) + varint(value)


def read_varint(data, at):
    "The number that begins at byte `at`, and where the next thing begins."
    n = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("a number does not end: the file is cut short or damaged")
        n |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return n, at


def fields(data):
    "[(number, value), ...] of one message; a value is a whole number or bytes."
    found, at = [], 0
    while at < len(data):
        key, at = read_varint(data, at)
        if key & 7 == 0:
            value, at = read_varint(data, at)
        elif key & 7 == 2:
            size, at = read_varint(data, at)
            value, at = data[at : at + size], at + size
            if at > len(data):
                raise ValueError(
                    f"field {key >> 3} should have {size} bytes: cut short"
                )
        else:
            raise ValueError(f"field {key >> 3} is of wire type {key & 7}, not 0 or 2")
        found.append((key >> 3, value))
    return found


# ---- ONNX's messages ----


def tensor(name, values):
    """A TensorProto: float32, its sizes one field each, its numbers little-endian.

    values: an array, or a tensor or parameter of PyTorch.
    """
    values = values.detach().cpu() if hasattr(values, "detach") else values
    values = np.asarray(values, dtype="<f4")
    dims = b"".join(field(1, size) for size in values.shape)
    return dims + field(2, FLOAT) + field(8, name) + field(9, values.tobytes())


def value_info(name, sizes):
    "A ValueInfoProto: a float tensor; a size that is a text is any size."
    _names(name=name)
    if isinstance(sizes, str) or not isinstance(sizes, (list, tuple)):
        raise TypeError(f'sizes is a list, as ["batch", 64], not {sizes!r:.60}')
    dims = b"".join(field(1, field(2 if isinstance(d, str) else 1, d)) for d in sizes)
    return field(1, name) + field(2, field(1, field(1, FLOAT) + field(2, dims)))


def node(op, inputs, output, **whole_numbers):
    "A NodeProto: what is computed from what, with whole numbers as attributes."
    if not isinstance(inputs, (list, tuple)):
        raise TypeError(f"inputs is a list of names, not {inputs!r:.60}")
    _names(op=op, output=output, **{f"inputs[{k}]": x for k, x in enumerate(inputs)})
    out = b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, op)
    for name, n in whole_numbers.items():
        out += field(5, field(1, name) + field(3, n) + field(20, INT))
    return out


def _names(**texts):
    for what, text in texts.items():
        if not isinstance(text, str):
            raise TypeError(f"{what} is one name, a text, not {text!r:.60}")


def model(graph):
    "A ModelProto around a graph."
    return field(1, IR) + field(8, field(1, "") + field(2, OPSET)) + field(7, graph)


def onnx_bytes(net):
    """nn.Sequential of Linear and ReLU -> an ONNX file, any batch size, "x" in, "y" out.

    TypeError for any other layer. A Linear without a bias gets one of zeros.
    """
    layers = list(net)
    kinds = [type(layer).__name__ for layer in layers]
    if not layers or set(kinds) - {"Linear", "ReLU"} or "Linear" not in kinds:
        raise TypeError(f"a chain of Linear and ReLU can be written, not {kinds}")
    nodes, weights, now = b"", b"", "x"
    for k, layer in enumerate(layers):
        after = "y" if k == len(layers) - 1 else f"h{k}"
        if kinds[k] == "ReLU":
            nodes += field(1, node("Relu", [now], after))
        else:
            W = layer.weight.detach().cpu().numpy()
            b = np.zeros(len(W)) if layer.bias is None else layer.bias.detach().cpu()
            inputs = [now, f"w{k}", f"b{k}"]
            nodes += field(1, node("Gemm", inputs, after, transB=1))
            weights += field(5, tensor(f"w{k}", W)) + field(5, tensor(f"b{k}", b))
        now = after
    linears = [layer for layer in layers if type(layer).__name__ == "Linear"]
    ends = field(11, value_info("x", ["batch", linears[0].in_features]))
    ends += field(12, value_info("y", ["batch", linears[-1].out_features]))
    return model(nodes + field(2, "net") + weights + ends)


# ---- reading ----


class _Message:
    "A message of a file, told by what it is: its fields by number, of the kind they must be."

    def __init__(self, what, data):
        self.what, self.held = what, {}
        try:
            for number, value in fields(data):
                self.held.setdefault(number, []).append(value)
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from None

    def all(self, number, kind):
        "All values of a field: int, bytes, or str for a text."
        found = self.held.get(number, [])
        if not all(isinstance(x, int if kind is int else bytes) for x in found):
            right = {int: "a whole number", bytes: "a message or bytes", str: "a text"}
            raise ValueError(f"{self.what}: field {number} is not {right[kind]}")
        try:
            return [x.decode() for x in found] if kind is str else found
        except UnicodeDecodeError:
            raise ValueError(f"{self.what}: field {number} is no UTF-8 text") from None

    def last(self, number, kind, called):
        "The value of a field that must be there; as in protobuf, the last one counts."
        found = self.all(number, kind)
        if not found:
            raise ValueError(f"{self.what} has no {called}: field {number} is missing")
        return found[-1]


def read(data):
    """The bytes of an ONNX file -> {"nodes", "weights", "inputs", "outputs"}.

    nodes: [(op, inputs, outputs, attributes)]; weights: {name: array}; inputs, outputs:
    {name: sizes}. ValueError, with the place, where the file is cut short, damaged or no
    ONNX model.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"data is the bytes of a file, not {given.kind(data)}")
    graphs = _Message("the file", bytes(data)).held.get(7, [None])
    if not isinstance(graphs[-1], bytes):
        raise ValueError("no graph in it: this is no ONNX model")
    graph = _Message("the graph", graphs[-1])
    return {
        "nodes": [_node(f"node {k}", x) for k, x in enumerate(graph.all(1, bytes))],
        "weights": dict(
            _tensor(f"weight {k}", x) for k, x in enumerate(graph.all(5, bytes))
        ),
        "inputs": dict(_value_info("an input", x) for x in graph.all(11, bytes)),
        "outputs": dict(_value_info("an output", x) for x in graph.all(12, bytes)),
    }


def _node(what, data):
    said, attributes = _Message(what, data), {}
    for value in said.all(5, bytes):
        attribute = _Message(f"an attribute of {what}", value)
        numbers = attribute.all(3, int) or [0]
        attributes[attribute.last(1, str, "name")] = numbers[-1]
    return said.last(4, str, "operator"), said.all(1, str), said.all(2, str), attributes


def _tensor(what, data):
    said = _Message(what, data)
    name, shape = said.last(8, str, "name"), said.all(1, int)
    if said.all(2, int)[-1:] != [FLOAT] or not said.all(9, bytes):
        raise ValueError(f"{name!r:.40}: only float32 with raw data is read here")
    raw = said.last(9, bytes, "numbers")
    if len(raw) != 4 * math.prod(shape):
        raise ValueError(
            f"{name!r:.40} has the shape {_short(shape)} and {len(raw)} bytes of numbers"
        )
    try:
        return name, np.frombuffer(raw, "<f4").reshape(shape)
    except (ValueError, OverflowError):  # no number, and a size beyond all memory
        raise ValueError(f"{name!r:.40}: no array has {_short(shape)}") from None


def _short(shape):
    return f"({', '.join(map(str, shape))})"[:80]


def _value_info(what, data):
    said = _Message(what, data)
    name = said.last(1, str, "name")
    said.what = what = f"{what}, {name!r:.40},"
    kind = _Message(what, said.last(2, bytes, "type"))
    tensor_type = _Message(what, kind.last(1, bytes, "tensor type"))
    shape = _Message(what, tensor_type.last(2, bytes, "sizes"))
    sizes = []
    for value in shape.all(1, bytes):
        dim = _Message(what, value)
        sizes += (dim.all(1, int) or dim.all(2, str) or [""])[-1:]
    return name, sizes


def steps(data):
    """The chain in a file, ready to run: [(name, f), ...], f: array (B, D) -> array (B, H).

    A Gemm is one step, a Relu another. ValueError for other operators, for nodes that are
    no chain from the one input to the one output, and for weights that do not fit.
    """
    return _chain(read(data))


def _chain(found):
    (now, width), made = taken(found), []
    for op, inputs, outputs, attributes in found["nodes"]:
        if inputs[:1] != [now] or len(outputs) != 1:
            raise ValueError(
                f"{op!r:.40} does not read what the node before it made: no chain"
            )
        step, width = _step(op, inputs, attributes, found["weights"], width)
        made.append((op, step))
        now = outputs[0]
    if not made or [now] != list(found["outputs"]):
        raise ValueError(
            f"the chain ends with {now!r:.40}, the outputs are "
            f"{list(found['outputs'])!r:.60}: no chain"
        )
    return made


def taken(found):
    "The one input of a model that `read` has read: (its name, how wide its rows are)."
    inputs = {n: x for n, x in found["inputs"].items() if n not in found["weights"]}
    if len(inputs) != 1:
        raise ValueError(f"a chain has one input, not {len(inputs)}")
    ((name, sizes),) = inputs.items()
    if len(sizes) != 2 or not isinstance(sizes[1], int) or not sizes[1]:
        raise ValueError(
            f"the input {name!r:.40} has rows of a known width, "
            f'["batch", 64], not {sizes!r:.60}'
        )
    return name, sizes[1]


def _step(op, inputs, attributes, weights, width):
    "One node as a function, and how wide what it makes is."
    if op == "Relu" and len(inputs) == 1:
        return lambda x: np.maximum(x, np.float32(0)), width
    if op != "Gemm":
        raise ValueError(f"the operator {op!r:.40} is not read here: Gemm and Relu are")
    if set(attributes) - {"transB"} or not set(inputs[1:]) <= set(weights):
        raise ValueError("a Gemm here has weights of the file, and transB at most")
    if len(inputs) not in (2, 3):
        raise ValueError(f"a Gemm has 2 or 3 inputs, not {len(inputs)}")
    W, b = weights[inputs[1]], weights[inputs[2]] if len(inputs) > 2 else np.float32(0)
    W = W.T if attributes.get("transB") else W
    if W.ndim != 2 or len(W) != width or b.ndim > 1 or b.size not in (1, W.shape[1]):
        raise ValueError(
            f"rows of {width} numbers, weights {_short(W.shape)} and a bias "
            f"{_short(b.shape)} do not fit"
        )
    return lambda x: x @ W + b, W.shape[1]


def run(data, x_BD):
    "What the model in the file makes of these rows: float32 (B, D) -> (B, H)."
    found = read(data)
    chain, (_, width) = _chain(found), taken(found)
    x = np.asarray(x_BD, dtype=np.float32)
    if x.ndim != 2 or x.shape[1] != width:
        raise ValueError(f"x_BD has the shape (B, {width}) here, not {x.shape}")
    for _, step in chain:
        x = step(x)
    return x
