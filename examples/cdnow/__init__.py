"""CDNOW example: import real purchases and compare the segment sizes with the published figures."""
