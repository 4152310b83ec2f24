"""The control plane's database: what must last and must be changed by people, keys above all."""

from gateway.control.store.store import Store

__all__ = ["Store"]
