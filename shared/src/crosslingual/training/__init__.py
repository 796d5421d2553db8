"""What a training run is made of: settings, engine, checkpoints, progress."""
