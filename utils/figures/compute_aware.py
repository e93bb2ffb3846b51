"""The figures of chapter 26."""

import numpy as np
import torch

from utils import plots
from utils.built import fivefold

COLOURS = {
    "hand-made": plots.BLACK, "gates": plots.RED, "early decision": plots.BLUE,
    "search": plots.GREEN,
}  # fmt: skip


def _mosaic(ax, images_ND, wrong_N, columns, asked_N=None):
    "Digits in rows of `columns`; orange frames where wrong, blue where asked on."
    from matplotlib.patches import Rectangle

    rows = -(-len(images_ND) // columns)
    for i, (image, wrong) in enumerate(zip(images_ND, wrong_N)):
        x, y = i % columns, i // columns
        asked = asked_N is not None and asked_N[i]
        ax.imshow(image.reshape(8, 8), cmap="Blues" if asked else "Greys", vmin=0,
                  vmax=1.15 * float(images_ND.max()), extent=(x, x + 0.9, y + 0.9, y))  # fmt: skip
        if wrong:
            ax.add_patch(Rectangle((x, y), 0.9, 0.9, fill=False, ec=plots.RED, lw=2))
    ax.set(xlim=(-0.1, columns), ylim=(rows, -0.1), aspect="equal")
    ax.axis("off")


def first_look(digits, small, large, count=40):
    "The images that the small network is surest and least sure of."
    pair = fivefold.Pair(digits, small, large)
    at = digits.fold_N, torch.arange(len(digits.fold_N))
    order_N = pair.sure_KN[at].argsort(descending=True, stable=True)
    surest, least = order_N[:count], order_N[-count:]
    wrong1_N, wrong2_N = ~pair.right1_KN[at], ~pair.right2_KN[at]
    assert wrong1_N[surest].sum() < count / 10, "sure, and wrong"
    assert wrong1_N[least].sum() > max(count / 3, 1.5 * wrong2_N[least].sum())
    fig, axes = plots.subplots(1, 2, size=(8.6, 3.6))
    for ax, rows_N, name in zip(axes, (surest, least), ("surest", "least sure")):
        wrong = wrong1_N[rows_N].tolist()
        _mosaic(ax, digits.X_ND[rows_N].numpy(), wrong, 8)
        plots.title(ax, f"Its {count} {name}: {sum(wrong)} wrong")
    return fig, (
        f"Left, the {count} images that the small network is surest of, "
        f"{int(wrong1_N[surest].sum())} of them read wrong; right its {count} least sure "
        f"ones, {int(wrong1_N[least].sum())} wrong, in orange frames. The large network, not "
        f"shown, reads {int(wrong2_N[least].sum())} of those wrong."
    )


def fronts(series, finding, says):
    "{label: points (cost, percent)} on one axis; the label stands at its line's end."
    fig, ax = plots.subplots(size=(7.2, 4.2))
    _draw_fronts(ax, series)
    plots.title(ax, finding)
    return fig, says


def _draw_fronts(ax, series):
    for label, points in series.items():
        colour = COLOURS.get(label, plots.PURPLE)
        cost, score = np.array(sorted(points)).T
        ax.plot(cost, score, "o-", color=colour, ms=5, lw=1.2)
        above = label == "early decision"
        ax.annotate(label, (cost[-1], score[-1]), xytext=(-4, 7) if above else (6, -3),
                    color=colour, textcoords="offset points", annotation_clip=False,
                    va="bottom" if above else "top", ha="right" if above else "left")  # fmt: skip
    ax.set(xscale="log", xlabel="multiply-adds per image", ylabel="percent right")


def lab(digits, first, seconds, hand):
    "Price -> who answers what. seconds: {name: networks}; hand: [(cost, percent)]."
    pairs = {name: fivefold.Pair(digits, first, nets) for name, nets in seconds.items()}
    rows_N = torch.arange(0, len(digits.y_N), 18)[:100]
    at = digits.fold_N[rows_N], rows_N
    names = list(seconds)
    prices = 10.0 ** np.arange(-3.5, -0.45, 0.25)
    paths = {
        name: [pair.judge(pair.by_price(price)) for price in prices]
        for name, pair in pairs.items()
    }

    def draw(power=-2.0, second=names[0]):
        pair, price = pairs[second], 10.0**power
        stops_KN = pair.by_price(price)
        cost, score = pair.judge(stops_KN)
        fig, (left, right) = plots.subplots(
            1, 2, size=(9.8, 4.3), width_ratios=[1.1, 1]
        )
        _draw_fronts(left, {"hand-made": hand})
        x, y = np.array(paths[second]).T
        left.plot(x, y, ".", color=plots.SKY, ms=7)
        left.plot([cost], [score], "o", color=plots.BLUE, ms=12)
        left.set(ylim=(85, 98.5), xlim=(500, 150_000))
        plots.title(left, f"{cost:,.0f} multiply-adds, {score:.1f} % right")
        sure_N, stop_N = pair.sure_KN[at], stops_KN[at]
        right_N = torch.where(stop_N, pair.right1_KN[at], pair.right2_KN[at])
        order = torch.cat([  # answered by the first network, then by the second
            part[sure_N[part].argsort(descending=True, stable=True)]
            for part in (stop_N.nonzero()[:, 0], (~stop_N).nonzero()[:, 0])
        ])  # fmt: skip
        _mosaic(right, digits.X_ND[rows_N[order]].numpy(), (~right_N[order]).tolist(), 10,
                (~stop_N[order]).tolist())  # fmt: skip
        asked, wrong = int((~stop_N).sum()), int((~right_N).sum())
        plots.title(right, f"{asked} of {len(order)} are asked on; {wrong} wrong")
        return fig, (
            f"At {price:.2g} nats per 1,000 multiply-adds, {asked} of {len(order)} images go "
            f"to the second network, {second} (blue), and {wrong} of all are read wrong (orange "
            f"frames). Over all images: {cost:,.0f} multiply-adds, {score:.1f} % right."
        )

    draw.book = {"power": [-3.5, -3, -2.5, -2.25, -2, -1.75, -1.5, -1.25, -1, -0.5]}
    draw.book["second"] = names
    return draw


def scales(ratios, finding):
    "{batch: {multiply-adds of the large network: cascade's time / its time}}."
    fig, ax = plots.subplots(size=(7.2, 3.6))
    starts = [next(iter(row.values())) for row in ratios.values()]
    for (batch, row), colour in zip(ratios.items(), (plots.BLUE, plots.ORANGE)):
        ax.plot(list(row), list(row.values()), "o-", color=colour)
        start = next(iter(row.items()))
        above = start[1] == max(starts)  # one label above both lines, one below
        ax.annotate(f"{batch} at a time", start, xytext=(8, 4 if above else -6),
                    textcoords="offset points", va="bottom" if above else "top",
                    color=colour)  # fmt: skip
    ax.axhline(1, color=plots.BLACK, lw=1, ls=":")
    ax.set(xscale="log", yscale="log", xlabel="multiply-adds of the large network",
           ylabel="time, cascade / large")  # fmt: skip
    ax.minorticks_off()
    ax.set_yticks([0.2, 0.5, 1, 2], ["0.2", "0.5", "1", "2"])
    ax.set_ylim(0.12, 4)
    last = [list(row.values())[-1] for row in ratios.values()]
    both = min(starts) > 1 > max(last)
    plots.title(ax, "A cascade saves time once the products are what takes it" if both
                else "How much of the large network's time early decision takes")  # fmt: skip
    return fig, finding
