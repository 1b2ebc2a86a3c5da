"""The face-parsing task: scores counted by hand, teachers stored or asked, what is refused, what is shown."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassJaccardIndex

from study.errors import InputError
from study.task import Plan
from study.trial import TrialContext
from tests.trainables import small
from tests.trainables.small import metrics, prepared
from trainables.data.arrays.face_parsing import CLASSES
from trainables.data.synthetic.faces import DrawnFaces
from trainables.losses.common.per_pixel import upsample_logits
from trainables.losses.none import NoDistillation
from trainables.losses.pixels.cwd import CWD
from trainables.losses.pixels.ldt import LDT
from trainables.losses.pixels.pixel_dist import PixelDIST
from trainables.losses.pixels.pixel_dkd import PixelDKD
from trainables.losses.pixels.pixel_kd import PixelKD
from trainables.models.segmentation import DeepLabV3MobileNet, FCNResNet, SmallFCN
from trainables.task import Batch, Outputs
from trainables.tasks.segmentation.face_parsing import PARTS, FaceParsing
from trainables.tasks.segmentation.metrics import SegmentationScores, define_class_scores, define_means
from trainables.teacher import weights as teachers
from trainables.teacher.output_store import StoredTeacher
from trainables.teacher.weights import Teacher
from trainables.training.recipe import Adam, Recipe
from trainables.training.schedules import Cosine

STUDENT = SmallFCN(2)
RECIPE = Recipe(4, Cosine(1e-2), Adam())
TASK = FaceParsing(
    data=DrawnFaces(train=10, val=4, test=5, size=40), teacher=Teacher(SmallFCN(4), RECIPE, epochs=2), recipe=RECIPE
)
PLAN = Plan(((7, "train"), (8, "train+val")), epochs=3)
NOTHING = torch.zeros(0, dtype=torch.int64)


def job(task, storage, folder, **settings) -> TrialContext:
    return dataclasses.replace(small.job(task, storage, folder, **({"loss": LDT()} | settings)), student=STUDENT)


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """A storage with the small task's teacher and its logits."""
    path = tmp_path_factory.mktemp("faces")
    prepared(TASK, path, PLAN)
    return path


# -- scores


def scored(logits, labels, parts=1):
    meter = SegmentationScores(PARTS, "cpu")
    for some, true in zip(logits.chunk(parts), labels.chunk(parts), strict=True):
        meter.update(Outputs(some), Batch(torch.empty(0), true, NOTHING, NOTHING))
    return meter.compute()


def guesses(seed=0, classes=19, side=24):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, len(CLASSES), side // 4, side // 4, generator=generator)
    return logits, torch.randint(classes, (6, side, side), generator=generator)


def test_scores_are_those_of_a_count_by_hand():
    logits, labels = guesses()
    said = upsample_logits(logits, (24, 24)).argmax(1).numpy()
    true = labels.numpy()
    f1, iou = [], []
    for number in range(len(CLASSES)):
        hits = int(((said == number) & (true == number)).sum())
        f1.append(2 * hits / (int((said == number).sum()) + int((true == number).sum())))
        iou.append(hits / int(((said == number) | (true == number)).sum()))
    scores = scored(logits, labels)
    assert scores["f1"] == pytest.approx(np.mean(f1[1:]), abs=1e-12)
    assert scores["f1_all"] == pytest.approx(np.mean(f1), abs=1e-12)
    assert scores["miou"] == pytest.approx(np.mean(iou), abs=1e-12)
    assert scores["accuracy"] == pytest.approx((said == true).mean(), abs=1e-12)
    assert [scores[f"class_f1_{name}"] for name in CLASSES] == pytest.approx(f1, abs=1e-12)
    assert scores.keys() == {metric.name for metric in (*define_means(PARTS), *define_class_scores(PARTS))}


def test_scores_are_torchmetrics_own():
    logits, labels = guesses(1)
    said = upsample_logits(logits, (24, 24)).argmax(1)
    f1 = MulticlassF1Score(len(CLASSES), average="none")(said, labels)
    scores = scored(logits, labels)
    assert scores["f1"] == pytest.approx(float(f1[1:].mean()), abs=1e-6)
    assert scores["miou"] == pytest.approx(float(MulticlassJaccardIndex(len(CLASSES))(said, labels)), abs=1e-6)
    assert scores["accuracy"] == pytest.approx(
        float(MulticlassAccuracy(len(CLASSES), average="micro")(said, labels)), abs=1e-6
    )


def test_scores_are_pooled_over_all_pixels_whatever_the_batches():
    logits, labels = guesses(2)
    assert scored(logits, labels, parts=6) == scored(logits, labels)


def test_class_that_no_label_names_is_in_no_mean():
    logits, labels = guesses(3, classes=5)
    scores = scored(logits, labels)
    assert [name for name in scores if name.startswith("class_f1_")] == [f"class_f1_{name}" for name in CLASSES[:5]]
    assert scores["f1"] == pytest.approx(np.mean([scores[f"class_f1_{name}"] for name in CLASSES[1:5]]))
    iou = [scores[f"class_f1_{name}"] / (2 - scores[f"class_f1_{name}"]) for name in CLASSES[:5]]
    assert scores["miou"] == pytest.approx(np.mean(iou))


def test_all_right_is_one():
    labels = torch.arange(len(CLASSES)).repeat_interleave(32)[: 24 * 24].view(1, 24, 24)
    logits = torch.nn.functional.one_hot(labels, len(CLASSES)).permute(0, 3, 1, 2).float()
    assert set(scored(logits, labels).values()) == {1.0}


# -- training


@pytest.mark.parametrize(("phase", "train_on", "seed"), [("search", "train", 7), ("confirm", "train+val", 8)])
def test_training_with_the_store_agrees_with_a_live_teacher(storage, tmp_path, phase, train_on, seed):
    rows = {}
    for task in (TASK, TASK.with_live_teacher()):
        wanted = job(task, storage, tmp_path / str(task.teacher_store), phase=phase, train_on=train_on, seed=seed)
        rows[task.teacher_store] = metrics(list(task.train(wanted)))
    for stored, live in zip(rows[True], rows[False], strict=True):
        assert stored == pytest.approx(live, rel=2e-3, abs=2e-3)


def test_stored_logits_are_the_teachers_of_the_face_and_of_its_mirror_image(storage):
    from trainables.teacher.preparation import store_folder

    net = TASK.build(TASK.teacher.model)
    net = teachers.load_weights(net, teachers.teacher_folder(storage, TASK.teacher_key) / "weights.safetensors").eval()
    pool = TASK.examples("train+val", "cpu")
    samples = torch.arange(len(pool))
    folder, teacher = store_folder(TASK, storage), teachers.weights_digest(storage, TASK.teacher_key)
    stored = StoredTeacher(folder, teacher, TASK.positions("train+val"), len(pool), TASK.views.count, "cpu")
    # which views are stored is what the plan's trainings draw: those of this epoch are
    views = TASK.views.draw(8, 0, samples)
    assert set(views.tolist()) == {0, 1}
    batch = pool.batch(samples, views)
    kept = stored.begin_epoch(views)(batch).prediction
    with torch.no_grad():
        torch.testing.assert_close(kept.float(), net(batch.inputs), rtol=2e-3, atol=2e-3)
    assert kept.shape[1:] == (len(CLASSES), 10, 10)
    assert kept[0].nbytes == TASK.stored_output_bytes


def test_trial_resumed_after_an_epoch_equals_one_never_stopped(storage, tmp_path):
    whole = metrics(list(TASK.train(job(TASK, storage, tmp_path / "whole"))))
    rows = TASK.train(job(TASK, storage, tmp_path / "cut"))
    head = [next(rows)]
    rows.close()
    assert metrics(head + list(TASK.train(job(TASK, storage, tmp_path / "cut", recorded=1)))) == whole


def test_student_learns_and_a_weight_of_zero_is_no_distillation(storage, tmp_path):
    none, zero, whole = (
        metrics(list(TASK.train(job(TASK, storage, tmp_path / name, loss=loss))))
        for name, loss in (("none", NoDistillation()), ("zero", PixelKD(weight=0.0)), ("kd", PixelKD()))
    )
    for row in zero:
        row.pop("train/teacher_distance")
    assert none == zero != whole
    assert none[-1]["train/loss"] < none[0]["train/loss"]
    assert whole[-1].keys() <= TASK.metrics.keys()
    assert not any(name.startswith("train/class_") for name in whole[-1])


@pytest.mark.parametrize("loss", [PixelDKD(transform="ldt"), CWD(), PixelDIST()], ids=["DKD + LDT", "CWD", "DIST"])
def test_student_comes_closer_to_its_teacher_under_every_loss(storage, tmp_path, loss):
    TASK.check((STUDENT,), (loss,), tmp_path)
    rows = metrics(list(TASK.train(job(TASK, storage, tmp_path, loss=dataclasses.replace(loss, task_weight=0.0)))))
    assert rows[-1]["train/distill_loss"] < rows[0]["train/distill_loss"]


def test_search_reads_no_test_and_confirm_shows_faces_with_their_labels(storage, tmp_path):
    search = metrics(list(TASK.train(job(TASK, storage, tmp_path / "search", epochs=1))))
    assert not any(name.startswith("test") for name in search[0])
    confirm = job(TASK, storage, tmp_path, phase="confirm", train_on="train+val", seed=8)
    assert metrics(list(TASK.train(confirm)))[-1]["test/f1"] > 0
    with np.load(tmp_path / "exhibits.npz") as file:
        np.testing.assert_array_equal(file["0/0"], TASK.loaded.test.images[0].transpose(1, 2, 0))
        np.testing.assert_array_equal(file["0/1"], TASK.loaded.test.labels[0])
        assert file["0/2"].shape == (40, 40)
        assert file["0/3"].shape == file["0/4"].shape == (10, 10)
        assert (file["0/4"] > 0).all()


# -- before a study


def test_splits_are_the_data_sets_own():
    parts = {split: TASK.positions(split).tolist() for split in ("train", "val", "train+val")}
    assert parts["train"] + parts["val"] == parts["train+val"] == list(range(14))
    pool = TASK.examples("train+val", "cpu")
    for split in ("train", "val"):
        batch = TASK.examples(split, "cpu").batch(torch.tensor([1]), torch.tensor([0]))
        same = pool.batch(TASK.positions(split)[1:2], torch.tensor([0]))
        assert torch.equal(batch.inputs, same.inputs)
        assert torch.equal(batch.targets, same.targets)


def test_teacher_of_another_class_count_is_refused(tmp_path):
    torch.save(SmallFCN(4).build(11).state_dict(), tmp_path / "t.pth")
    task = dataclasses.replace(TASK, teacher=Teacher(SmallFCN(4), weights=tmp_path / "t.pth"))
    with pytest.raises(InputError, match=r"t\.pth does not fit: .* outputs, this study's data need 19"):
        task.check((STUDENT,), (LDT(),), tmp_path)


def test_last_batch_of_one_face_is_refused_for_a_net_that_pools_to_one_pixel(tmp_path):
    task = dataclasses.replace(TASK, recipe=dataclasses.replace(RECIPE, batch_size=13))
    with pytest.raises(InputError, match="trains on 14 samples in batches of 13: the last batch is one sample"):
        task.check((DeepLabV3MobileNet(),), (), tmp_path)
    task.check((STUDENT,), (), tmp_path)


def test_split_that_is_never_trained_on_is_not_checked(tmp_path):
    task = dataclasses.replace(TASK, recipe=dataclasses.replace(RECIPE, batch_size=13))
    task.check((DeepLabV3MobileNet(),), (), tmp_path, ("train",))  # 10 faces: only train+val's 14 leave one


def test_missing_weights_of_imagenet_are_named_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    student = FCNResNet(18, imagenet=True)
    with pytest.raises(InputError, match=r"resnet18-f37072fd\.pth"):
        TASK.check((student,), (LDT(),), tmp_path)
    task = dataclasses.replace(TASK, teacher=Teacher(FCNResNet(34, imagenet=True), RECIPE, epochs=1))
    with pytest.raises(InputError, match=r"resnet34-b627a593\.pth"):
        task.check((STUDENT,), (LDT(),), tmp_path)


def test_loss_that_fails_is_named_with_what_it_was_given(tmp_path):
    class Broken(NoDistillation):
        def __call__(self, student, teacher, targets, progress):
            return student.prediction - targets

    with pytest.raises(InputError, match=r"Broken raises RuntimeError on outputs of the student \(1, 19, 10, 10\)"):
        TASK.check((STUDENT,), (Broken(),), tmp_path)


def test_check_returns_what_identifies_the_data(tmp_path):
    told = TASK.check((STUDENT,), (LDT(),), tmp_path)["data"]
    assert (told["train"], told["val"], told["test"], told["classes"]) == (10, 4, 5, 19)
    other = dataclasses.replace(TASK, data=DrawnFaces(train=9, val=5, test=5, size=40))
    assert other.teacher_key != TASK.teacher_key
