"""Projection of accepted messages into customers, stages and segments. Hides when a state is folded and when replayed.

Start at :mod:`app.projection.project`.
"""
