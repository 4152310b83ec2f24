"""The API token of a state folder: by it this machine's own user may do everything over the API.

Whoever can read the state folder can read and change the store itself, so the token gives them nothing new.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

TOKEN_FILE: Final = "api-token"  # noqa: S105 (a file's name)


def api_token(state_folder: Path) -> str:
    """The token of this state folder; made if there is none. Raises OSError."""
    path = state_folder / TOKEN_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="ascii").strip()
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        token = f"kt_api_{secrets.token_urlsafe(32)}"
        file.write(token + "\n")
    return token
