"""Topics as code: reads declarations, compares them with a cluster, applies them, and exports them."""
