"""The chart, without a cluster: it lints, renders what Kubernetes' schemas accept, and refuses wrong values."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools import BIN, CHART, EXAMPLES, HELM, KUBERNETES, Object, fleet, helm, one_trainer, render

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="deploy/get_cluster_tools.sh gets it")
pytestmark = pytest.mark.skipif(not HELM.exists(), reason=f"no {HELM}: deploy/get_helm.sh says why")

# The oldest that the chart allows, and the newest that the schemas know.
VERSIONS = ("1.29", "1.37")
PLAIN = ("allowPlaintext=true",)
RELAYS = (*PLAIN, "relay.enabled=true")
APART = "podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0]"
# Value sets that reach every branch of the templates.
SETS: dict[str, tuple[str, ...]] = {
    "plain": PLAIN,
    "tls": ("tls.secretName=certs",),
    "one-sided tls": ("tls.secretName=certs", "tls.mutual=false", "auth.tokensSecret=tokens", "relay.enabled=true"),
    "roles": ("tls.secretName=certs", "auth.rolesSecret=roles", "auth.tokensSecret=tokens"),
    "cert-manager": ("tls.certManager.enabled=true", "tls.certManager.issuer.name=ca", "tls.certManager.dnsNames={a.example}"),
    "relays": RELAYS,
    "zones": (*RELAYS, "relay.zones={a,b}", f"relay.affinity.{APART}.weight=1", f"relay.affinity.{APART}.podAffinityTerm.topologyKey=host", "relay.maxUnavailable=10%"),
    "relays alone": (*RELAYS, "server.enabled=false", "relay.upstream={trainer:50051}"),
    "relays with several services above": (*RELAYS, "server.enabled=false", "relay.upstream={a:1,b:2}"),
    "relays with an upstream's own authority": (*RELAYS, "relay.upstream={a:1}", "relay.upstreamTlsSecret=far"),
    "no socket": (*RELAYS, "relay.socket.enabled=false"),
    "a socket that is prepared": (*RELAYS, "relay.socket.prepare=false"),
    "metrics": (*RELAYS, "metrics.enabled=true", "metrics.serviceMonitor.enabled=true", "metrics.serviceMonitor.labels.release=p"),
    "no spool": (*PLAIN, "server.spool.enabled=false"),
    "a claim": (*PLAIN, "server.spool.existingClaim=mine", "server.spool.trust=true"),
    "a share": (*PLAIN, "server.spool.storageClass=fast", "server.spool.accessMode=ReadWriteMany"),
    "open network": (*PLAIN, "networkPolicy.enabled=false", "server.podDisruptionBudget.enabled=false"),
    "IPv6": (*RELAYS, "listenHost=[::]"),
    "an image by its digest": (*PLAIN, f"image.digest=sha256:{'a' * 64}", "image.pullSecrets={mine}"),
    "an account": (*PLAIN, "serviceAccount.create=false"),
    "names": (*RELAYS, "nameOverride=weights", f"fullnameOverride={'long' * 15}"),
    "placed": (
        *PLAIN, "server.nodeSelector.disk=fast", "server.tolerations[0].operator=Exists", "server.priorityClassName=high",
        "server.podLabels.team=rl", "server.podAnnotations.note=x", "server.zone=a", "server.settings.max-pulls=9",
        f"server.affinity.{APART}.weight=1", f"server.affinity.{APART}.podAffinityTerm.topologyKey=host",
    ),
}  # fmt: skip


def settings(values: tuple[str, ...]) -> list[str]:
    return [word for value in values for word in ("--set", value)]


def rendered(name: str, folder: Path) -> list[Object]:
    if name == "fleet":
        return fleet()
    if name == "one_trainer":
        return one_trainer(folder)
    return render("refit", CHART, "-n", "rl", *settings(SETS[name]))


def pod_specs(objects: list[Object]) -> list[Object]:
    return [o["spec"]["template"]["spec"] for o in objects if "template" in o.get("spec", {})]


def containers(objects: list[Object]) -> list[Object]:
    """Those of ours."""
    every = [c for pod in pod_specs(objects) for c in [*pod.get("initContainers", []), *pod["containers"]]]
    return [c for c in every if c["name"].startswith("refit-")]


@pytest.fixture(params=[*SETS, "fleet", "one_trainer"], scope="module")
def objects(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    return rendered(request.param, tmp_path_factory.mktemp("rendered"))


@pytest.fixture(scope="module")
def accepted() -> set[str]:
    """Takes what was found good, as text: most sets have objects in common, and a look takes a tenth of a second."""
    return set()


@pytest.fixture(scope="module")
def server_help() -> str:
    return subprocess.run([BIN / "refit-server", "--help"], capture_output=True, text=True, check=True).stdout


def test_lint(tmp_path: Path) -> None:
    for chart, values in ((CHART, settings(PLAIN)), (CHART, ["-f", str(EXAMPLES / "fleet/values.yaml")])):
        done = helm("lint", "--strict", "--kube-version", KUBERNETES, chart, *values)
        assert done.returncode == 0, done.stdout + done.stderr
    one_trainer(tmp_path)
    done = helm("lint", "--strict", "--kube-version", KUBERNETES, tmp_path / "helm/examples/one_trainer")
    assert done.returncode == 0, done.stdout + done.stderr


def test_kubernetes_accepts_it(objects: list[Object], accepted: set[str]) -> None:
    for found in objects:
        text = json.dumps(found, sort_keys=True)
        if found["apiVersion"].split("/")[0] in ("cert-manager.io", "monitoring.coreos.com") or text in accepted:
            continue  # no objects of Kubernetes (test_foreign_objects), or the same as in another set
        for version in VERSIONS:
            kubernetes_validate.validate(found, version, strict=True)
        accepted.add(text)


def test_no_rights(objects: list[Object]) -> None:
    """What Pod Security calls restricted, for each container of ours."""
    for pod in pod_specs(objects):
        assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & pod.keys()
    assert containers(objects)
    for container in containers(objects):
        security = container["securityContext"]
        assert security["runAsNonRoot"] is True and security["runAsUser"] > 0
        assert security["readOnlyRootFilesystem"] is True and security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]} and security["seccompProfile"] == {
            "type": "RuntimeDefault"
        }


def test_a_hostpath_is_the_only_thing_beyond_restricted(objects: list[Object]) -> None:
    for pod in pod_specs(objects):
        kinds = {kind for volume in pod.get("volumes", []) for kind in volume if kind != "name"}
        assert kinds <= {"projected", "secret", "configMap", "emptyDir", "persistentVolumeClaim", "hostPath"}
        for container in pod.get("initContainers", []):
            if not container["name"].startswith("refit-"):
                assert "hostPath" in kinds and container["securityContext"]["capabilities"]["add"] == [
                    "CHOWN",
                    "FOWNER",
                ]


def flags(container: Object) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for argument in container["args"]:
        name, _, value = argument.partition("=")
        found.setdefault(name, []).append(value)
    return found


def mebibytes(size: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([MGT])iB?", size).groups()  # type: ignore[union-attr]
    return int(number) << {"M": 0, "G": 10, "T": 20}[unit]


def test_memory_is_limited_to_what_is_asked_for(objects: list[Object]) -> None:
    for container in containers(objects):
        asked = sum(mebibytes(flags(container)[flag][0]) for flag in ("--memory", "--pack-memory", "--delta-memory"))
        resources = container["resources"]
        assert mebibytes(resources["limits"]["memory"]) >= asked + 256
        assert resources["requests"]["memory"] == resources["limits"]["memory"] and "cpu" not in resources["limits"]


def test_probes_go_to_the_health_port(objects: list[Object]) -> None:
    for container in containers(objects):
        health = int(flags(container)["--health"][0].rsplit(":", 1)[1])
        probes = [container[probe] for probe in ("startupProbe", "livenessProbe")]
        assert all(probe["grpc"] == {"port": health} for probe in probes)
        ready = container.get("readinessProbe", {"grpc": {"service": "refit.v1.PullService", "port": health}})
        assert ready["grpc"] == {"service": "refit.v1.PullService", "port": health}


def test_termination_leaves_time_for_the_grace(objects: list[Object]) -> None:
    for pod in pod_specs(objects):
        for container in containers([{"spec": {"template": {"spec": pod}}}]):
            assert pod["terminationGracePeriodSeconds"] >= int(flags(container)["--grace"][0]) + 10


def test_no_key_is_open_and_every_file_is_mounted(objects: list[Object]) -> None:
    for pod in pod_specs(objects):
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        volumes |= {"refit-spool": {}} if "refit-spool" not in volumes else {}
        for container in containers([{"spec": {"template": {"spec": pod}}}]):
            mounts = {mount["mountPath"]: mount for mount in container.get("volumeMounts", [])}
            assert all(mount["name"] in volumes and "subPath" not in mount for mount in mounts.values())
            files = [v for values in flags(container).values() for v in values if v.startswith("/etc/refit/")]
            files += [
                entry["value"] for entry in container.get("env", []) if entry.get("value", "").startswith("/etc/")
            ]
            secrets = volumes.get("refit-secrets", {"projected": {"sources": [], "defaultMode": 0o400}})["projected"]
            items = [item for source in secrets["sources"] for item in source["secret"]["items"]]
            assert {f"/etc/refit/{item['path']}" for item in items} == set(files)
            assert secrets["defaultMode"] == 0o400


def test_services_policies_and_budgets_find_their_pods(objects: list[Object]) -> None:
    templates = [o["spec"]["template"] for o in objects if "template" in o.get("spec", {})]

    def chosen(selector: Any) -> list[Object]:
        return [t for t in templates if selector.items() <= t["metadata"]["labels"].items()]

    for found in objects:
        if found["kind"] == "Service":
            pods = chosen(found["spec"]["selector"])
            assert pods, found
            for port in found["spec"]["ports"]:
                for pod in pods:
                    every = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
                    assert port["targetPort"] in [p["name"] for c in every for p in c.get("ports", [])]
        elif found["kind"] in ("NetworkPolicy", "PodDisruptionBudget"):
            selector = found["spec"].get("podSelector", found["spec"].get("selector"))["matchLabels"]
            assert chosen(selector), found
        elif "selector" in found.get("spec", {}) and found["kind"] != "ServiceMonitor":
            labels = found["spec"]["template"]["metadata"]["labels"]
            assert found["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_names_fit_into_labels(objects: list[Object]) -> None:
    for found in objects:
        assert len(found["metadata"]["name"]) <= 63
        for value in found["metadata"].get("labels", {}).values():
            assert len(value) <= 63


def test_flags_are_those_of_the_server(objects: list[Object], server_help: str) -> None:
    unknown = {flag for container in containers(objects) for flag in flags(container) if f"{flag} " not in server_help}
    assert not unknown


def test_settings_are_a_file_that_the_server_takes(tmp_path: Path) -> None:
    chosen = ("server.settings.max-pulls=9", "server.settings.max-tensors=2000000", "server.settings.no-deltas=true",
              "server.settings.delta-history=1GiB", "relay.settings.worker-timeout=0.5")  # fmt: skip
    objects = render("refit", CHART, *settings((*RELAYS, *chosen)))
    maps = {o["metadata"]["name"]: o["data"] for o in objects if o["kind"] == "ConfigMap"}
    expected = {"server": {"max-pulls = 9", "max-tensors = 2000000", "no-deltas = true", 'delta-history = "1GiB"'},
                "relay": {"worker-timeout = 0.5"}}  # fmt: skip
    for role, lines in expected.items():
        file = tmp_path / f"{role}.toml"
        file.write_text(maps[f"refit-{role}-settings"]["refit-server.toml"])
        done = subprocess.run([BIN / "refit-server", "--config", file, "--print-config"], capture_output=True, text=True)
        assert lines == {line.split("  # from")[0] for line in done.stdout.splitlines() if "  # from" in line}, done
    templates = [o["spec"]["template"] for o in objects if "template" in o.get("spec", {})]
    for template in templates:
        (container,) = template["spec"]["containers"]
        assert flags(container)["--config"] == ["/etc/refit-settings/refit-server.toml"]
        (mount,) = [m for m in container["volumeMounts"] if m["mountPath"] == "/etc/refit-settings"]
        (volume,) = [v for v in template["spec"]["volumes"] if v["name"] == mount["name"]]
        assert volume["configMap"]["name"] in maps
    again = render("refit", CHART, *settings((*RELAYS, *chosen, "server.settings.max-pulls=10")))
    before, after = ([o["spec"]["template"]["metadata"]["annotations"] for o in found if "template" in o.get("spec", {})]
                     for found in (objects, again))  # fmt: skip
    assert sum(a != b for a, b in zip(before, after)) == 1, "of the pod whose settings have changed"


def test_foreign_objects() -> None:
    """Of cert-manager and of Prometheus' operator: what they must have, since no schema of theirs is here."""
    objects = fleet()
    monitor = next(o for o in objects if o["kind"] == "ServiceMonitor")
    chosen = [
        o
        for o in objects
        if o["kind"] == "Service" and monitor["spec"]["selector"]["matchLabels"].items() <= o["metadata"]["labels"].items()
        and all(e["key"] in o["metadata"]["labels"] for e in monitor["spec"]["selector"]["matchExpressions"])
    ]  # fmt: skip
    assert [o["metadata"]["name"] for o in chosen] == ["refit", "refit-relays"]
    assert all(monitor["spec"]["endpoints"][0]["port"] in [p["name"] for p in o["spec"]["ports"]] for o in chosen)
    certificates = {o["metadata"]["name"]: o["spec"] for o in objects if o["kind"] == "Certificate"}
    mounted = {
        source["secret"]["name"]
        for pod in pod_specs(objects)
        for volume in pod.get("volumes", [])
        for source in volume.get("projected", {}).get("sources", [])
    }
    assert {spec["secretName"] for spec in certificates.values()} | {"refit-roles"} >= mounted
    roles = next(o for o in objects if o["kind"] == "Secret")["stringData"]["roles"].split("\n")
    assert f"relay {certificates['refit-relay-tls']['commonName']}" in roles
    assert f"worker {certificates['rl-worker']['commonName']}" in roles


# What is wrong, and what the message must name.
WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "nothing said about TLS": ((), "allowPlaintext=true"),
    "a misspelt name": ((*PLAIN, "server.memmory=16Gi"), "memmory"),
    "a misspelt name at the top": ((*PLAIN, "relays.enabled=true"), "relays"),
    "a size of another kind": ((*PLAIN, "server.memory=16GB"), "/server/memory"),
    "a size without a unit": ((*PLAIN, "server.memory=16"), "/server/memory"),
    "a number for a flag": ((*PLAIN, "relay.enabled=1"), "/relay/enabled"),
    "root": ((*PLAIN, "user=0"), "/user"),
    "one service above twice": ((*RELAYS, "relay.upstream={a:1,a:1}"), "/relay/upstream"),
    "an address without a port": ((*RELAYS, "relay.upstream={trainer}"), "/relay/upstream/0"),
    "an address with a scheme": ((*RELAYS, "relay.upstream={http://trainer:1}"), "/relay/upstream/0"),
    "a relative path": ((*RELAYS, "relay.socket.hostPath=run"), "/relay/socket/hostPath"),
    "a relay that keeps nothing": ((*RELAYS, "relay.retain=0"), "/relay/retain"),
    "a setting that is a value": ((*PLAIN, "server.settings.memory=1GiB"), "/server/settings/memory"),
    "a setting with parts": ((*PLAIN, "server.settings.max-pulls={1,2}"), "/server/settings/max-pulls"),
    "plaintext and TLS": ((*PLAIN, "tls.secretName=certs"), "do not go together"),
    "roles without certificates": ((*PLAIN, "auth.rolesSecret=roles"), "auth.rolesSecret"),
    "roles without mutual TLS": (("tls.secretName=certs", "tls.mutual=false", "auth.rolesSecret=r"), "tls.mutual=true"),
    "tokens in the clear": ((*PLAIN, "auth.tokensSecret=tokens"), "auth.tokensSecret"),
    "no issuer": (("tls.certManager.enabled=true",), "tls.certManager.issuer.name"),
    "a monitor without metrics": ((*PLAIN, "metrics.serviceMonitor.enabled=true"), "metrics.enabled=true"),
    "metrics over IPv6": ((*PLAIN, "metrics.enabled=true", "listenHost=[::]"), "IPv4"),
    "relays of nothing": ((*RELAYS, "server.enabled=false"), "relay.upstream"),
    "an old cluster": ((*PLAIN, "KUBERNETES=1.28"), "1.29"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_wrong_values_are_refused(what: str) -> None:
    values, named = WRONG[what]
    version = next((v.split("=")[1] for v in values if v.startswith("KUBERNETES=")), KUBERNETES)
    chosen = settings(tuple(v for v in values if not v.startswith("KUBERNETES=")))
    done = helm("template", "refit", CHART, "--kube-version", version, *chosen)
    assert done.returncode != 0 and named in done.stderr, done.stderr


def test_every_value_is_in_the_schema_and_in_the_file() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def check(described: Any, given: Any, place: str) -> None:
        if described.get("type") != "object" or "properties" not in described:
            return
        assert described["additionalProperties"] is False, place
        missing = described["properties"].keys() ^ given.keys()
        assert missing <= ({"global", "enabled"} if not place else set()), (place, missing)
        for name, inner in given.items():
            check(described["properties"][name], inner, f"{place}/{name}")

    check(schema, values, "")
