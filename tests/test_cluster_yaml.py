"""cluster.yaml, docs/on-premises.yaml and docs/gcp.yaml, checked without a cloud; docs/cluster.md's commands exist.

tests/study/cluster/test_ec2_provider.py starts cluster.yaml's machines, tests/test_kuberay.py checks docs/kuberay.yaml.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import ray
import yaml
from packaging.version import Version
from ray.autoscaler._private.command_runner import SSHCommandRunner
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parent.parent
AWS = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
LOCAL = yaml.safe_load((ROOT / "docs" / "on-premises.yaml").read_text(encoding="utf-8"))
GCP = yaml.safe_load((ROOT / "docs" / "gcp.yaml").read_text(encoding="utf-8"))
DOC = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
SLURM = (ROOT / "docs" / "slurm.sh").read_text(encoding="utf-8")
PACKAGES = ("study", "trainables", "reports", "spaces")
FILES = pytest.mark.parametrize("config", [AWS, LOCAL, GCP], ids=["cluster.yaml", "on-premises.yaml", "gcp.yaml"])


def commands(config: dict[str, Any]) -> list[str]:
    return [command for name, commands in config.items() if name.endswith("_commands") for command in commands]


def list_faults(node_config: dict[str, Any]) -> list[str]:
    """What EC2 would refuse of a machine type: names it does not know, wrong types, options it does not have."""
    pytest.importorskip("botocore")
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    shape = get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    given = {"MinCount": 1, "MaxCount": 1} | node_config  # Ray adds these two
    report = ParamValidator().validate(given, shape).generate_report()
    return [*report.splitlines(), *_not_among_options(given, shape, "")]


def _not_among_options(value: Any, shape: Any, name: str) -> Iterator[str]:
    """Botocore leaves this to the service."""
    if isinstance(value, dict):
        for key in value.keys() & getattr(shape, "members", {}).keys():
            yield from _not_among_options(value[key], shape.members[key], f"{name}.{key}")
    elif isinstance(value, list):
        for each in value:
            yield from _not_among_options(each, shape.member, name)
    elif (options := getattr(shape, "enum", None)) and value not in options:
        yield f"{name}: {value!r} is none of its {len(options)} options"


@FILES
def test_ray_accepts_the_file(config: dict[str, Any]) -> None:
    validate_config(prepare_config(copy.deepcopy(config)))


def test_ray_refuses_a_misspelt_field() -> None:
    with pytest.raises(Exception, match="max_worker"):
        validate_config(prepare_config({**copy.deepcopy(AWS), "max_worker": 4}))


@pytest.mark.parametrize("name", AWS["available_node_types"])
def test_ec2_accepts_each_machine_type(name: str) -> None:
    assert list_faults(AWS["available_node_types"][name]["node_config"]) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda node: node.update(InstanceTyp="g6.xlarge"), "InstanceTyp"),
        (lambda node: node.update(InstanceType="g6.xlarg"), "g6.xlarg"),
        (lambda node: node["BlockDeviceMappings"][0].update(Device="/dev/sda1"), "Device"),
        (lambda node: node["BlockDeviceMappings"][0]["Ebs"].update(VolumeSize="150 GB"), "VolumeSize"),
        (lambda node: node["InstanceMarketOptions"].update(MarketType="spott"), "spott"),
        (lambda node: node["MetadataOptions"].update(HttpTokens="demanded"), "demanded"),
    ],
    ids=["field", "machine", "field of a disk", "type", "option", "option of the metadata"],
)
def test_a_planted_slip_in_a_machine_type_is_found(change: Callable[[dict[str, Any]], None], message: str) -> None:
    node = copy.deepcopy(AWS["available_node_types"]["gpu"]["node_config"])
    change(node)
    (wrong,) = [line for line in list_faults(node) if not line.startswith("Parameter validation")]
    assert message in wrong


def test_head_is_on_demand_without_trials_and_workers_are_spot_machines_within_limits() -> None:
    types = AWS["available_node_types"]
    head, gpu = types[AWS["head_node_type"]], types["gpu"]
    assert "InstanceMarketOptions" not in head["node_config"]
    assert head["resources"] == {"CPU": 0}
    assert gpu["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert 0 == gpu["min_workers"] < gpu["max_workers"] == AWS["max_workers"]


def test_ec2_accepts_the_machines_to_fall_back_to() -> None:
    pytest.importorskip("boto3")
    from study.cluster.ec2_provider import apply_change

    for name, changes in AWS["provider"]["fallbacks"].items():
        node_config = AWS["available_node_types"][name]["node_config"]
        for change in changes:
            node_config = apply_change(node_config, change)
            assert list_faults(node_config) == []
        assert "InstanceMarketOptions" not in node_config  # at last, on demand


def test_images_are_parameters_of_aws_and_nothing_is_to_be_filled_in() -> None:
    for node in AWS["available_node_types"].values():
        assert re.fullmatch(r"resolve:ssm:/aws/service/[\w./-]+/ami-id", node["node_config"]["ImageId"])
    text = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
    assert not re.search(r"# change\b|ami-[A-Z]+|BUCKET|ACCOUNT", text)


@pytest.mark.parametrize("config", [AWS, GCP], ids=["cluster.yaml", "gcp.yaml"])
def test_ray_is_the_one_these_tests_run_with(config: dict[str, Any]) -> None:
    (pin,) = {match for command in commands(config) for match in re.findall(r"\bray==([\d.]+)", command)}
    assert Version(pin).release[:2] == Version(ray.__version__).release[:2]
    for file in (
        ROOT / "Dockerfile",
        ROOT / "docs" / "kuberay.yaml",
        ROOT / "docs" / "gcp.yaml",
        ROOT / "cluster.yaml",
    ):
        assert set(re.findall(r"(?:ray==|RAY_VERSION=|rayVersion: )([\d.]+)", file.read_text(encoding="utf-8"))) == {
            pin
        }


def test_google_cloud_gets_the_commands_of_aws() -> None:
    def without_sdk(lines: list[str]) -> list[str]:
        return [line.replace("google-api-python-client", "boto3") for line in lines]

    for name, lines in AWS.items():
        if name.endswith("_commands"):
            # a head of Google Cloud that stops itself would be left behind by the next `ray up`
            assert without_sdk(GCP[name]) == [line for line in lines if "idle_head" not in line]


def test_compute_engine_knows_each_field_of_a_machine_type() -> None:
    documents = pytest.importorskip("googleapiclient.discovery_cache.documents", reason="no API description of Google")
    (path,) = Path(documents.__path__[0]).glob("compute.v1.json")
    schemas = json.loads(path.read_text(encoding="utf-8"))["schemas"]
    for node in GCP["available_node_types"].values():
        assert list(_not_in_api(node["node_config"], schemas["Instance"], schemas)) == []
    assert list(_not_in_api({"scheduling": {"provisioningModel": "SPOTT"}}, schemas["Instance"], schemas))
    assert list(_not_in_api({"disks": [{"bot": True}]}, schemas["Instance"], schemas))


def _not_in_api(value: Any, schema: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    schema = schemas.get(schema.get("$ref", ""), schema)
    if isinstance(value, dict):
        for name, item in value.items():
            known = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            yield from [name] if known is None else _not_in_api(item, known, schemas)
    elif isinstance(value, list):
        for item in value:
            yield from _not_in_api(item, schema["items"], schemas)
    elif value not in schema.get("enum", [value]):
        yield f"{value!r} is none of {schema['enum']}"


@FILES
def test_every_node_has_the_token_and_starts_ray_in_token_mode(config: dict[str, Any]) -> None:
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in config["setup_commands"]
    starts = [command for command in commands(config) if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token ray start" in command for command in starts)
    assert any("RAY_AUTH_MODE=token" in command and ".bashrc" in command for command in config["setup_commands"])


def test_what_is_started_on_test_hosts_is_what_is_started_on_aws() -> None:
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert AWS[name] == LOCAL[name]  # tests/study/cluster/test_ray_up.py runs the latter
        assert GCP[name] == LOCAL[name]


@FILES
def test_the_dashboard_is_not_opened_to_the_network(config: dict[str, Any]) -> None:
    assert not [command for command in commands(config) if "--dashboard-host" in command]


def test_no_port_but_ssh_is_open_to_the_world() -> None:
    pytest.importorskip("boto3")
    from ray.autoscaler._private.aws.config import _create_default_inbound_rules

    others = {"SecurityGroupIds", "SecurityGroups", "NetworkInterfaces", "LaunchTemplate"}
    for node in AWS["available_node_types"].values():  # Ray makes the security group, and nobody else
        assert not others & set(node["node_config"])
    ours = AWS["provider"].get("security_group", {}).get("IpPermissions", [])
    rules = _create_default_inbound_rules({"the cluster's"}, ours)
    world = [rule for rule in rules if rule.get("IpRanges") or rule.get("Ipv6Ranges")]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in world] == [(22, 22)]


@FILES
def test_commands_are_shell(config: dict[str, Any]) -> None:
    for command in commands(config):
        subprocess.run(["bash", "-n"], input=command, text=True, check=True)


def test_cron_looks_at_the_head_once_however_often_it_is_set_up(tmp_path: Path) -> None:
    from study.cluster.idle_head import main

    (command,) = [command for command in AWS["head_setup_commands"] if "idle_head" in command]
    table, crontab = tmp_path / "table", tmp_path / "crontab"
    crontab.write_text(f'#!/bin/sh\n[ "$1" = -l ] && exec cat {table}\ncat > {table}.new && mv {table}.new {table}\n')
    crontab.chmod(0o755)
    for _ in range(2):
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        subprocess.run(["bash", "-c", command], check=True, env=environment)
    (line,) = table.read_text().splitlines()
    assert line.startswith("*/5 * * * * RAY_AUTH_MODE=token ~/kdstudy-env/bin/python -m study.cluster.idle_head ")
    main.make_context("idle_head", shlex.split(line.partition("idle_head ")[2]))


class Machine:
    """A machine that Ray copies to and from by its own command runner; `ssh` runs rsync here instead."""

    def __init__(self, folder: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
        ssh = folder / "bin" / "ssh"
        ssh.parent.mkdir()
        ssh.write_text('#!/bin/sh\nwhile [ "$1" != rsync ]; do shift; done\nexec "$@"\n')
        ssh.chmod(0o755)
        monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
        self._options = {name: config.get(name) for name in ("rsync_exclude", "rsync_filter")}
        provider = SimpleNamespace(internal_ip=lambda _: "10.0.0.1", external_ip=lambda _: "10.0.0.1")
        self._runner = SSHCommandRunner("", "head", provider, {"ssh_user": "user"}, "kdstudy", subprocess, False)

    def copy_up(self, source: Path, target: Path) -> set[str]:
        """Copy as `ray up` copies a folder; return the files that arrived."""
        self._runner.run_rsync_up(f"{source}/", f"{target}/", self._options)
        return list_files(target)

    def copy_down(self, source: Path, target: Path) -> set[str]:
        """Copy as `ray rsync-down` copies a folder; return the files that arrived."""
        self._runner.run_rsync_down(f"{source}/", f"{target}/", self._options)
        return list_files(target)


def list_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def write_files(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


NOT_COPIED = {"runs/a/study.json", "data/train.bin", "fetched/a/study.json", ".venv/bin/python", ".mypy_cache/a",
              "study/__pycache__/study.pyc"}  # fmt: skip


@pytest.fixture(params=[AWS, LOCAL, GCP], ids=["cluster.yaml", "on-premises.yaml", "gcp.yaml"])
def machine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    if shutil.which("rsync") is None:
        pytest.skip("no rsync")
    return Machine(tmp_path, request.param, monkeypatch)


def test_all_code_is_copied_and_neither_studies_nor_data(machine: Machine, tmp_path: Path) -> None:
    checkout, head = tmp_path / "checkout", tmp_path / "head"
    code = {str(path.relative_to(ROOT)) for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    write_files(checkout, [*code, *NOT_COPIED])
    shutil.copy(ROOT / ".rayignore", checkout)
    assert machine.copy_up(checkout, head) == {*code, ".rayignore"}
    assert "trainables/data/cifar.py" in code
    assert machine.copy_up(head, tmp_path / "worker") == {*code, ".rayignore"}  # which the head starts


@pytest.mark.parametrize("study", ["lp_cifar", "data", "runs", "fetched"])
def test_results_are_fetched_whatever_a_study_is_named(machine: Machine, tmp_path: Path, study: str) -> None:
    results = {f"runs/{study}/study.json", f"runs/{study}/trials/rows.parquet", "runs/teachers/a.safetensors"}
    write_files(tmp_path / "shared", results)
    assert machine.copy_down(tmp_path / "shared", tmp_path / "here") == results
    below = {name.removeprefix("runs/") for name in results}
    assert machine.copy_down(tmp_path / "shared" / "runs", tmp_path / "laptop") == below


def documented(start: str) -> list[list[str]]:
    """The words of all commands that begin so in docs/cluster.md and the files' heads, without what follows them."""
    blocks = re.findall(r"```\w*\n(.*?)```", DOC, flags=re.S)
    text = "\n".join([*blocks, SLURM]).replace("\\\n", " ")
    files = [ROOT / "cluster.yaml", ROOT / "docs" / "gcp.yaml"]
    heads = [file.read_text(encoding="utf-8") for file in files]
    head = [line for text in heads for line in re.findall(r"^#   (.+?)(?:  +[^ ].*)?$", text, flags=re.M)]
    lines = [line.strip() for line in [*text.splitlines(), *head]]
    found = [shlex.split(line, comments=True) for line in lines if line.startswith(start)]
    ends = {">", "&", "&&"}
    return [words[: next((at for at, word in enumerate(words) if word in ends), None)] for words in found]


def test_documented_study_commands_are_understood() -> None:
    from study.cli import main, run

    on_head = [shlex.split(words[-1].split(" && ")[-1]) for words in documented("ray exec") if "python" in words[-1]]
    lines = [words[2:] for words in [*documented("python -m study"), *on_head, *documented("exec python")]]
    assert on_head
    assert len(lines) >= 6
    for words in lines:
        words = words[words.index("-m") + 1 :] if "-m" in words else words
        parse(run.main if words[0] == "study.run" else main.main, words)


def test_documented_ray_commands_are_understood() -> None:
    from ray.scripts.scripts import cli

    lines = documented("ray ")
    assert {"up", "down", "exec", "dashboard", "rsync-down", "get-auth-token"} <= {words[1] for words in lines}
    for words in lines:
        parse(cli, words)


def parse(command: click.Command, words: list[str]) -> None:
    """Raises for a command or an option that does not exist."""
    if isinstance(command, click.Group):
        parse(command.commands[words[1]], words[1:])
    else:
        command.make_context(words[0], words[1:])


def test_slurm_script_is_shell_with_slurms_options_first() -> None:
    assert SLURM.startswith("#!/bin/bash\n#")
    code = [line for line in SLURM.splitlines() if not line.startswith("# ")]
    assert [line.startswith("#") for line in code[:3]] == [
        True,
        True,
        True,
    ]  # sbatch reads them up to the first command
    assert not any(line.startswith("#SBATCH") for line in code[3:])
    subprocess.run(["bash", "-n"], input=SLURM, text=True, check=True)
