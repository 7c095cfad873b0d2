"""How likely an imagined keyframe is to be achieved."""
