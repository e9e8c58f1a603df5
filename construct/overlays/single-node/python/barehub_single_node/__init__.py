"""systemdspawner with a unit for each named server, for any account's name, and with a reason for each failure."""
