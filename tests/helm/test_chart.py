"""The chart in deploy/helm: what it makes fits Kubernetes, keeps the worker's rules, and wrong values are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.config import WorkerSettings, load_settings
from tests.support.helm.chart import CHART, RELEASE, ROOT, Chart

pytestmark = [pytest.mark.helm, pytest.mark.timeout(1_200)]

_SETS = ("minimal", "full", "bare")
_KUBERNETES = ("1.27", "1.37")  # the oldest that Chart.yaml admits, and the newest that is published
_CUSTOM = {"ServiceMonitor", "PrometheusRule"}

each_set = pytest.mark.parametrize("values", _SETS)


def _yaml(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def _pod(workload: dict[str, Any]) -> dict[str, Any]:
    return dict(workload["spec"]["template"]["spec"])


def _env(workload: dict[str, Any]) -> dict[str, Any]:
    (container,) = _pod(workload)["containers"]
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


@each_set
def test_lint_has_no_complaint(chart: Chart, values: str) -> None:
    """Also warnings count: `--strict`."""
    done = chart.lint(values)
    assert done.returncode == 0, done.stdout + done.stderr


@each_set
@pytest.mark.usefixtures("validator")
def test_objects_fit_the_schemas_of_kubernetes(chart: Chart, values: str, tmp_path: Path) -> None:
    """An API server ignores a misspelt field, or refuses the object, and then only in the user's cluster."""
    standard = [found for found in chart.objects(values) if found["kind"] not in _CUSTOM]
    files = []
    for number, found in enumerate(standard):
        files.append(tmp_path / f"{number}-{found['kind']}.json")
        files[-1].write_text(json.dumps(found), encoding="utf-8")
    versions = [option for version in _KUBERNETES for option in ("-k", version)]
    done = _validate([*versions, "--strict", "--no-warn", *map(str, files)])
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(standard) >= 2


@pytest.mark.usefixtures("validator")
def test_a_misspelt_field_does_not_fit(chart: Chart, tmp_path: Path) -> None:
    """The validation above can fail."""
    wrong = chart.one("StatefulSet", "minimal")
    wrong["spec"]["podManagmentPolicy"] = wrong["spec"].pop("podManagementPolicy")
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(wrong), encoding="utf-8")
    done = _validate(["-k", _KUBERNETES[-1], "--strict", str(file)])
    assert done.returncode != 0
    assert "podManagmentPolicy" in done.stdout + done.stderr


def _validate(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kubernetes_validate", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@each_set
def test_a_pod_has_more_time_than_a_worker_to_stop(chart: Chart, values: str) -> None:
    """A worker that is killed earlier releases nothing, and its tasks move 10 s later."""
    workers = chart.one("StatefulSet", values)
    assert _pod(workers)["terminationGracePeriodSeconds"] > float(_env(workers)["PIPELINE_STOP_TIMEOUT_S"])


@each_set
def test_the_worker_id_is_the_name_of_the_pod(chart: Chart, values: str) -> None:
    """Kubernetes ignores exit code 5, so nothing else keeps two processes of one id apart."""
    workers = chart.one("StatefulSet", values)
    assert _env(workers)["PIPELINE_WORKER_ID"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert workers["spec"]["podManagementPolicy"] == "Parallel"
    (claim,) = workers["spec"]["volumeClaimTemplates"]
    mounts = {m["name"]: m["mountPath"] for m in _pod(workers)["containers"][0]["volumeMounts"]}
    assert mounts[claim["metadata"]["name"]] == _env(workers)["PIPELINE_STATE_DIR"]


def test_workers_run_the_groups_of_the_values(chart: Chart) -> None:
    """Without the variable, a release that is meant for one group would run all of them."""
    assert _env(chart.one("StatefulSet", "full"))["PIPELINE_GROUPS"] == "main,report"
    assert "PIPELINE_GROUPS" not in _env(chart.one("StatefulSet", "minimal"))


def test_pods_have_no_rights(chart: Chart) -> None:
    """The same for workers and for the job: the restricted pod security standard, and a read-only root."""
    for kind in ("StatefulSet", "Job"):
        pod = _pod(chart.one(kind, "full"))
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}  # noqa: S108


def test_probes_ask_the_worker(chart: Chart) -> None:
    """Liveness must not depend on Kafka, and a rolling update waits for readiness."""
    (container,) = _pod(chart.one("StatefulSet", "full"))["containers"]
    asked = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert asked == {
        "startup": {"path": "/livez", "port": "http"},
        "liveness": {"path": "/livez", "port": "http"},
        "readiness": {"path": "/readyz", "port": "http"},
    }
    assert [port["containerPort"] for port in container["ports"]] == [9000, 7946]


def test_the_variables_and_the_file_are_settings(chart: Chart, tmp_path: Path) -> None:
    """A worker refuses to start with an unknown setting."""
    workers = chart.one("StatefulSet", "full")
    environ = {
        name: value if isinstance(value, str) else "from-a-secret"
        for name, value in _env(workers).items()
        if name.startswith("PIPELINE_")
    }
    file = tmp_path / "pipeline.toml"
    file.write_text(chart.one("ConfigMap", "full", "grafanaDashboard.enabled=false")["data"][file.name])
    settings = load_settings(file=file, environ=environ)
    assert settings.worker.stop_timeout_s == 120
    assert settings.worker.commit_interval_ms == 200
    assert settings.worker.checkpoint_store == "s3://checkpoints/production"
    assert not settings.http.loopback
    assert (settings.http.port, settings.http.token) == (9000, "from-a-secret")
    kafka = settings.kafka
    assert kafka.bootstrap_servers == "kafka-1:9093,kafka-2:9093"
    assert kafka.properties["sasl.password"] == "from-a-secret"
    assert kafka.properties["security.protocol"] == "SASL_SSL"


def test_the_job_needs_nothing_of_the_release(chart: Chart) -> None:
    """A hook before the installation runs before any other object of the chart exists."""
    job = chart.one("Job", "full")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    text = json.dumps(_pod(job))
    assert "configMap" not in text
    assert "serviceAccountName" not in text
    assert _pod(job)["containers"][0]["args"] == ["topics", "apply", "--allow-shorter-retention"]


def test_the_monitoring_objects_select_the_workers(chart: Chart) -> None:
    """They are custom resources, for which Kubernetes publishes no schema; so their structure is compared."""
    service, monitor = (chart.one(kind, "full") for kind in ("Service", "ServiceMonitor"))
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["streams"]}
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint == {"port": "http", "path": "/metrics", "interval": "15s"}
    assert [port["name"] for port in service["spec"]["ports"]] == ["http"]
    workers = chart.one("StatefulSet", "full")
    labels = workers["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert service["spec"]["clusterIP"] == "None"
    assert workers["spec"]["serviceName"] == service["metadata"]["name"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_the_rule_and_the_dashboard_are_those_of_compose(chart: Chart) -> None:
    """Both have one source; templates in annotations must reach Prometheus as they are."""
    rule = chart.one("PrometheusRule", "full")
    assert rule["spec"] == _yaml(ROOT / "deploy/prometheus/alerts.yml")
    (dashboard,) = (
        found["data"]
        for found in chart.objects("full")
        if found["metadata"]["name"] == f"{RELEASE}-dashboard"
    )
    wanted = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text(encoding="utf-8"))
    assert json.loads(dashboard["exactly-once-pipeline.json"]) == wanted


def test_the_disruption_budget_covers_the_workers(chart: Chart) -> None:
    """A drain of several nodes must leave workers for the tasks."""
    budget = chart.one("PodDisruptionBudget", "minimal")["spec"]
    labels = chart.one("StatefulSet", "minimal")["spec"]["template"]["metadata"]["labels"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("app=delays", "app"),
        ("app=", "app"),
        ("image.repository=", "repository"),
        ("kafka.bootstrapServers=", "bootstrapServers"),
        ("replicas=0", "replicas"),
        ("replicas=three", "replicas"),
        ("replica=3", "replica"),
        ("stopTimeoutSeconds=0", "stopTimeoutSeconds"),
        ("kafka.properties.acks=1", "acks"),
        ("checkpoints.store=bucket", "store"),
        ("http.port=80", "port"),
        ("persistence.accessModes={ReadWriteMany}", "accessModes"),
        ("persistence.whenScaled=Keep", "whenScaled"),
        ("extraEnv[0].name=PIPELINE_WORKER_ID", "extraEnv"),
        ("probes.liveness.path=/readyz", "path"),
        ("image.digest=sha256:12", "digest"),
    ],
)
def test_wrong_values_are_refused_by_name(chart: Chart, wrong: str, named: str) -> None:
    """An installation that cannot work must fail before it replaces a worker."""
    error = chart.refusal("minimal", wrong)
    assert "values don't meet the specifications of the schema" in error
    assert named in error


def test_the_notes_say_what_follows_an_exit_code_5(chart: Chart, tmp_path: Path) -> None:
    """And how to look at the workers."""
    notes = chart.notes("minimal", tmp_path)
    assert "after 5" in notes
    assert f"rollout status statefulset/{RELEASE}" in notes
    assert "journals are never truncated" in notes
    assert "processing pauses" not in notes
    assert "processing pauses" in chart.notes("bare", tmp_path)


def test_the_default_stop_timeout_is_that_of_the_worker() -> None:
    """Otherwise the documents would give two."""
    values = _yaml(CHART / "values.yaml")
    assert values["stopTimeoutSeconds"] == WorkerSettings().stop_timeout_s
