"""Compiled nodes: for each head, one or more classes that decide whether it holds and when it can change.

Hides how each head is evaluated: the engine knows only the interface in :mod:`app.rules.engine.nodes.base`.
"""
