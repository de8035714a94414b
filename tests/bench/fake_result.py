"""An invented result of a sweep, for tests and for looking at reports. Nothing in it was measured.

fake_result()                         two engines, two workloads, closed and open loop, what can go wrong included
fake_result(targets=("only",))        a small one
"""

import math
import random
from collections.abc import Sequence

from orchestrator.bench.result import (
    Cell,
    Client,
    EngineSample,
    Result,
    Search,
    Second,
    Slo,
    Spread,
    Summary,
    Target,
)

GPU = {"name": "NVIDIA H100 80GB HBM3", "memory_bytes": 81559 * 2**20, "driver": "570.86.15"}
HARDWARE = {"cpu": "AMD EPYC 9354", "cores": 32, "memory_bytes": 2**38, "gpus": [GPU], "system": "Linux 6.8.0 x86_64"}
SPEED = {"vllm-fp8": (0.021, 0.0074, 190), "vllm-bf16": (0.026, 0.0112, 150), "llama-q4": (0.044, 0.0091, 28)}
"""Invented: TTFT alone, ITL alone, streams at which it saturates."""
STREAMS = (1, 4, 16, 64, 256)
RATES = (2.0, 8.0, 16.0)


def spread(draw: random.Random, middle: float, width: float, count: int = 400) -> Spread:
    """Of log-normal values."""
    values = sorted(middle * math.exp(draw.gauss(0, width)) for _ in range(count))

    def at(share: float) -> float:
        return values[min(count - 1, round(share * (count - 1)))]

    marks = {"p50": at(0.5), "p90": at(0.9), "p95": at(0.95), "p99": at(0.99), "mean": sum(values) / count}
    reach = {"p50": 0.02, "mean": 0.02, "p90": 0.04, "p95": 0.05, "p99": 0.11}
    intervals = {name: (value * (1 - reach[name]), value * (1 + reach[name])) for name, value in marks.items()}
    quantiles = [at(share / 100) for share in range(101)]
    return Spread(n=count, min=values[0], max=values[-1], intervals=intervals, quantiles=quantiles, **marks)


def client(*, limited: bool = False) -> Client:
    """One client process; a limited one has used up its core."""
    return Client(
        workers=1,
        limited=limited,
        cpu_share=0.98 if limited else 0.31,
        lag_p50_s=0.0021 if limited else 0.00004,
        lag_p99_s=0.0187 if limited else 0.00031,
        send_late_p99_s=0.00042,
        kernel_timestamps=True,
        peak_memory=61 * 2**20,
    )


def summary(target: str, load: float, seed: int, *, slo: Slo, usd: float, limited: bool = False) -> Summary:
    """Of one cell; `load` is the mean number of requests in flight."""
    draw = random.Random(seed)
    first, gap, full = SPEED.get(target, SPEED["vllm-bf16"])
    crowd = load / full
    ttft, itl = first * (1 + 14 * crowd**2.2), gap * (1 + 1.9 * crowd)
    tokens_per_s = min(load, full * 1.08) / (gap * (1 + 1.9 * min(crowd, 1.08)))
    duration, answer, prompt = 60.0, 128, 512
    requests = max(40, int(tokens_per_s * duration / answer))
    errors = {"http_503": requests // 30, "timeout": 2} if crowd > 1.2 else {}
    succeeded = requests - sum(errors.values())
    good = succeeded / requests * (1 / (1 + math.exp(6 * (ttft / (slo.ttft or 1) - 1.1))))
    rates = {"requests_per_s": tokens_per_s / answer, "output_tokens_per_s": tokens_per_s}
    return Summary(
        requests=requests,
        succeeded=succeeded,
        warmup_requests=max(4, int(load)),
        duration_s=duration,
        latencies={
            "ttft": spread(draw, ttft, 0.22 + 0.2 * min(crowd, 1)),
            "first_chunk": spread(draw, ttft * 0.98, 0.22),
            "itl": spread(draw, itl, 0.12 + 0.3 * min(crowd, 1)),
            "tpot": spread(draw, itl * 1.02, 0.06),
            "normalized_latency": spread(draw, itl + ttft / answer, 0.08),
            "e2e": spread(draw, ttft + answer * itl, 0.07),
        },
        **rates,
        input_tokens_per_s=tokens_per_s * prompt / answer,
        intervals={name: (0.97 * value, 1.03 * value) for name, value in rates.items()},
        prompt_tokens=succeeded * prompt,
        completion_tokens=succeeded * answer,
        cached_tokens=0,
        errors=errors,
        error_example='{"error": "queue is full <b>retry</b>"}' if errors else None,
        goodput=good,
        goodput_per_s=good * tokens_per_s / answer,
        keeps_slo=good >= slo.share,
        usd_per_million_tokens=usd / 3600 / tokens_per_s * 1e6,
        usd_per_million_total_tokens=usd / 3600 / (tokens_per_s * (1 + prompt / answer)) * 1e6,
        steady=crowd < 1.2,
        steady_note=None if crowd < 1.2 else "TTFT grew by 61 % from the first half of the window to the second",
        client=client(limited=limited),
        timeline=_timeline(draw, load, ttft, tokens_per_s, tokens_per_s / answer, failing=bool(errors)),
        engine=_engine(draw, load, full, tokens_per_s),
    )


def _timeline(
    draw: random.Random, load: float, ttft: float, tokens_per_s: float, per_s: float, *, failing: bool
) -> list[Second]:
    seconds = []
    for second in range(60):
        fill = min(1.0, (second + 1) / 4)
        middle = ttft * draw.uniform(0.85, 1.2)
        seconds.append(
            Second(
                t=second,
                sent=round(per_s * draw.uniform(0.6, 1.4)),
                ended=round(per_s * fill * draw.uniform(0.6, 1.4)),
                errors=draw.choice((0, 0, 0, 1, 2)) if failing else 0,
                output_tokens=tokens_per_s * fill * draw.uniform(0.93, 1.06),
                in_flight=round(load),
                ttft_p50=middle,
                ttft_p95=middle * draw.uniform(1.3, 1.9),
            )
        )
    return seconds


def _engine(draw: random.Random, load: float, full: float, tokens_per_s: float) -> list[EngineSample]:
    samples = []
    for tick in range(60):
        running = min(load, full) * draw.uniform(0.96, 1.0)
        samples.append(
            EngineSample(
                t=float(tick),
                running=running,
                waiting=max(0.0, load - full) * draw.uniform(0.8, 1.1),
                kv_cache_usage=min(0.98, 0.02 + 0.9 * running / full),
                batch_size=running,
                generated_tokens_total=tokens_per_s * tick,
            )
        )
    return samples


def fake_result(
    *,
    name: str = "chat-h100",
    targets: Sequence[str] = ("vllm-fp8", "llama-q4"),
    workloads: Sequence[str] = ("chat", "rag"),
    seed: int = 17,
) -> Result:
    """Of a sweep of all targets over all workloads and loads; the last of several targets fails at the highest load."""
    slo = Slo(ttft=0.5, tpot=0.05)
    cells: list[Cell] = []
    for target in targets:
        for workload in workloads:
            longer = 1.0 if workload == workloads[0] else 1.6
            for load in (*STREAMS, *RATES):
                number = len(cells)
                is_open = isinstance(load, float)
                dead = target == targets[-1] != targets[0] and load == STREAMS[-1]
                busy = (load * 1.3 if is_open else load) * longer
                cells.append(
                    Cell(
                        id=f"{number:02d}c0ffee{seed:02d}",
                        target=target,
                        workload=workload,
                        mode="open" if is_open else "closed",
                        concurrency=None if is_open else int(load),
                        rate=load if is_open else None,
                        state="failed" if dead else "done",
                        cause="the engine died with code 139: <segfault in ggml_backend>" if dead else None,
                        started=1_795_470_000.0 + 80 * number,
                        order=(number * 7) % 11,
                        summary=None
                        if dead
                        else summary(target, busy, seed + number, slo=slo, usd=2.49, limited=number == 4),
                        records=None if dead else f"{number:02d}.records",
                    )
                )
    return Result(
        id=f"b-20261123-2140-{seed:04x}",
        name=name,
        created=1_795_470_000.0,
        orch_version="0.1.0",
        client_hardware=HARDWARE,
        recipe_digest="9b1d4c60e2f7a855",
        run="chat-h100-20261123-2138-7f3a",
        service="chat",
        slo=slo,
        workloads={
            workload: {
                "synthetic": {"input_tokens": "lognormal:512,0.8", "output_tokens": "128"},
                "prompts": 512,
                "mean_prompt_tokens": 512.4,
                "tokenizer": "the server's /tokenize",
                "shared_prefix": 0.0,
                "seed": seed,
                "nonce": True,
            }
            for workload in workloads
        },
        settings={"duration_s": 60, "temperature": 0.0, "max_tokens": 128, "warmup_s": 5, "order_seed": seed},
        targets=[_target(target) for target in targets],
        cells=cells,
        searches=[
            Search(target=targets[0], workload=workloads[0], knee=64, max_rate=11.2, first_bad_rate=12.5, trials=6),
            Search(target=targets[-1], workload=workloads[0], knee=16, trials=3, note="no rate kept the SLO"),
        ],
        prompt_parity={"identical": False, "prompts": 512, "differ": 3, "largest": 2} if len(targets) > 1 else None,
    )


def _target(name: str) -> Target:
    engine = "llama_cpp" if name.startswith("llama") else "vllm"
    return Target(
        name=name,
        url="http://127.0.0.1:8000/v1",
        model="Qwen3-8B",
        engine=engine,
        engine_version="0.32.0" if engine == "vllm" else "0c1e570",
        engine_args={"max_model_len": 8192, "kv_cache_dtype": "auto", "note": "<script>alert(1)</script>"},
        quantization=name.partition("-")[2] or None,
        release="chat@3",
        hardware=HARDWARE,
        usd_per_hour=2.49,
        price_source="clusters/h100x8.yaml, 2026-10-02",
    )
