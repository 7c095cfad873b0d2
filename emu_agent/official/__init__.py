"""The published Emu3.5: its folders, its tasks, exploring by words, what a folder needs."""
