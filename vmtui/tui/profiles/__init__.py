"""What the view of profiles is made of: which ones there are, plans and their progress as lines, and its dialogs."""
