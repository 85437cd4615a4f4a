"""Windows in memory: those that wait for a flush, and of the others as many as a budget allows."""

from collections.abc import Callable
from weakref import WeakKeyDictionary

from streamapp.state.entry import Entry


class CacheBudget:
    """How many entries all partitions that share it keep in memory after their flushes.

    Args:
        max_entries: of all of them together. What waits for a flush comes on top.
    """

    def __init__(self, max_entries: int) -> None:
        self.max_entries = max_entries
        self._held: WeakKeyDictionary[object, int] = WeakKeyDictionary()

    def allowance(self, holder: object, entries: int) -> int:
        """How many of its entries a holder may keep: all while there is room, else its share of half of it."""
        self._held[holder] = entries
        held = sum(self._held.values())
        if held <= self.max_entries:
            return entries
        return entries * self.max_entries // held // 2

    def note(self, holder: object, entries: int) -> None:
        """What a holder has now."""
        self._held[holder] = entries


class EntryCache:
    """The entries of one partition that are in memory, per key.

    Attributes:
        windows: key -> start -> entry; change it only through the methods here.
        count: of all entries.
    """

    def __init__(self, budget: CacheBudget) -> None:
        self.windows: dict[str, dict[int, Entry]] = {}
        self.count = 0
        self._budget = budget

    def put(self, key: str, start: int, entry: Entry) -> None:
        """Keep an entry."""
        of_key = self.windows.setdefault(key, {})
        self.count += start not in of_key
        of_key[start] = entry

    def drop(self, key: str, start: int) -> bool:
        """Forget an entry; False where there was none."""
        of_key = self.windows.get(key)
        if of_key is None or of_key.pop(start, None) is None:
            return False
        self.count -= 1
        if not of_key:
            del self.windows[key]
        return True

    def evict(self, is_needed: Callable[[str, int], bool], is_open: Callable[[str, int], bool]) -> None:
        """Drop entries beyond the budget's allowance, closed windows first.

        Args:
            is_needed: entries that must stay, such as those that wait for a flush.
            is_open: entries that are dropped only when no other is left.
        """
        allowed = self._budget.allowance(self, self.count)
        if self.count <= allowed:
            return
        for spare_open in (True, False):
            for key in list(self.windows):
                of_key = self.windows[key]
                for start in list(of_key):
                    if is_needed(key, start) or (spare_open and is_open(key, start)):
                        continue
                    del of_key[start]
                    self.count -= 1
                if not of_key:
                    del self.windows[key]
                if self.count <= allowed:
                    self._budget.note(self, self.count)
                    return
        self._budget.note(self, self.count)
