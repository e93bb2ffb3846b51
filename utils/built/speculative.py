"""What chapter 28 builds: a cheap model proposes, the right one decides, the law is kept.

    accept(p_V, q_V, token, u, w)          # one decision, its two random numbers given
    law(decide, p_V, q_V)                  # which law a decision really has, measured
    Counts(counter)                        # n-grams of built/seq.py as a draft
    tokens, calls = speculate(model, draft, prompt, count=60, K=4, dice=rng)

Leviathan and others (2023), https://arxiv.org/abs/2211.17192, and Chen and others (2023).
p is the model's law of the next token, q the draft's, both (V,) arrays of float64.
"""

from functools import partial

import numpy as np
import torch

from utils import given
from utils.built.gpt import Cache


def accept(p_V, q_V, token, u, w):
    """Keep the proposed token, or draw another, so that the result has the law p.

    token was drawn from q. u and w lie in [0, 1): u decides whether it stays, w which one
    comes in its place, from what p has more than q.
    """
    if np.ndim(p_V) != 1 or np.shape(p_V) != np.shape(q_V):
        shapes = f"{np.shape(p_V)} and {np.shape(q_V)}"
        raise ValueError(f"p_V and q_V are laws of the same V tokens, not {shapes}")
    given.whole("token", token, 0, len(p_V) - 1)
    if u * q_V[token] < p_V[token]:
        return token
    return inverse(np.maximum(p_V - q_V, 0), w)


def inverse(weights_V, w):
    "The first token at which the running sum of weights passes the share w of them all."
    sums_V = np.cumsum(weights_V)
    return int(np.searchsorted(sums_V, w * sums_V[-1], side="right"))


def law(decide, p_V, q_V, halvings=36):
    """Which law `decide(p_V, q_V, token, u, w)` has: (V,), by probing where it changes.

    It assumes that small u keep the token, and that rising w picks rising tokens.
    """
    given.function("decide", decide)
    out_V, parts = np.zeros(len(p_V)), []
    for token in np.flatnonzero(q_V > 0):
        kept = _edge(partial(_keeps, decide, p_V, q_V, token), halvings)
        out_V[token] += q_V[token] * kept
        if kept < 1 - 1e-9:
            pick = lambda w, t=token: decide(p_V, q_V, t, 1 - 1e-12, w)  # noqa: E731
            parts = _parts(pick, halvings, parts)
            for other, part in parts:
                out_V[other] += q_V[token] * (1 - kept) * part
    return out_V


def _keeps(decide, p_V, q_V, token, u):
    "Does the token stay, whatever w is? Else it was drawn anew."
    return all(decide(p_V, q_V, token, u, w) == token for w in (0.0, 1 - 1e-12))


def _edge(true_below, halvings):
    "Where a function of [0, 1) turns from True to False."
    if true_below(1 - 1e-12):
        return 1.0
    low, high = 0.0, 1.0
    if not true_below(0.0):
        return 0.0
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (middle, high) if true_below(middle) else (low, middle)
    return low


def _parts(pick, halvings, guess):
    "[(token, its share)] of a step function of w that rises; `guess` is tried first."
    nudge, begin = 2.0 ** (2 - halvings), 0.0
    for token, share in guess:  # most proposals are replaced alike
        ends = begin + min(nudge, share / 2), begin + share - min(nudge, share / 2)
        if any(pick(min(w, 1 - 1e-12)) != token for w in ends):
            break
        begin += share
    else:
        if guess:
            return guess
    parts, begin, last = [], 0.0, pick(1 - 1e-12)
    while begin < 1 - nudge and len(parts) < 1000:
        token = pick(begin + nudge)
        if token == last:
            break
        low, high = begin + nudge, 1.0
        for _ in range(halvings):
            middle = (low + high) / 2
            low, high = (middle, high) if pick(middle) == token else (low, middle)
        parts.append((token, low - begin))
        begin = low
    return [*parts, (last, 1 - begin)]


class Counts:
    """A draft that was never trained: an NGram of built/seq.py, each answer kept.

    draft(tokens) -> q_V, float64, which adds up to 1.
    """

    def __init__(self, counter):
        self.counter, self.known = counter, {}

    def __call__(self, tokens):
        order = self.counter.order
        key = tuple(tokens[max(0, len(tokens) - order + 1) :])
        if key not in self.known:
            self.known[key] = self.counter.predict(np.array(key, np.int64))
        return self.known[key]


class Small:
    "Another, smaller GPT as a draft, with a cache of its own."

    def __init__(self, model):
        self.model, self.cache, self.read = model, Cache(256), []

    @torch.no_grad()
    def __call__(self, tokens):
        same = 0
        for ours, theirs in zip(self.read, tokens[:-1]):
            if ours != theirs:
                break
            same += 1
        self.cache.length = same
        self.read = list(tokens)
        return chances(self.model(torch.tensor([tokens[same:]]), cache=self.cache))[-1]


def chances(logits_1TV):
    "Logits (1, T, V) -> probabilities (T, V) as float64: one precision for both sides."
    return logits_1TV[0].double().softmax(-1).numpy()


@torch.no_grad()
def plain(model, prompt, count, dice):
    "`count` tokens, one call each: a list. dice: np.random.default_rng(seed)."
    given.generator(dice, "random")
    cache, tokens, new = Cache(len(prompt) + count), [], list(prompt)
    for _ in range(given.whole("count", count)):
        p_V = chances(model(torch.tensor([new]), cache=cache)[:, -1:])[0]
        new = [inverse(p_V, dice.random())]
        tokens += new
    return tokens


@torch.no_grad()
def speculate(model, draft, prompt, count, K, dice, decide=accept):
    """`count` tokens, up to K + 1 per call of the model: -> (tokens, calls).

    draft(tokens) -> q_V proposes K tokens one after the other; the model reads them in
    one call; `decide` keeps or replaces them, from the first to the first replaced. The
    cache forgets the others. dice: np.random.default_rng(seed).
    """
    given.generator(dice, "random"), given.function("draft", draft)
    K, count = given.whole("K", K), given.whole("count", count)
    cache, tokens, calls = Cache(len(prompt) + count + K + 1), list(prompt), 0
    while len(tokens) < len(prompt) + count:
        proposed, laws = [], []
        for _ in range(K):
            laws.append(draft(tokens + proposed))
            proposed.append(inverse(laws[-1], dice.random()))
        unread = tokens[cache.length :] + proposed
        p_KV = chances(model(torch.tensor([unread]), cache=cache)[:, -K - 1 :])
        calls += 1
        for p_V, q_V, token in zip(p_KV, laws, proposed):
            tokens.append(decide(p_V, q_V, token, dice.random(), dice.random()))
            if tokens[-1] != token:
                break
        else:
            tokens.append(inverse(p_KV[K], dice.random()))
        cache.length = len(tokens) - 1
    return tokens[len(prompt) : len(prompt) + count], calls


def per_call(kept, K):
    "Tokens per call where each proposal is kept with this probability: 1 + a + ... + a^K."
    return sum(given.number("kept", kept) ** k for k in range(given.whole("K", K) + 1))
