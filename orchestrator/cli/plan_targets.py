"""What `orch plan` prints of the export targets: one line each, and with `--explain serve` their commands and files."""

import shlex

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator.planner.plan import Plan, PlannedTarget

_INDENT = 2


def overview(out: Console, plan: Plan) -> None:
    """One line a target, and why one is left out."""
    if not plan.targets:
        return
    out.print("[bold]Serving[/]")
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for target in plan.targets:
        table.add_row(target.name, f"{target.engine} {target.quantization}", _state(target))
    out.print(Padding(table, (0, 0, 0, _INDENT), expand=False))
    out.print(" " * _INDENT + "`orch plan --explain serve` shows commands and files", style="dim")


def commands(out: Console, plan: Plan) -> None:
    """Every target's environment, variables, command line and files, as they can be typed."""
    if not plan.targets:
        out.print("this recipe exports nothing")
    for target in plan.targets:
        out.print(Text(f"{target.name}: {target.engine} {target.quantization}", style="bold"))
        out.print(Padding(_state(target), (0, 0, 0, _INDENT), expand=False))
        _block(out, _shell(target))
        for name, text in target.files.items():
            out.print(" " * _INDENT + name, style="dim", markup=False, soft_wrap=True)
            _block(out, text.rstrip("\n"))


def _state(target: PlannedTarget) -> Text:
    """Where it runs, or why not."""
    if target.refused:
        words = "not runnable here: " if target.left_out else "cannot be served here: "
        return Text(words + target.refused, style="yellow" if target.left_out else "red")
    if target.environment is None:
        return Text("in orch's own environment")
    return Text(target.environment + (", installed" if target.installed else ", not installed yet"))


def _shell(target: PlannedTarget) -> str:
    """Variables and command, an option a line."""
    lines = [f"{name}={shlex.quote(value)}" for name, value in target.variables.items()]
    parts = [shlex.quote(part) for part in target.command]
    first = next((index for index, part in enumerate(parts) if part.startswith("--")), len(parts))
    lines.append(" ".join(parts[:first]))
    for part in parts[first:]:
        if part.startswith("-") or not lines[-1].startswith("-"):
            lines.append(part)
        else:
            lines[-1] += f" {part}"
    return " \\\n  ".join(lines)


def _block(out: Console, text: str) -> None:
    """Indented, and never broken: it is to be copied."""
    for line in text.splitlines():
        out.print(" " * 2 * _INDENT + line, markup=False, soft_wrap=True)
