"""Chapter 10: small wrong programs, and the sentence that names each."""

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils.built import language
from utils.built import scaling as right
from utils.checks import scaling as ex

# ---- corrupt ----


@ex.corrupt.slip("Every chosen place shows the mask: `fate` is not used.")
def always_mask(ids, chosen, fate, random, mask_id):
    return ids.masked_fill(chosen, mask_id), ids.masked_fill(~chosen, -100)


@ex.corrupt.slip(
    "The targets are what the model sees: it is asked to repeat the mask. Take them from "
    "the old tokens."
)
def targets_of_inputs(ids, chosen, fate, random, mask_id):
    inputs, _ = right.corrupt(ids, chosen, fate, random, mask_id)
    return inputs, inputs.masked_fill(~chosen, -100)


@ex.corrupt.slip("Every token is asked here: those not chosen have the target -100.")
def asks_all(ids, chosen, fate, random, mask_id):
    return right.corrupt(ids, chosen, fate, random, mask_id)[0], ids.clone()


@ex.corrupt.slip("Places that are not chosen are changed, too: `chosen` comes first.")
def changes_all(ids, chosen, fate, random, mask_id):
    inputs, _ = right.corrupt(ids, torch.ones_like(chosen), fate, random, mask_id)
    return inputs, ids.masked_fill(~chosen, -100)


@ex.corrupt.slip(
    "A chosen token that shows itself or a random one is asked all the same: the targets "
    "know nothing of `fate`."
)
def asks_masked_only(ids, chosen, fate, random, mask_id):
    inputs, _ = right.corrupt(ids, chosen, fate, random, mask_id)
    return inputs, ids.masked_fill(~(chosen & (fate < 0.8)), -100)


@ex.corrupt.slip("Mask and random token have changed places.")
def mask_and_random_swapped(ids, chosen, fate, random, mask_id):
    shown = torch.where(fate < 0.8, random, ids)
    shown = torch.where((fate >= 0.8) & (fate < 0.9), mask_id, shown)
    return torch.where(chosen, shown, ids), ids.masked_fill(~chosen, -100)


@ex.corrupt.slip("From 0.9 on the token stays; here it never does.")
def never_itself(ids, chosen, fate, random, mask_id):
    shown = random.masked_fill(fate < 0.8, mask_id)
    return torch.where(chosen, shown, ids), ids.masked_fill(~chosen, -100)


@ex.corrupt.slip(
    "A fate of exactly 0.8 or 0.9 belongs to the next part: below, not up to."
)
def closed_bounds(ids, chosen, fate, random, mask_id):
    shown = torch.where(fate <= 0.9, random, ids).masked_fill(fate <= 0.8, mask_id)
    return torch.where(chosen, shown, ids), ids.masked_fill(~chosen, -100)


@ex.corrupt.slip("The target of a place that is not asked is -100; 0 is a token.")
def zero_for_silence(ids, chosen, fate, random, mask_id):
    inputs, _ = right.corrupt(ids, chosen, fate, random, mask_id)
    return inputs, ids.masked_fill(~chosen, 0)


# ---- training_flops ----


def _weights(model):
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))


@ex.training_flops.slip(
    "All parameters are counted: a bias only adds, and an embedding is a look-up."
)
def all_parameters(model, tokens):
    return 6 * tokens * sum(p.numel() for p in model.parameters())


@ex.training_flops.slip("2 per weight is the forward pass alone.")
def forward_only(model, tokens):
    return 2 * tokens * _weights(model)


@ex.training_flops.slip(
    "Going back costs twice the forward pass: slopes for the weights, and for what came in."
)
def backward_is_forward(model, tokens):
    return 4 * tokens * _weights(model)


@ex.training_flops.slip(
    "A weight multiplies *and* adds: 6 per weight and token, not 3."
)
def products_only(model, tokens):
    return 3 * tokens * _weights(model)


@ex.training_flops.slip("Every token pays: times `tokens`.")
def for_one_token(model, tokens):
    return 6 * _weights(model)


@ex.training_flops.slip(
    "Only the outermost layers are counted: children() goes one level deep, modules() all."
)
def children_only(model, tokens):
    layers = [model, *model.children()]
    weights = sum(m.weight.numel() for m in layers if isinstance(m, nn.Linear))
    return 6 * tokens * weights


@ex.training_flops.slip(
    "An embedding is a matrix, but a look-up: it multiplies nothing."
)
def embedding_counted(model, tokens):
    return 6 * tokens * sum(p.numel() for p in model.parameters() if p.ndim == 2)


# ---- fit_line ----


@ex.fit_line.slip("This is the slope; losses fall, so alpha is minus the slope.")
def slope_not_alpha(N, L):
    A, alpha = right.fit_line(N, L)
    return A, -alpha


@ex.fit_line.slip("The start of the line is log A: undo the logarithm.")
def log_of_a(N, L):
    A, alpha = right.fit_line(N, L)
    return np.log(A), alpha


@ex.fit_line.slip("A comes first, then alpha.")
def line_swapped(N, L):
    A, alpha = right.fit_line(N, L)
    return alpha, A


@ex.fit_line.slip("The line is through L, not through log L.")
def half_logarithmic(N, L):
    slope, start = np.polyfit(np.log(N), L, 1)
    return np.exp(start), -slope


@ex.fit_line.slip("The line is over N, not over log N.")
def over_plain_sizes(N, L):
    slope, start = np.polyfit(N, np.log(L), 1)
    return np.exp(start), -slope


@ex.fit_line.slip("Logarithms to base 10 are undone by 10**, not by exp.")
def mixed_bases(N, L):
    slope, start = np.polyfit(np.log10(N), np.log10(L), 1)
    return np.exp(start), -slope


@ex.fit_line.slip("Only the first and the last run are used: fit all.")
def two_runs(N, L):
    alpha = -np.log(L[-1] / L[0]) / np.log(N[-1] / N[0])
    return L[0] * N[0] ** alpha, alpha


# ---- fit_offset ----


def _scan(N, L, floors, miss):
    found = []
    for E in floors:
        A, alpha = right.fit_line(N, L - E)
        found.append((miss(E, A, alpha), E, A, alpha))
    return min(found)[1:]


@ex.fit_offset.slip("The floor is always 0: this is fit_line.")
def no_floor(N, L):
    return (0.0, *right.fit_line(N, L))


@ex.fit_offset.slip(
    "The floor is always just below the lowest loss: try those below, too."
)
def floor_is_the_last_loss(N, L):
    E = np.min(L) - 0.01
    return (E, *right.fit_line(N, L - E))


@ex.fit_offset.slip("This keeps the floor whose curve misses *most*.")
def worst_floor(N, L):
    floors = np.linspace(0, L.min(), 400, endpoint=False)
    return _scan(N, L, floors, lambda E, A, b: -np.square(E + A / N**b - L).sum())


@ex.fit_offset.slip(
    "Misses of log(L - E) are compared: they grow without bound as E comes near the lowest "
    "loss, whatever the curve does. Compare misses of L."
)
def misses_of_logarithms(N, L):
    floors = np.linspace(0, L.min(), 400, endpoint=False)
    return _scan(
        N, L, floors, lambda E, A, b: np.square(np.log(A / N**b) - np.log(L - E)).sum()
    )


@ex.fit_offset.slip(
    "The sum of the misses is compared, and misses of both signs cancel: square them."
)
def misses_cancel(N, L):
    floors = np.linspace(0, L.min(), 400, endpoint=False)
    return _scan(N, L, floors, lambda E, A, b: abs((E + A / N**b - L).sum()))


@ex.fit_offset.slip("A and alpha are those of the line through log L: fit log(L - E).")
def line_of_whole_loss(N, L):
    E = right.fit_offset(N, L)[0]
    return (E, *right.fit_line(N, L))


@ex.fit_offset.slip("The order is E, A, alpha.")
def offset_swapped(N, L):
    E, A, alpha = right.fit_offset(N, L)
    return E, alpha, A


@ex.fit_offset.slip(
    "A dozen floors are too few: the best one lies between two of them."
)
def coarse(N, L):
    floors = np.linspace(0, L.min(), 12, endpoint=False)
    return _scan(N, L, floors, lambda E, A, b: np.square(E + A / N**b - L).sum())


@ex.fit_offset.slip(
    "The last run is taken for the lowest: the runs may come in any order. Use L.min()."
)
def last_is_lowest(N, L):
    floors = np.linspace(0, L[-1], 400, endpoint=False)
    floors = floors[floors < L.min()]
    floors = floors if L[-1] == L.min() else floors / 2
    return _scan(N, L, floors, lambda E, A, b: np.square(E + A / N**b - L).sum())


# ---- isoflop ----


def _vertex(x, y):
    bend, slope, _ = np.polyfit(x, y, 2)
    return -slope / (2 * bend)


@ex.isoflop.slip(
    "This is the size of the lowest run: the bottom lies between the runs."
)
def lowest_run(N, L):
    return N[np.argmin(L)]


@ex.isoflop.slip("The parabola is over N: over log N the runs are spread evenly.")
def parabola_over_n(N, L):
    return _vertex(N, L)


@ex.isoflop.slip("This is the logarithm of the best size: undo it with exp.")
def log_size(N, L):
    return _vertex(np.log(N), L)


@ex.isoflop.slip("Natural logarithms are undone by exp, not by 10**.")
def wrong_base(N, L):
    x = _vertex(np.log(N), L)
    return 10**x if x < 300 else math.inf


@ex.isoflop.slip("The lowest point is at -slope / (2 bend): the 2 is missing.")
def forgets_two(N, L):
    bend, slope, _ = np.polyfit(np.log(N), L, 2)
    return np.exp(-slope / bend)


@ex.isoflop.slip("A bottom beyond the runs is told as if it had been measured: nan.")
def beyond_the_runs(N, L):
    bend, slope, _ = np.polyfit(np.log(N), L, 2)
    return np.exp(-slope / (2 * bend)) if bend > 0 else math.nan


@ex.isoflop.slip("A parabola that opens downwards has no lowest point: nan.")
def upside_down(N, L):
    best = np.exp(_vertex(np.log(N), L))
    return best if N.min() <= best <= N.max() else math.nan


# ---- optimum ----


@ex.optimum.slip(
    "The exponent of C is beta / (alpha + beta): alpha stands in its place."
)
def exponents_swapped(A, alpha, B, beta, C):
    N = (alpha * A / (beta * B)) ** (1 / (alpha + beta)) * (C / 6) ** (
        alpha / (alpha + beta)
    )
    return N, C / (6 * N)


@ex.optimum.slip("The two parts of the loss are made equal; their *slopes* must be.")
def equal_parts(A, alpha, B, beta, C):
    N = (A / B * (C / 6) ** beta) ** (1 / (alpha + beta))
    return N, C / (6 * N)


@ex.optimum.slip("A token costs 6 FLOPs per weight: N D = C / 6.")
def without_six(A, alpha, B, beta, C):
    N = (alpha * A / (beta * B) * C**beta) ** (1 / (alpha + beta))
    return N, C / N


@ex.optimum.slip("This is the root of C / 6 for both, whatever the law says.")
def square_root(A, alpha, B, beta, C):
    N = (C / 6) ** 0.5
    return N, C / (6 * N)


@ex.optimum.slip("N and D have changed places.")
def sizes_swapped(A, alpha, B, beta, C):
    N, D = right.optimum(A, alpha, B, beta, C)
    return D, N


@ex.optimum.slip("alpha A over beta B is upside down.")
def upside_down_ratio(A, alpha, B, beta, C):
    N = (beta * B / (alpha * A) * (C / 6) ** beta) ** (1 / (alpha + beta))
    return N, C / (6 * N)


@ex.optimum.slip(
    "Twenty tokens per weight is a rule of thumb from one law; use this one."
)
def twenty(A, alpha, B, beta, C):
    N = (C / 120) ** 0.5
    return N, 20 * N


# ---- misfit ----


def _told(p, N, D):
    a, b, e, alpha, beta = p
    return e.exp() + a.exp() / N**alpha + b.exp() / D**beta


def _huber(miss, delta=1e-3, reduction="sum"):
    return F.huber_loss(miss, torch.zeros_like(miss), delta=delta, reduction=reduction)


@ex.misfit.slip("The losses themselves are compared: compare their logarithms.")
def without_logarithms(p, N, D, L):
    return _huber(_told(p, N, D) - L)


@ex.misfit.slip(
    "Half the square of every miss: Huber's loss goes on as a straight line."
)
def squares(p, N, D, L):
    return (_told(p, N, D).log() - L.log()).square().sum() / 2


@ex.misfit.slip("This is the plain absolute miss: below 0.001 half the square counts.")
def absolute(p, N, D, L):
    return 1e-3 * (_told(p, N, D).log() - L.log()).abs().sum()


@ex.misfit.slip("The misfits are averaged; sum them.")
def averaged(p, N, D, L):
    return _huber(_told(p, N, D).log() - L.log(), reduction="mean")


@ex.misfit.slip("p holds log A, log B and log E: they are taken for A, B and E here.")
def plain_constants(p, N, D, L):
    a, b, e, alpha, beta = p
    return _huber((e + a / N**alpha + b / D**beta).log() - L.log())


@ex.misfit.slip("N and D have changed places, or alpha and beta.")
def powers_swapped(p, N, D, L):
    return _huber(_told(p, D, N).log() - L.log())


@ex.misfit.slip(
    "The three logarithms are added: this is the log of a product, not of a sum."
)
def log_of_product(p, N, D, L):
    a, b, e, alpha, beta = p
    return _huber(a - alpha * N.log() + b - beta * D.log() + e - L.log())


@ex.misfit.slip("The way back to p is cut: without a slope nothing can be fitted.")
def no_slope(p, N, D, L):
    return right.misfit(p.detach(), N, D, L)


# ---- mup_rates ----


@ex.mup_rates.slip("Every parameter keeps lr: this is the standard way.")
def one_rate(shapes, base_shapes, lr):
    return dict.fromkeys(shapes, lr)


@ex.mup_rates.slip("The ratio is upside down: wider matrices need smaller rates.")
def rates_upside_down(shapes, base_shapes, lr):
    return {
        k: lr * s[1] / base_shapes[k][1] if len(s) == 2 else lr
        for k, s in shapes.items()
    }


@ex.mup_rates.slip(
    "The rate follows what a matrix writes, its first number; what it *reads* counts."
)
def by_fan_out(shapes, base_shapes, lr):
    return {
        k: lr * base_shapes[k][0] / s[0] if len(s) == 2 else lr
        for k, s in shapes.items()
    }


@ex.mup_rates.slip("Vectors are scaled, too: a bias keeps lr at every width.")
def biases_too(shapes, base_shapes, lr):
    return {k: lr * base_shapes[k][-1] / s[-1] for k, s in shapes.items()}


@ex.mup_rates.slip(
    "The root is for plain SGD-like steps of a random sum; Adam's steps all have one sign "
    "pattern and add up: base_in / in, without a root."
)
def root(shapes, base_shapes, lr):
    return {
        k: lr * (base_shapes[k][1] / s[1]) ** 0.5 if len(s) == 2 else lr
        for k, s in shapes.items()
    }


@ex.mup_rates.slip(
    "Divided by the width itself: at the base width the rate must be lr."
)
def by_width_itself(shapes, base_shapes, lr):
    return {k: lr / s[1] if len(s) == 2 else lr for k, s in shapes.items()}


@ex.mup_rates.slip(
    "Never more than lr? A network narrower than the base has larger rates."
)
def never_larger(shapes, base_shapes, lr):
    return {k: min(lr, r) for k, r in right.mup_rates(shapes, base_shapes, lr).items()}


# ---- finetune ----


def _go(tuned, batches, lr, zero=True, optimizer=torch.optim.Adam):
    steps = optimizer(tuned.parameters(), lr)
    for rows in batches:
        if zero:
            steps.zero_grad()
        language.nats(tuned, rows).backward()
        steps.step()
    return tuned


@ex.finetune.slip("The old model itself is trained: deepcopy it first.")
def in_place(model, batches, lr):
    return _go(model, batches, lr)


@ex.finetune.slip(
    "Slopes of earlier batches are still there: zero_grad before backward."
)
def slopes_pile_up(model, batches, lr):
    return _go(copy.deepcopy(model), batches, lr, zero=False)


@ex.finetune.slip("Plain SGD steps: the task asks for Adam.")
def plain_sgd(model, batches, lr):
    return _go(copy.deepcopy(model), batches, lr, optimizer=torch.optim.SGD)


@ex.finetune.slip("Only one batch is used: one step for each.")
def one_batch(model, batches, lr):
    return _go(copy.deepcopy(model), batches[:1], lr)


@ex.finetune.slip("The rate is not `lr`: it was left at Adam's own 0.001.")
def own_rate(model, batches, lr):
    return _go(copy.deepcopy(model), batches, 1e-3)


@ex.finetune.slip("A copy comes back that was never trained.")
def untrained(model, batches, lr):
    return copy.deepcopy(model)


@ex.finetune.slip(
    "A new optimizer for each batch: Adam forgets its moments. Make it once, before the loop."
)
def new_adam_each_time(model, batches, lr):
    tuned = copy.deepcopy(model)
    for rows in batches:
        _go(tuned, [rows], lr)
    return tuned
