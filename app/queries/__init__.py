"""Read queries about customers, segments and open streams. Hides how an answer is exact as of an instant.

The queries only read.
"""
