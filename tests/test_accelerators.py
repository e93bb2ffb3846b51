"""The table of chips: complete, sourced, plausible, and read correctly."""

import csv
import re
from pathlib import Path

import pytest

import utils.data
from utils.data import accelerators

PEAKS = [
    "fp64_tflops",
    "fp32_tflops",
    "tf32_tflops",
    "fp16_tflops",
    "bf16_tflops",
    "fp8_tflops",
    "int8_tops",
]
NUMBERS = PEAKS + ["memory_gb", "bandwidth_gb_s", "watts", "price_usd"]
COLUMNS = ["name", "kind", "vendor", "year", *NUMBERS, "estimate", "source", "note"]
KINDS = {"CPU", "GPU", "TPU", "FPGA", "ASIC"}
WAFERS = {"Cerebras WSE-2", "Cerebras WSE-3"}
SRAM_ONLY = WAFERS | {
    "GroqChip 1",
    "Graphcore GC2 (Mk1 IPU)",
    "Graphcore GC200 (Mk2 IPU)",
}
SLOW_FP16 = {"GeForce GTX 1080", "GeForce GTX 1080 Ti"}
NOT_SLOWER = [
    ("fp64_tflops", "fp32_tflops"),
    ("fp32_tflops", "tf32_tflops"),
    ("fp32_tflops", "fp16_tflops"),
    ("fp32_tflops", "bf16_tflops"),
    ("tf32_tflops", "bf16_tflops"),
    ("fp16_tflops", "bf16_tflops"),
    ("bf16_tflops", "fp8_tflops"),
    ("fp16_tflops", "int8_tops"),
    ("bf16_tflops", "int8_tops"),
    ("fp32_tflops", "int8_tops"),
]
FORMULA = re.compile(
    r"(fp64|fp32|fp16|bf16|int8) = (\d+) cores? x ([\d.]+) GHz"
    r" x ([\d.]+) (?:FL)?OP/cycle"
)
ROWS = accelerators()
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])


def raw():
    "Header and cells of the file as text."
    path = Path(utils.data.__file__).with_name("accelerators.csv")
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def column(text):
    "fp32 -> fp32_tflops, int8 -> int8_tops."
    return "int8_tops" if text == "int8" else f"{text}_tflops"


def test_file_is_a_clean_table():
    header, *lines = raw()
    assert header == COLUMNS
    assert all(len(line) == len(COLUMNS) for line in lines)
    assert all(cell == cell.strip() for line in lines for cell in line)
    names = [line[0] for line in lines]
    assert names == [row["name"] for row in ROWS], "keep the file sorted"


def test_enough_rows_of_every_kind_over_the_years():
    assert len(ROWS) >= 40
    assert {row["kind"] for row in ROWS} == KINDS
    assert all(len(accelerators([kind])) >= 5 for kind in KINDS)
    assert ROWS[0]["year"] <= 1995 and ROWS[-1]["year"] >= 2024
    names = [row["name"] for row in ROWS]
    assert len(set(names)) == len(names)


@each_row
def test_row_is_sourced_and_has_a_peak(row):
    assert all(row[key] for key in ("name", "kind", "vendor", "year", "source"))
    assert len(row["source"]) >= 10
    assert any(row[peak] for peak in PEAKS)


@each_row
def test_types_and_signs(row):
    assert list(row) == COLUMNS
    assert type(row["year"]) is int and 1985 <= row["year"] <= 2030
    assert all(
        row[key] is None or (type(row[key]) is float and row[key] > 0)
        for key in NUMBERS
    )
    assert all(
        row[key] is None or type(row[key]) is str for key in ("estimate", "note")
    )


@each_row
def test_estimates_name_filled_columns_and_say_how(row):
    names = row["estimate"].split(";") if row["estimate"] else []
    assert set(names) <= set(NUMBERS) and len(set(names)) == len(names)
    assert all(row[name] is not None for name in names)
    assert not names or re.search(r" = |halved", row["note"]), (
        "the note gives the formula"
    )


@each_row
def test_formula_gives_the_figure(row):
    found = FORMULA.findall(row["note"] or "")
    assert found or "/cycle" not in (row["note"] or ""), (
        "write: fp32 = N cores x F GHz x K FLOP/cycle"
    )
    for name, cores, ghz, per_cycle in found:
        tera = int(cores) * float(ghz) * float(per_cycle) / 1000
        assert row[column(name)] == pytest.approx(tera, rel=0.01)
        assert column(name) in row["estimate"].split(";")


@each_row
def test_cpu_peaks_are_marked_or_quoted(row):
    if row["kind"] == "CPU" and row["fp32_tflops"]:
        assert "fp32_tflops" in row["estimate"].split(";")


@each_row
def test_figures_are_plausible(row):
    limit = {
        "fp64_tflops": 200,
        "fp32_tflops": 600,
        "tf32_tflops": 3000,
        "fp16_tflops": 6000,
        "bf16_tflops": 6000,
        "fp8_tflops": 20000,
        "int8_tops": 12000,
    }
    if row["name"] not in WAFERS:
        assert all((row[peak] or 0) <= top for peak, top in limit.items())
        assert (row["watts"] or 0) <= 2500
    assert 1 <= (row["watts"] or 1) <= 25000
    assert 0.1 <= (row["memory_gb"] or 1) <= 512
    assert 20 <= (row["price_usd"] or 20) <= 50000
    if row["bandwidth_gb_s"]:
        slow, fast = (
            (10_000, 30_000_000) if row["name"] in SRAM_ONLY else (0.05, 30_000)
        )
        assert slow <= row["bandwidth_gb_s"] <= fast


@each_row
def test_fewer_bits_are_not_slower(row):
    for wide, narrow in NOT_SLOWER:
        if narrow == "fp16_tflops" and row["name"] in SLOW_FP16:
            continue
        if row[wide] and row[narrow]:
            assert 0.9 * row[wide] <= row[narrow], f"{narrow} is below {wide}"


def test_the_known_exception_is_in_the_table():
    slow = {
        row["name"]: row["fp16_tflops"] / row["fp32_tflops"]
        for row in ROWS
        if row["name"] in SLOW_FP16
    }
    assert set(slow) == SLOW_FP16
    assert all(ratio == pytest.approx(1 / 64, rel=0.02) for ratio in slow.values())


def test_figures_that_everyone_can_look_up():
    chip = {row["name"]: row for row in ROWS}
    assert chip["TPU v1"]["int8_tops"] == 92 and chip["TPU v1"]["bandwidth_gb_s"] == 34
    assert chip["TPU v4"]["bf16_tflops"] == 275
    assert chip["A100 80GB SXM"]["bf16_tflops"] == 312
    assert chip["H100 SXM"]["bf16_tflops"] == pytest.approx(989.4)
    assert chip["GeForce GTX 580"]["fp32_tflops"] == pytest.approx(1.581)


def test_compute_grew_by_five_orders_of_magnitude():
    def best(last_year):
        return max(
            max(row["fp32_tflops"] or 0, row["fp16_tflops"] or 0)
            for row in ROWS
            if row["year"] <= last_year and row["name"] not in WAFERS
        )

    assert best(2024) / best(1995) >= 1e5


def test_rows_are_sorted_and_filtered():
    assert sorted(ROWS, key=lambda row: (row["year"], row["name"])) == ROWS
    assert {row["kind"] for row in accelerators(["GPU", "TPU"])} == {"GPU", "TPU"}
    assert accelerators("TPU") == accelerators(["TPU"])
    assert accelerators([]) == []


def test_callers_get_their_own_rows():
    accelerators()[0]["name"] = "changed"
    assert accelerators()[0]["name"] != "changed"


def test_unknown_kind_is_refused_and_the_known_ones_named():
    with pytest.raises(ValueError, match=r"NPU.*ASIC, CPU, FPGA, GPU, TPU"):
        accelerators(["GPU", "NPU"])
