"""What chapter 09 builds: a GPT of pre-norm blocks, its cache, and generation.

    model = GPT(vocab=65, context=64, layers=2, heads=3, width=96)
    logits_BTV = model(ids_BT)
    ids_BT = generate(model, ids_BT, 100)

This interface is frozen: chapters 10, 12, 14, 18, 19, 23, 25, 28 and 29 use it. The
defaults are chapter 09's own block; `GPT(50257, 1024, 12, 12, 768, **GPT2)` is GPT-2 (124,439,808
parameters). There is no dropout. Shapes: ids (B, T), positions (T,) or (B, T), hidden
states (B, T, E), logits (B, T, V), one layer's keys and values (B, G, S, D).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from utils import given
from utils.built import attention as A
from utils.built import seq  # chapter 07

GPT2 = {
    "norm": "layer", "positions": "learned", "activation": "gelu_tanh", "bias": True,
    "tied": True, "qk_norm": False, "softcap": None, "start": "normal",
}  # fmt: skip

NORMS = ("rms", "layer")
POSITIONS = ("rotary", "learned", "none")
ACTIVATIONS = {
    "relu2": lambda x: F.relu(x).square(),
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),  # as GPT-2 was trained
    "swiglu": F.silu,  # of a gate beside it
}
STARTS = ("zero", "normal")


def make_norm(norm, size, bias=False, gain=None):
    """A normalisation over the last axis.

    "layer" has a learned gain (and a bias, if asked for); "rms" divides by the root of
    the mean square alone, and has a gain only with gain=True.
    """
    _one_of("norm", norm, NORMS)
    gain = norm == "layer" if gain is None else gain
    if norm == "layer":
        return nn.LayerNorm(size, eps=1e-5, elementwise_affine=gain, bias=bias)
    return nn.RMSNorm(size, eps=1e-6, elementwise_affine=gain)


class Places(NamedTuple):
    """Where the tokens of one call stand and what they may see; made once for all layers.

    mask    booleans that broadcast to (B, H, T, S), True = may look, or None
    causal  True in place of a mask where each token sees itself and those before
    turns   cos and sin of the rotary angles, or None
    """

    mask: torch.Tensor | None
    causal: bool
    turns: tuple | None


class Attention(nn.Module):
    """Self-attention of H heads that read G: (B, T, E) -> (B, T, E).

    attend  the function that mixes, in the form that built/attention.py tells
    """

    def __init__(self, width, heads, groups=None, norm="rms", bias=False, qk_norm=False,
                 attend=A.fused):  # fmt: skip
        super().__init__()
        groups = heads if groups is None else groups
        self.heads, self.groups = heads, groups
        self.size = width // heads
        self.query = nn.Linear(width, width, bias)
        self.key = nn.Linear(width, groups * self.size, bias)
        self.value = nn.Linear(width, groups * self.size, bias)
        self.out = nn.Linear(width, width, bias)
        self.qk_norm = make_norm(norm, self.size, gain=False) if qk_norm else None
        self.attend = attend

    def forward(self, x_BTE, places, keep=None):
        q_BHTD = A.split_heads(self.query(x_BTE), self.heads)
        k_BGTD = A.split_heads(self.key(x_BTE), self.groups)
        v_BGTD = A.split_heads(self.value(x_BTE), self.groups)
        if self.qk_norm is not None:
            q_BHTD, k_BGTD = self.qk_norm(q_BHTD), self.qk_norm(k_BGTD)
        if places.turns is not None:
            q_BHTD, k_BGTD = (A.turn(x, *places.turns) for x in (q_BHTD, k_BGTD))
        k_BGSD, v_BGSD = (k_BGTD, v_BGTD) if keep is None else keep(k_BGTD, v_BGTD)
        mixed_BHTD = A.grouped(
            q_BHTD, k_BGSD, v_BGSD, places.mask, places.causal, self.attend
        )
        return self.out(A.join_heads(mixed_BHTD))


class MLP(nn.Module):
    "Each token for itself: up to `hidden` numbers, an activation, down again."

    def __init__(self, width, hidden=None, activation="relu2", bias=False):
        super().__init__()
        _one_of("activation", activation, ACTIVATIONS)
        gated = activation == "swiglu"
        hidden = hidden or (8 * width // 3 if gated else 4 * width)
        self.gate = nn.Linear(width, hidden, bias) if gated else None
        self.up, self.down = (
            nn.Linear(width, hidden, bias),
            nn.Linear(hidden, width, bias),
        )
        self.act = ACTIVATIONS[activation]

    def forward(self, x_BTE):
        up = self.up(x_BTE)
        bent = self.act(up) if self.gate is None else self.act(self.gate(x_BTE)) * up
        return self.down(bent)


class Block(nn.Module):
    """One pre-norm block: x + attention(norm(x)), then x + mlp(norm(x)); (B, T, E).

    places  of GPT.places; or positions (T,) or (B, T) for rotary turns; or None, no turns.
            With the last two each token sees itself and those before
    keep    (k, v) -> (all k, all v): one layer of a cache, or None

    A fresh block hands on what it gets: the last matrix of both halves is 0.
    """

    def __init__(self, width, heads, groups=None, hidden=None, norm="rms",
                 activation="relu2", bias=False, qk_norm=False, gain=None,
                 attend=A.fused):  # fmt: skip
        super().__init__()
        self.norm1, self.norm2 = (make_norm(norm, width, bias, gain) for _ in range(2))
        self.attention = Attention(width, heads, groups, norm, bias, qk_norm, attend)
        self.mlp = MLP(width, hidden, activation, bias)
        for last in (self.attention.out, self.mlp.down):
            nn.init.zeros_(last.weight)
            if bias:
                nn.init.zeros_(last.bias)

    def forward(self, x_BTE, places=None, keep=None):
        if not isinstance(places, Places):
            turns = None if places is None else A.turns(places, self.attention.size)
            places = Places(None, True, turns)
        x_BTE = x_BTE + self.attention(self.norm1(x_BTE), places, keep)
        return x_BTE + self.mlp(self.norm2(x_BTE))


class GPT(nn.Module):
    """Token ids (B, T) -> logits (B, T, V) of the token after each.

    vocab, context   V, and the tokens that learned positions exist for (rotary ones go on)
    layers, heads, width    width = heads * D
    groups           heads that are read (grouped queries); heads, if not given
    hidden           of the MLP; 4 * width, with swiglu 8 / 3 of it
    norm             "rms" or "layer"; gain: with a learned gain (None: only "layer")
    positions        "rotary" (base: its slowest turn), "learned" or "none"
    activation       "relu2", "gelu", "gelu_tanh" or "swiglu"
    bias, tied       biases in every layer; the head is the embedding's own matrix
    qk_norm, softcap queries and keys normalised; logits bent to +-softcap, or None
    window           tokens that a token sees, itself among them; None: all before it
    start            "zero": each block begins as the identity, all logits at 0; "normal":
                     GPT-2's, spread 0.02
    attend           see built/attention.py; also `model.use(attend)` later

    ValueError for sizes that do not fit and for options that there are not.
    """

    def __init__(
        self, vocab, context, layers, heads, width, *, groups=None, hidden=None,
        norm="rms", gain=None, positions="rotary", base=10_000.0, activation="relu2",
        bias=False, tied=False, qk_norm=False, softcap=15.0, window=None, start="zero",
        attend=A.fused,
    ):  # fmt: skip
        super().__init__()
        sizes = {"vocab": vocab, "context": context, "layers": layers, "heads": heads}
        for name, value in {**sizes, "width": width}.items():
            given.whole(name, value)
        groups = heads if groups is None else given.whole("groups", groups)
        if width % heads or heads % groups:
            raise ValueError(
                f"heads divide the width and groups divide the heads: not width {width}, "
                f"heads {heads}, groups {groups}"
            )
        _one_of("positions", positions, POSITIONS)
        _one_of("start", start, STARTS)
        if positions == "rotary" and width // heads % 2:
            raise ValueError(
                f"rotary positions turn pairs: {width // heads} per head is odd"
            )
        self.vocab, self.context, self.width = vocab, context, width
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.positions, self.base = positions, base
        self.softcap, self.window, self.tied = softcap, window, tied
        self.tokens = nn.Embedding(vocab, width)
        learned = positions == "learned"
        self.spots = nn.Embedding(context, width) if learned else None
        self.blocks = nn.ModuleList(
            Block(width, heads, groups, hidden, norm, activation, bias, qk_norm, gain,
                  attend)
            for _ in range(layers)
        )  # fmt: skip
        self.norm = make_norm(norm, width, bias, gain)
        self.head = nn.Linear(width, vocab, bias=False)
        if tied:
            self.head.weight = self.tokens.weight
        self._begin(start)

    def _begin(self, start):
        "Weights of a fresh model; PyTorch's own where nothing is said here."
        small = (
            start == "normal" or self.tied
        )  # tied: these are the head's weights, too
        nn.init.normal_(self.tokens.weight, std=0.02 if small else 1.0)
        if self.spots is not None:
            nn.init.normal_(self.spots.weight, std=0.02)
        if start == "zero":
            if not self.tied:
                nn.init.zeros_(self.head.weight)
            return
        for name, layer in self.named_modules():
            if isinstance(layer, nn.Linear):
                last = name.endswith(("out", "down"))
                shrink = (2 * len(self.blocks)) ** -0.5 if last else 1.0
                nn.init.normal_(layer.weight, std=0.02 * shrink)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def use(self, attend):
        "Let every block mix by this function: -> the model."
        for block in self.blocks:
            block.attention.attend = given.function("attend", attend)
        return self

    def places(self, T, cache=None, positions=None, mask=None, device=None):
        """-> positions (T,) or (B, T), and the Places for the blocks.

        positions  where these T tokens stand; None: after those in the cache
        mask       booleans in place of the causal ones, which broadcast to (B, H, T, S)
        """
        device = self.tokens.weight.device if device is None else device
        before = 0 if cache is None else cache.length
        plain = positions is None
        if plain:
            positions = torch.arange(before, before + T, device=device)
        keys = positions if cache is None else cache.begin(positions)
        causal = False
        if mask is None:
            if plain and self.window is None and (T == 1 or not before):
                causal = T > 1
            else:
                mask = A.seen_from(positions, keys, self.window)
        rotary = self.positions == "rotary"
        turns = A.turns(positions, self.size, self.base) if rotary else None
        return positions, Places(mask, causal, turns)

    def hidden(self, ids_BT, cache=None, positions=None, mask=None):
        "Ids (B, T) -> the normalised states (B, T, E) that the head reads."
        self._refuse(ids_BT)
        T = ids_BT.shape[1]
        positions, places = self.places(T, cache, positions, mask, ids_BT.device)
        x_BTE = self.tokens(ids_BT)
        if self.spots is not None:
            if int(positions.max()) >= self.context:
                most = self.context
                raise ValueError(f"learned positions end at {most}: the text is longer")
            x_BTE = x_BTE + self.spots(positions)
        for number, block in enumerate(self.blocks):
            keep = None if cache is None else cache.layer(number)
            x_BTE = block(x_BTE, places, keep)
        return self.norm(x_BTE)

    def logits(self, x_BTE):
        "States (..., E) -> logits (..., V)."
        logits = self.head(x_BTE)
        if self.softcap is None:
            return logits
        return self.softcap * torch.tanh(logits / self.softcap)

    def forward(self, ids_BT, cache=None, positions=None, mask=None):
        return self.logits(self.hidden(ids_BT, cache, positions, mask))

    def _refuse(self, ids_BT):
        if not torch.is_tensor(ids_BT) or ids_BT.is_floating_point():
            what = ids_BT.dtype if torch.is_tensor(ids_BT) else given.kind(ids_BT)
            raise TypeError(
                f"ids are a tensor of whole numbers, torch.long, not {what}"
            )
        if ids_BT.ndim != 2 or not ids_BT.shape[1]:
            raise ValueError(
                f"ids have the shape (B, T), T > 0, not {tuple(ids_BT.shape)}"
            )


class Cache:
    """Keys and values of the tokens that were read, for every layer: slot p is position p.

    A GPT fills it: `model(ids_BT, cache=cache)` reads the tokens after those it holds.
    With positions (B, T) each row stands somewhere else, and what lies after a token's
    own position is not seen: a row is used anew by going back to position 0.

    length  tokens held, of the longest row; set it back to forget the last ones
    room    slots to begin with; it doubles when they are full

    Whatever has begin, layer and length can stand in its place.
    """

    def __init__(self, room=64):
        self.room, self.length = given.whole("room", room), 0
        self.keys, self.values = {}, {}  # {layer: (B, G, room, D)}
        self._positions = None

    def begin(self, positions):
        "A call reads tokens at these positions (T,) or (B, T): -> positions (S,) of all."
        self._positions = positions
        if positions.ndim == 1:
            self._slots = slice(int(positions[0]), int(positions[-1]) + 1)
            last = self._slots.stop
        else:
            last = int(positions.max()) + 1
        self.length = max(self.length, last)
        return torch.arange(self.length, device=positions.device)

    def layer(self, number):
        "-> keep(k, v): write one layer's new keys and values, return all of them."
        return lambda k, v: (
            self._write(self.keys, number, k),
            self._write(self.values, number, v),
        )

    def _write(self, store, number, new_BGTD):
        B, G, _, D = new_BGTD.shape
        held = store.get(number)
        if held is None or held.shape[2] < self.length:
            room = max(
                self.room, self.length, 2 * held.shape[2] if held is not None else 0
            )
            grown = new_BGTD.new_zeros(B, G, room, D)
            if held is not None:
                grown[:, :, : held.shape[2]] = held
            store[number] = held = grown
        if self._positions.ndim == 1:
            held[:, :, self._slots] = new_BGTD
        else:
            rows = torch.arange(B, device=new_BGTD.device)[:, None]
            held[rows, :, self._positions] = new_BGTD.transpose(1, 2)
        return held[:, :, : self.length]

    def bytes(self):
        "Bytes of the keys and values that are held (room to grow not counted)."
        stores = (*self.keys.values(), *self.values.values())
        return sum(x[:, :, : self.length].numel() * x.element_size() for x in stores)


@torch.no_grad()
def generate(model, ids_BT, count, cache=True, temperature=1.0, top=None,
             generator=None):  # fmt: skip
    """ids (B, T) and `count` more, drawn one by one: (B, T + count).

    cache        True, False, or an empty one of yours; the tokens are the same
    temperature  below 1 bolder, 0: always the likeliest
    top          draw among so many of the likeliest only
    """
    count = given.whole("count", count, least=0)
    given.number("temperature", temperature)
    given.tensors(ids_BT=ids_BT)
    held = Cache(ids_BT.shape[1] + count) if cache is True else cache
    held = None if held is False else held
    new_BT = ids_BT
    for _ in range(count):
        if held is None:
            logits_BTV = model(ids_BT)
        else:
            logits_BTV = model(new_BT, cache=held)
        new_BT = draw(logits_BTV[:, -1], temperature, top, generator)
        ids_BT = torch.cat((ids_BT, new_BT), dim=1)
    return ids_BT


def draw(logits_BV, temperature=1.0, top=None, generator=None):
    "One token per row, (B, 1): the likeliest at temperature 0, else by chance."
    if top is not None:
        given.whole("top", top)
    if temperature == 0:
        return logits_BV.argmax(-1, keepdim=True)
    return seq.sample(logits_BV, temperature, top, generator=generator)[:, None]


def _one_of(name, value, known):
    if value not in known:
        raise ValueError(f"{name} is one of {', '.join(known)}, not {value!r:.60}")
