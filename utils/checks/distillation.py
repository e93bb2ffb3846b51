"""Chapter 25: teachers, labels, low rank, fused networks, and what is forgotten."""

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn

from utils.exercises import Chapter, Miss, same

chapter = Chapter("25_distillation")


def _normal(*shape, seed=0, kind=torch.float64):
    made = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=made, dtype=torch.float64).to(kind)


def _whole(count, most, seed=0):
    return torch.randint(most, (count,), generator=torch.Generator().manual_seed(seed))


def _slow_softmax(row):
    top = max(row)
    powers = [math.exp(z - top) for z in row]
    return [p / sum(powers) for p in powers]


# ---- the teacher's word ----


@chapter.exercise(
    "What happens to the logits before the softmax?",
    "Divide by T: a high temperature makes all differences small.",
    "return (logits_NC / T).softmax(dim=1)",
)
def soften(answer):
    "Softmax at a temperature."
    z = torch.tensor([[2.0, 0.0], [0.0, math.log(3)]])
    same("logits [[2, 0], [0, ln 3]], T = 1: row 2", answer(z, 1.0)[1], [0.25, 0.75],
         "At T = 1 it is the plain softmax, 1 : 3 here.")  # fmt: skip
    same("logits [[4 ln 3, 0]], T = 4", answer(torch.tensor([[4 * math.log(3), 0.0]]), 4),
         [[0.75, 0.25]], "Divided by 4 the logits are ln 3 and 0.")  # fmt: skip
    for N, C, T in ((5, 3, 2.0), (4, 7, 0.5), (1, 10, 8), (3, 3, 1.5)):
        z = 3 * _normal(N, C, seed=N + C)
        case = f"normal logits ({N}, {C}) times 3, T = {T}"
        got = answer(z.clone(), T)
        same(case, got, [_slow_softmax([v / T for v in row]) for row in z.tolist()],
             "The softmax of each row's logits divided by T.")  # fmt: skip
    z = torch.tensor([[3000.0, 2000.0, 2900.0]])
    same("logits [[3000, 2000, 2900]], T = 100", answer(z, 100.0),
         [_slow_softmax([30.0, 20.0, 29.0])],
         "T divides the logits: after the softmax small probabilities are already 0.")  # fmt: skip
    z = torch.tensor([[3000.0, 2000.0, 2990.0]], dtype=torch.float64)
    same("logits [[3000, 2000, 2990]], T = 2", answer(z, 2.0),
         [_slow_softmax([1500.0, 1000.0, 1495.0])], "Large logits must not overflow.")  # fmt: skip


def _slow_kd(student, teacher, y, T, share):
    total = 0.0
    for s, t, label in zip(student.tolist(), teacher.tolist(), y.tolist()):
        p, q = (_slow_softmax([v / T for v in row]) for row in (t, s))
        kl = sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q))
        hard = -math.log(_slow_softmax(s)[label])
        total += share * T**2 * kl + (1 - share) * hard
    return total / len(y)


@chapter.exercise(
    "Two parts: share * T**2 * KL(teacher || student), and (1 - share) * cross-entropy.",
    "p = soften(teacher, T), without a gradient; log q = (student / T).log_softmax(1). KL of a "
    "row is the sum over classes of p * (log p - log q); then the mean over rows.",
    "kl = F.kl_div(log_q, p, reduction='batchmean'); "
    "return share * T**2 * kl + (1 - share) * F.cross_entropy(student_NC, y_N)",
)
def kd_loss(answer):
    "What a student minimises."
    for N, C, T, share in ((5, 3, 2.0, 1.0), (4, 7, 4.0, 0.3), (6, 10, 1, 0.0), (1, 4, 0.5, 0.5)):  # fmt: skip
        student, teacher = _normal(N, C, seed=N), 2 * _normal(N, C, seed=N + 50)
        y = _whole(N, C, seed=N)
        case = f"logits ({N}, {C}), T = {T}, share = {share}"
        got = answer(student.clone(), teacher.clone(), y, T, share)
        same(case, got, _slow_kd(student, teacher, y, T, share),
             "share * T**2 * KL(teacher || student) at T, plus (1 - share) * cross-entropy at "
             "T = 1; both are means over the rows.")  # fmt: skip
    z, y = _normal(5, 4, seed=3), _whole(5, 4, seed=3)
    same("student = teacher, T = 3, share = 1", answer(z, z.clone(), y, 3.0, 1.0), 0.0,
         "Who says what the teacher says has nothing to learn: KL is 0.", atol=1e-6)  # fmt: skip
    sure = torch.tensor([[2000.0, 0.0, -500.0], [0.0, 0.0, 900.0]], dtype=torch.float64)
    flat = torch.zeros(2, 3, dtype=torch.float64)
    got = answer(flat, sure, torch.tensor([0, 2]), 1.0, 1.0)
    same("a very sure teacher (logits 2000, 0, -500), share = 1", got, math.log(3),
         "A probability of 0 counts 0, not nan.", rtol=1e-4)  # fmt: skip
    got = answer(sure, flat, torch.tensor([0, 2]), 1.0, 1.0)
    same("a very sure student (logits 2000, 0, -500), share = 1", got, 1050 - math.log(3),
         "The student's logarithms stay finite: log_softmax, not log of softmax.",
         rtol=1e-4)  # fmt: skip
    teacher = _normal(6, 5, seed=8).requires_grad_()
    student = _normal(6, 5, seed=9).requires_grad_()
    answer(student, teacher, _whole(6, 5), 2.0, 0.7).backward()
    same("the gradient that reaches the teacher's logits",
         0.0 if teacher.grad is None else teacher.grad.abs().sum(), 0.0,
         "The teacher is given: detach it.")  # fmt: skip
    wish = _normal(6, 5, seed=9).requires_grad_()
    p = F.softmax(teacher.detach() / 2, 1)
    kl = (p * (p.log() - (wish / 2).log_softmax(1))).sum(1).mean()
    (0.7 * 4 * kl + 0.3 * F.cross_entropy(wish, _whole(6, 5))).backward()
    same("the gradient that reaches the student's logits, T = 2, share = 0.7",
         student.grad, wish.grad, "Both parts teach the student.")  # fmt: skip


# ---- labels ----


@chapter.exercise(
    "Nobody judges a row that it has learnt from.",
    "Row i belongs to fold i % folds. For each fold: learn from the rows of all other folds, "
    "then ask the model for the rows of this one.",
    "fold_N = torch.arange(len(y_N)) % folds; model = learn(X_ND[fold_N != k], "
    "y_N[fold_N != k]); logits[fold_N == k] = model(X_ND[fold_N == k])",
)
def out_of_fold(answer):
    "Each row judged by a model that has not seen it."
    for N, folds in ((11, 3), (7, 7), (10, 2), (13, 5)):
        X, y = _normal(N, 4, seed=N, kind=torch.float32), _whole(N, 3, seed=N)
        lessons = []

        def function(X_ND, y_N, lessons=lessons):
            if len(X_ND) != len(y_N):
                raise Miss("learn gets as many rows as labels.", "learn(X, y)",
                           f"{len(X_ND)} rows, {len(y_N)} labels", "as many")  # fmt: skip
            lessons.append(X_ND.sum().item())
            counts = torch.stack([X_ND[y_N == c].sum(0) for c in range(3)])
            return lambda Z_ND: Z_ND @ counts.T + X_ND.sum()

        case = f"{N} rows in {folds} folds"
        got = answer(function, X.clone(), y.clone(), folds)
        same(f"{case}: how often `learn` was called", len(lessons), folds,
             "One model for each fold.")  # fmt: skip
        want = []
        for i in range(N):
            seen = [j for j in range(N) if j % folds != i % folds]
            counts = [[sum(X[j, d].item() for j in seen if y[j] == c) for d in range(4)]
                      for c in range(3)]  # fmt: skip
            base = sum(X[j].sum().item() for j in seen)
            want.append(
                [
                    base + sum(a * b for a, b in zip(X[i].tolist(), row))
                    for row in counts
                ]
            )
        same(case, got, want,
             "Row i is judged by the model that learnt from all rows j with j % folds != "
             "i % folds, and stays at its place.", rtol=1e-4, atol=1e-4)  # fmt: skip


@chapter.exercise(
    "How often would two agree who only roll dice with their own habits?",
    "seen: the share of rows on which they agree. chance: the sum over classes of (a's share "
    "of c) * (b's share of c).",
    "return (seen - chance) / (1 - chance)",
)
def kappa(answer):
    "Agreement beyond chance."
    case = "a = 0 0 1 1, b = 0 0 1 0"
    same(case, answer(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 0])), 0.5,
         "seen 3/4; chance 1/2 * 3/4 + 1/2 * 1/4 = 1/2; (3/4 - 1/2) / (1 - 1/2).", rtol=1e-5)  # fmt: skip
    a = torch.tensor([0, 1, 2, 2, 5])
    same("b = a = 0 1 2 2 5", answer(a, a.clone()), 1.0, "Full agreement is 1.", rtol=1e-5)  # fmt: skip
    same("a = 0 0 1 1, b = 1 1 0 0", answer(torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, 0, 0])),
         -1.0, "Below chance it is negative.", rtol=1e-5)  # fmt: skip
    for N, C, seed in ((37, 3, 1), (50, 10, 2), (23, 2, 3)):
        a, other = _whole(N, C, seed=seed), _whole(N, C, seed=seed + 9)
        b = torch.where(_normal(N, seed=seed) > 0.3, other, a)
        b[0] = C  # a class that only b knows
        seen = sum(x == z for x, z in zip(a.tolist(), b.tolist())) / N
        chance = (
            sum(a.tolist().count(c) * b.tolist().count(c) for c in range(C + 1)) / N**2
        )
        same(f"{N} rows, {C} classes, and one that only b uses", answer(a, b),
             (seen - chance) / (1 - chance),
             "(seen - chance) / (1 - chance), with each one's own shares.", rtol=1e-5)  # fmt: skip


# ---- low rank ----


def _shapes(case, got, H, D, r):
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Miss("Return two matrices, B and A.", case, got, "B (H, r), A (r, D)")
    B, A = got
    same(f"{case}: the shapes of B and A", [tuple(B.shape), tuple(A.shape)], [(H, r), (r, D)],
         "B is (H, r), A is (r, D).")  # fmt: skip
    return B @ A


@chapter.exercise(
    "The singular value decomposition W = U S V' sorts what matters most to the front.",
    "U, S, V = torch.linalg.svd(W_HD, full_matrices=False): V is turned already, (K, D). "
    "Keep r columns of U, r values, r rows of V.",
    "return U[:, :r] * S[:r], V[:r]",
)
def low_rank(answer):
    "The nearest matrix of rank r."
    W = torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, -2.0]])
    case = "W = [[3, 0, 0], [0, 0, -2]], r = 1"
    same(f"{case}: B @ A", _shapes(case, answer(W, 1), 2, 3, 1), [[3, 0, 0], [0, 0, 0]],
         "The larger singular value, 3, stays.", atol=1e-5)  # fmt: skip
    for H, D, r in ((5, 7, 2), (7, 4, 3), (6, 6, 1), (3, 8, 3), (8, 3, 3)):
        W = _normal(H, D, seed=H + D)
        case = f"W ({H}, {D}) of normal numbers, r = {r}"
        got = _shapes(case, answer(W.clone(), r), H, D, r)
        S = torch.linalg.svdvals(W)
        same(f"{case}: the norm of W - B @ A", (W - got).norm(), S[r:].norm(),
             "No matrix of rank r is nearer than the root of the sum of the dropped squared "
             "singular values.", rtol=1e-5, atol=1e-6)  # fmt: skip
        values, V = torch.linalg.eigh(W.T @ W)
        V = V[:, values.argsort(descending=True)[:r]]
        same(f"{case}: B @ A", got, W @ V @ V.T,
             "W seen through its r strongest directions.", rtol=1e-5, atol=1e-6)  # fmt: skip


@chapter.exercise(
    "Which matrix, multiplied to W from the right, makes plain low_rank minimise the error "
    "of the *outputs*?",
    "C = L L' (torch.linalg.cholesky(C_DD) gives L, lower). The mean squared output error of "
    "a matrix E is the squared norm of E @ L. So: low_rank(W @ L, r), and undo L in A.",
    "B, M = low_rank(W_HD @ L, r); return B, M @ torch.linalg.inv(L)",
)
def low_rank_for(answer):
    "The rank that keeps the outputs."
    W = torch.diag(torch.tensor([2.5, 3.0, 2.0]))
    C = torch.diag(torch.tensor([0.04, 1.0, 9.0]))
    case = "W = diag(2.5, 3, 2), C = diag(0.04, 1, 9), r = 1"
    same(f"{case}: B @ A", _shapes(case, answer(W, C, 1), 3, 3, 1),
         [[0, 0, 0], [0, 0, 0], [0, 0, 2]],
         "The inputs have the sizes 0.2, 1 and 3: the outputs 0.5, 3 and 6.", atol=1e-5)  # fmt: skip
    for H, D, r in ((3, 4, 2), (4, 3, 2), (3, 3, 1), (2, 4, 2)):
        W = _normal(H, D, seed=H + 2 * D)
        X = _normal(40, D, seed=5) @ _normal(D, D, seed=6) + 1
        C = X.T @ X / 40
        case = f"W ({H}, {D}), C of 40 rows, r = {r}"
        got = _shapes(case, answer(W.clone(), C.clone(), r), H, D, r)
        Y = X @ W.T  # outputs (40, H): project them on their strongest directions
        values, U = torch.linalg.eigh(Y.T @ Y)
        U = U[:, values.argsort(descending=True)[:r]]
        same(f"{case}: B @ A", got, U @ U.T @ W,
             "The outputs of these rows come as close as rank r allows.", rtol=1e-4,
             atol=1e-4)  # fmt: skip


@chapter.exercise(
    "forward: the layer's output plus self.scale times x through A, then through B.",
    "A is (r, D), B is (H, r), x (..., D): (x @ self.A.T) @ self.B.T is (..., H). The merged "
    "weight is layer.weight + scale * B @ A; the bias stays as it is.",
    "merged = deepcopy(self.layer); merged.weight.data += self.scale * (self.B @ self.A).data; "
    "return merged",
    kind="class",
)
def LoRA(answer):
    "A frozen layer with a small one beside it."
    for H, D, r, alpha, bias, rows in ((3, 4, 2, 3.0, True, (2, 1)), (2, 3, 1, 1.0, True, (3,)),
                                       (3, 2, 1, 4.0, False, ())):  # fmt: skip
        layer = nn.Linear(D, H, bias=bias).double()
        layer.weight.data = _normal(H, D, seed=H)
        if bias:
            layer.bias.data = _normal(H, seed=D)
        x = _normal(*rows, D, seed=9)
        case = f"a layer {D} -> {H}{'' if bias else ' without bias'}, r = {r}"
        case = f"{case}, alpha = {alpha:g}, x {tuple(x.shape)}"
        try:
            _adapts(answer, case, layer, x, r, alpha)
        except (Miss, NotImplementedError):
            raise
        except Exception as error:  # the reader's own: with which layer was it?
            error.args = (f"{error} ({case})",)
            raise


def _adapts(answer, case, layer, x, r, alpha):
    (H, D), bias = layer.weight.shape, layer.bias is not None
    torch.manual_seed(3)
    torch.full((H, r), torch.nan, dtype=layer.weight.dtype)  # what torch.empty may find
    part = answer(copy.deepcopy(layer), r, alpha)
    same(f"{case}, not trained yet: the output", part(x), layer(x),
         "B begins at 0: it is the frozen layer.")  # fmt: skip
    A, B = _normal(r, D, seed=11), _normal(H, r, seed=12)
    part.A.data, part.B.data = A.clone(), B.clone()
    want = F.linear(x, layer.weight.data + alpha / r * B @ A, layer.bias)
    got = part(x)
    same(f"{case}, B not 0: the output", got, want, "layer(x) + alpha / r * x A' B'.")
    if got.requires_grad:
        got.sum().backward()
    fed_D, ones_H = x.reshape(-1, D).sum(0), torch.ones(H).double()
    for name, p, wish in (("B", part.B, torch.outer(ones_H, A @ fed_D)),
                          ("A", part.A, torch.outer(B.T @ ones_H, fed_D))):  # fmt: skip
        same(f"{case}: the gradient of {name}", torch.zeros_like(p) if p.grad is None else p.grad,
             alpha / r * wish, "B and A learn: the gradient must reach them.")  # fmt: skip
    same(f"{case}: the frozen weight learns", part.layer.weight.requires_grad, False,
         "The layer is frozen: requires_grad_(False).")  # fmt: skip
    merged = part.merge()
    same(f"{case}: the kind of merge()", isinstance(merged, nn.Linear), True,
         "One nn.Linear.")  # fmt: skip
    same(f"{case}: merge()'s output", merged(x), want,
         "One layer with the weight W + alpha / r * B A computes the same.")  # fmt: skip
    same(f"{case}: the output after merge()", part(x), want,
         "merge() returns a new layer and leaves this one as it is.")  # fmt: skip
    same(f"{case}: the frozen weight after merge()", part.layer.weight, layer.weight,
         "The frozen layer stays as it was.")  # fmt: skip
    merged.weight.data += 1
    if bias:
        merged.bias.data += 1
    same(f"{case}: the output after 1 was added to the merged layer", part(x), want,
         "The merged layer has numbers of its own.")  # fmt: skip


# ---- fusing ----


def _nets(widths, count, norm=False):
    made = []
    for k in range(count):
        parts = [nn.Linear(widths[0], widths[1]), nn.ReLU()]
        parts[1:1] = [nn.BatchNorm1d(widths[1])] if norm else []
        net = nn.Sequential(*parts, nn.Linear(widths[1], widths[2]))
        for i, p in enumerate(net.parameters()):
            p.data = _normal(*p.shape, seed=31 * k + i, kind=torch.float32)
        if norm:
            net[1].running_mean = _normal(widths[1], seed=77 + k, kind=torch.float32)
        made.append(net.eval())
    return made


@chapter.exercise(
    "A network's numbers are net.state_dict(), {name: tensor}.",
    "Copy the first network; for each name, the mean over the networks' tensors; "
    "load_state_dict into the copy.",
    "fused = deepcopy(nets[0]); states = [n.state_dict() for n in nets]; "
    "fused.load_state_dict({k: sum(s[k] for s in states) / len(states) for k in states[0]})",
)
def average(answer):
    "One network of averaged weights."
    for widths, count in (((4, 3, 2), 2), ((5, 6, 3), 3), ((3, 2, 4), 1)):
        nets = _nets(widths, count)
        before = [p.detach().clone() for net in nets for p in net.parameters()]
        case = f"{count} networks {' -> '.join(map(str, widths))}"
        got = answer(nets)
        if not isinstance(got, nn.Module):
            raise Miss("Return a network.", case, got, "a network")
        for name, p in got.named_parameters():
            mean = (
                sum(dict(net.named_parameters())[name].detach() for net in nets) / count
            )
            same(f"{case}: {name}", p, mean,
                 "The mean of the networks' numbers, weights and biases.", rtol=1e-4,
                 atol=1e-6)  # fmt: skip
        with torch.no_grad():
            for p in got.parameters():
                p += 1
        after = [p for net in nets for p in net.parameters()]
        same(f"{case}: tensors of theirs that changed when 1 was added to the new network's",
             sum(not torch.equal(a, b) for a, b in zip(before, after)), 0,
             "A new network: the given ones stay as they are.")  # fmt: skip
    nets = _nets((4, 3, 2), 2, norm=True)
    got = answer(nets)
    same("2 networks with batch norm: running_mean", got[1].running_mean,
         (nets[0][1].running_mean + nets[1][1].running_mean) / 2,
         "state_dict() has the buffers as well.", rtol=1e-4, atol=1e-6)  # fmt: skip


# ---- one task after another ----


@chapter.exercise(
    "For each task but the last: how good was it at its best, how good is it in the end?",
    "Column j is task j: from row j on (before, it had not been learnt) the largest, minus "
    "the last row's.",
    "lost = [m[j:, j].max() - m[-1, j] for j in range(T - 1)]; return sum(lost) / (T - 1)",
)
def forgetting(answer):
    "Best minus last."
    m = torch.tensor([[0.5, 0.3, 0.2], [0.9, 0.8, 0.3], [0.4, 0.6, 0.9]])
    same("rows [.5 .3 .2], [.9 .8 .3], [.4 .6 .9]", answer(m), 0.35,
         "Task 1 falls from its best, 0.9, to 0.4, task 2 from 0.8 to 0.6; the last has had "
         "no time to be forgotten.", rtol=1e-5)  # fmt: skip
    m = torch.tensor([[0.5, 0.9], [0.8, 0.7]])
    same("rows [.5 .9], [.8 .7]", answer(m), 0.0,
         "Task 1 is at its best in the end, and the last row counts: nothing is forgotten.", atol=1e-6)  # fmt: skip
    for T in (2, 4, 5):
        m = torch.rand(T, T, generator=torch.Generator().manual_seed(T))
        m[0, 1:] = 0.99  # by chance, before it was learnt: does not count
        rows = m.tolist()
        lost = [
            max(rows[i][j] for i in range(j, T)) - rows[-1][j] for j in range(T - 1)
        ]
        same(f"{T} tasks, random numbers, 0.99 on tasks not yet learnt", answer(m),
             sum(lost) / (T - 1),
             "From row j on, best minus last, mean over all tasks but the last.", rtol=1e-5)  # fmt: skip


@chapter.exercise(
    "Each row has a gradient of its own; square first, then take the mean.",
    "Row by row: loss = F.cross_entropy(net(x[None]), y[None]), its gradient by "
    "torch.autograd.grad, squared, added up; in the end divided by N. (Or torch.func: "
    "vmap(grad(loss), (None, 0, 0)).)",
    "for x, y in zip(X_ND, y_N): g = torch.autograd.grad(F.cross_entropy(net(x[None]), "
    "y[None]), list(net.parameters())); total[name] += g ** 2 / len(X_ND)",
)
def fisher(answer):
    "The mean of squares of the rows' gradients."
    for widths, N in (((4, 3, 5), 6), ((5, 2, 3), 1), ((3, 6, 4), 9)):
        net = _nets(widths, 1)[0].double()
        X, y = _normal(N, widths[0], seed=N), _whole(N, widths[2], seed=N)
        before = copy.deepcopy(net.state_dict())
        got = answer(net, X, y)
        case = f"{N} rows, a network {' -> '.join(map(str, widths))}"
        names = [name for name, _ in net.named_parameters()]
        if not isinstance(got, dict):
            raise Miss("Return {parameter's name: tensor}.", case,
                       type(got).__name__, "dict")  # fmt: skip
        same(f"{case}: the names", sorted(got), sorted(names),
             "One entry for each of net.named_parameters().")  # fmt: skip
        with torch.no_grad():
            hidden = F.relu(net[0](X))
            delta = net[2](hidden).softmax(1) - F.one_hot(y, widths[2])
            back = (delta @ net[2].weight) * (hidden > 0)
        want = {
            "2.weight": (delta[:, :, None] * hidden[:, None, :]).pow(2).mean(0),
            "2.bias": delta.pow(2).mean(0),
            "0.weight": (back[:, :, None] * X[:, None, :]).pow(2).mean(0),
            "0.bias": back.pow(2).mean(0),
        }
        for name in names:
            same(f"{case}: {name}", got[name], want[name],
                 "The mean over the rows of each row's own gradient, squared.", rtol=1e-5,
                 atol=1e-10)  # fmt: skip
        moved = [
            n for n, t in net.state_dict().items() if not torch.equal(t, before[n])
        ]
        same(f"{case}: tensors of the network that changed", len(moved), 0,
             "No weight changes: the network is only asked.")  # fmt: skip


@chapter.exercise(
    "The n-th row of the stream may stay with chance limit / n; whom does it replace?",
    "While there is room, append. After that draw a whole number from 0 to n - 1: if it is "
    "below the limit, it is the place of the row that goes.",
    "place = self.rng.randrange(self.seen); if place < self.limit: self.rows[place] = row",
    kind="class",
)
def Replay(answer):
    "A sample of a stream whose length nobody knows."
    for limit, count in ((7, 7), (7, 4), (3, 50), (1, 9)):
        memory = answer(limit, seed=limit)
        for i in range(count):
            memory.add(i)
            same(f"limit {limit}, after {i + 1} rows: how many are kept", len(memory.rows),
                 min(i + 1, limit), "Fill up, then stay at the limit.")  # fmt: skip
        case = f"limit {limit}, rows 0 .. {count - 1}"
        same(f"{case}: different rows", len(set(memory.rows)), min(limit, count),
             "No row twice.")  # fmt: skip
        same(f"{case}: `seen`", memory.seen, count, "It counts every row.")
        if not set(memory.rows) <= set(range(count)):
            raise Miss(
                "It keeps rows of the stream.", case, memory.rows, "rows offered"
            )
    twice = []
    for _ in range(2):
        memory = answer(4, seed=8)
        for i in range(60):
            memory.add(i)
        twice.append(list(memory.rows))
    same("limit 4, 60 rows, seed 8, twice: the rows", twice[0], twice[1],
         "The same seed keeps the same rows: draw with self.rng.")  # fmt: skip
    limit, length, runs = 5, 20, 1500
    kept = [0] * length
    for run in range(runs):
        memory = answer(limit, seed=run)
        for i in range(length):
            memory.add(i)
        for i in memory.rows:
            kept[i] += 1
    want = limit / length
    for name, places in (("the first 5", range(5)), ("the middle ones", range(5, 15)),
                         ("the last 5", range(15, 20)), ("the first", [0]),
                         ("the 6th", [5]), ("the last", [19])):  # fmt: skip
        share = sum(kept[i] for i in places) / (runs * len(places))
        same(f"limit 5, 20 rows, {runs} seeds: {name} kept with chance", share, want,
             "Every row of the stream has the same chance to be in the memory in the end.",
             atol=5.5 * (want * (1 - want) / runs / len(places)) ** 0.5, rtol=0)  # fmt: skip
