"""What a pull cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Optional


@dataclass(frozen=True)
class Traffic:
    """In which form a version's bytes came.

    Attributes:
        wire_bytes: over the connection, or in shared memory. With a base, much less than the version's bytes.
        mapped_bytes: of these, bytes that nobody moved: the tensors are the service's own memory, on this host.
        raw_chunks, delta_chunks, unchanged_chunks: pieces that came as they are; as changes of the base's; and not at
            all, because the base has them.
        changed_elements: that the changes changed.
        base_version: whose tensors the rest came from. None: no base was used.
        base_refused: why the base was not used, or only at first; empty otherwise.
    """

    wire_bytes: int
    mapped_bytes: int
    raw_chunks: int
    delta_chunks: int
    unchanged_chunks: int
    changed_elements: int
    base_version: Optional[int]
    base_refused: str

    @classmethod
    def of(cls, counts: Dict[str, Any]) -> "Traffic":
        return cls(**{field: counts[field] for field in cls.__dataclass_fields__})
