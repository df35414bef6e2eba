"""Mappings that the connectors of one family share. They hide the words that several tools use for one fact."""
