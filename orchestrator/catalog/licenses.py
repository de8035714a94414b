"""What a licence allows, as data that `planner/license.py` interprets. A reading by engineers, not legal advice."""

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.config import Model

Amount = Literal[
    "monthly_active_users", "product_monthly_active_users", "product_monthly_revenue", "company_monthly_revenue"
]
Use = Literal["research", "internal", "commercial"]
When = Literal["always", "commercial", "made_available", "distributed"]
"""commercial: the use is; made_available: others use the model, as a service or as weights; distributed: as weights."""


class Limit(Model):
    """Something happens where one of the amounts is greater than its limit; exactly the limit is still below it."""

    rule: Literal["limit"]
    more_than: dict[Amount, float]
    """Amount of `compliance` -> limit; one that is exceeded is enough."""
    effect: Literal["forbidden", "obligation", "warning"]
    """What then holds."""
    when: When = "always"
    """Which use it concerns."""
    text: str
    """The rule in our own words."""
    source: str | None = None
    """File and line, where it is not the licence's own source."""


class Region(Model):
    """No rights for those who are at home in some countries."""

    rule: Literal["region"]
    countries: list[str]
    """ISO 3166 codes of two letters."""
    multimodal_only: bool = False
    """Only models that read more than text."""
    end_users_exempt: bool = False
    """Users of somebody else's product are not concerned."""
    text: str
    """The rule in our own words."""
    source: str | None = None
    """File and line."""


class Naming(Model):
    """The name of a model that was made with this one, or with its outputs, begins with a word."""

    rule: Literal["naming"]
    prefix: str
    """Such as Llama."""
    outputs: bool = False
    """It holds for models that were trained on outputs too."""
    when: When = "made_available"
    """Which use it concerns."""
    text: str
    """The rule in our own words."""
    source: str | None = None
    """File and line."""


class Outputs(Model):
    """Outputs must not improve other language models."""

    rule: Literal["outputs"]
    families: list[str]
    """Families of models that may be trained on them nevertheless."""
    text: str
    """The rule in our own words."""
    source: str | None = None
    """File and line."""


class UseOnly(Model):
    """Only some uses are allowed."""

    rule: Literal["use"]
    allowed: list[Use]
    """Uses that are."""
    unclear: list[Use] = []
    """Uses about which one can differ."""
    text: str
    """The rule in our own words."""
    source: str | None = None
    """File and line."""


class Duty(Model):
    """Something that must be done, or whose meaning for trained weights is open."""

    rule: Literal["duty"]
    when: When = "always"
    """Which use it concerns."""
    open: bool = False
    """Nobody knows whether it concerns weights: the answer is unknown rather than an obligation."""
    text: str
    """What to do, in our own words."""
    source: str | None = None
    """File and line."""


Rule = Annotated[Limit | Region | Naming | Outputs | UseOnly | Duty, Field(discriminator="rule")]


class License(Model):
    """One licence of models or of data."""

    id: str
    """Its key."""
    name: str
    """As its authors call it."""
    aliases: list[str] = []
    """Other names, as hubs write them."""
    rules: list[Rule] = []
    """All must be kept; none: everything is allowed."""
    source: str | None = None
    """Where it was read."""
    date: str | None = None
    """When."""
    verified: bool = False
    """Whether the text itself was read."""
