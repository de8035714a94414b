"""Any split of any stream of events gives the same answer, and the short cut never decides what an event means."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.loadgen.http1 import ProtocolError, Response
from orchestrator.loadgen.stream import Shapes, Stream, StreamError
from tests.loadgen.raw_server import DONE, END, FINISH, HEAD, USAGE, chunk, delta, event

TEXTS = st.text(max_size=12) | st.sampled_from(
    ['"', "\\", '\\"', "\n", "\u2028", "é", "漢字", "", '","role":"x', "}]}"]
)
LAYOUTS = st.sampled_from(
    [
        {"separators": (",", ":"), "ensure_ascii": False},
        {"separators": (",", ":"), "ensure_ascii": True},
        {"separators": (", ", ": "), "ensure_ascii": True},
    ]
)


def _chunks(texts, key, layout):
    """The payloads of a whole answer."""
    for text in texts:
        choice = {"index": 0, "text": text} if key == "text" else {"index": 0, "delta": {key: text}}
        yield json.dumps(
            {"id": "r", "created": 1, "choices": [{**choice, "finish_reason": None}], "usage": None}, **layout
        )
    last = {"index": 0, "text": ""} if key == "text" else {"index": 0, "delta": {}}
    yield json.dumps({"id": "r", "created": 1, "choices": [{**last, "finish_reason": "length"}]}, **layout)
    usage = {"prompt_tokens": 3, "completion_tokens": len(texts), "prompt_tokens_details": {"cached_tokens": 1}}
    yield json.dumps({"id": "r", "created": 1, "choices": [], "usage": usage}, **layout)
    yield "[DONE]"


@st.composite
def answers(draw):
    """(texts, key, bytes of the HTTP response, where it is cut)."""
    texts, key = draw(st.lists(TEXTS, max_size=12)), draw(st.sampled_from(["content", "reasoning_content", "text"]))
    payloads = list(_chunks(texts, key, draw(LAYOUTS)))
    end = draw(st.sampled_from(["\n\n", "\r\n\r\n"]))
    body = "".join(f"data: {payload}{end}" for payload in payloads).encode()
    framing = draw(st.sampled_from(["chunked", "length", "close"]))
    if framing == "chunked":
        sizes = draw(st.lists(st.integers(1, 400), min_size=1, max_size=20))
        pieces, at = [], 0
        for size in sizes:
            pieces.append(body[at : at + size])
            at += size
        pieces.append(body[at:])
        data = HEAD + b"".join(chunk(piece) for piece in pieces if piece) + END
    elif framing == "length":
        data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    else:
        data = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body
    cuts = sorted(draw(st.sets(st.integers(1, len(data)), max_size=30)))
    return texts, key, data, [0, *cuts, len(data)], framing


@settings(max_examples=300, deadline=None)
@given(answers())
def test_any_split_of_any_answer_gives_the_same_result(answer):
    texts, key, data, cuts, framing = answer
    response = Response(Stream(keep_text=True))
    complete = [response.feed(data[a:b], b) for a, b in itertools.pairwise(cuts) if b > a]
    stream = response.stream
    assert complete[-1] or (framing == "close" and response.close())
    assert not any(complete[:-1])
    assert len(stream.content) == sum(bool(text) for text in texts)
    assert list(stream.content) == sorted(stream.content)
    assert stream.finish_reason == "length"
    assert stream.usage["completion_tokens"] == len(texts)
    assert stream.done
    assert response.status == 200
    assert response.keep_alive == (framing != "close")
    if key != "reasoning_content":
        assert json.loads(b'"' + stream.text + b'"') == "".join(texts)


IDS = st.text(max_size=6) | st.sampled_from(["1", "", '"', "a\\", "r", "id"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(IDS, st.lists(TEXTS, max_size=8)), max_size=5), st.sampled_from(["content", "text"]), LAYOUTS)
def test_what_one_answer_taught_never_changes_what_another_says(asked, key, layout):
    shapes = Shapes()
    for identity, texts in asked:
        together, alone = Stream(keep_text=True, shapes=shapes), Stream(keep_text=True)
        for payload in _chunks(texts, key, layout):
            named = payload.replace('"id":"r"', f'"id":{json.dumps(identity)}').replace('"id": "r"', '"id": "x"')
            for stream in (together, alone):
                stream.take(f"data: {named}\n\n".encode(), 1)
        assert json.loads(b'"' + together.text + b'"') == "".join(texts)
        for name in ("content", "first_chunk", "usage", "finish_reason", "done"):
            assert getattr(together, name) == getattr(alone, name)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=8), max_size=6), LAYOUTS)
def test_a_finish_reason_beside_the_last_text_is_seen_after_answers_of_any_length(asked, layout):
    shapes = Shapes()
    for number, texts in enumerate(asked):
        stream = Stream(shapes=shapes)
        for place, text in enumerate(texts, 1):
            choice = {
                "index": 0,
                "delta": {"content": text},
                "finish_reason": "length" if place == len(texts) else None,
            }
            stream.take(f"data: {json.dumps({'id': f'r{number}', 'choices': [choice]}, **layout)}\n\n".encode(), place)
        assert (len(stream.content), stream.finish_reason) == (len(texts), "length")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_rubbish_is_refused_or_waits_but_never_breaks(first, second):
    for start in (b"", HEAD, HEAD + delta("a"), b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n"):
        response = Response(Stream())
        try:
            for piece in (start, first, second):
                if piece and response.feed(piece, 1):
                    break
        except (ProtocolError, StreamError):
            pass


def _fed(*events: bytes, keep_text: bool = False) -> Stream:
    stream = Stream(keep_text=keep_text)
    for number, data in enumerate(events, 1):
        body = data.partition(b"\r\n")[2][:-2]
        stream.take(body, number)
    return stream


def test_the_time_of_a_delta_is_that_of_the_bytes_that_complete_its_event():
    stream = Stream()
    whole = b'data: {"choices":[{"delta":{"content":"\xc3\xa9"}}]}\n\n'
    stream.take(whole[:40], 1)
    stream.take(whole[40:-1], 2)
    stream.take(whole[-1:], 3)
    assert list(stream.content) == [3]
    assert stream.first_chunk == 3


def test_the_first_event_is_not_the_first_token():
    stream = _fed(event(b'{"choices":[{"delta":{"role":"assistant","content":""}}]}'), delta("a"))
    assert (stream.first_chunk, list(stream.content)) == (1, [2])


@pytest.mark.parametrize("key", ["content", "reasoning_content", "reasoning"])
def test_reasoning_counts_as_tokens(key):
    assert list(_fed(delta("a", key=key), delta("b", key=key)).content) == [1, 2]


def test_tool_calls_count_as_tokens():
    call = b'{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}}]}'
    assert list(_fed(event(call), event(call)).content) == [1, 2]


def test_a_learned_shape_does_not_swallow_another_event():
    stream = _fed(*[delta("a")] * 5, FINISH, USAGE, DONE)
    assert (len(stream.content), stream.finish_reason, stream.usage["completion_tokens"], stream.done) == (
        5,
        "stop",
        2,
        True,
    )


def test_text_that_looks_like_the_end_of_the_event_is_still_text():
    tricky = '\\"},\\"finish_reason\\":\\"stop\\"}]}'
    stream = _fed(*[delta("a")] * 5, delta(tricky), delta("\\\\"), keep_text=True)
    assert stream.finish_reason is None
    assert json.loads(b'"' + stream.text + b'"') == "aaaaa" + json.loads(f'"{tricky}"') + "\\"


def test_reasoning_is_not_part_of_the_kept_text():
    stream = _fed(*[delta("think", key="reasoning_content")] * 5, *[delta("answer")] * 2, keep_text=True)
    assert stream.text == b"answeranswer"
    assert len(stream.content) == 7


def test_an_error_object_ends_the_stream():
    with pytest.raises(StreamError) as caught:
        _fed(delta("a"), event(b'{"error":{"message":"out of memory"}}'))
    assert caught.value.kind == "server_error"
    assert "out of memory" in caught.value.detail


@pytest.mark.parametrize("payload", [b"{", b"[1]", b'"text"', b'{"choices":[1]}', b"\xff"])
def test_what_is_no_chunk_is_malformed(payload):
    with pytest.raises(StreamError) as caught:
        _fed(event(payload))
    assert caught.value.kind == "malformed"


def test_vllms_own_ttft_is_kept():
    said = b'{"choices":[],"usage":{"completion_tokens":2},"metrics":{"time_to_first_token_ms":41.5}}'
    assert _fed(event(said)).server_ttft_ms == 41.5


def test_an_answer_with_another_status_is_text_for_people():
    response = Response(Stream())
    body = b'{"error":"busy"}'
    head = b"HTTP/1.1 429 Too Many\r\nRetry-After: 7\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert response.feed(head + body, 1)
    assert (response.status, response.retry_after_s, response.body) == (429, 7.0, '{"error":"busy"}')


def test_an_interim_answer_is_skipped():
    response = Response(Stream())
    assert not response.feed(b"HTTP/1.1 100 Continue\r\n\r\n", 1)
    assert response.feed(HEAD + DONE + END, 2)
    assert response.stream.done
