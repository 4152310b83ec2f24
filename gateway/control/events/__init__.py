"""The events index: what the audit log tells, in a form that answers questions at once.

The log is the truth; the index is made from it and can be made anew at any time. It is a SQLite file of its own beside
the log, not tables of the store, for three reasons: it is as local as the log it indexes; at full load it takes
thousands of rows a second, which must neither lock the file that keys are in nor travel to a database server; and it
may be thrown away, which nothing in the store may. `ingest` follows the log, `query` reads, `detail` shows one event
from the log itself, `service` ties them to an event loop.
"""
