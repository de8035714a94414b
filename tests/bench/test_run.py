"""Sweeps against real servers on localhost: what is kept, what goes on after a failure, what is found again."""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from orchestrator.bench import cell as cell_module
from orchestrator.bench import targets
from orchestrator.bench.result import Result
from orchestrator.bench.run import run_sweep
from orchestrator.bench.sweep import SweepPlan
from orchestrator.errors import EngineError, InputError
from orchestrator.loadgen import drive
from orchestrator.loadgen.load import Load, Measurement
from orchestrator.loadgen.record import Record
from orchestrator.testing import Status, answer, serving

PROMPTS = [[{"role": "user", "content": f"question {number}"}] for number in range(40)]


@dataclass
class Sweep:
    """Runs sweeps in one folder and remembers what they told."""

    directory: Path
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def run(self, servers: dict[str, targets.Opener], settings: dict[str, Any], **more: Any) -> Result:
        plan = SweepPlan.model_validate({"num_requests": 12, "warmup": 2, **settings})
        more = {"default_prompts": PROMPTS, **more}
        return run_sweep(plan, directory=self.directory, targets=servers, on_event=self._note, **more)

    def _note(self, kind: str, /, **data: Any) -> None:
        self.events.append((kind, data))

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events if kind not in ("progress", "log")]


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path / "b1")


def at(name: str, url: str, **known: Any) -> Callable[[], Any]:
    return lambda: targets.server(name, url, **known)


def failing(status: int) -> Callable[[dict[str, Any]], AsyncIterator[bytes]]:
    """Answers the probe and refuses everything else."""
    good = answer("a")

    async def script(body: dict[str, Any]) -> AsyncIterator[bytes]:
        if body["max_tokens"] > 1:
            raise Status(status, {"error": {"message": "out of memory"}})
        async for piece in good(body):
            yield piece

    return script


def test_every_cell_is_measured_and_kept(sweep: Sweep) -> None:
    with serving(answer("a", "b", "c")) as engine:
        result = sweep.run(
            {"mine": at("mine", engine.url, usd_per_hour=3.6)},
            {"concurrency": [1, 4], "request_rate": [100], "slo": {"ttft": "10s"}, "warmup_duration": "20ms"},
            name="test",
            facts={"run": "r1"},
        )
    assert sorted(cell.load for cell in result.cells) == ["1 streams", "100 req/s", "4 streams"]
    assert [cell.order for cell in result.cells] == [0, 1, 2]
    for cell in result.cells:
        assert (cell.state, cell.cause) == ("done", None)
        assert cell.summary is not None
        assert cell.records is not None
        assert (cell.summary.keeps_slo, cell.summary.errors) == (True, {})
        assert cell.summary.usd_per_million_tokens is not None
        records = drive.load_records(sweep.directory / cell.records).records
        measured = sum(not record.warmup for record in records)
        assert 0 < cell.summary.requests <= measured
        assert measured == 12 or cell.concurrency != 1
    assert sweep.kinds() == ["cell.started", "cell.finished"] * 3
    assert [data["place"] for kind, data in sweep.events if kind == "cell.started"] == [1, 2, 3]
    assert any(kind == "progress" for kind, _ in sweep.events)
    assert (result.id, result.name, result.run) == ("b1", "test", "r1")
    assert result.target("mine").url == engine.url
    assert result.target("mine").hardware is not None, "the server runs on this machine"
    assert result.workloads["default"]["seed"] == 17
    assert Result.model_validate_json((sweep.directory / "result.json").read_text()) == result
    assert not list(sweep.directory.rglob("*.partial"))


def test_a_server_without_metrics_is_said_so(sweep: Sweep) -> None:
    with serving(answer("a")) as engine:
        sweep.run({"mine": at("mine", engine.url)}, {"concurrency": [1, 2]})
    said = [data["message"] for kind, data in sweep.events if kind == "log"]
    assert len(said) == 1, "once, not for every cell"
    assert "shows no metrics" in said[0]


def test_a_killed_sweep_goes_on_with_the_cells_that_are_missing(sweep: Sweep) -> None:
    class KilledError(BaseException):
        pass

    def killed(*args: Any, **more: Any) -> Measurement:
        if measured:
            raise KilledError
        measured.append(1)
        return drive.measure(*args, **more)

    measured = list[int]()
    with serving(answer("a", "b")) as engine:
        here = {"mine": at("mine", engine.url)}
        with pytest.raises(KilledError):
            sweep.run(here, {"concurrency": [1, 2, 4]}, measure=killed)
        first = next(data["cell"] for kind, data in sweep.events if kind == "cell.finished")
        sweep.events.clear()
        result = sweep.run(here, {"concurrency": [1, 2, 4]})
        asked = len(engine.bodies)
        assert sweep.kinds() == ["cell.started", "cell.finished"] * 2
        assert result.cells[0] == first
        assert sorted(cell.concurrency or 0 for cell in result.cells) == [1, 2, 4]
        sweep.events.clear()
        again = sweep.run(here, {"concurrency": [1, 2, 4]})
    assert sweep.kinds() == []
    assert len(engine.bodies) == asked, "a finished sweep does not even look at the server"
    assert again == result
    assert again.target("mine").url == engine.url


def test_a_server_that_fails_is_a_row_with_its_cause_and_the_others_go_on(sweep: Sweep) -> None:
    with serving(failing(500)) as broken, serving(answer("a")) as good:
        servers = {"broken": at("broken", broken.url), "good": at("good", good.url)}
        servers["nobody"] = at("nobody", "http://127.0.0.1:9/v1")
        result = sweep.run(servers, {"concurrency": [1, 2]})
    states = {(cell.target, cell.concurrency): cell.state for cell in result.cells}
    assert states == {(name, streams): "done" if name == "good" else "failed" for name in servers for streams in (1, 2)}
    causes = {cell.target: str(cell.cause) for cell in result.cells}
    assert "http_500" in causes["broken"]
    assert "nothing listens" in causes["nobody"] or "no server" in causes["nobody"] or "refused" in causes["nobody"]
    assert [target.name for target in result.targets] == ["broken", "good", "nobody"]
    assert sweep.kinds().count("cell.failed") == 4


def test_a_failed_cell_is_tried_again(sweep: Sweep) -> None:
    with serving(failing(503)) as engine:
        first = sweep.run({"mine": at("mine", engine.url)}, {"concurrency": [1]})
        assert [cell.state for cell in first.cells] == ["failed"]
        engine.script = answer("a")
        second = sweep.run({"mine": at("mine", engine.url)}, {"concurrency": [1]})
    assert [cell.state for cell in second.cells] == ["done"]


def test_a_trace_that_is_over_before_its_warm_up_says_so(sweep: Sweep, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "2023-11-16 18:17:03.9799600,20,3\n" * 2)
    with serving(answer("a")) as engine:
        settings = {"workload": {"trace": str(trace)}, "num_requests": None, "warmup_duration": "200ms"}
        [cell] = sweep.run({"mine": at("mine", engine.url)}, settings).cells
    assert cell.cause == "no request was sent after the warm-up: all 2 fell into it, so make it shorter"


def test_a_hopeless_cell_ends_early(sweep: Sweep) -> None:
    with serving(failing(500)) as engine:
        result = sweep.run({"mine": at("mine", engine.url)}, {"concurrency": [1], "num_requests": 100_000})
        assert len(engine.bodies) < 50_000
    assert "requests all failed" in str(result.cells[0].cause)
    assert result.cells[0].records is not None, "what was seen until then is kept"


def test_a_cell_with_too_many_errors_ends_as_failed_and_keeps_its_numbers(sweep: Sweep) -> None:
    good, asked = answer("a"), 0

    async def script(body: dict[str, Any]) -> AsyncIterator[bytes]:
        nonlocal asked
        asked += body["max_tokens"] > 1
        if asked % 2 == 0 and body["max_tokens"] > 1:
            raise Status(503, {"error": {"message": "busy"}})
        async for piece in good(body):
            yield piece

    with serving(script) as engine:
        settings = {"concurrency": [1], "num_requests": 100_000, "max_errors": 20, "warmup": 0}
        result = sweep.run({"mine": at("mine", engine.url)}, settings)
    (cell,) = result.cells
    assert cell.state == "failed"
    assert "max_errors is 20" in str(cell.cause)
    assert cell.summary is not None
    assert cell.summary.succeeded >= 19


def test_a_cell_that_takes_too_long_ends_as_failed(sweep: Sweep) -> None:
    settings = {"concurrency": [1], "num_requests": 1_000_000, "cell_timeout": "200ms"}
    with serving(answer("a")) as engine:
        result = sweep.run({"mine": at("mine", engine.url)}, settings)
    assert "not complete after 200 ms" in str(result.cells[0].cause)


def test_once_told_to_stop_it_keeps_what_is_finished_and_begins_no_more(sweep: Sweep) -> None:
    with serving(answer("a")) as engine:
        result = sweep.run(
            {"mine": at("mine", engine.url)},
            {"concurrency": [1, 2, 4]},
            stop=lambda: "cell.finished" in sweep.kinds(),
        )
    assert [cell.state for cell in result.cells] == ["done"]


def test_bad_prompts_are_bad_input_and_not_a_failed_server(sweep: Sweep) -> None:
    (sweep.directory.parent / "bad.jsonl").write_text('{"messages": 3}\n')
    with serving(answer("a")) as engine, pytest.raises(InputError, match=r"bad\.jsonl:1"):
        sweep.run({"mine": at("mine", engine.url)}, {"workload": {"dataset": "bad.jsonl"}}, cwd=sweep.directory.parent)


def test_a_server_that_is_not_there_is_bad_input_when_it_is_the_only_one(sweep: Sweep) -> None:
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9"):
        sweep.run({"nobody": at("nobody", "http://127.0.0.1:9/v1")}, {})


def test_an_engine_that_does_not_start_is_a_row_and_is_tried_once(sweep: Sweep) -> None:
    tried = list[int]()

    @contextmanager
    def opener() -> Iterator[targets.Ready]:
        tried.append(1)
        raise EngineError("no kernel for this GPU")
        yield

    result = sweep.run({"gguf": opener}, {"concurrency": [1, 2]})
    assert [cell.cause for cell in result.cells] == ["no kernel for this GPU"] * 2
    assert tried == [1]


def test_targets_are_open_only_while_their_cells_are_measured(sweep: Sweep) -> None:
    seen = list[str]()

    @contextmanager
    def noted(name: str, url: str) -> Iterator[targets.Ready]:
        seen.append(f"+{name}")
        with targets.server(name, url) as ready:
            yield ready
        seen.append(f"-{name}")

    with serving(answer("a")) as engine:
        sweep.run({name: lambda name=name: noted(name, engine.url) for name in "ab"}, {"concurrency": [1, 2]})
    assert seen in (["+a", "-a", "+b", "-b"], ["+b", "-b", "+a", "-a"])


def test_two_targets_are_asked_the_same_prompts_and_their_token_counts_are_compared(sweep: Sweep) -> None:
    with serving(answer("a")) as one, serving(answer("a")) as two:
        result = sweep.run({"one": at("one", one.url), "two": at("two", two.url)}, {"concurrency": [1, 2]})
    numbers = [
        [record.prompt for record in drive.load_records(sweep.directory / str(cell.records)).records]
        for cell in result.cells
        if cell.concurrency == 1
    ]
    assert sorted(numbers[0]) == sorted(numbers[1])
    assert result.prompt_parity is not None
    assert result.prompt_parity["identical"] is True
    assert result.prompt_parity["prompts"] == 14
    assert result.prompt_parity["pairs"][0]["targets"] == ["one", "two"]


def test_two_sweeps_in_one_folder_are_refused(sweep: Sweep) -> None:
    sweep.directory.mkdir()
    with FileLock(sweep.directory / "lock"), pytest.raises(InputError, match="another process"):
        sweep.run({"mine": at("mine", "http://127.0.0.1:9/v1")}, {})


def unsteady(*firsts: float) -> Callable[..., Measurement]:
    """A load generator whose n-th measurement has a TTFT that grows from 10 ms by firsts[n] in its second half."""
    left = list(firsts)

    def measure(load: Load, workload: Any, **_: Any) -> Measurement:
        growth = left.pop(0)
        start, records = 1_000_000_000, list[Record]()
        for number in range(200):
            sent = start + number * 10_000_000
            first = sent + int(1e7 * (growth if number >= 100 else 1) + number % 7 * 1e4)
            content = drive.Record(0, 0, 0, 0, 0).content[:]
            content.extend([first, first + 1_000_000])
            records.append(
                Record(number, number, sent, sent, first + 2_000_000, first_chunk=first, content=content,
                       prompt_tokens=5, completion_tokens=2, finish_reason="stop", done=True, status=200)
            )  # fmt: skip
        return Measurement(records, start=start, end=records[-1].sent, workers=[], client_limited=False)

    measure.left = left  # type: ignore[attr-defined]
    return measure


@pytest.mark.parametrize(
    ("settings", "growths", "left", "steady", "note"),
    [
        ({"concurrency": [1]}, (1, 1), 1, True, None),
        ({"concurrency": [1]}, (3, 1), 0, True, "measured a second time"),
        ({"concurrency": [1]}, (3, 3), 0, False, "measured a second time"),
        ({"request_rate": [100]}, (3, 1), 1, False, "median TTFT rose"),
    ],
    ids=["steady", "steady at second try", "never steady", "an open loop is not repeated"],
)
def test_what_was_not_steady_is_measured_once_more(
    sweep: Sweep, settings: dict[str, Any], growths: tuple[float, ...], left: int, steady: bool, note: str | None
) -> None:
    measure = unsteady(*growths)
    with serving(answer("a")) as engine:
        result = sweep.run({"mine": at("mine", engine.url)}, settings, measure=measure)
    summary = result.cells[0].summary
    assert summary is not None
    assert summary.steady is steady
    assert (note or "") in (summary.steady_note or "")
    assert len(measure.left) == left  # type: ignore[attr-defined]


def test_a_second_measurement_in_vain_leaves_the_first_one(sweep: Sweep) -> None:
    steady = unsteady(3)

    def measure(load: Load, workload: Any, **more: Any) -> Measurement:
        if steady.left:  # type: ignore[attr-defined]
            return steady(load, workload)
        gone = [Record(i, i, i, i, i + 1, error="connect", detail="ECONNREFUSED") for i in range(20)]
        return Measurement(gone, start=0, end=20, workers=[], client_limited=False)

    with serving(answer("a")) as engine:
        [cell] = sweep.run({"mine": at("mine", engine.url)}, {"concurrency": [1]}, measure=measure).cells
    assert (cell.state, cell.cause) == ("done", None)
    assert cell.summary is not None
    assert cell.summary.succeeded == 200
    assert "measured again in vain: all 20 requests failed" in str(cell.summary.steady_note)
    assert len(drive.load_records(sweep.directory / str(cell.records)).records) == 200


def test_a_server_that_is_lost_on_the_way_ends_the_cell_and_what_was_measured_is_kept(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost_after_20(body: dict[str, Any]) -> AsyncIterator[bytes]:
        if len(engine.bodies) > 20:
            raise Status(503, {"error": {"message": "gone"}})
        async for piece in answer("a")(body):
            yield piece

    monkeypatch.setattr(cell_module, "LOST_S", 0.5)
    with serving(lost_after_20) as engine:
        settings = {"concurrency": [2], "num_requests": None, "duration": "60s"}
        [cell] = sweep.run({"mine": at("mine", engine.url)}, settings).cells
    assert cell.state == "failed"
    assert re.match(r"ended, since the last \d+ requests all failed \(\d+ http_503\)", str(cell.cause))
    assert cell.summary is not None
    assert cell.summary.succeeded > 10


def simulated(capacity: float) -> Callable[..., Measurement]:
    """A load generator on a server that serves `capacity` requests/s, each 0.1 s after it was begun."""

    def measure(load: Load, workload: Any, **_: Any) -> Measurement:
        records, free = list[Record](), 0.0
        times = [request.at for request in workload] if load.concurrency is None else [None] * 200
        for number, at_s in enumerate(times):
            begin = max(free, at_s) if at_s is not None else number / min(load.concurrency or 1, capacity)
            free = begin + 1 / capacity
            sent = at_s if at_s is not None else begin
            first = begin + 0.1
            content = Record(0, 0, 0, 0, 0).content[:]
            content.extend([int(first * 1e9), int((first + 0.01) * 1e9)])
            moments = (int(sent * 1e9), int(sent * 1e9), int((first + 0.02) * 1e9))
            records.append(
                Record(number, number % 40, *moments, first_chunk=content[0], content=content, prompt_tokens=5,
                       completion_tokens=2, finish_reason="stop", done=True, status=200)
            )  # fmt: skip
        end = max(record.sent for record in records)
        return Measurement(records, start=0, end=end, workers=[], client_limited=False)

    return measure


def test_auto_finds_the_knee_and_the_rate_and_goes_on_from_stored_trials(sweep: Sweep) -> None:
    settings = {"sweep": "auto", "slo": {"ttft": "200ms", "share": 0.9}, "num_requests": None}
    with serving(answer("a")) as engine:
        here = {"mine": at("mine", engine.url)}
        result = sweep.run(here, settings, measure=simulated(20))
        (found,) = result.searches
        assert found.knee is not None
        assert 16 <= found.knee <= 20
        assert found.max_rate is not None
        assert found.first_bad_rate is not None
        assert 10 <= found.max_rate < found.first_bad_rate <= 20
        assert found.trials == len(result.cells) <= 15
        assert sweep.kinds()[-1] == "search"
        sweep.events.clear()
        again = sweep.run(here, settings, measure=unsteady())
    assert again.searches == result.searches
    assert sweep.kinds() == ["search"]


def test_a_trace_has_the_rate_that_it_came_at(sweep: Sweep) -> None:
    trace = sweep.directory.parent / "trace.csv"
    rows = "\n".join(f"2024-01-01 00:00:{second:02}.000000,20,3" for second in range(0, 3))
    trace.write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}\n")
    with serving(answer("a")) as engine:
        result = sweep.run(
            {"mine": at("mine", engine.url)},
            {"workload": {"trace": "trace.csv", "trace_speed": 20}, "num_requests": None, "warmup_duration": 0},
            cwd=trace.parent,
        )
    (cell,) = result.cells
    assert (cell.mode, cell.state, cell.rate) == ("open", "done", 30.0)
    assert cell.load == "30 req/s"
