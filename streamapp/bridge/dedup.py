"""Which records have been accepted already: a bounded memory of ids per stream."""

from streamapp.feeds.protocol import DedupKey


class _Stream:
    """The ids of one stream in two generations, so that forgetting the older ones costs nothing per record."""

    __slots__ = ("current", "newest", "previous")

    def __init__(self) -> None:
        self.current: set[str] = set()
        self.previous: set[str] = set()
        self.newest = ""


class DedupMemory:
    """Recognises repeats.

    Of each stream at least the last `ids_per_stream` ids are known, and at most twice as many. Over all streams at most
    `max_ids` ids are kept; past that the older half of every stream is forgotten, yet each stream's newest id stays: it
    is the one that a venue repeats after a subscription. Beyond `max_streams` the stream that was first seen goes.

    A record that is older than this memory and comes again is taken for new.
    """

    def __init__(self, *, ids_per_stream: int, max_ids: int, max_streams: int = 50_000) -> None:
        self._ids_per_stream = ids_per_stream
        self._max_ids = max_ids
        self._max_streams = max_streams
        self._streams: dict[str, _Stream] = {}
        self._ids = 0

    def __len__(self) -> int:
        """How many ids are kept."""
        return self._ids

    def is_new(self, key: DedupKey) -> bool:
        """Whether this is the first time that the id is seen; it is remembered from now on."""
        return self.add(key.stream, key.record_id)

    def add(self, name: str, record_id: str) -> bool:
        """Remember an id of a stream; False where it was known."""
        stream = self._streams.get(name)
        if stream is None:
            stream = self._new_stream(name)
        current = stream.current
        if record_id in current or record_id in stream.previous or record_id == stream.newest:
            return False
        current.add(record_id)
        stream.newest = record_id
        self._ids += 1
        if len(current) >= self._ids_per_stream:
            self._age(stream)
        if self._ids > self._max_ids:
            for each in self._streams.values():
                self._age(each)
        return True

    def knows(self, name: str, record_id: str) -> bool:
        """Whether the id is remembered; remembers nothing."""
        stream = self._streams.get(name)
        return stream is not None and (
            record_id in stream.current or record_id in stream.previous or record_id == stream.newest
        )

    def _age(self, stream: _Stream) -> None:
        self._ids -= len(stream.previous)
        stream.previous, stream.current = stream.current, set()

    def _new_stream(self, name: str) -> _Stream:
        if len(self._streams) >= self._max_streams:
            gone = self._streams.pop(next(iter(self._streams)))
            self._ids -= len(gone.current) + len(gone.previous)
        stream = self._streams[name] = _Stream()
        return stream
