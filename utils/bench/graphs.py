"""Chapter 08: one round on a real graph, as a matrix, as messages, as a compiled loop."""

from utils.bench.ratio import Ratio, benchmark, in_turns


def _round(other, what, repeats=8, features=16):
    import numpy as np
    import torch
    from scipy.sparse import csr_array

    from utils.built import graph
    from utils.data.graphs import torch_imports

    torch.set_num_threads(1)
    torch.manual_seed(0)
    files = torch_imports()
    N, one_way_E2 = len(files.names), torch.tensor(files.edges_E2)
    edges_E2, weight_E = graph.messages(one_way_E2, N)
    A_hat_NN = graph.normalise(graph.adjacency(one_way_E2, N))
    source_E, target_E = edges_E2.T.numpy()
    rows = csr_array((weight_E.numpy(), (target_E, source_E)), shape=(N, N))
    H_ND = torch.randn(N, features)
    works = {
        "matrix": lambda: A_hat_NN @ H_ND,
        "messages": lambda: graph.propagate(edges_E2, weight_E, H_ND),
        "compiled": lambda: rows @ H_ND.numpy(),
    }
    same = [np.asarray(work()) for work in works.values()]
    assert all(np.allclose(same[0], one, atol=1e-4) for one in same), (
        "three ways, one sum"
    )

    def again(work):
        for _ in range(repeats):
            work()

    samples = in_turns(
        lambda: again(works[other]), lambda: again(works["matrix"]), invert=True
    )
    what = f"{N} nodes, {len(edges_E2)} edges, {features} features: matrix / {what}"
    return Ratio(samples, what)


@benchmark("graphs.messages")
def messages():
    "index_add_ over a list of edges: how many times as fast as the dense product."
    return _round("messages", "messages added up with index_add_")


@benchmark("graphs.compiled", bar=">= 2")
def compiled():
    "SciPy's compiled loop over the same list."
    return _round("compiled", "SciPy's compiled loop over the edges")


@benchmark("graphs.training")
def training():
    "A step of a graph network beside a step of a linear layer on rows averaged before."
    import torch
    import torch.nn.functional as F

    from utils.built import graph
    from utils.data.graphs import torch_imports

    torch.set_num_threads(1)
    torch.manual_seed(0)
    files = torch_imports()
    N, y_N = len(files.names), torch.tensor(files.y_N)
    edges_E2, weight_E = graph.messages(torch.tensor(files.edges_E2), N)
    X_NV, known_N = F.normalize(torch.tensor(files.counts_NV).float()), y_N >= 0

    def step(spread, sizes):
        weights = [torch.randn(pair).mul_(0.1).requires_grad_() for pair in sizes]

        def run(steps=4):
            for _ in range(steps):
                logits_NC = graph.gcn(spread, X_NV, weights)
                loss = graph.masked_cross_entropy(logits_NC, y_N, known_N)
                torch.autograd.grad(loss, weights)

        return run

    def ask(H_ND):
        return graph.propagate(edges_E2, weight_E, H_ND)

    V, C = X_NV.shape[1], len(files.classes)
    network, linear = step(ask, [(V, 16), (16, C)]), step(lambda H_ND: H_ND, [(V, C)])
    samples = in_turns(network, linear)
    return Ratio(samples, "a step on 1,655 files: graph network / linear layer")
