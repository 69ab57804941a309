"""`taskforge bench`: how fast the system is on this machine, and what each job costs."""
