"""Chapter 27: what can still go wrong once a network works."""

import copy
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils.built import onnx_file, sealed
from utils.exercises import Chapter, Miss, same

chapter = Chapter("27_deployment")


def _seeded(seed):
    return torch.Generator().manual_seed(seed)


# ---- a file by hand ----


def _bytes(case, got, want, rule):
    if isinstance(got, bytearray):
        got = bytes(got)
    if got is not None and not isinstance(got, bytes):
        raise Miss("It should return bytes.", case, got, want)
    same(case, got, want, rule)


@chapter.exercise(
    "Write `varint` first, and try 150: its seven low bits are 22, what is left is 1.",
    "while n > 127: write n & 127 | 128 (the low seven bits, and 'more follows'), then "
    "n >>= 7. At the end write n.",
    "whole number: varint(number << 3) + varint(value); bytes: varint(number << 3 | 2) + "
    "varint(len(value)) + value; a text is encoded first.",
)
def field(answer):
    "One field of a protobuf message."
    hexed = bytes.fromhex
    _bytes("field(1, 150)", answer(1, 150), hexed("089601"),
           "Key 1 << 3 = 8, then 150 as 96 01: low seven bits first.")  # fmt: skip
    _bytes("field(2, 'testing')", answer(2, "testing"), b"\x12\x07testing",
           "Key 2 << 3 | 2 = 18, the length, the text's bytes.")  # fmt: skip
    _bytes("field(3, field(1, 150)) = field(3, b'\\x08\\x96\\x01')",
           answer(3, hexed("089601")), hexed("1a03089601"),
           "A message inside a message is bytes like any other.")  # fmt: skip
    for n, want in [
        (0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (255, "ff01"), (300, "ac02"),
        (16383, "ff7f"), (16384, "808001"), (2**32 + 5, "8580808010"),
    ]:  # fmt: skip
        _bytes(f"field(1, {n})", answer(1, n), hexed("08" + want),
               "Seven bits a byte, the lowest first; the eighth bit says that more follow.")  # fmt: skip
    for number, key in [(15, "78"), (16, "8001"), (20, "a001"), (2048, "808001")]:
        _bytes(f"field({number}, 1)", answer(number, 1), hexed(key + "01"),
               "The key is a varint as well: from field 16 on it has two bytes.")  # fmt: skip
    for size in (0, 1, 127, 128, 300):
        want = hexed("2a") + hexed(
            {0: "00", 1: "01", 127: "7f", 128: "8001", 300: "ac02"}[size]
        )
        _bytes(f"field(5, {size} bytes)", answer(5, b"\x96" * size), want + b"\x96" * size,
               "Before bytes stands how many they are, as a varint.")  # fmt: skip
    _bytes("field(16, 'né')", answer(16, "né"), hexed("8201036ec3a9"),
           "The length counts bytes, not letters: encode the text first.")  # fmt: skip


def _numbers(data):
    "Which fields a message has, in words."
    try:
        found = sorted({number for number, _ in onnx_file.fields(data)})
    except ValueError:
        return f"{len(data)} bytes that are no message"
    return "fields " + ", ".join(map(str, found))


def _outputs(case, data, x_BD):
    "What the graph in the bytes computes, by the names of its nodes."
    if isinstance(data, bytearray):
        data = bytes(data)
    if not isinstance(data, bytes):
        raise Miss("It should return the bytes of the file.", case, data, "bytes")
    try:
        found = onnx_file.read(data)
    except Exception as error:
        rule = f"A reader of ONNX files stops: {error}"
        raise Miss(rule, case, _numbers(data), "fields 1, 7, 8") from None
    values = {"x": x_BD.numpy()} | found["weights"]
    for op, inputs, outputs, attributes in found["nodes"]:
        missing = [name for name in inputs if name not in values]
        if missing:
            rule = f"A {op} reads {missing[0]!r}, which nothing before it gives."
            raise Miss(rule, case, inputs, sorted(values))
        if len(outputs) != 1 or outputs[0] in values:
            raise Miss(
                "Every node gives one output, with a name of its own.", case, outputs
            )
        values[outputs[0]] = _node(
            case, op, [values[name] for name in inputs], attributes
        )
    if "y" not in values:
        raise Miss(
            'The last node\'s output should be named "y".', case, sorted(values), "y"
        )
    return values["y"], found


def _node(case, op, values, attributes):
    if op == "Relu":
        return np.maximum(values[0], 0)
    if op != "Gemm":
        raise Miss("Gemm and Relu are the operators here.", case, op, "Gemm or Relu")
    if len(values) != 3:
        rule = "A Gemm takes three inputs here: x, the weights and the bias."
        if len(values) == 2:
            rule = "A Gemm has two inputs: the bias is missing."
        raise Miss(rule, case, f"{len(values)} inputs", "3 inputs")
    x, W, b = values
    turned = attributes.get("transB", 0)
    if np.ndim(W) != 2 or x.shape[1] != (W.shape[1] if turned else W.shape[0]):
        rule = "Gemm multiplies x by W as it is stored; transB=1 lets it take W of shape (H, D)."
        raise Miss(rule, case, f"x {x.shape}, W stored as {W.shape}, transB={turned}",
                   f"x {x.shape}, W stored as (H, D) = (H, {x.shape[1]}), transB=1")  # fmt: skip
    W = W.T if turned else W
    with np.errstate(all="ignore"):  # some builds of BLAS leave flags of rows they skip
        return x @ W + b


@chapter.exercise(
    "Walk through the layers and keep the name of what the last node gave: it is the next "
    "node's input.",
    "A Linear gives onnx_file.node('Gemm', [now, f'w{k}', f'b{k}'], after, transB=1) and two tensors; "
    "a ReLU gives onnx_file.node('Relu', [now], after). `after` is 'y' at the last layer.",
    "nodes += field(1, node(...)); weights += field(5, tensor(name, array)); at the end "
    "field(11, value_info('x', ['batch', D])), field(12, value_info('y', ['batch', H]))",
)
def onnx_bytes(answer):
    "A chain of Linear and ReLU as an ONNX file."
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        square = nn.Sequential(nn.Linear(4, 4))
        nets = {
            "Linear(3, 5), ReLU, Linear(5, 2)": nn.Sequential(
                nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)
            ),
            "ReLU, Linear(3, 6), Linear(6, 4), ReLU": nn.Sequential(
                nn.ReLU(), nn.Linear(3, 6), nn.Linear(6, 4), nn.ReLU()
            ),
            "Linear(4, 4)": square,
        }
    for name, net in nets.items():
        D = 4 if net is square else 3
        for B in (1, 7):
            x_BD = torch.randn(B, D, generator=_seeded(B))
            case = f"{name}, {B} {'row' if B == 1 else 'rows'}"
            got, found = _outputs(case, answer(net), x_BD)
            same(case, got, net(x_BD).detach(), atol=1e-5,
                 rule="The graph computes what the network computes: y = x W' + b, then ReLU.")  # fmt: skip
        graph = dict(onnx_file.fields(bytes(answer(net))))[7]
        same(f"{name}: how many names the graph has",
             [number for number, _ in onnx_file.fields(graph)].count(2), 1,
             rule="Field 2: the graph's name, any text. Some runtimes insist.")  # fmt: skip
        H = [layer.out_features for layer in net if isinstance(layer, nn.Linear)][-1]
        same(f"{name}: the sizes of x, with a text for the batch",
             [list(found["inputs"]), ["any" if isinstance(s, str) else s for s in found["inputs"].get("x", [])]],
             [["x"], ["any", D]],
             rule="Field 11: value_info('x', ['batch', D]); a text is any number of rows.")  # fmt: skip
        same(f"{name}: the sizes of y, with a text for the batch",
             [list(found["outputs"]), ["any" if isinstance(s, str) else s for s in found["outputs"].get("y", [])]],
             [["y"], ["any", H]],
             rule="Field 12: value_info('y', ['batch', H]), H of the last Linear.")  # fmt: skip


# ---- one layer fewer ----


@chapter.exercise(
    "Write bn(conv(x)) for one channel: gain * (w·x + b - mean) + beta. What multiplies x, "
    "and what is left over?",
    "gain = bn.weight / sqrt(bn.running_var + bn.eps); the weights times gain, and "
    "(b - mean) * gain + bn.bias, with b = 0 where the convolution has none.",
    "folded = copy.deepcopy(conv); folded.weight.data = conv.weight.data * gain[:, None, "
    "None, None]; folded.bias = nn.Parameter(...)",
)
def fold(answer):
    "A batch norm folded into the convolution before it."
    options = {
        "padding 1": {"kernel_size": 3, "padding": 1},
        "no bias, stride 2": {"kernel_size": 3, "stride": 2, "bias": False},
        "two groups, kernel (1, 3)": {"kernel_size": (1, 3), "groups": 2},
    }
    for seed, (name, option) in enumerate(options.items()):
        for training in (False, True):
            conv, bn = _pair(seed, option)  # float64: rounding hides no mistake's name
            bn.train(training)
            before = copy.deepcopy((conv.state_dict(), bn.state_dict()))
            x_BCYX = torch.randn(3, 4, 7, 9, generator=_seeded(seed)).double()
            want = copy.deepcopy(bn).eval()(conv(x_BCYX)).detach()
            got = answer(conv, bn)
            case = f"Conv2d(4, 6) with {name}, BatchNorm2d(6)"
            case += ", in training mode" if training else ""
            if not isinstance(got, nn.Conv2d):
                raise Miss("It should return one nn.Conv2d.", case, type(got).__name__)
            became = copy.deepcopy(got).double()(x_BCYX)  # a float32 answer is one, too
            same(case, became, want, atol=1e-5, rtol=1e-4,
                 rule="The running mean and variance, eps, the gain and the shift: all of it.")  # fmt: skip
            for layer, old in zip((conv, bn), before):
                for key, value in layer.state_dict().items():
                    same(f"{case}: {key} afterwards", value, old[key],
                         rule="The two layers given stay as they are.")  # fmt: skip
            if bn.training != training:
                raise Miss("The batch norm's mode stays as it was.", case)


def _pair(seed, option):
    "A convolution and a batch norm that has seen something."
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        conv, bn = nn.Conv2d(4, 6, **option), nn.BatchNorm2d(6, eps=0.05)
        bn.running_mean.normal_()
        bn.running_var.uniform_(0.1, 2)
        nn.init.uniform_(bn.weight, -1, 2)
        nn.init.normal_(bn.bias)
    return conv.double(), bn.double()


# ---- a server and its queue ----


@chapter.exercise(
    "When does request n begin: when it is due, or when the server is free?",
    "free = max(free, due) + seconds; the latency is free - due.",
    "free = 0.0; for due, seconds in zip(due_N, seconds_N): free = max(free, due) + seconds; "
    "latency.append(free - due)",
)
def queued(answer):
    "Latencies behind one server, first come first served."
    for case, due, seconds, want in [
        ("due 1, 2, 3, each 0.5 s: nobody waits", [1, 2, 3], [0.5] * 3, [0.5] * 3),
        ("due 0, 0, 0, each 1 s", [0, 0, 0], [1, 1, 1], [1, 2, 3]),
        ("due 0, 1, 2, 10, each 1.5 s", [0, 1, 2, 10], [1.5] * 4, [1.5, 2, 2.5, 1.5]),
        ("due 5, 5.25, taking 1, 0.25", [5, 5.25], [1, 0.25], [1, 1]),
        ("due 0, 1, 9, taking 4, 2, 1", [0, 1, 9], [4, 2, 1], [4, 5, 1]),
    ]:
        got = answer(np.array(due, float), np.array(seconds, float))
        same(
            case,
            got,
            want,
            "Begin when due and free, end `seconds` later; count from due.",
        )
    due = np.arange(200) / 100.0
    seconds = np.full(200, 0.005)
    seconds[50] = 1.0
    want, free = np.zeros(200), 0.0
    for n in range(200):
        free = max(free, due[n]) + seconds[n]
        want[n] = free - due[n]
    same("100 requests a second for 2 s, each 5 ms, but request 50 stalls for 1 s",
         answer(due.copy(), seconds.copy()), want,
         rule="All that are due during the stall wait as well: count from when they were due.")  # fmt: skip
    rng = np.random.default_rng(2)
    due, seconds = np.cumsum(rng.exponential(1.0, 23)), rng.exponential(0.8, 23)
    kept, want, free = due.copy(), np.zeros(23), 0.0
    for n in range(23):
        free = max(free, due[n]) + seconds[n]
        want[n] = free - due[n]
    same("23 random requests", answer(due, seconds), want,
         "A wait carries over to all behind it, until the server is idle again.")  # fmt: skip
    same("23 random requests: due_N afterwards", due, kept, "due_N stays as it is.")


class _Clocked:
    """A queue on a clock that only moves when somebody waits; get(timeout) never suspends.

    names: what get gives, 0, 1, 2 ... unless said; cost: seconds that each taking lasts.
    """

    def __init__(self, came, start=0.0, names=None, cost=0.0):
        self.came, self.clock, self.taken = list(came), start, []
        self.names, self.cost = names or list(range(len(self.came))), cost

    def now(self):
        return self.clock

    async def get(self, timeout=None):
        number = len(self.taken)
        there = self.came[number] if number < len(self.came) else float("inf")
        if timeout is None and there == float("inf"):
            raise Miss(
                "It waits without end for a request that never comes.", self.case
            )
        if timeout is not None and (timeout != timeout or timeout < 0):
            raise Miss(
                "A timeout is 0 or more: max(0, end - queue.now()).", self.case, timeout
            )
        if timeout is not None and there > self.clock + timeout + 1e-12:
            self.clock += timeout
            return None
        self.clock = max(self.clock, there) + self.cost
        self.taken.append(number)
        return self.names[number]


def _collected(answer, case, came, limit, wait, start=0.0, **more):
    "The batch, and the seconds at which it leaves."
    queue = _Clocked(came, start, **more)
    queue.case = case
    waiting = answer(queue, limit, wait)
    if not hasattr(waiting, "send"):
        raise Miss("collect is an `async def`.", case, type(waiting).__name__)
    try:
        waiting.send(None)
    except StopIteration as end:
        return end.value, queue
    finally:
        waiting.close()
    raise Miss("It waits for something other than queue.get.", case)


@chapter.exercise(
    "The first request may take as long as it likes. When does the clock for the others "
    "start?",
    "batch = [await queue.get()]; end = queue.now() + wait; then ask again and again, each "
    "time only for the seconds that are left, and never for less than 0.",
    "while len(batch) < limit: request = await queue.get(timeout=max(0, end - queue.now())); "
    "if request is None: break",
)
def collect(answer):
    "The next batch of a dynamic batcher."
    falsy = {"names": ["a", "", "c"]}
    slow = {"cost": 1.0}
    for case, came, limit, wait, start, want, leaves, *more in [
        ("five are there, limit 3, wait 0", [0, 0, 0, 0, 0], 3, 0.0, 0.0, [0, 1, 2], 0.0),
        ("two are there, limit 8, wait 0", [0, 0], 8, 0.0, 0.0, [0, 1], 0.0),
        ("two are there since long, limit 8, wait 0", [1, 2], 8, 0.0, 5.0, [0, 1], 5.0),
        ("they come at 0, 4, 8 and 12 s, limit 8, wait 10", [0, 4, 8, 12], 8, 10.0, 0.0, [0, 1, 2], 10.0),
        ("they come at 0, 4, 8 and 12 s, limit 3, wait 10", [0, 4, 8, 12], 3, 10.0, 0.0, [0, 1, 2], 8.0),
        ("the first comes at 100 s, others at 103 and 106, wait 5", [100, 103, 106], 8, 5.0, 0.0, [0, 1], 105.0),
        ("one comes at 7 s and then nobody, wait 3", [7], 4, 3.0, 0.0, [0], 10.0),
        ("three are there, limit 1, wait 5", [0, 0, 0], 1, 5.0, 0.0, [0], 0.0),
        ("three are there, limit 3, wait 5", [0, 0, 0], 3, 5.0, 0.0, [0, 1, 2], 0.0),
        ("they come at 0 and exactly at 2 s, limit 4, wait 2", [0, 2], 4, 2.0, 0.0, [0, 1], 2.0),
        ("the first was there before, at 1 s; now it is 6; another at 8, wait 4", [1, 8], 4, 4.0, 6.0, [0, 1], 10.0),
        ("the requests 'a', '' and 'c' are there, limit 3, wait 5", [0, 0, 0], 3, 5.0, 0.0, ["a", "", "c"], 0.0, falsy),
        ("five are there, each get takes 1 s, limit 4, wait 1.5", [0] * 5, 4, 1.5, 0.0, [0, 1, 2, 3], 4.0, slow),
        ("three are there, each get takes 1 s, limit 4, wait 1.5", [0] * 3, 4, 1.5, 0.0, [0, 1, 2], 3.0, slow),
    ]:  # fmt: skip
        got, queue = _collected(answer, case, came, limit, wait, start, **dict(*more))
        same(case, got, want, "In order; at most `limit`; what is there is taken.")
        same(f"{case}: when it leaves", queue.clock, leaves,
             "A full batch leaves at once, any other `wait` after the first was taken.")  # fmt: skip
        same(f"{case}: requests taken from the queue", len(queue.taken), len(want),
             "A request that was taken and is not in the batch is lost.")  # fmt: skip


# ---- device and server ----


def _cut(answer, case, args, want, rule):
    got = answer(*args)
    if got is not None and (not isinstance(got, (tuple, list)) or len(got) != 2):
        raise Miss("It should return two things: the cut and its seconds.", case, got)
    same(case, got, want, rule)


@chapter.exercise(
    "With L layers there are L + 1 cuts. What is sent at cut 0, and what at cut L?",
    "seconds at cut k: sum(device[:k]) + sizes[k] / rate + sum(server[k:]).",
    "times = [... for k in range(len(device) + 1)]; k = times.index(min(times)); "
    "return k, times[k]",
)
def best_cut(answer):
    "Where to cut a chain of layers between device and server."
    device, server = [4.0, 20.0, 6.0], [0.5, 2.0, 1.0]
    sizes = [4000, 250, 12000, 40]
    for rate, want in [
        (1000, (1, 4 + 0.25 + 3)),
        (100000, (0, 0.04 + 3.5)),
        (5, (3, 30 + 8)),
        (20, (1, 4 + 12.5 + 3)),
        (1e9, (0, 4e-6 + 3.5)),
    ]:
        _cut(answer, f"device {device}, server {server}, sizes {sizes}, rate {rate:g}",
             (list(device), list(server), list(sizes), rate), want,
             "The layers before k here, sizes[k] bytes sent, the rest there; the least sum.")  # fmt: skip
    for case, args, want in [
        ("a fast device: [1, 1], server [5, 5], sizes [10, 10, 10], rate 1",
         ([1, 1], [5, 5], [10, 10, 10], 1), (2, 12)),
        ("cuts 0 and 1 take the same: device [1], server [3], sizes [10, 12], rate 1",
         ([1], [3], [10, 12], 1), (0, 13)),
        ("cuts 1 and 2 take the same: device [1, 2], server [4, 3], sizes [90, 10, 11], rate 1",
         ([1, 2], [4, 3], [90, 10, 11], 1), (1, 14)),
        ("five layers, device [1, 1, 1, 9, 9], server [1, 1, 1, 1, 1], sizes [9, 8, 8, 1, 8, 1], rate 1",
         ([1, 1, 1, 9, 9], [1] * 5, [9, 8, 8, 1, 8, 1], 1), (3, 6)),
    ]:  # fmt: skip
        _cut(answer, case, args, want,
             "The least time; of equal ones the one with fewer layers here.")  # fmt: skip


# ---- the seal ----


def _folder(place):
    place = Path(place)
    for name, data in _FILES.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    return place


_FILES = {
    "card.txt": b"reads digits",
    "empty.txt": b"",
    "weights/a.bin": bytes(range(200)),
    "weights/b.bin": bytes(range(50, 250)),
}
_KEY = b"sixteen bytes or more"


@chapter.exercise(
    "What may be believed before the code was compared: the files, or the list?",
    "If mac(listed, key) is not the code, return ['manifest'] and look no further. Else "
    "compare listed with manifest(folder), in both directions.",
    "now = manifest(folder); return sorted(name for name in set(listed) | set(now) if "
    "listed.get(name) != now.get(name))",
)
def verify(answer):
    "What is wrong with a sealed folder."

    def tried(case, change, want, rule, relist=False, code=None, key=_KEY):
        with tempfile.TemporaryDirectory() as place:
            folder = _folder(place)
            listed = sealed.manifest(folder)
            good = sealed.mac(listed, _KEY)
            change(folder)
            if relist:
                listed = sealed.manifest(folder)
            got = answer(folder, dict(listed), code or good, key)
            if isinstance(got, list) and got != want and sorted(map(str, got)) == want:
                raise Miss("The names are right, but not sorted.", case, got, want)
            same(case, got, want, rule)

    def write(name, data):
        return lambda folder: (folder / name).write_bytes(data)

    whole = "Nothing is wrong: an empty list."
    tried("nothing was changed", lambda folder: None, [], whole)
    rng = np.random.default_rng(0)
    for _ in range(12):
        name = str(rng.choice(["card.txt", "weights/a.bin", "weights/b.bin"]))
        bit = int(rng.integers(8 * len(_FILES[name])))
        tried(f"bit {bit} of {name} was flipped", write(name, sealed.flip(_FILES[name], bit)),
              [name], "A changed file is named.")  # fmt: skip
    tried("weights/a.bin lost its last byte", write("weights/a.bin", _FILES["weights/a.bin"][:-1]),
          ["weights/a.bin"], "A file that was cut short is named.")  # fmt: skip
    tried("empty.txt got one byte", write("empty.txt", b"\0"), ["empty.txt"],
          "An empty file is listed like any other.")  # fmt: skip
    tried("weights/b.bin is gone", lambda folder: (folder / "weights/b.bin").unlink(),
          ["weights/b.bin"], "A missing file is named.")  # fmt: skip
    tried("weights/c.bin was added", write("weights/c.bin", b"new"), ["weights/c.bin"],
          "A file that is not listed is named: somebody may load it.")  # fmt: skip
    tried("an empty weights/d.bin was added", write("weights/d.bin", b""), ["weights/d.bin"],
          "A file that is not listed is named, even an empty one.")  # fmt: skip
    tried("card.txt is now named about.txt",
          lambda folder: (folder / "card.txt").rename(folder / "about.txt"),
          ["about.txt", "card.txt"], "A new name is one file too many and one too few.")  # fmt: skip

    def swap(folder):
        a, b = folder / "weights/a.bin", folder / "weights/b.bin"
        kept = a.read_bytes()
        a.write_bytes(b.read_bytes())
        b.write_bytes(kept)

    tried("weights/a.bin and weights/b.bin changed places", swap,
          ["weights/a.bin", "weights/b.bin"], "Each name has its own digest.")  # fmt: skip
    believe = "A list whose code does not fit is not believed: ['manifest'], no more."
    tried("card.txt was changed, and the manifest with it", write("card.txt", b"reads minds"),
          ["manifest"], believe, relist=True)  # fmt: skip
    tried("weights/c.bin was added, also to the manifest", write("weights/c.bin", b"new"),
          ["manifest"], believe, relist=True)  # fmt: skip
    tried("the code is of another list", lambda folder: None, ["manifest"], believe,
          code=sealed.mac({}, _KEY))  # fmt: skip
    tried("another key", lambda folder: None, ["manifest"],
          "The code is compared with one made with this key.", key=b"another key, also long")  # fmt: skip
    tried("another key, and card.txt was changed", write("card.txt", b"reads minds"),
          ["manifest"], believe, key=b"another key, also long")  # fmt: skip


# ---- attacks and reasons ----


def _small_net(seed, widths=(5, 8, 3)):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        D, H, C = widths
        return nn.Sequential(nn.Linear(D, H), nn.Tanh(), nn.Linear(H, C)).double()


def _images(seed, B, D):
    x_BD = torch.rand(B, D, generator=_seeded(seed), dtype=torch.float64)
    x_BD[:, 0], x_BD[:, 1] = 0.0, 1.0
    return x_BD


def _untouched(case, net, x_BD, kept_BD, got):
    same(f"{case}: x_BD afterwards", x_BD, kept_BD, "x_BD stays as it is.")
    if any(p.grad is not None for p in net.parameters()):
        raise Miss(
            "The network's parameters have gradients now: torch.autograd.grad(loss, x) asks "
            "for the pixels' alone.", case, "a gradient", None,
        )  # fmt: skip
    if torch.is_tensor(got) and got.requires_grad:
        raise Miss("What is returned still carries a graph: detach it.", case)


@chapter.exercise(
    "Three lines per step: the slope with respect to the pixels, one step along its sign, "
    "and back to where the rules allow.",
    "g, = torch.autograd.grad(F.cross_entropy(net(at), y), at), with at detached and "
    "requires_grad_(); the attacker goes uphill: at + rate * g.sign().",
    "at = torch.minimum(torch.maximum(at, x_BD - eps), x_BD + eps).clamp(0, 1)",
)
def pgd(answer):
    "Projected gradient descent, uphill in the loss."

    def slow(net, x_BD, y_B, eps, steps, rate, start_BD):
        at_BD = start_BD.clone()
        for _ in range(steps):
            at_BD = at_BD.detach().requires_grad_()
            g_BD = torch.autograd.grad(F.cross_entropy(net(at_BD), y_B), at_BD)[0]
            at_BD = at_BD.detach() + rate * g_BD.sign()
            at_BD = at_BD.clamp(x_BD - eps, x_BD + eps).clamp(0, 1)
        return at_BD.detach()

    for seed, eps, steps, rate in [
        (0, 0.1, 1, 0.05), (1, 0.1, 1, 0.5), (2, 0.1, 4, 0.04), (3, 0.3, 7, 0.11),
        (4, 0.0, 3, 0.1), (5, 0.1, 2, 0.1), (6, 0.1, 3, 0.05),
    ]:  # fmt: skip
        net, x_BD = _small_net(seed), _images(seed, 4, 5)
        if seed == 6:  # nobody looks at the last pixel: its slope is 0, it stays
            net[0].weight.data[:, 4] = 0
        y_B = torch.tensor([0, 2, 1, 2])
        half = (
            torch.rand(x_BD.shape, generator=_seeded(seed + 9), dtype=torch.float64)
            - 0.5
        )
        start_BD = (x_BD + eps * half).clamp(0, 1)
        kept_BD, begun_BD = x_BD.clone(), start_BD.clone()
        got = answer(net, x_BD, y_B, eps, steps, rate, start_BD)
        case = f"4 images of 5 pixels, eps {eps}, {steps} steps of {rate}"
        if torch.is_tensor(got) and got.shape == x_BD.shape:
            far = (got.detach() - kept_BD).abs().max().item()
            if far > eps + 1e-9:
                raise Miss(
                    "A pixel is further than eps from where it was.", case, far, eps
                )
            if got.min() < 0 or got.max() > 1:
                raise Miss("A pixel has left 0 .. 1.", case, got, "all within 0 .. 1")
        same(case, got, slow(net, x_BD, y_B, eps, steps, rate, begun_BD),
             rule="Each step: along the sign of the slope, then within eps of x, then 0 .. 1.")  # fmt: skip
        _untouched(case, net, x_BD, kept_BD, got)
        same(
            f"{case}: start_BD afterwards",
            start_BD,
            begun_BD,
            "start_BD stays as it is.",
        )


class _Cubes(nn.Module):
    "Logits that are known: the sum of cubes, and of squares with a cross term."

    def forward(self, x_BD):
        cross = x_BD[:, 0] * x_BD[:, 1]
        return torch.stack([(x_BD**3).sum(1), (x_BD**2).sum(1) + 3 * cross], 1)


@chapter.exercise(
    "Walk from the base to the image in equal pieces; at the middle of each, how steep is "
    "the logit in each pixel?",
    "at = base + (k + 0.5) / steps * (x - base); logit = net(at).gather(1, c[:, None]); "
    "average the slopes over k.",
    "return (x_BD - base_BD) * sum_of_slopes / steps, detached",
)
def integrated_gradients(answer):
    "What each pixel adds to a logit."

    def slow(net, x_BD, c_B, steps, base_BD):
        rows = []
        for x_D, c, base_D in zip(x_BD, c_B, base_BD):
            total = torch.zeros_like(x_D)
            for k in range(steps):
                at = (base_D + (k + 0.5) / steps * (x_D - base_D)).requires_grad_()
                total = total + torch.autograd.grad(net(at[None])[0, c], at)[0]
            rows.append((x_D - base_D) * total / steps)
        return torch.stack(rows).detach()

    way = "The slope at the middle of each piece, averaged over the pieces, times x - base."
    x_BD = torch.tensor([[1.0, 2.0, 3.0], [0.5, -1.0, 0.0]], dtype=torch.float64)
    zero_BD = torch.zeros_like(x_BD)
    got = answer(_Cubes(), x_BD.clone(), torch.tensor([0, 1]), 4, zero_BD.clone())
    same("cubes for row 0, squares plus 3 x0 x1 for row 1, 4 steps", got,
         slow(_Cubes(), x_BD, torch.tensor([0, 1]), 4, zero_BD),
         rule="Each row has its own class: gather(1, c_B[:, None]).")  # fmt: skip
    for steps in (2, 1, 10):
        got = answer(
            _Cubes(), x_BD.clone(), torch.tensor([1, 1]), steps, zero_BD.clone()
        )
        same(f"squares plus 3 x0 x1, x = {x_BD.tolist()}, black base, {steps} steps", got,
             [[4.0, 7.0, 9.0], [-0.5, 0.25, 0.0]], rule=way)  # fmt: skip
    for seed, steps in ((0, 1), (1, 3), (2, 6)):
        net, x_BD, base_BD = (
            _small_net(seed),
            _images(seed, 4, 5),
            _images(seed + 5, 4, 5),
        )
        c_B, kept_BD = torch.tensor([2, 0, 1, 1]), x_BD.clone()
        got = answer(net, x_BD, c_B, steps, base_BD)
        case = f"a network of three classes, 4 images, {steps} steps, another base"
        same(case, got, slow(net, x_BD, c_B, steps, base_BD), rule=way)
        _untouched(case, net, x_BD, kept_BD, got)
    got = answer(net, x_BD, c_B, 200, base_BD)
    with torch.no_grad():
        gap = (net(x_BD) - net(base_BD)).gather(1, c_B[:, None])[:, 0]
    same("the same, 200 steps: each row's sum", torch.as_tensor(got).sum(1), gap, atol=1e-4,
         rule="Completeness: what the pixels add is what the logit gained.")  # fmt: skip


@chapter.exercise(
    "Sort both. At each value that occurs: which share of a lies at or below it, and which "
    "share of b?",
    "np.searchsorted(np.sort(a), at, side='right') / len(a), for all values `at` of both.",
    "at = np.concatenate([a, b]); return np.abs(share_a - share_b).max()",
)
def ks(answer):
    "The two-sample Kolmogorov-Smirnov statistic."
    for a, b, want in [
        ([1.0, 1.0, 1.0, 2.0], [1.0, 2.0, 2.0], 0.75 - 1 / 3),
        ([0.0, 10.0], [4.0, 5.0, 6.0], 0.5),
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], 0.0),
        ([1.0, 2.0], [3.0, 4.0, 5.0], 1.0),
        ([3.0, 4.0, 5.0], [1.0, 2.0], 1.0),
        ([1.0, 3.0], [2.0, 4.0], 0.5),
        ([4.0, 1.0, 3.0, 2.0], [2.5], 0.5),
        ([2.0] * 5, [2.0] * 3, 0.0),
        ([0.0, 1.0, 2.0, 3.0, 4.0], [3.5, 1.5], 0.4),
    ]:
        same(f"a = {a}, b = {b}", answer(np.array(a), np.array(b)), want,
             "The largest gap, either way, between the shares at or below each value.")  # fmt: skip
    rng = np.random.default_rng(0)
    for n, m, shift in ((40, 25, 0.0), (31, 50, 0.7), (50, 31, -0.7)):
        a, b = rng.normal(size=n), rng.normal(size=m) + shift
        kept = a.copy()
        want = max(
            abs((a <= t).mean() - (b <= t).mean()) for t in np.concatenate([a, b])
        )
        same(f"{n} and {m} normal numbers, moved by {shift}", answer(a, b), want,
             "Shares of each sample's own length, at every value of both.")  # fmt: skip
        same("a afterwards", a, kept, "The samples keep their order.")
