"""Chapter 14: small wrong programs, and the sentence that names each."""

import torch
import torch.nn.functional as F

from utils.built import flash as built
from utils.built import lean
from utils.built.fuse import OPS
from utils.checks import faster as ex

INF = torch.inf


# ---- passes ----


def _nodes(graph, op):
    return [n for n in graph.graph.nodes if n.op == op]


def _fused(graph):
    used = sum(len(n.users) > 0 for n in _nodes(graph, "placeholder"))
    return used + len(_nodes(graph, "output")[0].all_input_nodes)


def _eager(graph):
    return sum(len(n.all_input_nodes) + 1 for n in _nodes(graph, "call_function"))


@ex.passes.slip(
    "Numbers such as 2 or 0.5 are no pass: they sit in a register. Count tensors only."
)
def numbers_count(graph):
    return sum(len(n.args) + 1 for n in _nodes(graph, "call_function")), _fused(graph)


@ex.passes.slip("x * x reads x once: count the different tensors of a node.")
def twice_the_same(graph):
    def tensors(n):
        return sum(isinstance(a, torch.fx.Node) for a in n.args)

    return sum(tensors(n) + 1 for n in _nodes(graph, "call_function")), _fused(graph)


@ex.passes.slip("Each operator also writes its result: one pass more per node.")
def forgets_the_writes(graph):
    return sum(len(n.all_input_nodes) for n in _nodes(graph, "call_function")), _fused(
        graph
    )


@ex.passes.slip(
    "Fused, the results must still be written to memory: count the outputs."
)
def fused_writes_nothing(graph):
    return _eager(graph), sum(len(n.users) > 0 for n in _nodes(graph, "placeholder"))


@ex.passes.slip("An input that no node uses is never read.")
def unused_inputs(graph):
    outputs = len(_nodes(graph, "output")[0].all_input_nodes)
    return _eager(graph), len(_nodes(graph, "placeholder")) + outputs


@ex.passes.slip("Two results are two passes: each returned tensor is written.")
def one_output(graph):
    used = sum(len(n.users) > 0 for n in _nodes(graph, "placeholder"))
    return _eager(graph), used + 1


@ex.passes.slip("The order is (eager, fused).")
def turned_round(graph):
    return _fused(graph), _eager(graph)


# ---- in_blocks ----


def _blocks(x, a, b, size, starts, out=None):
    out = torch.empty_like(x) if out is None else out
    for i in starts:
        w = slice(i, i + size)
        out[w] = ex_chain(x[w], a[w], b[w])
    return out


def ex_chain(x, a, b):
    return ((x * a + b) * x - a) * b + x * 0.5 - 1


@ex.in_blocks.slip("The ragged last block is left out: go on while i < len(x).")
def whole_blocks_only(x, a, b, size):
    out = torch.zeros_like(x)
    return _blocks(x, a, b, size, range(0, len(x) - size + 1, size), out)


@ex.in_blocks.slip(
    "This is the eager chain: its fresh tensors are as long as the whole input."
)
def not_in_blocks(x, a, b, size):
    return ex_chain(x, a, b)


_room = {}


@ex.in_blocks.slip(
    "The second call wrote over the first one's result: make a fresh result per call."
)
def one_result_for_all(x, a, b, size):
    out = _room.setdefault(len(x), torch.empty_like(x))
    return _blocks(x, a, b, size, range(0, len(x), size), out)


@ex.in_blocks.slip("The - 1 at the end is missing.")
def without_the_end(x, a, b, size):
    return ex_chain(x, a, b) + 1


@ex.in_blocks.slip("a is subtracted from the product, not the product from a.")
def subtraction_turned(x, a, b, size):
    return (a - (x * a + b) * x) * b + x * 0.5 - 1


@ex.in_blocks.slip("x / 2 is added after the product with b, not before.")
def half_too_early(x, a, b, size):
    return ((x * a + b) * x - a + x * 0.5) * b - 1


@ex.in_blocks.slip(
    "The right numbers, by another order of operators: the last bits differ. Keep the order."
)
def another_order(x, a, b, size):
    return ((x * a + b) * x - a) * b + (x * 0.5 - 1)


@ex.in_blocks.slip(told="changes its input")
def into_the_input(x, a, b, size):
    x.copy_(ex_chain(x, a, b))
    return x


# ---- fuse ----


def _backend(
    graph, inputs, size, *, known=True, plain=True, methods=True, named=True, dtypes=True,
    grads=True, outputs_ours=True, ragged=True, left="right", shape=True, only=None,
    values=False, keep=False,
):  # fmt: skip
    *inner, last = graph.graph.nodes
    outputs = last.args[0]
    places = [n for n in inner if n.op == "placeholder"]
    work = [n for n in inner if n.op in ("call_function", "call_method")]
    bad = known and any(n.op == "call_function" and n.target not in OPS for n in work)
    bad |= methods and any(n.op == "call_method" for n in work)
    bad |= named and any(n.kwargs for n in work)
    bad |= plain and any(x.shape != inputs[0].shape for x in inputs)
    bad |= dtypes and any(x.dtype != torch.float32 for x in inputs)
    bad |= grads and any(x.requires_grad for x in inputs)
    bad |= outputs_ours and any(n not in work for n in outputs)
    if bad:
        return graph.forward
    examples, kept = inputs, {}

    def run(*inputs):
        inputs = examples if values else inputs
        flat = [x.reshape(-1) for x in inputs]
        N = flat[0].numel()
        whole = kept if keep and kept else {n: torch.zeros(N) for n in outputs}
        kept.update(whole if keep else {})
        stop = N if ragged else N - size + 1
        for i in range(0, stop, size):
            value = {n: x[i : i + size] for n, x in zip(places, flat)}
            for n in work:
                args = [value[a] if a in value else a for a in n.args]
                if left == "swapped" and not isinstance(args[0], torch.Tensor):
                    args = args[::-1]
                target = OPS.get(n.target, n.target)
                value[n] = target(*args)
                if n in whole:
                    whole[n][i : i + size] = value[n]
        results = [whole[n] for n in outputs]
        if shape:
            results = [x.view(inputs[0].shape) for x in results]
        return tuple(results[:only] if only else results)

    return run


@ex.fuse.slip("A number on the left of a minus: 1 - x became x - 1.")
def swapped_numbers(graph, inputs, size=2**16):
    return _backend(graph, inputs, size, left="swapped")


@ex.fuse.slip("The ragged last block is left out.")
def no_ragged_block(graph, inputs, size=2**16):
    return _backend(graph, inputs, size, ragged=False)


@ex.fuse.slip("The results come back flat: give them the inputs' shape.")
def flat_results(graph, inputs, size=2**16):
    return _backend(graph, inputs, size, shape=False)


@ex.fuse.slip(
    "Only the first output is returned: the last node's args[0] lists all of them."
)
def first_output(graph, inputs, size=2**16):
    return _backend(graph, inputs, size, only=1)


@ex.fuse.slip(
    "It computes with the example inputs: the function must use those it is called with."
)
def example_inputs(graph, inputs, size=2**16):
    return _backend(graph, inputs, size, values=True)


@ex.fuse.slip(
    "The results are made once, outside the returned function: the second call writes over "
    "the first one's."
)
def results_made_once(graph, inputs, size=2**16):
    return _backend(graph, inputs, size, keep=True)


@ex.fuse.slip(
    "It runs the whole graph at once: whole tensors are alive between the operators."
)
def always_forward(graph, inputs, size=2**16):
    return graph.forward


@ex.fuse.slip(
    "A sum over one block is no sum over all: operators that are not in OPS run as they are."
)
def sums_of_blocks(graph, inputs, size=2**16):
    return _backend(graph, inputs, size, known=False)


@ex.fuse.slip(
    "A method of a tensor, call_method, is not in OPS: such a graph runs as it is."
)
def methods_too(graph, inputs, size=2**16):
    return _backend(graph, inputs, size, methods=False)


@ex.fuse.slip(
    "tanh(input=x) has no node.args, its tensor has a name: look at node.kwargs."
)
def names_lost(graph, inputs, size=2**16):
    return _backend(graph, inputs, size, named=False)


@ex.fuse.slip(
    "The inputs have different shapes: their blocks do not lie on each other."
)
def shapes_mixed(graph, inputs, size=2**16):
    return _backend(graph, inputs, size, plain=False)


@ex.fuse.slip("The rooms are float32: inputs of another dtype lose digits in them.")
def dtype_lost(graph, inputs, size=2**16):
    return _backend(graph, inputs, size, dtypes=False)


@ex.fuse.slip("Every node must be in OPS, not the first alone.")
def first_node_alone(graph, inputs, size=2**16):
    work = [n for n in graph.graph.nodes if n.op == "call_function"]
    return _backend(graph, inputs, size, known=work[:1] and work[0].target not in OPS)


@ex.fuse.slip("An output that is an input has no operator that could fill its result.")
def inputs_returned(graph, inputs, size=2**16):
    return _backend(graph, inputs, size, outputs_ours=False)


@ex.fuse.slip("Results made with out= know no gradients: look at requires_grad.")
def gradients_lost(graph, inputs, size=2**16):
    run = _backend(graph, inputs, size, grads=False)

    def without(*inputs):
        return run(*(x.detach() for x in inputs))

    return without if run.__name__ == "run" else run


# ---- accumulate ----


@ex.accumulate.slip("The mean of the parts' means: a row of a small part counts more.")
def mean_of_means(model, parts):
    total = 0.0
    for X, y in parts:
        loss = F.cross_entropy(model(X), y) / len(parts)
        loss.backward()
        total += loss.item()
    return total


@ex.accumulate.slip(
    "Nothing is divided by the number of rows: this is the gradient of a sum."
)
def sum_of_losses(model, parts):
    total = 0.0
    for X, y in parts:
        loss = F.cross_entropy(model(X), y, reduction="sum")
        loss.backward()
        total += loss.item()
    return total


@ex.accumulate.slip(
    "Each part's mean is added as it is: weigh it by its share of the rows."
)
def sum_of_means(model, parts):
    total = 0.0
    for X, y in parts:
        loss = F.cross_entropy(model(X), y)
        loss.backward()
        total += loss.item()
    return total


@ex.accumulate.slip("It returns the last part's share: add up the losses of all parts.")
def last_loss(model, parts):
    N = sum(len(y) for _, y in parts)
    for X, y in parts:
        loss = F.cross_entropy(model(X), y, reduction="sum") / N
        loss.backward()
    return loss.item()


@ex.accumulate.slip(
    "Gradients that were there before are lost: zero_grad is the caller's."
)
def clears_first(model, parts):
    model.zero_grad()
    return lean.accumulate(model, parts)


@ex.accumulate.slip("Gradients are cleared before each part: only the last one's stay.")
def clears_each(model, parts):
    N, total = sum(len(y) for _, y in parts), 0.0
    for X, y in parts:
        model.zero_grad()
        loss = F.cross_entropy(model(X), y, reduction="sum") / N
        loss.backward()
        total += loss.item()
    return total


@ex.accumulate.slip(
    "Backward runs once at the end: until then the graphs of all parts are alive."
)
def backward_at_the_end(model, parts):
    N = sum(len(y) for _, y in parts)
    loss = sum(F.cross_entropy(model(X), y, reduction="sum") for X, y in parts) / N
    loss.backward()
    return loss.item()


@ex.accumulate.slip(
    "The parts are put together again: that is the big batch that did not fit."
)
def puts_together(model, parts):
    X, y = (torch.cat(side) for side in zip(*parts))
    loss = F.cross_entropy(model(X), y)
    loss.backward()
    return loss.item()


# ---- kept ----


@ex.kept.slip("The last segment keeps everything: it is not checkpointed.")
def all_checkpointed(L, k):
    return k


@ex.kept.slip(
    "The last segment takes what L // k leaves: it may be longer than the others."
)
def equal_segments(L, k):
    return k - 1 + 2 * (L // k)


@ex.kept.slip(
    "A block keeps two units, the inputs of its linear layer and of its GELU."
)
def one_per_block(L, k):
    return k - 1 + L - (k - 1) * (L // k)


@ex.kept.slip("The segments before the last keep their input, one unit each.")
def only_the_last(L, k):
    return 2 * (L - (k - 1) * (L // k))


@ex.kept.slip(
    "The last segment's own input is among its 2 units per block: it counts once."
)
def last_input_twice(L, k):
    return k + 2 * (L - (k - 1) * (L // k))


@ex.kept.slip("Only one segment's activations are left, the last one's.")
def nothing_saved(L, k):
    return 2 * L


# ---- Recompute ----


def _variant(**how):
    how = {"dice": True, "back": True, "grad": True, "detach": True, "ones": False,
           "returns": True, "keeps": "x", "twice": False, "order": False, **how}  # fmt: skip

    class Recompute(torch.autograd.Function):
        @staticmethod
        def forward(ctx, run, x):
            ctx.run, ctx.dice = run, torch.get_rng_state()
            out = run(x)
            ctx.save_for_backward(
                *((x, out.clone()) if how["keeps"] == "both" else (x,))
            )
            if how["twice"]:
                run(x)
            return out

        @staticmethod
        def backward(ctx, grad):
            x = ctx.saved_tensors[0]
            x = x.detach().requires_grad_()
            now = torch.get_rng_state()
            if how["dice"]:
                torch.set_rng_state(ctx.dice)
            with torch.enable_grad():
                out = ctx.run(x)
            if how["back"] and how["dice"]:
                torch.set_rng_state(now)
            if how["grad"]:
                out.backward(torch.ones_like(grad) if how["ones"] else grad)
                dx = x.grad
            else:
                (dx,) = torch.autograd.grad(out, x, grad)
            if how["order"]:
                return dx, None
            return None, (dx if how["returns"] else None)

    return Recompute


def _recompute_slip(sentence, **how):
    ex.Recompute.slip(sentence)(_variant(**how))


_recompute_slip(
    "The incoming gradient is lost: out.backward(grad), not a gradient of ones.",
    ones=True,
)
_recompute_slip(
    "Only x's gradient is asked for: the weights inside run get none.", grad=False
)
_recompute_slip(
    "The second run dropped other numbers than the first: keep the random state of forward, "
    "and set it in backward.",
    dice=False,
)
_recompute_slip(
    "The second run leaves its own random state behind: put back the one that was there.",
    back=False,
)
_recompute_slip(
    "x's gradient is computed and not returned: return None, x.grad.", returns=False
)
_recompute_slip("Only x may be kept: here the result is kept, too.", keeps="both")
_recompute_slip("Forward runs it twice: once is enough.", twice=True)


@ex.Recompute.slip("Nothing is computed again: forward keeps its whole graph.")
class KeepsTheGraph(torch.autograd.Function):
    @staticmethod
    def forward(ctx, run, x):
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.out = run(ctx.x)
        return ctx.out.detach()

    @staticmethod
    def backward(ctx, grad):
        ctx.out.backward(grad)
        return None, ctx.x.grad


# ---- online_softmax ----


def _online(
    blocks, shrink=True, safe=True, start=-INF, use_block_max=False, dtype=None
):
    m = l = None  # noqa: E741
    for block in blocks:
        if m is None:
            m, l = torch.full_like(block[:, 0], start), torch.zeros_like(block[:, 0])  # noqa: E741
        new = block.amax(1) if use_block_max else torch.maximum(m, block.amax(1))
        by = new.masked_fill(new == -INF, 0.0) if safe else new
        l = (l * (m - by).exp() if shrink else l) + (block - by[:, None]).exp().sum(1)  # noqa: E741
        m = new
    return m, l


@ex.online_softmax.slip(
    "The old sum must shrink when the maximum grows: l * exp(m - new m)."
)
def never_shrinks(blocks):
    return _online(blocks, shrink=False)


@ex.online_softmax.slip(
    "Where all scores so far are -inf, -inf - -inf is nan: subtract 0 there."
)
def inf_minus_inf(blocks):
    return _online(blocks, safe=False)


@ex.online_softmax.slip(
    "The maximum begins at 0, so that rows below zero get a wrong one: begin at -inf."
)
def begins_at_zero(blocks):
    return _online(blocks, start=0.0)


@ex.online_softmax.slip(
    "m is the largest of this block: keep the largest of all so far."
)
def last_blocks_maximum(blocks):
    return _online(blocks, use_block_max=True)


@ex.online_softmax.slip(
    "Without subtracting the maximum the exponential of a large score is infinite."
)
def no_maximum(blocks):
    blocks = list(blocks)
    whole = torch.cat(blocks, 1)
    m = whole.amax(1)
    return m, whole.exp().sum(1) * (-m).exp()


@ex.online_softmax.slip("This is log-sum-exp, m + log(l): l itself is asked for.")
def log_sum(blocks):
    m, l = _online(blocks)  # noqa: E741
    return m, m + l.log()


@ex.online_softmax.slip(
    "The blocks can be read only once: carry m and l along in one loop."
)
def two_passes(blocks):
    m = torch.stack([block.amax(1) for block in blocks]).amax(0)
    by = m.masked_fill(m == -INF, 0.0)
    return m, sum((block - by[:, None]).exp().sum(1) for block in blocks)


@ex.online_softmax.slip(
    "m and l have the dtype of the scores, here they are always float64."
)
def always_double(blocks):
    return _online([block.double() for block in blocks])


# ---- flash ----


def _flash(q, k, v, causal, block, scale=1, shrink="both", shift=1, log=True, divide=True,
           early=True, ragged=False):  # fmt: skip
    T, S, D = q.shape[2], k.shape[2], q.shape[3]
    o, lse = torch.zeros_like(q), q.new_zeros(q.shape[:3])
    for i in range(0, T, block):
        q_i = q[:, :, i : i + block] * D ** (-0.5 * scale)
        m = torch.full_like(q_i[..., :1], -INF)
        l, acc = torch.zeros_like(m), torch.zeros_like(q_i)  # noqa: E741
        stop = min(i + block, S) if causal and early else S
        for j in range(0, stop, block):
            s = q_i @ k[:, :, j : j + block].mT
            if causal and shift is not None:
                future = torch.ones(s.shape[-2:], dtype=torch.bool)
                future = future.triu(shift(i, j) if callable(shift) else i - j + shift)
                s = s.masked_fill(future, -INF)
            new = torch.maximum(m, s.amax(-1, keepdim=True))
            p, old = (s - new).exp(), (m - new).exp()
            one = torch.ones_like(old)
            l = l * (old if shrink in ("both", "l") else one) + p.sum(-1, keepdim=True)  # noqa: E741
            acc = acc * (old if shrink in ("both", "acc") else one)
            acc = acc + p @ v[:, :, j : j + block]
            m = new
        o[:, :, i : i + block] = acc / l if divide else acc
        lse[:, :, i : i + block] = (m + l.log() if log else m)[..., 0]
    return o, lse


@ex.flash_forward.slip("l shrinks when the maximum grows, acc must shrink, too.")
def acc_stays(q, k, v, causal, block):
    return _flash(q, k, v, causal, block, shrink="l")


@ex.flash_forward.slip("acc shrinks when the maximum grows, l must shrink, too.")
def l_stays(q, k, v, causal, block):
    return _flash(q, k, v, causal, block, shrink="acc")


@ex.flash_forward.slip("The scores are divided by sqrt(D) once, here twice.")
def scaled_twice(q, k, v, causal, block):
    return _flash(q, k, v, causal, block, scale=2)


@ex.flash_forward.slip("The scores are not divided by sqrt(D).")
def not_scaled(q, k, v, causal, block):
    return _flash(q, k, v, causal, block, scale=0)


@ex.flash_forward.slip("The causal mask is missing.")
def not_causal(q, k, v, causal, block):
    return _flash(q, k, v, False, block)


@ex.flash_forward.slip(
    "The mask counts inside the tile: key j + c is the future of query i + r if j + c > i + r."
)
def mask_of_each_tile(q, k, v, causal, block):
    return _flash(q, k, v, causal, block, shift=lambda i, j: 1)


@ex.flash_forward.slip(
    "A query does not see itself here: the future begins one key later."
)
def blind_to_itself(q, k, v, causal, block):
    return _flash(q, k, v, causal, block, shift=0)


@ex.flash_forward.slip("lse is m + log(l): this is the maximum alone.")
def maximum_alone(q, k, v, causal, block):
    return _flash(q, k, v, causal, block, log=False)


@ex.flash_forward.slip("acc is a sum: divide it by l at the end.")
def not_divided(q, k, v, causal, block):
    return _flash(q, k, v, causal, block, divide=False)


@ex.flash_forward.slip(
    "This makes the whole table of scores, T times S: work in tiles."
)
def whole_table(q, k, v, causal, block):
    return built.flash_forward(q, k, v, causal, max(q.shape[2], k.shape[2]))


@ex.flash_forward.slip(
    "Tiles that lie wholly in the future are computed and then masked: end the inner loop at "
    "the diagonal."
)
def future_tiles(q, k, v, causal, block):
    return _flash(q, k, v, causal, block, early=False)


def _back(q, k, v, o, lse, do, causal, block, delta=True, on=("q", "k"), mask=True,
          early=True, again=True, sums=True):  # fmt: skip
    T, S, scale = q.shape[2], k.shape[2], q.shape[3] ** -0.5
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    rows = (do * o).sum(-1, keepdim=True) if delta else torch.zeros_like(do[..., :1])
    for j in range(0, S, block):
        c = slice(j, j + block)
        for i in range(j if causal and early else 0, T, block):
            r = slice(i, i + block)
            s = q[:, :, r] @ k[:, :, c].mT * scale
            if causal and mask:
                future = torch.ones(s.shape[-2:], dtype=torch.bool).triu(i - j + 1)
                s = s.masked_fill(future, -INF)
            p = (s - lse[:, :, r, None]).exp() if again else s.softmax(-1)
            ds = p * (do[:, :, r] @ v[:, :, c].mT - rows[:, :, r])
            if sums:
                dv[:, :, c] += p.mT @ do[:, :, r]
            else:
                dv[:, :, c] = p.mT @ do[:, :, r]
            dk[:, :, c] += ds.mT @ q[:, :, r] * (scale if "k" in on else 1)
            dq[:, :, r] += ds @ k[:, :, c] * (scale if "q" in on else 1)
    return dq, dk, dv


def _back_slip(name, sentence, **how):
    def answer(q, k, v, o, lse, do, causal, block):
        return _back(q, k, v, o, lse, do, causal, block, **how)

    answer.__name__ = name
    ex.flash_backward.slip(sentence)(answer)


_back_slip(
    "no_delta", "delta is missing: softmax's rule is p * (dp - delta).", delta=False
)
_back_slip("dq_unscaled", "dq lacks the scale: scores are q k / sqrt(D).", on=("k",))
_back_slip("dk_unscaled", "dk lacks the scale: scores are q k / sqrt(D).", on=("q",))
_back_slip(
    "no_mask", "The mask of forward is missing: the future gets weights.", mask=False
)
_back_slip(
    "softmax_of_a_tile",
    "A softmax of one tile is not the row's: the weights are exp(s - lse).",
    again=False,
)


@ex.flash_backward.slip(
    "Tiles that lie wholly in the future are computed and then masked: leave them out. "
    "With queries inside the loop begins at the diagonal, with keys inside it ends there."
)
def future_tiles_again(q, k, v, o, lse, do, causal, block):
    return _back(q, k, v, o, lse, do, causal, block, early=False)


_back_slip(
    "overwrites_dv",
    "dv is written anew by each block of queries: add them up.",
    sums=False,
)


@ex.flash_backward.slip("The gradients come in the order dq, dk, dv.")
def wrong_order(q, k, v, o, lse, do, causal, block):
    return built.flash_backward(q, k, v, o, lse, do, causal, block)[::-1]


@ex.flash_backward.slip(
    "This makes the whole table of weights, T times S: work in tiles."
)
def table_of_weights(q, k, v, o, lse, do, causal, block):
    return built.flash_backward(
        q, k, v, o, lse, do, causal, max(q.shape[2], k.shape[2])
    )


# ---- chunked_loss ----


def _chunks(x, W, y, chunk, before=False, own=False, one_hot=True, stable=True, sums=True,
            total=False):  # fmt: skip
    N, loss = len(x), 0.0
    dx, dW = torch.empty_like(x), torch.zeros_like(W)
    for i in range(0, N, chunk):
        r = slice(i, i + chunk)
        z, n = x[r] @ W.T, len(x[r]) if own else N
        n = 1 if total else n
        lse, rows = z.logsumexp(1), torch.arange(len(z))
        if not stable:
            lse = z.exp().sum(1).log()
        loss += (lse - z[rows, y[r]]).sum() / n
        g = (z - lse[:, None]).exp()
        if before:
            g /= n
        if one_hot:
            g[rows, y[r]] -= 1
        if not before:
            g /= n
        dx[r] = g @ W
        dW = dW + g.T @ x[r] if sums else g.T @ x[r]
    return loss, dx, dW


def _chunk_slip(name, sentence, **how):
    def answer(x, W, y, chunk):
        return _chunks(x, W, y, chunk, **how)

    answer.__name__ = name
    ex.chunked_loss.slip(sentence)(answer)


_chunk_slip(
    "one_after_n",
    "The 1 at the label is subtracted before the division by N.",
    before=True,
)
_chunk_slip(
    "mean_per_chunk",
    "N counts all rows: a mean per chunk weighs short chunks more.",
    own=True,
)
_chunk_slip(
    "no_one_hot",
    "The gradient is softmax minus 1 at the label: the 1 is missing.",
    one_hot=False,
)
_chunk_slip(
    "overflows", "exp of a large logit is infinite: use logsumexp.", stable=False
)
_chunk_slip(
    "last_chunks_dW", "dW is the last chunk's alone: add up all chunks.", sums=False
)
_chunk_slip("sum_not_mean", "This is the sum over rows: divide by N.", total=True)


@ex.chunked_loss.slip("The logits of all rows are made at once: go chunk by chunk.")
def all_logits(x, W, y, chunk):
    return lean.chunked_loss(x, W, y, len(x))


@ex.chunked_loss.slip("The order is loss, dx, dW.")
def order_turned(x, W, y, chunk):
    loss, dx, dW = lean.chunked_loss(x, W, y, chunk)
    return loss, dW, dx
