"""The simulator of the policy: traces are read in their layouts, nothing is lost, what is measured is what happened."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "policy"))

import baselines
import jobs
import metrics
import simulate
import tables

from orchestrator.scheduler.policy import decide
from orchestrator.scheduler.values import WHOLE, Demand

HOUR = 3600.0


def workload(*given: tuple[float, float, int], gpus: int = 8) -> jobs.Workload:
    """Jobs of (submitted, seconds, GPUs), with exact estimates."""
    made = [jobs.Job(f"j{i}", s, d, jobs.gang(g), d, "u") for i, (s, d, g) in enumerate(given)]
    return jobs.Workload("tiny", jobs.nodes(gpus), tuple(made))


@pytest.mark.parametrize(
    ("text", "seconds", "gpus", "user"),
    [
        ("submit_time,duration,gpu_num,user\n100,60,16,ann\n", 60, 16, "ann"),
        (
            "submit_time,start_time,end_time,num_gpus,vc\n2020-01-01,2020-01-01 00:10:00,2020-01-01 01:10:00,1,x\n",
            HOUR,
            1,
            "x",
        ),
        ("creation_time,scheduled_time,deletion_time,num_gpu,gpu_milli,qos\n5,10,30,1,500,LS\n", 20, 0.5, "LS"),
    ],
)
def test_a_trace_is_read_by_the_names_of_its_columns(tmp_path, text, seconds, gpus, user):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    (job,) = jobs.read_jobs(path)
    assert (job.seconds, job.demand.size, job.user) == (seconds, gpus, user)


def test_a_file_without_jobs_is_one_clear_error(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(SystemExit, match="holds no job"):
        jobs.read_jobs(path)


def test_a_gang_is_split_into_equal_bundles():
    assert jobs.gang(16) == Demand(8, WHOLE, 0.0, 0.0, 2)
    assert jobs.gang(12) == Demand(6, WHOLE, 0.0, 0.0, 2)
    assert jobs.gang(11) == Demand(1, WHOLE, 0.0, 0.0, 11)


@pytest.mark.parametrize("name", baselines.POLICIES)
def test_every_policy_ends_every_job(name):
    given = jobs.with_noise(jobs.synthetic("s", 64, 1.0, 3, 60), 0.6, 3)
    result = simulate.simulate(given, baselines.POLICIES[name])
    assert len(result.lives) == 60
    for life in result.lives:
        ran = life.ended - life.job.submitted - life.job.seconds
        assert ran >= life.lost / life.job.demand.size - 1e-3  # saving and loading are part of the wait


def test_fifo_waits_in_turn_and_easy_fills_the_gap():
    given = workload((0, HOUR, 4), (1, HOUR, 8), (2, 600, 4))
    one, other = (simulate.simulate(given, baselines.POLICIES[name]) for name in ("fifo", "fifo + easy"))
    assert [life.started for life in one.lives] == [0, HOUR, 2 * HOUR]
    assert [life.started for life in other.lives] == [0, HOUR, 2]


def test_a_preempted_run_keeps_its_work_and_pays_for_the_way_back():
    given = workload((0, 100 * HOUR, 8), (HOUR, HOUR, 8), (1.1 * HOUR, 100.0, 8))
    result = simulate.simulate(given, decide)
    long, *short = result.lives
    assert long.preemptions >= 1
    assert max(life.ended for life in short) < 4 * HOUR
    assert long.lost == 8 * long.preemptions * (simulate.SAVE + simulate.LOAD)
    assert long.ended - 101 * HOUR < 1000.0
    measured = metrics.measure(result)
    assert measured["preemptions"] == long.preemptions
    assert measured["mean_jct_h"] > measured["mean_wait_h"]


def test_the_table_names_each_policy_once():
    row = dict.fromkeys(tables.COLUMNS, 1.0) | {"workload": "w", "load": 1.0, "sigma": 0.6, "gpus": 8, "jobs": 3}
    (text,) = tables.simulation([row | {"policy": "fifo", "seed": seed} for seed in (1, 2)])
    assert text.count("| fifo |") == 1
    assert "2 seeds" in text
