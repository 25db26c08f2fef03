"""Written by protoc from the contracts under proto/; made again by `make proto`."""
