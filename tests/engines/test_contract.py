"""Every file of the engines folder keeps the contract; nothing here knows an engine by name."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestrator import engines, plugins
from orchestrator.catalog.catalog import load
from orchestrator.config import Model, help_texts
from orchestrator.engines.base import Engine, Launch
from orchestrator.environments.environment import Installed
from orchestrator.errors import InputError
from orchestrator.loadgen.scrape import EngineMetrics


@pytest.fixture(params=plugins.names(engines))
def engine(request) -> Engine:
    return plugins.load(engines, request.param)


def test_it_has_every_part_of_the_protocol(engine):
    parts = [name for name in [*Engine.__annotations__, *vars(Engine)] if not name.startswith("_")]
    assert [name for name in parts if not hasattr(engine, name)] == []


def test_its_options_are_a_model_with_defaults_and_help(engine):
    assert issubclass(engine.Options, Model)
    engine.Options()
    texts = help_texts(engine.Options)
    assert [name for name in engine.Options.model_fields if not texts.get(name)] == []
    with pytest.raises(ValidationError):
        engine.Options(no_such_option=1)


def test_what_it_makes_is_served_somewhere_and_every_refusal_has_a_reason(engine):
    assert engine.QUANTIZATIONS
    answers = {name: [engine.supports(name, gpu) for gpu in (None, *load().gpus)] for name in engine.QUANTIZATIONS}
    assert [name for name, found in answers.items() if not any(support.ok for support in found)] == []
    assert all(support.ok or support.reason for found in answers.values() for support in found)


def test_an_unknown_quantization_is_refused_with_the_known_ones(engine):
    support = engine.supports("nonsense", None)
    assert not support.ok
    assert engine.QUANTIZATIONS[0] in support.reason


def launch(folder: Path) -> Launch:
    return Launch(folder, "legal@3", "127.0.0.1", 4321, folder / "run", Installed(name="x", version="1", where="path"))


def test_its_command_names_model_host_and_port(engine, tmp_path):
    command = engine.command(launch(tmp_path), engine.Options())
    assert any(part.startswith(str(tmp_path)) for part in command)
    assert {"127.0.0.1", "4321"} <= set(command)
    assert all(isinstance(part, str) for part in command)


def test_its_files_are_texts_and_its_name_for_the_model_is_known(engine, tmp_path):
    assert all(isinstance(text, str) for text in engine.files(launch(tmp_path), engine.Options()).values())
    assert engine.served_name(launch(tmp_path))


def test_it_takes_the_canonical_fields_of_a_request(engine):
    assert {"temperature", "top_p", "max_tokens", "stop", "stream", "stream_options"} <= engine.REQUEST_FIELDS


def test_it_says_nothing_about_a_log_that_it_does_not_know(engine):
    assert engine.diagnose("loading weights\nserving") is None


def test_options_for_a_context_are_options(engine):
    assert isinstance(engine.options_for(1000), engine.Options)


def test_its_variables_are_texts(engine, tmp_path):
    assert all(isinstance(value, str) for value in engine.environment(launch(tmp_path), engine.Options()).values())


def test_metrics_that_are_not_there_are_unknown(engine):
    assert engine.parse_metrics("") == EngineMetrics()


def test_an_unknown_engine_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="did you mean 'llama_cpp'"):
        plugins.load(engines, "lama_cpp")
