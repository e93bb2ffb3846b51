"""Chapter 09: figures whose drawing is not the lesson."""

import numpy as np
import torch
import torch.nn.functional as F

from utils import plots
from utils.built import attention as A

WORDS = "zub fip wem nok tal zub fip wem nok".split()


def first_look():
    "Two look-ups, set by hand, on words that are none: who reads what, and what is said."
    names = sorted(set(WORDS))
    ids = torch.tensor([0, *(1 + names.index(word) for word in WORDS)])
    x_TV, T = F.one_hot(ids, len(names) + 1).float(), len(ids)
    place, mask = torch.eye(T + 1), A.causal_mask(T, T)
    before_TV = A.attention(1e3 * place[:T], place[1:], x_TV, mask)
    weights_TT = A.weights(1e3 * x_TV, before_TV, mask)
    said_TV = weights_TT @ x_TV
    begin = len(names)  # where the second round begins, of the words
    fig, ax = plots.subplots(size=(8.6, 2.4))
    right = 0
    for t, word in enumerate(WORDS):
        again = t >= begin
        ax.text(t, 0, word, ha="center", va="center", fontsize=13,
                color=plots.BLUE if again else plots.BLACK)  # fmt: skip
        if not again:
            continue
        source = weights_TT[t + 1].argmax().item() - 1
        said = names[said_TV[t + 1].argmax().item() - 1]
        right += t + 1 == len(WORDS) or said == WORDS[t + 1]
        _arc(ax, t, source, plots.ORANGE)
        ax.text(t, -0.85, said, ha="center", va="center", fontsize=13,
                color=plots.GREEN, fontweight="bold")  # fmt: skip
    ax.text(-0.75, 0, "read", ha="right", va="center", fontsize=10)
    ax.text(-0.75, -0.85, "says next", ha="right", va="center", fontsize=10)
    ax.set(xlim=(-1.9, len(WORDS) - 0.4), ylim=(-1.3, 1.6))
    ax.axis("off")
    second = len(WORDS) - begin
    plots.title(
        ax, f"Nobody trained this: {right} of {second} right, on words it never saw"
    )
    return fig, (
        f"Nine invented words, of which the last {second} repeat the first. Each of these "
        "looks back at the word that came after its own earlier copy, drawn as an arc, and "
        "says that word next."
    )


def _arc(ax, start, end, colour):
    "An arrow that goes up from one word and comes down on another."
    ax.annotate(
        "", (end, 0.22), (start, 0.22),
        arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.6,
                    "connectionstyle": f"arc3,rad={0.42 if start > end else -0.42}"},
    )  # fmt: skip


def spectrum(before, after):
    "Singular values of a slope, and of what `orthogonal` makes of it."
    fig, ax = plots.subplots(size=(6.6, 3.2))
    before, after = (np.asarray(s.detach()) for s in (before, after))
    plots.lines(
        ax, {"slope, over its largest": before / before[0], "orthogonal": after}
    )
    ax.set(yscale="log", xlabel="singular value, from the largest", ylabel="size")
    low, high = after[: len(after) // 2].min(), after.max()
    plots.title(ax, f"Half of all directions now lie between {low:.1f} and {high:.1f}")
    ax.set_xlim(-2, len(before) + 2)
    return fig, (
        f"Singular values of one matrix's slope, falling over {len(before)} directions, and "
        f"of the same matrix after five steps of the polynomial: the larger half lies "
        f"between {low:.1f} and {high:.1f}."
    )


def race(counted, ours, record, theirs_ms, ours_ms):
    "Loss on the unseen play by CPU seconds on this machine: counter, ours, the recipe."
    fig, ax = plots.subplots(size=(7.2, 3.6))
    at = np.array(record["curve"])
    seconds = at[:, 0] * theirs_ms / 1e3
    (line,) = ax.plot(seconds, at[:, 1], ".-", color=plots.BLACK)
    plots.label_end(ax, line, f"recipe {at[-1, 1]:.2f}")
    mine = record["our_steps"] * ours_ms / 1e3
    ax.plot(mine, ours, "o", color=plots.BLUE, ms=9)
    ax.annotate(f"ours {ours:.2f}", (mine, ours), xytext=(8, 3), color=plots.BLUE,
                textcoords="offset points", va="bottom")  # fmt: skip
    ax.axhline(counted, color=plots.RED, lw=1.2, ls="--")
    ax.annotate(f"counting {counted:.2f}", (seconds[-1], counted), xytext=(0, -4),
                ha="right", va="top", color=plots.RED, textcoords="offset points")  # fmt: skip
    ax.set(xlabel="CPU seconds on this machine", ylabel="nats per character")
    ax.set_ylim(min(counted, ours) - 0.12, 2.75)
    ax.margins(x=0.12)
    gain = seconds[-1] / mine
    plots.title(ax, f"{gain:.1f} times less CPU time than the recipe")
    return fig, (
        f"Loss on the unseen play against CPU seconds: the recipe falls to {at[-1, 1]:.2f} "
        f"after {seconds[-1]:.0f} s, ours is at {ours:.2f} after {mine:.0f} s, and counting "
        f"stands at {counted:.2f} after less than one."
    )


def found(scores):
    "{what: (layers, heads)} mean attention weights, as bars."
    fig, axes = plots.subplots(1, len(scores), size=(7.6, 2.8), sharey=True)
    names = {"before": "on the token before", "after copy": "after the earlier copy"}
    for ax, (what, score_LH) in zip(axes, scores.items()):
        score_LH = np.asarray(score_LH)
        layers, heads = score_LH.shape
        for layer in range(layers):
            places = layer * (heads + 0.7) + np.arange(heads)
            colour = (plots.BLUE, plots.ORANGE)[layer % 2]
            bars = ax.bar(places, score_LH[layer], color=colour, width=0.8)
            ax.bar_label(bars, fmt="%.2f", fontsize=9, color=colour)
            ax.text(places.mean(), -0.17, f"layer {layer}", ha="center", color=colour)
        ax.set(xticks=[], ylim=(0, 1.1))
        plots.title(ax, names[what])
    axes[0].set_ylabel("mean weight")
    best = {what: score.max().item() for what, score in scores.items()}
    return fig, (
        f"Mean attention weights per head: the best head of the first layer puts "
        f"{best['before']:.2f} on the token before, the best of the second layer "
        f"{best['after copy']:.2f} on the token after the earlier copy."
    )


TEXTS = {
    "game: 12 symbols": "game",
    "game: 19 symbols": "game",
    "play: a line": "VIOLA:\nWhat country, friends, is this?\n",
    "play: a name": "MALVOLIO:\nMy lady! MALVOLIO:\nMy lady!",
}
SYMBOLS = "abcdefghijklmnopqrstuvwxyzABCDEF"


def heads(models, looks_of, encode, chars):
    """A lab: -> draw(text, layer, head, cut_off).

    models: {"game": ..., "play": ...}; looks_of(model, ids_BT) -> weights per layer.
    """
    dice = torch.Generator().manual_seed(5)
    rows = {}
    for name, text in TEXTS.items():
        if text == "game":
            period = int(name.split()[1])
            ids = torch.randperm(32, generator=dice)[:period]
            rows[name] = "game", ids.repeat(3)[:40], SYMBOLS
        else:
            rows[name] = "play", encode(text), chars

    def draw(text="game: 12 symbols", layer=1, head=0, cut_off=False):
        kind, ids_T, letters = rows[text]
        model = models[kind]
        block = model.blocks[layer]
        head = min(head, block.heads - 1)
        with torch.no_grad():
            whole = _losses(model, ids_T)
            weights_TS = looks_of(model, ids_T[None])[layer][0, head].numpy()
            cut = _without(model, block, head, ids_T)
        shown = [
            letters[i].replace("\n", "↵").replace(" ", "␣") for i in ids_T.tolist()
        ]
        return _face(text, layer, head, cut_off, shown, weights_TS, whole, cut)

    def change(text, layer, head):
        "How much the mean loss rises when this head is cut off."
        kind, ids_T, _ = rows[text]
        model = models[kind]
        with torch.no_grad():
            whole = _losses(model, ids_T)
            return (_without(model, model.blocks[layer], head, ids_T) - whole).mean()

    draw.texts, draw.change = list(TEXTS), change
    draw.book = {"layer": [0, 1], "head": [0, 1, 2], "cut_off": [False, True]}
    return draw


def _losses(model, ids_T):
    "Loss of each token but the first, given those before it: (T - 1,)."
    logits_TV = model(ids_T[None])[0, :-1]
    return F.cross_entropy(logits_TV, ids_T[1:], reduction="none").numpy()


def _without(model, block, head, ids_T):
    "The same with one head's part of `out` at 0."
    D = block.out.weight.shape[1] // block.heads
    kept = block.out.weight.data.clone()
    try:
        block.out.weight.data[:, head * D : (head + 1) * D] = 0
        return _losses(model, ids_T)
    finally:
        block.out.weight.data = kept


def _face(text, layer, head, cut_off, shown, weights_TS, whole, cut):
    T = len(shown)
    fig = plots.subplots(size=(8.8, 4.6))[0]
    fig.clear()
    left, right = fig.subplots(1, 2, width_ratios=[5, 4])
    left.imshow(weights_TS, cmap="Blues", vmin=0, vmax=1)
    left.set_xticks(range(T), shown, fontsize=7, family="monospace")
    left.set_yticks(range(T), shown, fontsize=7, family="monospace")
    left.grid(False)
    left.set(xlabel="is read", ylabel="reads")
    plots.title(left, f"layer {layer}, head {head}: who reads whom")
    places = np.arange(1, T)
    right.barh(places, whole, color=plots.SKY, height=0.8)
    if cut_off:
        right.plot(cut, places, "|", color=plots.RED, ms=8, mew=2)
    right.set_yticks(places, shown[1:], fontsize=7, family="monospace")
    right.set(xlabel="loss, nats", ylim=(T - 0.5, -0.5))
    right.grid(False)
    change = cut.mean() - whole.mean()
    if cut_off:
        plots.title(right, f"without this head: {change:+.2f}")
    else:
        plots.title(right, f"loss: {whole.mean():.2f} on average")
    sharpest = weights_TS.max(-1).mean()
    says = (
        f"Attention weights of layer {layer}, head {head} on the text '{text}', a square of "
        f"readers and read tokens whose rows give {sharpest:.0%} to their first choice on "
        f"average; beside it the loss of each token, {whole.mean():.2f} on average"
    )
    if cut_off:
        says += f", which changes by {change:+.2f} when the head is cut off"
    return fig, says + "."
