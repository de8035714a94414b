"""The licence gate: every rule of every licence, at its boundary."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.catalog.catalog import load
from orchestrator.planner.license import Compliance, Verdict, judge

CATALOG = load(directory=Path(__file__).parent)
SCOUT = "meta-llama/Llama-4-Scout-17B-16E-Instruct"
LLAMA31, LLAMA3, QWEN3 = "meta-llama/Llama-3.1-8B", "meta-llama/Meta-Llama-3-8B", "Qwen/Qwen3-8B"
KIMI, MEDIUM = "moonshotai/Kimi-K2.5", "mistralai/Mistral-Medium-3.5-128B"
SMALL: dict[str, Any] = {"use": "commercial", "monthly_active_users": 120_000, "principal_place_of_business": "US"}


def ask(model: str, datasets: dict[str, str | None] | None = None, **compliance: Any) -> Verdict:
    return judge(CATALOG.model(model), Compliance(**compliance), CATALOG, datasets)


def said(verdict: Verdict, *kinds: str) -> str:
    return "\n".join(finding.text for finding in verdict.of(*kinds))


def test_permissive_licences_ask_for_nothing_until_weights_are_given_away() -> None:
    assert ask(QWEN3).status == "allowed"
    assert ask("deepseek-ai/DeepSeek-R1", **SMALL).status == "allowed"
    given = ask(QWEN3, distribute_weights=True)
    assert given.status == "allowed with obligations"
    assert "NOTICE" in said(given, "obligation")
    assert given.findings[0].source is not None


def test_nobody_knows_whether_llama_is_allowed_without_the_number_of_users() -> None:
    found = ask(LLAMA31, use="internal")
    assert found.status == "unknown"
    assert "compliance.monthly_active_users is missing" in said(found, "unknown")


@pytest.mark.parametrize(("users", "status"), [(700_000_000, "allowed with obligations"), (700_000_001, "forbidden")])
@pytest.mark.parametrize("model", [LLAMA31, LLAMA3, "Llama-2-7B", "Llama-3.2-3B", "Llama-3.3-70B", SCOUT])
def test_the_cap_of_llama_is_strictly_more_than_700_million(model: str, users: int, status: str) -> None:
    assert ask(model, **(SMALL | {"monthly_active_users": users})).status == status


@pytest.mark.parametrize("country", ["DE", "FR", "IE", "HR", "EU", "de"])
def test_the_multimodal_llama_4_is_not_for_companies_of_the_eu(country: str) -> None:
    found = ask(SCOUT, **(SMALL | {"principal_place_of_business": country}))
    assert found.status == "forbidden"
    assert "USE_POLICY" in (found.of("forbidden")[0].source or "")


@pytest.mark.parametrize("country", ["GB", "UK", "CH", "NO", "US", "IN"])
def test_outside_the_eu_it_is_allowed(country: str) -> None:
    assert ask(SCOUT, **(SMALL | {"principal_place_of_business": country})).status == "allowed with obligations"


def test_a_person_who_lives_in_the_eu_and_a_place_that_is_not_said() -> None:
    person = {"use": "research", "monthly_active_users": 0}
    assert ask(SCOUT, **person, individual_domicile="ES").status == "forbidden"
    assert ask(SCOUT, **person, individual_domicile="US").status == "allowed with obligations"
    assert "principal_place_of_business is missing" in said(ask(SCOUT, **person), "unknown")


def test_end_users_of_a_product_and_text_models_are_exempt_from_the_eu_clause() -> None:
    german = SMALL | {"principal_place_of_business": "DE"}
    assert ask(SCOUT, **german, role="end_user").status == "allowed with obligations"
    assert ask("Llama-3.3-70B", **german).status == "allowed with obligations"
    assert ask("Llama-3.2-3B", **german).status == "allowed with obligations"
    assert ask(LLAMA31, **german).status == "allowed with obligations"


def test_vision_models_of_llama_3_2_fall_under_it_too() -> None:
    vision = CATALOG.model("Llama-3.2-3B").model_copy(update={"multimodal": True})
    german = Compliance(**(SMALL | {"principal_place_of_business": "DE"}))
    assert judge(vision, german, CATALOG).status == "forbidden"


@pytest.mark.parametrize(
    ("name", "status"),
    [
        (None, "allowed with obligations"),
        ("Llama-Legal-8B", "allowed with obligations"),
        ("acme/llama-legal", "allowed with obligations"),
        ("Legal-Llama", "forbidden"),
        ("acme/Legal-8B", "forbidden"),
    ],
)
def test_a_model_made_with_llama_is_named_llama(name: str | None, status: str) -> None:
    found = ask(LLAMA31, **SMALL, derivative_name=name)
    assert found.status == status
    if status == "forbidden":
        assert "would be allowed" in said(found, "forbidden")


def test_a_name_that_nobody_else_sees_is_free() -> None:
    inside = {"use": "internal", "monthly_active_users": 5, "derivative_name": "Legal-8B"}
    assert ask(LLAMA31, **inside).status == "allowed with obligations"
    assert ask(LLAMA31, **inside, distribute_weights=True).status == "forbidden"


def test_llama_3_wants_its_number_in_the_name() -> None:
    assert ask(LLAMA3, **SMALL, derivative_name="Llama-Legal").status == "forbidden"
    assert ask(LLAMA3, **SMALL, derivative_name="Llama-3-Legal").status == "allowed with obligations"


def test_outputs_of_llama_2_and_3_train_no_other_model() -> None:
    for teacher in (LLAMA3, "Llama-2-70B"):
        found = ask(QWEN3, use="internal", trained_on_outputs_of=[teacher])
        assert found.status == "forbidden"
        assert "Qwen3" in said(found, "forbidden")
    assert ask(LLAMA3, **SMALL, trained_on_outputs_of=["meta-llama/Meta-Llama-3-70B"]).status != "forbidden"


def test_outputs_of_llama_3_1_may_train_others_that_are_then_named_llama() -> None:
    assert ask(QWEN3, use="internal", trained_on_outputs_of=[LLAMA31]).status == "allowed"
    named = ask(QWEN3, **SMALL, trained_on_outputs_of=[LLAMA31], derivative_name="Qwen-Legal")
    assert named.status == "forbidden"
    assert ask(QWEN3, use="internal", trained_on_outputs_of=["gpt-9"]).status == "unknown"


@pytest.mark.parametrize(
    ("amounts", "obligation"),
    [
        ({"product_monthly_active_users": 100_000_000, "product_monthly_revenue": 20e6}, False),
        ({"product_monthly_active_users": 100_000_001, "product_monthly_revenue": 0}, True),
        ({"product_monthly_active_users": 0, "product_monthly_revenue": 20_000_001}, True),
        ({"product_monthly_active_users": 100_000_001}, True),  # one is enough, the other does not matter
        ({"monthly_active_users": 5, "company_monthly_revenue": 100}, False),  # a part is not more than the whole
    ],
)
def test_kimi_is_shown_by_large_products(amounts: dict[str, float], obligation: bool) -> None:
    found = ask(KIMI, use="commercial", **amounts)
    assert found.status == ("allowed with obligations" if obligation else "allowed")
    assert ("Kimi K2" in said(found, "obligation")) == obligation


def test_kimi_asks_for_what_it_needs_to_know() -> None:
    assert ask(KIMI, use="internal").status == "allowed"
    assert ask(KIMI, use="commercial").status == "unknown"
    whole = {"monthly_active_users": 200_000_000, "company_monthly_revenue": 1}
    assert "product_monthly_active_users is missing" in said(ask(KIMI, use="commercial", **whole), "unknown")


@pytest.mark.parametrize(
    ("revenue", "status", "warned"),
    [
        (20_000_000, "allowed with obligations", True),
        (20_000_001, "forbidden", True),
        (1_666_666, "allowed with obligations", False),
        (1_666_668, "allowed with obligations", True),
    ],
)
def test_the_revenue_cap_of_mistral_medium(revenue: float, status: str, warned: bool) -> None:
    found = ask(MEDIUM, company_monthly_revenue=revenue)
    assert found.status == status
    assert ("a year" in said(found, "warning")) == warned
    assert "was not read for the catalog" in said(found, "warning")


def test_mistral_medium_asks_for_the_revenue() -> None:
    assert "company_monthly_revenue is missing" in said(ask(MEDIUM), "unknown")


def test_research_licences() -> None:
    model = "mistralai/Mistral-Small-Instruct-2409"
    assert ask(model, use="research").status == "allowed with obligations"  # its text was not read
    assert ask(model, use="commercial").status == "forbidden"
    assert ask(model, use="internal").status == "forbidden"
    assert ask("Qwen/Qwen2.5-3B", use="internal").status == "unknown"
    assert ask(model).status == "unknown"


def test_distilled_models_keep_the_terms_of_their_base() -> None:
    found = ask("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", use="internal")
    assert "monthly_active_users is missing" in said(found, "unknown")
    assert ask("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", **SMALL).status == "allowed"


@pytest.mark.parametrize(
    ("license", "use", "status"),
    [
        ("cc-by-nc-4.0", "commercial", "forbidden"),
        ("cc-by-nc-4.0", "research", "allowed"),
        ("cc-by-nc-4.0", "internal", "unknown"),
        ("cc-by-nc-sa-4.0", "commercial", "forbidden"),
        ("cc-by-4.0", "commercial", "allowed"),
        ("apache-2.0", "commercial", "allowed"),
        ("own", "commercial", "allowed"),
        (None, "commercial", "unknown"),
        ("acme-secret", "commercial", "unknown"),
    ],
)
def test_data_sets(license: str | None, use: str, status: str) -> None:
    assert ask(QWEN3, {"clauses": license}, use=use).status == status


def test_share_alike_is_open_once_weights_are_given_away() -> None:
    assert ask(QWEN3, {"wiki": "cc-by-sa-4.0"}, use="commercial").status == "allowed"
    assert ask(QWEN3, {"wiki": "cc-by-sa-4.0"}, use="commercial", distribute_weights=True).status == "unknown"


def test_a_model_without_a_licence_is_unknown() -> None:
    bare = CATALOG.model(QWEN3).model_copy(update={"license": None})
    assert judge(bare, Compliance(), CATALOG).status == "unknown"


def test_the_gravest_comes_first_and_all_reasons_are_kept() -> None:
    found = ask(SCOUT, **(SMALL | {"principal_place_of_business": "DE", "monthly_active_users": 800_000_000}))
    assert [finding.kind for finding in found.findings][:2] == ["forbidden", "forbidden"]
    assert found.of("obligation")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("principal_place_of_business", "Germany"),
        ("monthly_active_users", -1),
        ("company_monthly_revenue", -5),
        ("use", "fun"),
    ],
)
def test_bad_input_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        Compliance(**{field: value})


def test_users_may_be_written_short() -> None:
    assert Compliance(monthly_active_users="1.5M").monthly_active_users == 1_500_000  # type: ignore[arg-type]
