"""Chapter 09: small wrong programs, and the sentence that names each."""

import math
from collections import Counter

import torch
import torch.nn.functional as F
from torch import nn

from utils.built import attention as right
from utils.built import bpe
from utils.checks import attention as ex

# ---- attention ----


def _scores(q, k):
    return q @ k.mT / q.shape[-1] ** 0.5


def _blocked(scores, mask):
    return scores if mask is None else scores.masked_fill(~mask, -torch.inf)


@ex.attention.slip(
    "The scores are not scaled: divide by the root of D, or softmax grows too sure."
)
def unscaled(q, k, v, mask=None):
    return _blocked(q @ k.mT, mask).softmax(-1) @ v


@ex.attention.slip("This divides by D; divide by its root.")
def scaled_by_d(q, k, v, mask=None):
    return _blocked(q @ k.mT / q.shape[-1], mask).softmax(-1) @ v


@ex.attention.slip(
    "This divides by the root of the number of keys; D is the size of one."
)
def scaled_by_keys(q, k, v, mask=None):
    return _blocked(q @ k.mT / k.shape[-2] ** 0.5, mask).softmax(-1) @ v


@ex.attention.slip(
    "Softmax runs over the queries here: the shares of one query must add up to 1."
)
def over_queries(q, k, v, mask=None):
    return _blocked(_scores(q, k), mask).softmax(-2) @ v


@ex.attention.slip(
    "Masked after the softmax, the shares that are left add up to less than 1: mask the "
    "scores, with -inf."
)
def mask_after_softmax(q, k, v, mask=None):
    shares = _scores(q, k).softmax(-1)
    return (shares if mask is None else shares * mask) @ v


@ex.attention.slip(
    "A score of 0 is no wall: exp(0) = 1. What may not be seen has the score -inf."
)
def masked_by_zero(q, k, v, mask=None):
    scores = _scores(q, k)
    return (scores if mask is None else scores * mask).softmax(-1) @ v


@ex.attention.slip("True means *may look* here: this blocks what it should show.")
def true_blocks(q, k, v, mask=None):
    return _blocked(_scores(q, k), None if mask is None else ~mask).softmax(-1) @ v


@ex.attention.slip("The mask is never used.")
def forgets_the_mask(q, k, v, mask=None):
    return _scores(q, k).softmax(-1) @ v


@ex.attention.slip("These are the weights: mix the values by them, weights @ v.")
def weights_only(q, k, v, mask=None):
    return _blocked(_scores(q, k), mask).softmax(-1)


@ex.attention.slip("Without a softmax the scores are no shares: they may be negative.")
def no_softmax(q, k, v, mask=None):
    scores = _scores(q, k)
    return (scores if mask is None else scores * mask) @ v


@ex.attention.slip(
    "The weights mix the keys: a key says what is on offer, the value what is handed over."
)
def mixes_keys(q, k, v, mask=None):
    return _blocked(_scores(q, k), mask).softmax(-1) @ k


@ex.attention.slip(
    "exp of a large score overflows: subtract the largest first, or use softmax."
)
def overflows(q, k, v, mask=None):
    shares = (30 * _scores(q, k)).exp() ** (1 / 30)
    shares = shares if mask is None else shares * mask
    return shares / shares.sum(-1, keepdim=True) @ v


# ---- causal_mask ----


@ex.causal_mask.slip(
    "This lines the triangle up at the first source. The last asker is the *last* source: "
    "with one new token and a cache it would see the oldest one only."
)
def top_left(T, S):
    return torch.ones(T, S, dtype=torch.bool).tril()


@ex.causal_mask.slip("This shows the future: the lower triangle is the past.")
def upper(T, S):
    return torch.ones(T, S, dtype=torch.bool).triu(S - T)


@ex.causal_mask.slip("This is True where one may *not* look: turn it round.")
def true_means_blocked(T, S):
    return ~right.causal_mask(T, S)


@ex.causal_mask.slip("A token sees itself, too: the diagonal belongs to the triangle.")
def not_itself(T, S):
    return torch.ones(T, S, dtype=torch.bool).tril(S - T - 1)


@ex.causal_mask.slip("A mask is boolean, torch.bool: True = may look.")
def numbers(T, S):
    return torch.ones(T, S).tril(S - T)


@ex.causal_mask.slip("One mask value per asker and *source*: the shape is (T, S).")
def square(T, S):
    return torch.ones(T, T, dtype=torch.bool).tril()


@ex.causal_mask.slip("Turned by T - S, the triangle moves to the wrong side.")
def wrong_way(T, S):
    return torch.ones(T, S, dtype=torch.bool).tril(T - S)


# ---- window_mask ----


@ex.window_mask.slip("One source too many: the asker itself is one of the `width`.")
def one_more(T, S, width):
    return right.window_mask(T, S, width + 1)


@ex.window_mask.slip("The window has no end at the front: the future is seen.")
def future_too(T, S, width):
    return ~torch.ones(T, S, dtype=torch.bool).tril(S - T - width)


@ex.window_mask.slip("Nothing is taken away: what is too far back is still seen.")
def no_window(T, S, width):
    return right.causal_mask(T, S)


@ex.window_mask.slip(
    "The window is lined up at the first source: asker i stands at S - T + i."
)
def window_top_left(T, S, width):
    return torch.ones(T, S, dtype=torch.bool).tril().triu(1 - width)


@ex.window_mask.slip("The window forgets S - T: asker i stands at S - T + i.")
def window_without_offset(T, S, width):
    return right.causal_mask(T, S).triu(1 - width)


@ex.window_mask.slip(
    "Only the last columns are seen: each asker has a window of its own."
)
def last_columns(T, S, width):
    seen = right.causal_mask(T, S)
    seen[:, : max(S - width, 0)] = False
    return seen


@ex.window_mask.slip("This keeps what is too far back and drops the window itself.")
def outside(T, S, width):
    return torch.ones(T, S, dtype=torch.bool).tril(S - T - width)


@ex.window_mask.slip("One source too few: the asker itself and width - 1 before it.")
def one_less(T, S, width):
    return right.causal_mask(T, S) & torch.ones(T, S, dtype=torch.bool).triu(
        S - T - width + 2
    )


# ---- split_heads ----


@ex.split_heads.slip(
    "The shape is right and the numbers are mixed: view alone cuts the *tokens* into "
    "heads. Cut the last axis, then transpose."
)
def view_alone(x_BTE, H):
    B, T, E = x_BTE.shape
    return x_BTE.reshape(B, H, T, E // H)


@ex.split_heads.slip("Heads come before tokens: transpose axes 1 and 2.")
def no_transpose(x_BTE, H):
    return x_BTE.unflatten(-1, (H, -1))


@ex.split_heads.slip(
    "Head h gets every H-th feature here; it should get a slice of neighbours."
)
def interleaved(x_BTE, H):
    return x_BTE.unflatten(-1, (-1, H)).permute(0, 3, 1, 2)


@ex.split_heads.slip(
    "view refuses a tensor with swapped axes: unflatten or reshape the last axis."
)
def flat_view(x_BTE, H):
    B, T, E = x_BTE.shape
    return x_BTE.view(B * T * H, E // H).view(B, T, H, E // H).transpose(1, 2)


@ex.split_heads.slip("H is the number of heads, not the size of one.")
def size_for_number(x_BTE, H):
    return x_BTE.unflatten(-1, (-1, H)).transpose(1, 2)


# ---- repeat_heads ----


@ex.repeat_heads.slip(
    "repeat lays the copies in turns, 0 1 0 1: head 1 of 6 would read the second. "
    "repeat_interleave lays them side by side."
)
def in_turns(k, H):
    return k.repeat(1, H // k.shape[1], 1, 1)


@ex.repeat_heads.slip("Repeated along the tokens: heads are axis 1.")
def along_tokens(k, H):
    return k.repeat_interleave(H // k.shape[1], dim=2)


@ex.repeat_heads.slip("Each head is repeated H / G times, not H times.")
def too_often(k, H):
    return k.repeat_interleave(H, dim=1)


@ex.repeat_heads.slip("Only the first head is used: the other groups are lost.")
def first_only(k, H):
    return k[:, :1].repeat_interleave(H, dim=1)


@ex.repeat_heads.slip("Nothing is repeated: H heads ask, so H heads must answer.")
def as_it_was(k, H):
    return k.clone()


# ---- rotate ----


def _angles(positions, D, base=10_000.0):
    return positions[:, None] / base ** (2 * torch.arange(D // 2) / D)


def _turned(a, b, angles):
    cos, sin = angles.cos(), angles.sin()
    return a * cos - b * sin, a * sin + b * cos


@ex.rotate.slip(
    "Pairs are (x[i], x[i + D/2]) here; these are neighbours. Both conventions exist, and "
    "weights trained with one are noise with the other."
)
def neighbours(x, positions, base=10_000.0):
    a, b = x[..., ::2], x[..., 1::2]
    return torch.stack(
        _turned(a, b, _angles(positions, x.shape[-1], base)), -1
    ).flatten(-2)


@ex.rotate.slip("This turns the other way round: sin has the wrong sign.")
def backwards(x, positions, base=10_000.0):
    return right.rotate(x, -positions, base)


@ex.rotate.slip(
    "The second half has b cos - a sin: a turn is (a cos - b sin, a sin + b cos)."
)
def no_turn(x, positions, base=10_000.0):
    a, b = x.chunk(2, -1)
    angles = _angles(positions, x.shape[-1], base)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((a * cos - b * sin, b * cos - a * sin), -1)


@ex.rotate.slip(
    "Positions are counted anew from 0: a token in a cache stands where `positions` says."
)
def counts_itself(x, positions, base=10_000.0):
    return right.rotate(x, torch.arange(x.shape[-2]), base)


@ex.rotate.slip("The exponent is 2 i / D: with i / D the slow pairs turn too fast.")
def half_exponent(x, positions, base=10_000.0):
    a, b = x.chunk(2, -1)
    angles = positions[:, None] / base ** (torch.arange(x.shape[-1] // 2) / x.shape[-1])
    return torch.cat(_turned(a, b, angles), -1)


@ex.rotate.slip(
    "All pairs turn at the same speed: pair i turns base ** (2 i / D) slower."
)
def one_speed(x, positions, base=10_000.0):
    a, b = x.chunk(2, -1)
    return torch.cat(_turned(a, b, positions[:, None].float()), -1)


@ex.rotate.slip("The first pair stands still and the last turns: divide by the power.")
def faster_and_faster(x, positions, base=10_000.0):
    a, b, D = *x.chunk(2, -1), x.shape[-1]
    angles = positions[:, None] * base ** (2 * torch.arange(D // 2) / D) / base
    return torch.cat(_turned(a, b, angles), -1)


@ex.rotate.slip("`base` is ignored.")
def fixed_base(x, positions, base=10_000.0):
    return right.rotate(x, positions)


# ---- Block ----


def _rms(x):
    return F.rms_norm(x, x.shape[-1:], eps=1e-6)


class _Block(nn.Module):
    "The right block; each slip below changes one of its parts."

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        for layer in (self.out, self.down):
            nn.init.zeros_(layer.weight)

    norm = staticmethod(_rms)
    act = staticmethod(lambda x: F.relu(x) ** 2)
    mask = staticmethod(right.causal_mask)

    def heads_of(self, x, layers):
        return (right.split_heads(layer(x), self.heads) for layer in layers)

    def turned(self, q, k, positions):
        return right.rotate(q, positions), right.rotate(k, positions)

    def attended(self, n, positions, keep):
        q, k, v = self.heads_of(n, (self.query, self.key, self.value))
        q, k = self.turned(q, k, positions)
        k, v = keep(k, v) if keep else (k, v)
        mask = self.mask(q.shape[2], k.shape[2])
        return self.out(right.join_heads(right.attention(q, k, v, mask)))

    def mlp(self, n):
        return self.down(self.act(self.up(n)))

    def forward(self, x, positions, keep=None):
        x = x + self.attended(self.norm(x), positions, keep)
        return x + self.mlp(self.norm(x))


@ex.Block.slip(
    "The first x = x + ... is missing: attention replaces what it should add to."
)
class NoResidual(_Block):
    def forward(self, x, positions, keep=None):
        x = self.attended(self.norm(x), positions, keep)
        return x + self.mlp(self.norm(x))


@ex.Block.slip("The second x + ... is missing: the MLP replaces what it should add to.")
class NoSecondResidual(_Block):
    def forward(self, x, positions, keep=None):
        x = x + self.attended(self.norm(x), positions, keep)
        return self.mlp(self.norm(x))


@ex.Block.slip(
    "x itself is normalised and handed on: keep x as it is, and give rms(x) to the halves."
)
class NormalisesTheStream(_Block):
    def forward(self, x, positions, keep=None):
        x = self.norm(x)
        x = self.norm(x + self.attended(x, positions, keep))
        return x + self.mlp(x)


@ex.Block.slip("The MLP gets x as it is: both halves want rms(x).")
class NoNorm(_Block):
    norm = staticmethod(lambda x: x)


@ex.Block.slip("The MLP gets x as it is: both halves want rms(x).")
class NoSecondNorm(_Block):
    def forward(self, x, positions, keep=None):
        x = x + self.attended(self.norm(x), positions, keep)
        return x + self.mlp(x)


@ex.Block.slip(
    "Both halves read the old x here: the MLP comes after attention and reads its sum."
)
class SideBySide(_Block):
    def forward(self, x, positions, keep=None):
        n = self.norm(x)
        return x + self.attended(n, positions, keep) + self.mlp(n)


@ex.Block.slip("A token sees the future: attention without a mask.")
class NoMask(_Block):
    mask = staticmethod(lambda T, S: None)


@ex.Block.slip("ReLU squared is the activation here: this one is not squared.")
class PlainRelu(_Block):
    act = staticmethod(F.relu)


@ex.Block.slip("Squared before ReLU, negative numbers come through: F.relu(x) ** 2.")
class SquareFirst(_Block):
    act = staticmethod(lambda x: F.relu(x**2))


@ex.Block.slip("The keys are not rotated: q and k turn, or no distance comes out.")
class RotatesQueriesOnly(_Block):
    def turned(self, q, k, positions):
        return right.rotate(q, positions), k


@ex.Block.slip("Nothing is rotated: the block does not know who stands where.")
class NoPositions(_Block):
    def turned(self, q, k, positions):
        return q, k


@ex.Block.slip("The positions are counted from 0, whatever comes in.")
class CountsFromZero(_Block):
    def turned(self, q, k, positions):
        return super().turned(q, k, torch.arange(len(positions)))


@ex.Block.slip("keep is not used: what was read before is forgotten.")
class NoKeep(_Block):
    def attended(self, n, positions, keep):
        return super().attended(n, positions, None)


@ex.Block.slip("self.out is missing: the heads' results go through one more matrix.")
class NoOut(_Block):
    def attended(self, n, positions, keep):
        q, k, v = self.heads_of(n, (self.query, self.key, self.value))
        q, k = self.turned(q, k, positions)
        k, v = keep(k, v) if keep else (k, v)
        return right.join_heads(
            right.attention(q, k, v, self.mask(q.shape[2], k.shape[2]))
        )


# ---- orthogonal ----


def _schulz(G, steps=5, length=lambda G: G.norm() + 1e-7, turn=True, step=None):
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = turn and G.shape[0] > G.shape[1]
    X = (G.mT if tall else G) / length(G)
    for _ in range(steps):
        A = X @ X.mT
        X = step(X, A) if step else a * X + (b * A + c * A @ A) @ X
    return X.mT if tall else X


@ex.orthogonal.slip("Without dividing by G.norm() the products explode or die out.")
def not_divided(G, steps=5):
    return _schulz(G, steps, length=lambda G: 1.0)


@ex.orthogonal.slip(
    "Divided by the largest entry, singular values can still be above 1: use G.norm()."
)
def by_the_largest(G, steps=5):
    return _schulz(G, steps, length=lambda G: G.abs().max())


@ex.orthogonal.slip(
    "Divided by the root of the number of entries: G.norm() is the root of their squares."
)
def by_the_count(G, steps=5):
    return _schulz(G, steps, length=lambda G: G.numel() ** 0.5)


@ex.orthogonal.slip("One step only: the formula runs `steps` times.")
def one_step(G, steps=5):
    return _schulz(G, 1)


@ex.orthogonal.slip("`steps` is ignored: it is not always 5.")
def always_five(G, steps=5):
    return _schulz(G, 5)


@ex.orthogonal.slip("The sign of b is lost: b is negative.")
def plus_b(G, steps=5):
    return _schulz(G, steps, step=lambda X, A: 3.4445 * X + (4.775 * A + 2.0315 * A @ A) @ X)  # fmt: skip


@ex.orthogonal.slip("A squared is A @ A here: A * A squares each entry by itself.")
def entrywise(G, steps=5):
    return _schulz(G, steps, step=lambda X, A: 3.4445 * X + (-4.775 * A + 2.0315 * A * A) @ X)  # fmt: skip


@ex.orthogonal.slip("A tall matrix was turned over and never turned back.")
def stays_turned(G, steps=5):
    return _schulz(G.mT if G.shape[0] > G.shape[1] else G, steps, turn=False)


@ex.orthogonal.slip(
    "A matrix of nearly 0 may not become nan: a little eps in the division."
)
def no_eps(G, steps=5):
    return _schulz(G, steps, length=lambda G: G.float().square().square().sum() ** 0.25
                   if G.norm() < 1e-6 else G.norm()) / (G.norm() > 1e-6)  # fmt: skip


@ex.orthogonal.slip(
    "Right numbers at a high price: turn tall matrices over, or A is the larger square."
)
def never_turned(G, steps=5):
    return _schulz(G, steps, turn=False)


# ---- generate ----


def _pick(logits_BV):
    return logits_BV.argmax(-1, keepdim=True)


@ex.generate.slip(
    "With a cache the whole text is fed again at each step: the cache holds it twice, "
    "three times ..."
)
def feeds_all_again(model, ids, count, cache=None, temperature=0):
    for _ in range(count):
        ids = torch.cat((ids, _pick(model(ids, cache=cache)[:, -1])), 1)
    return ids


@ex.generate.slip(
    "The prompt is never read: the cache is empty when the first token comes."
)
def skips_the_prompt(model, ids, count, cache=None, temperature=0):
    for _ in range(count):
        part = ids if cache is None else ids[:, -1:]
        ids = torch.cat((ids, _pick(model(part, cache=cache)[:, -1])), 1)
    return ids


@ex.generate.slip(
    "Without a cache the model forgets: it is given the new token alone, not the text."
)
def forgets(model, ids, count, cache=None, temperature=0):
    new = ids
    for _ in range(count):
        new = _pick(model(new, cache=cache)[:, -1])
        ids = torch.cat((ids, new), 1)
    return ids


@ex.generate.slip("The cache is not used: everything is read again for each token.")
def ignores_the_cache(model, ids, count, cache=None, temperature=0):
    for _ in range(count):
        ids = torch.cat((ids, _pick(model(ids)[:, -1])), 1)
    return ids


def _generate(model, ids, count, cache, at=-1):
    new = ids
    for _ in range(count):
        logits = model(ids) if cache is None else model(new, cache=cache)
        new = _pick(logits[:, at])
        ids = torch.cat((ids, new), 1)
    return ids


@ex.generate.slip("Only the new tokens come back: the prompt belongs to the answer.")
def without_prompt(model, ids, count, cache=None, temperature=0):
    return _generate(model, ids, count, cache)[:, ids.shape[1] :]


@ex.generate.slip(
    "The logits behind the *first* token are read: the next one is behind the last."
)
def first_logits(model, ids, count, cache=None, temperature=0):
    return _generate(model, ids, count, cache, at=0)


@ex.generate.slip("One token too many.")
def one_token_more(model, ids, count, cache=None, temperature=0):
    return _generate(model, ids, count + 1, cache)


@ex.generate.slip("Only one token is written: loop `count` times.")
def only_one(model, ids, count, cache=None, temperature=0):
    return _generate(model, ids, min(count, 1), cache)


@ex.generate.slip("`temperature` is ignored: hand it on to pick.")
def always_the_likeliest(model, ids, count, cache=None, temperature=0):
    return _generate(model, ids, count, cache)


# ---- train_bpe ----


def _bpe(
    words, merges, weight=lambda times: times, pick=None, cut=None, merge=bpe.merge
):
    cut = cut or (lambda word: [bytes([b]) for b in word.encode()])
    pick = pick or (lambda count: min(count, key=lambda pair: (-count[pair], pair)))
    parts, found = {word: cut(word) for word in words}, []
    for _ in range(merges):
        count = Counter()
        for word, times in words.items():
            for pair in zip(parts[word], parts[word][1:]):
                count[pair] += weight(times)
        if not count:
            break
        found.append(pick(count))
        parts = {word: merge(tokens, found[-1]) for word, tokens in parts.items()}
    return found


@ex.train_bpe.slip(
    "Each word is counted once: a pair counts as often as its word occurs."
)
def each_word_once(words, merges):
    return _bpe(words, merges, weight=lambda times: 1)


@ex.train_bpe.slip(
    "Of equally frequent pairs this takes the first that it met: take the smaller one."
)
def ties_by_order(words, merges):
    return _bpe(words, merges, pick=lambda count: max(count, key=count.get))


@ex.train_bpe.slip("Of equally frequent pairs this takes the larger one.")
def ties_to_the_larger(words, merges):
    return _bpe(
        words, merges, pick=lambda count: max(count, key=lambda p: (count[p], p))
    )


@ex.train_bpe.slip(
    "The pairs are counted once, at the start: count anew after each merge."
)
def counted_once(words, merges):
    count = Counter()
    for word, times in words.items():
        tokens = [bytes([b]) for b in word.encode()]
        for pair in zip(tokens, tokens[1:]):
            count[pair] += times
    return sorted(count, key=lambda pair: (-count[pair], pair))[:merges]


@ex.train_bpe.slip(
    "A pair counts at each place: this counts it once in a word that holds it twice."
)
def once_per_word(words, merges):
    parts, found = {w: [bytes([b]) for b in w.encode()] for w in words}, []
    for _ in range(merges):
        count = Counter()
        for word, times in words.items():
            for pair in {*zip(parts[word], parts[word][1:])}:
                count[pair] += times
        if not count:
            break
        found.append(min(count, key=lambda pair: (-count[pair], pair)))
        parts = {word: bpe.merge(tokens, found[-1]) for word, tokens in parts.items()}
    return found


@ex.train_bpe.slip("Tokens are bytes: ü has two of them. Begin with word.encode().")
def characters(words, merges):
    found = _bpe(words, merges, cut=list)
    return [tuple(part.encode() for part in pair) for pair in found]


@ex.train_bpe.slip("When no pair is left, stop: fewer merges come out.")
def fails_at_the_end(words, merges):
    def pick(count):
        return min(count, key=lambda pair: (-count[pair], pair))

    found = _bpe(words, merges)
    if len(found) < merges:
        pick({})
    return found


@ex.train_bpe.slip(
    "The two tokens were merged in the list of pairs, not the pair itself."
)
def joined(words, merges):
    return [(a + b,) for a, b in _bpe(words, merges)]


# ---- bits_per_byte ----


@ex.bits_per_byte.slip("These are nats: divide by ln 2.")
def in_nats(nats, tokens, size):
    return nats * tokens / size


@ex.bits_per_byte.slip("A nat is more than a bit: divide by ln 2, do not multiply.")
def times_ln2(nats, tokens, size):
    return nats * tokens / size * math.log(2)


@ex.bits_per_byte.slip("These are bits per *token*: times tokens, over bytes.")
def per_token(nats, tokens, size):
    return nats / math.log(2)


@ex.bits_per_byte.slip("Tokens and bytes are exchanged.")
def exchanged(nats, tokens, size):
    return nats * size / tokens / math.log(2)


@ex.bits_per_byte.slip("This is for the whole text: divide by its bytes.")
def whole_text(nats, tokens, size):
    return nats * tokens / math.log(2)


# ---- induction ----

SHARP = 1000.0
ITSELF = (
    "Here a token comes out as itself. Either row t of the first look-up is not token "
    "t - 1, or the second hands over what it compared: its query is the token, its key "
    "what the first one found, its value the token."
)


def _two(x, place=None, ask=None, second=None, mask=right.causal_mask, sharp=SHARP):
    T = len(x)
    eye = torch.eye(T + 1, dtype=x.dtype)
    q, k = (eye[:T], eye[1:]) if place is None else place(eye, T)
    seen = mask(T, T)
    before = right.attention(sharp * q, k, x, seen)
    return right.attention(sharp * (x if ask is None else ask(x, before)), before,
                           x if second is None else second(x, before), seen)  # fmt: skip


@ex.induction.slip(ITSELF)
def one_lookup(x):
    return right.attention(SHARP * x, x, x, right.causal_mask(len(x), len(x)))


@ex.induction.slip(ITSELF)
def finds_itself(x):
    return _two(x, place=lambda eye, T: (eye[:T], eye[:T]))


@ex.induction.slip(ITSELF)
def looks_ahead(x):
    return _two(x, place=lambda eye, T: (eye[1:], eye[:T]))


@ex.induction.slip(
    "Not sharp: with numbers this small every source gets nearly the same share. Multiply "
    "the queries by something large."
)
def not_sharp(x):
    return _two(x, sharp=1.0)


@ex.induction.slip("Without a mask the look-ups see the future, and copy the answer.")
def sees_the_future(x):
    return _two(x, mask=lambda T, S: None)


@ex.induction.slip(ITSELF)
def hands_over_before(x):
    return _two(x, second=lambda x, before: before)


@ex.induction.slip(ITSELF)
def asks_with_before(x):
    return _two(x, ask=lambda x, before: before)
