"""Compiled nodes: for each head, one or more classes that decide whether it holds and when it can change."""
