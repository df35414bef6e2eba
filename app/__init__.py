"""Segue: touchpoints in, journey stages and segments out."""

__version__ = "0.1.0"
