"""An example of an async handler: logins and the countries of their addresses, which a service knows."""
