"""Analyses of many customers or of histories: sessions, tickets, previews, verification, segment health.

They compute their results from the log and the stored customers, and write nothing.
"""
