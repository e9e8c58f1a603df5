"""Install, upgrade, roll back and uninstall: everything that changes an installation."""
