import asyncio
from contextlib import AsyncExitStack

import pytest

from authd.errors import LimitError, NoResponseError
from authd.gossip.lobby import Hush, Lobby, host_key


@pytest.mark.parametrize(
    ("host", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("unix", "unix", True),
        ("unix", "192.0.2.1", False),
    ],
)
def test_a_host_is_an_address_or_a_network_of_its_own(*, host: str, other: str, same: bool) -> None:
    assert (host_key(host) == host_key(other)) == same


async def test_one_host_gets_a_few_places_and_another_still_one() -> None:
    lobby = Lobby(places=8, of_a_host=2)
    async with AsyncExitStack() as held:
        for _ in range(2):
            await held.enter_async_context(lobby.seat("192.0.2.1"))
        with pytest.raises(LimitError):
            await held.enter_async_context(lobby.seat("192.0.2.1"))
        await held.enter_async_context(lobby.seat("192.0.2.2"))
        assert len(lobby) == 3
    assert len(lobby) == 0
    assert lobby.refused == 1
    async with lobby.seat("192.0.2.1"):
        assert len(lobby) == 1


async def test_where_all_places_are_taken_the_greediest_host_loses_its_oldest() -> None:
    lobby = Lobby(places=4, of_a_host=3)
    ended: list[str] = []

    async def stay(host: str, name: str) -> None:
        try:
            async with lobby.seat(host):
                await asyncio.sleep(10)
        except NoResponseError:
            ended.append(name)

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(stay(host, name))
            for host, name in (
                ("192.0.2.9", "modest"),
                ("192.0.2.1", "first"),
                ("192.0.2.1", "second"),
                ("192.0.2.1", "third"),
            )
        ]
        await asyncio.sleep(0)
        async with lobby.seat("192.0.2.5"):
            await asyncio.sleep(0.01)
            assert ended == ["first"]
            assert len(lobby) == 4
        for task in tasks:
            task.cancel()


async def test_an_end_from_outside_is_no_loss_of_a_place() -> None:
    lobby = Lobby()

    async def stay() -> None:
        async with lobby.seat("192.0.2.1"):
            await asyncio.sleep(10)

    task = asyncio.create_task(stay())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(lobby) == 0


def test_a_speaker_gets_a_few_lines_and_all_together_some_more() -> None:
    hush = Hush(now=0.0)
    assert [hush.may_say("a", now=0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert hush.left_out() == 2
    assert hush.left_out() == 0
    said = sum(hush.may_say(f"host {number}", now=0.0) for number in range(3_000))
    assert said == 15
    assert hush.left_out() == 2_985
    assert len(hush._speakers) == 1_024
    assert hush.may_say("b", now=2.0)
    assert hush.total == 3_008
