"""Webhook connectors: translate the webhook requests of vendor tools into Segment-style messages.

Hides how a tool signs its requests, wraps its events and names its fields. Every module here is pure: no I/O and
no clock; the time of arrival and fetched certificates are fields of the request object.
"""
