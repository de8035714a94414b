"""Wall time of the stages that are not training, from sizes and rates. The rates are assumptions with wide intervals:
they say minutes or hours, and the sum of a run is not thrown away because a download was not measured.
"""

from orchestrator.planner.estimate import Estimate, Term

NETWORK = (20e6, 150e6, 1e9)
"""Bytes/s from the hub: slow, usual, fast."""
DISK = (0.3e9, 1e9, 3e9)
"""Bytes/s to or from a local disk: a shared file system, usual, NVMe."""
CONVERSION = (0.1e9, 0.4e9, 1.5e9)
"""Bytes/s of 16-bit weights that are merged or converted, reading and writing included."""
TOKENIZER = (50e3, 300e3, 2e6)
"""Tokens/s of one core with a fast tokenizer, checking rows included."""
START = (5.0, 20.0, 60.0)
"""Seconds until a process with torch has started."""
ENGINE_START = (1.0, 6.0, 90.0)
"""Seconds until an engine answers, its weights aside: llama.cpp takes 1 to 3, an engine that compiles a minute."""
Rates = tuple[float, float, float]


def moved(amount: float, rates: Rates, what: str, start: Rates = START) -> Estimate:
    """Seconds to move so many bytes (or tokens), with one start of a process."""
    slow, usual, fast = rates
    return Estimate(
        unit="s",
        value=amount / usual + start[1],
        low=amount / fast + start[0],
        high=amount / slow + start[2],
        terms=[
            Term(
                name="moving", amount=amount / usual, because=f"{what} at {usual:g}/s (assumed, {slow:g} to {fast:g})"
            ),
            Term(name="start", amount=start[1], because=f"{start[0]:g} to {start[2]:g} s (assumed)"),
        ],
    )


def moment(low: float, value: float, high: float, because: str) -> Estimate:
    """So many seconds, by assumption."""
    return Estimate(
        unit="s", value=value, low=low, high=high, terms=[Term(name="assumed", amount=value, because=because)]
    )


def answers(requests: float, output_tokens: float, throughput: Estimate, what: str) -> Estimate:
    """Seconds until so many answers are written at a throughput in tokens/s."""
    tokens = requests * output_tokens
    amount = tokens / throughput.value
    because = f"{what}: {tokens:,.0f} tokens at {throughput.value:,.0f}/s"
    return Estimate(
        unit="s",
        value=amount,
        low=tokens / throughput.high,
        high=tokens / throughput.low,
        terms=[Term(name=what, amount=amount, because=because)],
    )


def added(*parts: Estimate) -> Estimate:
    """One after the other."""
    return Estimate(
        unit="s",
        value=sum(part.value for part in parts),
        low=sum(part.low for part in parts),
        high=sum(part.high for part in parts),
        terms=[term for part in parts for term in part.terms],
    )
