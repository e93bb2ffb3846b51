"""Chapter 28's engine: nobody's tokens change, books that agree, a law, a live stream."""

import asyncio
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.built import engine, gpt, paged, served, speculative, streamed
from utils.built.seq import NGram

V = 13


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = gpt.GPT(V, 64, 2, 2, 16, start="normal", softcap=None).double()
    for p in made.parameters():
        p.data *= 8
        p.requires_grad_(False)
    return made.eval()


def crowd(N=14, seed=0):
    dice = np.random.default_rng(seed)
    opening = dice.integers(0, V, 9).tolist()
    return [
        (
            opening[: 9 * (n % 2)] + dice.integers(0, V, 2 + n % 5).tolist(),
            1 + 3 * n % 20,
        )
        for n in range(N)
    ]


def alone(model, requests):
    return {
        n: gpt.generate(model, torch.tensor([p]), c, temperature=0)[
            0, len(p) :
        ].tolist()
        for n, (p, c) in enumerate(requests)
    }


@pytest.mark.parametrize(
    "settings",
    [
        {"slots": 1},
        pytest.param({"slots": 4, "policy": engine.static}, id="static"),
        {"slots": 4},
        {"slots": 4, "share": False},
        {"slots": 4, "blocks": 9},
        {"slots": 5, "blocks": 9, "budget": 7},
        {"slots": 3, "blocks": 40, "block": 1},
    ],
    ids=str,
)
def test_everybody_gets_what_they_would_get_alone(model, settings):
    settings = {"blocks": 60, "block": 4} | settings
    requests, made = crowd(), engine.Engine(model, **settings)
    for prompt, count in requests:
        made.add(prompt, count)
    assert made.run() == alone(model, requests)
    assert len(made.pool.free) == settings["blocks"] and not any(made.pool.users)
    assert not made.index and not made.keys
    if settings.get("budget"):
        assert made.counts["read"] <= settings["budget"] * made.counts["steps"]
    if settings["blocks"] == 9:
        assert made.counts["preempted"] > 0


def test_drawn_tokens_do_not_depend_on_the_company(model):
    def texts(**settings):
        made = engine.Engine(model, blocks=60, block=4, **settings)
        for n, (prompt, count) in enumerate(crowd()):
            made.add(prompt, count, temperature=0.9, seed=n)
        return made.run()

    assert texts(slots=1) == texts(slots=6)


def test_a_cancelled_request_gives_its_blocks_back(model):
    made = engine.Engine(model, slots=2, blocks=20, block=4)
    numbers = [made.add([1, 2, 3], 12) for _ in range(4)]
    for _ in range(3):
        made.step()
    assert made.cancel(numbers[0]) and made.cancel(numbers[3])
    assert not made.cancel(numbers[0])
    done = made.run()
    assert sorted(done) == numbers[1:3] and done == {
        n: alone(model, [([1, 2, 3], 12)])[0] for n in numbers[1:3]
    }
    assert len(made.pool.free) == 20 and made.counts["cancelled"] == 2


def test_prompts_of_numpy_and_torch_are_whole_numbers_too(model):
    made = engine.Engine(model, slots=2, blocks=20, block=4)
    prompts = (
        [3, 1, 4],
        np.array([3, 1, 4]),
        torch.tensor([3, 1, 4]),
        (np.int64(3), 1, 4),
    )
    for prompt in prompts:
        made.add(prompt, np.int64(5))
    assert len({tuple(tokens) for tokens in made.run().values()}) == 1


def test_too_long_is_an_error_of_its_own(model):
    made = engine.Engine(model, slots=2, blocks=3, block=4)
    with pytest.raises(engine.TooLong, match="more than the 12 that fit"):
        made.add([1] * 9, 4)
    with pytest.raises(ValueError, match="at least one token") as caught:
        made.add([], 4)
    assert not isinstance(caught.value, engine.TooLong) and made.idle


def test_equal_beginnings_are_computed_once(model):
    requests = [([1] * 20 + [n], 3 + n) for n in range(6)]
    made = engine.Engine(model, slots=2, blocks=60, block=4)
    for prompt, count in requests:
        made.add(prompt, count)
    assert made.run() == alone(model, requests)
    assert made.counts["shared"] == 4 * 20  # the first two come together


def test_continuous_batching_needs_fewer_steps():
    dice = np.random.default_rng(0)
    lengths = dice.exponential(40, 48).clip(4, 200).astype(int).tolist()
    static, new = (
        len(engine.count_steps(lengths, 8, p))
        for p in (engine.static, engine.continuous)
    )
    assert static / new > 1.9 and new >= -(-sum(lengths) // 8)


acts = st.lists(
    st.tuples(st.sampled_from(["new", "grow", "fork", "leave"]), st.integers(0, 30)),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(acts, st.integers(1, 7), st.integers(1, 12))
def test_the_pools_books_agree_after_every_act(acts, block, blocks):
    pool, tables = paged.Pool(blocks, block), []
    for kind, n in acts:
        table = tables[n % len(tables)] if tables else None
        if kind == "new":
            tables.append([])
        elif table is None:
            continue
        elif kind == "grow":
            before = list(table), list(pool.free), list(pool.users)
            try:
                pool.extend(table, n)
            except engine.NoRoom:
                assert before == (table, pool.free, pool.users)
            else:
                assert len(table) == max(len(before[0]), -(-n // block))
        elif kind == "fork":
            for number in table:
                pool.share(number)
            tables.append(list(table))
        else:
            tables.remove(table)
            for number in table:
                pool.release(number)
        users = [sum(t.count(n) for t in tables) for n in range(blocks)]
        assert pool.users == users
        assert sorted(pool.free) == [n for n in range(blocks) if not users[n]]


def test_paged_attention_is_what_the_cache_does(model):
    ids_BT = torch.randint(V, (2, 20), generator=torch.Generator().manual_seed(0))
    cache, parts = paged.Paged(model, 12, 4), []
    assert cache.bytes() == 2 * 2 * 12 * 4 * 2 * 8 * 8
    for t in range(20):
        cache.rows([[7, 2, 9, 1, 0], [3, 11, 4, 5, 6]])
        at = torch.full((2, 1), t)
        parts.append(model(ids_BT[:, t : t + 1], cache=cache, positions=at))
    torch.testing.assert_close(torch.cat(parts, 1), model(ids_BT))


def test_the_law_is_exact_and_the_microscope_sees_what_is_not():
    dice = np.random.default_rng(0)
    for _ in range(5):
        p, q = dice.dirichlet(np.ones(7) / 2, 2)
        assert abs(speculative.law(speculative.accept, p, q) - p).max() < 1e-8
        keep_all = lambda p, q, t, u, w: t  # noqa: E731
        assert abs(speculative.law(keep_all, p, q) - q).max() < 1e-8
        from_p = lambda p, q, t, u, w: (  # noqa: E731
            t if u * q[t] < p[t] else speculative.inverse(p, w)
        )
        kept = np.minimum(p, q)
        want = kept + (1 - kept.sum()) * p
        assert abs(speculative.law(from_p, p, q) - want).max() < 1e-8


def test_any_draft_leaves_a_sure_model_its_text(model):
    sure = gpt.GPT(V, 64, 2, 2, 16, start="normal", softcap=None).double()
    sure.load_state_dict(model.state_dict())
    sure.head.weight.data = 1e4 * model.head.weight.data
    want = alone(model, [([1, 2, 3], 30)])[0]
    counts = speculative.Counts(NGram([1, 2, 3] * 9 + list(range(V)), 3, V))
    for draft in (counts, speculative.Small(sure), lambda tokens: np.full(V, 1 / V)):
        tokens, calls = speculative.speculate(
            sure, draft, [1, 2, 3], 30, 3, np.random.default_rng(0)
        )
        assert tokens == want
    assert speculative.plain(sure, [1, 2, 3], 30, np.random.default_rng(0)) == want
    assert calls <= 30


def test_the_expected_tokens_per_call():
    assert speculative.per_call(0, 4) == 1 and speculative.per_call(1, 4) == 5
    assert speculative.per_call(0.5, 2) == 1.75


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[1, 2]", "POST /generate"),
        (b'{"prompt": [1]}', "POST /generate"),
        (b'{"prompt": "hello", "count": 3}', "a list"),
        (b'{"prompt": [1], "count": 3, "beams": 2}', "beams"),
        (b'{"prompt": [1], "count": 3, "temperature": true}', "temperature"),
        (b'{"prompt": [1], "count": 3, "temperature": NaN}', "temperature"),
        (b'{"prompt": [1], "count": 3, "temperature": 1e-45}', "from 0.001"),
        (b'{"prompt": [1], "count": 3, "seed": -1}', "seed"),
    ],
)
def test_what_is_no_request_is_told(body, words):
    fields, why = streamed.parse(body)
    assert fields is None and words in why


def test_bad_guests_are_answered_and_disturb_nobody(model):
    good, options = {"prompt": [1, 2, 3], "count": 30}, {"model": model, "slots": 2}
    options |= {"blocks": 30, "block": 8, "queue": 4}
    bad = {
        400: [b"{", {"prompt": [], "count": 1}, {"prompt": [V], "count": 1},
              {"prompt": [1], "count": 0}, {"prompt": [1], "count": 1.5}],
        413: [{"prompt": [1] * 300, "count": 1}, b" " * (streamed.MOST_BODY + 1)],
    }  # fmt: skip

    async def visit(port):
        wrong = [streamed.ask(port, r) for rows in bad.values() for r in rows]
        right = [streamed.ask(port, good) for _ in range(3)]
        leaver = streamed.ask(port, {"prompt": [5], "count": 200}, stop=2)
        replies = await asyncio.gather(*wrong, *right, leaver)
        other = [
            await streamed.ask(port, {}, path="/x"),
            await streamed.ask(port, {}, method="PUT"),
        ]
        late = await asyncio.gather(
            *(streamed.ask(port, {"prompt": [5], "count": 200}) for _ in range(9))
        )
        for _ in range(200):
            state = await streamed.state(port)
            if state["free"] == 30:
                break
            await asyncio.sleep(0.05)
        return replies, other, late, state

    app = "utils.built.streamed:app"
    with served.Server(app=app, options=options) as server:
        process = server.process
        replies, other, late, state = asyncio.run(visit(server.port))
    assert process.poll() is not None
    wrong, right, leaver = replies[:7], replies[7:10], replies[10]
    assert [r.status for r in wrong] == [400] * 5 + [413] * 2
    assert all(r.error for r in wrong) and [r.status for r in other] == [404, 405]
    want = alone(model, [(good["prompt"], 30)])[0]
    assert all(r.whole and r.tokens == want and r.first >= 0 for r in right)
    assert len(leaver.tokens) == 2 and not leaver.whole and state["cancelled"] == 1
    assert {r.status for r in late} == {200, 503} and state["running"] == 0
    assert json.dumps(state)
