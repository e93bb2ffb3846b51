"""Chapter 23's slips: wrong answers that its checks must reject, and their names."""

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import nn

from utils.built import coding, pruning
from utils.checks import pruning as ex


def _top(score, count):
    mask = torch.zeros(score.numel(), dtype=torch.bool)
    mask[score.flatten().topk(count).indices] = True
    return mask.reshape(score.shape)


# ---- keep_largest ----


@ex.keep_largest.slip(
    "This keeps the most positive weights: -2 is large as well. abs()."
)
def signed(W_HD, keep):
    return _top(W_HD, round(keep * W_HD.numel()))


@ex.keep_largest.slip("`keep` is the share that stays; this is the share that goes.")
def counts_what_goes(W_HD, keep):
    return _top(W_HD.abs(), W_HD.numel() - round(keep * W_HD.numel()))


@ex.keep_largest.slip("The mask is the wrong way round: True where a weight stays.")
def upside_down(W_HD, keep):
    return ~_top(W_HD.abs(), round(keep * W_HD.numel()))


@ex.keep_largest.slip("These are the smallest weights, and they stay.")
def keeps_the_smallest(W_HD, keep):
    return _top(-W_HD.abs(), round(keep * W_HD.numel()))


@ex.keep_largest.slip("keep * H * D is cut off here: round it.")
def cuts_off(W_HD, keep):
    return _top(W_HD.abs(), int(keep * W_HD.numel()))


@ex.keep_largest.slip("At least one weight stays here; round(keep * H * D) may be 0.")
def never_none(W_HD, keep):
    return _top(W_HD.abs(), max(1, round(keep * W_HD.numel())))


@ex.keep_largest.slip(
    "`>` at a threshold drops the weight at the threshold itself: take places, topk."
)
def above_threshold(W_HD, keep):
    count = round(keep * W_HD.numel())
    if count == 0:
        return torch.zeros(W_HD.shape, dtype=torch.bool)
    return W_HD.abs() > W_HD.abs().flatten().topk(count).values[-1]


@ex.keep_largest.slip(
    "`>=` at a threshold keeps every weight that ties with it: take places, topk."
)
def at_threshold(W_HD, keep):
    count = round(keep * W_HD.numel())
    if count == 0:
        return torch.zeros(W_HD.shape, dtype=torch.bool)
    return W_HD.abs() >= W_HD.abs().flatten().topk(count).values[-1]


@ex.keep_largest.slip(
    "Each row keeps its own largest here: one threshold for the matrix."
)
def each_row(W_HD, keep):
    places = W_HD.abs().topk(round(keep * W_HD.shape[1]), 1).indices
    return torch.zeros(W_HD.shape, dtype=torch.bool).scatter(1, places, True)


@ex.keep_largest.slip(
    "These are numbers: a mask is True and False, torch.bool, not the pruned matrix."
)
def pruned_weights(W_HD, keep):
    return W_HD * _top(W_HD.abs(), round(keep * W_HD.numel()))


@ex.keep_largest.slip(
    "These are numbers: a mask is True and False, torch.bool, not the pruned matrix."
)
def floats(W_HD, keep):
    return _top(W_HD.abs(), round(keep * W_HD.numel())).float()


@ex.keep_largest.slip("The mask is one long line: give it the shape of W.")
def flat(W_HD, keep):
    return _top(W_HD.abs(), round(keep * W_HD.numel())).flatten()


# ---- global_masks ----


@ex.global_masks.slip(
    "Each matrix has a threshold of its own here: make them one list."
)
def per_layer(weights, keep):
    return [pruning.keep_largest(W, keep) for W in weights]


@ex.global_masks.slip("Signs count here: large means large in size.")
def global_signed(weights, keep):
    line = torch.cat([W.flatten() for W in weights])
    parts = _top(line, round(keep * len(line))).split([W.numel() for W in weights])
    return [part.reshape(W.shape) for part, W in zip(parts, weights)]


@ex.global_masks.slip(
    "This is the mean of the layers' own thresholds: sort all weights together."
)
def mean_threshold(weights, keep):
    if keep == 0:
        return [torch.zeros(W.shape, dtype=torch.bool) for W in weights]
    lows = [W.abs()[pruning.keep_largest(W, keep)] for W in weights]
    lows = [low.min() for low in lows if len(low)]
    limit = sum(lows) / len(lows)
    return [W.abs() >= limit for W in weights]


@ex.global_masks.slip("Every matrix is scaled to its own largest weight first: do not.")
def scaled(weights, keep):
    return pruning.global_masks([W / W.abs().max() for W in weights], keep)


@ex.global_masks.slip("This is one long mask: cut it, one mask for each matrix.")
def one_long(weights, keep):
    line = torch.cat([W.flatten() for W in weights])
    return _top(line.abs(), round(keep * len(line)))


@ex.global_masks.slip("The pieces are still lines: give each the shape of its matrix.")
def lines(weights, keep):
    line = torch.cat([W.flatten() for W in weights])
    return _top(line.abs(), round(keep * len(line))).split([W.numel() for W in weights])


@ex.global_masks.slip(
    "A threshold with `>=` keeps all that tie with it: take exactly so many places."
)
def global_ties(weights, keep):
    line = torch.cat([W.flatten() for W in weights]).abs()
    count = round(keep * len(line))
    limit = line.topk(count).values[-1] if count else torch.inf
    return [W.abs() >= limit for W in weights]


# ---- Masked ----


class _Masked(nn.Module):
    def __init__(self, layer, mask_HD):
        super().__init__()
        self.layer = layer
        self.register_buffer("mask_HD", mask_HD)

    @property
    def weight(self):
        return self.layer.weight * self.mask_HD

    def forward(self, x_BD):
        return F.linear(x_BD, self.weight, self.layer.bias)

    def narrow(self, mask_HD):
        self.mask_HD = self.mask_HD & mask_HD


@ex.Masked.slip("The mask is not used: `weight` is the layer's weight as it stands.")
class Ignores(_Masked):
    @property
    def weight(self):
        return self.layer.weight


@ex.Masked.slip("The mask is the wrong way round here.")
class Inverted(_Masked):
    @property
    def weight(self):
        return self.layer.weight * ~self.mask_HD


@ex.Masked.slip(
    "It multiplies once, at the start: what is written into the layer later comes through."
)
class AtTheStart(_Masked):
    def __init__(self, layer, mask_HD):
        super().__init__(layer, mask_HD)
        layer.weight.data *= mask_HD
        layer.weight.register_hook(lambda g: g * self.mask_HD)

    @property
    def weight(self):
        return self.layer.weight

    def narrow(self, mask_HD):
        super().narrow(mask_HD)
        self.layer.weight.data *= self.mask_HD


@ex.Masked.slip("No gradient comes through: detach() or .data cuts the layer off.")
class Detached(_Masked):
    @property
    def weight(self):
        return (self.layer.weight * self.mask_HD).detach()


@ex.Masked.slip("The gradient goes past the mask: masked weights must get none.")
class Straight(_Masked):
    @property
    def weight(self):
        W = self.layer.weight
        return W + (W * self.mask_HD - W).detach()


@ex.Masked.slip(
    "The new mask replaces the old one: what was pruned earlier comes back."
)
class Replaces(_Masked):
    def narrow(self, mask_HD):
        self.mask_HD = mask_HD


@ex.Masked.slip("`or` gives more weights, not fewer: keep what both masks keep.")
class Widens(_Masked):
    def narrow(self, mask_HD):
        self.mask_HD = self.mask_HD | mask_HD


@ex.Masked.slip("narrow changes nothing: assign to self.mask_HD.")
class Unchanged(_Masked):
    def narrow(self, mask_HD):
        self.mask_HD & mask_HD


@ex.Masked.slip(
    "narrow sets the weights to 0 and stops their gradient; the optimiser's memory moves them."
)
class GradientOnly(_Masked):
    def __init__(self, layer, mask_HD):
        super().__init__(layer, mask_HD)
        self.first = mask_HD

    @property
    def weight(self):
        return self.layer.weight * self.first

    def narrow(self, mask_HD):
        super().narrow(mask_HD)
        self.layer.weight.data *= self.mask_HD
        self.layer.weight.register_hook(lambda g: g * self.mask_HD)


@ex.Masked.slip(
    "`&=` writes into the mask that the caller gave: make a new one, a & b."
)
class WritesInto(_Masked):
    def narrow(self, mask_HD):
        self.mask_HD &= mask_HD


@ex.Masked.slip(
    "A kept weight that is 0 just now counts as pruned: use self.mask_HD, not `weight != 0`."
)
class ByValue(_Masked):
    def narrow(self, mask_HD):
        self.mask_HD = (self.weight != 0) & mask_HD


# ---- keep_at ----


@ex.keep_at.slip("This is the share that is gone; the share that is kept is asked for.")
def gone_at(step, total, keep, stop):
    return (1 - keep) * (1 - max(0.0, 1 - step / (stop * total)) ** 3)


@ex.keep_at.slip("A straight line: the third power is missing.")
def straight(step, total, keep, stop):
    return keep + (1 - keep) * max(0.0, 1 - step / (stop * total))


@ex.keep_at.slip("It goes on past stop * total: hold the bracket at 0 from there.")
def never_stops(step, total, keep, stop):
    return keep + (1 - keep) * (1 - step / (stop * total)) ** 3


@ex.keep_at.slip("`stop` is not used: the schedule must end at stop * total.")
def no_stop(step, total, keep, stop):
    return keep + (1 - keep) * max(0.0, 1 - step / total) ** 3


@ex.keep_at.slip("The drop is 1 - keep, not 1: it begins at 1 + keep here.")
def too_high(step, total, keep, stop):
    return keep + max(0.0, 1 - step / (stop * total)) ** 3


@ex.keep_at.slip("It falls late instead of early: the cube belongs to what is left.")
def late(step, total, keep, stop):
    return 1 - (1 - keep) * min(1.0, step / (stop * total)) ** 3


@ex.keep_at.slip("This ends at 0, not at `keep`.")
def down_to_none(step, total, keep, stop):
    return max(0.0, 1 - step / (stop * total)) ** 3


@ex.keep_at.slip("max() with `keep` cuts the curve off early: it should arrive there at stop * total.")  # fmt: skip
def floored(step, total, keep, stop):
    return max(keep, max(0.0, 1 - step / (stop * total)) ** 3)


# ---- ticket ----


def _layers(*nets):
    return zip(*(net[::2] for net in nets))


@ex.ticket.slip(
    "These are the trained values: the ticket starts from the initial ones."
)
def trained_values(net, initial, keep):
    made = deepcopy(net)
    for (layer,) in _layers(made):
        layer.weight.data *= pruning.keep_largest(layer.weight.data, keep)
    return made


@ex.ticket.slip("The mask comes from the initial weights: the trained ones know more.")
def initial_mask(net, initial, keep):
    return pruning.ticket(initial, initial, keep)


@ex.ticket.slip("The biases are still the trained ones: they go back as well.")
def trained_biases(net, initial, keep):
    made = pruning.ticket(net, initial, keep)
    for layer, trained in _layers(made, net):
        layer.bias.data = trained.bias.data.clone()
    return made


@ex.ticket.slip("The biases are 0 here: they are not pruned, and have initial values.")
def no_biases(net, initial, keep):
    made = pruning.ticket(net, initial, keep)
    for (layer,) in _layers(made):
        layer.bias.data.zero_()
    return made


@ex.ticket.slip("One threshold for all layers: here each layer keeps its own share.")
def one_threshold(net, initial, keep):
    made = deepcopy(initial)
    masks = pruning.global_masks([layer.weight.data for layer in net[::2]], keep)
    for layer, mask in zip(made[::2], masks):
        layer.weight.data *= mask
    return made


@ex.ticket.slip("Nothing is pruned: multiply each layer's weights by its mask.")
def rewinds_only(net, initial, keep):
    return deepcopy(initial)


@ex.ticket.slip("It writes into `initial`: work on a copy, deepcopy(initial).")
def spoils_initial(net, initial, keep):
    for start, trained in _layers(initial, net):
        start.weight.data *= pruning.keep_largest(trained.weight.data, keep)
    return initial


@ex.ticket.slip("Only the first layer is pruned.")
def first_layer(net, initial, keep):
    made = deepcopy(initial)
    made[0].weight.data *= pruning.keep_largest(net[0].weight.data, keep)
    return made


@ex.ticket.slip("The new network shares numbers with `initial`: clone the biases too.")
def shares_biases(net, initial, keep):
    made = pruning.ticket(net, initial, keep)
    for layer, first in _layers(made, initial):
        layer.bias.data = first.bias.data
    return made


# ---- wanda ----


def _rows(score, count):
    mask = torch.zeros(score.shape, dtype=torch.bool)
    return mask.scatter(1, score.topk(count, 1).indices, True)


def _count(W_HD, keep):
    return round(keep * W_HD.shape[1])


@ex.wanda.slip("The inputs are not used: this is the size of the weight alone.")
def only_weights(W_HD, X_ND, keep):
    return _rows(W_HD.abs(), _count(W_HD, keep))


@ex.wanda.slip("The weights are not used: this is the size of the inputs alone.")
def only_inputs(W_HD, X_ND, keep):
    return _rows(X_ND.norm(dim=0).expand_as(W_HD), _count(W_HD, keep))


@ex.wanda.slip("One threshold for the whole matrix: here each row keeps its own share.")
def whole_matrix(W_HD, X_ND, keep):
    return _top(W_HD.abs() * X_ND.norm(dim=0), round(keep * W_HD.numel()))


@ex.wanda.slip("The sign counts: a weight of -3 is large. abs().")
def wanda_signed(W_HD, X_ND, keep):
    return _rows(W_HD * X_ND.norm(dim=0), _count(W_HD, keep))


@ex.wanda.slip("A mean lets plus and minus cancel: an input's size is its norm.")
def mean_input(W_HD, X_ND, keep):
    return _rows(W_HD.abs() * X_ND.mean(0).abs(), _count(W_HD, keep))


@ex.wanda.slip(
    "The squares are summed, the root is missing: large inputs count too much."
)
def squared_input(W_HD, X_ND, keep):
    return _rows(W_HD.abs() * X_ND.pow(2).sum(0), _count(W_HD, keep))


@ex.wanda.slip("The sum of sizes is not the norm: square, sum, take the root.")
def sum_of_sizes(W_HD, X_ND, keep):
    return _rows(W_HD.abs() * X_ND.abs().sum(0), _count(W_HD, keep))


@ex.wanda.slip(
    "The root is taken of the score's weight as well: only the input has a norm."
)
def rooted_weight(W_HD, X_ND, keep):
    return _rows(W_HD.abs().sqrt() * X_ND.norm(dim=0), _count(W_HD, keep))


@ex.wanda.slip("keep * D is cut off here: round it.")
def wanda_cuts_off(W_HD, X_ND, keep):
    return _rows(W_HD.abs() * X_ND.norm(dim=0), int(keep * W_HD.shape[1]))


@ex.wanda.slip("`>=` at a row's threshold keeps all that tie: take places, topk.")
def wanda_ties(W_HD, X_ND, keep):
    score, count = W_HD.abs() * X_ND.norm(dim=0), _count(W_HD, keep)
    if count == 0:
        return torch.zeros(score.shape, dtype=torch.bool)
    return score >= score.topk(count, 1).values[:, -1:]


@ex.wanda.slip("These are the smallest scores, and they stay.")
def wanda_smallest(W_HD, X_ND, keep):
    return _rows(-W_HD.abs() * X_ND.norm(dim=0), _count(W_HD, keep))


@ex.wanda.slip("Each column keeps its own share: each row by itself, dim=1.")
def wanda_columns(W_HD, X_ND, keep):
    score = W_HD.abs() * X_ND.norm(dim=0)
    return _rows(score.T, round(keep * len(W_HD))).T


# ---- two_of_four ----


@ex.two_of_four.slip("Half of the row stays, wherever it is: two of each four.")
def half_a_row(score_HD):
    return _rows(score_HD, score_HD.shape[1] // 2)


@ex.two_of_four.slip("The groups are columns here: four neighbours within a row.")
def columns(score_HD):
    H, D = score_HD.shape
    return _rows(score_HD.T.reshape(-1, 4), 2).reshape(D, H).T


@ex.two_of_four.slip(
    "Each group takes every D/4-th score: the four must stand side by side."
)
def strided(score_HD):
    H, D = score_HD.shape
    groups = score_HD.reshape(H, 4, D // 4).transpose(1, 2).reshape(-1, 4)
    return _rows(groups, 2).reshape(H, D // 4, 4).transpose(1, 2).reshape(H, D)


@ex.two_of_four.slip("The size of a score is taken: -2 is not larger than -1.")
def sizes(score_HD):
    return _rows(score_HD.abs().reshape(-1, 4), 2).reshape(score_HD.shape)


@ex.two_of_four.slip("These are the two smallest.")
def smallest(score_HD):
    return _rows(-score_HD.reshape(-1, 4), 2).reshape(score_HD.shape)


@ex.two_of_four.slip("One of four stays here; two should.")
def one_of_four(score_HD):
    return _rows(score_HD.reshape(-1, 4), 1).reshape(score_HD.shape)


@ex.two_of_four.slip("`>=` keeps a third one that ties: take places, topk.")
def three_of_four(score_HD):
    groups = score_HD.reshape(-1, 4)
    return (groups >= groups.topk(2, 1).values[:, 1:]).reshape(score_HD.shape)


@ex.two_of_four.slip(
    "The mask still has a row for each four: give it the shape of score."
)
def groups_left(score_HD):
    return _rows(score_HD.reshape(-1, 4), 2)


# ---- shrink ----


def _pair(W, b, V, c):
    first, second = nn.Linear(W.shape[1], len(W)), nn.Linear(V.shape[1], len(V))
    first.weight.data, second.weight.data = W, V
    if b is not None:
        first.bias.data = b
    if c is not None:
        second.bias.data = c
    return first, second


def _parts(before, after, u):
    d = [before.weight.data, before.bias.data, after.weight.data, after.bias.data]
    return d[0][u], d[1][u], d[2][:, u], d[3].clone()


@ex.shrink.slip(
    "The next layer still reads every unit: keep its columns, [:, units_K]."
)
def columns_forgotten(before, after, units_K):
    W, b, _, c = _parts(before, after, units_K)
    return _pair(W, b, after.weight.data.clone(), c)


@ex.shrink.slip("The first layer's bias still has a number for every unit.")
def long_bias(before, after, units_K):
    W, _, V, c = _parts(before, after, units_K)
    return _pair(W, before.bias.data.clone(), V, c)


@ex.shrink.slip("The first layer's bias is a new random one: copy bias[units_K].")
def random_bias(before, after, units_K):
    W, _, V, c = _parts(before, after, units_K)
    return _pair(W, None, V, c)


@ex.shrink.slip("The second layer's bias is missing: outputs do not go away.")
def no_last_bias(before, after, units_K):
    W, b, V, c = _parts(before, after, units_K)
    return _pair(W, b, V, torch.zeros_like(c))


@ex.shrink.slip("The units are sorted: keep the order of units_K.")
def in_order(before, after, units_K):
    return _pair(*_parts(before, after, units_K.sort().values))


@ex.shrink.slip("The units in units_K go, instead of staying.")
def removes_them(before, after, units_K):
    stay = [u for u in range(before.out_features) if u not in units_K.tolist()]
    return _pair(*_parts(before, after, stay))


@ex.shrink.slip("The given layers are cut themselves: make new ones.")
def cuts_in_place(before, after, units_K):
    W, b, V, c = _parts(before, after, units_K)
    before.weight.data, before.bias.data, after.weight.data = W, b, V
    return before, after


@ex.shrink.slip("The new layers share numbers with the old ones: clone the last bias.")
def shares_bias(before, after, units_K):
    W, b, V, _ = _parts(before, after, units_K)
    return _pair(W, b, V, after.bias.data)


@ex.shrink.slip("The units are only silenced: the layers should become smaller.")
def silenced(before, after, units_K):
    stay = torch.zeros(before.out_features, 1)
    stay[units_K] = 1
    return _pair(
        before.weight.data * stay, before.bias.data * stay[:, 0],
        after.weight.data.clone(), after.bias.data.clone(),
    )  # fmt: skip


@ex.shrink.slip(
    "The units are columns of the second matrix: `after.weight[:, units_K]`."
)
def rows_of_after(before, after, units_K):
    W, b, _, c = _parts(before, after, units_K)
    return _pair(W, b, after.weight.data[units_K], c)


# ---- refit ----


def _solve(h, target, damping, ones=True, divide=True, damp_bias=True, share=True):
    N = len(h)
    A = torch.cat([h, torch.ones(N, 1, dtype=h.dtype)], 1) if ones else h
    eye = torch.eye(A.shape[1], dtype=h.dtype)
    if not damp_bias:
        eye[-1, -1] = 0
    over = N if divide else 1
    if not share:
        return torch.linalg.solve(A.T @ A + damping * eye, A.T @ target)
    return torch.linalg.solve(A.T @ A / over + damping * eye, A.T @ target / N)


@ex.refit.slip("There is no column of ones, so there is no bias.")
def no_ones(h_NK, target_NH, damping=1e-4):
    S = _solve(h_NK, target_NH, damping, ones=False)
    return S.T, torch.zeros(target_NH.shape[1], dtype=h_NK.dtype)


@ex.refit.slip("Nothing is divided by N: the damping then counts for too little.")
def sums(h_NK, target_NH, damping=1e-4):
    S = _solve(h_NK, target_NH, damping, share=False)
    return S[:-1].T, S[-1]


@ex.refit.slip("Only one side is divided by N.")
def one_side(h_NK, target_NH, damping=1e-4):
    S = _solve(h_NK, target_NH, damping, divide=False)
    return S[:-1].T, S[-1]


@ex.refit.slip("W is the wrong way round: (H, K), as nn.Linear keeps it.")
def not_turned(h_NK, target_NH, damping=1e-4):
    S = _solve(h_NK, target_NH, damping)
    return S[:-1], S[-1]


@ex.refit.slip("The bias is damped here like every weight in I: this leaves it out.")
def free_bias(h_NK, target_NH, damping=1e-4):
    S = _solve(h_NK, target_NH, damping, damp_bias=False)
    return S[:-1].T, S[-1]


@ex.refit.slip("The damping is missing.")
def undamped(h_NK, target_NH, damping=1e-4):
    S = _solve(h_NK, target_NH, 1e-13)
    return S[:-1].T, S[-1]


@ex.refit.slip("The bias is the first row here: ones that stand last give a last row.")
def first_row(h_NK, target_NH, damping=1e-4):
    S = _solve(h_NK, target_NH, damping)
    return S[1:].T, S[0]


@ex.refit.slip(
    "This fits the targets with their mean taken off and puts it back as bias."
)
def mean_as_bias(h_NK, target_NH, damping=1e-4):
    mean_H = target_NH.mean(0)
    S = _solve(h_NK, target_NH - mean_H, damping, ones=False)
    return S.T, mean_H


@ex.refit.slip("W and b come in float64: give back the type of h.")
def doubles(h_NK, target_NH, damping=1e-4):
    S = _solve(h_NK.double(), target_NH.double(), damping)
    return S[:-1].T, S[-1]


@ex.refit.slip("N times too large: divide both sides by N.")
def right_side_not_divided(h_NK, target_NH, damping=1e-4):
    S = _solve(h_NK, target_NH * len(h_NK), damping)
    return S[:-1].T, S[-1]


@ex.refit.slip("The column of ones stands first here: it comes last.")
def ones_first(h_NK, target_NH, damping=1e-4):
    S = _solve(h_NK, target_NH, damping).roll(1, 0)
    return S[:-1].T, S[-1]


# ---- gaps ----


def _zeros(mask):
    places = [-1, *mask.flatten().nonzero().flatten().tolist()]
    return [b - a - 1 for a, b in zip(places, places[1:])]


@ex.gaps.slip("A gap above 254 does not fit into a byte: write 255 and go on.")
def no_escape(mask):
    return _zeros(mask)


@ex.gaps.slip("A 255 stands for 255 zeros; here it stands for 254 and eats one.")
def eats_one(mask):
    found = []
    for zeros in _zeros(mask):
        while zeros >= 255:
            found.append(255)
            zeros -= 256
        found.append(max(zeros, 0))
    return found


@ex.gaps.slip(
    "255 is the escape, and a number below 255 must follow: a gap of 255 is 255, 0."
)
def over_255(mask):
    found = []
    for zeros in _zeros(mask):
        while zeros > 255:
            found.append(255)
            zeros -= 255
        found.append(zeros)
    return found


@ex.gaps.slip("These are the steps from survivor to survivor: one more than the zeros.")
def steps(mask):
    return [zeros + 1 for zeros in _zeros(mask)]


@ex.gaps.slip("These are the places, not the zeros between them.")
def places(mask):
    return mask.flatten().nonzero().flatten().tolist()


@ex.gaps.slip("It reads column by column: go row by row.")
def by_columns(mask):
    return coding.gaps(mask.T) if mask.ndim == 2 else coding.gaps(mask)


@ex.gaps.slip("The zeros after the last survivor are written, too: nobody needs them.")
def writes_the_end(mask):
    last = int((~mask.flatten()).flip(0).long().cumprod(0).sum())
    end = [255] * (last // 255) + [last % 255]
    return coding.gaps(mask) + (end if last else [])


@ex.gaps.slip(
    "A 255 is written before a survivor is in sight: none follows at the end."
)
def escapes_at_the_end(mask):
    zeros = int((~mask.flatten()).flip(0).long().cumprod(0).sum())
    return coding.gaps(mask) + [255] * (zeros // 255)


@ex.gaps.slip("The first zeros are missing: the gap before the first survivor counts.")
def first_forgotten(mask):
    flat = mask.flatten()
    first = int(flat.long().argmax()) if flat.any() else 0
    return coding.gaps(flat[first:])


@ex.gaps.slip("Each row begins anew here: gaps run on from row to row.")
def row_by_row(mask):
    rows = mask if mask.ndim == 2 else mask[None]
    return [gap for row in rows for gap in coding.gaps(row)]


@ex.gaps.slip(
    "The count starts at place -1: with last = 0 the first gap is one too small."
)
def starts_at_0(mask):
    found, last = [], 0
    for place in mask.flatten().nonzero().flatten().tolist():
        zeros = place - last - 1
        found += [255] * (zeros // 255) + [zeros % 255]
        last = place
    return found


# ---- Decoder ----


class _Decoder(coding.Decoder):
    "The right one in pieces, for slips to spoil."

    def part(self, context):
        return (self.width >> 12) * coding.chance(*self.seen[context])

    def is_one(self, part):
        return self.code >= part

    def take(self, bit, part):
        if bit:
            self.code, self.width = self.code - part, self.width - part
        else:
            self.width = part

    def refill(self):
        while 0 < self.width < coding.LEAST:
            self.code = self.code << 8 | next(self.blob, 0)
            self.width <<= 8

    def bit(self, context=None):
        part = self.part(context)
        bit = int(self.is_one(part))
        self.take(bit, part)
        self.seen[context][bit] += 1
        self.refill()
        return bit


@ex.Decoder.slip("The bits are the wrong way round: the part at the bottom is a 0.")
class Swapped(_Decoder):
    def bit(self, context=None):
        return 1 - super().bit(context)


@ex.Decoder.slip("Where the code is exactly `part`, the bit is a 1: >=, not >.")
class Above(_Decoder):
    def is_one(self, part):
        return self.code > part


@ex.Decoder.slip("Nothing is counted: the encoder's chances change with every bit.")
class NeverCounts(_Decoder):
    def part(self, context):
        return (self.width >> 12) * 2048


@ex.Decoder.slip("It is counted before the part is computed: the encoder counts after.")
class CountsFirst(_Decoder):
    def part(self, context):
        zeros, ones = self.seen[context]
        guess = int(self.code >= super().part(context))
        return (self.width >> 12) * coding.chance(zeros + 1 - guess, ones + guess)


@ex.Decoder.slip("A 1 takes `part` off the code as well as off the width.")
class KeepsCode(_Decoder):
    def take(self, bit, part):
        self.width = self.width - part if bit else part


@ex.Decoder.slip("After a 1 the width is what lies above `part`: width - part.")
class SameWidth(_Decoder):
    def take(self, bit, part):
        self.code, self.width = self.code - part * bit, part


@ex.Decoder.slip("No more bytes are read: while the width is below 2**24, shift both.")
class NeverRefills(_Decoder):
    def refill(self):
        pass


@ex.Decoder.slip("The width grows, but no byte comes into the code.")
class ShiftsWidth(_Decoder):
    def refill(self):
        while 0 < self.width < coding.LEAST:
            self.code, self.width = self.code << 8, self.width << 8


@ex.Decoder.slip("All contexts share one count here: self.seen[context].")
class OneContext(_Decoder):
    def bit(self, context=None):
        return super().bit(None)


@ex.Decoder.slip("The counts are of the other bit: counts[bit] += 1.")
class CountsOther(_Decoder):
    def bit(self, context=None):
        part = self.part(context)
        bit = int(self.is_one(part))
        self.take(bit, part)
        self.seen[context][1 - bit] += 1
        self.refill()
        return bit


@ex.Decoder.slip("One byte is read at most; a narrow bit may need two: while, not if.")
class OneByte(_Decoder):
    def refill(self):
        if 0 < self.width < coding.LEAST:
            self.code = self.code << 8 | next(self.blob, 0)
            self.width <<= 8
