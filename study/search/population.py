"""The population of one cell: which member trains next, whom it copies, and which checkpoints are still needed.

Link number n is member n mod P in interval n div P. Everything follows from the links that have started and ended, so
a resumed study feeds it the rows, and decides what an uninterrupted one would have decided.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from study.identity import derive_seed
from study.search.cma import from_unit_cube, select_numeric_domains, to_unit_cube
from study.search.population_based import PopulationBased
from study.space.params import Params
from study.trial import Direction, Link, TrialState


@dataclass
class LinkProgress:
    """A link that has started."""

    link: Link
    params: Params
    trial_id: str = ""
    """Set when it has ended."""
    state: TrialState | None = None
    """None until it has ended."""
    score: float | None = None
    """The selection metric after its last epoch, if it is complete."""
    has_epoch: bool = False
    """It has trained an epoch, and so has a checkpoint of its own."""


class Population:
    """All links of a cell's chains, by number; `seed` decides all draws, `epochs` is the length of a run.

    With a `lag`, link n waits for the end of the links 0 … n − lag and of its whole previous interval, so that no
    decision depends on which link ends first.
    """

    def __init__(
        self,
        settings: PopulationBased,
        space: object,
        direction: Direction,
        trials: int,
        epochs: int,
        seed: int,
        lag: int | None = None,
    ):
        self._settings, self._direction, self._epochs, self._seed, self._lag = settings, direction, epochs, seed, lag
        self._domains = select_numeric_domains(space)
        self.members, self.intervals = settings.count_members(trials), settings.count_intervals(epochs)
        self.links: dict[int, LinkProgress] = {}
        self._numbers: dict[str, int] = {}
        """Numbers of ended links by trial id."""
        self._children: dict[str, list[int]] = {}
        """Numbers of the links that continue a link, by its trial id."""
        self._next = list(range(self.members))
        """No link of a member with a lower number is left to start."""
        self._running: set[int] = set()
        self._kept: set[int] = set()
        """Ended links whose checkpoint was still needed at the last look."""
        self._ended_below = 0

    # -- who trains next -------------------------------------------------------------------------------------------

    def find_next(self) -> int | None:
        """Return the lowest number of a link that can start now; None if all wait for running ones, or have started."""
        numbers = (self._find_next_of(member) for member in range(self.members))
        return min((number for number in numbers if number is not None), default=None)

    @property
    def done(self) -> bool:
        """No link is running, and none can start."""
        return not self._running and self.find_next() is None

    def _find_next_of(self, member: int) -> int | None:
        while self._next[member] in self.links:
            self._next[member] += self.members
        number = self._next[member]
        return number if number < self.members * self.intervals and self._is_decidable(number) else None

    def _is_decidable(self, number: int) -> bool:
        if self._lag is not None:
            first_of_interval = number - number % self.members
            if self._count_ended_below() < max(first_of_interval, number - self._lag + 1):
                return False
        if number < self.members:
            return True
        own = self.links.get(number - self.members)
        if own is None or own.state is None:
            return False
        return own.state is TrialState.COMPLETE or bool(self._rank_interval(number // self.members - 1))

    def _count_ended_below(self) -> int:
        """Return the number below which all links have ended."""
        while self._ended_below in self.links and self.links[self._ended_below].state:
            self._ended_below += 1
        return self._ended_below

    def _rank_interval(self, interval: int) -> list[int]:
        """Return the complete links of an interval, the best first, the lowest number among equals."""
        scores = {n: self.links[n].score for n in self._list_interval(interval) if n in self.links}
        sign = -1.0 if self._direction == "max" else 1.0
        return sorted((n for n in scores if scores[n] is not None), key=lambda n: (sign * (scores[n] or 0.0), n))

    def _list_interval(self, interval: int) -> range:
        return range(interval * self.members, (interval + 1) * self.members)

    # -- whom it copies --------------------------------------------------------------------------------------------

    def decide(self, number: int) -> tuple[Params | None, Link]:
        """Return parameters and place of link `number`; no parameters for a first link, which is drawn elsewhere."""
        interval, member = divmod(number, self.members)
        start = interval * self._settings.interval_epochs
        end = min(start + self._settings.interval_epochs, self._epochs)
        if interval == 0:
            return None, Link(member, start, end, "")
        rng = random.Random(derive_seed(self._seed, number))
        own, ranked = number - self.members, self._rank_interval(interval - 1)
        # of a small population the worst one, but only once all have got there: the second to arrive would often be it
        count = max(int(len(ranked) * self._settings.quantile), len(ranked) == self.members > 1)
        is_strong = own in ranked and ranked.index(own) < len(ranked) - count
        parent = own if is_strong else rng.choice(ranked[: max(1, count)])
        params = self.links[parent].params
        return (
            params if parent == own else self._explore(params, rng),
            Link(member, start, end, self.links[parent].trial_id),
        )

    def _explore(self, params: Params, rng: random.Random) -> Params:
        """Return parameters near those of a copied member, or drawn again from their domains."""
        shares = to_unit_cube(self._domains, params)
        for index in range(len(shares)):
            if rng.random() < self._settings.resample:
                shares[index] = rng.random()
            else:
                shares[index] += rng.choice((-1, 1)) * self._settings.perturb
        return from_unit_cube(self._domains, shares.clip(0.0, 1.0))

    # -- its progress ----------------------------------------------------------------------------------------------

    def start(self, number: int, params: Params, link: Link) -> None:
        self.links[number] = LinkProgress(link, params)
        self._running.add(number)
        if link.parent:
            self._children.setdefault(link.parent, []).append(number)

    def note_epoch(self, number: int) -> None:
        self.links[number].has_epoch = True

    def end(self, number: int, trial_id: str, state: TrialState, score: float | None) -> None:
        one = self.links[number]
        one.trial_id, one.state, one.score = trial_id, state, score
        self._numbers[trial_id] = number
        self._running.discard(number)
        self._kept.add(number)

    @property
    def best_number(self) -> int | None:
        """The number of the complete link of the last interval with the best score, the lowest among equals."""
        return next(iter(self._rank_interval(self.intervals - 1)), None)

    def find_last_interval(self) -> int:
        """Return the last interval, from 0, in which a link has started."""
        return max(self.links, default=0) // self.members

    def list_started(self, interval: int) -> list[int]:
        """Return the numbers of an interval's links that have started."""
        return [number for number in self._list_interval(interval) if number in self.links]

    def list_chain(self, number: int) -> list[int]:
        """Return the numbers of a link and of those it descends from, the first link first."""
        chain = [number]
        while parent := self.links[chain[0]].link.parent:
            chain.insert(0, self._numbers[parent])
        return chain

    def build_schedule(self, number: int) -> dict[str, float | list[float]]:
        """Return each setting of a link's chain: its values, each for an equal share of the run, or its only value."""
        chain = [self.links[link].params for link in self.list_chain(number)]
        found: dict[str, float | list[float]] = {}
        for name in self._domains:
            values = [float(params[name]) for params in chain]  # type: ignore[arg-type]
            constant = len(set(values)) == 1
            found[name] = values[0] if constant else self._settings.spread_values(values, self._epochs)
        return found

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def release_checkpoints(self) -> Sequence[LinkProgress]:
        """Return the ended links whose checkpoint has become dispensable since the last call."""
        free = sorted(self._kept)
        if not self.done or self.best_number is None:
            copyable = self._list_copyable()
            free = [number for number in free if number not in copyable and not self._is_needed(number)]
        self._kept.difference_update(free)
        return [self.links[number] for number in free]

    def _list_copyable(self) -> set[int]:
        """Return the best links of each interval that some member has not passed yet, and so may copy one of them."""
        found = set[int]()
        for interval in {number // self.members for number in self._kept} - {self.intervals - 1}:
            if any(number not in self.links for number in self._list_interval(interval + 1)):
                found.update(self._rank_interval(interval)[: self._settings.count_strong(self.members)])
        return found

    def _is_needed(self, number: int) -> bool:
        """Return whether a link's own member continues it, its children copy it, or it may be tried again."""
        one, has_successor = self.links[number], number + self.members in self.links
        if one.state is TrialState.FAILED:
            return not has_successor
        if number // self.members == self.intervals - 1:
            return False
        return not has_successor or any(map(self._needs_parent, self._children.get(one.trial_id, ())))

    def _needs_parent(self, number: int) -> bool:
        """Return whether a link may have to be copied from its parent still, or again."""
        one = self.links[number]
        if number + self.members in self.links or one.state is TrialState.COMPLETE:
            return False
        return one.state is TrialState.FAILED or not one.has_epoch
