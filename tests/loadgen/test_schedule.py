"""The schedule alone, with invented times: which request is due when."""

import itertools
from collections.abc import Iterable

from orchestrator.loadgen.load import Load
from orchestrator.loadgen.requests import NONCE, Request, answer_mark
from orchestrator.loadgen.schedule import SECOND, Item, Schedule, sessions

RUN = b"123456789"


def _schedule(requests: Iterable[Request], load: Load, *, worker: int = 0, streams: int | None = None) -> Schedule:
    kept = list(requests)
    return Schedule(sessions(lambda: iter(kept), load, worker=worker), load, start=0, run=RUN, streams=streams)


def _all_due(schedule: Schedule, now: int) -> list[Item]:
    return list(iter(lambda: schedule.due(now), None))


def _load(**settings: object) -> Load:
    return Load(url="http://localhost/v1", **settings)  # type: ignore[arg-type]


def test_a_closed_loop_keeps_its_streams_busy_and_goes_round():
    load = _load(concurrency=2, num_requests=5)
    schedule = _schedule([Request(b"a", prompt=0), Request(b"b", prompt=1)], load, streams=2)
    first, second = _all_due(schedule, 0)
    assert (first.request.prompt, second.request.prompt) == (0, 1)
    sent = [first, second]
    for now in itertools.count(1):
        schedule.ended(sent[now - 1], now, b"")
        new = _all_due(schedule, now)
        sent += new
        if not new:
            break
    assert [item.index for item in sent] == [0, 1, 2, 3, 4]
    assert [item.request.prompt for item in sent] == [0, 1, 0, 1, 0]
    assert schedule.idle_since == 4
    assert not schedule.finished
    schedule.ended(sent[4], 9, b"")
    assert schedule.finished


def test_streams_that_end_together_are_idle_when_not_all_of_them_get_another_request():
    schedule = _schedule([Request(b"a")], _load(concurrency=4, num_requests=6), streams=4)
    first = _all_due(schedule, 0)
    assert (len(first), schedule.idle_since) == (4, None)
    for item in first:  # read from the kernel at once, before anything is sent
        schedule.ended(item, 10, b"")
    assert len(_all_due(schedule, 11)) == 2
    assert schedule.idle_since == 11


def test_every_request_has_its_own_nonce():
    schedule = _schedule([Request(b'"' + NONCE + b' hi"')], _load(concurrency=9, num_requests=9), streams=9)
    bodies = [item.body for item in _all_due(schedule, 0)]
    assert len(set(bodies)) == 9
    assert {len(body) for body in bodies} == {len(NONCE) + 5}
    assert all(RUN in body and NONCE not in body for body in bodies)


def test_the_warm_up_is_marked_and_the_measurement_begins_after_it():
    load = _load(concurrency=1, num_requests=2, warmup_requests=2)
    schedule = _schedule([Request(b"a")], load, streams=1)
    marks = []
    for now in range(4):
        (item,) = _all_due(schedule, now)
        marks.append(item.warmup)
        schedule.ended(item, now, b"")
    assert marks == [True, True, False, False]
    assert schedule.measuring_since == 2
    assert schedule.finished


def test_a_duration_ends_a_closed_loop():
    schedule = _schedule([Request(b"a")], _load(concurrency=1, duration_s=1.0), streams=1)
    (item,) = _all_due(schedule, 5)
    schedule.ended(item, SECOND, b"")
    (item,) = _all_due(schedule, SECOND)
    schedule.ended(item, SECOND + 5, b"")
    assert _all_due(schedule, SECOND + 5) == []
    assert schedule.finished


def test_an_open_loop_sends_at_its_times_whatever_the_server_does():
    requests = [Request(b"a", at=at / 10) for at in range(4)]
    schedule = _schedule(requests, _load(warmup_s=0.1))
    assert [item.intended for item in _all_due(schedule, SECOND // 10)] == [0, SECOND // 10]
    assert schedule.next_time() == 2 * SECOND // 10
    late = _all_due(schedule, SECOND)
    assert [item.intended for item in late] == [2 * SECOND // 10, 3 * SECOND // 10]
    assert [item.warmup for item in late] == [False, False]
    assert schedule.measuring_since == SECOND // 10


def test_an_open_loop_with_a_limit_sends_later_but_counts_from_the_intended_time():
    schedule = _schedule([Request(b"a", at=0.0), Request(b"b", at=0.0)], _load(concurrency=1), streams=1)
    (first,) = _all_due(schedule, 0)
    assert schedule.next_time() is None
    schedule.ended(first, SECOND, b"")
    (second,) = _all_due(schedule, SECOND)
    assert second.intended == 0


def test_the_duration_of_an_open_loop_counts_from_the_end_of_its_warm_up():
    requests = [Request(b"a", at=float(at)) for at in range(10)]
    schedule = _schedule(requests, _load(warmup_s=2.0, duration_s=3.0))
    assert len(_all_due(schedule, 100 * SECOND)) == 5


def test_turns_follow_one_another_with_the_answers_and_the_nonce_of_their_session():
    first = Request(b'"' + NONCE + b'"', session=3)
    second = Request(b'"' + NONCE + b'","' + answer_mark(0) + b'"', session=3, turn=1, think_s=2.0)
    schedule = _schedule([first, second], _load(concurrency=1), streams=1)
    (item,) = _all_due(schedule, 0)
    assert schedule.ended(item, SECOND, b'say \\"hi\\"') == []
    assert _all_due(schedule, SECOND) == []
    assert schedule.next_time() == 3 * SECOND
    (turn,) = _all_due(schedule, 3 * SECOND)
    assert turn.body == b'"' + item.nonce + b'","say \\"hi\\""'
    schedule.ended(turn, 4 * SECOND, b"")
    assert schedule.finished


def test_later_turns_of_a_failed_session_are_given_back():
    turns = [Request(b"a", session=0, turn=turn) for turn in range(3)]
    schedule = _schedule(turns, _load(concurrency=1), streams=1)
    (item,) = _all_due(schedule, 0)
    assert [lost.request.turn for lost in schedule.ended(item, 1, None)] == [1, 2]
    assert schedule.finished


def test_workers_share_the_sessions_and_number_them_alike():
    requests = [Request(b"a", session=0), Request(b"b", session=0, turn=1), Request(b"c"), Request(b"d")]
    load = _load(concurrency=2, workers=2)
    parts = [list(sessions(lambda: iter(requests), load, worker=worker)) for worker in (0, 1)]
    assert [[index for index, _ in session] for session in parts[0]] == [[0, 1], [3]]
    assert [[index for index, _ in session] for session in parts[1]] == [[2]]


def test_stopping_sends_nothing_more():
    schedule = _schedule([Request(b"a")], _load(concurrency=1, num_requests=9), streams=1)
    (item,) = _all_due(schedule, 0)
    schedule.stop(5)
    assert not schedule.sending
    schedule.ended(item, 9, b"")
    assert schedule.finished
