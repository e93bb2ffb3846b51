"""The figures of chapter 15."""

import statistics

import numpy as np
import torch

from utils import plots
from utils.bench import recordings
from utils.built import kernels, warps
from utils.data import accelerators


def _mib(count):
    return f"{count / 2**20:.1f} MiB"


# ---- the first look ----


def first_look(n=256):
    "Two copies of one matrix: the sectors of a warp, and the bytes of the whole run."
    x, seen = torch.randn(n, n), {}
    for name, kernel in (("row", kernels.copy_rows), ("column", kernels.copy_columns)):
        out = torch.zeros(n, n)
        seen[name] = kernel[(n,)](x, out, n, n, BLOCK=n)
        assert torch.equal(out, x), "both copy the matrix"
    fig, axes = plots.subplots(1, 3, size=(9, 3.4), width_ratios=[1, 1, 1.1])
    for ax, name in zip(axes, seen):
        grid = np.zeros((32, 16))  # a sector a cell: the matrix's first 128 columns
        if name == "row":
            grid[0, :4] = 1
        else:
            grid[:, 0] = 1
        _cells(ax, grid)
        many = int(grid.sum())
        plots.title(ax, f"A {name} each: {many} sectors")
        ax.set_xlabel("sectors of 8 numbers")
        ax.set_ylabel("rows of the matrix" if name == "row" else "")
    ax, moved = axes[2], [counted.moved for counted in seen.values()]
    asked = seen["row"].asked
    ax.bar([0, 1.6], moved, width=0.6, color=[plots.BLUE, plots.RED])
    ax.axhline(asked, color=plots.BLACK, lw=1, ls="--")
    ax.annotate(
        "wanted", (0.8, asked), xytext=(0, 4), textcoords="offset points", ha="center"
    )
    for place, count in zip((0, 1.6), moved):
        ax.annotate(_mib(count), (place, count), xytext=(0, 3), ha="center",
                    textcoords="offset points")  # fmt: skip
    ax.set_xticks([0, 1.6], ["a row each", "a column each"])
    ax.set(ylim=(0, 1.18 * max(moved)), yticks=[], xlim=(-0.5, 2.1))
    ax.grid(visible=False)
    plots.title(ax, f"{moved[1] / moved[0]:.0f} times the bytes")
    return fig, (
        f"The same copy of {n} by {n} numbers by two kernels: 32 threads along a row touch 4 "
        f"sectors, down a column 32, so {_mib(moved[0])} travel or {_mib(moved[1])}."
    )


def _cells(ax, grid):
    "A grid of sectors: white where nothing travels, darker the more of it is wanted."
    ax.pcolormesh(
        np.ma.masked_equal(grid, 0),
        cmap="YlOrBr",
        vmin=-0.4,
        vmax=1.1,
        edgecolors="none",
    )
    ax.set(xlim=(0, grid.shape[1]), ylim=(grid.shape[0], 0))
    ax.set_xticks(range(0, grid.shape[1] + 1, 4))
    ax.set_xticks(range(grid.shape[1] + 1), minor=True)
    ax.set_yticks(range(0, grid.shape[0] + 1, 8))
    ax.grid(which="both", color="#e3e3e3", lw=0.6)


# ---- a lab: thirty-two lanes ----


def lanes(stride=2, size=4, first=0):
    "Where 32 lanes reach: the sectors of memory, and the banks of shared memory."
    places = [first + stride * lane for lane in range(warps.WARP_LANES)]
    grid = np.zeros(8 * 36)
    for byte in {p * size + b for p in places for b in range(size)}:
        grid[byte // 32] += 1 / 32
    many, wanted = warps.sectors(places, size), len(set(places)) * size
    extra = warps.bank_conflicts(places)
    fig, (top, low) = plots.subplots(2, 1, size=(8.6, 4.6), height_ratios=[1.5, 1])
    _cells(top, grid.reshape(8, 36))
    top.set_yticks(range(9))
    top.tick_params(axis="y", length=0, labelleft=False)
    top.set_xlabel(
        "memory, a sector of 32 bytes a cell, row after row; the darker, the more is wanted"
    )
    plural = "s" if many > 1 else ""
    plots.title(
        top,
        f"{many} sector{plural} for {wanted} bytes: {100 * wanted / (32 * many):.0f} % wanted",
    )
    words = [len({p for p in places if p % 32 == bank}) for bank in range(32)]
    colours = [plots.RED if w == max(words) > 1 else plots.BLUE for w in words]
    low.bar(range(32), words, width=0.8, color=colours)
    low.set(
        xlim=(-0.6, 31.6), xlabel="banks of shared memory, if each element is a word"
    )
    low.set_ylabel("words")
    low.set_ylim(0, max(4, 1.1 * max(words)))
    low.yaxis.get_major_locator().set_params(integer=True)
    low.grid(axis="x", visible=False)
    passes = "1 extra pass" if extra == 1 else f"{extra} extra passes"
    plots.title(low, f"In shared memory: {passes}")
    return fig, (
        f"32 lanes, {stride} element{'s' * (stride != 1)} of {size} byte{'s' * (size != 1)} "
        f"apart from element {first} on: {many} "
        f"sectors travel, {100 * wanted / (32 * many):.0f} % of their bytes are wanted; the "
        f"same pattern in shared memory takes {passes}."
    )


# the steps of its controls that the book shows (utils/course/book/frames.py)
lanes.book = {
    "stride": [0, 1, 2, 3, 8, 16, 32, 33],
    "size": [1, 4, 8],
    "first": [0, 3],
}

# ---- tiles ----


def tile_bytes(rows):
    "Bytes moved by a product against the tile: counted dots on the formula's line."
    fig, ax = plots.subplots(size=(6.6, 3.4))
    names = [f"{BM} x {BN}" for (BM, BN), _, _ in rows]
    formula = [f / 2**20 for _, f, _ in rows]
    counted = [c / 2**20 for _, _, c in rows]
    ax.plot(formula, color=plots.BLACK, lw=1, zorder=1)
    ax.plot(counted, "o", ms=9, color=plots.BLUE, zorder=2)
    for place, value in enumerate(counted):
        ax.annotate(
            f"{value:.2f}", (place, value), xytext=(8, 5), textcoords="offset points"
        )
    ax.annotate(
        "formula", (0.4, (formula[0] + formula[1]) / 2 + 0.3), color=plots.BLACK
    )
    ax.set_xticks(range(len(names)), names)
    ax.set(ylim=(0, 1.15 * max(formula)), xlabel="tile of C", ylabel="MiB moved")
    ax.set_xlim(-0.3, len(names) - 0.5)
    plots.title(ax, "Twice the side of a tile, half of the reading")
    return fig, (
        f"MiB moved by one product with {len(names)} sizes of tiles: from {counted[0]:.2f} "
        f"with tiles {names[0]} to {counted[-1]:.2f} with {names[-1]}, each on the formula."
    )


def order(group=1, side=64, steps=128, at_once=132):
    "A lab: C's tiles in the order of their programs, and what comes from memory."
    places = [warps.grouped(p, side, side, group) for p in range(side * side)]
    piece = 128 * 64 * 2
    _, missed = warps.from_memory(places, steps, piece, piece, 25e6, at_once)
    chip = _h100()
    waiting = missed / chip["bandwidth_gb_s"] / 1e3
    work = 2 * (128 * side) ** 3 / chip["bf16_tflops"] / 1e6
    number = np.zeros((side, side))
    for program, (row, column) in enumerate(places):
        number[row, column] = program // at_once
    fig, (left, right) = plots.subplots(1, 2, size=(8.6, 3.5), width_ratios=[1, 1.15])
    shade = np.where(number < 1, 2.0, np.where(number < 2, 1.2, number % 2 * 0.3))
    left.imshow(shade, cmap="Blues", vmin=-0.4, vmax=2.2, interpolation="nearest")
    left.set(xlabel="columns of tiles", ylabel="rows of tiles")
    left.grid(visible=False)
    first = places[:at_once]
    pieces = len({r for r, _ in first}) + len({c for _, c in first})
    plots.title(left, f"The first {at_once}: {pieces} rows and columns")
    bars = {"from memory": (waiting, plots.RED), "arithmetic": (work, plots.BLUE)}
    for place, (value, colour) in enumerate(bars.values()):
        right.barh(place, value, height=0.6, color=colour)
        right.annotate(f"{value:,.0f} µs", (value, place), xytext=(4, 0), va="center",
                       textcoords="offset points", color=colour)  # fmt: skip
    right.set_yticks([0, 1], list(bars))
    right.set(xlim=(0, 1700), ylim=(1.7, -0.7), xlabel="µs at an H100's peak rates")
    right.grid(axis="y", visible=False)
    plots.title(right, f"{missed / 1e9:.1f} GB from memory")
    return fig, (
        f"A product of {128 * side} by {128 * side}, groups of {group} row{'s' * (group != 1)} of tiles (dark: "
        f"the first {at_once} programs): {missed / 1e9:.1f} GB come from memory, "
        f"{waiting:,.0f} µs beside {work:,.0f} µs of arithmetic."
    )


order.book = {"group": [1, 2, 4, 8, 16, 32, 64]}

# ---- recorded ----


def _h100():
    return next(c for c in accelerators("GPU") if c["name"] == "H100 SXM")


def cards(found=None):
    "{name: recording} of the CUDA machines that were recorded."
    found = recordings.recordings() if found is None else found
    return {k: r for k, r in found.items() if r["machine"]["device"] == "cuda"}


def chip_of(recording):
    "A recorded card's row in accelerators.csv."
    name = recording["machine"]["accelerator"]["name"]
    short = next(
        word for word in name.split() if word[0] == "H" and word[1:4].isdigit()
    )
    return next(c for c in accelerators("GPU") if c["name"] == f"{short} SXM")


def taken(row):
    "Seconds of a recorded row: the median of its samples."
    return statistics.median(row["seconds"])


def best(recording, who, **labels):
    "The fastest row of a kernel by somebody; `who` may be several names."
    who = (who,) if isinstance(who, str) else who
    rows = recordings.find(recording, "kernel", **labels)
    return min((r for r in rows if r["by"] in who), key=taken)


OURS = ("ours", "by_pointers", "by_descriptors", "staying")


def sweep(recording):
    "Time of one product against occupancy, a point a tile and number of warps."
    fig, ax = plots.subplots(size=(8, 4))
    points = []
    for row in recordings.find(recording, "kernel", kernel="sweep"):
        c = row["config"]
        share = warps.occupancy(c["num_warps"], row["registers"], row["shared_bytes"])
        points.append((1e3 * taken(row), share, row["local_bytes"],
                       f"{c['BM']} x {c['BN']}, {c['num_warps']} warps"))  # fmt: skip
    points.sort()
    written = {}  # how far down the labels of an occupancy have come
    for ms, share, spilled, text in points:
        colour = plots.RED if spilled else plots.BLUE
        ax.plot(share, ms, "o", ms=8, color=colour)
        text += f": {spilled} bytes spilled" if spilled else ""
        at = max(ms, 1.13 * written.get(share, 0))
        written[share] = at
        left = share < 0.2 and not spilled
        ax.annotate(text, (share, at), xytext=(-9 if left else 9, 0), va="center",
                    textcoords="offset points", fontsize=8.5, color=colour,
                    ha="right" if left else "left")  # fmt: skip
    fastest, fullest = points[0], max(points, key=lambda p: p[1])
    ax.set(xscale="log", yscale="log", xlim=(0.035, 1.7), ylim=(0.13, 3))
    ax.set_xlabel(
        "occupancy: share of the multiprocessor's places for warps, logarithmic"
    )
    ax.set_ylabel("ms, logarithmic")
    ax.set_yticks([0.2, 0.5, 1, 2], ["0.2", "0.5", "1", "2"])
    ax.set_xticks([1 / 16, 1 / 8, 1 / 4, 1 / 2, 1], ["1/16", "1/8", "1/4", "1/2", "1"])
    ax.set_xticks([], minor=True)
    ax.set_yticks([], minor=True)
    plots.title(ax, f"The fastest tile fills {100 * fastest[1]:.1f} % of the places")
    return fig, (
        f"One recorded product with {len(points)} tiles and numbers of warps: the fastest "
        f"takes {fastest[0]:.2f} ms at an occupancy of {fastest[1]:.3g}, the fullest "
        f"{fullest[0]:.2g} ms at {fullest[1]:.3g}; two that spill registers are slow."
    )


def attention_bytes(lengths, three, one):
    "Bytes of attention by three kernels and by one, against the number of tokens."
    fig, ax = plots.subplots(size=(6.6, 3.4))
    plots.lines(ax, {"three kernels": np.array(three) / 2**20,
                     "one": np.array(one) / 2**20}, x=lengths, marker="o")  # fmt: skip
    ax.set(xlabel="tokens", ylabel="MiB moved", ylim=(0, None), xticks=lengths)
    ax.margins(x=0.22)
    plots.title(
        ax, f"At {lengths[-1]} tokens {three[-1] / one[-1]:.1f} times the bytes"
    )
    return fig, (
        f"MiB moved by attention against tokens: at {lengths[-1]} tokens three kernels with a "
        f"table of scores move {three[-1] / 2**20:.1f}, one without it {one[-1] / 2**20:.1f}."
    )


def recorded(found):
    "Ours beside the libraries' on the recorded cards: a product, and attention."
    fig, (left, right) = plots.subplots(1, 2, size=(9, 3.8))
    shares = {}
    for (name, recording), colour in zip(
        cards(found).items(), (plots.BLUE, plots.ORANGE)
    ):
        sizes = sorted(
            {r["size"] for r in recordings.find(recording, "kernel", kernel="matmul")}
        )
        shares[name] = [
            taken(best(recording, "cuBLAS", kernel="matmul", size=n))
            / taken(best(recording, OURS, kernel="matmul", size=n))
            for n in sizes
        ]
        left.plot(sizes, shares[name], "o-", color=colour, label=name)
    left.axhline(1, color=plots.BLACK, lw=1, ls="--")
    left.set(xscale="log", ylim=(0, 1.15), xlabel="size of the matrices, bf16")
    left.set_ylabel("our pace over cuBLAS's")
    left.set_xticks(sizes, [f"{n:,}" for n in sizes], fontsize=8)
    left.set_xticks([], minor=True)
    left.legend(frameon=False, loc="lower right")
    at, small = (next(iter(shares.values()))[i] for i in (2, 0))
    plots.title(
        left, f"{at:.2f} of cuBLAS at {sizes[2]:,}, {small:.2f} at {sizes[0]:,}"
    )
    name, recording = next(iter(cards(found).items()))
    cases = [(w, D) for w in ("forward", "backward") for D in (64, 128)]
    labels = {"kernel": "attention", "T": 16384, "causal": True}
    styles = {"SDPA flash": plots.BLACK, "ours": plots.BLUE, "SDPA cuDNN": plots.GREEN}
    for shift, (who, colour) in zip((-0.27, 0, 0.27), styles.items()):
        paces = [
            recordings.rate(best(recording, who, way=w, D=D, **labels)) / 1e12
            for w, D in cases
        ]
        right.bar(np.arange(4) + shift, paces, width=0.25, color=colour, label=who)
    right.set_xticks(range(4), [f"{w},\nD = {D}" for w, D in cases], fontsize=8.5)
    right.set(ylabel="TFLOP/s", ylim=(0, 780))
    right.grid(axis="x", visible=False)
    right.legend(frameon=False, ncols=3, fontsize=8.5, loc="upper right")
    plots.title(right, "Attention: between two libraries")
    return fig, (
        f"Recorded: our product at {at:.2f} of cuBLAS's pace for matrices of {sizes[2]:,}, far "
        f"below it at {sizes[0]:,}; causal attention of 16,384 tokens on {name}, faster than "
        "SDPA's flash kernel and slower than cuDNN's, forward and backward."
    )
