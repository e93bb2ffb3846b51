"""Chapter 12: what a model costs. The oracles are counters of real, small models."""

import torch

from utils.built import attention as A
from utils.built import gpt, profiling
from utils.built.budget import LossOf, counted_flops
from utils.exercises import Chapter, same

chapter = Chapter("12_budget")
keeps_random = torch.random.fork_rng(devices=[])
EXACT = {"rtol": 0, "atol": 0}


def _model(V, C, E, H, L, **options):
    "A small GPT-2, with ids and labels for it."
    return gpt.GPT(V, C, L, H, E, **{**gpt.GPT2, **options})


def _step(V, E, H, L, B, T, checkpointing=False, attend=A.fused):
    "-> a model with its loss, and ids to feed it."
    ids, y = (torch.zeros(B, T, dtype=torch.long) for _ in range(2))
    return LossOf(_model(V, T, E, H, L).use(attend), y, checkpointing), ids


@chapter.exercise(
    "Count one block first: its six matrices, their biases, its two norms.",
    "Query, key, value and output are E x E, the MLP's two 4E x E: 12 E^2. Biases: 4E and "
    "5E. Two norms of a gain and a bias: 4E. That is 12 E^2 + 13 E per block.",
    "V*E + C*E + L * (12*E*E + 13*E) + 2*E, and V*E once more if the head is not tied.",
)
@keeps_random
def parameters(answer):
    "Weights of a GPT."
    block = "A block has 12 E^2 weights in matrices and 13 E in biases and norms."
    with torch.device("meta"):
        for V, C, E, H, L in ((65, 64, 64, 4, 2), (7, 5, 6, 2, 3)):
            want = sum(p.numel() for p in _model(V, C, E, H, L).parameters())
            same(
                f"V {V}, C {C}, E {E}, L {L}", answer(V, C, E, L), want, block, **EXACT
            )
        want = sum(p.numel() for p in _model(7, 5, 6, 2, 3, tied=False).parameters())
    same("V 7, C 5, E 6, L 3, a head of its own", answer(7, 5, 6, 3, tied=False), want,
         "An untied head is one more matrix of V x E.", **EXACT)  # fmt: skip
    same("GPT-2: V 50257, C 1024, E 768, L 12", answer(50257, 1024, 768, 12),
         124_439_808, block, **EXACT)  # fmt: skip


@chapter.exercise(
    "A product of (m, k) and (k, n) has 2 m k n operations. Which products does a token meet?",
    "Each token meets the 12 E^2 weights of every block, and the head's V E. The look-up "
    "multiplies nothing. Then the two products inside attention, for each row of the batch.",
    "2*B*T * (12*E*E*L + V*E) + 4*L*B*T*T*E",
)
@keeps_random
def forward_flops(answer):
    "Operations of one forward pass."
    for V, E, H, L, B, T in ((65, 64, 4, 2, 12, 64), (11, 6, 3, 3, 2, 5)):
        want = counted_flops(*_step(V, E, H, L, B, T))[0]
        same(f"V {V}, E {E}, L {L}, B {B}, T {T}", answer(V, E, L, B, T), want,
             "The products with weights, 2 per weight and token, and QK and AV inside "
             "attention, 2 B T T E each per block.", **EXACT)  # fmt: skip


@chapter.exercise(
    "Walk through one block and ask of each operation: what does its rule for backward read?",
    "16 E per token and block: two norms' inputs 2E and outputs 2E, q, k and v 3E, the mixed "
    "values E, GELU's input 4E and output 4E. Norms keep 2 statistics each, fused attention "
    "one number per head.",
    "block = 16*E + 4 + (H*T if naive else H); if checkpointing: block = E. Then 4*B*T * "
    "(L*block + 2*E + V + 2) + 16*B*T + 4, and L*T*T for naive masks without checkpointing.",
)
@keeps_random
def activation_bytes(answer):
    "Bytes that a forward pass keeps for backward."
    cases = [(65, 64, 2, 2, 12, 64), (11, 6, 3, 3, 2, 5), (40, 8, 2, 1, 3, 9)]
    rules = {
        (False, False): "Fused attention: 16 E + H + 4 numbers per token and block.",
        (
            True,
            False,
        ): "Naive attention keeps its table: H T numbers per token in place of "
        "H, and one mask of T x T booleans per block.",
        (
            False,
            True,
        ): "Checkpointed: of each block only its input, E numbers per token.",
        (True, True): "Checkpointed: what attention keeps inside a block is not kept.",
    }
    for (naive, checkpointing), rule in rules.items():
        for V, E, H, L, B, T in cases:
            attend = A.attention if naive else A.fused
            loss_of, ids = _step(V, E, H, L, B, T, checkpointing, attend)
            want = profiling.saved_bytes(loss_of, ids)
            case = f"V {V}, E {E}, H {H}, L {L}, B {B}, T {T}"
            case += f", naive {naive}, checkpointing {checkpointing}"
            got = answer(V, E, H, L, B, T, naive=naive, checkpointing=checkpointing)
            same(case, got, want, rule, **EXACT)


@chapter.exercise(
    "How much is one forward pass of a block, and what of it does backward not read?",
    "The result of the block's last product, down, is read by no rule: PyTorch stops before.",
    "L * (2*B*T*12*E*E + 4*B*T*T*E - 2*B*T*4*E*E)",
)
@keeps_random
def recompute_flops(answer):
    "Operations that checkpointing adds."
    for V, E, H, L, B, T in ((65, 64, 4, 3, 12, 64), (11, 6, 3, 3, 2, 5)):
        plain = sum(counted_flops(*_step(V, E, H, L, B, T)))
        want = sum(counted_flops(*_step(V, E, H, L, B, T, True))) - plain
        same(f"E {E}, L {L}, B {B}, T {T}", answer(E, L, B, T), want,
             "Every block runs forward once more, attention included, but for its last "
             "product of 4 E^2 weights. The head is outside the blocks.", **EXACT)  # fmt: skip


@chapter.exercise(
    "One token leaves one key and one value in every layer.",
    "A key has D numbers for each group that is read; the heads that ask keep nothing.",
    "2 * L * groups * D * B * T * size",
)
@keeps_random
def kv_bytes(answer):
    "Bytes of a cache of keys and values."
    rule = "Keys and values, for each layer, group, text and token: D numbers of `size` bytes."
    same("L 3, 5 groups of D 7, B 11, T 13, 1 byte a number", answer(3, 5, 7, 11, 13, 1),
         30030, rule, **EXACT)  # fmt: skip
    for L, H, G, D, B, T in ((3, 5, 5, 6, 7, 8), (3, 4, 2, 8, 1, 7)):
        model, cache = _model(11, T, H * D, H, L, groups=G), gpt.Cache()
        with torch.no_grad():
            model(torch.zeros(B, T, dtype=torch.long), cache=cache)
        same(f"L {L}, {G} groups of D {D}, B {B}, T {T}, 4 bytes a number",
             answer(L, G, D, B, T, 4), cache.bytes(), rule, **EXACT)  # fmt: skip
    same("GPT-3: L 96, 96 groups of D 128, one text of 2048 tokens, size not given",
         answer(96, 96, 128, 1, 2048), 9_663_676_416, "Two bytes per number, if not said "
         "otherwise.", **EXACT)  # fmt: skip


@chapter.exercise(
    "Operations, over operations per second, over seconds per hour.",
    "A step is three forward passes of 2 N operations per token: 6 N per token.",
    "6 * N * tokens / (mfu * peak) / 3600",
)
def chip_hours(answer):
    "Hours of one chip."
    rule = "6 N operations per token, at mfu * peak of them per second; 3600 seconds per hour."
    same("N 5e6, 1e8 tokens, peak 7e12, mfu 0.5", answer(5e6, 1e8, 7e12, 0.5),
         0.2380952381, rule)  # fmt: skip
    same(
        "N 3.6e9, 1e9 tokens, peak 1e15, mfu 0.5",
        answer(3.6e9, 1e9, 1e15, 0.5),
        12.0,
        rule,
    )
    same("N 7e9, 2e12 tokens, peak 312e12, mfu not given", answer(7e9, 2e12, 312e12),
         186_965.8119658, "An mfu of 0.4, if not said otherwise.")  # fmt: skip


@chapter.exercise(
    "Watts times hours are watt-hours; a MWh is a million of them.",
    "PUE multiplies the energy (cooling, transformers), not the price.",
    "return hours * watts * pue / 1e6, hours * price",
)
def bill(answer):
    "Energy and money."
    rule = "Energy: hours * watts * pue / 1e6 in MWh. Money: hours * price."
    same("1,000 hours at 400 W, 2 dollars, PUE 1.5", answer(1000, 400, 2.0, 1.5),
         [0.6, 2000.0], rule)  # fmt: skip
    same("LLaMA-65B: 1,022,362 hours at 400 W, 3 dollars, PUE not given",
         answer(1_022_362, 400, 3.0), [449.83928, 3_067_086.0], "A PUE of 1.1, if not "
         "said otherwise.")  # fmt: skip


@chapter.exercise(
    "How much of one chip may be used? Then divide, and round in the safe direction.",
    "A chip of 80 GB has 80e9 bytes here; `spare` of them stay free. A part of a chip is a "
    "whole chip, and there is always at least one.",
    "max(1, math.ceil(need / (memory_gb * 1e9 * (1 - spare))))",
)
def chips_for(answer):
    "The smallest number of chips."
    rule = "Round up: a part of a chip is a whole chip."
    for need, memory, spare, want, why in [
        (200e9, 80, 0.0, 3, rule),
        (160e9, 80, 0.0, 2, "What fits exactly, fits."),
        (160e9 + 1, 80, 0.0, 3, "One byte too many is one chip more."),
        (150e9, 80, 0.25, 3, "A share `spare` of each chip stays free: 60 GB of 80."),
        (180e9, 100, 0.4, 3, "A share `spare` of each chip stays free: 60 GB of 100."),
        (100e9, 80, 0.5, 3, "A share `spare` of each chip stays free: 40 GB of 80."),
        (10.0, 80, 0.0, 1, rule),
        (0, 80, 0.0, 1, "There is always at least one chip."),
    ]:
        same(f"{need:g} bytes, chips of {memory} GB, spare {spare}",
             answer(need, memory, spare), want, why, **EXACT)  # fmt: skip
    same("73e9 bytes, chips of 80 GB, spare not given", answer(73e9, 80), 2,
         "A tenth stays free, if not said otherwise.", **EXACT)  # fmt: skip


CHIPS = [
    {"name": "small", "memory_gb": 24.0, "watts": 300.0},
    {"name": "old", "memory_gb": 80.0, "watts": 500.0},
    {"name": "new", "memory_gb": 80.0, "watts": 400.0},
    {"name": "no memory", "memory_gb": None, "watts": 10.0},
    {"name": "no watts", "memory_gb": 900.0, "watts": None},
    {"name": "huge", "memory_gb": 200.0, "watts": 1200.0},
]


@chapter.exercise(
    "For each chip that has both figures, how many are needed? Then choose.",
    "Leave out rows where memory_gb or watts is None, and those that need more than `most`. "
    "Fewest chips first, then the fewest watts of all of them together.",
    "fits = [(chips_for(need, row['memory_gb']), row['watts'], row['name']) for row in ...]; "
    "the smallest of those tuples, by count and then watts; None if there is none",
)
def smallest(answer):
    "The machine that fits."
    order = "Fewest chips first; among equals, the fewest watts."
    for need, most, want, rule in [
        (20e9, 8, ("small", 1), order),
        (
            22e9,
            8,
            ("new", 1),
            "A tenth of each chip stays free, as chips_for does it; " + order,
        ),
        (150e9, 8, ("huge", 1), order),
        (300e9, 8, ("huge", 2), order),
        (1440e9, 8, ("huge", 8), "Exactly `most` chips are allowed."),
        (1441e9, 8, None, "None where no chip fits with at most `most` of them."),
        (300e9, 1, None, "None where no chip fits with at most `most` of them."),
        (300e9, 2, ("huge", 2), "Exactly `most` chips are allowed."),
    ]:
        got = answer([dict(row) for row in CHIPS], need, most)
        got = "None" if got is None else [str(got[0]), str(got[1])]
        want = "None" if want is None else [want[0], str(want[1])]
        same(f"{need:g} bytes, at most {most} chips", got, want, rule)
    got = answer([dict(row) for row in CHIPS[:1]] + [CHIPS[3]], 180e9)
    same("180e9 bytes, chips of 24 GB alone, most not given", str(got), "None",
         "At most 8, if not said otherwise.")  # fmt: skip


@chapter.exercise(
    "What the model needs, over what the chip could have done in that time.",
    "A step is three forward passes; what is computed again does not count.",
    "3 * forward_flops(V, E, L, B, T) / (seconds * peak)",
)
def mfu(answer):
    "Model FLOPs utilisation of a training step."
    rule = (
        "Three forward passes, over seconds * peak. What is made again does not count."
    )
    same("V 65, E 64, L 2, B 12, T 64 in 0.05 s on 40 GFLOP/s",
         answer(65, 64, 2, 12, 64, 0.05, 40e9), 0.273825792, rule)  # fmt: skip
    same("V 11, E 6, L 3, B 2, T 5 in 2 s on 1 MFLOP/s",
         answer(11, 6, 3, 2, 5, 2.0, 1e6), 0.04626, rule)  # fmt: skip
