"""The cheapest cut between the two ends of a network, by the paths that are still open (Dinic, 1970)."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Hashable


class Network:
    """Vertices with edges between them, each as wide as its capacity.

    >>> pipes = Network()
    >>> for a, b, wide in (("spring", "well", 3), ("spring", "lake", 9), ("well", "town", 5), ("lake", "town", 2)):
    ...     pipes.add(a, b, wide)
    >>> sorted(pipes.above("spring", "town"))  # the cheapest cut: 3 above the well, 2 above the town
    ['lake', 'spring']
    """

    def __init__(self) -> None:
        self._room: dict[Hashable, dict[Hashable, int]] = {}

    def add(self, start: Hashable, end: Hashable, capacity: int) -> None:
        """An edge; one that is there already becomes wider."""
        self._room.setdefault(start, {})
        self._room.setdefault(end, {}).setdefault(start, 0)
        self._room[start][end] = self._room[start].get(end, 0) + capacity

    def above(self, source: Hashable, sink: Hashable) -> set[Hashable]:
        """The vertices that stay with `source` when the edges of the cheapest cut are gone."""
        self._room.setdefault(source, {})
        while sink in (depth := self._depths(source)):
            self._fill(source, sink, depth)
        return set(depth)

    def _depths(self, source: Hashable) -> dict[Hashable, int]:
        """How many edges with room lead from `source` to each vertex that they reach."""
        depth, queue = {source: 0}, deque([source])
        while queue:
            vertex = queue.popleft()
            for end, room in self._room[vertex].items():
                if room and end not in depth:
                    depth[end] = depth[vertex] + 1
                    queue.append(end)
        return depth

    def _fill(self, source: Hashable, sink: Hashable, depth: dict[Hashable, int]) -> None:
        """Fill shortest paths until none has room."""
        ahead = {vertex: iter(list(self._room[vertex])) for vertex in depth}
        path = [source]
        while path:
            vertex = path[-1]
            if vertex == sink:
                edges = list(itertools.pairwise(path))
                flow = min(self._room[a][b] for a, b in edges)
                for a, b in edges:
                    self._room[a][b] -= flow
                    self._room[b][a] += flow
                full = next(i for i, (a, b) in enumerate(edges) if not self._room[a][b])
                del path[full + 1 :]
                continue
            end = next((e for e in ahead[vertex] if self._room[vertex][e] and depth.get(e) == depth[vertex] + 1), None)
            if end is not None:
                path.append(end)
            else:
                path.pop()
