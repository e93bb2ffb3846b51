"""What chapter 19 builds of pipelines: orders of work, their clock, and ranks that play them.

An action is (kind, micro-batch, stage): "F" forward, "B" backward, and where a schedule
parts it, "B" the input's gradient and "W" the weights'. An order is one rank's list of
actions; p ranks hold stage s on rank s % p. After Huang and others, GPipe (2018),
https://arxiv.org/abs/1811.06965; Narayanan and others (2021),
https://arxiv.org/abs/2104.04473 (1F1B, interleaved); Qi and others, Zero Bubble (2024),
https://arxiv.org/abs/2401.10241.
"""

import time

import torch
from torch import distributed as dist

from utils import given

# ---- orders ----


def gpipe(p, m, rank):
    "All forward, then all backward: -> [(kind, micro-batch, stage), ...]."
    p, m, rank = _sizes(p, m, rank)
    return [(kind, i, rank) for kind in "FB" for i in range(m)]


def order_1f1b(p, m, rank):
    "p - rank - 1 forward to fill the pipe, then one forward, one backward, then the rest."
    p, m, rank = _sizes(p, m, rank)
    warm = min(p - rank - 1, m)
    order = [("F", i, rank) for i in range(warm)]
    for i in range(m - warm):
        order += [("F", warm + i, rank), ("B", i, rank)]
    return order + [("B", i, rank) for i in range(m - warm, m)]


def interleaved(p, m, rank, v=2):
    "1F1B with v stages per rank, of every p-th each; m a multiple of p."
    p, m, rank = _sizes(p, m, rank)
    v = given.whole("v", v)
    if m % p:
        raise ValueError(f"m = {m} micro-batches do not go round p = {p} ranks evenly")

    def action(kind, k):
        chunk = k % (p * v) // p
        chunk = chunk if kind == "F" else v - 1 - chunk
        return kind, k // (p * v) * p + k % p, chunk * p + rank

    warm = min(2 * (p - rank - 1) + (v - 1) * p, m * v)
    order = [action("F", k) for k in range(warm)]
    for k in range(m * v - warm):
        order += [action("F", warm + k), action("B", k)]
    return order + [action("B", k) for k in range(m * v - warm, m * v)]


def zero_bubble(p, m, rank):
    "1F1B with B parted from W, and W of micro-batch i - rank behind B of i (ZB-H1)."
    order = []
    for kind, i, stage in order_1f1b(p, m, rank):
        order.append((kind, i, stage))
        if kind == "B" and i >= rank:
            order.append(("W", i - rank, stage))
    return order + [("W", i, rank) for i in range(max(m - rank, 0), m)]


def schedules(p, m, v=2):
    "{name: one order per rank}: the four of chapter 19; m a multiple of p."
    of = {
        "GPipe": gpipe,
        "1F1B": order_1f1b,
        "interleaved": lambda p, m, rank: interleaved(p, m, rank, v),
        "zero bubble": zero_bubble,
    }
    return {name: [order(p, m, r) for r in range(p)] for name, order in of.items()}


def seconds_of(name, backward=2.0, v=2):
    "{kind: seconds} where a stage's F takes 1 and its whole backward `backward`."
    if name == "interleaved":
        return {"F": 1 / v, "B": backward / v}
    if name == "zero bubble":
        return {"F": 1.0, "B": backward / 2, "W": backward / 2}
    return {"F": 1.0, "B": backward}


# ---- a clock ----


def needs(action, stages):
    "The action of another stage that this one waits for, or None."
    kind, i, stage = action
    if kind == "F" and stage > 0:
        return "F", i, stage - 1
    if kind == "B" and stage < stages - 1:
        return "B", i, stage + 1
    return None  # what else it needs stands earlier in the same rank's order


def simulate(orders, seconds, slow=()):
    """When each rank does what: -> [[(start, end, action), ...] of each rank].

    seconds: {kind: seconds of one action}; slow: {rank: factor}. An action starts when
    its rank is free and what it needs has ended. RuntimeError where none can.
    """
    stages = 1 + max((a[2] for order in orders for a in order), default=0)
    for kind in sorted({a[0] for order in orders for a in order} - set(seconds)):
        raise ValueError(f"seconds says nothing of {kind!r}: {{kind: seconds}}")
    slow = dict(slow)
    ends, spans = {None: 0.0}, [[] for _ in orders]
    todo = [list(order) for order in orders]
    while any(todo):
        left = sum(map(len, todo))
        for rank, order in enumerate(todo):
            while order and needs(order[0], stages) in ends:
                action = order.pop(0)
                free = spans[rank][-1][1] if spans[rank] else 0.0
                start = max(free, ends[needs(action, stages)])
                takes = seconds[action[0]] * slow.get(rank, 1)
                ends[action] = start + takes
                spans[rank].append((start, ends[action], action))
        if left == sum(map(len, todo)):
            waits = [order[0] if order else None for order in todo]
            raise RuntimeError(f"no rank can go on; next in the orders: {waits}")
    return spans


def idle_share(spans):
    "The bubble: the share of all ranks' time, first start to last end, without work."
    whole = max(s[-1][1] for s in spans) - min(s[0][0] for s in spans)
    busy = sum(end - start for s in spans for start, end, _ in s)
    return 1 - busy / (whole * len(spans))


def in_flight(order):
    "The most (micro-batch, stage) pairs whose inputs are held at one time: till W, or B."
    last = "W" if any(kind == "W" for kind, _, _ in order) else "B"
    now, most = 0, 0
    for kind, _, _ in order:
        now += (kind == "F") - (kind == last)
        most = max(most, now)
    return most


# ---- ranks that play an order ----


class Late(torch.autograd.Function):
    "x w' whose weight gradient waits: backward puts (grad, x) into `queue`."

    @staticmethod
    def forward(ctx, x_BE, w_HE, queue):
        ctx.save_for_backward(x_BE, w_HE)
        ctx.queue = queue
        return x_BE @ w_HE.T

    @staticmethod
    def backward(ctx, grad_BH):
        x_BE, w_HE = ctx.saved_tensors
        ctx.queue.append((grad_BH, x_BE))
        return grad_BH @ w_HE, None, None


class Player:
    """One rank of a pipeline of layers tanh(x w'), which plays its order.

        player = Player(rank, p, {stage: w_EE}, X_GBE, Y_GBE)
        player.play(order)               # ["grads"] {stage: (E, E)}, ["loss"], ["spans"]

    The loss is the mean square over all micro-batches; the last stage's rank has it.
    pause: {kind: seconds} to sleep in each action, as if it computed so long.
    """

    def __init__(self, rank, p, weights, X_GBE, Y_GBE, pause=()):
        self.rank, self.p, self.weights = rank, p, weights
        self.X_GBE, self.Y_GBE, self.pause = X_GBE, Y_GBE, dict(pause)
        self.stages = p * len(weights)

    def play(self, order):
        "Do every action of the order: -> a dict of what came out."
        self.held, self.queues, self.flying = {}, {}, []
        self.grads = {s: torch.zeros_like(w) for s, w in self.weights.items()}
        self.loss, self.most, spans = 0.0, 0, []
        split = any(kind == "W" for kind, _, _ in order)
        dist.barrier()
        began = time.perf_counter()
        for action in order:
            arrived = self.receive(action)
            start = time.perf_counter()
            made = getattr(self, action[0])(*action[1:], arrived)
            if action[0] == "B" and not split:
                self.W(*action[1:])
            time.sleep(self.pause.get(action[0], 0))
            spans.append((start - began, time.perf_counter() - began, action))
            self.send(action, made)
        for work in self.flying:
            work.wait()
        dist.barrier()
        return {
            "grads": self.grads,
            "loss": self.loss,
            "spans": spans,
            "most": self.most,
        }

    def receive(self, action):
        "What another stage has made for this action, or None."
        source = needs(action, self.stages)
        if source is None:
            return None
        arriving = torch.empty_like(self.X_GBE[0])
        dist.recv(arriving, source[2] % self.p, tag=self.tag(source))
        return arriving

    def send(self, action, made):
        "Let what this action made leave, if another stage needs it; do not wait."
        kind, _, stage = action
        to = {"F": stage + 1, "B": stage - 1}.get(kind, -1)
        if 0 <= to < self.stages:
            tag = self.tag(action)
            self.flying.append(dist.isend(made, to % self.p, tag=tag))

    def tag(self, action):
        "A number for the message that this action makes."
        kind, i, stage = action
        return 2 * (i * self.stages + stage) + (kind == "B")

    def F(self, i, stage, x_BE):
        x_BE = self.X_GBE[i].clone() if x_BE is None else x_BE
        x_BE.requires_grad_()
        queue = self.queues.setdefault((i, stage), [])
        y_BE = torch.tanh(Late.apply(x_BE, self.weights[stage], queue))
        self.held[i, stage] = x_BE, y_BE
        self.most = max(self.most, len(self.queues))  # their inputs are held
        return y_BE.detach()

    def B(self, i, stage, grad_BE):
        x_BE, y_BE = self.held.pop((i, stage))
        if grad_BE is None:  # the last stage begins with the loss
            gap_BE = y_BE.detach() - self.Y_GBE[i]
            self.loss += gap_BE.square().mean().item() / len(self.X_GBE)
            grad_BE = 2 * gap_BE / self.Y_GBE.numel()
        y_BE.backward(grad_BE)
        return x_BE.grad

    def W(self, i, stage, arrived=None):
        for grad_BH, x_BE in self.queues.pop((i, stage)):
            self.grads[stage] += grad_BH.T @ x_BE.detach()


def _sizes(p, m, rank):
    p, m = given.whole("p, the ranks,", p), given.whole("m, the micro-batches,", m)
    return p, m, given.whole("rank", rank, 0, p - 1)
