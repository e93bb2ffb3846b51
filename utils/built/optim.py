"""What chapter 04 builds: rules that turn a slope into a step, and what goes round them.

A rule is a function (w, grad, state, lr, ...) -> new w, new state: arrays of one shape,
nothing changed in place, state `{}` before the first step. `SGD` to `AdamW` apply a rule to
a list of parameters, anything with `.data` and `.grad`, and equal torch.optim's. They
look at shapes and values before each step; a bare rule does not.
"""

import math

import numpy as np

from utils import given

# ---- rules ----


def descent(w, grad, state, lr):
    "Chapter 01's step: against the slope, without memory."
    return w - lr * grad, state


def momentum(w, grad, state, lr, beta=0.9, nesterov=False):
    "Step along a fading sum m of slopes (Polyak 1964; nesterov as Sutskever 2013)."
    m = beta * state.get("m", 0.0) + grad
    ahead = grad + beta * m if nesterov else m
    return w - lr * ahead, {"m": m}


def adagrad(w, grad, state, lr, eps=1e-10):
    "Divide by the root of the sum v of squared slopes (Duchi, Hazan, Singer 2011)."
    v = state.get("v", 0.0) + grad**2
    return w - lr * grad / (np.sqrt(v) + eps), {"v": v}


def rmsprop(w, grad, state, lr, beta=0.99, eps=1e-8):
    "Divide by the root of a fading mean v of squared slopes (Tieleman, Hinton 2012)."
    v = beta * state.get("v", 0.0) + (1 - beta) * grad**2
    return w - lr * grad / (np.sqrt(v) + eps), {"v": v}


def adam(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    """Fading means m of the slope and v of its square, both freed of their start at 0.

    Kingma and Ba (2015).
    """
    t = state.get("t", 0) + 1
    m = beta1 * state.get("m", 0.0) + (1 - beta1) * grad
    v = beta2 * state.get("v", 0.0) + (1 - beta2) * grad**2
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    return w - lr * m_hat / (np.sqrt(v_hat) + eps), {"m": m, "v": v, "t": t}


def adamw(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    """Adam's step, and beside it every weight shrinks by the share lr * weight_decay.

    Loshchilov and Hutter (2019).
    """
    moved, state = adam(w, grad, state, lr, beta1, beta2, eps)
    return moved - lr * weight_decay * w, state


RULES = {
    rule.__name__: rule for rule in (descent, momentum, adagrad, rmsprop, adam, adamw)
}

# ---- the same for lists of parameters ----


class Optimizer:
    """Moves parameters (anything with .data and .grad) by a rule; a memory for each.

    parameters is a list; lr, weight decay (`l2`) and the rule's options are at least 0,
    a beta is below 1. ValueError or TypeError, before anything has moved.
    """

    def __init__(self, parameters, rule, lr, l2=0.0, **options):
        name = type(self).__name__
        if hasattr(parameters, "grad") or not hasattr(parameters, "__iter__"):
            raise TypeError(
                f"{name} takes a list, [w] or model.parameters(), not "
                f"{type(parameters).__name__}"
            )
        self.parameters, self.rule = list(parameters), given.function("rule", rule)
        self.lr, self.l2, self.options = lr, l2, options
        if not self.parameters:
            raise ValueError(f"{name} has no parameters: the list is empty or used up")
        for number, p in enumerate(self.parameters):
            if not (hasattr(p, "data") and hasattr(p, "grad")):
                kind = type(p).__name__
                raise TypeError(
                    f"parameter {number} is a {kind}, without .data and .grad"
                )
        if len({id(p) for p in self.parameters}) < len(self.parameters):
            raise ValueError(f"{name} was given a parameter twice: it would move twice")
        for option, value in {"weight_decay": l2, **options}.items():
            if option != "nesterov":
                given.number(f"{name}: {option}", value)
            if option.startswith("beta") and value >= 1:
                raise ValueError(f"{name}: {option} is below 1, not {value}")
        self._check_rate()
        self.states = [{} for _ in self.parameters]

    def step(self):
        "Move every parameter once, after a look at every gradient."
        self._check_rate()
        for number, p in enumerate(self.parameters):
            self._check_gradient(number, p)
        for number, p in enumerate(self.parameters):
            grad = p.grad + self.l2 * p.data if self.l2 else p.grad
            w, self.states[number] = self.rule(
                p.data, grad, self.states[number], self.lr, **self.options
            )
            p.data = np.asarray(w, p.data.dtype)

    def zero_grad(self):
        "Forget the gradients of the last step."
        for p in self.parameters:
            p.grad = None

    def _check_rate(self):
        if type(self.lr) is not float or not 0 <= self.lr < math.inf:
            given.number(f"{type(self).__name__}: lr", self.lr)

    def _check_gradient(self, number, p):
        who = f"parameter {number}, shape {np.shape(p.data)}"
        if p.grad is None:
            raise ValueError(
                f"{who}, has no gradient: was backward() called, and is it in the loss?"
            )
        if np.shape(p.grad) != np.shape(p.data):
            raise ValueError(f"{who}, has a gradient of shape {np.shape(p.grad)}")
        bad = np.size(p.grad) - np.count_nonzero(np.isfinite(p.grad))
        if bad:
            raise FloatingPointError(
                f"{who}: {bad} of {np.size(p.grad)} values of its gradient are nan or "
                "infinite; no parameter was moved"
            )


class SGD(Optimizer):
    "Gradient descent, with momentum (0 .. 1) or Nesterov's form of it if asked for."

    def __init__(
        self, parameters, lr=1e-3, momentum=0.0, weight_decay=0.0, nesterov=False
    ):
        if nesterov and not momentum:
            raise ValueError(
                "SGD: Nesterov's step looks ahead along a momentum above 0"
            )
        if not 0 <= given.number("SGD: momentum", momentum) < 1:
            raise ValueError(f"SGD: momentum is below 1, not {momentum}")
        super().__init__(
            parameters, RULES["momentum"], lr, weight_decay,
            beta=momentum, nesterov=bool(nesterov),
        )  # fmt: skip


class AdaGrad(Optimizer):
    "A rate for each weight, that only falls."

    def __init__(self, parameters, lr=1e-2, weight_decay=0.0, eps=1e-10):
        super().__init__(parameters, adagrad, lr, weight_decay, eps=eps)


class RMSProp(Optimizer):
    "A rate for each weight, from its recent slopes."

    def __init__(self, parameters, lr=1e-2, beta=0.99, weight_decay=0.0, eps=1e-8):
        super().__init__(parameters, rmsprop, lr, weight_decay, beta=beta, eps=eps)


class Adam(Optimizer):
    "Momentum and a rate for each weight; `weight_decay` is added to the slope (L2)."

    def __init__(
        self, parameters, lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0, eps=1e-8
    ):
        beta1, beta2 = _pair(betas)
        super().__init__(
            parameters, adam, lr, weight_decay, beta1=beta1, beta2=beta2, eps=eps
        )


def _pair(betas):
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ValueError(f"betas are two numbers, such as (0.9, 0.999), not {betas!r}")
    return betas


class AdamW(Optimizer):
    "Adam, with the weights shrunk beside the step instead of through the slope."

    def __init__(
        self, parameters, lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8
    ):
        beta1, beta2 = _pair(betas)
        super().__init__(
            parameters, adamw, lr,
            beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay,
        )  # fmt: skip


# ---- the rate over time, the start, the stop ----


def warmup_cosine(step, lr, warmup, total, final=0.0):
    """The rate of step 0, 1, ...: straight up to lr, half a cosine down, then `final`.

    lr, final are rates, warmup and total numbers of steps. Warm-up: Goyal and others
    (2017); the cosine: Loshchilov and Hutter (2017).
    """
    for name, value in {"step": step, "lr": lr, "final": final}.items():
        given.number(name, value)
    if not 0 <= warmup < total:
        raise ValueError(f"a warm-up of {warmup} steps does not fit into {total}")
    if step < warmup:
        return lr * (step + 1) / warmup
    done = min((step - warmup) / (total - warmup), 1.0)
    return final + (lr - final) * (1 + math.cos(math.pi * done)) / 2


def he_init(fan_in, fan_out, rng):
    "Weights (fan_in, fan_out) that keep a signal's size through ReLU (He et al. 2015)."
    fan_in = given.whole("fan_in", fan_in)
    return _normal(fan_in, fan_out, 2 / fan_in, rng)


def xavier_init(fan_in, fan_out, rng):
    """Weights (fan_in, fan_out) for tanh: between keeping the signal and its gradient.

    Glorot (Xavier) and Bengio (2010).
    """
    fan_in, fan_out = given.whole("fan_in", fan_in), given.whole("fan_out", fan_out)
    return _normal(fan_in, fan_out, 2 / (fan_in + fan_out), rng)


def _normal(fan_in, fan_out, variance, rng):
    shape = fan_in, given.whole("fan_out", fan_out)
    return given.generator(rng).normal(0.0, math.sqrt(variance), shape)


def soft_threshold(w, amount):
    """Every weight `amount` closer to 0, and exactly 0 where it was nearer than that.

    Any shape -> the same. The proximal step of L1 (Daubechies and others 2004).
    """
    given.number("amount", amount)
    return np.sign(w) * np.maximum(np.abs(w) - amount, 0.0)


class EarlyStopping:
    "Keeps a copy of the best weights; says stop once `patience` losses brought no better."

    def __init__(self, patience):
        self.patience, self.waited = given.whole("patience", patience), 0
        self.best_loss, self.best_weights = math.inf, None

    def update(self, loss, weights):
        "Note a validation loss and its weights (a list of arrays): -> stop now?"
        if not isinstance(weights, (list, tuple)):
            kind = type(weights).__name__
            raise TypeError(f"weights is a list of arrays, [w, b], not {kind}")
        if loss < self.best_loss:
            self.best_loss, self.waited = loss, 0
            self.best_weights = [np.array(w) for w in weights]
        else:
            self.waited += 1
        return self.waited >= self.patience


def shift_digits(X_ND, down, right):
    "Images (N, side * side) moved by whole pixels; what enters is 0: -> the same shape."
    X_ND = given.arrays(X_ND=X_ND)
    down = given.whole("down", down, least=-math.inf)
    right = given.whole("right", right, least=-math.inf)
    side = math.isqrt(X_ND.shape[1])
    if side**2 != X_ND.shape[1]:
        raise ValueError(f"{X_ND.shape[1]} pixels are not a square image")
    images_NHW = X_ND.reshape(-1, side, side)
    moved_NHW = np.zeros_like(images_NHW)
    to_rows, from_rows = _overlap(down, side)
    to_columns, from_columns = _overlap(right, side)
    moved_NHW[:, to_rows, to_columns] = images_NHW[:, from_rows, from_columns]
    return moved_NHW.reshape(X_ND.shape)


def _overlap(shift, side):
    "Where pixels land and where they come from along one axis, as two slices."
    shift = max(-side, min(side, shift))
    return slice(max(shift, 0), side + min(shift, 0)), slice(
        max(-shift, 0), side + min(-shift, 0)
    )
