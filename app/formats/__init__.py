"""Message formats of SDKs. Hides every field name and encoding of a format behind one message type. Pure.

``decompression`` undoes compression, ``json_text`` makes JSON safe to parse and to store, ``timestamps`` and
``identifiers`` read values that every format shares. ``segment`` is the native format; the other formats become it.
"""
