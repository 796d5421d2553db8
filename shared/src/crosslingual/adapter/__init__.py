"""What training exports, and how a diffusers pipeline takes it."""
