"""The state behind the status page, recorded as requests pass, in bounded memory."""
