"""Large attacks on a running server. ``make hostile`` runs them; ``make test`` has smaller versions."""
