"""Drills: rehearse one failure on the live workers of an app, and report what it cost.

    workers       finds the app's worker processes on this host; signals and starts them
    intent        what a drill changes, in a file that is written before each change; `undo` reads it
    observation   the app during a drill: journals, status, pauses of tasks
    judge         what the raw journals prove: each input offset is in exactly one committed entry
    drill         the interface of a drill, and what a drill may use
    *_drills      the drills
    runner        runs one drill from its preconditions to its report
    report, page  the report: JSON with a schema, and one HTML page made from it

A drill ends only processes that it has identified as workers of the app: they hold the lock of a state directory of the
app, and are members of its Kafka group. The processes of another host, or of a container, are not found.
"""
