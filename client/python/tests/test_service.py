"""refit.serve() takes what refit-server takes."""

import inspect
import os
import pathlib
import re
import subprocess

import pytest

import refit
from conftest import f32
from refit import _refit
from refit.integrations.shared.hosting import Hosting

# A program's own business: it ends by signals, and has a supervisor. --grace is Service.close(grace).
PROGRAM = {
    "--help",
    "--version",
    "--port-file",
    "--grace",
    "--self-check",
    "--config",
    "--print-config",
    "--completion",
    "--man-page",
}
SETTINGS = _refit.settings()  # argument: (flag, what it takes, help)
ARGUMENTS = inspect.signature(refit.serve).parameters
# A value that differs from the default, of each kind.
SAMPLES = {"SECONDS": 123, "SIZE": "3MiB", "N": 3, "text|json": "json", "LEVEL": "error", "": True}


def test_takes_each_setting_and_no_other():
    assert set(ARGUMENTS) == set(SETTINGS)
    for argument in ARGUMENTS:
        assert re.search(rf"\b{argument}\b", refit.serve.__doc__.split("Args:")[1]), f"{argument} is not documented"


def test_takes_what_the_program_takes():
    program = pathlib.Path(refit.__file__).parents[2] / "bin" / "refit-server"
    if not program.exists():
        pytest.skip(f"{program} is not there: the package was installed without the program")
    said = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    flags = set(re.findall(r"^ +(?:-h,)?(--[a-z-]+)", said, re.MULTILINE))
    assert flags - PROGRAM == {flag for flag, _, _ in SETTINGS.values()}


@pytest.mark.parametrize("argument", [name for name, (_, takes, _) in SETTINGS.items() if takes in SAMPLES])
def test_a_plug_s_service_takes_it(argument, tmp_path):
    value = 2 if argument == "retain" else SAMPLES[SETTINGS[argument][1]]
    beside = {"trust_spool": {"spool": str(tmp_path)}}.get(argument, {})  # says how another is taken
    hosting = Hosting({"listen": "127.0.0.1:0", "memory": "64MiB", **beside, argument: value})
    hosting.start()
    hosting.close()


@pytest.mark.parametrize("argument", [name for name, (_, takes, _) in SETTINGS.items() if takes in SAMPLES and takes])
def test_what_is_no_value_is_refused_by_the_argument_s_name(argument):
    with pytest.raises(refit.InvalidArgument, match=f": {argument}: expected .*, got 'a while'"):
        refit.serve(**{argument: "a while"})


@pytest.mark.parametrize(
    "given, said",
    [
        ({"listen": "0.0.0.0:0"}, r"use TLS \(certificate=, key=\), .* or allow it with allow_plaintext=True$"),
        ({"metrics": "0.0.0.0:0"}, "allow_plaintext=True"),
        ({"spool": "/tmp", "retain": 0}, "spool= keeps committed versions, but with retain=0 there are none"),
        ({"roles": "/dev/null"}, r"\(client_ca=\)"),
        ({"chunk_bytes": 100}, "chunk_bytes= must be a multiple of 64"),
        ({"max_message_bytes": 100}, "max_message_bytes= must be 64 KiB to 64 MiB"),
    ],
)
def test_what_does_not_go_together_is_said_in_arguments(given, said):
    with pytest.raises(refit.InvalidArgument, match=said) as error:
        refit.serve(**given)
    assert "--" not in str(error.value)


def test_a_limit_that_a_version_in_process_meets_is_said_in_arguments():
    with refit.serve(max_tensors=1, memory="64MiB") as service:
        with pytest.raises(refit.ResourceExhausted, match=r"\(max_tensors=\), got 2"):
            service.version(1, adapter="identity").push({"a": f32(1), "b": f32(1)})


def test_more_memory_than_the_machine_has_is_warned_of_in_arguments():
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with pytest.warns(RuntimeWarning, match=rf"\(memory=\) is {4 * machine} bytes, but all that this process may use"):
        refit.serve(memory=4 * machine).close()


def test_beyond_loopback_as_the_readme_has_it():
    with refit.serve("0.0.0.0:0", memory="64MiB", allow_plaintext=True) as service:
        address = "127.0.0.1:" + service.address.rpartition(":")[2]
        with refit.Publisher(address, adapter="identity").version(1) as version:
            version.push({"w": f32(1)})
        assert refit.Subscriber(address).pull().number == 1


def test_listens_at_several_addresses(tmp_path):
    hosting = Hosting({"listen": ["127.0.0.1:0", f"unix:{tmp_path}/plug"], "memory": "64MiB"})
    assert hosting.start().startswith("127.0.0.1:") and refit.Subscriber(f"unix:{tmp_path}/plug")
    hosting.close()
    with refit.serve(["127.0.0.1:0", f"unix:{tmp_path}/socket"], memory="64MiB", socket_mode=0o660) as service:
        assert (tmp_path / "socket").stat().st_mode & 0o777 == 0o660
        assert service.addresses == [service.address, f"unix:{tmp_path}/socket"]
        with refit.Publisher(service.address, adapter="identity").version(1) as version:
            version.push({"w": f32(1)})
        assert refit.Subscriber(service.addresses[1]).pull().number == 1


def test_with_nothing_kept_versions_go_over_the_connection():
    with refit.serve(retain=0, memory="64MiB") as service:
        with pytest.raises(refit.FailedPrecondition, match="refit.Publisher"):
            service.version(1)
        with refit.Publisher(service.address, adapter="identity").version(1, declare={"a": ("f32", [1])}) as version:
            version.push({"a": f32(1)})
        assert version.info.state == "committed"


def test_a_pause_that_is_too_long_names_the_way_out():
    with refit.serve(push_idle_timeout=0.2) as service:
        publisher = refit.Publisher(service.address, adapter="identity")
        version = publisher.version(1, declare={"a": ("f32", [1]), "b": ("f32", [1])})
        version.push({"a": f32(1)})
        next(seen for seen in refit.Subscriber(service.address).watch() if seen.state == "aborted")
        with pytest.raises(
            refit.DeadlineExceeded, match=r"200ms.*--push-idle-timeout.*refit\.serve\(push_idle_timeout="
        ):
            version.push({"b": f32(1)})
            version.commit()
