"""A simulated consumer group: eager rebalances, sticky by partition number, committed offsets guarded by generations.

Topics of a worker's tables have the same number of partitions, so partition numbers are handed out, each for all topics.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tests.simulation.cluster import Cluster, Place

if TYPE_CHECKING:
    from tests.simulation.worker import Life

SESSION_TIMEOUT_S = 0.6
REBALANCE_TIMEOUT_S = 3.0


class Group:
    """The coordinator.

    Args:
        topics: all topics that are consumed; known by the time the first member joins.
        on_commit: told of each commit that is accepted, before it counts.
    """

    def __init__(
        self,
        cluster: Cluster,
        partitions: int,
        topics: Callable[[], list[str]],
        on_commit: Callable[[Place, int, str], None],
    ) -> None:
        self.cluster, self.world, self.partitions = cluster, cluster.world, partitions
        self.generation = 0
        self.members: list[Life] = []
        self.owners: dict[int, Life] = {}
        self.stable = True
        self._topics = topics
        self._on_commit = on_commit
        self._joined: list[Life] = []
        self._round = 0

    # --- membership --------------------------------------------------------------------------------------------------

    def join(self, life: "Life") -> None:
        """A new member; everybody joins again."""
        self.joined(life)

    def leave(self, life: "Life") -> None:
        """A member that says good-bye."""
        if life in self.members:
            self._remove(life)

    def heartbeat(self, life: "Life") -> str:
        """A member says that it is there; answers `ok`, `rebalancing` or `unknown`."""
        if life not in self.members:
            return "unknown"
        self._heard(life)
        return "ok" if self.stable or life in self._joined else "rebalancing"

    def _heard(self, life: "Life") -> None:
        life.heard_s = self.world.now
        self.world.after(SESSION_TIMEOUT_S, self._expire, life)

    def _expire(self, life: "Life") -> None:
        """A member was silent for the session time-out; one that waits to be assigned something need not speak."""
        waits = not self.stable and life in self._joined and life.process.alive
        if life in self.members and not waits and self.world.now >= life.heard_s + SESSION_TIMEOUT_S:
            self._remove(life)

    def _remove(self, life: "Life") -> None:
        self.members.remove(life)
        self.world.note("left", life.process.name)
        if life in self._joined:
            self._joined.remove(life)
        if self.stable:
            self.rebalance()
        else:
            self._complete_if_all()

    # --- rebalancing -------------------------------------------------------------------------------------------------

    def rebalance(self) -> None:
        """Ask every member to join again."""
        if not self.stable:
            return
        self.stable = False
        self._joined = []
        self._round += 1
        self.world.note("rebalance", self._round)
        for life in self.members:
            self.world.after(self.world.latency(0.02), self._tell, life, self._round)
        self.world.after(REBALANCE_TIMEOUT_S, self._complete, self._round)

    def _tell(self, life: "Life", number: int) -> None:
        if number == self._round and not self.stable and life not in self._joined:
            life.rejoin()

    def joined(self, life: "Life") -> None:
        """A member has let go of what it had, and waits for what it gets."""
        if life not in self.members:
            self.members.append(life)
            self.rebalance()
        if self.stable:
            self.rebalance()
        self._heard(life)
        if life not in self._joined:
            self._joined.append(life)
        self._complete_if_all()

    def _complete_if_all(self) -> None:
        if not self.stable and all(life in self._joined for life in self.members):
            self._complete(self._round)

    def _complete(self, number: int) -> None:
        if self.stable or number != self._round:
            return
        for life in [life for life in self.members if life not in self._joined]:
            self.members.remove(life)
            self.world.note("left", life.process.name)
        self.stable = True
        self.generation += 1
        for life in self.members:
            self._heard(life)
        if not self.members:
            self.owners = {}
            return
        kept = {p: life for p, life in self.owners.items() if life in self.members}
        if self.world.chance(0.3):
            kept = {}  # sticky is not a promise
        fair = -(-self.partitions // len(self.members))
        held: dict[int, list[int]] = {id(life): [] for life in self.members}
        free = []
        for partition in range(self.partitions):
            owner = kept.get(partition)
            if owner is not None and len(held[id(owner)]) < fair:
                held[id(owner)].append(partition)
            else:
                free.append(partition)
        order = self.world.random.sample(self.members, len(self.members))
        for partition in free:
            held[id(min(order, key=lambda life: len(held[id(life)])))].append(partition)
        self.owners = {partition: life for life in self.members for partition in held[id(life)]}
        self.world.note("generation", self.generation, [(p, life.process.name) for p, life in self.owners.items()])
        for life in self.members:
            places = {(topic, partition) for topic in self._topics() for partition in held[id(life)]}
            # a lease runs from the sending of the request; the coordinator's own begins as late as now
            sent_ms = self.world.monotonic_ms()
            self.world.after(self.world.latency(0.005), self._assign, life, self.generation, places, sent_ms)

    def _assign(self, life: "Life", generation: int, places: set[Place], sent_ms: int) -> None:
        """The answer arrives, unless the member has joined the next round meanwhile."""
        if generation == self.generation and (self.stable or life not in self._joined):
            life.assigned(generation, places, sent_ms)

    def owes(self, life: "Life") -> bool:
        """Whether a member has not got the present assignment yet."""
        return life in self.members and life.generation != self.generation

    # --- offsets -----------------------------------------------------------------------------------------------------

    def commit(self, life: "Life", commits: Mapping[Place, tuple[int, str]]) -> bool:
        """Take a member's offsets, if it is one of the present generation (or of the one that is being let go)."""
        if not life.process.alive or life not in self.members or life.generation != self.generation:
            return False
        if not life.process.before_effect():
            return False
        for place, (offset, told) in sorted(commits.items()):
            self._on_commit(place, offset, told)
            self.cluster.committed[place], self.cluster.told[place] = offset, told
            self.world.note("commit", place, offset)
        life.process.after_effect()
        return True
