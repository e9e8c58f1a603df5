"""ldapauthenticator with time limits, several servers, a group of administrators, and a reason for each failure."""
