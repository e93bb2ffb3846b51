"""Five networks of one shape trained at once, each on its own folds of the digits.

Image n belongs to fold n % 5. Network k is tested on fold k, its thresholds are chosen
on fold k + 1 (its validation rows), and it is trained on the other three. Small networks
spend their time on calls, not on products: five at once cost little more than one.
Built for chapter 26.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils import data, given
from utils.built import compute

FOLDS = 5


class Digits:
    "All 1,797 digits with their folds."

    def __init__(self):
        X_ND, y_N, X_test, y_test = data.digits()
        self.X_ND = torch.from_numpy(np.concatenate([X_ND, X_test])).float()
        self.y_N = torch.from_numpy(np.concatenate([y_N, y_test]))
        self.fold_N = torch.arange(len(self.y_N)) % FOLDS

    def tested(self, k):
        "Which rows network k is judged by (N,)."
        return self.fold_N == k

    def validated(self, k):
        "Which rows network k's thresholds are chosen on (N,)."
        return self.fold_N == (k + 1) % FOLDS

    def trained(self, k):
        "Which rows network k learns from (N,)."
        return ~(self.tested(k) | self.validated(k))


class Nets(nn.Module):
    "Five networks with these widths, as one: x (K, B, D) -> logits (K, B, C)."

    def __init__(self, widths):
        super().__init__()
        self.widths = [given.whole("a width", width) for width in widths]
        if len(self.widths) < 2:
            raise ValueError(
                "widths: of the inputs, of each hidden layer, of the outputs"
            )
        chains = []
        for k in range(FOLDS):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(k)
                chains.append(
                    [nn.Linear(a, b) for a, b in zip(self.widths, self.widths[1:])]
                )
        self.weights = nn.ParameterList(
            torch.stack([layer.weight.data for layer in at]) for at in zip(*chains)
        )
        self.biases = nn.ParameterList(
            torch.stack([layer.bias.data for layer in at]) for at in zip(*chains)
        )

    def forward(self, x_KBD, scales=None):
        "scales: for each layer what its inputs are multiplied by (K, D) or (D,), or None."
        for i, (W_KHD, b_KH) in enumerate(zip(self.weights, self.biases)):
            if i:
                x_KBD = x_KBD.relu()
            if scales is not None:
                x_KBD = x_KBD * scales[i].reshape(-1, 1, scales[i].shape[-1])
            x_KBD = torch.baddbmm(b_KH[:, None], x_KBD, W_KHD.mT)
        return x_KBD

    def layers(self, k):
        "Network k's linear layers, as a list of nn.Linear."
        found = []
        for W_KHD, b_KH in zip(self.weights, self.biases):
            layer = nn.Linear(W_KHD.shape[2], W_KHD.shape[1])
            layer.weight.data, layer.bias.data = W_KHD[k].data, b_KH[k].data
            found.append(layer)
        return found

    def net(self, k):
        "Network k as an nn.Sequential."
        parts = [part for layer in self.layers(k) for part in (layer, nn.ReLU())]
        return nn.Sequential(*parts[:-1])


def train(
    nets, digits, epochs=30, lr=6e-3, extra=(), extra_lr=5e-2, forward=None, size=128
):
    """Train five networks at once with AdamW and one cycle of the rate -> nets.

    forward(nets, x_KBD, progress) -> (logits_KBC, penalty); extra: parameters with a
    rate of their own and without decay.
    """
    epochs = given.whole("epochs", epochs)
    rows = [torch.nonzero(digits.trained(k))[:, 0] for k in range(FOLDS)]
    least = min(map(len, rows))
    rows_KN = torch.stack([row_N[:least] for row_N in rows])
    groups = [{"params": list(nets.parameters()), "lr": lr}]
    if extra:
        groups.append({"params": list(extra), "lr": extra_lr, "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups)
    per_epoch = least // size
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], epochs * per_epoch
    )
    dice = torch.Generator().manual_seed(0)
    for step in range(epochs * per_epoch):
        if step % per_epoch == 0:
            order_N = torch.randperm(least, generator=dice)
        at = step % per_epoch * size
        batch_KB = rows_KN[:, order_N[at : at + size]]
        x_KBD, y_KB = digits.X_ND[batch_KB], digits.y_N[batch_KB]
        if forward is None:
            logits_KBC, penalty = nets(x_KBD), 0.0
        else:
            logits_KBC, penalty = forward(nets, x_KBD, step / (epochs * per_epoch))
        loss = (
            FOLDS * F.cross_entropy(logits_KBC.flatten(0, 1), y_KB.flatten()) + penalty
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cycle.step()
    return nets


@torch.no_grad()
def logits(nets, digits, scales=None):
    "What each of the five says to every image: (K, N, C)."
    return nets(digits.X_ND.expand(FOLDS, -1, -1), scales)


def unseen(logits_KNC, digits):
    "For each image what the network says that is tested on it: (N, C)."
    return logits_KNC[digits.fold_N, torch.arange(len(digits.fold_N))]


def percent(logits_NC, y_N):
    "Percent right."
    return 100 * (logits_NC.argmax(-1) == y_N).double().mean().item()


class Gates(nn.Module):
    "Parameters of gates on the inputs and the hidden layers of five networks."

    def __init__(self, widths):
        super().__init__()
        self.a = nn.ParameterList(torch.full((FOLDS, n), 2.0) for n in widths[:-1])
        self.generator = torch.Generator().manual_seed(0)

    def dice(self):
        "Uniform numbers for one draw of all gates: a list of (K, n), never 0 or 1."
        return [uniform(a_KN.shape, self.generator) for a_KN in self.a]

    def still(self):
        "The gates that are used after training: a list of (K, n)."
        return [compute.still_gates(a_KN.detach()) for a_KN in self.a]


def uniform(shape, generator):
    "Uniform numbers, never exactly 0 or 1."
    return torch.rand(shape, generator=generator).clamp(1e-6, 1 - 1e-6)


class Pair:
    "Two networks in a row, five times: the first may answer, or ask the second."

    def __init__(self, digits, first, second):
        self.digits = digits
        self.costs = compute.macs(first.net(0)), compute.macs(second.net(0))
        self.logits1_KNC, self.logits2_KNC = (
            logits(first, digits),
            logits(second, digits),
        )
        self.sure_KN = self.logits1_KNC.softmax(-1).amax(-1)
        self.right1_KN, self.loss1_KN = self._scored(self.logits1_KNC)
        self.right2_KN, self.loss2_KN = self._scored(self.logits2_KNC)

    def _scored(self, logits_KNC):
        y_KN = self.digits.y_N.expand(FOLDS, -1)
        loss_KN = F.cross_entropy(logits_KNC.mT, y_KN, reduction="none")
        return logits_KNC.argmax(-1) == y_KN, loss_KN

    def judge(self, stops_KN):
        "(mean multiply-adds, percent right) on unseen rows, where pair k stops at stops[k]."
        at = self.digits.fold_N, torch.arange(len(self.digits.fold_N))
        stops_N = stops_KN[at]
        right_N = torch.where(stops_N, self.right1_KN[at], self.right2_KN[at])
        cost = self.costs[0] + self.costs[1] * (~stops_N).double().mean().item()
        return cost, 100 * right_N.double().mean().item()

    def by_price(self, price):
        "Who stops (K, N) at the thresholds with the least validation loss + price * cost / 1000."
        toll, stops = price * self.costs[1] / 1000, []
        for k in range(FOLDS):
            rows_N = self.digits.validated(k)
            sure_V, loss1_V, loss2_V = (
                x_KN[k, rows_N] for x_KN in (self.sure_KN, self.loss1_KN, self.loss2_KN)
            )
            candidates_T = torch.cat([sure_V.unique(), torch.tensor([torch.inf])])
            pays_TV = torch.where(
                sure_V >= candidates_T[:, None], loss1_V, loss2_V + toll
            )
            stops.append(self.sure_KN[k] >= candidates_T[pays_TV.mean(1).argmin()])
        return torch.stack(stops)
