"""Orders from slots to their Ray Train workers, and the workers' reports back. Imports nothing of Ray.

Tune's actor of a slot and the workers that Ray Train starts for it know no handles of each other: they meet in one
asynchronous actor of the driver, where all waiting takes place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

END, RENEW = "end", "renew"
"""Instead of an order: the train function returns, or raises so that Ray Train starts new workers."""


@dataclass(frozen=True)
class Order:
    """One epoch of a trial, for all workers of a slot."""

    number: int
    config: Mapping[str, Any]
    """The trial as Tune's config; see `to_config` in study/execution/tune.py."""
    first: bool
    """The workers start this trial; otherwise they continue it."""
    ranks: int
    """Workers that train; the others wait. A preparation runs on one."""


@dataclass
class Slot:
    """One slot's workers and their current order."""

    size: int = 0
    """Workers of the slot."""
    group: str = ""
    """Id of the current group of workers; Ray Train starts another one after each loss."""
    ended_groups: set[str] = field(default_factory=set)
    workers: dict[int, Any] = field(default_factory=dict)
    """Actor handles by rank, of those that have joined."""
    order: Order | None = None
    orders: int = 0
    reports: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Reports on the current order by rank."""
    closed: bool = False

    @property
    def answered(self) -> bool:
        """Return whether all workers have reported, or one a failure: the others may then wait for it for ever."""
        failed = any(report["failure"] or report["halt"] for report in self.reports.values())
        return failed or len(self.reports) == self.size


class SlotExchange:
    """Actor class that connects all slots of a study with their workers."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._slots: dict[str, Slot] = {}

    async def open(self, name: str, size: int) -> None:
        """Create a slot of `size` workers."""
        self._slots[name] = Slot(size)

    async def wait_for_group(self, name: str) -> tuple[str, list[Any]]:
        """Return the id and the actors of the slot's current group, once all of its workers have joined."""
        slot = self._slots[name]
        async with self._changed:
            await self._changed.wait_for(lambda: slot.group and len(slot.workers) == slot.size)
            return slot.group, [slot.workers[rank] for rank in range(slot.size)]

    async def train_epoch(
        self, name: str, group: str, config: Mapping[str, Any], first: bool, ranks: int
    ) -> list[dict[str, Any]] | None:
        """Let the group train an epoch; return reports by rank, or those so far if one failed, failures first.

        Returns None if the group has been replaced.
        """
        slot = self._slots[name]
        async with self._changed:
            if slot.group != group:
                return None
            slot.orders += 1
            slot.order, slot.reports = Order(slot.orders, config, first, ranks), {}
            self._changed.notify_all()
            await self._changed.wait_for(lambda: slot.answered or slot.group != group)
            return [slot.reports[rank] for rank in sorted(slot.reports)] if slot.group == group else None

    async def renew(self, name: str, group: str) -> None:
        """End a group, so that Ray Train starts new workers."""
        async with self._changed:
            self._end_group(self._slots[name], group)
            self._changed.notify_all()

    async def close(self, name: str) -> None:
        """End the slot's train function on all workers."""
        async with self._changed:
            self._slots[name].closed = True
            self._changed.notify_all()

    async def join(self, name: str, group: str, rank: int, worker: Any) -> None:
        """Add a worker that has started to the slot; the first one of another group replaces the present group."""
        slot = self._slots[name]
        async with self._changed:
            if group != slot.group and group not in slot.ended_groups:
                self._end_group(slot, slot.group)
                slot.group = group
            if group == slot.group:
                slot.workers[rank] = worker
            self._changed.notify_all()

    async def next_order(self, name: str, group: str, done: int) -> Order | str:
        """Return the group's order after the one numbered `done`, END or RENEW, once there is one."""
        slot = self._slots[name]
        async with self._changed:
            await self._changed.wait_for(
                lambda: slot.closed or slot.group != group or (slot.order is not None and slot.order.number > done)
            )
            if slot.closed:
                return END
            return slot.order if slot.order is not None and slot.group == group else RENEW

    async def report(self, name: str, group: str, rank: int, number: int, report: dict[str, Any]) -> None:
        """Add a worker's report on the order of this number."""
        slot = self._slots[name]
        async with self._changed:
            if slot.group == group and slot.order is not None and slot.order.number == number:
                slot.reports[rank] = report
            self._changed.notify_all()

    def _end_group(self, slot: Slot, group: str) -> None:
        slot.ended_groups.add(group)
        if slot.group == group:
            slot.group, slot.workers, slot.order = "", {}, None
