"""What a benchmark found, in sentences: who delivers most, who keeps the SLO, who is cheapest, and what to doubt.

Pure; takes a result as plain data (`Result.model_dump(mode="json")`). A sentence is said only where the numbers are.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.report.words import duration, number

Data = Mapping[str, Any]
_LIMITS = {"ttft": "TTFT", "itl": "ITL", "tpot": "TPOT", "e2e": "end-to-end"}
_FAILING = 0.01
_CACHED = 0.01


def findings(result: Data) -> dict[str, list[str]]:
    """Workload -> sentences about it."""
    return {workload: list(_about(result, workload)) for workload in workloads(result)}


def workloads(result: Data) -> list[str]:
    """Names of the workloads that have cells, in order."""
    return list(dict.fromkeys(cell["workload"] for cell in result["cells"]))


def measured(result: Data, workload: str | None = None) -> list[Data]:
    """The cells with numbers, of one workload or of all."""
    return [
        cell
        for cell in result["cells"]
        if cell["state"] == "done" and cell["summary"] and workload in (None, cell["workload"])
    ]


def load(cell: Data) -> str:
    """`8 streams` or `4 req/s`."""
    if cell["mode"] == "open":
        return f"{cell['rate']:g} req/s" if cell["rate"] is not None else "open loop"
    return f"{cell['concurrency']} stream{'' if cell['concurrency'] == 1 else 's'}"


def slo_words(slo: Data | None) -> str | None:
    """`TTFT ≤ 500 ms and TPOT ≤ 50 ms for 99 % of the requests`."""
    limits = [f"{word} ≤ {duration(slo[name])}" for name, word in _LIMITS.items() if slo and slo.get(name) is not None]
    return f"{' and '.join(limits)} for {100 * slo['share']:g} % of the requests" if slo and limits else None


def _about(result: Data, workload: str) -> Iterator[str]:
    cells = measured(result, workload)
    best = _best(cells)
    if not best:
        yield "No cell of this workload has succeeded."
        return
    yield _most(best)
    if slo_words(result["slo"]):
        yield _within(cells, result["slo"])
    yield from _cheapest(cells)
    yield from (_search(search) for search in result["searches"] if search["workload"] == workload)


def _targets(cells: Sequence[Data]) -> list[str]:
    return list(dict.fromkeys(cell["target"] for cell in cells))


def _best(cells: Sequence[Data]) -> list[Data]:
    """The cell with the most output of each target, the best first."""
    found = [max((cell for cell in cells if cell["target"] == target), key=_tokens_per_s) for target in _targets(cells)]
    ordered = sorted(found, key=_tokens_per_s, reverse=True)
    return [cell for cell in ordered if cell["summary"]["succeeded"]]


def _most(best: Sequence[Data]) -> str:
    first = best[0]
    tails = ", ".join(
        f"{word} p95 {duration(first['summary']['latencies'][name]['p95'])}"
        for name, word in (("ttft", "TTFT"), ("itl", "ITL"))
        if name in first["summary"]["latencies"]
    )
    said = f"{first['target']} delivers the most output: {_rate(first)} at {load(first)}"
    said = said if len(best) > 1 else f"The most output of {first['target']}: {_rate(first)} at {load(first)}"
    said += f" ({tails})" if tails else ""
    if len(best) > 1:
        ratio = _tokens_per_s(first) / _tokens_per_s(best[1])
        said += f"; {ratio:.2g} times as much as {best[1]['target']} ({_rate(best[1])} at {load(best[1])})"
    return f"{said}."


def _within(cells: Sequence[Data], slo: Data) -> str:
    keeping = _best([cell for cell in cells if cell["summary"]["keeps_slo"]])
    said = [f"{cell['target']} gives {_rate(cell)} at {load(cell)}" for cell in keeping]
    said += [f"{target} keeps it at none of its loads" for target in _targets(cells) if target not in _targets(keeping)]
    return f"Within the SLO ({slo_words(slo)}): {'; '.join(said)}."


def _cheapest(cells: Sequence[Data]) -> Iterator[str]:
    priced = [cell for cell in cells if cell["summary"]["usd_per_million_tokens"] is not None]
    keeping = [cell for cell in priced if cell["summary"]["keeps_slo"]]
    if priced:
        cell = min(keeping or priced, key=lambda cell: cell["summary"]["usd_per_million_tokens"])
        dollars = f"${number(cell['summary']['usd_per_million_tokens'])}"
        within = " within the SLO" if keeping else ""
        yield f"Cheapest{within}: {cell['target']} at {load(cell)}, {dollars} per million output tokens."


def _search(search: Data) -> str:
    said = []
    if search["knee"] is not None:
        said.append(f"throughput grows little beyond {search['knee']} streams")
    if search["max_rate"] is not None:
        broke = f" (at {search['first_bad_rate']:g} it was broken)" if search["first_bad_rate"] is not None else ""
        said.append(f"the highest rate that kept the SLO is {search['max_rate']:g} requests/s{broke}")
    if search["note"]:
        said.append(search["note"])
    return f"Search on {search['target']}, {search['trials']} trials: {'; '.join(said) or 'nothing was found'}."


def _tokens_per_s(cell: Data) -> float:
    return float(cell["summary"]["output_tokens_per_s"])


def _rate(cell: Data) -> str:
    return f"{number(_tokens_per_s(cell))} tokens/s"


def doubts(result: Data) -> list[str]:
    """Why some of the numbers may not be what they seem."""
    return [*_failed(result), *_about_clients(result), *_about_servers(result), *_about_prompts(result)]


def _failed(result: Data) -> Iterator[str]:
    failed = [cell for cell in result["cells"] if cell["state"] == "failed"]
    if failed:
        yield f"{_count(failed, 'cell')} of {len(result['cells'])} failed: {_names(failed)}."
    summaries = [(cell, cell["summary"]) for cell in measured(result)]
    erring = [cell for cell, found in summaries if sum(found["errors"].values()) > _FAILING * found["requests"]]
    if erring:
        yield f"More than 1 % of the requests failed in {_count(erring, 'cell')}: {_names(erring)}."


def _about_clients(result: Data) -> Iterator[str]:
    clients = [(cell, cell["summary"]["client"]) for cell in measured(result) if cell["summary"]["client"]]
    limited = [cell for cell, client in clients if client["limited"]]
    if limited:
        yield f"Client-limited, add --workers: {_names(limited)}. These latencies are partly the client's own."
    blind = [cell for cell, client in clients if not client["kernel_timestamps"]]
    if blind:
        yield (
            f"The kernel gave no receive times in {_count(blind, 'cell')}: there, the time that an answer waited for"
            " the client is counted as the server's."
        )
    stepped = [cell for cell, client in clients if abs(client["clock_step_s"]) > 0.001]
    if stepped:
        yield f"The client's clock was set while measuring: {_names(stepped)}."


def _about_servers(result: Data) -> Iterator[str]:
    unsteady = [cell for cell in measured(result) if cell["summary"]["steady"] is False]
    if unsteady:
        yield f"Not steady, the window's two halves differ: {_names(unsteady)}."
    unknown = [target["name"] for target in result["targets"] if target["hardware"] is None]
    if unknown:
        yield f"The hardware of {', '.join(unknown)} is not known: it is not the client's machine."


def _about_prompts(result: Data) -> Iterator[str]:
    if result["prompt_parity"] and result["prompt_parity"].get("identical") is False:
        yield "The targets did not count the same tokens for the same prompts; see prompt-token parity."
    if shares := _cached(result):
        told = ", ".join(f"{100 * share:.0f} % of {target}'s" for target, share in shares.items())
        yield f"Prefix caches are on, as when serving, and gave some of the prompt tokens: {told}."


def _cached(result: Data) -> dict[str, float]:
    """Target -> share of its prompt tokens that its server took from its cache, where that is worth a word."""
    cells = [cell for cell in measured(result) if cell["summary"]["cached_tokens"] and cell["summary"]["prompt_tokens"]]
    asked = {target: [cell["summary"] for cell in cells if cell["target"] == target] for target in _targets(cells)}
    shares = {
        target: sum(found["cached_tokens"] for found in summaries) / sum(found["prompt_tokens"] for found in summaries)
        for target, summaries in asked.items()
    }
    return {target: share for target, share in shares.items() if share > _CACHED}


def _count(cells: Sequence[Data], word: str) -> str:
    return f"{len(cells)} {word}{'' if len(cells) == 1 else 's'}"


def _names(cells: Sequence[Data], most: int = 4) -> str:
    several = len({cell["workload"] for cell in cells}) > 1
    names = [f"{cell['target']} at {load(cell)}" + (f" ({cell['workload']})" if several else "") for cell in cells]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
