"""The programs that are compared: each does the same job, and knows nothing of the others.

A program reads its `plan.Plan` from the environment. It runs in the environment of its system, which has neither this
project nor its dependencies. So these modules import only the standard library and the client of their system.
"""
