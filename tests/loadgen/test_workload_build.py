"""From settings to requests: bodies, lengths, prefixes, sessions, mixes, times, and what the facts say about them."""

import itertools
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import InputError
from orchestrator.loadgen.probe import Server, probe
from orchestrator.loadgen.requests import NONCE, answer_mark
from orchestrator.loadgen.workload.config import DISTINCT, Workload, build
from tests.loadgen.fake_api import TEMPLATE_TOKENS, FakeApi, serving, single_digits

SALT = "12345678901234567"
DIGITS = b"98765432109876543"
SERVER = Server(
    url="http://h/v1",
    model="m",
    models=("m", "lora-a", "lora-b"),
    tokenize=single_digits,
    prompt_tokens=lambda _, text: TEMPLATE_TOKENS + single_digits(text),
    accepts_ignore_eos=True,
)


def prepared(workload, *, server=SERVER, mode="closed", seed=1, **given):
    return build(Workload.model_validate(workload), server, seed=seed, mode=mode, salt=SALT, **given)


def made(workload, **given):
    return list(prepared(workload, **given).requests)


def body(request):
    return json.loads(request.body.replace(NONCE, DIGITS))


def text(request):
    return "\n".join(message["content"] for message in body(request)["messages"])


def length(request):
    """Prompt tokens as the server would count them."""
    return TEMPLATE_TOKENS + single_digits(text(request))


SYNTHETIC = {"synthetic": {"input_tokens": 100, "output_tokens": 7}}


def write_rows(folder, count):
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Question {number}?"}) + "\n" for number in range(count)))
    return {"dataset": path.name}


def write_trace(folder, count, gap=0.5):
    lines = [f"2023-11-16 18:17:{number * gap:09.6f},{50 + number},{number + 1}" for number in range(count)]
    (folder / "trace.csv").write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines]) + "\n")
    return {"trace": "trace.csv"}


def test_every_sampling_parameter_is_sent_in_compact_json():
    (request,) = made(SYNTHETIC, num_requests=1)
    assert b'", "' not in request.body
    sent = body(request)
    assert sent.pop("messages")[0]["role"] == "user"
    assert sent == {
        "model": "m",
        "max_tokens": 7,
        "temperature": 0.0,
        "top_p": 1,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    }


def test_ignore_eos_is_sent_only_where_it_is_accepted_and_a_length_is_wanted(tmp_path):
    deaf = replace(SERVER, accepts_ignore_eos=False)
    assert "ignore_eos" not in body(made(SYNTHETIC, server=deaf, num_requests=1)[0])
    assert not prepared(SYNTHETIC, server=deaf).facts["output_exact"]
    rows = write_rows(tmp_path, 3)
    free = body(made(rows, cwd=tmp_path, max_tokens=33, temperature=0.7)[0])
    assert (free["max_tokens"], free["temperature"], "ignore_eos" in free) == (33, 0.7, False)
    bound = body(made({**rows, "output_tokens": 9}, cwd=tmp_path)[0])
    assert (bound["max_tokens"], bound["ignore_eos"]) == (9, True)


def test_prompts_are_as_long_as_wanted_and_each_has_its_mark():
    requests = made({"synthetic": {"input_tokens": {"uniform": [60, 900]}}}, num_requests=200)
    facts = prepared({"synthetic": {"input_tokens": {"uniform": [60, 900]}}}, num_requests=200).facts
    lengths = [length(request) for request in requests]
    assert fmean(lengths) == facts["input_tokens_mean"]
    assert (min(lengths), max(lengths)) == (facts["input_tokens_min"], facts["input_tokens_max"])
    assert len(set(lengths)) > 100
    assert all(request.body.count(NONCE) == 1 for request in requests)
    assert len({request.body for request in requests}) == 200
    assert facts["input_exact"]
    assert facts["input_residual"] == "none"


def test_a_wanted_length_below_the_template_is_said():
    facts = prepared({"synthetic": {"input_tokens": 5}}, num_requests=3).facts
    assert facts["shorter_than_overhead"] == 3
    assert facts["overhead_tokens"] > 5


def test_without_a_nonce_the_same_bodies_come_every_time():
    first, again = (made({**SYNTHETIC, "nonce": False}, num_requests=5) for _ in range(2))
    assert first == again
    assert all(NONCE not in request.body for request in first)
    assert all(length(request) == 100 for request in first)


@settings(max_examples=20)
@given(st.integers(1, 50), st.integers(51, 120), st.sampled_from(["closed", "open"]))
def test_more_requests_change_none_of_the_first_ones(few, many, mode):
    rate = {"rate": 5.0} if mode == "open" else {}
    workload = {"synthetic": {"input_tokens": {"uniform": [60, 90]}}, "models": {"lora-a": 1, "lora-b": 2}}
    less, more = (made(workload, mode=mode, num_requests=count, **rate) for count in (few, many))
    assert more[:few] == less


def test_another_rate_or_seed():
    slow, fast = (made(SYNTHETIC, mode="open", rate=rate, num_requests=50) for rate in (1.0, 10.0))
    assert [request.body for request in slow] == [request.body for request in fast]
    assert slow[-1].at == pytest.approx(10 * fast[-1].at)
    other = made(SYNTHETIC, mode="open", rate=1.0, num_requests=50, seed=2)
    assert [request.body for request in other] != [request.body for request in slow]
    assert [request.at for request in other] != [request.at for request in slow]


def test_a_closed_loop_has_a_bounded_number_of_distinct_requests(tmp_path):
    assert len(made(SYNTHETIC)) == DISTINCT
    assert len(made(SYNTHETIC, num_requests=40)) == 40
    assert len(prepared({"synthetic": {"input_tokens": 100_000}}).requests) == 160
    rows = write_rows(tmp_path, 30)
    assert len(made(rows, cwd=tmp_path)) == 30
    assert len(made(rows, cwd=tmp_path, num_requests=100)) == 30
    assert len(made({**rows, "limit": 4}, cwd=tmp_path, num_requests=100)) == 4
    requests = made(rows, cwd=tmp_path, num_requests=10)
    assert len({request.prompt for request in requests}) == 10
    assert all(f"Question {request.prompt}?" in text(request) for request in requests)
    assert all(request.at is None for request in requests)


def test_an_open_loop_goes_round_its_rows(tmp_path):
    requests = made(write_rows(tmp_path, 7), cwd=tmp_path, mode="open", rate=10.0, duration_s=30)
    assert 250 < len(requests) < 350
    assert set(Counter(request.prompt for request in requests)) == set(range(7))
    assert all(request.at < 30 for request in requests)


def test_a_share_of_the_requests_begins_with_one_of_some_prefixes():
    spec = {**SYNTHETIC, "shared_prefix": {"tokens": 50, "count": 3, "share": "40%"}}
    result = prepared(spec, num_requests=500)
    requests = list(result.requests)
    shared = [request for request in requests if f"[{SALT}]" in text(request)]
    assert len(shared) / 500 == result.facts["shared_prefix"]["share"] == pytest.approx(0.4, abs=0.06)
    beginnings = Counter(text(request).split(f"[{DIGITS.decode()}]")[0] for request in shared)
    assert len(beginnings) == 3
    assert all(single_digits(beginning) == 50 for beginning in beginnings)
    assert {length(request) for request in shared} == {150}
    assert {length(request) for request in requests if request not in shared} == {100}


def test_prefixes_are_new_to_the_cache_in_every_measurement_unless_it_may_hit():
    spec = {**SYNTHETIC, "shared_prefix": {"tokens": 50}}

    def beginnings(workload):
        build_once = build(Workload.model_validate(workload), SERVER, seed=1, mode="closed", num_requests=1)
        return text(next(iter(build_once.requests)))[:60]

    assert beginnings(spec) != beginnings(spec)
    warm = {**spec, "nonce": False}
    assert beginnings(warm) == beginnings(warm)
    assert {length(request) for request in made(warm, num_requests=9)} == {150}


def test_a_prefix_comes_before_own_prompts_too(tmp_path):
    spec = {**write_rows(tmp_path, 3), "shared_prefix": {"tokens": 64}}
    for request in made(spec, cwd=tmp_path):
        prefix, _, rest = text(request).partition(f"[{DIGITS.decode()}] ")
        assert single_digits(prefix) == 64
        assert rest == f"Question {request.prompt}?"


def test_a_session_holds_the_marks_of_its_earlier_answers():
    spec = {**SYNTHETIC, "turns": 3, "think_time": "2s"}
    requests = made(spec, num_requests=6)
    assert [(request.session, request.turn, request.think_s) for request in requests] == [
        (session, turn, 2.0 if turn else 0.0) for session in (0, 1) for turn in range(3)
    ]
    assert [request.prompt for request in requests] == list(range(6))
    last = body(requests[2])["messages"]
    assert [message["role"] for message in last] == ["user", "assistant", "user", "assistant", "user"]
    assert [last[1]["content"], last[3]["content"]] == [answer_mark(0).decode(), answer_mark(1).decode()]
    assert last[:3] == body(requests[1])["messages"]
    assert requests[2].body.count(NONCE) == 1
    assert all(single_digits(message["content"]) == 100 for message in (last[2], last[4]))


def test_later_turns_come_no_earlier_than_their_pauses():
    requests = made({**SYNTHETIC, "turns": 3, "think_time": "2s"}, mode="open", rate=3.0, num_requests=9)
    for _, group in itertools.groupby(requests, lambda request: request.session):
        first, *later = [request.at for request in group]
        assert later == pytest.approx([first + 2, first + 4])


def test_lengths_in_and_out_are_drawn_apart():
    spec = {"synthetic": {"input_tokens": {"uniform": [60, 99]}, "output_tokens": {"uniform": [60, 99]}}}
    turns = [talk.turns[0] for talk in prepared(spec).requests.talks]
    same = sum(turn.input_tokens == turn.output_tokens for turn in turns)
    assert same < len(turns) / 10


def test_turns_are_drawn_and_the_rate_counts_turns():
    spec = {**SYNTHETIC, "turns": {"uniform": [1, 5]}}
    result = prepared(spec, mode="open", rate=30.0, duration_s=100)
    requests = list(result.requests)
    assert len(requests) / 100 == pytest.approx(30, rel=0.1)
    assert result.facts["turns_mean"] == pytest.approx(3, rel=0.1)
    sizes = Counter(request.session for request in requests if request.session >= 0)
    assert set(sizes.values()) == {2, 3, 4, 5}
    assert any(request.session == -1 for request in requests)
    for _, group in itertools.groupby(requests, key=lambda request: (request.session, request.at)):
        assert next(request.turn for request in group) == 0
    starts = [request.at for request in requests if request.turn == 0]
    assert starts == sorted(starts)


def test_conversations_end_where_the_context_does():
    small = replace(SERVER, max_model_len=250)
    result = prepared({**SYNTHETIC, "turns": 4}, server=small, num_requests=40)
    assert {request.turn for request in result.requests} == {0, 1}
    assert result.facts["turns_cut"] == 20


def test_a_prompt_that_cannot_fit_is_refused():
    with pytest.raises(InputError, match="has 107 tokens, answer included, but the server takes 106"):
        prepared(SYNTHETIC, server=replace(SERVER, max_model_len=106))
    with pytest.raises(InputError, match="has 157 tokens"):
        prepared({**SYNTHETIC, "shared_prefix": {"tokens": 50}}, server=replace(SERVER, max_model_len=120))


def test_models_are_mixed_by_weight():
    result = prepared({**SYNTHETIC, "models": {"lora-a": 3, "lora-b": 1}}, num_requests=800)
    requests = list(result.requests)
    assert result.facts["models"] == Counter(request.model for request in requests)
    assert result.facts["models"]["lora-a"] / 800 == pytest.approx(0.75, abs=0.05)
    assert all(body(request)["model"] == request.model for request in requests)


def test_a_session_keeps_its_model():
    requests = made({**SYNTHETIC, "turns": 4, "models": {"lora-a": 1, "lora-b": 1}}, num_requests=400)
    assert all(len({r.model for r in group}) == 1 for _, group in itertools.groupby(requests, lambda r: r.session))
    assert len({request.model for request in requests}) == 2


def test_an_unknown_model_of_the_mix_is_refused():
    with pytest.raises(InputError, match="no model 'lora-c', which the workload mixes in") as caught:
        prepared({**SYNTHETIC, "models": {"lora-a": 1, "lora-c": 1}})
    assert "it has m, lora-a, lora-b" in str(caught.value)


@pytest.mark.parametrize(
    ("spelling", "low", "high"),
    [("constant", 0, 0.01), ("poisson", 0.85, 1.15), ({"gamma": {"cv": 3}}, 2.5, 3.5), (None, 0.85, 1.15)],
)
def test_arrivals_are_as_the_workload_says(spelling, low, high):
    spec = SYNTHETIC if spelling is None else {**SYNTHETIC, "arrivals": spelling}
    result = prepared(spec, mode="open", rate=20.0, num_requests=3000)
    times = [request.at for request in result.requests]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    mean = fmean(gaps)
    assert mean == pytest.approx(1 / 20, rel=0.15)
    assert low <= fmean((gap - mean) ** 2 for gap in gaps) ** 0.5 / mean <= high
    assert result.facts["rate_mean"] == pytest.approx(20, rel=0.15)


def test_bursts_leave_their_pauses_empty():
    requests = made({**SYNTHETIC, "arrivals": {"bursts": {"on": "1s", "off": "3s"}}}, mode="open", rate=5.0,
                    duration_s=200)  # fmt: skip
    assert len(requests) == pytest.approx(1000, rel=0.15)
    assert all(request.at % 4 < 1 for request in requests)


def test_an_open_loop_without_a_rate_is_refused():
    with pytest.raises(InputError, match="needs a rate"):
        prepared(SYNTHETIC, mode="open")


def test_a_trace_has_its_own_times_and_lengths(tmp_path):
    requests = made(write_trace(tmp_path, 20), cwd=tmp_path, mode="open")
    assert [request.at for request in requests] == pytest.approx([number * 0.5 for number in range(20)])
    assert [length(request) for request in requests] == [50 + number for number in range(20)]
    assert [body(request)["max_tokens"] for request in requests] == list(range(1, 21))
    assert [request.prompt for request in requests] == list(range(20))


def test_a_trace_can_be_sped_up_scaled_to_a_rate_cut_or_given_other_times(tmp_path):
    trace = write_trace(tmp_path, 21)

    def last(settings=None, **given):
        result = prepared({**trace, **(settings or {})}, cwd=tmp_path, mode="open", **given)
        return len(result.requests), list(result.requests)[-1].at, result.facts

    assert last({"trace_speed": 4})[:2] == (21, pytest.approx(2.5))
    assert last(rate=8.0)[:2] == (21, pytest.approx(2.5))
    assert last({"limit": 5})[:2] == (5, pytest.approx(2.0))
    assert last({"trace_window": ["2s", "4s"]})[:2] == (4, pytest.approx(1.5))
    assert last(duration_s=3.0)[:2] == (6, pytest.approx(2.5))
    assert last(num_requests=3)[0] == 3
    assert last()[2]["arrivals"] == "of the trace"
    count, end, facts = last({"arrivals": "constant"}, rate=10.0, num_requests=31)
    assert (count, end, facts["arrivals"], facts["prompts"]) == (31, pytest.approx(3.0), "constant", 21)


def test_a_closed_loop_ignores_the_times_of_a_trace(tmp_path):
    assert [request.at for request in made(write_trace(tmp_path, 5), cwd=tmp_path)] == [None] * 5


def test_requests_of_a_trace_that_are_too_long_are_left_out_and_counted(tmp_path):
    trace = write_trace(tmp_path, 20)
    result = prepared(trace, cwd=tmp_path, mode="open", server=replace(SERVER, max_model_len=60))
    assert (len(result.requests), result.facts["left_out"]) == (5, 15)
    with pytest.raises(InputError, match=r"every request of .* is longer than the 50 tokens"):
        prepared(trace, cwd=tmp_path, mode="open", server=replace(SERVER, max_model_len=50))


def test_completions_take_a_prompt(tmp_path):
    result = prepared({**SYNTHETIC, "endpoint": "completions", "turns": 2}, num_requests=2)
    first, second = (body(request) for request in result.requests)
    assert result.path == "/completions"
    assert "messages" not in first
    assert second["prompt"].startswith(first["prompt"] + "\n" + answer_mark(0).decode() + "\n")
    assert prepared(SYNTHETIC).path == "/chat/completions"


def test_without_a_source_default_prompts_or_a_usual_length_are_taken():
    chats = [[{"role": "user", "content": f"Row {number}"}] for number in range(3)]
    result = prepared({}, default_prompts=chats)
    assert sorted(text(request)[20:] for request in result.requests) == ["Row 0", "Row 1", "Row 2"]
    assert result.facts["kind"] == "default prompts"
    usual = prepared({})
    assert (usual.facts["input_tokens_mean"], usual.facts["output_tokens_mean"]) == (512, 128)
    small = prepared({}, server=replace(SERVER, max_model_len=200)).facts
    assert (small["input_tokens_mean"], small["output_tokens_mean"]) == (120, 40)


def test_own_prompts_are_counted_where_that_is_cheap(tmp_path):
    rows = write_rows(tmp_path, 9)
    facts = prepared(rows, cwd=tmp_path).facts
    assert facts["input_tokens_mean"] == pytest.approx(single_digits("Question 7?"), abs=1.5)
    assert facts["tokenizer"] == "the server's /tokenize"
    unknown = prepared(rows, cwd=tmp_path, server=replace(SERVER, tokenize=None)).facts
    assert (unknown["input_tokens_mean"], unknown["tokenizer"]) == (None, None)


def test_texts_of_any_script_arrive_as_they_are(tmp_path):
    asked = ['日本語 🎉 \u2028 "quoted" \\', "half a pair \ud83d"]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": each}) + "\n" for each in asked))
    requests = made({"dataset": "p.jsonl", "nonce": False}, cwd=tmp_path)
    assert sorted(text(request) for request in requests) == sorted(asked)
    assert "日本語".encode() in b"".join(request.body for request in requests)


def test_facts_are_plain_data(tmp_path):
    for workload in (SYNTHETIC, write_rows(tmp_path, 3), write_trace(tmp_path, 3), {**SYNTHETIC, "turns": 2}):
        facts = prepared(workload, cwd=tmp_path).facts
        assert json.loads(json.dumps(facts)) == facts
        assert facts["seed"] == 1
        assert facts["requests"] > 0


def test_a_long_trace_is_made_one_request_at_a_time(tmp_path):
    (tmp_path / "trace.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        + "".join(f"2023-11-16 18:{n // 60:02d}:{n % 60:02d}.0,4000,10\n" for n in range(3600))
    )
    program = """
import resource, sys
from pathlib import Path
from orchestrator.loadgen.probe import Server
from orchestrator.loadgen.workload.config import Workload, build
words = lambda text: len(text.split())
server = Server("http://h/v1", "m", tokenize=words, template_tokens=0)
small = build(Workload(trace="trace.csv", limit=2), server, seed=1, mode="open", cwd=Path(sys.argv[1]))
before = sum(len(request.body) for request in small.requests) * 0 + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
large = build(Workload(trace="trace.csv"), server, seed=1, mode="open", cwd=Path(sys.argv[1]))
size = sum(len(request.body) for request in large.requests)
print(size, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    size, grown = map(int, done.stdout.split())
    assert size > 60_000_000
    assert grown < 10_000_000


def test_with_a_real_server_the_usage_is_the_wanted_length():
    with serving(FakeApi(count=single_digits)) as api:
        server = probe(api.url)
        result = prepared({"synthetic": {"input_tokens": {"uniform": [80, 400]}, "output_tokens": 3}}, server=server,
                          num_requests=5)  # fmt: skip
        wanted = [turn.input_tokens for talk in result.requests.talks for turn in talk.turns]
        assert [api.prompt_tokens(body(request)) for request in result.requests] == wanted
