"""Refits through what the chart renders: its own commands, users, rights, volumes, names and probes, as processes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, Done, Pod, eventually
from tools import CHART, GRPCURL, HELM, Object, fleet, one_trainer, render


def why_not() -> str:
    for tool in (HELM, GRPCURL):
        if not tool.exists():
            return f"no {tool}: deploy/get_helm.sh and deploy/get_grpcurl.sh say why"
    if os.geteuid() != 0:
        return "network namespaces with an address each need root"
    name = f"refit-probe-{os.getpid()}"
    probe = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return f"no network namespaces: {probe.stderr.strip()}" if probe.returncode else ""


pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

SMALL = ("--set", "server.memory=1Gi", "--set", "relay.memory=1Gi")


def client(name: str, labels: dict[str, str] | None = None) -> Object:
    """A pod of the user's, which calls the service over the network."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    spec = {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001},
        "containers": [{"name": "main", "securityContext": security, "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    }  # fmt: skip
    return {
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"template": {"metadata": {"labels": labels or {}}, "spec": spec}},
    }


@pytest.fixture
def make(tmp_path: Path) -> Iterator[type[Cluster]]:
    made: list[Cluster] = []

    def begin(objects: list[Object]) -> Cluster:
        made.append(Cluster(tmp_path, objects))
        return made[-1]

    yield begin  # type: ignore[misc]
    for cluster in made:
        cluster.close()


def content(pod: Pod, path: str) -> bytes:
    return (pod.volume("scratch") / path).read_bytes()


def passed(done: Done) -> Done:
    assert done.code == 0, done
    return done


def test_a_service_on_its_own(make: type[Cluster]) -> None:
    objects = render("refit", CHART, "-n", "rl", "--set", "allowPlaintext=true", *SMALL)
    cluster = make([*objects, client("trainer"), client("worker")])
    service = cluster.pod("StatefulSet", "refit")
    trainer, *workers = (cluster.pod("Deployment", name) for name in ("trainer", "worker", "worker"))
    service.start()
    probes = service.described("refit-server")
    assert service.probe(probes["readinessProbe"]) and service.probe(probes["livenessProbe"])

    address = ("-s", "refit.rl.svc:50051")
    passed(trainer.run("main", "refit", "push", *address, "--synthetic", "gemma4_tiny", "--version", "1"))
    for worker in workers:
        passed(worker.run("main", "refit", "follow", *address, "--count", "1", "--out", "/scratch/policy.safetensors"))
    first, second = (content(worker, "policy.safetensors") for worker in workers)
    assert first == second
    eventually(lambda: version(trainer, *address)["spooled"], "the spool")

    # The pod goes away gracefully, and another one takes over its claim.
    assert service.stop() == {"refit-server": 0}
    cluster.delete(service)
    again = cluster.pod("StatefulSet", "refit")
    again.start()
    passed(workers[0].run("main", "refit", "pull", *address, "--version", "1", "--out", "/scratch/again.safetensors"))
    assert content(workers[0], "again.safetensors") == first


def test_a_fleet_with_certificates_and_roles(make: type[Cluster]) -> None:
    """The example's objects as they are, but for sizes: cert-manager's Certificates, roles, probes beside mutual TLS."""
    cluster = make(
        [
            *fleet(*SMALL),
            certificate("rl-trainer"),
            with_certificate(client("trainer"), "rl-trainer"),
        ]
    )
    cluster.issue_certificates()
    service, trainer = cluster.pod("StatefulSet", "refit"), cluster.pod("Deployment", "trainer")
    stranger = cluster.pod("Deployment", "trainer")
    (cluster.folder / "nodes/node-0/run/refit").mkdir(parents=True)
    worker = cluster.pod("Deployment", "workers")
    service.start()
    assert service.probe(service.described("refit-server")["readinessProbe"])

    address = ("-s", "refit.rl.svc:50051")
    push = ("refit", "push", *address, "--synthetic", "gemma4_tiny")
    passed(trainer.run("main", *push, *TLS, "--version", "1"))
    passed(worker.run("vllm", "refit", "follow", *address, "--count", "1", "--out", "/scratch/policy.safetensors"))
    refused = worker.run("vllm", *push, "--version", "2")
    assert refused.code == 1 and "has the role worker" in refused.err, refused
    unknown = stranger.run(
        "main", "refit", "status", *address, "--tls-ca", "/etc/refit-client/ca.crt", "--connect-timeout", "2"
    )
    assert unknown.code == 4, unknown

    def shown() -> bool:
        return cluster.served_certificate(service, 50051) == cluster.secrets["refit-tls"]["tls.crt"]

    assert shown()
    cluster.issue(cluster.find("Certificate", "refit-tls")["spec"])
    assert not shown()
    service.renew_secrets("refit-secrets")
    eventually(shown, "the renewed certificate")
    assert service.stop() == {"refit-server": 0}


def served(pod: Pod, name: str) -> int:
    """How many pulls it has served whole."""
    return sum('"pull complete"' in line for line in pod.log(name).splitlines())


def test_a_relay_a_node(make: type[Cluster]) -> None:
    """The other half of the example: a version comes to a node once, however many workers map or pull it there."""
    cluster = make([*fleet(*SMALL), certificate("rl-trainer"), with_certificate(client("trainer"), "rl-trainer")])
    cluster.issue_certificates()
    service, trainer = cluster.pod("StatefulSet", "refit"), cluster.pod("Deployment", "trainer")
    relays = {f"node-{zone}": cluster.pod("DaemonSet", f"refit-relay-zone-{zone}", f"node-{zone}") for zone in "ab"}
    for pod in (service, *relays.values()):
        pod.start()
    for relay in relays.values():
        assert relay.probe(relay.described("refit-relay")["readinessProbe"])
    passed(trainer.run("main", "refit", "push", "-s", "refit.rl.svc:50051", *TLS, "--synthetic", "gemma4_tiny"))

    workers = [cluster.pod("Deployment", "workers", node) for node in relays for _ in range(2)]
    follow = ("refit", "follow", "--count", "1", "--out", "/scratch/policy.safetensors")
    for worker in workers:
        passed(worker.run("vllm", *follow))  # REFIT_SERVER: the socket of the node's relay
    assert len({content(worker, "policy.safetensors") for worker in workers}) == 1
    # Without the socket: the relay of the caller's own node, by name.
    passed(workers[0].run("vllm", *follow[:-2], "-s", "refit-relay:50051"))
    pulls = lambda: [served(service, "refit-server"), *(served(relay, "refit-relay") for relay in relays.values())]
    eventually(lambda: pulls() == [2, 3, 2], f"two pulls by relays, and those by workers: {pulls()}")
    for pod in (*relays.values(), service):
        assert set(pod.stop().values()) == {0}


def test_sidecars(make: type[Cluster], tmp_path: Path) -> None:
    """The example with sidecars: they share sockets with the trainer and with vLLM, and no process is seen."""
    cluster = make(one_trainer(tmp_path, *(f"--set=refit.{role}.memory=1Gi" for role in ("server", "relay"))))
    trainer, worker = cluster.pod("Job", "trainer"), cluster.pod("Deployment", "workers")
    trainer.start()
    passed(trainer.run("trainer", "refit", "push", "--synthetic", "gemma4_tiny", "--version", "1"))
    worker.start()
    # vLLM as another user, of the group that may use the socket.
    worker.described("vllm")["securityContext"] |= {"runAsUser": 20002, "runAsGroup": 20002}
    for _ in range(2):
        passed(
            worker.run(
                "vllm",
                "refit",
                "follow",
                "-s",
                "unix:/run/refit/refit.sock",
                "--count",
                "1",
                "--out",
                "/scratch/policy.safetensors",
            )
        )
    assert all(code == 0 for pod in (worker, trainer) for code in pod.stop().values())


def version(pod: Pod, *address: str) -> Object:
    return json.loads(passed(pod.run("main", "refit", "versions", *address, "--json")).out)["versions"][0]


TLS = tuple(
    f"--tls-{flag}=/etc/refit-client/{file}"
    for flag, file in (("ca", "ca.crt"), ("cert", "tls.crt"), ("key", "tls.key"))
)


def certificate(name: str) -> Object:
    spec = {"secretName": f"{name}-tls", "commonName": name, "usages": ["digital signature", "client auth"]}
    return {"kind": "Certificate", "metadata": {"name": name}, "spec": spec}


def with_certificate(owner: Object, name: str) -> Object:
    pod = owner["spec"]["template"]["spec"]
    pod["volumes"].append({"name": "refit-client", "secret": {"secretName": f"{name}-tls", "defaultMode": 0o400}})
    pod["containers"][0]["volumeMounts"].append(
        {"name": "refit-client", "mountPath": "/etc/refit-client", "readOnly": True}
    )
    return owner
