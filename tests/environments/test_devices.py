"""Variables of visible devices."""

import pytest

from orchestrator.environments import devices
from orchestrator.environments.environment import Kind
from orchestrator.errors import InputError

CUDA, HIP, ROCR = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"


@pytest.mark.parametrize(
    ("kind", "inherited", "seen"),
    [
        ("cuda", {}, None),
        ("cuda", {CUDA: "2,3", HIP: "0"}, ["2", "3"]),
        ("cuda", {CUDA: "GPU-8932f937, MIG-1"}, ["GPU-8932f937", "MIG-1"]),
        ("cuda", {CUDA: ""}, []),
        ("rocm", {}, None),
        ("rocm", {HIP: "1"}, ["1"]),
        ("rocm", {CUDA: "1"}, ["1"]),
        ("rocm", {HIP: "1", CUDA: "0"}, ["1"]),
        ("rocm", {ROCR: "4,5"}, ["4", "5"]),
        ("rocm", {ROCR: "4,5", HIP: "1"}, ["5"]),
        ("rocm", {ROCR: "4,5", HIP: "0,7,1"}, ["4"]),
        ("rocm", {HIP: ""}, []),
    ],
)
def test_what_the_inherited_variables_leave_visible(kind: Kind, inherited, seen):
    assert devices.visible(kind, inherited) == seen


def test_amd_devices_by_uuid_are_refused_with_what_to_set():
    with pytest.raises(InputError, match=r"(?s)ROCR_VISIBLE_DEVICES=GPU-90d.*HIP_VISIBLE_DEVICES to numbers"):
        devices.visible("rocm", {ROCR: "GPU-90d"})


def test_each_vendor_gets_its_variables_and_the_others_go():
    assert devices.variables("cuda", ["2", "3"]) == {CUDA: "2,3", HIP: None, ROCR: None}
    assert devices.variables("rocm", ["2", "3"]) == {CUDA: "2,3", HIP: "2,3", ROCR: None}
    assert devices.variables("rocm", []) == {CUDA: "", HIP: "", ROCR: None}
    assert devices.variables("cpu", ["0"]) == {}


@pytest.mark.parametrize("kind", ["cuda", "rocm"])
@pytest.mark.parametrize("given", [{CUDA: "1"}, {HIP: "3"}, {ROCR: "2,4", HIP: "1"}, {}])
def test_what_was_set_is_seen_again(kind: Kind, given):
    seen = devices.visible(kind, given)
    told = devices.variables(kind, seen)
    assert devices.visible(kind, {name: value for name, value in told.items() if value is not None}) == seen


def test_an_engine_gets_them(tmp_path, monkeypatch):
    """The real start of an engine whose program writes down what it sees."""
    from orchestrator.engines import running, transformers
    from orchestrator.environments.site import Site

    monkeypatch.setenv(ROCR, "4,5")
    monkeypatch.setenv(CUDA, "1")
    monkeypatch.setattr(transformers, "command", lambda launch, options: ["sh", "-c", f'echo "{SEEN}"'])
    launch = {"alias": "tiny", "directory": tmp_path, "site": Site(tmp_path, "rocm")}
    running.start("transformers", tmp_path, transformers.Options(), **launch).process.wait()
    assert (tmp_path / "tiny.log").read_text() == "5 5 none\n"


SEEN = f"${CUDA} ${HIP} ${{{ROCR}-none}}"
