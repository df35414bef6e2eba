"""The read side: one named statement a question, exact at the instant it speaks of."""
