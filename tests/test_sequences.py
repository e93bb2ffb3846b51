"""What chapter 07 built: the counter, streams, the sampler, memory, the scan, tones."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from utils.built import recurrent, seq
from utils.data.tones import NAMES, RATE, tones

TEXT = (
    "to be, or not to be: that is the question.\nwhether 'tis nobler in the mind " * 30
)


@pytest.fixture(scope="module")
def small():
    "A counter of order 4 over 2,000 characters: counter, ids, the ways there and back."
    chars, encode, decode = seq.vocabulary(TEXT)
    ids_N = encode(TEXT[:2000])
    return seq.NGram(ids_N, 4, len(chars)), ids_N.numpy(), encode, decode


def by_dictionary(ids, context, V, order=4, discount=0.75):
    "The same probabilities, from a dictionary of contexts."
    p_V = np.full(V, 1 / V)
    for n in range(min(order, len(context) + 1)):
        after = Counter()
        tail = tuple(context[len(context) - n :])
        for t in range(n, len(ids)):
            if tuple(ids[t - n : t]) == tail:
                after[ids[t]] += 1
        total = sum(after.values())
        if total:
            count_V = np.array([after[w] for w in range(V)])
            kept = np.maximum(count_V - discount, 0)
            p_V = (kept + discount * len(after) * p_V) / total
    return p_V


# ---- characters, and the counter ----


def test_a_vocabulary_is_sorted_and_goes_both_ways():
    chars, encode, decode = seq.vocabulary("banana\n")
    assert chars == "\nabn"
    assert encode("nab").tolist() == [3, 1, 2] and encode("nab").dtype == torch.int64
    assert decode(encode("ban\nana")) == "ban\nana" and decode([0, 1]) == "\na"


def test_the_counter_is_the_dictionary(small):
    counter, ids, _, _ = small
    for end in (0, 1, 2, 3, 10, 500):
        context = ids[:end]
        want = by_dictionary(ids, context, counter.V)
        assert np.allclose(counter.predict(context), want)
    never = np.array([0, 0, 0])  # no such context
    assert np.allclose(counter.predict(never), by_dictionary(ids, never, counter.V))


def test_probabilities_add_up_and_agree_with_predict(small):
    counter, _, encode, _ = small
    new = encode("the mind is not nobler than that quest").numpy()
    p = counter.probabilities(new)
    for t in range(len(new)):
        all_V = counter.predict(new[:t])
        assert all_V.sum() == pytest.approx(1) and (all_V > 0).all()
        assert p[t] == pytest.approx(all_V[new[t]])


def test_rows_begin_anew(small):
    counter, ids, _, _ = small
    rows = seq.windows(ids[:101], 20)
    assert rows.shape == (5, 21)
    assert torch.equal(rows[1:, 0], rows[:-1, -1])
    each = [counter.probabilities(row) for row in rows]
    assert np.allclose(counter.probabilities(rows), each)
    nats = -np.log(np.array(each)[:, 1:]).mean()
    assert counter.nats(rows) == pytest.approx(nats)


def test_rows_shorter_than_the_order(small):
    counter, ids, _, _ = small
    assert counter.probabilities(ids[:2]).shape == (2,)


def test_more_counting_helps_where_it_has_seen_the_text(small):
    _, ids, _, _ = small
    V = int(ids.max()) + 1
    nats = [seq.NGram(ids, n, V).nats(ids) for n in (1, 2, 3, 4)]
    assert nats == sorted(nats, reverse=True) and nats[0] < math.log(V)


def test_the_counter_writes_what_it_has_seen(small):
    counter, ids, encode, decode = small
    ids = counter.write(encode("to"), 200, np.random.default_rng(0))
    again = counter.write(encode("to"), 200, np.random.default_rng(0))
    assert len(ids) == 200 and (ids == again).all()
    assert counter.nats(ids) < 1.5 and set(decode(ids)) <= set(TEXT)


# ---- batches, and the next character ----


def test_streams_hand_out_every_target_once():
    ids_N = torch.arange(1000)
    for B, T in ((7, 10), (3, 333), (1, 1000), (999, 5)):
        y = torch.cat([y for _, y in seq.streams(ids_N, B, T)], 1)
        L = 999 // B
        assert y.shape == (B, L)
        assert y.flatten().tolist() == list(range(1, B * L + 1))


def test_drawing_follows_the_probabilities():
    "Chi-squared over 5,000 draws, with a bound that one seed in a million would miss."
    dice = torch.Generator().manual_seed(0)
    logits_V = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.0])
    for knobs in ({}, {"temperature": 0.7}, {"top_k": 3}, {"top_p": 0.8}):
        p = seq.sharpen(logits_V, **knobs)
        drawn = seq.sample(logits_V.expand(5000, 5), generator=dice, **knobs)
        seen = torch.bincount(drawn, minlength=5)
        assert not seen[p == 0].any()
        want = 5000 * p[p > 0]
        assert ((seen[p > 0] - want) ** 2 / want).sum() < 35


def test_a_low_temperature_takes_the_likeliest():
    logits = torch.randn(3, 4, 9, generator=torch.Generator().manual_seed(1))
    assert torch.equal(seq.sample(logits, 1e-4), logits.argmax(-1))
    assert torch.equal(seq.sample(logits, top_k=1), logits.argmax(-1))


# ---- memory ----


def test_a_half_life_is_what_it_says():
    for T in (1, 10, 100, 5000):
        lstm = nn.LSTM(3, 4, num_layers=2)
        b = recurrent.remember(lstm, T)
        assert 1 / (1 + math.exp(-b)) ** T == pytest.approx(0.5)
        for k in (0, 1):
            summed = getattr(lstm, f"bias_ih_l{k}") + getattr(lstm, f"bias_hh_l{k}")
            assert summed[4:8].tolist() == pytest.approx([b] * 4)
    recurrent.remember(lstm, 10, shut=True)
    summed = (lstm.bias_ih_l1 + lstm.bias_hh_l1).detach()
    assert torch.allclose(summed[:4], -summed[4:8]) and summed[4] > 2


def test_a_shut_lstm_remembers_half_after_its_half_life():
    torch.manual_seed(0)
    lstm = nn.LSTM(5, 32, batch_first=True)
    recurrent.remember(lstm, 50, shut=True)
    x_BTD, h = torch.randn(8, 50, 5) / 2, torch.zeros(1, 8, 32)
    u_BH = nn.functional.normalize(torch.randn(8, 32), dim=1)
    felt = recurrent.reach(lambda c: lstm(x_BTD, (h, c[None]))[1][1][0], h[0], u_BH)
    assert felt == pytest.approx(0.5, abs=0.05)


def test_a_network_is_scored_as_the_counter_is(small):
    "A head without an opinion gives 1/V to all, one per character behind the first."
    _, ids, _, _ = small
    model = recurrent.CharRNN(V=30, H=8)
    nn.init.zeros_(model.head.weight), nn.init.zeros_(model.head.bias)
    p = recurrent.probabilities(model.train(), torch.tensor(ids), B=8, T=50)
    assert p.shape == ((len(ids) - 1) // 8 * 8,) and np.allclose(p, 1 / 30)
    assert model.training


def test_each_probability_is_that_of_its_own_character():
    torch.manual_seed(0)
    model, ids_N = recurrent.CharRNN(9, 4, 6).eval(), torch.randint(9, (31,))
    for B in (1, 3):
        L = 30 // B
        x_BL, y_BL = ids_N[:30].view(B, L), ids_N[1:].view(B, L)
        p_BLV = model(x_BL)[0].softmax(-1).detach()
        want = p_BLV.gather(-1, y_BL[..., None]).flatten()
        assert np.allclose(
            recurrent.probabilities(model, ids_N, B, T=7), want, atol=1e-6
        )


@pytest.mark.parametrize("layer", [nn.RNN, nn.GRU, nn.LSTM])
def test_a_carried_state_reads_on(layer):
    torch.manual_seed(0)
    model, x_BT = recurrent.CharRNN(9, 4, 6, layer), torch.randint(9, (2, 10))
    whole, _ = model(x_BT)
    first, state = model(x_BT[:, :4])
    second, _ = model(x_BT[:, 4:], state)
    assert torch.allclose(torch.cat([first, second], 1), whole, atol=1e-6)


def test_clipping_is_torchs():
    g = torch.Generator().manual_seed(0)
    grads = [torch.randn(shape, generator=g) for shape in ((3, 4), (5,))]
    p = [torch.zeros_like(x, requires_grad=True) for x in grads]
    for q, x in zip(p, grads):
        q.grad = x.clone()
    length = nn.utils.clip_grad_norm_(p, 0.5)
    cut, told = recurrent.clip(grads, 0.5)
    assert told == pytest.approx(length.item())
    assert all(torch.allclose(x, q.grad, rtol=1e-4) for x, q in zip(cut, p))


def test_the_scan_takes_few_rounds_and_any_length():
    for T in (*range(1, 40), 257):
        g = torch.Generator().manual_seed(T)
        a = torch.rand(2, T, 3, generator=g, dtype=torch.float64)
        b, h = torch.randn(2, T, 3, generator=g, dtype=torch.float64), 0
        for t in range(T):
            h = a[:, t] * h + b[:, t]
        assert torch.allclose(recurrent.linear_scan(a, b)[:, -1], h)


# ---- sound ----


def test_tones_have_their_pitch():
    rng = np.random.default_rng(0)
    sound = tones(np.full(50, 12), seconds=1.0, noise=0.0, rng=rng)  # A, 440 Hz
    assert sound.shape == (50, RATE) and sound.dtype == np.float32
    assert np.allclose(sound.std(1), 1, atol=1e-3)
    power = np.abs(np.fft.rfft(sound * np.hanning(RATE)))  # one bin per hertz
    at = power[:, 430:451].argmax(1) + 430
    assert np.abs(at - 440).max() <= 5 and len(NAMES) == 12
    assert (
        tones([3], rng=np.random.default_rng(1))
        == tones([3], rng=np.random.default_rng(1))
    ).all()
