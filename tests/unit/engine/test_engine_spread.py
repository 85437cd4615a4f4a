"""Partitions over members: balanced, few moves, home to where the state lies."""

import random

import pytest

from streamapp.engine.spread import Claim, Share, spread


def active(shares: dict[str, Share]) -> dict[str, set[int]]:
    return {member: share.active for member, share in shares.items()}


def after(shares: dict[str, Share], *members: str, held: dict[str, dict[int, int]] | None = None) -> dict[str, Claim]:
    """What these members claim in the rebalance after `shares`."""
    owned = {member: frozenset(shares[member].active) if member in shares else frozenset() for member in members}
    return {member: Claim(owned[member], (held or {}).get(member, {})) for member in members}


def moved(before: dict[str, Share], now: dict[str, Share]) -> int:
    """How many partitions have another owner than before."""
    was = {partition: member for member, share in before.items() for partition in share.active}
    return sum(was[partition] != member for member, share in now.items() for partition in share.active)


def check_complete(shares: dict[str, Share], partitions: int, standbys: int = 0) -> None:
    owned = sorted(partition for share in shares.values() for partition in share.active)
    assert owned == list(range(partitions)), "every partition once"
    sizes = [len(share.active) for share in shares.values()]
    assert max(sizes) - min(sizes) <= 1, sizes
    copies = sorted(partition for share in shares.values() for partition in share.standby)
    assert copies == sorted(list(range(partitions)) * min(standbys, len(shares) - 1))
    assert all(share.active.isdisjoint(share.standby) for share in shares.values()), "no copy of one's own"


def test_one_member_gets_everything() -> None:
    assert active(spread(4, {"a": Claim()})) == {"a": {0, 1, 2, 3}}


def test_nothing_moves_when_nothing_changes() -> None:
    first = spread(7, dict.fromkeys("abc", Claim()))
    check_complete(first, 7)
    assert active(spread(7, after(first, "a", "b", "c"))) == active(first)


@pytest.mark.parametrize("partitions", [1, 4, 7, 8, 12, 64])
def test_joining_and_leaving_members_move_no_more_than_balance_needs(partitions: int) -> None:
    one = spread(partitions, {"a": Claim()})
    two = spread(partitions, after(one, "a", "b"))
    check_complete(two, partitions)
    assert moved(one, two) == partitions // 2
    four = spread(partitions, after(two, "a", "b", "c", "d"))
    check_complete(four, partitions)
    sizes = {member: len(share.active) for member, share in two.items()}
    kept = sum(min(sizes[member], len(four[member].active)) for member in "ab")
    assert moved(two, four) == partitions - kept
    # the three that leave give what they had, and nothing else moves
    last = spread(partitions, after(four, "a"))
    check_complete(last, partitions)
    assert moved(four, last) == partitions - len(four["a"].active)


def test_returning_member_gets_back_what_lies_on_its_disk() -> None:
    before = spread(8, dict.fromkeys("ab", Claim()))
    alone = spread(8, after(before, "a"))
    held = {"b": dict.fromkeys(before["b"].active, 1_000), "a": dict.fromkeys(range(8), 2_000)}
    again = spread(8, after(alone, "a", "c", held={"a": held["a"], "c": held["b"]}))
    assert again["c"].active == before["b"].active


def test_state_that_was_written_last_decides_between_two_disks() -> None:
    shares = spread(2, {"a": Claim(held={0: 10, 1: 30}), "b": Claim(held={0: 20, 1: 20})})
    assert active(shares) == {"a": {1}, "b": {0}}


def test_partition_that_two_claim_stays_with_the_fresher_state() -> None:
    """A member that missed a rebalance still claims what another has got."""
    stale, owner = Claim(frozenset({0, 1}), {0: 5, 1: 5}), Claim(frozenset({0, 1}), {0: 9, 1: 9})
    shares = spread(2, {"a": stale, "b": owner, "c": Claim()})
    check_complete(shares, 2)
    assert len(shares["a"].active) + len(shares["c"].active) == 1
    assert shares["b"].active


def test_larger_shares_of_several_topics_do_not_all_go_to_the_same() -> None:
    load = dict.fromkeys("ab", 0)
    for _ in range(4):
        for member, share in spread(1, dict.fromkeys("ab", Claim()), load=load).items():
            load[member] += len(share.active)
    assert load == {"a": 2, "b": 2}


def test_standbys_are_elsewhere_balanced_and_stay() -> None:
    first = spread(8, dict.fromkeys("abc", Claim()), standbys=1)
    check_complete(first, 8, standbys=1)
    held = {m: {p: 100 for p in share.active} | {p: 50 for p in share.standby} for m, share in first.items()}
    again = spread(8, after(first, "a", "b", "c", held=held), standbys=1)
    assert {m: s.standby for m, s in again.items()} == {m: s.standby for m, s in first.items()}
    # the owner dies: its copies become owners where there is room
    survivors = spread(8, after(first, "a", "b", held=held), standbys=1)
    check_complete(survivors, 8, standbys=1)
    promoted = [p for p in first["c"].active if any(p in first[m].standby and p in survivors[m].active for m in "ab")]
    assert len(promoted) >= len(first["c"].active) - 1


def test_any_history_ends_balanced_and_complete() -> None:
    chance = random.Random(7)
    for _ in range(300):
        partitions, standbys = chance.randint(1, 20), chance.randint(0, 2)
        members = [f"m{number}" for number in range(chance.randint(1, 6))]
        claims = {
            member: Claim(
                frozenset(p for p in range(partitions) if chance.random() < 0.4),
                {p: chance.randint(1, 99) for p in range(partitions) if chance.random() < 0.5},
            )
            for member in members
        }
        shares = spread(partitions, claims, standbys=standbys)
        check_complete(shares, partitions, standbys)
        chance.shuffle(members)
        assert spread(partitions, {member: claims[member] for member in members}, standbys=standbys) == shares
