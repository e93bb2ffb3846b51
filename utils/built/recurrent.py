"""What chapter 07 builds for memory: cells, their gradient by hand, its reach, a scan.

Shapes: B rows, T steps, D inputs, E embedding, H hidden, V characters. Weights lie as
PyTorch keeps them: W_ih (H, D), W_hh (H, H), biases (H,); an LSTM's have 4 H rows, in the
order input, forget, candidate, output. Shapes that do not fit raise ValueError.
"""

import math

import torch
from torch import nn

from utils import given

# ---- characters as rows of a table ----


def embed_gradient(ids_N, grad_NE, V: int):
    """The gradient of a table (V, E) from those of the rows that were looked up.

    ids_N: which row each came from, whole numbers; a row used twice collects twice.
    """
    ids_N, (N, E) = torch.as_tensor(ids_N), given.tensors(grad_NE=grad_NE).shape
    if tuple(ids_N.shape) != (N,):
        raise ValueError(f"ids_N has the shape ({N},), not {tuple(ids_N.shape)}")
    return grad_NE.new_zeros(given.whole("V", V), E).index_add(0, ids_N, grad_NE)


# ---- the plain cell, forwards and backwards ----


def rnn(x_BTD, h_BH, W_ih, W_hh, b_ih, b_hh):
    "All states of a tanh cell, equal to nn.RNN's: -> (B, T, H)."
    _fit(x_BTD, h_BH, W_ih, W_hh, 1, b_ih=b_ih, b_hh=b_hh)
    out = []
    for x_BD in x_BTD.unbind(1):
        h_BH = torch.tanh(x_BD @ W_ih.T + b_ih + h_BH @ W_hh.T + b_hh)
        out.append(h_BH)
    return torch.stack(out, 1)


def _fit(x_BTD, h_BH, W_ih, W_hh, gates, **biases):
    B, _, D = given.tensors(x_BTD=x_BTD).shape
    rows, H = given.tensors(h_BH=h_BH).shape
    if rows != B:
        raise ValueError(f"x_BTD has B = {B} rows, the state has {rows}")
    for name, W, columns in (("W_ih", W_ih, D), ("W_hh", W_hh, H)):
        if tuple(W.shape) != (gates * H, columns):
            raise ValueError(
                f"{name} has the shape {gates * H, columns}, not {tuple(W.shape)}"
            )
    for name, b in biases.items():
        if torch.is_tensor(b) and tuple(b.shape) != (gates * H,):
            raise ValueError(
                f"{name} has the shape ({gates * H},), not {tuple(b.shape)}"
            )


def bptt(x_BTD, h0_BH, W_hh, out_BTH, grad_BTH):
    """Gradients of a loss through all steps of `rnn`, walked backwards by hand.

    grad_BTH: the loss's own gradient at each state. -> dW_ih (H, D), dW_hh (H, H),
    db (H,), the same for both biases, and dh0 (B, H). After Werbos (1990).
    """
    if out_BTH.shape != grad_BTH.shape:
        raise ValueError(
            f"out_BTH {tuple(out_BTH.shape)} and grad_BTH {tuple(grad_BTH.shape)} differ"
        )
    given.tensors(x_BTD=x_BTD, out_BTH=out_BTH, h0_BH=h0_BH)
    H, D = out_BTH.shape[2], x_BTD.shape[2]
    if tuple(W_hh.shape) != (H, H):
        raise ValueError(f"W_hh has the shape {(H, H)}, not {tuple(W_hh.shape)}")
    dW_ih, dW_hh, db = (out_BTH.new_zeros(s) for s in ((H, D), (H, H), (H,)))
    before_BTH = torch.cat([h0_BH[:, None], out_BTH[:, :-1]], 1)
    dh_BH = torch.zeros_like(h0_BH)
    for t in reversed(range(x_BTD.shape[1])):
        dz_BH = (dh_BH + grad_BTH[:, t]) * (1 - out_BTH[:, t] ** 2)
        dW_ih += dz_BH.T @ x_BTD[:, t]
        dW_hh += dz_BH.T @ before_BTH[:, t]
        db += dz_BH.sum(0)
        dh_BH = dz_BH @ W_hh
    return dW_ih, dW_hh, db, dh_BH


def reach(run, state_BS, u_BH) -> float:
    """How strongly the last state still feels the first: mean |d(u . h_T) / d state_0|.

    run: (B, S) -> (B, H), the whole walk; u: a direction per row; the mean is over rows.
    """
    given.function("run", run)
    state_BS = state_BS.detach().clone().requires_grad_()
    h_BH = run(state_BS)
    if h_BH.shape != u_BH.shape:
        raise ValueError(
            f"run returns {tuple(h_BH.shape)}, u_BH is {tuple(u_BH.shape)}"
        )
    (grad_BS,) = torch.autograd.grad((h_BH * u_BH).sum(), state_BS)
    return grad_BS.norm(dim=1).mean().item()


# ---- gates ----


def lstm_cell(x_BD, h_BH, c_BH, W_ih, W_hh, b_ih, b_hh):
    "One step of an LSTM, equal to nn.LSTMCell's: -> new h, new c, both (B, H)."
    given.tensors(x_BD=x_BD, h_BH=h_BH, c_BH=c_BH)
    _fit(x_BD[:, None], h_BH, W_ih, W_hh, 4, b_ih=b_ih, b_hh=b_hh)
    z = x_BD @ W_ih.T + b_ih + h_BH @ W_hh.T + b_hh
    i, f, g, o = z.chunk(4, dim=1)
    c_BH = f.sigmoid() * c_BH + i.sigmoid() * g.tanh()
    return o.sigmoid() * c_BH.tanh(), c_BH


def remember(lstm, T, shut=False) -> float:
    """Give an nn.LSTM's cells a half-life of T steps, in place: -> the forget bias.

    sigmoid(bias) ** T = 1/2, in every layer. shut: the input gates get -bias, so that as
    little comes in as is forgotten. After Tallec and Ollivier (2018).
    """
    if not isinstance(lstm, nn.LSTM) or not lstm.bias:
        raise TypeError(f"lstm is an nn.LSTM with biases, not {lstm!r:.60}")
    bias = -math.log(math.expm1(math.log(2) / given.number("T", T, above=0)))
    H = lstm.hidden_size
    with torch.no_grad():
        for name, p in lstm.named_parameters():
            if name.startswith("bias"):
                own = bias if name.startswith("bias_ih") else 0.0
                p[H : 2 * H] = own
                if shut:
                    p[:H] = -own
    return bias


def clip(grads, most):
    """Gradients scaled so that all of them together are no longer than `most`.

    -> new gradients in the same order, and the length that they had: a number.
    """
    given.number("most", most, above=0)
    grads = list(grads)
    if not grads:
        raise ValueError("no gradients to clip")
    length = torch.stack([g.norm() for g in grads]).norm().item()
    scale = min(1.0, most / length) if length else 1.0
    return [g * scale for g in grads], length


# ---- a network that reads characters ----


class CharRNN(nn.Module):
    """A table of characters, a recurrent layer, a head: (B, T) -> logits (B, T, V), state.

    layer: nn.RNN, whose state-to-state matrix then starts orthogonal, nn.GRU or nn.LSTM.
    """

    def __init__(self, V: int, E: int = 48, H: int = 192, layer=nn.RNN):
        super().__init__()
        self.embed = nn.Embedding(V, E)
        self.layer = layer(E, H, batch_first=True)
        self.head = nn.Linear(H, V)
        if layer is nn.RNN:
            nn.init.orthogonal_(self.layer.weight_hh_l0)

    def forward(self, x_BT, state=None):
        out_BTH, state = self.layer(self.embed(x_BT), state)
        return self.head(out_BTH), state


@torch.no_grad()
def probabilities(model, ids_N, B: int = 64, T: int = 256):
    """What a CharRNN gave to each character that came, its state carried along.

    -> an array, as `NGram.probabilities(ids_N)[1:]`, cut to a multiple of B: B streams
    are read side by side, and each begins without a memory.
    """
    from utils.built.seq import streams

    state, told, was = None, [], model.training
    model.eval()
    try:
        for x_BT, y_BT in streams(ids_N, B, T):
            logits_BTV, state = model(x_BT, state)
            p_BTV = logits_BTV.softmax(-1)
            told.append(p_BTV.gather(-1, y_BT[..., None])[..., 0])
    finally:
        model.train(was)
    return torch.cat(told, 1).flatten().numpy()


# ---- without waiting ----


def linear_scan(a_BTD, b_BTD):
    """Every h_t = a_t * h_(t-1) + b_t, from h = 0, in about log2(T) rounds: -> (B, T, D).

    Two neighbouring steps are one step: a = a2 a1, b = a2 b1 + b2. So half as many steps
    are solved first, which are the odd places, and the even ones follow from them. After
    Blelloch (1990); differentiable.
    """
    if a_BTD.shape != b_BTD.shape or b_BTD.ndim != 3:
        raise ValueError(
            f"a_BTD {tuple(a_BTD.shape)} and b_BTD {tuple(b_BTD.shape)} have one shape, "
            "(B, T, D)"
        )
    return _scan(a_BTD, b_BTD)


def _scan(a_BTD, b_BTD):
    T = b_BTD.shape[1]
    if T <= 1:
        return b_BTD
    a1, b1 = a_BTD[:, : T - 1 : 2], b_BTD[:, : T - 1 : 2]
    a2, b2 = a_BTD[:, 1::2], b_BTD[:, 1::2]
    odd = _scan(a2 * a1, a2 * b1 + b2)
    h_BTD = torch.empty_like(b_BTD)
    h_BTD[:, 0], h_BTD[:, 1::2] = b_BTD[:, 0], odd
    h_BTD[:, 2::2] = a_BTD[:, 2::2] * odd[:, : (T - 1) // 2] + b_BTD[:, 2::2]
    return h_BTD
