"""Who may talk to Ray: the token that its processes show each other, settled before ray is imported."""

import os
from pathlib import Path


def token_there() -> bool:
    """Say whether Ray would find a token of this user's; it looks in these places."""
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / ".ray" / "auth_token").is_file()
