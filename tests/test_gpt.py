"""utils/built/{attention,gpt,muon,language,bpe}.py: what later chapters rest on."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from utils.built import attention as A
from utils.built import bpe, gpt, language, muon
from utils.built.gpt import GPT, GPT2, Cache, generate
from utils.checks.attention import chapter, linears

KINDS = {
    "chapter 09's": {},
    "GPT-2's": GPT2,
    "grouped, gated": {"groups": 2, "activation": "swiglu", "gain": True},
    "one group, biases": {"groups": 1, "bias": True, "softcap": None},
    "window": {"window": 5, "qk_norm": True},
    "no positions": {"positions": "none", "tied": True, "activation": "gelu"},
}


def model_of(options, vocab=17):
    "A small model with drawn weights: a fresh one would say the same of every token."
    torch.manual_seed(0)
    model = GPT(vocab, 40, 3, 4, 32, **options)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return model.eval()


IDS = torch.randint(17, (2, 13), generator=torch.Generator().manual_seed(1))


def gap(a, b):
    return (a - b).abs().max().item()


@pytest.fixture(params=KINDS, name="model")
def _model(request):
    return model_of(KINDS[request.param])


def test_gpt2_has_its_parameters():
    with torch.device("meta"):
        model = GPT(50257, 1024, 12, 12, 768, **GPT2)
    assert sum(p.numel() for p in model.parameters()) == 124_439_808


@pytest.mark.parametrize("options", [{}, GPT2, {**GPT2, "tied": False}])
def test_the_first_loss_is_ln_v(options):
    torch.manual_seed(0)
    loss = language.nats(GPT(17, 40, 3, 4, 32, **options), IDS)
    assert abs(loss.item() - torch.tensor(17.0).log()) < 0.1


def test_a_fresh_block_hands_on_what_it_gets():
    x_BTE = torch.randn(2, 5, 32)
    assert torch.equal(gpt.Block(32, 4, bias=True, norm="layer")(x_BTE), x_BTE)


@torch.no_grad()
def test_no_token_sees_the_future(model):
    other = IDS.clone()
    other[:, 7] = (other[:, 7] + 1) % 17
    a, b = model(IDS), model(other)
    assert gap(a[:, :7], b[:, :7]) == 0 and gap(a[:, 7], b[:, 7]) > 1e-3


@torch.no_grad()
def test_any_attention_function_can_take_its_place(model):
    fused = model(IDS)
    assert gap(model.use(A.attention)(IDS), fused) < 1e-4


@torch.no_grad()
@pytest.mark.parametrize("sizes", [(13,), (5, 1, 7), (1,) * 13])
def test_with_a_cache_the_logits_are_the_same(model, sizes):
    cache = Cache(room=2)
    parts = [model(part, cache=cache) for part in IDS.split(sizes, dim=1)]
    assert gap(torch.cat(parts, 1), model(IDS)) < 1e-4
    assert cache.length == 13
    per_number = 2 * 3 * 2 * 13 * model.groups * model.size
    assert cache.bytes() == 4 * per_number


@torch.no_grad()
def test_with_a_cache_the_tokens_are_the_same(model):
    plain = generate(model, IDS[:, :4], 20, cache=False, temperature=0)
    assert torch.equal(generate(model, IDS[:, :4], 20, temperature=0), plain)
    assert torch.equal(plain[:, :4], IDS[:, :4]) and plain.shape == (2, 24)


@torch.no_grad()
def test_rows_of_a_cache_may_stand_at_different_places(model):
    cache = Cache()
    model(IDS[:, :9], cache=cache)
    step = torch.stack([IDS[0, 4:6], IDS[1, 9:11]])  # row 0 goes back to place 4
    got = model(step, cache=cache, positions=torch.tensor([[4, 5], [9, 10]]))
    assert gap(got[0], model(IDS[:1])[0, 4:6]) < 1e-4
    assert gap(got[1], model(IDS[1:])[0, 9:11]) < 1e-4


@torch.no_grad()
def test_a_cache_can_forget():
    model, cache = model_of({}), Cache()
    model(IDS, cache=cache)
    cache.length = 6
    assert gap(model(IDS[:, 6:8], cache=cache), model(IDS)[:, 6:8]) < 1e-4


@torch.no_grad()
def test_rotary_positions_know_distances_only():
    model = model_of({})
    shifted = model(IDS, positions=torch.arange(13) + 300)
    assert gap(shifted, model(IDS)) < 1e-3


@torch.no_grad()
def test_a_mask_of_ones_looks_both_ways():
    model = model_of({"positions": "none"})
    both = model(IDS, mask=torch.ones(13, 13, dtype=torch.bool))
    turned = model(IDS.flip(1), mask=torch.ones(13, 13, dtype=torch.bool)).flip(1)
    assert gap(both, turned) < 1e-4


@torch.no_grad()
def test_the_chapters_gpt_is_the_default():
    scope = {}
    for name, (source, tags) in chapter.cells.items():
        if "setup" in tags or name in chapter.exercises:
            exec(source, scope)
        if name == "gpt":
            break
    theirs, ours = scope["GPT"](17, 3, 4, 32), model_of({})
    theirs.tokens, theirs.head = ours.tokens, ours.head
    for a, b in zip(theirs.blocks, ours.blocks):
        for name, layer in linears(b).items():
            setattr(a, name, layer)
    assert gap(theirs(IDS), ours(IDS)) < 1e-4


def test_generation_draws():
    model = model_of({})
    dice = [torch.Generator().manual_seed(seed) for seed in (3, 3)]
    a, b = (generate(model, IDS[:1, :4], 30, top=5, generator=d) for d in dice)
    assert torch.equal(a, b)
    logits = torch.arange(17.0)[None]
    drawn = {gpt.draw(logits, 1.0, top=2, generator=dice[0]).item() for _ in range(60)}
    assert drawn == {15, 16}


# ---- attention ----


def test_fused_and_by_hand_agree_on_every_shape():
    for T, S in [(1, 5), (3, 5), (5, 5)]:
        q, k, v = (
            torch.randn(2, 4, T, 8),
            torch.randn(2, 4, S, 8),
            torch.randn(2, 4, S, 8),
        )
        for options in ({}, {"causal": True}, {"mask": A.window_mask(T, S, 2)}):
            assert (
                gap(A.fused(q, k, v, **options), A.attention(q, k, v, **options)) < 1e-5
            )


@pytest.mark.parametrize("T", [1, 5])
def test_grouped_queries_equal_pytorchs(T):
    q, k, v = torch.randn(2, 6, T, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    mask = A.causal_mask(T, 5)
    want = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    assert gap(A.grouped(q, k, v, mask), want) < 1e-5
    assert gap(A.grouped(q, k, v, causal=True), want) < 1e-5


# ---- Muon ----


@pytest.mark.parametrize("shape", [(8, 8), (12, 4), (4, 12)])
def test_muon_equals_torchs(shape):
    start, grads = torch.randn(shape), torch.randn(4, *shape)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    pair = (
        muon.Muon([ours], lr=0.02),
        torch.optim.Muon([theirs], lr=0.02, weight_decay=0.0),
    )
    for grad in grads:
        ours.grad, theirs.grad = grad.clone(), grad.clone()
        for optimizer in pair:
            optimizer.step()
    assert gap(ours, theirs) < 0.02 * 4 * 0.1  # theirs is computed in bfloat16


def test_singular_values_come_near_one():
    sizes = torch.linalg.svdvals(muon.orthogonal(torch.randn(20, 30)))
    assert sizes.min() > 0.6 and sizes.max() < 1.3


def test_equal_shapes_together_are_the_same_as_alone():
    several = [torch.nn.Parameter(torch.randn(6, 4)) for _ in range(3)]
    alone = [torch.nn.Parameter(p.detach().clone()) for p in several]
    for p, q in zip(several, alone):
        p.grad = torch.randn(6, 4)
        q.grad = p.grad.clone()
        muon.Muon([q]).step()
    muon.Muon(several).step()
    assert all(gap(p, q) < 1e-6 for p, q in zip(several, alone))


# ---- training ----


def test_a_run_that_stops_goes_on_with_the_same_bits():
    def weights(*parts):
        torch.manual_seed(0)
        run = language.Run(GPT(17, 8, 1, 2, 16), IDS.flatten(), 6, batch=3)
        for part in parts:
            run.go(part)
        return torch.cat([p.flatten() for p in run.model.parameters()]), run.losses

    (a, losses), (b, again) = weights(6), weights(2, None)
    assert torch.equal(a, b) and losses == again and len(losses) == 6


def test_the_rates_climb_and_fall():
    shares = [language.share(step, 100, warmup=20, fall=0.6) for step in range(100)]
    assert shares[0] == 1 / 20 and shares[19] == shares[39] == 1.0
    assert shares[70] == pytest.approx(0.5) and shares[99] == pytest.approx(1 / 60)


def test_a_model_learns():
    ids = torch.arange(9).repeat(60)
    torch.manual_seed(0)
    run = language.Run(GPT(9, 12, 1, 2, 16), ids, 40, batch=8)
    run.go()
    assert run.losses[0] == pytest.approx(2.197, abs=1e-3) and run.losses[-1] < 0.3
    rows = ids.unfold(0, 13, 12)
    assert language.loss_of(run.model, rows, at_once=7) < 0.3


# ---- byte pairs ----


def test_the_index_of_pairs_changes_nothing():
    text = "the cat that sat on the mat, that cat; aaaa aaa übel über " * 3
    words = Counter(bpe.words_of(text))
    for merges in (1, 5, 25, 200):
        assert bpe.train_bpe(words, merges) == slow(words, merges)


def slow(words, merges):
    parts, found = {w: [bytes([b]) for b in w.encode()] for w in words}, []
    for _ in range(merges):
        count = Counter()
        for word, tokens in parts.items():
            for pair in zip(tokens, tokens[1:]):  # noqa: RUF007
                count[pair] += words[word]
        if not count:
            break
        found.append(min(count, key=lambda pair: (-count[pair], pair)))
        parts = {word: bpe.merge(tokens, found[-1]) for word, tokens in parts.items()}
    return found


@pytest.mark.parametrize("text", ["", "To be, or", "naïve 文字 🙂\n\n  x", "a_b  c\t9"])
def test_what_is_encoded_can_be_decoded(text):
    merges = bpe.train_bpe(Counter(bpe.words_of("to be or not to be, that is")), 20)
    assert bpe.decode(bpe.encode(text, merges)) == text
    assert "".join(bpe.words_of(text)) == text
