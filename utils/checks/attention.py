"""Chapter 09: looking things up, a block of it, and the text that goes in and out."""

import math
from collections import Counter

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from utils.exercises import Chapter, same

chapter = Chapter("09_attention")
# a check leaves the reader's dice alone
keeps_random = torch.random.fork_rng(devices=[])


def draws(*shape, seed=0):
    "The same normal numbers in every check, float64: rounding decides nothing."
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def looped(q, k, v, mask=None):
    "Attention one asker at a time, in plain Python: the oracle of `attention`."
    out = torch.zeros(*q.shape[:-1], v.shape[-1], dtype=q.dtype)
    for place in np.ndindex(*q.shape[:-1]):
        *front, t = place
        match = [float(q[place] @ k[(*front, s)]) / math.sqrt(q.shape[-1])
                 for s in range(k.shape[-2])]  # fmt: skip
        seen = [s for s in range(len(match)) if mask is None or mask[t, s]]
        share = [math.exp(match[s] - max(match)) for s in seen]
        for s, part in zip(seen, share):
            out[place] += part / sum(share) * v[(*front, s)]
    return out


@chapter.exercise(
    "Three steps: how well does each query match each key, what share does each key get, "
    "and the values mixed by these shares.",
    "scores = q @ k.mT over the root of D, then softmax over the keys, the last axis. A "
    "score that may not be looked at becomes -inf before the softmax.",
    "scores = q @ k.mT / q.shape[-1] ** 0.5; if mask is not None: scores = "
    "scores.masked_fill(~mask, -torch.inf); return scores.softmax(-1) @ v",
)
def attention(answer):
    "A soft look-up: values mixed by how well a query matches each key."
    q, k = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    v = torch.tensor([[10.0], [20.0]])
    share = math.exp(1 / math.sqrt(2))
    want = [[(10 * share + 20) / (share + 1)]]
    same("one query [1, 0], keys [1, 0] and [0, 2], values 10 and 20", answer(q, k, v),
         want, "Scores 1 and 0 over the root of 2, softmax, then the mean of the values.",
         rtol=1e-5)  # fmt: skip
    q, k, v = draws(3, 4), draws(3, 4, seed=1), draws(3, 2, seed=2)
    same("three queries, three keys of size 4, values of size 2", answer(q, k, v),
         looped(q, k, v), "Row t of the weights belongs to query t and adds up to 1: "
         "softmax over the keys, the last axis.")  # fmt: skip
    q, k, v = draws(2, 3, 5, 4), draws(2, 3, 7, 4, seed=1), draws(2, 3, 7, 6, seed=2)
    same("2 rows, 3 heads, 5 queries, 7 keys of size 4, values of size 6",
         answer(q, k, v), looped(q, k, v),
         "Scores q @ k.mT over the root of the keys' size; softmax over the keys.")  # fmt: skip
    mask = torch.ones(5, 7, dtype=torch.bool).tril(2)
    same("the same with a mask: True = may look", answer(q, k, v, mask),
         looped(q, k, v, mask), "What may not be looked at gets the score -inf, before "
         "the softmax: the shares of the others still add up to 1.")  # fmt: skip
    mask = draws(2, 1, 5, 7, seed=3) > 0
    mask[..., 0] = True
    want = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    same("a mask for each row, (2, 1, 5, 7)", answer(q, k, v, mask), want,
         "A mask may have axes in front; masked_fill stretches it.")  # fmt: skip
    same("no mask: as if all may look", answer(q, k, v, None), looped(q, k, v),
         "mask=None means that every query sees every key.")  # fmt: skip
    want = looped(40 * q, k, v)
    same("queries 40 times as long", answer(40 * q, k, v), want,
         "Large scores are nothing special: softmax subtracts the largest by itself.")  # fmt: skip


def _placed(T, S):
    "Causal pairs by their definition: asker i stands at source S - T + i."
    return np.array([[s <= S - T + i for s in range(S)] for i in range(T)])


@chapter.exercise(
    "Draw it for T = 2, S = 5 on paper: the two askers are the last two of five tokens.",
    "Asker i stands at place S - T + i: it sees the sources 0 .. S - T + i.",
    "torch.ones(T, S, dtype=torch.bool).tril(S - T)",
)
def causal_mask(answer):
    "Who may look where, when nobody sees the future."
    for T, S, rule in [
        (4, 4, "Each token sees itself and those before it: a triangle."),
        (2, 5, "The last asker is the last source: the triangle is moved right by S - T."),
        (1, 5, "One new token sees all that came before it, and itself."),
        (3, 4, "The last asker is the last source: the triangle is moved right by S - T."),
        (1, 1, "A lone token sees itself."),
    ]:  # fmt: skip
        got = answer(T, S)
        same(f"T = {T}, S = {S}: is it boolean?", str(getattr(got, "dtype", type(got))),
             "torch.bool", "A mask is boolean, torch.bool: True = may look.")  # fmt: skip
        same(f"T = {T}, S = {S}", got, _placed(T, S), rule)


@chapter.exercise(
    "Start from causal_mask and take away what is too far back.",
    "Asker i stands at S - T + i and sees itself and the width - 1 sources before it.",
    "seen = causal_mask(T, S); return seen & ~seen.tril(S - T - width)",
)
def window_mask(answer):
    "The causal mask, with a short memory."
    for T, S, width in [
        (5, 5, 2),
        (5, 5, 1),
        (3, 7, 4),
        (1, 6, 3),
        (4, 4, 9),
        (2, 6, 6),
    ]:
        want = _placed(T, S)
        for i, s in np.ndindex(T, S):
            want[i, s] &= S - T + i - s < width
        got = answer(T, S, width)
        same(f"T = {T}, S = {S}, width {width}: is it boolean?",
             str(getattr(got, "dtype", type(got))), "torch.bool",
             "A mask is boolean, torch.bool: True = may look.")  # fmt: skip
        same(f"T = {T}, S = {S}, width {width}", got, want,
             "The last `width` sources, the asker's own place among them.")  # fmt: skip


@chapter.exercise(
    "Which numbers belong to head 0? The first E / H of each token.",
    "First cut the last axis in two, (B, T, H, D), then let T and H change places.",
    "x_BTE.view(B, T, H, E // H).transpose(1, 2)",
)
def split_heads(answer):
    "Every head gets its own slice of every token's features."
    for B, T, H, D in [(2, 5, 3, 4), (1, 4, 1, 6), (3, 2, 4, 1), (2, 3, 3, 3)]:
        x = draws(B, T, H * D)
        want = torch.stack([x[..., h * D : (h + 1) * D] for h in range(H)], dim=1)
        same(f"x of shape {B, T, H * D}, {H} heads", answer(x, H), want,
             "Head h holds the features h * D to (h + 1) * D of each token.")  # fmt: skip
    x = draws(4, 2, 6).transpose(0, 1)
    want = torch.stack([x[..., :3], x[..., 3:]], dim=1)
    same("x of shape (2, 4, 6) that is a view with swapped axes, 2 heads", answer(x, 2),
         want, "Cutting the last axis works on every view: unflatten or reshape.")  # fmt: skip


@chapter.exercise(
    "Six heads ask, two are read: heads 0, 1, 2 read the first, 3, 4, 5 the second.",
    "Each head that is read is repeated H / G times, and its copies lie side by side.",
    "k_BGSD.repeat_interleave(H // k_BGSD.shape[1], dim=1)",
)
def repeat_heads(answer):
    "Several heads that ask share one that is read."
    for G, H in [(2, 6), (1, 4), (3, 3), (4, 8)]:
        k = draws(2, G, 5, 3)
        want = torch.stack([k[:, h * G // H] for h in range(H)], dim=1)
        same(f"{H} heads ask, {G} are read", answer(k, H), want,
             "Head h reads head h * G // H: copies of one lie side by side.")  # fmt: skip
    q, k, v = draws(2, 6, 3, 4), draws(2, 2, 5, 4, seed=1), draws(2, 2, 5, 4, seed=2)
    want = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    got = F.scaled_dot_product_attention(q, answer(k, 6), answer(v, 6))
    same("attention over them, beside PyTorch's enable_gqa", got, want,
         "Copies of one head lie side by side.")  # fmt: skip


@chapter.exercise(
    "A pair of numbers is a point in the plane. Position p turns it by an angle that grows "
    "with p. Pair i is x[i] and x[i + D / 2].",
    "The angle is position / base ** (2 i / D). A turn: (a cos - b sin, a sin + b cos).",
    "angles = positions_T[:, None] / base ** (2 * torch.arange(D // 2) / D); a, b = "
    "x.chunk(2, dim=-1); torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)",
)
def rotate(answer):
    "Positions written into queries and keys as turns."
    x, c, d = torch.tensor([[[[1.0, 2.0]]]]).double(), math.cos(1), math.sin(1)
    same("the pair (1, 2) at position 1", answer(x, torch.tensor([1])),
         [[[[c - 2 * d, d + 2 * c]]]], "The first pair turns by 1 radian per position: "
         "(a cos - b sin, a sin + b cos).", rtol=1e-5)  # fmt: skip
    x = draws(2, 3, 5, 6)
    same("position 0 turns nothing", answer(x, torch.zeros(5, dtype=torch.long)), x,
         "An angle of 0 leaves the vector as it is: are the pairs put back where they "
         "came from?")  # fmt: skip
    positions = torch.tensor([3, 4, 5, 9, 40])
    got = answer(x, positions)
    same("5 tokens of 2 rows and 3 heads: the lengths of the vectors",
         torch.as_tensor(got).norm(dim=-1), x.norm(dim=-1),
         "A turn changes no length: a * cos - b * sin, and a * sin + b * cos.",
         rtol=1e-5)  # fmt: skip
    for base in (10_000.0, 100.0):
        turn = torch.exp(
            1j * positions[:, None] / base ** (torch.arange(3, dtype=torch.float64) / 3)
        )
        z = torch.complex(x[..., :3], x[..., 3:]) * turn
        got = answer(x, positions) if base == 10_000 else answer(x, positions, base)
        same(f"positions 3, 4, 5, 9, 40 and base {base:g}, beside complex numbers", got,
             torch.cat((z.real, z.imag), -1), "Pair i is x[i] and x[i + D / 2]; its angle "
             "is position / base ** (2 i / D).", rtol=1e-4, atol=1e-5)  # fmt: skip
    q, k = draws(1, 1, 1, 8), draws(1, 1, 1, 8, seed=1)

    def score(p, r):
        turned = answer(q, torch.tensor([p])), answer(k, torch.tensor([r]))
        return (turned[0] * turned[1]).sum()

    same("the score of positions 105 and 102 beside that of 5 and 2", score(105, 102),
         score(5, 2), "Only the distance of the two positions counts.", rtol=1e-4)  # fmt: skip


def _norm(x):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def linears(block):
    "The linear layers of a block by their last name, wherever they are."
    return {name.rpartition(".")[2]: layer for name, layer in block.named_modules()
            if isinstance(layer, nn.Linear)}  # fmt: skip


def _block_by_hand(block, x, positions, heads, keep=None):
    "A pre-norm block in float64, from formulas: the oracle of `Block`."
    L = {name: layer.weight.double() for name, layer in linears(block).items()}
    n, (B, T, E) = _norm(x), x.shape
    half = E // heads // 2

    def cut(W):
        return (n @ W.T).reshape(B, T, heads, E // heads).transpose(1, 2)

    def turned(x):
        power = torch.arange(half, dtype=torch.float64) / half
        turn = torch.exp(1j * positions[:, None] / 10_000**power)
        z = torch.complex(x[..., :half], x[..., half:]) * turn
        return torch.cat((z.real, z.imag), -1)

    q, k, v = (cut(L[name]) for name in ("query", "key", "value"))
    q, k = turned(q), turned(k)
    if keep is not None:
        k, v = keep(k, v)
    S = k.shape[2]
    mask = torch.as_tensor(_placed(T, S))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    x = x + mixed.transpose(1, 2).reshape(B, T, E) @ L["out"].T
    return x + (_norm(x) @ L["up"].T).relu() ** 2 @ L["down"].T


@chapter.exercise(
    "Two halves, each of the form x = x + something(rms(x)): first attention, where tokens "
    "meet, then the MLP, where each token is alone.",
    "q, k, v are linear maps of rms(x), split into heads; q and k are rotated; keep comes "
    "after that; then attention with the causal mask, join_heads, self.out.",
    "k, v = keep(k, v) if keep else (k, v); mask = causal_mask(q.shape[2], k.shape[2]); x "
    "= x + self.out(join_heads(attention(q, k, v, mask))); return x + "
    "self.down(F.relu(self.up(rms(x))) ** 2)",
    kind="class",
)
@keeps_random
def Block(answer):
    "One pre-norm block of a GPT."
    torch.manual_seed(0)
    block = answer(12, 3).double()
    names = {"query", "key", "value", "out", "up", "down"}
    same("Block(12, 3): its linear layers", sorted(linears(block)), sorted(names),
         "The six layers of __init__ stay as they were given.")  # fmt: skip
    x, positions = draws(2, 5, 12), torch.arange(5)
    fresh = block(x, positions)
    linears(block)["down"].weight.data = draws(12, 48) / 3
    same("down is drawn, out is still 0", block(x, positions),
         _block_by_hand(block, x, positions, 3),
         "With nothing from attention: x + down(relu(up(rms(x))) ** 2).",
         rtol=1e-4, atol=1e-5)  # fmt: skip
    same("a fresh block, whose out and down are 0", fresh, x,
         "x = x + ..., twice: with nothing added, a block hands on what it got.")  # fmt: skip
    for number, layer in enumerate(linears(block).values()):
        layer.weight.data = draws(*layer.weight.shape, seed=number) / 3
    want = _block_by_hand(block, x, positions, 3)
    got = block(x, positions)
    later = x.clone()
    later[:, 3] += 1
    same("token 3 of 5 is changed: do the outputs before it stay?",
         block(later, positions)[:, :3], got[:, :3],
         "No token sees the future: attention with causal_mask.")  # fmt: skip
    same("drawn weights, 2 rows of 5 tokens, 3 heads", got, want,
         "x + out(attention(...)), then x + down(relu(up(rms(x))) ** 2).",
         rtol=1e-4, atol=1e-5)  # fmt: skip
    same("the same text at positions 7 to 11", block(x, positions + 7), want,
         "Rotary positions see distances: hand positions_T to rotate, for q and for k, "
         "before keep gets the keys.",
         rtol=1e-4, atol=1e-5)  # fmt: skip
    same("positions 0, 2, 4, 6, 8", block(x, 2 * positions),
         _block_by_hand(block, x, 2 * positions, 3), "The positions are the ones that come "
         "in, not always 0, 1, 2.", rtol=1e-4, atol=1e-5)  # fmt: skip
    same("every token three times as long", block(3 * x, positions),
         _block_by_hand(block, 3 * x, positions, 3),
         "rms is for what goes in; x itself is handed on as it is.", rtol=1e-4, atol=1e-5)  # fmt: skip
    seen = []

    def keep(k, v):
        seen.append((k, v))
        return [torch.cat(parts, 2) for parts in zip(*seen)]

    parts = [block(x[:, :3], positions[:3], keep), block(x[:, 3:], positions[3:], keep)]
    same("3 tokens, then 2 more, with a keep that remembers keys and values",
         torch.cat(parts, 1), want, "keep gets the keys after rotate and returns all so "
         "far; the mask has their number.", rtol=1e-4, atol=1e-5)  # fmt: skip


@chapter.exercise(
    "Divide by the norm first, so that no singular value is above 1. Then the formula, "
    "`steps` times.",
    "A = X @ X.mT; X = a * X + (b * A + c * A @ A) @ X. Tall matrices are transposed "
    "before and after, so that A is the smaller square.",
    "X = G / G.norm(); transpose if M > N; loop; transpose back.",
)
def orthogonal(answer):
    "All singular values pushed to about 1, by products alone."

    def by_hand(G, steps):
        a, b, c = 3.4445, -4.7750, 2.0315
        U, s, V = torch.linalg.svd(G, full_matrices=False)
        s = s / s.square().sum().sqrt()
        for _ in range(steps):
            s = a * s + b * s**3 + c * s**5
        return U * s @ V

    for shape, steps in [
        ((4, 6), 1),
        ((4, 4), 5),
        ((3, 7), 5),
        ((7, 3), 5),
        ((5, 2), 3),
    ]:
        G = draws(*shape, seed=sum(shape))
        got = answer(G) if steps == 5 else answer(G, steps)
        same(f"{steps} step{'s' * (steps > 1)}, G of shape {shape}", got,
             by_hand(G, steps), "X over its norm; then X = a X + (b A + c A A) X with "
             "A = X X.T, `steps` times.", rtol=1e-4, atol=1e-5)  # fmt: skip
    G = draws(4, 4, seed=1)
    same("G a thousand times as long", answer(1000 * G), answer(G),
         "The length of G does not matter: divide by G.norm() first.", rtol=1e-3, atol=1e-4)  # fmt: skip
    G = 1e-9 * draws(3, 3)
    small = torch.as_tensor(answer(G))
    same("G of size 1e-9: all numbers finite, and along G",
         [bool(torch.isfinite(small).all()), bool((small * G).sum() > 0)], [True, True],
         "G over its norm plus 1e-7.")  # fmt: skip
    same("G = 0", answer(torch.zeros(2, 3)), np.zeros((2, 3)),
         "G over its norm plus 1e-7: a slope of 0 stays 0.")  # fmt: skip
    for shape in [(40, 3), (3, 40)]:
        with Largest() as seen:
            answer(draws(*shape))
        same(f"G of shape {shape}: the most numbers in one tensor", seen.most, 120,
             "Transpose tall matrices first: A is the smaller square, 3 by 3 here.")  # fmt: skip


class Largest(TorchDispatchMode):
    "Notes how many numbers the largest tensor has that an operation makes."

    most = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        made = operator(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.most = max(self.most, made.numel())
        return made


class Script:
    """A model that knows what it was fed: its next token is the sum of all it has read.

    Without a cache it reads `ids`, with one, what the cache holds and `ids`.
    """

    def __init__(self, V=11):
        self.V, self.calls = V, []

    def __call__(self, ids_BT, cache=None):
        self.calls.append(tuple(ids_BT.shape))
        before = ids_BT[:, :0] if cache is None else cache.read
        seen = torch.cat((before, ids_BT), 1) if before is not None else ids_BT
        if cache is not None:
            cache.read = seen
        sums = seen.cumsum(1) + torch.arange(seen.shape[1])
        return F.one_hot(sums[:, -ids_BT.shape[1] :] % self.V, self.V).double()


class Held:
    "The cache of Script."

    read = None


def _written(ids_BT, count, V=11):
    "What Script goes on with, by its definition."
    rows = ids_BT.tolist()
    for row in rows:
        for _ in range(count):
            row.append((sum(row) + len(row) - 1) % V)
    return rows


@chapter.exercise(
    "A loop: ask the model, take the logits behind the last token, pick, append.",
    "Without a cache the model reads all ids each time. With one, it reads the prompt "
    "once, and after that the one token that is new.",
    "new = ids; in the loop: logits = model(ids) if cache is None else model(new, "
    "cache=cache); new = pick(logits[:, -1], temperature); ids = torch.cat((ids, new), 1)",
)
@keeps_random
def generate(answer):
    "One token after another, with and without a cache."
    prompt = torch.tensor([[3, 1, 4], [2, 7, 1]])
    for count in (1, 4):
        model = Script()
        got = answer(model, prompt, count, cache=None, temperature=0)
        same(f"{count} token{'s' * (count > 1)} after (2, 3) ids, no cache", got,
             _written(prompt, count), "The prompt and `count` more, each the likeliest "
             "behind the last token.")  # fmt: skip
        same(f"{count}: what the model was asked to read, no cache", model.calls,
             [(2, 3 + n) for n in range(count)], "Without a cache it reads everything, "
             "`count` times.")  # fmt: skip
        model, held = Script(), Held()
        got = answer(model, prompt, count, cache=held, temperature=0)
        same(f"{count} after (2, 3) ids, with a cache", got, _written(prompt, count),
             "The cache remembers: feed it each token once, and nothing twice.")  # fmt: skip
        same(f"{count}: what the model was asked to read, with a cache", model.calls,
             [(2, 3)] + [(2, 1)] * (count - 1), "First the prompt, then one new token at a "
             "time.")  # fmt: skip
    got = torch.as_tensor(answer(Script(), prompt, 40, cache=None, temperature=9))
    likeliest = got.tolist() == _written(prompt, 40)
    same("80 tokens at temperature 9: is each the likeliest?", likeliest, False,
         "`temperature` goes on to pick: above 0 a token is drawn.")  # fmt: skip
    same("0 tokens", answer(Script(), prompt, 0, cache=None, temperature=0), prompt,
         "Nothing to write: the prompt comes back.")  # fmt: skip


def _counted(words, merges):
    "Byte pair encoding by its definition, slowly: the oracle of `train_bpe`."
    parts = {w: [bytes([b]) for b in w.encode()] for w in words}
    found = []
    for _ in range(merges):
        pairs = Counter()
        for word, times in words.items():
            for pair in zip(parts[word], parts[word][1:]):
                pairs[pair] += times
        if not pairs:
            break
        most = max(pairs.values())
        best = min(pair for pair, count in pairs.items() if count == most)
        found.append(best)
        for word, tokens in parts.items():
            new, i = [], 0
            while i < len(tokens):
                two = tuple(tokens[i : i + 2]) == best
                new.append(b"".join(best) if two else tokens[i])
                i += 1 + two
            parts[word] = new
    return found


@chapter.exercise(
    "Begin with every word as a list of single bytes. Then, again and again: count the "
    "neighbours, and merge the pair that is most frequent.",
    "A pair counts once for each place and each time that its word occurs. Of equally "
    "frequent pairs the smaller one wins: min(..., key=lambda pair: (-count[pair], pair)).",
    "parts = {word: [bytes([b]) for b in word.encode()] for word in words}; loop: count = "
    "Counter(); for word, times: for pair in zip(p, p[1:]): count[pair] += times; best = "
    "...; parts = {word: merge(p, best) ...}",
    seconds=8,
)
def train_bpe(answer):
    "Byte pair encoding: the most frequent neighbours become one token."
    same("{'aab': 3, 'ab': 2}, 1 merge", answer({"aab": 3, "ab": 2}, 1), [(b"a", b"b")],
         "A pair counts as often as its word occurs: a, b comes 5 times, a, a 3 times.")  # fmt: skip
    cases = [
        ({"aaaa": 1, "bc": 2}, 1, "a, a comes three times in aaaa, b, c twice."),
        ({"low": 5, "lower": 2, "newest": 6, "widest": 3}, 6,
         "Count anew after each merge, with the merged tokens."),
        ({"ab": 1, "ba": 1, "cd": 1}, 2, "Of equally frequent pairs the smaller one wins."),
        ({"aaa": 2, "aab": 1, "b": 50}, 3, "Merge from the left; a word of one token has "
         "no pair."),
        ({"über": 3, "übel": 2}, 3, "Tokens are bytes: ü has two, word.encode()."),
        ({"ab": 3, "b": 9, "ba": 2}, 5, "When no pair is left, fewer merges come out."),
        ({"abab": 1, "cdc": 2, "dcd": 1}, 4, "A pair counts at each place in a word."),
    ]  # fmt: skip
    for words, merges, rule in cases:
        got = answer(dict(words), merges)
        same(f"{words}, {merges} merges", [tuple(pair) for pair in got],
             _counted(words, merges), rule)  # fmt: skip


@chapter.exercise(
    "A loss is a mean per token. How much is it for the whole text, and how much of that "
    "falls to each byte?",
    "One bit is ln 2 nats.",
    "nats * tokens / bytes / math.log(2)",
)
def bits_per_byte(answer):
    "A loss that does not depend on how the text was cut."
    rule = "The text's nats, nats * tokens, over its bytes and over ln 2."
    for nats, tokens, size, want in [
        (math.log(2), 10, 10, 1.0),
        (math.log(256), 5, 5, 8.0),
        (3.0, 100, 250, 3.0 * 100 / 250 / math.log(2)),
        (1.5, 7, 3, 3.5 / math.log(2)),
        (0.0, 4, 9, 0.0),
    ]:
        same(f"{nats:.3g} nats per token, {tokens} tokens, {size} bytes",
             answer(nats, tokens, size), want, rule)  # fmt: skip


def _followers(ids, V):
    "For each place: the mean one-hot of what followed earlier copies; None without one."
    found = []
    for t, token in enumerate(ids):
        after = [ids[s + 1] for s in range(t) if ids[s] == token]
        found.append(np.eye(V)[after].mean(0) if after else None)
    return found


@chapter.exercise(
    "Two look-ups. The first tells every token which token stands before it. The second "
    "asks: where does my token stand before something, and what is that?",
    "First: place t looks for place t - 1, so the key of source s is the place s + 1. "
    "Second: the query is the token, the key is what the first look-up found, the value is "
    "the token. Large numbers make a look-up sharp.",
    "place = torch.eye(T + 1); before = attention(SHARP * place[:T], place[1:], x, mask); "
    "return attention(SHARP * x, before, x, mask)",
)
def induction(answer):
    "Two look-ups that go on with whatever repeats: an induction head, set by hand."
    rule = (
        "Look for the places whose token before is the same as mine, and copy what stands "
        "there."
    )
    for V, ids in [
        (5, [0, 1, 2, 3, 1, 2, 3]),
        (6, [0, 4, 2, 5, 4, 2, 5, 4]),
        (9, [0, 8, 8, 8, 3, 8]),
        (4, [0, 1, 2, 1, 3, 1]),
        (30, [0, *range(1, 25), *range(1, 25)]),
    ]:
        x = F.one_hot(torch.tensor(ids), V).float()  # torch.eye(T) has this dtype
        got = torch.as_tensor(answer(x))
        shown = ids if len(ids) < 10 else "0, 1 .. 24, 1 .. 24"
        same(f"tokens {shown}: the shape", list(got.shape), list(x.shape),
             "One row per token, with a number for each symbol.")  # fmt: skip
        known = [
            (t, row) for t, row in enumerate(_followers(ids, V)) if row is not None
        ]
        places = [t for t, _ in known]
        same(f"tokens {shown}: what comes after place {places[0]}, which repeats",
             got[places[0]], known[0][1], rule, atol=1e-3)  # fmt: skip
        same(f"tokens {shown}: after every token that came before", got[places],
             np.array([row for _, row in known]), rule, atol=1e-3)  # fmt: skip
    x = F.one_hot(torch.tensor([0, 1, 2, 3, 1, 2, 3]), 5).float()
    other = x.clone()
    other[5:] = x[[3, 1]]
    same("the last two tokens are changed: do the rows before them stay?",
         answer(other)[:5], answer(x)[:5], "Both look-ups see the past only: causal_mask.",
         atol=1e-6)  # fmt: skip
