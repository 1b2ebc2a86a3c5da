"""Panels of test examples are written and match the net; arms report their distance to the teacher."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.trainables import small, small_crowds
from tests.trainables.small import metrics, prepared
from trainables import sample_panels
from trainables.evaluation import evaluate
from trainables.losses.none import NoDistillation
from trainables.teacher import weights as teachers
from trainables.training import checkpoint

TASK = small_crowds.TASK


@pytest.fixture(scope="module")
def crowds(tmp_path_factory):
    path = tmp_path_factory.mktemp("crowds")
    prepared(TASK, path)
    return path


def kept(folder):
    with np.load(folder / sample_panels.FILE, allow_pickle=False) as file:
        return json.loads(str(file["about"])), {name: file[name] for name in file.files if name != "about"}


def confirmed(storage, folder, number=0):
    wanted = small_crowds.job(
        TASK, storage, folder, phase="confirm", train_on="train+val", seed=8, epochs=1, number=number
    )
    return list(TASK.train(wanted))


def test_panels_are_of_evenly_spaced_test_images_with_their_counts(crowds, tmp_path):
    confirmed(crowds, tmp_path)
    about, arrays = kept(tmp_path)
    shown = [0, 2, 3, 5]  # of six
    heads = [len(TASK.examples("test", "cpu").heads[sample]) for sample in shown]
    truth = [panel for panel in about if panel["name"] == "true density"]
    assert [panel["caption"] for panel in truth] == [f"{count} people" for count in heads]
    for panel, count in zip(truth, heads, strict=True):
        assert 4 * arrays[panel["key"]].astype(float).sum() == pytest.approx(count, rel=2e-3)  # at half the size
    for panel, sample in zip((one for one in about if one["kind"] == "image"), shown, strict=True):
        image = TASK.examples("test", "cpu").images[sample]
        np.testing.assert_array_equal(arrays[panel["key"]], image.permute(1, 2, 0).numpy())


def test_predicted_maps_are_those_of_the_net_that_was_scored(crowds, tmp_path):
    rows = confirmed(crowds, tmp_path)
    about, arrays = kept(tmp_path)
    net = TASK.build(small_crowds.STUDENT)
    net.load_state_dict(checkpoint.load(tmp_path)["net"])
    assert evaluate(TASK, net, "test", "cpu")["test/mae"] == rows[-1]["metrics"]["test/mae"]
    batch = TASK.examples("test", "cpu").batch(torch.tensor([5]), torch.tensor([0]))
    with torch.no_grad():
        said = net.eval()(batch.inputs)[0, 0] / TASK.density_scale / 16  # people per pixel, at a quarter of the size
    last = [panel for panel in about if panel["name"] == "predicted density"][-1]
    np.testing.assert_allclose(arrays[last["key"]], said.numpy(), rtol=2e-3, atol=1e-6)
    assert last["caption"] == f"{said.double().sum() * 16:.1f} people"
    assert not last["given"]


def test_only_the_first_confirm_run_of_a_cell_has_panels(crowds, tmp_path):
    confirmed(crowds, tmp_path / "second", number=1)
    list(TASK.train(small_crowds.job(TASK, crowds, tmp_path / "search", epochs=1)))
    assert not list(tmp_path.rglob(sample_panels.FILE))


def test_teacher_has_panels_next_to_its_weights(crowds):
    about, _ = kept(teachers.teacher_folder(crowds, TASK.teacher_key))
    assert {panel["name"] for panel in about} == {"image", "true density", "predicted density"}


def test_task_without_panels_writes_no_file(storage, tmp_path):
    wanted = small.job(small.TASK, storage, tmp_path, phase="confirm", train_on="train+val", seed=8, epochs=1)
    list(small.TASK.train(wanted))
    assert (tmp_path / "state.pt").is_file()
    assert not (tmp_path / sample_panels.FILE).exists()


def test_only_arms_that_need_the_teacher_report_their_distance_to_it(storage, tmp_path):
    taught, alone = (
        metrics(list(small.TASK.train(small.job(small.TASK, storage, tmp_path / name, loss=loss, epochs=2))))
        for name, loss in (("taught", small.LP), ("alone", NoDistillation()))
    )
    assert all("train/teacher_distance" not in row for row in alone)
    assert taught[0]["train/teacher_distance"] > taught[1]["train/teacher_distance"] > 0
    assert taught[0].keys() <= small.TASK.metrics.keys()


def test_distance_to_itself_is_nothing(storage):
    batch = small.TASK.examples("test", "cpu").batch(torch.arange(8), torch.zeros(8, dtype=torch.int64))
    with torch.no_grad():
        said = small.TASK.outputs(small.TASK.build(small.TASK.teacher.model).eval(), batch)
    assert abs(float(small.TASK.teacher_distance(said, said))) < 1e-6
