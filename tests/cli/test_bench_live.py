"""What is shown while a sweep runs, on a terminal and elsewhere."""

import io

import pytest
from rich.console import Console

from orchestrator.cli.bench_live import View
from orchestrator.loadgen.load import Progress
from tests.bench.fake_result import fake_result

RESULT = fake_result(workloads=("chat",)).model_dump(mode="json")
CELLS = {f"{cell['target']} {cell['concurrency'] or cell['rate']}": cell for cell in RESULT["cells"]}


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def view(clock, *, terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=130, highlight=False, color_system=None)
    return View(console, RESULT["targets"], RESULT["slo"], clock), console


def shown(found, console):
    with console.capture() as captured:
        console.print(found.picture())
    return captured.get()


def progress(**changes):
    usual = {"elapsed_s": 10.0, "phase": "measuring", "sent": 60, "ended": 40, "errors": {}, "in_flight": 20}
    recent = {"recent_ttft_s": [0.1, 0.2, 0.3], "recent_itl_s": [0.01]}
    return Progress(**{**usual, **recent, "completion_tokens": 5000, "total": None, **changes})


def test_elsewhere_each_cell_that_ended_is_one_line(clock):
    found, console = view(clock, terminal=False)
    with found:
        found.started("vllm-fp8, chat, 16 streams", 1, 2, 60.0)
        found.progressed(progress())
        found.finished(CELLS["vllm-fp8 16"])
        found.finished(CELLS["llama-q4 256"])
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 2
    assert "vllm-fp8, chat, 16 streams: 873 of 873 requests; TTFT p50 22.4 ms" in lines[0]
    assert "failed: the engine died with code 139: <segfault in ggml_backend>" in lines[1]


def test_a_client_that_was_the_limit_is_said_in_words(clock):
    for terminal in (True, False):
        found, console = view(clock, terminal=terminal)
        found.started("vllm-fp8, chat, 256 streams", 1, 2, 60.0)
        found.finished(CELLS["vllm-fp8 256"])
        assert "client-limited: add --workers" in (shown(found, console) if terminal else console.file.getvalue())


def test_the_running_cell_has_its_newest_numbers(clock):
    found, console = view(clock, terminal=True)
    found.started("vllm-fp8, chat, 16 streams", 2, 3, 60.0)
    found.progressed(progress(errors={"http_503": 3}))
    text = shown(found, console)
    for part in ("2/3", "vllm-fp8, chat, 16 streams", "measuring", "200 ms", "290 ms", "10 ms", "500", "3 http_503"):
        assert part in text


def test_what_is_left_goes_by_the_clock_or_by_the_requests(clock):
    found, console = view(clock, terminal=True)
    found.started("one", 1, 1, 60.0)
    found.progressed(progress())
    assert "about 50 s left" in shown(found, console)
    found.started("two", 1, 1, None)
    found.progressed(progress(total=100))
    assert "about 15 s left" in shown(found, console), "40 of 100 took 10 s"


def test_cells_to_come_take_as_long_as_those_that_ended(clock):
    found, console = view(clock, terminal=True)
    found.started("one", 1, 4, 60.0)
    clock.now += 80
    found.finished(CELLS["vllm-fp8 16"])
    found.started("two", 2, 4, 60.0)
    found.progressed(progress())
    assert "3 min 30 s for all cells" in shown(found, console), "50 s, and twice 80 s"


def test_a_search_does_not_promise_an_end(clock):
    found, console = view(clock, terminal=True)
    found.started("one", 3, None, 60.0)
    found.progressed(progress())
    text = shown(found, console)
    assert "for all cells" not in text
    assert "about 50 s left" in text


def test_the_warm_up_has_not_begun_to_count(clock):
    found, console = view(clock, terminal=True)
    found.started("one", 1, 1, 60.0)
    found.progressed(progress(phase="warm-up", elapsed_s=8.0))
    assert "warm-up" in shown(found, console)
    assert "about 1 min 0 s left" in shown(found, console)
