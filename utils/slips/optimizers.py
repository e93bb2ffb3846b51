import numpy as np

from utils.built import optim as right
from utils.checks import optimizers as ex

# ---- momentum ----


@ex.momentum.slip(
    "No memory: m forgot the first slope. Is the new state returned, and read?"
)
def forgets_the_state(w, grad, state, lr, beta=0.9):
    m = beta * state.get("m", 0.0) + grad
    return w - lr * m, {}


@ex.momentum.slip(
    "This is an average, (1 - beta) * slope: here the slopes add up, and Adam averages later."
)
def averaged(w, grad, state, lr, beta=0.9):
    m = beta * state.get("m", 0.0) + (1 - beta) * grad
    return w - lr * m, {"m": m}


@ex.momentum.slip("Uphill: subtract.")
def uphill(w, grad, state, lr, beta=0.9):
    m = beta * state.get("m", 0.0) + grad
    return w + lr * m, {"m": m}


@ex.momentum.slip("This looks ahead (Nesterov's variant): here the step goes along m.")
def looks_ahead(w, grad, state, lr, beta=0.9):
    m = beta * state.get("m", grad * 0) + grad
    step = grad + beta * m if state else m
    return w - lr * step, {"m": m}


@ex.momentum.slip("Nothing fades: the old m counts beta times.")
def never_fades(w, grad, state, lr, beta=0.9):
    m = state.get("m", 0.0) + grad
    return w - lr * m, {"m": m}


@ex.momentum.slip(
    "The old rate is still in the memory: keep slopes in m, and multiply by lr when you step."
)
def rate_inside(w, grad, state, lr, beta=0.9):
    m = beta * state.get("m", 0.0) + lr * grad
    return w - m, {"m": m}


_kept = {"m": 0.0}


@ex.momentum.slip(
    "The last walk is still remembered: keep the memory in `state`, not in a global name or a default argument."
)
def one_global_memory(w, grad, state, lr, beta=0.9):
    _kept["m"] = beta * _kept["m"] + grad
    return w - lr * _kept["m"], {}


@ex.momentum.slip("It should return two things: the new w and the new state.")
def only_w(w, grad, state, lr, beta=0.9):
    return w - lr * grad


@ex.momentum.slip(told="changes its input in place")
def in_place(w, grad, state, lr, beta=0.9):
    m = beta * state.get("m", 0.0) + grad
    w -= lr * m
    return w, {"m": m}


@ex.momentum.slip("Beta belongs to the old m, not to today's slope.")
def fades_today(w, grad, state, lr, beta=0.9):
    m = state["m"] + beta * grad if state else grad
    return w - lr * m, {"m": m}


@ex.momentum.slip(
    "The state holds the caller's own `grad`, which changes later: store a new array, as beta * 0.0 + grad is."
)
def keeps_the_callers_array(w, grad, state, lr, beta=0.9):
    m = beta * state["m"] + grad if "m" in state else grad
    return w - lr * m, {"m": m}


@ex.momentum.slip("Beta fades the old m alone: today's slope counts whole.")
def fades_the_sum(w, grad, state, lr, beta=0.9):
    m = beta * (state.get("m", 0.0) + grad)
    return w - lr * m, {"m": m}


@ex.momentum.slip("The learning rate is missing.")
def momentum_no_rate(w, grad, state, lr, **options):
    return right.momentum(w, grad, state, 1.0, **options)


@ex.momentum.slip("w has not moved.")
def momentum_stands(w, grad, state, lr, **options):
    return w, right.momentum(w, grad, state, lr, **options)[1]


@ex.momentum.slip("This is the step alone: take it from w.")
def momentum_step_alone(w, grad, state, lr, **options):
    moved, state = right.momentum(w, grad, state, lr, **options)
    return moved - w, state


@ex.momentum.slip(told="changes its input in place")
def momentum_writes_into_state(w, grad, state, lr, **options):
    moved, new = right.momentum(w, grad, state, lr, **options)
    state.update(new)
    return moved, state


@ex.momentum.slip("The slope is counted twice: before the first step m is 0.")
def starts_at_the_slope(w, grad, state, lr, beta=0.9):
    m = beta * state.get("m", grad) + grad
    return w - lr * m, {"m": m}


@ex.momentum.slip("The sign of the memory is turned: the old slopes push on.")
def memory_turned(w, grad, state, lr, beta=0.9):
    m = grad - beta * state.get("m", 0.0)
    return w - lr * m, {"m": m}


@ex.momentum.slip("`beta` is an argument: you used 0.9 whatever it is.")
def own_beta(w, grad, state, lr, beta=0.9):
    return right.momentum(w, grad, state, lr, 0.9)


@ex.momentum.slip(
    "Only the slope before today's is remembered: m keeps all of them, fading."
)
def two_slopes_only(w, grad, state, lr, beta=0.9):
    return w - lr * (beta * state.get("m", 0.0) + grad), {"m": grad * 1.0}


@ex.momentum.slip("The step goes along the old m: today's slope belongs to it.")
def along_the_old(w, grad, state, lr, beta=0.9):
    old = state.get("m", 0.0 * grad)
    return w - lr * old, {"m": beta * old + grad}


# ---- adagrad ----


def _adagrad(w, grad, state, lr, eps, v=None, root=np.sqrt, keep=True):
    v = state.get("v", 0.0) + grad**2 if v is None else v
    return w - lr * grad / (root(v) + eps), {"v": v} if keep else {}


@ex.adagrad.slip("The root is missing: slope over its square.")
def no_root(w, grad, state, lr, eps=1e-10):
    return _adagrad(w, grad, state, lr, eps, root=lambda v: v)


@ex.adagrad.slip("v forgot the first slope. Is the new state returned, and read?")
def sign_step(w, grad, state, lr, eps=1e-10):
    return _adagrad(w, grad, state, lr, eps, keep=False)


@ex.adagrad.slip("v should add squares: here it is the sum of the sizes.")
def sizes(w, grad, state, lr, eps=1e-10):
    v = state.get("v", 0.0) + np.abs(grad)
    return w - lr * grad / (v + eps), {"v": v}


@ex.adagrad.slip("One v for all weights: keep one for each, without .sum() or norm.")
def one_for_all(w, grad, state, lr, eps=1e-10):
    return _adagrad(w, grad, state, lr, eps, v=state.get("v", 0.0) + (grad**2).sum())


@ex.adagrad.slip("eps is not used: 0 / 0 is nan, and that is what it is for.")
def without_eps(w, grad, state, lr, eps=1e-10):
    with np.errstate(all="ignore"):
        return _adagrad(w, grad, state, lr, 0.0)


@ex.adagrad.slip("eps stands beside the root, not under it.")
def eps_inside(w, grad, state, lr, eps=1e-10):
    v = state.get("v", 0.0) + grad**2
    return w - lr * grad / np.sqrt(v + eps), {"v": v}


@ex.adagrad.slip("v was updated after the step: today's slope counts too.")
def late(w, grad, state, lr, eps=1e-10):
    v = state.get("v", grad**2)
    new = v + grad**2 if state else v
    return w - lr * grad / (np.sqrt(v) + eps), {"v": new}


@ex.adagrad.slip("This is the mean of the squares: AdaGrad keeps the sum.")
def mean_of_squares(w, grad, state, lr, eps=1e-10):
    n, total = state.get("n", 0) + 1, state.get("v", 0.0) + grad**2
    return w - lr * grad / (np.sqrt(total / n) + eps), {"v": total, "n": n}


@ex.adagrad.slip(
    "Is eps inside the brackets? / (np.sqrt(...) + eps) divides by both; without them eps is added to the weight."
)
def eps_outside(w, grad, state, lr, eps=1e-10):
    v = state.get("v", 0.0) + grad**2
    return w - lr * grad / np.sqrt(v) + eps, {"v": v}


@ex.adagrad.slip("The learning rate is missing.")
def adagrad_no_rate(w, grad, state, lr, **options):
    return right.adagrad(w, grad, state, 1.0, **options)


@ex.adagrad.slip("w has not moved.")
def adagrad_stands(w, grad, state, lr, **options):
    return w, right.adagrad(w, grad, state, lr, **options)[1]


@ex.adagrad.slip("This is the step alone: take it from w.")
def adagrad_step_alone(w, grad, state, lr, **options):
    moved, state = right.adagrad(w, grad, state, lr, **options)
    return moved - w, state


@ex.adagrad.slip(told="changes its input in place")
def adagrad_writes_into_state(w, grad, state, lr, **options):
    moved, new = right.adagrad(w, grad, state, lr, **options)
    state.update(new)
    return moved, state


@ex.adagrad.slip("Every weight moves by its slope: is the division there?")
def plain_descent(w, grad, state, lr, eps=1e-10):
    return w - lr * grad, {"v": grad**2}


@ex.adagrad.slip("The slopes were added first and squared after: square each one.")
def square_of_the_sum(w, grad, state, lr, eps=1e-10):
    total = state.get("v", 0.0) + grad
    return w - lr * grad / (np.abs(total) + eps), {"v": total}


@ex.adagrad.slip("`eps` is an argument: you used 1e-10 whatever it is.")
def own_eps(w, grad, state, lr, eps=1e-10):
    return right.adagrad(w, grad, state, lr)


@ex.adagrad.slip("Uphill: subtract.")
def adagrad_uphill(w, grad, state, lr, eps=1e-10):
    return right.adagrad(w, grad, state, -lr, eps)


@ex.adagrad.slip("This is the largest slope so far: AdaGrad adds up all the squares.")
def largest_so_far(w, grad, state, lr, eps=1e-10):
    v = np.maximum(state.get("v", 0.0), grad**2)
    return w - lr * grad / (np.sqrt(v) + eps), {"v": v}


@ex.adagrad.slip(
    "v holds the root: keep the squares in v, take the root when you step."
)
def stores_the_root(w, grad, state, lr, eps=1e-10):
    v = np.sqrt(state.get("v", 0.0) + grad**2)
    return w - lr * grad / (v + eps), {"v": v}


# ---- rmsprop ----


def _rmsprop(
    w, grad, state, lr, eps, old, new, root=np.sqrt, square=np.square, keep=True
):
    v = old * state.get("v", 0.0) + new * square(grad)
    return w - lr * grad / (root(v) + eps), {"v": v} if keep else {}


@ex.rmsprop.slip("v is a sum here: today's square counts 1 - beta parts.")
def adds(w, grad, state, lr, beta=0.99, eps=1e-8):
    return _rmsprop(w, grad, state, lr, eps, beta, 1)


@ex.rmsprop.slip("The parts are swapped: beta for the old v, 1 - beta for today.")
def swapped(w, grad, state, lr, beta=0.99, eps=1e-8):
    return _rmsprop(w, grad, state, lr, eps, 1 - beta, beta)


@ex.rmsprop.slip("Nothing fades: the old v counts beta times.")
def old_counts_whole(w, grad, state, lr, beta=0.99, eps=1e-8):
    return _rmsprop(w, grad, state, lr, eps, 1, 1 - beta)


@ex.rmsprop.slip("The root is missing: slope over its mean square.")
def rms_no_root(w, grad, state, lr, beta=0.99, eps=1e-8):
    return _rmsprop(w, grad, state, lr, eps, beta, 1 - beta, root=lambda v: v)


@ex.rmsprop.slip("The slope is not squared in v.")
def not_squared(w, grad, state, lr, beta=0.99, eps=1e-8):
    with np.errstate(all="ignore"):
        return _rmsprop(w, grad, state, lr, eps, beta, 1 - beta, square=lambda g: g)


@ex.rmsprop.slip("v forgot the first slope. Is the new state returned, and read?")
def rms_forgets(w, grad, state, lr, beta=0.99, eps=1e-8):
    return _rmsprop(w, grad, state, lr, eps, beta, 1 - beta, keep=False)


@ex.rmsprop.slip("eps stands beside the root, not under it.")
def rms_eps_inside(w, grad, state, lr, beta=0.99, eps=1e-8):
    v = beta * state.get("v", 0.0) + (1 - beta) * grad**2
    return w - lr * grad / np.sqrt(v + eps), {"v": v}


@ex.rmsprop.slip("`beta` is an argument: you used one of your own, whatever it is.")
def ignores_beta(w, grad, state, lr, beta=0.75, eps=1e-8):
    return _rmsprop(w, grad, state, lr, eps, 0.75, 0.25)


@ex.rmsprop.slip(
    "v starts at the first square: it starts at 0, and today's square counts 1 - beta parts from the first step on."
)
def starts_at_the_square(w, grad, state, lr, beta=0.99, eps=1e-8):
    v = beta * state.get("v", grad**2) + (1 - beta) * grad**2
    return w - lr * grad / (np.sqrt(v) + eps), {"v": v}


@ex.rmsprop.slip(
    "A bias correction comes with Adam: RMSProp's v starts small and stays as it is."
)
def corrected(w, grad, state, lr, beta=0.99, eps=1e-8):
    t = state.get("t", 0) + 1
    v = beta * state.get("v", 0.0) + (1 - beta) * grad**2
    root = np.sqrt(v / (1 - beta**t))
    return w - lr * grad / (root + eps), {"v": v, "t": t}


@ex.rmsprop.slip(
    "v is a sum here, AdaGrad's: beta parts of the old, 1 - beta of today's."
)
def adagrad_again(w, grad, state, lr, beta=0.99, eps=1e-8):
    return _rmsprop(w, grad, state, lr, eps, 1, 1)


@ex.rmsprop.slip("The learning rate is missing.")
def rmsprop_no_rate(w, grad, state, lr, **options):
    return right.rmsprop(w, grad, state, 1.0, **options)


@ex.rmsprop.slip("w has not moved.")
def rmsprop_stands(w, grad, state, lr, **options):
    return w, right.rmsprop(w, grad, state, lr, **options)[1]


@ex.rmsprop.slip("This is the step alone: take it from w.")
def rmsprop_step_alone(w, grad, state, lr, **options):
    moved, state = right.rmsprop(w, grad, state, lr, **options)
    return moved - w, state


@ex.rmsprop.slip(told="changes its input in place")
def rmsprop_writes_into_state(w, grad, state, lr, **options):
    moved, new = right.rmsprop(w, grad, state, lr, **options)
    state.update(new)
    return moved, state


@ex.rmsprop.slip("`beta` is an argument: you used 0.99 whatever it is.")
def default_beta(w, grad, state, lr, beta=0.99, eps=1e-8):
    return right.rmsprop(w, grad, state, lr, 0.99, eps)


@ex.rmsprop.slip("`eps` is an argument: you used 1e-8 whatever it is.")
def rms_own_eps(w, grad, state, lr, beta=0.99, eps=1e-8):
    return right.rmsprop(w, grad, state, lr, beta)


@ex.rmsprop.slip("eps is not used: 0 / 0 is nan, and that is what it is for.")
def rms_without_eps(w, grad, state, lr, beta=0.99, eps=1e-8):
    with np.errstate(all="ignore"):
        return _rmsprop(w, grad, state, lr, 0.0, beta, 1 - beta)


@ex.rmsprop.slip("One v for all weights: keep one for each, without .mean() or norm.")
def rms_one_for_all(w, grad, state, lr, beta=0.99, eps=1e-8):
    return _rmsprop(
        w, grad, state, lr, eps, beta, 1 - beta, square=lambda g: (g**2).mean()
    )


@ex.rmsprop.slip("The step uses the old v: today's square belongs to it.")
def rms_late(w, grad, state, lr, beta=0.99, eps=1e-8):
    old = state.get("v", 0.0 * grad)
    with np.errstate(all="ignore"):
        return w - lr * grad / (np.sqrt(old) + eps), {
            "v": beta * old + (1 - beta) * grad**2
        }


# ---- adam ----


def _adam(
    w, grad, state, lr, b1, b2, eps,
    fix_m=True, fix_v=True, first=1, square=np.square, along=None, root=np.sqrt,
    keep="mvt", inside=False,
):  # fmt: skip
    t = state.get("t", first - 1) + 1
    m = b1 * state.get("m", 0.0) + (1 - b1) * grad
    v = b2 * state.get("v", 0.0) + (1 - b2) * square(grad)
    with np.errstate(all="ignore"):
        m_hat = m / np.float64(1 - b1**t) if fix_m else m
        v_hat = v / np.float64(1 - b2**t) if fix_v else v
        ahead = m_hat if along is None else grad
        under = np.sqrt(v_hat + eps) if inside else root(v_hat) + eps
        moved = w - lr * ahead / under
    return moved, {k: x for k, x in {"m": m, "v": v, "t": t}.items() if k in keep}


@ex.adam.slip("The bias correction is missing: m / (1 - beta1**t), v / (1 - beta2**t).")
def uncorrected(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(w, grad, state, lr, beta1, beta2, eps, fix_m=False, fix_v=False)


@ex.adam.slip("m is corrected, v is not.")
def only_m(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(w, grad, state, lr, beta1, beta2, eps, fix_v=False)


@ex.adam.slip("v is corrected, m is not.")
def only_v(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(w, grad, state, lr, beta1, beta2, eps, fix_m=False)


@ex.adam.slip("t starts at 0, and 1 - beta**0 is 0: count the step first.")
def from_zero(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(w, grad, state, lr, beta1, beta2, eps, first=0)


@ex.adam.slip("t stays at 1: return it in the state.")
def clock_stands(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(w, grad, state, lr, beta1, beta2, eps, keep="mv")


@ex.adam.slip("The slope is not squared in v.")
def adam_not_squared(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(w, grad, state, lr, beta1, beta2, eps, square=lambda g: g)


@ex.adam.slip("beta1 and beta2 are swapped: beta1 for m, beta2 for v.")
def betas_swapped(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(w, grad, state, lr, beta2, beta1, eps)


@ex.adam.slip("The step goes along today's slope: it should go along m.")
def no_direction_memory(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(w, grad, state, lr, beta1, beta2, eps, along="today")


@ex.adam.slip("eps stands beside the root, not under it.")
def adam_eps_inside(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(w, grad, state, lr, beta1, beta2, eps, inside=True)


@ex.adam.slip("The corrected means went into the state: keep the plain m and v.")
def stores_the_corrected(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    t = state.get("t", 0) + 1
    m = (beta1 * state.get("m", 0.0) + (1 - beta1) * grad) / (1 - beta1**t)
    v = (beta2 * state.get("v", 0.0) + (1 - beta2) * grad**2) / (1 - beta2**t)
    return w - lr * m / (np.sqrt(v) + eps), {"m": m, "v": v, "t": t}


@ex.adam.slip('The state is a dict, as in {"m": m}.')
def state_is_a_tuple(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    w, state = _adam(w, grad, {}, lr, beta1, beta2, eps)
    return w, tuple(state.values())


@ex.adam.slip(
    "Is eps inside the brackets? / (np.sqrt(...) + eps) divides by both; without them eps is added to the weight."
)
def adam_eps_outside(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    moved, state = _adam(w, grad, state, lr, beta1, beta2, 0.0)
    return moved + eps, state


@ex.adam.slip(
    "Is eps inside the brackets? / (np.sqrt(...) + eps) divides by both; here it is added to the quotient."
)
def adam_eps_on_the_step(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    moved, state = _adam(w, grad, state, lr, beta1, beta2, 0.0)
    return moved - lr * eps, state


@ex.adam.slip("t is 2 in the first step: it should be 1 there.")
def from_two(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(w, grad, state, lr, beta1, beta2, eps, first=2)


@ex.adam.slip("t is 3 in the second step: it grows by one per step.")
def counts_twice(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    moved, state = _adam(w, grad, state, lr, beta1, beta2, eps)
    return moved, {**state, "t": state["t"] + 1}


def _times_t(w, grad, state, lr, b1, b2, eps, m_too=True, v_too=True):
    t = state.get("t", 0) + 1
    m = b1 * state.get("m", 0.0) + (1 - b1) * grad
    v = b2 * state.get("v", 0.0) + (1 - b2) * grad**2
    m_hat = m / (1 - (b1 * t if m_too else b1**t))
    v_hat = v / (1 - (b2 * t if v_too else b2**t))
    return w - lr * m_hat / (np.sqrt(v_hat) + eps), {"m": m, "v": v, "t": t}


@ex.adam.slip(
    "The root of a negative number: is it 1 - beta**t, with a power? beta * t passes 1."
)
def beta_times_t(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _times_t(w, grad, state, lr, beta1, beta2, eps)


@ex.adam.slip("Divided by 0: is it 1 - beta**t, with a power? beta * t comes to 1.")
def beta1_times_t(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _times_t(w, grad, state, lr, beta1, beta2, eps, v_too=False)


@ex.adam.slip("The learning rate is missing.")
def adam_no_rate(w, grad, state, lr, **options):
    return right.adam(w, grad, state, 1.0, **options)


@ex.adam.slip("w has not moved.")
def adam_stands(w, grad, state, lr, **options):
    return w, right.adam(w, grad, state, lr, **options)[1]


@ex.adam.slip("This is the step alone: take it from w.")
def adam_step_alone(w, grad, state, lr, **options):
    moved, state = right.adam(w, grad, state, lr, **options)
    return moved - w, state


@ex.adam.slip("It should return two things: the new w and the new state.")
def adam_only_w(w, grad, state, lr, **options):
    return right.adam(w, grad, state, lr, **options)[0]


@ex.adam.slip(told="changes its input in place")
def adam_writes_into_state(w, grad, state, lr, **options):
    moved, new = right.adam(w, grad, state, lr, **options)
    state.update(new)
    return moved, state


@ex.adam.slip("This keeps the largest v so far (AMSGrad): Adam's v may fall again.")
def amsgrad(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    t = state.get("t", 0) + 1
    m = beta1 * state.get("m", 0.0) + (1 - beta1) * grad
    v = beta2 * state.get("v", 0.0) + (1 - beta2) * grad**2
    top = np.maximum(state.get("top", 0.0), v)
    root = np.sqrt(top / (1 - beta2**t))
    moved = w - lr * m / (1 - beta1**t) / (root + eps)
    return moved, {"m": m, "v": v, "t": t, "top": top}


@ex.adam.slip("This keeps the largest v_hat so far (AMSGrad): Adam's may fall again.")
def amsgrad_corrected(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    t = state.get("t", 0) + 1
    m = beta1 * state.get("m", 0.0) + (1 - beta1) * grad
    v = beta2 * state.get("v", 0.0) + (1 - beta2) * grad**2
    top = np.maximum(state.get("top", 0.0), v / (1 - beta2**t))
    moved = w - lr * m / (1 - beta1**t) / (np.sqrt(top) + eps)
    return moved, {"m": m, "v": v, "t": t, "top": top}


@ex.adam.slip("This looks ahead (NAdam): here the step goes along m_hat itself.")
def nadam(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    t = state.get("t", 0) + 1
    m = beta1 * state.get("m", 0.0) + (1 - beta1) * grad
    v = beta2 * state.get("v", 0.0) + (1 - beta2) * grad**2
    ahead = beta1 * m / (1 - beta1 ** (t + 1)) + (1 - beta1) * grad / (1 - beta1**t)
    moved = w - lr * ahead / (np.sqrt(v / (1 - beta2**t)) + eps)
    return moved, {"m": m, "v": v, "t": t}


@ex.adam.slip("eps was added before v was corrected: sqrt(v_hat) + eps.")
def eps_before_the_correction(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    t = state.get("t", 0) + 1
    m = beta1 * state.get("m", 0.0) + (1 - beta1) * grad
    v = beta2 * state.get("v", 0.0) + (1 - beta2) * grad**2
    rate = lr * np.sqrt(1 - beta2**t) / (1 - beta1**t)
    return w - rate * m / (np.sqrt(v) + eps), {"m": m, "v": v, "t": t}


@ex.adam.slip("eps is not used: 0 / 0 is nan, and that is what it is for.")
def adam_without_eps(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(w, grad, state, lr, beta1, beta2, 0.0)


@ex.adam.slip("`eps` is an argument: you used 1e-8 whatever it is.")
def adam_own_eps(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return right.adam(w, grad, state, lr, beta1, beta2)


@ex.adam.slip(
    "`beta1` and `beta2` are arguments: you used 0.9 and 0.999 whatever they are."
)
def adam_own_betas(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return right.adam(w, grad, state, lr, eps=eps)


@ex.adam.slip("v is built on m: it is a mean of the squared slopes, not of m's square.")
def squares_m(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    t = state.get("t", 0) + 1
    m = beta1 * state.get("m", 0.0) + (1 - beta1) * grad
    v = beta2 * state.get("v", 0.0) + (1 - beta2) * m**2
    moved = w - lr * m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps)
    return moved, {"m": m, "v": v, "t": t}


@ex.adam.slip("The root is missing: m_hat over the root of v_hat.")
def adam_no_root(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(w, grad, state, lr, beta1, beta2, eps, root=lambda v: v)


@ex.adam.slip("The parts are swapped: beta for the old, 1 - beta for today's.")
def parts_swapped(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(w, grad, state, lr, 1 - beta1, 1 - beta2, eps)


@ex.adam.slip(
    "The last walk is still remembered: keep the memory in `state`, not in a global name or a default argument."
)
def adam_global_clock(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    _clock["t"] += 1
    moved, new = _adam(
        w, grad, {**state, "t": _clock["t"] - 1}, lr, beta1, beta2, eps, keep="mv"
    )
    return moved, new


_clock = {"t": 0}


# ---- adamw ----


def _plain_adam(w, grad, state, lr):
    return _adam(w, grad, state, lr, 0.9, 0.999, 1e-8)


@ex.adamw.slip(
    "The decay went through the slope and Adam divided it away: this is L2. Take it from w beside Adam's step."
)
def through_the_slope(w, grad, state, lr, weight_decay=0.01):
    return _plain_adam(w, grad + weight_decay * w, state, lr)


@ex.adamw.slip("The decay is missing.")
def no_decay(w, grad, state, lr, weight_decay=0.01):
    return _plain_adam(w, grad, state, lr)


@ex.adamw.slip("The decay is not multiplied by the learning rate.")
def decay_without_rate(w, grad, state, lr, weight_decay=0.01):
    moved, state = _plain_adam(w, grad, state, lr)
    return moved - weight_decay * w, state


@ex.adamw.slip("The weights grow: the decay is subtracted.")
def grows(w, grad, state, lr, weight_decay=0.01):
    moved, state = _plain_adam(w, grad, state, lr)
    return moved + lr * weight_decay * w, state


@ex.adamw.slip(
    "The decay took its share of the moved w: it is lr * weight_decay of the old one."
)
def decays_the_new(w, grad, state, lr, weight_decay=0.01):
    moved, state = _plain_adam(w, grad, state, lr)
    return moved * (1 - lr * weight_decay), state


@ex.adamw.slip(
    "This shrinks every weight by the same amount (that is L1): the share is lr * weight_decay of w."
)
def same_amount(w, grad, state, lr, weight_decay=0.01):
    moved, state = _plain_adam(w, grad, state, lr)
    return moved - lr * weight_decay * np.sign(w), state


@ex.adamw.slip(
    "The decay is paid twice, in the slope and beside Adam's step: leave the slope as it is."
)
def decays_twice(w, grad, state, lr, weight_decay=0.01):
    moved, state = _plain_adam(w, grad + weight_decay * w, state, lr)
    return moved - lr * weight_decay * w, state


@ex.adamw.slip("beta1, beta2 and eps are not passed on: hand all three to adam.")
def drops_all(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    moved, state = _plain_adam(w, grad, state, lr)
    return moved - lr * weight_decay * w, state


@ex.adamw.slip("eps is not passed on: adam used its own.")
def drops_eps(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    moved, state = _adam(w, grad, state, lr, beta1, beta2, 1e-8)
    return moved - lr * weight_decay * w, state


@ex.adamw.slip("beta1 and beta2 are not passed on: adam used its own.")
def drops_betas(
    w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01
):
    moved, state = _adam(w, grad, state, lr, 0.9, 0.999, eps)
    return moved - lr * weight_decay * w, state


@ex.adamw.slip("Only the decay: where is Adam's step?")
def only_decay(w, grad, state, lr, weight_decay=0.01):
    return w - lr * weight_decay * w, _plain_adam(w, grad, state, lr)[1]


@ex.adamw.slip("The decay is twice as large: there is no factor 2 in it.")
def twice_the_decay(w, grad, state, lr, weight_decay=0.01):
    moved, state = _plain_adam(w, grad, state, lr)
    return moved - 2 * lr * weight_decay * w, state


@ex.adamw.slip("beta2 is not passed on: adam used its own.")
def drops_beta2(
    w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01
):
    moved, state = _adam(w, grad, state, lr, beta1, 0.999, eps)
    return moved - lr * weight_decay * w, state


@ex.adamw.slip("beta1 is not passed on: adam used its own.")
def drops_beta1(
    w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01
):
    moved, state = _adam(w, grad, state, lr, 0.9, beta2, eps)
    return moved - lr * weight_decay * w, state


@ex.adamw.slip("`weight_decay` is an argument: you used 0.01 whatever it is.")
def own_decay(w, grad, state, lr, weight_decay=0.01):
    moved, state = _plain_adam(w, grad, state, lr)
    return moved - lr * 0.01 * w, state


@ex.adamw.slip(
    "Adam's memory is lost from step to step: hand `state` in, return the new one."
)
def loses_the_state(w, grad, state, lr, weight_decay=0.01):
    moved, _ = _plain_adam(w, grad, {}, lr)
    return moved - lr * weight_decay * w, {}


@ex.adamw.slip(
    "Adam's memory is lost from step to step: hand `state` in, return the new one."
)
def returns_the_old_state(w, grad, state, lr, weight_decay=0.01):
    moved, _ = _plain_adam(w, grad, state, lr)
    return moved - lr * weight_decay * w, state


@ex.adamw.slip("The decay shrinks Adam's step, not w: it is a share of the old w.")
def decays_the_step(w, grad, state, lr, weight_decay=0.01):
    moved, state = _plain_adam(w, grad, state, lr)
    return w + (moved - w) * (1 - lr * weight_decay), state


@ex.adamw.slip("The plain slope was taken beside the decay: Adam's step is missing.")
def plain_slope(w, grad, state, lr, weight_decay=0.01):
    return w - lr * grad - lr * weight_decay * w, state


# ---- warmup_cosine ----


def _cosine(step, lr, warmup, total, final=0.0):
    if step < warmup:
        return lr * (step + 1) / warmup
    done = min((step - warmup) / (total - warmup), 1.0)
    return final + (lr - final) * (1 + np.cos(np.pi * done)) / 2


@ex.warmup_cosine.slip(
    "The first step has rate 0 and is lost: count it, (step + 1) / warmup."
)
def from_nothing(step, lr, warmup, total, final=0.0):
    return (
        lr * step / warmup if step < warmup else _cosine(step, lr, warmup, total, final)
    )


@ex.warmup_cosine.slip("There is no climb: the first steps are smaller.")
def no_climb(step, lr, warmup, total, final=0.0):
    return lr if step < warmup else _cosine(step, lr, warmup, total, final)


@ex.warmup_cosine.slip("The cosine counts from step 0: it begins after the climb.")
def counts_from_zero(step, lr, warmup, total, final=0.0):
    if step < warmup:
        return lr * (step + 1) / warmup
    return _cosine(step, lr, 0, total, final)


@ex.warmup_cosine.slip("A cosine climbs again after its end: hold `done` at 1.")
def comes_back(step, lr, warmup, total, final=0.0):
    if step < warmup:
        return lr * (step + 1) / warmup
    done = (step - warmup) / (total - warmup)
    return final + (lr - final) * (1 + np.cos(np.pi * done)) / 2


@ex.warmup_cosine.slip("It falls to 0, not to `final`.")
def ignores_final(step, lr, warmup, total, final=0.0):
    return _cosine(step, lr, warmup, total)


@ex.warmup_cosine.slip("The cosine runs to -1: halve 1 + cos.")
def whole_cosine(step, lr, warmup, total, final=0.0):
    if step < warmup:
        return lr * (step + 1) / warmup
    done = min((step - warmup) / (total - warmup), 1.0)
    return final + (lr - final) * np.cos(np.pi * done)


@ex.warmup_cosine.slip("It falls along a straight line: half a cosine.")
def straight(step, lr, warmup, total, final=0.0):
    if step < warmup:
        return lr * (step + 1) / warmup
    return lr + (final - lr) * min((step - warmup) / (total - warmup), 1.0)


@ex.warmup_cosine.slip(
    "With warmup = 0 there is no climb: ask whether step < warmup before you divide by it."
)
def needs_a_climb(step, lr, warmup, total, final=0.0):
    return min(lr * (step + 1) / warmup, _cosine(step, lr, warmup, total, final))


@ex.warmup_cosine.slip(
    "The climb lasts one step too long: step `warmup` is the first of the fall, so climb while step < warmup."
)
def climbs_too_long(step, lr, warmup, total, final=0.0):
    if step <= warmup and warmup:
        return lr * (step + 1) / warmup
    return _cosine(step, lr, warmup, total, final)


@ex.warmup_cosine.slip("After the end the rate falls to 0: it stays at `final`.")
def nothing_after(step, lr, warmup, total, final=0.0):
    return 0.0 if step > total else _cosine(step, lr, warmup, total, final)


@ex.warmup_cosine.slip("After the end it returns nothing: it stays at `final`.")
def silent_after(step, lr, warmup, total, final=0.0):
    return None if step > total else _cosine(step, lr, warmup, total, final)


@ex.warmup_cosine.slip("The climb divides by total: it is over after `warmup` steps.")
def climbs_to_total(step, lr, warmup, total, final=0.0):
    if step < warmup:
        return lr * (step + 1) / total
    return _cosine(step, lr, warmup, total, final)


@ex.warmup_cosine.slip(
    "The climb ends one step late: the full lr comes at step warmup - 1."
)
def climbs_one_more(step, lr, warmup, total, final=0.0):
    if step < warmup:
        return lr * (step + 1) / (warmup + 1)
    return _cosine(step, lr, warmup, total, final)


@ex.warmup_cosine.slip("The climb starts at `final`: it starts at lr / warmup.")
def climbs_from_final(step, lr, warmup, total, final=0.0):
    if step < warmup:
        return final + (lr - final) * (step + 1) / warmup
    return _cosine(step, lr, warmup, total, final)


@ex.warmup_cosine.slip("The cosine is already at work during the climb.")
def both_at_once(step, lr, warmup, total, final=0.0):
    climb = min((step + 1) / warmup, 1.0) if warmup else 1.0
    return climb * _cosine(step, lr, 0, total)


@ex.warmup_cosine.slip("`final` is added on top: only lr - final falls.")
def final_on_top(step, lr, warmup, total, final=0.0):
    if step < warmup:
        return lr * (step + 1) / warmup
    return final + _cosine(step, lr, warmup, total)


@ex.warmup_cosine.slip("A whole turn of the cosine comes back up: half a turn, pi.")
def whole_turn(step, lr, warmup, total, final=0.0):
    if step < warmup:
        return lr * (step + 1) / warmup
    done = min((step - warmup) / (total - warmup), 1.0)
    return final + (lr - final) * (1 + np.cos(2 * np.pi * done)) / 2


@ex.warmup_cosine.slip(
    "This is a quarter of a cosine, steep at the end: half of 1 + cos."
)
def quarter_turn(step, lr, warmup, total, final=0.0):
    if step < warmup:
        return lr * (step + 1) / warmup
    done = min((step - warmup) / (total - warmup), 1.0)
    return final + (lr - final) * np.cos(np.pi / 2 * done)


@ex.warmup_cosine.slip("After the end it goes back to lr: it stays at `final`.")
def back_to_lr(step, lr, warmup, total, final=0.0):
    return lr if step > total else _cosine(step, lr, warmup, total, final)


@ex.warmup_cosine.slip(
    "`total` counts the climb as well: the fall takes total - warmup steps."
)
def falls_for_total(step, lr, warmup, total, final=0.0):
    return _cosine(step, lr, warmup, total + warmup, final)


@ex.warmup_cosine.slip("The fall ends one step early: `final` comes at step total.")
def ends_early(step, lr, warmup, total, final=0.0):
    return _cosine(step, lr, warmup, total - 1, final)


@ex.warmup_cosine.slip("np.cos takes radians: pi * done, not degrees.")
def in_degrees(step, lr, warmup, total, final=0.0):
    if step < warmup:
        return lr * (step + 1) / warmup
    done = min((step - warmup) / (total - warmup), 1.0)
    return final + (lr - final) * (1 + np.cos(180 * done)) / 2


@ex.warmup_cosine.slip(
    "`//` cuts `done` to 0 until the end, so nothing falls: use `/`."
)
def whole_division(step, lr, warmup, total, final=0.0):
    if step < warmup:
        return lr * (step + 1) / warmup
    done = min((step - warmup) // (total - warmup), 1)
    return final + (lr - final) * (1 + np.cos(np.pi * done)) / 2


# ---- gradient_noise ----


def _noise(grads, size, draws, rng, replace=True, mean=True, centre=True, root=True):
    if replace:
        rows = rng.integers(len(grads), size=(draws, size))
    else:
        rows = [rng.choice(len(grads), size, replace=False) for _ in range(draws)]
    batches = grads[rows].mean(1) if mean else grads[rows].sum(1)
    far = ((batches - grads.mean(0) * centre) ** 2).sum(1)
    return np.sqrt(far.mean()) if root else far.mean()


@ex.gradient_noise.slip(
    "A batch of all rows has no noise here: you drew without replacement. Draw every row from all N."
)
def without_replacement(grads, size, draws, rng):
    return _noise(grads, size, draws, rng, replace=False)


@ex.gradient_noise.slip(
    "This is the size of the batch gradient: subtract the mean of all rows."
)
def size_of_the_gradient(grads, size, draws, rng):
    return _noise(grads, size, draws, rng, centre=False)


@ex.gradient_noise.slip("This is the squared distance: take the root at the end.")
def squared(grads, size, draws, rng):
    return _noise(grads, size, draws, rng, root=False)


@ex.gradient_noise.slip(
    "The squares were averaged over the weights: add them up, one distance per batch."
)
def averaged_over_weights(grads, size, draws, rng):
    return _noise(grads, size, draws, rng) / np.sqrt(grads.shape[1])


@ex.gradient_noise.slip("The rows were added, not averaged.")
def added_up(grads, size, draws, rng):
    return _noise(grads, size, draws, rng, mean=False)


@ex.gradient_noise.slip("Seeds 1 and 2 give the same number: the draws ignore `rng`.")
def own_draws(grads, size, draws, rng):
    return _noise(grads, size, draws, np.random.default_rng(0))


@ex.gradient_noise.slip(
    "This is the mean distance: square, average over the draws, take the root."
)
def mean_distance(grads, size, draws, rng):
    rows = rng.integers(len(grads), size=(draws, size))
    return np.linalg.norm(grads[rows].mean(1) - grads.mean(0), axis=1).mean()


@ex.gradient_noise.slip(
    "One row is never drawn: rng.integers(N) gives 0 to N - 1, all rows."
)
def without_the_last(grads, size, draws, rng):
    rows = rng.integers(len(grads) - 1, size=(draws, size))
    return np.sqrt(((grads[rows].mean(1) - grads.mean(0)) ** 2).sum(1).mean())


@ex.gradient_noise.slip(
    "One row is never drawn: rng.integers(N) gives 0 to N - 1, all rows."
)
def without_the_first(grads, size, draws, rng):
    rows = rng.integers(1, len(grads), size=(draws, size))
    return np.sqrt(((grads[rows].mean(1) - grads.mean(0)) ** 2).sum(1).mean())


@ex.gradient_noise.slip(
    "This is the distance from the mean of the batches, 0 for one draw: subtract the mean of all rows."
)
def around_the_batches(grads, size, draws, rng):
    batches = grads[rng.integers(len(grads), size=(draws, size))].mean(1)
    return np.sqrt(batches.var(0).sum())


@ex.gradient_noise.slip(
    "It does not shrink with the batch: average the batch's rows first."
)
def one_row_of_the_batch(grads, size, draws, rng):
    return _noise(grads, 1, draws, rng)


@ex.gradient_noise.slip("The draws were added up: take their mean, then the root.")
def sum_of_the_draws(grads, size, draws, rng):
    return _noise(grads, size, draws, rng) * np.sqrt(draws)


@ex.gradient_noise.slip(
    "`draws` is an argument: you drew 1,000 batches whatever it is."
)
def own_number_of_draws(grads, size, draws, rng):
    return _noise(grads, size, 1000, rng)


@ex.gradient_noise.slip(
    "mean() without an axis melts the weights together: mean(axis=0)."
)
def mean_of_everything(grads, size, draws, rng):
    far = []
    for _ in range(draws):
        rows = rng.integers(len(grads), size=size)
        far.append(((grads[rows].mean() - grads.mean(0)) ** 2).sum())
    return np.sqrt(np.mean(far))


@ex.gradient_noise.slip(
    "This is the formula, without a draw: measure it, with batches drawn from `rng`."
)
def by_formula(grads, size, draws, rng):
    return np.sqrt(grads.var(0).sum() / size)


@ex.gradient_noise.slip(
    "The sizes of the parts were added: a distance is the root of the sum of squares."
)
def by_city_blocks(grads, size, draws, rng):
    rows = rng.integers(len(grads), size=(draws, size))
    return np.abs(grads[rows].mean(1) - grads.mean(0)).sum(1).mean()


@ex.gradient_noise.slip("One distance per draw: return the root of their mean square.")
def one_per_draw(grads, size, draws, rng):
    rows = rng.integers(len(grads), size=(draws, size))
    return np.linalg.norm(grads[rows].mean(1) - grads.mean(0), axis=1)


@ex.gradient_noise.slip("Draw with the `rng` you are given, or no run can be repeated.")
def without_a_seed(grads, size, draws, rng):
    return _noise(grads, size, draws, np.random.default_rng())


@ex.gradient_noise.slip(
    "Single rows, and the root of `size` divided out: average the rows of a real batch."
)
def single_rows_scaled(grads, size, draws, rng):
    return _noise(grads, 1, draws, rng) / np.sqrt(size)


# ---- he_init ----


@ex.he_init.slip("This is sqrt(1 / fan_in): ReLU halves the signal, hence the 2.")
def without_two(fan_in, fan_out, rng):
    return rng.normal(0, np.sqrt(1 / fan_in), (fan_in, fan_out))


@ex.he_init.slip("This is 2 / fan_in, the variance: rng.normal wants its root.")
def variance(fan_in, fan_out, rng):
    return rng.normal(0, 2 / fan_in, (fan_in, fan_out))


@ex.he_init.slip("It counts the outputs: the sum runs over fan_in.")
def fan_out_only(fan_in, fan_out, rng):
    return rng.normal(0, np.sqrt(2 / fan_out), (fan_in, fan_out))


@ex.he_init.slip("This is Xavier's, for tanh: here only fan_in counts.")
def xavier(fan_in, fan_out, rng):
    return rng.normal(0, np.sqrt(2 / (fan_in + fan_out)), (fan_in, fan_out))


@ex.he_init.slip("Turned over: inputs are the rows, x @ W.")
def turned_over(fan_in, fan_out, rng):
    return rng.normal(0, np.sqrt(2 / fan_in), (fan_out, fan_in))


@ex.he_init.slip(
    "Seeds 1 and 2 give the same weights: draw from the `rng` you are given."
)
def own_rng(fan_in, fan_out, rng):
    return np.random.default_rng(0).normal(0, np.sqrt(2 / fan_in), (fan_in, fan_out))


@ex.he_init.slip("Weights of both signs, around 0.")
def positive(fan_in, fan_out, rng):
    return rng.random((fan_in, fan_out)) * np.sqrt(24 / fan_in)


@ex.he_init.slip("The spread is right, but the draws are uniform: draw normal weights.")
def uniform(fan_in, fan_out, rng):
    far = np.sqrt(6 / fan_in)
    return rng.uniform(-far, far, (fan_in, fan_out))


@ex.he_init.slip("All weights have the same size: draw normal weights.")
def coins(fan_in, fan_out, rng):
    return rng.choice([-1, 1], (fan_in, fan_out)) * np.sqrt(2 / fan_in)


@ex.he_init.slip(
    "The spread is right, but the draws are Laplace's: draw normal weights."
)
def laplace(fan_in, fan_out, rng):
    return rng.laplace(0, np.sqrt(1 / fan_in), (fan_in, fan_out))


@ex.he_init.slip(
    "All columns are equal: draw each weight for itself, size=(fan_in, fan_out)."
)
def one_column(fan_in, fan_out, rng):
    return rng.normal(0, np.sqrt(2 / fan_in), (fan_in, 1)) * np.ones(fan_out)


@ex.he_init.slip(
    "All rows are equal: draw each weight for itself, size=(fan_in, fan_out)."
)
def one_row(fan_in, fan_out, rng):
    return rng.normal(0, np.sqrt(2 / fan_in), fan_out) * np.ones((fan_in, 1))


@ex.he_init.slip("A deviation of 1: the signal grows layer by layer.")
def deviation_of_one(fan_in, fan_out, rng):
    return rng.normal(size=(fan_in, fan_out))


@ex.he_init.slip("All weights are equal: then all units stay equal. Draw them.")
def all_equal(fan_in, fan_out, rng):
    return np.full((fan_in, fan_out), np.sqrt(2 / fan_in))


@ex.he_init.slip("All weights are equal: then all units stay equal. Draw them.")
def all_zero(fan_in, fan_out, rng):
    return np.zeros((fan_in, fan_out))


@ex.he_init.slip("This is sqrt(2) / fan_in: the root covers both, sqrt(2 / fan_in).")
def root_of_two_alone(fan_in, fan_out, rng):
    return rng.normal(0, np.sqrt(2) / fan_in, (fan_in, fan_out))


@ex.he_init.slip("Turned: sqrt(fan_in / 2) grows with the number of inputs.")
def turned(fan_in, fan_out, rng):
    return rng.normal(0, np.sqrt(fan_in / 2), (fan_in, fan_out))


@ex.he_init.slip("One size for all layers: the deviation depends on fan_in.")
def same_for_all(fan_in, fan_out, rng):
    return rng.normal(0, 0.02, (fan_in, fan_out))


@ex.he_init.slip("One weight per input: a matrix is wanted, size=(fan_in, fan_out).")
def a_vector(fan_in, fan_out, rng):
    return rng.normal(0, np.sqrt(2 / fan_in), fan_in)


@ex.he_init.slip("Draw from the `rng` you are given.")
def he_init_without_a_seed(fan_in, fan_out, rng):
    return right.he_init(fan_in, fan_out, np.random.default_rng())


@ex.he_init.slip("Weights of both signs: np.abs folds the negative ones over.")
def folded(fan_in, fan_out, rng):
    return np.abs(right.he_init(fan_in, fan_out, rng))


# ---- soft_threshold ----


@ex.soft_threshold.slip("It steps over 0: a weight nearer than `amount` stops at 0.")
def steps_over(w, amount):
    return w - amount * np.sign(w)


@ex.soft_threshold.slip(
    "Negative weights are lost: work on the size, then put the sign back."
)
def positive_only(w, amount):
    return np.maximum(w - amount, 0)


@ex.soft_threshold.slip("The sign is lost: multiply by np.sign(w).")
def no_sign(w, amount):
    return np.maximum(np.abs(w) - amount, 0)


@ex.soft_threshold.slip(
    "The large weights kept their size (a hard threshold): they shrink too."
)
def hard(w, amount):
    return np.where(np.abs(w) > amount, w, 0.0)


@ex.soft_threshold.slip(
    "This shrinks by a share, as L2 does: the amount is the same for all."
)
def shrinks(w, amount):
    return w * (1 - amount)


@ex.soft_threshold.slip("Nearly 0 is not 0.")
def nearly(w, amount):
    return np.sign(w) * np.maximum(np.abs(w) - amount, 1e-12)


@ex.soft_threshold.slip(
    "This visits one axis only: `w` has any shape, so let NumPy do all elements at once."
)
def one_axis_only(w, amount):
    return np.array([max(abs(x) - amount, 0) * (1 if x > 0 else -1) for x in w])


@ex.soft_threshold.slip(
    "This cuts the large weights to `amount`: it is the small ones that go."
)
def cuts_the_large(w, amount):
    return np.clip(w, -amount, amount)


@ex.soft_threshold.slip(
    "The small ones survived and the large ones are gone: turned over."
)
def soft_threshold_turned_over(w, amount):
    return np.where(np.abs(w) > amount, 0, w)


@ex.soft_threshold.slip(
    "Every weight went down by `amount`: negative ones go up, towards 0."
)
def all_go_down(w, amount):
    return np.where(np.abs(w) > amount, w - amount, 0.0)


@ex.soft_threshold.slip("The weights moved away from 0: make them smaller.")
def away_from_zero(w, amount):
    return w + amount * np.sign(w)


@ex.soft_threshold.slip("`amount` is an argument: you used 0.5 whatever it is.")
def own_amount(w, amount):
    return right.soft_threshold(w, 0.5)


@ex.soft_threshold.slip('An amount of 0 changes nothing: is 0 taken for "not given"?')
def nothing_left(w, amount):
    return right.soft_threshold(w, amount) if amount else 0.0 * w


@ex.soft_threshold.slip(
    "This shrinks the whole vector by its length: each weight stops at 0 on its own."
)
def by_the_length(w, amount):
    return w * max(1 - amount / np.linalg.norm(w), 0)


@ex.soft_threshold.slip(told="changes its input in place")
def threshold_in_place(w, amount):
    w[np.abs(w) <= amount] = 0.0
    return w - amount * np.sign(w)


# ---- EarlyStopping ----


class _Stopper:
    late = early = 0

    def __init__(self, patience):
        self.patience, self.waited = patience, 0
        self.best_loss, self.best_weights = float("inf"), None

    def better(self, loss):
        return loss < self.best_loss

    def copy(self, weights):
        return [w.copy() for w in weights]

    def update(self, loss, weights):
        if self.better(loss):
            self.best_loss, self.best_weights = loss, self.copy(weights)
            self.waited = 0
        else:
            self.waited += 1
        return self.waited >= self.patience + self.late


@ex.EarlyStopping.slip(
    "These are the last weights. Training goes on in the same arrays: copy each one when it is the best."
)
class References(_Stopper):
    def copy(self, weights):
        return weights


@ex.EarlyStopping.slip(
    "These are the last weights. Training goes on in the same arrays: copy each one when it is the best."
)
class ShallowCopy(_Stopper):
    def copy(self, weights):
        return list(weights)


@ex.EarlyStopping.slip(
    "It stops one epoch late: 3 epochs without anything better are enough."
)
class Late(_Stopper):
    late = 1


@ex.EarlyStopping.slip(
    "It stops one epoch early: 3 epochs may pass since the best, not 2."
)
class Early(_Stopper):
    late = -1


@ex.EarlyStopping.slip("The count never starts again: a better loss sets it to 0.")
class NeverResets(_Stopper):
    def update(self, loss, weights):
        if loss < self.best_loss:
            self.best_loss, self.best_weights = loss, self.copy(weights)
        else:
            self.waited += 1
        return self.waited >= self.patience


@ex.EarlyStopping.slip("Equal is not better: a flat loss must run out of patience.")
class EqualCounts(_Stopper):
    def better(self, loss):
        return loss <= self.best_loss


@ex.EarlyStopping.slip(
    "nan compares false with everything: ask `loss < best`, and nan loses."
)
class NanWins(_Stopper):
    def better(self, loss):
        return not loss >= self.best_loss


@ex.EarlyStopping.slip(
    "`update` returns nothing: it should say whether to stop, True or False."
)
class SaysNothing(_Stopper):
    def update(self, loss, weights):
        _Stopper.update(self, loss, weights)


@ex.EarlyStopping.slip("These are the weights of the epoch before the best.")
class OneBehind(_Stopper):
    before = None

    def update(self, loss, weights):
        if loss < self.best_loss:
            self.best_weights = self.before or self.copy(weights)
            self.best_loss, self.waited = loss, 0
        else:
            self.waited += 1
        self.before = self.copy(weights)
        return self.waited >= self.patience


@ex.EarlyStopping.slip(told="EarlyStopping should be a class; it is a function.")
def a_function(patience):
    return _Stopper(patience)


@ex.EarlyStopping.slip(
    "2.4 is better than the loss before it, not than the best, 2: compare with best."
)
class ComparesWithTheLast(_Stopper):
    last = float("inf")

    def update(self, loss, weights):
        if loss < self.last:
            self.best_loss, self.best_weights = loss, self.copy(weights)
            self.waited = 0
        else:
            self.waited += 1
        self.last = loss
        return self.waited >= self.patience


@ex.EarlyStopping.slip(
    "2.4 is better than the loss before it, not than the best, 2: compare with best."
)
class CountsFromTheLast(_Stopper):
    last = float("inf")

    def update(self, loss, weights):
        if loss < self.best_loss:
            self.best_loss, self.best_weights = loss, self.copy(weights)
        self.waited = 0 if loss < self.last else self.waited + 1
        self.last = loss
        return self.waited >= self.patience


@ex.EarlyStopping.slip(
    "Only the first array is copied: training changes the others later."
)
class CopiesTheFirst(_Stopper):
    def copy(self, weights):
        return [weights[0].copy(), *weights[1:]]


@ex.EarlyStopping.slip(
    "Only the first array is kept: `weights` is a list, copy each of it."
)
class KeepsTheFirst(_Stopper):
    def copy(self, weights):
        return [weights[0].copy()]


@ex.EarlyStopping.slip(
    "np.array(weights) wants arrays of one shape: keep a list, and copy each array."
)
class OneBigArray(_Stopper):
    def copy(self, weights):
        return np.array(weights)


@ex.EarlyStopping.slip("It never says stop.")
class NeverStops(_Stopper):
    def update(self, loss, weights):
        _Stopper.update(self, loss, weights)
        return False


@ex.EarlyStopping.slip("Turned over: True means stop.")
class TurnedOver(_Stopper):
    def update(self, loss, weights):
        return not _Stopper.update(self, loss, weights)


@ex.EarlyStopping.slip("It stops at the first loss that is not better: be patient.")
class Impatient(_Stopper):
    def update(self, loss, weights):
        _Stopper.update(self, loss, weights)
        return self.waited > 0


@ex.EarlyStopping.slip(
    "It says stop only once: `patience` epochs or more are enough, >=."
)
class JustOnce(_Stopper):
    def update(self, loss, weights):
        _Stopper.update(self, loss, weights)
        return self.waited == self.patience


@ex.EarlyStopping.slip(
    "This is the last loss, not the best: note it only where it is lower."
)
class LastLoss(_Stopper):
    lowest = float("inf")

    def update(self, loss, weights):
        if loss < self.lowest:
            self.lowest, self.best_weights, self.waited = loss, self.copy(weights), 0
        else:
            self.waited += 1
        self.best_loss = loss
        return self.waited >= self.patience


@ex.EarlyStopping.slip("A larger loss is taken for the better one: lower is better.")
class LargerIsBetter(_Stopper):
    def better(self, loss):
        return loss > self.best_loss or self.best_weights is None


@ex.EarlyStopping.slip("best_loss never changed: note the new best.")
class ForgetsTheBest(_Stopper):
    def update(self, loss, weights):
        if self.best_weights is None:
            self.best_loss, self.best_weights = loss, self.copy(weights)
        self.waited = 0 if loss < self.best_loss else self.waited + 1
        return self.waited >= self.patience


@ex.EarlyStopping.slip(
    "best_weights is still None: copy the weights where the loss is best."
)
class KeepsNoWeights(_Stopper):
    def copy(self, weights):
        return None


@ex.EarlyStopping.slip("`patience` is an argument: you used 3 whatever it is.")
class OwnPatience(_Stopper):
    def __init__(self, patience):
        _Stopper.__init__(self, 3)


@ex.EarlyStopping.slip(
    "It has no `best_loss`: set best_loss and best_weights in __init__."
)
class AnotherName:
    def __init__(self, patience):
        self.stopper = _Stopper(patience)

    def update(self, loss, weights):
        return self.stopper.update(loss, weights)


@ex.EarlyStopping.slip("A small gain is a gain: loss < best_loss, without a margin.")
class WantsAMargin(_Stopper):
    def better(self, loss):
        return loss < self.best_loss - 1e-3


# ---- shift_digits ----


def _shift(X, down, right, wrap=False):
    images = X.reshape(-1, 8, 8)
    if wrap:
        return np.roll(images, (down, right), axis=(1, 2)).reshape(X.shape)
    padded = np.pad(images, ((0, 0), (8, 8), (8, 8)))
    window = padded[:, 8 - down : 16 - down, 8 - right : 16 - right]
    return window.reshape(X.shape)


@ex.shift_digits.slip(
    "What leaves on one side comes back on the other: zeros should enter."
)
def wraps(X, down, right):
    return _shift(X, down, right, wrap=True)


@ex.shift_digits.slip(
    "Down and right are swapped: rows are the first axis of an image."
)
def swapped_axes(X, down, right):
    return _shift(X, right, down)


@ex.shift_digits.slip("It moves the wrong way: down = 1 puts old row 0 into new row 1.")
def wrong_way(X, down, right):
    return _shift(X, -down, -right)


@ex.shift_digits.slip(
    "The row of 64 was shifted as it is: pixels slip into the next line. Make it 8x8 first."
)
def flat(X, down, right):
    return np.roll(X, 8 * down + right, axis=1)


@ex.shift_digits.slip("It returns 8x8 images: rows of 64 came in, rows of 64 go out.")
def stays_square(X, down, right):
    return _shift(X, down, right).reshape(-1, 8, 8)


@ex.shift_digits.slip("A slice [:-0] is empty: write [: 8 - down], not [:-down].")
def empty_slice(X, down, right):
    images = X.reshape(-1, 8, 8)
    out = np.zeros_like(images)
    out[:, down:, right:] = images[:, :-down, :-right]
    return out.reshape(X.shape)


@ex.shift_digits.slip(told="changes its input in place")
def shifts_in_place(X, down, right):
    X[...] = _shift(X, down, right)
    return X


@ex.shift_digits.slip("The grey values were cut to whole numbers: keep the type of X.")
def whole_numbers(X, down, right):
    return _shift(X, down, right).astype(int)


@ex.shift_digits.slip(
    "The row of 64 was shifted as it is: pixels slip into the next line. Make it 8x8 first."
)
def flat_with_zeros(X, down, right):
    by, out = 8 * down + right, np.zeros_like(X)
    out[:, max(by, 0) : 64 + min(by, 0)] = X[:, max(-by, 0) : 64 + min(-by, 0)]
    return out


@ex.shift_digits.slip(
    "This moves down and right only: a slice for -1 needs the other end of the image."
)
def forward_only(X, down, right):
    images, out = X.reshape(-1, 8, 8), np.zeros((len(X), 8, 8))
    out[:, down:, right:] = images[:, : 8 - down, : 8 - right]
    return out.reshape(X.shape)


@ex.shift_digits.slip("Nothing moved.")
def nothing_moved(X, down, right):
    return X.copy()


@ex.shift_digits.slip("Only the first image moved: all rows of X are images.")
def first_image_only(X, down, right):
    return np.r_[_shift(X[:1], down, right), X[1:]]


@ex.shift_digits.slip("The edge was stretched out: zeros should enter.")
def stretches_the_edge(X, down, right):
    images = X.reshape(-1, 8, 8)
    padded = np.pad(images, ((0, 0), (8, 8), (8, 8)), mode="edge")
    window = padded[:, 8 - down : 16 - down, 8 - right : 16 - right]
    return window.reshape(X.shape)


@ex.shift_digits.slip(
    "The frame of zeros is too narrow for a move by 8: 8 on every side."
)
def narrow_frame(X, down, right):
    padded = np.pad(X.reshape(-1, 8, 8), ((0, 0), (7, 7), (7, 7)))
    window = padded[:, 7 - down : 15 - down, 7 - right : 15 - right]
    return window.reshape(X.shape)


@ex.shift_digits.slip("It moves down only: `right` is an argument as well.")
def down_only(X, down, right):
    return _shift(X, down, 0)


@ex.shift_digits.slip("It moves to the right only: `down` is an argument as well.")
def right_only(X, down, right):
    return _shift(X, 0, right)


@ex.shift_digits.slip(
    "What left is cleared on one side only: negative shifts wrap around."
)
def clears_one_side(X, down, right):
    images = np.roll(X.reshape(-1, 8, 8), (down, right), axis=(1, 2))
    images[:, : max(down, 0)] = 0.0
    images[:, :, : max(right, 0)] = 0.0
    return images.reshape(X.shape)


@ex.shift_digits.slip(
    "X.reshape(8, 8, -1) mixes the images: the number of images comes first."
)
def mixes_images(X, down, right):
    images = np.roll(X.reshape(8, 8, -1), (down, right), axis=(0, 1))
    return images.reshape(X.shape)
