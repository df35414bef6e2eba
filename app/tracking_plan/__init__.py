"""Tracking plan: compiles, stores and checks the schemas of events."""
