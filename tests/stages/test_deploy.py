"""What the deploy stage says before it starts an engine."""

from typing import Any, cast

import pytest

from orchestrator import token_contract
from orchestrator.stages import deploy
from orchestrator.stages.base import Context
from orchestrator.token_contract import Golden, TokenContract


class Told:
    """A context that only listens."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def contract(**golden: Any) -> TokenContract:
    conversation = {"messages": [{"role": "user", "content": "Name it"}], "prompt_ids": [1], "answer_ids": [3]}
    found = Golden.model_validate({**conversation, "text": "MIT", "ended": True, "max_tokens": 8, **golden})
    return TokenContract(chat_template="x", special_tokens={}, stop_ids=[3], vocabulary=4, golden=found)


@pytest.mark.parametrize(("ended", "warnings"), [(False, 1), (True, 0)])
def test_a_model_that_never_learned_to_end_is_deployed_with_a_warning(tmp_path, ended, warnings):
    token_contract.write(contract(ended=ended), tmp_path)
    told = Told()
    deploy._warn_if_endless(tmp_path, cast(Context, told))
    assert len([text for text in told.said if "parity.reference.stops" in text]) == warnings


def test_an_export_without_a_contract_is_deployed_without_a_word(tmp_path):
    told = Told()
    deploy._warn_if_endless(tmp_path, cast(Context, told))
    assert told.said == []
