"""From a run in the store to its page."""

from orchestrator.clusters.cluster import Cluster
from orchestrator.controller import reporting, runs
from orchestrator.planner.plan import Plan, PlannedStage, PlannedTarget, Resources
from orchestrator.store.store import Store


def test_a_target_that_the_run_went_on_without_is_on_its_page_with_the_reason(tmp_path):
    made = PlannedTarget(name="q8", engine="llama_cpp", quantization="Q8_0", required=True, environment="llama_cpp 1")
    left = PlannedTarget(name="trt", engine="tensorrt_llm", quantization="FP8", required=False, refused="no NVIDIA GPU")
    plan = Plan(
        recipe="demo",
        path="demo.yaml",
        directory="/",
        cluster=Cluster(name="x"),
        accelerator=None,
        stages=[PlannedStage(name="data", config={}, digest="d", resources=Resources())],
        gates=[],
        targets=[made, left],
        service=None,
        obstacles=[],
    )
    store = Store(tmp_path)
    page = reporting.write(store, runs.create(store, plan), ended="succeeded").read_text()
    assert "not runnable here: no NVIDIA GPU" in page
    assert page.count("left out</span>") == 1
