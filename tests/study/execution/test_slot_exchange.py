"""Orders and reports between a slot and its workers, in one event loop and without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from study.execution.slot_exchange import END, RENEW, Order, SlotExchange

CONFIG = {"trial": "{}", "epochs_done": 0}
DONE: dict[str, Any] = {"failure": "", "halt": "", "rows": [1]}
FAILED: dict[str, Any] = {"failure": "ValueError: planted", "halt": "", "rows": []}


async def train_once(exchange: SlotExchange, group: str, rank: int, report: dict[str, Any], done: int = 0) -> int:
    """Join as a worker, carry out one order and return its number."""
    await exchange.join("slot", group, rank, f"{group} {rank}")
    order = await exchange.next_order("slot", group, done)
    assert isinstance(order, Order)
    await exchange.report("slot", group, rank, order.number, report)
    return order.number


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 10))


async def opened() -> SlotExchange:
    exchange = SlotExchange()
    await exchange.open("slot", 2)
    return exchange


async def order(exchange: SlotExchange, group: str) -> list[dict[str, Any]] | None:
    return await exchange.train_epoch("slot", group, CONFIG, first=True, ranks=2)


def test_epoch_ends_when_all_workers_have_reported() -> None:
    async def scenario() -> None:
        exchange = await opened()
        workers = [asyncio.create_task(train_once(exchange, "a", rank, DONE | {"rows": [rank]})) for rank in range(2)]
        assert await exchange.wait_for_group("slot") == ("a", ["a 0", "a 1"])
        reports = await order(exchange, "a")
        assert reports is not None
        assert [report["rows"] for report in reports] == [[0], [1]]
        assert await asyncio.gather(*workers) == [1, 1]

    run(scenario())


def test_failure_of_one_worker_ends_the_epoch_while_the_other_waits_in_vain() -> None:
    async def scenario() -> None:
        exchange = await opened()
        await exchange.join("slot", "a", 0, "busy")
        worker = asyncio.create_task(train_once(exchange, "a", 1, FAILED))
        await exchange.wait_for_group("slot")
        assert await order(exchange, "a") == [FAILED]
        await worker

    run(scenario())


def test_another_group_ends_the_epoch_of_the_one_it_replaces() -> None:
    async def scenario() -> None:
        exchange = await opened()
        for rank in range(2):
            await exchange.join("slot", "a", rank, "")
        epoch = asyncio.create_task(order(exchange, "a"))
        waiting = asyncio.create_task(exchange.next_order("slot", "a", 1))
        await asyncio.sleep(0.01)
        await exchange.join("slot", "b", 1, "b 1")
        assert await epoch is None
        assert await waiting == RENEW
        assert await order(exchange, "a") is None
        await exchange.join("slot", "b", 0, "b 0")
        assert await exchange.wait_for_group("slot") == ("b", ["b 0", "b 1"])

    run(scenario())


def test_worker_of_a_group_that_has_ended_replaces_no_other_and_reports_nothing() -> None:
    async def scenario() -> None:
        exchange = await opened()
        for rank in range(2):
            await exchange.join("slot", "a", rank, "")
        await exchange.renew("slot", "a")
        assert await exchange.next_order("slot", "a", 0) == RENEW
        for rank in range(2):
            await exchange.join("slot", "b", rank, f"b {rank}")
        await exchange.join("slot", "a", 1, "late")
        assert await exchange.wait_for_group("slot") == ("b", ["b 0", "b 1"])
        epoch = asyncio.create_task(order(exchange, "b"))
        await asyncio.sleep(0.01)
        await exchange.report("slot", "a", 0, 1, FAILED)
        assert not epoch.done()
        for rank in range(2):
            await exchange.report("slot", "b", rank, 1, DONE)
        assert await epoch == [DONE, DONE]

    run(scenario())


@pytest.mark.parametrize("joined", [1, 2])
def test_closed_slot_ends_the_workers_that_wait(joined: int) -> None:
    async def scenario() -> None:
        exchange = await opened()
        for rank in range(joined):
            await exchange.join("slot", "a", rank, "")
        waiting = [asyncio.create_task(exchange.next_order("slot", "a", 0)) for _ in range(joined)]
        await asyncio.sleep(0.01)
        await exchange.close("slot")
        assert await asyncio.gather(*waiting) == [END] * joined

    run(scenario())
