"""The process around a worker: assembled from real parts, its signals, and the supervisor of several."""
