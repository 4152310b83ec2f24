"""The artefacts in `deploy/`, each checked by the program that would read it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from gateway.config.load import load_text
from tests.acceptance.operate.tools import DEPLOY, ROOT, output, program
from tests.gateway_process import KT

CHART = DEPLOY / "helm" / "keeptrusts-gateway"
KUBERNETES = "1.30"
OPERATOR_KINDS = {"ServiceMonitor", "PrometheusRule"}
"""Of the Prometheus operator, not of Kubernetes: no schema of theirs is at hand."""
EVERYTHING = (
    "store.existingSecret=keeptrusts-store",
    "redis.existingSecret=keeptrusts-redis",
    "envFromSecrets={provider-keys}",
    "ingress.enabled=true",
    "ingress.tlsSecret=gateway-tls",
    "autoscaling.enabled=true",
    "monitoring.serviceMonitor=true",
    "monitoring.rules=true",
    "monitoring.dashboard=true",
    "persistence.storageClass=fast",
    "serviceAccount.annotations.eks\\.amazonaws\\.com/role-arn=arn:aws:iam::1:role/gateway",
)


# Helm


@pytest.fixture(scope="module")
def helm() -> str:
    return program("helm", "make deploy-tools")


def rendered(helm: str, *settings: str) -> list[dict[str, Any]]:
    sets = [part for setting in settings for part in ("--set", setting)]
    done = subprocess.run(
        [helm, "template", "gw", str(CHART), "--kube-version", f"{KUBERNETES}.0", *sets],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def of_kind(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def test_the_chart_passes_lint(helm: str) -> None:
    output(helm, "lint", "--strict", CHART, "--set", "store.existingSecret=keeptrusts-store")


@pytest.mark.parametrize("settings", [("replicaCount=1",), EVERYTHING], ids=["one", "everything"])
def test_what_the_chart_renders_is_what_kubernetes_takes(helm: str, settings: tuple[str, ...]) -> None:
    documents = rendered(helm, *settings)
    for document in documents:
        if document["kind"] not in OPERATOR_KINDS:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
    names = [(document["kind"], document["metadata"]["name"]) for document in documents]
    assert len(names) == len(set(names))
    assert {"StatefulSet", "Service", "ConfigMap"} <= {kind for kind, _ in names}


def test_selectors_find_what_they_mean(helm: str) -> None:
    documents = rendered(helm, *EVERYTHING)
    pods = of_kind(documents, "StatefulSet")["spec"]
    labels = pods["template"]["metadata"]["labels"]
    services = [document for document in documents if document["kind"] == "Service"]
    for selector in (pods["selector"]["matchLabels"], *(service["spec"]["selector"] for service in services)):
        assert selector.items() <= labels.items()
    wanted = of_kind(documents, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert len([service for service in services if wanted.items() <= service["metadata"]["labels"].items()]) == 1


def test_the_pods_are_confined_and_have_time_to_drain(helm: str) -> None:
    pod = of_kind(rendered(helm, "replicaCount=1", "drainSeconds=60"), "StatefulSet")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["terminationGracePeriodSeconds"] == 60 + 20
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"/etc/keeptrusts", "/var/lib/keeptrusts", "/tmp"}


def test_the_variables_are_those_that_the_gateway_reads(helm: str) -> None:
    (container,) = of_kind(rendered(helm, *EVERYTHING), "StatefulSet")["spec"]["template"]["spec"]["containers"]
    variables = {one["name"]: one["valueFrom"]["secretKeyRef"]["name"] for one in container["env"]}
    assert variables == {"KT_STORE_URL": "keeptrusts-store", "REDIS_URL": "keeptrusts-redis"}


def test_the_container_is_started_as_the_command_line_takes_it(helm: str) -> None:
    (container,) = of_kind(rendered(helm, "replicaCount=1"), "StatefulSet")["spec"]["template"]["spec"]["containers"]
    options = [argument for argument in container["args"] if argument.startswith("--")]
    said = output(KT, *container["args"][:2], "--help")
    assert all(option in said for option in options)


def test_the_default_configuration_loads(helm: str) -> None:
    config = of_kind(rendered(helm, "replicaCount=1"), "ConfigMap")
    for name, text in config["data"].items():
        assert load_text(text, name).configuration.gateway.drain_seconds == 30


def test_several_gateways_without_a_common_store_are_refused(helm: str) -> None:
    said = output(helm, "template", "gw", CHART, "--kube-version", f"{KUBERNETES}.0", fails=True)
    assert "Several gateways need one store" in said


def test_a_value_that_does_not_exist_is_refused(helm: str) -> None:
    said = output(
        *(helm, "template", "gw", CHART, "--kube-version", f"{KUBERNETES}.0"),
        *("--set", "replicaCount=1", "--set", "replicas=3"),
        fails=True,
    )
    assert "replicas" in said


def test_rules_and_dashboard_are_those_of_the_repository(helm: str) -> None:
    documents = rendered(helm, *EVERYTHING)
    groups = of_kind(documents, "PrometheusRule")["spec"]["groups"]
    files = [yaml.safe_load((DEPLOY / "prometheus" / name).read_text()) for name in ("rules.yaml", "alerts.yaml")]
    assert groups == [group for file in files for group in file["groups"]]
    (board,) = [document for document in documents if document["metadata"]["name"].endswith("-dashboard")]
    (text,) = board["data"].values()
    assert json.loads(text) == json.loads((DEPLOY / "grafana" / "keeptrusts-gateway.json").read_text())


# Compose


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The Compose file as the reference implementation reads it, which checks it by the specification's schema."""
    parser = program("compose-parse", "make deploy-tools")
    said = output(parser, "-no-interpolation", "-format", "json", "compose.yaml", folder=DEPLOY / "compose")
    return json.loads(said)  # type: ignore[no-any-return]


def test_the_compose_file_has_what_a_gateway_needs(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {"gateway", "postgres", "redis", "prometheus", "grafana"}
    needs = services["gateway"]["depends_on"]
    assert {name for name, how in needs.items() if how["condition"] == "service_healthy"} == {"postgres", "redis"}
    for name in needs:
        assert services[name]["healthcheck"]["test"]


def test_everything_that_is_mounted_is_there(compose: dict[str, Any]) -> None:
    mounted = [
        Path(volume["source"])
        for service in compose["services"].values()
        for volume in service.get("volumes", ())
        if volume["type"] == "bind"
    ]
    assert len(mounted) >= 4
    for path in mounted:
        assert path.exists(), path
    assert Path(compose["services"]["gateway"]["build"]["context"]) == ROOT


def test_only_the_gateway_can_be_reached_from_elsewhere(compose: dict[str, Any]) -> None:
    open_ = {
        name
        for name, service in compose["services"].items()
        for port in service.get("ports", ())
        if port.get("host_ip") != "127.0.0.1"
    }
    assert open_ == {"gateway"}


def test_every_variable_is_in_the_example_and_none_has_a_value_there() -> None:
    text = (DEPLOY / "compose" / "compose.yaml").read_text()
    wanted = {part.partition(":")[0].partition("}")[0] for part in text.split("${")[1:]}
    example = (DEPLOY / "compose" / ".env.example").read_text()
    lines = [line for line in example.splitlines() if line and not line.startswith("#")]
    assert {line.rstrip("=") for line in lines} == wanted


def test_its_configuration_loads() -> None:
    text = (DEPLOY / "compose" / "policy-config.yaml").read_text()
    assert load_text(text, "policy-config.yaml").id == "compose"


# systemd

UNIT = DEPLOY / "systemd" / "keeptrusts-gateway.service"


def test_the_unit_is_what_systemd_takes(tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "make setup-system")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/keeptrusts/bin/kt", KT))
    said = output(analyze, "verify", unit)
    assert UNIT.name not in said, said


def test_the_unit_exposes_little() -> None:
    analyze = program("systemd-analyze", "make setup-system")
    # systemd's own scale in tenths: 0 is nothing, 50 its "medium", 96 an ordinary unit.
    output(analyze, "security", "--offline=yes", "--threshold=20", "--no-pager", UNIT)


def test_the_unit_waits_longer_than_the_gateway_drains() -> None:
    lines = dict(line.split("=", 1) for line in UNIT.read_text().splitlines() if "=" in line and line[0] not in "#[")
    default = load_text((DEPLOY / "compose" / "policy-config.yaml").read_text(), "c").configuration.gateway
    assert int(lines["TimeoutStopSec"]) > default.drain_seconds + 10
    command = lines["ExecStart"].split()
    assert all(option in output(KT, "gateway", "run", "--help") for option in command if option.startswith("--"))
