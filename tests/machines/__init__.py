"""Test machines: real systemd systems in systemd-nspawn, and what talks to them."""
