"""When an engine counts as ready, against processes that misbehave and a server that says what a test tells it to."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from orchestrator import processes
from orchestrator.engines import llama_cpp, running
from orchestrator.engines.base import Launch
from orchestrator.environments.environment import OWN
from orchestrator.errors import EngineError
from orchestrator.token_contract import Golden, TokenContract
from tests.engines.test_client import ANSWER, engine

MODELS = {"data": [{"id": "tiny@1"}]}


def ready(
    url: str,
    process: processes.GuardedProcess,
    *,
    contract: TokenContract | None = None,
    timeout_s: float = 20,
    attach: Callable[[Launch], None] = lambda launch: None,
) -> float:
    port = urlsplit(url).port
    assert port
    launch = Launch(Path("m"), "tiny@1", "127.0.0.1", port, Path("."), OWN)
    found = running.Running(SimpleNamespace(**{**vars(llama_cpp), "attach": attach}), launch, process)
    return running.wait_until_ready(found, contract=contract, timeout_s=timeout_s)


@pytest.fixture
def living(tmp_path) -> Iterator[processes.GuardedProcess]:
    """A process that lives until the test ends."""
    started = processes.start([sys.executable, "-c", "import signal; signal.pause()"], log=tmp_path / "log")
    yield started
    started.stop()


def test_an_engine_that_loads_answers_503_until_it_generates(living):
    loading = iter([True, True])

    def reply(path: str) -> tuple[int, Any]:
        if path.endswith("/models"):
            return (503, {"error": "Loading model"}) if next(loading, False) else (200, MODELS)
        return 200, ANSWER

    with engine(reply) as url:
        assert ready(url, living) > 0


def test_a_dead_process_is_an_error_with_the_end_of_its_log(tmp_path):
    dead = processes.start([sys.executable, "-c", "print('no such model'); raise SystemExit(3)"], log=tmp_path / "log")
    with pytest.raises(EngineError, match=r"(?s)exit code 3 before it was ready.*no such model"):
        ready("http://127.0.0.1:9/v1", dead)


def test_another_server_on_the_port_is_not_taken_for_ours(living):
    with (
        engine(lambda path: (200, {"data": [{"id": "other"}]})) as url,
        pytest.raises(EngineError, match="serves other"),
    ):
        ready(url, living)


def test_a_server_is_attached_to_once_and_before_it_is_asked_for_a_token(living):
    asked: list[str] = []
    loading = iter([True, False])

    def reply(path: str) -> tuple[int, Any]:
        asked.append(path)
        if path.endswith("completions") and next(loading, False):
            return 503, {}
        return (200, MODELS) if path.endswith("/models") else (200, ANSWER)

    with engine(reply) as url:
        ready(url, living, attach=lambda launch: asked.append("attach"))
    assert asked[:3] == ["/v1/models", "attach", "/v1/models"]
    assert asked[3:] == ["/v1/chat/completions"] * 2


def test_an_engine_that_cannot_be_attached_to_is_not_ready(living):
    def attach(launch: Launch) -> None:
        raise EngineError("it serves m2.gguf")

    with engine(lambda path: (200, MODELS)) as url, pytest.raises(EngineError, match="it serves m2"):
        ready(url, living, attach=attach)


def test_an_engine_whose_kernels_fail_is_not_ready_though_it_lists_its_model(living):
    def reply(path: str) -> tuple[int, Any]:
        return (200, MODELS) if path.endswith("/models") else (500, {"error": "no kernel image"})

    with engine(reply) as url, pytest.raises(EngineError, match="no kernel image"):
        ready(url, living)


def test_waiting_ends_at_the_time_out(living):
    with engine(lambda path: (503, {})) as url, pytest.raises(EngineError, match="not ready after 0 s"):
        ready(url, living, timeout_s=0.2)


def contract(**golden: Any) -> TokenContract:
    conversation = {"messages": [{"role": "user", "content": "Name it"}], "prompt_ids": [1, 2], "answer_ids": [3]}
    values = {**conversation, "text": "MIT", "ended": True, "max_tokens": 8, **golden}
    return TokenContract(
        chat_template="{{ messages }}", special_tokens={}, stop_ids=[3], vocabulary=4, golden=Golden(**values)
    )


KEPT = ANSWER | {"usage": {"prompt_tokens": 2, "completion_tokens": 2}}
CUT = KEPT | {"choices": [{"message": {"content": "M"}, "finish_reason": "length"}]}


def keeping(**changed: Any) -> Any:
    """A server as llama.cpp's that keeps the contract, but for what is changed."""

    def reply(path: str) -> tuple[int, Any]:
        bodies = {"models": MODELS, "props": {"chat_template": "{{ messages }}"}, "completions": KEPT}
        bodies |= {"apply-template": {"prompt": "Name it"}, "tokenize": {"tokens": [1, 2]}}
        return 200, (bodies | changed)[path.rpartition("/")[2]]

    return reply


def test_a_server_that_keeps_the_token_contract_is_ready(living):
    with engine(keeping()) as url:
        assert ready(url, living, contract=contract()) > 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"props": {"chat_template": "other"}}, "its chat template is not the one of training"),
        ({"tokenize": {"tokens": [1, 9, 2]}}, r"3 tokens instead of 2, the first difference is at position 1"),
        ({"completions": ANSWER}, "it counts 9 prompt tokens, not 2, in the golden conversation"),
        ({"completions": CUT}, "did not end within 8 tokens"),
    ],
)
def test_a_server_that_breaks_the_token_contract_is_not_ready(living, changed, message):
    with engine(keeping(**changed)) as url, pytest.raises(EngineError, match=message):
        ready(url, living, contract=contract())


def test_a_model_that_never_learned_to_end_is_not_held_against_its_server(living):
    with engine(keeping(completions=CUT)) as url:
        assert ready(url, living, contract=contract(ended=False)) > 0
