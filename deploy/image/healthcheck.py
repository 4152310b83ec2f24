"""The container's health check: exit 0 while `/healthz` answers 200 on the gateway's port, else 1.

The standard library only, and no import of the gateway: it runs every few seconds.
"""

import http.client
import os
import sys


def healthy(port: int) -> bool:
    """Whether the gateway on this machine's `port` answers within two seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if healthy(int(os.environ.get("KT_HEALTH_PORT", "41002"))) else 1)
