"""Sources, keys and definitions: who may send, who may ask, and what is asked. Owns their tables.

Each process keeps two snapshots and replaces them whole: :class:`Access` and the compiled ruleset. A counter in
``revisions``, raised in the same transaction as every change, tells a process that its snapshot is out of date.
"""

from app.registry.bootstrap import FirstKeys, bootstrap
from app.registry.definition_store import DefinitionVersion, Kind, body_of
from app.registry.registry import Registry
from app.registry.source_store import Access, Key, Source, WriteKeyGrant
from app.registry.webhook_secrets import SecretRow, WebhookSource

__all__ = [
    "Access",
    "DefinitionVersion",
    "FirstKeys",
    "Key",
    "Kind",
    "Registry",
    "SecretRow",
    "Source",
    "WebhookSource",
    "WriteKeyGrant",
    "body_of",
    "bootstrap",
]
