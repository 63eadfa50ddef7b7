"""Where job records live until redeemed."""

from .base import Store
from .memory import MemoryStore

__all__ = ["MemoryStore", "Store", "open_store"]


def open_store(url: str) -> Store:
    """The store that a URL names; `ValueError` for one that is not known."""
    if url == "memory:":
        return MemoryStore()
    raise ValueError("the store must be memory:")
