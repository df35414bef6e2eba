"""Runnable examples that use Segue through its public API."""
