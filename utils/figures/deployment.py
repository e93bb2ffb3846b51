"""The figures of chapter 27."""

import copy
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils import plots
from utils.built import attacks, fivefold, int8, load, packed, quant


def moved(x_BD):
    "The images as a camera sees them that sits one pixel to the left: (B, 64) -> (B, 64)."
    return F.pad(x_BD.reshape(-1, 8, 8)[:, :, :-1], (1, 0)).flatten(1)


def trained():
    """Chapter 24's network on two thirds of the digits: -> digits, net, new.

    new (N,): which images it has not seen.
    """
    digits = fivefold.Digits()
    new = torch.arange(len(digits.y_N)) % 3 == 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = quant.Folds.net()
    net = quant.fit(net, digits.X_ND[~new], digits.y_N[~new], 15, 6e-3)
    return digits, net.eval(), new


def flipped(net, seed):
    "A copy of a network with the highest exponent bit of one weight turned."
    net = copy.deepcopy(net)
    words_N = net[2].weight.data.view(torch.int32).flatten()
    words_N[np.random.default_rng(seed).integers(len(words_N))] ^= 1 << 30
    return net


def percent(net, x_BD, y_B):
    "Percent of images read right."
    with torch.no_grad():
        return 100 * (net(x_BD).argmax(1) == y_B).float().mean().item()


def first_look(net, X_ND, y_N, eps=0.1):
    "One digit, and three things that no test set has; -> figure, sentence, shares."
    changed = {
        "as it was tested": X_ND,
        f"each pixel ±{eps:g}, chosen": attacks.fgsm(net, X_ND, y_N, eps),
        "one pixel to the right": moved(X_ND),
    }
    broken = min((flipped(net, seed) for seed in range(40)),
                 key=lambda n: percent(n, X_ND, y_N))  # fmt: skip
    views = [(name, net, x) for name, x in changed.items()]
    views.append(("one bit of 1.6 million", broken, X_ND))
    reads = [n(x).argmax(1) for _, n, x in views]
    wrong = torch.stack([reads[0] == y_N] + [r != y_N for r in reads[1:]]).all(0)
    which = int(wrong.nonzero()[0]) if wrong.any() else 0
    fig, axes = plots.subplots(1, 4, size=(9.4, 3.5))
    shares = {}
    for ax, (name, n, x_BD), read_B in zip(axes, views, reads):
        shares[name] = percent(n, x_BD, y_N)
        ax.imshow(x_BD[which].reshape(8, 8).numpy(), cmap="gray_r", vmin=0, vmax=1)
        ax.set_title(name, fontsize=10)
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        ax.set_xlabel(
            f"read as {read_B[which]}\nright: {shares[name]:.0f} % of {len(y_N)}"
        )
    plots.heading(
        fig,
        f"One network, one {y_N[which]}: what the test set never asked",
    )
    told = ", ".join(f"{name} {share:.0f} %" for name, share in shares.items())
    return fig, (
        f"The same {y_N[which]} four times with what the network reads, and the share of all "
        f"{len(y_N)} unseen images that it reads right: {told}."
    ), shares  # fmt: skip


# ---- what a device needs, where to cut: what chapter 24 built, put in place ----


def forms(net, exported, blob, run, X_ND):
    """Four forms of a network as files, and what one row takes here.

    exported: of torch.export; blob: an ONNX file's bytes, run(X): what runs it.
    -> {file: bytes}, {file: CPU seconds of one row}; "int8.bpq, 64 rows" as well. Without
    chapter 24's kernel on this machine, int8 has no seconds.
    """
    with TemporaryDirectory() as place:
        torch.save(net.state_dict(), Path(place, "state.pt"))
        torch.export.save(exported, Path(place, "net.pt2"))
        Path(place, "net.onnx").write_bytes(blob)
        tensors = {
            name: packed.pack(p.data, 8) if p.ndim == 2 else p.data
            for name, p in net.named_parameters()
        }
        packed.save_packed(Path(place, "int8.bpq"), tensors)
        sizes = {file.name: file.stat().st_size for file in Path(place).iterdir()}
    row, X, program = X_ND[:1], X_ND[:1].numpy(), exported.module()
    ways = {
        "state.pt": lambda: net(row),
        "net.pt2": lambda: program(row),
        "net.onnx": lambda: run(X),
    }
    lossy, seen = int8.saturates(), quant.calibrate(net, lambda net: net(X_ND))
    if int8.works(lambda layer: int8.Int8Linear(layer, *quant.affine(-4, 4), lossy)):
        small = int8.swap_linears(
            copy.deepcopy(net),
            lambda name, layer: int8.Int8Linear(
                layer, *seen[name].affine(), reduced=lossy
            ),
        )
        ways["int8.bpq"] = lambda: small(row)
        ways["int8.bpq, 64 rows"] = lambda: small(X_ND[:64])
    return sizes, {n: median(t) / 50 for n, t in int8.cpu_seconds(ways, 50).items()}


def camera(net, x_BD):
    """A camera before a network: -> a longer nn.Sequential, pictures (B, 1024).

    Its first layer averages blocks of 4 x 4 of a picture of 32 x 32: 64 pixels. The
    pictures are the images x_BD (B, 64) with each pixel sixteen times.
    """
    blocks = nn.Linear(1024, 64)
    where = torch.arange(1024).reshape(8, 4, 8, 4).permute(0, 2, 1, 3).reshape(64, 16)
    blocks.weight.data = torch.zeros(64, 1024).scatter(1, where, 1 / 16)
    blocks.bias.data.zero_()
    wide_BYX = x_BD.reshape(-1, 8, 8).repeat_interleave(4, 1).repeat_interleave(4, 2)
    return nn.Sequential(blocks, *net), wide_BYX.flatten(1)


# ---- load ----


def waits(kinds):
    "{name: latencies}: the share of requests answered within so many seconds."
    fig, ax = plots.subplots(size=(7.4, 3.5))
    colours = (plots.RED, plots.BLUE, plots.GREEN)
    for (name, seconds), colour, high in zip(
        kinds.items(), colours, (0.92, 0.82, 0.72)
    ):
        x = 1e3 * np.sort(seconds)
        ax.step(x, np.arange(1, len(x) + 1) / len(x), color=colour, where="post")
        ax.text(
            0.015, high, name, transform=ax.transAxes, ha="left", color=colour,
            fontweight="bold",
        )  # fmt: skip
        for q in (50, 95, 99):
            ax.plot(1e3 * load.percentile(seconds, q), q / 100, "o", color=colour, ms=5)
    ax.set(
        xscale="log", xlabel="milliseconds from the planned time (dots: p50, p95, p99)",
        ylabel="share answered",
    )  # fmt: skip
    p99 = {name: 1e3 * load.percentile(s, 99) for name, s in kinds.items()}
    names = list(p99)
    times = p99[names[0]] / p99[names[1]]
    plots.title(ax, f"p99 {names[0]}: {times:.1f} times that of {names[1]}")
    told = ", ".join(f"{name} {ms:.0f} ms" for name, ms in p99.items())
    return (
        fig,
        f"Share of requests answered against milliseconds. 99th percentiles: {told}.",
    )


def lab(seconds, most=400):
    "draw(load, wait_ms, limit): a queue that is computed; seconds: rows -> seconds."
    alone = seconds(1)

    def draw(offered=1.2, wait_ms=0, limit=32):
        due = load.arrivals(offered / alone, most, seed=1)
        latency, sizes = load.batched(due, seconds, limit, wait_ms / 1e3)
        p50, p95, p99 = (1e3 * load.percentile(latency, q) for q in (50, 95, 99))
        fig, ax = plots.subplots(size=(7.4, 3.3))
        low, high = 0.5e3 * alone, 1e3 * most * alone
        bins = np.geomspace(low, high, 50)
        ax.hist(1e3 * latency, np.clip(bins, low, high), color=plots.SKY, alpha=0.45)
        for at in (p50, p95, p99):
            ax.axvline(at, color=plots.RED, lw=1.2)
        ax.set(
            xscale="log",
            xlim=(low / 2, high),
            xlabel=f"milliseconds (lines: p50 {p50:.0f}, p95 {p95:.0f}, p99 {p99:.0f})",
            ylabel="requests",
        )
        mean = np.mean(sizes)
        plots.title(
            ax, f"{offered:.2g} times what one by one can do; {mean:.1f} rows a batch"
        )
        return fig, (
            f"Latencies of {most} requests at {offered:.2g} times the rate that one by one "
            f"can serve, batches of up to {limit}, wait {wait_ms} ms: p50 {p50:.0f}, p95 "
            f"{p95:.0f}, p99 {p99:.0f} ms, {mean:.1f} rows in a batch."
        )

    draw.book = {
        "offered": [0.3, 0.9, 1.2, 3.0],
        "wait_ms": [0, 10, 40],
        "limit": [1, 32],
    }
    return draw


def cuts(rates, predicted, rate, measured):
    "predicted: {cut: seconds at each rate}; measured: {cut: seconds} at `rate`."
    fig, ax = plots.subplots(size=(7.6, 3.7))
    colours = {0: plots.BLUE, 1: plots.GREEN, max(predicted): plots.RED}
    names = {
        0: "0: send the picture",
        1: "1: send 64 numbers",
        max(predicted): "all here",
    }
    for cut, seconds in predicted.items():
        colour = colours.get(cut, "#bbbbbb")
        ax.plot(rates / 1e3, 1e3 * np.array(seconds), color=colour,
                lw=2 if cut in colours else 1)  # fmt: skip
        ax.plot(rate / 1e3, 1e3 * measured[cut], "o", color=colour, mec="white", ms=8)
        if cut in names:
            at, shift = (-1, (-52, 6)) if cut == max(predicted) else (0, (9, 3))
            ax.annotate(
                names[cut], (rates[at] / 1e3, 1e3 * seconds[at]), xytext=shift,
                textcoords="offset points", color=colour,
                bbox={"fc": "white", "ec": "none", "pad": 0.5},
            )  # fmt: skip
    best = min(measured, key=measured.get)
    ax.set(xscale="log", yscale="log", xlabel="the link's rate, kB per second",
           ylabel="milliseconds per picture")  # fmt: skip
    plots.title(
        ax,
        f"At {rate / 1e3:g} kB/s, cut {best} is fastest: {1e3 * measured[best]:.0f} ms",
    )
    told = ", ".join(f"cut {k} {1e3 * s:.0f}" for k, s in measured.items())
    return fig, (
        "Milliseconds per picture against the rate of the link, one line for each cut, with "
        f"dots for what was measured at {rate / 1e3:g} kB per second: {told} ms."
    )


# ---- attacks, reasons, drift ----


def attacked(scores):
    "{name: {eps: percent right}}."
    fig, ax = plots.subplots(size=(7.2, 3.5))
    for name, by_eps in scores.items():
        x, y = list(by_eps), list(by_eps.values())
        (line,) = ax.plot(x, y)
        if name == "FGSM":  # ends where PGD does
            ax.annotate(name, (x[-2], y[-2]), xytext=(-2, 9), textcoords="offset points",
                        color=line.get_color())  # fmt: skip
        else:
            plots.label_end(ax, line, name)
    ax.set(xlabel="eps: the most by which a pixel may change", ylabel="read right (%)",
           xlim=(0, 0.205), ylim=(-3, 103))  # fmt: skip
    last = {name: by_eps[0.1] for name, by_eps in scores.items()}
    plots.title(ax, "Random signs of the same size hardly hurt; chosen ones do")
    told = ", ".join(f"{name} {share:.0f}" for name, share in last.items())
    return fig, f"Percent read right against eps; at eps 0.1: {told}."


def maps(x_D, found, shares):
    "found: {name: map (64,)}; shares: {name: percent right after deleting 8 pixels}."
    fig, axes = plots.subplots(1, 1 + len(found), size=(9.0, 2.7))
    axes[0].imshow(x_D.reshape(8, 8).numpy(), cmap="gray_r", vmin=0, vmax=1)
    axes[0].set_title("the image", fontsize=10)
    for ax, (name, map_D) in zip(axes[1:], found.items()):
        edge = float(np.abs(map_D).max())
        ax.imshow(np.reshape(map_D, (8, 8)), cmap="RdBu", vmin=-edge, vmax=edge)
        ax.set_title(name, fontsize=10)
        ax.set_xlabel(f"8 pixels fewer:\n{shares[name]:.2g} % right")
    for ax in axes:
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
    plots.heading(
        fig,
        "A map that looks like a reason may not be one: delete its pixels and see",
    )
    told = ", ".join(f"{name} {share:.2g} %" for name, share in shares.items())
    return fig, (
        "One image and four maps of its pixels (blue for, red against), with the share of "
        f"images still read right once the eight highest are black: {told}."
    )


def alarms(rows):
    "rows: {change: (share of alarms by certainty, by brightness, percent right)}."
    fig, ax = plots.subplots(size=(7.6, 3.3))
    names = list(rows)
    y = np.arange(len(names))[::-1]
    for k, (label, colour) in enumerate(
        (("alarms: certainty", plots.ORANGE), ("alarms: brightness", plots.PURPLE),
         ("read right", plots.BLUE))
    ):  # fmt: skip
        values = [100 * row[k] if k < 2 else row[k] for row in rows.values()]
        ax.barh(y + 0.27 - 0.27 * k, values, 0.25, color=colour, label=label)
        for at, value in zip(y + 0.27 - 0.27 * k, values):
            if value < 0.5:  # a bar of no length looks like a missing one
                ax.text(0.7, at, "0", color=colour, va="center", fontsize=9)
    ax.set(yticks=y, yticklabels=names, xlabel="percent", xlim=(0, 101))
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    plots.title(ax, "An alarm is not harm, and one statistic's silence is not health")
    told = "; ".join(
        f"{n}: alarms {100 * a:.0f} and {100 * b:.0f} %, {c:.0f} % right"
        for n, (a, b, c) in rows.items()
    )
    return (
        fig,
        f"Share of windows with an alarm, by certainty and by brightness: {told}.",
    )
