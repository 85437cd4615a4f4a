"""Which records of a changelog partition are its owner's own.

An owner that knows the offset of everything it wrote knows what others wrote, without reading its own records back: the
gaps. While it is alone there are none.
"""

from collections.abc import Sequence


class Ledger:
    """The offsets behind an owner's claim.

    Args:
        begin: the offset behind the claim; everything from there on should be the owner's.

    Attributes:
        next: the offset that the owner's next record gets if nobody else writes.
        foreign: ranges (begin, end) of offsets that somebody else wrote and nobody has looked at yet.
    """

    def __init__(self, begin: int) -> None:
        self.next = begin
        self.foreign: list[tuple[int, int]] = []

    def wrote(self, offsets: Sequence[int]) -> None:
        """The owner's records got these offsets, in order of sending; below 0 where that is not known.

        Such a record is found as a gap: it is looked at as if somebody else had written it, and written again.
        """
        if not offsets:
            return
        # without a gap in all there is none between, whatever is known of those in the middle
        if offsets[0] == self.next and offsets[-1] - offsets[0] + 1 == len(offsets):
            self.next = offsets[-1] + 1
            return
        for offset in offsets:
            if offset < 0:
                continue
            self.found_end(offset)
            self.next = max(self.next, offset + 1)

    def found_end(self, end: int) -> None:
        """The changelog ends there, or an own record lies there, and none of the owner's is on its way before it."""
        if end > self.next:
            self.foreign.append((self.next, end))
            self.next = end

    @property
    def position(self) -> int:
        """The last offset that a store may call seen: behind it begins what has to be looked at."""
        return (self.foreign[0][0] if self.foreign else self.next) - 1
