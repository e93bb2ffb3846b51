"""Graphs of chapter 08: the data that ships, the script that makes it, attention on edges."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from utils.built import graph
from utils.data import graphs, import_graph

FILES = {
    "__init__.py": "import toy.first.one\n",
    "first/__init__.py": "from .one import loss_fn\nfrom . import two\n",
    "first/one.py": "import os\nfrom ..second import deep\nfrom toy.second.deep import X\n",
    "first/two.py": "def makeLossFn(batch_size):\n    return batch_size.loss_fn\n",
    "second/__init__.py": "",
    "second/deep.py": "import toy.first.two as t, toy.second\nX = t.loss\n",
    "second/tests/test_deep.py": "import toy.second.deep\n",
    "second/template.py": "def {{ broken\n",
}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    "A package of two sub-packages on the path."
    for name, source in FILES.items():
        path = tmp_path / "toy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    return "toy"


def test_imports_lead_to_the_most_precise_file(toy):
    _, edges = import_graph.read(toy)
    assert edges == {
        ("toy", "toy.first.one"),
        ("toy.first", "toy.first.one"),
        ("toy.first", "toy.first.two"),
        ("toy.first.one", "toy.second.deep"),
        ("toy.second.deep", "toy.first.two"),
        ("toy.second.deep", "toy.second"),
    }


def test_words_are_names_taken_apart_and_no_import_line(toy):
    words, _ = import_graph.read(toy)
    assert words["toy.first.two"] == {"make": 1, "loss": 2, "batch": 2, "size": 2}
    assert not words["toy.first"] and "toy.second.template" not in words
    assert import_graph.parts("to_CSRTensor2d") == ["csr", "tensor"]


def test_a_graph_of_any_package_has_its_folders_as_classes(toy):
    made = graphs.imports_of(toy)
    assert made.classes == ["first", "second"] and made.source == "toy "
    assert made.names[0] == "toy.first" and made.y_N.tolist() == [0, 0, 0, 1, 1]
    assert made.edges_E2.tolist() == [[0, 1], [0, 2], [1, 4], [4, 2], [4, 3]]


def test_a_graph_is_read_as_it_was_written(toy, tmp_path):
    for made in (
        graphs.torch_imports(),
        graphs.imports_of(toy),
    ):  # the second: no words
        import_graph.save(made, tmp_path / "graph.npz")
        read = import_graph.load(tmp_path / "graph.npz")
        for ours, theirs in zip(made, read):
            np.testing.assert_array_equal(ours, theirs)


def test_the_script_says_what_it_made(toy, tmp_path, capsys):
    import_graph.main(toy, tmp_path / "made.npz")
    assert "toy : 5 files, 5 imports, 0 words" in capsys.readouterr().out
    assert (tmp_path / "made.npz").exists()


def test_the_shipped_graph_is_small_and_whole():
    path = import_graph.Path(graphs.__file__).with_name("torch_imports.npz")
    assert path.stat().st_size < 300_000
    files = graphs.torch_imports()
    N = len(files.names)
    assert (N, len(files.edges_E2), len(files.words)) == (1655, 7075, 1000)
    assert files.source == "torch 2.13.0" and files.counts_NV.shape == (N, 1000)
    assert files.edges_E2.min() >= 0 and files.edges_E2.max() < N
    assert len(np.unique(files.edges_E2, axis=0)) == 7075
    assert (files.edges_E2[:, 0] != files.edges_E2[:, 1]).all()
    homes = [name.split(".")[1] for name in files.names]
    assert [files.classes[c] for c in files.y_N] == homes
    files.counts_NV[:] = 0  # a copy: the next reader has the counts
    assert graphs.torch_imports().counts_NV.sum() > 100_000


def test_the_club_is_the_one_of_the_paper():
    club = graphs.karate()
    assert club.edges_E2.shape == (78, 2) and club.meetings_E.sum() == 231
    assert np.bincount(club.side_N).tolist() == [17, 17]
    assert (club.side_N[0], club.side_N[33], club.side_N[8]) == (0, 1, 0)
    degree = np.bincount(club.edges_E2.ravel())
    assert (degree[0], degree[33], degree[8]) == (16, 17, 5)


def test_messages_are_the_matrix():
    edges_E2 = torch.tensor([[0, 1], [1, 0], [1, 2], [4, 3]])
    A_hat_NN = graph.normalise(graph.adjacency(edges_E2, 6))
    torch.testing.assert_close(
        graph.propagate(*graph.messages(edges_E2, 6), torch.eye(6)), A_hat_NN
    )


@pytest.mark.parametrize("causal", [False, True])
def test_edge_attention_on_a_complete_graph_is_attention(causal):
    q_ND, k_ND, v_ND = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0))
    q_ND = q_ND.requires_grad_()
    edges_E2 = torch.cartesian_prod(torch.arange(7), torch.arange(7))
    if causal:
        edges_E2 = edges_E2[edges_E2[:, 0] <= edges_E2[:, 1]]
    edges_E2 = edges_E2[torch.randperm(len(edges_E2))]  # their order does not count
    ours = graph.edge_attention(edges_E2, q_ND, k_ND, v_ND)
    theirs = F.scaled_dot_product_attention(
        q_ND[None], k_ND[None], v_ND[None], is_causal=causal
    )[0]
    torch.testing.assert_close(ours, theirs)
    slope, other = (
        torch.autograd.grad(x.square().sum(), q_ND)[0] for x in (ours, theirs)
    )
    torch.testing.assert_close(slope, other)


def test_a_softmax_over_no_edges_is_empty():
    assert graph.edge_softmax(
        torch.zeros(0), torch.zeros(0, dtype=torch.long)
    ).shape == (0,)
