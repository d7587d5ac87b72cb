"""The configuration: every key declared once, checked before anything is read or written."""
