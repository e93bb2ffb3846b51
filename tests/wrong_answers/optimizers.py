import numpy as np

from tests.wrong_answers import WrongAnswers

wrong = WrongAnswers("optimizers")


# ---- momentum ----


@wrong("momentum", says="No memory")
def forgets_the_state(w, grad, state, lr, beta=0.9):
    m = beta * state.get("m", 0.0) + grad
    return w - lr * m, {}


@wrong("momentum", says="Adam averages later")
def averaged(w, grad, state, lr, beta=0.9):
    m = beta * state.get("m", 0.0) + (1 - beta) * grad
    return w - lr * m, {"m": m}


@wrong("momentum", says="Uphill")
def uphill(w, grad, state, lr, beta=0.9):
    m = beta * state.get("m", 0.0) + grad
    return w + lr * m, {"m": m}


@wrong("momentum", says="Nesterov")
def looks_ahead(w, grad, state, lr, beta=0.9):
    m = beta * state.get("m", grad * 0) + grad
    step = grad + beta * m if state else m
    return w - lr * step, {"m": m}


@wrong("momentum", says="Nothing fades")
def never_fades(w, grad, state, lr, beta=0.9):
    m = state.get("m", 0.0) + grad
    return w - lr * m, {"m": m}


@wrong("momentum", says="The old rate is still in the memory")
def rate_inside(w, grad, state, lr, beta=0.9):
    m = beta * state.get("m", 0.0) + lr * grad
    return w - m, {"m": m}


_kept = {"m": 0.0}


@wrong("momentum", says="keep the memory in `state`")
def one_global_memory(w, grad, state, lr, beta=0.9):
    if not np.shape(_kept["m"]) == w.shape:
        _kept["m"] = 0.0
    _kept["m"] = beta * _kept["m"] + grad
    return w - lr * _kept["m"], {}


@wrong("momentum", says="two things")
def only_w(w, grad, state, lr, beta=0.9):
    return w - lr * grad


@wrong("momentum", says="changes its input in place")
def in_place(w, grad, state, lr, beta=0.9):
    m = beta * state.get("m", 0.0) + grad
    w -= lr * m
    return w, {"m": m}


@wrong("momentum", says="today's slope")
def fades_today(w, grad, state, lr, beta=0.9):
    m = state["m"] + beta * grad if state else grad
    return w - lr * m, {"m": m}


@wrong("momentum", says="the caller's own `grad`")
def keeps_the_callers_array(w, grad, state, lr, beta=0.9):
    m = beta * state["m"] + grad if "m" in state else grad
    return w - lr * m, {"m": m}


@wrong("momentum", says="fades the old m alone")
def fades_the_sum(w, grad, state, lr, beta=0.9):
    m = beta * (state.get("m", 0.0) + grad)
    return w - lr * m, {"m": m}


# ---- adagrad ----


def _adagrad(w, grad, state, lr, eps, v=None, root=np.sqrt, keep=True):
    v = state.get("v", 0.0) + grad**2 if v is None else v
    return w - lr * grad / (root(v) + eps), {"v": v} if keep else {}


@wrong("adagrad", says="root is missing")
def no_root(w, grad, state, lr, eps=1e-10):
    return _adagrad(w, grad, state, lr, eps, root=lambda v: v)


@wrong("adagrad", says="v forgot the first slope")
def sign_step(w, grad, state, lr, eps=1e-10):
    return _adagrad(w, grad, state, lr, eps, keep=False)


@wrong("adagrad", says="sum of the sizes")
def sizes(w, grad, state, lr, eps=1e-10):
    v = state.get("v", 0.0) + np.abs(grad)
    return w - lr * grad / (v + eps), {"v": v}


@wrong("adagrad", says="one for each")
def one_for_all(w, grad, state, lr, eps=1e-10):
    return _adagrad(w, grad, state, lr, eps, v=state.get("v", 0.0) + (grad**2).sum())


@wrong("adagrad", says="0 / 0 is nan")
def without_eps(w, grad, state, lr, eps=1e-10):
    with np.errstate(all="ignore"):
        return _adagrad(w, grad, state, lr, 0.0)


@wrong("adagrad", says="beside the root")
def eps_inside(w, grad, state, lr, eps=1e-10):
    v = state.get("v", 0.0) + grad**2
    return w - lr * grad / np.sqrt(v + eps), {"v": v}


@wrong("adagrad", says="today's slope counts too")
def late(w, grad, state, lr, eps=1e-10):
    v = state.get("v", grad**2)
    new = v + grad**2 if state else v
    return w - lr * grad / (np.sqrt(v) + eps), {"v": new}


@wrong("adagrad", says="AdaGrad keeps the sum")
def mean_of_squares(w, grad, state, lr, eps=1e-10):
    n, total = state.get("n", 0) + 1, state.get("v", 0.0) + grad**2
    return w - lr * grad / (np.sqrt(total / n) + eps), {"v": total, "n": n}


@wrong("adagrad", says="eps inside the brackets")
def eps_outside(w, grad, state, lr, eps=1e-10):
    v = state.get("v", 0.0) + grad**2
    return w - lr * grad / np.sqrt(v) + eps, {"v": v}


# ---- rmsprop ----


def _rmsprop(
    w, grad, state, lr, eps, old, new, root=np.sqrt, square=np.square, keep=True
):
    v = old * state.get("v", 0.0) + new * square(grad)
    return w - lr * grad / (root(v) + eps), {"v": v} if keep else {}


@wrong("rmsprop", says="v is a sum here")
def adds(w, grad, state, lr, beta=0.99, eps=1e-8):
    return _rmsprop(w, grad, state, lr, eps, beta, 1)


@wrong("rmsprop", says="parts are swapped")
def swapped(w, grad, state, lr, beta=0.99, eps=1e-8):
    return _rmsprop(w, grad, state, lr, eps, 1 - beta, beta)


@wrong("rmsprop", says="Nothing fades")
def old_counts_whole(w, grad, state, lr, beta=0.99, eps=1e-8):
    return _rmsprop(w, grad, state, lr, eps, 1, 1 - beta)


@wrong("rmsprop", says="root is missing")
def rms_no_root(w, grad, state, lr, beta=0.99, eps=1e-8):
    return _rmsprop(w, grad, state, lr, eps, beta, 1 - beta, root=lambda v: v)


@wrong("rmsprop", says="not squared")
def not_squared(w, grad, state, lr, beta=0.99, eps=1e-8):
    with np.errstate(all="ignore"):
        return _rmsprop(w, grad, state, lr, eps, beta, 1 - beta, square=lambda g: g)


@wrong("rmsprop", says="v forgot the first slope")
def rms_forgets(w, grad, state, lr, beta=0.99, eps=1e-8):
    return _rmsprop(w, grad, state, lr, eps, beta, 1 - beta, keep=False)


@wrong("rmsprop", says="beside the root")
def rms_eps_inside(w, grad, state, lr, beta=0.99, eps=1e-8):
    v = beta * state.get("v", 0.0) + (1 - beta) * grad**2
    return w - lr * grad / np.sqrt(v + eps), {"v": v}


@wrong("rmsprop", says="which memory is lost")
def ignores_beta(w, grad, state, lr, beta=0.75, eps=1e-8):
    return _rmsprop(w, grad, state, lr, eps, 0.75, 0.25)


@wrong("rmsprop", says="v starts at the first square")
def starts_at_the_square(w, grad, state, lr, beta=0.99, eps=1e-8):
    v = beta * state.get("v", grad**2) + (1 - beta) * grad**2
    return w - lr * grad / (np.sqrt(v) + eps), {"v": v}


@wrong("rmsprop", says="bias correction comes with Adam")
def corrected(w, grad, state, lr, beta=0.99, eps=1e-8):
    t = state.get("t", 0) + 1
    v = beta * state.get("v", 0.0) + (1 - beta) * grad**2
    root = np.sqrt(v / (1 - beta**t))
    return w - lr * grad / (root + eps), {"v": v, "t": t}


@wrong("rmsprop", says="v is a sum here, AdaGrad's")
def adagrad_again(w, grad, state, lr, beta=0.99, eps=1e-8):
    return _rmsprop(w, grad, state, lr, eps, 1, 1)


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


@wrong("adam", says="bias correction is missing")
def uncorrected(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(w, grad, state, lr, beta1, beta2, eps, fix_m=False, fix_v=False)


@wrong("adam", says="m is corrected, v is not")
def only_m(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(w, grad, state, lr, beta1, beta2, eps, fix_v=False)


@wrong("adam", says="v is corrected, m is not")
def only_v(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(w, grad, state, lr, beta1, beta2, eps, fix_m=False)


@wrong("adam", says="t starts at 0")
def from_zero(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(w, grad, state, lr, beta1, beta2, eps, first=0)


@wrong("adam", says="t stays at 1")
def clock_stands(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(w, grad, state, lr, beta1, beta2, eps, keep="mv")


@wrong("adam", says="not squared")
def adam_not_squared(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(w, grad, state, lr, beta1, beta2, eps, square=lambda g: g)


@wrong("adam", says="are swapped")
def betas_swapped(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(w, grad, state, lr, beta2, beta1, eps)


@wrong("adam", says="along today's slope")
def no_direction_memory(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(w, grad, state, lr, beta1, beta2, eps, along="today")


@wrong("adam", says="beside the root")
def adam_eps_inside(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(w, grad, state, lr, beta1, beta2, eps, inside=True)


@wrong("adam", says="keep the plain m and v")
def stores_the_corrected(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    t = state.get("t", 0) + 1
    m = (beta1 * state.get("m", 0.0) + (1 - beta1) * grad) / (1 - beta1**t)
    v = (beta2 * state.get("v", 0.0) + (1 - beta2) * grad**2) / (1 - beta2**t)
    return w - lr * m / (np.sqrt(v) + eps), {"m": m, "v": v, "t": t}


@wrong("adam", says="The state is a dict")
def state_is_a_tuple(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    w, state = _adam(w, grad, {}, lr, beta1, beta2, eps)
    return w, tuple(state.values())


@wrong("adam", says="eps inside the brackets")
def adam_eps_outside(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    moved, state = _adam(w, grad, state, lr, beta1, beta2, 0.0)
    return moved + eps, state


@wrong("adam", says="eps inside the brackets")
def adam_eps_on_the_step(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    moved, state = _adam(w, grad, state, lr, beta1, beta2, 0.0)
    return moved - lr * eps, state


@wrong("adam", says="t is 2 in the first step")
def from_two(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(w, grad, state, lr, beta1, beta2, eps, first=2)


@wrong("adam", says="grows by one a step")
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


@wrong("adam", says="with a power?")
def beta_times_t(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _times_t(w, grad, state, lr, beta1, beta2, eps)


@wrong("adam", says="with a power?")
def beta1_times_t(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    return _times_t(w, grad, state, lr, beta1, beta2, eps, v_too=False)


# ---- adamw ----


def _plain_adam(w, grad, state, lr):
    return _adam(w, grad, state, lr, 0.9, 0.999, 1e-8)


@wrong("adamw", says="this is L2")
def through_the_slope(w, grad, state, lr, weight_decay=0.01):
    return _plain_adam(w, grad + weight_decay * w, state, lr)


@wrong("adamw", says="decay is missing")
def no_decay(w, grad, state, lr, weight_decay=0.01):
    return _plain_adam(w, grad, state, lr)


@wrong("adamw", says="not multiplied by the learning rate")
def decay_without_rate(w, grad, state, lr, weight_decay=0.01):
    moved, state = _plain_adam(w, grad, state, lr)
    return moved - weight_decay * w, state


@wrong("adamw", says="The weights grow")
def grows(w, grad, state, lr, weight_decay=0.01):
    moved, state = _plain_adam(w, grad, state, lr)
    return moved + lr * weight_decay * w, state


@wrong("adamw", says="of the moved w")
def decays_the_new(w, grad, state, lr, weight_decay=0.01):
    moved, state = _plain_adam(w, grad, state, lr)
    return moved * (1 - lr * weight_decay), state


@wrong("adamw", says="that is L1")
def same_amount(w, grad, state, lr, weight_decay=0.01):
    moved, state = _plain_adam(w, grad, state, lr)
    return moved - lr * weight_decay * np.sign(w), state


@wrong("adamw", says="paid twice")
def decays_twice(w, grad, state, lr, weight_decay=0.01):
    moved, state = _plain_adam(w, grad + weight_decay * w, state, lr)
    return moved - lr * weight_decay * w, state


@wrong("adamw", says="hand all three to adam")
def drops_all(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    moved, state = _plain_adam(w, grad, state, lr)
    return moved - lr * weight_decay * w, state


@wrong("adamw", says="eps is not passed on")
def drops_eps(w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    moved, state = _adam(w, grad, state, lr, beta1, beta2, 1e-8)
    return moved - lr * weight_decay * w, state


@wrong("adamw", says="beta1 and beta2 are not passed on")
def drops_betas(
    w, grad, state, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01
):
    moved, state = _adam(w, grad, state, lr, 0.9, 0.999, eps)
    return moved - lr * weight_decay * w, state


# ---- warmup_cosine ----


def _cosine(step, lr, warmup, total, final=0.0):
    if step < warmup:
        return lr * (step + 1) / warmup
    done = min((step - warmup) / (total - warmup), 1.0)
    return final + (lr - final) * (1 + np.cos(np.pi * done)) / 2


@wrong("warmup_cosine", says="first step has rate 0")
def from_nothing(step, lr, warmup, total, final=0.0):
    return (
        lr * step / warmup if step < warmup else _cosine(step, lr, warmup, total, final)
    )


@wrong("warmup_cosine", says="There is no climb")
def no_climb(step, lr, warmup, total, final=0.0):
    return lr if step < warmup else _cosine(step, lr, warmup, total, final)


@wrong("warmup_cosine", says="counts from step 0")
def counts_from_zero(step, lr, warmup, total, final=0.0):
    if step < warmup:
        return lr * (step + 1) / warmup
    return _cosine(step, lr, 0, total, final)


@wrong("warmup_cosine", says="climbs again")
def comes_back(step, lr, warmup, total, final=0.0):
    if step < warmup:
        return lr * (step + 1) / warmup
    done = (step - warmup) / (total - warmup)
    return final + (lr - final) * (1 + np.cos(np.pi * done)) / 2


@wrong("warmup_cosine", says="It falls to 0")
def ignores_final(step, lr, warmup, total, final=0.0):
    return _cosine(step, lr, warmup, total)


@wrong("warmup_cosine", says="halve 1 + cos")
def whole_cosine(step, lr, warmup, total, final=0.0):
    if step < warmup:
        return lr * (step + 1) / warmup
    done = min((step - warmup) / (total - warmup), 1.0)
    return final + (lr - final) * np.cos(np.pi * done)


@wrong("warmup_cosine", says="straight line")
def straight(step, lr, warmup, total, final=0.0):
    if step < warmup:
        return lr * (step + 1) / warmup
    return lr + (final - lr) * min((step - warmup) / (total - warmup), 1.0)


@wrong("warmup_cosine", says="ZeroDivisionError")
def needs_a_climb(step, lr, warmup, total, final=0.0):
    return min(lr * (step + 1) / warmup, _cosine(step, lr, warmup, total, final))


@wrong("warmup_cosine", says="one step too long")
def climbs_too_long(step, lr, warmup, total, final=0.0):
    if step <= warmup and warmup:
        return lr * (step + 1) / warmup
    return _cosine(step, lr, warmup, total, final)


@wrong("warmup_cosine", says="the rate falls to 0")
def nothing_after(step, lr, warmup, total, final=0.0):
    return 0.0 if step > total else _cosine(step, lr, warmup, total, final)


@wrong("warmup_cosine", says="returns nothing, or nan")
def silent_after(step, lr, warmup, total, final=0.0):
    return None if step > total else _cosine(step, lr, warmup, total, final)


# ---- gradient_noise ----


def _noise(grads, size, draws, rng, replace=True, mean=True, centre=True, root=True):
    far = []
    for _ in range(draws):
        rows = rng.choice(len(grads), size, replace=replace)
        batch = grads[rows].mean(0) if mean else grads[rows].sum(0)
        middle = grads.mean(0)
        far.append(((batch - middle * centre) ** 2).sum())
    return np.sqrt(np.mean(far)) if root else np.mean(far)


@wrong("gradient_noise", says="without replacement")
def without_replacement(grads, size, draws, rng):
    return _noise(grads, size, draws, rng, replace=False)


@wrong("gradient_noise", says="subtract the mean of all rows")
def size_of_the_gradient(grads, size, draws, rng):
    return _noise(grads, size, draws, rng, centre=False)


@wrong("gradient_noise", says="take the root")
def squared(grads, size, draws, rng):
    return _noise(grads, size, draws, rng, root=False)


@wrong("gradient_noise", says="one distance a batch")
def averaged_over_weights(grads, size, draws, rng):
    return _noise(grads, size, draws, rng) / np.sqrt(grads.shape[1])


@wrong("gradient_noise", says="added, not averaged")
def added_up(grads, size, draws, rng):
    return _noise(grads, size, draws, rng, mean=False)


@wrong("gradient_noise", says="ignore `rng`")
def own_draws(grads, size, draws, rng):
    return _noise(grads, size, draws, np.random.default_rng(0))


@wrong("gradient_noise", says="mean distance")
def mean_distance(grads, size, draws, rng):
    rows = rng.integers(len(grads), size=(draws, size))
    return np.linalg.norm(grads[rows].mean(1) - grads.mean(0), axis=1).mean()


@wrong("gradient_noise", says="Row N - 1 is never drawn")
def without_the_last(grads, size, draws, rng):
    rows = rng.integers(len(grads) - 1, size=(draws, size))
    return np.sqrt(((grads[rows].mean(1) - grads.mean(0)) ** 2).sum(1).mean())


@wrong("gradient_noise", says="Row 0 is never drawn")
def without_the_first(grads, size, draws, rng):
    rows = rng.integers(1, len(grads), size=(draws, size))
    return np.sqrt(((grads[rows].mean(1) - grads.mean(0)) ** 2).sum(1).mean())


@wrong("gradient_noise", says="from the mean of the batches")
def around_the_batches(grads, size, draws, rng):
    batches = grads[rng.integers(len(grads), size=(draws, size))].mean(1)
    return np.sqrt(batches.var(0).sum())


# ---- he_init ----


@wrong("he_init", says="ReLU halves")
def without_two(fan_in, fan_out, rng):
    return rng.normal(0, np.sqrt(1 / fan_in), (fan_in, fan_out))


@wrong("he_init", says="the variance")
def variance(fan_in, fan_out, rng):
    return rng.normal(0, 2 / fan_in, (fan_in, fan_out))


@wrong("he_init", says="counts the outputs")
def fan_out_only(fan_in, fan_out, rng):
    return rng.normal(0, np.sqrt(2 / fan_out), (fan_in, fan_out))


@wrong("he_init", says="Xavier")
def xavier(fan_in, fan_out, rng):
    return rng.normal(0, np.sqrt(2 / (fan_in + fan_out)), (fan_in, fan_out))


@wrong("he_init", says="inputs are the rows")
def turned_over(fan_in, fan_out, rng):
    return rng.normal(0, np.sqrt(2 / fan_in), (fan_out, fan_in))


@wrong("he_init", says="raw from the `rng`")
def own_rng(fan_in, fan_out, rng):
    return np.random.default_rng(0).normal(0, np.sqrt(2 / fan_in), (fan_in, fan_out))


@wrong("he_init", says="both signs")
def positive(fan_in, fan_out, rng):
    return rng.random((fan_in, fan_out)) * np.sqrt(24 / fan_in)


@wrong("he_init", says="draws are uniform")
def uniform(fan_in, fan_out, rng):
    far = np.sqrt(6 / fan_in)
    return rng.uniform(-far, far, (fan_in, fan_out))


@wrong("he_init", says="all sizes are equal")
def coins(fan_in, fan_out, rng):
    return rng.choice([-1, 1], (fan_in, fan_out)) * np.sqrt(2 / fan_in)


@wrong("he_init", says="not normal draws")
def other_draws(fan_in, fan_out, rng):
    return rng.laplace(0, np.sqrt(1 / fan_in), (fan_in, fan_out))


@wrong("he_init", says="Some columns are equal")
def one_column(fan_in, fan_out, rng):
    return rng.normal(0, np.sqrt(2 / fan_in), (fan_in, 1)) * np.ones(fan_out)


@wrong("he_init", says="Some rows are equal")
def one_row(fan_in, fan_out, rng):
    return rng.normal(0, np.sqrt(2 / fan_in), fan_out) * np.ones((fan_in, 1))


# ---- soft_threshold ----


@wrong("soft_threshold", says="steps over 0")
def steps_over(w, amount):
    return w - amount * np.sign(w)


@wrong("soft_threshold", says="Negative weights are lost")
def positive_only(w, amount):
    return np.maximum(w - amount, 0)


@wrong("soft_threshold", says="The sign is lost")
def no_sign(w, amount):
    return np.maximum(np.abs(w) - amount, 0)


@wrong("soft_threshold", says="hard threshold")
def hard(w, amount):
    return np.where(np.abs(w) > amount, w, 0.0)


@wrong("soft_threshold", says="as L2 does")
def shrinks(w, amount):
    return w * (1 - amount)


@wrong("soft_threshold", says="Nearly 0 is not 0")
def nearly(w, amount):
    return np.sign(w) * np.maximum(np.abs(w) - amount, 1e-12)


@wrong("soft_threshold", says="`w` has any shape")
def one_axis_only(w, amount):
    return np.array([max(abs(x) - amount, 0) * (1 if x > 0 else -1) for x in w])


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


@wrong("EarlyStopping", says="copy each")
class References(_Stopper):
    def copy(self, weights):
        return weights


@wrong("EarlyStopping", says="copy each")
class ShallowCopy(_Stopper):
    def copy(self, weights):
        return list(weights)


@wrong("EarlyStopping", says="one epoch late")
class Late(_Stopper):
    late = 1


@wrong("EarlyStopping", says="one epoch early")
class Early(_Stopper):
    late = -1


@wrong("EarlyStopping", says="never starts again")
class NeverResets(_Stopper):
    def update(self, loss, weights):
        if loss < self.best_loss:
            self.best_loss, self.best_weights = loss, self.copy(weights)
        else:
            self.waited += 1
        return self.waited >= self.patience


@wrong("EarlyStopping", says="Equal is not better")
class EqualCounts(_Stopper):
    def better(self, loss):
        return loss <= self.best_loss


@wrong("EarlyStopping", says="nan compares false")
class NanWins(_Stopper):
    def better(self, loss):
        return not loss >= self.best_loss


@wrong("EarlyStopping", says="returns nothing")
class SaysNothing(_Stopper):
    def update(self, loss, weights):
        _Stopper.update(self, loss, weights)


@wrong("EarlyStopping", says="epoch before the best")
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


@wrong("EarlyStopping", says="should be a class")
def a_function(patience):
    return _Stopper(patience)


@wrong("EarlyStopping", says="compare with best")
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


@wrong("EarlyStopping", says="compare with best")
class CountsFromTheLast(_Stopper):
    last = float("inf")

    def update(self, loss, weights):
        if loss < self.best_loss:
            self.best_loss, self.best_weights = loss, self.copy(weights)
        self.waited = 0 if loss < self.last else self.waited + 1
        self.last = loss
        return self.waited >= self.patience


# ---- shift_digits ----


def _shift(X, down, right, wrap=False):
    images = X.reshape(-1, 8, 8)
    if wrap:
        return np.roll(images, (down, right), axis=(1, 2)).reshape(X.shape)
    padded = np.pad(images, ((0, 0), (8, 8), (8, 8)))
    window = padded[:, 8 - down : 16 - down, 8 - right : 16 - right]
    return window.reshape(X.shape)


@wrong("shift_digits", says="zeros should enter")
def wraps(X, down, right):
    return _shift(X, down, right, wrap=True)


@wrong("shift_digits", says="Down and right are swapped")
def swapped_axes(X, down, right):
    return _shift(X, right, down)


@wrong("shift_digits", says="wrong way")
def wrong_way(X, down, right):
    return _shift(X, -down, -right)


@wrong("shift_digits", says="Make it 8x8 first")
def flat(X, down, right):
    return np.roll(X, 8 * down + right, axis=1)


@wrong("shift_digits", says="rows of 64 go out")
def stays_square(X, down, right):
    return _shift(X, down, right).reshape(-1, 8, 8)


@wrong("shift_digits", says="is empty")
def empty_slice(X, down, right):
    if down or right:
        return _shift(X, down, right)
    return X[:, :-0]


@wrong("shift_digits", says="changes its input in place")
def shifts_in_place(X, down, right):
    X[...] = _shift(X, down, right)
    return X


@wrong("shift_digits", says="cut to whole numbers")
def whole_numbers(X, down, right):
    return _shift(X, down, right).astype(int)


@wrong("shift_digits", says="image 0, row 1 of its 8x8 pixels")
def flat_with_zeros(X, down, right):
    by, out = 8 * down + right, np.zeros_like(X)
    out[:, max(by, 0) : 64 + min(by, 0)] = X[:, max(-by, 0) : 64 + min(-by, 0)]
    return out


@wrong("shift_digits", says="in the case: 2 images moved by down = -1")
def forward_only(X, down, right):
    images, out = X.reshape(-1, 8, 8), np.zeros((len(X), 8, 8))
    out[:, down:, right:] = images[:, : 8 - down, : 8 - right]
    return out.reshape(X.shape)
