"""The contract of every plug-in folder, over every file found in it."""

import inspect

import pytest

from orchestrator import plugins, stages
from orchestrator.config import Model, help_texts
from orchestrator.errors import InputError


@pytest.mark.parametrize("name", plugins.names(stages))
def test_a_stage_has_a_config_an_estimate_and_a_run(name: str) -> None:
    stage = plugins.load(stages, name)
    assert issubclass(stage.Config, Model)
    assert isinstance(stage.LIBRARIES, tuple)
    assert list(inspect.signature(stage.estimate).parameters) == ["config"]
    assert list(inspect.signature(stage.run).parameters) == ["config", "context"]
    assert stage.__doc__


@pytest.mark.parametrize("name", plugins.names(stages))
def test_every_field_of_a_stage_says_what_it_means(name: str) -> None:
    config = plugins.load(stages, name).Config
    texts = help_texts(config)
    named = [field.alias or key for key, field in config.model_fields.items()]
    assert [key for key in named if not texts.get(key)] == []


def test_an_unknown_plug_in_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown stage 'trian'; did you mean 'train'\?"):
        plugins.load(stages, "trian")
