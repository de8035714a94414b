"""What `orch engines list` and `orch engines doctor` print."""

import json
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from orchestrator.cli.show import console
from orchestrator.environments import doctor, on_path
from orchestrator.errors import InfrastructureError
from orchestrator.serving.environments import Found
from orchestrator.units import Bytes

_STATES = {
    "complete": "[green]installed[/]",
    "outdated": "[yellow]outdated[/]",
    "incomplete": "[red]half-installed[/]",
    "path": "[green]on PATH[/]",
    "missing": "not installed",
    "refused": "[dim]cannot be had[/]",
}


def listed(rows: list[Found], *, as_json: bool) -> None:
    """Every environment with its state, and what there is to do."""
    plain = [_plain(row) for row in rows]
    if as_json:
        print(json.dumps(plain, indent=2))
        return
    out = console()
    table = Table("environment", "for", "state", "size", "purpose", box=None, padding=(0, 2, 0, 0))
    table.add_column("", overflow="fold")
    for row in plain:
        size = str(Bytes(int(float(f"{row['bytes']:.3g}")))) if row["bytes"] else ""
        name = f"[bold]{row['name']}[/] {row['version']}"
        table.add_row(name, row["kind"], _STATES[row["state"]], size, escape(row["purpose"]), escape(_note(row)))
    out.print(table if plain else "no engine needs an environment of its own")


def _plain(row: Found) -> dict[str, Any]:
    """One row as data; a program on PATH is what would be used where nothing is installed."""
    environment, kind, mark = row.environment, row.kind, row.folder.mark()
    recipe, image = environment.kinds.get(kind), environment.images.get(kind)
    state, place = str(row.state), str(row.folder.path) if row.state != "missing" else None
    outside = on_path.find(environment) if row.state == "missing" else None
    if outside:
        state, place = "path", outside.program(environment.program or "")[0]
    elif row.state == "missing" and not recipe:
        state = "refused"
    return {
        "name": environment.name,
        "version": outside.version if outside else environment.version,
        "kind": kind,
        "purpose": environment.purpose,
        "state": state,
        "place": place,
        "bytes": mark.bytes if mark else None,
        "expected_bytes": recipe.size_bytes if recipe else None,
        "used_by": row.used_by,
        "image": image.format(version=environment.version) if image else None,
        "refusal": None if recipe else environment.refusals.get(kind, "no way to install it is known"),
    }


def _note(row: dict[str, Any]) -> str:
    install = f"orch engines install {row['name']}=={row['version']}"
    image = f"; image {row['image']}" if row["image"] else ""
    notes = {
        "complete": f"used by {', '.join(row['used_by'])}" if row["used_by"] else "",
        "outdated": f"`{install}` makes it again with today's requirements",
        "incomplete": f"not used; `{install}` makes it again",
        "path": row["place"],
        "missing": f"about {Bytes(row['expected_bytes'] or 0)}{image}",
        "refused": f"{row['refusal']}{image}",
    }
    return str(notes[row["state"]])


def examined(rows: list[Found], *, as_json: bool) -> None:
    """What was looked at. Raises InfrastructureError when something does not work."""
    looked = [(row, doctor.examine(row.environment, row.kind, row.folder)) for row in rows]
    if as_json:
        plain = {row.folder.path.name: [asdict(finding) for finding in findings] for row, findings in looked}
        print(json.dumps(plain, indent=2))
    else:
        _print_findings(looked)
    broken = [row for row, findings in looked if not all(finding.ok for finding in findings)]
    if broken:
        todo = "; ".join(map(_remedy, broken))
        raise InfrastructureError(
            f"{len(broken)} of {len(rows)} environments cannot be used as they are", next_step=todo
        )


def _remedy(row: Found) -> str:
    """What installs it anew; one that counts as complete has to go first."""
    arguments = f"{row.environment.name}=={row.environment.version} --kind {row.kind}"
    first = f"orch engines remove {arguments} && " if row.state == "complete" else ""
    return f"`{first}orch engines install {arguments}`"


def _print_findings(looked: list[tuple[Found, list[doctor.Finding]]]) -> None:
    out = console()
    for row, findings in looked:
        out.print(f"[bold]{row.environment}[/] for {row.kind} in {row.folder.path}", soft_wrap=True)
        for finding in findings:
            mark = "[green]ok[/]    " if finding.ok else "[red]failed[/]"
            out.print(f"  {mark} {finding.what}: {escape(finding.found)}", soft_wrap=True)
    if not looked:
        out.print("nothing is installed; `orch engines list` shows what there is")
