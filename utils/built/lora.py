"""Few numbers in place of a matrix (chapter 25): low rank, whitened low rank, LoRA.

Shapes: W (H, D) as nn.Linear keeps it; B (H, r) and A (r, D) with W close to B @ A.
The best rank-r matrix is Eckart and Young's (1936); LoRA is Hu and others' (2021),
arXiv:2106.09685.
"""

import copy
import importlib
import inspect
import random
import re

import numpy as np
import torch
from torch import nn

from utils import given


def low_rank(W_HD, r):
    "B (H, r) and A (r, D): B @ A is the matrix of rank r that is nearest to W."
    if W_HD.ndim != 2:
        raise ValueError(f"W is a matrix (H, D), not of shape {tuple(W_HD.shape)}")
    r = given.whole("r", r, 1, min(W_HD.shape))
    U_HK, S_K, V_KD = torch.linalg.svd(W_HD, full_matrices=False)
    return U_HK[:, :r] * S_K[:r], V_KD[:r]


def low_rank_for(W_HD, C_DD, r):
    """B (H, r), A (r, D) for which the *outputs* X @ (B @ A).T are nearest to X @ W.T.

    C is X.T @ X / N of the inputs, positive definite (add a little to its diagonal).
    """
    given.tensors(W_HD=W_HD)
    if C_DD.shape != (W_HD.shape[1],) * 2:
        raise ValueError(
            f"C is (D, D) = {(W_HD.shape[1],) * 2}, not {tuple(C_DD.shape)}"
        )
    L_DD = torch.linalg.cholesky(C_DD)
    B_Hr, M_rD = low_rank(W_HD @ L_DD, r)
    return B_Hr, torch.linalg.solve_triangular(L_DD, M_rD, upper=False, left=False)


def products(model, *inputs, mask=None):
    """{name of a linear layer: X.T @ X / N of what it is fed}, from one run.

    mask (B, T): the tokens that count, where layers are fed (B, T, D).
    """
    found, hooks = {}, []
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear):

            def see(_, fed, name=name):
                x_ND = fed[0] if mask is None else fed[0][mask]
                found[name] = x_ND.T @ x_ND / len(x_ND)

            hooks.append(part.register_forward_pre_hook(see))
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


class LoRA(nn.Module):
    """A frozen linear layer plus alpha / r * B @ A, of which only B and A learn.

    B begins at 0, so the layer begins as the frozen one; merge() -> one nn.Linear. A and B
    have the type of the layer's weight, and lie on its device.
    """

    def __init__(self, layer, r, alpha):
        super().__init__()
        if not isinstance(layer, nn.Linear):
            raise TypeError(f"layer is a torch.nn.Linear, not {given.kind(layer)}")
        given.number("alpha", alpha, above=0)
        r = given.whole("r", r, 1, min(layer.weight.shape))
        self.layer, self.scale = layer.requires_grad_(False), alpha / r
        like = {"dtype": layer.weight.dtype, "device": layer.weight.device}
        self.A = nn.Parameter(
            torch.randn(r, layer.in_features, **like) / layer.in_features**0.5
        )
        self.B = nn.Parameter(torch.zeros(layer.out_features, r, **like))

    def forward(self, x):
        "(..., D) -> (..., H)."
        return self.layer(x) + self.scale * (x @ self.A.T) @ self.B.T

    def merge(self):
        "One new nn.Linear that computes the same."
        merged = copy.deepcopy(self.layer)
        with torch.no_grad():
            merged.weight += self.scale * self.B @ self.A
        return merged


def help_texts(count, words, seed=0):
    "Pieces of Python's own help texts, in random order: lists of `words` words."
    from pydoc_data.topics import topics

    count, words = given.whole("count", count), given.whole("words", words)
    found = []
    for name in sorted(topics):
        w = re.findall(r"[A-Za-z][A-Za-z']+", topics[name])
        found += [w[i : i + words] for i in range(0, len(w) - words, words)]
    random.Random(seed).shuffle(found)
    return found[:count]


SUBPACKAGES = (
    "stats signal linalg optimize sparse special ndimage interpolate integrate "
    "spatial.distance cluster.hierarchy fft"
).split()


def scipy_sentences(count, seed=0):
    "The first sentences of SciPy's help texts, in random order, and which part each is from."
    rows = {}
    for label, name in enumerate(SUBPACKAGES):
        module = importlib.import_module(f"scipy.{name}")
        for key in sorted(set(dir(module))):
            made = getattr(module, key)
            if key.startswith("_") or not callable(made):
                continue
            parts = re.split(r"\n\s*\n", (inspect.getdoc(made) or "").strip())
            signature = re.match(r"^\w+\(.*\)( ->.*)?$", " ".join(parts[0].split()))
            text = " ".join(parts[1 if signature and len(parts) > 1 else 0].split())
            if 20 < len(text) < 300:
                rows.setdefault(text, label)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    texts = [list(rows)[i] for i in order[:count].tolist()]
    return texts, np.array([rows[text] for text in texts])
