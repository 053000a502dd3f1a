"""refit.serve() takes what refit-server takes."""

import inspect
import pathlib
import re
import subprocess

import pytest

import refit
from conftest import f32
from refit import _refit
from refit.integrations.hosting import Hosting

# A program's own business: it ends by signals, and has a supervisor. --grace is Service.close(grace).
PROGRAM = {"--help", "--version", "--port-file", "--grace", "--self-check"}
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
def test_a_plug_s_service_takes_it(argument):
    value = 2 if argument == "retain" else SAMPLES[SETTINGS[argument][1]]
    hosting = Hosting({argument: value, "listen": "127.0.0.1:0", **({} if argument == "memory" else {"memory": "64MiB"})})
    hosting.start()
    hosting.close()


@pytest.mark.parametrize("argument", [name for name, (_, takes, _) in SETTINGS.items() if takes in SAMPLES and takes])
def test_what_is_no_value_is_refused_by_the_argument_s_name(argument):
    with pytest.raises(refit.InvalidArgument, match=f": {argument}: expected .*, got 'a while'"):
        refit.serve(**{argument: "a while"})


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
        with pytest.raises(refit.DeadlineExceeded, match=r"200ms.*--push-idle-timeout.*refit\.serve\(push_idle_timeout="):
            version.push({"b": f32(1)})
            version.commit()
