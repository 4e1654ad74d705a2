"""One command a verb, no logic of its own; heavy imports inside, so that help answers at once."""
