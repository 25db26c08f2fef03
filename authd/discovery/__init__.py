"""How a daemon without enough peers finds others: rendezvous records, and multicast on the LAN.

Whatever is found is a hint where somebody may listen. Who that is, and whether it is let in, is
settled by the gossip handshake alone.
"""
