"""Baseline service that Segue is compared with."""
