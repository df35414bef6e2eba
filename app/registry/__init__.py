"""Sources, keys and definitions: who may send, who may ask, and what is asked. Owns their tables.

Each process keeps two snapshots and replaces them whole: :class:`Access` and the compiled ruleset. A counter in
``revisions``, raised in the same transaction as every change, tells a process that its snapshot is out of date.
"""

from app.registry.bootstrap import FirstKeys, bootstrap
from app.registry.definitions import Defined, Kind, body_of
from app.registry.hooks import Hook, SecretRow
from app.registry.keys import Access, Key, KeyView, Source
from app.registry.snapshots import Registry

__all__ = [
    "Access",
    "Defined",
    "FirstKeys",
    "Hook",
    "Key",
    "KeyView",
    "Kind",
    "Registry",
    "SecretRow",
    "Source",
    "body_of",
    "bootstrap",
]
