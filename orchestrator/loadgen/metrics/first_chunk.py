"""Time to first chunk: arrival of the stream's first event, whatever it holds - intended send time.

Many servers send an event with the role alone as soon as the request is accepted. Tools that take it for the first
token report this number as TTFT; both stand side by side so that the two can be told apart.
"""

from orchestrator.loadgen.record import Record

UNIT = "s"


def values(record: Record) -> list[float]:
    """One value; none if no event arrived."""
    return [(record.first_chunk - record.intended) / 1e9] if record.first_chunk else []
