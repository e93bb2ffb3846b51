"""utils/built/distill.py, lora.py and continual.py: what a chapter's checks do not see."""

import pytest
import torch
from torch import nn

from utils.built import continual, distill, lora


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_student_of_its_own_words_has_no_gradient():
    z = numbers(5, 4).requires_grad_()
    distill.kd_loss(z, z.detach(), torch.zeros(5).long(), 3.0, 1.0).backward()
    assert z.grad.abs().max() < 1e-6


def test_every_image_is_judged_in_one_fold():
    parts = [distill.fold(k) for k in range(5)]
    assert sum(len(part[3]) for part in parts) == 1797
    assert all(len(part[1]) + len(part[3]) == 1797 for part in parts)


def test_learn_leaves_the_global_generator_alone_and_repeats():
    X, y = numbers(90, 64), torch.arange(90) % 10
    state = torch.get_rng_state()
    nets = [
        distill.learn(distill.mlp(8, 1), X, distill.by_labels(y), 5) for _ in range(2)
    ]
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(nets[0][0].weight, nets[1][0].weight)
    assert not nets[0].training


def test_only_small_matrices_of_lora_learn_and_a_merge_takes_the_type():
    part = lora.LoRA(nn.Linear(7, 5).double(), r=2, alpha=3.0)
    assert [n for n, p in part.named_parameters() if p.requires_grad] == ["A", "B"]
    assert part.merge().weight.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_lora_has_the_type_and_the_device_of_its_layer(dtype):
    part = lora.LoRA(nn.Linear(7, 5, dtype=dtype), r=2, alpha=3.0)
    assert {p.dtype for p in part.parameters()} == {dtype}
    assert part(torch.ones(4, 7, dtype=dtype)).dtype == dtype
    with torch.device("meta"):
        elsewhere = nn.Linear(7, 5)
    part = lora.LoRA(elsewhere, r=2, alpha=3.0)
    assert {p.device.type for p in part.parameters()} == {"meta"}


def test_products_count_the_tokens_of_the_mask_only():
    x, mask = numbers(3, 4, 6), torch.rand(3, 4) > 0.4
    found = lora.products(nn.Sequential(nn.Linear(6, 2)), x, mask=mask)["0"]
    assert torch.allclose(found, x[mask].T @ x[mask] / int(mask.sum()), atol=1e-5)


def test_pieces_of_help_repeat_and_have_their_length():
    pieces = lora.help_texts(40, 7)
    assert [len(p) for p in pieces] == [7] * 40 and pieces == lora.help_texts(40, 7)
    assert pieces[:5] == lora.help_texts(5, 7) != lora.help_texts(5, 7, seed=1)
    assert all(word[0].isalpha() for piece in pieces for word in piece)


def test_springs_pull_only_after_a_move():
    net = nn.Sequential(nn.Linear(3, 4))
    F_w = continual.fisher(net, numbers(6, 3), torch.arange(6) % 4)
    held = {n: p.detach().clone() for n, p in net.named_parameters()}
    assert continual.ewc_penalty(net, [(F_w, held)]) == 0
    net[0].bias.data += 2
    penalty = continual.ewc_penalty(net, [(F_w, held)])
    assert torch.allclose(penalty, 2 * F_w["0.bias"].sum())
