"""Projection of accepted messages into customers. Hides when state is folded forward and when it is replayed.

Start at :mod:`app.projection.project`.
"""
