"""What the plugs' own service tells others of its address, in networks of several kinds (each a namespace of its own)."""

import os
import subprocess
import sys

import pytest

import refit
from refit.integrations.shared.hosting import Hosting

# argv: what it listens on, and advertise. Prints the address, or the error; then whether the service answers there.
TELL = """
import sys
import refit
from refit.integrations.shared.hosting import Hosting
hosting = Hosting({"listen": sys.argv[1], "allow_plaintext": True, "memory": "64MiB"}, advertise=sys.argv[2])
try:
    address = hosting.start()
except refit.InvalidArgument as error:
    sys.exit(f"InvalidArgument: {error}")
print(address)
refit.Subscriber(address, connect_timeout=5)
hosting.close()
"""
PAIR = "ip link add d0 type veth peer name d1 && ip link set d1 up && ip link set d0 up && "
LOOPBACK = "ip link set lo up && "


def _can_make_networks():
    """Whether this process may make network namespaces with a pair of interfaces; else why not."""
    try:
        made = subprocess.run(
            ["unshare", "-n", "sh", "-c", LOOPBACK + PAIR + "true"], capture_output=True, text=True, timeout=20
        )
    except FileNotFoundError as error:
        return str(error)
    return "" if made.returncode == 0 else made.stderr.strip() or "unshare failed"


WHY_NOT = _can_make_networks()
needs_networks = pytest.mark.skipif(bool(WHY_NOT), reason=f"no network namespaces here: {WHY_NOT}")


def tell(network, listen, advertise=""):
    """(address, "") or ("", error) of a Hosting in a namespace that `network`, shell commands, sets up."""
    command = f'{LOOPBACK}{network}exec "$@"'
    package = os.path.dirname(os.path.dirname(refit.__file__))
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", command, "x", sys.executable, "-B", "-c", TELL, listen, advertise],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": package},
    )
    if done.returncode != 0:
        assert "InvalidArgument" in done.stderr, done.stderr
    return done.stdout.strip(), done.stderr.strip()


IPV6 = PAIR + "ip addr add 2001:db8::5/64 dev d0 nodad && "
IPV4 = PAIR + "ip addr add 10.77.0.5/24 dev d0 && "


@needs_networks
def test_ipv6_only_with_a_default_route():
    address, error = tell(IPV6 + "ip -6 route add default dev d0 && ", "[::]:0")
    assert address.startswith("[2001:db8::5]:"), error


@needs_networks
def test_networks_without_a_default_route():
    assert tell(IPV6, "[::]:0")[0].startswith("[2001:db8::5]:")
    assert tell(IPV4, "0.0.0.0:0")[0].startswith("10.77.0.5:")
    assert tell(IPV4, "[::]:0")[0].startswith("10.77.0.5:")


@needs_networks
def test_never_loopback_in_silence():
    for network, listen in (("", "0.0.0.0:0"), ("", "[::]:0"), (IPV6, "0.0.0.0:0")):
        address, error = tell(network, listen)
        assert not address and "advertise" in error and "none of its own" in error, (network, listen)


@needs_networks
def test_several_addresses_are_a_question():
    address, error = tell(IPV4 + "ip addr add 10.78.0.5/24 dev d1 && ", "0.0.0.0:0")
    assert not address and "advertise" in error
    assert "10.77.0.5" in error and "10.78.0.5" in error


@needs_networks
@pytest.mark.parametrize("advertise", ["2001:db8::5", "[2001:db8::5]"])
def test_advertised_ipv6_gets_brackets(advertise):
    assert tell(IPV6, "[::]:0", advertise)[0].startswith("[2001:db8::5]:")


@pytest.mark.parametrize("advertise", ["host:1", "http://host", "[::1]:5", "a b", "10.0.0.1:5", "[host]"])
def test_what_cannot_be_advertised(advertise):
    with pytest.raises(refit.InvalidArgument, match="advertise"):
        Hosting(advertise=advertise)


def test_names_are_advertised_as_they_are():
    hosting = Hosting({"listen": "0.0.0.0:0"}, advertise="trainer-0.example")
    assert hosting.reserve().startswith("trainer-0.example:")


def test_loopback_stays_what_was_asked_for():
    with_default = Hosting()
    assert with_default.reserve().startswith("127.0.0.1:")
