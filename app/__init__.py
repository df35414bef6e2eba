"""Segue: a service that turns touchpoints into journey stages and segments. Hides all of that behind one HTTP API."""

__version__ = "0.1.0"
