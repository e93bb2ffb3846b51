"""The figures of chapter 06."""

from typing import NamedTuple

import numpy as np
import torch
from matplotlib.patches import Rectangle
from torch import nn

from utils import plots
from utils.built import resnet

PER_CENT = 100
MLP, CNN = "multilayer perceptron", "two convolutions"


class Look(NamedTuple):
    figure: object
    says: str
    nets: dict  # {name: network trained on the pictures as they are}
    scores: dict  # {name: (test accuracy as they are, shuffled)}
    order: object  # the permutation of the pixels

    @property
    def lost(self):
        "Share of right answers that shuffling costs the convolutions."
        plain, shuffled = self.scores[CNN]
        return plain - shuffled


def first_look(X, y, X_test, y_test, epochs=1):
    "Two networks learn the pictures as they are, and again with all pixels shuffled."
    side = X.shape[-1]
    order = torch.randperm(side**2, generator=torch.Generator().manual_seed(1))

    def shuffled(some):
        some = np.asarray(some)
        return some.reshape(len(some), -1)[:, order].reshape(some.shape)

    make = {
        MLP: lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(side**2, 128), nn.ReLU(), nn.Linear(128, 10)
        ),
        CNN: lambda: resnet.two_convolutions(side=side),
    }
    nets, scores = {}, {}
    for name in make:
        found = []
        for change in (lambda some: some, shuffled):
            torch.manual_seed(0)
            net = make[name]()
            resnet.learn(net, change(X), y, epochs, lr=3e-3 if name == MLP else 0.01)
            nets.setdefault(name, net)
            found.append(resnet.accuracy(net, change(X_test), y_test))
        scores[name] = tuple(found)
    pair = X_test[3, 0], shuffled(X_test[3:4])[0, 0]
    return Look(*_shuffle(pair, scores, len(y)), nets, scores, order)


def _shuffle(pair, scores, count):
    fig, (a, b, right) = plots.subplots(1, 3, size=(8.6, 2.6), width_ratios=[1, 1, 2.4])
    for ax, picture, name in zip((a, b), pair, ("a picture", "the same, shuffled")):
        _picture(ax, picture)
        ax.set_title(name, fontsize=10)
    for row, (name, (plain, mixed)) in enumerate(scores.items()):
        right.plot([PER_CENT * plain, PER_CENT * mixed], [-row, -row], color="#bbbbbb")
        right.plot(PER_CENT * plain, -row, "o", color=plots.BLUE, ms=9)
        right.plot(PER_CENT * mixed, -row, "s", color=plots.RED, ms=8)
        right.annotate(name, (PER_CENT * (plain + mixed) / 2, -row), xytext=(0, 10),
                       textcoords="offset points", ha="center")  # fmt: skip
    low, high = np.min([*scores.values()]), np.max([*scores.values()])
    right.set(ylim=(-1.6, 0.7), xlabel="right answers on new pictures, %")
    right.set_xlim(PER_CENT * low - 4, PER_CENT * high + 2)
    right.set_yticks([])
    right.annotate("● as they are", (0.02, 0.05), xycoords="axes fraction", fontsize=9,
                   color=plots.BLUE)  # fmt: skip
    right.annotate("■ shuffled", (0.36, 0.05), xycoords="axes fraction", fontsize=9,
                   color=plots.RED)  # fmt: skip
    shown = [np.round(PER_CENT * np.array(pair), 1) for pair in scores.values()]
    gains = [f"{mixed - plain:+.1f}" for plain, mixed in shown]  # as the caption has it
    plots.title(right, f"Shuffled: {gains[0]} points, and {gains[1]} with convolutions")
    told = "; ".join(
        f"the {name} from {PER_CENT * p:.1f} % to {PER_CENT * m:.1f} %"
        for name, (p, m) in scores.items()
    )
    return fig, (
        f"A picture and the same one with shuffled pixels. Trained on {count:,} pictures "
        f"and then on the same ones shuffled, test accuracy goes: {told}."
    )


def _picture(ax, picture, cmap="gray"):
    ax.imshow(np.asarray(picture), cmap=cmap)
    ax.set_xticks([]), ax.set_yticks([])
    ax.grid(False)


def edges(photo_HW, answers):
    "A photograph, and {name: what one kernel makes of it}."
    fig, axes = plots.subplots(1, 1 + len(answers), size=(9, 2.5))
    _picture(axes[0], photo_HW)
    axes[0].set_title("a photograph, grey", fontsize=10)
    for ax, (name, out) in zip(axes[1:], answers.items()):
        _picture(ax, np.abs(np.asarray(out)), "gray_r")
        ax.set_title(name, fontsize=10)
    return fig, (
        "A photograph of a temple, and where two kernels of 3 x 3 answer strongly: one on "
        "edges between left and right, one on edges between above and below."
    )


def seen(share_HW, size, inner):
    "How strongly each input pixel moves one output pixel, inside the square of the formula."
    fig, (left, right) = plots.subplots(1, 2, size=(8.2, 3.2))
    H = len(share_HW)
    left.imshow(share_HW, cmap="Blues")
    for width, colour in ((size, plots.RED), (inner, plots.ORANGE)):
        low = H // 2 - width / 2
        square = Rectangle((low, low), width, width, fill=False, ec=colour, lw=2)
        left.add_patch(square)
    left.grid(False)
    left.set_xticks([]), left.set_yticks([])
    middle = PER_CENT * share_HW.sum(0)
    at = np.arange(H) - H // 2
    right.plot(at, middle, ".-", color=plots.BLUE)
    for width, colour in ((size, plots.RED), (inner, plots.ORANGE)):
        for side in (-1, 1):
            right.axvline(side * width / 2, color=colour, lw=1, ls=":")
    right.set(
        xlabel="column, pixels from the middle", ylabel="share of the influence, %"
    )
    within = PER_CENT * _within(share_HW, inner)
    plots.title(left, f"It sees {size} x {size} pixels ...")
    plots.title(right, f"... but {within:.0f} % comes from {inner} x {inner}")
    return fig, (
        f"The influence of each input pixel on one output pixel is a bell: the formula's "
        f"square has {size} x {size} pixels, and {within:.0f} % of the influence lies in "
        f"the inner {inner} x {inner}."
    )


def _within(share_HW, inner):
    low = len(share_HW) // 2 - inner // 2
    return float(share_HW[low : low + inner, low : low + inner].sum())


def where(layers, costs):
    "Per layer: its share of the parameters and of the FLOPs."
    fig, ax = plots.subplots(size=(7.6, 2.9))
    shares = PER_CENT * np.array(costs, float) / np.sum(costs, 0)
    rows = np.arange(len(layers))[::-1]
    for side, (name, colour) in enumerate(
        (("parameters", plots.BLUE), ("FLOPs", plots.ORANGE))
    ):
        place = rows + (0.2 if side == 0 else -0.2)
        ax.barh(place, shares[:, side], height=0.36, color=colour)
        for row, share in zip(place, shares[:, side]):
            told = f"{share:.2f} %" if share > 99 else f"{share:.2g} %"
            if share:
                ax.annotate(f"{told} of the {name}", (share, row), xytext=(4, 0),
                            textcoords="offset points", va="center", fontsize=9,
                            color=colour)  # fmt: skip
    ax.set_yticks(rows, layers)
    ax.set(xlim=(0, 135), xlabel="share, %")
    ax.set_xticks(range(0, 101, 20))
    ax.grid(axis="y", visible=False)
    most, busy = shares.argmax(0)
    kind = [name.split()[0] for name in layers]
    plots.title(
        ax,
        f"One {kind[most]} layer holds the numbers, one {kind[busy]} layer does the work",
    )
    return fig, (
        f"Shares per layer: {layers[most]} has {shares[most, 0]:.2f} % of the parameters "
        f"and {shares[most, 1]:.0f} % of the FLOPs; {layers[busy]} has "
        f"{shares[busy, 1]:.0f} % of the FLOPs."
    )


def depth(norms, blocks):
    "{kind of block: gradient norm at the first layer, per number of blocks}."
    fig, ax = plots.subplots(size=(7.4, 3.6))
    lift = {"skip": -7, "both": 5}  # their lines end side by side
    for (name, values), colour in zip(norms.items(), plots.PALETTE):
        shown = np.maximum(values, 1e-30)
        ax.plot(blocks, shown, "o-", color=colour, ms=4)
        ax.annotate(name, (blocks[-1], shown[-1]), xytext=(7, lift.get(name, 0)),
                    textcoords="offset points", color=colour, va="center",
                    annotation_clip=False)  # fmt: skip
    ax.set(xscale="log", yscale="log", ylim=(1e-31, 1e5), xlim=(blocks[0] * 0.9, None))
    ax.set_xticks(blocks, blocks)
    ax.minorticks_off()
    ax.set(xlabel="blocks of two convolutions", ylabel="gradient at the first layer")
    plots.title(ax, "With a skip, the gradient arrives from any depth")
    last = ", ".join(f"{name} {values[-1]:.1g}" for name, values in norms.items())
    return fig, (
        f"Norm of the first layer's gradient for {blocks[0]} to {blocks[-1]} blocks; at "
        f"{blocks[-1]} blocks it is: {last}."
    )


def leak(pairs, bars):
    "Pairs of copies, and {who: (share right on pictures with a copy in training, on the rest)}."
    n = len(pairs)
    fig, axes = plots.subplots(2, n + 1, size=(9, 2.9), width_ratios=[1] * n + [3.4])
    for column, pair in enumerate(pairs):
        for ax, picture in zip(axes[:, column], pair):
            _picture(ax, picture)
    grid = axes[0, n].get_gridspec()
    axes[0, n].remove(), axes[1, n].remove()
    with plots.plt.rc_context(plots.STYLE):
        ax = fig.add_subplot(grid[:, n])
    for row, (name, (twins, rest)) in enumerate(bars.items()):
        ax.plot([PER_CENT * rest, PER_CENT * twins], [-row, -row], color="#bbbbbb")
        ax.plot(PER_CENT * twins, -row, "s", color=plots.RED, ms=8)
        ax.plot(PER_CENT * rest, -row, "o", color=plots.BLUE, ms=9)
        ax.annotate(f"{name}: {PER_CENT * rest:.0f} and {PER_CENT * twins:.0f} %",
                    (PER_CENT * rest, -row), xytext=(0, 10), textcoords="offset points")  # fmt: skip
    ax.set(
        ylim=(-1.6, 0.8), xlim=(PER_CENT * min(min(b) for b in bars.values()) - 3, 103)
    )
    ax.set_yticks([])
    ax.set_xlabel("right answers, %")
    ax.annotate("● nothing like it in training", (0.02, 0.03), xycoords="axes fraction",
                fontsize=9, color=plots.BLUE)  # fmt: skip
    ax.annotate("■ a copy in training", (0.55, 0.03), xycoords="axes fraction",
                fontsize=9, color=plots.RED)  # fmt: skip
    plots.title(ax, "A leak flatters those who remember")
    told = "; ".join(
        f"{name} has {PER_CENT * rest:.0f} % of the others right and {PER_CENT * twins:.0f} "
        "% of those with a copy in training"
        for name, (twins, rest) in bars.items()
    )
    return fig, f"Pairs of copies, one above the other. On a random split, {told}."


def changed(X, X_changed):
    "Pictures in the upper row, what augmentation made of them in the lower."
    fig, axes = plots.subplots(2, len(X), size=(8.6, 2.2))
    for column in range(len(X)):
        _picture(axes[0, column], X[column, 0])
        _picture(axes[1, column], X_changed[column, 0])
    return fig, (
        f"{len(X)} pictures, and below each a copy that is mirrored or not and moved by a "
        "few pixels: the same label, other pixels."
    )


def ladder(rows, count):
    "{name: (right answers of count, low, high)}: accuracy with its 95 % interval."
    fig, ax = plots.subplots(size=(7.4, 0.6 * len(rows) + 1.1))
    for place, (right, low, high) in enumerate(rows.values()):
        share = PER_CENT * right / count
        ax.plot([PER_CENT * low, PER_CENT * high], [-place] * 2, color=plots.SKY, lw=5,
                alpha=0.5, solid_capstyle="butt")  # fmt: skip
        ax.plot(share, -place, "o", color=plots.BLUE, ms=7)
        ax.annotate(f"{share:.1f}", (share, -place), xytext=(0, 8), ha="center",
                    textcoords="offset points", fontsize=9, color=plots.BLUE)  # fmt: skip
    ax.set_yticks(-np.arange(len(rows)), rows)
    ax.set(ylim=(-len(rows) + 0.4, 0.7), xlabel="right answers on new pictures, %")
    bar = rows["nearest neighbour"][0]
    above = " and ".join(f"the {name}" for name, row in rows.items() if row[0] > bar)
    plots.title(ax, f"Better than a look-up: {above or 'none'}")
    told = "; ".join(f"{n} {PER_CENT * r[0] / count:.1f} %" for n, r in rows.items())
    return fig, (f"Test accuracy on {count:,} pictures with 95 % intervals: {told}.")


def see(nets, X, y, names, most=6, rows=300):
    "A lab's `draw`: a picture pushed aside, and what each of {name: network} says of it."
    side, names = X.shape[-1], list(names)
    few = [int(np.flatnonzero(np.asarray(y) == c)[0]) for c in range(len(names))]

    def moved(some, right, down):
        some = np.asarray(some)
        padded = np.pad(some, ((0, 0), (0, 0), (most, most), (most, most)))
        return torch.tensor(
            padded[
                ...,
                most - down : most - down + side,
                most - right : most - right + side,
            ]
        )

    @torch.inference_mode()
    def says(net, some):
        net.eval()
        return net(some).softmax(1).numpy()

    curves = {
        name: [PER_CENT * float(np.mean(
            says(net, moved(X[:rows], shift, 0)).argmax(1) == np.asarray(y[:rows])))
            for shift in range(-most, most + 1)]
        for name, net in nets.items()
    }  # fmt: skip

    def draw(picture=names[4], right=0, down=0):
        some = moved(X[few[names.index(picture)]][None], right, down)
        fig, axes = plots.subplots(1, 3, size=(9.4, 3.3), width_ratios=[1.5, 1.5, 1.7])
        _picture(axes[0], some[0, 0])
        axes[0].set_title(f"{picture}: {right} right, {down} down", fontsize=10)
        told = []
        height = 0.8 / len(nets)
        for at, (name, net) in enumerate(nets.items()):
            share = says(net, some)[0]
            verb = "say" if name.endswith("s") else "says"
            told.append(
                f"the {name} {verb} {names[int(share.argmax())]} ({share.max():.0%})"
            )
            axes[1].barh(np.arange(len(names)) + (at - 1) * height, PER_CENT * share,
                         height=height, color=plots.PALETTE[at])  # fmt: skip
            axes[2].plot(range(-most, most + 1), curves[name],
                                   color=plots.PALETTE[at])  # fmt: skip
            axes[2].plot(right, curves[name][right + most], "o", ms=8,
                         color=plots.PALETTE[at])  # fmt: skip
            axes[2].annotate(name, (0.5, 0.05 + 0.08 * (len(nets) - 1 - at)), fontsize=8,
                             xycoords="axes fraction", ha="center",
                             color=plots.PALETTE[at])  # fmt: skip
        axes[1].set_yticks(range(len(names)), names, fontsize=8)
        axes[1].invert_yaxis()
        axes[1].set(xlim=(0, 100), xlabel="probability, %")
        axes[2].set_xticks(range(-most, most + 1, 2))
        axes[2].set(
            ylim=(0, 100), xlabel="pixels to the right", ylabel="right answers, %"
        )
        axes[2].set_title(f"{len(X[:rows])} test pictures, moved", fontsize=10)
        return fig, (
            f"A {picture} moved by {right} pixels to the right and {down} down: "
            f"{'; '.join(told)}."
        )

    draw.curves = curves  # per cent right at each shift to the right, from -most on
    # the steps of its controls that the book shows (utils/course/book/frames.py)
    draw.book = {
        "picture": [names[2], names[4], names[9]],
        "right": sorted({-most, -most // 2, 0, most // 3, 2 * most // 3, most}),
        "down": [0, most // 2],
    }
    return draw
