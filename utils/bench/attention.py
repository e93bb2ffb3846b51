"""Chapter 09: the race with nanoGPT's recipe, the cache, fused attention, byte pairs.

    python -m utils.bench.attention [DIR]     records utils/data/race.json anew
    python -m utils.bench.attention --ours    only our own run, and both steps in turns

The recipe is that of nanoGPT's README for a laptop's CPU (MIT licence): 4 layers, 4 heads,
width 128, windows of 64, 12 at a time, AdamW, 2,000 steps. DIR is a checkout of nanoGPT,
whose model.py then runs it; without one the course's own GPT does, with the same options.
"""

import datetime
import json
import math
import sys
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

from utils.bench.ratio import Ratio, benchmark, cpu_seconds, in_turns
from utils.files import ROOT, write_whole

RECORD = ROOT / "utils" / "data" / "race.json"
STEPS, OURS = 2000, 420  # of the recipe, of chapter 09
B, OUR_B, T = 12, 16, 64  # windows per step, and their characters


def recorded():
    "The recipe's run, as it was recorded: steps, loss, curve [[step, loss], ...], machine."
    return json.loads(RECORD.read_text(encoding="utf-8"))


# ---- two models, two steps ----


def text():
    "-> ids to learn from, windows of the unseen play (rows, T + 1), size of the vocabulary."
    from utils.built.seq import vocabulary, windows
    from utils.data.text import shakespeare

    learnt, unseen = shakespeare()
    chars, encode, _ = vocabulary(learnt + unseen)
    return encode(learnt), windows(encode(unseen), T), len(chars)


def recipe(V, steps=STEPS):
    "The recipe's network and optimizer, in the course's own GPT."
    import torch

    from utils.built.gpt import GPT, GPT2

    model = GPT(V, T, 4, 4, 128, **{**GPT2, "bias": False, "activation": "gelu"})
    matrices = [p for p in model.parameters() if p.ndim > 1]
    gains = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": gains}]
    adamw = torch.optim.AdamW(groups, 1e-3, betas=(0.9, 0.99), weight_decay=0.0)
    return model, adamw, lambda step: _cosine(step, steps)


def _cosine(step, steps, lr=1e-3, least=1e-4, warmup=100):
    if step < warmup:
        return lr * (step + 1) / (warmup + 1)
    done = (step - warmup) / (steps - warmup)
    return least + (lr - least) * (1 + math.cos(math.pi * done)) / 2


def ours(V, ids_N, steps=OURS, seed=0):
    "Chapter 09's network and its Run."
    import torch

    from utils.built import language
    from utils.built.gpt import GPT

    torch.manual_seed(seed)
    return language.Run(GPT(V, T, 2, 3, 96), ids_N, steps, OUR_B, T, seed)


def _their_step(model, adamw, rate, ids_N, logits_of=None):
    "-> step(number): one step of the recipe."
    import torch
    import torch.nn.functional as F

    from utils.built.language import draw_windows

    dice = torch.Generator().manual_seed(0)
    logits_of = logits_of or (lambda x, y: F.cross_entropy(
        model(x).flatten(0, 1), y.flatten()))  # fmt: skip

    def step(number):
        for group in adamw.param_groups:
            group["lr"] = rate(number)
        rows = draw_windows(ids_N, B, T, dice)
        loss = logits_of(rows[:, :-1], rows[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad()

    return step


def step_seconds(turns=8):
    "Median CPU seconds of one step: the recipe's and ours, measured in turns."
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    ids_N, _, V = text()
    theirs, mine = _their_step(*recipe(V), ids_N), ours(V, ids_N)
    times = [[], []]
    for turn in range(turns + 1):
        for kept, work in zip(times, (lambda: theirs(200), mine.step)):
            begin = time.process_time()
            work()
            work()
            if turn:  # the first warms up
                kept.append((time.process_time() - begin) / 2)
    return [sorted(kept)[len(kept) // 2] for kept in times]


# ---- other people's code, by folder ----


def nanogpt(folder, V, steps=STEPS):
    "The recipe in a checkout of nanoGPT: its own GPT and configure_optimizers."
    from utils.bench.peers.imported import Peer, need

    folder = Path(folder).resolve()
    peer = Peer(folder, folder / "model.py")

    def load():
        theirs = need(import_module(peer.name), "model.py", "GPT", "GPTConfig")
        sizes = {"block_size": T, "vocab_size": V, "n_layer": 4, "n_head": 4,
                 "n_embd": 128, "dropout": 0.0, "bias": False}  # fmt: skip
        model = theirs.GPT(theirs.GPTConfig(**sizes))
        return model, model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")

    model, adamw = peer.inside(load)()
    return model, adamw, lambda step: _cosine(step, steps), peer.version()


def _loss_of(model):
    "nanoGPT's own loss; its views want whole rows."
    return lambda x, y: model(x.contiguous(), y.contiguous())[1]


def peer_rows(folder, place, name):
    "-> {row: function -> Ratio} for `bench --peer DIR`, and the peer's version."
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    ids_N, _, V = text()
    model, adamw, rate, version = nanogpt(place.parent, V)

    def race():
        theirs = _their_step(model, adamw, rate, ids_N, _loss_of(model))
        mine, record = ours(V, ids_N), recorded()
        samples = in_turns(mine.step, lambda: theirs(200), pairs=15, invert=True)
        samples = [ratio * STEPS / OURS for ratio in samples]
        return Ratio(
            samples, f"CPU time of {STEPS} steps of {name} over {OURS} of ours",
            f"the losses were recorded: {record['loss']:.3f} and {record['our_loss']:.3f}",
        )  # fmt: skip

    return {f"attention.race, CPU time of {name} over ours": race}, version


def record(folder=None, path=RECORD):
    "Run the recipe, then ours, and write what came of it."
    import torch

    from utils.bench import machine
    from utils.built.language import loss_of

    torch.set_num_threads(1)
    torch.manual_seed(1337)
    ids_N, rows, V = text()
    if folder is None:
        model, adamw, rate = call, *_ = recipe(V)
        step, version = _their_step(model, adamw, rate, ids_N), "the course's GPT"
    else:
        model, adamw, rate, version = nanogpt(folder, V)
        step = _their_step(model, adamw, rate, ids_N, _loss_of(model))

        def call(ids_BT):
            return model(ids_BT, ids_BT)[0]  # all logits, not the last alone

    seconds, curve = 0.0, []
    for first in range(0, STEPS, 100):
        part = range(first, first + 100)
        seconds += cpu_seconds(lambda: [step(n) for n in part])  # noqa: B023
        with torch.no_grad():
            curve.append([first + 100, round(loss_of(call, rows), 4)])
        print(curve[-1], round(seconds, 1), file=sys.stderr, flush=True)
    found = {
        "what": "nanoGPT's recipe for a CPU, on the course's text, beside chapter 09's",
        "by": version, "machine": machine.in_one_line(), "torch": torch.__version__,
        "date": f"{datetime.date.today():%Y-%m-%d}",
        "command": "python -m utils.bench.attention" + (" DIR" if folder else ""),
        "steps": STEPS, "loss": curve[-1][1], "seconds": round(seconds, 1),
        "curve": curve,
    }  # fmt: skip
    return record_ours(found, path)


def record_ours(found=None, path=RECORD):
    "Our own run, and the steps of both in turns, beside a recipe that was recorded."
    from utils.built.language import loss_of

    found = found or recorded()
    ids_N, rows, V = text()
    mine = ours(V, ids_N)
    found["our_steps"], found["our_batch"] = OURS, OUR_B
    found["our_seconds"] = round(cpu_seconds(mine.go), 1)
    found["our_loss"] = round(loss_of(mine.model, rows), 4)
    found["step_ms"] = [round(1e3 * seconds, 2) for seconds in step_seconds(turns=30)]
    theirs, own = found["step_ms"]
    found["gain"] = round(theirs * STEPS / (own * OURS), 2)
    write_whole(path, json.dumps(found, indent=1) + "\n")
    return found


# ---- rows of `start.py bench` ----


@benchmark("attention.race", ">= 6")
def race():
    "CPU time of the recipe's 2,000 steps over that of ours, by steps in turns."
    import torch

    torch.set_num_threads(1)
    ids_N, _, V = text()
    theirs, mine, seen = _their_step(*recipe(V), ids_N), ours(V, ids_N), recorded()
    samples = in_turns(mine.step, lambda: theirs(200), pairs=15, invert=True)
    return Ratio(
        [ratio * STEPS / OURS for ratio in samples],
        f"CPU time of nanoGPT's recipe, {STEPS} steps, over ours, {OURS}",
        f"the losses were recorded: {seen['loss']:.3f} and {seen['our_loss']:.3f}",
    )


@benchmark("attention.cache", ">= 1.5")
def cache():
    "256 characters written without and with a cache."
    import torch

    from utils.built.gpt import GPT, generate

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, ids_BT = GPT(63, T, 2, 3, 96), torch.randint(63, (1, 16))
    samples = in_turns(
        lambda: generate(model, ids_BT, 256, temperature=0),
        lambda: generate(model, ids_BT, 256, cache=False, temperature=0),
        pairs=3, invert=True,
    )  # fmt: skip
    return Ratio(samples, "256 tokens without a cache over with one")


@benchmark("attention.fused")
def fused():
    "Attention by hand over PyTorch's: 4 heads of 32, 1,024 tokens, causal."
    import torch

    from utils.built import attention

    torch.set_num_threads(1)
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 4, 1024, 32)
    by_hand = lambda: [attention.attention(q, k, v, causal=True) for _ in range(4)]  # noqa: E731
    theirs = lambda: [attention.fused(q, k, v, causal=True) for _ in range(4)]  # noqa: E731
    return Ratio(
        in_turns(by_hand, theirs), "attention by hand over fused, 1,024 tokens"
    )


@benchmark("attention.bpe", ">= 5")
def pairs():
    "50 merges over 2,000 words: all pairs counted anew each time, over an index of pairs."
    from utils.built import bpe
    from utils.data.text import shakespeare

    words = dict(Counter(bpe.words_of(shakespeare()[0])).most_common(2000))

    def anew():
        parts = {word: [bytes([b]) for b in word.encode()] for word in words}
        for _ in range(50):
            count = Counter()
            for word, tokens in parts.items():
                for pair in zip(tokens, tokens[1:]):  # noqa: RUF007
                    count[pair] += words[word]
            best = min(count, key=lambda pair: (-count[pair], pair))
            parts = {word: bpe.merge(tokens, best) for word, tokens in parts.items()}

    samples = in_turns(lambda: bpe.train_bpe(words, 50), anew, pairs=3, invert=True)
    return Ratio(samples, "byte pairs counted anew over an index, 50 merges")


if __name__ == "__main__":
    done = record_ours() if sys.argv[1:] == ["--ours"] else record(*sys.argv[1:])
    print(json.dumps({name: done[name] for name in done if name != "curve"}, indent=1))
