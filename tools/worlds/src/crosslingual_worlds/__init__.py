"""Complete small universes to train and measure in, with exact or checked judges."""
