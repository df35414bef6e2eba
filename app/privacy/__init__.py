"""Privacy operations. Hides which tables hold the free text of people and their erasure requests."""
