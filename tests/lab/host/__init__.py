"""The lab's host side: fetches what it needs, boots it, runs one job in it, and says how that ended."""
