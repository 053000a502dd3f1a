"""A cluster of namespaces: runs what a chart renders as a kubelet would, without Kubernetes.

A pod is a network namespace on a bridge; a container has a root, a process and a mount namespace of its own, with the
user, the rights, the environment, the volumes and the arguments that the pod asks for. Names of Services lead to the
pods that they select.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools import BIN, GRPCURL, SLOWNESS, Object

NETWORK = "10.98.76"
SCRIPT = Path(__file__).parent / "container.sh"
# The image's own command, and the programs that our containers run.
ENTRYPOINT = ["refit-server"]
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1")


@dataclass
class Done:
    code: int
    out: str
    err: str


def eventually(holds: Callable[[], Any], what: str, patience: float = 20) -> Any:
    end = time.monotonic() + patience * SLOWNESS
    while not (result := holds()):
        assert time.monotonic() < end, f"did not come about in time: {what}"
        time.sleep(0.05)
    return result


def sudo(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


@dataclass
class Container:
    """A process in a pod."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def running(self) -> bool:
        return self.process.poll() is None

    def terminate(self, patience: float) -> int:
        """SIGTERM, then SIGKILL, as a kubelet does. The exit code of the program; -9 if it had to be killed."""
        self._signal(signal.SIGTERM)
        try:
            return self.process.wait(patience * SLOWNESS)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL

    def kill(self) -> None:
        self._signal(signal.SIGKILL)  # the end of a namespace's first process is that of all in it
        self.process.kill()
        self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        """To the container's first process. That of unshare does not reach it once it is another user."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for child in children.read_text().split() if self.running() else []:
            os.kill(int(child), number)


@dataclass
class Pod:
    cluster: Cluster
    name: str
    node: str
    labels: dict[str, str]
    spec: Object
    number: int
    claims: dict[str, Path]
    containers: list[Container] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number}"

    @property
    def netns(self) -> str:
        return f"{self.cluster.name}-{self.number}"

    @property
    def folder(self) -> Path:
        return self.cluster.folder / self.name

    def described(self, name: str) -> Object:
        return next(c for c in [*self.spec.get("initContainers", []), *self.spec["containers"]] if c["name"] == name)

    # Volumes

    def volume(self, name: str) -> Path:
        group = self.spec.get("securityContext", {}).get("fsGroup", 0)
        if name in self.claims:
            return self.claims[name]
        found = next(volume for volume in self.spec.get("volumes", []) if volume["name"] == name)
        path = self.folder / "volumes" / name
        if "hostPath" in found:
            path = self.cluster.folder / "nodes" / self.node / found["hostPath"]["path"].lstrip("/")
            assert path.is_dir() or found["hostPath"].get("type") == "DirectoryOrCreate", f"no {path} on the node"
            path.mkdir(parents=True, exist_ok=True)
        elif "emptyDir" in found:
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, 0, group)
            path.chmod(0o2777)
        elif "secret" in found:
            self._write_secrets(
                path, [{"secret": {"name": found["secret"]["secretName"]}}], found["secret"]["defaultMode"]
            )
        elif "projected" in found:
            self._write_secrets(path, found["projected"]["sources"], found["projected"]["defaultMode"])
        else:
            raise AssertionError(f"no such volume here: {found}")
        return path

    def renew_secrets(self, name: str) -> None:
        """The volume has what the cluster's Secrets have now."""
        projected = next(volume for volume in self.spec["volumes"] if volume["name"] == name)["projected"]
        path = self.folder / "volumes" / name
        self._write_secrets(path, projected["sources"], projected["defaultMode"], renewed=True)

    def _write_secrets(self, path: Path, sources: list[Object], mode: int, renewed: bool = False) -> None:
        """As the kubelet does: a folder, and links to its files by way of a link that changes at once."""
        if path.exists() and not renewed:
            return
        group = self.spec.get("securityContext", {}).get("fsGroup")
        now = path / f"..{time.monotonic_ns()}"
        for source in sources:
            content = self.cluster.secrets[source["secret"]["name"]]
            for item in source["secret"].get("items", [{"key": key, "path": key} for key in content]):
                file = now / item["path"]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(content[item["key"]])
                file.chmod(mode if group is None else mode | 0o440)
                os.chown(file, 0, group or 0)
        (path / "..data_tmp").symlink_to(now.name)
        (path / "..data_tmp").rename(path / "..data")
        for top in now.iterdir():
            if not (path / top.name).is_symlink():
                (path / top.name).symlink_to(f"..data/{top.name}")

    # Containers

    def _environment(self, container: Object) -> dict[str, str]:
        fields = {"spec.nodeName": self.node, "metadata.name": self.name}
        return {
            entry["name"]: entry["value"] if "value" in entry else fields[entry["valueFrom"]["fieldRef"]["fieldPath"]]
            for entry in container.get("env", [])
        }

    def _command(self, container: Object, command: list[str] | None) -> list[str]:
        """In a container's place: command, or what the container says."""
        said = command or [*container.get("command", ENTRYPOINT), *container.get("args", [])]
        environment = self._environment(container)
        said = [re.sub(r"\$\((\w+)\)", lambda found: environment[found[1]], word) for word in said]
        security = {**self.spec.get("securityContext", {}), **container.get("securityContext", {})}
        user, group = security["runAsUser"], security["runAsGroup"]
        assert user != 0 or not security["runAsNonRoot"]
        groups = [*self.spec["securityContext"].get("supplementalGroups", [])]
        groups.append(self.spec["securityContext"].get("fsGroup", group))
        rights = ",".join("+" + right.lower() for right in security["capabilities"].get("add", []))
        mounts = [
            f"{self.volume(mount['name'])}:{mount['mountPath']}:{'ro' if mount.get('readOnly') else 'rw'}"
            for mount in container.get("volumeMounts", [])
        ]
        assert security["capabilities"]["drop"] == ["ALL"] and not security["allowPrivilegeEscalation"]
        return [
            "ip", "netns", "exec", self.netns,
            "unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child",
            "bash", str(SCRIPT), str(self.folder / "root" / container["name"]), str(BIN),
            str(self.cluster.hosts(self.node)), "ro" if security.get("readOnlyRootFilesystem") else "rw", *mounts, "--",
            "env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin", f"HOSTNAME={self.name}",
            *(f"{name}={value}" for name, value in environment.items()),
            "setpriv", f"--reuid={user}", f"--regid={group}", f"--groups={','.join(map(str, groups))}",
            f"--bounding-set=-all{',' + rights if rights else ''}", f"--inh-caps=-all{',' + rights if rights else ''}",
            "--no-new-privs", *said,
        ]  # fmt: skip

    def begin(self, container: Object, command: list[str] | None = None) -> Container:
        (self.folder / "root" / container["name"]).mkdir(parents=True, exist_ok=True)
        log = self.folder / f"{container['name']}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                self._command(container, command), stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        self.containers.append(Container(container["name"], process, log))
        return self.containers[-1]

    def run(self, name: str, *command: str, patience: float = 40) -> Done:
        """A command in the place of a container, to its end."""
        container = self.described(name)
        (self.folder / "root" / name).mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            self._command(container, list(command)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=patience * SLOWNESS,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self) -> None:
        """What is refit's: containers that end, then sidecars, then the service. Users' containers are left to run()."""
        for container in self.spec.get("initContainers", []):
            if container.get("restartPolicy") == "Always":
                self._start_service(container)
                continue
            done = self.run(container["name"], *container["command"])
            assert done.code == 0, done
        for container in self.spec["containers"]:
            if container["name"].startswith("refit-"):
                self._start_service(container)

    def _start_service(self, container: Object) -> None:
        begun = self.begin(container)
        eventually(
            lambda: self.probe(container["startupProbe"]) or not begun.running(),
            f"startup of {container['name']}: {begun.log.read_text()}",
            patience=container["startupProbe"]["failureThreshold"],
        )
        assert begun.running(), begun.log.read_text()

    def probe(self, probe: Object) -> bool:
        """As the kubelet asks: gRPC, in plain text, from the node."""
        request = json.dumps({"service": probe["grpc"].get("service", "")})
        address = f"{self.address}:{probe['grpc']['port']}"
        words = ["-plaintext", "-max-time", str(probe["timeoutSeconds"] * SLOWNESS), "-d", request, address]
        asked = ["ip", "netns", "exec", self.cluster.name, str(GRPCURL), *words, "grpc.health.v1.Health/Check"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        return done.returncode == 0 and json.loads(done.stdout).get("status") == "SERVING"

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def stop(self) -> dict[str, int]:
        """Exit codes by name. Sidecars end last."""
        patience = self.spec["terminationGracePeriodSeconds"]
        codes = {container.name: container.terminate(patience) for container in reversed(self.containers)}
        self.containers.clear()
        return codes

    def kill(self) -> None:
        for container in self.containers:
            container.kill()
        self.containers.clear()


class Cluster:
    def __init__(self, folder: Path, objects: list[Object], namespace: str = "rl") -> None:
        self.folder = folder
        self.name = f"refit{os.getpid()}"
        self.namespace = namespace
        self.objects = objects
        self.pods: list[Pod] = []
        self._numbers = itertools.count(2)
        self.secrets = {o["metadata"]["name"]: dict(o["stringData"]) for o in objects if o["kind"] == "Secret"}
        sudo("ip", "netns", "add", self.name)
        self._inside("link", "add", "br0", "type", "bridge")
        self._inside("addr", "add", f"{NETWORK}.1/24", "dev", "br0")
        self._inside("link", "set", "br0", "up")
        self._inside("link", "set", "lo", "up")

    def _inside(self, *command: str) -> None:
        sudo("ip", "-n", self.name, *command)

    def find(self, kind: str, name: str) -> Object:
        return next(o for o in self.objects if o["kind"] == kind and o["metadata"]["name"] == name)

    def pod(self, kind: str, owner: str, node: str = "node-0") -> Pod:
        """A pod of a StatefulSet, DaemonSet, Deployment or Job."""
        described = self.find(kind, owner)["spec"]
        template = described["template"]
        number = next(self._numbers)
        group = template["spec"]["securityContext"]["fsGroup"]
        claims = {}
        for claim in described.get("volumeClaimTemplates", []):
            path = self.folder / "claims" / f"{owner}-{claim['metadata']['name']}"
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, 0, group)
            path.chmod(0o2775)
            claims[claim["metadata"]["name"]] = path
        made = Pod(self, f"{owner}-{number}", node, template["metadata"]["labels"], template["spec"], number, claims)
        made.folder.mkdir()
        self.pods.append(made)
        sudo("ip", "netns", "add", made.netns)
        self._inside("link", "add", f"veth{number}", "type", "veth", "peer", "name", "eth0", "netns", made.netns)
        self._inside("link", "set", f"veth{number}", "master", "br0", "up")
        sudo("ip", "-n", made.netns, "addr", "add", f"{made.address}/24", "dev", "eth0")
        sudo("ip", "-n", made.netns, "link", "set", "eth0", "up")
        sudo("ip", "-n", made.netns, "link", "set", "lo", "up")
        self._write_hosts()
        return made

    # Names

    def hosts(self, node: str) -> Path:
        return self.folder / f"hosts-{node}"

    def selected(self, service: Object, node: str) -> list[Pod]:
        selector = service["spec"]["selector"].items()
        is_local = service["spec"].get("internalTrafficPolicy") == "Local"
        return [pod for pod in self.pods if selector <= pod.labels.items() and (not is_local or pod.node == node)]

    def _write_hosts(self) -> None:
        for node in {pod.node for pod in self.pods}:
            lines = ["127.0.0.1 localhost"]
            for service in (o for o in self.objects if o["kind"] == "Service"):
                name = service["metadata"]["name"]
                names = f"{name} {name}.{self.namespace} {name}.{self.namespace}.svc {name}.{self.namespace}.svc.cluster.local"
                lines += [f"{pod.address} {names}" for pod in self.selected(service, node)]
            self.hosts(node).write_text("\n".join(lines) + "\n")

    # Certificates

    def issue_certificates(self) -> None:
        """As cert-manager does: a Secret for each Certificate, of one authority."""
        self._authority.mkdir()
        sudo("openssl", "req", "-x509", *NEW_KEY, "-subj", "/CN=ca", *self._files("ca"))
        for asked in (o["spec"] for o in self.objects if o["kind"] == "Certificate"):
            self.issue(asked)

    @property
    def _authority(self) -> Path:
        return self.folder / "authority"

    def _files(self, name: str) -> tuple[str | Path, ...]:
        return "-keyout", self._authority / f"{name}.key", "-out", self._authority / f"{name}.crt"

    def issue(self, asked: Object) -> None:
        """A Certificate's Secret; again: a renewed one."""
        names = [f"DNS:{name}" for name in asked.get("dnsNames", [])]
        usages = {"server auth": "serverAuth", "client auth": "clientAuth"}
        extended = ",".join(usages[usage] for usage in asked["usages"] if usage in usages)
        extensions = ["-addext", f"extendedKeyUsage={extended}", "-addext", "basicConstraints=critical,CA:false"]
        extensions += ["-addext", f"subjectAltName={','.join(names)}"] if names else []
        signer = ("-CA", self._authority / "ca.crt", "-CAkey", self._authority / "ca.key")
        subject = ("-subj", f"/CN={asked['commonName']}")
        sudo("openssl", "req", "-x509", *signer, *NEW_KEY, *extensions, *subject, *self._files("tls"))
        content = {name: (self._authority / name).read_text() for name in ("tls.crt", "tls.key", "ca.crt")}
        self.secrets[asked["secretName"]] = content

    def served_certificate(self, pod: Pod, port: int) -> str:
        """What the pod shows to whoever connects."""
        asked = ["openssl", "s_client", "-connect", f"{pod.address}:{port}"]
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *asked],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        found = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", done.stdout, re.DOTALL)
        return found[0] if found else done.stderr

    def delete(self, pod: Pod) -> None:
        """Its name and its network are gone; its claims stay."""
        pod.kill()
        self.pods.remove(pod)
        self._write_hosts()
        subprocess.run(["ip", "netns", "del", pod.netns], check=False, capture_output=True)

    def close(self) -> None:
        for pod in list(self.pods):
            self.delete(pod)
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)
