"""The control plane's database: what must last and must be changed by people, keys above all.

`store.Store` is what others use. Nothing is imported here: SQLAlchemy takes 0.3 s, and who only glances does without.
"""

from typing import Final

HEAD: Final = "0004"
"""The newest migration, which this program expects."""
