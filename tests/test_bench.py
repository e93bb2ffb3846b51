"""The bench: turns, bars, the table, the command line, and other people's checkouts."""

import json
import subprocess
import sys

import pytest

from utils.bench import backprop, ratio, runner
from utils.bench.peers import known as peers
from utils.bench.peers.imported import Peer
from utils.bench.ratio import Benchmark, Ratio
from utils.files import ROOT

# Turns, ratios and bars


@pytest.fixture
def clock(monkeypatch):
    "A clock that stands still until a job adds to it."
    now = [0.0]
    monkeypatch.setattr(ratio.time, "process_time", lambda: now[0])
    monkeypatch.setattr(ratio.gc, "collect", lambda: None)
    return now


def job(clock, name, seconds, done):
    def run():
        done.append(name)
        clock[0] += seconds.pop(0) if isinstance(seconds, list) else seconds

    return run


def test_turns_alternate_and_the_first_pair_is_not_counted(clock):
    done = []
    ours, theirs = job(clock, "o", [9, 1, 2, 3], done), job(clock, "t", 4.0, done)
    assert ratio.in_turns(ours, theirs, pairs=3) == [0.25, 0.5, 0.75]
    assert done == list("ottootto")


def test_turns_inverted_say_how_many_times_faster(clock):
    ours, theirs = job(clock, "o", 2.0, []), job(clock, "t", 6.0, [])
    assert ratio.in_turns(ours, theirs, pairs=2, invert=True) == [3.0, 3.0]


@pytest.mark.parametrize(
    ("bar", "ratio", "met"),
    [("<= 0.6", 0.6, True), ("<= 0.6", 0.61, False), (">= 25", 25, True),
     (">= 25", 24.9, False), ("", 1.0, None)],
)  # fmt: skip
def test_a_bar_is_met_missed_or_not_there(bar, ratio, met):
    assert Benchmark("x", bar, None).met(ratio) is met


def test_a_ratio_is_the_median_of_its_pairs():
    assert Ratio([9.0, 1.0, 2.0], "a / b").median == 2.0


@pytest.mark.parametrize("bar", ["0.6", "< 0.6", "<= 0.6 s"])
def test_a_bar_of_another_form_is_refused(bar):
    with pytest.raises(ValueError, match="a bar looks like"):
        ratio.benchmark("x", bar)


def test_two_benchmarks_of_one_name_are_refused(monkeypatch):
    monkeypatch.setattr(ratio, "REGISTRY", {})
    ratio.benchmark("x")(print)
    with pytest.raises(ValueError, match="two benchmarks are named 'x'"):
        ratio.benchmark("x")(print)


# The table and the command line


def breaks():
    raise RuntimeError("out of luck")


def lacks():
    raise ImportError("this machine has no such kernel")


FAKE = [
    Benchmark("quick one", "<= 0.6", lambda: Ratio([0.5, 0.4, 0.7], "a / b", "a note")),
    Benchmark("slow one", ">= 25", lambda: Ratio([20.0], "c / d")),
    Benchmark("broken", "<= 1", breaks),
    Benchmark("missing", "<= 1", lacks),
    Benchmark("last", "", lambda: Ratio([1.0], "e / f")),
]


@pytest.fixture
def fake(monkeypatch):
    "A registry of five, none of which takes any time."
    monkeypatch.setattr(runner, "discover", lambda: {b.name: b for b in FAKE})


def test_one_that_raises_is_a_row_and_the_rest_run():
    rows = runner.measure(FAKE)
    assert [row["name"] for row in rows] == [b.name for b in FAKE]
    assert [row["met"] for row in rows] == [True, False, False, None, None]
    assert rows[2]["error"] == "failed: RuntimeError: out of luck"
    assert rows[3]["error"] == "not run: this machine has no such kernel"
    assert (rows[0]["ratio"], rows[0]["lowest"], rows[0]["highest"]) == (0.5, 0.4, 0.7)


def test_the_table_has_a_line_for_each_and_columns_in_line():
    lines = runner.table(runner.measure(FAKE)).splitlines()
    head, rows, notes = lines[0], lines[1:6], lines[7:]
    assert head.split() == ["benchmark", "ratio", "spread", "bar"] and lines[6] == ""
    for row, word in zip(rows, ["0.5 ", "20 ", "- ", "- ", "1 "]):
        assert row[head.index("ratio") :].startswith(word)
    assert rows[0].endswith("met") and rows[1].endswith("MISSED")
    assert rows[2].endswith("out of luck")
    assert notes == ["quick one: a / b; a note", "slow one: c / d", "last: e / f"]


def test_the_report_names_machine_versions_date_and_seconds(fake, capsys):
    assert runner.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for word in ("cores", "Python 3.", "numpy ", "torch "):
        assert word in lines[0]
    assert lines[0][-10:].count("-") == 2  # the date
    assert lines[-1].startswith("5 benchmarks in ") and lines[-1].endswith(" s.")


def test_strict_counts_what_is_missed_or_broken(fake, capsys):
    assert runner.main(["--strict"]) == 1
    assert runner.main(["--strict", "slow"]) == 1
    assert runner.main(["--strict", "broken"]) == 1
    assert runner.main(["--strict", "quick", "last", "missing"]) == 0
    assert runner.main(["slow", "broken"]) == 0


def test_list_names_the_bars_and_runs_nothing(fake, capsys):
    assert runner.main(["--list", "one"]) == 0
    assert capsys.readouterr().out == "quick one  <= 0.6\nslow one  >= 25\n"


def test_json_is_one_object(fake, capsys):
    runner.main(["--json"])
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {"machine", "date", "seconds", "rows"}
    assert [row["name"] for row in report["rows"]] == [b.name for b in FAKE]
    assert "error" in report["rows"][2] and "ratio" not in report["rows"][2]


def test_the_page_has_a_row_for_each_and_is_written_of_whole_runs_only(
    fake, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(runner, "RESULTS", tmp_path / "results.md")
    with pytest.raises(SystemExit):
        runner.main(["--write", "slow"])
    assert "without names" in capsys.readouterr().err and not runner.RESULTS.exists()
    runner.main(["--write"])
    lines = runner.RESULTS.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [b.name for b in FAKE]
    assert "| 0.5 | 0.4 to 0.7 | <= 0.6 | yes | a / b; a note |" in rows[0]
    assert "| >= 25 | **no** |" in rows[1] and "out of luck" in rows[2]
    assert "Python 3." in lines[2] and "1 of 4 bars met, 1 not run here" in lines[2]


@pytest.mark.parametrize("word", ["nonsense", "peer"])
def test_an_unknown_name_is_refused_with_the_known_ones(fake, capsys, word):
    with pytest.raises(SystemExit) as stop:
        runner.main([word])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "quick one, slow one" in error
    assert f"no benchmark contains '{word}'" in error
    assert ("--peer DIR" in error.splitlines()[-1]) == (word == "peer")


# Peers: tiny stand-ins, written for these tests

ENGINE = """\
from {home} import plus

class Value:
    def __init__(self, data, made=()):
        self.data, self.grad, self.made = data, 0.0, made
    def __add__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        return Value(plus(self.data, other.data), ((self, 1.0), (other, 1.0)))
    def __mul__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        made = ((self, other.data), (other, self.data))
        return Value(self.data * other.data, made)
    def relu(self):
        return Value(max(self.data, 0.0), ((self, float(self.data > 0)),))
    __radd__, __rmul__ = __add__, __mul__
    def backward(self):
        order, seen = [], set()
        def visit(node):
            if id(node) not in seen:
                seen.add(id(node))
                for parent, _ in node.made:
                    visit(parent)
                order.append(node)
        visit(self)
        self.grad = 1.0
        for node in reversed(order):
            for parent, slope in node.made:
                parent.grad += slope * node.grad
"""
PLUS = "print('the peer says hello')\ndef plus(a, b):\n    return a + b\n"
TENSOR = """\
import numpy as np

class Tensor:
    def __init__(self, array, *, dtype=None, made=(), push=None):
        self.array, self.grad = np.array(array, dtype=dtype), None
        self.made, self.push = made, push
    shape = property(lambda self: self.array.shape)
    data = property(lambda self: self, lambda self, new: self.__init__(new.array))
    def numpy(self):
        return self.array
    def broadcast_to(self, shape):
        push = lambda g: (g.sum(0, keepdims=True),)
        return Tensor(np.broadcast_to(self.array, shape), made=(self,), push=push)
    def __add__(self, other):
        total = self.array + other.array
        return Tensor(total, made=(self, other), push=lambda g: (g, g))
    def __matmul__(self, other):
        a, b = self.array, other.array
        return Tensor(a @ b, made=(self, other), push=lambda g: (g @ b.T, a.T @ g))
    def backward(self, g=1.0):
        self.grad = Tensor(g)
        for parent, part in zip(self.made, self.push(g) if self.made else ()):
            parent.backward(part)

def softmax_loss(logits, hot):
    p = np.exp(logits.array - logits.array.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    push = lambda g: (g * (p - hot.array) / len(p),)
    return Tensor(-np.log((p * hot.array).sum(1)).mean(), made=(logits,), push=push)
"""
OPS = """\
from .autograd import Tensor

def relu(x):
    return Tensor(x.array.clip(0), made=(x,), push=lambda g: (g * (x.array > 0),))
"""
NN = """\
import numpy as np
from needle.autograd import Tensor, softmax_loss
from needle import ops

class Linear:
    def __init__(self, n, m):
        self.weight = Tensor(np.zeros((n, m)), dtype="f4")
        self.bias = Tensor(np.zeros((1, m)), dtype="f4")
    def __call__(self, x):
        h = x @ self.weight
        return h + self.bias.broadcast_to(h.shape)
class ReLU:
    def __call__(self, x):
        return ops.relu(x)
class Sequential:
    def __init__(self, *parts):
        self.parts = parts
    def __call__(self, x):
        for part in self.parts:
            x = part(x)
        return x
class SoftmaxLoss:
    def __call__(self, logits, y):
        return softmax_loss(logits, Tensor(np.eye(10, dtype="f4")[y.numpy()]))
"""
OPTIM = """\
class SGD:
    def __init__(self, params, lr=0.01):
        self.params, self.lr = params, lr
    def reset_grad(self):
        for p in self.params:
            p.grad = None
    def step(self):
        for p in self.params:
            p.array = p.array - self.lr * p.grad.array
"""


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def micrograd(folder, home="micrograd.plus", start=""):
    files = {
        "micrograd/__init__.py": start,
        "micrograd/engine.py": ENGINE.format(home=home),
        f"{home.replace('.', '/')}.py": PLUS,
    }
    return write(folder / "mine", files)


def needle(folder, nn=True, start="from .autograd import Tensor\n"):
    files = {
        "__init__.py": start,
        "autograd.py": TENSOR,
        "ops.py": OPS,
        **({"nn.py": NN, "optim.py": OPTIM} if nn else {}),
    }
    files = {f"python/needle/{name}": text for name, text in files.items()}
    return write(folder / "hw", files)


@pytest.fixture(autouse=True)
def no_trace(monkeypatch, tmp_path):
    "After every test: sys.path and sys.modules as before, no cache in the peer."
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path, ours = sys.path[:], sys.modules["utils"]
    yield
    places = [str(getattr(m, "__file__", "")) for m in list(sys.modules.values())]
    assert sys.path == path and sys.modules["utils"] is ours
    assert not [place for place in places if place.startswith(str(tmp_path))]
    assert not list(tmp_path.rglob("__pycache__"))
    assert sys.dont_write_bytecode is False


def rows_of(folder, taken=()):
    return {b.name: b for b in peers.benchmarks(folder, taken)}


def why(folder):
    "The one row of a peer that cannot run: its name, and what it says."
    rows = runner.measure(rows_of(folder).values())
    assert len(rows) == 1 and rows[0]["met"] is None
    return rows[0]["name"], rows[0]["error"]


@pytest.fixture
def no_time(monkeypatch):
    "Races run, on few points, but are not timed."

    class Few(backprop.Moons):
        def __init__(self, kind, neuron=backprop.plain_neuron):
            super().__init__(kind, neuron, points=5)

    monkeypatch.setattr(backprop, "Moons", Few)
    monkeypatch.setattr(backprop, "solved_at", lambda: 56)
    monkeypatch.setattr(backprop, "in_turns", lambda *_, **__: [2.0])


@pytest.mark.parametrize("home", ["micrograd.plus", "utils.plus"])
def test_a_scalar_engine_runs_and_gives_the_same_losses(tmp_path, no_time, home):
    rows = rows_of(micrograd(tmp_path, home))
    assert list(rows) == [
        "scalar engine over micrograd (mine)",
        "scalar engine, a node each operation, over micrograd (mine)",
    ]
    row = runner.measure(list(rows.values())[1:])[0]
    assert row["what"].endswith(
        "micrograd (mine) step / tape engine, plain nodes, step"
    )
    assert row["note"].endswith("; folder mine") and row["ratio"] == 16  # 8 steps to 1


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("max(self.data, 0.0)", "self.data"), ("float(self.data > 0)", "1.0")],
)
def test_a_scalar_engine_with_other_losses_fails(tmp_path, no_time, right, wrong):
    folder = micrograd(tmp_path)
    engine = folder / "micrograd/engine.py"
    engine.write_text(engine.read_text().replace(right, wrong))
    row = runner.measure(list(rows_of(folder).values())[1:])[0]
    assert row["met"] is None and "both must give the same losses, not" in row["error"]


@pytest.mark.parametrize("nn", [True, False])
def test_a_needle_trains_to_the_same_accuracy(tmp_path, no_time, nn):
    folder = needle(tmp_path, nn)
    if not nn:  # a hw1
        text = "from needle.autograd import softmax_loss\n"
        write(folder, {"apps/simple_ml.py": text})
    rows = rows_of(folder)
    assert list(rows) == [
        "array engine over needle (hw)",
        "array engine, a node each operation, over needle (hw)",
        "needle (hw) over torch eager",
    ]
    row = runner.measure(list(rows.values())[:1])[0]
    assert row["note"].startswith("test accuracy 0.98") and row["ratio"] == 2


def test_a_hw1_without_a_loss_says_what_is_missing(tmp_path):
    name, text = why(needle(tmp_path, nn=False))
    assert name == "needle (hw)" and "has no needle.nn with needle.optim" in text


def test_a_needle_whose_backend_was_not_built_runs_on_numpy(tmp_path):
    start = (
        "import os\nif os.environ.get('NEEDLE_BACKEND', 'nd') == 'nd':\n"
        "    from . import ndarray_backend_cpu\nfrom .autograd import Tensor\n"
    )
    assert len(rows_of(needle(tmp_path, start=start))) == 3
    folder = needle(tmp_path / "b", start="from . import ndarray_backend_cpu\n")
    assert "compiled backend is not built" in why(folder)[1]


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("import no_such_package", "needs the module no_such_package"),
        ("1 / 0", "raises ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "raises SystemExit: 3"),
        ("raise NotImplementedError()", "an exercise of it is not filled in"),
        ("this is no Python", "raises SyntaxError"),
    ],
)
def test_a_peer_that_cannot_be_imported_says_why_and_where(tmp_path, start, words):
    name, text = why(micrograd(tmp_path, start=f"\n{start}\n"))
    assert name == "micrograd (mine)" and text.startswith("not run: ") and words in text
    assert "SyntaxError" in text or "(micrograd/__init__.py, line 2)" in text


def test_a_peer_that_lacks_something_names_it(tmp_path):
    text = "class Value:\n    def __init__(self, data):\n        self.data = data\n"
    folder = write(tmp_path / "mine", {"src/engine.py": text})
    expected = "not run: its Value has no grad and no relu and no backward"
    assert why(folder) == ("micrograd (mine)", expected)


def test_an_empty_folder_and_none_at_all(tmp_path):
    text = why(tmp_path)[1]
    assert "engine.py with a class Value" in text and "package needle" in text
    assert why(tmp_path / "nowhere") == (
        "peer (nowhere)", f"not run: there is no folder {tmp_path / 'nowhere'}"
    )  # fmt: skip


def test_a_folder_of_several_asks_for_one(tmp_path):
    for name in ("hw1", "hw2"):
        write(tmp_path / name, {"python/needle/__init__.py": ""})
    assert "hw1/python/needle, hw2/python/needle" in why(tmp_path)[1]


def test_a_second_folder_of_the_same_name_is_shown_with_its_path(tmp_path):
    first = rows_of(micrograd(tmp_path / "a"))
    second = rows_of(micrograd(tmp_path / "b"), taken=first)
    assert not set(first) & set(second)
    assert all(f"({tmp_path}/b/mine)" in name for name in second)


def test_a_folder_is_meant_from_where_the_shell_stands(tmp_path, monkeypatch):
    micrograd(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))  # start.py itself changes the folder
    assert len(rows_of("mine")) == 2


def test_the_version_is_the_commit(tmp_path):
    peer, git = Peer(tmp_path, tmp_path / "engine.py"), tmp_path / ".git"
    assert peer.version() == f"folder {tmp_path.name}"
    write(git, {"HEAD": "0123456789abcdef\n"})
    assert peer.version() == "commit 0123456789"
    write(
        git,
        {
            "HEAD": "ref: refs/heads/main\n",
            "packed-refs": f"{'c' * 40} refs/heads/main\n",
        },
    )
    assert peer.version() == "commit cccccccccc"
    write(git, {"refs/heads/main": "d" * 40})
    assert peer.version() == "commit dddddddddd"


def test_peers_join_the_table_and_are_never_missed(fake, tmp_path, capsys):
    folder = str(micrograd(tmp_path, start="1 / 0"))
    assert runner.main(["--peer", folder, "--strict", "quick", "peer"]) == 0
    out = capsys.readouterr().out
    assert "micrograd (mine)" in out and "ZeroDivisionError" in out
    assert "quick one" in out and "slow one" not in out
    assert (
        runner.main(["--peer", folder, "--peer", str(tmp_path / "none"), "peer"]) == 0
    )
    assert capsys.readouterr().out.splitlines()[-1].startswith("2 benchmarks in ")
    runner.main(["--list", "--peer", folder])
    assert len(capsys.readouterr().out.splitlines()) == len(FAKE) + 1


def test_what_a_peer_prints_does_not_reach_the_json(fake, tmp_path, capfd):
    runner.main(["last", "--json", "--peer", str(micrograd(tmp_path))])
    out, err = capfd.readouterr()
    assert json.loads(out)["rows"] and "the peer says hello" in err


def test_the_command_itself_runs_and_the_kept_page_has_every_benchmark_and_bar():
    "A new benchmark, or another bar: `python3 start.py bench --write`."
    command = [sys.executable, "-B", "-m", "utils.bench", "--list"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0 and "array engine  <= 0.6" in run.stdout
    kept = runner.RESULTS.read_text(encoding="utf-8").splitlines()
    rows = [line.split("|") for line in kept if line.startswith("| `")]
    told = [f"{row[1].strip(' `')}  {row[4].strip()}".rstrip() for row in rows]
    assert told == run.stdout.splitlines()
