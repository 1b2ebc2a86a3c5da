"""docs/kuberay.yaml, checked without a cluster: KubeRay's fields, and that its parts agree with each other.

FIELDS lists by hand those of KubeRay's API (ray.io/v1) that a RayJob may have; the fields of pods are Kubernetes' own.
With KUBERAY_CRD, the path of KubeRay's ray.io_rayjobs.yaml, the whole file is checked against the operator's schema.
"""

from __future__ import annotations

import copy
import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from study.cluster.allocation import Node, list_addable_nodes

ROOT = Path(__file__).parent.parent
JOB, LIMITS = yaml.safe_load_all((ROOT / "docs" / "kuberay.yaml").read_text(encoding="utf-8"))
(VOLUME,) = yaml.safe_load_all((ROOT / "docs" / "kuberay-volume.yaml").read_text(encoding="utf-8"))
CLUSTER = JOB["spec"]["rayClusterSpec"]
GROUPS = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]

FIELDS = {
    "RayJobSpec": (
        "activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint entrypointNumCpus "
        "entrypointNumGpus entrypointResources jobId managedBy metadata preRunningDeadlineSeconds rayClusterSpec "
        "runtimeEnvYAML shutdownAfterJobFinishes submissionMode submitterConfig submitterPodTemplate suspend "
        "ttlSecondsAfterFinished"
    ),
    "RayClusterSpec": (
        "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec "
        "headServiceAnnotations historyServerOptions managedBy networkPolicy rayVersion suspend tlsOptions "
        "upgradeStrategy workerGroupSpecs"
    ),
    "AuthOptions": "enableK8sTokenAuth mode secretName",
    "AutoscalerOptions": (
        "args command env envFrom idleTimeoutSeconds image imagePullPolicy resources securityContext upscalingMode "
        "version volumeMounts"
    ),
    "HeadGroupSpec": "enableIngress headService ingressOptions labels rayStartParams resources serviceType template",
    "WorkerGroupSpec": (
        "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts priority rayStartParams replicas "
        "resources scaleStrategy suspend template"
    ),
}
"""Of KubeRay 1.7.0."""


def list_unknown(kind: str, value: dict[str, Any]) -> set[str]:
    return set(value) - set(FIELDS[kind].split())


def test_kuberay_knows_each_field() -> None:
    assert (JOB["apiVersion"], JOB["kind"]) == ("ray.io/v1", "RayJob")
    assert list_unknown("RayJobSpec", JOB["spec"]) == set()
    assert list_unknown("RayClusterSpec", CLUSTER) == set()
    assert list_unknown("AuthOptions", CLUSTER["authOptions"]) == set()
    assert list_unknown("AutoscalerOptions", CLUSTER["autoscalerOptions"]) == set()
    assert list_unknown("HeadGroupSpec", CLUSTER["headGroupSpec"]) == set()
    for group in CLUSTER["workerGroupSpecs"]:
        assert list_unknown("WorkerGroupSpec", group) == set()
    assert list_unknown("RayJobSpec", {"shutdownAfterJobFinish": True}) == {"shutdownAfterJobFinish"}


def test_operators_own_schema_accepts_the_job() -> None:
    if not (path := os.environ.get("KUBERAY_CRD")):
        pytest.skip("set KUBERAY_CRD to KubeRay's ray-operator/config/crd/bases/ray.io_rayjobs.yaml")
    versions = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)["spec"]["versions"]
    (schema,) = [version["schema"]["openAPIV3Schema"] for version in versions if version["name"] == "v1"]
    close(schema)
    schema["properties"]["metadata"] = {"type": "object"}
    jsonschema.validate(JOB, schema)
    slip = copy.deepcopy(JOB)
    slip["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(jsonschema.ValidationError, match="volumeMount"):
        jsonschema.validate(slip, schema)


def close(schema: Any) -> None:
    """Refuse unknown fields, as `kubectl apply` does, and take integers or strings where Kubernetes does."""
    for part in schema if isinstance(schema, list) else schema.values():
        if isinstance(part, dict | list):
            close(part)
    if isinstance(schema, dict):
        if "properties" in schema and schema.get("type") == "object":
            schema.setdefault("additionalProperties", False)
        if schema.get("x-kubernetes-int-or-string"):
            schema.pop("type", None)


def test_cluster_ends_with_the_study_and_is_closed_to_strangers() -> None:
    assert JOB["spec"]["shutdownAfterJobFinishes"] is True
    assert JOB["spec"]["backoffLimit"] == 0
    assert CLUSTER["authOptions"]["mode"] == "token"
    assert (CLUSTER["enableInTreeAutoscaling"], CLUSTER["autoscalerOptions"]["version"]) == (True, "v2")


def test_all_pods_have_the_volume_and_shared_memory() -> None:
    for group in GROUPS:
        pod = group["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert volumes[mounts["/shared"]]["persistentVolumeClaim"]["claimName"] == VOLUME["metadata"]["name"]
        assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
        assert set(mounts.values()) == set(volumes)
    assert VOLUME["spec"]["accessModes"] == ["ReadWriteMany"]
    assert VOLUME not in (JOB, LIMITS)  # deleting the cluster's file must leave the results


def test_configmap_gives_the_size_to_which_the_cluster_may_grow(tmp_path: Path) -> None:
    mounts = GROUPS[0]["template"]["spec"]["containers"][0]["volumeMounts"]
    (mount,) = [mount for mount in mounts if mount["name"] == "limits"]
    assert mount["mountPath"] == "/home/ray/ray_bootstrap_config.yaml"
    file = tmp_path / "file"
    file.write_text(LIMITS["data"][mount["subPath"]])
    (group,) = CLUSTER["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    each = Node(int(limits["cpu"]), int(limits["nvidia.com/gpu"]))
    assert list_addable_nodes({"headgroup": 1}, file) == [each] * group["maxReplicas"]
    assert list_addable_nodes({"headgroup": 1, group["groupName"]: 3}, file) == [each] * (group["maxReplicas"] - 3)
    assert json.loads(file.read_text())["max_workers"] == group["maxReplicas"]


def test_entrypoint_is_a_command_of_a_file_in_the_image() -> None:
    from study.cli.run import main

    words = JOB["spec"]["entrypoint"].split()
    assert words[:3] == ["python", "-m", "study.run"]
    options = main.make_context("run", words[3:]).params
    assert options["storage_path"].startswith("/shared/")
    inside = Path(options["space"]).relative_to("/home/ray/kdstudy")
    assert (ROOT / inside).is_file()
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^COPY --chown=ray \. kdstudy$", dockerfile, flags=re.M)  # the base image starts in /home/ray


def test_image_takes_what_the_package_needs_and_leaves_studies_and_data() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {"/runs", "/data", ".git"} <= set(ignored)
    assert not {"study", "trainables", "reports", "spaces", "pyproject.toml", "README.md"} & set(ignored)
