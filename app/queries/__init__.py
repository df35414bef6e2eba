"""Read queries about customers, segments and open streams. Hides how an answer is exact as of an instant.

They write nothing.
"""
