"""Decisions: what to send, what an answer means, what happens next.

Nothing in this room does I/O, looks at a clock or rolls dice: time and chance come in as
arguments, so every rule here is tested with plain calls and no event loop.
"""
