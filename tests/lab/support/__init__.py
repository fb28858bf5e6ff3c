"""What tests find in the lab."""
