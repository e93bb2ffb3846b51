"""Chapter 08: small wrong programs, and the sentence that names each."""

import torch
import torch.nn.functional as F

from utils.built import graph
from utils.checks import graphs as ex

# ---- adjacency ----


@ex.adjacency.slip("One way only: friendship holds both ways, so A[j, i] = 1 as well.")
def one_way(edges_E2, N):
    A_NN = torch.zeros(N, N)
    A_NN[edges_E2[:, 0], edges_E2[:, 1]] = 1.0
    return A_NN


@ex.adjacency.slip(
    "A pair that comes twice is counted twice here: one friendship is a 1, so set and do "
    "not add."
)
def counts_repeats(edges_E2, N):
    A_NN = torch.zeros(N, N)
    for i, j in edges_E2.tolist():
        A_NN[i, j] += 1
        A_NN[j, i] += 1
    return A_NN


@ex.adjacency.slip(
    "Both directions are added to one another: where (i, j) and (j, i) are given, that "
    "makes 2. Set to 1."
)
def adds_the_transpose(edges_E2, N):
    A_NN = torch.zeros(N, N)
    A_NN[edges_E2[:, 0], edges_E2[:, 1]] = 1.0
    return A_NN + A_NN.T


@ex.adjacency.slip(
    "A[rows][columns] = 1 fills a copy: index once, with both, A[i_E, j_E] = 1."
)
def indexes_twice(edges_E2, N):
    A_NN = torch.zeros(N, N)
    A_NN[edges_E2[:, 0]][:, edges_E2[:, 1]] = 1.0
    return A_NN


@ex.adjacency.slip(
    "A node without an edge is missing: the shape is (N, N), whatever the edges name."
)
def size_from_the_edges(edges_E2, N):
    return graph.adjacency(edges_E2, int(edges_E2.max()) + 1)


@ex.adjacency.slip(
    "Nobody is their own friend yet: the self-loops come with `normalise`."
)
def with_self_loops(edges_E2, N):
    return graph.adjacency(edges_E2, N) + torch.eye(N)


@ex.adjacency.slip("These are whole numbers; a network multiplies floats: torch.zeros.")
def whole_numbers(edges_E2, N):
    return graph.adjacency(edges_E2, N).long()


@ex.adjacency.slip(
    "These are lists: torch.zeros(N, N) makes a tensor that can be indexed by pairs."
)
def fills_the_square(edges_E2, N):
    A_NN = torch.zeros(N, N)
    A_NN[edges_E2.flatten()[:, None], edges_E2.flatten()] = 1.0
    return A_NN


# ---- normalise ----


def _scaled(A_NN, degree_N):
    scale_N = degree_N**-0.5
    return scale_N[:, None] * A_NN * scale_N


def _looped(A_NN):
    return A_NN + torch.eye(len(A_NN), dtype=A_NN.dtype)


@ex.normalise.slip(
    "The degrees were taken before the self-loops: count the node itself, too. A node "
    "without a friend has degree 1 then, not 0."
)
def degrees_too_early(A_NN):
    return _scaled(_looped(A_NN), A_NN.sum(1))


@ex.normalise.slip(
    "There are no self-loops: every node would forget what it was. Begin with A + I."
)
def no_self_loops(A_NN):
    return _scaled(A_NN, A_NN.sum(1).clamp(min=1))


@ex.normalise.slip(
    "Only the rows are divided, which is the plain mean: use the root of i's degree and the "
    "root of j's."
)
def rows_only(A_NN):
    A_NN = _looped(A_NN)
    return A_NN / A_NN.sum(1, keepdim=True)


@ex.normalise.slip(
    "Both degrees are divided by whole: it takes the root of each, so that the product of "
    "two roots stands below."
)
def no_root(A_NN):
    A_NN = _looped(A_NN)
    return A_NN / A_NN.sum(1)[:, None] / A_NN.sum(1)


@ex.normalise.slip("Multiplied by the roots in place of divided: the exponent is -1/2.")
def times_the_root(A_NN):
    A_NN = _looped(A_NN)
    scale_N = A_NN.sum(1) ** 0.5
    return scale_N[:, None] * A_NN * scale_N


@ex.normalise.slip("The self-loop has weight 2 here: add the unit matrix once, A + I.")
def loops_of_two(A_NN):
    A_NN = A_NN + 2 * torch.eye(len(A_NN), dtype=A_NN.dtype)
    return _scaled(A_NN, A_NN.sum(1))


@ex.normalise.slip(
    "The number of neighbours is counted; where edges have weights, a degree is their sum."
)
def counts_neighbours(A_NN):
    A_NN = _looped(A_NN)
    return _scaled(A_NN, (A_NN > 0).sum(1).to(A_NN.dtype))


@ex.normalise.slip(told="changes its input")
def in_place(A_NN):
    A_NN += torch.eye(len(A_NN), dtype=A_NN.dtype)
    return _scaled(A_NN, A_NN.sum(1))


@ex.normalise.slip(
    "It turns to float32 and loses digits: keep the dtype of what comes in."
)
def always_float32(A_NN):
    return graph.normalise(A_NN.float())


@ex.normalise.slip("It turns to float64: keep the dtype of what comes in.")
def always_float64(A_NN):
    return graph.normalise(A_NN.double())


# ---- gcn ----


@ex.gcn.slip("There is a ReLU after the last layer: logits may be negative.")
def relu_everywhere(spread, X_ND, weights):
    for W_DH in weights:
        X_ND = spread(X_ND @ W_DH).relu()
    return X_ND


@ex.gcn.slip("No ReLU at all: two linear layers are one. It stands between the layers.")
def no_relu(spread, X_ND, weights):
    for W_DH in weights:
        X_ND = spread(X_ND @ W_DH)
    return X_ND


@ex.gcn.slip(
    "The neighbours are asked in the last layer only: `spread` belongs into every layer."
)
def spreads_at_the_end(spread, X_ND, weights):
    for W_DH in weights[:-1]:
        X_ND = (X_ND @ W_DH).relu()
    return spread(X_ND @ weights[-1])


@ex.gcn.slip(
    "`spread` is never called: these are chapter 02's layers, blind to the graph."
)
def never_spreads(spread, X_ND, weights):
    return graph.gcn(lambda H_ND: H_ND, X_ND, weights)


@ex.gcn.slip("The last layer mixes, too: `spread` comes after every matrix.")
def spreads_but_in_the_last(spread, X_ND, weights):
    for W_DH in weights[:-1]:
        X_ND = spread(X_ND @ W_DH).relu()
    return X_ND @ weights[-1]


@ex.gcn.slip("The ReLU comes before `spread`: first the neighbours mix, then the bend.")
def relu_too_early(spread, X_ND, weights):
    for W_DH in weights[:-1]:
        X_ND = spread((X_ND @ W_DH).relu())
    return spread(X_ND @ weights[-1])


@ex.gcn.slip(
    "`spread` comes before the weights here: first H @ W, then spread. (For a matrix it is "
    "the same; for 1,000 words and 16 hidden units it is 60 times the work.)"
)
def spreads_first(spread, X_ND, weights):
    for W_DH in weights[:-1]:
        X_ND = (spread(X_ND) @ W_DH).relu()
    return spread(X_ND) @ weights[-1]


@ex.gcn.slip("It always takes two layers: `weights` says how many there are.")
def always_two(spread, X_ND, weights):
    return spread(spread(X_ND @ weights[0]).relu() @ weights[1])


@ex.gcn.slip(
    "Each layer begins from X again: the next one takes what the last one gave, H."
)
def forgets_the_layer(spread, X_ND, weights):
    H_ND = X_ND
    for k, W_DH in enumerate(weights):
        H_ND = spread((H_ND if len(weights) < 3 else X_ND) @ W_DH)
        H_ND = H_ND.relu() if k < len(weights) - 1 else H_ND
    return H_ND


@ex.gcn.slip(
    "The weights are used as plain numbers (.detach() or .data): no gradient comes back to "
    "them, and they never learn."
)
def cut_off(spread, X_ND, weights):
    return graph.gcn(spread, X_ND, [W_DH.detach() for W_DH in weights])


@ex.gcn.slip("Only the first two layers have a ReLU: every layer but the last has one.")
def relu_in_the_first(spread, X_ND, weights):
    for k, W_DH in enumerate(weights):
        X_ND = spread(X_ND @ W_DH)
        X_ND = X_ND.relu() if k == 0 and len(weights) > 1 else X_ND
    return X_ND


# ---- masked_cross_entropy ----


@ex.masked_cross_entropy.slip(
    "This is the mean over all nodes: the labels that nobody may know have leaked in."
)
def labels_leak(logits_NC, y_N, known_N):
    return F.cross_entropy(logits_NC, y_N)


@ex.masked_cross_entropy.slip(
    "The losses of the known nodes are divided by N: divide by how many are known."
)
def mean_over_all(logits_NC, y_N, known_N):
    losses_N = F.cross_entropy(logits_NC, y_N.clamp(min=0), reduction="none")
    return (losses_N * known_N).mean()


@ex.masked_cross_entropy.slip(
    "This is the sum over the known nodes; the mean was asked for."
)
def sum_of_the_known(logits_NC, y_N, known_N):
    return F.cross_entropy(logits_NC[known_N], y_N[known_N], reduction="sum")


@ex.masked_cross_entropy.slip(
    "The mask is turned round: this is the loss of the unknown."
)
def the_unknown(logits_NC, y_N, known_N):
    return F.cross_entropy(logits_NC[~known_N], y_N[~known_N])


@ex.masked_cross_entropy.slip(
    "Unknown rows are put to 0 and stay in the mean, each with a loss of ln C: take the "
    "known rows out with logits_NC[known_N]."
)
def zeroed_rows(logits_NC, y_N, known_N):
    return F.cross_entropy(logits_NC * known_N[:, None], y_N.clamp(min=0))


@ex.masked_cross_entropy.slip(
    "The loss of every node is computed before the mask is used; a label of -1 has no "
    "column. Pick the known rows first."
)
def masks_afterwards(logits_NC, y_N, known_N):
    return F.cross_entropy(logits_NC, y_N, reduction="none")[known_N].mean()


@ex.masked_cross_entropy.slip(
    "This takes the logits for probabilities: cross-entropy is -log of the softmax."
)
def without_softmax(logits_NC, y_N, known_N):
    return -logits_NC[known_N, y_N[known_N]].mean()


@ex.masked_cross_entropy.slip(
    "The loss has become a plain number: no gradient comes back. Return the tensor."
)
def plain_number(logits_NC, y_N, known_N):
    return F.cross_entropy(logits_NC[known_N], y_N[known_N]).item()


@ex.masked_cross_entropy.slip(
    "Softmax is taken twice: F.cross_entropy wants the logits themselves."
)
def softmax_twice(logits_NC, y_N, known_N):
    return F.cross_entropy(logits_NC[known_N].softmax(1), y_N[known_N])


# ---- label_propagation ----


def _flow(A_NN, Y_NC, known_N, steps, clamp=True, mean=True, start=None):
    degree_N1 = A_NN.sum(1, keepdim=True).clamp(min=1e-9) if mean else 1.0
    share_NC = Y_NC * known_N[:, None] if start is None else start
    for _ in range(steps):
        share_NC = A_NN @ share_NC / degree_N1
        if clamp:
            share_NC[known_N] = Y_NC[known_N]
    return share_NC


@ex.label_propagation.slip(
    "The known nodes lose their label: after each step they take it back."
)
def not_clamped(A_NN, Y_NC, known_N, steps):
    return _flow(A_NN, Y_NC, known_N, steps, clamp=False)


@ex.label_propagation.slip(
    "The known take their label back only at the end: it has to happen after every step."
)
def clamped_at_the_end(A_NN, Y_NC, known_N, steps):
    share_NC = _flow(A_NN, Y_NC, known_N, steps, clamp=False)
    share_NC[known_N] = Y_NC[known_N]
    return share_NC


@ex.label_propagation.slip(
    "The labels of the unknown are used as well: all but the known begin at 0."
)
def starts_from_all(A_NN, Y_NC, known_N, steps):
    return _flow(A_NN, Y_NC, known_N, steps, start=Y_NC.clone())


@ex.label_propagation.slip("This is the sum of the neighbours; the mean was asked for.")
def sums(A_NN, Y_NC, known_N, steps):
    return _flow(A_NN, Y_NC, known_N, steps, mean=False)


@ex.label_propagation.slip(
    "A node without a neighbour has become nan, 0 over 0: its row stays 0."
)
def zero_over_zero(A_NN, Y_NC, known_N, steps):
    share_NC = Y_NC * known_N[:, None]
    for _ in range(steps):
        share_NC = A_NN @ share_NC / A_NN.sum(1, keepdim=True)
        share_NC[known_N] = Y_NC[known_N]
    return share_NC


@ex.label_propagation.slip(
    "A_hat is used, which counts the node itself: here every node takes the mean of its "
    "neighbours alone."
)
def with_a_hat(A_NN, Y_NC, known_N, steps):
    share_NC, A_hat_NN = Y_NC * known_N[:, None], graph.normalise(A_NN)
    for _ in range(steps):
        share_NC = A_hat_NN @ share_NC
        share_NC[known_N] = Y_NC[known_N]
    return share_NC


@ex.label_propagation.slip(
    "One node after the other, the later ones already see the new rows: all move at once."
)
def one_after_the_other(A_NN, Y_NC, known_N, steps):
    share_NC = Y_NC * known_N[:, None]
    for _ in range(steps):
        for i in range(len(A_NN)):
            if not known_N[i]:
                share_NC[i] = A_NN[i] @ share_NC / A_NN[i].sum().clamp(min=1e-9)
    return share_NC


@ex.label_propagation.slip(
    "The rows of A are divided by their number of friends; edges with weights count by "
    "their weight: divide by the sum of the row."
)
def counts_friends(A_NN, Y_NC, known_N, steps):
    share_NC = Y_NC * known_N[:, None]
    for _ in range(steps):
        share_NC = A_NN @ share_NC / (A_NN > 0).sum(1, keepdim=True).clamp(min=1)
        share_NC[known_N] = Y_NC[known_N]
    return share_NC


@ex.label_propagation.slip(
    "`clamp(min=1)` also changes the degrees between 0 and 1: replace the zeros alone."
)
def clamps_at_one(A_NN, Y_NC, known_N, steps):
    share_NC = Y_NC * known_N[:, None]
    for _ in range(steps):
        share_NC = A_NN @ share_NC / A_NN.sum(1, keepdim=True).clamp(min=1)
        share_NC[known_N] = Y_NC[known_N]
    return share_NC


@ex.label_propagation.slip(
    "One step too few: after `steps` steps there were `steps` means."
)
def one_step_short(A_NN, Y_NC, known_N, steps):
    return _flow(A_NN, Y_NC, known_N, max(steps - 1, 0))


@ex.label_propagation.slip(
    "The shares of a row are made to sum to 1: a node that hears of no label yet has a "
    "row of 0, and one that hears little a small one."
)
def rows_of_one(A_NN, Y_NC, known_N, steps):
    share_NC = _flow(A_NN, Y_NC, known_N, steps)
    return share_NC / share_NC.sum(1, keepdim=True).clamp(min=1e-9)


@ex.label_propagation.slip(told="changes its input")
def labels_overwritten(A_NN, Y_NC, known_N, steps):
    Y_NC[~known_N] = 0
    return _flow(A_NN, Y_NC, known_N, steps)


# ---- is_equivariant ----


@ex.is_equivariant.slip(
    "Only the rows of A are put in the new order: a new number for a node moves its row and "
    "its column, A[p][:, p]."
)
def rows_of_a_only(f, A_NN, X_ND):
    p = torch.randperm(len(X_ND))
    return torch.allclose(f(A_NN[p], X_ND[p]), f(A_NN, X_ND)[p], atol=1e-5)


@ex.is_equivariant.slip(
    "A is left in the old order: then it is another graph. Move rows and columns of A, too."
)
def a_stays(f, A_NN, X_ND):
    p = torch.randperm(len(X_ND))
    return torch.allclose(f(A_NN, X_ND[p]), f(A_NN, X_ND)[p], atol=1e-5)


@ex.is_equivariant.slip("X is left in the old order: each node must keep its own row.")
def x_stays(f, A_NN, X_ND):
    p = torch.randperm(len(X_ND))
    return torch.allclose(f(A_NN[p][:, p], X_ND), f(A_NN, X_ND)[p], atol=1e-5)


@ex.is_equivariant.slip(
    "This asks whether the outputs stay the same (invariance): they should move with the "
    "nodes, so compare with f(A, X)[p]."
)
def invariance(f, A_NN, X_ND):
    p = torch.randperm(len(X_ND))
    return torch.allclose(f(A_NN[p][:, p], X_ND[p]), f(A_NN, X_ND), atol=1e-5)


@ex.is_equivariant.slip(
    "The outputs are compared without putting either in order: add up, and any order is "
    "right. Compare row by row."
)
def sums_compared(f, A_NN, X_ND):
    p = torch.randperm(len(X_ND))
    moved = f(A_NN[p][:, p], X_ND[p]).sum(0)
    return torch.allclose(moved, f(A_NN, X_ND).sum(0), atol=1e-5)


@ex.is_equivariant.slip(
    "Float sums in another order differ in the last digit: torch.allclose, not ==."
)
def exactly_equal(f, A_NN, X_ND):
    p = torch.randperm(len(X_ND))
    return bool((f(A_NN[p][:, p], X_ND[p]) == f(A_NN, X_ND)[p]).all())


@ex.is_equivariant.slip(
    "The order is a shift by one, which a model that looks at the number before does not "
    "notice: draw a random one, torch.randperm."
)
def a_shift(f, A_NN, X_ND):
    p = torch.arange(len(X_ND)).roll(1)
    return torch.allclose(f(A_NN[p][:, p], X_ND[p]), f(A_NN, X_ND)[p], atol=1e-5)


@ex.is_equivariant.slip(
    "The tolerance is too wide: a model that adds a hundredth of the node's number passes."
)
def too_tolerant(f, A_NN, X_ND):
    p = torch.randperm(len(X_ND))
    return torch.allclose(f(A_NN[p][:, p], X_ND[p]), f(A_NN, X_ND)[p], atol=0.1)


@ex.is_equivariant.slip(
    "The answer is the wrong way round: True says that the rows do move along."
)
def says_no(f, A_NN, X_ND):
    return not graph.is_equivariant(f, A_NN, X_ND)


@ex.is_equivariant.slip(
    "That is a whole tensor of answers: one True or False, as torch.allclose gives."
)
def many_answers(f, A_NN, X_ND):
    p = torch.randperm(len(X_ND))
    return torch.isclose(f(A_NN[p][:, p], X_ND[p]), f(A_NN, X_ND)[p], atol=1e-5)


# ---- uses_graph ----


@ex.uses_graph.slip(
    "The answer is the wrong way round: an output that stays says that no graph was used."
)
def stays_means_yes(f, A_NN, X_ND):
    return torch.allclose(f(A_NN, X_ND), f(torch.zeros_like(A_NN), X_ND))


@ex.uses_graph.slip(
    "The graph is renumbered, not changed: where all are joined, or only the number of edges "
    "counts, that shows nothing. Take the edges away."
)
def renumbers(f, A_NN, X_ND):
    p = torch.arange(len(X_ND)).flip(0)
    return not torch.allclose(f(A_NN, X_ND), f(A_NN[p][:, p], X_ND))


@ex.uses_graph.slip(
    "X is taken away with the edges: keep the rows, change the graph alone."
)
def both_gone(f, A_NN, X_ND):
    return not torch.allclose(
        f(A_NN, X_ND), f(torch.zeros_like(A_NN), torch.zeros_like(X_ND))
    )


@ex.uses_graph.slip("Self-loops are edges, too: compare with a matrix of zeros.")
def leaves_self_loops(f, A_NN, X_ND):
    return not torch.allclose(f(A_NN, X_ND), f(torch.eye(len(A_NN)), X_ND))


@ex.uses_graph.slip("The rows are shuffled, not the graph: any model notices that.")
def shuffles_rows(f, A_NN, X_ND):
    return not torch.allclose(f(A_NN, X_ND), f(A_NN, X_ND.flip(0)))


@ex.uses_graph.slip(
    "The other graph joins all with all: where all are friends already it is the same one. "
    "Take all edges away."
)
def all_joined(f, A_NN, X_ND):
    return not torch.allclose(f(A_NN, X_ND), f(torch.ones_like(A_NN), X_ND))


@ex.uses_graph.slip(
    "The tolerance is too wide: a model that listens a little to its neighbours does use "
    "the graph."
)
def hard_of_hearing(f, A_NN, X_ND):
    return not torch.allclose(f(A_NN, X_ND), f(torch.zeros_like(A_NN), X_ND), atol=0.5)


@ex.uses_graph.slip(
    "This asks whether the output differs from X: a layer of its own differs, too. Compare "
    "with the output on a graph without edges."
)
def differs_from_x(f, A_NN, X_ND):
    return not torch.allclose(f(A_NN, X_ND), X_ND)


# ---- propagate ----


@ex.propagate.slip(
    "Source and target are swapped: a row (i, j) goes from i to j, so H[i] arrives at j."
)
def backwards(edges_E2, weight_E, H_ND):
    target_E, source_E = edges_E2.T
    sent = weight_E[:, None] * H_ND[source_E]
    return torch.zeros_like(H_ND).index_add_(0, target_E, sent)


@ex.propagate.slip(
    "out[target] = ... keeps the last message and drops the others, and += does so, too: "
    "index_add_ adds them."
)
def last_one_wins(edges_E2, weight_E, H_ND):
    out = torch.zeros_like(H_ND)
    out[edges_E2[:, 1]] = weight_E[:, None] * H_ND[edges_E2[:, 0]]
    return out


@ex.propagate.slip("The weights are forgotten: a message is weight * H[source].")
def no_weights(edges_E2, weight_E, H_ND):
    return graph.propagate(edges_E2, torch.ones_like(weight_E), H_ND)


@ex.propagate.slip(
    "The sum begins at H itself: a node hears itself only where an edge (i, i) says so."
)
def begins_at_h(edges_E2, weight_E, H_ND):
    return H_ND + graph.propagate(edges_E2, weight_E, H_ND)


@ex.propagate.slip(
    "This is the mean of the messages; they are to be added (the weights hold the average)."
)
def mean_of_messages(edges_E2, weight_E, H_ND):
    total = graph.propagate(edges_E2, weight_E, H_ND)
    count_N = torch.bincount(edges_E2[:, 1], minlength=len(H_ND)).clamp(min=1)
    return total / count_N[:, None]


@ex.propagate.slip(
    "Each edge carries its message both ways here: the list says which ways there are."
)
def both_ways(edges_E2, weight_E, H_ND):
    return graph.propagate(
        torch.cat([edges_E2, edges_E2.flip(1)]), torch.cat([weight_E, weight_E]), H_ND
    )


@ex.propagate.slip("It sends the target's own row: the message is H[source].")
def sends_the_target(edges_E2, weight_E, H_ND):
    target_E = edges_E2[:, 1]
    sent = weight_E[:, None] * H_ND[target_E]
    return torch.zeros_like(H_ND).index_add_(0, target_E, sent)


@ex.propagate.slip(
    "An edge that comes twice in the list is sent once: both are messages, and both add."
)
def each_edge_once(edges_E2, weight_E, H_ND):
    A_NN = torch.zeros(len(H_ND), len(H_ND), dtype=weight_E.dtype)
    A_NN[edges_E2[:, 1], edges_E2[:, 0]] = weight_E
    return A_NN.to(H_ND.dtype) @ H_ND


@ex.propagate.slip(
    "The numbers go through .data or .detach(): no gradient comes back to the sender."
)
def no_way_back(edges_E2, weight_E, H_ND):
    return graph.propagate(edges_E2, weight_E, H_ND.detach())


# ---- roughness ----


def _rough(A_NN, Z_ND):
    return (A_NN * ((Z_ND[:, None] - Z_ND[None]) ** 2).sum(2)).sum() / 2


def _root(A_NN):
    return (A_NN.sum(1, keepdim=True) + 1).sqrt()


@ex.roughness.slip(
    "The friends are counted: where edges have weights, a degree is 1 + their sum."
)
def counted_friends(A_NN, H_ND):
    Z_ND = H_ND / ((A_NN > 0).sum(1) + 1).sqrt()[:, None]
    gap_NN = ((Z_ND[:, None] - Z_ND[None]) ** 2).sum(2)
    return (A_NN * gap_NN).sum() / 2


@ex.roughness.slip(
    "Each edge is counted twice, as (i, j) and as (j, i): halve the sum."
)
def twice(A_NN, H_ND):
    return 2 * _rough(A_NN, H_ND / _root(A_NN))


@ex.roughness.slip(
    "The rows are not scaled: divide each by the root of its degree, the node itself counted."
)
def unscaled(A_NN, H_ND):
    return _rough(A_NN, H_ND)


@ex.roughness.slip(
    "The degree leaves the node itself out: d_i is 1 + the friends of i, as in A_hat."
)
def without_itself(A_NN, H_ND):
    return _rough(A_NN, H_ND / A_NN.sum(1, keepdim=True).clamp(min=1e-9).sqrt())


@ex.roughness.slip("Divided by the degree itself: it takes the root of it.")
def whole_degree(A_NN, H_ND):
    return _rough(A_NN, H_ND / _root(A_NN) ** 2)


@ex.roughness.slip("The gaps are not squared: the energy is a sum of squares.")
def not_squared(A_NN, H_ND):
    Z_ND = H_ND / _root(A_NN)
    return (A_NN * (Z_ND[:, None] - Z_ND[None]).abs().sum(2)).sum() / 2


@ex.roughness.slip("All pairs of nodes are counted: only the joined ones, so times A.")
def all_pairs(A_NN, H_ND):
    return _rough(torch.ones_like(A_NN), H_ND / _root(A_NN))


@ex.roughness.slip("Edges have weights: multiply each gap by A[i, j].")
def ignores_weights(A_NN, H_ND):
    return _rough((A_NN > 0).to(A_NN.dtype), H_ND / _root(A_NN))


@ex.roughness.slip("This is a mean; the energy is the sum over the edges.")
def mean_gap(A_NN, H_ND):
    return _rough(A_NN, H_ND / _root(A_NN)) / (A_NN > 0).sum().clamp(min=1) * 2


@ex.roughness.slip(
    "The features are averaged: a gap is a squared length, the sum over the features."
)
def mean_feature(A_NN, H_ND):
    return _rough(A_NN, H_ND / _root(A_NN)) / H_ND.shape[1]


@ex.roughness.slip("The root is taken at the end: the energy is the square.")
def root_of_it(A_NN, H_ND):
    return _rough(A_NN, H_ND / _root(A_NN)).sqrt()


# ---- colours ----


def _colour(A_NN, rounds, hear):
    now = [0] * len(A_NN)
    for _ in range(rounds):
        near = [
            [now[j] for j in range(len(now)) if A_NN[i, j] > 0] for i in range(len(now))
        ]
        heard = [hear(own, others) for own, others in zip(now, near)]
        names = {}
        now = [names.setdefault(key, len(names)) for key in heard]
    return now


@ex.colours.slip(
    "A set forgets how many neighbours have a colour: hear the sorted list, with repeats."
)
def as_a_set(A_NN, rounds):
    return _colour(A_NN, rounds, lambda own, near: (own, frozenset(near)))


@ex.colours.slip(
    "The order in which neighbours are numbered counts here: sort what is heard."
)
def unsorted(A_NN, rounds):
    return _colour(A_NN, rounds, lambda own, near: (own, *near))


@ex.colours.slip(
    "Only the number of neighbours is heard: from the second round on, their colours count."
)
def degree_only(A_NN, rounds):
    return _colour(A_NN, rounds, lambda own, near: (own, len(near)))


@ex.colours.slip("One round too many: after 0 rounds all have one colour.")
def one_too_many(A_NN, rounds):
    return graph.colours(A_NN, rounds + 1)


@ex.colours.slip("One round too few: one round already hears the neighbours.")
def one_too_few(A_NN, rounds):
    return graph.colours(A_NN, max(rounds - 1, 0))


@ex.colours.slip(
    "Every node begins with a colour of its own, its number: begin with one colour for all."
)
def begins_apart(A_NN, rounds):
    return list(range(len(A_NN)))


@ex.colours.slip(
    "Nodes change one after the other, the later ones hear new colours: all change at once."
)
def in_turn(A_NN, rounds):
    now = [0] * len(A_NN)
    names = {}
    for _ in range(rounds):
        for i in range(len(now)):
            key = (now[i], *sorted(now[j] for j in range(len(now)) if A_NN[i, j] > 0))
            now[i] = names.setdefault(key, len(names) + 1)
    return now


@ex.colours.slip(
    "The sum of the neighbours' colours is heard: 1 + 3 and 2 + 2 sound alike. Keep the "
    "heap itself."
)
def sum_of_colours(A_NN, rounds):
    return _colour(A_NN, rounds, lambda own, near: (own, sum(c + 1 for c in near)))


@ex.colours.slip("The rounds are ignored: stop after as many as were asked for.")
def until_it_stops(A_NN, rounds):
    return graph.colours(A_NN, len(A_NN))


@ex.colours.slip(
    "These are the names of the colours that occur: return one colour for each node."
)
def the_palette(A_NN, rounds):
    return sorted(set(graph.colours(A_NN, rounds)))


# ---- pool ----


@ex.pool.slip("The mean and the sum are swapped.")
def swapped(H_ND, graph_N, how):
    return graph.pool(H_ND, graph_N, {"sum": "mean", "mean": "sum"}.get(how, how))


@ex.pool.slip(
    "This sums, whatever `how` says: 'mean' divides by the nodes of each graph."
)
def always_sums(H_ND, graph_N, how):
    return graph.pool(H_ND, graph_N, "sum" if how == "mean" else how)


@ex.pool.slip(
    "The mean divides by all N nodes: divide by how many nodes each graph has."
)
def over_all_nodes(H_ND, graph_N, how):
    total = graph.pool(H_ND, graph_N, "sum")
    return total / len(H_ND) if how == "mean" else graph.pool(H_ND, graph_N, how)


@ex.pool.slip(
    "All nodes are put together: one row for each graph, told apart by graph_N."
)
def one_row(H_ND, graph_N, how):
    return H_ND.sum(0, keepdim=True) if how == "sum" else H_ND.mean(0, keepdim=True)


@ex.pool.slip("A number that never comes gives 0 over 0: divide by at least 1.")
def zero_nodes(H_ND, graph_N, how):
    total = graph.pool(H_ND, graph_N, "sum" if how == "mean" else how)
    size_G = torch.bincount(graph_N, minlength=len(total))
    return total / size_G[:, None] if how == "mean" else total


@ex.pool.slip(
    "Graphs without a node are left out: row g is graph g, so they keep a row of 0."
)
def drops_empty(H_ND, graph_N, how):
    return graph.pool(H_ND, graph_N.unique(return_inverse=True)[1], how)


@ex.pool.slip("out[graph_N] += ... adds one node per graph only: use index_add_.")
def one_node_each(H_ND, graph_N, how):
    out = torch.zeros(int(graph_N.max()) + 1, H_ND.shape[1], dtype=H_ND.dtype)
    out[graph_N] += H_ND
    return out


@ex.pool.slip("`how` is neither: anything but 'sum' and 'mean' raises ValueError.")
def takes_any_word(H_ND, graph_N, how):
    return graph.pool(H_ND, graph_N, "sum" if how == "sum" else "mean")


@ex.pool.slip("One row too many: the largest number names the last row.")
def a_row_too_many(H_ND, graph_N, how):
    out = graph.pool(H_ND, graph_N, how)
    return torch.cat([out, torch.zeros_like(out[:1])])


@ex.pool.slip("This is the largest value of each graph, not the sum.")
def the_largest(H_ND, graph_N, how):
    rows = [H_ND[graph_N == g] for g in range(int(graph_N.max()) + 1)]
    if how == "mean":
        return graph.pool(H_ND, graph_N, how)
    return torch.stack(
        [r.amax(0) if len(r) else torch.zeros_like(H_ND[0]) for r in rows]
    )


# ---- edge_softmax ----


@ex.edge_softmax.slip(
    "The softmax runs over all edges: it is one softmax for each target."
)
def over_all_edges(score_E, target_E):
    return score_E.softmax(0)


@ex.edge_softmax.slip(
    "exp of 1,000 is infinite: subtract the largest score of each target first."
)
def overflows(score_E, target_E):
    total = torch.zeros(int(target_E.max()) + 1, dtype=score_E.dtype)
    total = total.index_add(0, target_E, score_E.exp())
    return score_E.exp() / total[target_E]


@ex.edge_softmax.slip(
    "One largest score is subtracted from all: near -1,000 the exp is 0 everywhere, and 0 "
    "over 0 is nan. Each target has its own largest."
)
def one_top_for_all(score_E, target_E):
    return overflows(score_E - score_E.max(), target_E)


@ex.edge_softmax.slip(
    "The scores themselves are divided by their sum: first exp, then shares."
)
def no_exp(score_E, target_E):
    total = torch.zeros(int(target_E.max()) + 1, dtype=score_E.dtype)
    return score_E / total.index_add(0, target_E, score_E)[target_E]


@ex.edge_softmax.slip("The exp is not divided: the weights of a target sum to 1.")
def not_divided(score_E, target_E):
    none_N = torch.full((int(target_E.max()) + 1,), -torch.inf, dtype=score_E.dtype)
    top_N = none_N.scatter_reduce(0, target_E, score_E, "amax")
    return (score_E - top_N[target_E]).exp()


@ex.edge_softmax.slip("Every edge into a node gets the same share: the scores decide.")
def equal_shares(score_E, target_E):
    count_N = torch.bincount(target_E)
    return (1 / count_N[target_E]).to(score_E.dtype) + 0 * score_E


@ex.edge_softmax.slip(
    "The totals are one per target; bring them back to the edges with total[target_E]."
)
def totals_of_targets(score_E, target_E):
    total = torch.zeros(int(target_E.max()) + 1, dtype=score_E.dtype)
    return total.index_add(0, target_E, score_E.exp())


@ex.edge_softmax.slip(
    "The largest score begins at 0: where all scores are far below 0, nothing is left. "
    "Begin at -torch.inf."
)
def top_from_zero(score_E, target_E):
    top = torch.zeros(int(target_E.max()) + 1, dtype=score_E.dtype)
    top = top.scatter_reduce(0, target_E, score_E.detach(), "amax")
    return overflows(score_E - top[target_E], target_E)


@ex.edge_softmax.slip(
    "The gradient does not come back to the scores: use them, not .detach() or .data."
)
def scores_cut_off(score_E, target_E):
    return graph.edge_softmax(score_E.detach(), target_E)


@ex.edge_softmax.slip(
    "Edges are taken to lie sorted by target: they come in any order."
)
def takes_them_sorted(score_E, target_E):
    sizes = [int(n) for n in torch.bincount(target_E) if n]
    return torch.cat([part.softmax(0) for part in score_E.split(sizes)])
