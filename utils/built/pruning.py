"""What chapter 23 builds: which weights to remove, and what repairs the rest.

Shapes: W (H, D) as torch.nn.Linear keeps it, one row per output; a mask (H, D) is True
where a weight stays; X (N, D) are rows of inputs. `keep` is the share that stays, 0 to 1.
A network is an nn.Sequential of nn.Linear and nn.ReLU in turns. Numbers that cannot be
raise ValueError, what is no tensor or layer of the right kind TypeError.
Sources: Zhu and Gupta (2017), arXiv:1710.01878 (the schedule); Frankle and Carbin (2018),
arXiv:1803.03635 (tickets); Sun and others (2023), arXiv:2306.11695 (Wanda); Frantar and
Alistarh (2023), arXiv:2301.00774 (SparseGPT: pruning with compensation).
utils.built.coding writes what is left.
"""

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils import data, given
from utils.built import quant  # chapter 24


def _share(name, value):
    "A share: a number from 0 to 1, or ValueError."
    if given.number(name, value) > 1:
        raise ValueError(f"{name} is a share, from 0 to 1, not {value!r:.60}")
    return value


def _weights(name, W):
    "A tensor of numbers whose axes are the letters of its name, or an error."
    return given.tensors(**{name: W})


def linears(net):
    "The linear layers of a network, in order, masked ones too."
    if not isinstance(net, nn.Module):
        raise TypeError(f"net is a torch.nn.Module, not {given.kind(net)}")
    found = [m for m in net.modules() if isinstance(m, Masked)]
    return found or [m for m in net.modules() if isinstance(m, nn.Linear)]


# ---- which ----


def keep_largest(W_HD, keep):
    "True for the round(keep * H * D) weights of largest size: -> (H, D) bool."
    count = round(_share("keep", keep) * _weights("W_HD", W_HD).numel())
    return _mask_of(W_HD.detach().abs(), count)


def _mask_of(score, count):
    "True at the `count` largest scores, exactly so many, ties or not."
    mask = torch.zeros(score.numel(), dtype=torch.bool)
    mask[score.flatten().topk(count).indices] = True
    return mask.reshape(score.shape)


def global_masks(weights, keep):
    "One threshold for all: masks that keep round(keep * all) weights, the largest ones."
    if torch.is_tensor(weights) or not all(torch.is_tensor(W) for W in weights):
        raise TypeError("weights is a list of tensors")
    sizes = [W.numel() for W in weights]
    score = torch.cat([W.detach().abs().flatten() for W in weights])
    mask = _mask_of(score, round(_share("keep", keep) * sum(sizes)))
    parts = mask.split(sizes)
    return [part.reshape(W.shape) for part, W in zip(parts, weights)]


def wanda(W_HD, X_ND, keep):
    """In each row, the round(keep * D) largest |w| * (norm of its input): -> (H, D) bool.

    X: what this layer is fed on some rows. The score of Sun and others (2023).
    """
    _fits(W_HD, X_ND)
    score_HD = W_HD.detach().abs() * X_ND.norm(dim=0)
    return _rows(score_HD, round(_share("keep", keep) * W_HD.shape[1]))


def _fits(W_HD, X_ND):
    D = _weights("W_HD", W_HD).shape[1]
    if _weights("X_ND", X_ND).shape[1] != D:
        raise ValueError(f"weights for {D} inputs, rows of {X_ND.shape[1]}")


def _rows(score_HD, count):
    mask_HD = torch.zeros(score_HD.shape, dtype=torch.bool)
    return mask_HD.scatter_(1, score_HD.topk(count, 1).indices, True)


def two_of_four(score_HD):
    "True for the two largest scores of every four neighbours in a row: -> (H, D) bool."
    H, D = _weights("score_HD", score_HD).shape
    if D % 4:
        raise ValueError(f"groups of 4 do not divide {D} inputs")
    return _rows(score_HD.reshape(-1, 4), 2).reshape(H, D)


def pack_24(W_HD, mask_HD):
    "What 2:4 stores: -> values (H, D / 2), places 0 .. 3 (H, D / 2) uint8."
    H, D = _weights("W_HD", W_HD).shape
    if tuple(mask_HD.shape) != (H, D):
        raise ValueError(f"a mask of {tuple(mask_HD.shape)} for weights of {(H, D)}")
    if D % 4 or not (mask_HD.reshape(-1, 4).sum(1) == 2).all():
        raise ValueError("a 2:4 mask keeps exactly two of every four neighbours")
    places = mask_HD.reshape(-1, 4).nonzero()[:, 1].to(torch.uint8)
    return W_HD[mask_HD].reshape(H, D // 2), places.reshape(H, D // 2)


def unpack_24(values_HK, places_HK):
    "Back again: -> W (H, 2 K), 0 where nothing was kept."
    H, K = values_HK.shape
    W_G4 = values_HK.new_zeros(H * K // 2, 4)
    W_G4.scatter_(1, places_HK.reshape(-1, 2).long(), values_HK.reshape(-1, 2))
    return W_G4.reshape(H, 2 * K)


def compensated(W_HD, C_DD, choose, block=64):
    """Prune column by column; columns still to come make up for what went: -> (H, D).

    C: X'X / N of the layer's inputs, damped (quant.input_products). choose(score_HB) ->
    mask for a block of columns, as its turn comes; the score is the squared error that
    removing a weight costs after the best repair (SparseGPT). Chapter 24 rounds so.
    """
    D = _weights("W_HD", W_HD).shape[1]
    if tuple(C_DD.shape) != (D, D):
        raise ValueError(f"C_DD has the shape {(D, D)}, not {tuple(C_DD.shape)}")
    try:
        U_DD = torch.linalg.cholesky(C_DD.double())
        U_DD = torch.linalg.cholesky(torch.cholesky_inverse(U_DD), upper=True)
    except RuntimeError:
        raise ValueError("C_DD is singular: input_products(X, damping)") from None
    d_D = U_DD.diagonal()
    U_DD, W_HD = (U_DD / d_D[:, None]).to(W_HD.dtype), W_HD.detach().clone()
    for start in range(0, D, block):
        part = slice(start, min(start + block, D))
        W_HB = W_HD[:, part]  # a view: what changes in it changes in W
        mask_HB = choose((W_HB / d_D[part].to(W_HD.dtype)) ** 2)
        E_HB = torch.empty_like(W_HB)
        for b in range(W_HB.shape[1]):
            E_HB[:, b] = W_HB[:, b] * ~mask_HB[:, b]
            W_HB[:, b] -= E_HB[:, b]
            later = slice(start + b + 1, part.stop)
            W_HB[:, b + 1 :] -= E_HB[:, b, None] * U_DD[start + b, later]
        W_HD[:, part.stop :] -= E_HB @ U_DD[part, part.stop :]
    return W_HD


# ---- training what is left ----


class Masked(nn.Module):
    "A linear layer that computes with the weights that its mask keeps."

    def __init__(self, layer, mask_HD):
        super().__init__()
        if not isinstance(layer, nn.Linear):
            raise TypeError(f"layer is a torch.nn.Linear, not {given.kind(layer)}")
        if mask_HD.dtype != torch.bool or mask_HD.shape != layer.weight.shape:
            raise ValueError(
                f"the mask is torch.bool, {tuple(layer.weight.shape)}; not "
                f"{mask_HD.dtype}, {tuple(mask_HD.shape)}"
            )
        self.layer = layer
        self.register_buffer("mask_HD", mask_HD)

    @property
    def weight(self):
        "What it computes with: 0 where the mask is False."
        return self.layer.weight * self.mask_HD

    def forward(self, x_BD):
        return F.linear(x_BD, self.weight, self.layer.bias)

    def narrow(self, mask_HD):
        "Keep what both masks keep: what is gone stays gone."
        self.mask_HD = self.mask_HD & mask_HD


def masked(net):
    "A copy whose linear layers keep their zeros at zero from now on."
    return nn.Sequential(
        *[
            Masked(part, part.weight.data != 0) if isinstance(part, nn.Linear) else part
            for part in copy.deepcopy(net)
        ]
    )


def plain(net):
    "A copy of a masked network as plain linear layers, with zeros in them."
    parts = []
    for part in copy.deepcopy(net):
        if isinstance(part, Masked):
            part.layer.weight.data = part.weight.data
            part = part.layer
        parts.append(part)
    return nn.Sequential(*parts)


def keep_at(step, total, keep, stop):
    "The share kept at a step: from 1 by a cubic to `keep` at stop * total, then level."
    given.number("total", total, above=0)
    _share("keep", keep)
    if _share("stop", stop) == 0:
        raise ValueError("stop is a share above 0: when does the pruning end?")
    left = max(0.0, 1 - given.number("step", step) / (stop * total))
    return keep + (1 - keep) * left**3


def tune(net, X_ND, y_N, epochs, lr=2e-2, on_step=None, seed=0):
    "quant.fit at the rate that pruned networks like: -> net, trained in place."
    return quant.fit(net, X_ND, y_N, epochs, lr, seed, on_step)


def gradual(net, X_ND, y_N, keep, epochs=30, stop=0.6, every=10):
    "Train on while the mask narrows, with one threshold for all layers: -> masked copy."
    net = masked(net)
    parts, total = linears(net), epochs * math.ceil(len(X_ND) / 128)

    def narrow(step, loss):
        if step % every == 0 or step >= stop * total:
            share = keep_at(step, total, keep, stop)
            for part, mask in zip(
                parts, global_masks([p.weight for p in parts], share)
            ):
                part.narrow(mask)

    return tune(net, X_ND, y_N, epochs, on_step=narrow)


def ticket(net, initial, keep):
    "initial's weights where net's are the largest of their layer, else 0: -> a new net."
    rewound = copy.deepcopy(initial)
    for layer, trained in zip(linears(rewound), linears(net)):
        layer.weight.data *= keep_largest(trained.weight.data, keep)
    return rewound


# ---- whole units ----


def shrink(before, after, units_K):
    "Two linear layers around a ReLU, with only these hidden units: -> two new layers."
    for layer in (before, after):
        if not isinstance(layer, nn.Linear):
            raise TypeError(f"a layer is a torch.nn.Linear, not {given.kind(layer)}")
    if before.out_features != after.in_features:
        raise ValueError(
            f"{before.out_features} outputs do not fit {after.in_features} inputs"
        )
    return (
        _layer(before.weight.data[units_K], before.bias.data[units_K]),
        _layer(after.weight.data[:, units_K], after.bias.data),
    )


def _layer(W_HD, b_H):
    "A linear layer with these weights."
    with torch.random.fork_rng(devices=[]):
        layer = nn.Linear(W_HD.shape[1], len(W_HD), dtype=W_HD.dtype)
    layer.weight.data, layer.bias.data = W_HD.clone(), b_H.clone()
    return layer


def refit(h_NK, target_NH, damping=1e-4):
    """The linear layer that comes closest to the targets: -> W (H, K), b (H,).

    Solves (A'A / N + damping I) S = A'T / N with A = [h, 1], in float64.
    """
    N = len(_weights("h_NK", h_NK))
    if len(_weights("target_NH", target_NH)) != N:
        raise ValueError(f"{N} rows of inputs, {len(target_NH)} of targets")
    A = torch.cat([h_NK, h_NK.new_ones(N, 1)], 1).double()
    damp = given.number("damping", damping) * torch.eye(A.shape[1], dtype=A.dtype)
    S = torch.linalg.solve(A.T @ A / N + damp, A.T @ target_NH.double() / N)
    S = S.to(h_NK.dtype)
    return S[:-1].T.contiguous(), S[-1]


def loudest(h_NH, after, count):
    "The `count` units that the next layer hears most: -> indices, in order."
    score_H = h_NH.pow(2).mean(0).sqrt() * after.weight.data.norm(dim=0)
    return score_H.topk(count).indices.sort().values


@torch.no_grad()
def smaller(net, X_ND, keep, repair=True):
    "A copy with a share of each hidden layer's units; repair: refit what reads them."
    layers, h_NK = linears(copy.deepcopy(net)), X_ND
    full_NH = X_ND  # what the whole network computes there
    for k in range(len(layers) - 1):
        before, after = layers[k], layers[k + 1]
        full_NH = F.relu(linears(net)[k](full_NH))
        kept_NH = F.relu(before(h_NK))
        count = max(1, round(_share("keep", keep) * before.out_features))
        units_K = loudest(kept_NH, after, count)
        layers[k], layers[k + 1] = shrink(before, after, units_K)
        h_NK = kept_NH[:, units_K]
        if repair:
            target_NH = linears(net)[k + 1](full_NH)
            layers[k + 1] = _layer(*refit(h_NK, target_NH))
    parts = [part for layer in layers for part in (layer, nn.ReLU())]
    return nn.Sequential(*parts[:-1])


def count(net):
    "The weights of a network that are not 0 (biases are not counted)."
    return sum((layer.weight != 0).sum().item() for layer in linears(net))


# ---- few values ----


class Coded(Masked):
    """A masked layer that, once it has a scale, computes with whole numbers of it.

    top: 1 for the three values -1, 0, 1; 7 for fifteen.
    """

    def __init__(self, layer, top):
        super().__init__(layer, torch.ones_like(layer.weight, dtype=torch.bool))
        self.top, self.scale = given.whole("top", top, 1, 127), None

    @property
    def weight(self):
        W_HD = self.layer.weight * self.mask_HD
        if self.scale is None:
            return W_HD
        return quant.fake_quantize(W_HD, self.scale, self.top)  # chapter 24

    def settle(self):
        "Choose the scale with the least error, as a file will hold it: in 16 bits."
        w_N = self.layer.weight.detach()[self.mask_HD]
        shares = [k / 10 for k in range(3, 11)]
        bits = (self.top + 1).bit_length()
        self.scale = float(torch.tensor(quant.best_scale(w_N, bits, shares)).half())

    def codes(self):
        "Its whole numbers: (H, D) int8."
        if self.scale is None:
            raise ValueError("there is no scale yet: settle() chooses one")
        return (self.weight.detach() / self.scale).round().to(torch.int8)


def tiny(net, X_ND, y_N, epochs=40):
    "A quarter of the units, 40 and 50 % of their weights, few values: two Coded layers."
    small = linears(smaller(net, X_ND, 0.25))
    parts = [Coded(small[0], top=1), Coded(small[1], top=7)]
    total = epochs * math.ceil(len(X_ND) / 128)

    def on_step(step, loss):
        for part, keep in zip(parts, (0.4, 0.5)):
            if step < total // 2 and step % 5 == 0:
                share = keep_at(step, total, keep, 0.45)
                part.narrow(keep_largest(part.weight, share))
            elif step >= total // 2 and part.scale is None:
                part.settle()

    tune(
        nn.Sequential(parts[0], nn.ReLU(), parts[1]), X_ND, y_N, epochs, on_step=on_step
    )
    return parts


# ---- what the chapter measures on ----


def judge(folds, change=None):
    "quant.Folds.accuracy, image by image: which are read right, (N,) bool."
    right_N = torch.zeros(len(folds.y_N), dtype=torch.bool)
    for k, net in enumerate(folds.nets):
        new_N = folds.fold_N == k
        if change is not None:
            net = change(copy.deepcopy(net), folds.X_ND[~new_N], folds.y_N[~new_N])
        with torch.no_grad():
            right_N[new_N] = net(folds.X_ND[new_N]).argmax(1) == folds.y_N[new_N]
    return right_N


def fold(k, count=5):
    "One of `count` folds of the 1,797 digits: -> X, y to train on, X, y to judge by."
    count = given.whole("count", count, 2, 20)
    k = given.whole("k", k, 0, count - 1)
    X_ND, y_N, X_test, y_test = data.digits()
    X_ND = torch.from_numpy(np.concatenate([X_ND, X_test])).float()
    y_N = torch.from_numpy(np.concatenate([y_N, y_test]))
    new_N = torch.arange(len(y_N)) % count == k
    return X_ND[~new_N], y_N[~new_N], X_ND[new_N], y_N[new_N]


def one_hidden(X_ND, y_N, hidden=128, epochs=30, seed=0):
    "A trained network 64 -> hidden -> 10."
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    return tune(net, X_ND, y_N, epochs, seed=seed)


def rarest(folds, share=0.1):
    "The images farthest from the nearest image of their digit that was trained on: (N,) bool."
    distance_N = torch.zeros(len(folds.y_N))
    for k in range(len(folds.nets)):
        new_N = folds.fold_N == k
        far = torch.cdist(folds.X_ND[new_N], folds.X_ND[~new_N])
        far[folds.y_N[new_N][:, None] != folds.y_N[~new_N]] = torch.inf
        distance_N[new_N] = far.min(1).values
    return _mask_of(distance_N, round(_share("share", share) * len(distance_N)))
