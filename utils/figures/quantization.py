"""The figures of chapter 24."""

import numpy as np
from torch import nn

from utils import plots
from utils.built import quant

METHODS = {
    "nearest": plots.RED,
    "compensated": plots.BLUE,
    "trained": plots.GREEN,
}


def first_look(net, accuracy):
    "What 12 hidden units look for in an image, at fewer and fewer bits."
    W_HD = net[0].weight.data
    units = W_HD.norm(dim=1).argsort(descending=True)[:12]
    fig, axes = plots.subplots(1, len(accuracy), size=(9.4, 3.5))
    fig.get_layout_engine().set(wspace=0.14)
    edge = W_HD[units].abs().max().item()
    for ax, (bits, share) in zip(axes, accuracy.items()):
        W = W_HD if bits == 32 else one_scale(W_HD, bits)
        canvas = np.full((4 * 9 - 1, 3 * 9 - 1), np.nan)
        for place, unit in enumerate(units):
            row, column = divmod(place, 3)
            picture = W[unit].reshape(8, 8).numpy()
            canvas[9 * row : 9 * row + 8, 9 * column : 9 * column + 8] = picture
        ax.imshow(canvas, cmap="RdBu", vmin=-edge, vmax=edge)
        ax.axis("off")
        values = "4 billion values" if bits == 32 else f"{2**bits - 1} values"
        ax.set_title(f"{bits} bits\n{values}", fontsize=10)
        ax.text(
            0.5, -0.02, f"{share:.1f} % right", transform=ax.transAxes, ha="center",
            va="top", fontweight="bold",
        )  # fmt: skip
    plots.heading(
        fig,
        "From 32 bits to 3 hardly a digit changes; at 2 the network falls over",
    )
    told = ", ".join(f"{bits} bits {share:.1f} %" for bits, share in accuracy.items())
    return fig, (
        "The incoming weights of twelve hidden units as 8x8 pictures (blue positive, red "
        f"negative), and the share of digits read correctly: {told}."
    )


def one_scale(W_HD, bits):
    "Rounded with one scale for the whole matrix."
    return quant.rounded(W_HD.reshape(1, -1), bits).reshape(W_HD.shape)


def _percent(share, digits=0):
    return f"{100 * share:.{digits}f} %"


def blunt(bits):
    "A change for Folds.accuracy: each matrix rounded with one scale; 32 is as it was."

    def change(net, X_ND, y_N):
        for layer in net[::2]:
            if bits < 32:
                layer.weight.data = one_scale(layer.weight.data, bits)
        return net

    return change


GRANULARITY = {"matrix": None, "row": 0, "group of 16": 16}


def lab(digits):
    "draw(bits, clip_at, a_scale_for_each): histogram, error and accuracy of rounding."
    layers = [
        layer.weight.data for layer in digits.nets[0] if isinstance(layer, nn.Linear)
    ]
    W_HD, floor = layers[1], digits.accuracy()

    def put(W, bits, clip, group):
        if group is None:
            return put(W.reshape(1, -1), bits, clip, 0).reshape(W.shape)
        group = group or W.shape[1]
        scale = quant.spread(clip * quant.group_scales(W, group, bits), group)
        top = quant.top_of(bits)
        return quant.quantize(W, scale, 0, -top, top) * scale

    def draw(bits=3, clip_at=0.6, a_scale_for_each="matrix"):
        group = GRANULARITY[a_scale_for_each]
        rounded = put(W_HD, bits, clip_at, group)
        gap = rounded - W_HD
        error = (gap.norm() / W_HD.norm()).item()

        def change(net, X, y):
            for layer in net[::2]:
                layer.weight.data = put(layer.weight.data, bits, clip_at, group)
            return net

        share = digits.accuracy(change)
        fig, (left, right) = plots.subplots(1, 2, size=(9.4, 3.5))
        fig.set_layout_engine(None)  # twice as quick, and a lab is redrawn often
        fig.subplots_adjust(left=0.08, right=0.985, bottom=0.15, top=0.87, wspace=0.26)
        edge = W_HD.abs().max().item()
        bins = np.linspace(-edge, edge, 121)
        before = W_HD.flatten().numpy()
        left.hist(before, bins, color=plots.SKY, alpha=0.5)
        left.hist(
            rounded.flatten().numpy(), bins, color=plots.RED, histtype="step", lw=1.2
        )
        left.set(
            yscale="log", xlabel="weight (layer 2)", ylabel="weights", ylim=(0.7, 3e4)
        )
        left.text(
            0.02, 0.95, "before", color=plots.SKY, transform=left.transAxes, va="top"
        )
        left.text(
            0.02, 0.87, "after", color=plots.RED, transform=left.transAxes, va="top"
        )
        zeros = (rounded == 0).float().mean().item()
        plots.title(left, f"{_percent(zeros)} of the weights became 0")
        order = W_HD.flatten().argsort().numpy()
        sample = np.r_[order[:100], order[100:-100:7], order[-100:]]  # each 7th inside
        right.plot(before[sample], gap.flatten().numpy()[sample], ".", ms=2,
                   color=plots.RED)  # fmt: skip
        right.set(xlabel="weight (layer 2)", ylabel="rounded - weight")
        right.set_ylim(-0.45 * edge, 0.45 * edge)
        plots.title(right, f"error {_percent(error, 1)}, accuracy {share:.1f} %")
        return fig, (
            f"Rounding to {bits} bits, clipped at {clip_at:.2f} of the largest weight, a "
            f"scale for each {a_scale_for_each}: {_percent(zeros)} of layer 2 became 0, the "
            f"relative error is {_percent(error, 1)}, {share:.1f} % of the digits are right "
            f"({floor:.1f} % in 32 bits)."
        )

    # the steps of its controls that the book shows (utils/course/book/frames.py)
    draw.book = {"bits": [2, 3, 4, 8], "clip_at": [0.1, 0.2, 0.4, 0.6, 0.8, 1.0]}
    return draw


def breaking(table, errors, codes):
    "Accuracy by bits and granularity; the error of each layer; what 2 bits leave."
    fig, axes = plots.subplots(1, 3, size=(10.4, 3.5))
    left, middle, right = axes
    for colour, (name, shares) in zip(
        (plots.RED, plots.BLUE, plots.GREEN), table.items()
    ):
        left.plot(list(shares), list(shares.values()), "o-", color=colour, label=name)
    left.legend(frameon=False, title="a scale for each", loc="lower right")
    left.set(xlabel="bits per weight", ylabel="digits right (%)")
    left.set_xticks([2, 3, 4, 8])
    left.set_ylim(min(40, min(min(s.values()) for s in table.values()) - 5), 101)
    plots.title(left, "2 bits break it")
    styles = zip((plots.BLACK, plots.PURPLE, plots.ORANGE), errors.items())
    for colour, (name, by_bits) in styles:
        values = [100 * v for v in by_bits.values()]
        middle.plot(list(by_bits), values, "o-", color=colour, label=name)
    middle.set(
        yscale="log", xlabel="bits per weight", ylabel="error of the layer's output (%)"
    )
    middle.set_xticks([2, 3, 4, 8])
    middle.legend(frameon=False, title="one scale per matrix")
    plots.title(middle, "the output drowns")
    names = list(codes)
    right.bar(range(len(names)), [100 * v for v in codes.values()], color=plots.RED)
    for place, value in enumerate(codes.values()):
        right.text(place, 100 * value + 1.5, _percent(value), ha="center")
    right.set_xticks(range(len(names)), [f"{n:+d}" if n else "0" for n in names])
    right.set(xlabel="2-bit code", ylabel="weights of layer 2 (%)", ylim=(0, 112))
    right.grid(False)
    plots.title(right, "most became 0")
    low = {name: shares[2] for name, shares in table.items()}
    told = ", ".join(f"a scale for each {n} {v:.1f} %" for n, v in low.items())
    return fig, (
        f"Left, accuracy against bits: at 2 bits {told}. Middle, relative error of each "
        f"layer's output with one scale per matrix, up to {100 * max(e[2] for e in errors.values()):.0f} % at 2 bits. "
        f"Right, {_percent(codes[0])} of layer 2's weights became 0 at 2 bits."
    )


def repaired(table, floor):
    "{bits: {method: accuracy}}: how much each method brings back."
    fig, ax = plots.subplots(size=(6.8, 3.5))
    bits = list(table)
    shift = dict(zip(METHODS, (-0.22, 0, 0.22)))
    for method, colour in METHODS.items():
        lost = [max(floor - table[b][method], 0.02) for b in bits]
        at = np.arange(len(bits)) + shift[method]
        ax.bar(at, lost, width=0.2, color=colour, label=method)
        for x, b in zip(at, bits):
            gap = floor - table[b][method]
            ax.text(x, max(gap, 0.02) + 0.1, f"{gap:.1f}", ha="center", fontsize=8.5,
                    color=colour)  # fmt: skip
    ax.set_xticks(range(len(bits)), [f"{b} bits" for b in bits])
    ax.set_ylabel("points of accuracy lost")
    ax.legend(frameon=False)
    ax.grid(axis="x", visible=False)
    plots.title(ax, "The same 2 bits, chosen better, give most of it back")
    told = ", ".join(f"{m} {floor - table[bits[-1]][m]:.1f}" for m in METHODS)
    return fig, (
        f"Points of accuracy lost against 32 bits ({floor:.1f} %) for weights of "
        f"{', '.join(map(str, bits))} bits, a scale per row; at {bits[-1]} bits: {told}."
    )


def book(w_N, marks, gaps):
    "{name: rounded weights (N,)}: where each grid has its marks, and its relative error."
    fig, ax = plots.subplots(size=(7.4, 3.6))
    w = w_N.numpy()
    ax.hist(w, 120, color=plots.SKY, alpha=0.5)
    top = ax.get_ylim()[1]
    colours = zip((plots.RED, plots.ORANGE, plots.BLUE), marks.items())
    told = []
    for place, (colour, (name, rounded_N)) in enumerate(colours):
        x, y = rounded_N.unique().numpy(), top * (1.05 + 0.26 * place)
        ax.plot(x, np.full(len(x), y), "|", color=colour, ms=11, mew=2)
        label = f"{name}: {len(x)} values, error {_percent(gaps[name], 1)}"
        ax.text(w.min(), y + 0.07 * top, label, va="bottom", color=colour)
        told.append(label)
    ax.set(xlabel="weight (layer 2)", ylabel="weights", ylim=(0, 1.82 * top))
    ax.set_yticks([t for t in ax.get_yticks() if t <= top])
    plots.title(ax, "Free values crowd where the weights are")
    return fig, (
        "Histogram of layer 2's weights under three sets of marks of 4 bits. Evenly spaced "
        f"to the largest weight and to the best end, and by k-means: {'; '.join(told)}."
    )


def outliers(model, digits_net):
    "How far the largest weight stands out, layer by layer; two histograms of row sizes."
    fig, (left, right) = plots.subplots(1, 2, size=(9.6, 3.5))
    fig.get_layout_engine().set(wspace=0.08)
    out, rows = {}, {}
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear):
            W = part.weight.data
            out[name] = (W.abs().max() / W.std()).item()
            rows[name] = W.abs().amax(1)
    values = np.array(list(out.values()))
    left.plot(values, "o", color=plots.BLUE, ms=5)
    ours = [
        (layer.weight.abs().max() / layer.weight.std()).item()
        for layer in digits_net[::2]
    ]
    left.axhspan(min(ours), max(ours), color=plots.GREEN, alpha=0.25)
    left.text(len(values), max(ours) * 0.9, "digits network ", color=plots.GREEN, ha="right",
              va="top")  # fmt: skip
    worst = max(out, key=out.get)
    left.annotate(
        worst, (list(out).index(worst), out[worst]), xytext=(8, -3),
        textcoords="offset points", color=plots.BLUE,
    )  # fmt: skip
    left.set(yscale="log", xlabel="linear layer of MiniLM")
    left.set_ylabel("largest weight / standard deviation")
    left.set_yticks([5, 10, 20, 50, 100, 200], ["5", "10", "20", "50", "100", "200"])
    plots.title(left, f"One weight at {out[worst]:.0f} deviations")
    size = rows[worst].sort(descending=True).values.numpy()
    right.plot(np.arange(1, len(size) + 1), size, color=plots.BLUE)
    right.set(xscale="log", yscale="log", xlabel=f"row of {worst}, by size")
    right.set_ylabel("its largest weight")
    right.set_yticks([0.2, 0.5, 1, 2, 5, 10], ["0.2", "0.5", "1", "2", "5", "10"])
    right.axhline(size[0] / 7 / 2, color=plots.RED, lw=1, ls="--")
    right.text(14, size[0] / 7 / 2 * 0.95, "below: all of the row rounds to 0\n(4 bits, one scale)",
               color=plots.RED, va="top", fontsize=9)  # fmt: skip
    gone = (size < size[0] / 14).mean()
    plots.title(right, f"4 bits, one scale: {_percent(gone)} of the rows vanish")
    return fig, (
        f"Left, largest weight over standard deviation in MiniLM's {len(out)} linear layers, "
        f"up to {out[worst]:.0f} in {worst}, while the digits network stays below "
        f"{max(ours):.0f}. Right, the largest weight of each row of that layer: with one "
        f"scale and 4 bits {_percent(gone)} of the rows would be all zeros."
    )


def kernels(table, who):
    "{place: {engine: ratios}}: how many times faster than float32, with the spread."
    fig, ax = plots.subplots(size=(8, 0.8 + 0.36 * sum(map(len, table.values()))))
    colours = {
        "int8": plots.BLUE,
        "int4": plots.GREEN,
        "int8, unpacked each time": plots.RED,
    }
    y, ticks, names, told = 0, [], [], []
    for place, engines in table.items():
        for engine, ratios in engines.items():
            middle = np.median(ratios)
            ax.plot(
                [min(ratios), max(ratios)],
                [y, y],
                color=colours[engine],
                lw=7,
                alpha=0.3,
            )
            ax.plot(middle, y, "o", color=colours[engine], ms=5)
            ax.annotate(
                f"{middle:.2g} x", (0.995, y), xycoords=("axes fraction", "data"),
                ha="right", va="center", color=colours[engine],
            )  # fmt: skip
            ticks.append(y)
            names.append(f"{place}: {engine}")
            told.append(f"{place} {engine} {middle:.2g}")
            y -= 1
        y -= 0.6
    ax.axvline(1, color=plots.BLACK, lw=1, ls=":")
    ax.set(xscale="log", xlabel="times as fast as float32 (CPU time)")
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, 0.05), max(high * 1.6, 4))
    marks = [
        m for m in (0.01, 0.03, 0.1, 0.3, 1, 3, 10) if low * 0.9 <= m <= high * 1.6
    ]
    ax.set_xticks(marks, [f"{m:g}" for m in marks])
    ax.minorticks_off()
    ax.set_yticks(ticks, names)
    ax.grid(axis="y", visible=False)
    plots.title(ax, "Fewer bits are not always faster")
    return fig, (
        f"Speed against float32 on {who}, one thread, median and range of paired runs: "
        f"{'; '.join(told)}."
    )


KINDS = {"int8": plots.BLUE, "int4": plots.GREEN, "small": plots.PURPLE}


def pareto(points, unit, questions):
    "{name: (bytes, score in %, milliseconds or None)}, with one standard error."
    fig, axes = plots.subplots(1, 2, size=(9.8, 3.7))
    timed = {n: (ms, score) for n, (_, score, ms) in points.items() if ms is not None}
    told = {n: (size, score) for n, (size, score, _) in points.items()}
    for ax, places in zip(axes, (told, timed)):
        for name, (x, score) in places.items():
            colour = KINDS.get(name.split()[0], plots.BLACK)
            bar = 100 * np.sqrt(score / 100 * (1 - score / 100) / questions)
            ax.errorbar(x, score, bar, fmt="o", color=colour, elinewidth=1, capsize=3)
            ax.annotate(name, (x, score), xytext=(7, 5), textcoords="offset points",
                        color=colour)  # fmt: skip
        ax.set_ylabel(unit)
    left, right = axes
    sizes = [size for size, _, _ in points.values()]
    left.set_xscale("log")
    ticks = [m * 10**k for k in range(3, 10) for m in (1, 2, 5)]
    ticks = [t for t in ticks if min(sizes) / 1.5 <= t <= max(sizes) * 2]
    left.set_xticks(ticks, [_bytes(t) for t in ticks])
    left.minorticks_off()
    left.set_xlim(min(sizes) / 1.4, max(sizes) * 1.8)
    left.set_xlabel("bytes on disk")
    right.set_xlim(0, max(ms for ms, _ in timed.values()) * 1.3)
    right.set_xlabel("milliseconds (CPU time)")
    saved = points["fp32"][0] / points["int4"][0]
    quickest = min(timed, key=timed.get)
    plots.title(left, f"int4: 1/{saved:.0f} of the bytes; a small fp32 loses")
    plots.title(right, f"quickest on this machine: {quickest}")
    texts = "; ".join(
        f"{n} {_bytes(s)}, {v:.4g} %" + ("" if ms is None else f", {ms:.2g} ms")
        for n, (s, v, ms) in points.items()
    )
    return fig, f"Bytes on disk, {unit} and milliseconds of each version: {texts}."


def _bytes(n):
    return f"{n / 1e6:.3g} MB" if n >= 1e6 else f"{n / 1e3:.3g} kB"
