"""Graphs that ship with the course or with its packages; nothing is downloaded.

`karate`: 34 members of a club that split. `torch_imports`: 1,655 files of PyTorch and who
imports whom. `imports_of`: the same of any installed package, read in seconds.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.data.import_graph import Graph, imports_of, load

__all__ = ["Club", "Graph", "imports_of", "karate", "torch_imports"]
HERE = Path(__file__).parent


class Club(NamedTuple):
    """A club of N members, E pairs of friends.

    edges_E2: whole numbers, each pair of friends once. meetings_E: in how many places
    the two were seen together. side_N: 0 whoever stayed with the teacher, node 0; 1
    whoever left with the officers, around node 33.
    """

    edges_E2: np.ndarray
    meetings_E: np.ndarray
    side_N: np.ndarray


def karate():
    """Zachary's karate club (1977), from networkx: 34 members, 78 friendships -> Club.

    Node i is the member that the paper calls i + 1.
    """
    import networkx

    club = networkx.karate_club_graph()
    edges = sorted((min(i, j), max(i, j), w) for i, j, w in club.edges(data="weight"))
    rows = np.array(edges, np.int64)
    side = [int(club.nodes[i]["club"] != "Mr. Hi") for i in sorted(club)]
    return Club(rows[:, :2].copy(), rows[:, 2].copy(), np.array(side))


@cache
def _torch_imports():
    return load(HERE / "torch_imports.npz")


def torch_imports():
    """The import graph of PyTorch 2.13.0, its ten largest sub-packages -> Graph.

    Made by `python -m utils.data.import_graph torch utils/data/torch_imports.npz`.
    """
    graph = _torch_imports()
    arrays = {
        key: getattr(graph, key).copy() for key in ("edges_E2", "counts_NV", "y_N")
    }
    return graph._replace(**arrays, names=list(graph.names), words=list(graph.words))
