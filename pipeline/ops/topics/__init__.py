"""Topics as code: declared in files, compared with a cluster, applied to it, and exported from it."""
