"""The licence and jurisdiction gate: may this model and this data be used like that? Asked before any GPU is paid for.

The rules are data (`catalog/licenses.yaml`); each kind of rule has one function here. Pure. A reading by engineers, not
legal advice.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from orchestrator.catalog.catalog import Catalog
from orchestrator.catalog.licenses import Amount, Duty, License, Limit, Naming, Outputs, Region, Use, UseOnly, When
from orchestrator.catalog.models import Count, ModelFacts
from orchestrator.config import Model
from orchestrator.units import Usd

Status = Literal["allowed", "allowed with obligations", "forbidden", "unknown"]
WIDER: dict[str, str] = {
    "product_monthly_active_users": "monthly_active_users",
    "product_monthly_revenue": "company_monthly_revenue",
}
"""An amount that is not given is at most this one."""


class Compliance(Model):
    """Who uses the model, where and for what. What is not given is unknown, and so may be the verdict."""

    use: Use | None = None
    """research, internal (inside an organisation), commercial (a product or service for others)."""
    principal_place_of_business: str | None = None
    """Country of the organisation, ISO 3166, such as DE."""
    individual_domicile: str | None = None
    """Country of a person who acts without an organisation."""
    monthly_active_users: Count | None = Field(None, ge=0)
    """Of all products, affiliates included, in the month before the model's release."""
    product_monthly_active_users: Count | None = Field(None, ge=0)
    """Of the product that uses the model; at most those of all products."""
    product_monthly_revenue: Usd | None = None
    """Of that product, in USD a month."""
    company_monthly_revenue: Usd | None = None
    """Consolidated, affiliates or the employer included, in USD a month."""
    distribute_weights: bool = False
    """The trained weights are given to others."""
    trained_on_outputs_of: list[str] = []
    """Models whose answers are in the training data."""
    derivative_name: str | None = None
    """Name that the trained model gets."""
    role: Literal["host", "end_user"] = "host"
    """end_user: only uses somebody else's product that has the model inside."""

    @field_validator("principal_place_of_business", "individual_domicile")
    @classmethod
    def _country(cls, value: str | None) -> str | None:
        if value is not None and not (len(value) == 2 and value.isalpha()):
            raise ValueError(f"{value!r} is not a country; write its ISO 3166 code of two letters, such as DE or US")
        return {"UK": "GB", "EL": "GR"}.get(value.upper(), value.upper()) if value else value


class Finding(Model):
    """What one rule says here."""

    kind: Literal["forbidden", "unknown", "obligation", "warning"]
    """What it means for the verdict."""
    subject: str
    """Whose licence, such as `meta-llama/Llama-3.1-8B (Llama 3.1 Community License)`."""
    text: str
    """The rule, what to do, or what is missing, in our own words."""
    source: str | None = None
    """Where the rule was read."""


class Verdict(Model):
    """The answer and its reasons."""

    status: Status
    """forbidden if anything is; else unknown if anything is; else with the obligations that are listed."""
    findings: list[Finding] = []
    """All reasons, the gravest first."""

    def of(self, *kinds: str) -> list[Finding]:
        """The findings of some kinds."""
        return [finding for finding in self.findings if finding.kind in kinds]


class Subject(Model):
    """Whose licence is judged, and what follows for the rules."""

    name: str
    """Of the model or data set."""
    multimodal: bool = False
    """It reads more than text."""
    student: str | None = None
    """Family of the model that is trained on its outputs; None: it is itself the base, or data."""
    teacher: bool = False
    """It only gave answers to train on."""


Found = Iterable[tuple[Literal["forbidden", "unknown", "obligation", "warning"], str]]


def judge(
    model: ModelFacts, compliance: Compliance, catalog: Catalog, datasets: Mapping[str, str | None] | None = None
) -> Verdict:
    """The verdict on training and serving a model; `datasets` has the licence of each, None where it is not known."""
    findings = _of_model(model, Subject(name=model.id, multimodal=model.multimodal), compliance, catalog)
    for name in compliance.trained_on_outputs_of:
        teacher = catalog.find_model(name)
        subject = Subject(name=f"outputs of {name}", student=model.family or model.id, teacher=True)
        if teacher is None:
            findings.append(_unknown(subject.name, f"the catalog does not have {name}, so its licence is not known"))
        else:
            findings += _of_model(teacher, subject, compliance, catalog)
    for name, license in (datasets or {}).items():
        findings += _of_license(license, Subject(name=name), compliance, catalog)
    return verdict(findings)


def verdict(findings: Iterable[Finding]) -> Verdict:
    """What findings amount to."""
    order = ["forbidden", "unknown", "warning", "obligation"]
    sorted_ = sorted(
        dict.fromkeys((f.kind, f.subject, f.text, f.source) for f in findings), key=lambda f: order.index(f[0])
    )
    found = [Finding(kind=kind, subject=subject, text=text, source=source) for kind, subject, text, source in sorted_]
    worst = found[0].kind if found else None
    statuses: dict[str | None, Status] = {None: "allowed", "forbidden": "forbidden", "unknown": "unknown"}
    return Verdict(status=statuses.get(worst, "allowed with obligations"), findings=found)


def apply(license: License, subject: Subject, compliance: Compliance) -> list[Finding]:
    """What one licence says about one subject."""
    name = f"{subject.name} ({license.name})"
    found = []
    for rule in license.rules:
        for kind, text in _RULES[rule.rule](rule, subject, compliance):
            found.append(Finding(kind=kind, subject=name, text=text, source=rule.source or license.source))
    if not license.verified and not subject.teacher:
        text = "the text of this licence was not read for the catalog: read it yourself"
        found.append(Finding(kind="warning", subject=name, text=text, source=license.source))
    return found


def _of_model(model: ModelFacts, subject: Subject, compliance: Compliance, catalog: Catalog) -> list[Finding]:
    keys = [model.license, *model.base_licenses]
    return [finding for key in keys for finding in _of_license(key, subject, compliance, catalog)]


def _of_license(key: str | None, subject: Subject, compliance: Compliance, catalog: Catalog) -> list[Finding]:
    if key is None:
        return [_unknown(subject.name, "its licence is not known")]
    license = catalog.find_license(key)
    if license is None:
        return [_unknown(subject.name, f"the catalog does not know the licence {key!r}; add it to catalog/*.yaml")]
    return apply(license, subject, compliance)


def _unknown(subject: str, text: str) -> Finding:
    return Finding(kind="unknown", subject=subject, text=text)


def _limit(rule: Limit, subject: Subject, compliance: Compliance) -> Found:
    if subject.teacher or not (concerned := _concerned(rule.when, compliance)):
        if not subject.teacher and concerned is None:
            yield "unknown", f"compliance.use is missing: {rule.text}"
        return
    missing = []
    for amount, limit in rule.more_than.items():
        value, exact = _amount(compliance, amount)
        if value is not None and value > limit and exact:
            yield rule.effect, f"{rule.text} (here {value:,.0f})"
            return
        if value is None or value > limit:
            missing.append(f"compliance.{amount}")
    if missing:
        yield "unknown", f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing: {rule.text}"


def _amount(compliance: Compliance, amount: Amount) -> tuple[float | None, bool]:
    """The amount, and whether it is that one rather than an upper bound for it."""
    given = getattr(compliance, amount)
    return (given, True) if given is not None else (getattr(compliance, WIDER.get(amount, amount)), False)


def _region(rule: Region, subject: Subject, compliance: Compliance) -> Found:
    if subject.teacher or (rule.multimodal_only and not subject.multimodal):
        return
    if rule.end_users_exempt and compliance.role == "end_user":
        return
    places = [p for p in (compliance.principal_place_of_business, compliance.individual_domicile) if p]
    inside = [place for place in places if place in rule.countries]
    if inside:
        yield "forbidden", f"{rule.text} (here {inside[0]})"
    elif not places:
        yield "unknown", f"compliance.principal_place_of_business is missing: {rule.text}"


def _naming(rule: Naming, subject: Subject, compliance: Compliance) -> Found:
    if subject.teacher and not rule.outputs:
        return
    concerned, name = _concerned(rule.when, compliance), compliance.derivative_name
    if concerned is None:
        yield "unknown", f"compliance.use is missing: {rule.text}"
    elif concerned and name is None:
        yield "obligation", rule.text
    elif concerned and name and not _plain(name.rsplit("/", 1)[-1]).startswith(_plain(rule.prefix)):
        yield "forbidden", f"{rule.text} (here {name!r}; {rule.prefix}-{name.rsplit('/', 1)[-1]} would be allowed)"


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _outputs(rule: Outputs, subject: Subject, compliance: Compliance) -> Found:
    if subject.student is not None and subject.student not in rule.families:
        yield "forbidden", f"{rule.text} (here {subject.student})"


def _use(rule: UseOnly, subject: Subject, compliance: Compliance) -> Found:
    if compliance.use is None:
        yield "unknown", f"compliance.use is missing: {rule.text}"
    elif compliance.use in rule.unclear:
        yield "unknown", f"{rule.text}; whether this {compliance.use} use is one of them is not settled"
    elif compliance.use not in rule.allowed:
        yield "forbidden", f"{rule.text} (here {compliance.use})"


def _duty(rule: Duty, subject: Subject, compliance: Compliance) -> Found:
    concerned = False if subject.teacher else _concerned(rule.when, compliance)
    if concerned:
        yield ("unknown" if rule.open else "obligation"), rule.text


def _concerned(when: When, compliance: Compliance) -> bool | None:
    """Whether a rule concerns this use; None: it depends on what is not given."""
    if when == "always":
        return True
    if when == "distributed" or (when == "made_available" and compliance.distribute_weights):
        return compliance.distribute_weights
    return None if compliance.use is None else compliance.use == "commercial"


_RULES: dict[str, Callable[[Any, Subject, Compliance], Found]] = {
    "limit": _limit,
    "region": _region,
    "naming": _naming,
    "outputs": _outputs,
    "use": _use,
    "duty": _duty,
}
