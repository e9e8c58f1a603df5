"""What the proxy's unit runs: its configuration, its sockets, its certificates, and traefik itself."""
