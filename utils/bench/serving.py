"""Chapter 28: what its promises are, for a GPT of 106,368 parameters."""

import functools

import numpy as np
import torch

from utils.bench.ratio import Ratio, benchmark, in_turns
from utils.built import engine, gpt, paged, speculative
from utils.built.language import Run
from utils.built.seq import NGram, vocabulary
from utils.data.text import shakespeare


@functools.cache
def _world():
    "A trained model, the text it learnt, and the one it did not."
    torch.set_num_threads(1)
    torch.manual_seed(0)
    text, unseen = shakespeare()
    chars, encode, _ = vocabulary(text + unseen)
    model = gpt.GPT(len(chars), 64, 2, 4, 64)
    Run(model, encode(text), steps=120).go()
    model.eval().requires_grad_(False)
    return model, encode(text), encode(unseen)


def _crowd(seed, N=48):
    "[(prompt, tokens wanted)]: about 24 and 30 tokens."
    dice, (_, _, unseen_N) = np.random.default_rng(seed), _world()
    wanted = dice.exponential(30, N).clip(4, 150).astype(int).tolist()
    begins = dice.integers(0, len(unseen_N) - 60, N)
    sizes = dice.integers(8, 40, N)
    return [(unseen_N[b : b + n].tolist(), c) for b, n, c in zip(begins, sizes, wanted)]


def _served(requests, **settings):
    made = engine.Engine(_world()[0], blocks=200, **settings)
    for prompt, count in requests:
        made.add(prompt, count)
    made.run()
    return made


@benchmark("serving.continuous.steps", ">= 1.9")
def fewer_steps():
    "Nine crowds of 48 readers in 8 slots: static steps over continuous ones."
    samples = []
    for seed in range(9):
        wanted = [count for _, count in _crowd(seed)]
        static, new = (
            len(engine.count_steps(wanted, 8, policy))
            for policy in (engine.static, engine.continuous)
        )
        samples.append(static / new)
    return Ratio(samples, "steps, static over continuous")


@benchmark("serving.paged.used", ">= 0.85")
def used():
    "Tokens held over what the lent blocks of 16 can hold, over all steps."
    samples = [_served(_crowd(seed), slots=8).share_used for seed in range(3)]
    return Ratio(samples, "share of the lent bytes in use")


def _step(cache, B):
    "One decoding step for B rows that hold 100 tokens each."
    model, ids_B1 = _world()[0], torch.zeros(B, 1, dtype=torch.long)
    at_B1 = torch.full((B, 1), 100)

    def repeat():
        for _ in range(20):
            model(ids_B1, cache=cache, positions=at_B1)

    return repeat


@benchmark("serving.batch.32rows", ">= 4")
def company():
    "Tokens per second with 32 rows in the batch over one row."
    many, one = (_step(gpt.Cache(128), B) for B in (32, 1))
    samples = [32 * r for r in in_turns(many, one, invert=True)]
    return Ratio(samples, "times as many tokens per second")


@benchmark("serving.paged.step")
def in_blocks():
    "Eight rows on blocks over eight rows in one piece: what gathering costs here."
    cache = paged.Paged(_world()[0], 64)
    cache.rows([list(range(7 * r, 7 * r + 7)) for r in range(8)])
    return Ratio(in_turns(_step(cache, 8), _step(gpt.Cache(112), 8)), "times the time")


@benchmark("serving.prefix.144of128", ">= 1.2")
def prefix():
    "A prompt of 144 tokens whose first 128 are in the cache, over reading all of it."
    model, _, unseen_N = _world()
    held, whole = gpt.Cache(160), gpt.Cache(160)
    model(unseen_N[None, :128], cache=held)

    def read(cache, begin):
        for _ in range(10):
            cache.length = begin
            model(unseen_N[None, begin:144], cache=cache)

    samples = in_turns(lambda: read(held, 128), lambda: read(whole, 0), invert=True)
    return Ratio(samples, "times as fast")


@benchmark("serving.counter.times", ">= 1.2")
def counted_draft():
    "Speculation with counted runs of 4 characters, K = 3, over plain decoding."
    model, train_N, unseen_N = _world()
    draft = speculative.Counts(NGram(train_N, 4, model.vocab))
    places = [unseen_N[s : s + 40].tolist() for s in (100, 5000, 12000)]
    seeds = iter(range(1000))

    def guessing():
        dice = np.random.default_rng(next(seeds))
        for place in places:
            speculative.speculate(model, draft, place, 80, 3, dice)

    def plain():
        dice = np.random.default_rng(0)
        for place in places:
            speculative.plain(model, place, 80, dice)

    for _ in range(4):  # it remembers the contexts that it has met
        guessing()
    return Ratio(in_turns(guessing, plain, invert=True), "times as fast")


@benchmark("serving.law.gap", "<= 1e-6")
def law():
    "Total variation between the law of accept and the model's own, at 20 places."
    model, train_N, unseen_N = _world()
    draft, samples = speculative.Counts(NGram(train_N, 4, model.vocab)), []
    for begin in range(0, 20_000, 1000):
        seen = unseen_N[begin : begin + 40].tolist()
        p_V = speculative.chances(model(torch.tensor([seen])))[-1]
        found_V = speculative.law(speculative.accept, p_V, draft(seen))
        samples.append(abs(found_V - p_V).sum() / 2)
    return Ratio(samples, "total variation")
