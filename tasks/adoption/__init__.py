"""A model that a team already has, made the first champion: found, matched with its definition, judged, registered."""
