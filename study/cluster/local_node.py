"""A node of Ray for one machine, without the processes that a study on it does not use.

`ray.init` starts three whatever its options: an autoscaler's monitor, a monitor that sends logs to drivers that print
them, and an API server that serves nothing without a dashboard. They take longer to start than the rest of Ray.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray._private.node
from ray._private import ray_constants
from ray._private.parameter import RayParams

NO_SERVER = b"127.0.0.1:9"
"""Address registered for the dashboard, at which nothing answers: Ray's agent logs each second that there is none."""


class LocalNode(ray._private.node.Node):  # type: ignore[misc]
    """The node that `ray.init` starts, with Ray's store, scheduler and agents alone."""

    def __init__(self, ray_params: RayParams, *arguments: Any, **options: Any) -> None:
        """Let Ray's agent take any free port: where another Ray has its default one, it tries that for four seconds."""
        ray_params.dashboard_agent_listen_port = 0
        super().__init__(ray_params, *arguments, **options)

    def start_monitor(self) -> None:
        """Do nothing: one machine does not grow."""

    def start_log_monitor(self) -> None:
        """Do nothing: the driver prints no logs of workers."""

    def start_api_server(self, **_: Any) -> None:
        """Register an address of a dashboard without starting one."""
        namespace = ray_constants.KV_NAMESPACE_DASHBOARD
        self.get_gcs_client().internal_kv_put(ray_constants.DASHBOARD_ADDRESS.encode(), NO_SERVER, True, namespace)


@contextmanager
def start_local_node() -> Iterator[None]:
    """Let `ray.init` start a LocalNode. Not public: its class is an attribute of a module, with no hook around it."""
    node = ray._private.node.Node
    ray._private.node.Node = LocalNode
    try:
        yield
    finally:
        ray._private.node.Node = node
