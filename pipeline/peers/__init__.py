"""The TCP connections between the workers of an app, by which they see each other's end: `PeerSockets`."""
