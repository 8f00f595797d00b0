"""Who may talk to Ray: the token that its processes show each other, settled before ray is imported, which reads it then."""

import os
import subprocess
import sys
from pathlib import Path

# Prints "token" where the cluster's own processes show one.
ASK = """
import os, ray
ray.init(log_to_driver=False, logging_level="ERROR")
print(ray.get(ray.remote(num_cpus=0)(lambda: os.environ.get("RAY_AUTH_MODE", "")).remote()))
"""


def token_there() -> bool:
    """Say whether Ray would find a token of this user's; it looks in these places."""
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / ".ray" / "auth_token").is_file()


def show_token_where_asked() -> None:
    """Where RAY_ADDRESS names a cluster that asks for a token and one is there, have Ray show it.

    ``ray start`` asks for a token wherever it finds one, but who names an address does not show his unless told to. He must not
    where none is asked for: the cluster's processes could then not talk to him. A process of its own finds out, since all of
    Ray in a process keeps to one way.
    """
    if not os.environ.get("RAY_ADDRESS") or "RAY_AUTH_MODE" in os.environ or not token_there():
        return
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    asked = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True)
    if asked.returncode or asked.stdout.split()[-1:] == ["token"]:  # a cluster that refuses it will say why once more
        os.environ["RAY_AUTH_MODE"] = "token"
