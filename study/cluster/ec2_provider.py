"""A node provider for `ray up` on EC2: Ray's own, with machines to fall back to and images given as SSM parameters.

cluster.yaml names it under `provider`. Ray's autoscaler requests a machine type that EC2 has run out of again and
again; only one whose machines start but never join makes it try another type. Here another machine is requested at
once. Runs on the machine of `ray up` and on the head.
"""

from __future__ import annotations

import logging
from typing import Any

from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.aws.utils import client_cache
from ray.autoscaler._private.constants import BOTO_MAX_RETRIES
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import NODE_KIND_HEAD, TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

logger = logging.getLogger(__name__)

SSM_PREFIX = "resolve:ssm:"
"""Prefix of an ImageId that names a parameter of AWS Systems Manager, whose value is the image's id."""

UNAVAILABLE = frozenset(
    {
        "InsufficientInstanceCapacity",
        "InstanceLimitExceeded",
        "MaxSpotInstanceCountExceeded",
        "SpotMaxPriceTooLow",
        "Unsupported",  # no such machine in this zone
        "VcpuLimitExceeded",
    }
)
"""EC2's errors by which a machine cannot be had, now or in this account; others mean that the request is wrong."""


class Ec2Provider(AWSNodeProvider):  # type: ignore[misc]  # Ray has no types
    """Machines on EC2; `provider: fallbacks` lists, by node type, changes to node_config for where none can be had."""

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        """Start up to `count` machines of the first kind that can be had.

        Raises NodeLaunchException if none can be had, or EC2 refuses the request for another reason.
        """
        node_type = tags.get(TAG_RAY_USER_NODE_TYPE, "")
        fallbacks = self.provider_config.get("fallbacks", {}).get(node_type, [])
        for change in fallbacks:
            try:
                return self._create(node_config, tags, count)
            except NodeLaunchException as error:
                if error.category not in UNAVAILABLE:
                    raise
                logger.warning("%s cannot be had (%s); trying with %s", node_type, error.category, change)
                node_config = apply_change(node_config, change)
        return self._create(node_config, tags, count)

    def _create(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        created: dict[str, Any] = super().create_node(node_config, tags, count)
        return created

    def prepare_for_head_node(self, cluster_config: dict[str, Any]) -> dict[str, Any]:
        """Replace the workers' SSM parameters by image ids, as the user of `ray up` may read them.

        EC2 reads the head's parameter by itself. It would do so for workers too, but they are started by the head,
        whose role (Ray's ray-autoscaler-v1) may not read parameters.
        """
        for name, node_type in cluster_config["available_node_types"].items():
            if name != cluster_config["head_node_type"]:
                node_config = node_type["node_config"]
                node_config["ImageId"] = self._find_image(node_config["ImageId"])
        return cluster_config

    def _find_image(self, image: str) -> str:
        if not image.startswith(SSM_PREFIX):
            return image
        credentials = self.provider_config.get("aws_credentials") or {}
        ssm = client_cache("ssm", self.provider_config["region"], BOTO_MAX_RETRIES, **credentials)
        return str(ssm.get_parameter(Name=image.removeprefix(SSM_PREFIX))["Parameter"]["Value"])

    def terminate_node(self, node_id: str) -> None:
        self.terminate_nodes([node_id])

    def terminate_nodes(self, node_ids: list[str]) -> None:
        """Stop the head, if `cache_stopped_nodes` is set; end workers together with their disks, on-demand ones too."""
        # of a node that is not listed yet, no tags are known: it has just been started, and is a worker
        tags = {node: self.tag_cache.get(node, {}) for node in node_ids}
        heads = [node for node in node_ids if tags[node].get(TAG_RAY_NODE_KIND) == NODE_KIND_HEAD]
        if workers := [node for node in node_ids if node not in heads]:  # first: they cost most
            self.ec2.meta.client.terminate_instances(InstanceIds=workers)
        super().terminate_nodes(heads)


def apply_change(node_config: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of both, those of `change` first; its nulls remove fields."""
    return {name: value for name, value in (node_config | change).items() if value is not None}
