"""The serving-speed model against published measurements: reads a table, predicts every row, fits the constants.

    python benchmarks/planner_serving.py                  errors by source, each source left out of the fit in turn
    python benchmarks/planner_serving.py --write          fits all rows, writes orchestrator/planner/serving/fitted.yaml
    python benchmarks/planner_serving.py --table X.csv    errors of the shipped constants on another table

A row says what was run in its own words; `case` turns them into a target and a load. What a source's harness does and
its columns do not say is in HARNESSES, each with where it was read.
"""

import argparse
import csv
import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

from orchestrator.catalog.catalog import Catalog, load
from orchestrator.config import Model
from orchestrator.errors import OrchError
from orchestrator.planner.estimate import Unknown
from orchestrator.planner.serving.efficiency import FILE, Fitted, fitted
from orchestrator.planner.serving.formats import weight_format
from orchestrator.planner.serving.load import Lengths, Point, Target, arriving, burst, closed
from orchestrator.planner.serving.serving import KV_BYTES, Serving
from orchestrator.planner.serving.speed import places, reached, target
from orchestrator.planner.serving.traits import traits

TABLE = "serving_perf.csv"
COLUMN = "tokens_per_s"
COLUMNS = (
    "source",
    "date",
    "engine",
    "model",
    "gpu",
    "n_gpu",
    "dtype",
    "kv_dtype",
    "parallelism",
    "input_len",
    "output_len",
    "concurrency",
    "request_rate",
    COLUMN,
    "tokens_kind",
    "ttft_ms",
    "tpot_ms",
)
"""What is read of a row; a cell that is missing is empty."""
Row = dict[str, str]


class Harness(Model):
    """What a source's runs have in common and its table does not say."""

    pattern: str
    """Of the source column."""
    requests: int | dict[tuple[int, int], int] | None = None
    """Of each run, or by input and output length; None: a steady state is assumed."""
    settings: dict[str, float] = {}
    """Fields of the target."""
    longest: dict[tuple[int, int], float] = {}
    """Longest answer in mean answers, by mean input and output length, where lengths vary."""


HARNESSES = [
    # docs/source/performance/perf-overview.md, "Reproducing Benchmarked Results": engines built by trtllm-bench, whose
    # printed example has 4096 sequences and 8192 tokens; "in majority of cases" the cache takes 0.95 of what is free
    Harness(
        pattern=r"performance/perf-overview\.md \(v0",
        requests={
            (128, 128): 30000,
            (128, 2048): 3000,
            (128, 4096): 1500,
            (2048, 128): 3000,
            (2048, 2048): 1500,
            (5000, 500): 1500,
            (1000, 1000): 3000,
            (500, 2000): 3000,
            (20000, 2000): 1000,
        },
        settings={"max_num_seqs": 4096, "gpu_memory_utilization": 0.95},
    ),
    # the same page, "Online Serving Measurements": 500 requests
    # (202 and 214 tokens are the means of ShareGPT as vLLM's benchmark_serving.py samples it, up to 1024 in a prompt
    # and 900-odd in an answer)
    Harness(pattern=r"Online Serving", requests=500, longest={(202, 214): 4.3}),
    # docs/source/developer-guide/perf-overview.md, the same section: PyTorch backend
    Harness(
        pattern=r"developer-guide/perf-overview\.md",
        requests={
            (1000, 1000): 3000,
            (1024, 1024): 3000,
            (8192, 1024): 1500,
            (1024, 8192): 1500,
            (32768, 1024): 1000,
            (1024, 32768): 1000,
        },
    ),
]
TIGHT = {"max_num_seqs": 128, "max_num_batched_tokens": 2048, "gpu_memory_utilization": 0.98}
"""Options under which a published target is tried that does not fit with the defaults."""
WAVES = 10
"""Requests of a run at a concurrency whose source does not say, in its concurrency; the first wave starts together."""
RATE_REQUESTS = 1000
"""Of a run at a request rate whose source does not say (the default of `vllm bench serve`)."""


class Prior(NamedTuple):
    """Where a constant is expected before anything is measured, and by what factor it may well differ."""

    value: float
    factor: float


PRIORS = {
    # 0.8-0.9 of the peak bandwidth: aiconfigurator's systems/*.yaml (0.8), vLLM's blog on fp8 caches (0.83-0.89)
    "memory": Prior(0.85, 1.08),
    "cache": Prior(0.85, 1.08),
    # dense products reach 60-70 % of the paper peak on power-limited parts, more on A100
    "compute.sm_80": Prior(0.75, 1.15),
    "compute.sm_89": Prior(0.65, 1.15),
    "compute.sm_90": Prior(0.65, 1.15),
    "compute.sm_100": Prior(0.65, 1.15),
    "compute.sm_120": Prior(0.65, 1.15),
    "grouped": Prior(0.4, 1.5),
    "attention": Prior(0.5, 1.3),  # FlashAttention-3 on H100: 0.75 at long prompts, less at short ones
    "link": Prior(0.6, 1.3),
    "reduce_s": Prior(12e-6, 1.5),  # aiconfigurator: 10 us between two GPUs
    "step_s": Prior(1e-3, 1.6),
    "layer_s": Prior(10e-6, 1.5),  # some ten dependent kernels of a layer at 1 us
    "sequence_s": Prior(1e-6, 2.0),
    "python_sequence_s": Prior(5e-6, 1.6),
    "request_s": Prior(4e-3, 1.5),
    "overlap": Prior(4.0, 1.5),
}
UNMEASURED = {"other": 0.6, "sm_75": 0.6, "sm_103": 0.65, "gfx942": 0.4, "gfx950": 0.4}
"""Architectures without rows; AMD's parts reach about 40 % (MI300X: 620 of 1307 TFLOP/s in bf16, 990 of
2615 in fp8 GEMM, against 720 of 989 and 1280 of 1979 of an H100; newsletter.semianalysis.com, 2024-12-22)."""
ABOUT = 0.1
"""|log error| of a good prediction: beyond it, an error counts linearly."""
ROWS_OF_A_SOURCE = 30
"""What a source counts for in the fit, however many rows it has: its rows share their harness."""
LATENCY_WEIGHT = 0.3
"""Of a TTFT or a TPOT in the fit, against a throughput: they are printed in whole milliseconds."""


class Case(NamedTuple):
    """A row as the model takes it."""

    row: Row
    target: Callable[[Fitted], Target]
    lengths: Lengths
    copies: int
    requests: int | None
    concurrency: float | None
    rate: float | None


class Prediction(NamedTuple):
    """In the table's units, base ones: tokens/s as the row counts them, seconds."""

    throughput: float
    ttft_s: float
    tpot_s: float


def rows(path: Path) -> list[Row]:
    """Of a table in the columns of serving_perf.csv."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [
            {"source": ""} | {key: value or "" for key, value in row.items() if key} for row in csv.DictReader(file)
        ]


def predict(row: Row, constants: Fitted | None = None) -> Prediction | Unknown:
    """What the model says of a row; Unknown when the catalog lacks something or the target does not fit."""
    found = case(row)
    return found if isinstance(found, Unknown) else _predict(found, constants or fitted())


def case(row: Row) -> Case | Unknown:
    """The row's target and load."""
    try:
        return _case({name: row.get(name) or "" for name in {*COLUMNS, *row}}, _catalog())
    except (OrchError, ValueError) as error:
        return Unknown(reason=f"unknown: {error}")


@cache
def _catalog() -> Catalog:
    return load()


def _case(row: Row, catalog: Catalog) -> Case | Unknown:
    if "req" in row["tokens_kind"].lower():
        return Unknown(reason="unknown: requests were counted, not tokens")
    harness = next((found for found in HARNESSES if re.search(found.pattern, row["source"])), Harness(pattern=""))
    model, gpu = catalog.model(row["model"]), catalog.gpu(row["gpu"])
    lengths = _lengths(row)
    if isinstance(lengths, Unknown):
        return lengths
    lengths = lengths._replace(longest=harness.longest.get((lengths.prompt, lengths.answer), 1.0))
    concurrency = _concurrency(row)
    serving = _serving(row, harness, concurrency, lengths)
    basis = target(model, serving, gpu, lengths, fitted())
    if isinstance(basis, Unknown):
        # it ran: with smaller batches than the engine's default, and all the memory there is
        serving = serving.model_copy(update=TIGHT | ({"max_num_seqs": round(concurrency)} if concurrency else {}))
        basis = target(model, serving, gpu, lengths, fitted())
    if isinstance(basis, Unknown):
        return basis

    def made(constants: Fitted) -> Target:
        return basis._replace(eff=reached(serving, gpu, constants, _section(row["engine"])))

    count = harness.requests
    requests = count.get((lengths.prompt, lengths.answer)) if isinstance(count, dict) else count
    endless = re.match(r"inf|unlimited|max", row["request_rate"].strip().lower())
    rate = math.inf if endless else _number(row["request_rate"]) or None
    return Case(row, made, lengths, serving.data, requests, concurrency, rate)


def _serving(row: Row, harness: Harness, concurrency: float | None, lengths: Lengths) -> Serving:
    engine = _engine(row["engine"])
    words = re.sub(
        r"(tensor|pipeline|data|expert)[- _]?parallel\w*", lambda found: f"{found[1][0]}p", row["parallelism"].lower()
    )
    found = re.findall(r"(tp|pp|dep|dp|ep)(?:[-_ ]?(?:size|degree))?[ =:_-]*(\d+)", words)
    degrees = {name: max(1, int(number)) for name, number in found}
    gpus, pipeline = round(_number(row["n_gpu"]) or 1), degrees.get("pp", 1)
    copies = degrees.get("dep", degrees.get("dp"))
    tensor = degrees.get("tp", max(1, gpus // (copies or 1) // pipeline))
    data = copies or max(1, gpus // (tensor * pipeline))  # GPUs that nothing is said of hold further copies
    batch = traits(engine).batches[1][0]
    settings: dict[str, float] = dict(harness.settings)
    if concurrency is not None:  # who publishes a concurrency has given the engine that many places
        settings["max_num_seqs"] = max(concurrency, 1 if traits(engine).up_front else batch)
    hopper_moe = row["dtype"].startswith("mxfp4/")  # that page: "Hopper: use auto" for the cache's type
    return Serving(
        engine=engine,
        quantization=_format(row["dtype"]),
        kv_dtype="bf16" if hopper_moe else row["kv_dtype"] if row["kv_dtype"].lower() in KV_BYTES else "auto",
        tensor=tensor,
        pipeline=pipeline,
        data=data,
        expert_parallel="dep" in degrees or "ep" in degrees,
        max_model_len=lengths.prompt + lengths.answer if traits(engine).up_front else None,
        **settings,
    )


ENGINES = {
    r"vllm": "vllm",
    r"sglang": "sglang",
    r"tensorrt|trt-?_?llm": "tensorrt_llm",
    r"llama[._-]?cpp|llama-(bench|server)|ollama|ggml|koboldcpp": "llama_cpp",
    r"transformers|hugging ?face|^hf\b": "transformers",
}
"""Words of an engine's cell, and the engine that does the work behind it."""


def _engine(text: str) -> str:
    """`tensorrt-llm 0.17`, `Triton + TRT-LLM` -> tensorrt_llm."""
    words = text.strip().lower()
    if "text-generation-inference" not in words.replace(" ", "-") and "tgi" not in words:
        for pattern, name in ENGINES.items():
            if re.search(pattern, words):
                return name
    return traits(words or "(none)").name


def _section(text: str) -> str | None:
    """Section of the engine's habits: TensorRT-LLM's runtime was C++ until 0.19; None: the engine's own."""
    found = re.search(r"tensorrt-llm 0\.(\d+)", text.lower())
    return "tensorrt_llm_cpp" if found and int(found[1]) < 19 else None


def _number(text: str | None) -> float | None:
    """The first number of a cell: `64`, `64 users`, `1,024`, `1k`; None: `max`, empty."""
    found = re.search(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*(k\b)?", (text or "").lower().replace(",", ""))
    return float(found[1]) * (1024 if found[2] else 1) if found else None


SHAREGPT = Lengths(202, 214)
"""Its means, as vLLM's benchmark_serving.py samples it."""


def _lengths(row: Row) -> Lengths | Unknown:
    """Tokens of a prompt and of an answer; a row that measures one of them alone may leave the other out."""
    prompt, answer = _number(row["input_len"]), _number(row["output_len"])
    if not prompt and not answer:
        words = " ".join(row.get(name) or "" for name in ("scenario", "notes", "input_len"))
        return (
            SHAREGPT if "sharegpt" in words.lower() else Unknown(reason="unknown: the lengths of prompts and answers")
        )
    if not answer and not (answer == 0 or _of_prompts(row["tokens_kind"])):
        return Unknown(reason="unknown: the length of the answers")
    return Lengths(round(max(1, prompt or 1)), round(max(1, answer or 1)))


def _of_prompts(kind: str) -> bool:
    return bool(re.search(READ, kind.lower())) and not re.search(WRITTEN, kind.lower())


def _of_both(kind: str) -> bool:
    return bool(
        kind.lower().startswith("total") or (re.search(READ, kind.lower()) and re.search(WRITTEN, kind.lower()))
    )


READ, WRITTEN = r"prompt|prefill|input", r"output|generat|decode|completion"
"""Words of what is counted."""


def _concurrency(row: Row) -> float | None:
    """Streams at once; an engine for one user is measured with one where nothing is said; None: as many as fit."""
    said = _number(row["concurrency"])
    if said or row["concurrency"].strip() or row["request_rate"].strip():
        return said or None
    batch = re.search(r"\b(?:bs|batch(?:[ _-]?size)?|concurrency)[ =:]*(\d+)", row.get("scenario", "").lower())
    if batch:
        return float(batch[1])
    single = re.search(r"single|one user|latency", row.get("scenario", "").lower())
    return 1.0 if single or _engine(row["engine"]) in ("llama_cpp", "transformers") else None


def measured(row: Row) -> float | None:
    """Tokens/s of all GPUs, of the column for one GPU where that is the one with a number; None: latencies alone."""
    if total := _number(row.get(COLUMN)):
        return total
    each = _number(row.get(f"{COLUMN}_per_gpu"))
    return each * round(_number(row.get("n_gpu")) or 1) if each else None


def _format(text: str) -> str:
    """`mxfp4/fp8 (table says FP8)` -> mxfp4; `int4-awq` -> the part of it that names a format."""
    said = re.sub(r"(?<![\w])([48])-?bit", r"int\1", text.strip().lower())
    said = re.sub(r"q(\d)_k - (small|medium|large)", lambda found: f"q{found[1]}_k_{found[2][0]}", said)
    words = re.split(r"[ /(),]+", said) if said else ["bf16"]
    for name in (part for word in words for part in (word, *re.split(r"[-+]", word), *re.split(r"[-_+]", word))):
        try:
            return weight_format(name).name
        except OrchError:
            continue
    return words[0]


def _predict(found: Case, constants: Fitted) -> Prediction:
    made, lengths = found.target(constants), found.lengths
    point = _point(found, made)
    return Prediction(_counted(found.row, point, lengths, found.copies), point.ttft_s, point.tpot_s)


def _point(found: Case, made: Target) -> Point:
    requests = None if found.requests is None else -(-found.requests // found.copies)
    if found.rate is not None:
        return arriving(made, found.lengths, found.rate / found.copies, requests or RATE_REQUESTS)
    each = math.inf if found.concurrency is None else max(1.0, found.concurrency / found.copies)
    if requests is None and math.isinf(each):
        return closed(made, found.lengths, places(made))
    return burst(made, found.lengths, requests or round(WAVES * each), each)


def _counted(row: Row, point: Point, lengths: Lengths, copies: int) -> float:
    """Throughput as the row counts it: output tokens of all GPUs, unless it says otherwise."""
    kind, rate = row["tokens_kind"].lower(), point.requests_per_s * copies
    if _of_prompts(kind):
        return lengths.prompt / point.ttft_s if _concurrency(row) == 1 else rate * lengths.prompt
    if "user" in kind or "per request" in kind:
        return 1 / point.tpot_s
    if _of_both(kind):
        return rate * (lengths.prompt + lengths.answer)
    return rate * lengths.answer


def errors(cases: Iterable[Case], constants: Fitted) -> dict[str, list[float]]:
    """log(predicted / measured) of throughput, ttft and tpot."""
    found: dict[str, list[float]] = {"throughput": [], "ttft": [], "tpot": []}
    for one in cases:
        said, row = _predict(one, constants), one.row
        if value := measured(row):
            found["throughput"].append(math.log(said.throughput / value))
        for name, predicted in (("ttft", said.ttft_s), ("tpot", said.tpot_s)):
            if milliseconds := _number(row[f"{name}_ms"]):
                found[name].append(math.log(predicted / milliseconds * 1e3))
    return found


def fit(table: list[Row]) -> Fitted:
    """Constants of least error on these rows, held near their priors; the spread is of sources left out in turn."""
    cases = [found for row in table if not isinstance(found := case(row), Unknown)]
    values = _fit(cases)
    left: dict[str, list[float]] = {"throughput": [], "ttft": [], "tpot": []}
    for source, values_without in without_each_source(cases):
        for name, found in errors((one for one in cases if one.row["source"] == source), values_without).items():
            left[name] += found
    spread = {name: round(_quantile([abs(one) for one in found], 0.9), 3) for name, found in left.items() if found}
    return values.model_copy(update={"spread": fitted().spread | spread if FILE.exists() else spread})


def without_each_source(cases: list[Case]) -> list[tuple[str, Fitted]]:
    """Source -> the constants fitted on the rows of all others."""
    sources = sorted({one.row["source"] for one in cases})
    return [(source, _fit([one for one in cases if one.row["source"] != source])) for source in sources]


def _fit(cases: list[Case]) -> Fitted:
    """Coordinate search in logarithms from the priors: few constants, a smooth loss."""
    values = {name: prior.value for name, prior in PRIORS.items()}
    steps = {name: math.log(prior.factor) for name, prior in PRIORS.items()}
    best = _loss(cases, values)
    for _ in range(12):
        for name in PRIORS:
            for sign in (1, -1):
                trial = values | {name: values[name] * math.exp(sign * steps[name])}
                loss = _loss(cases, trial)
                if loss < best:
                    values, best, steps[name] = trial, loss, steps[name] * 1.5
                    break
            else:
                steps[name] /= 2
    return _made(values, cases)


def _loss(cases: list[Case], values: Mapping[str, float]) -> float:
    constants = _made(values, cases)
    total = sum(
        (math.log(values[name] / prior.value) / math.log(prior.factor)) ** 2 / 2 for name, prior in PRIORS.items()
    )
    for source in {one.row["source"] for one in cases}:
        own = [one for one in cases if one.row["source"] == source]
        found = errors(own, constants)
        weighted = sum(map(_huber, found["throughput"]))
        weighted += LATENCY_WEIGHT * sum(map(_huber, found["ttft"] + found["tpot"]))
        total += weighted / len(own) * ROWS_OF_A_SOURCE
    return total


def _huber(error: float) -> float:
    scaled = abs(error) / ABOUT
    return scaled * scaled / 2 if scaled < 1 else scaled - 0.5


def _made(values: Mapping[str, float], cases: list[Case]) -> Fitted:
    rounded = {name: float(f"{value:.3g}") for name, value in values.items()}
    compute = {name.partition(".")[2]: value for name, value in rounded.items() if name.startswith("compute.")}
    sources = sorted({one.row["source"].partition("@")[0].strip() for one in cases})
    return Fitted(
        date=max((one.row["date"] for one in cases), default=""),
        source=", ".join(sources),
        rows=len(cases),
        compute=compute | UNMEASURED,
        spread={},
        **{name: value for name, value in rounded.items() if "." not in name},
    )


def _quantile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def text(constants: Fitted) -> str:
    """The file as `--write` writes it."""
    head = "# Written by benchmarks/planner_serving.py --write; the fields are explained in efficiency.py.\n"
    return head + yaml.safe_dump(constants.model_dump(), sort_keys=False, width=110)


def report(table: list[Row], *, left_out: bool) -> list[str]:
    """Per source: rows, median and 90th percentile of |error|, median signed error."""
    judged = [(row, case(row)) for row in table]
    cases = [found for _, found in judged if isinstance(found, Case)]
    by = dict(without_each_source(cases)) if left_out else {one.row["source"]: fitted() for one in cases}
    lines, every = [], {"throughput": [], "ttft": [], "tpot": []}
    for source, constants in sorted(by.items()):
        found = errors((one for one in cases if one.row["source"] == source), constants)
        lines += [_line(source, name, values) for name, values in found.items() if values]
        every = {name: every[name] + values for name, values in found.items()}
    lines += [_line("all", name, values) for name, values in every.items() if values]
    return lines + [
        f"not predicted: {row['id']}: {found.reason}" for row, found in judged if isinstance(found, Unknown)
    ]


def _line(source: str, name: str, values: list[float]) -> str:
    off = [math.exp(one) - 1 for one in values]
    median, tail = (_quantile([abs(one) for one in off], part) for part in (0.5, 0.9))
    bias = statistics.median(off)
    return f"{source[-60:]:60} {name:10} {len(off):4} |error| median {median:5.1%} p90 {tail:6.1%} bias {bias:+6.1%}"


def main() -> None:
    """Print the report, or write the constants."""
    facts = Path(__file__).parents[2] / "shared" / "facts"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=Path, default=facts, help="folder with calibration/serving_perf.csv")
    parser.add_argument("--table", type=Path, help="another table, judged with the shipped constants")
    parser.add_argument("--write", action="store_true", help="fit all rows and write the constants")
    options = parser.parse_args()
    if options.write:
        FILE.write_text(text(fit(rows(options.facts / "calibration" / TABLE))), encoding="utf-8")
    if options.table:
        print("\n".join(report(rows(options.table), left_out=False)))
    else:
        print("\n".join(report(rows(options.facts / "calibration" / TABLE), left_out=True)))


if __name__ == "__main__":
    main()
