"""Chapter 08: graphs as matrices and as lists of edges, and networks that ask neighbours."""

import contextlib

import torch

from utils.exercises import Chapter, Miss, same

chapter = Chapter("08_graphs")
# a check leaves the reader's dice alone
keeps_random = torch.random.fork_rng(devices=[])
double = torch.float64
# where a right answer may well make a tensor of its own, all is float32
SINGLE = {"atol": 1e-5, "rtol": 1e-5}


def _dice(seed=0):
    return torch.Generator().manual_seed(seed)


def _draw(*shape, seed=0):
    return torch.randn(*shape, generator=_dice(seed), dtype=double)


def _matrix(pairs, N, weights=None):
    "A symmetric matrix of the given pairs."
    A_NN = torch.zeros(N, N, dtype=double)
    for k, (i, j) in enumerate(pairs):
        A_NN[i, j] = A_NN[j, i] = 1.0 if weights is None else weights[k]
    return A_NN


PATH = _matrix([(0, 1), (1, 2)], 3)
STAR = _matrix([(0, 1), (0, 2), (0, 3)], 4)
# seven nodes: a triangle with a tail, a pair apart; and one alone
SEVEN = [(0, 1), (1, 2), (2, 0), (2, 3), (4, 5)]
WEIGHTS = [2.0, 0.5, 1.0, 3.0, 4.0]


def _spread(A_NN):
    "Kipf and Welling's average, for the checks' own use."
    A_NN = A_NN + torch.eye(len(A_NN), dtype=A_NN.dtype)
    scale_N = A_NN.sum(1) ** -0.5
    return scale_N[:, None] * A_NN * scale_N


# ---- the matrix ----


@chapter.exercise(
    "A table of N rows and N columns, all 0. Which entries does the pair (i, j) turn to 1?",
    "A friendship holds both ways: A[i, j] and A[j, i]. Set them; do not add.",
    "A = torch.zeros(N, N); i, j = edges_E2.T; A[i, j] = 1; A[j, i] = 1; return A",
)
def adjacency(answer):
    "A list of pairs as a symmetric matrix of 0 and 1."
    both = "A friendship holds both ways: set A[i, j] and A[j, i]."
    for case, pairs, N in [
        ("[[0, 1], [1, 2]] among 3", [[0, 1], [1, 2]], 3),
        ("a triangle with a tail, a pair, and node 6 alone", SEVEN, 7),
        ("node 3 of 4 has no edge", [[0, 2]], 4),
        ("no edges among 2", torch.zeros(0, 2), 2),
    ]:
        edges_E2 = torch.as_tensor(pairs).long()
        A_NN = answer(edges_E2, N)
        same(f"{case}: the shape", tuple(A_NN.shape), (N, N),
             "One row and one column per node, also for those without an edge.")  # fmt: skip
        same(case, A_NN, _matrix(edges_E2.tolist(), N), both)
    edges_E2 = torch.tensor([[0, 1], [1, 0], [1, 2], [1, 2], [1, 2]])
    same("pairs that come twice, or both ways round", answer(edges_E2, 3), PATH,
         "A pair that comes again is still one edge: set, do not add.")  # fmt: skip
    same("the dtype", str(answer(edges_E2, 3).dtype), "torch.float32",
         "float32, as the network's weights: it will be multiplied with them.")  # fmt: skip


@chapter.exercise(
    "Three moves: every node becomes its own neighbour; count each one's neighbours; divide.",
    "degree_N = (A + I).sum(1), after the self-loops. The entry (i, j) is divided by the "
    "root of degree_N[i] and by the root of degree_N[j].",
    "A = A_NN + torch.eye(len(A_NN)); scale_N = A.sum(1) ** -0.5; "
    "return scale_N[:, None] * A * scale_N",
)
def normalise(answer):
    "The symmetric average over a node and its neighbours."
    rule = "(A + I)[i, j] over the roots of both degrees, self-loops counted."
    third, sixth = 1 / 3, 6**-0.5
    same("the path 0 - 1 - 2", answer(PATH),
         [[0.5, sixth, 0], [sixth, third, sixth], [0, sixth, 0.5]], rule)  # fmt: skip
    for case, A_NN in [
        ("a star of 4", STAR),
        ("seven nodes, node 6 alone", _matrix(SEVEN, 7)),
        ("the same with weights", _matrix(SEVEN, 7, WEIGHTS)),
        ("no edges at all", torch.zeros(2, 2, dtype=double)),
    ]:
        A_hat_NN = answer(A_NN)
        same(f"{case}: is it symmetric?", torch.equal(A_hat_NN, A_hat_NN.T) or
             bool((A_hat_NN - A_hat_NN.T).abs().max() < 1e-12), True,
             "Both ends divide alike: the root of i's degree and the root of j's.")  # fmt: skip
        root_N = (A_NN.sum(1) + 1) ** 0.5
        same(f"{case}: A_hat times the roots of the degrees", A_hat_NN @ root_N, root_N,
             "What is proportional to the root of the degree stays as it is.")  # fmt: skip
        same(case, A_hat_NN, _spread(A_NN), rule)
    same("a star of float32: the dtype", str(answer(STAR.float()).dtype), "torch.float32",
         "It keeps the dtype of what comes in.")  # fmt: skip


# ---- the network ----


@chapter.exercise(
    "One layer: multiply by the weights, then let `spread` mix the neighbours. Repeat.",
    "A ReLU stands between two layers, so after every layer but the last: the last one "
    "gives logits, of either sign.",
    "H = X_ND; for k, W in enumerate(weights): H = spread(H @ W); if k < len(weights) - 1: "
    "H = H.relu(); return H",
)
def gcn(answer):
    "A graph convolution network of any depth."
    X_ND, A_hat_NN = _draw(7, 3), _spread(_matrix(SEVEN, 7))
    weights = [_draw(3, 4, seed=1), _draw(4, 5, seed=2), _draw(5, 2, seed=3)]

    def spread(H_ND):
        return A_hat_NN @ H_ND

    def slowly(weights):
        H = X_ND
        for k, W in enumerate(weights):
            rows = []
            for i in range(7):
                row = torch.zeros(W.shape[1], dtype=double)
                for j in range(7):
                    row += A_hat_NN[i, j] * (H[j] @ W)
                rows.append(row.clamp(min=0) if k < len(weights) - 1 else row)
            H = torch.stack(rows)
        return H

    rule = "Each layer is spread(H @ W), with a ReLU between two layers."
    same("two layers", answer(spread, X_ND, [weights[0], weights[1]]),
         slowly(weights[:2]), rule)  # fmt: skip
    same("one layer", answer(spread, X_ND, weights[:1]), slowly(weights[:1]),
         "A single layer is the last one: no ReLU after it.")  # fmt: skip
    same("three layers", answer(spread, X_ND, weights), slowly(weights), rule)
    same("three layers, and a `spread` that does nothing",
         answer(lambda H_ND: H_ND, X_ND, weights),
         ((X_ND @ weights[0]).relu() @ weights[1]).relu() @ weights[2],
         "Without neighbours it is chapter 02's network: use the `spread` you are given.")  # fmt: skip
    same("a `spread` that adds 1 to every value, two layers",
         answer(lambda H_ND: H_ND + 1, X_ND, weights[:2]),
         (X_ND @ weights[0] + 1).relu() @ weights[1] + 1,
         "First the weights, then `spread`, then the ReLU.")  # fmt: skip
    W = weights[0].clone().requires_grad_()
    out = answer(spread, X_ND, [W, weights[1]])
    if out.requires_grad:
        out.sum().backward()
    same("does a gradient reach the first weights?", W.grad is not None, True,
         "Use the tensors themselves, not their .data: they have to learn.")  # fmt: skip


@chapter.exercise(
    "Only the rows of nodes whose label is known say anything. What is a mean over those?",
    "A mask picks rows: logits_NC[known_N] and y_N[known_N].",
    "return F.cross_entropy(logits_NC[known_N], y_N[known_N])",
)
def masked_cross_entropy(answer):
    "Mean cross-entropy over the known nodes."
    logits_NC, y_N = _draw(7, 3), torch.tensor([2, 0, 1, 1, 0, 2, 1])
    for rows in ([1, 4, 5], [6], [0, 1, 2, 3, 4, 5, 6]):
        known_N = torch.zeros(7, dtype=torch.bool)
        known_N[rows] = True
        picked = [logits_NC[i].logsumexp(0) - logits_NC[i, y_N[i]] for i in rows]
        case = f"7 nodes, known are {rows}"
        same(f"{case}: the loss", answer(logits_NC, y_N, known_N), sum(picked) / len(rows),
             "The mean over the known nodes, and over nothing else.")  # fmt: skip
        z_NC = logits_NC.clone().requires_grad_()
        loss = answer(z_NC, y_N, known_N)
        if loss.requires_grad:
            loss.backward()
        grad_NC = torch.zeros(7, 3, dtype=double) if z_NC.grad is None else z_NC.grad
        want_NC = logits_NC.softmax(1) - torch.eye(3, dtype=double)[y_N]
        want_NC = known_N[:, None] * want_NC / len(rows)
        same(f"{case}: its gradient", grad_NC, want_NC,
             "Zero for every unknown node, (p - one-hot) / known for the others.")  # fmt: skip
    hidden_N = torch.tensor([2, -1, -1, 1, -1, -1, -1])
    known_N = hidden_N >= 0
    want = sum(logits_NC[i].logsumexp(0) - logits_NC[i, y] for i, y in ((0, 2), (3, 1)))
    same("unknown labels are written as -1", answer(logits_NC, hidden_N, known_N), want / 2,
         "The label of an unknown node is not even looked at.")  # fmt: skip


# ---- the baseline ----


@chapter.exercise(
    "One step: every node takes the mean of its neighbours' rows. The known ones then take "
    "their label back.",
    "mean = A_NN @ S_NC / degree_N[:, None]; a node without a neighbour has degree 0: "
    "divide by at least a tiny number, so that its row stays 0.",
    "S = Y_NC * known_N[:, None]; for _ in range(steps): S = A_NN @ S / "
    "A_NN.sum(1, keepdim=True).clamp(min=1e-9); S[known_N] = Y_NC[known_N]",
)
def label_propagation(answer):
    "Labels that flow along the edges; the known ones stay."
    for case, pairs, known, weights in [
        ("a star of 4, two of its ends known", [(0, 1), (0, 2), (0, 3)], [1, 3], None),
        ("a path of 4, ends known", [(0, 1), (1, 2), (2, 3)], [0, 3], None),
        ("seven nodes, 0 and 4 known, 6 alone", SEVEN, [0, 4], None),
        ("the same with weights", SEVEN, [3, 0, 4], WEIGHTS),
        (
            "a path of 4, weights below 1",
            [(0, 1), (1, 2), (2, 3)],
            [0, 3],
            [0.2, 0.3, 0.1],
        ),
    ]:
        N = 4 if len(pairs) == 3 else 7
        A_NN, known_N = (
            _matrix(pairs, N, weights).float(),
            torch.zeros(N, dtype=torch.bool),
        )
        known_N[known] = True
        Y_NC = torch.eye(2)[torch.arange(N) % 2]
        Y_NC[known[-1]] = torch.tensor([0.0, 1.0])
        for steps in (0, 1, 2, 5):
            got_NC = answer(A_NN, Y_NC, known_N, steps)
            want_NC = Y_NC * known_N[:, None]
            for _ in range(steps):
                rows = []
                for i in range(N):
                    near = [j for j in range(N) if A_NN[i, j] > 0]
                    total = sum(A_NN[i, j] * want_NC[j] for j in near)
                    degree = sum(A_NN[i, j] for j in near)
                    row = total / degree if near else torch.zeros(2)
                    rows.append(Y_NC[i] if known_N[i] else row)
                want_NC = torch.stack(rows)
            same(f"{case}: after {steps} steps", got_NC, want_NC,
                 "The unknown begin at 0; each step takes the mean of the neighbours, all at "
                 "once; the known take their label back.", **SINGLE)  # fmt: skip
    A_NN = _matrix([(0, 1), (1, 2), (2, 3)], 4).float()
    known_N = torch.tensor([True, False, False, True])
    Y_NC = torch.tensor([[1.0, 0], [0, 0], [0, 0], [0, 1]])
    third = 1 / 3
    same("the path of 4 after 200 steps", answer(A_NN, Y_NC, known_N, 200),
         [[1, 0], [2 * third, third], [third, 2 * third], [0, 1]],
         "In the end every unknown node is the mean of its neighbours.", **SINGLE)  # fmt: skip


# ---- two tests ----


def _one(value, case):
    "A yes or a no, also where it comes in a tensor."
    with contextlib.suppress(Exception):
        if value.numel() == 1 and value.dtype == torch.bool:
            return bool(value)
    if not isinstance(value, bool):
        raise Miss("Return True or False.", case, value, "True or False")
    return value


ONE_WAY = torch.zeros(7, 7, dtype=double)  # messages in one direction only
for _i, _j in [*SEVEN, (6, 0), (5, 1)]:
    ONE_WAY[_i, _j] = 1.0


def _by_number(A_NN, X_ND):
    return X_ND + 0.01 * torch.arange(len(X_ND))[:, None]


@chapter.exercise(
    "Give the nodes other numbers: rows and columns of A, and rows of X. What should "
    "happen to the rows of the output?",
    "p = torch.randperm(N); A_NN[p][:, p] and X_ND[p] are the same graph under other "
    "numbers. The outputs are float: compare with torch.allclose.",
    "p = torch.randperm(len(X_ND)); return torch.allclose(f(A_NN[p][:, p], X_ND[p]), "
    "f(A_NN, X_ND)[p], atol=1e-5)",
)
@keeps_random
def is_equivariant(answer):
    "A test: do the outputs move with the nodes?"
    torch.manual_seed(0)  # the same orders for everybody: a slip then fails as its twin
    W, X_ND = _draw(3, 3, seed=5), _draw(7, 3)
    for case, models, want, rule in [
        ("X @ W; A @ X; A.T @ X; the mean of all in each row; the degrees",
         [lambda A, X: X @ W, lambda A, X: A @ X, lambda A, X: A.T @ X,
          lambda A, X: X.mean(0).expand(len(X), -1), lambda A, X: A.sum(1)], True,
         "The outputs of all five move with the nodes: True. Renumbering moves rows and "
         "columns of A, rows of X, and rows of the output."),
        ("X and its number; the row numbered before; a running sum over the rows; "
         "neighbours with high numbers count more; a fixed table in place of A",
         [_by_number, lambda A, X: X.roll(1, 0), lambda A, X: X.cumsum(0),
          lambda A, X: (A * torch.arange(len(A))) @ X, lambda A, X: ONE_WAY @ X], False,
         "The outputs of all five depend on how the nodes are numbered: False. A random "
         "order shows it, torch.randperm."),
    ]:  # fmt: skip
        for _ in range(3):
            got = [_one(answer(f, ONE_WAY, X_ND), case) for f in models]
            same(case, got, [want] * 5, rule)
    A_NN, X_ND = torch.zeros(300, 300), _draw(300, 3).abs().float()
    got = _one(answer(lambda A, X: X.sum(0) + X, A_NN, X_ND), "300 rows of float32")
    same("each of 300 rows and the sum of all, float32", got, True,
         "Float sums differ in the last digit: compare with torch.allclose.")  # fmt: skip


@chapter.exercise(
    "Keep the rows as they are, and change the graph. Does the output notice?",
    "The clearest other graph has no edges at all: torch.zeros_like(A_NN).",
    "return not torch.allclose(f(A_NN, X_ND), f(torch.zeros_like(A_NN), X_ND))",
)
def uses_graph(answer):
    "A test: does the output change when all edges are taken away?"
    W, X_ND = _draw(3, 3, seed=5).float(), _draw(7, 3).float()
    full_NN = torch.ones(7, 7)
    for case, models, want in [
        ("X @ W; X + 0 * (A @ X); the mean of all rows; 1; 2 * X if all edges are loops",
         [lambda A, X: X @ W, lambda A, X: X + 0 * (A @ X),
          lambda A, X: X.mean(0).expand(len(X), -1), lambda A, X: torch.ones_like(X),
          lambda A, X: X * (1 + bool(A.sum() and A.trace() == A.sum()))], False),
        ("A @ X; X + A @ X; X times the number of edges; X + 0.01 * (A @ X); a network",
         [lambda A, X: A @ X, lambda A, X: X + A @ X, lambda A, X: A.sum() * X,
          lambda A, X: X + 0.01 * (A @ X),
          lambda A, X: (_spread(A) @ X @ W).relu() @ W], True),
    ]:  # fmt: skip
        rule = "Without edges they give " + ("something else: True." if want else
               "the same: False. Change the graph, and nothing but the graph.")  # fmt: skip
        got = [_one(answer(f, ONE_WAY.float(), X_ND), case) for f in models]
        same(case, got, [want] * len(models), rule)
    got = answer(lambda A, X: A @ X, full_NN, X_ND)
    same("a graph in which all are joined, A @ X", _one(got, "all are joined"), True,
         "Other numbers for the nodes change nothing here: take the edges away.")  # fmt: skip


# ---- lists of edges ----


@chapter.exercise(
    "One message per edge: the row of its source, times its weight. Where does it go?",
    "index_add_ adds rows into other rows: out.index_add_(0, target_E, messages_ED).",
    "source_E, target_E = edges_E2.T; messages = weight_E[:, None] * H_ND[source_E]; "
    "return torch.zeros_like(H_ND).index_add_(0, target_E, messages)",
)
def propagate(answer):
    "Messages along a list of edges, added up where they arrive."
    for case, pairs, weights, N in [
        ("one edge, 0 to 1", [(0, 1)], [2.0], 3),
        ("a directed triangle with a tail", [(0, 1), (1, 2), (2, 0), (2, 3)],
         [1.0, 2.0, 3.0, 4.0], 4),
        ("two messages for node 2, and one of node 2 to itself",
         [(0, 2), (1, 2), (2, 2)], [0.5, 0.25, 3.0], 5),
        ("an edge that comes twice", [(3, 1), (3, 1), (0, 1)], [1.0, 1.0, 1.0], 4),
        ("no edges", [], [], 2),
    ]:  # fmt: skip
        edges_E2 = torch.tensor(pairs).reshape(-1, 2).long()
        weight_E, H_ND = torch.tensor(weights), _draw(N, 3).float()
        rows = [torch.zeros(3) for _ in range(N)]
        for (i, j), weight in zip(pairs, weights):
            rows[j] = rows[j] + weight * H_ND[i]
        same(case, answer(edges_E2, weight_E, H_ND), torch.stack(rows),
             "Row (i, j): node j gets weight * H[i], and all that arrives is added.", **SINGLE)  # fmt: skip
    same("one feature per node", answer(torch.tensor([[0, 1]]), torch.ones(1), torch.ones(2, 1)),
         [[0.0], [1.0]], "Nodes without a message get 0.")  # fmt: skip
    H_ND = _draw(3, 2).float().requires_grad_()
    out = answer(torch.tensor([[0, 1], [0, 2]]), torch.tensor([3.0, 4.0]), H_ND)
    if out.requires_grad:
        out.sum().backward()
    same("the gradient at the sources", H_ND.grad, [[7.0, 7], [0, 0], [0, 0]],
         "Node 0 sends 3 and 4 of itself; the way must stay open for gradients.")  # fmt: skip


# ---- how rough ----


@chapter.exercise(
    "An edge is rough where its two ends differ. Scale each node first.",
    "Z_ND = H_ND over the root of (degree + 1). Sum A[i, j] * (Z[i] - Z[j])**2 over all "
    "pairs, and halve it: each edge came twice.",
    "Z = H_ND / (A_NN.sum(1) + 1).sqrt()[:, None]; gap = ((Z[:, None] - Z[None]) ** 2)"
    ".sum(2); return (A_NN * gap).sum() / 2",
)
def roughness(answer):
    "The Dirichlet energy of features on a graph."
    rule = "Over the edges, each once: the squared gap of the scaled ends."
    H_N1 = torch.tensor([[1.0], [2.0], [-1.0]], dtype=double)
    same("the path 0 - 1 - 2 with 1, 2 and -1", answer(PATH, H_N1), 11 / 3, rule)
    for case, A_NN, H_ND in [
        ("a star of 4, two features", STAR, _draw(4, 2)),
        ("seven nodes, one of them alone", _matrix(SEVEN, 7), _draw(7, 3)),
        ("the same with weights", _matrix(SEVEN, 7, WEIGHTS), _draw(7, 3, seed=1)),
    ]:
        laplacian_NN = torch.eye(len(A_NN), dtype=double) - _spread(A_NN)
        same(case, answer(A_NN, H_ND), (H_ND * (laplacian_NN @ H_ND)).sum(), rule)
        root_N1 = (A_NN.sum(1, keepdim=True) + 1) ** 0.5
        same(f"{case.split(',')[0]}, features proportional to the root of the degree",
             answer(A_NN, root_N1 * torch.tensor([[2.0, -1.0]], dtype=double)), 0.0,
             "The scaled ends are equal everywhere: nothing is rough.")  # fmt: skip
    same("no edges", answer(torch.zeros(2, 2, dtype=double), _draw(2, 2)), 0.0, rule)


# ---- what messages cannot tell apart ----


def _canonical(colours_N):
    "Colours numbered in the order in which they come."
    seen = {}
    return [seen.setdefault(colour, len(seen)) for colour in colours_N]


def _refined(A_NN, rounds):
    now = [0] * len(A_NN)
    for _ in range(rounds):
        near = [
            [now[j] for j in range(len(A_NN)) if A_NN[i, j]] for i in range(len(now))
        ]
        now = _canonical([(own, *sorted(others)) for own, others in zip(now, near)])
    return now


RING_6 = _matrix([(i, (i + 1) % 6) for i in range(6)], 6)
TRIANGLES = _matrix([(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3)], 6)


@chapter.exercise(
    "What does a node hear in one round? Its own colour, and a heap of its neighbours' "
    "colours: order does not count, how many of each does.",
    "Make each node a tuple: (its colour, sorted list of its neighbours' colours). Equal "
    "tuples get equal new numbers: a dict from tuple to number.",
    "for each round: heard = [(c[i], *sorted(c[j] for j in range(N) if A_NN[i, j])) for i "
    "in range(N)]; names = {}; c = [names.setdefault(h, len(names)) for h in heard]",
)
def colours(answer):
    "Colour refinement: what a node can know of its graph after so many rounds."
    caterpillar = [(0, 1), (1, 2), (2, 3), (3, 4), (2, 5), (3, 6)]
    # two hubs of one red and two blue, or two red and one blue: a set hears no difference
    heaps = [(0, 1), (0, 2), (0, 3), (1, 8), (4, 5), (4, 6), (4, 7), (5, 9), (6, 10)]
    # heaps whose numbers add up alike
    tail = [(0, 1), (1, 5), (2, 3), (2, 4), (3, 5), (4, 5)]
    for case, A_NN, most in [
        ("a ring of four with a tail, and node 6 alone", _matrix(tail, 7), 3),
        ("a caterpillar of 7", _matrix(caterpillar, 7), 4),
        ("a path of 3", PATH, 3),
        ("a star of 4", STAR, 2),
        ("a path of 6", _matrix([(i, i + 1) for i in range(5)], 6), 4),
        ("two hubs with different heaps of neighbours", _matrix(heaps, 11), 3),
        ("a triangle with a tail, a pair, one alone", _matrix(SEVEN, 7), 3),
        ("a ring of 6", RING_6, 3),
        ("two triangles beside a ring of 6", torch.block_diag(TRIANGLES, RING_6), 3),
    ]:
        got = [answer(A_NN, rounds) for rounds in range(most + 1)]
        same(f"{case}: how many numbers", [len(c) for c in got], [len(A_NN)] * (most + 1),
             "One colour per node.")  # fmt: skip
        got = [_canonical([int(colour) for colour in c]) for c in got]
        want = [_refined(A_NN, rounds) for rounds in range(most + 1)]
        same(f"{case}: who has the colour of whom after 0, 1, ... rounds", got, want,
             "Alike before the first round; after one, alike are those with the same "
             "own colour and the same heap of neighbours' colours.")  # fmt: skip


@chapter.exercise(
    "Rows with the same graph number belong together: add them up, as `propagate` did.",
    "index_add_ for the sums; torch.bincount(graph_N) counts the nodes of each graph.",
    "G = int(graph_N.max()) + 1; sums = torch.zeros(G, D).index_add_(0, graph_N, H_ND); for "
    "'mean' divide by torch.bincount(graph_N).clamp(min=1)[:, None]",
)
def pool(answer):
    "One row for each graph of a batch."
    H_ND = _draw(7, 3).float()
    for numbers in (
        [0, 0, 0, 1, 1, 1, 1],
        [1, 0, 2, 1, 2, 2, 0],
        [0] * 7,
        [3, 0, 0, 1, 3, 3, 3],
    ):
        graph_N = torch.tensor(numbers)
        G = max(numbers) + 1
        total = torch.zeros(G, 3)
        for i, number in enumerate(numbers):
            total[number] += H_ND[i]
        size = torch.tensor([max(numbers.count(k), 1) for k in range(G)])
        case = f"the nodes' graphs are {numbers}"
        same(f"{case}: sum", answer(H_ND, graph_N, "sum"), total,
             "One row per graph: the sum of its nodes; 0 for a number that never comes.", **SINGLE)  # fmt: skip
        same(f"{case}: mean", answer(H_ND, graph_N, "mean"), total / size[:, None],
             "One row per graph: the mean of its nodes; 0 for a number that never comes.", **SINGLE)  # fmt: skip
    try:
        answer(H_ND, graph_N, "median")
        got = "no error"
    except ValueError:
        got = "ValueError"
    same(
        "how='median'",
        got,
        "ValueError",
        "What is neither sum nor mean raises ValueError.",
    )


# ---- whom to listen to ----


@chapter.exercise(
    "A softmax for each node, over the edges that arrive at it: exp of each score, over "
    "the sum of those with the same target.",
    "Sum with index_add_ as before, and bring the sums back to the edges: total[target_E]. "
    "First subtract each target's largest score (scatter_reduce with 'amax').",
    "N = int(target_E.max()) + 1; top = torch.full((N,), -torch.inf).scatter_reduce(0, "
    "target_E, score_E, 'amax'); e = (score_E - top[target_E]).exp(); total = "
    "torch.zeros(N).index_add_(0, target_E, e); return e / total[target_E]",
)
def edge_softmax(answer):
    "Weights of the edges that sum to 1 at each target."
    for case, scores, targets in [
        ("three edges into one node", [1.0, 2.0, 3.0], [0, 0, 0]),
        ("five edges into 0, 1 and 3", [0.5, -1.0, 2.0, 0.0, 1.0], [3, 1, 3, 0, 1]),
        ("one edge per node", [4.0, -4.0], [1, 0]),
        ("scores near 1000", [1000.0, 1001.0, 0.0], [0, 0, 1]),
        ("scores near 1000 here and near -1000 there", [1000.0, 999.0, -1000.0, -1001.0],
         [1, 1, 0, 0]),
    ]:  # fmt: skip
        score_E, target_E = torch.tensor(scores), torch.tensor(targets)
        got_E = answer(score_E, target_E)
        want_E = torch.zeros_like(score_E)
        for node in set(targets):
            want_E[target_E == node] = score_E[target_E == node].softmax(0)
        same(f"{case}: the weights", got_E, want_E,
             "At each target: exp(score) over the sum of the exp at the same target.", **SINGLE)  # fmt: skip
    score_E = torch.tensor([0.5, -1.0, 2.0]).requires_grad_()
    weight_E = answer(score_E, torch.tensor([1, 0, 1]))
    if weight_E.requires_grad:
        weight_E[0].backward()
    p = torch.sigmoid(torch.tensor(-1.5))
    grad_E = torch.zeros(3) if score_E.grad is None else score_E.grad
    same("the gradient of the first weight", grad_E, [p * (1 - p), 0.0, -p * (1 - p)],
         "The way must stay open for gradients, within a target and not across.",
         atol=1e-6, rtol=1e-4)  # fmt: skip
