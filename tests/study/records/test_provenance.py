"""The GPUs that a process may use, as CUDA_VISIBLE_DEVICES names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.errors import InputError
from study.records import provenance

LISTED = (
    "".join(f"GPU {n}: NVIDIA A100-{n} (UUID: GPU-{n}{n}ab-cd)\\n" for n in range(4)) + "  MIG 1g.5gb (UUID: MIG-1)"
)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of this machine's only nvidia-smi, which lists four GPUs."""
    path = tmp_path / "nvidia-smi"
    path.write_text(f"#!/bin/sh\nprintf '{LISTED}'\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return path


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        (" ", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("²", []),
        ("2", [2]),
        ("3,1", [3, 1]),
        (" 0 , 2 ", [0, 2]),
        ("0,-1,1", [0]),  # CUDA stops at the first that is unknown
        ("0,7,1", [0]),
        ("GPU-22", [2]),
        ("GPU-33ab-cd,GPU-00ab-cd", [3, 0]),
        ("GPU-ff", []),
        ("MIG-1", [0]),
    ],
)
def test_visible_gpus_are_counted(
    visible: str | None, expected: list[int], driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert provenance.list_gpu_names() == [f"NVIDIA A100-{number}" for number in expected]


def test_driver_that_does_not_answer_is_one_line(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(provenance, "GPU_ANSWER_SECONDS", 0.2)
    with pytest.raises(InputError, match=r"nvidia-smi does not answer \(within 0\.2 s\): .* CUDA_VISIBLE_DEVICES="):
        provenance.list_gpu_names()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert provenance.list_gpu_names() == []


@pytest.mark.parametrize(
    "script",
    [
        "#!/bin/sh\necho No devices were found; exit 6\n",
        "#!/bin/sh\nexit 9\n",
        "#!/bin/sh\necho GPU access blocked by the operating system; exit 255\n",
        "#!/bin/sh\necho GPU is lost. Reboot the system to recover this GPU; exit 15\n",
        "#!/bin/sh\nprintf '\\377\\376 no UTF-8'\n",
    ],
)
def test_driver_without_gpus_has_none(script: str, driver: Path) -> None:
    driver.write_text(script)
    assert provenance.list_gpu_names() == []


def test_driver_that_cannot_be_executed_is_one_line(driver: Path) -> None:
    driver.write_text("#!/no/such/interpreter\n")
    with pytest.raises(InputError, match="nvidia-smi does not answer"):
        provenance.list_gpu_names()
