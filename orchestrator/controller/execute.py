"""Executes one stage of a run, inside the Ray actor that holds the stage's resources.

`execute` runs in one thread; `stop`, from another one of the same process, ends it with what it can save.
"""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from orchestrator import fencing, plugins, processes, stages
from orchestrator.controller import causes
from orchestrator.controller.heartbeat import SILENCE, Heartbeat, Patience
from orchestrator.controller.telling import recorder
from orchestrator.environments.environment import kind_of
from orchestrator.environments.site import Site
from orchestrator.errors import InfrastructureError, OrchError, WorkerDiedError, disk_full, from_record, is_disk_full
from orchestrator.fencing import Writer
from orchestrator.planner.plan import Plan
from orchestrator.stages.base import Context, Emit, Outputs
from orchestrator.store.store import Store

_PACKAGE = Path(stages.__file__).parents[1]
WORKER_GRACE_S = 120.0
"""Between SIGTERM and SIGKILL of a worker: long enough for the rest of an optimizer step and a checkpoint."""
_ENDING_S = WORKER_GRACE_S + 10.0
"""As long as that, the attempt before may still be ending well."""
_LOOK_S = 0.5
_STACKS_BYTES = 20_000
_SAID_BYTES = 64_000
"""A process that aborts writes the frames of all its threads behind the cause."""


def execute(home: str, run: str, stage: str, fence: int | None = None) -> dict[str, Any] | None:
    """Run the stage, or take the result of another run that made the same at the same time; its outputs as JSON.

    `fence` is that of the attempt's Claim: from now on no older attempt may write into the stage's folder.

    None when `stop` ended it. Raises the stage's own OrchError, StaleClaimError when a newer attempt has begun.
    """
    try:
        return _execute(Store(Path(home)), run, stage, fence)
    except processes.Stopped:
        return None
    except Exception as error:
        if processes.stopping():  # it failed since its processes were taken away
            return None
        if isinstance(error, OSError) and is_disk_full(error):
            raise disk_full(error.filename or home) from error
        raise


def stop() -> None:
    """End the stage that this process executes, or will be asked to: its processes get SIGTERM and WORKER_GRACE_S.

    Returns when they have ended; `execute` then returns None, or the outputs of a stage that was as good as done.
    """
    processes.stop_all()


def _execute(store: Store, run: str, stage: str, fence: int | None) -> dict[str, Any]:
    plan = Plan.model_validate(store.run(run).plan)
    planned = plan.stage(stage)
    assert planned is not None, f"the plan of {run} has a stage {stage}"
    module = plugins.load(stages, stage)
    directory = store.home / "stages" / f"{stage}-{planned.digest[:16]}"
    directory.mkdir(parents=True, exist_ok=True)

    emit = recorder(store, run, stage)
    writer = Writer(folder=directory, run=run, fence=fence or fencing.next_fence(directory, run))

    def tell(kind: str, /, **data: Any) -> None:
        processes.go_on()  # most of what a stage does without a process is told now and then
        writer.check()
        emit(kind, **data)

    with _locked(writer):
        made = store.finished_stage(planned.digest)
        if made is not None and not hasattr(module, "refresh"):
            return made.outputs or {}
        _wait_for_workers(directory)
        writer.begin()
        peaks: dict[str, dict[str, int]] = {}

        def work(name: str, request: Mapping[str, Any], *, python: Sequence[str] | None = None) -> dict[str, Any]:
            writer.check()
            asked = {**request, "writer": writer.model_dump(mode="json")}
            result = run_worker(name, asked, directory, emit, python=python)
            peaks[name] = result.pop("peak_memory", {})
            return result

        context = Context(
            home=store.home,
            run=run,
            digest=planned.digest,
            cwd=Path(plan.directory),
            directory=directory,
            inputs=_inputs(store, run),
            emit=tell,
            worker=work,
            site=Site(
                store.home,
                kind_of(plan.accelerator),
                plan.cluster.images,
                plan.cluster.versions,
                say=lambda message: tell("log", message=message),
            ),
        )
        outputs: Outputs = module.run(module.Config.model_validate(planned.config), context)
        if peaks:
            outputs = outputs.model_copy(update={"report": {**outputs.report, "peak_memory": peaks}})
        return outputs.model_dump()


@contextlib.contextmanager
def _locked(writer: Writer) -> Iterator[None]:
    """Hold the lock of a stage's folder; another run may have it for hours. Raises Stopped while it waits.

    An older attempt of the same run that still has it is stopped or cut off, unless it is just ending.
    """
    lock = FileLock(writer.folder / "lock")
    if not _acquired(lock, _ENDING_S):
        writer.relieve()
        _acquired(lock, math.inf)
    try:
        yield
    finally:
        lock.release()


def _wait_for_workers(directory: Path) -> None:
    """One whose owner was killed has its grace for a last checkpoint, which it could not publish any more after us."""
    deadline = time.monotonic() + _ENDING_S
    for path in directory.glob("*.result.lock"):
        lock = FileLock(path)
        _acquired(lock, deadline - time.monotonic())
        lock.release()


def _acquired(lock: FileLock, within_s: float) -> bool:
    """Whether it was free within that time. Raises Stopped while it waits."""
    deadline = time.monotonic() + within_s
    while not lock.is_locked and time.monotonic() < deadline:
        processes.go_on()
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=_LOOK_S)
    return bool(lock.is_locked)


def run_worker(
    name: str,
    request: Mapping[str, Any],
    directory: Path,
    emit: Emit,
    *,
    python: Sequence[str] | None = None,
    patience: Patience = Patience(),  # noqa: B008 - a constant
) -> dict[str, Any]:
    """Run a worker program to its end and forward its events. Raises its OrchError, WorkerDiedError, or Stopped.

    `python` is the interpreter of another environment, which finds orch's package by PYTHONPATH. A worker that is
    silent for longer than `patience` and its own words allow is killed.
    """
    result, asked = directory / f"{name}.result.json", directory / f"{name}.request.json"
    asked.write_text(json.dumps(request))
    result.unlink(missing_ok=True)
    command = [*(python or [sys.executable]), "-m", f"orchestrator.workers.{name}", str(asked), str(result)]
    environment = {key: value for key, value in causes.COLLECTIVES.items() if key not in os.environ}
    environment |= {"PYTHONPATH": str(_package_alone(directory))} if python else {}
    log = directory / f"{name}.log"
    before, kills = log.stat().st_size if log.exists() else 0, causes.kernel_kills()
    process = processes.start(command, log=log, environment=environment, grace_s=WORKER_GRACE_S, events=True)
    try:
        error = _forward(process, name, emit, Heartbeat(patience, time.monotonic()), patience.look_s)
        code = process.wait()
    finally:
        process.stop()
    if error is not None:
        raise error
    if code:
        processes.go_on()
        ended = f"the worker {name} died ({processes.died_of(code)})"
        death = causes.died_of(code, _from(log, before)[-_SAID_BYTES:], causes.kernel_kills() - kills)
        next_step = f"its whole log: {log}"
        if death is None:
            raise InfrastructureError(f"{ended}:\n{process.last_lines()}", next_step=next_step)
        text = f"{ended}: {death.words}\n{process.last_lines()}"
        raise WorkerDiedError(text, next_step=next_step, cause=death.cause)
    found: dict[str, Any] = json.loads(result.read_text())
    return found


def _package_alone(directory: Path) -> Path:
    """A folder with orch's package and nothing else: what is installed beside it would hide the environment's own."""
    link = directory / "package" / _PACKAGE.name
    link.parent.mkdir(exist_ok=True)
    if not link.is_symlink() or link.readlink() != _PACKAGE:
        link.unlink(missing_ok=True)
        link.symlink_to(_PACKAGE)
    return link.parent


def _forward(
    process: processes.GuardedProcess, name: str, emit: Emit, heartbeat: Heartbeat, look_s: float
) -> OrchError | None:
    """Its error, if it tells one; a WorkerDiedError when it hung and had to be killed."""
    error = None
    for line in process.lines(look_s=look_s):
        now = time.monotonic()
        if line is None:
            heartbeat.looked(now)
            if hung := heartbeat.hung(now):
                return _kill(process, f"the worker {name} {hung}", emit)
            continue
        try:
            event = json.loads(line)
            kind = event.pop("kind")
        except (ValueError, KeyError, AttributeError, TypeError):  # a library's print, or a line cut by SIGKILL
            emit("log", message=line.decode(errors="replace").rstrip())
            continue
        heartbeat.heard(kind, event, now)
        if kind == "error":
            error = from_record(event)
        elif kind != SILENCE:
            emit(kind, **event)
    return error


def _kill(process: processes.GuardedProcess, what: str, emit: Emit) -> WorkerDiedError:
    """What it did is an event, as far as its stacks could be written: a process that is stopped writes none."""
    before = process.log.stat().st_size
    process.kill_hung()
    emit("hung", message=what, stacks=_from(process.log, before)[:_STACKS_BYTES])
    return WorkerDiedError(what, next_step=f"where it hung, in its log: {process.log}", cause="hang")


def _from(log: Path, offset: int) -> str:
    """What was written behind it."""
    with log.open(errors="replace") as file:
        file.seek(offset)
        return file.read()


def _inputs(store: Store, run: str) -> dict[str, Outputs]:
    rows = store.stage_runs(run)
    return {row.stage: Outputs.model_validate(row.outputs) for row in rows if row.outputs is not None}
