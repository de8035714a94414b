"""The short spellings of `orch bench run`."""

import pytest

from orchestrator.bench.sweep import SweepPlan
from orchestrator.cli import bench_options as options
from orchestrator.cli.bench_options import Given, checked
from orchestrator.cli.bench_options import plan as options_of
from orchestrator.errors import InputError
from orchestrator.loadgen.workload.config import Workload


def workload(**given):
    names = ("prompts", "trace", "trace_speed", "input_tokens", "output_tokens", "shared_prefix", "turns")
    return Workload.model_validate(options.workload(dict.fromkeys(names) | given))


def test_a_list_of_numbers():
    assert options.numbers("-c", "1, 8,64", int) == [1, 8, 64]
    assert options.numbers("--rate", "0.5,2", float) == [0.5, 2.0]


@pytest.mark.parametrize("text", ["", "1,,2", "eight", "0", "-1", "1,1", "1.5"])
def test_what_is_no_list_of_streams(text):
    with pytest.raises(InputError, match=r"^-c "):
        options.numbers("-c", text, int)


def test_limits_of_an_slo():
    assert options.slo("ttft=500ms, tpot=50ms,share=95%") == {"ttft": "500ms", "tpot": "50ms", "share": 0.95}


@pytest.mark.parametrize("text", ["", "ttft", "speed=5ms", "share=90%", "ttft=500ms,ttft=1s", "ttft=1s,share=120%"])
def test_what_is_no_slo(text):
    with pytest.raises(InputError, match=r"^--slo "):
        options.slo(text)


def test_nothing_given_is_synthetic():
    asked = workload().synthetic
    assert (asked.input_tokens.fixed, asked.output_tokens.fixed) == (256, 128)


def test_distributions_in_short():
    assert workload(input_tokens="100-500").synthetic.input_tokens.uniform == (100, 500)
    drawn = workload(input_tokens="lognormal:400,0.8").synthetic.input_tokens.lognormal
    assert (drawn.median, drawn.sigma) == (400, 0.8)
    assert workload(output_tokens="file:lengths.txt").synthetic.output_tokens.file == "lengths.txt"
    assert workload(input_tokens="2k").synthetic.input_tokens.fixed == 2000
    assert workload(turns="2-6").turns.uniform == (2, 6)


@pytest.mark.parametrize("text", ["lognormal:400", "lognormal:400,wide", "lognormal:1,2,3"])
def test_what_is_no_distribution(text):
    with pytest.raises(InputError, match=r"--input-tokens .* lognormal:400,0.8"):
        workload(input_tokens=text)


def test_prompts_of_a_file_have_lengths_of_their_own():
    asked = workload(prompts="chats.jsonl", output_tokens="64")
    assert (asked.dataset, asked.output_tokens.fixed, asked.synthetic) == ("chats.jsonl", 64, None)


def test_a_trace_with_its_speed():
    asked = workload(trace="azure.csv", trace_speed="2")
    assert (asked.trace, asked.trace_speed) == ("azure.csv", 2.0)


def given(**options):
    asked = {name: options.pop(name) for name in ("prompts", "trace", "input_tokens") if name in options}
    return Given(model=None, api_key=None, usd_per_hour=None, name=None, plan=options, workload=asked)


def plan(**options):
    return SweepPlan.model_validate(options_of(given(**options)))


def test_without_options_three_loads_take_about_a_minute():
    found = plan()
    assert (found.concurrency, found.request_rate) == ([1, 8, 32], [])
    assert found.duration == 15


def test_the_length_of_a_cell_is_what_was_asked_for():
    assert plan(requests=50).duration is None
    assert plan(requests=50).num_requests == 50
    assert plan(duration="2m").duration == 120
    assert (plan(rate="2,4").request_rate, plan(rate="2,4").concurrency, plan(rate="2").duration) == ([2, 4], [], None)


def test_a_warm_up_in_requests_or_in_time():
    assert plan(warmup="7").warmup == 7
    assert plan(warmup="7s").warmup_duration == 7


def test_a_trace_is_replayed_at_its_own_times_up_to_a_number_of_requests():
    found = plan(trace="azure.csv", requests=20)
    assert (found.concurrency, found.request_rate, found.num_requests) == ([], [], None)
    assert found.workload.limit == 20


def test_what_was_chosen_is_known_by_its_options():
    assert given().chosen == []
    assert given(duration="5s", input_tokens="8").chosen == ["--duration", "--input-tokens"]


def test_a_wrong_value_names_its_option():
    for wrong, said in (
        ({"duration": "long"}, "--duration: 'long' is not seconds"),
        ({"max_tokens": 0}, "--max-tokens: "),
        ({"warmup": "long"}, "--warmup: 'long' is not seconds"),
    ):
        with pytest.raises(InputError, match=f"^{said}"):
            checked(SweepPlan, options_of(given(**wrong)))


def test_shared_prefixes():
    assert options.prefix("1000") == {"tokens": "1000"}
    assert options.prefix("1000x4:80%") == {"tokens": "1000", "count": 4, "share": 0.8}
    assert workload(shared_prefix="1k:50%").shared_prefix.share == 0.5


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.05", 0.05), ("0%", 0.0)])
def test_a_share(text, share):
    assert options.percent("--fail-on-regression", text) == share


def test_limits_on_regressions_are_one_for_all_or_by_metric():
    assert options.regressions("5%") == 0.05
    assert options.regressions("ttft_p95=5%, output_tokens_per_s=0.03") == {
        "ttft_p95": 0.05,
        "output_tokens_per_s": 0.03,
    }
    with pytest.raises(InputError, match="there is no metric 'ttft_p59'; did you mean 'ttft_p9"):
        options.regressions("ttft_p59=5%")
    with pytest.raises(InputError, match="write a share such as 5%"):
        options.regressions("ttft_p95=fast")
