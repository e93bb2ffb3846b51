"""What chapter 07 builds for text: characters as numbers, a counter, streams, a sampler.

    train, validation = shakespeare()                       # utils.data.text
    chars, encode, decode = vocabulary(train + validation)
    counter = NGram(encode(train), 5, V=len(chars))
    counter.nats(encode(validation))                        # mean surprise, one stream
    counter.nats(windows(encode(validation), 64))           # every row begins anew
    for x_BT, y_BT in streams(encode(train), B=32, T=64): ...

Shapes: B rows, T characters, V different characters, N characters in a row. Surprise is
-ln of the probability that the character which came was given, in nats. Bad shapes,
unknown characters and impossible settings raise ValueError or TypeError.
"""

from collections.abc import Callable

import numpy as np
import torch

from utils import given

# ---- characters as numbers ----


def vocabulary(text: str) -> tuple[str, Callable, Callable]:
    """The different characters of a text, sorted: -> chars, encode, decode.

    encode: str -> (N,) int64 tensor, ValueError for a character that `text` has not;
    decode: whole numbers from 0 to V-1 -> str, the way back.
    """
    if not isinstance(text, str) or not text:
        raise TypeError(f"text is a str of at least one character, not {text!r:.60}")
    chars = "".join(sorted(set(text)))
    place = {char: i for i, char in enumerate(chars)}

    def encode(text):
        try:
            return torch.tensor([place[char] for char in text], dtype=torch.int64)
        except KeyError as error:
            raise ValueError(
                f"the character {error} is none of the {len(chars)} known"
            ) from None

    def decode(ids):
        return "".join(chars[i] for i in _whole("ids", ids, len(chars)).ravel())

    return chars, encode, decode


def _whole(name, ids, V):
    "ids as an array of whole numbers from 0 to V-1."
    ids = given.array(name, ids)
    if ids.size and ids.dtype.kind not in "iu":
        raise TypeError(f"{name} holds whole numbers, not {ids.dtype}")
    if ids.size and not 0 <= ids.min() <= ids.max() < V:
        raise ValueError(
            f"{name} goes from {ids.min()} to {ids.max()}; here are 0 to {V - 1}"
        )
    return ids.astype(np.int64)


# ---- the counter: interpolated absolute discounting ----


def blend(count, total, kinds, shorter, discount=0.75):
    """Probability of a character after a longer context, from counts and a shorter one.

    count: how often this character followed the context; total: how often any did;
    kinds: how many different ones did; shorter: its probability one character less.
    Arrays of any shapes that broadcast. Ney, Essen and Kneser (1994).
    """
    if not 0 <= discount <= 1:
        raise ValueError(f"discount lies from 0 to 1, not {discount!r:.60}")
    kept = np.maximum(count - discount, 0) + discount * kinds * shorter
    return np.where(total > 0, kept / np.maximum(total, 1), shorter)


class NGram:
    """Counts of every run of 1 to `order` characters, and what they say comes next.

    ids_N: whole numbers from 0 to V-1, a list, an array or a tensor. An order of 5 looks
    back four characters; where that context was never seen, at fewer.
    """

    def __init__(self, ids_N, order: int, V: int, discount: float = 0.75):
        self.order, self.V = given.whole("order", order), given.whole("V", V)
        self.discount = discount
        if V**order >= 2**63:
            raise ValueError(
                f"{V} characters to the power of {order} do not fit 64 bit"
            )
        ids_N = _whole("ids_N", ids_N, V)
        if ids_N.ndim != 1 or len(ids_N) < order:
            raise ValueError(
                f"ids_N is one row of at least {order} characters, not {ids_N.shape}"
            )
        self.tables = [self._count(ids_N, n) for n in range(1, order + 1)]

    def _keys(self, ids, n):
        "Every run of n along the last axis as one whole number: (..., N) -> (..., N-n+1)."
        size = ids.shape[-1] - n + 1
        return sum(
            ids[..., j : j + size] * self.V ** (n - 1 - j) for j in range(n)
        )  # fmt: skip

    def _count(self, ids_N, n):
        "Sorted runs and their counts; sorted contexts, where each begins, its total."
        runs, counts = np.unique(self._keys(ids_N, n), return_counts=True)
        contexts, starts = np.unique(runs // self.V, return_index=True)
        ends = np.append(starts[1:], len(runs))
        return runs, counts, contexts, starts, ends, np.add.reduceat(counts, starts)

    def probabilities(self, ids) -> np.ndarray:
        """What was given to each character that came: (..., N) -> (..., N).

        Along the last axis each sees the up to order-1 before it; rows begin anew.
        """
        ids = _whole("ids", ids, self.V)
        if not ids.ndim or not ids.size:
            raise ValueError(f"ids is a row of characters or more, not {ids.shape}")
        p = np.full(ids.shape, 1 / self.V)
        for n, table in enumerate(self.tables[: ids.shape[-1]], start=1):
            runs, counts, contexts, starts, ends, totals = table
            key = self._keys(ids, n)
            at, found = _find(runs, key)
            there, known = _find(contexts, key // self.V)
            p[..., n - 1 :] = blend(
                found * counts[at], known * totals[there],
                known * (ends - starts)[there], p[..., n - 1 :], self.discount,
            )  # fmt: skip
        return p

    def nats(self, ids) -> float:
        """Mean surprise of the characters in ids (N,), or in rows (B, T), in nats.

        Each row's first character is not counted: a network has nothing to see there.
        """
        p = self.probabilities(ids)
        if p.shape[-1] < 2:
            raise ValueError(
                "a row has at least two characters: the first is not counted"
            )
        return float(-np.log(p[..., 1:]).mean())

    def predict(self, context) -> np.ndarray:
        "Probabilities of the next character: whole numbers (any length) -> (V,)."
        context = _whole("context", context, self.V)
        if context.ndim != 1:
            raise ValueError(f"context is one row of characters, not {context.shape}")
        p_V = np.full(self.V, 1 / self.V)
        for n, table in enumerate(self.tables[: len(context) + 1], start=1):
            runs, counts, contexts, starts, ends, totals = table
            last = self._keys(context[len(context) - n + 1 :], n - 1)[0] if n > 1 else 0
            there, known = _find(contexts, last)
            if not known:
                break
            own = slice(starts[there], ends[there])
            count_V = np.zeros(self.V)
            count_V[runs[own] % self.V] = counts[own]
            kinds = own.stop - own.start
            p_V = blend(count_V, totals[there], kinds, p_V, self.discount)
        return p_V

    def write(self, start, count: int, rng) -> np.ndarray:
        "`count` characters drawn one after another behind `start`: -> (count,) ids."
        text, first = list(_whole("start", start, self.V)), len(start)
        given.generator(rng, "choice")
        for _ in range(given.whole("count", count, least=0)):
            context = text[max(0, len(text) - self.order + 1) :]
            text.append(rng.choice(self.V, p=self.predict(np.array(context, np.int64))))
        return np.array(text[first:], np.int64)


def _find(sorted_, wanted):
    "Where each wanted number stands in a sorted row, and whether it does."
    at = np.minimum(np.searchsorted(sorted_, wanted), len(sorted_) - 1)
    return at, sorted_[at] == wanted


# ---- batches ----


def streams(ids_N, B: int, T: int):
    """Batches in which row b goes on where it ended in the batch before.

    ids_N: a tensor of whole numbers. Yields (x_BT, y_BT), y one character further than x;
    B pieces of (N - 1) // B characters, T at a time, the last batch may be narrower.
    """
    given.whole("B", B), given.whole("T", T)
    ids_N = torch.as_tensor(ids_N)
    if ids_N.ndim != 1 or len(ids_N) <= B:
        raise ValueError(f"ids_N is one row of more than {B} characters, not "
                         f"{tuple(ids_N.shape)}")  # fmt: skip
    return _pieces(ids_N, B, T)


def _pieces(ids_N, B, T):
    L = (len(ids_N) - 1) // B
    x_BL, y_BL = ids_N[: B * L].view(B, L), ids_N[1 : B * L + 1].view(B, L)
    for t in range(0, L, T):
        yield x_BL[:, t : t + T], y_BL[:, t : t + T]


def windows(ids_N, T: int):
    """Rows of T characters and the one behind them, each beginning where one ended.

    (N,) -> (rows, T + 1): x = rows[:, :-1], y = rows[:, 1:]. What does not fill a row is
    left out.
    """
    given.whole("T", T)
    ids_N = torch.as_tensor(ids_N)
    if ids_N.ndim != 1 or len(ids_N) <= T:
        raise ValueError(f"ids_N is one row of more than {T} characters, not "
                         f"{tuple(ids_N.shape)}")  # fmt: skip
    return ids_N.unfold(0, T + 1, T)


# ---- the next character ----


def sharpen(logits_V, temperature=1.0, top_k=None, top_p=None):
    """Logits -> the probabilities to draw from: (..., V) -> (..., V).

    temperature above 0: below 1 the likely ones gain. top_k: only the k likeliest stay.
    top_p: only the likeliest that together reach p, with the one that crosses it.
    """
    given.number("temperature", temperature, above=0)
    if not isinstance(logits_V, torch.Tensor) or not logits_V.is_floating_point():
        raise TypeError(f"logits_V is a tensor of floats, not {logits_V!r:.60}")
    z = logits_V / temperature
    if top_k is not None:
        least = z.topk(min(given.whole("top_k", top_k), z.shape[-1])).values[..., -1:]
        z = z.masked_fill(z < least, -torch.inf)
    p = z.softmax(-1)
    if top_p is not None:
        given.number("top_p", top_p, above=0)
        sorted_, order = p.sort(descending=True, stable=True)
        before = sorted_.cumsum(-1) - sorted_
        drop = torch.zeros_like(p, dtype=torch.bool).scatter(-1, order, before >= top_p)
        p = p.masked_fill(drop, 0)
        p = p / p.sum(-1, keepdim=True)
    return p


def sample(logits_BV, temperature=1.0, top_k=None, top_p=None, generator=None):
    """Draw the next character of every row: (..., V) -> (...) int64.

    generator: a torch.Generator, else the global one; the others as in `sharpen`.
    """
    p = sharpen(logits_BV, temperature, top_k, top_p)
    drawn = torch.multinomial(p.reshape(-1, p.shape[-1]), 1, generator=generator)
    return drawn.view(p.shape[:-1])
