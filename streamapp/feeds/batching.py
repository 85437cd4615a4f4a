"""A client WebSocket that hands over every frame that has already arrived, at once."""

from aiohttp import ClientWebSocketResponse, WSMessage, WSMsgType

_DATA = (WSMsgType.TEXT, WSMsgType.BINARY)


class BatchingWebSocket(ClientWebSocketResponse[bool]):
    """aiohttp's client WebSocket with `receive_batch`.

    One await per frame costs more than the frame itself; what aiohttp has parsed and queued anyway is taken in one go.
    """

    async def receive_batch(self, limit: int) -> tuple[list[bytes], WSMessage | None]:
        """Wait for a message, then take what is queued behind it without waiting.

        Args:
            limit: at most this many data frames.

        Returns:
            Data frames in the order of arrival, and the control or error message that came first instead, or None.
        """
        first = await self.receive()
        if first.type not in _DATA:
            return [], first  # type: ignore[return-value]  # text as bytes is another named tuple, with the same fields
        frames = [first.data]
        reader = self._reader
        # not public, so its absence in another version only costs speed
        queued = getattr(reader, "_buffer", ())
        while queued and len(frames) < limit and queued[0][0].type in _DATA:
            frames.append((await reader.read()).data)
        return frames, None
