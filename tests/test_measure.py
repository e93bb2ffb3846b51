"""utils/bench/measure.py, its CUDA paths through a fake; what gpu, precision, profiling promise."""

import json
import multiprocessing
import threading
from itertools import pairwise

import pytest
import torch

from utils.bench import measure, recordings
from utils.bench.kinds import chip, operators
from utils.bench.kinds.device import Device
from utils.built import gpu, precision, profiling

SMALL = {"matmul": (8, 16), "copy": 512, "timer": 16}


class FakeCuda(Device):
    "A CPU that answers every question that is asked of a CUDA device."

    def __init__(self):
        super().__init__("cpu")
        self.kind, self.waits, self.pinned, self.resets = "cuda", 0, 0, 0
        self.wait = self._wait

    def _wait(self):
        self.waits += 1

    def pin(self, tensor):
        self.pinned += 1
        return tensor.clone()

    def allocated(self):
        return 1000

    def peak(self):
        return 5000

    def reset_peak(self):
        self.resets += 1

    def samples(self, run, repeats=7):
        return gpu.samples(run, self.wait, repeats=repeats)

    def accelerator(self):
        return {"name": "Fake 9000 (PCIe)", "driver": "1.2"}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(chip, "SIZES", dict.fromkeys(chip.SIZES, SMALL))
    network = {kind: ([8, 16, 16, 4], 32) for kind in chip.NETWORKS}
    monkeypatch.setattr(chip, "NETWORKS", network)
    for name, few in {
        "STREAMS": [2**14], "SHAPES": (32, 64, 32), "CONV": (2, 4, 6)
    }.items():  # fmt: skip
        monkeypatch.setattr(operators, name, dict.fromkeys(operators.SHAPES, few))


def test_cuda_paths(small):
    dev = FakeCuda()
    before = torch.get_float32_matmul_precision()
    data = measure.record(dev, quick=True, only=set(recordings.FIRST) - {"loader"})
    assert torch.get_float32_matmul_precision() == before
    assert {r["format"] for r in recordings.find(data, "matmul")} - {"fp8"} == {
        "fp64", "fp32", "tf32", "bf16", "fp16",
    }  # fmt: skip
    assert not recordings.find(data, "copy", format="tf32"), "tf32 is stored as fp32"
    ways = {(r["way"], r["pinned"]) for r in recordings.find(data, "transfer")}
    assert len(ways) == 6 and dev.pinned == 4
    assert {r["format"] for r in recordings.find(data, "step")} == {
        "fp32", "tf32", "bf16", "fp16",
    }  # fmt: skip
    assert recordings.find(data, "memory", part="peak of a step")[0]["measured"] == 5000
    assert dev.resets == 1 and dev.waits > 100
    assert data["machine"]["accelerator"]["name"] == "Fake 9000 (PCIe)"
    assert recordings.name_of(data) == "fake-9000-pcie"
    assert "Fake 9000" in recordings.describe(data)


def test_cpu_record(small):
    data = measure.record(Device("cpu"), quick=True)
    assert set(recordings.absent(data)) == {"kernel"}, "Triton wants a GPU"
    assert set(data["took"]) == set(measure.ALL)
    for row in data["rows"]:
        if row["what"] != "memory":
            assert len(row["seconds"]) >= 3 and min(row["seconds"]) > 0
            assert recordings.rate(row) > 0
    for row in recordings.find(data, "memory"):
        assert abs(row["measured"] / row["predicted"] - 1) < 0.1, row
    steps = recordings.find(data, "step")
    first = [row["loss"][0] for row in steps]
    assert max(first) / min(first) < 1.01, (
        "the same weights and rows in every precision"
    )
    assert not multiprocessing.active_children()


def test_nothing_private_is_recorded(small):
    text = recordings.text_of(
        measure.record(Device("cpu"), only=["launch"], quick=True)
    )
    import getpass
    import platform

    for private in (platform.node(), str(measure.ROOT), f"/{getpass.getuser()}/"):
        assert not private or private not in text


def test_file_and_back(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(recordings, "FOLDER", measure.ROOT / "utils" / "data")
    assert (
        measure.main(["--print", "--quick", "--only", "launch", "--device", "cpu"]) == 0
    )
    printed = json.loads(capsys.readouterr().out)
    assert printed["command"].endswith(
        "measure --print --quick --only launch --device cpu"
    )
    (tmp_path / "b.json").write_text(recordings.text_of(printed))
    cuda = {**printed, "machine": {**printed["machine"], "device": "cuda"}}
    (tmp_path / "z.json").write_text(recordings.text_of(cuda))
    found = recordings.recordings(tmp_path)
    assert list(found) == ["z", "b"], "accelerators first"
    assert found["b"] == printed
    assert recordings.missing(found) == ""
    assert "python3 start.py" in recordings.missing({})


@pytest.mark.parametrize("arguments", [["Bad Name"], ["../x"], ["--device", "tpu9"]])
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit):
        measure.main(arguments)
    assert capsys.readouterr().err


def test_every_kind_of_row_has_its_measurement():
    assert tuple(measure.ALL) == recordings.KINDS


def test_unknown_kind():
    with pytest.raises(ValueError, match="unknown: speed"):
        measure.record(Device("cpu"), only=["speed"])


# ---- utils/built/gpu.py ----


def test_stand_in_is_a_queue():
    chip, gate, done = gpu.StandIn(), threading.Event(), []
    chip.launch(gate.wait)
    chip.launch(lambda: done.append(1))
    assert done == [], "launch returns before the work is done"
    gate.set()
    chip.wait()
    assert done == [1]
    chip.close()
    with pytest.raises(RuntimeError, match="closed"):
        chip.wait()


def test_stand_in_tells_errors():
    chip = gpu.StandIn()
    chip.launch(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        chip.wait()
    chip.wait()  # told once
    chip.close()


def test_workers_do_not_outlive_the_call():
    _, batches = gpu.drain(gpu.SlowDisk(32, pause=0.0), 8, workers=2, epochs=2)
    assert batches == 4 and not multiprocessing.active_children()


def test_workers_end_when_a_step_raises():
    with pytest.raises(ZeroDivisionError):
        gpu.drain(gpu.SlowDisk(32, 0.0), 8, workers=2, step=lambda batch: 1 / 0)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("parts", [(6, 2, 3), (1, 4, 2), (5, 0, 5), (9, 1, 1)])
def test_formula_meets_the_played_pipeline(parts, workers, overlap):
    ends = [
        s.end
        for s in gpu.timeline(*parts, workers, overlap, batches=121)
        if s.lane == "chip"
    ]
    pace = (ends[-1] - ends[60]) / 60
    assert pace == pytest.approx(gpu.step_seconds(*parts, workers, overlap), rel=0.02)


def test_lanes_never_do_two_things_at_once():
    spans = gpu.timeline(3, 2, 4, 3, True, batches=40)
    for lane in {s.lane for s in spans}:
        mine = sorted((s.start, s.end) for s in spans if s.lane == lane)
        assert all(a[1] <= b[0] for a, b in pairwise(mine)), lane


@pytest.mark.parametrize("name", precision.FORMATS)
@pytest.mark.parametrize("number", [0.0, 1.0, -3.1, 1e-5, 200.0, 2e-3])
def test_bits_say_the_number(name, number):
    E, M = precision.FORMATS[name]
    bits, kept = precision.bits_of(number, name)
    assert [len(field) for field in bits.split()] == [1, E, M]
    assert precision.value_of(int(bits.replace(" ", ""), 2), E, M) == kept


def test_bits_of_too_large_a_number():
    assert precision.bits_of(1e9, "fp16")[1] == float("inf")


def test_work_in_inference_mode_counts_alike():
    x, layer = torch.ones(4, 3), torch.nn.Linear(3, 2)

    def run():
        return layer(x.to("cpu", copy=True)).sum().item()

    counts = []
    for mode in (torch.no_grad, torch.inference_mode):
        with mode(), profiling.Work() as work:
            run()
        counts.append(work.counts())
    for name in ("copies", "bytes", "syncs", "kept"):
        assert counts[0][name] == counts[1][name], name
    assert counts[1]["syncs"] == 1 and counts[1]["copies"] == 1


@pytest.mark.parametrize(
    "fetch",
    [
        torch.Tensor.tolist,
        torch.Tensor.numpy,
        torch.Tensor.cpu,
        torch.Tensor.item,
        float,
    ],
)
def test_every_common_way_to_wait_counts(fetch):
    x = torch.ones(1)
    with profiling.Work() as work:
        fetch(x)
    assert (work.syncs, work.copies) == (1, 0)


def test_trace_is_quiet(capfd):
    def run():
        with torch.profiler.record_function("mine"):
            torch.ones(3).add(1)

    spans = profiling.trace(run, "mine")
    assert len(spans) == 1 and spans[0][0] < spans[0][1]
    assert capfd.readouterr().err == ""
