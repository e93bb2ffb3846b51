"""Chapter 26's slips: wrong answers that its checks must reject, and their names."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from utils.built.compute import BETA, HIGH, LOW
from utils.built.compute import pareto as front_of
from utils.checks import compute_aware as ex

# ---- macs ----


def _linear(net):
    return [p for p in net.modules() if isinstance(p, nn.Linear)]


@ex.macs.slip("These are the parameters: a bias is added, it is not multiplied.")
def counts_parameters(net):
    return sum(p.numel() for p in net.parameters())


@ex.macs.slip(
    "A multiplication and an addition together are one multiply-add: this is twice that."
)
def counts_flops(net):
    return 2 * sum(p.in_features * p.out_features for p in _linear(net))


@ex.macs.slip(
    "Only the layers directly inside are seen: net.modules() also finds nested ones."
)
def children_only(net):
    return sum(
        p.in_features * p.out_features
        for p in net.children()
        if isinstance(p, nn.Linear)
    )


@ex.macs.slip("Every input meets every output: the two numbers multiply.")
def adds_widths(net):
    return sum(p.in_features + p.out_features for p in _linear(net))


@ex.macs.slip(
    "These are the outputs only: each of them needs one multiply-add per input."
)
def outputs_only(net):
    return sum(p.out_features for p in _linear(net))


@ex.macs.slip(
    "These are all tables of weights: an embedding's is looked up, only nn.Linear counts."
)
def counts_tables(net):
    return sum(p.numel() for p in net.parameters() if p.ndim == 2)


@ex.macs.slip("Only nn.Linear counts: an embedding or a norm has weights, too.")
def counts_weights(net):
    return sum(p.weight.numel() for p in net.modules() if hasattr(p, "weight"))


@ex.macs.slip("One multiply-add is counted too many per output, or is that the bias?")
def bias_counts(net):
    return sum((p.in_features + 1) * p.out_features for p in _linear(net))


# ---- pareto ----


@ex.pareto.slip(
    "Of two points at one cost, the worse one stays: the better one beats it."
)
def keeps_equal_costs(points):
    front = []
    for p in sorted(set(points)):
        if not front or p[1] > front[-1][1]:
            front.append(p)
    return front


@ex.pareto.slip(
    "Of two points with one score, the dearer one stays: the cheaper one beats it."
)
def keeps_equal_scores(points):
    front = []
    for p in sorted(set(points), key=lambda p: (p[0], -p[1])):
        if not front or p[1] >= front[-1][1]:
            front.append(p)
    return front


@ex.pareto.slip("A low score counts as good here: scores are better when higher.")
def low_is_good(points):
    front = []
    for p in sorted(set(points)):
        if not front or p[1] < front[-1][1]:
            front.append(p)
    return front


@ex.pareto.slip("A high cost counts as good here: costs are better when lower.")
def dear_is_good(points):
    front = []
    for p in sorted(set(points), reverse=True):
        if not front or p[1] > front[-1][1]:
            front.append(p)
    return sorted(front)


@ex.pareto.slip("A point that stands twice in the list stands once in the front.")
def twice(points):
    keep = [
        p for p in points
        if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)
    ]  # fmt: skip
    return sorted(keep)


@ex.pareto.slip("The order is the list's: from the cheapest on is asked for.")
def not_sorted(points):
    keep = []
    for p in points:
        if p not in keep and not any(
            q != p and q[0] <= p[0] and q[1] >= p[1] for q in points
        ):
            keep.append(p)
    return keep


@ex.pareto.slip("Dearest first: from the cheapest on is asked for.")
def dearest_first(points):
    return front_of(points)[::-1]


@ex.pareto.slip("A point leaves only if another is better in both: one is enough.")
def strictly_both(points):
    return sorted(
        p for p in set(points) if not any(q[0] < p[0] and q[1] > p[1] for q in points)
    )


# ---- hypervolume ----


@ex.hypervolume.slip(
    "The points are joined by slopes: between two points no network stands, take steps."
)
def trapezoids(points, corner):
    highest, lowest = corner
    inside = [p for p in front_of(points) if p[0] < highest and p[1] > lowest]
    ends = [*inside, (highest, inside[-1][1])] if inside else []
    return sum((b[0] - a[0]) * ((a[1] + b[1]) / 2 - lowest) for a, b in pairwise(ends))


@ex.hypervolume.slip(
    "The rectangles overlap and are counted twice: each ends where the next one begins."
)
def overlapping(points, corner):
    highest, lowest = corner
    inside = [p for p in front_of(points) if p[0] < highest and p[1] > lowest]
    return sum((highest - cost) * (score - lowest) for cost, score in inside)


@ex.hypervolume.slip(
    "Points outside the corner take part: a dearer or a worse one adds nothing."
)
def outside_too(points, corner):
    highest, lowest = corner
    front = front_of(points)
    ends = [*(cost for cost, _ in front), highest]
    return sum((b - a) * (s - lowest) for a, b, (_, s) in zip(ends, ends[1:], front))


@ex.hypervolume.slip("The last step is missing: it runs on to the corner.")
def last_missing(points, corner):
    highest, lowest = corner
    inside = [p for p in front_of(points) if p[0] < highest and p[1] > lowest]
    return sum((b[0] - a[0]) * (a[1] - lowest) for a, b in pairwise(inside))


@ex.hypervolume.slip(
    "The heights are measured from 0: they begin at the corner's score."
)
def from_zero(points, corner):
    highest, lowest = corner
    inside = [p for p in front_of(points) if p[0] < highest and p[1] > lowest]
    ends = [*(cost for cost, _ in inside), highest]
    return sum((b - a) * s for a, b, (_, s) in zip(ends, ends[1:], inside))


@ex.hypervolume.slip(
    "All points take part as they come: only the front does, cheapest first."
)
def no_front(points, corner):
    highest, lowest = corner
    inside = [p for p in points if p[0] < highest and p[1] > lowest]
    ends = [*(cost for cost, _ in inside), highest]
    return sum((b - a) * (s - lowest) for a, b, (_, s) in zip(ends, ends[1:], inside))


@ex.hypervolume.slip("A beaten point takes part: take the front first.")
def beaten_too(points, corner):
    return no_front(sorted(points), corner)


@ex.hypervolume.slip("A step has the height of its own point, not of the next one.")
def next_height(points, corner):
    highest, lowest = corner
    inside = [p for p in front_of(points) if p[0] < highest and p[1] > lowest]
    ends = [*(cost for cost, _ in inside), highest]
    heights = [*(s for _, s in inside[1:]), inside[-1][1]] if inside else []
    return sum((b - a) * (s - lowest) for a, b, s in zip(ends, ends[1:], heights))


# ---- cheapest ----


@ex.cheapest.slip("The price multiplies the loss: it belongs to the cost.")
def price_on_loss(points, price):
    return min(points, key=lambda p: (price * p[1] + p[0], p[0]))


@ex.cheapest.slip("The bill is taken off the loss: what we pay adds to it.")
def minus(points, price):
    return min(points, key=lambda p: (p[1] - price * p[0], p[0]))


@ex.cheapest.slip(
    "Of two that are equal in total, the first of the list is taken: take the cheaper one."
)
def first_of_equals(points, price):
    return min(points, key=lambda p: p[1] + price * p[0])


@ex.cheapest.slip("This is what it comes to in total: the point itself is asked for.")
def the_sum(points, price):
    return min(p[1] + price * p[0] for p in points)


@ex.cheapest.slip(
    "Of two that are equal in total, the dearer one is taken: take the cheaper one."
)
def dearer_of_equals(points, price):
    return min(points, key=lambda p: (p[1] + price * p[0], -p[0]))


@ex.cheapest.slip("This is the largest sum: the least is asked for.")
def largest(points, price):
    return max(points, key=lambda p: (p[1] + price * p[0], p[0]))


@ex.cheapest.slip("The price is not used: this is the least loss.")
def least_loss(points, price):
    return min(points, key=lambda p: (p[1], p[0]))


# ---- draw_gates ----


def _logit(u):
    return torch.log(u) - torch.log(1 - u)


@ex.draw_gates.slip("Nothing is cut off: a gate below 0 is 0, above 1 it is 1.")
def no_clamp(a_N, u_N):
    return torch.sigmoid((_logit(u_N) + a_N) / BETA) * (HIGH - LOW) + LOW


@ex.draw_gates.slip(
    "Without the stretching past 0 and 1, no gate is ever exactly closed."
)
def no_stretch(a_N, u_N):
    return torch.sigmoid((_logit(u_N) + a_N) / BETA).clamp(0, 1)


@ex.draw_gates.slip(
    "BETA divides noise and a together: here it divides only the noise."
)
def beta_on_noise(a_N, u_N):
    s = torch.sigmoid(_logit(u_N) / BETA + a_N)
    return (s * (HIGH - LOW) + LOW).clamp(0, 1)


@ex.draw_gates.slip("It multiplies by BETA: divide.")
def times_beta(a_N, u_N):
    return (torch.sigmoid((_logit(u_N) + a_N) * BETA) * (HIGH - LOW) + LOW).clamp(0, 1)


@ex.draw_gates.slip(
    "The noise is u itself: it is log u - log(1 - u), from far below 0 to far above."
)
def plain_noise(a_N, u_N):
    return (torch.sigmoid((u_N + a_N) / BETA) * (HIGH - LOW) + LOW).clamp(0, 1)


@ex.draw_gates.slip("BETA is missing: the noise and a are divided by it.")
def no_beta(a_N, u_N):
    return (torch.sigmoid(_logit(u_N) + a_N) * (HIGH - LOW) + LOW).clamp(0, 1)


@ex.draw_gates.slip(
    "The values are right, but the gates are rounded: a gradient needs what lies between."
)
def rounded(a_N, u_N):
    return (
        (torch.sigmoid((_logit(u_N) + a_N) / BETA) * (HIGH - LOW) + LOW)
        .clamp(0, 1)
        .round()
    )


@ex.draw_gates.slip("`a` is detached: no gradient could ever move a gate.")
def detached(a_N, u_N):
    s = torch.sigmoid((_logit(u_N) + a_N.detach()) / BETA)
    return (s * (HIGH - LOW) + LOW).clamp(0, 1)


# ---- expected_macs ----


@ex.expected_macs.slip(
    "Units of one layer meet all units of the next: multiply the sums, not unit by unit."
)
def sum_of_products(chances):
    pairs = [
        (a[..., : b.shape[-1]], b[..., : a.shape[-1]]) for a, b in pairwise(chances)
    ]
    return sum((a * b).sum(-1) for a, b in pairs)


@ex.expected_macs.slip("It adds the units of two layers: they multiply.")
def adds_units(chances):
    return sum(a.sum(-1) + b.sum(-1) for a, b in pairwise(chances))


@ex.expected_macs.slip(
    "These are mean chances: expected units are the sum of the chances."
)
def means(chances):
    return sum(a.mean(-1) * b.mean(-1) for a, b in pairwise(chances))


@ex.expected_macs.slip(
    "Only units that are more likely open than not are counted: this has no gradient, and is not the mean."
)
def rounds(chances):
    units = [(c > 0.5).double().sum(-1) for c in chances]
    return sum(a * b for a, b in pairwise(units))


@ex.expected_macs.slip(
    "Two networks at once are summed together: sum over the last axis only."
)
def all_axes(chances):
    return sum(a.sum() * b.sum() for a, b in pairwise(chances))


@ex.expected_macs.slip(
    "All layers multiply into one product: only neighbours do, and the products add up."
)
def one_product(chances):
    total = 1.0
    for c in chances:
        total = total * c.sum(-1)
    return total


@ex.expected_macs.slip(
    "Closed gates count for nothing, but so do the outputs here: the last pair is missing."
)
def last_pair_missing(chances):
    return sum(
        a.sum(-1) * b.sum(-1) for a, b in pairwise(chances[:-1])
    ) + 0.0 * chances[0].sum(-1)


# ---- harden ----


def _hardened(layers, gates, scaled=True, bias=True, at=0.0):
    kept = [torch.nonzero(z > at)[:, 0] for z in gates]
    rows = [*kept[1:], torch.arange(layers[-1].out_features)]
    parts = []
    for layer, z, ins, outs in zip(layers, gates, kept, rows):
        small = nn.Linear(len(ins), len(outs))
        small.weight.data = layer.weight.data[outs][:, ins] * (z[ins] if scaled else 1)
        small.bias.data = layer.bias.data[outs] if bias else torch.zeros(len(outs))
        parts += [small, nn.ReLU()]
    return kept, parts


@ex.harden.slip(
    "A half open gate still multiplies: its value has to go into the weights."
)
def forgets_values(layers, gates):
    kept, parts = _hardened(layers, gates, scaled=False)
    return kept[0], nn.Sequential(*parts[:-1])


@ex.harden.slip("The biases are lost: a unit that stays keeps its own.")
def forgets_biases(layers, gates):
    kept, parts = _hardened(layers, gates, bias=False)
    return kept[0], nn.Sequential(*parts[:-1])


@ex.harden.slip("There is no ReLU between the layers: what is below 0 goes on.")
def no_relu(layers, gates):
    kept, parts = _hardened(layers, gates)
    return kept[0], nn.Sequential(*parts[::2])


@ex.harden.slip("There is a ReLU after the last layer: logits may be negative.")
def relu_at_the_end(layers, gates):
    kept, parts = _hardened(layers, gates)
    return kept[0], nn.Sequential(*parts)


@ex.harden.slip("Gates below a half are taken as closed: only a gate of exactly 0 is.")
def half_is_closed(layers, gates):
    kept, parts = _hardened(layers, gates, at=0.5)
    return kept[0], nn.Sequential(*parts[:-1])


@ex.harden.slip(
    "The gate multiplies the rows: it stands on the inputs, so it scales columns."
)
def scales_rows(layers, gates):
    kept = [torch.nonzero(z > 0)[:, 0] for z in gates]
    rows = [*kept[1:], torch.arange(layers[-1].out_features)]
    outgoing = [*gates[1:], torch.ones(layers[-1].out_features)]
    parts = []
    for layer, z, ins, outs in zip(layers, outgoing, kept, rows):
        small = nn.Linear(len(ins), len(outs))
        small.weight.data = layer.weight.data[outs][:, ins] * z[outs, None]
        small.bias.data = layer.bias.data[outs]
        parts += [small, nn.ReLU()]
    return kept[0], nn.Sequential(*parts[:-1])


@ex.harden.slip(
    "The numbers are right, but nothing became smaller: zeros are multiplied as before."
)
def masks_only(layers, gates):
    parts = []
    for layer, z in zip(layers, gates):
        same = nn.Linear(layer.in_features, layer.out_features)
        same.weight.data, same.bias.data = layer.weight.data * z, layer.bias.data
        parts += [same, nn.ReLU()]
    return torch.arange(layers[0].in_features), nn.Sequential(*parts[:-1])


@ex.harden.slip("The layers that were given are changed: make new ones.")
def in_place(layers, gates):
    with torch.no_grad():
        for layer, z in zip(layers, gates):
            layer.weight *= z
    kept, parts = _hardened(layers, gates, scaled=False)
    return kept[0], nn.Sequential(*parts[:-1])


@ex.harden.slip("Two things are asked for: the kept inputs, and the network.")
def net_only(layers, gates):
    _, parts = _hardened(layers, gates)
    return nn.Sequential(*parts[:-1])


# ---- choose_threshold ----


def _tries(sure_N, right1_N, right2_N, costs):
    for t in sorted({*sure_N.tolist(), math.inf}):
        stops = sure_N >= t
        cost = costs[0] + costs[1] * (~stops).double().mean().item()
        yield torch.where(stops, right1_N, right2_N).sum().item(), cost, t


@ex.choose_threshold.slip(
    "The budget is not asked: a point that costs more is no choice."
)
def no_budget(sure_N, right1_N, right2_N, costs, budget):
    tries = _tries(sure_N, right1_N, right2_N, costs)
    return max(tries, key=lambda r: (r[0], -r[1]))[2]


@ex.choose_threshold.slip("A bill exactly as high as the budget is within it.")
def below_the_budget(sure_N, right1_N, right2_N, costs, budget):
    tries = [r for r in _tries(sure_N, right1_N, right2_N, costs) if r[1] < budget]
    return max(tries, key=lambda r: (r[0], -r[1]), default=(0, 0, math.inf))[2]


@ex.choose_threshold.slip(
    "Of thresholds with as many right answers, the dearest is taken: take the cheapest."
)
def dearest_of_equals(sure_N, right1_N, right2_N, costs, budget):
    tries = [r for r in _tries(sure_N, right1_N, right2_N, costs) if r[1] <= budget]
    return max(tries, key=lambda r: (r[0], r[1]))[2]


@ex.choose_threshold.slip(
    "It spends the whole budget: asking on can also make answers worse."
)
def spends_all(sure_N, right1_N, right2_N, costs, budget):
    tries = [r for r in _tries(sure_N, right1_N, right2_N, costs) if r[1] <= budget]
    return max(tries, key=lambda r: r[1])[2]


@ex.choose_threshold.slip(
    "Who is asked on pays for both networks: the first one's cost is paid by all."
)
def second_alone(sure_N, right1_N, right2_N, costs, budget):
    best = []
    for t in sorted({*sure_N.tolist(), math.inf}):
        asked = (sure_N < t).double().mean().item()
        cost = costs[0] * (1 - asked) + costs[1] * asked
        right = torch.where(sure_N >= t, right1_N, right2_N).sum().item()
        if cost <= budget:
            best.append((right, -cost, t))
    return max(best)[2]


@ex.choose_threshold.slip(
    "The two networks are exchanged: the sure rows are answered by the first."
)
def exchanged(sure_N, right1_N, right2_N, costs, budget):
    tries = [r for r in _tries(sure_N, right2_N, right1_N, costs) if r[1] <= budget]
    return max(tries, key=lambda r: (r[0], -r[1]))[2]


@ex.choose_threshold.slip(
    "Never stopping is a choice as well: the threshold inf is not tried."
)
def inf_missing(sure_N, right1_N, right2_N, costs, budget):
    tries = [
        r for r in _tries(sure_N, right1_N, right2_N, costs)
        if r[1] <= budget and r[2] < math.inf
    ]  # fmt: skip
    return max(tries, key=lambda r: (r[0], -r[1]))[2]


@ex.choose_threshold.slip("A row stops at sure >= t: where it is equal, it stops, too.")
def above_only(sure_N, right1_N, right2_N, costs, budget):
    best = []
    for t in [-math.inf, *sorted(set(sure_N.tolist()))]:
        stops = sure_N > t
        cost = costs[0] + costs[1] * (~stops).double().mean().item()
        if cost <= budget:
            right = torch.where(stops, right1_N, right2_N).sum().item()
            best.append((right, -cost, t))
    return max(best)[2]


# ---- gate_loss ----


@ex.gate_loss.slip(
    "The toll is paid by those who stop: it belongs to the second network."
)
def toll_on_stop(p_N, loss1_N, loss2_N, toll):
    one, two = loss1_N.detach(), loss2_N.detach()
    return (p_N * (one + toll) + (1 - p_N) * two).mean()


@ex.gate_loss.slip("The toll is missing: who asks on pays it.")
def no_toll(p_N, loss1_N, loss2_N, toll):
    return (p_N * loss1_N.detach() + (1 - p_N) * loss2_N.detach()).mean()


@ex.gate_loss.slip("p is detached: it is the two losses that should be, not p.")
def p_detached(p_N, loss1_N, loss2_N, toll):
    p_N = p_N.detach()
    return (p_N * loss1_N + (1 - p_N) * (loss2_N + toll)).mean()


@ex.gate_loss.slip("p is the chance to stop: here it is the chance to ask on.")
def p_asks(p_N, loss1_N, loss2_N, toll):
    one, two = loss1_N.detach(), loss2_N.detach()
    return ((1 - p_N) * one + p_N * (two + toll)).mean()


@ex.gate_loss.slip(
    "The losses are not detached: the gate's loss would then also train the classifiers."
)
def not_detached(p_N, loss1_N, loss2_N, toll):
    return (p_N * loss1_N + (1 - p_N) * (loss2_N + toll)).mean()


@ex.gate_loss.slip("This is a sum over the rows: the mean is asked for.")
def summed(p_N, loss1_N, loss2_N, toll):
    return (p_N * loss1_N.detach() + (1 - p_N) * (loss2_N.detach() + toll)).sum()


@ex.gate_loss.slip("Everybody pays the toll here: only those who ask on do.")
def all_pay(p_N, loss1_N, loss2_N, toll):
    return (p_N * loss1_N.detach() + (1 - p_N) * loss2_N.detach()).mean() + toll


@ex.gate_loss.slip("p is rounded: the value may be near, but no gradient comes back.")
def rounded_p(p_N, loss1_N, loss2_N, toll):
    return torch.where(p_N > 0.5, loss1_N, loss2_N + toll).mean()


@ex.gate_loss.slip("Only the second loss is detached: the first one must be, too.")
def one_detached(p_N, loss1_N, loss2_N, toll):
    return (p_N * loss1_N + (1 - p_N) * (loss2_N.detach() + toll)).mean()


@ex.gate_loss.slip("Only the first loss is detached: the second one must be, too.")
def other_detached(p_N, loss1_N, loss2_N, toll):
    return (p_N * loss1_N.detach() + (1 - p_N) * (loss2_N + toll)).mean()


# ---- gumbel_pick ----


def _one_hot(noisy):
    return F.one_hot(noisy.argmax(-1), noisy.shape[-1]).to(noisy.dtype)


def _noisy(logits_K, u_K):
    return logits_K - torch.log(-torch.log(u_K))


@ex.gumbel_pick.slip("This is the soft choice: forward it has to be a one-hot.")
def soft_only(logits_K, T, u_K):
    return (_noisy(logits_K, u_K) / T).softmax(-1)


@ex.gumbel_pick.slip(
    "This is the hard choice alone: no gradient comes back through an argmax."
)
def hard_only(logits_K, T, u_K):
    return _one_hot(_noisy(logits_K, u_K))


@ex.gumbel_pick.slip("There is no noise: the same one would be picked for ever.")
def no_noise(logits_K, T, u_K):
    soft = (logits_K / T).softmax(-1)
    return _one_hot(logits_K) - soft.detach() + soft


@ex.gumbel_pick.slip("The noise is u itself: Gumbel noise is -log(-log(u)).")
def uniform_noise(logits_K, T, u_K):
    soft = ((logits_K + u_K) / T).softmax(-1)
    return _one_hot(logits_K + u_K) - soft.detach() + soft


@ex.gumbel_pick.slip("The noise has the wrong sign: it is minus the log of -log(u).")
def wrong_sign(logits_K, T, u_K):
    noisy = logits_K + torch.log(-torch.log(u_K))
    soft = (noisy / T).softmax(-1)
    return _one_hot(noisy) - soft.detach() + soft


@ex.gumbel_pick.slip("There is one log too few: Gumbel noise is -log(-log(u)).")
def one_log(logits_K, T, u_K):
    noisy = logits_K - torch.log(u_K)
    soft = (noisy / T).softmax(-1)
    return _one_hot(noisy) - soft.detach() + soft


@ex.gumbel_pick.slip("There is noise of its own: the same u should give the same pick.")
def own_noise(logits_K, T, u_K):
    return F.gumbel_softmax(logits_K, T, hard=True)


@ex.gumbel_pick.slip("T is not used: it divides logits and noise.")
def no_temperature(logits_K, T, u_K):
    soft = _noisy(logits_K, u_K).softmax(-1)
    return _one_hot(_noisy(logits_K, u_K)) - soft.detach() + soft


@ex.gumbel_pick.slip("T multiplies: it divides logits and noise.")
def times_temperature(logits_K, T, u_K):
    soft = (_noisy(logits_K, u_K) * T).softmax(-1)
    return _one_hot(_noisy(logits_K, u_K)) - soft.detach() + soft


@ex.gumbel_pick.slip(
    "T divides the logits only, not the noise: then it changes how often each is picked."
)
def temperature_on_logits(logits_K, T, u_K):
    noisy = logits_K / T - torch.log(-torch.log(u_K))
    soft = noisy.softmax(-1)
    return _one_hot(noisy) - soft.detach() + soft


@ex.gumbel_pick.slip(
    "The choice runs along the first axis: the last one holds the choices."
)
def first_axis(logits_K, T, u_K):
    noisy = _noisy(logits_K, u_K)
    soft = (noisy / T).softmax(0)
    hard = F.one_hot(noisy.argmax(0), noisy.shape[0]).to(soft.dtype)
    hard = hard.T if hard.ndim == 2 else hard
    return hard - soft.detach() + soft if hard.shape == soft.shape else soft
