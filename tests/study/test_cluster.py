"""How many trials fit: the arithmetic over nodes."""

from __future__ import annotations

import pytest

from study.cluster import Node, allot
from study.errors import InputError


@pytest.mark.parametrize(
    ("nodes", "gpus_each", "fitting"),
    [
        ([Node(2, 0)], None, 2),
        ([Node(16, 4)], None, 4),
        ([Node(16, 4)], 0.5, 8),
        ([Node(16, 4)], 0.3, 12),  # three to a GPU: a trial is not split over two
        ([Node(2, 4)], 0.25, 2),
        ([Node(16, 4)], 2, 2),
        ([Node(16, 1), Node(16, 1), Node(4, 0)], 1, 2),
        ([Node(8, 1)], 0, 8),
    ],
)
def test_trials_fit_node_by_node(nodes: list[Node], gpus_each: float | None, fitting: int) -> None:
    assert allot(nodes, gpus_each, None).concurrent == fitting


def test_at_most_as_many_as_asked_for() -> None:
    assert allot([Node(16, 0)], None, 3).concurrent == 3


@pytest.mark.parametrize(
    ("nodes", "gpus_each"), [([Node(16, 1), Node(16, 1)], 2), ([Node(4, 0)], 1), ([Node(4, 0)], 0.5)]
)
def test_what_fits_on_no_node_is_refused_with_the_arithmetic(nodes: list[Node], gpus_each: float) -> None:
    with pytest.raises(InputError, match=rf"1 CPU and {gpus_each:g} GPU on one node, there are .* no trial fits"):
        allot(nodes, gpus_each, None)
