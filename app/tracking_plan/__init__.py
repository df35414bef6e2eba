"""Tracking plan. Hides how event schemas are compiled, stored and checked."""
