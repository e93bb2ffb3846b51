"""Chapter 25's slips: wrong answers that its checks must reject, and their names."""

import copy
import random

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vmap

from utils.built import continual, distill, lora
from utils.checks import distillation as ex

# ---- soften ----


@ex.soften.slip("The logits are multiplied by T: a high temperature divides.")
def times_T(logits_NC, T):
    return (logits_NC * T).softmax(1)


@ex.soften.slip("The probabilities are divided by T: divide the logits, then softmax.")
def divides_after(logits_NC, T):
    return logits_NC.softmax(1) / T


@ex.soften.slip("The softmax runs over the rows here: each row sums to 1 by itself.")
def over_rows(logits_NC, T):
    return (logits_NC / T).softmax(0)


@ex.soften.slip("T is not used.")
def no_T(logits_NC, T):
    return logits_NC.softmax(1)


@ex.soften.slip("These are logarithms: softmax, not log_softmax.")
def logarithms(logits_NC, T):
    return (logits_NC / T).log_softmax(1)


@ex.soften.slip("exp overflows for large logits: take off the largest, or use softmax.")
def overflows(logits_NC, T):
    e = (logits_NC / T).exp()
    return e / e.sum(1, keepdim=True)


@ex.soften.slip(
    "T is applied after the softmax: small probabilities have already become 0."
)
def power_after(logits_NC, T):
    p = logits_NC.softmax(1) ** (1 / T)
    return p / p.sum(1, keepdim=True)


@ex.soften.slip("A softmax of a softmax: the temperature divides the logits.")
def twice(logits_NC, T):
    return (logits_NC.softmax(1) / T).softmax(1)


# ---- kd_loss ----


def _kd(s, t, y, T, share, by=None, turn=False, square=True, hard_T=1, keep=False):
    t = t if keep else t.detach()
    p, q = (s / T).softmax(1), (t / T).softmax(1)
    log_q, p = ((t / T).log_softmax(1), p) if turn else ((s / T).log_softmax(1), q)
    kl = torch.xlogy(p, p) - p * log_q
    kl = kl.sum(1).mean() if by is None else by(kl)
    hard = F.cross_entropy(s / hard_T, y)
    return share * (T**2 if square else 1) * kl + (1 - share) * hard


@ex.kd_loss.slip("T**2 is missing: the soft part's gradient shrinks with 1 / T**2.")
def no_square(student_NC, teacher_NC, y_N, T, share):
    return _kd(student_NC, teacher_NC, y_N, T, share, square=False)


@ex.kd_loss.slip("The factor is T here: the gradient shrinks with its square.")
def only_T(student_NC, teacher_NC, y_N, T, share):
    return _kd(
        student_NC, teacher_NC, y_N, T, share, by=lambda kl: kl.sum(1).mean() / T
    )


@ex.kd_loss.slip(
    "The mean runs over the classes, too: sum over them, mean over the rows only."
)
def mean_of_all(student_NC, teacher_NC, y_N, T, share):
    return _kd(student_NC, teacher_NC, y_N, T, share, by=lambda kl: kl.mean())


@ex.kd_loss.slip("The rows are summed: a mean over the rows is asked for.")
def sum_of_all(student_NC, teacher_NC, y_N, T, share):
    return _kd(student_NC, teacher_NC, y_N, T, share, by=lambda kl: kl.sum())


@ex.kd_loss.slip("KL the wrong way round: the teacher's probabilities are the weights.")
def turned(student_NC, teacher_NC, y_N, T, share):
    return _kd(student_NC, teacher_NC, y_N, T, share, turn=True)


@ex.kd_loss.slip("The gradient flows into the teacher: detach its logits.")
def teaches_teacher(student_NC, teacher_NC, y_N, T, share):
    return _kd(student_NC, teacher_NC, y_N, T, share, keep=True)


@ex.kd_loss.slip("The share is on the wrong part: share is the teacher's.")
def share_turned(student_NC, teacher_NC, y_N, T, share):
    return _kd(student_NC, teacher_NC, y_N, T, 1 - share)


@ex.kd_loss.slip("The cross-entropy with the labels is taken at T = 1.")
def soft_labels_too(student_NC, teacher_NC, y_N, T, share):
    return _kd(student_NC, teacher_NC, y_N, T, share, hard_T=T)


@ex.kd_loss.slip("The student is not softened: both are, by the same T.")
def sharp_student(student_NC, teacher_NC, y_N, T, share):
    p = (teacher_NC.detach() / T).softmax(1)
    kl = F.kl_div(student_NC.log_softmax(1), p, reduction="batchmean")
    return share * T**2 * kl + (1 - share) * F.cross_entropy(student_NC, y_N)


@ex.kd_loss.slip("The teacher is not softened: both are, by the same T.")
def sharp_teacher(student_NC, teacher_NC, y_N, T, share):
    p = teacher_NC.detach().softmax(1)
    kl = F.kl_div((student_NC / T).log_softmax(1), p, reduction="batchmean")
    return share * T**2 * kl + (1 - share) * F.cross_entropy(student_NC, y_N)


@ex.kd_loss.slip(
    "This is the soft cross-entropy: KL takes off the teacher's own entropy."
)
def soft_entropy(student_NC, teacher_NC, y_N, T, share):
    p = (teacher_NC.detach() / T).softmax(1)
    soft = -(p * (student_NC / T).log_softmax(1)).sum(1).mean()
    return share * T**2 * soft + (1 - share) * F.cross_entropy(student_NC, y_N)


@ex.kd_loss.slip("T**2 belongs to the soft part only, not to the labels' part.")
def squares_both(student_NC, teacher_NC, y_N, T, share):
    return T**2 * _kd(student_NC, teacher_NC, y_N, T, share, square=False)


@ex.kd_loss.slip("F.kl_div takes the student's logarithms first: these are plain.")
def not_logarithms(student_NC, teacher_NC, y_N, T, share):
    p, q = (teacher_NC.detach() / T).softmax(1), (student_NC / T).softmax(1)
    kl = F.kl_div(q, p, reduction="batchmean")
    return share * T**2 * kl + (1 - share) * F.cross_entropy(student_NC, y_N)


@ex.kd_loss.slip(
    "p.log() is -inf where the teacher is sure: log_softmax, or F.kl_div with p."
)
def log_of_zero(student_NC, teacher_NC, y_N, T, share):
    p = (teacher_NC.detach() / T).softmax(1)
    kl = (p * (p.log() - (student_NC / T).log_softmax(1))).sum(1).mean()
    return share * T**2 * kl + (1 - share) * F.cross_entropy(student_NC, y_N)


@ex.kd_loss.slip(
    "The logarithm of the student's softmax is -inf where it is 0: log_softmax."
)
def log_of_student_zero(student_NC, teacher_NC, y_N, T, share):
    p = (teacher_NC.detach() / T).softmax(1)
    log_q = (student_NC / T).softmax(1).log()
    kl = F.kl_div(log_q, p, reduction="batchmean")
    return share * T**2 * kl + (1 - share) * F.cross_entropy(student_NC, y_N)


@ex.kd_loss.slip(
    "A small number is added inside the student's logarithm: log_softmax is exact."
)
def log_of_more(student_NC, teacher_NC, y_N, T, share):
    p = (teacher_NC.detach() / T).softmax(1)
    log_q = ((student_NC / T).softmax(1) + 1e-8).log()
    kl = F.kl_div(log_q, p, reduction="batchmean")
    return share * T**2 * kl + (1 - share) * F.cross_entropy(student_NC, y_N)


# ---- out_of_fold ----


def _folds(learn, X, y, folds, which, seen=None):
    fold = torch.arange(len(y)) % folds if which is None else which
    parts, places = [], []
    for k in range(folds):
        test = fold == k
        train = ~test if seen is None else seen(test)
        model = learn(X[train], y[train])
        parts.append(model(X[test]))
        places.append(test.nonzero()[:, 0])
    return torch.cat(parts), torch.cat(places)


@ex.out_of_fold.slip(
    "Every model has learnt from all rows, also from those that it judges."
)
def sees_all(learn, X_ND, y_N, folds):
    z, place = _folds(learn, X_ND, y_N, folds, None, lambda t: torch.ones_like(t))
    return z[place.argsort()]


@ex.out_of_fold.slip(
    "Each model learns from the fold that it judges, and from nothing else."
)
def learns_the_fold(learn, X_ND, y_N, folds):
    z, place = _folds(learn, X_ND, y_N, folds, None, lambda t: t)
    return z[place.argsort()]


@ex.out_of_fold.slip("The answers stand fold after fold: put each at its row's place.")
def out_of_order(learn, X_ND, y_N, folds):
    return _folds(learn, X_ND, y_N, folds, None)[0]


@ex.out_of_fold.slip("These folds are blocks: row i belongs to fold i % folds.")
def blocks(learn, X_ND, y_N, folds):
    fold = torch.arange(len(y_N)) * folds // len(y_N)
    z, place = _folds(learn, X_ND, y_N, folds, fold)
    return z[place.argsort()]


@ex.out_of_fold.slip("One model for all: each fold needs its own.")
def one_model(learn, X_ND, y_N, folds):
    return learn(X_ND, y_N)(X_ND)


@ex.out_of_fold.slip("The last fold is forgotten.")
def last_forgotten(learn, X_ND, y_N, folds):
    z = distill.out_of_fold(learn, X_ND, y_N, folds).clone()
    z[torch.arange(len(y_N)) % folds == folds - 1] = 0
    return z


@ex.out_of_fold.slip("A model for every row: one for each fold is enough.")
def leave_one_out(learn, X_ND, y_N, folds):
    rows = []
    for i in range(len(y_N)):
        keep = torch.arange(len(y_N)) % folds != i % folds
        rows.append(learn(X_ND[keep], y_N[keep])(X_ND[i : i + 1])[0])
    return torch.stack(rows)


@ex.out_of_fold.slip("These are probabilities: the model's logits, as they come.")
def softmaxed(learn, X_ND, y_N, folds):
    return distill.out_of_fold(learn, X_ND, y_N, folds).softmax(1)


@ex.out_of_fold.slip("These are the answers: the logits are asked for, (N, C).")
def answers(learn, X_ND, y_N, folds):
    return distill.out_of_fold(learn, X_ND, y_N, folds).argmax(1)


# ---- kappa ----


def _shares(a, b):
    classes = sorted({*a.tolist(), *b.tolist()})
    return [
        ((a == c).double().mean().item(), (b == c).double().mean().item())
        for c in classes
    ]


def _seen(a, b):
    return (a == b).double().mean().item()


@ex.kappa.slip("This is the agreement as it is: chance is not taken off.")
def raw_agreement(a_N, b_N):
    return _seen(a_N, b_N)


@ex.kappa.slip("Chance is 1 / classes only where all are used alike: use the shares.")
def equal_chances(a_N, b_N):
    chance = 1 / len(_shares(a_N, b_N))
    return (_seen(a_N, b_N) - chance) / (1 - chance)


@ex.kappa.slip("It is not divided by what was left to agree on, 1 - chance.")
def not_divided(a_N, b_N):
    return _seen(a_N, b_N) - sum(p * q for p, q in _shares(a_N, b_N))


@ex.kappa.slip("Both are given a's habits: chance is a's share times b's.")
def one_habit(a_N, b_N):
    chance = sum(p * p for p, _ in _shares(a_N, b_N))
    return (_seen(a_N, b_N) - chance) / (1 - chance)


@ex.kappa.slip("Both are given their mean shares (Scott's pi): each has its own here.")
def mean_habit(a_N, b_N):
    chance = sum(((p + q) / 2) ** 2 for p, q in _shares(a_N, b_N))
    return (_seen(a_N, b_N) - chance) / (1 - chance)


@ex.kappa.slip("Negative values are cut off: below chance is below 0.")
def never_negative(a_N, b_N):
    return max(0.0, distill.kappa(a_N, b_N))


@ex.kappa.slip("This is the disagreement: count the rows that are equal.")
def disagreement(a_N, b_N):
    chance = sum(p * q for p, q in _shares(a_N, b_N))
    return (1 - _seen(a_N, b_N) - chance) / (1 - chance)


# ---- low_rank ----


def _svd(W):
    return torch.linalg.svd(W, full_matrices=False)


@ex.low_rank.slip("The smallest singular values are kept: they stand last.")
def smallest(W_HD, r):
    U, S, V = _svd(W_HD)
    return U[:, -r:] * S[-r:], V[-r:]


@ex.low_rank.slip("S is used twice, in B and in A: once is enough.")
def twice_S(W_HD, r):
    U, S, V = _svd(W_HD)
    return U[:, :r] * S[:r], S[:r, None] * V[:r]


@ex.low_rank.slip("S is missing: U and V alone have no sizes.")
def no_S(W_HD, r):
    U, _, V = _svd(W_HD)
    return U[:, :r], V[:r]


@ex.low_rank.slip("svd gives V turned already: keep its rows, V[:r].")
def columns_of_V(W_HD, r):
    U, S, V = _svd(W_HD)
    return U[:, :r] * S[:r], V.T[: V.shape[1]][:r, : W_HD.shape[1]].contiguous() if (
        V.shape[0] == V.shape[1]
    ) else V[:, :r].T


@ex.low_rank.slip("Nothing is cut: B and A have r columns and rows.")
def whole(W_HD, r):
    U, S, V = _svd(W_HD)
    return U * S, V


@ex.low_rank.slip("This is the product: return the two factors.")
def product(W_HD, r):
    U, S, V = _svd(W_HD)
    return (U[:, :r] * S[:r]) @ V[:r]


@ex.low_rank.slip("These are r rows of W as they stand, not its strongest directions.")
def first_rows(W_HD, r):
    A = W_HD[:r]
    return W_HD @ torch.linalg.pinv(A), A


@ex.low_rank.slip("A and B are the wrong way round: B (H, r) first.")
def swapped(W_HD, r):
    B, A = lora.low_rank(W_HD, r)
    return A, B


# ---- low_rank_for ----


@ex.low_rank_for.slip("C is not used: this keeps the matrix, not its outputs.")
def plain(W_HD, C_DD, r):
    return lora.low_rank(W_HD, r)


def _through(W, L, r, undo):
    B, M = lora.low_rank(W @ L, r)
    return B, M @ undo


@ex.low_rank_for.slip("L stands on the wrong side: W @ L, and L is not L'.")
def upper(W_HD, C_DD, r):
    L = torch.linalg.cholesky(C_DD)
    return _through(W_HD, L.T, r, torch.linalg.inv(L.T))


@ex.low_rank_for.slip("L is not undone: A must take plain inputs.")
def not_undone(W_HD, C_DD, r):
    L = torch.linalg.cholesky(C_DD)
    return lora.low_rank(W_HD @ L, r)


@ex.low_rank_for.slip("C itself weighs too much: its factor L, with L L' = C.")
def whole_C(W_HD, C_DD, r):
    return _through(W_HD, C_DD, r, torch.linalg.inv(C_DD))


@ex.low_rank_for.slip(
    "L is taken out turned: A L^-1 means `solve(L.T, A.T).T`, or A @ inv(L)."
)
def turned_inverse(W_HD, C_DD, r):
    L = torch.linalg.cholesky(C_DD)
    return _through(W_HD, L, r, torch.linalg.inv(L).T)


@ex.low_rank_for.slip("L is undone by L', which is no inverse.")
def turned_back(W_HD, C_DD, r):
    L = torch.linalg.cholesky(C_DD)
    return _through(W_HD, L, r, L.T)


@ex.low_rank_for.slip(
    "Only the diagonal of C is used: inputs that move together count as well."
)
def diagonal(W_HD, C_DD, r):
    s = C_DD.diagonal().sqrt()
    B, M = lora.low_rank(W_HD * s, r)
    return B, M / s


@ex.low_rank_for.slip("The inverse is used first and L at the end: the other way.")
def inverse_first(W_HD, C_DD, r):
    L = torch.linalg.cholesky(C_DD)
    return _through(W_HD, torch.linalg.inv(L), r, L)


# ---- LoRA ----


class _LoRA(lora.LoRA):
    "The right one in pieces, for slips to spoil."

    def forward(self, x):
        return self.layer(x) + self.factor() * self.beside(x)

    def factor(self):
        return self.scale

    def beside(self, x):
        return (x @ self.A.T) @ self.B.T

    def merge(self):
        merged = copy.deepcopy(self.layer)
        merged.weight.data += self.merge_factor() * (self.B @ self.A).data
        return merged

    def merge_factor(self):
        return self.factor()


@ex.LoRA.slip(
    "A and B have the type and the device of the layer's weight: not always fp32."
)
class AlwaysSinglePrecision(_LoRA):
    def __init__(self, layer, r, alpha):
        super().__init__(layer, r, alpha)
        self.A.data, self.B.data = self.A.data.float(), self.B.data.float()


@ex.LoRA.slip("The scale is missing: alpha / r times what A and B say.")
class NoScale(_LoRA):
    def factor(self):
        return 1.0


@ex.LoRA.slip("The scale is alpha here: it is divided by the rank r.")
class OnlyAlpha(_LoRA):
    def factor(self):
        return self.scale * len(self.A)


@ex.LoRA.slip("The scale is forgotten in merge(): there, too, alpha / r.")
class MergeForgetsScale(_LoRA):
    def merge_factor(self):
        return 1.0


@ex.LoRA.slip("The scale is applied twice in merge().")
class MergeTwice(_LoRA):
    def merge_factor(self):
        return self.scale**2


@ex.LoRA.slip("The frozen layer's output is missing: it is added, not replaced.")
class Replaces(_LoRA):
    def forward(self, x):
        return self.scale * self.beside(x)


@ex.LoRA.slip("The frozen layer's output is scaled as well: only what A and B say is.")
class ScalesAll(_LoRA):
    def forward(self, x):
        return self.scale * (self.layer(x) + self.beside(x))


@ex.LoRA.slip("No gradient reaches A and B: no `.data` and no `detach` in forward.")
class NeverLearns(_LoRA):
    def beside(self, x):
        return (x @ self.A.data.T) @ self.B.data.T


@ex.LoRA.slip("No gradient reaches A: no `.data` and no `detach` in forward.")
class OnlyBLearns(_LoRA):
    def beside(self, x):
        return (x @ self.A.data.T) @ self.B.T


@ex.LoRA.slip("A layer without bias has the bias None: deepcopy takes both kinds.")
class NeedsBias(_LoRA):
    def merge(self):
        merged = nn.Linear(self.layer.in_features, self.layer.out_features).double()
        merged.weight.data = self.layer.weight + self.scale * self.B @ self.A
        merged.bias.data = self.layer.bias.data.clone()
        return merged


@ex.LoRA.slip("merge() forgets the bias of the frozen layer.")
class NoBias(_LoRA):
    def merge(self):
        merged = super().merge()
        if merged.bias is not None:
            merged.bias.data.zero_()
        return merged


@ex.LoRA.slip(
    "merge() changes the frozen layer itself, and then it counts twice: a copy."
)
class MergesInPlace(_LoRA):
    def merge(self):
        self.layer.weight.data += self.scale * (self.B @ self.A).data
        return self.layer


@ex.LoRA.slip("merge() forgets what was learnt: add scale * B @ A.")
class MergesNothing(_LoRA):
    def merge(self):
        return copy.deepcopy(self.layer)


@ex.LoRA.slip("What was learnt is subtracted in merge().")
class Subtracts(_LoRA):
    def merge_factor(self):
        return -self.scale


@ex.LoRA.slip("merge() shares its numbers with the frozen layer: copy the bias.")
class SharesBias(_LoRA):
    def merge(self):
        merged = super().merge()
        if merged.bias is not None:
            merged.bias = self.layer.bias
        return merged


# ---- average ----


def _mean(nets, of):
    fused = copy.deepcopy(nets[0])
    with torch.no_grad():
        for name, p in of(fused):
            p.copy_(sum(dict(of(net))[name] for net in nets) / len(nets))
    return fused


@ex.average.slip("The numbers are summed: divide by how many networks there are.")
def summed(nets):
    fused = copy.deepcopy(nets[0])
    states = [net.state_dict() for net in nets]
    fused.load_state_dict({k: sum(s[k] for s in states) for k in states[0]})
    return fused


@ex.average.slip("Divided by 5: there may be any number of networks.")
def fifths(nets):
    fused, states = copy.deepcopy(nets[0]), [net.state_dict() for net in nets]
    fused.load_state_dict({k: sum(s[k] for s in states) / 5 for k in states[0]})
    return fused


@ex.average.slip(
    "Batch norm's count is a whole number, which has no mean: make it a float first."
)
def mean_of_whole_numbers(nets):
    fused, states = copy.deepcopy(nets[0]), [net.state_dict() for net in nets]
    fused.load_state_dict(
        {k: torch.stack([s[k] for s in states]).mean(0) for k in states[0]}
    )
    return fused


@ex.average.slip("Biases are averaged as well, not only the weights.")
def only_weights(nets):
    def weights(net):
        return [(n, p) for n, p in net.named_parameters() if n.endswith("weight")]

    return _mean(nets, weights)


@ex.average.slip("The first network is changed: work on a copy, deepcopy(nets[0]).")
def in_place(nets):
    fused, states = nets[0], [copy.deepcopy(net.state_dict()) for net in nets]
    fused.load_state_dict(
        {k: torch.stack([s[k].double() for s in states]).mean(0) for k in states[0]}
    )
    return fused


@ex.average.slip("Only the first two networks count.")
def first_two(nets):
    return distill.average(nets[:2])


@ex.average.slip("This is the first network alone.")
def only_first(nets):
    return copy.deepcopy(nets[0])


@ex.average.slip(
    "parameters() leaves out batch norm's running means: take state_dict()."
)
def no_buffers(nets):
    return _mean(nets, lambda net: list(net.named_parameters()))


@ex.average.slip("Each is halved into the last: later networks count for more.")
def running(nets):
    fused = copy.deepcopy(nets[0])
    state = {k: v.clone() for k, v in fused.state_dict().items()}
    for net in nets[1:]:
        state = {k: (state[k] + v) / 2 for k, v in net.state_dict().items()}
    fused.load_state_dict(state)
    return fused


@ex.average.slip(
    "This averages the answers, an ensemble: one network of mean numbers is asked for."
)
def ensemble(nets):
    class Ensemble(nn.Module):
        def __init__(self):
            super().__init__()
            self.nets = nn.ModuleList(copy.deepcopy(list(nets)))

        def forward(self, x):
            return sum(net(x) for net in self.nets) / len(self.nets)

    return Ensemble()


# ---- forgetting ----


def _lost(m, first, last):
    return [(first(m, j) - m[-1, j]).item() for j in range(last)]


@ex.forgetting.slip("The last task is counted as well: it had no time to be forgotten.")
def counts_last(accuracy_TT):
    T = len(accuracy_TT)
    return sum(_lost(accuracy_TT, lambda m, j: m[j:, j].max(), T)) / T


@ex.forgetting.slip("Right after learning is not always the best: take the largest.")
def from_diagonal(accuracy_TT):
    T = len(accuracy_TT)
    return sum(_lost(accuracy_TT, lambda m, j: m[j, j], T - 1)) / (T - 1)


@ex.forgetting.slip("The last row counts too, so nothing is below 0.")
def without_last_row(accuracy_TT):
    T = len(accuracy_TT)
    return sum(_lost(accuracy_TT, lambda m, j: m[j:-1, j].max(), T - 1)) / (T - 1)


@ex.forgetting.slip("A task counts from the moment it was learnt: from row j on.")
def before_learning(accuracy_TT):
    T = len(accuracy_TT)
    return sum(_lost(accuracy_TT, lambda m, j: m[:, j].max(), T - 1)) / (T - 1)


@ex.forgetting.slip("Rows and columns are swapped: row i is after task i.")
def swapped_axes(accuracy_TT):
    return continual.forgetting(accuracy_TT.T)


@ex.forgetting.slip("The sign is turned: best minus last.")
def last_minus_best(accuracy_TT):
    return -continual.forgetting(accuracy_TT)


@ex.forgetting.slip("The sum is not divided: a mean over the tasks.")
def not_mean(accuracy_TT):
    return continual.forgetting(accuracy_TT) * (len(accuracy_TT) - 1)


# ---- fisher ----


def _by_row(net, X_ND, y_N):
    weights = {name: p.detach() for name, p in net.named_parameters()}

    def loss(weights, x_D, y):
        return F.cross_entropy(functional_call(net, weights, (x_D[None],)), y[None])

    return vmap(grad(loss), (None, 0, 0))(weights, X_ND, y_N)


@ex.fisher.slip(
    "This squares the mean of the gradients: square each row's, then take the mean."
)
def square_of_mean(net, X_ND, y_N):
    return {name: g.mean(0) ** 2 for name, g in _by_row(net, X_ND, y_N).items()}


@ex.fisher.slip(
    "The gradients of earlier rows are still there: backward() adds up in `.grad`."
)
def adds_up(net, X_ND, y_N):
    total = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    for x_D, y in zip(X_ND, y_N):
        F.cross_entropy(net(x_D[None]), y[None]).backward()
        for name, p in net.named_parameters():
            total[name] += p.grad**2 / len(X_ND)
    return total


@ex.fisher.slip("The rows are summed: a mean, or the penalty grows with the data.")
def sum_of_squares(net, X_ND, y_N):
    return {name: (g**2).sum(0) for name, g in _by_row(net, X_ND, y_N).items()}


@ex.fisher.slip("Nothing is squared: these are sizes.")
def absolute(net, X_ND, y_N):
    return {name: g.abs().mean(0) for name, g in _by_row(net, X_ND, y_N).items()}


@ex.fisher.slip("Plus and minus cancel here: this is the mean gradient.")
def mean_gradient(net, X_ND, y_N):
    return {name: g.mean(0) for name, g in _by_row(net, X_ND, y_N).items()}


@ex.fisher.slip("The root is taken: the squares are asked for.")
def root(net, X_ND, y_N):
    return {n: (g**2).mean(0).sqrt() for n, g in _by_row(net, X_ND, y_N).items()}


@ex.fisher.slip("Only the weights: biases are parameters, too.")
def no_biases(net, X_ND, y_N):
    found = continual.fisher(net, X_ND, y_N)
    return {name: F_w for name, F_w in found.items() if name.endswith("weight")}


@ex.fisher.slip("The network's own answers are taken as labels: the given ones, y_N.")
def own_answers(net, X_ND, y_N):
    return continual.fisher(net, X_ND, net(X_ND).detach().argmax(1))


@ex.fisher.slip("This is a list: {name: tensor}, as net.named_parameters() names them.")
def a_list(net, X_ND, y_N):
    return list(continual.fisher(net, X_ND, y_N).values())


# ---- Replay ----


class _Replay(continual.Replay):
    "The right one in pieces, for slips to spoil."

    def add(self, row):
        self.seen += 1
        if len(self.rows) < self.limit:
            self.rows.append(row)
        else:
            self.later(row)

    def later(self, row):
        place = self.rng.randrange(self.seen)
        if place < self.limit:
            self.rows[place] = row


@ex.Replay.slip("The first rows stay for ever: later ones need their chance.")
class KeepsFirst(_Replay):
    def later(self, row):
        pass


@ex.Replay.slip("The last rows stay: the early ones need their chance.")
class KeepsLast(_Replay):
    def later(self, row):
        self.rows = [*self.rows[1:], row]


@ex.Replay.slip("Every new row comes in: the n-th should, with chance limit / n.")
class AlwaysIn(_Replay):
    def later(self, row):
        self.rows[self.rng.randrange(self.limit)] = row


@ex.Replay.slip("A new row comes in with chance 1/2, whatever came before.")
class HalfIn(_Replay):
    def later(self, row):
        if self.rng.random() < 0.5:
            self.rows[self.rng.randrange(self.limit)] = row


@ex.Replay.slip("It grows above its limit.")
class Grows(_Replay):
    def add(self, row):
        self.seen += 1
        self.rows.append(row)


@ex.Replay.slip("`seen` counts every row, also those that fill the memory.")
class NeverCounts(_Replay):
    def add(self, row):
        if len(self.rows) < self.limit:
            self.rows.append(row)
        elif (place := self.rng.randrange(self.limit + 1)) < self.limit:
            self.rows[place] = row


@ex.Replay.slip(
    "The draw is off by one: the row itself is counted, randrange(self.seen)."
)
class OffByOne(_Replay):
    def later(self, row):
        place = self.rng.randrange(self.seen - 1)
        if place < self.limit:
            self.rows[place] = row


@ex.Replay.slip("It always replaces the same place: the early rows next to it stay.")
class SamePlace(_Replay):
    def later(self, row):
        if self.rng.randrange(self.seen) < self.limit:
            self.rows[0] = row


@ex.Replay.slip("`seen` counts only what came in: count every row of the stream.")
class CountsKept(_Replay):
    def add(self, row):
        if len(self.rows) < self.limit:
            self.rows.append(row)
            self.seen += 1
        elif (place := self.rng.randrange(self.seen + 1)) < self.limit:
            self.rows[place] = row
            self.seen += 1


@ex.Replay.slip("The seed is fixed here: every memory draws the same, self.rng.")
class OneSeed(_Replay):
    def later(self, row):
        place = random.Random(self.seen).randrange(self.seen)
        if place < self.limit:
            self.rows[place] = row
