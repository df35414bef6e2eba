"""Database schema. The migrations create it; a test compares both. Hides which module describes a table.

Each unique key contains the distribution column of its table (customer, identity or hash), and no foreign key crosses
these columns. The tables can therefore be distributed by customer without a rewrite.
"""

from app.postgres.schema import customer_tables, message_tables, registry_tables, statistics_tables
from app.postgres.schema.common import metadata

__all__ = ["customer_tables", "message_tables", "metadata", "registry_tables", "statistics_tables"]
