"""Privacy operations. Hides which tables contain customers' free text and their erasure requests."""
