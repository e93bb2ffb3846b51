"""Kinds, budgets and partial recordings of `start.py measure`; the ladder's own words."""

import json
import math
import subprocess
import time
from pathlib import Path

import pytest
import torch

from utils.bench import apart, findings, machine, measure, recordings
from utils.bench.kinds import ALL, GROUPS, attention, kernel, operators, race, rung
from utils.bench.kinds.device import Device, left_out, queued
from utils.built import gpt


@pytest.fixture
def dev():
    return Device("cpu")


def test_groups_have_every_kind_once():
    assert [name for group, _ in GROUPS for name in group] == list(ALL)


def test_rows_of_operators_count_and_rate(dev, monkeypatch):
    for name, few in {"SHAPES": (64, 32, 64), "CONV": (2, 8, 8)}.items():
        monkeypatch.setattr(operators, name, {"cpu": few})
    rows = list(operators.operator(dev, quick=True))
    done = {row["operator"]: row for row in rows if "why" not in row}
    assert {"add", "softmax", "matvec", "conv", "gelu chain, eager"} <= set(done)
    add, product = done["add"], done["product of 4 rows"]
    assert add["byte"] == 12 * 16 * 8 and add["flop"] == 16 * 8
    assert product["shape"] == [4, 16, 16] and product["flop"] == 2 * 4 * 16 * 16
    assert all(t > 0 for row in done.values() for t in row["seconds"])
    assert {row["operator"] for row in rows if "why" in row} == {"gelu chain, compiled"}


def test_gelu_by_parts_is_gelu():
    x = torch.linspace(-4, 4, 33)
    want = torch.nn.functional.gelu(x, approximate="tanh")
    assert torch.allclose(operators.gelu_by_parts(x), want, atol=1e-6)


def test_pieces_of_a_stream_are_short_and_all_of_it(dev, monkeypatch):
    monkeypatch.setattr(operators, "STREAMS", {"cpu": [2**20]})
    for row in operators.stream(dev):
        assert row["bytes_of_a_piece"] == 2**18 and len(row["seconds"]) == 40
        assert row["work"] % row["bytes_of_a_piece"] == 0


def test_attention_backends(dev):
    rows = list(attention.attention(dev, quick=True))
    assert {(r["backend"], r["way"]) for r in rows} == {
        (b, w) for b in ("math", "flash") for w in ("forward", "backward")
    }
    full = next(r for r in rows if not r["causal"] and r["way"] == "forward")
    B, H, T, D = (full[k] for k in "BHTD")
    assert full["work"] == 4 * B * H * T * T * D


def test_a_backend_that_is_not_there_is_told(dev):
    told = list(attention._passes(dev, "cuDNN", 1, 1, 8, 8, torch.float32, True))
    assert [set(row) & {"why", "seconds"} for row in told] == [{"why"}]


def test_rungs_on_a_cpu(dev):
    rows = [row for row in rung.rung(dev, quick=True) if row]
    done = [row for row in rows if "why" not in row]
    assert [row["rung"] for row in done] == [
        "eager, fp32", "tf32", "bf16 autocast", "fused AdamW", "larger batch",
        "checkpointing",
    ]  # fmt: skip
    for row in done:
        assert row["work"] == row["batch"] * row["T"] and recordings.rate(row) > 0
        assert row["loss"][-1] < row["loss"][0]
    assert done[-1]["loss"] == pytest.approx(done[-2]["loss"], rel=1e-3)


def test_the_ladder_trains_the_model_of_chapter_09():
    torch.manual_seed(0)
    model = gpt.GPT(50, 16, 2, 2, 16, **gpt.GPT2)
    ids, y = torch.randint(50, (2, 3, 16))
    want = torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), y.flatten())
    for way in (None, rung.EVERY_BLOCK):
        assert rung.loss_of(model, ids, y, way).item() == pytest.approx(want.item())


def test_flop_of_a_step_is_what_pytorch_counts():
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model = gpt.GPT(50, 16, 2, 2, 16, **gpt.GPT2)
    ids = torch.randint(50, (3, 16))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        rung.loss_of(model, ids, ids).backward()
    assert counter.get_total_flops() == rung.flop_of_step(50, 16, 2, 16, 3)


def test_kernels_say_what_they_lack(dev, monkeypatch):
    monkeypatch.setattr(kernel, "find_spec", lambda name: None)
    (row,) = kernel.kernel(dev)
    assert "Triton" in row["why"]
    monkeypatch.setattr(kernel, "find_spec", lambda name: True)
    assert "CUDA" in kernel._missing(dev)


def test_a_wrong_kernel_is_told_and_not_timed(dev):
    def fn_of(amount):
        class Kernel:
            def __getitem__(self, grid):
                return self.go

            def go(self, x, out):
                out.copy_(amount * x)

        return Kernel()

    x, out = torch.randn(50), torch.empty(50)
    launch = lambda amount: [(fn_of(amount), (1,), (x, out), {})]  # noqa: E731
    broken = [(None, (1,), (), {})]
    candidates = [("right", {}, launch(2)), ("wrong", {}, launch(2.1)), ("none", {}, broken)]  # fmt: skip
    theirs = {"library": lambda: 2 * x, "absent": lambda: torch.ones(2) @ torch.ones(3)}
    rows, bad = race.race(dev, candidates, theirs, [out], [2 * x], {"kernel": "k"}, 1, "byte")  # fmt: skip
    assert [row["by"] for row in rows] == ["right", "library"]
    assert rows[0]["relative_error"] == 0 and len(rows[0]["seconds"]) == 7
    assert [row["by"] for row in bad] == ["wrong", "none"]
    assert bad[0]["why"] == "wrong: relative error 0.05"
    assert race.best(rows, ["right"]) is rows[0] and race.best(rows, ["x"]) is None


def _fake(rows, fail=None):
    def kind(dev, quick):
        yield from rows
        if fail:
            raise fail

    return kind


@pytest.fixture
def fakes(monkeypatch):
    "Kinds that need no time: two rows, a row that is left out, an error, one more."
    one = {"what": "launch", "work": 1, "unit": "launch", "seconds": [1.0]}
    made = {
        "matmul": _fake([one, one]), "copy": _fake([left_out("copy", "no fp8")]),
        "timer": _fake([one], RuntimeError("it broke\nhere")), "rung": _fake([one]),
    }  # fmt: skip
    for name in list(ALL):
        monkeypatch.delitem(ALL, name)
    ALL.update(made)
    yield made
    ALL.clear()


def test_a_partial_recording_says_what_is_missing(fakes, dev, tmp_path):
    kept = []
    data = measure.record(dev, keep=lambda d: kept.append(len(d["rows"])))
    assert kept == [2, 2, 3, 4] and len(data["rows"]) == 4
    assert [(row["what"], row["why"]) for row in data["left_out"]] == [
        ("copy", "no fp8"), ("timer", "RuntimeError: it broke"),
    ]  # fmt: skip
    (tmp_path / "a.json").write_text(recordings.text_of({**data, "command": "x"}))
    (found,) = recordings.recordings(tmp_path).values()
    assert found == {**data, "command": "x"}
    absent = recordings.absent(found)
    assert absent["copy"] == "no fp8" and absent["step"] == "not asked for"
    assert "launch" not in absent
    assert "left out: copy, 1 times: no fp8" in findings.lines(data)


def test_without_a_file_an_error_is_raised(fakes, dev):
    with pytest.raises(RuntimeError, match="it broke"):
        measure.record(dev)


def test_a_budget_that_runs_out(fakes, dev):
    def slow(dev, quick):
        assert 0 < dev.left() < 2
        time.sleep(dev.left() + 0.01)
        yield {"what": "launch", "seconds": [1.0]}

    ALL["matmul"] = slow
    data = measure.record(dev, minutes=2 / 60, keep=lambda d: None)
    assert len(data["rows"]) == 1
    assert [row["why"] for row in data["left_out"]] == ["no time was left"] * 3
    assert Device("cpu").left() == math.inf


def test_rungs_stop_when_time_is_up(dev):
    dev.deadline = time.monotonic()
    assert all(
        "no time" in r["why"] or "compile" in r["why"] for r in rung.rung(dev) if r
    )


def test_every_group_in_its_own_process(fakes, tmp_path, monkeypatch, capsys):
    "One writes its rows, one hangs after some, one dies: what they wrote is kept."
    one = {"what": "launch", "seconds": [1.0]}
    wrote = {"matmul": [one], "timer": [one, one], "rung": []}
    fate = {"matmul": "", "timer": "ended after 3 s", "rung": "its process ended with code 1"}  # fmt: skip

    def process(command, seconds, tell):
        name = command[command.index("--only") + 1]
        assert "--quick" in command and 0 < seconds <= 60
        if wrote[name]:
            data = measure.record(Device("cpu"), only=["copy"], keep=lambda d: None)
            data |= {"rows": wrote[name], "took": {"matmul": 1.0}, "left_out": []}
            file = Path(command[command.index("--out") + 1])
            file.write_text(recordings.text_of(data))
        return fate[name]

    monkeypatch.setattr(apart, "_process", process)
    monkeypatch.setattr(
        apart, "GROUPS", ((("matmul",), 0.5), (("timer",), 0.5), (("rung",), 1.0))
    )
    path = tmp_path / "there" / "all.json"
    arguments = ["--apart", "--quick", "--minutes", "1", "--device", "cpu"]
    assert measure.main([*arguments, "--out", str(path), "--commit", "abc"]) == 0
    data = json.loads(path.read_text())
    assert len(data["rows"]) == 3 and list(path.parent.iterdir()) == [path]
    assert {(r["what"], r["why"]) for r in data["left_out"]} == {
        ("timer", "ended after 3 s"), ("rung", "its process ended with code 1"),
    }  # fmt: skip
    assert data["command"].startswith("python3 start.py measure --apart")
    assert "timer: ended after 3 s" in capsys.readouterr().err


def test_a_process_that_hangs_is_ended(monkeypatch):
    import sys

    monkeypatch.setattr(apart, "GRACE", 0.2)
    hang = [sys.executable, "-c", "import time; time.sleep(60)"]
    start = time.monotonic()
    assert apart._process(hang, 0.1, print) == "ended after 0 s"
    assert time.monotonic() - start < 20
    assert apart._process(
        [sys.executable, "-c", "raise SystemExit(3)"], None, print
    ) == ("its process ended with code 3")


def test_clocks(monkeypatch):
    def says(text, code=0):
        said = subprocess.CompletedProcess([], code, text)
        monkeypatch.setattr(machine.subprocess, "run", lambda *a, **k: said)
        return machine.clocks()

    assert says("1980, 3201, 120.5, [N/A], 40\n") == {
        "sm_mhz": 1980, "memory_mhz": 3201, "watts": 120.5, "watts_at_most": None,
        "celsius": 40,
    }  # fmt: skip
    assert says("No devices were found", 6) is None and says("") is None


@pytest.mark.parametrize(
    "arguments",
    [["--only", "speed"], ["--minutes", "0"], ["--minutes", "nan"], ["--apart"]],
)
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit):
        measure.main(arguments)
    assert capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_samples_by_the_devices_clock():
    x = torch.randn(2048, 2048, device="cuda")
    taken = queued(lambda: x @ x, 5)
    assert len(taken) == 5 and all(1e-6 < t < 1e-2 for t in taken)
