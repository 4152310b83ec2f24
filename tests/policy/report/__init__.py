"""`make policy-report`: how well and how fast the policies judge labelled data.

One module for each task, with a function `measure(data)` that yields rows; `__main__` lists them, prints the rows and
fails where a goal is missed. The data is in `tests/fixtures/eval`, which names sources and licences; any folder of the
same form can be measured in its place.
"""
