"""What a worker measures about itself: events are counted by a `Meter`, states are taken as `WorkerFigures`.

Nothing here knows Prometheus or HTTP. Without a meter in the environment, nothing is counted.
"""
