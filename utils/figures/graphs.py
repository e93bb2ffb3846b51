"""Chapter 08: figures, and the lab in which two members' sides spread through a club."""

import numpy as np
import torch

from utils import plots
from utils.built import graph
from utils.data.graphs import karate

# Where the members stand in every drawing of the club: a layout made once, kept as numbers
PLACES = np.array([
    (-.23, -.23), (-.10, -.53), (.13, -.02), (-.14, .04), (-.53, .00), (-.65, -.04),
    (-.62, -.41), (-.15, .29), (.19, -.48), (.45, .07), (-.53, .36), (-.52, -.73),
    (-.37, .51), (.11, -.33), (.60, -.97), (.72, -.87), (-1.0, -.21), (-.37, -.85),
    (.82, -.70), (.13, -.69), (.89, -.49), (-.26, -1.0), (.90, -.23), (.67, .46),
    (.36, 1.0), (.22, .92), (1.0, .02), (.41, .47), (.43, .29), (.82, .19),
    (.33, -.83), (.19, .23), (.53, -.37), (.55, -.23),
])  # fmt: skip
TEACHER, PRESIDENT = 0, 33
PER_CENT = 100


def first_look():
    "The club's split by a cut, by averages and by a network; the chapter writes each out."
    club = karate()
    edges_E2, side_N = torch.tensor(club.edges_E2), torch.tensor(club.side_N)
    A_NN, known_N = graph.adjacency(edges_E2, 34), torch.zeros(34, dtype=torch.bool)
    known_N[[TEACHER, PRESIDENT]] = True
    Y_NC = torch.eye(2)[side_N]
    flowed_NC = graph.label_propagation(A_NN, Y_NC, known_N, 100)
    said = {
        "1977: a minimum cut": _cut(club),
        "2002: label propagation": flowed_NC.argmax(1).numpy(),
        "2017: a graph network": _network(A_NN, side_N, known_N).argmax(1).numpy(),
    }
    return three_maps(said, club)


def _cut(club):
    import networkx

    net = networkx.Graph()
    for (i, j), meetings in zip(club.edges_E2.tolist(), club.meetings_E.tolist()):
        net.add_edge(i, j, capacity=meetings)
    _, (_, far) = networkx.minimum_cut(net, TEACHER, PRESIDENT)
    return np.array([int(i in far) for i in range(34)])


def _network(A_NN, side_N, known_N, steps=200):
    "Plain descent: torch's first optimiser of a process takes seconds to load."
    A_hat_NN, dice = graph.normalise(A_NN), torch.Generator().manual_seed(0)
    sizes = (34, 16), (16, 2)
    weights = [
        torch.randn(a, b, generator=dice) * (2 / (a + b)) ** 0.5 for a, b in sizes
    ]
    weights = [W.requires_grad_() for W in weights]
    for _ in range(steps):
        logits_NC = graph.gcn(lambda H: A_hat_NN @ H, torch.eye(34), weights)
        loss = graph.masked_cross_entropy(logits_NC, side_N, known_N)
        slopes = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for W, slope in zip(weights, slopes):
                W -= slope
    return logits_NC.detach()


def three_maps(said, club):
    "{method: side of each member} as three maps of the club; errors are ringed."
    fig, axes = plots.subplots(1, len(said), size=(10.4, 4.1))
    wrong = {
        name: np.flatnonzero(side_N != club.side_N) for name, side_N in said.items()
    }
    for ax, (name, side_N) in zip(axes, said.items()):
        _map(ax, club, side_N.astype(float), [TEACHER, PRESIDENT], wrong[name])
        plots.title(ax, name)
    fig.supxlabel(
        "circle: with the teacher; square: with the officers; ring: wrong",
        x=0.01, ha="left", fontsize=9,
    )  # fmt: skip
    errors = {tuple(rows) for rows in wrong.values()}
    assert errors == {(8,)}, f"one error each, the same: {errors}"
    plots.heading(
        fig,
        "Told two sides of 34, three methods make one error each, and it is the same member",
    )
    return fig, (
        "Three maps of the karate club, friends joined by lines: a minimum cut, label "
        "propagation and a graph network are told the sides of members 0 and 33 and place "
        "all others right but member 8, in all three."
    )


def _map(ax, club, share_N, known, wrong=()):
    "Members at their places: a circle says side 0, a square side 1, a diamond neither."
    ends = PLACES[club.edges_E2]
    ax.plot(ends[:, :, 0].T, ends[:, :, 1].T, color="#cfcfcf", lw=0.8, zorder=1)
    colours = plots.plt.get_cmap("RdYlBu_r")
    for i, ((x, y), share) in enumerate(zip(PLACES, share_N)):
        shape = "D" if abs(share - 0.5) < 1e-12 else "o" if share < 0.5 else "s"
        told, pale = i in known, abs(share - 0.5) < 0.2
        ax.plot(
            x, y, shape, ms=15 if told else 10, color=colours(0.08 + 0.84 * share),
            mec=plots.BLACK, mew=2 if told else 0.6, zorder=2,
        )  # fmt: skip
        if told:
            ax.text(x, y, i, ha="center", va="center", fontsize=8, fontweight="bold",
                    color=plots.BLACK if pale else "white", zorder=3)  # fmt: skip
    for i in wrong:
        ax.plot(*PLACES[i], "o", ms=19, mfc="none", mec=plots.RED, mew=2.2, zorder=4)
        ax.annotate(f"{i}", PLACES[i], xytext=(11, 8), textcoords="offset points",
                    color=plots.RED, fontweight="bold", zorder=5)  # fmt: skip
    ax.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15))
    ax.axis("off")


# ---- the club ----


def pairs(right):
    "{method: members right, one number per pair of labelled members} as rows of dots."
    fig, ax = plots.subplots(size=(7.2, 3.2))
    names = list(right)
    for row, counts in enumerate(right.values()):
        values, times = np.unique(counts, return_counts=True)
        for value, n in zip(values, times):
            up = row + 0.75 * np.arange(n) / max(max(times), 14)
            ax.plot([value] * n, up, ".", color=plots.PALETTE[row], ms=6)
        middle = np.median(counts)
        ax.annotate(f"median {middle:g}", (15.4, row + 0.3), fontsize=9,
                    color=plots.PALETTE[row])  # fmt: skip
        ax.plot(
            [middle] * 2, [row - 0.12, row + 0.8], color=plots.BLACK, lw=1.2, ls=":"
        )
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(axis="y", length=0)
    ax.set_xticks(range(16, 35, 2))
    ax.set(
        xlim=(15, 34.7), ylim=(-0.25, len(names)), xlabel="members placed right, of 34"
    )
    low, high = (f([np.median(c) for c in right.values()]) for f in (min, max))
    plots.title(
        ax, f"Two random members tell less: typically {low:g} to {high:g} right"
    )
    listed = "; ".join(
        f"{n.replace(chr(10), ' ')} {np.median(c):g}" for n, c in right.items()
    )
    count = len(next(iter(right.values())))
    return fig, (
        f"Members placed right for {count} random pairs of labelled members, one dot per "
        f"pair. Medians: {listed}."
    )


HOPS = [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]


def spread(hops=2, labelled_a=TEACHER, labelled_b=PRESIDENT):
    "A lab: two members' sides after some rounds of A_hat, and what is left of the gap."
    club = karate()
    A_NN = graph.adjacency(torch.tensor(club.edges_E2), 34).double()
    A_hat_NN, start_N2 = graph.normalise(A_NN), torch.zeros(34, 2, dtype=A_NN.dtype)
    start_N2[labelled_a, 0] = start_N2[labelled_b, 1] = 1.0

    def after(k):
        now_N2 = torch.linalg.matrix_power(A_hat_NN, k) @ start_N2
        total_N = now_N2.sum(1)
        share_N = torch.where(total_N > 0, now_N2[:, 1] / total_N, 0.5).numpy()
        decided = np.abs(share_N - 0.5) > 1e-12
        right_N = decided & ((share_N > 0.5) == club.side_N)
        wrong = np.flatnonzero(decided & ~right_N)
        return share_N, right_N.sum(), float(graph.roughness(A_NN, now_N2)), wrong

    share_N, right, rough, wrong = after(hops)
    curve = [after(k) for k in HOPS]
    fig, (left, top) = plots.subplots(1, 2, size=(9, 4.3), width_ratios=[5, 4])
    _map(left, club, share_N, [labelled_a, labelled_b], wrong if len(wrong) < 9 else ())
    span = share_N.min(), share_N.max()
    rounds = f"{hops} round{'s' * (hops != 1)}"
    plots.title(left, f"After {rounds}: {right} of 34 on the right side")
    left.text(0, -0.02, f"officers' share from {span[0]:.2f} to {span[1]:.2f}",
              transform=left.transAxes, fontsize=9)  # fmt: skip
    at = np.array(HOPS)
    top.plot(at, [c[1] for c in curve], ".-", color=plots.BLUE)
    top.plot(hops, right, "o", ms=11, mfc="none", mec=plots.RED, mew=2)
    top.set_xscale("symlog", base=2, linthresh=1)
    top.set_xticks(
        [0, 1, 2, 4, 8, 16, 32, 64], ["0", "1", "2", "4", "8", "16", "32", "64"]
    )
    top.set(ylim=(0, 36), xlabel="rounds of A_hat", ylabel="members right")
    top.axhline(17, color=plots.BLACK, lw=1, ls=":")
    top.annotate("all on one side: 17", (0, 17), xytext=(3, 4), fontsize=9,
                 textcoords="offset points")  # fmt: skip
    other = top.twinx()
    other.plot(at, [c[2] for c in curve], ".-", color=plots.ORANGE, lw=1.2)
    other.set(yscale="log")
    other.set_ylabel("roughness", color=plots.ORANGE)
    other.grid(False)
    other.spines["right"].set_visible(True)
    best = max(curve, key=lambda c: c[1])[1]
    first = next(k for k, c in zip(HOPS, curve) if c[1] == best)
    plots.title(top, f"{best} right after {first} rounds; never more")
    return fig, (
        f"The club after {rounds} from members {labelled_a} and {labelled_b}: {right} "
        f"of 34 members lean to their own side, the officers' share lies between "
        f"{span[0]:.2f} and {span[1]:.2f}, and the roughness is {rough:.2g}."
    )


# the steps of its controls that the book shows (utils/course/book/frames.py)
spread.book = {
    "hops": [0, 1, 2, 4, 16, 64],
    "labelled_a": [0, 1, 11],
    "labelled_b": [33, 9],
}


# ---- a thousand nodes ----


def methods(scores, largest, told):
    "{method: accuracy per draw of labels} as bars with their draws, and a first guess."
    fig, ax = plots.subplots(size=(7.6, 3.7))
    for row, (name, values) in enumerate(reversed(scores.items())):
        mean = PER_CENT * np.mean(values)
        kinds = {"text": plots.SKY, "wrong": plots.RED}
        colour = kinds.get(name.split()[0].rstrip(":"), plots.BLUE)
        ax.barh(row, mean, color=colour, height=0.62, alpha=0.75)
        ax.plot(PER_CENT * np.array(values), [row] * len(values), "|", color=plots.BLACK,
                ms=9)  # fmt: skip
        ax.annotate(f"{mean:.0f} %", (max(mean, PER_CENT * max(values)), row),
                    xytext=(6, 0), textcoords="offset points", va="center",
                    bbox={"fc": "white", "ec": "none", "pad": 1})  # fmt: skip
    ax.axvline(PER_CENT * largest, color=plots.BLACK, lw=1, ls=":")
    ax.annotate("largest class", (PER_CENT * largest, len(scores) - 0.45),
                xytext=(3, 0), textcoords="offset points", fontsize=9)  # fmt: skip
    ax.set_yticks(range(len(scores)), list(reversed(scores)))
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.set(xlim=(0, 100), ylim=(-0.5, len(scores)), xlabel="files placed right, %")
    plots.title(ax, told)
    listed = "; ".join(f"{n} {PER_CENT * np.mean(v):.0f} %" for n, v in scores.items())
    return fig, (
        f"Share of the files without a label that each method places right, mean of "
        f"{len(next(iter(scores.values())))} draws of labels: {listed}."
    )


def deeper(rough, rate, by_rounds, by_layers):
    "Roughness by round beside its prediction; accuracy by rounds and by layers."
    fig, (left, right) = plots.subplots(1, 2, size=(9.4, 3.6))
    at = np.arange(len(rough))
    left.plot(at, rough, ".", color=plots.BLUE, ms=6)
    left.plot(at, rough[-1] * rate ** (at - at[-1]), color=plots.BLACK, lw=1, ls=":")
    middle = len(at) // 2
    left.annotate("predicted from an eigenvalue", (middle, rough[middle]),
                  xytext=(-4, 22), textcoords="offset points", fontsize=9)  # fmt: skip
    left.annotate("measured", (2, rough[2]), xytext=(8, 3), textcoords="offset points",
                  color=plots.BLUE, fontsize=9)  # fmt: skip
    left.set(yscale="log", xlabel="rounds of A_hat", ylabel="roughness")
    plots.title(left, f"The club: in the end times {rate:.3f} per round")
    for series, name, colour, at, off in (
        (by_rounds, "rounds, then one linear layer", plots.BLUE, 3, (0, 10)),
        (by_layers, "layers of\na network", plots.ORANGE, 0, (-4, -36)),
    ):
        x, y = list(series), PER_CENT * np.array(list(series.values()))
        right.plot(x, y, ".-", color=colour)
        right.annotate(name, (x[at], y[at]), xytext=off, textcoords="offset points",
                       color=colour, fontsize=9, ha="center")  # fmt: skip
    right.set_xscale("symlog", base=2, linthresh=1)
    ticks = [0, 1, 2, 4, 8, 16, 32, 64]
    right.set_xticks(ticks, [str(tick) for tick in ticks])
    right.set(ylim=(0, 100), xlabel="how often neighbours are asked",
              ylabel="files placed right, %")  # fmt: skip
    best = max(by_rounds, key=by_rounds.get)
    plots.title(right, f"The files: best at {best} rounds, blurred at {max(by_rounds)}")
    return fig, (
        f"Left: the roughness of random features on the club falls by {rate:.3f} per round, "
        f"as predicted. Right: accuracy on the files peaks at {best} rounds with "
        f"{PER_CENT * by_rounds[best]:.0f} % and ends at "
        f"{PER_CENT * by_rounds[max(by_rounds)]:.0f} % after {max(by_rounds)}; a network of "
        f"{max(by_layers)} layers reaches {PER_CENT * by_layers[max(by_layers)]:.0f} %."
    )


def twins(colour_N):
    "Two triangles and a ring of six, nodes coloured by what messages can tell."
    fig, ax = plots.subplots(size=(6.6, 2.6))
    turn = np.linspace(0, 2 * np.pi, 7)[:6] + np.pi / 6
    corners = turn[:6:2]
    places = np.concatenate([
        [(0.75 * np.cos(a) - 2.4, 0.75 * np.sin(a)) for a in corners],
        [(0.75 * np.cos(a), 0.75 * np.sin(a)) for a in corners],
        [(np.cos(a) + 3.2, np.sin(a)) for a in turn],
    ])  # fmt: skip
    edges = [(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3)]
    edges += [(6 + i, 6 + (i + 1) % 6) for i in range(6)]
    for i, j in edges:
        ax.plot(*places[[i, j]].T, color="#b5b5b5", lw=1.5, zorder=1)
    for (x, y), colour in zip(places, colour_N):
        ax.plot(x, y, "o", ms=13, color=plots.PALETTE[colour % 7], zorder=2)
        ax.text(x, y, colour, color="white", ha="center", va="center", fontsize=9,
                zorder=3)  # fmt: skip
    ax.set(xlim=(-3.6, 4.6), ylim=(-1.3, 1.3), aspect="equal")
    ax.axis("off")
    count = len(set(colour_N))
    plots.title(ax, f"Two triangles and a ring: {count} colour, however often they ask")
    return fig, (
        f"Two triangles side by side and a ring of six: after any number of rounds all "
        f"twelve nodes have {count} colour, so no message tells the two graphs apart."
    )
