"""Where in a user's code an exception arose."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from study.errors import InputError, explain_user_errors, find_user_frame, format_place

CODE = """
import json

def direct():
    raise ValueError("first line\\nsecond line")

def through_a_library():
    json.loads("{")

def refused():
    from study.space.domains import uniform
    uniform(2, 1)
"""


@pytest.fixture
def mine(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    spec = importlib.util.spec_from_file_location("mine", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "place"), [("direct", "mine.py, line 5"), ("through_a_library", "mine.py, line 8")])
def test_place_is_the_users_line_however_deep_the_error_arose(mine, name: str, place: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - json's own error is one
        getattr(mine, name)()
    assert format_place(caught.value) == f" ({place})"


def test_error_of_a_users_code_becomes_one_line(mine) -> None:
    with pytest.raises(InputError, match=r"^ValueError: first line \(mine\.py, line 5\)$"), explain_user_errors():
        mine.direct()


def test_input_error_keeps_its_message(mine) -> None:
    with pytest.raises(InputError, match=r"low must be below high") as caught, explain_user_errors():
        mine.refused()
    assert "mine.py" not in str(caught.value)


def test_error_of_a_library_alone_has_no_place(mine) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - json's own error
        json.loads("{")
    caught.value.__traceback__ = caught.value.__traceback__.tb_next  # without the frame of this file
    assert find_user_frame(caught.value) is None
    assert format_place(caught.value) == ""
