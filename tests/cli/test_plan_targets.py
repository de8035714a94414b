"""What `orch plan` prints of the export targets."""

import shlex

from rich.console import Console

from orchestrator.cli import plan_targets
from orchestrator.clusters.cluster import Cluster
from orchestrator.planner.plan import Plan, PlannedTarget

COMMAND = ["serve", "/models/a b", "--port", "8000", "--jinja", "--lora-modules", '{"name": "x"}']
TARGETS = [
    PlannedTarget(
        name="fp8",
        engine="vllm",
        quantization="fp8",
        required=True,
        environment="vllm 0.32.0",
        command=COMMAND,
        variables={"A": "1 2"},
        files={"/home/settings.yaml": "key: value\n"},
    ),
    PlannedTarget(name="trt", engine="tensorrt_llm", quantization="fp8", required=False, refused="no NVIDIA GPU"),
    PlannedTarget(name="int8", engine="vllm", quantization="int8", required=True, refused="use fp8", installed=False),
]


def _printed(show) -> str:
    out = Console(width=100, record=True, highlight=False, quiet=False)
    plan = Plan(
        recipe="demo", path="", directory="", cluster=Cluster(name="lab"), accelerator=None, stages=[], gates=[],
        service=None, obstacles=[], targets=TARGETS,
    )  # fmt: skip
    with out.capture() as captured:
        show(out, plan)
    return captured.get()


def test_one_line_a_target_says_where_it_runs_or_why_not() -> None:
    lines = _printed(plan_targets.overview).splitlines()
    assert [" ".join(line.split()) for line in lines[1:4]] == [
        "fp8 vllm fp8 vllm 0.32.0, installed",
        "trt tensorrt_llm fp8 not runnable here: no NVIDIA GPU",
        "int8 vllm int8 cannot be served here: use fp8",
    ]


def test_a_command_is_printed_as_it_can_be_typed_and_its_files_whole() -> None:
    text = _printed(plan_targets.commands)
    start, end = text.index("A="), text.index("/home/settings.yaml")
    assert shlex.split(text[start:end].replace("\\\n", " ")) == ["A=1 2", *COMMAND]
    assert "/home/settings.yaml\n    key: value\n" in text
    assert "not runnable here: no NVIDIA GPU" in text
