"""Projection: computes customers, their stages and their segments from accepted messages.

Start at :mod:`app.projection.project`. Callers do not decide when a state is folded forward and when it is replayed.
"""
