"""cluster.yaml's machines, started by Ray's own code for `ray up` and for the head's autoscaler against moto as EC2.

moto takes any text for an image: the parameter of an image is read here, as EC2 does it, with the caller's rights.
"""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

boto3 = pytest.importorskip("boto3", reason="no AWS: pip install boto3 'moto[server]'")
if importlib.util.find_spec("moto") is None:  # imported where it is used: it takes seconds
    pytest.skip("no AWS: pip install boto3 'moto[server]'", allow_module_level=True)

from botocore.client import BaseClient  # noqa: E402
from botocore.exceptions import ClientError  # noqa: E402
from ray.autoscaler._private import commands, util  # noqa: E402
from ray.autoscaler._private.aws import config as aws_config  # noqa: E402
from ray.autoscaler._private.aws import node_provider as aws_nodes  # noqa: E402
from ray.autoscaler._private.aws import utils as aws_utils  # noqa: E402
from ray.autoscaler._private.providers import _get_node_provider  # noqa: E402
from ray.autoscaler.node_launch_exception import NodeLaunchException  # noqa: E402
from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE  # noqa: E402
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig  # noqa: E402
from ray.autoscaler.v2.instance_manager.node_provider import NodeProviderAdapter  # noqa: E402

from study.cluster.ec2_provider import SSM_PREFIX, apply_change  # noqa: E402

REGION = "us-east-1"
FILE = yaml.safe_load((Path(__file__).parents[3] / "cluster.yaml").read_text(encoding="utf-8"))
IMAGES = {
    node["node_config"]["ImageId"].removeprefix(SSM_PREFIX): image
    for node, image in zip(
        FILE["available_node_types"].values(), ("ami-0000000000000head", "ami-00000000000000gpu"), strict=True
    )
}
SPOT, LARGER_SPOT, ON_DEMAND = ("g6.xlarge", "spot"), ("g6.2xlarge", "spot"), ("g6.xlarge", "on demand")


class Ec2:
    """Machines requested of EC2, and which kinds of machine it refuses."""

    def __init__(self) -> None:
        self.operations: list[str] = []
        """All requests to AWS by name, in their order."""
        self.requests: list[dict[str, Any]] = []
        self.refusals: dict[tuple[str, str], str] = {}

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """The kinds of machine requested, one for each run of equal requests: Ray tries each zone."""
        kinds = [get_kind(request) for request in self.requests]
        return [kind for kind, before in zip(kinds, [None, *kinds], strict=False) if kind != before]

    def answer(self, client: Any, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return the request with the id of its image, as EC2 reads it. Raises ClientError for what EC2 refuses."""
        self.requests.append(copy.deepcopy(parameters))
        if code := self.refusals.get(get_kind(parameters)):
            raise ClientError({"Error": {"Code": code, "Message": "planned"}}, "RunInstances")
        image = parameters["ImageId"]
        if not image.startswith(SSM_PREFIX):
            return parameters
        keys = client._request_signer._credentials
        caller = {
            "aws_access_key_id": keys.access_key,
            "aws_secret_access_key": keys.secret_key,
            "aws_session_token": keys.token,
        }
        ssm = boto3.client("ssm", REGION, **caller)
        found = ssm.get_parameters(Names=[image.removeprefix(SSM_PREFIX)])["Parameters"]
        return parameters | {"ImageId": found[0]["Value"]}


def get_kind(request: dict[str, Any]) -> tuple[str, str]:
    market = request.get("InstanceMarketOptions", {}).get("MarketType", "on demand")
    return request["InstanceType"], market


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ec2]:
    """An account of AWS with the two parameters, as it is before the first `ray up`."""
    made = Ec2()
    call = BaseClient._make_api_call

    def make_api_call(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        made.operations.append(operation)
        return call(client, operation, made.answer(client, parameters) if operation == "RunInstances" else parameters)

    def list_instance_types(region: str, _: Any) -> Any:  # moto's whole list takes half a minute
        kinds = [node["node_config"]["InstanceType"] for node in FILE["available_node_types"].values()]
        return boto3.client("ec2", region).describe_instance_types(InstanceTypes=kinds)["InstanceTypes"]

    from moto import mock_aws
    from moto.core import DEFAULT_ACCOUNT_ID as ACCOUNT_ID
    from moto.ssm.models import Parameter, ssm_backends

    with pytest.MonkeyPatch.context() as patch, mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # Ray writes the key pair into ~/.ssh
        patch.setattr(aws_config, "time", SimpleNamespace(sleep=lambda _: None))  # it waits for a new role
        patch.setattr(aws_nodes, "list_ec2_instances", list_instance_types)
        patch.setattr(BaseClient, "_make_api_call", make_api_call)
        forget_clients()
        stored = ssm_backends[ACCOUNT_ID][REGION]._parameters
        for name, image in IMAGES.items():
            stored[name].append(Parameter(ACCOUNT_ID, name, image, "String", "", None, None, 0, 1, "aws:ec2:image"))
        yield made
    forget_clients()


def forget_clients() -> None:
    """Make Ray connect again, with the keys of the environment."""
    for cached in (aws_utils.resource_cache, aws_utils.client_cache, aws_config._get_subnets_or_die):
        cached.cache_clear()


@pytest.fixture(scope="module")
def config(account: Ec2) -> dict[str, Any]:
    """cluster.yaml as `ray up` completes it: roles, keys, subnets, security groups and resources."""
    prepared = util.prepare_config(copy.deepcopy(FILE))
    util.validate_config(prepared)
    completed: dict[str, Any] = commands._bootstrap_config(prepared, no_config_cache=True)
    return completed


@pytest.fixture(scope="module")
def head_config(config: dict[str, Any]) -> dict[str, Any]:
    """The file that `ray up` leaves on the head."""
    provider = _get_node_provider(config["provider"], config["cluster_name"], use_cache=False)
    _, file = commands._set_up_config_for_head_node(copy.deepcopy(config), provider, no_restart=False)
    left: dict[str, Any] = json.loads(Path(file.name).read_text())
    return left


@pytest.fixture
def ec2(account: Ec2) -> Iterator[Ec2]:
    account.requests, account.refusals = [], {}
    yield account
    machines = boto3.resource("ec2", REGION).instances
    machines.terminate()


def start(config: dict[str, Any], name: str, count: int = 1) -> tuple[Any, list[Any]]:
    """Start machines of a type as Ray does; return the provider and EC2's description of each machine."""
    provider = _get_node_provider(config["provider"], config["cluster_name"], use_cache=False)
    is_head = name == config["head_node_type"]
    tags = {
        TAG_RAY_NODE_KIND: "head" if is_head else "worker",
        "ray-user-node-type": name,
        "ray-launch-config": "hash",
        "ray-node-name": "name",
        "ray-node-status": "uninitialized",
    }
    node_type = config["available_node_types"][name]
    node_config = config.get("head_node", {}) | node_type["node_config"] if is_head else node_type["node_config"]
    provider.create_node_with_resources_and_labels(node_config, tags, count, node_type["resources"], {})
    nodes = provider.non_terminated_nodes({TAG_RAY_USER_NODE_TYPE: name})
    return provider, [provider.ec2.Instance(node) for node in nodes]


def test_ray_up_completes_the_file_without_changing_the_heads_image(config: dict[str, Any]) -> None:
    head, gpu = (config["available_node_types"][name] for name in ("head", "gpu"))
    assert head["node_config"]["ImageId"].startswith(SSM_PREFIX)  # a new image must not replace a head that has data
    assert gpu["resources"] | {"memory": 0} == {"CPU": 4, "GPU": 1, "accelerator_type:L4": 1, "memory": 0}


def test_head_starts_from_the_parameter_with_imdsv2_tags_and_an_encrypted_disk(
    config: dict[str, Any], ec2: Ec2
) -> None:
    _, (head,) = start(config, "head")
    assert head.image_id == "ami-0000000000000head"
    assert head.iam_instance_profile["Arn"].endswith("ray-autoscaler-v1")
    check_machine(head)


def check_machine(machine: Any) -> None:
    assert machine.metadata_options["HttpTokens"] == "required"
    assert {"Key": "project", "Value": "kdstudy"} in machine.tags
    (disk,) = machine.volumes.all()
    assert disk.encrypted
    assert {"Key": "project", "Value": "kdstudy"} in disk.tags


def test_workers_start_from_the_image_that_ray_up_found(head_config: dict[str, Any], ec2: Ec2) -> None:
    _, (worker,) = start(head_config, "gpu")
    assert worker.image_id == "ami-00000000000000gpu"
    assert ec2.kinds == [SPOT]
    check_machine(worker)


def as_head(act: Callable[[], Any]) -> Any:
    """Return what `act` does under the head's role, with IAM's rights enforced."""
    role = boto3.client("iam").get_role(RoleName="ray-autoscaler-v1")["Role"]["Arn"]
    keys = boto3.client("sts", REGION).assume_role(RoleArn=role, RoleSessionName="head")["Credentials"]
    from moto.core import set_initial_no_auth_action_count

    environment = {
        "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
        "AWS_SESSION_TOKEN": keys["SessionToken"],
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(boto3, "DEFAULT_SESSION", None)
        forget_clients()
        done = set_initial_no_auth_action_count(0)(act)()
    forget_clients()
    return done


def test_the_heads_role_may_start_workers(head_config: dict[str, Any], ec2: Ec2) -> None:
    _, (worker,) = as_head(lambda: start(head_config, "gpu"))
    assert worker.image_id == "ami-00000000000000gpu"


def test_the_heads_role_may_not_read_parameters(config: dict[str, Any], ec2: Ec2) -> None:
    with pytest.raises(NodeLaunchException, match="role/ray-autoscaler-v1/head is not authorized to perform: ssm:GetP"):
        as_head(lambda: start(config, "gpu"))  # as the file says it, not as `ray up` leaves it on the head


@pytest.mark.parametrize(
    ("refused", "requested"),
    [
        ([], [SPOT]),
        ([SPOT], [SPOT, LARGER_SPOT]),
        ([SPOT, LARGER_SPOT], [SPOT, LARGER_SPOT, ON_DEMAND]),
    ],
)
@pytest.mark.parametrize("code", ["InsufficientInstanceCapacity", "MaxSpotInstanceCountExceeded"])
def test_another_machine_is_started_where_one_cannot_be_had(
    head_config: dict[str, Any], ec2: Ec2, refused: list[Any], requested: list[Any], code: str
) -> None:
    ec2.refusals = dict.fromkeys(refused, code)
    _, (worker,) = start(head_config, "gpu")
    assert ec2.kinds == requested
    assert worker.instance_type == requested[-1][0]
    check_machine(worker)
    assert {"Key": "ray-user-node-type", "Value": "gpu"} in worker.tags  # for Ray it is one type


def test_the_heads_autoscaler_takes_the_machine_fallen_back_to_for_its_own(
    head_config: dict[str, Any], ec2: Ec2
) -> None:
    ec2.refusals = dict.fromkeys([SPOT, LARGER_SPOT], "InsufficientInstanceCapacity")
    Path("~/ray_bootstrap_key.pem").expanduser().touch()  # `ray up` leaves it there
    autoscaling = AutoscalingConfig(copy.deepcopy(head_config), skip_content_hash=True)  # prepared and checked again
    provider = _get_node_provider(autoscaling.get_provider_config(), head_config["cluster_name"], use_cache=False)
    reader = SimpleNamespace(get_cached_autoscaling_config=lambda: autoscaling)
    launcher = NodeProviderAdapter(v1_provider=provider, config_reader=reader)
    launcher.launch({"gpu": 1}, "request")
    launcher._main_executor.shutdown()
    launcher._node_launcher_executors.shutdown()
    assert launcher.poll_errors() == []
    (machine,) = launcher.get_non_terminated().values()
    assert (machine.node_type, machine.request_id) == ("gpu", "request")
    assert ec2.kinds == [SPOT, LARGER_SPOT, ON_DEMAND]


def test_the_last_refusal_is_raised(head_config: dict[str, Any], ec2: Ec2) -> None:
    ec2.refusals = dict.fromkeys([SPOT, LARGER_SPOT, ON_DEMAND], "InsufficientInstanceCapacity")
    with pytest.raises(NodeLaunchException):
        start(head_config, "gpu")
    assert ec2.kinds == [SPOT, LARGER_SPOT, ON_DEMAND]


def test_a_wrong_request_is_not_repeated_with_dearer_machines(head_config: dict[str, Any], ec2: Ec2) -> None:
    ec2.refusals = {SPOT: "UnauthorizedOperation"}
    with pytest.raises(NodeLaunchException):
        start(head_config, "gpu")
    assert ec2.kinds == [SPOT]


def test_ray_down_stops_the_head_and_ends_workers_on_demand_too(
    config: dict[str, Any], head_config: dict[str, Any], ec2: Ec2
) -> None:
    _, (head,) = start(config, "head")
    ec2.refusals = dict.fromkeys([SPOT, LARGER_SPOT], "InsufficientInstanceCapacity")
    _, (worker,) = start(head_config, "gpu")
    provider = _get_node_provider(config["provider"], config["cluster_name"], use_cache=False)
    nodes = provider.non_terminated_nodes({})
    assert set(nodes) == {head.id, worker.id}
    ec2.operations.clear()
    provider.terminate_nodes(sorted(nodes, key=lambda node: node != head.id))  # the head is named first
    ends = [operation for operation in ec2.operations if operation in ("TerminateInstances", "StopInstances")]
    assert ends == ["TerminateInstances", "StopInstances"]  # workers first: if the second fails, they no longer cost
    for machine in (head, worker):
        machine.reload()
    assert (head.state["Name"], worker.state["Name"]) == ("stopped", "terminated")
    _, (restarted,) = start(config, "head")  # the next `ray up`
    assert restarted.id == head.id


def test_null_removes_a_field() -> None:
    assert apply_change({"InstanceType": "a", "Market": "spot"}, {"InstanceType": "b", "Market": None}) == {
        "InstanceType": "b"
    }
