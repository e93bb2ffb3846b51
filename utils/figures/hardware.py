"""The figures of chapter 11."""

import numpy as np
from matplotlib.ticker import FuncFormatter

from utils import data, plots
from utils.built import roofline

TERA, GIGA = 1e12, 1e9


limits = roofline.limits


def first_look(P, beta):
    "A matrix product and an addition on this processor, in GFLOP/s."
    add = beta / 12  # one FLOP for every 12 bytes
    fig, ax = plots.subplots(size=(6.6, 1.9))
    for place, (value, colour) in enumerate([(add, plots.RED), (P, plots.BLUE)]):
        ax.barh(place, value / GIGA, color=colour, height=0.6)
        ax.annotate(f"{value / GIGA:.3g}", (value / GIGA, place), xytext=(5, 0),
                    textcoords="offset points", va="center", color=colour)  # fmt: skip
    ax.set_yticks([0, 1], ["addition", "matrix product"])
    ax.set(xlabel="10⁹ operations per second", ylim=(-0.6, 1.6))
    ax.margins(x=0.1)
    plots.title(ax, f"One processor, two speeds: {P / add:.0f} to 1")
    return fig, (
        f"One thread of this processor does {P / GIGA:.3g} billion operations per second "
        f"in a matrix product and {add / GIGA:.2g} billion in an addition of arrays."
    )


def _roof(ax, P, beta, low=0.04, high=400):
    x = np.geomspace(low, high, 200)
    ax.plot(x, np.minimum(P, beta * x) / GIGA, color=plots.BLACK)
    ax.set(xscale="log", yscale="log", xlabel="intensity, FLOP per byte")
    ax.set_ylabel("GFLOP/s")


SIDE = {  # where a dot's name stands: offset in points, alignment
    "conv 3x3": ((8, -12), "left"), "attention": ((8, -26), "left"),
    "64 rows": ((0, -19), "center"), "sum": ((-7, 3), "right"), "add in place": ((-7, 4), "right"),
}  # fmt: skip


def roof(P, beta, dots):
    "{name: (intensity, FLOP/s, measured / predicted)} under this machine's roof."
    fig, ax = plots.subplots(size=(7.2, 4))
    _roof(ax, P, beta, low=0.01, high=1000)
    for name, (x, y, ratio) in dots.items():
        if not x:  # no operations: nowhere on this axis
            continue
        colour = plots.RED if ratio > 2 else plots.BLUE
        (dx, dy), side = SIDE.get(name, ((7, -10), "left"))
        ax.plot(x, y / GIGA, "o", color=colour, ms=7)
        ax.annotate(f"{name} {ratio:.1f}x", (x, y / GIGA), xytext=(dx, dy), ha=side,
                    textcoords="offset points", color=colour, fontsize=9)  # fmt: skip
    ridge = P / beta
    ax.annotate(f"ridge {ridge:.2g}", (ridge, P / GIGA), xytext=(0, 5), ha="center",
                textcoords="offset points", fontsize=9)  # fmt: skip
    ax.set_ylim(top=3 * P / GIGA)
    leaks = [name for name, dot in dots.items() if dot[0] and dot[2] > 2]
    seen = sum(dot[0] > 0 for dot in dots.values())
    told = f"{seen - len(leaks)} of {seen} operators within 2x of the roof"
    plots.title(ax, told + (f"; {', '.join(leaks)} beyond" if leaks else ""))
    listed = ", ".join(f"{name} {dot[2]:.2g}" for name, dot in dots.items())
    return fig, f"Operators under the roofline, measured over predicted time: {listed}."


def steps(sizes, seconds, strides, per_number):
    "Seconds per jump by size of the table, and per number by stride."
    fig, (left, right) = plots.subplots(1, 2, size=(8.6, 3.2))
    left.plot(sizes, 1e9 * np.array(seconds), "o-", color=plots.BLUE)
    left.set(xscale="log", xlabel="table, bytes", ylabel="ns per jump", ylim=(0, None))
    grown = seconds[-1] / min(seconds)
    plots.title(left, f"The largest table: {grown:.1f} times per jump")
    line = per_number[strides.index(64)] / per_number[0]
    right.plot(strides, 1e9 * np.array(per_number), "o-", color=plots.ORANGE)
    right.set(
        xscale="log", xlabel="stride, bytes", ylabel="ns per number", ylim=(0, None)
    )
    right.set_xticks(strides, [str(s) for s in strides])
    right.minorticks_off()
    right.axvline(64, color=plots.BLACK, lw=1, ls=":")
    plots.title(right, f"64 bytes apart: {line:.1f} times as long")
    return fig, (
        f"A jump in a table of {sizes[-1] / 2**20:.0f} MiB takes {grown:.1f} times as long "
        f"as in the quickest one; a number read with a stride of 64 bytes "
        f"takes {line:.1f} times as long as with 4."
    )


def ladder(rungs):
    "{name: (seconds to the first byte, bytes per second)}: memory, disk, wire."
    fig, ax = plots.subplots(size=(7.4, 4))
    for name, (latency, bandwidth) in rungs.items():
        colour = plots.BLUE if name.startswith("here") else plots.ORANGE
        ax.plot(latency * 1e6, bandwidth / GIGA, "o", color=colour)
        ax.annotate(name, (latency * 1e6, bandwidth / GIGA), color=colour,
                    xytext=(6, -11 if name.startswith("Infini") else 5),
                    textcoords="offset points", fontsize=9)  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="microseconds to the first byte",
           ylabel="GB per second")  # fmt: skip
    ax.margins(x=0.25, y=0.15)
    plots.title(ax, "Every rung: how long until something comes, how much then")
    listed = "; ".join(
        f"{name} {_two(1e6 * a)} us, {_two(b / GIGA)} GB/s"
        for name, (a, b) in rungs.items()
    )
    return fig, f"Latency and bandwidth of memory, file and wires: {listed}."


def _two(number):
    "Two digits, without a power of ten: 2358.0 -> '2,400'."
    return f"{float(f'{number:.2g}'):,g}"


def arithmetic_of(chip, bits):
    "(FLOP/s, format) of a row of accelerators.csv for numbers of `bits` bits."
    for columns, name in {
        32: [(("fp32_tflops",), "fp32")],
        16: [(("fp16_tflops", "bf16_tflops"), "16 bits"), (("fp32_tflops",), "fp32")],
        8: [(("int8_tops", "fp8_tflops"), "8 bits"),
            (("fp16_tflops", "bf16_tflops"), "16 bits"), (("fp32_tflops",), "fp32")],
    }[bits]:  # fmt: skip
        found = [chip[column] for column in columns if chip[column]]
        if found:
            return max(found) * TERA, name
    raise ValueError(f"{chip['name']} has no arithmetic of up to {bits} bits")


HERE = "this machine, one thread"
CHIPS = ["TPU v5e", "Apple M1 Max (32-core GPU)", "AMD EPYC 9654", "GeForce RTX 4090",
         "H100 SXM", "B200 SXM"]  # fmt: skip


def explorer(P, beta):
    "The lab: a layer's dot travels under the roof of a chip."
    known = {row["name"]: row for row in data.accelerators() if row["name"] in CHIPS}

    def draw(rows=16, width=1024, bits=16, chip="H100 SXM"):
        if chip == HERE:
            p, name, b = P, "fp32", beta
        else:
            p, name = arithmetic_of(known[chip], bits)
            b = known[chip]["bandwidth_gb_s"] * GIGA
        flop, byte = roofline.work_of("matmul", (rows, width, width), bits // 8)
        took, who = roofline.predicted(flop, byte, p, b)
        need = roofline.critical_batch(width, width, bits // 8, p, b)
        fig, ax = plots.subplots(size=(7.2, 3.8))
        _roof(ax, p, b, 0.1, 4000)
        colour = plots.BLUE if who == "compute" else plots.RED
        ax.plot(flop / byte, flop / took / GIGA, "o", color=colour, ms=10)
        ax.annotate(f"{1e6 * took:.3g} us, waits for {who}",
                    (flop / byte, flop / took / GIGA), xytext=(10, -16), color=colour,
                    textcoords="offset points")  # fmt: skip
        ax.set_ylim(0.05 * b / GIGA, 4 * p / GIGA)
        ax.set_xlim(0.1, 4e4)
        told = (
            f"compute-bound from {need} rows on"
            if need
            else "memory-bound at any batch"
        )
        plots.title(ax, f"{chip}, {name}, width {width}: {told}")
        return fig, (
            f"({rows}, {width})({width}, {width}) in {bits} bits on {chip}: "
            f"{flop / byte:.3g} FLOP per byte, {1e6 * took:.3g} microseconds, "
            f"waits for {who}; {told}."
        )

    draw.book = {"rows": [1, 16, 256, 4096], "width": [64, 1024, 4096], "bits": [16],
                 "chip": [HERE, "TPU v5e", "GeForce RTX 4090", "H100 SXM"]}  # fmt: skip
    return draw


def recorded_rows(points, P, beta, chip):
    "[(rows, predicted s, recorded s)] of one product on a recorded chip."
    rows, told, seen = (np.array(x) for x in zip(*points))
    fig, ax = plots.subplots(size=(6.8, 3.3))
    ax.plot(rows, 1e6 * told, color=plots.BLACK, lw=1.2)
    ax.plot(rows, 1e6 * seen, "o", color=plots.BLUE, ms=5)
    ax.annotate("roofline", (rows[-1], 1e6 * told[-1]), xytext=(6, -4),
                textcoords="offset points")  # fmt: skip
    ax.annotate("recorded", (rows[1], 1e6 * seen[1]), xytext=(0, 8), color=plots.BLUE,
                textcoords="offset points")  # fmt: skip
    ax.set(
        xscale="log", yscale="log", xlabel="rows of the batch", ylabel="microseconds"
    )
    ticks = [t for t in (20, 50, 100, 200, 500, 1000) if t < 1.2e6 * max(*told, *seen)]
    ax.set_yticks(ticks[1:], ticks[1:])
    ax.minorticks_off()
    few = rows <= 256
    grown = seen[few].max() / seen[few].min()
    plots.title(ax, f"1 row or 256: {grown:.2g} times the time; then it climbs")
    worst = np.maximum(seen / told, told / seen).max()
    return fig, (
        f"Recorded on {chip}: a product with an 8192 x 8192 matrix in bf16 takes "
        f"{1e6 * seen[0]:.0f} microseconds for 1 row and {1e6 * seen[few][-1]:.0f} for 256; "
        f"the roofline lies within {worst:.2g}x of every point."
    )


def fixed(scores, bits, floating):
    "{name: accuracies} by total bits, beside floating point."
    fig, ax = plots.subplots(size=(6.8, 3.2))
    plots.lines(
        ax, {n: 100 * np.array(s) for n, s in scores.items()}, x=bits, marker="o"
    )
    ax.axhline(100 * floating, color=plots.BLACK, lw=1, ls=":")
    ax.set(xlabel="bits in all, 4 of them before the point", ylabel="test accuracy, %")
    ax.set_xticks(bits)
    lost = 100 * (scores["saturate"][-1] - scores["wrap"][-1])
    plots.title(ax, f"Overflow that wraps costs {lost:.0f} points, at any fraction")
    parts = "; ".join(
        f"{n}: " + ", ".join(f"{100 * v:.1f}" for v in s) for n, s in scores.items()
    )
    return fig, (
        f"Digits in fixed point with {', '.join(map(str, bits))} bits, per cent right: "
        f"{parts}; floating point {100 * floating:.1f}."
    )


def routed(rows):
    "Cells and MHz of the recorded FPGA designs."
    bits = [row["bits"] for row in rows]
    fig, (left, right) = plots.subplots(1, 2, size=(8.2, 2.9))
    for ax, key, colour in ((left, "cells", plots.BLUE), (right, "mhz", plots.ORANGE)):
        values = [row[key] for row in rows]
        ax.plot(bits, values, "o-", color=colour)
        for x, y in zip(bits, values):
            ax.annotate(f"{y:,.0f}", (x, y), xytext=(0, 7), ha="center", color=colour,
                        textcoords="offset points")  # fmt: skip
        ax.set_xscale("log", base=2)
        ax.set_xticks(bits, [str(b) for b in bits])
        ax.set(xlabel="bits per number")
        ax.margins(x=0.15, y=0.25)
    left.set(yscale="log", ylabel="logic cells")
    left.set_yticks([300, 1000, 3000])
    left.minorticks_off()
    left.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    right.set(ylabel="MHz", ylim=(0, None))
    grown = rows[-1]["cells"] / rows[0]["cells"]
    plots.title(
        left, f"{bits[-1] // bits[0]} times the bits, {grown:.0f} times the cells"
    )
    plots.title(right, "and a slower clock")
    listed = "; ".join(
        f"{r['bits']} bits: {r['cells']:,} cells, {r['mhz']:.0f} MHz" for r in rows
    )
    return (
        fig,
        f"A dot product of four numbers, placed and routed for an FPGA: {listed}.",
    )


def front(rows, best, x, y):
    "Chips by two figures; those on the front are named."
    fig, ax = plots.subplots(size=(7.4, 4))
    names = {row["name"] for row in best}
    for row in rows:
        on = row["name"] in names
        ax.plot(
            row[x],
            row[y],
            "o",
            color=plots.BLUE if on else "#bbbbbb",
            ms=7 if on else 5,
        )
    line = sorted(best, key=lambda row: row[x])
    ax.plot(
        [r[x] for r in line], [r[y] for r in line], color=plots.BLUE, lw=1, alpha=0.5
    )
    for place, row in enumerate(line):
        if place % 2 == 0 or place == len(line) - 1:
            ax.annotate(row["name"], (row[x], row[y]), xytext=(-6, 5), ha="right",
                        textcoords="offset points", fontsize=8, color=plots.BLUE)  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="watts", ylabel="TFLOP/s in 16 bits")
    ax.margins(x=0.25)
    plots.title(ax, f"{len(best)} of {len(rows)} chips are beaten by no other")
    return fig, (
        f"16-bit rate against watts of {len(rows)} chips; on the front lie "
        + ", ".join(row["name"] for row in line)
        + "."
    )
