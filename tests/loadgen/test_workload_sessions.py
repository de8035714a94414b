"""A workload sent by the load generator: what the server really gets."""

import json
import re

from orchestrator.loadgen.drive import measure
from orchestrator.loadgen.load import Load
from orchestrator.loadgen.probe import Server
from orchestrator.loadgen.record import failure
from orchestrator.loadgen.workload.config import Workload, build
from orchestrator.testing import answer, serving


def words(text):
    return len(text.split())


def sent(workload, folder, *, load, mode="closed", **given):
    """The bodies that a server gets, and the records."""
    with serving(answer("Hel", "lo ", "\u00fc\n")) as engine:
        server = Server(engine.url, "m", tokenize=words, template_tokens=0)
        prepared = build(Workload.model_validate(workload), server, seed=1, mode=mode, **given)
        load = Load(url=engine.url, path=prepared.path, timeout_s=20, **load)
        measurement = measure(load, prepared.requests, directory=folder)
        assert [failure(record) for record in measurement.records] == [None] * len(measurement.records)
        return list(engine.bodies), measurement.records


def nonces(bodies):
    return [re.search(r"\[(\d{17})\]", body["messages"][0]["content"])[1] for body in bodies]


def test_turns_of_a_session_hold_the_servers_own_answers(tmp_path):
    workload = {"synthetic": {"input_tokens": 20, "output_tokens": 3}, "turns": 3}
    bodies, records = sent(workload, tmp_path, load={"concurrency": 2, "num_requests": 6}, num_requests=6)
    assert sorted(len(body["messages"]) for body in bodies) == [1, 1, 3, 3, 5, 5]
    last = [body["messages"] for body in bodies if len(body["messages"]) == 5]
    for messages in last:
        assert [message["content"] for message in messages if message["role"] == "assistant"] == ["Hello \u00fc\n"] * 2
        users = [message["content"] for message in messages if message["role"] == "user"]
        assert len(set(users)) == 3
    assert "@" not in json.dumps(bodies)
    assert len(set(nonces(bodies))) == 2
    assert sorted((record.session, record.turn) for record in records) == [(s, t) for s in (0, 1) for t in range(3)]


def test_turns_wait_for_as_long_as_people_think(tmp_path):
    workload = {"synthetic": {"input_tokens": 20, "output_tokens": 3}, "turns": 2, "think_time": "200ms"}
    _, records = sent(workload, tmp_path, load={"concurrency": 1, "num_requests": 2}, num_requests=2)
    first, second = sorted(records, key=lambda record: record.turn)
    assert second.intended - first.ended == 200_000_000


def test_a_closed_loop_goes_round_with_new_nonces(tmp_path):
    workload = {"synthetic": {"input_tokens": 20, "output_tokens": 3}}
    bodies, records = sent(workload, tmp_path, load={"concurrency": 2, "num_requests": 9}, num_requests=3)
    assert len(bodies) == 9
    assert len(set(nonces(bodies))) == 9
    assert sorted(record.prompt for record in records) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_an_open_loop_is_sent_at_its_times(tmp_path):
    workload = {"synthetic": {"input_tokens": 20, "output_tokens": 3}, "arrivals": "constant"}
    _, records = sent(workload, tmp_path, load={}, mode="open", rate=50.0, num_requests=10)
    first = min(record.intended for record in records)
    assert [round((record.intended - first) / 1e6) for record in sorted(records, key=lambda r: r.intended)] == [
        20 * number for number in range(10)
    ]
