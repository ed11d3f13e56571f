"""Referring domains that are counted by name, so that made-up ones can be told from them

Revision ID: 20261121_referrers
Revises: 20261121_entity_index
"""

import sqlalchemy as sa
from alembic import op

revision = "20261121_referrers"
down_revision = "20261121_entity_index"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "referrer_domains",
        sa.Column("domain", sa.Text, nullable=False),
        sa.Column("first_seen_on", sa.Date, nullable=False),
        sa.Column("last_seen_on", sa.Date, nullable=False),
        sa.PrimaryKeyConstraint("domain", name="referrer_domains_pkey"),
    )
    # Who sends readers already is known, those who sent most first: what the site's daily rows name
    op.execute("""
        INSERT INTO referrer_domains (domain, first_seen_on, last_seen_on)
        SELECT referrer.key, min(day), max(day)
        FROM daily_stats CROSS JOIN LATERAL jsonb_each(views_by_referrer) AS referrer
        WHERE entity_type = 'site' AND referrer.key <> '(other)'
        GROUP BY referrer.key
        ORDER BY sum(CAST(referrer.value AS bigint)) DESC, referrer.key
        LIMIT 10000
    """)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("referrer_domains")
