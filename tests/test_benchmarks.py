"""The benchmarks run and print what programs read; the peer they measure against does the same work as our loop."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from benchmarks import field_loop
from benchmarks.images import Images
from benchmarks.throughput import EPOCHS, TRIALS, Round, count_distinct_views
from trainables.losses.logits.dkd import DKD
from trainables.task import Outputs
from trainables.training.schedules import Progress
from trainables.training.views import CropFlip, normalise

ROOT = Path(__file__).parent.parent
COMMANDS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text())

COUNTS_OF_FAULTS = ("differences", "missed", "wrong")
"""How the names of results end that are best when they are 0."""


OWN_PROCESS = ("engine", "large_study", "parsing_step", "scaling", "throughput")
"""Benchmarks that need or change a whole process: its Ray, its peak memory (which children inherit), its allocator."""


def run_quick(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what `python -m benchmarks.NAME --quick` prints; most run in this process, which has imported torch."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick"]
    if name in OWN_PROCESS:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout
    patched = mock.patch.object(sys, "argv", command[2:]), mock.patch.dict(os.environ)
    with patched[0], patched[1], pytest.raises(SystemExit) as ended:
        runpy.run_module(command[2], run_name="__main__", alter_sys=True)
    assert not ended.value.code
    return capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # some import each other
@pytest.mark.parametrize("name", COMMANDS)
def test_quick_run_ends_with_results_that_parse(name, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    printed = run_quick(name, capsys)
    results = printed.rstrip().rsplit("\n\n", 1)[1].splitlines()
    parsed = [re.fullmatch(r"RESULT ([a-z0-9_]+) (\S+) \S+", line) for line in results]
    assert all(parsed), results
    assert all(float(match[2]) > 0 for match in parsed if match and not match[1].endswith(COUNTS_OF_FAULTS))
    assert len({match[1] for match in parsed if match}) == len(results)
    if name == "kills":
        assert "RESULT differences 0 differences" in printed
    if name == "readers":
        assert "RESULT readings_wrong 0 readings" in printed


def test_peer_has_the_loss_of_our_loop():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 64, 100, generator=generator, dtype=torch.float64) * 3
    targets = torch.randint(100, (64,), generator=generator)
    ours = DKD(warmup=0.0)(Outputs(student), Outputs(teacher), targets, Progress(0, 1))
    torch.testing.assert_close(field_loop.compute_dkd(student, teacher, targets), ours, rtol=1e-12, atol=0)


def test_peer_trains_on_views_of_ours():
    data = Images(count=4).load()
    images = torch.from_numpy(data.train_images)
    mean, std = torch.tensor(data.mean), torch.tensor(data.std)
    peer = field_loop.Images(data.train_images, data.train_labels, field_loop.make_train_transform(data.mean, data.std))
    views = CropFlip(padding=4, flip=True)
    for index in range(4):
        drawn, label = peer[index]
        every = normalise(views.apply(images[[index] * 162], torch.arange(162)), mean, std)
        assert (every - drawn).abs().amax(dim=(1, 2, 3)).min() < 1e-6
        assert label == data.train_labels[index]


def test_peer_learns_and_reports_every_epoch():
    data = Images(count=96).load()
    train = field_loop.Images(
        data.train_images[:64], data.train_labels[:64] % 4, field_loop.make_val_transform(data.mean, data.std)
    )
    nets = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 100)) for _ in range(2)]
    epochs = field_loop.train(nets[0], nets[1], train, train, batch_size=32)
    losses, accuracies, validation = zip(*(next(epochs) for _ in range(6)), strict=True)
    assert np.isfinite(losses).all()
    assert accuracies[-1] > accuracies[0]
    assert 0 < validation[-1] <= 1


def test_views_drawn_and_study_ratio_count_the_store_as_ours():
    generator = np.random.default_rng(0)
    drawn = [len(np.unique(generator.integers(0, 162, TRIALS * EPOCHS))) for _ in range(200)]
    assert count_distinct_views(162) == pytest.approx(np.mean(drawn), abs=0.2)
    measured = Round(ours={"float32": 1.0, "bfloat16": 0.5}, field=8.0, stored=0.0, faults=0.0)
    assert measured.study_ratio("float32", 162) == measured.ratio("float32") == 8.0
    dearer = Round(ours={"float32": 1.0}, field=8.0, stored=TRIALS * EPOCHS / count_distinct_views(162), faults=0.0)
    assert dearer.study_ratio("float32", 162) == pytest.approx(4.0)
