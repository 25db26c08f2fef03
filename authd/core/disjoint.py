"""Vertex-disjoint paths: how many keys would have to be dishonest to give a right.

Locally guarded prefixes ask for k paths that share no key and no crossed domain, the root they
begin in and the subject excluded. To find the most of them among paths of bounded length is hard in
general, so the graph is cut to levels first:

- The *level* of a vertex is the least number of grants from it to the subject, and then the least
  number of domain ids; only links from a level to the next one below stay. Every way through what
  is left has as many grants as its first vertex's level says, so depth and length are questions to
  single links.
- Each vertex has room for one path. From each root entry in turn one path is added, moving
  others aside where that makes room.

What comes out is a set of disjoint paths, so it can never be too many; it is the most there are
whenever a largest set keeps to the levels.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

from authd.core import limits
from authd.core.formation import Chain, Entry, Formation, Link, Path
from authd.core.grants import DomainSubject, Grant, KeySubject, Subject
from authd.core.identity import ID_BYTES, DomainId, PublicKey, key_id
from authd.core.topics import Action, Scope, ScopeEntry, covers
from authd.core.trust import subject_id

Vertex: TypeAlias = bytes
"""A key (32 bytes) or a crossed domain id (16 bytes)."""
_Side: TypeAlias = tuple[Vertex, bool]
"""A vertex as seen from above, or (True) from below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which right is to be proven, and what a path must be for this CONNECT.

    Attributes:
        topic_filter: Every link of a path must cover it, for all the actions.
        actions: Not empty.
        admits: Says whether a grant may be on a path; told whether it is the last one.
        holds: Says whether a whole path counts.
    """

    topic_filter: str
    actions: Action
    admits: Callable[[Grant, bool], bool]
    holds: Callable[[Path], bool]

    @property
    def scope(self) -> Scope:
        """The right, as a scope."""
        return (ScopeEntry(self.topic_filter, self.actions),)

    def within(self, scope: Scope) -> bool:
        """Say whether a scope gives the right by one entry."""
        return any(
            self.actions in entry.actions and covers(entry.topic_filter, self.topic_filter)
            for entry in scope
        )


def disjoint_paths(
    formation: Formation,
    chains: Iterable[Chain],
    subject: KeySubject,
    question: Question,
    *,
    wanted: int,
) -> tuple[Path, ...]:
    """Find vertex-disjoint paths that each give a right.

    Args:
        formation: What counts now.
        chains: Where to look: chains to the key; only their grants are used.
        subject: Whose paths they are.
        question: The right.
        wanted: Where to stop.

    Returns:
        At most ``wanted`` paths; no two share a key but the subject, or a crossed domain.
    """
    graph = _LevelGraph(formation=formation, subject=subject, question=question)
    graph.build(_grants_of(chains))
    flow = _Flow(graph=graph)
    for start in graph.starts:
        if len(flow.paths) >= wanted:
            break
        flow.add(start)
    return flow.paths


def _grants_of(chains: Iterable[Chain]) -> dict[bytes, tuple[Grant, ...]]:
    found: dict[bytes, dict[Grant, None]] = {}
    for chain in chains:
        for link in chain:
            if isinstance(link, Grant):
                found.setdefault(subject_id(link.subject), {})[link] = None
    return {subject: tuple(grants) for subject, grants in found.items()}


@dataclass(slots=True, kw_only=True)
class _LevelGraph:
    """Links from one level to the next below, each of which gives the right.

    Attributes:
        places: By vertex, its level and the domain ids from it to the subject.
        below: By vertex, the links to vertices one step below.
        starts: Root entries where a path may begin.
    """

    formation: Formation
    subject: KeySubject
    question: Question
    places: dict[Vertex, tuple[int, int]] = field(default_factory=dict)
    below: dict[Vertex, dict[Vertex, Link]] = field(default_factory=dict)
    starts: list[Entry] = field(default_factory=list)

    @property
    def key(self) -> PublicKey:
        """The vertex at the bottom."""
        return self.subject.key

    def build(self, grants_to: dict[bytes, tuple[Grant, ...]]) -> None:
        """Add level after level, at most ``limits.MAX_PATH_GRANTS``."""
        self.places[self.key] = (0, 0)
        steps_left = limits.MAX_GUARD_STEPS
        for level in range(limits.MAX_PATH_GRANTS):
            for vertex in self._at(level):
                for grant in grants_to.get(_id_of(vertex), ()):
                    if steps_left <= 0:
                        return
                    steps_left -= 1
                    if self._gives(grant, vertex, level):
                        place = (level + 1, self.places[vertex][1])
                        self._join(grant.issuer, vertex, grant, place)
            for vertex in self._at(level + 1):
                self._enter(PublicKey(vertex))

    def _at(self, level: int) -> list[Vertex]:
        found = [vertex for vertex, (at, _) in self.places.items() if at == level]
        return sorted(found, key=lambda vertex: self.places[vertex][1])

    def _gives(self, grant: Grant, vertex: Vertex, level: int) -> bool:
        subject: Subject = self.subject
        if level:
            above_key = KeySubject(PublicKey(vertex))
            is_domain = len(vertex) == ID_BYTES
            subject = DomainSubject(DomainId(vertex)) if is_domain else above_key
        return (
            grant.depth >= level
            and self.question.within(grant.scope)
            and self.question.admits(grant, level == 0)
            and self.formation.counts(grant, subject)
        )

    def _join(self, upper: Vertex, lower: Vertex, link: Link, place: tuple[int, int]) -> None:
        if self.places.setdefault(upper, place) == place:
            self.below.setdefault(upper, {}).setdefault(lower, link)

    def _enter(self, key: PublicKey) -> None:
        """Look at the root entries of a key: paths begin there, or come from a domain."""
        level, crossed = self.places[key]
        policy = self.formation.policy
        for root, authority in self.formation.state.authorities_with(key):
            entry = Entry(root, authority)
            if (
                authority.depth < level
                or not self.question.within(authority.scope)
                or not self.formation.entry_counts(root, authority)
            ):
                continue
            listed = policy.domains.get(root.domain)
            if listed and crossed <= listed.hops and self.question.within(listed.scope):
                self.starts.append(entry)
            self._join(root.domain, key, entry, (level, crossed + 1))


def _id_of(vertex: Vertex) -> bytes:
    return vertex if len(vertex) == ID_BYTES else key_id(PublicKey(vertex))


@dataclass(slots=True, kw_only=True)
class _Flow:
    """Disjoint ways from root entries down to the subject.

    Attributes:
        begun: By key, the entry a way begins with.
        down: By vertex on a way, the next one.
        paths: The ways as paths.
    """

    graph: _LevelGraph
    begun: dict[Vertex, Entry] = field(default_factory=dict)
    down: dict[Vertex, Vertex] = field(default_factory=dict)
    paths: tuple[Path, ...] = ()

    def add(self, start: Entry) -> None:
        """Add a way from a root entry if there is room for one more and all are paths then."""
        if start.authority.key in self.begun:
            return
        trail = self._trail(start.authority.key, self._barred(start))
        if not trail:
            return
        before = self.begun, self.down
        self._move(start, trail)
        paths = tuple(self._paths())
        if len(paths) == len(self.begun):
            self.paths = paths
        else:
            # Something about a whole path, such as a revoker's word, is against one of them.
            self.begun, self.down = before

    def _barred(self, start: Entry) -> frozenset[Vertex]:
        """Return the vertices that no path from this entry may pass."""
        state = self.graph.formation.state
        return frozenset(
            vertex
            for vertex in self.graph.places
            if vertex in state.root_keys_of(start.root.domain)
            or state.revoker_revocation(PublicKey(vertex), start.authority) is not None
        )

    def _trail(self, start: Vertex, barred: frozenset[Vertex]) -> list[_Side]:
        """Find a way to the subject through what is free, or by moving others aside."""
        came: dict[_Side, _Side | None] = {(start, False): None}
        waiting = deque(came)
        while waiting:
            side = waiting.popleft()
            for following in self._onward(*side):
                if following in came or following[0] in barred:
                    continue
                came[following] = side
                if following[0] == self.graph.key:
                    return _back(came, following)
                waiting.append(following)
        return []

    def _onward(self, vertex: Vertex, below: bool) -> Iterator[_Side]:  # noqa: FBT001 - half of a pair
        taken = vertex in self.down
        if below:
            for lower in self.graph.below.get(vertex, ()):
                if self.down.get(vertex) != lower:
                    yield lower, False
            if taken:
                yield vertex, False
        elif not taken:
            yield vertex, True
        else:
            upper = next((one for one, lower in self.down.items() if lower == vertex), None)
            if upper is not None:
                yield upper, True

    def _move(self, start: Entry, trail: list[_Side]) -> None:
        ways = set(self.down.items())
        for (first, first_below), (second, second_below) in pairwise(trail):
            if first == second:
                continue
            if first_below and not second_below:
                ways.add((first, second))
            else:
                ways.discard((second, first))
        self.down = dict(ways)
        self.begun = {**self.begun, start.authority.key: start}

    def _paths(self) -> Iterator[Path]:
        for vertex, entry in self.begun.items():
            chain: Chain = (entry,)
            at = vertex
            while at != self.graph.key:
                chain = (*chain, self.graph.below[at][self.down[at]])
                at = self.down[at]
            question = self.graph.question
            path = self.graph.formation.path_of(chain, self.graph.key, question.scope)
            if path is not None and question.holds(path):
                yield path


def _back(came: dict[_Side, _Side | None], end: _Side) -> list[_Side]:
    trail = [end]
    while (side := came[trail[-1]]) is not None:
        trail.append(side)
    return trail[::-1]
