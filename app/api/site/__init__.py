"""HTML pages for people: home page, API documentation, guides. Hide their layout, styles and Markdown rendering.

All addresses are relative and all files come from this server, so the pages need no internet and work behind a path
prefix. They contain nothing about this installation except its version.
"""
