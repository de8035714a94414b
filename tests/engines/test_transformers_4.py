"""Settings of transformers 5 as transformers 4 reads them."""

import pytest

from orchestrator.engines import _transformers_4
from orchestrator.errors import InputError


def test_rotary_settings_get_their_older_names_beside_the_new_ones():
    plain = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
    assert _transformers_4.config(plain) == plain | {"rope_theta": 1e6}
    assert _transformers_4.config({"hidden_size": 64}) == {"hidden_size": 64}
    assert _transformers_4.config(plain | {"rope_theta": 5.0})["rope_theta"] == 5.0, "what stands there stays"


def test_layers_of_two_kinds_have_two_bases_and_a_text_model_inside_has_its_own():
    full = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
    kinds = {"full_attention": full, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
    found = _transformers_4.config({"text_config": {"rope_parameters": kinds}})["text_config"]
    assert (found["rope_theta"], found["rope_local_base_freq"]) == (1e6, 1e4)
    assert found["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}


def test_kinds_of_layers_without_a_name_there_are_refused():
    with pytest.raises(InputError, match="rotary settings of layers linear_attention have no name in transformers 4"):
        _transformers_4.config({"rope_parameters": {"linear_attention": {"rope_type": "default"}}})


def test_a_tokenizer_of_transformers_4_stays_as_it_is():
    old = {"tokenizer_class": "Qwen2Tokenizer", "additional_special_tokens": ["<x>"], "extra_special_tokens": {}}
    assert _transformers_4.tokenizer_config(old) == old
