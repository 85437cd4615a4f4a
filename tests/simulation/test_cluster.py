"""The simulated Kafka takes no liberty that a real one does not take."""

from streamapp.state.entry import data_key
from streamapp.state.epochs import EPOCH_KEY, epoch_bytes
from tests.simulation.cluster import Partition

A, B = data_key("a", 0), data_key("b", 0)


def changelog(*records: tuple[bytes, int]) -> Partition:
    """One value per (key, epoch of its owner)."""
    log = Partition()
    for key, epoch in records:
        log.append(key, b"value" + epoch_bytes(epoch), 0, ())
    return log


def test_compaction_is_free_while_owners_follow_each_other() -> None:
    assert changelog((EPOCH_KEY, 1), (A, 1), (B, 1), (EPOCH_KEY, 2), (A, 2)).doubtful == 5


def test_compaction_leaves_what_a_replaced_owner_wrote_until_its_keys_are_written_again() -> None:
    said = [(EPOCH_KEY, 2), (A, 2), (B, 2), (B, 1), (A, 1)]
    assert changelog(*said).doubtful == 3
    assert changelog(*said, (B, 2)).doubtful == 4
    assert changelog(*said, (B, 2), (A, 3)).doubtful == 7


def test_compaction_leaves_a_late_claim_until_the_owner_claims_again() -> None:
    assert changelog((EPOCH_KEY, 2), (EPOCH_KEY, 1)).doubtful == 1
    assert changelog((EPOCH_KEY, 2), (EPOCH_KEY, 1), (EPOCH_KEY, 2)).doubtful == 3
