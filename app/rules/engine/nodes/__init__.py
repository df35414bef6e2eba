"""Compiled rule nodes, one class for each head. Hides how a head decides whether it holds and when to check again."""
