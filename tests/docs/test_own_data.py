"""The page on one's own images, and the study that goes with it: every example passes its checks and trains."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from study import Budget
from study.cli.dry_run.plan import format_plan
from study.space_file import load_space
from tests.study.toy import train_without_ray

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
EXAMPLES = {
    re.search(r'name="(\w+)"', block)[1]: block  # type: ignore[index]
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
}


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with pictures of two classes, in which the command is run."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 6)):
        for shade, name in ((60, "cat"), (180, "dog")):
            for number in range(count):
                path = tmp_path / "photos" / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = generator.integers(shade, shade + 60, (20 + number % 5, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path)
    write_roads(tmp_path / "roads", generator)
    write_faces(tmp_path, generator)
    return tmp_path


def write_roads(folder: Path, generator: np.random.Generator) -> None:
    """Write images with three classes, and a value that stands for none."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number in range(30):
        label = generator.choice([0, 1, 2, 255], (20, 24), p=[0.5, 0.3, 0.15, 0.05]).astype(np.uint8)
        Image.fromarray(label).save(folder / "labels" / f"{number}.png")
        Image.fromarray(np.stack([label * 40] * 3, axis=2)).save(folder / "images" / f"{number}.jpg")


def write_faces(folder: Path, generator: np.random.Generator) -> None:
    """Write images, and points.csv with three points of each."""
    (folder / "faces").mkdir()
    rows = ["path,nose_x,nose_y,left_x,left_y,right_x,right_y"]
    for number in range(40):
        pixels = generator.integers(0, 256, (20, 20 + number % 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "faces" / f"{number}.jpg")
        rows.append(",".join([f"faces/{number}.jpg", *map(str, generator.integers(0, 20, 6))]))
    (folder / "points.csv").write_text("\n".join(rows))


SHORT = Budget(trials=1, epochs=1, seeds=1)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "features" else name for name in EXAMPLES]
)
def test_example_passes_every_check_and_trains(name: str, photos: Path) -> None:
    (photos / "example.py").write_text(EXAMPLES[name], encoding="utf-8")
    train_without_ray(load_space(photos / "example.py", None, None), photos, SHORT)


@pytest.mark.parametrize("name", ["photos", "roads", "points"])
def test_examples_are_short(name: str) -> None:
    lines = [line for line in EXAMPLES[name].splitlines() if line.strip()]
    assert len(lines) <= 25


def test_study_of_own_images_runs_on_digits_and_on_a_folder(photos: Path) -> None:
    space = ROOT / "spaces" / "own_images.py"
    digits, own = load_space(space, None, None).study, load_space(space, None, photos / "photos")
    assert digits.task.check((), (), photos)["data"]["class_names"] == [str(number) for number in range(10)]
    assert own.study.task.check((), (), photos)["data"]["class_names"] == ["cat", "dog"]
    train_without_ray(own, photos, SHORT)
    assert digits.max_tests * 2 / 2**digits.budget.seeds <= 0.05
    plan = format_plan(digits, {}, [])
    assert "features are not stored: the teacher of FitNet is run at every step" in plan
    assert not any("tuning alone" in line or "different recipes" in line for line in plan)
