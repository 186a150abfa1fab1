"""What `tilefuse bench` runs."""
