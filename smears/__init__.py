"""Images of stained blood smears: where they come from, how they are read, split and checked."""
