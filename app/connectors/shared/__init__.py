"""Mappings that the connectors of one family share. Hides the words that several tools use for one fact."""
