"""Registry of sources, keys, webhook secrets and definitions. Hides how processes follow changes to them.

Each process keeps snapshots and replaces them whole: access (:mod:`app.registry.access`), compiled rules
(:mod:`app.registry.compiled_rules`) and the tracking plan. A counter in ``revisions``, raised in the transaction of
every change, tells a process that a snapshot is out of date. Start at :class:`app.registry.registry.Registry`.
"""
