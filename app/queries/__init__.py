"""Read queries about customers, segments and open streams: exact as of an instant. They write nothing."""
