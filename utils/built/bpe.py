"""What chapter 09 builds: byte pair encoding, and a loss that is fair to every cut.

A token is some bytes; every text can be written, since all 256 single bytes are tokens.
Merging the most frequent neighbours is an old compression (1994); for words: Sennrich and
others (2016).
"""

import itertools
import math
import re
from collections import Counter, defaultdict

from utils import given

WORD = re.compile(r" ?\w+| ?[^\w\s]+|\s+")


def words_of(text):
    "A text as pieces that merges never cross, such as ' king' or '--': -> list of str."
    if not isinstance(text, str):
        raise TypeError(f"text is a str, not {given.kind(text)}")
    return WORD.findall(text)


def merge(tokens, pair):
    "Tokens with every `pair` of neighbours made one, from the left: -> list."
    merged, i = [], 0
    while i < len(tokens):
        if tuple(tokens[i : i + 2]) == tuple(pair):
            merged.append(pair[0] + pair[1])
            i += 2
        else:
            merged.append(tokens[i])
            i += 1
    return merged


def train_bpe(words, merges):
    """{word: how often} -> the pairs to merge, in order: [(bytes, bytes), ...].

    At each step the pair that is most frequent inside the words; of equal ones the
    smaller. Fewer than `merges` where no pair is left. An index of pairs makes it quick.
    """
    merges = given.whole("merges", merges, least=0)
    if not hasattr(words, "items"):
        raise TypeError(f"words is {{word: how often}}, not {given.kind(words)}")
    parts = {word: [bytes([b]) for b in word.encode()] for word in words}
    count, where, found = Counter(), defaultdict(set), []
    for word, tokens in parts.items():
        for pair in itertools.pairwise(tokens):
            count[pair] += words[word]
            where[pair].add(word)
    while len(found) < merges and count:
        most = max(count.values())
        best = min(pair for pair, times in count.items() if times == most)
        found.append(best)
        for word in where.pop(best):
            old, new = parts[word], merge(parts[word], best)
            parts[word], times = new, words[word]
            for pair in itertools.pairwise(old):
                count[pair] -= times
            for pair in itertools.pairwise(new):
                count[pair] += times
                where[pair].add(word)
            for pair in {*itertools.pairwise(old)}:
                if not count[pair]:
                    del count[pair]
    return found


def encode(text, merges):
    "A text as tokens: every merge, in the order in which it was learnt: -> [bytes, ...]."
    rank = {tuple(pair): number for number, pair in enumerate(merges)}
    known = {}
    return [
        token
        for word in words_of(text)
        for token in known.get(word) or known.setdefault(word, _encode(word, rank))
    ]


def _encode(word, rank):
    tokens = [bytes([b]) for b in word.encode()]
    while True:
        pairs = [pair for pair in itertools.pairwise(tokens) if pair in rank]
        if not pairs:
            return tokens
        tokens = merge(tokens, min(pairs, key=rank.get))


def decode(tokens):
    "Tokens -> the text; bytes that are no UTF-8 become the sign for it."
    return b"".join(tokens).decode("utf-8", errors="replace")


def bits_per_byte(nats, tokens, size):
    """Mean loss per token, in nats -> bits per byte of the text.

    tokens and size: how many tokens and how many bytes the text has.
    """
    given.number("nats", nats)
    tokens, size = given.whole("tokens", tokens), given.whole("size", size)
    return nats * tokens / size / math.log(2)
