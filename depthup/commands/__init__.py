"""What each command does, between the command line and the rooms: files in, files out, plain facts returned."""
