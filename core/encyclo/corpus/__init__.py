"""A capture of the user's own texts: `encyclo capture` writes one, `encyclo.open` reads it."""
