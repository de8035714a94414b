"""Making schedules, and the scheduler as a process: one for each store, in the foreground or detached.

`$ORCH_HOME/schedules/` holds its lock (who holds it is the scheduler), `scheduler.json` with its pid, its log, and a
folder of logs for every schedule.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from pydantic import SecretStr

from orchestrator import webhook
from orchestrator.controller import ticks
from orchestrator.controller.scheduler import Scheduler
from orchestrator.errors import InfrastructureError, InputError, NotAllowedError
from orchestrator.processes import started_at
from orchestrator.recipe.load import load_recipe
from orchestrator.store.records import Schedule
from orchestrator.store.store import Store

_POLL_S = 1.0
_AFTER_ERROR_S = 10.0
_LOCK_S = 2.0
"""`running` holds the lock for a moment; a scheduler that starts then must not take it for another scheduler."""
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 60.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def add(
    store: Store,
    name: str,
    command: list[str],
    *,
    cron: str,
    timezone: str,
    cwd: Path,
    now: float,
    webhook_url: str | None = None,
    missed: Literal["skip", "run_once"] = "skip",
    overlap: Literal["skip", "queue"] = "skip",
) -> Schedule:
    """Keep a schedule from its next tick on. Raises InputError for a name, cron, time zone or URL that is none."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot be the name of a schedule",
            next_step="use letters, digits, - and _, such as --name nightly",
        )
    if webhook_url is not None:
        webhook.check(webhook_url)
    made = Schedule(
        name=name,
        cron=cron,
        timezone=timezone,
        command=command,
        cwd=str(cwd),
        webhook=SecretStr(webhook_url) if webhook_url is not None else None,
        missed=missed,
        overlap=overlap,
        created=now,
        next_tick=ticks.next_tick(cron, timezone, now),
    )
    store.schedules.add(made)
    return made


def name_of(target: str) -> str:
    """The name of a schedule that none was given: that of the recipe's file, or the server's host."""
    found = urlsplit(target).hostname if is_url(target) else Path(target).stem
    return re.sub(r"[^A-Za-z0-9_-]+", "-", found or "").strip("-_") or "schedule"


def arguments(command: Literal["bench", "run"], target: str, extra: list[str], home: Path) -> list[str]:
    """`bench run TARGET` or `run TARGET`. Raises InputError for a recipe that could only fail, and for a key."""
    if any(word.partition("=")[0] in ("--api-key", "--header") for word in extra):
        raise InputError(
            "a schedule is kept and shown, and a key must be neither",
            next_step="leave --api-key and --header out, and start the scheduler where OPENAI_API_KEY is set",
        )
    if is_url(target):
        if command == "run":
            raise InputError("a server's URL can only be benchmarked", next_step="leave out --command run")
    else:
        recipe = load_recipe(Path(target), [], home).recipe
        if command == "bench" and recipe.benchmark is None:
            raise InputError(f"{target} has no `benchmark` section", next_step="add one, or give --command run")
    return [*(("bench", "run") if command == "bench" else ("run",)), target, *extra]


def is_url(target: str) -> bool:
    """Whether it names a server rather than a file."""
    return target.startswith(("http://", "https://"))


def resume(store: Store, name: str, now: float) -> float:
    """Go on with a paused schedule; its next tick. What passed while it was paused is not made up for."""
    found = store.schedules.find(name)
    upcoming = ticks.next_tick(found.cron, found.timezone, now)
    store.schedules.resume(name, upcoming)
    return upcoming


def run_now(store: Store, name: str, now: float) -> None:
    """Queue a run by hand, of a paused schedule too. Raises NotAllowedError when one waits already."""
    store.schedules.find(name)
    if any(run.schedule == name and run.state == "queued" for run in store.schedules.open_runs()):
        raise NotAllowedError(f"a run of {name} waits already", next_step=f"`orch schedule history {name}` shows it")
    store.schedules.queue(name, now, "by hand")


def serve(
    store: Store,
    *,
    stop: Callable[[], bool],
    say: Callable[[str], None],
    clock: Callable[[], float] = time.time,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Be the scheduler of this store until `stop()`. Raises NotAllowedError when there is one already."""
    lock, described = _lock(store.home), {"pid": os.getpid(), "started": started_at(os.getpid())}
    try:
        lock.acquire(timeout=_LOCK_S)
    except Timeout as error:
        raise NotAllowedError(
            f"a scheduler of {store.home} runs already", next_step="`orch schedule list` shows its process"
        ) from error
    scheduler = Scheduler(store, clock=clock, say=say)
    try:
        _description(store.home).write_text(json.dumps(described))
        scheduler.recover()
        while not stop():
            wait(_POLL_S if _survives(scheduler.step, say) else _AFTER_ERROR_S)
    finally:
        scheduler.stop()
        _description(store.home).unlink(missing_ok=True)
        lock.release()


def running(home: Path) -> int | None:
    """Process id of this store's scheduler, or None when none runs."""
    described = _described(home)
    return int(described["pid"]) if described else None


def start_detached(home: Path) -> int:
    """Start the scheduler unless one runs; its process id. Raises InfrastructureError with the end of its log."""
    log = _folder(home) / "scheduler.log"
    with FileLock(_folder(home) / "starting.lock"):  # two commands at once must not start two
        found = running(home)
        if found is not None:
            return found
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.cli.main", "schedule", "serve"],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd=home,
                env={**os.environ, "ORCH_HOME": str(home), "ORCH_WHO": "scheduler"},
            )  # fmt: skip
        deadline = time.monotonic() + _START_TIMEOUT_S
        while (found := running(home)) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                raise InfrastructureError(f"the scheduler did not start:\n{tail}", next_step=f"the whole log: {log}")
            time.sleep(0.05)
        return found


def stop(home: Path) -> bool:
    """Stop this store's scheduler and what it runs; False when none ran."""
    found = _described(home)
    if found is None or started_at(found["pid"]) != found["started"]:
        return False
    os.kill(found["pid"], signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while running(home) is not None:
        if time.monotonic() > deadline:
            os.kill(found["pid"], signal.SIGKILL)  # what it runs dies with it
            break
        time.sleep(0.1)
    return True


def _survives(step: Callable[[], None], say: Callable[[str], None]) -> bool:
    """Do a round; whatever goes wrong in it, a disk that is full for a while, does not end the scheduler."""
    try:
        step()
    except Exception:
        say(traceback.format_exc())
        return False
    return True


def _described(home: Path) -> dict[str, Any] | None:
    """Pid and start of the scheduler that holds the lock; None when nobody does, or it has only just begun or ended."""
    lock = _lock(home)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            found: dict[str, Any] = json.loads(_description(home).read_text())
            return found
        return None
    lock.release()
    return None


def _folder(home: Path) -> Path:
    found = home / "schedules"
    found.mkdir(parents=True, exist_ok=True)
    return found


def _lock(home: Path) -> FileLock:
    return FileLock(_folder(home) / "scheduler.lock")


def _description(home: Path) -> Path:
    return _folder(home) / "scheduler.json"
