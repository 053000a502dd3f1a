# The native half: private, and checked by the Python half's tests.
from typing import Any

def __getattr__(name: str) -> Any: ...
