"""`orch cost RECIPE`: what the run costs at each provider and on each term, cheapest first."""

import json
from pathlib import Path

from rich.table import Table

from orchestrator.catalog.catalog import load
from orchestrator.cli.plan_words import interval, money, seconds, short, text
from orchestrator.cli.show import console
from orchestrator.clusters.load import load_cluster
from orchestrator.controller.planning import make_plan
from orchestrator.errors import InputError
from orchestrator.planner.estimate import Estimate, Unknown
from orchestrator.planner.forecast import Forecast
from orchestrator.planner.money.cost import Offer, offers
from orchestrator.planner.money.prices import TERMS
from orchestrator.planner.plan import Plan
from orchestrator.recipe.load import load_recipe
from orchestrator.store.store import Store

HOUR = Estimate(unit="s", value=3600, low=3600, high=3600)
"""What is priced while the time of the run is unknown."""
SHOWN = 6
"""Offers of one term; `--json` has all."""


def show(recipe: Path, overrides: list[str], cluster: Path | None, home: Path, *, as_json: bool) -> None:
    """Raises InputError for a recipe that names no accelerator."""
    plan = make_plan(load_recipe(recipe, overrides, home), load_cluster(cluster, home), Store(home), Path.cwd())
    found = plan.forecast
    if found is None or found.accelerator is None:
        raise InputError(
            f"{recipe} names no accelerator, so nothing is rented for it",
            next_step="set resources.accelerators, such as resources.accelerators=any",
        )
    kind, _, count = found.accelerator.partition(":")
    time = found.time if isinstance(found.time, Estimate) else HOUR
    catalog = load(home)
    gpu = catalog.find_gpu(kind)
    all_ = offers(time, int(count), catalog.gpu_prices(gpu)) if gpu else []
    if as_json:
        listed = [offer.model_dump(mode="json") for offer in all_]
        per = "run" if isinstance(found.time, Estimate) else "hour"
        about = {"recipe": plan.recipe, "accelerator": found.accelerator, "time": found.time.model_dump(), "per": per}
        print(json.dumps({**about, "offers": listed}, indent=2))
    else:
        _print(plan, found, all_)


def _print(plan: Plan, found: Forecast, all_: list[Offer]) -> None:
    out = console()
    known = isinstance(found.time, Estimate)
    lasts = f": {interval(found.time, seconds)}" if known else ", for an hour"
    out.print(f"[bold]{plan.recipe}[/] on {found.accelerator}{lasts}")
    if isinstance(found.time, Unknown):
        least = f"; at least {text(found.time.low, seconds)}" if found.time.low else ""
        out.print(f"[yellow]{short(found.time.reason)}{least}[/]", markup=True)
    if not all_:
        out.print(f"unknown: the catalog has no price of {found.accelerator}; add one to catalog/*.yaml")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("term", "provider"):
        table.add_column(column)
    for column in ("$/GPU-h", "time", "cost"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("seen", no_wrap=True)
    for term in TERMS:
        _rows(table, [offer for offer in all_ if _is(offer, term)], known=known)
    out.print(table)


def _is(offer: Offer, term: str) -> bool:
    return offer.term.startswith(("on-demand", "market") if term == "on-demand" else term)


def _rows(table: Table, found: list[Offer], *, known: bool) -> None:
    for offer in found[:SHOWN]:
        time = interval(offer.wall_time, seconds) if known else ""
        price = f"${offer.usd_per_gpu_hour:.2f}"
        grade = "" if offer.evidence in ("catalog", "listed") else f" ({offer.evidence})"
        seen = f"{offer.date}{grade}"
        table.add_row(offer.term, offer.provider, price, time, interval(offer.cost, money), seen)
    if len(found) > SHOWN:
        more = f"and {len(found) - SHOWN} more, up to ${found[-1].usd_per_gpu_hour:.2f}; --json has all"
        table.add_row("", more, style="dim")
