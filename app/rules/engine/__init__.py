"""Compiles definitions and evaluates them for one customer at one instant.

Hides what a rule needs of the touchpoints (leaves and series) and how a truth and its next change are computed.
"""
