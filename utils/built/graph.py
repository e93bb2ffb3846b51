"""What chapter 08 builds: graphs as matrices and as edges, and networks that ask neighbours.

Everything is a torch tensor. N nodes, E edges, D features, C classes, G graphs.
edges_E2: whole numbers (int64); a row (i, j) is an edge from node i to node j, and a
message goes that way. A_NN: weights of the edges, 0 where there is none. `spread` is any
function that mixes rows among neighbours, (N, D) -> (N, D): `A_hat @ H`, `propagate`, or
nothing at all. Sources: Kipf and Welling (2017) for the layer, Zhu and Ghahramani (2002)
for label propagation, Weisfeiler and Leman (1968) for the colours.
"""

import torch
import torch.nn.functional as F

from utils import given

# ---- what comes in ----


def _edges(edges_E2, N=None):
    "edges_E2 as int64 (E, 2) with node numbers 0 .. N - 1, or ValueError."
    edges_E2 = torch.as_tensor(edges_E2)
    if edges_E2.numel() == 0:
        return torch.zeros(0, 2, dtype=torch.int64)
    if edges_E2.ndim != 2 or edges_E2.shape[1] != 2:
        raise ValueError(
            f"edges_E2 has the shape (E, 2), one row (i, j) per edge, not "
            f"{tuple(edges_E2.shape)}"
        )
    if edges_E2.is_floating_point():
        raise TypeError(
            "edges_E2 holds the numbers of nodes: whole numbers, not floats"
        )
    low, high = int(edges_E2.min()), int(edges_E2.max())
    if low < 0 or (N is not None and high >= N):
        span = "from 0" if N is None else f"0 to {N - 1}"
        raise ValueError(f"nodes have the numbers {span}; an edge names {low}, {high}")
    return edges_E2.long()


def _square(A_NN):
    "A_NN, a square matrix of floats, or ValueError."
    A_NN = torch.as_tensor(A_NN)
    if A_NN.ndim != 2 or A_NN.shape[0] != A_NN.shape[1]:
        raise ValueError(f"A_NN has the shape (N, N), not {tuple(A_NN.shape)}")
    return A_NN if A_NN.is_floating_point() else A_NN.float()


def _rows(name, values, N, of):
    if len(values) != N:
        raise ValueError(f"{name} has {len(values)} rows, {of} has {N}")


def _mask(known_N):
    if known_N.dtype != torch.bool:
        raise TypeError(
            f"known_N is a mask of True and False, not {known_N.dtype}: "
            "torch.zeros(N, dtype=torch.bool), then known_N[rows] = True"
        )
    return known_N


# ---- the matrix ----


def adjacency(edges_E2, N):
    "Pairs (E, 2) of nodes 0 .. N-1 -> A_NN, symmetric, 1 per edge however often it comes."
    N = given.whole("N", N)
    i_E, j_E = _edges(edges_E2, N).T
    A_NN = torch.zeros(N, N)
    A_NN[i_E, j_E] = A_NN[j_E, i_E] = 1.0
    return A_NN


def normalise(A_NN):
    "A_NN -> (A + I) over the roots of both ends' degrees; its largest eigenvalue is 1."
    A_NN = _square(A_NN)
    A_NN = A_NN + torch.eye(len(A_NN), dtype=A_NN.dtype)
    scale_N = A_NN.sum(1) ** -0.5
    return scale_N[:, None] * A_NN * scale_N


def roughness(A_NN, H_ND):
    "How much H_ND differs over the edges (Dirichlet energy), scaled by degree: -> ()."
    A_NN = _square(A_NN)
    _rows("H_ND", H_ND, len(A_NN), "A_NN")
    Z_ND = H_ND / (A_NN.sum(1) + 1).sqrt()[:, None]
    return (A_NN * ((Z_ND[:, None] - Z_ND[None]) ** 2).sum(2)).sum() / 2


# ---- lists of edges ----


def messages(edges_E2, N):
    "Edges both ways and to oneself, each once, and their weights in A_hat: (E, 2), (E,)."
    N = given.whole("N", N)
    edges_E2 = _edges(edges_E2, N)
    loops_N2 = torch.arange(N)[:, None].expand(N, 2)
    edges_E2 = torch.cat([edges_E2, edges_E2.flip(1), loops_N2]).unique(dim=0)
    degree_N = torch.bincount(edges_E2[:, 1], minlength=N).float()
    return edges_E2, degree_N[edges_E2].prod(1) ** -0.5


def propagate(edges_E2, weight_E, H_ND):
    "weight * row of the source, added up at each target: -> (N, D), 0 without a message."
    edges_E2 = _edges(edges_E2, len(given.tensors(H_ND=H_ND)))
    _rows("weight_E", weight_E, len(edges_E2), "edges_E2")
    source_E, target_E = edges_E2.T
    messages_ED = weight_E[:, None] * H_ND[source_E]
    return torch.zeros_like(H_ND).index_add_(0, target_E, messages_ED)


def edge_softmax(score_E, target_E):
    "Scores -> weights that sum to 1 over the edges with the same target: (E,)."
    _rows("target_E", target_E, len(score_E), "score_E")
    if not len(score_E):
        return score_E
    if int(target_E.min()) < 0:
        raise ValueError(f"nodes have the numbers from 0, not {int(target_E.min())}")
    none_N = score_E.new_full((int(target_E.max()) + 1,), -torch.inf)
    top_N = none_N.scatter_reduce(0, target_E, score_E.detach(), "amax")
    share_E = (score_E - top_N[target_E]).exp()
    total_N = torch.zeros_like(none_N).index_add_(0, target_E, share_E)
    return share_E / total_N[target_E]


def edge_attention(edges_E2, q_ND, k_ND, v_ND):
    "Each node's mean of its neighbours' values, weighted by query times key: -> (N, D)."
    edges_E2 = _edges(edges_E2, len(q_ND))
    _rows("k_ND", k_ND, len(q_ND), "q_ND")
    source_E, target_E = edges_E2.T
    score_E = (q_ND[target_E] * k_ND[source_E]).sum(1) / q_ND.shape[1] ** 0.5
    return propagate(edges_E2, edge_softmax(score_E, target_E), v_ND)


# ---- learning ----


def gcn(spread, X_ND, weights):
    "Rows and a list of matrices -> logits; spread(H @ W) per layer, ReLU in between."
    given.function("spread", spread)
    if isinstance(weights, torch.Tensor):
        raise TypeError("weights is a list of matrices, one per layer, not one matrix")
    H_ND = given.tensors(X_ND=X_ND)
    for layer, W_DH in enumerate(weights):
        if H_ND.shape[1] != len(W_DH):
            raise ValueError(
                f"weights[{layer}] has {len(W_DH)} rows, its input {H_ND.shape[1]} columns"
            )
        H_ND = spread(H_ND @ W_DH)
        if layer < len(weights) - 1:
            H_ND = H_ND.relu()
    return H_ND


def masked_cross_entropy(logits_NC, y_N, known_N):
    "Mean cross-entropy over the nodes whose label is known; known_N a mask: -> ()."
    _rows("known_N", _mask(known_N), len(logits_NC), "logits_NC")
    if not known_N.any():
        raise ValueError("known_N has no True: a mean over no node")
    return F.cross_entropy(logits_NC[known_N], y_N[known_N])


def label_propagation(A_NN, Y_NC, known_N, steps):
    "Known rows of Y_NC flow along the edges `steps` times and stay themselves: -> (N, C)."
    A_NN, steps = _square(A_NN), given.whole("steps", steps, least=0)
    _rows("Y_NC", Y_NC, len(A_NN), "A_NN")
    _rows("known_N", known_N, len(A_NN), "A_NN")
    degree_N1 = A_NN.sum(1, keepdim=True).clamp(min=1e-9)
    share_NC = Y_NC * _mask(known_N)[:, None]
    for _ in range(steps):
        share_NC = A_NN @ share_NC / degree_N1
        share_NC[known_N] = Y_NC[known_N]
    return share_NC


def pool(H_ND, graph_N, how):
    "Rows of a batch of graphs -> one row per graph, its 'sum' or 'mean': (G, D)."
    if how not in ("sum", "mean"):
        raise ValueError(f"how is 'sum' or 'mean', not {how!r:.60}")
    _rows("graph_N", graph_N, len(H_ND), "H_ND")
    G = int(graph_N.max()) + 1
    total_GD = H_ND.new_zeros(G, H_ND.shape[1]).index_add_(0, graph_N, H_ND)
    if how == "sum":
        return total_GD
    return total_GD / torch.bincount(graph_N, minlength=G).clamp(min=1)[:, None]


# ---- what a graph, or a model, can tell ----


def is_equivariant(f, A_NN, X_ND):
    "Whether the rows of f(A, X) move with the nodes under other numbers: -> bool."
    given.function("f", f)
    _rows("X_ND", X_ND, len(_square(A_NN)), "A_NN")
    order_N = torch.randperm(len(X_ND))
    moved = f(A_NN[order_N][:, order_N], X_ND[order_N])
    return torch.allclose(moved, f(A_NN, X_ND)[order_N], atol=1e-5)


def uses_graph(f, A_NN, X_ND):
    "Whether f(A, X) changes when all edges are taken away: -> bool."
    given.function("f", f)
    _rows("X_ND", X_ND, len(_square(A_NN)), "A_NN")
    return not torch.allclose(f(A_NN, X_ND), f(torch.zeros_like(A_NN), X_ND))


def colours(A_NN, rounds):
    "Colour refinement (1-WL): a list of N whole numbers, equal for nodes that look alike."
    A_NN, rounds = _square(A_NN), given.whole("rounds", rounds, least=0)
    near = [row.nonzero().flatten().tolist() for row in A_NN]
    colour = [0] * len(near)
    for _ in range(rounds):
        heard = [
            (colour[i], *sorted(colour[j] for j in near[i])) for i in range(len(near))
        ]
        names = {}
        colour = [names.setdefault(key, len(names)) for key in heard]
    return colour
