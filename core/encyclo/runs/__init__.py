"""What a run is: its checked session, its directory, and how both are opened again."""
