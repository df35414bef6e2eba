"""Tracking plan. Hides how the schemas of events are compiled, stored and checked."""
