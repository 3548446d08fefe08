"""What this program knows of Prefect's inside: its server's process, its senders, its runs. No flow belongs here."""
