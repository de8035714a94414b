"""`Unknown`: why there is no number, and what is certain nevertheless."""

from orchestrator.config import Model


class Unknown(Model):
    """No number can be given."""

    reason: str
    """What is missing, such as `unknown: the FFN width of Qwen/Qwen3.5-9B is not in the catalog`."""
    low: float | None = None
    """What is certain nevertheless: at least this."""
    high: float | None = None
    """And at most this."""
