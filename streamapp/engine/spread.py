"""Which member of a group gets which partitions: balanced, and with as few moves as that allows.

Pure: a function of what the members say they own and hold. Members that have more than their share give some up, the
others keep what they have, and what is free goes first to where its state already lies on a disk.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Claim:
    """What a member brings along.

    Attributes:
        owned: the partitions that it had until now.
        held: partitions whose state lies on its disk, each with when that was last written, in ms; later is better.
    """

    owned: frozenset[int] = frozenset()
    held: Mapping[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Share:
    """What a member gets: the partitions that it owns, and those that it keeps a copy of for another owner."""

    active: set[int] = field(default_factory=set)
    standby: set[int] = field(default_factory=set)


def spread(
    partitions: int, claims: Mapping[str, Claim], *, standbys: int = 0, load: Mapping[str, int] | None = None
) -> dict[str, Share]:
    """Assign partitions 0 to `partitions` - 1.

    Args:
        partitions: how many there are.
        claims: per member; at least one.
        standbys: copies per partition beside its owner; fewer where there are not enough members.
        load: what members have of other topics; where numbers must differ by one, those with less get more.

    Returns:
        Per member its share. Every partition is active once; sizes differ by one at most. The same answer whatever the
        order of the members.
    """
    shares = {member: Share() for member in sorted(claims)}
    _assign_active(partitions, claims, shares, load or {})
    for _ in range(min(standbys, len(claims) - 1)):
        _assign_standby(partitions, claims, shares)
    return shares


def _assign_active(
    partitions: int, claims: Mapping[str, Claim], shares: dict[str, Share], load: Mapping[str, int]
) -> None:
    for partition in range(partitions):
        owners = [member for member in shares if partition in claims[member].owned]
        if owners:  # more than one where a member missed a rebalance: the state on its disk tells who was the last
            owner = max(owners, key=lambda member: claims[member].held.get(partition, 0))
            shares[owner].active.add(partition)
    capacity = _capacities(partitions, shares, load)
    for member, share in shares.items():
        while len(share.active) > capacity[member]:
            share.active.discard(_least_missed(share.active, member, claims, shares, capacity))
    taken = {partition for share in shares.values() for partition in share.active}
    free = [partition for partition in range(partitions) if partition not in taken]
    for only_holders in (True, False):
        for partition in _scarcest_first(free, claims):
            room = [member for member in shares if len(shares[member].active) < capacity[member]]
            if only_holders:
                room = [member for member in room if partition in claims[member].held]
            if room:
                # recent state first, then the emptiest
                chosen = max(room, key=lambda m: (claims[m].held.get(partition, 0), -len(shares[m].active)))
                shares[chosen].active.add(partition)
                free.remove(partition)


def _capacities(partitions: int, shares: Mapping[str, Share], load: Mapping[str, int]) -> dict[str, int]:
    """How many each member may have: the larger shares go to those that have more already, so that less moves."""
    least, larger = divmod(partitions, len(shares))
    order = sorted(shares, key=lambda member: (-len(shares[member].active), load.get(member, 0), member))
    return {member: least + (index < larger) for index, member in enumerate(order)}


def _least_missed(
    owned: Iterable[int],
    member: str,
    claims: Mapping[str, Claim],
    shares: Mapping[str, Share],
    capacity: Mapping[str, int],
) -> int:
    """The partition that a member with too many gives up: one that another with room holds, the most recent first."""

    def held_elsewhere(partition: int) -> int:
        return max(
            (
                claim.held.get(partition, 0)
                for other, claim in claims.items()
                if other != member and len(shares[other].active) < capacity[other]
            ),
            default=0,
        )

    return max(owned, key=lambda partition: (held_elsewhere(partition), partition))


def _scarcest_first(partitions: Iterable[int], claims: Mapping[str, Claim]) -> list[int]:
    """Those with the fewest holders first, so that they still find room there."""
    return sorted(partitions, key=lambda partition: (sum(partition in c.held for c in claims.values()), partition))


def _assign_standby(partitions: int, claims: Mapping[str, Claim], shares: dict[str, Share]) -> None:
    """One more copy of every partition."""
    copies = sum(len(share.standby) for share in shares.values()) + partitions
    limit = -(-copies // len(shares))
    for partition in _scarcest_first(range(partitions), claims):
        able = [
            member
            for member, share in shares.items()
            if partition not in share.active and partition not in share.standby
        ]
        room = [member for member in able if len(shares[member].standby) < limit] or able
        chosen = max(room, key=lambda m: (claims[m].held.get(partition, 0), -len(shares[m].standby), m))
        shares[chosen].standby.add(partition)
