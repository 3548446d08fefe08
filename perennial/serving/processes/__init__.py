"""The processes of one server: the one that holds the socket, its workers, and the one that ships. No route is here."""
