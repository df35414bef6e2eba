"""Mappings that connectors of one family share. Hide which words several tools use for one fact."""
