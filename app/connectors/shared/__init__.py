"""Mappings that the connectors of one family share. Hides the different words of the tools for one fact."""
