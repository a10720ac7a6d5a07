"""Database sinks: what users declare, the SQL, and the databases' clients."""
