"""Message formats of SDKs. Hides the field names and encodings of each format behind one message type. Pure.

``decompression`` decompresses bodies, ``json_text`` makes JSON safe to parse and to store, and ``timestamps`` and
``identifiers`` parse values that all formats share. ``segment`` is the native format; the others are converted to it.
"""
