"""What operators run beside the server: backup, restore and check. `control_plane.command_line` calls them."""
