"""Chapter 07: a recurrence in parallel, a counter, cells by hand, sound in real time."""

from collections import Counter, defaultdict

import numpy as np

from utils.bench.ratio import Ratio, benchmark, cpu_seconds, in_turns


def _loop(a_BTD, b_BTD):
    import torch

    h_BD, out = torch.zeros_like(b_BTD[:, 0]), []
    for a_BD, b_BD in zip(a_BTD.unbind(1), b_BTD.unbind(1)):
        h_BD = a_BD * h_BD + b_BD
        out.append(h_BD)
    return torch.stack(out, 1)


def _scan(shape, backward, calls):
    "How many times faster the scan is than a loop over time, its result the same."
    import torch

    from utils.built.recurrent import linear_scan

    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    a_BTD = 0.8 + 0.2 * torch.rand(shape, generator=g)
    b_BTD = torch.randn(shape, generator=g)
    assert torch.allclose(linear_scan(a_BTD, b_BTD), _loop(a_BTD, b_BTD), atol=1e-4)
    a_BTD.requires_grad_(backward), b_BTD.requires_grad_(backward)

    def run(way):
        for _ in range(calls):
            h_BTD = way(a_BTD, b_BTD)
            if backward:
                torch.autograd.grad(h_BTD.sum(), (a_BTD, b_BTD))

    samples = in_turns(lambda: run(linear_scan), lambda: run(_loop), invert=True)
    return Ratio(samples, "loop over time / linear_scan, float32")


for _shape, _backward, _calls, _bar in (
    ((1, 4096, 32), False, 10, ">= 15"),
    ((8, 512, 64), False, 20, ">= 2"),
    ((8, 512, 64), True, 5, ""),
    ((1, 4096, 32), True, 3, ">= 15"),
    ((32, 64, 256), False, 20, ""),
):
    _way = "forward and backward" if _backward else "forward"

    def _run(shape=_shape, backward=_backward, calls=_calls):
        return _scan(shape, backward, calls)

    benchmark(f"linear scan, {_way}, {_shape}", _bar)(_run)


def _by_dictionary(ids, order):
    "The counts of all runs up to `order`, one character at a time."
    counts = [defaultdict(Counter) for _ in range(order)]
    for n, table in enumerate(counts):
        for t in range(n, len(ids)):
            table[tuple(ids[t - n : t])][ids[t]] += 1
    return counts


@benchmark("5-gram counts of 100,000 characters", ">= 5")
def five_grams():
    from utils.built.seq import NGram, vocabulary
    from utils.data.text import shakespeare

    text = shakespeare()[0][:100_000]
    chars, encode, _ = vocabulary(text)
    ids_N = encode(text).numpy()
    ids = ids_N.tolist()
    counter, table = NGram(ids_N, 5, len(chars)), _by_dictionary(ids, 5)
    seen = sum(len(after) for after in table[4].values())
    assert seen == len(counter.tables[4][0]), "as many different runs of five"
    samples = in_turns(lambda: NGram(ids_N, 5, len(chars)), lambda: _by_dictionary(ids, 5),
                       pairs=3, invert=True)  # fmt: skip
    return Ratio(samples, "dictionary of contexts / NGram")


def _cell(kind):
    "The cell by hand over the library's, forward, float32."
    import torch
    from torch import nn

    from utils.built import recurrent

    torch.set_num_threads(1)
    torch.manual_seed(0)
    B, T, D, H = 32, 64, 48, 160
    layer = kind(D, H, batch_first=True)
    x_BTD, p = torch.randn(B, T, D), list(layer.parameters())

    def ours():
        h_BH = c_BH = torch.zeros(B, H)
        if kind is nn.RNN:
            return recurrent.rnn(x_BTD, h_BH, *p)
        out = []
        for x_BD in x_BTD.unbind(1):
            h_BH, c_BH = recurrent.lstm_cell(x_BD, h_BH, c_BH, *p)
            out.append(h_BH)
        return torch.stack(out, 1)

    with torch.no_grad():
        assert (ours() - layer(x_BTD)[0]).abs().max() < 1e-6
        samples = in_turns(ours, lambda: layer(x_BTD), pairs=9)
    return Ratio(
        samples, f"cell by hand / {kind.__name__}, B, T, D, H = {B}, {T}, {D}, {H}"
    )


@benchmark("plain cell by hand, forward")
def plain_cell():
    from torch import nn

    return _cell(nn.RNN)


@benchmark("LSTM cell by hand, forward")
def lstm_cell():
    from torch import nn

    return _cell(nn.LSTM)


@benchmark("a convolution along sound: real-time factor", "<= 0.02")
def real_time_factor():
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    ear = nn.Sequential(nn.Conv1d(1, 24, 160, stride=8), nn.ReLU(),
                        nn.Conv1d(24, 32, 8, stride=4), nn.ReLU(),
                        nn.Conv1d(32, 12, 1))  # fmt: skip
    sound = torch.tensor(np.random.default_rng(0).normal(size=(1, 1, 80_000))).float()
    with torch.no_grad():
        ear(sound)
        samples = [cpu_seconds(lambda: ear(sound)) / 10 for _ in range(7)]
    return Ratio(samples, "CPU seconds per second of sound at 8 kHz")
