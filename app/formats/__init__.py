"""From bytes to messages: the only place that knows a format's field names. Pure.

``body`` undoes compression, ``json_text`` makes JSON safe to parse and to store, ``instants`` and ``identifiers``
read values that every format shares; then one module per format family. ``segment`` is the native one.
"""
