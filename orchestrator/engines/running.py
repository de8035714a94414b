"""One engine process: started, asked whether it is ready, watched, stopped. The same for every engine.

    with running.engine("vllm", export, options, alias="legal@3", directory=logs, site=site) as served:
        served.chat(messages, Sampling(max_tokens=64))

Ready means that it answered the golden conversation as the token contract says: a refused connection and status 503 are
an engine that loads, and a 200 from /health proves neither that its kernels run nor that it is the right model.
"""

import dataclasses
import http.client
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import engines, plugins, processes, token_contract
from orchestrator.engines import client
from orchestrator.engines.base import Launch
from orchestrator.engines.client import Answer, Sampling
from orchestrator.environments import devices
from orchestrator.environments.environment import Kind
from orchestrator.environments.site import Site
from orchestrator.errors import EngineError
from orchestrator.processes import GuardedProcess
from orchestrator.token_contract import TokenContract

HOST = "127.0.0.1"
READY_TIMEOUT_S = 600.0
_PAUSE_S = 0.05
_LINES_WITH_A_CAUSE = 400
"""Of the end of a log: a Python engine writes the stacks of all its processes after the cause."""
_HELLO = [{"role": "user", "content": "Hello"}]


@dataclass(frozen=True)
class Running:
    """An engine's process, and how to ask it."""

    engine: Any
    """Its module."""
    launch: Launch
    process: GuardedProcess

    @property
    def url(self) -> str:
        """Base URL with /v1."""
        return self.launch.url

    @property
    def model(self) -> str:
        """The name that requests to it carry."""
        return str(self.engine.served_name(self.launch))

    @property
    def fields(self) -> dict[str, Any]:
        """What each request must say besides."""
        return dict(self.engine.request_fields(self.launch))

    def chat(
        self, messages: Sequence[Mapping[str, Any]], sampling: Sampling, *, timeout_s: float = READY_TIMEOUT_S
    ) -> Answer:
        """One whole answer. Raises EngineError for any other."""
        fields = self.engine.REQUEST_FIELDS
        return client.chat(
            self.url, self.model, messages, sampling, fields=fields, extra=self.fields, timeout_s=timeout_s
        )

    def failed(self, what: str) -> EngineError:
        """The error for an engine that cannot go on: the cause that its log tells, else the end of the log."""
        cause = self.engine.diagnose(self.process.last_lines(_LINES_WITH_A_CAUSE))
        said = cause or f"the end of its log:\n{self.process.last_lines()}"
        return EngineError(f"{what}; {said}", next_step=f"read {self.process.log}")


@contextmanager
def engine(
    name: str,
    model: Path,
    options: Any,
    *,
    alias: str,
    directory: Path,
    site: Site,
    port: int | None = None,
    keeps_contract: bool = True,
) -> Iterator[Running]:
    """The engine, ready, for as long as the block lasts. Raises EngineError when it does not get ready.

    With `keeps_contract` an export whose server breaks the token contract is not ready either.
    """
    found = start(name, model, options, alias=alias, directory=directory, site=site, port=port)
    try:
        wait_until_ready(found, contract=token_contract.read(model) if keeps_contract else None)
        yield found
    finally:
        found.process.stop()


def start(
    name: str,
    model: Path,
    options: Any,
    *,
    alias: str,
    directory: Path,
    site: Site,
    port: int | None = None,
) -> Running:
    """The process, which still loads; its log is `directory/alias.log`. The environment is installed if need be.

    Raises EngineError for a port in use: an engine there, of the same name, would be taken for this one.
    """
    if port and not processes.is_free(port):
        raise EngineError(
            f"port {port} of {HOST} is in use", next_step="choose another port, or stop what listens there"
        )
    module = plugins.load(engines, name)
    installed = site.ensure(next(iter(module.ENVIRONMENTS), None))
    launch = Launch(
        model=model,
        alias=alias,
        host=HOST,
        port=port or processes.free_port(),
        directory=directory,
        installed=installed,
        options=options,
    )
    variables = _variables(launch, module, site.kind)
    inside = installed.serving(alias, directory, reads=_read(launch, module), variables=variables)
    launch = dataclasses.replace(launch, installed=inside)
    directory.mkdir(parents=True, exist_ok=True)
    for file, text in module.files(launch, options).items():
        (directory / file).write_text(text)
    process = processes.start(
        module.command(launch, options),
        log=directory / f"{alias}.log",
        environment=variables,
        grace_s=module.STOP_GRACE_S,
        cleanup=inside.removal,
    )
    return Running(module, launch, process)


def _read(launch: Launch, module: Any) -> list[Path]:
    """Files and folders that the command names: the model, the base of an adapter."""
    words = module.command(launch, launch.options)[len(launch.installed.prefix) :]
    return [Path(word) for word in words if Path(word).is_absolute() and Path(word).exists()]


def _variables(launch: Launch, module: Any, kind: Kind) -> dict[str, str | None]:
    """What its process gets on top; None is taken away: our packages would hide those of its environment."""
    found = devices.variables(kind, devices.visible(kind, os.environ))
    own = {"PYTHONPATH": None} if launch.installed.where in ("environment", "container") else {}
    given: dict[str, str] = module.environment(launch, launch.options)
    return found | own | given


def wait_until_ready(found: Running, *, contract: TokenContract | None, timeout_s: float = READY_TIMEOUT_S) -> float:
    """Seconds until the engine serves the alias and keeps the contract.

    Raises EngineError when the process ends, answers wrongly, breaks the contract, or needs longer than `timeout_s`.
    """
    started = time.monotonic()
    steps: list[Callable[[float], object]] = [
        lambda left_s: found.engine.models(found.launch),
        lambda left_s: _attach(found),
        lambda left_s: _probe(found, contract, left_s),
    ]
    for step in steps:
        while not _done(found, step, started + timeout_s):
            code = found.process.poll()
            if code is not None:
                raise found.failed(f"the engine ended with {processes.died_of(code)} before it was ready")
            if time.monotonic() - started > timeout_s:
                raise found.failed(f"the engine was not ready after {timeout_s:.0f} s")
            time.sleep(_PAUSE_S)
    return time.monotonic() - started


def _done(found: Running, step: Callable[[float], object], deadline: float) -> bool:
    """Whether the step could be taken; False while the engine loads."""
    try:
        step(max(1.0, deadline - time.monotonic()))
    except client.StatusError as error:
        if error.status == client.LOADING:
            return False
        raise found.failed(f"the engine cannot answer: {error}") from error
    except (OSError, http.client.HTTPException):
        return False  # refused, or cut because it is ending: the next poll tells
    except (KeyError, TypeError, ValueError) as error:
        raise found.failed(f"the server at {found.url} does not answer like an engine: {error!r}") from error
    return True


def _attach(found: Running) -> None:
    """Raises EngineError unless it then serves the model under its name."""
    found.engine.attach(found.launch)
    served = found.engine.models(found.launch)
    if found.model not in served:
        raise found.failed(f"the server at {found.url} serves {', '.join(served)}, not {found.model!r}")


def _probe(found: Running, contract: TokenContract | None, timeout_s: float) -> None:
    """Two tokens; with a contract, the golden conversation. Raises EngineError."""
    golden = contract.golden if contract else None
    messages, most = (golden.messages, golden.max_tokens) if golden else (_HELLO, 2)
    body = client.request(
        found.model, messages, Sampling(max_tokens=most), fields=found.engine.REQUEST_FIELDS, extra=found.fields
    )
    text = client.get_or_post(f"{found.url}/chat/completions", body, timeout_s=timeout_s)
    answer = client.answer_of(json.loads(text))
    if not answer.completion_tokens:
        raise found.failed("the engine's answer has no token")
    if contract is not None:
        _check_contract(found, contract, answer)


def _check_contract(found: Running, contract: TokenContract, answer: Answer) -> None:
    golden = contract.golden
    ids = found.engine.prompt_tokens(found.launch, golden.messages) if golden else None
    problems = token_contract.broken(contract, ids, found.engine.chat_template(found.launch))
    if golden and answer.prompt_tokens != len(golden.prompt_ids):
        counted = f"{answer.prompt_tokens} prompt tokens, not {len(golden.prompt_ids)}"
        problems.append(f"it counts {counted}, in the golden conversation")
    if golden and golden.ended and answer.finish_reason != "stop":
        problems.append(f"its answer to the golden conversation did not end within {golden.max_tokens} tokens")
    if problems:
        raise EngineError(
            f"{found.launch.alias} does not keep the token contract of its training: {'; '.join(problems)}",
            next_step="export the model again; its tokenizer, chat template and end tokens must be those of training",
        )
