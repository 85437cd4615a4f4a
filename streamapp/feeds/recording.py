"""Recorded WebSocket sessions: one line per event, as text, optionally compressed (`.gz`).

```
URL <-> TIME          a connection was opened
URL <- TIME: JSON     a text that the client sent
TIME: JSON            a frame that was received
```

`TIME` is seconds since the epoch, with a fraction. Lines are in the order of what happened. Reading and writing is
streaming: one line is in memory at a time, and a line has a bound.
"""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, NamedTuple, Self, cast

from streamapp.errors import RecordingError

MAX_LINE_BYTES = 16 << 20

_OPENED = re.compile(r"(?P<url>\S+) <-> (?P<time>\d+(?:\.\d+)?)")
_SENT = re.compile(r"(?P<url>\S+) <- (?P<time>\d+(?:\.\d+)?): (?P<text>.*)", re.DOTALL)
_RECEIVED = re.compile(r"(?P<time>\d+(?:\.\d+)?): (?P<text>.*)", re.DOTALL)
_LINE_BREAKS = re.compile(r"[\r\n]+")


class RecordedLine(NamedTuple):
    """One event of a recorded session.

    Attributes:
        kind: `opened`, `sent` or `received`.
        time_s: processing time of the recorder, seconds since the epoch.
        text: the frame's payload; empty for `opened`.
        url: the connection's address; empty for `received`.
    """

    kind: Literal["opened", "sent", "received"]
    time_s: float
    text: str
    url: str = ""

    @property
    def time_ms(self) -> int:
        """The time in milliseconds, rounded down."""
        return int(self.time_s * 1000)


def parse_line(line: str) -> RecordedLine:
    """Parse one line without its line break.

    Raises:
        RecordingError: it has none of the three forms.
    """
    if found := _RECEIVED.fullmatch(line):
        return RecordedLine("received", float(found["time"]), found["text"])
    if found := _SENT.fullmatch(line):
        return RecordedLine("sent", float(found["time"]), found["text"], found["url"])
    if found := _OPENED.fullmatch(line):
        return RecordedLine("opened", float(found["time"]), "", found["url"])
    raise RecordingError(f"expected `URL <-> TIME`, `URL <- TIME: JSON` or `TIME: JSON`, got {line[:80]!r}")


def read_recording(path: Path) -> Iterator[RecordedLine]:
    """The lines of a recording in order; empty lines are skipped.

    A compressed file that ends in the middle (its recorder was killed) yields its complete lines and then ends.

    Raises:
        RecordingError: the file cannot be opened or read, or a line is malformed or too long; names the line.
    """
    try:
        with _open(path, "r") as file:
            yield from _lines(file, path)
    except EOFError:
        return
    except (OSError, UnicodeDecodeError) as problem:
        raise RecordingError(f"cannot read the recording {path}: {problem}") from None


def _lines(file: IO[str], path: Path) -> Iterator[RecordedLine]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise RecordingError(f"{path}, line {number}: longer than {MAX_LINE_BYTES} bytes")
        if not line.strip():
            continue
        try:
            yield parse_line(line.rstrip("\r\n"))
        except RecordingError as problem:
            raise RecordingError(f"{path}, line {number}: {problem}") from None


class RecordingWriter:
    """Writes a recording; a context manager. What is written is complete after `close`.

    URLs and texts are written as they are given: leave secrets out before.

    Args:
        path: the file, replaced if it exists; compressed if it ends in `.gz`.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = _open(path, "w")
        except OSError as problem:
            raise RecordingError(f"cannot write the recording {path}: {problem}") from None
        #: received frames so far
        self.frames = 0

    def opened(self, url: str, time_s: float) -> None:
        """Note that a connection was opened."""
        self._file.write(f"{url} <-> {_stamp(time_s)}\n")

    def sent(self, url: str, text: str, time_s: float) -> None:
        """Note a text that the client sent."""
        self._file.write(f"{url} <- {_stamp(time_s)}: {_one_line(text)}\n")

    def received(self, frame: str | bytes, time_s: float) -> None:
        """Note a frame that came in. Line breaks between JSON tokens become spaces; inside of strings there are none."""
        text = frame if isinstance(frame, str) else frame.decode("utf-8", "replace")
        self._file.write(f"{_stamp(time_s)}: {_one_line(text)}\n")
        self.frames += 1

    def close(self) -> None:
        """Write everything out."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open(path: Path, mode: Literal["r", "w"]) -> IO[str]:
    errors = "strict" if mode == "r" else "replace"
    if path.suffix == ".gz":
        return cast("IO[str]", gzip.open(path, f"{mode}t", encoding="utf-8", errors=errors, newline="\n"))
    return path.open(mode, encoding="utf-8", errors=errors, newline="\n")


def _stamp(time_s: float) -> str:
    return f"{time_s:.6f}".rstrip("0").rstrip(".")


def _one_line(text: str) -> str:
    return _LINE_BREAKS.sub(" ", text)
