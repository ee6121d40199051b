"""What the mirror does and costs beside what its users would run instead, all on this machine, in one run.

``python -m bench`` runs all cases; the module of each can be run alone, as in
``python -m bench.warm --rounds 3``.
"""
