"""PostgreSQL access. Hides the pool, the codecs, the migrations and the embedded server."""
