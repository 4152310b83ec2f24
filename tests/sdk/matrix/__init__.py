"""Every official SDK against every provider's own format, through the gateway: `make sdk-matrix` prints the table."""
