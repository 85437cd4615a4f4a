"""At most one of those who ask goes on in each turn of the event loop."""

import asyncio

from streamapp.engine.turns import Turns


async def taken(turns: Turns, done: list[str], name: str, times: int = 1) -> None:
    for _ in range(times):
        await turns.next()
        done.append(name)


async def in_each_turn(done: list[str], tasks: list["asyncio.Task[None]"], most: int) -> list[list[str]]:
    """What is done in each turn of the loop until all tasks have ended."""
    found: list[list[str]] = []
    for _ in range(most):
        seen = len(done)
        await asyncio.sleep(0)
        found.append(done[seen:])
        if all(task.done() for task in tasks):
            return found
    raise AssertionError(f"expected all to be done within {most} turns, got {found}")


async def test_who_asks_alone_goes_on_at_once() -> None:
    done: list[str] = []
    await asyncio.wait_for(taken(Turns(), done, "a"), 1)
    assert done == ["a"]


async def test_those_who_ask_together_go_on_in_turns_of_their_own_in_the_order_of_asking() -> None:
    turns, done = Turns(), list[str]()
    tasks = [asyncio.create_task(taken(turns, done, name, 3)) for name in "abcd"]
    await turns.next()  # this turn is taken when they begin, so all of them have to wait
    found = await in_each_turn(done, tasks, 100)
    assert max(map(len, found)) == 1
    assert done == list("abcd" * 3)


async def test_sockets_are_looked_at_between_any_two() -> None:
    """A callback that becomes ready meanwhile is not behind all who were ready before it."""
    turns, done = Turns(), list[str]()

    async def first() -> None:
        await turns.next()
        done.append("first")
        asyncio.get_running_loop().call_soon(done.append, "reader")

    tasks = [asyncio.create_task(first()), *(asyncio.create_task(taken(turns, done, name)) for name in "bc")]
    await asyncio.gather(*tasks)
    assert done == ["first", "reader", "b", "c"]


async def test_who_gives_up_waiting_is_passed_over() -> None:
    turns, done = Turns(), list[str]()
    tasks = [asyncio.create_task(taken(turns, done, name)) for name in "abc"]
    await asyncio.sleep(0)  # all have asked
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert done == ["a", "c"]
    await asyncio.wait_for(taken(turns, done, "d"), 1)
