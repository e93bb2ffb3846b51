"""The figures of chapter 02."""

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap

from utils import plots
from utils.built import neurons

SIDES = ListedColormap(["#cfe3f2", "#f5e3c4"])  # background: says 0, says 1
LOOKS = ((plots.BLUE, "o"), (plots.ORANGE, "s"))  # a point of class 0, of class 1


def _points(ax, X_N2, y_N, **style):
    for k, (colour, marker) in enumerate(LOOKS):
        ax.scatter(
            *X_N2[y_N == k].T, color=colour, marker=marker, edgecolor="white", lw=0.5,
            **{"s": 26, **style},
        )  # fmt: skip


def _regions(ax, score, X_N2, margin=0.35, fine=160):
    "Colour what `score` (points -> numbers) calls 0 and 1; the boundary is a line."
    (x0, y0), (x1, y1) = X_N2.min(0) - margin, X_N2.max(0) + margin
    x, y = np.meshgrid(np.linspace(x0, x1, fine), np.linspace(y0, y1, fine))
    z = score(np.c_[x.ravel(), y.ravel()]).reshape(x.shape)
    ax.contourf(x, y, z, levels=[-1e99, 0.5, 1e99], cmap=SIDES)
    if z.min() < 0.5 < z.max():
        ax.contour(x, y, z, levels=[0.5], colors=plots.BLACK, linewidths=1.5)
    ax.set(xlim=(x0, x1), ylim=(y0, y1), xlabel="$x_1$", ylabel="$x_2$")
    ax.grid(False)


def first_look(X_N2, y_N):
    "Two moons: the line of least squares, and a line on top of twenty random bends."
    A = np.c_[X_N2, np.ones(len(y_N))]
    p = np.linalg.lstsq(A, y_N, rcond=None)[0]
    layers = neurons.random_net(X_N2, y_N, width=20, bend=np.tanh)
    scores = {
        "The line of least squares": lambda X: X @ p[:2] + p[2],
        "A line on top of 20 bends": lambda X: neurons.mlp_forward(X, layers, np.tanh)[
            :, 0
        ],
    }
    fig, axes = plots.subplots(1, 2, size=(8.4, 3.4))
    shares = []
    for ax, (name, score) in zip(axes, scores.items()):
        _regions(ax, score, X_N2)
        _points(ax, X_N2, y_N)
        shares.append(np.mean((score(X_N2) > 0.5) == y_N))
        plots.title(ax, f"{name}: {100 * shares[-1]:.0f} % right")
    return fig, (
        f"Two interleaved half moons of points: the line of least squares gets "
        f"{100 * shares[0]:.0f} % right, the same kind of line on top of twenty random bends "
        f"gets {100 * shares[1]:.0f} % right."
    )


def folds(layers):
    "XOR: where the two hidden units fold the plane, and where its corners land."
    (W, b), (V, c) = layers
    corners = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    truth = np.array([0, 1, 1, 0])
    names = ["(0,0)", "(0,1)", "(1,0)", "(1,1)"]
    fig, (left, right) = plots.subplots(1, 2, size=(8.8, 3.8))

    def score(X):
        return neurons.mlp_forward(X, layers)[:, 0]

    _regions(left, score, corners, margin=0.5)
    x = np.linspace(-0.6, 1.6, 2)
    for unit, style in enumerate((":", "--")):
        left.plot(
            [], [], style, color=plots.PURPLE, lw=1.5, label=f"fold of $h_{unit + 1}$"
        )
        (w1, w2), at = W[:, unit], b[unit]
        if abs(w2) > 1e-9:
            left.plot(x, -(w1 * x + at) / w2, style, color=plots.PURPLE, lw=1.5)
        elif abs(w1) > 1e-9:
            left.axvline(-at / w1, ls=style, color=plots.PURPLE, lw=1.5)
    hidden = neurons.relu(neurons.linear(corners, W, b))
    side = np.linspace(-0.5, 1.5, 21)
    plane = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    landed = neurons.relu(neurons.linear(plane, W, b))
    _regions(right, lambda h: neurons.linear(h, V, c)[:, 0], hidden, margin=0.6)
    right.plot(*landed.T, ".", color=plots.PURPLE, ms=4)
    for ax, spots in ((left, corners), (right, hidden)):
        _points(ax, spots, truth, s=90, zorder=3)
    for name, spot in zip(names, corners):
        left.annotate(name, spot, xytext=(9, -4), textcoords="offset points")
    together = {}
    for name, spot in zip(names, hidden.round(6) + 0.0):
        together.setdefault(tuple(spot), []).append(name)
    for spot, here in together.items():
        right.annotate(
            " and ".join(here), spot, xytext=(0, -18), textcoords="offset points", ha="center",
            bbox={"facecolor": "white", "alpha": 0.7, "lw": 0, "pad": 1},
        )  # fmt: skip
    left.legend(loc="lower left", fontsize=9, framealpha=0.9)
    left.set(xticks=[0, 1], yticks=[0, 1])
    right.locator_params(nbins=5)
    right.set(xlabel="hidden unit $h_1$", ylabel="hidden unit $h_2$")
    plots.title(left, "Each hidden unit folds the plane once")
    plots.title(right, "After the folds, one line is enough")
    where = "; ".join(
        f"{' and '.join(v)} at ({k[0]:g}, {k[1]:g})" for k, v in together.items()
    )
    return fig, (
        "Left: the four corners, the two folds and the region that the network calls 1. "
        f"Right: all of the plane after the hidden layer, as dots; the corners lie {where}."
    )


def saturation(bends, slope):
    "Each bend and its slope; the shaded parts have less than 5 % of the largest slope."
    z = np.linspace(-6, 6, 241)
    fig, axes = plots.subplots(1, 3, size=(9.4, 3.2), sharex=True)
    says = []
    for ax, (name, bend) in zip(axes, bends.items()):
        value, rise = np.asarray(bend(z)), np.asarray(slope(name, z))
        alive = rise > 0.05 * rise.max()
        for side in (z < 0, z > 0):
            flat = z[side & ~alive]
            if len(flat):
                ax.axvspan(flat.min(), flat.max(), color="#e8e8e8", zorder=0)
        ax.plot(z, value, color=plots.BLUE)
        ax.plot(z, rise, color=plots.RED, ls="--")
        ax.set(ylim=(-1.2, 2.2), xlabel="z", xticks=[-6, -3, 0, 3, 6])
        ax.annotate("value", (0.04, 0.9), xycoords="axes fraction", color=plots.BLUE)
        ax.annotate("slope", (0.04, 0.8), xycoords="axes fraction", color=plots.RED)
        plots.title(ax, f"{name}: slope at most {rise.max():g}")
        says.append(f"{name} at most {rise.max():g}")
    return fig, (
        "Three bends and their slopes, shaded where the slope is below 5 % of its "
        f"largest: {', '.join(says)}; sigmoid and tanh are flat far out on both sides, "
        "relu on one."
    )


def moons_lab(random_net, mlp_forward, bends, noise=0.2):
    "A lab: the boundary of a random bent layer with a line on top, and its test error."
    from utils.data import moons

    X_N2, y_N = moons(200, noise)
    X_test, y_test = moons(1000, noise, seed=1)
    widths = (1, 2, 3, 5, 8, 12, 20, 30, 50, 70, 100)
    bends = {**bends, "none": lambda z: z}
    curves = {}  # (bend, seed) -> share right on new points, one per width

    def right(layers, bend, X, y):
        return np.mean((np.ravel(mlp_forward(X, layers, bend)) > 0.5) == y)

    def curve(name, seed):
        if (name, seed) not in curves:
            curves[name, seed] = [
                right(
                    random_net(X_N2, y_N, w, bends[name], seed),
                    bends[name],
                    X_test,
                    y_test,
                )
                for w in widths
            ]
        return curves[name, seed]

    straight = curve("none", 0)[-1]

    def draw(width=3, bend="relu", seed=0):
        f = bends[bend]
        layers = random_net(X_N2, y_N, width, f, seed)
        seen, new = right(layers, f, X_N2, y_N), right(layers, f, X_test, y_test)
        fig, (left, side) = plots.subplots(1, 2, size=(9, 3.6))
        _regions(left, lambda X: np.ravel(mlp_forward(X, layers, f)), X_N2, fine=90)
        (W, b), _ = layers
        if bend != "none":  # where each unit is at 0: the fold, or its steepest line
            (x0, x1), (y0, y1) = left.get_xlim(), left.get_ylim()
            creases = []
            for w, at in list(zip(W.T, b))[:25]:
                if abs(w[1]) > abs(w[0]):
                    creases.append([(x, -(w[0] * x + at) / w[1]) for x in (x0, x1)])
                else:
                    creases.append([(-(w[1] * y + at) / w[0], y) for y in (y0, y1)])
            left.add_collection(LineCollection(creases, colors=plots.PURPLE, lw=0.5))
            left.set(xlim=(x0, x1), ylim=(y0, y1))
        _points(left, X_N2, y_N, s=16)
        side.plot(widths, curve(bend, seed), ".-", color=plots.GREEN)
        side.plot(width, new, "o", ms=10, color=plots.RED)
        side.axhline(straight, color=plots.BLACK, lw=1, ls=":")
        side.annotate(
            "the line without bends", (100, straight), xytext=(0, -12), ha="right",
            textcoords="offset points", fontsize=9,
        )  # fmt: skip
        side.set(xscale="log", ylim=(0.4, 1.02), xlabel="width (hidden units)")
        side.minorticks_off()
        side.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
        side.set_ylabel("share of new points right")
        plots.title(left, f"{width} x {bend}: {100 * seen:.1f} % of the 200 seen")
        plots.title(side, f"Seed {seed}: {100 * new:.1f} % of 1,000 new ones")
        return fig, (
            f"A random layer of {width} units with bend {bend} (seed {seed}) and the best "
            f"line on top: {100 * seen:.1f} % of the points it was fitted to, {100 * new:.1f} % of new ones."
        )

    # the steps of its controls that the book shows (utils/course/book/frames.py)
    draw.book = {"width": [1, 3, 12, 100], "seed": [0, 1, 2, 3, 4]}
    return draw


def surely_wrong(sigmoid):
    "The slope along the logit for a row of class 1: cross-entropy and squared error."
    z = np.linspace(-8, 8, 161)
    p = np.asarray(sigmoid(z))
    entropy, square = p - 1, 2 * (p - 1) * p * (1 - p)
    fig, ax = plots.subplots(size=(6.8, 3.4))
    ax.plot(z, entropy, color=plots.BLUE)
    ax.plot(z, square, color=plots.RED, ls="--")
    ax.annotate("cross-entropy: p - 1", (-7.8, -0.94), color=plots.BLUE)
    ax.annotate("squared error: 2 (p - 1) p (1 - p)", (-7.8, -0.36), color=plots.RED)
    ax.set(xlabel="logit z of a row whose truth is 1", ylabel="slope along z")
    ax.annotate("surely wrong", (-8, 0.05), color=plots.BLACK, fontsize=9)
    ax.annotate("surely right", (8, 0.05), color=plots.BLACK, fontsize=9, ha="right")
    ax.set_ylim(-1.05, 0.15)
    plots.title(ax, "Surely wrong: cross-entropy pulls, squared error lets go")
    return fig, (
        "Slope of two losses along the logit of a row whose truth is 1: towards -8 "
        "cross-entropy's slope goes to -1 and that of the squared error back to 0."
    )


def _frameless(ax):
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    ax.spines[:].set_visible(False)


def class_pictures(W_DC):
    "Each class's weights as an 8 x 8 picture."
    fig, axes = plots.subplots(2, 5, size=(8, 3.5))
    top = np.abs(W_DC).max()
    for k, ax in enumerate(axes.flat):
        image = ax.imshow(W_DC[:, k].reshape(8, 8), cmap="PuOr", vmin=-top, vmax=top)
        ax.set_title(f"for {k}", fontsize=10)
        _frameless(ax)
    fig.colorbar(image, ax=axes, label="weight of the pixel", shrink=0.8)
    fig.suptitle(
        "The weights are pictures: a 0 must be empty in the middle", fontweight="bold"
    )
    return fig, (
        "Ten 8 by 8 pictures, the weights of each digit's logit: purple where ink speaks "
        "for the digit, orange where it speaks against it; the middle of 0 is orange."
    )


def mistakes(X_ND, y_N, p_NC, most=10):
    "The test images that the model gets wrong, surest first."
    says = p_NC.argmax(1)
    wrong = np.flatnonzero(says != y_N)
    wrong = wrong[np.argsort(-p_NC[wrong, says[wrong]])]
    shown = wrong[:most]
    fig, axes = plots.subplots(1, max(len(shown), 1), size=(9, 1.9), squeeze=False)
    for ax, n in zip(axes[0], shown):
        ax.imshow(X_ND[n].reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        ax.set_title(
            f"{y_N[n]} read as {says[n]}\np = {p_NC[n, says[n]]:.2f}", fontsize=9
        )
    for ax in axes[0]:
        _frameless(ax)
    fig.suptitle(f"Wrong on {len(wrong)} of {len(y_N)} new digits", fontweight="bold")
    pairs = ", ".join(f"{y_N[n]} taken for {says[n]}" for n in shown[:3])
    return fig, (
        f"The {len(shown)} images that the model gets wrong, out of {len(y_N)}, with the "
        f"probability of its wrong answer; the surest are {pairs}."
    )
