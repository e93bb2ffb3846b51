"""The figures of chapter 14."""

import numpy as np
import torch
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from utils import plots
from utils.bench import faster as ladder
from utils.built.attention import attention
from utils.built.flash import flash
from utils.built.live import Live

MIB = 2**20


def first_runs():
    "Train the digits three ways, now: as it is, with one line changed, with all the tricks."
    ladder.run(0, epochs=1)  # what is imported at the first step, outside the clock
    names = "SGD, batch 16", "batch 128, rate x 8", "all the tricks together"
    return [ladder.run(0, **ladder.RUNGS[name]) for name in names]


def first_look(plain, one_line, four):
    "Accuracy against CPU seconds of three runs."
    names = "batch 16", "one line changed: batch x 8, rate x 8", "four tricks together"
    runs = dict(zip(names, (plain, one_line, four)))
    fig, ax = plots.subplots(size=(7.4, 3.6))
    for result, colour in zip(runs.values(), (plots.BLACK, plots.BLUE, plots.RED)):
        seconds, accuracy = np.array(result["curve"]).T
        ax.plot(seconds, 100 * accuracy, ".-", color=colour, ms=4, lw=1.3)
    ax.axhline(97, color=plots.GREEN, lw=1, ls=":")
    ax.set(
        xscale="log", xlabel="CPU seconds", ylabel="test images right, %", ylim=(5, 107)
    )
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    left, right = ax.get_xlim()
    ax.annotate("target: 97 %", (left, 97), xytext=(4, 4), textcoords="offset points",
                color=plots.GREEN)  # fmt: skip
    first, best, all_in = runs.values()
    ax.set_xlim(left, right)
    for name, colour, y in zip(
        runs, (plots.BLACK, plots.BLUE, plots.RED), (33, 22, 11)
    ):
        ax.annotate(name, (right, y), xytext=(-4, 0), textcoords="offset points", ha="right",
                    color=colour)  # fmt: skip
    gain = first["seconds"] / best["seconds"]
    end = f"{100 * all_in['accuracy']:.0f} % after {all_in['epochs']} epochs"
    plots.title(ax, f"One line: {gain:.1f} times as fast. Four tricks: {end}")
    return fig, (
        f"Accuracy on the digits against CPU seconds: with batch and rate 8 times as large "
        f"the target of 97 % is reached {gain:.1f} times as fast; with shifted images and "
        f"pruning on top, the network is at {end}."
    )


def valley(sizes, seconds, took):
    "CPU time of the chain for each block size, beside eager and out= on whole tensors."
    fig, ax = plots.subplots(size=(7.0, 3.4))
    kib = [4 * size / 1024 for size in sizes]
    ms = [1e3 * t for t in seconds]
    ax.plot(kib, ms, "o-", color=plots.BLUE)
    for name, colour in (("eager", plots.RED), ("out=, whole", plots.ORANGE)):
        ax.axhline(1e3 * took[name], color=colour, ls=":", lw=1.5)
        ax.annotate(name, (1, 1e3 * took[name]), xycoords=("axes fraction", "data"),
                    xytext=(4, 0), textcoords="offset points", color=colour, va="center",
                    annotation_clip=False)  # fmt: skip
    best = int(np.argmin(ms))
    ax.set(xscale="log", xlabel="block, KiB", ylabel="CPU time, ms", ylim=(0, None))
    ticks = kib[::2]
    ax.set_xticks(ticks, [f"{t:,.0f}" for t in ticks])
    ax.minorticks_off()
    plots.title(
        ax, f"Blocks of {kib[best]:,.0f} KiB are the fastest: {ms[best]:.0f} ms"
    )
    return fig, (
        f"CPU time of eight operators on 32 MiB for blocks from {kib[0]:,.0f} KiB up: the "
        f"least, {ms[best]:.0f} ms, at {kib[best]:,.0f} KiB; eager takes "
        f"{1e3 * took['eager']:.0f} ms, out= on whole tensors "
        f"{1e3 * took['out=, whole']:.0f} ms."
    )


def segments(counted, peaks, price):
    "Units kept after forward and at the peak, {k: units}; price: time over plain time."
    fig, ax = plots.subplots(size=(7.2, 3.5))
    at = np.arange(len(counted))
    kept_units, peak_units = list(counted.values()), list(peaks.values())
    ax.bar(at - 0.2, kept_units, 0.38, color=plots.BLUE)
    ax.bar(at + 0.2, peak_units, 0.38, color=plots.ORANGE)
    for x, y in zip(at, kept_units):
        ax.annotate(f"{y:.0f}", (x - 0.2, y), xytext=(0, 2), textcoords="offset points",
                    ha="center", color=plots.BLUE, fontsize=9)  # fmt: skip
    high = max(peak_units)
    ax.annotate("peak during backward", (1.5, 0.95 * high), color=plots.ORANGE)
    ax.annotate("kept after forward", (1.5, 0.85 * high), color=plots.BLUE)
    ax.set(
        xlabel="segments (1: no checkpointing)",
        ylabel="activations of 24 blocks, units",
    )
    ax.set_xticks(at, counted)
    least = min(counted, key=counted.get)
    plots.title(
        ax,
        f"{kept_units[0]} units become {counted[least]}, and the peak follows; "
        f"six segments: {100 * (price - 1):+.0f} % time",
    )
    return fig, (
        f"Activations kept with 1 to 24 segments: {kept_units[0]} units without "
        f"checkpointing, {counted[least]} with {least} segments, and more with 5 than with "
        f"4; the peak falls from {peak_units[0]:.0f} to {min(peak_units):.0f}. Six "
        f"segments take {price:.2f} times the CPU time."
    )


def live_bytes(T=512, block=64, causal=True):
    "A lab: live MiB after each operator of attention forward and backward, two ways."
    H, D = 4, 32
    torch.manual_seed(0)
    ways = {
        "naive": lambda q, k, v: attention(q, k, v, causal=causal),
        "flash": lambda q, k, v: flash(q, k, v, causal=causal, block=block),
    }
    fig, (ax, bars) = plots.subplots(1, 2, size=(8.6, 3.6), width_ratios=[5, 2])
    peak, held = {}, {}
    for (name, attend), colour in zip(ways.items(), (plots.RED, plots.BLUE)):
        q, k, v = (torch.randn(1, H, T, D, requires_grad=True) for _ in range(3))
        with Live(q, k, v, keep=True) as live:
            o = attend(q, k, v)
            turn, floats = len(live.curve), live.bytes / (4 * H * T)
            o.sum().backward()
        curve = np.array(live.curve) / MIB
        x = np.linspace(0, 1, len(curve))
        ax.plot(x, curve, color=colour, lw=1.2, drawstyle="steps-post")
        ax.plot(x[turn - 1], curve[turn - 1], "o", color=colour)
        peak[name], held[name] = live.peak / MIB, floats
        ax.annotate(f"{name}: {len(curve):,} operators", (0.02, 0.95 if name == "naive" else 0.87),
                    xycoords="axes fraction", color=colour, va="top")  # fmt: skip
    top = max(peak.values())
    ax.set(xlabel="share of the operators done; dot: end of forward", ylabel="live MiB",
           ylim=(0, 1.3 * top))  # fmt: skip
    bars.bar(list(held), list(held.values()), color=(plots.RED, plots.BLUE), width=0.6)
    for number, value in enumerate(held.values()):
        bars.annotate(f"{value:.0f}", (number, value), xytext=(0, 2), ha="center",
                      textcoords="offset points")  # fmt: skip
    bars.set(
        ylabel="floats kept, per token and head", ylim=(0, 1.15 * max(held.values()))
    )
    less = peak["naive"] / peak["flash"]
    words = f"{less:.1f} times less" if less >= 1.05 else "no less"
    plots.title(ax, f"T = {T}, blocks of {block}: flash needs {words} memory")
    return fig, (
        f"Live memory after each operator of attention with T = {T}, block {block}, "
        f"{'causal' if causal else 'not causal'}: naive peaks at {peak['naive']:.1f} MiB and "
        f"keeps {held['naive']:.0f} floats per token and head, flash at "
        f"{peak['flash']:.1f} MiB and keeps {held['flash']:.0f}."
    )


live_bytes.book = {
    "T": [256, 512],
    "block": [32, 64, 128, 512],
    "causal": [True, False],
}


def rungs(pace, peak, where, unit="MiB"):
    "{rung: tokens per second} and {rung: peak}, a bar each; rungs that hurt in red."
    names = list(pace)
    fig, (left, right) = plots.subplots(
        1, 2, size=(8.6, 0.36 * len(names) + 1.2), sharey=True
    )
    for ax, values, worse, label in (
        (left, pace, lambda now, before: now < 0.97 * before, "tokens per second"),
        (right, peak, lambda now, before: now > 1.02 * before, f"peak memory, {unit}"),
    ):
        numbers = [values[name] for name in names]
        hurts = [i > 0 and worse(n, numbers[i - 1]) for i, n in enumerate(numbers)]
        colours = [plots.RED if hurt else plots.BLUE for hurt in hurts]
        ax.barh(range(len(names)), numbers, color=colours, height=0.7)
        for i, n in enumerate(numbers):
            text = f"{n:,.0f}" if n >= 100 else f"{n:.1f}"
            ax.annotate(text, (n, i), xytext=(3, 0), textcoords="offset points",
                        va="center", fontsize=9)  # fmt: skip
        ax.set(xlabel=label, xlim=(0, 1.25 * max(numbers)))
        ax.xaxis.set_major_locator(MaxNLocator(3))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        ax.grid(axis="y", visible=False)
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    fastest = max(pace, key=pace.get)
    gain = pace[fastest] / pace[names[0]]
    plots.title(
        left, f"{where}: up to {gain:.1f} times; red: clearly worse than before"
    )
    return fig, (
        f"Tokens per second and peak memory of {len(names)} rungs, {where}: fastest is "
        f"'{fastest}', {gain:.1f} times the first rung; the least memory, "
        f"{min(peak.values()):.1f} {unit}, has '{min(peak, key=peak.get)}'."
    )


def claim(record, mine):
    "Seconds to the target of every recorded rung, each seed a dot, and mine beside them."
    names = [*ladder.RUNGS, *(set(record["rungs"]) - set(ladder.RUNGS))]
    fig, ax = plots.subplots(size=(8.0, 4.6))
    never = 20.0
    for row, name in enumerate(names):
        runs = record["rungs"][name]
        times = [r["seconds"] for r in runs]
        for t in times:
            ax.plot(t or never, row, "o" if t else "x", color=plots.BLUE if t else plots.RED,
                    alpha=0.75, ms=6)  # fmt: skip
        if not all(times):
            lost = sum(t is None for t in times)
            best = max(r["accuracy"] for r in runs if r["seconds"] is None)
            ax.annotate(f"{lost} of {len(times)} never: {100 * best:.0f} % at best",
                        (never, row), xytext=(-10, 0), textcoords="offset points",
                        ha="right", va="center", color=plots.RED, fontsize=9)  # fmt: skip
        if mine.get(name):
            ax.plot(mine[name], row + 0.22, "^", color=plots.ORANGE, ms=7)
    ax.set(
        xscale="log",
        xlabel=f"CPU seconds to {100 * record['target']:.0f} %, three seeds",
    )
    ax.set_xticks([0.1, 1, 10, never], ["0.1", "1", "10", "never"])
    ax.minorticks_off()
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.7)
    ax.annotate("triangles: this run, the middle of three", (0.5, 0.94), xycoords="axes fraction",
                color=plots.ORANGE)  # fmt: skip
    middle = {name: ladder.middle(record["rungs"][name]) for name in names}
    slower = sum(m is None or m > middle[names[0]] for m in middle.values())
    plots.title(
        ax, f"{slower} of {len(names) - 1} changes make it slower, or never arrive"
    )
    fastest = min((n for n in names if middle[n]), key=middle.get)
    return fig, (
        f"CPU seconds to 97 % for {len(names)} rungs and three seeds each: the fastest is "
        f"'{fastest}'; {slower} of {len(names) - 1} changes are slower than the first rung, "
        "in the middle of three seeds, or do not arrive within 60 epochs."
    )
