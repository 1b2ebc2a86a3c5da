"""The super-resolution task: one dictionary, a live teacher, adversaries that resume, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from study.errors import InputError
from study.trial import TrialContext
from tests.trainables import small
from tests.trainables.small import metrics, prepared
from trainables.data.arrays.face_sr import SrFaces
from trainables.data.synthetic.sr_faces import DrawnSrFaces
from trainables.losses.common.image_distance import pixel_error
from trainables.losses.features.adversarial_features import AdversarialFeatures, PatchDiscriminator
from trainables.losses.features.feature_matching import FeatureMatching
from trainables.losses.none import NoDistillation
from trainables.losses.reconstruction import Reconstruction, ReconstructionAlone
from trainables.models.sr.common import SROutput
from trainables.models.sr.small_sr import SmallSR
from trainables.models.sr.srfbn import SRFBN
from trainables.task import Batch, Outputs
from trainables.tasks import definition
from trainables.tasks.face_sr import task as face_sr_task
from trainables.tasks.face_sr.examples import SrTargets
from trainables.tasks.face_sr.metrics import SrScores
from trainables.tasks.face_sr.task import FaceSR
from trainables.teacher import weights as teachers
from trainables.teacher.weights import Teacher
from trainables.training.recipe import Adam, Recipe
from trainables.training.schedules import Cosine, Progress

START = Progress(0, 1)

STUDENT = SmallSR(2)
RECIPE = Recipe(4, Cosine(2e-3), Adam())
TASK = FaceSR(
    data=DrawnSrFaces(train=10, val=3, test=5, size=32), teacher=Teacher(SmallSR(2, atoms=3), RECIPE, 2), recipe=RECIPE
)
ADVERSARY = AdversarialFeatures(1e-2, PatchDiscriminator(in_channels=2, width=4, layers=2))


def job(task, storage, folder, *, student=STUDENT, **settings) -> TrialContext:
    return dataclasses.replace(small.job(task, storage, folder, **({"loss": ADVERSARY} | settings)), student=student)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A storage with the small task's teacher, and the steps that made it."""
    path = tmp_path_factory.mktemp("sr")
    return path, prepared(TASK, path)


@pytest.fixture
def storage(made):
    return made[0]


# -- dictionary and teacher


def test_dictionary_is_built_once_before_the_teacher_is_trained(made, tmp_path):
    _, steps = made
    assert [name for name, _ in steps] == ["dictionary", "teacher"]
    assert TASK.list_preparations(made[0], small.PLAN) == []
    assert [step.name for step in TASK.list_preparations(tmp_path, small.PLAN)] == ["dictionary", "teacher"]


def test_teacher_carries_patches_of_its_training_faces(storage):
    net = TASK.build(TASK.teacher.model)
    net = teachers.load_weights(net, teachers.teacher_folder(storage, TASK.teacher_key) / "weights.safetensors")
    atoms = net.dictionary.atoms(net.dictionary.parts[0])
    assert atoms.shape == (3, 3, 16, 16)
    assert atoms.std() > 0.01
    assert 0 <= atoms.min() < atoms.max() <= 1


def test_plain_teacher_needs_no_dictionary(tmp_path):
    task = dataclasses.replace(TASK, teacher=Teacher(SmallSR(2), RECIPE, 1))
    assert [name for name, _ in prepared(task, tmp_path)] == ["teacher"]


def test_teacher_is_never_stored():
    assert TASK.stored_output_bytes is None
    assert TASK.with_live_teacher() is TASK


# -- training


def test_trial_with_an_adversary_resumed_after_an_epoch_equals_one_never_stopped(storage, tmp_path):
    whole = metrics(list(TASK.train(job(TASK, storage, tmp_path / "whole"))))
    rows = TASK.train(job(TASK, storage, tmp_path / "cut"))
    head = [next(rows)]
    rows.close()
    assert metrics(head + list(TASK.train(job(TASK, storage, tmp_path / "cut", recorded=1)))) == whole
    assert whole[-1].keys() <= TASK.metrics.keys()


def test_arms_differ_by_their_losses_alone(storage, tmp_path):
    found = {}
    for loss in (NoDistillation(), AdversarialFeatures(0.0, ADVERSARY.discriminator), ADVERSARY, FeatureMatching(0.5)):
        (row,) = metrics(list(TASK.train(job(TASK, storage, tmp_path / str(len(found)), loss=loss, epochs=1))))
        found[len(found)] = row["val/psnr"]
    assert found[0] == found[1]
    assert len(set(found.values())) == 3


def test_arm_with_a_task_loss_of_its_own_is_trained_under_it(storage, tmp_path):
    """RCAN and SRFBN as their authors train them: L1, for a recurrent net as the mean over its steps."""
    student = SRFBN(width=4, groups=1, steps=2)
    l1 = dataclasses.replace(TASK, pixel_norm="l1")
    runs = {
        "own": (TASK, ReconstructionAlone()),
        "by the task": (l1, NoDistillation()),
        "common": (TASK, NoDistillation()),
    }
    rows = {
        name: metrics(list(task.train(job(task, storage, tmp_path / name, student=student, loss=loss, epochs=1))))[0]
        for name, (task, loss) in runs.items()
    }
    assert rows["own"] == rows["by the task"]
    assert rows["own"]["train/task_loss"] != rows["common"]["train/task_loss"]


def test_objective_as_printed_has_norms_and_weights_of_one(monkeypatch):
    """P2, equation 1: E‖SR − GT‖ + E(D(F) − 1)² + EΣ‖f(SR) − f(GT)‖, norms not squared."""
    printed = Reconstruction("l2norm", perceptual_norm="l2norm", perceptual_weight=1.0)
    loss = AdversarialFeatures(1.0, ADVERSARY.discriminator, reconstruction=printed)
    taps = [lambda x: x, lambda x: 3 * x[:, :1]]
    monkeypatch.setattr(face_sr_task, "load_perceptual_vgg", lambda device: lambda x: [tap(x) for tap in taps])
    image, truth = torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = Batch(image, SrTargets(truth, None), *2 * [torch.zeros(4)])
    found = TASK.adapt_to(loss).task_loss(Outputs(image), batch)
    difference = (image - truth).numpy().astype(np.float64)
    norms = [np.sqrt((part**2).sum(axis=(1, 2, 3))).mean() for part in (difference, difference, 3 * difference[:, :1])]
    assert found.item() == pytest.approx(sum(norms), rel=1e-6)
    features = {"last": torch.rand(4, 2, 8, 8)}
    outputs = Outputs(image, features)
    unit, doubled = (dataclasses.replace(loss, weight=weight)(outputs, outputs, None, START) for weight in (1.0, 2.0))
    assert doubled.item() == pytest.approx(2 * unit.item())


def test_task_loss_of_an_arms_own_needs_its_weights_before_a_study_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    loss = ReconstructionAlone(Reconstruction(perceptual_weight=1.0))
    with pytest.raises(InputError, match="a perceptual term of weight 0 needs no file"):
        TASK.check((STUDENT,), (loss,), tmp_path)


def test_scores_while_training_cost_little_and_test_is_read_in_confirm_alone(storage, tmp_path):
    (search,) = metrics(list(TASK.train(job(TASK, storage, tmp_path / "search", epochs=1))))
    assert {name for name in search if name.endswith(("psnr", "ssim", "lpips"))} == {
        "train/psnr",
        "val/psnr",
        "val/ssim",
    }
    confirm = job(TASK, storage, tmp_path / "confirm", phase="confirm", train_on="train+val", epochs=1)
    (row,) = metrics(list(TASK.train(confirm)))
    assert row["test/psnr"] > 5


def test_recurrent_net_is_trained_by_the_mean_over_its_steps(storage, tmp_path):
    net = TASK.build(SRFBN(width=4, groups=1, steps=3)).train()
    batch = TASK.examples("train", "cpu").batch(torch.arange(2), torch.zeros(2, dtype=torch.int64))
    outputs = TASK.outputs(net, batch)
    steps = outputs.features["steps"].detach()
    by_step = torch.stack([pixel_error("mse", steps[:, step], batch.targets.image) for step in range(3)])
    assert by_step.unique().numel() > 1
    assert TASK.task_loss(outputs, batch).item() == pytest.approx(by_step.mean().item(), rel=1e-6)
    assert "steps" not in TASK.outputs(net.eval(), batch).features


def test_pictures_show_what_was_given_and_what_was_restored(storage, tmp_path):
    confirm = job(TASK, storage, tmp_path, phase="confirm", train_on="train+val", epochs=1)
    (row,) = metrics(list(TASK.train(confirm)))
    names = [panel.name for panel in panels(storage)]
    assert names == [
        "small", "bicubic", "truth", "bicubic, enlarged", "truth, enlarged", "restored", "restored, enlarged",
    ]  # fmt: skip
    with np.load(tmp_path / "exhibits.npz") as file:
        truth, restored = file["0/2"], file["0/5"]
    np.testing.assert_array_equal(truth, TASK.loaded.test.images[0].transpose(1, 2, 0))
    shown = 10 * np.log10(255**2 / np.square(truth.astype(float) - restored).mean())
    assert abs(shown - row["test/psnr"]) < 8  # one face of five, in whole numbers


def panels(storage):
    batch = TASK.examples("test", "cpu").batch(torch.tensor([0]), torch.tensor([0]))
    with torch.no_grad():
        return TASK.panels(TASK.outputs(TASK.build(STUDENT), batch), batch)


def test_caption_of_a_restored_face_is_its_psnr(storage):
    batch = TASK.examples("test", "cpu").batch(torch.tensor([0]), torch.tensor([0]))
    truth = batch.targets.image
    restored = SROutput((truth + 0.1).clamp(0, 1), truth)
    outputs = Outputs(restored.image)
    meter = SrScores("cpu", lpips=None, psnr_only=True)
    meter.update(outputs, Batch(batch.inputs, batch.targets, batch.samples, batch.views))
    (panel,) = (panel for panel in TASK.panels(outputs, batch) if panel.name == "restored")
    assert panel.caption == f"{meter.compute()['psnr']:.2f} dB"


# -- before a study


def test_check_returns_what_is_absent_and_what_identifies_the_data(tmp_path):
    told = TASK.check((STUDENT,), (ADVERSARY, FeatureMatching()), tmp_path)["data"]
    assert (told["train"], told["val"], told["test"]) == (10, 3, 5)
    assert told["absent"] == {"lpips": "weights absent"}
    assert "alexnet-owt-7be5be79.pth" in told["note"]


def test_discriminator_of_another_width_is_refused(tmp_path):
    wide = AdversarialFeatures(1e-2, PatchDiscriminator(in_channels=64))
    with pytest.raises(InputError, match="64"):
        TASK.check((STUDENT,), (wide,), tmp_path)


def test_dictionary_without_landmarks_is_refused(tmp_path, monkeypatch):
    faces = TASK.loaded
    bare = dataclasses.replace(faces, samples=SrFaces(faces.images, None))
    monkeypatch.setattr(definition, "load_dataset", lambda data: bare)
    with pytest.raises(
        InputError, match="small_sr-2-3atoms needs boxes of eyes, nose and mouth, and drawn faces has no"
    ):
        TASK.check((STUDENT,), (), tmp_path)


def test_student_with_a_dictionary_is_refused(tmp_path):
    with pytest.raises(InputError, match="student small_sr-2-3atoms has a dictionary, which only a teacher gets"):
        TASK.check((SmallSR(2, atoms=3),), (), tmp_path)


def test_last_batch_of_one_face_does_not_ask_for_the_dictionary(tmp_path):
    task = dataclasses.replace(TASK, recipe=dataclasses.replace(RECIPE, batch_size=9))
    task = dataclasses.replace(task, teacher=dataclasses.replace(TASK.teacher, recipe=task.recipe))
    assert len(task.positions("train")) % 9 == 1
    task.check((STUDENT,), (), tmp_path)


def test_teacher_scored_by_another_measure_is_another_teacher():
    keys = {dataclasses.replace(TASK, **change).teacher_key for change in ({}, {"channel": "y"}, {"lpips": None})}
    assert len(keys) == 3


def test_perceptual_term_without_weights_is_named_before_training(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    task = dataclasses.replace(TASK, perceptual_weight=0.01)
    with pytest.raises(InputError, match=r"vgg19-dcbb9e9d\.pth"):
        task.check((STUDENT,), (), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_norm": "huber"}, "pixel_norm is 'huber'; allowed are 'mse', 'l2norm', 'l1'"),
        ({"perceptual_weight": -1.0}, "perceptual_weight is -1"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(TASK, **change)
