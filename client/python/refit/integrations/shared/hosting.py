"""The service that a plug starts in the trainer's process, where none is given."""

from __future__ import annotations

import fcntl
import ipaddress
import pathlib
import socket
import struct
from typing import Any, Dict, List, Mapping, Optional, Union

from refit.errors import InvalidArgument
from refit.service import Service, serve

_Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]

# Hosts that mean all interfaces, with the families by which such a service is reached, the likelier one first.
_FAMILIES = {"0.0.0.0": (socket.AF_INET,), "[::]": (socket.AF_INET, socket.AF_INET6)}
# Addresses that are reserved for documentation. Nobody has them, so only a default route leads there.
_ELSEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8:ffff::1"}
_SIOCGIFADDR = 0x8915


class Hosting:
    """At most one service, at an address that can be told to others before it runs."""

    def __init__(self, options: Optional[Mapping[str, Any]] = None, advertise: str = ""):
        """
        Args:
            options: of refit.serve(). Without ``listen`` the service is for this host alone; for others it takes
                ``{"listen": "0.0.0.0:0"}`` and TLS, or ``"allow_plaintext": True``.
            advertise: host name or address (IPv6: with brackets or without), without a port, by which others reach this
                host. Default, for a service that listens everywhere: this host's address on the network of the default
                route, or the only address that it has besides loopback.
        Raises:
            InvalidArgument: for an `advertise` that is neither.
        """
        self._options: Dict[str, Any] = dict(options or {})
        self._listen: List[str] = []
        self._advertise = _as_host(advertise)
        self._service: Optional[Service] = None

    @property
    def keeps_versions(self) -> bool:
        """On disk: the service has those of former runs when it starts."""
        return "spool" in self._options

    def reserve(self) -> str:
        """Where others will reach the service, once start() was called: "host:port", or a socket's path.

        Raises:
            InvalidArgument: it listens everywhere, and no address can be told by which others reach it: `advertise` it.
        """
        if not self._listen:
            listen = self._options.get("listen", "127.0.0.1:0")
            addresses = listen.split(",") if isinstance(listen, str) else listen
            self._listen = [_with_port(address.strip()) for address in addresses]
        return self._reached_at(self._listen[0])

    def start(self) -> str:
        """Starts the service if it does not run. The address, as reserve().

        Raises:
            InvalidArgument: as reserve(); as refit.serve().
            Unavailable: as refit.serve().
        """
        address = self.reserve()
        if self._service is None:
            try:
                self._service = serve(**{**self._options, "listen": self._listen})
            except BaseException:
                self._listen = []  # the port may have been taken meanwhile: the next start has another
                raise
        return address

    def close(self) -> None:
        """Ends the service. The next one has another address, unless its port was given. Idempotent."""
        if self._service is not None:
            self._service.close()
        self._service = None
        self._listen = []

    def _reached_at(self, listen: str) -> str:
        host, colon, port = listen.rpartition(":")
        if listen.startswith("unix:") or not colon:
            return listen
        if self._advertise:
            return f"{self._advertise}:{port}"
        return f"{_own_host(host)}:{port}" if host in _FAMILIES else listen


def _with_port(listen: str) -> str:
    """`listen` with a free port in the place of port 0."""
    host, _, port = listen.rpartition(":")
    if port != "0" or listen.startswith("unix:"):
        return listen
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host.strip("[]"), 0))
        return f"{host}:{probe.getsockname()[1]}"


def _as_host(text: str) -> str:
    """A host name or address as it stands before ":port"; an IPv6 address gets brackets. "" stays.

    Raises:
        InvalidArgument: for anything else, such as "host:port".
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return f"[{ipaddress.IPv6Address(bare)}]"
    except ValueError:
        if any(character in text for character in ":/[] "):
            raise InvalidArgument(
                f"advertise: expected a host name or an address, without a port; got {text!r}"
            ) from None
        return text


def _own_host(listen_host: str) -> str:
    """The host by which others reach a service that listens on `listen_host`, "0.0.0.0" or "[::]".

    Raises:
        InvalidArgument: there is none, or more than one to choose from.
    """
    families = _FAMILIES[listen_host]
    for family in families:
        routed = _address_towards(_ELSEWHERE[family], family)
        if routed is not None:
            return _as_host(str(routed))
    found = [address for family in families for address in _interface_addresses(family)]
    if len(found) == 1:
        return _as_host(str(found[0]))
    has = "none of its own" if not found else "several: " + ", ".join(sorted(map(str, found)))
    raise InvalidArgument(
        f"the service listens on {listen_host}, but by which address others reach this host is not to be seen: there "
        f"is no default route, and of addresses beyond loopback it has {has}. Say which with advertise, such as "
        'advertise="trainer-0.example"'
    )


def _reaches_others(address: _Address) -> bool:
    return not (address.is_loopback or address.is_unspecified or address.is_link_local)


def _address_towards(destination: str, family: int) -> Optional[_Address]:
    """This host's address on the way to `destination` (nothing is sent); None if no way leads there."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((destination, 9))
            address = ipaddress.ip_address(probe.getsockname()[0].partition("%")[0])
    except OSError:
        return None
    return address if _reaches_others(address) else None


def _interface_addresses(family: int) -> List[_Address]:
    """Those of this host by which others may reach it."""
    found: List[_Address] = list(_ipv4_of_interfaces() if family == socket.AF_INET else _ipv6_of_interfaces())
    return [address for address in found if _reaches_others(address)]


def _ipv4_of_interfaces() -> List[ipaddress.IPv4Address]:
    """The first address of each interface."""
    addresses = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # it has none
                continue
            addresses.append(ipaddress.IPv4Address(answer[20:24]))
    return addresses


def _ipv6_of_interfaces() -> List[ipaddress.IPv6Address]:
    try:
        lines = pathlib.Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines()
    except OSError:  # a kernel without IPv6
        return []
    return [ipaddress.IPv6Address(bytes.fromhex(line.split()[0])) for line in lines]
