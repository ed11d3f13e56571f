"""The next version of the code: this one in another folder, after the *expand* step of a schema's change.

Its migration is a real one, and its writer fills the new column, so what it wrote can be told from the rest.
"""

import shutil
from pathlib import Path

from footfall import schema_check

REVISION = "20991231_newer"
CODE = Path(__file__).resolve().parent.parent.parent
PARTS = ("api", "footfall", "migrations", "worker", "celeryconfig.py", "pyproject.toml")

MIGRATION = f'''
"""Expand: a column, a table and an index that the code of before does not name"""

import sqlalchemy as sa
from alembic import op

revision = "{REVISION}"
down_revision = "{schema_check.code_revision()}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("view_events", sa.Column("written_by", sa.Text()))
    op.create_index("view_events_written_by_index", "view_events", ["written_by"])
    op.create_table("newer", sa.Column("name", sa.Text(), nullable=False), sa.PrimaryKeyConstraint("name"))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("newer")
    op.drop_column("view_events", "written_by")
'''
TABLE = '''

class Newer(Base):
    """What the newer version keeps beside."""

    __tablename__ = "newer"

    name: Mapped[str] = mapped_column(primary_key=True)
'''
COLUMN = "    referrer_domain: Mapped[str | None]\n"
CHANGES = (
    ("schema.py", COLUMN, f"{COLUMN}    written_by: Mapped[str | None] = mapped_column(index=True)\n"),
    ("writer.py", 'COLUMNS = f"{HEAD_COLUMNS}', 'COLUMNS = f"written_by, {HEAD_COLUMNS}'),
    ("writer.py", "(ROW_START, head", "(ROW_START, copying.text('newer'), head"),
    # as on a machine of its own, so that the writers of both are two consumers
    ("cli/up.py", '"{queue}@%h"', '"{queue}@newer"'),
)


def make(folder: Path) -> Path:
    """Its code, in `folder`."""
    for part in PARTS:
        if (CODE / part).is_dir():
            shutil.copytree(CODE / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(CODE / part, folder / part)
    (folder / "migrations" / "versions" / f"{REVISION}.py").write_text(MIGRATION.lstrip())
    for name, before, after in CHANGES:
        file = folder / "footfall" / name
        assert file.read_text().count(before) == 1, f"{name} has changed: {before}"
        file.write_text(file.read_text().replace(before, after))
    schema = folder / "footfall" / "schema.py"
    schema.write_text(schema.read_text() + TABLE)
    return folder
