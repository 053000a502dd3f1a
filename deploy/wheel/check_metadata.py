"""Checks the metadata of the installed distribution."""

from importlib.metadata import distribution, metadata

found = metadata("refit-rl")
assert found["License-Expression"] == "Apache-2.0", found.items()
assert found["Summary"] and found["Requires-Python"] and found["Description-Content-Type"] == "text/markdown"
assert any("Typed" in classifier for classifier in found.get_all("Classifier"))
files = distribution("refit-rl").files or []
licences = [file for file in files if file.name == "LICENSE"]
assert licences and "Apache License" in licences[0].read_text(), "the wheel has no LICENSE"
names = {file.name for file in files}
assert {"refit", "refit-server", "py.typed", "__main__.py"} <= names, "something is missing"
