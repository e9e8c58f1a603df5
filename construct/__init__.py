"""Turns a channel and a lock into an installer: one shell header and one plain tar."""
