"""Move orders of Shopify that are identities to the table of objects.

An order moves if it only links to one person, and no message belongs to it. The link becomes the owner. All other
orders stay identities: orders whose refund is stored under them, orders that join several persons, orders whose id is
the id of a customer, and orders whose link was undone or is only a claim of a public key.

If a customer had too many orders, each further order was a customer of its own. These customers have no messages, and
are deleted with their orders.

Flushes of running servers wait for the migration, so that no flush links to an order that has moved. The migration
touches each order once, so it may need more time than other migrations.
"""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

UP = """
SET LOCAL statement_timeout = '30min';
LOCK TABLE customers IN EXCLUSIVE MODE;
CREATE TEMPORARY TABLE moved_orders ON COMMIT DROP AS
SELECT i.id, i.value, i.customer_id, p.kind AS owner_kind, p.value AS owner_value
FROM identities i
JOIN links l ON l.weaker = i.id
JOIN identities p ON p.id = l.stronger
WHERE i.kind = 'shopify_order' AND p.kind <> 'shopify_order' AND l.kind = 'link' AND l.undone_at IS NULL
  AND (l.vouched OR l.source IN (SELECT key FROM sources WHERE kind = 'shopify'))
  AND NOT EXISTS (SELECT FROM links o WHERE o.weaker = i.id AND o.stronger <> l.stronger)
  AND NOT EXISTS (SELECT FROM links o WHERE o.stronger = i.id)
  AND NOT EXISTS (SELECT FROM touchpoints t WHERE t.identity_id = i.id)
  AND NOT (i.customer_id = i.id AND EXISTS (SELECT FROM identities o WHERE o.customer_id = i.id AND o.id <> i.id));
CREATE UNIQUE INDEX ON moved_orders (id);
ANALYZE moved_orders;
INSERT INTO object_owners AS o (id, kind, value, owner_kind, owner_value, is_identity)
SELECT i.id, i.kind, i.value, m.owner_kind, m.owner_value, m.id IS NULL
FROM identities i LEFT JOIN moved_orders m ON m.id = i.id
WHERE i.kind = 'shopify_order'
ON CONFLICT (id) DO UPDATE
SET owner_kind = coalesce(o.owner_kind, excluded.owner_kind),
    owner_value = coalesce(o.owner_value, excluded.owner_value), is_identity = excluded.is_identity;
INSERT INTO object_owners (id, kind, value, is_identity)
SELECT DISTINCT t.identity_id, t.carried -> 0 ->> 0, t.carried -> 0 ->> 1, true
FROM deferred d
JOIN touchpoints t ON t.identity_id = d.identity_id AND t.received_at = d.received_at
                  AND t.message_id = d.message_id AND t.source = d.source
WHERE t.carried -> 0 ->> 0 = 'shopify_order'
ON CONFLICT (id) DO UPDATE SET is_identity = true;
DELETE FROM links l USING moved_orders m WHERE l.weaker = m.id;
DELETE FROM identities i USING moved_orders m WHERE i.id = m.id;
DELETE FROM moved_orders m WHERE EXISTS (SELECT FROM identities i WHERE i.customer_id = m.customer_id);
DELETE FROM transitions t USING moved_orders m WHERE t.customer_id = m.customer_id;
DELETE FROM older_points p USING moved_orders m WHERE p.customer_id = m.customer_id;
DELETE FROM checkpoints c USING moved_orders m WHERE c.customer_id = m.customer_id;
DELETE FROM customers c USING moved_orders m WHERE c.id = m.customer_id
"""


def upgrade() -> None:
    for statement in UP.split(";\n"):
        op.execute(statement)


def downgrade() -> None:
    """Keep the rows: servers of earlier releases make orders identities again as messages arrive."""
