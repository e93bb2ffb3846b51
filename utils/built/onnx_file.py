"""An ONNX file written and read by hand: protobuf's wire format, and the few fields needed.

Field numbers are those of onnx.proto3 (github.com/onnx/onnx); the wire format is described
at protobuf.dev/programming-guides/encoding. Chains of Linear and ReLU only. Neither onnx nor
torch is imported: a server can read a model with NumPy alone. Built for chapter 27.
"""

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


def read(data):
    """The bytes of an ONNX file -> {"nodes", "weights", "inputs", "outputs"}.

    nodes: [(op, inputs, outputs, attributes)]; weights: {name: array}; inputs, outputs:
    {name: sizes}. ValueError where the file is cut short or is no ONNX model.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"data is the bytes of a file, not {given.kind(data)}")
    graph = dict(fields(bytes(data))).get(7)
    if not isinstance(graph, bytes):
        raise ValueError("no graph in it: this is no ONNX model")
    found = {"nodes": [], "weights": {}, "inputs": {}, "outputs": {}}
    for number, value in fields(graph):
        if number == 1:
            found["nodes"].append(_node(value))
        elif number == 5:
            name, array = _tensor(value)
            found["weights"][name] = array
        elif number in (11, 12):
            name, sizes = _value_info(value)
            found["inputs" if number == 11 else "outputs"][name] = sizes
    return found


def _node(data):
    parts, attributes = fields(data), {}
    for number, value in parts:
        if number == 5:
            said = dict(fields(value))
            attributes[said[1].decode()] = said.get(3, 0)
    named = [[v.decode() for n, v in parts if n == number] for number in (1, 2, 4)]
    return named[2][0] if named[2] else "", named[0], named[1], attributes


def _tensor(data):
    parts = fields(data)
    said = dict(parts)
    shape = [value for number, value in parts if number == 1]
    if said.get(2) != FLOAT or not isinstance(said.get(9), bytes):
        raise ValueError("only float32 tensors with raw data are read here")
    values = np.frombuffer(said[9], "<f4")
    if values.size != np.prod(shape, dtype=int):
        raise ValueError(f"a tensor of shape {tuple(shape)} has {values.size} numbers")
    return said[8].decode(), values.reshape(shape)


def _value_info(data):
    said = dict(fields(data))
    tensor_type = dict(fields(dict(fields(said[2]))[1]))
    sizes = []
    for _, dim in fields(tensor_type[2]):
        (number, value), *_ = fields(dim)
        sizes.append(value.decode() if number == 2 else value)
    return said[1].decode(), sizes


def steps(data):
    """The chain in a file, ready to run: [(name, f), ...], f: array (B, D) -> array (B, H).

    A Gemm is one step, a Relu another. ValueError for other operators, and for nodes
    that are no chain.
    """
    found = read(data)
    now = next(iter(found["inputs"]), None)
    for op, inputs, outputs, _ in found["nodes"]:
        if list(inputs[:1]) != [now] or len(outputs) != 1:
            raise ValueError(
                f"{op} does not read what the node before it made: no chain"
            )
        now = outputs[0]
    return [(op, _step(op, inputs, attributes, found["weights"]))
            for op, inputs, _, attributes in found["nodes"]]  # fmt: skip


def _step(op, inputs, attributes, weights):
    if op == "Relu":
        return lambda x: np.maximum(x, np.float32(0))
    if op != "Gemm":
        raise ValueError(f"the operator {op!r} is not read here: Gemm and Relu are")
    if set(attributes) - {"transB"} or not set(inputs[1:]) <= set(weights):
        raise ValueError("a Gemm here has weights of the file, and transB at most")
    W, b = weights[inputs[1]], weights[inputs[2]] if len(inputs) > 2 else np.float32(0)
    W = W.T if attributes.get("transB") else W
    return lambda x: x @ W + b


def run(data, x_BD):
    "What the model in the file makes of these rows: float32 (B, D) -> (B, H)."
    x = np.asarray(x_BD, dtype=np.float32)
    for _, step in steps(data):
        x = step(x)
    return x
