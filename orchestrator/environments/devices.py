"""Which accelerators a process may use, said by each vendor's variables so that they agree (pure).

NVIDIA reads CUDA_VISIBLE_DEVICES. AMD reads three: ROCR_VISIBLE_DEVICES hides devices from the runtime, which counts
the others from 0 again; HIP_VISIBLE_DEVICES chooses among these, and CUDA_VISIBLE_DEVICES stands for it where it is not
set (https://rocm.docs.amd.com/en/latest/conceptual/gpu-isolation.html). vLLM refuses to start where HIP and CUDA
differ, and Ray, which sets HIP for its workers, refuses ROCR. So HIP and CUDA get the same, and ROCR goes.
"""

from collections.abc import Mapping

from orchestrator.environments.environment import Kind
from orchestrator.errors import InputError

_CUDA, _HIP, _ROCR = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"


def visible(kind: Kind, environment: Mapping[str, str]) -> list[str] | None:
    """The devices that these variables leave visible, as the machine numbers them; None: all.

    Raises InputError for AMD devices that are named by UUID: HIP_VISIBLE_DEVICES takes numbers alone.
    """
    if kind != "rocm":
        return _listed(environment, _CUDA)
    shown = _listed(environment, _HIP if _HIP in environment else _CUDA)
    outer = _listed(environment, _ROCR)
    if outer is None:
        return shown
    if not all(device.isdecimal() for device in outer):
        raise InputError(
            f"{_ROCR}={environment[_ROCR]} does not name devices by their numbers",
            next_step=f"unset it, and set {_HIP} to numbers such as 0,1",
        )
    return outer if shown is None else _chosen(outer, shown)


def variables(kind: Kind, devices: list[str] | None) -> dict[str, str | None]:
    """What to set, or with None to take away, so that a process sees these devices alone; None: all."""
    listed = None if devices is None else ",".join(devices)
    if kind == "cuda":
        return {_CUDA: listed, _HIP: None, _ROCR: None}
    return {_CUDA: listed, _HIP: listed, _ROCR: None} if kind == "rocm" else {}


def _listed(environment: Mapping[str, str], name: str) -> list[str] | None:
    """Empty: none is visible."""
    text = environment.get(name)
    return None if text is None else [device.strip() for device in text.split(",") if device.strip()]


def _chosen(outer: list[str], shown: list[str]) -> list[str]:
    """The devices of `outer` at the places `shown`; the first place that is none ends the list, as for the runtime."""
    places = [int(device) if device.isdecimal() else len(outer) for device in shown]
    end = next((number for number, place in enumerate(places) if place >= len(outer)), len(places))
    return [outer[place] for place in places[:end]]
