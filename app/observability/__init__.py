"""Metrics and logging. Hides Prometheus collectors and the format of log lines."""
