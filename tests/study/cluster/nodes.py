"""A cluster of Ray on this machine whose nodes come and go, without what no study on it uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

# sets what Ray reads here and in the nodes that are started: they start no workers before a trial needs one
import study.cluster.connection  # noqa: F401
from study.cluster.local_node import start_local_node


@contextmanager
def start_cluster() -> Iterator[Any]:
    """Start a head that no trial is placed on, with Ray's store, scheduler and agents alone; yield Ray's Cluster."""
    from ray.cluster_utils import Cluster

    with start_local_node(), pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_NODE_TYPE_NAME", "head")  # as `ray up` names it
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield made
    finally:
        made.shutdown()
