"""The line format of recorded sessions."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.errors import RecordingError
from streamapp.feeds.recorder import RecordingProtocol
from streamapp.feeds.recording import RecordedLine, RecordingWriter, parse_line, read_recording
from tests.fakes.feed_frames import NOW_MS, protocol


@pytest.mark.parametrize("name", ["session.ws", "session.ws.gz"])
def test_recording_reads_back_what_was_written(tmp_path, name):
    path = tmp_path / name
    with RecordingWriter(path) as writer:
        writer.opened("ws://host/x?a=1", 1633998274.5)
        writer.sent("ws://host/x?a=1", '{"type":"subscribe"}', 1633998274.6)
        writer.received('{"a":\n 1}', 1633998274.723671)
        writer.received(b'{"b": "<-> and <- : in here"}', 1633998275)

    assert list(read_recording(path)) == [
        RecordedLine("opened", 1633998274.5, "", "ws://host/x?a=1"),
        RecordedLine("sent", 1633998274.6, '{"type":"subscribe"}', "ws://host/x?a=1"),
        RecordedLine("received", 1633998274.723671, '{"a":  1}'),
        RecordedLine("received", 1633998275.0, '{"b": "<-> and <- : in here"}'),
    ]
    assert writer.frames == 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(value=json_values, indent=st.sampled_from([None, 2]))
def test_recording_keeps_the_meaning_of_any_json(tmp_path_factory, value, indent):
    path = tmp_path_factory.mktemp("recording") / "one.ws"
    with RecordingWriter(path) as writer:
        writer.received(json.dumps(value, ensure_ascii=False, indent=indent), 1.5)

    (line,) = read_recording(path)

    assert json.loads(line.text) == value


def test_recording_skips_empty_lines_and_names_the_bad_one(tmp_path):
    path = tmp_path / "bad.ws"
    path.write_text("1.0: {}\n\nnonsense\n")

    with pytest.raises(RecordingError, match=r"line 3: expected"):
        list(read_recording(path))


@pytest.mark.parametrize("line", ["", "1.0:{}", "x: {}", "url <-> now", "url <- 1.0 {}", "-1.0: {}"])
def test_recording_line_of_no_known_form_is_refused(line):
    with pytest.raises(RecordingError):
        parse_line(line)


def test_recording_cut_off_in_the_middle_yields_its_complete_lines(tmp_path):
    path = tmp_path / "cut.ws.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(f"{number}.5: {{}}\n" for number in range(5_000))
    path.write_bytes(path.read_bytes()[:-600])

    assert 0 < len(list(read_recording(path))) < 5_000


def test_recording_that_is_absent_is_one_clear_error(tmp_path):
    with pytest.raises(RecordingError, match="cannot read the recording"):
        list(read_recording(tmp_path / "none.ws"))


def test_recorder_writes_what_passes_and_hands_on_the_events(tmp_path):
    path = tmp_path / "session.ws"
    inner = protocol("bitstamp", "BTC-USD", url="ws://user:secret@127.0.0.1/x")
    with RecordingWriter(path) as writer:
        subject = RecordingProtocol(inner, writer)
        assert subject.open_messages(NOW_MS) == protocol("bitstamp", "BTC-USD").open_messages(NOW_MS)
        events = subject.receive(b'{"event":"bts:request_reconnect"}', NOW_MS + 1)
        (ping,) = subject.tick(NOW_MS + 20_000)

    assert len(events) == 1
    assert [(line.kind, line.text) for line in read_recording(path)] == [
        ("opened", ""),
        ("sent", '{"event":"bts:subscribe","data":{"channel":"live_trades_btcusd"}}'),
        ("received", '{"event":"bts:request_reconnect"}'),
        ("sent", ping.text),
    ]
    assert "secret" not in path.read_text()
