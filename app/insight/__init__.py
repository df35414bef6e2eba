"""Analyses of many customers or of whole histories. Hides how results are computed from the log and stored customers.

The analyses are sessions, tickets, rule previews, verification and segment health. They only read.
"""
