"""What brings nablad up on machines, Ray clusters and Kubernetes: valid, strictly, and agreeing with the program.

The definitions of KubeRay's and the Prometheus operator's kinds are looked for in the folder that NABLAD_CRDS names.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml

from nablad.cli import main as nabla
from service.daemon.cli import main as nablad
from service.daemon.settings import DaemonSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PAGES = [*(ROOT / "docs" / "deploy").glob("*.md"), *(ROOT / "docs" / "decisions").glob("*.md")]
DOCS = sorted([*PAGES, ROOT / "docs" / "operations.md", DEPLOY / "README.md"])
EXAMPLE = DEPLOY / "kubernetes" / "example"
# What commands of pages make or ask for.
MADE = ("deploy/compose/.env", "deploy/kubernetes/mine")
FOREIGN = ("RayCluster", "ServiceMonitor", "PrometheusRule")

Manifest = dict[str, Any]


def _manifests(text: str) -> list[Manifest]:
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


def _kustomize(folder: Path) -> list[Manifest]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    told = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    return _manifests(told.stdout)


def _closed(schema: Any) -> Any:
    """The schema of a custom resource, in which what it does not list is a mistake."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    opened = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not opened:
        closed["additionalProperties"] = False
    return closed


def _mistakes(manifest: Manifest, schema: Any) -> list[str]:
    """What a schema has against it; the schema itself is not checked, for CRDs hold regular expressions of Go."""
    validator = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)(schema)
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(manifest)]


def _definitions() -> Iterator[tuple[str, str, Any]]:
    """Kind, apiVersion and schema of each custom resource in the folder."""
    if not (folder := os.environ.get("NABLAD_CRDS")):
        pytest.skip("NABLAD_CRDS does not name a folder with the CustomResourceDefinitions")
    for file in sorted(Path(folder).glob("*.yaml")):
        spec = yaml.safe_load(file.read_text(encoding="utf-8"))["spec"]
        for version in spec["versions"]:
            schema = _closed(version["schema"]["openAPIV3Schema"])
            yield spec["names"]["kind"], f"{spec['group']}/{version['name']}", schema


def _validate(manifests: list[Manifest]) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for manifest in manifests:
        if manifest["kind"] not in FOREIGN:
            validator.validate(manifest, "1.32", strict=True)


@pytest.mark.parametrize("path", sorted((DEPLOY / "kubernetes" / "base").glob("*.yaml")), ids=lambda path: path.stem)
def test_kubernetes_knows_every_field(path: Path) -> None:
    """Of its own kinds in the base, strictly."""
    _validate([manifest for manifest in _manifests(path.read_text("utf-8")) if manifest["kind"] != "Kustomization"])


def test_the_example_overlay_is_valid_and_changes_what_operators_change() -> None:
    """All resources, strictly; every patch reaches its place."""
    manifests = _kustomize(EXAMPLE)
    _validate(manifests)
    found = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in manifests}
    ray = found["RayCluster", "nablad-ray"]["spec"]
    (group,) = ray["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (4, 4, 4)
    assert group["template"]["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "8", "memory": "16Gi"}
    assert found["PodDisruptionBudget", "nablad-ray-workers"]["spec"]["minAvailable"] == group["replicas"] - 1
    (container,) = found["StatefulSet", "nablad"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "4Gi"}}
    nodes = [node["template"]["spec"]["containers"][0]["image"] for node in (ray["headGroupSpec"], group)]
    registry = "registry.example.com"
    assert nodes == [f"{registry}/nablad-worker-node:0.1.0"] * 2
    assert container["image"] == f"{registry}/nablad:0.1.0"
    claim = found["PersistentVolumeClaim", "nablad-data"]["spec"]
    assert (claim["storageClassName"], claim["resources"]["requests"]["storage"]) == ("nfs", "200Gi")
    assert "observability" in str(found["NetworkPolicy", "nablad-service"]["spec"]["ingress"][1])
    for kind in ("ServiceMonitor", "PrometheusRule"):
        assert found[kind, "nablad"]["metadata"]["labels"]["release"] == "prometheus"


def test_every_board_is_in_a_config_map() -> None:
    """As it was, under a name without a digest, with the label that Grafana's sidecar looks for."""
    maps = {each["metadata"]["name"]: each for each in _kustomize(EXAMPLE) if each["kind"] == "ConfigMap"}
    boards = list((DEPLOY / "grafana" / "dashboards").glob("*.json"))
    assert maps.keys() == {f"nablad-dashboard-{board.stem}" for board in boards}
    for board in boards:
        found = maps[f"nablad-dashboard-{board.stem}"]
        assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert json.loads(found["data"][board.name]) == json.loads(board.read_text("utf-8"))


def test_alerts_reach_the_operator_unchanged() -> None:
    """The groups of the PrometheusRule are those of Prometheus's own file; `make rules` copies them."""
    rule = yaml.safe_load((DEPLOY / "kubernetes" / "monitoring" / "prometheus-rule.yaml").read_text("utf-8"))
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules" / "nablad.yml").read_text("utf-8"))
    assert rule["spec"]["groups"] == rules["groups"]


def test_the_base_needs_no_operator_but_that_of_ray() -> None:
    """Monitoring is a choice of the overlay."""
    kinds = {manifest["kind"] for manifest in _kustomize(DEPLOY / "kubernetes" / "base")}
    assert kinds & {*FOREIGN, "ConfigMap"} == {"RayCluster"}


def test_custom_resources_are_what_their_definitions_say() -> None:
    """Of KubeRay and of the Prometheus operator, with every field that they do not know counted as a mistake."""
    schemas = {(kind, version): schema for kind, version, schema in _definitions()}
    manifests = [manifest for manifest in _kustomize(EXAMPLE) if manifest["kind"] in FOREIGN]
    assert {manifest["kind"] for manifest in manifests} == set(FOREIGN)
    for manifest in manifests:
        assert _mistakes(manifest, schemas[manifest["kind"], manifest["apiVersion"]]) == []


def test_the_compose_file_is_valid() -> None:
    """By the schema of the compose specification."""
    schemas = pytest.importorskip("check_jsonschema.builtin_schemas", reason="pip install check-jsonschema")
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8"))
    assert _mistakes(compose, schemas.get_builtin_schema("vendor.compose-spec")) == []


def test_the_compose_file_mounts_what_is_there() -> None:
    """Every path of the repository that a container of it sees, and every volume."""
    folder = DEPLOY / "compose"
    compose = yaml.safe_load((folder / "compose.yaml").read_text(encoding="utf-8"))
    sources = {volume.split(":")[0] for service in compose["services"].values() for volume in service["volumes"]}
    for source in sources:
        assert (folder / source).exists() if source.startswith(".") else source in compose["volumes"], source


@pytest.mark.parametrize("path", sorted((DEPLOY / "ray").glob("*.yaml")), ids=lambda path: path.stem)
def test_ray_cluster_files_are_valid(path: Path) -> None:
    """By Ray's own schema."""
    spec = importlib.util.find_spec("ray")
    assert spec
    assert spec.origin
    schema = json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    assert _mistakes(yaml.safe_load(path.read_text(encoding="utf-8")), schema) == []


def test_systemd_knows_every_line_of_the_units(tmp_path: Path) -> None:
    """With a program that is there in place of an installed one."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    for unit in (DEPLOY / "systemd").glob("*.service"):
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text("utf-8"), flags=re.MULTILINE)
        (tmp_path / unit.name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.glob("*.service")))]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")


def _variables() -> set[str]:
    """Of the service, in container file, compose file, StatefulSet and unit."""
    files = ("container/Dockerfile", "kubernetes/base/service.yaml", "systemd/nablad.service")
    found = {name for file in files for name in re.findall(r"\bNABLAD_[A-Z_]+\b", (DEPLOY / file).read_text("utf-8"))}
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8"))
    return found | {name for name in compose["services"]["nablad"]["environment"] if name.startswith("NABLAD_")}


def test_every_variable_is_a_setting() -> None:
    """What is set for the service is something that it reads."""
    assert _variables() == {"NABLAD_DATA_DIR", "NABLAD_ADDRESS", "NABLAD_METRICS_ADDRESS", "NABLAD_RAY"}
    assert _variables() <= {f"NABLAD_{setting.name.upper()}" for setting in fields(DaemonSettings)}


def _code(path: Path) -> list[str]:
    """The lines of a page's blocks of shell."""
    blocks = re.findall(r"^```sh\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line]


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.stem)
def test_pages_point_at_what_is_there(path: Path) -> None:
    """Their links, and the files of the repository that their commands name."""
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert (path.parent / link).exists(), link
    for file in re.findall(r"(?<![\w/])(?:deploy|docs)/[\w./-]+", "\n".join(_code(path))):
        assert (ROOT / file).exists() or file.startswith(MADE), file


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.stem)
def test_commands_of_pages_exist(path: Path) -> None:
    """Every command of nabla and nablad in a block of shell, and the options that it is given."""
    for line in _code(path):
        for program, arguments in re.findall(r"(?:^|/bin/)(nabla|nablad)((?: [\w./:-]+)+)", line):
            command: click.Command = {"nabla": nabla, "nablad": nablad}[program]
            words = arguments.split()
            while isinstance(command, click.Group):
                name = words.pop(0)
                assert name in command.commands, line
                command = command.commands[name]
            options = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= options, line


def test_compose_gives_grafana_what_its_files_ask_the_environment_for() -> None:
    """A variable that is not there would leave the data source without an address."""
    files = [*(DEPLOY / "grafana" / "provisioning").rglob("*.yaml")]
    asked = {name for file in files for name in re.findall(r"\$\{?([A-Z][A-Z_]+)", file.read_text(encoding="utf-8"))}
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8"))
    assert asked
    assert asked <= set(compose["services"]["grafana"]["environment"])
