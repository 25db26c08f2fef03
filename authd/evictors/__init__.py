"""Ways of ending a live session, one file each."""
