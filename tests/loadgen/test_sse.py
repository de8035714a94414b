"""Events are the same however the bytes are cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.loadgen.sse import EventReader


def read(*pieces):
    reader = EventReader()
    return [event for piece in pieces for event in reader.feed(piece)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data:a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\rdata: c", [b"a", b"b"]),
        (b": ping\n\ndata: a\n\n", [b"a"]),
        (b"event: delta\nid: 3\ndata: a\n\n", [b"a"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data: half", []),
        (b"\n\n\n", []),
    ],
)
def test_reads_events(stream, events):
    assert read(stream) == events


LINE = st.sampled_from(
    [b'data: {"x": "\xc3\xa9\xf0\x9f\x99\x82"}', b"data: [DONE]", b": ping", b"", b"data:", b"id: 1"]
)
END = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(lines=st.lists(st.tuples(LINE, END), max_size=12), cuts=st.lists(st.integers(0, 300), max_size=8))
def test_any_split_gives_the_same_events(lines, cuts):
    stream = b"".join(line + end for line, end in lines) + b": end\n"
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    pieces = [stream[low:high] for low, high in itertools.pairwise(edges)]
    assert read(*pieces) == read(stream)


@given(lines=st.lists(st.tuples(LINE, END), max_size=12))
def test_byte_by_byte_gives_the_same_events(lines):
    stream = b"".join(line + end for line, end in lines) + b": end\n"
    assert read(*(bytes([byte]) for byte in stream)) == read(stream)
