"""What chapter 04 builds: rules that turn a slope into a step, and what goes round them.

A rule is a function (w, grad, state, lr, ...) -> new w, new state: arrays of one shape,
nothing changed in place, state `{}` before the first step. `SGD` to `AdamW` apply a rule to
a list of parameters, anything with `.data` and `.grad`, and equal torch.optim's.
"""

import math

import numpy as np

# ---- rules ----


def descent(w, grad, state, lr):
    "Chapter 01's step: against the slope, without memory."
    return w - lr * grad, state


def momentum(w, grad, state, lr, beta=0.9, nesterov=False):
    "Step along a fading sum m of all slopes so far."
    m = beta * state.get("m", 0.0) + grad
    ahead = grad + beta * m if nesterov else m
    return w - lr * ahead, {"m": m}


def adagrad(w, grad, state, lr, eps=1e-10):
    "Divide each weight's step by the root of the sum v of its squared slopes."
    v = state.get("v", 0.0) + grad**2
    return w - lr * grad / (np.sqrt(v) + eps), {"v": v}


def rmsprop(w, grad, state, lr, beta=0.99, eps=1e-8):
    "Divide each weight's step by the root of a fading mean v of its squared slopes."
    v = beta * state.get("v", 0.0) + (1 - beta) * grad**2
    return w - lr * grad / (np.sqrt(v) + eps), {"v": v}


def adam(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    "Fading means m of the slope and v of its square, both freed of their start at 0."
    t = state.get("t", 0) + 1
    m = beta1 * state.get("m", 0.0) + (1 - beta1) * grad
    v = beta2 * state.get("v", 0.0) + (1 - beta2) * grad**2
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    return w - lr * m_hat / (np.sqrt(v_hat) + eps), {"m": m, "v": v, "t": t}


def adamw(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    "Adam's step, and beside it every weight shrinks by the share lr * weight_decay."
    moved, state = adam(w, grad, state, lr, beta1, beta2, eps)
    return moved - lr * weight_decay * w, state


RULES = {
    rule.__name__: rule for rule in (descent, momentum, adagrad, rmsprop, adam, adamw)
}

# ---- the same for lists of parameters ----


class Optimizer:
    "Moves parameters (anything with .data and .grad) by a rule; memory for each of them."

    def __init__(self, parameters, rule, lr, l2=0.0, **options):
        self.parameters, self.rule = list(parameters), rule
        self.lr, self.l2, self.options = lr, l2, options
        name = type(self).__name__
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
            below = 1 if option.startswith("beta") else math.inf
            if not 0 <= value < below:
                limit = " and below 1" if below == 1 else ""
                raise ValueError(f"{name}: {option} is at least 0{limit}, not {value}")
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
        if not 0 <= self.lr < math.inf:
            name = type(self).__name__
            raise ValueError(f"{name}: lr is a number of at least 0, not {self.lr}")

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
    "Gradient descent, with momentum if asked for."

    def __init__(
        self, parameters, lr=1e-3, momentum=0.0, weight_decay=0.0, nesterov=False
    ):
        if nesterov and not momentum:
            raise ValueError(
                "SGD: Nesterov's step looks ahead along a momentum above 0"
            )
        super().__init__(
            parameters, RULES["momentum"], lr, weight_decay,
            beta=momentum, nesterov=nesterov,
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
        beta1, beta2 = betas
        super().__init__(
            parameters, adam, lr, weight_decay, beta1=beta1, beta2=beta2, eps=eps
        )


class AdamW(Optimizer):
    "Adam, with the weights shrunk beside the step instead of through the slope."

    def __init__(
        self, parameters, lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8
    ):
        beta1, beta2 = betas
        super().__init__(
            parameters, adamw, lr,
            beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay,
        )  # fmt: skip


# ---- the rate over time, the start, the stop ----


def warmup_cosine(step, lr, warmup, total, final=0.0):
    "The rate of step 0, 1, ...: a straight climb to lr, half a cosine down, then `final`."
    if not 0 <= warmup < total:
        raise ValueError(f"a warm-up of {warmup} steps does not fit into {total}")
    if step < warmup:
        return lr * (step + 1) / warmup
    done = min((step - warmup) / (total - warmup), 1.0)
    return final + (lr - final) * (1 + math.cos(math.pi * done)) / 2


def he_init(fan_in, fan_out, rng):
    "Weights (fan_in, fan_out) that keep the size of a signal through ReLU."
    return rng.normal(0.0, math.sqrt(2 / fan_in), (fan_in, fan_out))


def xavier_init(fan_in, fan_out, rng):
    "Weights (fan_in, fan_out) for tanh: between keeping the signal and its gradient."
    return rng.normal(0.0, math.sqrt(2 / (fan_in + fan_out)), (fan_in, fan_out))


def soft_threshold(w, amount):
    "Every weight `amount` closer to 0, and exactly 0 where it was nearer than that."
    if not amount >= 0:
        raise ValueError(f"weights are moved towards 0 by at least 0, not by {amount}")
    return np.sign(w) * np.maximum(np.abs(w) - amount, 0.0)


class EarlyStopping:
    "Keeps a copy of the best weights; says stop once `patience` losses brought no better."

    def __init__(self, patience):
        if patience < 1:
            raise ValueError(f"patience is at least one epoch, not {patience}")
        self.patience, self.waited = patience, 0
        self.best_loss, self.best_weights = math.inf, None

    def update(self, loss, weights):
        "Note a validation loss and its weights (a list of arrays): -> stop now?"
        if loss < self.best_loss:
            self.best_loss, self.waited = loss, 0
            self.best_weights = [np.array(w) for w in weights]
        else:
            self.waited += 1
        return self.waited >= self.patience


def shift_digits(X_ND, down, right):
    "Images (N, side * side) moved by whole pixels; what enters is 0: -> the same shape."
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
