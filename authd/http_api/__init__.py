"""HTTP: broker dialects, the plugin's socket, the operator's socket, health and metrics."""
