"""Chapter 07: small wrong programs, and the sentence that names each."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from utils.built import recurrent, seq
from utils.checks import sequences as ex

# ---- blend ----


@ex.blend.slip(
    "The discount was collected and given to nobody: it does not add up to 1."
)
def keeps_what_was_paid(count, total, kinds, shorter, discount=0.75):
    p = np.maximum(count - discount, 0) / np.maximum(total, 1)
    return np.where(total > 0, p, shorter)


@ex.blend.slip("A count of 0 cannot pay: count - discount stops at 0.")
def pays_below_zero(count, total, kinds, shorter, discount=0.75):
    p = (count - discount + discount * kinds * shorter) / np.maximum(total, 1)
    return np.where(total > 0, p, shorter)


@ex.blend.slip(
    "Each of the `kinds` paid the discount: discount * kinds is there to share out, not one "
    "discount."
)
def one_discount(count, total, kinds, shorter, discount=0.75):
    p = (np.maximum(count - discount, 0) + discount * shorter) / np.maximum(total, 1)
    return np.where(total > 0, p, shorter)


@ex.blend.slip(
    "Each kind pays once, however often it was seen: it is discount * kinds that is shared "
    "out, not discount * total."
)
def all_pay_each_time(count, total, kinds, shorter, discount=0.75):
    p = np.maximum(count - discount, 0) + discount * total * shorter
    return np.where(total > 0, p / np.maximum(total, 1), shorter)


@ex.blend.slip(
    "What was paid is shared out as the shorter context says, not in equal parts."
)
def equal_parts(count, total, kinds, shorter, discount=0.75):
    p = np.maximum(count - discount, 0) + discount
    return np.where(total > 0, p / np.maximum(total, 1), shorter)


@ex.blend.slip(
    "The shorter context is asked only where the count is 0: everybody gets a share of what "
    "was paid."
)
def only_the_unseen(count, total, kinds, shorter, discount=0.75):
    p = np.where(count > 0, count - discount, discount * kinds * shorter)
    return np.where(total > 0, p / np.maximum(total, 1), shorter)


@ex.blend.slip(
    "A context that was never seen has a total of 0: there the shorter one answers alone."
)
def nothing_for_new_contexts(count, total, kinds, shorter, discount=0.75):
    return (np.maximum(count - discount, 0) + discount * kinds * shorter) / np.maximum(
        total, 1
    )


@ex.blend.slip("`if` decides once; np.where decides for each element.")
def one_if(count, total, kinds, shorter, discount=0.75):
    if total == 0:
        return shorter
    return (np.maximum(count - discount, 0) + discount * kinds * shorter) / total


@ex.blend.slip("The discount is an argument: here it is always 0.75.")
def always_three_quarters(count, total, kinds, shorter, discount=0.75):
    return seq.blend(count, total, kinds, shorter)


@ex.blend.slip("This is the shorter context alone: the counts are not used.")
def ignores_counts(count, total, kinds, shorter, discount=0.75):
    return shorter + 0 * np.asarray(count)


@ex.blend.slip(
    "Without a discount nothing is left for what was never seen: it gets 0, and a surprise "
    "of infinity."
)
def plain_share(count, total, kinds, shorter, discount=0.75):
    return np.where(total > 0, count / np.maximum(total, 1), shorter)


@ex.blend.slip(
    "Only a *context* never seen (total 0) leaves all to the shorter one; an unseen "
    "character gets its share of what was collected."
)
def shorter_for_the_unseen(count, total, kinds, shorter, discount=0.75):
    p = seq.blend(count, total, kinds, shorter, discount)
    return np.where(np.asarray(count) > 0, p, shorter)


# ---- embed_gradient ----


@ex.embed_gradient.slip(
    "`table[ids] += grad` writes each row once: the second of two equal rows overwrites the "
    "first. index_add_ adds them up."
)
def overwrites(ids_N, grad_NE, V):
    table = grad_NE.new_zeros(V, grad_NE.shape[1])
    table[ids_N] += grad_NE
    return table


@ex.embed_gradient.slip("A row used twice collects a sum, not a mean.")
def means(ids_N, grad_NE, V):
    counts = torch.bincount(ids_N, minlength=V).clamp(min=1)
    return recurrent.embed_gradient(ids_N, grad_NE, V) / counts[:, None]


@ex.embed_gradient.slip(
    "These are the gradients as they came, one per look-up: the table has V rows."
)
def as_they_came(ids_N, grad_NE, V):
    return grad_NE.clone()


@ex.embed_gradient.slip(
    "Row k of the gradient belongs to row ids_N[k] of the table, not to row k."
)
def by_position(ids_N, grad_NE, V):
    table = grad_NE.new_zeros(V, grad_NE.shape[1])
    n = min(V, len(grad_NE))
    table[:n] = grad_NE[:n]
    return table


@ex.embed_gradient.slip(
    "The table has V rows, also those that nobody looked up: their gradient is 0."
)
def only_used_rows(ids_N, grad_NE, V):
    return recurrent.embed_gradient(ids_N, grad_NE, int(ids_N.max()) + 1)


@ex.embed_gradient.slip("The table is (V, E): this is turned round.")
def turned_round(ids_N, grad_NE, V):
    return recurrent.embed_gradient(ids_N, grad_NE, V).T


@ex.embed_gradient.slip("The gradient has the dtype of what came in; this is float32.")
def always_float32(ids_N, grad_NE, V):
    return recurrent.embed_gradient(ids_N, grad_NE, V).float()


@ex.embed_gradient.slip(
    "This counts how often each row was used: it collects the gradients that came with it."
)
def counts_only(ids_N, grad_NE, V):
    one = torch.ones_like(grad_NE)
    return recurrent.embed_gradient(ids_N, one, V)


# ---- rnn ----


def _states(x_BTD, h_BH, step):
    out = []
    for x_BD in x_BTD.unbind(1):
        h_BH = step(x_BD, h_BH)
        out.append(h_BH)
    return torch.stack(out, 1)


@ex.rnn.slip(
    "PyTorch keeps weights as (outputs, inputs): it is @ W_hh.T. A square matrix does not "
    "complain."
)
def square_as_it_is(x_BTD, h_BH, W_ih, W_hh, b_ih, b_hh):
    return recurrent.rnn(x_BTD, h_BH, W_ih, W_hh.T, b_ih, b_hh)


@ex.rnn.slip("PyTorch keeps weights as (outputs, inputs): x @ W_ih.T, h @ W_hh.T.")
def not_transposed(x_BTD, h_BH, W_ih, W_hh, b_ih, b_hh):
    return _states(x_BTD, h_BH, lambda x, h: (x @ W_ih + b_ih + h @ W_hh + b_hh).tanh())


@ex.rnn.slip("Two biases: b_hh is missing.")
def one_bias(x_BTD, h_BH, W_ih, W_hh, b_ih, b_hh):
    return recurrent.rnn(x_BTD, h_BH, W_ih, W_hh, b_ih, 0 * b_hh)


@ex.rnn.slip("Two biases: b_ih is missing.")
def other_bias(x_BTD, h_BH, W_ih, W_hh, b_ih, b_hh):
    return recurrent.rnn(x_BTD, h_BH, W_ih, W_hh, 0 * b_ih, b_hh)


@ex.rnn.slip("The first state to return is the one *after* step 1.")
def stored_before(x_BTD, h_BH, W_ih, W_hh, b_ih, b_hh):
    out = recurrent.rnn(x_BTD, h_BH, W_ih, W_hh, b_ih, b_hh)
    return torch.cat([h_BH.expand(out[:, 0].shape)[:, None], out[:, :-1]], 1)


@ex.rnn.slip("It begins from 0: the first state is h_BH.")
def from_zero(x_BTD, h_BH, W_ih, W_hh, b_ih, b_hh):
    return recurrent.rnn(x_BTD, 0 * h_BH, W_ih, W_hh, b_ih, b_hh)


@ex.rnn.slip("Each step sees the first state: carry the new one on.")
def no_memory(x_BTD, h_BH, W_ih, W_hh, b_ih, b_hh):
    z = x_BTD @ W_ih.T + b_ih + (h_BH @ W_hh.T + b_hh)[:, None]
    return z.tanh()


@ex.rnn.slip("The bend is missing: tanh of the sum.")
def no_tanh(x_BTD, h_BH, W_ih, W_hh, b_ih, b_hh):
    return _states(x_BTD, h_BH, lambda x, h: x @ W_ih.T + b_ih + h @ W_hh.T + b_hh)


@ex.rnn.slip("The plain cell bends by tanh, from -1 to 1: this is sigmoid.")
def by_sigmoid(x_BTD, h_BH, W_ih, W_hh, b_ih, b_hh):
    return _states(
        x_BTD, h_BH, lambda x, h: (x @ W_ih.T + b_ih + h @ W_hh.T + b_hh).sigmoid()
    )


@ex.rnn.slip("This is the last state only: return those of all steps, (B, T, H).")
def last_only(x_BTD, h_BH, W_ih, W_hh, b_ih, b_hh):
    return recurrent.rnn(x_BTD, h_BH, W_ih, W_hh, b_ih, b_hh)[:, -1]


@ex.rnn.slip("This is (T, B, H): rows come first, torch.stack(out, 1).")
def time_first(x_BTD, h_BH, W_ih, W_hh, b_ih, b_hh):
    return recurrent.rnn(x_BTD, h_BH, W_ih, W_hh, b_ih, b_hh).transpose(0, 1)


@ex.rnn.slip(
    "The first state stands in front: the answer is the state after each step, T of them."
)
def with_the_first(x_BTD, h_BH, W_ih, W_hh, b_ih, b_hh):
    out = recurrent.rnn(x_BTD, h_BH, W_ih, W_hh, b_ih, b_hh)
    return torch.cat([h_BH[:, None], out], 1)


@ex.rnn.slip("A detached state carries no gradient back through time.")
def detached(x_BTD, h_BH, W_ih, W_hh, b_ih, b_hh):
    return recurrent.rnn(x_BTD, h_BH, W_ih, W_hh, b_ih, b_hh).detach()


# ---- bptt ----


def _walk(x_BTD, h0_BH, W_hh, out_BTH, grad_BTH, slope=None, after=False, back=None,
          keep=lambda t, T: True):  # fmt: skip
    slope, back = slope or (lambda h: 1 - h**2), W_hh if back is None else back
    B, T, H = out_BTH.shape
    before = torch.cat([h0_BH[:, None], out_BTH[:, :-1]], 1)
    state = out_BTH if after else before
    dh, dW_ih, dW_hh, db = torch.zeros_like(h0_BH), 0, 0, 0
    for t in reversed(range(T)):
        delta = (dh + grad_BTH[:, t]) * slope(out_BTH[:, t])
        if keep(t, T):
            dW_ih = dW_ih + delta.T @ x_BTD[:, t]
            dW_hh = dW_hh + delta.T @ state[:, t]
            db = db + delta.sum(0)
        dh = delta @ back
    return dW_ih, dW_hh, db, dh


@ex.bptt.slip(
    "Only the last step's part is there: the same weights were used at every step, and all "
    "parts add up."
)
def last_step_only(*given):
    return _walk(*given, keep=lambda t, T: t == T - 1)


@ex.bptt.slip("The slope of tanh is missing: delta = dh * (1 - h**2).")
def no_slope(*given):
    return _walk(*given, slope=torch.ones_like)


@ex.bptt.slip(
    "The slope of tanh, in its own value, is 1 - h**2: the square is missing."
)
def slope_without_square(*given):
    return _walk(*given, slope=lambda h: 1 - h)


@ex.bptt.slip("1 - h**2 is taken of h, which is a tanh already: no second tanh.")
def second_tanh(*given):
    return _walk(*given, slope=lambda h: 1 - h.tanh() ** 2)


@ex.bptt.slip("W_hh met the state *before* step t, not the one that came out of it.")
def state_after(*given):
    return _walk(*given, after=True)


@ex.bptt.slip("Forwards it was h @ W_hh.T, so backwards it is delta @ W_hh.")
def turned_back(x_BTD, h0_BH, W_hh, out_BTH, grad_BTH):
    return _walk(x_BTD, h0_BH, W_hh, out_BTH, grad_BTH, back=W_hh.T)


@ex.bptt.slip(
    "The loss looks at other steps, too: grad_BTH[:, t] comes in at every step, not only at "
    "the last."
)
def loss_at_the_end_only(x_BTD, h0_BH, W_hh, out_BTH, grad_BTH):
    grad = torch.zeros_like(grad_BTH)
    grad[:, -1] = grad_BTH[:, -1]
    return _walk(x_BTD, h0_BH, W_hh, out_BTH, grad)


@ex.bptt.slip(
    "Nothing comes back from step t+1: carry dh = delta @ W_hh on to the step before."
)
def no_way_back(*given):
    *d, dh = _walk(*given, back=torch.zeros_like(given[2]))
    return *d, dh


@ex.bptt.slip("The bias is used by every row: a sum over rows, not a mean.")
def bias_mean(*given):
    dW_ih, dW_hh, db, dh = _walk(*given)
    return dW_ih, dW_hh, db / len(given[1]), dh


@ex.bptt.slip("The first step began from h0: here it began from 0.")
def h0_forgotten(x_BTD, h0_BH, W_hh, out_BTH, grad_BTH):
    return _walk(x_BTD, 0 * h0_BH, W_hh, out_BTH, grad_BTH)


@ex.bptt.slip(
    "dh0 is one step further back: through the tanh of step 0 and through W_hh."
)
def stops_early(x_BTD, h0_BH, W_hh, out_BTH, grad_BTH):
    *d, _ = _walk(x_BTD, h0_BH, W_hh, out_BTH, grad_BTH)
    dh = torch.zeros_like(h0_BH)
    for t in reversed(range(1, x_BTD.shape[1])):
        dh = ((dh + grad_BTH[:, t]) * (1 - out_BTH[:, t] ** 2)) @ W_hh
    return *d, dh + grad_BTH[:, 0]


@ex.bptt.slip("dW_hh is turned round: row h belongs to the unit that it writes to.")
def turned_matrix(*given):
    dW_ih, dW_hh, db, dh = _walk(*given)
    return dW_ih, dW_hh.T, db, dh


def _by_hand(x_BTD, h0_BH, W_hh, out_BTH, join):
    "The walk back, where join(t, back, state after, state before) makes delta."
    before = torch.cat([h0_BH[:, None], out_BTH[:, :-1]], 1)
    dh, dW_ih, dW_hh, db = torch.zeros_like(h0_BH), 0, 0, 0
    for t in reversed(range(x_BTD.shape[1])):
        delta = join(t, dh, out_BTH[:, t], before[:, t])
        dW_ih = dW_ih + delta.T @ x_BTD[:, t]
        dW_hh = dW_hh + delta.T @ before[:, t]
        db, dh = db + delta.sum(0), delta @ W_hh
    return dW_ih, dW_hh, db, dh


@ex.bptt.slip(
    "The slope of tanh at step t is 1 - h_t ** 2, of the state that came *out* of it."
)
def slope_before(*given):
    *cut, grad = given
    return _by_hand(*cut, lambda t, dh, after, old: (dh + grad[:, t]) * (1 - old**2))


@ex.bptt.slip(
    "The slope multiplies both: what the loss says and what comes back from the next step."
)
def slope_of_one(*given):
    *cut, grad = given
    return _by_hand(*cut, lambda t, dh, after, old: grad[:, t] * (1 - after**2) + dh)


# ---- reach ----


def _rows(run, state_BS, u_BH):
    s = state_BS.detach().clone().requires_grad_()
    return torch.autograd.grad((run(s) * u_BH).sum(), s)[0]


@ex.reach.slip(
    "This is one length of all rows together: rows are separate walks, a length for each, "
    "then the mean."
)
def one_length(run, state_BS, u_BH):
    return _rows(run, state_BS, u_BH).norm().item()


@ex.reach.slip("The mean over rows, not the sum.")
def summed(run, state_BS, u_BH):
    return _rows(run, state_BS, u_BH).norm(dim=1).sum().item()


@ex.reach.slip("The root is missing: this is the square of the length.")
def squared(run, state_BS, u_BH):
    return (_rows(run, state_BS, u_BH) ** 2).sum(1).mean().item()


@ex.reach.slip("The length of the mean: first a length per row, then the mean.")
def length_of_mean(run, state_BS, u_BH):
    return _rows(run, state_BS, u_BH).mean(0).norm().item()


@ex.reach.slip("The direction is not used: it is u . h_T that is differentiated.")
def no_direction(run, state_BS, u_BH):
    return _rows(run, state_BS, torch.ones_like(u_BH)).norm(dim=1).mean().item()


@ex.reach.slip("This is the sum of absolute values: a length takes squares and a root.")
def absolute(run, state_BS, u_BH):
    return _rows(run, state_BS, u_BH).abs().sum(1).mean().item()


@ex.reach.slip(
    "The second call gives more than the first: gradients add up in .grad. "
    "torch.autograd.grad, or a clone."
)
def adds_up(run, state_BS, u_BH):
    state_BS.requires_grad_()
    (run(state_BS) * u_BH).sum().backward()
    return state_BS.grad.norm(dim=1).mean().item()


@ex.reach.slip("The state does not ask for gradients: .clone().requires_grad_() first.")
def does_not_ask(run, state_BS, u_BH):
    s = state_BS.detach()
    return torch.autograd.grad((run(s) * u_BH).sum(), s)[0].norm(dim=1).mean().item()


@ex.reach.slip("A plain number: .item(). A tensor keeps the whole graph in memory.")
def still_a_tensor(run, state_BS, u_BH):
    return _rows(run, state_BS, u_BH).norm(dim=1).mean()


@ex.reach.slip(
    "This is what the last state is worth along u, not how it feels the first."
)
def the_value(run, state_BS, u_BH):
    return (run(state_BS) * u_BH).sum(1).abs().mean().item()


# ---- lstm_cell ----


def _gates(
    order="ifgo", bends=None, last=torch.tanh, keep=lambda f, i: (f, i), more=None
):
    bends = bends or {"i": torch.sigmoid, "f": torch.sigmoid, "o": torch.sigmoid,
                      "g": torch.tanh}  # fmt: skip

    def cell(x, h, c, W_ih, W_hh, b_ih, b_hh):
        z = x @ W_ih.T + b_ih + h @ W_hh.T + b_hh
        made = {k: bends[k](part) for k, part in zip(order, z.chunk(4, 1))}
        f, i = keep(made["f"], made["i"])
        c = f * c + i * made["g"]
        return made["o"] * last(c), c

    return cell


for name, sentence, cell in [
    ("i_f_o_g", "PyTorch's order is input, forget, candidate, output: here the last two are "
     "exchanged.", _gates("ifog")),
    ("f_i_g_o", "PyTorch's order is input, forget, candidate, output: here the first two are "
     "exchanged.", _gates("figo")),
    ("sigmoid_candidate", "The candidate is new content and may be negative: tanh, not "
     "sigmoid.", _gates(bends=dict.fromkeys("ifgo", torch.sigmoid))),
    ("plain_candidate", "The candidate goes through a tanh.",
     _gates(bends={**dict.fromkeys("ifo", torch.sigmoid), "g": lambda z: z})),
    ("no_last_tanh", "h is the output gate times the tanh of the new c.",
     _gates(last=lambda c: c)),
    ("forget_turned", "A forget gate of 1 keeps: it is f * c, not (1 - f) * c.",
     _gates(keep=lambda f, i: (1 - f, i))),
    ("one_gate", "Input and forget are two gates: this is 1 - f in place of i.",
     _gates(keep=lambda f, i: (f, 1 - f))),
    ("forgets_all", "The old c is lost: f * c + i * g.", _gates(keep=lambda f, i: (0 * f, i))),
    ("always_open", "What comes in passes the input gate: i * g.",
     _gates(keep=lambda f, i: (f, 1))),
    ("never_forgets", "The old c passes the forget gate: f * c.",
     _gates(keep=lambda f, i: (1, i))),
]:  # fmt: skip
    cell.__name__ = name
    ex.lstm_cell.slip(sentence)(cell)


@ex.lstm_cell.slip("h is made from the *new* c.")
def from_the_old_c(x, h, c, W_ih, W_hh, b_ih, b_hh):
    i, f, g, o = (x @ W_ih.T + b_ih + h @ W_hh.T + b_hh).chunk(4, 1)
    return o.sigmoid() * c.tanh(), f.sigmoid() * c + i.sigmoid() * g.tanh()


@ex.lstm_cell.slip("First h, then c.")
def c_first(*given):
    return recurrent.lstm_cell(*given)[::-1]


@ex.lstm_cell.slip("It returns two things: the new h and the new c.")
def only_h(*given):
    return recurrent.lstm_cell(*given)[0]


@ex.lstm_cell.slip("The gates see the last h, too: + h @ W_hh.T.")
def blind_gates(x, h, c, W_ih, W_hh, b_ih, b_hh):
    return recurrent.lstm_cell(x, 0 * h, c, W_ih, W_hh, b_ih, b_hh)


@ex.lstm_cell.slip("Two biases: b_hh is missing.")
def one_bias_cell(x, h, c, W_ih, W_hh, b_ih, b_hh):
    return recurrent.lstm_cell(x, h, c, W_ih, W_hh, b_ih, 0 * b_hh)


@ex.lstm_cell.slip("Two biases: b_ih is missing.")
def other_bias_cell(x, h, c, W_ih, W_hh, b_ih, b_hh):
    return recurrent.lstm_cell(x, h, c, W_ih, W_hh, 0 * b_ih, b_hh)


# ---- remember ----


def _set(lstm, bias, quarter=1, hidden=0.0):
    H = lstm.hidden_size
    with torch.no_grad():
        lstm.bias_ih_l0[quarter * H : (quarter + 1) * H] = bias
        if hidden is not None:
            lstm.bias_hh_l0[quarter * H : (quarter + 1) * H] = hidden
    return bias


def _bias(T):
    share = 0.5 ** (1 / T)
    return math.log(share / (1 - share))


@ex.remember.slip("Both biases are b, and the cell adds them: that makes 2 b.")
def both(lstm, T):
    return _set(lstm, _bias(T), hidden=_bias(T))


@ex.remember.slip("This is the first quarter, the input gate: forget is rows H to 2H.")
def first_quarter(lstm, T):
    return _set(lstm, _bias(T), quarter=0)


@ex.remember.slip("This is the third quarter, the candidate: forget is rows H to 2H.")
def third_quarter(lstm, T):
    return _set(lstm, _bias(T), quarter=2)


@ex.remember.slip("bias_hh still holds its random start, which is added: set it to 0.")
def other_left(lstm, T):
    return _set(lstm, _bias(T), hidden=None)


@ex.remember.slip(
    "1 - 1/T leaves 1/e after T steps, about 0.37: for a half it is 0.5 ** (1 / T)."
)
def to_one_e(lstm, T):
    share = min(1 - 1 / T, 1 - 1e-9)
    return _set(lstm, math.log(max(share, 1e-9) / (1 - share)))


@ex.remember.slip("This is the share that is kept per step: the bias is its logit.")
def share_itself(lstm, T):
    return _set(lstm, 0.5 ** (1 / T))


@ex.remember.slip(
    "The inverse of sigmoid is log(share / (1 - share)): this is log(share)."
)
def log_only(lstm, T):
    return _set(lstm, math.log(0.5 ** (1 / T)))


@ex.remember.slip("The sign is turned round: this gate forgets what it should keep.")
def turned_sign(lstm, T):
    return _set(lstm, -_bias(T))


@ex.remember.slip("All four gates were set: only the forget gate, rows H to 2H.")
def all_gates(lstm, T):
    with torch.no_grad():
        lstm.bias_ih_l0[:], lstm.bias_hh_l0[:] = _bias(T), 0
    return _bias(T)


@ex.remember.slip("All other biases were put to 0: only rows H to 2H of bias_hh are.")
def clears_the_rest(lstm, T):
    bias = _set(lstm, _bias(T))
    with torch.no_grad():
        lstm.bias_hh_l0[:] = 0
    return bias


@ex.remember.slip("It returns the bias, b.")
def returns_nothing(lstm, T):
    _set(lstm, _bias(T))


@ex.remember.slip(
    "The bias is a new object, which no optimiser knows: write into the old one."
)
def new_objects(lstm, T):
    H = lstm.hidden_size
    new = [p.detach().clone() for p in (lstm.bias_ih_l0, lstm.bias_hh_l0)]
    new[0][H : 2 * H], new[1][H : 2 * H] = _bias(T), 0
    lstm.bias_ih_l0, lstm.bias_hh_l0 = map(torch.nn.Parameter, new)
    return _bias(T)


# ---- clip ----


def _length(grads):
    return math.sqrt(sum(float((g**2).sum()) for g in grads))


@ex.clip.slip(
    "Each tensor was cut by itself, which turns the arrow: one factor for all of them."
)
def per_tensor(grads, most):
    cut = [g * min(1.0, most / max(float(g.norm()), 1e-12)) for g in grads]
    return cut, _length(grads)


@ex.clip.slip("Each number was cut by itself: it is the length of all that is cut.")
def per_number(grads, most):
    return [g.clamp(-most, most) for g in grads], _length(grads)


@ex.clip.slip("Short gradients were stretched: the factor is never above 1.")
def always_that_long(grads, most):
    length = _length(grads)
    return [g * most / length if length else g for g in grads], length


@ex.clip.slip("The root is missing: a length is the root of the sum of squares.")
def no_root(grads, most):
    length = _length(grads) ** 2
    return [g * (min(1, most / length) if length else 1) for g in grads], length


@ex.clip.slip("It tells the length before the cut, not after it.")
def length_after(grads, most):
    cut, length = recurrent.clip(grads, most)
    return cut, min(length, most)


@ex.clip.slip("Lengths do not add up: it is the root of the sum of their squares.")
def added_lengths(grads, most):
    length = sum(float(g.norm()) for g in grads)
    return [g * (min(1, most / length) if length else 1) for g in grads], length


@ex.clip.slip("This is the largest number of all, not the length.")
def largest(grads, most):
    length = max(float(g.abs().max()) for g in grads)
    return [g * (min(1, most / length) if length else 1) for g in grads], length


@ex.clip.slip("It returns two things: the new gradients and the length they had.")
def gradients_only(grads, most):
    return recurrent.clip(grads, most)[0]


@ex.clip.slip(
    "Long gradients were dropped: they are shortened, and keep their direction."
)
def dropped(grads, most):
    length = _length(grads)
    return [g * (length <= most) for g in grads], length


@ex.clip.slip(told="changes its input")
def in_place(grads, most):
    cut, length = recurrent.clip(grads, most)
    for g, new in zip(grads, cut):
        g.copy_(new)
    return grads, length


# ---- streams ----


def _pairs(x, y, T):
    return [(x[:, t : t + T], y[:, t : t + T]) for t in range(0, x.shape[1], T)]


@ex.streams.slip(
    "Here the text goes on from row to row inside a batch; row b must go on in the *next* "
    "batch. Cut into B pieces first."
)
def windows_in_order(ids_N, B, T):
    L = (len(ids_N) - 1) // B
    made = []
    for start in range(0, B * L, B * T):
        width = min(T, (B * L - start) // B)
        here = ids_N[start : start + B * width + 1]
        made.append((here[:-1].view(B, width), here[1:].view(B, width)))
    return made


@ex.streams.slip("x and y are the same: the target is the character behind each.")
def its_own_target(ids_N, B, T):
    L = (len(ids_N) - 1) // B
    x = ids_N[: B * L].view(B, L)
    return _pairs(x, x, T)


@ex.streams.slip("These targets lie one character before, not behind.")
def the_one_before(ids_N, B, T):
    L = (len(ids_N) - 1) // B
    return _pairs(ids_N[1 : B * L + 1].view(B, L), ids_N[: B * L].view(B, L), T)


@ex.streams.slip(
    "The last, narrower batch is missing: its characters would never be learnt."
)
def full_batches_only(ids_N, B, T):
    return [pair for pair in seq.streams(ids_N, B, T) if pair[0].shape[1] == T]


@ex.streams.slip(
    "The target of a piece's last character is the first of the next piece: cut y from the "
    "text, one further, not from x."
)
def rolls_each_row(ids_N, B, T):
    L = (len(ids_N) - 1) // B
    x = ids_N[: B * L].view(B, L)
    return _pairs(x, x.roll(-1, 1), T)


@ex.streams.slip(
    "N // B characters a piece leave the last one without a target: (N - 1) // B."
)
def one_too_many(ids_N, B, T):
    L = len(ids_N) // B
    around = torch.cat([ids_N, ids_N[:1]])
    return _pairs(around[: B * L].view(B, L), around[1 : B * L + 1].view(B, L), T)


@ex.streams.slip(
    "Every batch loses a column: the target of its last one is the next batch's."
)
def loses_a_column(ids_N, B, T):
    L = (len(ids_N) - 1) // B
    rows = ids_N[: B * L].view(B, L)
    parts = [rows[:, t : t + T] for t in range(0, L, T)]
    return [(part[:, :-1], part[:, 1:]) for part in parts]


@ex.streams.slip("This is turned round: rows are the B pieces, (B, T).")
def turned_batches(ids_N, B, T):
    return [(x.T, y.T) for x, y in seq.streams(ids_N, B, T)]


@ex.streams.slip("Each batch is a pair (x_BT, y_BT).")
def inputs_only(ids_N, B, T):
    return [x for x, _ in seq.streams(ids_N, B, T)]


@ex.streams.slip("Batches overlap: the next one begins T columns further, not one.")
def one_step_further(ids_N, B, T):
    L = (len(ids_N) - 1) // B
    x, y = ids_N[: B * L].view(B, L), ids_N[1 : B * L + 1].view(B, L)
    return [(x[:, t : t + T], y[:, t : t + T]) for t in range(L)]


# ---- sharpen ----


@ex.sharpen.slip(
    "Here a temperature below 1 makes it flatter: divide the logits by it."
)
def multiplied(logits_V, temperature=1.0, top_k=None, top_p=None):
    return seq.sharpen(logits_V, 1 / temperature, top_k, top_p)


@ex.sharpen.slip(
    "The temperature belongs to the logits: before the softmax, not after."
)
def after_softmax(logits_V, temperature=1.0, top_k=None, top_p=None):
    return seq.sharpen(logits_V, 1.0, top_k, top_p) / temperature


@ex.sharpen.slip("exp of a large logit is infinite: let softmax do it.")
def by_hand(logits_V, temperature=1.0, top_k=None, top_p=None):
    e = (logits_V / temperature).exp()
    p = e / e.sum(-1, keepdim=True)
    return p if top_k is top_p is None else seq.sharpen(p.log(), 1.0, top_k, top_p)


def _top_k(logits_V, temperature, top_k, fill=-torch.inf, axis=-1, most=True):
    z = logits_V / temperature
    k = min(top_k, z.shape[axis])
    least = z.topk(k, dim=axis).values.narrow(axis, k - 1, 1)
    return z.masked_fill(z < least, fill)


@ex.sharpen.slip(
    "A logit of 0 is no probability of 0: those that are dropped become -inf."
)
def zero_logits(logits_V, temperature=1.0, top_k=None, top_p=None):
    if top_k is None:
        return seq.sharpen(logits_V, temperature, None, top_p)
    return seq.sharpen(_top_k(logits_V, temperature, top_k, 0.0), 1.0, None, top_p)


@ex.sharpen.slip("What stays must add up to 1 again.")
def not_scaled(logits_V, temperature=1.0, top_k=None, top_p=None):
    p = (logits_V / temperature).softmax(-1)
    return p * (seq.sharpen(logits_V, temperature, top_k, top_p) > 0)


@ex.sharpen.slip(
    "They come back sorted: each probability stays where its character stands."
)
def still_sorted(logits_V, temperature=1.0, top_k=None, top_p=None):
    p = seq.sharpen(logits_V, temperature, top_k, top_p)
    return p if top_p is None else p.sort(-1, descending=True).values


def _top_p(logits_V, temperature, top_k, top_p, drop):
    p = seq.sharpen(logits_V, temperature, top_k)
    if top_p is None:
        return p
    s, order = p.sort(-1, descending=True)
    s = s.masked_fill(drop(s, top_p), 0)
    p = torch.zeros_like(p).scatter(-1, order, s)
    return p / p.sum(-1, keepdim=True)


@ex.sharpen.slip(
    "The one that crosses p stays: drop those before which p is already reached. Here even "
    "the likeliest can go."
)
def drops_the_crossing_one(logits_V, temperature=1.0, top_k=None, top_p=None):
    return _top_p(logits_V, temperature, top_k, top_p, lambda s, p: s.cumsum(-1) > p)


@ex.sharpen.slip(
    "top_p compares the sum of the likeliest, not each probability: this drops those below p."
)
def each_above_p(logits_V, temperature=1.0, top_k=None, top_p=None):
    return _top_p(logits_V, temperature, top_k, top_p, lambda s, p: s < p)


@ex.sharpen.slip("This keeps the unlikely ones: sort from the largest down.")
def from_the_small_end(logits_V, temperature=1.0, top_k=None, top_p=None):
    def drop(s, p):
        up = s.flip(-1)
        return ((up.cumsum(-1) - up) >= p).flip(-1)

    return _top_p(logits_V, temperature, top_k, top_p, drop)


@ex.sharpen.slip("The temperature comes first; here top_p was decided without it.")
def p_before_temperature(logits_V, temperature=1.0, top_k=None, top_p=None):
    if top_p is None:
        return seq.sharpen(logits_V, temperature, top_k)
    keep = seq.sharpen(logits_V, 1.0, top_k, top_p) > 0
    return (logits_V / temperature).masked_fill(~keep, -torch.inf).softmax(-1)


@ex.sharpen.slip("top_k first, then top_p of what is left, which adds up to 1 again.")
def p_before_k(logits_V, temperature=1.0, top_k=None, top_p=None):
    p = seq.sharpen(logits_V, temperature, None, top_p)
    return p if top_k is None else seq.sharpen(p.log(), 1.0, top_k)


@ex.sharpen.slip("There may be fewer characters than k: then all stay.")
def k_too_large(logits_V, temperature=1.0, top_k=None, top_p=None):
    z = logits_V / temperature
    if top_k is not None:
        z = z.masked_fill(z < z.topk(top_k).values[..., -1:], -torch.inf)
    return seq.sharpen(z, 1.0, None, top_p)


@ex.sharpen.slip("top_k is not used.")
def no_top_k(logits_V, temperature=1.0, top_k=None, top_p=None):
    return seq.sharpen(logits_V, temperature, None, top_p)


@ex.sharpen.slip("top_p is not used.")
def no_top_p(logits_V, temperature=1.0, top_k=None, top_p=None):
    return seq.sharpen(logits_V, temperature, top_k)


@ex.sharpen.slip(
    "All rows share one softmax: the last axis are the characters, each row adds up to 1."
)
def one_softmax(logits_V, temperature=1.0, top_k=None, top_p=None):
    p = seq.sharpen(logits_V.flatten(), temperature, top_k, top_p)
    return p.view(logits_V.shape)


# ---- linear_scan ----


@ex.linear_scan.slip(
    "As many operations as steps. A loop does that, and so do two calls on half the "
    "length each: join neighbours, and make *one* call."
)
def the_loop(a_BTD, b_BTD):
    return ex._loop(a_BTD, b_BTD)


@ex.linear_scan.slip("The a are not used: this is a plain sum.")
def plain_sum(a_BTD, b_BTD):
    return b_BTD.cumsum(1)


@ex.linear_scan.slip(
    "Dividing by the product of all a so far fails where it is 0, or too small to write "
    "down: join neighbours, without a division."
)
def divides(a_BTD, b_BTD):
    product = a_BTD.cumprod(1)
    return product * (b_BTD / product).cumsum(1)


def _doubling(a, b, join=lambda a2, a1: a2 * a1, times=lambda d: 2 * d):
    d, T = 1, b.shape[1]
    while d < T:
        b = torch.cat([b[:, :d], b[:, d:] + a[:, d:] * b[:, :-d]], 1)
        a = torch.cat([a[:, :d], join(a[:, d:], a[:, :-d])], 1)
        d = times(d)
    return b


@ex.linear_scan.slip(
    "Two steps joined forget twice: the new a is a2 * a1, here it stayed a2."
)
def a_not_joined(a_BTD, b_BTD):
    return _doubling(a_BTD, b_BTD, lambda a2, a1: a2)


@ex.linear_scan.slip("Joined shares multiply: a2 * a1, not a2 + a1.")
def a_added(a_BTD, b_BTD):
    return _doubling(a_BTD, b_BTD, lambda a2, a1: a2 + a1)


def _even(a, odd, b):
    "Places 2, 4, ... by one step each."
    return a[:, 2::2] * odd[:, : (b.shape[1] - 1) // 2] + b[:, 2::2]


def _scan(
    a, b, join=lambda a1, b1, a2, b2: (a2 * a1, a2 * b1 + b2), first=1.0, even=_even
):
    T = b.shape[1]
    if T <= 1:
        return first * b
    a1, b1, a2, b2 = a[:, : T - 1 : 2], b[:, : T - 1 : 2], a[:, 1::2], b[:, 1::2]
    odd = _scan(*join(a1, b1, a2, b2), join, first, even)
    h = torch.zeros_like(b)
    h[:, 0], h[:, 1::2] = b[:, 0], odd
    h[:, 2::2] = even(a, odd, b)
    return h


@ex.linear_scan.slip(
    "Two steps joined forget twice: their a is a2 * a1, here it stayed a2."
)
def keeps_the_later_a(a_BTD, b_BTD):
    return _scan(a_BTD, b_BTD, lambda a1, b1, a2, b2: (a2, a2 * b1 + b2))


@ex.linear_scan.slip(
    "Places 1, 3, ... are right; place 2 is not: h_2 = a_2 h_1 + b_2, here without a_2."
)
def fills_without_a(a_BTD, b_BTD):
    def even(a, odd, b):
        return odd[:, : (b.shape[1] - 1) // 2] + b[:, 2::2]

    return _scan(a_BTD, b_BTD, even=even)


@ex.linear_scan.slip(
    "Places 1, 3, ... are right; place 2 is not: h_2 = a_2 h_1 + b_2, here with a_1."
)
def fills_with_the_a_before(a_BTD, b_BTD):
    def even(a, odd, b):
        n = (b.shape[1] - 1) // 2
        return a[:, 1::2][:, :n] * odd[:, :n] + b[:, 2::2]

    return _scan(a_BTD, b_BTD, even=even)


@ex.linear_scan.slip(
    "Places 1, 3, ... are right; place 2 is not: h_2 = a_2 h_1 + b_2, here with h_3."
)
def fills_from_the_place_behind(a_BTD, b_BTD):
    def even(a, odd, b):
        return _even(a, odd.roll(-1, 1), b)

    return _scan(a_BTD, b_BTD, even=even)


@ex.linear_scan.slip(
    "The earlier b passes the later a: a2 * b1 + b2, not a1 * b2 + b1."
)
def turned_pairs(a_BTD, b_BTD):
    return _scan(
        a_BTD, b_BTD, lambda a1, b1, a2, b2: (a2 * a1, a1 * b2 + b1)
    )  # fmt: skip


@ex.linear_scan.slip("The earlier b is forgotten by the later a: a2 * b1 + b2.")
def b_added(a_BTD, b_BTD):
    return _scan(a_BTD, b_BTD, lambda a1, b1, a2, b2: (a2 * a1, b1 + b2))


@ex.linear_scan.slip("One round joins neighbours only: go on until one step is left.")
def one_round(a_BTD, b_BTD):
    return _doubling(a_BTD, b_BTD, times=lambda d: d + len(b_BTD[0]))


@ex.linear_scan.slip(
    "A single step is the recursion's end: with T = 1 nothing is left to join."
)
def no_end(a_BTD, b_BTD):
    a1, b1, a2, b2 = (t[:, k::2] for k in (0, 1) for t in (a_BTD, b_BTD))
    odd = no_end(a2 * a1, a2 * b1 + b2)
    return torch.stack([a1 * odd + b1, odd], 2).flatten(1, 2)


@ex.linear_scan.slip(
    "The last place of an odd T is missing: it has no partner, and follows by one step."
)
def odd_end_missing(a_BTD, b_BTD):
    T = b_BTD.shape[1]
    h = _scan(a_BTD, b_BTD)
    return torch.cat([h[:, : T - T % 2], 0 * h[:, T - T % 2 :]], 1) if T > 1 else h


@ex.linear_scan.slip(
    "A detached scan teaches nothing: keep to operations that autograd sees."
)
def detached_scan(a_BTD, b_BTD):
    return _scan(a_BTD.detach(), b_BTD.detach()) + 0 * (a_BTD + b_BTD)


@ex.linear_scan.slip(
    "This begins one place late: h_0 is b_0, so place 0 is no 0 in front."
)
def one_late(a_BTD, b_BTD):
    h = _scan(a_BTD, b_BTD)
    return F.pad(h, (0, 0, 1, 0))[:, :-1]
