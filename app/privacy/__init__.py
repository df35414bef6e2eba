"""Privacy operations: redaction of customers' free text, and the list of erasure requests."""
