"""Webhook connectors. Hide how each tool signs a request, wraps its events and names its fields."""
