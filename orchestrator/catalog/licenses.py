"""What a licence allows, as data that `planner/license.py` interprets. A reading by engineers, not legal advice."""

from orchestrator.config import Model


class License(Model):
    """One licence."""

    id: str
    """Its key."""
    name: str
    """As its authors call it."""
    aliases: list[str] = []
    """Other names, as hubs write them."""
    source: str | None = None
    """Where it was read."""
    date: str | None = None
    """When."""
    verified: bool = False
    """Whether the text itself was read."""
