"""How long the parts that tests share wait for what should come at once, before they call it missing.

The Python agent's harness and its stand-ins use it. It is a bound that only a broken program reaches, never a
pause: on a busy machine it may be long without making any passing test slower.
"""

PATIENCE_SECONDS = 30
