from __future__ import annotations

from reports.format.settings import find_domains, list_settings
from tests.reports.fake_study import Writer


def test_domains_are_named_as_trials_record_them(writer: Writer) -> None:
    loss = writer.study["study"]["arms"][2]["loss"]
    found = dict(find_domains(loss))
    assert list(found) == ["logits.temperature", "logits.prune.end", "logits.prune.stages", "logits.prune.shape"]
    nested = {
        "is": "Choice",
        "labels": ["off", "on"],
        "options": [0.0, {"is": "Stages", "end": found["logits.prune.end"]}],
    }
    assert [name for name, _ in find_domains({"p": nested})] == ["p", "p.on.end"]


def test_settings_name_arms_and_say_what_is_searched(writer: Writer) -> None:
    task, arms, *_ = list_settings(writer.study["study"])
    assert task.text == "Digits (train_samples 300, views CropFlip (padding 1))"
    assert [arm.name for arm in arms.parts] == ["none", "DKD", "DKD + LP searched"]
    (loss,) = [part for part in arms.parts[2].parts if part.name == "loss"]
    temperature = loss.parts[0].parts[0]
    assert temperature.text == "searched: 1 to 20, logarithmic"


def test_settings_that_are_not_set_are_left_out() -> None:
    assert [setting.name for setting in list_settings({"is": "Study", "seed": 0, "protocol": None, "first": []})] == [
        "seed",
        "first",
    ]
