"""The figures of chapter 13."""

import statistics

import numpy as np
import torch
from matplotlib.ticker import FuncFormatter, NullFormatter

from utils import plots
from utils.bench import recordings
from utils.built import gpu, precision
from utils.built.train import pick_device
from utils.data import accelerators

_plain = FuncFormatter(lambda value, _: f"{value:,g}")


def _size(count):
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:g} {unit}"
        count /= 1024


def _percent(share, digits=0):
    return f"{100 * share:.{digits}f} %"


def h100():
    "fp32 TFLOP/s on the data sheet of an H100."
    chips = accelerators("GPU")
    return next(chip for chip in chips if chip["name"] == "H100 SXM")["fp32_tflops"]


def first_look():
    "What the usual stopwatch says of one matrix product, beside an H100's data sheet."
    chip, flop = gpu.chip(pick_device()), 2 * 2048**3
    a = torch.randn(2048, 2048, device=pick_device())
    out = torch.empty_like(a)
    launch = lambda: chip.launch(lambda: torch.mm(a, a, out=out))  # noqa: E731
    naive = statistics.median(gpu.samples(launch, lambda: None, repeats=5))
    chip.wait()
    chip.close()
    assert flop / naive / 1e12 > h100(), (
        "the naive stopwatch stops before the work is done"
    )
    bars = {
        f"{chip.name},\nsays the stopwatch": (flop / naive / 1e12, plots.RED),
        "H100, says its data sheet\n(fp32, no matrix units)": (h100(), plots.BLACK),
    }
    fig, ax = _dots(bars)
    plots.title(ax, f"Faster than an H100, {flop / naive / 1e12 / h100():,.0f} times?")
    return fig, (
        "By the usual stopwatch one matrix product on this machine runs at many times the "
        "fp32 rate on the data sheet of an H100."
    )


def _dots(rows):
    "A dot on a logarithmic axis for each {label: (TFLOP/s, colour)}."
    fig, ax = plots.subplots(size=(7, 0.8 + 0.5 * len(rows)))
    for place, (value, colour) in enumerate(reversed(rows.values())):
        ax.plot(value, place, "o", ms=11, color=colour)
        text = f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
        ax.annotate(text, (value, place), xytext=(10, 0), va="center",
                    textcoords="offset points", color=colour)  # fmt: skip
    ax.set_yticks(range(len(rows)), list(reversed(rows)))
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(_plain)
    values = [value for value, _ in rows.values()]
    ax.set(xlim=(min(values) / 4, 8 * max(values)), ylim=(-0.6, len(rows) - 0.4))
    ax.set_xlabel("TFLOP/s of one matrix product, logarithmic")
    return fig, ax


def claims(naive, awaited, flop, name):
    "TFLOP/s that the naive and the right stopwatch report, beside an H100's data sheet."
    bars = {
        "naive stopwatch": (flop / naive / 1e12, plots.RED),
        "H100, data sheet, fp32": (h100(), plots.BLACK),
        "with waiting": (flop / awaited / 1e12, plots.BLUE),
    }
    fig, ax = _dots(bars)
    plots.title(
        ax, f"Without waiting, the claim is {awaited / naive:,.0f} times too high"
    )
    return fig, (
        f"The same product on {name}: {flop / naive / 1e12:,.0f} TFLOP/s by the naive "
        f"stopwatch, {flop / awaited / 1e12:.2g} with waiting; an H100's sheet says {h100():.0f}."
    )


def wire(mine, start, rate, device, found):
    "Time of a copy against its size: here, by the formula, and on a recorded machine a kind."
    fig, ax = plots.subplots(size=(7, 3.7))
    series = {f"here ({device})": mine}
    kinds = {r["machine"]["device"]: name for name, r in reversed(found.items())}
    for name in reversed(kinds.values()):
        recording = found[name]
        for row in recordings.find(recording, "transfer"):
            pinned = ", pinned" if row["pinned"] else ""
            way = f", {row['way']}{pinned}"
            if "non_blocking" not in way and "from" not in way:
                series.setdefault(f"recorded: {name}{way}", []).append(
                    (row["work"], statistics.median(row["seconds"]))
                )
    for place, (label, points) in enumerate(series.items()):
        size, taken = np.array(points).T
        style = {"marker": "o", "ms": 4, "color": plots.PALETTE[place % 7]}
        style |= {} if place == 0 else {"ls": "--", "lw": 1.5}
        ax.plot(size, taken * 1e6, label=label, **style)
    size = np.geomspace(2**12, max(s for points in series.values() for s, _ in points))
    ax.plot(size, (start + size / rate) * 1e6, color=plots.BLACK, lw=1, zorder=0,
            label="t0 + n / r")  # fmt: skip
    ax.set(xscale="log", yscale="log", ylabel="time of one copy, µs")
    ticks = [2**12, 2**16, 2**20, 2**24, 2**26]
    ax.set_xticks(ticks, [_size(t) for t in ticks])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_major_formatter(_plain)
    ax.set_xlabel("bytes in one copy")
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    # beyond 4 MiB a CPU's copy may leave its cache
    first, last = mine[0], [row for row in mine if row[0] <= 2**22][-1]
    plots.title(ax, "A copy costs a start, and then by the byte")
    return fig, (
        f"Time of a copy against its size, both logarithmic: here, {last[0] // first[0]:,} "
        f"times the bytes take {last[1] / first[1]:,.0f} times as long."
    )


def pipeline(load=6, copy=2, compute=3, workers=0, overlap=False):
    "A lab: loaders, wire and chip played batch by batch."
    batches = 8
    spans = gpu.timeline(load, copy, compute, workers, overlap, batches)
    lanes = [*(f"loader {i}" for i in range(max(workers, 1))), "wire", "chip"]
    pace = gpu.step_seconds(load, copy, compute, workers, overlap)
    fig, ax = plots.subplots(size=(8, 1.5 + 0.28 * len(lanes)))
    for span in spans:
        place = len(lanes) - 1 - lanes.index(span.lane)
        colour = plots.PALETTE[span.batch % 2 * 5]  # two blues, in turns
        width = span.end - span.start
        if width:
            ax.barh(place, width, left=span.start, height=0.72, color=colour,
                    edgecolor="white")  # fmt: skip
            ax.text(span.start + width / 2, place, span.batch + 1, color="white",
                    ha="center", va="center", fontsize=8, clip_on=True)  # fmt: skip
    names = [
        "training process" if not workers and lane == "loader 0" else lane
        for lane in lanes
    ]
    ax.set_yticks(range(len(lanes)), list(reversed(names)))
    ax.set_xlim(0, max(s.end for s in spans))
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("time, ms (numbers: batches)")
    busy = compute / pace
    slow = {"loading": load / workers if workers else load}
    side = (
        {"the wire": copy, "the chip": compute}
        if overlap
        else {"wire and chip": copy + compute}
    )
    limit = max({**slow, **side}, key={**slow, **side}.get)
    who = "all in a row" if not workers else f"limited by {limit}"
    plots.title(
        ax, f"A step every {pace:.3g} ms, {who}; the chip works {_percent(busy)} of it"
    )
    return fig, (
        f"Eight batches through loaders, wire and chip (load {load}, copy {copy}, compute "
        f"{compute} ms, {workers} workers, overlap {overlap}): a step every {pace:.3g} ms, "
        f"and the chip is busy {_percent(busy)} of the time."
    )


# the steps of its controls that the book shows (utils/course/book/frames.py)
pipeline.book = {
    "load": [2, 6],
    "copy": [2, 5],
    "compute": [3, 8],
    "workers": [0, 1, 2, 3, 4],
}


def race(rows):
    "Predicted and measured time per step, for each number of workers."
    fig, ax = plots.subplots(size=(6.6, 3))
    for place, (_, predicted, measured) in enumerate(rows):
        for shift, value, colour, name in (
            (-0.2, predicted, plots.ORANGE, "predicted"),
            (0.2, measured, plots.BLUE, "measured"),
        ):
            ax.bar(place + shift, value * 1e3, width=0.36, color=colour)
            label = (
                f"{value * 1e3:.0f} ms" if place else f"{name}\n{value * 1e3:.0f} ms"
            )
            ax.annotate(label, (place + shift, value * 1e3), xytext=(0, 3), ha="center",
                        textcoords="offset points", color=colour)  # fmt: skip
    ax.set_xticks(range(len(rows)), [f"{w} workers" for w, _, _ in rows])
    ax.set_ylabel("time per step, ms")
    ax.set_ylim(top=1.35e3 * max(max(r[1:]) for r in rows))
    ax.grid(axis="x", visible=False)
    gain = rows[0][2] / rows[-1][2]
    plots.title(
        ax, f"{rows[-1][0]} workers that wait for a disk: {gain:.1f} times faster"
    )
    pairs = ", ".join(f"{w} workers {p / m:.2f}" for w, p, m in rows)
    return fig, (
        f"Predicted and measured time per step with a stand-in for a slow disk; predicted "
        f"over measured: {pairs}."
    )


def number(digits=3.1, power_of_ten=-5, scale=1):
    "A lab: one number in six formats, bit by bit, and what is left of it."
    true = digits * 10.0**power_of_ten
    value = true * scale
    fig, ax = plots.subplots(size=(9, 3.1))
    colours = (plots.BLACK, plots.RED, plots.BLUE)
    lost = []
    for place, name in enumerate(precision.FORMATS):
        y = len(precision.FORMATS) - 1 - place
        fields, kept = precision.bits_of(value, name)
        ax.text(-0.6, y, name, ha="right", va="center", fontweight="bold")
        column = 0
        for colour, field in zip(colours, fields.split()):
            for bit in field:
                ax.add_patch(_box(column, y, colour, bit == "1"))
                ax.text(column + 0.46, y, bit, ha="center", va="center", fontsize=8,
                        color="white" if bit == "1" else colour)  # fmt: skip
                column += 1
            column += 0.35
        back = kept / scale
        error = abs(back / true - 1)
        if not np.isfinite(back):
            said, colour = "overflow" if np.isinf(back) else "nan: too large", plots.RED
        elif back == 0:
            said, colour = "0: gone", plots.RED
        elif back < true / 2:
            said, colour = f"stops at {kept:.4g}", plots.RED
        else:
            off = f"off by {100 * error:.1g} %" if error > 1e-12 else "exact"
            said, colour = f"{back:.4g}, {off}", plots.BLACK
        if colour == plots.RED:
            lost.append(name)
        ax.text(33.6, y, said, va="center", color=colour)
    for x, text, colour in (
        (0, "sign", colours[0]),
        (3.5, "exponent", colours[1]),
        (10, "fraction", colours[2]),
    ):
        ax.text(x, 5.75, text, color=colour, fontsize=9)
    ax.text(
        33.6, 5.75, "what is left" + (" after / scale" if scale > 1 else ""), fontsize=9
    )
    ax.set(xlim=(-3.5, 44), ylim=(-0.6, 6.3))
    ax.axis("off")
    how = f"{digits:.1f}e{power_of_ten}" + (f" times {scale:,}" if scale > 1 else "")
    gone = (
        f"lost in {', '.join(lost)}" if lost else "every format keeps something of it"
    )
    plots.title(ax, f"{how}: {gone}")
    return fig, (
        f"The number {how} as sign, exponent and fraction bits in six formats; {gone}."
    )


# the steps of its controls that the book shows (utils/course/book/frames.py)
number.book = {
    "digits": [1.0, 3.1],
    "power_of_ten": [-12, -10, -9, -8, -7, -6, -5, -4, -2, 0, 2, 4, 6],
}


def _box(x, y, colour, filled):
    from matplotlib.patches import Rectangle

    return Rectangle((x, y - 0.4), 0.92, 0.8, facecolor=colour if filled else "white",
                     edgecolor=colour, lw=0.8)  # fmt: skip


def scaling(runs, scales):
    "Losses of three runs, and the scale that the scaler found."
    fig, (left, right) = plots.subplots(1, 2, size=(9, 3.4))
    ends = {}
    for colour, (name, losses) in zip(
        (plots.BLACK, plots.RED, plots.BLUE), runs.items()
    ):
        smooth = np.convolve(losses, np.ones(5) / 5, "valid")
        ends[name] = losses[-1]
        style = {"ls": "--"} if name == "fp32" else {}
        left.plot(
            np.arange(len(smooth)) + 3,
            smooth,
            color=colour,
            lw=1.8,
            label=name,
            **style,
        )
    left.set(xlabel="step", ylabel="loss per row, mean of 5 steps", ylim=(0, 2.7))
    left.legend(frameon=False, loc="center right", bbox_to_anchor=(1, 0.6))
    right.plot(np.log2([2.0**48, *scales]), color=plots.BLUE)
    right.set(xlabel="step", ylabel="log2 of the scale")
    plots.title(left, "Unscaled fp16 learns nothing")
    skipped = sum(b < a for a, b in zip([2.0**48, *scales], scales))
    plots.title(right, f"The scale finds its level: {skipped} steps left out")
    told = ", ".join(f"{name} {end:.2f}" for name, end in ends.items())
    return fig, (
        f"Losses of three runs on the same batches end at {told}; the scaler starts at 2 to "
        f"the 48th, leaves out {skipped} steps and ends at 2 to the {np.log2(scales[-1]):.0f}th."
    )


def memory(predicted, measured):
    "Bytes of a training step, part by part, predicted and measured."
    fig, ax = plots.subplots(size=(7, 2.3))
    colours = dict(
        zip(predicted, (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PURPLE))
    )
    for place, parts in enumerate((measured, predicted)):
        start = 0
        for part, size in parts.items():
            ax.barh(place, size / 1024, left=start / 1024, color=colours[part], height=0.6,
                    edgecolor="white")  # fmt: skip
            if parts is predicted:
                height = 1.66 if part == "gradients" else 1.36
                ax.text((start + size / 2) / 1024, height, part, color=colours[part],
                        ha="center", va="bottom", fontsize=9)  # fmt: skip
            ax.text((start + size / 2) / 1024, place, f"{size / 1024:.0f}", color="white",
                    ha="center", va="center", fontsize=9)  # fmt: skip
            start += size
    ax.set_yticks([0, 1], ["measured", "predicted"])
    ax.set(xlabel="KiB held during one step", ylim=(-0.5, 2.0))
    ax.grid(axis="y", visible=False)
    worst = max(abs(measured[p] / predicted[p] - 1) for p in predicted)
    plots.title(
        ax, f"Predicted before it was measured, and off by {_percent(worst, 1)} at most"
    )
    return fig, (
        "KiB of weights, gradients, optimiser and activations in one training step: "
        f"each part is predicted within {_percent(worst, 1)}."
    )


def traces(spans, shares):
    "When training steps ran, with the starved and with the repaired loader."
    fig, axes = plots.subplots(2, 1, size=(8, 2.9))
    for ax, (name, mine), colour in zip(axes, spans.items(), (plots.RED, plots.BLUE)):
        first = mine[0][0]
        for start, end in mine:
            ax.barh(0, 1e3 * (end - start), left=1e3 * (start - first), color=colour)
        ax.set_yticks([0], [name])
        ax.set_xlim(0, 1e3 * (mine[-1][1] - first))
        ax.grid(axis="y", visible=False)
        plots.title(ax, f"{name}: no training for {_percent(shares[name])} of the time")
    axes[1].set_xlabel("time since the first step, ms (two different scales)")
    told = ", ".join(f"{name} {_percent(share)}" for name, share in shares.items())
    return fig, (
        "Training steps of one epoch as the profiler saw them; share of the time in which "
        f"no step ran: {told}."
    )


def counters(slow, fast):
    "The six counters of the planted script before and after its repair."
    names = {
        "calls": "operator calls", "writes": "numbers written", "copies": "copies",
        "bytes": "bytes copied", "syncs": "synchronisations", "kept": "bytes kept",
    }  # fmt: skip
    ratios = {name: slow[name] / max(fast[name], 1) for name in names}
    order = sorted(names, key=ratios.get)
    fig, ax = plots.subplots(size=(7, 3))
    for place, name in enumerate(order):
        ax.barh(place, ratios[name], color=plots.BLUE, height=0.62)
        ax.annotate(f"{ratios[name]:.2g} times less  ({slow[name]:,} to {fast[name]:,})",
                    (ratios[name], place), xytext=(4, 0), va="center", fontsize=9,
                    textcoords="offset points")  # fmt: skip
    ax.set_yticks(range(6), [names[name] for name in order])
    ax.set(xscale="log", xlim=(0.9, 14 * max(ratios.values())), xlabel="before / after")
    ax.xaxis.set_major_formatter(_plain)
    ax.grid(axis="y", visible=False)
    plots.title(ax, "The same losses for less work, counter by counter")
    told = ", ".join(f"{names[n]} {ratios[n]:.2g}" for n in reversed(order))
    return fig, f"Work of the planted script before over after its repair: {told}."


def machines(rounds, found):
    """Rate of the largest matrix product in every format: here and recorded.

    rounds: [{format: GFLOP/s}] of this machine; in each the formats took their turns.
    """
    fig, ax = plots.subplots(size=(7, 3.3))
    middle = {f: statistics.median(rates[f] for rates in rounds) for f in rounds[0]}
    series = {"here, now (smaller products)": middle}
    series |= {f"recorded: {name}": _rates(r) for name, r in found.items()}
    there = set().union(*series.values())
    formats = [f for f in ("fp64", "fp32", "tf32", "bf16", "fp16", "fp8") if f in there]
    wide = 0.8 / len(series)
    for place, (name, rates) in enumerate(series.items()):
        colour = plots.PALETTE[place % 7]
        for column, form in enumerate(formats):
            if form not in rates:
                continue
            x = column + (place - (len(series) - 1) / 2) * wide
            ax.plot(x, rates[form], "o", ms=8, color=colour)
            up = place % 2 == 0  # neighbours may be equally fast
            ax.annotate(_short(rates[form]), (x, rates[form]), xytext=(0, 6 if up else -6),
                        ha="center", va="bottom" if up else "top", fontsize=8,
                        textcoords="offset points", color=colour)  # fmt: skip
        ax.plot([], [], "o", color=colour, label=name)
    values = [value for rates in series.values() for value in rates.values()]
    ax.set_xticks(range(len(formats)), formats)
    ax.set(yscale="log", ylabel="GFLOP/s, logarithmic",
           ylim=(min(values) / 6, 150 * max(values)), xlim=(-0.6, len(formats) - 0.4))  # fmt: skip
    ax.yaxis.set_major_formatter(lambda value, _: _short(value))
    ax.grid(axis="x", visible=False)
    ax.legend(frameon=False, loc="upper left", ncols=2, fontsize=9)
    finding = faster(statistics.median(r["bf16"] / r["fp32"] for r in rounds))
    plots.title(ax, f"Here a bf16 product {finding} an fp32 one")
    return fig, (
        "GFLOP/s of matrix products in each number format, on every recorded machine and "
        f"here, where the formats took turns: a bf16 product {finding} an fp32 one."
    )


def _short(rate):
    "0.51 -> 0.5; 94.2 -> 94; 806000.0 -> 806k; 1.5e6 -> 1.5M."
    for unit, name in ((1e6, "M"), (1e3, "k"), (1, "")):
        if rate >= unit:
            return f"{rate / unit:.{0 if rate >= 10 * unit else 1}f}{name}".replace(
                ".0", ""
            )
    return f"{rate:.1g}"


def _rates(recording):
    "{format: GFLOP/s of the largest product}."
    rows = sorted(recordings.find(recording, "matmul"), key=lambda row: row["size"])
    return {row["format"]: recordings.rate(row) / 1e9 for row in rows}


def faster(gain):
    "2.0 -> is 2 times as fast as; 0.5 -> takes 2 times as long as."
    if 0.9 < gain < 1.1:
        return "is about as fast as"
    if gain > 1:
        return f"is {gain:.2g} times as fast as"
    return f"takes {1 / gain:.2g} times as long as"
