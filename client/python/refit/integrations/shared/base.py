"""Which version the next pull needs only the changes of. For the plugs whose engines copy what they are given."""

from __future__ import annotations

from typing import Optional

from refit.pulled_version import PulledVersion


def base_after(version: PulledVersion, *, keep: bool) -> Optional[PulledVersion]:
    """What to keep of a version that was pulled: all of it, if that is wanted (`keep`), or nothing. One that is the
    service's own memory, mapped, is never kept: that would save nothing, and take memory from the service."""
    return version if keep and version.traffic.mapped_bytes == 0 else None
