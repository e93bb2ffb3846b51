"""The figures of chapter 07."""

import functools
import math

import numpy as np
import torch
from torch import nn

from utils import plots
from utils.built.seq import NGram, vocabulary

LINE = "My mistress with a monster is in love."  # A Midsummer Night's Dream, III.2


@functools.lru_cache(maxsize=1)
def _text():
    "The text as numbers, once: -> train, validation, V, encode, decode."
    from utils.data.text import shakespeare

    train, validation = shakespeare()
    chars, encode, decode = vocabulary(train + validation)
    return encode(train).numpy(), encode(validation).numpy(), len(chars), encode, decode


def first_look(most=6, wide=46):
    "What counting gives: surprise by how far it looks back, and a line that it writes."
    train, validation, V, encode, decode = _text()
    surprise, written = [], []
    for order in range(1, most + 1):
        counter = NGram(train, order, V)
        surprise.append(counter.nats(validation))
        ids = counter.write(encode("\n"), 3 * wide, np.random.default_rng(3))
        written.append(" ".join(decode(ids).split())[:wide])
    fig, ax = plots.subplots(size=(8.6, 3.3))
    best = int(np.argmin(surprise))
    for place, (nats, line) in enumerate(zip(surprise, written)):
        colour = plots.GREEN if place == best else plots.SKY
        ax.barh(place, nats, color=colour, height=0.72)
        ax.annotate(f"{nats:.2f}", (nats, place), xytext=(-4, 0), color="white",
                    textcoords="offset points", ha="right", va="center")  # fmt: skip
        ax.annotate(line, (1.02, place), xycoords=("axes fraction", "data"), va="center",
                    family="monospace", fontsize=8.5, annotation_clip=False)  # fmt: skip
    ax.set_yticks(range(most), [str(order - 1) for order in range(1, most + 1)])
    ax.set(xlabel="surprise per character of an unseen play, nats", xlim=(0, 3.5))
    ax.set_ylabel("characters it looks back")
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    plots.title(ax, f"Counting alone is best when it looks {best} characters back")
    return fig, (
        f"Surprise of a counter on an unseen play, by the characters it looks back: from "
        f"{surprise[0]:.2f} nats at 0 down to {surprise[best]:.2f} at {best}, then "
        f"{surprise[-1]:.2f} at {most - 1}; beside each bar a line that this counter wrote, "
        f"at {best}: {written[best]}"
    )


def _spread_labels(ax, x, ends, apart=1.6):
    "A label at the end of each line, moved apart where two lie on each other."
    taken = []
    for name, (y, colour) in sorted(ends.items(), key=lambda item: -item[1][0]):
        place = math.log10(max(y, 1e-22))
        while any(abs(place - other) < apart for other in taken):
            place -= apart / 4
        taken.append(place)
        ax.annotate(name, (x, 10**place), xytext=(8, 0), textcoords="offset points",
                    color=colour, va="center", annotation_clip=False)  # fmt: skip


def reach_of_cells(measured, predicted, steps):
    "{cell: reach at each of `steps`}, and {cell: predicted rate per step} as dotted lines."
    fig, ax = plots.subplots(size=(7.4, 4.2))
    colours = dict(zip(measured, (plots.BLUE, plots.RED, plots.GREEN, plots.PURPLE)))
    looks = dict(zip(measured, ("o-", "x--", "s-", "^-")))
    for name, values in measured.items():
        ax.plot(steps, values, looks[name], color=colours[name], ms=6, lw=1.6)
    all_steps = np.arange(steps[-1] + 1)
    for name, rate in predicted.items():
        ax.plot(all_steps, float(rate) ** all_steps, ":", color=colours[name], lw=1.6)
    ax.set(yscale="log", xlabel="steps back, T", ylim=(1e-23, 300))
    ax.set_ylabel("what step T still feels of step 0")
    ax.annotate("dotted: predicted", (0.03, 0.05), xycoords="axes fraction", fontsize=9)
    _spread_labels(ax, steps[-1], {n: (v[-1], colours[n]) for n, v in measured.items()})
    ax.margins(x=0.02)
    plain, gated, *_ = (values[-1] for values in measured.values())
    times = gated / plain
    plots.title(ax, "A default LSTM forgets as fast as a plain cell" if times < 1e4 else
                f"A default LSTM feels {times:.0e} times as much as a plain cell")  # fmt: skip
    parts = "; ".join(
        f"{name}: {v[-1]:.0e}" if v[-1] < 1e-3 else f"{name}: {v[-1]:.2g}"
        for name, v in measured.items()
    )
    return fig, (
        f"The gradient of the last state with respect to the first over up to {steps[-1]} "
        f"steps, on a logarithmic axis. At {steps[-1]} steps, {parts}. Dotted lines are "
        f"predictions."
    )


# ---- the lab ----


def felt(forget_bias, inputs_shut=False, D=24, H=64, rows=32):
    "What an untrained LSTM's last c feels of each character of LINE, beside the last one."
    torch.manual_seed(0)
    layer = nn.LSTM(D, H, batch_first=True)
    with torch.no_grad():
        layer.bias_ih_l0[H : 2 * H], layer.bias_hh_l0[H : 2 * H] = forget_bias, 0
        if inputs_shut:
            layer.bias_ih_l0[:H], layer.bias_hh_l0[:H] = -forget_bias, 0
    x_BTD = torch.randn(rows, len(LINE), D).mul(0.5).requires_grad_()
    u_BH = nn.functional.normalize(torch.randn(rows, H), dim=1)
    last_BH = layer(x_BTD)[1][1][0]
    (grad_BTD,) = torch.autograd.grad((last_BH * u_BH).sum(), x_BTD)
    felt_T = grad_BTD.norm(dim=2).mean(0).numpy()
    return felt_T / felt_T[-1]


def memory(forget_bias=0.0, inputs_shut=False):
    "A lab: how strongly the last state feels each character of a line."
    T, felt_T = len(LINE), felt(forget_bias, inputs_shut)
    share = 1 / (1 + math.exp(-forget_bias))
    predicted_T = share ** np.arange(T - 1, -1, -1)
    fig, (top, low) = plots.subplots(
        2, 1, size=(8.4, 4.2), height_ratios=[1, 3.4], sharex=True
    )
    _shade(top, LINE, np.clip(1 + np.log10(np.maximum(felt_T, 1e-9)) / 3, 0, 1))
    low.plot(np.maximum(felt_T, 1e-12), ".-", color=plots.BLUE, lw=1.2)
    low.plot(np.maximum(predicted_T, 1e-12), ":", color=plots.RED, lw=1.8)
    for text, colour, y in (
        ("measured", plots.BLUE, 0.16),
        (f"predicted: the forget gate alone, {share:.3f} per step", plots.RED, 0.06),
    ):
        low.annotate(
            text, (0.99, y), xycoords="axes fraction", color=colour, ha="right"
        )
    low.set(yscale="log", ylim=(1e-12, 30), xlim=(-0.7, T - 0.3))
    low.set_ylabel("felt, beside the last one")
    low.set_xlabel("character of the line")
    seen = int((felt_T > 1e-3).sum())
    gates = ", inputs shut" if inputs_shut else ""
    plots.title(top, f"Forget bias {forget_bias:g}{gates}: {seen} of {T} characters felt "
                "above a thousandth")  # fmt: skip
    return fig, (
        f"An untrained LSTM with forget bias {forget_bias:g}{gates} reads the line '{LINE}': "
        f"its last state feels {seen} of {T} characters above a thousandth of the last one. "
        f"It feels the first at {felt_T[0]:.1g}, predicted {predicted_T[0]:.1g}."
    )


memory.book = {"forget_bias": [-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}


def _shade(ax, text, share, colour=(0.0, 0.45, 0.70)):
    "Characters on a colour that is as strong as their share, 0 to 1."
    for at, (char, s) in enumerate(zip(text, share)):
        tint = 1 - float(s) * (1 - np.array(colour))
        ax.axvspan(at - 0.5, at + 0.5, color=tint, lw=0)
        ax.text(at, 0.5, char, ha="center", va="center", family="monospace", fontsize=11,
                color="white" if s > 0.65 else plots.BLACK, parse_math=False)  # fmt: skip
    ax.set(xlim=(-0.5, len(text) - 0.5), ylim=(0, 1))
    ax.set_yticks([])
    ax.tick_params(labelbottom=False, bottom=False)
    ax.grid(False)
    for side in ax.spines.values():
        side.set_visible(False)


# ---- trainings ----


def _smooth(losses, width=10):
    return np.convolve(losses, np.ones(width) / width, "valid")


def recall(runs, chance):
    "{name: losses} of the recall task beside the loss of guessing."
    fig, ax = plots.subplots(size=(7.2, 3.4))
    colours = (plots.RED, plots.GREEN, plots.PURPLE, plots.BLUE)
    looks = ("-", 4.5), ("-", 1.8), ("--", 1.8), ("-", 1.8)  # two lie on each other
    for losses, colour, (dash, width) in zip(runs.values(), colours, looks):
        shown = np.maximum(_smooth(losses), 1e-3)
        ax.plot(np.arange(len(shown)) + 9, shown, dash, color=colour, lw=width)
    ends = {name: (np.mean(v[-10:]), c) for (name, v), c in zip(runs.items(), colours)}
    _spread_labels(ax, len(losses), ends, apart=0.24)
    ax.plot([0, len(losses)], [chance, chance], ":", color=plots.BLACK, lw=1)
    ax.annotate("guessing", (0, chance), xytext=(2, 4), textcoords="offset points",
                fontsize=9)  # fmt: skip
    ax.set(yscale="log", xlabel="step", ylim=(1e-3, 5))
    ax.set_ylabel("loss, nats")
    solved = sum(np.mean(v[-10:]) < chance / 4 for v in runs.values())
    plots.title(
        ax, f"The numbers it starts with decide: {solved} of {len(runs)} solved"
    )
    parts = "; ".join(f"{n}: {np.mean(v[-10:]):.2g}" for n, v in runs.items())
    return fig, (
        f"Loss over {len(losses)} steps of recalling the first symbol, beside guessing at "
        f"{chance:.2f}. At the end, {parts}."
    )


def mixture(text, counter_p, network_p):
    "A piece of the play, shaded by each one's surprise, and by that of their mean."
    rows = {"counter": counter_p, "network": network_p,
            "mean of both": (counter_p + network_p) / 2}  # fmt: skip
    fig, axes = plots.subplots(3, 1, size=(9.4, 2.5))
    for ax, (name, p) in zip(axes, rows.items()):
        nats = -np.log(p)
        shown = text.replace("\n", "/")
        _shade(ax, shown, np.clip(nats / 6, 0, 1), colour=(0.77, 0.31, 0.0))
        ax.set_ylabel(f"{name}\n{nats.mean():.2f} nats", rotation=0, ha="right", va="center",
                      fontsize=9)  # fmt: skip
    plots.title(axes[0], "The darker, the more surprised: the mean softens the worst")
    parts = ", ".join(f"{n} {-np.log(p).mean():.2f}" for n, p in rows.items())
    return fig, (
        f"A piece of the unseen play of {len(text)} characters, shaded by surprise: mean "
        f"nats here {parts}."
    )


def melody(melody_T, scores_CT, tune, rate, names, hears=216, step=32):
    "The spectrum of a melody over time, and below it the notes heard and played."
    seconds, width = len(melody_T) / rate, 512
    pieces = melody_T[: len(melody_T) // width * width].reshape(-1, width)
    power = np.abs(np.fft.rfft(pieces * np.hanning(width), 1024))
    fig, (top, low) = plots.subplots(2, 1, size=(8.4, 4.6), sharex=True)
    top.imshow(np.log10(power.T + 1e-2), origin="lower", aspect="auto", cmap="Greys",
               extent=(0, seconds, 0, rate / 2000))  # fmt: skip
    top.set_ylabel("kHz")
    top.grid(False)
    block = round(0.05 * rate / step)  # answers in about 50 ms
    cut = scores_CT.shape[1] // block * block
    heard = scores_CT[:, :cut].reshape(len(scores_CT), -1, block).mean(2).argmax(0)
    middle = (
        block - 1
    ) * step / 2 + hears / 2  # samples: what the first block has heard
    at = (np.arange(len(heard)) * block * step + middle) / rate
    played = np.asarray(tune)[(at / seconds * len(tune)).astype(int)] % 12
    low.plot(at, played, "s", ms=5, color=plots.SKY, alpha=0.45, mew=0)
    low.plot(at, heard, ".", ms=4, color=plots.RED)
    low.set_yticks(range(0, 12, 2), names[::2])
    low.set(xlabel="seconds", ylabel="note", ylim=(-0.7, 11.7), xlim=(0, seconds))
    right = np.mean(heard == played)
    plots.title(top, "A melody as its spectrum, with overtones and noise")
    plots.title(
        low, f"Heard (orange) on played (blue): {right:.0%} of the moments agree"
    )
    return fig, (
        f"Above, the spectrum of {seconds:.0f} seconds of melody over time; below, the note "
        f"that the network hears in every 50 ms on the note played: {right:.0%} agree."
    )
