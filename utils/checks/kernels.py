"""Chapter 15: kernels that are right, and that move no byte too many."""

import math

import torch
import torch.nn.functional as F

from utils.built import warps
from utils.built.packed import pack_int4
from utils.built.tile import Refused, jit
from utils.exercises import Chapter, Miss, same

chapter = Chapter("15_kernels")


def _run(case, kernel, grid, *args, **options):
    "Launch; what the interpreter refuses is a miss."
    try:
        return jit(kernel)[grid](*args, **options)
    except Refused as error:
        _, _, what = str(error).rpartition(f"{kernel.__name__}: ")
        rule = "On a GPU this goes wrong without a word, or does not compile."
        raise Miss(rule, case, what, "a kernel that runs") from None


def _most(case, got, most, rule):
    "Miss where more was moved than is needed."
    if got > most:
        raise Miss(rule, case, got, f"at most {most:,}")


def _whole(*shape, seed=0, low=-4, high=5):
    "Whole numbers as floats: sums of their products are exact."
    dice = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randint(low, high, shape, generator=dice).float()


def _drawn(*shape, seed=0):
    dice = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=dice)


def _blank(*shape):
    return torch.full(shape, math.nan)


# ---- one program, one block ----


@chapter.exercise(
    "Which BLOCK numbers are this program's? Program 0 has the first ones.",
    "i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK); the mask is i < n.",
    "x = tl.load(x_ptr + i, mask=i < n), y likewise, and tl.store(out_ptr + i, x + y, "
    "mask=i < n).",
)
def add_kernel(answer):
    "Vector addition."
    for n, block in ((64, 32), (70, 32), (5, 16), (200, 64)):
        x, y, out = _whole(n), _whole(n, seed=1), _blank(n)
        case = f"n = {n}, BLOCK = {block}, {-(-n // block)} programs"
        seen = _run(case, answer, (-(-n // block),), x, y, out, n, BLOCK=block)
        same(case, out, x + y,
             rule="Each program adds its own BLOCK numbers, as far as there are any.")  # fmt: skip
        _most(f"{case}: bytes asked for", seen.asked, 12 * n,
              "Two loads and a store, 4 bytes each: nothing is read twice.")  # fmt: skip


# ---- thirty-two lanes ----


@chapter.exercise(
    "Turn each place into the number of the sector that its bytes lie in.",
    "Element p begins at byte p * size; its sector is that // 32. Count the different ones.",
    "return len({p * size // 32 for p in places})",
)
def sectors(answer):
    "Sectors that one warp touches."
    lanes = range(32)
    for case, places, size, want, rule in [
        ("neighbours, 8 bytes each", list(lanes), 8, 8, "256 bytes: eight sectors."),
        ("neighbours, 4 bytes each", list(lanes), 4, 4, "32 x 4 bytes are 128: four sectors of 32."),
        ("neighbours from 3 on, 4 bytes", [p + 3 for p in lanes], 4, 5,
         "128 bytes that begin inside a sector reach into a fifth."),
        ("every second element, 4 bytes", [2 * p for p in lanes], 4, 8,
         "Half of each sector is not wanted, and comes along."),
        ("a column of a matrix with 256 columns", [256 * p for p in lanes], 4, 32,
         "Each lane touches a sector of its own."),
        ("all lanes at element 7", [7] * 32, 4, 1, "The same sector counts once."),
        ("neighbours in descending order", [31 - p for p in lanes], 4, 4,
         "Which lane takes which element does not matter."),
        ("neighbours, 2 bytes each", list(lanes), 2, 2, "Half the bytes, half the sectors."),
        ("neighbours, 1 byte each", list(lanes), 1, 1, "32 bytes: one sector."),
        ("two lanes, elements 0 and 8", [0, 8], 4, 2, "Element 8 begins at byte 32."),
        ("two lanes, elements 7 and 8", [7, 8], 4, 2, "Byte 28 and byte 32 lie in two sectors."),
    ]:  # fmt: skip
        same(f"{case}", answer(places, size), want, rule)
    same(
        "neighbours, without a size",
        answer(list(lanes)),
        4,
        rule="An element has 4 bytes.",
    )


@chapter.exercise(
    "Read the tile row by row, turn it in the program, write the turned tile row by row.",
    "Load at r[:, None] * C + c[None, :], then tl.trans, then store at c[:, None] * R + "
    "r[None, :], each with its own mask.",
    "tl.store(out_ptr + c[:, None] * R + r[None, :], tl.trans(x), mask=(c[:, None] < C) & "
    "(r[None, :] < R))",
)
def transpose_kernel(answer):
    "A transpose, coalesced on both sides."
    for R, C, block in ((32, 32, 16), (70, 40, 32), (24, 100, 32), (5, 3, 16)):
        x, out = _whole(R, C, high=99), _blank(C, R)
        case = f"x ({R}, {C}), BLOCK = {block}"
        grid = -(-R // block), -(-C // block)
        _run(case, answer, grid, x, out, R, C, BLOCK=block)
        same(
            case,
            out,
            x.T,
            rule="out[c, r] is x[r, c], in every tile and up to the edges.",
        )
    x, out = _whole(64, 96), _blank(96, 64)
    seen = _run("x (64, 96), BLOCK = 32", answer, (2, 3), x, out, 64, 96, BLOCK=32)
    _most("x (64, 96), BLOCK = 32: bytes moved", seen.moved, 8 * 64 * 96,
          "One side walks down columns: the last axis of a block must follow the memory "
          "in the load and in the store.")  # fmt: skip


# ---- banks ----


@chapter.exercise(
    "Which bank does each word lie in? Lanes that want the same word share it.",
    "For each bank (word % 32) collect the set of different words; the largest set is the "
    "number of passes.",
    "banks.setdefault(w % 32, set()).add(w) for every w; return max(map(len, "
    "banks.values())) - 1.",
)
def bank_conflicts(answer):
    "Extra passes through shared memory."
    lanes = range(32)
    for case, words, want, rule in [
        ("a row: words 0 .. 31", list(lanes), 0, "32 banks, one word each: one pass, none extra."),
        ("words 40, 41, 42", [40, 41, 42], 0, "Three banks, one pass."),
        ("a column of a tile 32 wide", [32 * p for p in lanes], 31,
         "All words lie in bank 0: 32 passes, 31 of them extra."),
        ("a column of a tile 33 wide", [33 * p for p in lanes], 0,
         "The padding moves each row on by a bank."),
        ("a column of a tile 34 wide", [34 * p for p in lanes], 1,
         "Bank 2 p % 32: each of 16 banks has two words."),
        ("every second word", [2 * p for p in lanes], 1, "16 banks, two words each."),
        ("all lanes at word 5", [5] * 32, 0, "One word is read once and handed to all."),
        ("half the lanes at word 0, half at word 32", [0] * 16 + [32] * 16, 1,
         "Two different words in bank 0: one extra pass, not 31."),
        ("banks with 1, 2 and 3 words", [0, 1, 33, 2, 34, 66], 2,
         "The fullest bank decides."),
        ("stride 3", [3 * p for p in lanes], 0, "3 and 32 have no common divisor."),
    ]:  # fmt: skip
        same(case, answer(words), want, rule)


# ---- a row in one program ----


@chapter.exercise(
    "Lanes beyond N must change neither the maximum nor the sum.",
    "Load with other=-float('inf'): it is never the maximum, and its exp is 0.",
    "e = tl.exp(x - tl.max(x, 0)); tl.store(out_ptr + row * N + j, e / tl.sum(e, 0), "
    "mask=j < N)",
)
def softmax_kernel(answer):
    "Softmax of rows."
    for M, N, block, scale in ((3, 16, 16, 1), (5, 50, 64, 3), (2, 33, 128, 1)):
        x, out = scale * _drawn(M, N) - 20, _blank(M, N)
        case = f"x ({M}, {N}) around -20, BLOCK = {block}"
        seen = _run(case, answer, (M,), x, out, N, BLOCK=block)
        same(case, out, x.double().softmax(1), atol=1e-6, rtol=1e-4,
             rule="exp(x - max) over its sum, each row by itself; lanes beyond N add "
                  "nothing.")  # fmt: skip
    _most(f"{case}: bytes asked for", seen.asked, 8 * M * N,
          "One load and one store of each number are enough.")  # fmt: skip
    x, out = torch.tensor([[1e4, 1e4 - 1, -1e4], [-1e4, -1e4 + 2, -3e4]]), _blank(2, 3)
    case = "rows [10000, 9999, -10000] and [-10000, -9998, -30000]"
    _run(case, answer, (2,), x, out, 3, BLOCK=16)
    same(case, out, x.double().softmax(1), atol=1e-6, rtol=1e-4,
         rule="exp(10000) is infinite: subtract the row's largest number first.")  # fmt: skip


# ---- two programs, one address ----


@chapter.exercise(
    "All programs add to one address. Which call of tl lets nobody come between?",
    "Sum the block in the program (tl.sum(x, 0), with other=0.0 in the load), then one "
    "tl.atomic_add.",
    "tl.atomic_add(out_ptr, tl.sum(x, 0))",
)
def total_kernel(answer):
    "A sum over all programs."
    for n, block, begin in ((32, 32, 0), (100, 32, 0), (70, 16, 5)):
        x, out = _whole(n, low=0), torch.full((1,), float(begin))
        case = f"n = {n}, BLOCK = {block}, out begins at {begin}"
        seen = _run(case, answer, (-(-n // block),), x, out, n, BLOCK=block)
        same(case, out, [x.sum().item() + begin],
             rule="out grows by the sum of all n numbers.")  # fmt: skip
        _most(f"{case}: bytes asked for", seen.asked, 4 * n + 4 * -(-n // block),
              "One atomic_add a program is enough: sum the block first.")  # fmt: skip


# ---- tiles ----


@chapter.exercise(
    "What a step needs: a tile (BM, BK) of a, a tile (BK, BN) of b, both masked on both "
    "sides, and one tl.dot.",
    "k = start + tl.arange(0, BK); a at m[:, None] * K + k[None, :], b at k[:, None] * N + "
    "n[None, :]; other=0.0.",
    "acc = tl.dot(a, b, acc, input_precision='ieee'), and after the loop a store of acc, "
    "mask=(m[:, None] < M) & (n[None, :] < N).",
)
def matmul_kernel(answer):
    "A matrix product by tiles."
    for M, N, K, tile in (
        (32, 32, 32, (16, 16, 16)), (70, 50, 40, (32, 16, 16)),
        (20, 90, 33, (16, 64, 32)), (100, 17, 64, (32, 16, 32)),
    ):  # fmt: skip
        _product(answer, M, N, K, tile, torch.float32)
    M, N, K, (BM, BN, BK) = 128, 64, 64, (32, 16, 32)
    seen = _product(answer, M, N, K, (BM, BN, BK), torch.float32)
    _most(f"({M}, {K}) ({K}, {N}), tiles {BM} x {BN}, steps of {BK}: bytes moved",
          seen.moved, warps.traffic(M, N, K, BM, BN),
          "Each step loads one tile of a and one of b, and c is written once: "
          "4 (M N K (1/BM + 1/BN) + M N) bytes.")  # fmt: skip
    case = "ones (16, 2305) ones (2305, 16) in float16, c in float32"
    a, b = torch.ones(16, 2305).half(), torch.ones(2305, 16).half()
    c = _blank(16, 16)
    _run(case, answer, (1,), a, b, c, 16, 16, 2305, BM=16, BN=16, BK=64)
    same(case, c, torch.full((16, 16), 2305.0),
         rule="Sum in float32: float16 has no 2,049, so a sum of ones stops growing.")  # fmt: skip
    case = "(16, 32) of 1 + 1/4096 times ones (32, 16)"
    a, c = torch.full((16, 32), 1 + 2**-12), _blank(16, 16)
    _run(case, answer, (1,), a, torch.ones(32, 16), c, 16, 16, 32, BM=16, BN=16, BK=16)
    same(case, c, torch.full((16, 16), 32 + 2**-7),
         rule="Without input_precision='ieee' float32 is rounded to 10 bits.")  # fmt: skip


def _product(answer, M, N, K, tile, dtype):
    BM, BN, BK = tile
    a, b, c = _whole(M, K).to(dtype), _whole(K, N, seed=1).to(dtype), _blank(M, N)
    case = f"({M}, {K}) ({K}, {N}), tiles {BM} x {BN}, steps of {BK}"
    grid = (-(-M // BM) * -(-N // BN),)
    seen = _run(case, answer, grid, a, b, c, M, N, K, BM=BM, BN=BN, BK=BK)
    same(
        case, c, a @ b, rule="c is a b, in every tile and up to the edges of all three."
    )
    return seen


@chapter.exercise(
    "Programs of one group share `group` rows of tiles: group * cols programs.",
    "first = pid // (group * cols) * group is the group's first row; inside a group go "
    "down its rows before the next column.",
    "high = min(rows - first, group) and within = pid % (group * cols); return first + "
    "within % high, within // high.",
)
def grouped(answer):
    "The order of tiles."
    table = lambda rows, cols, group: [  # noqa: E731
        tuple(answer(p, rows, cols, group)) for p in range(rows * cols)
    ]
    same("4 x 3 tiles, groups of 2", table(4, 3, 2),
         [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2),
          (2, 0), (3, 0), (2, 1), (3, 1), (2, 2), (3, 2)],
         rule="Down the two rows of the group, then on to the next column; the second "
              "group begins below the first.")  # fmt: skip
    same("3 x 4 tiles, groups of 1", table(3, 4, 1),
         [(r, c) for r in range(3) for c in range(4)],
         rule="Groups of 1 are row by row.")  # fmt: skip
    same("3 x 2 tiles, groups of 9", table(3, 2, 9),
         [(r, c) for c in range(2) for r in range(3)],
         rule="A group of all rows is column by column.")  # fmt: skip
    same("5 x 2 tiles, groups of 3: the last 4", table(5, 2, 3)[6:],
         [(3, 0), (4, 0), (3, 1), (4, 1)],
         rule="The last group has fewer rows: min(rows - first, group).")  # fmt: skip
    for rows, cols, group in ((7, 5, 3), (8, 8, 4), (5, 9, 2)):
        same(f"{rows} x {cols} tiles, groups of {group}: in sorted order",
             sorted(table(rows, cols, group)),
             [(r, c) for r in range(rows) for c in range(cols)],
             rule="Every tile comes once.")  # fmt: skip


@chapter.exercise(
    "Four things can run out: warps, places for programs, registers, shared memory. How "
    "many programs does each allow?",
    "A warp takes registers * 32, rounded up to a multiple of 256; a program takes shared "
    "+ 1024 bytes, rounded up to a multiple of 128. Then min of four whole divisions.",
    "fit = min(64 // warps, 32, 65536 // (of_warp * warps), 233472 // taken); return fit * "
    "warps / 64",
)
def occupancy(answer):
    "How full a multiprocessor is."
    for case, want, rule in [
        ((8, 32, 0), 1.0, "Eight programs of 8 warps fill all 64 places."),
        ((4, 128, 0), 0.25, "128 registers x 32 lanes x 4 warps: 4 programs fit."),
        ((8, 255, 0), 0.125, "255 x 32 = 8160 rounds up to 8192 registers a warp."),
        ((1, 16, 0), 0.5, "At most 32 programs, however small."),
        ((32, 64, 0), 0.5, "65,536 / (64 x 32 x 32): one program of 32 warps."),
        ((32, 65, 0), 0.0, "Not one program fits: no launch."),
        ((4, 64, 98304), 0.125, "98,304 + 1,024 bytes: two programs in 233,472."),
        ((4, 32, 115712), 0.125, "115,712 + 1,024 is half of 233,472, exactly."),
        ((4, 32, 115713), 0.0625, "One byte more, and one program fits."),
        ((8, 112, 98304), 0.25, "Registers and shared memory both allow two."),
        ((4, 33, 0), 0.75, "33 x 32 = 1,056 rounds up to 1,280 registers: 12 programs."),
        ((2, 32, 7000), 0.875, "8,024 rounds up to 8,064 bytes: 28 programs of 2 warps."),
        ((2, 32, 6272), 1.0, "6,272 + 1,024 bytes: 32 programs, exactly."),
((3, 16, 0), 0.984375, "21 programs of 3 warps: 63 of 64."),
        ((5, 16, 0), 0.9375, "12 programs of 5 warps: 60 of 64."),
        ((8, 32, 232448), 0.125, "227 KiB is the most a program can have."),
        ((8, 32, 232449), 0.0, "More than 227 KiB: no launch."),
    ]:  # fmt: skip
        told = "{} warps, {} registers, {:,} bytes of shared memory".format(*case)
        same(told, answer(*case), want, rule)


# ---- attention ----


def _heads(T, D, causal, heads=2, seed=0):
    "q, k, v, do, and what PyTorch makes of them in float64: o, lse, dq, dk, dv."
    q, k, v, do = (_drawn(heads, T, D, seed=seed + i) for i in range(4))
    q = 3 * q
    wide = [x.double().requires_grad_() for x in (q, k, v)]
    o = F.scaled_dot_product_attention(*wide, is_causal=causal)
    grads = torch.autograd.grad(o, wide, do.double())
    s = wide[0] @ wide[1].mT / D**0.5
    if causal:
        s = s.masked_fill(torch.ones(T, T).triu(1).bool(), -math.inf)
    return (q, k, v, do), (o.detach(), s.logsumexp(2).detach(), *grads)


SHAPES = (  # tokens, head size, tile of queries and of keys, causal
    (32, 16, 16, 16, False), (50, 16, 16, 32, False), (50, 32, 32, 16, False),
    (32, 16, 16, 16, True), (50, 16, 32, 16, True), (40, 16, 16, 32, True),
)  # fmt: skip


@chapter.exercise(
    "What does the running sum know when a larger maximum comes? Everything kept so far "
    "shrinks by exp(old - new).",
    "new = tl.maximum(top, tl.max(s, 1)); p = tl.exp(s - new[:, None]); shrink = "
    "tl.exp(top - new). Both total and acc shrink before they grow.",
    "total = total * shrink + tl.sum(p, 1); acc = acc * shrink[:, None]; acc = "
    "tl.dot(p.to(v.dtype), v, acc, input_precision='ieee'); top = new",
)
def flash_forward(answer):
    "Attention in one pass."
    for T, D, BM, BN, causal in SHAPES:
        (q, k, v, _), (o, lse, *_) = _heads(T, D, causal)
        case = f"T = {T}, D = {D}, tiles of {BM} queries and {BN} keys, causal {causal}"
        ours, ours_lse = _blank(2, T, D), _blank(2, T)
        _run(case, answer, (-(-T // BM), 2), q, k, v, ours, ours_lse, T, D**-0.5,
             D=D, BM=BM, BN=BN, CAUSAL=causal)  # fmt: skip
        same(case, ours, o, atol=2e-5, rtol=1e-4,
             rule="o is softmax(q k^T / sqrt(D)) v, for each of both heads.")  # fmt: skip
        same(f"{case}: lse", ours_lse, lse, atol=2e-5, rtol=1e-4,
             rule="lse is the log of the sum of exp(s): top + log(total).")  # fmt: skip
    for causal, keys in ((False, 2 * 64), (True, 32 + 64)):
        (q, k, v, _), _ = _heads(64, 16, causal)
        case = f"T = 64, D = 16, tiles of 32 queries and 16 keys, causal {causal}"
        seen = _run(case, answer, (2, 2), q, k, v, _blank(2, 64, 16), _blank(2, 64), 64, 0.25,
                    D=16, BM=32, BN=16, CAUSAL=causal)  # fmt: skip
        _most(f"{case}: bytes moved", seen.moved, 2 * 4 * (2 * 64 * 16 + 2 * keys * 16 + 64),
              "A causal program ends where its last query stands: later keys are not "
              "even read. Everything else is loaded once a program.")  # fmt: skip
    _steep(answer)
    _halves(answer)


def _steep(answer):
    case, T, D = "scores from 0 to 300, query 0's all 0", 48, 16
    q, k = torch.zeros(1, T, D), torch.zeros(1, T, D)
    q[..., 0], k[0, :, 0] = torch.linspace(0, 1, T), torch.linspace(0, 300, T)
    v, ours, lse = _drawn(1, T, D), _blank(1, T, D), _blank(1, T)
    _run(
        case,
        answer,
        (3, 1),
        q,
        k,
        v,
        ours,
        lse,
        T,
        1.0,
        D=D,
        BM=16,
        BN=16,
        CAUSAL=False,
    )
    want = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), scale=1.0)
    same(case, ours, want, atol=2e-5, rtol=1e-4,
         rule="Each query has a maximum of its own; when a larger one comes, both total "
              "and acc shrink by exp(old - new).")  # fmt: skip


HALF = {"atol": 0.03, "rtol": 0.01}  # of float16


def _halves(answer):
    (q, k, v, _), (o, *_) = _heads(40, 16, True)
    ours = _blank(2, 40, 16).half()
    case = "T = 40, D = 16, causal, q, k, v and o in float16"
    _run(case, answer, (3, 2), q.half(), k.half(), v.half(), ours, _blank(2, 40), 40, 0.25,
         D=16, BM=16, BN=16, CAUSAL=True)  # fmt: skip
    same(
        case,
        ours,
        o,
        **HALF,
        rule="The same, with sums in float32 and v's type in tl.dot.",
    )


@chapter.exercise(
    "Inside the loop make the scores again: p = exp(s - lse), 0 where nothing is seen.",
    "dv grows by p^T do; dp = do v^T; ds = p (dp - delta) scale; dk grows by ds^T q.",
    "dv = tl.dot(tl.trans(p).to(do.dtype), do, dv, input_precision='ieee'), and dk "
    "likewise with ds and q.",
)
def flash_keys(answer):
    "The gradients of keys and values."
    for T, D, BM, BN, causal in SHAPES:
        (q, k, v, do), (o, lse, _, dk, dv) = _heads(T, D, causal)
        case = f"T = {T}, D = {D}, tiles of {BM} queries and {BN} keys, causal {causal}"
        delta = (o * do.double()).sum(2).float()
        ours_dk, ours_dv = _blank(2, T, D), _blank(2, T, D)
        seen = _run(case, answer, (-(-T // BN), 2), q, k, v, do, lse.float(), delta, ours_dk,
                    ours_dv, T, D**-0.5, D=D, BM=BM, BN=BN, CAUSAL=causal)  # fmt: skip
        same(f"{case}: dv", ours_dv, dv, atol=5e-5, rtol=1e-4,
             rule="dv is p^T do, summed over all queries that see the key.")  # fmt: skip
        same(f"{case}: dk", ours_dk, dk, atol=5e-5, rtol=1e-4,
             rule="dk is ds^T q with ds = p (dp - delta) scale.")  # fmt: skip
        if (T, causal) == (32, True):
            queries = 32 + 16
            _most(f"{case}: bytes moved", seen.moved,
                  2 * 4 * (4 * 32 * D + 2 * queries * D + 2 * queries),
                  "Causal: a program begins at the first query that sees its keys.")  # fmt: skip
    (q, k, v, do), (o, lse, _, dk, dv) = _heads(40, 16, True)
    case, q, k, v, do = (
        "T = 40, D = 16, causal, all in float16",
        *(x.half() for x in (q, k, v, do)),
    )
    delta = (o * do.double()).sum(2).float()
    ours_dk, ours_dv = _blank(2, 40, 16).half(), _blank(2, 40, 16).half()
    _run(case, answer, (3, 2), q, k, v, do, lse.float(), delta, ours_dk, ours_dv, 40, 0.25,
         D=16, BM=16, BN=16, CAUSAL=True)  # fmt: skip
    same(f"{case}: dv", ours_dv, dv, **HALF, rule="p in do's type, sums in float32.")
    same(f"{case}: dk", ours_dk, dk, **HALF, rule="ds in q's type, sums in float32.")


# ---- four bits ----


@chapter.exercise(
    "A byte holds two weights: w & 15 is the even one, w >> 4 the odd one. Codes above 7 "
    "are negative.",
    "low = ((w & 15) ^ 8).to(tl.float32) - 8, high likewise from w >> 4; turn both with "
    "tl.trans and give them the type of x.",
    "part = tl.dot(even, tl.trans(low).to(even.dtype)); part = tl.dot(odd, "
    "tl.trans(high).to(odd.dtype), part); acc += part * s[None, :]",
)
def int4_matmul(answer):
    "A product with packed weights."
    for M, N, K, group, tile, dtype in (
        (16, 16, 64, 64, (16, 16, 32), torch.float32),
        (5, 40, 64, 32, (16, 16, 32), torch.float32),
        (20, 24, 128, 64, (16, 32, 32), torch.float32),
        (7, 20, 64, 32, (16, 16, 32), torch.float16),
    ):  # fmt: skip
        _packed(answer, M, N, K, group, tile, dtype)
    M, N, K, group = 16, 64, 128, 64
    seen = _packed(answer, M, N, K, group, (16, 32, 64), torch.float32)
    most = N * K // 2 + 4 * N * K // group + 2 * 4 * 2 * M * K + 4 * M * N
    _most(f"M = {M}, N = {N}, K = {K}, groups of {group}, tiles of 16 x 32, steps of 64: "
          "bytes moved", seen.moved, most,
          "A step loads each byte of w once for its two weights, and one scale for each "
          "column.")  # fmt: skip


def _packed(answer, M, N, K, group, tile, dtype):
    BM, BN, BK = tile
    dice = torch.Generator().manual_seed(M + N)
    q_NK = torch.randint(-8, 8, (N, K), generator=dice)
    s_GN = 2.0 ** torch.randint(-2, 3, (K // group, N), generator=dice)
    x_MK, y_MN = 7 * _whole(M, K, low=-2, high=3).to(dtype), _blank(M, N)
    if dtype == torch.float32:
        x_MK *= 1 + 2**-12  # which 10 bits do not hold
    W_NK = q_NK * s_GN.T.repeat_interleave(group, 1)
    kind = str(dtype).removeprefix("torch.")
    case = f"M = {M}, N = {N}, K = {K}, groups of {group}, x in {kind}"
    w = pack_int4(q_NK).reshape(N, K // 2)
    seen = _run(case, answer, (-(-M // BM), -(-N // BN)), x_MK, w, s_GN, y_MN, M, N, K,
                BM=BM, BN=BN, BK=BK, GROUP=group)  # fmt: skip
    same(case, y_MN, x_MK.double() @ W_NK.double().T, atol=1e-4,
         rule="y is x W^T: even and odd weights from the two halves of each byte, signs "
              "and scales of each group.")  # fmt: skip
    return seen
