from __future__ import annotations

from reports.tables.study_differences import ABSENT, find_differences


def test_varying_names_each_differing_leaf_and_matches_arms_by_name() -> None:
    one = {"is": "Study", "arms": [{"name": "KD", "t": 4.0}, {"name": "DKD", "b": 8}], "seed": 0}
    other = {"is": "Study", "arms": [{"name": "DKD", "b": 2}, {"name": "new", "x": 1}], "seed": 0}
    assert dict(find_differences([one, other])) == {
        "arms.KD": [{"t": 4.0}, ABSENT],
        "arms.DKD.b": [8, 2],
        "arms.new": [ABSENT, {"x": 1}],
    }


def test_varying_does_not_look_inside_things_of_different_kinds() -> None:
    one, other = {"loss": {"is": "KD", "t": 4}}, {"loss": {"is": "DKD", "t": 4}}
    assert list(find_differences([one, other])) == [("loss", [one["loss"], other["loss"]])]


def test_varying_of_equal_descriptions_is_empty() -> None:
    assert list(find_differences([{"a": [1, {"b": 2}]}] * 3)) == []
