"""The small Triton: what it computes, what it counts, what it calls a race."""

import inspect
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from utils.bench import recordings
from utils.bench.kernels import compiled
from utils.built import kernels, warps
from utils.built.tile import Counter, Race, Refused, jit, tl
from utils.built.tile_files import borrow
from utils.files import ROOT


def run(body, *tensors, grid=(1,), **options):
    "A kernel from a function of its pointers, which a kernel has to name."
    names = [f"p{i}" for i in range(len(tensors))]
    scope = {"body": body}
    exec(f"def made({', '.join(names)}):\n    body({', '.join(names)})", scope)
    return jit(scope["made"])[grid](*tensors, **options)


def test_blocks_are_values():
    "A block is never changed in place, whoever else holds it."
    out = torch.zeros(2, 16)

    def body(p):
        i = tl.arange(0, 16)
        a = tl.zeros((16,), dtype=tl.float32)
        b = a
        b += 1
        tl.store(p + i, a)
        tl.store(p + 16 + i, b)

    run(body, out)
    assert out.tolist() == [[0] * 16, [1] * 16]


def test_types_are_tritons():
    seen = {}

    def body(p, n, scale):
        i = tl.arange(0, 16)
        half = tl.load(p + i)
        seen.update(
            i=i.dtype, n=n.dtype, scale=scale.dtype, half=half.dtype,
            twice=(2.0 * half).dtype, scaled=(half * scale).dtype, quotient=(i / 2).dtype,
            mixed=(i * tl.full((16,), 0.5, dtype=tl.float32)).dtype, mask=(i < n).dtype,
            dot=tl.dot(half[:, None] + half[None, :], half[:, None] + half[None, :]).dtype,
        )  # fmt: skip

    run(body, torch.ones(16).half(), 3, 0.5)
    assert {k: str(v) for k, v in seen.items()} == {
        "i": "int32", "n": "int32", "scale": "float32", "half": "float16",
        "twice": "float16", "scaled": "float32", "quotient": "float32",
        "mixed": "float32", "mask": "bool", "dot": "float32",
    }  # fmt: skip


def test_what_a_mask_leaves_out_is_anything():
    "NaN, so that nobody counts on it; a load with `other` has that."
    out = torch.zeros(2, 16)

    def body(x, p):
        i = tl.arange(0, 16)
        tl.store(p + i, tl.load(x + i, mask=i < 10))
        tl.store(p + 16 + i, tl.load(x + i, mask=i < 10, other=7))

    run(body, torch.ones(10), out)
    assert out[0, :10].eq(1).all() and out[0, 10:].isnan().all()
    assert out[1].tolist() == [1] * 10 + [7] * 6


def test_masks_in_memory():
    "A tensor of booleans is loaded, and is a mask; without `other` a lane is true."
    inside, out = torch.tensor([True, False, True]), torch.zeros(4)

    def body(p, q):
        i = tl.arange(0, 4)
        tl.store(q + i, 1.0, mask=tl.load(p + i, mask=i < 3))

    run(body, inside, out)
    assert out.tolist() == [1, 0, 1, 1]


def test_functions_are_methods_as_well():
    out = torch.zeros(16)

    def body(p):
        x = tl.arange(0, 16).to(tl.float32)
        x = tl.multiple_of((x - x.max(0)).exp(), 16)
        tl.store(p + tl.arange(0, 16), x / x.sum(0))

    run(body, out)
    torch.testing.assert_close(out, torch.arange(16.0).softmax(0))


def test_what_is_missing_says_so():
    with pytest.raises(AttributeError, match=r"a block has no \.mean"):
        run(lambda p: tl.arange(0, 16).mean(0), torch.zeros(1))
    with pytest.raises(AttributeError, match=r"this small Triton has no tl\.softmax"):
        run(lambda p: tl.softmax(tl.arange(0, 16)), torch.zeros(1))


def test_dot_rounds_float32_unless_told():
    x = torch.full((16, 16), 1 + 2.0**-12)
    for precision, want in ((None, 16), ("tf32", 16), ("ieee", 16 + 16 * 2.0**-12)):
        out = torch.empty(16, 16)

        def body(p, q, precision=precision):
            at = tl.arange(0, 16)[:, None] * 16 + tl.arange(0, 16)[None, :]
            one = tl.full((16, 16), 1, dtype=tl.float32)
            tl.store(q + at, tl.dot(tl.load(p + at), one, input_precision=precision))

        run(body, x, out)
        assert out.eq(want).all()


# ---- counting ----


@pytest.mark.parametrize("stride", [0, 1, 2, 3, 8, 33])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_moved_is_what_the_chapter_counts(stride, dtype):
    "The counter against `sectors`, warp by warp, with a mask and without."
    x, size = (
        torch.zeros(64 * 33 + 5, dtype=dtype),
        torch.empty(0, dtype=dtype).element_size(),
    )
    for first, live in ((0, 64), (3, 64), (0, 41)):

        def body(p, first=first, live=live):
            i = tl.arange(0, 64)
            tl.load(p + first + stride * i, mask=i < live)

        seen = run(body, x)
        places = [first + stride * i for i in range(live)]
        want = warps.sectors(places[:32], size) + warps.sectors(places[32:], size)
        assert (seen.asked, seen.moved) == (live * size, 32 * want)
        again = run(body, x, counter=Counter(l2=10**6))
        assert again.moved == seen.moved
        assert again.missed == 32 * warps.sectors(places, size)


def test_a_cache_forgets_what_was_not_used_for_longest():
    def body(p):
        i = tl.arange(0, 8)
        for start in (0, 8, 0, 16, 8, 0):  # a sector each
            tl.load(p + start + i)

    for sectors, missed in ((1, 6), (2, 5), (3, 3)):
        assert (
            run(body, torch.zeros(24), counter=Counter(l2=32 * sectors)).missed
            == 32 * missed
        )


@pytest.mark.parametrize(("BM", "BN"), [(16, 16), (32, 64), (64, 32), (128, 128)])
def test_traffic_is_the_formula(BM, BN):
    M, N, K = 128, 128, 64
    a, b, c = torch.randn(M, K), torch.randn(K, N), torch.empty(M, N)
    for group in (1, 3, 8):
        seen = kernels.matmul_kernel[(M // BM * N // BN,)](
            a, b, c, M, N, K, BM=BM, BN=BN, BK=16, GROUP=group
        )
        torch.testing.assert_close(c, a @ b, atol=1e-4, rtol=1e-4)
        assert seen.moved == warps.traffic(M, N, K, BM, BN)
        assert seen.flops == 2 * M * N * K


def test_tiles_of_groups_come_once_and_save_bytes():
    "Against the cache of the interpreter itself, where programs run one by one."
    rows = [warps.grouped(p, 8, 8, g) for g in (1, 4) for p in range(64)]
    assert sorted(rows[:64]) == sorted(rows[64:])
    missed = [
        warps.from_memory(rows[at : at + 64], 4, 100, 100, 2000, at_once=16)[1]
        for at in (0, 64)
    ]
    assert missed[1] < missed[0]


# ---- races ----


def one_each(place, n=4, **options):
    "n programs; each calls place(pointer, its number)."
    return run(
        lambda p: place(p, tl.program_id(0)), torch.zeros(8), grid=(n,), **options
    )


@pytest.mark.parametrize("place", [
    lambda p, i: tl.store(p, i),
    lambda p, i: tl.store(p + i, tl.load(p + (i + 1) % 4)),
    lambda p, i: tl.store(p + 1 + i, tl.load(p + i)),
    lambda p, i: tl.atomic_add(p, 1.0) if i > 1 else tl.store(p, 1.0),
    lambda p, i: tl.store(p, 1.0) if i > 1 else tl.atomic_add(p, 1.0),
    lambda p, i: tl.load(p) if i > 1 else tl.atomic_add(p, 1.0),
    lambda p, i: tl.atomic_add(p, tl.load(p)),
])  # fmt: skip
def test_races(place):
    with pytest.raises(Race):
        one_each(place)
    with pytest.raises(Race):
        one_each(place, order=[3, 1, 2, 0])


@pytest.mark.parametrize("place", [
    lambda p, i: tl.store(p + i, tl.load(p + i) + 1),
    lambda p, i: tl.atomic_add(p, 1.0),
    lambda p, i: tl.store(p + i, tl.load(p + 4 + i % 2)),
    lambda p, i: [tl.store(p + i, 1.0), tl.store(p + i, 2.0), tl.load(p + i)],
])  # fmt: skip
def test_no_race(place):
    one_each(place)


ONE_FOR_ALL = """        dq = tl.load(dq_ptr + at, mask=m[:, None] < T, other=0.0)
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")
        tl.store(dq_ptr + at, dq, mask=m[:, None] < T)
    tl.store(dk_ptr"""


def test_one_backward_kernel_for_all_gradients_races():
    "Chapter 15: a program that owns keys and adds to dq meets the others there."
    source = inspect.getsource(kernels.flash_keys.fn)
    source = source.replace("dk_ptr, dv_ptr, T", "dk_ptr, dv_ptr, dq_ptr, T")
    source = source.replace("    tl.store(dk_ptr", ONE_FOR_ALL, 1)
    scope = {"jit": jit, "tl": tl}
    exec(source, scope)
    q, k, v, do = torch.randn(4, 1, 32, 16)
    lse, delta, dk, dv, dq = (torch.zeros(n) for n in (32, 32, 512, 512, 512))
    arguments = (q, k, v, do, lse, delta, dk, dv, dq, 32, 0.25)
    options = {"D": 16, "BM": 16, "BN": 16, "CAUSAL": False}
    scope["flash_keys"][(1, 1)](*arguments, **{**options, "BN": 32})  # alone it may
    with pytest.raises(Race, match="of dq_ptr"):
        scope["flash_keys"][(2, 1)](*arguments, **options)


def test_lanes_that_disagree():
    with pytest.raises(Race, match="two lanes"):
        run(
            lambda p: tl.store(p + tl.arange(0, 4) // 2, tl.arange(0, 4)),
            torch.zeros(4),
        )
    run(lambda p: tl.store(p + tl.arange(0, 4) // 2, 1.0), torch.zeros(4))


def test_every_launch_begins_anew():
    x = torch.zeros(1)
    for _ in range(2):
        run(lambda p: tl.store(p, tl.load(p) + 1), x)
    assert x.item() == 2


def test_the_same_tensor_twice_is_one_memory():
    x = torch.zeros(8)
    with pytest.raises(Race):
        run(
            lambda p, q: tl.store(q + tl.program_id(0), tl.load(p + 3)), x, x, grid=(4,)
        )


# ---- launching ----


def test_grids_and_orders():
    seen = []

    def body(p):
        seen.append(tuple(int(tl.program_id(a).a) for a in range(3)))
        assert [int(tl.num_programs(a).a) for a in range(3)] == [2, 3, 1]

    run(body, torch.zeros(1), grid=(2, 3))
    assert seen == [(x, y, 0) for y in range(3) for x in range(2)]
    seen.clear()
    run(body, torch.zeros(1), grid=lambda words: (2, 3), order=[5, 0])
    assert seen == [(1, 2, 0), (0, 0, 0)]


def test_after_an_error_the_next_launch_runs():
    with pytest.raises(ZeroDivisionError):
        run(lambda p: 1 // 0, torch.zeros(1))
    assert run(lambda p: None, torch.zeros(1)).programs == 1
    with pytest.raises(Refused, match="inside a kernel"):
        tl.program_id(0)


def test_numpy_and_torch_alike():
    x, y, out = np.arange(5.0), np.ones(5), np.empty(5)
    kernels.add_kernel[(1,)](x, y, out, 5, BLOCK=8)
    assert out.tolist() == [1, 2, 3, 4, 5]


# ---- the files that ran on a GPU ----


def test_the_tuned_matmuls_run_here():
    there = borrow(ROOT / "utils" / "bench" / "kernels" / "matmul.py")
    a, b = torch.randn(200, 136), torch.randn(136, 264)
    for way, configs in there.CONFIGS.items():
        for config in configs[1:3]:
            got = there.matmul(way, a, b, config=config, programs=3)
            torch.testing.assert_close(got, a @ b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("causal", [True, False])
def test_the_tuned_attention_runs_here(causal):
    there = borrow(ROOT / "utils" / "bench" / "kernels" / "attention.py")
    q, k, v, do = (torch.randn(1, 1, 200, 64, requires_grad=True) for _ in range(4))
    want = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    grads = torch.autograd.grad(want, (q, k, v), do)
    with torch.no_grad():
        for config in there.FORWARD[64][::3]:
            o, lse = there.forward(q, k, v, causal, config)
            torch.testing.assert_close(o, want, atol=1e-5, rtol=1e-4)
        for got, grad in zip(there.backward(q, k, v, o, lse, do, causal), grads):
            torch.testing.assert_close(got, grad, atol=1e-5, rtol=1e-4)


def test_borrowing_leaves_no_triton_behind():
    import sys

    before = sys.modules.get("triton")
    borrow(ROOT / "utils" / "bench" / "kernels" / "rows.py")
    assert sys.modules.get("triton") is before


# ---- the recording ----


def test_the_compiled_kernels_were_recorded():
    data = json.loads(compiled.FILE.read_text(encoding="utf-8"))
    cases = [(name, config, aligned) for name, _, config, aligned in compiled.CASES]
    assert [(r["kernel"], r["config"], r["aligned"]) for r in data["rows"]] == cases
    for row in data["rows"]:
        assert f"Used {row['registers']} registers" in row["ptxas"], "the raw words"
    assert compiled.recorded("matmul_kernel", BM=128, BN=128, num_warps=8)[0]["wgmma"]
    assert compiled.FILE.stem not in recordings.recordings(), "no machine"
