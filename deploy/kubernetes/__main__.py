"""Makes a kustomize overlay from values: python -m deploy.kubernetes --values VALUES.yaml --output FOLDER.

`kubectl apply --kustomize FOLDER` then brings it up. The alerts and the dashboards go in from where they are kept.
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import click
import jsonschema
import yaml

_HERE: Final = Path(__file__).parent
_RULES: Final = _HERE.parent / "prometheus" / "rules"
_DASHBOARDS: Final = _HERE.parent / "grafana" / "dashboards"

Manifest = dict[str, Any]


@click.command()
@click.option(
    "--values", type=click.Path(dir_okay=False, exists=True, path_type=Path), required=True, help="YAML file."
)
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder; replaced.")
def main(values: Path, output: Path) -> None:
    """Make a kustomize overlay from values."""
    checked = _read(values)
    if output.exists() and any(output.iterdir()) and not (output / "kustomization.yaml").exists():
        raise click.ClickException(f"{output} is no overlay: give a folder that may be replaced")
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    here = os.path.relpath(_HERE, output.resolve())
    kustomization = _kustomization(checked, here)
    if checked["monitoring"]["enabled"]:
        kustomization["components"] = [f"{here}/monitoring"]
        kustomization["resources"].append(_add_rules(checked["monitoring"]["labels"], output))
        kustomization["configMapGenerator"] = [_config_map(board) for board in _add_dashboards(output)]
        kustomization["patches"].append(_patch("ServiceMonitor", "nablad", _chosen_by(checked["monitoring"])))
    _write(output / "kustomization.yaml", kustomization)


def _read(path: Path) -> Manifest:
    """The values of a file.

    Raises:
        ClickException: They are not what the schema asks for; it names the first that is not.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        jsonschema.validate(values, json.loads((_HERE / "values.schema.json").read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise click.ClickException(f"{path} is no YAML: {error}") from error
    except jsonschema.ValidationError as error:
        raise click.ClickException(f"{path}: {error.json_path}: {error.message}") from error
    checked: Manifest = values
    return checked


def _kustomization(values: Mapping[str, Any], here: str) -> Manifest:
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"{here}/base"],
        "patches": [
            _patch("StatefulSet", "nablad", _service(values)),
            _patch("PersistentVolumeClaim", "nablad-data", _storage(values["storage"])),
            _patch("RayCluster", "nablad-ray", _ray_cluster(values)),
            _patch("PodDisruptionBudget", "nablad-ray-workers", _disruptions(values["worker_nodes"])),
            _patch("NetworkPolicy", "nablad-service", _network(values["monitoring"])),
        ],
    }


def _service(values: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    container, service = "/spec/template/spec/containers/0", values["service"]
    yield f"{container}/image", values["images"]["service"]
    yield f"{container}/resources/requests", service
    yield f"{container}/resources/limits/memory", service["memory"]


def _storage(storage: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    yield "/spec/storageClassName", storage["class"]
    yield "/spec/resources/requests/storage", storage["size"]


def _ray_cluster(values: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    nodes, container, group = values["worker_nodes"], "template/spec/containers/0", "/spec/workerGroupSpecs/0"
    yield f"/spec/headGroupSpec/{container}/image", values["images"]["worker_node"]
    yield f"{group}/{container}/image", values["images"]["worker_node"]
    for number in ("replicas", "minReplicas", "maxReplicas"):
        yield f"{group}/{number}", nodes["count"]
    resources = {"cpu": str(nodes["cpus"]), "memory": nodes["memory"]}
    yield f"{group}/{container}/resources", {"requests": resources, "limits": resources}


def _disruptions(nodes: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    yield "/spec/minAvailable", nodes["count"] - 1


def _network(monitoring: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    labels = {"kubernetes.io/metadata.name": monitoring["namespace"]}
    yield "/spec/ingress/1/from/0/namespaceSelector/matchLabels", labels


def _patch(kind: str, name: str, values: Iterable[tuple[str, Any]]) -> Manifest:
    """A JSON patch that puts values at paths, whatever is there."""
    steps = [{"op": "add", "path": path, "value": value} for path, value in values]
    return {"target": {"kind": kind, "name": name}, "patch": json.dumps(steps, indent=1)}


def _chosen_by(monitoring: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    yield "/metadata/labels", monitoring["labels"]


def _add_rules(labels: Mapping[str, str], output: Path) -> str:
    """Writes the alerts as the Prometheus operator wants them; the name of the file."""
    rules = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted(_RULES.glob("*.yml"))]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "nablad", "namespace": "nablad", "labels": dict(labels)},
        "spec": {"groups": [group for file in rules for group in file["groups"]]},
    }
    _write(output / "prometheus-rule.yaml", rule)
    return "prometheus-rule.yaml"


def _add_dashboards(output: Path) -> list[Path]:
    """Copies them to where kustomize may read them."""
    return [Path(shutil.copy(board, output)) for board in sorted(_DASHBOARDS.glob("*.json"))]


def _config_map(board: Path) -> Manifest:
    """With the label that the sidecar of Grafana's chart looks for. A name with a digest would be another board."""
    return {
        "name": f"nablad-dashboard-{board.stem}",
        "namespace": "nablad",
        "files": [board.name],
        "options": {"disableNameSuffixHash": True, "labels": {"grafana_dashboard": "1"}},
    }


def _write(path: Path, manifest: Manifest) -> None:
    path.write_text(yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True), encoding="utf-8")


if __name__ == "__main__":
    main()
