"""Chapter 25: its promises over five folds, and what LoRA learns from more text."""

import random
import re
from statistics import mean

import torch
import torch.nn.functional as F
from torch import nn

from utils.bench.ratio import Ratio, benchmark
from utils.built import bert, distill, lora


def few_labels(k, count=100):
    "{how a student learnt: its accuracy} on fold k, with `count` labels."
    X_ND, y_N, X_test, y_test = distill.fold(k)
    lot = torch.randperm(len(y_N), generator=torch.Generator().manual_seed(k))[:count]
    few = X_ND[lot], distill.by_labels(y_N[lot])
    teacher = distill.learn(distill.cnn(k), *few, 200, lr=1e-2, seed=k, shift=True)
    says_NC = teacher(X_ND).detach()
    lessons = {
        "alone": few,
        "hard": (X_ND, distill.by_labels(says_NC.argmax(1))),
        "soft, T = 1": (X_ND, distill.by_teacher(says_NC, 1)),
        "soft, T = 4": (X_ND, distill.by_teacher(says_NC, 4)),
        "all labels": (X_ND, distill.by_labels(y_N)),
    }
    reads = {"teacher": distill.accuracy(teacher, X_test, y_test)}
    for name, lesson in lessons.items():
        net = distill.learn(distill.mlp(16, 100 + k), *lesson, 400, seed=k)
        reads[name] = distill.accuracy(net, X_test, y_test)
    return reads


def _folds():
    torch.set_num_threads(1)
    found = [few_labels(k) for k in range(5)]
    note = ", ".join(f"{n} {mean(f[n] for f in found):.1f}" for n in found[0])
    return [f["hard"] - f["alone"] for f in found], note


@benchmark("distillation.few-labels.points", ">= 3")
def few():
    "Five folds, 100 labels: points of the student of all images ahead of the one alone."
    lead, note = _folds()
    return Ratio([mean(lead)], "points ahead in the mean, 100 labels", note)


@benchmark("distillation.few-labels.worst-fold", ">= 0.3")
def worst():
    "The same, in the fold where it is least."
    lead, _ = _folds()
    note = ", ".join(f"{x:+.1f}" for x in lead)
    return Ratio([min(lead)], "points ahead in the worst of five folds", note)


@benchmark("distillation.unseen-class", ">= 60")
def unseen():
    "Five folds: percent of the 3s found by a student that never saw one, bias raised."
    torch.set_num_threads(1)
    rows = []
    for k in range(5):
        X, y, X_test, y_test = distill.fold(k)
        teacher = distill.learn(distill.mlp(128, k), X, distill.by_labels(y), 500)
        seen = X[y != 3]
        by = distill.by_teacher(teacher(seen).detach(), 4)
        student = distill.learn(distill.mlp(64, 9 + k), seen, by, 500)
        rows.append(distill.finds_3(student, X, X_test, y_test))
    note = "as it is " + ", ".join(f"{raw:.0f}" for raw, *_ in rows)
    return Ratio([found for _, found, _ in rows], "percent of the 3s found", note)


class _Top(nn.Module):
    "MiniLM's upper layers with LoRA of rank r beside every matrix, and a head."

    def __init__(self, layers, classes, r):
        super().__init__()
        self.layers = layers.requires_grad_(False)
        self.head = nn.Linear(384, classes)
        for layer in self.layers:
            for name in ("query", "key", "value", "out", "up", "down"):
                setattr(layer, name, lora.LoRA(getattr(layer, name), r, 2 * r))

    def vector(self, h_BTE, mask_BT):
        for layer in self.layers:
            h_BTE = layer(h_BTE, mask_BT[:, None, None, :])
        weight = mask_BT[..., None].float()
        return F.normalize((h_BTE * weight).sum(1) / weight.sum(1), dim=-1)


def _pieces(count, words=10):
    "Pieces of Python's help; in every second one neighbours were swapped three times."
    from pydoc_data.topics import topics

    rng, found = random.Random(0), []
    for name in sorted(topics):
        w = re.findall(r"[A-Za-z][A-Za-z']+", topics[name])
        found += [w[i : i + words] for i in range(0, len(w) - words, words)]
    rng.shuffle(found)
    for w in found[1:count:2]:
        for _ in range(3):
            j = rng.randrange(words - 1)
            w[j], w[j + 1] = w[j + 1], w[j]
    return [" ".join(w) for w in found[:count]]


def _head(v, y, seen):
    "Percent right of a logistic regression on rows v, the best of three strengths."
    from sklearn.linear_model import LogisticRegression

    fits = (LogisticRegression(C=C, max_iter=2000).fit(v[:seen], y[:seen]) for C in (1, 30, 300))  # fmt: skip
    return 100 * max(fit.score(v[seen:], y[seen:]) for fit in fits)


def _lora(texts, y, seen, first, r, steps):
    "Percent right after the first `seen` texts: a head on frozen vectors, and LoRA."
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, (ids, mask) = bert.load(), bert.tokenize(texts, 24)
    top, parts, rows = _Top(model.layers[first:], len(set(y.tolist())), r), [], []
    with torch.no_grad():
        for i, m in zip(ids.split(100), mask.split(100)):
            x = model.tokens(i) + model.kinds.weight[0]
            x = model.norm(x + model.places(torch.arange(ids.shape[1])))
            for layer in model.layers[:first]:
                x = layer(x, m[:, None, None, :])
            parts.append(x)
            rows.append(top.vector(x, m))
    h, frozen = torch.cat(parts), _head(torch.cat(rows).numpy(), y.numpy(), seen)
    groups = [
        {"params": [p for p in top.layers.parameters() if p.requires_grad], "lr": 3e-3},
        {"params": list(top.head.parameters()), "lr": 1e-2},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, [3e-3, 1e-2], steps)
    made = torch.Generator().manual_seed(0)
    for _ in range(steps):
        i = torch.randint(seen, (16,), generator=made)
        loss = F.cross_entropy(top.head(20 * top.vector(h[i], mask[i])), y[i])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cycle.step()
    with torch.no_grad():
        pairs = zip(h[seen:].split(100), mask[seen:].split(100))
        z = torch.cat([top.head(20 * top.vector(x, m)) for x, m in pairs])
    return frozen, 100 * (z.argmax(1) == y[seen:]).float().mean().item()


@benchmark("distillation.lora.order", ">= 2")
def order():
    "Were words swapped? LoRA on three layers ahead of a head on frozen vectors, in points."
    head, right = _lora(_pieces(2000), torch.arange(2000) % 2, 1600, 3, 8, 150)
    note = f"head {head:.1f} %, LoRA {right:.1f} %, standard error 2.4"
    return Ratio([right - head], "points ahead, 1,600 pieces", note)


@benchmark("distillation.lora.topics", ">= -6")
def topics():
    "Which part of SciPy? 400 labels: LoRA against a head on frozen vectors, in points."
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts, y = lora.scipy_sentences(800)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    counted = _head(words.fit_transform(texts), y, 400)
    head, right = _lora(texts, torch.from_numpy(y), 400, 4, 4, 100)
    note = f"words {counted:.1f} %, head {head:.1f} %, LoRA {right:.1f} %"
    return Ratio([right - head], "points ahead, 400 labels", note)
