"""Other tools' files: real ones (cut to some requests) are read, and what is written is read back as it was."""

import csv
import io
import json
from pathlib import Path

import pytest

from orchestrator.bench import formats
from orchestrator.bench.result import Cell, Result, Target
from orchestrator.bench.summary import summarize
from orchestrator.errors import InputError
from orchestrator.loadgen.load import Measurement
from orchestrator.loadgen.record import Record, failure

DATA = Path(__file__).parent / "data"
MS = 1_000_000


def _record(index: int, *, error: str | None = None) -> Record:
    """Sent every 100 ms; TTFT 50 ms and more, then 7 tokens 10 ms apart."""
    sent = 1_790_000_000_000_000_000 + index * 100 * MS
    record = Record(index=index, prompt=index, intended=sent, sent=sent, ended=sent + 130 * MS, status=200)
    record.content.extend(sent + (50 + index) * MS + gap * 10 * MS for gap in range(8))
    record.first_chunk, record.prompt_tokens, record.completion_tokens = record.content[0], 20 + index, 8
    record.finish_reason, record.done, record.error = "stop", True, error
    return record


MEASUREMENT = Measurement(
    [*(_record(index) for index in range(20)), _record(20, error="disconnected")],
    start=_record(0).sent,
    end=_record(20).ended,
    workers=(),
    client_limited=False,
)


def _result(*, cells: int = 1) -> Result:
    made = [
        Cell(id=f"cell{number}", target="mine", workload="chat", mode="closed", concurrency=number + 2,
             summary=summarize(MEASUREMENT), records=f"cell{number}.records", started=1_790_000_000.0)
        for number in range(cells)
    ]  # fmt: skip
    target = Target(name="mine", url="http://127.0.0.1:8000/v1", model="tiny")
    return Result(id="b-1", name="test", created=1_790_000_000.0, orch_version="0", targets=[target], cells=made)


@pytest.mark.parametrize(
    ("file", "source", "loads", "tokens"),
    [
        ("vllm_bench.json", "vllm_bench", ["50 req/s"], 128),
        ("aiperf/profile_export_aiperf.json", "aiperf 0.13.0", ["64 streams"], 256),
        ("guidellm.json", "guidellm 0.8.1", ["20 req/s", "40 req/s"], 80),
    ],
)
def test_a_real_file_is_read(file: str, source: str, loads: list[str], tokens: int) -> None:
    found = formats.read(DATA / file)
    result = found.result
    assert (result.source, [cell.load for cell in result.cells]) == (source, loads)
    for cell in result.cells:
        assert cell.summary is not None
        assert cell.summary.succeeded == len(found.measurements[cell.id].records)
        assert cell.summary.completion_tokens == tokens
        assert 0.05 < cell.summary.latencies["ttft"].p50 < 0.2  # its server answered after 50 ms
        assert cell.summary.client is None
    assert formats.read(DATA / file).result.id == result.id


def test_what_a_tool_itself_says_is_what_we_get_from_its_requests() -> None:
    found = formats.read(DATA / "guidellm.json")
    rows = json.loads((DATA / "guidellm.json").read_text())["benchmarks"][0]["requests"]["successful"]
    records = found.measurements[found.result.cells[0].id].records
    for row, record in zip(rows, records, strict=True):
        assert (record.content[0] - record.sent) / MS == pytest.approx(row["time_to_first_token_ms"], abs=0.001)
        tpot = (record.content[-1] - record.content[0]) / MS / (row["output_tokens"] - 1)
        assert tpot == pytest.approx(row["inter_token_latency_ms"], abs=0.001)
    summary = found.result.cells[0].summary
    assert summary is not None
    assert "itl" not in summary.latencies


@pytest.mark.parametrize("name", ["vllm_bench", "aiperf", "guidellm"])
def test_what_is_written_is_read_back(name: str, tmp_path: Path) -> None:
    written = formats.files(name, _result(), lambda cell: MEASUREMENT)
    path = tmp_path / "profile_export_aiperf.json"
    path.write_text(written[""])
    if "-requests.jsonl" in written:
        (tmp_path / "profile_export.jsonl").write_text(written["-requests.jsonl"])
    found = formats.read(path)
    (cell,) = found.result.cells
    (original,) = _result().cells
    assert (cell.mode, cell.concurrency) == ("closed", 2)
    assert cell.summary is not None
    assert original.summary is not None
    assert (cell.summary.requests, cell.summary.succeeded) == (21, 20)
    assert cell.summary.prompt_tokens == original.summary.prompt_tokens
    for latency in ("ttft", "tpot"):
        assert cell.summary.latencies[latency].p95 == pytest.approx(original.summary.latencies[latency].p95, abs=1e-6)
    records = found.measurements[cell.id].records
    assert [failure(record) is None for record in records] == [True] * 20 + [False]


def test_several_cells_are_several_files_where_the_tool_has_one_for_each() -> None:
    result = _result(cells=2)
    assert set(formats.files("vllm_bench", result, lambda cell: MEASUREMENT)) == {"-mine-chat-c2", "-mine-chat-c3"}
    assert len(json.loads(formats.files("guidellm", result, lambda cell: MEASUREMENT)[""])["benchmarks"]) == 2


def test_a_table_has_a_row_for_every_cell_and_needs_no_records() -> None:
    failed = Cell(id="x", target="mine", workload="chat", mode="open", rate=4.0, state="failed", cause="server died")
    result = _result()
    table = formats.files("csv", result.model_copy(update={"cells": [*result.cells, failed]}), lambda cell: None)[""]
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [row["state"] for row in rows] == ["done", "failed"]
    assert float(rows[0]["ttft_p50"]) == pytest.approx(0.0595)
    assert rows[1]["cause"] == "server died"
    assert rows[1]["ttft_p50"] == ""


def test_our_own_format_is_the_result() -> None:
    assert Result.model_validate_json(formats.files("json", _result(), lambda cell: None)[""]) == _result()


def test_what_cannot_be_read_or_written_is_said(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"a": 1}')
    with pytest.raises(InputError, match="no result of a tool that is known"):
        formats.read(other)
    other.write_text("not json")
    with pytest.raises(InputError, match="cannot read"):
        formats.read(other)
    summary = json.loads((DATA / "vllm_bench.json").read_text())
    other.write_text(json.dumps({key: value for key, value in summary.items() if key != "ttfts"}))
    with pytest.raises(InputError, match="save-detailed"):
        formats.read(other)
    other.write_text((DATA / "aiperf" / "profile_export_aiperf.json").read_text())
    with pytest.raises(InputError, match=r"profile_export\.jsonl"):
        formats.read(other)
    with pytest.raises(InputError, match="records"):
        formats.files("guidellm", _result(), lambda cell: None)
    with pytest.raises(InputError, match="unknown format"):
        formats.files("guidelm", _result(), lambda cell: None)
