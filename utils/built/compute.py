"""What chapter 26 builds: multiply-adds counted, priced, and saved where they can be.

Costs are multiply-adds (MACs) per row. Gates after Louizos, Welling and Kingma (2018),
hypervolume after Zitzler and Thiele (1998), Gumbel-softmax after Jang, Gu and Poole (2017).
What trains five folds at a time lies in fivefold.py.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from utils import given

BETA, LOW, HIGH = 2 / 3, -0.1, 1.1  # of the gates: temperature, and the stretched ends

# ---- points: (cost, score) ----


def macs(net):
    "Multiply-adds per row of all linear layers in `net`."
    if not isinstance(net, nn.Module):
        raise TypeError(f"net is a torch.nn.Module, not {given.kind(net)}")
    linear = [part for part in net.modules() if isinstance(part, nn.Linear)]
    return sum(part.in_features * part.out_features for part in linear)


def _points(points):
    try:
        points = [(cost, score) for cost, score in points]
    except (TypeError, ValueError):
        raise ValueError("points are pairs (cost, score)") from None
    if not all(math.isfinite(value) for p in points for value in p):
        raise ValueError("points are finite numbers (cost, score)")
    return points


def pareto(points):
    "The (cost, score) that no other point beats, each once, cheapest first."
    front = []
    for cost, score in sorted(set(_points(points)), key=lambda p: (p[0], -p[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def hypervolume(points, corner):
    "The area between the front of (cost, score) and corner: (highest cost, lowest score)."
    if not isinstance(corner, (tuple, list)) or len(corner) != 2:
        raise ValueError(f"corner is a pair (cost, score), not {corner!r:.60}")
    highest, lowest = corner
    inside = [p for p in pareto(points) if p[0] < highest and p[1] > lowest]
    ends = [*(cost for cost, _ in inside), highest]
    widths = [right - left for left, right in pairwise(ends)]
    return sum(w * (score - lowest) for w, (_, score) in zip(widths, inside))


def cheapest(points, price):
    "The (cost, loss) with the least loss + price * cost; of equals, the cheaper one."
    points = _points(points)
    if not points:
        raise ValueError("there is no point to choose from")
    given.number("price", price)
    return min(points, key=lambda p: (p[1] + price * p[0], p[0]))


# ---- gates ----


def _uniform(**named):
    "Refuse what is no tensor, and uniform numbers (the last) whose logarithm is infinite."
    for name, value in named.items():
        given.tensor(name, value)
    if len({tuple(value.shape) for value in named.values()}) > 1:
        shapes = " and ".join(str(tuple(value.shape)) for value in named.values())
        raise ValueError(f"{' and '.join(named)} have one shape, not {shapes}")
    if not ((value > 0) & (value < 1)).all():
        raise ValueError(f"{name} lies between 0 and 1, without both ends")


def _rows(*arrays):
    if len({len(array) for array in arrays}) > 1:
        sizes = ", ".join(str(len(array)) for array in arrays)
        raise ValueError(f"all have as many rows, not {sizes}")


def draw_gates(a_N, u_N):
    "Hard-concrete gates (N,) in [0, 1] from parameters a and uniform numbers u."
    _uniform(a_N=a_N, u_N=u_N)
    s_N = torch.sigmoid((torch.log(u_N) - torch.log(1 - u_N) + a_N) / BETA)
    return (s_N * (HIGH - LOW) + LOW).clamp(0, 1)


def chance_open(a_N):
    "The chance that a gate drawn with `a` is above 0."
    return torch.sigmoid(a_N - BETA * math.log(-LOW / HIGH))


def still_gates(a_N):
    "The gates (N,) that are used after training: without chance."
    return (torch.sigmoid(a_N) * (HIGH - LOW) + LOW).clamp(0, 1)


def expected_macs(chances):
    "Mean multiply-adds of a chain whose layer i keeps its units with chances[i] (..., N)."
    if len(chances) < 2:
        raise ValueError("a chain has two layers of units or more")
    units = [chance_N.sum(-1) for chance_N in chances]
    return sum(a * b for a, b in pairwise(units))


def harden(layers, gates):
    """Linear layers with gates on their inputs -> (kept inputs, a smaller network).

    gates[i] (N,) multiplies what goes into layers[i]; ReLU stands between the layers.
    """
    if len(layers) != len(gates):
        raise ValueError(f"{len(layers)} layers and {len(gates)} gates: one for each")
    for i, (layer, z_N) in enumerate(zip(layers, gates)):
        if len(z_N) != layer.in_features:
            raise ValueError(
                f"gates[{i}] has {len(z_N)} numbers, layers[{i}] has {layer.in_features} inputs"
            )
        if not (z_N > 0).any():
            raise ValueError(f"gates[{i}] are all closed: nothing would be left")
    kept = [torch.nonzero(z_N > 0)[:, 0] for z_N in gates]
    rows = [*kept[1:], torch.arange(layers[-1].out_features)]
    parts = []
    for layer, z_N, ins, outs in zip(layers, gates, kept, rows):
        small = nn.Linear(len(ins), len(outs))
        small.weight.data = layer.weight.data[outs][:, ins] * z_N[ins]
        small.bias.data = layer.bias.data[outs].clone()
        parts += [small, nn.ReLU()]
    return kept[0], nn.Sequential(*parts[:-1])


# ---- who decides early ----


def choose_threshold(sure_N, right1_N, right2_N, costs, budget):
    """The threshold with the most right answers within a budget of mean multiply-adds.

    A row stops at the first network where sure >= threshold; costs: of the first, and
    of the second. Candidates: the values of `sure`, and inf. Of equals, the cheapest.
    ValueError where not even stopping always is within the budget.
    """
    _rows(sure_N, right1_N, right2_N)
    if not isinstance(costs, (tuple, list)) or len(costs) != 2:
        raise ValueError(
            f"costs is a pair: of the first, of the second, not {costs!r:.60}"
        )
    first, second = costs
    best = None
    for t in sorted({*sure_N.tolist(), math.inf}):
        stops_N = sure_N >= t
        cost = first + second * (~stops_N).double().mean().item()
        right = torch.where(stops_N, right1_N, right2_N).sum().item()
        if cost <= budget and (best is None or right > best[0]):
            best = right, t
    if best is None:
        raise ValueError(f"the first network alone costs {first}, more than {budget}")
    return best[1]


def gate_loss(p_N, loss1_N, loss2_N, toll):
    "Mean of p * loss1 + (1 - p) * (loss2 + toll); only p learns."
    _rows(p_N, loss1_N, loss2_N)
    loss1_N, loss2_N = loss1_N.detach(), loss2_N.detach()
    return (p_N * loss1_N + (1 - p_N) * (loss2_N + toll)).mean()


# ---- who chooses widths ----


def gumbel_pick(logits_K, T, u_K):
    "One choice as a one-hot (K,): hard forward, the soft choice's gradient backward."
    given.number("T", T, above=0)
    _uniform(logits_K=logits_K, u_K=u_K)
    noisy_K = logits_K - torch.log(-torch.log(u_K))
    soft_K = (noisy_K / T).softmax(-1)
    hard_K = F.one_hot(noisy_K.argmax(-1), noisy_K.shape[-1]).to(soft_K.dtype)
    return hard_K - soft_K.detach() + soft_K
