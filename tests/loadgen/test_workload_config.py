"""The settings of a workload: how they are spelled in a recipe, and which of them contradict each other."""

import pytest
from pydantic import ValidationError

from orchestrator import documents
from orchestrator.errors import RecipeError
from orchestrator.loadgen.workload.spec import Workload
from orchestrator.units import Seconds, Tokens
from orchestrator.validation import validate


def workload(**settings):
    return Workload.model_validate(settings)


def problems(**settings):
    with pytest.raises(ValidationError) as caught:
        Workload.model_validate(settings)
    return [
        f"{'.'.join(map(str, error['loc']))}: {error['msg'].removeprefix('Value error, ')}"
        for error in caught.value.errors()
    ]


def test_a_plain_number_is_a_fixed_length():
    synthetic = workload(synthetic={"input_tokens": 512, "output_tokens": "2k"}).synthetic
    assert synthetic.input_tokens.fixed == Tokens(512)
    assert synthetic.output_tokens.fixed == Tokens(2000)


@pytest.mark.parametrize(
    ("spelling", "shown"),
    [
        (512, "512"),
        ({"uniform": [100, 500]}, "100 to 500"),
        ({"lognormal": {"median": 400, "sigma": 0.8, "max": 4000}}, "log-normal, median 400, sigma 0.8"),
        ({"lognormal": {"mean": 400, "sigma": 1}}, "log-normal, mean 400, sigma 1"),
        ({"file": "lengths.txt"}, "as in lengths.txt"),
    ],
)
def test_every_spelling_of_a_distribution(spelling, shown):
    assert str(workload(synthetic={"input_tokens": spelling}).synthetic.input_tokens) == shown


@pytest.mark.parametrize(
    ("spelling", "shown"),
    [
        ("constant", "constant"),
        ("poisson", "poisson"),
        ({"gamma": {"cv": 2}}, "gamma, cv 2"),
        ({"bursts": {"on": "2s", "off": "8s"}}, "bursts of 2 s, pauses of 8 s"),
    ],
)
def test_every_spelling_of_arrivals(spelling, shown):
    assert str(workload(arrivals=spelling).arrivals) == shown


def test_a_share_may_be_written_in_percent():
    assert workload(shared_prefix={"tokens": 1000, "share": "80%"}).shared_prefix.share == 0.8


def test_pauses_have_a_unit():
    assert workload(turns=3, think_time="500ms").think_time.fixed == Seconds(0.5)
    assert workload(turns=3, think_time={"uniform": ["1s", "1m"]}).think_time.uniform == (Seconds(1), Seconds(60))


def test_what_was_read_is_written_and_read_again():
    settings = {
        "synthetic": {"input_tokens": {"uniform": [1, 9]}, "output_tokens": 5},
        "shared_prefix": {"tokens": 64, "count": 3, "share": 0.5},
        "turns": {"lognormal": {"median": 3, "sigma": 0.5, "max": 9}},
        "think_time": "2s",
        "models": {"a": 1, "b": 3},
        "arrivals": {"bursts": {"on": "2s", "off": "8s"}},
    }
    first = workload(**settings)
    assert Workload.model_validate(first.model_dump(mode="json")) == first
    assert Workload.model_validate(first.model_dump()) == first


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"dataset": "a", "trace": "b"}, "trace: a workload has one source of prompts, and dataset is another one"),
        ({"synthetic": {}, "dataset": "b"}, "synthetic: a workload has one source of prompts, and dataset is another"),
        ({"synthetic": {}, "trace": "b"}, "trace: a workload has one source of prompts, and synthetic is another one"),
        ({"trace": "a", "turns": 2}, "turns: a trace is replayed as it was recorded"),
        ({"trace": "a", "shared_prefix": {"tokens": 9}}, "shared_prefix: a trace is replayed as it was recorded"),
        ({"trace": "a", "output_tokens": 9}, "output_tokens: a trace has its own lengths of answers"),
        ({"synthetic": {}, "output_tokens": 9}, "output_tokens: synthetic prompts have their own: write synthetic."),
        ({"dataset": "a", "think_time": "1s"}, "think_time: a pause between turns needs `turns`"),
        ({"dataset": "a", "trace_speed": 2}, "trace_speed: needs a `trace`"),
        ({"trace_window": ["0s", "1m"]}, "trace_window: needs a `trace`"),
        ({"trace": "a", "trace_window": ["2m", "1m"]}, "trace_window: a window goes from an earlier to a later time"),
        ({"trace": "a", "trace_speed": 2, "arrivals": "poisson"}, "trace_speed: the times are either the trace's"),
        ({"synthetic": {}, "limit": 5}, "limit: synthetic prompts have no end"),
        ({"turns": 0}, "turns: must be at least 1"),
        ({"synthetic": {"input_tokens": 0}}, "synthetic.input_tokens: must be at least 1"),
        ({"synthetic": {"input_tokens": "many"}}, "synthetic.input_tokens.fixed: 'many' is not tokens"),
        ({"synthetic": {"input_tokens": {}}}, "synthetic.input_tokens: give one of a plain value, uniform"),
        (
            {"synthetic": {"input_tokens": {"fixed": 5, "uniform": [1, 2]}}},
            "synthetic.input_tokens: give one of a plain value, uniform, lognormal and file, not fixed and uniform",
        ),
        ({"synthetic": {"input_tokens": {"uniform": [9, 1]}}}, "synthetic.input_tokens: uniform goes from the smaller"),
        (
            {"turns": {"lognormal": {"median": 3, "mean": 4, "sigma": 1}}},
            "turns.lognormal: give either a median or a mean",
        ),
        ({"turns": {"lognormal": {"median": 3, "sigma": 1, "min": 9, "max": 2}}}, "turns.lognormal: min 9 is above"),
        ({"models": {"a": 0}}, "models.a: Input should be greater than 0"),
        ({"shared_prefix": {"tokens": 9, "share": 2}}, "shared_prefix.share: Input should be less than or equal to 1"),
        ({"arrivals": "often"}, "arrivals.kind: Input should be 'poisson' or 'constant'"),
        ({"arrivals": {}}, "arrivals: give one of poisson, constant,"),
        ({"arrivals": {"bursts": {"on": "0s", "off": "1s"}}}, "arrivals.bursts.on: a burst must last longer than 0 s"),
    ],
)
def test_a_contradiction_is_one_error_at_its_key(settings, problem):
    (found,) = problems(**settings)
    assert found.startswith(problem)


def test_a_recipe_names_the_line_and_the_nearest_key(tmp_path):
    recipe = tmp_path / "workload.yaml"
    recipe.write_text("synthetic:\n  input_token: 512\narrivals: {bursts: {on: 2s, off: 8s}}\nturns: none\n")
    with pytest.raises(RecipeError) as caught:
        validate(Workload, documents.read(recipe), name="workload.yaml")
    message = str(caught.value)
    assert "workload.yaml:2" in message
    assert "did you mean 'input_tokens'?" in message
    assert "workload.yaml:4" in message
    assert "2 problems" in message


def test_a_title_says_what_it_is():
    assert workload(name="chat").title == "chat"
    assert workload(synthetic={"input_tokens": 512, "output_tokens": {"uniform": [1, 9]}}).title == "512 in, 1 to 9 out"
    assert workload(trace="folder/azure.csv").title == "azure.csv"
    assert workload().title == "default"


def test_the_files_that_it_reads_are_listed():
    settings = {"synthetic": {"input_tokens": {"file": "in.txt"}}, "tokenizer": "tok", "turns": {"file": "turns.txt"}}
    assert sorted(workload(**settings).files()) == ["in.txt", "tok", "turns.txt"]
    assert list(workload(dataset="a.jsonl").files()) == ["a.jsonl"]


def test_the_schema_knows_the_short_spellings():
    schema = Workload.model_json_schema()["$defs"]
    assert schema["Arrivals"]["anyOf"][0] == {"enum": ["poisson", "constant"]}
    assert schema["Distribution_Tokens_"]["anyOf"][0] == {"type": ["number", "string"]}


def test_every_setting_has_a_sentence_of_help():
    schema = Workload.model_json_schema()
    assert all(field.get("description") for field in schema["properties"].values())
