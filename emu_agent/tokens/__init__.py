"""Everything that turns text, pictures and actions into token ids and back."""
