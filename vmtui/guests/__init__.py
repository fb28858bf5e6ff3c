"""What a virtual machine boots from, how its process is kept, and how its inside is reached, whatever runs it."""
