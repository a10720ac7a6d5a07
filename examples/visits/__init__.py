"""Visits to a web shop: sessions, with late clicks in a topic of their own."""
