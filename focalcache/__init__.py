"""The console command `focalcache`: every command of the project under one name."""
