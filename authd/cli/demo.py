"""``authd demo``: the whole path on this host, narrated."""
