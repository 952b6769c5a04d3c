"""The Kubernetes manifests: rendered, validated strictly, held to a policy, and their commands really started."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import kubernetes_validate
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

ROOT = Path(__file__).resolve().parents[2]
OVERLAY = ROOT / "deploy/k8s/overlays/dev"
GOLDEN = Path(__file__).parent / "golden/dev.yaml"
SERVICES = ["console", "ingest", "identity", "audience", "sync"]
COUNTRY_TABLE = ROOT / "deploy/k8s/components/country-table"
COUNTRY_TABLE_GOLDEN = Path(__file__).parent / "golden/country_table.yaml"
VERSIONS = ["1.28", "1.37"]
PORTS = ("HEADRACE_GRPC_PORT", "HEADRACE_METRICS_PORT", "HEADRACE_HTTP_PORT", "HEADRACE_CONSOLE_HTTP_PORT")

MANIFESTS: list[dict[str, Any]] = [m for m in yaml.safe_load_all(GOLDEN.read_text()) if m]
WORKLOADS = [m for m in MANIFESTS if m["kind"] in {"Deployment", "StatefulSet", "Job"}]


def _named(kind: str, name: str) -> dict[str, Any]:
    return next(m for m in MANIFESTS if m["kind"] == kind and m["metadata"]["name"] == name)


def _containers(workload: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(workload["spec"]["template"]["spec"]["containers"])


@pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl renders overlays; without it the snapshot is checked"
)
def test_the_snapshot_is_what_the_overlay_renders() -> None:
    rendered = subprocess.run(["kubectl", "kustomize", str(OVERLAY)], check=True, capture_output=True, text=True).stdout
    assert rendered == GOLDEN.read_text(), (
        "run: kubectl kustomize deploy/k8s/overlays/dev > tests/manifests/golden/dev.yaml"
    )


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda m: f"{m['kind']}-{m['metadata']['name']}")
def test_each_manifest_is_valid(manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w["metadata"]["name"])
def test_pods_meet_the_restricted_security_standard(workload: dict[str, Any]) -> None:
    pod = workload["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False, "links are HEADRACE_* variables, which `serve` refuses as unknown"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in _containers(workload):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]
        assert "cpu" not in container["resources"]["limits"], "a CPU limit throttles a service that has work"


@pytest.mark.parametrize("service", SERVICES)
def test_services_probe_drain_and_survive_evictions(service: str) -> None:
    deployment = _named("Deployment", f"headrace-{service}")
    (container,) = _containers(deployment)
    assert container["command"] == ["headrace", "serve", service]
    assert container["readinessProbe"]["grpc"] == {"port": 8090, "service": "readiness"}
    assert container["livenessProbe"]["grpc"] == {"port": 8090, "service": "liveness"}
    drain = float(_named("ConfigMap", "headrace")["data"]["HEADRACE_DRAIN_SECONDS"])
    pause = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > drain + pause
    assert _named("PodDisruptionBudget", f"headrace-{service}")["spec"]["minAvailable"] == 1
    assert _named("Service", f"headrace-{service}")["spec"]["clusterIP"] == "None"


def test_the_archive_outlives_pods() -> None:
    """MongoDB says which files are valid, so they must be there for the next pod and for every replica."""
    deployment = _named("Deployment", "headrace-audience")
    folder = _named("ConfigMap", "headrace-audience")["data"]["HEADRACE_ARCHIVE_DIR"]
    (mount,) = [m for m in _containers(deployment)[0]["volumeMounts"] if m["mountPath"] == folder]
    (volume,) = [v for v in deployment["spec"]["template"]["spec"]["volumes"] if v["name"] == mount["name"]]
    claim = _named("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"] and deployment["spec"]["replicas"] == 1
    base = yaml.safe_load((ROOT / "deploy/k8s/base/audience/archive-claim.yaml").read_text())
    assert base["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl renders components; without it the snapshot is checked"
)
def test_the_snapshot_is_what_the_component_of_the_country_table_renders(tmp_path: Path) -> None:
    overlay = {
        "resources": [os.path.relpath(ROOT / "deploy/k8s/base/ingest", tmp_path.resolve())],
        "components": [os.path.relpath(COUNTRY_TABLE, tmp_path.resolve())],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    command = ["kubectl", "kustomize", str(tmp_path)]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert rendered == COUNTRY_TABLE_GOLDEN.read_text()


def test_the_country_table_is_read_from_a_folder_that_others_write() -> None:
    manifests = [m for m in yaml.safe_load_all(COUNTRY_TABLE_GOLDEN.read_text()) if m]
    for manifest in manifests:
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)
    (deployment,) = [m for m in manifests if m["kind"] == "Deployment"]
    (claim,) = [m for m in manifests if m["kind"] == "PersistentVolumeClaim"]
    (container,) = _containers(deployment)
    (table,) = [v["value"] for v in container["env"] if v["name"] == "HEADRACE_COUNTRY_TABLE"]
    (mount,) = [m for m in container["volumeMounts"] if m["mountPath"] == str(Path(table).parent)]
    assert mount["readOnly"] is True and "subPath" not in mount, "a replaced file would stay the old one"
    (volume,) = [v for v in deployment["spec"]["template"]["spec"]["volumes"] if v["name"] == mount["name"]]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert {"HEADRACE_HTTP_PORT", "POD_NAME"} <= {v["name"] for v in container["env"]}, "the others stay"


def rendered_environment(container: Mapping[str, Any]) -> dict[str, str]:
    """A container's environment as the kubelet makes it."""
    environment: dict[str, str] = {}
    for reference in container.get("envFrom", []):
        if "configMapRef" in reference:
            environment |= _named("ConfigMap", reference["configMapRef"]["name"])["data"]
        else:
            environment |= _secret(reference["secretRef"]["name"])
    for variable in container.get("env", []):
        source = variable.get("valueFrom", {})
        if "configMapKeyRef" in source:
            key = source["configMapKeyRef"]
            environment[variable["name"]] = _named("ConfigMap", key["name"])["data"][key["key"]]
        elif "fieldRef" in source:
            environment[variable["name"]] = "pod-0"
        else:
            environment[variable["name"]] = variable["value"].replace("$(POD_NAME)", environment.get("POD_NAME", ""))
    return environment


def _secret(name: str) -> dict[str, str]:
    import base64

    return {k: base64.b64decode(v).decode() for k, v in _named("Secret", name)["data"].items()}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def local_environment(settings_env: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """What differs on this machine from a cluster: where the stores are, and a folder that may be written."""
    stores = ("HEADRACE_MONGO_URL", "HEADRACE_MONGO_DATABASE", "HEADRACE_REDIS_URL")
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "HEADRACE_ARCHIVE_DIR": str(tmp_path / "archive"),
        **{name: settings_env[name] for name in stores},
    }


def test_the_index_job_runs_twice(local_environment: dict[str, str]) -> None:
    (container,) = _containers(_named("Job", "headrace-indexes"))
    environment = rendered_environment(container) | local_environment
    environment.pop("HEADRACE_ARCHIVE_DIR")
    for _ in range(2):
        done = subprocess.run(
            container["command"], check=False, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_each_command_serves_and_drains_in_its_rendered_environment(
    service: str, local_environment: dict[str, str], tmp_path: Path
) -> None:
    (container,) = _containers(_named("Deployment", f"headrace-{service}"))
    environment = rendered_environment(container)
    archive = local_environment.pop("HEADRACE_ARCHIVE_DIR")
    if "HEADRACE_ARCHIVE_DIR" in environment:
        environment["HEADRACE_ARCHIVE_DIR"] = archive
    environment |= local_environment
    environment |= {name: str(_free_port()) for name in PORTS if name in environment}
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(container["command"], env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        probe = container["readinessProbe"]["grpc"]["service"]
        assert _serving(int(environment["HEADRACE_GRPC_PORT"]), probe, process), (tmp_path / "log").read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=40) == 0, (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait()


def _serving(port: int, service: str, process: subprocess.Popen[bytes]) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            try:
                answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=2)
            except grpc.RpcError:
                answer = None
            if answer is not None and answer.status == health_pb2.HealthCheckResponse.SERVING:
                return True
            time.sleep(0.2)
    return False
