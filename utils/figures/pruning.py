"""The figures of chapter 23."""

import copy

import torch
from torch import nn

from utils import plots
from utils.built import coding, pruning, quant

COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.RED, plots.PURPLE)


def smallest_go(keep):
    "A change for Folds.accuracy: the largest weights of the whole network stay."

    def change(net, *_):
        layers = pruning.linears(net)
        masks = pruning.global_masks([layer.weight.data for layer in layers], keep)
        for layer, mask in zip(layers, masks):
            layer.weight.data *= mask
        return net

    return change


def any_go(keep):
    "A change for Folds.accuracy: weights chosen at random stay."

    def change(net, *_):
        generator = torch.Generator().manual_seed(1)
        for layer in pruning.linears(net):
            lots = torch.rand(layer.weight.shape, generator=generator)
            layer.weight.data *= pruning.keep_largest(lots, keep)
        return net

    return change


def by_size_and_by_lot(digits, keep):
    "Accuracy where the largest weights stay, and where weights chosen by lot stay."
    return tuple(digits.accuracy(choose(keep)) for choose in (smallest_go, any_go))


def _percent(share, digits=0):
    return f"{100 * share:.{digits}f} %"


def _per_pixel(net):
    "The share of each pixel's weights that are left: (8, 8), an array."
    return (net[0].weight.data != 0).float().mean(0).reshape(8, 8).numpy()


def first_look(digits, kept):
    "{keep: (accuracy, accuracy by lot)}: who loses its weights first."
    fig, axes = plots.subplots(1, len(kept), size=(9.4, 2.9))
    lost = round(kept[1.0][0], 1) - round(kept[0.5][0], 1)  # as the picture says them
    for ax, (keep, (chosen, lot)) in zip(axes, kept.items()):
        net = smallest_go(keep)(copy.deepcopy(digits.nets[0]))
        ax.imshow(_per_pixel(net), cmap="cividis", vmin=0)
        ax.axis("off")
        ax.set_title(f"{_percent(keep)} kept", fontsize=10)
        ax.text(0.5, -0.05, f"{chosen:.1f} % right", transform=ax.transAxes, ha="center",
                va="top", fontweight="bold", fontsize=9)  # fmt: skip
        ax.text(0.5, -0.19, f"random {lot:.1f} %", transform=ax.transAxes, ha="center",
                va="top", fontsize=9, color=plots.RED)  # fmt: skip
    plots.heading(
        fig,
        f"Half of the weights gone, {lost:.1f} points lost, if we choose which",
    )
    told = ", ".join(f"{_percent(k)} kept {a:.1f} % (at random {b:.1f} %)"
                     for k, (a, b) in kept.items())  # fmt: skip
    return fig, (
        "Each of the 8x8 pixels of one network, brighter the more of its weights in the "
        "first layer are left (yellow: the most, in each picture by itself). Digits read "
        f"right: {told}."
    )


def trained(curves, dense, trained_on):
    "{method: {keep: accuracy}}: what training brings back."
    fig, ax = plots.subplots(size=(7.4, 3.6))
    for colour, (name, shares) in zip(COLOURS, curves.items()):
        xs, wrong = [100 * keep for keep in shares], [100 - s for s in shares.values()]
        (line,) = ax.plot(xs, wrong, "o-", color=colour)
        plots.label_end(ax, line, name)
    for share, name, side in (
        (dense, "all weights", "bottom"),
        (trained_on, "all weights, trained on", "top"),
    ):
        ax.axhline(100 - share, color=plots.BLACK, lw=1, ls=":")
        up = 1.05 if side == "bottom" else 1 / 1.05
        ax.text(1.6, up * (100 - share), name, va=side, ha="right", fontsize=9)
    ax.set(xscale="log", yscale="log", xlabel="weights kept (%)")
    ax.set_ylabel("digits wrong (%)")
    ax.set_xlim(115, 1.5)
    ticks = [100, 50, 20, 10, 5, 2.5]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.set_yticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
    ax.minorticks_off()
    ax.set_ylim(min(1.5, 0.7 * (100 - trained_on)), 110)
    gap = dense - curves["gradual"][0.05]
    plots.title(ax, f"A twentieth of the weights, trained on: {gap:.1f} points lost")
    told = "; ".join(
        f"{name}: "
        + ", ".join(f"{_percent(k, 1)} kept {v:.1f} %" for k, v in c.items())
        for name, c in curves.items()
    )
    return fig, (
        "Digits wrong, on a log scale, against the share of weights kept. Right are, "
        f"{told}; all weights, trained on as long: {trained_on:.1f} %."
    )


def who_pays(right, rare_N, y_N):
    "{size: which images are right}: the mean, the rarest tenth, each digit."
    fig, (left, middle) = plots.subplots(1, 2, size=(9.4, 3.6))
    groups = {
        "the other nine tenths": ~rare_N,
        "all images": torch.ones_like(rare_N),
        "the rarest tenth": rare_N,
    }
    names = list(right)
    values = {
        name: [100 * right[n][rows].float().mean().item() for n in names]
        for name, rows in groups.items()
    }
    for colour, (name, line) in zip((plots.GREEN, plots.BLACK, plots.RED), values.items()):  # fmt: skip
        left.plot(range(len(names)), line, "o-", color=colour, label=name)
    left.set_xticks(range(len(names)), names, fontsize=8)
    left.set_ylabel("digits right (%)")
    left.legend(frameon=False, loc="lower left")
    drop = {name: line[0] - line[-1] for name, line in values.items()}
    rarest, others = drop["the rarest tenth"], drop["the other nine tenths"]
    first, last = names[0], names[-1]
    between = f"({first} to {last})".replace(chr(10), " ")
    plots.title(
        left, f"Rarest tenth: {rarest:.0f} points lost, others {others:.0f}\n{between}"
    )
    lost = [
        100
        * (right[first][y_N == c].float() - right[last][y_N == c].float()).mean().item()
        for c in range(10)
    ]
    worst = max(range(10), key=lambda c: lost[c])
    colours = [plots.RED if c == worst else plots.BLUE for c in range(10)]
    middle.bar(range(10), lost, color=colours)
    middle.set_xticks(range(10), [str(c) for c in range(10)])
    middle.set(xlabel="digit", ylabel="points lost")
    middle.grid(axis="x", visible=False)
    middle.axhline(0, color=plots.BLACK, lw=0.8)
    least = min(range(10), key=lambda c: lost[c])
    plots.title(middle, f"Digit {worst} loses {lost[worst]:.0f}, digit {least} loses {min(lost):.0f}\n{between}")  # fmt: skip
    told = ", ".join(f"{n.replace(chr(10), ' ')} {a:.1f} and {b:.1f} %" for n, a, b in
                     zip(names, values["all images"], values["the rarest tenth"]))  # fmt: skip
    return fig, (
        f"Left, all images and the rarest tenth by network: {told}. Right, points that each "
        f"digit loses from '{first}' to '{last.replace(chr(10), ' ')}', most of all "
        f"the {worst} with {lost[worst]:.0f}."
    )


def lottery(won, keep):
    "{kind: {epochs: accuracy}}: does the start matter?"
    fig, ax = plots.subplots(size=(7.4, 3.4))
    lengths = list(next(iter(won.values())))
    width = 0.26
    for k, (colour, (kind, shares)) in enumerate(zip(COLOURS, won.items())):
        for place, epochs in enumerate(lengths):
            x = place + (k - 1) * width
            ax.bar(x, shares[epochs], width=0.9 * width, color=colour,
                   label=kind if place == 0 else None)  # fmt: skip
            ax.text(x, shares[epochs] + 1.6, f"{shares[epochs]:.1f}", ha="center",
                    fontsize=9, color=colour)  # fmt: skip
    ax.set_xticks(range(len(lengths)), [f"{e} epochs" for e in lengths])
    ax.set_ylim(0, 122)
    ax.set_yticks(range(0, 101, 20))
    ax.set_ylabel("digits right (%)")
    ax.legend(frameon=False, ncols=3, loc="upper center")
    ax.grid(axis="x", visible=False)
    lead = [f"{won['ticket'][e] - won['random mask'][e]:.1f}" for e in lengths]
    plots.title(ax, f"Ticket against random mask: {' points ahead, then '.join(lead)}")
    told = "; ".join(
        f"{kind}: " + ", ".join(f"{v:.1f} % after {e} epochs" for e, v in s.items())
        for kind, s in won.items()
    )
    return (
        fig,
        f"Networks with {_percent(keep)} of the weights, trained from a start. {told}.",
    )


def _three(value):
    "Three digits, zeros at the end as well: 97.1, 0.890."
    return f"{value:#.3g}"


def rankings(tables):
    "{panel: (unit, {score: value}, value with all weights)}: who is best where."
    fig, axes = plots.subplots(1, len(tables), size=(4.7 * len(tables), 3.2))
    axes = axes if len(tables) > 1 else [axes]
    said = []
    for ax, (panel, (unit, values, whole)) in zip(axes, tables.items()):
        for k, (colour, value) in enumerate(zip(COLOURS, values.values())):
            ax.barh(k, value, color=colour)
            ax.text(value - 0.015 * whole, k, _three(value), va="center", ha="right",
                    color="white", fontweight="bold")  # fmt: skip
        ax.set_yticks(range(len(values)), list(values))
        ax.invert_yaxis()
        ax.axvline(whole, color=plots.BLACK, lw=1, ls=":")
        ax.set(xlabel=unit, xlim=(0, 1.05 * whole))
        ax.grid(axis="y", visible=False)
        two = {n: v for n, v in values.items() if n in ("magnitude", "Wanda")}
        plots.title(
            ax, f"{panel}: {max(two, key=two.get)} beats {min(two, key=two.get)}"
        )
        said.append(f"{panel}, {unit}: " + ", ".join(f"{n} {_three(v)}" for n, v in values.items()))  # fmt: skip
    return fig, "; ".join(said) + "."


def speeds(places):
    "{layer: {kind: how many times as fast as dense}}, medians."
    fig, ax = plots.subplots(size=(8.2, 3.6))
    kinds = list(next(iter(places.values())))
    for k, (name, values) in enumerate(places.items()):
        at = [i + 0.38 * (k - 0.5) for i in range(len(kinds))]
        ax.barh(at, list(values.values()), 0.34, color=COLOURS[k], label=name)
        for y, value in zip(at, values.values()):
            x = 1.04 if 0.9 < value < 1 else 1.06 * value  # beside the line at 1
            ax.text(x, y, f"{value:.2f}", va="center", fontsize=9,
                    color=COLOURS[k], bbox={"fc": "white", "ec": "none", "pad": 0.6})  # fmt: skip
    ax.set_yticks(range(len(kinds)), kinds)
    ax.invert_yaxis()
    ax.axvline(1, color=plots.BLACK, lw=1)
    ax.set(xscale="log", xlabel="times as fast as the dense layer")
    low = min(min(v.values()) for v in places.values())
    ax.set_xlim(min(0.1, low / 1.5), 60)
    ax.set_xticks([0.1, 1, 10], ["0.1", "1", "10"])
    ax.grid(axis="y", visible=False)
    ax.legend(frameon=False, loc="upper right")
    rows = "64 rows"
    zeros = next(v for name, v in places.items() if rows in name)[kinds[0]]
    plots.title(ax, f"Zeros in a dense matrix, {rows}: {zeros:.2f} times as fast")
    told = "; ".join(
        f"{name}: " + ", ".join(f"{kind} {v:.2f}" for kind, v in values.items())
        for name, values in places.items()
    )
    return fig, f"Speed against the dense layer (1 is equal). {told}."


def units(table, dense):
    "{keep: (times fewer weights, {method: accuracy})}: what a refit is worth."
    fig, ax = plots.subplots(size=(7.4, 3.5))
    times = [fewer for fewer, _ in table.values()]
    methods = list(next(iter(table.values()))[1])
    for colour, name in zip((plots.RED, plots.ORANGE, plots.BLUE), methods):
        wrong = [100 - row[name] for _, row in table.values()]
        (line,) = ax.plot(times, wrong, "o-", color=colour)
        plots.label_end(ax, line, name)
    ax.axhline(100 - dense, color=plots.BLACK, lw=1, ls=":")
    ax.text(times[0], (100 - dense) / 1.03, "all units", va="top", fontsize=9)
    ax.set(xscale="log", yscale="log", xlabel="times fewer weights")
    ax.set_ylabel("digits wrong (%)")
    ax.set_xticks(times, [f"{t:.1f}" for t in times])
    ax.set_yticks([2, 5, 10, 20, 50, 100], ["2", "5", "10", "20", "50", "100"])
    ax.minorticks_off()
    ax.set_xlim(times[0] / 1.1, times[-1] * 1.6)
    ax.set_ylim(min(2.0, 0.8 * (100 - dense)), 110)
    fewer, row = list(table.values())[1]
    gap = row["refit"] - row["from scratch"]
    plots.title(ax, f"Refit against scratch: {gap:+.1f} points at {fewer:.0f} times fewer weights")  # fmt: skip
    told = "; ".join(
        f"{t:.1f} times fewer: " + ", ".join(f"{n} {v:.1f} %" for n, v in row.items())
        for t, row in table.values()
    )
    return (
        fig,
        f"Digits right after whole units were removed. {told}; dense {dense:.1f} %.",
    )


# ---- the lab ----


def _by_layer(choose):
    "A change: each W becomes choose(W, its inputs)."

    def change(net, X_ND, y_N):
        h_ND = X_ND
        for part in net:
            if isinstance(part, nn.Linear):
                part.weight.data = choose(part.weight.data, h_ND)
            h_ND = part(h_ND).detach()
        return net

    return change


def _compensated(keep):
    def choose(W, h):
        def largest(score):
            return pruning.keep_largest(score, keep)

        return pruning.compensated(W, quant.input_products(h), largest)

    return _by_layer(choose)


def _units(repair):
    "keep -> a change: as many units as make `keep` of the weights."

    def by(keep):
        def change(net, X_ND, y_N):
            first, second, last = (p.numel() for p in net.parameters() if p.ndim == 2)
            thin = first + last  # grows with the units, `second` with their square
            all_weights = thin + second
            root = (thin**2 + 4 * second * keep * all_weights) ** 0.5
            return pruning.smaller(net, X_ND, (root - thin) / (2 * second), repair)

        return change

    return by


CHANGES = {
    "magnitude": smallest_go,
    "Wanda": lambda keep: _by_layer(lambda W, h: W * pruning.wanda(W, h, keep)),
    "compensated": _compensated,
    "units": _units(repair=False),
    "units, refit": _units(repair=True),
}
AXIS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.2, 0.15, 0.1, 0.05, 0.02)


def bytes_of(net):
    "float32 values, and a byte for each gap where weights are missing inside a matrix."
    total = 0
    for layer in pruning.linears(net):
        mask = layer.weight.data != 0
        total += 4 * layer.bias.numel()
        if mask.float().mean() > 0.8:  # the whole matrix is the shorter file
            total += 4 * mask.numel()
        else:
            total += 4 * int(mask.sum()) + len(coding.gaps(mask))
    return total


def lab(digits):
    "draw(keep, remove): which weights die, and what accuracy and bytes are left."
    curves, X_ND = {}, digits.X_ND

    def curve(remove):
        "{percent kept: accuracy}"
        if remove not in curves:
            curves[remove] = {
                100 * k: digits.accuracy(CHANGES[remove](k)) for k in AXIS
            }
        return curves[remove]

    def draw(keep=20, remove="magnitude"):
        change = CHANGES[remove](keep / 100)
        share = digits.accuracy(change)
        rows = digits.fold_N != 0
        net = change(copy.deepcopy(digits.nets[0]), X_ND[rows], digits.y_N[rows])
        size, whole = bytes_of(net), bytes_of(digits.nets[0])
        fig, (left, right) = plots.subplots(1, 2, size=(9.4, 3.6))
        fig.set_layout_engine(None)
        fig.subplots_adjust(left=0.02, right=0.97, bottom=0.15, top=0.87, wspace=0.12)
        share_PP = _per_pixel(net)
        left.imshow(share_PP, cmap="cividis", vmin=0)
        left.axis("off")
        alive = int((share_PP > 0).sum())
        plots.title(left, f"{alive} of 64 pixels are read")
        for name in dict.fromkeys(("magnitude", remove)):
            thick = name == remove
            points = curve(name) | ({keep: share} if thick else {})
            colour = COLOURS[list(CHANGES).index(name)] if thick else "#999999"
            right.plot(
                *zip(*sorted(points.items())), lw=2 if thick else 1, color=colour
            )
        if remove != "magnitude":
            right.text(0.03, 0.04, "thin: magnitude", transform=right.transAxes, color="#666666")  # fmt: skip
        right.plot(
            [keep], [share], "o", ms=9, color=COLOURS[list(CHANGES).index(remove)]
        )
        right.set(xscale="log", xlabel="weights kept (%)", ylabel="digits right (%)",
                  ylim=(0, 104))  # fmt: skip
        right.set_xlim(115, 1.7)
        right.set_xticks([100, 50, 25, 10, 5, 2], ["100", "50", "25", "10", "5", "2"])
        right.minorticks_off()
        plots.title(right, f"{remove}: {share:.1f} % right, {size:,} bytes")
        return fig, (
            f"{remove}, {keep} % of the weights kept: {share:.1f} % of the digits are right, "
            f"the file has {size:,} bytes in place of {whole:,}, and {alive} of 64 pixels "
            "still have a weight in the first layer (yellow: the most)."
        )

    draw.book = {"keep": [2, 5, 10, 15, 20, 25, 35, 50, 70, 100]}
    return draw
