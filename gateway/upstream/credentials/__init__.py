"""Credentials that must be fetched and renewed, or that sign each request: the clouds' ways to say who is asking.

`choose.py` reads what the operator wrote and finds what a target needs. `aws.py`, `azure.py` and `google.py` are the
places where credentials come from, each one function over `Machine`, which is all they see of the world. `keeper.py`
fetches ahead of time, beside all requests, and puts what it has into the targets. A request never waits here.
"""
