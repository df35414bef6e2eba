"""Registry of sources, keys, webhook secrets and definitions. Hides how processes follow changes to them.

Each process caches snapshots and replaces them as a whole: access (:mod:`app.registry.access`), compiled rules
(:mod:`app.registry.compiled_rules`) and the tracking plan. Every change increments a counter in the
table ``revisions``, in the same transaction. Processes read the counters to notice that a snapshot is outdated. Start
reading at
:class:`app.registry.registry.Registry`.
"""
