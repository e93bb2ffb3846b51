"""Chapter 27's slips: wrong answers that its checks must reject, and their names."""

import copy
import hashlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils.built import onnx_file, sealed
from utils.built.onnx_file import model, node, tensor, value_info, varint
from utils.checks import deployment as ex

# ---- field ----


def _field(number, value, varint=varint, length=len):
    "A field, with one thing or another wrong in it."
    text = value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(length(text)) + value
    return varint(number << 3) + varint(value)


def _high_first(n):
    groups = [n & 127]
    while n > 127:
        n >>= 7
        groups.append(n & 127)
    groups.reverse()
    return bytes([g | 128 for g in groups[:-1]] + groups[-1:])


@ex.field.slip(
    "The groups of seven bits are in the wrong order: the lowest comes first."
)
def highest_bits_first(number, value):
    return _field(number, value, _high_first)


@ex.field.slip(
    "The eighth bit is never set: a reader stops after the first byte of a long number."
)
def no_more_bit(number, value):
    def varint(n):
        out = bytearray()
        while n > 127:
            out.append(n & 127)
            n >>= 7
        return bytes([*out, n])

    return _field(number, value, varint)


@ex.field.slip("The eighth bit is set in every byte: in the last one it must be 0.")
def always_more(number, value):
    def varint(n):
        out = bytearray()
        while n > 127:
            out.append(n & 127 | 128)
            n >>= 7
        return bytes([*out, n | 128])

    return _field(number, value, varint)


@ex.field.slip("128 needs two bytes: seven bits end at 127.")
def eight_bits(number, value):
    def varint(n):
        out = bytearray()
        while n > 128:
            out.append(n & 127 | 128)
            n >>= 7
        return bytes([*out, n])

    return _field(number, value, varint)


@ex.field.slip(
    "The key is one byte here: from field 16 on it needs two, so it is a varint."
)
def key_in_one_byte(number, value):
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return bytes([(number << 3 | 2) & 255]) + varint(len(value)) + value
    return bytes([number << 3 & 255]) + varint(value)


@ex.field.slip("The length is one byte here: 128 bytes and more need a varint.")
def length_in_one_byte(number, value):
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + bytes([len(value) & 255]) + value
    return varint(number << 3) + varint(value)


@ex.field.slip("The length counts letters here: some letters have two bytes.")
def counts_letters(number, value):
    return _field(number, value)


@ex.field.slip("Bytes have the wire type 2: the key is number << 3 | 2.")
def one_wire_type(number, value):
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return varint(number << 3) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


@ex.field.slip(
    "There is no length before the bytes: a reader cannot know where they end."
)
def no_length(number, value):
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + value
    return varint(number << 3) + varint(value)


@ex.field.slip("Zero is one byte, 00: here the loop ends before it writes any.")
def zero_is_nothing(number, value):
    def varint(n):
        out = bytearray()
        while n:
            out.append(n & 127 | (128 if n > 127 else 0))
            n >>= 7
        return bytes(out)

    return _field(number, value, varint)


# ---- onnx_bytes ----


def _write(net, transB=1, order="<f4", out=None, dims=None, batch="batch", relu=True,
           bias=True, inputs=3, last="y", turn=False):  # fmt: skip
    nodes, weights, now = b"", b"", "x"
    layers = list(net)
    for k, layer in enumerate(layers):
        after = last if k == len(layers) - 1 else (out or f"h{k}")
        if isinstance(layer, nn.ReLU):
            nodes += onnx_file.field(1, node("Relu", [now if relu else "x"], after))
        else:
            W, b = layer.weight.detach().numpy(), layer.bias.detach().numpy()
            b, W = b if bias else 0 * b, W.T if turn else W
            attributes = {"transB": 1} if transB else {}
            names = [now if relu else "x", f"w{k}", f"b{k}"][:inputs]
            nodes += onnx_file.field(1, node("Gemm", names, after, **attributes))
            for name, array in ((f"w{k}", W), (f"b{k}", b)):
                one = tensor(name, array) if order == "<f4" else _big(name, array)
                weights += onnx_file.field(5, one)
        now = after
    linears = [layer for layer in net if isinstance(layer, nn.Linear)]
    D, H = linears[0].in_features, linears[-1].out_features
    ends = onnx_file.field(11, value_info("x", [batch, D]))
    ends += onnx_file.field(12, value_info("y", [batch, H]))
    return model(nodes + onnx_file.field(2, "net") + weights + ends)


def _big(name, array):
    dims = b"".join(onnx_file.field(1, size) for size in array.shape)
    data = np.asarray(array).astype(">f4").tobytes()
    return (
        dims
        + onnx_file.field(2, 1)
        + onnx_file.field(8, name)
        + onnx_file.field(9, data)
    )


@ex.onnx_bytes.slip(
    "transB=1 is missing: PyTorch keeps W as (H, D), and Gemm multiplies by what is stored."
)
def without_transB(net):
    return _write(net, transB=0)


@ex.onnx_bytes.slip(
    "W is transposed twice: by you, and by transB=1. One of the two is right."
)
def transposed_twice(net):
    return _write(net, turn=True)


@ex.onnx_bytes.slip("A Gemm has two inputs: the bias is missing.")
def two_inputs(net):
    return _write(net, inputs=2)


@ex.onnx_bytes.slip(
    "The numbers are big-endian: ONNX keeps the lowest byte first, '<f4'."
)
def big_endian(net):
    return _write(net, order=">f4")


@ex.onnx_bytes.slip(
    "The batch is a number here: a text, as 'batch', lets any number of rows in."
)
def batch_of_one(net):
    return _write(net, batch=1)


@ex.onnx_bytes.slip("All hidden nodes give the same name: the second hides the first.")
def one_name_for_all(net):
    return _write(net, out="h")


@ex.onnx_bytes.slip(
    "Every node reads 'x': it should read what the node before it gave."
)
def all_read_x(net):
    return _write(net, relu=False)


@ex.onnx_bytes.slip("The biases are zeros: write layer.bias.")
def no_bias(net):
    return _write(net, bias=False)


@ex.onnx_bytes.slip("The last node should give 'y', as field 12 says.")
def last_is_not_y(net):
    return _write(net, last="h9")


@ex.onnx_bytes.slip("This is the graph alone: model(graph) wraps it with the version.")
def graph_alone(net):
    return dict(onnx_file.fields(_write(net)))[7]


@ex.onnx_bytes.slip("The sizes of x and y have changed places.")
def sizes_swapped(net):
    data = dict(onnx_file.fields(_write(net)))[7]
    parts = [
        ({11: 12, 12: 11}.get(number, number), value)
        for number, value in onnx_file.fields(data)
    ]
    return model(b"".join(onnx_file.field(*part) for part in parts))


# ---- fold ----


def _fold(conv, bn, eps=True, root=True, mean=True, bias=True, gain=True, beta=True,
          axis=0, scale_bias=True):  # fmt: skip
    folded = copy.deepcopy(conv)
    var = bn.running_var + (bn.eps if eps else 0)
    gain_C = 1 / (var.sqrt() if root else var)
    gain_C = gain_C * (bn.weight.data if gain else 1)
    b_C = conv.bias.data if conv.bias is not None and bias else torch.zeros_like(gain_C)
    shift_C = (b_C - (bn.running_mean if mean else 0)) * gain_C
    if not scale_bias:
        shift_C = b_C - bn.running_mean * gain_C
    shift_C = shift_C + (bn.bias.data if beta else 0)
    folded.weight.data = conv.weight.data * gain_C[:, None, None, None]
    folded.bias = nn.Parameter(shift_C)
    return folded


@ex.fold.slip("eps is missing under the root.")
def without_eps(conv, bn):
    return _fold(conv, bn, eps=False)


@ex.fold.slip("g divides by the root of v + eps, not by v + eps.")
def without_root(conv, bn):
    return _fold(conv, bn, root=False)


@ex.fold.slip(
    "conv.bias is lost: it passes through the batch norm, too, as (b - mu) g + beta."
)
def loses_the_bias(conv, bn):
    return _fold(conv, bn, bias=False)


@ex.fold.slip("The convolution's own bias is multiplied by the gain as well.")
def bias_without_gain(conv, bn):
    return _fold(conv, bn, scale_bias=False)


@ex.fold.slip("conv.bias stays as it was: it becomes (b - mu) g + beta.")
def keeps_the_bias(conv, bn):
    folded = _fold(conv, bn)
    folded.bias = conv.bias
    return folded


@ex.fold.slip("Every channel has a gain of its own, not the mean of them.")
def one_gain(conv, bn):
    folded = copy.deepcopy(conv)
    gain = (bn.weight.data / (bn.running_var + bn.eps).sqrt()).mean()
    b_C = 0 if conv.bias is None else conv.bias.data
    folded.weight.data = conv.weight.data * gain
    folded.bias = nn.Parameter((b_C - bn.running_mean) * gain + bn.bias.data)
    return folded


@ex.fold.slip("eps is this batch norm's own: bn.eps, not always 1e-5.")
def fixed_eps(conv, bn):
    bn = copy.deepcopy(bn)
    bn.eps = 1e-5
    return _fold(conv, bn)


@ex.fold.slip("bn.weight, the learnt gain, is missing.")
def without_gain(conv, bn):
    return _fold(conv, bn, gain=False)


@ex.fold.slip("bn.bias, the learnt shift, is missing.")
def without_shift(conv, bn):
    return _fold(conv, bn, beta=False)


@ex.fold.slip("The running mean is missing.")
def without_mean(conv, bn):
    return _fold(conv, bn, mean=False)


@ex.fold.slip(
    "The convolution that was given is changed: begin with copy.deepcopy(conv)."
)
def in_place(conv, bn):
    folded = _fold(conv, bn)
    conv.weight.data, conv.bias = folded.weight.data, folded.bias
    return conv


@ex.fold.slip("This is still two layers: one Conv2d is asked for.")
def both(conv, bn):
    return nn.Sequential(conv, bn)


@ex.fold.slip("This is the convolution alone: the batch norm is dropped.")
def dropped(conv, bn):
    return copy.deepcopy(conv)


# ---- queued ----


@ex.queued.slip(
    "Counted from when the server began: what a client waits is counted from when it was due."
)
def from_the_start(due_N, seconds_N):
    return np.asarray(seconds_N) * 1.0


@ex.queued.slip(
    "These are the times of the answers: a latency is that minus when it was due."
)
def times_of_answers(due_N, seconds_N):
    free, done = 0.0, []
    for due, seconds in zip(due_N, seconds_N):
        free = max(free, due) + seconds
        done.append(free)
    return np.array(done)


@ex.queued.slip("This is the wait alone: the request's own seconds belong to it.")
def only_the_wait(due_N, seconds_N):
    free, wait = 0.0, []
    for due, seconds in zip(due_N, seconds_N):
        wait.append(max(free - due, 0.0))
        free = max(free, due) + seconds
    return np.array(wait)


@ex.queued.slip("An idle server waits for the next request: begin at max(free, due).")
def begins_before_due(due_N, seconds_N):
    free = np.cumsum(seconds_N)
    return free - due_N


@ex.queued.slip(
    "Only the request directly before is looked at: a wait carries over to all behind it."
)
def one_before(due_N, seconds_N):
    latency = []
    for n in range(len(due_N)):
        before = due_N[n - 1] + seconds_N[n - 1] if n else 0.0
        latency.append(max(before - due_N[n], 0.0) + seconds_N[n])
    return np.array(latency)


# ---- collect ----


@ex.collect.slip(
    "The wait begins anew at every arrival: the first request may then wait for ever."
)
async def wait_restarts(queue, limit, wait):
    batch = [await queue.get()]
    while len(batch) < limit:
        request = await queue.get(timeout=wait)
        if request is None:
            break
        batch.append(request)
    return batch


@ex.collect.slip("It waits although the batch is full: a full batch leaves at once.")
async def waits_when_full(queue, limit, wait):
    batch = [await queue.get()]
    end = queue.now() + wait
    while len(batch) < limit:
        request = await queue.get(timeout=max(0.0, end - queue.now()))
        if request is None:
            return batch
        batch.append(request)
    while queue.now() < end and await _nothing(queue, end):
        pass
    return batch


async def _nothing(queue, end):
    queue.clock = end
    return True


@ex.collect.slip(
    "With no time left it does not look at all: what is there already should be taken."
)
async def leaves_what_is_there(queue, limit, wait):
    batch = [await queue.get()]
    end = queue.now() + wait
    while len(batch) < limit and queue.now() < end:
        request = await queue.get(timeout=end - queue.now())
        if request is None:
            break
        batch.append(request)
    return batch


@ex.collect.slip("One too many: `limit` requests are the most.")
async def one_too_many(queue, limit, wait):
    batch = [await queue.get()]
    end = queue.now() + wait
    while len(batch) <= limit:
        request = await queue.get(timeout=max(0.0, end - queue.now()))
        if request is None:
            break
        batch.append(request)
    return batch


@ex.collect.slip(
    "The clock starts before the first request is there: it waits without end for that one."
)
async def clock_starts_early(queue, limit, wait):
    end = queue.now() + wait
    batch = [await queue.get()]
    while len(batch) < limit:
        request = await queue.get(timeout=max(0.0, end - queue.now()))
        if request is None:
            break
        batch.append(request)
    return batch


@ex.collect.slip("It waits without end for a full batch.")
async def until_full(queue, limit, wait):
    return [await queue.get() for _ in range(limit)]


@ex.collect.slip("A timeout gives None, which is no request: leave it out.")
async def keeps_none(queue, limit, wait):
    batch = [await queue.get()]
    end = queue.now() + wait
    while len(batch) < limit:
        batch.append(await queue.get(timeout=max(0.0, end - queue.now())))
        if batch[-1] is None:
            break
    return batch


@ex.collect.slip(
    "A full batch loses a request: ask the queue only while there is room."
)
async def loses_one(queue, limit, wait):
    batch = [await queue.get()]
    end = queue.now() + wait
    while True:
        request = await queue.get(timeout=max(0.0, end - queue.now()))
        if request is None or len(batch) == limit:
            return batch
        batch.append(request)


@ex.collect.slip("The time that is left may fall below 0: max(0, end - queue.now()).")
async def below_zero(queue, limit, wait):
    batch = [await queue.get()]
    end = queue.now() + wait
    while len(batch) < limit:
        request = await queue.get(timeout=end - queue.now() - 1e-9)
        if request is None:
            break
        batch.append(request)
    return batch


@ex.collect.slip("The time that is left falls below 0: max(0, end - queue.now()).")
async def never_clamped(queue, limit, wait):
    batch = [await queue.get()]
    end = queue.now() + wait
    while len(batch) < limit:
        request = await queue.get(timeout=end - queue.now())
        if request is None:
            break
        batch.append(request)
    return batch


@ex.collect.slip("Nobody came means None: a request may be empty or 0, `is None` asks.")
async def drops_the_falsy(queue, limit, wait):
    batch = [await queue.get()]
    end = queue.now() + wait
    while len(batch) < limit:
        request = await queue.get(timeout=max(0.0, end - queue.now()))
        if not request:
            break
        batch.append(request)
    return batch


# ---- best_cut ----


def _cut(device, server, sizes, rate, seconds, cuts=None, last=False):
    cuts = cuts if cuts is not None else range(len(device) + 1)
    times = {k: seconds(k) for k in cuts}
    order = reversed(list(times)) if last else times
    k = min(order, key=times.__getitem__)
    return k, times[k]


@ex.best_cut.slip("The last cut is missing: all layers may run on the device.")
def never_all_on_device(device, server, sizes, rate):
    return _cut(device, server, sizes, rate,
                lambda k: sum(device[:k]) + sizes[k] / rate + sum(server[k:]),
                range(len(device)))  # fmt: skip


@ex.best_cut.slip("The first cut is missing: the input itself may be sent.")
def never_all_on_server(device, server, sizes, rate):
    return _cut(device, server, sizes, rate,
                lambda k: sum(device[:k]) + sizes[k] / rate + sum(server[k:]),
                range(1, len(device) + 1))  # fmt: skip


@ex.best_cut.slip("Device and server have changed places.")
def changed_places(device, server, sizes, rate):
    return _cut(device, server, sizes, rate,
                lambda k: sum(server[:k]) + sizes[k] / rate + sum(device[k:]))  # fmt: skip


@ex.best_cut.slip("Bytes over bytes per second are seconds: sizes[k] / rate.")
def bytes_times_rate(device, server, sizes, rate):
    return _cut(device, server, sizes, rate,
                lambda k: sum(device[:k]) + sizes[k] * rate + sum(server[k:]))  # fmt: skip


@ex.best_cut.slip("Everything up to the cut is sent here: only what crosses it is.")
def all_sizes(device, server, sizes, rate):
    return _cut(device, server, sizes, rate,
                lambda k: sum(device[:k]) + sum(sizes[: k + 1]) / rate + sum(server[k:]))  # fmt: skip


@ex.best_cut.slip("The smallest size is not the least time: add what the layers take.")
def smallest_size(device, server, sizes, rate):
    k = sizes.index(min(sizes))
    return k, sum(device[:k]) + sizes[k] / rate + sum(server[k:])


@ex.best_cut.slip(
    "Of equal times the cut with fewer layers on the device is asked for."
)
def later_of_equals(device, server, sizes, rate):
    return _cut(device, server, sizes, rate,
                lambda k: sum(device[:k]) + sizes[k] / rate + sum(server[k:]), last=True)  # fmt: skip


@ex.best_cut.slip("The layer at the cut runs twice, on the device and on the server.")
def layer_twice(device, server, sizes, rate):
    return _cut(device, server, sizes, rate,
                lambda k: sum(device[: k + 1]) + sizes[k] / rate + sum(server[k:]))  # fmt: skip


@ex.best_cut.slip("The layer at the cut runs nowhere: the server runs server[k:].")
def layer_nowhere(device, server, sizes, rate):
    return _cut(device, server, sizes, rate,
                lambda k: sum(device[:k]) + sizes[k] / rate + sum(server[k + 1 :]))  # fmt: skip


# ---- verify ----


def _wrong(folder, listed):
    now = sealed.manifest(folder)
    return sorted(n for n in set(listed) | set(now) if listed.get(n) != now.get(n))


@ex.verify.slip(
    "The code is never compared: whoever changes a file changes the list with it."
)
def believes_the_list(folder, listed, code, key):
    return _wrong(folder, listed)


@ex.verify.slip("Files that are not listed are not looked at: somebody may load one.")
def only_listed(folder, listed, code, key):
    if sealed.mac(listed, key) != code:
        return ["manifest"]
    now = sealed.manifest(folder)
    return sorted(n for n in listed if listed[n] != now.get(n))


@ex.verify.slip("A file that is gone is not missed.")
def only_present(folder, listed, code, key):
    if sealed.mac(listed, key) != code:
        return ["manifest"]
    now = sealed.manifest(folder)
    return sorted(n for n in now if listed.get(n) != now[n])


@ex.verify.slip(
    "The digests are compared as a set: two files may change places, or a name may change."
)
def set_of_digests(folder, listed, code, key):
    if sealed.mac(listed, key) != code:
        return ["manifest"]
    now = sealed.manifest(folder)
    return sorted(
        [n for n in listed if listed[n] not in now.values()]
        + [n for n in now if now[n] not in listed.values()]
    )


@ex.verify.slip("Only sizes and names are compared: a flipped bit changes neither.")
def compares_names(folder, listed, code, key):
    if sealed.mac(listed, key) != code:
        return ["manifest"]
    now = sealed.manifest(folder)
    return sorted(set(listed) ^ set(now))


@ex.verify.slip(
    "A list that is not to be believed says nothing about files: stop there."
)
def both_lists(folder, listed, code, key):
    first = [] if sealed.mac(listed, key) == code else ["manifest"]
    return sorted(first + _wrong(folder, listed))


@ex.verify.slip(
    "The code is made of the files as they are now: it should be that of the list given."
)
def code_of_now(folder, listed, code, key):
    if sealed.mac(sealed.manifest(folder), key) != code:
        return ["manifest"]
    return _wrong(folder, listed)


@ex.verify.slip(
    "A digest without a key: anyone can make it anew. Use mac(listed, key)."
)
def no_key(folder, listed, code, key):
    if hashlib.sha256(sealed.canonical(listed)).hexdigest() != code:
        return ["manifest"]
    return _wrong(folder, listed)


@ex.verify.slip("An empty file is a file as well.")
def skips_empty(folder, listed, code, key):
    if sealed.mac(listed, key) != code:
        return ["manifest"]
    empty = hashlib.sha256(b"").hexdigest()
    return [
        n for n in _wrong(folder, listed) if sealed.manifest(folder).get(n) != empty
    ]


def _flat(folder, listed, code, key, names):
    if sealed.mac(listed, key) != code:
        return ["manifest"]
    now = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in names}
    return sorted(n for n in set(listed) | set(now) if listed.get(n) != now.get(n))


@ex.verify.slip("Files in inner folders are not looked at: weights/a.bin is one.")
def top_folder_only(folder, listed, code, key):
    here = [(path.name, path) for path in folder.iterdir() if path.is_file()]
    return _flat(folder, listed, code, key, here)


@ex.verify.slip("A file in an inner folder is listed with its path: weights/a.bin.")
def names_without_path(folder, listed, code, key):
    here = [(path.name, path) for path in folder.rglob("*") if path.is_file()]
    return _flat(folder, listed, code, key, here)


@ex.verify.slip("The names are right, but not sorted.")
def not_sorted(folder, listed, code, key):
    return (
        _wrong(folder, listed)[::-1]
        if sealed.mac(listed, key) == code
        else ["manifest"]
    )


# ---- pgd ----


def _slope(net, at_BD, y_B):
    at_BD = at_BD.detach().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(net(at_BD), y_B), at_BD)[0]


def _climb(net, x_BD, y_B, eps, steps, rate, at_BD, sign=1, signs=True, box=True,
           centre=None, pixels=True):  # fmt: skip
    centre = x_BD if centre is None else centre
    at_BD = at_BD.clone()
    for _ in range(steps):
        g_BD = _slope(net, at_BD, y_B)
        at_BD = at_BD + sign * rate * (g_BD.sign() if signs else g_BD)
        at_BD = at_BD.clamp(centre - eps, centre + eps) if box else at_BD
        at_BD = at_BD.clamp(0, 1) if pixels else at_BD
    return at_BD


@ex.pgd.slip("This goes downhill: the attacker wants a larger loss, so add.")
def downhill(net, x_BD, y_B, eps, steps, rate, start_BD):
    return _climb(net, x_BD, y_B, eps, steps, rate, start_BD, sign=-1)


@ex.pgd.slip("It never comes back to within eps of x.")
def no_projection(net, x_BD, y_B, eps, steps, rate, start_BD):
    return _climb(net, x_BD, y_B, eps, steps, rate, start_BD, box=False)


@ex.pgd.slip("A pixel has to stay in 0 .. 1: clamp it.")
def leaves_the_pixels(net, x_BD, y_B, eps, steps, rate, start_BD):
    return _climb(net, x_BD, y_B, eps, steps, rate, start_BD, pixels=False)


@ex.pgd.slip("The step follows the slope itself: its sign is asked for.")
def no_sign(net, x_BD, y_B, eps, steps, rate, start_BD):
    return _climb(net, x_BD, y_B, eps, steps, rate, start_BD, signs=False)


@ex.pgd.slip("It starts at x: it should start at start_BD.")
def starts_at_x(net, x_BD, y_B, eps, steps, rate, start_BD):
    return _climb(net, x_BD, y_B, eps, steps, rate, x_BD)


@ex.pgd.slip("It stays within eps of the start: it should be within eps of x.")
def round_the_start(net, x_BD, y_B, eps, steps, rate, start_BD):
    return _climb(net, x_BD, y_B, eps, steps, rate, start_BD, centre=start_BD)


@ex.pgd.slip("The slope is always the one at the start: it changes with every step.")
def slope_once(net, x_BD, y_B, eps, steps, rate, start_BD):
    at_BD, g_BD = start_BD.clone(), _slope(net, start_BD, y_B)
    for _ in range(steps):
        at_BD = at_BD + rate * g_BD.sign()
        at_BD = at_BD.clamp(x_BD - eps, x_BD + eps).clamp(0, 1)
    return at_BD


@ex.pgd.slip("The projection comes once, at the end: it belongs to every step.")
def projects_once(net, x_BD, y_B, eps, steps, rate, start_BD):
    at_BD = _climb(net, x_BD, y_B, eps, steps, rate, start_BD, box=False, pixels=False)
    return at_BD.clamp(x_BD - eps, x_BD + eps).clamp(0, 1)


@ex.pgd.slip("One step only: repeat it `steps` times.")
def one_step(net, x_BD, y_B, eps, steps, rate, start_BD):
    return _climb(net, x_BD, y_B, eps, 1, rate, start_BD)


@ex.pgd.slip("Each step has the size eps: it should be `rate`.")
def steps_of_eps(net, x_BD, y_B, eps, steps, rate, start_BD):
    return _climb(net, x_BD, y_B, eps, steps, eps, start_BD)


@ex.pgd.slip(
    "backward() leaves gradients in the network's parameters: torch.autograd.grad does not."
)
def with_backward(net, x_BD, y_B, eps, steps, rate, start_BD):
    at_BD = start_BD.clone()
    for _ in range(steps):
        at_BD = at_BD.detach().requires_grad_()
        F.cross_entropy(net(at_BD), y_B).backward()
        at_BD = at_BD.detach() + rate * at_BD.grad.sign()
        at_BD = at_BD.clamp(x_BD - eps, x_BD + eps).clamp(0, 1)
    return at_BD


# ---- integrated_gradients ----


def _walk(net, x_BD, c_B, steps, base_BD, where=lambda k, n: (k + 0.5) / n,
          times=None, logits=lambda z: z, count=None):  # fmt: skip
    total_BD = torch.zeros_like(x_BD)
    for k in range(count or steps):
        at_BD = (base_BD + where(k, steps) * (x_BD - base_BD)).requires_grad_()
        z_B = logits(net(at_BD)).gather(1, c_B[:, None])
        total_BD = total_BD + torch.autograd.grad(z_B.sum(), at_BD)[0]
    return (x_BD - base_BD if times is None else times) * total_BD / (count or steps)


@ex.integrated_gradients.slip(
    "The slope at the left of each piece: take it at the middle."
)
def left_sums(net, x_BD, c_B, steps, base_BD):
    return _walk(net, x_BD, c_B, steps, base_BD, lambda k, n: k / n)


@ex.integrated_gradients.slip(
    "The slope at the right of each piece: take it at the middle."
)
def right_sums(net, x_BD, c_B, steps, base_BD):
    return _walk(net, x_BD, c_B, steps, base_BD, lambda k, n: (k + 1) / n)


@ex.integrated_gradients.slip(
    "The slopes are not multiplied by the way, x - base: completeness is lost."
)
def not_times_the_way(net, x_BD, c_B, steps, base_BD):
    return _walk(net, x_BD, c_B, steps, base_BD, times=1.0)


@ex.integrated_gradients.slip("The way is x - base, not x: the base may be any image.")
def times_x(net, x_BD, c_B, steps, base_BD):
    return _walk(net, x_BD, c_B, steps, base_BD, times=x_BD)


@ex.integrated_gradients.slip("This explains the softmax: take the logit itself.")
def softmax(net, x_BD, c_B, steps, base_BD):
    return _walk(net, x_BD, c_B, steps, base_BD, logits=lambda z: z.softmax(1))


@ex.integrated_gradients.slip("The slopes are added up: average them over the steps.")
def not_averaged(net, x_BD, c_B, steps, base_BD):
    return steps * _walk(net, x_BD, c_B, steps, base_BD)


@ex.integrated_gradients.slip("This is gradient times input, the slope at x alone.")
def only_at_x(net, x_BD, c_B, steps, base_BD):
    return _walk(net, x_BD, c_B, steps, base_BD, lambda k, n: 1.0, count=1)


@ex.integrated_gradients.slip("All rows get the class of the first one.")
def one_class(net, x_BD, c_B, steps, base_BD):
    return _walk(net, x_BD, c_B[:1].expand(len(c_B)), steps, base_BD)


@ex.integrated_gradients.slip(
    "The walk begins at black here: it goes from base_BD to x_BD."
)
def walks_from_black(net, x_BD, c_B, steps, base_BD):
    return _walk(net, x_BD, c_B, steps, 0 * base_BD, times=x_BD - base_BD)


@ex.integrated_gradients.slip("The base is always black here: use base_BD.")
def always_black(net, x_BD, c_B, steps, base_BD):
    return _walk(net, x_BD, c_B, steps, torch.zeros_like(x_BD))


@ex.integrated_gradients.slip(
    "The slope of all logits together: only class c's counts."
)
def all_logits(net, x_BD, c_B, steps, base_BD):
    return _walk(
        net, x_BD, 0 * c_B, steps, base_BD, logits=lambda z: z.sum(1, keepdim=True)
    )


@ex.integrated_gradients.slip("The size of the slope: its sign says for or against.")
def sizes_only(net, x_BD, c_B, steps, base_BD):
    return _walk(net, x_BD, c_B, steps, base_BD).abs()


# ---- ks ----


def _shares(a, b, at, side="right"):
    share_a = np.searchsorted(np.sort(a), at, side=side) / len(a)
    return share_a, np.searchsorted(np.sort(b), at, side=side) / len(b)


@ex.ks.slip("The gap may go either way: take its size.")
def one_way(a, b):
    share_a, share_b = _shares(a, b, np.concatenate([a, b]))
    return (share_a - share_b).max()


@ex.ks.slip("Look at the values of both samples, not of a alone.")
def only_at_a(a, b):
    share_a, share_b = _shares(a, b, a)
    return np.abs(share_a - share_b).max()


@ex.ks.slip("Look at the values of both samples, not of b alone.")
def only_at_b(a, b):
    share_a, share_b = _shares(a, b, b)
    return np.abs(share_a - share_b).max()


@ex.ks.slip("Counts, not shares: divide each by its own sample's length.")
def counts(a, b):
    at = np.concatenate([a, b])
    share_a, share_b = _shares(a, b, at)
    return np.abs(share_a * len(a) - share_b * len(b)).max()


@ex.ks.slip("Both counts are divided by the length of a.")
def one_length(a, b):
    at = np.concatenate([a, b])
    share_a, share_b = _shares(a, b, at)
    return np.abs(share_a - share_b * len(b) / len(a)).max()


@ex.ks.slip("This compares the means: a shape may change and keep its mean.")
def means(a, b):
    return abs(np.mean(a) - np.mean(b))


@ex.ks.slip("This compares the medians only: look at every value.")
def at_the_median(a, b):
    share_a, share_b = _shares(a, b, np.median(np.concatenate([a, b])))
    return abs(share_a - share_b)


@ex.ks.slip("Equal values come all at once: look at the gap after the last of them.")
def between_equals(a, b):
    a, b, i, j, gap = np.sort(a), np.sort(b), 0, 0, 0.0
    while i < len(a) and j < len(b):
        if a[i] <= b[j]:
            i += 1
        else:
            j += 1
        gap = max(gap, abs(i / len(a) - j / len(b)))
    return gap


@ex.ks.slip("searchsorted needs a sorted sample.")
def unsorted(a, b):
    at = np.concatenate([a, b])
    share_a = np.searchsorted(a, at, side="right") / len(a)
    return np.abs(share_a - np.searchsorted(b, at, side="right") / len(b)).max()


@ex.ks.slip("The average gap: the largest is asked for.")
def average_gap(a, b):
    share_a, share_b = _shares(a, b, np.concatenate([a, b]))
    return np.abs(share_a - share_b).mean()
