"""The REST API `/api/v1`: one table of routes (`table.py`), the types of what goes in and out, and what serves them."""
