"""Read queries. Hide the statements behind each question and how one is answered exactly as of an instant."""
