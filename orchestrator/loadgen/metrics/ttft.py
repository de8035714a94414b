"""Time to first token: arrival of the first non-empty content, reasoning or tool-call delta - intended send time.

In a closed loop the intended time is the time of sending. In an open loop it is the schedule's, so that requests that
had to wait, since the server was slow or the client late, are not flattered (coordinated omission).
"""

from orchestrator.loadgen.record import Record

UNIT = "s"


def values(record: Record) -> list[float]:
    """One value; none if the answer was empty."""
    return [(record.content[0] - record.intended) / 1e9] if record.content else []
