"""Registry of sources, keys, webhook secrets and definitions. Hides how processes follow changes to them.

Each process caches snapshots and replaces them as a whole: access (:mod:`app.registry.access`), compiled rules
(:mod:`app.registry.compiled_rules`) and the tracking plan. Every change raises a counter in ``revisions`` in its
transaction, by which processes notice that a snapshot is outdated. Start reading at
:class:`app.registry.registry.Registry`.
"""
