"""Parses and validates rules: JSON in, models out, or an error with the path of the node and the remedy.

Hides how a rule is written: heads, modifiers, operators, durations, and which definition refers to which.
"""
