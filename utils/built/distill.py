"""Learning from a teacher (chapter 25): soft labels, judges of labels, averaged networks.

Shapes: logits (N, C) of N rows and C classes, labels (N,). The loss is that of Hinton,
Vinyals and Dean (2015), arXiv:1503.02531; kappa is Cohen's (1960).
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn

from utils import given
from utils.built.pruning import fold as fold  # the digits' folds are chapter 23's


def mlp(width, seed):
    "A new network 64 -> width -> 10 for the digits."
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def cnn(seed):
    "A new convolutional network for rows of 64 pixels: 15 thousand numbers."
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = [nn.Unflatten(1, (1, 8, 8))]
        for fed, made in ((1, 16), (16, 32), (32, 32)):
            parts += [
                nn.Conv2d(fed, made, 3, padding=1),
                nn.BatchNorm2d(made),
                nn.ReLU(),
            ]
            parts += [nn.MaxPool2d(2)] if made == 32 == 2 * fed else []
        parts += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10)]
        return nn.Sequential(*parts)


def shifted(x_BD, generator):
    "A batch of images (B, 64), moved together by up to one pixel each way."
    a, b = torch.randint(0, 3, (2,), generator=generator).tolist()
    padded = F.pad(x_BD.view(-1, 8, 8), (1, 1, 1, 1))
    return padded[:, a : a + 8, b : b + 8].reshape(len(x_BD), 64)


def learn(net, X_ND, loss, steps, lr=5e-3, seed=0, shift=False):
    """`steps` batches of 64 rows, Adam, the rate falling to 0: -> the net, in eval mode.

    loss(outputs, rows): `rows` are the batch's places in X. With shift, images move.
    """
    made = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=lr, fused=True)
    net.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = (
            lr * (1 + math.cos(math.pi * step / steps)) / 2
        )
        rows = torch.randint(len(X_ND), (64,), generator=made)
        x_BD = shifted(X_ND[rows], made) if shift else X_ND[rows]
        optimizer.zero_grad()
        loss(net(x_BD), rows).backward()
        optimizer.step()
    return net.eval()


def by_labels(y_N):
    "A loss for learn: cross-entropy with labels."
    return lambda z_BC, rows: F.cross_entropy(z_BC, y_N[rows])


def by_teacher(teacher_NC, T):
    "A loss for learn: what the teacher says at temperature T, and no label."
    none = torch.zeros(len(teacher_NC), dtype=torch.long)
    return lambda z_BC, rows: kd_loss(z_BC, teacher_NC[rows], none[rows], T, 1.0)


def accuracy(net, X_ND, y_N):
    "Percent right."
    with torch.no_grad():
        return 100 * (net(X_ND).argmax(1) == y_N).float().mean().item()


def soften(logits_NC, T):
    "Softmax of the logits divided by the temperature T > 0: (N, C)."
    given.number("T", T, above=0)
    return (given.tensor("logits", logits_NC) / T).softmax(-1)


def kd_loss(student_NC, teacher_NC, y_N, T=1.0, share=1.0):
    """share * T**2 * KL(teacher || student), both softened, + (1 - share) * cross-entropy.

    Means over the rows; no gradient goes into the teacher. ValueError where shapes differ.
    """
    if student_NC.shape != teacher_NC.shape or student_NC.ndim != 2:
        shapes = f"{tuple(student_NC.shape)} and {tuple(teacher_NC.shape)}"
        raise ValueError(f"student and teacher are (N, C), both: these are {shapes}")
    given.labels("y_N", y_N, *student_NC.shape)
    if given.number("share", share) > 1:
        raise ValueError(f"share is a share, from 0 to 1, not {share!r:.60}")
    p_NC = soften(teacher_NC.detach(), T)
    log_q_NC = (student_NC / T).log_softmax(-1)
    kl = F.kl_div(log_q_NC, p_NC, reduction="batchmean")
    return share * T**2 * kl + (1 - share) * F.cross_entropy(student_NC, y_N)


def out_of_fold(learn, X_ND, y_N, folds):
    """Each row's logits from a model that has not seen it: (N, C).

    Row i belongs to fold i % folds; learn(X, y) -> a function from rows to logits.
    """
    folds = given.whole("folds", folds, 2, len(y_N))
    given.function("learn", learn)
    if len(X_ND) != len(y_N):
        raise ValueError(
            f"a label for each row, not {len(X_ND)} rows, {len(y_N)} labels"
        )
    fold_N, logits_NC = torch.arange(len(y_N)) % folds, None
    for k in range(folds):
        model = learn(X_ND[fold_N != k], y_N[fold_N != k])
        with torch.no_grad():
            z = model(X_ND[fold_N == k])
        if logits_NC is None:
            logits_NC = torch.empty(len(y_N), z.shape[1], dtype=z.dtype)
        logits_NC[fold_N == k] = z
    return logits_NC


def kappa(a_N, b_N):
    "Agreement of two lists of labels beyond chance: 1 is full, 0 is chance."
    if len(a_N) != len(b_N) or not len(a_N):
        raise ValueError(
            f"two labels for each row, not {len(a_N)} and {len(b_N)} labels"
        )
    seen = (a_N == b_N).double().mean()
    chance = sum(
        (a_N == c).double().mean() * (b_N == c).double().mean() for c in a_N.unique()
    )
    return float((seen - chance) / (1 - chance))


def average(nets):
    "A new network whose every number is the mean of the networks' numbers."
    nets = list(nets)
    if not nets:
        raise ValueError("at least one network is needed for a mean")
    fused, states = copy.deepcopy(nets[0]), [net.state_dict() for net in nets]
    shapes = [{name: t.shape for name, t in state.items()} for state in states]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError("the networks have different parts: their numbers do not pair")
    fused.load_state_dict(
        {
            name: torch.stack([s[name].double() for s in states])
            .mean(0)
            .to(first.dtype)
            for name, first in states[0].items()
        }
    )
    return fused


def finds_3(net, X_ND, X_test, y_test):
    """Percent of the 3s found as the net is, and after its bias for 3 was raised until a
    tenth of its answers on X is 3; and then percent right of all."""
    with torch.no_grad():
        z_NC, z_test = net(X_ND), net(X_test)
    others = torch.cat([z_NC[:, :3], z_NC[:, 4:]], 1).max(1).values
    raised = z_test.clone()
    raised[:, 3] += (others - z_NC[:, 3]).quantile(0.1)
    three = y_test == 3
    raw, after = (
        100 * (z[three].argmax(1) == 3).float().mean().item() for z in (z_test, raised)
    )
    return raw, after, 100 * (raised.argmax(1) == y_test).float().mean().item()
