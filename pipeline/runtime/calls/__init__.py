"""The calls of async handlers: the worker's event loop, the slots of a group, and the order of a partition."""
