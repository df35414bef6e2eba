"""Measurements and the demo: outside the service, against the service as it is shipped."""
