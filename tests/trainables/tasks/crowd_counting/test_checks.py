"""The crowd task's check before a study, and the keys of its teacher and its pool."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from study.errors import InputError
from tests.trainables.data.test_shanghaitech import part_a
from tests.trainables.small import prepared
from tests.trainables.small_crowds import FALLING, RECIPE, STUDENT, TASK
from trainables.data.shanghaitech import ShanghaiTech
from trainables.models import msfanet
from trainables.models.mcnn import MCNN
from trainables.models.msfanet import MSFANet
from trainables.tasks import definition
from trainables.tasks.crowd_counting import task as crowd_counting
from trainables.tasks.crowd_counting.density_maps import AdaptiveKernels
from trainables.tasks.crowd_counting.task import CrowdCounting
from trainables.teacher import weights as teachers
from trainables.teacher.weights import Teacher
from trainables.training.recipe import Adam, Recipe
from trainables.training.views import GridCrops

# -- what is refused


def test_check_refuses_what_cannot_be_trained(tmp_path):
    root = part_a(tmp_path / "part_A")
    (root / "train_data" / "images" / "IMG_2.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"IMG_2\.jpg cannot be decoded"):
        dataclasses.replace(TASK, data=ShanghaiTech(root)).check((STUDENT,), (FALLING,), tmp_path)
    with pytest.raises(InputError, match="99 of 16 samples held out"):
        dataclasses.replace(TASK, validation=99).check((STUDENT,), (FALLING,), tmp_path)
    teacher = Teacher(MSFANet(4), weights=tmp_path / "t.pth")
    with pytest.raises(InputError, match=r"t\.pth does not exist"):
        dataclasses.replace(TASK, teacher=teacher).check((STUDENT,), (FALLING,), tmp_path)


def test_check_tries_the_student_against_the_teacher(tmp_path):
    with pytest.raises(InputError, match=r"raises ValueError on outputs of the student .*cannot be summed"):
        dataclasses.replace(TASK, teacher=Teacher(STUDENT)).check((MSFANet(4),), (FALLING,), tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"views": GridCrops(40, rows=1, columns=1)}, "multiples of 16"),
        ({"density_scale": 0.0}, "density_scale is 0"),
        ({"attention_weight": -1.0}, "attention_weight is -1"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(TASK, **settings)


@pytest.mark.parametrize("changed", ["teacher", "student"])
def test_last_batch_of_one_image_is_refused_where_batch_norm_needs_two(tmp_path, changed):
    eleven = dataclasses.replace(RECIPE, batch_size=11)
    one_left = {
        "teacher": dataclasses.replace(TASK, teacher=dataclasses.replace(TASK.teacher, recipe=eleven)),
        "student": dataclasses.replace(TASK, recipe=eleven, teacher=Teacher(STUDENT, RECIPE)),
    }[changed]
    students = (MSFANet(6),) if changed == "student" else (STUDENT,)
    name = {"teacher": "m_sfanet-4", "student": "m_sfanet-6"}[changed]
    with pytest.raises(InputError, match=f"{name} trains on 12 samples in batches of 11: .* give another batch size"):
        one_left.check(students, (), tmp_path)
    dataclasses.replace(one_left, validation=5).check(students, (), tmp_path)


def test_last_batch_of_one_image_is_what_would_fail():
    net = TASK.build(MSFANet(4)).train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        net(torch.zeros(1, 3, 32, 32))
    net(torch.zeros(2, 3, 32, 32))


def test_nets_without_batch_norm_take_a_last_batch_of_one(tmp_path):
    recipe = dataclasses.replace(RECIPE, batch_size=5)
    task = dataclasses.replace(TASK, recipe=recipe)
    assert len(task.positions("train+val")) % recipe.batch_size == 1
    assert task.check((STUDENT,), (FALLING,), tmp_path)["data"]["complete"] is True


def test_check_names_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    definition.load_dataset.cache_clear()
    with pytest.raises(InputError, match=r"drawn crowds cannot be written to .*XDG_CACHE_HOME"):
        TASK.check((STUDENT,), (FALLING,), tmp_path)


# -- weights of ImageNet


@pytest.fixture
def imagenet(monkeypatch) -> CrowdCounting:
    """A task whose small teacher starts from weights of ImageNet, which are not there."""
    monkeypatch.setattr(msfanet, "PUBLISHED_WIDTH", 4)
    monkeypatch.setattr(msfanet, "_load_imagenet_features", _missing)
    teacher = Teacher(MSFANet(4, imagenet=True), RECIPE, epochs=2)
    return dataclasses.replace(TASK, teacher=teacher, validation=5)


def _missing():
    raise InputError("ImageNet weights are not there")


def test_imagenet_weights_are_required_before_a_teacher_is_trained(imagenet, tmp_path):
    with pytest.raises(InputError, match="ImageNet weights are not there"):
        imagenet.check((STUDENT,), (FALLING,), tmp_path)


def test_imagenet_weights_are_not_needed_for_a_teacher_from_a_file(imagenet, tmp_path):
    torch.save(TASK.build(MSFANet(4)).state_dict(), tmp_path / "t.pth")
    task = dataclasses.replace(imagenet, teacher=dataclasses.replace(imagenet.teacher, weights=tmp_path / "t.pth"))
    task.check((STUDENT,), (FALLING,), tmp_path)
    prepared(task, tmp_path)
    assert teachers.read_record(tmp_path, task.teacher_key)["source"] == "file t.pth"


def test_imagenet_weights_are_not_needed_for_a_teacher_that_was_trained(imagenet, tmp_path):
    teachers.save_teacher(tmp_path, imagenet.teacher_key, TASK.build(MSFANet(4)).state_dict(), {})
    imagenet.check((STUDENT,), (FALLING,), tmp_path)
    (step,) = prepared(imagenet, tmp_path)
    assert step[0] == "outputs 0–16"


# -- weights of M-SFANet's authors


def test_checkpoint_of_the_authors_is_a_teacher_that_predicts_scaled_densities(tmp_path):
    """Their names, wrapped as they wrap them, and predictions in people, which a teacher here multiplies by 100."""
    torch.manual_seed(0)
    net = MSFANet(4).build(3).eval()
    torch.save({"model": net.expect_authors_state(), "epoch": 3}, tmp_path / "theirs.pth")
    task = dataclasses.replace(TASK, teacher=dataclasses.replace(TASK.teacher, weights=tmp_path / "theirs.pth"))
    loaded = task.load_teacher_file(tmp_path / "theirs.pth").eval()
    image = torch.rand(1, 3, 32, 48)
    (density, attention), (theirs, seen) = loaded(image), net(image)
    torch.testing.assert_close(density, 100 * theirs)
    assert torch.equal(attention, seen)
    prepared(task, tmp_path)
    assert teachers.read_record(tmp_path, task.teacher_key)["source"] == "file theirs.pth"


def test_file_under_this_projects_names_is_not_scaled(tmp_path):
    net = MSFANet(4).build(3)
    torch.save(net.state_dict(), tmp_path / "ours.pth")
    task = dataclasses.replace(TASK, teacher=dataclasses.replace(TASK.teacher, weights=tmp_path / "ours.pth"))
    loaded = task.load_teacher_file(tmp_path / "ours.pth").state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in net.state_dict().items())


def test_file_of_neither_names_is_refused_with_this_projects_names(tmp_path):
    state = MSFANet(4).build(3).expect_authors_state()
    state.pop("conv_out.conv.bias")
    torch.save(state, tmp_path / "t.pth")
    task = dataclasses.replace(TASK, teacher=dataclasses.replace(TASK.teacher, weights=tmp_path / "t.pth"))
    with pytest.raises(InputError, match=r"of another architecture: it lacks 'vgg\.0\.weight'"):
        task.check((STUDENT,), (FALLING,), tmp_path)


# -- what identifies the teacher and the pool

TEACHING = {
    "data": dataclasses.replace(TASK.data, seed=1),
    "teacher": dataclasses.replace(TASK.teacher, epochs=3),
    "views": GridCrops(32, rows=2, columns=3),
    "validation": 5,
    "split_seed": 1,
    "kernels": AdaptiveKernels(beta=0.2),
    "density_scale": 10.0,
    "attention_weight": 0.2,
}
"""Settings that the teacher follows from, each another than the small task's."""

OTHERS = {"recipe": Recipe(8, 1e-3, Adam()), "teacher_store": False}


def test_every_setting_is_known_to_change_the_teacher_or_not():
    assert {field.name for field in dataclasses.fields(CrowdCounting)} == TEACHING.keys() | OTHERS.keys()


@pytest.mark.parametrize("name", TEACHING)
def test_teacher_key_moves_with_what_changes_the_teacher(name):
    assert dataclasses.replace(TASK, **{name: TEACHING[name]}).teacher_key != TASK.teacher_key


@pytest.mark.parametrize("name", OTHERS)
def test_teacher_key_stays_with_what_does_not(name):
    assert dataclasses.replace(TASK, **{name: OTHERS[name]}).teacher_key == TASK.teacher_key


@pytest.mark.parametrize(
    "changed", [{"model": MCNN(0.3)}, {"seed": 1}, {"recipe": Recipe(8, 1e-3, Adam())}, {"model": MSFANet(6)}]
)
def test_teacher_key_moves_with_the_teachers_own_settings(changed):
    teacher = dataclasses.replace(TASK.teacher, **changed)
    assert dataclasses.replace(TASK, teacher=teacher).teacher_key != TASK.teacher_key


@pytest.mark.parametrize("name", [*TEACHING, *OTHERS])
def test_pool_key_moves_with_the_data_alone(name):
    changed = dataclasses.replace(TASK, **{name: (TEACHING | OTHERS)[name]})
    assert (changed.pool_key != TASK.pool_key) == (name == "data")


@pytest.mark.parametrize("changed", [{"mean": (0.5, 0.5, 0.5)}, {"std": (0.2, 0.2, 0.2)}, "padding"])
def test_keys_move_with_how_images_are_made_inputs(monkeypatch, changed):
    before, crowds = (TASK.teacher_key, TASK.pool_key), TASK.loaded
    if changed == "padding":
        monkeypatch.setattr(crowd_counting, "MULTIPLE", 32)
    else:
        monkeypatch.setattr(definition, "load_dataset", lambda data: dataclasses.replace(crowds, **changed))
    after = TASK.teacher_key, TASK.pool_key
    assert all(old != new for old, new in zip(before, after, strict=True))
